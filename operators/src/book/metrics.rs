//! What is measured on a book. Every quotient is rounded half to even at the twelfth digit, once.

use model::Decimal;
use model::kinds::{BookMetrics, BookMetricsBuilder};

use super::state::Book;
use crate::instruments::Instrument;

/// One basis point of one.
const BASIS_POINTS: Decimal = Decimal::from_integer(10_000);

/// How a book is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// How many of the best levels the imbalance is over.
    pub levels: usize,
    /// How far from the mid the depth reaches, as a fraction of it.
    pub depth: Decimal,
}

impl Measure {
    /// Appends the metrics of a book as it stands.
    pub fn push(&self, instrument: &Instrument, book: &Book, rows: &mut BookMetricsBuilder) {
        let (bid, ask) = (book.bids.best(), book.asks.best());
        let touch = bid.zip(ask).map(|(bid, ask)| Touch::new(bid, ask));
        let mid = touch.as_ref().and_then(Touch::mid);
        let width = mid.and_then(|mid| mid.abs().mul_rounded(self.depth));
        let limit = mid.zip(width);
        rows.push(BookMetrics {
            venue: &instrument.venue,
            market: &instrument.market,
            symbol: &instrument.symbol,
            event_time: book.cause.event_time.unwrap_or_default(),
            receive_time: book.cause.receive_time,
            frame: book.cause.frame,
            sequence: book.sequence,
            bid_price: bid.map(|l| Decimal::from_units(l.0)),
            bid_quantity: bid.map(|l| Decimal::from_units(l.1)),
            ask_price: ask.map(|l| Decimal::from_units(l.0)),
            ask_quantity: ask.map(|l| Decimal::from_units(l.1)),
            mid,
            microprice: touch.as_ref().and_then(Touch::microprice),
            spread: touch.as_ref().map(Touch::spread),
            spread_bps: touch
                .as_ref()
                .zip(mid)
                .and_then(|(touch, mid)| Decimal::ratio_rounded(touch.spread().mul_exact(BASIS_POINTS), mid)),
            imbalance: self.imbalance(book),
            bid_depth: Decimal::from_units(limit.map_or(0, |(mid, width)| book.bids.depth(mid.units() - width.units()))),
            ask_depth: Decimal::from_units(limit.map_or(0, |(mid, width)| book.asks.depth(mid.units() + width.units()))),
            bid_levels: book.bids.len() as i64,
            ask_levels: book.asks.len() as i64,
            bid_total: Decimal::from_units(book.bids.total()),
            ask_total: Decimal::from_units(book.asks.total()),
            oracle_checks: book.oracle_checks,
            oracle_mismatches: book.oracle_mismatches,
        });
    }

    /// (bids - asks) / (bids + asks) over the best levels.
    fn imbalance(&self, book: &Book) -> Option<Decimal> {
        let bids: i128 = book.bids.iter().take(self.levels).map(|(_, size)| size).sum();
        let asks: i128 = book.asks.iter().take(self.levels).map(|(_, size)| size).sum();
        Decimal::from_units(bids - asks).div_rounded(Decimal::from_units(bids + asks))
    }
}

/// The best levels of both sides.
struct Touch {
    bid: Decimal,
    bid_size: Decimal,
    ask: Decimal,
    ask_size: Decimal,
}

impl Touch {
    fn new(bid: (i128, i128), ask: (i128, i128)) -> Self {
        let d = Decimal::from_units;
        Touch { bid: d(bid.0), bid_size: d(bid.1), ask: d(ask.0), ask_size: d(ask.1) }
    }

    fn mid(&self) -> Option<Decimal> {
        Decimal::from_units(self.bid.units() + self.ask.units()).div_rounded(Decimal::from_integer(2))
    }

    fn spread(&self) -> Decimal {
        Decimal::from_units(self.ask.units() - self.bid.units())
    }

    /// (ask · bid size + bid · ask size) / (bid size + ask size): the mean that leans to the side with less to fill.
    /// (Stoikov's micro-price is a learned one; this is its first approximation.)
    fn microprice(&self) -> Option<Decimal> {
        let weighted = self.ask.mul_exact(self.bid_size).wrapping_add(self.bid.mul_exact(self.ask_size));
        Decimal::ratio_rounded(weighted, Decimal::from_units(self.bid_size.units() + self.ask_size.units()))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, RecordBatch};
    use model::columns;
    use model::kinds::BookMetricsRows;

    use super::*;
    use crate::cause::Cause;
    use model::book::levels::Side;

    fn d(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn measured(bids: &[(&str, &str)], asks: &[(&str, &str)]) -> RecordBatch {
        let mut book = Book {
            bids: Side::bids(),
            asks: Side::asks(),
            sequence: Some(7),
            cause: Cause { event_time: Some(1), receive_time: None, frame: Some(3) },
            contracts: false,
            depth: None,
            crossed: false,
            oracle_checks: 2,
            oracle_mismatches: 1,
        };
        bids.iter().for_each(|(p, s)| book.bids.set(d(p).units(), d(s).units()));
        asks.iter().for_each(|(p, s)| book.asks.set(d(p).units(), d(s).units()));
        let instrument = Instrument { venue: "binance".into(), market: "spot".into(), symbol: "BTC-USDT".into() };
        let mut rows = BookMetricsBuilder::default();
        Measure { levels: 2, depth: d("0.001") }.push(&instrument, &book, &mut rows);
        rows.finish()
    }

    #[test]
    fn by_hand() {
        // mid 100.05, so 10 basis points reach from 99.94995 to 100.15005.
        let rows = measured(&[("100", "3"), ("99.95", "1"), ("99.94", "50")], &[("100.1", "1"), ("100.15", "2"), ("100.2", "60")]);
        let rows = BookMetricsRows::of(&rows).unwrap();
        let text = |column| columns::number(column, 0).map(|n| n.to_string());
        assert_eq!(text(rows.mid).as_deref(), Some("100.05"));
        assert_eq!(text(rows.spread).as_deref(), Some("0.1"));
        assert_eq!(text(rows.spread_bps).as_deref(), Some("9.995002498751"));
        assert_eq!(text(rows.microprice).as_deref(), Some("100.075"));
        assert_eq!(text(rows.imbalance).as_deref(), Some("0.142857142857"));
        assert_eq!((text(rows.bid_depth).as_deref(), text(rows.ask_depth).as_deref()), (Some("4"), Some("3")));
        assert_eq!((text(rows.bid_total).as_deref(), text(rows.ask_total).as_deref()), (Some("54"), Some("63")));
        assert_eq!((rows.bid_levels.value(0), rows.ask_levels.value(0), rows.sequence.value(0)), (3, 3, 7));
        assert_eq!((rows.oracle_checks.value(0), rows.oracle_mismatches.value(0)), (2, 1));
    }

    #[test]
    fn a_missing_side_is_null_and_not_zero() {
        let rows = measured(&[("100", "3")], &[]);
        let rows = BookMetricsRows::of(&rows).unwrap();
        assert!(rows.ask_price.is_null(0) && rows.mid.is_null(0) && rows.microprice.is_null(0) && rows.spread_bps.is_null(0));
        assert_eq!(columns::number(rows.imbalance, 0), Some(Decimal::ONE));
        assert_eq!(columns::number(rows.bid_depth, 0), Some(Decimal::ZERO));
        let rows = measured(&[], &[]);
        assert!(BookMetricsRows::of(&rows).unwrap().imbalance.is_null(0));
    }
}
