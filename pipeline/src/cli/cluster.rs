//! The commands that run a node, and those that ask one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use cluster::agent::{Agent, NodeView, Options};
use cluster::api::{self, Rescale};
use cluster::client::Client;
use cluster::definition::{Difference, Spec};
use cluster::keeper::Status;
use cluster::store::{Nats, Store};
use cluster::supervisor::{Desired, Policy};
use config::Check;
use config::Environment;
use config::settings::{self, FILE};
use nats::{Connection, Servers};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use super::{Common, Failure, Report, Signals, assignment, check_pipeline, complain, folder_of, say, start_log, system};
use crate::summary::grouped;
use crate::worker::Checker;

/// How often a command that waits looks again.
const LOOK: Duration = Duration::from_millis(100);
/// How often `logs --follow` asks for more.
const FOLLOW: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Hand a pipeline to a node, which keeps it running
    Submit {
        /// The pipeline file
        file: PathBuf,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        node: Node,
    },
    /// List the pipelines of the cluster
    List {
        /// How they are written
        #[arg(long, value_enum, default_value_t)]
        format: Report,
        #[command(flatten)]
        node: Node,
    },
    /// Show how a pipeline is: its state, its nodes' rows, and why it waits or failed
    Status {
        /// The pipeline's name
        name: String,
        /// How it is written
        #[arg(long, value_enum, default_value_t)]
        format: Report,
        #[command(flatten)]
        node: Node,
    },
    /// Stop a pipeline once what it has read is committed
    Stop {
        /// The pipeline's name
        name: String,
        /// Kill it instead of draining it
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        node: Node,
    },
    /// Start a pipeline that was stopped, has failed or has finished
    Start {
        /// The pipeline's name
        name: String,
        #[command(flatten)]
        node: Node,
    },
    /// Replace a pipeline by what its file says now, and show what that changes
    Upgrade {
        /// The pipeline file
        file: PathBuf,
        /// Agree to lose what nodes that change or go have gathered
        #[arg(long)]
        accept: bool,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        node: Node,
    },
    /// Give a pipeline other numbers of worker threads and processes
    #[command(group(clap::ArgGroup::new("numbers").required(true).multiple(true)))]
    Rescale {
        /// The pipeline's name
        name: String,
        /// Number of worker threads of each process
        #[arg(long, group = "numbers")]
        workers: Option<usize>,
        /// Number of processes, which are spread over the nodes of the cluster
        #[arg(long, group = "numbers")]
        processes: Option<usize>,
        #[command(flatten)]
        node: Node,
    },
    /// Show what a pipeline's processes logged
    Logs {
        /// The pipeline's name
        name: String,
        /// How many of the last lines; a node keeps 1000 at hand
        #[arg(long, default_value_t = api::LOG_LINES)]
        lines: usize,
        /// Go on with what is logged from now on
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        node: Node,
    },
    /// List the nodes of the cluster
    Nodes {
        /// How they are written
        #[arg(long, value_enum, default_value_t)]
        format: Report,
        #[command(flatten)]
        node: Node,
    },
    /// Forget a pipeline that does not run: its definition, the positions of its sources, its logs; tables stay
    Delete {
        /// The pipeline's name
        name: String,
        #[command(flatten)]
        node: Node,
    },
}

/// How a pipeline is to run.
#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// Number of worker threads of each process
    #[arg(long)]
    workers: Option<usize>,
    /// Number of processes, which are spread over the nodes of the cluster
    #[arg(long)]
    processes: Option<usize>,
    /// Override any key of the pipeline or the settings, e.g. `sources.trades.path=trades.ndjson`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<String>,
}

/// Which node is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Node {
    /// The node's address; the setting `node.listen` unless said otherwise
    #[arg(long, value_name = "URL", env = "MARKETPRISM_API")]
    api: Option<String>,
}

/// Runs a node until a signal, and lets its pipelines drain then.
pub(super) fn node(common: &Common) -> Result<ExitCode, Failure> {
    if let Some(set) = common.set.iter().find(|s| settings::concerns_pipeline(s)) {
        return Err(Failure::Message(format!("`--set {set}` is about a pipeline, and a node has only settings; give it to `submit`")));
    }
    let folder = std::env::current_dir()?;
    let settings = system(Path::new("."), common)?;
    start_log(&settings, common.log, "info");
    let name = settings.node.name().to_owned();
    if name.contains('.') || ::cluster::store::check_key(&name).is_err() {
        return Err(Failure::Message(format!("`{name}` is no name of a node; give `node.name` letters, digits, `_` and `-`")));
    }
    // Where another node could run them, pipelines wait less long for a process that says nothing.
    const SILENCE: Duration = Duration::from_secs(15);
    let policy = if settings.cluster.is_some() { Policy { silence: SILENCE, ..Policy::default() } } else { Policy::default() };
    let cluster = settings.cluster.as_ref().map(|c| connection(c).map(|connection| (connection, c))).transpose()?;
    let options = Options {
        name: name.clone(),
        data: folder.join(settings.data()),
        settings_folder: folder.clone(),
        program: std::env::current_exe()?,
        overrides: common.set.clone(),
        policy: Policy { restarts: settings.node.restarts(), healthy: settings.node.healthy(), ..policy },
        address: settings.node.listen().to_owned(),
        cluster: None,
    };
    let checker = Checker { settings_folder: folder, overrides: common.set.clone() };
    Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let mut signals = Signals::watch()?;
        let listener = api::listen(settings.node.listen()).await?;
        let address = listener.local_addr()?;
        let opening = async {
            let store: Option<Arc<dyn Store>> = match &cluster {
                Some((connection, c)) => Some(Arc::new(Nats::open(connection, c.name(), c.replicas(), &name).await?)),
                None => None,
            };
            // Port 0 has become one that is free.
            let options = Options { address: address.to_string(), cluster: store, ..options };
            Ok::<_, Failure>(Arc::new(Agent::open(options, Box::new(checker)).await?))
        };
        let agent = tokio::select! {
            opened = opening => opened?,
            () = signals.next() => return Ok(ExitCode::SUCCESS),
        };
        say(&format!("node {name}: http://{address}"));
        let served = tokio::select! {
            served = api::serve(agent.clone(), listener) => served.map_err(Failure::from),
            tended = agent.tend() => tended.map_err(Failure::from),
            () = signals.next() => Ok(()),
        };
        complain("draining all pipelines: what was read is being committed; Ctrl-C again stops at once");
        tokio::select! {
            () = agent.close() => {}
            () = signals.next() => std::process::exit(130),
        }
        served?;
        Ok(ExitCode::SUCCESS)
    })
}

/// How a node connects to the servers of its cluster.
fn connection(cluster: &settings::Cluster) -> Result<Connection, Failure> {
    let settings::Cluster { nats, user, password, token, nkey, credentials, tls_ca, tls_certificate, tls_key, domain, .. } =
        cluster.clone();
    let servers = Servers::Several(nats);
    let connection = Connection { servers, user, password, token, nkey, credentials, tls_ca, tls_certificate, tls_key, domain };
    let mut check = Check::new("cluster", &[]);
    connection.check(&mut check);
    match check.into_problems().into_iter().next() {
        Some(problem) => Err(Failure::Message(format!("setting `cluster`: {}; {}", problem.message, problem.help))),
        None => Ok(connection),
    }
}

/// Asks a node.
pub(super) fn execute(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Submit { file, how, node } => {
            let (_, spec) = local(&file, &how)?;
            let (runtime, client) = node.client()?;
            let status = runtime.block_on(client.submit(&spec))?;
            say(&format!("{0}: {1}; `marketprism status {0}` shows how it is", status.name, status.state.as_str()));
        }
        Command::List { format, node } => {
            let (runtime, client) = node.client()?;
            let all = runtime.block_on(client.list())?;
            match format {
                Report::Json => say(&serde_json::to_string_pretty(&all)?),
                Report::Text if all.is_empty() => complain("there are no pipelines; `marketprism submit FILE` hands one to the node"),
                Report::Text => say(list(&all).trim_end()),
            }
        }
        Command::Status { name, format, node } => {
            let (runtime, client) = node.client()?;
            let status = runtime.block_on(client.status(&name))?;
            match format {
                Report::Json => say(&serde_json::to_string_pretty(&status)?),
                Report::Text => say(describe(&status).trim_end()),
            }
        }
        Command::Stop { name, now, node } => {
            let (runtime, client) = node.client()?;
            let status = runtime.block_on(async {
                let mut status = client.stop(&name, now).await?;
                while status.state.has_process() && status.desired != Desired::Running {
                    sleep(LOOK).await;
                    status = client.status(&name).await?;
                }
                Ok::<_, Failure>(status)
            })?;
            say(&line(&status));
        }
        Command::Start { name, node } => {
            let (runtime, client) = node.client()?;
            say(&line(&runtime.block_on(client.start(&name))?));
        }
        Command::Upgrade { file, accept, how, node } => {
            let (name, spec) = local(&file, &how)?;
            let (runtime, client) = node.client()?;
            let difference = runtime.block_on(client.compare(&name, &spec))?;
            say(&changes(&difference));
            if difference.loses() && !accept {
                let what = "what nodes that change or go have gathered would be lost, so nothing was done; repeat with `--accept` if that is meant";
                return Err(Failure::Message(what.into()));
            }
            say(&line(&runtime.block_on(client.upgrade(&name, &spec, accept))?));
        }
        Command::Rescale { name, workers, processes, node } => {
            let (runtime, client) = node.client()?;
            say(&line(&runtime.block_on(client.rescale(&name, &Rescale { workers, processes }))?));
        }
        Command::Logs { name, lines, follow, node } => {
            let (runtime, client) = node.client()?;
            runtime.block_on(logs(&client, &name, lines, follow))?;
        }
        Command::Nodes { format, node } => {
            let (runtime, client) = node.client()?;
            let all = runtime.block_on(client.nodes())?;
            match format {
                Report::Json => say(&serde_json::to_string_pretty(&all)?),
                Report::Text => say(nodes(&all).trim_end()),
            }
        }
        Command::Delete { name, node } => {
            let (runtime, client) = node.client()?;
            runtime.block_on(client.delete(&name))?;
            say(&format!("{name}: deleted; its tables stay"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Node {
    fn client(&self) -> Result<(Runtime, Client), Failure> {
        let address = match &self.api {
            Some(address) => address.clone(),
            None => settings::load(Path::new("."), &Environment::of_process(), &[])?.node.listen().to_owned(),
        };
        Ok((Builder::new_current_thread().enable_all().build()?, Client::new(&address)?))
    }
}

/// A pipeline file, checked as `validate` does, and as a node gets it.
fn local(file: &Path, how: &How) -> Result<(String, Spec), Failure> {
    let common = Common { set: how.set.clone(), data: None, log: None };
    let (pipeline, warnings) = check_pipeline(file, &common)?;
    if !warnings.is_empty() {
        complain(warnings.to_text(false).trim_end());
    }
    system(folder_of(file), &common)?;
    let text = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|p| Failure::Message(format!("{} is not Unicode; rename it", p.display())))
    };
    let beside = folder_of(file).join(FILE);
    let spec = Spec {
        text: std::fs::read_to_string(file)?,
        file: text(std::path::absolute(file)?)?,
        folder: text(std::env::current_dir()?)?,
        settings: if beside.exists() { Some(std::fs::read_to_string(beside)?) } else { None },
        overrides: how.set.clone(),
        workers: how.workers,
        processes: how.processes,
    };
    Ok((pipeline.name, spec))
}

async fn logs(client: &Client, name: &str, lines: usize, follow: bool) -> Result<(), Failure> {
    let mut read = client.logs(name, lines, 0).await?;
    loop {
        read.lines.iter().for_each(|line| say(line));
        if !follow {
            return Ok(());
        }
        sleep(FOLLOW).await;
        read = client.logs(name, usize::MAX, read.last).await?;
    }
}

/// What a command did, in a line.
fn line(status: &Status) -> String {
    let why = status.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{}: {}{why}", status.name, status.state.as_str())
}

fn list(all: &[Status]) -> String {
    let head = ["pipeline", "state", "for", "generation", "rows/s", "watermark", "lag", "why"].map(str::to_owned);
    let rows = all.iter().map(|s| {
        [
            s.name.clone(),
            s.state.as_str().to_owned(),
            span(s.seconds),
            s.generation.as_ref().map_or_else(|| "-".into(), |g| g.number.to_string()),
            grouped(s.rows_per_second),
            s.watermark.clone().unwrap_or_else(|| "-".into()),
            s.lag_seconds.map_or_else(|| "-".into(), span),
            s.why.as_deref().unwrap_or("-").lines().next().unwrap_or_default().to_owned(),
        ]
    });
    columns(std::iter::once(head).chain(rows).collect())
}

fn nodes(all: &[NodeView]) -> String {
    let head = ["node", "state", "address", "process", "version", "pipelines"].map(str::to_owned);
    let rows = all.iter().map(|n| {
        let state = match n.epoch {
            _ if n.silent => "silent".to_owned(),
            Some(epoch) => format!("leads, epoch {epoch}"),
            None => "follows".to_owned(),
        };
        let pipelines = if n.pipelines.is_empty() { "-".to_owned() } else { n.pipelines.join(", ") };
        [n.name.clone(), state, n.address.clone(), n.process.to_string(), n.version.clone(), pipelines]
    });
    columns(std::iter::once(head).chain(rows).collect())
}

fn describe(s: &Status) -> String {
    let mut facts = vec![format!("state       {} for {}", s.state.as_str(), span(s.seconds))];
    let mut fact = |name: &str, value: Option<String>| facts.extend(value.map(|value| format!("{name:<11} {value}")));
    fact("why", s.why.as_ref().map(|why| why.replace('\n', "\n            ")));
    fact("retry", s.retry_seconds.map(|seconds| format!("in {}", span(seconds))));
    fact("crashes", (s.crashes > 0).then(|| s.crashes.to_string()));
    fact("generation", s.generation.as_ref().map(|g| format!("{} (epoch {}, {})", g.number, g.epoch, g.nonce)));
    for p in &s.processes {
        let several = s.processes.len() > 1;
        let rate = if several { format!(", {} rows/s", grouped(p.rows_per_second)) } else { String::new() };
        let number = if several { format!("{}: ", p.number) } else { String::new() };
        fact("process", Some(format!("{number}{} on {}{rate}", p.process.map_or_else(|| "-".into(), |id| id.to_string()), p.node)));
    }
    fact("workers", s.workers.map(|w| w.to_string()));
    fact("rows/s", Some(grouped(s.rows_per_second)));
    fact("watermark", s.watermark.clone());
    fact("lag", s.lag_seconds.map(span));
    fact("checkpoint", s.checkpoint.clone());
    for error in &s.errors {
        fact("error", Some(error.clone()));
    }
    let mut text = format!("pipeline    {}\n{}\n", s.name, facts.join("\n"));
    if !s.nodes.is_empty() {
        let head = ["node", "in", "out", "ignored", "rejected", "late", "bytes", "rows/s", "watermark", "lag"].map(str::to_owned);
        let rows = s.nodes.iter().map(|n| {
            let [received, sent, ignored, rejected, late] = [n.received, n.sent, n.ignored, n.rejected, n.late].map(grouped);
            let watermark = n.watermark.clone().unwrap_or_else(|| "-".into());
            let lag = n.lag_seconds.map_or_else(|| "-".into(), span);
            let name = format!("{} {}", n.role, n.name);
            [
                name,
                received,
                sent,
                ignored,
                rejected,
                late,
                bytesize::ByteSize(n.bytes).to_string(),
                grouped(n.rows_per_second),
                watermark,
                lag,
            ]
        });
        text.push('\n');
        text.push_str(&columns(std::iter::once(head).chain(rows).collect()));
    }
    text
}

/// What an upgrade changes, a line for each sort of change.
fn changes(difference: &Difference) -> String {
    let sorts = [
        ("added", "", &difference.added),
        ("changed", ": what it has gathered is built up again", &difference.changed),
        ("removed", ": what it has gathered is dropped", &difference.removed),
        ("kept", "", &difference.kept),
    ];
    let lines = sorts.iter().flat_map(|(sort, what, nodes)| nodes.iter().map(move |node| format!("{sort:<8} {node}{what}")));
    lines.collect::<Vec<_>>().join("\n")
}

/// A table whose columns are as wide as they need to be.
fn columns<const N: usize>(rows: Vec<[String; N]>) -> String {
    let widths: Vec<usize> = (0..N).map(|c| rows.iter().map(|row| row[c].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A length of time in two units at most; short ones to the tenth of a second.
fn span(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{:.1}s", seconds.max(0.0));
    }
    let text = humantime::format_duration(Duration::from_secs(seconds as u64)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
