//! What Deribit's instrument names stand for.
//!
//! A name tells the market, the assets, the expiry and the strike price, whether the instrument is listed or not:
//!
//! - `BTC-PERPETUAL`, `BTC-27DEC24` are inverse: worth US dollars and settled in the base asset;
//! - `BTC-27DEC24-60000-C` is an option on the base asset, whose price is in the base asset, too;
//! - `BTC_USDC-PERPETUAL`, `BTC_USDC-27DEC24`, `XRP_USDC-30AUG24-0d5-C` are linear, `d` being the decimal point of a strike price;
//! - `BTC_USDC` is a pair of assets;
//! - `BTC-FS-27DEC24_PERP`, `BTC-CS-27DEC24-60000_70000` are combinations of others ([`is_combination`]).
//!
//! What a name does not tell is how many dollars an inverse contract is worth: 10 of BTC and SOL, 1 of ETH, for all others the
//! listing must say (`get_instruments`).

use model::Decimal;
use model::instrument::{Contract, Listing, Right};

use crate::dialect::symbols::Spelling;

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// Names of instruments.
#[derive(Clone, Copy, Debug)]
pub(super) struct InstrumentName;

impl Spelling for InstrumentName {
    const LISTING: &'static str = "get_instruments";

    fn read(self, name: &str) -> Option<Listing> {
        match parse(name)? {
            Named { listing, inverse: false } => Some(listing),
            Named { listing, inverse: true } => {
                let dollars = match listing.base.as_str() {
                    "BTC" | "SOL" => 10,
                    "ETH" => 1,
                    _ => return None,
                };
                Some(Listing { contract: Some(inverse(Decimal::from_integer(dollars))), ..listing })
            }
        }
    }
}

/// Names of indices, `btc_usd`.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexName;

impl Spelling for IndexName {
    const LISTING: &'static str = "get_index_price_names";

    fn read(self, name: &str) -> Option<Listing> {
        let (base, quote) = name.split_once('_')?;
        let is_asset = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        (is_asset(base) && is_asset(quote)).then(|| Listing::index(&base.to_uppercase(), &quote.to_uppercase()))
    }
}

/// An inverse contract worth this much of the quote asset.
pub(super) fn inverse(size: Decimal) -> Contract {
    Contract { size, inverse: true }
}

/// What a name says.
#[derive(Debug)]
pub(super) struct Named {
    /// The instrument, without its contract.
    pub(super) listing: Listing,
    /// Whether its amounts are in the quote asset.
    pub(super) inverse: bool,
}

/// Reads a name; `None` for a combination and for whatever is none.
pub(super) fn parse(name: &str) -> Option<Named> {
    let mut parts = name.split('-');
    let pair = parts.next()?;
    let (base, counter) = pair.split_once('_').unwrap_or((pair, "USD"));
    let linear = base.len() != pair.len();
    if !is_asset(base) || !is_asset(counter) {
        return None;
    }
    let (listing, inverse) = match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [None, ..] if linear => (Listing::spot(base, counter), false),
        [Some("PERPETUAL"), None, ..] => (Listing::perpetual(base, counter, None), !linear),
        [Some(date), None, ..] => (Listing::future(base, counter, &expiry(date)?, None), !linear),
        [Some(date), Some(price), Some(right), None] => {
            let option = Listing::option(base, counter, &expiry(date)?, &strike(price)?, Right::of(right)?, None);
            // The strike price is in dollars, but prices are in what the option is settled in.
            (if linear { option } else { Listing { quote: base.into(), ..option } }, false)
        }
        _ => return None,
    };
    Some(Named { listing, inverse })
}

/// Whether this is the name of a combination of instruments, which is bought and sold as one: letters stand where others have
/// the day of their expiry.
pub(super) fn is_combination(name: &[u8]) -> bool {
    let mut parts = name.split(|byte| *byte == b'-').skip(1);
    let strategy = parts.next().unwrap_or_default();
    strategy.first().is_some_and(u8::is_ascii_uppercase) && strategy != b"PERPETUAL" && parts.next().is_some()
}

/// The venue's assets are of capital letters and digits.
fn is_asset(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// The year, month and day of an expiry, `241227` of `27DEC24`.
fn expiry(date: &str) -> Option<String> {
    let (day, rest) = date.split_at_checked(date.len().checked_sub(5)?)?;
    let (month, year) = rest.split_at_checked(3)?;
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let day: u8 = day.parse().ok().filter(|n| (1..=31).contains(n) && digits(day) && day.len() <= 2)?;
    digits(year).then(|| format!("{year}{month:02}{day:02}"))
}

/// A strike price, `0.5` of `0d5`.
fn strike(price: &str) -> Option<String> {
    let (whole, fraction) = price.split_once('d').unwrap_or((price, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let price: Decimal = (digits(whole) && digits(fraction)).then(|| format!("{whole}.{fraction}"))?.parse().ok()?;
    Some(price.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_letters_of_a_name() {
        for (name, expected, base, quote, dollars) in [
            ("BTC-PERPETUAL", "perpetual BTC-USD-PERP", "BTC", "USD", Some(10)),
            ("ETH-PERPETUAL", "perpetual ETH-USD-PERP", "ETH", "USD", Some(1)),
            ("SOL-24JUN22", "future SOL-USD-220624", "SOL", "USD", Some(10)),
            ("BTC-5AUG26", "future BTC-USD-260805", "BTC", "USD", Some(10)),
            ("BTC-27DEC24-60000-C", "option BTC-USD-241227-60000-C", "BTC", "BTC", None),
            ("ETH-5JUN20-310-P", "option ETH-USD-200605-310-P", "ETH", "ETH", None),
            ("BTC_USDC", "spot BTC-USDC", "BTC", "USDC", None),
            ("ETH_BTC", "spot ETH-BTC", "ETH", "BTC", None),
            ("ETH_USDC-PERPETUAL", "perpetual ETH-USDC-PERP", "ETH", "USDC", None),
            ("BTC_USDT-PERPETUAL", "perpetual BTC-USDT-PERP", "BTC", "USDT", None),
            ("BTC_USDC-25SEP26", "future BTC-USDC-260925", "BTC", "USDC", None),
            ("BTCDVOL_USDC-25OCT23", "future BTCDVOL-USDC-231025", "BTCDVOL", "USDC", None),
            ("XRP_USDC-30AUG24-0d5-C", "option XRP-USDC-240830-0.5-C", "XRP", "USDC", None),
            ("XRP_USDC-30JUN23-0d625-P", "option XRP-USDC-230630-0.625-P", "XRP", "USDC", None),
            ("SOL_USDC-2JAN26-150-P", "option SOL-USDC-260102-150-P", "SOL", "USDC", None),
        ] {
            let listing = InstrumentName.read(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(format!("{} {}", listing.market, listing.symbol), expected, "{name}");
            assert_eq!((listing.base.as_str(), listing.quote.as_str()), (base, quote), "{name}");
            assert_eq!(listing.contract, dollars.map(|dollars| inverse(Decimal::from_integer(dollars))), "{name}");
            assert!(!is_combination(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "BTC",
            "-",
            "BTC-",
            "_USDC",
            "BTC_",
            "btc_usdc",
            "BTC-PERP",
            "BTC-27DEC2024",
            "BTC-0DEC24",
            "BTC-32DEC24",
            "BTC-+1DEC24",
            "BTC-DEC24",
            "BTC-27DEZ24",
            "BTC-27DECx4",
            "BTC-27DEC24-60000",
            "BTC-27DEC24-60000-X",
            "BTC-27DEC24--C",
            "BTC-27DEC24-6d-C",
            "BTC-27DEC24-d5-C",
            "BTC-27DEC24-1e3-C",
            "BTC-27DEC24-60000-C-1",
            "BTC-PERPETUAL-1",
            "ÄBC-27DEC24",
            "BTC-2ÄDEC24",
            "BTC-ÄC24",
            // Whose contracts nobody has told.
            "XRP-PERPETUAL",
            "XRP-27DEC24",
        ] {
            assert_eq!(InstrumentName.read(name), None, "{name}");
        }
        assert!(parse("XRP-27DEC24").unwrap().inverse);
    }

    #[test]
    fn combinations_are_told_by_their_strategy() {
        for name in [
            "BTC-FS-25DEC26_PERP",
            "BTC-CS-19MAY26-70000_75000",
            "BTC-CSR12-27DEC24-60000_70000",
            "BTC-COMBO-1",
            "XRP_USDC-STRD-30AUG24-0d5",
            "ETH-ICOND-30AUG24-1_2_3_4",
        ] {
            assert!(is_combination(name.as_bytes()) && parse(name).is_none(), "{name}");
        }
        for name in ["BTC-PERPETUAL", "BTC-PERP", "BTC-PERPETUAL-1", "BTC-FS", "BTC--1", "BTC", ""] {
            assert!(!is_combination(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn indices_are_pairs_of_small_letters() {
        let read = |name| IndexName.read(name).map(|l| format!("{} {} {} {}", l.market, l.symbol, l.base, l.quote));
        assert_eq!(read("btc_usd").as_deref(), Some("index BTC-USD BTC USD"));
        assert_eq!(read("btcdvol_usdc").as_deref(), Some("index BTCDVOL-USDC BTCDVOL USDC"));
        for name in ["btc", "_usd", "btc_", "BTC_USD", "btc_usd_x", "btc-usd", ""] {
            assert_eq!(read(name), None, "{name}");
        }
    }
}
