//! One SQL over hot and cold: rows on both sides of the boundary, with overlap, each counted exactly once; the cold
//! store in a bucket; and what others read of it.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use config::settings::{ColdStore, HotStore, Settings};
use config::values::Secret;
use model::kinds::{self, BAR, Bar, BarBuilder, TRADE, Trade, TradeBuilder};
use model::tables::{in_clickhouse, stored, stored_schema};
use model::time::{Micros, Time};
use model::{Batch, Decimal, Kind, Origin, Progress};
use query::{Engine, Tier};
use sinks::{Epoch, Writer};
use tempfile::TempDir;
use tests::servers::SeaweedFs;

use crate::awkward;
use crate::clickhouse::{SERVER, hot, open};

type TestResult = Result<(), Box<dyn Error>>;

/// 2024-08-08T12:00:00Z.
const NOON: Micros = 1_723_118_400_000_000;
const MINUTE: Micros = 60_000_000;

/// An S3 service; each test has a bucket of its own.
pub static BUCKETS: LazyLock<SeaweedFs> = LazyLock::new(|| SeaweedFs::start().unwrap_or_else(|error| panic!("{error}")));

/// A cold folder beside a hot database.
struct Tiers {
    folder: TempDir,
    settings: Settings,
}

impl Tiers {
    fn new(database: &str) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let settings = Settings { data: Some(folder.path().display().to_string()), hot: Some(hot(database)), ..Settings::default() };
        Ok(Tiers { folder, settings })
    }

    async fn writer(&self, sink: &str, kinds: &[&Arc<Kind>]) -> Result<Box<dyn Writer>, Box<dyn Error>> {
        Ok(open(sink, "{}", self.settings.clone(), kinds.iter().copied()).await?)
    }

    async fn rows(&self, sql: &str) -> Result<Vec<String>, Box<dyn Error>> {
        rows(&self.settings, sql).await
    }
}

/// The answer to a query, a text a row.
pub async fn rows(settings: &Settings, sql: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let mut rows = Vec::new();
    for batch in Engine::open(settings)?.sql(sql).await?.collect().await? {
        for row in 0..batch.num_rows() {
            let texts: Result<Vec<String>, _> = batch.columns().iter().map(|column| array_value_to_string(column, row)).collect();
            rows.push(texts?.join(" "));
        }
    }
    Ok(rows)
}

fn epoch(lower: Time, watermark: Micros) -> Epoch {
    Epoch { lower, upper: lower + 10, watermark, again: false }
}

/// Trades of two instruments, a minute apart.
fn trades(ids: std::ops::Range<i64>) -> Batch {
    let mut builder = TradeBuilder::default();
    for id in ids {
        builder.push(Trade {
            venue: "binance",
            market: "spot",
            symbol: if id % 2 == 0 { "BTC-USDT" } else { "ETH-USDT" },
            event_time: NOON + id * MINUTE,
            receive_time: None,
            frame: Some(id),
            trade_id: &id.to_string(),
            price: Decimal::from_integer(100 + id % 7),
            quantity: Decimal::from_units(1_000_000_000_001),
            contracts: None,
            side: if id % 3 == 0 { "buy" } else { "sell" },
            fills: 1,
            backfilled: Some(false),
        });
    }
    Batch::new(&TRADE, builder.finish(), Origin::default())
}

/// Bars: start in minutes from noon, number of trades, asserted (1) or taken back (-1).
fn bars(rows: &[(i64, i64, i8)]) -> Batch {
    let mut builder = BarBuilder::default();
    for (start, trades, _) in rows {
        let start = NOON + start * MINUTE;
        builder.push(Bar {
            venue: "binance",
            market: "spot",
            symbol: "BTC-USDT",
            interval_seconds: 60,
            start,
            end: start + MINUTE,
            open: Decimal::ONE,
            high: Decimal::ONE,
            low: Decimal::ONE,
            close: Decimal::ONE,
            volume: Decimal::ONE,
            quote_volume: Decimal::ONE,
            buy_volume: Decimal::ONE,
            sell_volume: Decimal::ZERO,
            trades: *trades,
            vwap: None,
            first_trade_id: "1",
            last_trade_id: "2",
            first_trade_time: start,
            last_trade_time: start,
            partial: false,
            late: false,
            gap: None,
        });
    }
    Batch::new(&BAR, builder.finish(), Origin::default()).with_diffs(rows.iter().map(|row| row.2).collect())
}

/// Hot has everything from the 200th minute on, cold has all up to the 3000th, but is complete only up to the 2500th.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_row_on_either_side_of_the_boundary_counts_once() -> TestResult {
    let tiers = Tiers::new("tiers_trades")?;
    let mut hot = tiers.writer("clickhouse", &[&TRADE]).await?;
    let mut cold = tiers.writer("parquet", &[&TRADE]).await?;
    for step in 0..10 {
        let ids = step * 400..(step + 1) * 400;
        let complete = NOON + ids.end.min(2_500) * MINUTE;
        hot.commit(epoch(step as Time * 10, complete), vec![(step as Time * 10, trades(ids.start.max(200)..ids.end))]).await?;
        if ids.start < 3_000 {
            cold.commit(epoch(step as Time * 10, complete), vec![(step as Time * 10, trades(ids.start..ids.end.min(3_000)))]).await?;
        }
    }

    assert_eq!(tiers.rows("SELECT count(*), count(DISTINCT trade_id), sum(frame) FROM trades").await?, ["4000 4000 7998000"]);
    // Whatever a query asks for, it is the same as of the rows themselves.
    let own: Vec<i64> = (0..4_000).collect();
    let count = |of: &dyn Fn(i64) -> bool| own.iter().filter(|id| of(**id)).count().to_string();
    let at = |minute: i64| model::time::display(NOON + minute * MINUTE);
    for (filter, of) in [
        ("symbol = 'ETH-USDT'".to_owned(), Box::new(|id: i64| id % 2 == 1) as Box<dyn Fn(i64) -> bool>),
        ("price = 103 AND side = 'buy'".to_owned(), Box::new(|id| id % 7 == 3 && id % 3 == 0)),
        (format!("event_time >= '{}' AND event_time < '{}'", at(2_400), at(2_600)), Box::new(|id| (2_400..2_600).contains(&id))),
        (format!("event_time >= '{}'", at(2_499)), Box::new(|id| id >= 2_499)),
        (format!("event_time < '{}'", at(2_501)), Box::new(|id| id < 2_501)),
        (format!("event_time < '{}'", at(10)), Box::new(|id| id < 10)),
        (
            "trade_id IN ('0', '199', '200', '2499', '2500', '2999', '3000', '3999', '4000')".to_owned(),
            Box::new(|id| [0, 199, 200, 2_499, 2_500, 2_999, 3_000, 3_999].contains(&id)),
        ),
        ("price * quantity > 105 OR symbol LIKE '%nothing%'".to_owned(), Box::new(|id| id % 7 >= 5)),
        ("NOT (frame BETWEEN 100 AND 3900)".to_owned(), Box::new(|id| !(100..=3_900).contains(&id))),
        ("receive_time IS NOT NULL".to_owned(), Box::new(|_| false)),
    ] {
        let sql = format!("SELECT count(*) FROM trades WHERE {filter}");
        assert_eq!(tiers.rows(&sql).await?, [count(&*of)], "{sql}");
    }
    assert_eq!(tiers.rows("SELECT trade_id FROM trades ORDER BY event_time DESC LIMIT 2").await?, ["3999", "3998"]);
    assert_eq!(tiers.rows("SELECT 1 FROM trades LIMIT 3700").await?.len(), 3_700);
    assert_eq!(tiers.rows("SELECT count(*) FROM trades a JOIN trades b USING (trade_id)").await?, ["4000"]);

    let info = Engine::open(&tiers.settings)?.tables().await?.remove(0);
    assert_eq!((info.tiers.as_slice(), info.boundary), ([Tier::Cold, Tier::Hot].as_slice(), Some(NOON + 2_500 * MINUTE)));
    assert_eq!((info.cold_rows, info.hot_rows), (Some(3_000), Some(3_800)));

    // What is behind the boundary may go from hot, as its retention does.
    SERVER.query("ALTER TABLE tiers_trades.trades DROP PARTITION '2024-08-08'");
    assert_eq!(tiers.rows("SELECT count(*), count(DISTINCT trade_id), sum(frame) FROM trades").await?, ["4000 4000 7998000"]);

    // The end of the stream completes cold, and nothing is taken twice.
    cold.commit(epoch(75, Progress::END), vec![(80, trades(3_000..4_000))]).await?;
    cold.close().await?;
    hot.close().await?;
    assert_eq!(tiers.rows("SELECT count(*), count(DISTINCT trade_id), sum(frame) FROM trades").await?, ["4000 4000 7998000"]);
    SERVER.query("TRUNCATE TABLE tiers_trades.trades");
    assert_eq!(tiers.rows("SELECT count(*) FROM trades").await?, ["4000"]);
    drop(tiers.folder);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revised_bar_appears_once_on_either_side() -> TestResult {
    let tiers = Tiers::new("tiers_bars")?;
    let mut hot = tiers.writer("clickhouse", &[&BAR]).await?;
    let mut cold = tiers.writer("parquet", &[&BAR]).await?;
    let steps: [(&[(i64, i64, i8)], i64); 4] = [
        (&[(0, 1, 1), (1, 1, 1), (2, 1, 1)], 2),
        (&[(0, 1, -1), (0, 2, 1), (3, 1, 1), (4, 1, 1)], 3),
        (&[(1, 1, -1), (3, 1, -1), (3, 2, 1), (5, 9, 1)], 4),
        (&[(4, 1, -1), (5, 9, -1), (5, 8, 1), (6, 1, 1)], 4),
    ];
    for (step, (changes, complete)) in (0..).zip(steps) {
        for writer in [&mut hot, &mut cold] {
            writer.commit(epoch(step * 10, NOON + complete * MINUTE), vec![(step * 10 + 1, bars(changes))]).await?;
        }
    }
    let newest =
        ["2024-08-08T12:00:00Z 2", "2024-08-08T12:02:00Z 1", "2024-08-08T12:03:00Z 2", "2024-08-08T12:05:00Z 8", "2024-08-08T12:06:00Z 1"];
    assert_eq!(tiers.rows("SELECT start, trades FROM bars ORDER BY start").await?, newest);
    assert_eq!(tiers.rows("SELECT count(*), sum(trades) FROM bars").await?, ["5 14"]);
    assert_eq!(
        tiers.rows("SELECT start FROM bars WHERE trades = 9 OR trades = 1 AND start < '2024-08-08T12:02:00Z'").await?,
        Vec::<String>::new()
    );
    cold.close().await?;
    SERVER.query("OPTIMIZE TABLE tiers_bars.bars FINAL");
    assert_eq!(tiers.rows("SELECT start, trades FROM bars ORDER BY start").await?, newest, "merging changes no answer");
    Ok(())
}

/// A million rows are hundreds of buffers from the network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_from_hot_is_complete() -> TestResult {
    let tiers = Tiers::new("tiers_long")?;
    let mut hot = tiers.writer("clickhouse", &[&TRADE]).await?;
    hot.commit(epoch(0, Micros::MIN), vec![(1, trades(0..1))]).await?;
    SERVER.query(&format!(
        "INSERT INTO tiers_long.trades (venue, market, symbol, event_time, trade_id, price, quantity, side, fills, frame)
         SELECT 'binance', 'spot', 'BTC-USDT', fromUnixTimestamp64Micro({NOON} + toInt64(number), 'UTC'), toString(number), 1.5, 2, 'buy', 1, number
         FROM numbers(1, 999999) SETTINGS max_partitions_per_insert_block = 0"
    ));
    let mut answer = Engine::open(&tiers.settings)?.sql("SELECT * FROM trades").await?;
    let (mut count, mut sum) = (0, 0);
    while let Some(batch) = answer.next().await? {
        count += batch.num_rows();
        sum += batch.column_by_name("frame").ok_or("no frame")?.as_primitive::<arrow::datatypes::Int64Type>().values().iter().sum::<i64>();
    }
    assert_eq!((count, sum), (1_000_000, 499_999_500_000));
    assert_eq!(tiers.rows("SELECT count(*) FROM trades").await?, ["1000000"]);
    Ok(())
}

/// Rows as comparable bytes, in an order of their own.
fn sorted(rows: &RecordBatch) -> Result<Vec<OwnedRow>, Box<dyn Error>> {
    let fields = rows.columns().iter().map(|c| SortField::new(c.data_type().clone())).collect();
    let mut sorted: Vec<OwnedRow> = RowConverter::new(fields)?.convert_columns(rows.columns())?.iter().map(|row| row.owned()).collect();
    sorted.sort();
    Ok(sorted)
}

async fn every_kind_is_read_as_it_was_written(settings: Settings, sink: &str) -> TestResult {
    for kind in kinds::all().into_iter().filter(|kind| if sink == "clickhouse" { in_clickhouse(kind) } else { kind.table.is_some() }) {
        let mut writer = open(sink, "{}", settings.clone(), [kind].into_iter()).await?;
        let batch = awkward::rows(kind);
        let written = stored(&batch, 1)?;
        writer.commit(epoch(0, Micros::MIN), vec![(1, batch)]).await?;
        writer.close().await?;

        let name = kind.table.as_deref().unwrap_or_default();
        let answer = Engine::open(&settings)?.sql(&format!("SELECT * FROM {name}")).await?;
        let (schema, batches) = (answer.schema(), answer.collect().await?);
        let read = concat_batches(&schema, &batches)?;
        for (index, column) in kind.columns.iter().enumerate() {
            let wanted = stored_schema(kind).field(index).data_type().clone();
            let own = written.project(&[index])?;
            let came = RecordBatch::try_from_iter_with_nullable([(column.name.as_ref(), cast(read.column(index), &wanted)?, true)])?;
            assert_eq!(sorted(&came)?, sorted(&own)?, "column `{}` of `{}` through `{sink}`", column.name, kind.name);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_is_read_from_cold_as_it_was_written() -> TestResult {
    let folder = tempfile::tempdir()?;
    every_kind_is_read_as_it_was_written(Settings { data: Some(folder.path().display().to_string()), ..Settings::default() }, "parquet")
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_is_read_from_hot_as_it_was_written() -> TestResult {
    let tiers = Tiers::new("tiers_kinds")?;
    every_kind_is_read_as_it_was_written(tiers.settings.clone(), "clickhouse").await
}

/// Settings of a cold store in a bucket.
pub fn bucket(name: &str) -> Settings {
    let cold = ColdStore {
        url: Some(format!("s3://{name}/market-data")),
        endpoint: Some(BUCKETS.s3_url()),
        region: None,
        access_key: Some(Secret::new(SeaweedFs::ACCESS_KEY)),
        secret_key: Some(Secret::new(SeaweedFs::SECRET_KEY)),
    };
    Settings { cold, ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_holds_what_a_folder_holds() -> TestResult {
    BUCKETS.create_bucket("tiers")?;
    let settings = bucket("tiers");
    let mut writer = open("parquet", "{}", settings.clone(), [&*TRADE, &*BAR].into_iter()).await?;
    for step in 0..12_i64 {
        let time = step as Time * 10;
        let batches = || vec![(time, trades(step * 50..(step + 1) * 50)), (time, bars(&[(step % 3, step, 1)]))];
        writer.commit(epoch(time, NOON), batches()).await?;
        // As after a crash between the commit and its being noted.
        let mut again = open("parquet", "{}", settings.clone(), [&*TRADE, &*BAR].into_iter()).await?;
        again.commit(epoch(time, NOON), batches()).await?;
    }
    writer.close().await?;
    assert_eq!(rows(&settings, "SELECT count(*), count(DISTINCT trade_id), sum(frame) FROM trades").await?, ["600 600 179700"]);
    assert_eq!(
        rows(&settings, "SELECT start, trades FROM bars ORDER BY 1").await?,
        ["2024-08-08T12:00:00Z 9", "2024-08-08T12:01:00Z 10", "2024-08-08T12:02:00Z 11"]
    );

    // ClickHouse reads the table by itself.
    let table =
        format!("deltaLake('{}/tiers/market-data/trades/', '{}', '{}')", BUCKETS.s3_url(), SeaweedFs::ACCESS_KEY, SeaweedFs::SECRET_KEY);
    assert_eq!(
        SERVER.query(&format!("SELECT count(), sum(frame), sum(price) = {} FROM {table}", (0..600).map(|id| 100 + id % 7).sum::<i64>())),
        "600\t179700\t1"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_one_bucket_lose_and_double_nothing() -> TestResult {
    BUCKETS.create_bucket("tiers-race")?;
    let settings = bucket("tiers-race");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        // The same pipeline three times over, as when an old process has not noticed that it was replaced.
        let settings = settings.clone();
        tasks.spawn(async move {
            let mut writer = open("parquet", "{}", settings, [&*TRADE].into_iter()).await.map_err(|e| e.to_string())?;
            for step in 0..8_i64 {
                let time = step as Time * 10;
                writer.commit(epoch(time, NOON + step), vec![(time, trades(step * 5..(step + 1) * 5))]).await.map_err(|e| e.to_string())?;
            }
            Ok::<(), String>(())
        });
    }
    for result in tasks.join_all().await {
        result?;
    }
    assert_eq!(rows(&settings, "SELECT count(*), count(DISTINCT trade_id) FROM trades").await?, ["40 40"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_refuse_or_are_not_there_are_told_with_a_remedy() -> TestResult {
    let mut wrong = bucket("tiers-refused");
    wrong.cold.secret_key = Some(Secret::new("wrong"));
    let refused = rows(&wrong, "SELECT 1").await.expect_err("a wrong key").to_string();
    assert!(refused.contains("cold.secret_key"), "{refused}");
    let refused = open("parquet", "{}", bucket("no-such-bucket"), [&*TRADE].into_iter()).await.err().ok_or("no such bucket")?.to_string();
    assert!(refused.contains("create the bucket"), "{refused}");

    let folder = tempfile::tempdir()?;
    let settings = |hot: HotStore| Settings { data: Some(folder.path().display().to_string()), hot: Some(hot), ..Settings::default() };
    let away = settings(HotStore { url: "http://127.0.0.1:9".into(), ..hot("tiers_away") });
    let error = rows(&away, "SELECT 1").await.expect_err("nobody there").to_string();
    assert!(error.contains("127.0.0.1:9") && error.contains("hot.url"), "{error}");
    let stranger = settings(HotStore { password: Secret::new("wrong"), ..hot("tiers_away") });
    let error = rows(&stranger, "SELECT 1").await.expect_err("a wrong password").to_string();
    assert!(error.contains("hot.password") && !error.contains("wrong"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_only_hot_has_is_a_table() -> TestResult {
    let tiers = Tiers::new("tiers_hot_only")?;
    let mut hot = tiers.writer("clickhouse", &[&TRADE, &BAR]).await?;
    hot.commit(epoch(0, NOON), vec![(1, trades(0..10)), (2, bars(&[(0, 1, 1)])), (3, bars(&[(0, 1, -1), (0, 4, 1)]))]).await?;
    assert_eq!(tiers.rows("SELECT symbol, count(*) FROM trades GROUP BY ALL ORDER BY 1").await?, ["BTC-USDT 5", "ETH-USDT 5"]);
    assert_eq!(tiers.rows("SELECT trades FROM bars").await?, ["4"]);
    let names: BTreeMap<String, Vec<Tier>> =
        Engine::open(&tiers.settings)?.tables().await?.into_iter().map(|t| (t.name, t.tiers)).collect();
    assert_eq!(names, BTreeMap::from([("bars".to_owned(), vec![Tier::Hot]), ("trades".to_owned(), vec![Tier::Hot])]));
    Ok(())
}
