//! What a node can be asked for.
//!
//! An [`Agent`] is the node's process. What it is asked changes definitions in the store, and it then makes the keepers of
//! pipelines be what the store says: so a command is durable before it is answered, and a restarted agent needs nothing but
//! the store to go on.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::definition::{self, Definition, Difference, Plan, Spec};
use crate::keeper::{Keeper, Site, Status};
use crate::lease::{self, Lease};
use crate::lock::{Lock, LockError};
use crate::log::{Lines, Log};
use crate::store::{Local, Store, StoreError};
use crate::supervisor::{Desired, Ended, Policy};

/// How often a node looks whether the store has become different.
const LOOK: Duration = Duration::from_secs(1);

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
}

/// Why a node does not start.
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
    /// This node does not lead.
    #[error("this node does not lead the cluster{}", .leader.as_ref().map(|l| format!(", `{l}` does")).unwrap_or_default())]
    NotLeader {
        /// The name of the node that does.
        leader: Option<String>,
    },
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
    /// Number of worker threads; without it, the settings say.
    pub workers: Option<usize>,
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
    /// Its process.
    pub process: u32,
    /// The version of its program.
    pub version: String,
    /// The pipelines that it runs or would run.
    pub pipelines: Vec<String>,
}

/// A node's process. See the [module](self).
pub struct Agent {
    name: String,
    site: Arc<Site>,
    validator: Box<dyn Validator>,
    origin: Instant,
    state: Mutex<Running>,
    _lock: Lock,
}

struct Running {
    lease: Lease,
    keepers: BTreeMap<String, Keeper>,
    closed: bool,
}

impl Agent {
    /// Opens a node over the local store in its data folder, takes the lease, and starts what is to run.
    ///
    /// # Errors
    /// Another node uses the folder, or it cannot be used.
    pub async fn open(options: Options, validator: Box<dyn Validator>) -> Result<Agent, NodeError> {
        let folder = options.data.join("cluster");
        let lock = Lock::take(&folder.join("node.lock"), Duration::ZERO).map_err(|error| match error {
            LockError::Held { holder, .. } => NodeError::Taken { data: options.data.clone(), holder },
            error => NodeError::Lock(error),
        })?;
        let store = Arc::new(Local::open(&folder.join("store"))?);
        // The lock says that nobody else uses the store.
        let lease = Lease::alone(uuid::Uuid::new_v4().to_string(), &options.name);
        let Options { name, data, settings_folder, program, overrides, policy } = options;
        let site = Site { program, data, settings_folder, overrides, policy, store };
        let state = Mutex::new(Running { lease, keepers: BTreeMap::new(), closed: false });
        let agent = Agent { name, site: Arc::new(site), validator, origin: Instant::now(), state, _lock: lock };
        agent.reconcile(&mut *agent.state.lock().await).await?;
        Ok(agent)
    }

    /// Goes on making the keepers be what the store says, until the agent is closed.
    pub async fn tend(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let mut state = self.state.lock().await;
            if state.closed {
                return;
            }
            if let Err(error) = self.reconcile(&mut state).await {
                tracing::warn!("{error}");
            }
        }
    }

    /// Lets all pipelines drain, each for as long as its supervisor's policy allows, and lets the lease go. What is wanted of
    /// them stays: the next agent starts them again.
    pub async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        let closing: Vec<_> = std::mem::take(&mut state.keepers).into_values().map(|k| tokio::spawn(k.close(Desired::Stopped))).collect();
        for task in closing {
            // One that panicked has killed its process.
            let _ = task.await;
        }
        if let Err(error) = state.lease.release(self.store()).await {
            tracing::warn!("{error}");
        }
    }

    fn store(&self) -> &dyn Store {
        self.site.store.as_ref()
    }

    async fn reconcile(&self, state: &mut Running) -> Result<(), StoreError> {
        let now = || self.origin.elapsed();
        let tended = state.lease.tend(self.store(), &now).await;
        let Some(epoch) = state.lease.leads(now()) else {
            // Another leader may start them at any moment.
            state.keepers.clear();
            return tended;
        };
        tended?;
        let definitions = definition::all(self.store()).await?;
        state.keepers.retain(|name, keeper| definitions.iter().any(|(n, _)| n == name) && !keeper.is_over());
        for (name, definition) in definitions {
            let result = match (definition, state.keepers.get(&name)) {
                (Err(error), _) => Err(error.to_string()),
                (Ok(definition), Some(keeper)) => {
                    keeper.define(definition).await;
                    Ok(())
                }
                (Ok(definition), None) => Keeper::start(self.site.clone(), epoch, definition)
                    .await
                    .map(|keeper| drop(state.keepers.insert(name.clone(), keeper)))
                    .map_err(|e| format!("{}: {e}", self.site.logs().display())),
            };
            if let Err(error) = result {
                tracing::error!(pipeline = name, "it is not looked after: {error}");
            }
        }
        Ok(())
    }

    /// Makes the keepers be what the store says after a command, and tells how one of them is.
    async fn settle(&self, name: &str) -> Result<Status, Refusal> {
        let mut state = self.state.lock().await;
        self.reconcile(&mut state).await?;
        state.keepers.get(name).map(Keeper::status).ok_or_else(|| Refusal::Missing(name.to_owned()))
    }

    /// Refuses unless this node leads.
    async fn leading(&self) -> Result<(), Refusal> {
        if self.state.lock().await.lease.leads(self.origin.elapsed()).is_some() {
            return Ok(());
        }
        let record = self.store().get(lease::KEY).await?.map(|entry| lease::read(&entry.value)).transpose()?;
        Err(Refusal::NotLeader { leader: record.map(|r| r.node) })
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
        self.validator.check(spec).map_err(Refusal::Rejected)
    }

    /// Accepts a new pipeline, and starts it.
    ///
    /// # Errors
    /// It has errors, or its name is taken.
    pub async fn submit(&self, spec: Spec) -> Result<Status, Refusal> {
        self.leading().await?;
        let Checked { name, plan } = self.check(&spec)?;
        let definition = Definition {
            name: name.clone(),
            spec,
            plan,
            desired: Desired::Running,
            version: 1,
            generation: None,
            upgraded: false,
            ended: None,
        };
        match definition::create(self.store(), &definition).await {
            Ok(_) => self.settle(&name).await,
            Err(StoreError::Conflict { .. }) => Err(Refusal::Exists(name)),
            Err(error) => Err(error.into()),
        }
    }

    /// How all pipelines are, by name.
    pub async fn list(&self) -> Vec<Status> {
        self.state.lock().await.keepers.values().map(Keeper::status).collect()
    }

    /// How a pipeline is.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn status(&self, name: &str) -> Result<Status, Refusal> {
        let state = self.state.lock().await;
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
        self.leading().await?;
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

    /// Gives a pipeline another number of worker threads: a new process takes over from the one that runs.
    ///
    /// # Errors
    /// There is none of this name, the number is out of range, or the store cannot be used.
    pub async fn rescale(&self, name: &str, workers: usize) -> Result<Status, Refusal> {
        let definition = self.find(name).await?;
        self.check(&Spec { workers: Some(workers), ..definition.spec })?;
        self.change(name, |d| {
            let needed = d.spec.workers != Some(workers);
            if needed {
                d.spec.workers = Some(workers);
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
    /// gathered, `accept` must say so. The number of workers stays unless the new one has its own.
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
                // Against what it is now, which may not be what was compared.
                let difference = Difference::between(&d.plan, &plan);
                lost = (difference.loses() && !accept).then_some(difference);
                let needed = lost.is_none() && d.spec != spec;
                if needed {
                    d.spec.clone_from(&spec);
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
        self.leading().await?;
        self.find(name).await?;
        let mut state = self.state.lock().await;
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
        let state = self.state.lock().await;
        state.keepers.get(name).map(|k| k.logs(most, after)).ok_or_else(|| Refusal::Missing(name.to_owned()))
    }

    /// The nodes of the cluster.
    pub async fn nodes(&self) -> Vec<NodeView> {
        let state = self.state.lock().await;
        let epoch = state.lease.leads(self.origin.elapsed());
        vec![NodeView {
            name: self.name.clone(),
            leader: epoch.is_some(),
            epoch,
            process: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            pipelines: state.keepers.keys().cloned().collect(),
        }]
    }
}
