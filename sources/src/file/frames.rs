//! Lines as frames of a venue.

use std::io::Read;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, DictionaryArray, Int64Array, PrimitiveArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::Int32Type;
use model::dialect::Reject;
use model::kinds::FRAME;
use model::time::{Micros, from_nanos};

use super::ReceiveTime;
use super::gather::{Gather, Part};
use super::lines::{Lines, Piece};

/// The labels that every frame of a source has. Its batches share them, so a reader may keep what it worked out.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    source: Arc<StringArray>,
    dialect: Arc<StringArray>,
    /// Empty where no symbol is given.
    topic: Arc<StringArray>,
}

impl Labels {
    pub(super) fn new(source: &str, dialect: &str, symbol: Option<&str>) -> Self {
        let one = |label| Arc::new(StringArray::from(vec![label]));
        Labels { source: one(source), dialect: one(dialect), topic: Arc::new(StringArray::from_iter_values(symbol)) }
    }
}

/// Bytes of frames handed over at once.
const CHUNK: usize = 1 << 20;
/// Bytes read at once: they are looked at while they are in a near cache.
pub(super) const BLOCK: usize = 256 << 10;

/// A file of frames.
pub(super) struct FrameLines<R> {
    lines: Lines<R>,
    receive_time: ReceiveTime,
    labels: Labels,
}

impl<R: Read> FrameLines<R> {
    pub(super) fn new(lines: Lines<R>, labels: Labels, receive_time: ReceiveTime) -> Self {
        FrameLines { lines, receive_time, labels }
    }
}

impl<R: Read + Send> Part for FrameLines<R> {
    fn next(&mut self, until: u64, gather: &mut Gather) -> Option<RecordBatch> {
        let mut frames = Frames::with_room_for(CHUNK + BLOCK);
        while frames.payload.len() < CHUNK && self.lines.offset() < until {
            let before = self.lines.offset();
            match self.lines.next(until) {
                Some(Piece::Lines(block)) => {
                    for (line, end) in each(block) {
                        frames.take(line, self.receive_time, before + end as u64, gather);
                    }
                }
                Some(unusable) => {
                    refuse(unusable, gather);
                    break;
                }
                None if frames.numbers.is_empty() => {
                    let offset = self.lines.offset();
                    self.lines.failure().inspect(|failure| gather.damage(offset, failure));
                    return None;
                }
                None => break,
            }
        }
        Some(frames.finish(&self.labels))
    }

    fn offset(&self) -> u64 {
        self.lines.offset()
    }
}

/// The lines of a block that are not blank, without white space around them, each with the place after it.
pub(crate) fn each(block: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let ends = memchr::memchr_iter(b'\n', block).map(|at| at + 1);
    // The last line of a file may lack its end.
    let rest = (block.last() != Some(&b'\n')).then_some(block.len());
    let mut start = 0;
    ends.chain(rest).filter_map(move |end| {
        let line = block[start..end].trim_ascii();
        start = end;
        (!line.is_empty()).then_some((line, end))
    })
}

/// A line that is none: too long, or cut off by damage.
pub(super) fn refuse(piece: Piece<'_>, gather: &mut Gather) {
    match piece {
        Piece::Oversize(start, length) => {
            gather.number();
            gather
                .refuse(&Reject::new("oversize", format!("a line of {length} bytes, of which the first {} are kept", start.len())), start);
        }
        Piece::Severed(part) if !part.trim_ascii().is_empty() => {
            gather.number();
            gather.refuse(&Reject::new("truncated", "damage of the file cuts the line off"), part.trim_ascii());
        }
        Piece::Severed(_) | Piece::Lines(_) => {}
    }
}

/// Columns of `frame` records under construction. The payloads are packed into one buffer, which costs one copy and
/// leaves every frame exactly as it was sent.
pub(crate) struct Frames {
    payload: Vec<u8>,
    ends: Vec<i32>,
    numbers: Vec<i64>,
    times: Vec<Micros>,
    /// Whether each frame has a receive time; empty while all have.
    timed: Vec<bool>,
    /// The connection of each frame; empty while none has any.
    connections: Vec<Option<i64>>,
}

impl Frames {
    pub(crate) fn with_room_for(bytes: usize) -> Self {
        /// Frames are rarely shorter than this.
        const SHORT: usize = 96;
        let rows = bytes / SHORT;
        let mut ends = Vec::with_capacity(rows);
        ends.push(0);
        Frames {
            payload: Vec::with_capacity(bytes),
            ends,
            numbers: Vec::with_capacity(rows),
            times: Vec::with_capacity(rows),
            timed: Vec::new(),
            connections: Vec::new(),
        }
    }

    #[inline]
    fn take(&mut self, line: &[u8], mode: ReceiveTime, end: u64, gather: &mut Gather) {
        let number = gather.number();
        let stamped = if mode == ReceiveTime::None { None } else { stamp(line) };
        let (time, frame) = match stamped {
            Some((time, frame)) => (Some(time), frame),
            None if mode == ReceiveTime::NanosecondsPrefix => {
                return gather.refuse(&Reject::new("no_receive_time", "the line does not begin with nanoseconds and a space"), line);
            }
            None => (None, line),
        };
        self.push(frame, time, number);
        gather.mark(end);
    }

    /// Takes in a frame with the time that it was received, if that is known, and its number.
    #[inline]
    pub(crate) fn push(&mut self, frame: &[u8], time: Option<Micros>, number: i64) {
        if time.is_none() || !self.timed.is_empty() {
            self.timed.resize(self.times.len(), true);
            self.timed.push(time.is_some());
        }
        self.times.push(time.unwrap_or_default());
        self.numbers.push(number);
        self.payload.extend_from_slice(frame);
        self.ends.push(self.payload.len() as i32);
    }

    /// Says over which connection the frame came that was taken in last.
    #[inline]
    pub(crate) fn came_over(&mut self, connection: i64) {
        self.connections.resize(self.numbers.len() - 1, None);
        self.connections.push(Some(connection));
    }

    fn finish(self, labels: &Labels) -> RecordBatch {
        let rows = self.numbers.len();
        self.finish_with(&labels.source, Arc::new(constant(&labels.dialect, rows)), Arc::new(constant(&labels.topic, rows)))
    }

    /// The frames taken in, all of one source, with the dialect and the topic of each.
    pub(crate) fn finish_with(mut self, source: &Arc<StringArray>, dialect: ArrayRef, topic: ArrayRef) -> RecordBatch {
        let rows = self.numbers.len();
        let connections = if self.connections.is_empty() {
            Int64Array::new_null(rows)
        } else {
            self.connections.resize(rows, None);
            Int64Array::from(self.connections)
        };
        let timed = (!self.timed.is_empty()).then(|| NullBuffer::from(self.timed));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(constant(source, rows)),
            dialect,
            Arc::new(TimestampMicrosecondArray::new(self.times.into(), timed).with_timezone("UTC")),
            Arc::new(Int64Array::from(self.numbers)),
            Arc::new(connections),
            topic,
            Arc::new(BinaryArray::new(OffsetBuffer::new(self.ends.into()), Buffer::from_vec(self.payload), None)),
        ];
        RecordBatch::try_new(FRAME.schema().clone(), columns).expect("these are the columns of a frame")
    }
}

/// The one label in every row; null where there is none.
pub(crate) fn constant(label: &Arc<StringArray>, rows: usize) -> DictionaryArray<Int32Type> {
    let keys = if label.is_empty() { PrimitiveArray::new_null(rows) } else { PrimitiveArray::from(vec![0; rows]) };
    DictionaryArray::new(keys, label.clone())
}

/// The receive time that a line begins with, and the frame behind it. A frame of JSON never looks so.
#[inline]
fn stamp(line: &[u8]) -> Option<(Micros, &[u8])> {
    if !line.first()?.is_ascii_digit() {
        return None;
    }
    // Nanoseconds of 64 bits have 19 digits.
    let digits = line.iter().take(20).position(|b| *b == b' ')?;
    let mut nanos = 0_i64;
    for byte in &line[..digits] {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        nanos = nanos.checked_mul(10)?.checked_add(i64::from(digit))?;
    }
    Some((from_nanos(nanos), line[digits..].trim_ascii_start()))
}
