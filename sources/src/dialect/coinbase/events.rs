//! What trades, quotes and books become, whichever interface sends them.
//!
//! Every function reads all it needs before it pushes, so a refusal leaves nothing behind.

use std::borrow::Cow;

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::Listing;
use model::kinds::{BookDelta, BookSnapshot, Quote, Trade};
use model::time::Micros;

use super::symbols::Api;
use crate::dialect::fields::{Event, Fields, Refusal, decimal, excerpt, keys, malformed, missing, refuse};
use crate::dialect::json::{Scanner, Token, Value};
use crate::dialect::reading::{Levels, Pass, Side, best, find, in_base, named, some_time};
use crate::dialect::symbols::Symbols;

/// The venue in every record.
pub(super) const VENUE: &str = "coinbase";

keys! {
    /// The members of messages and answers that matter.
    Names quoted true:
    b"type" b"product_id" b"time" b"price" b"size" b"side" b"trade_id" b"changes" b"bids" b"asks" b"best_bid"
    b"best_ask" b"best_bid_size" b"best_ask_size" b"best_bid_quantity" b"best_ask_quantity" b"bid" b"ask" b"sequence"
    b"products" b"channel" b"timestamp" b"events" b"updates" b"trades" b"tickers" b"pricebook" b"pricebooks" b"base_currency"
    b"product_type" b"message" b"error" b"sequence_num" b"id"
}

keys! {
    /// The members of a level that is an object.
    LevelNames quoted true: b"side" b"price_level" b"new_quantity" b"event_time" b"price" b"size"
}

/// The symbol in the topic of a frame, behind which an `@` may stand.
fn topic_symbol(topic: &str) -> &str {
    topic.split('@').next().unwrap_or(topic)
}

/// The instrument that an event, or else the topic of its frame, names.
#[inline]
pub(super) fn listing<'s>(event: Event<'_, Names>, frame: FrameRef<'_>, symbols: &'s mut Symbols<Api>) -> Result<&'s Listing, Refusal> {
    if event.has("product_id") {
        return find(event, "product_id", symbols);
    }
    let asked = frame.topic.map(|topic| topic_symbol(topic).to_uppercase());
    let asked = asked.ok_or_else(|| refuse("missing_field", "the answer names no product; give the source the product id as `symbol`"))?;
    named(&asked, symbols)
}

/// The side of the taker: the venue tells that of the maker.
fn taker(event: Event<'_, Names>) -> Result<&'static str, Refusal> {
    match event.characters("side")? {
        b"buy" | b"BUY" => Ok("sell"),
        b"sell" | b"SELL" => Ok("buy"),
        other => Err(refuse("wrong_type", format!("`side` is \"{}\", where buy or sell should be", String::from_utf8_lossy(other)))),
    }
}

/// The identifier of a trade: a number on Exchange, a text on Advanced Trade.
fn trade_id(event: Event<'_, Names>) -> Result<Cow<'_, str>, Refusal> {
    match event.get("trade_id") {
        Some(value) if matches!(value.token, Token::Text | Token::Escaped) => match event.text("trade_id")? {
            id if id.is_empty() => Err(missing("trade_id")),
            id => Ok(id),
        },
        _ => event.identifier("trade_id").map(Cow::Borrowed),
    }
}

/// One execution.
#[inline]
pub(super) fn trade(
    event: Event<'_, Names>,
    frame: FrameRef<'_>,
    pass: Pass,
    backfilled: bool,
    symbols: &mut Symbols<Api>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.trade else { return Ok(Outcome::Ignored) };
    let (trade_id, side) = (trade_id(event)?, taker(event)?);
    let (price, size) = (event.decimal("price")?, event.decimal("size")?);
    let event_time = event.timestamp("time")?;
    if price == Decimal::ZERO || size == Decimal::ZERO {
        return Err(refuse("not_a_trade", format!("the price is {price} and the size {size}; neither may be zero")));
    }
    let listing = listing(event, frame, symbols)?;
    let (quantity, contracts) = in_base(listing.contract, size, price)?;
    if pass == Pass::Push {
        builder.push(Trade {
            venue: VENUE,
            market: listing.market.as_str(),
            symbol: &listing.symbol,
            event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            trade_id: &trade_id,
            price,
            quantity,
            contracts,
            side,
            fills: 1,
            backfilled: Some(backfilled),
        });
    }
    Ok(Outcome::Decoded)
}

/// Where a quote stands in an event: price and size of the bid, price and size of the ask.
pub(super) type Places = [&'static str; 4];

/// The best bid and ask at a time.
#[inline]
pub(super) fn quote(
    event: Event<'_, Names>,
    places: Places,
    event_time: Option<Micros>,
    frame: FrameRef<'_>,
    pass: Pass,
    symbols: &mut Symbols<Api>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    if records.quote.is_none() {
        return Ok(Outcome::Ignored);
    }
    let [bid, bid_size, ask, ask_size] = places;
    if !event.has(bid) && !event.has(ask) {
        return Err(missing(bid));
    }
    let listing = listing(event, frame, symbols)?;
    let (bid, ask) = (level(event, listing, bid, bid_size)?, level(event, listing, ask, ask_size)?);
    push_quote(listing, bid, ask, event_time, frame, pass, records)
}

/// Price and size of one side, each where there is one.
type Best = (Option<Decimal>, Option<Decimal>);

/// One side of a quote. Tickers before 2022 have no sizes, which are null then; a size of zero means that there is no such side.
#[inline]
fn level(event: Event<'_, Names>, listing: &Listing, price: &'static str, size: &'static str) -> Result<Best, Refusal> {
    let Some(at) = event.positive(price)? else { return Ok((None, None)) };
    match event.positive(size)? {
        Some(size) => best(listing, at, size),
        None if event.optional_decimal(size)?.is_some() => Ok((None, None)),
        None => Ok((Some(at), None)),
    }
}

fn push_quote(
    listing: &Listing,
    (bid_price, bid_quantity): Best,
    (ask_price, ask_quantity): Best,
    event_time: Option<Micros>,
    frame: FrameRef<'_>,
    pass: Pass,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.quote else { return Ok(Outcome::Ignored) };
    some_time(event_time, frame)?;
    if pass == Pass::Push {
        builder.push(Quote {
            venue: VENUE,
            market: listing.market.as_str(),
            symbol: &listing.symbol,
            event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            // The numbers of tickers are those of all messages of a product, and the changes of a book have none.
            sequence: None,
            bid_price,
            bid_quantity,
            ask_price,
            ask_quantity,
        });
    }
    Ok(Outcome::Decoded)
}

/// The best levels of a book that was read, as a quote.
pub(super) fn best_levels(
    listing: &Listing,
    levels: &Levels,
    event_time: Option<Micros>,
    frame: FrameRef<'_>,
    pass: Pass,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let first = |side: &Side| match (side.prices.first(), side.quantities.first()) {
        (Some(price), Some(size)) => best(listing, *price, *size),
        _ => Ok((None, None)),
    };
    push_quote(listing, first(&levels.bids)?, first(&levels.asks)?, event_time, frame, pass, records)
}

/// A change of a book, whose levels were read. The venue's own time is missing from a few messages, which change the book
/// all the same: ours stands in, because without numbers nobody would see that a change is lost.
pub(super) fn book_delta(
    listing: &Listing,
    levels: &mut Levels,
    event_time: Option<Micros>,
    frame: FrameRef<'_>,
    pass: Pass,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.book_delta else { return Ok(Outcome::Ignored) };
    some_time(event_time, frame)?;
    let Some(event_time) = event_time.or(frame.receive_time) else { return Err(missing("time")) };
    in_base_units(listing, levels)?;
    if pass == Pass::Push {
        builder.push(BookDelta { contracts: false, ..levels.delta(VENUE, listing, frame, event_time) });
    }
    Ok(Outcome::Decoded)
}

/// A whole book, whose levels were read.
pub(super) fn book_snapshot(
    listing: &Listing,
    levels: &mut Levels,
    (event_time, sequence): (Option<Micros>, Option<i64>),
    frame: FrameRef<'_>,
    pass: Pass,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.book_snapshot else { return Ok(Outcome::Ignored) };
    some_time(event_time, frame)?;
    put_in_order(&mut levels.bids, |one, other| one > other);
    put_in_order(&mut levels.asks, |one, other| one < other);
    in_base_units(listing, levels)?;
    if pass == Pass::Push {
        builder.push(BookSnapshot { contracts: false, ..levels.snapshot(VENUE, listing, frame, event_time, sequence) });
    }
    Ok(Outcome::Decoded)
}

/// Sizes in contracts become sizes in the base asset, which is exact because Coinbase's contracts are all linear.
fn in_base_units(listing: &Listing, levels: &mut Levels) -> Result<(), Refusal> {
    if listing.contract.is_none() {
        return Ok(());
    }
    for side in [&mut levels.bids, &mut levels.asks] {
        for (price, quantity) in side.prices.iter().zip(&mut side.quantities) {
            *quantity = in_base(listing.contract, *quantity, *price)?.0;
        }
    }
    Ok(())
}

/// Best levels first, as the venue sends them; should it not, they are put so.
fn put_in_order(side: &mut Side, better: impl Fn(Decimal, Decimal) -> bool) {
    if side.prices.windows(2).all(|pair| !better(pair[1], pair[0])) {
        return;
    }
    let mut levels: Vec<_> = side.prices.iter().copied().zip(side.quantities.iter().copied()).collect();
    levels.sort_by(|(one, _), (other, _)| match better(*one, *other) {
        true => std::cmp::Ordering::Less,
        false if one == other => std::cmp::Ordering::Equal,
        false => std::cmp::Ordering::Greater,
    });
    (side.prices, side.quantities) = levels.into_iter().unzip();
}

/// Forgets the levels read before.
pub(super) fn clear(levels: &mut Levels) {
    for side in [&mut levels.bids, &mut levels.asks] {
        side.prices.clear();
        side.quantities.clear();
    }
}

fn push(side: &mut Side, price: Decimal, quantity: Decimal) {
    side.prices.push(price);
    side.quantities.push(quantity);
}

/// Reads `[["buy","price","size"],…]`, the changes of `l2update`.
#[inline]
pub(super) fn read_changes(event: Event<'_, Names>, levels: &mut Levels) -> Result<(), Refusal> {
    clear(levels);
    let text = event.text;
    let list = event.of_type("changes", Token::Array, "a list of changes")?;
    let mut refused = None;
    let walk = Scanner::at(text, list).array(|s| {
        let mut parts = [Value::default(); 3];
        let change = if s.peek() == Some(b'[') {
            let mut count = 0;
            s.array(|s| {
                let part = s.value()?;
                if let Some(place) = parts.get_mut(count) {
                    *place = part;
                }
                count += 1;
                Ok(())
            })?;
            list
        } else {
            s.value()?
        };
        if refused.is_none() {
            refused = push_change(text, parts, change, levels).err();
        }
        Ok(())
    });
    walk.map_err(malformed)?;
    refused.map_or(Ok(()), Err)
}

#[inline]
fn push_change(text: &[u8], [side, price, size]: [Value; 3], change: Value, levels: &mut Levels) -> Result<(), Refusal> {
    let none = || {
        let detail = format!("`changes` holds {}, where changes [\"buy\" or \"sell\", price, size] should be", excerpt(text, change));
        refuse("wrong_type", detail)
    };
    if [side, price, size].iter().any(|part| part.token != Token::Text) {
        return Err(none());
    }
    let side = match side.of(text) {
        b"buy" => &mut levels.bids,
        b"sell" => &mut levels.asks,
        _ => return Err(none()),
    };
    let (price, size) = (decimal(text, "changes", price)?, decimal(text, "changes", size)?);
    push(side, price, size);
    Ok(())
}

/// Calls `each` with every object of a list.
fn objects(
    event: Event<'_, Names>,
    name: &'static str,
    level: &mut Fields<LevelNames>,
    mut each: impl FnMut(Event<'_, LevelNames>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let text = event.text;
    let list = event.of_type(name, Token::Array, "a list of levels")?;
    let mut refused = None;
    let walk = Scanner::at(text, list).array(|s| {
        let read = if s.peek() == Some(b'{') {
            level.forget_but(0);
            s.letters(|s, member| level.note(s, member))?;
            if refused.is_some() { Ok(()) } else { each(Event { text, fields: level }) }
        } else {
            let other = s.value()?;
            Err(refuse("wrong_type", format!("`{name}` holds {}, where an object should be", excerpt(text, other))))
        };
        if refused.is_none() {
            refused = read.err();
        }
        Ok(())
    });
    walk.map_err(malformed)?;
    refused.map_or(Ok(()), Err)
}

/// Reads the updates of `l2_data`, of a snapshot or of a change. Returns when the latest of a change was made; those of a
/// snapshot say nothing of it.
#[inline]
pub(super) fn read_updates(
    event: Event<'_, Names>,
    snapshot: bool,
    level: &mut Fields<LevelNames>,
    levels: &mut Levels,
) -> Result<Option<Micros>, Refusal> {
    clear(levels);
    let mut latest = None;
    objects(event, "updates", level, |update| {
        let side = match update.characters("side")? {
            b"bid" => &mut levels.bids,
            b"offer" | b"ask" => &mut levels.asks,
            other => {
                let detail = format!("`side` is \"{}\", where bid or offer should be", String::from_utf8_lossy(other));
                return Err(refuse("wrong_type", detail));
            }
        };
        let (price, quantity) = (update.decimal("price_level")?, update.decimal("new_quantity")?);
        if !snapshot {
            latest = latest.max(update.optional_timestamp("event_time")?);
        } else if quantity == Decimal::ZERO {
            return Ok(());
        }
        push(side, price, quantity);
        Ok(())
    })?;
    Ok(latest)
}

/// Reads both sides of a book whose levels are objects `{"price":"…","size":"…"}`.
pub(super) fn read_book(event: Event<'_, Names>, level: &mut Fields<LevelNames>, levels: &mut Levels) -> Result<(), Refusal> {
    clear(levels);
    for (name, side) in [("bids", &mut levels.bids), ("asks", &mut levels.asks)] {
        objects(event, name, level, |level| {
            push(side, level.decimal("price")?, level.decimal("size")?);
            Ok(())
        })?;
    }
    Ok(())
}

/// Refuses a book of single orders (`level=3`), whose levels end with the identifier of an order in place of their number.
pub(super) fn refuse_orders(event: Event<'_, Names>, name: &'static str) -> Result<(), Refusal> {
    let list = event.of_type(name, Token::Array, "a list of levels")?;
    let mut orders = None;
    let walk = Scanner::at(event.text, list).array(|s| {
        let level = s.value()?;
        let (mut last, mut count) = (Value::default(), 0);
        Scanner::at(event.text, level).array(|s| {
            last = s.value()?;
            count += 1;
            Ok(())
        })?;
        if count > 2 && matches!(last.token, Token::Text | Token::Escaped) {
            orders.get_or_insert(level);
        }
        Ok(())
    });
    walk.map_err(malformed)?;
    match orders {
        Some(level) => {
            let detail =
                format!("`{name}` holds {}, an order where a level [price, size, number of orders] should be", excerpt(event.text, level));
            Err(refuse("wrong_type", detail))
        }
        None => Ok(()),
    }
}
