//! Stores that fail while a pipeline runs: it waits, says why, loses nothing and goes on.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::node::Node;
use tests::program::{Running, finish, program, root, until};
use tests::servers::{ClickHouse, SeaweedFs};

use crate::faults::{Fault, Proxy};

/// Seconds of trades, with a sink that the test brings. A pace leaves time for its store to fail.
fn pipeline(folder: &Path, sink: &str) -> PathBuf {
    let text = format!(
        "name = \"waits\"\n\n[sources.market]\ntype = \"simulator\"\nseed = 3\ninstruments = 4\nframes = 40_000\nrate = 8_000\n\n[operators.trades]\ntype = \"normalise\"\ninputs = [\"market\"]\nkinds = [\"trade\"]\n\n[sinks.out]\ninputs = [\"trades\"]\n{sink}\n"
    );
    let path = folder.join("waits.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// A sink into tables that commits often.
const TABLES: &str = "type = \"parquet\"\ninterval = \"200ms\"";

/// The words by which a node says why its pipeline waits.
fn why(status: &Value) -> &str {
    status["why"].as_str().unwrap_or_default()
}

/// Submits the pipeline, breaks the store when rows have come, and mends it when the status says why the pipeline waits. Returns
/// the node at the end of the pipeline.
fn broken_and_mended(folder: &Path, file: &Path, settings: &[String], says: &[&str], mut store: impl FnMut(bool)) -> Node {
    let node = Node::start(&folder.join("data"), settings);
    node.run(&["submit", file.to_str().unwrap()]).expect_success();
    let before = node.wait("waits", "storing rows", |status| {
        status["nodes"].as_array().is_some_and(|nodes| nodes.iter().any(|node| node["role"] == "sink" && node["sent"].as_u64() > Some(0)))
    });
    store(false);
    let waiting = node.wait("waits", "waiting", |status| why(status).contains("is waiting for"));
    assert!(says.iter().all(|part| why(&waiting).contains(part)), "{waiting:#}");
    assert_eq!((&waiting["state"], &waiting["generation"]), (&before["state"], &before["generation"]), "it runs on");
    let shown = node.run(&["status", "waits"]).expect_success();
    assert!(shown.contains("is waiting for"), "{shown}");
    store(true);
    node.wait("waits", "at its end", |status| status["state"] == "finished");
    let logs = node.run(&["logs", "waits"]).expect_success();
    let lines = |part: &str| logs.lines().filter(|line| line.contains(part)).count();
    assert!(lines("the books balance") == 1 && lines("going on") >= 1, "{logs}");
    assert!(lines("waiting, and trying again") <= 12, "a line for each change, not for each attempt:\n{logs}");
    node
}

#[test]
fn a_clickhouse_that_is_away_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = ClickHouse::start().unwrap_or_else(|error| panic!("{error}"));
    let file = pipeline(folder.path(), "type = \"clickhouse\"");
    let settings =
        |database: &str| vec![format!("hot.url=\"{}\"", server.url()), format!("hot.database=\"{database}\""), "hot.keep_days=0".into()];
    let (broken, straight) = (settings("broken"), settings("straight"));
    let url = server.url();
    broken_and_mended(folder.path(), &file, &broken, &["sink `out`", &url, "ClickHouse: ", "start ClickHouse"], |mend| {
        if mend { server.restart().unwrap() } else { server.kill() }
    });
    let mut run = program();
    run.arg("run").arg(&file).arg("--data").arg(folder.path().join("straight")).args(["--set", "sources.market.rate=\"max\""]);
    run.args(straight.iter().flat_map(|setting| ["--set", setting]));
    finish(run.current_dir(root())).expect_success();
    let sum = |database: &str| server.query(&format!("SELECT count(), sum(cityHash64(toString(tuple(*)))) FROM {database}.trades"));
    assert!(!sum("straight").starts_with("0\t"));
    assert_eq!(sum("broken"), sum("straight"));
}

/// Count and content of the trades below a data folder, or in a bucket that the settings name.
fn trades(data: &Path, settings: &[String]) -> String {
    let mut sql = program();
    sql.args([
        "sql",
        "SELECT symbol, trade_id, event_time, price, quantity, side FROM trades ORDER BY symbol, trade_id, event_time",
        "--format",
        "csv",
        "--data",
    ]);
    sql.arg(data).current_dir(root());
    sql.args(settings.iter().flat_map(|setting| ["--set", setting]));
    let text = finish(&mut sql).expect_success();
    assert!(text.lines().count() > 1_000, "{text}");
    text
}

/// The trades of a run that nothing befalls.
fn straight(folder: &Path, file: &Path) -> String {
    let data = folder.join("straight");
    let mut run = program();
    run.arg("run").arg(file).arg("--data").arg(&data).args(["--set", "sources.market.rate=\"max\""]);
    finish(run.current_dir(root())).expect_success();
    trades(&data, &[])
}

/// The settings of a bucket called `waits`, with the tables in it.
fn in_bucket(endpoint: &str) -> Vec<String> {
    let mut settings = vec!["cold.url=\"s3://waits/tables\"".to_owned()];
    settings.extend(SeaweedFs::settings(endpoint));
    settings
}

fn bucket() -> SeaweedFs {
    let server = SeaweedFs::start().unwrap_or_else(|error| panic!("{error}"));
    server.create_bucket("waits").unwrap();
    server
}

#[test]
fn a_bucket_that_is_away_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = bucket();
    let file = pipeline(folder.path(), TABLES);
    let settings = in_bucket(&server.s3_url());
    broken_and_mended(folder.path(), &file, &settings, &["sink `out`", "s3://waits/tables/trades", "cold.endpoint"], |mend| {
        if mend { server.restart().unwrap() } else { server.kill() }
    });
    assert_eq!(trades(&folder.path().join("data"), &settings), straight(folder.path(), &file));
}

#[test]
fn a_bucket_that_is_away_when_a_pipeline_starts_is_waited_for() {
    let journal = "checkpoints.url=\"s3://waits/state\"".to_owned();
    let cases =
        [(None, ["sink `out` is waiting for", "s3://waits/tables/"]), (Some(journal), ["the pipeline is waiting for", "s3://waits/state"])];
    for (more, says) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut server = bucket();
        let file = pipeline(folder.path(), TABLES);
        let settings: Vec<String> = in_bucket(&server.s3_url()).into_iter().chain(more).collect();
        server.kill();
        let node = Node::start(&folder.path().join("data"), &settings);
        node.run(&["submit", file.to_str().unwrap()]).expect_success();
        let waiting = node.wait("waits", "waiting", |status| why(status).contains("is waiting for"));
        assert!(waiting["state"] == "starting" && says.iter().all(|part| why(&waiting).contains(part)), "{waiting:#}");
        server.restart().unwrap();
        let ended = node.wait("waits", "at its end", |status| status["state"] == "finished");
        assert_eq!((&ended["generation"]["number"], &ended["crashes"]), (&waiting["generation"]["number"], &0.into()), "it ran on");
        assert_eq!(trades(&folder.path().join("data"), &settings), straight(folder.path(), &file));
    }
}

/// It has forgotten for a while who may write.
#[test]
fn a_bucket_that_refuses_is_waited_for() {
    let journal = "checkpoints.url=\"s3://waits/state\"".to_owned();
    let cases = [
        (None, "PUT /waits/tables/trades/", ["sink `out` is waiting for", "s3://waits/tables/trades", "cold.access_key"]),
        (Some(journal), "PUT /waits/state/pipelines/waits/journal/", ["the pipeline is waiting for", "waits/journal", "cold.access_key"]),
    ];
    for (more, requests, says) in cases {
        let folder = tempfile::tempdir().unwrap();
        let server = bucket();
        let file = pipeline(folder.path(), TABLES);
        let proxy = Proxy::before(&server.s3_url(), requests).unwrap();
        let settings: Vec<String> = in_bucket(&proxy.url()).into_iter().chain(more).collect();
        broken_and_mended(folder.path(), &file, &settings, &says, |mend| {
            if mend { proxy.heal() } else { proxy.next([Fault::Refuse(403, "<Error><Code>AccessDenied</Code></Error>"); 10_000]) }
        });
        assert_eq!(trades(&folder.path().join("data"), &settings), straight(folder.path(), &file));
    }
}

/// A small disk, or `None`, said, where this user may not mount one.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf, size: &str) -> Option<Disk> {
        std::fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Disk(at));
        }
        println!("skipped: this user may not mount a small disk");
        None
    }

    fn grow(&self) {
        assert!(Command::new("mount").args(["-o", "remount,size=64m"]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever has a file open keeps it. What stays mounted is in memory, and goes with the machine.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_is_waited_for_by_tables() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(folder.path().join("disk"), "256k") else { return };
    let file = pipeline(folder.path(), TABLES);
    let settings = vec![format!("cold.url=\"{}\"", disk.0.join("tables").display())];
    broken_and_mended(folder.path(), &file, &settings, &["sink `out`", "No space left on device", "make room"], |mend| {
        // It fills by itself.
        if mend {
            disk.grow();
        }
    });
    assert_eq!(trades(&folder.path().join("data"), &settings), straight(folder.path(), &file));
}

/// Everything of it lies there: tables, journal, checkpoints, logs.
#[test]
fn a_disk_that_is_full_is_waited_for_by_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(folder.path().join("disk"), "448k") else { return };
    let file = pipeline(folder.path(), TABLES);
    broken_and_mended(&disk.0, &file, &[], &["No space left on device"], |mend| {
        if mend {
            disk.grow();
        }
    });
    assert_eq!(trades(&disk.0.join("data"), &[]), straight(folder.path(), &file));
}

#[test]
fn a_disk_that_is_full_is_waited_for_by_files() {
    for (extension, size) in [("ndjson", "512k"), ("csv", "512k"), ("arrow", "512k"), ("parquet", "128k")] {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = Disk::mount(folder.path().join("disk"), size) else { return };
        let out = |at: &Path| at.join(format!("trades.{extension}"));
        let file = |at: &Path| pipeline(folder.path(), &format!("type = \"file\"\npath = {:?}", out(at)));
        let run = |file: &Path, data: &str| {
            let mut run = program();
            run.arg("run").arg(file).arg("--data").arg(folder.path().join(data)).args(["--set", "sources.market.rate=\"max\""]);
            run.current_dir(root());
            run
        };
        let file_here = file(&disk.0);
        let mut waits = Running::start(&mut run(&file_here, "data"), &folder.path().join("log"));
        until("it waits", || {
            assert!(waits.ended().is_none(), "{}", waits.printed());
            waits.printed().contains("No space left on device (os error 28); make room where it lies").then_some(())
        });
        disk.grow();
        let status = until("the end", || waits.ended());
        assert!(status.success() && waits.printed().contains("the books balance"), "{}", waits.printed());
        finish(&mut run(&file(folder.path()), "straight")).expect_success();
        let (waited, straight) = (std::fs::read(out(&disk.0)).unwrap(), std::fs::read(out(folder.path())).unwrap());
        assert!(straight.len() > 1_000 && waited == straight, "{extension}: {} and {} bytes", waited.len(), straight.len());
    }
}

#[test]
fn a_store_that_refuses_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), "type = \"parquet\"\nurl = \"/proc/nowhere\"");
    let mut run = program();
    run.arg("run").arg(&file).arg("--data").arg(folder.path().join("data")).current_dir(root());
    let output = finish(&mut run);
    assert!(output.status == Some(1) && output.stderr.contains("/proc/nowhere"), "{output:#?}");
}
