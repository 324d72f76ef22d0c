//! The members of a venue's objects, found in one pass.
//!
//! [`Fields`] notes where each member that matters stands; [`Event`] reads them by name and words the refusal when one is
//! missing or is not what it should be. Which members matter is told by [`Keys`], a type for each protocol, so that a name
//! in the source becomes a place in a table while compiling.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use model::Decimal;
use model::decimal::DecimalError;
use model::dialect::Reject;
use model::time::Micros;

use super::digits;
use super::json::{self, Flaw, Malformed, Member, Scan, Scanner, Token, Value};

/// A refusal on its way: one word, so that results without one stay small.
pub(crate) type Refusal = Box<Reject>;

/// A refusal for a reason.
#[cold]
pub(super) fn refuse(reason: &'static str, detail: impl Into<String>) -> Refusal {
    Box::new(Reject::new(reason, detail))
}

/// The refusal of bytes that are no JSON.
#[cold]
pub(super) fn malformed(flaw: Malformed) -> Refusal {
    refuse("malformed", flaw.to_string())
}

/// The members that matter in a protocol.
pub(crate) trait Keys: Copy + fmt::Debug {
    /// Whether numbers that are no whole numbers are sent in quotes, as most venues do to keep their digits.
    const QUOTED: bool = true;

    /// The place of the member of this key, below 64.
    fn slot(key: &[u8]) -> Option<usize>;
}

/// Declares [`Keys`]: the names of the members that matter, at most 64.
macro_rules! keys {
    ($(#[doc = $doc:literal])+ $name:ident quoted $quoted:literal: $($key:literal)+) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name;

        impl $crate::dialect::fields::Keys for $name {
            const QUOTED: bool = $quoted;

            #[inline(always)]
            fn slot(key: &[u8]) -> Option<usize> {
                $crate::dialect::fields::keys!(@ key [] [0] $($key)+)
            }
        }
    };
    (@ $text:ident [$($arms:tt)*] [$at:expr]) => {
        match $text { $($arms)* _ => None }
    };
    (@ $text:ident [$($arms:tt)*] [$at:expr] $key:literal $($rest:literal)*) => {
        $crate::dialect::fields::keys!(@ $text [$($arms)* $key => Some(const { let at: usize = $at; assert!(at < 64); at }),] [$at + 1] $($rest)*)
    };
}
pub(super) use keys;

/// Where the members of an object stand. Made once and filled anew for each object.
#[derive(Debug)]
pub(crate) struct Fields<K> {
    present: u64,
    values: [Value; 64],
    keys: PhantomData<K>,
}

impl<K> Default for Fields<K> {
    fn default() -> Self {
        Fields { present: 0, values: [Value::default(); 64], keys: PhantomData }
    }
}

impl<K: Keys> Fields<K> {
    /// Notes the members of a frame that is one object.
    pub(crate) fn frame(&mut self, text: &[u8]) -> Scan<()> {
        self.present = 0;
        let mut scanner = Scanner::new(text)?;
        scanner.letters(|s, member| self.note(s, member))?;
        scanner.end()
    }

    /// Notes the members of an object that stands inside the frame. What was noted before is forgotten.
    pub(crate) fn inner(&mut self, text: &[u8], object: Value) -> Scan<()> {
        self.forget_but(0);
        Scanner::at(text, object).letters(|s, member| self.note(s, member))
    }

    /// Forgets all but the members in these slots, a bit for each.
    #[inline(always)]
    pub(super) fn forget_but(&mut self, slots: u64) {
        self.present &= slots;
    }

    /// Whether a member outside these slots was noted.
    #[inline(always)]
    pub(super) fn has_but(&self, slots: u64) -> bool {
        self.present & !slots != 0
    }

    #[inline(always)]
    pub(super) fn note(&mut self, scanner: &mut Scanner<'_>, member: Member<'_>) -> Scan<()> {
        match member {
            Member::Plain(letter, value) => K::slot(&[letter]).map_or(Ok(()), |slot| self.keep(slot, value)),
            Member::Other(key) => {
                let value = scanner.value()?;
                K::slot(key).map_or(Ok(()), |slot| self.keep(slot, value))
            }
        }
    }

    #[inline(always)]
    fn keep(&mut self, slot: usize, value: Value) -> Scan<()> {
        if self.present & (1 << slot) != 0 {
            return Err(Malformed { at: value.start, what: Flaw::Twice });
        }
        self.present |= 1 << slot;
        self.values[slot & 63] = value;
        Ok(())
    }
}

/// The noted members of an object, with the text that they stand in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event<'a, K> {
    pub(crate) text: &'a [u8],
    pub(crate) fields: &'a Fields<K>,
}

impl<'a, K: Keys> Event<'a, K> {
    /// Whether the member is there, whatever its value.
    #[inline(always)]
    pub(crate) fn has(self, name: &'static str) -> bool {
        K::slot(name.as_bytes()).is_some_and(|slot| self.fields.present & (1 << slot) != 0)
    }

    /// The member, unless it is absent or null.
    #[inline(always)]
    pub(crate) fn get(self, name: &'static str) -> Option<Value> {
        let slot = K::slot(name.as_bytes()).filter(|slot| self.fields.present & (1 << slot) != 0)?;
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
    pub(super) fn mistyped(self, name: &'static str, value: Value, what: &'static str) -> Refusal {
        refuse("wrong_type", format!("`{name}` is {}, where {what} should be", excerpt(self.text, value)))
    }

    /// The characters of a text member; escapes stay as they are.
    #[inline(always)]
    pub(super) fn characters(self, name: &'static str) -> Result<&'a [u8], Refusal> {
        Ok(self.of_type(name, Token::Text, "a text")?.of(self.text))
    }

    /// A text member, its escapes resolved.
    #[inline]
    pub(super) fn text(self, name: &'static str) -> Result<Cow<'a, str>, Refusal> {
        match self.get(name) {
            Some(value) if value.token == Token::Escaped => {
                let resolved = json::unescaped(self.text, value);
                resolved
                    .map(Cow::Owned)
                    .ok_or_else(|| refuse("malformed", format!("`{name}` is {}, half a character", excerpt(self.text, value))))
            }
            _ => Ok(String::from_utf8_lossy(self.characters(name)?)),
        }
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
    pub(crate) fn integer(self, name: &'static str) -> Result<i64, Refusal> {
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
    pub(super) fn bad(self, name: &'static str, value: Value, what: &'static str) -> Refusal {
        refuse("bad_number", format!("`{name}` is {}, which {what}", excerpt(self.text, value)))
    }

    /// A whole number in quotes.
    #[inline(always)]
    pub(super) fn quoted_integer(self, name: &'static str) -> Result<i64, Refusal> {
        let value = self.of_type(name, Token::Text, "a quoted whole number")?;
        digits::integer(self.text, value).ok_or_else(|| self.bad(name, value, "is no whole number of 64 bits"))
    }

    /// A number, quoted if the venue quotes numbers.
    #[inline(always)]
    fn numeric(self, name: &'static str, value: Value) -> Result<Value, Refusal> {
        match value.token {
            Token::Text if K::QUOTED => Ok(value),
            Token::Integer | Token::Number if !K::QUOTED => Ok(value),
            _ => Err(self.mistyped(name, value, if K::QUOTED { "a quoted number" } else { "a number" })),
        }
    }

    /// A number that is not negative: a price or a size, of which no digit may be lost.
    #[inline(always)]
    pub(super) fn decimal(self, name: &'static str) -> Result<Decimal, Refusal> {
        let value = self.numeric(name, self.need(name)?)?;
        decimal(self.text, name, value)
    }

    /// The number's place, if it is sent: null and an empty text are absent.
    #[inline(always)]
    fn optional(self, name: &'static str) -> Result<Option<Value>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(Value { token: Token::Text, start, end }) if start == end => Ok(None),
            Some(value) => self.numeric(name, value).map(Some),
        }
    }

    /// A number of either sign; absent where it is not sent, null or an empty text.
    pub(super) fn optional_decimal(self, name: &'static str) -> Result<Option<Decimal>, Refusal> {
        let read = |value| digits::decimal(self.text, value).map_err(|e| misread(self.text, name, value, e));
        self.optional(name)?.map(read).transpose()
    }

    /// A number of either sign that the venue worked out (a rate, a mark price, a sum), rounded half to even where it has
    /// more than twelve fraction digits; absent as in [`Self::optional_decimal`].
    pub(super) fn optional_rounded(self, name: &'static str) -> Result<Option<Decimal>, Refusal> {
        let read = |value: Value| Decimal::parse_rounded(value.of(self.text)).map_err(|e| misread(self.text, name, value, e));
        self.optional(name)?.map(read).transpose()
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

    /// A time in milliseconds or microseconds, in quotes.
    #[inline(always)]
    pub(super) fn quoted_time(self, name: &'static str) -> Result<Micros, Refusal> {
        let number = self.quoted_integer(name)?;
        micros(number).ok_or_else(|| self.bad_time(name, number))
    }

    /// A quoted time that may be absent, empty or zero, which mean the same.
    pub(super) fn optional_quoted_time(self, name: &'static str) -> Result<Option<Micros>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(Value { token: Token::Text, start, end }) if start == end => Ok(None),
            Some(_) if self.quoted_integer(name)? == 0 => Ok(None),
            Some(_) => self.quoted_time(name).map(Some),
        }
    }

    /// A time as RFC 3339 writes it; absent, null, an empty text and any time before 1970 are none (Go writes no time as
    /// `0001-01-01T00:00:00Z`).
    pub(super) fn optional_timestamp(self, name: &'static str) -> Result<Option<Micros>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(Value { token: Token::Text, start, end }) if start == end => Ok(None),
            Some(value) if value.token == Token::Text => match digits::timestamp(value.of(self.text)) {
                Some(time) => Ok(Some(time).filter(|time| *time > 0)),
                None => {
                    let detail = format!("`{name}` is {}, which is no time as RFC 3339 writes it", excerpt(self.text, value));
                    Err(refuse("bad_time", detail))
                }
            },
            Some(value) => Err(self.mistyped(name, value, "a time in quotes")),
        }
    }

    /// A time as RFC 3339 writes it.
    pub(super) fn timestamp(self, name: &'static str) -> Result<Micros, Refusal> {
        self.optional_timestamp(name)?.ok_or_else(|| match self.get(name) {
            None => missing(name),
            Some(value) => refuse("bad_time", format!("`{name}` is {}, which says that there is no time", excerpt(self.text, value))),
        })
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

/// A number that is not negative, where the scanner has found it.
#[inline(always)]
pub(super) fn decimal(text: &[u8], name: &'static str, value: Value) -> Result<Decimal, Refusal> {
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
