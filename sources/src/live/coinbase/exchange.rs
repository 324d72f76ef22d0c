//! Exchange.
//!
//! What must hold on its channels:
//!
//! - **Trades** have numbers without holes. A hole is asked for (`trades`), its newest part first, because the venue tells the past
//!   backwards. The last trade before the subscription, with which it begins, is dropped.
//! - **What products are** comes every few seconds, of all products at once, and is kept where it differs from what came before it.
//! - Tickers need no following: the same one is the same over every connection.

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::super::cut;
use super::super::follow::{Last, Trades};
use super::super::venue::{Ask, BySymbol, Channel, Filled, Hole, Order, Over, Protocol, Said, Tells, by_symbol};
use super::{STATUS, TRADES_AT_ONCE, past};
use crate::dialect::coinbase::Names;
use crate::dialect::digits;
use crate::dialect::fields::{Event, Fields};

/// The channels of a product.
const KINDS: [&str; 2] = ["matches", "ticker"];

/// What names a channel of these products.
fn channel(kind: &str, products: &[&str]) -> Json {
    if kind == STATUS { json!({ "name": kind }) } else { json!({ "name": kind, "product_ids": products }) }
}

/// What subscribes to channels, and to heartbeats of one product where the connection is new.
pub(super) fn subscribe(kinds: &[(&str, Vec<&str>)], new: bool) -> String {
    let mut channels: Vec<Json> = kinds.iter().map(|(kind, products)| channel(kind, products)).collect();
    let product = kinds.iter().find(|(kind, _)| *kind != STATUS).and_then(|(_, products)| products.first());
    channels.extend(product.filter(|_| new).map(|product| channel("heartbeat", &[product])));
    json!({ "type": "subscribe", "channels": channels }).to_string()
}

/// What ends the subscription to a channel of a product.
pub(super) fn unsubscribe(kind: &str, product: &str) -> String {
    json!({ "type": "unsubscribe", "channels": [channel(kind, &[product])] }).to_string()
}

/// An acknowledgement: all that is subscribed to by now.
#[derive(Deserialize)]
struct Acknowledged {
    channels: Vec<Subscribed>,
}

#[derive(Deserialize)]
struct Subscribed {
    name: String,
    #[serde(default)]
    product_ids: Vec<String>,
}

/// What listens to a connection.
pub(super) struct Exchange {
    /// The channels of a product, in the order of [`KINDS`].
    by_product: BySymbol<{ KINDS.len() }>,
    status: Option<usize>,
    /// The product of each channel, and its trades where it tells of them.
    channels: Vec<(Box<str>, Option<Trades>)>,
    /// The hash of what products are.
    products: Option<u64>,
    fields: Fields<Names>,
    hasher: ahash::RandomState,
}

impl Exchange {
    /// What listens to a connection with these channels.
    pub(super) fn new(channels: &[Channel]) -> Exchange {
        let followed = |channel: &Channel| (channel.symbol().into(), (channel.tells == Tells::Trades).then(Trades::default));
        Exchange {
            by_product: by_symbol(channels, KINDS),
            status: channels.iter().position(|channel| channel.name == STATUS),
            channels: channels.iter().map(followed).collect(),
            products: None,
            fields: Fields::default(),
            hasher: ahash::RandomState::new(),
        }
    }

    /// The channel of a frame that names its product.
    fn channel(&self, kind: usize, frame: &[u8]) -> Option<usize> {
        let product = Event { text: frame, fields: &self.fields }.get("product_id")?;
        self.by_product.get(std::str::from_utf8(product.of(frame)).ok()?)?[kind]
    }

    /// Hears a trade.
    fn trade(&mut self, over: Over, frame: &[u8], orders: &mut Vec<Order>) -> Said {
        let Some(channel) = self.channel(0, frame) else { return Said::Other };
        let event = Event { text: frame, fields: &self.fields };
        let number = event.integer("trade_id").ok().and_then(|number| u64::try_from(number).ok());
        let time = event.get("time").and_then(|time| digits::timestamp(time.of(frame)));
        match (&mut self.channels[channel].1, number, time) {
            (Some(trades), Some(number), Some(time)) => trades.hear(over, Last { number, time }).said(channel, false, orders),
            _ => Said::Data(channel),
        }
    }

    /// The channels that an acknowledgement says are there.
    fn acknowledged(&self, frame: &[u8]) -> Said {
        let Ok(Acknowledged { channels }) = serde_json::from_slice(frame) else { return Said::Other };
        let mut there = Vec::new();
        for Subscribed { name, product_ids } in channels {
            if name == STATUS {
                there.extend(self.status);
            } else if let Some(kind) = KINDS.iter().position(|known| *known == name) {
                there.extend(product_ids.iter().filter_map(|product| self.by_product.get(&**product)?[kind]));
            }
        }
        Said::Listening(there)
    }
}

impl Protocol for Exchange {
    fn hear(&mut self, over: Over, frame: &[u8], orders: &mut Vec<Order>) -> Said {
        if self.fields.frame(frame).is_err() {
            return Said::Other;
        }
        let kind = Event { text: frame, fields: &self.fields }.get("type").map(|kind| kind.of(frame));
        match kind {
            Some(b"match") => self.trade(over, frame, orders),
            Some(b"last_match" | b"heartbeat") => Said::Nothing,
            Some(b"ticker") => self.channel(1, frame).map_or(Said::Other, Said::Data),
            Some(b"status") => {
                let Some(status) = self.status else { return Said::Other };
                let products = self.hasher.hash_one(frame);
                if self.products.replace(products) == Some(products) { Said::Nothing } else { Said::Data(status) }
            }
            Some(b"subscriptions") => self.acknowledged(frame),
            Some(b"error") => Said::Refused,
            _ => Said::Other,
        }
    }

    fn fill(&self, channel: usize, hole: &Hole) -> Option<Ask> {
        let (first, last) = part(hole)?;
        let product = &self.channels[channel].0;
        let (behind, count) = (last + 1, last - first + 1);
        Some(Ask {
            path: format!("/products/{product}/trades?after={behind}&limit={count}"),
            topic: format!("{product}@trades"),
            weight: 1,
        })
    }

    fn filled<'a>(&mut self, _channel: usize, hole: &Hole, answer: &'a [u8]) -> Filled<'a> {
        cut::numbered(answer, &[], hole, part(hole).unwrap_or_default(), |trade| past(trade).map(|past| past.number))
    }
}

/// The part of a hole that is asked for: the newest that one request can give.
fn part(hole: &Hole) -> Option<(u64, u64)> {
    let (first, last) = hole.numbers?;
    Some((first.max((last + 1).saturating_sub(TRADES_AT_ONCE)), last))
}

#[cfg(test)]
mod tests {
    use super::super::tests::exchange;
    use super::*;
    use crate::live::testing::hear;
    use crate::live::venue::Wanted;

    const NOTHING: (Said, Vec<String>) = (Said::Nothing, Vec::new());
    const DATA: (Said, Vec<String>) = (Said::Data(0), Vec::new());
    /// 2024-08-09T00:00:00Z, in microseconds.
    const DAY: i64 = 1_723_161_600_000_000;

    /// A trade, made at the second of its number.
    fn trade(kind: &str, product: &str, id: u64) -> String {
        format!(
            r#"{{"type":"{kind}","trade_id":{id},"maker_order_id":"2a0da34e-61f7-4c36-88e5-c9dd15927b16","taker_order_id":"3c82abaa-c01e-4608-be59-6a1e69742891","side":"sell","size":"985","price":"0.00001305","product_id":"{product}","sequence":177100030,"time":"2024-08-09T00:00:{id:02}Z"}}"#
        )
    }

    fn matched(id: u64) -> String {
        trade("match", "BTC-USD", id)
    }

    #[test]
    fn missing_trades_are_noticed_and_those_of_the_past_dropped() {
        let mut one = exchange(&["BTC-USD", "ETH-USD"], &[Wanted::Trade]);
        assert_eq!(hear(&mut *one, 1, &trade("last_match", "BTC-USD", 4)), NOTHING);
        assert_eq!(hear(&mut *one, 1, &matched(5)), DATA);
        assert_eq!(hear(&mut *one, 2, &matched(5)), NOTHING, "two connections overlap");
        assert_eq!(hear(&mut *one, 2, &matched(6)), DATA);
        let hole = vec![format!("gap Some((7, 8)) {} {}", DAY + 6_000_000, DAY + 9_000_000)];
        assert_eq!(hear(&mut *one, 2, &matched(9)), (Said::Data(0), hole));
        assert_eq!(hear(&mut *one, 1, &matched(8)), NOTHING, "it is asked for already");
        assert_eq!(hear(&mut *one, 1, &trade("match", "ETH-USD", 5)), (Said::Data(1), vec![]));
        assert_eq!(hear(&mut *one, 1, &trade("match", "SOL-USD", 5)), (Said::Other, vec![]));
    }

    #[test]
    fn what_an_earlier_run_heard_is_followed_on() {
        let mut one = exchange(&["BTC-USD"], &[Wanted::Trade]);
        hear(&mut *one, 0, &matched(5));
        one.taken_over();
        assert_eq!(hear(&mut *one, 1, &trade("last_match", "BTC-USD", 6)), NOTHING);
        assert_eq!(hear(&mut *one, 1, &matched(7)).1, [format!("gap Some((6, 6)) {} {}", DAY + 5_000_000, DAY + 7_000_000)]);
    }

    #[test]
    fn missing_trades_are_asked_for_backwards_part_by_part() {
        let mut one = exchange(&["BTC-USD"], &[Wanted::Trade]);
        let hole = |first, last| Hole { numbers: Some((first, last)), since: DAY, until: DAY + 9 };
        let ask = one.fill(0, &hole(7, 2_500)).unwrap();
        assert_eq!((&*ask.path, &*ask.topic), ("/products/BTC-USD/trades?after=2501&limit=1000", "BTC-USD@trades"));
        assert_eq!(one.fill(0, &hole(7, 9)).unwrap().path, "/products/BTC-USD/trades?after=10&limit=3");
        let answer = |ids: std::ops::RangeInclusive<u64>| {
            let past = |id| format!(r#"{{"trade_id":{id},"side":"buy","size":"0.25","price":"9.99","time":"2024-08-09T00:00:00Z"}}"#);
            format!("[{}]", ids.rev().map(past).collect::<Vec<_>>().join(","))
        };
        let (whole, more, short) = (answer(1_501..=2_500), answer(5..=11), answer(8..=9));
        let rest = Some(hole(7, 1_500));
        assert_eq!(one.filled(0, &hole(7, 2_500), whole.as_bytes()), Filled { kept: whole.as_bytes().into(), rest, whole: true });
        let cut = Filled { kept: answer(7..=9).into_bytes().into(), rest: None, whole: true };
        assert_eq!(one.filled(0, &hole(7, 9), more.as_bytes()), cut);
        assert_eq!(one.filled(0, &hole(7, 9), short.as_bytes()), Filled { kept: short.as_bytes().into(), rest: None, whole: false });
        assert_eq!(one.filled(0, &hole(7, 9), b"[]"), Filled { kept: b""[..].into(), rest: None, whole: false });
    }

    #[test]
    fn acknowledgements_refusals_and_states_are_told_apart() {
        let mut one = exchange(&["BTC-USD"], &[Wanted::Trade, Wanted::Quote, Wanted::VenueStatus]);
        let heard = |one: &mut dyn Protocol, frame: &str| hear(one, 1, frame).0;
        let channels = r#"{"name":"ticker","product_ids":["BTC-USD","ETH-USD"],"account_ids":null},{"name":"heartbeat","product_ids":["BTC-USD"],"account_ids":null}"#;
        assert_eq!(heard(&mut *one, &format!(r#"{{"type":"subscriptions","channels":[{channels}]}}"#)), Said::Listening(vec![1]));
        let all =
            r#"{"type":"subscriptions","channels":[{"name":"matches","product_ids":["BTC-USD"]},{"name":"status","product_ids":[]}]}"#;
        assert_eq!(heard(&mut *one, all), Said::Listening(vec![0, 2]));
        let heartbeat =
            r#"{"type":"heartbeat","last_trade_id":17,"product_id":"BTC-USD","sequence":90,"time":"2014-11-07T08:19:28.464459Z"}"#;
        assert_eq!(heard(&mut *one, heartbeat), Said::Nothing);
        assert_eq!(heard(&mut *one, r#"{"type":"error","message":"Failed to subscribe","reason":"no such product"}"#), Said::Refused);
        assert_eq!(heard(&mut *one, r#"{"type":"ticker","product_id":"BTC-USD","best_bid":"1"}"#), Said::Data(1));
        assert_eq!(heard(&mut *one, r#"{"type":"ticker","product_id":"ETH-USD","best_bid":"1"}"#), Said::Other);
        let status = |state: &str| format!(r#"{{"type":"status","products":[{{"id":"BTC-USD","status":"{state}"}}],"currencies":[]}}"#);
        assert_eq!(heard(&mut *one, &status("online")), Said::Data(2));
        assert_eq!(heard(&mut *one, &status("online")), Said::Nothing);
        assert_eq!(heard(&mut *one, &status("delisted")), Said::Data(2));
        assert_eq!(heard(&mut *one, r#"[{"id":"BTC-USD"}]"#), Said::Other);
        assert_eq!(heard(&mut *one, "nonsense"), Said::Other);
    }
}
