//! The operator from outside, and what the detectors' tests are written with.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use config::{Input, component};
use model::columns::{integer, label, number};
use model::kinds::{
    AnomalyRows, BAR, BOOK_EVENT, BOOK_METRICS, BookEvent, BookEventBuilder, BookMetrics, BookMetricsBuilder, DeadLetterRows, QUOTE,
    QuoteBuilder, TRADE, TradeBuilder,
};
use model::{Account, Batch, Decimal, Kind, Message, Origin, Progress};
use proptest::prelude::*;

use super::*;
use crate::{Advance, Keyed, Output};

/// A trade to feed.
#[derive(Clone, Debug)]
pub struct Trade {
    pub symbol: String,
    pub time: i64,
    pub id: String,
    pub frame: i64,
    pub price: Decimal,
}

pub fn trade(symbol: &str, time: i64, id: i64, price: &str) -> Trade {
    Trade { symbol: symbol.into(), time, id: id.to_string(), frame: id, price: price.parse().unwrap() }
}

/// A best bid and ask to feed.
#[derive(Clone, Debug)]
pub struct Touch {
    pub symbol: String,
    pub event_time: Option<i64>,
    pub receive_time: Option<i64>,
    pub sequence: i64,
    pub prices: Option<(Decimal, Decimal)>,
}

pub fn quote(symbol: &str, time: i64, sequence: i64, prices: Option<(&str, &str)>) -> Touch {
    let prices = prices.map(|(bid, ask)| (bid.parse().unwrap(), ask.parse().unwrap()));
    Touch { symbol: symbol.into(), event_time: Some(time), receive_time: None, sequence, prices }
}

pub fn metrics(symbol: &str, time: i64, sequence: i64, prices: Option<(&str, &str)>) -> Touch {
    quote(symbol, time, sequence, prices)
}

/// A book event to feed.
#[derive(Clone, Debug)]
pub struct Event {
    symbol: String,
    time: i64,
    event: String,
    expected: Option<i64>,
    sequence: Option<i64>,
}

pub fn event(symbol: &str, time: i64, event: &str, expected: Option<i64>, sequence: Option<i64>) -> Event {
    Event { symbol: symbol.into(), time, event: event.into(), expected, sequence }
}

/// An anomaly that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub symbol: String,
    pub anomaly: String,
    pub channel: String,
    pub event_time: Option<i64>,
    pub receive_time: Option<i64>,
    pub frame: Option<i64>,
    pub observed: Option<String>,
    pub expected: Option<String>,
    pub score: Option<f64>,
    pub threshold: Option<f64>,
    pub window: Option<i64>,
    pub first: Option<i64>,
    pub last: Option<i64>,
    pub state: String,
    pub detail: String,
}

/// Detectors with rows to feed them, and what came out.
pub struct Rig {
    pub trades: Vec<Trade>,
    pub quotes: Vec<Touch>,
    pub metrics: Vec<Touch>,
    pub events: Vec<Event>,
    options: String,
    kinds: Vec<Arc<Kind>>,
    pub detectors: Detectors,
    out: Output,
    pub account: Arc<Account>,
    advance: Advance,
    made: Vec<Batch>,
}

fn detectors(options: &str, kinds: &[Arc<Kind>]) -> Detectors {
    let anomaly: Anomaly = toml::from_str(&format!("detect = {{ {options} }}")).unwrap();
    let inputs = [Input { node: "input".into(), kinds: kinds.to_vec() }];
    let mut cx = Check::new("anomalies", &inputs);
    let plan = anomaly.plan(&mut cx).unwrap_or_else(|| panic!("{:?}", cx.into_problems()));
    plan.detectors()
}

impl Rig {
    /// Detectors of these options whose input carries everything.
    pub fn new(options: &str) -> Self {
        Rig::without(options, "")
    }

    /// Detectors of these options whose input carries everything but one kind.
    pub fn without(options: &str, kind: &str) -> Self {
        let mut kinds = vec![TRADE.clone(), QUOTE.clone(), BOOK_METRICS.clone(), BOOK_EVENT.clone()];
        kinds.retain(|k| k.name != kind);
        let account = Arc::new(Account::default());
        Rig {
            trades: vec![],
            quotes: vec![],
            metrics: vec![],
            events: vec![],
            options: options.into(),
            detectors: detectors(options, &kinds),
            kinds,
            out: Output::new("anomalies", account.clone()),
            account,
            advance: Advance { time: 0, before: i64::MIN, watermark: i64::MIN, reached: i64::MIN },
            made: vec![],
        }
    }

    fn batches(&mut self) -> Vec<Batch> {
        let (mut trades, mut quotes, mut metrics, mut events) =
            (TradeBuilder::default(), QuoteBuilder::default(), BookMetricsBuilder::default(), BookEventBuilder::default());
        let (venue, market) = ("binance", "spot");
        for t in self.trades.drain(..) {
            trades.push(model::kinds::Trade {
                venue,
                market,
                symbol: &t.symbol,
                event_time: t.time,
                receive_time: Some(t.time + 5),
                frame: Some(t.frame),
                trade_id: &t.id,
                price: t.price,
                quantity: Decimal::ONE,
                contracts: None,
                side: "buy",
                fills: 1,
                backfilled: Some(false),
            });
        }
        for q in self.quotes.drain(..) {
            quotes.push(model::kinds::Quote {
                venue,
                market,
                symbol: &q.symbol,
                event_time: q.event_time,
                receive_time: q.receive_time,
                frame: None,
                sequence: Some(q.sequence),
                bid_price: q.prices.map(|p| p.0),
                bid_quantity: None,
                ask_price: q.prices.map(|p| p.1),
                ask_quantity: None,
            });
        }
        for m in self.metrics.drain(..) {
            metrics.push(BookMetrics {
                venue,
                market,
                symbol: &m.symbol,
                event_time: m.event_time.unwrap(),
                receive_time: None,
                frame: None,
                sequence: Some(m.sequence),
                bid_price: m.prices.map(|p| p.0),
                bid_quantity: None,
                ask_price: m.prices.map(|p| p.1),
                ask_quantity: None,
                mid: None,
                microprice: None,
                spread: None,
                spread_bps: None,
                imbalance: None,
                bid_depth: Decimal::ZERO,
                ask_depth: Decimal::ZERO,
                bid_levels: 0,
                ask_levels: 0,
                bid_total: Decimal::ZERO,
                ask_total: Decimal::ZERO,
                oracle_checks: 0,
                oracle_mismatches: 0,
            });
        }
        for e in self.events.drain(..) {
            events.push(BookEvent {
                venue,
                market,
                symbol: &e.symbol,
                event_time: Some(e.time),
                receive_time: None,
                frame: None,
                event: &e.event,
                expected_sequence: e.expected,
                sequence: e.sequence,
                detail: "told by the book",
            });
        }
        let origin = Origin { source: 0, chunk: self.advance.time };
        let all: [(&Arc<Kind>, RecordBatch); 4] =
            [(&TRADE, trades.finish()), (&QUOTE, quotes.finish()), (&BOOK_METRICS, metrics.finish()), (&BOOK_EVENT, events.finish())];
        all.into_iter().filter(|(_, rows)| rows.num_rows() > 0).map(|(kind, rows)| Batch::new(kind, rows, origin)).collect()
    }

    /// A source has come to an event time.
    pub fn reach(&mut self, event_time: i64) {
        self.advance.reached = self.advance.reached.max(event_time);
    }

    /// Feeds what is there, and event time comes to the watermark.
    pub fn advance(&mut self, watermark: i64) {
        let mut batches = self.batches();
        batches.iter().filter_map(|b| b.kind.latest(&b.rows)).for_each(|event_time| self.reach(event_time));
        let reads = self.detectors.reads();
        batches.retain(|b| reads.contains(&b.kind.name.as_ref()));
        self.account.receive(batches.iter().map(Batch::len).sum());
        if watermark != Progress::END {
            self.reach(watermark);
        }
        let Advance { time, watermark: before, reached, .. } = self.advance;
        self.advance = Advance { time: time + 1, before, watermark, reached };
        self.detectors.advance(&self.advance, batches, &mut self.out);
        self.made.extend(self.out.take().into_iter().filter_map(|m| match m {
            Message::Batch(batch) => Some(batch),
            Message::Progress(_) => None,
        }));
    }

    /// Feeds what is there, and the sources end.
    pub fn finish(&mut self) {
        self.advance(Progress::END);
        assert!(self.account.totals().balances(), "{:?}", self.account.totals());
    }

    /// Feeds trades in chunks, with the greatest watermark after each for which none of the rest is late.
    pub fn feed_within_watermark(&mut self, trades: &[Trade], chunk: usize) {
        for (i, trades_now) in trades.chunks(chunk).enumerate() {
            self.trades = trades_now.to_vec();
            let rest = trades[(i * chunk + trades_now.len())..].iter().map(|t| t.time).min();
            self.advance(rest.unwrap_or(Progress::END).max(self.advance.watermark));
        }
        self.finish();
    }

    /// Stores the state and goes on with new detectors that read it back.
    pub fn restart(&mut self) {
        let state = self.detectors.snapshot()();
        self.detectors = detectors(&self.options, &self.kinds);
        self.detectors.restore(&state);
    }

    /// Rows that came too late, each with a dead letter.
    pub fn late(&self) -> u64 {
        let letters: usize = self.made.iter().filter(|b| b.kind.name == DEAD_LETTER.name).map(Batch::len).sum();
        assert_eq!(letters as u64, self.account.totals().late);
        letters as u64
    }

    /// What was found, in order.
    pub fn found(&self) -> Vec<Found> {
        let rows = concat_batches(ANOMALY.schema(), self.made.iter().filter(|b| b.kind.name == ANOMALY.name).map(|b| &b.rows)).unwrap();
        let r = AnomalyRows::of(&rows).unwrap();
        let text = |l: Option<&str>| l.unwrap().to_owned();
        let found = |row| Found {
            symbol: text(label(r.symbol, row)),
            anomaly: text(label(r.anomaly, row)),
            channel: text(label(r.channel, row)),
            event_time: integer(r.event_time, row),
            receive_time: integer(r.receive_time, row),
            frame: integer(r.frame, row),
            observed: number(r.observed, row).map(|d| d.to_string()),
            expected: number(r.expected, row).map(|d| d.to_string()),
            score: r.score.is_valid(row).then(|| r.score.value(row)),
            threshold: r.threshold.is_valid(row).then(|| r.threshold.value(row)),
            window: integer(r.window_seconds, row),
            first: integer(r.first_sequence, row),
            last: integer(r.last_sequence, row),
            state: text(label(r.state, row)),
            detail: r.detail.value(row).to_owned(),
        };
        (0..rows.num_rows()).map(found).collect()
    }
}

const ALL: &str = "price_spike = { window = \"20s\", threshold = 4.0, min_trades = 8, confirm = 3, min_bps = 1, max_points = 40 }, sequence_gap = {}, crossed_book = {}, book_mismatch = {}, stale_feed = { after = \"4s\" }";

#[test]
fn late_rows_are_counted_and_kept() {
    let mut rig = Rig::new(ALL);
    rig.trades = vec![trade("A", 100, 1, "1")];
    rig.advance(100);
    rig.trades = vec![trade("A", 99, 2, "1"), trade("A", 100, 3, "1")];
    // Neither what only we have timed nor what a book tells is late.
    rig.quotes = vec![Touch { event_time: None, receive_time: Some(50), ..quote("A", 0, 1, None) }];
    rig.events = vec![event("A", 50, "live", None, None)];
    rig.finish();
    assert_eq!(rig.late(), 1);
    let totals = rig.account.totals();
    assert_eq!((totals.received, totals.accepted, totals.late), (5, 4, 1));
    let letters = rig.made.iter().find(|b| b.kind.name == DEAD_LETTER.name).unwrap();
    let letters = DeadLetterRows::of(&letters.rows).unwrap();
    assert_eq!((label(letters.reason, 0), label(letters.kind, 0), letters.frame.value(0)), (Some("late"), Some("trade"), 2));
    assert_eq!(
        letters.detail.value(0),
        "the record of 1970-01-01T00:00:00.000099Z came when the watermark was at 1970-01-01T00:00:00.000100Z, after its time had been judged"
    );
    assert!(std::str::from_utf8(letters.payload.value(0)).unwrap().contains("\"trade_id\":\"2\""));
}

#[test]
fn options_are_checked() {
    let all = [TRADE.clone(), QUOTE.clone(), BOOK_METRICS.clone(), BOOK_EVENT.clone()];
    let problems =
        |options: &str, inputs: &[Arc<Kind>]| component::component::<dyn Operator, Anomaly>(options, inputs).map(drop).unwrap_err();
    assert!(component::component::<dyn Operator, Anomaly>(&format!("detect = {{ {ALL} }}"), &all).is_ok());
    assert_eq!(problems("detect = {}", &all), "detect: no detector is named");
    assert_eq!(
        problems("detect = { price_spike = {}, book_mismatch = {} }", std::slice::from_ref(&*TRADE)),
        "detect.book_mismatch: `book_mismatch` reads `book_event`, but no input of `node` carries it"
    );
    assert_eq!(
        problems("detect = { crossed_book = {} }", std::slice::from_ref(&*BAR)),
        "detect.crossed_book: `crossed_book` reads `quote` or `book_metrics` or `book_event`, but no input of `node` carries it"
    );
    assert!(problems("detect = { price_spik = {} }", &all).contains("unknown field `price_spik`"));
    assert!(problems("detect = { price_spike = { windo = \"5m\" } }", &all).contains("unknown field `windo`"));
    let bad = "detect = { price_spike = { window = \"1ms\", threshold = -1, tick = 0, min_bps = -1, min_trades = 1, confirm = 0, max_points = 0 }, sequence_gap = { min_missing = 0 }, \
               stale_feed = { after = \"0s\", factor = 0.5, quantile = 1.0 } }";
    let problems = problems(bad, &all);
    assert_eq!(problems.lines().count(), 11, "{problems}");
    assert!(problems.starts_with("detect.price_spike.window: the window is 1ms\n"), "{problems}");
    let checked = component::component::<dyn Operator, Anomaly>("detect = { stale_feed = {} }", &all).unwrap();
    assert_eq!(checked.outputs.iter().map(|k| k.name.as_ref()).collect::<Vec<_>>(), ["anomaly", "dead_letter"]);
    let example: toml::Table = Anomaly::EXAMPLE.parse().unwrap();
    let detect = &example["operators"]["anomalies"]["detect"];
    assert!(component::component::<dyn Operator, Anomaly>(&format!("detect = {detect}"), &all).is_ok());
}

/// Rows of a random market: three instruments, some rows of each kind, spikes, holes, crossings and silences among them.
fn market() -> impl Strategy<Value = Vec<(usize, u8, i64, i64)>> {
    proptest::collection::vec((0_usize..3, 0_u8..12, -3_i64..4, 0_i64..20), 30..250)
}

/// Puts the rows of a step into rigs, each trade with the next id of its instrument.
fn step(rigs: &mut [&mut Rig], ids: &mut [i64; 3], clock: i64, (instrument, what, wobble, odd): (usize, u8, i64, i64)) {
    let symbol = ["A", "B", "C"][instrument];
    ids[instrument] += if odd == 7 { 3 } else { 1 };
    let id = ids[instrument];
    for rig in rigs {
        rig.reach(clock);
        match what {
            0 => rig.quotes.push(quote(symbol, clock, id, Some((&(100 + wobble).to_string(), "102")))),
            1 => rig.metrics.push(metrics(symbol, clock, id, Some((&(100 + wobble).to_string(), "101")))),
            2 => rig.events.push(event(symbol, clock, ["gap", "mismatch", "live"][odd as usize % 3], Some(id), Some(id + odd))),
            _ => {
                let price = if odd == 0 { 100 + 20 * wobble } else { 1_000 + wobble };
                rig.trades.push(trade(symbol, clock, id, &price.to_string()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// In one advance or in many, with the state stored and read back in between, the same is found.
    #[test]
    fn neither_batches_nor_a_restart_matter(market in market(), cuts in proptest::collection::btree_set(0_usize..250, 0..20), restarts in proptest::collection::btree_set(0_usize..250, 0..4)) {
        let (mut whole, mut parts) = (Rig::new(ALL), Rig::new(ALL));
        let (mut ids, mut clock) = ([0_i64; 3], 0);
        for (i, row) in market.into_iter().enumerate() {
            step(&mut [&mut whole, &mut parts], &mut ids, clock, row);
            if cuts.contains(&i) {
                parts.advance(clock);
            }
            if restarts.contains(&i) {
                parts.restart();
            }
            clock += row.3 * 100_000;
        }
        whole.finish();
        parts.finish();
        prop_assert_eq!((whole.late(), parts.late()), (0, 0));
        prop_assert_eq!(whole.found().len(), parts.found().len());
        let lines = |rig: &Rig| rig.found().iter().map(|f| format!("{f:?}")).collect::<BTreeSet<_>>();
        let (whole, parts) = (lines(&whole), lines(&parts));
        prop_assert_eq!(whole.symmetric_difference(&parts).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    /// A snapshot that becomes rows only later, when other rows were worked on, is the state of when it was taken.
    #[test]
    fn a_snapshot_keeps_its_moment(market in market(), cuts in proptest::collection::btree_set(0_usize..250, 0..20), taken in any::<prop::sample::Index>()) {
        let mut rig = Rig::new(ALL);
        let mut snapshots = (rig.detectors.snapshot()(), rig.detectors.snapshot());
        let (mut ids, mut clock, taken) = ([0_i64; 3], 0, taken.index(market.len()));
        for (i, row) in market.into_iter().enumerate() {
            step(&mut [&mut rig], &mut ids, clock, row);
            if cuts.contains(&i) || i == taken {
                rig.advance(clock);
            }
            if i == taken {
                snapshots = (rig.detectors.snapshot()(), rig.detectors.snapshot());
            }
            clock += row.3 * 100_000;
        }
        rig.finish();
        let (now, later) = snapshots;
        prop_assert_eq!(later(), now);
    }
}
