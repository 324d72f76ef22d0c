//! The decoder of Kraken's spot market.

use std::sync::Arc;

use model::dialect::{Dialect, FrameRef, Outcome, Records, Reject};

use super::arrays::{self, Arrays};
use super::book::Book;
use super::channels::{self, Channel, push_status};
use super::prints::Print;
use super::symbols::Pairs;
use super::{answers, listing, unknown, venue_error};
use crate::dialect::Instruments;
use crate::dialect::fields::{Event, Fields, Refusal, excerpt, malformed};
use crate::dialect::json::{Scanner, Token, Value};
use crate::dialect::reading::Pass;
use crate::dialect::symbols::Symbols;

/// The decoder of Kraken's spot market: both protocols of WebSocket, and REST.
#[derive(Debug)]
pub struct Kraken {
    /// The members of a message.
    outer: Fields<channels::Members>,
    /// Those of an element of its data.
    inner: Fields<channels::Members>,
    arrays: Fields<arrays::Members>,
    symbols: Symbols<Pairs>,
    book: Book,
    prints: Vec<Print>,
    elements: Vec<Value>,
}

impl Kraken {
    /// A decoder that knows these instruments, and others by their letters.
    pub fn new(listed: Arc<Instruments>) -> Self {
        Kraken {
            outer: Fields::default(),
            inner: Fields::default(),
            arrays: Fields::default(),
            symbols: Symbols::new(Pairs, listed),
            book: Book::default(),
            prints: Vec::new(),
            elements: Vec::new(),
        }
    }

    fn message(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let text = frame.payload;
        if Scanner::new(text).map_err(malformed)?.peek() == Some(b'[') {
            let Kraken { arrays, symbols, book, prints, .. } = self;
            return Arrays { frame, fields: arrays, symbols, book, prints }.decode(records);
        }
        self.outer.frame(text).map_err(malformed)?;
        let event = Event { text, fields: &self.outer };
        if event.has("channel") {
            self.channel(frame, records)
        } else if event.has("event") {
            self.event(frame, records)
        } else if event.has("method") {
            // Answers to requests: a refused one says so, and why.
            if event.get("error").is_some() || (event.has("success") && !event.boolean("success")?) {
                return Err(venue_error(text));
            }
            Ok(Outcome::Ignored)
        } else if event.get("error").is_some_and(|error| error.token == Token::Array) {
            let Kraken { outer, arrays, symbols, book, prints, .. } = self;
            answers::Answer { frame, fields: arrays, symbols, book, prints }.decode(Event { text, fields: outer }, records)
        } else if ["error", "Error", "errorMessage"].into_iter().any(|name| event.get(name).is_some()) {
            Err(venue_error(text))
        } else {
            Err(unknown("an object that names neither channel nor event"))
        }
    }

    /// A message of the second protocol.
    #[inline]
    fn channel(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let text = frame.payload;
        let event = Event { text, fields: &self.outer };
        let name = event.characters("channel")?;
        match name {
            b"heartbeat" | b"ohlc" | b"level3" | b"executions" | b"balances" => return Ok(Outcome::Ignored),
            b"instrument" => {
                let data = event.of_type("data", Token::Object, "an object")?;
                return listing::push_instruments(frame, data, records);
            }
            b"book" | b"trade" | b"ticker" | b"status" => {}
            _ => return Err(unknown(excerpt(text, event.of_type("channel", Token::Text, "a text")?))),
        }
        let data = event.of_type("data", Token::Array, "a list")?;
        let whole = match event.characters("type")? {
            b"snapshot" => true,
            b"update" => false,
            _ => return Err(unknown(excerpt(text, event.of_type("type", Token::Text, "a text")?))),
        };
        let Kraken { inner, symbols, book, elements, .. } = self;
        let mut channel = Channel { frame, fields: inner, symbols, book, elements };
        match name {
            b"book" => channel.each(data, false, records, |channel, pass, records| channel.book(pass, whole, records)),
            b"trade" => {
                let newest_first = records.trade.is_some() && channel.is_newest_first(data)?;
                channel.each(data, newest_first, records, Channel::trade)
            }
            b"ticker" => channel.each(data, false, records, Channel::ticker),
            _ => channel.each(data, false, records, Channel::status),
        }
    }

    /// An object of the first protocol: all but data.
    fn event(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let text = frame.payload;
        let event = Event { text, fields: &self.outer };
        match event.characters("event")? {
            b"heartbeat" | b"pong" => Ok(Outcome::Ignored),
            b"subscriptionStatus" if event.characters("status")? == b"error" => Err(venue_error(text)),
            b"subscriptionStatus" => Ok(Outcome::Ignored),
            b"systemStatus" => push_status(frame, &event.text("status")?.to_lowercase(), None, Pass::Push, records),
            b"error" => Err(venue_error(text)),
            _ => Err(unknown(excerpt(text, event.of_type("event", Token::Text, "a text")?))),
        }
    }
}

impl Dialect for Kraken {
    fn decode(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Reject> {
        self.message(frame, records).map_err(|refusal| *refusal)
    }
}
