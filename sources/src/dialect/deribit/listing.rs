//! Deribit's own listing of its instruments: the answers `get_instruments` and `get_instrument`, and the channel
//! `instrument.creation`.
//!
//! What an instrument is, its name tells ([`super::symbols`]), so that both agree whatever is listed. The listing adds what a
//! contract is worth, and all other columns.

use std::fmt;

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::{Listing, Market};
use model::kinds::Instrument;
use model::time::Micros;
use serde::Deserialize;
use serde_json::{Number, Value};

use super::events::VENUE;
use super::symbols::{Named, inverse, parse};
use crate::dialect::fields::{Refusal, micros, missing, refuse};

/// The part of an instrument that we use; the names are Deribit's.
#[derive(Debug, Deserialize)]
struct Item {
    instrument_name: String,
    kind: String,
    settlement_currency: Option<String>,
    state: Option<String>,
    is_active: Option<bool>,
    tick_size: Option<Number>,
    min_trade_amount: Option<Number>,
    contract_size: Option<Number>,
    creation_timestamp: Option<i64>,
    expiration_timestamp: Option<i64>,
    strike: Option<Number>,
    option_type: Option<String>,
}

/// What has instruments in it: an answer, or a notification.
#[derive(Debug, Deserialize)]
struct Frame {
    result: Option<Value>,
    params: Option<Params>,
    #[serde(rename = "usOut")]
    us_out: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Params {
    data: Value,
}

/// What came: instruments, and when they were answered.
struct Items {
    items: Vec<Item>,
    answered: Option<i64>,
    /// Whether they are told of because they are new.
    new: bool,
}

fn read(text: &[u8]) -> Result<Items, String> {
    let wrong = |e: &dyn fmt::Display| format!("is no answer of Deribit's `get_instruments`: {e}");
    let frame: Frame = serde_json::from_slice(text).map_err(|e| wrong(&e))?;
    let (value, new) = match (frame.result, frame.params) {
        (Some(result), _) => (result, false),
        (None, Some(params)) => (params.data, true),
        (None, None) => return Err(wrong(&"`result` is missing")),
    };
    let items = match value {
        Value::Array(items) => items,
        one => vec![one],
    };
    let items: Result<Vec<Item>, _> = items.into_iter().map(serde_json::from_value).collect();
    Ok(Items { items: items.map_err(|e| wrong(&e))?, answered: frame.us_out, new })
}

impl Item {
    /// What the name stands for; `None` for a combination and for what no name tells.
    fn listing(&self) -> Result<Option<Listing>, String> {
        if self.kind.ends_with("_combo") {
            return Ok(None);
        }
        let Some(Named { listing, inverse: is_inverse }) = parse(&self.instrument_name) else { return Ok(None) };
        if !is_inverse {
            return Ok(Some(listing));
        }
        let size = self.number("contract_size", self.contract_size.as_ref())?;
        match size {
            Some(size) if size > Decimal::ZERO => Ok(Some(Listing { contract: Some(inverse(size)), ..listing })),
            _ => Err(format!("`{}` has no contract size", self.instrument_name)),
        }
    }

    fn number(&self, member: &str, number: Option<&Number>) -> Result<Option<Decimal>, String> {
        let read = |number: &Number| {
            number.to_string().parse().map_err(|e| format!("`{member}` of `{}` is {number}, which {e}", self.instrument_name))
        };
        number.map(read).transpose()
    }

    fn positive(&self, member: &str, number: Option<&Number>) -> Result<Option<Decimal>, String> {
        Ok(self.number(member, number)?.filter(|number| *number > Decimal::ZERO))
    }

    /// The venue's word for its state, or whether it is traded.
    fn status(&self) -> Option<String> {
        let active = || self.is_active.map(|active| String::from(if active { "active" } else { "inactive" }));
        self.state.as_ref().map(|state| state.to_lowercase()).or_else(active)
    }
}

/// The instruments of a listing, by the venue's names.
///
/// # Errors
/// Says what about the listing cannot be read.
pub fn instruments(listing: &[u8]) -> Result<Vec<(Box<str>, Listing)>, String> {
    let mut instruments = Vec::new();
    for item in read(listing)?.items {
        if let Some(listing) = item.listing()? {
            instruments.push((item.instrument_name.into(), listing));
        }
    }
    Ok(instruments)
}

/// An instrument with everything that its record needs.
struct Row<'i> {
    item: &'i Item,
    listing: Listing,
    event_time: Micros,
    tick_size: Option<Decimal>,
    lot_size: Option<Decimal>,
    contract_size: Option<Decimal>,
    strike: Option<Decimal>,
}

impl<'i> Row<'i> {
    /// `None` for an instrument that has none.
    fn of(item: &'i Item, since: Option<Micros>) -> Result<Option<Self>, Refusal> {
        let bad = |detail| refuse("bad_number", detail);
        let Some(listing) = item.listing().map_err(bad)? else { return Ok(None) };
        let event_time = since.ok_or_else(|| refuse("no_time", "neither the answer nor the recording says when the listing was given"))?;
        let derivative = listing.market != Market::Spot;
        Ok(Some(Row {
            tick_size: item.positive("tick_size", item.tick_size.as_ref()).map_err(bad)?,
            lot_size: item.positive("min_trade_amount", item.min_trade_amount.as_ref()).map_err(bad)?,
            contract_size: item.positive("contract_size", item.contract_size.as_ref().filter(|_| derivative)).map_err(bad)?,
            strike: item.positive("strike", item.strike.as_ref()).map_err(bad)?,
            item,
            listing,
            event_time,
        }))
    }
}

/// Makes a listing that came as a frame into `instrument` records, valid from when the venue answered, or from when a new
/// instrument was made.
pub(super) fn push(frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.instrument else { return Ok(Outcome::Ignored) };
    let Items { items, answered, new } = read(frame.payload).map_err(|e| refuse("wrong_type", format!("the frame {e}")))?;
    let time = |name: &'static str, time: Option<i64>| {
        time.map(|time| micros(time).ok_or_else(|| refuse("bad_time", format!("`{name}` is {time}")))).transpose()
    };
    let answered = time("usOut", answered)?;
    let mut rows = Vec::with_capacity(items.len());
    for item in &items {
        let since = match new {
            true => Some(time("creation_timestamp", item.creation_timestamp)?.ok_or_else(|| missing("creation_timestamp"))?),
            false => answered.or(frame.receive_time),
        };
        rows.extend(Row::of(item, since)?);
    }
    for Row { item, listing, event_time, tick_size, lot_size, contract_size, strike } in &rows {
        let expires = matches!(listing.market, Market::Future | Market::Option);
        builder.push(Instrument {
            venue: VENUE,
            market: listing.market.as_str(),
            symbol: &listing.symbol,
            event_time: *event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            venue_symbol: &item.instrument_name,
            base: &listing.base,
            quote: &listing.quote,
            settlement: item.settlement_currency.as_deref(),
            status: item.status().as_deref(),
            tick_size: *tick_size,
            lot_size: *lot_size,
            contract_size: *contract_size,
            inverse: listing.contract.is_some_and(|contract| contract.inverse),
            expiry: item.expiration_timestamp.filter(|_| expires).and_then(micros),
            strike: *strike,
            option_type: item.option_type.as_deref(),
        });
    }
    Ok(if rows.is_empty() { Outcome::Ignored } else { Outcome::Decoded })
}
