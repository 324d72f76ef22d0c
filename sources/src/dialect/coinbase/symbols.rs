//! What Coinbase's product ids stand for.
//!
//! A listing (`products`) is exact and wins. Without one, or for a product that it does not have, the letters of two sorts of
//! id tell all: `BTC-USD` is a pair of assets, and `BTC-PERP-INTX` a perpetual of the international exchange, which is quoted
//! and settled in USDC and counts sizes in the base asset. The ids of futures (`BIT-24APR26-CDE`) name neither the asset nor
//! the size of a contract.

use model::instrument::Listing;

use crate::dialect::symbols::{Spelling, is_asset};

/// One of Coinbase's interfaces, each with a protocol of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Coinbase Exchange: spot.
    Exchange,
    /// Coinbase Advanced Trade: spot, futures and perpetuals.
    Advanced,
}

impl Spelling for Api {
    const LISTING: &'static str = "products";

    fn read(self, symbol: &str) -> Option<Listing> {
        let (base, quote) = symbol.split_once('-').filter(|(base, _)| is_asset(base))?;
        match quote {
            "PERP-INTX" if self == Api::Advanced => Some(Listing::perpetual(base, "USDC", None)),
            "PERP" => None,
            quote if is_asset(quote) && quote.bytes().all(|byte| byte.is_ascii_uppercase()) => Some(Listing::spot(base, quote)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_letters_of_an_id() {
        for (api, id, expected) in [
            (Api::Exchange, "BTC-USD", Some("spot BTC-USD")),
            (Api::Exchange, "1INCH-GBP", Some("spot 1INCH-GBP")),
            (Api::Advanced, "ETH-BTC", Some("spot ETH-BTC")),
            (Api::Advanced, "BTC-PERP-INTX", Some("perpetual BTC-USDC-PERP")),
            (Api::Advanced, "1000PEPE-PERP-INTX", Some("perpetual 1000PEPE-USDC-PERP")),
            (Api::Exchange, "BTC-PERP-INTX", None),
            (Api::Advanced, "BIT-24APR26-CDE", None),
            (Api::Advanced, "BIP-20DEC30-CDE", None),
            (Api::Advanced, "BTC-PERP", None),
            (Api::Advanced, "BTC-24APR26", None),
            (Api::Exchange, "btc-usd", None),
            (Api::Exchange, "BTCUSD", None),
            (Api::Exchange, "-USD", None),
            (Api::Exchange, "BTC-", None),
            (Api::Exchange, "", None),
        ] {
            assert_eq!(api.read(id).map(|l| format!("{} {}", l.market, l.symbol)).as_deref(), expected, "{api:?} {id}");
        }
        assert_eq!(Api::Advanced.read("BTC-PERP-INTX").unwrap().contract, None);
    }
}
