//! The ways in.
//!
//! One module per source, all alike: its head says what it does and promises, one struct holds its options
//! and the check that turns them into a [`Source`], and its tests stand below. [`registry`] lists them.
//! Venue dialects, in [`dialect`], turn frames into records and do no I/O.
//!
//! A source is pulled: the runtime asks its [`Reader`] for the next chunk when there is room for it, and
//! records the chunk's position before any sink commits what came from it. After a crash it opens the source
//! at a recorded [`Position`] and asks for the same rows again, up to each recorded position in turn.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use config::Declaration;
use config::settings::Settings;
use config::values::Duration;
use model::{Account, Kind, Lesson};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use storage::attempts::MayPass;
use tokio::sync::watch;

pub mod dialect;
pub mod file;
pub mod frames;
mod listing;
pub mod live;
pub mod nats;
pub mod simulator;

/// Every source, in the order of the manual.
pub fn registry() -> Vec<Declaration<dyn Source>> {
    vec![
        config::declare::<dyn Source, file::File>(),
        config::declare::<dyn Source, frames::Frames>(),
        config::declare::<dyn Source, nats::Nats>(),
        config::declare::<dyn Source, live::Binance>(),
        config::declare::<dyn Source, live::Okx>(),
        config::declare::<dyn Source, live::Bybit>(),
        config::declare::<dyn Source, live::Kraken>(),
        config::declare::<dyn Source, live::Deribit>(),
        config::declare::<dyn Source, live::Coinbase>(),
        config::declare::<dyn Source, simulator::Simulator>(),
    ]
}

/// A checked source, ready to be opened.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// How event time advances in this source.
    fn clock(&self) -> Clock;

    /// Hands over what the source's options know of instruments, before the dataflow is built: dialects made
    /// afterwards know it on every worker.
    ///
    /// # Errors
    /// A listing that cannot be read, or had.
    async fn teach(&self, _dialects: &mut dialect::Dialects) -> Result<(), SourceError> {
        Ok(())
    }

    /// Opens the source at the position that it is opened with, or at its beginning.
    ///
    /// # Errors
    /// A source that cannot be reached or read. A position that the source does not have any more, or never had:
    /// a purged, recreated, shorter or exchanged file or stream is told apart by [`Position::identity`], and the
    /// error says how to go on.
    async fn open(&self, cx: OpenSource) -> Result<Box<dyn Reader>, SourceError>;
}

/// What a source is opened with.
#[derive(Clone, Debug)]
pub struct OpenSource {
    /// The pipeline's name.
    pub pipeline: String,
    /// The node's name in the pipeline.
    pub node: String,
    /// Where to go on: everything before it was handed over earlier. `None` is the beginning.
    pub from: Option<Position>,
    /// System settings: the stores.
    pub settings: Arc<Settings>,
    /// The node's books. A reader counts what it refuses; the runtime counts the rest.
    pub account: Arc<Account>,
}

/// An open source.
#[async_trait]
pub trait Reader: Send {
    /// The next chunk, or `None` at the end of a bounded source. Each reader has a thread of its own, so it
    /// may block on files; waiting on the network must be cancel-safe, because a drain drops the future.
    ///
    /// With `until`, a position that an earlier reader of the same source gave, no chunk goes beyond it, and one
    /// ends there, at the same row: so a replay gives every row its logical time again. Between calls `until`
    /// grows, or becomes `None`.
    ///
    /// # Errors
    /// Only what makes going on impossible. Damage that leaves the rest usable travels in [`Chunk::errors`].
    async fn next(&mut self, until: Option<&Position>) -> Result<Option<Chunk>, SourceError>;

    /// How much of the source was handed over, from 0 to 1, where its end is known.
    fn share(&self) -> Option<f64> {
        None
    }

    /// How far the source can hand the same over again after a crash of the machine, by the offsets of positions: what has come from
    /// beyond must not be stored before. `None` where it always can.
    fn kept(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Nothing before this position will be asked for again: everything that came from it is committed and the
    /// pipeline can be restored behind it. A broker may forget it.
    ///
    /// # Errors
    /// As for [`Reader::next`].
    async fn settle(&mut self, _position: &Position) -> Result<(), SourceError> {
        Ok(())
    }
}

/// Rows that a source hands over at once.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// The rows by kind: `frame` for what a dialect has yet to decode, and `dead_letter` for what the source
    /// itself had to refuse.
    pub batches: Vec<(Arc<Kind>, RecordBatch)>,
    /// The position after this chunk: reading from it gives exactly what follows.
    pub position: Position,
    /// Where the source misses records that may still come, event time does not go beyond this with these rows.
    pub hold: Option<model::time::Micros>,
    /// What dialects learn with these rows, before those that follow: a chunk ends with the frame that teaches.
    pub lessons: Vec<Lesson>,
    /// What was lost in this chunk, each error naming the file or connection and the place.
    pub errors: Vec<SourceError>,
}

impl Chunk {
    /// Bytes of memory that the rows take.
    pub fn bytes(&self) -> usize {
        self.batches.iter().flat_map(|(_, rows)| rows.columns()).map(|column| column.get_buffer_memory_size()).sum()
    }
}

/// A place in a source to go on from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The file, stream or connection.
    pub part: String,
    /// Bytes or messages consumed of it.
    pub offset: u64,
    /// Number of the last frame handed over, counted over all parts.
    pub frame: u64,
    /// What tells the part from another of the same name: a hash of a file's first bytes, or when a stream was
    /// created.
    pub identity: u64,
}

impl Position {
    /// Whether this is the same place in the same part.
    pub fn is_at(&self, other: &Position) -> bool {
        self.part == other.part && self.offset == other.offset
    }
}

/// Options on event time that every source has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Clock {
    /// How far event times may lie behind the greatest one seen before the watermark: the watermark is the
    /// greatest event time minus this.
    #[serde(default)]
    pub disorder: Duration,
    /// A source that hands over nothing for so long no longer holds the watermark back.
    #[serde(default = "default_idle")]
    pub idle: Duration,
}

fn default_idle() -> Duration {
    Duration::seconds(60)
}

impl Default for Clock {
    fn default() -> Self {
        Clock { disorder: Duration::default(), idle: default_idle() }
    }
}

/// A source that cannot be opened or read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}; {remedy}")]
pub struct SourceError {
    /// Whether the same may succeed later without anybody's doing: the store is away, busy or full.
    pub transient: bool,
    /// The file with its byte offset or line, or the connection.
    pub place: String,
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl MayPass for SourceError {
    fn may_pass(&self) -> bool {
        self.transient
    }

    fn words(&self) -> (String, String) {
        (format!("{}: {}", self.place, self.what), self.remedy.clone())
    }
}
