//! What the simulator promises, checked by an independent [`reader`] of its frames.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::sync::Arc;

use chrono::DateTime;
use config::component::component;
use model::dialect::{Dialect, FrameRef, Outcome, Records};
use model::kinds::{FrameRows, TradeRows};
use model::{Decimal, columns};
use serde_json::Value;

use super::*;

mod reader;

use reader::{Rebuilt, Received, Shape, decimal, kind, number, read};

const EVERY_FAULT: &str = "faults = { sequence_gap = 0.004, duplicate = 0.004, disorder = 0.004, price_spike = 0.004, crossed_book = 0.004, \
                           stale_feed = 0.0002, clock_skew = 0.004, malformed = 0.004 }";

fn open(options: &str) -> Box<dyn Reader> {
    open_at(options, None).unwrap()
}

fn open_at(options: &str, from: Option<Position>) -> Result<Box<dyn Reader>, SourceError> {
    let source = component::<dyn Source, Simulator>(options, &[]).unwrap().component;
    let cx = OpenSource { pipeline: "p".into(), node: "market".into(), from, settings: Arc::default(), account: Arc::default() };
    runtime().block_on(source.open(cx))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn next(reader: &mut dyn Reader) -> Option<Vec<Received>> {
    next_until(reader, None).map(|(frames, _)| frames)
}

fn next_until(reader: &mut dyn Reader, until: Option<&Position>) -> Option<(Vec<Received>, Position)> {
    let chunk = runtime().block_on(reader.next(until)).unwrap()?;
    assert!(chunk.errors.is_empty());
    let [(kind, rows)] = &chunk.batches[..] else { panic!("one batch of frames") };
    assert_eq!(kind.name, "frame");
    let view = FrameRows::of(rows).unwrap();
    let frames: Vec<Received> = (0..rows.num_rows())
        .map(|row| Received {
            dialect: columns::label(view.dialect, row).unwrap().into(),
            receive_time: view.receive_time.value(row),
            frame: view.frame.value(row) as u64,
            topic: columns::label(view.topic, row).map(Into::into),
            payload: view.payload.value(row).to_vec(),
        })
        .collect();
    let last = frames.last().unwrap().frame;
    assert_eq!((chunk.position.offset, chunk.position.frame), (last, last));
    Some((frames, chunk.position))
}

fn frames(options: &str) -> Vec<Received> {
    let mut reader = open(options);
    std::iter::from_fn(|| next(&mut *reader)).flatten().collect()
}

fn hash(frames: &[Received]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for frame in frames {
        hasher.write(frame.dialect.as_bytes());
        hasher.write_i64(frame.receive_time);
        hasher.write_u64(frame.frame);
        hasher.write(frame.topic.as_deref().unwrap_or_default().as_bytes());
        hasher.write(&frame.payload);
    }
    hasher.finish()
}

fn truth(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn micros(text: &Value) -> Micros {
    DateTime::parse_from_rfc3339(text.as_str().unwrap()).unwrap().timestamp_micros()
}

#[test]
fn a_seed_gives_the_same_bytes_whatever_the_rate() {
    let faulty = format!("frames = 50_000\n{EVERY_FAULT}\n");
    for options in ["frames = 50_000", &faulty] {
        let expected = hash(&frames(options));
        assert_eq!(hash(&frames(options)), expected);
        assert_eq!(hash(&frames(&format!("rate = 100_000_000\n{options}"))), expected, "the rate changed the frames");
        assert_eq!(
            hash(&frames(&format!("seed = 1\nstart = '2026-01-01T01:00:00+01:00'\n{options}"))),
            expected,
            "the defaults are not what they say"
        );
        assert_ne!(hash(&frames(&format!("seed = 2\n{options}"))), expected, "the seed changes nothing");
    }
}

#[test]
fn the_market_is_the_same_with_and_without_faults() {
    // Spikes and skews change nothing but their own frames.
    let clean = frames("frames = 20_000");
    let faulty = frames("frames = 20_000\nfaults = { price_spike = 0.01, clock_skew = 0.01 }");
    let differing = clean.iter().zip(&faulty).filter(|(a, b)| a.payload != b.payload || a.receive_time != b.receive_time).count();
    assert!((50..500).contains(&differing), "{differing} frames differ");
}

#[test]
fn without_faults_every_rule_of_the_venue_holds() {
    let frames = frames("frames = 200_000\ntempo = 1_000");
    assert_eq!(frames.len(), 200_000);
    let mut books: BTreeMap<String, Rebuilt> = BTreeMap::new();
    let mut trade_ids: BTreeMap<String, i64> = BTreeMap::new();
    let mut counts: BTreeMap<Shape, usize> = BTreeMap::new();
    let mut spreads = BTreeSet::new();
    let (mut received, mut event_time) = (0, 0);
    let start = DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z").unwrap().timestamp_millis();
    for (at, frame) in frames.iter().enumerate() {
        assert_eq!(frame.frame, at as u64 + 1);
        let (instrument, shape, data) = read(frame).unwrap_or_else(|| panic!("frame {} is no JSON", frame.frame));
        assert_eq!(frame.topic.is_some(), shape == Shape::Snapshot);
        assert!(frame.receive_time >= received, "frame {} was received before the one before it", frame.frame);
        received = frame.receive_time;
        if let Some(time) = data.get("E").and_then(Value::as_i64).filter(|_| shape != Shape::Snapshot) {
            assert!(time >= event_time && time >= start, "event time runs backwards in frame {}", frame.frame);
            assert!((2_000..=100_000).contains(&(frame.receive_time - time * 1_000)), "frame {} has a latency beyond belief", frame.frame);
            event_time = time;
        }
        let spot = frame.dialect == "binance_spot";
        let book = books.entry(instrument.clone()).or_default();
        match shape {
            Shape::Trade => {
                let id = number(&data, "t");
                if let Some(before) = trade_ids.insert(instrument.clone(), id) {
                    assert_eq!(id, before + 1, "trade ids of {instrument} are not dense");
                }
                assert!(decimal(&data["p"]) > Decimal::ZERO && decimal(&data["q"]) > Decimal::ZERO);
                assert!(data["m"].is_boolean());
                // The taker of a trade takes what the last quote offered, or a level behind it.
                if let Some(quote) = &book.quote {
                    let price = decimal(&data["p"]);
                    let away = if data["m"] == true { decimal(&quote["b"]) } else { decimal(&quote["a"]) };
                    assert!((price.to_f64() / away.to_f64() - 1.0).abs() < 0.01, "a trade at {price} where {away} was best");
                }
            }
            Shape::Quote => {
                assert!(
                    decimal(&data["b"]) > Decimal::ZERO && decimal(&data["b"]) < decimal(&data["a"]),
                    "a spread below one tick in {data}"
                );
                assert!(decimal(&data["B"]) > Decimal::ZERO && decimal(&data["A"]) > Decimal::ZERO);
                spreads.insert(decimal(&data["a"]).units() - decimal(&data["b"]).units());
            }
            Shape::Mark => {
                assert!(!spot && decimal(&data["p"]) > Decimal::ZERO && decimal(&data["r"]).abs() < "0.01".parse().unwrap());
                assert!(number(&data, "T") > number(&data, "E") && number(&data, "T") % 28_800_000 == 0);
            }
            Shape::Delta | Shape::Snapshot => {}
        }
        *counts.entry(shape).or_default() += 1;
        book.take(spot, shape, &data);
    }
    assert_eq!(books.len(), 20);
    for (instrument, book) in &books {
        assert_eq!(book.gaps, [], "{instrument} has a gap");
        assert_eq!(book.snapshots, 1, "{instrument} has one snapshot");
        assert!(book.stale >= 2, "{instrument} has no updates older than its snapshot");
        assert!(book.compared > 100, "{instrument}: {} quotes were compared", book.compared);
        assert!(book.bids.last_key_value().unwrap().0 < book.asks.first_key_value().unwrap().0);
    }
    for (shape, share) in [(Shape::Trade, 0.2), (Shape::Quote, 0.5), (Shape::Delta, 0.08)] {
        assert!(counts[&shape] as f64 > share * frames.len() as f64, "{counts:?}");
    }
    assert!(counts[&Shape::Mark] > 500 && spreads.len() > 100, "{counts:?}, {} spreads", spreads.len());
    let span = (event_time - start) as f64 / 1e3;
    assert!((170.0..230.0).contains(&span), "200,000 frames at a tempo of 1,000 took {span} s");
}

#[test]
fn the_truth_is_what_an_independent_reader_finds() {
    for seed in [1, 7, 2026, 99] {
        truth_of_seed(seed);
    }
}

fn truth_of_seed(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/truth.ndjson");
    let frames = frames(&format!("seed = {seed}\nframes = 200_000\ntempo = 200\ntruth = '{}'\n{EVERY_FAULT}", path.display()));
    assert_eq!(frames.len(), 200_000);
    assert!(!path.with_extension("ndjson.partial").exists());
    let truth = truth(&path);
    let told = |fault: &str| truth.iter().filter(|line| line["fault"] == fault).cloned().collect::<Vec<_>>();
    let name = |line: &Value| format!("{} {}", line["market"].as_str().unwrap(), line["symbol"].as_str().unwrap());
    let sent = |line: &Value, key: &str| &frames[line[key].as_u64().unwrap() as usize - 1];
    for fault in ["sequence_gap", "duplicate", "disorder", "price_spike", "crossed_book", "stale_feed", "clock_skew", "malformed"] {
        assert!(told(fault).len() > 15, "only {} of {fault}", told(fault).len());
    }
    for line in &truth {
        assert_eq!(line["venue"], "binance");
        let finds = matches!(line["fault"].as_str(), Some("sequence_gap" | "price_spike" | "crossed_book" | "stale_feed"));
        assert_eq!(line["anomaly"], if finds { line["fault"].clone() } else { Value::Null });
        micros(&line["event_time"]);
    }

    // Malformed: exactly the frames that are no JSON.
    let unreadable: BTreeSet<u64> = frames.iter().filter(|f| f.json().is_none()).map(|f| f.frame).collect();
    assert_eq!(told("malformed").iter().map(|line| line["frame"].as_u64().unwrap()).collect::<BTreeSet<_>>(), unreadable);

    let messages: Vec<_> = frames.iter().filter_map(|f| read(f).map(|(instrument, shape, data)| (f, instrument, shape, data))).collect();

    // Gaps in trade ids: ids between the first and the last of an instrument that never came.
    let mut ids: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
    for (_, instrument, _, data) in messages.iter().filter(|(_, _, shape, _)| *shape == Shape::Trade) {
        ids.entry(instrument).or_default().insert(number(data, "t"));
    }
    let mut missing = BTreeSet::new();
    for (instrument, ids) in &ids {
        let ids: Vec<i64> = ids.iter().copied().collect();
        missing.extend(
            ids.windows(2).filter(|pair| pair[1] > pair[0] + 1).map(|pair| (format!("{instrument} trade"), pair[0] + 1, pair[1] - 1)),
        );
    }
    // Gaps in books: breaks of the chain, each mended by a new snapshot.
    let mut books: BTreeMap<&str, Rebuilt> = BTreeMap::new();
    for (frame, instrument, shape, data) in &messages {
        books.entry(instrument).or_default().take(frame.dialect == "binance_spot", *shape, data);
    }
    for (instrument, book) in &books {
        missing.extend(book.gaps.iter().map(|(first, last)| (format!("{instrument} book_delta"), *first, *last)));
        assert!(
            book.snapshots >= book.gaps.len() && book.compared > 100,
            "{instrument}: {} snapshots for {} gaps",
            book.snapshots,
            book.gaps.len()
        );
    }
    let gap = |line: &Value| {
        (format!("{} {}", name(line), line["channel"].as_str().unwrap()), number(line, "first_sequence"), number(line, "last_sequence"))
    };
    assert_eq!(told("sequence_gap").iter().map(gap).collect::<BTreeSet<_>>(), missing);
    assert!(
        told("sequence_gap").iter().any(|line| line["cause"] == "malformed")
            && told("sequence_gap").iter().any(|line| line["channel"] == "book_delta")
    );

    // Duplicates: exactly the frames whose payload came before.
    let mut seen: BTreeMap<&[u8], u64> = BTreeMap::new();
    let mut repeats = BTreeSet::new();
    for frame in frames.iter().filter(|f| f.json().is_some()) {
        if let Some(first) = seen.insert(&frame.payload, frame.frame) {
            repeats.insert((first, frame.frame));
        }
    }
    assert_eq!(
        told("duplicate").iter().map(|line| (line["repeats"].as_u64().unwrap(), line["frame"].as_u64().unwrap())).collect::<BTreeSet<_>>(),
        repeats
    );

    // Disorder: exactly the frames with an event time behind the greatest one before them, where it can be seen.
    let mut greatest = 0;
    let mut behind = BTreeSet::new();
    for (frame, _, _, data) in messages.iter().filter(|(_, _, shape, _)| *shape != Shape::Snapshot) {
        if let Some(time) = data["E"].as_i64() {
            if time < greatest {
                assert!(greatest - time <= 500, "frame {} is {} ms late", frame.frame, greatest - time);
                behind.insert(frame.frame);
            }
            greatest = greatest.max(time);
        }
    }
    let disorder: BTreeSet<u64> = told("disorder").iter().map(|line| line["frame"].as_u64().unwrap()).collect();
    assert!(behind.is_subset(&disorder), "late and not told: {:?}", behind.difference(&disorder).collect::<Vec<_>>());
    // What is told beside them has no event time (spot quotes), or only overtook within one millisecond.
    for line in told("disorder").iter().filter(|line| !behind.contains(&line["frame"].as_u64().unwrap())) {
        assert!(line["overtaken_by"].as_u64() > Some(0));
        let (_, shape, data) = read(sent(line, "frame")).unwrap();
        assert!(shape == Shape::Quote && data.get("E").is_none() || line["overtaken_by"].as_u64() < Some(8), "{line}");
    }

    // Spikes: exactly the trades far from the last quote of the instrument.
    let mut usual: BTreeMap<&str, f64> = BTreeMap::new();
    let mut spikes = BTreeSet::new();
    for (frame, instrument, shape, data) in &messages {
        let price = match shape {
            Shape::Quote => decimal(&data["b"]).to_f64(),
            Shape::Trade => decimal(&data["p"]).to_f64(),
            Shape::Delta | Shape::Mark | Shape::Snapshot => continue,
        };
        let usual = usual.entry(instrument).or_insert(price);
        if (price / *usual - 1.0).abs() > 0.03 {
            spikes.insert(frame.frame);
        } else {
            *usual = price;
        }
    }
    assert_eq!(told("price_spike").iter().map(|line| line["frame"].as_u64().unwrap()).collect::<BTreeSet<_>>(), spikes);
    for line in told("price_spike") {
        let (instrument, _, data) = read(sent(&line, "frame")).unwrap();
        assert_eq!(
            (instrument, decimal(&data["p"]), number(&data, "T") * 1_000),
            (name(&line), decimal(&line["price"]), micros(&line["event_time"]))
        );
        let factor = decimal(&line["price"]).to_f64() / decimal(&line["true_price"]).to_f64();
        assert!((factor - decimal(&line["factor"]).to_f64()).abs() < 0.001, "{line}");
    }

    // Crossed books: every quote with bid >= ask lies in one that is told, and each told one has such a quote.
    let crossed: Vec<_> =
        messages.iter().filter(|(_, _, shape, data)| *shape == Shape::Quote && decimal(&data["b"]) >= decimal(&data["a"])).collect();
    let told_crossed = told("crossed_book");
    let mut unexplained: BTreeSet<u64> = told_crossed.iter().filter_map(|line| line["quote_frame"].as_u64()).collect();
    for (frame, instrument, _, data) in &crossed {
        let u = number(data, "u");
        assert!(told_crossed.iter().any(|line| name(line) == *instrument
            && number(line, "first_sequence") <= u
            && frame.frame >= line["frame"].as_u64().unwrap()));
        unexplained.remove(&frame.frame);
    }
    assert!(unexplained.is_empty(), "told and not crossed: {unexplained:?}");
    for line in &told_crossed {
        // Only the end of the simulation can cut a crossing off before its quote.
        assert!(line["quote_frame"].is_u64() || line["frame"].as_u64().unwrap() + 20 > frames.len() as u64, "{line}");
        assert!(decimal(&line["bid"]) >= decimal(&line["ask"]), "{line}");
        assert!(line["until"].is_null() || micros(&line["until"]) > micros(&line["event_time"]), "{line}");
    }

    // Silences: exactly the channels that said nothing for a minute (by receive time, the skewed frames aside).
    let skewed: BTreeSet<u64> = told("clock_skew").iter().map(|line| line["frame"].as_u64().unwrap()).collect();
    let mut spoke: BTreeMap<(&str, Shape), Micros> = BTreeMap::new();
    let mut silences = BTreeSet::new();
    for (frame, instrument, shape, _) in
        messages.iter().filter(|(frame, _, shape, _)| !skewed.contains(&frame.frame) && *shape != Shape::Snapshot)
    {
        if let Some(before) = spoke.insert((instrument, *shape), frame.receive_time)
            && frame.receive_time - before >= 59 * time::SECOND
        {
            silences.insert((format!("{instrument} {}", kind(*shape)), frame.frame));
        }
    }
    let closed = told("stale_feed").into_iter().filter(|line| !line["frame"].is_null());
    let closed: BTreeSet<_> =
        closed.map(|line| (format!("{} {}", name(&line), line["channel"].as_str().unwrap()), line["frame"].as_u64().unwrap())).collect();
    assert_eq!(closed, silences);

    // Skews: exactly the frames whose receive time leaves the order.
    let shifts: BTreeMap<u64, i64> =
        told("clock_skew").iter().map(|line| (line["frame"].as_u64().unwrap(), number(line, "shift_micros"))).collect();
    let mut received = None;
    for frame in &frames {
        let unskewed = frame.receive_time - shifts.get(&frame.frame).unwrap_or(&0);
        let order = received.is_none_or(|before| unskewed >= before && unskewed - before < 2 * time::SECOND);
        assert!(order, "frame {} is skewed and not told", frame.frame);
        received = Some(unskewed);
    }
}

#[test]
fn the_dialects_decode_every_frame_that_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.ndjson");
    let frames = frames(&format!("instruments = 60\nframes = 100_000\ntruth = '{}'\n{EVERY_FAULT}", path.display()));
    let malformed: BTreeSet<u64> =
        truth(&path).iter().filter(|l| l["fault"] == "malformed").map(|l| l["frame"].as_u64().unwrap()).collect();
    let mut records = Records::wanting(kinds::market_data().map(|kind| kind.name.as_ref()));
    let mut dialects: BTreeMap<&str, Box<dyn Dialect>> = BTreeMap::new();
    for frame in &frames {
        let dialect = dialects.entry(&frame.dialect).or_insert_with(|| crate::dialect::make(&frame.dialect).unwrap());
        let reference = FrameRef {
            receive_time: Some(frame.receive_time),
            frame: frame.frame as i64,
            topic: frame.topic.as_deref(),
            payload: &frame.payload,
        };
        let before = records.len();
        match dialect.decode(reference, &mut records) {
            Err(reject) => assert!(malformed.contains(&frame.frame), "{reject:?} of {}", String::from_utf8_lossy(&frame.payload)),
            Ok(outcome) => {
                assert!(!malformed.contains(&frame.frame), "decoded although malformed: {}", String::from_utf8_lossy(&frame.payload));
                assert!(outcome == Outcome::Decoded && records.len() > before);
            }
        }
    }
    assert_eq!(dialects.len(), 3);

    // Names and numbers are those of an independent reader and of the truth.
    let mut instruments = BTreeSet::new();
    for (kind, rows) in records.finish().into_iter().filter(|(kind, _)| kind.name == "trade") {
        let view = TradeRows::of(&rows).unwrap_or_else(|error| panic!("{}: {error}", kind.name));
        for row in 0..rows.num_rows() {
            let label = |column| columns::label(column, row).unwrap();
            let (instrument, _, data) = read(&frames[view.frame.value(row) as usize - 1]).unwrap();
            assert_eq!(format!("{} {}", label(view.market), label(view.symbol)), instrument);
            assert_eq!((label(view.venue), columns::number(view.price, row)), ("binance", Some(decimal(&data["p"]))));
            assert_eq!(label(view.side), if data["m"] == true { "sell" } else { "buy" });
            instruments.insert(instrument);
        }
    }
    assert_eq!(instruments.len(), 60);
}

#[test]
fn the_number_of_frames_is_exact() {
    for options in [
        "",
        EVERY_FAULT,
        "faults = { disorder = 1.0 }",
        "faults = { malformed = 1.0 }",
        "faults = { sequence_gap = 1.0 }",
        "faults = { stale_feed = 1.0 }",
    ] {
        for count in [1, 2, 7, 4_096, 10_001] {
            assert_eq!(frames(&format!("instruments = 3\nframes = {count}\n{options}")).len(), count, "{options}");
        }
    }
}

#[test]
fn a_simulation_that_is_dropped_leaves_its_truth() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.ndjson");
    let mut reader = open(&format!("truth = '{}'\nfaults = {{ duplicate = 0.01 }}", path.display()));
    let frames = next(&mut *reader).unwrap();
    assert!(!path.exists());
    let partial = truth(&folder.path().join("truth.ndjson.partial"));
    drop(reader);
    let truth = truth(&path);
    assert!(truth.len() > 10 && truth == partial);
    assert!(truth.iter().all(|line| line["frame"].as_u64().unwrap() <= frames.len() as u64));
}

/// Chunks of another run end elsewhere: what a rate makes small at first is asked for at full speed later.
#[test]
fn going_on_anywhere_gives_the_rest_once() {
    let slow = format!("frames = 6000\nrate = 30000\nstart = 'now'\ntempo = 1000\n{EVERY_FAULT}");
    let mut reader = open(&slow);
    let (mut whole, mut ends) = (Vec::new(), Vec::new());
    while let Some((frames, position)) = next_until(&mut *reader, None) {
        whole.extend(frames);
        ends.push(position);
    }
    let fast = slow.replace("30000", "'max'");
    for (at, from) in ends.iter().enumerate() {
        let mut reader = open_at(&fast, Some(from.clone())).unwrap();
        let mut rest = Vec::new();
        for until in &ends[at + 1..] {
            let (mut position, before) = (from.clone(), rest.len());
            while !position.is_at(until) {
                let (frames, end) = next_until(&mut *reader, Some(until)).unwrap();
                assert!(end.frame <= until.frame);
                rest.extend(frames);
                position = end;
            }
            assert!(rest.len() > before);
        }
        assert!(next(&mut *reader).is_none());
        assert_eq!(hash(&rest), hash(&whole[from.frame as usize..]), "from frame {}", from.frame);
    }
    let beyond = Position { frame: 6_001, ..ends[0].clone() };
    let error = open_at(&fast, Some(beyond)).err().expect("there are no such frames").to_string();
    assert!(error.contains("does not come by it again") && error.contains("--fresh"), "{error}");
}

#[test]
fn a_truth_file_that_cannot_be_made_is_a_named_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let options = format!("truth = '{}'", folder.path().join("file/truth.ndjson").display());
    let error = open_at(&options, None).err().expect("a file is no folder").to_string();
    assert!(error.contains("truth.ndjson.partial") && error.contains("cannot be created") && error.contains("let `truth` name"), "{error}");
}

#[test]
fn bad_options_are_told_with_their_keys() {
    for (options, expected) in [
        ("instruments = 0", "instruments: 0 instruments"),
        ("instruments = 1001", "instruments: 1001 instruments"),
        ("frames = 0", "frames: a simulation of no frames"),
        ("rate = 0", "rate: a rate of 0 frames a second"),
        ("rate = 'fast'", "`rate` is \"max\" or a number of frames a second"),
        ("tempo = -1.0", "tempo: a tempo of -1 frames a second"),
        ("start = 'yesterday'", "start: `yesterday` is no time"),
        ("faults = { malformed = 1.5 }", "faults.malformed: a rate of 1.5"),
        ("faults = { malformed = 0.6, duplicate = 0.6 }", "faults: the rates add up to 1.2"),
        ("faults = { malfromed = 0.6 }", "unknown field `malfromed`"),
    ] {
        let error = component::<dyn Source, Simulator>(options, &[]).expect_err(options);
        assert!(error.contains(expected), "{options}: {error}");
    }
    let example: String = <Simulator as Component<dyn Source>>::EXAMPLE.lines().skip(2).map(|line| format!("{line}\n")).collect();
    component::<dyn Source, Simulator>(&example, &[]).unwrap();
    let source = component::<dyn Source, Simulator>("disorder = '500ms'\nidle = '5s'\nrate = 50", &[]).unwrap();
    assert_eq!(source.component.clock().disorder.millis(), 500);
    assert_eq!(source.outputs.iter().map(|k| k.name.as_ref()).collect::<Vec<_>>(), ["frame"]);
}

#[test]
fn time_can_start_now() {
    let before = time::now();
    let frames = frames("start = 'now'\nrate = 100_000\ntempo = 100_000\nframes = 1_000");
    assert!(frames[0].receive_time >= before && frames[0].receive_time <= time::now() + time::SECOND);
}
