//! `deduplicate`: of records that are the same, the first.
//!
//! Records are the same that have the same instrument and the same values in `key` (by default: what identifies a record of their kind), and follow
//! each other within `within`, by event time. The first of them goes on, unchanged, when the watermark has passed it: the earliest by event time; of
//! several at the same time, the one that came first. The others are left out, and each of them begins the time anew within which the next one
//! is the same. So what goes on depends on neither the order of arrival nor batches nor workers.
//!
//! # Time
//!
//! - **Late rows**, behind the watermark, are dead letters: whether they are the first cannot be known any more.
//! - **Corrections**: kinds that are revised are refused, since each of their keys has one record already.
//! - **Gaps**: event time waits for what a live source asks for, so that a record that is asked for twice goes on once.
//! - **Idle sources** hold nothing up (`idle` of the source).
//! - **State**: records that the watermark has not passed, and a key and a time for each that came within `within` before it.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use config::values::Duration;
use config::{Check, Checked, Component};
use hashbrown::HashMap;
use model::columns::label;
use model::kinds::DEAD_LETTER;
use model::time::Micros;
use model::{Batch, Kind, Origin, Type};
use schemars::JsonSchema;
use serde::Deserialize;
use twox_hash::XxHash64;

use crate::dataflow::{self, Route, Stage};
use crate::fault;
use crate::held::{Arrival, Arrivals, Row, gather, store, stored};
use crate::instruments::{Instruments, NONE, StateBuilder, is_state, read_state, states};
use crate::reorder::{Reorder, Timed};
use crate::{Advance, Context, Keyed, Operator, Output, Snapshot, Stream, inputs, rows};

/// Leaves out records that were there before.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deduplicate {
    /// How long after a record, by event time, another one is the same, e.g. `"1m"`.
    within: Duration,
    /// The columns that say whether two records of an instrument are the same. By default those that identify a record of its kind.
    #[serde(default)]
    key: Option<Vec<String>>,
    /// The kinds of record to look at; others do not pass. By default every kind that the inputs carry, except dead letters.
    #[serde(default)]
    kinds: Option<Vec<String>>,
}

impl Component<dyn Operator> for Deduplicate {
    const TYPE: &'static str = "deduplicate";
    const EXAMPLE: &'static str = r#"[operators.once]
type = "deduplicate"
inputs = ["trades"]
within = "5m"
"#;
    const MODULE: &'static str = include_str!("deduplicate.rs");

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        let kinds = inputs::of_instruments(cx, self.kinds.as_deref())?;
        let keys = kinds.iter().map(|kind| self.key(kind, cx)).collect();
        if cx.failed() {
            return None;
        }
        let outputs = kinds.iter().cloned().chain([DEAD_LETTER.clone()]).collect();
        Some(Checked { outputs, component: Arc::new(Deduplicating { keys, kinds, within: self.within.micros() }) })
    }
}

impl Deduplicate {
    /// The columns of a kind, beside the instrument, by which its records are told apart.
    fn key(&self, kind: &Kind, cx: &mut Check<'_>) -> Vec<usize> {
        let default: Vec<String> = kind.key.iter().skip(3).map(ToString::to_string).collect();
        let names = self.key.as_ref().unwrap_or(&default);
        if names.is_empty() {
            cx.error(&["key"], "no column tells records apart", "name some, e.g. `key = [\"trade_id\"]`");
        }
        let mut key = Vec::new();
        for name in names {
            match kind.columns.iter().position(|column| column.name == *name) {
                Some(at) if matches!(kind.columns[at].ty, Type::Decimals | Type::Float) => {
                    let message = format!("`{name}` of `{}` records is a {}", kind.name, kind.columns[at].ty);
                    cx.error(&["key"], message, "name columns whose values are the same or not");
                }
                Some(at) => key.push(at),
                None => {
                    let fault = fault::unknown_column(name, kind);
                    cx.error(&["key"], fault.message, fault.help);
                }
            }
        }
        key
    }
}

/// The checked operator.
#[derive(Debug)]
struct Deduplicating {
    kinds: Vec<Arc<Kind>>,
    keys: Vec<Vec<usize>>,
    within: Micros,
}

impl Operator for Deduplicating {
    fn build<'scope>(&self, input: Stream<'scope>, cx: &Context) -> Stream<'scope> {
        let names: Vec<&str> = self.kinds.iter().map(|kind| kind.name.as_ref()).collect();
        let logic = Deduplicator::new(self.kinds.clone(), self.keys.clone(), self.within);
        dataflow::keyed(input, cx, &names, Route::Instrument, Stage::ONLY, logic)
    }
}

/// What makes records the same: their kind, their instrument, and a hash of their key.
type Same = (usize, u32, u128);

/// A record that waits for the watermark.
#[derive(Clone, Debug)]
struct Waiting {
    time: Micros,
    arrival: Arrival,
    same: Same,
    row: Row,
}

impl Waiting {
    fn place(&self) -> (Micros, Arrival, Same) {
        (self.time, self.arrival, self.same)
    }
}

impl Timed for Waiting {
    fn time(&self) -> Micros {
        self.time
    }

    fn number(&self) -> u32 {
        self.same.1
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

/// The records of the instruments of a worker.
#[derive(Debug)]
struct Deduplicator {
    kinds: Vec<Arc<Kind>>,
    keys: Vec<Vec<usize>>,
    within: Micros,
    instruments: Instruments,
    reorder: Reorder<Waiting>,
    /// When a record of this kind and key was last there.
    last: HashMap<Same, Micros, ahash::RandomState>,
    /// The records that were there, by event time: those of before `within` are forgotten.
    there: VecDeque<(Micros, Same)>,
}

impl Deduplicator {
    fn new(kinds: Vec<Arc<Kind>>, keys: Vec<Vec<usize>>, within: Micros) -> Self {
        Deduplicator {
            kinds,
            keys,
            within,
            instruments: Instruments::default(),
            reorder: Reorder::default(),
            last: HashMap::default(),
            there: VecDeque::new(),
        }
    }

    /// Takes the rows of a batch in; `refuse` says of a row and its time that it cannot be.
    fn take(&mut self, batch: &Arc<Batch>, mut refuse: impl FnMut(usize, Option<Micros>) -> bool) -> usize {
        let kind = self.kinds.iter().position(|kind| kind.name == batch.kind.name).expect("only these kinds are consumed");
        let (times, arrivals) = (batch.kind.times(&batch.rows), Arrivals::of(batch));
        let (mut bytes, mut accepted) = (Vec::new(), 0);
        for (row, number) in self.instruments.resolve(&batch.rows).into_iter().enumerate() {
            let time = (number != NONE && times.is_valid(row)).then(|| times.value(row));
            if refuse(row, time) {
                continue;
            }
            let Some(time) = time else { continue };
            accepted += 1;
            bytes.clear();
            self.keys[kind].iter().for_each(|column| write(batch.rows.column(*column), row, &mut bytes));
            let (arrival, row) = (arrivals.at(row), Row { batch: batch.clone(), row });
            self.reorder.push(Waiting { time, arrival, same: (kind, number, hash(&bytes)), row });
        }
        accepted
    }

    /// Whether a record is the first of those that are the same. Records come in the order of event time.
    fn is_first(&mut self, time: Micros, same: Same) -> bool {
        while let Some((then, gone)) = self.there.pop_front_if(|(then, _)| time.saturating_sub(*then) > self.within) {
            // Another one may have come since.
            if self.last.get(&gone) == Some(&then) {
                self.last.remove(&gone);
            }
        }
        self.there.push_back((time, same));
        self.last.insert(same, time).is_none()
    }
}

/// Appends a value such that no two rows with other values have the same bytes.
fn write(column: &dyn Array, row: usize, bytes: &mut Vec<u8>) {
    let mut put = |value: &[u8]| {
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        bytes.extend_from_slice(value);
    };
    if column.is_null(row) {
        return bytes.extend_from_slice(&u64::MAX.to_le_bytes());
    }
    match column.data_type() {
        DataType::Dictionary(..) => put(label(column.as_dictionary::<Int32Type>(), row).unwrap_or_default().as_bytes()),
        DataType::Utf8 => put(column.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => put(column.as_binary::<i32>().value(row)),
        DataType::Int64 => put(&column.as_primitive::<Int64Type>().value(row).to_le_bytes()),
        DataType::Timestamp(..) => put(&column.as_primitive::<TimestampMicrosecondType>().value(row).to_le_bytes()),
        DataType::Decimal128(..) => put(&column.as_primitive::<Decimal128Type>().value(row).to_le_bytes()),
        DataType::Boolean => put(&[column.as_boolean().value(row).into()]),
        other => unreachable!("the check lets no {other} pass"),
    }
}

/// 128 bits, the same in every version: checkpoints hold them.
fn hash(bytes: &[u8]) -> u128 {
    u128::from(XxHash64::oneshot(1, bytes)) << 64 | u128::from(XxHash64::oneshot(0, bytes))
}

impl Keyed for Deduplicator {
    fn advance(&mut self, advance: &Advance, batches: Vec<Batch>, out: &mut Output) {
        let origin = batches.last().map_or(Origin::default(), |batch| batch.origin);
        for batch in batches.into_iter().map(Arc::new) {
            let accepted = self.take(&batch, |row, time| {
                match time {
                    None => rows::bury(&batch, row, "malformed", "it has no time, or names no instrument", advance.time, out),
                    Some(time) if time < advance.before => rows::late(&batch, row, advance, out),
                    Some(_) => return false,
                }
                true
            });
            out.account().accept(accepted);
        }
        let mut first = self.reorder.release(advance.watermark);
        first.retain(|waiting| self.is_first(waiting.time, waiting.same));
        for (kind, rows) in gather(first.iter().map(|waiting| &waiting.row)) {
            out.emit(Batch::new(&kind, rows, origin));
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let (instruments, kinds, there) = (self.instruments.groups(), self.kinds.clone(), self.there.clone());
        let waiting = self.reorder.held();
        Box::new(move || {
            let mut of: HashMap<(u32, usize), Vec<(Micros, u128)>> = HashMap::default();
            for (time, (kind, number, key)) in there {
                of.entry((number, kind)).or_default().push((time, key));
            }
            let groups = instruments.map(|group| {
                let mut rows = StateBuilder::default();
                for (number, instrument) in group.iter() {
                    for (at, kind) in kinds.iter().enumerate() {
                        if let Some(there) = of.remove(&(number, at)) {
                            rows.push(instrument, &kind.name, &there);
                        }
                    }
                }
                rows.finish()
            });
            groups.collect::<Vec<_>>().into_iter().chain(store(waiting.values().flatten().map(|waiting| &waiting.row))).collect()
        })
    }

    fn restore(&mut self, state: &[RecordBatch]) {
        let (known, waiting): (Vec<RecordBatch>, Vec<RecordBatch>) = state.iter().cloned().partition(is_state);
        let mut there = Vec::new();
        states(&known, &mut self.instruments, |number, kind, bytes| {
            let Some(kind) = self.kinds.iter().position(|known| known.name == kind) else { return };
            let of_kind: Vec<(Micros, u128)> = read_state(bytes);
            there.extend(of_kind.into_iter().map(|(time, key)| (time, (kind, number, key))));
        });
        there.sort_unstable();
        self.last = there.iter().map(|(time, same)| (*same, *time)).collect();
        self.there = there.into();
        for batch in waiting.iter().filter_map(|rows| stored(rows, &self.kinds)).collect::<Vec<_>>() {
            self.take(&batch, |_, _| false);
        }
    }
}

#[cfg(test)]
mod tests {
    use config::component;
    use model::kinds::{BAR, BOOK_SNAPSHOT, TRADE};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Trade, comes, play};

    /// The trades that are the first, from the definition: no other of the same id is within 10 ms before it.
    fn first(trades: &[Trade]) -> Vec<Trade> {
        let place = |trade: &Trade| (trade.millis, trade.frame);
        let is_before = |one: &Trade, other: &Trade| {
            (one.symbol, one.id) == (other.symbol, other.id) && place(one) < place(other) && other.millis - one.millis <= 10
        };
        let mut first: Vec<Trade> = trades.iter().filter(|trade| !trades.iter().any(|other| is_before(other, trade))).copied().collect();
        first.sort_by_key(place);
        first
    }

    proptest! {
        /// However records come within the disorder, in whatever batches, and whenever the state goes through a checkpoint.
        #[test]
        fn the_first_of_each_goes_on(
            trades in proptest::collection::vec((0_u8..2, 0_i64..100, 0_i64..6), 0..80),
            shuffle in proptest::collection::vec(any::<u32>(), 80),
            (chunk, cut) in (1_usize..20, 0_usize..12),
        ) {
            let trades: Vec<Trade> = (0..).zip(trades).map(|(frame, (symbol, millis, id))| Trade { symbol, millis, id, frame }).collect();
            let key = TRADE.columns.iter().position(|column| column.name == "trade_id").unwrap();
            let make = || Deduplicator::new(vec![TRADE.clone()], vec![vec![key]], 10_000);
            let (passed, late) = play(make, &comes(&trades, &shuffle), chunk, cut);
            prop_assert_eq!((passed, late), (first(&trades), 0));
        }
    }

    #[test]
    fn what_comes_behind_the_watermark_is_late() {
        let key = TRADE.columns.iter().position(|column| column.name == "trade_id").unwrap();
        let make = || Deduplicator::new(vec![TRADE.clone()], vec![vec![key]], 10_000);
        let trade = |frame, millis, id| Trade { symbol: 0, millis, id, frame };
        let trades = [trade(0, 100, 1), trade(1, 50, 2), trade(2, 104, 1), trade(3, 115, 1)];
        // The watermark is 20 ms behind: with the second, at 80.
        assert_eq!(play(make, &trades, 1, 99), (vec![trade(0, 100, 1), trade(3, 115, 1)], 1));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let check = |options: &str, kind: &Arc<Kind>| component::<dyn Operator, Deduplicate>(options, std::slice::from_ref(kind)).map(drop);
        assert_eq!(check("within = '1m'", &TRADE), Ok(()));
        assert_eq!(check("within = '1m'\nkey = ['price', 'quantity', 'side']", &TRADE), Ok(()));
        let refused = |options: &str, kind: &Arc<Kind>| check(options, kind).unwrap_err();
        assert_eq!(refused("within = '1m'", &BAR), "kinds: `bar` records are revised: each key has one record already, its last");
        assert_eq!(refused("within = '1m'\nkey = ['prize']", &TRADE), "key: there is no column `prize`");
        assert_eq!(refused("within = '1m'\nkey = []", &TRADE), "key: no column tells records apart");
        assert!(refused("within = '1m'\nkey = ['bid_prices']", &BOOK_SNAPSHOT).contains("`bid_prices` of `book_snapshot` records is a"));
    }
}
