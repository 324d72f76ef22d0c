//! Binance: its streams and requests.
//!
//! Channels are streams of a combined connection, so that every frame says which one it belongs to. What must hold on them:
//!
//! - **Trades** have numbers without holes. A hole is asked for (`historicalTrades` on spot, `aggTrades` on futures).
//! - **Books**: a change begins where the one before it ended (spot: `U = u' + 1`; futures: `pu = u'`). Where that breaks, and
//!   at the beginning, a snapshot is asked for; one that is older than the first change heard is of no use and asked for again.
//! - What comes again, with a number that was passed and a time that was too, is dropped. A smaller number at a later time says
//!   that the venue has begun to count anew.
//!
//! Sources: the page on Binance in the manual, section "Live".

use std::time::Duration;

use hashbrown::HashMap;
use model::instrument::Market as Traded;

use super::venue::{Ask, Channel, Instrument, Limits, Market, Order, Poll, Protocol, Said, Tells, Venue, Wanted};
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
    listing: Ask { path: "/api/v3/exchangeInfo", topic: "", weight: 20 },
    limits: Limits { silence: Duration::from_secs(60), weight: 6_000, ..LIMITS },
};
const USDM: Market = Market {
    name: "usdm",
    dialect: "binance_usdm",
    socket: "wss://fstream.binance.com",
    rest: "https://fapi.binance.com",
    listing: Ask { path: "/fapi/v1/exchangeInfo", topic: "", weight: 1 },
    limits: LIMITS,
};
const COINM: Market = Market {
    name: "coinm",
    dialect: "binance_coinm",
    socket: "wss://dstream.binance.com",
    rest: "https://dapi.binance.com",
    listing: Ask { path: "/dapi/v1/exchangeInfo", topic: "", weight: 1 },
    limits: LIMITS,
};

/// 1,024 streams, five messages a second (spot; ten elsewhere) and 300 connections in five minutes are allowed, and a
/// connection lives for 24 hours. Spot pings every 20 seconds, futures every three minutes.
const LIMITS: Limits = Limits {
    channels: 200,
    at_once: 100,
    message_pause: Duration::from_millis(250),
    connect_pause: Duration::from_millis(1_100),
    lifetime: Duration::from_secs(86_400 - 600),
    silence: Duration::from_secs(400),
    weight: 2_400,
};

/// How often what only requests tell is asked for.
const POLL: Duration = Duration::from_secs(60);
/// Trades that one request can give.
const TRADES: u64 = 1_000;

impl Venue for Binance {
    fn name(&self) -> &'static str {
        "binance"
    }

    fn tells(&self, market: &Market, wanted: Wanted) -> bool {
        market.name != SPOT.name || matches!(wanted, Wanted::Trade | Wanted::Book | Wanted::Quote)
    }

    fn markets(&self) -> &'static [Market] {
        &[SPOT, USDM, COINM]
    }

    fn channels(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Channel> {
        let spot = market.name == SPOT.name;
        // USD-M tells what its matching engine does over one address and what is worked out of it over another.
        let (engine, derived) = if market.name == USDM.name { ("/public/stream", "/market/stream") } else { ("/stream", "/stream") };
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
        vec![Channel { route, name, symbol: instrument.symbol.clone(), tells }]
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

    fn subscribe(&self, channels: &[Channel], number: u64) -> String {
        let names: Vec<&str> = channels.iter().map(|channel| channel.name.as_str()).collect();
        serde_json::json!({ "method": "SUBSCRIBE", "params": names, "id": number }).to_string()
    }

    fn protocol(&self, market: &Market, channels: &[Channel]) -> Box<dyn Protocol> {
        let by_name = channels.iter().enumerate().map(|(number, channel)| (channel.name.as_str().into(), number)).collect();
        let channels =
            channels.iter().map(|channel| Followed { symbol: channel.symbol.clone(), state: State::of(channel.tells) }).collect();
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
#[derive(Clone, Copy, Debug)]
enum State {
    /// It is not followed.
    Any,
    /// The number and time of its last trade.
    Trades(Option<Last>),
    Book(Book),
}

#[derive(Clone, Copy, Debug)]
struct Last {
    number: u64,
    time: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Book {
    /// The last update heard.
    last: Option<Last>,
    /// The first update heard of those that continue each other up to the last.
    first: u64,
    /// A snapshot has been asked for.
    asked: bool,
}

impl State {
    fn of(tells: Tells) -> State {
        match tells {
            Tells::Trades => State::Trades(None),
            Tells::Book => State::Book(Book::default()),
            Tells::State | Tells::Seldom => State::Any,
        }
    }
}

impl Listener {
    fn snapshot(&self, channel: usize, failed: u32) -> Order {
        let symbol = &self.channels[channel].symbol;
        let (path, weight) = match self.market.name {
            "spot" => (format!("/api/v3/depth?symbol={symbol}&limit=5000"), 250),
            "usdm" => (format!("/fapi/v1/depth?symbol={symbol}&limit=1000"), 20),
            _ => (format!("/dapi/v1/depth?symbol={symbol}&limit=1000"), 20),
        };
        Order::Ask { channel, ask: Ask { path, topic: symbol.to_string(), weight }, failed }
    }

    /// Asks for trades from one number to another.
    fn fill(&self, channel: usize, first: u64, last: u64) -> impl Iterator<Item = Order> {
        let symbol = &self.channels[channel].symbol;
        let (endpoint, weight) = match self.market.name {
            "spot" => ("/api/v3/historicalTrades", 25),
            "usdm" => ("/fapi/v1/aggTrades", 20),
            _ => ("/dapi/v1/aggTrades", 20),
        };
        let name = endpoint.rsplit('/').next().unwrap_or_default();
        (first..=last).step_by(TRADES as usize).map(move |from| {
            let count = (last - from + 1).min(TRADES);
            let path = format!("{endpoint}?symbol={symbol}&fromId={from}&limit={count}");
            Order::Ask { channel, ask: Ask { path, topic: format!("{symbol}@{name}"), weight }, failed: 0 }
        })
    }
}

impl Protocol for Listener {
    fn hear(&mut self, frame: &[u8], orders: &mut Vec<Order>) -> Said {
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
        let time = event.integer("E").unwrap_or_default();
        match self.channels[channel].state {
            State::Any => {}
            State::Trades(last) => {
                let Some(id) = number(if self.market.name == SPOT.name { "t" } else { "a" }) else { return Said::Data(channel) };
                match last {
                    Some(last) if id <= last.number && time <= last.time => return Said::Again,
                    Some(last) if id > last.number + 1 => {
                        orders.push(Order::Gap { channel, first: last.number + 1, last: id - 1 });
                        orders.extend(self.fill(channel, last.number + 1, id - 1));
                    }
                    _ => {}
                }
                self.channels[channel].state = State::Trades(Some(Last { number: id, time }));
            }
            State::Book(mut book) => {
                let (Some(first), Some(last)) = (number("U"), number("u")) else { return Said::Data(channel) };
                let follows = match (book.last, number("pu")) {
                    (Some(before), _) if last <= before.number && time <= before.time => return Said::Again,
                    (Some(before), Some(previous)) => previous == before.number,
                    (Some(before), None) => first <= before.number + 1 && last > before.number,
                    (None, _) => false,
                };
                book.last = Some(Last { number: last, time });
                if !follows {
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

    fn answer(&mut self, channel: usize, ask: &Ask<String>, failed: u32, answer: &[u8], orders: &mut Vec<Order>) {
        let State::Book(book) = &mut self.channels[channel].state else { return };
        if ask.topic.contains('@') {
            return;
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(market: &Market, channels: &[(&str, Tells)]) -> Box<dyn Protocol> {
        let channels: Vec<Channel> = channels
            .iter()
            .map(|(name, tells)| Channel { route: "/stream", name: (*name).into(), symbol: "BTCUSDT".into(), tells: *tells })
            .collect();
        Binance.protocol(market, &channels)
    }

    fn hear(listener: &mut dyn Protocol, frame: &str) -> (Said, Vec<String>) {
        let mut orders = Vec::new();
        let said = listener.hear(frame.as_bytes(), &mut orders);
        (said, orders.iter().map(words).collect())
    }

    fn words(order: &Order) -> String {
        match order {
            Order::Ask { ask, failed, .. } => format!("{} {} {failed}", ask.path, ask.topic),
            Order::Gap { first, last, .. } => format!("gap {first} {last}"),
        }
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
        assert_eq!(hear(&mut *one, &depth(11, 15, 1)), (Said::Data(0), vec![format!("{SNAPSHOT} 0")]));
        assert_eq!(hear(&mut *one, &depth(16, 20, 2)), (Said::Data(0), vec![]));
        let ask = Ask { path: String::new(), topic: "BTCUSDT".to_owned(), weight: 250 };
        let answer = |one: &mut dyn Protocol, number: u64| {
            let mut orders = Vec::new();
            one.answer(0, &ask, 0, format!(r#"{{"lastUpdateId":{number},"bids":[],"asks":[]}}"#).as_bytes(), &mut orders);
            orders.iter().map(words).collect::<Vec<_>>()
        };
        assert_eq!(answer(&mut *one, 9), [format!("{SNAPSHOT} 1")], "older than the first change");
        // A hole while the snapshot is asked for: the next change is the first.
        assert_eq!(hear(&mut *one, &depth(23, 24, 3)), (Said::Data(0), vec![]));
        assert_eq!(answer(&mut *one, 20), [format!("{SNAPSHOT} 1")], "older than the hole");
        assert_eq!(answer(&mut *one, 22), [""; 0]);
        assert_eq!(hear(&mut *one, &depth(25, 30, 4)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, &depth(25, 30, 4)), (Said::Again, vec![]));
        assert_eq!(hear(&mut *one, &depth(32, 33, 5)), (Said::Data(0), vec![format!("{SNAPSHOT} 0")]), "a hole");
        assert_eq!(answer(&mut *one, 40), [""; 0]);
        assert_eq!(hear(&mut *one, &depth(3, 4, 6)), (Said::Data(0), vec![format!("{SNAPSHOT} 0")]), "counted anew");
    }

    #[test]
    fn missing_trades_are_asked_for() {
        let trade =
            |id: u64, time: u64| format!(r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{time},"s":"BTCUSDT","t":{id}}}}}"#);
        let mut one = listener(&SPOT, &[("btcusdt@trade", Tells::Trades)]);
        assert_eq!(hear(&mut *one, &trade(5, 1)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, &trade(5, 1)), (Said::Again, vec![]));
        let ask = |from: u64, count: u64| {
            format!("/api/v3/historicalTrades?symbol=BTCUSDT&fromId={from}&limit={count} BTCUSDT@historicalTrades 0")
        };
        assert_eq!(
            hear(&mut *one, &trade(2_507, 9)),
            (Said::Data(0), vec!["gap 6 2506".to_owned(), ask(6, 1_000), ask(1_006, 1_000), ask(2_006, 501)])
        );
        assert_eq!(hear(&mut *one, &trade(2_506, 9)), (Said::Again, vec![]), "it is asked for already");
        assert_eq!(hear(&mut *one, &trade(1, 10)), (Said::Data(0), vec![]), "counted anew");
    }

    #[test]
    fn what_an_earlier_run_heard_is_followed_on() {
        let trade = |id: u64| format!(r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{id},"s":"BTCUSDT","t":{id}}}}}"#);
        let mut one = listener(&SPOT, &[("btcusdt@trade", Tells::Trades), ("btcusdt@depth@100ms", Tells::Book)]);
        hear(&mut *one, &trade(5));
        hear(&mut *one, &depth(11, 15, 1));
        one.taken_over();
        assert_eq!(hear(&mut *one, &trade(7)).1[0], "gap 6 6");
        assert_eq!(hear(&mut *one, &depth(16, 20, 2)), (Said::Data(1), vec![format!("{SNAPSHOT} 0")]), "the other may not have come");
    }

    #[test]
    fn acknowledgements_and_refusals_are_told_apart() {
        let mut one = listener(&USDM, &[("btcusdt@aggTrade", Tells::Trades)]);
        assert_eq!(hear(&mut *one, r#"{"result":null,"id":3}"#).0, Said::Subscribed(3));
        assert_eq!(hear(&mut *one, r#"{"code":2,"msg":"Invalid request","id":3}"#).0, Said::Refused);
        assert_eq!(hear(&mut *one, r#"{"error":{"code":2,"msg":"Invalid request"},"id":3}"#).0, Said::Refused);
        assert_eq!(hear(&mut *one, r#"{"stream":"ethusdt@aggTrade","data":{"e":"aggTrade"}}"#).0, Said::Other);
        assert_eq!(hear(&mut *one, "nonsense").0, Said::Other);
    }

    #[test]
    fn channels_and_polls_follow_from_what_is_wanted() {
        use model::instrument::Listing;
        let perpetual = Instrument { symbol: "BTCUSDT".into(), listing: Listing::perpetual("BTC", "USDT", None) };
        let names = |market: &Market, wanted| {
            Binance.channels(market, &perpetual, wanted).into_iter().map(|c| format!("{} {}", c.route, c.name)).collect::<Vec<_>>()
        };
        assert_eq!(names(&USDM, Wanted::Trade), ["/market/stream btcusdt@aggTrade"]);
        assert_eq!(names(&USDM, Wanted::Book), ["/public/stream btcusdt@depth@100ms"]);
        assert_eq!(names(&COINM, Wanted::FundingRate), ["/stream btcusdt@markPrice@1s"]);
        assert_eq!(names(&SPOT, Wanted::Trade), ["/stream btcusdt@trade"]);
        assert_eq!(names(&SPOT, Wanted::Liquidation), [""; 0]);
        let polls: Vec<String> = Binance.polls(&USDM, &perpetual, Wanted::LongShortRatio).into_iter().map(|poll| poll.ask.topic).collect();
        assert_eq!(
            polls,
            ["globalLongShortAccountRatio", "topLongShortAccountRatio", "topLongShortPositionRatio"]
                .map(|name| format!("BTCUSDT@{name}@5m"))
        );
    }
}
