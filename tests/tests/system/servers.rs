//! The test servers themselves: what the other tests take for granted about them.
//!
//! The ClickHouse half is at the same time a test of the project's own HTTP interface over the engine, by
//! the client that the sinks and queries use.

use std::error::Error;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::buffer::Buffer;
use arrow::compute::sum;
use arrow::datatypes::UInt64Type;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use clickhouse::{Client, Compression, Row};
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use serde::{Deserialize, Serialize};
use tests::servers::{ClickHouse, SeaweedFs};

type TestResult = Result<(), Box<dyn Error>>;

/// The server of all tests that do not stop it; each has tables of its own.
static CLICKHOUSE: LazyLock<ClickHouse> = LazyLock::new(|| ClickHouse::start().unwrap_or_else(|error| panic!("{error}")));

fn client() -> Client {
    Client::default().with_url(CLICKHOUSE.url())
}

#[derive(Debug, PartialEq, Row, Serialize, Deserialize)]
struct Trade {
    id: u64,
    symbol: String,
    /// Twelve fraction digits.
    price: i128,
    /// Microseconds.
    event_time: i64,
}

impl Trade {
    fn numbered(id: u64) -> Self {
        Self {
            id,
            symbol: format!("SYM-{}", id % 100),
            price: i128::from(id) * 1_000_000_000_001,
            event_time: 1_700_000_000_000_000 + id as i64,
        }
    }
}

fn create_trades(table: &str) {
    CLICKHOUSE.query(&format!(
        "CREATE TABLE {table} (id UInt64, symbol LowCardinality(String), price Decimal(38, 12), event_time DateTime64(6, 'UTC')) \
         ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100"
    ));
}

/// The rows `ids` of a trades table (without their times) as one Arrow stream.
fn arrow_stream(ids: std::ops::Range<u64>) -> Result<Bytes, Box<dyn Error>> {
    let id: ArrayRef = Arc::new(UInt64Array::from_iter_values(ids.clone()));
    let symbol: ArrayRef = Arc::new(StringArray::from_iter_values(ids.map(|id| format!("SYM-{}", id % 100))));
    stream_of(RecordBatch::try_from_iter([("id", id), ("symbol", symbol)])?)
}

fn stream_of(batch: RecordBatch) -> Result<Bytes, Box<dyn Error>> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?.into())
}

async fn insert_arrow(client: &Client, table: &str, stream: Bytes) -> clickhouse::error::Result<()> {
    let mut insert = client.insert_formatted_with(format!("INSERT INTO {table} FORMAT ArrowStream")).with_setting("async_insert", "0");
    insert.send(stream).await?;
    insert.end().await
}

/// Waits until so many inserts into a table are under way.
async fn until_inserting(table: &str, count: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while CLICKHOUSE.query(&format!("SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO {table}%'")) != count {
        assert!(Instant::now() < deadline, "there should be {count} inserts into {table}");
        tokio::task::yield_now().await;
    }
}

/// The server's words, which name the error.
fn refusal(result: clickhouse::error::Result<()>) -> String {
    match result {
        Err(clickhouse::error::Error::BadResponse(text)) => text,
        other => panic!("expected the server's refusal, not {other:?}"),
    }
}

#[tokio::test]
async fn a_million_typed_rows_come_back_as_they_were() -> TestResult {
    const ROWS: u64 = 1_000_000;
    create_trades("typed");
    let client = client();

    let mut insert = client.insert::<Trade>("typed").await?.with_setting("async_insert", "0");
    for id in 0..ROWS {
        insert.write(&Trade::numbered(id)).await?;
    }
    insert.end().await?;
    assert_eq!(CLICKHOUSE.query("SELECT count(), sum(id), max(price) FROM typed"), "1000000\t499999500000\t999999.000000999999");

    let mut cursor = client.query("SELECT ?fields FROM typed ORDER BY id").fetch::<Trade>()?;
    let mut expected = 0;
    while let Some(trade) = cursor.next().await? {
        assert_eq!(trade, Trade::numbered(expected));
        expected += 1;
    }
    assert_eq!(expected, ROWS);
    Ok(())
}

#[tokio::test]
async fn an_arrow_select_is_one_whole_stream() -> TestResult {
    const ROWS: u64 = 300_000;
    let mut cursor = client()
        .query("SELECT number AS id, toString(number) AS text FROM numbers({rows:UInt64}) ORDER BY id")
        .param("rows", ROWS)
        .fetch_bytes("ArrowStream")?;

    let mut decoder = StreamDecoder::new();
    let (mut rows, mut total, mut network_buffers) = (0, 0, 0);
    while let Some(bytes) = cursor.next().await? {
        network_buffers += 1;
        let mut buffer = Buffer::from(bytes);
        while !buffer.is_empty() {
            if let Some(batch) = decoder.decode(&mut buffer)? {
                rows += batch.num_rows() as u64;
                total += sum(batch["id"].as_primitive::<UInt64Type>()).unwrap_or_default();
            }
        }
    }
    decoder.finish()?;
    assert_eq!((rows, total), (ROWS, ROWS * (ROWS - 1) / 2));
    assert!(network_buffers > 1, "the answer must be larger than one network buffer to prove anything");
    Ok(())
}

#[tokio::test]
async fn an_arrow_stream_is_inserted_once_per_token() -> TestResult {
    create_trades("tokens");
    let first = client().with_setting("insert_deduplication_token", "pipeline/0");
    let second = client().with_setting("insert_deduplication_token", "pipeline/1");

    insert_arrow(&first, "tokens", arrow_stream(0..1000)?).await?;
    insert_arrow(&first, "tokens", arrow_stream(0..1000)?).await?;
    assert_eq!(CLICKHOUSE.query("SELECT count(), uniqExact(symbol), sum(id) FROM tokens"), "1000\t100\t499500");

    insert_arrow(&second, "tokens", arrow_stream(0..1000)?).await?;
    assert_eq!(CLICKHOUSE.query("SELECT count() FROM tokens"), "2000");
    Ok(())
}

#[tokio::test]
async fn rows_with_the_bytes_of_an_empty_line_are_not_the_end_of_an_insert() -> TestResult {
    create_trades("empty_lines");
    let ids = || [0x0A0A_0A0A_0A0A_0A0A, 0x0A0A].into_iter().chain(0..0x0C00);
    let expected = format!("{}\t{}", ids().count(), ids().fold(0, u64::wrapping_add));

    for compression in [Compression::Lz4, Compression::None] {
        for validation in [false, true] {
            CLICKHOUSE.query("TRUNCATE TABLE empty_lines");
            let client = client().with_compression(compression).with_validation(validation);
            let mut insert = client.insert::<Trade>("empty_lines").await?;
            for id in ids() {
                insert.write(&Trade { price: 0x0A0A, symbol: "\n\n".to_owned(), event_time: 0x0A0A, id }).await?;
            }
            insert.end().await?;
            assert_eq!(CLICKHOUSE.query("SELECT count(), sum(id) FROM empty_lines"), expected, "{compression:?}, validation {validation}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn self_describing_formats_are_inserted() -> TestResult {
    create_trades("formats");
    for format in ["Native", "RowBinaryWithNamesAndTypes", "JSONEachRow", "Parquet", "CSVWithNames"] {
        CLICKHOUSE.query("TRUNCATE TABLE formats");
        let select = "SELECT number AS id, toLowCardinality('\n\n') AS symbol, toDecimal128(number, 12) AS price, \
                      toDateTime64(number, 6, 'UTC') AS event_time FROM numbers(100000)";
        let rows = client().query(select).fetch_bytes(format)?.collect().await?;
        let mut insert = client().insert_formatted_with(format!("INSERT INTO formats FORMAT {format}"));
        insert.send(rows).await?;
        insert.end().await?;
        assert_eq!(
            CLICKHOUSE.query("SELECT count(), sum(id), countIf(symbol = '\n\n') FROM formats"),
            "100000\t4999950000\t100000",
            "{format}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_abandoned_insert_stores_nothing() -> TestResult {
    create_trades("abandoned");
    let mut insert = client().insert_formatted_with("INSERT INTO abandoned(id) FORMAT CSV");
    insert.send(Bytes::from_static(b"1\n2\n")).await?;
    until_inserting("abandoned", "1").await;
    drop(insert);
    until_inserting("abandoned", "0").await;
    assert_eq!(CLICKHOUSE.query("SELECT count() FROM abandoned"), "0");
    Ok(())
}

#[tokio::test]
async fn errors_are_those_of_the_engine() -> TestResult {
    create_trades("strict");
    let client = client();

    let missing = refusal(client.query("SELECT * FROM missing").execute().await);
    assert!(missing.starts_with("Code: 60.") && missing.contains("(UNKNOWN_TABLE)"), "{missing}");
    let missing = refusal(insert_arrow(&client, "missing", arrow_stream(0..100_000)?).await);
    assert!(missing.contains("(UNKNOWN_TABLE)"), "{missing}");
    let setting = refusal(client.query("SELECT 1").with_setting("no_such_setting", "1").execute().await);
    assert!(setting.contains("(UNKNOWN_SETTING)"), "{setting}");
    let script = refusal(client.query("SELECT 1; SELECT 2").execute().await);
    assert!(script.contains("(SYNTAX_ERROR)"), "{script}");
    let session = refusal(client.query("SELECT 1").with_setting("session_id", "1").execute().await);
    assert!(session.contains("(NOT_IMPLEMENTED)"), "{session}");
    let failing = refusal(client.query("SELECT throwIf(number = 99999) FROM numbers(100000)").execute().await);
    assert!(failing.starts_with("Code: 395."), "{failing}");
    Ok(())
}

#[tokio::test]
async fn rows_of_another_schema_are_refused() -> TestResult {
    #[derive(Row, Serialize)]
    struct Wrong {
        id: String,
    }
    CLICKHOUSE.query("CREATE TABLE schema (id UInt64) ENGINE = MergeTree ORDER BY id");
    // Without it the engine fills columns that an Arrow stream lacks with defaults.
    let client = client().with_setting("input_format_arrow_allow_missing_columns", "0");

    let mut insert = client.insert::<Wrong>("schema").await?;
    let typed = insert.write(&Wrong { id: "x".to_owned() }).await;
    assert!(matches!(typed, Err(clickhouse::error::Error::SchemaMismatch(_))), "{typed:?}");

    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let stream = stream_of(RecordBatch::try_from_iter([("id", text)])?)?;
    let refused = refusal(insert_arrow(&client, "schema", stream).await);
    assert!(refused.starts_with("Code: 6."), "{refused}");

    let other: ArrayRef = Arc::new(UInt64Array::from(vec![1]));
    let stream = stream_of(RecordBatch::try_from_iter([("other", other)])?)?;
    let refused = refusal(insert_arrow(&client, "schema", stream).await);
    assert!(refused.contains("(THERE_IS_NO_COLUMN)"), "{refused}");

    assert_eq!(CLICKHOUSE.query("SELECT count() FROM schema"), "0");
    Ok(())
}

#[tokio::test]
async fn requests_run_in_parallel() -> TestResult {
    create_trades("parallel");
    let inserts = (0..16u64).map(|part| async move {
        insert_arrow(&client(), "parallel", arrow_stream(part * 1000..(part + 1) * 1000)?).await?;
        client().query("SELECT count() FROM parallel").fetch_one::<u64>().await?;
        Ok::<_, Box<dyn Error>>(())
    });
    futures::future::try_join_all(inserts).await?;
    assert_eq!(CLICKHOUSE.query("SELECT count(), sum(id) FROM parallel"), "16000\t127992000");
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_is_refused() -> TestResult {
    let server = ClickHouse::start_with("writer", "secret")?;
    let writer = Client::default().with_url(server.url()).with_user("writer");
    assert_eq!(writer.clone().with_password("secret").query("SELECT 7").fetch_one::<u8>().await?, 7);
    assert_eq!(server.query("SELECT 7"), "7");
    for other in [writer.clone(), writer.clone().with_password("wrong"), writer.with_user("reader").with_password("secret")] {
        let refused = refusal(other.query("SELECT 7").execute().await);
        assert!(refused.starts_with("Code: 516."), "{refused}");
    }
    Ok(())
}

#[tokio::test]
async fn acknowledged_rows_survive_a_kill() -> TestResult {
    let mut server = ClickHouse::start()?;
    let client = Client::default().with_url(server.url());
    server.query("CREATE TABLE kept (id UInt64, symbol String) ENGINE = MergeTree ORDER BY id");
    insert_arrow(&client, "kept", arrow_stream(0..100_000)?).await?;

    server.kill();
    assert!(client.query("SELECT 1").execute().await.is_err(), "a killed server does not answer");
    server.restart()?;
    assert_eq!(client.query("SELECT count() FROM kept").fetch_one::<u64>().await?, 100_000);
    Ok(())
}

#[tokio::test]
async fn s3_writes_are_conditional() -> TestResult {
    let mut server = SeaweedFs::start()?;
    server.create_bucket("cold")?;
    let bucket = |name: &str| {
        AmazonS3Builder::new()
            .with_endpoint(server.s3_url())
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id(SeaweedFs::ACCESS_KEY)
            .with_secret_access_key(SeaweedFs::SECRET_KEY)
            .with_bucket_name(name)
            .build()
    };
    let store = bucket("cold")?;
    let other = bucket("other")?;
    let log = Path::from("table/_delta_log/00000000000000000000.json");
    let create = || PutOptions::from(PutMode::Create);

    let first = store.put_opts(&log, "first".into(), create()).await?;
    let second = store.put_opts(&log, "second".into(), create()).await;
    assert!(matches!(second, Err(object_store::Error::AlreadyExists { .. })), "{second:?}");
    let unknown = other.put(&log, "no such bucket".into()).await;
    assert!(unknown.is_err(), "{unknown:?}");

    let version = UpdateVersion { e_tag: first.e_tag, version: first.version };
    store.put_opts(&log, "third".into(), PutMode::Update(version.clone()).into()).await?;
    let stale = store.put_opts(&log, "fourth".into(), PutMode::Update(version).into()).await;
    assert!(matches!(stale, Err(object_store::Error::Precondition { .. })), "{stale:?}");

    server.kill();
    server.restart()?;
    assert_eq!(store.get(&log).await?.bytes().await?, "third");
    store.put(&Path::from("table/part.parquet"), vec![7; 3 << 20].into()).await?;
    let listed: Vec<_> =
        store.list(Some(&Path::from("table"))).map_ok(|object| (object.location.to_string(), object.size)).try_collect().await?;
    assert_eq!(listed, [(log.to_string(), 5), ("table/part.parquet".to_owned(), 3 << 20)]);
    Ok(())
}
