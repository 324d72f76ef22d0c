//! Runs that end before their time, and what the next run makes of that: nothing is lost, nothing is doubled, and
//! what cannot be gone on from is said.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;
use tests::program::{Output, Running, finish, program, root, rows, until};

use crate::clickhouse::SERVER;

/// Every operator that has a state, over all kinds and faults.
const PIPELINE: &str = r#"
name = "victim"

[sources.market]
type = "simulator"
seed = 5
instruments = 6
tempo = 100
frames = 60_000
rate = "max"
disorder = "500ms"

[sources.market.faults]
sequence_gap = 0.001
duplicate = 0.001
disorder = 0.001
price_spike = 0.001
crossed_book = 0.001
stale_feed = 0.0002
clock_skew = 0.001
malformed = 0.002

[operators.records]
type = "normalise"
inputs = ["market"]

[operators.bars]
type = "bars"
inputs = ["records"]
every = ["1s", "1m"]
lateness = "5s"

[operators.books]
type = "book"
inputs = ["records"]
snapshots = { every = "10s" }

[operators.watch]
type = "anomaly"
inputs = ["records", "books"]

[operators.watch.detect]
price_spike = { window = "5m", threshold = 6.0 }
sequence_gap = {}
crossed_book = {}
book_mismatch = {}
stale_feed = { after = "30s" }

[sinks.cold]
type = "parquet"
inputs = ["records", "bars", "books", "watch"]
interval = "100ms"
"#;

/// The rows of each table, sorted, a text a row.
type Tables = BTreeMap<String, Vec<String>>;

/// A pipeline in a folder of its own.
struct Place {
    folder: TempDir,
    settings: Vec<String>,
}

impl Place {
    /// Checkpoints are frequent, so that few rows are enough.
    fn new(pipeline: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pipeline.toml"), pipeline).unwrap();
        Place { folder, settings: vec!["checkpoints.interval=\"200ms\"".into()] }
    }

    fn set(&mut self, setting: String) {
        self.settings.push(setting);
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("pipeline.toml")
    }

    /// A command on the pipeline's file.
    fn command(&self, command: &str, more: &[&str]) -> Command {
        let mut all = program();
        all.arg(command).arg(self.file()).arg("--data").arg(self.data()).args(more).current_dir(root());
        for setting in &self.settings {
            all.args(["--set", setting]);
        }
        all
    }

    fn run(&self, more: &[&str]) -> Output {
        finish(&mut self.command("run", more))
    }

    /// Runs it beside the test, at a pace that leaves time to kill it.
    fn start(&self, rate: &str) -> Running {
        Running::start(&mut self.command("run", &["--set", rate]), &self.folder.path().join("log"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn journal(&self) -> String {
        std::fs::read_to_string(self.data().join("pipelines/victim/journal.ndjson")).unwrap_or_default()
    }

    /// The logical times of its checkpoints, newest first.
    fn checkpoints(&self) -> Vec<u64> {
        let text = finish(&mut self.command("checkpoints", &["--format", "json"])).expect_success();
        let manifests: Vec<Value> = serde_json::from_str(&text).unwrap();
        manifests.iter().map(|manifest| manifest["barrier"].as_u64().unwrap()).collect()
    }

    /// The cold tables. The logical times at which rows came differ from run to run: the one in dead letters is left out.
    fn cold(&self) -> Tables {
        let names = rows(&self.data(), "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_name");
        let names = names.iter().map(|row| row["table_name"].as_str().unwrap().to_owned());
        let table = |name: String| {
            let mut texts: Vec<String> = rows(&self.data(), &format!("SELECT * FROM {name}"))
                .into_iter()
                .map(|mut row| {
                    row.as_object_mut().unwrap().remove("rejected_time");
                    row.to_string()
                })
                .collect();
            texts.sort_unstable();
            (name, texts)
        };
        names.map(table).collect()
    }
}

/// The tables of a database in ClickHouse, without the versions of rows.
fn hot(database: &str) -> Tables {
    let names = SERVER.query(&format!("SELECT name FROM system.tables WHERE database = '{database}'"));
    let table = |name: &str| {
        let columns = SERVER.query(&format!(
            "SELECT arrayStringConcat(groupArray('`' || name || '`'), ', ') FROM system.columns WHERE database = '{database}' AND table = '{name}' AND name NOT IN ('version', 'is_deleted', 'rejected_time')"
        ));
        let revised = SERVER.query(&format!("SELECT engine LIKE '%Replacing%' FROM system.tables WHERE database = '{database}' AND name = '{name}'"));
        let last = if revised == "1" { "FINAL" } else { "" };
        let text = SERVER.query(&format!("SELECT {columns} FROM {database}.{name} {last} FORMAT JSONCompactEachRow"));
        let mut texts: Vec<String> = text.lines().map(str::to_owned).collect();
        texts.sort_unstable();
        (name.to_owned(), texts)
    };
    names.lines().map(table).collect()
}

/// Holds tables to be equal, row for row.
#[track_caller]
fn compare(what: &str, expected: &Tables, found: &Tables) {
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{what}: tables");
    for (name, expected) in expected {
        let found = &found[name];
        let missing = expected.iter().find(|row| found.binary_search(row).is_err());
        let more = found.iter().find(|row| expected.binary_search(row).is_err());
        let doubled = found.windows(2).find(|two| two[0] == two[1] && expected.iter().filter(|row| **row == two[0]).count() < 2);
        assert!(
            expected == found,
            "{what}: {name} has {} rows, not {}\nmissing: {missing:?}\nunexpected: {more:?}\ndoubled: {doubled:?}",
            found.len(),
            expected.len()
        );
    }
}

fn victim(database: &str) -> Place {
    let pipeline = format!("{PIPELINE}\n[sinks.hot]\ntype = \"clickhouse\"\ninputs = [\"records\", \"bars\", \"watch\"]\n");
    let mut place = Place::new(&pipeline);
    for setting in [format!("hot.url=\"{}\"", SERVER.url()), format!("hot.database=\"{database}\""), "hot.keep_days=0".into()] {
        place.set(setting);
    }
    place
}

#[test]
fn killed_at_any_moment_nothing_is_lost_and_nothing_doubled() {
    const KILLS: usize = 12;
    let seed: u64 = std::env::var("MARKETPRISM_SEED").map_or(20_261_126, |seed| seed.parse().expect("a seed is a number"));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    println!("MARKETPRISM_SEED={seed}");

    let straight = victim("recovery_straight");
    straight.run(&["--workers", "2"]).expect_success();
    let (cold, hot_tables) = (straight.cold(), hot("recovery_straight"));
    assert!(cold.len() >= 9 && cold.values().all(|rows| !rows.is_empty()), "{:?}", cold.keys());

    let place = victim("recovery_killed");
    let mut kills = 0;
    while kills < KILLS {
        let before = place.journal();
        let mut run = place.start("sources.market.rate=12_000");
        // Each life brings something about, and ends somewhen afterwards.
        until("progress after a kill", || (run.ended().is_some() || place.journal() != before).then_some(()));
        let moment = std::time::Duration::from_micros(random.next_u64() % 500_000);
        std::thread::sleep(moment);
        if let Some(status) = run.ended() {
            assert!(status.success(), "{}", place.log());
            break;
        }
        run.kill();
        kills += 1;
        println!("kill {kills}, {moment:?} after the first progress");
    }
    assert!(kills >= 6, "the pipeline ended after {kills} kills: too fast to be a test");
    let summary = place.run(&["--set", "sources.market.rate=12_000"]);
    assert_eq!(summary.status, Some(0), "{}\n{}", summary.stderr, place.log());
    assert!(summary.stdout.contains("the books balance"), "{}", summary.stdout);
    compare("cold", &cold, &place.cold());
    compare("hot", &hot_tables, &hot("recovery_killed"));
}
