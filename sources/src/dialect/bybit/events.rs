//! What each frame becomes.
//!
//! Every method reads all it needs before it pushes the first row, so a refusal leaves nothing behind.
//! A frame of a kind that nobody wants is not read beyond its name.

use std::borrow::Cow;

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::{Listing, Market};
use model::kinds::{BookDelta, Liquidation, LongShortRatio, Quote, Trade, VenueStatus};
use model::time::Micros;

use super::fields::{Envelope, Members};
use super::symbols::Category;
use crate::dialect::fields::{Event, Refusal, missing, refuse};
use crate::dialect::figures::{Figures, Funding, OpenAmounts};
use crate::dialect::json::{Scanner, Token};
use crate::dialect::reading::{Levels, Pass, Side, best, find, in_base, some_time};
use crate::dialect::symbols::Symbols;

/// The venue in every record.
pub(super) const VENUE: &str = "bybit";

/// An event being read.
pub(super) struct Reading<'a> {
    pub(super) category: Category,
    /// The envelope.
    pub(super) outer: Event<'a, Envelope>,
    /// What is read: the object in the envelope, or an element of the list in it.
    pub(super) event: Event<'a, Members>,
    /// The object in the envelope.
    pub(super) result: Event<'a, Members>,
    pub(super) frame: FrameRef<'a>,
    pub(super) pass: Pass,
    pub(super) symbols: &'a mut Symbols<Category>,
    pub(super) levels: &'a mut Levels,
}

/// One execution as it is read.
struct Execution<'a> {
    trade_id: Cow<'a, str>,
    event_time: Micros,
    price: Decimal,
    size: Decimal,
    side: &'static str,
    symbol: &'static str,
    backfilled: bool,
}

/// Figures of a ticker, as far as the frame says them.
struct Ticker {
    mark: Option<Decimal>,
    settlement_price: Option<Decimal>,
    index: Option<Decimal>,
    rate: Option<Decimal>,
    next_funding_time: Option<Micros>,
    interval_seconds: Option<i64>,
    open: Option<Decimal>,
    value: Option<Decimal>,
    quote: Option<[Decimal; 4]>,
}

impl<'a> Reading<'a> {
    /// `publicTrade`: one execution.
    #[inline]
    pub(super) fn trade(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.trade.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event = self.event;
        let execution = Execution {
            trade_id: event.text("i")?,
            event_time: event.time("T")?,
            price: event.decimal("p")?,
            size: event.decimal("v")?,
            side: side(event, "S")?,
            symbol: "s",
            backfilled: false,
        };
        self.push_trade(&execution, records)
    }

    /// REST `recent-trade`.
    pub(super) fn answered_trade(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.trade.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event = self.event;
        let execution = Execution {
            trade_id: event.text("execId")?,
            event_time: event.quoted_time("time")?,
            price: event.decimal("price")?,
            size: event.decimal("size")?,
            side: side(event, "side")?,
            symbol: "symbol",
            backfilled: true,
        };
        self.push_trade(&execution, records)
    }

    #[inline]
    fn push_trade(self, execution: &Execution<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.trade else { return Ok(Outcome::Ignored) };
        let Execution { trade_id, event_time, price, size, side, symbol, backfilled } = execution;
        if *price == Decimal::ZERO || *size == Decimal::ZERO {
            return Err(refuse("not_a_trade", format!("the price is {price} and the size is {size}; neither may be zero")));
        }
        let listing = find(self.event, symbol, self.symbols)?;
        let (quantity, contracts) = in_base(listing.contract, *size, *price)?;
        if self.pass == Pass::Push {
            builder.push(Trade {
                venue: VENUE,
                market: listing.market.as_str(),
                symbol: &listing.symbol,
                event_time: *event_time,
                receive_time: self.frame.receive_time,
                frame: Some(self.frame.frame),
                trade_id,
                price: *price,
                quantity,
                contracts,
                side,
                fills: 1,
                backfilled: Some(*backfilled),
            });
        }
        Ok(Outcome::Decoded)
    }

    /// `orderbook.1`: the best bid and ask.
    #[inline]
    pub(super) fn quote(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.quote else { return Ok(Outcome::Ignored) };
        if !self.is_whole()? {
            // Of the sides that it leaves out nothing is known.
            return Err(refuse("unknown_event", "a change of the best bid and ask, which Bybit only sends whole"));
        }
        let event_time = self.engine_time()?;
        self.levels.bids.read(event, "b")?;
        self.levels.asks.read(event, "a")?;
        let listing = find(event, "s", self.symbols)?;
        let (bid_price, bid_quantity) = first(listing, &self.levels.bids)?;
        let (ask_price, ask_quantity) = first(listing, &self.levels.asks)?;
        if self.pass == Pass::Push {
            builder.push(Quote {
                venue: VENUE,
                market: listing.market.as_str(),
                symbol: &listing.symbol,
                event_time: Some(event_time),
                receive_time: frame.receive_time,
                frame: Some(frame.frame),
                // Every depth counts its own updates: this number is not comparable with that of a book.
                sequence: None,
                bid_price,
                bid_quantity,
                ask_price,
                ask_quantity,
            });
        }
        Ok(Outcome::Decoded)
    }

    /// `orderbook` of more than one level: the whole book, or what changed.
    #[inline]
    pub(super) fn book(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if !self.is_whole()? {
            return self.delta(records);
        }
        if records.book_snapshot.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event_time = self.engine_time()?;
        self.push_snapshot(event_time, records)
    }

    #[inline]
    fn delta(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.book_delta else { return Ok(Outcome::Ignored) };
        let sequence = Some(event.integer("u")?);
        let event_time = self.engine_time()?;
        self.levels.bids.read(event, "b")?;
        self.levels.asks.read(event, "a")?;
        let listing = find(event, "s", self.symbols)?;
        if self.pass == Pass::Push {
            builder.push(BookDelta {
                first_sequence: sequence,
                last_sequence: sequence,
                ..self.levels.delta(VENUE, listing, frame, event_time)
            });
        }
        Ok(Outcome::Decoded)
    }

    /// REST `orderbook`.
    pub(super) fn snapshot(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = self.event;
        if records.book_snapshot.is_none() || has_three(event, "b") || has_three(event, "a") {
            // Levels of three parts are of the book with retail price improvement, which is another book.
            return Ok(Outcome::Ignored);
        }
        let event_time = event.time(if event.get("cts").is_some() { "cts" } else { "ts" })?;
        self.push_snapshot(event_time, records)
    }

    fn push_snapshot(self, event_time: Micros, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.book_snapshot else { return Ok(Outcome::Ignored) };
        let sequence = event.integer("u")?;
        self.levels.bids.read(event, "b")?;
        self.levels.asks.read(event, "a")?;
        let listing = find(event, "s", self.symbols)?;
        if self.pass == Pass::Push {
            builder.push(self.levels.snapshot(VENUE, listing, frame, Some(event_time), Some(sequence)));
        }
        Ok(Outcome::Decoded)
    }

    /// `tickers`: whole, or what changed.
    pub(super) fn pushed_ticker(self, records: &mut Records) -> Result<Outcome, Refusal> {
        self.ticker("ts", records)
    }

    /// REST `tickers`: they stand for the time of the answer.
    pub(super) fn answered_ticker(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if self.category == Category::Spot {
            return Ok(Outcome::Ignored);
        }
        self.ticker("time", records)
    }

    /// Mark price, index price, funding rate and open interest, and of options the best bid and ask: as far as the frame
    /// itself says them and they are wanted.
    fn ticker(self, time: &'static str, records: &mut Records) -> Result<Outcome, Refusal> {
        let (frame, options) = (self.frame, self.category == Category::Option);
        let wanted = Figures::wanted(records) || (options && records.quote.is_some());
        if !wanted {
            return Ok(Outcome::Ignored);
        }
        let event_time = self.outer.time(time)?;
        let ticker = Ticker::read(self.event, options)?;
        let listing = find(self.event, "symbol", self.symbols)?;
        let open_interest = ticker.open.map(|size| outstanding(listing, size, ticker.value)).transpose()?;
        let quote = match ticker.quote {
            Some([bid, bid_size, ask, ask_size]) => Some((best(listing, bid, bid_size)?, best(listing, ask, ask_size)?)),
            None => None,
        };
        let funding = ticker.rate.map(|rate| Funding {
            rate,
            predicted_rate: None,
            interval_seconds: ticker.interval_seconds,
            next_funding_time: ticker.next_funding_time,
        });
        let (mark, settlement, index) = (ticker.mark, ticker.settlement_price, ticker.index);
        let figures = Figures { mark, settlement, index, funding, open_interest };
        let mut outcome = figures.push(VENUE, listing, event_time, frame, self.pass, records);
        if let (Some(builder), Some(((bid_price, bid_quantity), (ask_price, ask_quantity)))) = (&mut records.quote, quote) {
            outcome = Outcome::Decoded;
            if self.pass == Pass::Push {
                builder.push(Quote {
                    venue: VENUE,
                    market: listing.market.as_str(),
                    symbol: &listing.symbol,
                    event_time: Some(event_time),
                    receive_time: frame.receive_time,
                    frame: Some(frame.frame),
                    sequence: None,
                    bid_price,
                    bid_quantity,
                    ask_price,
                    ask_quantity,
                });
            }
        }
        Ok(outcome)
    }

    /// `allLiquidation`: a position that was closed by force.
    pub(super) fn liquidation(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.liquidation.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event = self.event;
        let (side, event_time) = (side(event, "S")?, event.time("T")?);
        let (price, size) = (event.decimal("p")?, event.decimal("v")?);
        self.push_liquidation(side, event_time, price, size, "s", records)
    }

    /// `liquidation`, which Bybit has given up: at most one a second.
    pub(super) fn old_liquidation(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.liquidation.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event = self.event;
        let (side, event_time) = (side(event, "side")?, event.time("updatedTime")?);
        let (price, size) = (event.decimal("price")?, event.decimal("size")?);
        self.push_liquidation(side, event_time, price, size, "symbol", records)
    }

    fn push_liquidation(
        self,
        position: &'static str,
        event_time: Micros,
        price: Decimal,
        size: Decimal,
        symbol: &'static str,
        records: &mut Records,
    ) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.liquidation else { return Ok(Outcome::Ignored) };
        // Bybit says the side of the position; the order that closes it is on the other.
        let side = if position == "buy" { "sell" } else { "buy" };
        let listing = find(self.event, symbol, self.symbols)?;
        let (quantity, contracts) = in_base(listing.contract, size, price)?;
        if self.pass == Pass::Push {
            builder.push(Liquidation {
                venue: VENUE,
                market: listing.market.as_str(),
                symbol: &listing.symbol,
                event_time,
                receive_time: self.frame.receive_time,
                frame: Some(self.frame.frame),
                liquidation_id: None,
                side,
                price,
                average_price: None,
                quantity,
                filled_quantity: Some(quantity),
                contracts,
                status: None,
            });
        }
        Ok(Outcome::Decoded)
    }

    /// REST `funding/history`: a rate that was paid.
    pub(super) fn funding_history(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.funding_rate.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event = self.event;
        let event_time = event.quoted_time("fundingRateTimestamp")?;
        let rate = event.optional_rounded("fundingRate")?.ok_or_else(|| missing("fundingRate"))?;
        let listing = find(event, "symbol", self.symbols)?;
        let figures = Figures::of_funding(Funding::paid_at(rate, Some(event_time)));
        Ok(figures.push(VENUE, listing, event_time, self.frame, self.pass, records))
    }

    /// REST `open-interest`.
    pub(super) fn open_interest_history(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.open_interest.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event = self.event;
        let event_time = event.quoted_time("timestamp")?;
        let size = one_side(event, "singleOpenInterest", "openInterest")?.ok_or_else(|| missing("openInterest"))?;
        let listing = find(self.result, "symbol", self.symbols)?;
        let figures = Figures { open_interest: Some(outstanding(listing, size, None)?), ..Figures::default() };
        Ok(figures.push(VENUE, listing, event_time, self.frame, self.pass, records))
    }

    /// REST `account-ratio`: the shares of accounts that are long and short.
    pub(super) fn long_short_ratio(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.long_short_ratio else { return Ok(Outcome::Ignored) };
        let event_time = event.quoted_time("timestamp")?;
        let (long, short) = (event.decimal("buyRatio")?, event.decimal("sellRatio")?);
        let Some(ratio) = long.div_rounded(short) else {
            return Err(refuse("bad_number", format!("`buyRatio` is {long} and `sellRatio` {short}, which have no ratio")));
        };
        let listing = find(event, "symbol", self.symbols)?;
        // The topic is `SYMBOL@account-ratio@PERIOD`.
        let asked = frame.topic.and_then(|topic| topic.split_once("@account-ratio@"));
        let period_seconds = asked.and_then(|(_, period)| seconds(period)).ok_or_else(|| {
            let detail =
                "the answer does not say its period; give the source what was asked for as `symbol`, e.g. `BTCUSDT@account-ratio@5min`";
            refuse("missing_field", detail)
        })?;
        if self.pass == Pass::Push {
            builder.push(LongShortRatio {
                venue: VENUE,
                market: listing.market.as_str(),
                symbol: &listing.symbol,
                event_time,
                receive_time: frame.receive_time,
                frame: Some(frame.frame),
                basis: "account",
                population: "all",
                period_seconds,
                ratio,
                long_share: Some(long),
                short_share: Some(short),
            });
        }
        Ok(Outcome::Decoded)
    }

    /// `system.status` and REST `system/status`: maintenance of the venue.
    pub(super) fn status(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.venue_status else { return Ok(Outcome::Ignored) };
        let status = event.text("state")?.to_lowercase();
        // While it goes on its end is an estimate, and before it begins so is its beginning.
        let event_time = match status.as_str() {
            "ongoing" => event.optional_quoted_time("begin")?,
            "completed" => event.optional_quoted_time("end")?,
            _ => self.outer.optional_time("ts")?,
        };
        some_time(event_time, frame)?;
        let title = event.get("title").map(|_| event.text("title")).transpose()?.filter(|title| !title.is_empty());
        if self.pass == Pass::Push {
            builder.push(VenueStatus {
                venue: VENUE,
                market: None,
                symbol: None,
                event_time,
                receive_time: frame.receive_time,
                frame: Some(frame.frame),
                status: &status,
                message: title.as_deref(),
            });
        }
        Ok(Outcome::Decoded)
    }

    /// Whether a frame is whole or says what changed.
    #[inline]
    fn is_whole(&self) -> Result<bool, Refusal> {
        let kind = self.outer.of_type("type", Token::Text, "a text")?;
        match kind.of(self.outer.text) {
            b"snapshot" => Ok(true),
            b"delta" => Ok(false),
            _ => Err(self.outer.mistyped("type", kind, "snapshot or delta")),
        }
    }

    /// The matching engine's time; that of the message where there is none.
    #[inline]
    fn engine_time(&self) -> Result<Micros, Refusal> {
        self.outer.time(if self.outer.get("cts").is_some() { "cts" } else { "ts" })
    }
}

impl Ticker {
    fn read(event: Event<'_, Members>, options: bool) -> Result<Self, Refusal> {
        let hours = event.get("fundingIntervalHour").map(|_| event.quoted_integer("fundingIntervalHour")).transpose()?;
        // Of an option only one figure is sent, and nothing says that it counts both sides.
        let (open, value) = if options {
            (positive_or_zero(event, "openInterest")?, positive_or_zero(event, "openInterestValue")?)
        } else {
            let value = one_side(event, "singleOpenInterestValue", "openInterestValue")?;
            (one_side(event, "singleOpenInterest", "openInterest")?, value)
        };
        let names = [["bidPrice", "bidSize", "askPrice", "askSize"], ["bid1Price", "bid1Size", "ask1Price", "ask1Size"]];
        let names = names.into_iter().find(|names| options && names.iter().all(|name| event.get(name).is_some()));
        let quote = match names {
            Some([bid, bid_size, ask, ask_size]) => {
                Some([level(event, bid)?, level(event, bid_size)?, level(event, ask)?, level(event, ask_size)?])
            }
            None => None,
        };
        Ok(Ticker {
            mark: worked_out(event, "markPrice")?,
            settlement_price: worked_out(event, "predictedDeliveryPrice")?,
            index: worked_out(event, "indexPrice")?,
            rate: event.optional_rounded("fundingRate")?,
            next_funding_time: event.optional_quoted_time("nextFundingTime")?,
            interval_seconds: hours.filter(|hours| *hours > 0).and_then(|hours| hours.checked_mul(3_600)),
            open,
            value,
            quote,
        })
    }
}

/// A side as Bybit writes it.
#[inline]
fn side(event: Event<'_, Members>, name: &'static str) -> Result<&'static str, Refusal> {
    let value = event.of_type(name, Token::Text, "a text")?;
    match value.of(event.text) {
        b"Buy" => Ok("buy"),
        b"Sell" => Ok("sell"),
        _ => Err(event.mistyped(name, value, "Buy or Sell")),
    }
}

/// The best level of a side that is read.
#[inline]
fn first(listing: &Listing, side: &Side) -> Result<(Option<Decimal>, Option<Decimal>), Refusal> {
    match (side.prices.first(), side.quantities.first()) {
        (Some(price), Some(size)) => best(listing, *price, *size),
        _ => Ok((None, None)),
    }
}

/// A price or size of a ticker; an empty text means that there is none, as zero does.
fn level(event: Event<'_, Members>, name: &'static str) -> Result<Decimal, Refusal> {
    Ok(event.positive(name)?.unwrap_or(Decimal::ZERO))
}

/// A figure that the venue worked out and that is not negative.
fn positive_or_zero(event: Event<'_, Members>, name: &'static str) -> Result<Option<Decimal>, Refusal> {
    match event.optional_rounded(name)? {
        Some(number) if number < Decimal::ZERO => {
            Err(event.get(name).map_or_else(|| missing(name), |value| event.bad(name, value, "is negative")))
        }
        number => Ok(number),
    }
}

/// A price that the venue worked out; zero means that there is none.
fn worked_out(event: Event<'_, Members>, name: &'static str) -> Result<Option<Decimal>, Refusal> {
    Ok(positive_or_zero(event, name)?.filter(|price| *price > Decimal::ZERO))
}

/// Open interest of one side: Bybit's headline figure adds the longs to the shorts, so half of it where Bybit does not send
/// that of one side too.
fn one_side(event: Event<'_, Members>, single: &'static str, both: &'static str) -> Result<Option<Decimal>, Refusal> {
    let (single, both) = (positive_or_zero(event, single)?, positive_or_zero(event, both)?);
    Ok(single.or_else(|| both.and_then(|both| both.div_rounded(Decimal::from_integer(2)))))
}

/// Open interest, whose value is in the asset that it is settled in.
fn outstanding(listing: &Listing, size: Decimal, value: Option<Decimal>) -> Result<OpenAmounts, Refusal> {
    let Some(contract) = listing.contract else { return Ok([None, Some(size), value]) };
    match size.mul_rounded(contract.size) {
        Some(quote) => Ok([Some(size), value, Some(quote)]),
        None => Err(refuse("overflow", format!("{size} contracts are no size in the quote asset"))),
    }
}

/// Whether a level of a side has three parts.
fn has_three(event: Event<'_, Members>, name: &'static str) -> bool {
    let mut three = false;
    if let Some(levels) = event.get(name).filter(|levels| levels.token == Token::Array) {
        let walk = Scanner::at(event.text, levels).array(|s| {
            let mut parts = 0;
            match s.peek() {
                Some(b'[') => s.array(|s| s.value().map(|_| parts += 1))?,
                _ => s.value().map(drop)?,
            }
            three |= parts > 2;
            Ok(())
        });
        debug_assert!(walk.is_ok(), "the levels were scanned before");
    }
    three
}

/// A period of ratios in seconds, as Bybit writes it.
fn seconds(period: &str) -> Option<i64> {
    Some(match period {
        "5min" => 300,
        "15min" => 900,
        "30min" => 1_800,
        "1h" => 3_600,
        "4h" => 14_400,
        "1d" => 86_400,
        _ => return None,
    })
}

/// Whether this is the market of an expiring instrument.
pub(super) fn expires(market: Market) -> bool {
    matches!(market, Market::Future | Market::Option)
}
