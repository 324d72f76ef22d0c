//! The ways out.
//!
//! One module per sink, all alike: its head says what it does and promises, one struct holds its options and
//! the check that turns them into a [`Sink`], and its tests stand below. [`registry`] lists them.
//!
//! The runtime gathers what flows into a sink over all workers of the process and hands it over in
//! [`Epoch`]s: all rows whose logical times lie in an interval, once nothing more can come for them and once
//! the source positions behind them are recorded. A writer makes an epoch durable exactly once, however
//! often it is handed over, because the same interval always holds the same rows.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use config::Declaration;
use config::settings::Settings;
use model::time::{Micros, Time};
use model::{Account, Batch, Kind};
use storage::attempts::MayPass;

mod canonical;
pub mod clickhouse;
pub mod file;
mod inputs;
mod latest;
pub mod nats;
pub mod parquet;
pub mod print;
#[cfg(test)]
mod testing;
mod text;

/// Every sink, in the order of the manual.
pub fn registry() -> Vec<Declaration<dyn Sink>> {
    vec![
        config::declare::<_, clickhouse::ClickHouse>(),
        config::declare::<_, file::File>(),
        config::declare::<_, nats::Nats>(),
        config::declare::<_, print::Print>(),
        config::declare::<_, parquet::Parquet>(),
    ]
}

/// A checked sink, ready to be opened.
#[async_trait]
pub trait Sink: fmt::Debug + Send + Sync {
    /// Opens the sink: connects, and creates or checks the tables of `kinds`.
    ///
    /// # Errors
    /// A store that is unreachable or refuses us, a table that differs from what the kind needs.
    async fn open(&self, cx: OpenSink) -> Result<Box<dyn Writer>, SinkError>;

    /// Whether dead letters of the nodes that it reads are stored with the rest. Where no sink of a node does,
    /// the runtime stores them in the cold store.
    fn keeps_dead_letters(&self) -> bool {
        false
    }

    /// What becomes of what it wrote when the pipeline runs again.
    fn keeps(&self) -> Keeps {
        Keeps::Commits
    }

    /// How much to gather before an epoch is committed.
    fn pace(&self) -> Pace {
        Pace::default()
    }
}

/// What becomes of what a sink wrote when the pipeline runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// It stays: a run goes on behind what was committed, and an epoch that is repeated is recognised.
    Commits,
    /// Every run makes it anew, as a whole: it needs every row from the beginning.
    Whole,
    /// Nothing stays: a run shows what is new.
    Nothing,
}

/// What a sink is opened with.
#[derive(Clone, Debug)]
pub struct OpenSink {
    /// The pipeline's name.
    pub pipeline: String,
    /// A hash of what the pipeline computes: part of every token.
    pub plan: String,
    /// The node's name in the pipeline.
    pub node: String,
    /// The process's shard: part of every token.
    pub shard: u32,
    /// The kinds that flow into it.
    pub kinds: Vec<Arc<Kind>>,
    /// System settings: the stores.
    pub settings: Arc<Settings>,
    /// The node's books. The runtime counts what arrives; a writer counts what it wrote (`accept`, `send`).
    pub account: Arc<Account>,
}

/// An epoch is committed when either is reached, at the next complete logical time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The longest that rows wait.
    pub interval: std::time::Duration,
    /// Bytes of memory that rows may take while they wait.
    pub bytes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { interval: std::time::Duration::from_secs(1), bytes: 64 << 20 }
    }
}

/// An interval of logical times that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The first logical time in it.
    pub lower: Time,
    /// The first logical time after it.
    pub upper: Time,
    /// The event time that all sources had come to at `upper`; `Micros::MIN` before any is known.
    pub watermark: Micros,
    /// An earlier run may have begun to commit it, and it is not known how far it came.
    pub again: bool,
}

/// An open sink.
#[async_trait]
pub trait Writer: Send {
    /// Makes the rows of an epoch durable, in the order of their logical times. Called again with the same epoch
    /// and rows after a crash, it changes nothing. What may pass is tried again inside for as long as it takes,
    /// and the node's books say what is waited for.
    ///
    /// # Errors
    /// What does not pass by itself: wrong schema, wrong password, refused rows.
    async fn commit(&mut self, epoch: Epoch, rows: Vec<(Time, Batch)>) -> Result<(), SinkError>;

    /// Called after the last epoch: finishes files, waits for background work.
    ///
    /// # Errors
    /// As for [`Writer::commit`].
    async fn close(self: Box<Self>) -> Result<(), SinkError>;
}

/// A sink that cannot be opened or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}; {remedy}")]
pub struct SinkError {
    /// Whether the same may succeed later without anybody's doing: the store is away, busy or full.
    pub transient: bool,
    /// The table, file or address.
    pub place: String,
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl MayPass for SinkError {
    fn may_pass(&self) -> bool {
        self.transient
    }

    fn words(&self) -> (String, String) {
        (format!("{}: {}", self.place, self.what), self.remedy.clone())
    }
}
