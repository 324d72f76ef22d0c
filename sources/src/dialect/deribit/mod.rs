//! Deribit: futures, perpetuals, options and spot, over JSON-RPC.
//!
//! A frame is a notification of a channel, `{"method":"subscription","params":{"channel":…,"data":…}}`, or the answer to a
//! request, `{"result":…}`, which REST and WebSocket give alike. A notification names its channel; an answer does not say what it
//! is, but its members do. A frame is walked once by a scanner that checks its syntax and notes where its members stand; only
//! what a wanted kind needs is then read. Nothing is allocated for a trade, a quote or a level of a book.
//!
//! What is promised: a frame gives all of its records or, with a [`Reject`], none; no bytes make it panic;
//! and the reasons for refusing are those of [`crate::dialect::REASONS`]. It holds because data with one record is read
//! whole before that is pushed, and a list is read twice: only checked at first, then pushed. What each frame
//! becomes is told in the manual's page on Deribit.
//!
//! Amounts of inverse futures are US dollars here, not contracts, which are worth 1 or 10 of them (see `events`).

use std::sync::Arc;

use model::dialect::{Dialect, FrameRef, Outcome, Records, Reject};

mod answers;
mod events;
mod listing;
mod symbols;
#[cfg(test)]
pub(super) mod tests;

pub use listing::instruments;

pub(crate) use events::{Envelope, FIGURES, Names};
use symbols::{IndexName, InstrumentName};

use super::Instruments;
use super::fields::{Event, Fields, Refusal, excerpt, malformed, refuse};
use super::json::{Flaw, Malformed, Member, Scan, Scanner, Token, Value};
use super::reading::{Levels, Pass};
use super::symbols::Symbols;

/// Channels that become no record: bars, statistics, estimates without a time, tickers of which only a part is sent, and what
/// concerns one account or a negotiation.
const OTHER_CHANNELS: [&[u8]; 10] = [
    b"announcements",
    b"block_rfq",
    b"block_trade_confirmations",
    b"chart",
    b"deribit_price_ranking",
    b"deribit_price_statistics",
    b"estimated_expiration_price",
    b"incremental_ticker",
    b"rfq",
    b"user",
];

/// The decoder of Deribit's interface.
#[derive(Debug)]
pub struct Deribit {
    frame: Fields<Envelope>,
    data: Fields<Names>,
    /// Where the objects stand that become a record each.
    items: Vec<Value>,
    symbols: Symbols<InstrumentName>,
    indices: Symbols<IndexName>,
    levels: Levels,
}

/// What becomes of one object of a list.
type Each = fn(&mut Deribit, FrameRef<'_>, Pass, &mut Records) -> Result<Outcome, Refusal>;

impl Deribit {
    /// A decoder that knows these instruments, and others by their letters.
    pub fn new(listed: Arc<Instruments>) -> Self {
        Deribit {
            frame: Fields::default(),
            data: Fields::default(),
            items: Vec::new(),
            symbols: Symbols::new(InstrumentName, listed),
            indices: Symbols::new(IndexName, Arc::default()),
            levels: Levels::default(),
        }
    }

    fn frame(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let object = note(frame.payload, &mut self.frame, &mut self.data).map_err(malformed)?;
        let event = Event { text: frame.payload, fields: &self.frame };
        if event.has("method") {
            return match event.characters("method")? {
                b"subscription" => self.notification(frame, object, records),
                b"heartbeat" => Ok(Outcome::Ignored),
                other => Err(unknown(&format!("\"{}\"", String::from_utf8_lossy(other)))),
            };
        }
        if event.get("error").is_some() {
            let whole = Value { token: Token::Object, start: 0, end: frame.payload.len() as u32 };
            return Err(refuse("venue_error", format!("the venue answered with an error: {}", excerpt(frame.payload, whole))));
        }
        match event.get("result") {
            Some(result) if result.token == Token::Object => self.answer(frame, result, records),
            Some(result) if result.token == Token::Array => self.list_answer(frame, result, records),
            // "ok", a time, a rate of which nobody says over what.
            _ if event.has("result") => Ok(Outcome::Ignored),
            _ => Err(unknown("a frame without `method` and `result`")),
        }
    }

    /// A notification of a channel.
    #[inline]
    fn notification(&mut self, frame: FrameRef<'_>, object: bool, records: &mut Records) -> Result<Outcome, Refusal> {
        let text = frame.payload;
        let event = Event { text, fields: &self.frame };
        let channel = event.of_type("channel", Token::Text, "a text")?.of(text);
        let (name, rest) = match memchr::memchr(b'.', channel) {
            Some(at) => (&channel[..at], &channel[at + 1..]),
            None => (channel, &channel[channel.len()..]),
        };
        let listed: Option<Each> = match name {
            b"trades" if records.trade.is_none() && records.liquidation.is_none() => return Ok(Outcome::Ignored),
            b"trades" => Some(Self::item_trade::<false>),
            b"markprice" if records.mark_price.is_none() => return Ok(Outcome::Ignored),
            b"markprice" => Some(Self::item_mark_price),
            other if OTHER_CHANNELS.contains(&other) => return Ok(Outcome::Ignored),
            _ => None,
        };
        if let Some(each) = listed {
            let list = event.of_type("data", Token::Array, "a list")?;
            self.items.clear();
            self.gather(text, list)?;
            if name == b"trades" {
                self.oldest_first(text)?;
            }
            return self.each(frame, each, records);
        }
        let (symbols, indices, levels) = (&mut self.symbols, &mut self.indices, &mut self.levels);
        let data = Event { text, fields: &self.data };
        // Without its members the data is missing or no object.
        let whole = || if object { Ok(()) } else { event.of_type("data", Token::Object, "an object").map(drop) };
        match name {
            b"book" => whole().and_then(|()| events::book(data, frame, Pass::Push, symbols, levels, records)),
            b"ticker" => whole().and_then(|()| events::ticker(data, frame, Pass::Push, symbols, records)),
            b"quote" => whole().and_then(|()| events::quote(data, frame, Pass::Push, symbols, records)),
            b"perpetual" => whole().and_then(|()| events::perpetual(data, rest, frame, symbols, records)),
            b"deribit_price_index" => whole().and_then(|()| events::index_price(data, frame, indices, records)),
            b"deribit_volatility_index" => whole().and_then(|()| events::volatility(data, frame, indices, records)),
            b"instrument" if rest.starts_with(b"state.") => whole().and_then(|()| events::instrument_state(data, frame, symbols, records)),
            b"instrument" if rest.starts_with(b"creation.") => whole().and_then(|()| listing::push(frame, records)),
            b"platform_state" if rest.is_empty() => whole().and_then(|()| events::platform_state(data, frame, indices, records)),
            // Whether the venue talks to those without an account.
            b"platform_state" if rest == b"public_methods_state" => Ok(Outcome::Ignored),
            _ => Err(unknown(&format!("channel \"{}\"", String::from_utf8_lossy(channel)))),
        }
    }

    /// Notes where the elements of a list stand.
    fn gather(&mut self, text: &[u8], list: Value) -> Result<(), Refusal> {
        Scanner::at(text, list).array(|s| s.value().map(|element| self.items.push(element))).map_err(malformed)
    }

    fn note_item(&mut self, text: &[u8], item: Value) -> Result<(), Refusal> {
        if item.token != Token::Object {
            return Err(refuse("wrong_type", format!("a list holds {}, where an object should be", excerpt(text, item))));
        }
        self.data.inner(text, item).map_err(malformed)
    }

    /// Turns trades around that come newest first, as answers may send them.
    fn oldest_first(&mut self, text: &[u8]) -> Result<(), Refusal> {
        let [first, .., last] = self.items[..] else { return Ok(()) };
        let mut age = |item| {
            self.note_item(text, item)?;
            let trade = Event { text, fields: &self.data };
            Ok::<_, Refusal>((trade.time("timestamp")?, events::trade_number(trade)))
        };
        if age(last)? < age(first)? {
            self.items.reverse();
        }
        Ok(())
    }

    /// Decodes every item: all of them, or none.
    fn each(&mut self, frame: FrameRef<'_>, decode: Each, records: &mut Records) -> Result<Outcome, Refusal> {
        // One item is read whole before it is pushed.
        let passes: &[Pass] = if self.items.len() == 1 { &[Pass::Push] } else { &[Pass::Check, Pass::Push] };
        let mut outcome = Outcome::Ignored;
        for pass in passes {
            for at in 0..self.items.len() {
                self.note_item(frame.payload, self.items[at])?;
                if decode(self, frame, *pass, records)? == Outcome::Decoded {
                    outcome = Outcome::Decoded;
                }
            }
        }
        Ok(outcome)
    }

    fn item_trade<const BACKFILLED: bool>(&mut self, frame: FrameRef<'_>, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = Event { text: frame.payload, fields: &self.data };
        events::trade(event, frame, pass, BACKFILLED, &mut self.symbols, records)
    }

    fn item_mark_price(&mut self, frame: FrameRef<'_>, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = Event { text: frame.payload, fields: &self.data };
        events::mark_price(event, frame, pass, &mut self.symbols, records)
    }
}

/// Notes the members of a frame: its own, those of its `params` and, where its `data` is an object, those of the data.
/// Whether it is one.
#[inline]
pub(crate) fn note(text: &[u8], frame: &mut Fields<Envelope>, data: &mut Fields<Names>) -> Scan<bool> {
    frame.forget_but(0);
    data.forget_but(0);
    let (mut params, mut object) = (false, false);
    let mut scanner = Scanner::new(text)?;
    if scanner.peek() == Some(b'[') {
        // A list is JSON, but nothing that this venue sends.
        scanner.value()?;
        scanner.end()?;
        return Ok(false);
    }
    scanner.object(|s, key| match key {
        b"params" if params => s.value().and_then(twice),
        b"params" if s.peek() == Some(b'{') => {
            params = true;
            s.object(|s, key| match key {
                b"data" if object => s.value().and_then(twice),
                b"data" if s.peek() == Some(b'{') => {
                    object = true;
                    s.object(|s, key| data.note(s, Member::Other(key)))
                }
                b"channel" | b"data" | b"type" => frame.note(s, Member::Other(key)),
                _ => s.value().map(drop),
            })
        }
        b"params" => {
            params = true;
            s.value().map(drop)
        }
        b"method" | b"id" | b"result" | b"error" | b"usOut" => frame.note(s, Member::Other(key)),
        _ => s.value().map(drop),
    })?;
    scanner.end()?;
    // A list or a number may have stood there before.
    let before = Event { text, fields: frame };
    if object && before.has("data") {
        twice(before.get("data").unwrap_or_default())?;
    }
    Ok(object)
}

impl Dialect for Deribit {
    fn decode(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Reject> {
        self.frame(frame, records).map_err(|refusal| *refusal)
    }
}

/// A member that stands there again.
#[cold]
fn twice(again: Value) -> Scan<()> {
    Err(Malformed { at: again.start, what: Flaw::Twice })
}

#[cold]
fn unknown(what: &str) -> Refusal {
    refuse("unknown_event", format!("{what} is nothing of Deribit's that we know"))
}
