//! Bybit: spot, linear and inverse contracts, and options, by version 5 of its protocol.
//!
//! A frame is what a public socket of one category sends, or a REST answer of that category. It is walked by a scanner
//! that checks its syntax and notes where its members stand; only what a wanted kind needs is then read. Nothing is
//! allocated for a row, the order of members does not matter, and unknown ones are passed over.
//!
//! What is promised: a frame gives all of its records or, with a [`Reject`], none, because lists are checked whole before
//! the first row is pushed; no bytes make it panic; and the reasons for refusing are those of [`super::REASONS`]. Nothing is
//! remembered from one frame to the next: a change of a ticker gives records of what it says itself. What each frame
//! becomes is told in the manual's page on Bybit.

use std::sync::Arc;

use model::dialect::{Dialect, FrameRef, Outcome, Records, Reject};
use model::time::Micros;

mod events;
mod fields;
mod listing;
mod symbols;
#[cfg(test)]
pub(super) mod tests;

pub use listing::instruments;
pub use symbols::Category;

use events::Reading;
pub(crate) use fields::{Body, Envelope, Members, note};

use super::Instruments;
use super::fields::{Event, Fields, Refusal, excerpt, malformed, missing, refuse};
use super::json::{Scanner, Token, Value};
use super::reading::{Levels, Pass};
use super::symbols::Symbols;

/// Channels that are Bybit's and become no record.
const OTHER_CHANNELS: [&[u8]; 7] = [b"kline", b"kline_lt", b"tickers_lt", b"lt", b"insurance", b"adlAlert", b"priceLimit"];

/// How an element of a REST answer's list is read.
type Read = fn(Reading<'_>, &mut Records) -> Result<Outcome, Refusal>;

/// The decoder of one of Bybit's categories.
#[derive(Debug)]
pub struct Bybit {
    category: Category,
    outer: Fields<Envelope>,
    inner: Fields<Members>,
    element: Fields<Members>,
    symbols: Symbols<Category>,
    levels: Levels,
}

impl Bybit {
    /// A decoder that knows these instruments, and others by their letters.
    pub fn new(category: Category, listed: Arc<Instruments>) -> Self {
        Bybit {
            category,
            outer: Fields::default(),
            inner: Fields::default(),
            element: Fields::default(),
            symbols: Symbols::new(category, listed),
            levels: Levels::default(),
        }
    }

    #[inline]
    fn frame(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let body = note(frame.payload, &mut self.outer, &mut self.inner).map_err(malformed)?;
        let outer = Event { text: frame.payload, fields: &self.outer };
        if outer.has("topic") {
            self.push(frame, body, records)
        } else if outer.has("retCode") {
            self.answer(frame, body, records)
        } else if outer.has("success") {
            self.command(frame)
        } else if outer.has("op") && outer.characters("op")? == b"pong" {
            Ok(Outcome::Ignored)
        } else {
            Err(unknown("an object without topic or code".into()))
        }
    }

    /// What a socket pushes.
    #[inline]
    fn push(&mut self, frame: FrameRef<'_>, body: Body, records: &mut Records) -> Result<Outcome, Refusal> {
        let topic = Event { text: frame.payload, fields: &self.outer }.characters("topic")?;
        let (channel, rest) = cut(topic);
        match channel {
            b"publicTrade" => self.list(frame, body, records, |reading, records| reading.trade(records)),
            b"orderbook" => match cut(rest).0 {
                // The book with retail price improvement is another book.
                b"rpi" => Ok(Outcome::Ignored),
                b"1" => self.object(frame, body)?.quote(records),
                depth if !depth.is_empty() && depth.iter().all(u8::is_ascii_digit) => self.object(frame, body)?.book(records),
                _ => Err(unknown_topic(topic)),
            },
            // A spot ticker has nothing but the last trade, its statistics and an index price that is not in the quote asset.
            b"tickers" if self.category == Category::Spot => Ok(Outcome::Ignored),
            b"tickers" => self.object(frame, body)?.pushed_ticker(records),
            b"allLiquidation" => self.list(frame, body, records, |reading, records| reading.liquidation(records)),
            b"liquidation" => self.object(frame, body)?.old_liquidation(records),
            b"system" if rest == b"status" => self.list(frame, body, records, |reading, records| reading.status(records)),
            other if OTHER_CHANNELS.contains(&other) => Ok(Outcome::Ignored),
            _ => Err(unknown_topic(topic)),
        }
    }

    /// The object that the envelope holds, to be read.
    #[inline]
    fn object<'a>(&'a mut self, frame: FrameRef<'a>, body: Body) -> Result<Reading<'a>, Refusal> {
        match body {
            Body::Object => Ok(self.reading(frame, Pass::Push)),
            Body::None => Err(missing("data")),
            Body::Value(other) => Err(mistyped("data", frame.payload, other, "an object")),
        }
    }

    #[inline]
    fn reading<'a>(&'a mut self, frame: FrameRef<'a>, pass: Pass) -> Reading<'a> {
        let text = frame.payload;
        Reading {
            category: self.category,
            outer: Event { text, fields: &self.outer },
            event: Event { text, fields: &self.inner },
            result: Event { text, fields: &self.inner },
            frame,
            pass,
            symbols: &mut self.symbols,
            levels: &mut self.levels,
        }
    }

    /// Reads every element of the list that the envelope holds: all of them, or none.
    fn list(
        &mut self,
        frame: FrameRef<'_>,
        body: Body,
        records: &mut Records,
        read: impl Fn(Reading<'_>, &mut Records) -> Result<Outcome, Refusal>,
    ) -> Result<Outcome, Refusal> {
        let list = match body {
            Body::Value(list @ Value { token: Token::Array, .. }) => list,
            Body::Value(other) => return Err(mistyped("data", frame.payload, other, "a list")),
            Body::Object => return Err(refuse("wrong_type", "`data` is an object, where a list should be")),
            Body::None => return Err(missing("data")),
        };
        let mut outcome = Outcome::Ignored;
        for pass in [Pass::Check, Pass::Push] {
            let mut refused = None;
            let walk = Scanner::at(frame.payload, list).array(|s| {
                if refused.is_some() || s.peek() != Some(b'{') {
                    let other = s.value()?;
                    refused.get_or_insert_with(|| mistyped("data", frame.payload, other, "an object"));
                    return Ok(());
                }
                self.element.forget_but(0);
                s.letters(|s, member| self.element.note(s, member))?;
                let Bybit { category, outer, inner, element, symbols, levels } = &mut *self;
                let text = frame.payload;
                let reading = Reading {
                    category: *category,
                    outer: Event { text, fields: outer },
                    event: Event { text, fields: element },
                    result: Event { text, fields: inner },
                    frame,
                    pass,
                    symbols,
                    levels,
                };
                match read(reading, records) {
                    Ok(Outcome::Decoded) => outcome = Outcome::Decoded,
                    Ok(Outcome::Ignored) => {}
                    Err(refusal) => refused = Some(refusal),
                }
                Ok(())
            });
            walk.map_err(malformed)?;
            if let Some(refusal) = refused {
                return Err(refusal);
            }
        }
        Ok(outcome)
    }

    /// The answer to a command: a subscription, a ping.
    #[cold]
    fn command(&self, frame: FrameRef<'_>) -> Result<Outcome, Refusal> {
        let outer = Event { text: frame.payload, fields: &self.outer };
        let inner = Event { text: frame.payload, fields: &self.inner };
        let mut failed = !outer.boolean("success")?;
        if inner.has("failTopics") {
            // The option socket says of every topic whether it was subscribed.
            let topics = inner.of_type("failTopics", Token::Array, "a list")?;
            let walk = Scanner::at(frame.payload, topics).array(|s| s.value().map(|_| failed = true));
            walk.map_err(malformed)?;
        }
        if failed { Err(venue_error(frame.payload)) } else { Ok(Outcome::Ignored) }
    }

    /// A REST answer. It does not say which question it answers, but its members do.
    fn answer(&mut self, frame: FrameRef<'_>, body: Body, records: &mut Records) -> Result<Outcome, Refusal> {
        let text = frame.payload;
        if (Event { text, fields: &self.outer }).integer("retCode")? != 0 {
            return Err(venue_error(text));
        }
        let result = Event { text, fields: &self.inner };
        match body {
            Body::None => return Err(missing("result")),
            Body::Value(Value { token: Token::Array, .. }) => return Ok(Outcome::Ignored),
            Body::Value(other) => return Err(mistyped("result", text, other, "an object")),
            Body::Object => {}
        }
        if result.get("category").is_some() {
            // The same symbol is another instrument in another category.
            let category = result.of_type("category", Token::Text, "a text")?;
            if category.start < category.end && category.of(text) != self.category.as_str().as_bytes() {
                return Err(result.mistyped("category", category, self.category.as_str()));
            }
        }
        if result.has("list") {
            let list = result.of_type("list", Token::Array, "a list")?;
            self.answered_list(frame, list, records)
        } else if result.has("b") && result.has("a") {
            self.reading(frame, Pass::Push).snapshot(records)
        } else if result.has("timeSecond") {
            Ok(Outcome::Ignored)
        } else {
            Err(unknown("an answer without a list".into()))
        }
    }

    /// The list of a REST answer, in the order of time: Bybit sends the newest first.
    fn answered_list(&mut self, frame: FrameRef<'_>, list: Value, records: &mut Records) -> Result<Outcome, Refusal> {
        let text = frame.payload;
        let mut elements = Vec::new();
        Scanner::at(text, list).array(|s| s.value().map(|e| elements.push(e))).map_err(malformed)?;
        let Some(first) = elements.first().copied() else { return Ok(Outcome::Ignored) };
        if first.token == Token::Array {
            // Candles.
            return Ok(Outcome::Ignored);
        }
        if let Some(other) = elements.iter().find(|e| e.token != Token::Object) {
            return Err(mistyped("list", text, *other, "an object"));
        }
        self.element.inner(text, first).map_err(malformed)?;
        let event = Event { text, fields: &self.element };
        let (read, time): (Read, _) = if event.has("execId") {
            (|reading, records| reading.answered_trade(records), Some("time"))
        } else if event.has("fundingRateTimestamp") {
            (|reading, records| reading.funding_history(records), Some("fundingRateTimestamp"))
        } else if event.has("buyRatio") {
            (|reading, records| reading.long_short_ratio(records), Some("timestamp"))
        } else if event.has("baseCoin") {
            return listing::push(self.category, frame, records);
        } else if event.has("state") && event.has("begin") {
            (|reading, records| reading.status(records), None)
        } else if event.has("lastPrice") {
            (|reading, records| reading.answered_ticker(records), None)
        } else if event.has("openInterest") && event.has("timestamp") {
            (|reading, records| reading.open_interest_history(records), Some("timestamp"))
        } else {
            return Err(unknown("a list in an answer".into()));
        };
        if let Some(time) = time {
            let last = elements.last().copied().unwrap_or(first);
            if self.time_of(text, first, time)? >= self.time_of(text, last, time)? {
                elements.reverse();
            }
        }
        let mut outcome = Outcome::Ignored;
        for pass in [Pass::Check, Pass::Push] {
            for element in &elements {
                self.element.inner(text, *element).map_err(malformed)?;
                let Bybit { category, outer, inner, element, symbols, levels } = &mut *self;
                let reading = Reading {
                    category: *category,
                    outer: Event { text, fields: outer },
                    event: Event { text, fields: element },
                    result: Event { text, fields: inner },
                    frame,
                    pass,
                    symbols,
                    levels,
                };
                if read(reading, records)? == Outcome::Decoded {
                    outcome = Outcome::Decoded;
                }
            }
        }
        Ok(outcome)
    }

    fn time_of(&mut self, text: &[u8], element: Value, name: &'static str) -> Result<Micros, Refusal> {
        self.element.inner(text, element).map_err(malformed)?;
        Event { text, fields: &self.element }.quoted_time(name)
    }
}

impl Dialect for Bybit {
    fn decode(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Reject> {
        self.frame(frame, records).map_err(|refusal| *refusal)
    }
}

/// A topic cut at its first dot.
#[inline]
fn cut(topic: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'.', topic) {
        Some(at) => (&topic[..at], &topic[at + 1..]),
        None => (topic, b""),
    }
}

#[cold]
fn mistyped(name: &str, text: &[u8], value: Value, what: &str) -> Refusal {
    refuse("wrong_type", format!("`{name}` has {}, where {what} should be", excerpt(text, value)))
}

#[cold]
fn unknown(what: String) -> Refusal {
    refuse("unknown_event", format!("{what} is nothing of Bybit's that we know"))
}

#[cold]
fn unknown_topic(topic: &[u8]) -> Refusal {
    unknown(format!("the topic \"{}\"", String::from_utf8_lossy(topic).chars().take(60).collect::<String>()))
}

#[cold]
fn venue_error(text: &[u8]) -> Refusal {
    let whole = Value { token: Token::Object, start: 0, end: text.len() as u32 };
    refuse("venue_error", format!("the venue answered with an error: {}", excerpt(text, whole)))
}
