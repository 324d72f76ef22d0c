//! What each event becomes.
//!
//! Every method reads all it needs before it pushes the first row, so a refusal leaves nothing behind.
//! An event of a kind that nobody wants is not read beyond its name.

use std::borrow::Cow;

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::kinds::{BookDelta, Liquidation, Quote, Trade, VenueStatus};
use model::time::Micros;

use super::answers::topic_symbol;
use super::fields::Letters;
use super::symbols::Exchange;
use crate::dialect::fields::{Event, Refusal, missing, refuse};
use crate::dialect::figures::{Figures, Funding};
use crate::dialect::reading::{Levels, Pass, best, find, in_base, named, some_time};
use crate::dialect::symbols::Symbols;

/// The venue in every record.
pub(super) const VENUE: &str = "binance";

/// An event being read.
pub(super) struct Reading<'a> {
    pub(super) event: Event<'a, Letters>,
    pub(super) frame: FrameRef<'a>,
    pub(super) pass: Pass,
    pub(super) symbols: &'a mut Symbols<Exchange>,
    pub(super) levels: &'a mut Levels,
}

impl<'a> Reading<'a> {
    /// `trade`: one execution.
    #[inline]
    pub(super) fn trade(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame, pass) = (self.event, self.frame, self.pass);
        let Some(builder) = &mut records.trade else { return Ok(Outcome::Ignored) };
        // Futures streams also tell of transfers that met no order of the book: with the insurance fund, by
        // automatic deleveraging, or of nothing at all (`NA`, price and size zero). Of options, a trade that was negotiated is one.
        if event.has("X") && !matches!(event.characters("X")?, b"MARKET" | b"BLOCK") {
            return Ok(Outcome::Ignored);
        }
        let trade_id = event.identifier("t")?;
        self.push_trade(builder, event, frame, pass, trade_id, 1)
    }

    /// `aggTrade`: the fills of one taker order at one price.
    pub(super) fn aggregate_trade(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame, pass) = (self.event, self.frame, self.pass);
        let Some(builder) = &mut records.trade else { return Ok(Outcome::Ignored) };
        let trade_id = event.identifier("a")?;
        let (first, last) = (event.integer("f")?, event.integer("l")?);
        let Some(fills) = last.checked_sub(first).and_then(|n| n.checked_add(1)).filter(|n| *n > 0) else {
            return Err(refuse("bad_number", format!("the last trade `l` is {last}, before the first `f`, {first}")));
        };
        self.push_trade(builder, event, frame, pass, trade_id, fills)
    }

    #[inline]
    fn push_trade(
        self,
        builder: &mut model::kinds::TradeBuilder,
        event: Event<'_, Letters>,
        frame: FrameRef<'_>,
        pass: Pass,
        trade_id: &str,
        fills: i64,
    ) -> Result<Outcome, Refusal> {
        let (price, size) = (event.decimal("p")?, event.decimal("q")?);
        let event_time = event.time("T")?;
        let side = if event.boolean("m")? { "sell" } else { "buy" };
        if price == Decimal::ZERO || size == Decimal::ZERO {
            return Err(refuse("not_a_trade", format!("price `p` is {price} and size `q` is {size}; neither may be zero")));
        }
        let listing = find(event, "s", self.symbols)?;
        let (quantity, contracts) = in_base(listing.contract, size, price)?;
        if pass == Pass::Push {
            builder.push(Trade {
                venue: VENUE,
                market: listing.market.as_str(),
                symbol: &listing.symbol,
                event_time,
                receive_time: frame.receive_time,
                frame: Some(frame.frame),
                trade_id,
                price,
                quantity,
                contracts,
                side,
                fills,
                backfilled: Some(false),
            });
        }
        Ok(Outcome::Decoded)
    }

    /// `depthUpdate`: new sizes at some prices; of a stream of the best levels only, those levels.
    pub(super) fn depth(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        match channel(event)? {
            // The book with retail price improvement is another book.
            Some(name) if name.starts_with(b"rpiDepth") => return Ok(Outcome::Ignored),
            Some(name) if name.strip_prefix(b"depth").and_then(|rest| rest.first()).is_some_and(u8::is_ascii_digit) => {
                return self.push_snapshot(records, "u", "b", "a");
            }
            _ => {}
        }
        let Some(builder) = &mut records.book_delta else { return Ok(Outcome::Ignored) };
        let (first_sequence, last_sequence) = (event.integer("U")?, event.integer("u")?);
        let previous_sequence = event.get("pu").map(|_| event.integer("pu")).transpose()?;
        let event_time = event.time(if event.has("T") { "T" } else { "E" })?;
        self.levels.bids.read(event, "b")?;
        self.levels.asks.read(event, "a")?;
        let listing = find(event, "s", self.symbols)?;
        if self.pass == Pass::Push {
            builder.push(BookDelta {
                first_sequence: Some(first_sequence),
                last_sequence: Some(last_sequence),
                previous_sequence,
                ..self.levels.delta(VENUE, listing, frame, event_time)
            });
        }
        Ok(Outcome::Decoded)
    }

    /// The REST answer `depth`, and what spot streams of the best levels send.
    pub(super) fn snapshot(self, records: &mut Records) -> Result<Outcome, Refusal> {
        self.push_snapshot(records, "lastUpdateId", "bids", "asks")
    }

    fn push_snapshot(
        self,
        records: &mut Records,
        sequence: &'static str,
        bids: &'static str,
        asks: &'static str,
    ) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.book_snapshot else { return Ok(Outcome::Ignored) };
        let sequence = event.integer(sequence)?;
        let event_time = venue_time(event)?;
        some_time(event_time, frame)?;
        self.levels.bids.read(event, bids)?;
        self.levels.asks.read(event, asks)?;
        let symbol = snapshot_symbol(event, frame)?;
        let listing = named(&symbol, self.symbols)?;
        if self.pass == Pass::Push {
            builder.push(self.levels.snapshot(VENUE, listing, frame, event_time, Some(sequence)));
        }
        Ok(Outcome::Decoded)
    }

    /// `bookTicker`: the best bid and ask.
    #[inline]
    pub(super) fn quote(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.quote else { return Ok(Outcome::Ignored) };
        let sequence = event.integer("u")?;
        let event_time = venue_time(event)?;
        some_time(event_time, frame)?;
        let (bid_price, bid_size) = (event.decimal("b")?, event.decimal("B")?);
        let (ask_price, ask_size) = (event.decimal("a")?, event.decimal("A")?);
        let listing = find(event, "s", self.symbols)?;
        let (bid_price, bid_quantity) = best(listing, bid_price, bid_size)?;
        let (ask_price, ask_quantity) = best(listing, ask_price, ask_size)?;
        if self.pass == Pass::Push {
            builder.push(Quote {
                venue: VENUE,
                market: listing.market.as_str(),
                symbol: &listing.symbol,
                event_time,
                receive_time: frame.receive_time,
                frame: Some(frame.frame),
                sequence: Some(sequence),
                bid_price,
                bid_quantity,
                ask_price,
                ask_quantity,
            });
        }
        Ok(Outcome::Decoded)
    }

    /// `markPriceUpdate`: mark price, index price and funding rate, as far as they are sent and wanted.
    pub(super) fn mark_price(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        if records.mark_price.is_none() && records.index_price.is_none() && records.funding_rate.is_none() {
            return Ok(Outcome::Ignored);
        }
        if !event.has("p") {
            return Err(missing("p"));
        }
        let event_time = event.time("E")?;
        let (mark, settlement, index) = (event.positive("p")?, event.positive("P")?, event.positive("i")?);
        let (rate, next_funding_time) = (event.optional_decimal("r")?, event.optional_time("T")?);
        let listing = find(event, "s", self.symbols)?;
        let funding = rate.map(|rate| Funding::paid_at(rate, next_funding_time));
        let figures = Figures { mark, settlement, index, funding, open_interest: None };
        Ok(figures.push(VENUE, listing, event_time, frame, self.pass, records))
    }

    /// `contractInfo`, of options `optionSymbol`: an instrument is listed, delivered or delisted.
    pub(super) fn status(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.venue_status else { return Ok(Outcome::Ignored) };
        let event_time = event.time("E")?;
        let status = event.text("cs")?.to_lowercase();
        let listing = find(event, "s", self.symbols)?;
        if self.pass == Pass::Push {
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
        }
        Ok(Outcome::Decoded)
    }

    /// `forceOrder`: a liquidation order; the event is the order inside.
    pub(super) fn liquidation(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.liquidation else { return Ok(Outcome::Ignored) };
        let side = match event.characters("S")? {
            b"BUY" => "buy",
            b"SELL" => "sell",
            other => {
                return Err(refuse("wrong_type", format!("`S` is \"{}\", where BUY or SELL should be", String::from_utf8_lossy(other))));
            }
        };
        let (price, size) = (event.decimal("p")?, event.decimal("q")?);
        let (average_price, filled) = (event.positive("ap")?, event.optional_decimal("z")?);
        let event_time = event.time("T")?;
        let status = event.get("X").map(|_| event.characters("X")).transpose()?.map(|s| String::from_utf8_lossy(s).to_lowercase());
        let listing = find(event, "s", self.symbols)?;
        // What was filled was filled at the mean price; that of the order is where it goes bankrupt.
        let at = average_price.unwrap_or(price);
        let (quantity, contracts) = in_base(listing.contract, size, at)?;
        let filled_quantity = filled.map(|filled| in_base(listing.contract, filled, at).map(|(quantity, _)| quantity)).transpose()?;
        if self.pass == Pass::Push {
            builder.push(Liquidation {
                venue: VENUE,
                market: listing.market.as_str(),
                symbol: &listing.symbol,
                event_time,
                receive_time: frame.receive_time,
                frame: Some(frame.frame),
                liquidation_id: None,
                side,
                price,
                average_price,
                quantity,
                filled_quantity,
                contracts,
                status: status.as_deref(),
            });
        }
        Ok(Outcome::Decoded)
    }
}

/// The channel of the envelope's stream: what follows the symbol and `@`.
fn channel(event: Event<'_, Letters>) -> Result<Option<&[u8]>, Refusal> {
    if !event.has("stream") {
        return Ok(None);
    }
    let stream = event.characters("stream")?;
    Ok(memchr::memchr(b'@', stream).map(|at| &stream[at + 1..]))
}

/// The symbol of a snapshot, in capitals: its own, its stream's, or the one that it was asked for.
fn snapshot_symbol<'a>(event: Event<'a, Letters>, frame: FrameRef<'a>) -> Result<Cow<'a, str>, Refusal> {
    if event.has("symbol") {
        return event.text("symbol");
    }
    if event.has("s") {
        return event.text("s");
    }
    if event.has("stream") {
        let stream = event.text("stream")?;
        if let Some((symbol, _)) = stream.split_once('@') {
            return Ok(symbol.to_uppercase().into());
        }
    }
    let asked = frame.topic.map(|topic| topic_symbol(topic).to_uppercase().into());
    asked.ok_or_else(|| refuse("missing_field", "the snapshot names no symbol; give the source the venue's symbol as `symbol`"))
}

/// The venue's time: of the matching engine, or else of the message.
fn venue_time(event: Event<'_, Letters>) -> Result<Option<Micros>, Refusal> {
    ["T", "E"].into_iter().find(|name| event.has(name)).map(|name| event.time(name)).transpose()
}
