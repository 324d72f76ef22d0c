//! Does what a [`Supervisor`] says: one task per pipeline, which owns the processes of its generation.
//!
//! Before processes are started, their generation is in the store, written by compare-and-set with the leader's epoch. They
//! are started on the nodes that live, see [`crate::host`], and die with the keeper; and the keeper ends with the
//! leadership that it was started in, without being told, so that no store or network that hangs can keep it.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::definition::{self, Definition, Generation, Spec};
use crate::group::Group;
pub use crate::group::ProcessView;
use crate::host::{Host, Hosts, Order, Process, Said, Told, place};
use crate::lease::Leadership;
use crate::log::{Lines, Log};
use crate::protocol::{DRAIN, NodeReport, PEERS, PING, Report};
use crate::store::Store;
use crate::supervisor::{Action, Desired, Ended, Event, Exit, Policy, State, Supervisor, Want};

/// What a keeper has from its node.
#[derive(Clone, Debug)]
pub struct Site {
    /// The node's data folder, absolute.
    pub data: PathBuf,
    /// How patient supervisors are.
    pub policy: Policy,
    /// The cluster store.
    pub store: Arc<dyn Store>,
    /// The nodes that processes can be started on.
    pub hosts: Hosts,
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
    /// The identifier of its first process, while it runs.
    pub process: Option<u32>,
    /// Its processes, while they run.
    pub processes: Vec<ProcessView>,
    /// Number of worker threads of each process; without it, the settings say.
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
    processes: Vec<ProcessView>,
    report: Option<Report>,
    /// Whether it runs as it was before it was changed.
    finishing: bool,
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
    /// All processes of a generation have told how they are.
    Reported(u64, bool),
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
    /// Begins to keep a pipeline, as long as the leadership lasts for which it is done. Returns when it has acted on the
    /// definition.
    ///
    /// # Errors
    /// The pipeline's log cannot be opened.
    pub async fn start(site: Arc<Site>, leadership: Leadership, definition: Definition) -> io::Result<Keeper> {
        let log = Log::open(&site.logs(), &definition.name)?;
        let origin = Instant::now();
        let supervisor = Supervisor::new(site.policy, definition.version, definition.ended.clone(), Duration::ZERO);
        let view =
            View { definition: definition.clone(), supervisor: supervisor.clone(), processes: Vec::new(), report: None, finishing: false };
        let shared = Arc::new(Shared { log: Mutex::new(log), view: Mutex::new(view) });
        let (mailbox, messages) = mpsc::unbounded_channel();
        let work = Work {
            site,
            epoch: leadership.epoch,
            origin,
            definition: definition.clone(),
            supervisor,
            finishing: false,
            orders: None,
            shared: shared.clone(),
            mailbox: mailbox.downgrade(),
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = work.run(messages) => {}
                () = leadership.is_over() => {}
            }
        });
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

    /// Whether it keeps nothing any more, because its leadership is over.
    pub fn is_over(&self) -> bool {
        self.task.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets the process drain, or kills it, and returns when it is gone. What is wanted of the pipeline stays as it is.
    pub async fn close(mut self, how: Desired) {
        // Its task may have ended by itself; one that panicked has killed its process.
        let _ = self.mailbox.send(Message::Close(how));
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }

    /// How the pipeline is.
    pub fn status(&self) -> Status {
        let view = self.shared.view();
        let View { definition, supervisor, processes, report, finishing } = &*view;
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
            State::Starting | State::Running if *finishing && report.waiting.is_none() => {
                Some("it finishes what it had begun to commit before it was changed".into())
            }
            State::Starting => report.waiting.clone().or_else(|| {
                Some(last_crash.map_or("it opens its sources and sinks".into(), |crash| format!("the last process crashed: {crash}")))
            }),
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
            process: processes.first().and_then(|p| p.process),
            processes: processes.clone(),
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
    /// Whether the pipeline as it was before is to run, to finish what it had begun to commit.
    finishing: bool,
    orders: Option<Orders>,
    shared: Arc<Shared>,
    mailbox: mpsc::WeakUnboundedSender<Message>,
}

/// The processes of a generation. They are killed when this is dropped.
struct Orders {
    generation: u64,
    /// The version of the definition, and what runs.
    version: u64,
    spec: Spec,
    give: mpsc::UnboundedSender<Asked>,
}

/// What is asked of the processes of a generation.
enum Asked {
    Drain,
    Kill,
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
                    Some(Message::Reported(generation, running)) => {
                        if self.orders.as_ref().is_none_or(|o| o.generation != generation) {
                            continue;
                        }
                        if running && !self.finishing && self.definition.before.is_some() {
                            self.note_ran().await;
                        }
                        Event::Reported { running }
                    }
                    Some(Message::Gone(generation, exit)) => {
                        if self.orders.as_ref().is_none_or(|o| o.generation != generation) {
                            continue;
                        }
                        let exit = self.made_way(exit).await;
                        self.orders = None;
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
                        if let Some(orders) = &self.orders {
                            // Processes that are gone say so themselves.
                            let _ = orders.give.send(Asked::Drain);
                        }
                    }
                    Action::Kill => {
                        if let Some(orders) = &self.orders {
                            // As above.
                            let _ = orders.give.send(Asked::Kill);
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
            if self.orders.is_none() {
                view.processes.clear();
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

    /// What the end of a generation means where the pipeline was changed and the one before it did not drain: that one runs
    /// again until it has committed what it had begun, and then the new one.
    async fn made_way(&mut self, exit: Exit) -> Exit {
        match exit {
            Exit::Unfinished(_) if !self.finishing && self.definition.before.is_some() => {
                self.finishing = true;
                Exit::MadeWay
            }
            Exit::Drained | Exit::Finished if self.finishing => {
                self.finishing = false;
                self.note_ran().await;
                Exit::MadeWay
            }
            exit => exit,
        }
    }

    /// Records that nothing is left to finish for what ran before the generation at hand.
    async fn note_ran(&mut self) {
        let Some(Orders { version, spec, .. }) = &self.orders else { return };
        // If the pipeline was changed once more meanwhile, this generation is what it was before.
        let change = |d: &mut Definition| {
            d.before = (d.version != *version).then(|| spec.clone());
            true
        };
        match definition::change(self.site.store.as_ref(), &self.definition.name, change).await {
            Ok(stored) => self.definition.before = stored.and_then(|(stored, _)| stored.before),
            // It is tried again with the next report.
            Err(error) => tracing::warn!(pipeline = self.definition.name, "that it has run as it is now is not recorded: {error}"),
        }
    }

    /// Records a new generation and starts its processes.
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
        let hosts = self.site.hosts.lock().expect("no holder panics").clone();
        // A node that is gone would be found silent only later.
        let hosts: Vec<Arc<dyn Host>> = hosts.into_values().filter(|host| !host.is_lost()).collect();
        if hosts.is_empty() {
            return Err("no node lives".into());
        }
        let before = stored.before.filter(|_| self.finishing);
        self.finishing = before.is_some();
        let (spec, accept) = before.map_or((stored.spec, stored.upgraded), |before| (before, false));
        let processes = spec.processes.unwrap_or(1);
        let starting: Vec<(Arc<dyn Host>, Order)> = (0..processes)
            .map(|process| {
                let order = Order {
                    pipeline: self.definition.name.clone(),
                    generation: generation.clone(),
                    spec: spec.clone(),
                    accept,
                    process,
                    processes,
                };
                (hosts[place(&self.definition.name, process, hosts.len())].clone(), order)
            })
            .collect();
        let (give, asked) = mpsc::unbounded_channel();
        if self.finishing {
            self.shared.log("-- finishing what it had begun to commit before it was changed");
            give.send(Asked::Drain).expect("the other end is here");
        }
        self.orders = Some(Orders { generation: generation.number, version: stored.version, spec, give });
        let group = Group::new(starting.iter().map(|(host, _)| host.node().to_owned()));
        let mut view = self.shared.view();
        view.report = None;
        view.finishing = self.finishing;
        view.processes = group.processes();
        drop(view);
        let attendant = Attendant {
            generation: generation.number,
            group,
            tell: Vec::new(),
            origin: self.origin,
            shared: self.shared.clone(),
            mailbox: self.mailbox.clone(),
        };
        tokio::spawn(attendant.attend(starting, asked));
        Ok(())
    }
}

/// Looks after the processes of a generation until they are gone, and tells what they say and how they ended.
struct Attendant {
    generation: u64,
    group: Group,
    tell: Vec<mpsc::UnboundedSender<Told>>,
    origin: Instant,
    shared: Arc<Shared>,
    mailbox: mpsc::WeakUnboundedSender<Message>,
}

impl Attendant {
    /// Ends as soon as nothing is asked any more: dropping the handles of the processes kills them.
    async fn attend(mut self, starting: Vec<(Arc<dyn Host>, Order)>, mut asked: mpsc::UnboundedReceiver<Asked>) {
        let start = async {
            let tasks: Vec<_> = starting.into_iter().map(|(host, order)| tokio::spawn(async move { host.start(order).await })).collect();
            let mut processes = Vec::new();
            for task in tasks {
                processes.push(task.await.unwrap_or_else(|error| Err(error.to_string())));
            }
            processes
        };
        // What is asked meanwhile waits: starting has an end.
        let mut processes = Vec::new();
        let mut failed = None;
        for process in start.await {
            match process {
                Ok(process) => processes.push(process),
                Err(cause) => failed = failed.or(Some(cause)),
            }
        }
        if let Some(cause) = failed {
            // Those that were started end with their handles.
            return self.say(Message::Gone(self.generation, Exit::Crashed(cause)));
        }
        let (heard, mut hearing) = mpsc::channel(1);
        for (number, Process { id, tell, mut said }) in processes.into_iter().enumerate() {
            self.group.started(number, id);
            self.tell.push(tell);
            let heard = heard.clone();
            tokio::spawn(async move {
                while let Some(said) = said.recv().await {
                    if heard.send((number, said)).await.is_err() {
                        return;
                    }
                }
            });
        }
        self.shared.view().processes = self.group.processes();
        let mut pings = interval(crate::remote::INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = self.group.wake().map(|wake| self.origin + wake);
            tokio::select! {
                heard = hearing.recv() => match heard {
                    Some((number, said)) => self.hear(number, said),
                    None => return,
                },
                asked = asked.recv() => match asked {
                    Some(Asked::Drain) => self.tell_first(DRAIN),
                    Some(Asked::Kill) => self.kill(),
                    None => return,
                },
                _ = pings.tick() => self.tell_all(PING),
                () = async { sleep_until(wake.expect("asked only if there is one")).await }, if wake.is_some() => self.kill(),
            }
            if let Some(exit) = self.group.over() {
                return self.say(Message::Gone(self.generation, exit));
            }
        }
    }

    fn hear(&mut self, number: usize, said: Said) {
        match said {
            Said::Log(line) => {
                let line = self.group.logged(number, &line);
                self.shared.log(&line);
            }
            Said::Gone(end) => {
                self.group.gone(self.origin.elapsed(), number, end);
                self.shared.view().processes = self.group.processes();
            }
            Said::Output(line) => match serde_json::from_str(&line) {
                Ok(line) => {
                    if let Some(addresses) = self.group.said(number, line) {
                        self.tell_all(&format!("{PEERS} {}", addresses.join(" ")));
                    }
                    let report = self.group.report();
                    let running = report.running;
                    let mut view = self.shared.view();
                    view.report = Some(report);
                    view.processes = self.group.processes();
                    drop(view);
                    if self.group.all_reported() {
                        self.say(Message::Reported(self.generation, running));
                    }
                }
                Err(_) => {
                    let line = self.group.logged(number, &line);
                    self.shared.log(&line);
                }
            },
        }
    }

    // A process that is gone hears nothing, and says so itself.

    fn tell_all(&self, line: &str) {
        self.tell.iter().for_each(|tell| drop(tell.send(Told::Line(line.to_owned()))));
    }

    fn tell_first(&self, line: &str) {
        self.tell.iter().take(1).for_each(|tell| drop(tell.send(Told::Line(line.to_owned()))));
    }

    fn kill(&mut self) {
        self.group.killed();
        self.tell.iter().for_each(|tell| drop(tell.send(Told::Kill)));
    }

    fn say(&self, message: Message) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            // A keeper that has ended needs no message.
            let _ = mailbox.send(message);
        }
    }
}
