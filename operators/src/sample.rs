//! `sample`: of the records of a span of time, the last or the first.
//!
//! Spans have the length of `every` and are aligned to 1970-01-01T00:00Z. Of each kind and instrument one record of a span goes on, unchanged: the
//! last by event time, or the first; of several at the same time the one that came last, or first. It goes on when the watermark has passed the
//! end of the span, so it depends on neither the order of arrival nor batches nor workers. A span without records gives none.
//!
//! # Time
//!
//! - **Late rows**: a record whose span was given is a dead letter.
//! - **Corrections**: kinds that are revised are refused. Sample first, and make of the samples what is revised.
//! - **Gaps**: event time waits for what a live source asks for; what is lost is not there to be chosen.
//! - **Idle sources** do not hold samples up (`idle` of the source).
//! - **State**: one record for each kind, instrument and open span.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use config::values::Duration;
use config::{Check, Checked, Component};
use hashbrown::HashMap;
use model::kinds::DEAD_LETTER;
use model::time::Micros;
use model::{Batch, Kind, Origin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataflow::{self, Route, Stage};
use crate::held::{Arrival, Arrivals, Row, gather, store, stored};
use crate::instruments::{Instruments, NONE};
use crate::{Advance, Context, Keyed, Operator, Output, Snapshot, Stream, inputs, rows};

/// Keeps one record of each kind, instrument and span of time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The length of a span, e.g. `"1s"`.
    every: Duration,
    /// Which record of a span goes on.
    #[serde(default)]
    keep: Keep,
    /// The kinds of record to look at; others do not pass. By default every kind that the inputs carry, except dead letters.
    #[serde(default)]
    kinds: Option<Vec<String>>,
}

/// Which record of a span goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The last: how things stood at the end of the span.
    #[default]
    Last,
    /// The first.
    First,
}

impl Component<dyn Operator> for Sample {
    const TYPE: &'static str = "sample";
    const EXAMPLE: &'static str = r#"[operators.quotes_1s]
type = "sample"
inputs = ["records"]
kinds = ["quote"]
every = "1s"
"#;
    const MODULE: &'static str = include_str!("sample.rs");

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        if self.every.micros() == 0 {
            cx.error(&["every"], "a span has no length", "name one, e.g. `every = \"1s\"`");
        }
        let kinds = inputs::of_instruments(cx, self.kinds.as_deref())?;
        let outputs = kinds.iter().cloned().chain([DEAD_LETTER.clone()]).collect();
        Some(Checked { outputs, component: Arc::new(Sampling { kinds, every: self.every.micros(), keep: self.keep }) })
    }
}

/// The checked operator.
#[derive(Debug)]
struct Sampling {
    kinds: Vec<Arc<Kind>>,
    every: Micros,
    keep: Keep,
}

impl Operator for Sampling {
    fn build<'scope>(&self, input: Stream<'scope>, cx: &Context) -> Stream<'scope> {
        let names: Vec<&str> = self.kinds.iter().map(|kind| kind.name.as_ref()).collect();
        let sampler = Sampler::new(self.kinds.clone(), self.every, self.keep);
        dataflow::keyed(input, cx, &names, Route::Instrument, Stage::ONLY, sampler)
    }
}

/// The records that would go on, on one worker.
#[derive(Debug)]
struct Sampler {
    kinds: Vec<Arc<Kind>>,
    every: Micros,
    keep: Keep,
    instruments: Instruments,
    /// By the start of the span.
    open: BTreeMap<Micros, Span>,
    /// Rows of the batches that something may be held of.
    held: usize,
}

/// The record of each kind and instrument, by their numbers.
type Span = HashMap<(usize, u32), (Place, Row), ahash::RandomState>;

/// Where a record is among those of its span.
type Place = (Micros, Arrival);

impl Sampler {
    /// Rows that are held at least before those that are needed are parted from the others.
    const ENOUGH: usize = 65_536;

    fn new(kinds: Vec<Arc<Kind>>, every: Micros, keep: Keep) -> Self {
        Sampler { kinds, every, keep, instruments: Instruments::default(), open: BTreeMap::new(), held: 0 }
    }

    /// Takes the rows of a batch in; `refuse` gets those that cannot be, and says whether a time is late.
    fn take(&mut self, batch: &Arc<Batch>, mut refuse: impl FnMut(usize, Option<Micros>) -> bool) -> usize {
        let kind = self.kinds.iter().position(|kind| kind.name == batch.kind.name).expect("only these kinds are consumed");
        let (times, arrivals) = (batch.kind.times(&batch.rows), Arrivals::of(batch));
        let mut accepted = 0;
        for (row, number) in self.instruments.resolve(&batch.rows).into_iter().enumerate() {
            let time = (number != NONE && times.is_valid(row)).then(|| times.value(row));
            let start = time.map(|time| time.div_euclid(self.every) * self.every);
            if refuse(row, start.map(|start| start.saturating_add(self.every))) {
                continue;
            }
            let (Some(time), Some(start)) = (time, start) else { continue };
            accepted += 1;
            let (place, row) = ((time, arrivals.at(row)), || Row { batch: batch.clone(), row });
            let best = self.open.entry(start).or_default().entry((kind, number)).or_insert_with(|| (place, row()));
            let is_better = match self.keep {
                Keep::Last => place > best.0,
                Keep::First => place < best.0,
            };
            if is_better {
                *best = (place, row());
            }
        }
        self.held += batch.len();
        accepted
    }

    /// Parts what is needed from the batches that it came with, once these are much more.
    fn compact(&mut self) {
        let needed: usize = self.open.values().map(HashMap::len).sum();
        if self.held <= Self::ENOUGH.max(4 * needed) {
            return;
        }
        for kind in 0..self.kinds.len() {
            let of_kind = |span: &Span| span.iter().filter(|((of, _), _)| *of == kind).map(|(key, _)| *key).collect::<Vec<_>>();
            let keys: Vec<(Micros, (usize, u32))> =
                self.open.iter().flat_map(|(start, span)| of_kind(span).into_iter().map(move |key| (*start, key))).collect();
            let Some((of, rows)) = gather(keys.iter().map(|(start, key)| &self.open[start][key].1)).pop() else { continue };
            let batch = Arc::new(Batch::new(&of, rows, Origin::default()));
            for (row, (start, key)) in keys.into_iter().enumerate() {
                let held = self.open.get_mut(&start).and_then(|span| span.get_mut(&key)).expect("it was gathered");
                held.1 = Row { batch: batch.clone(), row };
            }
        }
        self.held = needed;
    }
}

impl Keyed for Sampler {
    fn advance(&mut self, advance: &Advance, batches: Vec<Batch>, out: &mut Output) {
        let origin = batches.last().map_or(Origin::default(), |batch| batch.origin);
        for batch in batches.into_iter().map(Arc::new) {
            let accepted = self.take(&batch, |row, end| {
                match end {
                    None => rows::bury(&batch, row, "malformed", "it has no time, or names no instrument", advance.time, out),
                    Some(end) if end <= advance.before => rows::late(&batch, row, advance, out),
                    Some(_) => return false,
                }
                true
            });
            out.account().accept(accepted);
        }
        let later = self.open.split_off(&advance.watermark.saturating_sub(self.every).saturating_add(1));
        let mut due: Vec<_> = std::mem::replace(&mut self.open, later).into_values().flat_map(HashMap::into_values).collect();
        due.sort_by_key(|(place, _)| *place);
        for (kind, rows) in gather(due.iter().map(|(_, row)| row)) {
            out.emit(Batch::new(&kind, rows, origin));
        }
        self.compact();
    }

    fn delay(&self) -> Micros {
        self.every
    }

    fn snapshot(&mut self) -> Snapshot {
        let held: Vec<Row> = self.open.values().flat_map(HashMap::values).map(|(_, row)| row.clone()).collect();
        Box::new(move || store(&held))
    }

    fn restore(&mut self, state: &[RecordBatch]) {
        for batch in state.iter().filter_map(|rows| stored(rows, &self.kinds)).collect::<Vec<_>>() {
            self.take(&batch, |_, _| false);
        }
    }
}

#[cfg(test)]
mod tests {
    use config::component;
    use model::kinds::{BAR, DEAD_LETTER, QUOTE, TRADE};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Trade, comes, play};

    /// The samples of 10 ms, from the definition, by event time.
    fn samples(trades: &[Trade], keep: Keep) -> Vec<Trade> {
        let place = |trade: &Trade| (trade.millis, trade.frame);
        let is_beside = |one: &Trade, other: &Trade| (one.symbol, one.millis / 10) == (other.symbol, other.millis / 10);
        let is_better = |one: &Trade, other: &Trade| if keep == Keep::Last { place(one) > place(other) } else { place(one) < place(other) };
        let best = |trade: &&Trade| !trades.iter().any(|other| is_beside(other, trade) && is_better(other, trade));
        let mut samples: Vec<Trade> = trades.iter().filter(best).copied().collect();
        samples.sort_by_key(place);
        samples
    }

    proptest! {
        /// However records come within the disorder, in whatever batches, and whenever the state goes through a checkpoint.
        #[test]
        fn one_of_each_span_goes_on(
            trades in proptest::collection::vec((0_u8..2, 0_i64..100), 0..80),
            shuffle in proptest::collection::vec(any::<u32>(), 80),
            (chunk, cut, last) in (1_usize..20, 0_usize..12, any::<bool>()),
        ) {
            let keep = if last { Keep::Last } else { Keep::First };
            let trades: Vec<Trade> = (0..).zip(trades).map(|(frame, (symbol, millis))| Trade { symbol, millis, id: frame, frame }).collect();
            let make = || Sampler::new(vec![TRADE.clone()], 10_000, keep);
            let (mut passed, late) = play(make, &comes(&trades, &shuffle), chunk, cut);
            passed.sort_by_key(|trade| (trade.millis, trade.frame));
            prop_assert_eq!((passed, late), (samples(&trades, keep), 0));
        }
    }

    #[test]
    fn a_span_that_was_given_is_over() {
        let trade = |frame, millis| Trade { symbol: 0, millis, id: frame, frame };
        let make = || Sampler::new(vec![TRADE.clone()], 10_000, Keep::Last);
        // The watermark is 20 ms behind: at 85 with the first, so the span of the second is over and that of the third is not.
        let trades = [trade(0, 105), trade(1, 79), trade(2, 81)];
        assert_eq!(play(make, &trades, 1, 99), (vec![trade(2, 81), trade(0, 105)], 1));
    }

    /// However much passes, no more is held than is needed, and a little.
    #[test]
    fn what_is_not_needed_is_not_held() {
        let mut sampler = Sampler::new(vec![TRADE.clone()], 3_600_000_000, Keep::Last);
        let mut out = Output::new("sample", Arc::new(model::Account::default()));
        let advance = Advance { time: 1, before: Micros::MIN, watermark: Micros::MIN, reached: Micros::MIN };
        let rows: Vec<Trade> = (0..1_000).map(|frame| Trade { symbol: 0, millis: frame, id: frame, frame }).collect();
        for chunk in 0..200 {
            sampler.advance(&advance, vec![crate::testing::batch(&rows, chunk)], &mut out);
            assert!(sampler.held <= Sampler::ENOUGH, "{}", sampler.held);
        }
        assert_eq!(sampler.open.values().map(HashMap::len).sum::<usize>(), 1);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let check =
            |options: &str, kinds: &[Arc<Kind>]| component::<dyn Operator, Sample>(options, kinds).map(|checked| checked.outputs.len());
        assert_eq!(check("every = '1s'", &[TRADE.clone(), QUOTE.clone(), DEAD_LETTER.clone()]), Ok(3));
        assert_eq!(check("every = '0s'", std::slice::from_ref(&TRADE)).unwrap_err(), "every: a span has no length");
        let revised = check("every = '1s'", &[TRADE.clone(), BAR.clone()]).unwrap_err();
        assert_eq!(revised, "kinds: `bar` records are revised: each key has one record already, its last");
    }
}
