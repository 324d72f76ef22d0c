//! Rows in the order of event time, once the watermark has passed them.

use std::cell::LazyCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;
use model::time::Micros;
use serde::{Deserialize, Serialize};

/// Something that happened to an instrument at a time; ordered by the time first.
pub trait Timed: Ord + Clone {
    /// When.
    fn time(&self) -> Micros;
    /// The instrument.
    fn number(&self) -> u32;
}

/// A venue's trade id: numbers in their order, before other text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TradeId {
    /// A number, written without signs and leading zeros.
    Number(i64),
    /// Anything else.
    Text(Box<str>),
}

impl TradeId {
    /// The id that a venue writes so.
    pub fn of(text: &str) -> Self {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        let number = if plain { text.parse().ok() } else { None };
        number.map_or_else(|| TradeId::Text(text.into()), TradeId::Number)
    }

    /// The number, if it is one.
    pub fn number(&self) -> Option<i64> {
        match self {
            TradeId::Number(number) => Some(*number),
            TradeId::Text(_) => None,
        }
    }
}

impl fmt::Display for TradeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TradeId::Number(number) => number.fmt(f),
            TradeId::Text(text) => text.fmt(f),
        }
    }
}

/// Holds rows until the watermark has passed them.
///
/// Most rows of a batch are in order and passed at once, so they are sorted where they are (which is one pass over
/// what is sorted already). Those that must wait stay together as a sorted run, which snapshots share: it never changes,
/// only where it begins.
#[derive(Debug)]
pub struct Reorder<T> {
    fresh: Vec<T>,
    /// The one with the earliest row first.
    waiting: BinaryHeap<Reverse<Run<T>>>,
}

/// Rows in order, of which those from `at` on wait. There is one.
#[derive(Clone, Debug)]
struct Run<T> {
    rows: Arc<Vec<T>>,
    at: usize,
}

impl<T: Timed> Run<T> {
    fn waiting(&self) -> &[T] {
        &self.rows[self.at..]
    }
}

impl<T: Timed> Ord for Run<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.waiting().cmp(other.waiting())
    }
}

impl<T: Timed> PartialOrd for Run<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Timed> PartialEq for Run<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T: Timed> Eq for Run<T> {}

impl<T: Timed> Default for Reorder<T> {
    fn default() -> Self {
        Reorder { fresh: Vec::new(), waiting: BinaryHeap::new() }
    }
}

impl<T: Timed> Reorder<T> {
    /// Takes a row.
    pub fn push(&mut self, row: T) {
        self.fresh.push(row);
    }

    /// The rows of before the watermark, in order. (A row at the watermark may still be joined by others.)
    pub fn release(&mut self, watermark: Micros) -> Vec<T> {
        let mut due = std::mem::take(&mut self.fresh);
        due.sort();
        let kept = due.split_off(due.partition_point(|row| row.time() < watermark));
        let passed = |run: &Run<T>| run.waiting().partition_point(|row| row.time() < watermark);
        let before = due.len();
        while let Some(mut run) = self.waiting.peek_mut() {
            let end = run.0.at + passed(&run.0);
            if end == run.0.at {
                break;
            }
            due.extend_from_slice(&run.0.rows[run.0.at..end]);
            if end == run.0.rows.len() {
                PeekMut::pop(run);
            } else {
                run.0.at = end;
            }
        }
        if due.len() > before {
            due.sort();
        }
        if !kept.is_empty() {
            self.waiting.push(Reverse(Run { rows: Arc::new(kept), at: 0 }));
        }
        due
    }

    /// The rows held, for a snapshot: each instrument's, in order. Runs are shared, and sorted out by who asks first; rows
    /// that came since the last release are copied, and between two logical times there are none.
    pub fn held(&self) -> Held<T>
    where
        T: Send + Sync + 'static,
    {
        let (mut held, runs) = (self.fresh.clone(), self.waiting.iter().map(|run| run.0.clone()).collect::<Vec<_>>());
        LazyCell::new(Box::new(move || {
            held.extend(runs.iter().flat_map(|run| run.waiting()).cloned());
            drop(runs);
            held.sort_unstable();
            let mut by_number: HashMap<u32, Vec<T>> = HashMap::new();
            for row in held {
                by_number.entry(row.number()).or_default().push(row);
            }
            by_number
        }))
    }
}

/// Rows held, by instrument.
pub type Held<T> = LazyCell<HashMap<u32, Vec<T>>, Box<dyn FnOnce() -> HashMap<u32, Vec<T>> + Send>>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Timed for (Micros, u32) {
        fn time(&self) -> Micros {
            self.0
        }
        fn number(&self) -> u32 {
            self.1 % 3
        }
    }

    proptest! {
        /// However rows come and the watermark steps, they leave in order, each once, and never before their time.
        #[test]
        fn rows_leave_in_order(mut rows in proptest::collection::vec((0_i64..50, any::<u32>()), 0..200), chunk in 1_usize..40) {
            let mut reorder = Reorder::default();
            let mut left = Vec::new();
            rows.sort_by_key(|r| (r.0 / 10, r.1));
            for rows in rows.chunks(chunk) {
                rows.iter().for_each(|row| reorder.push(*row));
                // Rows of one decade are in no order, so the watermark is the start of the latest one's.
                let watermark = rows.iter().map(|r| r.0 / 10 * 10).max().unwrap();
                let due = reorder.release(watermark);
                prop_assert!(due.iter().all(|r| r.0 < watermark));
                left.extend(due);
            }
            let held = reorder.held();
            prop_assert_eq!(held.values().map(Vec::len).sum::<usize>() + left.len(), rows.len());
            prop_assert!(held.iter().all(|(number, rows)| rows.is_sorted() && rows.iter().all(|row| row.number() == *number)));
            left.extend(reorder.release(i64::MAX));
            rows.sort();
            prop_assert_eq!(left, rows);
        }
    }
}
