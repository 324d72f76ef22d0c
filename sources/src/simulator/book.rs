//! The order book of a simulated instrument, and the changes that its venue has yet to publish.
//!
//! Every change of a level takes an update number. A depth update holds each level that changed since the one
//! before it, with its size at the end, so applying the updates in order to a snapshot gives this very book.
//! Prices are whole ticks and sizes whole lots.

/// Buyers or sellers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Bid,
    Ask,
}

impl Side {
    /// The factor that makes a better price of this side the greater number.
    #[inline]
    pub(super) fn sign(self) -> i64 {
        match self {
            Side::Bid => 1,
            Side::Ask => -1,
        }
    }
}

/// A price and the size there; 0 is a level that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) price: i64,
    pub(super) quantity: i64,
}

/// The update numbers of a depth update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delta {
    /// The number of the first change in it.
    pub(super) first: i64,
    /// The number of the last change in it.
    pub(super) last: i64,
    /// The number of the last change in the update before it.
    pub(super) previous: i64,
}

/// One side of a book.
#[derive(Debug)]
struct Half {
    side: Side,
    /// Worst first, so that what changes most is at the end.
    levels: Vec<Level>,
    /// Prices that changed since the last depth update, some of them several times.
    touched: Vec<i64>,
    /// From how many on `touched` is freed of repetitions.
    crowded: usize,
    /// The levels of the last depth update.
    changed: Vec<Level>,
}

const CROWDED: usize = 256;

impl Half {
    fn new(side: Side) -> Self {
        Half {
            side,
            levels: Vec::with_capacity(128),
            touched: Vec::with_capacity(CROWDED),
            crowded: CROWDED,
            changed: Vec::with_capacity(CROWDED),
        }
    }

    #[inline]
    fn find(&self, price: i64) -> Result<usize, usize> {
        let sign = self.side.sign();
        match self.levels.last() {
            Some(best) if best.price == price => Ok(self.levels.len() - 1),
            _ => self.levels.binary_search_by_key(&(price * sign), |l| l.price * sign),
        }
    }

    #[inline]
    fn set(&mut self, price: i64, quantity: i64) {
        match (self.find(price), quantity) {
            (Ok(at), 0) => drop(self.levels.remove(at)),
            (Ok(at), _) => self.levels[at].quantity = quantity,
            (Err(_), 0) => {}
            (Err(at), _) => self.levels.insert(at, Level { price, quantity }),
        }
        if self.touched.last() != Some(&price) {
            self.touched.push(price);
            if self.touched.len() > self.crowded {
                self.tidy();
                self.crowded = CROWDED.max(2 * self.touched.len());
            }
        }
    }

    fn tidy(&mut self) {
        self.touched.sort_unstable();
        self.touched.dedup();
    }

    fn publish(&mut self) {
        self.tidy();
        self.changed.clear();
        for at in 0..self.touched.len() {
            let price = self.touched[at];
            let quantity = self.find(price).map_or(0, |level| self.levels[level].quantity);
            self.changed.push(Level { price, quantity });
        }
        self.touched.clear();
        self.crowded = CROWDED;
    }
}

/// A book.
#[derive(Debug)]
pub(super) struct Book {
    halves: [Half; 2],
    /// The number of the last change.
    number: i64,
    /// The number of the first change that is not published, if there is one.
    first: Option<i64>,
    /// The number of the last change that is published.
    previous: i64,
}

impl Book {
    /// An empty book whose update numbers go on from this one.
    pub(super) fn new(number: i64) -> Self {
        Book { halves: [Half::new(Side::Bid), Half::new(Side::Ask)], number, first: None, previous: number }
    }

    /// Sets the size at a price, 0 to remove it; the update number grows by `step`.
    #[inline]
    pub(super) fn set(&mut self, side: Side, price: i64, quantity: i64, step: i64) {
        self.number += step;
        self.first.get_or_insert(self.number);
        self.halves[side as usize].set(price, quantity);
    }

    /// The number of the last change.
    pub(super) fn number(&self) -> i64 {
        self.number
    }

    /// Whether there are changes that no depth update holds yet.
    pub(super) fn pending(&self) -> bool {
        self.first.is_some()
    }

    /// Makes a depth update of the changes since the last one: its numbers, with the levels in [`Self::changed`].
    pub(super) fn publish(&mut self) -> Option<Delta> {
        let delta = Delta { first: self.first.take()?, last: self.number, previous: self.previous };
        self.halves.iter_mut().for_each(Half::publish);
        self.previous = self.number;
        Some(delta)
    }

    /// The levels of the last depth update, lowest price first.
    pub(super) fn changed(&self, side: Side) -> &[Level] {
        &self.halves[side as usize].changed
    }

    /// The levels of a side, worst first.
    #[inline]
    pub(super) fn levels(&self, side: Side) -> &[Level] {
        &self.halves[side as usize].levels
    }

    /// The best level of a side that is not empty.
    #[inline]
    pub(super) fn best(&self, side: Side) -> Level {
        *self.levels(side).last().expect("a market never leaves a side of its book empty")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::simulator::dice::Dice;

    #[test]
    fn updates_applied_in_order_give_the_book() {
        let (mut dice, mut book, mut rebuilt) = (Dice::new(11, 0), Book::new(41), [BTreeMap::new(), BTreeMap::new()]);
        let mut previous = 41;
        for step in 0..20_000 {
            let side = if dice.one_in(2) { Side::Bid } else { Side::Ask };
            book.set(side, dice.between(1, 400), dice.between(0, 3), dice.between(1, 3));
            if dice.one_in(if step < 10_000 { 20 } else { 2_000 }) {
                let delta = book.publish().unwrap();
                assert!(delta.previous == previous && delta.first > previous && delta.last == book.number() && !book.pending());
                previous = delta.last;
                for side in [Side::Bid, Side::Ask] {
                    let changed = book.changed(side);
                    assert!(changed.windows(2).all(|pair| pair[0].price < pair[1].price), "a price stands twice in one update");
                    for level in changed {
                        match level.quantity {
                            0 => rebuilt[side as usize].remove(&level.price),
                            quantity => rebuilt[side as usize].insert(level.price, quantity),
                        };
                    }
                    let mut expected: Vec<_> = rebuilt[side as usize].iter().map(|(&price, &quantity)| Level { price, quantity }).collect();
                    if side == Side::Ask {
                        expected.reverse();
                    }
                    assert_eq!(book.levels(side), expected);
                }
            }
        }
        book.publish();
        assert_eq!(book.publish(), None, "nothing changed since");
    }
}
