//! The books of all instruments as a [`Keyed`] state machine: rows in, metrics, events and snapshots out.

use std::fmt::Write as _;

use arrow::array::RecordBatch;
use model::book::levels::Side;
use model::kinds::{
    BOOK_EVENT, BOOK_METRICS, BOOK_SNAPSHOT, BookEvent, BookEventBuilder, BookMetricsBuilder, BookSnapshot, BookSnapshotBuilder,
};
use model::time::Micros;
use model::{Batch, Decimal, Origin, Progress};
use serde::{Deserialize, Serialize};

use super::rows::{Row, View, by_origin, in_source_order};
use super::sampling::Sampling;
use super::state::{Book, Happening, Machine, Watch};
use super::{Plan, SnapshotPlan};
use crate::cause::Causes;
use crate::instruments::{Instrument, Instruments, NONE, StateBuilder, read_state, states};
use crate::pages::{LARGE, Pages};
use crate::rows::bury;
use crate::{Advance, Keyed, Output, Snapshot};

/// The part of a checkpoint that is a book.
const PART: &str = "book";

/// The reason of dead letters: a row that no book can take.
const MALFORMED: &str = "malformed";

/// The books of all instruments of a worker.
#[derive(Debug)]
pub struct Books {
    plan: Plan,
    instruments: Instruments,
    books: Pages<Kept, LARGE>,
    awaiting: Awaiting,
    made: Made,
}

/// The books that await a sample, so that not all need be asked.
#[derive(Debug)]
struct Awaiting {
    numbers: Vec<u32>,
    /// Whether a number is among them.
    listed: Vec<bool>,
    /// No sample is due before the watermark is here.
    due: Micros,
}

/// What is kept of an instrument.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    machine: Machine,
    metrics: Sampling,
    snapshots: Sampling,
}

/// Rows made and not emitted yet.
#[derive(Debug, Default)]
struct Made {
    metrics: BookMetricsBuilder,
    events: BookEventBuilder,
    snapshots: BookSnapshotBuilder,
    /// Space for the text of an event.
    detail: String,
    /// Space for levels of a snapshot: bid prices and sizes, ask prices and sizes.
    levels: [Vec<Decimal>; 4],
}

impl Books {
    /// Books that know nothing yet.
    pub fn new(plan: Plan) -> Self {
        let awaiting = Awaiting { numbers: Vec::new(), listed: Vec::new(), due: Micros::MAX };
        Books { plan, instruments: Instruments::default(), books: Pages::default(), awaiting, made: Made::default() }
    }

    /// The state machine of an instrument, if it was heard of.
    #[cfg(test)]
    pub(super) fn machine(&self, symbol: &str) -> Option<&Machine> {
        let number = (0..self.instruments.len() as u32).find(|n| *self.instruments.get(*n).symbol == *symbol)?;
        self.books.get(number as usize).map(|kept| &kept.machine)
    }

    /// Takes the rows of one origin.
    fn take(&mut self, advance: &Advance, batches: &[Batch], out: &mut Output) {
        let (mut opened, mut lengths) = (Vec::with_capacity(batches.len()), Vec::with_capacity(batches.len()));
        for batch in batches {
            match View::of(batch) {
                Ok(view) => {
                    opened.push((batch, view, self.instruments.resolve(&batch.rows)));
                    lengths.push((Causes::of(&batch.rows), batch.len()));
                }
                Err(error) => (0..batch.len()).for_each(|row| bury(batch, row, MALFORMED, &error.to_string(), advance.time, out)),
            }
        }
        let (mut used, mut ignored) = (0, 0);
        for (b, row) in in_source_order(&lengths) {
            let (batch, view, numbers) = &opened[b];
            let number = numbers[row];
            let taken = match view.row(row, lengths[b].0.at(row)) {
                _ if batch.diff(row) < 0 => Err("a change of a book cannot be taken back".to_owned()),
                _ if number == NONE => Err("it names no instrument".to_owned()),
                Err(why) => Err(why),
                Ok(row) => Ok(self.step(advance, number, row)),
            };
            match taken {
                Ok(true) => used += 1,
                Ok(false) => ignored += 1,
                Err(why) => bury(batch, row, MALFORMED, &why, advance.time, out),
            }
        }
        out.account().accept(used);
        out.account().ignore(ignored);
    }

    /// Takes one row. Returns whether it was of use.
    fn step(&mut self, advance: &Advance, number: u32, row: Row<'_>) -> bool {
        let kept = self.books.entry(number as usize);
        let mut recorder = Recorder {
            plan: &self.plan,
            instrument: self.instruments.get(number),
            metrics: &mut kept.metrics,
            snapshots: &mut kept.snapshots,
            made: &mut self.made,
            now: i64::try_from(advance.time).unwrap_or(i64::MAX).saturating_mul(1_000),
        };
        let used = match row {
            Row::Delta(delta) => kept.machine.delta(delta, self.plan.limits, &mut recorder),
            Row::Snapshot(snapshot) => kept.machine.snapshot(snapshot, &mut recorder),
            Row::Quote(quote) => kept.machine.quote(quote),
            Row::Missing(cause) => kept.machine.missing(cause, &mut recorder),
            Row::Foreign => false,
        };
        self.awaiting.note(number, kept.due(&self.plan));
        used
    }

    /// Gives the samples of spans that are over, in the order of the instruments.
    fn sample(&mut self, watermark: Micros) {
        for number in self.awaiting.take(watermark) {
            if self.due(number).is_some_and(|due| due <= watermark) {
                let Kept { machine, metrics, snapshots } = self.books.entry(number as usize);
                let instrument = self.instruments.get(number);
                // One that is given up gave its last samples when it was.
                if let Some(book) = machine.book() {
                    if self.plan.every.is_some_and(|every| metrics.passed(every, watermark)) {
                        self.plan.measure.push(instrument, book, &mut self.made.metrics);
                    }
                    if let Some(plan) = self.plan.snapshots
                        && snapshots.passed(plan.every, watermark)
                    {
                        self.made.snapshot(instrument, book, &plan);
                    }
                }
            }
            self.awaiting.note(number, self.due(number));
        }
    }

    /// The watermark at which a book's sample is due, if it awaits one.
    fn due(&self, number: u32) -> Option<Micros> {
        self.books.get(number as usize)?.due(&self.plan)
    }
}

impl Kept {
    /// The watermark at which a sample is due, if one is awaited.
    fn due(&self, plan: &Plan) -> Option<Micros> {
        let metrics = plan.every.and_then(|every| self.metrics.end(every));
        let snapshots = plan.snapshots.and_then(|s| self.snapshots.end(s.every));
        metrics.into_iter().chain(snapshots).min()
    }
}

impl Awaiting {
    /// A book awaits a sample, or none.
    fn note(&mut self, number: u32, due: Option<Micros>) {
        let Some(due) = due else { return };
        self.due = self.due.min(due);
        if self.listed.len() <= number as usize {
            self.listed.resize(number as usize + 1, false);
        }
        if !std::mem::replace(&mut self.listed[number as usize], true) {
            self.numbers.push(number);
        }
    }

    /// All books, in order, if a sample is due at this watermark. Those that go on awaiting one must be noted again.
    fn take(&mut self, watermark: Micros) -> Vec<u32> {
        if watermark < self.due {
            return Vec::new();
        }
        self.due = Micros::MAX;
        let mut numbers = std::mem::take(&mut self.numbers);
        numbers.iter().for_each(|number| self.listed[*number as usize] = false);
        numbers.sort_unstable();
        numbers
    }
}

impl Keyed for Books {
    fn advance(&mut self, advance: &Advance, batches: Vec<Batch>, out: &mut Output) {
        let mut origin = Origin::default();
        for (from, group) in by_origin(&batches) {
            origin = from;
            self.take(advance, group, out);
            self.made.emit(origin, out);
        }
        if advance.watermark > advance.before || advance.watermark == Progress::END {
            self.sample(advance.watermark);
            self.made.emit(origin, out);
        }
    }

    /// A sample is given when its span is over, with the time of the last change in it.
    fn delay(&self) -> Micros {
        self.plan.every.into_iter().chain(self.plan.snapshots.map(|s| s.every)).max().unwrap_or(0)
    }

    fn snapshot(&mut self) -> Snapshot {
        let (instruments, books) = (self.instruments.groups(), self.books.snapshot());
        Box::new(move || {
            let groups = instruments.zip(books.into_groups()).map(|(instruments, books)| {
                let mut rows = StateBuilder::default();
                for ((_, instrument), kept) in instruments.iter().zip(books.iter()) {
                    rows.push(instrument, PART, kept);
                }
                rows.finish()
            });
            groups.collect()
        })
    }

    fn restore(&mut self, state: &[RecordBatch]) {
        states(state, &mut self.instruments, |number, _, bytes| {
            let kept: Kept = read_state(bytes);
            self.awaiting.note(number, kept.due(&self.plan));
            *self.books.entry(number as usize) = kept;
        });
    }
}

impl Made {
    fn emit(&mut self, origin: Origin, out: &mut Output) {
        if !self.metrics.is_empty() {
            out.emit(Batch::new(&BOOK_METRICS, self.metrics.finish(), origin));
        }
        if !self.events.is_empty() {
            out.emit(Batch::new(&BOOK_EVENT, self.events.finish(), origin));
        }
        if !self.snapshots.is_empty() {
            out.emit(Batch::new(&BOOK_SNAPSHOT, self.snapshots.finish(), origin));
        }
    }

    fn snapshot(&mut self, instrument: &Instrument, book: &Book, plan: &SnapshotPlan) {
        let [bid_prices, bid_sizes, ask_prices, ask_sizes] = &mut self.levels;
        let fill = |side: &Side, prices: &mut Vec<Decimal>, sizes: &mut Vec<Decimal>| {
            prices.clear();
            sizes.clear();
            for (price, size) in side.iter().take(plan.levels) {
                prices.push(Decimal::from_units(price));
                sizes.push(Decimal::from_units(size));
            }
        };
        fill(&book.bids, bid_prices, bid_sizes);
        fill(&book.asks, ask_prices, ask_sizes);
        self.snapshots.push(BookSnapshot {
            venue: &instrument.venue,
            market: &instrument.market,
            symbol: &instrument.symbol,
            event_time: book.cause.event_time,
            receive_time: book.cause.receive_time,
            frame: book.cause.frame,
            sequence: book.sequence,
            origin: "book",
            bid_prices,
            bid_quantities: bid_sizes,
            ask_prices,
            ask_quantities: ask_sizes,
            contracts: book.contracts,
            depth: None,
            checksum: None,
            price_digits: None,
            quantity_digits: None,
        });
    }
}

/// Writes down what happens to one instrument's book.
struct Recorder<'a> {
    plan: &'a Plan,
    instrument: &'a Instrument,
    metrics: &'a mut Sampling,
    snapshots: &'a mut Sampling,
    made: &'a mut Made,
    /// Logical time, in microseconds: when an event happened whose cause tells no time.
    now: Micros,
}

impl Watch for Recorder<'_> {
    fn leaving(&mut self, book: &Book, until: Option<Micros>) {
        if self.plan.every.is_some_and(|every| self.metrics.leaving(every, until)) {
            self.plan.measure.push(self.instrument, book, &mut self.made.metrics);
        }
        if let Some(plan) = self.plan.snapshots
            && self.snapshots.leaving(plan.every, until)
        {
            self.made.snapshot(self.instrument, book, &plan);
        }
    }

    fn applied(&mut self, book: &Book) {
        let time = book.cause.event_time.unwrap_or(self.now);
        match self.plan.every {
            None => self.plan.measure.push(self.instrument, book, &mut self.made.metrics),
            Some(every) => self.metrics.changed(every, time),
        }
        if let Some(plan) = self.plan.snapshots {
            self.snapshots.changed(plan.every, time);
        }
    }

    fn voided(&mut self) {
        *self.metrics = Sampling::default();
        *self.snapshots = Sampling::default();
    }

    fn happened(&mut self, happening: Happening<'_>) {
        let Happening { event, cause, expected, sequence, detail } = happening;
        self.made.detail.clear();
        write!(self.made.detail, "{detail}").expect("text grows as needed");
        self.made.events.push(BookEvent {
            venue: &self.instrument.venue,
            market: &self.instrument.market,
            symbol: &self.instrument.symbol,
            event_time: cause.event_time,
            receive_time: cause.receive_time.or_else(|| cause.event_time.is_none().then_some(self.now)),
            frame: cause.frame,
            event: event.as_str(),
            expected_sequence: expected,
            sequence,
            detail: &self.made.detail,
        });
    }
}
