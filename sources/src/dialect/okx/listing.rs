//! OKX's own listing of its instruments: the REST answer `public/instruments`, and the channel `instruments`.
//!
//! What an instrument is, its id tells ([`super::symbols`]), so that both agree whatever is listed. The listing adds what a contract is
//! worth, and all other columns.

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::{Contract, Listing, Market};
use model::kinds::Instrument;
use model::time::Micros;
use serde::Deserialize;

use super::cut;
use super::events::VENUE;
use super::symbols::{parse, told, untold};
use crate::dialect::fields::{Refusal, micros, refuse};

/// The part of an answer, or of what the channel pushes, that we use; the names are OKX's.
#[derive(Debug, Deserialize)]
struct Answer {
    code: Option<String>,
    data: Vec<Item>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    inst_type: String,
    inst_id: String,
    #[serde(default)]
    settle_ccy: String,
    #[serde(default)]
    ct_val: String,
    #[serde(default)]
    ct_mult: String,
    #[serde(default)]
    ct_val_ccy: String,
    #[serde(default)]
    ct_type: String,
    #[serde(default)]
    opt_type: String,
    #[serde(default)]
    stk: String,
    #[serde(default)]
    exp_time: String,
    #[serde(default)]
    tick_sz: String,
    #[serde(default)]
    lot_sz: String,
    #[serde(default)]
    state: String,
}

impl Answer {
    fn read(text: &[u8]) -> Result<Vec<Answer>, String> {
        let answers: Result<Vec<Answer>, _> = serde_json::Deserializer::from_slice(text).into_iter::<Answer>().collect();
        let answers = answers.map_err(|e| format!("is no answer of OKX's `instruments`: {e}"))?;
        if answers.is_empty() {
            return Err("is no answer of OKX's `instruments`: it is empty".into());
        }
        match answers.iter().find_map(|answer| answer.code.as_deref().filter(|code| *code != "0")) {
            Some(code) => Err(format!("is an error, `code` is {}", cut(code.as_bytes()))),
            None => Ok(answers),
        }
    }
}

impl Item {
    /// What the id stands for; `None` for loans, bets on events, and what no id tells.
    fn listing(&self) -> Result<Option<Listing>, String> {
        let market = match self.inst_type.as_str() {
            "SPOT" => Market::Spot,
            "SWAP" => Market::Perpetual,
            "FUTURES" => Market::Future,
            "OPTION" => Market::Option,
            _ => return Ok(None),
        };
        let Some(listing) = parse(&self.inst_id).filter(|listing| listing.market == market) else { return Ok(None) };
        let contract = match listing.contract {
            Some(_) => Some(self.contract(&listing)?),
            None => None,
        };
        Ok(Some(Listing { contract, ..listing }))
    }

    /// What a contract is worth: `ctVal` times `ctMult` of the base asset where it is linear, of the quote asset where it is inverse.
    fn contract(&self, listing: &Listing) -> Result<Contract, String> {
        let inverse = self.ct_type == "inverse";
        let worth_in = if inverse { &listing.quote } else { &listing.base };
        // Of what is not listed yet nothing is told, and of a contract worth something else it is not known what it comes to.
        if self.ct_val.is_empty() || self.ct_val_ccy != *worth_in {
            return Ok(untold(inverse));
        }
        let value = self.number("ctVal", &self.ct_val)?;
        let multiplier = if self.ct_mult.is_empty() { Decimal::ONE } else { self.number("ctMult", &self.ct_mult)? };
        let size = value.mul_rounded(multiplier).filter(|size| *size > Decimal::ZERO);
        let size = size.ok_or_else(|| format!("contracts of `{}` are worth {value} times {multiplier}", cut(self.inst_id.as_bytes())))?;
        Ok(Contract { size, inverse })
    }

    fn number(&self, name: &str, text: &str) -> Result<Decimal, String> {
        text.parse().map_err(|e| format!("`{name}` of `{}` is \"{}\", which {e}", cut(self.inst_id.as_bytes()), cut(text.as_bytes())))
    }

    /// A number above zero; an empty text is none.
    fn positive(&self, name: &str, text: &str) -> Result<Option<Decimal>, String> {
        let number = (!text.is_empty()).then(|| self.number(name, text)).transpose()?;
        Ok(number.filter(|number| *number > Decimal::ZERO))
    }

    fn right(&self) -> Option<&'static str> {
        match self.opt_type.as_str() {
            "C" => Some("call"),
            "P" => Some("put"),
            _ => None,
        }
    }

    /// When it is delivered; spot and perpetuals have a time too while they are being delisted.
    fn expiry(&self, market: Market) -> Result<Option<Micros>, String> {
        if !matches!(market, Market::Future | Market::Option) || self.exp_time.is_empty() {
            return Ok(None);
        }
        let time = self.exp_time.parse().ok().and_then(micros);
        time.map(Some).ok_or_else(|| format!("`expTime` of `{}` is \"{}\"", cut(self.inst_id.as_bytes()), cut(self.exp_time.as_bytes())))
    }
}

/// The instruments of a listing, by the venue's ids. It may be several answers one after the other, one for each type.
///
/// # Errors
/// Says what about the listing cannot be read.
pub fn instruments(listing: &[u8]) -> Result<Vec<(Box<str>, Listing)>, String> {
    let mut instruments = Vec::new();
    for item in Answer::read(listing)?.into_iter().flat_map(|answer| answer.data) {
        if let Some(listing) = item.listing()? {
            instruments.push((item.inst_id.into(), listing));
        }
    }
    Ok(instruments)
}

/// An instrument with everything that its record needs.
struct Row<'i> {
    item: &'i Item,
    listing: Listing,
    expiry: Option<Micros>,
    tick_size: Option<Decimal>,
    lot_size: Option<Decimal>,
    strike: Option<Decimal>,
}

impl<'i> Row<'i> {
    /// `None` for an instrument that has none.
    fn of(item: &'i Item) -> Result<Option<Self>, String> {
        let Some(listing) = item.listing()? else { return Ok(None) };
        Ok(Some(Row {
            expiry: item.expiry(listing.market)?,
            tick_size: item.positive("tickSz", &item.tick_sz)?,
            lot_size: item.positive("lotSz", &item.lot_sz)?,
            strike: item.positive("stk", &item.stk)?,
            item,
            listing,
        }))
    }
}

/// Makes a listing that came as a frame into `instrument` records, valid from when we received it: OKX tells no time.
pub(super) fn push(frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.instrument else { return Ok(Outcome::Ignored) };
    let answers = Answer::read(frame.payload).map_err(|e| refuse("wrong_type", format!("the frame {e}")))?;
    let mut rows = Vec::new();
    for item in answers.iter().flat_map(|answer| &answer.data) {
        rows.extend(Row::of(item).map_err(|e| refuse("bad_number", e))?);
    }
    if rows.is_empty() {
        return Ok(Outcome::Ignored);
    }
    let since = frame.receive_time.ok_or_else(|| refuse("no_time", "neither the listing nor the recording says when it was given"))?;
    for Row { item, listing, expiry, tick_size, lot_size, strike } in &rows {
        let filled = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
        builder.push(Instrument {
            venue: VENUE,
            market: listing.market.as_str(),
            symbol: &listing.symbol,
            event_time: since,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            venue_symbol: &item.inst_id,
            base: &listing.base,
            quote: &listing.quote,
            settlement: Some(item.settle_ccy.as_str()).filter(|settlement| !settlement.is_empty()),
            status: filled(&item.state.to_lowercase()).as_deref(),
            tick_size: *tick_size,
            lot_size: *lot_size,
            contract_size: told(listing.contract).map(|contract| contract.size),
            inverse: listing.contract.is_some_and(|contract| contract.inverse),
            expiry: *expiry,
            strike: *strike,
            option_type: item.right(),
        });
    }
    Ok(Outcome::Decoded)
}
