//! Futures: flat objects that name their feed and product.
//!
//! What must hold on the feeds:
//!
//! - **Trades** have numbers without holes, by product. A hole is asked for (`history`, which tells the past backwards from a time on). Its
//!   trades carry no such number, only the names that they have in the feed, too: those of the time of the hole are kept whose name was
//!   not heard, and there must be as many of them as numbers are missing.
//! - **Books** begin with a snapshot; each change has the number of the one before it plus one. Where that breaks, the feed is
//!   subscribed to anew.
//! - What comes again is dropped, and so are the trades of the past that a subscription begins with.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat};
use model::time::Micros;
use serde::Deserialize;

use super::super::cut;
use super::super::follow::{self, Chain, Heard, Last, Lately, Trades};
use super::super::venue::{Ask, BySymbol, Channel, Filled, Hole, Order, Over, Protocol, Said, by_symbol};
use crate::dialect::digits;
use crate::dialect::fields::{Event, Fields};
use crate::dialect::kraken::FuturesMembers;

/// The feeds of a product.
const FEEDS: [&str; 3] = ["trade", "book", "ticker"];
/// Trades that one request gives.
const TRADES_AT_ONCE: usize = 100;
/// Times have milliseconds.
const MILLISECOND: Micros = 1_000;

/// What acknowledges a subscription, or its end.
#[derive(Deserialize)]
struct Acknowledgement<'a> {
    #[serde(borrow)]
    feed: Cow<'a, str>,
    #[serde(borrow, default)]
    product_ids: Vec<Cow<'a, str>>,
}

/// A trade of the past, as far as it is followed.
#[derive(Deserialize)]
struct Past<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
}

/// What listens to a connection.
pub(super) struct Futures {
    /// The channels of a product, in the order of [`FEEDS`].
    by_product: BySymbol<{ FEEDS.len() }>,
    channels: Vec<Followed>,
    fields: Fields<FuturesMembers>,
    hasher: ahash::RandomState,
}

struct Followed {
    product: Box<str>,
    state: State,
}

/// How far a channel has come.
type State = follow::State<Named, Chain>;

/// Trades, and the names that they had.
#[derive(Clone, Debug, Default)]
struct Named {
    trades: Trades,
    lately: Lately,
}

impl Futures {
    /// What listens to a connection with these channels.
    pub(super) fn new(channels: &[Channel]) -> Futures {
        let followed = |channel: &Channel| Followed { product: channel.symbol().into(), state: State::of(channel.tells) };
        Futures {
            by_product: by_symbol(channels, FEEDS),
            channels: channels.iter().map(followed).collect(),
            fields: Fields::default(),
            hasher: ahash::RandomState::new(),
        }
    }

    fn channel(&self, product: &str, feed: &str) -> Option<usize> {
        let at = FEEDS.iter().position(|known| *known == feed)?;
        self.by_product.get(product)?[at]
    }

    /// What the venue says of itself.
    fn event(&self, frame: &[u8], event: &[u8]) -> Said {
        match event {
            b"subscribed" => match serde_json::from_slice::<Acknowledgement<'_>>(frame) {
                Ok(Acknowledgement { feed, product_ids }) => {
                    Said::Listening(product_ids.iter().filter_map(|product| self.channel(product, &feed)).collect())
                }
                Err(_) => Said::Other,
            },
            b"error" | b"alert" | b"subscribed_failed" | b"unsubscribed_failed" => Said::Refused,
            _ => Said::Nothing,
        }
    }
}

impl Protocol for Futures {
    fn hear(&mut self, over: Over, frame: &[u8], orders: &mut Vec<Order>) -> Said {
        if self.fields.frame(frame).is_err() {
            return Said::Other;
        }
        let event = Event { text: frame, fields: &self.fields };
        if let Some(said) = event.get("event") {
            return self.event(frame, said.of(frame));
        }
        let text = |name| event.get(name).and_then(|text| std::str::from_utf8(text.of(frame)).ok());
        let (feed, product) = (text("feed").unwrap_or_default(), text("product_id").unwrap_or_default());
        let (feed, whole) = match feed {
            "heartbeat" | "trade_snapshot" => return Said::Nothing,
            "book_snapshot" => ("book", true),
            other => (other, false),
        };
        let Some(channel) = self.channel(product, feed) else { return Said::Other };
        let number = event.integer("seq").ok().and_then(|number| u64::try_from(number).ok());
        let time = |name| event.integer(name).unwrap_or_default().saturating_mul(MILLISECOND);
        let state = &mut self.channels[channel].state;
        let anew = matches!(state, State::Book(_));
        let heard = match (state, number) {
            (State::Trades(Named { trades, lately }), Some(number)) => {
                let heard = trades.hear(over, Last { number, time: time("time") });
                if let (Heard::New | Heard::Behind(_), Some(uid)) = (heard, event.get("uid")) {
                    lately.is_new(self.hasher.hash_one(uid.of(frame)));
                }
                heard
            }
            (State::Book(book), Some(number)) => {
                let last = Last { number, time: time("timestamp") };
                if whole { book.snapshot(over.line, last) } else { book.change(over.line, number.saturating_sub(1), last) }
            }
            (State::Any, _) | (_, None) => Heard::New,
        };
        heard.said(channel, anew, orders)
    }

    fn fill(&self, channel: usize, hole: &Hole) -> Option<Ask> {
        let product = &self.channels[channel].product;
        // Those before a time are told: those of the hole's last millisecond, too.
        let before = millis(hole.until + MILLISECOND)?;
        let path = format!("/derivatives/api/v3/history?symbol={product}&lastTime={before}");
        Some(Ask { path, topic: format!("{product}@history"), weight: 1 })
    }

    fn filled<'a>(&mut self, channel: usize, hole: &Hole, answer: &'a [u8]) -> Filled<'a> {
        let nothing = || Filled { kept: Cow::Borrowed(&[][..]), rest: None, whole: false };
        let Futures { channels, hasher, .. } = self;
        let (State::Trades(Named { lately, .. }), Some((first, last))) = (&mut channels[channel].state, hole.numbers) else {
            return nothing();
        };
        let time = |past: &Past<'_>| digits::timestamp(past.time.as_bytes());
        let elements = cut::elements(answer, &["history"]);
        let times = elements.iter().filter_map(|trade| time(&serde_json::from_str(trade.get()).ok()?));
        let oldest = times.min().unwrap_or(hole.since);
        // A full answer that does not go back to the hole's beginning has the newest part. Of its oldest millisecond it may lack some: the
        // next answer has all of them.
        let part = elements.len() >= TRADES_AT_ONCE && (hole.since..hole.until).contains(&oldest);
        let from = if part { oldest + MILLISECOND } else { hole.since };
        let mut count = 0;
        let (kept, _) = cut::retain(answer, &["history"], |trade| {
            let Ok(past) = serde_json::from_str::<Past<'_>>(trade.get()) else { return false };
            let missing =
                time(&past).is_some_and(|time| (from..=hole.until).contains(&time)) && lately.is_new(hasher.hash_one(past.uid.as_bytes()));
            count += u64::from(missing);
            missing
        });
        let missing = last - first + 1;
        let rest = (part && count < missing).then(|| Hole { numbers: Some((first, last - count)), since: hole.since, until: oldest });
        Filled { kept, whole: rest.is_some() || count == missing, rest }
    }
}

/// A time as requests have it.
fn millis(time: Micros) -> Option<String> {
    Some(DateTime::from_timestamp_micros(time)?.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests {
    use super::super::tests::futures;
    use super::*;
    use crate::live::testing::hear;
    use crate::live::venue::Wanted;

    const NOTHING: (Said, Vec<String>) = (Said::Nothing, Vec::new());
    const DATA: (Said, Vec<String>) = (Said::Data(0), Vec::new());
    /// A moment in milliseconds.
    const BEGIN: i64 = 1_612_266_300_000;

    /// A trade whose number is also its name and its millisecond.
    fn trade(number: i64) -> String {
        let time = BEGIN + number;
        format!(
            r#"{{"feed":"trade","product_id":"PF_XBTUSD","uid":"name-{number}","side":"sell","type":"fill","seq":{number},"time":{time},"qty":0.015,"price":34969.5}}"#
        )
    }

    /// The answer that has these trades, each at its own millisecond, newest first.
    fn answer(numbers: impl DoubleEndedIterator<Item = i64>) -> String {
        answer_at(numbers.map(|number| (number, number)))
    }

    /// The answer that has these trades, each at a millisecond, newest first.
    fn answer_at(trades: impl DoubleEndedIterator<Item = (i64, i64)>) -> String {
        let past = |(number, time): (i64, i64)| {
            let time = millis(at(time)).unwrap();
            format!(r#"{{"time":"{time}","trade_id":{number},"price":40000,"size":0.5,"side":"sell","type":"fill","uid":"name-{number}"}}"#)
        };
        let trades: Vec<String> = trades.rev().map(past).collect();
        format!(r#"{{"result":"success","history":[{}],"serverTime":"2022-03-16T12:33:00.000Z"}}"#, trades.join(","))
    }

    fn change(number: u64, time: i64) -> String {
        let time = BEGIN + time;
        format!(r#"{{"feed":"book","product_id":"PF_XBTUSD","side":"sell","seq":{number},"price":34981.0,"qty":0.5,"timestamp":{time}}}"#)
    }

    fn snapshot(number: u64, time: i64) -> String {
        let time = BEGIN + time;
        format!(
            r#"{{"feed":"book_snapshot","product_id":"PF_XBTUSD","timestamp":{time},"seq":{number},"tickSize":null,"bids":[{{"price":34892.5,"qty":0.6385}}],"asks":[]}}"#
        )
    }

    fn at(millisecond: i64) -> Micros {
        (BEGIN + millisecond) * MILLISECOND
    }

    #[test]
    fn a_book_is_subscribed_to_anew_where_a_change_is_missing() {
        let mut one = futures(&[Wanted::Book]);
        assert_eq!(hear(&mut *one, 1, &change(5, 1)), NOTHING, "it has not begun");
        assert_eq!(hear(&mut *one, 1, &snapshot(10, 1)), DATA);
        assert_eq!(hear(&mut *one, 1, &change(11, 2)), DATA);
        assert_eq!(hear(&mut *one, 1, &change(11, 2)), NOTHING);
        let hole = vec![format!("gap Some((12, 12)) {} {}", at(2), at(3)), "resubscribe 0".to_owned()];
        assert_eq!(hear(&mut *one, 1, &change(13, 3)), (Said::Data(0), hole));
        assert_eq!(hear(&mut *one, 1, &change(12, 3)), NOTHING, "it comes too late");
        assert_eq!(hear(&mut *one, 1, &change(15, 4)), DATA, "it is known that it is broken");
        assert_eq!(hear(&mut *one, 1, &snapshot(15, 4)), DATA);
        assert_eq!(hear(&mut *one, 2, &change(16, 5)), NOTHING, "the other connection has not begun it");
        assert_eq!(hear(&mut *one, 2, &snapshot(16, 5)), DATA);
        assert_eq!(hear(&mut *one, 1, &change(17, 6)), NOTHING);
        assert_eq!(hear(&mut *one, 1, &snapshot(17, 6)), NOTHING);
        assert_eq!(hear(&mut *one, 2, &change(17, 6)), DATA);
        one.taken_over();
        assert_eq!(hear(&mut *one, 3, &change(18, 7)), NOTHING);
        assert_eq!(hear(&mut *one, 3, &snapshot(18, 7)), DATA);
    }

    #[test]
    fn missing_trades_are_those_whose_names_were_not_heard() {
        let mut one = futures(&[Wanted::Trade]);
        assert_eq!(hear(&mut *one, 0, &trade(1)), DATA);
        one.taken_over();
        assert_eq!(hear(&mut *one, 1, &trade(2)), DATA);
        assert_eq!(hear(&mut *one, 2, &trade(2)), NOTHING, "two connections overlap");
        assert_eq!(hear(&mut *one, 2, &trade(9)), (Said::Data(0), vec![format!("gap Some((3, 8)) {} {}", at(2), at(9))]));
        assert_eq!(hear(&mut *one, 2, &trade(8)), NOTHING, "it is asked for already");
        assert_eq!(hear(&mut *one, 2, &trade(10)), DATA);
        let hole = Hole { numbers: Some((3, 8)), since: at(2), until: at(9) };
        let ask = one.fill(0, &hole).unwrap();
        assert_eq!(ask.path, "/derivatives/api/v3/history?symbol=PF_XBTUSD&lastTime=2021-02-02T11:45:00.010Z");
        assert_eq!(ask.topic, "PF_XBTUSD@history");
        let (all, kept) = (answer(0..=10), answer(3..=8));
        assert_eq!(one.filled(0, &hole, all.as_bytes()), Filled { kept: kept.into_bytes().into(), rest: None, whole: true });
        let nothing = Filled { kept: b""[..].into(), rest: None, whole: false };
        assert_eq!(one.filled(0, &hole, all.as_bytes()), nothing, "they were there");
        assert_eq!(one.filled(0, &hole, b"{}"), nothing);
    }

    #[test]
    fn a_long_hole_is_asked_for_backwards_part_by_part() {
        let mut one = futures(&[Wanted::Trade]);
        hear(&mut *one, 1, &trade(1));
        hear(&mut *one, 1, &trade(152));
        let hole = Hole { numbers: Some((2, 151)), since: at(1), until: at(152) };
        // The answer's oldest millisecond has two trades, of which it has one.
        let at_once = |number: i64| (number, if number == 52 { 53 } else { number });
        let (newest, kept) = (answer_at((53..=152).map(at_once)), answer(54..=151));
        let rest = Hole { numbers: Some((2, 53)), since: at(1), until: at(53) };
        assert_eq!(one.filled(0, &hole, newest.as_bytes()), Filled { kept: kept.into_bytes().into(), rest: Some(rest), whole: true });
        let (before, kept) = (answer_at((0..=53).map(at_once)), answer_at((2..=53).map(at_once)));
        assert_eq!(one.filled(0, &rest, before.as_bytes()), Filled { kept: kept.into_bytes().into(), rest: None, whole: true });
        // A hundred trades of one millisecond: no time tells where to go on.
        hear(&mut *one, 1, &trade(400));
        let hole = Hole { numbers: Some((153, 399)), since: at(152), until: at(400) };
        let crowd = answer_at((300..=399).map(|number| (number, 400)));
        assert_eq!(one.filled(0, &hole, crowd.as_bytes()), Filled { kept: crowd.as_bytes().into(), rest: None, whole: false });
    }

    #[test]
    fn acknowledgements_and_refusals_are_told_apart() {
        let mut one = futures(&[Wanted::Trade, Wanted::Book, Wanted::FundingRate]);
        let ticker = r#"{"time":1676393235406,"product_id":"PF_XBTUSD","feed":"ticker","bid":21978.5,"ask":21987.0,"bid_size":2536.0,"ask_size":13948.0,"index":21984.54,"markPrice":21979.68641534714,"openInterest":30072580.0}"#;
        for (frame, said) in [
            (r#"{"event":"info","version":1}"#, Said::Nothing),
            (r#"{"event":"subscribed","feed":"trade","product_ids":["PF_XBTUSD"]}"#, Said::Listening(vec![0])),
            (r#"{"event":"subscribed","feed":"book","product_ids":["PF_ETHUSD","PF_XBTUSD"]}"#, Said::Listening(vec![1])),
            (r#"{"event":"subscribed","feed":"ticker","product_ids":["PF_XBTUSD"]}"#, Said::Listening(vec![2])),
            (r#"{"event":"unsubscribed","feed":"book","product_ids":["PF_XBTUSD"]}"#, Said::Nothing),
            (r#"{"event":"alert","message":"Bad request"}"#, Said::Refused),
            (r#"{"event":"error","message":"Invalid product id"}"#, Said::Refused),
            (r#"{"event":"subscribed_failed","feed":"book"}"#, Said::Refused),
            (r#"{"feed":"trade_snapshot","product_id":"PF_XBTUSD","trades":[]}"#, Said::Nothing),
            (r#"{"feed":"heartbeat","time":1534262350627}"#, Said::Nothing),
            (ticker, Said::Data(2)),
            (&*ticker.replace("PF_XBTUSD", "PI_XBTUSD"), Said::Other),
            (&*trade(1).replace(r#""seq":1,"#, ""), Said::Data(0)),
            ("{}", Said::Other),
            ("nonsense", Said::Other),
        ] {
            assert_eq!(hear(&mut *one, 1, frame), (said, vec![]), "{frame}");
        }
    }
}
