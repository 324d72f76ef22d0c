//! What trades, books, tickers, figures and states become, whether a channel or an answer sends them.
//!
//! Every method reads all it needs before it pushes, so a refusal leaves nothing behind. What is of a kind that nobody wants is not
//! read at all.
//!
//! Sizes of derivatives are contracts. Trades and quotes become sizes in the base asset; books keep contracts, over which
//! the venue's checksum is worked out. Where nobody has told what a contract is worth, a quote has no sizes, and a trade is refused,
//! because it must have one.

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::{Listing, Market};
use model::kinds::{BookDelta, BookSnapshot, Liquidation, Quote, Trade, VenueStatus};
use model::time::Micros;

use super::fields::{Envelope, Members};
use super::symbols::{IndexId, InstId, told};
use super::{cut, mistaken};
use crate::dialect::fields::{Event, Fields, Refusal, malformed, missing, refuse};
use crate::dialect::figures::{Figures, Funding, OpenAmounts};
use crate::dialect::json::{Scanner, Token};
use crate::dialect::reading::{Levels, Pass, Side, find, in_base, named, some_time};
use crate::dialect::symbols::Symbols;

/// The venue in every record.
pub(super) const VENUE: &str = "okx";

/// An element of the data being read.
pub(super) struct Reading<'a> {
    /// The envelope.
    pub(super) outer: Event<'a, Envelope>,
    /// What is read.
    pub(super) event: Event<'a, Members>,
    /// For objects inside it.
    pub(super) detail: &'a mut Fields<Members>,
    pub(super) frame: FrameRef<'a>,
    pub(super) pass: Pass,
    pub(super) symbols: &'a mut Symbols<InstId>,
    pub(super) indices: &'a mut Symbols<IndexId>,
    pub(super) levels: &'a mut Levels,
}

/// The instrument that an element names, or else its channel, or else what was asked for.
#[inline]
fn instrument<'s>(
    event: Event<'_, Members>,
    outer: Event<'_, Envelope>,
    frame: FrameRef<'_>,
    symbols: &'s mut Symbols<InstId>,
) -> Result<&'s Listing, Refusal> {
    if event.has("instId") {
        find(event, "instId", symbols)
    } else if outer.has("instId") {
        find(outer, "instId", symbols)
    } else {
        asked(frame, symbols)
    }
}

/// The instrument in the topic of a frame, which an answer without one needs.
pub(super) fn asked<'s>(frame: FrameRef<'_>, symbols: &'s mut Symbols<InstId>) -> Result<&'s Listing, Refusal> {
    let id = frame.topic.and_then(|topic| topic.split('@').next()).filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| refuse("missing_field", "the answer names no instrument; give the source the venue's id as `symbol`"))?;
    named(&id.to_uppercase(), symbols)
}

/// Whether this is of a market that is none of ours: loans on a pair of assets, bets on events.
#[inline]
pub(super) fn is_other(event: Event<'_, Members>) -> bool {
    event.get("instType").is_some_and(|kind| matches!(kind.of(event.text), b"MARGIN" | b"EVENTS"))
}

/// A size in the base asset, and in contracts where it was sent so.
#[inline]
fn size_in_base(listing: &Listing, size: Decimal, price: Decimal) -> Result<(Decimal, Option<Decimal>), Refusal> {
    if listing.contract.is_some() && told(listing.contract).is_none() {
        return Err(untold_size(&listing.symbol));
    }
    in_base(listing.contract, size, price)
}

#[cold]
fn untold_size(symbol: &str) -> Refusal {
    let detail = format!("what a contract of `{symbol}` is worth is not known; give the source the venue's `instruments` as `instruments`");
    refuse("unknown_instrument", detail)
}

/// The best level of one side; none where price or size is absent or zero, and no size where contracts are of unknown worth.
#[inline]
fn best(listing: &Listing, price: Option<Decimal>, size: Option<Decimal>) -> Result<Best, Refusal> {
    let (Some(price), Some(size)) = (price, size) else { return Ok((None, None)) };
    if listing.contract.is_some() && told(listing.contract).is_none() {
        return Ok((Some(price), None));
    }
    in_base(listing.contract, size, price).map(|(quantity, _)| (Some(price), Some(quantity)))
}

/// Price and size of one side of a quote.
type Best = (Option<Decimal>, Option<Decimal>);

/// The best level of a side that is read.
#[inline]
fn first(listing: &Listing, side: &Side) -> Result<Best, Refusal> {
    let positive = |numbers: &[Decimal]| numbers.first().copied().filter(|number| *number > Decimal::ZERO);
    best(listing, positive(&side.prices), positive(&side.quantities))
}

/// A side as OKX writes it.
#[inline]
fn side(event: Event<'_, Members>, name: &'static str) -> Result<&'static str, Refusal> {
    match event.characters(name)? {
        b"buy" => Ok("buy"),
        b"sell" => Ok("sell"),
        other => Err(mistaken(name, other, "buy or sell")),
    }
}

/// A figure that the venue worked out and that is not negative.
fn figure(event: Event<'_, Members>, name: &'static str) -> Result<Option<Decimal>, Refusal> {
    match event.optional_rounded(name)? {
        Some(figure) if figure < Decimal::ZERO => {
            Err(event.get(name).map_or_else(|| missing(name), |value| event.bad(name, value, "is negative")))
        }
        figure => Ok(figure),
    }
}

/// A price that the venue worked out; `None` where it is zero or an empty text, which mean that there is none.
fn worked_out(event: Event<'_, Members>, name: &'static str) -> Result<Option<Decimal>, Refusal> {
    if !event.has(name) {
        return Err(missing(name));
    }
    Ok(figure(event, name)?.filter(|price| *price > Decimal::ZERO))
}

impl<'a> Reading<'a> {
    /// `trades`, `trades-all`, `option-trades`, and answers of the past: one execution, or all of a taker's at one price.
    #[inline]
    pub(super) fn trade(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.trade else { return Ok(Outcome::Ignored) };
        if is_other(event) {
            return Ok(Outcome::Ignored);
        }
        let (price, size) = (event.decimal("px")?, event.decimal("sz")?);
        let (event_time, side) = (event.quoted_time("ts")?, side(event, "side")?);
        let trade_id = event.text("tradeId")?;
        if trade_id.is_empty() {
            return Err(missing("tradeId"));
        }
        let fills = match event.get("count") {
            Some(value) => match event.quoted_integer("count")? {
                fills @ 1.. => fills,
                _ => return Err(event.bad("count", value, "is no number of trades")),
            },
            None => 1,
        };
        if price == Decimal::ZERO || size == Decimal::ZERO {
            return Err(refuse("not_a_trade", format!("the price is {price} and the size is {size}; neither may be zero")));
        }
        let listing = instrument(event, self.outer, frame, self.symbols)?;
        let (quantity, contracts) = size_in_base(listing, size, price)?;
        if self.pass == Pass::Push {
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
                fills,
                backfilled: Some(!self.outer.has("channel")),
            });
        }
        Ok(Outcome::Decoded)
    }

    /// `bbo-tbt`: the best level of each side.
    #[inline]
    pub(super) fn best_levels(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = self.event;
        if records.quote.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event_time = event.quoted_time("ts")?;
        let sequence = event.get("seqId").map(|_| event.integer("seqId")).transpose()?;
        self.levels.bids.read(event, "bids")?;
        self.levels.asks.read(event, "asks")?;
        let listing = instrument(event, self.outer, self.frame, self.symbols)?;
        let both = [first(listing, &self.levels.bids)?, first(listing, &self.levels.asks)?];
        push_quote(listing, both, event_time, sequence, self.frame, self.pass, records);
        Ok(Outcome::Decoded)
    }

    /// `tickers` and answers with tickers: the best bid and ask.
    pub(super) fn ticker(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let event = self.event;
        if records.quote.is_none() || is_other(event) {
            return Ok(Outcome::Ignored);
        }
        if let Some(absent) = ["bidPx", "bidSz", "askPx", "askSz"].into_iter().find(|name| !event.has(name)) {
            return Err(missing(absent));
        }
        let event_time = event.quoted_time("ts")?;
        let (bid, bid_size) = (event.positive("bidPx")?, event.positive("bidSz")?);
        let (ask, ask_size) = (event.positive("askPx")?, event.positive("askSz")?);
        let listing = instrument(event, self.outer, self.frame, self.symbols)?;
        let both = [best(listing, bid, bid_size)?, best(listing, ask, ask_size)?];
        push_quote(listing, both, event_time, None, self.frame, self.pass, records);
        Ok(Outcome::Decoded)
    }

    /// The checksum of a book; zero stands for none since OKX gave it up.
    #[inline]
    fn checksum(&self) -> Result<Option<i64>, Refusal> {
        match self.event.get("checksum") {
            Some(_) => self.event.integer("checksum").map(|sum| Some(sum).filter(|sum| *sum != 0)),
            None => Ok(None),
        }
    }

    /// A whole book: the first of a stream of changes, five levels, or an answer.
    #[inline]
    pub(super) fn snapshot(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.book_snapshot else { return Ok(Outcome::Ignored) };
        let event_time = event.quoted_time("ts")?;
        let sequence = event.get("seqId").map(|_| event.integer("seqId")).transpose()?;
        let checksum = self.checksum()?;
        self.levels.bids.read(event, "bids")?;
        self.levels.asks.read(event, "asks")?;
        let listing = instrument(event, self.outer, frame, self.symbols)?;
        if self.pass == Pass::Push {
            builder.push(BookSnapshot {
                // The venue tells which levels leave its 400.
                depth: None,
                checksum,
                ..self.levels.snapshot(VENUE, listing, frame, Some(event_time), sequence)
            });
        }
        Ok(Outcome::Decoded)
    }

    /// `books`, `books-l2-tbt`, `books50-l2-tbt`: what changed in a book.
    #[inline]
    pub(super) fn delta(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.book_delta else { return Ok(Outcome::Ignored) };
        let event_time = event.quoted_time("ts")?;
        let last = event.get("seqId").map(|_| event.integer("seqId")).transpose()?;
        // Frames of 2022 have no numbers: there the checksum holds the book together.
        let previous = last.map(|_| event.integer("prevSeqId")).transpose()?;
        if let (Some(-1), Some(value)) = (previous, event.get("prevSeqId")) {
            return Err(event.bad("prevSeqId", value, "a change has none before it"));
        }
        let checksum = self.checksum()?;
        self.levels.bids.read(event, "bids")?;
        self.levels.asks.read(event, "asks")?;
        let listing = instrument(event, self.outer, frame, self.symbols)?;
        if last.is_some() && last == previous && self.levels.bids.prices.is_empty() && self.levels.asks.prices.is_empty() {
            // Nothing has changed for a minute, which is all that this says.
            return Ok(Outcome::Ignored);
        }
        if self.pass == Pass::Push {
            builder.push(BookDelta {
                // All updates behind the one before; after a reset of the numbers the last may be smaller.
                first_sequence: last.zip(previous).map(|(last, previous)| previous.saturating_add(1).min(last)),
                last_sequence: last,
                previous_sequence: previous,
                checksum,
                ..self.levels.delta(VENUE, listing, frame, event_time)
            });
        }
        Ok(Outcome::Decoded)
    }

    /// `mark-price`.
    pub(super) fn mark_price(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        if records.mark_price.is_none() || is_other(event) {
            return Ok(Outcome::Ignored);
        }
        let event_time = event.quoted_time("ts")?;
        let listing = instrument(event, self.outer, frame, self.symbols)?;
        // An option may be worth nothing.
        let price = if listing.market == Market::Option { figure(event, "markPx")? } else { worked_out(event, "markPx")? };
        Ok(Figures { mark: price, ..Figures::default() }.push(VENUE, listing, event_time, frame, self.pass, records))
    }

    /// `index-tickers`: the price of an index of its own.
    pub(super) fn index_price(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.index_price.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event = self.event;
        let event_time = event.quoted_time("ts")?;
        let Some(price) = worked_out(event, "idxPx")? else { return Ok(Outcome::Ignored) };
        let id = event.characters("instId")?;
        let listing = self
            .indices
            .find(id)
            .ok_or_else(|| refuse("unknown_instrument", format!("`{}` is no index, which is two assets with `-` between them", cut(id))))?;
        let figures = Figures { index: Some(price), ..Figures::default() };
        Ok(figures.push(VENUE, listing, event_time, self.frame, self.pass, records))
    }

    /// `funding-rate`: the rate that is paid at `fundingTime`.
    pub(super) fn funding_rate(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        if records.funding_rate.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event_time = event.quoted_time("ts")?;
        let Some(rate) = event.optional_rounded("fundingRate")? else {
            return if event.has("fundingRate") { Ok(Outcome::Ignored) } else { Err(missing("fundingRate")) };
        };
        let predicted_rate = event.optional_rounded("nextFundingRate")?;
        let next_funding_time = event.optional_quoted_time("fundingTime")?;
        let after = event.optional_quoted_time("nextFundingTime")?;
        let between = next_funding_time.zip(after).map(|(next, after)| after - next).filter(|between| *between > 0);
        let listing = instrument(event, self.outer, frame, self.symbols)?;
        let interval_seconds = between.map(|between| between / 1_000_000);
        let figures = Figures::of_funding(Funding { rate, predicted_rate, interval_seconds, next_funding_time });
        Ok(figures.push(VENUE, listing, event_time, frame, self.pass, records))
    }

    /// `funding-rate-history`: a rate that was paid.
    pub(super) fn paid_rate(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        if records.funding_rate.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event_time = event.quoted_time("fundingTime")?;
        // What was paid; the other is what had been expected.
        let rate = match event.optional_rounded("realizedRate")? {
            Some(rate) => rate,
            None => event.optional_rounded("fundingRate")?.ok_or_else(|| missing("fundingRate"))?,
        };
        let listing = instrument(event, self.outer, frame, self.symbols)?;
        let figures = Figures::of_funding(Funding::paid_at(rate, Some(event_time)));
        Ok(figures.push(VENUE, listing, event_time, frame, self.pass, records))
    }

    /// `open-interest`.
    pub(super) fn open_interest(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        if records.open_interest.is_none() || is_other(event) {
            return Ok(Outcome::Ignored);
        }
        let event_time = event.quoted_time("ts")?;
        let contracts = figure(event, "oi")?.ok_or_else(|| missing("oi"))?;
        let open = Open { contracts, base: figure(event, "oiCcy")?, dollars: figure(event, "oiUsd")? };
        let listing = instrument(event, self.outer, frame, self.symbols)?;
        let figures = Figures { open_interest: Some(open.amounts(listing)), ..Figures::default() };
        Ok(figures.push(VENUE, listing, event_time, frame, self.pass, records))
    }

    /// `liquidation-orders`: an instrument and its positions that were closed by force.
    pub(super) fn liquidations(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.liquidation else { return Ok(Outcome::Ignored) };
        if is_other(event) {
            return Ok(Outcome::Ignored);
        }
        let details = event.of_type("details", Token::Array, "a list")?;
        let listing = instrument(event, self.outer, frame, self.symbols)?;
        let mut outcome = Outcome::Ignored;
        let passes: &[Pass] = if self.pass == Pass::Check { &[Pass::Check] } else { &[Pass::Check, Pass::Push] };
        for pass in passes {
            let mut refused = None;
            let walk = Scanner::at(event.text, details).array(|s| {
                if s.peek() != Some(b'{') || refused.is_some() {
                    let other = s.value()?;
                    refused.get_or_insert_with(|| event.mistyped("details", other, "an object"));
                    return Ok(());
                }
                let place = s.value()?;
                self.detail.inner(event.text, place)?;
                match Forced::read(Event { text: event.text, fields: self.detail }, listing) {
                    Ok(forced) if *pass == Pass::Push => builder.push(forced.row(listing, frame)),
                    Ok(_) => outcome = Outcome::Decoded,
                    Err(refusal) => refused = Some(refusal),
                }
                Ok(())
            });
            walk.map_err(malformed)?;
            if let Some(refusal) = refused {
                return Err(refusal);
            }
        }
        Ok(outcome)
    }

    /// `status`: maintenance of the venue.
    pub(super) fn status(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let (event, frame) = (self.event, self.frame);
        let Some(builder) = &mut records.venue_status else { return Ok(Outcome::Ignored) };
        let status = event.text("state")?.to_lowercase();
        // What is only planned has no time but that of the message, which answers do not tell.
        let event_time = match status.as_str() {
            "ongoing" => event.optional_quoted_time("begin")?,
            "pre_open" => event.optional_quoted_time("preOpenBegin")?,
            "completed" => event.optional_quoted_time("end")?,
            _ => event.optional_quoted_time("ts")?,
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
}

#[inline]
fn push_quote(
    listing: &Listing,
    [bid, ask]: [Best; 2],
    event_time: Micros,
    sequence: Option<i64>,
    frame: FrameRef<'_>,
    pass: Pass,
    records: &mut Records,
) {
    let (Some(builder), Pass::Push) = (&mut records.quote, pass) else { return };
    builder.push(Quote {
        venue: VENUE,
        market: listing.market.as_str(),
        symbol: &listing.symbol,
        event_time: Some(event_time),
        receive_time: frame.receive_time,
        frame: Some(frame.frame),
        sequence,
        bid_price: bid.0,
        bid_quantity: bid.1,
        ask_price: ask.0,
        ask_quantity: ask.1,
    });
}

/// Open interest as OKX tells it.
pub(super) struct Open {
    pub(super) contracts: Decimal,
    pub(super) base: Option<Decimal>,
    /// In US dollars, whatever the instrument is quoted in.
    pub(super) dollars: Option<Decimal>,
}

impl Open {
    pub(super) fn amounts(&self, listing: &Listing) -> OpenAmounts {
        // What inverse contracts are worth in the quote asset is fixed.
        let fixed = told(listing.contract).filter(|contract| contract.inverse).and_then(|c| self.contracts.mul_rounded(c.size));
        [Some(self.contracts), self.base, fixed.or(self.dollars.filter(|_| listing.quote == "USD"))]
    }
}

/// A position that was closed by force.
struct Forced {
    event_time: Micros,
    side: &'static str,
    price: Decimal,
    quantity: Decimal,
    contracts: Option<Decimal>,
}

impl Forced {
    fn read(event: Event<'_, Members>, listing: &Listing) -> Result<Self, Refusal> {
        let is_empty = |name| event.get(name).is_none_or(|value| value.start == value.end);
        let side = match is_empty("side") {
            false => side(event, "side")?,
            // Where the order's side is left out, that of the position tells it.
            true => match event.characters("posSide")? {
                b"long" => "sell",
                b"short" => "buy",
                other => return Err(mistaken("posSide", other, "long or short")),
            },
        };
        let (price, size) = (event.decimal("bkPx")?, event.decimal("sz")?);
        let event_time = event.quoted_time("ts")?;
        let (quantity, contracts) = size_in_base(listing, size, price)?;
        Ok(Forced { event_time, side, price, quantity, contracts })
    }

    fn row<'l>(&self, listing: &'l Listing, frame: FrameRef<'_>) -> Liquidation<'l> {
        Liquidation {
            venue: VENUE,
            market: listing.market.as_str(),
            symbol: &listing.symbol,
            event_time: self.event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            liquidation_id: None,
            side: self.side,
            price: self.price,
            average_price: None,
            quantity: self.quantity,
            filled_quantity: None,
            contracts: self.contracts,
            status: None,
        }
    }
}
