//! The sink against real tables in a folder, read back with Delta's own reader.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::util::display::array_value_to_string;
use datafusion::prelude::SessionContext;
use deltalake_core::DeltaTable;
use model::kinds::{BAR, DEAD_LETTER, DeadLetter, DeadLetterBuilder, QUOTE, Quote, QuoteBuilder, TRADE};
use model::time::Micros;
use model::{Batch, Kind, Origin, Progress};
use storage::ColdStore;
use tempfile::TempDir;

use super::*;
use crate::testing::{NOON, bar, bars, opening, trades, words};

/// A folder with a sink that writes into it.
struct Cold {
    folder: TempDir,
    options: String,
}

impl Cold {
    fn new() -> Self {
        Self::with("")
    }

    fn with(options: &str) -> Self {
        Cold { folder: tempfile::tempdir().expect("a temporary folder"), options: options.to_owned() }
    }

    fn store(&self) -> ColdStore {
        ColdStore::open(&self.folder.path().display().to_string(), &Default::default()).expect("opens")
    }

    fn sink(&self, kinds: &[&Arc<Kind>]) -> Arc<dyn Sink> {
        let kinds: Vec<Arc<Kind>> = kinds.iter().map(|k| (*k).clone()).collect();
        let options = format!("url = '{}'\n{}", self.folder.path().display(), self.options);
        config::component::<dyn Sink, Parquet>(&options, &kinds).expect("checks").component
    }

    async fn open(&self, kinds: &[&Arc<Kind>]) -> Box<dyn Writer> {
        self.sink(kinds).open(opening(kinds)).await.expect("opens")
    }

    async fn table(&self, name: &str) -> DeltaTable {
        self.store().load(name).await.expect("loads").expect("exists")
    }

    async fn boundary(&self, name: &str) -> Option<Micros> {
        storage::table::boundary(&self.table(name).await).await.expect("reads")
    }

    /// The rows of a table as text, in order.
    async fn rows(&self, sql: &str) -> Vec<String> {
        let context = SessionContext::new();
        for name in self.store().tables().await.expect("lists") {
            let provider = self.table(&name).await.table_provider().await.expect("a provider");
            context.register_table(name.as_str(), provider).expect("registers");
        }
        let batches = context.sql(sql).await.expect(sql).collect().await.expect(sql);
        batches.iter().flat_map(texts).collect()
    }

    async fn files(&self, name: &str) -> usize {
        self.table(name).await.snapshot().expect("loaded").log_data().num_files()
    }
}

fn texts(rows: &RecordBatch) -> Vec<String> {
    let text = |row| rows.columns().iter().map(|c| array_value_to_string(c, row).expect("displays")).collect::<Vec<_>>().join(" ");
    (0..rows.num_rows()).map(text).collect()
}

fn epoch(lower: u64, upper: u64, watermark: Micros) -> Epoch {
    Epoch { lower, upper, watermark, again: false }
}

const ALL: &str = "SELECT trade_id, price FROM trades ORDER BY event_time, trade_id";

#[tokio::test]
async fn rows_are_read_back_as_they_were_written() {
    let cold = Cold::new();
    let mut writer = cold.open(&[&TRADE]).await;
    writer.commit(epoch(0, 10, NOON), vec![(3, trades(&[(2, NOON + 5), (1, NOON)]))]).await.expect("commits");
    writer
        .commit(epoch(10, 20, NOON + 50), vec![(12, trades(&[(3, NOON + 9)])), (13, trades(&[(4, NOON + 86_400_000_000)]))])
        .await
        .expect("commits");
    writer.close().await.expect("closes");
    assert_eq!(cold.rows(ALL).await, ["1 61837.630000000001", "2 61837.630000000002", "3 61837.630000000003", "4 61837.630000000004"]);
    assert_eq!(
        cold.rows("SELECT date, venue, count(*) FROM trades GROUP BY 1, 2 ORDER BY 1").await,
        ["2024-08-08 binance 3", "2024-08-09 binance 1"]
    );
}

#[tokio::test]
async fn an_epoch_committed_twice_changes_nothing() {
    let cold = Cold::new();
    let rows = || vec![(3, trades(&[(1, NOON), (2, NOON + 5)]))];
    let mut writer = cold.open(&[&TRADE]).await;
    writer.commit(epoch(0, 10, NOON), rows()).await.expect("commits");
    writer.commit(epoch(0, 10, NOON), rows()).await.expect("commits again");
    // As after a crash, when nobody remembers.
    let mut writer = cold.open(&[&TRADE]).await;
    writer.commit(epoch(0, 10, NOON), rows()).await.expect("commits again");
    assert_eq!(cold.rows(ALL).await.len(), 2);
    assert_eq!(cold.table("trades").await.version(), Some(1));
    // A later one does.
    writer.commit(epoch(10, 20, NOON), vec![(11, trades(&[(3, NOON)]))]).await.expect("commits");
    assert_eq!(cold.rows(ALL).await.len(), 3);
}

#[tokio::test]
async fn a_writer_that_outlived_its_successor_doubles_nothing() {
    let cold = Cold::new();
    let rows = || vec![(3, trades(&[(1, NOON), (2, NOON + 5)]))];
    let mut old = cold.open(&[&TRADE]).await;
    let mut new = cold.open(&[&TRADE]).await;
    new.commit(epoch(0, 10, NOON), rows()).await.expect("commits");
    old.commit(epoch(0, 10, NOON), rows()).await.expect("finds it committed");
    assert_eq!(cold.rows(ALL).await.len(), 2);
}

#[tokio::test]
async fn shards_commit_side_by_side() {
    let cold = Cold::new();
    let sink = cold.sink(&[&TRADE]);
    let mut shards = Vec::new();
    for shard in 0..4 {
        let cx = OpenSink { shard, ..opening(&[&TRADE]) };
        shards.push(sink.open(cx).await.expect("opens"));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (shard, mut writer) in (0_i64..).zip(shards) {
        tasks.spawn(async move {
            for step in 0..15_i64 {
                let rows = trades(&[(1_000 * shard + step, NOON + step)]);
                let upper = 10 * (step as u64 + 1);
                writer.commit(epoch(upper - 10, upper, NOON + step), vec![(upper - 5, rows)]).await.expect("commits");
            }
            writer.close().await.expect("closes");
        });
    }
    tasks.join_all().await;
    assert_eq!(cold.rows("SELECT count(*), count(DISTINCT trade_id) FROM trades").await, ["60 60"]);
    assert_eq!(cold.boundary("trades").await, Some(NOON + 14));
}

#[tokio::test]
async fn the_boundary_is_the_watermark_but_not_beyond_the_last_row_and_never_moves_back() {
    let cold = Cold::new();
    let mut writer = cold.open(&[&TRADE]).await;
    let mut upper = 0;
    for (watermark, rows, expected) in [
        (Micros::MIN, vec![(1, NOON)], None),
        (NOON - 100, vec![(2, NOON + 10)], Some(NOON - 100)),
        (NOON + 5, vec![(3, NOON + 2)], Some(NOON + 5)),
        (NOON + 500, vec![(4, NOON + 4)], Some(NOON + 11)),
        (NOON - 900, vec![(5, NOON + 3)], Some(NOON + 11)),
        (NOON + 501, vec![], Some(NOON + 11)),
        (NOON + 501, vec![(6, NOON + 900)], Some(NOON + 501)),
        (Progress::END, vec![], Some(NOON + 901)),
    ] {
        let batches = if rows.is_empty() { vec![] } else { vec![(upper, trades(&rows))] };
        writer.commit(epoch(upper, upper + 10, watermark), batches).await.expect("commits");
        assert_eq!(cold.boundary("trades").await, expected, "after the epoch from {upper}");
        upper += 10;
    }
    // Through checkpoints, too.
    for step in 0..45 {
        writer.commit(epoch(upper, upper + 10, NOON), vec![(upper, trades(&[(100 + step, NOON)]))]).await.expect("commits");
        upper += 10;
    }
    assert_eq!(cold.boundary("trades").await, Some(NOON + 901));
    assert!(cold.folder.path().join("trades/_delta_log/_last_checkpoint").exists());
}

/// The newest versions, as any reader would ask for them.
const NEWEST: &str = "SELECT symbol, trades FROM (SELECT *, row_number() OVER (PARTITION BY symbol ORDER BY version DESC) AS n FROM bars)
    WHERE n = 1 AND NOT is_deleted ORDER BY symbol";

#[tokio::test]
async fn of_revisions_the_newest_in_an_epoch_is_stored_and_what_is_gone_is_marked() {
    let cold = Cold::new();
    let mut writer = cold.open(&[&BAR]).await;
    let first = bars(&[(bar(1, 1), 1), (bar(2, 1), 1), (bar(3, 1), 1)]);
    let second = bars(&[(bar(1, 1), -1), (bar(1, 2), 1)]);
    writer.commit(epoch(0, 10, NOON), vec![(1, first), (2, second)]).await.expect("commits");
    assert_eq!(
        cold.rows("SELECT symbol, trades, version, is_deleted FROM bars ORDER BY 1").await,
        ["S1 2 2 false", "S2 1 1 false", "S3 1 1 false"]
    );

    let third = bars(&[(bar(1, 3), 1), (bar(1, 2), -1), (bar(2, 1), -1), (bar(4, 1), 1), (bar(4, 1), -1)]);
    writer.commit(epoch(10, 20, NOON), vec![(11, third)]).await.expect("commits");
    assert_eq!(cold.rows("SELECT symbol, trades, is_deleted FROM bars WHERE version = 11 ORDER BY 1").await, ["S1 3 false", "S2 1 true"]);
    assert_eq!(cold.rows(NEWEST).await, ["S1 3", "S3 1"]);
}

#[tokio::test]
async fn merging_keeps_every_row_and_drops_superseded_versions() {
    let cold = Cold::new();
    let mut writer = cold.open(&[&TRADE, &BAR]).await;
    for step in 0..60_i64 {
        let time = step as u64 * 10;
        let traded = trades(&[(2 * step, NOON + 100 - step), (2 * step + 1, NOON + 86_400_000_000 + step)]);
        let mut revised = vec![(bar((step % 4) as u8, step), 1)];
        if step == 59 {
            revised.push((bar(0, 56), -1));
        }
        writer.commit(epoch(time, time + 10, NOON), vec![(time, traded), (time + 1, bars(&revised))]).await.expect("commits");
    }
    writer.close().await.expect("closes");
    assert!(cold.files("trades").await <= 2 * 8, "{} files", cold.files("trades").await);
    assert!(cold.files("bars").await <= 8);
    assert_eq!(cold.rows("SELECT count(*), count(DISTINCT trade_id), sum(CAST(trade_id AS BIGINT)) FROM trades").await, ["120 120 7140"]);
    assert_eq!(cold.rows(NEWEST).await, ["S1 57", "S2 58", "S3 59"]);
    let versions: usize = cold.rows("SELECT symbol FROM bars").await.len();
    assert!(versions < 60, "{versions} versions are left");
}

#[tokio::test]
async fn merged_files_are_sorted() {
    let cold = Cold::new();
    let mut writer = cold.open(&[&TRADE]).await;
    for step in 0..12_i64 {
        let time = step as u64 * 10;
        writer
            .commit(
                epoch(time, time + 10, NOON),
                vec![(time, trades(&[(step, NOON + (step * 7) % 12), (100 + step, NOON + (step * 5) % 12)]))],
            )
            .await
            .expect("commits");
    }
    writer.close().await.expect("closes");
    assert_eq!(cold.files("trades").await, 1);
    let path = cold.table("trades").await.get_file_uris().expect("loaded").next().expect("a file");
    let file = std::fs::File::open(path.trim_start_matches("file://")).expect("opens");
    let rows = ::parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 100)
        .expect("Parquet")
        .next()
        .expect("rows")
        .expect("reads");
    let times = rows.column_by_name("event_time").expect("a column").as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    assert_eq!(rows.num_rows(), 24);
    assert!(times.values().windows(2).all(|pair| pair[0] <= pair[1]));
    assert!(rows.column_by_name("fills").expect("a column").as_primitive::<Int64Type>().values().iter().all(|f| *f == 1));
}

#[tokio::test]
async fn two_that_merge_the_same_files_double_nothing() {
    let cold = Cold::new();
    let mut writer = cold.open(&[&TRADE]).await;
    for step in 0..10_i64 {
        let time = step as u64 * 10;
        writer.commit(epoch(time, time + 10, NOON), vec![(time, trades(&[(step, NOON + step)]))]).await.expect("commits");
    }
    drop(writer);
    let one = cold.open(&[&TRADE]).await;
    let other = cold.open(&[&TRADE]).await;
    let (one, other) = tokio::join!(one.close(), other.close());
    one.expect("closes");
    other.expect("closes");
    assert_eq!(cold.rows("SELECT count(*), count(DISTINCT trade_id) FROM trades").await, ["10 10"]);
    assert_eq!(cold.files("trades").await, 1);
}

#[tokio::test]
async fn files_that_were_merged_away_are_removed_after_the_retention() {
    let cold = Cold::new();
    let mut writer = cold.open(&[&TRADE]).await;
    let on_disk = || std::fs::read_dir(cold.folder.path().join("trades/date=2024-08-08/venue=binance")).expect("a partition").count();
    for step in 0..10_i64 {
        let time = step as u64 * 10;
        writer.commit(epoch(time, time + 10, NOON), vec![(time, trades(&[(step, NOON + step)]))]).await.expect("commits");
    }
    writer.close().await.expect("closes");
    assert_eq!((cold.files("trades").await, on_disk()), (1, 11), "queries that run may still read the old files");

    let properties = std::collections::HashMap::from([("delta.deletedFileRetentionDuration".to_owned(), "interval 0 seconds".to_owned())]);
    cold.table("trades").await.set_tbl_properties().with_properties(properties).await.expect("sets a property");
    let mut writer = cold.open(&[&TRADE]).await;
    for step in 10..20_i64 {
        let time = step as u64 * 10;
        writer.commit(epoch(time, time + 10, NOON), vec![(time, trades(&[(step, NOON + step)]))]).await.expect("commits");
    }
    writer.close().await.expect("closes");
    assert_eq!((cold.files("trades").await, on_disk()), (1, 1));
    assert_eq!(cold.rows("SELECT count(*), count(DISTINCT trade_id) FROM trades").await, ["20 20"]);
}

#[tokio::test]
async fn rows_of_unknown_time_and_odd_bytes_are_kept() {
    let cold = Cold::new();
    let mut writer = cold.open(&[&QUOTE, &DEAD_LETTER]).await;
    let mut quotes = QuoteBuilder::default();
    for sequence in 0..2 {
        quotes.push(Quote {
            venue: "binance",
            market: "spot",
            symbol: "BTC-USDT",
            event_time: None,
            receive_time: (sequence == 1).then_some(NOON),
            frame: None,
            sequence: Some(sequence),
            bid_price: None,
            bid_quantity: None,
            ask_price: None,
            ask_quantity: None,
        });
    }
    let mut letters = DeadLetterBuilder::default();
    letters.push(DeadLetter {
        node: "trades",
        reason: "malformed",
        detail: "line 1 / ünï = %",
        event_time: None,
        receive_time: None,
        rejected_time: NOON,
        frame: Some(1),
        kind: "frame",
        venue: None,
        market: None,
        symbol: None,
        payload: b"\xff\x00{",
    });
    let rows = vec![
        (1, Batch::new(&QUOTE, quotes.finish(), Origin::default())),
        (1, Batch::new(&DEAD_LETTER, letters.finish(), Origin::default())),
    ];
    writer.commit(epoch(0, 10, NOON), rows).await.expect("commits");
    writer.close().await.expect("closes");
    assert_eq!(cold.rows("SELECT date, sequence FROM quotes ORDER BY sequence").await, [" 0", "2024-08-08 1"]);
    assert_eq!(cold.rows("SELECT detail, payload, date FROM dead_letters").await, ["line 1 / ünï = % ff007b 2024-08-08"]);
}

#[tokio::test]
async fn the_log_tells_where_rows_came_from() {
    let cold = Cold::new();
    let mut writer = cold.open(&[&TRADE]).await;
    writer.commit(epoch(5, 10, NOON), vec![(6, trades(&[(1, NOON)]))]).await.expect("commits");
    let entry = std::fs::read_to_string(cold.folder.path().join("trades/_delta_log/00000000000000000001.json")).expect("a log entry");
    for word in [
        r#""pipeline":"test""#,
        r#""node":"out""#,
        r#""lower":5"#,
        r#""upper":10"#,
        r#""rows":1"#,
        r#""content":"#,
        r#""appId":"test/out/0""#,
        "marketprism/boundary",
    ] {
        assert!(entry.contains(word), "{word} is not in {entry}");
    }
}

#[test]
fn what_cannot_be_stored_is_refused_with_a_remedy() {
    let check = |options: &str, kinds: &[Arc<Kind>]| config::component::<dyn Sink, Parquet>(options, kinds).expect_err("refused");
    let homeless = Kind::new("sized", None, "", TRADE.columns.clone(), TRADE.time.clone(), TRADE.key.clone(), false);
    assert_eq!(check("", &[Arc::new(homeless)]), "inputs: input `input` carries `sized` records, which have no table");
    assert!(check("", &[]).contains("carry nothing"));
    let mut columns = TRADE.columns.clone();
    columns.pop();
    let other = Kind::new("trade", TRADE.table.clone(), "", columns, TRADE.time.clone(), TRADE.key.clone(), false);
    assert!(check("", &[TRADE.clone(), Arc::new(other)]).contains("same table `trades`"));
    for (options, key) in
        [("zstd_level = 23", "zstd_level"), ("file_size = '0B'", "file_size"), ("interval = '1ms'", "interval"), ("bytes = '0B'", "bytes")]
    {
        assert!(check(options, std::slice::from_ref(&TRADE)).starts_with(key), "{options}");
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_used_says_so() {
    let cold = Cold::new();
    std::fs::write(cold.folder.path().join("trades"), "in the way").expect("writes");
    let error = words(cold.sink(&[&TRADE]).open(opening(&[&TRADE])).await);
    assert!(error.contains("trades") && error.contains("check that the folder exists"), "{error}");
}
