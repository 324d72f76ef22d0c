//! The detectors of a pipeline's node as a [`Keyed`] state machine.

use arrow::array::RecordBatch;
use model::kinds::{ANOMALY, AnomalyBuilder, DeadLetter};
use model::{Batch, Origin, columns, time};

use super::findings::Findings;
use super::{Detector, Saved};
use crate::cause::{Cause, Causes};
use crate::instruments::{Instruments, NONE, StateBuilder, states};
use crate::rows::bury;
use crate::{Advance, Keyed, Output, Snapshot};

/// Kinds that operators derive. Their rows come in an order of their own (a book tells what happened to it as it
/// learns of it), so they are taken as they come and never late.
const DERIVED: [&str; 2] = ["book_metrics", "book_event"];

/// Rows of a batch that a detector is shown.
#[derive(Debug)]
pub struct Rows<'a> {
    /// The batch.
    pub batch: &'a Batch,
    /// Where its rows came from.
    pub causes: Causes<'a>,
    /// The instrument of each row of the batch.
    pub numbers: &'a [u32],
    /// The rows to look at: those that are not late and name an instrument.
    pub usable: &'a [u32],
    /// The rows that are late: not to be judged, but known to exist.
    pub late: &'a [u32],
}

impl Rows<'_> {
    /// Row, instrument and origin of each row to look at.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u32, Cause)> + '_ {
        self.usable.iter().map(|row| *row as usize).map(|row| (row, self.numbers[row], self.causes.at(row)))
    }
}

/// A detector with its name and the kinds that it is shown.
#[derive(Debug)]
struct Running {
    name: &'static str,
    detector: Box<dyn Detector>,
    reads: Vec<&'static str>,
}

/// The detectors of a node, on one worker.
#[derive(Debug)]
pub struct Detectors {
    running: Vec<Running>,
    instruments: Instruments,
    made: AnomalyBuilder,
    text: String,
    usable: Vec<u32>,
    late: Vec<u32>,
}

impl Detectors {
    /// Detectors, each with its name and the kinds that it reads.
    pub fn new(detectors: impl IntoIterator<Item = (&'static str, Box<dyn Detector>, Vec<&'static str>)>) -> Self {
        let running = detectors.into_iter().map(|(name, detector, reads)| Running { name, detector, reads }).collect();
        Detectors {
            running,
            instruments: Instruments::default(),
            made: AnomalyBuilder::default(),
            text: String::new(),
            usable: Vec::new(),
            late: Vec::new(),
        }
    }

    /// The kinds that some detector reads, each once.
    pub fn reads(&self) -> Vec<&'static str> {
        let mut reads: Vec<&'static str> = self.running.iter().flat_map(|r| r.reads.iter().copied()).collect();
        reads.sort_unstable();
        reads.dedup();
        reads
    }

    /// Refuses rows that are late or of no instrument, and notes the others.
    fn sift(&mut self, advance: &Advance, batch: &Batch, causes: &Causes<'_>, numbers: &[u32], out: &mut Output) {
        let derived = DERIVED.contains(&batch.kind.name.as_ref());
        self.usable.clear();
        self.late.clear();
        for (row, number) in (0_u32..).zip(numbers) {
            let cause = causes.at(row as usize);
            if *number == NONE || batch.diff(row as usize) < 0 {
                bury(batch, row as usize, "malformed", "it names no instrument, or takes a record back", advance.time, out);
            } else if !derived && cause.event_time.is_some_and(|t| t < advance.before) {
                self.late.push(row);
                late(batch, row as usize, cause, advance, out);
            } else {
                self.usable.push(row);
            }
        }
        out.account().accept(self.usable.len());
    }
}

impl Keyed for Detectors {
    fn advance(&mut self, advance: &Advance, batches: Vec<Batch>, out: &mut Output) {
        for batch in &batches {
            let numbers = self.instruments.resolve(&batch.rows);
            let causes = Causes::of(&batch.rows);
            self.sift(advance, batch, &causes, &numbers, out);
            let mut findings = Findings::at(advance, &self.instruments, &mut self.made, &mut self.text);
            let rows = Rows { batch, causes, numbers: &numbers, usable: &self.usable, late: &self.late };
            for running in self.running.iter_mut().filter(|r| r.reads.iter().any(|kind| *kind == batch.kind.name)) {
                running.detector.observe(&rows, &mut findings);
            }
        }
        let mut findings = Findings::at(advance, &self.instruments, &mut self.made, &mut self.text);
        for running in &mut self.running {
            running.detector.settle(advance.watermark, &mut findings);
        }
        if !self.made.is_empty() {
            let origin = batches.last().map_or(Origin::default(), |b| b.origin);
            out.emit(Batch::new(&ANOMALY, self.made.finish(), origin));
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let instruments = self.instruments.groups();
        let mut saved: Vec<Saved> = self.running.iter_mut().map(|running| running.detector.snapshot()).collect();
        Box::new(move || {
            let groups = instruments.map(|group| {
                let mut states = StateBuilder::default();
                saved.iter_mut().for_each(|saved| saved(&group, &mut states));
                states.finish()
            });
            groups.filter(|rows| rows.num_rows() > 0).collect()
        })
    }

    fn restore(&mut self, state: &[RecordBatch]) {
        states(state, &mut self.instruments, |number, part, bytes| {
            if let Some(running) = self.running.iter_mut().find(|r| r.name == part) {
                running.detector.load(number, bytes);
            }
        });
    }
}

/// Counts a row that came behind the watermark, and keeps it as a dead letter.
fn late(batch: &Batch, row: usize, cause: Cause, advance: &Advance, out: &mut Output) {
    let label = |name: &str| batch.rows.column_by_name(name).and_then(|c| c.as_any().downcast_ref()).and_then(|c| columns::label(c, row));
    let happened = cause.event_time.map_or_else(String::new, time::display);
    let letter = DeadLetter {
        node: "",
        reason: "",
        detail: &format!(
            "the record of {happened} came when the watermark was at {}, after its time had been judged",
            time::display(advance.before)
        ),
        event_time: cause.event_time,
        receive_time: cause.receive_time,
        rejected_time: 0,
        frame: cause.frame,
        kind: &batch.kind.name,
        venue: label("venue"),
        market: label("market"),
        symbol: label("symbol"),
        payload: &model::json::row_json(&batch.rows, row),
    };
    out.late(advance.time, letter);
}
