//! Runs that end before their time, and what the next run makes of that: nothing is lost, nothing is doubled, and
//! what cannot be gone on from is said.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use config::Environment;
use config::settings::{self, Settings};
use futures::TryStreamExt;
use model::crash;
use object_store::ObjectStoreExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;
use tests::node::Node;
use tests::program::{Output, Running, finish, program, root, until};
use tests::proxy::Proxy;
use tests::servers::{ClickHouse, SeaweedFs};

use crate::clickhouse::SERVER;
use crate::faults::{self, Fault};
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
pub const RATE: &str = "sources.market.rate=12_000";

/// The rows of each table, sorted, a text a row.
pub type Tables = BTreeMap<String, Vec<String>>;

/// A pipeline in a folder of its own.
pub struct Place {
    /// Where its file, its data and its log are.
    pub folder: TempDir,
    /// `KEY=VALUE`s that every command gets.
    pub settings: Vec<String>,
    /// Whether checkpoints and the journal lie in a bucket.
    shared: bool,
}

impl Place {
    /// Checkpoints are frequent, so that few rows are enough.
    pub fn new(pipeline: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pipeline.toml"), pipeline).unwrap();
        Place { folder, settings: vec!["checkpoints.interval=\"200ms\"".into()], shared: false }
    }

    /// Lets its checkpoints and its journal lie in a bucket of its own.
    fn share(mut self, bucket: &str) -> Place {
        BUCKETS.create_bucket(bucket).unwrap();
        self.settings.extend(SeaweedFs::settings(&BUCKETS.s3_url()));
        self.settings.push(format!("checkpoints.url=\"s3://{bucket}/state\""));
        self.shared = true;
        self
    }

    /// Its settings, without a hot store: queries are to see the cold tables alone.
    fn cold_settings(&self) -> Settings {
        let settings = settings::load(self.folder.path(), &Environment::of_process(), &self.settings);
        let settings = settings.unwrap_or_else(|errors| panic!("{}", errors.to_text(false)));
        Settings { data: Some(self.data().display().to_string()), hot: None, ..settings }
    }

    pub fn data(&self) -> PathBuf {
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
        let before = self.committed();
        let mut run = self.start(&["--set", RATE]);
        until("a commit", || (run.ended().is_some() || self.committed() > before).then_some(()));
        assert_eq!(run.terminate(), Some(0), "{}", self.log());
    }

    /// Lets it come to its end.
    #[track_caller]
    fn finish(&self) {
        self.finish_at(RATE);
    }

    #[track_caller]
    fn finish_at(&self, rate: &str) {
        let summary = self.run(&["--set", rate]);
        assert_eq!(summary.status, Some(0), "{}\n{}", summary.stderr, self.log());
        assert!(summary.stdout.contains("the books balance"), "{}", summary.stdout);
    }

    /// Holds its tables, cold and in a database, to be those of a run that nothing befell.
    #[track_caller]
    pub fn compare(&self, database: &str) {
        let (cold, in_clickhouse) = &*STRAIGHT;
        compare("cold", cold, &self.cold());
        compare("hot", in_clickhouse, &hot(&SERVER, database));
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn journal(&self) -> String {
        if !self.shared {
            return std::fs::read_to_string(self.data().join("pipelines/victim/journal.ndjson")).unwrap_or_default();
        }
        let settings = self.cold_settings();
        let place = storage::Place::open(settings.shared_checkpoints().unwrap(), &settings.cold).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let folder = place.path("pipelines/victim/journal");
            let mut segments: Vec<_> = place.store().list(Some(&folder)).try_collect().await.unwrap();
            segments.sort_by(|a, b| a.location.cmp(&b.location));
            let mut text = String::new();
            for segment in segments {
                // One that is gone was replaced by a later one.
                let Ok(found) = place.store().get(&segment.location).await else { continue };
                text.push_str(std::str::from_utf8(&found.bytes().await.unwrap()).unwrap());
            }
            text
        })
    }

    /// The greatest logical time that a sink has committed.
    pub fn committed(&self) -> Option<u64> {
        let journal = self.journal();
        let commits = journal.lines().filter(|line| line.contains("\"commit\""));
        // The last line may be half written.
        commits.filter_map(|line| serde_json::from_str::<Value>(line).ok()?["upper"].as_u64()).max()
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
    pub fn cold(&self) -> Tables {
        let table = |name: String| {
            let columns = if name == "dead_letters" { "* EXCLUDE (rejected_time)" } else { "*" };
            let rows = self.ask(&format!("SELECT {columns} FROM {name}"));
            (name, rows)
        };
        self.ask("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'").into_iter().map(table).collect()
    }

    /// The rows of a query over the cold tables, sorted, a text a row.
    pub fn ask(&self, query: &str) -> Vec<String> {
        let rows = tokio::runtime::Runtime::new().unwrap().block_on(tiers::rows(&self.cold_settings(), query));
        let mut rows = rows.unwrap_or_else(|error| panic!("{query}: {error}"));
        rows.sort_unstable();
        rows
    }
}

/// The tables of a database in ClickHouse, without the versions of rows.
pub fn hot(server: &ClickHouse, database: &str) -> Tables {
    let names = server.query(&format!("SELECT name FROM system.tables WHERE database = '{database}'"));
    let table = |name: &str| {
        let columns = server.query(&format!(
            "SELECT arrayStringConcat(groupArray('`' || name || '`'), ', ') FROM system.columns WHERE database = '{database}' AND table = '{name}' AND name NOT IN ('version', 'is_deleted', 'rejected_time')"
        ));
        let revised =
            server.query(&format!("SELECT engine LIKE '%Replacing%' FROM system.tables WHERE database = '{database}' AND name = '{name}'"));
        let last = if revised == "1" { "FINAL" } else { "" };
        let text = server.query(&format!("SELECT {columns} FROM {database}.{name} {last} FORMAT JSONCompactEachRow"));
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
    (cold, hot(&SERVER, "recovery_straight"))
});

/// Holds tables to be equal, row for row.
#[track_caller]
pub fn compare(what: &str, expected: &Tables, found: &Tables) {
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

/// Like [`victim`], with everything that another machine needs to go on in buckets.
pub fn in_buckets(database: &str) -> Place {
    let bucket = database.replace('_', "-");
    let mut place = victim(database).share(&bucket);
    place.settings.push(format!("cold.url=\"s3://{bucket}/cold\""));
    place
}

pub fn victim(database: &str) -> Place {
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
    /// A checkpoint may take a second, and there have to be a few before the first is removed.
    const SLOWLY: &str = "sources.market.rate=4_000";
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
            let crashed = finish(place.command("run", &["--set", SLOWLY]).env(crash::VARIABLE, format!("{point}:{time}")));
            assert_eq!(crashed.status, None, "`{point}` was not passed {time} times:\n{}", crashed.stderr);
        }
        place.finish_at(SLOWLY);
        place.compare(&database);
    }
}

/// The store has a segment of the journal, and whoever wrote it does not know.
#[test]
fn a_journal_whose_answers_are_lost_goes_on() {
    let mut place = in_buckets("recovery_answers");
    let proxy = faults::Proxy::before(&BUCKETS.s3_url(), "PUT /recovery-answers/state/pipelines/victim/journal/").unwrap();
    let endpoint = place.settings.iter().position(|s| s.starts_with("cold.endpoint=")).unwrap();
    let direct = std::mem::replace(&mut place.settings[endpoint], format!("cold.endpoint=\"{}\"", proxy.url()));
    let mut run = place.start(&["--set", RATE]);
    until("a commit", || place.committed());
    let refuse = Fault::Refuse(403, "<Error><Code>AccessDenied</Code></Error>");
    proxy.next([Fault::LoseAnswer, refuse, Fault::Break, refuse, Fault::LoseAnswer]);
    let ended = until("its end", || run.ended());
    assert!(ended.success() && proxy.left() == 0, "{ended}, {} faults are left\n{}", proxy.left(), place.log());
    let waited = place.log().lines().any(|line| line.contains("waiting, and trying again") && line.contains("victim/journal"));
    assert!(waited, "{}", place.log());
    place.settings[endpoint] = direct;
    place.compare("recovery_answers");
}

/// A pipeline whose source never ended ran on without the sink.
#[test]
fn a_sink_that_gives_up_ends_a_run_whose_source_does_not_end() {
    let mut place = victim("recovery_gives_up");
    let proxy = Proxy::before(&SERVER.url()).unwrap();
    place.settings.push(format!("hot.url=\"{}\"", proxy.url()));
    place.settings.push("sources.market.frames=1_000_000_000".into());
    let mut run = place.start(&["--set", RATE, "--set", "sinks.hot.give_up_after=500ms"]);
    until("a commit", || place.journal().contains("\"hot\"").then_some(()));
    proxy.cut();
    let ended = until("its end", || run.ended());
    assert!(ended.code() == Some(1) && place.log().contains("sink `hot`"), "{ended}\n{}", place.log());
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

/// Copies the manifests of checkpoints, and nothing else.
fn copy_checkpoints(from: &Place, to: &Place) {
    let place = |place: &Place| {
        let settings = place.cold_settings();
        storage::Place::open(settings.shared_checkpoints().unwrap(), &settings.cold).unwrap()
    };
    let (from, to) = (place(from), place(to));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let folder = "pipelines/victim/checkpoints";
        for manifest in from.store().list_with_delimiter(Some(&from.path(folder))).await.unwrap().objects {
            let bytes = from.store().get(&manifest.location).await.unwrap().bytes().await.unwrap();
            let path = to.path(&format!("{folder}/{}", manifest.location.filename().unwrap()));
            to.store().put(&path, bytes.into()).await.unwrap();
        }
    });
}

#[test]
fn checkpoints_lie_in_a_bucket_as_they_do_in_a_folder() {
    let place = victim("recovery_bucket").share("recovery");
    place.start_and_stop();
    let first = place.checkpoints();
    assert!(!first.is_empty() && !place.data().join("pipelines/victim").join("journal.ndjson").exists(), "{}", place.log());
    // Half of a backup is refused.
    let elsewhere = victim("recovery_bucket").share("recovery-half");
    copy_checkpoints(&place, &elsewhere);
    let refused = elsewhere.run(&["--set", RATE]);
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("its checkpoints are there but its journal, which belongs to them, is gone"), "{}", refused.stderr);
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

/// Only the pipeline as it was can finish what it had begun to commit when it was killed.
#[test]
fn a_node_lets_a_changed_pipeline_finish_as_it_was_what_it_had_begun() {
    let place = victim("recovery_finishes");
    let node = Node::start(&place.data(), &place.settings);
    let file = place.file().display().to_string();
    node.run(&["submit", &file, "--set", RATE]).expect_success();
    node.wait_for_rows("victim");
    node.run(&["stop", "victim"]).expect_success();
    node.wait("victim", "stopped", |s| s["state"] == "stopped");
    let killed = finish(place.command("run", &["--set", RATE]).env(crash::VARIABLE, "intended:3"));
    assert_eq!(killed.status, None, "{killed:#?}");

    let text = std::fs::read_to_string(place.file()).unwrap();
    std::fs::write(place.file(), text.replace(r#"every = ["1s", "1m"]"#, r#"every = "1m""#)).unwrap();
    node.run(&["upgrade", &file, "--set", RATE, "--accept"]).expect_success();
    node.run(&["start", "victim"]).expect_success();
    let ended = node.wait("victim", "at its end", |s| s["state"] == "finished");
    let logs = node.run(&["logs", "victim"]).expect_success();
    assert_eq!((&ended["generation"]["number"], &ended["crashes"]), (&4.into(), &0.into()), "{ended:#}\n{logs}");
    assert!(logs.contains("-- finishing what it had begun to commit before it was changed"), "{logs}");
    let (mut cold, mut in_clickhouse) = STRAIGHT.clone();
    let (mut found_cold, mut found_hot) = (place.cold(), hot(&SERVER, "recovery_finishes"));
    for tables in [&mut cold, &mut in_clickhouse, &mut found_cold, &mut found_hot] {
        tables.remove("bars");
    }
    compare("cold, all but bars", &cold, &found_cold);
    compare("hot, all but bars", &in_clickhouse, &found_hot);
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
