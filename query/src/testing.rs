//! A cold store for the tests of this crate, filled through the `parquet` sink.

use std::sync::Arc;

use arrow::util::display::array_value_to_string;
use config::settings::Settings;
use model::kinds::{BAR, Bar, BarBuilder, TRADE, Trade, TradeBuilder};
use model::time::{Micros, Time};
use model::{Account, Batch, Decimal, Kind, Origin};
use sinks::{Epoch, OpenSink, Sink, Writer};
use tempfile::TempDir;

use crate::Engine;

/// 2024-08-08T12:00:00Z.
pub(crate) const NOON: Micros = 1_723_118_400_000_000;
/// Microseconds of a day.
pub(crate) const DAY: Micros = 86_400_000_000;

/// A folder with tables.
pub(crate) struct Cold {
    folder: TempDir,
    writer: Option<Box<dyn Writer>>,
    upper: Time,
}

impl Cold {
    /// One with tables of these kinds, without rows.
    pub(crate) async fn with(kinds: &[&Arc<Kind>]) -> Self {
        let mut cold = Cold { folder: tempfile::tempdir().expect("a temporary folder"), writer: None, upper: 0 };
        cold.reopen(kinds).await;
        cold
    }

    async fn reopen(&mut self, kinds: &[&Arc<Kind>]) {
        let kinds: Vec<Arc<Kind>> = kinds.iter().map(|k| (*k).clone()).collect();
        let sink = config::component::<dyn Sink, sinks::parquet::Parquet>("", &kinds).expect("checks").component;
        let cx = OpenSink {
            pipeline: "test".into(),
            plan: "plan".into(),
            node: "cold".into(),
            shard: 0,
            kinds,
            settings: Arc::new(self.settings()),
            account: Arc::new(Account::default()),
        };
        self.writer = Some(sink.open(cx).await.expect("opens"));
    }

    /// Settings that say where it lies.
    pub(crate) fn settings(&self) -> Settings {
        Settings { data: Some(self.folder.path().display().to_string()), ..Settings::default() }
    }

    pub(crate) fn path(&self, of: &str) -> std::path::PathBuf {
        self.folder.path().join("cold").join(of)
    }

    /// Commits rows as an epoch.
    pub(crate) async fn commit(&mut self, watermark: Micros, rows: Vec<Batch>) {
        let lower = self.upper;
        self.upper += 10;
        let rows = rows.into_iter().map(|batch| (lower, batch)).collect();
        let epoch = Epoch { lower, upper: self.upper, watermark, again: false };
        self.writer.as_mut().expect("is open").commit(epoch, rows).await.expect("commits");
    }

    pub(crate) async fn close(&mut self) {
        self.writer.take().expect("is open").close().await.expect("closes");
    }

    pub(crate) fn engine(&self) -> Engine {
        Engine::open(&self.settings()).expect("opens")
    }

    /// The answer to a query, a text a row.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<String> {
        rows(&self.engine(), sql).await
    }
}

/// The answer to a query, a text a row.
pub(crate) async fn rows(engine: &Engine, sql: &str) -> Vec<String> {
    let batches = engine.sql(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")).collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            rows.push(batch.columns().iter().map(|c| array_value_to_string(c, row).expect("displays")).collect::<Vec<_>>().join(" "));
        }
    }
    rows
}

/// Trades: venue, symbol, id, event time.
pub(crate) fn trades(rows: &[(&str, &str, i64, Micros)]) -> Batch {
    let mut builder = TradeBuilder::default();
    for (venue, symbol, id, event_time) in rows {
        builder.push(Trade {
            venue,
            market: "spot",
            symbol,
            event_time: *event_time,
            receive_time: None,
            frame: Some(*id),
            trade_id: &id.to_string(),
            price: Decimal::from_integer(100 + *id),
            quantity: Decimal::ONE,
            contracts: None,
            side: "buy",
            fills: 1,
            backfilled: Some(false),
        });
    }
    Batch::new(&TRADE, builder.finish(), Origin::default())
}

/// Bars: symbol, start, number of trades, asserted (1) or taken back (-1).
pub(crate) fn bars(rows: &[(&str, Micros, i64, i8)]) -> Batch {
    let mut builder = BarBuilder::default();
    for (symbol, start, trades, _) in rows {
        builder.push(Bar {
            venue: "binance",
            market: "spot",
            symbol,
            interval_seconds: 60,
            start: *start,
            end: *start + 60_000_000,
            open: Decimal::ONE,
            high: Decimal::ONE,
            low: Decimal::ONE,
            close: Decimal::ONE,
            volume: Decimal::ONE,
            quote_volume: Decimal::ONE,
            buy_volume: Decimal::ONE,
            sell_volume: Decimal::ZERO,
            trades: *trades,
            vwap: None,
            first_trade_id: "1",
            last_trade_id: "2",
            first_trade_time: *start,
            last_trade_time: *start,
            partial: false,
            late: false,
            gap: None,
        });
    }
    Batch::new(&BAR, builder.finish(), Origin::default()).with_diffs(rows.iter().map(|row| row.3).collect())
}
