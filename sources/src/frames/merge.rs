//! The files of a capture as one stream of frames in the order of their numbers.
//!
//! A file is opened when its first frame may be the next one. Of the files that are open, the one with the least number
//! gives all its frames up to where another one has to go on, so rows are looked at by stretches and not one by one.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use futures::StreamExt;
use model::kinds::FRAME;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use storage::file::rows_of;
use storage::{File, say};

use super::table::{Capture, Range, Stretch};
use crate::SourceError;
use crate::file::frames::constant;

/// Rows that are read of a file at once, at most.
const ROWS: usize = 8_192;
/// Bytes of them.
const BYTES: usize = 1 << 20;
/// Where files take turns after a few frames, so many rows or bytes of payload are gathered before they are handed on.
const GATHER: (usize, usize) = (1_024, 256 << 10);

/// The frames of a capture behind one of a number.
pub(super) struct Merge {
    wanted: Wanted,
    /// The last frame that was given.
    last: i64,
    files: VecDeque<Stretch>,
    open: Vec<Open>,
}

/// What is wanted of each file.
struct Wanted {
    /// The capture, for errors.
    part: String,
    /// The node's name, which is the source of these frames now.
    source: Arc<StringArray>,
    range: Range,
    /// Frames up to this one were handed over earlier.
    behind: i64,
}

/// An open file that has a frame to give.
struct Open {
    rows: ParquetRecordBatchStream<File>,
    path: String,
    /// What was read and not given: one frame at least.
    batch: RecordBatch,
    /// The last frame that was read.
    last: i64,
}

impl Open {
    fn first(&self) -> i64 {
        numbers(&self.batch)[0]
    }
}

/// The numbers of frames.
pub(super) fn numbers(batch: &RecordBatch) -> &[i64] {
    batch.column_by_name("frame").expect("frames have numbers").as_primitive::<Int64Type>().values()
}

impl Merge {
    pub(super) fn new(source: String, capture: Capture, behind: i64) -> Self {
        let source = Arc::new(StringArray::from(vec![source]));
        let files = capture.stretches.into_iter().filter(|stretch| stretch.last > behind).collect();
        let wanted = Wanted { part: capture.part, source, range: capture.range, behind };
        Merge { wanted, last: behind, files, open: Vec::new() }
    }

    /// The frames that come next, or `None` at the end.
    ///
    /// # Errors
    /// A file cannot be read, or its frames have no order; a number is there twice.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, SourceError> {
        let (mut gathered, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while rows < GATHER.0 && bytes < GATHER.1 {
            let Some(stretch) = self.stretch().await? else { break };
            rows += stretch.num_rows();
            bytes += payload(&stretch);
            gathered.push(stretch);
        }
        match gathered.as_slice() {
            [] => Ok(None),
            [_] => Ok(gathered.pop()),
            several => concat_batches(FRAME.schema(), several).map(Some).map_err(|e| self.wanted.unreadable(&e)),
        }
    }

    /// The frames of one file that come next.
    async fn stretch(&mut self) -> Result<Option<RecordBatch>, SourceError> {
        while let Some(stretch) = self.files.pop_front_if(|next| self.open.iter().all(|open| next.first <= open.first())) {
            if let Some(open) = self.wanted.open(stretch).await? {
                self.open.push(open);
            }
        }
        let Some((at, least)) = self.open.iter().map(Open::first).enumerate().min_by_key(|(_, first)| *first) else { return Ok(None) };
        let others = self.open.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, other)| other.first());
        let bound = others.chain(self.files.front().map(|next| next.first)).min().unwrap_or(i64::MAX);
        if least == bound || least <= self.last {
            return Err(self.wanted.doubled(least));
        }
        let open = &mut self.open[at];
        let count = numbers(&open.batch).partition_point(|number| *number < bound);
        let rows = open.batch.slice(0, count);
        self.last = numbers(&rows)[count - 1];
        if count < open.batch.num_rows() {
            open.batch = open.batch.slice(count, open.batch.num_rows() - count);
        } else {
            let mut open = self.open.swap_remove(at);
            if self.wanted.read_on(&mut open).await? {
                self.open.push(open);
            }
        }
        Ok(Some(rows))
    }
}

impl Wanted {
    /// Opens a file that has something to give.
    async fn open(&self, stretch: Stretch) -> Result<Option<Open>, SourceError> {
        let path = stretch.file.path.to_string();
        let builder = ParquetRecordBatchStreamBuilder::new(stretch.file).await.map_err(|e| self.unreadable(&e))?;
        let groups = builder.metadata().row_groups();
        let wanted = (0..groups.len()).filter(|i| greatest(&groups[*i]).is_none_or(|last| last > self.behind)).collect();
        let rows = rows_of(builder.metadata(), BYTES, ROWS);
        let rows = builder.with_row_groups(wanted).with_batch_size(rows).build().map_err(|e| self.unreadable(&e))?;
        let mut open = Open { rows, path, batch: RecordBatch::new_empty(FRAME.schema().clone()), last: 0 };
        Ok(self.read_on(&mut open).await?.then_some(open))
    }

    /// Reads the next frames of a file that are wanted. Returns whether there are any.
    async fn read_on(&self, open: &mut Open) -> Result<bool, SourceError> {
        loop {
            let Some(read) = open.rows.next().await else { return Ok(false) };
            let rows = self.frames(&read.map_err(|e| self.unreadable(&e))?).map_err(|e| self.unreadable(&e))?;
            for number in numbers(&rows) {
                if *number <= open.last {
                    return Err(if *number == open.last && *number > 0 { self.doubled(*number) } else { self.disordered(&open.path) });
                }
                open.last = *number;
            }
            let passed = numbers(&rows).partition_point(|number| *number <= self.behind);
            if passed < rows.num_rows() {
                open.batch = rows.slice(passed, rows.num_rows() - passed);
                return Ok(true);
            }
        }
    }

    /// Rows of a file as frames of this source, without those that are not wanted.
    fn frames(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let column = |column: &model::Column| -> Result<ArrayRef, ArrowError> {
            match rows.column_by_name(&column.name) {
                Some(values) => cast(values, &column.ty.arrow()),
                // That which all frames of a file share is not in it.
                None if column.name == "source" => Ok(Arc::new(constant(&self.source, rows.num_rows()))),
                // Captures of earlier versions do not tell it.
                None if column.name == "connection" => Ok(new_null_array(&column.ty.arrow(), rows.num_rows())),
                None => Err(ArrowError::SchemaError(format!("the file has no column `{}`", column.name))),
            }
        };
        let columns = FRAME.columns.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let rows = RecordBatch::try_new(FRAME.schema().clone(), columns)?;
        if self.range.is_all() {
            return Ok(rows);
        }
        let received = rows.column_by_name("receive_time").expect("frames have the column").as_primitive::<TimestampMicrosecondType>();
        let wanted: BooleanArray = received.iter().map(|time| Some(time.is_some_and(|time| self.range.holds(time)))).collect();
        filter_record_batch(&rows, &wanted)
    }

    fn doubled(&self, number: i64) -> SourceError {
        SourceError {
            transient: false,
            place: self.part.clone(),
            what: format!("frame {number} is there twice: more than one capture of a source of this name is in the table"),
            remedy: "name the times of one of them with `from` and `to`; give each capture a `url` of its own".into(),
        }
    }

    fn disordered(&self, path: &str) -> SourceError {
        SourceError {
            transient: false,
            place: self.part.clone(),
            what: format!("the frames of {path} are not in the order of their numbers, from 1: another program has written the file"),
            remedy: "let it sort the files by `frame`, or restore the table as it was before".into(),
        }
    }

    fn unreadable(&self, error: &(dyn std::error::Error + 'static)) -> SourceError {
        SourceError {
            transient: false,
            place: self.part.clone(),
            what: say(error),
            remedy:
                "check that the store can be reached, and run the pipeline again: it goes on from here, also where a file was merged into \
                     another one more than a day ago and is gone"
                    .into(),
        }
    }
}

/// Bytes of the payloads.
fn payload(frames: &RecordBatch) -> usize {
    let payload = frames.column_by_name("payload").expect("frames have payloads").as_binary::<i32>();
    let offsets = payload.value_offsets();
    (offsets[payload.len()] - offsets[0]) as usize
}

/// The greatest number in a group of rows, where the file says it.
fn greatest(group: &RowGroupMetaData) -> Option<i64> {
    let column = group.columns().iter().find(|column| column.column_path().string() == "frame")?;
    match column.statistics()? {
        Statistics::Int64(statistics) => statistics.max_opt().copied(),
        _ => None,
    }
}
