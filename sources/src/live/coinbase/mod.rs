//! Coinbase: its channels and requests, of the interfaces Advanced Trade and Exchange.
//!
//! Both lead to the same books and trades, and trades are numbered alike, but all else differs: each has a protocol of its own,
//! [`advanced`] and [`exchange`]. Connections are kept alive by a channel of heartbeats, which is subscribed to once over each.
//!
//! Sources: the page on Coinbase in the manual, section "Live".

use std::time::Duration;

use model::instrument::{Listing, Market as Traded};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::follow::Last;
use super::venue::{Ask, Channel, Instrument, Limits, Market, POLL, Poll, Protocol, Tells, Venue, Verdict, Wanted, by_kind};
use crate::dialect::digits;

mod advanced;
mod exchange;

/// The venue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Coinbase;

const ADVANCED: Market = Market {
    name: "advanced",
    dialect: "coinbase_advanced",
    socket: "wss://advanced-trade-ws.coinbase.com",
    rest: "https://api.coinbase.com",
    limits: LIMITS,
};
const EXCHANGE: Market = Market {
    name: "exchange",
    dialect: "coinbase_exchange",
    socket: "wss://ws-feed.exchange.coinbase.com",
    rest: "https://api.exchange.coinbase.com",
    limits: Limits { channels: 200, at_once: 200, ..LIMITS },
};

/// Eight connections, eight messages and ten requests a second are allowed. How many channels a connection may carry is not told, nor
/// a longest life. A book begins with all of its levels, so a connection of Advanced Trade gets few. A heartbeat comes each second.
const LIMITS: Limits = Limits {
    channels: 50,
    at_once: 50,
    message_pause: Duration::from_millis(130),
    connect_pause: Duration::from_millis(250),
    lifetime: Duration::from_secs(86_400 - 600),
    silence: Duration::from_secs(30),
    ping: None,
    weight: 10,
    window: Duration::from_secs(1),
};

/// The channel that tells of Exchange's products, all of them at once.
const STATUS: &str = "status";
/// Trades that one request can give.
const TRADES_AT_ONCE: u64 = 1_000;

/// A page of a listing, as far as it says whether there is another.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    products: Vec<&'a RawValue>,
    pagination: Option<Pagination>,
}

#[derive(Deserialize)]
struct Pagination {
    #[serde(default)]
    has_next: bool,
}

/// What an answer says that is none.
#[derive(Deserialize)]
struct Complaint<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

/// A trade of the past, as far as it is followed: numbered on Exchange by a number, on Advanced Trade by a text.
#[derive(Deserialize)]
struct Past<'a> {
    #[serde(borrow)]
    trade_id: &'a RawValue,
    time: &'a str,
}

/// The number and time of a trade of the past.
fn past(trade: &RawValue) -> Option<Last> {
    let Past { trade_id, time } = serde_json::from_str(trade.get()).ok()?;
    Some(Last { number: trade_id.get().trim_matches('"').parse().ok()?, time: digits::timestamp(time.as_bytes())? })
}

/// What Advanced Trade tells of where an instrument is wanted. Pairs against USDC share the book of those against USD, and are told
/// by its name; but for those of other coins that are worth a dollar or a euro.
fn told(market: &Market, instrument: &Instrument) -> Instrument {
    match instrument.symbol.strip_suffix("-USDC") {
        Some(base) if market.name == ADVANCED.name && !matches!(base, "USDT" | "EURC") => {
            Instrument { symbol: format!("{base}-USD").into(), listing: Listing::spot(base, "USD") }
        }
        _ => instrument.clone(),
    }
}

impl Venue for Coinbase {
    fn name(&self) -> &'static str {
        "coinbase"
    }

    fn markets(&self) -> &'static [Market] {
        &[ADVANCED, EXCHANGE]
    }

    fn listing(&self, market: &Market) -> Vec<Ask> {
        let ask = |path: &str| Ask { path: path.into(), topic: String::new(), weight: 1 };
        if market.name == EXCHANGE.name {
            return vec![ask("/products")];
        }
        // Without a type, and of futures without a type of expiry, some are left out.
        ["product_type=SPOT", "product_type=FUTURE&contract_expiry_type=EXPIRING", "product_type=FUTURE&contract_expiry_type=PERPETUAL"]
            .map(|query| ask(&format!("/api/v3/brokerage/market/products?{query}")))
            .into()
    }

    fn listing_goes_on(&self, _market: &Market, ask: &Ask, answer: &[u8]) -> Vec<Ask> {
        let Ok(Page { products, pagination: Some(Pagination { has_next: true }) }) = serde_json::from_slice(answer) else {
            return Vec::new();
        };
        if products.is_empty() {
            return Vec::new();
        }
        let (first, offset) = ask.path.split_once("&offset=").unwrap_or((&ask.path, "0"));
        let offset = offset.parse().unwrap_or(0) + products.len();
        vec![Ask { path: format!("{first}&offset={offset}"), ..ask.clone() }]
    }

    fn tells(&self, market: &Market, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Trade | Wanted::Quote | Wanted::VenueStatus => true,
            // That of Exchange has no numbers: nobody would notice that a change is missing.
            Wanted::Book | Wanted::FundingRate | Wanted::IndexPrice | Wanted::OpenInterest => market.name == ADVANCED.name,
            Wanted::MarkPrice | Wanted::Liquidation | Wanted::LongShortRatio | Wanted::VolatilityIndex => false,
        }
    }

    fn channels(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Channel> {
        let advanced = market.name == ADVANCED.name;
        let (kind, tells) = match wanted {
            Wanted::Trade => (if advanced { "market_trades" } else { "matches" }, Tells::Trades),
            Wanted::Book if advanced => ("level2", Tells::Book),
            Wanted::Quote => ("ticker", Tells::State),
            Wanted::VenueStatus if advanced => (STATUS, Tells::Seldom),
            _ => return Vec::new(),
        };
        let instrument = told(market, instrument);
        vec![Channel { route: "", name: format!("{kind}:{}", instrument.symbol), instrument: Some(instrument), tells }]
    }

    fn market_channels(&self, market: &Market, wanted: Wanted) -> Vec<Channel> {
        if market.name != EXCHANGE.name || wanted != Wanted::VenueStatus {
            return Vec::new();
        }
        vec![Channel { route: "", name: STATUS.into(), instrument: None, tells: Tells::Seldom }]
    }

    fn polls(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Poll> {
        let figure = matches!(wanted, Wanted::FundingRate | Wanted::IndexPrice | Wanted::OpenInterest);
        if !figure || !self.tells(market, wanted) || instrument.listing.market == Traded::Spot {
            return Vec::new();
        }
        let id = &instrument.symbol;
        let ask = Ask { path: format!("/api/v3/brokerage/market/products/{id}"), topic: format!("{id}@products"), weight: 1 };
        vec![Poll { ask, every: POLL }]
    }

    fn subscribe(&self, market: &Market, channels: &[Channel], number: u64) -> Vec<String> {
        let kinds = by_kind(channels);
        if market.name == EXCHANGE.name {
            return vec![exchange::subscribe(&kinds, number == 1)];
        }
        let heartbeats = (number == 1).then(advanced::heartbeats);
        kinds.into_iter().map(|(kind, products)| advanced::say("subscribe", kind, &products)).chain(heartbeats).collect()
    }

    fn unsubscribe(&self, market: &Market, channel: &Channel, _number: u64) -> String {
        let (kind, product) = channel.name.split_once(':').unwrap_or((&channel.name, ""));
        if market.name == EXCHANGE.name { exchange::unsubscribe(kind, product) } else { advanced::say("unsubscribe", kind, &[product]) }
    }

    fn protocol(&self, market: &Market, channels: &[Channel]) -> Box<dyn Protocol> {
        if market.name == EXCHANGE.name { Box::new(exchange::Exchange::new(channels)) } else { Box::new(advanced::Advanced::new(channels)) }
    }

    fn verdict(&self, status: StatusCode, answer: &[u8]) -> Verdict {
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Verdict::TooMuch(LIMITS.window);
        }
        // A list is none: it would be taken for the members in their order.
        let complaint = answer.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice::<Complaint<'_>>(answer).ok()).flatten();
        let complains = complaint.is_some_and(|complaint| complaint.error.is_some() || complaint.message.is_some());
        if complains && status.is_success() { Verdict::Never } else { Verdict::by_status(status) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::instrument::Contract;
    use serde_json::{Value as Json, json};

    pub(super) fn pair() -> Instrument {
        Instrument { symbol: "BTC-USD".into(), listing: Listing::spot("BTC", "USD") }
    }

    fn future() -> Instrument {
        let contract = Some(Contract { size: "0.01".parse().unwrap(), inverse: false });
        Instrument { symbol: "BIT-24APR26-CDE".into(), listing: Listing::future("BIT", "USD", "260424", contract) }
    }

    /// What listens to the channels of pairs, in this order.
    fn listener(market: &Market, pairs: &[&str], wanted: &[Wanted]) -> Box<dyn Protocol> {
        let instrument = |symbol: &str| {
            let (base, quote) = symbol.split_once('-').unwrap();
            Instrument { symbol: symbol.into(), listing: Listing::spot(base, quote) }
        };
        let of_market = wanted.iter().flat_map(|wanted| Coinbase.market_channels(market, *wanted));
        let each = |pair: &&str| wanted.iter().flat_map(|wanted| Coinbase.channels(market, &instrument(pair), *wanted)).collect::<Vec<_>>();
        Coinbase.protocol(market, &pairs.iter().flat_map(each).chain(of_market).collect::<Vec<_>>())
    }

    pub(super) fn advanced(pairs: &[&str], wanted: &[Wanted]) -> Box<dyn Protocol> {
        listener(&ADVANCED, pairs, wanted)
    }

    pub(super) fn exchange(pairs: &[&str], wanted: &[Wanted]) -> Box<dyn Protocol> {
        listener(&EXCHANGE, pairs, wanted)
    }

    #[test]
    fn channels_and_polls_follow_from_what_is_wanted() {
        let names = |market: &Market, instrument: &Instrument, wanted| {
            let channels = [Coinbase.channels(market, instrument, wanted), Coinbase.market_channels(market, wanted)].concat();
            channels.into_iter().map(|channel| channel.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&ADVANCED, &pair(), Wanted::Trade), ["market_trades:BTC-USD"]);
        assert_eq!(names(&ADVANCED, &pair(), Wanted::Book), ["level2:BTC-USD"]);
        assert_eq!(names(&ADVANCED, &future(), Wanted::Quote), ["ticker:BIT-24APR26-CDE"]);
        assert_eq!(names(&ADVANCED, &pair(), Wanted::VenueStatus), ["status:BTC-USD"]);
        assert_eq!(names(&EXCHANGE, &pair(), Wanted::Trade), ["matches:BTC-USD"]);
        assert_eq!(names(&EXCHANGE, &pair(), Wanted::Quote), ["ticker:BTC-USD"]);
        assert_eq!(names(&EXCHANGE, &pair(), Wanted::VenueStatus), ["status"]);
        assert_eq!(names(&EXCHANGE, &pair(), Wanted::Book), [""; 0]);
        for wanted in [Wanted::FundingRate, Wanted::IndexPrice, Wanted::OpenInterest] {
            let [poll] = &Coinbase.polls(&ADVANCED, &future(), wanted)[..] else { panic!("{wanted}") };
            assert_eq!(poll.ask.path, "/api/v3/brokerage/market/products/BIT-24APR26-CDE");
            assert_eq!(poll.ask.topic, "BIT-24APR26-CDE@products");
            assert!(Coinbase.polls(&ADVANCED, &pair(), wanted).is_empty());
        }
        for market in Coinbase.markets() {
            for wanted in Wanted::ALL {
                let instrument = if market.name == ADVANCED.name { future() } else { pair() };
                let any = !names(market, &instrument, wanted).is_empty() || !Coinbase.polls(market, &instrument, wanted).is_empty();
                assert_eq!(any, Coinbase.tells(market, wanted), "{} {wanted:?}", market.name);
            }
        }
    }

    #[test]
    fn pairs_against_usdc_are_told_as_those_against_the_dollar() {
        let told = |market: &Market, symbol: &str| {
            let (base, quote) = symbol.split_once('-').unwrap();
            let instrument = Instrument { symbol: symbol.into(), listing: Listing::spot(base, quote) };
            let channel = Coinbase.channels(market, &instrument, Wanted::Trade).remove(0);
            let instrument = channel.instrument.unwrap();
            format!("{} {} {}", channel.name, instrument.symbol, instrument.listing.symbol)
        };
        assert_eq!(told(&ADVANCED, "ETH-USDC"), "market_trades:ETH-USD ETH-USD ETH-USD");
        assert_eq!(told(&ADVANCED, "USDT-USDC"), "market_trades:USDT-USDC USDT-USDC USDT-USDC");
        assert_eq!(told(&EXCHANGE, "ETH-USDC"), "matches:ETH-USDC ETH-USDC ETH-USDC");
    }

    #[test]
    fn each_kind_is_subscribed_to_by_a_message_and_heartbeats_once() {
        let channels = |market: &Market, wanted: &[Wanted]| {
            let each = |wanted: &Wanted| [Coinbase.channels(market, &pair(), *wanted), Coinbase.market_channels(market, *wanted)].concat();
            wanted.iter().flat_map(each).collect::<Vec<_>>()
        };
        let subscribes = |market: &Market, channels: &[Channel], number| {
            let messages = Coinbase.subscribe(market, channels, number);
            messages.iter().map(|message| serde_json::from_str::<Json>(message).unwrap()).collect::<Vec<_>>()
        };
        let unsubscribes = |market: &Market, channel: &Channel| {
            let message = Coinbase.unsubscribe(market, channel, 3);
            serde_json::from_str::<Json>(&message).unwrap()
        };
        let say = |what: &str, kind: &str, products: &[&str]| json!({ "type": what, "channel": kind, "product_ids": products });
        let both = [channels(&ADVANCED, &[Wanted::Trade, Wanted::Book]), Coinbase.channels(&ADVANCED, &future(), Wanted::Trade)].concat();
        assert_eq!(
            subscribes(&ADVANCED, &both, 1),
            [
                say("subscribe", "market_trades", &["BTC-USD", "BIT-24APR26-CDE"]),
                say("subscribe", "level2", &["BTC-USD"]),
                json!({ "type": "subscribe", "channel": "heartbeats" }),
            ]
        );
        assert_eq!(subscribes(&ADVANCED, &both[1..2], 2), [say("subscribe", "level2", &["BTC-USD"])]);
        assert_eq!(unsubscribes(&ADVANCED, &both[1]), say("unsubscribe", "level2", &["BTC-USD"]));
        let all = channels(&EXCHANGE, &[Wanted::VenueStatus, Wanted::Trade, Wanted::Quote]);
        let say = |what: &str, channels: &[Json]| json!({ "type": what, "channels": channels });
        let (status, of) = (json!({ "name": "status" }), |name: &str| json!({ "name": name, "product_ids": ["BTC-USD"] }));
        let first = say("subscribe", &[status.clone(), of("matches"), of("ticker"), of("heartbeat")]);
        assert_eq!(subscribes(&EXCHANGE, &all, 1), [first]);
        assert_eq!(subscribes(&EXCHANGE, &all[..1], 1), [say("subscribe", &[status])]);
        assert_eq!(subscribes(&EXCHANGE, &all[1..2], 2), [say("subscribe", &[of("matches")])]);
        assert_eq!(unsubscribes(&EXCHANGE, &all[1]), say("unsubscribe", &[of("matches")]));
    }

    #[test]
    fn listings_come_by_type_and_in_pages() {
        let first = &Coinbase.listing(&ADVANCED)[1];
        assert_eq!(first.path, "/api/v3/brokerage/market/products?product_type=FUTURE&contract_expiry_type=EXPIRING");
        let page = br#"{"products":[{"product_id":"A"},{"product_id":"B"}],"num_products":2,"pagination":{"has_next":true}}"#;
        let second = Coinbase.listing_goes_on(&ADVANCED, first, page).remove(0);
        assert_eq!(second.path, format!("{}&offset=2", first.path));
        assert_eq!(Coinbase.listing_goes_on(&ADVANCED, &second, page)[0].path, format!("{}&offset=4", first.path));
        for last in [
            r#"{"products":[{"product_id":"A"}],"num_products":1,"pagination":null}"#,
            r#"{"products":[{"product_id":"A"}],"num_products":1,"pagination":{"prev_cursor":"","next_cursor":"","has_next":false}}"#,
            r#"{"products":[],"pagination":{"has_next":true}}"#,
            r#"[{"id":"BTC-USD"}]"#,
        ] {
            assert_eq!(Coinbase.listing_goes_on(&ADVANCED, first, last.as_bytes()), [], "{last}");
        }
        assert_eq!(Coinbase.listing(&EXCHANGE)[0].path, "/products");
    }

    #[test]
    fn an_error_may_stand_in_an_answer_of_success() {
        for (status, answer, verdict) in [
            (200, r#"{"products":[],"num_products":0}"#, Verdict::Answer),
            (200, r#"[{"trade_id":74},{"trade_id":73}]"#, Verdict::Answer),
            (200, r#"{"error":"NOT_FOUND","message":"no product"}"#, Verdict::Never),
            (404, r#"{"message":"NotFound"}"#, Verdict::Never),
            (429, r#"{"message":"Public rate limit exceeded"}"#, Verdict::TooMuch(Duration::from_secs(1))),
            (503, "busy", Verdict::Later),
            (500, r#"{"message":"Internal server error"}"#, Verdict::Later),
        ] {
            assert_eq!(Coinbase.verdict(StatusCode::from_u16(status).unwrap(), answer.as_bytes()), verdict, "{answer}");
        }
    }
}
