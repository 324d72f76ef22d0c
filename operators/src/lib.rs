//! The operators: each a function from a stream to a stream.
//!
//! One module per operator, all alike: its head says what it computes and promises, one struct holds its
//! options and the check that turns them into an [`Operator`], and its tests stand below. [`registry()`]
//! lists them.
//!
//! What an operator computes is plain Rust that knows no dataflow: a [`Transform`] works on each batch as
//! it comes, a [`Keyed`] state machine on all rows of its instruments at each complete logical time. The
//! functions in [`dataflow`] put either on timely.

use std::fmt;
use std::sync::Arc;

use config::{Declaration, declare};
use model::Account;
use model::dialect::MakeDialect;
use model::time::{Micros, Time};

pub mod anomaly;
pub mod bars;
pub mod book;
pub mod cause;
pub mod dataflow;
pub mod deduplicate;
pub mod derive;
pub mod expression;
pub mod fault;
pub mod filter;
pub mod held;
pub mod inputs;
pub mod instruments;
pub mod mask;
pub mod normalise;
pub mod pages;
pub mod registry;
pub mod reorder;
pub mod rows;
pub mod sample;
pub mod state;
#[cfg(test)]
mod testing;

pub use dataflow::{Advance, Keyed, Output, Stream, Transform};
pub use state::{Keeper, Snapshot};

/// Every operator, in the order of the manual.
pub fn registry() -> Vec<Declaration<dyn Operator>> {
    vec![
        declare::<dyn Operator, normalise::Normalise>(),
        declare::<dyn Operator, filter::Filter>(),
        declare::<dyn Operator, derive::Derive>(),
        declare::<dyn Operator, deduplicate::Deduplicate>(),
        declare::<dyn Operator, sample::Sample>(),
        declare::<dyn Operator, mask::Mask>(),
        declare::<dyn Operator, registry::Registry>(),
        declare::<dyn Operator, bars::Bars>(),
        declare::<dyn Operator, book::Book>(),
        declare::<dyn Operator, anomaly::Anomaly>(),
    ]
}

/// A checked operator, ready to be built into the dataflow of each worker.
pub trait Operator: fmt::Debug + Send + Sync {
    /// Adds the operator to the dataflow. `input` carries the messages of all its inputs.
    fn build<'scope>(&self, input: Stream<'scope>, cx: &Context) -> Stream<'scope>;
}

/// What an operator is built with, on one worker.
#[derive(Clone)]
pub struct Context {
    /// The node's name in the pipeline.
    pub node: String,
    /// The node's books.
    pub account: Arc<Account>,
    /// The sources whose rows can reach the operator: its watermark is the least of theirs.
    pub sources: Arc<[SourceClock]>,
    /// Makes the dialect of a frame.
    pub dialects: Arc<MakeDialect>,
    /// Where state comes from and goes to, where it is kept at all.
    pub keeper: Option<Arc<dyn Keeper>>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("node", &self.node).field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// How event time advances in one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceClock {
    /// The source, numbered as in the pipeline.
    pub source: u32,
    /// How far event times may lie behind the greatest one seen, in microseconds.
    pub disorder: Micros,
    /// Logical milliseconds without a row after which the source no longer holds the watermark back.
    pub idle: Time,
}
