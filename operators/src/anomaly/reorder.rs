//! Rows in the order of event time, once the watermark has passed them.

use std::cell::LazyCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashMap;
use model::time::Micros;

/// Something that happened to an instrument at a time; ordered by the time first.
pub trait Timed: Ord {
    /// When.
    fn time(&self) -> Micros;
    /// The instrument.
    fn number(&self) -> u32;
}

/// Holds rows until the watermark has passed them.
///
/// Most rows of a batch are in order and passed at once, so they are sorted where they are (which is one pass over
/// what is sorted already); only those that must wait go through a heap.
#[derive(Debug)]
pub struct Reorder<T> {
    fresh: Vec<T>,
    waiting: BinaryHeap<Reverse<T>>,
}

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
        self.waiting.extend(kept.into_iter().map(Reverse));
        if self.waiting.peek().is_some_and(|row| row.0.time() < watermark) {
            while let Some(row) = self.waiting.peek_mut().filter(|row| row.0.time() < watermark) {
                due.push(std::collections::binary_heap::PeekMut::pop(row).0);
            }
            due.sort();
        }
        due
    }

    /// The rows held, for a snapshot: each instrument's, in order. They are copied, being no more than what arrives while
    /// the watermark lags; they are sorted out by who asks first.
    pub fn held(&self) -> Held<T>
    where
        T: Clone + Send + 'static,
    {
        let mut held: Vec<T> = self.fresh.iter().chain(self.waiting.iter().map(|row| &row.0)).cloned().collect();
        LazyCell::new(Box::new(move || {
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
