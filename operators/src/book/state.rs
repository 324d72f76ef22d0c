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
//! bridge it), and they are bounded in number and bytes. Deltas without numbers cannot wait: where a venue numbers none, its
//! stream begins with a snapshot and the order of its frames is the chain, which the venue's checksum holds together. Where there
//! is none of these either, the source alone knows whether a change is missing, and tells.

use std::collections::VecDeque;
use std::fmt;

use model::Decimal;
use model::book::checksum::{Checksum, Mismatch};
use model::book::levels::{Levels, Side};
use model::time::Micros;
use serde::{Deserialize, Serialize};

use super::oracle::{Oracle, Quote};
use super::rules::{Fit, Span, begins_anew};
use crate::cause::Cause;

/// A change of a book.
#[derive(Clone, Copy, Debug)]
pub struct Delta<'a> {
    /// Where it came from.
    pub cause: Cause,
    /// Its update numbers, where the venue has them.
    pub span: Option<Span>,
    /// New sizes of bids.
    pub bids: Levels<'a>,
    /// New sizes of asks.
    pub asks: Levels<'a>,
    /// Whether sizes are contracts.
    pub contracts: bool,
    /// The venue's checksum of the book after it.
    pub checksum: Option<Checksum>,
}

/// A whole book, as the venue says.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// Where it came from.
    pub cause: Cause,
    /// The last update that it contains, where the venue numbers them.
    pub sequence: Option<i64>,
    /// Its bids.
    pub bids: Levels<'a>,
    /// Its asks.
    pub asks: Levels<'a>,
    /// Whether sizes are contracts.
    pub contracts: bool,
    /// How many levels a side may have; those farther away are to be dropped.
    pub depth: Option<usize>,
    /// The venue's checksum of it.
    pub checksum: Option<Checksum>,
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
    /// The venue's checksum is that of another book.
    Checksum,
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
            Event::Checksum => "checksum",
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
    /// The book was wrong already before it became known: what is yet to be told of it would be, too.
    fn voided(&mut self);
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
    /// The last update applied, where the venue numbers them.
    pub sequence: Option<i64>,
    /// What made it so.
    pub cause: Cause,
    /// Whether sizes are contracts.
    pub contracts: bool,
    /// How many levels a side may have.
    pub depth: Option<usize>,
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
    checksum: Option<Checksum>,
}

impl Held {
    fn of(delta: &Delta<'_>, span: Span) -> Self {
        let own = |levels: Levels<'_>| (levels.prices.to_vec(), levels.sizes.to_vec());
        let (bids, asks) = (own(delta.bids), own(delta.asks));
        Held { cause: delta.cause, span, bids, asks, contracts: delta.contracts, checksum: delta.checksum }
    }

    fn delta(&self) -> Delta<'_> {
        let (bids, asks) = (Levels { prices: &self.bids.0, sizes: &self.bids.1 }, Levels { prices: &self.asks.0, sizes: &self.asks.1 });
        Delta { cause: self.cause, span: Some(self.span), bids, asks, contracts: self.contracts, checksum: self.checksum }
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
    /// What the book was last made of had a checksum.
    summed: bool,
    oracle: Oracle,
    tally: Tally,
}

impl Default for Machine {
    fn default() -> Self {
        let book = Book {
            bids: Side::bids(),
            asks: Side::asks(),
            sequence: None,
            cause: Cause::default(),
            contracts: false,
            depth: None,
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
            summed: false,
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
        let fit = match (self.phase, delta.span, self.book.sequence) {
            (Phase::Idle | Phase::Buffering, Some(span), _) => return self.wait(&delta, span, limits, watch),
            (Phase::Idle | Phase::Buffering, None, _) => return self.pass_over(&delta, watch),
            (Phase::Seeded, Some(span), Some(sequence)) => span.after_snapshot(sequence),
            (Phase::Live, Some(span), Some(sequence)) => span.after_delta(sequence),
            // Without numbers the order of the frames is the chain.
            (Phase::Seeded | Phase::Live, ..) => Fit::Follows,
        };
        match (fit, delta.span) {
            (Fit::Stale, _) => self.tally.stale += 1,
            (Fit::Gap { expected, came }, Some(span)) => {
                self.lose(&delta, span, expected, came, watch);
                self.wait(&delta, span, limits, watch);
            }
            (Fit::Follows | Fit::Gap { .. }, _) => self.follow(&delta, watch),
        }
        fit != Fit::Stale
    }

    /// Takes a snapshot of the venue. Returns whether it was of use: applied, or compared.
    pub fn snapshot(&mut self, snapshot: Snapshot<'_>, watch: &mut impl Watch) -> bool {
        match self.phase {
            Phase::Idle => self.seed(&snapshot, 0, watch),
            Phase::Buffering => return self.splice(&snapshot, watch),
            // One without a number is as new as its frame.
            Phase::Seeded | Phase::Live
                if snapshot.sequence.is_some_and(|sequence| {
                    Some(sequence) < self.book.sequence && !begins_anew(sequence, snapshot.cause.event_time, self.book.cause.event_time)
                }) =>
            {
                return false;
            }
            Phase::Seeded | Phase::Live
                if snapshot.sequence.is_some() && snapshot.sequence == self.book.sequence && self.agrees(&snapshot) =>
            {
                let detail = format_args!(
                    "a snapshot{} agrees with the book in all its {} levels",
                    At(snapshot.sequence),
                    snapshot.bids.len() + snapshot.asks.len()
                );
                watch.happened(Happening {
                    event: Event::Snapshot,
                    cause: snapshot.cause,
                    expected: None,
                    sequence: snapshot.sequence,
                    detail,
                });
                self.hold_to(snapshot.checksum, snapshot.cause, watch);
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
        let ahead = self.book().is_none_or(|book| Some(quote.sequence) > book.sequence);
        if ahead {
            self.oracle.hold(quote);
        }
        ahead
    }

    /// Hears that changes are missing. Returns whether that was of use: a book whose changes have numbers or checksums notices by
    /// itself, and knows better what it lacks.
    pub fn missing(&mut self, cause: Cause, watch: &mut impl Watch) -> bool {
        if self.book().is_none() || self.book.sequence.is_some() || self.summed {
            return false;
        }
        watch.leaving(&self.book, None);
        self.tally.gaps += 1;
        self.give_up(cause, watch);
        let detail = format_args!("changes are missing, says the source; the book is invalid until the next snapshot");
        watch.happened(Happening { event: Event::Gap, cause, expected: None, sequence: None, detail });
        self.phase = Phase::Buffering;
        true
    }

    /// Passes over a delta that no snapshot can be followed by: what it changes is in the next snapshot.
    fn pass_over(&mut self, delta: &Delta<'_>, watch: &mut impl Watch) -> bool {
        self.tally.dropped += 1;
        if self.phase != Phase::Buffering {
            self.phase = Phase::Buffering;
            let detail = format_args!("deltas without numbers are passed over until there is a snapshot");
            watch.happened(Happening { event: Event::Buffering, cause: delta.cause, expected: None, sequence: None, detail });
        }
        false
    }

    /// Keeps a delta until there is a snapshot.
    fn wait(&mut self, delta: &Delta<'_>, span: Span, limits: Limits, watch: &mut impl Watch) -> bool {
        if self.phase != Phase::Buffering {
            self.phase = Phase::Buffering;
            self.overflowed = false;
            let detail = format_args!("deltas wait for a snapshot from update {} on", span.first);
            watch.happened(Happening { event: Event::Buffering, cause: delta.cause, expected: None, sequence: Some(span.last), detail });
        }
        match self.waiting.back().map(|last| span.after_delta(last.span.last)) {
            Some(Fit::Stale) => {
                self.tally.stale += 1;
                return false;
            }
            Some(Fit::Gap { expected, came }) => {
                self.tally.gaps += 1;
                self.tally.dropped += self.waiting.len() as u64;
                let detail = format_args!(
                    "{}; {} deltas that waited for a snapshot are useless",
                    Break { span, expected, came },
                    self.waiting.len()
                );
                watch.happened(Happening { event: Event::Gap, cause: delta.cause, expected: Some(expected), sequence: Some(came), detail });
                self.waiting.clear();
                self.waiting_bytes = 0;
            }
            Some(Fit::Follows) | None => {}
        }
        let held = Held::of(delta, span);
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
        let Some(sequence) = snapshot.sequence else {
            // What waits has numbers, and this has none to compare them with.
            return self.start_over(snapshot, watch);
        };
        let fit = |held: &Held| held.span.after_snapshot(sequence);
        let stale = self.waiting.iter().take_while(|held| fit(held) == Fit::Stale).count();
        if let Some(first) = self.waiting.get(stale)
            && let Fit::Gap { expected, .. } = fit(first)
        {
            let before = self.waiting.back().and_then(|last| last.cause.event_time);
            if begins_anew(sequence, snapshot.cause.event_time, before) {
                // What waits was numbered before.
                return self.start_over(snapshot, watch);
            }
            let detail = format_args!(
                "a snapshot at update {sequence} is older than all {} waiting deltas, which begin at update {}: a newer one is needed",
                self.waiting.len(),
                first.span.first
            );
            watch.happened(Happening {
                event: Event::Buffering,
                cause: snapshot.cause,
                expected: Some(expected),
                sequence: snapshot.sequence,
                detail,
            });
            return false;
        }
        self.tally.stale += stale as u64;
        self.seed(snapshot, stale, watch);
        self.waiting_bytes = 0;
        for held in std::mem::take(&mut self.waiting).iter().skip(stale) {
            if self.book().is_none() {
                // Its checksum, or that of a delta before this one, is another book's.
                self.tally.dropped += 1;
                continue;
            }
            self.follow(&held.delta(), watch);
        }
        true
    }

    /// Makes the book a snapshot that nothing of what waits can follow.
    fn start_over(&mut self, snapshot: &Snapshot<'_>, watch: &mut impl Watch) -> bool {
        self.tally.dropped += self.waiting.len() as u64;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.seed(snapshot, 0, watch);
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
        self.book.depth = snapshot.depth;
        self.book.cause = Cause { event_time: snapshot.cause.event_time.or(self.book.cause.event_time), ..snapshot.cause };
        self.book.contracts = snapshot.contracts;
        let detail = format_args!(
            "the book is a snapshot{} with {} bids and {} asks; {stale} waiting deltas were older",
            At(snapshot.sequence),
            snapshot.bids.len(),
            snapshot.asks.len()
        );
        watch.happened(Happening { event: Event::Snapshot, cause: snapshot.cause, expected: None, sequence: snapshot.sequence, detail });
        self.cross(snapshot.cause, watch);
        self.hold_to(snapshot.checksum, snapshot.cause, watch);
    }

    /// Applies a delta that continues the book.
    fn follow(&mut self, delta: &Delta<'_>, watch: &mut impl Watch) {
        if self.phase != Phase::Live {
            self.phase = Phase::Live;
            let (update, last) = (Update(delta.span.map(|span| span.first)), delta.span.map(|span| span.last));
            let detail = format_args!("{update} continues the snapshot{}", At(self.book.sequence));
            watch.happened(Happening { event: Event::Live, cause: delta.cause, expected: None, sequence: last, detail });
        }
        watch.leaving(&self.book, delta.cause.event_time);
        self.book.bids.set_all(delta.bids);
        self.book.asks.set_all(delta.asks);
        if let Some(depth) = self.book.depth {
            self.book.bids.keep(depth);
            self.book.asks.keep(depth);
        }
        self.book.sequence = delta.span.map(|span| span.last);
        self.book.cause = delta.cause;
        self.book.contracts = delta.contracts;
        self.tally.applied += 1;
        self.cross(delta.cause, watch);
        if let Some(quote) = self.book.sequence.and_then(|sequence| self.oracle.at(sequence)) {
            self.compare(&quote, watch);
        }
        if self.hold_to(delta.checksum, delta.cause, watch) {
            watch.applied(&self.book);
        }
    }

    /// Holds the book to the venue's checksum; gives it up where that is another's. Returns whether it still stands.
    fn hold_to(&mut self, checksum: Option<Checksum>, cause: Cause, watch: &mut impl Watch) -> bool {
        let checked = checksum.map_or(Ok(()), |checksum| checksum.check(&self.book.bids, &self.book.asks));
        self.summed = checksum.is_some();
        let Err(Mismatch { expected, found }) = checked else { return true };
        watch.voided();
        self.give_up(cause, watch);
        let detail = format_args!(
            "the venue's checksum is {expected}, that of the book{} {found}: it is invalid until the next snapshot",
            At(self.book.sequence)
        );
        watch.happened(Happening { event: Event::Checksum, cause, expected: None, sequence: self.book.sequence, detail });
        self.phase = Phase::Buffering;
        false
    }

    /// Tells when the book becomes or stops being crossed.
    fn cross(&mut self, cause: Cause, watch: &mut impl Watch) {
        let (bid, ask) = (self.book.bids.best(), self.book.asks.best());
        let crossed = matches!((bid, ask), (Some(bid), Some(ask)) if bid.0 >= ask.0);
        if std::mem::replace(&mut self.book.crossed, crossed) != crossed {
            let (event, relation) = if crossed { (Event::Crossed, "not below") } else { (Event::Uncrossed, "below") };
            let detail = format_args!("best bid {} is {relation} best ask {}", Level(bid), Level(ask));
            watch.happened(Happening { event, cause, expected: None, sequence: self.book.sequence, detail });
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
                sequence: self.book.sequence,
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
    fn lose(&mut self, delta: &Delta<'_>, span: Span, expected: i64, came: i64, watch: &mut impl Watch) {
        watch.leaving(&self.book, None);
        self.tally.gaps += 1;
        self.give_up(delta.cause, watch);
        let detail =
            format_args!("{}; the book{} is invalid until the next snapshot", Break { span, expected, came }, At(self.book.sequence));
        watch.happened(Happening { event: Event::Gap, cause: delta.cause, expected: Some(expected), sequence: Some(came), detail });
    }

    /// Empties a book that cannot be trusted.
    fn give_up(&mut self, cause: Cause, watch: &mut impl Watch) {
        if std::mem::take(&mut self.book.crossed) {
            let detail = format_args!("the crossed book became invalid");
            watch.happened(Happening { event: Event::Uncrossed, cause, expected: None, sequence: self.book.sequence, detail });
        }
        self.book.bids.clear();
        self.book.asks.clear();
    }
}

/// A change in words.
struct Update(Option<i64>);

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "update {number}"),
            None => f.write_str("a change"),
        }
    }
}

/// Where a book stands, in words.
struct At(Option<i64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |sequence| write!(f, " at update {sequence}"))
    }
}

/// A broken chain in words.
struct Break {
    span: Span,
    expected: i64,
    came: i64,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Break { span, expected, came } = self;
        if came > expected {
            write!(f, "updates {expected} to {} are missing", came - 1)?;
        } else {
            write!(f, "update {expected} was expected next")?;
        }
        match span.previous {
            Some(previous) => write!(f, ": a delta to update {} came that follows update {previous}", span.last),
            None => write!(f, ": a delta of updates {} to {} came", span.first, span.last),
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
