//! OKX: a market made up, as its spot pair `BTC-USDT`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::market::{Book, Change, Happening, Known, Market, Trade, crc32, fixed, price_text, size_text};
use super::{Event, Reply, Speaks};

/// The venue's id of the instrument.
const ID: &str = "BTC-USDT";
/// An instrument that is listed and refused.
const DEAD: &str = "ETH-USDT";
/// The most trades that an answer has.
const MOST: usize = 100;

/// OKX with one instrument.
pub struct Okx {
    known: Known,
    /// Whether books carry checksums, as they did once; zero stands for none.
    sums: bool,
    /// Whether it lists an instrument that it tells nothing of.
    dead: bool,
}

impl Okx {
    /// A venue at which this market happens.
    pub fn new(market: Market) -> Okx {
        Okx { known: Known::new(market), sums: false, dead: false }
    }

    /// The same with checksums.
    pub fn with_checksums(market: Market) -> Okx {
        Okx { sums: true, ..Okx::new(market) }
    }

    /// The same beside an instrument that is listed and refused.
    pub fn beside_a_dead_one(market: Market) -> Okx {
        Okx { dead: true, ..Okx::new(market) }
    }

    /// The checksum of a book: CRC-32, with sign, of the best 25 levels, bids and asks by turns.
    fn checksum(&self, book: &Book) -> i32 {
        if !self.sums {
            return 0;
        }
        let (bids, asks) = (book.bids(), book.asks());
        let level = |(price, size): &(u64, u64)| format!("{}:{}", price_text(*price), size_text(*size));
        let words: Vec<String> = (0..25).flat_map(|i| [bids.get(i), asks.get(i)]).flatten().map(level).collect();
        crc32(&words.join(":")).cast_signed()
    }

    fn snapshot(&self) -> String {
        let book = &self.known.book;
        let data = json!({
            "asks": levels(&book.asks()), "bids": levels(&book.bids()), "ts": book.time.to_string(), "checksum": self.checksum(book),
            "seqId": sequence(book.number), "prevSeqId": -1,
        });
        json!({ "arg": { "channel": "books", "instId": ID }, "action": "snapshot", "data": [data] }).to_string()
    }
}

/// The name of a channel, from what a client says that it wants.
fn channel(argument: &Value) -> String {
    format!("{} {}", argument["channel"].as_str().unwrap_or_default(), argument["instId"].as_str().unwrap_or_default())
}

/// Numbers of books ascend and have holes.
fn sequence(number: u64) -> u64 {
    79_706_000_000 + number * 7
}

fn trade(trade: &Trade) -> Value {
    json!({
        "instId": ID, "tradeId": trade.number.to_string(), "px": fixed(trade.price, 1), "sz": fixed(trade.quantity, 3),
        "side": if trade.bought { "buy" } else { "sell" }, "source": "0", "ts": trade.time.to_string(),
    })
}

fn levels(levels: &[(u64, u64)]) -> Vec<Value> {
    levels
        .iter()
        .map(|(price, size)| json!([fixed(*price, 1), if *size == 0 { "0".to_owned() } else { fixed(*size, 3) }, "0", "1"]))
        .collect()
}

fn change(change: &Change, checksum: i32) -> String {
    let data = json!({
        "asks": levels(&change.asks), "bids": levels(&change.bids), "ts": change.time.to_string(), "checksum": checksum,
        "seqId": sequence(change.number), "prevSeqId": sequence(change.number - 1),
    });
    json!({ "arg": { "channel": "books", "instId": ID }, "action": "update", "data": [data] }).to_string()
}

/// What the venue says of a pair with USDT.
fn listing(id: &str) -> Value {
    let base = id.split('-').next();
    json!({
        "alias": "", "auctionEndTime": "", "baseCcy": base, "category": "1", "contTdSwTime": "", "ctMult": "", "ctType": "", "ctVal": "",
        "ctValCcy": "", "expTime": "", "futureSettlement": false, "groupId": "1", "instCategory": "1", "instFamily": "", "instId": id,
        "instIdCode": 1_000, "instType": "SPOT", "lever": "10", "listTime": "1548133413000", "lotSz": "0.00000001",
        "maxIcebergSz": "9999999999", "maxLmtAmt": "1000000", "maxLmtSz": "9999999999", "maxMktAmt": "1000000", "maxMktSz": "1000000",
        "maxStopSz": "1000000", "maxTriggerSz": "9999999999", "maxTwapSz": "9999999999", "minSz": "0.00001", "openType": "", "optType": "",
        "preMktSwTime": "", "quoteCcy": "USDT", "ruleType": "normal", "settleCcy": "", "state": "live", "stk": "", "tickSz": "0.1",
        "tradeQuoteCcyList": ["USDT"], "uly": "", "upcChg": [],
    })
}

fn answer(data: Vec<Value>) -> String {
    json!({ "code": "0", "msg": "", "data": data }).to_string()
}

impl Speaks for Okx {
    fn events(&self) -> Vec<Event> {
        let mut now = self.known.market.begins.clone();
        let event = |happening: &Happening| {
            let (name, frame) = match happening {
                Happening::Trade(happened) => {
                    let frame = json!({ "arg": { "channel": "trades-all", "instId": ID }, "data": [trade(happened)] });
                    ("trades-all", frame.to_string())
                }
                Happening::Change(happened) => {
                    now.change(happened);
                    ("books", change(happened, self.checksum(&now)))
                }
            };
            Event { channel: format!("{name} {ID}"), frame }
        };
        self.known.market.happenings.iter().map(event).collect()
    }

    fn connections(&self) -> usize {
        2
    }

    fn played(&mut self, _event: &Event) {
        self.known.happens();
    }

    fn said(&self, text: &str) -> Reply {
        if text == "ping" {
            return Reply { answers: vec!["pong".to_owned()], ..Reply::default() };
        }
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        let arguments = message["args"].as_array().cloned().unwrap_or_default();
        let is_dead = |argument: &Value| argument["instId"] == DEAD;
        let acknowledge = |argument: &Value| {
            if is_dead(argument) {
                let what = format!("Wrong URL or channel:{},instId:{DEAD} doesn't exist.", argument["channel"]);
                return json!({ "event": "error", "code": "60018", "msg": what, "connId": "a4d3ae55" }).to_string();
            }
            json!({ "event": message["op"], "arg": argument, "connId": "a4d3ae55" }).to_string()
        };
        let mut reply = Reply { acknowledgements: arguments.iter().map(acknowledge).collect(), ..Reply::default() };
        match message["op"].as_str() {
            Some("subscribe") => {
                let begins = |argument: &Value| {
                    let frames = if argument["channel"] == "books" { vec![self.snapshot()] } else { Vec::new() };
                    (channel(argument), frames)
                };
                reply.begins = arguments.iter().filter(|argument| !is_dead(argument)).map(begins).collect();
            }
            Some("unsubscribe") => reply.ends = arguments.iter().map(channel).collect(),
            _ => {
                let refusal = json!({ "event": "error", "code": "60012", "msg": format!("Invalid request: {text}"), "connId": "a4d3ae55" });
                reply.acknowledgements = vec![refusal.to_string()];
            }
        }
        reply
    }

    fn answer(&self, path: &str, query: &BTreeMap<String, String>) -> Option<String> {
        let asked = |name: &str| query.get(name).map(String::as_str);
        match path {
            "/api/v5/public/instruments" if asked("instType") == Some("SPOT") => {
                Some(answer(self.dead.then_some(DEAD).into_iter().chain([ID]).map(listing).collect()))
            }
            "/api/v5/market/history-trades" if asked("instId") == Some(ID) && asked("type") == Some("1") => {
                let before: u64 = asked("after")?.parse().ok()?;
                let limit: usize = asked("limit")?.parse().ok().filter(|limit| *limit <= MOST)?;
                Some(answer(self.known.trades.iter().rev().filter(|trade| trade.number < before).take(limit).map(trade).collect()))
            }
            _ => None,
        }
    }

    fn stale(&self, path: &str, _query: &BTreeMap<String, String>) -> Option<String> {
        (path == "/api/v5/market/history-trades").then(|| answer(Vec::new()))
    }

    fn forged(&self, event: &Event) -> Option<String> {
        let (before, sum) = event.frame.split_once(r#""checksum":"#)?;
        let (sum, behind) = sum.split_once(',')?;
        let another = sum.parse::<i32>().ok().filter(|sum| *sum != 0)? ^ 2;
        Some(format!(r#"{before}"checksum":{another},{behind}"#))
    }
}
