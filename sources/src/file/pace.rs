//! Rows handed over as far apart as they were recorded.

use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use async_trait::async_trait;
use model::dialect::{Dialect, FrameRef, Records};
use model::kinds::{self, FrameRows};
use model::time::Micros;
use tokio::time::{Instant, sleep_until};

use super::gather::Mark;
use super::reader::{FileReader, Layout};
use crate::{Chunk, Position, Reader, SourceError, dialect};

/// A reader that waits until rows are due.
pub(super) struct Paced {
    reader: FileReader,
    schedule: Schedule,
    waiting: Option<Waiting>,
    times: Times,
}

/// A chunk of which rows from `next` on are not handed over.
struct Waiting {
    chunk: Chunk,
    marks: Vec<Mark>,
    due: Vec<Instant>,
    next: usize,
}

impl Paced {
    pub(super) fn new(reader: FileReader, factor: f64) -> Self {
        let times = Times::of(reader.layout());
        Paced { reader, schedule: Schedule { factor, start: None, last: Micros::MIN }, waiting: None, times }
    }
}

#[async_trait]
impl Reader for Paced {
    async fn next(&mut self, until: Option<&Position>) -> Result<Option<Chunk>, SourceError> {
        // What was handed over before is not waited for again.
        if until.is_some() {
            return self.reader.next(until).await;
        }
        if self.waiting.is_none() {
            let Some((chunk, marks)) = self.reader.read(None) else { return Ok(None) };
            let rows = chunk.batches.first().filter(|_| !marks.is_empty()).map(|(_, rows)| rows);
            let times = rows.map_or_else(Vec::new, |rows| self.times.of_rows(rows));
            let now = Instant::now();
            let due = times.into_iter().map(|time| self.schedule.due(time, now)).collect();
            self.waiting = Some(Waiting { chunk, marks, due, next: 0 });
        }
        // All state stays here while waiting, so the future may be dropped.
        if let Some(due) = self.waiting.as_ref().and_then(|w| w.due.get(w.next)) {
            sleep_until(*due).await;
        }
        let waiting = self.waiting.as_mut().expect("it was put there");
        let chunk = waiting.take(Instant::now());
        if waiting.next == waiting.due.len() {
            self.waiting = None;
        }
        Ok(Some(chunk))
    }

    fn share(&self) -> Option<f64> {
        self.reader.share()
    }
}

impl Waiting {
    /// The rows that are due, one at least, with the dead letters that stand before them or between them. Errors come
    /// with the last rows.
    fn take(&mut self, now: Instant) -> Chunk {
        let start = self.next;
        let late = self.due[start..].iter().take_while(|due| **due <= now).count();
        self.next = (start + late.max(1)).min(self.due.len());
        if self.next == self.due.len() {
            let mut chunk = std::mem::take(&mut self.chunk);
            if start > 0 {
                let rows = &mut chunk.batches[0].1;
                *rows = rows.slice(start, rows.num_rows() - start);
            }
            return chunk;
        }
        let mark = self.marks[self.next - 1];
        let (kind, rows) = &self.chunk.batches[0];
        let mut batches = vec![(kind.clone(), rows.slice(start, self.next - start))];
        if let Some((kind, letters)) = self.chunk.batches.get_mut(1) {
            let before = letters_up_to(mark.frame, letters);
            if before > 0 {
                batches.push((kind.clone(), letters.slice(0, before)));
                *letters = letters.slice(before, letters.num_rows() - before);
            }
            if letters.num_rows() == 0 {
                self.chunk.batches.pop();
            }
        }
        let position = Position { offset: mark.offset, frame: mark.frame, ..self.chunk.position.clone() };
        Chunk { batches, position, ..Chunk::default() }
    }
}

/// How many of the dead letters, which are in the order of their frames, are of frames up to this one.
fn letters_up_to(frame: u64, letters: &RecordBatch) -> usize {
    let frames = letters.column_by_name("frame").expect("a dead letter has the column").as_primitive::<Int64Type>();
    frames.values().partition_point(|number| u64::try_from(*number).is_ok_and(|number| number <= frame))
}

/// When rows are due: as long after the first as they were recorded after it, divided by the factor.
#[derive(Debug)]
struct Schedule {
    factor: f64,
    start: Option<(Instant, Micros)>,
    /// The latest time so far, which is that of a row without one.
    last: Micros,
}

impl Schedule {
    fn due(&mut self, time: Option<Micros>, now: Instant) -> Instant {
        self.last = self.last.max(time.unwrap_or(Micros::MIN));
        if self.last == Micros::MIN {
            return now;
        }
        let (begun, first) = *self.start.get_or_insert((now, self.last));
        // A year at most: what lies further in the future is a broken time.
        let seconds = (self.last.saturating_sub(first) as f64 / 1e6 / self.factor).clamp(0.0, 366.0 * 86_400.0);
        begun + Duration::from_secs_f64(seconds)
    }
}

/// Tells the time of rows.
enum Times {
    /// Records tell theirs.
    Records(std::sync::Arc<model::Kind>),
    /// Frames have a receive time or are looked into.
    Frames(Box<dyn Dialect>, Records),
}

impl Times {
    fn of(layout: &Layout) -> Self {
        match layout {
            Layout::Records { kind, .. } => Times::Records(kind.clone()),
            Layout::Frames { dialect, .. } => {
                let dialect = dialect::make(dialect).expect("the check found the dialect");
                Times::Frames(dialect, Records::wanting(kinds::market_data().map(|k| k.name.as_ref())))
            }
        }
    }

    fn of_rows(&mut self, rows: &RecordBatch) -> Vec<Option<Micros>> {
        match self {
            Times::Records(kind) => match rows.column_by_name("receive_time") {
                Some(received) => {
                    let (received, times) = (received.as_primitive::<TimestampMicrosecondType>(), kind.times(rows));
                    received.iter().zip(&times).map(|(received, time)| received.or(time)).collect()
                }
                None => kind.times(rows).iter().collect(),
            },
            Times::Frames(dialect, records) => {
                let frames = FrameRows::of(rows).expect("these are frames");
                let time = |i: usize| {
                    let payload = frames.payload.value(i);
                    if frames.receive_time.is_valid(i) {
                        Some(frames.receive_time.value(i))
                    } else {
                        event_time(dialect.as_mut(), records, payload)
                    }
                };
                (0..rows.num_rows()).map(time).collect()
            }
        }
    }
}

/// The event time in a frame, if it gives records that have one.
fn event_time(dialect: &mut dyn Dialect, records: &mut Records, payload: &[u8]) -> Option<Micros> {
    // A frame that is refused is refused again, and told, where it is decoded.
    let _ = dialect.decode(FrameRef { receive_time: None, frame: 0, topic: None, payload }, records);
    records.finish().iter().filter_map(|(kind, rows)| kind.latest(rows)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_due_as_far_apart_as_they_were_recorded() {
        let now = Instant::now();
        let mut schedule = Schedule { factor: 2.0, start: None, last: Micros::MIN };
        let mut due =
            |time: Option<i64>| schedule.due(time.map(|t| t * 1_000_000), now + Duration::from_secs(50)).duration_since(now).as_secs();
        assert_eq!(due(None), 50);
        assert_eq!([due(Some(100)), due(Some(104)), due(None), due(Some(90)), due(Some(110))], [50, 52, 52, 52, 55]);
    }

    #[test]
    fn only_rows_that_are_due_are_handed_over() {
        let mut builder = kinds::FrameBuilder::default();
        for frame in 1..=4 {
            builder.push(kinds::Frame {
                source: "s",
                dialect: "d",
                receive_time: None,
                frame,
                connection: None,
                topic: None,
                payload: b"{}",
            });
        }
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let error = SourceError { transient: false, place: "f".into(), what: "is damaged".into(), remedy: "none".into() };
        let position = Position { part: "f".into(), offset: 99, frame: 5, identity: 1 };
        let mut waiting = Waiting {
            chunk: Chunk {
                batches: vec![(kinds::FRAME.clone(), builder.finish())],
                position: position.clone(),
                errors: vec![error],
                ..Chunk::default()
            },
            marks: (1..=4).map(|n| Mark { offset: n * 10, frame: n }).collect(),
            due: vec![now, at(1), at(1), at(5)],
            next: 0,
        };
        let mut taken = |seconds| {
            let chunk = waiting.take(at(seconds));
            let frames = FrameRows::of(&chunk.batches[0].1).unwrap().frame.values().to_vec();
            (frames, chunk.position.offset, chunk.position.frame, chunk.errors.len())
        };
        assert_eq!(taken(0), (vec![1], 10, 1, 0));
        assert_eq!(taken(4), (vec![2, 3], 30, 3, 0));
        assert_eq!(taken(5), (vec![4], 99, 5, 1));
    }
}
