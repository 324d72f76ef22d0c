//! How fast frames become columns, in batches of 8,192: the Binance dialect alone, recorded frames of several venues, and the
//! operator `normalise`.

use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use benches::drive;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flate2::read::MultiGzDecoder;
use model::dialect::{FrameRef, Records};
use model::kinds::{self, FRAME, Frame, FrameBuilder};
use model::{Batch, Origin};
use operators::Operator;
use sources::dialect::Dialects;

const BATCH: usize = 8_192;

/// Trades of 50 instruments, as the benchmark job has them.
fn trades() -> Vec<String> {
    let mut seed = 1_u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    (0..BATCH as u64)
        .map(|i| {
            let (time, instrument) = (1_760_000_000_000 + i, next(50).min(next(50)));
            let (price, quantity, maker) = (next(10_000_000_000_000), next(10_000_000_000), next(2) == 1);
            format!(
                r#"{{"e":"trade","E":{},"s":"C{instrument:03}USDT","t":{},"p":"{}.{:08}","q":"{}.{:08}","T":{time},"m":{maker},"M":true}}"#,
                time + 3,
                575_990_000 + i,
                price / 100_000_000,
                price % 100_000_000,
                quantity / 100_000_000,
                quantity % 100_000_000,
            )
        })
        .collect()
}

fn quotes() -> Vec<String> {
    let quote = |i: usize| {
        format!(
            r#"{{"stream":"btcusdt@bookTicker","data":{{"u":{},"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000","a":"61837.64000000","A":"1.54698000"}}}}"#,
            50_093_239_212 + i
        )
    };
    (0..BATCH).map(quote).collect()
}

/// Book changes with eight levels a side.
fn depths() -> Vec<String> {
    let side =
        |from: usize| (0..8).map(|i| format!(r#"["{}.30","{}.014"]"#, 61_700 + from + i, i * from % 97)).collect::<Vec<_>>().join(",");
    let depth = |i: usize| {
        let u = 5_123_107_832_006 + i;
        format!(
            r#"{{"stream":"btcusdt@depth@0ms","data":{{"e":"depthUpdate","E":1723161256299,"T":1723161256298,"s":"BTCUSDT","U":{u},"u":{u},"pu":{},"b":[{}],"a":[{}]}}}}"#,
            u - 1,
            side(i % 90),
            side(i % 90 + 10),
        )
    };
    (0..BATCH).map(depth).collect()
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, dialect, frames, wanted) in [
        ("trade", "binance_spot", trades(), vec!["trade"]),
        ("trade, every kind wanted", "binance_spot", trades(), kinds::market_data().map(|k| k.name.as_ref()).collect()),
        ("trade, not wanted", "binance_spot", trades(), vec!["quote"]),
        ("bookTicker", "binance_spot", quotes(), vec!["quote"]),
        ("depthUpdate of 16 levels", "binance_usdm", depths(), vec!["book_delta"]),
    ] {
        let mut dialect = sources::dialect::make(dialect).expect("the dialect exists");
        let mut records = Records::wanting(wanted);
        group.bench_function(name, |b| {
            b.iter_batched(
                || (),
                |()| {
                    for (number, payload) in (1..).zip(&frames) {
                        let frame = FrameRef { receive_time: Some(5), frame: number, topic: None, payload: payload.as_bytes() };
                        dialect.decode(frame, &mut records).expect("the frames are good");
                    }
                    black_box(records.finish())
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// The frames of a recording that hold a text; `None`, said, where the recording is missing.
fn recorded(name: &str, holding: &str) -> Option<Vec<String>> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/recordings")).join(name);
    let mut text = String::new();
    if let Err(error) = std::fs::File::open(&path).and_then(|file| MultiGzDecoder::new(file).read_to_string(&mut text)) {
        #[expect(clippy::print_stderr, reason = "a benchmark that is skipped says so where benchmarks speak")]
        {
            eprintln!("skipped: {}: {error}", path.display());
        }
        return None;
    }
    // A line is the receive time and the frame, of a socket with a colon between them.
    let frames = text.lines().filter(|line| !line.starts_with("wss:")).filter_map(|line| line.split_once(' '));
    Some(frames.filter(|(_, frame)| frame.contains(holding)).map(|(_, frame)| frame.to_owned()).take(BATCH).collect())
}

/// Bytes of recorded frames a second, in one core.
fn recordings(c: &mut Criterion) {
    let mut group = c.benchmark_group("recorded");
    for (name, dialect, file, holding, kind) in [
        ("trades, Binance spot", "binance_spot", "binance/spot/btcusdt_20240809.gz", "\"e\":\"trade\"", "trade"),
        ("trades, Binance USD-M", "binance_usdm", "binance/usdm/btcusdt_20240808.gz", "\"e\":\"trade\"", "trade"),
        ("depth, Binance spot", "binance_spot", "binance/spot/btcusdt_20240809.gz", "depthUpdate", "book_delta"),
        ("depth, Binance USD-M", "binance_usdm", "binance/usdm/btcusdt_20240808.gz", "depthUpdate", "book_delta"),
        ("depth, Kraken", "kraken", "thirty_seconds/KRAKEN.ws.50.0.gz", "\"c\":", "book_delta"),
        ("depth, Coinbase", "coinbase_exchange", "thirty_seconds/COINBASE.ws.28.0.gz", "l2update", "book_delta"),
        ("trades, Coinbase", "coinbase_exchange", "thirty_seconds/COINBASE.ws.28.0.gz", "\"match\"", "trade"),
    ] {
        let Some(frames) = recorded(file, holding).filter(|frames| !frames.is_empty()) else { continue };
        let mut dialect = sources::dialect::make(dialect).expect("the dialect exists");
        let mut records = Records::wanting([kind]);
        group.throughput(Throughput::Bytes(frames.iter().map(|frame| frame.len() as u64).sum()));
        group.bench_function(name, |b| {
            b.iter(|| {
                for (number, payload) in (1..).zip(&frames) {
                    let frame = FrameRef { receive_time: Some(5), frame: number, topic: None, payload: payload.as_bytes() };
                    dialect.decode(frame, &mut records).expect("the frames are good");
                }
                black_box(records.finish())
            });
        });
    }
    group.finish();
}

/// Frames as a source hands them over.
fn batch(frames: &[String]) -> Batch {
    let mut rows = FrameBuilder::default();
    for (number, payload) in (1..).zip(frames) {
        rows.push(Frame {
            source: "in",
            dialect: "binance_spot",
            receive_time: Some(5),
            frame: number,
            connection: None,
            topic: None,
            payload: payload.as_bytes(),
        });
    }
    Batch::new(&FRAME, rows.finish(), Origin::default())
}

fn normalise(c: &mut Criterion) {
    const BATCHES: usize = 16;
    let batches = Arc::new(vec![batch(&trades()); BATCHES]);
    let mut group = c.benchmark_group("normalise");
    group.throughput(Throughput::Elements((BATCH * BATCHES) as u64)).sample_size(20);
    for workers in [1, 2] {
        group.bench_function(format!("trade, {workers} workers"), |b| {
            b.iter(|| {
                let normalise =
                    config::component::<dyn Operator, operators::normalise::Normalise>("kinds = [\"trade\"]", std::slice::from_ref(&FRAME))
                        .expect("the options are right");
                let dialects = Dialects::default();
                let make = Arc::new(move |name: &str| dialects.make(name));
                drive(workers, &batches, make, move |stream, cx| normalise.component.build(stream, cx));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode, recordings, normalise);
criterion_main!(benches);
