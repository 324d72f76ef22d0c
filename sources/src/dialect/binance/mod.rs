//! Binance: spot, USD-M futures, COIN-M futures and options.
//!
//! A frame is an event of a stream, bare, in a combined stream's envelope or in a list (`!markPrice@arr`), or
//! the REST answers `depth` and `exchangeInfo`. It is walked once by a scanner that checks its syntax and notes
//! where its members stand; only what a wanted kind needs is then read. Nothing is allocated for an event,
//! the order of members does not matter, and unknown ones are passed over.
//!
//! What is promised: a frame gives all of its records or, with a [`Reject`], none; no bytes make it panic;
//! and the reasons for refusing are those of [`super::REASONS`]. What each event becomes is told in the manual's page
//! on Binance.

use std::sync::Arc;

use model::dialect::{Dialect, FrameRef, Outcome, Records, Reject};

mod answers;
mod events;
mod fields;
mod listing;
mod options;
mod symbols;
#[cfg(test)]
pub(super) mod tests;

pub(crate) use fields::{Letters, Shape};
pub use listing::instruments;
pub use symbols::Exchange;

use answers::{Answer, Members};
use events::Reading;

use super::Instruments;
use super::fields::{Event, Fields, Refusal, excerpt, malformed, refuse};
use super::json::{Scanner, Token, Value};
use super::reading::{Levels, Pass};
use super::symbols::Symbols;

/// Events that are Binance's and become no record.
const OTHER_EVENTS: [&[u8]; 16] = [
    b"kline",
    b"continuous_kline",
    b"indexPrice_kline",
    b"markPrice_kline",
    b"24hrTicker",
    b"24hrMiniTicker",
    b"1hTicker",
    b"4hTicker",
    b"1dTicker",
    b"avgPrice",
    b"indexPriceUpdate",
    b"compositeIndex",
    b"assetIndexUpdate",
    b"tradingSession",
    b"serverShutdown",
    b"listenKeyExpired",
];

/// The decoder of one of Binance's markets.
#[derive(Debug)]
pub struct Binance {
    exchange: Exchange,
    fields: Fields<Letters>,
    members: Fields<Members>,
    symbols: Symbols<Exchange>,
    levels: Levels,
}

impl Binance {
    /// A decoder that knows these instruments, and others by their letters.
    pub fn new(exchange: Exchange, listed: Arc<Instruments>) -> Self {
        Binance {
            exchange,
            fields: Fields::default(),
            members: Fields::default(),
            symbols: Symbols::new(exchange, listed),
            levels: Levels::default(),
        }
    }

    /// Decodes the object whose members were noted.
    #[inline]
    fn object(&mut self, frame: FrameRef<'_>, object: Value, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = Event { text: frame.payload, fields: &self.fields };
        if !event.has("e") {
            return self.unnamed(frame, object, pass, records);
        }
        let name = event.of_type("e", Token::Text, "a text")?.of(frame.payload);
        let options = self.exchange == Exchange::Options;
        if name == b"forceOrder" {
            let order = event.of_type("o", Token::Object, "an object")?;
            self.fields.inside(frame.payload, order).map_err(malformed)?;
        }
        if name == b"markPrice" && options {
            return self.option_price(frame, object, pass, records);
        }
        let reading = self.reading(frame, pass);
        match name {
            b"trade" => reading.trade(records),
            b"aggTrade" => reading.aggregate_trade(records),
            b"depthUpdate" => reading.depth(records),
            b"bookTicker" => reading.quote(records),
            b"markPriceUpdate" => reading.mark_price(records),
            b"forceOrder" => reading.liquidation(records),
            b"contractInfo" => reading.status(records),
            b"optionSymbol" if options => reading.status(records),
            b"openInterest" if options => reading.open_interest(records),
            b"indexPrice" if options => reading.index_price(records),
            other if OTHER_EVENTS.contains(&other) => Ok(Outcome::Ignored),
            _ => Err(unknown(event_name(frame.payload, &self.fields))),
        }
    }

    /// An event whose members have longer names than letters.
    fn option_price(&mut self, frame: FrameRef<'_>, object: Value, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.mark_price.is_none() && records.index_price.is_none() {
            return Ok(Outcome::Ignored);
        }
        self.members.inner(frame.payload, object).map_err(malformed)?;
        let event = Event { text: frame.payload, fields: &self.members };
        options::mark_price(event, frame, pass, &mut self.symbols, records)
    }

    /// Objects that do not say what they are: some spot events, REST answers and acknowledgements.
    fn unnamed(&mut self, frame: FrameRef<'_>, object: Value, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = Event { text: frame.payload, fields: &self.fields };
        if event.has("lastUpdateId") && event.has("bids") {
            self.reading(frame, pass).snapshot(records)
        } else if ["u", "b", "B", "a", "A"].into_iter().all(|name| event.has(name)) {
            self.reading(frame, pass).quote(records)
        } else if event.has("symbols") {
            listing::push(self.exchange, frame, pass, records)
        } else if event.get("error").is_some() || event.has("code") {
            Err(refuse("venue_error", format!("the venue answered with an error: {}", whole(frame.payload))))
        } else {
            self.members.inner(frame.payload, object).map_err(malformed)?;
            let event = Event { text: frame.payload, fields: &self.members };
            if event.has("optionSymbols") {
                return listing::push(self.exchange, frame, pass, records);
            }
            let is_acknowledgement = event.has("id");
            let answer = Answer { event, frame, pass, exchange: self.exchange, symbols: &mut self.symbols };
            match answer.decode(records)? {
                Some(outcome) => Ok(outcome),
                None if is_acknowledgement => Ok(Outcome::Ignored),
                None => Err(unknown("an object without the event type `e`".into())),
            }
        }
    }

    /// Decodes a list of objects: all of them, or none.
    fn list(&mut self, frame: FrameRef<'_>, list: Value, records: &mut Records) -> Result<Outcome, Refusal> {
        let mut elements = Vec::new();
        Scanner::at(frame.payload, list).array(|s| s.value().map(|e| elements.push(e))).map_err(malformed)?;
        if let Some(other) = elements.iter().find(|e| e.token != Token::Object) {
            return Err(unknown(format!("a list that holds {}", excerpt(frame.payload, *other))));
        }
        let mut outcome = Outcome::Ignored;
        for pass in [Pass::Check, Pass::Push] {
            for element in &elements {
                self.fields.inside(frame.payload, *element).map_err(malformed)?;
                if self.object(frame, *element, pass, records)? == Outcome::Decoded {
                    outcome = Outcome::Decoded;
                }
            }
        }
        Ok(outcome)
    }

    #[inline]
    fn reading<'a>(&'a mut self, frame: FrameRef<'a>, pass: Pass) -> Reading<'a> {
        let event = Event { text: frame.payload, fields: &self.fields };
        Reading { event, frame, pass, symbols: &mut self.symbols, levels: &mut self.levels }
    }
}

impl Dialect for Binance {
    fn decode(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Reject> {
        let shape = self.fields.event(frame.payload).map_err(malformed);
        let outcome = shape.and_then(|shape| match shape {
            Shape::Object(object) => self.object(frame, object, Pass::Push, records),
            Shape::List(list) => self.list(frame, list, records),
        });
        outcome.map_err(|refusal| *refusal)
    }
}

#[cold]
fn unknown(what: String) -> Refusal {
    refuse("unknown_event", format!("{what} is no event of Binance's that we know"))
}

fn event_name(text: &[u8], fields: &Fields<Letters>) -> String {
    Event { text, fields }.get("e").map_or_else(String::new, |name| excerpt(text, name))
}

fn whole(text: &[u8]) -> String {
    excerpt(text, Value { token: Token::Object, start: 0, end: text.len() as u32 })
}
