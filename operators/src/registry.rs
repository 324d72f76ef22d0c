//! `registry`: listings in, the terms of each instrument from one time to another out.
//!
//! A venue lists its instruments again and again, and mostly says what it said before. A row of `instrument_terms` begins where
//! something is said that was not, and is open until something else is: then it is taken back and asserted again with its end, and
//! another begins. So at every time each instrument has one row at most, and whoever asks what a contract was worth at noon gets the
//! terms of noon.
//!
//! What an instrument's rows are depends on its listings alone: a listing that says nothing new changes nothing, one of the same time
//! corrects, and one from before the terms at hand is refused, because what they replaced is settled.
//!
//! # Time
//!
//! - **Late rows**: a listing from before the terms at hand is a dead letter.
//! - **Corrections**: a row that ends is taken back and asserted with its end; so is one that a listing of the same time corrects.
//! - **Gaps** and **idle sources** leave the last row open: what a venue does not list any more has no end.
//! - **State**: the open row of each instrument.

use std::sync::Arc;

use arrow::array::RecordBatch;
use config::{Check, Checked, Component};
use model::columns::{integer, label, number};
use model::kinds::{DEAD_LETTER, INSTRUMENT, INSTRUMENT_TERMS, InstrumentRows, InstrumentTerms, InstrumentTermsBuilder};
use model::time::{self, Micros};
use model::{Batch, Decimal, Origin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataflow::{self, Route, Stage};
use crate::instruments::{Instruments, NONE, StateBuilder, read_state, states};
use crate::pages::Pages;
use crate::rows::bury;
use crate::{Advance, Context, Keyed, Operator, Output, Snapshot, Stream};

/// Keeps the terms of instruments: what a venue lists, from when until when.
///
/// A listing that says nothing new gives nothing; one that does closes the row at hand and opens another.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Registry {}

impl Component<dyn Operator> for Registry {
    const TYPE: &'static str = "registry";
    const EXAMPLE: &'static str = r#"[operators.registry]
type = "registry"
inputs = ["records"]
"#;
    const MODULE: &'static str = include_str!("registry.rs");

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        cx.require(&[&INSTRUMENT.name]);
        Some(Checked { outputs: vec![INSTRUMENT_TERMS.clone(), DEAD_LETTER.clone()], component: Arc::new(self) })
    }
}

impl Operator for Registry {
    fn build<'scope>(&self, input: Stream<'scope>, cx: &Context) -> Stream<'scope> {
        dataflow::keyed(input, cx, &[&INSTRUMENT.name], Route::Instrument, Stage::ONLY, Ledger::default())
    }
}

/// A [`Decimal`] in its units, as a checkpoint keeps it.
type Units = i128;

/// What a venue says of an instrument, but for when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Terms {
    venue_symbol: String,
    base: String,
    quote: String,
    settlement: Option<String>,
    status: Option<String>,
    tick_size: Option<Units>,
    lot_size: Option<Units>,
    contract_size: Option<Units>,
    inverse: bool,
    expiry: Option<Micros>,
    strike: Option<Units>,
    option_type: Option<String>,
}

/// Terms from one time on, and the frame that told them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    since: Micros,
    frame: Option<i64>,
    terms: Terms,
}

impl Entry {
    fn of(rows: &InstrumentRows<'_>, row: usize) -> Entry {
        let text = |column| label(column, row).map(str::to_owned);
        let units = |column| number(column, row).map(Decimal::units);
        let terms = Terms {
            venue_symbol: rows.venue_symbol.value(row).to_owned(),
            base: text(rows.base).unwrap_or_default(),
            quote: text(rows.quote).unwrap_or_default(),
            settlement: text(rows.settlement),
            status: text(rows.status),
            tick_size: units(rows.tick_size),
            lot_size: units(rows.lot_size),
            contract_size: units(rows.contract_size),
            inverse: rows.inverse.value(row),
            expiry: integer(rows.expiry, row),
            strike: units(rows.strike),
            option_type: text(rows.option_type),
        };
        Entry { since: rows.event_time.value(row), frame: integer(rows.frame, row), terms }
    }
}

/// The entries at hand, on one worker.
#[derive(Debug, Default)]
struct Ledger {
    instruments: Instruments,
    /// By the number of the instrument.
    entries: Pages<Option<Entry>>,
    made: InstrumentTermsBuilder,
    diffs: Vec<i8>,
}

impl Ledger {
    /// Asserts an entry, or takes it back.
    fn put(&mut self, number: u32, entry: &Entry, until: Option<Micros>, diff: i8) {
        let (instrument, terms) = (self.instruments.get(number), &entry.terms);
        self.made.push(InstrumentTerms {
            venue: &instrument.venue,
            market: &instrument.market,
            symbol: &instrument.symbol,
            event_time: entry.since,
            valid_until: until,
            frame: entry.frame,
            venue_symbol: &terms.venue_symbol,
            base: &terms.base,
            quote: &terms.quote,
            settlement: terms.settlement.as_deref(),
            status: terms.status.as_deref(),
            tick_size: terms.tick_size.map(Decimal::from_units),
            lot_size: terms.lot_size.map(Decimal::from_units),
            contract_size: terms.contract_size.map(Decimal::from_units),
            inverse: terms.inverse,
            expiry: terms.expiry,
            strike: terms.strike.map(Decimal::from_units),
            option_type: terms.option_type.as_deref(),
        });
        self.diffs.push(diff);
    }

    /// Takes in what a venue says now. An error says why it cannot.
    fn hear(&mut self, number: u32, new: Entry) -> Result<(), String> {
        let at_hand = self.entries.entry(number as usize).clone();
        if let Some(old) = &at_hand {
            if new.since < old.since {
                let (new, old) = (time::display(new.since), time::display(old.since));
                return Err(format!("the listing is of {new}, and the terms at hand are of {old}"));
            }
            if new.terms == old.terms {
                return Ok(());
            }
            self.put(number, old, None, -1);
            // Of two listings of one time, the later one corrects the other.
            if old.since < new.since {
                self.put(number, old, Some(new.since), 1);
            }
        }
        self.put(number, &new, None, 1);
        *self.entries.entry(number as usize) = Some(new);
        Ok(())
    }
}

impl Keyed for Ledger {
    fn advance(&mut self, advance: &Advance, batches: Vec<Batch>, out: &mut Output) {
        for batch in &batches {
            let rows = InstrumentRows::of(&batch.rows).expect("only listings are consumed");
            let numbers = self.instruments.resolve(&batch.rows);
            let mut accepted = 0;
            for (row, number) in numbers.into_iter().enumerate() {
                let heard = if number == NONE || batch.diff(row) < 0 {
                    Err(("malformed", "it names no instrument, or takes a record back".to_owned()))
                } else {
                    self.hear(number, Entry::of(&rows, row)).map_err(|why| ("out_of_order", why))
                };
                match heard {
                    Ok(()) => accepted += 1,
                    Err((reason, why)) => bury(batch, row, reason, &why, advance.time, out),
                }
            }
            out.account().accept(accepted);
        }
        if !self.made.is_empty() {
            let origin = batches.last().map_or(Origin::default(), |batch| batch.origin);
            let diffs = std::mem::take(&mut self.diffs);
            out.emit(Batch::new(&INSTRUMENT_TERMS, self.made.finish(), origin).with_diffs(diffs));
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let instruments = self.instruments.groups();
        self.entries.grow(self.instruments.len());
        let entries = self.entries.snapshot().into_groups();
        Box::new(move || {
            let groups = instruments.zip(entries).map(|(group, entries)| {
                let mut saved = StateBuilder::default();
                for ((_, instrument), entry) in group.iter().zip(entries.iter()) {
                    entry.iter().for_each(|entry| saved.push(instrument, "", entry));
                }
                saved.finish()
            });
            groups.filter(|rows| rows.num_rows() > 0).collect()
        })
    }

    fn restore(&mut self, state: &[RecordBatch]) {
        let entries = &mut self.entries;
        states(state, &mut self.instruments, |number, _, bytes| *entries.entry(number as usize) = Some(read_state(bytes)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::kinds::{Instrument, InstrumentBuilder, InstrumentTermsRows};
    use model::{Account, Message};
    use proptest::prelude::*;

    use super::*;

    /// A listing as the tests write it: instrument, event time in seconds, tick size, status.
    type Row = (u8, i64, i64, bool);

    fn batch(rows: &[Row]) -> Batch {
        let mut listings = InstrumentBuilder::default();
        for &(instrument, seconds, tick, trading) in rows {
            let (base, venue_symbol) = [("BTC", "BTCUSDT"), ("ETH", "ETHUSDT")][usize::from(instrument) % 2];
            listings.push(Instrument {
                venue: "binance",
                market: "spot",
                symbol: &format!("{base}-USDT"),
                event_time: seconds * 1_000_000,
                receive_time: None,
                frame: Some(seconds),
                venue_symbol,
                base,
                quote: "USDT",
                settlement: None,
                status: Some(if trading { "trading" } else { "break" }),
                tick_size: Some(Decimal::from_units(i128::from(tick))),
                lot_size: None,
                contract_size: None,
                inverse: false,
                expiry: None,
                strike: None,
                option_type: None,
            });
        }
        Batch::new(&INSTRUMENT, listings.finish(), Origin::default())
    }

    /// A row of `instrument_terms`: since, until, tick size, whether it trades.
    type Term = (i64, Option<i64>, i64, bool);

    /// Applies what is emitted to a table by instrument; an assertion of what is there, or a retraction of what is not, panics.
    fn apply(table: &mut BTreeMap<(String, i64), Term>, out: &mut Output) -> usize {
        let mut letters = 0;
        for message in out.take() {
            let Message::Batch(batch) = message else { continue };
            if batch.kind.name == DEAD_LETTER.name {
                letters += batch.len();
                continue;
            }
            let rows = InstrumentTermsRows::of(&batch.rows).unwrap();
            for row in 0..batch.len() {
                let since = rows.event_time.value(row) / 1_000_000;
                let until = integer(rows.valid_until, row).map(|until| until / 1_000_000);
                let tick = number(rows.tick_size, row).unwrap().units() as i64;
                let term = (since, until, tick, label(rows.status, row) == Some("trading"));
                let key = (label(rows.symbol, row).unwrap().to_owned(), since);
                if batch.diff(row) < 0 {
                    assert_eq!(table.remove(&key), Some(term), "a retraction takes back what was asserted");
                } else {
                    assert_eq!(table.insert(key, term), None, "an assertion replaces what was taken back");
                }
            }
        }
        letters
    }

    /// What the table should be, from the definition.
    fn recomputed(rows: &[Row]) -> (BTreeMap<(String, i64), Term>, usize) {
        let (mut table, mut letters) = (BTreeMap::new(), 0);
        for (instrument, symbol) in ["BTC-USDT", "ETH-USDT"].into_iter().enumerate() {
            let mut terms: Vec<Term> = Vec::new();
            for &(_, since, tick, trading) in rows.iter().filter(|row| usize::from(row.0) % 2 == instrument) {
                match terms.last().copied() {
                    Some((last, ..)) if since < last => letters += 1,
                    Some((_, _, before, traded)) if (before, traded) == (tick, trading) => {}
                    Some((last, ..)) => {
                        if since == last {
                            terms.pop();
                        }
                        terms.push((since, None, tick, trading));
                    }
                    None => terms.push((since, None, tick, trading)),
                }
            }
            for at in 1..terms.len() {
                terms[at - 1].1 = Some(terms[at].0);
            }
            table.extend(terms.into_iter().map(|term| ((symbol.to_owned(), term.0), term)));
        }
        (table, letters)
    }

    fn advance(time: u64) -> Advance {
        Advance { time, before: Micros::MIN, watermark: Micros::MIN, reached: Micros::MIN }
    }

    #[test]
    fn a_change_closes_the_row_and_opens_another() {
        let (mut ledger, mut table) = (Ledger::default(), BTreeMap::new());
        let mut out = Output::new("registry", Arc::new(Account::default()));
        let rows = [(0, 10, 1, true), (0, 20, 1, true), (1, 20, 5, true), (0, 30, 1, false), (0, 40, 2, false)];
        ledger.advance(&advance(1), vec![batch(&rows)], &mut out);
        assert_eq!(apply(&mut table, &mut out), 0);
        let of = |symbol: &str| table.iter().filter(|((known, _), _)| known == symbol).map(|(_, term)| *term).collect::<Vec<_>>();
        assert_eq!(of("BTC-USDT"), [(10, Some(30), 1, true), (30, Some(40), 1, false), (40, None, 2, false)]);
        assert_eq!(of("ETH-USDT"), [(20, None, 5, true)]);
        ledger.advance(&advance(2), vec![batch(&[(0, 35, 9, true)])], &mut out);
        assert_eq!((apply(&mut table, &mut out), table.len()), (1, 4), "what was replaced is settled");
    }

    proptest! {
        /// At every time the table is that of the definition, also where the state went through a checkpoint.
        #[test]
        fn the_table_is_that_of_the_definition(
            rows in proptest::collection::vec((0_u8..2, 0_i64..40, 1_i64..3, any::<bool>()), 0..60),
            cut in 0_usize..60,
        ) {
            let (mut ledger, mut table, mut letters) = (Ledger::default(), BTreeMap::new(), 0);
            let mut out = Output::new("registry", Arc::new(Account::default()));
            for at in 0..rows.len() {
                if at == cut {
                    let state = ledger.snapshot()();
                    ledger = Ledger::default();
                    ledger.restore(&state);
                }
                ledger.advance(&advance(at as u64), vec![batch(&rows[at..=at])], &mut out);
                letters += apply(&mut table, &mut out);
                let (expected, refused) = recomputed(&rows[..=at]);
                prop_assert_eq!((&table, letters), (&expected, refused));
            }
        }
    }
}
