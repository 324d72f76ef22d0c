//! Coinbase's own listings of its products: the REST answers `products` of both interfaces, and the channel `status`.
//!
//! Every future is quoted and settled in the same asset and worth a fixed size of another: a linear contract. Several futures
//! of one asset expire on one day (`BIT`, a hundredth of a bitcoin, and `BTI`, a whole one), so their symbols begin with the
//! venue's code of the contract and not with the asset, which stands in the column `base`.

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::{Contract, Listing, Market};
use model::kinds::{FundingRate, IndexPrice, Instrument, OpenInterest, VenueStatus};
use model::time::{Micros, display};
use serde::Deserialize;

use super::events::VENUE;
use super::symbols::Api;
use crate::dialect::digits::timestamp;
use crate::dialect::fields::{Refusal, refuse};
use crate::dialect::reading::some_time;
use crate::dialect::symbols::Symbols;

/// The part of a product that we use, by the names of both interfaces.
#[derive(Debug, Deserialize)]
struct Product {
    #[serde(alias = "product_id")]
    id: String,
    product_type: Option<String>,
    #[serde(alias = "base_currency_id")]
    base_currency: Option<String>,
    #[serde(alias = "quote_currency_id")]
    quote_currency: Option<String>,
    base_increment: Option<String>,
    quote_increment: Option<String>,
    price_increment: Option<String>,
    status: Option<String>,
    status_message: Option<String>,
    trading_disabled: Option<bool>,
    is_disabled: Option<bool>,
    view_only: Option<bool>,
    cancel_only: Option<bool>,
    auction_mode: Option<bool>,
    post_only: Option<bool>,
    limit_only: Option<bool>,
    future_product_details: Option<Details>,
}

/// What there is to know of a future or perpetual.
#[derive(Debug, Deserialize)]
struct Details {
    contract_code: Option<String>,
    contract_expiry: Option<String>,
    contract_expiry_type: Option<String>,
    contract_root_unit: Option<String>,
    contract_size: Option<String>,
    funding_interval: Option<String>,
    index_price: Option<String>,
    #[serde(flatten)]
    figures: Figures,
    /// Where older answers, and those of perpetuals, have the figures.
    perpetual_details: Option<Figures>,
}

#[derive(Debug, Deserialize)]
struct Figures {
    open_interest: Option<String>,
    funding_rate: Option<String>,
    funding_time: Option<String>,
}

/// What has products in it: an answer, or a message of the channel `status`.
#[derive(Debug, Deserialize)]
struct Answer {
    products: Option<Vec<Product>>,
    events: Option<Vec<Products>>,
}

#[derive(Debug, Deserialize)]
struct Products {
    #[serde(default)]
    products: Vec<Product>,
}

/// A text that says something.
fn said(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

impl Product {
    /// What the product stands for; `None` for one of which not enough is told.
    fn listing(&self) -> Result<Option<Listing>, String> {
        let (base, quote) = (said(&self.base_currency), said(&self.quote_currency));
        let Some(quote) = quote else { return Ok(None) };
        match (self.product_type.as_deref(), &self.future_product_details) {
            (None | Some("SPOT"), _) => Ok(base.map(|base| Listing::spot(base, quote))),
            (Some("FUTURE"), Some(details)) => self.contract(details, quote),
            _ => Ok(None),
        }
    }

    fn contract(&self, details: &Details, quote: &str) -> Result<Option<Listing>, String> {
        let (Some(root), Some(size)) = (said(&details.contract_root_unit), said(&details.contract_size)) else { return Ok(None) };
        let size: Decimal = size.parse().map_err(|e| format!("the contract size of `{}` is {size}, which {e}", self.id))?;
        if size <= Decimal::ZERO {
            return Err(format!("the contract size of `{}` is {size}", self.id));
        }
        let code = said(&details.contract_code).or_else(|| self.id.split('-').next()).unwrap_or(root);
        let contract = Some(Contract { size, inverse: false });
        let listing = match (details.contract_expiry_type.as_deref(), self.expiry()?) {
            // The international exchange counts in the base asset and calls one of it a contract.
            (Some("PERPETUAL"), _) => Listing::perpetual(code, quote, contract.filter(|_| size != Decimal::ONE)),
            (_, Some(expiry)) => {
                let day = display(expiry);
                let day: String = [2..4, 5..7, 8..10].into_iter().filter_map(|digits| day.get(digits)).collect();
                Listing::future(code, quote, &day, contract)
            }
            _ => return Ok(None),
        };
        Ok(Some(Listing { base: root.into(), ..listing }))
    }

    fn expiry(&self) -> Result<Option<Micros>, String> {
        let expiry = self.future_product_details.as_ref().and_then(|details| said(&details.contract_expiry));
        expiry.map(|text| time(text).ok_or_else(|| format!("`{}` expires at \"{text}\", which is no time", self.id))).transpose()
    }

    /// What can be done with the product: the venue's word for its state, or the narrowest of its restrictions.
    fn state(&self) -> Option<String> {
        let word = said(&self.status).map(str::to_lowercase);
        if word.as_deref().is_some_and(|word| word != "online") {
            return word;
        }
        let restrictions = [
            (self.trading_disabled, "trading_disabled"),
            (self.is_disabled, "disabled"),
            (self.view_only, "view_only"),
            (self.cancel_only, "cancel_only"),
            (self.auction_mode, "auction_mode"),
            (self.post_only, "post_only"),
            (self.limit_only, "limit_only"),
        ];
        restrictions.into_iter().find(|(set, _)| *set == Some(true)).map(|(_, name)| name.into()).or(word)
    }

    /// A figure of a future that the venue works out.
    fn figure(&self, name: &'static str, text: Option<&str>) -> Result<Option<Decimal>, Refusal> {
        let read = |text: &str| {
            Decimal::parse_rounded(text.as_bytes())
                .map_err(|e| refuse("bad_number", format!("`{name}` of `{}` is \"{text}\", which {e}", self.id)))
        };
        text.map(read).transpose()
    }
}

fn time(text: &str) -> Option<Micros> {
    timestamp(text.as_bytes()).filter(|time| *time > 0)
}

/// The seconds of an interval, `3600s`.
fn seconds(interval: &str) -> Option<i64> {
    interval.strip_suffix('s')?.parse().ok().filter(|seconds| *seconds > 0)
}

fn step(text: Option<&str>) -> Option<Decimal> {
    text?.parse().ok().filter(|step| *step > Decimal::ZERO)
}

fn read(text: &[u8]) -> Result<Vec<Product>, String> {
    let products = if text.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(text)
    } else {
        serde_json::from_slice::<Answer>(text).and_then(|answer| match answer {
            Answer { products: Some(products), .. } => Ok(products),
            Answer { events: Some(events), .. } => Ok(events.into_iter().flat_map(|event| event.products).collect()),
            _ => serde_json::from_slice(text).map(|product| vec![product]),
        })
    };
    products.map_err(|e| format!("is no listing of Coinbase's products: {e}"))
}

/// The instruments of a listing, by the venue's product ids.
///
/// # Errors
/// Says what about the listing cannot be read.
pub fn instruments(listing: &[u8]) -> Result<Vec<(Box<str>, Listing)>, String> {
    let mut instruments = Vec::new();
    for product in read(listing)? {
        if let Some(listing) = product.listing()? {
            instruments.push((product.id.into(), listing));
        }
    }
    Ok(instruments)
}

/// A product with everything that its records need.
struct Row<'p> {
    product: &'p Product,
    listing: Listing,
    contract_size: Option<Decimal>,
    open_interest: Option<(Option<Decimal>, Decimal)>,
    rate: Option<(Decimal, Option<Micros>)>,
    index: Option<Decimal>,
}

impl<'p> Row<'p> {
    /// `None` for a product that has none.
    fn of(product: &'p Product) -> Result<Option<Self>, Refusal> {
        let Some(listing) = product.listing().map_err(|e| refuse("bad_number", e))? else { return Ok(None) };
        let Some(details) = product.future_product_details.as_ref().filter(|_| listing.market != Market::Spot) else {
            let (contract_size, open_interest, rate, index) = (None, None, None, None);
            return Ok(Some(Row { product, listing, contract_size, open_interest, rate, index }));
        };
        let perpetual = details.perpetual_details.as_ref();
        let either = |of: fn(&Figures) -> &Option<String>| said(of(&details.figures)).or_else(|| perpetual.and_then(|p| said(of(p))));
        let open_interest = match (product.figure("open_interest", either(|f| &f.open_interest))?, listing.contract) {
            (Some(contracts), Some(Contract { size, .. })) => {
                let base = contracts.mul_rounded(size);
                Some((Some(contracts), base.ok_or_else(|| refuse("overflow", format!("{contracts} contracts of {size} are too many")))?))
            }
            (open_interest, _) => open_interest.map(|base| (None, base)),
        };
        let rate = product.figure("funding_rate", either(|f| &f.funding_rate))?;
        let funding_time = either(|f| &f.funding_time).map(|text| {
            time(text).ok_or_else(|| refuse("bad_time", format!("`funding_time` of `{}` is \"{text}\", which is no time", product.id)))
        });
        let rate = rate.map(|rate| funding_time.transpose().map(|time| (rate, time))).transpose()?;
        let index = product.figure("index_price", said(&details.index_price))?.filter(|price| *price > Decimal::ZERO);
        let contract_size = step(said(&details.contract_size));
        Ok(Some(Row { product, listing, contract_size, open_interest, rate, index }))
    }
}

/// Makes a listing that came as a frame into records. It carries no time of its own: what it says is true when it comes.
pub(super) fn push(frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
    let wanted =
        [records.instrument.is_some(), records.open_interest.is_some(), records.funding_rate.is_some(), records.index_price.is_some()];
    if !wanted.contains(&true) {
        return Ok(Outcome::Ignored);
    }
    let products = read(frame.payload).map_err(|e| refuse("wrong_type", format!("the frame {e}")))?;
    let Some(received) = frame.receive_time else { return some_time(None, frame).map(|()| Outcome::Ignored) };
    let rows: Vec<Row<'_>> = products.iter().filter_map(|product| Row::of(product).transpose()).collect::<Result<_, _>>()?;
    let before = records.len();
    let (receive_time, number) = (frame.receive_time, Some(frame.frame));
    for Row { product, listing, contract_size, open_interest, rate, index } in &rows {
        let (market, symbol) = (listing.market.as_str(), listing.symbol.as_str());
        if let Some(builder) = &mut records.instrument {
            builder.push(Instrument {
                venue: VENUE,
                market,
                symbol,
                event_time: received,
                receive_time,
                frame: number,
                venue_symbol: &product.id,
                base: &listing.base,
                quote: &listing.quote,
                settlement: Some(listing.quote.as_str()).filter(|_| listing.market != Market::Spot),
                status: product.state().as_deref(),
                tick_size: step(said(&product.price_increment).or_else(|| said(&product.quote_increment))),
                lot_size: step(said(&product.base_increment)),
                contract_size: *contract_size,
                inverse: false,
                expiry: product.expiry().ok().flatten().filter(|_| listing.market == Market::Future),
                strike: None,
                option_type: None,
            });
        }
        if let (Some(builder), Some((contracts, base))) = (&mut records.open_interest, open_interest) {
            let (contracts, base) = (*contracts, Some(*base));
            builder.push(OpenInterest {
                venue: VENUE,
                market,
                symbol,
                event_time: received,
                receive_time,
                frame: number,
                contracts,
                base,
                quote: None,
            });
        }
        if let (Some(builder), Some((rate, time))) = (&mut records.funding_rate, rate) {
            let interval = product.future_product_details.as_ref().and_then(|details| said(&details.funding_interval));
            builder.push(FundingRate {
                venue: VENUE,
                market,
                symbol,
                event_time: time.unwrap_or(received),
                receive_time,
                frame: number,
                rate: *rate,
                predicted_rate: None,
                interval_seconds: interval.and_then(seconds),
                next_funding_time: None,
            });
        }
        if let (Some(builder), Some(price)) = (&mut records.index_price, index) {
            builder.push(IndexPrice { venue: VENUE, market, symbol, event_time: received, receive_time, frame: number, price: *price });
        }
    }
    Ok(if records.len() > before { Outcome::Decoded } else { Outcome::Ignored })
}

/// Makes a message of the channel `status` into the state of every product that is known.
pub(super) fn push_status(
    frame: FrameRef<'_>,
    event_time: Option<Micros>,
    symbols: &mut Symbols<Api>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let Some(builder) = &mut records.venue_status else { return Ok(Outcome::Ignored) };
    let products = read(frame.payload).map_err(|e| refuse("wrong_type", format!("the frame {e}")))?;
    some_time(event_time, frame)?;
    let mut outcome = Outcome::Ignored;
    for product in &products {
        let Some(status) = product.state() else { continue };
        // A future is told whole only by the REST answer.
        let Some(listing) = symbols.find(product.id.as_bytes()) else { continue };
        outcome = Outcome::Decoded;
        builder.push(VenueStatus {
            venue: VENUE,
            market: Some(listing.market.as_str()),
            symbol: Some(&listing.symbol),
            event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            status: &status,
            message: said(&product.status_message),
        });
    }
    Ok(outcome)
}
