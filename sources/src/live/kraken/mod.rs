//! Kraken: its channels and requests, on spot and on futures.
//!
//! Both markets name the channel and the instrument in every frame, and acknowledge each channel by itself; all else differs, so each
//! has a protocol of its own: [`spot`] and [`futures`].
//!
//! Sources: the page on Kraken in the manual, section "Live".

use std::time::Duration;

use model::instrument::Market as Traded;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::venue::{Ask, Channel, Instrument, Limits, Market, Poll, Protocol, Tells, Venue, Verdict, Wanted, by_kind};

mod futures;
mod spot;

/// The venue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kraken;

/// About 150 connections in ten minutes are allowed, and about one request a second. How many messages may be sent is not told, nor a
/// longest life; a heartbeat comes each second.
const SPOT: Market = Market {
    name: "spot",
    dialect: "kraken",
    socket: "wss://ws.kraken.com",
    rest: "https://api.kraken.com",
    limits: Limits {
        connect_pause: Duration::from_millis(4_100),
        ping: Some((Duration::from_secs(30), r#"{"method":"ping"}"#)),
        weight: 1,
        window: Duration::from_secs(1),
        ..LIMITS
    },
};
/// 100 connections, and 100 messages a second, are allowed; requests for market data cost nothing.
const FUTURES: Market = Market {
    name: "futures",
    dialect: "kraken_futures",
    socket: "wss://futures.kraken.com",
    rest: "https://futures.kraken.com",
    limits: Limits { connect_pause: Duration::from_secs(1), ping: Some((Duration::from_secs(30), "")), ..LIMITS },
};

const LIMITS: Limits = Limits {
    channels: 200,
    at_once: 100,
    message_pause: Duration::from_millis(100),
    connect_pause: Duration::ZERO,
    lifetime: Duration::from_secs(86_400 - 600),
    silence: Duration::from_secs(75),
    ping: None,
    weight: 10,
    window: Duration::from_secs(1),
};

/// How long nobody asks after too much was asked.
const SHUT_OUT: Duration = Duration::from_secs(15);
/// The channel that tells of spot's trading engine. It comes by itself over every connection.
const STATUS: &str = "status";

/// What an answer complains of, on spot in a list and on futures by itself.
#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    error: Complaint,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Complaint {
    One(String),
    List(Vec<String>),
    None(()),
}

impl Default for Complaint {
    fn default() -> Self {
        Complaint::None(())
    }
}

/// Whether the sockets call an instrument so. Listings have several names of it, of which each is an instrument.
fn is_spoken(market: &Market, Instrument { symbol, listing }: &Instrument) -> bool {
    if market.name == SPOT.name {
        return symbol.split_once('/').is_some_and(|(base, quote)| base == listing.base && quote == listing.quote);
    }
    // Small letters are of old answers. Those of a tokenised stock, `PF_AAPLxUSD`, are its name.
    let written = !listing.base.contains(char::is_lowercase) || symbol.contains(&*listing.base);
    symbol.starts_with(char::is_uppercase) && written
}

impl Venue for Kraken {
    fn name(&self) -> &'static str {
        "kraken"
    }

    fn markets(&self) -> &'static [Market] {
        &[SPOT, FUTURES]
    }

    fn listing(&self, market: &Market) -> Vec<Ask> {
        let path = if market.name == SPOT.name { "/0/public/AssetPairs" } else { "/derivatives/api/v3/instruments" };
        vec![Ask { path: path.into(), topic: String::new(), weight: 1 }]
    }

    fn tells(&self, market: &Market, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Trade | Wanted::Book | Wanted::Quote => true,
            Wanted::VenueStatus => market.name == SPOT.name,
            Wanted::FundingRate | Wanted::MarkPrice | Wanted::IndexPrice | Wanted::OpenInterest | Wanted::Liquidation => {
                market.name == FUTURES.name
            }
            Wanted::LongShortRatio | Wanted::VolatilityIndex => false,
        }
    }

    fn channels(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Channel> {
        if !self.tells(market, wanted) || !is_spoken(market, instrument) {
            return Vec::new();
        }
        let (kind, tells) = match wanted {
            // Liquidations are trades of a type.
            Wanted::Trade | Wanted::Liquidation => ("trade", Tells::Trades),
            Wanted::Book => ("book", Tells::Book),
            Wanted::FundingRate if instrument.listing.market != Traded::Perpetual => return Vec::new(),
            Wanted::Quote | Wanted::FundingRate | Wanted::MarkPrice | Wanted::IndexPrice | Wanted::OpenInterest => ("ticker", Tells::State),
            _ => return Vec::new(),
        };
        let route = if market.name == SPOT.name { "/v2" } else { "/ws/v1" };
        vec![Channel { route, name: format!("{kind}:{}", instrument.symbol), instrument: Some(instrument.clone()), tells }]
    }

    fn market_channels(&self, market: &Market, wanted: Wanted) -> Vec<Channel> {
        if wanted != Wanted::VenueStatus || !self.tells(market, wanted) {
            return Vec::new();
        }
        vec![Channel { route: "/v2", name: STATUS.into(), instrument: None, tells: Tells::Seldom }]
    }

    fn polls(&self, _market: &Market, _instrument: &Instrument, _wanted: Wanted) -> Vec<Poll> {
        Vec::new()
    }

    fn topic(&self, market: &Market, channel: &Channel) -> String {
        if market.name == SPOT.name && channel.tells == Tells::Book { spot::topic(channel.symbol()) } else { String::new() }
    }

    fn subscribe(&self, market: &Market, channels: &[Channel], number: u64) -> Vec<String> {
        let kinds = by_kind(channels).into_iter();
        if market.name == SPOT.name {
            return kinds.map(|(kind, symbols)| spot::subscribe(kind, &symbols, number)).collect();
        }
        kinds.map(|(feed, ids)| json!({ "event": "subscribe", "feed": feed, "product_ids": ids }).to_string()).collect()
    }

    fn unsubscribe(&self, market: &Market, channel: &Channel, number: u64) -> String {
        let (kind, symbol) = channel.name.split_once(':').unwrap_or((&channel.name, ""));
        if market.name == SPOT.name {
            return spot::unsubscribe(kind, symbol, number);
        }
        json!({ "event": "unsubscribe", "feed": kind, "product_ids": [symbol] }).to_string()
    }

    fn protocol(&self, market: &Market, channels: &[Channel]) -> Box<dyn Protocol> {
        if market.name == SPOT.name { Box::new(spot::Spot::new(channels)) } else { Box::new(futures::Futures::new(channels)) }
    }

    fn verdict(&self, status: StatusCode, answer: &[u8]) -> Verdict {
        let complaint = match serde_json::from_slice::<Outcome>(answer).map(|outcome| outcome.error) {
            Ok(Complaint::One(complaint)) => complaint,
            Ok(Complaint::List(complaints)) => complaints.join(" "),
            Ok(Complaint::None(())) | Err(_) => String::new(),
        };
        let is_any = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
        if complaint.is_empty() {
            Verdict::by_status(status)
        } else if is_any(&["Rate limit", "Too many requests", "Throttled", "Temporary lockout", "apiLimitExceeded"]) {
            Verdict::TooMuch(SHUT_OUT)
        } else if is_any(&["EService", "Internal error", "Server Error", "Unavailable"]) {
            Verdict::Later
        } else {
            Verdict::Never
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::instrument::Listing;
    use serde_json::Value as Json;

    pub(super) fn pair() -> Instrument {
        Instrument { symbol: "BTC/USD".into(), listing: Listing::spot("BTC", "USD") }
    }

    pub(super) fn perpetual() -> Instrument {
        Instrument { symbol: "PF_XBTUSD".into(), listing: Listing::perpetual("BTC", "USD", None) }
    }

    /// What listens to the channels of an instrument, in this order.
    pub(super) fn listener(market: &Market, instrument: &Instrument, wanted: &[Wanted]) -> Box<dyn Protocol> {
        let channels = |wanted: &Wanted| [Kraken.channels(market, instrument, *wanted), Kraken.market_channels(market, *wanted)].concat();
        Kraken.protocol(market, &wanted.iter().flat_map(channels).collect::<Vec<_>>())
    }

    pub(super) fn spot(wanted: &[Wanted]) -> Box<dyn Protocol> {
        listener(&SPOT, &pair(), wanted)
    }

    pub(super) fn futures(wanted: &[Wanted]) -> Box<dyn Protocol> {
        listener(&FUTURES, &perpetual(), wanted)
    }

    #[test]
    fn channels_follow_from_what_is_wanted() {
        let names = |market: &Market, instrument: &Instrument, wanted| {
            let channels = [Kraken.channels(market, instrument, wanted), Kraken.market_channels(market, wanted)].concat();
            channels.iter().map(|channel| format!("{} {}", channel.route, channel.name)).collect::<Vec<_>>()
        };
        let of_spot = |wanted| names(&SPOT, &pair(), wanted);
        assert_eq!(of_spot(Wanted::Trade), ["/v2 trade:BTC/USD"]);
        assert_eq!(of_spot(Wanted::Book), ["/v2 book:BTC/USD"]);
        assert_eq!(of_spot(Wanted::Quote), ["/v2 ticker:BTC/USD"]);
        assert_eq!(of_spot(Wanted::VenueStatus), ["/v2 status"]);
        assert_eq!(of_spot(Wanted::MarkPrice), [""; 0]);
        let of_futures = |wanted| names(&FUTURES, &perpetual(), wanted);
        assert_eq!(of_futures(Wanted::Book), ["/ws/v1 book:PF_XBTUSD"]);
        for wanted in [Wanted::Trade, Wanted::Liquidation] {
            assert_eq!(of_futures(wanted), ["/ws/v1 trade:PF_XBTUSD"]);
        }
        for wanted in [Wanted::Quote, Wanted::FundingRate, Wanted::MarkPrice, Wanted::IndexPrice, Wanted::OpenInterest] {
            assert_eq!(of_futures(wanted), ["/ws/v1 ticker:PF_XBTUSD"]);
        }
        let dated = Instrument { symbol: "FF_XBTUSD_240927".into(), listing: Listing::future("BTC", "USD", "240927", None) };
        assert_eq!(names(&FUTURES, &dated, Wanted::FundingRate), [""; 0]);
        assert_eq!(names(&FUTURES, &dated, Wanted::IndexPrice), ["/ws/v1 ticker:FF_XBTUSD_240927"]);
        for (market, instrument) in [(&SPOT, pair()), (&FUTURES, perpetual())] {
            for wanted in Wanted::ALL {
                assert_eq!(!names(market, &instrument, wanted).is_empty(), Kraken.tells(market, wanted), "{} {wanted:?}", market.name);
            }
        }
    }

    #[test]
    fn of_the_names_of_an_instrument_one_is_spoken() {
        let spoken = |market: &Market, listing: &Listing, symbols: &[&str]| {
            let is_it = |symbol: &&str| is_spoken(market, &Instrument { symbol: (**symbol).into(), listing: listing.clone() });
            symbols.iter().copied().filter(is_it).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(spoken(&SPOT, &pair().listing, &["XXBTZUSD", "XBTUSD", "XBT/USD", "BTC/USD"]), ["BTC/USD"]);
        assert_eq!(spoken(&FUTURES, &perpetual().listing, &["PF_XBTUSD", "pf_xbtusd"]), ["PF_XBTUSD"]);
        let stock = Listing::perpetual("AAPLx", "USD", None);
        assert_eq!(spoken(&FUTURES, &stock, &["PF_AAPLXUSD", "PF_AAPLxUSD"]), ["PF_AAPLxUSD"]);
    }

    #[test]
    fn subscriptions_go_by_kind() {
        let said = |texts: Vec<String>| texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect::<Vec<Json>>();
        let other = Instrument { symbol: "ETH/USD".into(), listing: Listing::spot("ETH", "USD") };
        let of = |instrument: &Instrument, wanted| Kraken.channels(&SPOT, instrument, wanted);
        let channels = [
            Kraken.market_channels(&SPOT, Wanted::VenueStatus),
            of(&pair(), Wanted::Trade),
            of(&pair(), Wanted::Book),
            of(&pair(), Wanted::Quote),
            of(&other, Wanted::Trade),
        ]
        .concat();
        assert_eq!(
            said(Kraken.subscribe(&SPOT, &channels, 3)),
            [
                json!({ "method": "ping", "req_id": 3 }),
                json!({ "method": "subscribe", "params": { "channel": "trade", "symbol": ["BTC/USD", "ETH/USD"], "snapshot": false }, "req_id": 3 }),
                json!({ "method": "subscribe", "params": { "channel": "book", "symbol": ["BTC/USD"], "depth": 1000, "snapshot": true }, "req_id": 3 }),
                json!({ "method": "subscribe", "params": { "channel": "ticker", "symbol": ["BTC/USD"], "event_trigger": "bbo", "snapshot": true }, "req_id": 3 }),
            ]
        );
        assert_eq!(
            said(vec![Kraken.unsubscribe(&SPOT, &channels[2], 4)]),
            [json!({ "method": "unsubscribe", "params": { "channel": "book", "symbol": ["BTC/USD"], "depth": 1000 }, "req_id": 4 })]
        );
        assert_eq!(Kraken.topic(&SPOT, &channels[2]), "BTC/USD@book-1000");
        assert_eq!(Kraken.topic(&SPOT, &channels[1]), "");
        let channels =
            [Kraken.channels(&FUTURES, &perpetual(), Wanted::Trade), Kraken.channels(&FUTURES, &perpetual(), Wanted::Book)].concat();
        assert_eq!(
            said(Kraken.subscribe(&FUTURES, &channels, 1)),
            ["trade", "book"].map(|feed| json!({ "event": "subscribe", "feed": feed, "product_ids": ["PF_XBTUSD"] }))
        );
        assert_eq!(
            said(vec![Kraken.unsubscribe(&FUTURES, &channels[1], 2)]),
            [json!({ "event": "unsubscribe", "feed": "book", "product_ids": ["PF_XBTUSD"] })]
        );
        assert_eq!(Kraken.topic(&FUTURES, &channels[1]), "");
    }

    #[test]
    fn an_error_may_stand_in_an_answer_of_success() {
        for (status, answer, verdict) in [
            (200, r#"{"error":[],"result":{}}"#, Verdict::Answer),
            (200, r#"{"error":["EAPI:Rate limit exceeded"]}"#, Verdict::TooMuch(SHUT_OUT)),
            (200, r#"{"error":["EGeneral:Too many requests"]}"#, Verdict::TooMuch(SHUT_OUT)),
            (200, r#"{"error":["EService:Unavailable"]}"#, Verdict::Later),
            (200, r#"{"error":["EGeneral:Internal error"]}"#, Verdict::Later),
            (200, r#"{"error":["EQuery:Unknown asset pair"]}"#, Verdict::Never),
            (200, r#"{"result":"success","history":[]}"#, Verdict::Answer),
            (200, r#"{"result":"error","error":"apiLimitExceeded"}"#, Verdict::TooMuch(SHUT_OUT)),
            (200, r#"{"result":"error","error":"Server Error"}"#, Verdict::Later),
            (200, r#"{"result":"error","error":"invalidArgument: symbol"}"#, Verdict::Never),
            (429, "", Verdict::TooMuch(Duration::from_secs(60))),
            (500, "broken", Verdict::Later),
            (404, "", Verdict::Never),
        ] {
            assert_eq!(Kraken.verdict(StatusCode::from_u16(status).unwrap(), answer.as_bytes()), verdict, "{answer}");
        }
    }
}
