//! How fast trades are judged: twenty instruments in turn, one thread, batches of 8,192.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use model::kinds::{TRADE, Trade, TradeBuilder};
use model::{Account, Batch, Decimal, Origin};
use operators::anomaly::{Detectors, Options, price_spike::PriceSpike, sequence_gap::SequenceGap, stale_feed::StaleFeed};
use operators::{Advance, Keyed, Output};

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
            backfilled: Some(false),
        });
    }
    Batch::new(&TRADE, rows.finish(), Origin { source: 0, chunk: chunk as u64 })
}

fn anomaly(c: &mut Criterion) {
    let mut group = c.benchmark_group("anomaly");
    group.throughput(Throughput::Elements((BATCH * BATCHES) as u64)).sample_size(20);
    let batches: Vec<Batch> = (0..BATCHES).map(trades).collect();
    let detectors: [(&'static str, Box<dyn Options>); 3] = [
        ("price_spike", Box::new(PriceSpike::default())),
        ("sequence_gap", Box::new(SequenceGap::default())),
        ("stale_feed", Box::new(StaleFeed::default())),
    ];
    for (name, options) in detectors {
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || {
                    (
                        Detectors::new([(name, options.detector(&["trade"]), vec!["trade"])]),
                        Output::new("anomalies", Arc::new(Account::default())),
                    )
                },
                |(detectors, out)| {
                    let mut before = i64::MIN;
                    for (time, batch) in (1..).zip(&batches) {
                        let watermark = time as i64 * BATCH * 1_000 - 1_000;
                        detectors.advance(&Advance { time, before, watermark, reached: watermark }, vec![batch.clone()], out);
                        before = watermark;
                    }
                    black_box(out.take())
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, anomaly);
criterion_main!(benches);
