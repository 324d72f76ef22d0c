//! Binance's own listing of its instruments: the REST answer `exchangeInfo`.

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::{Listing, Market};
use model::kinds::Instrument;
use model::time::Micros;
use serde::Deserialize;

use super::events::VENUE;
use super::symbols::{Exchange, inverse};
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

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    filter_type: String,
    tick_size: Option<String>,
    step_size: Option<String>,
}

impl Symbol {
    /// What the symbol stands for; `None` for one that is not traded yet and has no contract type.
    fn listing(&self, exchange: Exchange) -> Result<Option<Listing>, String> {
        let (base, quote) = (&self.base_asset, &self.quote_asset);
        let contract = match (&self.contract_size, exchange) {
            (Some(size), Exchange::CoinM) => {
                let size: Decimal =
                    size.to_string().parse().map_err(|e| format!("the contract size of `{}` is {size}, which {e}", self.symbol))?;
                Some(inverse(size))
            }
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

    fn step(&self, filter: &str, value: impl Fn(&Filter) -> Option<&String>) -> Option<Decimal> {
        let text = self.filters.iter().find(|f| f.filter_type == filter).and_then(value)?;
        text.parse().ok().filter(|step| *step > Decimal::ZERO)
    }
}

fn read(listing: &[u8]) -> Result<ExchangeInfo, String> {
    serde_json::from_slice(listing).map_err(|e| format!("is no answer of Binance's `exchangeInfo`: {e}"))
}

/// The instruments of a listing, by the venue's symbols.
///
/// # Errors
/// Says what about the listing cannot be read.
pub fn instruments(exchange: Exchange, listing: &[u8]) -> Result<Vec<(Box<str>, Listing)>, String> {
    let mut instruments = Vec::new();
    for symbol in read(listing)?.symbols {
        if let Some(listing) = symbol.listing(exchange)? {
            instruments.push((symbol.symbol.into(), listing));
        }
    }
    Ok(instruments)
}

/// Makes a listing that came as a frame into `instrument` records, valid from the server's time on.
pub(super) fn push(exchange: Exchange, frame: FrameRef<'_>, pass: Pass, records: &mut Records) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.instrument else { return Ok(Outcome::Ignored) };
    let info = read(frame.payload).map_err(|e| refuse("wrong_type", format!("the frame {e}")))?;
    let time = info.server_time.ok_or_else(|| missing("serverTime"))?;
    let event_time = micros(time).ok_or_else(|| refuse("bad_time", format!("`serverTime` is {time}")))?;
    let listed: Result<Vec<_>, Refusal> =
        info.symbols.iter().map(|s| s.listing(exchange).map(|l| (s, l)).map_err(|e| refuse("bad_number", e))).collect();
    let mut outcome = Outcome::Ignored;
    for (symbol, listing) in listed?.iter().filter_map(|(s, l)| l.as_ref().map(|l| (s, l))) {
        outcome = Outcome::Decoded;
        if pass == Pass::Check {
            continue;
        }
        let expiry: Option<Micros> = symbol.delivery_date.filter(|_| listing.market == Market::Future).and_then(micros);
        let status = symbol.status.as_ref().or(symbol.contract_status.as_ref()).map(|s| s.to_lowercase());
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
            settlement: symbol.margin_asset.as_deref(),
            status: status.as_deref(),
            tick_size: symbol.step("PRICE_FILTER", |f| f.tick_size.as_ref()),
            lot_size: symbol.step("LOT_SIZE", |f| f.step_size.as_ref()),
            contract_size: listing.contract.map(|c| c.size),
            inverse: listing.contract.is_some_and(|c| c.inverse),
            expiry,
            strike: None,
            option_type: None,
        });
    }
    Ok(outcome)
}
