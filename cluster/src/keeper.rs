//! Does what a [`Supervisor`] says: one task per pipeline, which owns the pipeline's process.
//!
//! Before a process is started, its generation is in the store, written by compare-and-set with the leader's epoch. The
//! process is in a group of its own, so that Ctrl-C on a terminal reaches the agent alone, and it dies with the keeper: its
//! standard input is a pipe of which the keeper holds the other end, see [`crate::protocol`].

use std::collections::VecDeque;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::definition::{self, Definition, Generation};
use crate::log::{Lines, Log};
use crate::protocol::{Assignment, DRAIN, Line, NodeReport, REFUSED, Report};
use crate::store::Store;
use crate::supervisor::{Action, Desired, Ended, Event, Exit, Policy, State, Supervisor, Want};

/// Last lines of a process's standard error that are searched for the cause of its end.
const TAIL: usize = 12;

/// What a keeper has from its node.
#[derive(Clone, Debug)]
pub struct Site {
    /// The program whose hidden command `worker` runs a pipeline.
    pub program: PathBuf,
    /// The node's data folder, absolute.
    pub data: PathBuf,
    /// The folder of the node's settings, absolute.
    pub settings_folder: PathBuf,
    /// `KEY=VALUE` over settings that the node was started with. Those of a pipeline win.
    pub overrides: Vec<String>,
    /// How patient supervisors are.
    pub policy: Policy,
    /// The cluster store.
    pub store: Arc<dyn Store>,
}

impl Site {
    /// The folder of the logs.
    pub fn logs(&self) -> PathBuf {
        self.data.join("cluster").join("logs")
    }
}

/// Where a pipeline stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// Its process opens sources and sinks.
    Starting,
    /// Rows flow.
    Running,
    /// Its process commits what it has read, and ends.
    Draining,
    /// Its process was killed, and is not gone yet.
    Stopping,
    /// It has no process, because it is not wanted.
    Stopped,
    /// Its process crashed, and another one is started after a delay.
    BackingOff,
    /// Its processes crashed too often.
    Failed,
    /// Its sources have ended.
    Finished,
}

impl StateName {
    /// Whether the pipeline has a process.
    pub fn has_process(self) -> bool {
        matches!(self, StateName::Starting | StateName::Running | StateName::Draining | StateName::Stopping)
    }

    /// The word for it, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            StateName::Starting => "starting",
            StateName::Running => "running",
            StateName::Draining => "draining",
            StateName::Stopping => "stopping",
            StateName::Stopped => "stopped",
            StateName::BackingOff => "backing_off",
            StateName::Failed => "failed",
            StateName::Finished => "finished",
        }
    }
}

/// How a pipeline is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: StateName,
    /// Since how many seconds.
    pub seconds: f64,
    /// Whether it is to run.
    pub desired: Desired,
    /// Its last process.
    pub generation: Option<Generation>,
    /// The identifier of that process, while it runs.
    pub process: Option<u32>,
    /// Number of worker threads; without it, the settings say.
    pub workers: Option<usize>,
    /// A hash of what it computes.
    pub plan: String,
    /// Crashes since it was last healthy for a while.
    pub crashes: u32,
    /// Seconds until it is started again.
    pub retry_seconds: Option<f64>,
    /// Why it does not run, or what it waits for.
    pub why: Option<String>,
    /// Rows that its sources handed over in the last second.
    pub rows_per_second: u64,
    /// How far event time has come in the node that is furthest behind: a time in UTC, or `end`.
    pub watermark: Option<String>,
    /// Seconds from that time to the clock's.
    pub lag_seconds: Option<f64>,
    /// When the last checkpoint became durable, in UTC.
    pub checkpoint: Option<String>,
    /// Its nodes, as the last process told them last.
    pub nodes: Vec<NodeReport>,
    /// What was lost or failed, and what does not balance.
    pub errors: Vec<String>,
}

/// What others see of a keeper.
#[derive(Debug)]
struct Shared {
    log: Mutex<Log>,
    view: Mutex<View>,
}

#[derive(Debug)]
struct View {
    definition: Definition,
    supervisor: Supervisor,
    process: Option<u32>,
    report: Option<Report>,
}

impl Shared {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().expect("no holder panics")
    }

    fn log(&self, line: &str) {
        if let Err(error) = self.log.lock().expect("no holder panics").push(line) {
            tracing::warn!("a line of a pipeline's log is not on disk: {error}");
        }
    }
}

enum Message {
    /// And whom to tell when it was acted on.
    Define(Definition, oneshot::Sender<()>),
    Close(Desired),
    Said(u64, Report),
    Gone(u64, Exit),
}

/// A handle on a pipeline's keeper. Dropping it kills the process; [`Keeper::close`] is the gentle way.
#[derive(Debug)]
pub struct Keeper {
    mailbox: mpsc::UnboundedSender<Message>,
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
    origin: Instant,
}

impl Keeper {
    /// Begins to keep a pipeline, with the epoch of the leader for whom it is done. Returns when it has acted on the
    /// definition.
    ///
    /// # Errors
    /// The pipeline's log cannot be opened.
    pub async fn start(site: Arc<Site>, epoch: u64, definition: Definition) -> io::Result<Keeper> {
        let log = Log::open(&site.logs(), &definition.name)?;
        let origin = Instant::now();
        let supervisor = Supervisor::new(site.policy, definition.version, definition.ended.clone(), Duration::ZERO);
        let view = View { definition: definition.clone(), supervisor: supervisor.clone(), process: None, report: None };
        let shared = Arc::new(Shared { log: Mutex::new(log), view: Mutex::new(view) });
        let (mailbox, messages) = mpsc::unbounded_channel();
        let work = Work {
            site,
            epoch,
            origin,
            definition: definition.clone(),
            supervisor,
            process: None,
            shared: shared.clone(),
            mailbox: mailbox.downgrade(),
        };
        let task = tokio::spawn(work.run(messages));
        let keeper = Keeper { mailbox, shared, task: Some(task), origin };
        keeper.define(definition).await;
        Ok(keeper)
    }

    /// Tells what has become of the definition, and returns when the keeper has acted on it.
    pub async fn define(&self, definition: Definition) {
        let (acted, done) = oneshot::channel();
        // It has ended only if it was told to.
        let _ = self.mailbox.send(Message::Define(definition, acted));
        let _ = done.await;
    }

    /// Whether it keeps nothing any more, because it panicked.
    pub fn is_over(&self) -> bool {
        self.task.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets the process drain, or kills it, and returns when it is gone. What is wanted of the pipeline stays as it is.
    pub async fn close(mut self, how: Desired) {
        let _ = self.mailbox.send(Message::Close(how));
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }

    /// How the pipeline is.
    pub fn status(&self) -> Status {
        let view = self.shared.view();
        let View { definition, supervisor, process, report } = &*view;
        let now = self.origin.elapsed();
        let mut report = report.clone().unwrap_or_default();
        let state = state_name(supervisor.state());
        if !state.has_process() {
            report.nodes.iter_mut().for_each(|node| node.rows_per_second = 0);
        }
        let last_crash = supervisor.last_crash().map(str::to_owned);
        let why = match supervisor.state() {
            State::Failed(cause) => Some(cause.clone()),
            State::Killed { crash } => crash.clone(),
            State::BackingOff { .. } | State::Stopped => last_crash,
            State::Starting => {
                Some(last_crash.map_or("it opens its sources and sinks".into(), |crash| format!("the last process crashed: {crash}")))
            }
            State::Running => report.waiting.clone(),
            State::Draining { .. } | State::Finished => None,
        };
        let retry = match supervisor.state() {
            State::BackingOff { until } => Some(until.saturating_sub(now).as_secs_f64()),
            _ => None,
        };
        let slowest = report
            .nodes
            .iter()
            .filter(|n| n.lag_seconds.is_some())
            .max_by(|a, b| a.lag_seconds.partial_cmp(&b.lag_seconds).expect("lags are numbers"));
        let ended = || report.nodes.iter().find_map(|n| n.watermark.clone());
        Status {
            name: definition.name.clone(),
            state,
            seconds: now.saturating_sub(supervisor.since()).as_secs_f64(),
            desired: definition.desired,
            generation: definition.generation.clone(),
            process: *process,
            workers: definition.spec.workers,
            plan: definition.plan.hash.clone(),
            crashes: supervisor.crashes(),
            retry_seconds: retry,
            why,
            rows_per_second: report.nodes.iter().filter(|n| n.role == "source").map(|n| n.rows_per_second).sum(),
            watermark: slowest.map_or_else(ended, |n| n.watermark.clone()),
            lag_seconds: slowest.and_then(|n| n.lag_seconds),
            checkpoint: report.checkpoint,
            nodes: report.nodes,
            errors: report.errors,
        }
    }

    /// The last lines of the log; see [`Log::lines`].
    pub fn logs(&self, most: usize, after: u64) -> Lines {
        self.shared.log.lock().expect("no holder panics").lines(most, after)
    }
}

fn state_name(state: &State) -> StateName {
    match state {
        State::Stopped => StateName::Stopped,
        State::Starting => StateName::Starting,
        State::Running => StateName::Running,
        State::Draining { .. } => StateName::Draining,
        State::Killed { .. } => StateName::Stopping,
        State::BackingOff { .. } => StateName::BackingOff,
        State::Failed(_) => StateName::Failed,
        State::Finished => StateName::Finished,
    }
}

/// The task behind a [`Keeper`].
struct Work {
    site: Arc<Site>,
    epoch: u64,
    origin: Instant,
    definition: Definition,
    supervisor: Supervisor,
    process: Option<Process>,
    shared: Arc<Shared>,
    mailbox: mpsc::WeakUnboundedSender<Message>,
}

/// A process that runs. Dropping this closes its standard input, at which it ends.
struct Process {
    generation: u64,
    lines: mpsc::UnboundedSender<String>,
    kill: Option<oneshot::Sender<()>>,
}

impl Work {
    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        let mut closing = false;
        while !closing || self.supervisor.has_process() {
            let wake = self.supervisor.wake().map(|wake| self.origin + wake);
            let mut asked = None;
            let event = tokio::select! {
                message = messages.recv() => match message {
                    // The handle was dropped, and the process is killed with this task.
                    None => return,
                    Some(Message::Close(desired)) => {
                        closing = true;
                        Event::Want(Want { desired, ..self.definition.want() })
                    }
                    Some(Message::Define(..)) if closing => continue,
                    Some(Message::Define(definition, acted)) => {
                        asked = Some(acted);
                        let last = std::mem::replace(&mut self.definition, definition).generation;
                        // It may have been read from the store before this task wrote its last generation there.
                        if last.as_ref().map(|g| g.number) > self.definition.generation.as_ref().map(|g| g.number) {
                            self.definition.generation = last;
                        }
                        Event::Want(self.definition.want())
                    }
                    Some(Message::Said(generation, report)) => {
                        if self.process.as_ref().is_none_or(|p| p.generation != generation) {
                            continue;
                        }
                        let running = report.running;
                        self.shared.view().report = Some(report);
                        Event::Reported { running }
                    }
                    Some(Message::Gone(generation, exit)) => {
                        if self.process.as_ref().is_none_or(|p| p.generation != generation) {
                            continue;
                        }
                        self.process = None;
                        Event::Exited(exit)
                    }
                },
                () = async { tokio::time::sleep_until(wake.expect("asked only if there is one")).await }, if wake.is_some() => Event::Tick,
            };
            self.step(event).await;
            if let Some(asked) = asked {
                // One that does not wait any more needs no answer.
                let _ = asked.send(());
            }
        }
    }

    /// Lets an event happen, with all that follows from it at once.
    async fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let before = state_name(self.supervisor.state());
            for action in self.supervisor.step(self.origin.elapsed(), event) {
                match action {
                    Action::Start => {
                        if let Err(cause) = self.start().await {
                            events.push_back(Event::Exited(Exit::Crashed(cause)));
                        }
                    }
                    Action::Drain => {
                        if let Some(process) = &self.process {
                            // A process that is gone says so itself.
                            let _ = process.lines.send(DRAIN.to_owned());
                        }
                    }
                    Action::Kill => {
                        if let Some(kill) = self.process.as_mut().and_then(|p| p.kill.take()) {
                            let _ = kill.send(());
                        }
                    }
                    Action::Record(ended) => self.record(ended).await,
                }
            }
            let after = state_name(self.supervisor.state());
            if before != after {
                let cause = match self.supervisor.state() {
                    State::Failed(_) | State::BackingOff { .. } => {
                        self.supervisor.last_crash().map(|c| format!(": {c}")).unwrap_or_default()
                    }
                    _ => String::new(),
                };
                self.shared.log(&format!("-- {} {}{cause}", model::time::display(model::time::now()), after.as_str()));
                if cause.is_empty() {
                    tracing::info!(pipeline = self.definition.name, "{}", after.as_str());
                } else {
                    tracing::warn!(pipeline = self.definition.name, "{}{cause}", after.as_str());
                }
            }
            let mut view = self.shared.view();
            view.definition = self.definition.clone();
            view.supervisor = self.supervisor.clone();
            if self.process.is_none() {
                view.process = None;
            }
        }
    }

    async fn record(&mut self, ended: Ended) {
        let version = self.definition.version;
        let change = |d: &mut Definition| {
            let concerned = d.version == version;
            if concerned {
                d.ended = Some(ended.clone());
            }
            concerned
        };
        match definition::change(self.site.store.as_ref(), &self.definition.name, change).await {
            Ok(Some((definition, _))) => self.definition.ended = definition.ended,
            Ok(None) => {}
            Err(error) => tracing::error!(
                pipeline = self.definition.name,
                "its end is not recorded, so a restart of the node starts it again: {error}"
            ),
        }
    }

    /// Records a new generation and starts its process.
    async fn start(&mut self) -> Result<(), String> {
        let number = self.definition.generation.as_ref().map_or(0, |g| g.number);
        let generation = |last: u64| Generation { number: last + 1, epoch: self.epoch, nonce: uuid::Uuid::new_v4().to_string() };
        let mut stale = false;
        let change = |d: &mut Definition| {
            let last = d.generation.as_ref();
            // A later leader has begun: this one is none any more.
            stale = last.is_some_and(|g| g.epoch > self.epoch);
            if !stale {
                d.generation = Some(generation(last.map_or(0, |g| g.number).max(number)));
            }
            !stale
        };
        let stored = definition::change(self.site.store.as_ref(), &self.definition.name, change).await.map_err(|e| e.to_string())?;
        let Some((stored, _)) = stored else { return Err("its definition was deleted".into()) };
        if stale {
            return Err("another node has become the leader".into());
        }
        self.definition.generation.clone_from(&stored.generation);
        let generation = stored.generation.ok_or("its generation was not recorded")?;
        let mut spec = stored.spec;
        spec.overrides.splice(0..0, self.site.overrides.iter().cloned());
        let folder = PathBuf::from(&spec.folder);
        let path = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| format!("{} is not Unicode", path.display()));
        let assignment = Assignment {
            generation: generation.clone(),
            spec,
            accept: stored.upgraded,
            data: path(&self.site.data)?,
            settings_folder: path(&self.site.settings_folder)?,
        };
        let line = serde_json::to_string(&assignment).map_err(|e| e.to_string())?;
        if !folder.is_dir() {
            return Err(format!("the folder {}, in which its relative paths start, does not exist on this node", folder.display()));
        }
        let child = Command::new(&self.site.program)
            .arg("worker")
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("{} cannot be started: {e}", self.site.program.display()))?;
        let (lines, to_write) = mpsc::unbounded_channel();
        let (kill, killed) = oneshot::channel();
        // The channel lives as long as this process is kept.
        let _ = lines.send(line);
        self.process = Some(Process { generation: generation.number, lines, kill: Some(kill) });
        let mut view = self.shared.view();
        view.report = None;
        view.process = child.id();
        drop(view);
        tokio::spawn(attend(child, generation.number, to_write, killed, self.shared.clone(), self.mailbox.clone()));
        Ok(())
    }
}

/// Looks after a process until it is gone, and tells what it says and how it ended.
async fn attend(
    mut child: Child,
    generation: u64,
    mut to_write: mpsc::UnboundedReceiver<String>,
    killed: oneshot::Receiver<()>,
    shared: Arc<Shared>,
    mailbox: mpsc::WeakUnboundedSender<Message>,
) {
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else { return };
    let tell = |message| {
        if let Some(mailbox) = mailbox.upgrade() {
            let _ = mailbox.send(message);
        }
    };
    let writing = tokio::spawn(async move {
        // Ends when the keeper does, and closes the pipe.
        while let Some(line) = to_write.recv().await {
            if stdin.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                break;
            }
        }
    });
    let mut end = None;
    let reports = each_line(stdout, |line| match serde_json::from_str(line) {
        Ok(Line::Report(report)) => tell(Message::Said(generation, report)),
        Ok(Line::End { drained, report }) => {
            tell(Message::Said(generation, report.clone()));
            end = Some((drained, report.errors));
        }
        Err(_) => shared.log(line),
    });
    let mut tail = VecDeque::new();
    let logs = each_line(stderr, |line| {
        shared.log(line);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    });
    let ended = async {
        tokio::select! {
            status = child.wait() => status,
            killed = killed => {
                // Without the keeper it is killed, too.
                drop(killed);
                child.kill().await?;
                child.wait().await
            }
        }
    };
    let (status, (), ()) = tokio::join!(ended, reports, logs);
    writing.abort();
    let exit = match (status, end) {
        (Ok(status), Some((drained, _))) if status.success() => {
            if drained {
                Exit::Drained
            } else {
                Exit::Finished
            }
        }
        (Ok(status), end) => {
            let cause = cause(status, end.map(|(_, errors)| errors).unwrap_or_default(), tail);
            if status.code() == Some(i32::from(REFUSED)) { Exit::Refused(cause) } else { Exit::Crashed(cause) }
        }
        (Err(error), _) => Exit::Crashed(format!("the process cannot be watched: {error}")),
    };
    tell(Message::Gone(generation, exit));
}

/// Hands over each line of a pipe until it is closed.
async fn each_line(pipe: impl AsyncRead + Unpin, mut take: impl FnMut(&str)) {
    let mut pipe = BufReader::new(pipe);
    let mut bytes = Vec::new();
    while pipe.read_until(b'\n', &mut bytes).await.is_ok_and(|n| n > 0) {
        take(String::from_utf8_lossy(&bytes).trim_end());
        bytes.clear();
    }
}

/// Why a process ended, as far as it said: the errors of its books, else its last error message, else its last lines.
fn cause(status: ExitStatus, errors: Vec<String>, tail: VecDeque<String>) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "it ended".into(),
    };
    let said = if errors.is_empty() {
        let lines: Vec<String> = tail.into_iter().filter(|line| !line.trim().is_empty()).collect();
        let from = lines.iter().rposition(|line| line.trim_start().starts_with("error")).unwrap_or(lines.len().saturating_sub(3));
        lines[from..].iter().map(|line| line.trim_start().trim_start_matches("error: ")).collect::<Vec<_>>().join("\n")
    } else {
        errors.join("\n")
    };
    if said.is_empty() { how } else { format!("{said} ({how})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_the_last_error() {
        let status = |raw: i32| ExitStatus::from_raw(raw);
        let tail = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<VecDeque<_>>();
        let said = ["INFO progress", "error: earlier", "error: source `a`: x.gz: there is no such file", "check the path"];
        assert_eq!(cause(status(256), vec![], tail(&said)), "source `a`: x.gz: there is no such file\ncheck the path (exit status 1)");
        assert_eq!(cause(status(9), vec![], tail(&[])), "killed by signal 9");
        assert_eq!(cause(status(256), vec!["sink `b`: full".into()], tail(&said)), "sink `b`: full (exit status 1)");
    }
}
