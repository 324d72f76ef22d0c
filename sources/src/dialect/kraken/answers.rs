//! Answers of spot's REST: `{"error":[],"result":{…}}`.
//!
//! An answer does not say what it is, but what it holds does: under the name of each pair there are levels (`Depth`), trades
//! (`Trades`), prices (`Ticker`) or what the pair is (`AssetPairs`).

use std::borrow::Cow;

use model::dialect::{FrameRef, Outcome, Records};

use super::arrays::{Members, push_quote, push_trades, snapshot, ticker_numbers};
use super::book::{Book, Which};
use super::channels::{self, push_status};
use super::prints::{Print, read};
use super::symbols::Pairs;
use super::{listing, unknown, venue_error};
use crate::dialect::fields::{Event, Fields, Refusal, excerpt, malformed};
use crate::dialect::json::{Scanner, Token, Value};
use crate::dialect::reading::{Pass, named, some_time};
use crate::dialect::symbols::Symbols;

/// An answer of REST.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub(super) frame: FrameRef<'a>,
    pub(super) fields: &'a mut Fields<Members>,
    pub(super) symbols: &'a mut Symbols<Pairs>,
    pub(super) book: &'a mut Book,
    pub(super) prints: &'a mut Vec<Print>,
}

impl Answer<'_> {
    pub(super) fn decode(mut self, answer: Event<'_, channels::Members>, records: &mut Records) -> Result<Outcome, Refusal> {
        let text = self.frame.payload;
        let mut complaints = 0;
        let errors = answer.of_type("error", Token::Array, "a list")?;
        Scanner::at(text, errors).array(|s| s.value().map(|_| complaints += 1)).map_err(malformed)?;
        if complaints > 0 {
            return Err(venue_error(text));
        }
        let result = answer.of_type("result", Token::Object, "an object")?;
        self.fields.inner(text, result).map_err(malformed)?;
        let event = Event { text, fields: &*self.fields };
        if event.has("unixtime") {
            return Ok(Outcome::Ignored);
        }
        if event.has("status") && event.has("timestamp") {
            let (status, event_time) = (event.text("status")?.to_lowercase(), event.optional_timestamp("timestamp")?);
            return push_status(self.frame, &status, event_time, Pass::Push, records);
        }
        let mut entries = Vec::new();
        let walk = Scanner::at(text, result).object(|s, key| {
            let value = s.value()?;
            // Beside the pair there may be where to go on from.
            if key != b"last" {
                entries.push((String::from_utf8_lossy(key), value));
            }
            Ok(())
        });
        walk.map_err(malformed)?;
        let Some((_, first)) = entries.first() else { return Ok(Outcome::Ignored) };
        match first.token {
            Token::Array => self.lists(&entries, records),
            Token::Object => {
                self.fields.inner(text, *first).map_err(malformed)?;
                let event = Event { text, fields: &*self.fields };
                let has = |name| event.has(name);
                if has("asks") && has("bids") {
                    self.each(&entries, records, Self::depth)
                } else if has("a") && has("b") && has("c") {
                    self.each(&entries, records, Self::ticker)
                } else if has("aclass_base") || has("pair_decimals") || has("wsname") {
                    listing::push_pairs(self.frame, result, records)
                } else if has("aclass") {
                    Ok(Outcome::Ignored)
                } else {
                    Err(unknown("an answer whose entries are none that we know"))
                }
            }
            _ => Err(unknown(format!("an answer that holds {}", excerpt(text, *first)))),
        }
    }

    /// Decodes each entry, all of them or none.
    fn each(
        &mut self,
        entries: &[(Cow<'_, str>, Value)],
        records: &mut Records,
        decode: fn(&mut Self, &str, Pass, &mut Records) -> Result<Outcome, Refusal>,
    ) -> Result<Outcome, Refusal> {
        let mut outcome = Outcome::Ignored;
        for pass in [Pass::Check, Pass::Push] {
            for (pair, value) in entries {
                if value.token != Token::Object {
                    return Err(unknown(format!("an answer that holds {}", excerpt(self.frame.payload, *value))));
                }
                self.fields.inner(self.frame.payload, *value).map_err(malformed)?;
                if decode(self, pair, pass, records)? == Outcome::Decoded {
                    outcome = Outcome::Decoded;
                }
            }
        }
        Ok(outcome)
    }

    /// `Depth`: the best levels, each with the second in which it was changed last. Its sizes have fewer digits than those of
    /// WebSocket, so no checksum goes with them.
    fn depth(&mut self, pair: &str, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.book_snapshot else { return Ok(Outcome::Ignored) };
        let event = Event { text: self.frame.payload, fields: &*self.fields };
        self.book.clear();
        self.book.read_arrays(event, "bids", Which::Bids)?;
        self.book.read_arrays(event, "asks", Which::Asks)?;
        let event_time = self.book.time;
        some_time(event_time, self.frame)?;
        let listing = named(pair, self.symbols)?;
        if pass == Pass::Push {
            let digits = super::book::Checked { checksum: None, price_digits: None, quantity_digits: None };
            builder.push(snapshot(self.frame, listing, self.book, event_time, None, digits));
        }
        Ok(Outcome::Decoded)
    }

    /// `Ticker`: best bid and ask, without time.
    fn ticker(&mut self, pair: &str, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.quote else { return Ok(Outcome::Ignored) };
        some_time(None, self.frame)?;
        let numbers = ticker_numbers(Event { text: self.frame.payload, fields: &*self.fields })?;
        let listing = named(pair, self.symbols)?;
        match pass {
            Pass::Check => Ok(Outcome::Decoded),
            Pass::Push => push_quote(builder, self.frame, listing, None, numbers),
        }
    }

    /// Entries that are lists: `Trades`, whose elements begin with a price in quotes, or `OHLC` and `Spread`, whose elements
    /// begin with a time.
    fn lists(self, entries: &[(Cow<'_, str>, Value)], records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.trade else { return Ok(Outcome::Ignored) };
        let [(pair, list)] = entries else { return Err(unknown("an answer with lists of several pairs")) };
        let text = self.frame.payload;
        let mut timed = false;
        let walk = Scanner::at(text, *list).array(|s| {
            if s.peek() != Some(b'[') {
                return s.value().map(drop);
            }
            let mut first = true;
            s.array(|s| {
                let value = s.value()?;
                timed |= std::mem::take(&mut first) && value.token == Token::Integer;
                Ok(())
            })
        });
        walk.map_err(malformed)?;
        if timed {
            return Ok(Outcome::Ignored);
        }
        read(text, *list, self.prints)?;
        let listing = named(pair, self.symbols)?;
        Ok(push_trades(builder, self.frame, listing, self.prints, true))
    }
}
