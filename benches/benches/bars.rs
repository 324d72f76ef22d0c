//! Trades into bars through the whole operator, on one and on two workers, and the exchange alone.

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::RecordBatch;
use benches::drive;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use model::kinds::{TRADE, Trade, TradeBuilder};
use model::{Batch, Decimal, Origin};
use operators::dataflow::{self, Route, Stage};
use operators::{Advance, Keyed, Operator, Output, Snapshot};

const ROWS: usize = 8_192;
const BATCHES: usize = 32;

/// Trades of fifty instruments, a millisecond apart.
fn batches() -> Vec<Batch> {
    let mut trades = TradeBuilder::default();
    let mut random = 1_u64;
    let batch = |chunk: usize| {
        for row in 0..ROWS {
            let n = chunk * ROWS + row;
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let instrument = (random >> 33) % 50;
            trades.push(Trade {
                venue: "binance",
                market: "spot",
                symbol: &format!("C{instrument:03}-USDT"),
                event_time: 1_760_000_000_000_000 + n as i64 * 1_000,
                receive_time: None,
                frame: Some(n as i64),
                trade_id: &(1_000_000_000 + n).to_string(),
                price: Decimal::from_units(61_000_000_000_000_000 + (random >> 40) as i128 * 1_000_000),
                quantity: Decimal::from_units((random >> 30) as i128),
                contracts: None,
                side: if random & (1 << 50) == 0 { "buy" } else { "sell" },
                fills: 1,
                backfilled: Some(false),
            });
        }
        Batch::new(&TRADE, trades.finish(), Origin { source: 0, chunk: chunk as u64 })
    };
    (0..BATCHES).map(batch).collect()
}

/// Takes rows in and does nothing with them.
struct Swallow;

impl Keyed for Swallow {
    fn advance(&mut self, _: &Advance, batches: Vec<Batch>, _: &mut Output) {
        black_box(batches);
    }
    fn snapshot(&mut self) -> Snapshot {
        Box::new(Vec::new)
    }
    fn restore(&mut self, _: &[RecordBatch]) {}
}

fn bars(c: &mut Criterion) {
    let batches = Arc::new(batches());
    let mut group = c.benchmark_group("bars");
    group.throughput(Throughput::Elements((ROWS * BATCHES) as u64)).sample_size(20);
    for workers in [1, 2] {
        group.bench_function(format!("1m, {workers} workers"), |b| {
            b.iter(|| {
                let options = "every = \"1m\"\nlateness = \"5s\"";
                let bars = config::component::<dyn Operator, operators::bars::Bars>(options, std::slice::from_ref(&TRADE))
                    .expect("the options are right");
                drive(workers, &batches, Arc::new(|_: &str| None), move |stream, cx| bars.component.build(stream, cx));
            });
        });
    }
    group.finish();

    let mut group = c.benchmark_group("exchange");
    group.throughput(Throughput::Elements((ROWS * BATCHES) as u64)).sample_size(20);
    group.bench_function("by instrument, 2 workers", |b| {
        b.iter(|| {
            drive(2, &batches, Arc::new(|_: &str| None), |stream, cx| {
                dataflow::keyed(stream, cx, &["trade"], Route::Instrument, Stage::ONLY, Swallow)
            });
        });
    });
    group.finish();
}

criterion_group!(benches, bars);
criterion_main!(benches);
