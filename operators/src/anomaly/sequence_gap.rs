//! `sequence_gap`: numbers that are missing in a sequence.
//!
//! Trade ids of an instrument are dense on the venues that number their trades (Binance): each is the one before
//! plus one. A hole is reported once the watermark has passed the trade behind it, because what could still fill it
//! in time would have come by then; so neither disorder nor duplicates matter. A trade that comes late is not missing
//! either: unless its hole was told before, it fills it. Ids that are no numbers are not
//! looked at. Gaps in the chain of a book's deltas are told by the book itself, in its `gap` events.

use std::collections::BTreeSet;

use config::Check;
use model::columns::{integer, label};
use model::kinds::{BookEventRows, TRADE, TradeRows};
use model::time::Micros;
use model::{Decimal, Progress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::findings::{Finding, Findings, State};
use super::{Detector, Options, Place, Rows, Saved};
use crate::cause::Cause;
use crate::instruments::read_state;
use crate::pages::Pages;

/// The detector's name.
pub const NAME: &str = "sequence_gap";

/// The most holes that are open at once for an instrument; beyond it the lowest is reported at once.
const MOST: usize = 10_000;

/// Options of `sequence_gap`: missing trade ids, and missing updates of rebuilt books.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SequenceGap {
    /// Report only gaps of at least so many missing numbers. Default: every gap.
    min_missing: Option<u32>,
}

impl Options for SequenceGap {
    fn check(&self, at: &Place, cx: &mut Check<'_>) {
        if self.min_missing == Some(0) {
            at.error(cx, "min_missing", "`min_missing` is 0", "name at least 1: a gap misses a number");
        }
    }

    fn detector(&self, _: &[&'static str]) -> Box<dyn Detector> {
        Box::new(Gaps { least: i128::from(self.min_missing.unwrap_or(1)), tracks: Pages::default(), open: BTreeSet::new() })
    }
}

/// A trade that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    id: i64,
    time: Micros,
    cause: Cause,
}

/// Ids that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hole {
    first: i64,
    last: i64,
    /// The trade right behind it.
    above: Seen,
}

/// What is known of an instrument's ids.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Track {
    low: Seen,
    high: Seen,
    /// By id.
    holes: Vec<Hole>,
}

/// The detector.
#[derive(Debug)]
struct Gaps {
    least: i128,
    tracks: Pages<Option<Track>>,
    /// The instruments with holes.
    open: BTreeSet<u32>,
}

impl Detector for Gaps {
    fn observe(&mut self, rows: &Rows<'_>, findings: &mut Findings<'_>) {
        if rows.batch.kind.name == TRADE.name {
            let trades = TradeRows::of(&rows.batch.rows).expect("these are trades");
            for row in rows.usable.iter().chain(rows.late).map(|row| *row as usize) {
                if let Ok(id) = trades.trade_id.value(row).parse() {
                    self.see(rows.numbers[row], Seen { id, time: trades.event_time.value(row), cause: rows.causes.at(row) }, findings);
                }
            }
        } else {
            let events = BookEventRows::of(&rows.batch.rows).expect("these are book events");
            for (row, number, cause) in rows.iter().filter(|(row, ..)| label(events.event, *row) == Some("gap")) {
                let (expected, came) = (integer(events.expected_sequence, row), integer(events.sequence, row));
                let (Some(expected), Some(came)) = (expected, came) else { continue };
                let (missing, finding) = gap("book_delta", cause, expected, came);
                // A break in the chain that misses nothing by its numbers is told whatever `min_missing` says.
                if missing <= 0 || missing >= self.least {
                    findings.push(number, Finding { detail: format_args!("{}", events.detail.value(row)), ..finding });
                }
            }
        }
    }

    fn settle(&mut self, watermark: Micros, findings: &mut Findings<'_>) {
        let passed = |hole: &Hole| hole.above.time < watermark || watermark == Progress::END;
        for number in std::mem::take(&mut self.open) {
            let known = self.tracks.get(number as usize).and_then(Option::as_ref);
            if known.is_some_and(|track| track.holes.iter().any(passed))
                && let Some(track) = self.tracks.entry(number as usize)
            {
                let passed: Vec<Hole> = track.holes.extract_if(.., |hole| passed(hole)).collect();
                passed.iter().for_each(|hole| self.hole(number, hole, findings));
            }
            self.note(number);
        }
    }

    fn snapshot(&mut self) -> Saved {
        let mut tracks = self.tracks.snapshot().into_groups();
        Box::new(move |group, states| {
            let tracks = tracks.next().unwrap_or_default();
            for ((_, instrument), track) in group.iter().zip(tracks.iter()) {
                if let Some(track) = track {
                    states.push(instrument, NAME, track);
                }
            }
        })
    }

    fn load(&mut self, number: u32, state: &[u8]) {
        *self.tracks.entry(number as usize) = Some(read_state(state));
        self.note(number);
    }
}

impl Gaps {
    /// Whether an instrument has holes.
    fn note(&mut self, number: u32) {
        if self.tracks.get(number as usize).and_then(Option::as_ref).is_some_and(|track| !track.holes.is_empty()) {
            self.open.insert(number);
        }
    }

    fn see(&mut self, number: u32, seen: Seen, findings: &mut Findings<'_>) {
        let known = self.tracks.entry(number as usize);
        let Some(track) = known else {
            *known = Some(Track { low: seen, high: seen, holes: Vec::new() });
            return;
        };
        let before = track.high;
        let sight = track.see(seen, findings.before());
        if !track.holes.is_empty() {
            self.open.insert(number);
        }
        match sight {
            Sight::Fits => {}
            Sight::Crowded(hole) => self.hole(number, &hole, findings),
            Sight::Restart => {
                let (_, finding) = gap("trade", seen.cause, before.id.saturating_add(1), seen.id);
                findings.push(
                    number,
                    Finding { detail: format_args!("trade ids began anew: {} came after {}", seen.id, before.id), ..finding },
                );
            }
        }
    }

    /// Reports a hole that nothing can fill any more.
    fn hole(&self, number: u32, hole: &Hole, findings: &mut Findings<'_>) {
        let (missing, finding) = gap("trade", hole.above.cause, hole.first, hole.above.id);
        if missing >= self.least {
            findings.push(
                number,
                Finding { detail: format_args!("missing trade ids: {} to {}, {missing} in all", hole.first, hole.last), ..finding },
            );
        }
    }
}

/// The numbers from `expected` up to, but without, `came` are missing: how many, and what to report.
fn gap(channel: &str, cause: Cause, expected: i64, came: i64) -> (i128, Finding<'_>) {
    let missing = i128::from(came) - i128::from(expected);
    let finding = Finding {
        anomaly: NAME,
        channel,
        cause,
        observed: Some(Decimal::from_integer(came)),
        expected: Some(Decimal::from_integer(expected)),
        score: (missing > 0).then_some(missing as f64),
        threshold: Some(1.0),
        window: None,
        first: (missing > 0).then_some(expected),
        last: (missing > 0).then(|| came - 1),
        state: State::Open,
        detail: format_args!(""),
    };
    (missing, finding)
}

/// What a trade's id means.
enum Sight {
    /// It continues the sequence, opens a hole, fills one or was seen before.
    Fits,
    /// It opens a hole too many: this one cannot wait for the watermark.
    Crowded(Hole),
    /// Ids begin anew.
    Restart,
}

impl Track {
    fn see(&mut self, seen: Seen, before: Micros) -> Sight {
        let id = seen.id;
        if id > self.high.id {
            if id - 1 > self.high.id {
                self.holes.push(Hole { first: self.high.id + 1, last: id - 1, above: seen });
            }
            self.high = seen;
        } else if id < self.low.id {
            if self.low.time < before {
                // What comes in time and lies below what is settled is not the past but a new beginning.
                if seen.time > self.high.time {
                    *self = Track { low: seen, high: seen, holes: Vec::new() };
                    return Sight::Restart;
                }
                return Sight::Fits;
            }
            if id + 1 < self.low.id {
                self.holes.insert(0, Hole { first: id + 1, last: self.low.id - 1, above: self.low });
            }
            self.low = seen;
        } else {
            self.fill(seen);
        }
        if self.holes.len() > MOST { Sight::Crowded(self.holes.remove(0)) } else { Sight::Fits }
    }

    /// Takes an id out of the hole that it lies in, if it lies in one.
    fn fill(&mut self, seen: Seen) {
        let at = self.holes.partition_point(|hole| hole.last < seen.id);
        let Some(hole) = self.holes.get(at).copied().filter(|hole| hole.first <= seen.id) else { return };
        let below = (hole.first < seen.id).then(|| Hole { first: hole.first, last: seen.id - 1, above: seen });
        let above = (seen.id < hole.last).then(|| Hole { first: seen.id + 1, ..hole });
        self.holes.splice(at..=at, below.into_iter().chain(above));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{Rig, event, trade};
    use super::*;

    fn run(ids: &[i64]) -> Vec<(Option<i64>, Option<i64>, Option<f64>)> {
        let mut rig = Rig::new("sequence_gap = {}");
        rig.trades = ids.iter().map(|id| trade("A", *id * 10, *id, "1")).collect();
        rig.finish();
        rig.found().iter().map(|f| (f.first, f.last, f.score)).collect()
    }

    #[test]
    fn holes_are_found_whatever_the_order() {
        assert_eq!(run(&[1, 2, 3, 4]), []);
        assert_eq!(run(&[1, 2, 5, 6, 8]), [(Some(3), Some(4), Some(2.0)), (Some(7), Some(7), Some(1.0))]);
        assert_eq!(run(&[8, 2, 6, 1, 5, 6, 5]), [(Some(3), Some(4), Some(2.0)), (Some(7), Some(7), Some(1.0))]);
        assert_eq!(run(&[5, 3, 1, 4, 2]), []);
        assert_eq!(run(&[10, 20, 15, 12, 18, 11, 13, 14]), [(Some(16), Some(17), Some(2.0)), (Some(19), Some(19), Some(1.0))]);
    }

    #[test]
    fn a_hole_is_told_when_the_watermark_has_passed_it_and_with_the_trade_behind_it() {
        let mut rig = Rig::new("sequence_gap = {}");
        rig.trades = vec![trade("A", 10, 1, "1"), trade("A", 40, 4, "1")];
        rig.advance(40);
        assert_eq!(rig.found().len(), 0, "a trade of the same time may still fill it");
        rig.trades = vec![trade("A", 40, 3, "1")];
        rig.advance(41);
        let found = rig.found();
        assert_eq!(found.len(), 1);
        let gap = &found[0];
        assert_eq!(
            (gap.first, gap.last, gap.observed.as_deref(), gap.expected.as_deref(), gap.frame),
            (Some(2), Some(2), Some("3"), Some("2"), Some(3))
        );
        assert_eq!(
            (gap.anomaly.as_str(), gap.channel.as_str(), gap.state.as_str(), gap.event_time),
            ("sequence_gap", "trade", "open", Some(40))
        );
        assert_eq!(gap.detail, "missing trade ids: 2 to 2, 1 in all");
        // What fills it now is late: counted, kept, and the gap stands.
        rig.trades = vec![trade("A", 20, 2, "1")];
        rig.finish();
        assert_eq!((rig.found().len(), rig.late()), (1, 1));
    }

    #[test]
    fn a_late_trade_is_not_missing() {
        let mut rig = Rig::new("sequence_gap = {}");
        rig.trades = vec![trade("A", 10, 1, "1")];
        rig.advance(50);
        rig.trades = vec![trade("A", 40, 2, "1"), trade("A", 60, 3, "1"), trade("A", 70, 5, "1")];
        rig.advance(65);
        rig.trades = vec![trade("A", 61, 4, "1")];
        rig.finish();
        assert_eq!((rig.found().len(), rig.late()), (0, 2));
    }

    #[test]
    fn ids_that_begin_anew_are_told_once() {
        let mut rig = Rig::new("sequence_gap = {}");
        rig.trades = vec![trade("A", 10, 1000, "1"), trade("A", 20, 1001, "1")];
        rig.advance(30);
        rig.trades = vec![trade("A", 40, 1, "1"), trade("A", 50, 2, "1"), trade("A", 60, 3, "1")];
        rig.finish();
        let found = rig.found();
        assert_eq!(found.iter().map(|f| f.detail.as_str()).collect::<Vec<_>>(), ["trade ids began anew: 1 came after 1001"]);
    }

    #[test]
    fn ids_that_are_no_numbers_or_extreme_are_no_trouble() {
        let mut rig = Rig::new("sequence_gap = {}");
        let mut odd = trade("A", 10, 1, "1");
        odd.id = "0x7f-a".into();
        rig.trades = vec![odd, trade("A", 20, i64::MIN, "1"), trade("A", 30, i64::MAX, "1"), trade("A", 30, 0, "1")];
        rig.finish();
        assert_eq!(rig.found().len(), 2);
    }

    #[test]
    fn gaps_of_books_are_taken_over() {
        let mut rig = Rig::new("sequence_gap = { min_missing = 2 }");
        rig.events = vec![
            event("A", 5, "gap", Some(11), Some(15)),
            event("A", 6, "buffering", None, None),
            event("A", 7, "gap", Some(11), Some(12)),
            event("A", 8, "gap", Some(11), Some(9)),
        ];
        rig.finish();
        let found = rig.found();
        assert_eq!(
            found.iter().map(|f| (f.channel.as_str(), f.first, f.last)).collect::<Vec<_>>(),
            [("book_delta", Some(11), Some(14)), ("book_delta", None, None)]
        );
        assert_eq!(found[0].detail, "told by the book");
    }

    #[test]
    fn open_holes_are_bounded() {
        let mut rig = Rig::new("sequence_gap = {}");
        rig.trades = (0..=MOST as i64 + 1).map(|i| trade("A", 100, 2 * i, "1")).collect();
        rig.advance(50);
        assert_eq!(rig.found().len(), 1);
        rig.finish();
        assert_eq!(rig.found().len(), MOST + 1);
    }

    proptest! {
        /// Trades lost, repeated and shuffled within the watermark: each lost id is in exactly one gap, and no other.
        #[test]
        fn exactly_what_is_lost_is_found(
            fates in proptest::collection::vec((0_u8..8, 0_i64..6), 2..150),
            chunk in 1_usize..20,
        ) {
            let (mut sent, mut lost) = (Vec::new(), Vec::new());
            let last = fates.len() as i64;
            for (id, (fate, delay)) in (1_i64..).zip(fates) {
                match fate {
                    0 if id > 1 && id < last => lost.push(id),
                    1 => sent.extend([(id + delay, id), (id + 5, id)]),
                    _ => sent.push((id + delay, id)),
                }
            }
            sent.sort();
            let trades: Vec<_> = sent.into_iter().map(|(_, id)| trade("A", id * 10, id, "1")).collect();
            let mut rig = Rig::new("sequence_gap = {}");
            rig.feed_within_watermark(&trades, chunk);
            prop_assert_eq!(rig.late(), 0);
            let mut found: Vec<i64> = rig.found().iter().flat_map(|f| f.first.unwrap()..=f.last.unwrap()).collect();
            found.sort_unstable();
            prop_assert_eq!(found, lost);
        }
    }
}
