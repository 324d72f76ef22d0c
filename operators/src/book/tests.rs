//! The operator from outside: recorded frames against an independent script's results, and the same rows
//! however they are cut into advances.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use config::component;
use model::book::levels::Side;
use model::kinds::{
    BOOK_DELTA, BOOK_SNAPSHOT, BookDelta, BookDeltaBuilder, BookEventRows, BookMetricsRows, BookSnapshot, BookSnapshotBuilder,
    BookSnapshotRows, DeadLetterRows, QUOTE, Quote, QuoteBuilder, TRADE,
};
use model::{Account, Batch, Decimal, Kind, Message, Origin, Progress, columns};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{Advance, Keyed, Output};

/// A plan as a pipeline file would make it.
fn plan(options: &str) -> Plan {
    let book: Book = serde_json::from_str(options).unwrap();
    let inputs = [config::Input { node: "input".into(), kinds: vec![BOOK_DELTA.clone(), BOOK_SNAPSHOT.clone(), QUOTE.clone()] }];
    let mut cx = Check::new("books", &inputs);
    book.plan(&mut cx).unwrap_or_else(|| panic!("{:?}", cx.into_problems()))
}

/// Columns of the three kinds under construction.
#[derive(Default)]
struct Rows {
    deltas: BookDeltaBuilder,
    snapshots: BookSnapshotBuilder,
    quotes: QuoteBuilder,
    latest: i64,
}

impl Rows {
    fn batches(&mut self, chunk: u64) -> Vec<Batch> {
        let origin = Origin { source: 0, chunk };
        let batches = [(&BOOK_DELTA, self.deltas.finish()), (&BOOK_SNAPSHOT, self.snapshots.finish()), (&QUOTE, self.quotes.finish())];
        batches.into_iter().filter(|(_, rows)| rows.num_rows() > 0).map(|(kind, rows)| Batch::new(kind, rows, origin)).collect()
    }

    /// Decodes a Binance frame, independently of the project's dialects.
    fn frame(&mut self, market: &str, symbol: &str, frame: i64, line: &str) {
        let (received, json) = line.split_once(' ').expect("a line is a time and a frame");
        let json: Value = serde_json::from_str(json).unwrap();
        let data = json.get("data").unwrap_or(&json);
        let receive_time = Some(received.parse::<i64>().unwrap() / 1_000);
        let number = |key: &str| data.get(key).and_then(Value::as_i64);
        let millis = |key: &str| number(key).map(|m| m * 1_000);
        let decimal = |value: &Value| value.as_str().unwrap().parse::<Decimal>().unwrap();
        let levels = |key: &str| -> (Vec<Decimal>, Vec<Decimal>) {
            data[key].as_array().unwrap().iter().map(|l| (decimal(&l[0]), decimal(&l[1]))).unzip()
        };
        let frame = Some(frame);
        if let Some(sequence) = number("lastUpdateId") {
            let ((bid_prices, bid_quantities), (ask_prices, ask_quantities)) = (levels("bids"), levels("asks"));
            self.snapshots.push(BookSnapshot {
                venue: "binance",
                market,
                symbol,
                event_time: millis("E"),
                receive_time,
                frame,
                sequence: Some(sequence),
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
        } else if data["e"] == "depthUpdate" {
            let ((bid_prices, bid_quantities), (ask_prices, ask_quantities)) = (levels("b"), levels("a"));
            let event_time = millis("E").unwrap();
            self.latest = self.latest.max(event_time);
            self.deltas.push(BookDelta {
                venue: "binance",
                market,
                symbol,
                event_time,
                receive_time,
                frame,
                first_sequence: Some(number("U").unwrap()),
                last_sequence: Some(number("u").unwrap()),
                previous_sequence: number("pu"),
                bid_prices: &bid_prices,
                bid_quantities: &bid_quantities,
                ask_prices: &ask_prices,
                ask_quantities: &ask_quantities,
                contracts: false,
                checksum: None,
                price_digits: None,
                quantity_digits: None,
            });
        } else if data.get("A").is_some() {
            self.quotes.push(Quote {
                venue: "binance",
                market,
                symbol,
                event_time: millis("E"),
                receive_time,
                frame,
                sequence: number("u"),
                bid_price: Some(decimal(&data["b"])),
                bid_quantity: Some(decimal(&data["B"])),
                ask_price: Some(decimal(&data["a"])),
                ask_quantity: Some(decimal(&data["A"])),
            });
        }
    }
}

/// An operator with its output and books.
struct Rig {
    books: Books,
    out: Output,
    account: Arc<Account>,
    watermark: i64,
    time: u64,
    received: usize,
    made: Vec<Batch>,
}

impl Rig {
    fn new(plan: Plan) -> Self {
        let account = Arc::new(Account::default());
        Rig {
            books: Books::new(plan),
            out: Output::new("books", account.clone()),
            account,
            watermark: i64::MIN,
            time: 1_723_161_253_000,
            received: 0,
            made: Vec::new(),
        }
    }

    fn advance(&mut self, batches: Vec<Batch>, watermark: i64) {
        self.time += 1;
        let advance = Advance { time: self.time, before: self.watermark, watermark, reached: watermark };
        self.watermark = watermark;
        self.account.receive(batches.iter().map(Batch::len).sum());
        self.received += batches.iter().map(Batch::len).sum::<usize>();
        self.books.advance(&advance, batches, &mut self.out);
        self.made.extend(self.out.take().into_iter().filter_map(|m| match m {
            Message::Batch(batch) => Some(batch),
            Message::Progress(_) => None,
        }));
    }

    /// All rows of a kind.
    fn rows(&self, kind: &Arc<Kind>) -> RecordBatch {
        concat_batches(kind.schema(), self.made.iter().filter(|b| b.kind.name == kind.name).map(|b| &b.rows)).unwrap()
    }

    /// All rows as text, sorted: what was given, whatever the batches.
    fn text(&self) -> Vec<String> {
        let rows = self.made.iter().flat_map(|b| {
            (0..b.len()).map(|row| format!("{} {}", b.kind.name, String::from_utf8(model::json::row_json(&b.rows, row)).unwrap()))
        });
        let mut rows: Vec<String> = rows.collect();
        rows.sort();
        rows
    }
}

fn recordings() -> Option<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/recordings/binance"));
    folder.is_dir().then_some(folder)
}

/// Feeds recorded files in advances of so many lines.
fn feed(rig: &mut Rig, files: &[&str], market: &str, symbol: &str, lines: usize) -> bool {
    let Some(folder) = recordings() else {
        let mut stderr = std::io::stderr();
        std::io::Write::write_all(&mut stderr, format!("skipped: needs the recordings {files:?}\n").as_bytes()).unwrap();
        return false;
    };
    let (mut rows, mut frame, mut chunk) = (Rows::default(), 0, 0);
    for file in files {
        let read = BufReader::new(flate2::read::MultiGzDecoder::new(std::fs::File::open(folder.join(file)).unwrap()));
        for line in read.lines() {
            frame += 1;
            rows.frame(market, symbol, frame, &line.unwrap());
            if (frame as usize).is_multiple_of(lines) {
                chunk += 1;
                let batches = rows.batches(chunk);
                rig.advance(batches, if rows.latest == 0 { i64::MIN } else { rows.latest });
            }
        }
    }
    let batches = rows.batches(chunk + 1);
    rig.advance(batches, Progress::END);
    true
}

/// Compares the final book and the counts with what the independent script found.
fn check_expected(rig: &Rig, symbol: &str, name: &str) {
    let expected: Value = serde_json::from_slice(&std::fs::read(recordings().unwrap().join("expected.json")).unwrap()).unwrap();
    let expected = &expected[name];
    let (counts, last) = (&expected["counts"], &expected["final_book"]);
    let machine = rig.books.machine(symbol).unwrap();
    let (tally, book) = (machine.tally(), machine.book().unwrap());
    assert_eq!(Some(tally.applied), counts["depth_applied"].as_u64());
    assert_eq!(Some(tally.stale), counts["depth_dropped_stale"].as_u64());
    assert_eq!((Some(tally.gaps), tally.dropped), (expected["sequence_gaps"].as_u64(), 0));
    assert_eq!(book.sequence, expected["last_u"].as_i64());
    assert_eq!((Some(book.oracle_checks), book.oracle_mismatches), (expected["bookticker_oracle_matches"].as_i64(), 0));
    let decimal = |value: &Value| value.as_str().unwrap().parse::<Decimal>().unwrap().units();
    let top = |side: &Side| side.iter().take(5).collect::<Vec<_>>();
    let top_expected = |key: &str| last[key].as_array().unwrap().iter().map(|l| (decimal(&l[0]), decimal(&l[1]))).collect::<Vec<_>>();
    assert_eq!((top(&book.bids), top(&book.asks)), (top_expected("bids_top5"), top_expected("asks_top5")));
    assert_eq!((book.bids.total(), book.asks.total()), (decimal(&last["bid_qty_total"]), decimal(&last["ask_qty_total"])));
    assert_eq!((Some(book.bids.len() as u64), Some(book.asks.len() as u64)), (last["bid_levels"].as_u64(), last["ask_levels"].as_u64()));

    // What the machine knows is what the rows say.
    let metrics = rig.rows(&BOOK_METRICS);
    let metrics = BookMetricsRows::of(&metrics).unwrap();
    assert_eq!(Some(metrics.sequence.len() as u64), counts["depth_applied"].as_u64());
    let end = metrics.sequence.len() - 1;
    assert_eq!(
        (Some(metrics.sequence.value(end)), metrics.oracle_checks.value(end), metrics.bid_levels.value(end)),
        (book.sequence, book.oracle_checks, book.bids.len() as i64)
    );
    assert_eq!((metrics.bid_total.value(end), metrics.ask_total.value(end)), (book.bids.total(), book.asks.total()));
    let events = rig.rows(&BOOK_EVENT);
    let events = BookEventRows::of(&events).unwrap();
    let labels: Vec<_> = (0..events.event.len()).map(|row| columns::label(events.event, row).unwrap()).collect();
    assert_eq!(labels, ["buffering", "snapshot", "live"]);
    let snapshots = rig.rows(&BOOK_SNAPSHOT);
    let snapshots = BookSnapshotRows::of(&snapshots).unwrap();
    let end = snapshots.sequence.len() - 1;
    assert_eq!((Some(snapshots.sequence.value(end)), columns::numbers(snapshots.bid_prices, end).len()), (book.sequence, book.bids.len()));
    assert_eq!(columns::numbers(snapshots.ask_quantities, end).iter().sum::<i128>(), book.asks.total());
    let totals = rig.account.totals();
    assert!(totals.balances() && totals.received == rig.received as u64, "{totals:?}");
}

#[test]
fn the_recorded_spot_book_is_the_one_expected() {
    let mut rig = Rig::new(plan(r#"{ "snapshots": { "every": "1m" } }"#));
    if feed(&mut rig, &["spot/btcusdt_20240808.gz", "spot/btcusdt_20240809.gz"], "spot", "BTC-USDT", 997) {
        check_expected(&rig, "BTC-USDT", "spot_btcusdt");
    }
}

#[test]
fn the_recorded_perpetual_book_is_the_one_expected() {
    let mut rig = Rig::new(plan(r#"{ "snapshots": { "every": "1m" } }"#));
    if feed(&mut rig, &["usdm/btcusdt_20240808.gz"], "perpetual", "BTC-USDT-PERP", 1_009) {
        check_expected(&rig, "BTC-USDT-PERP", "usdm_btcusdt");
    }
}

#[test]
fn one_advance_or_many_give_the_same_rows() {
    for options in [r#"{ "every": "1s", "snapshots": { "every": "30s", "levels": 20 } }"#, "{}"] {
        let mut texts = Vec::new();
        for lines in [usize::MAX, 10_000, 7] {
            let mut rig = Rig::new(plan(options));
            if !feed(&mut rig, &["spot/btcusdt_20240808.gz"], "spot", "BTC-USDT", lines) {
                return;
            }
            texts.push(rig.text());
        }
        assert!(texts[0].len() > 300);
        assert!(texts[0] == texts[1], "10,000 lines at once");
        assert!(texts[0] == texts[2], "7 lines at once");
    }
}

/// What the sockets of a recording of thirty seconds received; `None`, said, where it is missing.
fn thirty_seconds(name: &str) -> Option<Vec<String>> {
    let Some(folder) = recordings() else {
        let mut stderr = std::io::stderr();
        std::io::Write::write_all(&mut stderr, format!("skipped: needs the recording {name}\n").as_bytes()).unwrap();
        return None;
    };
    let file = std::fs::File::open(folder.join("../thirty_seconds").join(name)).unwrap();
    let lines = BufReader::new(flate2::read::MultiGzDecoder::new(file)).lines().map(Result::unwrap);
    let frames = lines.filter(|line| !line.starts_with("wss:")).filter_map(|line| line.split_once(": ").map(|(_, frame)| frame.to_owned()));
    // Some were written down as Python writes bytes.
    Some(frames.map(|frame| frame.strip_prefix("b'").and_then(|rest| rest.strip_suffix('\'')).unwrap_or(&frame).to_owned()).collect())
}

/// Levels as texts, and the most fraction digits of prices and of sizes.
fn levels(list: &Value) -> (Vec<Decimal>, Vec<Decimal>, [i64; 2]) {
    let (mut prices, mut sizes, mut digits) = (Vec::new(), Vec::new(), [0; 2]);
    for level in list.as_array().into_iter().flatten() {
        for (at, numbers) in [&mut prices, &mut sizes].into_iter().enumerate() {
            let text = level[at].as_str().unwrap();
            numbers.push(text.parse().unwrap());
            digits[at] = digits[at].max(text.split_once('.').map_or(0, |(_, fraction)| fraction.len() as i64));
        }
    }
    (prices, sizes, digits)
}

/// A change of a book, or the whole of it, without numbers.
fn unnumbered(rows: &mut Rows, venue: &str, symbol: &str, frame: i64, [bids, asks]: [&Value; 2], whole: bool, checksum: Option<i64>) {
    let ((bid_prices, bid_quantities, bid_digits), (ask_prices, ask_quantities, ask_digits)) = (levels(bids), levels(asks));
    let digits = (venue == "kraken").then(|| [0, 1].map(|at| bid_digits[at].max(ask_digits[at])));
    let (price_digits, quantity_digits) = (digits.map(|d| d[0]), digits.map(|d| d[1]));
    // That of the recorded books.
    let depth = (venue == "kraken").then_some(1_000);
    let (market, receive_time) = ("spot", None);
    if whole {
        rows.snapshots.push(BookSnapshot {
            venue,
            market,
            symbol,
            event_time: Some(frame),
            receive_time,
            frame: Some(frame),
            sequence: None,
            origin: "venue",
            bid_prices: &bid_prices,
            bid_quantities: &bid_quantities,
            ask_prices: &ask_prices,
            ask_quantities: &ask_quantities,
            contracts: false,
            depth,
            checksum,
            price_digits,
            quantity_digits,
        });
    } else {
        rows.deltas.push(BookDelta {
            venue,
            market,
            symbol,
            event_time: frame,
            receive_time,
            frame: Some(frame),
            first_sequence: None,
            last_sequence: None,
            previous_sequence: None,
            bid_prices: &bid_prices,
            bid_quantities: &bid_quantities,
            ask_prices: &ask_prices,
            ask_quantities: &ask_quantities,
            contracts: false,
            checksum,
            price_digits,
            quantity_digits,
        });
    }
}

/// The events and the number of deltas applied of recorded books that only checksums hold together, with one change left out.
fn checked_books(venue: &str, lost: Option<usize>) -> Option<(Vec<String>, u64, usize)> {
    let (mut rig, mut rows, mut changes) = (Rig::new(plan("{}")), Rows::default(), 0);
    let mut books = std::collections::BTreeSet::new();
    for (frame, text) in (1..).zip(thirty_seconds(if venue == "kraken" { "KRAKEN.ws.50.0.gz" } else { "OKX.ws.1.0.gz" })?) {
        let json: Value = serde_json::from_str(&text).unwrap();
        let absent = Value::Null;
        match venue {
            "kraken" => {
                let Some([_, parts @ .., _, pair]) = json.as_array().map(Vec::as_slice) else { continue };
                let part = |name: &str| parts.iter().find_map(|part| part.get(name)).unwrap_or(&absent);
                let symbol = pair.as_str().unwrap();
                books.insert(symbol.to_owned());
                if !part("as").is_null() {
                    unnumbered(&mut rows, venue, symbol, frame, [part("bs"), part("as")], true, None);
                } else {
                    changes += 1;
                    let checksum = part("c").as_str().unwrap().parse().unwrap();
                    if lost != Some(changes) {
                        unnumbered(&mut rows, venue, symbol, frame, [part("b"), part("a")], false, Some(checksum));
                    }
                }
            }
            _ => {
                let (Some("books"), Some(data)) = (json["arg"]["channel"].as_str(), json["data"].get(0)) else { continue };
                let (symbol, whole) = (json["arg"]["instId"].as_str().unwrap(), json["action"] == "snapshot");
                books.insert(symbol.to_owned());
                changes += usize::from(!whole);
                if whole || lost != Some(changes) {
                    unnumbered(&mut rows, venue, symbol, frame, [&data["bids"], &data["asks"]], whole, data["checksum"].as_i64());
                }
            }
        }
    }
    rig.advance(rows.batches(1), Progress::END);
    let events = rig.rows(&BOOK_EVENT);
    let events = BookEventRows::of(&events).unwrap();
    let labels = (0..events.event.len()).map(|row| columns::label(events.event, row).unwrap().to_owned()).collect();
    let applied = books.iter().map(|symbol| rig.books.machine(symbol).unwrap().tally().applied).sum();
    Some((labels, applied, changes))
}

#[test]
fn recorded_books_agree_with_every_checksum_of_their_venue() {
    for (venue, books, all) in [("kraken", 10, 4_269), ("okx", 3, 287)] {
        let Some((events, applied, changes)) = checked_books(venue, None) else { return };
        let count = |wanted: &str| events.iter().filter(|event| *event == wanted).count();
        assert_eq!((changes, applied), (all, all as u64), "{venue}: {events:?}");
        assert_eq!((count("snapshot"), count("live"), count("checksum")), (books, books, 0), "{venue}");
        // One that is lost is told by the next, and the book is gone.
        let (events, applied, _) = checked_books(venue, Some(4)).unwrap();
        assert_eq!(events.iter().filter(|event| *event == "checksum").count(), 1, "{venue}");
        assert!(applied < all as u64 - 1, "{venue}: {applied}");
    }
}

/// A delta of one bid, the size of which is its number.
fn delta(rows: &mut Rows, symbol: &str, event_time: i64, first: i64, last: i64) {
    let (price, size) = (Decimal::from_integer(100 + last % 7), Decimal::from_integer(last % 4));
    rows.deltas.push(BookDelta {
        venue: "binance",
        market: "spot",
        symbol,
        event_time,
        receive_time: None,
        frame: Some(event_time),
        first_sequence: Some(first),
        last_sequence: Some(last),
        previous_sequence: None,
        bid_prices: &[price],
        bid_quantities: &[size],
        ask_prices: &[],
        ask_quantities: &[],
        contracts: false,
        checksum: None,
        price_digits: None,
        quantity_digits: None,
    });
}

fn snapshot(rows: &mut Rows, symbol: &str, frame: i64, sequence: i64, origin: &str) {
    rows.snapshots.push(BookSnapshot {
        venue: "binance",
        market: "spot",
        symbol,
        event_time: None,
        receive_time: None,
        frame: Some(frame),
        sequence: Some(sequence),
        origin,
        bid_prices: &[Decimal::from_integer(100)],
        bid_quantities: &[Decimal::ONE],
        ask_prices: &[Decimal::from_integer(200)],
        ask_quantities: &[Decimal::ONE],
        contracts: false,
        depth: None,
        checksum: None,
        price_digits: None,
        quantity_digits: None,
    });
}

fn quote(rows: &mut Rows, symbol: &str, frame: i64, sequence: Option<i64>) {
    rows.quotes.push(Quote {
        venue: "binance",
        market: "spot",
        symbol,
        event_time: None,
        receive_time: Some(frame),
        frame: Some(frame),
        sequence,
        bid_price: None,
        bid_quantity: None,
        ask_price: None,
        ask_quantity: None,
    });
}

#[test]
fn samples_are_the_last_state_of_each_span() {
    let mut rig = Rig::new(plan(r#"{ "every": "10us", "snapshots": { "every": "20us", "levels": 1 } }"#));
    let mut rows = Rows::default();
    snapshot(&mut rows, "A", 0, 0, "venue");
    for (time, update) in [(1, 1), (8, 2), (13, 3), (14, 4), (41, 5)] {
        delta(&mut rows, "A", time, update, update);
    }
    rig.advance(rows.batches(1), 41);
    let sequences = |rig: &Rig| BookMetricsRows::of(&rig.rows(&BOOK_METRICS)).unwrap().sequence.values().to_vec();
    assert_eq!(sequences(&rig), [2, 4]);
    rig.advance(vec![], 49);
    assert_eq!(sequences(&rig), [2, 4]);
    rig.advance(vec![], 50);
    assert_eq!(sequences(&rig), [2, 4, 5]);
    delta(&mut rows, "A", 55, 6, 6);
    rig.advance(rows.batches(2), Progress::END);
    rig.advance(vec![], Progress::END);
    assert_eq!(sequences(&rig), [2, 4, 5, 6]);
    let snapshots = rig.rows(&BOOK_SNAPSHOT);
    let snapshots = BookSnapshotRows::of(&snapshots).unwrap();
    assert_eq!(snapshots.sequence.values(), &[4, 6], "the change at 41 lies in the same 20 µs as the end");
    assert_eq!(columns::label(snapshots.origin, 0), Some("book"));
    assert!((0..2).all(|row| columns::numbers(snapshots.bid_prices, row).len() == 1));
    assert_eq!(rig.books.delay(), 20);
    let events = rig.rows(&BOOK_EVENT);
    let events = BookEventRows::of(&events).unwrap();
    assert!(
        events.event_time.is_null(0) && events.receive_time.value(0) > 1_700_000_000_000_000,
        "an event without a time has the logical time"
    );
}

#[test]
fn every_row_is_accounted_for() {
    let mut rig = Rig::new(plan("{}"));
    let mut rows = Rows::default();
    snapshot(&mut rows, "A", 1, 10, "book");
    snapshot(&mut rows, "A", 2, 10, "venue");
    delta(&mut rows, "A", 3, 11, 12);
    delta(&mut rows, "A", 4, 11, 12);
    delta(&mut rows, "A", 5, 9, 8);
    quote(&mut rows, "A", 6, None);
    quote(&mut rows, "A", 7, Some(5));
    quote(&mut rows, "A", 8, Some(50));
    rows.deltas.push(BookDelta {
        venue: "binance",
        market: "spot",
        symbol: "A",
        event_time: 9,
        receive_time: None,
        frame: Some(9),
        first_sequence: Some(13),
        last_sequence: Some(13),
        previous_sequence: None,
        bid_prices: &[Decimal::ONE],
        bid_quantities: &["-1".parse().unwrap()],
        ask_prices: &[],
        ask_quantities: &[],
        contracts: false,
        checksum: None,
        price_digits: None,
        quantity_digits: None,
    });
    rig.advance(rows.batches(1), Progress::END);
    let totals = rig.account.totals();
    assert_eq!((totals.received, totals.accepted, totals.ignored, totals.rejected()), (9, 3, 4, 2));
    let letters = rig.rows(&DEAD_LETTER);
    let letters = DeadLetterRows::of(&letters).unwrap();
    assert_eq!(letters.detail.value(0), "the first update 9 is greater than the last, 8");
    assert_eq!(letters.detail.value(1), "bids: the size -1 is negative");
    assert_eq!(
        (columns::label(letters.reason, 1), columns::label(letters.kind, 1), columns::label(letters.symbol, 1)),
        (Some("malformed"), Some("book_delta"), Some("A"))
    );
    let payload: Value = serde_json::from_slice(letters.payload.value(1)).unwrap();
    assert_eq!(payload["last_sequence"], 13);
}

#[test]
fn kinds_are_merged_by_frame() {
    // The snapshot lies between the deltas, and so does the quote that it makes comparable.
    let mut rig = Rig::new(plan("{}"));
    let mut rows = Rows::default();
    delta(&mut rows, "A", 1, 1, 3);
    snapshot(&mut rows, "A", 2, 3, "venue");
    delta(&mut rows, "A", 3, 4, 5);
    quote(&mut rows, "A", 4, Some(6));
    delta(&mut rows, "A", 5, 6, 6);
    quote(&mut rows, "A", 6, Some(6));
    rig.advance(rows.batches(1), Progress::END);
    let book = rig.books.machine("A").unwrap().book().unwrap();
    assert_eq!((book.sequence, book.oracle_checks, book.oracle_mismatches), (Some(6), 1, 1));
}

proptest! {
    /// Rows cut into advances at any place, with the state stored and read back at any of them, give the same.
    #[test]
    fn a_restored_operator_goes_on(
        steps in proptest::collection::vec((0_usize..3, 0_u8..10, 0_i64..3), 1..120),
        cuts in proptest::collection::btree_set(0_usize..120, 0..6),
        restore in 0_usize..120,
    ) {
        let options = r#"{ "every": "5us", "snapshots": { "every": "11us" } }"#;
        let (mut whole, mut parts) = (Rig::new(plan(options)), Rig::new(plan(options)));
        let (mut all, mut some) = (Rows::default(), Rows::default());
        let mut last = [10_i64; 3];
        for (i, (instrument, what, step)) in steps.into_iter().enumerate() {
            let symbol = ["A", "B", "C"][instrument];
            let last = &mut last[instrument];
            let (frame, next) = (i as i64 + 1, *last + step);
            for rows in [&mut all, &mut some] {
                match what {
                    0 => snapshot(rows, symbol, frame, *last, "venue"),
                    1 => quote(rows, symbol, frame, Some(next)),
                    _ => delta(rows, symbol, frame, next, next),
                }
            }
            *last = next.max(*last);
            if cuts.contains(&i) {
                let batches = some.batches(i as u64);
                parts.advance(batches, frame);
            }
            if restore == i {
                let state = parts.books.snapshot()();
                parts.books = Books::new(plan(options));
                parts.books.restore(&state);
            }
        }
        whole.advance(all.batches(1), Progress::END);
        parts.advance(some.batches(1_000), Progress::END);
        // The logical time stands in for a time that nothing told.
        let timeless = |rig: &Rig| rig.text().into_iter().filter(|t| !t.contains("\"event_time\":null")).collect::<Vec<_>>();
        prop_assert_eq!(timeless(&whole), timeless(&parts));
        prop_assert!(parts.account.totals().balances() && whole.account.totals().balances());
    }

    /// A snapshot that becomes rows only later, when other updates were worked on, is the state of when it was taken.
    #[test]
    fn a_snapshot_keeps_its_moment(steps in proptest::collection::vec((0_usize..3, 0_u8..10), 1..60), taken in 0_usize..60) {
        let mut rig = Rig::new(plan(r#"{ "every": "5us", "snapshots": { "every": "11us" } }"#));
        let mut rows = Rows::default();
        let mut snapshots = (rig.books.snapshot()(), rig.books.snapshot());
        for (i, (instrument, what)) in steps.into_iter().enumerate() {
            if i == taken {
                snapshots = (rig.books.snapshot()(), rig.books.snapshot());
            }
            let (symbol, at) = (["A", "B", "C"][instrument], i as i64 + 1);
            match what {
                0 => snapshot(&mut rows, symbol, at, at, "venue"),
                1 => quote(&mut rows, symbol, at, Some(at + 2)),
                2 => delta(&mut rows, symbol, at, at + 1, at + 1),
                _ => delta(&mut rows, symbol, at, 1, at),
            }
            rig.advance(rows.batches(i as u64), at);
        }
        let (now, later) = snapshots;
        prop_assert_eq!(later(), now);
    }
}

#[test]
fn what_has_not_changed_is_stored_alike() {
    let mut rig = Rig::new(plan("{}"));
    let mut rows = Rows::default();
    (0..5_000).for_each(|i| snapshot(&mut rows, &format!("C{i}"), i, 0, "venue"));
    rig.advance(rows.batches(1), 1);
    let before = rig.books.snapshot()();
    delta(&mut rows, "C4999", 5_000, 1, 1);
    rig.advance(rows.batches(2), 2);
    let after = rig.books.snapshot()();
    assert_eq!(before.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [4_096, 904]);
    assert!(before[0] == after[0] && before[1] != after[1]);
    let mut restored = Books::new(plan("{}"));
    restored.restore(&after);
    assert_eq!(restored.snapshot()(), after, "also when a run went on from it");
}

#[test]
fn options_are_checked() {
    let all = [BOOK_DELTA.clone(), BOOK_SNAPSHOT.clone()];
    let problems = |options: &str, inputs: &[Arc<Kind>]| component::component::<dyn Operator, Book>(options, inputs).map(drop).unwrap_err();
    assert!(component::component::<dyn Operator, Book>("", &all).is_ok());
    assert_eq!(
        problems("every = \"often\"", &all).lines().next(),
        Some("every: `often` is neither `update` nor a duration: does not begin with a number")
    );
    assert_eq!(
        problems("every = \"0s\"\nlevels = 0\ndepth_bps = -1\nbuffer_deltas = 0\nsnapshots = { every = \"0s\", levels = 0 }", &all)
            .lines()
            .count(),
        6
    );
    assert_eq!(problems("", std::slice::from_ref(&*TRADE)).lines().count(), 3);
    assert_eq!(problems("", std::slice::from_ref(&*BOOK_DELTA)), "inputs: no input of `node` carries `book_snapshot`");
    let checked = component::component::<dyn Operator, Book>("snapshots = { every = \"1m\" }", &all).unwrap();
    let names: Vec<_> = checked.outputs.iter().map(|k| k.name.to_string()).collect();
    assert_eq!(names, ["book_metrics", "book_event", "book_snapshot", "dead_letter"]);
    let example: toml::Table = Book::EXAMPLE.parse().unwrap();
    let mut table = example["operators"]["books"].as_table().unwrap().clone();
    table.remove("type");
    table.remove("inputs");
    assert!(component::component::<dyn Operator, Book>(&table.to_string(), &all).is_ok());
}
