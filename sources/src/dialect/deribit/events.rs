//! What trades, books, tickers and states become, whether a channel or an answer sends them.
//!
//! Every function reads all it needs before it pushes, so a refusal leaves nothing behind.
//!
//! An amount counts the base asset, but US dollars where the instrument is an inverse future or perpetual. Of those, trades and
//! quotes become sizes in the base asset, amount / price, and books and open interest become contracts, amount divided by the
//! size of a contract: an exact number, which a size that depends on the price would not be.

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::{Contract, Listing, Market};
use model::kinds::{BookDelta, Liquidation, Quote, Trade, VenueStatus, VolatilityIndex};
use model::time::Micros;

use super::symbols::{IndexName, InstrumentName, inverse, is_combination};
use crate::dialect::fields::{Event, Refusal, decimal, excerpt, keys, malformed, missing, refuse};
use crate::dialect::figures::{Figures, Funding};
use crate::dialect::json::{Scanner, Token, Value};
use crate::dialect::reading::{Levels, Pass, Side, find, in_base, named, some_time};
use crate::dialect::symbols::Symbols;

/// The venue in every record.
pub(super) const VENUE: &str = "deribit";

/// What the topic of a ticker ends with that was asked for the venue's figures alone: another channel tells the best bid and ask.
pub(crate) const FIGURES: &str = "@figures";

/// The rate of a perpetual is that of eight hours, whatever is paid of it in each moment.
pub(super) const EIGHT_HOURS: i64 = 28_800;

keys! {
    /// The members of a frame, and of its `params`, that matter.
    Envelope quoted false: b"method" b"channel" b"data" b"type" b"id" b"result" b"error" b"usOut"
}

keys! {
    /// The members of data and of results that matter.
    Names quoted false:
    b"instrument_name" b"timestamp" b"type" b"change_id" b"prev_change_id" b"bids" b"asks" b"price" b"amount" b"direction"
    b"contracts" b"trade_id" b"liquidation" b"best_bid_price" b"best_bid_amount" b"best_ask_price" b"best_ask_amount"
    b"mark_price" b"index_price" b"estimated_delivery_price" b"current_funding" b"open_interest" b"interest" b"index_name"
    b"volatility" b"state" b"price_index" b"locked" b"maintenance" b"trades" b"order" b"data" b"kind" b"interest_1h"
    b"creation_timestamp" b"locked_indices" b"version" b"access_token" b"ticks" b"settlements" b"records_total"
    b"current_interest" b"contract_size" b"block_rfqs" b"continuation" b"currency" b"legs" b"publication_timestamp" b"option"
    b"future" b"trade_seq"
}

/// What an event of an instrument or of an index is read from.
type InstrumentNames<'s> = &'s mut Symbols<InstrumentName>;
type IndexNames<'s> = &'s mut Symbols<IndexName>;

/// The instrument that an event names; `None` for a combination of others, which is no instrument of its own here.
#[inline]
fn listing<'s>(event: Event<'_, Names>, symbols: InstrumentNames<'s>) -> Result<Option<&'s Listing>, Refusal> {
    match find(event, "instrument_name", symbols) {
        Ok(listing) => Ok(Some(listing)),
        Err(_) if event.characters("instrument_name").is_ok_and(is_combination) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// The index that an event names.
fn index<'s>(event: Event<'_, Names>, name: &'static str, indices: IndexNames<'s>) -> Result<&'s Listing, Refusal> {
    let index = event.characters(name)?;
    indices.find(index).ok_or_else(|| unknown_index(&String::from_utf8_lossy(index)))
}

#[cold]
pub(super) fn unknown_index(name: &str) -> Refusal {
    refuse("unknown_instrument", format!("`{name}` is no index, which is two assets with `_` between them"))
}

/// A figure that the venue worked out and that is not negative.
pub(super) fn figure(event: Event<'_, Names>, name: &'static str) -> Result<Option<Decimal>, Refusal> {
    match event.optional_rounded(name)? {
        Some(figure) if figure < Decimal::ZERO => {
            Err(event.get(name).map_or_else(|| missing(name), |value| event.bad(name, value, "is negative")))
        }
        figure => Ok(figure),
    }
}

/// An amount in the base asset at a price.
#[inline]
fn base_quantity(listing: &Listing, amount: Decimal, price: Decimal) -> Result<Decimal, Refusal> {
    match listing.contract {
        // Of dollars, whatever a contract is worth.
        Some(_) => in_base(Some(inverse(Decimal::ONE)), amount, price).map(|(quantity, _)| quantity),
        None => Ok(amount),
    }
}

/// An amount of dollars in contracts.
#[inline]
fn in_contracts(contract: Contract, amount: Decimal) -> Result<Decimal, Refusal> {
    if contract.size == Decimal::ONE {
        return Ok(amount);
    }
    amount.div_rounded(contract.size).ok_or_else(|| refuse("overflow", format!("{amount} is no number of contracts of {}", contract.size)))
}

/// The number in a trade's identifier, `ETH-284830839`: trades of one currency are numbered as they happen.
pub(super) fn trade_number(trade: Event<'_, Names>) -> Option<u64> {
    let id = std::str::from_utf8(trade.get("trade_id")?.of(trade.text)).ok()?;
    id.rsplit('-').next()?.parse().ok()
}

/// One execution, and what of it was a liquidation.
#[inline]
pub(super) fn trade(
    event: Event<'_, Names>,
    frame: FrameRef<'_>,
    pass: Pass,
    backfilled: bool,
    symbols: InstrumentNames<'_>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let Some(listing) = listing(event, symbols)? else { return Ok(Outcome::Ignored) };
    let (taker, maker) = match event.characters("direction")? {
        b"buy" => ("buy", "sell"),
        b"sell" => ("sell", "buy"),
        other => return Err(mistaken("direction", other, "buy or sell")),
    };
    // Whose order the venue made, to close a position by force.
    let liquidated: &[&str] = match event.get("liquidation").map(|_| event.characters("liquidation")).transpose()? {
        None => &[],
        Some(b"T") => &[taker],
        Some(b"M") => &[maker],
        Some(b"MT") => &[taker, maker],
        Some(other) => return Err(mistaken("liquidation", other, "M, T or MT")),
    };
    let trade_id = event.text("trade_id")?;
    if trade_id.is_empty() {
        return Err(missing("trade_id"));
    }
    let (price, amount) = (event.decimal("price")?, event.decimal("amount")?);
    let event_time = event.time("timestamp")?;
    if price == Decimal::ZERO || amount == Decimal::ZERO {
        return Err(refuse("not_a_trade", format!("`price` is {price} and `amount` is {amount}; neither may be zero")));
    }
    let quantity = base_quantity(listing, amount, price)?;
    let contracts = match (figure(event, "contracts")?, listing.contract) {
        _ if listing.market == Market::Spot => None,
        // Trades of the past do not say.
        (None, Some(contract)) => Some(in_contracts(contract, amount)?),
        (sent, _) => sent,
    };
    let (market, symbol, receive_time, number) = (listing.market.as_str(), &listing.symbol, frame.receive_time, Some(frame.frame));
    let mut outcome = Outcome::Ignored;
    if let Some(builder) = &mut records.trade {
        outcome = Outcome::Decoded;
        if pass == Pass::Push {
            builder.push(Trade {
                venue: VENUE,
                market,
                symbol,
                event_time,
                receive_time,
                frame: number,
                trade_id: &trade_id,
                price,
                quantity,
                contracts,
                side: taker,
                fills: 1,
                backfilled: Some(backfilled),
            });
        }
    }
    if let (Some(builder), false) = (&mut records.liquidation, liquidated.is_empty()) {
        outcome = Outcome::Decoded;
        for side in liquidated.iter().filter(|_| pass == Pass::Push) {
            builder.push(Liquidation {
                venue: VENUE,
                market,
                symbol,
                event_time,
                receive_time,
                frame: number,
                liquidation_id: None,
                side,
                price,
                average_price: Some(price),
                quantity,
                filled_quantity: Some(quantity),
                contracts,
                status: None,
            });
        }
    }
    Ok(outcome)
}

#[cold]
fn mistaken(name: &'static str, sent: &[u8], what: &str) -> Refusal {
    refuse("wrong_type", format!("`{name}` is \"{}\", where {what} should be", String::from_utf8_lossy(sent)))
}

/// A whole book or a change of one.
#[inline]
pub(super) fn book(
    event: Event<'_, Names>,
    frame: FrameRef<'_>,
    pass: Pass,
    symbols: InstrumentNames<'_>,
    levels: &mut Levels,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let snapshot = match event.get("type") {
        Some(_) => match event.characters("type")? {
            b"snapshot" => true,
            b"change" => false,
            other => return Err(mistaken("type", other, "snapshot or change")),
        },
        // Books that are sent whole each time say nothing, nor did any in 2019.
        None => event.get("prev_change_id").is_none(),
    };
    let wanted = if snapshot { records.book_snapshot.is_some() } else { records.book_delta.is_some() };
    if !wanted {
        return Ok(Outcome::Ignored);
    }
    let Some(listing) = listing(event, symbols)? else { return Ok(Outcome::Ignored) };
    let (last, event_time) = (event.integer("change_id")?, event.time("timestamp")?);
    for (name, side) in [("bids", &mut levels.bids), ("asks", &mut levels.asks)] {
        read_side(event, name, snapshot, listing.contract, side)?;
    }
    if snapshot && let Some(builder) = &mut records.book_snapshot {
        if pass == Pass::Push {
            builder.push(levels.snapshot(VENUE, listing, frame, Some(event_time), Some(last)));
        }
    } else if let Some(builder) = &mut records.book_delta {
        let previous = event.integer("prev_change_id")?;
        if pass == Pass::Push {
            builder.push(BookDelta {
                // All changes behind the one before, of which those of other instruments are most.
                first_sequence: Some(previous.saturating_add(1).min(last)),
                last_sequence: Some(last),
                previous_sequence: Some(previous),
                ..levels.delta(VENUE, listing, frame, event_time)
            });
        }
    }
    Ok(Outcome::Decoded)
}

/// Reads the levels `[["new",price,amount],…]` of a member, or `[[price,amount],…]` of a book that is sent whole. A snapshot
/// keeps none without an amount.
#[inline]
fn read_side(
    event: Event<'_, Names>,
    name: &'static str,
    snapshot: bool,
    contract: Option<Contract>,
    side: &mut Side,
) -> Result<(), Refusal> {
    side.prices.clear();
    side.quantities.clear();
    let text = event.text;
    let list = event.of_type(name, Token::Array, "a list of levels")?;
    let mut refused = None;
    let walk = Scanner::at(text, list).array(|s| {
        let (mut parts, mut count) = ([Value::default(); 3], 0);
        if s.peek() == Some(b'[') {
            s.array(|s| {
                let part = s.value()?;
                if let Some(place) = parts.get_mut(count) {
                    *place = part;
                }
                count += 1;
                Ok(())
            })?;
        } else {
            s.value()?;
        }
        if refused.is_none() {
            refused = match level(text, name, &parts[..count.min(3)], snapshot) {
                Some(Ok((_, amount))) if snapshot && amount == Decimal::ZERO => None,
                Some(Ok((price, amount))) => contract.map_or(Ok(amount), |c| in_contracts(c, amount)).map_or_else(Some, |quantity| {
                    side.prices.push(price);
                    side.quantities.push(quantity);
                    None
                }),
                Some(Err(refusal)) => Some(refusal),
                None => Some(no_level(text, name, list)),
            };
        }
        Ok(())
    });
    walk.map_err(malformed)?;
    refused.map_or(Ok(()), Err)
}

/// Price and new amount of a level; `None` where it is none.
#[inline]
fn level(text: &[u8], name: &'static str, parts: &[Value], snapshot: bool) -> Option<Result<(Decimal, Decimal), Refusal>> {
    let (price, amount, gone) = match *parts {
        [Value { token: Token::Text, .. }, price, amount] => match parts[0].of(text) {
            b"new" | b"change" => (price, amount, false),
            b"delete" => (price, amount, true),
            _ => return None,
        },
        [price, amount] if snapshot => (price, amount, false),
        _ => return None,
    };
    if [price, amount].iter().any(|part| !matches!(part.token, Token::Integer | Token::Number)) {
        return None;
    }
    let read = || Ok((decimal(text, name, price)?, decimal(text, name, amount)?));
    Some(read().map(|(price, amount)| (price, if gone { Decimal::ZERO } else { amount })))
}

#[cold]
fn no_level(text: &[u8], name: &'static str, list: Value) -> Refusal {
    let detail = format!("`{name}` is {}, where levels [action, price, amount] should be", excerpt(text, list));
    refuse("wrong_type", detail)
}

/// Price and size of one side of a quote, both or none.
type Best = (Option<Decimal>, Option<Decimal>);

/// One side of a quote. Where there is none, the venue sends null or zero.
#[inline]
fn best(event: Event<'_, Names>, listing: &Listing, price: &'static str, amount: &'static str) -> Result<Best, Refusal> {
    if let Some(absent) = [price, amount].into_iter().find(|name| !event.has(name)) {
        return Err(missing(absent));
    }
    match (event.positive(price)?, event.positive(amount)?) {
        (Some(at), Some(amount)) => Ok((Some(at), Some(base_quantity(listing, amount, at)?))),
        _ => Ok((None, None)),
    }
}

/// Both sides of a quote.
#[inline]
fn both(event: Event<'_, Names>, listing: &Listing) -> Result<[Best; 2], Refusal> {
    Ok([best(event, listing, "best_bid_price", "best_bid_amount")?, best(event, listing, "best_ask_price", "best_ask_amount")?])
}

#[inline]
fn push_quote(listing: &Listing, [bid, ask]: [Best; 2], event_time: Micros, frame: FrameRef<'_>, records: &mut Records) {
    let Some(builder) = &mut records.quote else { return };
    builder.push(Quote {
        venue: VENUE,
        market: listing.market.as_str(),
        symbol: &listing.symbol,
        event_time: Some(event_time),
        receive_time: frame.receive_time,
        frame: Some(frame.frame),
        sequence: None,
        bid_price: bid.0,
        bid_quantity: bid.1,
        ask_price: ask.0,
        ask_quantity: ask.1,
    });
}

/// `quote`: the best bid and ask.
#[inline]
pub(super) fn quote(
    event: Event<'_, Names>,
    frame: FrameRef<'_>,
    pass: Pass,
    symbols: InstrumentNames<'_>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    if records.quote.is_none() {
        return Ok(Outcome::Ignored);
    }
    let Some(listing) = listing(event, symbols)? else { return Ok(Outcome::Ignored) };
    let event_time = event.time("timestamp")?;
    let both = both(event, listing)?;
    if pass == Pass::Push {
        push_quote(listing, both, event_time, frame, records);
    }
    Ok(Outcome::Decoded)
}

/// `ticker`, and what an answer tells beside a book: the best bid and ask, and the venue's figures.
#[inline]
pub(super) fn ticker(
    event: Event<'_, Names>,
    frame: FrameRef<'_>,
    pass: Pass,
    symbols: InstrumentNames<'_>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let quotes = records.quote.is_some() && !frame.topic.is_some_and(|topic| topic.ends_with(FIGURES));
    if !quotes && !Figures::wanted(records) {
        return Ok(Outcome::Ignored);
    }
    let Some(listing) = listing(event, symbols)? else { return Ok(Outcome::Ignored) };
    let event_time = event.time("timestamp")?;
    let both = if quotes { Some(both(event, listing)?) } else { None };
    let figures = figures(event, listing, records)?;
    let outcome = figures.push(VENUE, listing, event_time, frame, pass, records);
    let Some(both) = both else { return Ok(outcome) };
    if pass == Pass::Push {
        push_quote(listing, both, event_time, frame, records);
    }
    Ok(Outcome::Decoded)
}

/// A summary of an instrument in an answer, whose best bid and ask have no sizes.
pub(super) fn summary(
    event: Event<'_, Names>,
    frame: FrameRef<'_>,
    pass: Pass,
    symbols: InstrumentNames<'_>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    if !Figures::wanted(records) {
        return Ok(Outcome::Ignored);
    }
    let Some(listing) = listing(event, symbols)? else { return Ok(Outcome::Ignored) };
    let event_time = event.time("creation_timestamp")?;
    let figures = figures(event, listing, records)?;
    Ok(figures.push(VENUE, listing, event_time, frame, pass, records))
}

/// What the venue works out for an instrument, as far as it is sent and wanted.
fn figures(event: Event<'_, Names>, listing: &Listing, records: &Records) -> Result<Figures, Refusal> {
    let positive = |name| Ok::<_, Refusal>(figure(event, name)?.filter(|price| *price > Decimal::ZERO));
    let mut figures = Figures::default();
    if records.mark_price.is_some() {
        // An option may be worth nothing.
        figures.mark = figure(event, "mark_price")?.filter(|price| listing.market == Market::Option || *price > Decimal::ZERO);
        figures.settlement = match event.get("estimated_delivery_price") {
            // There is nothing to estimate any more.
            Some(value) if value.token == Token::Text && value.of(event.text) == b"expired" => None,
            _ => positive("estimated_delivery_price")?,
        };
    }
    if records.index_price.is_some() {
        figures.index = positive("index_price")?;
    }
    if records.funding_rate.is_some() && listing.market == Market::Perpetual {
        figures.funding = event.optional_rounded("current_funding")?.map(|rate| rate_over(rate, EIGHT_HOURS));
    }
    if records.open_interest.is_some() && listing.market != Market::Spot {
        figures.open_interest = match (figure(event, "open_interest")?, listing.contract) {
            (Some(dollars), Some(contract)) => Some([Some(in_contracts(contract, dollars)?), None, Some(dollars)]),
            (base, _) => base.map(|base| [None, Some(base), None]),
        };
    }
    Ok(figures)
}

/// A rate over a number of seconds. It is paid in every moment, so there is no time at which it is paid next.
pub(super) fn rate_over(rate: Decimal, seconds: i64) -> Funding {
    Funding { interval_seconds: Some(seconds), ..Funding::paid_at(rate, None) }
}

/// `perpetual`: the rate of the moment, of the instrument that the channel names, and the price of its index.
pub(super) fn perpetual(
    event: Event<'_, Names>,
    channel: &[u8],
    frame: FrameRef<'_>,
    symbols: InstrumentNames<'_>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    if records.funding_rate.is_none() && records.index_price.is_none() {
        return Ok(Outcome::Ignored);
    }
    let name = channel.split(|byte| *byte == b'.').next().unwrap_or_default();
    let listing = named(&String::from_utf8_lossy(name), symbols)?;
    let event_time = event.time("timestamp")?;
    let rate = event.optional_rounded("interest")?.ok_or_else(|| missing("interest"))?;
    let price = figure(event, "index_price")?.filter(|price| *price > Decimal::ZERO);
    let figures = Figures { index: price, ..Figures::of_funding(rate_over(rate, EIGHT_HOURS)) };
    Ok(figures.push(VENUE, listing, event_time, frame, Pass::Push, records))
}

/// `markprice.options`: the mark price of one of many options.
pub(super) fn mark_price(
    event: Event<'_, Names>,
    frame: FrameRef<'_>,
    pass: Pass,
    symbols: InstrumentNames<'_>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    if records.mark_price.is_none() {
        return Ok(Outcome::Ignored);
    }
    let Some(listing) = listing(event, symbols)? else { return Ok(Outcome::Ignored) };
    let event_time = event.time("timestamp")?;
    let mark = figure(event, "mark_price")?.ok_or_else(|| missing("mark_price"))?;
    let figures = Figures { mark: Some(mark), ..Figures::default() };
    Ok(figures.push(VENUE, listing, event_time, frame, pass, records))
}

/// `deribit_price_index`: the price of an index of its own.
pub(super) fn index_price(
    event: Event<'_, Names>,
    frame: FrameRef<'_>,
    indices: IndexNames<'_>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    if records.index_price.is_none() {
        return Ok(Outcome::Ignored);
    }
    let listing = index(event, "index_name", indices)?;
    let event_time = event.time("timestamp")?;
    let price = figure(event, "price")?.filter(|price| *price > Decimal::ZERO).ok_or_else(|| missing("price"))?;
    let figures = Figures { index: Some(price), ..Figures::default() };
    Ok(figures.push(VENUE, listing, event_time, frame, Pass::Push, records))
}

/// `deribit_volatility_index`: the value of the moment, which has no interval.
pub(super) fn volatility(
    event: Event<'_, Names>,
    frame: FrameRef<'_>,
    indices: IndexNames<'_>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.volatility_index else { return Ok(Outcome::Ignored) };
    let symbol = volatility_symbol(&index(event, "index_name", indices)?.base);
    let event_time = event.time("timestamp")?;
    let close = figure(event, "volatility")?.ok_or_else(|| missing("volatility"))?;
    builder.push(VolatilityIndex {
        venue: VENUE,
        market: Market::Index.as_str(),
        symbol: &symbol,
        event_time,
        receive_time: frame.receive_time,
        frame: Some(frame.frame),
        open: None,
        high: None,
        low: None,
        close,
    });
    Ok(Outcome::Decoded)
}

/// The volatility index of an asset.
pub(super) fn volatility_symbol(base: &str) -> String {
    format!("{base}-DVOL")
}

/// `instrument.state`: an instrument is listed, settled or delivered.
pub(super) fn instrument_state(
    event: Event<'_, Names>,
    frame: FrameRef<'_>,
    symbols: InstrumentNames<'_>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.venue_status else { return Ok(Outcome::Ignored) };
    let Some(listing) = listing(event, symbols)? else { return Ok(Outcome::Ignored) };
    let event_time = event.time("timestamp")?;
    let status = event.text("state")?.to_lowercase();
    builder.push(VenueStatus {
        venue: VENUE,
        market: Some(listing.market.as_str()),
        symbol: Some(&listing.symbol),
        event_time: Some(event_time),
        receive_time: frame.receive_time,
        frame: Some(frame.frame),
        status: &status,
        message: None,
    });
    Ok(Outcome::Decoded)
}

/// `platform_state`: everything on an index, or the whole venue, is locked or under maintenance, or no more so.
pub(super) fn platform_state(
    event: Event<'_, Names>,
    frame: FrameRef<'_>,
    indices: IndexNames<'_>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.venue_status else { return Ok(Outcome::Ignored) };
    some_time(None, frame)?;
    let status = if event.has("maintenance") {
        if event.boolean("maintenance")? { "maintenance" } else { "open" }
    } else if event.boolean("locked")? {
        "locked"
    } else {
        "open"
    };
    let listing = event.get("price_index").map(|_| index(event, "price_index", indices)).transpose()?;
    builder.push(VenueStatus {
        venue: VENUE,
        market: listing.map(|listing| listing.market.as_str()),
        symbol: listing.map(|listing| listing.symbol.as_str()),
        event_time: None,
        receive_time: frame.receive_time,
        frame: Some(frame.frame),
        status,
        message: None,
    });
    Ok(Outcome::Decoded)
}
