//! What a node can be asked for.
//!
//! An [`Agent`] is the node's process. What it is asked changes definitions in the store, and the one that leads then makes
//! the keepers of pipelines be what the store says: so a command is durable before it is answered, and a leader needs nothing
//! but the store to go on where another one was.
//!
//! In a cluster each agent starts processes that the leader asks for, but none of a leader that was replaced: an order names
//! its epoch, and one that is lower than the greatest seen is refused.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::definition::{self, Definition, Difference, Plan, Spec};
use crate::host::{Host, Hosts, Local as ThisNode, Order, Process};
use crate::keeper::{Keeper, Site, Status};
use crate::lease::{self, Leadership, Leading, Lease};
use crate::lock::{Lock, LockError};
use crate::log::{Lines, Log};
use crate::nodes::{Membership, Nodes};
use crate::remote::{Lost, Remote, SILENCE};
use crate::store::{Local, Store, StoreError};
use crate::supervisor::{Desired, Ended, Policy};

/// How often a node looks whether the store has become different.
const LOOK: Duration = Duration::from_secs(1);
/// How long a connection to another node may take to be made.
const CONNECT: Duration = Duration::from_secs(2);

/// What a pipeline's text means, told by the program that this crate is part of.
#[async_trait]
pub trait Validator: Send + Sync {
    /// Checks a pipeline as a run on this node would.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    fn check(&self, spec: &Spec) -> Result<Checked, Rejected>;

    /// Removes what its runs have stored outside of the data folder to go on from.
    ///
    /// # Errors
    /// Where that is and why it cannot be removed.
    async fn forget(&self, spec: &Spec) -> Result<(), String>;
}

/// A pipeline without errors.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Its name.
    pub name: String,
    /// What it computes.
    pub plan: Plan,
    /// Whether what it needs to go on can be reached from every node.
    pub shared: bool,
}

/// A pipeline with errors.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// The errors for people.
    pub text: String,
    /// The errors for programs: objects with `file`, `line`, `column`, `message`, `help` and more.
    pub diagnostics: Json,
}

/// What an agent is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name.
    pub name: String,
    /// The data folder, absolute.
    pub data: PathBuf,
    /// The folder of the node's settings, absolute.
    pub settings_folder: PathBuf,
    /// The program whose hidden command `worker` runs a pipeline.
    pub program: PathBuf,
    /// `KEY=VALUE` over settings that the node was started with.
    pub overrides: Vec<String>,
    /// How patient supervisors are.
    pub policy: Policy,
    /// Where the node's API is served: a host and a port, as other nodes reach it.
    pub address: String,
    /// The store of the cluster that the node belongs to. Without it, it is alone, over a store in its data folder.
    pub cluster: Option<Arc<dyn Store>>,
}

/// Why a node does not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another node uses the data folder.
    #[error("another node (process {holder}) runs over {}; stop it, or give this one a folder of its own with `--data`", data.display())]
    Taken {
        /// The data folder.
        data: PathBuf,
        /// The other node's process.
        holder: String,
    },
    /// Another node of the cluster has the name.
    #[error(
        "another node of the cluster is called `{name}`: process {process} at {address}; give this one another `node.name`, or stop that one"
    )]
    Named {
        /// The name.
        name: String,
        /// The other node's process.
        process: u32,
        /// Where its API is.
        address: String,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    Lock(LockError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a node does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request itself is wrong.
    #[error("{error}")]
    Bad {
        /// What is wrong.
        error: String,
        /// What to do about it.
        remedy: String,
    },
    /// The pipeline has errors.
    #[error("{}", .0.text)]
    Rejected(Rejected),
    /// The name is taken.
    #[error("there is a pipeline `{0}` already")]
    Exists(String),
    /// There is no such pipeline.
    #[error("there is no pipeline `{0}`")]
    Missing(String),
    /// It can be deleted only when nothing of it runs.
    #[error("pipeline `{name}` {what}")]
    Runs {
        /// The pipeline.
        name: String,
        /// How it runs.
        what: String,
    },
    /// The upgrade loses something and nobody agreed to that.
    #[error("the upgrade of `{name}` drops what {} gathered", nodes(.difference))]
    Loses {
        /// The pipeline.
        name: String,
        /// What the upgrade does.
        difference: Difference,
    },
    /// No node leads that could be asked.
    #[error("{0}")]
    NoLeader(String),
    /// The leader broke off before it answered.
    #[error("{0}")]
    Unknown(String),
    /// In a cluster, what a pipeline goes on from must be where every node reaches it.
    #[error("pipeline `{0}` keeps its checkpoints in the data folder of a node, which the other nodes do not reach")]
    NotShared(String),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What it has stored outside of the data folder cannot be removed.
    #[error("what `{name}` has stored cannot be removed: {what}")]
    Kept {
        /// The pipeline.
        name: String,
        /// Where it is and why.
        what: String,
    },
    /// A folder or file of the pipeline cannot be used.
    #[error("{}: {error}", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn nodes(difference: &Difference) -> String {
    let lost: Vec<String> = difference.removed.iter().chain(&difference.changed).map(|n| format!("`{n}`")).collect();
    lost.join(", ")
}

/// A pipeline as it is defined. Its text and settings are left out: they may hold secrets.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PipelineView {
    /// Its name.
    pub name: String,
    /// The file that it was submitted from.
    pub file: String,
    /// The folder that its relative paths start in.
    pub folder: String,
    /// Number of worker threads of each process; without it, the settings say.
    pub workers: Option<usize>,
    /// Number of processes; without it, one.
    pub processes: Option<usize>,
    /// What it computes.
    pub plan: Plan,
    /// Whether it is to run.
    pub desired: Desired,
    /// Grows with each `start`, `upgrade` and `rescale`.
    pub version: u64,
    /// How it came to its end, if it has.
    pub ended: Option<Ended>,
}

impl From<Definition> for PipelineView {
    fn from(d: Definition) -> Self {
        PipelineView {
            name: d.name,
            file: d.spec.file,
            folder: d.spec.folder,
            workers: d.spec.workers,
            processes: d.spec.processes,
            plan: d.plan,
            desired: d.desired,
            version: d.version,
            ended: d.ended,
        }
    }
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Whether it leads.
    pub leader: bool,
    /// The epoch of its leadership.
    pub epoch: Option<u64>,
    /// Where its API is.
    pub address: String,
    /// Its process.
    pub process: u32,
    /// The version of its program.
    pub version: String,
    /// Whether nothing was heard of it for a while: no process is started on it.
    pub silent: bool,
    /// The pipelines of which it runs a process, as the leader knows.
    pub pipelines: Vec<String>,
}

/// A node's process. See the [module](self).
pub struct Agent {
    name: String,
    address: String,
    site: Arc<Site>,
    validator: Box<dyn Validator>,
    /// This node, as a place to start processes.
    host: Arc<ThisNode>,
    http: reqwest::Client,
    /// The nodes that this one does not reach.
    lost: Lost,
    leading: watch::Receiver<Leading>,
    /// The greatest epoch of a leader that wanted a process.
    epoch: AtomicU64,
    membership: Option<Membership>,
    state: Mutex<Running>,
    tasks: std::sync::Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
    _lock: Lock,
}

struct Running {
    nodes: Nodes,
    keepers: BTreeMap<String, Keeper>,
    /// The epoch of this node's in which the keepers were first as the store says.
    settled: Option<u64>,
    closed: bool,
}

/// Who is to answer a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// This node.
    Here,
    /// The node that leads.
    Other(lease::Record),
    /// Nobody now.
    Nobody,
}

impl Agent {
    /// Opens a node: alone over the local store in its data folder, or in a cluster. Returns when it has its name and, where
    /// it leads, what is to run is started.
    ///
    /// # Errors
    /// Another node uses the folder or the name, or the folder or the store cannot be used.
    pub async fn open(options: Options, validator: Box<dyn Validator>) -> Result<Agent, NodeError> {
        let Options { name, data, settings_folder, program, overrides, policy, address, cluster } = options;
        let folder = data.join("cluster");
        let lock = Lock::take(&folder.join("node.lock"), Duration::ZERO).map_err(|error| match error {
            LockError::Held { holder, .. } => NodeError::Taken { data: data.clone(), holder },
            error => NodeError::Lock(error),
        })?;
        let incarnation = uuid::Uuid::new_v4().to_string();
        let (store, lease, membership): (Arc<dyn Store>, _, _) = match cluster {
            Some(store) => {
                let membership = Membership::take(store.clone(), &name, &address, &incarnation).await?;
                (store, Lease::new(incarnation, &name, &address, lease::TERM), Some(membership))
            }
            // The lock says that nobody else uses the store.
            None => (Arc::new(Local::open(&folder.join("store"))?), Lease::alone(incarnation, &name), None),
        };
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).to_owned();
        let silence = membership.is_some().then_some(SILENCE);
        let host = Arc::new(ThisNode { name: name.clone(), program, data: data.clone(), settings_folder, overrides, host, silence });
        let hosts = Hosts::default();
        hosts.lock().expect("no holder panics").insert(name.clone(), host.clone());
        let site = Arc::new(Site { data, policy, store: store.clone(), hosts });
        let (tell, leading) = watch::channel(Leading::default());
        let mut tending = Tending { lease, store, origin: Instant::now(), tell };
        // Where servers choose another leader, it is tended a second later.
        let among_others = membership.is_some();
        let wait = |result: Result<(), StoreError>| match result {
            Err(error @ StoreError::Unavailable { .. }) if among_others => {
                tracing::warn!("{error}");
                Ok(())
            }
            result => result,
        };
        wait(tending.tend().await)?;
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(tending.go_on(ended));
        let state = Running { nodes: Nodes::default(), keepers: BTreeMap::new(), settled: None, closed: false };
        let agent = Agent {
            name,
            address,
            site,
            validator,
            host,
            http: http(),
            lost: Lost::default(),
            leading,
            epoch: AtomicU64::new(0),
            membership,
            state: Mutex::new(state),
            tasks: std::sync::Mutex::new(Some((end, task))),
            _lock: lock,
        };
        let reconciled = agent.reconcile(&mut *agent.state.lock().await).await;
        wait(reconciled)?;
        Ok(agent)
    }

    /// Goes on making the keepers be what the store says, until the agent is closed.
    ///
    /// # Errors
    /// The node cannot go on: another one has its name.
    pub async fn tend(&self) -> Result<(), NodeError> {
        let mut leading = self.leading.clone();
        let lost = async {
            match &self.membership {
                Some(membership) => membership.lost().await,
                None => std::future::pending().await,
            }
        };
        let tending = async {
            loop {
                // At once when this node begins to lead.
                let epoch = leading.borrow_and_update().epoch();
                let changed = async { leading.wait_for(|l| l.epoch() != epoch).await.is_err() };
                if tokio::time::timeout(LOOK, changed).await == Ok(true) {
                    return;
                }
                let mut state = self.state.lock().await;
                if state.closed {
                    return;
                }
                if let Err(error) = self.reconcile(&mut state).await {
                    tracing::warn!("{error}");
                }
            }
        };
        tokio::select! {
            error = lost => Err(error),
            () = tending => Ok(()),
        }
    }

    /// Lets all pipelines drain that this node's leadership keeps, each for as long as its supervisor's policy allows, and
    /// lets the lease and the name go. What is wanted of them stays: the next leader starts them again.
    pub async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        let closing: Vec<_> = std::mem::take(&mut state.keepers).into_values().map(|k| tokio::spawn(k.close(Desired::Stopped))).collect();
        for task in closing {
            // One that panicked has killed its process.
            let _ = task.await;
        }
        let tending = self.tasks.lock().expect("no holder panics").take();
        if let Some((end, task)) = tending {
            // It may have ended by itself, however that came.
            let _ = end.send(());
            let _ = task.await;
        }
        if let Some(membership) = &self.membership {
            membership.leave().await;
        }
    }

    fn store(&self) -> &dyn Store {
        self.site.store.as_ref()
    }

    async fn reconcile(&self, state: &mut Running) -> Result<(), StoreError> {
        if self.membership.is_some() {
            state.nodes.look(self.store()).await?;
            self.meet(&state.nodes);
        }
        let Some(leadership) = Leadership::now(&self.leading) else {
            // Another leader may start them at any moment; they have ended by themselves.
            state.keepers.clear();
            state.settled = None;
            return Ok(());
        };
        let definitions = definition::all(self.store()).await?;
        state.keepers.retain(|name, keeper| definitions.iter().any(|(n, _)| n == name) && !keeper.is_over());
        for (name, definition) in definitions {
            let result = match (definition, state.keepers.get(&name)) {
                (Err(error), _) => Err(error.to_string()),
                (Ok(definition), Some(keeper)) => {
                    keeper.define(definition).await;
                    Ok(())
                }
                (Ok(definition), None) => Keeper::start(self.site.clone(), leadership.clone(), definition)
                    .await
                    .map(|keeper| drop(state.keepers.insert(name.clone(), keeper)))
                    .map_err(|e| format!("{}: {e}", self.site.logs().display())),
            };
            if let Err(error) = result {
                tracing::error!(pipeline = name, "it is not looked after: {error}");
            }
        }
        state.settled = Some(leadership.epoch);
        Ok(())
    }

    /// Lets processes be started on the nodes that live.
    fn meet(&self, nodes: &Nodes) {
        let mut hosts = self.site.hosts.lock().expect("no holder panics");
        hosts.clear();
        for record in nodes.living(&self.lost) {
            let (name, address) = (record.name.clone(), record.address.clone());
            let remote = || Remote { name, address, http: self.http.clone(), lost: self.lost.clone() };
            let host: Arc<dyn Host> = if record.name == self.name { self.host.clone() } else { Arc::new(remote()) };
            hosts.insert(record.name.clone(), host);
        }
        // This one lives, whatever the store has not heard of it yet.
        hosts.entry(self.name.clone()).or_insert_with(|| self.host.clone());
    }

    /// Makes the keepers be what the store says after a command, and tells how one of them is.
    async fn settle(&self, name: &str) -> Result<Status, Refusal> {
        let mut state = self.state.lock().await;
        self.reconcile(&mut state).await?;
        state.keepers.get(name).map(Keeper::status).ok_or_else(|| Refusal::Missing(name.to_owned()))
    }

    /// Who is to answer what only a leader knows.
    pub fn answerer(&self) -> Answerer {
        let leading = self.leading.borrow();
        match (&leading.other, leading.epoch()) {
            (_, Some(_)) => Answerer::Here,
            (Some(record), None) => Answerer::Other(record.clone()),
            (None, None) => Answerer::Nobody,
        }
    }

    /// Returns when somebody else than this one leads.
    pub(crate) async fn no_longer_led_by(&self, record: &lease::Record) {
        let mut leading = self.leading.clone();
        let same = |l: &Leading| l.other.as_ref().is_some_and(|o| o.holder == record.holder && o.epoch == record.epoch);
        // Nobody tells any more only where the node itself ends.
        let _ = leading.wait_for(|l| !same(l)).await;
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The state, unless this node does not lead or has not looked yet at what there is.
    async fn leading(&self) -> Result<tokio::sync::MutexGuard<'_, Running>, Refusal> {
        let state = self.state.lock().await;
        match self.leading.borrow().epoch() {
            None => return Err(Refusal::NoLeader("no node leads the cluster now".into())),
            epoch if state.settled == epoch => {}
            Some(_) => return Err(Refusal::NoLeader(format!("node `{}` has begun to lead and looks what there is", self.name))),
        }
        Ok(state)
    }

    /// Starts a process for the leader.
    ///
    /// # Errors
    /// The leader was replaced, or the process cannot be started.
    pub(crate) async fn start_process(&self, order: Order) -> Result<Process, String> {
        let epoch = order.generation.epoch;
        let known = self.leading.borrow().other.as_ref().map_or(0, |record| record.epoch);
        let seen = self.epoch.fetch_max(epoch.max(known), Ordering::SeqCst).max(known);
        if epoch < seen {
            return Err(format!("node `{}` starts no process for a leader of epoch {epoch}: it has seen epoch {seen}", self.name));
        }
        let what = format!("process {} of `{}`, generation {}", order.process, order.pipeline, order.generation.number);
        let process = self.host.start(order).await?;
        tracing::info!("{what}, is process {} here", process.id);
        Ok(process)
    }

    fn check(&self, spec: &Spec) -> Result<Checked, Refusal> {
        let folder = Path::new(&spec.folder);
        if !folder.is_absolute() || !Path::new(&spec.file).is_absolute() {
            let remedy = "give `folder` and `file` as absolute paths on the node".to_owned();
            return Err(Refusal::Bad { error: format!("`{}` or `{}` is not an absolute path", spec.folder, spec.file), remedy });
        }
        if !folder.is_dir() {
            let remedy = "relative paths in the pipeline start there: submit it from a folder that the node has, too".to_owned();
            return Err(Refusal::Bad { error: format!("the node has no folder `{}`", spec.folder), remedy });
        }
        if spec.workers.is_some_and(|n| !(1..=1_024).contains(&n)) {
            return Err(Refusal::Bad { error: "the number of workers is out of range".into(), remedy: "give one from 1 to 1024".into() });
        }
        if spec.processes.is_some_and(|n| !(1..=64).contains(&n)) {
            return Err(Refusal::Bad { error: "the number of processes is out of range".into(), remedy: "give one from 1 to 64".into() });
        }
        let checked = self.validator.check(spec).map_err(Refusal::Rejected)?;
        if self.membership.is_some() && !checked.shared {
            return Err(Refusal::NotShared(checked.name));
        }
        Ok(checked)
    }

    /// Accepts a new pipeline, and starts it.
    ///
    /// # Errors
    /// It has errors, or its name is taken.
    pub async fn submit(&self, spec: Spec) -> Result<Status, Refusal> {
        drop(self.leading().await?);
        let Checked { name, plan, .. } = self.check(&spec)?;
        let definition = Definition {
            name: name.clone(),
            spec,
            plan,
            desired: Desired::Running,
            version: 1,
            generation: None,
            upgraded: false,
            before: None,
            ended: None,
        };
        match definition::create(self.store(), &definition).await {
            Ok(_) => self.settle(&name).await,
            Err(StoreError::Conflict { .. }) => Err(Refusal::Exists(name)),
            Err(error) => Err(error.into()),
        }
    }

    /// How all pipelines are, by name.
    ///
    /// # Errors
    /// This node does not lead.
    pub async fn list(&self) -> Result<Vec<Status>, Refusal> {
        Ok(self.leading().await?.keepers.values().map(Keeper::status).collect())
    }

    /// How a pipeline is.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn status(&self, name: &str) -> Result<Status, Refusal> {
        let state = self.leading().await?;
        state.keepers.get(name).map(Keeper::status).ok_or_else(|| Refusal::Missing(name.to_owned()))
    }

    /// What a pipeline is.
    ///
    /// # Errors
    /// There is none of this name, or the store cannot be used.
    pub async fn view(&self, name: &str) -> Result<PipelineView, Refusal> {
        Ok(self.find(name).await?.into())
    }

    async fn find(&self, name: &str) -> Result<Definition, Refusal> {
        let found = match definition::find(self.store(), name).await {
            // A name that is no key is the name of nothing.
            Err(StoreError::Key(_)) => None,
            result => result?,
        };
        found.map(|(definition, _)| definition).ok_or_else(|| Refusal::Missing(name.to_owned()))
    }

    async fn change(&self, name: &str, change: impl FnMut(&mut Definition) -> bool + Send) -> Result<Status, Refusal> {
        drop(self.leading().await?);
        match definition::change(self.store(), name, change).await {
            Ok(None) | Err(StoreError::Key(_)) => Err(Refusal::Missing(name.to_owned())),
            Ok(Some(_)) => self.settle(name).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a pipeline drain, or kills it.
    ///
    /// # Errors
    /// There is none of this name, or the store cannot be used.
    pub async fn stop(&self, name: &str, now: bool) -> Result<Status, Refusal> {
        let desired = if now { Desired::StoppedNow } else { Desired::Stopped };
        self.change(name, |d| std::mem::replace(&mut d.desired, desired) != desired).await
    }

    /// Starts a pipeline that was stopped, has failed or has finished. One that runs goes on.
    ///
    /// # Errors
    /// There is none of this name, or the store cannot be used.
    pub async fn start(&self, name: &str) -> Result<Status, Refusal> {
        self.change(name, |d| {
            let needed = d.desired != Desired::Running || d.ended.is_some();
            if needed {
                d.desired = Desired::Running;
                d.renew();
            }
            needed
        })
        .await
    }

    /// Gives a pipeline another number of worker threads or processes, or both: new processes take over from those that
    /// run. What is not given stays.
    ///
    /// # Errors
    /// There is none of this name, a number is out of range, or the store cannot be used.
    pub async fn rescale(&self, name: &str, workers: Option<usize>, processes: Option<usize>) -> Result<Status, Refusal> {
        if workers.is_none() && processes.is_none() {
            let remedy = "give the number of workers, of processes, or both".to_owned();
            return Err(Refusal::Bad { error: "nothing is to become different".into(), remedy });
        }
        let definition = self.find(name).await?;
        self.check(&Spec { workers, processes, ..definition.spec })?;
        self.change(name, |d| {
            let before = (d.spec.workers, d.spec.processes);
            d.spec.workers = workers.or(before.0);
            d.spec.processes = processes.or(before.1);
            let needed = before != (d.spec.workers, d.spec.processes);
            if needed {
                d.renew();
            }
            needed
        })
        .await
    }

    /// What an upgrade of a pipeline to this would do. Touches nothing.
    ///
    /// # Errors
    /// There is none of this name, or the new one has errors.
    pub async fn compare(&self, name: &str, spec: &Spec) -> Result<Difference, Refusal> {
        let definition = self.find(name).await?;
        let checked = self.check(spec)?;
        if checked.name != name {
            let remedy = format!("submit it as a pipeline of its own, or write `name = \"{name}\"` in it");
            return Err(Refusal::Bad { error: format!("the pipeline's name is `{}`, not `{name}`", checked.name), remedy });
        }
        Ok(Difference::between(&definition.plan, &checked.plan))
    }

    /// Replaces a pipeline: a new process takes over from the one that runs. Where that loses something that a node has
    /// gathered, `accept` must say so. The numbers of workers and processes stay unless the new one has its own.
    ///
    /// # Errors
    /// There is none of this name, the new one has errors, or it loses something.
    pub async fn upgrade(&self, name: &str, mut spec: Spec, accept: bool) -> Result<Status, Refusal> {
        self.compare(name, &spec).await?;
        let plan = self.check(&spec)?.plan;
        let mut lost = None;
        let status = self
            .change(name, |d| {
                spec.workers = spec.workers.or(d.spec.workers);
                spec.processes = spec.processes.or(d.spec.processes);
                // Against what it is now, which may not be what was compared.
                let difference = Difference::between(&d.plan, &plan);
                lost = (difference.loses() && !accept).then_some(difference);
                let needed = lost.is_none() && d.spec != spec;
                if needed {
                    let before = std::mem::replace(&mut d.spec, spec.clone());
                    d.before.get_or_insert(before);
                    d.plan.clone_from(&plan);
                    d.upgraded = true;
                    d.renew();
                }
                needed
            })
            .await?;
        match lost {
            Some(difference) => Err(Refusal::Loses { name: name.to_owned(), difference }),
            None => Ok(status),
        }
    }

    /// Forgets a pipeline of which nothing runs: its definition, the positions of its sources, its logs. Tables stay.
    ///
    /// # Errors
    /// There is none of this name, it runs, or something cannot be removed.
    pub async fn delete(&self, name: &str) -> Result<(), Refusal> {
        self.find(name).await?;
        let mut state = self.leading().await?;
        let runs = |what: String| Refusal::Runs { name: name.to_owned(), what };
        let lock = Lock::of_pipeline(&self.site.data, name);
        if let Some(keeper) = state.keepers.get(name) {
            let status = keeper.status();
            if status.state.has_process() || status.retry_seconds.is_some() {
                return Err(runs(format!("is {}", status.state.as_str())));
            }
        }
        let _held = match Lock::take(&lock, Duration::ZERO) {
            Ok(held) => held,
            Err(LockError::Held { holder, .. }) => return Err(runs(format!("is run by process {holder}"))),
            Err(LockError::Io { path, error }) => return Err(Refusal::Io { path, error }),
        };
        let Some((definition, revision)) = definition::find(self.store(), name).await? else {
            return Err(Refusal::Missing(name.to_owned()));
        };
        if definition.desired == Desired::Running && definition.ended.is_none() {
            return Err(runs("is to run".into()));
        }
        // First what would be found again under the same name, last what lets the command be repeated.
        self.validator.forget(&definition.spec).await.map_err(|what| Refusal::Kept { name: name.to_owned(), what })?;
        let folder = self.site.data.join("pipelines").join(name);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Refusal::Io { path: folder, error }),
            _ => {}
        }
        definition::delete(self.store(), name, revision).await?;
        state.keepers.remove(name);
        Log::remove(&self.site.logs(), name).map_err(|error| Refusal::Io { path: self.site.logs(), error })
    }

    /// The last lines of a pipeline's log; see [`Log::lines`].
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn logs(&self, name: &str, most: usize, after: u64) -> Result<Lines, Refusal> {
        let state = self.leading().await?;
        state.keepers.get(name).map(|k| k.logs(most, after)).ok_or_else(|| Refusal::Missing(name.to_owned()))
    }

    /// The nodes of the cluster, by name.
    pub async fn nodes(&self) -> Vec<NodeView> {
        let state = self.state.lock().await;
        let leading = self.leading.borrow().clone();
        let leader = leading.epoch().map(|epoch| (self.name.as_str(), epoch));
        let leader = leader.or(leading.other.as_ref().map(|record| (record.node.as_str(), record.epoch)));
        let runs = |name: &str| {
            let keepers = state.keepers.iter().filter(|(_, keeper)| keeper.status().processes.iter().any(|p| p.node == name));
            keepers.map(|(pipeline, _)| pipeline.clone()).collect()
        };
        let view = |name: &str, address: &str, process, version: &str, silent| {
            let epoch = leader.filter(|(leader, _)| *leader == name).map(|(_, epoch)| epoch);
            let (address, version) = (address.to_owned(), version.to_owned());
            NodeView { name: name.to_owned(), leader: epoch.is_some(), epoch, address, process, version, silent, pipelines: runs(name) }
        };
        if self.membership.is_none() {
            return vec![view(&self.name, &self.address, std::process::id(), env!("CARGO_PKG_VERSION"), false)];
        }
        state.nodes.all().map(|(record, silent)| view(&record.name, &record.address, record.process, &record.version, silent)).collect()
    }
}

/// What nodes ask each other with. Answers that take long, as that to `delete`, are waited for as long as the other leads.
fn http() -> reqwest::Client {
    // Made once, and without a proxy on the way: nodes reach each other.
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    let make = || reqwest::Client::builder().no_proxy().connect_timeout(CONNECT).build().unwrap_or_default();
    CLIENT.get_or_init(make).clone()
}

/// Tends the lease, whatever else the agent waits for.
struct Tending {
    lease: Lease,
    store: Arc<dyn Store>,
    origin: Instant,
    tell: watch::Sender<Leading>,
}

impl Tending {
    async fn tend(&mut self) -> Result<(), StoreError> {
        let origin = self.origin;
        let now = || origin.elapsed();
        let result = self.lease.tend(self.store.as_ref(), &now).await;
        // A node that is alone leads to the end of days.
        let until = |until: Duration| origin + until.min(Duration::from_secs(30 * 365 * 86_400));
        let own = self.lease.leads(now()).zip(self.lease.until().map(until));
        let leading = Leading { own, other: self.lease.other(now()).cloned() };
        self.tell.send_if_modified(|before| {
            if before.epoch() != leading.epoch() {
                match leading.epoch() {
                    Some(epoch) => tracing::info!("this node leads, in epoch {epoch}"),
                    None => tracing::warn!("this node does not lead any more: its pipelines end here"),
                }
            }
            let news = *before != leading;
            *before = leading;
            news
        });
        result
    }

    async fn go_on(mut self, mut ended: oneshot::Receiver<()>) {
        loop {
            if let Ok(asked) = tokio::time::timeout(lease::INTERVAL, &mut ended).await {
                if asked.is_ok()
                    && let Err(error) = self.lease.release(self.store.as_ref()).await
                {
                    tracing::warn!("{error}");
                }
                return;
            }
            if let Err(error) = self.tend().await {
                tracing::warn!("{error}");
            }
        }
    }
}
