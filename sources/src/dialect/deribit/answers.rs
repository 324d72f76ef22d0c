//! Answers to requests, by REST and by WebSocket.
//!
//! An answer does not say what it is, but its members do. Where it names no instrument (rates of the past, volatility, the price
//! of an index) the frame's topic must: `SYMBOL@METHOD@RESOLUTION`, e.g. `BTC@get_volatility_index_data@60`.

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::Market;
use model::kinds::{VenueStatus, VolatilityIndex};
use model::time::Micros;

use super::events::{self, Envelope, Names, VENUE};
use super::{Deribit, listing, unknown};
use crate::dialect::digits;
use crate::dialect::fields::{Event, Refusal, decimal, excerpt, malformed, micros, missing, refuse};
use crate::dialect::figures::Figures;
use crate::dialect::json::{Scanner, Token, Value};
use crate::dialect::reading::{Pass, named, some_time};
use crate::dialect::symbols::is_asset;

/// Members of objects of answers that become no record: of bars, settlements, combinations, negotiations and accounts.
const OTHER_ANSWERS: [&str; 15] = [
    "version",
    "access_token",
    "ticks",
    "settlements",
    "records_total",
    "current_interest",
    "contract_size",
    "block_rfqs",
    "continuation",
    "currency",
    "legs",
    "publication_timestamp",
    "option",
    "future",
    "order",
];

/// The symbol in the topic of a frame, which an answer without a name needs.
fn topic_symbol(frame: FrameRef<'_>) -> Result<&str, Refusal> {
    let symbol = frame.topic.and_then(|topic| topic.split('@').next()).filter(|symbol| !symbol.is_empty());
    symbol.ok_or_else(|| refuse("missing_field", "the answer names no instrument; give the source the venue's name as `symbol`"))
}

/// The seconds of a resolution, `60` or `1D`.
fn seconds(resolution: &str) -> Option<i64> {
    match resolution {
        "1D" => Some(86_400),
        digits => digits.parse::<u32>().ok().map(i64::from).filter(|seconds| *seconds > 0),
    }
}

impl Deribit {
    /// An answer that is an object.
    pub(super) fn answer(&mut self, frame: FrameRef<'_>, result: Value, records: &mut Records) -> Result<Outcome, Refusal> {
        self.data.inner(frame.payload, result).map_err(malformed)?;
        let event = Event { text: frame.payload, fields: &self.data };
        let has = |name| event.has(name);
        if has("order") {
            return Ok(Outcome::Ignored);
        } else if has("bids") && has("asks") {
            return self.order_book(frame, records);
        } else if has("trades") {
            if records.trade.is_none() && records.liquidation.is_none() {
                return Ok(Outcome::Ignored);
            }
            let list = event.of_type("trades", Token::Array, "a list of trades")?;
            self.items.clear();
            self.gather(frame.payload, list)?;
            self.oldest_first(frame.payload)?;
            return self.each(frame, Self::item_trade::<true>, records);
        } else if has("instrument_name") && has("best_bid_price") {
            return events::ticker(event, frame, Pass::Push, &mut self.symbols, records);
        } else if has("instrument_name") && has("kind") {
            return listing::push(frame, records);
        } else if has("locked") {
            return self.status(frame, records);
        } else if has("index_price") && has("estimated_delivery_price") && !has("instrument_name") {
            return self.index_price(frame, records);
        } else if has("data") && !has("records_total") && !has("current_interest") {
            return self.volatility(frame, records);
        } else if OTHER_ANSWERS.into_iter().any(has) {
            return Ok(Outcome::Ignored);
        }
        Err(unknown(&format!("an answer {}", excerpt(frame.payload, result))))
    }

    /// An answer that is a list.
    pub(super) fn list_answer(&mut self, frame: FrameRef<'_>, result: Value, records: &mut Records) -> Result<Outcome, Refusal> {
        self.items.clear();
        self.gather(frame.payload, result)?;
        let Some(first) = self.items.first().copied() else { return Ok(Outcome::Ignored) };
        if first.token != Token::Object {
            // The channels of an acknowledgement, names, or the points of a chart.
            return Ok(Outcome::Ignored);
        }
        self.note_item(frame.payload, first)?;
        let event = Event { text: frame.payload, fields: &self.data };
        let has = |name| event.has(name);
        if has("instrument_name") && has("kind") {
            listing::push(frame, records)
        } else if has("interest_1h") {
            self.each(frame, Self::item_funding, records)
        } else if has("instrument_name") && has("mark_price") && has("creation_timestamp") {
            self.each(frame, Self::item_summary, records)
        } else if OTHER_ANSWERS.into_iter().any(has) {
            Ok(Outcome::Ignored)
        } else {
            Err(unknown(&format!("an answer that begins with {}", excerpt(frame.payload, first))))
        }
    }

    /// `get_order_book`: a book, and a ticker beside it.
    fn order_book(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = Event { text: frame.payload, fields: &self.data };
        let mut outcome = Outcome::Ignored;
        for pass in [Pass::Check, Pass::Push] {
            let book = events::book(event, frame, pass, &mut self.symbols, &mut self.levels, records)?;
            let ticker = events::ticker(event, frame, pass, &mut self.symbols, records)?;
            if [book, ticker].contains(&Outcome::Decoded) {
                outcome = Outcome::Decoded;
            }
        }
        Ok(outcome)
    }

    fn item_summary(&mut self, frame: FrameRef<'_>, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = Event { text: frame.payload, fields: &self.data };
        events::summary(event, frame, pass, &mut self.symbols, records)
    }

    /// `get_funding_rate_history`: what was paid in an hour, at its end.
    fn item_funding(&mut self, frame: FrameRef<'_>, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.funding_rate.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event: Event<'_, Names> = Event { text: frame.payload, fields: &self.data };
        let event_time = event.time("timestamp")?;
        let rate = event.optional_rounded("interest_1h")?.ok_or_else(|| missing("interest_1h"))?;
        let listing = named(&topic_symbol(frame)?.to_uppercase(), &mut self.symbols)?;
        Ok(Figures::of_funding(events::rate_over(rate, 3_600)).push(VENUE, listing, event_time, frame, pass, records))
    }

    /// When the venue gave the answer.
    fn answered(&self, text: &[u8]) -> Result<Option<Micros>, Refusal> {
        let event: Event<'_, Envelope> = Event { text, fields: &self.frame };
        event.optional_time("usOut")
    }

    /// `status`: which indices, and all that stands on them, are locked.
    fn status(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let event_time = self.answered(frame.payload)?;
        let Some(builder) = &mut records.venue_status else { return Ok(Outcome::Ignored) };
        some_time(event_time, frame)?;
        let event = Event { text: frame.payload, fields: &self.data };
        let text = match event.get("locked") {
            Some(value) if value.token == Token::Text => value.of(frame.payload),
            _ if event.boolean("locked")? => b"true",
            _ => b"false",
        };
        let status = match text {
            b"true" => "locked",
            b"partial" => "partially locked",
            b"false" => "open",
            other => {
                let sent = String::from_utf8_lossy(other);
                return Err(refuse("wrong_type", format!("`locked` is \"{sent}\", where true, partial or false should be")));
            }
        };
        let message = event.get("locked_indices").filter(|list| list.token == Token::Array).map(|list| {
            let mut names = Vec::new();
            let walk = Scanner::at(frame.payload, list)
                .array(|s| s.value().map(|name| names.push(String::from_utf8_lossy(name.of(frame.payload)))));
            walk.map(|()| names.join(", ")).map_err(malformed)
        });
        let message = message.transpose()?.filter(|names| !names.is_empty());
        builder.push(VenueStatus {
            venue: VENUE,
            market: None,
            symbol: None,
            event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            status,
            message: message.as_deref(),
        });
        Ok(Outcome::Decoded)
    }

    /// `get_index_price`: of the index that the topic names, when the venue answered.
    fn index_price(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let answered = self.answered(frame.payload)?;
        if records.index_price.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event = Event { text: frame.payload, fields: &self.data };
        let price = events::figure(event, "index_price")?.filter(|price| *price > Decimal::ZERO).ok_or_else(|| missing("index_price"))?;
        let event_time = answered.or(frame.receive_time).ok_or_else(|| missing("usOut"))?;
        let name = topic_symbol(frame)?.to_lowercase();
        let listing = self.indices.find(name.as_bytes()).ok_or_else(|| events::unknown_index(&name))?;
        let figures = Figures { index: Some(price), ..Figures::default() };
        Ok(figures.push(VENUE, listing, event_time, frame, Pass::Push, records))
    }

    /// `get_volatility_index_data`: values `[begin, open, high, low, close]` of intervals, of which the last may not be over.
    fn volatility(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let text = frame.payload;
        let list = Event { text, fields: &self.data }.of_type("data", Token::Array, "a list")?;
        self.items.clear();
        self.gather(text, list)?;
        if self.items.first().is_none_or(|first| first.token != Token::Array) {
            // Nothing, or the objects of another answer.
            return Ok(Outcome::Ignored);
        }
        let now = self.answered(text)?.or(frame.receive_time);
        let Some(builder) = &mut records.volatility_index else { return Ok(Outcome::Ignored) };
        let asset = topic_symbol(frame)?.split('_').next().unwrap_or_default().to_uppercase();
        if !is_asset(&asset) {
            return Err(events::unknown_index(&asset));
        }
        let resolution = frame.topic.and_then(|topic| topic.split('@').nth(2)).and_then(seconds).ok_or_else(|| {
            refuse(
                "missing_field",
                "the answer does not say its resolution; name it behind the method, e.g. `BTC@get_volatility_index_data@60`",
            )
        })?;
        let mut candles = Vec::with_capacity(self.items.len());
        for item in &self.items {
            candles.push(candle(text, *item)?);
        }
        candles.sort_by_key(|candle| candle.0);
        let symbol = events::volatility_symbol(&asset);
        let mut outcome = Outcome::Ignored;
        for (begin, [open, high, low, close]) in candles {
            let event_time = begin.saturating_add(resolution * 1_000_000);
            if now.is_some_and(|now| now < event_time) {
                continue;
            }
            outcome = Outcome::Decoded;
            builder.push(VolatilityIndex {
                venue: VENUE,
                market: Market::Index.as_str(),
                symbol: &symbol,
                event_time,
                receive_time: frame.receive_time,
                frame: Some(frame.frame),
                open: Some(open),
                high: Some(high),
                low: Some(low),
                close,
            });
        }
        Ok(outcome)
    }
}

/// One interval: its begin, and the values at its begin, highest, lowest and at its end.
fn candle(text: &[u8], item: Value) -> Result<(Micros, [Decimal; 4]), Refusal> {
    let none = || refuse("wrong_type", format!("`data` holds {}, where [begin, open, high, low, close] should be", excerpt(text, item)));
    if item.token != Token::Array {
        return Err(none());
    }
    let mut parts = Vec::with_capacity(5);
    Scanner::at(text, item).array(|s| s.value().map(|part| parts.push(part))).map_err(malformed)?;
    let [begin, values @ ..] = parts.as_slice() else { return Err(none()) };
    let number = |value: &Value| matches!(value.token, Token::Integer | Token::Number);
    let values: [Value; 4] = values.try_into().map_err(|_| none())?;
    if begin.token != Token::Integer || !values.iter().all(number) {
        return Err(none());
    }
    let begin = digits::integer(text, *begin)
        .and_then(micros)
        .ok_or_else(|| refuse("bad_time", format!("{} is no time in milliseconds or microseconds since 1970", excerpt(text, *begin))))?;
    let mut read = [Decimal::ZERO; 4];
    for (value, read) in values.iter().zip(&mut read) {
        *read = decimal(text, "data", *value)?;
    }
    Ok((begin, read))
}
