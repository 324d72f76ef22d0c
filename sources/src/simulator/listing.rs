//! What a simulation can trade: the assets, and the dialects that quote them.
//!
//! Instruments are dealt out over the dialects in turn (BTC on spot, USD-M and COIN-M, then ETH, ...). A venue is
//! added as a row of [`DIALECTS`] with its own [`Wire`].

use std::borrow::Cow;

use model::Decimal;
use model::instrument::Market;

use super::frames::{Binance, Wire};

/// The most instruments of one simulation.
pub(super) const MOST: u32 = 1_000;

/// A venue's protocol, and what is traded over it.
#[derive(Debug)]
pub(super) struct Dialect {
    /// Its name in the `dialect` column of a frame.
    pub(super) name: &'static str,
    /// The venue.
    pub(super) venue: &'static str,
    /// The market.
    pub(super) market: Market,
    /// Writes its frames.
    pub(super) wire: &'static dyn Wire,
    /// The greatest step between the update numbers of two changes of a book: 1 where they are dense.
    pub(super) step: i64,
    /// The quote asset.
    quote: &'static str,
    /// What follows base and quote in the venue's symbol.
    suffix: &'static str,
    /// How prices and sizes are written for an asset.
    scales: fn(&Asset) -> (Scale, Scale),
    /// Worth of a size of 1, in units of the quote asset, where it is a contract of fixed worth.
    contract: fn(&Asset) -> Option<f64>,
}

/// The dialects that instruments are dealt out over.
static DIALECTS: [Dialect; 3] = [
    Dialect {
        name: "binance_spot",
        venue: "binance",
        market: Market::Spot,
        wire: &Binance::Spot,
        step: 1,
        quote: "USDT",
        suffix: "",
        // Spot writes eight digits after every point.
        scales: |asset| (Scale::padded(asset.price_digits, 8), Scale::padded(asset.quantity_digits, 8)),
        contract: |_| None,
    },
    Dialect {
        name: "binance_usdm",
        venue: "binance",
        market: Market::Perpetual,
        wire: &Binance::UsdM,
        step: 40,
        quote: "USDT",
        suffix: "",
        scales: |asset| (Scale::plain(asset.futures_digits), Scale::plain(asset.contract_digits)),
        contract: |_| None,
    },
    Dialect {
        name: "binance_coinm",
        venue: "binance",
        market: Market::Perpetual,
        wire: &Binance::CoinM,
        step: 20,
        quote: "USD",
        suffix: "_PERP",
        scales: |asset| (Scale::plain(asset.futures_digits), Scale::plain(0)),
        // Contracts are worth 100 USD for BTC and 10 USD for everything else.
        contract: |asset| Some(if asset.base == "BTC" { 100.0 } else { 10.0 }),
    },
];

/// Something with a price, and the digits after the point of its ticks and lots.
#[derive(Clone, Debug)]
pub(super) struct Asset {
    base: Cow<'static, str>,
    /// The first price, in dollars.
    pub(super) price: f64,
    price_digits: u8,
    quantity_digits: u8,
    futures_digits: u8,
    contract_digits: u8,
}

const fn asset(base: &'static str, price: f64, [price_digits, quantity_digits, futures_digits, contract_digits]: [u8; 4]) -> Asset {
    Asset { base: Cow::Borrowed(base), price, price_digits, quantity_digits, futures_digits, contract_digits }
}

/// Assets that are listed on all three of Binance's markets, with their ticks and lots.
static ASSETS: [Asset; 16] = [
    asset("BTC", 87_500.0, [2, 5, 1, 3]),
    asset("ETH", 2_970.0, [2, 4, 2, 3]),
    asset("SOL", 124.5, [2, 3, 2, 2]),
    asset("BNB", 862.0, [2, 3, 2, 2]),
    asset("XRP", 1.86, [4, 1, 4, 1]),
    asset("DOGE", 0.1225, [5, 0, 5, 0]),
    asset("ADA", 0.3510, [4, 1, 5, 0]),
    asset("LINK", 12.40, [3, 2, 3, 2]),
    asset("AVAX", 12.55, [3, 2, 3, 0]),
    asset("LTC", 77.9, [2, 3, 2, 3]),
    asset("BCH", 598.0, [1, 3, 2, 3]),
    asset("DOT", 1.812, [4, 2, 4, 1]),
    asset("TRX", 0.2845, [4, 1, 5, 0]),
    asset("UNI", 5.82, [3, 2, 4, 0]),
    asset("FIL", 1.322, [4, 2, 4, 1]),
    asset("ATOM", 1.985, [4, 2, 4, 2]),
];

/// The asset of this number: a real one, or beyond them one that is made up.
pub(super) fn asset_numbered(number: usize) -> Asset {
    ASSETS.get(number).cloned().unwrap_or_else(|| Asset {
        base: Cow::Owned(format!("SIM{number:03}")),
        price: 1.0 + (number * 37 % 500) as f64,
        price_digits: 4,
        quantity_digits: 1,
        futures_digits: 4,
        contract_digits: 1,
    })
}

/// How a whole number of ticks or lots is written as a decimal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Digits after the point that the number has.
    pub(super) digits: u8,
    /// Zeros that follow them.
    pub(super) zeros: &'static str,
}

impl Scale {
    const fn plain(digits: u8) -> Self {
        Scale { digits, zeros: "" }
    }

    fn padded(digits: u8, to: u8) -> Self {
        Scale { digits, zeros: &"00000000"[..usize::from(to - digits)] }
    }

    /// The number of ticks or lots in 1.
    pub(super) fn units(self) -> f64 {
        (0..self.digits).fold(1.0, |units, _| units * 10.0)
    }

    /// The exact number that so many ticks or lots are.
    pub(super) fn decimal(self, value: i64) -> Decimal {
        Decimal::from_units(i128::from(value) * 10_i128.pow(12 - u32::from(self.digits)))
    }
}

/// An instrument as its venue and as records name it.
#[derive(Debug)]
pub(super) struct Listing {
    /// The dialect of its frames.
    pub(super) dialect: &'static Dialect,
    /// The canonical symbol, e.g. `BTC-USDT-PERP`.
    pub(super) symbol: String,
    /// The venue's symbol, e.g. `BTCUSDT`.
    pub(super) code: String,
    /// The venue's symbol in the names of streams, e.g. `btcusdt`.
    pub(super) stream: String,
    /// The venue's name of the pair, e.g. `BTCUSD` of `BTCUSD_PERP`.
    pub(super) pair: String,
    /// How prices are written.
    pub(super) price: Scale,
    /// How sizes are written.
    pub(super) quantity: Scale,
    /// Mean size of a trade, in lots.
    pub(super) typical: i64,
}

impl Listing {
    /// The instrument of this number, and the number of its asset.
    pub(super) fn numbered(number: usize) -> (Self, usize) {
        let (dialect, asset_number) = (&DIALECTS[number % DIALECTS.len()], number / DIALECTS.len());
        let asset = asset_numbered(asset_number);
        let pair = format!("{}{}", asset.base, dialect.quote);
        let code = format!("{pair}{}", dialect.suffix);
        let perpetual = if dialect.market == Market::Perpetual { "-PERP" } else { "" };
        let (price, quantity) = (dialect.scales)(&asset);
        // A mean trade is worth two thousand dollars.
        let worth = (dialect.contract)(&asset).unwrap_or(asset.price) / quantity.units();
        let listing = Listing {
            dialect,
            symbol: format!("{}-{}{perpetual}", asset.base, dialect.quote),
            stream: code.to_lowercase(),
            code,
            pair,
            price,
            quantity,
            typical: (2_000.0 / worth) as i64,
        };
        (listing, asset_number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn instruments_have_names_of_their_own() {
        let all: Vec<Listing> = (0..MOST as usize).map(|n| Listing::numbered(n).0).collect();
        assert_eq!(all.iter().map(|l| (l.dialect.name, &l.code)).collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(all.iter().map(|l| (l.dialect.market.as_str(), &l.symbol)).collect::<BTreeSet<_>>().len(), all.len());
        let names: Vec<_> = all[..4].iter().map(|l| (l.dialect.name, l.symbol.as_str(), l.code.as_str(), l.pair.as_str())).collect();
        assert_eq!(
            names,
            [
                ("binance_spot", "BTC-USDT", "BTCUSDT", "BTCUSDT"),
                ("binance_usdm", "BTC-USDT-PERP", "BTCUSDT", "BTCUSDT"),
                ("binance_coinm", "BTC-USD-PERP", "BTCUSD_PERP", "BTCUSD"),
                ("binance_spot", "ETH-USDT", "ETHUSDT", "ETHUSDT"),
            ]
        );
    }

    #[test]
    fn ticks_are_fine_against_prices() {
        for listing in (0..MOST as usize).map(Listing::numbered) {
            let (listing, asset) = listing;
            assert!(asset_numbered(asset).price * listing.price.units() >= 1_000.0, "{} has few ticks", listing.symbol);
            assert!(listing.typical >= 1, "{} has large lots", listing.symbol);
        }
    }
}
