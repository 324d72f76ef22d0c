//! The levels of one side of a book.
//!
//! A side is two parallel vectors, sorted so that the best level is the *last*: venues change mostly what is
//! near the best price, so a search starts there and an insertion moves few levels. For one and the same code
//! on both sides a level's key is its price for bids and its negated price for asks.

use serde::{Deserialize, Serialize};

/// The greatest magnitude of a price or size that a book takes, in units of 10⁻¹²: 10²¹. Every sum over a side
/// then fits.
pub const MAX_UNITS: i128 = 10_i128.pow(33);

/// The most levels that a side keeps; the level farthest from the best gives way. Venues' books have thousands.
pub const MAX_LEVELS: usize = 100_000;

/// Levels as records carry them: prices and sizes in parallel, in units of 10⁻¹².
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels<'a> {
    /// Prices.
    pub prices: &'a [i128],
    /// Sizes at those prices; 0 removes a level.
    pub sizes: &'a [i128],
}

impl<'a> Levels<'a> {
    /// Levels from the two lists of a record.
    ///
    /// # Errors
    /// The lists differ in length, a size is negative, or a number is too large for a book.
    pub fn new(prices: &'a [i128], sizes: &'a [i128]) -> Result<Self, String> {
        if prices.len() != sizes.len() {
            return Err(format!("{} prices but {} sizes", prices.len(), sizes.len()));
        }
        if let Some(size) = sizes.iter().find(|s| **s < 0) {
            return Err(format!("the size {} is negative", crate::Decimal::from_units(*size)));
        }
        match prices.iter().chain(sizes).find(|n| !(-MAX_UNITS..=MAX_UNITS).contains(*n)) {
            Some(number) => Err(format!("{} is too large for a price or size", crate::Decimal::from_units(*number))),
            None => Ok(Levels { prices, sizes }),
        }
    }

    /// Number of levels.
    pub fn len(&self) -> usize {
        self.prices.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.prices.is_empty()
    }

    /// Price and size of each level.
    pub fn iter(&self) -> impl Iterator<Item = (i128, i128)> + 'a {
        self.prices.iter().copied().zip(self.sizes.iter().copied())
    }
}

/// One side of a book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// 1 for bids, -1 for asks.
    sign: i128,
    /// Price times sign, ascending: the best is last.
    keys: Vec<i128>,
    sizes: Vec<i128>,
    total: i128,
}

impl Side {
    /// A side of bids: the highest price is the best.
    pub fn bids() -> Self {
        Side { sign: 1, keys: Vec::new(), sizes: Vec::new(), total: 0 }
    }

    /// A side of asks: the lowest price is the best.
    pub fn asks() -> Self {
        Side { sign: -1, ..Side::bids() }
    }

    /// Number of levels.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The sum of all sizes.
    pub fn total(&self) -> i128 {
        self.total
    }

    /// Price and size of the best level.
    pub fn best(&self) -> Option<(i128, i128)> {
        self.iter().next()
    }

    /// Price and size of each level, best first.
    pub fn iter(&self) -> impl Iterator<Item = (i128, i128)> + '_ {
        self.keys.iter().rev().map(|key| key * self.sign).zip(self.sizes.iter().rev().copied())
    }

    /// The size at a price; 0 where there is no level.
    pub fn size_at(&self, price: i128) -> i128 {
        self.keys.binary_search(&(price * self.sign)).map_or(0, |at| self.sizes[at])
    }

    /// The sum of sizes at prices not worse than `limit`. Adds up whichever of the two parts is the shorter.
    pub fn depth(&self, limit: i128) -> i128 {
        let (beyond, within) = self.sizes.split_at(self.position(limit * self.sign));
        if within.len() <= beyond.len() { within.iter().sum() } else { self.total - beyond.iter().sum::<i128>() }
    }

    /// Removes all but the best levels.
    pub fn keep(&mut self, levels: usize) {
        let beyond = self.keys.len().saturating_sub(levels);
        self.keys.drain(..beyond);
        self.total -= self.sizes.drain(..beyond).sum::<i128>();
    }

    /// Removes all levels.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.sizes.clear();
        self.total = 0;
    }

    /// Sets the size at each of these prices.
    pub fn set_all(&mut self, levels: Levels<'_>) {
        for (price, size) in levels.iter() {
            self.set(price, size);
        }
    }

    /// Sets the size at a price; 0 removes the level.
    pub fn set(&mut self, price: i128, size: i128) {
        let key = price * self.sign;
        let at = self.position(key);
        let exists = self.keys.get(at) == Some(&key);
        match (exists, size) {
            (false, 0) => {}
            (true, 0) => {
                self.keys.remove(at);
                self.total -= self.sizes.remove(at);
            }
            (true, _) => self.total += size - std::mem::replace(&mut self.sizes[at], size),
            (false, _) => self.insert(at, key, size),
        }
    }

    fn insert(&mut self, mut at: usize, key: i128, size: i128) {
        if self.keys.len() == MAX_LEVELS {
            if at == 0 {
                return;
            }
            self.keys.remove(0);
            self.total -= self.sizes.remove(0);
            at -= 1;
        }
        self.keys.insert(at, key);
        self.sizes.insert(at, size);
        self.total += size;
    }

    /// Where a key is or belongs: doubling steps from the best end, then halving.
    fn position(&self, key: i128) -> usize {
        let len = self.keys.len();
        let mut step = 1;
        while step <= len && self.keys[len - step] >= key {
            step *= 2;
        }
        let (low, high) = (len.saturating_sub(step), len - step / 2);
        low + self.keys[low..high].partition_point(|k| *k < key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is set, a side agrees with a map from price to size.
        #[test]
        fn a_side_is_a_sorted_map(changes in proptest::collection::vec((-40_i128..40, 0_i128..5), 0..400), bids: bool) {
            let mut side = if bids { Side::bids() } else { Side::asks() };
            let mut map = BTreeMap::new();
            for (price, size) in changes {
                side.set(price, size);
                if size == 0 { map.remove(&price); } else { map.insert(price, size); }
                prop_assert_eq!(side.total(), map.values().sum::<i128>());
                prop_assert_eq!(side.size_at(price), size);
            }
            let mut expected: Vec<_> = map.iter().map(|(p, s)| (*p, *s)).collect();
            if bids { expected.reverse(); }
            prop_assert_eq!(side.iter().collect::<Vec<_>>(), expected);
            let within: i128 = map.iter().filter(|(p, _)| if bids { **p >= -3 } else { **p <= -3 }).map(|(_, s)| s).sum();
            prop_assert_eq!(side.depth(-3), within);
        }
    }

    #[test]
    fn the_farthest_level_gives_way() {
        let mut bids = Side::bids();
        for price in 0..=MAX_LEVELS as i128 {
            bids.set(price + 1, 1);
        }
        assert_eq!((bids.len(), bids.total(), bids.size_at(1), bids.size_at(2)), (MAX_LEVELS, MAX_LEVELS as i128, 0, 1));
        bids.set(1, 7);
        assert_eq!((bids.len(), bids.size_at(1)), (MAX_LEVELS, 0));
    }

    #[test]
    fn refuses_levels_that_no_book_can_hold() {
        assert_eq!(Levels::new(&[1], &[]).unwrap_err(), "1 prices but 0 sizes");
        assert_eq!(Levels::new(&[1], &[-1_000_000_000_000]).unwrap_err(), "the size -1 is negative");
        assert!(Levels::new(&[MAX_UNITS + 1], &[1]).unwrap_err().ends_with("is too large for a price or size"));
    }
}
