//! Binance's members and envelopes.
//!
//! Events are flat objects whose keys are single letters, capital and small meaning different things, in an order that
//! differs between markets. Streams put them into an envelope, `{"stream":…,"data":…}`, alone or in a list.

use crate::dialect::fields::{Fields, Keys};
use crate::dialect::json::{Member, Scan, Scanner, Token, Value};

/// Binance's members: letters, and a few longer names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letters;

impl Keys for Letters {
    /// A letter is kept at its low six bits, which differ for all 52.
    #[inline(always)]
    fn slot(key: &[u8]) -> Option<usize> {
        match key {
            [letter] => letter.is_ascii_alphabetic().then_some((letter & 63) as usize),
            _ => longer(key),
        }
    }
}

/// Members with longer keys that matter, in the slots that letters leave free.
const LONGER: [(&[u8], usize); 12] = [
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
    (b"cs", 63),
];
const STREAM: u64 = 1 << 32;

#[inline(never)]
fn longer(key: &[u8]) -> Option<usize> {
    LONGER.iter().find(|(name, _)| *name == key).map(|(_, slot)| *slot)
}

/// What a frame is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// An object, bare or in a stream's envelope; its members are noted.
    Object(Value),
    /// A list of objects, bare or in a stream's envelope.
    List(Value),
}

impl Fields<Letters> {
    /// Notes the members of a frame. Of an envelope it is `stream` and the members of `data`.
    #[inline]
    pub(crate) fn event(&mut self, text: &[u8]) -> Scan<Shape> {
        self.forget_but(0);
        let mut scanner = Scanner::new(text)?;
        if scanner.peek() == Some(b'[') {
            let list = scanner.value()?;
            scanner.end()?;
            return Ok(Shape::List(list));
        }
        let whole = Value { token: Token::Object, start: 0, end: text.len() as u32 };
        let mut shape = Shape::Object(whole);
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
                && !self.has_but(STREAM)
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
    pub(super) fn inside(&mut self, text: &[u8], object: Value) -> Scan<()> {
        self.forget_but(STREAM);
        Scanner::at(text, object).letters(|s, member| self.note(s, member))
    }
}
