//! How fast deltas become a book and its metrics: one instrument of five thousand levels a side, one thread.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use model::kinds::{BOOK_DELTA, BOOK_SNAPSHOT, BookDelta, BookDeltaBuilder, BookSnapshot, BookSnapshotBuilder};
use model::{Account, Batch, Decimal, Origin};
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
        sequence: Some(0),
        origin: "venue",
        bid_prices: &bid_prices,
        bid_quantities: &bid_quantities,
        ask_prices: &ask_prices,
        ask_quantities: &ask_quantities,
        contracts: false,
        depth: None,
        checksum: None,
        price_digits: None,
        quantity_digits: None,
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
            first_sequence: Some(update),
            last_sequence: Some(update),
            previous_sequence: None,
            bid_prices: &bid_prices,
            bid_quantities: &bid_quantities,
            ask_prices: &ask_prices,
            ask_quantities: &ask_quantities,
            contracts: false,
            checksum: None,
            price_digits: None,
            quantity_digits: None,
        });
    }
    Batch::new(&BOOK_DELTA, rows.finish(), Origin { source: 0, chunk: 1 })
}

fn book(c: &mut Criterion) {
    let mut group = c.benchmark_group("book");
    group.throughput(Throughput::Elements(DELTAS as u64));
    let mut random = Random(1);
    let (snapshot, deltas) = (snapshot(&mut random), deltas(&mut random));
    let advance = |watermark| Advance { time: 1, before: i64::MIN, watermark, reached: watermark };
    for (name, every) in [("metrics after each delta", None), ("metrics each second", Some(1_000_000))] {
        let measure = Measure { levels: 5, depth: "0.001".parse().expect("a number") };
        let plan = Plan { every, measure, snapshots: None, limits: Limits { deltas: 10_000, bytes: 1 << 24 } };
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || {
                    let (mut books, mut out) = (Books::new(plan), Output::new("books", Arc::new(Account::default())));
                    books.advance(&advance(0), vec![snapshot.clone()], &mut out);
                    (books, out)
                },
                |(books, out)| {
                    books.advance(&advance(0), vec![deltas.clone()], out);
                    black_box(out.take())
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, book);
criterion_main!(benches);
