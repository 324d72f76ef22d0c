//! What Binance's symbols stand for.
//!
//! A listing (`exchangeInfo`) is exact and wins. Without one, or for a symbol that it does not have, the
//! letters decide:
//!
//! - spot `BTCFDUSD`: the longest known quote asset that the symbol ends with, `BTC-FDUSD`;
//! - USD-M `BTCUSDT` is the perpetual `BTC-USDT-PERP`, `BTCUSDT_260327` the future `BTC-USDT-260327`;
//! - COIN-M `BTCUSD_PERP` and `BTCUSD_240927`, inverse contracts of 100 USD for BTC and 10 USD for all others.

use std::sync::Arc;

use hashbrown::HashMap;
use model::Decimal;
use model::instrument::{Contract, Listing};
use model::packed::{Packed, Recent};

use crate::dialect::Instruments;

/// Quote assets of Binance's spot and USD-M markets, past and present. Left out are `AEUR`, because `ADAEUR` is ADA
/// in euros, and `U`.
const QUOTES: [&str; 42] = [
    "ARS", "AUD", "BIDR", "BKRW", "BNB", "BRL", "BTC", "BUSD", "BVND", "COP", "CZK", "DAI", "DOGE", "DOT", "ETH", "EUR", "EURI", "FDUSD",
    "GBP", "GYEN", "IDRT", "JPY", "MXN", "NGN", "PAX", "PLN", "RON", "RUB", "SOL", "TRX", "TRY", "TUSD", "UAH", "USD", "USD1", "USDC",
    "USDP", "USDS", "USDT", "VAI", "XRP", "ZAR",
];

/// Symbols remembered at most; a venue lists a few thousand.
const REMEMBERED: usize = 1 << 16;

/// One of Binance's markets, each with a protocol of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Spot.
    Spot,
    /// Futures margined in stablecoins; sizes are in the base asset.
    UsdM,
    /// Futures margined in the base asset; sizes are contracts.
    CoinM,
}

impl Exchange {
    /// The market whose dialect has this name.
    pub fn of(dialect: &str) -> Option<Self> {
        match dialect {
            "binance_spot" => Some(Exchange::Spot),
            "binance_usdm" => Some(Exchange::UsdM),
            "binance_coinm" => Some(Exchange::CoinM),
            _ => None,
        }
    }

    /// What the letters of a symbol say, if they say anything.
    pub(super) fn guess(self, symbol: &str) -> Option<Listing> {
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
        }
    }
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

/// Letters of any script, because some are Chinese, and digits.
fn is_asset(text: &str) -> bool {
    !text.is_empty() && text.chars().all(char::is_alphanumeric)
}

/// Whether this is the year, month and day of an expiry, `260327`.
pub(super) fn is_date(text: &str) -> bool {
    text.len() == 6 && text.bytes().all(|b| b.is_ascii_digit())
}

/// The instruments of one market by symbol, remembered as they come.
///
/// Frames of few symbols come in any order, so a lookup counts.
#[derive(Debug)]
pub(super) struct Symbols {
    exchange: Exchange,
    listed: Arc<Instruments>,
    recent: Recent<9>,
    numbers: HashMap<Box<[u8]>, u32, ahash::RandomState>,
    known: Vec<Listing>,
}

impl Symbols {
    pub(super) fn new(exchange: Exchange, listed: Arc<Instruments>) -> Self {
        Symbols { exchange, listed, recent: Recent::default(), numbers: HashMap::default(), known: Vec::new() }
    }

    /// The instrument of a symbol in capital letters.
    #[inline(always)]
    pub(super) fn find(&mut self, symbol: &[u8]) -> Option<&Listing> {
        let packed = Packed::of(symbol);
        let number = match packed.and_then(|packed| self.recent.get(packed)) {
            Some(number) => number,
            None => self.look_up(symbol, packed)?,
        };
        self.known.get(number as usize)
    }

    #[inline(never)]
    fn look_up(&mut self, symbol: &[u8], packed: Option<Packed>) -> Option<u32> {
        let number = match self.numbers.get(symbol) {
            Some(number) => *number,
            None => self.learn(symbol)?,
        };
        if let Some(packed) = packed {
            self.recent.put(packed, number);
        }
        Some(number)
    }

    #[cold]
    fn learn(&mut self, symbol: &[u8]) -> Option<u32> {
        let name = std::str::from_utf8(symbol).ok()?;
        let listing = self.listed.get(name).cloned().or_else(|| self.exchange.guess(name))?;
        if self.known.len() >= REMEMBERED {
            // More symbols than a venue has: they are being made up.
            *self = Symbols::new(self.exchange, self.listed.clone());
        }
        let number = self.known.len() as u32;
        self.numbers.insert(symbol.into(), number);
        self.known.push(listing);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(exchange: Exchange, symbol: &str) -> Option<String> {
        exchange.guess(symbol).map(|l| format!("{} {}", l.market, l.symbol))
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
        ] {
            assert_eq!(symbol(exchange, venue).as_deref(), expected, "{exchange:?} {venue}");
        }
        let size = |symbol| Exchange::CoinM.guess(symbol).unwrap().contract.unwrap().size.to_string();
        assert_eq!((size("BTCUSD_PERP"), size("ETHUSD_240927")), ("100".into(), "10".into()));
        assert_eq!(Exchange::UsdM.guess("BTCUSDT").unwrap().contract, None);
    }

    #[test]
    fn a_listing_wins_over_the_letters() {
        let mut listed = Instruments::default();
        listed.insert("XTUSD".into(), Listing::spot("XT", "USD"));
        let mut symbols = Symbols::new(Exchange::Spot, Arc::new(listed));
        assert_eq!(symbols.find(b"XTUSD").unwrap().symbol, "XT-USD");
        assert_eq!(symbols.find(b"BTCTUSD").unwrap().symbol, "BTC-TUSD");
        assert_eq!(symbols.find(b"XTUSD").unwrap().symbol, "XT-USD");
        assert!(symbols.find(b"\xff").is_none());
    }

    #[test]
    fn every_symbol_finds_its_own_listing() {
        let mut symbols = Symbols::new(Exchange::Spot, Arc::default());
        for round in 0..2 {
            for n in 0..REMEMBERED + 10 {
                let base = format!("{}{n}", "ABCDEFGHIJKL".get(..n % 13).unwrap());
                assert_eq!(symbols.find(format!("{base}BTC").as_bytes()).unwrap().symbol, format!("{base}-BTC"), "in round {round}");
            }
        }
        assert!(symbols.known.len() <= REMEMBERED);
    }
}
