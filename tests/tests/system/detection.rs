//! The simulator with every fault switched on, and what the detectors make of it, against the truth file.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use serde_json::Value;
use tests::program::{marketprism, rows};

/// Every fault, each a few dozen times at least in 300,000 frames of 50 minutes. The source's `disorder` is the
/// longest that the simulator delays a frame, so nothing is late.
const PIPELINE: &str = r#"
name = "faults"

[sources.market]
type = "simulator"
seed = 11
instruments = 6
tempo = 100
frames = 300_000
disorder = "500ms"
truth = "${TRUTH}"

[sources.market.faults]
sequence_gap = 0.001
duplicate = 0.001
disorder = 0.001
price_spike = 0.001
crossed_book = 0.001
stale_feed = 0.0002
clock_skew = 0.001
malformed = 0.0005

[operators.records]
type = "normalise"
inputs = ["market"]
kinds = ["trade", "quote", "book_delta", "book_snapshot", "mark_price", "index_price", "funding_rate"]

[operators.books]
type = "book"
inputs = ["records"]

[operators.watch]
type = "anomaly"
inputs = ["records", "books"]

# Injected spikes are 5 to 20 % off. By `threshold` alone real moves of 0.3 % out of five calm minutes are found,
# too: far from the prices before them, but no faults.
[operators.watch.detect]
price_spike = { window = "5m", threshold = 6.0, min_bps = 100 }
sequence_gap = {}
crossed_book = {}
book_mismatch = {}
stale_feed = { after = "30s" }

[sinks.cold]
type = "parquet"
inputs = ["records", "books", "watch"]
"#;

/// The length of a silence that `stale_feed` reports.
const STALE_SECONDS: f64 = 30.0;

/// What was found of what was there.
struct Score {
    truth: usize,
    hits: usize,
    found: usize,
    right: usize,
}

impl Score {
    fn recall(&self) -> f64 {
        self.hits as f64 / self.truth as f64
    }

    fn precision(&self) -> f64 {
        self.right as f64 / self.found as f64
    }

    /// Prints the score, and holds it to its floors.
    #[track_caller]
    fn expect(&self, anomaly: &str, recall: f64, precision: f64) {
        println!(
            "{anomaly}: {} of {} found, recall {:.3}; {} of {} reports right, precision {:.3}",
            self.hits,
            self.truth,
            self.recall(),
            self.right,
            self.found,
            self.precision()
        );
        assert!(self.truth >= 24, "{anomaly}: {} faults are too few to judge by", self.truth);
        assert!(self.recall() >= recall, "{anomaly}: recall {} is below {recall}", self.recall());
        assert!(self.precision() >= precision, "{anomaly}: precision {} is below {precision}", self.precision());
    }
}

/// Scores reports: a report may be of one fault, by whatever tells it, or of none.
fn score(truth: &[&Value], found: &[&Value], same: impl Fn(&Value, &Value) -> bool) -> Score {
    let mut hit = HashSet::new();
    let mut right = 0;
    for report in found {
        let of: Vec<usize> = (0..truth.len()).filter(|at| same(truth[*at], report)).collect();
        right += usize::from(!of.is_empty());
        if of.is_empty() {
            println!("reported, but not in the truth: {report}");
        }
        hit.extend(of);
    }
    for missed in (0..truth.len()).filter(|at| !hit.contains(at)) {
        println!("not reported: {}", truth[missed]);
    }
    Score { truth: truth.len(), hits: hit.len(), found: found.len(), right }
}

fn instrument(line: &Value) -> [&str; 3] {
    ["venue", "market", "symbol"].map(|key| line[key].as_str().expect("every line names its instrument"))
}

/// A time, written so that the order of texts is the order of times.
fn moment(line: &Value, key: &str) -> Option<String> {
    let text = line[key].as_str()?.strip_suffix('Z').expect("times are UTC");
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    Some(format!("{seconds}.{fraction:0<6}"))
}

/// A file of JSON lines.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_fault_is_accounted_for_and_found() {
    let folder = tempfile::tempdir().unwrap();
    let truth_file = folder.path().join("truth.ndjson");
    let pipeline = folder.path().join("faults.toml");
    std::fs::write(&pipeline, PIPELINE.replace("${TRUTH}", truth_file.to_str().unwrap())).unwrap();
    let data = folder.path().join("data");
    let [file, tables] = [&pipeline, &data].map(|p| p.to_str().unwrap());
    let summary = marketprism(["run", file, "--workers", "2", "--data", tables, "--format", "json"]).expect_success();

    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!((&summary["imbalances"], &summary["errors"]), (&Value::from(Vec::<Value>::new()), &Value::from(Vec::<Value>::new())));
    let node = |name: &str| summary["nodes"].as_array().unwrap().iter().find(|n| n["name"] == name).unwrap();
    assert_eq!(node("market")["sent"], 300_000);
    for name in ["records", "books", "watch", "cold"] {
        assert_eq!(node(name)["late"], 0, "{name}");
    }

    let truth = lines(&truth_file);
    let mut injected: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &truth {
        *injected.entry(line["fault"].as_str().unwrap()).or_default() += 1;
    }
    println!("injected: {injected:?}");
    assert_eq!(injected.len(), 8, "every fault occurs: {injected:?}");
    assert!(injected.values().all(|n| *n >= 24), "every fault occurs dozens of times: {injected:?}");

    refused_are_the_malformed(&data, &truth, node("records"));
    found_are_the_injected(&data, &truth);
}

/// Each malformed frame is one dead letter with its reason and bytes, and nothing else is.
fn refused_are_the_malformed(data: &Path, truth: &[Value], records: &Value) {
    let malformed: BTreeMap<u64, &Value> =
        truth.iter().filter(|l| l["fault"] == "malformed").map(|l| (l["frame"].as_u64().unwrap(), l)).collect();
    assert_eq!(records["rejected"], serde_json::json!({ "malformed": malformed.len() }));
    let letters = rows(data, "SELECT node, reason, detail, frame, kind, encode(payload, 'hex') AS bytes FROM dead_letters ORDER BY frame");
    let frames: Vec<u64> = letters.iter().map(|l| l["frame"].as_u64().unwrap()).collect();
    assert_eq!(frames, malformed.keys().copied().collect::<Vec<_>>());
    for letter in &letters {
        assert_eq!((&letter["node"], &letter["reason"], &letter["kind"]), (&"records".into(), &"malformed".into(), &"frame".into()));
        assert!(!letter["detail"].as_str().unwrap().is_empty(), "{letter}");
        let of = malformed[&letter["frame"].as_u64().unwrap()];
        let bytes = letter["bytes"].as_str().unwrap().len() / 2;
        let from = of["from_byte"].as_u64().unwrap() as usize;
        assert!(if of["form"] == "cut" { bytes == from } else { bytes > from }, "{letter}\n{of}");
    }
}

/// The floors: what the detectors promise, or what the simulator's faults allow.
fn found_are_the_injected(data: &Path, truth: &[Value]) {
    let reports = rows(data, "SELECT * FROM anomalies WHERE state = 'open' ORDER BY venue, market, symbol, event_time, frame");
    let found = |anomaly: &str| -> Vec<&Value> { reports.iter().filter(|r| r["anomaly"] == anomaly).collect() };
    let there = |anomaly: &str| -> Vec<&Value> { truth.iter().filter(|l| l["anomaly"] == anomaly).collect() };

    // A spike among an instrument's first 20 trades cannot be judged; six instruments have some 120 of 85,000.
    let same = |line: &Value, report: &Value| instrument(line) == instrument(report) && line["frame"] == report["frame"];
    score(&there("price_spike"), &found("price_spike"), same).expect("price_spike", 0.95, 0.95);

    // Missing numbers are arithmetic: nothing but all of them will do.
    let numbers = |line: &Value| [line["channel"].clone(), line["first_sequence"].clone(), line["last_sequence"].clone()];
    let same = |line: &Value, report: &Value| instrument(line) == instrument(report) && numbers(line) == numbers(report);
    score(&there("sequence_gap"), &found("sequence_gap"), same).expect("sequence_gap", 1.0, 1.0);

    // The rebuilt book sees every crossing. Quotes see those where the bid is above the ask: a quarter of the
    // injected ones only locks the book, which quotes may be. Each report must be of a crossing.
    let crossings = there("crossed_book");
    let (books, quotes): (Vec<&Value>, Vec<&Value>) = found("crossed_book").into_iter().partition(|r| r["channel"] == "book_delta");
    let same = |line: &Value, report: &Value| instrument(line) == instrument(report) && line["first_sequence"] == report["first_sequence"];
    score(&crossings, &books, same).expect("crossed_book in the books", 1.0, 1.0);
    let crossed: Vec<&Value> = crossings.into_iter().filter(|line| line["bid"] != line["ask"] && !line["quote_frame"].is_null()).collect();
    let same = |line: &Value, report: &Value| instrument(line) == instrument(report) && line["quote_frame"] == report["frame"];
    score(&crossed, &quotes, same).expect("crossed_book in the quotes", 1.0, 1.0);

    // Silences last twice the limit at least, and no channel here is ever quiet for so long by itself. One that the
    // end of the simulation cut short of the limit cannot be told from a quiet channel.
    let silences: Vec<&Value> =
        there("stale_feed").into_iter().filter(|line| line["seconds"].as_f64().unwrap() > STALE_SECONDS + 1.0).collect();
    let same = |line: &Value, report: &Value| {
        // One frame carries the mark price, the index price and the funding rate.
        let channel = match report["channel"].as_str().unwrap() {
            "index_price" | "funding_rate" => "mark_price",
            other => other,
        };
        let time = moment(report, "event_time").unwrap();
        instrument(line) == instrument(report)
            && line["channel"] == channel
            && moment(line, "event_time").unwrap() < time
            && moment(line, "until").is_none_or(|until| time < until)
    };
    score(&silences, &found("stale_feed"), same).expect("stale_feed", 1.0, 1.0);

    // The simulator's books and quotes agree, whatever befalls them.
    let kinds: BTreeSet<&str> = reports.iter().map(|r| r["anomaly"].as_str().unwrap()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["crossed_book", "price_spike", "sequence_gap", "stale_feed"]);
}
