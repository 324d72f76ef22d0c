//! Bybit: a market made up, as its linear perpetual `BTCUSDT`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::{Value, json};

use super::market::{BEGIN, Book, Happening, Known, Market, Trade, fixed};
use super::{Event, Reply, Speaks};

const SYMBOL: &str = "BTCUSDT";
/// An instrument that is listed and refused.
const DEAD: &str = "ETHUSDT";
/// The topics, as far as something is sent.
const BOOK: &str = "orderbook.200.BTCUSDT";
const TRADES: &str = "publicTrade.BTCUSDT";
/// The most trades that an answer has.
const MOST: usize = 1_000;
const CONNECTION: &str = "cejreaspqfh3sjdnldmg-p";

/// Bybit with one instrument.
pub struct Bybit {
    known: Known,
    /// Whether it lists an instrument that it tells nothing of.
    dead: bool,
    /// How many answers list nothing else.
    unlisted: AtomicUsize,
    /// The base asset of the market, as the venue lists it.
    base: &'static str,
}

impl Bybit {
    /// A venue at which this market happens.
    pub fn new(market: Market) -> Bybit {
        Bybit { known: Known::new(market), dead: false, unlisted: AtomicUsize::new(0), base: "BTC" }
    }

    /// The same beside an instrument that is listed and refused.
    pub fn beside_a_dead_one(market: Market) -> Bybit {
        Bybit { dead: true, ..Bybit::new(market) }
    }

    /// The same, and the market is listed from the third answer on, with a base asset that its symbol does not tell: `XBT`.
    pub fn listed_late(market: Market) -> Bybit {
        Bybit { unlisted: AtomicUsize::new(2), base: "XBT", ..Bybit::beside_a_dead_one(market) }
    }

    /// The venue's name of a trade. It tells no order.
    pub fn trade_id(number: u64) -> String {
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        format!("{:08x}-{:04x}-5b31-9112-{number:012x}", mixed >> 32, mixed & 0xFFFF)
    }
}

fn side(trade: &Trade) -> &'static str {
    if trade.bought { "Buy" } else { "Sell" }
}

fn levels(levels: &[(u64, u64)]) -> Vec<Value> {
    levels.iter().map(|(price, size)| json!([fixed(*price, 1), if *size == 0 { "0".to_owned() } else { fixed(*size, 3) }])).collect()
}

fn book(kind: &str, number: u64, time: u64, bids: &[(u64, u64)], asks: &[(u64, u64)]) -> String {
    let data = json!({ "s": SYMBOL, "b": levels(bids), "a": levels(asks), "u": number, "seq": 7_961_638_724 + number });
    json!({ "topic": BOOK, "type": kind, "ts": time + 2, "data": data, "cts": time }).to_string()
}

fn snapshot(stands: &Book) -> String {
    book("snapshot", stands.number, stands.time, &stands.bids(), &stands.asks())
}

fn trade(trade: &Trade) -> String {
    let data = json!({
        "T": trade.time, "s": SYMBOL, "S": side(trade), "v": fixed(trade.quantity, 3), "p": fixed(trade.price, 1), "L": "PlusTick",
        "i": Bybit::trade_id(trade.number), "BT": false, "RPI": false, "seq": 7_961_638_724 + trade.time - BEGIN,
    });
    json!({ "topic": TRADES, "type": "snapshot", "ts": trade.time + 3, "data": [data] }).to_string()
}

fn past(trade: &Trade) -> Value {
    json!({
        "execId": Bybit::trade_id(trade.number), "symbol": SYMBOL, "price": fixed(trade.price, 1), "size": fixed(trade.quantity, 3),
        "side": side(trade), "time": trade.time.to_string(), "isBlockTrade": false, "isRPITrade": false,
        "seq": (7_961_638_724 + trade.time - BEGIN).to_string(),
    })
}

/// What the venue says of a perpetual in USDT.
fn listing(symbol: &str, base: &str) -> Value {
    json!({
        "symbol": symbol, "symbolId": 5, "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": base,
        "quoteCoin": "USDT", "launchTime": "1585526400000", "deliveryTime": "0", "deliveryFeeRate": "", "priceScale": "2",
        "leverageFilter": { "minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01" },
        "priceFilter": { "minPrice": "0.10", "maxPrice": "1999999.80", "tickSize": "0.10" },
        "lotSizeFilter": {
            "maxOrderQty": "1190.000", "minOrderQty": "0.001", "qtyStep": "0.001", "postOnlyMaxOrderQty": "1190.000",
            "maxMktOrderQty": "500.000", "minNotionalValue": "5",
        },
        "unifiedMarginTrade": true, "fundingInterval": 480, "settleCoin": "USDT", "copyTrading": "both", "upperFundingRate": "0.00375",
        "lowerFundingRate": "-0.00375", "isPreListing": false, "preListingInfo": null,
        "riskParameters": { "priceLimitRatioX": "0.01", "priceLimitRatioY": "0.02" }, "symbolType": "",
    })
}

fn answer(result: Value, time: u64) -> String {
    json!({ "retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": time }).to_string()
}

impl Speaks for Bybit {
    fn events(&self) -> Vec<Event> {
        let event = |happening: &Happening| {
            let (topic, frame) = match happening {
                Happening::Trade(happened) => (TRADES, trade(happened)),
                Happening::Change(happened) => (BOOK, book("delta", happened.number, happened.time, &happened.bids, &happened.asks)),
            };
            Event { channel: topic.to_owned(), frame }
        };
        self.known.market.happenings.iter().map(event).collect()
    }

    fn played(&mut self, _event: &Event) {
        self.known.happens();
    }

    fn said(&self, text: &str) -> Reply {
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        let operation = message["op"].as_str().unwrap_or_default();
        if operation == "ping" {
            let pong = json!({ "success": true, "ret_msg": "pong", "conn_id": CONNECTION, "req_id": "", "op": "ping" });
            return Reply { answers: vec![pong.to_string()], ..Reply::default() };
        }
        let topics = || message["args"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        // One topic that is not there spoils them all.
        let dead = topics().find(|topic| topic.ends_with(DEAD));
        let known = matches!(operation, "subscribe" | "unsubscribe") && dead.is_none();
        let outcome = match dead {
            Some(topic) => format!("error:handler not found,topic:{topic}"),
            None => (if known { "" } else { "unknown operation" }).to_owned(),
        };
        let acknowledgement =
            json!({ "success": known, "ret_msg": outcome, "conn_id": CONNECTION, "req_id": message["req_id"], "op": operation });
        let begins = |topic: String| {
            let frames = if topic == BOOK { vec![snapshot(&self.known.book)] } else { Vec::new() };
            (topic, frames)
        };
        Reply {
            begins: if operation == "subscribe" && known { topics().map(begins).collect() } else { Vec::new() },
            ends: if operation == "unsubscribe" { topics().collect() } else { Vec::new() },
            acknowledgements: vec![acknowledgement.to_string()],
            answers: Vec::new(),
        }
    }

    fn answer(&self, path: &str, query: &BTreeMap<String, String>) -> Option<String> {
        if query.get("category").map(String::as_str) != Some("linear") {
            return None;
        }
        let time = self.known.book.time + 100;
        match path {
            "/v5/market/instruments-info" => {
                let is_listed = self.unlisted.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err();
                let (dead, one) = (self.dead.then(|| listing(DEAD, "ETH")), is_listed.then(|| listing(SYMBOL, self.base)));
                let list: Vec<Value> = dead.into_iter().chain(one).collect();
                Some(answer(json!({ "category": "linear", "nextPageCursor": "", "list": list }), time))
            }
            "/v5/market/recent-trade" if query.get("symbol").map(String::as_str) == Some(SYMBOL) => {
                let limit: usize = query.get("limit")?.parse().ok().filter(|limit| *limit <= MOST)?;
                let list: Vec<Value> = self.known.trades.iter().rev().take(limit).map(past).collect();
                Some(answer(json!({ "category": "linear", "list": list }), time))
            }
            _ => None,
        }
    }

    fn stale(&self, path: &str, _query: &BTreeMap<String, String>) -> Option<String> {
        (path == "/v5/market/recent-trade").then(|| answer(json!({ "category": "linear", "list": [] }), BEGIN))
    }
}
