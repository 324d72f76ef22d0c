//! What a checkpoint keeps of an operator, and how it gets there.
//!
//! A checkpoint is of a logical time, its barrier: it holds what every stage has made of the rows below it and of none
//! at or behind it. A stage hands its state over when its frontier has come to the barrier, before it works on anything
//! later. It hands over a [`Snapshot`], which shares what it can with the living state and is turned into rows by
//! another thread, so that the dataflow goes on at once.

use std::fmt;

use arrow::array::RecordBatch;
use model::time::{Micros, Time};
use serde::{Deserialize, Serialize};

/// The layout of the rows that snapshots give. Bytes do not tell what they are, so it must be raised when a field of any
/// state comes, goes or changes: a checkpoint of another layout is refused.
pub const LAYOUT: u32 = 2;

/// A state as of one logical time, to be turned into rows by whoever has the time for it. Rows have the columns `venue`,
/// `market` and `symbol`: the worker that owns the instrument gets them back. What has not changed gives a batch that is
/// equal to that of the snapshot before, so that it need not be stored again.
pub type Snapshot = Box<dyn FnOnce() -> Vec<RecordBatch> + Send>;

/// A stage of a node on one worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// The node's name.
    pub node: String,
    /// Which of the node's stages, counted from 0.
    pub stage: u32,
    /// The worker.
    pub worker: u32,
}

/// What a stage has stored, on all workers of the run that stored it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageState {
    /// How far event time had come. Every worker knows the same.
    pub watermark: WatermarkState,
    /// The rows that the stage's snapshots gave.
    pub rows: Vec<RecordBatch>,
}

/// How far event time has come, source by source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkState {
    /// The sources that were heard.
    pub sources: Vec<SourceProgress>,
    /// The watermark; `None` before any.
    pub current: Option<Micros>,
    /// The greatest event time that was told, other than the end.
    pub reached: Option<Micros>,
}

/// How far event time has come in a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceProgress {
    /// The source, numbered as in the pipeline.
    pub source: u32,
    /// The greatest event time by each path on which the source reaches the stage.
    pub paths: Vec<(u64, Micros)>,
    /// When it was heard last, as a logical time.
    pub heard: Option<Time>,
}

/// Where stages get their state from and hand it to.
pub trait Keeper: Send + Sync {
    /// Called once by every stage on every worker when the dataflow is built: a checkpoint is whole with all of them.
    fn expect(&self, part: &Part);

    /// The barrier of the checkpoint that the run goes on from; 0 without one.
    fn from(&self) -> Time;

    /// What was stored of a stage, if anything was.
    fn restore(&self, node: &str, stage: u32) -> Option<StageState>;

    /// The latest barrier that was set, or [`Keeper::from`]. It was set before the frontier of any stage could come to it.
    fn barrier(&self) -> Time;

    /// Takes over the state of a stage at a barrier.
    fn keep(&self, part: &Part, barrier: Time, watermark: WatermarkState, snapshot: Snapshot);
}

impl fmt::Debug for dyn Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}
