//! OKX: its channels and requests.
//!
//! Every frame names its channel and instrument. What must hold on them:
//!
//! - **Trades** (`trades-all`, of options `option-trades`) have numbers without holes. A hole is asked for (`history-trades`), its
//!   newest part first, because the venue tells the past backwards.
//! - **Books** begin with a snapshot, and a change names the number of the one before it. Where that breaks, the channel is
//!   subscribed to anew. A number that becomes smaller is no hole as long as the change names the one before it: so the venue
//!   begins to count anew. Where a snapshot carries a checksum, which today is zero and says nothing, a [`Witness`] holds the book to it
//!   and to those that follow.
//! - What comes again, because the venue repeats it or over a second connection, is dropped.
//!
//! Sources: the page on OKX in the manual, section "Live".

use std::time::Duration;

use hashbrown::HashMap;
use model::instrument::Market as Traded;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::cut;
use super::follow::{self, Chain, Heard, Last, Trades};
use super::venue::{
    Ask, Channel, Filled, Hole, Instrument, Limits, Market, Order, Over, POLL, Poll, Protocol, Said, Tells, Venue, Verdict, Wanted,
};
use super::witness::Witness;
use crate::dialect::digits;
use crate::dialect::fields::{Event, Fields};
use crate::dialect::json::Value;
use crate::dialect::okx::{Envelope, Members, note};

/// The venue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Okx;

const SPOT: Market = market("spot");
const SWAP: Market = market("swap");
const FUTURES: Market = market("futures");
const OPTION: Market = market("option");

/// All markets share addresses and limits.
const fn market(name: &'static str) -> Market {
    Market { name, dialect: "okx", socket: "wss://ws.okx.com:8443", rest: "https://openapi.okx.com", limits: LIMITS }
}

/// Three new connections a second are allowed, all markets together, and 480 messages an hour over each. OKX advises fewer than 30
/// channels of books for a connection, and closes one that was sent nothing for 30 seconds. It tells of no longest life. Requests
/// are limited by endpoint: one that may be asked twenty times in two seconds weighs five.
const LIMITS: Limits = Limits {
    channels: 29,
    at_once: 29,
    message_pause: Duration::from_millis(100),
    connect_pause: Duration::from_millis(1_400),
    lifetime: Duration::from_secs(86_400 - 600),
    silence: Duration::from_secs(45),
    ping: Some((Duration::from_secs(20), "ping")),
    weight: 100,
    window: Duration::from_secs(2),
};

/// The weight of a request that is allowed twenty times in a window.
const TWENTY: u32 = 5;
/// The weight of a request for a ratio. Each instrument's may be asked for five times in a window.
const RATIO: u32 = 2;
/// Trades that one request can give.
const TRADES_AT_ONCE: u64 = 100;

/// Where most channels are.
const PUBLIC: &str = "/ws/v5/public";
/// Where single trades are.
const BUSINESS: &str = "/ws/v5/business";

/// What asks which underlyings have options.
const UNDERLYINGS: &str = "/api/v5/public/underlying?instType=OPTION";

/// The venue's word for a market's instruments.
fn instrument_type(market: &Market) -> &'static str {
    match market.name {
        "spot" => "SPOT",
        "swap" => "SWAP",
        "futures" => "FUTURES",
        _ => "OPTION",
    }
}

/// The index that an instrument's id names.
fn index(id: &str) -> Option<String> {
    let mut parts = id.split('-');
    let (base, quote) = (parts.next()?, parts.next()?);
    Some(format!("{base}-{}", quote.split('_').next()?))
}

/// What subscribes to a channel. Its name is the venue's and, behind a colon, the id or the type of what it tells of.
fn argument(channel: &Channel) -> Json {
    match channel.name.split_once(':') {
        Some((name @ "liquidation-orders", kind)) => json!({ "channel": name, "instType": kind }),
        Some((name @ "option-trades", id)) => json!({ "channel": name, "instType": "OPTION", "instId": id }),
        Some((name, id)) => json!({ "channel": name, "instId": id }),
        None => json!({ "channel": channel.name }),
    }
}

/// What every answer says of itself.
#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(borrow)]
    code: &'a str,
}

impl Venue for Okx {
    fn name(&self) -> &'static str {
        "okx"
    }

    fn markets(&self) -> &'static [Market] {
        &[SPOT, SWAP, FUTURES, OPTION]
    }

    fn listing(&self, market: &Market) -> Vec<Ask> {
        // Options are listed by family.
        let path = match instrument_type(market) {
            "OPTION" => UNDERLYINGS.to_owned(),
            kind => format!("/api/v5/public/instruments?instType={kind}"),
        };
        vec![Ask { path, topic: String::new(), weight: TWENTY }]
    }

    fn listing_goes_on(&self, _market: &Market, ask: &Ask, answer: &[u8]) -> Vec<Ask> {
        #[derive(Deserialize)]
        struct Underlyings {
            data: Vec<Vec<String>>,
        }
        if self.lists(ask) {
            return Vec::new();
        }
        let underlyings = serde_json::from_slice::<Underlyings>(answer).map(|answer| answer.data).unwrap_or_default();
        let ask = |family: &String| Ask {
            path: format!("/api/v5/public/instruments?instType=OPTION&instFamily={family}"),
            topic: String::new(),
            weight: TWENTY,
        };
        underlyings.iter().flatten().map(ask).collect()
    }

    fn lists(&self, ask: &Ask) -> bool {
        ask.path != UNDERLYINGS
    }

    fn tells(&self, market: &Market, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Trade | Wanted::Book | Wanted::Quote => true,
            Wanted::VenueStatus => market.name == SPOT.name,
            Wanted::FundingRate | Wanted::IndexPrice => market.name == SWAP.name,
            Wanted::MarkPrice | Wanted::OpenInterest => market.name != SPOT.name,
            Wanted::Liquidation | Wanted::LongShortRatio => matches!(market.name, "swap" | "futures"),
            Wanted::VolatilityIndex => false,
        }
    }

    fn channels(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Channel> {
        if !self.tells(market, wanted) {
            return Vec::new();
        }
        let id = &*instrument.symbol;
        let (route, name, tells) = match wanted {
            Wanted::Trade if instrument.listing.market == Traded::Option => (PUBLIC, "option-trades", Tells::Trades),
            Wanted::Trade => (BUSINESS, "trades-all", Tells::Trades),
            Wanted::Book => (PUBLIC, "books", Tells::Book),
            Wanted::Quote => (PUBLIC, "bbo-tbt", Tells::State),
            Wanted::FundingRate => (PUBLIC, "funding-rate", Tells::State),
            Wanted::MarkPrice => (PUBLIC, "mark-price", Tells::State),
            Wanted::OpenInterest => (PUBLIC, "open-interest", Tells::State),
            Wanted::IndexPrice => (PUBLIC, "index-tickers", Tells::State),
            _ => return Vec::new(),
        };
        let name = match wanted {
            Wanted::IndexPrice => index(id).map(|index| format!("{name}:{index}")),
            _ => Some(format!("{name}:{id}")),
        };
        name.map(|name| Channel { route, name, instrument: Some(instrument.clone()), tells }).into_iter().collect()
    }

    fn market_channels(&self, market: &Market, wanted: Wanted) -> Vec<Channel> {
        let name = match wanted {
            Wanted::Liquidation if self.tells(market, wanted) => format!("liquidation-orders:{}", instrument_type(market)),
            Wanted::VenueStatus if self.tells(market, wanted) => "status".to_owned(),
            _ => return Vec::new(),
        };
        vec![Channel { route: PUBLIC, name, instrument: None, tells: Tells::Seldom }]
    }

    fn polls(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Poll> {
        if wanted != Wanted::LongShortRatio || !self.tells(market, wanted) {
            return Vec::new();
        }
        let id = &instrument.symbol;
        let poll = |endpoint: &str| Poll {
            ask: Ask {
                path: format!("/api/v5/rubik/stat/contracts/{endpoint}?instId={id}&period=5m&limit=1"),
                topic: format!("{id}@{endpoint}@5m"),
                weight: RATIO,
            },
            every: POLL,
        };
        [
            "long-short-account-ratio-contract",
            "long-short-account-ratio-contract-top-trader",
            "long-short-position-ratio-contract-top-trader",
        ]
        .map(poll)
        .into()
    }

    fn subscribe(&self, _market: &Market, channels: &[Channel], _number: u64) -> Vec<String> {
        let arguments: Vec<Json> = channels.iter().map(argument).collect();
        vec![json!({ "op": "subscribe", "args": arguments }).to_string()]
    }

    fn unsubscribe(&self, _market: &Market, channel: &Channel, _number: u64) -> String {
        json!({ "op": "unsubscribe", "args": [argument(channel)] }).to_string()
    }

    fn protocol(&self, _market: &Market, channels: &[Channel]) -> Box<dyn Protocol> {
        let mut by_id: HashMap<Box<str>, Vec<(Box<str>, usize)>, ahash::RandomState> = HashMap::default();
        for (number, channel) in channels.iter().enumerate() {
            // What a channel of a whole market tells of stands in the data.
            let (name, id) = match channel.name.split_once(':') {
                Some((name, id)) if channel.instrument.is_some() => (name, id),
                Some((name, _)) => (name, ""),
                None => (channel.name.as_str(), ""),
            };
            by_id.entry(id.into()).or_default().push((name.into(), number));
        }
        let channels = channels.iter().map(|channel| Followed { id: channel.symbol().into(), state: State::of(channel.tells) }).collect();
        let witness = Witness::new(SPOT.dialect);
        Box::new(Listener { by_id, channels, witness, outer: Fields::default(), element: Fields::default(), items: Vec::new() })
    }

    fn verdict(&self, status: StatusCode, answer: &[u8]) -> Verdict {
        match serde_json::from_slice::<Outcome<'_>>(answer).ok().map(|outcome| outcome.code) {
            Some("50011") => Verdict::TooMuch(LIMITS.window),
            // Not available now, timed out, busy, failed.
            Some("50001" | "50004" | "50013" | "50026") => Verdict::Later,
            Some(code) if status.is_success() && code != "0" => Verdict::Never,
            _ => Verdict::by_status(status),
        }
    }
}

/// What listens to a connection.
struct Listener {
    /// Channels by the id of what they tell of, each with the venue's name of it.
    by_id: HashMap<Box<str>, Vec<(Box<str>, usize)>, ahash::RandomState>,
    channels: Vec<Followed>,
    witness: Witness,
    outer: Fields<Envelope>,
    element: Fields<Members>,
    items: Vec<Value>,
}

struct Followed {
    id: Box<str>,
    state: State,
}

/// How far a channel has come.
type State = follow::State<Trades, Book>;

/// A book.
#[derive(Clone, Copy, Debug, Default)]
struct Book {
    chain: Chain,
    /// Whether it began with a checksum.
    summed: bool,
}

impl Listener {
    /// The channel that a frame names, of those that are listened to.
    fn channel(&self, frame: &[u8]) -> Option<usize> {
        let outer = Event { text: frame, fields: &self.outer };
        let element = Event { text: frame, fields: &self.element };
        let name = outer.get("channel")?.of(frame);
        let id = match outer.get("instId") {
            Some(id) => id.of(frame),
            // It may name the family of options alone.
            None if name == b"option-trades" => element.get("instId")?.of(frame),
            None => b"",
        };
        let named = self.by_id.get(std::str::from_utf8(id).ok()?)?;
        named.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, number)| *number)
    }

    /// What the venue says of itself.
    fn event(&self, frame: &[u8], event: &[u8]) -> Said {
        match event {
            b"subscribe" => Said::Listening(self.channel(frame).into_iter().collect()),
            b"error" => Said::Refused,
            _ => Said::Nothing,
        }
    }
}

impl Protocol for Listener {
    fn hear(&mut self, over: Over, frame: &[u8], orders: &mut Vec<Order>) -> Said {
        // The answer to a ping is no JSON.
        if frame == b"pong" {
            return Said::Nothing;
        }
        if note(frame, &mut self.outer, &mut self.element, &mut self.items).is_err() {
            return Said::Other;
        }
        let outer = Event { text: frame, fields: &self.outer };
        if let Some(event) = outer.get("event") {
            return self.event(frame, event.of(frame));
        }
        let Some(channel) = self.channel(frame) else { return Said::Other };
        let element = Event { text: frame, fields: &self.element };
        let digits = |name| digits::integer(frame, element.get(name)?);
        let number = |name| digits(name).and_then(|number| u64::try_from(number).ok());
        let time = digits("ts").unwrap_or_default().saturating_mul(1_000);
        let state = &mut self.channels[channel].state;
        let anew = matches!(state, State::Book(_));
        let heard = match state {
            State::Any => Heard::New,
            State::Trades(trades) => match number("tradeId") {
                Some(id) => trades.hear(over, Last { number: id, time }),
                None => Heard::New,
            },
            State::Book(book) => {
                let heard = match (number("seqId"), number("prevSeqId")) {
                    (Some(last), Some(previous)) => book.chain.change(over.line, previous, Last { number: last, time }),
                    // A snapshot continues nothing: −1.
                    (Some(last), None) => {
                        book.summed = digits("checksum").is_some_and(|sum| sum != 0);
                        book.chain.snapshot(over.line, Last { number: last, time })
                    }
                    (None, _) => Heard::New,
                };
                match heard {
                    Heard::New if book.summed && !self.witness.agrees(channel, "", frame) => {
                        book.summed = false;
                        Heard::Behind(Hole { numbers: None, since: time, until: time })
                    }
                    heard => heard,
                }
            }
        };
        heard.said(channel, anew, orders)
    }

    fn fill(&self, channel: usize, hole: &Hole) -> Option<Ask> {
        let (first, last) = part(hole)?;
        let id = &self.channels[channel].id;
        let (behind, count) = (last + 1, last - first + 1);
        let path = format!("/api/v5/market/history-trades?instId={id}&type=1&after={behind}&limit={count}");
        Some(Ask { path, topic: format!("{id}@history-trades"), weight: TWENTY })
    }

    fn filled<'a>(&mut self, _channel: usize, hole: &Hole, answer: &'a [u8]) -> Filled<'a> {
        cut::numbered(answer, &["data"], hole, part(hole).unwrap_or_default(), |trade| cut::member(trade, "tradeId"))
    }
}

/// The part of a hole that is asked for: the newest that one request can give.
fn part(hole: &Hole) -> Option<(u64, u64)> {
    let (first, last) = hole.numbers?;
    Some((first.max((last + 1).saturating_sub(TRADES_AT_ONCE)), last))
}

#[cfg(test)]
mod tests {
    use super::super::testing::hear;
    use super::*;
    use model::instrument::Listing;

    fn swap() -> Instrument {
        Instrument { symbol: "BTC-USDT-SWAP".into(), listing: Listing::perpetual("BTC", "USDT", None) }
    }

    fn option() -> Instrument {
        let listing = Listing { market: Traded::Option, ..Listing::perpetual("BTC", "USD", None) };
        Instrument { symbol: "BTC-USD-240628-60000-C".into(), listing }
    }

    /// What listens to the channels of an instrument, in this order.
    fn listener(market: &Market, instrument: &Instrument, wanted: &[Wanted]) -> Box<dyn Protocol> {
        let channels = |wanted: &Wanted| [Okx.channels(market, instrument, *wanted), Okx.market_channels(market, *wanted)].concat();
        Okx.protocol(market, &wanted.iter().flat_map(channels).collect::<Vec<_>>())
    }

    fn trade(id: u64, time: u64) -> String {
        format!(
            r#"{{"arg":{{"channel":"trades-all","instId":"BTC-USDT-SWAP"}},"data":[{{"instId":"BTC-USDT-SWAP","tradeId":"{id}","px":"42219.9","sz":"1","side":"buy","source":"0","ts":"{time}"}}]}}"#
        )
    }

    fn book(action: &str, previous: i64, last: u64, time: u64) -> String {
        format!(
            r#"{{"arg":{{"channel":"books","instId":"BTC-USDT-SWAP"}},"action":"{action}","data":[{{"asks":[["8477","7","0","2"]],"bids":[],"ts":"{time}","checksum":0,"seqId":{last},"prevSeqId":{previous}}}]}}"#
        )
    }

    fn snapshot(last: u64, time: u64) -> String {
        book("snapshot", -1, last, time)
    }

    fn change(previous: i64, last: u64, time: u64) -> String {
        book("update", previous, last, time)
    }

    #[test]
    fn a_book_is_subscribed_to_anew_where_a_change_is_missing() {
        let mut one = listener(&SWAP, &swap(), &[Wanted::Book]);
        assert_eq!(hear(&mut *one, 1, &change(5, 6, 1)), (Said::Nothing, vec![]), "it has not begun");
        assert_eq!(hear(&mut *one, 1, &snapshot(10, 1)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, 1, &change(10, 15, 2)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, 1, &change(10, 15, 2)), (Said::Nothing, vec![]));
        assert_eq!(hear(&mut *one, 1, &change(15, 15, 3)), (Said::Data(0), vec![]), "nothing has changed");
        assert_eq!(hear(&mut *one, 1, &change(15, 3, 4)), (Said::Data(0), vec![]), "the venue counts anew");
        assert_eq!(hear(&mut *one, 1, &change(3, 5, 5)), (Said::Data(0), vec![]));
        let hole = vec!["gap Some((6, 8)) 5000 6000".to_owned(), "resubscribe 0".to_owned()];
        assert_eq!(hear(&mut *one, 1, &change(8, 9, 6)), (Said::Data(0), hole));
        assert_eq!(hear(&mut *one, 1, &change(5, 8, 6)), (Said::Nothing, vec![]), "it comes too late");
        assert_eq!(hear(&mut *one, 1, &change(11, 12, 7)), (Said::Data(0), vec![]), "it is known that it is broken");
        assert_eq!(hear(&mut *one, 1, &snapshot(12, 8)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, 1, &change(12, 14, 9)), (Said::Data(0), vec![]));
    }

    #[test]
    fn a_book_changes_over_to_the_connection_that_begins_it() {
        let mut one = listener(&SWAP, &swap(), &[Wanted::Book]);
        hear(&mut *one, 1, &snapshot(10, 1));
        assert_eq!(hear(&mut *one, 2, &change(10, 12, 2)), (Said::Nothing, vec![]));
        assert_eq!(hear(&mut *one, 1, &change(10, 12, 2)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, 2, &snapshot(12, 2)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, 1, &change(12, 14, 3)), (Said::Nothing, vec![]));
        assert_eq!(hear(&mut *one, 2, &change(12, 14, 3)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, 1, &snapshot(14, 3)), (Said::Nothing, vec![]));
        assert_eq!(hear(&mut *one, 2, &change(14, 15, 4)), (Said::Data(0), vec![]));
    }

    #[test]
    fn missing_trades_are_asked_for_backwards_part_by_part() {
        let mut one = listener(&SWAP, &swap(), &[Wanted::Trade]);
        assert_eq!(hear(&mut *one, 1, &trade(5, 1)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, 2, &trade(5, 1)), (Said::Nothing, vec![]), "two connections overlap");
        assert_eq!(hear(&mut *one, 2, &trade(6, 1)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, 1, &trade(6, 1)), (Said::Nothing, vec![]));
        assert_eq!(hear(&mut *one, 1, &trade(257, 9)), (Said::Data(0), vec!["gap Some((7, 256)) 1000 9000".to_owned()]));
        assert_eq!(hear(&mut *one, 1, &trade(256, 9)), (Said::Nothing, vec![]), "it is asked for already");
        let hole = |first, last| Hole { numbers: Some((first, last)), since: 1_000, until: 9_000 };
        let ask = one.fill(0, &hole(7, 256)).unwrap();
        assert_eq!(ask.path, "/api/v5/market/history-trades?instId=BTC-USDT-SWAP&type=1&after=257&limit=100");
        assert_eq!(ask.topic, "BTC-USDT-SWAP@history-trades");
        let last = one.fill(0, &hole(7, 9)).unwrap().path;
        assert_eq!(last, "/api/v5/market/history-trades?instId=BTC-USDT-SWAP&type=1&after=10&limit=3");
        let answer = |numbers: std::ops::RangeInclusive<u64>| {
            let trades: Vec<String> = numbers.rev().map(|id| format!(r#"{{"tradeId":"{id}"}}"#)).collect();
            format!(r#"{{"code":"0","msg":"","data":[{}]}}"#, trades.join(","))
        };
        let (part, more, short, none) = (answer(157..=256), answer(150..=256), answer(200..=256), r#"{"code":"0","msg":"","data":[]}"#);
        let rest = Some(hole(7, 156));
        assert_eq!(one.filled(0, &hole(7, 256), part.as_bytes()), Filled { kept: part.as_bytes().into(), rest, whole: true });
        let cut = one.filled(0, &hole(157, 256), more.as_bytes());
        assert_eq!(cut, Filled { kept: part.as_bytes().to_vec().into(), rest: None, whole: true });
        assert_eq!(one.filled(0, &hole(7, 256), short.as_bytes()), Filled { kept: short.as_bytes().into(), rest, whole: false });
        assert_eq!(one.filled(0, &hole(7, 256), none.as_bytes()), Filled { kept: b""[..].into(), rest: None, whole: false });
        assert_eq!(hear(&mut *one, 1, &trade(1, 10)), (Said::Data(0), vec![]), "counted anew");
    }

    #[test]
    fn what_an_earlier_run_heard_is_followed_on() {
        let mut one = listener(&SWAP, &swap(), &[Wanted::Trade, Wanted::Book]);
        hear(&mut *one, 0, &trade(5, 1));
        hear(&mut *one, 0, &snapshot(10, 1));
        one.taken_over();
        assert_eq!(hear(&mut *one, 1, &trade(7, 2)).1, ["gap Some((6, 6)) 1000 2000"]);
        assert_eq!(hear(&mut *one, 1, &change(10, 11, 2)), (Said::Nothing, vec![]), "it has not begun");
        assert_eq!(hear(&mut *one, 1, &snapshot(9, 2)), (Said::Data(1), vec![]));
    }

    #[test]
    fn trades_of_options_name_the_instrument_in_the_data() {
        let mut one = listener(&OPTION, &option(), &[Wanted::Trade]);
        let trade = |id: u64| {
            format!(
                r#"{{"arg":{{"channel":"option-trades","instType":"OPTION","instFamily":"BTC-USD"}},"data":[{{"instId":"BTC-USD-240628-60000-C","tradeId":"{id}","px":"0.04","sz":"2","side":"sell","ts":"{id}"}}]}}"#
            )
        };
        assert_eq!(hear(&mut *one, 1, &trade(38)), (Said::Data(0), vec![]));
        assert_eq!(hear(&mut *one, 1, &trade(40)).1, ["gap Some((39, 39)) 38000 40000"]);
        let acknowledged =
            r#"{"event":"subscribe","arg":{"channel":"option-trades","instType":"OPTION","instId":"BTC-USD-240628-60000-C"},"connId":"a"}"#;
        assert_eq!(hear(&mut *one, 1, acknowledged).0, Said::Listening(vec![0]));
    }

    #[test]
    fn acknowledgements_and_refusals_are_told_apart() {
        let mut one = listener(&SWAP, &swap(), &[Wanted::Trade, Wanted::Liquidation]);
        let heard = |one: &mut dyn Protocol, frame: &str| hear(one, 1, frame).0;
        let trades = r#"{"event":"subscribe","arg":{"channel":"trades-all","instId":"BTC-USDT-SWAP"},"connId":"a4d3ae55"}"#;
        assert_eq!(heard(&mut *one, trades), Said::Listening(vec![0]));
        let liquidations = r#"{"event":"subscribe","arg":{"channel":"liquidation-orders","instType":"SWAP"},"connId":"a4d3ae55"}"#;
        assert_eq!(heard(&mut *one, liquidations), Said::Listening(vec![1]));
        assert_eq!(heard(&mut *one, &trades.replace("subscribe", "unsubscribe")), Said::Nothing);
        assert_eq!(heard(&mut *one, r#"{"event":"notice","code":"64008","msg":"closed soon","connId":"a4d3ae55"}"#), Said::Nothing);
        assert_eq!(heard(&mut *one, r#"{"event":"error","code":"60018","msg":"doesn't exist","connId":"a4d3ae55"}"#), Said::Refused);
        assert_eq!(heard(&mut *one, "pong"), Said::Nothing);
        assert_eq!(heard(&mut *one, "nonsense"), Said::Other);
        assert_eq!(heard(&mut *one, &trade(1, 1).replace("SWAP", "240628")), Said::Other);
        let liquidation = r#"{"arg":{"channel":"liquidation-orders","instType":"SWAP"},"data":[{"details":[],"instId":"X-USDT-SWAP"}]}"#;
        assert_eq!(heard(&mut *one, liquidation), Said::Data(1));
    }

    #[test]
    fn channels_and_polls_follow_from_what_is_wanted() {
        let names = |market: &Market, instrument: &Instrument, wanted| {
            let channels = [Okx.channels(market, instrument, wanted), Okx.market_channels(market, wanted)].concat();
            channels.iter().map(|channel| format!("{} {}", channel.route, channel.name)).collect::<Vec<_>>()
        };
        let of_swap = |wanted| names(&SWAP, &swap(), wanted);
        assert_eq!(of_swap(Wanted::Trade), ["/ws/v5/business trades-all:BTC-USDT-SWAP"]);
        assert_eq!(of_swap(Wanted::Book), ["/ws/v5/public books:BTC-USDT-SWAP"]);
        assert_eq!(of_swap(Wanted::Quote), ["/ws/v5/public bbo-tbt:BTC-USDT-SWAP"]);
        assert_eq!(of_swap(Wanted::FundingRate), ["/ws/v5/public funding-rate:BTC-USDT-SWAP"]);
        assert_eq!(of_swap(Wanted::MarkPrice), ["/ws/v5/public mark-price:BTC-USDT-SWAP"]);
        assert_eq!(of_swap(Wanted::IndexPrice), ["/ws/v5/public index-tickers:BTC-USDT"]);
        assert_eq!(of_swap(Wanted::OpenInterest), ["/ws/v5/public open-interest:BTC-USDT-SWAP"]);
        assert_eq!(of_swap(Wanted::Liquidation), ["/ws/v5/public liquidation-orders:SWAP"]);
        assert_eq!(of_swap(Wanted::VenueStatus), [""; 0]);
        assert_eq!(names(&SPOT, &swap(), Wanted::VenueStatus), ["/ws/v5/public status"]);
        assert_eq!(names(&SPOT, &swap(), Wanted::FundingRate), [""; 0]);
        assert_eq!(names(&FUTURES, &swap(), Wanted::Liquidation), ["/ws/v5/public liquidation-orders:FUTURES"]);
        assert_eq!(names(&OPTION, &option(), Wanted::Trade), ["/ws/v5/public option-trades:BTC-USD-240628-60000-C"]);
        assert_eq!(index("BTC-USD_UM-SWAP").unwrap(), "BTC-USD");
        let topics: Vec<String> = Okx.polls(&SWAP, &swap(), Wanted::LongShortRatio).into_iter().map(|poll| poll.ask.topic).collect();
        assert_eq!(
            topics,
            [
                "BTC-USDT-SWAP@long-short-account-ratio-contract@5m",
                "BTC-USDT-SWAP@long-short-account-ratio-contract-top-trader@5m",
                "BTC-USDT-SWAP@long-short-position-ratio-contract-top-trader@5m"
            ]
        );
        for market in Okx.markets() {
            for wanted in Wanted::ALL {
                let instrument = if market.name == "option" { option() } else { swap() };
                let any = !names(market, &instrument, wanted).is_empty() || !Okx.polls(market, &instrument, wanted).is_empty();
                assert_eq!(any, Okx.tells(market, wanted), "{} {wanted:?}", market.name);
            }
        }
    }

    #[test]
    fn subscriptions_name_what_the_channel_needs() {
        let channels = [
            Okx.market_channels(&SPOT, Wanted::VenueStatus),
            Okx.market_channels(&SWAP, Wanted::Liquidation),
            Okx.channels(&SWAP, &swap(), Wanted::Book),
            Okx.channels(&OPTION, &option(), Wanted::Trade),
        ]
        .concat();
        let said: Json = serde_json::from_str(&Okx.subscribe(&SPOT, &channels, 1)[0]).unwrap();
        let arguments = json!([
            { "channel": "status" },
            { "channel": "liquidation-orders", "instType": "SWAP" },
            { "channel": "books", "instId": "BTC-USDT-SWAP" },
            { "channel": "option-trades", "instType": "OPTION", "instId": "BTC-USD-240628-60000-C" },
        ]);
        assert_eq!(said, json!({ "op": "subscribe", "args": arguments }));
        let said: Json = serde_json::from_str(&Okx.unsubscribe(&SWAP, &channels[2], 2)).unwrap();
        assert_eq!(said, json!({ "op": "unsubscribe", "args": [{ "channel": "books", "instId": "BTC-USDT-SWAP" }] }));
    }

    #[test]
    fn options_are_listed_by_the_families_that_there_are() {
        assert_eq!(Okx.listing(&FUTURES)[0].path, "/api/v5/public/instruments?instType=FUTURES");
        let first = &Okx.listing(&OPTION)[0];
        assert!(!Okx.lists(first));
        let more = Okx.listing_goes_on(&OPTION, first, br#"{"code":"0","msg":"","data":[["BTC-USD","ETH-USD"]]}"#);
        let paths: Vec<&str> = more.iter().map(|ask| ask.path.as_str()).collect();
        let families = ["BTC-USD", "ETH-USD"].map(|family| format!("/api/v5/public/instruments?instType=OPTION&instFamily={family}"));
        assert_eq!(paths, families);
        assert!(Okx.lists(&more[0]) && Okx.listing_goes_on(&OPTION, &more[0], b"{}").is_empty());
    }

    #[test]
    fn an_error_may_stand_in_an_answer_of_success() {
        for (status, answer, verdict) in [
            (200, r#"{"code":"0","msg":"","data":[]}"#, Verdict::Answer),
            (200, r#"{"code":"50011","msg":"Rate limit reached.","data":[]}"#, Verdict::TooMuch(Duration::from_secs(2))),
            (200, r#"{"code":"51001","msg":"Instrument ID doesn't exist.","data":[]}"#, Verdict::Never),
            (400, r#"{"code":"50004","msg":"API endpoint request timeout.","data":[]}"#, Verdict::Later),
            (503, r#"{"code":"50001","msg":"Service temporarily unavailable.","data":[]}"#, Verdict::Later),
            (400, r#"{"code":"50014","msg":"Parameter instId can not be empty.","data":[]}"#, Verdict::Never),
            (500, "broken", Verdict::Later),
            (429, "", Verdict::TooMuch(Duration::from_secs(60))),
        ] {
            assert_eq!(Okx.verdict(StatusCode::from_u16(status).unwrap(), answer.as_bytes()), verdict, "{answer}");
        }
    }
}
