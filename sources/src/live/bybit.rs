//! Bybit: its topics and requests.
//!
//! Every frame names its topic, and each category has a socket of its own. What must hold on them:
//!
//! - **Books** begin with a snapshot; each change has the number of the one before it plus one. Where that breaks, the topic is
//!   subscribed to anew. A snapshot that comes by itself replaces the book, whatever its number.
//! - **Trades** have names and no numbers, so what a connection leaves out cannot be noticed. Between two connections it can: where
//!   the first trade of the new one was not heard before, those between the last one heard and it are asked for (`recent-trade`).
//!   As long as the old connection is there it may still tell them, and the question waits for what it says, or for its end.
//! - What comes again over a second connection, or in an answer, is dropped by its name.
//!
//! Sources: the page on Bybit in the manual, section "Live".

use std::borrow::Cow;
use std::time::Duration;

use hashbrown::HashMap;
use model::instrument::Market as Traded;
use model::time::Micros;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::cut;
use super::follow::{self, Chain, Last, Lately};
use super::venue::{
    Ask, Channel, Filled, Hole, Instrument, Limits, Line, Market, Order, Over, POLL, Poll, Protocol, Said, Tells, Venue, Verdict, Wanted,
};
use crate::dialect::bybit::{Body, Envelope, Members, note};
use crate::dialect::fields::{Event, Fields};
use crate::dialect::json::{Scanner, Token, Value};

/// The venue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bybit;

// A request on spot has ten topics at most.
const SPOT: Market = market("spot", "bybit_spot", Limits { at_once: 10, ..LIMITS });
const LINEAR: Market = market("linear", "bybit_linear", LIMITS);
const INVERSE: Market = market("inverse", "bybit_inverse", LIMITS);
const OPTION: Market = market("option", "bybit_option", LIMITS);

/// All markets share addresses; the path says which.
const fn market(name: &'static str, dialect: &'static str, limits: Limits) -> Market {
    Market { name, dialect, socket: "wss://stream.bybit.com", rest: "https://api.bybit.com", limits }
}

/// The topics of a connection may have 21,000 characters, and those of options be 2,000. 500 connections in five minutes are
/// allowed, all markets together, and 600 requests in five seconds. A ping is due every 20 seconds. Bybit tells of no longest life.
const LIMITS: Limits = Limits {
    channels: 200,
    at_once: 100,
    message_pause: Duration::from_millis(100),
    connect_pause: Duration::from_millis(2_500),
    lifetime: Duration::from_secs(86_400 - 600),
    silence: Duration::from_secs(45),
    ping: Some((Duration::from_secs(15), r#"{"op":"ping"}"#)),
    weight: 600,
    window: Duration::from_secs(5),
};

/// How long an address is shut out that has asked too much.
const SHUT_OUT: Duration = Duration::from_secs(600);
/// The assets that have options: they are listed by it.
const UNDERLYINGS: [&str; 4] = ["BTC", "ETH", "SOL", "MNT"];
/// Where maintenance is told.
const STATUS: &str = "/v5/public/misc/status";

/// Where a market's topics are.
fn route(market: &Market) -> &'static str {
    match market.name {
        "spot" => "/v5/public/spot",
        "linear" => "/v5/public/linear",
        "inverse" => "/v5/public/inverse",
        _ => "/v5/public/option",
    }
}

/// What every answer says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    ret_code: i64,
}

/// A page of a listing, as far as it names the next one.
#[derive(Deserialize)]
struct Page {
    result: Cursor,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cursor {
    #[serde(default)]
    next_page_cursor: String,
}

/// A trade of the past, as far as it is followed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Past<'a> {
    #[serde(borrow)]
    exec_id: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

impl Venue for Bybit {
    fn name(&self) -> &'static str {
        "bybit"
    }

    fn markets(&self) -> &'static [Market] {
        &[SPOT, LINEAR, INVERSE, OPTION]
    }

    fn listing(&self, market: &Market) -> Vec<Ask> {
        let ask = |rest: &str| Ask {
            path: format!("/v5/market/instruments-info?category={}{rest}", market.name),
            topic: String::new(),
            weight: 1,
        };
        match market.name {
            // It comes as a whole.
            "spot" => vec![ask("")],
            "option" => UNDERLYINGS.iter().map(|base| ask(&format!("&baseCoin={base}&limit=1000"))).collect(),
            _ => vec![ask("&limit=1000")],
        }
    }

    fn listing_goes_on(&self, _market: &Market, ask: &Ask, answer: &[u8]) -> Vec<Ask> {
        let cursor = serde_json::from_slice::<Page>(answer).map(|page| page.result.next_page_cursor).unwrap_or_default();
        if cursor.is_empty() {
            return Vec::new();
        }
        // It is written as it goes into a path.
        let first = ask.path.split("&cursor=").next().unwrap_or_default();
        vec![Ask { path: format!("{first}&cursor={cursor}"), ..ask.clone() }]
    }

    fn tells(&self, market: &Market, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Trade | Wanted::Book | Wanted::Quote => true,
            Wanted::VenueStatus => market.name == SPOT.name,
            Wanted::MarkPrice | Wanted::IndexPrice | Wanted::OpenInterest => market.name != SPOT.name,
            Wanted::FundingRate | Wanted::Liquidation | Wanted::LongShortRatio => matches!(market.name, "linear" | "inverse"),
            Wanted::VolatilityIndex => false,
        }
    }

    fn channels(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Channel> {
        if !self.tells(market, wanted) {
            return Vec::new();
        }
        let options = market.name == OPTION.name;
        let symbol = &*instrument.symbol;
        let (topic, tells) = match wanted {
            Wanted::Trade if options => {
                // Of all options of an asset, so of none in particular.
                let name = format!("publicTrade.{}", instrument.listing.base);
                return vec![Channel { route: route(market), name, instrument: None, tells: Tells::Trades }];
            }
            Wanted::Trade => ("publicTrade", Tells::Trades),
            Wanted::Book if options => ("orderbook.100", Tells::Book),
            Wanted::Book => ("orderbook.200", Tells::Book),
            Wanted::Quote if !options => ("orderbook.1", Tells::State),
            Wanted::Liquidation => ("allLiquidation", Tells::Seldom),
            Wanted::FundingRate if instrument.listing.market != Traded::Perpetual => return Vec::new(),
            Wanted::Quote | Wanted::FundingRate | Wanted::MarkPrice | Wanted::IndexPrice | Wanted::OpenInterest => {
                ("tickers", Tells::State)
            }
            _ => return Vec::new(),
        };
        vec![Channel { route: route(market), name: format!("{topic}.{symbol}"), instrument: Some(instrument.clone()), tells }]
    }

    fn market_channels(&self, market: &Market, wanted: Wanted) -> Vec<Channel> {
        if wanted != Wanted::VenueStatus || !self.tells(market, wanted) {
            return Vec::new();
        }
        vec![Channel { route: STATUS, name: "system.status".into(), instrument: None, tells: Tells::Seldom }]
    }

    fn polls(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Poll> {
        let Instrument { symbol, listing } = instrument;
        // Of contracts against USDC there is none.
        let counted = listing.market == Traded::Perpetual && listing.quote != "USDC";
        if wanted != Wanted::LongShortRatio || !self.tells(market, wanted) || !counted {
            return Vec::new();
        }
        let path = format!("/v5/market/account-ratio?category={}&symbol={symbol}&period=5min&limit=1", market.name);
        vec![Poll { ask: Ask { path, topic: format!("{symbol}@account-ratio@5min"), weight: 1 }, every: POLL }]
    }

    fn subscribe(&self, _market: &Market, channels: &[Channel], number: u64) -> Vec<String> {
        let topics: Vec<&str> = channels.iter().map(|channel| channel.name.as_str()).collect();
        vec![json!({ "op": "subscribe", "args": topics, "req_id": number.to_string() }).to_string()]
    }

    fn unsubscribe(&self, _market: &Market, channel: &Channel, number: u64) -> String {
        json!({ "op": "unsubscribe", "args": [channel.name], "req_id": number.to_string() }).to_string()
    }

    fn protocol(&self, market: &Market, channels: &[Channel]) -> Box<dyn Protocol> {
        let by_name = channels.iter().enumerate().map(|(number, channel)| (channel.name.as_str().into(), number)).collect();
        let channels = channels.iter().map(|channel| Followed { name: channel.name.as_str().into(), state: State::of(channel.tells) });
        Box::new(Listener {
            market: *market,
            by_name,
            channels: channels.collect(),
            outer: Fields::default(),
            inner: Fields::default(),
            element: Fields::default(),
            new: Vec::new(),
            hasher: ahash::RandomState::new(),
        })
    }

    fn verdict(&self, status: StatusCode, answer: &[u8]) -> Verdict {
        if status == StatusCode::FORBIDDEN {
            return Verdict::TooMuch(SHUT_OUT);
        }
        match serde_json::from_slice::<Outcome>(answer).map(|outcome| outcome.ret_code) {
            Ok(10_006) => Verdict::TooMuch(LIMITS.window),
            // Timed out, failed.
            Ok(10_000 | 10_016) => Verdict::Later,
            Ok(code) if status.is_success() && code != 0 => Verdict::Never,
            _ => Verdict::by_status(status),
        }
    }
}

/// What listens to a connection.
struct Listener {
    market: Market,
    by_name: HashMap<Box<str>, usize, ahash::RandomState>,
    channels: Vec<Followed>,
    outer: Fields<Envelope>,
    inner: Fields<Members>,
    element: Fields<Members>,
    /// Which trades of a frame are new.
    new: Vec<bool>,
    hasher: ahash::RandomState,
}

struct Followed {
    name: Box<str>,
    state: State,
}

/// How far a channel has come.
type State = follow::State<Named, Chain>;

/// Trades that have names and no numbers.
#[derive(Debug, Default)]
struct Named {
    lately: Lately,
    /// The time of the last one.
    last: Option<Micros>,
    /// The newest connection that has told one.
    line: Line,
    /// What that connection may have come too late for, as long as an older one may still tell it.
    doubtful: Option<Hole>,
}

impl Named {
    /// Hears of a trade by a hash of its name. Whether it is new, and what is missing before it.
    fn hear(&mut self, over: Over, hash: u64, time: Micros) -> (bool, Option<Hole>) {
        let Over { line, beside } = over;
        let new = self.lately.is_new(hash);
        let mut missing = None;
        if line > self.line {
            self.line = line;
            let hole = self.last.filter(|_| new).map(|since| Hole { numbers: None, since, until: time });
            *(if beside { &mut self.doubtful } else { &mut missing }) = hole;
        } else if line < self.line
            && let Some(hole) = &mut self.doubtful
        {
            // The older one tells what is before the newer one's first, or has come to it.
            if new {
                hole.since = time;
            } else {
                self.doubtful = None;
            }
        }
        if new {
            self.last = self.last.max(Some(time));
        }
        (new, missing)
    }

    /// Hears of a trade of the past. Whether it was missing in a hole, and whether the answer goes back to what was before it.
    fn fills(&mut self, hole: &Hole, hash: u64, time: Micros) -> (bool, bool) {
        if time < hole.since || time > hole.until {
            return (false, time < hole.since);
        }
        let missing = self.lately.is_new(hash);
        (missing, !missing && time == hole.since)
    }
}

impl Listener {
    /// Hears trades that stand in a list.
    fn trades(&mut self, over: Over, channel: usize, frame: &[u8], list: Value, orders: &mut Vec<Order>) -> Said {
        let Listener { channels, element, new, hasher, .. } = self;
        let State::Trades(named) = &mut channels[channel].state else { return Said::Data(channel) };
        new.clear();
        let walk = Scanner::at(frame, list).array(|s| {
            let item = s.value()?;
            // What is no trade is kept: the decoder will tell.
            if item.token != Token::Object {
                new.push(true);
                return Ok(());
            }
            element.inner(frame, item)?;
            let trade = Event { text: frame, fields: element };
            let (Some(name), Ok(time)) = (trade.get("i"), trade.integer("T")) else {
                new.push(true);
                return Ok(());
            };
            let (is_new, missing) = named.hear(over, hasher.hash_one(name.of(frame)), time.saturating_mul(1_000));
            new.push(is_new);
            orders.extend(missing.map(|hole| Order::Gap { channel, hole }));
            Ok(())
        });
        if walk.is_err() {
            return Said::Data(channel);
        }
        cut::said(channel, frame, &["data"], new.iter().copied())
    }

    /// Hears the book, or what changed.
    fn book(&mut self, line: Line, channel: usize, frame: &[u8], orders: &mut Vec<Order>) -> Said {
        let State::Book(book) = &mut self.channels[channel].state else { return Said::Data(channel) };
        let outer = Event { text: frame, fields: &self.outer };
        let inner = Event { text: frame, fields: &self.inner };
        let Some(number) = inner.integer("u").ok().and_then(|number| u64::try_from(number).ok()) else { return Said::Data(channel) };
        // Options are told without the engine's time.
        let time = outer.integer("cts").or_else(|_| outer.integer("ts")).unwrap_or_default().saturating_mul(1_000);
        let last = Last { number, time };
        let heard = match outer.get("type").map(|kind| kind.of(frame)) {
            Some(b"snapshot") => book.snapshot(line, last),
            _ => book.change(line, number.saturating_sub(1), last),
        };
        heard.said(channel, true, orders)
    }

    /// The answer to what we said.
    fn command(&self, frame: &[u8]) -> Said {
        let outer = Event { text: frame, fields: &self.outer };
        let inner = Event { text: frame, fields: &self.inner };
        if outer.get("op").is_some_and(|op| matches!(op.of(frame), b"ping" | b"pong")) {
            return Said::Nothing;
        }
        let Some(success) = outer.get("success") else { return Said::Other };
        let topics = |name| inner.get(name).and_then(|list| serde_json::from_slice::<Vec<Cow<'_, str>>>(list.of(frame)).ok());
        if success.token != Token::True || topics("failTopics").is_some_and(|failed| !failed.is_empty()) {
            return Said::Refused;
        }
        // The socket of options names the topics and not the request.
        if let Some(topics) = topics("successTopics") {
            return Said::Listening(topics.iter().filter_map(|topic| self.by_name.get(&**topic).copied()).collect());
        }
        let number = outer.get("req_id").and_then(|number| std::str::from_utf8(number.of(frame)).ok()?.parse().ok());
        number.map_or(Said::Nothing, Said::Subscribed)
    }
}

impl Protocol for Listener {
    fn hear(&mut self, over: Over, frame: &[u8], orders: &mut Vec<Order>) -> Said {
        let Ok(body) = note(frame, &mut self.outer, &mut self.inner) else { return Said::Other };
        let outer = Event { text: frame, fields: &self.outer };
        let Some(topic) = outer.get("topic") else { return self.command(frame) };
        let name = std::str::from_utf8(topic.of(frame)).unwrap_or_default();
        let Some(&channel) = self.by_name.get(name) else { return Said::Other };
        match body {
            Body::Value(list) if list.token == Token::Array => self.trades(over, channel, frame, list, orders),
            Body::Object => self.book(over.line, channel, frame, orders),
            _ => Said::Data(channel),
        }
    }

    fn ended(&mut self, line: Line, orders: &mut Vec<Order>) {
        for (channel, followed) in self.channels.iter_mut().enumerate() {
            if let State::Trades(named) = &mut followed.state
                && line < named.line
                && let Some(hole) = named.doubtful.take()
            {
                orders.push(Order::Gap { channel, hole });
            }
        }
    }

    fn fill(&self, channel: usize, _hole: &Hole) -> Option<Ask> {
        let (_, symbol) = self.channels[channel].name.split_once('.')?;
        let (of, limit) = match self.market.name {
            "spot" => ("symbol", 60),
            "option" => ("baseCoin", 1_000),
            _ => ("symbol", 1_000),
        };
        let path = format!("/v5/market/recent-trade?category={}&{of}={symbol}&limit={limit}", self.market.name);
        Some(Ask { path, topic: format!("{symbol}@recent-trade"), weight: 1 })
    }

    fn filled<'a>(&mut self, channel: usize, hole: &Hole, answer: &'a [u8]) -> Filled<'a> {
        let Listener { channels, hasher, .. } = self;
        let State::Trades(named) = &mut channels[channel].state else {
            return Filled { kept: Cow::Borrowed(&[]), rest: None, whole: false };
        };
        let mut whole = false;
        let (kept, _) = cut::retain(answer, &["result", "list"], |element| {
            let Ok(Past { exec_id, time }) = serde_json::from_str::<Past<'_>>(element.get()) else { return false };
            let Ok(time) = time.parse::<Micros>() else { return false };
            let (missing, goes_back) = named.fills(hole, hasher.hash_one(exec_id.as_bytes()), time.saturating_mul(1_000));
            whole |= goes_back;
            missing
        });
        Filled { kept, rest: None, whole }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{hear, hear_beside, words};
    use super::*;
    use model::instrument::Listing;

    fn linear() -> Instrument {
        Instrument { symbol: "BTCUSDT".into(), listing: Listing::perpetual("BTC", "USDT", None) }
    }

    fn option() -> Instrument {
        let listing = Listing { market: Traded::Option, ..Listing::perpetual("BTC", "USD", None) };
        Instrument { symbol: "BTC-26SEP25-60000-C".into(), listing }
    }

    /// What listens to the channels of an instrument, in this order.
    fn listener(market: &Market, instrument: &Instrument, wanted: &[Wanted]) -> Box<dyn Protocol> {
        Bybit.protocol(market, &wanted.iter().flat_map(|wanted| Bybit.channels(market, instrument, *wanted)).collect::<Vec<_>>())
    }

    fn ended(listener: &mut dyn Protocol, line: Line) -> Vec<String> {
        let mut orders = Vec::new();
        listener.ended(line, &mut orders);
        orders.iter().map(words).collect()
    }

    /// A frame of trades, each with its number as name and time.
    fn trades(times: &[u64]) -> String {
        let trades: Vec<String> = times
            .iter()
            .map(|time| {
                format!(
                    r#"{{"T":{time},"s":"BTCUSDT","S":"Buy","v":"0.001","p":"16578.50","L":"PlusTick","i":"name-{time}","BT":false,"RPI":false,"seq":1}}"#
                )
            })
            .collect();
        format!(r#"{{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":9,"data":[{}]}}"#, trades.join(","))
    }

    /// The answer that has these trades, newest first.
    fn past(times: impl DoubleEndedIterator<Item = u64>) -> String {
        let trades: Vec<String> = times
            .rev()
            .map(|time| format!(r#"{{"execId":"name-{time}","symbol":"BTCUSDT","price":"1","size":"2","side":"Buy","time":"{time}"}}"#))
            .collect();
        format!(r#"{{"retCode":0,"retMsg":"OK","result":{{"category":"linear","list":[{}]}},"time":9}}"#, trades.join(","))
    }

    fn book(kind: &str, number: u64, time: u64) -> String {
        format!(
            r#"{{"topic":"orderbook.200.BTCUSDT","type":"{kind}","ts":9,"data":{{"s":"BTCUSDT","b":[["1","2"]],"a":[],"u":{number},"seq":7}},"cts":{time}}}"#
        )
    }

    const NOTHING: (Said, Vec<String>) = (Said::Nothing, Vec::new());
    const DATA: (Said, Vec<String>) = (Said::Data(0), Vec::new());

    #[test]
    fn a_book_is_subscribed_to_anew_where_a_change_is_missing() {
        let mut one = listener(&LINEAR, &linear(), &[Wanted::Book]);
        assert_eq!(hear(&mut *one, 1, &book("delta", 5, 1)), NOTHING, "it has not begun");
        assert_eq!(hear(&mut *one, 1, &book("snapshot", 10, 1)), DATA);
        assert_eq!(hear(&mut *one, 1, &book("delta", 11, 2)), DATA);
        assert_eq!(hear(&mut *one, 1, &book("delta", 11, 2)), NOTHING);
        let hole = vec!["gap Some((12, 12)) 2000 3000".to_owned(), "resubscribe 0".to_owned()];
        assert_eq!(hear(&mut *one, 1, &book("delta", 13, 3)), (Said::Data(0), hole));
        assert_eq!(hear(&mut *one, 1, &book("delta", 12, 3)), NOTHING, "it comes too late");
        assert_eq!(hear(&mut *one, 1, &book("delta", 15, 4)), DATA, "it is known that it is broken");
        assert_eq!(hear(&mut *one, 1, &book("snapshot", 1, 5)), DATA, "the venue's service has begun anew");
        assert_eq!(hear(&mut *one, 1, &book("delta", 2, 6)), DATA);
    }

    #[test]
    fn a_book_changes_over_to_the_connection_that_begins_it() {
        let mut one = listener(&LINEAR, &linear(), &[Wanted::Book]);
        hear(&mut *one, 1, &book("snapshot", 10, 1));
        assert_eq!(hear(&mut *one, 2, &book("delta", 11, 2)), NOTHING);
        assert_eq!(hear(&mut *one, 1, &book("delta", 11, 2)), DATA);
        assert_eq!(hear(&mut *one, 2, &book("snapshot", 11, 2)), DATA);
        assert_eq!(hear(&mut *one, 1, &book("delta", 12, 3)), NOTHING);
        assert_eq!(hear(&mut *one, 1, &book("snapshot", 12, 3)), NOTHING);
        assert_eq!(hear(&mut *one, 2, &book("delta", 12, 3)), DATA);
        one.taken_over();
        assert_eq!(hear(&mut *one, 3, &book("delta", 13, 4)), NOTHING);
        assert_eq!(hear(&mut *one, 3, &book("snapshot", 13, 4)), DATA);
    }

    #[test]
    fn of_a_frame_only_what_is_new_is_kept() {
        let mut one = listener(&LINEAR, &linear(), &[Wanted::Trade]);
        assert_eq!(hear(&mut *one, 1, &trades(&[1, 2])), DATA);
        assert_eq!(hear(&mut *one, 1, &trades(&[1, 2])), NOTHING);
        assert_eq!(hear(&mut *one, 1, &trades(&[2, 3, 4])), (Said::Part(0, trades(&[3, 4]).into_bytes()), vec![]));
        assert_eq!(hear(&mut *one, 1, &trades(&[])), DATA);
        let odd = r#"{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1,"data":[7,{"T":"no"}]}"#;
        assert_eq!(hear(&mut *one, 1, odd), DATA, "the decoder will tell");
    }

    #[test]
    fn what_is_missing_between_two_connections_is_asked_for() {
        let mut one = listener(&LINEAR, &linear(), &[Wanted::Trade]);
        assert_eq!(hear(&mut *one, 1, &trades(&[1, 2])), DATA);
        assert_eq!(ended(&mut *one, 1), [""; 0]);
        let hole = vec!["gap None 2000 9000".to_owned()];
        assert_eq!(hear(&mut *one, 2, &trades(&[9, 10])), (Said::Data(0), hole));
        assert_eq!(hear(&mut *one, 2, &trades(&[11])), DATA);
        let hole = Hole { numbers: None, since: 2_000, until: 9_000 };
        let ask = one.fill(0, &hole).unwrap();
        assert_eq!(ask.path, "/v5/market/recent-trade?category=linear&symbol=BTCUSDT&limit=1000");
        assert_eq!(ask.topic, "BTCUSDT@recent-trade");
        let (answer, kept, short) = (past(1..=12), past(3..=8), past(20..=21));
        assert_eq!(one.filled(0, &hole, answer.as_bytes()), Filled { kept: kept.into_bytes().into(), rest: None, whole: true });
        assert_eq!(one.filled(0, &hole, answer.as_bytes()), Filled { kept: b""[..].into(), rest: None, whole: true }, "it was there");
        assert_eq!(one.filled(0, &hole, short.as_bytes()), Filled { kept: b""[..].into(), rest: None, whole: false });
        assert_eq!(hear(&mut *one, 2, &trades(&[5, 12])).0, Said::Part(0, trades(&[12]).into_bytes()), "the answer was faster");
    }

    #[test]
    fn connections_that_overlap_leave_no_hole() {
        let mut one = listener(&LINEAR, &linear(), &[Wanted::Trade]);
        hear(&mut *one, 1, &trades(&[1, 2]));
        // The old one tells it first.
        assert_eq!(hear(&mut *one, 1, &trades(&[3])), DATA);
        assert_eq!(hear_beside(&mut *one, 2, &trades(&[3])), NOTHING);
        assert_eq!(ended(&mut *one, 1), [""; 0]);
        assert_eq!(hear(&mut *one, 2, &trades(&[4])), DATA);
        // The new one tells it first, and the old one comes to it.
        assert_eq!(hear_beside(&mut *one, 3, &trades(&[6])), DATA);
        assert_eq!(hear(&mut *one, 2, &trades(&[5, 6])), (Said::Part(0, trades(&[5]).into_bytes()), vec![]));
        assert_eq!(ended(&mut *one, 2), [""; 0]);
        // The new one tells it first, and the old one ends before it comes to it.
        assert_eq!(hear_beside(&mut *one, 4, &trades(&[9])), DATA);
        assert_eq!(hear(&mut *one, 3, &trades(&[7])), DATA);
        assert_eq!(ended(&mut *one, 3), ["gap None 7000 9000"]);
        // The new one ends, and the old one comes to what it told.
        assert_eq!(hear_beside(&mut *one, 5, &trades(&[10])), DATA);
        assert_eq!(ended(&mut *one, 5), [""; 0]);
        assert_eq!(hear(&mut *one, 4, &trades(&[10, 11])).0, Said::Part(0, trades(&[11]).into_bytes()));
        assert_eq!(ended(&mut *one, 4), [""; 0]);
    }

    #[test]
    fn what_an_earlier_run_heard_is_followed_on() {
        let mut one = listener(&LINEAR, &linear(), &[Wanted::Trade]);
        assert_eq!(hear(&mut *one, 0, &trades(&[1, 2])), DATA);
        assert_eq!(hear(&mut *one, 0, &trades(&[5])), DATA);
        one.taken_over();
        assert_eq!(hear(&mut *one, 1, &trades(&[8])), (Said::Data(0), vec!["gap None 5000 8000".to_owned()]));
        let mut first = listener(&LINEAR, &linear(), &[Wanted::Trade]);
        first.taken_over();
        assert_eq!(hear(&mut *first, 1, &trades(&[8])), DATA, "nothing is known of what was before");
    }

    #[test]
    fn acknowledgements_and_refusals_are_told_apart() {
        let mut one = listener(&OPTION, &option(), &[Wanted::Trade, Wanted::Book]);
        for (frame, said) in [
            (r#"{"success":true,"ret_msg":"subscribe","conn_id":"d9","req_id":"3","op":"subscribe"}"#, Said::Subscribed(3)),
            (r#"{"success":true,"ret_msg":"pong","conn_id":"09","req_id":"","op":"ping"}"#, Said::Nothing),
            (r#"{"args":["1672916271846"],"op":"pong"}"#, Said::Nothing),
            (r#"{"success":true,"ret_msg":"","conn_id":"09","op":"unsubscribe"}"#, Said::Nothing),
            (r#"{"success":false,"ret_msg":"error:handler not found","conn_id":"2xh","req_id":"3","op":"subscribe"}"#, Said::Refused),
            (
                r#"{"success":true,"conn_id":"aa","data":{"failTopics":[],"successTopics":["orderbook.100.BTC-26SEP25-60000-C"]},"type":"COMMAND_RESP"}"#,
                Said::Listening(vec![1]),
            ),
            (
                r#"{"success":true,"conn_id":"a","data":{"failTopics":["tickers.X"],"successTopics":[]},"type":"COMMAND_RESP"}"#,
                Said::Refused,
            ),
            (r#"{"topic":"publicTrade.ETH","type":"snapshot","ts":1,"data":[]}"#, Said::Other),
            ("{}", Said::Other),
            ("nonsense", Said::Other),
        ] {
            assert_eq!(hear(&mut *one, 1, frame), (said, vec![]), "{frame}");
        }
        assert_eq!(
            one.fill(0, &Hole { numbers: None, since: 1, until: 2 }).unwrap().path,
            "/v5/market/recent-trade?category=option&baseCoin=BTC&limit=1000"
        );
    }

    #[test]
    fn channels_and_polls_follow_from_what_is_wanted() {
        let names = |market: &Market, instrument: &Instrument, wanted| {
            let channels = [Bybit.channels(market, instrument, wanted), Bybit.market_channels(market, wanted)].concat();
            channels.iter().map(|channel| format!("{} {}", channel.route, channel.name)).collect::<Vec<_>>()
        };
        let of_linear = |wanted| names(&LINEAR, &linear(), wanted);
        assert_eq!(of_linear(Wanted::Trade), ["/v5/public/linear publicTrade.BTCUSDT"]);
        assert_eq!(of_linear(Wanted::Book), ["/v5/public/linear orderbook.200.BTCUSDT"]);
        assert_eq!(of_linear(Wanted::Quote), ["/v5/public/linear orderbook.1.BTCUSDT"]);
        for wanted in [Wanted::FundingRate, Wanted::MarkPrice, Wanted::IndexPrice, Wanted::OpenInterest] {
            assert_eq!(of_linear(wanted), ["/v5/public/linear tickers.BTCUSDT"]);
        }
        assert_eq!(of_linear(Wanted::Liquidation), ["/v5/public/linear allLiquidation.BTCUSDT"]);
        assert_eq!(names(&SPOT, &linear(), Wanted::VenueStatus), ["/v5/public/misc/status system.status"]);
        let of_option = |wanted| names(&OPTION, &option(), wanted);
        assert_eq!(of_option(Wanted::Trade), ["/v5/public/option publicTrade.BTC"]);
        assert_eq!(of_option(Wanted::Book), ["/v5/public/option orderbook.100.BTC-26SEP25-60000-C"]);
        assert_eq!(of_option(Wanted::Quote), ["/v5/public/option tickers.BTC-26SEP25-60000-C"]);
        let polls = Bybit.polls(&LINEAR, &linear(), Wanted::LongShortRatio);
        assert_eq!(polls[0].ask.path, "/v5/market/account-ratio?category=linear&symbol=BTCUSDT&period=5min&limit=1");
        assert_eq!(polls[0].ask.topic, "BTCUSDT@account-ratio@5min");
        let usdc = Instrument { symbol: "BTCPERP".into(), listing: Listing::perpetual("BTC", "USDC", None) };
        assert!(Bybit.polls(&LINEAR, &usdc, Wanted::LongShortRatio).is_empty());
        for market in Bybit.markets() {
            for wanted in Wanted::ALL {
                let instrument = if market.name == "option" { option() } else { linear() };
                let any = !names(market, &instrument, wanted).is_empty() || !Bybit.polls(market, &instrument, wanted).is_empty();
                assert_eq!(any, Bybit.tells(market, wanted), "{} {wanted:?}", market.name);
            }
        }
        let channels = [Bybit.channels(&LINEAR, &linear(), Wanted::Trade), Bybit.channels(&LINEAR, &linear(), Wanted::Book)].concat();
        let said = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(
            said(&Bybit.subscribe(&LINEAR, &channels, 2)[0]),
            json!({ "op": "subscribe", "args": ["publicTrade.BTCUSDT", "orderbook.200.BTCUSDT"], "req_id": "2" })
        );
        assert_eq!(
            said(&Bybit.unsubscribe(&LINEAR, &channels[1], 3)),
            json!({ "op": "unsubscribe", "args": ["orderbook.200.BTCUSDT"], "req_id": "3" })
        );
    }

    #[test]
    fn a_listing_is_asked_for_page_by_page() {
        let first = &Bybit.listing(&LINEAR)[0];
        assert_eq!(first.path, "/v5/market/instruments-info?category=linear&limit=1000");
        let page = |cursor: &str| format!(r#"{{"retCode":0,"result":{{"category":"linear","list":[],"nextPageCursor":"{cursor}"}}}}"#);
        let next = |ask: &Ask, cursor: &str| Bybit.listing_goes_on(&LINEAR, ask, page(cursor).as_bytes());
        let second = &next(first, "first%3DA%26last%3DB")[0];
        assert_eq!(second.path, "/v5/market/instruments-info?category=linear&limit=1000&cursor=first%3DA%26last%3DB");
        assert_eq!(next(second, "C")[0].path, "/v5/market/instruments-info?category=linear&limit=1000&cursor=C");
        assert!(next(second, "").is_empty());
        assert_eq!(Bybit.listing(&SPOT)[0].path, "/v5/market/instruments-info?category=spot");
        assert_eq!(Bybit.listing(&OPTION)[1].path, "/v5/market/instruments-info?category=option&baseCoin=ETH&limit=1000");
    }

    #[test]
    fn an_error_may_stand_in_an_answer_of_success() {
        for (status, answer, verdict) in [
            (200, r#"{"retCode":0,"retMsg":"OK","result":{}}"#, Verdict::Answer),
            (200, r#"{"retCode":10006,"retMsg":"Too many visits!"}"#, Verdict::TooMuch(Duration::from_secs(5))),
            (200, r#"{"retCode":10016,"retMsg":"Server error."}"#, Verdict::Later),
            (200, r#"{"retCode":10001,"retMsg":"params error"}"#, Verdict::Never),
            (403, "access too frequent", Verdict::TooMuch(Duration::from_secs(600))),
            (500, "broken", Verdict::Later),
            (404, "", Verdict::Never),
        ] {
            assert_eq!(Bybit.verdict(StatusCode::from_u16(status).unwrap(), answer.as_bytes()), verdict, "{answer}");
        }
    }
}
