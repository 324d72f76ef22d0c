//! The second stage of `bars`: partials into the bars of every interval, on the worker that owns the instrument.
//!
//! Each partial is merged into one open window per interval; longer intervals are never counted anew. A
//! window that changed is emitted at the end of the logical time: the version before taken back, the new
//! one asserted. A window is freed when no trade can revise it any more, so the state is the open windows.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

use arrow::array::RecordBatch;
use differential_dataflow::difference::Semigroup;
use model::kinds::{BAR, Bar, BarBuilder};
use model::time::{Micros, SECOND};
use model::{Batch, Decimal, Origin};

use super::Windows;
use super::partial::{Partial, PartialBarBuilder, PartialBarRows, Place};
use crate::instruments::{Instrument, Instruments};
use crate::pages::{LARGE, Pages};
use crate::{Advance, Keyed, Output, Snapshot};

/// Merges partials into bars.
#[derive(Debug)]
pub struct Merger {
    windows: Windows,
    instruments: Instruments,
    open: Open,
    /// How far the windows are complete: the latest watermark.
    completed: Micros,
    bars: BarBuilder,
    diffs: Vec<i8>,
}

/// The open windows.
#[derive(Debug)]
struct Open {
    /// Those of each instrument, in the order of their places.
    windows: Pages<Vec<Window>, LARGE>,
    /// The instruments that have a window of an interval at a start.
    starts: Vec<BTreeMap<Micros, Vec<u32>>>,
}

/// Which of an instrument's windows: the number of the interval and the start.
type At = (usize, Micros);

/// An open window of one instrument.
#[derive(Clone, Debug, PartialEq)]
struct Window {
    at: At,
    partial: Partial,
    /// A trade came after the watermark had passed the end.
    late: bool,
    /// The watermark has passed the end.
    complete: bool,
}

/// A window that changed at the logical time at hand.
struct Change {
    at: At,
    instrument: u32,
    /// The version that was emitted before, if one was.
    before: Option<Window>,
}

impl Open {
    fn get(&self, instrument: u32, at: At) -> &Window {
        let windows = self.windows.get(instrument as usize).expect("an instrument with a window has a list of them");
        &windows[windows.binary_search_by_key(&at, |w| w.at).expect("the window is open")]
    }

    /// The windows of an instrument, to be changed.
    fn of(&mut self, instrument: u32) -> &mut Vec<Window> {
        self.windows.entry(instrument as usize)
    }
}

/// Adds a window at its place among an instrument's, without room for more: most have one.
fn insert(windows: &mut Vec<Window>, place: usize, window: Window) {
    windows.reserve_exact(1);
    windows.insert(place, window);
}

impl Merger {
    /// A merger for these windows.
    pub fn new(windows: Windows) -> Self {
        let open = Open { windows: Pages::default(), starts: vec![BTreeMap::new(); windows.intervals().len()] };
        let (bars, diffs) = (BarBuilder::default(), Vec::new());
        Merger { windows, instruments: Instruments::default(), open, completed: Micros::MIN, bars, diffs }
    }

    fn merge(&mut self, advance: &Advance, batch: &Batch, changes: &mut Vec<Change>) {
        let rows = PartialBarRows::of(&batch.rows).expect("only partial bars are consumed");
        let instruments = self.instruments.resolve(&batch.rows);
        for (row, instrument) in instruments.into_iter().enumerate() {
            let (slot, partial) = (rows.slot.value(row), rows.partial(row));
            let windows = self.open.windows.entry(instrument as usize);
            for (interval, &length) in self.windows.intervals().iter().enumerate() {
                let at = (interval, slot.div_euclid(length) * length);
                let passed = at.1.saturating_add(length) <= advance.before;
                let before = match windows.binary_search_by_key(&at, |w| w.at) {
                    Ok(place) => {
                        let window = &mut windows[place];
                        let before = window.clone();
                        window.partial.plus_equals(&partial);
                        window.late |= passed;
                        Some(before)
                    }
                    Err(place) => {
                        insert(windows, place, Window { at, partial: partial.clone(), late: passed, complete: passed });
                        self.open.starts[interval].entry(at.1).or_default().push(instrument);
                        None
                    }
                };
                changes.push(Change { at, instrument, before });
            }
        }
    }

    /// Windows that the watermark has passed become complete: their bars are no longer partial.
    fn complete(&mut self, watermark: Micros, changes: &mut Vec<Change>) {
        let Open { windows, starts } = &mut self.open;
        for (interval, &length) in self.windows.intervals().iter().enumerate() {
            // Those that it had passed before are complete.
            let passed = (Excluded(self.completed.saturating_sub(length)), Included(watermark.saturating_sub(length)));
            for (&start, instruments) in starts[interval].range(passed) {
                let at = (interval, start);
                for &instrument in instruments {
                    let windows = windows.entry(instrument as usize);
                    let place = windows.binary_search_by_key(&at, |w| w.at).expect("the window is open");
                    let window = &mut windows[place];
                    if !window.complete {
                        changes.push(Change { at, instrument, before: Some(window.clone()) });
                        window.complete = true;
                    }
                }
            }
        }
        self.completed = watermark;
    }

    /// Emits each changed window once: what was emitted before it changed, and what it is now.
    fn emit(&mut self, mut changes: Vec<Change>, origin: Origin, out: &mut Output) {
        // The first change of a window, in the stable order, holds the version that was emitted.
        changes.sort_by_key(|c| (c.at, c.instrument));
        changes.dedup_by_key(|c| (c.at, c.instrument));
        for change in &changes {
            let instrument = self.instruments.get(change.instrument);
            let now = self.open.get(change.instrument, change.at);
            if change.before.as_ref() == Some(now) {
                continue;
            }
            let length = self.windows.intervals()[change.at.0];
            for (window, diff) in change.before.iter().map(|w| (w, -1)).chain([(now, 1)]) {
                self.bars.push(bar(instrument, length, window));
                self.diffs.push(diff);
            }
        }
        out.emit(Batch::new(&BAR, self.bars.finish(), origin).with_diffs(std::mem::take(&mut self.diffs)));
    }

    /// Frees the windows that nothing can revise any more.
    fn close(&mut self, watermark: Micros) {
        for (interval, &length) in self.windows.intervals().iter().enumerate() {
            let first = watermark.saturating_sub(self.windows.lateness()).saturating_sub(length).saturating_add(1);
            let kept = self.open.starts[interval].split_off(&first);
            for (start, instruments) in std::mem::replace(&mut self.open.starts[interval], kept) {
                for instrument in instruments {
                    let windows = self.open.of(instrument);
                    windows.retain(|w| w.at != (interval, start));
                    if windows.is_empty() {
                        *windows = Vec::new();
                    }
                }
            }
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

    fn snapshot(&mut self) -> Snapshot {
        let (instruments, open, intervals) = (self.instruments.groups(), self.open.windows.snapshot(), self.windows.intervals().to_vec());
        Box::new(move || {
            let groups = instruments.zip(open.into_groups()).map(|(instruments, open)| {
                let mut state = PartialBarBuilder::default();
                for ((_, Instrument { venue, market, symbol }), windows) in instruments.iter().zip(open.iter()) {
                    for Window { at: (interval, slot), partial, late, complete } in windows.iter() {
                        let (interval_seconds, slot, late, complete) = (intervals[*interval] / SECOND, *slot, *late, *complete);
                        state.push_partial(Place { venue, market, symbol, interval_seconds, slot, late, complete }, partial);
                    }
                }
                state.finish()
            });
            groups.filter(|rows| rows.num_rows() > 0).collect()
        })
    }

    fn restore(&mut self, state: &[RecordBatch]) {
        for batch in state {
            let rows = PartialBarRows::of(batch).expect("the state is what snapshot gave");
            let instruments = self.instruments.resolve(batch);
            for (row, instrument) in instruments.into_iter().enumerate() {
                let seconds = rows.interval_seconds.value(row);
                let Some(interval) = self.windows.intervals().iter().position(|l| l / SECOND == seconds) else { continue };
                let at = (interval, rows.slot.value(row));
                let window =
                    Window { at, partial: rows.partial(row), late: rows.late.value(row) != 0, complete: rows.complete.value(row) != 0 };
                let windows = self.open.of(instrument);
                insert(windows, windows.partition_point(|w| w.at < at), window);
                self.open.starts[interval].entry(at.1).or_default().push(instrument);
            }
        }
    }
}

fn bar<'a>(instrument: &'a Instrument, length: Micros, window: &'a Window) -> Bar<'a> {
    let (p, start) = (&window.partial, window.at.1);
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
