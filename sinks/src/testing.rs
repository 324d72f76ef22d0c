//! Rows for the tests of this crate.

use std::sync::Arc;

use model::kinds::{BAR, Bar, BarBuilder, TRADE, Trade, TradeBuilder};
use model::time::Micros;
use model::{Batch, Decimal, Kind, Origin};

use crate::{OpenSink, SinkError};

/// 2024-08-08T12:00:00Z.
pub(crate) const NOON: Micros = 1_723_118_400_000_000;

/// A bar of the symbol `S{key}`; revisions differ in their number of trades.
pub(crate) fn bar(key: u8, trades: i64) -> (u8, i64) {
    (key, trades)
}

/// Bars, asserted (1) or taken back (-1).
pub(crate) fn bars(rows: &[((u8, i64), i8)]) -> Batch {
    let mut builder = BarBuilder::default();
    for ((key, trades), _) in rows {
        let price = Decimal::from_integer(100 + *trades);
        builder.push(Bar {
            venue: "binance",
            market: "spot",
            symbol: &format!("S{key}"),
            interval_seconds: 60,
            start: NOON,
            end: NOON + 60_000_000,
            open: price,
            high: price,
            low: price,
            close: price,
            volume: Decimal::ONE,
            quote_volume: price,
            buy_volume: Decimal::ONE,
            sell_volume: Decimal::ZERO,
            trades: *trades,
            vwap: Some(price),
            first_trade_id: "1",
            last_trade_id: "2",
            first_trade_time: NOON,
            last_trade_time: NOON + 1,
            partial: false,
            late: false,
            gap: None,
        });
    }
    Batch::new(&BAR, builder.finish(), Origin::default()).with_diffs(rows.iter().map(|(_, diff)| *diff).collect())
}

/// Trades by id and event time.
pub(crate) fn trades(rows: &[(i64, Micros)]) -> Batch {
    let mut builder = TradeBuilder::default();
    for (id, event_time) in rows {
        builder.push(Trade {
            venue: "binance",
            market: "spot",
            symbol: "BTC-USDT",
            event_time: *event_time,
            receive_time: None,
            frame: Some(*id),
            trade_id: &id.to_string(),
            price: Decimal::from_units(61_837_630_000_000_000 + i128::from(*id)),
            quantity: Decimal::ONE,
            contracts: None,
            side: if id % 2 == 0 { "buy" } else { "sell" },
            fills: 1,
            backfilled: Some(false),
        });
    }
    Batch::new(&TRADE, builder.finish(), Origin::default())
}

/// What a sink for these kinds is opened with.
pub(crate) fn opening(kinds: &[&Arc<Kind>]) -> OpenSink {
    OpenSink {
        pipeline: "test".into(),
        plan: "plan".into(),
        node: "out".into(),
        shard: 0,
        kinds: kinds.iter().map(|k| (*k).clone()).collect(),
        settings: Arc::default(),
        account: Arc::default(),
    }
}

/// The words of an error.
pub(crate) fn words<T>(result: Result<T, SinkError>) -> String {
    result.err().expect("an error").to_string()
}
