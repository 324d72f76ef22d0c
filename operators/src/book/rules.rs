//! When a delta continues a book: the venues' rules, in one place.
//!
//! A delta says that it changes the book from one update number to another. There are two ways to say so:
//!
//! | chain | delta carries | after a snapshot S | after a delta u' | venues |
//! |---|---|---|---|---|
//! | contiguous | U..=u | drop u ≤ S; first U ≤ S+1 ≤ u | U ≤ u'+1 | Binance spot, Bybit and Kraken futures (U = u) |
//! | linked | U..=u and the update before it, pu | drop u < S; first U ≤ S ≤ u, or pu = S | pu = u' | Binance USD-M and COIN-M, Deribit, OKX |
//!
//! A delta with nothing new (u ≤ u') is a duplicate on both. A contiguous delta may overlap the book: levels
//! are absolute sizes, so a delta that begins earlier and ends later leaves the right book, and what it repeats
//! is no loss. A linked delta names its predecessor, so any other predecessor breaks the chain; that pu = S may
//! follow a snapshot is the same rule, needed where the delta that ends at S itself was not seen. A linked delta that names the
//! book as its predecessor follows it even if its own number is smaller: OKX begins to count anew that way, after maintenance.
//! Kraken's futures number their changes one by one, so U = u. Its spot market numbers none, and has no rule here.
//! Which chain it is follows from the record: linked where `previous_sequence` is present.
//!
//! A snapshot with a smaller number than the book's came late and is of no use, unless the venue has begun to count anew:
//! [`begins_anew`].

use model::time::Micros;
use serde::{Deserialize, Serialize};

/// The update numbers of a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first update in it (U).
    pub first: i64,
    /// The last update in it (u).
    pub last: i64,
    /// The update that it follows (pu), on linked chains.
    pub previous: Option<i64>,
}

/// How a delta relates to a book at some update number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It has nothing new.
    Stale,
    /// It continues the book.
    Follows,
    /// Updates are missing between the book and it.
    Gap {
        /// The first update that is missing: the one after the book's.
        expected: i64,
        /// The first update that is there again.
        came: i64,
    },
}

impl Span {
    /// How this delta fits a book that is a snapshot at `sequence`.
    pub fn after_snapshot(&self, sequence: i64) -> Fit {
        match self.previous {
            None => self.after_delta(sequence),
            Some(_) if self.counts_anew(sequence) => Fit::Follows,
            Some(_) if self.last < sequence => Fit::Stale,
            Some(previous) if self.first <= sequence || previous == sequence => Fit::Follows,
            Some(previous) => Fit::gap(sequence, previous.saturating_add(1)),
        }
    }

    /// How this delta fits a book whose last delta ended at `sequence`.
    pub fn after_delta(&self, sequence: i64) -> Fit {
        if self.counts_anew(sequence) {
            return Fit::Follows;
        }
        if self.last <= sequence {
            return Fit::Stale;
        }
        match self.previous {
            None if self.first <= sequence.saturating_add(1) => Fit::Follows,
            None => Fit::gap(sequence, self.first),
            Some(previous) if previous == sequence => Fit::Follows,
            Some(previous) => Fit::gap(sequence, previous.saturating_add(1)),
        }
    }

    /// Whether it follows the book's last update but has a smaller number.
    fn counts_anew(&self, sequence: i64) -> bool {
        self.previous == Some(sequence) && self.last < sequence
    }
}

/// How much later than the book a snapshot with a smaller number must have been made to be no late one: in microseconds.
const MUCH_LATER: Micros = 60_000_000;

/// Whether the venue has begun to count anew with a snapshot of this number, made at this time, so that it replaces whatever book
/// there is of the time before, and whatever waits for one. Bybit's service does so with 1 after a restart, and an option without
/// orders has 0; numbers of other venues are far above. OKX may do so while nobody is connected: then its first snapshot has a
/// smaller number though it was made long after.
pub fn begins_anew(sequence: i64, made: Option<Micros>, before: Option<Micros>) -> bool {
    (0..=1).contains(&sequence) || made.zip(before).is_some_and(|(made, before)| made.saturating_sub(before) > MUCH_LATER)
}

impl Fit {
    fn gap(sequence: i64, came: i64) -> Fit {
        Fit::Gap { expected: sequence.saturating_add(1), came }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contiguous(first: i64, last: i64) -> Span {
        Span { first, last, previous: None }
    }

    fn linked(previous: i64, first: i64, last: i64) -> Span {
        Span { first, last, previous: Some(previous) }
    }

    #[test]
    fn binance_spot() {
        // Snapshot at 100: u <= 100 is stale, the first delta must contain 101.
        assert_eq!(contiguous(90, 100).after_snapshot(100), Fit::Stale);
        assert_eq!(contiguous(90, 101).after_snapshot(100), Fit::Follows);
        assert_eq!(contiguous(101, 101).after_snapshot(100), Fit::Follows);
        assert_eq!(contiguous(102, 110).after_snapshot(100), Fit::Gap { expected: 101, came: 102 });
        // Then U == u' + 1.
        assert_eq!(contiguous(101, 105).after_delta(100), Fit::Follows);
        assert_eq!(contiguous(99, 105).after_delta(100), Fit::Follows);
        assert_eq!(contiguous(95, 100).after_delta(100), Fit::Stale);
        assert_eq!(contiguous(103, 105).after_delta(100), Fit::Gap { expected: 101, came: 103 });
    }

    #[test]
    fn binance_futures() {
        // Snapshot at 100: u < 100 is stale, the first delta must contain 100.
        assert_eq!(linked(80, 90, 99).after_snapshot(100), Fit::Stale);
        assert_eq!(linked(80, 90, 100).after_snapshot(100), Fit::Follows);
        assert_eq!(linked(95, 98, 110).after_snapshot(100), Fit::Follows);
        assert_eq!(linked(100, 104, 110).after_snapshot(100), Fit::Follows);
        assert_eq!(linked(102, 104, 110).after_snapshot(100), Fit::Gap { expected: 101, came: 103 });
        // Then pu == u', whatever U is: numbers are shared by all instruments.
        assert_eq!(linked(100, 140, 150).after_delta(100), Fit::Follows);
        assert_eq!(linked(99, 100, 100).after_delta(100), Fit::Stale);
        assert_eq!(linked(120, 140, 150).after_delta(100), Fit::Gap { expected: 101, came: 121 });
        assert_eq!(linked(99, 101, 150).after_delta(100), Fit::Gap { expected: 101, came: 100 });
    }

    #[test]
    fn bybit() {
        // Every message has the number after that of the message before.
        assert_eq!(contiguous(100, 100).after_snapshot(100), Fit::Stale);
        assert_eq!(contiguous(101, 101).after_snapshot(100), Fit::Follows);
        assert_eq!(contiguous(102, 102).after_delta(101), Fit::Follows);
        assert_eq!(contiguous(104, 104).after_delta(102), Fit::Gap { expected: 103, came: 104 });
        // After a restart a snapshot is numbered 1, and the first change 2.
        let anew = |sequence| begins_anew(sequence, Some(1), Some(1));
        assert!(anew(1) && anew(0) && !anew(2) && !anew(-1));
        assert_eq!(contiguous(2, 2).after_snapshot(1), Fit::Follows);
    }

    #[test]
    fn kraken_futures() {
        // A change is one level with one number, which is one more than the last of its product.
        assert_eq!(contiguous(101, 101).after_snapshot(100), Fit::Follows);
        assert_eq!(contiguous(100, 100).after_snapshot(100), Fit::Stale);
        assert_eq!(contiguous(102, 102).after_delta(101), Fit::Follows);
        assert_eq!(contiguous(104, 104).after_delta(102), Fit::Gap { expected: 103, came: 104 });
    }

    /// The example of OKX's manual, "Sequence ID".
    #[test]
    fn okx() {
        assert_eq!(linked(10, 11, 15).after_snapshot(10), Fit::Follows);
        // Nothing has changed.
        assert_eq!(linked(15, 15, 15).after_delta(15), Fit::Stale);
        // The numbers are reset, and then they go on as before.
        assert_eq!(linked(15, 3, 3).after_delta(15), Fit::Follows);
        assert_eq!(linked(15, 3, 3).after_snapshot(15), Fit::Follows);
        assert_eq!(linked(3, 4, 5).after_delta(3), Fit::Follows);
        // While nobody is connected only the time of the next snapshot tells.
        assert!(begins_anew(3, Some(90_000_000), Some(29_999_999)) && !begins_anew(3, Some(90_000_000), Some(30_000_000)));
        assert!(!begins_anew(3, None, Some(1)) && !begins_anew(3, Some(90_000_000), None));
        // One that is older than the book names another before it.
        assert_eq!(linked(7, 8, 10).after_delta(15), Fit::Stale);
        assert_eq!(linked(17, 18, 20).after_delta(15), Fit::Gap { expected: 16, came: 18 });
    }

    #[test]
    fn numbers_at_the_end_of_their_range_do_not_overflow() {
        assert_eq!(contiguous(0, i64::MAX).after_delta(i64::MAX), Fit::Stale);
        assert_eq!(linked(i64::MAX, 5, i64::MAX).after_delta(3), Fit::Gap { expected: 4, came: i64::MAX });
    }
}
