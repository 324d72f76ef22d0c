//! Where a record came from: its times and its frame, whatever its kind.

use arrow::array::{AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use model::columns::integer;
use model::time::Micros;
use serde::{Deserialize, Serialize};

/// Where a record came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cause {
    /// When it happened, by the venue's clock.
    pub event_time: Option<Micros>,
    /// When we received it.
    pub receive_time: Option<Micros>,
    /// The frame of the source.
    pub frame: Option<i64>,
}

/// The columns that say where the rows of a batch came from; absent where the kind has none.
#[derive(Clone, Copy, Debug)]
pub struct Causes<'a> {
    event_time: Option<&'a TimestampMicrosecondArray>,
    receive_time: Option<&'a TimestampMicrosecondArray>,
    frame: Option<&'a Int64Array>,
}

impl<'a> Causes<'a> {
    /// The columns of a batch.
    pub fn of(rows: &'a RecordBatch) -> Self {
        let time = |name| rows.column_by_name(name).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let frame = rows.column_by_name("frame").and_then(|c| c.as_primitive_opt::<Int64Type>());
        Causes { event_time: time("event_time"), receive_time: time("receive_time"), frame }
    }

    /// Where a row came from.
    pub fn at(&self, row: usize) -> Cause {
        let time = |column: Option<&TimestampMicrosecondArray>| column.and_then(|c| integer(c, row));
        Cause { event_time: time(self.event_time), receive_time: time(self.receive_time), frame: self.frame(row) }
    }

    /// The frame of a row.
    pub fn frame(&self, row: usize) -> Option<i64> {
        self.frame.and_then(|c| integer(c, row))
    }
}

impl Cause {
    /// When it happened: by the venue's clock, or by ours where the venue does not tell.
    pub fn time(&self) -> Option<Micros> {
        self.event_time.or(self.receive_time)
    }
}
