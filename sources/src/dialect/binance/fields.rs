//! The members of a frame, found in one pass.
//!
//! Binance's events are flat objects whose keys are single letters, capital and small meaning different
//! things, in an order that differs between markets. [`Fields`] notes where each member stands; [`Event`]
//! reads them by name and words the refusal when one is missing or is not what it should be.

use model::Decimal;
use model::decimal::DecimalError;
use model::dialect::Reject;
use model::time::Micros;

use crate::dialect::digits;
use crate::dialect::json::{Flaw, Malformed, Member, Scan, Scanner, Token, Value};

/// A refusal on its way: one word, so that results without one stay small.
pub(super) type Refusal = Box<Reject>;

/// A refusal for a reason.
#[cold]
pub(super) fn refuse(reason: &'static str, detail: impl Into<String>) -> Refusal {
    Box::new(Reject::new(reason, detail))
}

/// Members with longer keys that matter, in the slots that letters leave free.
const LONGER: [(&[u8], usize); 11] = [
    (b"pu", 0),
    (b"ap", 27),
    (b"lastUpdateId", 28),
    (b"bids", 29),
    (b"asks", 30),
    (b"symbol", 31),
    (b"stream", 32),
    (b"id", 59),
    (b"error", 60),
    (b"code", 61),
    (b"symbols", 62),
];
const STREAM: u64 = 1 << 32;

/// Where the member of this key is kept: a letter at its low six bits, which differ for all 52.
#[inline(always)]
fn slot(key: &[u8]) -> Option<usize> {
    match key {
        [letter] => letter.is_ascii_alphabetic().then_some((letter & 63) as usize),
        _ => longer(key),
    }
}

#[inline(never)]
fn longer(key: &[u8]) -> Option<usize> {
    LONGER.iter().find(|(name, _)| *name == key).map(|(_, slot)| *slot)
}

/// What a frame is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// An object, bare or in a stream's envelope; its members are noted.
    Object,
    /// A list of objects, bare or in a stream's envelope.
    List(Value),
}

/// Where the members of an object stand. Made once and filled anew for each frame.
#[derive(Debug)]
pub(super) struct Fields {
    present: u64,
    values: [Value; 64],
}

impl Default for Fields {
    fn default() -> Self {
        Fields { present: 0, values: [Value::default(); 64] }
    }
}

impl Fields {
    /// Notes the members of a frame. Of an envelope `{"stream":…,"data":…}` it is `stream` and the members of `data`.
    #[inline]
    pub(super) fn frame(&mut self, text: &[u8]) -> Scan<Shape> {
        self.present = 0;
        let mut scanner = Scanner::new(text)?;
        if scanner.peek() == Some(b'[') {
            let list = scanner.value()?;
            scanner.end()?;
            return Ok(Shape::List(list));
        }
        let mut shape = Shape::Object;
        let mut enveloped = false;
        scanner.letters(|s, member| {
            if enveloped {
                // Beside the data of an envelope only its stream matters.
                return match member {
                    Member::Other(b"stream") => self.note(s, member),
                    Member::Other(_) => s.value().map(drop),
                    Member::Plain(..) => Ok(()),
                };
            }
            if let Member::Other(b"data") = member
                && self.present & !STREAM == 0
            {
                match s.peek() {
                    Some(b'{') => {
                        enveloped = true;
                        return s.letters(|s, member| self.note(s, member));
                    }
                    Some(b'[') => {
                        enveloped = true;
                        return s.value().map(|list| shape = Shape::List(list));
                    }
                    _ => {}
                }
            }
            self.note(s, member)
        })?;
        scanner.end()?;
        Ok(shape)
    }

    /// Notes the members of an object that stands inside the frame. What was noted before is forgotten, but for
    /// the envelope's stream.
    pub(super) fn inner(&mut self, text: &[u8], object: Value) -> Scan<()> {
        self.present &= STREAM;
        Scanner::at(text, object).letters(|s, member| self.note(s, member))
    }

    #[inline(always)]
    fn note(&mut self, scanner: &mut Scanner<'_>, member: Member<'_>) -> Scan<()> {
        match member {
            Member::Plain(letter, value) => self.keep((letter & 63) as usize, value),
            Member::Other(key) => {
                let value = scanner.value()?;
                slot(key).map_or(Ok(()), |slot| self.keep(slot, value))
            }
        }
    }

    #[inline(always)]
    fn keep(&mut self, slot: usize, value: Value) -> Scan<()> {
        if self.present & (1 << slot) != 0 {
            return Err(Malformed { at: value.start, what: Flaw::Twice });
        }
        self.present |= 1 << slot;
        self.values[slot] = value;
        Ok(())
    }
}

/// The noted members of an object, with the text that they stand in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event<'a> {
    pub(super) text: &'a [u8],
    pub(super) fields: &'a Fields,
}

impl<'a> Event<'a> {
    /// Whether the member is there, whatever its value.
    #[inline(always)]
    pub(super) fn has(self, name: &'static str) -> bool {
        slot(name.as_bytes()).is_some_and(|slot| self.fields.present & (1 << slot) != 0)
    }

    /// The member, unless it is absent or null.
    #[inline(always)]
    pub(super) fn get(self, name: &'static str) -> Option<Value> {
        let slot = slot(name.as_bytes()).filter(|slot| self.fields.present & (1 << slot) != 0)?;
        Some(self.fields.values[slot & 63]).filter(|v| v.token != Token::Null)
    }

    #[inline(always)]
    fn need(self, name: &'static str) -> Result<Value, Refusal> {
        self.get(name).ok_or_else(|| missing(name))
    }

    #[inline(always)]
    pub(super) fn of_type(self, name: &'static str, token: Token, what: &'static str) -> Result<Value, Refusal> {
        let value = self.need(name)?;
        if value.token == token { Ok(value) } else { Err(self.mistyped(name, value, what)) }
    }

    #[cold]
    fn mistyped(self, name: &'static str, value: Value, what: &'static str) -> Refusal {
        refuse("wrong_type", format!("`{name}` is {}, where {what} should be", excerpt(self.text, value)))
    }

    /// The characters of a text member; escapes stay as they are.
    #[inline(always)]
    pub(super) fn characters(self, name: &'static str) -> Result<&'a [u8], Refusal> {
        Ok(self.of_type(name, Token::Text, "a text")?.of(self.text))
    }

    /// True or false.
    #[inline(always)]
    pub(super) fn boolean(self, name: &'static str) -> Result<bool, Refusal> {
        match self.need(name)? {
            Value { token: Token::True, .. } => Ok(true),
            Value { token: Token::False, .. } => Ok(false),
            value => Err(self.mistyped(name, value, "true or false")),
        }
    }

    /// A whole number.
    #[inline(always)]
    pub(super) fn integer(self, name: &'static str) -> Result<i64, Refusal> {
        let value = self.whole(name)?;
        digits::integer(self.text, value).ok_or_else(|| self.bad(name, value, "is no whole number of 64 bits"))
    }

    #[inline(always)]
    fn whole(self, name: &'static str) -> Result<Value, Refusal> {
        let value = self.need(name)?;
        match value.token {
            Token::Integer => Ok(value),
            Token::Number => Err(self.bad(name, value, "is no whole number of 64 bits")),
            _ => Err(self.mistyped(name, value, "a whole number")),
        }
    }

    /// The digits of a number that identifies something.
    #[inline(always)]
    pub(super) fn identifier(self, name: &'static str) -> Result<&'a str, Refusal> {
        let value = self.whole(name)?;
        match std::str::from_utf8(value.of(self.text)) {
            Ok(digits) if !digits.starts_with('-') => Ok(digits),
            _ => Err(self.bad(name, value, "identifies nothing")),
        }
    }

    #[cold]
    fn bad(self, name: &'static str, value: Value, what: &'static str) -> Refusal {
        refuse("bad_number", format!("`{name}` is {}, which {what}", excerpt(self.text, value)))
    }

    /// A quoted number that is not negative.
    #[inline(always)]
    pub(super) fn decimal(self, name: &'static str) -> Result<Decimal, Refusal> {
        let value = self.of_type(name, Token::Text, "a quoted number")?;
        decimal(self.text, name, value)
    }

    /// A quoted number of either sign; absent where it is not sent, null or an empty text.
    pub(super) fn optional_decimal(self, name: &'static str) -> Result<Option<Decimal>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(Value { token: Token::Text, start, end }) if start == end => Ok(None),
            Some(value @ Value { token: Token::Text, .. }) => {
                digits::decimal(self.text, value).map(Some).map_err(|e| misread(self.text, name, value, e))
            }
            Some(value) => Err(self.mistyped(name, value, "a quoted number")),
        }
    }

    /// A price or size where zero means that there is none.
    pub(super) fn positive(self, name: &'static str) -> Result<Option<Decimal>, Refusal> {
        match self.optional_decimal(name)? {
            Some(number) if number < Decimal::ZERO => Err(self.bad(name, self.need(name)?, "is negative")),
            number => Ok(number.filter(|n| *n > Decimal::ZERO)),
        }
    }

    /// A time: milliseconds since 1970, or microseconds as of streams opened with `timeUnit=MICROSECOND`.
    #[inline(always)]
    pub(super) fn time(self, name: &'static str) -> Result<Micros, Refusal> {
        let number = self.integer(name)?;
        micros(number).ok_or_else(|| self.bad_time(name, number))
    }

    #[cold]
    fn bad_time(self, name: &'static str, number: i64) -> Refusal {
        refuse("bad_time", format!("`{name}` is {number}, which is no time in milliseconds or microseconds since 1970"))
    }

    /// A time that may be absent or zero, which means the same.
    pub(super) fn optional_time(self, name: &'static str) -> Result<Option<Micros>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(_) if self.integer(name)? == 0 => Ok(None),
            Some(_) => self.time(name).map(Some),
        }
    }
}

/// Times below 10¹⁴ are milliseconds (until the year 5138), those above are microseconds (from 1973 on).
#[inline]
pub(super) fn micros(number: i64) -> Option<Micros> {
    const LIMIT: i64 = 100_000_000_000_000;
    match number {
        1..LIMIT => Some(number * 1_000),
        LIMIT..100_000_000_000_000_000 => Some(number),
        _ => None,
    }
}

/// The refusal of a frame that lacks a member.
#[cold]
pub(super) fn missing(name: &'static str) -> Refusal {
    refuse("missing_field", format!("`{name}` is missing"))
}

#[inline(always)]
fn decimal(text: &[u8], name: &'static str, value: Value) -> Result<Decimal, Refusal> {
    match digits::decimal(text, value) {
        Ok(number) if number >= Decimal::ZERO => Ok(number),
        Ok(_) => Err(refuse("bad_number", format!("`{name}` is {}, which is negative", excerpt(text, value)))),
        Err(error) => Err(misread(text, name, value, error)),
    }
}

#[cold]
fn misread(text: &[u8], name: &'static str, value: Value, error: DecimalError) -> Refusal {
    let reason = if error == DecimalError::Malformed { "bad_number" } else { "overflow" };
    refuse(reason, format!("`{name}` is {}, which {error}", excerpt(text, value)))
}

/// A value as it stands, cut where it is long.
pub(super) fn excerpt(text: &[u8], value: Value) -> String {
    const LONGEST: usize = 60;
    let quoted = matches!(value.token, Token::Text | Token::Escaped);
    let value = String::from_utf8_lossy(value.of(text));
    let (cut, dots) = match value.char_indices().nth(LONGEST) {
        Some((at, _)) => (&value[..at], "…"),
        None => (&*value, ""),
    };
    if quoted { format!("\"{cut}{dots}\"") } else { format!("{cut}{dots}") }
}

/// One side of a book: prices and sizes, in the order sent.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) prices: Vec<Decimal>,
    pub(super) quantities: Vec<Decimal>,
}

impl Side {
    /// Reads the levels `[["price","size"],…]` of a member.
    pub(super) fn read(&mut self, event: Event<'_>, name: &'static str) -> Result<(), Refusal> {
        self.prices.clear();
        self.quantities.clear();
        let levels = event.of_type(name, Token::Array, "a list of levels")?;
        let mut refused = None;
        let walk = Scanner::at(event.text, levels).array(|s| match s.level() {
            Some((price, quantity)) => {
                self.prices.push(price);
                self.quantities.push(quantity);
                Ok(())
            }
            None => {
                let level = s.value()?;
                if refused.is_none() {
                    refused = self.push_unusual(event.text, name, level).err();
                }
                Ok(())
            }
        });
        debug_assert!(walk.is_ok(), "the levels were scanned before");
        refused.map_or(Ok(()), Err)
    }

    /// A level with white space, long numbers or, as in frames before 2019, a third element; or one that is none.
    #[cold]
    fn push_unusual(&mut self, text: &[u8], name: &'static str, level: Value) -> Result<(), Refusal> {
        let none = || refuse("wrong_type", format!("`{name}` holds {}, where a level [price, size] should be", excerpt(text, level)));
        if level.token != Token::Array {
            return Err(none());
        }
        let mut parts = Vec::new();
        let walk = Scanner::at(text, level).array(|s| s.value().map(|part| parts.push(part)));
        match (walk, parts.as_slice()) {
            (Ok(()), [price @ Value { token: Token::Text, .. }, quantity @ Value { token: Token::Text, .. }, ..]) => {
                let (price, quantity) = (decimal(text, name, *price)?, decimal(text, name, *quantity)?);
                self.prices.push(price);
                self.quantities.push(quantity);
                Ok(())
            }
            _ => Err(none()),
        }
    }
}
