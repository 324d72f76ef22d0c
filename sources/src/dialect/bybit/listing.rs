//! Bybit's own listing of its instruments: the REST answer `instruments-info`.

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::{Listing, Right};
use model::kinds::Instrument;
use model::time::{Micros, date};
use serde::Deserialize;

use super::events::{VENUE, expires};
use super::symbols::{Category, canonical, dollar, option_parts};
use crate::dialect::fields::{Refusal, micros, missing, refuse};

/// The part of the answer that we use; the names are Bybit's.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    ret_code: i64,
    result: Listed,
    time: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    category: Option<String>,
    list: Vec<Symbol>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Symbol {
    symbol: String,
    base_coin: String,
    quote_coin: String,
    settle_coin: Option<String>,
    status: Option<String>,
    contract_type: Option<String>,
    delivery_time: Option<String>,
    price_filter: Option<PriceFilter>,
    lot_size_filter: Option<LotSizeFilter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PriceFilter {
    tick_size: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LotSizeFilter {
    qty_step: Option<String>,
    base_precision: Option<String>,
}

/// An option's strike price and right.
type Claim = Option<(Decimal, Right)>;

impl Symbol {
    /// What the symbol stands for; `None` for contracts of a sort that we do not know.
    fn listing(&self, category: Category) -> Result<Option<(Listing, Claim)>, String> {
        let (base, quote) = (&self.base_coin, &self.quote_coin);
        if category == Category::Spot {
            return Ok(Some((Listing::spot(base, quote), None)));
        }
        if category == Category::Option {
            let parts = option_parts(&self.symbol).ok_or_else(|| format!("`{}` is no option's symbol", cut(&self.symbol)))?;
            let strike = parts.strike.parse().map_err(|e| format!("the strike price of `{}` {e}", cut(&self.symbol)))?;
            return Ok(Some((Listing::option(base, quote, &self.day()?, parts.strike, parts.right, None), Some((strike, parts.right)))));
        }
        Ok(match self.contract_type.as_deref() {
            Some("LinearPerpetual") => Some((Listing::perpetual(base, quote, None), None)),
            Some("InversePerpetual") => Some((Listing::perpetual(base, quote, Some(dollar())), None)),
            Some("LinearFutures") => Some((Listing::future(base, quote, &self.day()?, None), None)),
            Some("InverseFutures") => Some((Listing::future(base, quote, &self.day()?, Some(dollar())), None)),
            _ => None,
        })
    }

    /// The time of delivery; perpetuals have one too while they are being delisted.
    fn delivery(&self) -> Option<Micros> {
        micros(self.delivery_time.as_ref()?.parse().ok()?)
    }

    /// The day of delivery, `260327`.
    fn day(&self) -> Result<String, String> {
        let day = self.delivery().and_then(date).map(canonical);
        day.ok_or_else(|| format!("`{}` has no time of delivery", cut(&self.symbol)))
    }

    fn tick_size(&self) -> Option<Decimal> {
        step(self.price_filter.as_ref()?.tick_size.as_ref())
    }

    fn lot_size(&self) -> Option<Decimal> {
        let filter = self.lot_size_filter.as_ref()?;
        step(filter.qty_step.as_ref().or(filter.base_precision.as_ref()))
    }
}

/// As much of a text as a message bears.
fn cut(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(at, _)| &text[..at])
}

fn step(text: Option<&String>) -> Option<Decimal> {
    text?.parse().ok().filter(|step| *step > Decimal::ZERO)
}

impl Answer {
    /// What the answer lists.
    fn listings(&self, category: Category) -> Result<Vec<(&Symbol, Listing, Claim)>, String> {
        if self.ret_code != 0 {
            return Err(format!("is an error, `retCode` is {}", self.ret_code));
        }
        // The same symbol is another instrument in another category.
        if let Some(other) = self.result.category.as_deref().filter(|c| !c.is_empty() && *c != category.as_str()) {
            return Err(format!("is of the category `{}`, where `{}` should be", cut(other), category.as_str()));
        }
        let mut listings = Vec::with_capacity(self.result.list.len());
        for symbol in &self.result.list {
            if let Some((listing, claim)) = symbol.listing(category)? {
                listings.push((symbol, listing, claim));
            }
        }
        Ok(listings)
    }
}

/// The instruments of a listing, by the venue's symbols. It may be several answers one after the other, as long lists come
/// in pages.
///
/// # Errors
/// Says what about the listing cannot be read.
pub fn instruments(category: Category, listing: &[u8]) -> Result<Vec<(Box<str>, Listing)>, String> {
    let mut instruments = Vec::new();
    let mut answers = 0;
    for answer in serde_json::Deserializer::from_slice(listing).into_iter::<Answer>() {
        let answer = answer.map_err(|e| format!("is no answer of Bybit's `instruments-info`: {e}"))?;
        answers += 1;
        instruments.extend(answer.listings(category)?.into_iter().map(|(symbol, listing, _)| (symbol.symbol.as_str().into(), listing)));
    }
    if answers == 0 { Err("is no answer of Bybit's `instruments-info`: it is empty".into()) } else { Ok(instruments) }
}

/// Makes a listing that came as a frame into `instrument` records, valid from the time of the answer on.
pub(super) fn push(category: Category, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.instrument else { return Ok(Outcome::Ignored) };
    let answer: Answer = serde_json::from_slice(frame.payload)
        .map_err(|e| refuse("wrong_type", format!("the frame is no answer of Bybit's `instruments-info`: {e}")))?;
    let time = answer.time.ok_or_else(|| missing("time"))?;
    let event_time = micros(time).ok_or_else(|| refuse("bad_time", format!("`time` is {time}")))?;
    let listings = answer.listings(category).map_err(|e| refuse("wrong_type", format!("the listing cannot be read: {e}")))?;
    for (symbol, listing, claim) in &listings {
        let status = symbol.status.as_ref().map(|status| status.to_lowercase());
        builder.push(Instrument {
            venue: VENUE,
            market: listing.market.as_str(),
            symbol: &listing.symbol,
            event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            venue_symbol: &symbol.symbol,
            base: &listing.base,
            quote: &listing.quote,
            settlement: symbol.settle_coin.as_deref().filter(|coin| !coin.is_empty()),
            status: status.as_deref(),
            tick_size: symbol.tick_size(),
            lot_size: symbol.lot_size(),
            contract_size: listing.contract.map(|c| c.size),
            inverse: listing.contract.is_some_and(|c| c.inverse),
            expiry: symbol.delivery().filter(|_| expires(listing.market)),
            strike: claim.map(|(strike, _)| strike),
            option_type: claim.map(|(_, right)| right.as_str()),
        });
    }
    Ok(if listings.is_empty() { Outcome::Ignored } else { Outcome::Decoded })
}
