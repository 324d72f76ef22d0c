//! Deribit: its channels and requests.
//!
//! Every notification names its channel, and the answer to what we say has its number. What must hold on them:
//!
//! - **Trades** have numbers without holes, each instrument its own. A notification holds all that came in 100 ms, so two connections
//!   may cut them differently: each trade is followed by itself, and of a notification only what is new is kept. A hole is asked for
//!   (`get_last_trades_by_instrument`), its oldest part first.
//! - **Books** begin with a snapshot, and a change names the number of the one before it. Where that breaks, the channel is
//!   subscribed to anew.
//! - What comes again over a second connection is dropped.
//! - The venue is asked to send heartbeats, and told that we are there when it wants to know: else it cuts the connection.
//!
//! Sources: the page on Deribit in the manual, section "Live".

use std::borrow::Cow;
use std::time::Duration;

use hashbrown::HashMap;
use model::instrument::Market as Traded;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::cut;
use super::follow::{self, Chain, Heard, Last, Trades};
use super::venue::{
    Ask, Channel, Filled, Hole, Instrument, Limits, Line, Market, Order, Over, Poll, Protocol, Said, Tells, Venue, Verdict, Wanted,
};
use crate::dialect::deribit::{Envelope, FIGURES, Names, note};
use crate::dialect::fields::{Event, Fields};
use crate::dialect::json::{Scanner, Token, Value};

/// The venue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deribit;

const FUTURE: Market = market("future");
const OPTION: Market = market("option");
const SPOT: Market = market("spot");

/// All markets share addresses and limits; their names are the venue's kinds of instruments.
const fn market(name: &'static str) -> Market {
    Market { name, dialect: "deribit", socket: "wss://www.deribit.com", rest: "https://www.deribit.com", limits: LIMITS }
}

/// What we say and ask costs credits, of which 10,000 a second come back: a subscription 3,000 and a request 500. 32 connections are
/// allowed an address, with requests among them. How many channels a connection may have is not told, but a message of all of them
/// may be too long. Deribit tells of no longest life, and after each [`HEARTBEAT`] it says something.
const LIMITS: Limits = Limits {
    channels: 400,
    at_once: 200,
    message_pause: Duration::from_millis(350),
    connect_pause: Duration::from_secs(1),
    lifetime: Duration::from_secs(86_400 - 600),
    silence: Duration::from_secs(75),
    ping: None,
    weight: 10_000,
    window: Duration::from_secs(1),
};

/// The weight of a request, in credits.
const REQUEST: u32 = 500;
/// The weight of a request for a listing, of which one a second is allowed.
const LISTING: u32 = 10_000;
/// How long it takes until all credits have come back.
const REFILLED: Duration = Duration::from_secs(5);
/// Trades that one request can give.
const TRADES_AT_ONCE: u64 = 1_000;
/// How often the venue says that it is there and asks whether we are, in seconds.
const HEARTBEAT: u32 = 30;
/// What tells the venue that we are there. Its number is nobody's.
const HERE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"public/test","params":{}}"#;

/// Where all channels are.
const ROUTE: &str = "/ws/api/v2";
/// The assets whose volatility has an index.
const VOLATILE: [&str; 2] = ["BTC", "ETH"];

/// A message to the venue about channels.
fn message(method: &str, channels: &[Channel], number: u64) -> String {
    let names: Vec<&str> = channels.iter().map(|channel| channel.name.as_str()).collect();
    json!({ "jsonrpc": "2.0", "id": number, "method": method, "params": { "channels": names } }).to_string()
}

/// What an answer complains of.
#[derive(Deserialize)]
struct Outcome {
    error: Option<Complaint>,
}

/// What acknowledges a subscription: its channels.
#[derive(Deserialize)]
struct Acknowledged<'a> {
    #[serde(borrow)]
    result: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Complaint {
    code: i64,
}

impl Venue for Deribit {
    fn name(&self) -> &'static str {
        "deribit"
    }

    fn markets(&self) -> &'static [Market] {
        &[FUTURE, OPTION, SPOT]
    }

    fn listing(&self, market: &Market) -> Vec<Ask> {
        let path = format!("/api/v2/public/get_instruments?currency=any&kind={}&expired=false", market.name);
        vec![Ask { path, topic: String::new(), weight: LISTING }]
    }

    fn tells(&self, market: &Market, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Trade | Wanted::Book | Wanted::Quote | Wanted::VenueStatus => true,
            Wanted::MarkPrice | Wanted::IndexPrice | Wanted::OpenInterest | Wanted::Liquidation => market.name != SPOT.name,
            Wanted::FundingRate => market.name == FUTURE.name,
            Wanted::VolatilityIndex => market.name == OPTION.name,
            Wanted::LongShortRatio => false,
        }
    }

    fn channels(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Channel> {
        let Instrument { symbol, listing } = instrument;
        if !self.tells(market, wanted) {
            return Vec::new();
        }
        let (name, tells) = match wanted {
            // What was liquidated is told with the trades.
            Wanted::Trade | Wanted::Liquidation => (format!("trades.{symbol}.100ms"), Tells::Trades),
            Wanted::Book => (format!("book.{symbol}.100ms"), Tells::Book),
            Wanted::Quote => (format!("quote.{symbol}"), Tells::State),
            Wanted::FundingRate if listing.market != Traded::Perpetual => return Vec::new(),
            Wanted::FundingRate | Wanted::MarkPrice | Wanted::IndexPrice | Wanted::OpenInterest => {
                (format!("ticker.{symbol}.100ms"), Tells::State)
            }
            Wanted::VolatilityIndex if VOLATILE.contains(&&*listing.base) => {
                (format!("deribit_volatility_index.{}_usd", listing.base.to_lowercase()), Tells::State)
            }
            _ => return Vec::new(),
        };
        vec![Channel { route: ROUTE, name, instrument: Some(instrument.clone()), tells }]
    }

    fn market_channels(&self, market: &Market, wanted: Wanted) -> Vec<Channel> {
        if wanted != Wanted::VenueStatus {
            return Vec::new();
        }
        // Whether the venue is locked or under maintenance is told once.
        let platform = (market.name == FUTURE.name).then(|| "platform_state".to_owned());
        let names = platform.into_iter().chain([format!("instrument.state.{}.any", market.name)]);
        names.map(|name| Channel { route: ROUTE, name, instrument: None, tells: Tells::Seldom }).collect()
    }

    fn polls(&self, _market: &Market, _instrument: &Instrument, _wanted: Wanted) -> Vec<Poll> {
        Vec::new()
    }

    fn topic(&self, _market: &Market, channel: &Channel) -> String {
        // It tells the best bid and ask, too, more seldom than their own channel.
        if channel.name.starts_with("ticker.") { format!("{}{FIGURES}", channel.symbol()) } else { String::new() }
    }

    fn greeting(&self, _market: &Market) -> Vec<String> {
        vec![json!({ "jsonrpc": "2.0", "id": 0, "method": "public/set_heartbeat", "params": { "interval": HEARTBEAT } }).to_string()]
    }

    fn subscribe(&self, _market: &Market, channels: &[Channel], number: u64) -> Vec<String> {
        vec![message("public/subscribe", channels, number)]
    }

    fn unsubscribe(&self, _market: &Market, channel: &Channel, number: u64) -> String {
        message("public/unsubscribe", std::slice::from_ref(channel), number)
    }

    fn protocol(&self, _market: &Market, channels: &[Channel]) -> Box<dyn Protocol> {
        let by_name = channels.iter().enumerate().map(|(number, channel)| (channel.name.as_str().into(), number)).collect();
        let channels = channels.iter().map(|channel| Followed { symbol: channel.symbol().into(), state: State::of(channel.tells) });
        Box::new(Listener {
            by_name,
            channels: channels.collect(),
            outer: Fields::default(),
            inner: Fields::default(),
            trades: Vec::new(),
            new: Vec::new(),
        })
    }

    fn verdict(&self, status: StatusCode, answer: &[u8]) -> Verdict {
        match serde_json::from_slice::<Outcome>(answer).ok().and_then(|outcome| outcome.error).map(|error| error.code) {
            // Too many requests, or too many at the same time.
            Some(10_028 | 10_066) => Verdict::TooMuch(REFILLED),
            // Again, settlement, busy, maintenance, failed, not available now, timed out.
            Some(10_040 | 10_041 | 10_047 | 11_051 | 11_094 | 13_028 | 13_888) => Verdict::Later,
            Some(_) if status.is_success() => Verdict::Never,
            _ => Verdict::by_status(status),
        }
    }
}

/// What listens to a connection.
struct Listener {
    by_name: HashMap<Box<str>, usize, ahash::RandomState>,
    channels: Vec<Followed>,
    outer: Fields<Envelope>,
    inner: Fields<Names>,
    /// The trades of a notification, with their places in it.
    trades: Vec<(Last, usize)>,
    /// Which elements of a notification are new.
    new: Vec<bool>,
}

struct Followed {
    symbol: Box<str>,
    state: State,
}

/// How far a channel has come.
type State = follow::State<Trades, Chain>;

/// The number of a name, and the time, of an object.
fn last(object: Event<'_, Names>, name: &'static str) -> Option<Last> {
    let number = u64::try_from(object.integer(name).ok()?).ok()?;
    Some(Last { number, time: object.integer("timestamp").ok()?.saturating_mul(1_000) })
}

impl Listener {
    /// Hears trades that stand in a list.
    fn trades(&mut self, over: Over, channel: usize, frame: &[u8], list: Value, orders: &mut Vec<Order>) -> Said {
        let Listener { channels, inner, trades, new, .. } = self;
        let State::Trades(followed) = &mut channels[channel].state else { return Said::Data(channel) };
        trades.clear();
        new.clear();
        // What is no trade is kept: the decoder will tell.
        let walk = Scanner::at(frame, list).array(|s| {
            let item = s.value()?;
            if item.token == Token::Object {
                inner.inner(frame, item)?;
                let trade = last(Event { text: frame, fields: inner }, "trade_seq");
                trades.extend(trade.map(|trade| (trade, new.len())));
            }
            new.push(true);
            Ok(())
        });
        if walk.is_err() {
            return Said::Data(channel);
        }
        // Oldest first, however they stand there.
        trades.sort_unstable_by_key(|(trade, _)| trade.number);
        for (trade, place) in trades {
            match followed.hear(over, *trade) {
                Heard::New => {}
                Heard::Again => new[*place] = false,
                Heard::Behind(hole) => orders.push(Order::Gap { channel, hole }),
            }
        }
        cut::said(channel, frame, &["params", "data"], new.iter().copied())
    }

    /// Hears the book, or what changed.
    fn book(&mut self, line: Line, channel: usize, frame: &[u8], orders: &mut Vec<Order>) -> Said {
        let State::Book(book) = &mut self.channels[channel].state else { return Said::Data(channel) };
        let object = Event { text: frame, fields: &self.inner };
        let Some(last) = last(object, "change_id") else { return Said::Data(channel) };
        let heard = match object.integer("prev_change_id").ok().and_then(|previous| u64::try_from(previous).ok()) {
            Some(previous) => book.change(line, previous, last),
            None => book.snapshot(line, last),
        };
        heard.said(channel, true, orders)
    }

    /// The answer to what we said.
    fn command(&self, frame: &[u8]) -> Said {
        let outer = Event { text: frame, fields: &self.outer };
        if outer.get("error").is_some() {
            return Said::Refused;
        }
        let Some(number) = outer.integer("id").ok().and_then(|number| u64::try_from(number).ok()) else { return Said::Other };
        if number == 0 {
            return Said::Nothing;
        }
        // It leaves out channels whose instrument has expired.
        match serde_json::from_slice(frame) {
            Ok(Acknowledged { result }) => {
                Said::Partly(number, result.iter().filter_map(|name| self.by_name.get(&**name).copied()).collect())
            }
            Err(_) => Said::Subscribed(number),
        }
    }
}

impl Protocol for Listener {
    fn hear(&mut self, over: Over, frame: &[u8], orders: &mut Vec<Order>) -> Said {
        let Ok(object) = note(frame, &mut self.outer, &mut self.inner) else { return Said::Other };
        let outer = Event { text: frame, fields: &self.outer };
        let Some(method) = outer.get("method") else { return self.command(frame) };
        if method.of(frame) == b"heartbeat" {
            if outer.get("type").is_some_and(|kind| kind.of(frame) == b"test_request") {
                orders.push(Order::Say(HERE.to_owned()));
            }
            return Said::Nothing;
        }
        let name = outer.get("channel").and_then(|channel| std::str::from_utf8(channel.of(frame)).ok());
        let Some(&channel) = name.and_then(|name| self.by_name.get(name)) else { return Said::Other };
        match outer.get("data") {
            Some(list) if list.token == Token::Array => self.trades(over, channel, frame, list, orders),
            None if object => self.book(over.line, channel, frame, orders),
            _ => Said::Data(channel),
        }
    }

    fn fill(&self, channel: usize, hole: &Hole) -> Option<Ask> {
        let (first, last) = part(hole)?;
        let (symbol, count) = (&self.channels[channel].symbol, last - first + 1);
        let asked = format!("instrument_name={symbol}&start_seq={first}&end_seq={last}&count={count}&sorting=asc");
        let path = format!("/api/v2/public/get_last_trades_by_instrument?{asked}");
        Some(Ask { path, topic: format!("{symbol}@get_last_trades_by_instrument"), weight: REQUEST })
    }

    fn filled<'a>(&mut self, _channel: usize, hole: &Hole, answer: &'a [u8]) -> Filled<'a> {
        cut::numbered(answer, &["result", "trades"], hole, part(hole).unwrap_or_default(), |trade| cut::member(trade, "trade_seq"))
    }
}

/// The part of a hole that is asked for: the oldest that one request can give.
fn part(hole: &Hole) -> Option<(u64, u64)> {
    let (first, last) = hole.numbers?;
    Some((first, last.min(first + TRADES_AT_ONCE - 1)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::hear;
    use super::*;
    use model::instrument::Listing;

    fn perpetual() -> Instrument {
        Instrument { symbol: "BTC_USDC-PERPETUAL".into(), listing: Listing::perpetual("BTC", "USDC", None) }
    }

    fn option(asset: &str) -> Instrument {
        let listing = Listing { market: Traded::Option, ..Listing::perpetual(asset, "USD", None) };
        Instrument { symbol: format!("{asset}-27DEC24-60000-C").into(), listing }
    }

    fn channels(market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Channel> {
        [Deribit.channels(market, instrument, wanted), Deribit.market_channels(market, wanted)].concat()
    }

    /// What listens to the channels of the perpetual, in this order.
    fn listener(wanted: &[Wanted]) -> Box<dyn Protocol> {
        let all: Vec<Channel> = wanted.iter().flat_map(|wanted| channels(&FUTURE, &perpetual(), *wanted)).collect();
        Deribit.protocol(&FUTURE, &all)
    }

    /// A notification of trades, each with its number as time.
    fn trades(numbers: &[u64]) -> String {
        let trades: Vec<String> = numbers
            .iter()
            .map(|number| {
                format!(
                    r#"{{"timestamp":{number},"price":92294.5,"amount":0.01,"direction":"sell","index_price":92276.75,"instrument_name":"BTC_USDC-PERPETUAL","trade_seq":{number},"mark_price":92287.11,"tick_direction":2,"contracts":10.0,"trade_id":"USDC-{number}"}}"#
                )
            })
            .collect();
        format!(
            r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"trades.BTC_USDC-PERPETUAL.100ms","data":[{}]}}}}"#,
            trades.join(",")
        )
    }

    fn book(kind: &str, previous: &str, number: u64, time: u64) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"book.BTC_USDC-PERPETUAL.100ms","data":{{"type":"{kind}","timestamp":{time},{previous}"instrument_name":"BTC_USDC-PERPETUAL","change_id":{number},"bids":[["new",42500.0,1.0]],"asks":[]}}}}}}"#
        )
    }

    fn snapshot(number: u64, time: u64) -> String {
        book("snapshot", "", number, time)
    }

    fn change(previous: u64, number: u64, time: u64) -> String {
        book("change", &format!(r#""prev_change_id":{previous},"#), number, time)
    }

    const NOTHING: (Said, Vec<String>) = (Said::Nothing, Vec::new());
    const DATA: (Said, Vec<String>) = (Said::Data(0), Vec::new());

    fn part(numbers: &[u64]) -> (Said, Vec<String>) {
        (Said::Part(0, trades(numbers).into_bytes()), Vec::new())
    }

    #[test]
    fn a_book_is_subscribed_to_anew_where_a_change_is_missing() {
        let mut one = listener(&[Wanted::Book]);
        assert_eq!(hear(&mut *one, 1, &change(5, 6, 1)), NOTHING, "it has not begun");
        assert_eq!(hear(&mut *one, 1, &snapshot(10, 1)), DATA);
        assert_eq!(hear(&mut *one, 1, &change(10, 15, 2)), DATA);
        assert_eq!(hear(&mut *one, 1, &change(10, 15, 2)), NOTHING);
        let hole = vec!["gap Some((16, 18)) 2000 6000".to_owned(), "resubscribe 0".to_owned()];
        assert_eq!(hear(&mut *one, 1, &change(18, 19, 6)), (Said::Data(0), hole));
        assert_eq!(hear(&mut *one, 1, &change(15, 18, 6)), NOTHING, "it comes too late");
        assert_eq!(hear(&mut *one, 1, &change(21, 22, 7)), DATA, "it is known that it is broken");
        assert_eq!(hear(&mut *one, 1, &snapshot(22, 8)), DATA);
        assert_eq!(hear(&mut *one, 1, &change(22, 24, 9)), DATA);
        let odd = snapshot(25, 10).replace("\"change_id\":25", "\"change_id\":-25");
        assert_eq!(hear(&mut *one, 1, &odd), DATA, "the decoder will tell");
    }

    #[test]
    fn a_book_changes_over_to_the_connection_that_begins_it() {
        let mut one = listener(&[Wanted::Book]);
        hear(&mut *one, 1, &snapshot(10, 1));
        assert_eq!(hear(&mut *one, 2, &change(10, 12, 2)), NOTHING);
        assert_eq!(hear(&mut *one, 1, &change(10, 12, 2)), DATA);
        assert_eq!(hear(&mut *one, 2, &snapshot(12, 2)), DATA);
        assert_eq!(hear(&mut *one, 1, &change(12, 14, 3)), NOTHING);
        assert_eq!(hear(&mut *one, 1, &snapshot(14, 3)), NOTHING);
        assert_eq!(hear(&mut *one, 2, &change(12, 14, 3)), DATA);
    }

    #[test]
    fn of_a_notification_only_what_is_new_is_kept() {
        let mut one = listener(&[Wanted::Trade]);
        assert_eq!(hear(&mut *one, 1, &trades(&[5, 6])), DATA);
        assert_eq!(hear(&mut *one, 2, &trades(&[5, 6])), NOTHING, "two connections overlap");
        assert_eq!(hear(&mut *one, 2, &trades(&[6, 7])), part(&[7]), "and cut differently");
        assert_eq!(hear(&mut *one, 1, &trades(&[7, 8, 9])), part(&[8, 9]));
        assert_eq!(hear(&mut *one, 1, &trades(&[12, 11, 10, 9])), part(&[12, 11, 10]), "newest first");
        assert_eq!(hear(&mut *one, 2, &trades(&[8, 9, 10])), NOTHING);
        assert_eq!(hear(&mut *one, 1, &trades(&[])), DATA);
        let odd = trades(&[13]).replace("\"trade_seq\":13", "\"trade_seq\":\"13\"").replace("[{", "[7,{");
        assert_eq!(hear(&mut *one, 1, &odd), DATA, "the decoder will tell");
    }

    #[test]
    fn missing_trades_are_asked_for_part_by_part() {
        let mut one = listener(&[Wanted::Trade]);
        assert_eq!(hear(&mut *one, 1, &trades(&[5])), DATA);
        let holes = vec!["gap Some((6, 7)) 5000 8000".to_owned(), "gap Some((9, 2499)) 8000 2500000".to_owned()];
        assert_eq!(hear(&mut *one, 1, &trades(&[8, 2_500])), (Said::Data(0), holes));
        assert_eq!(hear(&mut *one, 1, &trades(&[7, 2_501])), part(&[2_501]), "it is asked for already");
        let hole = |first, last| Hole { numbers: Some((first, last)), since: 8_000, until: 2_500_000 };
        let ask = one.fill(0, &hole(9, 2_499)).unwrap();
        let path =
            |asked: &str| format!("/api/v2/public/get_last_trades_by_instrument?instrument_name=BTC_USDC-PERPETUAL&{asked}&sorting=asc");
        assert_eq!(ask.path, path("start_seq=9&end_seq=1008&count=1000"));
        assert_eq!(ask.topic, "BTC_USDC-PERPETUAL@get_last_trades_by_instrument");
        assert_eq!(one.fill(0, &hole(2_009, 2_499)).unwrap().path, path("start_seq=2009&end_seq=2499&count=491"));
        let answer = |numbers: std::ops::Range<u64>| {
            let trades: Vec<String> = numbers.map(|number| format!(r#"{{"trade_seq":{number},"trade_id":"{number}"}}"#)).collect();
            format!(r#"{{"jsonrpc":"2.0","result":{{"trades":[{}],"has_more":true}},"usIn":1,"usOut":2}}"#, trades.join(","))
        };
        let (first, more, short, none) = (answer(9..1_009), answer(9..1_011), answer(500..1_009), answer(9..9));
        let rest = Some(hole(1_009, 2_499));
        assert_eq!(one.filled(0, &hole(9, 2_499), first.as_bytes()), Filled { kept: first.as_bytes().into(), rest, whole: true });
        let kept = first.as_bytes().to_vec().into();
        assert_eq!(one.filled(0, &hole(9, 1_008), more.as_bytes()), Filled { kept, rest: None, whole: true });
        assert_eq!(one.filled(0, &hole(9, 2_499), short.as_bytes()), Filled { kept: short.as_bytes().into(), rest, whole: false });
        assert_eq!(one.filled(0, &hole(9, 2_499), none.as_bytes()), Filled { kept: b""[..].into(), rest: None, whole: false });
    }

    #[test]
    fn what_an_earlier_run_heard_is_followed_on() {
        let mut one = listener(&[Wanted::Trade, Wanted::Book]);
        hear(&mut *one, 0, &trades(&[4, 5]));
        hear(&mut *one, 0, &snapshot(10, 1));
        one.taken_over();
        assert_eq!(hear(&mut *one, 1, &trades(&[5, 7])), (part(&[7]).0, vec!["gap Some((6, 6)) 5000 7000".to_owned()]));
        assert_eq!(hear(&mut *one, 1, &change(10, 11, 2)), NOTHING, "it has not begun");
        assert_eq!(hear(&mut *one, 1, &snapshot(9, 2)).0, Said::Data(1));
    }

    #[test]
    fn the_venue_is_told_that_we_are_there_when_it_asks() {
        let mut one = listener(&[Wanted::Trade]);
        let greeting: serde_json::Value = serde_json::from_str(&Deribit.greeting(&FUTURE)[0]).unwrap();
        assert_eq!(greeting, json!({ "jsonrpc": "2.0", "id": 0, "method": "public/set_heartbeat", "params": { "interval": 30 } }));
        let heartbeat = |kind: &str| format!(r#"{{"jsonrpc":"2.0","method":"heartbeat","params":{{"type":"{kind}"}}}}"#);
        assert_eq!(hear(&mut *one, 1, &heartbeat("heartbeat")), NOTHING);
        let asked = hear(&mut *one, 1, &heartbeat("test_request"));
        assert_eq!(asked, (Said::Nothing, vec![format!("say {HERE}")]));
        for answer in [r#"{"jsonrpc":"2.0","id":0,"result":"ok"}"#, r#"{"jsonrpc":"2.0","id":0,"result":{"version":"1.2.26"}}"#] {
            assert_eq!(hear(&mut *one, 1, answer), NOTHING);
        }
    }

    #[test]
    fn acknowledgements_and_refusals_are_told_apart() {
        let mut one = listener(&[Wanted::Trade, Wanted::Quote, Wanted::MarkPrice, Wanted::VenueStatus]);
        for (frame, said) in [
            (
                r#"{"jsonrpc":"2.0","id":3,"result":["trades.BTC_USDC-PERPETUAL.100ms"],"usIn":1,"usOut":2,"usDiff":1}"#,
                Said::Partly(3, vec![0]),
            ),
            (r#"{"jsonrpc":"2.0","id":4,"result":[],"usIn":1,"usOut":2,"usDiff":1,"testnet":false}"#, Said::Partly(4, vec![])),
            (r#"{"jsonrpc":"2.0","id":5,"result":"ok","usIn":1,"usOut":2,"usDiff":1}"#, Said::Subscribed(5)),
            (
                r#"{"jsonrpc":"2.0","id":3,"error":{"code":13778,"message":"raw_subscriptions_not_available_for_unauthorized"}}"#,
                Said::Refused,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"quote.BTC_USDC-PERPETUAL","data":{"timestamp":1,"instrument_name":"BTC_USDC-PERPETUAL","best_bid_price":1.0,"best_bid_amount":1.0,"best_ask_price":2.0,"best_ask_amount":1.0}}}"#,
                Said::Data(1),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"ticker.BTC_USDC-PERPETUAL.100ms","data":{"timestamp":1,"mark_price":1.0}}}"#,
                Said::Data(2),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"platform_state","data":{"maintenance":true}}}"#,
                Said::Data(3),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"instrument.state.future.any","data":{"timestamp":1,"state":"settled","instrument_name":"BTC-22MAR19"}}}"#,
                Said::Data(4),
            ),
            (r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.BTC_USDC-PERPETUAL.100ms","data":7}}"#, Said::Data(0)),
            (r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.ETH-PERPETUAL.100ms","data":[]}}"#, Said::Other),
            (r#"{"jsonrpc":"2.0","method":"subscription"}"#, Said::Other),
            (r#"{"jsonrpc":"2.0","result":[],"usIn":1,"usOut":2,"usDiff":1}"#, Said::Other),
            ("nonsense", Said::Other),
        ] {
            assert_eq!(hear(&mut *one, 1, frame), (said, vec![]), "{frame}");
        }
    }

    #[test]
    fn channels_follow_from_what_is_wanted() {
        let names = |market: &Market, instrument: &Instrument, wanted| {
            channels(market, instrument, wanted).iter().map(|channel| format!("{} {}", channel.route, channel.name)).collect::<Vec<_>>()
        };
        let of_future = |wanted| names(&FUTURE, &perpetual(), wanted);
        for wanted in [Wanted::Trade, Wanted::Liquidation] {
            assert_eq!(of_future(wanted), ["/ws/api/v2 trades.BTC_USDC-PERPETUAL.100ms"]);
        }
        assert_eq!(of_future(Wanted::Book), ["/ws/api/v2 book.BTC_USDC-PERPETUAL.100ms"]);
        assert_eq!(of_future(Wanted::Quote), ["/ws/api/v2 quote.BTC_USDC-PERPETUAL"]);
        for wanted in [Wanted::FundingRate, Wanted::MarkPrice, Wanted::IndexPrice, Wanted::OpenInterest] {
            assert_eq!(of_future(wanted), ["/ws/api/v2 ticker.BTC_USDC-PERPETUAL.100ms"]);
        }
        assert_eq!(of_future(Wanted::VenueStatus), ["/ws/api/v2 platform_state", "/ws/api/v2 instrument.state.future.any"]);
        let dated = Instrument { symbol: "BTC-27DEC24".into(), listing: Listing::future("BTC", "USD", "241227", None) };
        assert_eq!(names(&FUTURE, &dated, Wanted::FundingRate), [""; 0]);
        assert_eq!(names(&OPTION, &option("BTC"), Wanted::VolatilityIndex), ["/ws/api/v2 deribit_volatility_index.btc_usd"]);
        assert_eq!(names(&OPTION, &option("ETH"), Wanted::VolatilityIndex), ["/ws/api/v2 deribit_volatility_index.eth_usd"]);
        assert_eq!(names(&OPTION, &option("XRP"), Wanted::VolatilityIndex), [""; 0]);
        assert_eq!(names(&OPTION, &option("BTC"), Wanted::OpenInterest), ["/ws/api/v2 ticker.BTC-27DEC24-60000-C.100ms"]);
        assert_eq!(names(&OPTION, &option("BTC"), Wanted::VenueStatus), ["/ws/api/v2 instrument.state.option.any"]);
        assert_eq!(names(&SPOT, &perpetual(), Wanted::MarkPrice), [""; 0]);
        for market in Deribit.markets() {
            for wanted in Wanted::ALL {
                let instrument = if market.name == "option" { option("BTC") } else { perpetual() };
                assert_eq!(!names(market, &instrument, wanted).is_empty(), Deribit.tells(market, wanted), "{} {wanted:?}", market.name);
                assert!(Deribit.polls(market, &instrument, wanted).is_empty());
            }
        }
        let topics = [Wanted::MarkPrice, Wanted::Quote].map(|wanted| Deribit.topic(&FUTURE, &channels(&FUTURE, &perpetual(), wanted)[0]));
        assert_eq!(topics, ["BTC_USDC-PERPETUAL@figures", ""]);
        let all = [Wanted::Trade, Wanted::Book].map(|wanted| channels(&FUTURE, &perpetual(), wanted)).concat();
        let said = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let (trades, book) = ("trades.BTC_USDC-PERPETUAL.100ms", "book.BTC_USDC-PERPETUAL.100ms");
        assert_eq!(
            said(&Deribit.subscribe(&FUTURE, &all, 2)[0]),
            json!({ "jsonrpc": "2.0", "id": 2, "method": "public/subscribe", "params": { "channels": [trades, book] } })
        );
        assert_eq!(
            said(&Deribit.unsubscribe(&FUTURE, &all[1], 3)),
            json!({ "jsonrpc": "2.0", "id": 3, "method": "public/unsubscribe", "params": { "channels": [book] } })
        );
    }

    #[test]
    fn a_market_is_listed_by_its_kind() {
        let paths: Vec<String> = Deribit.markets().iter().map(|market| Deribit.listing(market)[0].path.clone()).collect();
        let path = |kind: &str| format!("/api/v2/public/get_instruments?currency=any&kind={kind}&expired=false");
        assert_eq!(paths, ["future", "option", "spot"].map(path));
    }

    #[test]
    fn an_error_may_stand_in_an_answer_of_any_status() {
        let error = |code: i64| format!(r#"{{"jsonrpc":"2.0","error":{{"message":"no","code":{code}}},"usIn":1,"usOut":2}}"#);
        for (status, answer, verdict) in [
            (200, r#"{"jsonrpc":"2.0","result":[],"usIn":1,"usOut":2,"usDiff":1,"testnet":false}"#.to_owned(), Verdict::Answer),
            (400, error(10_028), Verdict::TooMuch(Duration::from_secs(5))),
            (200, error(10_066), Verdict::TooMuch(Duration::from_secs(5))),
            (400, error(11_051), Verdict::Later),
            (400, error(13_028), Verdict::Later),
            (200, error(13_020), Verdict::Never),
            (400, error(-32_602), Verdict::Never),
            (429, String::new(), Verdict::TooMuch(Duration::from_secs(60))),
            (502, "broken".to_owned(), Verdict::Later),
        ] {
            assert_eq!(Deribit.verdict(StatusCode::from_u16(status).unwrap(), answer.as_bytes()), verdict, "{answer}");
        }
    }
}
