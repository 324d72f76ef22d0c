//! A run of a pipeline in a process that a node's agent started.
//!
//! The agent assigns the pipeline in the first line of standard input and holds the other end of it: at its end this process
//! ends at once, whatever it is doing, because then there is no agent any more and another one may start the pipeline
//! again. Each second a line on standard output tells the agent how the run is; see [`cluster::protocol`].

use std::io::{self, BufRead, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cluster::agent::{Checked, Rejected, Validator};
use cluster::definition::{Plan as NodeHashes, Spec};
use cluster::protocol::{Assignment, DRAIN, INTERVAL, Line, NodeReport, PEERS, PING, Report};
use config::settings::{self, FILE, Settings};
use config::{Diagnostics, Document, Environment};
use model::{Progress, time};

use crate::checkpoint::Store;
use crate::journal;
use crate::mesh::Mesh;
use crate::plan::{Pipeline, Plan, Role, registry};
use crate::run::Handle;
use crate::summary::{NodeSummary, Summary, nodes, role_name, waits};

/// How often a worker tells how it is while it opens sources and sinks: that it runs should not be known late.
const OPENING: Duration = Duration::from_millis(100);
/// Exit status of a worker whose agent is gone.
const ORPHANED: i32 = 3;
/// Seconds without a row after which a run is said to wait for one.
const QUIET: u64 = 5;

/// A checked pipeline with its settings.
#[derive(Debug)]
pub struct Job {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Its settings.
    pub settings: Settings,
    /// What its author should know.
    pub warnings: Diagnostics,
}

/// Reads the assignment from standard input.
///
/// # Errors
/// It does not come, or is none.
pub fn receive() -> io::Result<Assignment> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "no assignment came; `marketprism node` starts workers, use `marketprism run`",
        ));
    }
    Ok(serde_json::from_str(&line)?)
}

/// The pipeline of an assignment under its settings.
///
/// # Errors
/// Everything that is wrong with them.
pub fn check(assignment: &Assignment) -> Result<Job, Diagnostics> {
    let mut job = check_spec(&assignment.spec, Path::new(&assignment.settings_folder), Path::new(&assignment.spec.folder))?;
    job.settings.data = Some(assignment.data.clone());
    Ok(job)
}

/// The pipeline of a definition, under the settings that it brings or else those of a folder. `${file:...}` of flags
/// starts in `folder`.
fn check_spec(spec: &Spec, settings_folder: &Path, folder: &Path) -> Result<Job, Diagnostics> {
    let environment = Environment::of_process();
    let (of_pipeline, of_system): (Vec<String>, Vec<String>) = spec.overrides.iter().cloned().partition(|s| settings::concerns_pipeline(s));
    let beside = Path::new(&spec.file).parent().unwrap_or(folder);
    let document = Document::parse(&spec.file, &spec.text, beside, &of_pipeline, &environment);
    let checked = config::check(document, &registry());
    let settings = match &spec.settings {
        Some(text) => settings::parse(&beside.join(FILE).display().to_string(), text, beside, &environment, &of_system),
        None => settings::load(settings_folder, &environment, &of_system).map(|settings| rooted(settings, settings_folder)),
    };
    match (checked, settings) {
        (Ok((pipeline, warnings)), Ok(mut settings)) => {
            settings.workers = spec.workers.or(settings.workers);
            Ok(Job { pipeline, settings, warnings })
        }
        (Err(mut errors), Err(more)) => {
            errors.append(more);
            Err(errors)
        }
        (Err(errors), _) | (_, Err(errors)) => Err(errors),
    }
}

/// The settings of a node as its pipelines see them: each runs in a folder of its own, and the cold store is one.
fn rooted(mut settings: Settings, folder: &Path) -> Settings {
    if let Some(url) = &mut settings.cold.url
        && !url.contains("://")
    {
        *url = folder.join(&*url).display().to_string();
    }
    settings
}

/// Checks what a node is asked to run, as its workers will.
#[derive(Clone, Debug)]
pub struct Checker {
    /// The folder of the node's settings.
    pub settings_folder: PathBuf,
    /// `KEY=VALUE` over settings that the node was started with.
    pub overrides: Vec<String>,
}

impl Checker {
    fn job(&self, spec: &Spec) -> Result<Job, Diagnostics> {
        let mut spec = spec.clone();
        spec.overrides.splice(0..0, self.overrides.iter().cloned());
        check_spec(&spec, &self.settings_folder, Path::new(&spec.folder))
    }
}

#[async_trait]
impl Validator for Checker {
    fn check(&self, spec: &Spec) -> Result<Checked, Rejected> {
        match self.job(spec) {
            Ok(Job { pipeline, settings, .. }) => {
                let plan = NodeHashes { hash: pipeline.plan_hash(), nodes: pipeline.node_hashes() };
                let shared = settings.shared_checkpoints().is_some();
                Ok(Checked { name: pipeline.name, plan, shared })
            }
            Err(errors) => {
                let text = format!("{}{}", errors.to_text(false), errors.summary());
                Err(Rejected { text, diagnostics: errors.to_json() })
            }
        }
    }

    async fn forget(&self, spec: &Spec) -> Result<(), String> {
        let Job { pipeline, settings, .. } = self.job(spec).map_err(|errors| errors.to_text(false))?;
        if settings.checkpoints.url.is_none() {
            return Ok(());
        }
        let checkpoints = Store::open(&settings, &pipeline.name).map_err(|error| error.to_string())?;
        checkpoints.clear().await.map_err(|error| error.to_string())?;
        journal::clear(&settings, &pipeline.name).await.map_err(|error| error.to_string())
    }
}

/// Begins to listen for the other processes of the pipeline, if there are any, and tells the agent where.
///
/// # Errors
/// There is no port.
pub fn listen(assignment: &Assignment) -> io::Result<Option<TcpListener>> {
    if assignment.processes == 1 {
        return Ok(None);
    }
    let listener = TcpListener::bind((assignment.host.as_str(), 0))?;
    tell(&Line::Listening { address: listener.local_addr()?.to_string() });
    Ok(Some(listener))
}

/// Drains the run when the agent says so, hands over the addresses of the pipeline's processes, and ends this process when
/// the agent is gone: when its end of the pipe is closed, and when it has said nothing for `silence`, where the assignment
/// has one.
///
/// # Errors
/// A thread cannot be started.
pub fn obey(handle: &Handle, silence: Option<Duration>) -> io::Result<Receiver<Vec<String>>> {
    let handle = handle.clone();
    let (told, addresses) = channel();
    let (heard, sounds) = channel();
    thread::Builder::new().name("agent".into()).spawn(move || {
        for line in io::stdin().lock().lines() {
            // Nobody listens where there is no silence to be noticed.
            let _ = heard.send(());
            match line {
                Ok(line) if line == DRAIN => handle.drain(),
                Ok(line) if line == PING => {}
                Ok(line) => match line.strip_prefix(PEERS) {
                    // Where nobody waits for them, there is one process.
                    Some(addresses) => drop(told.send(addresses.split_whitespace().map(str::to_owned).collect())),
                    None => tracing::warn!("the agent said something unknown: {line}"),
                },
                Err(error) => {
                    tracing::warn!("the agent cannot be heard: {error}");
                    break;
                }
            }
        }
        std::process::exit(ORPHANED);
    })?;
    if let Some(silence) = silence {
        thread::Builder::new().name("silence".into()).spawn(move || {
            while sounds.recv_timeout(silence).is_ok() {}
            tracing::error!("the agent has said nothing for {} s, so another node may start this pipeline: ending", silence.as_secs());
            std::process::exit(ORPHANED);
        })?;
    }
    Ok(addresses)
}

/// Waits for the addresses of the other processes, and connects with them.
///
/// # Errors
/// They cannot be reached in time.
pub fn meet(assignment: &Assignment, listener: &TcpListener, addresses: &Receiver<Vec<String>>) -> io::Result<Mesh> {
    // Its end is the end of this process.
    let addresses = addresses.recv().map_err(io::Error::other)?;
    Mesh::connect(listener, &addresses, assignment.process, &assignment.generation.nonce)
}

/// Tells the agent each second how the run is.
pub struct Reporter {
    stop: Sender<()>,
    thread: JoinHandle<State>,
}

/// What the next report needs of those before.
struct State {
    plan: Arc<Plan>,
    generation: u64,
    run: Handle,
    started: Instant,
    /// Rows that each node had received at the last report, and when that was.
    before: Vec<u64>,
    then: Instant,
    /// When a source last handed over a row.
    moved: Instant,
}

impl Reporter {
    /// Begins to tell.
    pub fn start(plan: Arc<Plan>, generation: u64, run: Handle) -> Reporter {
        let now = Instant::now();
        let before = vec![0; plan.accounts().count()];
        let mut state = State { plan, generation, run, started: now, before, then: now, moved: now };
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || {
            // The first one at once: that the process lives is news.
            loop {
                let interval = if state.run.is_open() { INTERVAL } else { OPENING };
                tell(&Line::Report(state.report()));
                if stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                    return state;
                }
            }
        });
        Reporter { stop, thread }
    }

    /// Tells no more.
    pub fn stop(&self) {
        // It may have ended by itself.
        let _ = self.stop.send(());
    }

    /// Tells how the run ended; its first process knows how.
    pub fn end(self, summary: Option<&Summary>) {
        self.stop();
        if let Ok(mut state) = self.thread.join() {
            let mut report = state.report();
            report.errors = summary.into_iter().flat_map(|s| s.errors.iter().chain(&s.imbalances)).cloned().collect();
            report.waiting = None;
            tell(&Line::End { drained: state.run.is_draining(), report });
        }
    }
}

impl State {
    fn report(&mut self) -> Report {
        let now = Instant::now();
        let elapsed = now.duration_since(self.then).as_secs_f64();
        let summaries = nodes(&self.plan);
        let rates: Vec<u64> = summaries
            .iter()
            .zip(&self.before)
            .map(|(n, before)| if elapsed > 0.0 { (n.totals.received.saturating_sub(*before) as f64 / elapsed).round() as u64 } else { 0 })
            .collect();
        self.before = summaries.iter().map(|n| n.totals.received).collect();
        self.then = now;
        let sources = || summaries.iter().zip(&rates).filter(|(n, _)| n.role == role_name(Role::Source));
        if sources().any(|(_, rate)| *rate > 0) {
            self.moved = now;
        }
        let quiet = now.duration_since(self.moved).as_secs();
        // A sink that waits holds up the sources: it is the reason, and not they.
        let waits = waits(&self.plan, &summaries);
        let waiting = if !waits.is_empty() {
            Some(waits.join("; "))
        } else if quiet >= QUIET && self.run.is_open() {
            let open: Vec<&str> =
                sources().filter(|(n, _)| n.totals.watermark != Some(Progress::END)).map(|(n, _)| n.name.as_str()).collect();
            Some(if open.is_empty() {
                "it commits what it has read".into()
            } else {
                format!("no row has come from {} for {quiet} s", open.join(", "))
            })
        } else {
            None
        };
        let errors = summaries.iter().flat_map(|n| n.totals.errors.iter().map(|e| format!("{} `{}`: {e}", n.role, n.name))).collect();
        Report {
            generation: self.generation,
            running: self.run.is_open(),
            seconds: self.started.elapsed().as_secs_f64(),
            nodes: summaries.iter().zip(rates).map(|(n, rate)| node(n, rate)).collect(),
            checkpoint: self.run.checkpoint().map(time::display),
            waiting,
            errors,
        }
    }
}

fn node(summary: &NodeSummary, rows_per_second: u64) -> NodeReport {
    let t = &summary.totals;
    let (watermark, lag_seconds) = match t.watermark {
        None => (None, None),
        Some(Progress::END) => (Some("end".to_owned()), None),
        Some(at) => (Some(time::display(at)), Some(time::now().saturating_sub(at).max(0) as f64 / time::SECOND as f64)),
    };
    NodeReport {
        name: summary.name.clone(),
        role: summary.role.to_owned(),
        received: t.received,
        sent: t.sent,
        rows_per_second,
        ignored: t.ignored,
        rejected: t.rejected(),
        late: t.late,
        bytes: t.bytes,
        watermark,
        lag_seconds,
    }
}

/// Writes a line to the agent. One that does not read any more is gone, which the end of standard input tells.
fn tell(line: &Line) {
    let mut out = io::stdout().lock();
    if let Ok(text) = serde_json::to_string(line) {
        drop(writeln!(out, "{text}").and_then(|()| out.flush()));
    }
}
