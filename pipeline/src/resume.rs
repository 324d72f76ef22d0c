//! Where a run goes on: what the journal and the checkpoints of earlier runs say.
//!
//! A run takes over the states of the newest checkpoint, opens every source behind the position that belongs to it and
//! reads again what was handed over after it, at the same logical times. Sinks leave out what they have committed. Without
//! a checkpoint all this begins at the beginning, and the outcome is the same.
//!
//! Nothing is guessed. A damaged journal or checkpoint, and a pipeline that computes something else than before, are errors
//! that say what can be done.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use config::settings::Settings;
use model::time::Time;
use operators::state::{StageState, WatermarkState};
use sinks::{Keeps, Sink};
use sources::Position;
use storage::StorageError;
use storage::attempts::MayPass;

use crate::checkpoint::{Manifest, Store};
use crate::journal::{self, Bound, Committed, History, Identity, Journal, JournalError};
use crate::mesh::Start;
use crate::plan::{Node, Plan};

/// How a run is to begin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// Forget them: read everything from the beginning. Rows that are stored stay.
    pub fresh: bool,
    /// Go on although the pipeline computes something else.
    pub accept: bool,
    /// Go on from this checkpoint instead of the newest.
    pub checkpoint: Option<Time>,
    /// How long stores and sources that are away are waited for before rows flow; as long as it takes where there is none.
    pub patience: Option<Duration>,
}

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A checkpoint, or where they lie.
    #[error("{error}{}", before.as_ref().map_or_else(String::new, |before| format!(": {before}")))]
    Checkpoint {
        /// What is wrong with it.
        error: StorageError,
        /// How to go on from the one before it.
        before: Option<String>,
    },
    /// The pipeline computes something else.
    #[error(
        "pipeline `{pipeline}` computes something else than when it ran last:\n{difference}run with `--accept` to go on so, or with `--fresh` to begin anew"
    )]
    Changed {
        /// The pipeline.
        pipeline: String,
        /// A line for each node.
        difference: String,
    },
    /// The pipeline computed something else when it was killed, and what it had begun to commit is not finished.
    #[error(
        "pipeline `{pipeline}` was killed while sink `{sink}` committed, and only the pipeline as it was can finish that; run the file as it was until it is drained (Ctrl-C), then the changed one with `--accept`"
    )]
    Unfinished {
        /// The pipeline.
        pipeline: String,
        /// One of its sinks.
        sink: String,
    },
    /// Anything else.
    #[error("pipeline `{pipeline}`: {what}; {remedy}")]
    Stuck {
        /// The pipeline.
        pipeline: String,
        /// What is missing.
        what: String,
        /// What to do about it.
        remedy: &'static str,
    },
}

/// Where a source goes on.
#[derive(Clone, Debug, Default)]
pub struct SourceResume {
    /// Everything before this is in the states. `None` is the beginning.
    pub from: Option<Position>,
    /// It has ended, and the states know.
    pub ended: bool,
    /// What it handed over after that, and when.
    pub replay: VecDeque<Bound>,
}

/// Where a sink goes on.
#[derive(Clone, Debug, Default)]
pub struct SinkResume {
    /// What it has committed.
    pub committed: Committed,
    /// Its watermark in the checkpoint.
    pub watermark: WatermarkState,
}

/// Where a run goes on.
pub struct Resume {
    /// What the pipeline computes.
    pub identity: Identity,
    /// The journal, where the pipeline has one: where a sink keeps what it commits.
    pub journal: Option<Arc<Journal>>,
    /// Where checkpoints are stored, where there are to be any.
    pub store: Option<Store>,
    /// The barrier of the checkpoint, or 0.
    pub from: Time,
    /// The states of its stages.
    pub states: HashMap<(String, u32), StageState>,
    /// By number.
    pub sources: Vec<SourceResume>,
    /// In the order of the plan.
    pub sinks: Vec<SinkResume>,
    /// Logical times before this were given out earlier.
    pub next: Time,
    /// Everything was read and committed earlier: there is nothing to do.
    pub ended: bool,
}

impl Resume {
    /// Finds where a plan goes on.
    ///
    /// # Errors
    /// See [`ResumeError`].
    pub async fn find(plan: &Plan, settings: &Settings, choice: Choice) -> Result<Resume, ResumeError> {
        let identity = Identity { plan: plan.hash.clone(), nodes: plan.node_hashes.clone() };
        if !plan.keeps_commits() {
            return Ok(Resume::from_the_beginning(plan, identity, None, None));
        }
        let store = Store::open(settings, &plan.name).map_err(ResumeError::from)?;
        let whole = plan.sinks.iter().find(|sink| sink.component.keeps() == Keeps::Whole);
        let kept = if whole.is_some() { None } else { Some(store.clone()) };
        let stuck = |what: String, remedy| ResumeError::Stuck { pipeline: plan.name.clone(), what, remedy };
        let opened = journal::open(settings, &plan.name).await?;
        let new = History { identity: identity.clone(), ..History::default() };

        if choice.fresh {
            store.clear().await?;
            let next = opened.history.as_ref().ok().and_then(Option::as_ref).map_or(0, History::next);
            let journal = opened.begin(new, &plan.account).await?;
            return Ok(Resume { next, ..Resume::from_the_beginning(plan, identity, Some(journal), kept) });
        }
        let barriers = store.list().await?;
        let Some(mut history) = opened.history.clone()? else {
            if !barriers.is_empty() {
                let what = "its checkpoints are there but its journal, which belongs to them, is gone".to_owned();
                return Err(stuck(what, "restore the data folder, or begin anew with `--fresh`: rows that are stored stay"));
            }
            let journal = opened.begin(new, &plan.account).await?;
            return Ok(Resume::from_the_beginning(plan, identity, Some(journal), kept));
        };
        if history.identity.nodes != identity.nodes {
            change(plan, &history, &identity, choice)?;
        }

        let chosen = match (whole, choice.checkpoint) {
            (Some(sink), _) if history.floor > 0 => {
                let what = format!("sink `{}` needs every row from the beginning, which the pipeline cannot give again", sink.name);
                return Err(stuck(what, "take the sink out, or begin anew with `--fresh`"));
            }
            (Some(_), _) => None,
            (None, Some(barrier)) if !barriers.contains(&barrier) => {
                let what = format!("there is no checkpoint {barrier}");
                return Err(stuck(what, "`marketprism checkpoints` lists them"));
            }
            (None, Some(barrier)) => Some(barrier),
            (None, None) => barriers.first().copied(),
        };
        if chosen.unwrap_or(0) < history.floor {
            let what = "the checkpoint that its journal goes on from is gone".to_owned();
            return Err(stuck(what, "restore the checkpoints, or begin anew with `--fresh`: rows that are stored stay"));
        }
        let (manifest, states) = match chosen {
            None => (None, HashMap::new()),
            Some(barrier) => {
                let (manifest, states) = load(&store, plan, barrier).await.map_err(|error| {
                    let before = barriers.iter().find(|before| **before < barrier && **before >= history.floor);
                    ResumeError::Checkpoint { error, before: before.map(|before| format!("run with `--checkpoint {before}`")) }
                })?;
                (Some(manifest), states)
            }
        };

        let next = history.next().max(chosen.unwrap_or(0));
        let ended = history.ended && whole.is_none();
        let resume = Resume {
            sources: plan.sources.iter().map(|source| source_resume(&source.name, &history, chosen.unwrap_or(0))).collect(),
            sinks: plan.sinks.iter().map(|sink| sink_resume(sink, &history, manifest.as_ref())).collect(),
            from: chosen.unwrap_or(0),
            states: states.into_iter().filter(|((node, _), _)| history.identity.nodes.get(node) == identity.nodes.get(node)).collect(),
            next,
            ended,
            store: kept,
            journal: None,
            identity: identity.clone(),
        };
        history.bounds.retain(|source, _| plan.sources.iter().any(|s| s.name == *source));
        history.sinks.retain(|sink, _| plan.sinks.iter().any(|s| s.name == *sink));
        history.ended = ended;
        history.identity = identity;
        Ok(Resume { journal: Some(Arc::new(opened.begin(history, &plan.account).await?)), ..resume })
    }

    /// Where it goes on, as the other processes of the run need to know it.
    pub fn start(&self) -> Start {
        let mut nodes: Vec<String> = self.states.keys().map(|(node, _)| node.clone()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        Start { from: self.from, nodes, checkpoints: self.store.is_some() }
    }

    fn from_the_beginning(plan: &Plan, identity: Identity, journal: Option<Journal>, store: Option<Store>) -> Resume {
        Resume {
            identity,
            journal: journal.map(Arc::new),
            store,
            from: 0,
            states: HashMap::new(),
            sources: plan.sources.iter().map(|_| SourceResume::default()).collect(),
            sinks: plan.sinks.iter().map(|_| SinkResume::default()).collect(),
            next: 0,
            ended: false,
        }
    }
}

impl MayPass for ResumeError {
    fn may_pass(&self) -> bool {
        match self {
            ResumeError::Journal(error) => error.transient,
            ResumeError::Checkpoint { error, .. } => error.transient,
            ResumeError::Changed { .. } | ResumeError::Unfinished { .. } | ResumeError::Stuck { .. } => false,
        }
    }

    fn words(&self) -> (String, String) {
        (self.to_string(), String::new())
    }
}

impl From<StorageError> for ResumeError {
    fn from(error: StorageError) -> Self {
        ResumeError::Checkpoint { error, before: None }
    }
}

/// The states that a run takes over, as another of its processes has found.
///
/// # Errors
/// The checkpoint cannot be read.
pub async fn states(store: &Store, plan: &Plan, start: &Start) -> Result<HashMap<(String, u32), StageState>, StorageError> {
    if start.from == 0 {
        return Ok(HashMap::new());
    }
    let (_, mut states) = load(store, plan, start.from).await?;
    states.retain(|(node, _), _| start.nodes.contains(node));
    Ok(states)
}

/// A checkpoint with its states, whose watermarks number the sources as the plan does.
async fn load(store: &Store, plan: &Plan, barrier: Time) -> Result<(Manifest, HashMap<(String, u32), StageState>), StorageError> {
    let mut manifest = store.manifest(&plan.name, barrier).await?;
    let mut states = store.states(&manifest).await?;
    let numbers: Vec<Option<u32>> =
        manifest.sources.iter().map(|name| (0..).zip(&plan.sources).find(|(_, source)| source.name == *name).map(|(n, _)| n)).collect();
    let watermarks = states.values_mut().map(|state| &mut state.watermark).chain(manifest.sinks.values_mut());
    for watermark in watermarks {
        watermark.sources.retain_mut(|progress| {
            let number = numbers.get(progress.source as usize).copied().flatten();
            progress.source = number.unwrap_or(progress.source);
            number.is_some()
        });
    }
    Ok((manifest, states))
}

fn source_resume(name: &str, history: &History, from: Time) -> SourceResume {
    let Some(bounds) = history.bounds.get(name) else { return SourceResume::default() };
    let below = bounds.partition_point(|(time, _)| *time < from);
    let replay = bounds.iter().skip(below).cloned().collect();
    match below.checked_sub(1).map(|last| &bounds[last].1) {
        None => SourceResume { from: None, ended: false, replay },
        Some(position) => SourceResume { from: position.clone(), ended: position.is_none(), replay },
    }
}

fn sink_resume(sink: &Node<dyn Sink>, history: &History, manifest: Option<&Manifest>) -> SinkResume {
    let committed = match sink.component.keeps() {
        Keeps::Commits => history.sinks.get(&sink.name).copied().unwrap_or_default(),
        Keeps::Whole => Committed::default(),
        // What is read again was shown before.
        Keeps::Nothing => Committed { upper: history.next(), open: None },
    };
    let watermark = manifest.and_then(|manifest| manifest.sinks.get(&sink.name)).cloned().unwrap_or_default();
    SinkResume { committed, watermark }
}

/// Whether a pipeline may go on that computes something else than before.
fn change(plan: &Plan, history: &History, identity: &Identity, choice: Choice) -> Result<(), ResumeError> {
    let (old, new) = (&history.identity.nodes, &identity.nodes);
    let lines = difference(old, new, |node| plan.operators.iter().any(|operator| operator.name == node));
    if !choice.accept {
        return Err(ResumeError::Changed { pipeline: plan.name.clone(), difference: lines });
    }
    // What it may have stored of the interval cannot be told from what the other plan makes of it.
    if let Some((sink, _)) = history.sinks.iter().find(|(_, committed)| committed.open.is_some()) {
        return Err(ResumeError::Unfinished { pipeline: plan.name.clone(), sink: sink.clone() });
    }
    tracing::info!("the pipeline computes something else than before:\n{lines}");
    Ok(())
}

/// What becomes of each node when a pipeline changes, a line each. Nodes are given with what they compute.
pub fn difference(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>, is_operator: impl Fn(&str) -> bool) -> String {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let line = |name: &&String| {
        let fate = match (old.get(*name), new.get(*name)) {
            (Some(before), Some(after)) if before == after => "kept",
            (Some(_), Some(_)) if is_operator(name) => "rebuilt: it computes something else, and its state begins empty",
            (Some(_), Some(_)) => "changed: it goes on where it was",
            (None, _) => "new",
            (_, None) => "dropped",
        };
        format!("  {name}: {fate}\n")
    };
    names.iter().map(line).collect()
}
