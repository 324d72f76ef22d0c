//! The life of one instrument's book: from deltas, snapshots and quotes in, to a book that can be trusted or
//! the knowledge that it cannot.
//!
//! ```text
//!           delta                     snapshot that the waiting deltas continue
//!   Idle ──────────▶ Buffering ──────────────────────────────────────────▶ Live
//!     │                  ▲   │ snapshot newer than all that waits            │ ▲
//!     │ snapshot         │   ▼                     delta that follows        │ │
//!     └────────────────▶ │ Seeded ──────────────────────────────────────────┼─┘
//!                        │   │                                              │
//!                        └───┴────────────── gap ───────────────────────────┘
//! ```
//!
//! No I/O and no clock: what happens follows from the calls alone, and what follows is told to a [`Watch`].
//! Deltas that wait are one unbroken chain (a gap in it throws away what came before, since no snapshot could
//! bridge it), and they are bounded in number and bytes.

use std::collections::VecDeque;
use std::fmt;

use model::Decimal;
use model::time::Micros;
use serde::{Deserialize, Serialize};

use super::levels::{Levels, Side};
use super::oracle::{Oracle, Quote};
use super::rules::{Fit, Span};
use crate::cause::Cause;

/// A change of a book.
#[derive(Clone, Copy, Debug)]
pub struct Delta<'a> {
    /// Where it came from.
    pub cause: Cause,
    /// Its update numbers.
    pub span: Span,
    /// New sizes of bids.
    pub bids: Levels<'a>,
    /// New sizes of asks.
    pub asks: Levels<'a>,
    /// Whether sizes are contracts.
    pub contracts: bool,
}

/// A whole book, as the venue says.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// Where it came from.
    pub cause: Cause,
    /// The last update that it contains.
    pub sequence: i64,
    /// Its bids.
    pub bids: Levels<'a>,
    /// Its asks.
    pub asks: Levels<'a>,
    /// Whether sizes are contracts.
    pub contracts: bool,
}

/// What stands in the `event` column of a book event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Deltas wait for a snapshot.
    Buffering,
    /// A snapshot was applied.
    Snapshot,
    /// The chain holds.
    Live,
    /// Updates are missing.
    Gap,
    /// Best bid not below best ask.
    Crossed,
    /// No longer so.
    Uncrossed,
    /// The venue's own best bid and ask differ.
    Mismatch,
}

impl Event {
    /// The label in the column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Event::Buffering => "buffering",
            Event::Snapshot => "snapshot",
            Event::Live => "live",
            Event::Gap => "gap",
            Event::Crossed => "crossed",
            Event::Uncrossed => "uncrossed",
            Event::Mismatch => "mismatch",
        }
    }
}

/// Something happened to a book.
#[derive(Debug)]
pub struct Happening<'a> {
    /// What.
    pub event: Event,
    /// What caused it.
    pub cause: Cause,
    /// The update number that was expected or compared.
    pub expected: Option<i64>,
    /// The update number that came.
    pub sequence: Option<i64>,
    /// In words.
    pub detail: fmt::Arguments<'a>,
}

/// Who is told what happens to a book.
pub trait Watch {
    /// The book is about to change by something of this event time; `None` when it is about to be replaced.
    fn leaving(&mut self, book: &Book, until: Option<Micros>);
    /// A delta was applied.
    fn applied(&mut self, book: &Book);
    /// Something happened.
    fn happened(&mut self, happening: Happening<'_>);
}

/// Where an instrument's book is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing was heard of it.
    Idle,
    /// Deltas wait for a snapshot.
    Buffering,
    /// The book is a snapshot that no delta has continued yet.
    Seeded,
    /// The book is a snapshot and an unbroken chain of deltas.
    Live,
}

/// The levels of a book and what they rest on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Book {
    /// The bids.
    pub bids: Side,
    /// The asks.
    pub asks: Side,
    /// The last update applied.
    pub sequence: i64,
    /// What made it so.
    pub cause: Cause,
    /// Whether sizes are contracts.
    pub contracts: bool,
    /// Best bid not below best ask.
    pub crossed: bool,
    /// Comparisons with the venue's own best bid and ask.
    pub oracle_checks: i64,
    /// How many differed.
    pub oracle_mismatches: i64,
}

/// How much may wait for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Deltas.
    pub deltas: usize,
    /// Bytes of their levels.
    pub bytes: usize,
}

/// What became of the deltas of an instrument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Applied to the book.
    pub applied: u64,
    /// Ignored: the snapshot or an earlier delta contained them.
    pub stale: u64,
    /// Thrown away while they waited: too many, or before a gap.
    pub dropped: u64,
    /// Gaps found.
    pub gaps: u64,
}

/// A delta that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Held {
    cause: Cause,
    span: Span,
    bids: (Vec<i128>, Vec<i128>),
    asks: (Vec<i128>, Vec<i128>),
    contracts: bool,
}

impl Held {
    fn of(delta: &Delta<'_>) -> Self {
        let own = |levels: Levels<'_>| (levels.prices.to_vec(), levels.sizes.to_vec());
        Held { cause: delta.cause, span: delta.span, bids: own(delta.bids), asks: own(delta.asks), contracts: delta.contracts }
    }

    fn delta(&self) -> Delta<'_> {
        let (bids, asks) = (Levels { prices: &self.bids.0, sizes: &self.bids.1 }, Levels { prices: &self.asks.0, sizes: &self.asks.1 });
        Delta { cause: self.cause, span: self.span, bids, asks, contracts: self.contracts }
    }

    fn bytes(&self) -> usize {
        size_of::<Held>() + 2 * size_of::<i128>() * (self.bids.0.len() + self.asks.0.len())
    }
}

/// One instrument's book through its life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    phase: Phase,
    book: Book,
    waiting: VecDeque<Held>,
    waiting_bytes: usize,
    /// An overflow of what waits was told since it began.
    overflowed: bool,
    oracle: Oracle,
    tally: Tally,
}

impl Default for Machine {
    fn default() -> Self {
        let book = Book {
            bids: Side::bids(),
            asks: Side::asks(),
            sequence: 0,
            cause: Cause::default(),
            contracts: false,
            crossed: false,
            oracle_checks: 0,
            oracle_mismatches: 0,
        };
        Machine {
            phase: Phase::Idle,
            book,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            overflowed: false,
            oracle: Oracle::default(),
            tally: Tally::default(),
        }
    }
}

impl Machine {
    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The book; `None` while it cannot be trusted.
    pub fn book(&self) -> Option<&Book> {
        matches!(self.phase, Phase::Seeded | Phase::Live).then_some(&self.book)
    }

    /// What became of the deltas.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Takes a delta. Returns whether it was of use: applied or kept.
    pub fn delta(&mut self, delta: Delta<'_>, limits: Limits, watch: &mut impl Watch) -> bool {
        let fit = match self.phase {
            Phase::Idle | Phase::Buffering => return self.wait(&delta, limits, watch),
            Phase::Seeded => delta.span.after_snapshot(self.book.sequence),
            Phase::Live => delta.span.after_delta(self.book.sequence),
        };
        match fit {
            Fit::Stale => self.tally.stale += 1,
            Fit::Follows => self.follow(&delta, watch),
            Fit::Gap { expected, came } => {
                self.invalidate(&delta, expected, came, watch);
                self.wait(&delta, limits, watch);
            }
        }
        fit != Fit::Stale
    }

    /// Takes a snapshot of the venue. Returns whether it was of use: applied, or compared.
    pub fn snapshot(&mut self, snapshot: Snapshot<'_>, watch: &mut impl Watch) -> bool {
        match self.phase {
            Phase::Idle => self.seed(&snapshot, 0, watch),
            Phase::Buffering => return self.splice(&snapshot, watch),
            Phase::Seeded | Phase::Live if snapshot.sequence < self.book.sequence => return false,
            Phase::Seeded | Phase::Live if snapshot.sequence == self.book.sequence && self.agrees(&snapshot) => {
                let detail = format_args!(
                    "a snapshot at update {} agrees with the book in all its {} levels",
                    snapshot.sequence,
                    snapshot.bids.len() + snapshot.asks.len()
                );
                watch.happened(Happening {
                    event: Event::Snapshot,
                    cause: snapshot.cause,
                    expected: None,
                    sequence: Some(snapshot.sequence),
                    detail,
                });
            }
            Phase::Seeded | Phase::Live => {
                watch.leaving(&self.book, None);
                self.seed(&snapshot, 0, watch);
            }
        }
        true
    }

    /// Takes the venue's best bid and ask. Returns whether it is kept to be compared.
    pub fn quote(&mut self, quote: Quote) -> bool {
        let ahead = self.book().is_none_or(|book| quote.sequence > book.sequence);
        if ahead {
            self.oracle.hold(quote);
        }
        ahead
    }

    /// Keeps a delta until there is a snapshot.
    fn wait(&mut self, delta: &Delta<'_>, limits: Limits, watch: &mut impl Watch) -> bool {
        if self.phase != Phase::Buffering {
            self.phase = Phase::Buffering;
            self.overflowed = false;
            let detail = format_args!("deltas wait for a snapshot from update {} on", delta.span.first);
            watch.happened(Happening {
                event: Event::Buffering,
                cause: delta.cause,
                expected: None,
                sequence: Some(delta.span.last),
                detail,
            });
        }
        match self.waiting.back().map(|last| delta.span.after_delta(last.span.last)) {
            Some(Fit::Stale) => {
                self.tally.stale += 1;
                return false;
            }
            Some(Fit::Gap { expected, came }) => {
                self.tally.gaps += 1;
                self.tally.dropped += self.waiting.len() as u64;
                let detail = format_args!(
                    "{}; {} deltas that waited for a snapshot are useless",
                    Break { delta, expected, came },
                    self.waiting.len()
                );
                watch.happened(Happening { event: Event::Gap, cause: delta.cause, expected: Some(expected), sequence: Some(came), detail });
                self.waiting.clear();
                self.waiting_bytes = 0;
            }
            Some(Fit::Follows) | None => {}
        }
        let held = Held::of(delta);
        self.waiting_bytes += held.bytes();
        self.waiting.push_back(held);
        self.overflow(limits, watch);
        true
    }

    /// Drops the oldest of what waits until the rest is within the limits; the latest always stays.
    fn overflow(&mut self, limits: Limits, watch: &mut impl Watch) {
        while self.waiting.len() > 1 && (self.waiting.len() > limits.deltas || self.waiting_bytes > limits.bytes) {
            let Some(oldest) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= oldest.bytes();
            self.tally.dropped += 1;
            if !std::mem::replace(&mut self.overflowed, true) {
                let detail = format_args!(
                    "no snapshot came while {} deltas waited: the oldest are dropped, from update {} on, and only a newer snapshot can be used",
                    self.waiting.len() + 1,
                    oldest.span.first
                );
                watch.happened(Happening {
                    event: Event::Buffering,
                    cause: oldest.cause,
                    expected: None,
                    sequence: Some(oldest.span.last),
                    detail,
                });
            }
        }
    }

    /// Puts the waiting deltas on a snapshot.
    fn splice(&mut self, snapshot: &Snapshot<'_>, watch: &mut impl Watch) -> bool {
        let fit = |held: &Held| held.span.after_snapshot(snapshot.sequence);
        let stale = self.waiting.iter().take_while(|held| fit(held) == Fit::Stale).count();
        if let Some(first) = self.waiting.get(stale)
            && let Fit::Gap { expected, .. } = fit(first)
        {
            let detail = format_args!(
                "a snapshot at update {} is older than all {} waiting deltas, which begin at update {}: a newer one is needed",
                snapshot.sequence,
                self.waiting.len(),
                first.span.first
            );
            watch.happened(Happening {
                event: Event::Buffering,
                cause: snapshot.cause,
                expected: Some(expected),
                sequence: Some(snapshot.sequence),
                detail,
            });
            return false;
        }
        self.tally.stale += stale as u64;
        self.seed(snapshot, stale, watch);
        self.waiting_bytes = 0;
        for held in std::mem::take(&mut self.waiting).iter().skip(stale) {
            self.follow(&held.delta(), watch);
        }
        true
    }

    /// Makes the book the snapshot.
    fn seed(&mut self, snapshot: &Snapshot<'_>, stale: usize, watch: &mut impl Watch) {
        self.phase = Phase::Seeded;
        self.book.bids.clear();
        self.book.asks.clear();
        self.book.bids.set_all(snapshot.bids);
        self.book.asks.set_all(snapshot.asks);
        self.book.sequence = snapshot.sequence;
        self.book.cause = Cause { event_time: snapshot.cause.event_time.or(self.book.cause.event_time), ..snapshot.cause };
        self.book.contracts = snapshot.contracts;
        let detail = format_args!(
            "the book is a snapshot at update {} with {} bids and {} asks; {stale} waiting deltas were older",
            snapshot.sequence,
            snapshot.bids.len(),
            snapshot.asks.len()
        );
        watch.happened(Happening {
            event: Event::Snapshot,
            cause: snapshot.cause,
            expected: None,
            sequence: Some(snapshot.sequence),
            detail,
        });
        self.cross(snapshot.cause, watch);
    }

    /// Applies a delta that continues the book.
    fn follow(&mut self, delta: &Delta<'_>, watch: &mut impl Watch) {
        if self.phase != Phase::Live {
            self.phase = Phase::Live;
            let detail = format_args!("update {} continues the snapshot at update {}", delta.span.first, self.book.sequence);
            watch.happened(Happening { event: Event::Live, cause: delta.cause, expected: None, sequence: Some(delta.span.last), detail });
        }
        watch.leaving(&self.book, delta.cause.event_time);
        self.book.bids.set_all(delta.bids);
        self.book.asks.set_all(delta.asks);
        self.book.sequence = delta.span.last;
        self.book.cause = delta.cause;
        self.book.contracts = delta.contracts;
        self.tally.applied += 1;
        self.cross(delta.cause, watch);
        if let Some(quote) = self.oracle.at(self.book.sequence) {
            self.compare(&quote, watch);
        }
        watch.applied(&self.book);
    }

    /// Tells when the book becomes or stops being crossed.
    fn cross(&mut self, cause: Cause, watch: &mut impl Watch) {
        let (bid, ask) = (self.book.bids.best(), self.book.asks.best());
        let crossed = matches!((bid, ask), (Some(bid), Some(ask)) if bid.0 >= ask.0);
        if std::mem::replace(&mut self.book.crossed, crossed) != crossed {
            let (event, relation) = if crossed { (Event::Crossed, "not below") } else { (Event::Uncrossed, "below") };
            let detail = format_args!("best bid {} is {relation} best ask {}", Level(bid), Level(ask));
            watch.happened(Happening { event, cause, expected: None, sequence: Some(self.book.sequence), detail });
        }
    }

    /// Compares the book with what the venue says of the same update.
    fn compare(&mut self, quote: &Quote, watch: &mut impl Watch) {
        let (bid, ask) = (self.book.bids.best(), self.book.asks.best());
        // A book in contracts has no sizes in the base asset, which is what quotes carry.
        let equal = |ours: Option<(i128, i128)>, theirs: Option<(i128, i128)>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => ours.0 == theirs.0 && (self.book.contracts || ours.1 == theirs.1),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        self.book.oracle_checks += 1;
        if !equal(bid, quote.bid) || !equal(ask, quote.ask) {
            self.book.oracle_mismatches += 1;
            let detail = format_args!(
                "at update {} the venue quotes {} / {}, but the book has {} / {}",
                quote.sequence,
                Level(quote.bid),
                Level(quote.ask),
                Level(bid),
                Level(ask)
            );
            watch.happened(Happening {
                event: Event::Mismatch,
                cause: self.book.cause,
                expected: Some(quote.sequence),
                sequence: Some(self.book.sequence),
                detail,
            });
        }
    }

    /// Whether each level of a snapshot is in the book, and the book has no better one between them.
    fn agrees(&self, snapshot: &Snapshot<'_>) -> bool {
        let same = |side: &Side, levels: Levels<'_>| {
            levels.len() <= side.len() && levels.iter().zip(side.iter()).all(|(theirs, ours)| theirs == ours)
        };
        same(&self.book.bids, snapshot.bids) && same(&self.book.asks, snapshot.asks)
    }

    /// Gives up a book whose chain broke.
    fn invalidate(&mut self, delta: &Delta<'_>, expected: i64, came: i64, watch: &mut impl Watch) {
        watch.leaving(&self.book, None);
        self.tally.gaps += 1;
        if std::mem::take(&mut self.book.crossed) {
            let detail = format_args!("the crossed book became invalid");
            watch.happened(Happening {
                event: Event::Uncrossed,
                cause: delta.cause,
                expected: None,
                sequence: Some(self.book.sequence),
                detail,
            });
        }
        let detail = format_args!(
            "{}; the book at update {} is invalid until the next snapshot",
            Break { delta, expected, came },
            self.book.sequence
        );
        watch.happened(Happening { event: Event::Gap, cause: delta.cause, expected: Some(expected), sequence: Some(came), detail });
        self.book.bids.clear();
        self.book.asks.clear();
    }
}

/// A broken chain in words.
struct Break<'a> {
    delta: &'a Delta<'a>,
    expected: i64,
    came: i64,
}

impl fmt::Display for Break<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Break { delta, expected, came } = self;
        if came > expected {
            write!(f, "updates {expected} to {} are missing", came - 1)?;
        } else {
            write!(f, "update {expected} was expected next")?;
        }
        match delta.span.previous {
            Some(previous) => write!(f, ": a delta to update {} came that follows update {previous}", delta.span.last),
            None => write!(f, ": a delta of updates {} to {} came", delta.span.first, delta.span.last),
        }
    }
}

/// Price and size of a level in words.
struct Level(Option<(i128, i128)>);

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((price, size)) => write!(f, "{} x {}", Decimal::from_units(price), Decimal::from_units(size)),
            None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
