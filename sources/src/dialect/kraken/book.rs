//! Books: levels, and what they say besides prices and sizes.
//!
//! Spot numbers no updates. What holds a book together is a checksum over its best levels as they are written, so the
//! records carry with how many fraction digits prices and sizes were: the greatest number among the levels of the frame,
//! because a venue that writes a fixed number of digits writes it at every level. Two spellings say nothing of it: zero
//! without a fraction, as some write the size of a level that is gone, and exponents. A frame that does not tell the digits
//! of both gives no checksum, since there is nothing to check it by.

use model::Decimal;
use model::decimal::SCALE;
use model::digits::{eight, leading_digits};
use model::time::Micros;

use super::prints::seconds;
use crate::dialect::fields::{Event, Keys, Refusal, decimal, excerpt, malformed, refuse};
use crate::dialect::json::{Flaw, Malformed, Scanner, Token, Value};
use crate::dialect::reading::{Levels, Side};

/// A side of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Bids,
    Asks,
}

/// The levels of a frame.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) levels: Levels,
    price: Fraction,
    quantity: Fraction,
    /// The latest time of a level, where levels carry times.
    pub(super) time: Option<Micros>,
}

/// The greatest number of fraction digits that was written.
#[derive(Clone, Copy, Debug, Default)]
struct Fraction(Option<usize>);

impl Fraction {
    #[inline]
    fn note(&mut self, lexeme: &[u8]) {
        // Mostly as many as before.
        if let Some(before @ ..=8) = self.0
            && let Some((point, digits)) = lexeme.len().checked_sub(before + 1).and_then(|at| lexeme[at..].split_first())
            && *point == b'.'
            && leading_digits(eight(digits)) == before
        {
            return;
        }
        let digits = match lexeme.iter().position(|byte| !byte.is_ascii_digit()) {
            None if lexeme.iter().all(|digit| *digit == b'0') => return,
            None => 0,
            Some(at) if lexeme[at] == b'.' && lexeme[at + 1..].iter().all(u8::is_ascii_digit) => lexeme.len() - at - 1,
            Some(_) => return,
        };
        self.0 = self.0.max(Some(digits));
    }

    /// As a column has it; none where there are more digits than numbers have.
    fn digits(self) -> Option<i64> {
        i64::try_from(self.0?).ok().filter(|digits| *digits <= i64::from(SCALE))
    }
}

/// A checksum, and the fraction digits of prices and sizes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checked {
    pub(super) checksum: Option<i64>,
    pub(super) price_digits: Option<i64>,
    pub(super) quantity_digits: Option<i64>,
}

impl Book {
    pub(super) fn clear(&mut self) {
        for side in [&mut self.levels.bids, &mut self.levels.asks] {
            side.prices.clear();
            side.quantities.clear();
        }
        (self.price, self.quantity, self.time) = (Fraction::default(), Fraction::default(), None);
    }

    /// How many levels the longer side has.
    pub(super) fn longest(&self) -> usize {
        self.levels.bids.prices.len().max(self.levels.asks.prices.len())
    }

    /// What the frame says of its checksum.
    pub(super) fn checked(&self, checksum: Option<i64>) -> Checked {
        let (price_digits, quantity_digits) = (self.price.digits(), self.quantity.digits());
        Checked { checksum: checksum.filter(|_| price_digits.is_some() && quantity_digits.is_some()), price_digits, quantity_digits }
    }

    #[inline]
    fn push(&mut self, text: &[u8], name: &'static str, which: Which, price: Value, quantity: Value) -> Result<(), Refusal> {
        let numbers = (decimal(text, name, price)?, decimal(text, name, quantity)?);
        self.price.note(price.of(text));
        self.quantity.note(quantity.of(text));
        let side = match which {
            Which::Bids => &mut self.levels.bids,
            Which::Asks => &mut self.levels.asks,
        };
        push(side, numbers);
        Ok(())
    }

    /// Reads the levels `[["price","size",time,…],…]` of a member; a time is a number of seconds, in quotes or not.
    pub(super) fn read_arrays<K: Keys>(&mut self, event: Event<'_, K>, name: &'static str, which: Which) -> Result<(), Refusal> {
        let text = event.text;
        let mut refused = Ok(());
        let list = event.of_type(name, Token::Array, "a list of levels")?;
        let walk = Scanner::at(text, list).array(|s| {
            let mut before = s.clone();
            let (mut parts, mut count) = ([Value::default(); 3], 0);
            if s.peek() == Some(b'[') {
                s.array(|s| {
                    let value = s.value()?;
                    if let Some(part) = parts.get_mut(count) {
                        *part = value;
                    }
                    count += 1;
                    Ok(())
                })?;
            } else {
                s.value()?;
            }
            if refused.is_ok() {
                let [price, quantity, time] = parts;
                refused = if price.token == Token::Text && quantity.token == Token::Text && count >= 3 {
                    self.push(text, name, which, price, quantity)
                        .and_then(|()| seconds(text, name, time))
                        .map(|time| self.time = self.time.max(time))
                } else {
                    Err(no_level(text, name, before.value()?, "[price, size, time]"))
                };
            }
            Ok(())
        });
        walk.map_err(malformed)?;
        refused
    }

    /// Reads the levels `[{"price":1.5,"qty":2.25},…]` of a member.
    pub(super) fn read_objects<K: Keys>(&mut self, event: Event<'_, K>, name: &'static str, which: Which) -> Result<(), Refusal> {
        objects(event, name, |price, quantity| self.push(event.text, name, which, price, quantity))
    }
}

/// Appends a level.
#[inline]
pub(super) fn push(side: &mut Side, (price, quantity): (Decimal, Decimal)) {
    side.prices.push(price);
    side.quantities.push(quantity);
}

/// Hands over price and size of each level `{"price":1.5,"qty":2.25}` of a member.
#[inline]
pub(super) fn objects<K: Keys>(
    event: Event<'_, K>,
    name: &'static str,
    mut level: impl FnMut(Value, Value) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let text = event.text;
    let mut refused = Ok(());
    let list = event.of_type(name, Token::Array, "a list of levels")?;
    let walk = Scanner::at(text, list).array(|s| {
        if s.peek() != Some(b'{') {
            let value = s.value()?;
            if refused.is_ok() {
                refused = Err(no_level(text, name, value, "of price and qty"));
            }
            return Ok(());
        }
        let (mut price, mut quantity) = (None, None);
        s.object(|s, key| {
            let value = s.value()?;
            let place = match key {
                b"price" => &mut price,
                b"qty" => &mut quantity,
                _ => return Ok(()),
            };
            if place.replace(value).is_some() {
                return Err(Malformed { at: value.start, what: Flaw::Twice });
            }
            Ok(())
        })?;
        if refused.is_ok() {
            refused = match (price, quantity) {
                (Some(price), Some(quantity)) => {
                    number(text, "price", price).and_then(|()| number(text, "qty", quantity)).and_then(|()| level(price, quantity))
                }
                _ => Err(refuse("missing_field", format!("a level of `{name}` lacks `price` or `qty`"))),
            };
        }
        Ok(())
    });
    walk.map_err(malformed)?;
    refused
}

fn number(text: &[u8], name: &'static str, value: Value) -> Result<(), Refusal> {
    match value.token {
        Token::Integer | Token::Number => Ok(()),
        _ => Err(refuse("wrong_type", format!("`{name}` of a level is {}, where a number should be", excerpt(text, value)))),
    }
}

#[cold]
fn no_level(text: &[u8], name: &'static str, value: Value, what: &str) -> Refusal {
    refuse("wrong_type", format!("`{name}` holds {}, where a level {what} should be", excerpt(text, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_written() {
        let digits = |lexemes: &[&str]| {
            let mut fraction = Fraction::default();
            lexemes.iter().for_each(|lexeme| fraction.note(lexeme.as_bytes()));
            fraction.digits()
        };
        assert_eq!(digits(&["354.15000000"]), Some(8));
        assert_eq!(digits(&["0", "1.50", "2.5"]), Some(2));
        assert_eq!(digits(&["5000000", "0"]), Some(0));
        assert_eq!(digits(&["0"]), None);
        assert_eq!(digits(&["0.00000000"]), Some(8));
        assert_eq!(digits(&["1e-7", "1.5e-7"]), None);
        assert_eq!(digits(&["0.1234567890000"]), None);
        assert_eq!(digits(&[]), None);
    }
}
