//! What Bybit's symbols stand for.
//!
//! A listing (`instruments-info`) is exact and wins. Without one, or for a symbol that it does not have, the letters
//! decide:
//!
//! - spot `BTCUSDC`: the longest known quote asset that the symbol ends with, `BTC-USDC`;
//! - linear `BTCUSDT` is the perpetual `BTC-USDT-PERP`, `BTCPERP` the perpetual `BTC-USDC-PERP`, `BTCUSDT-26SEP25` the
//!   future `BTC-USDT-250926` and `BTC-26SEP25` the future `BTC-USDC-250926`;
//! - inverse `BTCUSD` is the perpetual `BTC-USD-PERP` and `BTCUSDU25` the future `BTC-USD-250926`, which is delivered on
//!   the last Friday of its quarter; all are contracts of 1 USD;
//! - option `BTC-26SEP25-60000-C` is `BTC-USD-250926-60000-C`, and `…-C-USDT` is quoted in USDT.

use chrono::{Datelike, NaiveDate};
use model::Decimal;
use model::instrument::{Contract, Listing, Right};

use crate::dialect::symbols::{Spelling, is_asset};

/// Quote assets of Bybit's spot market.
const QUOTES: [&str; 17] =
    ["BRL", "BRZ", "BTC", "DAI", "ETH", "EUR", "EURQ", "EURR", "MNT", "PLN", "SOL", "TRY", "USDC", "USDE", "USDQ", "USDR", "USDT"];

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// One of Bybit's product categories, each with a socket and a protocol of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Spot.
    Spot,
    /// Perpetuals and futures settled in USDT or USDC; sizes are in the base asset.
    Linear,
    /// Perpetuals and futures settled in the base asset; sizes are contracts of 1 USD.
    Inverse,
    /// Options settled in USDC or USDT; sizes are in the base asset.
    Option,
}

impl Category {
    /// The category as Bybit's REST answers name it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Category::Spot => "spot",
            Category::Linear => "linear",
            Category::Inverse => "inverse",
            Category::Option => "option",
        }
    }
}

impl Spelling for Category {
    const LISTING: &'static str = "instruments-info";

    fn read(self, symbol: &str) -> Option<Listing> {
        match self {
            Category::Spot => {
                let split = |quote: &&str| symbol.strip_suffix(*quote).is_some_and(is_asset);
                let quote = QUOTES.into_iter().filter(split).max_by_key(|quote| quote.len())?;
                symbol.strip_suffix(quote).map(|base| Listing::spot(base, quote))
            }
            Category::Linear => linear(symbol),
            Category::Inverse => inverse(symbol),
            Category::Option => option(symbol),
        }
    }
}

fn linear(symbol: &str) -> Option<Listing> {
    let (pair, expiry) = match symbol.split_once('-') {
        Some((pair, date)) => (pair, Some(expiry(date)?)),
        None => (symbol, None),
    };
    let (base, quote) = match (pair.strip_suffix("USDT"), pair.strip_suffix("PERP"), &expiry) {
        (Some(base), _, _) => (base, "USDT"),
        (None, Some(base), None) => (base, "USDC"),
        (None, _, Some(_)) => (pair, "USDC"),
        (None, None, None) => return None,
    };
    is_asset(base).then(|| match &expiry {
        None => Listing::perpetual(base, quote, None),
        Some(expiry) => Listing::future(base, quote, expiry, None),
    })
}

fn inverse(symbol: &str) -> Option<Listing> {
    if let Some(base) = symbol.strip_suffix("USD") {
        return is_asset(base).then(|| Listing::perpetual(base, "USD", Some(dollar())));
    }
    let (pair, quarter) = symbol.split_at_checked(symbol.len().checked_sub(3)?)?;
    let base = pair.strip_suffix("USD").filter(|base| is_asset(base))?;
    Some(Listing::future(base, "USD", &last_friday(quarter)?, Some(dollar())))
}

fn option(symbol: &str) -> Option<Listing> {
    let parts = option_parts(symbol)?;
    let quote = if parts.usdt { "USDT" } else { "USD" };
    Some(Listing::option(parts.base, quote, &expiry(parts.date)?, parts.strike, parts.right, None))
}

/// The parts of an option's symbol.
pub(super) struct OptionParts<'a> {
    pub(super) base: &'a str,
    pub(super) date: &'a str,
    pub(super) strike: &'a str,
    pub(super) right: Right,
    pub(super) usdt: bool,
}

/// Takes an option's symbol apart, `BTC-26SEP25-60000-C` or `BTC-26SEP25-60000-C-USDT`.
pub(super) fn option_parts(symbol: &str) -> Option<OptionParts<'_>> {
    let mut parts = symbol.split('-');
    let (base, date, strike, right) = (parts.next()?, parts.next()?, parts.next()?, Right::of(parts.next()?)?);
    let usdt = match parts.next() {
        None => false,
        Some("USDT") => true,
        Some(_) => return None,
    };
    let plain = is_asset(base) && strike.parse::<Decimal>().is_ok_and(|strike| strike > Decimal::ZERO);
    (plain && parts.next().is_none()).then_some(OptionParts { base, date, strike, right, usdt })
}

/// An inverse contract, worth 1 USD.
pub(super) fn dollar() -> Contract {
    Contract { size: Decimal::from_integer(1), inverse: true }
}

/// Year, month and day of an expiry as canonical symbols have it, `250926`.
pub(super) fn canonical(date: NaiveDate) -> String {
    date.format("%y%m%d").to_string()
}

/// Two digits.
fn two(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()))
}

/// The expiry of the date in a symbol, `26SEP25` or `6JAN23`.
fn expiry(date: &str) -> Option<String> {
    let (day, month, year) = match date.len() {
        6 => (date.get(..1)?, date.get(1..4)?, date.get(4..)?),
        7 => (date.get(..2)?, date.get(2..5)?, date.get(5..)?),
        _ => return None,
    };
    let month = MONTHS.iter().position(|name| *name == month)? as u32 + 1;
    let day = day.bytes().all(|b| b.is_ascii_digit()).then(|| day.parse().ok())??;
    NaiveDate::from_ymd_opt(2_000 + i32::try_from(two(year)?).ok()?, month, day).map(canonical)
}

/// The last Friday of a quarter, `U25`: inverse futures are delivered then.
fn last_friday(quarter: &str) -> Option<String> {
    let (letter, year) = quarter.split_at_checked(1)?;
    let (month, days) = match letter {
        "H" => (3, 31),
        "M" => (6, 30),
        "U" => (9, 30),
        "Z" => (12, 31),
        _ => return None,
    };
    let end = NaiveDate::from_ymd_opt(2_000 + i32::try_from(two(year)?).ok()?, month, days)?;
    let since_friday = (end.weekday().num_days_from_monday() + 3) % 7;
    end.with_day(days - since_friday).map(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_letters_of_a_symbol() {
        for (category, venue, expected) in [
            (Category::Spot, "BTCUSDT", Some("spot BTC-USDT")),
            (Category::Spot, "BTCUSDC", Some("spot BTC-USDC")),
            (Category::Spot, "USDCUSDT", Some("spot USDC-USDT")),
            (Category::Spot, "USDTEUR", Some("spot USDT-EUR")),
            (Category::Spot, "ETHBTC", Some("spot ETH-BTC")),
            (Category::Spot, "BBSOLSOL", Some("spot BBSOL-SOL")),
            (Category::Spot, "BTC3LUSDT", Some("spot BTC3L-USDT")),
            (Category::Spot, "BTCXYZ", None),
            (Category::Spot, "USDT", None),
            (Category::Spot, "BTC-USDT", None),
            (Category::Spot, "", None),
            (Category::Linear, "BTCUSDT", Some("perpetual BTC-USDT-PERP")),
            (Category::Linear, "1000PEPEUSDT", Some("perpetual 1000PEPE-USDT-PERP")),
            (Category::Linear, "SHIB1000USDT", Some("perpetual SHIB1000-USDT-PERP")),
            (Category::Linear, "PERPUSDT", Some("perpetual PERP-USDT-PERP")),
            (Category::Linear, "BTCPERP", Some("perpetual BTC-USDC-PERP")),
            (Category::Linear, "BTCUSDT-26SEP25", Some("future BTC-USDT-250926")),
            (Category::Linear, "SOLUSDT-2JAN26", Some("future SOL-USDT-260102")),
            (Category::Linear, "BTC-26SEP25", Some("future BTC-USDC-250926")),
            (Category::Linear, "BTC-31SEP25", None),
            (Category::Linear, "BTC-26SEP2025", None),
            (Category::Linear, "BTC-+6SEP25", None),
            (Category::Linear, "BTCUSD", None),
            (Category::Linear, "USDT", None),
            (Category::Linear, "PERP", None),
            (Category::Linear, "-26SEP25", None),
            (Category::Inverse, "BTCUSD", Some("perpetual BTC-USD-PERP")),
            // Delivered on 2021-06-25, 2021-09-24, 2022-12-30 and 2026-12-25.
            (Category::Inverse, "BTCUSDM21", Some("future BTC-USD-210625")),
            (Category::Inverse, "BTCUSDU21", Some("future BTC-USD-210924")),
            (Category::Inverse, "ETHUSDZ22", Some("future ETH-USD-221230")),
            (Category::Inverse, "BTCUSDZ26", Some("future BTC-USD-261225")),
            (Category::Inverse, "BTCUSDH23", Some("future BTC-USD-230331")),
            (Category::Inverse, "BTCUSDF23", None),
            (Category::Inverse, "BTCUSDHX3", None),
            (Category::Inverse, "BTCUSDT", None),
            (Category::Inverse, "USD", None),
            (Category::Inverse, "币", None),
            (Category::Option, "BTC-26SEP25-60000-C", Some("option BTC-USD-250926-60000-C")),
            (Category::Option, "BTC-6JAN23-17500-P", Some("option BTC-USD-230106-17500-P")),
            (Category::Option, "MNT-30OCT26-0.56-P-USDT", Some("option MNT-USDT-261030-0.56-P")),
            (Category::Option, "BTC-26SEP25-60000-X", None),
            (Category::Option, "BTC-26SEP25-0-C", None),
            (Category::Option, "BTC-26SEP25-60000-C-USDC", None),
            (Category::Option, "BTC-26SEP25-60000-C-USDT-1", None),
            (Category::Option, "BTC-26SEP25", None),
        ] {
            let found = category.read(venue).map(|l| format!("{} {}", l.market, l.symbol));
            assert_eq!(found.as_deref(), expected, "{category:?} {venue}");
        }
        assert_eq!(Category::Inverse.read("BTCUSD").unwrap().contract, Some(dollar()));
        assert_eq!(Category::Linear.read("BTCUSDT").unwrap().contract, None);
    }

    #[test]
    fn every_quarter_ends_on_a_friday_of_its_last_week() {
        for year in 19..60 {
            for letter in ["H", "M", "U", "Z"] {
                let found = last_friday(&format!("{letter}{year}")).unwrap();
                let date = NaiveDate::parse_from_str(&format!("20{found}"), "%Y%m%d").unwrap();
                assert_eq!(date.weekday(), chrono::Weekday::Fri);
                assert_ne!((date + chrono::Days::new(7)).month(), date.month());
            }
        }
    }
}
