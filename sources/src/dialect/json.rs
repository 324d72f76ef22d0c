//! A strict JSON scanner that finds values and copies nothing.
//!
//! Venues' frames are small flat objects of which a few members matter, so a decoder wants to walk them
//! once, note where those members stand and know that the rest is JSON too. The scanner does that eight
//! bytes at a time and accepts exactly RFC 8259 (UTF-8, no control characters in texts, no trailing bytes,
//! nested at most [`DEPTH`] deep). It never panics, whatever the bytes; numbers stay text until
//! [`super::digits`] reads them.

use model::Decimal;

use model::digits::{HIGH, LOW, eight, leading_digits, short};

#[cfg(test)]
mod tests;

/// How deep arrays and objects may be nested.
pub const DEPTH: u32 = 64;

/// Where and why a text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Malformed {
    /// Offset of the first byte that does not fit.
    pub at: u32,
    /// What is wrong there.
    pub what: Flaw,
}

/// What is wrong with a text that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u32)]
pub enum Flaw {
    /// The text ends too early.
    #[error("the text ends before the value does")]
    Truncated,
    /// Another byte should stand here.
    #[error("unexpected byte")]
    Unexpected,
    /// A text holds a control character.
    #[error("control character in a text")]
    Control,
    /// A text holds a bad escape.
    #[error("bad escape in a text")]
    Escape,
    /// A text is not UTF-8.
    #[error("text that is not UTF-8")]
    Encoding,
    /// A number is not written as JSON writes numbers.
    #[error("bad number")]
    Number,
    /// A member of interest stands twice in an object.
    #[error("member named twice")]
    Twice,
    /// Arrays or objects are nested too deeply.
    #[error("values nested too deeply")]
    Depth,
    /// There is something after the value.
    #[error("bytes after the value")]
    Trailing,
    /// The text is longer than 4 GiB.
    #[error("more than 4 GiB of text")]
    Long,
}

/// The result of scanning.
pub type Scan<T> = Result<T, Malformed>;

/// What a value is. As wide as the places beside it, so that a [`Value`] moves in whole words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Token {
    /// `null`.
    #[default]
    Null,
    /// `true`.
    True,
    /// `false`.
    False,
    /// A number without fraction and exponent.
    Integer,
    /// Any other number.
    Number,
    /// A text without escapes.
    Text,
    /// A text with escapes.
    Escaped,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// A value: what it is and where it stands. The place of a text is that between its quotes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Value {
    /// What it is.
    pub token: Token,
    /// Offset of its first byte.
    pub start: u32,
    /// Offset after its last byte.
    pub end: u32,
}

impl Value {
    /// The bytes of the value in the text that it was found in.
    #[inline]
    pub fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.end as usize]
    }
}

/// A member of an object.
#[derive(Clone, Copy, Debug)]
pub enum Member<'a> {
    /// Its key, a letter, and its value, which was passed.
    Plain(u8, Value),
    /// Its key; the value is still to be passed.
    Other(&'a [u8]),
}

/// A walk over a JSON text.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a [u8],
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Scanner<'a> {
    /// A walk from the beginning of a text.
    ///
    /// # Errors
    /// The text is longer than 4 GiB, which places of 32 bits do not reach.
    #[inline(always)]
    pub fn new(text: &'a [u8]) -> Scan<Self> {
        if u32::try_from(text.len()).is_err() {
            return Err(Malformed { at: u32::MAX, what: Flaw::Long });
        }
        Ok(Scanner { text, rest: text, depth: 0 })
    }

    /// A walk that begins at a value found before in the same text.
    pub fn at(text: &'a [u8], value: Value) -> Self {
        Scanner { text, rest: &text[value.start as usize..], depth: 0 }
    }

    /// The place where a rest of the text begins.
    #[inline(always)]
    fn place(&self, rest: &[u8]) -> u32 {
        // A text is at most 4 GiB long, and a rest of it no longer.
        self.text.len().wrapping_sub(rest.len()) as u32
    }

    #[cold]
    fn fail<T>(&self, what: Flaw) -> Scan<T> {
        let what = if self.rest.is_empty() && what == Flaw::Unexpected { Flaw::Truncated } else { what };
        Err(Malformed { at: self.place(self.rest), what })
    }

    /// Passes a byte, which is there.
    #[inline(always)]
    fn pass(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    /// The next byte that is not white space, without passing it.
    #[inline(always)]
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match self.rest {
                [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] => self.rest = rest,
                rest => return rest.first().copied(),
            }
        }
    }

    /// How many bytes were passed: after [`Self::peek`] the place of the next value.
    #[inline(always)]
    pub fn offset(&self) -> u32 {
        self.place(self.rest)
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8) -> Scan<()> {
        if self.peek() != Some(byte) {
            return self.fail(Flaw::Unexpected);
        }
        self.pass();
        Ok(())
    }

    /// Ends the walk: nothing but white space may follow.
    #[inline]
    pub fn end(&mut self) -> Scan<()> {
        if self.peek().is_some() { self.fail(Flaw::Trailing) } else { Ok(()) }
    }

    /// Passes an object, calling `member` at each value with the bytes of its key as they stand between the
    /// quotes; `member` must pass the value.
    #[inline(always)]
    pub fn object(&mut self, mut member: impl FnMut(&mut Self, &'a [u8]) -> Scan<()>) -> Scan<()> {
        self.nest(b'{', b'}', |s| {
            let key = s.key()?;
            member(s, key)
        })
    }

    /// As [`Self::object`], for objects whose keys mostly are one letter and whose values are plain: such a member
    /// is handed over whole, which is much faster.
    #[inline(always)]
    pub fn letters(&mut self, mut member: impl FnMut(&mut Self, Member<'a>) -> Scan<()>) -> Scan<()> {
        self.nest(b'{', b'}', |s| {
            let found = match s.plain_member() {
                Some((letter, value)) => Member::Plain(letter, value),
                None => Member::Other(s.key()?),
            };
            member(s, found)
        })
    }

    /// Passes an array, calling `element` at each value, which it must pass.
    #[inline(always)]
    pub fn array(&mut self, element: impl FnMut(&mut Self) -> Scan<()>) -> Scan<()> {
        self.nest(b'[', b']', element)
    }

    #[inline(always)]
    fn nest(&mut self, open: u8, close: u8, mut item: impl FnMut(&mut Self) -> Scan<()>) -> Scan<()> {
        self.expect(open)?;
        self.depth += 1;
        if self.depth > DEPTH {
            return self.fail(Flaw::Depth);
        }
        if self.peek() != Some(close) {
            loop {
                item(self)?;
                match self.peek() {
                    Some(b',') => self.pass(),
                    Some(byte) if byte == close => break,
                    _ => return self.fail(Flaw::Unexpected),
                }
            }
        }
        self.pass();
        self.depth -= 1;
        Ok(())
    }

    /// Passes a member `"k":value` without white space whose value is a text without escapes, a whole number, true or
    /// false. `None`, having passed nothing, at anything else and near the end of the text.
    #[inline(always)]
    fn plain_member(&mut self) -> Option<(u8, Value)> {
        const FRAME: u64 = 0xff_ff_00_ff;
        let word = u64::from_le_bytes(*self.rest.first_chunk::<8>()?);
        let letter = (word >> 8) as u8;
        if word & FRAME != u64::from_le_bytes(*b"\"\0\":\0\0\0\0") || !letter.is_ascii_alphabetic() {
            return None;
        }
        let (token, from, behind) = match (word >> 32) as u8 {
            b'"' => {
                let from = &self.rest[5..];
                let behind = &from[plain(from)?..];
                self.rest = behind.strip_prefix(b"\"")?;
                (Token::Text, from, behind)
            }
            b'1'..=b'9' => {
                let from = &self.rest[4..];
                let behind = &from[whole(from)?..];
                self.rest = behind;
                (Token::Integer, from, behind)
            }
            b't' if (word >> 32) as u32 == u32::from_le_bytes(*b"true") => {
                let from = &self.rest[4..];
                self.rest = &self.rest[8..];
                (Token::True, from, self.rest)
            }
            b'f' if self.rest[4..].starts_with(b"false") => {
                let from = &self.rest[4..];
                self.rest = &self.rest[9..];
                (Token::False, from, self.rest)
            }
            _ => return None,
        };
        Some((letter, Value { token, start: self.place(from), end: self.place(behind) }))
    }

    #[inline(always)]
    fn key(&mut self) -> Scan<&'a [u8]> {
        if self.peek() != Some(b'"') {
            return self.fail(Flaw::Unexpected);
        }
        let key = self.quoted()?.of(self.text);
        self.expect(b':')?;
        Ok(key)
    }

    /// Passes a value of any type and tells where it stands.
    #[inline(always)]
    pub fn value(&mut self) -> Scan<Value> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Token::True),
            Some(b'f') => self.word(b"false", Token::False),
            Some(b'n') => self.word(b"null", Token::Null),
            Some(b'[') => self.nested(Token::Array),
            Some(b'{') => self.nested(Token::Object),
            _ => self.fail(Flaw::Unexpected),
        }
    }

    /// As [`Self::value`]; the members of an object are handed over as by [`Self::letters`].
    #[inline(always)]
    pub fn noted(&mut self, member: impl FnMut(&mut Self, Member<'a>) -> Scan<()>) -> Scan<Value> {
        if self.peek() != Some(b'{') {
            return self.value();
        }
        let from = self.rest;
        self.letters(member)?;
        Ok(self.since(from, Token::Object))
    }

    #[inline(never)]
    fn nested(&mut self, token: Token) -> Scan<Value> {
        let from = self.rest;
        match token {
            Token::Array => self.array(|s| s.value().map(drop))?,
            _ => self.object(|s, _| s.value().map(drop))?,
        }
        Ok(self.since(from, token))
    }

    /// The value that was passed since a place.
    #[inline(always)]
    fn since(&self, from: &[u8], token: Token) -> Value {
        Value { token, start: self.place(from), end: self.place(self.rest) }
    }

    fn word(&mut self, word: &'static [u8], token: Token) -> Scan<Value> {
        let from = self.rest;
        match from.strip_prefix(word) {
            Some(rest) => self.rest = rest,
            None => return self.fail(if word.starts_with(from) { Flaw::Truncated } else { Flaw::Unexpected }),
        }
        Ok(self.since(from, token))
    }

    fn number(&mut self) -> Scan<Value> {
        let from = self.rest;
        self.pass_one_of(b"-");
        let first = self.rest.first();
        let whole = self.digits();
        if whole == 0 || (whole > 1 && first == Some(&b'0')) {
            return self.fail(Flaw::Number);
        }
        let mut token = Token::Integer;
        if self.pass_one_of(b".") {
            token = Token::Number;
            if self.digits() == 0 {
                return self.fail(Flaw::Number);
            }
        }
        if self.pass_one_of(b"eE") {
            token = Token::Number;
            self.pass_one_of(b"+-");
            if self.digits() == 0 {
                return self.fail(Flaw::Number);
            }
        }
        Ok(self.since(from, token))
    }

    #[inline(always)]
    fn pass_one_of(&mut self, bytes: &[u8]) -> bool {
        let there = self.rest.first().is_some_and(|b| bytes.contains(b));
        if there {
            self.pass();
        }
        there
    }

    #[inline(always)]
    fn digits(&mut self) -> usize {
        let from = self.rest;
        loop {
            let run = leading_digits(eight(self.rest));
            self.rest = self.rest.get(run..).unwrap_or_default();
            if run < 8 {
                return from.len() - self.rest.len();
            }
        }
    }

    /// Passes a text, whose opening quote is the next byte.
    #[inline(always)]
    fn quoted(&mut self) -> Scan<Value> {
        self.pass();
        let from = self.rest;
        if let Some(behind) = plain(from).and_then(|length| from.get(length..))
            && let Some((b'"', rest)) = behind.split_first()
        {
            self.rest = rest;
            return Ok(Value { token: Token::Text, start: self.place(from), end: self.place(behind) });
        }
        self.quoted_unusual()
    }

    /// A text with escapes or beyond ASCII, near the end, or none.
    #[inline(never)]
    fn quoted_unusual(&mut self) -> Scan<Value> {
        let from = self.rest;
        let (mut token, mut ascii) = (Token::Text, true);
        loop {
            match self.rest.first() {
                Some(b'"') => break,
                Some(b'\\') => {
                    token = Token::Escaped;
                    self.escape()?;
                }
                Some(0..0x20) => return self.fail(Flaw::Control),
                Some(byte) => {
                    ascii &= byte.is_ascii();
                    self.pass();
                }
                None => return self.fail(Flaw::Truncated),
            }
        }
        let text = self.since(from, token);
        if !ascii && std::str::from_utf8(text.of(self.text)).is_err() {
            return self.fail(Flaw::Encoding);
        }
        self.pass();
        Ok(text)
    }

    fn escape(&mut self) -> Scan<()> {
        self.rest = match self.rest {
            [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => rest,
            [_, b'u', a, b, c, d, rest @ ..] if [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit) => rest,
            _ => return self.fail(Flaw::Escape),
        };
        Ok(())
    }

    /// Passes `["1.5","2.25"]`, a level of a book, and reads both numbers; further numbers in it are passed over. `None`,
    /// having passed nothing, where the value is anything else or the numbers are not plain.
    #[inline]
    pub fn level(&mut self) -> Option<(Decimal, Decimal)> {
        let (price, rest) = short(self.rest.strip_prefix(b"[\"")?)?;
        let (quantity, mut rest) = short(rest.strip_prefix(b"\",\"")?)?;
        loop {
            if let Some(behind) = rest.strip_prefix(b"\"]") {
                self.rest = behind;
                return Some((price, quantity));
            }
            rest = rest.strip_prefix(b"\",\"")?;
            rest = &rest[rest.iter().position(|byte| !matches!(byte, b'.' | b'0'..=b'9'))?..];
        }
    }
}

/// The length of the plain text that a text begins with, up to a quote or whatever else ends it; `None` where the
/// end of the text is too near to look at eight bytes at once.
#[inline(always)]
fn plain(text: &[u8]) -> Option<usize> {
    let mut length = 0;
    for word in text.as_chunks::<8>().0 {
        let special = specials(u64::from_le_bytes(*word));
        if special != 0 {
            return Some(length + special.trailing_zeros() as usize / 8);
        }
        length += 8;
    }
    None
}

/// The length of the whole number that a text begins with; `None` if it is more than a whole number or the end of the
/// text is too near.
#[inline(always)]
fn whole(text: &[u8]) -> Option<usize> {
    let mut length = 0;
    for word in text.as_chunks::<8>().0 {
        let count = leading_digits(u64::from_le_bytes(*word));
        length += count;
        if count < 8 {
            return matches!(text.get(length)?, b',' | b'}').then_some(length);
        }
    }
    None
}

const QUOTES: u64 = LOW * b'"' as u64;
const BACKSLASHES: u64 = LOW * b'\\' as u64;

/// Marks bytes that end a run of plain text: quotes, backslashes, control characters and all beyond ASCII.
/// Only the lowest mark is exact: borrows may set marks above it.
#[inline(always)]
fn specials(word: u64) -> u64 {
    let zero = |w: u64| w.wrapping_sub(LOW) & !w;
    (zero(word ^ QUOTES) | zero(word ^ BACKSLASHES) | word.wrapping_sub(LOW * 0x20) | word) & HIGH
}

/// The characters of a text value, escapes resolved; `None` where an escape stands for half a character.
pub fn unescaped(text: &[u8], value: Value) -> Option<String> {
    serde_json::from_slice(&text[value.start as usize - 1..value.end as usize + 1]).ok()
}
