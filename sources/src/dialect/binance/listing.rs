//! Binance's own listing of its instruments: the REST answer `exchangeInfo`.

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::{Contract, Listing, Market, Right};
use model::kinds::Instrument;
use serde::Deserialize;

use super::events::VENUE;
use super::symbols::{Exchange, OptionParts, inverse, option_parts};
use crate::dialect::fields::{Refusal, micros, missing, refuse};
use crate::dialect::reading::Pass;
use crate::dialect::symbols::is_date;

/// The part of the answer that we use; the names are Binance's.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExchangeInfo {
    server_time: Option<i64>,
    symbols: Vec<Symbol>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Symbol {
    symbol: String,
    base_asset: String,
    quote_asset: String,
    margin_asset: Option<String>,
    status: Option<String>,
    contract_status: Option<String>,
    contract_type: Option<String>,
    contract_size: Option<serde_json::Number>,
    delivery_date: Option<i64>,
    #[serde(default)]
    filters: Vec<Filter>,
}

/// The part of the answer for options that we use.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OptionInfo {
    server_time: Option<i64>,
    #[serde(default)]
    option_contracts: Vec<Underlying>,
    option_symbols: Vec<OptionSymbol>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Underlying {
    underlying: String,
    settle_asset: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OptionSymbol {
    symbol: String,
    underlying: String,
    quote_asset: String,
    strike_price: String,
    expiry_date: i64,
    unit: serde_json::Number,
    status: Option<String>,
    #[serde(default)]
    filters: Vec<Filter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    filter_type: String,
    tick_size: Option<String>,
    step_size: Option<String>,
}

/// What a listing says of an instrument.
struct Listed {
    symbol: String,
    listing: Listing,
    settlement: Option<String>,
    status: Option<String>,
    filters: Vec<Filter>,
    contract_size: Option<Decimal>,
    expiry: Option<i64>,
    claim: Option<(Decimal, Right)>,
}

impl Symbol {
    /// What the symbol stands for; `None` for one that is not traded yet and has no contract type.
    fn listing(&self, exchange: Exchange) -> Result<Option<Listing>, String> {
        let (base, quote) = (&self.base_asset, &self.quote_asset);
        let contract = match (&self.contract_size, exchange) {
            (Some(size), Exchange::CoinM) => Some(inverse(decimal(&self.symbol, "contract size", size)?)),
            (None, Exchange::CoinM) => return Err(format!("`{}` has no contract size", self.symbol)),
            _ => None,
        };
        let expiry = self.symbol.split_once('_').map(|(_, expiry)| expiry).filter(|e| is_date(e));
        Ok(match (exchange, expiry, self.contract_type.as_deref()) {
            (Exchange::Spot, ..) => Some(Listing::spot(base, quote)),
            (_, Some(expiry), _) => Some(Listing::future(base, quote, expiry, contract)),
            // There are perpetuals of several sorts, e.g. `TRADIFI_PERPETUAL`.
            (_, None, Some(kind)) if kind.ends_with("PERPETUAL") => Some(Listing::perpetual(base, quote, contract)),
            _ => None,
        })
    }

    fn listed(self, exchange: Exchange) -> Result<Option<Listed>, String> {
        let Some(listing) = self.listing(exchange)? else { return Ok(None) };
        Ok(Some(Listed {
            contract_size: listing.contract.map(|contract| contract.size),
            expiry: self.delivery_date.filter(|_| listing.market == Market::Future),
            symbol: self.symbol,
            listing,
            settlement: self.margin_asset,
            status: self.status.or(self.contract_status),
            filters: self.filters,
            claim: None,
        }))
    }
}

impl OptionSymbol {
    /// What the symbol stands for; `None` where its letters are not those of an option.
    fn listed(self, underlyings: &[Underlying]) -> Result<Option<Listed>, String> {
        let Some(OptionParts { base, date, strike, right }) = option_parts(&self.symbol) else { return Ok(None) };
        let size = decimal(&self.symbol, "unit", &self.unit)?;
        if size <= Decimal::ZERO {
            return Err(format!("the unit of `{}` is {size}", self.symbol));
        }
        // Where a contract is one of the base asset, sizes are in the base asset.
        let contract = (size != Decimal::from_integer(1)).then_some(Contract { size, inverse: false });
        let listing = Listing::option(base, &self.quote_asset, date, strike, right, contract);
        let strike =
            self.strike_price.parse().map_err(|e| format!("the strike price of `{}` is {}, which {e}", self.symbol, self.strike_price))?;
        let underlying = underlyings.iter().find(|underlying| underlying.underlying == self.underlying);
        Ok(Some(Listed {
            symbol: self.symbol,
            listing,
            settlement: underlying.and_then(|underlying| underlying.settle_asset.clone()),
            status: self.status,
            filters: self.filters,
            contract_size: Some(size),
            expiry: Some(self.expiry_date),
            claim: Some((strike, right)),
        }))
    }
}

impl Listed {
    fn step(&self, filter: &str, value: impl Fn(&Filter) -> Option<&String>) -> Option<Decimal> {
        let text = self.filters.iter().find(|f| f.filter_type == filter).and_then(value)?;
        text.parse().ok().filter(|step| *step > Decimal::ZERO)
    }
}

/// A size that stands in a listing as a number.
fn decimal(symbol: &str, what: &str, size: &serde_json::Number) -> Result<Decimal, String> {
    size.to_string().parse().map_err(|e| format!("the {what} of `{symbol}` is {size}, which {e}"))
}

/// An answer, as far as it is JSON of the right shape.
enum Info {
    Others(ExchangeInfo),
    Options(OptionInfo),
}

impl Info {
    fn read(exchange: Exchange, listing: &[u8]) -> Result<Info, String> {
        let info = match exchange {
            Exchange::Options => serde_json::from_slice(listing).map(Info::Options),
            _ => serde_json::from_slice(listing).map(Info::Others),
        };
        info.map_err(|e| format!("is no answer of Binance's `exchangeInfo`: {e}"))
    }

    fn server_time(&self) -> Option<i64> {
        match self {
            Info::Others(info) => info.server_time,
            Info::Options(info) => info.server_time,
        }
    }

    /// What it lists, in its order.
    fn listed(self, exchange: Exchange) -> Result<Vec<Listed>, String> {
        match self {
            Info::Others(info) => info.symbols.into_iter().filter_map(|symbol| symbol.listed(exchange).transpose()).collect(),
            Info::Options(OptionInfo { option_contracts, option_symbols, .. }) => {
                option_symbols.into_iter().filter_map(|symbol| symbol.listed(&option_contracts).transpose()).collect()
            }
        }
    }
}

/// The instruments of a listing, by the venue's symbols.
///
/// # Errors
/// Says what about the listing cannot be read.
pub fn instruments(exchange: Exchange, listing: &[u8]) -> Result<Vec<(Box<str>, Listing)>, String> {
    let listed = Info::read(exchange, listing)?.listed(exchange)?;
    Ok(listed.into_iter().map(|listed| (listed.symbol.into(), listed.listing)).collect())
}

/// Makes a listing that came as a frame into `instrument` records, valid from the server's time on.
pub(super) fn push(exchange: Exchange, frame: FrameRef<'_>, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.instrument else { return Ok(Outcome::Ignored) };
    let info = Info::read(exchange, frame.payload).map_err(|e| refuse("wrong_type", format!("the frame {e}")))?;
    let time = info.server_time().ok_or_else(|| missing("serverTime"))?;
    let event_time = micros(time).ok_or_else(|| refuse("bad_time", format!("`serverTime` is {time}")))?;
    let listed = info.listed(exchange).map_err(|e| refuse("bad_number", e))?;
    let outcome = if listed.is_empty() { Outcome::Ignored } else { Outcome::Decoded };
    if pass == Pass::Check {
        return Ok(outcome);
    }
    for instrument in &listed {
        let listing = &instrument.listing;
        builder.push(Instrument {
            venue: VENUE,
            market: listing.market.as_str(),
            symbol: &listing.symbol,
            event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            venue_symbol: &instrument.symbol,
            base: &listing.base,
            quote: &listing.quote,
            settlement: instrument.settlement.as_deref(),
            status: instrument.status.as_ref().map(|status| status.to_lowercase()).as_deref(),
            tick_size: instrument.step("PRICE_FILTER", |f| f.tick_size.as_ref()),
            lot_size: instrument.step("LOT_SIZE", |f| f.step_size.as_ref()),
            contract_size: instrument.contract_size,
            inverse: listing.contract.is_some_and(|c| c.inverse),
            expiry: instrument.expiry.and_then(micros),
            strike: instrument.claim.map(|(strike, _)| strike),
            option_type: instrument.claim.map(|(_, right)| right.as_str()),
        });
    }
    Ok(outcome)
}
