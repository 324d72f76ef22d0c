//! Spot: the second protocol of its sockets.
//!
//! What must hold on its channels:
//!
//! - **Trades** have numbers without holes. A hole is asked for (`Trades`, which tells the past from a time on).
//! - **Books** have no numbers: they begin with a snapshot, the order of the frames is the chain, and a checksum over the best ten
//!   levels says whether it holds. A [`Witness`] keeps the book; where it is not the venue's, the channel is subscribed to anew. A
//!   book follows one connection, until another begins it. That it is subscribed to with [`DEPTH`] levels goes with its frames as
//!   their topic, because nothing in them says it.
//! - What comes again is dropped: trades by their numbers, a change by its bytes.

use std::borrow::Cow;

use model::time::Micros;
use serde_json::json;
use serde_json::value::RawValue;

use super::super::cut;
use super::super::follow::{self, Heard, Last, Trades};
use super::super::venue::{Ask, BySymbol, Channel, Filled, Hole, Line, Order, Over, Protocol, Said, by_symbol};
use super::super::witness::Witness;
use super::{SPOT, STATUS};
use crate::dialect::digits;
use crate::dialect::fields::{Event, Fields};
use crate::dialect::json::{Scanner, Token, Value};
use crate::dialect::kraken::SpotMembers;

/// Levels of a side that a book has, the most that there are.
const DEPTH: u32 = 1_000;
/// The channels of a pair.
const KINDS: [&str; 3] = ["trade", "book", "ticker"];

/// What the frames of a pair's book were asked for.
pub(super) fn topic(symbol: &str) -> String {
    format!("{symbol}@book-{DEPTH}")
}

/// What subscribes to a channel of these pairs.
pub(super) fn subscribe(kind: &str, symbols: &[&str], number: u64) -> String {
    let parameters = match kind {
        // It comes by itself. The answer to a ping acknowledges that the connection is there.
        STATUS => return json!({ "method": "ping", "req_id": number }).to_string(),
        "book" => json!({ "channel": kind, "symbol": symbols, "depth": DEPTH, "snapshot": true }),
        "ticker" => json!({ "channel": kind, "symbol": symbols, "event_trigger": "bbo", "snapshot": true }),
        _ => json!({ "channel": kind, "symbol": symbols, "snapshot": false }),
    };
    json!({ "method": "subscribe", "params": parameters, "req_id": number }).to_string()
}

/// What ends the subscription to a channel of a pair.
pub(super) fn unsubscribe(kind: &str, symbol: &str, number: u64) -> String {
    let parameters = match kind {
        "book" => json!({ "channel": kind, "symbol": [symbol], "depth": DEPTH }),
        _ => json!({ "channel": kind, "symbol": [symbol] }),
    };
    json!({ "method": "unsubscribe", "params": parameters, "req_id": number }).to_string()
}

/// The pair as requests name it, with Kraken's own codes: `XBTUSD` for `BTC/USD`.
fn pair(symbol: &str) -> String {
    let code = |asset| match asset {
        "BTC" => "XBT",
        "DOGE" => "XDG",
        other => other,
    };
    symbol.split('/').map(code).collect()
}

/// What listens to a connection.
pub(super) struct Spot {
    /// The channels of a pair, in the order of [`KINDS`].
    by_symbol: BySymbol<{ KINDS.len() }>,
    status: Option<usize>,
    channels: Vec<Followed>,
    witness: Witness,
    outer: Fields<SpotMembers>,
    inner: Fields<SpotMembers>,
    /// The trades of a frame.
    prints: Vec<Print>,
    hasher: ahash::RandomState,
}

struct Followed {
    symbol: Box<str>,
    topic: String,
    state: State,
}

/// How far a channel has come.
type State = follow::State<Trades, Book>;

/// A book without numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Book {
    /// The connection that it follows.
    line: Line,
    begun: bool,
    /// The event time of what was heard last.
    time: Option<Micros>,
    /// The hash of its bytes.
    hash: u64,
    /// The last snapshot is not what its own checksum says.
    hopeless: bool,
}

impl Book {
    /// Hears a snapshot or a change. Whether it is of the connection that the book follows, and new.
    fn hear(&mut self, line: Line, whole: bool, hash: u64) -> bool {
        let follows = if whole { line >= self.line } else { self.begun && line == self.line && hash != self.hash };
        if follows {
            (self.line, self.begun, self.hash) = (line, true, hash);
        }
        follows
    }
}

/// A trade of a frame.
#[derive(Clone, Copy, Debug)]
struct Print {
    /// Its channel and place in it; none where it is of no channel that we know.
    at: Option<(usize, Last)>,
    /// Whether it is kept.
    new: bool,
}

impl Spot {
    /// What listens to a connection with these channels.
    pub(super) fn new(channels: &[Channel]) -> Spot {
        let followed = |channel: &Channel| {
            let symbol = channel.symbol();
            Followed { symbol: symbol.into(), topic: topic(symbol), state: State::of(channel.tells) }
        };
        Spot {
            by_symbol: by_symbol(channels, KINDS),
            status: channels.iter().position(|channel| channel.name == STATUS),
            channels: channels.iter().map(followed).collect(),
            witness: Witness::new(SPOT.dialect),
            outer: Fields::default(),
            inner: Fields::default(),
            prints: Vec::new(),
            hasher: ahash::RandomState::new(),
        }
    }

    /// The channel of an object that names its pair.
    fn channel(&self, frame: &[u8], kind: usize) -> Option<usize> {
        let symbol = Event { text: frame, fields: &self.inner }.get("symbol")?;
        self.by_symbol.get(std::str::from_utf8(symbol.of(frame)).ok()?)?[kind]
    }

    /// The event time of an object.
    fn time(&self, frame: &[u8]) -> Option<Micros> {
        digits::timestamp(Event { text: frame, fields: &self.inner }.get("timestamp")?.of(frame))
    }

    /// Hears trades.
    fn trades(&mut self, over: Over, frame: &[u8], data: Value, orders: &mut Vec<Order>) -> Said {
        let mut prints = std::mem::take(&mut self.prints);
        prints.clear();
        // What is no trade is kept: the decoder will tell.
        let walk = Scanner::at(frame, data).array(|s| {
            let element = s.value()?;
            let at = if element.token == Token::Object && self.inner.inner(frame, element).is_ok() { self.print(frame) } else { None };
            prints.push(Print { at, new: true });
            Ok(())
        });
        let said = match prints.iter().find_map(|print| print.at) {
            Some((channel, _)) if walk.is_ok() => self.follow(over, channel, frame, &mut prints, orders),
            _ => Said::Other,
        };
        self.prints = prints;
        said
    }

    /// The channel of a trade, and its place there.
    fn print(&self, frame: &[u8]) -> Option<(usize, Last)> {
        let event = Event { text: frame, fields: &self.inner };
        let number = u64::try_from(event.integer("trade_id").ok()?).ok()?;
        Some((self.channel(frame, 0)?, Last { number, time: self.time(frame)? }))
    }

    /// Follows the trades of a frame, oldest first.
    fn follow(&mut self, over: Over, channel: usize, frame: &[u8], prints: &mut [Print], orders: &mut Vec<Order>) -> Said {
        let number = |print: Option<&Print>| print.and_then(|print| print.at).map(|(_, last)| last.number);
        let backwards = number(prints.first()) > number(prints.last());
        for i in 0..prints.len() {
            let print = if backwards { prints.len() - 1 - i } else { i };
            let Print { at: Some((channel, last)), new } = &mut prints[print] else { continue };
            let State::Trades(trades) = &mut self.channels[*channel].state else { continue };
            match trades.hear(over, *last) {
                Heard::New => {}
                Heard::Again => *new = false,
                Heard::Behind(hole) => orders.push(Order::Gap { channel: *channel, hole }),
            }
        }
        cut::said(channel, frame, &["data"], prints.iter().map(|print| print.new))
    }

    /// Hears the book, or what changed. A frame is of one pair.
    fn book(&mut self, line: Line, channel: usize, whole: bool, frame: &[u8], orders: &mut Vec<Order>) -> Said {
        let (time, hash) = (self.time(frame), self.hasher.hash_one(frame));
        let Followed { topic, state, .. } = &mut self.channels[channel];
        let State::Book(book) = state else { return Said::Data(channel) };
        if !book.hear(line, whole, hash) {
            return Said::Nothing;
        }
        let before = book.time;
        book.time = time.or(before);
        if self.witness.agrees(channel, topic, frame) {
            book.hopeless &= !whole;
            return Said::Data(channel);
        }
        let until = time.or(before).unwrap_or_default();
        let hole = Hole { numbers: None, since: before.map_or(until, |before| before.min(until)), until };
        orders.push(Order::Gap { channel, hole });
        // Where one snapshot after the other is not what it says, a third would not be either.
        if !whole || !std::mem::replace(&mut book.hopeless, true) {
            orders.push(Order::Resubscribe { channel });
        }
        Said::Data(channel)
    }

    /// The answer to what we said.
    fn answer(&mut self, frame: &[u8]) -> Said {
        let outer = Event { text: frame, fields: &self.outer };
        let refused = outer.get("success").is_some_and(|success| success.token != Token::True);
        if refused || ["error", "Error"].iter().any(|name| outer.get(name).is_some()) {
            return Said::Refused;
        }
        match outer.get("method").map(|method| method.of(frame)) {
            Some(b"pong") => self.status.map_or(Said::Nothing, |status| Said::Listening(vec![status])),
            Some(b"subscribe") => {
                let result = outer.get("result").filter(|result| result.token == Token::Object);
                if result.is_none_or(|result| self.inner.inner(frame, result).is_err()) {
                    return Said::Other;
                }
                let channel = Event { text: frame, fields: &self.inner }.get("channel").map(|channel| channel.of(frame));
                let kind = KINDS.iter().position(|kind| Some(kind.as_bytes()) == channel);
                Said::Listening(kind.and_then(|kind| self.channel(frame, kind)).into_iter().collect())
            }
            Some(_) => Said::Nothing,
            None => Said::Other,
        }
    }
}

impl Protocol for Spot {
    fn hear(&mut self, over: Over, frame: &[u8], orders: &mut Vec<Order>) -> Said {
        if self.outer.frame(frame).is_err() {
            return Said::Other;
        }
        let outer = Event { text: frame, fields: &self.outer };
        let Some(name) = outer.get("channel") else { return self.answer(frame) };
        let kind = match name.of(frame) {
            b"heartbeat" => return Said::Nothing,
            // It comes whether anybody wants it or not.
            b"status" => return self.status.map_or(Said::Nothing, Said::Data),
            name => KINDS.iter().position(|kind| kind.as_bytes() == name),
        };
        let data = outer.get("data").filter(|data| data.token == Token::Array);
        let whole = outer.get("type").is_some_and(|kind| kind.of(frame) == b"snapshot");
        let (Some(kind), Some(data)) = (kind, data) else { return Said::Other };
        if KINDS[kind] == "trade" {
            return self.trades(over, frame, data, orders);
        }
        let mut first = None;
        let walk = Scanner::at(frame, data).array(|s| s.value().map(|element| first = first.or(Some(element))));
        let Some(first) = first.filter(|first| walk.is_ok() && first.token == Token::Object) else { return Said::Other };
        if self.inner.inner(frame, first).is_err() {
            return Said::Other;
        }
        match self.channel(frame, kind) {
            None => Said::Other,
            Some(channel) if KINDS[kind] == "book" => self.book(over.line, channel, whole, frame, orders),
            Some(channel) => Said::Data(channel),
        }
    }

    fn fill(&self, channel: usize, hole: &Hole) -> Option<Ask> {
        let symbol = &self.channels[channel].symbol;
        // Nanoseconds; what happened then is left out, and may have happened within the microsecond that we know.
        let since = i128::from(hole.since) * 1_000 - 1;
        Some(Ask { path: format!("/0/public/Trades?pair={}&since={since}", pair(symbol)), topic: format!("{symbol}@Trades"), weight: 1 })
    }

    fn filled<'a>(&mut self, _channel: usize, hole: &Hole, answer: &'a [u8]) -> Filled<'a> {
        let Some((first, last)) = hole.numbers else { return Filled { kept: Cow::Borrowed(&[]), rest: None, whole: false } };
        let (mut count, mut newest) = (0, None);
        let (kept, _) = cut::retain(answer, &["result", "*"], |trade| {
            let Some(past) = past(trade).filter(|past| past.number >= first) else { return false };
            newest = newest.max(Some((past.number, past.time)));
            let wanted = past.number <= last;
            count += u64::from(wanted);
            wanted
        });
        // An answer that tells of nothing behind the hole is the first part of it; one that has nothing of it is all that there is.
        let rest = newest.filter(|(number, _)| *number < last);
        let rest = rest.map(|(number, time)| Hole { numbers: Some((number + 1, last)), since: time, until: hole.until });
        let expected = rest.and_then(|rest| rest.numbers).map_or(last, |(next, _)| next - 1) - first + 1;
        Filled { kept, rest, whole: count == expected }
    }
}

/// The number and time of a trade of the past: `[price, size, seconds, side, type, "", number]`.
fn past(trade: &RawValue) -> Option<Last> {
    let parts: Vec<&RawValue> = serde_json::from_str(trade.get()).ok()?;
    let [_, _, time, _, _, _, number, ..] = parts[..] else { return None };
    let (seconds, fraction) = time.get().split_once('.').unwrap_or((time.get(), ""));
    let micros: Micros = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    Some(Last { number: number.get().parse().ok()?, time: seconds.parse::<Micros>().ok()?.checked_mul(1_000_000)? + micros })
}

#[cfg(test)]
mod tests {
    use super::super::tests::spot;
    use super::*;
    use crate::live::testing::hear;
    use crate::live::venue::Wanted;

    const NOTHING: (Said, Vec<String>) = (Said::Nothing, Vec::new());
    const DATA: (Said, Vec<String>) = (Said::Data(0), Vec::new());
    /// 2024-08-09 in microseconds.
    const DAY: Micros = 1_723_161_600_000_000;

    /// A frame of trades, each with its number as the second that it is of.
    fn trades(numbers: &[u64]) -> String {
        let trade = |number: &u64| {
            format!(
                r#"{{"symbol":"BTC/USD","side":"buy","price":105944.20,"qty":0.00027625,"ord_type":"limit","trade_id":{number},"timestamp":"2024-08-09T00:00:{number:02}.440295Z"}}"#
            )
        };
        let trades: Vec<String> = numbers.iter().map(trade).collect();
        format!(r#"{{"channel":"trade","type":"update","data":[{}]}}"#, trades.join(","))
    }

    /// The answer that has these trades.
    fn answer(numbers: impl Iterator<Item = u64>) -> String {
        let trades: Vec<String> =
            numbers.map(|number| format!(r#"["105433.60000","0.00027625",17231616{number:02}.4402951,"b","l","",{number}]"#)).collect();
        format!(r#"{{"error":[],"result":{{"XXBTZUSD":[{}],"last":"1762795483306824000"}}}}"#, trades.join(","))
    }

    /// A book or a change with one level of each side, at a second; the checksum is that of these levels.
    fn book(kind: &str, size: u32, second: u32) -> String {
        book_of(kind, size, second, crc32fast::hash(format!("10001{size}0000000099991{size}00000000").as_bytes()))
    }

    fn book_of(kind: &str, size: u32, second: u32, checksum: u32) -> String {
        format!(
            r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{{"price":9999.1,"qty":{size}.00000000}}],"asks":[{{"price":1000.1,"qty":{size}.00000000}}],"checksum":{checksum},"timestamp":"2024-08-09T00:00:{second:02}.000000Z"}}]}}"#
        )
    }

    fn second(second: i64) -> Micros {
        DAY + second * 1_000_000
    }

    #[test]
    fn a_book_is_subscribed_to_anew_where_its_checksum_is_anothers() {
        let mut one = spot(&[Wanted::Book]);
        assert_eq!(hear(&mut *one, 1, &book("update", 1, 1)), NOTHING, "it has not begun");
        assert_eq!(hear(&mut *one, 1, &book("snapshot", 1, 1)), DATA);
        assert_eq!(hear(&mut *one, 1, &book("update", 2, 2)), DATA);
        assert_eq!(hear(&mut *one, 1, &book("update", 2, 2)), NOTHING, "it comes twice");
        let orders = |since, until, orders: &[&str]| {
            let gap = format!("gap None {} {}", second(since), second(until));
            (Said::Data(0), [&[gap], &orders.iter().map(|order| (*order).to_owned()).collect::<Vec<_>>()[..]].concat())
        };
        assert_eq!(hear(&mut *one, 1, &book_of("update", 3, 3, 7)), orders(2, 3, &["resubscribe 0"]));
        assert_eq!(hear(&mut *one, 1, &book_of("update", 4, 4, 7)), DATA, "it is known that it is another");
        assert_eq!(hear(&mut *one, 1, &book("snapshot", 5, 5)), DATA);
        assert_eq!(hear(&mut *one, 1, &book("update", 6, 6)), DATA);
        assert_eq!(hear(&mut *one, 1, &book_of("snapshot", 7, 7, 7)), orders(6, 7, &["resubscribe 0"]));
        assert_eq!(hear(&mut *one, 1, &book_of("snapshot", 8, 8, 7)), orders(7, 8, &[]), "it is of no use to ask for ever");
        assert_eq!(hear(&mut *one, 1, &book("snapshot", 9, 9)), DATA);
        assert_eq!(hear(&mut *one, 1, &book_of("snapshot", 10, 10, 7)), orders(9, 10, &["resubscribe 0"]));
    }

    #[test]
    fn a_book_changes_over_to_the_connection_that_begins_it() {
        let mut one = spot(&[Wanted::Book]);
        hear(&mut *one, 1, &book("snapshot", 1, 1));
        assert_eq!(hear(&mut *one, 2, &book("update", 2, 2)), NOTHING);
        assert_eq!(hear(&mut *one, 1, &book("update", 2, 2)), DATA);
        assert_eq!(hear(&mut *one, 2, &book("snapshot", 2, 2)), DATA);
        assert_eq!(hear(&mut *one, 1, &book("update", 3, 3)), NOTHING);
        assert_eq!(hear(&mut *one, 1, &book("snapshot", 3, 3)), NOTHING);
        assert_eq!(hear(&mut *one, 2, &book("update", 3, 3)), DATA);
        one.taken_over();
        assert_eq!(hear(&mut *one, 3, &book("update", 4, 4)), NOTHING);
        assert_eq!(hear(&mut *one, 3, &book("snapshot", 4, 4)), DATA);
    }

    #[test]
    fn of_a_frame_only_what_is_new_is_kept() {
        let mut one = spot(&[Wanted::Trade]);
        assert_eq!(hear(&mut *one, 1, &trades(&[5, 6])), DATA);
        assert_eq!(hear(&mut *one, 2, &trades(&[5, 6])), NOTHING, "two connections overlap");
        assert_eq!(hear(&mut *one, 2, &trades(&[6, 7])), (Said::Part(0, trades(&[7]).into_bytes()), vec![]));
        assert_eq!(hear(&mut *one, 1, &trades(&[9, 8, 7])), (Said::Part(0, trades(&[9, 8]).into_bytes()), vec![]), "newest first");
        assert_eq!(hear(&mut *one, 1, &trades(&[7]).replace("BTC", "ETH")).0, Said::Other);
        assert_eq!(hear(&mut *one, 1, &trades(&[10]).replace("10,", "\"ten\",")).0, Said::Other, "the decoder will tell");
    }

    #[test]
    fn missing_trades_are_asked_for_from_the_last_one_on() {
        let mut one = spot(&[Wanted::Trade]);
        hear(&mut *one, 0, &trades(&[5]));
        one.taken_over();
        let (since, until) = (second(5) + 440_295, second(40) + 440_295);
        assert_eq!(hear(&mut *one, 1, &trades(&[40])), (Said::Data(0), vec![format!("gap Some((6, 39)) {since} {until}")]));
        assert_eq!(hear(&mut *one, 1, &trades(&[39])), NOTHING, "it is asked for already");
        let hole = |first, since| Hole { numbers: Some((first, 39)), since, until };
        let ask = one.fill(0, &hole(6, since)).unwrap();
        assert_eq!(ask.path, "/0/public/Trades?pair=XBTUSD&since=1723161605440294999");
        assert_eq!(ask.topic, "BTC/USD@Trades");
        let (all, part) = (answer(5..=41), answer(4..=20));
        let kept = |numbers| answer(numbers).into_bytes().into();
        assert_eq!(one.filled(0, &hole(6, since), all.as_bytes()), Filled { kept: kept(6..=39), rest: None, whole: true });
        let rest = Some(hole(21, second(20) + 440_295));
        assert_eq!(one.filled(0, &hole(6, since), part.as_bytes()), Filled { kept: kept(6..=20), rest, whole: true });
        let none = Filled { kept: b""[..].into(), rest: None, whole: false };
        assert_eq!(one.filled(0, &hole(21, since), part.as_bytes()), none, "it has no more");
        let without = answer((6..=39).filter(|number| *number != 9));
        assert_eq!(
            one.filled(0, &hole(6, since), without.as_bytes()),
            Filled { kept: without.as_bytes().into(), rest: None, whole: false }
        );
        assert_eq!(pair("DOGE/EUR"), "XDGEUR");
    }

    #[test]
    fn acknowledgements_and_refusals_are_told_apart() {
        let mut one = spot(&[Wanted::Trade, Wanted::Book, Wanted::Quote, Wanted::VenueStatus]);
        let subscribed = |channel: &str| {
            format!(
                r#"{{"method":"subscribe","req_id":1,"result":{{"channel":"{channel}","depth":1000,"snapshot":true,"symbol":"BTC/USD"}},"success":true,"time_in":"2023-09-25T09:04:31.742599Z","time_out":"2023-09-25T09:04:31.742648Z"}}"#
            )
        };
        let status = r#"{"channel":"status","type":"update","data":[{"api_version":"v2","connection_id":13834774380200032777,"system":"online","version":"2.0.0"}]}"#;
        let ticker = r#"{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":63297.7,"bid_qty":5.45673101,"ask":63297.8,"ask_qty":0.36974422,"timestamp":"2026-08-12T19:29:02.066592Z"}]}"#;
        for (frame, said) in [
            (&*subscribed("trade"), Said::Listening(vec![0])),
            (&*subscribed("book"), Said::Listening(vec![1])),
            (&*subscribed("ticker"), Said::Listening(vec![2])),
            (&*subscribed("book").replace("subscribe", "unsubscribe"), Said::Nothing),
            (
                r#"{"method":"pong","req_id":1,"time_in":"2023-09-25T09:05:00.123456Z","time_out":"2023-09-25T09:05:00.123500Z"}"#,
                Said::Listening(vec![3]),
            ),
            (r#"{"error":"Currency pair not supported XBT/XYZ","method":"subscribe","success":false,"symbol":"XBT/XYZ"}"#, Said::Refused),
            (r#"{"Error":"Exceeded msg rate"}"#, Said::Refused),
            (r#"{"channel":"heartbeat"}"#, Said::Nothing),
            (status, Said::Data(3)),
            (ticker, Said::Data(2)),
            (&*ticker.replace("BTC", "ETH"), Said::Other),
            (r#"{"channel":"ohlc","type":"update","data":[]}"#, Said::Other),
            (r#"{"channel":"book","type":"update","data":[]}"#, Said::Other),
            ("{}", Said::Other),
            ("nonsense", Said::Other),
        ] {
            assert_eq!(hear(&mut *one, 1, frame), (said, vec![]), "{frame}");
        }
        let mut other = spot(&[Wanted::Trade]);
        for frame in [status, r#"{"method":"pong"}"#] {
            assert_eq!(hear(&mut *other, 1, frame), NOTHING, "nobody wants it");
        }
    }
}
