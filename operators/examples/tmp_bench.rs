//! How fast deltas become a book and its metrics: one instrument of five thousand levels a side, one thread.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use std::time::Instant;
use model::kinds::{TRADE, Trade, TradeBuilder, BOOK_DELTA, BOOK_SNAPSHOT, BookDelta, BookDeltaBuilder, BookSnapshot, BookSnapshotBuilder};
use model::{Account, Batch, Decimal, Origin};
use operators::anomaly::{Detectors, Options, price_spike::PriceSpike, sequence_gap::SequenceGap, stale_feed::StaleFeed};
use operators::book::metrics::Measure;
use operators::book::state::Limits;
use operators::book::{Books, Plan};
use operators::{Advance, Keyed, Output};

const LEVELS: i64 = 5_000;
const DELTAS: usize = 8_192;
/// Changes of one side in a delta. Binance's deltas of 100 ms have some twenty to thirty.
const CHANGES: usize = 10;
/// The best bid, in ticks of 0.01.
const BEST: i64 = 6_160_000;

/// Numbers that look random, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// How many ticks from the best price a change is: mostly few, at times thousands.
    fn distance(&mut self) -> i64 {
        let reach = 1 << self.below(13);
        self.below(reach) as i64
    }
}

fn price(ticks: i64) -> Decimal {
    Decimal::from_units(i128::from(ticks) * 10_000_000_000)
}

fn size(random: &mut Random, removes: bool) -> Decimal {
    let units = if removes && random.below(3) == 0 { 0 } else { 1 + random.below(100_000) };
    Decimal::from_units(i128::from(units) * 10_000_000)
}

fn snapshot(random: &mut Random) -> Batch {
    let mut rows = BookSnapshotBuilder::default();
    let bid_prices: Vec<Decimal> = (0..LEVELS).map(|i| price(BEST - i)).collect();
    let ask_prices: Vec<Decimal> = (0..LEVELS).map(|i| price(BEST + 1 + i)).collect();
    let mut sizes = || (0..LEVELS).map(|_| size(random, false)).collect::<Vec<_>>();
    let (bid_quantities, ask_quantities) = (sizes(), sizes());
    rows.push(BookSnapshot {
        venue: "binance",
        market: "spot",
        symbol: "BTC-USDT",
        event_time: None,
        receive_time: Some(0),
        frame: Some(0),
        sequence: 0,
        origin: "venue",
        bid_prices: &bid_prices,
        bid_quantities: &bid_quantities,
        ask_prices: &ask_prices,
        ask_quantities: &ask_quantities,
        contracts: false,
    });
    Batch::new(&BOOK_SNAPSHOT, rows.finish(), Origin { source: 0, chunk: 0 })
}

fn deltas(random: &mut Random) -> Batch {
    let mut rows = BookDeltaBuilder::default();
    for update in 1..=DELTAS as i64 {
        let bid_prices: Vec<Decimal> = (0..CHANGES).map(|_| price(BEST - random.distance())).collect();
        let ask_prices: Vec<Decimal> = (0..CHANGES).map(|_| price(BEST + 1 + random.distance())).collect();
        let mut sizes = || (0..CHANGES).map(|_| size(random, true)).collect::<Vec<_>>();
        let (bid_quantities, ask_quantities) = (sizes(), sizes());
        rows.push(BookDelta {
            venue: "binance",
            market: "spot",
            symbol: "BTC-USDT",
            event_time: update * 10_000,
            receive_time: None,
            frame: Some(update),
            first_sequence: update,
            last_sequence: update,
            previous_sequence: None,
            bid_prices: &bid_prices,
            bid_quantities: &bid_quantities,
            ask_prices: &ask_prices,
            ask_quantities: &ask_quantities,
            contracts: false,
        });
    }
    Batch::new(&BOOK_DELTA, rows.finish(), Origin { source: 0, chunk: 1 })
}

const BATCH: i64 = 8_192;
const BATCHES: i64 = 16;
const INSTRUMENTS: i64 = 20;

/// Trades a millisecond apart, each price a few ticks from the one before.
fn trades(chunk: i64) -> Batch {
    let mut rows = TradeBuilder::default();
    let symbols: Vec<String> = (0..INSTRUMENTS).map(|i| format!("C{i:02}-USDT")).collect();
    for i in chunk * BATCH..(chunk + 1) * BATCH {
        let id = (i / INSTRUMENTS).to_string();
        let wobble = i128::from((i * 7_919) % 41 + (i / 5_000) % 60);
        rows.push(Trade {
            venue: "binance",
            market: "spot",
            symbol: &symbols[(i % INSTRUMENTS) as usize],
            event_time: i * 1_000,
            receive_time: Some(i * 1_000 + 50),
            frame: Some(i),
            trade_id: &id,
            price: Decimal::from_units((6_160_000 + wobble) * 10_000_000_000),
            quantity: Decimal::ONE,
            contracts: None,
            side: "buy",
            fills: 1,
        });
    }
    Batch::new(&TRADE, rows.finish(), Origin { source: 0, chunk: chunk as u64 })
}


fn main() {
    let mut random = Random(1);
    let (snapshot, deltas) = (snapshot(&mut random), deltas(&mut random));
    let advance = |watermark| Advance { time: 1, before: i64::MIN, watermark };
    for every in [None, Some(1_000_000)] {
        let measure = Measure { levels: 5, depth: "0.001".parse().expect("a number") };
        let plan = Plan { every, measure, snapshots: None, limits: Limits { deltas: 10_000, bytes: 1 << 24 } };
        for _ in 0..5 {
            let (mut books, mut out) = (Books::new(plan), Output::new("books", Arc::new(Account::default())));
            books.advance(&advance(0), vec![snapshot.clone()], &mut out);
            let t = Instant::now();
            books.advance(&advance(0), vec![deltas.clone()], &mut out);
            black_box(out.take());
            println!("book {every:?}: {:.0}/s", DELTAS as f64 / t.elapsed().as_secs_f64());
        }
    }
    let batches: Vec<Batch> = (0..BATCHES).map(trades).collect();
    let detectors: [(&'static str, Box<dyn Options>); 3] = [
        ("price_spike", Box::new(PriceSpike::default())),
        ("sequence_gap", Box::new(SequenceGap::default())),
        ("stale_feed", Box::new(StaleFeed::default())),
    ];
    for (name, options) in detectors {
        for _ in 0..3 {
            let (mut detectors, mut out) = (Detectors::new([(name, options.detector(&["trade"]), vec!["trade"])]), Output::new("anomalies", Arc::new(Account::default())));
            let mut before = i64::MIN;
            let t = Instant::now();
            for (time, batch) in (1..).zip(&batches) {
                let watermark = time as i64 * BATCH * 1_000 - 1_000;
                detectors.advance(&Advance { time, before, watermark }, vec![batch.clone()], &mut out);
                before = watermark;
            }
            let n = out.take().len();
            println!("{name}: {:.0}/s {n}", (BATCH * BATCHES) as f64 / t.elapsed().as_secs_f64());
        }
    }
}
