//! Advanced Trade.
//!
//! Every message has a number, which counts those of its connection without holes. What must hold on its channels:
//!
//! - **Books** have no numbers of their own: they begin with a snapshot, and the order of the frames is the chain. Where the numbers of
//!   a connection have a hole, any of its books may lack a change: what changes these from then on is dropped, and all of them are
//!   subscribed to anew. A book follows one connection, until another begins it.
//! - **Trades** have numbers without holes, whatever those of the frames say. A hole is asked for (`ticker`, which tells the past of
//!   some seconds backwards). The trades of the past that a subscription begins with are dropped.
//! - **Tickers** are made anew for each connection, so the same one differs from one connection to the other. They follow the newest
//!   connection from the time of its first message on; what an older one tells of the time before is kept.
//! - **What a product is** comes again and again, and is kept where it differs from what came before it.
//! - A frame that comes too late, by its number, tells nothing of what is now: of its records trades alone are kept.

use std::borrow::Cow;
use std::collections::BTreeMap;

use model::time::Micros;
use serde::Deserialize;
use serde_json::json;

use super::super::cut;
use super::super::follow::{Heard, Last, Trades};
use super::super::venue::{Ask, BySymbol, Channel, Filled, Hole, Line, Order, Over, Protocol, Said, Tells, by_symbol};
use super::{STATUS, TRADES_AT_ONCE, past};
use crate::dialect::coinbase::{Message, Names, note};
use crate::dialect::digits;
use crate::dialect::fields::{Event, Fields};
use crate::dialect::json::Value;

/// The channels of a product: as they are subscribed to, and as their messages name them.
const KINDS: [(&str, &str); 4] = [("market_trades", "market_trades"), ("level2", "l2_data"), ("ticker", "ticker"), (STATUS, STATUS)];
/// What keeps the subscriptions of a connection alive.
const HEARTBEATS: &str = "heartbeats";

/// What subscribes to a channel of these products, or ends that.
pub(super) fn say(what: &str, kind: &str, products: &[&str]) -> String {
    json!({ "type": what, "channel": kind, "product_ids": products }).to_string()
}

/// What subscribes to heartbeats.
pub(super) fn heartbeats() -> String {
    json!({ "type": "subscribe", "channel": HEARTBEATS }).to_string()
}

/// An acknowledgement: all that is subscribed to by now.
#[derive(Deserialize)]
struct Acknowledged {
    events: Vec<Subscribed>,
}

#[derive(Deserialize)]
struct Subscribed {
    subscriptions: BTreeMap<String, Vec<String>>,
}

/// What listens to a connection.
pub(super) struct Advanced {
    /// The channels of a product, in the order of [`KINDS`].
    by_product: BySymbol<{ KINDS.len() }>,
    channels: Vec<Followed>,
    /// The connections that have said something and are there, each with the number that comes next.
    lines: Vec<(Line, u64)>,
    outer: Fields<Names>,
    inner: Fields<Names>,
    message: Message,
    /// Which items of a frame are new.
    new: Vec<bool>,
    hasher: ahash::RandomState,
}

struct Followed {
    product: Box<str>,
    state: State,
}

/// How far a channel has come.
#[derive(Clone, Copy, Debug)]
enum State {
    Trades {
        trades: Trades,
        /// The oldest trade of the past that was told, where it is behind what is asked for.
        behind: Option<Last>,
    },
    Book(Book),
    Ticker(Ticker),
    /// The hash of what the product is.
    Product(Option<u64>),
}

/// A book without numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Book {
    /// The connection that it follows.
    line: Line,
    /// Whether it has begun there and lacks nothing since.
    whole: bool,
    /// The time of its last message.
    time: Micros,
}

impl Book {
    /// Hears a snapshot or a change. Whether it is of the connection that the book follows, and continues it.
    fn hear(&mut self, line: Line, snapshot: bool, time: Micros) -> bool {
        let follows = if snapshot { line >= self.line } else { self.whole && line == self.line };
        if follows {
            *self = Book { line, whole: true, time };
        }
        follows
    }
}

/// Best bids and asks.
#[derive(Clone, Copy, Debug, Default)]
struct Ticker {
    /// The connection that is followed.
    line: Line,
    /// Since when.
    since: Micros,
}

impl Ticker {
    /// Hears a message. Whether it is of the connection that is followed, or of a time before it was. What a connection begins with
    /// repeats what another one tells `beside` it.
    fn hear(&mut self, line: Line, snapshot: bool, time: Micros, beside: bool) -> bool {
        if line > self.line {
            *self = Ticker { line, since: time };
            return !(snapshot && beside);
        }
        line == self.line || time < self.since
    }
}

impl Advanced {
    /// What listens to a connection with these channels.
    pub(super) fn new(channels: &[Channel]) -> Advanced {
        let followed = |channel: &Channel| {
            let state = match channel.tells {
                Tells::Trades => State::Trades { trades: Trades::default(), behind: None },
                Tells::Book => State::Book(Book::default()),
                Tells::State => State::Ticker(Ticker::default()),
                Tells::Seldom => State::Product(None),
            };
            Followed { product: channel.symbol().into(), state }
        };
        Advanced {
            by_product: by_symbol(channels, KINDS.map(|(kind, _)| kind)),
            channels: channels.iter().map(followed).collect(),
            lines: Vec::new(),
            outer: Fields::default(),
            inner: Fields::default(),
            message: Message::default(),
            new: Vec::new(),
            hasher: ahash::RandomState::new(),
        }
    }

    /// Counts a frame of a connection. Whether it comes too late: again, or behind one of a higher number.
    fn is_late(&mut self, line: Line, number: u64, time: Micros, orders: &mut Vec<Order>) -> bool {
        // An earlier run's are of many connections.
        if line == 0 {
            return false;
        }
        let at = self.lines.iter().position(|(known, _)| *known == line).unwrap_or_else(|| {
            self.lines.push((line, 0));
            self.lines.len() - 1
        });
        let next = &mut self.lines[at].1;
        if number < *next {
            return true;
        }
        let missing = number > *next;
        *next = number + 1;
        if missing {
            self.begin_anew(line, time, orders);
        }
        false
    }

    /// Frames of a connection are missing, before one of this time: none of its books is known any more.
    fn begin_anew(&mut self, line: Line, time: Micros, orders: &mut Vec<Order>) {
        for (channel, followed) in self.channels.iter_mut().enumerate() {
            let State::Book(book) = &mut followed.state else { continue };
            if book.line > line {
                continue;
            }
            if book.line == line && std::mem::take(&mut book.whole) {
                let hole = Hole { numbers: None, since: book.time.min(time), until: time };
                orders.push(Order::Gap { channel, hole });
            }
            // The snapshot that it is to begin with may be what is missing.
            orders.push(Order::Resubscribe { channel });
        }
    }

    /// Hears what a frame of a kind holds.
    fn hold(&mut self, over: Over, kind: usize, late: bool, time: Micros, frame: &[u8], orders: &mut Vec<Order>) -> Said {
        let Advanced { by_product, channels, message, new, hasher, .. } = self;
        let Over { line, beside } = over;
        let backwards = is_backwards(message, frame);
        let mut first = None;
        new.clear();
        new.resize(message.items.len(), true);
        for i in 0..message.items.len() {
            let at = if backwards { message.items.len() - 1 - i } else { i };
            let item = &message.items[at];
            let product = std::str::from_utf8(item.product.of(frame)).unwrap_or_default();
            // What is no item, or of a product that we did not ask for, is kept: the decoder will tell.
            let Some(channel) = by_product.get(product).and_then(|channels| channels[kind]) else { continue };
            first = first.or(Some(channel));
            new[at] = match &mut channels[channel].state {
                State::Trades { .. } if item.snapshot => false,
                State::Trades { trades, .. } => match trade(frame, item.number, item.time).map(|last| trades.hear(over, last)) {
                    Some(Heard::New) | None => true,
                    Some(Heard::Again) => false,
                    Some(Heard::Behind(hole)) => {
                        orders.push(Order::Gap { channel, hole });
                        true
                    }
                },
                State::Book(book) => !late && book.hear(line, item.snapshot, time),
                State::Ticker(ticker) => !late && ticker.hear(line, item.snapshot, time, beside),
                State::Product(known) => !late && known.replace(hasher.hash_one(item.place.of(frame))) != *known,
            };
        }
        let Some(channel) = first else { return Said::Other };
        if new.iter().all(|new| *new) {
            return Said::Data(channel);
        }
        if new.contains(&true) { Said::Part(channel, message.part(frame, new)) } else { Said::Nothing }
    }

    /// The channels that an acknowledgement says are there.
    fn acknowledged(&self, frame: &[u8]) -> Said {
        let Ok(Acknowledged { events }) = serde_json::from_slice(frame) else { return Said::Other };
        let number = |kind: &str, product: &String| {
            let at = KINDS.iter().position(|(known, _)| *known == kind)?;
            self.by_product.get(&**product)?[at]
        };
        let all = events.iter().flat_map(|event| &event.subscriptions);
        Said::Listening(all.flat_map(|(kind, products)| products.iter().filter_map(move |product| number(kind, product))).collect())
    }

    /// Until when trades are asked for that fill a hole, in seconds since 1970: that second is left out. What is known to be behind
    /// them is not asked for again.
    fn until(&self, channel: usize, hole: &Hole) -> i64 {
        let last = hole.numbers.map(|(_, last)| last);
        let behind = match self.channels[channel].state {
            State::Trades { behind, .. } => behind.filter(|behind| Some(behind.number) > last),
            _ => None,
        };
        behind.map_or(hole.until, |behind| behind.time.min(hole.until)).div_euclid(SECOND) + 1
    }
}

/// A second in microseconds.
const SECOND: Micros = 1_000_000;

/// The number and time of a trade.
fn trade(frame: &[u8], number: Value, time: Value) -> Option<Last> {
    let number = digits::integer(frame, number)?.try_into().ok()?;
    Some(Last { number, time: digits::timestamp(time.of(frame))? })
}

/// Whether the newest trade comes first.
fn is_backwards(message: &Message, frame: &[u8]) -> bool {
    let [first, .., last] = &message.items[..] else { return false };
    let age = |last: Last| (last.time, last.number);
    match (trade(frame, first.number, first.time), trade(frame, last.number, last.time)) {
        (Some(first), Some(last)) => age(last) < age(first),
        _ => false,
    }
}

impl Protocol for Advanced {
    fn hear(&mut self, over: Over, frame: &[u8], orders: &mut Vec<Order>) -> Said {
        if note(frame, &mut self.outer, &mut self.inner, &mut self.message).is_err() {
            return Said::Other;
        }
        let outer = Event { text: frame, fields: &self.outer };
        let (name, number) = (outer.get("channel"), outer.integer("sequence_num").ok().and_then(|number| u64::try_from(number).ok()));
        let time = outer.get("timestamp").and_then(|time| digits::timestamp(time.of(frame))).unwrap_or_default();
        let Some(name) = name else {
            // A request that is refused has a type and no channel.
            return if outer.has("type") { Said::Refused } else { Said::Other };
        };
        let late = number.is_some_and(|number| self.is_late(over.line, number, time, orders));
        match name.of(frame) {
            b"heartbeats" => Said::Nothing,
            b"subscriptions" => self.acknowledged(frame),
            name => match KINDS.iter().position(|(_, known)| known.as_bytes() == name) {
                Some(kind) => self.hold(over, kind, late, time, frame, orders),
                None => Said::Other,
            },
        }
    }

    fn ended(&mut self, line: Line, _orders: &mut Vec<Order>) {
        self.lines.retain(|(known, _)| *known != line);
    }

    fn fill(&self, channel: usize, hole: &Hole) -> Option<Ask> {
        let product = &self.channels[channel].product;
        let (since, until) = (hole.since.div_euclid(SECOND), self.until(channel, hole));
        let path = format!("/api/v3/brokerage/market/products/{product}/ticker?limit={TRADES_AT_ONCE}&start={since}&end={until}");
        Some(Ask { path, topic: format!("{product}@ticker"), weight: 1 })
    }

    fn filled<'a>(&mut self, channel: usize, hole: &Hole, answer: &'a [u8]) -> Filled<'a> {
        let Some((first, last)) = hole.numbers else { return Filled { kept: Cow::Borrowed(&[]), rest: None, whole: false } };
        let (asked, mut count, mut oldest) = (self.until(channel, hole), 0, None::<Last>);
        let (kept, _) = cut::retain(answer, &["trades"], |element| {
            let Some(past) = past(element) else { return false };
            if oldest.is_none_or(|oldest| past.number < oldest.number) {
                oldest = Some(past);
            }
            let wanted = (first..=last).contains(&past.number);
            count += u64::from(wanted);
            wanted
        });
        // The past is told backwards, and asked for by the second: what one answer cannot have of a second is passed over.
        let earlier = (asked - 1) * SECOND - 1;
        let oldest = oldest.filter(|oldest| oldest.number > first).map(|oldest| Last { time: oldest.time.min(earlier), ..oldest });
        if let State::Trades { behind, .. } = &mut self.channels[channel].state {
            *behind = oldest;
        }
        let rest = oldest.map(|oldest| Hole { numbers: Some((first, last.min(oldest.number - 1))), ..*hole });
        let rest = rest.filter(|rest| self.until(channel, rest) > hole.since.div_euclid(SECOND));
        let expected = match rest.and_then(|rest| rest.numbers) {
            Some((_, next)) => last - next,
            None => last - first + 1,
        };
        Filled { kept, rest, whole: count == expected }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::advanced;
    use super::*;
    use crate::live::testing::{hear, hear_beside};
    use crate::live::venue::Wanted;
    use model::time::display;

    const NOTHING: (Said, Vec<String>) = (Said::Nothing, Vec::new());
    const DATA: (Said, Vec<String>) = (Said::Data(0), Vec::new());
    /// 2024-08-09, midnight, in microseconds.
    const DAY: Micros = 1_723_161_600_000_000;

    /// A message of a channel that holds this, at a millisecond of the day.
    fn message(channel: &str, number: u64, millisecond: i64, event: &str) -> String {
        let time = display(DAY + millisecond * 1_000);
        format!(r#"{{"channel":"{channel}","client_id":"","timestamp":"{time}","sequence_num":{number},"events":[{event}]}}"#)
    }

    /// Trades of products, `BTC-USD 5`, each made at the millisecond of its number.
    fn listed(trades: &[&str]) -> String {
        let trade = |words: &&str| {
            let (product, id) = words.split_once(' ').unwrap();
            let time = display(DAY + id.parse::<i64>().unwrap() * 1_000);
            format!(r#"{{"product_id":"{product}","trade_id":"{id}","price":"63310.25","size":"0.00000012","time":"{time}","side":"BUY"}}"#)
        };
        trades.iter().map(trade).collect::<Vec<_>>().join(",")
    }

    fn trades(kind: &str, number: u64, listed_trades: &[&str]) -> String {
        message("market_trades", number, 0, &format!(r#"{{"type":"{kind}","trades":[{}]}}"#, listed(listed_trades)))
    }

    fn update(number: u64, listed_trades: &[&str]) -> String {
        trades("update", number, listed_trades)
    }

    fn book(kind: &str, product: &str, number: u64, millisecond: i64) -> String {
        let level = r#"{"side":"bid","event_time":"1970-01-01T00:00:00Z","price_level":"21921.73","new_quantity":"0.06317902"}"#;
        message("l2_data", number, millisecond, &format!(r#"{{"type":"{kind}","product_id":"{product}","updates":[{level}]}}"#))
    }

    fn ticker(kind: &str, number: u64, millisecond: i64) -> String {
        let one = r#"{"type":"ticker","product_id":"BTC-USD","price":"1","best_bid":"1","best_bid_quantity":"1","best_ask":"2","best_ask_quantity":"1"}"#;
        message("ticker", number, millisecond, &format!(r#"{{"type":"{kind}","tickers":[{one}]}}"#))
    }

    #[test]
    fn every_book_of_a_connection_begins_anew_where_its_numbers_have_a_hole() {
        let mut one = advanced(&["BTC-USD", "ETH-USD"], &[Wanted::Book, Wanted::Trade]);
        assert_eq!(hear(&mut *one, 1, &book("update", "BTC-USD", 0, 1)), NOTHING, "it has not begun");
        assert_eq!(hear(&mut *one, 1, &book("snapshot", "BTC-USD", 1, 2)), DATA);
        assert_eq!(hear(&mut *one, 1, &book("update", "BTC-USD", 2, 3)), DATA);
        assert_eq!(hear(&mut *one, 1, &book("update", "BTC-USD", 2, 3)), NOTHING, "it comes again");
        assert_eq!(hear(&mut *one, 1, &book("snapshot", "ETH-USD", 3, 3)), (Said::Data(2), vec![]));
        let orders: Vec<String> = [
            format!("gap None {} {}", DAY + 3_000, DAY + 9_000),
            "resubscribe 0".into(),
            format!("gap None {} {}", DAY + 3_000, DAY + 9_000),
            "resubscribe 2".into(),
        ]
        .into();
        assert_eq!(hear(&mut *one, 1, &book("update", "BTC-USD", 5, 9)), (Said::Nothing, orders));
        assert_eq!(hear(&mut *one, 1, &book("update", "ETH-USD", 6, 9)), NOTHING, "it lacks a change, perhaps");
        assert_eq!(hear(&mut *one, 1, &book("snapshot", "BTC-USD", 4, 9)), NOTHING, "it comes too late");
        assert_eq!(hear(&mut *one, 1, &book("snapshot", "BTC-USD", 7, 9)), DATA);
        assert_eq!(hear(&mut *one, 1, &book("update", "BTC-USD", 8, 10)), DATA);
        // The snapshot of the other may be what is missing now.
        let orders: Vec<String> = [format!("gap None {DAY} {DAY}"), "resubscribe 0".into(), "resubscribe 2".into()].into();
        assert_eq!(hear(&mut *one, 1, &update(10, &["BTC-USD 5"])), (Said::Data(1), orders));
        let nothing = message("heartbeats", 12, 20, r#"{"current_time":"2024-08-09 00:00:00","heartbeat_counter":3}"#);
        assert_eq!(hear(&mut *one, 1, &nothing), (Said::Nothing, vec!["resubscribe 0".into(), "resubscribe 2".into()]));
    }

    #[test]
    fn a_book_changes_over_to_the_connection_that_begins_it() {
        let mut one = advanced(&["BTC-USD"], &[Wanted::Book]);
        hear(&mut *one, 1, &book("snapshot", "BTC-USD", 0, 1));
        assert_eq!(hear(&mut *one, 2, &book("update", "BTC-USD", 0, 2)), NOTHING);
        assert_eq!(hear(&mut *one, 1, &book("update", "BTC-USD", 1, 2)), DATA);
        assert_eq!(hear(&mut *one, 2, &update(2, &["BTC-USD 5"])).1, ["resubscribe 0"], "its snapshot may be missing");
        assert_eq!(hear(&mut *one, 1, &book("update", "BTC-USD", 2, 3)), DATA, "the old one has told everything");
        assert_eq!(hear(&mut *one, 2, &book("snapshot", "BTC-USD", 3, 4)), DATA);
        assert_eq!(hear(&mut *one, 1, &book("update", "BTC-USD", 5, 5)), NOTHING, "what the old one lacks is no matter any more");
        assert_eq!(hear(&mut *one, 1, &book("snapshot", "BTC-USD", 6, 5)), NOTHING);
        assert_eq!(hear(&mut *one, 2, &book("update", "BTC-USD", 4, 6)), DATA);
    }

    #[test]
    fn what_is_new_of_a_message_is_kept() {
        let mut one = advanced(&["BTC-USD", "ETH-USD"], &[Wanted::Trade, Wanted::Book]);
        assert_eq!(hear(&mut *one, 1, &trades("snapshot", 0, &["BTC-USD 4", "BTC-USD 3"])), NOTHING, "it is the past");
        assert_eq!(hear(&mut *one, 1, &update(1, &["BTC-USD 6", "BTC-USD 5"])), DATA);
        assert_eq!(hear(&mut *one, 2, &update(0, &["BTC-USD 6"])), NOTHING, "two connections overlap");
        let part = update(1, &["BTC-USD 8", "BTC-USD 7"]).into_bytes();
        assert_eq!(hear(&mut *one, 2, &update(1, &["BTC-USD 8", "BTC-USD 7", "BTC-USD 6", "BTC-USD 5"])), (Said::Part(0, part), vec![]));
        let hole = vec![format!("gap Some((9, 10)) {} {}", DAY + 8_000, DAY + 11_000)];
        assert_eq!(hear(&mut *one, 2, &update(2, &["ETH-USD 12", "BTC-USD 12", "BTC-USD 11"])), (Said::Data(0), hole));
        assert_eq!(hear(&mut *one, 1, &update(2, &["BTC-USD 10"])), NOTHING, "it is asked for already");
        assert_eq!(hear(&mut *one, 2, &update(3, &["ETH-USD 13"])), (Said::Data(2), vec![]));
        assert_eq!(hear(&mut *one, 2, &update(4, &["SOL-USD 13"])), (Said::Other, vec![]));
        let event = |kind: &str, product: &str| format!(r#"{{"type":"{kind}","product_id":"{product}","updates":[]}}"#);
        let two = message("l2_data", 5, 1, &[event("update", "BTC-USD"), event("snapshot", "ETH-USD")].join(","));
        let part = message("l2_data", 5, 1, &event("snapshot", "ETH-USD")).into_bytes();
        assert_eq!(hear(&mut *one, 2, &two), (Said::Part(1, part), vec![]), "one has begun and one has not");
    }

    #[test]
    fn tickers_follow_the_newest_connection() {
        let mut one = advanced(&["BTC-USD"], &[Wanted::Quote]);
        assert_eq!(hear(&mut *one, 1, &ticker("snapshot", 0, 1)), DATA);
        assert_eq!(hear(&mut *one, 1, &ticker("update", 1, 2)), DATA);
        assert_eq!(hear_beside(&mut *one, 2, &ticker("snapshot", 0, 9)), NOTHING, "the old one has told it");
        assert_eq!(hear(&mut *one, 1, &ticker("update", 2, 8)), DATA, "it is of the time before");
        assert_eq!(hear(&mut *one, 1, &ticker("update", 3, 9)), NOTHING);
        assert_eq!(hear(&mut *one, 2, &ticker("update", 1, 10)), DATA);
        assert_eq!(hear(&mut *one, 2, &ticker("update", 1, 10)), NOTHING, "it comes again");
        one.ended(1, &mut Vec::new());
        one.ended(2, &mut Vec::new());
        assert_eq!(hear(&mut *one, 3, &ticker("snapshot", 0, 99)), DATA, "nobody has told it");
    }

    #[test]
    fn what_a_product_is_is_kept_where_it_differs() {
        let mut one = advanced(&["BTC-USD"], &[Wanted::VenueStatus]);
        let status = |number: u64, state: &str| {
            let product = |id: &str| format!(r#"{{"product_type":"SPOT","id":"{id}","status":"{state}"}}"#);
            message("status", number, 1, &format!(r#"{{"type":"snapshot","products":[{}]}}"#, product("BTC-USD")))
        };
        assert_eq!(hear(&mut *one, 1, &status(0, "online")), DATA);
        assert_eq!(hear(&mut *one, 1, &status(1, "online")), NOTHING);
        assert_eq!(hear(&mut *one, 2, &status(0, "online")), NOTHING);
        assert_eq!(hear(&mut *one, 2, &status(1, "delisted")), DATA);
    }

    #[test]
    fn what_an_earlier_run_heard_is_followed_on() {
        let mut one = advanced(&["BTC-USD"], &[Wanted::Trade, Wanted::Book]);
        // Of several connections.
        hear(&mut *one, 0, &update(70, &["BTC-USD 5"]));
        hear(&mut *one, 0, &book("snapshot", "BTC-USD", 71, 1));
        assert_eq!(hear(&mut *one, 0, &update(3, &["BTC-USD 6"])), DATA);
        one.taken_over();
        assert_eq!(hear(&mut *one, 1, &book("update", "BTC-USD", 0, 2)), NOTHING, "it has not begun");
        let hole = vec![format!("gap Some((7, 7)) {} {}", DAY + 6_000, DAY + 8_000)];
        assert_eq!(hear(&mut *one, 1, &update(1, &["BTC-USD 8"])), (Said::Data(0), hole));
        assert_eq!(hear(&mut *one, 1, &book("snapshot", "BTC-USD", 2, 2)), (Said::Data(1), vec![]));
    }

    #[test]
    fn acknowledgements_and_refusals_are_told_apart() {
        let mut one = advanced(&["BTC-USD", "ETH-USD"], &[Wanted::Trade, Wanted::Book]);
        let subscriptions = |number: u64, of: &str| message("subscriptions", number, 0, &format!(r#"{{"subscriptions":{{{of}}}}}"#));
        assert_eq!(hear(&mut *one, 1, &subscriptions(0, r#""level2":["ETH-USD"]"#)), (Said::Listening(vec![3]), vec![]));
        let all = r#""heartbeats":["heartbeats"],"level2":["ETH-USD"],"market_trades":["BTC-USD","SOL-USD","ETH-USD"]"#;
        assert_eq!(hear(&mut *one, 1, &subscriptions(1, all)).0, Said::Listening(vec![3, 0, 2]));
        assert_eq!(hear(&mut *one, 1, &subscriptions(2, "")).0, Said::Listening(vec![]));
        assert_eq!(hear(&mut *one, 1, r#"{"type":"error","message":"authentication failure"}"#).0, Said::Refused);
        assert_eq!(hear(&mut *one, 1, &message("heartbeats", 3, 1, r#"{"heartbeat_counter":"42"}"#)), NOTHING);
        assert_eq!(hear(&mut *one, 1, &message("candles", 4, 1, "{}")).0, Said::Other);
        assert_eq!(hear(&mut *one, 1, r#"{"products":[],"num_products":0}"#).0, Said::Other);
        assert_eq!(hear(&mut *one, 1, "nonsense").0, Said::Other);
    }

    #[test]
    fn missing_trades_are_asked_for_by_the_second_and_backwards() {
        let mut one = advanced(&["BTC-USD"], &[Wanted::Trade]);
        // One trade each 100 ms.
        let time = |id: u64| DAY + id as i64 * 100_000;
        let answer = |ids: std::ops::RangeInclusive<u64>| {
            let trade = |id| {
                format!(
                    r#"{{"trade_id":"{id}","product_id":"BTC-USD","price":"1","size":"2","time":"{}","side":"BUY","bid":"","ask":""}}"#,
                    display(time(id))
                )
            };
            format!(r#"{{"trades":[{}],"best_bid":"1","best_ask":"2"}}"#, ids.rev().map(trade).collect::<Vec<_>>().join(","))
        };
        let hole = |first, last| Hole { numbers: Some((first, last)), since: time(14), until: time(98) };
        let path = |one: &dyn Protocol, hole: &Hole| one.fill(0, hole).unwrap().path;
        let expected = |until: i64| {
            let (since, until) = (DAY / SECOND + 1, DAY / SECOND + until);
            format!("/api/v3/brokerage/market/products/BTC-USD/ticker?limit=1000&start={since}&end={until}")
        };
        assert_eq!(path(&*one, &hole(15, 97)), expected(10));
        assert_eq!(one.fill(0, &hole(15, 97)).unwrap().topic, "BTC-USD@ticker");
        let (all, kept) = (answer(10..=99), answer(15..=97));
        assert_eq!(one.filled(0, &hole(15, 97), all.as_bytes()), Filled { kept: kept.into_bytes().into(), rest: None, whole: true });
        let (newest, kept) = (answer(85..=99), answer(85..=97));
        let filled = Filled { kept: kept.into_bytes().into(), rest: Some(hole(15, 84)), whole: true };
        assert_eq!(one.filled(0, &hole(15, 97), newest.as_bytes()), filled);
        assert_eq!(path(&*one, &hole(15, 84)), expected(9), "what is behind it is known");
        let short = answer(80..=82);
        let filled = Filled { kept: short.as_bytes().into(), rest: Some(hole(15, 79)), whole: false };
        assert_eq!(one.filled(0, &hole(15, 84), short.as_bytes()), filled);
        assert_eq!(path(&*one, &hole(15, 79)), expected(8), "more of that second is not told");
        let none = r#"{"trades":[],"best_bid":"1","best_ask":"2"}"#;
        assert_eq!(one.filled(0, &hole(15, 79), none.as_bytes()), Filled { kept: b""[..].into(), rest: None, whole: false });
        let beginning = answer(20..=22);
        let of_a_second = Hole { since: time(20), until: time(24), ..hole(15, 22) };
        let filled = Filled { kept: beginning.as_bytes().into(), rest: None, whole: false };
        assert_eq!(one.filled(0, &of_a_second, beginning.as_bytes()), filled, "no earlier second is left");
        // An answer that has nothing of the hole is followed by one that goes on before it.
        let behind = answer(85..=99);
        let rest = Some(hole(15, 60));
        assert_eq!(one.filled(0, &hole(15, 60), behind.as_bytes()), Filled { kept: b""[..].into(), rest, whole: true });
        assert_eq!(path(&*one, &hole(15, 60)), expected(9));
    }
}
