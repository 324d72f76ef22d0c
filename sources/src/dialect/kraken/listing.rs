//! Kraken's own listings: the REST answers `AssetPairs` (spot) and `instruments` (futures), and the channel `instrument`.

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::{Contract, Listing, Market};
use model::kinds::Instrument;
use model::time::Micros;
use serde::Deserialize;

use super::VENUE;
use super::symbols::{Products, asset, product};
use crate::dialect::digits::timestamp;
use crate::dialect::fields::{Refusal, missing, refuse};
use crate::dialect::json::{Scanner, Value};
use crate::dialect::reading::some_time;
use crate::dialect::symbols::Spelling;
use model::dialect::Listed;

/// A pair of `AssetPairs`; the names are Kraken's.
#[derive(Debug, Deserialize)]
struct Pair {
    altname: Option<String>,
    wsname: Option<String>,
    pair_decimals: Option<u32>,
    lot_decimals: Option<u32>,
    tick_size: Option<String>,
    status: Option<String>,
}

impl Pair {
    /// What the pair is: its name on WebSocket tells. A pair without such a name is another market of the same assets
    /// (`XXBTZUSD.d`, the dark pools of old).
    fn listing(&self) -> Option<Listing> {
        let (base, quote) = self.wsname.as_deref()?.split_once('/').filter(|(base, quote)| !base.is_empty() && !quote.is_empty())?;
        Some(Listing::spot(asset(base), asset(quote)))
    }
}

/// A step of so many fraction digits.
fn step(digits: Option<u32>) -> Option<Decimal> {
    format!("1e-{}", digits?).parse().ok().filter(|step| *step > Decimal::ZERO)
}

fn positive(text: &str) -> Option<Decimal> {
    text.parse().ok().filter(|step| *step > Decimal::ZERO)
}

/// The pairs of a listing by their names, in its order.
fn read_pairs(text: &[u8], result: Value) -> Result<Vec<(String, Pair)>, String> {
    let (mut pairs, mut failed) = (Vec::new(), None);
    let walk = Scanner::at(text, result).object(|s, key| {
        let value = s.value()?;
        match serde_json::from_slice::<Pair>(value.of(text)) {
            Ok(pair) => pairs.push((String::from_utf8_lossy(key).into_owned(), pair)),
            Err(error) => failed = failed.take().or(Some(error)),
        }
        Ok(())
    });
    walk.map_err(|flaw| flaw.to_string())?;
    match failed {
        Some(error) => Err(format!("is no answer of Kraken's `AssetPairs`: {error}")),
        None => Ok(pairs),
    }
}

/// The spot instruments of a listing, by each of the names that Kraken has for them: the key of REST, the short name, and
/// those of both protocols of WebSocket.
///
/// # Errors
/// Says what about the listing cannot be read.
pub fn pairs(listing: &[u8]) -> Result<Vec<Listed>, String> {
    let not = |flaw: String| format!("is no answer of Kraken's `AssetPairs`: {flaw}");
    let mut result = None;
    let mut scanner = Scanner::new(listing).map_err(|flaw| not(flaw.to_string()))?;
    let walk = scanner.object(|s, key| {
        let value = s.value()?;
        if key == b"result" {
            result = Some(value);
        }
        Ok(())
    });
    walk.and_then(|()| scanner.end()).map_err(|flaw| not(flaw.to_string()))?;
    let result = result.ok_or_else(|| not("it has no `result`".into()))?;
    let mut instruments = Vec::new();
    for (key, pair) in read_pairs(listing, result).map_err(not)? {
        let Some(listing) = pair.listing() else { continue };
        let second = format!("{}/{}", listing.base, listing.quote);
        let mut names: Vec<String> = [Some(key), pair.altname, pair.wsname, Some(second)].into_iter().flatten().collect();
        names.dedup();
        instruments.extend(names.into_iter().map(|name| (name.into(), listing.clone())));
    }
    Ok(instruments)
}

/// Makes `AssetPairs` that came as a frame into records. It carries no time: what it says is true when it comes.
pub(super) fn push_pairs(frame: FrameRef<'_>, result: Value, records: &mut Records) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.instrument else { return Ok(Outcome::Ignored) };
    let pairs = read_pairs(frame.payload, result).map_err(|e| refuse("wrong_type", format!("the frame {e}")))?;
    let Some(event_time) = frame.receive_time else { return some_time(None, frame).map(|()| Outcome::Ignored) };
    let before = builder.len();
    for (key, pair) in &pairs {
        let Some(listing) = pair.listing() else { continue };
        builder.push(Instrument {
            venue: VENUE,
            market: listing.market.as_str(),
            symbol: &listing.symbol,
            event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            venue_symbol: key,
            base: &listing.base,
            quote: &listing.quote,
            settlement: None,
            status: pair.status.as_ref().map(|status| status.to_lowercase()).as_deref(),
            // Before it was sent, the digits of a price were its step.
            tick_size: pair.tick_size.as_deref().map_or_else(|| step(pair.pair_decimals), positive),
            lot_size: step(pair.lot_decimals),
            contract_size: None,
            inverse: false,
            expiry: None,
            strike: None,
            option_type: None,
        });
    }
    Ok(if builder.len() > before { Outcome::Decoded } else { Outcome::Ignored })
}

/// The data of the channel `instrument`.
#[derive(Debug, Deserialize)]
struct Data {
    #[serde(default)]
    pairs: Vec<Reference>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    symbol: String,
    base: String,
    quote: String,
    status: Option<String>,
    price_increment: Option<serde_json::Number>,
    qty_increment: Option<serde_json::Number>,
    price_precision: Option<u32>,
    qty_precision: Option<u32>,
}

/// Makes a message of the channel `instrument` into records. It carries no time: what it says is true when it comes.
pub(super) fn push_instruments(frame: FrameRef<'_>, data: Value, records: &mut Records) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.instrument else { return Ok(Outcome::Ignored) };
    let data: Data = serde_json::from_slice(data.of(frame.payload))
        .map_err(|e| refuse("wrong_type", format!("`data` is none of the channel `instrument`: {e}")))?;
    let Some(event_time) = frame.receive_time else { return some_time(None, frame).map(|()| Outcome::Ignored) };
    for pair in &data.pairs {
        let listing = Listing::spot(asset(&pair.base), asset(&pair.quote));
        let number = |number: &Option<serde_json::Number>| number.as_ref().and_then(|number| positive(&number.to_string()));
        builder.push(Instrument {
            venue: VENUE,
            market: listing.market.as_str(),
            symbol: &listing.symbol,
            event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            venue_symbol: &pair.symbol,
            base: &listing.base,
            quote: &listing.quote,
            settlement: None,
            status: pair.status.as_ref().map(|status| status.to_lowercase()).as_deref(),
            tick_size: number(&pair.price_increment).or_else(|| step(pair.price_precision)),
            lot_size: number(&pair.qty_increment).or_else(|| step(pair.qty_precision)),
            contract_size: None,
            inverse: false,
            expiry: None,
            strike: None,
            option_type: None,
        });
    }
    Ok(if data.pairs.is_empty() { Outcome::Ignored } else { Outcome::Decoded })
}

/// The answer `instruments` of futures.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    instruments: Vec<Product>,
    server_time: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Product {
    symbol: String,
    #[serde(rename = "type")]
    sort: Option<String>,
    base: Option<String>,
    quote: Option<String>,
    tick_size: Option<serde_json::Number>,
    contract_size: Option<serde_json::Number>,
    contract_value_trade_precision: Option<i32>,
    last_trading_time: Option<String>,
    tradeable: Option<bool>,
    post_only: Option<bool>,
}

impl Product {
    /// What the product is; `None` for indices and whatever else is no future.
    fn listing(&self) -> Result<Option<Listing>, String> {
        let inverse = match self.sort.as_deref() {
            Some("futures_inverse") => true,
            Some("futures_vanilla" | "flexible_futures") => false,
            _ => return Ok(None),
        };
        let size: Decimal = match &self.contract_size {
            Some(size) => positive(&size.to_string()).ok_or_else(|| format!("the contract size of `{}` is {size}", self.symbol))?,
            None => return Err(format!("`{}` has no contract size", self.symbol)),
        };
        // A linear contract of one is the base asset itself.
        let contract = (inverse || size != Decimal::ONE).then_some(Contract { size, inverse });
        let letters = Products.read(&self.symbol);
        let (base, quote) = match (&self.base, &self.quote, &letters) {
            (Some(base), Some(quote), _) => (base.as_str(), quote.as_str()),
            (.., Some(letters)) => (letters.base.as_str(), letters.quote.as_str()),
            _ => return Err(format!("`{}` has no base and quote", self.symbol)),
        };
        let mut parts = self.symbol.split('_');
        let perpetual = parts.next().is_some_and(|sort| sort.starts_with(['P', 'p']));
        let listing = product(base, quote, parts.nth(1), perpetual, contract);
        listing.map(Some).ok_or_else(|| format!("the expiry in `{}` does not go with its sort", self.symbol))
    }

    fn expiry(&self) -> Option<Micros> {
        timestamp(self.last_trading_time.as_ref()?.as_bytes())
    }

    fn status(&self) -> Option<&'static str> {
        match (self.tradeable?, self.post_only) {
            (false, _) => Some("not_tradeable"),
            (true, Some(true)) => Some("post_only"),
            (true, _) => Some("tradeable"),
        }
    }

    /// 10⁻ⁿ for a precision of n, which is negative where sizes go by thousands.
    fn lot_size(&self) -> Option<Decimal> {
        let precision = self.contract_value_trade_precision?;
        positive(&format!("1e{}", precision.checked_neg()?))
    }
}

fn read_products(listing: &[u8]) -> Result<Answer, String> {
    serde_json::from_slice(listing).map_err(|e| format!("is no answer of Kraken's `instruments`: {e}"))
}

/// The futures of a listing by the venue's symbols, in capitals, too, as WebSocket has them.
///
/// # Errors
/// Says what about the listing cannot be read.
pub fn products(listing: &[u8]) -> Result<Vec<Listed>, String> {
    let mut instruments = Vec::new();
    for product in read_products(listing)?.instruments {
        let Some(listing) = product.listing()? else { continue };
        let capitals = product.symbol.to_uppercase();
        if capitals != product.symbol {
            instruments.push((capitals.into(), listing.clone()));
        }
        instruments.push((product.symbol.into(), listing));
    }
    Ok(instruments)
}

/// Makes `instruments` that came as a frame into records, valid from the server's time on.
pub(super) fn push_products(frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.instrument else { return Ok(Outcome::Ignored) };
    let answer = read_products(frame.payload).map_err(|e| refuse("wrong_type", format!("the frame {e}")))?;
    let time = answer.server_time.as_ref().ok_or_else(|| missing("serverTime"))?;
    let event_time =
        timestamp(time.as_bytes()).filter(|time| *time > 0).ok_or_else(|| refuse("bad_time", format!("`serverTime` is {time:?}")))?;
    let listed = answer.instruments.iter().map(|product| Ok((product, product.listing()?)));
    let listed: Vec<(&Product, Option<Listing>)> = listed.collect::<Result<_, String>>().map_err(|e| refuse("bad_number", e))?;
    let before = builder.len();
    for (product, listing) in &listed {
        let Some(listing) = listing else { continue };
        let inverse = listing.contract.is_some_and(|contract| contract.inverse);
        builder.push(Instrument {
            venue: VENUE,
            market: listing.market.as_str(),
            symbol: &listing.symbol,
            event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            venue_symbol: &product.symbol,
            base: &listing.base,
            quote: &listing.quote,
            settlement: Some(if inverse { &listing.base } else { &listing.quote }),
            status: product.status(),
            tick_size: product.tick_size.as_ref().and_then(|tick| positive(&tick.to_string())),
            lot_size: product.lot_size(),
            contract_size: product.contract_size.as_ref().and_then(|size| positive(&size.to_string())),
            inverse,
            expiry: product.expiry().filter(|_| listing.market == Market::Future),
            strike: None,
            option_type: None,
        });
    }
    Ok(if builder.len() > before { Outcome::Decoded } else { Outcome::Ignored })
}
