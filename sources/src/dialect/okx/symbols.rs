//! What OKX's instrument ids stand for.
//!
//! An id tells the market, the assets, the expiry and the strike price, whether the instrument is listed or not:
//!
//! - `BTC-USDT` is a pair of assets;
//! - `BTC-USD-SWAP`, `BTC-USD-240628` are inverse: contracts of US dollars, settled in the base asset;
//! - `BTC-USDT-SWAP`, `BTC-USDT-240628` are linear: contracts of the base asset;
//! - `BTC-USD-240628-60000-C` is an option whose contract is of the base asset, and whose price is in it, too;
//! - `BTC-USD_UM-SWAP`, `BTC-USD_UM-260710`, `BTC-USD_UM_XPERP-310404` are linear beside inverse ones of the same assets, so their
//!   symbols end with what tells them apart: `BTC-USD-PERP-UM`.
//!
//! What an id does not tell is what a contract is worth. It is known of inverse contracts (100 US dollars of BTC, 10 of all others)
//! and of BTC and ETH against USDT (0.01 and 0.1 of the base asset); of all others, many of which were made smaller in
//! 2022, and of options the listing must say (`instruments`).

use model::Decimal;
use model::instrument::{Contract, Listing, Right};

use crate::dialect::symbols::{Spelling, is_asset, is_date};

/// Ids of instruments.
#[derive(Clone, Copy, Debug)]
pub(super) struct InstId;

impl Spelling for InstId {
    const LISTING: &'static str = "instruments";

    fn read(self, id: &str) -> Option<Listing> {
        parse(id)
    }
}

/// Ids of indices, `BTC-USDT`.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexId;

impl Spelling for IndexId {
    const LISTING: &'static str = "index-tickers";

    fn read(self, id: &str) -> Option<Listing> {
        let (base, quote) = id.split_once('-')?;
        (is_asset(base) && is_asset(quote)).then(|| Listing::index(base, quote))
    }
}

/// A contract of which nobody has told what it is worth: its size is zero, which the venue's own are not.
pub(super) fn untold(inverse: bool) -> Contract {
    Contract { size: Decimal::ZERO, inverse }
}

/// The contract, where what it is worth is known.
#[inline]
pub(super) fn told(contract: Option<Contract>) -> Option<Contract> {
    contract.filter(|contract| contract.size > Decimal::ZERO)
}

/// Reads an id; `None` for whatever is none.
pub(super) fn parse(id: &str) -> Option<Listing> {
    let mut parts = id.split('-');
    let (base, counter) = (parts.next()?, parts.next()?);
    let (quote, mark) = counter.split_once('_').map_or((counter, None), |(quote, mark)| (quote, Some(mark)));
    if !is_asset(base) || !is_asset(quote) || !mark.is_none_or(|mark| mark.split('_').all(is_asset)) {
        return None;
    }
    let inverse = quote == "USD" && mark.is_none();
    let mut listing = match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [None, ..] if mark.is_none() => Listing::spot(base, quote),
        [Some("SWAP"), None, ..] => Listing::perpetual(base, quote, Some(contract(base, quote, mark))),
        [Some(date), None, ..] if is_date(date) => Listing::future(base, quote, date, Some(contract(base, quote, mark))),
        [Some(date), Some(strike), Some(right), None] if is_date(date) => {
            strike.parse::<Decimal>().ok().filter(|strike| *strike > Decimal::ZERO)?;
            let option = Listing::option(base, quote, date, strike, Right::of(right)?, Some(untold(false)));
            // The strike price is in dollars, but prices are in what the option is settled in.
            if inverse { Listing { quote: base.into(), ..option } } else { option }
        }
        _ => return None,
    };
    if let Some(mark) = mark {
        listing.symbol.push('-');
        listing.symbol.push_str(mark);
    }
    Some(listing)
}

/// What a perpetual's or future's contract is worth, as far as that is known without the listing.
fn contract(base: &str, quote: &str, mark: Option<&str>) -> Contract {
    let linear = |text: &str| Contract { size: text.parse().unwrap_or_default(), inverse: false };
    match (base, quote, mark) {
        ("BTC", "USD", None) => Contract { size: Decimal::from_integer(100), inverse: true },
        (_, "USD", None) => Contract { size: Decimal::from_integer(10), inverse: true },
        ("BTC", "USDT", None) => linear("0.01"),
        ("ETH", "USDT", None) => linear("0.1"),
        _ => untold(false),
    }
}

#[cfg(test)]
mod tests {
    use model::instrument::Market;

    use super::*;

    #[test]
    fn reads_the_letters_of_an_id() {
        for (id, expected, base, quote, contract) in [
            ("BTC-USDT", "spot BTC-USDT", "BTC", "USDT", None),
            ("1INCH-EUR", "spot 1INCH-EUR", "1INCH", "EUR", None),
            ("BTC-USD-SWAP", "perpetual BTC-USD-PERP", "BTC", "USD", Some(("100", true))),
            ("ETH-USD-SWAP", "perpetual ETH-USD-PERP", "ETH", "USD", Some(("10", true))),
            ("BTC-USDT-SWAP", "perpetual BTC-USDT-PERP", "BTC", "USDT", Some(("0.01", false))),
            ("ETH-USDT-240628", "future ETH-USDT-240628", "ETH", "USDT", Some(("0.1", false))),
            ("SHIB-USDT-SWAP", "perpetual SHIB-USDT-PERP", "SHIB", "USDT", Some(("0", false))),
            ("BTC-USDC-SWAP", "perpetual BTC-USDC-PERP", "BTC", "USDC", Some(("0", false))),
            ("BTC-USD-240628", "future BTC-USD-240628", "BTC", "USD", Some(("100", true))),
            ("BTC-USD-240628-60000-C", "option BTC-USD-240628-60000-C", "BTC", "BTC", Some(("0", false))),
            ("ETH-USD-240628-3050.5-P", "option ETH-USD-240628-3050.5-P", "ETH", "ETH", Some(("0", false))),
            // Linear beside inverse.
            ("BTC-USD_UM-SWAP", "perpetual BTC-USD-PERP-UM", "BTC", "USD", Some(("0", false))),
            ("BTC-USD_UM-260710", "future BTC-USD-260710-UM", "BTC", "USD", Some(("0", false))),
            ("BTC-USD_UM_XPERP-310404", "future BTC-USD-310404-UM_XPERP", "BTC", "USD", Some(("0", false))),
            ("BTC-USD_UM-260710-60000-C", "option BTC-USD-260710-60000-C-UM", "BTC", "USD", Some(("0", false))),
        ] {
            let listing = InstId.read(id).unwrap_or_else(|| panic!("{id}"));
            assert_eq!(format!("{} {}", listing.market, listing.symbol), expected, "{id}");
            assert_eq!((listing.base.as_str(), listing.quote.as_str()), (base, quote), "{id}");
            let expected = contract.map(|(size, inverse): (&str, bool)| Contract { size: size.parse().unwrap(), inverse });
            assert_eq!(listing.contract, expected, "{id}");
            assert_eq!(told(listing.contract), expected.filter(|contract| contract.size != Decimal::ZERO), "{id}");
        }
        for id in [
            "",
            "BTC",
            "-",
            "BTC-",
            "-USDT",
            "BTC-USD_UM",
            "BTC-USD_",
            "BTC-USD_-SWAP",
            "BTC-USDT-SWAPS",
            "BTC-USDT-SWAP-1",
            "BTC-USD-24062",
            "BTC-USD-24062x",
            "BTC-USD-240628-60000",
            "BTC-USD-240628-60000-X",
            "BTC-USD-240628-0-C",
            "BTC-USD-240628-x-C",
            "BTC-USD-240628-60000-C-1",
            "BTC-ABOVE-DAILY-260224-1600-120000",
        ] {
            assert_eq!(InstId.read(id), None, "{id}");
        }
    }

    #[test]
    fn indices_are_pairs_of_assets() {
        let index = IndexId.read("BTC-USD").unwrap();
        assert_eq!(
            (index.market, index.symbol.as_str(), index.base.as_str(), index.quote.as_str()),
            (Market::Index, "BTC-USD", "BTC", "USD")
        );
        for id in ["BTC", "BTC-", "-USD", "BTC-USD-SWAP", "BTC_USD", ""] {
            assert_eq!(IndexId.read(id), None, "{id}");
        }
    }
}
