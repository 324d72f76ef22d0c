//! What Kraken's symbols stand for.
//!
//! A listing is exact and wins. Without one, or for a symbol that it does not have, the letters decide.
//!
//! - Spot: both protocols of WebSocket write `XBT/USD` or `BTC/USD`, which says all. REST answers name a pair without the
//!   stroke, in the old way with classes of assets, `XXBTZUSD`, or without them, `XBTUSDT`: the old way is recognised where
//!   both assets are old, otherwise the longest known quote asset that the symbol ends with counts.
//! - Futures: `PF_XBTUSD` is linear, sizes in the base asset; `PI_XBTUSD` is inverse, contracts of 1 USD; with an expiry,
//!   `FF_XBTUSD_240927` and `FI_XBTUSD_240927`. Kraken lists linear and inverse contracts of the same assets and expiry
//!   beside each other, so the canonical symbol of the inverse ones says so: `BTC-USD-PERP` and `BTC-USD-PERP-INVERSE`.
//!
//! Kraken's own codes of assets are replaced by those of everybody else: BTC for XBT, DOGE for XDG.

use model::Decimal;
use model::instrument::{Contract, Listing};

use crate::dialect::symbols::{Spelling, is_date};

/// Kraken's codes for assets that others call differently: those of old, which begin with their class (X for a
/// cryptocurrency, Z for a currency), and two names.
const CODES: [(&str, &str); 25] = [
    ("XBT", "BTC"),
    ("XDG", "DOGE"),
    ("XXBT", "BTC"),
    ("XXDG", "DOGE"),
    ("XETC", "ETC"),
    ("XETH", "ETH"),
    ("XICN", "ICN"),
    ("XLTC", "LTC"),
    ("XMLN", "MLN"),
    ("XNMC", "NMC"),
    ("XREP", "REP"),
    ("XXLM", "XLM"),
    ("XXMR", "XMR"),
    ("XXRP", "XRP"),
    ("XXVN", "XVN"),
    ("XZEC", "ZEC"),
    ("ZAUD", "AUD"),
    ("ZCAD", "CAD"),
    ("ZEUR", "EUR"),
    ("ZGBP", "GBP"),
    ("ZJPY", "JPY"),
    ("ZKRW", "KRW"),
    ("ZUSD", "USD"),
    ("ZMXN", "MXN"),
    ("ZSEK", "SEK"),
];

/// Quote assets of pairs whose symbol has no stroke, as such symbols write them.
const QUOTES: [&str; 16] =
    ["AUD", "BTC", "CAD", "CHF", "DAI", "DOT", "ETH", "EUR", "GBP", "JPY", "PYUSD", "RLUSD", "USD", "USDC", "USDT", "XBT"];

/// Quote assets of futures.
const FUTURES_QUOTES: [&str; 7] = ["BTC", "EUR", "GBP", "USD", "USDC", "USDT", "XBT"];

/// The name that others have for an asset.
pub(super) fn asset(code: &str) -> &str {
    CODES.into_iter().find(|(ours, _)| *ours == code).map_or(code, |(_, theirs)| theirs)
}

/// Whether this may be a code of an asset: some have a point, `ETH2.S`.
fn is_code(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '.')
}

/// The pairs of the spot market.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pairs;

impl Spelling for Pairs {
    const LISTING: &'static str = "AssetPairs";

    fn read(self, symbol: &str) -> Option<Listing> {
        let (base, quote) = symbol.split_once('/').or_else(|| classes(symbol)).or_else(|| split(symbol, &QUOTES))?;
        (is_code(base) && is_code(quote)).then(|| Listing::spot(asset(base), asset(quote)))
    }
}

/// Base and quote asset of a pair that is written in the old way, `XXBTZUSD` or `USDTZUSD`.
fn classes(pair: &str) -> Option<(&str, &str)> {
    let is_old = |code: &str| code.len() == 4 && asset(code) != code;
    let at = pair.len().checked_sub(4)?;
    let (base, quote) = (pair.get(..at)?, pair.get(at..)?);
    (is_old(quote) && (is_old(base) || base == "USDT")).then_some((base, quote))
}

/// Base and quote asset of a pair: the quote is the longest known one that leaves a base.
fn split<'a>(pair: &'a str, quotes: &[&'static str]) -> Option<(&'a str, &'a str)> {
    let fits = |quote: &&&str| pair.strip_suffix(**quote).is_some_and(is_code);
    let quote = quotes.iter().filter(fits).max_by_key(|quote| quote.len())?;
    pair.strip_suffix(quote).map(|base| (base, &pair[base.len()..]))
}

/// The products of the futures market.
#[derive(Clone, Copy, Debug)]
pub(super) struct Products;

impl Spelling for Products {
    const LISTING: &'static str = "instruments";

    fn read(self, symbol: &str) -> Option<Listing> {
        let (sort, rest) = symbol.split_once('_')?;
        let inverse = |sort| matches!(sort, 'I' | 'i').then_some(Contract { size: Decimal::ONE, inverse: true });
        let mut letters = sort.chars();
        let (perpetual, settled) = match (letters.next()?, letters.next()?, letters.next()) {
            ('P' | 'p', settled, None) => (true, settled),
            ('F' | 'f', settled, None) => (false, settled),
            _ => return None,
        };
        // Inverse, linear ("flexible"), and linear of the time before ("vanilla").
        if !matches!(settled, 'I' | 'i' | 'F' | 'f' | 'V' | 'v') {
            return None;
        }
        // Answers of REST had small letters once.
        let capitals = rest.to_ascii_uppercase();
        let rest = if sort.chars().all(|c| c.is_ascii_lowercase()) { capitals.as_str() } else { rest };
        let (pair, expiry) = rest.split_once('_').map_or((rest, None), |(pair, expiry)| (pair, Some(expiry)));
        let (base, quote) = split(pair, &FUTURES_QUOTES)?;
        product(base, quote, expiry, perpetual, inverse(settled))
    }
}

/// A product; `None` if its expiry does not go with its sort.
pub(super) fn product(base: &str, quote: &str, expiry: Option<&str>, perpetual: bool, contract: Option<Contract>) -> Option<Listing> {
    let (base, quote) = (asset(base), asset(quote));
    let mut listing = match (perpetual, expiry) {
        (true, None) => Listing::perpetual(base, quote, contract),
        (false, Some(expiry)) if is_date(expiry) => Listing::future(base, quote, expiry, contract),
        _ => return None,
    };
    if contract.is_some_and(|contract| contract.inverse) {
        listing.symbol.push_str("-INVERSE");
    }
    Some(listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_letters_of_a_pair() {
        for (venue, expected) in [
            ("XBT/USD", Some("BTC-USD")),
            ("BTC/USD", Some("BTC-USD")),
            ("XDG/XBT", Some("DOGE-BTC")),
            ("DOGE/USD", Some("DOGE-USD")),
            ("ETH2.S/ETH", Some("ETH2.S-ETH")),
            ("AAPLx/USD", Some("AAPLx-USD")),
            ("XXBTZUSD", Some("BTC-USD")),
            ("XETHXXBT", Some("ETH-BTC")),
            ("XXDGXXBT", Some("DOGE-BTC")),
            ("USDTZUSD", Some("USDT-USD")),
            ("XTZUSD", Some("XTZ-USD")),
            ("XBTUSDT", Some("BTC-USDT")),
            ("XBTPYUSD", Some("BTC-PYUSD")),
            ("RLUSDUSD", Some("RLUSD-USD")),
            ("SOLXBT", Some("SOL-BTC")),
            ("ETH2.SETH", Some("ETH2.S-ETH")),
            ("XXBTZUSD.d", None),
            ("XBT/", None),
            ("/USD", None),
            ("XBT/USD/EUR", None),
            ("XBTXYZ", None),
            ("USD", None),
            ("ÄÖ€D", None),
            ("", None),
        ] {
            assert_eq!(Pairs.read(venue).map(|l| format!("{} {}", l.market, l.symbol)), expected.map(|e| format!("spot {e}")), "{venue}");
        }
    }

    #[test]
    fn reads_the_letters_of_a_product() {
        for (venue, expected, contracts) in [
            ("PF_XBTUSD", Some("perpetual BTC-USD-PERP"), false),
            ("PF_BTCUSD", Some("perpetual BTC-USD-PERP"), false),
            ("PF_AAPLxUSD", Some("perpetual AAPLx-USD-PERP"), false),
            ("PF_USDTUSD", Some("perpetual USDT-USD-PERP"), false),
            ("PI_XBTUSD", Some("perpetual BTC-USD-PERP-INVERSE"), true),
            ("pi_xbtusd", Some("perpetual BTC-USD-PERP-INVERSE"), true),
            ("PV_XRPXBT", Some("perpetual XRP-BTC-PERP"), false),
            ("FI_XBTUSD_240927", Some("future BTC-USD-240927-INVERSE"), true),
            ("fi_ltcusd_190628", Some("future LTC-USD-190628-INVERSE"), true),
            ("FF_XBTUSD_240927", Some("future BTC-USD-240927"), false),
            ("FV_XRPXBT_190628", Some("future XRP-BTC-190628"), false),
            ("PI_XBTUSD_240927", None, false),
            ("FI_XBTUSD", None, false),
            ("FI_XBTUSD_2409", None, false),
            ("in_xbtusd", None, false),
            ("rr_xbtusd", None, false),
            ("PX_XBTUSD", None, false),
            ("PF_USD", None, false),
            ("PFX_XBTUSD", None, false),
            ("XBTUSD", None, false),
            ("", None, false),
        ] {
            let listing = Products.read(venue);
            assert_eq!(listing.as_ref().map(|l| format!("{} {}", l.market, l.symbol)).as_deref(), expected, "{venue}");
            let contract = listing.and_then(|l| l.contract);
            assert_eq!(contract, contracts.then_some(Contract { size: Decimal::ONE, inverse: true }), "{venue}");
        }
    }
}
