//! Binance: its streams and requests.
//!
//! Channels are streams of a combined connection, so that every frame says which one it belongs to. What must hold on them:
//!
//! - **Trades** have numbers without holes. A hole is asked for (`historicalTrades` on spot, `aggTrades` on futures). Of options the
//!   venue tells only the last trades (`trades`): what is older is lost.
//! - **Books**: a change begins where the one before it ended (spot: `U = u' + 1`; futures and options: `pu = u'`). Where that breaks,
//!   and at the beginning, a snapshot is asked for; one that is older than the first change heard is of no use and asked for again.
//! - What comes again, with a number that was passed and a time that was too, is dropped. A smaller number at a later time says
//!   that the venue has begun to count anew.
//!
//! Sources: the page on Binance in the manual, section "Live".

use std::time::Duration;

use hashbrown::HashMap;
use model::instrument::Market as Traded;

use super::cut;
use super::follow::{self, Last, Trades};
use super::venue::{Ask, Channel, Filled, Hole, Instrument, Limits, Market, Order, Over, POLL, Poll, Protocol, Said, Tells, Venue, Wanted};
use crate::dialect::binance::{Letters, Shape};
use crate::dialect::fields::{Event, Fields};

/// The venue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Binance;

const SPOT: Market = Market {
    name: "spot",
    dialect: "binance_spot",
    socket: "wss://stream.binance.com:9443",
    rest: "https://api.binance.com",
    limits: Limits { silence: Duration::from_secs(60), weight: 6_000, ..LIMITS },
};
const USDM: Market =
    Market { name: "usdm", dialect: "binance_usdm", socket: "wss://fstream.binance.com", rest: "https://fapi.binance.com", limits: LIMITS };
const COINM: Market = Market {
    name: "coinm",
    dialect: "binance_coinm",
    socket: "wss://dstream.binance.com",
    rest: "https://dapi.binance.com",
    limits: LIMITS,
};
const OPTIONS: Market = Market {
    name: "options",
    dialect: "binance_options",
    socket: "wss://fstream.binance.com",
    rest: "https://eapi.binance.com",
    limits: LIMITS,
};

/// 1,024 streams (options: 200), five messages a second (spot; ten elsewhere) and 300 connections in five minutes are allowed, and a
/// connection lives for 24 hours. Spot pings every 20 seconds, futures every three minutes, options every five.
const LIMITS: Limits = Limits {
    channels: 200,
    at_once: 100,
    message_pause: Duration::from_millis(250),
    connect_pause: Duration::from_millis(1_100),
    lifetime: Duration::from_secs(86_400 - 600),
    silence: Duration::from_secs(400),
    ping: None,
    weight: 2_400,
    window: Duration::from_secs(60),
};

/// Trades that one request can give.
const TRADES_AT_ONCE: u64 = 1_000;
/// The last trades of an option, which are all that a request can give.
const LAST_TRADES: u64 = 500;

/// Where USD-M and options tell what their matching engines do.
const ENGINE: &str = "/public/stream";
/// Where they tell what is worked out of it.
const DERIVED: &str = "/market/stream";

/// The streams that tell of an option what is wanted.
fn of_option(instrument: &Instrument, wanted: Wanted) -> Vec<Channel> {
    let channel = |route, name: String, tells| vec![Channel { route, name, instrument: Some(instrument.clone()), tells }];
    // Of all options of an underlying, so of none in particular.
    let of_all = |name| vec![Channel { route: DERIVED, name, instrument: None, tells: Tells::State }];
    let symbol = instrument.symbol.to_lowercase();
    let underlying = format!("{}{}", instrument.listing.base, instrument.listing.quote).to_lowercase();
    match (wanted, symbol.split('-').nth(1)) {
        (Wanted::Trade, _) => channel(ENGINE, format!("{symbol}@optionTrade"), Tells::Trades),
        (Wanted::Book, _) => channel(ENGINE, format!("{symbol}@depth@100ms"), Tells::Book),
        (Wanted::Quote, _) => channel(ENGINE, format!("{symbol}@bookTicker"), Tells::State),
        (Wanted::MarkPrice, _) => of_all(format!("{underlying}@optionMarkPrice")),
        (Wanted::OpenInterest, Some(expiry)) => of_all(format!("{underlying}@openInterest@{expiry}")),
        _ => Vec::new(),
    }
}

impl Venue for Binance {
    fn name(&self) -> &'static str {
        "binance"
    }

    fn tells(&self, market: &Market, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Trade | Wanted::Book | Wanted::Quote => true,
            Wanted::VolatilityIndex => false,
            Wanted::VenueStatus => market.name == OPTIONS.name,
            Wanted::FundingRate | Wanted::Liquidation | Wanted::LongShortRatio => matches!(market.name, "usdm" | "coinm"),
            Wanted::MarkPrice | Wanted::IndexPrice | Wanted::OpenInterest => market.name != SPOT.name,
        }
    }

    fn markets(&self) -> &'static [Market] {
        &[SPOT, USDM, COINM, OPTIONS]
    }

    fn listing(&self, market: &Market) -> Vec<Ask> {
        let (path, weight) = match market.name {
            "spot" => ("/api/v3/exchangeInfo", 20),
            "usdm" => ("/fapi/v1/exchangeInfo", 1),
            "options" => ("/eapi/v1/exchangeInfo", 1),
            _ => ("/dapi/v1/exchangeInfo", 1),
        };
        vec![Ask { path: path.into(), topic: String::new(), weight }]
    }

    fn channels(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Channel> {
        if market.name == OPTIONS.name {
            return of_option(instrument, wanted);
        }
        let spot = market.name == SPOT.name;
        let (engine, derived) = if market.name == USDM.name { (ENGINE, DERIVED) } else { ("/stream", "/stream") };
        let (route, stream, tells) = match wanted {
            Wanted::Trade if spot => (engine, "trade", Tells::Trades),
            Wanted::Trade => (derived, "aggTrade", Tells::Trades),
            Wanted::Book => (engine, "depth@100ms", Tells::Book),
            Wanted::Quote => (engine, "bookTicker", Tells::State),
            Wanted::FundingRate if !spot && instrument.listing.market == Traded::Perpetual => (derived, "markPrice@1s", Tells::State),
            Wanted::MarkPrice | Wanted::IndexPrice if !spot => (derived, "markPrice@1s", Tells::State),
            Wanted::Liquidation if !spot => (derived, "forceOrder", Tells::Seldom),
            _ => return Vec::new(),
        };
        let name = format!("{}@{stream}", instrument.symbol.to_lowercase());
        vec![Channel { route, name, instrument: Some(instrument.clone()), tells }]
    }

    fn market_channels(&self, market: &Market, wanted: Wanted) -> Vec<Channel> {
        let (name, tells) = match wanted {
            _ if market.name != OPTIONS.name => return Vec::new(),
            Wanted::IndexPrice => ("!index@arr", Tells::State),
            Wanted::VenueStatus => ("!optionSymbol", Tells::Seldom),
            _ => return Vec::new(),
        };
        vec![Channel { route: DERIVED, name: name.into(), instrument: None, tells }]
    }

    fn polls(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Poll> {
        let symbol = &instrument.symbol;
        let poll =
            |path: String, endpoint: &str, weight| Poll { ask: Ask { path, topic: format!("{symbol}@{endpoint}"), weight }, every: POLL };
        let ratios = |subject: &str| {
            ["globalLongShortAccountRatio", "topLongShortAccountRatio", "topLongShortPositionRatio"]
                .map(|endpoint| poll(format!("/futures/data/{endpoint}?{subject}&period=5m&limit=1"), &format!("{endpoint}@5m"), 0))
                .into()
        };
        match (wanted, market.name) {
            (Wanted::OpenInterest, "usdm") => vec![poll(format!("/fapi/v1/openInterest?symbol={symbol}"), "openInterest", 1)],
            (Wanted::OpenInterest, "coinm") => vec![poll(format!("/dapi/v1/openInterest?symbol={symbol}"), "openInterest", 1)],
            (Wanted::LongShortRatio, "usdm") if instrument.listing.market == Traded::Perpetual => ratios(&format!("symbol={symbol}")),
            // COIN-M counts by pair, whatever the contract: its perpetual stands for the pair.
            (Wanted::LongShortRatio, "coinm") => match symbol.strip_suffix("_PERP") {
                Some(pair) => ratios(&format!("pair={pair}")),
                None => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    fn subscribe(&self, _market: &Market, channels: &[Channel], number: u64) -> Vec<String> {
        let names: Vec<&str> = channels.iter().map(|channel| channel.name.as_str()).collect();
        vec![serde_json::json!({ "method": "SUBSCRIBE", "params": names, "id": number }).to_string()]
    }

    fn unsubscribe(&self, _market: &Market, channel: &Channel, number: u64) -> String {
        serde_json::json!({ "method": "UNSUBSCRIBE", "params": [channel.name], "id": number }).to_string()
    }

    fn protocol(&self, market: &Market, channels: &[Channel]) -> Box<dyn Protocol> {
        let by_name = channels.iter().enumerate().map(|(number, channel)| (channel.name.as_str().into(), number)).collect();
        let channels =
            channels.iter().map(|channel| Followed { symbol: channel.symbol().into(), state: State::of(channel.tells) }).collect();
        Box::new(Listener { market: *market, by_name, channels, fields: Fields::default() })
    }
}

/// What listens to a connection.
struct Listener {
    market: Market,
    by_name: HashMap<Box<str>, usize, ahash::RandomState>,
    channels: Vec<Followed>,
    fields: Fields<Letters>,
}

struct Followed {
    symbol: Box<str>,
    state: State,
}

/// How far a channel has come.
type State = follow::State<Trades, Book>;

#[derive(Clone, Copy, Debug, Default)]
struct Book {
    /// The last update heard.
    last: Option<Last>,
    /// The first update heard of those that continue each other up to the last.
    first: u64,
    /// A snapshot has been asked for.
    asked: bool,
}

impl Listener {
    fn snapshot(&self, channel: usize, failed: u32) -> Order {
        let symbol = &self.channels[channel].symbol;
        let (path, weight) = match self.market.name {
            "spot" => (format!("/api/v3/depth?symbol={symbol}&limit=5000"), 250),
            "usdm" => (format!("/fapi/v1/depth?symbol={symbol}&limit=1000"), 20),
            "options" => (format!("/eapi/v1/depth?symbol={symbol}&limit=1000"), 20),
            _ => (format!("/dapi/v1/depth?symbol={symbol}&limit=1000"), 20),
        };
        Order::Ask { channel, ask: Ask { path, topic: symbol.to_string(), weight }, failed }
    }

    /// The member with the number of a trade, in streams and answers of the past.
    fn number_of_trades(&self) -> (&'static str, &'static str) {
        match self.market.name {
            "spot" => ("t", "id"),
            "options" => ("t", "tradeId"),
            _ => ("a", "a"),
        }
    }

    /// The part of a hole that is asked for. Of options the last trades come whatever is asked for.
    fn part(&self, hole: &Hole) -> Option<(u64, u64)> {
        let (first, last) = hole.numbers?;
        let all = self.market.name == OPTIONS.name;
        Some((first, if all { last } else { last.min(first + TRADES_AT_ONCE - 1) }))
    }
}

impl Protocol for Listener {
    fn hear(&mut self, over: Over, frame: &[u8], orders: &mut Vec<Order>) -> Said {
        let Ok(shape) = self.fields.event(frame) else { return Said::Other };
        let event = Event { text: frame, fields: &self.fields };
        let number = |name| event.integer(name).ok().and_then(|number| u64::try_from(number).ok());
        let Some(stream) = event.get("stream") else {
            if event.get("error").is_some() || event.has("code") {
                return Said::Refused;
            }
            return number("id").map_or(Said::Other, Said::Subscribed);
        };
        let name = std::str::from_utf8(stream.of(frame)).unwrap_or_default();
        let Some(&channel) = self.by_name.get(name) else { return Said::Other };
        let Shape::Object(_) = shape else { return Said::Data(channel) };
        let time = event.integer("E").unwrap_or_default().saturating_mul(1_000);
        match self.channels[channel].state {
            State::Any => {}
            State::Trades(mut trades) => {
                let Some(id) = number(self.number_of_trades().0) else { return Said::Data(channel) };
                let heard = trades.hear(over, Last { number: id, time });
                self.channels[channel].state = State::Trades(trades);
                return heard.said(channel, false, orders);
            }
            State::Book(mut book) => {
                let (Some(first), Some(last)) = (number("U"), number("u")) else { return Said::Data(channel) };
                let (follows, missing) = match (book.last, number("pu")) {
                    (Some(before), _) if last <= before.number && time <= before.time => return Said::Nothing,
                    (Some(before), Some(previous)) => (previous == before.number, Some((before, previous))),
                    (Some(before), None) => (first <= before.number + 1 && last > before.number, Some((before, first - 1))),
                    (None, _) => (false, None),
                };
                // What is missing is still to come over the older connection.
                if over.beside && missing.is_some() && !follows {
                    return Said::Nothing;
                }
                book.last = Some(Last { number: last, time });
                if !follows {
                    if let Some((before, until)) = missing {
                        let numbers = (until > before.number).then_some((before.number + 1, until));
                        orders.push(Order::Gap { channel, hole: Hole { numbers, since: before.time, until: time } });
                    }
                    book.first = first;
                    if !book.asked {
                        book.asked = true;
                        orders.push(self.snapshot(channel, 0));
                    }
                }
                self.channels[channel].state = State::Book(book);
            }
        }
        Said::Data(channel)
    }

    fn taken_over(&mut self) {
        for channel in &mut self.channels {
            // A snapshot that was asked for may not have come: the book begins with another.
            if let State::Book(book) = &mut channel.state {
                *book = Book::default();
            }
        }
    }

    fn answer(&mut self, channel: usize, _ask: &Ask, failed: u32, answer: &[u8], orders: &mut Vec<Order>) {
        let State::Book(book) = &mut self.channels[channel].state else { return };
        let whole = self.fields.event(answer).is_ok();
        let event = Event { text: answer, fields: &self.fields };
        let stands = event.integer("lastUpdateId").ok().filter(|_| whole).and_then(|number| u64::try_from(number).ok());
        // The first change heard must continue it.
        if stands.is_some_and(|stands| stands + 1 >= book.first) {
            book.asked = false;
        } else {
            let again = self.snapshot(channel, failed.saturating_add(1));
            orders.push(again);
        }
    }

    fn fill(&self, channel: usize, hole: &Hole) -> Option<Ask> {
        let (first, last) = self.part(hole)?;
        let symbol = &self.channels[channel].symbol;
        let (endpoint, weight) = match self.market.name {
            "spot" => ("/api/v3/historicalTrades", 25),
            "usdm" => ("/fapi/v1/aggTrades", 20),
            "options" => ("/eapi/v1/trades", 5),
            _ => ("/dapi/v1/aggTrades", 20),
        };
        let name = endpoint.rsplit('/').next().unwrap_or_default();
        let path = if self.market.name == OPTIONS.name {
            format!("{endpoint}?symbol={symbol}&limit={LAST_TRADES}")
        } else {
            format!("{endpoint}?symbol={symbol}&fromId={first}&limit={}", last - first + 1)
        };
        Some(Ask { path, topic: format!("{symbol}@{name}"), weight })
    }

    fn filled<'a>(&mut self, _channel: usize, hole: &Hole, answer: &'a [u8]) -> Filled<'a> {
        let name = self.number_of_trades().1;
        cut::numbered(answer, &[], hole, self.part(hole).unwrap_or_default(), |trade| cut::member(trade, name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{hear, hear_beside, words};
    use super::*;
    use model::instrument::{Listing, Right};

    fn perpetual() -> Instrument {
        Instrument { symbol: "BTCUSDT".into(), listing: Listing::perpetual("BTC", "USDT", None) }
    }

    fn option() -> Instrument {
        let listing = Listing::option("BTC", "USDT", "261030", "85000", Right::Call, None);
        Instrument { symbol: "BTC-261030-85000-C".into(), listing }
    }

    /// What listens to everything that the options market tells of an option, in the order of the kinds.
    fn option_listener(wanted: &[Wanted]) -> Box<dyn Protocol> {
        let channels =
            |wanted: &Wanted| [Binance.market_channels(&OPTIONS, *wanted), Binance.channels(&OPTIONS, &option(), *wanted)].concat();
        Binance.protocol(&OPTIONS, &wanted.iter().flat_map(channels).collect::<Vec<_>>())
    }

    fn listener(market: &Market, channels: &[(&str, Tells)]) -> Box<dyn Protocol> {
        let channels: Vec<Channel> = channels
            .iter()
            .map(|(name, tells)| Channel { route: "/stream", name: (*name).into(), instrument: Some(perpetual()), tells: *tells })
            .collect();
        Binance.protocol(market, &channels)
    }

    fn depth(first: u64, last: u64, time: u64) -> String {
        format!(
            r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":{time},"s":"BTCUSDT","U":{first},"u":{last},"b":[],"a":[]}}}}"#
        )
    }

    const SNAPSHOT: &str = "/api/v3/depth?symbol=BTCUSDT&limit=5000 BTCUSDT";

    #[test]
    fn a_book_asks_for_a_snapshot_until_the_changes_continue_it() {
        let mut one = listener(&SPOT, &[("btcusdt@depth@100ms", Tells::Book)]);
        assert_eq!(hear(&mut *one, 1, &depth(11, 15, 1)), (Said::Data(0), vec![format!("{SNAPSHOT} 0")]));
        assert_eq!(hear(&mut *one, 1, &depth(16, 20, 2)), (Said::Data(0), vec![]));
        let ask = Ask { path: String::new(), topic: "BTCUSDT".to_owned(), weight: 250 };
        let answer = |one: &mut dyn Protocol, number: u64| {
            let mut orders = Vec::new();
            one.answer(0, &ask, 0, format!(r#"{{"lastUpdateId":{number},"bids":[],"asks":[]}}"#).as_bytes(), &mut orders);
            orders.iter().map(words).collect::<Vec<_>>()
        };
        assert_eq!(answer(&mut *one, 9), [format!("{SNAPSHOT} 1")], "older than the first change");
        // A hole while the snapshot is asked for: the next change is the first.
        assert_eq!(hear(&mut *one, 1, &depth(23, 24, 3)), (Said::Data(0), vec!["gap Some((21, 22)) 2000 3000".to_owned()]));
        assert_eq!(answer(&mut *one, 20), [format!("{SNAPSHOT} 1")], "older than the hole");
        assert_eq!(answer(&mut *one, 22), [""; 0]);
        assert_eq!(hear(&mut *one, 1, &depth(25, 30, 4)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, 1, &depth(25, 30, 4)), (Said::Nothing, vec![]));
        let ahead = hear_beside(&mut *one, 2, &depth(32, 33, 5));
        assert_eq!(ahead, (Said::Nothing, vec![]), "the older connection is still to tell what is before it");
        assert_eq!(
            hear(&mut *one, 1, &depth(32, 33, 5)),
            (Said::Data(0), vec!["gap Some((31, 31)) 4000 5000".to_owned(), format!("{SNAPSHOT} 0")]),
            "a hole"
        );
        assert_eq!(answer(&mut *one, 40), [""; 0]);
        assert_eq!(
            hear(&mut *one, 1, &depth(3, 4, 6)),
            (Said::Data(0), vec!["gap None 5000 6000".to_owned(), format!("{SNAPSHOT} 0")]),
            "counted anew"
        );
    }

    #[test]
    fn missing_trades_are_asked_for_part_by_part() {
        let trade =
            |id: u64, time: u64| format!(r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{time},"s":"BTCUSDT","t":{id}}}}}"#);
        let mut one = listener(&SPOT, &[("btcusdt@trade", Tells::Trades)]);
        assert_eq!(hear(&mut *one, 1, &trade(5, 1)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, 1, &trade(5, 1)), (Said::Nothing, vec![]));
        assert_eq!(hear(&mut *one, 1, &trade(2_507, 9)), (Said::Data(0), vec!["gap Some((6, 2506)) 1000 9000".to_owned()]));
        let hole = |first, last| Hole { numbers: Some((first, last)), since: 1_000, until: 9_000 };
        let ask = one.fill(0, &hole(6, 2_506)).unwrap();
        assert_eq!(ask.path, "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=6&limit=1000");
        assert_eq!(ask.topic, "BTCUSDT@historicalTrades");
        let answer = |numbers: std::ops::RangeInclusive<u64>| {
            let trades: Vec<String> = numbers.map(|id| format!(r#"{{"id":{id}}}"#)).collect();
            format!("[{}]", trades.join(","))
        };
        let (part, more, short) = (answer(6..=1_005), answer(6..=1_007), answer(6..=900));
        let rest = Some(hole(1_006, 2_506));
        assert_eq!(one.filled(0, &hole(6, 2_506), part.as_bytes()), Filled { kept: part.as_bytes().into(), rest, whole: true });
        assert_eq!(
            one.filled(0, &hole(6, 1_005), more.as_bytes()),
            Filled { kept: part.as_bytes().to_vec().into(), rest: None, whole: true }
        );
        assert_eq!(one.filled(0, &hole(6, 1_005), short.as_bytes()), Filled { kept: short.as_bytes().into(), rest: None, whole: false });
        assert_eq!(hear(&mut *one, 1, &trade(2_506, 9)), (Said::Nothing, vec![]), "it is asked for already");
        assert_eq!(hear(&mut *one, 1, &trade(1, 10)), (Said::Data(0), vec![]), "counted anew");
    }

    #[test]
    fn what_an_earlier_run_heard_is_followed_on() {
        let trade = |id: u64| format!(r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{id},"s":"BTCUSDT","t":{id}}}}}"#);
        let mut one = listener(&SPOT, &[("btcusdt@trade", Tells::Trades), ("btcusdt@depth@100ms", Tells::Book)]);
        hear(&mut *one, 1, &trade(5));
        hear(&mut *one, 1, &depth(11, 15, 1));
        one.taken_over();
        assert_eq!(hear(&mut *one, 1, &trade(7)).1[0], "gap Some((6, 6)) 5000 7000");
        assert_eq!(hear(&mut *one, 1, &depth(16, 20, 2)), (Said::Data(1), vec![format!("{SNAPSHOT} 0")]), "the other may not have come");
    }

    #[test]
    fn acknowledgements_and_refusals_are_told_apart() {
        let mut one = listener(&USDM, &[("btcusdt@aggTrade", Tells::Trades)]);
        assert_eq!(hear(&mut *one, 1, r#"{"result":null,"id":3}"#).0, Said::Subscribed(3));
        assert_eq!(hear(&mut *one, 1, r#"{"code":2,"msg":"Invalid request","id":3}"#).0, Said::Refused);
        assert_eq!(hear(&mut *one, 1, r#"{"error":{"code":2,"msg":"Invalid request"},"id":3}"#).0, Said::Refused);
        assert_eq!(hear(&mut *one, 1, r#"{"stream":"ethusdt@aggTrade","data":{"e":"aggTrade"}}"#).0, Said::Other);
        assert_eq!(hear(&mut *one, 1, "nonsense").0, Said::Other);
    }

    #[test]
    fn missing_trades_of_options_are_among_the_last() {
        let trade = |id: u64, time: u64| {
            format!(
                r#"{{"stream":"btc-261030-85000-c@optionTrade","data":{{"e":"trade","E":{time},"T":{time},"s":"BTC-261030-85000-C","t":{id},"p":"3660.000","q":"1.00","X":"MARKET","S":"BUY","m":false}}}}"#
            )
        };
        let mut one = option_listener(&[Wanted::Trade]);
        assert_eq!(hear(&mut *one, 1, &trade(467, 1)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, 1, &trade(467, 1)), (Said::Nothing, vec![]), "two connections overlap");
        assert_eq!(hear(&mut *one, 1, &trade(471, 9)), (Said::Data(0), vec!["gap Some((468, 470)) 1000 9000".to_owned()]));
        let hole = |first, last| Hole { numbers: Some((first, last)), since: 1_000, until: 9_000 };
        let ask = one.fill(0, &hole(468, 470)).unwrap();
        assert_eq!((ask.path.as_str(), ask.weight), ("/eapi/v1/trades?symbol=BTC-261030-85000-C&limit=500", 5));
        assert_eq!(ask.topic, "BTC-261030-85000-C@trades");
        let past = |id: u64| format!(r#"{{"id":2323857420768529130,"tradeId":{id},"symbol":"BTC-261030-85000-C","price":"1300"}}"#);
        let answer = |ids: &[u64]| format!("[{}]", ids.iter().map(|id| past(*id)).collect::<Vec<_>>().join(","));
        let (newest_first, oldest_first, kept) = (answer(&[472, 470, 469, 468, 467]), answer(&[469, 470, 471]), answer(&[470, 469, 468]));
        let filled = one.filled(0, &hole(468, 470), newest_first.as_bytes());
        assert_eq!(filled, Filled { kept: kept.into_bytes().into(), rest: None, whole: true });
        let filled = one.filled(0, &hole(468, 470), oldest_first.as_bytes());
        assert_eq!(filled, Filled { kept: answer(&[469, 470]).into_bytes().into(), rest: None, whole: false }, "the venue has no more");
        let (long, none) = (hole(468, 5_000), b"[]");
        assert_eq!(one.filled(0, &long, none), Filled { kept: b""[..].into(), rest: None, whole: false });
        one.taken_over();
        assert_eq!(hear(&mut *one, 1, &trade(473, 10)).1, ["gap Some((472, 472)) 9000 10000"]);
    }

    #[test]
    fn a_book_of_an_option_follows_as_those_of_futures_do() {
        let change = |previous: u64, first: u64, last: u64, time: u64| {
            format!(
                r#"{{"stream":"btc-261030-85000-c@depth@100ms","data":{{"e":"depthUpdate","E":{time},"T":{time},"s":"BTC-261030-85000-C","U":{first},"u":{last},"pu":{previous},"b":[],"a":[["3675.000","0"]]}}}}"#
            )
        };
        let snapshot = |failed: u32| format!("/eapi/v1/depth?symbol=BTC-261030-85000-C&limit=1000 BTC-261030-85000-C {failed}");
        let mut one = option_listener(&[Wanted::Book]);
        assert_eq!(hear(&mut *one, 1, &change(90, 100, 110, 1)), (Said::Data(0), vec![snapshot(0)]));
        let answer = |one: &mut dyn Protocol, number: u64| {
            let mut orders = Vec::new();
            let ask = Ask { path: String::new(), topic: "BTC-261030-85000-C".to_owned(), weight: 20 };
            let answer = format!(r#"{{"bids":[["1000.000","0.1000"]],"asks":[],"T":1762780909676,"lastUpdateId":{number}}}"#);
            one.answer(0, &ask, 0, answer.as_bytes(), &mut orders);
            orders.iter().map(words).collect::<Vec<_>>()
        };
        assert_eq!(answer(&mut *one, 95), [snapshot(1)], "older than the first change");
        assert_eq!(answer(&mut *one, 110), [""; 0]);
        assert_eq!(hear(&mut *one, 1, &change(110, 250, 260, 2)), (Said::Data(0), vec![]), "numbers between belong to other books");
        assert_eq!(hear(&mut *one, 1, &change(110, 250, 260, 2)), (Said::Nothing, vec![]));
        assert_eq!(
            hear(&mut *one, 1, &change(270, 300, 301, 3)),
            (Said::Data(0), vec!["gap Some((261, 270)) 2000 3000".to_owned(), snapshot(0)])
        );
    }

    #[test]
    fn what_tells_of_a_whole_chain_is_not_followed() {
        let mut one = option_listener(&[Wanted::MarkPrice, Wanted::IndexPrice, Wanted::OpenInterest, Wanted::VenueStatus]);
        for (channel, frame) in [
            (0, r#"{"stream":"btcusdt@optionMarkPrice","data":[{"s":"BTC-261030-85000-C","mp":"3889.71","E":1,"e":"markPrice"}]}"#),
            (1, r#"{"stream":"!index@arr","data":[{"e":"indexPrice","E":1,"s":"BTCUSDT","p":"86176.89239130"}]}"#),
            (2, r#"{"stream":"btcusdt@openInterest@261030","data":[{"e":"openInterest","E":1,"s":"BTC-261030-85000-C","o":"1580.87"}]}"#),
            (3, r#"{"stream":"!optionSymbol","data":{"e":"optionSymbol","E":1,"s":"BTC-261127-90000-C","cs":"TRADING"}}"#),
        ] {
            assert_eq!(hear(&mut *one, 1, frame), (Said::Data(channel), vec![]));
        }
    }

    #[test]
    fn channels_and_polls_follow_from_what_is_wanted() {
        let names = |market: &Market, wanted| {
            Binance.channels(market, &perpetual(), wanted).into_iter().map(|c| format!("{} {}", c.route, c.name)).collect::<Vec<_>>()
        };
        let of_option = |wanted| {
            let channels = [Binance.market_channels(&OPTIONS, wanted), Binance.channels(&OPTIONS, &option(), wanted)].concat();
            channels.iter().map(|c| format!("{} {}", c.route, c.name)).collect::<Vec<_>>()
        };
        for (wanted, name) in [
            (Wanted::Trade, "/public/stream btc-261030-85000-c@optionTrade"),
            (Wanted::Book, "/public/stream btc-261030-85000-c@depth@100ms"),
            (Wanted::Quote, "/public/stream btc-261030-85000-c@bookTicker"),
            (Wanted::MarkPrice, "/market/stream btcusdt@optionMarkPrice"),
            (Wanted::IndexPrice, "/market/stream !index@arr"),
            (Wanted::OpenInterest, "/market/stream btcusdt@openInterest@261030"),
            (Wanted::VenueStatus, "/market/stream !optionSymbol"),
        ] {
            assert_eq!(of_option(wanted), [name]);
        }
        assert_eq!(Binance.listing(&OPTIONS)[0].path, "/eapi/v1/exchangeInfo");
        for market in Binance.markets() {
            for wanted in Wanted::ALL {
                let instrument = if market.name == OPTIONS.name { option() } else { perpetual() };
                // COIN-M counts ratios by pair.
                let symbol = if market.name == COINM.name { "BTCUSD_PERP".into() } else { instrument.symbol.clone() };
                let instrument = Instrument { symbol, ..instrument };
                let channels = [Binance.market_channels(market, wanted), Binance.channels(market, &instrument, wanted)].concat();
                let any = !channels.is_empty() || !Binance.polls(market, &instrument, wanted).is_empty();
                assert_eq!(any, Binance.tells(market, wanted), "{} {wanted:?}", market.name);
            }
        }
        assert_eq!(names(&USDM, Wanted::Trade), ["/market/stream btcusdt@aggTrade"]);
        assert_eq!(names(&USDM, Wanted::Book), ["/public/stream btcusdt@depth@100ms"]);
        assert_eq!(names(&COINM, Wanted::FundingRate), ["/stream btcusdt@markPrice@1s"]);
        assert_eq!(names(&SPOT, Wanted::Trade), ["/stream btcusdt@trade"]);
        assert_eq!(names(&SPOT, Wanted::Liquidation), [""; 0]);
        let polls: Vec<String> =
            Binance.polls(&USDM, &perpetual(), Wanted::LongShortRatio).into_iter().map(|poll| poll.ask.topic).collect();
        assert_eq!(
            polls,
            ["globalLongShortAccountRatio", "topLongShortAccountRatio", "topLongShortPositionRatio"]
                .map(|name| format!("BTCUSDT@{name}@5m"))
        );
    }
}
