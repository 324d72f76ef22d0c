//! Rows of several kinds in the order of their source, as the state machine takes them.

use model::book::checksum::Checksum;
use model::book::levels::Levels;
use model::columns::{self, integer, number, numbers};
use model::kinds::{BOOK_DELTA, BOOK_SNAPSHOT, BookDeltaRows, BookSnapshotRows, GAP, GapRows, QuoteRows};
use model::{Batch, Origin};

use super::oracle::Quote;
use super::rules::Span;
use super::state::{Delta, Snapshot};
use crate::cause::{Cause, Causes};

/// A batch opened by its kind.
#[derive(Debug)]
pub enum View<'a> {
    /// Of deltas.
    Deltas(BookDeltaRows<'a>),
    /// Of snapshots.
    Snapshots(BookSnapshotRows<'a>),
    /// Of quotes.
    Quotes(QuoteRows<'a>),
    /// Of what a source misses.
    Gaps(GapRows<'a>),
}

/// A row for the state machine.
#[derive(Debug)]
pub enum Row<'a> {
    /// A delta.
    Delta(Delta<'a>),
    /// A snapshot of the venue.
    Snapshot(Snapshot<'a>),
    /// The venue's best bid and ask.
    Quote(Quote),
    /// Changes are missing before what follows.
    Missing(Cause),
    /// Not meant for the book: a snapshot that a book made, a quote without a number, missing trades.
    Foreign,
}

impl<'a> View<'a> {
    /// Opens a batch.
    ///
    /// # Errors
    /// Its columns are not those of its kind.
    pub fn of(batch: &'a Batch) -> Result<Self, columns::SchemaMismatch> {
        Ok(match &batch.kind.name {
            name if *name == BOOK_DELTA.name => View::Deltas(BookDeltaRows::of(&batch.rows)?),
            name if *name == BOOK_SNAPSHOT.name => View::Snapshots(BookSnapshotRows::of(&batch.rows)?),
            name if *name == GAP.name => View::Gaps(GapRows::of(&batch.rows)?),
            _ => View::Quotes(QuoteRows::of(&batch.rows)?),
        })
    }

    /// A row.
    ///
    /// # Errors
    /// Says why no book can take it.
    pub fn row(&self, row: usize, cause: Cause) -> Result<Row<'a>, String> {
        Ok(match self {
            View::Deltas(rows) => {
                let span = match (integer(rows.first_sequence, row), integer(rows.last_sequence, row)) {
                    (Some(first), Some(last)) if first > last => {
                        return Err(format!("the first update {first} is greater than the last, {last}"));
                    }
                    (Some(first), Some(last)) => Some(Span { first, last, previous: integer(rows.previous_sequence, row) }),
                    (None, None) => None,
                    _ => return Err("it has one of the numbers of its first and last update, but not the other".into()),
                };
                let checksum = Checksum::of_row(rows.venue, row, [rows.checksum, rows.price_digits, rows.quantity_digits])?;
                let bids =
                    Levels::new(numbers(rows.bid_prices, row), numbers(rows.bid_quantities, row)).map_err(|e| format!("bids: {e}"))?;
                let asks =
                    Levels::new(numbers(rows.ask_prices, row), numbers(rows.ask_quantities, row)).map_err(|e| format!("asks: {e}"))?;
                Row::Delta(Delta { cause, span, bids, asks, contracts: rows.contracts.value(row), checksum })
            }
            View::Snapshots(rows) if columns::label(rows.origin, row) != Some("venue") => Row::Foreign,
            View::Snapshots(rows) => {
                let bids =
                    Levels::new(numbers(rows.bid_prices, row), numbers(rows.bid_quantities, row)).map_err(|e| format!("bids: {e}"))?;
                let asks =
                    Levels::new(numbers(rows.ask_prices, row), numbers(rows.ask_quantities, row)).map_err(|e| format!("asks: {e}"))?;
                let checksum = Checksum::of_row(rows.venue, row, [rows.checksum, rows.price_digits, rows.quantity_digits])?;
                let depth = integer(rows.depth, row).map(|depth| usize::try_from(depth).map_err(|_| format!("the depth is {depth}")));
                Row::Snapshot(Snapshot {
                    cause,
                    sequence: integer(rows.sequence, row),
                    bids,
                    asks,
                    contracts: rows.contracts.value(row),
                    depth: depth.transpose()?,
                    checksum,
                })
            }
            View::Gaps(rows) if columns::label(rows.channel, row) == Some("book") && columns::label(rows.event, row) == Some("found") => {
                Row::Missing(cause)
            }
            View::Gaps(_) => Row::Foreign,
            View::Quotes(rows) => match integer(rows.sequence, row) {
                None => Row::Foreign,
                Some(sequence) => {
                    let level = |price, size| Some((number(price, row)?.units(), number(size, row).unwrap_or_default().units()));
                    Row::Quote(Quote {
                        cause,
                        sequence,
                        bid: level(rows.bid_price, rows.bid_quantity),
                        ask: level(rows.ask_price, rows.ask_quantity),
                    })
                }
            },
        })
    }
}

/// The rows of batches of one origin, as (batch, row), in the order of their frames. A row without a frame stays
/// behind the one before it in its batch.
pub fn in_source_order<'a>(batches: &'a [(Causes<'a>, usize)]) -> impl Iterator<Item = (usize, usize)> + 'a {
    let mut next = vec![0; batches.len()];
    std::iter::from_fn(move || {
        let waiting = (0..batches.len()).filter(|b| next[*b] < batches[*b].1);
        let first = waiting.min_by_key(|b| batches[*b].0.frame(next[*b]))?;
        next[first] += 1;
        Some((first, next[first] - 1))
    })
}

/// Splits batches, sorted by origin, into those of one origin each.
pub fn by_origin(batches: &[Batch]) -> impl Iterator<Item = (Origin, &[Batch])> {
    batches.chunk_by(|a, b| a.origin == b.origin).map(|group| (group[0].origin, group))
}
