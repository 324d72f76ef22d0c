//! The books of all instruments as a [`Keyed`] state machine: rows in, metrics, events and snapshots out.

use std::fmt::Write as _;

use arrow::array::RecordBatch;
use model::kinds::{
    BOOK_EVENT, BOOK_METRICS, BOOK_SNAPSHOT, BookEvent, BookEventBuilder, BookMetricsBuilder, BookSnapshot, BookSnapshotBuilder,
};
use model::time::Micros;
use model::{Batch, Decimal, Origin, Progress};
use serde::{Deserialize, Serialize};

use super::levels::Side;
use super::rows::{Row, View, by_origin, in_source_order};
use super::sampling::Sampling;
use super::state::{Book, Happening, Machine, Watch};
use super::{Plan, SnapshotPlan};
use crate::cause::Causes;
use crate::instruments::{Instrument, Instruments, NONE, StateBuilder, read_state, states};
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
    books: Vec<Kept>,
    made: Made,
}

/// What is kept of an instrument.
#[derive(Debug, Default, Serialize, Deserialize)]
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
        Books { plan, instruments: Instruments::default(), books: Vec::new(), made: Made::default() }
    }

    /// The state machine of an instrument, if it was heard of.
    #[cfg(test)]
    pub(super) fn machine(&self, symbol: &str) -> Option<&Machine> {
        (0..self.books.len()).find(|i| *self.instruments.get(*i as u32).symbol == *symbol).map(|i| &self.books[i].machine)
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
        self.books.resize_with(self.instruments.len(), Kept::default);
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
        let kept = &mut self.books[number as usize];
        let mut recorder = Recorder {
            plan: &self.plan,
            instrument: self.instruments.get(number),
            metrics: &mut kept.metrics,
            snapshots: &mut kept.snapshots,
            made: &mut self.made,
            now: i64::try_from(advance.time).unwrap_or(i64::MAX).saturating_mul(1_000),
        };
        match row {
            Row::Delta(delta) => kept.machine.delta(delta, self.plan.limits, &mut recorder),
            Row::Snapshot(snapshot) => kept.machine.snapshot(snapshot, &mut recorder),
            Row::Quote(quote) => kept.machine.quote(quote),
            Row::Foreign => false,
        }
    }

    /// Gives the samples of spans that are over.
    fn sample(&mut self, watermark: Micros) {
        for (number, kept) in (0_u32..).zip(&mut self.books) {
            let Some(book) = kept.machine.book() else { continue };
            let instrument = self.instruments.get(number);
            if self.plan.every.is_some_and(|every| kept.metrics.passed(every, watermark)) {
                self.plan.measure.push(instrument, book, &mut self.made.metrics);
            }
            if let Some(plan) = self.plan.snapshots
                && kept.snapshots.passed(plan.every, watermark)
            {
                self.made.snapshot(instrument, book, &plan);
            }
        }
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

    fn snapshot(&self) -> Snapshot {
        let mut rows = StateBuilder::default();
        for (number, kept) in (0_u32..).zip(&self.books) {
            rows.push(self.instruments.get(number), PART, kept);
        }
        let rows = rows.finish();
        Box::new(move || vec![rows])
    }

    fn restore(&mut self, state: &[RecordBatch]) {
        states(state, |[venue, market, symbol], _, bytes| {
            let number = self.instruments.number(venue, market, symbol) as usize;
            self.books.resize_with(self.instruments.len(), Kept::default);
            self.books[number] = read_state(bytes);
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
