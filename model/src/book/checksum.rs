//! A venue's checksum of its book: whether the levels kept here are those that the venue keeps.
//!
//! Where a venue numbers no updates, this alone tells that one is missing.
//!
//! | venue | over | text |
//! |---|---|---|
//! | Kraken | the best 10 asks, then the best 10 bids | price and size of each level as written, without point and leading zeros |
//! | OKX | the best 25 levels, each a bid and an ask | `price:size` of the bid and of the ask, all joined by `:` |
//!
//! Both are CRC-32 (ISO-HDLC); OKX gives it as a number with sign. Kraken's text is that of a fixed number of fraction
//! digits, which the records carry; OKX writes numbers without trailing zeros, as [`Decimal`] does. On the recordings this
//! agrees with all 4,269 checksums of Kraken and all 290 of OKX.

use std::fmt::{self, Write};

use arrow::array::{DictionaryArray, Int64Array};
use arrow::datatypes::Int32Type;
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use super::levels::Side;
use crate::Decimal;
use crate::columns::{integer, label};
use crate::decimal::SCALE;

/// How a venue works out its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// Kraken's, of prices and sizes with so many fraction digits.
    Kraken {
        /// Of prices.
        price_digits: u8,
        /// Of sizes.
        quantity_digits: u8,
    },
    /// OKX's.
    Okx,
}

/// A checksum and how it was worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// How.
    rule: Rule,
    /// The venue's, as the 32 bits that it is.
    bits: u32,
}

impl Checksum {
    /// The checksum of a record.
    ///
    /// # Errors
    /// It is none of this venue's.
    pub fn of(venue: &str, sum: i64, digits: Option<(i64, i64)>) -> Result<Self, String> {
        let digit = |digits: i64| u8::try_from(digits).ok().filter(|digits| *digits <= SCALE.unsigned_abs());
        let rule = match (venue, digits) {
            ("kraken", Some((price, quantity))) => match (digit(price), digit(quantity)) {
                (Some(price_digits), Some(quantity_digits)) => Rule::Kraken { price_digits, quantity_digits },
                _ => return Err(format!("numbers of {price} and {quantity} fraction digits are no prices and sizes")),
            },
            ("kraken", None) => return Err("a checksum of Kraken's needs `price_digits` and `quantity_digits`".into()),
            ("okx", _) => Rule::Okx,
            _ => return Err(format!("the checksums of `{venue}` are not known")),
        };
        // With sign or without, it is the same 32 bits.
        let bits = u32::try_from(sum).or_else(|_| i32::try_from(sum).map(i32::cast_unsigned));
        bits.map(|bits| Checksum { rule, bits }).map_err(|_| format!("the checksum {sum} has more than 32 bits"))
    }

    /// The checksum of a row, which stands in three columns: the sum, and the fraction digits of prices and sizes.
    ///
    /// # Errors
    /// It is none of this venue's.
    pub fn of_row(
        venue: &DictionaryArray<Int32Type>,
        row: usize,
        [sum, price, quantity]: [&Int64Array; 3],
    ) -> Result<Option<Self>, String> {
        let Some(sum) = integer(sum, row) else { return Ok(None) };
        let digits = integer(price, row).zip(integer(quantity, row));
        Checksum::of(label(venue, row).unwrap_or_default(), sum, digits).map(Some)
    }

    /// Whether it is that of a book; else the checksum of the book.
    ///
    /// # Errors
    /// The checksum of the book, where it is another.
    pub fn check(&self, bids: &Side, asks: &Side) -> Result<(), Mismatch> {
        let found = self.rule.sum(bids, asks);
        if found == self.bits { Ok(()) } else { Err(Mismatch { expected: self.bits, found }) }
    }
}

/// A book that is not the venue's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The venue's checksum.
    pub expected: u32,
    /// That of the book here.
    pub found: u32,
}

impl Rule {
    fn sum(self, bids: &Side, asks: &Side) -> u32 {
        let mut text = Text(Hasher::new());
        match self {
            Rule::Kraken { price_digits, quantity_digits } => {
                for (price, size) in asks.iter().take(10).chain(bids.iter().take(10)) {
                    text.digits(price, price_digits);
                    text.digits(size, quantity_digits);
                }
            }
            Rule::Okx => {
                let (mut bids, mut asks) = (bids.iter(), asks.iter());
                let mut between = "";
                for level in (0..25).flat_map(|_| [bids.next(), asks.next()]).flatten() {
                    let (price, size) = (Decimal::from_units(level.0), Decimal::from_units(level.1));
                    text.put(format_args!("{between}{price}:{size}"));
                    between = ":";
                }
            }
        }
        text.0.finalize()
    }
}

/// Text that is summed while it is written.
struct Text(Hasher);

impl Text {
    fn put(&mut self, text: fmt::Arguments<'_>) {
        self.write_fmt(text).expect("summing cannot fail");
    }

    /// A number as it is written with so many fraction digits, without point and leading zeros.
    fn digits(&mut self, units: i128, digits: u8) {
        self.put(format_args!("{}", units / 10_i128.pow(u32::from(SCALE.unsigned_abs() - digits))));
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::levels::Levels;
    use super::*;

    fn side(mut side: Side, levels: &[(&str, &str)]) -> Side {
        let units = |text: &str| text.parse::<Decimal>().unwrap().units();
        let (prices, sizes): (Vec<i128>, Vec<i128>) = levels.iter().map(|(price, size)| (units(price), units(size))).unzip();
        side.set_all(Levels::new(&prices, &sizes).unwrap());
        side
    }

    /// The example of Kraken's manual, "Spot websockets (v1): book checksum".
    #[test]
    fn kraken() {
        let asks = [
            ("0.05005", "0.00000500"),
            ("0.05010", "0.00000500"),
            ("0.05015", "0.00000500"),
            ("0.05020", "0.00000500"),
            ("0.05025", "0.00000500"),
            ("0.05030", "0.00000500"),
            ("0.05035", "0.00000500"),
            ("0.05040", "0.00000500"),
            ("0.05045", "0.00000500"),
            ("0.05050", "0.00000500"),
        ];
        let bids = [
            ("0.05000", "0.00000500"),
            ("0.04995", "0.00000500"),
            ("0.04990", "0.00000500"),
            ("0.04980", "0.00000500"),
            ("0.04975", "0.00000500"),
            ("0.04970", "0.00000500"),
            ("0.04965", "0.00000500"),
            ("0.04960", "0.00000500"),
            ("0.04955", "0.00000500"),
            ("0.04950", "0.00000500"),
        ];
        let (bids, asks) = (side(Side::bids(), &bids), side(Side::asks(), &asks));
        let sum = |sum, digits| Checksum::of("kraken", sum, digits).unwrap().check(&bids, &asks);
        assert_eq!(sum(974_947_235, Some((5, 8))), Ok(()));
        assert_eq!(sum(974_947_236, Some((5, 8))), Err(Mismatch { expected: 974_947_236, found: 974_947_235 }));
        assert!(sum(974_947_235, Some((4, 8))).is_err());
        assert!(Checksum::of("kraken", 1, None).is_err());
        assert!(Checksum::of("kraken", 1, Some((13, 8))).is_err());
        assert!(Checksum::of("kraken", 1, Some((-1, 8))).is_err());
    }

    #[test]
    fn okx() {
        // One side has fewer levels: the other goes on alone.
        let (bids, asks) = (side(Side::bids(), &[("3366.1", "7"), ("3366", "6")]), side(Side::asks(), &[("3366.8", "9")]));
        let bits = crc32fast::hash(b"3366.1:7:3366.8:9:3366:6");
        let check = |sum: i64| Checksum::of("okx", sum, None).unwrap().check(&bids, &asks);
        assert_eq!((check(bits.into()), check(bits.cast_signed().into())), (Ok(()), Ok(())));
        assert!(check(7).is_err());
        assert!(Checksum::of("okx", 1 << 32, None).is_err());
        assert!(Checksum::of("binance", 1, None).is_err());
    }
}
