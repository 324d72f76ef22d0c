//! What venues sent, kept and given again: the tables of a replay are those of the run that captured it.

use std::error::Error;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use config::settings::Settings;
use config::{Check, Input};
use model::kinds::{FRAME, Frame, FrameBuilder, FrameRows};
use model::time::{Micros, Time};
use model::{Batch, Origin, columns, crash};
use serde_json::{Value, json};
use sources::{Chunk, OpenSource, Position, Reader, SourceError};
use tests::program::{finish, recordings, rows, until};
use tests::servers::Nats;

use crate::clickhouse::{epoch, open as open_sink};
use crate::processes;
use crate::recovery::{PIPELINE, Place, RATE, Tables, compare};
use crate::tiers::{BUCKETS, bucket};

type TestResult = Result<(), Box<dyn Error>>;

/// Of all tests here; each has streams of its own.
static SERVER: LazyLock<Nats> = LazyLock::new(|| Nats::start().unwrap_or_else(|error| panic!("{error}")));

/// The source of [`PIPELINE`], and what is made of it.
fn parts() -> (&'static str, String) {
    let (source, rest) = PIPELINE.split_once("[operators.records]").expect("the pipeline normalises its source");
    (source, format!("\n[operators.records]{rest}"))
}

/// Sinks that keep frames, in the cold store and in a stream.
fn capturing(inputs: &str, stream: &str, subject: &str) -> String {
    format!(
        r#"
[sinks.frames]
type = "parquet"
inputs = {inputs}
interval = "100ms"

[sinks.stream]
type = "nats"
inputs = {inputs}
servers = "{}"
stream = "{stream}"
prefix = "{stream}"
subject = "{subject}"
create = true
duplicate_window = "10m"
"#,
        SERVER.url()
    )
}

/// The source `market` again, from the cold store of a place.
fn from_table(place: &Place) -> String {
    format!("name = \"victim\"\n[sources.market]\ntype = \"frames\"\nurl = \"{}/cold\"\ndisorder = \"500ms\"\n", place.data().display())
}

/// The source `market` again, from a stream.
fn from_stream(stream: &str) -> String {
    let url = SERVER.url();
    format!(
        "name = \"victim\"\n[sources.market]\ntype = \"nats\"\nservers = \"{url}\"\nstream = \"{stream}\"\nend = \"last\"\ndisorder = \"500ms\"\n"
    )
}

#[track_caller]
fn complete(place: &Place, more: &[&str]) {
    let summary = place.run(more).expect_success();
    assert!(summary.contains("the books balance"), "{summary}");
}

/// Its tables, without those of the capture itself.
fn tables(place: &Place) -> Tables {
    let mut tables = place.cold();
    tables.remove("frames");
    tables
}

/// A run of three dialects with faults of all sorts, captured both ways while its tables are made; and the tables.
static LIVE: LazyLock<(Place, Tables)> = LazyLock::new(|| {
    let place = Place::new(&format!("{PIPELINE}{}", capturing("[\"market\"]", "LIVE", "{kind}.{dialect}")));
    complete(&place, &["--workers", "2"]);
    let tables = tables(&place);
    let full: Vec<&String> = tables.iter().filter(|(_, rows)| !rows.is_empty()).map(|(name, _)| name).collect();
    assert!(full.len() >= 9 && full.iter().any(|name| *name == "dead_letters"), "only these tables have rows: {full:?}");
    (place, tables)
});

#[test]
fn a_replay_gives_the_tables_of_the_live_run() {
    let (live, expected) = &*LIVE;
    let captured = rows(&live.data(), "SELECT source, dialect, count(*) AS n, count(topic) AS asked FROM frames GROUP BY ALL ORDER BY 2");
    assert_eq!(captured.len(), 3, "{captured:?}");
    assert!(captured.iter().all(|row| row["source"] == "market" && row["asked"].as_u64() > Some(0)), "{captured:?}");
    assert_eq!(captured.iter().map(|row| row["n"].as_u64().unwrap()).sum::<u64>(), 60_000);

    let (_, rest) = parts();
    for (way, source) in [("parquet", from_table(live)), ("nats", from_stream("LIVE"))] {
        for workers in ["1", "2"] {
            let replay = Place::new(&format!("{source}{rest}"));
            complete(&replay, &["--workers", workers]);
            compare(&format!("{way}, {workers} workers"), expected, &tables(&replay));
        }
    }
}

#[test]
fn a_capture_that_was_killed_and_a_replay_that_was_give_the_same_tables() {
    const KILLS: usize = 4;
    let (_, expected) = &*LIVE;
    let (source, rest) = parts();
    let capture = Place::new(&format!("{source}{}", capturing("[\"market\"]", "KILLED", "{kind}.{dialect}")));
    // The sinks get on between two kills, further each time.
    let commits = || capture.journal().matches("\"commit\"").count();
    for kill in 1..=KILLS {
        let before = commits();
        let mut run = capture.start(&["--set", RATE]);
        until("a commit of the capture", || (run.ended().is_some() || commits() > before + kill).then_some(()));
        assert!(run.ended().is_none(), "the capture ended before kill {kill}: {}", capture.log());
        run.kill();
    }
    for point in ["files written:2", "intended:3", "committed:1"] {
        let crashed = finish(capture.command("run", &["--set", RATE]).env(crash::VARIABLE, point));
        assert_eq!(crashed.status, None, "`{point}` was not passed:\n{}", crashed.stderr);
    }
    complete(&capture, &["--set", RATE]);

    for (way, source) in [("parquet", from_table(&capture)), ("nats", from_stream("KILLED"))] {
        let replay = Place::new(&format!("{source}{rest}"));
        for point in ["bound:3", "bound:5", "committed:1"] {
            let crashed = finish(replay.command("run", &[]).env(crash::VARIABLE, point));
            assert_eq!(crashed.status, None, "{way}: `{point}` was not passed:\n{}", crashed.stderr);
        }
        complete(&replay, &[]);
        compare(way, expected, &tables(&replay));
    }
}

/// What is made of the recordings.
const RECORDED: &str = r#"
[operators.records]
type = "normalise"
inputs = ["spot", "usdm"]

[operators.bars]
type = "bars"
inputs = ["records"]
every = ["1s", "1m"]
lateness = "5s"

[operators.books]
type = "book"
inputs = ["records"]
snapshots = { every = "1h" }

[sinks.cold]
type = "parquet"
inputs = ["records", "bars", "books"]
"#;

#[test]
fn recordings_of_two_sources_are_captured_and_replayed_side_by_side() {
    let Some(recordings) = recordings("recordings_of_two_sources_are_captured") else { return };
    let binance = recordings.join("binance");
    let recorded = |name: &str, path: &str| {
        let path = binance.join(path);
        format!("[sources.{name}]\ntype = \"file\"\npath = \"{}\"\ndialect = \"binance_{name}\"\nsymbol = \"BTCUSDT\"\n", path.display())
    };
    let both = format!("{}{}", recorded("spot", "spot/*.gz"), recorded("usdm", "usdm/*.gz"));
    let live = Place::new(&format!("name = \"victim\"\n{both}{RECORDED}{}", capturing("[\"spot\", \"usdm\"]", "RECORDED", "{source}")));
    complete(&live, &["--workers", "2"]);
    let expected = tables(&live);
    assert!(["trades", "book_deltas", "bars", "book_metrics"].iter().all(|name| !expected[*name].is_empty()));

    let table = |name: &str| format!("[sources.{name}]\ntype = \"frames\"\nurl = \"{}/cold\"\n", live.data().display());
    let stream = |name: &str| {
        let url = SERVER.url();
        format!(
            "[sources.{name}]\ntype = \"nats\"\nservers = \"{url}\"\nstream = \"RECORDED\"\nsubjects = \"RECORDED.{name}\"\nend = \"last\"\n"
        )
    };
    for (way, sources) in
        [("parquet", format!("{}{}", table("spot"), table("usdm"))), ("nats", format!("{}{}", stream("spot"), stream("usdm")))]
    {
        let replay = Place::new(&format!("name = \"victim\"\n{sources}{RECORDED}"));
        complete(&replay, &[]);
        compare(way, &expected, &tables(&replay));
    }
}

/// What is made of frames of a venue whose listings change.
const LEARNING: &str = r#"
[operators.records]
type = "normalise"
inputs = ["market"]
kinds = ["trade"]

[sinks.cold]
type = "parquet"
inputs = ["records"]
interval = "100ms"
"#;

/// Frames of a venue. Each 300th is a listing that says which asset a symbol is of, the others are trades of it whose names are the
/// numbers of the frames.
fn era(frames: Range<i64>) -> Batch {
    let mut builder = FrameBuilder::default();
    for frame in frames {
        let (topic, payload) = if frame % 300 == 0 {
            let base = format!("ERA{}", frame / 300);
            let listed = json!({ "symbol": "BTCUSDT", "contractType": "LinearPerpetual", "baseCoin": base, "quoteCoin": "USDT" });
            (Some("linear@listing"), json!({ "retCode": 0, "result": { "category": "linear", "list": [listed] } }))
        } else {
            let time = NOON / 1_000 + frame;
            let name = frame.to_string();
            let trade = json!({ "T": time, "s": "BTCUSDT", "S": "Buy", "v": "0.001", "p": "60000", "i": name, "BT": false });
            (None, json!({ "topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": time, "data": [trade] }))
        };
        let receive_time = Some(NOON + frame * 1_000);
        let payload = payload.to_string();
        let dialect = "bybit_linear";
        builder.push(Frame { source: "market", dialect, receive_time, frame, connection: None, topic, payload: payload.as_bytes() });
    }
    Batch::new(&FRAME, builder.finish(), Origin::default())
}

/// The trades of these frames, as they should be stored.
fn eras(frames: Range<i64>) -> Vec<String> {
    let trade = |frame: i64| format!("ERA{}-USDT-PERP {frame}", frame / 300);
    let mut trades: Vec<String> = frames.filter(|frame| frame % 300 != 0).map(trade).collect();
    trades.sort_unstable();
    trades
}

fn traded(place: &Place) -> Vec<String> {
    place.ask("SELECT symbol, trade_id FROM trades")
}

/// Every trade is what the listing before it says, whoever decodes it.
#[test]
fn a_capture_is_decoded_with_the_listings_that_are_in_it() -> TestResult {
    let folder = tempfile::tempdir()?;
    let batches = (1..=8).map(|number| era(number * 300..(number + 1) * 300));
    tokio::runtime::Runtime::new()?.block_on(capture(&settings(folder.path()), 1, batches))?;
    let source = format!("name = \"victim\"\n[sources.market]\ntype = \"frames\"\nurl = \"{}/cold\"\n", folder.path().display());
    for workers in ["1", "3"] {
        let replay = Place::new(&format!("{source}{LEARNING}"));
        complete(&replay, &["--workers", workers]);
        assert_eq!(traded(&replay), eras(300..2_700), "{workers} workers");
    }
    // A listing overtook the frames before it, once in ten runs.
    for _ in 0..5 {
        let replay = Place::new(&format!("{source}{LEARNING}"));
        assert_eq!(processes::start(&replay, 3, 2, &[]).wait(), [Some(0); 3], "{}", replay.log());
        assert_eq!(traded(&replay), eras(300..2_700), "three processes");
    }
    Ok(())
}

/// What was learned of a stream is known after a stop, though the stream has forgotten it.
#[test]
fn what_was_learned_outlasts_the_stream() -> TestResult {
    let on = tokio::runtime::Runtime::new()?;
    let options = json!({ "servers": SERVER.url(), "stream": "LEARNED", "prefix": "LEARNED", "create": true, "duplicate_window": "10m" });
    let mut stream = on.block_on(open_sink("nats", &options.to_string(), Settings::default(), [&*FRAME].into_iter()))?;
    let client = on.block_on(async { async_nats::connect(SERVER.url()).await.map(async_nats::jetstream::new) })?;
    let source = from_stream("LEARNED").replace("end = \"last\"\n", "");
    let place = Place::new(&format!("{source}{LEARNING}"));
    for (time, frames, workers) in [(1, 300..1_400, "2"), (2, 1_400..1_600, "1"), (3, 1_600..1_700, "3")] {
        on.block_on(stream.commit(epoch(time, time + 1), vec![(time, era(frames.clone()))]))?;
        let mut run = place.start(&["--workers", workers]);
        let expected = eras(300..frames.end);
        until("the trades", || {
            assert!(run.ended().is_none(), "{}", place.log());
            (place.committed().is_some() && traded(&place).len() >= expected.len()).then_some(())
        });
        assert_eq!(run.terminate(), Some(0), "{}", place.log());
        assert_eq!(traded(&place), expected);
        on.block_on(async { client.get_stream("LEARNED").await?.purge().await.map_err(Box::<dyn Error>::from) })?;
    }
    Ok(())
}

/// 2024-08-08T12:00:00Z.
const NOON: Micros = 1_723_118_400_000_000;
const DAY: Micros = 86_400_000_000;

/// When a frame was received: the days take turns, and of every third frame nobody knows.
fn received(frame: i64) -> Option<Micros> {
    (frame % 3 > 0).then_some(NOON + frame % 3 * DAY - frame)
}

fn frames(source: &str, numbers: impl IntoIterator<Item = i64>) -> Batch {
    let mut builder = FrameBuilder::default();
    for frame in numbers {
        let dialect = if frame % 2 == 0 { "binance_spot" } else { "binance_usdm" };
        let topic = (frame % 5 == 0).then_some("BTCUSDT");
        builder.push(Frame { source, dialect, receive_time: received(frame), frame, connection: None, topic, payload: &payload(frame) });
    }
    Batch::new(&FRAME, builder.finish(), Origin::default())
}

/// Any bytes.
fn payload(frame: i64) -> Vec<u8> {
    frame.to_le_bytes().repeat(frame as usize % 7)
}

fn settings(folder: &Path) -> Settings {
    Settings { data: Some(folder.display().to_string()), ..Settings::default() }
}

/// Commits each batch as an epoch of its own, from a logical time on, and merges what is small.
async fn capture(settings: &Settings, from: Time, batches: impl IntoIterator<Item = Batch>) -> TestResult {
    let mut writer = open_sink("parquet", "{}", settings.clone(), [&*FRAME].into_iter()).await?;
    for (time, batch) in (from..).zip(batches) {
        writer.commit(epoch(time, time + 1), vec![(time, batch)]).await?;
    }
    Ok(writer.close().await?)
}

/// Opens the source as a node `market` would.
async fn open(settings: &Settings, options: Value, from: Option<Position>) -> Result<Box<dyn Reader>, SourceError> {
    let mut cx = Check::new("market", &[] as &[Input]);
    let declaration = sources::registry().into_iter().find(|d| d.name == "frames").expect("the source is in the registry");
    let checked = (declaration.check)(options, &mut cx);
    let component = checked.unwrap_or_else(|| panic!("{:?}", cx.into_problems())).component;
    let settings = Arc::new(settings.clone());
    component.open(OpenSource { pipeline: "test".into(), node: "market".into(), from, settings, account: Arc::default() }).await
}

async fn error_of(settings: &Settings, options: Value, from: Option<Position>) -> String {
    match open(settings, options, from).await {
        Err(error) => error.to_string(),
        Ok(mut reader) => loop {
            match reader.next(None).await {
                Err(error) => break error.to_string(),
                Ok(chunk) => assert!(chunk.is_some(), "the source opens and ends"),
            }
        },
    }
}

/// The numbers of the frames of a chunk, which are what was captured.
fn numbers(chunk: &Chunk) -> Vec<i64> {
    let of = |(kind, rows): &(_, _)| {
        assert_eq!(*kind, *FRAME);
        let view = FrameRows::of(rows).expect("these are frames");
        let check = |row: usize| {
            let frame = view.frame.value(row);
            assert_eq!(columns::label(view.source, row), Some("market"));
            assert_eq!(columns::label(view.dialect, row), Some(if frame % 2 == 0 { "binance_spot" } else { "binance_usdm" }));
            assert_eq!(columns::label(view.topic, row), (frame % 5 == 0).then_some("BTCUSDT"));
            assert_eq!((columns::integer(view.receive_time, row), view.payload.value(row)), (received(frame), &payload(frame)[..]));
            frame
        };
        (0..view.frame.len()).map(check).collect::<Vec<i64>>()
    };
    chunk.batches.iter().flat_map(of).collect()
}

async fn read(reader: &mut dyn Reader) -> Result<Vec<Chunk>, SourceError> {
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.next(None).await? {
        chunks.push(chunk);
    }
    Ok(chunks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_come_in_their_order_whatever_files_they_lie_in() -> TestResult {
    let folder = tempfile::tempdir()?;
    in_their_order(&settings(folder.path())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_come_from_a_bucket_as_from_a_folder() -> TestResult {
    BUCKETS.create_bucket("frames")?;
    in_their_order(&bucket("frames")).await
}

async fn in_their_order(settings: &Settings) -> TestResult {
    let all: Vec<i64> = (1..=9_000).filter(|frame| frame % 1_000 != 0).collect();
    // Each epoch has files of three days; merging them takes some files and leaves others.
    for (part, from) in all.chunks(2_000).zip([1, 101, 201, 301, 401]) {
        let other = [frames("other", part.iter().copied())];
        capture(settings, from, part.chunks(180).map(|numbers| frames("market", numbers.iter().copied())).chain(other)).await?;
    }
    let mut reader = open(settings, json!({}), None).await?;
    let chunks = read(&mut *reader).await?;
    assert_eq!(chunks.iter().flat_map(numbers).collect::<Vec<_>>(), all);
    assert!(chunks.len() <= 9, "{} chunks", chunks.len());
    assert_eq!(reader.share(), Some(1.0));

    // Going on from any position, or up to it, and behind it.
    for chunk in &chunks {
        let at = chunk.position.clone();
        let split = all.partition_point(|number| *number <= at.frame as i64);
        let rest = read(&mut *open(settings, json!({}), Some(at.clone())).await?).await?;
        assert_eq!(rest.iter().flat_map(numbers).collect::<Vec<_>>(), all[split..]);

        let mut reader = open(settings, json!({}), None).await?;
        let mut found = Vec::new();
        loop {
            let chunk = reader.next(Some(&at)).await?.ok_or("the source ends before a position that it gave")?;
            found.extend(numbers(&chunk));
            if chunk.position == at {
                break;
            }
        }
        assert_eq!(found, all[..split]);
        assert_eq!(reader.next(Some(&at)).await?.ok_or("a chunk")?.batches.len(), 0, "it is there already");
        assert_eq!(read(&mut *reader).await?.iter().flat_map(numbers).collect::<Vec<_>>(), all[split..]);
    }
    // Positions that were given to another tempo of reading lie anywhere.
    let mut reader = open(settings, json!({}), None).await?;
    for frame in [1_u64, 2, 777, 778, 5_001] {
        let until = Position { offset: frame, frame, ..chunks[0].position.clone() };
        while !reader.next(Some(&until)).await?.ok_or("a chunk")?.position.is_at(&until) {}
    }
    let gone = Position { offset: 6_000, frame: 6_000, ..chunks[0].position.clone() };
    let error = loop {
        match reader.next(Some(&gone)).await {
            Err(error) => break error.to_string(),
            Ok(chunk) => assert!(chunk.is_some_and(|chunk| chunk.position.frame < 6_000)),
        }
    };
    assert!(error.contains("frame 6000 was handed over and is not there any more"), "{error}");

    let some = json!({ "from": "2024-08-09T00:00:00Z", "to": "2024-08-09T12:00:00Z" });
    let found: Vec<i64> = read(&mut *open(settings, some, None).await?).await?.iter().flat_map(numbers).collect();
    assert_eq!(found, all.iter().copied().filter(|frame| frame % 3 == 1).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_given_again_is_named() -> TestResult {
    let folder = tempfile::tempdir()?;
    let (path, any) = (&settings(folder.path()), json!({}));
    let error = error_of(path, any.clone(), None).await;
    assert!(error.contains("there is no table of frames; capture some with the sink `parquet`"), "{error}");

    capture(path, 1, [frames("market", 1..=100), frames("other", 1..=100)]).await?;
    let error = error_of(path, json!({ "source": "third" }), None).await;
    assert!(error.contains("there are no frames of a source `third` in the table; it has those of `market`, `other`"), "{error}");
    let mut reader = open(path, any.clone(), None).await?;
    let at = read(&mut *reader).await?.pop().ok_or("a chunk")?.position;
    assert_eq!(at.frame, 100);

    let error = error_of(path, json!({ "source": "other" }), Some(at.clone())).await;
    assert!(error.contains("was read before; bring back the table"), "{error}");
    let error = error_of(path, any.clone(), Some(Position { offset: 101, frame: 101, ..at.clone() })).await;
    assert!(error.contains("the capture ends with frame 100, and was read to frame 101"), "{error}");

    // What is captured later is read on from there.
    capture(path, 11, [frames("market", 101..=110)]).await?;
    let more = read(&mut *open(path, any.clone(), Some(at.clone())).await?).await?;
    assert_eq!(more.iter().flat_map(numbers).collect::<Vec<_>>(), (101..=110).collect::<Vec<_>>());

    // A capture begun anew over the same table.
    capture(path, 21, [frames("market", 5..=9)]).await?;
    let error = error_of(path, any.clone(), None).await;
    assert!(error.contains("frame 5 is there twice: more than one capture of a source of this name is in the table"), "{error}");

    std::fs::remove_dir_all(folder.path().join("cold/frames"))?;
    capture(path, 1, [frames("market", 1..=200)]).await?;
    let error = error_of(path, any, Some(at)).await;
    assert!(error.contains("the table was made anew since it was read; bring back the table"), "{error}");
    Ok(())
}
