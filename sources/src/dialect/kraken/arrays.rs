//! The first protocol of spot's WebSocket: `[channel number, data…, "channel", "pair"]`, numbers in quotes.
//!
//! | channel | data |
//! |---|---|
//! | `trade` | a list of `[price, size, time, side, type of order, …]` |
//! | `book-N` | `{"as":[…],"bs":[…]}`, the N best levels of both sides; then `{"a":[…],"c":"…"}`, `{"b":[…],"c":"…"}`, or both one after the other |
//! | `spread` | `[bid, ask, time, bid size, ask size]` |
//! | `ticker` | `{"a":[price, whole lots, size],"b":[…],…}`, without time |

use std::fmt::Write;

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::Listing;
use model::kinds::{BookDelta, BookSnapshot, Quote, QuoteBuilder, Trade, TradeBuilder};
use model::time::Micros;

use super::book::{Book, Checked, Which};
use super::prints::{Print, read, seconds};
use super::symbols::Pairs;
use super::{VENUE, characters, unknown};
use crate::dialect::fields::{Event, Fields, Refusal, decimal, excerpt, keys, malformed, missing, refuse};
use crate::dialect::json::{Scanner, Token, Value};
use crate::dialect::reading::{best, named, some_time};
use crate::dialect::symbols::Symbols;

keys! {
    /// The members that matter of objects in the first protocol and in answers of REST.
    Members quoted true:
    b"as" b"bs" b"a" b"b" b"c" b"asks" b"bids" b"status" b"timestamp" b"unixtime" b"wsname" b"pair_decimals" b"aclass_base"
    b"aclass" b"last"
}

/// A message of the first protocol.
#[derive(Debug)]
pub(super) struct Arrays<'a> {
    pub(super) frame: FrameRef<'a>,
    pub(super) fields: &'a mut Fields<Members>,
    pub(super) symbols: &'a mut Symbols<Pairs>,
    pub(super) book: &'a mut Book,
    pub(super) prints: &'a mut Vec<Print>,
}

impl Arrays<'_> {
    pub(super) fn decode(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let text = self.frame.payload;
        let mut scanner = Scanner::new(text).map_err(malformed)?;
        let (mut parts, mut count) = ([Value::default(); 5], 0);
        self.fields.forget_but(0);
        let walk = scanner.array(|s| {
            // Members are noted on the way. A change of both sides comes as two objects, whose members are those of one.
            let value = s.noted(|s, member| self.fields.note(s, member))?;
            if let Some(part) = parts.get_mut(count) {
                *part = value;
            }
            count += 1;
            Ok(())
        });
        walk.and_then(|()| scanner.end()).map_err(malformed)?;
        let Some([_, data @ .., channel, pair]) = parts.get(..count) else { return Err(unknown("an array")) };
        if channel.token != Token::Text || data.is_empty() {
            return Err(unknown("an array that names no channel"));
        }
        match channel.of(text) {
            b"trade" => self.trades(data, *pair, records),
            b"ticker" => self.ticker(data, *pair, records),
            b"spread" => self.spread(data, *pair, records),
            name if name.starts_with(b"ohlc") => Ok(Outcome::Ignored),
            name => match name.strip_prefix(b"book-").and_then(depth) {
                Some(depth) => self.book(data, depth, *pair, records),
                None => Err(unknown(excerpt(text, *channel))),
            },
        }
    }

    fn trades(self, data: &[Value], pair: Value, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.trade else { return Ok(Outcome::Ignored) };
        let text = self.frame.payload;
        read(text, only(data)?, self.prints)?;
        let listing = named(&characters(text, "pair", pair)?, self.symbols)?;
        Ok(push_trades(builder, self.frame, listing, self.prints, false))
    }

    fn book(self, data: &[Value], depth: i64, pair: Value, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.book_delta.is_none() && records.book_snapshot.is_none() {
            return Ok(Outcome::Ignored);
        }
        let text = self.frame.payload;
        if let Some(part) = data.iter().find(|part| part.token != Token::Object) {
            return Err(refuse("wrong_type", format!("{} stands where levels should be", excerpt(text, *part))));
        }
        let event = Event { text, fields: &*self.fields };
        self.book.clear();
        if event.has("as") || event.has("bs") {
            let Some(builder) = &mut records.book_snapshot else { return Ok(Outcome::Ignored) };
            self.book.read_arrays(event, "as", Which::Asks)?;
            self.book.read_arrays(event, "bs", Which::Bids)?;
            let (event_time, checked) = (self.book.time, self.book.checked(checksum(event)?));
            some_time(event_time, self.frame)?;
            let listing = named(&characters(text, "pair", pair)?, self.symbols)?;
            builder.push(snapshot(self.frame, listing, self.book, event_time, Some(depth), checked));
            return Ok(Outcome::Decoded);
        }
        let Some(builder) = &mut records.book_delta else { return Ok(Outcome::Ignored) };
        let sides = [("a", Which::Asks), ("b", Which::Bids)];
        if sides.iter().all(|(name, _)| !event.has(name)) {
            return Err(missing("a"));
        }
        for (name, which) in sides {
            if event.has(name) {
                self.book.read_arrays(event, name, which)?;
            }
        }
        let checked = self.book.checked(checksum(event)?);
        let Some(event_time) = self.book.time else {
            return Err(refuse("no_time", "the change has no level with a time, and nothing else tells when it was"));
        };
        let listing = named(&characters(text, "pair", pair)?, self.symbols)?;
        builder.push(delta(self.frame, listing, self.book, event_time, checked));
        Ok(Outcome::Decoded)
    }

    fn spread(self, data: &[Value], pair: Value, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.quote else { return Ok(Outcome::Ignored) };
        let text = self.frame.payload;
        let spread = only(data)?;
        let [bid, ask, time, bid_size, ask_size] = texts(text, spread)?;
        let event_time = seconds(text, "time", time)?;
        some_time(event_time, self.frame)?;
        let numbers = [
            decimal(text, "bid", bid)?,
            decimal(text, "bid size", bid_size)?,
            decimal(text, "ask", ask)?,
            decimal(text, "ask size", ask_size)?,
        ];
        let listing = named(&characters(text, "pair", pair)?, self.symbols)?;
        push_quote(builder, self.frame, listing, event_time, numbers)
    }

    fn ticker(self, data: &[Value], pair: Value, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.quote else { return Ok(Outcome::Ignored) };
        let text = self.frame.payload;
        let ticker = only(data)?;
        if ticker.token != Token::Object {
            return Err(refuse("wrong_type", format!("{} stands where a ticker should be", excerpt(text, ticker))));
        }
        some_time(None, self.frame)?;
        let numbers = ticker_numbers(Event { text, fields: &*self.fields })?;
        let listing = named(&characters(text, "pair", pair)?, self.symbols)?;
        push_quote(builder, self.frame, listing, None, numbers)
    }
}

/// The depth that a channel's name says.
fn depth(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|depth| *depth > 0)
}

/// The data of a message that is one value.
fn only(data: &[Value]) -> Result<Value, Refusal> {
    match data {
        [value] => Ok(*value),
        _ => Err(unknown("an array of this length")),
    }
}

/// The checksum of a book, quoted.
fn checksum(event: Event<'_, Members>) -> Result<Option<i64>, Refusal> {
    let Some(value) = event.get("c") else { return Ok(None) };
    let sum = event.quoted_integer("c")?;
    if u32::try_from(sum).is_err() {
        return Err(event.bad("c", value, "is no checksum of 32 bits"));
    }
    Ok(Some(sum))
}

/// The elements of an array of as many texts, or more.
fn texts<const N: usize>(text: &[u8], array: Value) -> Result<[Value; N], Refusal> {
    let (mut parts, mut count) = ([Value::default(); N], 0);
    if array.token == Token::Array {
        let walk = Scanner::at(text, array).array(|s| {
            let value = s.value()?;
            if let Some(part) = parts.get_mut(count) {
                *part = value;
            }
            count += 1;
            Ok(())
        });
        walk.map_err(malformed)?;
    }
    if count < N || parts.iter().any(|part| part.token != Token::Text) {
        return Err(refuse("wrong_type", format!("{} stands where {N} texts should be", excerpt(text, array))));
    }
    Ok(parts)
}

/// Best bid and ask of a ticker, `{"a":[price, whole lots, size],"b":[…]}`: bid, its size, ask, its size.
pub(super) fn ticker_numbers(event: Event<'_, Members>) -> Result<[Decimal; 4], Refusal> {
    let mut numbers = [Decimal::ZERO; 4];
    for (name, pair) in ["b", "a"].into_iter().zip(numbers.as_chunks_mut::<2>().0) {
        let array = event.of_type(name, Token::Array, "price, whole lots and size")?;
        let (mut parts, mut count) = ([Value::default(); 3], 0);
        let walk = Scanner::at(event.text, array).array(|s| {
            let value = s.value()?;
            if let Some(part) = parts.get_mut(count) {
                *part = value;
            }
            count += 1;
            Ok(())
        });
        walk.map_err(malformed)?;
        match parts {
            [price @ Value { token: Token::Text, .. }, _, size @ Value { token: Token::Text, .. }] => {
                *pair = [decimal(event.text, name, price)?, decimal(event.text, name, size)?];
            }
            _ => return Err(event.mistyped(name, array, "price, whole lots and size")),
        }
    }
    Ok(numbers)
}

/// Pushes a quote; a side whose price or size is zero is none.
pub(super) fn push_quote(
    builder: &mut QuoteBuilder,
    frame: FrameRef<'_>,
    listing: &Listing,
    event_time: Option<Micros>,
    [bid, bid_size, ask, ask_size]: [Decimal; 4],
) -> Result<Outcome, Refusal> {
    let (bid_price, bid_quantity) = best(listing, bid, bid_size)?;
    let (ask_price, ask_quantity) = best(listing, ask, ask_size)?;
    builder.push(Quote {
        venue: VENUE,
        market: listing.market.as_str(),
        symbol: &listing.symbol,
        event_time,
        receive_time: frame.receive_time,
        frame: Some(frame.frame),
        sequence: None,
        bid_price,
        bid_quantity,
        ask_price,
        ask_quantity,
    });
    Ok(Outcome::Decoded)
}

/// Pushes trades. The first protocol does not number them: their time in microseconds and their place in the frame do.
pub(super) fn push_trades(
    builder: &mut TradeBuilder,
    frame: FrameRef<'_>,
    listing: &Listing,
    prints: &[Print],
    backfilled: bool,
) -> Outcome {
    let mut trade_id = String::new();
    for print in prints {
        trade_id.clear();
        let written = match print.id {
            Some(id) => write!(trade_id, "{id}"),
            None => write!(trade_id, "{}-{}", print.time, print.place),
        };
        debug_assert!(written.is_ok(), "writing into a string cannot fail");
        builder.push(Trade {
            venue: VENUE,
            market: listing.market.as_str(),
            symbol: &listing.symbol,
            event_time: print.time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            trade_id: &trade_id,
            price: print.price,
            quantity: print.quantity,
            contracts: None,
            side: print.side,
            fills: 1,
            backfilled: Some(backfilled),
        });
    }
    if prints.is_empty() { Outcome::Ignored } else { Outcome::Decoded }
}

/// A whole book of spot, which has no update numbers.
pub(super) fn snapshot<'r>(
    frame: FrameRef<'_>,
    listing: &'r Listing,
    book: &'r Book,
    event_time: Option<Micros>,
    depth: Option<i64>,
    Checked { checksum, price_digits, quantity_digits }: Checked,
) -> BookSnapshot<'r> {
    let snapshot = book.levels.snapshot(VENUE, listing, frame, event_time, None);
    BookSnapshot { depth, checksum, price_digits, quantity_digits, ..snapshot }
}

/// A change of a book of spot, which has no update numbers.
pub(super) fn delta<'r>(
    frame: FrameRef<'_>,
    listing: &'r Listing,
    book: &'r Book,
    event_time: Micros,
    Checked { checksum, price_digits, quantity_digits }: Checked,
) -> BookDelta<'r> {
    BookDelta { checksum, price_digits, quantity_digits, ..book.levels.delta(VENUE, listing, frame, event_time) }
}
