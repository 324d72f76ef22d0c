//! What Binance's symbols stand for.
//!
//! A listing (`exchangeInfo`) is exact and wins. Without one, or for a symbol that it does not have, the
//! letters decide:
//!
//! - spot `BTCFDUSD`: the longest known quote asset that the symbol ends with, `BTC-FDUSD`;
//! - USD-M `BTCUSDT` is the perpetual `BTC-USDT-PERP`, `BTCUSDT_260327` the future `BTC-USDT-260327`;
//! - COIN-M `BTCUSD_PERP` and `BTCUSD_240927`, inverse contracts of 100 USD for BTC and 10 USD for all others;
//! - option `BTC-261030-85000-C` is `BTC-USDT-261030-85000-C`, because all are quoted in USDT, and what underlies it, `BTCUSDT`, the
//!   index `BTC-USDT`.

use model::Decimal;
use model::instrument::{Contract, Listing, Right};

use crate::dialect::symbols::{Spelling, is_asset, is_date};

/// Quote assets of Binance's spot and USD-M markets, past and present. Left out are `AEUR`, because `ADAEUR` is ADA
/// in euros, and `U`.
const QUOTES: [&str; 42] = [
    "ARS", "AUD", "BIDR", "BKRW", "BNB", "BRL", "BTC", "BUSD", "BVND", "COP", "CZK", "DAI", "DOGE", "DOT", "ETH", "EUR", "EURI", "FDUSD",
    "GBP", "GYEN", "IDRT", "JPY", "MXN", "NGN", "PAX", "PLN", "RON", "RUB", "SOL", "TRX", "TRY", "TUSD", "UAH", "USD", "USD1", "USDC",
    "USDP", "USDS", "USDT", "VAI", "XRP", "ZAR",
];

/// One of Binance's markets, each with a protocol of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Spot.
    Spot,
    /// Futures margined in stablecoins; sizes are in the base asset.
    UsdM,
    /// Futures margined in the base asset; sizes are contracts.
    CoinM,
    /// European options, quoted and settled in USDT; a contract is one of the base asset.
    Options,
}

impl Spelling for Exchange {
    const LISTING: &'static str = "exchangeInfo";

    fn read(self, symbol: &str) -> Option<Listing> {
        match self {
            Exchange::Spot => split(symbol).map(|(base, quote)| Listing::spot(base, quote)),
            Exchange::UsdM => match symbol.split_once('_') {
                None => split(symbol).map(|(base, quote)| Listing::perpetual(base, quote, None)),
                Some((pair, expiry)) => {
                    split(pair).filter(|_| is_date(expiry)).map(|(base, quote)| Listing::future(base, quote, expiry, None))
                }
            },
            Exchange::CoinM => {
                let (pair, expiry) = symbol.split_once('_')?;
                let base = pair.strip_suffix("USD").filter(|b| is_asset(b))?;
                let contract = Some(inverse(Decimal::from_integer(if base == "BTC" { 100 } else { 10 })));
                match expiry {
                    "PERP" => Some(Listing::perpetual(base, "USD", contract)),
                    date if is_date(date) => Some(Listing::future(base, "USD", date, contract)),
                    _ => None,
                }
            }
            Exchange::Options if symbol.contains('-') => {
                let OptionParts { base, date, strike, right } = option_parts(symbol)?;
                Some(Listing::option(base, "USDT", date, strike, right, None))
            }
            Exchange::Options => split(symbol).map(|(base, quote)| Listing::index(base, quote)),
        }
    }
}

/// The parts of an option's symbol.
pub(super) struct OptionParts<'a> {
    pub(super) base: &'a str,
    pub(super) date: &'a str,
    pub(super) strike: &'a str,
    pub(super) right: Right,
}

/// Takes an option's symbol apart, `BTC-261030-85000-C`.
pub(super) fn option_parts(symbol: &str) -> Option<OptionParts<'_>> {
    let mut parts = symbol.split('-');
    let (base, date, strike, right) = (parts.next()?, parts.next()?, parts.next()?, Right::of(parts.next()?)?);
    let plain = is_asset(base) && is_date(date) && strike.parse::<Decimal>().is_ok_and(|strike| strike > Decimal::ZERO);
    (plain && parts.next().is_none()).then_some(OptionParts { base, date, strike, right })
}

/// An inverse contract worth this much of the quote asset.
pub(super) fn inverse(size: Decimal) -> Contract {
    Contract { size, inverse: true }
}

/// Base and quote asset of a pair: the quote is the longest known one that leaves a base.
fn split(pair: &str) -> Option<(&str, &str)> {
    let quote = QUOTES.into_iter().filter(|q| pair.strip_suffix(q).is_some_and(is_asset)).max_by_key(|q| q.len())?;
    pair.strip_suffix(quote).map(|base| (base, quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(exchange: Exchange, symbol: &str) -> Option<String> {
        exchange.read(symbol).map(|l| format!("{} {}", l.market, l.symbol))
    }

    #[test]
    fn reads_the_letters_of_a_symbol() {
        for (exchange, venue, expected) in [
            (Exchange::Spot, "BTCUSDT", Some("spot BTC-USDT")),
            (Exchange::Spot, "BTCFDUSD", Some("spot BTC-FDUSD")),
            (Exchange::Spot, "ETHBTC", Some("spot ETH-BTC")),
            (Exchange::Spot, "BNBBTC", Some("spot BNB-BTC")),
            (Exchange::Spot, "C000USDT", Some("spot C000-USDT")),
            (Exchange::Spot, "USDCUSDT", Some("spot USDC-USDT")),
            (Exchange::Spot, "EURIUSDT", Some("spot EURI-USDT")),
            (Exchange::Spot, "币安人生USDT", Some("spot 币安人生-USDT")),
            (Exchange::Spot, "BTCXYZ", None),
            (Exchange::Spot, "USDT", None),
            (Exchange::Spot, "BTC-USDT", None),
            (Exchange::Spot, "", None),
            (Exchange::UsdM, "BTCUSDT", Some("perpetual BTC-USDT-PERP")),
            (Exchange::UsdM, "1000SHIBUSDT", Some("perpetual 1000SHIB-USDT-PERP")),
            (Exchange::UsdM, "ETHBTC", Some("perpetual ETH-BTC-PERP")),
            (Exchange::UsdM, "BTCUSDT_260327", Some("future BTC-USDT-260327")),
            (Exchange::UsdM, "BTCUSDT_2603", None),
            (Exchange::CoinM, "BTCUSD_PERP", Some("perpetual BTC-USD-PERP")),
            (Exchange::CoinM, "BTCUSD_240927", Some("future BTC-USD-240927")),
            (Exchange::CoinM, "BTCUSD", None),
            (Exchange::CoinM, "BTCUSD_SETTLED", None),
            (Exchange::Options, "BTC-261030-85000-C", Some("option BTC-USDT-261030-85000-C")),
            (Exchange::Options, "DOGE-231006-0.06-P", Some("option DOGE-USDT-231006-0.06-P")),
            (Exchange::Options, "BTCUSDT", Some("index BTC-USDT")),
            (Exchange::Options, "BTC-261030-85000-X", None),
            (Exchange::Options, "BTC-261030-0-C", None),
            (Exchange::Options, "BTC-2610-85000-C", None),
            (Exchange::Options, "BTC-261030-85000-C-1", None),
            (Exchange::Options, "BTC-261030", None),
            (Exchange::Options, "-261030-85000-C", None),
        ] {
            assert_eq!(symbol(exchange, venue).as_deref(), expected, "{exchange:?} {venue}");
        }
        let size = |symbol| Exchange::CoinM.read(symbol).unwrap().contract.unwrap().size.to_string();
        assert_eq!((size("BTCUSD_PERP"), size("ETHUSD_240927")), ("100".into(), "10".into()));
        assert_eq!(Exchange::UsdM.read("BTCUSDT").unwrap().contract, None);
    }
}
