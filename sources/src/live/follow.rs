//! How far a channel has come: the rules that venues share.
//!
//! - A channel is followed by what it tells ([`State`]).
//! - [`Trades`] have ascending numbers without holes. A smaller number at a later time says that the venue has begun to count
//!   anew. While two connections tell the same, the newer one may be ahead: what would leave a hole there is left to the older one.
//! - A [`Chain`] is a book whose subscription begins with a snapshot. Each change continues the one before it, by its number.
//!   A book follows one connection: where another takes its place, it changes over with the snapshot that begins it there, so
//!   changes of both never mix.

use std::collections::VecDeque;

use ahash::HashSet;
use model::time::Micros;

use super::venue::{Hole, Line, Order, Over, Said, Tells};

/// How far a channel has come, whose trades are followed by `T` and whose book by `B`.
#[derive(Clone, Copy, Debug)]
pub(super) enum State<T, B> {
    /// It is not followed.
    Any,
    Trades(T),
    Book(B),
}

impl<T: Default, B: Default> State<T, B> {
    /// Nothing was heard yet.
    pub(super) fn of(tells: Tells) -> Self {
        match tells {
            Tells::Trades => State::Trades(T::default()),
            Tells::Book => State::Book(B::default()),
            Tells::State | Tells::Seldom => State::Any,
        }
    }
}

/// What a frame is to what came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It continues it.
    New,
    /// It was there, or comes in its turn over another connection.
    Again,
    /// It is new, and something before it is missing.
    Behind(Hole),
}

impl Heard {
    /// What the frame is to its connection. What is missing is told and, where the channel begins with a snapshot (`anew`), the channel
    /// is subscribed to anew.
    pub(super) fn said(self, channel: usize, anew: bool, orders: &mut Vec<Order>) -> Said {
        match self {
            Heard::New => {}
            Heard::Again => return Said::Nothing,
            Heard::Behind(hole) => {
                orders.push(Order::Gap { channel, hole });
                orders.extend(anew.then_some(Order::Resubscribe { channel }));
            }
        }
        Said::Data(channel)
    }
}

/// The number and time of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) number: u64,
    pub(super) time: Micros,
}

/// Trades that are numbered without holes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trades {
    last: Option<Last>,
}

impl Trades {
    /// Hears of a trade.
    pub(super) fn hear(&mut self, over: Over, trade: Last) -> Heard {
        let Some(before) = self.last else {
            self.last = Some(trade);
            return Heard::New;
        };
        let skips = trade.number > before.number + 1;
        if (trade.number <= before.number && trade.time <= before.time) || (skips && over.beside) {
            return Heard::Again;
        }
        self.last = Some(trade);
        if skips {
            return Heard::Behind(Hole { numbers: Some((before.number + 1, trade.number - 1)), since: before.time, until: trade.time });
        }
        Heard::New
    }
}

/// A book whose subscription begins with a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chain {
    line: Line,
    last: Option<Last>,
    broken: bool,
}

impl Chain {
    /// Hears a snapshot that contains all changes up to a number. That of a connection whose place another has taken is of no use.
    pub(super) fn snapshot(&mut self, line: Line, last: Last) -> Heard {
        if line < self.line {
            return Heard::Again;
        }
        *self = Chain { line, last: Some(last), broken: false };
        Heard::New
    }

    /// Hears a change that continues the one of number `previous`, as the venue says it.
    pub(super) fn change(&mut self, line: Line, previous: u64, last: Last) -> Heard {
        let Some(before) = self.last.filter(|_| self.line == line) else { return Heard::Again };
        if previous != before.number && last.number <= before.number {
            return Heard::Again;
        }
        self.last = Some(last);
        if previous == before.number || self.broken {
            return Heard::New;
        }
        self.broken = true;
        Heard::Behind(Hole { numbers: Some((before.number + 1, previous.max(before.number + 1))), since: before.time, until: last.time })
    }
}

/// What came lately over channels whose records have names and no numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Lately {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Lately {
    /// How many are known.
    const MOST: usize = 4_096;

    /// Whether a record, by a hash of its name, is new.
    pub(super) fn is_new(&mut self, hash: u64) -> bool {
        if !self.known.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > Self::MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Over = Over { line: 1, beside: false };

    fn at(number: u64, time: Micros) -> Last {
        Last { number, time }
    }

    fn hole(first: u64, last: u64, since: Micros, until: Micros) -> Heard {
        Heard::Behind(Hole { numbers: Some((first, last)), since, until })
    }

    #[test]
    fn missing_trades_are_noticed_once() {
        let mut trades = Trades::default();
        assert_eq!(trades.hear(ALONE, at(5, 1)), Heard::New);
        assert_eq!(trades.hear(ALONE, at(5, 1)), Heard::Again);
        assert_eq!(trades.hear(ALONE, at(6, 2)), Heard::New);
        assert_eq!(trades.hear(ALONE, at(9, 5)), hole(7, 8, 2, 5));
        assert_eq!(trades.hear(ALONE, at(8, 5)), Heard::Again, "it is asked for already");
        assert_eq!(trades.hear(ALONE, at(1, 9)), Heard::New, "counted anew");
    }

    #[test]
    fn a_connection_that_is_ahead_of_the_one_it_replaces_leaves_no_hole() {
        let newer = Over { line: 2, beside: true };
        let mut trades = Trades::default();
        assert_eq!(trades.hear(ALONE, at(5, 1)), Heard::New);
        assert_eq!(trades.hear(newer, at(7, 3)), Heard::Again, "the older one is still to tell what is before it");
        assert_eq!(trades.hear(ALONE, at(6, 2)), Heard::New);
        assert_eq!(trades.hear(newer, at(8, 4)), Heard::Again);
        assert_eq!(trades.hear(ALONE, at(7, 3)), Heard::New);
        assert_eq!(trades.hear(ALONE, at(8, 4)), Heard::New);
        assert_eq!(trades.hear(newer, at(9, 5)), Heard::New, "it continues what is there");
        assert_eq!(trades.hear(ALONE, at(9, 5)), Heard::Again);
        assert_eq!(trades.hear(newer, at(11, 7)), Heard::Again);
        let alone = Over { beside: false, ..newer };
        assert_eq!(trades.hear(alone, at(12, 8)), hole(10, 11, 5, 8), "the older one has ended before it came so far");
    }

    #[test]
    fn a_book_follows_one_connection_until_another_begins_it() {
        let mut book = Chain::default();
        assert_eq!(book.change(1, 4, at(5, 1)), Heard::Again, "it has not begun");
        book.snapshot(1, at(10, 1));
        assert_eq!(book.change(1, 8, at(9, 1)), Heard::Again);
        assert_eq!(book.change(1, 10, at(12, 2)), Heard::New);
        assert_eq!(book.change(2, 12, at(13, 3)), Heard::Again, "the other connection has not begun it");
        book.snapshot(2, at(11, 1));
        assert_eq!(book.change(1, 12, at(13, 3)), Heard::Again);
        assert_eq!(book.snapshot(1, at(13, 3)), Heard::Again);
        assert_eq!(book.change(2, 11, at(12, 2)), Heard::New);
        assert_eq!(book.change(2, 14, at(15, 4)), hole(13, 14, 2, 4));
        assert_eq!(book.change(2, 17, at(18, 5)), Heard::New, "it is known that it is broken");
        book.snapshot(2, at(20, 6));
        assert_eq!(book.change(2, 20, at(3, 7)), Heard::New, "the venue counts anew, and says what it continues");
    }

    #[test]
    fn what_came_long_ago_is_forgotten() {
        let mut lately = Lately::default();
        assert!(lately.is_new(0) && !lately.is_new(0));
        for name in 1..=Lately::MOST as u64 {
            assert!(lately.is_new(name));
        }
        assert!(lately.is_new(0));
        assert!(lately.known.len() == Lately::MOST && lately.order.len() == Lately::MOST);
    }
}
