//! The source and the sink `nats` against real servers: what goes in comes out once and in order, whatever is killed
//! in between, and clear words where it cannot go on.

use std::error::Error;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use config::settings::Settings;
use config::{Check, Input};
use futures::StreamExt;
use model::kinds::{BAR, DEAD_LETTER, FRAME, Frame, FrameBuilder, FrameRows, TRADE, Trade, TradeBuilder, TradeRows};
use model::time::{Micros, Time};
use model::{Account, Batch, Decimal, Kind, Origin, columns};
use nats::{Broken, Connection, JetStream};
use serde_json::{Value, json};
use sinks::Writer;
use sources::{Chunk, OpenSource, Position, Reader, SourceError};
use tests::program::{marketprism, rows};
use tests::servers::{Nats, NatsCluster};

use crate::clickhouse::{epoch, open as open_sink};

pub type TestResult = Result<(), Box<dyn Error>>;

/// The server of all tests that do not stop it; each has a stream of its own.
static SERVER: LazyLock<Nats> = LazyLock::new(|| Nats::start().unwrap_or_else(|error| panic!("{error}")));

/// 2024-08-08T12:00:00Z.
const NOON: Micros = 1_723_118_400_000_000;

/// A test that hangs fails; the machine may be busy.
pub async fn in_time(test: impl Future<Output = TestResult>) -> TestResult {
    // What a test that fails was told; the first test sets it up for all.
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info,async_nats=off".into());
    let _set_up_before = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    tokio::time::timeout(Duration::from_secs(300), test).await.map_err(|_| "the test did not end in five minutes")?
}

/// A connection of the test's own.
async fn jetstream(url: &str) -> JetStream {
    let connection: Connection = serde_json::from_value(json!({ "servers": url })).expect("these are options");
    for _ in 0..600 {
        if let Ok(jetstream) = connection.connect("test", Broken::Mended).await {
            return jetstream;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{url} does not answer");
}

/// Makes a stream for the subjects below its own name, set up as `more` says.
async fn make(jetstream: &JetStream, name: &str, more: Value) -> Result<(), Box<dyn Error>> {
    let mut config =
        json!({ "name": name, "subjects": [format!("{name}.>")], "retention": "limits", "storage": "file", "num_replicas": 1 });
    for (key, value) in more.as_object().expect("an object") {
        config[key] = value.clone();
    }
    jetstream.request::<Value>(&format!("STREAM.CREATE.{name}"), &config).await?;
    Ok(())
}

async fn drop_stream(jetstream: &JetStream, name: &str) -> TestResult {
    jetstream.request::<Value>(&format!("STREAM.DELETE.{name}"), &Value::Null).await?;
    Ok(())
}

/// Publishes texts to a stream and waits until it has them.
async fn put(jetstream: &JetStream, name: &str, texts: impl IntoIterator<Item = String>) -> TestResult {
    // Far fewer answers than the client lets wait before it drops them.
    const AT_ONCE: usize = 1_000;
    let inbox = jetstream.client.new_inbox();
    let mut answers = jetstream.client.subscribe(inbox.clone()).await?;
    let mut texts = texts.into_iter();
    loop {
        let mut sent = 0;
        for text in texts.by_ref().take(AT_ONCE) {
            jetstream.client.publish_with_reply(format!("{name}.x"), inbox.clone(), text.into()).await?;
            sent += 1;
        }
        if sent == 0 {
            return Ok(());
        }
        jetstream.client.flush().await?;
        for _ in 0..sent {
            let answer = answers.next().await.ok_or("the connection was closed")?;
            let answer: Value = serde_json::from_slice(&answer.payload)?;
            assert!(answer["error"].is_null(), "{answer}");
        }
    }
}

fn texts(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|i| format!("{{\"n\":{i}}}"))
}

/// Opens the source as a pipeline `test` would.
pub async fn open(options: Value, from: Option<Position>) -> Result<Box<dyn Reader>, SourceError> {
    open_with(options, from, Arc::default()).await
}

async fn open_with(options: Value, from: Option<Position>, account: Arc<Account>) -> Result<Box<dyn Reader>, SourceError> {
    let mut cx = Check::new("in", &[] as &[Input]);
    let declaration = sources::registry().into_iter().find(|d| d.name == "nats").expect("the source is in the registry");
    let checked = (declaration.check)(options, &mut cx);
    let component = checked.unwrap_or_else(|| panic!("{:?}", cx.into_problems())).component;
    component.open(OpenSource { pipeline: "test".into(), node: "in".into(), from, settings: Arc::default(), account }).await
}

pub fn frames_from(url: &str, stream: &str) -> Value {
    json!({ "servers": url, "stream": stream, "dialect": "binance_spot" })
}

/// A source of frames that ends with the last message.
pub fn bounded(url: &str, stream: &str) -> Value {
    let mut options = frames_from(url, stream);
    options["end"] = "last".into();
    options
}

/// The frames of a chunk: number and payload.
pub fn frames(chunk: &Chunk) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    for (kind, rows) in &chunk.batches {
        assert_eq!(kind.name, "frame", "{rows:?}");
        let view = FrameRows::of(rows).expect("these are frames");
        found
            .extend((0..rows.num_rows()).map(|row| (view.frame.value(row), String::from_utf8_lossy(view.payload.value(row)).into_owned())));
    }
    found
}

/// What a reader gives until so many frames came, or it ends.
async fn read(reader: &mut dyn Reader, most: usize) -> Result<(Vec<String>, Option<Position>), SourceError> {
    let (mut found, mut position) = (Vec::new(), None);
    while found.len() < most {
        let Some(chunk) = reader.next(None).await? else { break };
        found.extend(frames(&chunk).into_iter().map(|(_, payload)| payload));
        position = Some(chunk.position);
    }
    Ok((found, position))
}

async fn error_of(opened: Result<Box<dyn Reader>, SourceError>) -> String {
    match opened {
        Err(error) => error.to_string(),
        Ok(_) => panic!("the source opens"),
    }
}

pub fn frame_batch(payloads: impl IntoIterator<Item = String>) -> Batch {
    let mut builder = FrameBuilder::default();
    for (i, payload) in payloads.into_iter().enumerate() {
        let (frame, receive_time) = (i as i64 + 1, Some(NOON + i as i64));
        builder.push(Frame {
            source: "in",
            dialect: "binance_spot",
            receive_time,
            frame,
            connection: None,
            topic: None,
            payload: payload.as_bytes(),
        });
    }
    Batch::new(&FRAME, builder.finish(), Origin::default())
}

fn trades(ids: impl IntoIterator<Item = i64>) -> Batch {
    let mut builder = TradeBuilder::default();
    for id in ids {
        builder.push(Trade {
            venue: "binance",
            market: "spot",
            symbol: if id % 2 == 0 { "BTC-USDT" } else { "ETH.X Y" },
            event_time: NOON + id,
            receive_time: (id % 3 > 0).then_some(NOON - id),
            frame: None,
            trade_id: &id.to_string(),
            price: Decimal::from_units(61_837_630_000_000_001),
            quantity: Decimal::from_integer(id),
            contracts: None,
            side: "sell",
            fills: 1,
            backfilled: Some(false),
        });
    }
    Batch::new(&TRADE, builder.finish(), Origin::default())
}

pub async fn sink<'k>(options: Value, kinds: impl IntoIterator<Item = &'k Arc<Kind>>) -> Result<Box<dyn Writer>, sinks::SinkError> {
    open_sink("nats", &options.to_string(), Settings::default(), kinds.into_iter()).await
}

pub fn to(url: &str, stream: &str) -> Value {
    json!({ "servers": url, "stream": stream, "prefix": stream, "create": true, "duplicate_window": "10m" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_source_ends_with_the_last_message() -> TestResult {
    in_time(async {
        let js = jetstream(&SERVER.url()).await;
        let mut former: Vec<Box<dyn Reader>> = Vec::new();
        for round in 0..20_u64 {
            make(&js, "BOUNDED", json!({})).await?;
            let first = round * 1_000;
            put(&js, "BOUNDED", texts(first..first + 3 + round * 20)).await?;
            let mut reader = open(bounded(&SERVER.url(), "BOUNDED"), None).await?;
            // What comes later is not there for it, nor what the readers of earlier streams of the name still wait for.
            put(&js, "BOUNDED", texts(first + 900..first + 903)).await?;
            let (found, _) = read(&mut *reader, usize::MAX).await?;
            assert_eq!(found, texts(first..first + 3 + round * 20).collect::<Vec<_>>(), "round {round}");
            assert_eq!(reader.share(), Some(1.0));
            // One that goes on waiting while its stream goes.
            let mut waiting = open(frames_from(&SERVER.url(), "BOUNDED"), None).await?;
            assert_eq!(read(&mut *waiting, 2).await?.0[0], found[0]);
            former.push(waiting);
            drop_stream(&js, "BOUNDED").await?;
        }
        make(&js, "BOUNDED", json!({})).await?;
        put(&js, "BOUNDED", texts(0..5)).await?;
        for (round, mut reader) in former.into_iter().enumerate() {
            let error = loop {
                match read(&mut *reader, 1).await {
                    Ok((found, _)) => assert!(found.iter().all(|text| text != "{\"n\":0}") || round == 0, "round {round}: {found:?}"),
                    Err(error) => break error.to_string(),
                }
            };
            assert!(error.contains("the stream was recreated") && error.contains("--fresh"), "{error}");
        }
        let empty = make(&js, "EMPTY", json!({})).await;
        empty?;
        assert_eq!(read(&mut *open(bounded(&SERVER.url(), "EMPTY"), None).await?, 1).await?.0, Vec::<String>::new());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_begins_where_it_is_told() -> TestResult {
    in_time(async {
        let (js, url) = (jetstream(&SERVER.url()).await, SERVER.url());
        make(&js, "STARTS", json!({})).await?;
        put(&js, "STARTS", texts(0..5)).await?;
        let middle = js.stream("STARTS").await?.state.last;
        // Times of the broker are those of this machine.
        let between = model::time::display(model::time::now() + 1);
        while model::time::display(model::time::now()) <= between {
            tokio::task::yield_now().await;
        }
        put(&js, "STARTS", texts(5..10)).await?;
        for (start, first) in [(json!("first"), 0), (json!(middle), 4), (json!(between), 5)] {
            let mut options = bounded(&url, "STARTS");
            options["start"] = start;
            let found = read(&mut *open(options.clone(), None).await?, usize::MAX).await?.0;
            assert_eq!(found, texts(first..10).collect::<Vec<_>>(), "{options}");
        }
        let mut options = frames_from(&url, "STARTS");
        options["start"] = "new".into();
        let mut reader = open(options, None).await?;
        put(&js, "STARTS", texts(10..12)).await?;
        assert_eq!(read(&mut *reader, 2).await?.0, texts(10..12).collect::<Vec<_>>());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn subjects_and_deletes_leave_holes_that_are_no_loss() -> TestResult {
    in_time(async {
        let (js, url) = (jetstream(&SERVER.url()).await, SERVER.url());
        make(&js, "HOLES", json!({})).await?;
        for i in 0..60_u64 {
            let request = js.client.request(format!("HOLES.{}", ["a", "b", "c"][(i % 3) as usize]), format!("{i}").into());
            request.await?;
        }
        for sequence in [2, 10, 11, 30] {
            js.request::<Value>("STREAM.MSG.DELETE.HOLES", &json!({ "seq": sequence })).await?;
        }
        let expected = |wanted: &dyn Fn(u64) -> bool| -> Vec<String> {
            (0..60).filter(|i| wanted(*i) && ![1, 9, 10, 29].contains(i)).map(|i| i.to_string()).collect()
        };
        for (subjects, wanted) in [
            (json!([]), &(|_| true) as &dyn Fn(u64) -> bool),
            (json!("HOLES.a"), &|i| i % 3 == 0),
            (json!(["HOLES.b", "HOLES.c"]), &|i| i % 3 != 0),
        ] {
            let mut options = bounded(&url, "HOLES");
            options["subjects"] = subjects;
            let (found, end) = read(&mut *open(options.clone(), None).await?, usize::MAX).await?;
            assert_eq!(found, expected(wanted), "{options}");
            // From every position on, what follows is the same.
            let position = Position { offset: 20, frame: 7, ..end.ok_or("there were messages")? };
            let found = read(&mut *open(options, Some(position)).await?, usize::MAX).await?.0;
            assert_eq!(found, expected(&|i| i >= 20 && wanted(i)));
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_gives_the_same_rows_up_to_each_position() -> TestResult {
    in_time(async {
        let (js, url) = (jetstream(&SERVER.url()).await, SERVER.url());
        make(&js, "REPLAY", json!({})).await?;
        put(&js, "REPLAY", texts(0..30_000)).await?;
        let mut reader = open(bounded(&url, "REPLAY"), None).await?;
        let (mut chunks, mut all) = (Vec::new(), Vec::new());
        while let Some(chunk) = reader.next(None).await? {
            all.extend(frames(&chunk));
            chunks.push(chunk.position);
        }
        assert_eq!(all.len(), 30_000);
        assert!(all.iter().enumerate().all(|(i, (frame, text))| *frame == i as i64 + 1 && *text == format!("{{\"n\":{i}}}")));
        // Bounds that no chunk had, and the chunks' own.
        let mut bounds: Vec<u64> = vec![1, 2, 777, 20_001];
        bounds.extend(chunks.iter().map(|c| c.offset));
        bounds.sort_unstable();
        bounds.dedup();
        let at = |offset| Position { offset, frame: offset, ..chunks[0].clone() };
        for start in [0, 1, 500] {
            let from = (start > 0).then(|| at(start));
            let mut reader = open(bounded(&url, "REPLAY"), from).await?;
            let mut found = Vec::new();
            for bound in bounds.iter().copied().filter(|b| *b > start) {
                loop {
                    // The runtime drops what waits all the time.
                    let until = at(bound);
                    let Ok(next) = tokio::time::timeout(Duration::from_millis(1), reader.next(Some(&until))).await else { continue };
                    let chunk = next?.ok_or("the source ends too early")?;
                    assert!(chunk.position.offset <= bound);
                    found.extend(frames(&chunk));
                    if chunk.position.offset == bound {
                        assert_eq!(chunk.position, until);
                        break;
                    }
                }
            }
            assert!(reader.next(None).await?.is_none());
            assert!(found == all[start as usize..], "from {start}");
        }
        // What was handed over and is gone is not passed over.
        js.request::<Value>("STREAM.MSG.DELETE.REPLAY", &json!({ "seq": 777 })).await?;
        let mut reader = open(bounded(&url, "REPLAY"), Some(at(500))).await?;
        let error = loop {
            match reader.next(Some(&at(777))).await {
                Ok(chunk) => assert!(chunk.is_some()),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("message 777 was handed over") && error.contains("--fresh"), "{error}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_the_stream_does_not_have_is_named() -> TestResult {
    in_time(async {
        let (js, url) = (jetstream(&SERVER.url()).await, SERVER.url());
        make(&js, "NAMED", json!({})).await?;
        put(&js, "NAMED", texts(0..10)).await?;
        let options = bounded(&url, "NAMED");
        let end = read(&mut *open(options.clone(), None).await?, usize::MAX).await?.1.ok_or("there were messages")?;
        let at = |offset| Position { offset, ..end.clone() };
        // Everything that was not read is there, be it nothing.
        js.request::<Value>("STREAM.PURGE.NAMED", &json!({ "seq": 6 })).await?;
        assert_eq!(read(&mut *open(options.clone(), Some(at(5))).await?, usize::MAX).await?.0, texts(5..10).collect::<Vec<_>>());
        let error = error_of(open(options.clone(), Some(at(3))).await).await;
        assert!(
            error.contains("purged beyond what was read: messages 4 to 5 are gone") && error.contains("raise the stream's limits"),
            "{error}"
        );
        js.request::<Value>("STREAM.PURGE.NAMED", &json!({})).await?;
        assert_eq!(read(&mut *open(options.clone(), Some(at(10))).await?, usize::MAX).await?.0, Vec::<String>::new());
        let error = error_of(open(options.clone(), Some(at(11))).await).await;
        assert!(error.contains("shorter than what was read: it ends with message 10, and 11 were read"), "{error}");
        drop_stream(&js, "NAMED").await?;
        let error = error_of(open(options.clone(), Some(at(10))).await).await;
        assert!(error.contains("the stream that was read is gone") && error.contains("--fresh"), "{error}");
        let error = error_of(open(options.clone(), None).await).await;
        assert!(error.contains("the stream does not exist") && error.contains("correct `stream`"), "{error}");
        make(&js, "NAMED", json!({})).await?;
        put(&js, "NAMED", texts(0..10)).await?;
        let error = error_of(open(options, Some(at(10))).await).await;
        assert!(error.contains("the stream was recreated") && error.contains("--fresh"), "{error}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_falls_behind_retention_says_so() -> TestResult {
    in_time(async {
        let (js, url) = (jetstream(&SERVER.url()).await, SERVER.url());
        make(&js, "BEHIND", json!({ "max_msgs": 50_000 })).await?;
        put(&js, "BEHIND", texts(0..50_000)).await?;
        let mut reader = open(frames_from(&url, "BEHIND"), None).await?;
        let (first, _) = read(&mut *reader, 1).await?;
        assert_eq!(first[0], "{\"n\":0}");
        // More than is read ahead goes and comes.
        put(&js, "BEHIND", texts(50_000..150_000)).await?;
        let error = read(&mut *reader, usize::MAX).await.err().ok_or("what is lost is not silent")?.to_string();
        assert!(error.contains("purged beyond what was read"), "{error}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn little_is_fetched_before_it_is_asked_for() -> TestResult {
    in_time(async {
        let (js, url) = (jetstream(&SERVER.url()).await, SERVER.url());
        make(&js, "AHEAD", json!({})).await?;
        put(&js, "AHEAD", texts(0..100_000)).await?;
        let mut options = frames_from(&url, "AHEAD");
        options["consumer"] = "ahead".into();
        let mut reader = open(options, None).await?;
        let mut found = read(&mut *reader, 1).await?.0;
        let names: Value = js.request("CONSUMER.NAMES.AHEAD", &Value::Null).await?;
        let name = names["consumers"][0].as_str().ok_or("there is a consumer")?.to_owned();
        assert!(name.starts_with("ahead-"), "{name}");
        // Until it stands still.
        let mut delivered = Value::Null;
        loop {
            let info: Value = js.request(&format!("CONSUMER.INFO.AHEAD.{name}"), &Value::Null).await?;
            let now = info["delivered"]["stream_seq"].clone();
            if now == delivered {
                break;
            }
            delivered = now;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let delivered = delivered.as_u64().ok_or("a number")?;
        assert!(delivered < 40_000, "{delivered} were fetched");
        while found.len() < 100_000 {
            found.extend(read(&mut *reader, 1).await?.0);
        }
        assert!(found.into_iter().eq(texts(0..100_000)));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_settled_may_go_and_nothing_else() -> TestResult {
    in_time(async {
        let (js, url) = (jetstream(&SERVER.url()).await, SERVER.url());
        for retention in ["interest", "workqueue", "limits"] {
            let name = format!("SETTLE_{retention}");
            make(&js, &name, json!({ "retention": retention })).await?;
            let mut reader = open(frames_from(&url, &name), None).await?;
            put(&js, &name, texts(0..3_000)).await?;
            let mut positions = Vec::new();
            let mut count = 0;
            while count < 3_000 {
                let chunk = reader.next(None).await?.ok_or("the source does not end")?;
                count += frames(&chunk).len();
                positions.push(chunk.position);
            }
            let held = |kept: u64| {
                let (js, name) = (&js, &name);
                async move {
                    for _ in 0..600 {
                        let state = js.stream(name).await?.state;
                        if state.messages == kept {
                            return Ok::<_, Box<dyn Error>>(());
                        }
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(format!("{name} does not come to {kept} messages").into())
                }
            };
            assert_eq!(js.stream(&name).await?.state.messages, 3_000, "{name}");
            let settled = positions[0].clone();
            reader.settle(&settled).await?;
            held(if retention == "limits" { 3_000 } else { 3_000 - settled.offset }).await?;
            drop(reader);
            // As after a crash: what was not settled is there for whoever goes on before it, and comes once.
            for _ in 0..3 {
                let mut reader = open(frames_from(&url, &name), Some(settled.clone())).await?;
                let rest = texts(settled.offset..3_000).collect::<Vec<_>>();
                if !rest.is_empty() {
                    assert!(read(&mut *reader, rest.len()).await?.0 == rest, "{name}");
                }
            }
            let end = Position { offset: 3_000, frame: 3_000, ..settled.clone() };
            let mut reader = open(frames_from(&url, &name), Some(end.clone())).await?;
            put(&js, &name, texts(3_000..3_010)).await?;
            let (found, last) = read(&mut *reader, 10).await?;
            assert_eq!(found, texts(3_000..3_010).collect::<Vec<_>>(), "{name}");
            reader.settle(&last.ok_or("there were messages")?).await?;
            held(if retention == "limits" { 3_010 } else { 0 }).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_as_they_were() -> TestResult {
    in_time(async {
        let (js, url) = (jetstream(&SERVER.url()).await, SERVER.url());
        let mut writer = sink(to(&url, "RECORDS"), [&*TRADE, &*BAR]).await?;
        writer.commit(epoch(1, 3), vec![(1, trades(0..500)), (2, trades(500..1_000))]).await?;
        // Again, in another order and in other batches, as a replay may bring them.
        writer.commit(epoch(1, 3), vec![(1, trades((0..500).rev())), (2, trades(500..700)), (2, trades((700..1_000).rev()))]).await?;
        let mut second = sink(to(&url, "RECORDS"), [&*TRADE, &*BAR]).await?;
        second.commit(epoch(1, 3), vec![(1, trades(0..500)), (2, trades(500..1_000))]).await?;
        assert_eq!(js.stream("RECORDS").await?.state.messages, 1_000);
        // Equal rows of one time are as many as they are, and those of another time are others.
        let twice = || vec![(7, trades([5, 5])), (8, trades([5]))];
        writer.commit(epoch(7, 9), twice()).await?;
        second.commit(epoch(7, 9), twice()).await?;
        assert_eq!(js.stream("RECORDS").await?.state.messages, 1_003);

        put(&js, "RECORDS", [r#"{"venue":1}"#.to_owned(), "no json".to_owned()]).await?;
        let mut headers = HeaderMap::new();
        headers.insert(nats::headers::DIFF, "-1");
        js.client.request_with_headers("RECORDS.x", headers, "{}".into()).await?;
        let account: Arc<Account> = Arc::default();
        let options = json!({ "servers": url, "stream": "RECORDS", "format": "ndjson", "kind": "trade", "end": "last" });
        let mut reader = open_with(options.clone(), None, account.clone()).await?;
        let (mut ids, mut reasons) = (Vec::new(), Vec::new());
        while let Some(chunk) = reader.next(None).await? {
            for (kind, rows) in &chunk.batches {
                if kind.name == DEAD_LETTER.name {
                    let view = model::kinds::DeadLetterRows::of(rows)?;
                    reasons.extend((0..rows.num_rows()).map(|row| columns::label(view.reason, row).unwrap_or_default().to_owned()));
                    continue;
                }
                let expected = trades(TradeRows::of(rows)?.trade_id.iter().map(|id| id.unwrap_or_default().parse().unwrap_or(-1)));
                let stored = |rows: &Batch| model::tables::stored(rows, 0);
                assert_eq!(stored(&Batch::new(&TRADE, rows.clone(), Origin::default()))?, stored(&expected)?);
                ids.extend(TradeRows::of(rows)?.trade_id.iter().map(|id| id.unwrap_or_default().parse::<i64>().unwrap_or(-1)));
            }
        }
        assert_eq!(ids, (0..1_000).chain([5, 5, 5]).collect::<Vec<_>>());
        assert_eq!(reasons, ["wrong_type", "malformed", "retraction"]);
        assert_eq!(account.totals().rejected(), 3);
        // Subjects with what may not stand in them.
        let mut options = options;
        options["subjects"] = "RECORDS.trade.binance.spot.ETH%2EX%20Y".into();
        let mut reader = open(options, None).await?;
        let mut count = 0;
        while let Some(chunk) = reader.next(None).await? {
            count += chunk.batches.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>();
        }
        assert_eq!(count, 503);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_cannot_be_used_is_a_dead_letter() -> TestResult {
    in_time(async {
        let (js, url) = (jetstream(&SERVER.url()).await, SERVER.url());
        make(&js, "LETTERS", json!({})).await?;
        let headers = [
            vec![],
            vec![(nats::headers::RECEIVE_TIME, "yesterday")],
            vec![(nats::headers::DIALECT, "binance_usdm")],
            vec![
                (nats::headers::RECEIVE_TIME, "1723118400000000999"),
                (nats::headers::TOPIC, "BTC"),
                (nats::headers::DIALECT, "binance_spot"),
            ],
            vec![(nats::headers::RECEIVE_TIME, "unknown")],
            vec![(nats::headers::FRAME, "forty")],
            vec![(nats::headers::FRAME, "40")],
        ];
        for headers in headers {
            let map = headers.into_iter().fold(HeaderMap::new(), |mut map, (name, value)| {
                map.insert(name, value);
                map
            });
            js.client.request_with_headers("LETTERS.x", map, "no json".into()).await?;
        }
        let before = model::time::now();
        let mut reader = open(bounded(&url, "LETTERS"), None).await?;
        let (mut seen, mut reasons) = (Vec::new(), Vec::new());
        while let Some(chunk) = reader.next(None).await? {
            for (kind, rows) in &chunk.batches {
                if kind.name == DEAD_LETTER.name {
                    let view = model::kinds::DeadLetterRows::of(rows)?;
                    reasons.extend(
                        (0..rows.num_rows()).map(|row| (view.frame.value(row), columns::label(view.reason, row).map(str::to_owned))),
                    );
                } else {
                    let view = FrameRows::of(rows)?;
                    let time = |row| columns::integer(view.receive_time, row);
                    let topic = |row| columns::label(view.topic, row).map(str::to_owned);
                    seen.extend((0..rows.num_rows()).map(|row| (view.frame.value(row), time(row), topic(row))));
                }
            }
        }
        assert_eq!(reasons, [(2, Some("bad_time".into())), (3, Some("wrong_dialect".into())), (6, Some("bad_number".into()))]);
        // Without a header the broker knows when it came.
        assert!(seen[0].1.is_some_and(|time| time <= before && time > before - 300_000_000), "{seen:?}");
        assert_eq!(seen[1..3], [(4, Some(NOON), Some("BTC".to_owned())), (5, None, None)]);
        // It was captured as another one.
        assert_eq!((seen[3].0, seen.len()), (40, 4));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_fit_is_named() -> TestResult {
    in_time(async {
        let (js, url) = (jetstream(&SERVER.url()).await, SERVER.url());
        let fails = async |options: Value| sink(options, [&*TRADE]).await.err().map(|e| e.to_string()).unwrap_or_default();
        let error = fails(json!({ "servers": url, "stream": "ABSENT" })).await;
        assert!(error.contains("the stream does not exist; make it, set `create = true`, or correct `stream`"), "{error}");
        make(&js, "SHORT", json!({ "duplicate_window": 5_000_000_000_u64 })).await?;
        let error = fails(json!({ "servers": url, "stream": "SHORT", "prefix": "SHORT" })).await;
        assert!(error.contains("recognises repeated messages for 5s, and `duplicate_window` is 2m"), "{error}");
        assert!(error.contains("nats stream edit SHORT --dupe-window 120s"), "{error}");
        let error = fails(json!({ "servers": url, "stream": "SHORT", "prefix": "elsewhere", "duplicate_window": "5s" })).await;
        assert!(error.contains("the stream takes SHORT.> and not elsewhere.trade.*.*.*"), "{error}");
        // Another stream must not take what is meant for ours.
        make(&js, "OURS", json!({ "subjects": ["ours.trade.*.*.BTC-USDT"] })).await?;
        make(&js, "THEIRS", json!({ "subjects": ["ours.trade.*.*.ETH%2EX%20Y"] })).await?;
        let mut writer = sink(json!({ "servers": url, "stream": "OURS", "prefix": "ours" }), [&*TRADE]).await?;
        writer.commit(epoch(1, 2), vec![(1, trades([2]))]).await?;
        let error = writer.commit(epoch(2, 3), vec![(2, trades([1]))]).await.err().ok_or("an error")?.to_string();
        assert!(error.contains("another stream takes this subject"), "{error}");
        drop_stream(&js, "THEIRS").await?;
        let error = writer.commit(epoch(3, 4), vec![(3, trades([1]))]).await.err().ok_or("an error")?.to_string();
        assert!(error.contains("and not ours.trade.binance.spot.ETH%2EX%20Y"), "{error}");
        assert_eq!(js.stream("OURS").await?.state.messages, 1);
        Ok(())
    })
    .await
}

/// Kills a server and starts it again, some times, while something else runs.
fn torment(server: &Arc<Mutex<Nats>>, times: u32, pause: Duration) -> std::thread::JoinHandle<()> {
    let server = server.clone();
    std::thread::spawn(move || {
        for _ in 0..times {
            // How far the other side has come by then is different each time, and must not matter.
            std::thread::sleep(pause);
            server.lock().expect("no holder panics").restart().unwrap_or_else(|error| panic!("{error}"));
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_while_we_publish_loses_and_doubles_nothing() -> TestResult {
    in_time(async {
        let server = Arc::new(Mutex::new(Nats::start()?));
        let url = server.lock().expect("no holder panics").url();
        let mut writer = sink(to(&url, "KILLED"), [&*FRAME]).await?;
        let tormentor = torment(&server, 5, Duration::from_millis(700));
        let (mut time, mut sent): (Time, u64) = (1, 0);
        while !tormentor.is_finished() || sent < 20_000 {
            writer.commit(epoch(time, time + 1), vec![(time, frame_batch(texts(sent..sent + 2_000)))]).await?;
            (time, sent) = (time + 1, sent + 2_000);
        }
        tormentor.join().map_err(|_| "the server does not start again")?;
        let (found, _) = read(&mut *open(bounded(&url, "KILLED"), None).await?, usize::MAX).await?;
        assert_eq!(found.len() as u64, sent);
        if let Some((i, other)) = found.iter().enumerate().find(|(i, text)| **text != format!("{{\"n\":{i}}}")) {
            panic!("frame {i} is {other}: other frames, or in another order");
        }
        println!("{sent} frames in {time} epochs over 5 kills");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_while_we_read_loses_and_doubles_nothing() -> TestResult {
    in_time(async {
        let server = Arc::new(Mutex::new(Nats::start()?));
        let url = server.lock().expect("no holder panics").url();
        let js = jetstream(&url).await;
        for retention in ["limits", "interest", "workqueue"] {
            let name = format!("READ_{retention}");
            make(&js, &name, json!({ "retention": retention })).await?;
            let mut reader = open(frames_from(&url, &name), None).await?;
            put(&js, &name, texts(0..20_000)).await?;
            let mut found = Vec::new();
            for kill in 0..4 {
                let (more, position) = read(&mut *reader, 3_000).await?;
                found.extend(more);
                if kill % 2 == 0 {
                    reader.settle(&position.ok_or("there were messages")?).await?;
                }
                let server = server.clone();
                tokio::task::spawn_blocking(move || server.lock().expect("no holder panics").restart()).await??;
            }
            let more = jetstream(&url).await;
            put(&more, &name, texts(20_000..25_000)).await?;
            found.extend(read(&mut *reader, 25_000 - found.len()).await?.0);
            assert!(found.iter().cloned().eq(texts(0..25_000)), "{name}: {} messages, or another order", found.len());
            println!("{name}: 25000 messages over 4 kills");
        }
        Ok(())
    })
    .await
}

/// Users as a server's configuration, a JWT account and TLS know them.
mod login {
    use std::path::PathBuf;

    use nkeys::KeyPair;

    use super::*;

    fn certificate(name: &str) -> String {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/tls").join(name).display().to_string()
    }

    fn tls(verify: bool) -> String {
        format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: {verify} }}",
            certificate("server.pem"),
            certificate("server.key"),
            certificate("ca.pem")
        )
    }

    /// Sends frames through a server and reads them again, with these options.
    async fn works(url: &str, options: Value) -> TestResult {
        let with = |mut base: Value| {
            for (key, value) in options.as_object().expect("an object") {
                base[key] = value.clone();
            }
            base
        };
        let mut writer = sink(with(to(url, "LOGIN")), [&*FRAME]).await?;
        writer.commit(epoch(1, 2), vec![(1, frame_batch(texts(0..10)))]).await?;
        let found = read(&mut *open(with(bounded(url, "LOGIN")), None).await?, usize::MAX).await?.0;
        assert_eq!(found, texts(0..10).collect::<Vec<_>>());
        Ok(())
    }

    async fn refused(url: &str, options: Value) -> String {
        let mut all = bounded(url, "LOGIN");
        for (key, value) in options.as_object().expect("an object") {
            all[key] = value.clone();
        }
        error_of(open(all, None).await).await
    }

    fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a temporary folder can be written");
        path
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn by_user_and_password_or_token() -> TestResult {
        in_time(async {
            let server = Nats::start_with("authorization { user: u, password: secret }")?;
            works(&server.url(), json!({ "user": "u", "password": "secret" })).await?;
            let error = refused(&server.url(), json!({ "user": "u", "password": "guess" })).await;
            assert!(error.contains("authorization violation") && error.contains("check `user` and `password`"), "{error}");
            assert!(!error.contains("guess"));
            let server = Nats::start_with("authorization { token: secret }")?;
            works(&server.url(), json!({ "token": "secret" })).await
        })
        .await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn over_tls_by_nkey() -> TestResult {
        in_time(async {
            let user = KeyPair::new_user();
            let folder = tempfile::tempdir()?;
            let seed = written(folder.path(), "user.nk", &format!("# ours\n{}\n", user.seed()?));
            let server = Nats::start_with(&format!("authorization {{ users: [ {{ nkey: {} }} ] }}\n{}", user.public_key(), tls(false)))?;
            works(&server.url(), json!({ "nkey": seed, "tls_ca": certificate("ca.pem") })).await?;
            let url = server.url().replace("nats://", "tls://");
            works(&url, json!({ "nkey": seed, "tls_ca": certificate("ca.pem") })).await?;
            let other = written(folder.path(), "other.nk", &KeyPair::new_user().seed()?);
            let error = refused(&url, json!({ "nkey": other, "tls_ca": certificate("ca.pem") })).await;
            assert!(error.contains("authorization violation"), "{error}");
            let error = refused(&url, json!({ "nkey": seed, "tls_ca": certificate("other.pem") })).await;
            assert!(error.contains("certificate") && error.contains("check `tls_ca`"), "{error}");
            Ok(())
        })
        .await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn by_a_certificate_of_our_own() -> TestResult {
        in_time(async {
            let server = Nats::start_with(&tls(true))?;
            let ca = certificate("ca.pem");
            works(
                &server.url(),
                json!({ "tls_ca": ca, "tls_certificate": certificate("client.pem"), "tls_key": certificate("client.key") }),
            )
            .await?;
            let error = refused(&server.url(), json!({ "tls_ca": ca })).await;
            assert!(error.to_lowercase().contains("certificate"), "{error}");
            Ok(())
        })
        .await
    }

    /// A JWT as NATS signs them.
    fn token(by: &KeyPair, name: &str, subject: &KeyPair, claims: Value) -> String {
        let base64 = |bytes: &[u8]| {
            const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let mut text = String::new();
            for piece in bytes.chunks(3) {
                let bits = piece.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - piece.len()));
                text.extend((0..=piece.len()).map(|i| char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize])));
            }
            text
        };
        let body =
            json!({ "jti": name, "iat": 1_700_000_000, "iss": by.public_key(), "name": name, "sub": subject.public_key(), "nats": claims });
        let head = base64(json!({ "typ": "JWT", "alg": "ed25519-nkey" }).to_string().as_bytes());
        let signed = format!("{head}.{}", base64(body.to_string().as_bytes()));
        let signature = by.sign(signed.as_bytes()).expect("a pair with a seed signs");
        format!("{signed}.{}", base64(&signature))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn by_a_credentials_file() -> TestResult {
        in_time(async {
            let (operator, account, system, user) =
                (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_user());
            let limits = json!({ "subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1, "wildcards": true,
                "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1 });
            let of_account = |name: &str, pair: &KeyPair, limits: &Value| {
                token(&operator, name, pair, json!({ "type": "account", "version": 2, "limits": limits, "default_permissions": { "pub": {}, "sub": {} } }))
            };
            let mut none = limits.clone();
            for key in ["mem_storage", "disk_storage", "streams", "consumer"] {
                none[key] = 0.into();
            }
            let configuration = format!(
                "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}",
                token(&operator, "O", &operator, json!({ "type": "operator", "version": 2 })),
                system.public_key(),
                account.public_key(),
                of_account("A", &account, &limits),
                system.public_key(),
                of_account("SYS", &system, &none),
            );
            let server = Nats::start_with(&configuration)?;
            let jwt = token(&account, "u", &user, json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 }));
            let text = format!(
                "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
                user.seed()?
            );
            let folder = tempfile::tempdir()?;
            works(&server.url(), json!({ "credentials": written(folder.path(), "u.creds", &text) })).await?;
            let error = refused(&server.url(), json!({ "credentials": folder.path().join("absent") })).await;
            assert!(error.contains("absent") && error.contains("give `credentials` a file"), "{error}");
            Ok(())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_its_leader_loses_no_message() -> TestResult {
    in_time(async {
        let cluster = tokio::task::spawn_blocking(NatsCluster::start).await??;
        let urls = cluster.urls();
        let cluster = Arc::new(Mutex::new(cluster));
        let mut options = to(&urls[0], "REPLICAS");
        options["servers"] = json!(urls);
        options["replicas"] = 3.into();
        let mut writer = None;
        for _ in 0..120 {
            // A cluster with a leader may still find no peers for a stream.
            match sink(options.clone(), [&*FRAME]).await {
                Ok(opened) => {
                    writer = Some(opened);
                    break;
                }
                Err(error) => println!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let mut writer = writer.ok_or("no stream with three replicas can be made")?;
        let connection: Connection = serde_json::from_value(json!({ "servers": urls }))?;
        let js = connection.connect("test", Broken::Mended).await?;
        let (mut time, mut sent): (Time, u64) = (1, 0);
        let mut source = bounded(&urls[0], "REPLICAS");
        source["servers"] = json!(urls);
        source.as_object_mut().ok_or("an object")?.remove("end");
        let mut reader = open(source, None).await?;
        let mut found = Vec::new();
        for _ in 0..2 {
            let info: Value = loop {
                // Between leaders nobody knows.
                match js.request::<Value>("STREAM.INFO.REPLICAS", &Value::Null).await {
                    Ok(info) if info["cluster"]["leader"].is_string() => break info,
                    _ => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            };
            let leader = info["cluster"]["leader"].as_str().and_then(|name| name.strip_prefix('n')).ok_or("a leader")?.parse::<usize>()?;
            let killer = cluster.clone();
            let killed = tokio::task::spawn_blocking(move || {
                std::thread::sleep(Duration::from_millis(300));
                killer.lock().expect("no holder panics").kill(leader);
            });
            while !killed.is_finished() {
                writer.commit(epoch(time, time + 1), vec![(time, frame_batch(texts(sent..sent + 1_000)))]).await?;
                (time, sent) = (time + 1, sent + 1_000);
            }
            writer.commit(epoch(time, time + 1), vec![(time, frame_batch(texts(sent..sent + 1_000)))]).await?;
            (time, sent) = (time + 1, sent + 1_000);
            found.extend(read(&mut *reader, sent as usize - found.len()).await?.0);
            let again = cluster.clone();
            tokio::task::spawn_blocking(move || again.lock().expect("no holder panics").restart(leader)).await??;
        }
        assert_eq!(found.len() as u64, sent);
        let mut sorted: Vec<u64> = found.iter().map(|text| text[5..text.len() - 1].parse().unwrap_or(u64::MAX)).collect();
        let in_order = sorted.is_sorted();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..sent), "each frame once");
        println!("{sent} frames over 2 leaders; in order: {in_order}");
        Ok(())
    })
    .await
}

/// Simulated frames, captured or not, as tables.
fn pipeline(name: &str, source: &str, sink: &str) -> String {
    format!("name = \"{name}\"\n\n[sources.market]\n{source}\n\n{sink}\n")
}

const SIMULATOR: &str = r#"type = "simulator"
instruments = 1
frames = 20_000
faults = { sequence_gap = 0.001, malformed = 0.001, duplicate = 0.001 }"#;

const TABLES: &str = r#"[operators.records]
type = "normalise"
inputs = ["market"]

[sinks.cold]
type = "parquet"
inputs = ["records"]"#;

fn run(folder: &Path, name: &str, text: &str) {
    let file = folder.join(format!("{name}.toml"));
    std::fs::write(&file, text).expect("a temporary folder can be written");
    let data = folder.join(name);
    let arguments = ["run", file.to_str().expect("plain"), "--workers", "2", "--data", data.to_str().expect("plain")];
    let summary = marketprism(arguments).expect_success();
    assert!(summary.contains("the books balance"), "{summary}");
}

#[test]
fn captured_frames_make_the_tables_that_they_made_before() {
    let folder = tempfile::tempdir().unwrap();
    let url = SERVER.url();
    run(folder.path(), "direct", &pipeline("direct", SIMULATOR, TABLES));
    let capture = format!(
        "[sinks.capture]\ntype = \"nats\"\ninputs = [\"market\"]\nservers = \"{url}\"\nstream = \"CAPTURE\"\nprefix = \"capture\"\ncreate = true"
    );
    run(folder.path(), "capture", &pipeline("capture", SIMULATOR, &capture));
    let captured = format!("type = \"nats\"\nservers = \"{url}\"\nstream = \"CAPTURE\"\ndialect = \"binance_spot\"\nend = \"last\"");
    run(folder.path(), "captured", &pipeline("captured", &captured, TABLES));
    for table in ["trades", "quotes", "book_deltas", "book_snapshots"] {
        let all = |name: &str| rows(&folder.path().join(name), &format!("SELECT * FROM {table} ORDER BY frame, symbol"));
        let direct = all("direct");
        assert!(!direct.is_empty(), "{table}");
        assert!(direct == all("captured"), "{table}");
    }
    let letters = "SELECT reason, frame, receive_time, payload FROM dead_letters ORDER BY frame";
    assert_eq!(rows(&folder.path().join("direct"), letters), rows(&folder.path().join("captured"), letters));
}
