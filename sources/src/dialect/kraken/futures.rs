//! The decoder of Kraken's futures (futures.kraken.com): the feeds of WebSocket, `{"feed":…,"product_id":…,…}`, and answers of
//! REST, `{"result":"success",…}`. Numbers are bare.

use std::borrow::Cow;
use std::sync::Arc;

use model::Decimal;
use model::decimal::SCALE;
use model::dialect::{Dialect, FrameRef, Outcome, Records, Reject};
use model::instrument::{Listing, Market};
use model::kinds::{BookDelta, Liquidation, Quote, Trade};
use model::time::Micros;

use super::book::{self, Which, objects};
use super::prints::not_a_trade;
use super::symbols::Products;
use super::{VENUE, listing, unknown, venue_error};
use crate::dialect::Instruments;
use crate::dialect::digits;
use crate::dialect::fields::{Event, Fields, Refusal, decimal, excerpt, keys, malformed, missing, refuse};
use crate::dialect::figures::{Figures, Funding, OpenAmounts};
use crate::dialect::json::{Scanner, Token, Value};
use crate::dialect::reading::{Levels, Pass, in_base, named, some_time};
use crate::dialect::symbols::Symbols;

keys! {
    /// The members that matter of feeds and answers.
    Members quoted false:
    b"feed" b"event" b"result" b"error" b"errors" b"serverTime" b"product_id" b"symbol" b"uid" b"trade_id" b"side" b"type" b"seq"
    b"time" b"timestamp" b"qty" b"size" b"price" b"bids" b"asks" b"bid" b"ask" b"bid_size" b"ask_size" b"bidSize" b"askSize"
    b"index" b"indexPrice" b"markPrice" b"openInterest" b"relative_funding_rate" b"relative_funding_rate_prediction"
    b"next_funding_rate_time" b"relativeFundingRate" b"instruments" b"tickers" b"ticker" b"rates" b"orderBook" b"history" b"trades"
}

/// Feeds of the account that a connection is logged in with, and what carries no data.
const OTHER_FEEDS: [&[u8]; 14] = [
    b"heartbeat",
    b"open_orders",
    b"open_orders_snapshot",
    b"open_orders_verbose",
    b"open_orders_verbose_snapshot",
    b"open_positions",
    b"balances",
    b"balances_snapshot",
    b"fills",
    b"fills_snapshot",
    b"account_log",
    b"account_log_snapshot",
    b"notifications_auth",
    b"account_balances_and_margins",
];

/// The decoder of Kraken's futures.
#[derive(Debug)]
pub struct KrakenFutures {
    /// The members of a message.
    outer: Fields<Members>,
    /// Those of an object in it.
    inner: Fields<Members>,
    symbols: Symbols<Products>,
    levels: Levels,
}

impl KrakenFutures {
    /// A decoder that knows these instruments, and others by their letters.
    pub fn new(listed: Arc<Instruments>) -> Self {
        KrakenFutures {
            outer: Fields::default(),
            inner: Fields::default(),
            symbols: Symbols::new(Products, listed),
            levels: Levels::default(),
        }
    }

    fn message(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let text = frame.payload;
        self.outer.frame(text).map_err(malformed)?;
        let event = Event { text, fields: &self.outer };
        if event.has("event") {
            return match event.characters("event")? {
                b"info" | b"subscribed" | b"unsubscribed" | b"challenge" | b"pong" => Ok(Outcome::Ignored),
                b"error" | b"alert" | b"subscribed_failed" | b"unsubscribed_failed" => Err(venue_error(text)),
                _ => Err(unknown(excerpt(text, event.of_type("event", Token::Text, "a text")?))),
            };
        }
        if !event.has("feed") {
            return self.answer(frame, records);
        }
        let name = event.characters("feed")?;
        if name == b"trade_snapshot" {
            let trades = event.of_type("trades", Token::Array, "a list of trades")?;
            return self.list(frame, trades, "time", records, |reading, records| reading.trade("qty", records));
        }
        let reading = Reading { event, around: None, frame, pass: Pass::Push, symbols: &mut self.symbols, levels: &mut self.levels };
        match name {
            b"book" => reading.book(records),
            b"trade" => reading.trade("qty", records),
            b"ticker" | b"ticker_lite" => reading.ticker(&FEED, records),
            b"book_snapshot" => reading.book_snapshot(records),
            other if OTHER_FEEDS.contains(&other) => Ok(Outcome::Ignored),
            _ => Err(unknown(excerpt(text, event.of_type("feed", Token::Text, "a text")?))),
        }
    }

    /// An answer of REST.
    fn answer(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let text = frame.payload;
        let event = Event { text, fields: &self.outer };
        let failed = event.get("result").is_some_and(|result| result.of(text) == b"error");
        if failed || event.get("error").is_some() {
            return Err(venue_error(text));
        }
        if event.has("instruments") {
            return listing::push_products(frame, records);
        }
        let list = |name| event.of_type(name, Token::Array, "a list");
        if event.has("tickers") {
            let tickers = list("tickers")?;
            self.list(frame, tickers, "", records, |reading, records| reading.answered_ticker(records))
        } else if event.has("rates") {
            let rates = list("rates")?;
            self.list(frame, rates, "timestamp", records, |reading, records| reading.funding(records))
        } else if event.has("history") {
            let history = list("history")?;
            self.list(frame, history, "time", records, |reading, records| reading.trade("size", records))
        } else if event.has("ticker") {
            let ticker = event.of_type("ticker", Token::Object, "an object")?;
            self.one(frame, ticker, Pass::Push, records, |reading, records| reading.answered_ticker(records))
        } else if event.has("orderBook") {
            let book = event.of_type("orderBook", Token::Object, "an object")?;
            self.one(frame, book, Pass::Push, records, |reading, records| reading.answered_book(records))
        } else {
            Err(unknown("an object that names no feed"))
        }
    }

    /// Decodes the objects of a list, in the order of this time: all of them, or none.
    fn list(
        &mut self,
        frame: FrameRef<'_>,
        list: Value,
        time: &'static str,
        records: &mut Records,
        decode: impl Fn(Reading<'_>, &mut Records) -> Result<Outcome, Refusal>,
    ) -> Result<Outcome, Refusal> {
        let text = frame.payload;
        let mut elements = Vec::new();
        Scanner::at(text, list).array(|s| s.value().map(|e| elements.push(e))).map_err(malformed)?;
        let mut outcome = Outcome::Ignored;
        let mut times = Vec::new();
        for pass in [Pass::Check, Pass::Push] {
            for element in &elements {
                if self.one(frame, *element, pass, records, &decode)? == Outcome::Ignored {
                    continue;
                }
                outcome = Outcome::Decoded;
                if pass == Pass::Check && !time.is_empty() {
                    let event = Event { text, fields: &self.inner };
                    let number = ["seq", "trade_id"].into_iter().find(|name| event.get(name).is_some());
                    times.push((instant(event, time)?, number.map(|name| event.integer(name)).transpose()?));
                }
            }
            // Newest first is how trades of the past come.
            if pass == Pass::Check
                && let [first, .., last] = times.as_slice()
                && first > last
            {
                elements.reverse();
            }
        }
        Ok(outcome)
    }

    /// Decodes an object in the message.
    fn one(
        &mut self,
        frame: FrameRef<'_>,
        object: Value,
        pass: Pass,
        records: &mut Records,
        decode: impl Fn(Reading<'_>, &mut Records) -> Result<Outcome, Refusal>,
    ) -> Result<Outcome, Refusal> {
        let text = frame.payload;
        if object.token != Token::Object {
            return Err(refuse("wrong_type", format!("{} stands where an object should be", excerpt(text, object))));
        }
        self.inner.inner(text, object).map_err(malformed)?;
        let (event, around) = (Event { text, fields: &self.inner }, Some(Event { text, fields: &self.outer }));
        decode(Reading { event, around, frame, pass, symbols: &mut self.symbols, levels: &mut self.levels }, records)
    }
}

impl Dialect for KrakenFutures {
    fn decode(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Reject> {
        self.message(frame, records).map_err(|refusal| *refusal)
    }
}

/// What the members of a ticker are called.
struct Names {
    bid_size: &'static str,
    ask_size: &'static str,
    index: &'static str,
}

/// Those of the feeds `ticker` and `ticker_lite`, which has neither sizes nor an index.
const FEED: Names = Names { bid_size: "bid_size", ask_size: "ask_size", index: "index" };
/// Those of the answer `tickers`.
const ANSWER: Names = Names { bid_size: "bidSize", ask_size: "askSize", index: "indexPrice" };

/// A time in milliseconds or as RFC 3339 writes it.
fn instant(event: Event<'_, Members>, name: &'static str) -> Result<Micros, Refusal> {
    match event.get(name) {
        Some(value) if value.token == Token::Text => event.timestamp(name),
        _ => event.time(name),
    }
}

/// A time in milliseconds that may be written with a fraction of nothing, `1676394000000.0`; zero is none.
fn optional_millis(event: Event<'_, Members>, name: &'static str) -> Result<Option<Micros>, Refusal> {
    let Some(value) = event.get(name) else { return Ok(None) };
    if value.token != Token::Number {
        return event.optional_time(name);
    }
    let number = event.optional_decimal(name)?.unwrap_or_default().units();
    let one = 10_i128.pow(u32::from(SCALE.unsigned_abs()));
    let millis = i64::try_from(number / one).ok().filter(|millis| number % one == 0 && *millis >= 0);
    match millis.and_then(|millis| if millis == 0 { Some(None) } else { crate::dialect::fields::micros(millis).map(Some) }) {
        Some(time) => Ok(time),
        None => Err(refuse("bad_time", format!("`{name}` is {}, which is no time in milliseconds since 1970", excerpt(event.text, value)))),
    }
}

/// A message, or an object in one, being read.
struct Reading<'a> {
    event: Event<'a, Members>,
    /// What stands around the object.
    around: Option<Event<'a, Members>>,
    frame: FrameRef<'a>,
    pass: Pass,
    symbols: &'a mut Symbols<Products>,
    levels: &'a mut Levels,
}

impl<'a> Reading<'a> {
    /// The product's symbol: its own, that around it, or what was asked for.
    fn symbol(&self) -> Result<Cow<'a, str>, Refusal> {
        let (event, around) = (self.event, self.around);
        if event.has("product_id") {
            return event.text("product_id");
        }
        if event.has("symbol") {
            return event.text("symbol");
        }
        if let Some(around) = around.filter(|around| around.has("product_id")) {
            return around.text("product_id");
        }
        let asked = self.frame.topic.map(|topic| Cow::Borrowed(topic.split('@').next().unwrap_or(topic)));
        asked.ok_or_else(|| refuse("missing_field", "the message names no product; give the source the venue's symbol as `symbol`"))
    }

    /// A trade of the feeds, whose size is `qty`, or of the answer `history`, where it is `size`.
    fn trade(self, size: &'static str, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        if records.trade.is_none() && records.liquidation.is_none() {
            return Ok(Outcome::Ignored);
        }
        let forced = match event.get("type") {
            None => false,
            Some(_) => match event.characters("type")? {
                b"fill" | b"block" => false,
                b"liquidation" => true,
                // Positions that changed hands without an order: nothing of the book was taken.
                b"assignment" | b"termination" => return Ok(Outcome::Ignored),
                _ => {
                    return Err(unknown(format!("a trade of type {}", excerpt(event.text, event.of_type("type", Token::Text, "a text")?))));
                }
            },
        };
        let (price, amount) = (event.decimal("price")?, event.decimal(size)?);
        let event_time = instant(event, "time")?;
        let side = side(event, "buy", "sell")?;
        // Before 2019-09 trades had only their number in the feed.
        let id = ["uid", "trade_id", "seq"].into_iter().find(|name| event.get(name).is_some());
        let id = match id {
            Some("uid") => event.text("uid")?,
            Some(name) => event.identifier(name)?.into(),
            None => return Err(missing("uid")),
        };
        if price == Decimal::ZERO || amount == Decimal::ZERO {
            return Err(not_a_trade(price, amount));
        }
        let symbol = self.symbol()?;
        let listing = named(&symbol, self.symbols)?;
        let (quantity, contracts) = in_base(listing.contract, amount, price)?;
        let (market, symbol) = (listing.market.as_str(), listing.symbol.as_str());
        let (receive_time, number) = (frame.receive_time, Some(frame.frame));
        let mut outcome = Outcome::Ignored;
        if let Some(builder) = &mut records.trade {
            outcome = Outcome::Decoded;
            if self.pass == Pass::Push {
                builder.push(Trade {
                    venue: VENUE,
                    market,
                    symbol,
                    event_time,
                    receive_time,
                    frame: number,
                    trade_id: &id,
                    price,
                    quantity,
                    contracts,
                    side,
                    fills: 1,
                    backfilled: Some(size == "size"),
                });
            }
        }
        if let (true, Some(builder)) = (forced, &mut records.liquidation) {
            outcome = Outcome::Decoded;
            if self.pass == Pass::Push {
                builder.push(Liquidation {
                    venue: VENUE,
                    market,
                    symbol,
                    event_time,
                    receive_time,
                    frame: number,
                    liquidation_id: Some(&id),
                    // The order that closes the position takes from the book.
                    side,
                    price,
                    average_price: None,
                    quantity,
                    filled_quantity: Some(quantity),
                    contracts,
                    status: None,
                });
            }
        }
        Ok(outcome)
    }

    /// `book`: the new size at one price.
    fn book(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.book_delta else { return Ok(Outcome::Ignored) };
        let sequence = event.integer("seq")?;
        let event_time = event.time("timestamp")?;
        let which = side(event, Which::Bids, Which::Asks)?;
        let price = event.decimal("price")?;
        let size = size(event.optional_decimal("qty")?.ok_or_else(|| missing("qty"))?);
        let symbol = self.symbol()?;
        let listing = named(&symbol, self.symbols)?;
        let (prices, quantities) = (std::slice::from_ref(&price), std::slice::from_ref(&size));
        let (bids, asks): ([&[Decimal]; 2], [&[Decimal]; 2]) = match which {
            Which::Bids => ([prices, quantities], [&[], &[]]),
            Which::Asks => ([&[], &[]], [prices, quantities]),
        };
        if self.pass == Pass::Push {
            builder.push(BookDelta {
                venue: VENUE,
                market: listing.market.as_str(),
                symbol: &listing.symbol,
                event_time,
                receive_time: frame.receive_time,
                frame: Some(frame.frame),
                first_sequence: Some(sequence),
                last_sequence: Some(sequence),
                previous_sequence: None,
                bid_prices: bids[0],
                bid_quantities: bids[1],
                ask_prices: asks[0],
                ask_quantities: asks[1],
                contracts: listing.contract.is_some(),
                checksum: None,
                price_digits: None,
                quantity_digits: None,
            });
        }
        Ok(Outcome::Decoded)
    }

    /// `book_snapshot`: the whole book.
    fn book_snapshot(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.book_snapshot.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event = self.event;
        let (sequence, event_time) = (event.integer("seq")?, event.optional_time("timestamp")?);
        for (name, side) in [("bids", &mut self.levels.bids), ("asks", &mut self.levels.asks)] {
            side.prices.clear();
            side.quantities.clear();
            objects(event, name, |price, quantity| {
                let price = decimal(event.text, "price", price)?;
                let quantity = size(signed(event.text, "qty", quantity)?);
                // A level without a size is none.
                if quantity > Decimal::ZERO {
                    book::push(side, (price, quantity));
                }
                Ok(())
            })?;
        }
        self.push_snapshot(Some(sequence), event_time, records)
    }

    /// The answer `orderbook`: levels `[price, size]`, best first, without a number.
    fn answered_book(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.book_snapshot.is_none() {
            return Ok(Outcome::Ignored);
        }
        let (event, text) = (self.event, self.event.text);
        let event_time = self.around.map(|around| around.optional_timestamp("serverTime")).transpose()?.flatten();
        for (name, side) in [("bids", &mut self.levels.bids), ("asks", &mut self.levels.asks)] {
            side.prices.clear();
            side.quantities.clear();
            let list = event.of_type(name, Token::Array, "a list of levels")?;
            let mut refused = Ok(());
            let walk = Scanner::at(text, list).array(|s| {
                let mut before = s.clone();
                let (mut parts, mut count) = ([Value::default(); 2], 0);
                if s.peek() == Some(b'[') {
                    s.array(|s| {
                        let value = s.value()?;
                        if let Some(part) = parts.get_mut(count) {
                            *part = value;
                        }
                        count += 1;
                        Ok(())
                    })?;
                } else {
                    s.value()?;
                }
                if refused.is_ok() {
                    refused = if parts.iter().all(|part| matches!(part.token, Token::Integer | Token::Number)) {
                        let numbers = decimal(text, name, parts[0]).and_then(|price| Ok((price, decimal(text, name, parts[1])?)));
                        numbers.map(|level| {
                            if level.1 > Decimal::ZERO {
                                book::push(side, level)
                            }
                        })
                    } else {
                        let level = excerpt(text, before.value()?);
                        Err(refuse("wrong_type", format!("`{name}` holds {level}, where a level [price, size] should be")))
                    };
                }
                Ok(())
            });
            walk.map_err(malformed)?;
            refused?;
        }
        self.push_snapshot(None, event_time, records)
    }

    fn push_snapshot(self, sequence: Option<i64>, event_time: Option<Micros>, records: &mut Records) -> Result<Outcome, Refusal> {
        let (frame, symbol) = (self.frame, self.symbol()?);
        let Some(builder) = &mut records.book_snapshot else { return Ok(Outcome::Ignored) };
        some_time(event_time, frame)?;
        let listing = named(&symbol, self.symbols)?;
        if self.pass == Pass::Push {
            builder.push(self.levels.snapshot(VENUE, listing, frame, event_time, sequence));
        }
        Ok(Outcome::Decoded)
    }

    /// A ticker of the answer `tickers`: of a product, as those of the feed, or of an index, which is passed over.
    fn answered_ticker(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let symbol = self.symbol()?;
        if ["in_", "rr_", "IN_", "RR_"].into_iter().any(|index| symbol.starts_with(index)) {
            return Ok(Outcome::Ignored);
        }
        self.ticker(&ANSWER, records)
    }

    /// A ticker: best bid and ask, mark price, index, open interest and funding, as far as it has them.
    fn ticker(self, names: &Names, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.quote.is_none() && !Figures::wanted(records) {
            return Ok(Outcome::Ignored);
        }
        let (event, frame, pass) = (self.event, self.frame, self.pass);
        let event_time = match self.around {
            None => event.optional_time("time")?,
            Some(around) => around.optional_timestamp("serverTime")?,
        };
        let (mark, index) = (figure(event, "markPrice")?, figure(event, names.index)?);
        let interest = event.optional_rounded("openInterest")?;
        // The other rate, `funding_rate`, is an amount of money for a contract.
        let rate = event.optional_rounded("relative_funding_rate")?;
        let predicted_rate = event.optional_rounded("relative_funding_rate_prediction")?;
        let next_funding_time = optional_millis(event, "next_funding_rate_time")?;
        let symbol = self.symbol()?;
        let listing = named(&symbol, self.symbols)?;
        let (bid_price, bid_quantity) = best(event, listing, "bid", names.bid_size)?;
        let (ask_price, ask_quantity) = best(event, listing, "ask", names.ask_size)?;
        let (market, symbol) = (listing.market.as_str(), listing.symbol.as_str());
        let (receive_time, number) = (frame.receive_time, Some(frame.frame));
        let open_interest = interest.map(|interest| outstanding(listing, interest)).transpose()?;
        // A quote may do with our time, the others may not.
        let timed = || event_time.ok_or_else(|| missing(if self.around.is_some() { "serverTime" } else { "time" }));
        let rate = rate.filter(|_| listing.market == Market::Perpetual);
        let funding = rate.map(|rate| Funding { rate, predicted_rate, interval_seconds: None, next_funding_time });
        let figures = Figures { mark, settlement: None, index, funding, open_interest };
        let event_time_of_figures = if figures.any(records) { Some(timed()?) } else { None };
        let quoted = records.quote.is_some() && (bid_price.is_some() || ask_price.is_some());
        if quoted {
            some_time(event_time, frame)?;
        }
        if event_time_of_figures.is_none() && !quoted {
            return Ok(Outcome::Ignored);
        }
        if pass == Pass::Check {
            return Ok(Outcome::Decoded);
        }
        if let (true, Some(builder)) = (quoted, &mut records.quote) {
            builder.push(Quote {
                venue: VENUE,
                market,
                symbol,
                event_time,
                receive_time,
                frame: number,
                sequence: None,
                bid_price,
                bid_quantity,
                ask_price,
                ask_quantity,
            });
        }
        if let Some(event_time) = event_time_of_figures {
            figures.push(VENUE, listing, event_time, frame, pass, records);
        }
        Ok(Outcome::Decoded)
    }

    /// A rate of the answer `historical-funding-rates`.
    fn funding(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.funding_rate.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event = self.event;
        let rate = event.optional_rounded("relativeFundingRate")?.ok_or_else(|| missing("relativeFundingRate"))?;
        let event_time = event.timestamp("timestamp")?;
        let symbol = self.symbol()?;
        let listing = named(&symbol, self.symbols)?;
        let figures = Figures::of_funding(Funding::paid_at(rate, None));
        Ok(figures.push(VENUE, listing, event_time, self.frame, self.pass, records))
    }
}

/// What a side is, of a buyer or a seller.
fn side<T>(event: Event<'_, Members>, buy: T, sell: T) -> Result<T, Refusal> {
    match event.characters("side")? {
        b"buy" => Ok(buy),
        b"sell" => Ok(sell),
        _ => Err(event.mistyped("side", event.of_type("side", Token::Text, "a text")?, "\"buy\" or \"sell\"")),
    }
}

/// A size of a level: feeds were seen with sizes below zero, which are none.
fn size(size: Decimal) -> Decimal {
    size.max(Decimal::ZERO)
}

/// A number of either sign, where the scanner has found it.
fn signed(text: &[u8], name: &'static str, value: Value) -> Result<Decimal, Refusal> {
    match digits::decimal(text, value) {
        Ok(number) if number < Decimal::ZERO => Ok(number),
        _ => decimal(text, name, value),
    }
}

/// A price that the venue worked out, rounded where it has more than twelve fraction digits; zero is none.
fn figure(event: Event<'_, Members>, name: &'static str) -> Result<Option<Decimal>, Refusal> {
    match (event.optional_rounded(name)?, event.get(name)) {
        (Some(price), Some(value)) if price < Decimal::ZERO => Err(event.bad(name, value, "is negative")),
        (price, _) => Ok(price.filter(|price| *price > Decimal::ZERO)),
    }
}

/// The best level of one side: none where its price or its size is zero. Where no size is sent, it is unknown.
fn best(
    event: Event<'_, Members>,
    listing: &Listing,
    price: &'static str,
    size: &'static str,
) -> Result<(Option<Decimal>, Option<Decimal>), Refusal> {
    let Some(price) = event.positive(price)? else { return Ok((None, None)) };
    if event.get(size).is_none() {
        return Ok((Some(price), None));
    }
    match event.positive(size)? {
        None => Ok((None, None)),
        Some(size) => in_base(listing.contract, size, price).map(|(quantity, _)| (Some(price), Some(quantity))),
    }
}

/// Open interest in contracts, in the base asset and in the quote asset, as far as the one that is sent tells the others.
fn outstanding(listing: &Listing, interest: Decimal) -> Result<OpenAmounts, Refusal> {
    let Some(contract) = listing.contract else { return Ok([None, Some(interest), None]) };
    let worth = interest.mul_rounded(contract.size);
    let worth = worth.ok_or_else(|| refuse("overflow", format!("{interest} contracts of {} are too many", contract.size)))?;
    Ok(if contract.inverse { [Some(interest), None, Some(worth)] } else { [Some(interest), Some(worth), None] })
}
