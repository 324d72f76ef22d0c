//! Rows in the order of event time, once the watermark has passed them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use model::time::Micros;

/// Something that happened at a time; ordered by it first.
pub trait Timed: Ord {
    /// When.
    fn time(&self) -> Micros;
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

    /// The rows held, in no order.
    pub fn held(&self) -> impl Iterator<Item = &T> {
        self.fresh.iter().chain(self.waiting.iter().map(|row| &row.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Timed for (Micros, u32) {
        fn time(&self) -> Micros {
            self.0
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
            prop_assert_eq!(reorder.held().count() + left.len(), rows.len());
            left.extend(reorder.release(i64::MAX));
            rows.sort();
            prop_assert_eq!(left, rows);
        }
    }
}
