//! What a venue's symbol stands for.
//!
//! Venue, market and symbol name an instrument uniquely, and the symbol is canonical: `BTC-USDT` on a spot
//! market, `BTC-USDT-PERP` for a perpetual, `BTC-USD-260327` for a future, `BTC-USD-260327-60000-C` for an
//! option. What a venue's own symbol stands for is told by the venue's listing, not by its letters; the
//! dialects say where they must do without.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Decimal;

/// Where an instrument is traded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Market {
    /// Assets against assets.
    Spot,
    /// Contracts without expiry.
    Perpetual,
    /// Contracts with expiry.
    Future,
    /// Rights to buy or sell.
    Option,
    /// Not traded: an index.
    Index,
}

impl Market {
    /// The label in the `market` column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Market::Spot => "spot",
            Market::Perpetual => "perpetual",
            Market::Future => "future",
            Market::Option => "option",
            Market::Index => "index",
        }
    }
}

impl fmt::Display for Market {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a contract is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contract {
    /// Size of one contract: in the base asset, or in the quote asset if `inverse`.
    pub size: Decimal,
    /// Worth a fixed amount of the quote asset, settled in the base asset.
    pub inverse: bool,
}

impl Contract {
    /// The size in the base asset of a number of contracts at a price. Exact for linear contracts; for
    /// inverse ones contracts · size / price, rounded half to even at the twelfth digit. `None` where it
    /// does not fit or the price is zero.
    pub fn base_quantity(&self, contracts: Decimal, price: Decimal) -> Option<Decimal> {
        let notional = contracts.mul_rounded(self.size)?;
        if self.inverse { notional.div_rounded(price) } else { Some(notional) }
    }
}

/// What the holder of an option may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Buy.
    Call,
    /// Sell.
    Put,
}

impl Right {
    /// The right of this letter, `C` or `P`.
    pub fn of(letter: &str) -> Option<Right> {
        match letter {
            "C" => Some(Right::Call),
            "P" => Some(Right::Put),
            _ => None,
        }
    }

    /// The letter in a symbol.
    pub const fn letter(self) -> char {
        match self {
            Right::Call => 'C',
            Right::Put => 'P',
        }
    }

    /// The label in the `option_type` column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Right::Call => "call",
            Right::Put => "put",
        }
    }
}

/// An instrument as records name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The market.
    pub market: Market,
    /// The canonical symbol.
    pub symbol: String,
    /// The base asset.
    pub base: String,
    /// The quote asset.
    pub quote: String,
    /// The contract, where the venue sends sizes in contracts; `None` where it sends them in the base asset.
    pub contract: Option<Contract>,
}

impl Listing {
    /// A pair of assets on a spot market.
    pub fn spot(base: &str, quote: &str) -> Self {
        Listing { market: Market::Spot, symbol: format!("{base}-{quote}"), base: base.into(), quote: quote.into(), contract: None }
    }

    /// A perpetual.
    pub fn perpetual(base: &str, quote: &str, contract: Option<Contract>) -> Self {
        Listing { market: Market::Perpetual, symbol: format!("{base}-{quote}-PERP"), base: base.into(), quote: quote.into(), contract }
    }

    /// A future; `expiry` as year, month and day, `260327`.
    pub fn future(base: &str, quote: &str, expiry: &str, contract: Option<Contract>) -> Self {
        Listing { market: Market::Future, symbol: format!("{base}-{quote}-{expiry}"), base: base.into(), quote: quote.into(), contract }
    }

    /// An option; `expiry` as year, month and day, `260327`, and the strike price as the venue writes it.
    pub fn option(base: &str, quote: &str, expiry: &str, strike: &str, right: Right, contract: Option<Contract>) -> Self {
        let symbol = format!("{base}-{quote}-{expiry}-{strike}-{}", right.letter());
        Listing { market: Market::Option, symbol, base: base.into(), quote: quote.into(), contract }
    }

    /// An index, which is not traded.
    pub fn index(base: &str, quote: &str) -> Self {
        Listing { market: Market::Index, symbol: format!("{base}-{quote}"), base: base.into(), quote: quote.into(), contract: None }
    }
}
