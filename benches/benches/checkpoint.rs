//! What a checkpoint costs at a million keys: how long it holds the dataflow when it is taken, what it does to the work that
//! goes on while another thread turns it into rows, and how long that and the way back take. Writes hit all keys at random:
//! the worst case for state that is copied when it is written to.
#![expect(clippy::print_stdout, reason = "a benchmark tells what it measured")]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use model::kinds::{BOOK_DELTA, BOOK_SNAPSHOT, BookDelta, BookDeltaBuilder, BookSnapshot, BookSnapshotBuilder, TRADE, Trade, TradeBuilder};
use model::time::{Micros, SECOND};
use model::{Account, Batch, Decimal, Message, Origin};
use operators::anomaly::{Detectors, Options, price_spike::PriceSpike, sequence_gap::SequenceGap, stale_feed::StaleFeed};
use operators::bars::{Combiner, Late, Merger, Windows};
use operators::book::metrics::Measure;
use operators::book::state::Limits;
use operators::book::{Books, Plan};
use operators::{Advance, Keyed, Output};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: usize = 1_000_000;
/// Rows of an advance.
const ROWS: usize = 8_192;
/// Advances without a checkpoint.
const ADVANCES: usize = 100;
const CHECKPOINTS: usize = 5;
/// Levels of each side of a book.
const LEVELS: i64 = 5;
/// The beginning of a minute.
const BEGIN: Micros = 1_760_000_040 * SECOND;

/// Numbers that look random, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// An operator at work.
struct Run<K> {
    keyed: K,
    out: Output,
    time: u64,
    watermark: Micros,
}

impl<K: Keyed> Run<K> {
    fn new(keyed: K) -> Self {
        Run { keyed, out: Output::new("bench", Arc::new(Account::default())), time: 0, watermark: Micros::MIN }
    }

    /// Works on rows. Returns how long that took.
    fn advance(&mut self, (batches, watermark): (Vec<Batch>, Micros)) -> Duration {
        self.time += 1;
        let advance = Advance { time: self.time, before: self.watermark, watermark, reached: watermark };
        self.watermark = watermark;
        let start = Instant::now();
        self.keyed.advance(&advance, batches, &mut self.out);
        drop(self.out.take());
        start.elapsed()
    }
}

/// Measures an operator. `rows` makes one row for each of some instruments, and the watermark with them.
fn measure<K: Keyed>(name: &str, make: impl Fn() -> K, mut rows: impl FnMut(&[usize]) -> (Vec<Batch>, Micros)) {
    let mut run = Run::new(make());
    for first in (0..KEYS).step_by(ROWS) {
        run.advance(rows(&(first..KEYS.min(first + ROWS)).collect::<Vec<_>>()));
    }
    let mut random = Random(1);
    let mut somewhere = || rows(&(0..ROWS).map(|_| random.below(KEYS)).collect::<Vec<_>>());
    let mut without: Vec<Duration> = (0..ADVANCES).map(|_| run.advance(somewhere())).collect();
    let (mut taking, mut next, mut during) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..CHECKPOINTS {
        let start = Instant::now();
        let snapshot = run.keyed.snapshot();
        taking.push(start.elapsed());
        next.push(run.advance(somewhere()));
        let storing = thread::spawn(move || drop(snapshot()));
        while !storing.is_finished() {
            during.push(run.advance(somewhere()));
        }
        storing.join().expect("a state can be turned into rows");
    }
    println!("\n{name}: {KEYS} keys");
    println!("  snapshot() holds the dataflow     {}", spread(&mut taking));
    println!("  advance, {ROWS} rows at random      {}", spread(&mut without));
    println!("    the next behind a snapshot      {}", spread(&mut next));
    println!("    while a snapshot becomes rows   {}", spread(&mut during));

    let start = Instant::now();
    let state = run.keyed.snapshot()();
    let took = start.elapsed();
    drop(run);
    let stored: usize = state.iter().map(stored).sum();
    println!("  a state into rows                 {took:.2?}, {} batches, {:.0} MB as they are stored", state.len(), stored as f64 / 1e6);

    let mut restored = make();
    let start = Instant::now();
    restored.restore(&state);
    println!("  restore                           {:.2?}", start.elapsed());
    assert!(restored.snapshot()() == state, "what was restored is what was stored, in the same batches");
}

/// The median and the greatest.
fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    format!("median {:.1?}, longest {:.1?} of {}", times[times.len() / 2], times[times.len() - 1], times.len())
}

/// The length of a batch as checkpoints store it.
fn stored(rows: &RecordBatch) -> usize {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).expect("LZ4 is built in");
    let mut writer = FileWriter::try_new_with_options(Vec::new(), rows.schema_ref(), options).expect("memory takes all");
    writer.write(rows).expect("memory takes all");
    writer.into_inner().expect("memory takes all").len()
}

fn symbol(instrument: usize) -> String {
    format!("C{instrument:06}-USDT")
}

fn cents(cents: i64) -> Decimal {
    Decimal::from_units(i128::from(cents) * 10_000_000_000)
}

/// Makes a trade of each instrument, a microsecond apart, numbered by instrument.
fn trades() -> impl FnMut(&[usize]) -> (Batch, Micros) {
    let (mut clock, mut chunk, mut ids) = (BEGIN, 0, vec![1_000_000_000_i64; KEYS]);
    move |instruments| {
        let mut rows = TradeBuilder::default();
        for instrument in instruments {
            clock += 1;
            ids[*instrument] += 1;
            rows.push(Trade {
                venue: "binance",
                market: "spot",
                symbol: &symbol(*instrument),
                event_time: clock,
                receive_time: Some(clock + 50),
                frame: Some(clock),
                trade_id: &ids[*instrument].to_string(),
                price: cents(6_160_000 + clock % 41),
                quantity: cents(1 + clock % 1_000),
                contracts: None,
                side: "buy",
                fills: 1,
                backfilled: Some(false),
            });
        }
        chunk += 1;
        (Batch::new(&TRADE, rows.finish(), Origin { source: 0, chunk }), clock)
    }
}

fn bars() {
    let windows = Windows::new(vec![60 * SECOND], 5 * SECOND);
    let mut combiner = Run::new(Combiner::new(windows.clone(), Late::Count));
    let mut trades = trades();
    measure(
        "bars",
        || Merger::new(windows.clone()),
        |instruments| {
            let (batch, clock) = trades(instruments);
            let advance = Advance { time: 1, before: Micros::MIN, watermark: clock, reached: clock };
            combiner.keyed.advance(&advance, vec![batch], &mut combiner.out);
            let partials = combiner.out.take().into_iter().filter_map(|message| match message {
                Message::Batch(batch) => Some(batch),
                Message::Progress(_) => None,
            });
            (partials.collect(), clock)
        },
    );
}

fn books() {
    let measure_of = Measure { levels: 5, depth: "0.001".parse().expect("a number") };
    let plan = Plan { every: None, measure: measure_of, snapshots: None, limits: Limits { deltas: 10_000, bytes: 1 << 24 } };
    let (mut clock, mut chunk, mut updates) = (BEGIN, 0, vec![0_i64; KEYS]);
    let ladder = |from: i64, step: i64| (0..LEVELS).map(|level| cents(from + level * step)).collect::<Vec<_>>();
    let (bids, asks, sizes) = (ladder(6_160_000, -1), ladder(6_160_001, 1), ladder(100, 7));
    measure(
        "books of five levels a side",
        || Books::new(plan),
        |instruments| {
            let (mut snapshots, mut deltas) = (BookSnapshotBuilder::default(), BookDeltaBuilder::default());
            for instrument in instruments {
                clock += 1;
                let sequence = updates[*instrument];
                updates[*instrument] += 1;
                let symbol = symbol(*instrument);
                if sequence == 0 {
                    snapshots.push(BookSnapshot {
                        venue: "binance",
                        market: "spot",
                        symbol: &symbol,
                        event_time: Some(clock),
                        receive_time: Some(clock),
                        frame: Some(clock),
                        sequence: Some(sequence),
                        origin: "venue",
                        bid_prices: &bids,
                        bid_quantities: &sizes,
                        ask_prices: &asks,
                        ask_quantities: &sizes,
                        contracts: false,
                        depth: None,
                        checksum: None,
                        price_digits: None,
                        quantity_digits: None,
                    });
                    continue;
                }
                let size = [cents(1 + clock % 1_000)];
                deltas.push(BookDelta {
                    venue: "binance",
                    market: "spot",
                    symbol: &symbol,
                    event_time: clock,
                    receive_time: Some(clock),
                    frame: Some(clock),
                    first_sequence: Some(sequence),
                    last_sequence: Some(sequence),
                    previous_sequence: None,
                    bid_prices: &bids[..1],
                    bid_quantities: &size,
                    ask_prices: &asks[..1],
                    ask_quantities: &size,
                    contracts: false,
                    checksum: None,
                    price_digits: None,
                    quantity_digits: None,
                });
            }
            chunk += 1;
            let origin = Origin { source: 0, chunk };
            let batches = [Batch::new(&BOOK_SNAPSHOT, snapshots.finish(), origin), Batch::new(&BOOK_DELTA, deltas.finish(), origin)];
            (batches.into_iter().filter(|batch| !batch.is_empty()).collect(), clock)
        },
    );
}

/// The detectors of trades, a tenth of a second of which wait for the watermark.
fn anomalies() {
    let detectors = || {
        let all: [(&'static str, Box<dyn Options>); 3] = [
            ("price_spike", Box::new(PriceSpike::default())),
            ("sequence_gap", Box::new(SequenceGap::default())),
            ("stale_feed", Box::new(StaleFeed::default())),
        ];
        Detectors::new(all.map(|(name, options)| (name, options.detector(&["trade"]), vec!["trade"])))
    };
    let mut trades = trades();
    measure("detectors of anomalies in trades", detectors, |instruments| {
        let (batch, clock) = trades(instruments);
        (vec![batch], clock - 100_000)
    });
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, run) in [("bars", bars as fn()), ("books", books), ("anomalies", anomalies)] {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            run();
        }
    }
}
