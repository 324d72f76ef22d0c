//! What travels between operators: columnar batches, and the progress of event time.
//!
//! A [`Batch`] is an Arrow record batch of one kind with a difference per row, at a logical time that the
//! dataflow carries beside it. A [`Progress`] says how far event time has come in one source. Both are
//! [`Message`]s on the same edge; which of them comes first within one logical time means nothing, because
//! an operator applies progress only when that time is complete.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::ScalarBuffer;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::kind::Kind;
use crate::kinds;
use crate::time::Micros;

/// One item on an edge of the dataflow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Rows.
    Batch(Batch),
    /// How far event time has come.
    Progress(Progress),
}

impl Message {
    /// The worker that an exchange takes this message to.
    pub fn target(&self) -> u32 {
        match self {
            Message::Batch(batch) => batch.target,
            Message::Progress(progress) => progress.target,
        }
    }
}

/// Rows of one kind.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The kind of all rows.
    pub kind: Arc<Kind>,
    /// The rows; the schema is the kind's.
    pub rows: RecordBatch,
    /// +1 for a row that is asserted, -1 for one that is taken back; `None` where all are asserted.
    pub diffs: Option<ScalarBuffer<i8>>,
    /// Where the rows came from: restores the order of the source after an exchange.
    pub origin: Origin,
    /// Of frames: what they decode to tells of no event time beyond this, because records are missing that may still come.
    pub hold: Option<Micros>,
    /// Of frames: what dialects learn with them, on every worker.
    pub lessons: Option<Arc<[Lesson]>>,
    /// The worker that an exchange takes the batch to.
    pub target: u32,
}

/// A venue's listing that a source heard: frames of instruments that are new in it can be decoded by who has learned it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lesson {
    /// The dialect that learns it.
    pub dialect: String,
    /// The venue's answer.
    #[serde(with = "serde_bytes")]
    pub listing: Vec<u8>,
}

/// A position in the order of a source. Ordering by it restores the order in which a source handed its rows over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The source, numbered as in the pipeline.
    pub source: u32,
    /// The chunk of rows, numbered as the source handed them over.
    pub chunk: u64,
}

/// How far event time has come in a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The source, numbered as in the pipeline.
    pub source: u32,
    /// The greatest event time seen, in microseconds; [`Progress::END`] when the source has ended.
    pub event_time: Micros,
    /// The way through the pipeline, as a hash of the operators on it that hold rows back: where ways of
    /// different delay meet again, the slowest counts.
    pub path: u64,
    /// The worker that an exchange takes the message to.
    pub target: u32,
}

impl Progress {
    /// The event time that a source which has ended has reached.
    pub const END: Micros = Micros::MAX;

    /// Progress as a source tells it.
    pub fn of(source: u32, event_time: Micros) -> Self {
        Progress { source, event_time, path: 0, target: 0 }
    }

    /// This progress behind an operator whose rows may lie so far (microseconds) behind its watermark.
    pub fn delayed(self, delay: Micros, operator: u64) -> Self {
        if delay == 0 {
            return self;
        }
        let event_time = if self.event_time == Progress::END { Progress::END } else { self.event_time.saturating_sub(delay) };
        Progress { event_time, path: self.path.rotate_left(1) ^ operator, ..self }
    }
}

impl Batch {
    /// A batch of asserted rows.
    pub fn new(kind: &Arc<Kind>, rows: RecordBatch, origin: Origin) -> Self {
        debug_assert_eq!(rows.num_columns(), kind.columns.len(), "{} rows do not have the kind's columns", kind.name);
        Batch { kind: kind.clone(), rows, diffs: None, origin, hold: None, lessons: None, target: 0 }
    }

    /// The same batch with other rows, of which none was taken back.
    pub fn with_diffs(mut self, diffs: Vec<i8>) -> Self {
        debug_assert_eq!(diffs.len(), self.rows.num_rows());
        self.diffs = Some(diffs.into());
        self
    }

    /// Number of rows, asserted and taken back.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of rows taken back.
    pub fn retractions(&self) -> usize {
        self.diffs.as_ref().map_or(0, |diffs| diffs.iter().filter(|d| **d < 0).count())
    }

    /// Whether a row is asserted (+1) or taken back (-1).
    pub fn diff(&self, row: usize) -> i8 {
        self.diffs.as_ref().map_or(1, |diffs| diffs[row])
    }

    /// Bytes of memory that the rows take.
    pub fn bytes(&self) -> usize {
        self.rows.columns().iter().map(|c| c.get_buffer_memory_size()).sum()
    }
}

/// What a batch is between processes: the kind, the rows as an Arrow IPC stream, and the rest.
#[derive(Serialize, Deserialize)]
struct Wire {
    kind: WireKind,
    #[serde(with = "serde_bytes")]
    rows: Vec<u8>,
    diffs: Option<Vec<i8>>,
    origin: Origin,
    hold: Option<Micros>,
    lessons: Option<Vec<Lesson>>,
    target: u32,
}

/// Every process knows the built-in kinds; a derived one is sent along.
#[derive(Serialize, Deserialize)]
enum WireKind {
    BuiltIn(String),
    Derived(Kind),
}

fn to_ipc(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::with_capacity(rows.get_array_memory_size()), rows.schema_ref())?;
    writer.write(rows)?;
    writer.into_inner()
}

fn from_ipc(bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
    let none = || Err(ArrowError::IpcError("the stream holds no batch".into()));
    let rows = StreamReader::try_new(Cursor::new(bytes), None)?.next().unwrap_or_else(none)?;
    // What is read shares one buffer among all columns, each of which would count all of its bytes.
    concat_batches(rows.schema_ref(), [&rows, &rows.slice(0, 0)])
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = match kinds::named(&self.kind.name) {
            Some(kind) if **kind == *self.kind => WireKind::BuiltIn(kind.name.to_string()),
            _ => WireKind::Derived((*self.kind).clone()),
        };
        let rows = to_ipc(&self.rows).map_err(S::Error::custom)?;
        let diffs = self.diffs.as_ref().map(|d| d.to_vec());
        let lessons = self.lessons.as_ref().map(|lessons| lessons.to_vec());
        Wire { kind, rows, diffs, origin: self.origin, hold: self.hold, lessons, target: self.target }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let kind = match wire.kind {
            WireKind::BuiltIn(name) => {
                kinds::named(&name).cloned().ok_or_else(|| D::Error::custom(format!("there is no kind `{name}`")))?
            }
            WireKind::Derived(kind) => Arc::new(kind),
        };
        let rows = from_ipc(&wire.rows).map_err(D::Error::custom)?;
        let (diffs, lessons) = (wire.diffs.map(Into::into), wire.lessons.map(Into::into));
        Ok(Batch { kind, rows, diffs, origin: wire.origin, hold: wire.hold, lessons, target: wire.target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Decimal;
    use crate::kinds::{TRADE, Trade, TradeBuilder};

    #[test]
    fn a_batch_is_the_same_in_another_process_and_takes_no_more_memory() {
        let mut trades = TradeBuilder::default();
        for id in 0..1_000 {
            let id = format!("{id}");
            trades.push(Trade {
                venue: "binance",
                market: "spot",
                symbol: "BTC-USDT",
                event_time: 1,
                receive_time: None,
                frame: None,
                trade_id: &id,
                price: Decimal::ONE,
                quantity: Decimal::ONE,
                contracts: None,
                side: "buy",
                fills: 1,
                backfilled: Some(false),
            });
        }
        let diffs = (0..1_000).map(|row| if row % 3 == 0 { -1 } else { 1 }).collect();
        let rows = Batch::new(&TRADE, trades.finish(), Origin { source: 1, chunk: 2 }).with_diffs(diffs);
        let lesson = Lesson { dialect: "okx".into(), listing: b"{}".to_vec() };
        let batch = Batch { target: 3, hold: Some(7), lessons: Some([lesson].into()), ..rows };
        let bytes = bincode::serialize(&Message::Batch(batch.clone())).unwrap();
        let Message::Batch(read) = bincode::deserialize(&bytes).unwrap() else { panic!("rows were written") };
        assert_eq!((&read.rows, &read.diffs, read.origin, read.hold, read.target), (&batch.rows, &batch.diffs, batch.origin, Some(7), 3));
        assert_eq!(read.lessons, batch.lessons);
        assert!(Arc::ptr_eq(&read.kind, &batch.kind), "every process knows the kinds");
        assert!(read.bytes() <= batch.bytes(), "{} bytes have become {}", batch.bytes(), read.bytes());
        assert!(bytes.len() < 2 * batch.bytes(), "{} bytes were sent as {}", batch.bytes(), bytes.len());
    }
}
