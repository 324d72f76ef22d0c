//! Coinbase: the interfaces Exchange and Advanced Trade.
//!
//! A frame of Exchange is one message that names its `type`; one of Advanced Trade is an envelope that names its `channel` and
//! holds `events`. REST answers say not what they are, but their members do. A frame is walked once by a scanner that checks
//! its syntax and notes where its members stand; only what a wanted kind needs is then read. Nothing is allocated for a trade,
//! a quote or a level of a book.
//!
//! What is promised: a frame gives all of its records or, with a [`Reject`], none; no bytes make it panic;
//! and the reasons for refusing are those of [`crate::dialect::REASONS`]. It holds because a message with one record is read
//! whole before that is pushed, and one with several is read twice: only checked at first, then pushed. What each message
//! becomes is told in the manual's page on Coinbase.
//!
//! The side of a trade is the maker's in everything that Coinbase sends, and the taker's in records.

use std::sync::Arc;

use model::dialect::{Dialect, FrameRef, Outcome, Records, Reject};

mod events;
mod listing;
mod message;
mod symbols;
#[cfg(test)]
pub(super) mod tests;

pub(crate) use events::Names;
pub use listing::instruments;
pub(crate) use message::{Message, note};
pub use symbols::Api;

use events::{LevelNames, Places};

use super::Instruments;
use super::fields::{Event, Fields, Refusal, excerpt, malformed, refuse};
use super::json::{Scanner, Token, Value};
use super::reading::{Levels, Pass};
use super::symbols::Symbols;

/// Messages of Exchange that become no record: of single orders, of auctions, of trades that met no order of the book, and
/// acknowledgements.
const OTHER_TYPES: [&[u8]; 11] =
    [b"subscriptions", b"heartbeat", b"received", b"open", b"done", b"change", b"activate", b"auction", b"rfq_match", b"level3", b"noop"];

/// Channels of Advanced Trade that become no record: acknowledgements, bars, and what concerns one account.
const OTHER_CHANNELS: [&[u8]; 5] = [b"subscriptions", b"heartbeats", b"candles", b"user", b"futures_balance_summary"];

/// The decoder of one of Coinbase's interfaces.
#[derive(Debug)]
pub struct Coinbase {
    api: Api,
    fields: Fields<Names>,
    inner: Fields<Names>,
    level: Fields<LevelNames>,
    /// Where the objects stand that become a record each.
    items: Vec<Value>,
    symbols: Symbols<Api>,
    levels: Levels,
}

/// What becomes of one object of a list.
type Each = fn(&mut Coinbase, FrameRef<'_>, Pass, &mut Records) -> Result<Outcome, Refusal>;

impl Coinbase {
    /// A decoder that knows these instruments, and others by their letters.
    pub fn new(api: Api, listed: Arc<Instruments>) -> Self {
        Coinbase {
            api,
            fields: Fields::default(),
            inner: Fields::default(),
            level: Fields::default(),
            items: Vec::new(),
            symbols: Symbols::new(api, listed),
            levels: Levels::default(),
        }
    }

    fn frame(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let mut scanner = Scanner::new(frame.payload).map_err(malformed)?;
        if scanner.peek() == Some(b'[') {
            let list = scanner.value().and_then(|list| scanner.end().map(|()| list)).map_err(malformed)?;
            return self.list(frame, list, records);
        }
        self.fields.frame(frame.payload).map_err(malformed)?;
        match self.api {
            Api::Exchange => self.message(frame, records),
            Api::Advanced => self.envelope(frame, records),
        }
    }

    /// A message of Exchange.
    fn message(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = Event { text: frame.payload, fields: &self.fields };
        if !event.has("type") {
            return self.answer(frame, records);
        }
        let (symbols, levels) = (&mut self.symbols, &mut self.levels);
        match event.characters("type")? {
            b"l2update" if records.book_delta.is_none() => Ok(Outcome::Ignored),
            b"l2update" => {
                events::read_changes(event, levels)?;
                let event_time = event.optional_timestamp("time")?;
                let listing = events::listing(event, frame, symbols)?;
                events::book_delta(listing, levels, event_time, frame, Pass::Push, records)
            }
            b"match" | b"last_match" => events::trade(event, frame, Pass::Push, false, symbols, records),
            b"ticker" if records.quote.is_none() => Ok(Outcome::Ignored),
            b"ticker" => {
                const PLACES: Places = ["best_bid", "best_bid_size", "best_ask", "best_ask_size"];
                let event_time = event.optional_timestamp("time")?;
                events::quote(event, PLACES, event_time, frame, Pass::Push, symbols, records)
            }
            b"snapshot" => self.book(frame, false, records),
            b"status" => listing::push_status(frame, None, symbols, records),
            b"error" => Err(venue_error(frame.payload)),
            other if OTHER_TYPES.contains(&other) => Ok(Outcome::Ignored),
            other => Err(unknown(&format!("\"{}\"", String::from_utf8_lossy(other)))),
        }
    }

    /// A REST answer of Exchange that is an object.
    fn answer(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = Event { text: frame.payload, fields: &self.fields };
        if event.has("bids") && event.has("asks") {
            self.book(frame, true, records)
        } else if event.has("bid") && event.has("ask") && event.has("trade_id") {
            // Sizes are not told: `size` is that of the last trade.
            const PLACES: Places = ["bid", "best_bid_size", "ask", "best_ask_size"];
            let event_time = event.optional_timestamp("time")?;
            events::quote(event, PLACES, event_time, frame, Pass::Push, &mut self.symbols, records)
        } else if event.has("base_currency") {
            listing::push(frame, records)
        } else if event.has("message") {
            Err(venue_error(frame.payload))
        } else {
            Err(unknown("an object without `type`"))
        }
    }

    /// A whole book whose levels are lists: of level2, or a REST answer.
    fn book(&mut self, frame: FrameRef<'_>, answer: bool, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = Event { text: frame.payload, fields: &self.fields };
        if records.book_snapshot.is_none() {
            return Ok(Outcome::Ignored);
        }
        for (name, side) in [("bids", &mut self.levels.bids), ("asks", &mut self.levels.asks)] {
            side.read(event, name)?;
            if answer {
                events::refuse_orders(event, name)?;
            }
        }
        let sequence = event.get("sequence").filter(|_| answer).map(|_| event.integer("sequence")).transpose()?;
        let event_time = event.optional_timestamp("time")?;
        let listing = events::listing(event, frame, &mut self.symbols)?;
        events::book_snapshot(listing, &mut self.levels, (event_time, sequence), frame, Pass::Push, records)
    }

    /// A list: REST answers of Exchange, and messages of its level3.
    fn list(&mut self, frame: FrameRef<'_>, list: Value, records: &mut Records) -> Result<Outcome, Refusal> {
        self.items.clear();
        self.gather(frame.payload, list)?;
        let Some(first) = self.items.first().copied() else { return Ok(Outcome::Ignored) };
        let orders = first.token == Token::Text && OTHER_TYPES.contains(&first.of(frame.payload));
        if self.api == Api::Exchange && (orders || first.token == Token::Text && first.of(frame.payload) == b"match") {
            return Ok(Outcome::Ignored);
        }
        if self.api == Api::Exchange && first.token == Token::Object {
            self.inner.inner(frame.payload, first).map_err(malformed)?;
            let event = Event { text: frame.payload, fields: &self.inner };
            if event.has("trade_id") && records.trade.is_none() {
                return Ok(Outcome::Ignored);
            } else if event.has("trade_id") {
                self.oldest_first(frame.payload, 0)?;
                return self.each(frame, Self::item_trade::<true>, records);
            } else if event.has("base_currency") {
                return listing::push(frame, records);
            }
        }
        Err(unknown(&format!("a list that begins with {}", excerpt(frame.payload, first))))
    }

    /// A message of Advanced Trade, or a REST answer.
    fn envelope(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = Event { text: frame.payload, fields: &self.fields };
        self.items.clear();
        if event.has("channel") {
            return match event.characters("channel")? {
                b"market_trades" if records.trade.is_none() => Ok(Outcome::Ignored),
                b"ticker" | b"ticker_batch" if records.quote.is_none() => Ok(Outcome::Ignored),
                b"l2_data" => {
                    let list = event.of_type("events", Token::Array, "a list of events")?;
                    self.gather(frame.payload, list)?;
                    self.each(frame, Self::item_updates, records)
                }
                b"market_trades" => {
                    self.gather_inner(frame.payload, "trades", true)?;
                    self.each(frame, Self::item_trade::<false>, records)
                }
                b"ticker" => {
                    self.gather_inner(frame.payload, "tickers", false)?;
                    self.each(frame, Self::item_ticker, records)
                }
                b"ticker_batch" => {
                    self.gather_inner(frame.payload, "tickers", false)?;
                    self.each(frame, Self::item_batched_ticker, records)
                }
                b"status" => {
                    let event_time = event.optional_timestamp("timestamp")?;
                    listing::push_status(frame, event_time, &mut self.symbols, records)
                }
                other if OTHER_CHANNELS.contains(&other) => Ok(Outcome::Ignored),
                other => Err(unknown(&format!("\"{}\"", String::from_utf8_lossy(other)))),
            };
        }
        if event.has("pricebook") {
            let book = event.of_type("pricebook", Token::Object, "a book")?;
            self.items.push(book);
            self.each(frame, Self::item_book, records)
        } else if event.has("pricebooks") {
            let list = event.of_type("pricebooks", Token::Array, "a list of books")?;
            self.gather(frame.payload, list)?;
            self.each(frame, Self::item_best, records)
        } else if event.has("trades") {
            if records.trade.is_none() {
                return Ok(Outcome::Ignored);
            }
            let list = event.of_type("trades", Token::Array, "a list of trades")?;
            self.gather(frame.payload, list)?;
            self.oldest_first(frame.payload, 0)?;
            self.each(frame, Self::item_trade::<true>, records)
        } else if event.has("products") || event.has("product_type") {
            listing::push(frame, records)
        } else if event.has("error") || event.has("message") {
            Err(venue_error(frame.payload))
        } else {
            Err(unknown("an object without `channel`"))
        }
    }

    /// Notes where the elements of a list stand.
    fn gather(&mut self, text: &[u8], list: Value) -> Result<(), Refusal> {
        Scanner::at(text, list).array(|s| s.value().map(|element| self.items.push(element))).map_err(malformed)
    }

    /// Notes where the elements of this list in each of the events stand.
    fn gather_inner(&mut self, text: &[u8], name: &'static str, trades: bool) -> Result<(), Refusal> {
        let list = Event { text, fields: &self.fields }.of_type("events", Token::Array, "a list of events")?;
        self.gather(text, list)?;
        let events = self.items.len();
        for at in 0..events {
            self.note_item(text, self.items[at])?;
            let inner = Event { text, fields: &self.inner }.of_type(name, Token::Array, "a list")?;
            let from = self.items.len();
            self.gather(text, inner)?;
            if trades {
                self.oldest_first(text, from)?;
            }
        }
        self.items.drain(..events);
        Ok(())
    }

    fn note_item(&mut self, text: &[u8], item: Value) -> Result<(), Refusal> {
        if item.token != Token::Object {
            return Err(refuse("wrong_type", format!("a list holds {}, where an object should be", excerpt(text, item))));
        }
        self.inner.inner(text, item).map_err(malformed)
    }

    /// Turns trades around that come newest first, as all of Coinbase's lists of them do.
    fn oldest_first(&mut self, text: &[u8], from: usize) -> Result<(), Refusal> {
        let [first, .., last] = self.items[from..] else { return Ok(()) };
        let mut age = |item| {
            self.note_item(text, item)?;
            let trade = Event { text, fields: &self.inner };
            let id = trade.get("trade_id").and_then(|id| std::str::from_utf8(id.of(text)).ok()?.parse::<u64>().ok());
            Ok::<_, Refusal>((trade.timestamp("time")?, id))
        };
        if age(last)? < age(first)? {
            self.items[from..].reverse();
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
        let event = Event { text: frame.payload, fields: &self.inner };
        events::trade(event, frame, pass, BACKFILLED, &mut self.symbols, records)
    }

    fn item_ticker(&mut self, frame: FrameRef<'_>, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        const PLACES: Places = ["best_bid", "best_bid_quantity", "best_ask", "best_ask_quantity"];
        let event_time = Event { text: frame.payload, fields: &self.fields }.optional_timestamp("timestamp")?;
        let event = Event { text: frame.payload, fields: &self.inner };
        events::quote(event, PLACES, event_time, frame, pass, &mut self.symbols, records)
    }

    /// A ticker that today has neither bid nor ask.
    fn item_batched_ticker(&mut self, frame: FrameRef<'_>, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = Event { text: frame.payload, fields: &self.inner };
        if !event.has("best_bid") && !event.has("best_ask") {
            return Ok(Outcome::Ignored);
        }
        self.item_ticker(frame, pass, records)
    }

    /// An event of `l2_data`.
    fn item_updates(&mut self, frame: FrameRef<'_>, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = Event { text: frame.payload, fields: &self.inner };
        let snapshot = match event.characters("type")? {
            b"snapshot" => true,
            b"update" => false,
            other => {
                let detail = format!("`type` is \"{}\", where snapshot or update should be", String::from_utf8_lossy(other));
                return Err(refuse("wrong_type", detail));
            }
        };
        if (snapshot && records.book_snapshot.is_none()) || (!snapshot && records.book_delta.is_none()) {
            return Ok(Outcome::Ignored);
        }
        let sent = Event { text: frame.payload, fields: &self.fields }.optional_timestamp("timestamp")?;
        let latest = events::read_updates(event, snapshot, &mut self.level, &mut self.levels)?;
        let listing = events::listing(event, frame, &mut self.symbols)?;
        if snapshot {
            events::book_snapshot(listing, &mut self.levels, (sent, None), frame, pass, records)
        } else {
            events::book_delta(listing, &mut self.levels, latest.or(sent), frame, pass, records)
        }
    }

    /// The book of the REST answer `product_book`.
    fn item_book(&mut self, frame: FrameRef<'_>, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.book_snapshot.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event = Event { text: frame.payload, fields: &self.inner };
        events::read_book(event, &mut self.level, &mut self.levels)?;
        let event_time = event.optional_timestamp("time")?;
        let listing = events::listing(event, frame, &mut self.symbols)?;
        events::book_snapshot(listing, &mut self.levels, (event_time, None), frame, pass, records)
    }

    /// A book of the REST answer `best_bid_ask`, of which a side has one level.
    fn item_best(&mut self, frame: FrameRef<'_>, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.quote.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event = Event { text: frame.payload, fields: &self.inner };
        events::read_book(event, &mut self.level, &mut self.levels)?;
        let event_time = event.optional_timestamp("time")?;
        let listing = events::listing(event, frame, &mut self.symbols)?;
        events::best_levels(listing, &self.levels, event_time, frame, pass, records)
    }
}

impl Dialect for Coinbase {
    fn decode(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Reject> {
        self.frame(frame, records).map_err(|refusal| *refusal)
    }
}

#[cold]
fn unknown(what: &str) -> Refusal {
    refuse("unknown_event", format!("{what} is no message of Coinbase's that we know"))
}

#[cold]
fn venue_error(text: &[u8]) -> Refusal {
    let whole = Value { token: Token::Object, start: 0, end: text.len() as u32 };
    refuse("venue_error", format!("the venue answered with an error: {}", excerpt(text, whole)))
}
