//! The sink `clickhouse` against the real engine: exactly once, whatever fails in between, and clear words where it
//! cannot go on.

use std::error::Error;
use std::sync::{Arc, LazyLock};

use clickhouse::Client;
use config::settings::{HotStore, Settings};
use config::values::Secret;
use config::{Check, Input};
use model::kinds::{self, BAR, Bar, BarBuilder, TRADE, Trade, TradeBuilder};
use model::tables::in_clickhouse;
use model::time::{Micros, Time};
use model::{Batch, Decimal, Kind, Origin};
use sinks::{Epoch, OpenSink, SinkError, Writer};
use tests::program::until;
use tests::servers::ClickHouse;

use crate::awkward;
use crate::faults::{Fault, Proxy};

type TestResult = Result<(), Box<dyn Error>>;

/// The server of all tests that do not stop it; each has a database of its own.
pub static SERVER: LazyLock<ClickHouse> = LazyLock::new(|| ClickHouse::start().unwrap_or_else(|error| panic!("{error}")));

/// 2024-08-08T12:00:00Z.
const NOON: Micros = 1_723_118_400_000_000;
const DAY: Micros = 86_400_000_000;

pub fn client() -> Client {
    Client::default().with_url(SERVER.url())
}

/// The settings of a database at that server; history stays, because these rows are old.
pub fn hot(database: &str) -> HotStore {
    HotStore {
        url: SERVER.url(),
        database: database.into(),
        user: "default".into(),
        password: Secret::default(),
        keep_days: 0,
        warm_after_days: None,
        storage_policy: None,
    }
}

/// Opens a sink of the registry as a pipeline `test` would.
pub async fn open<'k>(
    sink: &str,
    options: &str,
    settings: Settings,
    kinds: impl Iterator<Item = &'k Arc<Kind>>,
) -> Result<Box<dyn Writer>, SinkError> {
    let kinds: Vec<Arc<Kind>> = kinds.cloned().collect();
    let inputs = [Input { node: "input".into(), kinds: kinds.clone() }];
    let mut cx = Check::new("out", &inputs);
    let declaration = sinks::registry().into_iter().find(|d| d.name == sink).expect("the sink is in the registry");
    let checked = (declaration.check)(serde_json::from_str(options).expect("options are JSON"), &mut cx);
    let component = checked.unwrap_or_else(|| panic!("{:?}", cx.into_problems())).component;
    let cx = OpenSink {
        pipeline: "test".into(),
        plan: "plan".into(),
        node: "out".into(),
        shard: 0,
        kinds,
        settings: Arc::new(settings),
        account: Arc::default(),
    };
    component.open(cx).await
}

pub fn epoch(lower: Time, upper: Time) -> Epoch {
    Epoch { lower, upper, watermark: Micros::MIN, again: false }
}

async fn writer(hot: HotStore) -> Result<Box<dyn Writer>, SinkError> {
    open("clickhouse", "{}", Settings { hot: Some(hot), ..Settings::default() }, [&*TRADE, &*BAR].into_iter()).await
}

fn trades(ids: impl IntoIterator<Item = i64>, time: impl Fn(i64) -> Micros) -> Batch {
    let mut builder = TradeBuilder::default();
    for id in ids {
        builder.push(Trade {
            venue: "binance",
            market: "spot",
            symbol: if id % 2 == 0 { "BTC-USDT" } else { "ETH-USDT" },
            event_time: time(id),
            receive_time: Some(time(id) - 7),
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

/// Bars as (symbol, volume, diff).
fn bars(rows: &[(&str, i64, i8)]) -> Batch {
    let mut builder = BarBuilder::default();
    for (symbol, volume, _) in rows {
        let (price, volume) = (Decimal::from_integer(60_000), Decimal::from_integer(*volume));
        builder.push(Bar {
            venue: "binance",
            market: "spot",
            symbol,
            interval_seconds: 60,
            start: NOON,
            end: NOON + 60_000_000,
            open: price,
            high: price,
            low: price,
            close: price,
            volume,
            quote_volume: price.mul_rounded(volume).expect("fits"),
            buy_volume: volume,
            sell_volume: Decimal::ZERO,
            trades: 1,
            vwap: None,
            first_trade_id: "1",
            last_trade_id: "1",
            first_trade_time: NOON,
            last_trade_time: NOON,
            partial: true,
            late: false,
            gap: None,
        });
    }
    Batch::new(&BAR, builder.finish(), Origin::default()).with_diffs(rows.iter().map(|r| r.2).collect())
}

/// Number of trades and the sum of their ids, which are their quantities.
fn stored_trades(server: &ClickHouse, database: &str) -> String {
    server.query(&format!("SELECT count(), sum(quantity) FROM {database}.trades"))
}

#[tokio::test]
async fn an_epoch_is_stored_once_however_often_it_is_committed() -> TestResult {
    let at = |id| NOON + id % 3 * DAY;
    let forth = || vec![(1, trades(0..50, at)), (2, trades(50..100, at))];
    let mut first = writer(hot("epochs")).await?;
    first.commit(epoch(1, 3), forth()).await?;
    first.commit(epoch(1, 3), forth()).await?;
    // Rows arrive in another order and in other batches when other workers are faster.
    let back = vec![(1, trades((0..20).rev(), at)), (1, trades(20..50, at)), (2, trades((50..100).rev(), at))];
    first.commit(epoch(1, 3), back).await?;
    // As after a crash.
    let mut second = writer(hot("epochs")).await?;
    second.commit(epoch(1, 3), forth()).await?;
    assert_eq!(stored_trades(&SERVER, "epochs"), "100\t4950");
    // Equal rows of another epoch are other rows.
    second.commit(epoch(3, 4), vec![(3, trades([7], at))]).await?;
    second.commit(epoch(4, 5), vec![(4, trades([7], at))]).await?;
    assert_eq!(stored_trades(&SERVER, "epochs"), "102\t4964");
    Ok(())
}

#[tokio::test]
async fn an_insert_is_one_block_of_one_partition() -> TestResult {
    let mut writer = writer(hot("blocks")).await?;
    SERVER.query("SYSTEM STOP MERGES blocks.trades");
    // 700,001 rows of one day are two blocks, those of another day a third.
    writer.commit(epoch(1, 2), vec![(1, trades(0..700_001, |_| NOON)), (1, trades(0..10, |_| NOON + DAY))]).await?;
    let parts = "SELECT groupArray((partition, rows)) FROM (SELECT partition, rows FROM system.parts WHERE database = 'blocks' AND active ORDER BY ALL)";
    assert_eq!(SERVER.query(parts), "[('2024-08-08',200001),('2024-08-08',500000),('2024-08-09',10)]");
    Ok(())
}

#[tokio::test]
async fn bars_are_read_in_their_latest_version() -> TestResult {
    let mut writer = writer(hot("bars")).await?;
    let changes = [
        vec![("A", 1, 1), ("B", 1, 1), ("C", 1, 1), ("D", 5, 1)],
        vec![("A", 1, -1), ("A", 2, 1), ("C", 1, -1)],
        vec![("A", 3, 1), ("A", 2, -1), ("C", 4, 1), ("D", 5, -1)],
    ];
    let epochs: Vec<(Time, Batch)> = changes.iter().enumerate().map(|(i, rows)| (10 * i as Time, bars(rows))).collect();
    // One epoch each, the second one twice, and then all in one, as a replay with another pace would bring them.
    for (time, batch) in [&epochs[0], &epochs[1], &epochs[1], &epochs[2]] {
        writer.commit(epoch(*time, time + 10), vec![(*time, batch.clone())]).await?;
    }
    let expected = "[('A',3),('B',1),('C',4)]";
    let select = "SELECT groupArray((symbol, volume)) FROM (SELECT symbol, volume FROM bars.bars FINAL ORDER BY symbol)";
    assert_eq!(SERVER.query(select), expected);
    writer.commit(epoch(0, 30), epochs).await?;
    assert_eq!(SERVER.query(select), expected);
    SERVER.query("OPTIMIZE TABLE bars.bars FINAL");
    assert_eq!(SERVER.query(select), expected);
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_killed_in_between_loses_and_doubles_nothing() -> TestResult {
    let mut server = ClickHouse::start()?;
    let mut writer = writer(HotStore { url: server.url(), ..hot("killed") }).await?;
    let mut time = 0;
    let mut next = |rows: i64| {
        time += 1;
        (epoch(time, time + 1), vec![(time, trades(0..rows, |id| NOON + id % 2 * DAY)), (time, bars(&[("A", rows, 1)]))])
    };
    let mut expected = 0;
    for rows in [1_000, 200_000, 50_000, 300_000] {
        let (epoch, batches) = next(rows);
        expected += rows;
        // Wherever the kill strikes: before, within or after the insert.
        let kill = tokio::task::spawn_blocking(move || {
            server.kill();
            server.restart().map(|()| server)
        });
        let (committed, restarted) = tokio::join!(writer.commit(epoch, batches.clone()), kill);
        committed?;
        server = restarted??;
        assert_eq!(server.query("SELECT count() FROM killed.trades"), expected.to_string());
        // The acknowledgement may have been lost on our side too.
        writer.commit(epoch, batches).await?;
        assert_eq!(server.query("SELECT count() FROM killed.trades"), expected.to_string());
    }
    assert_eq!(server.query("SELECT toInt64(volume) FROM killed.bars FINAL"), "300000");
    Ok(())
}

/// Leaves a server as one that was killed when it had noted the tokens of all inserts and stored none of their rows.
fn forget_rows(server: &mut ClickHouse, table: &str) {
    let paths = server.query(&format!("SELECT path FROM system.parts WHERE concat(database, '.', table) = '{table}' AND active"));
    assert!(!paths.is_empty(), "{table} has no part");
    server.kill();
    paths.lines().for_each(|path| std::fs::remove_dir_all(path).unwrap());
    server.restart().unwrap();
    assert_eq!(server.query(&format!("SELECT count() FROM {table}")), "0");
}

#[tokio::test]
async fn rows_that_the_server_only_noted_are_stored() -> TestResult {
    let at = |id| NOON + id % 3 * DAY;
    let rows = || vec![(1, trades(0..50, at)), (1, bars(&[("A", 7, 1)]))];
    let mut server = ClickHouse::start()?;
    let hot = |url: String| HotStore { url, ..hot("noted") };
    let mut first = writer(hot(server.url())).await?;
    first.commit(epoch(1, 2), rows()).await?;
    forget_rows(&mut server, "noted.trades");
    // The server says that it has them. Whoever cannot know of an earlier attempt believes it.
    let mut second = writer(hot(server.url())).await?;
    second.commit(epoch(1, 2), rows()).await?;
    assert_eq!(stored_trades(&server, "noted"), "0\t0");
    // After a crash it is looked for, and after another nothing is doubled.
    let again = Epoch { again: true, ..epoch(1, 2) };
    for _ in 0..3 {
        writer(hot(server.url())).await?.commit(again, rows()).await?;
        assert_eq!(stored_trades(&server, "noted"), "50\t1225");
    }
    // That insert was under another token. Its rows are forgotten as well, and again.
    for _ in 0..2 {
        forget_rows(&mut server, "noted.trades");
        writer(hot(server.url())).await?.commit(again, rows()).await?;
        assert_eq!(stored_trades(&server, "noted"), "50\t1225");
    }
    // Within one attempt after the other of a commit.
    let proxy = Proxy::before(&server.url(), "INSERT")?;
    let mut third = writer(hot(proxy.url())).await?;
    proxy.next([Fault::LoseAnswer; 60]);
    let commit = tokio::spawn(async move { third.commit(epoch(2, 3), vec![(2, trades([100], |_| NOON))]).await });
    let server = tokio::task::spawn_blocking(move || {
        until("it is stored", || (stored_trades(&server, "noted") == "51\t1325").then_some(()));
        server.query("TRUNCATE TABLE noted.bars");
        forget_rows(&mut server, "noted.trades");
        proxy.heal();
        server
    })
    .await?;
    commit.await??;
    assert_eq!(stored_trades(&server, "noted"), "1\t100");
    Ok(())
}

/// A row is looked for by what was written of it: whatever that is, it must be found as the table has it.
#[tokio::test]
async fn rows_of_every_kind_are_found_again() -> TestResult {
    let all = || kinds::all().into_iter().filter(|kind| in_clickhouse(kind));
    let rows = || all().map(|kind| (1, awkward::rows(kind))).collect::<Vec<(Time, Batch)>>();
    let writer = || open("clickhouse", "{}", Settings { hot: Some(hot("found")), ..Settings::default() }, all());
    let count = |kind: &Kind| SERVER.query(&format!("SELECT count() FROM found.{}", kind.table.as_deref().unwrap_or_default()));
    writer().await?.commit(epoch(1, 2), rows()).await?;
    writer().await?.commit(Epoch { again: true, ..epoch(1, 2) }, rows()).await?;
    for kind in all() {
        assert_eq!(count(kind), awkward::ROWS.to_string(), "rows of `{}` were not found, and inserted once more", kind.name);
    }
    Ok(())
}

#[tokio::test]
async fn what_may_pass_is_retried_with_the_same_token() -> TestResult {
    const BUSY: Fault = Fault::Refuse(500, "Code: 252. DB::Exception: Too many parts (300). (TOO_MANY_PARTS)");
    let proxy = Proxy::before(&SERVER.url(), "INSERT")?;
    let mut writer = writer(HotStore { url: proxy.url(), ..hot("busy") }).await?;
    let rows = |from: i64| vec![(1, trades(from..from + 5, |id| NOON + id % 2 * DAY))];
    // Two inserts each; a fault meets whichever comes next.
    for (time, faults) in [
        vec![BUSY],
        vec![Fault::Break, BUSY],
        vec![Fault::LoseAnswer],
        vec![Fault::LoseAnswer; 4],
        vec![Fault::Refuse(502, "<html>"), Fault::LoseAnswer],
    ]
    .into_iter()
    .enumerate()
    {
        proxy.next(faults);
        writer.commit(epoch(time as Time, time as Time + 1), rows(5 * time as i64)).await?;
        assert_eq!(proxy.left(), 0, "the faults were met");
    }
    assert_eq!(stored_trades(&SERVER, "busy"), "25\t300");
    Ok(())
}

#[tokio::test]
async fn patience_can_end() -> TestResult {
    let proxy = Proxy::before(&SERVER.url(), "INSERT")?;
    let settings = Settings { hot: Some(HotStore { url: proxy.url(), ..hot("patience") }), ..Settings::default() };
    let mut writer = open("clickhouse", r#"{"give_up_after": "300ms"}"#, settings, [&*TRADE].into_iter()).await?;
    proxy.next([Fault::Refuse(500, "Code: 241. DB::Exception: Memory limit exceeded. (MEMORY_LIMIT_EXCEEDED)"); 100]);
    let refused = writer.commit(epoch(1, 2), vec![(1, trades(0..5, |_| NOON))]).await.expect_err("it gives up").to_string();
    assert!(refused.contains("table patience.trades: Code: 241.") && refused.ends_with("look at the server's log"), "{refused}");
    assert!(proxy.left() < 99, "and it had tried more than once");
    Ok(())
}

#[tokio::test]
async fn what_stays_is_an_error_at_once() -> TestResult {
    let mut writer = writer(hot("dropped")).await?;
    SERVER.query("DROP TABLE dropped.trades");
    let refused = writer.commit(epoch(1, 2), vec![(1, trades(0..5, |_| NOON))]).await.expect_err("the table is gone").to_string();
    assert!(
        refused.contains("table dropped.trades: Code: 60.")
            && refused.ends_with("start the pipeline again: it makes tables that are missing"),
        "{refused}"
    );
    SERVER.query("ALTER TABLE dropped.bars DROP COLUMN trades");
    let refused = writer.commit(epoch(1, 2), vec![(1, bars(&[("A", 1, 1)]))]).await.expect_err("a column is gone").to_string();
    assert!(refused.contains("trades") && refused.ends_with("start the pipeline again to see how"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_table_that_differs_is_named_with_the_remedy() -> TestResult {
    // A table as the sink makes it, then bent in one way after the other.
    drop(writer(hot("bent")).await?);
    let opened = || async { writer(hot("bent")).await.err().map(|e| e.to_string()).unwrap_or_default() };
    assert_eq!(opened().await, "", "a table of our own is taken");

    SERVER.query("ALTER TABLE bent.trades MODIFY COLUMN quantity Float64, DROP COLUMN fills");
    let error = opened().await;
    assert!(
        error.contains("table bent.trades: column `quantity` is Float64, but has to be Decimal(38, 12), column `fills` is missing;"),
        "{error}"
    );
    let remedy = error.split("run ").nth(1).and_then(|r| r.split("; or ").next()).expect("a statement to run");
    SERVER.query(remedy);
    assert_eq!(opened().await, "", "the remedy helps");

    SERVER.query("ALTER TABLE bent.trades RESET SETTING non_replicated_deduplication_window");
    let error = opened().await;
    assert!(error.contains("a repeated insert would double its rows"), "{error}");
    SERVER.query(error.split("run ").nth(1).expect("a statement to run"));
    assert_eq!(opened().await, "", "the remedy helps");

    SERVER.query("DROP TABLE bent.bars");
    SERVER.query("CREATE TABLE bent.bars (symbol String) ENGINE = MergeTree ORDER BY symbol");
    let error = opened().await;
    assert!(
        error.contains(
            "the engine is MergeTree, but `bar` needs ReplacingMergeTree; move the table away (RENAME TABLE `bent`.`bars` TO another name)"
        ),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_is_named() -> TestResult {
    let server = ClickHouse::start_with("writer", "secret")?;
    let with =
        |user: &str, password: &str| HotStore { url: server.url(), user: user.into(), password: Secret::new(password), ..hot("login") };
    let error = writer(with("writer", "wrong")).await.err().expect("refused").to_string();
    assert!(error.starts_with(&format!("{}: Code: 516.", server.url())) && error.ends_with("correct `user` and `password`"), "{error}");
    assert!(!error.contains("wrong"), "a password is never printed");
    let mut writer = writer(with("writer", "secret")).await?;
    writer.commit(epoch(1, 2), vec![(1, trades(0..5, |_| NOON))]).await?;
    assert_eq!(stored_trades(&server, "login"), "5\t10");
    Ok(())
}
