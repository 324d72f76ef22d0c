//! Runs that end before their time, and what the next run makes of that: nothing is lost, nothing is doubled, and
//! what cannot be gone on from is said.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use config::settings::Settings;
use model::crash;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;
use tests::program::{Output, Running, finish, program, root, until};
use tests::servers::SeaweedFs;

use crate::clickhouse::SERVER;
use crate::tiers::{self, BUCKETS};

/// Every operator that has a state, over all kinds and faults.
pub const PIPELINE: &str = r#"
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

/// A pace that leaves time to kill a run.
const RATE: &str = "sources.market.rate=12_000";

/// The rows of each table, sorted, a text a row.
type Tables = BTreeMap<String, Vec<String>>;

/// A pipeline in a folder of its own.
pub struct Place {
    /// Where its file, its data and its log are.
    pub folder: TempDir,
    /// `KEY=VALUE`s that every command gets.
    pub settings: Vec<String>,
}

impl Place {
    /// Checkpoints are frequent, so that few rows are enough.
    pub fn new(pipeline: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pipeline.toml"), pipeline).unwrap();
        Place { folder, settings: vec!["checkpoints.interval=\"200ms\"".into()] }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("pipeline.toml")
    }

    /// A command on the pipeline's file.
    pub fn command(&self, command: &str, more: &[&str]) -> Command {
        let mut all = program();
        all.arg(command).arg(self.file()).arg("--data").arg(self.data()).args(more).current_dir(root());
        for setting in &self.settings {
            all.args(["--set", setting]);
        }
        all
    }

    pub fn run(&self, more: &[&str]) -> Output {
        finish(&mut self.command("run", more))
    }

    /// Runs it beside the test.
    pub fn start(&self, more: &[&str]) -> Running {
        Running::start(&mut self.command("run", more), &self.folder.path().join("log"))
    }

    /// Runs it until something is committed, and stops it.
    fn start_and_stop(&self) {
        let before = self.journal();
        let mut run = self.start(&["--set", RATE]);
        let committed = || (self.journal() != before && self.journal().contains("\"commit\"")).then_some(());
        until("a commit", || run.ended().map(|_| ()).or_else(committed));
        assert_eq!(run.terminate(), Some(0), "{}", self.log());
    }

    /// Lets it come to its end.
    #[track_caller]
    fn finish(&self) {
        let summary = self.run(&["--set", RATE]);
        assert_eq!(summary.status, Some(0), "{}\n{}", summary.stderr, self.log());
        assert!(summary.stdout.contains("the books balance"), "{}", summary.stdout);
    }

    /// Holds its tables, cold and in a database, to be those of a run that nothing befell.
    #[track_caller]
    fn compare(&self, database: &str) {
        let (cold, in_clickhouse) = &*STRAIGHT;
        compare("cold", cold, &self.cold());
        compare("hot", in_clickhouse, &hot(database));
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn journal(&self) -> String {
        std::fs::read_to_string(self.data().join("pipelines/victim/journal.ndjson")).unwrap_or_default()
    }

    /// The manifests of its checkpoints, newest first.
    pub fn manifests(&self) -> Vec<Value> {
        let text = finish(&mut self.command("checkpoints", &["--format", "json"])).expect_success();
        serde_json::from_str(&text).unwrap()
    }

    /// The logical times of its checkpoints, newest first.
    pub fn checkpoints(&self) -> Vec<u64> {
        self.manifests().iter().map(|manifest| manifest["barrier"].as_u64().unwrap()).collect()
    }

    /// The cold tables. The logical times at which rows came differ from run to run: the one in dead letters is left out.
    fn cold(&self) -> Tables {
        let settings = Settings { data: Some(self.data().display().to_string()), ..Settings::default() };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ask = |query: &str| runtime.block_on(tiers::rows(&settings, query)).unwrap_or_else(|error| panic!("{query}: {error}"));
        let table = |name: String| {
            let columns = if name == "dead_letters" { "* EXCLUDE (rejected_time)" } else { "*" };
            let mut texts = ask(&format!("SELECT {columns} FROM {name}"));
            texts.sort_unstable();
            (name, texts)
        };
        ask("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'").into_iter().map(table).collect()
    }
}

/// The tables of a database in ClickHouse, without the versions of rows.
fn hot(database: &str) -> Tables {
    let names = SERVER.query(&format!("SELECT name FROM system.tables WHERE database = '{database}'"));
    let table = |name: &str| {
        let columns = SERVER.query(&format!(
            "SELECT arrayStringConcat(groupArray('`' || name || '`'), ', ') FROM system.columns WHERE database = '{database}' AND table = '{name}' AND name NOT IN ('version', 'is_deleted', 'rejected_time')"
        ));
        let revised =
            SERVER.query(&format!("SELECT engine LIKE '%Replacing%' FROM system.tables WHERE database = '{database}' AND name = '{name}'"));
        let last = if revised == "1" { "FINAL" } else { "" };
        let text = SERVER.query(&format!("SELECT {columns} FROM {database}.{name} {last} FORMAT JSONCompactEachRow"));
        let mut texts: Vec<String> = text.lines().map(str::to_owned).collect();
        texts.sort_unstable();
        (name.to_owned(), texts)
    };
    names.lines().map(table).collect()
}

/// What an uninterrupted run leaves, cold and hot.
static STRAIGHT: LazyLock<(Tables, Tables)> = LazyLock::new(|| {
    let straight = victim("recovery_straight");
    straight.run(&["--workers", "2"]).expect_success();
    let cold = straight.cold();
    let full: Vec<&String> = cold.iter().filter(|(_, rows)| !rows.is_empty()).map(|(name, _)| name).collect();
    assert!(full.len() >= 9, "only these tables have rows: {full:?}");
    (cold, hot("recovery_straight"))
});

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
    let hot = [format!("hot.url=\"{}\"", SERVER.url()), format!("hot.database=\"{database}\""), "hot.keep_days=0".into()];
    place.settings.extend(hot);
    place
}

#[test]
fn killed_at_any_moment_nothing_is_lost_and_nothing_doubled() {
    const KILLS: usize = 12;
    let seed: u64 = std::env::var("MARKETPRISM_SEED").map_or(20_261_126, |seed| seed.parse().expect("a seed is a number"));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    println!("MARKETPRISM_SEED={seed}");

    let place = victim("recovery_killed");
    let mut kills = 0;
    while kills < KILLS {
        let before = place.journal();
        let workers = (1 + random.next_u64() % 3).to_string();
        let mut run = place.start(&["--set", RATE, "--workers", &workers]);
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
        println!("kill {kills}: {workers} workers, {moment:?} after the first progress");
    }
    assert!(kills >= 6, "the pipeline ended after {kills} kills: too fast to be a test");
    place.finish();
    place.compare("recovery_killed");
}

/// Every place between two things that are written down and depend on each other.
#[test]
fn a_crash_between_any_two_writes_loses_and_doubles_nothing() {
    for (number, point) in [
        "bound",
        "intended",
        "files written",
        "boundary moved",
        "inserted",
        "committed",
        "states stored",
        "manifest stored",
        "checkpoints pruned",
        "journal rewritten",
    ]
    .iter()
    .enumerate()
    {
        println!("crash at `{point}`");
        let database = format!("recovery_crash_{number}");
        let place = victim(&database);
        // Once early and once in a run that goes on.
        for time in [1, 2] {
            let crashed = finish(place.command("run", &["--set", RATE]).env(crash::VARIABLE, format!("{point}:{time}")));
            assert_eq!(crashed.status, None, "`{point}` was not passed {time} times:\n{}", crashed.stderr);
        }
        place.finish();
        place.compare(&database);
    }
}

#[test]
fn a_pipeline_that_was_stopped_goes_on_and_one_that_has_ended_does_nothing() {
    let place = victim("recovery_stopped");
    place.start_and_stop();
    let first = place.checkpoints();
    assert!(!first.is_empty(), "a run that is stopped leaves a checkpoint: {}", place.log());
    place.start_and_stop();
    assert!(place.checkpoints()[0] > first[0], "{first:?} {:?}", place.checkpoints());
    let shown = finish(&mut place.command("checkpoints", &[])).expect_success();
    assert!(shown.contains(&first[0].to_string()) && shown.contains("complete at"), "{shown}");
    place.finish();
    place.compare("recovery_stopped");

    let again = place.run(&["--set", RATE]);
    assert_eq!(again.status, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("pipeline `victim` has ended, and everything is stored"), "{}", again.stderr);
    place.compare("recovery_stopped");
}

#[test]
fn checkpoints_lie_in_a_bucket_as_they_do_in_a_folder() {
    BUCKETS.create_bucket("recovery").unwrap();
    let mut place = victim("recovery_bucket");
    let cold = [("endpoint", BUCKETS.s3_url()), ("access_key", SeaweedFs::ACCESS_KEY.into()), ("secret_key", SeaweedFs::SECRET_KEY.into())];
    place.settings.extend(cold.map(|(key, value)| format!("cold.{key}=\"{value}\"")));
    place.settings.push("checkpoints.url=\"s3://recovery/state\"".into());
    place.start_and_stop();
    let first = place.checkpoints();
    assert!(!first.is_empty() && !place.data().join("pipelines/victim/checkpoints").exists(), "{}", place.log());
    // Half of a backup is refused.
    let journal = place.data().join("pipelines/victim/journal.ndjson");
    let aside = place.folder.path().join("journal");
    std::fs::rename(&journal, &aside).unwrap();
    let refused = place.run(&["--set", RATE]);
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("its checkpoints are there but its journal, which belongs to them, is gone"), "{}", refused.stderr);
    std::fs::rename(aside, journal).unwrap();
    place.finish();
    place.compare("recovery_bucket");
}

/// Once, a checkpoint that began before all operators were built never ended, and neither did any after it begin.
#[test]
fn a_run_that_is_stopped_at_once_leaves_a_checkpoint() {
    let place = Place::new(PIPELINE);
    place.start_and_stop();
    for _ in 0..10 {
        let before = place.checkpoints()[0];
        let journal = || std::fs::metadata(place.data().join("pipelines/victim/journal.ndjson")).and_then(|m| m.modified()).unwrap();
        let then = journal();
        let run = place.start(&["--set", RATE]);
        // It begins with that, and is asked to end while it opens or builds something.
        until("the journal of a run", || (journal() > then).then_some(()));
        assert_eq!(run.terminate(), Some(0), "{}", place.log());
        assert!(place.checkpoints()[0] > before, "{}", place.log());
    }
}

#[test]
fn a_changed_pipeline_says_what_becomes_of_its_state_and_goes_on_when_that_is_accepted() {
    let place = victim("recovery_changed");
    place.start_and_stop();
    let text = std::fs::read_to_string(place.file()).unwrap();
    std::fs::write(place.file(), text.replace(r#"every = ["1s", "1m"]"#, r#"every = "1m""#)).unwrap();
    let journal = place.journal();
    let refused = place.run(&["--set", RATE]);
    assert_eq!(refused.status, Some(1), "{}", refused.stderr);
    for line in ["bars: rebuilt", "books: kept", "market: kept", "run with `--accept`"] {
        assert!(refused.stderr.contains(line), "{line} is missing in\n{}", refused.stderr);
    }
    assert_eq!(place.journal(), journal, "nothing was done");

    place.run(&["--set", RATE, "--accept"]).expect_success();
    let (mut expected, mut found) = (STRAIGHT.0.clone(), place.cold());
    assert!(found["bars"].len() < expected["bars"].len(), "bars of a second are no more");
    for tables in [&mut expected, &mut found] {
        tables.remove("bars");
    }
    compare("all but bars", &expected, &found);
}

/// The names of the objects of a checkpoint.
fn objects(manifest: &Value) -> Vec<String> {
    let parts = manifest["parts"].as_array().unwrap().iter().flat_map(|part| part["objects"].as_array().unwrap());
    parts.map(|object| object["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_one_before_it_offered() {
    let place = victim("recovery_damaged");
    place.start_and_stop();
    place.start_and_stop();
    let [_, before, ..] = place.checkpoints()[..] else { panic!("{:?}", place.checkpoints()) };
    // One that only the newest has.
    let manifests = place.manifests();
    let [of_newest, of_before] = [0, 1].map(|at: usize| objects(&manifests[at]));
    let name = of_newest.iter().find(|name| !of_before.contains(*name)).expect("some state has changed");
    let state = place.data().join("pipelines/victim/checkpoints/objects").join(name);
    let mut bytes = std::fs::read(&state).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&state, bytes).unwrap();

    let refused = place.run(&["--set", RATE]);
    assert_eq!(refused.status, Some(1), "{}", refused.stderr);
    for line in ["its bytes are not those that were written", name.as_str(), &format!("--checkpoint {before}")] {
        assert!(refused.stderr.contains(line), "{line} is missing in\n{}", refused.stderr);
    }
    place.run(&["--set", RATE, "--checkpoint", &before.to_string()]).expect_success();
    place.compare("recovery_damaged");
}
