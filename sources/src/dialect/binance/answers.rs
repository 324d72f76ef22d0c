//! REST answers: what no stream tells, and trades of the past.
//!
//! An answer does not say what it is, but its members do. Where even they do not (who is counted in a ratio, the symbol of a
//! trade) the frame's topic must: `SYMBOL@ENDPOINT@PERIOD`, e.g. `BTCUSDT@topLongShortPositionRatio@5m`.

use std::borrow::Cow;

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::Listing;
use model::kinds::{LongShortRatio, Quote, Trade, TradeBuilder, VenueStatus};
use model::time::Micros;

use super::events::VENUE;
use super::options::outstanding;
use super::symbols::Exchange;
use crate::dialect::fields::{Event, Refusal, keys, missing, refuse};
use crate::dialect::figures::{Figures, Funding};
use crate::dialect::json::Token;
use crate::dialect::reading::{Pass, best, in_base, named, some_time};
use crate::dialect::symbols::Symbols;

keys! {
    /// The members of answers that matter, and of events that have longer names.
    Members quoted true:
    b"symbol" b"pair" b"contractType" b"time" b"timestamp" b"openInterest" b"sumOpenInterest" b"sumOpenInterestValue"
    b"longShortRatio" b"longAccount" b"shortAccount" b"longPosition" b"shortPosition" b"fundingRate" b"fundingTime"
    b"markPrice" b"indexPrice" b"estimatedSettlePrice" b"lastFundingRate" b"nextFundingTime" b"id" b"price" b"qty"
    b"isBuyerMaker" b"a" b"p" b"q" b"f" b"l" b"T" b"m" b"bidPrice" b"bidQty" b"askPrice" b"askQty" b"lastUpdateId" b"status" b"msg"
    b"fundingIntervalHours" b"buySellRatio" b"serverTime" b"s" b"E" b"mp" b"i" b"P" b"sumOpenInterestUsd" b"tradeId" b"side"
    b"optionSymbols" b"markIV" b"strikeResult" b"exercisePrice"
}

/// What marks answers that become no record.
const IGNORED: [&str; 6] = ["fundingIntervalHours", "buySellRatio", "serverTime", "markIV", "strikeResult", "exercisePrice"];

/// The topic of a frame: the venue's symbol, and behind an `@` what was asked of it.
pub(super) fn topic_symbol(topic: &str) -> &str {
    topic.split('@').next().unwrap_or(topic)
}

/// An object of an answer.
pub(super) struct Answer<'a> {
    pub(super) event: Event<'a, Members>,
    pub(super) frame: FrameRef<'a>,
    pub(super) pass: Pass,
    pub(super) exchange: Exchange,
    pub(super) symbols: &'a mut Symbols<Exchange>,
}

impl Answer<'_> {
    /// Decodes it; `None` if it is none that we know.
    pub(super) fn decode(self, records: &mut Records) -> Result<Option<Outcome>, Refusal> {
        let has = |name| self.event.has(name);
        let has_all = |names: &[&'static str]| names.iter().all(|name| self.event.has(name));
        let options = self.exchange == Exchange::Options;
        Ok(Some(if has("openInterest") || has("sumOpenInterest") {
            self.open_interest(records)?
        } else if has("longShortRatio") {
            self.ratio(records)?
        } else if has_all(&["fundingRate", "fundingTime"]) {
            self.funding(records)?
        } else if has("lastFundingRate") {
            self.premium_index(records)?
        } else if options && has_all(&["tradeId", "price", "qty", "side"]) {
            self.option_trade(records)?
        } else if options && has_all(&["indexPrice", "time"]) {
            self.index(records)?
        } else if has_all(&["id", "price", "qty", "isBuyerMaker"]) {
            self.trade(records)?
        } else if has_all(&["a", "p", "q", "f", "l", "T", "m"]) {
            self.aggregate_trade(records)?
        } else if has_all(&["symbol", "bidPrice", "bidQty", "askPrice", "askQty"]) {
            self.quote(records)?
        } else if has_all(&["status", "msg"]) {
            self.status(records)?
        } else if IGNORED.into_iter().any(has) {
            Outcome::Ignored
        } else {
            return Ok(None);
        }))
    }

    /// The instrument that the answer, or else the topic, names.
    fn listing(&mut self) -> Result<&Listing, Refusal> {
        let symbol = self.symbol()?.into_owned();
        named(&symbol, self.symbols)
    }

    fn symbol(&self) -> Result<Cow<'_, str>, Refusal> {
        if self.event.has("symbol") {
            return self.event.text("symbol");
        }
        // Statistics of COIN-M name a pair, and a sort of contract of which only the perpetual is one instrument.
        if self.event.has("pair") && (!self.event.has("contractType") || self.event.characters("contractType")? == b"PERPETUAL") {
            let pair = self.event.text("pair")?;
            return Ok(if self.exchange == Exchange::CoinM { Cow::Owned(format!("{pair}_PERP")) } else { pair });
        }
        let asked = self.frame.topic.map(|topic| Cow::Owned(topic_symbol(topic).to_uppercase()));
        asked.ok_or_else(|| refuse("missing_field", "the answer names no symbol; give the source the venue's symbol as `symbol`"))
    }

    /// A time that Binance sends as a number, or as one in quotes.
    fn time(&self, name: &'static str) -> Result<Micros, Refusal> {
        match self.event.get(name) {
            Some(value) if value.token == Token::Text => self.event.quoted_time(name),
            _ => self.event.time(name),
        }
    }

    /// `openInterest` and `openInterestHist`: in the base asset, on COIN-M and of options in contracts.
    fn open_interest(mut self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.open_interest.is_none() {
            return Ok(Outcome::Ignored);
        }
        let (name, time) = if self.event.has("openInterest") { ("openInterest", "time") } else { ("sumOpenInterest", "timestamp") };
        let amount = self.event.optional_rounded(name)?.ok_or_else(|| missing(name))?;
        let value = if self.event.has("sumOpenInterestUsd") { "sumOpenInterestUsd" } else { "sumOpenInterestValue" };
        let value = self.event.optional_rounded(value)?;
        let event_time = self.time(time)?;
        let (frame, pass) = (self.frame, self.pass);
        let listing = self.listing()?;
        let figures = Figures { open_interest: Some(outstanding(listing, amount, value)?), ..Figures::default() };
        Ok(figures.push(VENUE, listing, event_time, frame, pass, records))
    }

    /// `globalLongShortAccountRatio`, `topLongShortAccountRatio` and `topLongShortPositionRatio`, which look alike.
    fn ratio(mut self, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.long_short_ratio else { return Ok(Outcome::Ignored) };
        let mut asked = self.frame.topic.unwrap_or_default().split('@').skip(1);
        let (basis, population) = match asked.next() {
            Some("globalLongShortAccountRatio") => ("account", "all"),
            Some("topLongShortAccountRatio") => ("account", "top"),
            Some("topLongShortPositionRatio") => ("position", "top"),
            _ => {
                return Err(refuse(
                    "missing_field",
                    "the answer does not say who is counted; give the source what was asked for as `symbol`, e.g. `BTCUSDT@topLongShortPositionRatio@5m`",
                ));
            }
        };
        let period_seconds = asked.next().and_then(seconds).ok_or_else(|| {
            refuse(
                "missing_field",
                "the answer does not say its period; name it behind the endpoint, e.g. `BTCUSDT@topLongShortPositionRatio@5m`",
            )
        })?;
        let ratio = self.event.optional_rounded("longShortRatio")?.ok_or_else(|| missing("longShortRatio"))?;
        let share = |one, other| {
            self.event.optional_rounded(one).and_then(|share| share.map_or_else(|| self.event.optional_rounded(other), |s| Ok(Some(s))))
        };
        let (long_share, short_share) = (share("longAccount", "longPosition")?, share("shortAccount", "shortPosition")?);
        let event_time = self.time("timestamp")?;
        let (frame, pass) = (self.frame, self.pass);
        let listing = self.listing()?;
        if pass == Pass::Push {
            builder.push(LongShortRatio {
                venue: VENUE,
                market: listing.market.as_str(),
                symbol: &listing.symbol,
                event_time,
                receive_time: frame.receive_time,
                frame: Some(frame.frame),
                basis,
                population,
                period_seconds,
                ratio,
                long_share,
                short_share,
            });
        }
        Ok(Outcome::Decoded)
    }

    /// `fundingRate`: the rate that was paid at a time.
    fn funding(mut self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.funding_rate.is_none() {
            return Ok(Outcome::Ignored);
        }
        let rate = self.event.optional_rounded("fundingRate")?.ok_or_else(|| missing("fundingRate"))?;
        let event_time = self.time("fundingTime")?;
        let (frame, pass) = (self.frame, self.pass);
        let figures = Figures::of_funding(Funding::paid_at(rate, Some(event_time)));
        Ok(figures.push(VENUE, self.listing()?, event_time, frame, pass, records))
    }

    /// `premiumIndex`: what the stream of mark prices tells.
    fn premium_index(mut self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.mark_price.is_none() && records.index_price.is_none() && records.funding_rate.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event_time = self.time("time")?;
        let (mark, index) = (self.event.positive("markPrice")?, self.event.positive("indexPrice")?);
        let settlement = self.event.positive("estimatedSettlePrice")?;
        let (rate, next_funding_time) = (self.event.optional_rounded("lastFundingRate")?, self.event.optional_time("nextFundingTime")?);
        // A dated future has neither a rate nor a time to pay it.
        let funding = rate.zip(next_funding_time).map(|(rate, next)| Funding::paid_at(rate, Some(next)));
        let figures = Figures { mark, settlement, index, funding, open_interest: None };
        let (frame, pass) = (self.frame, self.pass);
        Ok(figures.push(VENUE, self.listing()?, event_time, frame, pass, records))
    }

    /// `trades` and `historicalTrades`: an execution of the past.
    fn trade(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.trade else { return Ok(Outcome::Ignored) };
        let (price, size) = (self.event.decimal("price")?, self.event.decimal("qty")?);
        let (trade_id, event_time) = (self.event.identifier("id")?, self.event.time("time")?);
        let maker = self.event.boolean("isBuyerMaker")?;
        self.push_trade(builder, trade_id, event_time, price, size, maker, 1)
    }

    /// `trades` of options: the side is the taker's, and a size that was sold may carry a sign.
    fn option_trade(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.trade else { return Ok(Outcome::Ignored) };
        let (price, size) = (self.event.decimal("price")?, self.event.optional_decimal("qty")?.ok_or_else(|| missing("qty"))?.abs());
        let (trade_id, event_time) = (self.event.identifier("tradeId")?, self.event.time("time")?);
        let sold = match self.event.integer("side")? {
            -1 => true,
            1 => false,
            other => return Err(refuse("wrong_type", format!("`side` is {other}, where -1 or 1 should be"))),
        };
        self.push_trade(builder, trade_id, event_time, price, size, sold, 1)
    }

    /// `index` of options: of what the topic names.
    fn index(mut self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.index_price.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event_time = self.time("time")?;
        let index = self.event.positive("indexPrice")?.ok_or_else(|| missing("indexPrice"))?;
        let (frame, pass) = (self.frame, self.pass);
        let figures = Figures { index: Some(index), ..Figures::default() };
        Ok(figures.push(VENUE, self.listing()?, event_time, frame, pass, records))
    }

    /// `aggTrades`: the fills of one taker order at one price.
    fn aggregate_trade(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.trade else { return Ok(Outcome::Ignored) };
        let (price, size) = (self.event.decimal("p")?, self.event.decimal("q")?);
        let (trade_id, event_time) = (self.event.identifier("a")?, self.event.time("T")?);
        let (first, last) = (self.event.integer("f")?, self.event.integer("l")?);
        let fills = last.checked_sub(first).and_then(|n| n.checked_add(1)).filter(|n| *n > 0);
        let fills = fills.ok_or_else(|| refuse("bad_number", format!("the last trade `l` is {last}, before the first `f`, {first}")))?;
        let maker = self.event.boolean("m")?;
        self.push_trade(builder, trade_id, event_time, price, size, maker, fills)
    }

    #[expect(clippy::too_many_arguments, reason = "they are the columns")]
    fn push_trade(
        mut self,
        builder: &mut TradeBuilder,
        trade_id: &str,
        event_time: Micros,
        price: Decimal,
        size: Decimal,
        buyer_is_maker: bool,
        fills: i64,
    ) -> Result<Outcome, Refusal> {
        if price == Decimal::ZERO || size == Decimal::ZERO {
            return Err(refuse("not_a_trade", format!("the price is {price} and the size {size}; neither may be zero")));
        }
        let (frame, pass) = (self.frame, self.pass);
        let listing = self.listing()?;
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
                side: if buyer_is_maker { "sell" } else { "buy" },
                fills,
                backfilled: Some(true),
            });
        }
        Ok(Outcome::Decoded)
    }

    /// `ticker/bookTicker`: the best bid and ask; of spot without number and time.
    fn quote(mut self, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.quote else { return Ok(Outcome::Ignored) };
        let event_time = self.event.optional_time("time")?;
        some_time(event_time, self.frame)?;
        let sequence = self.event.get("lastUpdateId").map(|_| self.event.integer("lastUpdateId")).transpose()?;
        let (bid_price, bid_size) = (self.event.decimal("bidPrice")?, self.event.decimal("bidQty")?);
        let (ask_price, ask_size) = (self.event.decimal("askPrice")?, self.event.decimal("askQty")?);
        let (frame, pass) = (self.frame, self.pass);
        let listing = self.listing()?;
        let (bid_price, bid_quantity) = best(listing, bid_price, bid_size)?;
        let (ask_price, ask_quantity) = best(listing, ask_price, ask_size)?;
        if pass == Pass::Push {
            builder.push(Quote {
                venue: VENUE,
                market: listing.market.as_str(),
                symbol: &listing.symbol,
                event_time,
                receive_time: frame.receive_time,
                frame: Some(frame.frame),
                sequence,
                bid_price,
                bid_quantity,
                ask_price,
                ask_quantity,
            });
        }
        Ok(Outcome::Decoded)
    }

    /// `system/status`: of the whole venue.
    fn status(self, records: &mut Records) -> Result<Outcome, Refusal> {
        let Some(builder) = &mut records.venue_status else { return Ok(Outcome::Ignored) };
        some_time(None, self.frame)?;
        let status = match self.event.integer("status")? {
            0 => "normal",
            1 => "maintenance",
            other => return Err(refuse("wrong_type", format!("`status` is {other}, where 0 or 1 should be"))),
        };
        let message = self.event.text("msg")?;
        if self.pass == Pass::Push {
            builder.push(VenueStatus {
                venue: VENUE,
                market: None,
                symbol: None,
                event_time: None,
                receive_time: self.frame.receive_time,
                frame: Some(self.frame.frame),
                status,
                message: Some(&message),
            });
        }
        Ok(Outcome::Decoded)
    }
}

/// The seconds of a period, `5m`, `2h` or `1d`.
fn seconds(period: &str) -> Option<i64> {
    let (digits, unit) = period.split_at_checked(period.len().checked_sub(1)?)?;
    let unit = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    digits.parse::<u16>().ok().filter(|count| *count > 0).map(|count| i64::from(count) * unit)
}
