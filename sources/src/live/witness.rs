//! Books kept beside a connection, for venues whose checksums alone tell that a change is missing.
//!
//! What comes over a channel is decoded by the venue's own dialect, as it will be decoded later, and the book that it makes is held to
//! the checksums that it carries. So what is noticed here is what the operator `book` will notice from the same bytes, and the channel
//! is subscribed to anew while they are still on their way to it.
//!
//! A snapshot without a checksum begins no book: where a venue sends none, nothing is kept, and a frame costs its decoding.

use arrow::array::RecordBatch;
use hashbrown::HashMap;
use model::book::checksum::Checksum;
use model::book::levels::{Levels, Side};
use model::columns::{integer, numbers};
use model::dialect::{Dialect, FrameRef, Records};
use model::kinds::{BOOK_DELTA, BOOK_SNAPSHOT, BookDeltaRows, BookSnapshotRows};

use crate::dialect;

/// What keeps the books of a connection's channels.
pub(super) struct Witness {
    dialect: Box<dyn Dialect>,
    records: Records,
    books: HashMap<usize, Book, ahash::RandomState>,
}

/// A book that begins with a snapshot.
struct Book {
    bids: Side,
    asks: Side,
    /// How many levels a side may have.
    depth: Option<usize>,
}

impl Witness {
    /// A witness of frames of this dialect.
    ///
    /// # Panics
    /// There is no such dialect.
    pub(super) fn new(dialect: &str) -> Witness {
        Witness {
            dialect: dialect::make(dialect).expect("a market's dialect is one that there is"),
            records: Records::wanting([&*BOOK_DELTA.name, &*BOOK_SNAPSHOT.name]),
            books: HashMap::default(),
        }
    }

    /// Hears a frame of a channel. Whether the book is what its checksum says; one that is not is given up until the next snapshot.
    ///
    /// What cannot be decoded says nothing: the decoder will tell, and the next checksum, too.
    pub(super) fn agrees(&mut self, channel: usize, topic: &str, frame: &[u8]) -> bool {
        // No checksum depends on when a frame came, and on which it was.
        let frame = FrameRef { receive_time: Some(0), frame: 0, topic: Some(topic), payload: frame };
        if self.dialect.decode(frame, &mut self.records).is_err() {
            return true;
        }
        let agrees = self.records.finish().iter().all(|(kind, rows)| {
            let taken = if kind.name == BOOK_SNAPSHOT.name { self.begin(channel, rows) } else { self.change(channel, rows) };
            taken.unwrap_or(false)
        });
        if !agrees {
            self.books.remove(&channel);
        }
        agrees
    }

    /// Takes snapshots. An error is what no book can take.
    fn begin(&mut self, channel: usize, rows: &RecordBatch) -> Result<bool, String> {
        let rows = BookSnapshotRows::of(rows).map_err(|error| error.to_string())?;
        for row in 0..rows.venue.len() {
            self.books.remove(&channel);
            let Some(checksum) = Checksum::of_row(rows.venue, row, [rows.checksum, rows.price_digits, rows.quantity_digits])? else {
                continue;
            };
            let depth = integer(rows.depth, row).and_then(|depth| usize::try_from(depth).ok());
            let mut book = Book { bids: Side::bids(), asks: Side::asks(), depth };
            book.set(
                Levels::new(numbers(rows.bid_prices, row), numbers(rows.bid_quantities, row))?,
                Levels::new(numbers(rows.ask_prices, row), numbers(rows.ask_quantities, row))?,
            );
            let agrees = book.agrees(checksum);
            self.books.insert(channel, book);
            if !agrees {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes changes. An error is what no book can take.
    fn change(&mut self, channel: usize, rows: &RecordBatch) -> Result<bool, String> {
        let Some(book) = self.books.get_mut(&channel) else { return Ok(true) };
        let rows = BookDeltaRows::of(rows).map_err(|error| error.to_string())?;
        for row in 0..rows.venue.len() {
            book.set(
                Levels::new(numbers(rows.bid_prices, row), numbers(rows.bid_quantities, row))?,
                Levels::new(numbers(rows.ask_prices, row), numbers(rows.ask_quantities, row))?,
            );
            let checksum = Checksum::of_row(rows.venue, row, [rows.checksum, rows.price_digits, rows.quantity_digits])?;
            if checksum.is_some_and(|checksum| !book.agrees(checksum)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Book {
    /// Sets sizes, and drops what is too far away.
    fn set(&mut self, bids: Levels<'_>, asks: Levels<'_>) {
        self.bids.set_all(bids);
        self.asks.set_all(asks);
        if let Some(depth) = self.depth {
            self.bids.keep(depth);
            self.asks.keep(depth);
        }
    }

    fn agrees(&self, checksum: Checksum) -> bool {
        checksum.check(&self.bids, &self.asks).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A book of OKX's, whose text is short: with this action, levels and checksum.
    fn frame(action: &str, bid: &str, ask: &str, checksum: i64) -> Vec<u8> {
        let side = |level: &str| {
            let (price, size) = level.split_once(':').unwrap();
            format!(r#"[["{price}","{size}","0","1"]]"#)
        };
        let (bids, asks) = (side(bid), side(ask));
        format!(
            r#"{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"asks":{asks},"bids":{bids},"ts":"1723161253000","checksum":{checksum},"seqId":9,"prevSeqId":8}}]}}"#
        )
        .into_bytes()
    }

    fn sum(text: &str) -> i64 {
        crc32fast::hash(text.as_bytes()).cast_signed().into()
    }

    #[test]
    fn a_book_is_held_to_its_checksums_until_it_is_another() {
        let mut witness = Witness::new("okx");
        let mut agrees = |channel, action: &str, bid: &str, ask: &str, sum| witness.agrees(channel, "", &frame(action, bid, ask, sum));
        assert!(agrees(0, "update", "1:2", "3:4", 7), "it has not begun");
        assert!(agrees(0, "snapshot", "1:2", "3:4", sum("1:2:3:4")));
        assert!(agrees(1, "snapshot", "1:5", "3:4", sum("1:5:3:4")), "another channel has another book");
        assert!(agrees(0, "update", "1:0", "3:6", sum("3:6")));
        assert!(agrees(0, "update", "2:1", "3:6", 0), "without a checksum nothing is said");
        assert!(agrees(0, "update", "1:1", "3:0", sum("2:1:1:1")));
        assert!(!agrees(0, "update", "1:2", "3:1", sum("2:2:3:1")));
        assert!(agrees(0, "update", "1:2", "3:1", 7), "it is given up");
        assert!(!agrees(0, "snapshot", "1:2", "3:4", 7), "a snapshot has a checksum, too");
        assert!(agrees(0, "snapshot", "1:2", "3:4", sum("1:2:3:4")));
        assert!(agrees(1, "update", "1:6", "3:4", sum("1:6:3:4")));
        assert!(witness.agrees(0, "", b"nonsense"), "the decoder will tell");
    }

    #[test]
    fn nothing_is_kept_where_a_venue_sends_no_checksum() {
        let mut witness = Witness::new("okx");
        assert!(witness.agrees(0, "", &frame("snapshot", "1:2", "3:4", 0)));
        assert!(witness.books.is_empty());
        assert!(witness.agrees(0, "", &frame("update", "1:2", "3:4", 7)));
    }
}
