//! OKX: spot, perpetuals, futures and options, by version 5 of its protocol.
//!
//! A frame is what a public socket sends, or a REST answer. What a socket pushes names its channel; an answer does not say what it is,
//! but its members do. A frame is walked once by a scanner that checks its syntax and notes where its members stand; only what a
//! wanted kind needs is then read. Nothing is allocated for a row, the order of members does not matter, and unknown ones are
//! passed over.
//!
//! What is promised: a frame gives all of its records or, with a [`Reject`], none; no bytes make it panic; and the reasons for
//! refusing are those of [`crate::dialect::REASONS`]. It holds because one object is read whole before anything of it is pushed,
//! and a list is read twice: only checked at first, then pushed. Nothing is remembered from one frame to the next. What each frame
//! becomes is told in the manual's page on OKX.

use std::sync::Arc;

use model::dialect::{Dialect, FrameRef, Outcome, Records, Reject};

mod answers;
mod events;
mod fields;
mod listing;
mod symbols;
#[cfg(test)]
pub(super) mod tests;

pub use listing::instruments;

use events::Reading;
pub(crate) use fields::{Body, Envelope, Members, note};
use symbols::{IndexId, InstId};

use super::Instruments;
use super::fields::{Event, Fields, Refusal, excerpt, malformed, missing, refuse};
use super::json::{Token, Value};
use super::reading::{Levels, Pass};
use super::symbols::Symbols;

/// Channels that are OKX's and become no record: other books, bars, estimates, greeks, limits, blocks, spreads, and what concerns
/// one account. Those of bars and spreads are known by how they begin.
const OTHER_CHANNELS: [&[u8]; 30] = [
    b"account",
    b"account-greeks",
    b"adl-warning",
    b"algo-advance",
    b"algo-recurring-buy",
    b"balance_and_position",
    b"block-tickers",
    b"books-elp",
    b"books-rpi",
    b"call-auction-details",
    b"copytrading-lead-notification",
    b"deposit-info",
    b"economic-calendar",
    b"estimated-price",
    b"event-contract-markets",
    b"fills",
    b"grid-orders-contract",
    b"grid-orders-spot",
    b"grid-positions",
    b"grid-sub-orders",
    b"liquidation-warning",
    b"opt-summary",
    b"orders",
    b"orders-algo",
    b"positions",
    b"price-limit",
    b"public-block-trades",
    b"public-struc-block-trades",
    b"rfqs",
    b"withdrawal-info",
];

/// How the channels of bars and spreads begin.
const OTHER_BEGINNINGS: [&[u8]; 4] = [b"candle", b"mark-price-candle", b"index-candle", b"sprd-"];

/// How an element of the data is read.
type Read = fn(Reading<'_>, &mut Records) -> Result<Outcome, Refusal>;

/// The decoder of OKX's protocol.
#[derive(Debug)]
pub struct Okx {
    outer: Fields<Envelope>,
    element: Fields<Members>,
    /// An object inside an element.
    detail: Fields<Members>,
    /// Where the elements of the data stand.
    items: Vec<Value>,
    /// Whether the members of the first element are noted.
    noted: bool,
    symbols: Symbols<InstId>,
    indices: Symbols<IndexId>,
    levels: Levels,
}

impl Okx {
    /// A decoder that knows these instruments, and others by their letters.
    pub fn new(listed: Arc<Instruments>) -> Self {
        Okx {
            outer: Fields::default(),
            element: Fields::default(),
            detail: Fields::default(),
            items: Vec::new(),
            noted: false,
            symbols: Symbols::new(InstId, listed),
            indices: Symbols::new(IndexId, Arc::default()),
            levels: Levels::default(),
        }
    }

    #[inline]
    fn frame(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        // Sockets answer the text `ping`, which is no JSON.
        if frame.payload == b"pong" {
            return Ok(Outcome::Ignored);
        }
        let body = note(frame.payload, &mut self.outer, &mut self.element, &mut self.items).map_err(malformed)?;
        let outer = Event { text: frame.payload, fields: &self.outer };
        if outer.has("event") {
            return self.event(frame);
        }
        let pushed = outer.has("channel");
        if !pushed && !outer.has("code") {
            return Err(unknown("a frame without channel, event and code"));
        }
        if !pushed && outer.characters("code")? != b"0" {
            return Err(venue_error(frame.payload));
        }
        self.noted = match body {
            Body::List { noted } => noted,
            Body::Value(other) => {
                return Err(refuse("wrong_type", format!("`data` is {}, where a list should be", excerpt(frame.payload, other))));
            }
            Body::None => return Err(missing("data")),
        };
        if pushed { self.push(frame, records) } else { self.answer(frame, records) }
    }

    /// What a channel pushes.
    #[inline]
    fn push(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let outer = Event { text: frame.payload, fields: &self.outer };
        let channel = outer.characters("channel")?;
        let read: Read = match channel {
            b"trades" | b"trades-all" | b"option-trades" => |reading, records| reading.trade(records),
            b"bbo-tbt" => |reading, records| reading.best_levels(records),
            b"books" | b"books-l2-tbt" | b"books50-l2-tbt" => match outer.characters("action")? {
                b"snapshot" => |reading, records| reading.snapshot(records),
                b"update" => |reading, records| reading.delta(records),
                other => return Err(mistaken("action", other, "snapshot or update")),
            },
            b"books5" => |reading, records| reading.snapshot(records),
            b"tickers" => |reading, records| reading.ticker(records),
            b"mark-price" => |reading, records| reading.mark_price(records),
            b"index-tickers" => |reading, records| reading.index_price(records),
            b"funding-rate" => |reading, records| reading.funding_rate(records),
            b"open-interest" => |reading, records| reading.open_interest(records),
            b"liquidation-orders" => |reading, records| reading.liquidations(records),
            b"status" => |reading, records| reading.status(records),
            b"instruments" => return listing::push(frame, records),
            other if OTHER_CHANNELS.contains(&other) || OTHER_BEGINNINGS.iter().any(|begin| other.starts_with(begin)) => {
                return Ok(Outcome::Ignored);
            }
            other => return Err(unknown(&format!("the channel \"{}\"", cut(other)))),
        };
        self.each(frame, read, records)
    }

    /// Reads every element of the data: all of them, or none.
    #[inline]
    fn each(&mut self, frame: FrameRef<'_>, read: Read, records: &mut Records) -> Result<Outcome, Refusal> {
        // One object is read whole before anything of it is pushed.
        let passes: &[Pass] = if self.items.len() == 1 { &[Pass::Push] } else { &[Pass::Check, Pass::Push] };
        let mut outcome = Outcome::Ignored;
        for pass in passes {
            for at in 0..self.items.len() {
                self.note_item(frame.payload, at)?;
                if read(self.reading(frame, *pass), records)? == Outcome::Decoded {
                    outcome = Outcome::Decoded;
                }
            }
        }
        Ok(outcome)
    }

    /// Notes the members of an element, unless they are.
    #[inline]
    fn note_item(&mut self, text: &[u8], at: usize) -> Result<(), Refusal> {
        if std::mem::take(&mut self.noted) && at == 0 {
            return Ok(());
        }
        let item = self.items.get(at).copied().unwrap_or_default();
        if item.token != Token::Object {
            return Err(refuse("wrong_type", format!("`data` holds {}, where an object should be", excerpt(text, item))));
        }
        self.element.inner(text, item).map_err(malformed)
    }

    #[inline]
    fn reading<'a>(&'a mut self, frame: FrameRef<'a>, pass: Pass) -> Reading<'a> {
        let text = frame.payload;
        Reading {
            outer: Event { text, fields: &self.outer },
            event: Event { text, fields: &self.element },
            detail: &mut self.detail,
            frame,
            pass,
            symbols: &mut self.symbols,
            indices: &mut self.indices,
            levels: &mut self.levels,
        }
    }

    /// What a socket says of itself: the answer to a subscription, a notice that it will be closed.
    #[cold]
    fn event(&self, frame: FrameRef<'_>) -> Result<Outcome, Refusal> {
        let outer = Event { text: frame.payload, fields: &self.outer };
        match outer.characters("event")? {
            b"subscribe" | b"unsubscribe" | b"notice" | b"channel-conn-count" => Ok(Outcome::Ignored),
            b"login" if outer.get("code").is_none() || outer.characters("code")? == b"0" => Ok(Outcome::Ignored),
            b"error" | b"login" | b"channel-conn-count-error" => Err(venue_error(frame.payload)),
            other => Err(unknown(&format!("the event \"{}\"", cut(other)))),
        }
    }
}

impl Dialect for Okx {
    fn decode(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Reject> {
        self.frame(frame, records).map_err(|refusal| *refusal)
    }
}

/// As much of a text as a message bears.
fn cut(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(60).collect()
}

#[cold]
fn mistaken(name: &'static str, sent: &[u8], what: &str) -> Refusal {
    refuse("wrong_type", format!("`{name}` is \"{}\", where {what} should be", cut(sent)))
}

#[cold]
fn unknown(what: &str) -> Refusal {
    refuse("unknown_event", format!("{what} is nothing of OKX's that we know"))
}

#[cold]
fn venue_error(text: &[u8]) -> Refusal {
    let whole = Value { token: Token::Object, start: 0, end: text.len() as u32 };
    refuse("venue_error", format!("the venue answered with an error: {}", excerpt(text, whole)))
}
