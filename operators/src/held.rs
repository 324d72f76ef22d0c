//! Rows of any kind that an operator holds on to: in the batch that they came with, so that nothing is copied until they leave.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::Schema;
use hashbrown::HashMap;
use model::columns::integer;
use model::time::Micros;
use model::{Batch, Kind, Origin};

/// A row of a batch.
#[derive(Clone, Debug)]
pub struct Row {
    /// The batch.
    pub batch: Arc<Batch>,
    /// The row's place in it.
    pub row: usize,
}

/// Which of two rows of the same time came first: by receive time, by frame, by their place in the order of the source.
pub type Arrival = (Option<Micros>, Option<i64>, Origin, usize);

/// When the rows of a batch came.
#[derive(Debug)]
pub struct Arrivals<'a> {
    receive_times: Option<&'a TimestampMicrosecondArray>,
    frames: Option<&'a Int64Array>,
    origin: Origin,
}

impl<'a> Arrivals<'a> {
    /// Those of a batch.
    pub fn of(batch: &'a Batch) -> Self {
        Arrivals {
            receive_times: batch.rows.column_by_name("receive_time").and_then(|column| column.as_primitive_opt()),
            frames: batch.rows.column_by_name("frame").and_then(|column| column.as_primitive_opt()),
            origin: batch.origin,
        }
    }

    /// When a row came.
    pub fn at(&self, row: usize) -> Arrival {
        let receive_time = self.receive_times.and_then(|times| integer(times, row));
        (receive_time, self.frames.and_then(|frames| integer(frames, row)), self.origin, row)
    }
}

/// The rows as batches: one for each kind, with its rows in the order given.
pub fn gather<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<(Arc<Kind>, RecordBatch)> {
    /// The rows of a kind.
    struct Of<'a> {
        kind: &'a Arc<Kind>,
        batches: Vec<&'a RecordBatch>,
        places: HashMap<*const Batch, usize, ahash::RandomState>,
        rows: Vec<(usize, usize)>,
    }
    let mut kinds: Vec<Of<'a>> = Vec::new();
    for Row { batch, row } in rows {
        let at = kinds.iter().position(|of| of.kind.name == batch.kind.name).unwrap_or_else(|| {
            kinds.push(Of { kind: &batch.kind, batches: Vec::new(), places: HashMap::default(), rows: Vec::new() });
            kinds.len() - 1
        });
        let Of { batches, places, rows, .. } = &mut kinds[at];
        let place = *places.entry(Arc::as_ptr(batch)).or_insert_with(|| {
            batches.push(&batch.rows);
            batches.len() - 1
        });
        rows.push((place, *row));
    }
    let gathered = |of: Of<'_>| interleave_record_batch(&of.batches, &of.rows).expect("rows of a kind have the same columns");
    kinds.into_iter().map(|of| (of.kind.clone(), gathered(of))).collect()
}

/// The name under which a checkpoint says of which kind rows are.
const KIND: &str = "kind";

/// The rows as a checkpoint stores them.
pub fn store<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<RecordBatch> {
    let named = |(kind, rows): (Arc<Kind>, RecordBatch)| {
        let schema = Schema::clone(&rows.schema()).with_metadata([(KIND.to_owned(), kind.name.to_string())].into());
        rows.with_schema(Arc::new(schema)).expect("only what is said of the columns is more")
    };
    gather(rows).into_iter().map(named).collect()
}

/// Rows that [`store`] gave, if they are of one of these kinds.
pub fn stored(rows: &RecordBatch, kinds: &[Arc<Kind>]) -> Option<Arc<Batch>> {
    let name = rows.schema_ref().metadata().get(KIND)?.clone();
    let kind = kinds.iter().find(|kind| kind.name == *name)?;
    let rows = RecordBatch::try_new(kind.schema().clone(), rows.columns().to_vec()).expect("a checkpoint holds what the operator wrote");
    Some(Arc::new(Batch::new(kind, rows, Origin::default())))
}
