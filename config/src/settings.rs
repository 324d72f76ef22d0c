//! System settings: where data lives and how a process runs, apart from any pipeline.
//!
//! They come from `marketprism.toml` beside the pipeline, environment variables and flags, in rising order, and are read
//! and checked like a pipeline: every error at once, each where it stands.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::diagnostic::{Diagnostics, Finding, Place};
use crate::document::{Document, Environment, NESTING, decode, unreadable};
use crate::options::Reader;
use crate::schema::{Property, Schema};
use crate::values::{Duration, Secret};
use crate::words;

/// The file that settings stand in.
pub const FILE: &str = "marketprism.toml";
/// What the names of environment variables that are settings begin with: `MARKETPRISM_HOT__URL` is `hot.url`.
pub const PREFIX: &str = "MARKETPRISM_";

/// Reads the settings: `marketprism.toml` in `folder` if it is there, the environment, and `overrides` (`KEY=VALUE`, as in
/// `--set hot.url=...`).
///
/// # Errors
/// Everything that is wrong with them.
pub fn load(folder: &Path, environment: &Environment, overrides: &[String]) -> Result<Settings, Diagnostics> {
    let path = folder.join(FILE);
    let name = path.display().to_string();
    let text = match std::fs::read(&path) {
        Ok(bytes) => decode(&name, bytes)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(unreadable(&name, &error)),
    };
    parse(&name, &text, folder, environment, overrides)
}

/// Like [`load`], from a text. `name` stands for it in diagnostics, and relative `${file:PATH}`s start in `folder`.
///
/// # Errors
/// Everything that is wrong with them.
pub fn parse(name: &str, text: &str, folder: &Path, environment: &Environment, overrides: &[String]) -> Result<Settings, Diagnostics> {
    let schema = schema();
    let schema = Schema::new(&schema);
    let mut document = Document::of(name, text, folder);
    for (name, value) in environment.iter() {
        if is_setting(name, &schema.properties()) {
            document.set_variable(PREFIX, name, value);
        }
    }
    document.set_flags(overrides);
    document.expand(environment);
    read(document, schema)
}

/// Whether a `KEY=VALUE` is about the pipeline rather than the system.
pub fn concerns_pipeline(assignment: &str) -> bool {
    let key = assignment.split(['=', '.']).next().unwrap_or_default().trim();
    ["name", "sources", "operators", "sinks"].contains(&key) || words::closest(key, ["sources", "operators", "sinks"]).is_some()
}

/// The JSON Schema of the settings.
pub fn schema() -> Json {
    schemars::schema_for!(Settings).to_value()
}

fn read(document: Document, schema: Schema<'_>) -> Result<Settings, Diagnostics> {
    let mut reader = Reader::new(&document, "setting", String::new());
    let trusted = !document.is_broken();
    let json = if trusted { reader.table(&document.root, Place::top(0), schema, &[]) } else { None };
    let mut findings = document.findings.clone();
    findings.append(&mut reader.findings);
    let mut sources = document.sources.clone();
    for mask in reader.masks {
        sources[mask.source].masks.push(mask.start..mask.end);
    }
    match json.map(serde_json::from_value::<Settings>) {
        Some(Ok(settings)) if findings.is_empty() => return Ok(settings),
        Some(Err(error)) => findings.push(Finding::error("bad_setting", Place::top(0), error.to_string(), "correct the settings")),
        _ => {}
    }
    Err(Diagnostics::new(&sources, findings))
}

/// Whether an environment variable is meant as a setting: it names one, nests like one, or nearly spells one. Other
/// variables of the prefix belong to someone else.
fn is_setting(name: &str, settings: &[Property<'_>]) -> bool {
    let Some(key) = name.strip_prefix(PREFIX).filter(|k| !k.is_empty()) else { return false };
    let first = key.split(NESTING).next().unwrap_or_default().to_lowercase();
    key.contains(NESTING) || words::closest(&first, settings.iter().map(|p| p.name)).is_some()
}

/// Everything that `marketprism.toml` can say.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Settings {
    /// The folder for local state: journals and, unless said otherwise, checkpoints and the cold store. Default `data`.
    pub data: Option<String>,
    /// Number of worker threads. Default: the number of processors, at most 4.
    #[schemars(range(min = 1, max = 1024))]
    pub workers: Option<usize>,
    /// The cold store: Delta tables in a folder or a bucket.
    pub cold: ColdStore,
    /// The hot store: ClickHouse. Without it, SQL reads the cold store alone.
    pub hot: Option<HotStore>,
    /// Checkpoints of pipelines.
    pub checkpoints: Checkpoints,
    /// What `marketprism node` does, and where the commands that speak to a node find it.
    pub node: Node,
    /// The cluster that a node belongs to. Without it, the node is alone.
    pub cluster: Option<Cluster>,
    /// Logging to standard error.
    pub log: Log,
}

impl Settings {
    /// The folder for local state.
    pub fn data(&self) -> &str {
        self.data.as_deref().unwrap_or("data")
    }

    /// Where the cold tables lie: the URL that is set, or a folder below the data folder.
    pub fn cold_url(&self) -> String {
        self.cold.url.clone().unwrap_or_else(|| format!("{}/cold", self.data()))
    }

    /// Where checkpoints lie: the URL that is set, or the data folder.
    pub fn checkpoints_url(&self) -> &str {
        self.checkpoints.url.as_deref().unwrap_or(self.data())
    }

    /// Where checkpoints lie, if every machine reaches it: then the journal lies there, too.
    pub fn shared_checkpoints(&self) -> Option<&str> {
        self.checkpoints.url.as_deref().filter(|url| url.contains("://") && !url.starts_with("file://"))
    }

    /// Number of worker threads.
    pub fn workers(&self) -> usize {
        self.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get().min(4)))
    }
}

/// A node: see `docs/cluster.md`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Node {
    /// The address that the node serves its API on, of the loopback: there is no authentication yet. Port 0 is any that is free.
    /// Default `127.0.0.1:7410`.
    pub listen: Option<String>,
    /// The node's name: letters, digits, `_` and `-`. Default `local`.
    pub name: Option<String>,
    /// How often a pipeline that crashes is started again, without being `healthy` between two crashes, before it has
    /// failed. Default 20: some eight minutes.
    pub restarts: Option<u32>,
    /// How long a pipeline must run for its crashes to be forgotten: the delay before it is started again is half a second then.
    /// Default `1m`.
    pub healthy: Option<Duration>,
}

impl Node {
    /// The address of the API.
    pub fn listen(&self) -> &str {
        self.listen.as_deref().unwrap_or("127.0.0.1:7410")
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("local")
    }

    /// How often a pipeline that crashes is started again.
    pub fn restarts(&self) -> u32 {
        self.restarts.unwrap_or(20)
    }

    /// How long a pipeline must run for its crashes to be forgotten.
    pub fn healthy(&self) -> std::time::Duration {
        self.healthy.map_or(std::time::Duration::from_secs(60), |healthy| healthy.0)
    }
}

/// What the nodes of a cluster share, the same on all of them: see `docs/cluster.md`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct Cluster {
    /// Addresses of the NATS servers that keep what the nodes agree on: `nats://127.0.0.1:4222`, or `tls://` for TLS.
    pub nats: Vec<String>,
    /// The cluster's name: letters, digits, `_` and `-`. Clusters of different names share NATS servers without seeing
    /// each other. Default `marketprism`.
    #[serde(default)]
    pub name: Option<String>,
    /// On how many NATS servers everything is kept. Default: 3, or 1 where `nats` names a single server.
    #[serde(default)]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<u32>,
    /// The user. Needs `password`.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A token instead of a user.
    #[serde(default)]
    pub token: Option<Secret>,
    /// A file with an nkey seed (`SU...`), instead of a user.
    #[serde(default)]
    pub nkey: Option<PathBuf>,
    /// A credentials file (`.creds`: a JWT with its seed), instead of a user.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// A file with the certificates (PEM) that the servers' certificates are signed with. Default: the system's.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// A file with our own certificate (PEM), where the servers ask for one. Needs `tls_key`.
    #[serde(default)]
    pub tls_certificate: Option<PathBuf>,
    /// A file with the key (PEM) of `tls_certificate`.
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// The JetStream domain, where it is not the account's own.
    #[serde(default)]
    pub domain: Option<String>,
}

impl Cluster {
    /// The cluster's name.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("marketprism")
    }

    /// On how many NATS servers everything is kept.
    pub fn replicas(&self) -> u32 {
        self.replicas.unwrap_or(if self.nats.len() == 1 { 1 } else { 3 })
    }
}

/// Where cold tables live.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ColdStore {
    /// A folder, or `s3://bucket/prefix`. Default: `cold` in the data folder.
    pub url: Option<String>,
    /// The endpoint of an S3-compatible store, e.g. `http://127.0.0.1:9000`. Default: AWS.
    pub endpoint: Option<String>,
    /// The region. Default `us-east-1`.
    pub region: Option<String>,
    /// The access key. Default: the AWS environment variables, or the instance's role.
    pub access_key: Option<Secret>,
    /// The secret key.
    pub secret_key: Option<Secret>,
}

/// Where hot tables live.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct HotStore {
    /// ClickHouse's HTTP address, e.g. `http://127.0.0.1:8123`.
    pub url: String,
    /// The database; created if it does not exist.
    #[serde(default = "default_database")]
    pub database: String,
    /// The user.
    #[serde(default = "default_user")]
    pub user: String,
    /// The password.
    #[serde(default)]
    pub password: Secret,
    /// Days after which rows are dropped from hot tables; 0 keeps them.
    #[serde(default = "default_keep_days")]
    pub keep_days: u32,
    /// Days after which rows move to the volume `warm` of `storage_policy`.
    pub warm_after_days: Option<u32>,
    /// The storage policy of the tables; needs a volume `warm` if `warm_after_days` is set.
    pub storage_policy: Option<String>,
}

fn default_database() -> String {
    "marketprism".into()
}

fn default_user() -> String {
    "default".into()
}

fn default_keep_days() -> u32 {
    7
}

/// When and where a pipeline's state is stored, so that a run goes on behind it and not from the beginning.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Checkpoints {
    /// From the beginning of one checkpoint to the next, 100 ms at least.
    pub interval: Duration,
    /// A folder, or `s3://bucket/prefix` with the endpoint, region and keys of `[cold]`. Default: the data folder. Below
    /// it, those of a pipeline lie in `pipelines/NAME/checkpoints`.
    pub url: Option<String>,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Checkpoints { interval: Duration::seconds(10), url: None }
    }
}

/// Logging to standard error.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Log {
    /// What to log, as a `tracing` filter. Default `info`.
    pub level: Option<String>,
    /// How to write it.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, environment: &[(&str, &str)], overrides: &[&str]) -> Result<Settings, Diagnostics> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), text).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_owned()).collect();
        load(folder.path(), &environment.iter().copied().collect(), &overrides)
    }

    #[test]
    fn without_a_file_everything_has_its_default() {
        let folder = tempfile::tempdir().unwrap();
        let settings = load(folder.path(), &Environment::default(), &[]).unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!((settings.data(), settings.cold_url().as_str()), ("data", "data/cold"));
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let text = "workers = 1\ndata = \"file\"\n[hot]\nurl = \"http://file\"\ndatabase = \"d\"\n";
        let environment = [("MARKETPRISM_DATA", "env"), ("MARKETPRISM_HOT__URL", "http://env"), ("MARKETPRISM_WORKERS", "2")];
        let settings = load_text(text, &environment, &["workers=3", "hot.url=http://flag"]).unwrap();
        let hot = settings.hot.unwrap();
        assert_eq!((settings.workers, settings.data.as_deref()), (Some(3), Some("env")));
        assert_eq!((hot.url.as_str(), hot.database.as_str(), hot.user.as_str(), hot.keep_days), ("http://flag", "d", "default", 7));
    }

    #[test]
    fn a_cluster_is_kept_on_three_servers_unless_there_is_one() {
        let cluster = |text: &str| load_text(text, &[], &[]).unwrap().cluster.unwrap();
        let one = cluster("[cluster]\nnats = [\"nats://a\"]\n");
        let three = cluster("[cluster]\nname = \"desk\"\nnats = [\"nats://a\", \"nats://b\", \"nats://c\"]\n");
        assert_eq!((one.name(), one.replicas(), three.name(), three.replicas()), ("marketprism", 1, "desk", 3));
        assert!(load_text("[cluster]\nname = \"desk\"\n", &[], &[]).unwrap_err().to_string().contains("`cluster.nats` is missing"));
    }

    #[test]
    fn a_value_from_the_environment_is_taken_as_it_is() {
        let environment = [("MARKETPRISM_HOT__URL", "http://h"), ("MARKETPRISM_HOT__PASSWORD", "12345"), ("MARKETPRISM_DATA", "a$$b${C}")];
        let settings = load_text("", &environment, &[]).unwrap();
        assert_eq!(settings.hot.unwrap().password.expose(), "12345");
        assert_eq!(settings.data.as_deref(), Some("a$$b${C}"));
    }

    #[test]
    fn secrets_come_from_variables_and_files_and_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "from-file\n").unwrap();
        let text = "[cold]\naccess_key = \"${KEY_ID}\"\nsecret_key = \"${file:key}\"\n";
        std::fs::write(folder.path().join(FILE), text).unwrap();
        let settings = load(folder.path(), &[("KEY_ID", "from-variable")].into_iter().collect(), &[]).unwrap();
        assert_eq!(settings.cold.access_key.as_ref().unwrap().expose(), "from-variable");
        assert_eq!(settings.cold.secret_key.as_ref().unwrap().expose(), "from-file");
        assert!(!format!("{settings:?}").contains("from-"));
    }

    #[test]
    fn every_error_is_told_where_it_stands() {
        let text = "worker = 2\n[hot]\npasswort = \"hunter2\"\nkeep_days = -1\n[log]\nformat = \"xml\"\n";
        let environment =
            [("MARKETPRISM_COLD__ULR", "hunter2"), ("MARKETPRISM_WORKERS", "0"), ("MARKETPRISM_SERVERS", "x"), ("OTHER", "y")];
        let error = load_text(text, &environment, &[]).unwrap_err();
        let told: Vec<String> = error.iter().map(|d| format!("{}:{} {}", d.line, d.column, d.message)).collect();
        assert_eq!(
            told,
            [
                "1:1 unknown setting `worker`",
                "2:2 setting `hot.url` is missing",
                "3:1 unknown setting `passwort` in `hot`",
                "4:13 setting `hot.keep_days` is out of range",
                "6:10 setting `log.format` cannot be `xml`",
                "1:19 unknown setting `ulr` in `cold`",
                "1:21 setting `workers` is out of range",
            ]
        );
        let files: Vec<&str> = error.iter().map(|d| d.file.as_str()).collect();
        assert_eq!(&files[5..], ["environment", "environment"]);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_flag_is_the_pipelines_or_the_systems() {
        assert!(concerns_pipeline("sources.trades.path=x") && concerns_pipeline("name=x") && concerns_pipeline("source.trades.path=x"));
        assert!(!concerns_pipeline("hot.url=x") && !concerns_pipeline("workers=2") && !concerns_pipeline("nonsense"));
    }
}
