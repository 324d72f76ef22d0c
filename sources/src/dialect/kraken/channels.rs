//! The second protocol of spot's WebSocket: `{"channel":…,"type":"snapshot" or "update","data":[…]}`, numbers bare.

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::kinds::{Trade, VenueStatus};
use model::time::Micros;

use super::VENUE;
use super::arrays::{delta, push_quote, snapshot};
use super::book::{Book, Which};
use super::prints::not_a_trade;
use super::symbols::Pairs;
use crate::dialect::fields::{Event, Fields, Refusal, excerpt, keys, malformed, refuse};
use crate::dialect::json::{Scanner, Token, Value};
use crate::dialect::reading::{Pass, find, some_time};
use crate::dialect::symbols::Symbols;

keys! {
    /// The members that matter of objects in the second protocol, and of what both protocols and REST send around data.
    Members quoted false:
    b"channel" b"type" b"data" b"method" b"success" b"event" b"status" b"error" b"Error" b"errorMessage" b"result" b"symbol"
    b"side" b"price" b"qty" b"trade_id" b"timestamp" b"bids" b"asks" b"checksum" b"bid" b"bid_qty" b"ask" b"ask_qty" b"system"
}

/// Depths that a book can be subscribed with.
const DEPTHS: [i64; 5] = [10, 25, 100, 500, 1000];

/// The depth of a book whose longer side has so many levels: the smallest that holds it, since the snapshot of a deeper
/// subscription would have had more of them. It is that of the subscription unless the pair has fewer orders than that.
fn depth(levels: usize) -> Option<i64> {
    let levels = i64::try_from(levels).ok()?;
    DEPTHS.into_iter().find(|depth| levels <= *depth)
}

/// The depth that was asked for: behind the symbol in a topic, `BTC/USD@book-1000`, as the first protocol calls its channels.
fn asked(topic: &str) -> Option<i64> {
    let (_, channel) = topic.split_once('@')?;
    channel.strip_prefix("book-")?.parse().ok().filter(|depth| *depth > 0)
}

/// The data of a message.
#[derive(Debug)]
pub(super) struct Channel<'a> {
    pub(super) frame: FrameRef<'a>,
    pub(super) fields: &'a mut Fields<Members>,
    pub(super) symbols: &'a mut Symbols<Pairs>,
    pub(super) book: &'a mut Book,
    pub(super) elements: &'a mut Vec<Value>,
}

impl Channel<'_> {
    /// Decodes each element of the data with this, all of them or none.
    pub(super) fn each(
        &mut self,
        data: Value,
        newest_first: bool,
        records: &mut Records,
        mut decode: impl FnMut(&mut Self, Pass, &mut Records) -> Result<Outcome, Refusal>,
    ) -> Result<Outcome, Refusal> {
        let text = self.frame.payload;
        let mut elements = std::mem::take(self.elements);
        elements.clear();
        let mut outcome =
            Scanner::at(text, data).array(|s| s.value().map(|e| elements.push(e))).map_err(malformed).map(|()| Outcome::Ignored);
        if newest_first {
            elements.reverse();
        }
        // One element is read whole before it is pushed.
        let passes: &[Pass] = if elements.len() == 1 { &[Pass::Push] } else { &[Pass::Check, Pass::Push] };
        for pass in passes {
            for element in &elements {
                if outcome.is_err() {
                    break;
                }
                match self.element(*element).and_then(|()| decode(self, *pass, records)) {
                    Ok(Outcome::Ignored) => {}
                    decoded => outcome = decoded,
                }
            }
        }
        *self.elements = elements;
        outcome
    }

    fn element(&mut self, element: Value) -> Result<(), Refusal> {
        if element.token != Token::Object {
            return Err(refuse("wrong_type", format!("`data` holds {}, where an object should be", excerpt(self.frame.payload, element))));
        }
        self.fields.inner(self.frame.payload, element).map_err(malformed)
    }

    fn event(&self) -> Event<'_, Members> {
        Event { text: self.frame.payload, fields: &*self.fields }
    }

    /// An element of `book`, of a snapshot or an update.
    #[inline]
    pub(super) fn book(&mut self, pass: Pass, whole: bool, records: &mut Records) -> Result<Outcome, Refusal> {
        let wanted = if whole { records.book_snapshot.is_some() } else { records.book_delta.is_some() };
        if !wanted {
            return Ok(Outcome::Ignored);
        }
        let event = Event { text: self.frame.payload, fields: &*self.fields };
        self.book.clear();
        for (name, which) in [("bids", Which::Bids), ("asks", Which::Asks)] {
            // A change may leave out a side; a snapshot that did would empty it.
            if whole || event.has(name) {
                self.book.read_objects(event, name, which)?;
            }
        }
        let checked = self.book.checked(checksum(event)?);
        if whole {
            let event_time = event.optional_timestamp("timestamp")?;
            some_time(event_time, self.frame)?;
            let listing = find(event, "symbol", self.symbols)?;
            if let (Pass::Push, Some(builder)) = (pass, &mut records.book_snapshot) {
                let depth = self.frame.topic.and_then(asked).or_else(|| depth(self.book.longest()));
                builder.push(snapshot(self.frame, listing, self.book, event_time, depth, checked));
            }
        } else {
            let event_time = event.timestamp("timestamp")?;
            let listing = find(event, "symbol", self.symbols)?;
            if let (Pass::Push, Some(builder)) = (pass, &mut records.book_delta) {
                builder.push(delta(self.frame, listing, self.book, event_time, checked));
            }
        }
        Ok(Outcome::Decoded)
    }

    /// An element of `trade`.
    #[inline]
    pub(super) fn trade(&mut self, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.trade else { return Ok(Outcome::Ignored) };
        let event = Event { text: self.frame.payload, fields: &*self.fields };
        let (price, quantity) = (event.decimal("price")?, event.decimal("qty")?);
        let (trade_id, event_time) = (event.identifier("trade_id")?, event.timestamp("timestamp")?);
        let side = side(event)?;
        if price == Decimal::ZERO || quantity == Decimal::ZERO {
            return Err(not_a_trade(price, quantity));
        }
        let listing = find(event, "symbol", self.symbols)?;
        if pass == Pass::Push {
            builder.push(Trade {
                venue: VENUE,
                market: listing.market.as_str(),
                symbol: &listing.symbol,
                event_time,
                receive_time: self.frame.receive_time,
                frame: Some(self.frame.frame),
                trade_id,
                price,
                quantity,
                contracts: None,
                side,
                fills: 1,
                backfilled: Some(false),
            });
        }
        Ok(Outcome::Decoded)
    }

    /// An element of `ticker`. Older messages have no time.
    #[inline]
    pub(super) fn ticker(&mut self, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.quote else { return Ok(Outcome::Ignored) };
        let event = Event { text: self.frame.payload, fields: &*self.fields };
        let event_time = event.optional_timestamp("timestamp")?;
        some_time(event_time, self.frame)?;
        let numbers = [event.decimal("bid")?, event.decimal("bid_qty")?, event.decimal("ask")?, event.decimal("ask_qty")?];
        let listing = find(event, "symbol", self.symbols)?;
        match pass {
            Pass::Check => Ok(Outcome::Decoded),
            Pass::Push => push_quote(builder, self.frame, listing, event_time, numbers),
        }
    }

    /// An element of `status`: the state of the trading engine.
    pub(super) fn status(&mut self, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.venue_status.is_none() {
            return Ok(Outcome::Ignored);
        }
        let status = self.event().text("system")?.to_lowercase();
        push_status(self.frame, &status, None, pass, records)
    }

    /// Whether the trades came newest first.
    pub(super) fn is_newest_first(&mut self, data: Value) -> Result<bool, Refusal> {
        let text = self.frame.payload;
        let (mut first, mut last) = (None, None);
        Scanner::at(text, data)
            .array(|s| {
                let element = s.value()?;
                first = first.or(Some(element));
                last = Some(element);
                Ok(())
            })
            .map_err(malformed)?;
        let (Some(first), Some(last)) = (first, last) else { return Ok(false) };
        if first.start == last.start {
            return Ok(false);
        }
        let mut key = |element: Value| -> Result<(Micros, i64), Refusal> {
            self.element(element)?;
            Ok((self.event().timestamp("timestamp")?, self.event().integer("trade_id")?))
        };
        Ok(key(first)? > key(last)?)
    }
}

/// The state of spot's trading engine.
pub(super) fn push_status(
    frame: FrameRef<'_>,
    status: &str,
    event_time: Option<Micros>,
    pass: Pass,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.venue_status else { return Ok(Outcome::Ignored) };
    some_time(event_time, frame)?;
    if pass == Pass::Push {
        builder.push(VenueStatus {
            venue: VENUE,
            market: Some("spot"),
            symbol: None,
            event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            status,
            message: None,
        });
    }
    Ok(Outcome::Decoded)
}

fn side(event: Event<'_, Members>) -> Result<&'static str, Refusal> {
    match event.characters("side")? {
        b"buy" => Ok("buy"),
        b"sell" => Ok("sell"),
        _ => Err(event.mistyped("side", event.of_type("side", Token::Text, "a text")?, "\"buy\" or \"sell\"")),
    }
}

/// The checksum of a book, a bare number.
fn checksum(event: Event<'_, Members>) -> Result<Option<i64>, Refusal> {
    let Some(value) = event.get("checksum") else { return Ok(None) };
    let sum = event.integer("checksum")?;
    if u32::try_from(sum).is_err() {
        return Err(event.bad("checksum", value, "is no checksum of 32 bits"));
    }
    Ok(Some(sum))
}

#[cfg(test)]
mod tests {
    use super::{asked, depth};

    #[test]
    fn a_topic_may_tell_the_depth() {
        for (topic, expected) in [
            ("BTC/USD@book-1000", Some(1_000)),
            ("BTC/USD@book-10", Some(10)),
            ("BTC/USD@book-0", None),
            ("BTC/USD@book", None),
            ("BTC/USD", None),
        ] {
            assert_eq!(asked(topic), expected, "{topic}");
        }
    }

    #[test]
    fn the_depth_is_the_smallest_that_holds_the_book() {
        for (levels, expected) in [(0, 10), (3, 10), (10, 10), (11, 25), (100, 100), (101, 500), (1_000, 1_000)] {
            assert_eq!(depth(levels), Some(expected), "{levels}");
        }
        assert_eq!(depth(1_001), None);
    }
}
