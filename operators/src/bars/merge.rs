//! The second stage of `bars`: partials into the bars of every interval, on the worker that owns the instrument.
//!
//! Each partial is merged into one open window per interval; longer intervals are never counted anew. A
//! window that changed is emitted at the end of the logical time: the version before taken back, the new
//! one asserted. A window is freed when no trade can revise it any more, so the state is the open windows.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use differential_dataflow::difference::Semigroup;
use hashbrown::HashMap;
use model::kinds::{BAR, Bar, BarBuilder};
use model::time::{Micros, SECOND};
use model::{Batch, Decimal, Origin};

use super::Windows;
use super::partial::{Partial, PartialBarBuilder, PartialBarRows, Place};
use crate::{Advance, Keyed, Output, Snapshot};

/// Merges partials into bars.
#[derive(Debug)]
pub struct Merger {
    windows: Windows,
    instruments: Instruments,
    /// Open windows of each interval, by start.
    open: Vec<BTreeMap<Micros, HashMap<usize, Window, ahash::RandomState>>>,
    bars: BarBuilder,
    diffs: Vec<i8>,
}

/// An open window of one instrument.
#[derive(Clone, Debug, PartialEq)]
struct Window {
    partial: Partial,
    /// A trade came after the watermark had passed the end.
    late: bool,
    /// The watermark has passed the end.
    complete: bool,
}

/// A window that changed at the logical time at hand.
struct Change {
    interval: usize,
    start: Micros,
    instrument: usize,
    /// The version that was emitted before, if one was.
    before: Option<Window>,
}

#[derive(Clone, Debug)]
struct Instrument {
    venue: String,
    market: String,
    symbol: String,
}

/// Instruments by number: windows are keyed by the number.
#[derive(Debug, Default)]
struct Instruments {
    numbers: HashMap<(String, String, String), usize, ahash::RandomState>,
    names: Vec<Instrument>,
}

impl Instruments {
    fn number(&mut self, venue: &str, market: &str, symbol: &str) -> usize {
        let key = (venue.to_owned(), market.to_owned(), symbol.to_owned());
        *self.numbers.entry(key).or_insert_with_key(|(venue, market, symbol)| {
            self.names.push(Instrument { venue: venue.clone(), market: market.clone(), symbol: symbol.clone() });
            self.names.len() - 1
        })
    }
}

impl Merger {
    /// A merger for these windows.
    pub fn new(windows: Windows) -> Self {
        let open = windows.intervals().iter().map(|_| BTreeMap::new()).collect();
        Merger { windows, instruments: Instruments::default(), open, bars: BarBuilder::default(), diffs: Vec::new() }
    }

    fn merge(&mut self, advance: &Advance, batch: &Batch, changes: &mut Vec<Change>) {
        let rows = PartialBarRows::of(&batch.rows).expect("only partial bars are consumed");
        let label = |column, row| model::columns::label(column, row).unwrap_or_default();
        for row in 0..batch.len() {
            let instrument = self.instruments.number(label(rows.venue, row), label(rows.market, row), label(rows.symbol, row));
            let partial = rows.partial(row);
            for (interval, &length) in self.windows.intervals().iter().enumerate() {
                let start = rows.slot.value(row).div_euclid(length) * length;
                let passed = start.saturating_add(length) <= advance.before;
                let windows = self.open[interval].entry(start).or_default();
                let before = match windows.get_mut(&instrument) {
                    Some(window) => {
                        let before = window.clone();
                        window.partial.plus_equals(&partial);
                        window.late |= passed;
                        Some(before)
                    }
                    None => {
                        windows.insert(instrument, Window { partial: partial.clone(), late: passed, complete: passed });
                        None
                    }
                };
                changes.push(Change { interval, start, instrument, before });
            }
        }
    }

    /// Windows that the watermark has passed become complete: their bars are no longer partial.
    fn complete(&mut self, watermark: Micros, changes: &mut Vec<Change>) {
        for (interval, &length) in self.windows.intervals().iter().enumerate() {
            for (&start, windows) in self.open[interval].range_mut(..=watermark.saturating_sub(length)) {
                for (&instrument, window) in windows.iter_mut().filter(|(_, w)| !w.complete) {
                    changes.push(Change { interval, start, instrument, before: Some(window.clone()) });
                    window.complete = true;
                }
            }
        }
    }

    /// Emits each changed window once: what was emitted before it changed, and what it is now.
    fn emit(&mut self, mut changes: Vec<Change>, origin: Origin, out: &mut Output) {
        // The first change of a window, in the stable order, holds the version that was emitted.
        changes.sort_by_key(|c| (c.interval, c.start, c.instrument));
        changes.dedup_by_key(|c| (c.interval, c.start, c.instrument));
        for change in &changes {
            let instrument = &self.instruments.names[change.instrument];
            let now = &self.open[change.interval][&change.start][&change.instrument];
            if change.before.as_ref() == Some(now) {
                continue;
            }
            let length = self.windows.intervals()[change.interval];
            for (window, diff) in change.before.iter().map(|w| (w, -1)).chain([(now, 1)]) {
                self.bars.push(bar(instrument, change.start, length, window));
                self.diffs.push(diff);
            }
        }
        out.emit(Batch::new(&BAR, self.bars.finish(), origin).with_diffs(std::mem::take(&mut self.diffs)));
    }

    /// Frees the windows that nothing can revise any more.
    fn close(&mut self, watermark: Micros) {
        for (interval, &length) in self.windows.intervals().iter().enumerate() {
            let kept =
                self.open[interval].split_off(&watermark.saturating_sub(self.windows.lateness()).saturating_sub(length).saturating_add(1));
            self.open[interval] = kept;
        }
    }
}

impl Keyed for Merger {
    fn advance(&mut self, advance: &Advance, batches: Vec<Batch>, out: &mut Output) {
        let origin = batches.last().map_or(Origin::default(), |b| b.origin);
        let mut changes = Vec::new();
        for batch in &batches {
            self.merge(advance, batch, &mut changes);
        }
        self.complete(advance.watermark, &mut changes);
        self.emit(changes, origin, out);
        self.close(advance.watermark);
    }

    fn delay(&self) -> Micros {
        self.windows.lateness().saturating_add(self.windows.intervals().iter().copied().max().unwrap_or(0))
    }

    fn snapshot(&self) -> Snapshot {
        let mut state = PartialBarBuilder::default();
        for (interval, &length) in self.windows.intervals().iter().enumerate() {
            for (&slot, windows) in &self.open[interval] {
                for (&instrument, window) in windows {
                    let Instrument { venue, market, symbol } = &self.instruments.names[instrument];
                    let place = Place {
                        venue,
                        market,
                        symbol,
                        interval_seconds: length / SECOND,
                        slot,
                        late: window.late,
                        complete: window.complete,
                    };
                    state.push_partial(place, &window.partial);
                }
            }
        }
        let rows = state.finish();
        Box::new(move || vec![rows])
    }

    fn restore(&mut self, state: &[RecordBatch]) {
        for batch in state {
            let rows = PartialBarRows::of(batch).expect("the state is what snapshot gave");
            let label = |column, row| model::columns::label(column, row).unwrap_or_default();
            for row in 0..batch.num_rows() {
                let Some(interval) = self.windows.intervals().iter().position(|l| l / SECOND == rows.interval_seconds.value(row)) else {
                    continue;
                };
                let instrument = self.instruments.number(label(rows.venue, row), label(rows.market, row), label(rows.symbol, row));
                let window =
                    Window { partial: rows.partial(row), late: rows.late.value(row) != 0, complete: rows.complete.value(row) != 0 };
                self.open[interval].entry(rows.slot.value(row)).or_default().insert(instrument, window);
            }
        }
    }
}

fn bar<'a>(instrument: &'a Instrument, start: Micros, length: Micros, window: &'a Window) -> Bar<'a> {
    let p = &window.partial;
    let volume = Decimal::from_units(p.volume);
    Bar {
        venue: &instrument.venue,
        market: &instrument.market,
        symbol: &instrument.symbol,
        interval_seconds: length / SECOND,
        start,
        end: start.saturating_add(length),
        open: p.first.price,
        high: p.high,
        low: p.low,
        close: p.last.price,
        volume,
        quote_volume: Decimal::from_exact_rounded(p.notional).unwrap_or(Decimal::MAX),
        buy_volume: Decimal::from_units(p.buy_volume),
        sell_volume: Decimal::from_units(p.volume - p.buy_volume),
        trades: p.trades,
        vwap: Decimal::ratio_rounded(p.notional, volume),
        first_trade_id: &p.first.id,
        last_trade_id: &p.last.id,
        first_trade_time: p.first.time,
        last_trade_time: p.last.time,
        partial: !window.complete,
        late: window.late,
        gap: p.gap(),
    }
}
