//! How many rows a second `filter` looks at: batches of 8,192 trades, conditions from cheap to dear.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use model::kinds::{TRADE, Trade, TradeBuilder};
use model::{Account, Batch, Decimal, Origin};
use operators::filter::Filtering;
use operators::{Output, Transform};

const ROWS: i64 = 8_192;

/// Trades at prices and sizes that differ from row to row, half of them buys.
fn trades() -> Batch {
    let mut trades = TradeBuilder::default();
    for i in 0..ROWS {
        trades.push(Trade {
            venue: "binance",
            market: "spot",
            symbol: if i % 3 == 0 { "BTC-USDT" } else { "ETH-USDT" },
            event_time: 1_723_161_255_000_000 + i,
            receive_time: None,
            frame: Some(i),
            trade_id: &i.to_string(),
            price: Decimal::from_units(61_837_630_000_000_000 + i128::from(i) * 10_000_000_000),
            quantity: Decimal::from_units(i128::from(i % 4_000) * 1_000_000_000),
            contracts: None,
            side: if i % 2 == 0 { "buy" } else { "sell" },
            fills: 1,
            backfilled: Some(false),
        });
    }
    Batch::new(&TRADE, trades.finish(), Origin::default())
}

fn filter(c: &mut Criterion) {
    let batch = trades();
    let mut group = c.benchmark_group("filter");
    group.throughput(Throughput::Elements(ROWS.unsigned_abs()));
    for (name, condition) in [
        ("label", "side = 'buy'"),
        ("comparison", "price > 61850"),
        ("product", "price * quantity > 100000 AND side = 'buy'"),
        ("quotient", "quantity > 0 AND price / nullif(quantity, 0) > 50000"),
    ] {
        let mut filtering = Filtering::new(condition, &TRADE).expect("the condition fits trades");
        let mut out = Output::new("filter", Arc::new(Account::default()));
        group.bench_function(name, |b| {
            b.iter_batched(
                || batch.clone(),
                |batch| {
                    filtering.apply(0, batch, &mut out);
                    black_box(out.take())
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, filter);
criterion_main!(benches);
