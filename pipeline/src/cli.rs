//! The command line.
//!
//! Results go to standard output, everything else to standard error. The exit status is 0 when all is well, 1
//! when a pipeline, a run or a query has errors, 2 when the command itself is wrong.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ::cluster::lock::{Lock, LockError};
use ::cluster::protocol::{REFUSED, UNFINISHED};
use clap::{Parser, Subcommand, ValueEnum};
use config::settings::{LogFormat, Settings};
use config::{Diagnostics, Document, Environment, manual, settings};
use query::Answer;
use query::output::Format;
use sources::live;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::checkpoint;
use crate::monitor::Monitor;
use crate::plan::{Pipeline, Plan, registry};
use crate::resume::Choice;
use crate::run::{self, Handle};
use crate::worker;

mod cluster;

/// How long `run` waits for stores and sources that are away when it starts: a wrong address is to be seen soon.
const PATIENCE: Duration = Duration::from_secs(5);

/// A stream processor for market data.
#[derive(Debug, Parser)]
#[command(name = "marketprism", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline until its sources end, or until Ctrl-C drains it; a second Ctrl-C stops at once
    Run {
        /// The pipeline file
        file: PathBuf,
        /// Number of worker threads
        #[arg(long)]
        workers: Option<usize>,
        #[command(flatten)]
        common: Common,
        /// How the summary is written to standard output
        #[arg(long, value_enum, default_value_t)]
        format: Report,
        #[command(flatten)]
        going_on: GoingOn,
    },
    /// List the checkpoints of a pipeline, newest first
    Checkpoints {
        /// The pipeline file
        file: PathBuf,
        /// How they are written
        #[arg(long, value_enum, default_value_t)]
        format: Report,
        #[command(flatten)]
        common: Common,
    },
    /// Find every error in pipeline files; touches nothing outside
    Validate {
        /// The pipeline files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// How the errors are written
        #[arg(long, value_enum, default_value_t)]
        format: Report,
        #[command(flatten)]
        common: Common,
    },
    /// Show the dataflow of a pipeline, with the kinds and columns on each edge
    Graph {
        /// The pipeline file
        file: PathBuf,
        /// How it is drawn
        #[arg(long, value_enum, default_value_t)]
        format: Drawing,
        #[command(flatten)]
        common: Common,
    },
    /// Print the JSON Schema of pipeline files, for editors
    Schema,
    /// Explain one source, operator or sink: its options and an example
    Explain {
        /// Its type, e.g. `bars`; without it, all types are listed
        component: Option<String>,
    },
    /// Print the manual's reference of all components, kinds and settings, or an operator's page, as Markdown
    Reference {
        /// An operator's type, e.g. `bars`
        operator: Option<String>,
    },
    /// Query hot and cold tables together
    Sql {
        /// The query
        query: String,
        /// How the rows are written
        #[arg(long, value_enum, default_value_t = Rows::Table)]
        format: Rows,
        /// Write to this file instead of standard output
        #[arg(long)]
        output: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// List the venues that can be listened to, their markets and what they tell
    Venues {
        /// How they are written
        #[arg(long, value_enum, default_value_t = Rows::Table)]
        format: Rows,
    },
    /// List instruments as their venue lists them now
    Instruments {
        /// Canonical symbols or globs, e.g. `BTC-USDT` or `ETH-*`; a perpetual is meant with or without its `-PERP`
        #[arg(default_value = "*")]
        symbols: Vec<String>,
        /// The venue, e.g. `binance`; `venues` lists them
        #[arg(long)]
        venue: String,
        /// Only this market of the venue; may be given several times
        #[arg(long = "market")]
        markets: Vec<String>,
        /// Where the venue is asked instead of at its own address
        #[arg(long)]
        rest_url: Option<String>,
        /// An HTTP proxy that the venue is asked through
        #[arg(long)]
        proxy: Option<String>,
        /// How the rows are written
        #[arg(long, value_enum, default_value_t = Rows::Table)]
        format: Rows,
        /// Write to this file instead of standard output
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// List the tables, where they live and what they hold
    Tables {
        #[command(flatten)]
        common: Common,
    },
    /// Run a node: it keeps pipelines running and is asked by the commands below; Ctrl-C drains them
    Node {
        #[command(flatten)]
        common: Common,
    },
    #[command(flatten)]
    Cluster(cluster::Command),
    /// Run a pipeline for the agent at the other end of standard input
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Override any key of the pipeline or the settings, e.g. `sources.trades.path=trades.ndjson`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<String>,
    /// The folder for local state; the setting `data`
    #[arg(long)]
    data: Option<String>,
    /// How log lines are written
    #[arg(long, value_enum)]
    log: Option<Log>,
}

/// What a run does about earlier ones of the same pipeline. It goes on where they were.
#[derive(Debug, clap::Args)]
struct GoingOn {
    /// Read everything from the beginning instead of going on; rows that are stored stay
    #[arg(long)]
    fresh: bool,
    /// Go on although the pipeline computes something else than before
    #[arg(long, conflicts_with = "fresh")]
    accept: bool,
    /// Go on from this checkpoint instead of the newest; `checkpoints` lists them
    #[arg(long, value_name = "CHECKPOINT", conflicts_with = "fresh")]
    checkpoint: Option<u64>,
}

fn assignment(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("write KEY=VALUE, e.g. `sources.trades.path=trades.ndjson`".into()),
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Report {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Drawing {
    /// Plain text
    #[default]
    Text,
    /// A Mermaid flowchart
    Mermaid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rows {
    /// For people
    Table,
    /// Comma-separated values with a header
    Csv,
    /// One JSON array
    Json,
    /// One JSON object a line
    Ndjson,
    /// Parquet
    Parquet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Log {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// What a command that failed has to say.
enum Failure {
    /// Errors in a file, with their places.
    Diagnostics(Diagnostics),
    /// Anything else.
    Message(String),
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Failure::Diagnostics(diagnostics)
    }
}

macro_rules! failures {
    ($($error:ty),*) => { $( impl From<$error> for Failure {
        fn from(error: $error) -> Self {
            Failure::Message(error.to_string())
        }
    } )* };
}

failures!(
    std::io::Error,
    serde_json::Error,
    query::QueryError,
    run::RunError,
    storage::StorageError,
    ::cluster::agent::NodeError,
    ::cluster::store::StoreError,
    ::cluster::api::ListenError,
    ::cluster::client::ClientError,
    sources::SourceError
);

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli.command) {
        Ok(code) => code,
        Err(Failure::Diagnostics(diagnostics)) => {
            complain(&diagnostics.to_text(std::io::stderr().is_terminal()));
            complain(&diagnostics.summary());
            ExitCode::FAILURE
        }
        Err(Failure::Message(message)) => {
            complain(&format!("error: {message}"));
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Run { file, workers, common, format, going_on } => {
            let choice =
                Choice { fresh: going_on.fresh, accept: going_on.accept, checkpoint: going_on.checkpoint, patience: Some(PATIENCE) };
            execute_run(&file, workers, &common, format, choice)
        }
        Command::Checkpoints { file, format, common } => checkpoints(&file, &common, format),
        Command::Validate { files, format, common } => validate(&files, &common, format),
        Command::Graph { file, format, common } => {
            let (pipeline, _) = check(&file, &common)?;
            say(&match format {
                Drawing::Text => pipeline.to_text(),
                Drawing::Mermaid => pipeline.to_mermaid(),
            });
            Ok(ExitCode::SUCCESS)
        }
        Command::Schema => {
            say(&serde_json::to_string_pretty(&manual::schema(&registry()))?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Explain { component } => {
            let registry = registry();
            match component {
                Some(name) => say(&manual::explain(&registry, &name).map_err(Failure::Message)?),
                None => {
                    let names = |role: &str, names: Vec<&str>| say(&format!("{role}: {}", names.join(", ")));
                    names("sources", registry.sources.iter().map(|d| d.name).collect());
                    names("operators", registry.operators.iter().map(|d| d.name).collect());
                    names("sinks", registry.sinks.iter().map(|d| d.name).collect());
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Reference { operator } => {
            say(&match operator {
                Some(name) => manual::page(&registry(), &name).map_err(Failure::Message)?,
                None => crate::reference::markdown(),
            });
            Ok(ExitCode::SUCCESS)
        }
        Command::Sql { query, format, output, common } => {
            let settings = system(Path::new("."), &common)?;
            start_log(&settings, common.log, "warn");
            sql(&settings, &query, format, output.as_deref())
        }
        Command::Venues { format } => write_rows(async { Ok(Answer::of(live::venues())) }, format, None),
        Command::Instruments { symbols, venue, markets, rest_url, proxy, format, output } => {
            let question = live::Question { venue, markets, symbols, rest_url, proxy };
            write_rows(async { Ok(Answer::of(live::instruments(question).await?)) }, format, output.as_deref())
        }
        Command::Tables { common } => {
            let settings = system(Path::new("."), &common)?;
            start_log(&settings, common.log, "warn");
            tables(&settings)
        }
        Command::Node { common } => cluster::node(&common),
        Command::Cluster(command) => cluster::execute(command),
        Command::Worker => execute_worker(),
    }
}

fn execute_run(file: &Path, workers: Option<usize>, common: &Common, format: Report, choice: Choice) -> Result<ExitCode, Failure> {
    let (pipeline, mut settings) = check(file, common)?;
    settings.workers = workers.or(settings.workers);
    start_log(&settings, common.log, "info");
    let plan = Arc::new(Plan::new(pipeline));
    let _lock = hold(&settings, &plan.name, Duration::ZERO)?;
    let handle = Handle::default();
    watch_signals(&handle)?;
    let monitor = Monitor::start(plan.clone());
    let result = run::run(plan, &Arc::new(settings), &handle, choice, None);
    drop(monitor);
    let summary = result?;
    match format {
        Report::Text => say(summary.to_text().trim_end()),
        Report::Json => say(&serde_json::to_string(&summary)?),
    }
    Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn checkpoints(file: &Path, common: &Common, format: Report) -> Result<ExitCode, Failure> {
    let (pipeline, settings) = check(file, common)?;
    start_log(&settings, common.log, "warn");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let store = checkpoint::Store::open(&settings, &pipeline.name)?;
    let manifests = runtime.block_on(async {
        let mut manifests = Vec::new();
        for barrier in store.list().await? {
            match store.manifest(&pipeline.name, barrier).await {
                Ok(manifest) => manifests.push(manifest),
                // A run beside this one removes those that are old.
                Err(_) if !store.list().await?.contains(&barrier) => {}
                Err(error) => return Err(error),
            }
        }
        Ok::<_, storage::StorageError>(manifests)
    })?;
    match format {
        Report::Json => say(&serde_json::to_string(&manifests)?),
        Report::Text if manifests.is_empty() => complain(&format!("pipeline `{}` has no checkpoints", pipeline.name)),
        Report::Text => say(checkpoint::table(&manifests).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the pipeline that the agent assigns, and tells the agent how it is.
fn execute_worker() -> Result<ExitCode, Failure> {
    /// How long the process of an earlier generation, which is being killed, may hold the pipeline.
    const PATIENCE: Duration = Duration::from_secs(20);
    let assignment = worker::receive()?;
    let number = assignment.generation.number;
    let worker::Job { pipeline, settings, warnings } = worker::check(&assignment)?;
    start_log(&settings, None, "info");
    if !warnings.is_empty() {
        complain(warnings.to_text(false).trim_end());
    }
    let plan = Arc::new(Plan::new(pipeline));
    let handle = Handle::default();
    watch_signals(&handle)?;
    let listener = worker::listen(&assignment)?;
    let addresses = worker::obey(&handle, assignment.silence.map(Duration::from_secs))?;
    let reporter = worker::Reporter::start(plan.clone(), number, handle.clone());
    let mesh = listener.map(|listener| worker::meet(&assignment, &listener, &addresses)).transpose()?;
    let settings = Arc::new(settings);
    let ended = if assignment.process == 0 {
        let _lock = hold(&settings, &plan.name, PATIENCE)?;
        run::run(plan, &settings, &handle, Choice { accept: assignment.accept, ..Choice::default() }, mesh).map(Some)
    } else if let Some(mesh) = mesh {
        run::assist(&plan, &settings, &handle, mesh).map(|()| None)
    } else {
        return Err(Failure::Message(format!("process {} was assigned without others", assignment.process)));
    };
    let summary = match ended.inspect_err(|_| reporter.stop()) {
        Err(error) if error.needs_a_decision() => {
            complain(&format!("error: {error}"));
            return Ok(ExitCode::from(if error.is_unfinished() { UNFINISHED } else { REFUSED }));
        }
        ended => ended?,
    };
    if let Some(summary) = &summary {
        complain(summary.to_text().trim_end());
    }
    reporter.end(summary.as_ref());
    Ok(if summary.is_none_or(|summary| summary.is_good()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Takes a pipeline for this process: two that run it over one data folder would store its rows twice.
fn hold(settings: &Settings, pipeline: &str, patience: Duration) -> Result<Lock, Failure> {
    Lock::take(&Lock::of_pipeline(Path::new(settings.data()), pipeline), patience).map_err(|error| {
        Failure::Message(match error {
            LockError::Held { holder, .. } => format!(
                "pipeline `{pipeline}` is run by process {holder} over {} already; stop that one, or use another folder with `--data`",
                settings.data()
            ),
            error => error.to_string(),
        })
    })
}

/// The first Ctrl-C (or SIGTERM) drains, the second stops at once.
fn watch_signals(handle: &Handle) -> Result<(), Failure> {
    let handle = handle.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::watch()?
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            signals.next().await;
            complain("draining: what was read is being committed; Ctrl-C again stops at once");
            handle.drain();
            signals.next().await;
            std::process::exit(130);
        });
    })?;
    Ok(())
}

/// Signals that ask for an end. They are watched from the moment that this is made.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn watch() -> std::io::Result<Self> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn validate(files: &[PathBuf], common: &Common, format: Report) -> Result<ExitCode, Failure> {
    let mut all = Diagnostics::default();
    for file in files {
        match check_pipeline(file, common) {
            Ok((_, warnings)) => all.append(warnings),
            Err(errors) => all.append(errors),
        }
    }
    // A run would refuse them, too; several files of a folder share them.
    for folder in files.iter().map(|file| folder_of(file)).collect::<BTreeSet<_>>() {
        system(folder, common).err().into_iter().for_each(|errors| all.append(errors));
    }
    match format {
        Report::Json => say(&serde_json::to_string_pretty(&all.to_json())?),
        Report::Text => {
            if !all.is_empty() {
                complain(&all.to_text(std::io::stderr().is_terminal()));
            }
            complain(&if all.is_empty() {
                format!("{} valid", if files.len() == 1 { "the file is" } else { "all files are" })
            } else {
                all.summary()
            });
        }
    }
    Ok(if all.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The pipeline of a file, with its warnings.
fn check_pipeline(file: &Path, common: &Common) -> Result<(Pipeline, Diagnostics), Diagnostics> {
    let overrides: Vec<String> = common.set.iter().filter(|s| settings::concerns_pipeline(s)).cloned().collect();
    let document = Document::read(file, &overrides, &Environment::of_process())?;
    config::check(document, &registry())
}

/// The pipeline of a file and the settings beside it; warnings are shown.
fn check(file: &Path, common: &Common) -> Result<(Pipeline, Settings), Failure> {
    let (pipeline, warnings) = check_pipeline(file, common)?;
    if !warnings.is_empty() {
        complain(&warnings.to_text(std::io::stderr().is_terminal()));
    }
    Ok((pipeline, system(folder_of(file), common)?))
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The settings of a folder under the environment and the flags.
fn system(folder: &Path, common: &Common) -> Result<Settings, Diagnostics> {
    let overrides: Vec<String> = common.set.iter().filter(|s| !settings::concerns_pipeline(s)).cloned().collect();
    let mut settings = settings::load(folder, &Environment::of_process(), &overrides)?;
    settings.data = common.data.clone().or(settings.data);
    Ok(settings)
}

fn start_log(settings: &Settings, format: Option<Log>, level: &str) {
    // What libraries log at `info` is for their own developers.
    let ours = ["pipeline", "sources", "operators", "sinks", "storage", "query", "cluster"].map(|name| format!(",{name}={level}")).concat();
    let default = || EnvFilter::new(format!("warn{ours}"));
    let filter = settings.log.level.as_deref().map_or_else(default, |level| EnvFilter::try_new(level).unwrap_or_else(|_| default()));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = format.map_or(settings.log.format == LogFormat::Json, |f| f == Log::Json);
    if json { builder.json().init() } else { builder.with_ansi(std::io::stderr().is_terminal()).init() }
}

fn sql(settings: &Settings, sql: &str, format: Rows, output: Option<&Path>) -> Result<ExitCode, Failure> {
    write_rows(async { Ok(query::Engine::open(settings)?.sql(sql).await?) }, format, output)
}

/// Writes an answer to a file or to standard output.
fn write_rows(answer: impl Future<Output = Result<Answer, Failure>>, format: Rows, output: Option<&Path>) -> Result<ExitCode, Failure> {
    let format = match format {
        Rows::Table => Format::Table,
        Rows::Csv => Format::Csv,
        Rows::Json => Format::Json,
        Rows::Ndjson => Format::Ndjson,
        Rows::Parquet => Format::Parquet,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let answer = answer.await?;
        let mut out = Stdout { out: io::stdout(), gone: false };
        let written = match output {
            Some(path) => query::output::write_file(answer, format, path).await,
            None => query::output::write(answer, format, &mut out).await,
        };
        match written {
            Err(_) if out.gone => Ok(ExitCode::SUCCESS),
            written => Ok(written.map(|_| ExitCode::SUCCESS)?),
        }
    })
}

fn tables(settings: &Settings) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let tables = query::Engine::open(settings)?.tables().await?;
        for table in &tables {
            say(&describe(table));
        }
        if tables.is_empty() {
            complain(&format!("there are no tables in {}; run a pipeline with a `parquet` or `clickhouse` sink", settings.cold_url()));
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// A table, in a few lines.
fn describe(table: &query::TableInfo) -> String {
    let rows = |tier: &str, rows: Option<u64>| rows.map(|n| format!("{n} rows in {tier}"));
    let mut facts: Vec<String> = rows("cold", table.cold_rows).into_iter().chain(rows("hot", table.hot_rows)).collect();
    facts.extend(table.boundary.map(|b| format!("boundary {}", model::time::display(b))));
    let columns: Vec<String> = table.columns.iter().map(|c| format!("{} {}", c.name, c.ty)).collect();
    format!("{}: {}\n    {}\n    {}", table.name, table.doc, facts.join(", "), columns.join(", "))
}

/// Standard output. A reader that has gone away (`| head`) ends a query, but is no error.
struct Stdout {
    out: io::Stdout,
    gone: bool,
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).inspect_err(|e| self.gone |= e.kind() == ErrorKind::BrokenPipe)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().inspect_err(|e| self.gone |= e.kind() == ErrorKind::BrokenPipe)
    }
}

/// Writes a result. A reader that has gone away (`| head`) is no error.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// Writes what is not a result.
fn complain(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}
