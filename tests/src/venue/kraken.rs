//! Kraken: a market made up, as its spot pair `BTC/USD` and as its perpetual `PF_XBTUSD`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::market::{BEGIN, Book, Change, Happening, Known, Market, Trade, crc32, fixed};
use super::{Event, Reply, Speaks};

/// The pair, as the second protocol names it.
const SYMBOL: &str = "BTC/USD";
/// As answers of requests do.
const PAIR: &str = "XXBTZUSD";
/// The most trades that an answer of spot has.
const MOST: usize = 1_000;
/// The perpetual.
const PRODUCT: &str = "PF_XBTUSD";
/// The most trades that an answer of futures has, and the past that a subscription begins with.
const MOST_FUTURES: usize = 100;

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;
/// The day of the market, as RFC 3339 writes it.
const DATE: &str = "2024-08-08";

/// A time of the market's day as RFC 3339 writes it, with so many digits of a second.
fn rfc3339(time: u64, digits: usize) -> String {
    assert_eq!(time / DAY, BEGIN / DAY, "a market ends before midnight");
    let (seconds, millis) = (time % DAY / 1_000, time % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = format!("{millis:03}000");
    format!("{DATE}T{hour:02}:{minute:02}:{second:02}.{}Z", &fraction[..digits])
}

/// The time of the market's day that RFC 3339 writes so, with milliseconds.
fn millis(text: &str) -> Option<u64> {
    let time = text.strip_prefix(DATE)?.strip_prefix('T')?.strip_suffix('Z')?;
    let mut parts = time.split([':', '.']).map(|part| part.parse::<u64>().ok());
    let (hour, minute, second, millis) = (parts.next()??, parts.next()??, parts.next()??, parts.next()??);
    Some(BEGIN / DAY * DAY + ((hour * 60 + minute) * 60 + second) * 1_000 + millis)
}

fn side(trade: &Trade) -> &'static str {
    if trade.bought { "buy" } else { "sell" }
}

/// Spot with one pair.
pub struct Kraken {
    market: Market,
    known: Known,
}

impl Kraken {
    /// A venue at which this market happens.
    pub fn new(market: Market) -> Kraken {
        Kraken { known: Known::new(market.clone()), market }
    }
}

/// A size as spot writes it.
fn size(thousandths: u64) -> String {
    format!("{}00000", fixed(thousandths, 3))
}

/// The checksum of a book: CRC-32 of the best ten asks and bids, as they are written, without points and leading zeros.
fn checksum(book: &Book) -> u32 {
    let bare = |number: String| number.replace('.', "").trim_start_matches('0').to_owned();
    let level = |(price, thousandths): (u64, u64)| bare(fixed(price, 1)) + &bare(size(thousandths));
    let best = |levels: Vec<(u64, u64)>| levels.into_iter().take(10).map(level).collect::<String>();
    crc32(&(best(book.asks()) + &best(book.bids())))
}

fn levels(levels: &[(u64, u64)]) -> String {
    let levels: Vec<String> =
        levels.iter().map(|(price, thousandths)| format!(r#"{{"price":{},"qty":{}}}"#, fixed(*price, 1), size(*thousandths))).collect();
    format!("[{}]", levels.join(","))
}

/// A book, or what of it changed, with the checksum that it has now.
fn book(kind: &str, bids: &[(u64, u64)], asks: &[(u64, u64)], now: &Book) -> String {
    format!(
        r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"{SYMBOL}","bids":{},"asks":{},"checksum":{},"timestamp":"{}"}}]}}"#,
        levels(bids),
        levels(asks),
        checksum(now),
        rfc3339(now.time, 6)
    )
}

fn trade(trade: &Trade) -> String {
    format!(
        r#"{{"channel":"trade","type":"update","data":[{{"symbol":"{SYMBOL}","side":"{}","price":{},"qty":{},"ord_type":"market","trade_id":{},"timestamp":"{}"}}]}}"#,
        side(trade),
        fixed(trade.price, 1),
        size(trade.quantity),
        trade.number,
        rfc3339(trade.time, 6)
    )
}

/// A time in seconds, as requests have it.
fn seconds(time: u64) -> String {
    format!("{}.{:03}0000", time / 1_000, time % 1_000)
}

fn past(trade: &Trade) -> String {
    let side = if trade.bought { "b" } else { "s" };
    format!(r#"["{}0000","{}",{},"{side}","m","",{}]"#, fixed(trade.price, 1), size(trade.quantity), seconds(trade.time), trade.number)
}

fn answer(result: &str) -> String {
    format!(r#"{{"error":[],"result":{result}}}"#)
}

impl Speaks for Kraken {
    fn events(&self) -> Vec<Event> {
        let mut now = self.market.begins.clone();
        let event = |happening: &Happening| {
            let (name, frame) = match happening {
                Happening::Trade(happened) => ("trade", trade(happened)),
                Happening::Change(happened) => {
                    now.change(happened);
                    ("book", book("update", &happened.bids, &happened.asks, &now))
                }
            };
            Event { channel: format!("{name} {SYMBOL}"), frame }
        };
        self.market.happenings.iter().map(event).collect()
    }

    fn played(&mut self, _event: &Event) {
        self.known.happens();
    }

    fn said(&self, text: &str) -> Reply {
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        let (method, parameters) = (message["method"].as_str().unwrap_or_default(), &message["params"]);
        let (time_in, time_out) = ("2024-08-08T23:54:10.742599Z", "2024-08-08T23:54:10.742648Z");
        if method == "ping" {
            let pong = json!({ "method": "pong", "req_id": message["req_id"], "time_in": time_in, "time_out": time_out });
            return Reply { answers: vec![pong.to_string()], ..Reply::default() };
        }
        let channel = parameters["channel"].as_str().unwrap_or_default();
        let symbols: Vec<&str> = parameters["symbol"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let known = matches!(method, "subscribe" | "unsubscribe") && matches!(channel, "trade" | "book" | "ticker");
        if !known || symbols != [SYMBOL] || (channel == "book" && parameters["depth"] != 1_000) {
            let refusal = json!({
                "error": format!("Malformed request {text}"), "method": method, "success": false, "time_in": time_in, "time_out": time_out,
            });
            return Reply { acknowledgements: vec![refusal.to_string()], ..Reply::default() };
        }
        let mut result = parameters.clone();
        result["symbol"] = SYMBOL.into();
        let acknowledgement = json!({
            "method": method, "req_id": message["req_id"], "result": result, "success": true, "time_in": time_in, "time_out": time_out,
        });
        let mut reply = Reply { acknowledgements: vec![acknowledgement.to_string()], ..Reply::default() };
        let name = format!("{channel} {SYMBOL}");
        if method == "unsubscribe" {
            reply.ends.push(name);
            return reply;
        }
        let now = &self.known.book;
        let frames = if channel == "book" { vec![book("snapshot", &now.bids(), &now.asks(), now)] } else { Vec::new() };
        reply.begins.push((name, frames));
        reply
    }

    fn answer(&self, path: &str, query: &BTreeMap<String, String>) -> Option<String> {
        match path {
            "/0/public/AssetPairs" => Some(answer(
                &json!({ PAIR: {
                    "altname": "XBTUSD", "wsname": "XBT/USD", "aclass_base": "currency", "base": "XXBT", "aclass_quote": "currency",
                    "quote": "ZUSD", "lot": "unit", "cost_decimals": 5, "pair_decimals": 1, "lot_decimals": 8, "lot_multiplier": 1,
                    "leverage_buy": [2, 3, 4, 5], "leverage_sell": [2, 3, 4, 5], "fees": [[0, 0.4], [10_000, 0.35]],
                    "fees_maker": [[0, 0.25], [10_000, 0.2]], "fee_volume_currency": "ZUSD", "margin_call": 80, "margin_stop": 40,
                    "ordermin": "0.00005", "costmin": "0.5", "tick_size": "0.1", "status": "online", "long_position_limit": 300,
                    "short_position_limit": 240,
                } })
                .to_string(),
            )),
            "/0/public/Trades" if query.get("pair").map(String::as_str) == Some("XBTUSD") => {
                let since: u64 = query.get("since")?.parse().ok()?;
                let nanos = |trade: &Trade| trade.time * 1_000_000;
                let behind: Vec<&Trade> = self.known.trades.iter().filter(|trade| nanos(trade) > since).take(MOST).collect();
                let last = behind.last().map_or(since, |trade| nanos(trade));
                let trades: Vec<String> = behind.into_iter().map(past).collect();
                Some(answer(&format!(r#"{{"{PAIR}":[{}],"last":"{last}"}}"#, trades.join(","))))
            }
            _ => Some(json!({ "error": ["EQuery:Unknown asset pair"] }).to_string()),
        }
    }

    fn stale(&self, path: &str, _query: &BTreeMap<String, String>) -> Option<String> {
        (path == "/0/public/Trades").then(|| answer(&format!(r#"{{"{PAIR}":[],"last":"0"}}"#)))
    }

    fn forged(&self, event: &Event) -> Option<String> {
        let (before, sum) = event.frame.split_once(r#""checksum":"#)?;
        let (sum, behind) = sum.split_once(',')?;
        let another = sum.parse::<u32>().ok()? ^ 1;
        Some(format!(r#"{before}"checksum":{another},{behind}"#))
    }
}

/// Futures with one perpetual. A change of its market is of one level.
pub struct KrakenFutures {
    market: Market,
    known: Known,
}

impl KrakenFutures {
    /// A venue at which this market happens.
    pub fn new(market: Market) -> KrakenFutures {
        KrakenFutures { known: Known::new(market.clone()), market }
    }

    /// The venue's name of a trade. It tells no order.
    pub fn trade_id(number: u64) -> String {
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        format!("{:08x}-{:04x}-482a-80a8-{number:012x}", mixed >> 32, mixed & 0xFFFF)
    }
}

fn trade_of_futures(trade: &Trade) -> String {
    format!(
        r#"{{"feed":"trade","product_id":"{PRODUCT}","uid":"{}","side":"{}","type":"fill","seq":{},"time":{},"qty":{},"price":{}}}"#,
        KrakenFutures::trade_id(trade.number),
        side(trade),
        trade.number,
        trade.time,
        fixed(trade.quantity, 3),
        fixed(trade.price, 1)
    )
}

fn past_of_futures(trade: &Trade) -> String {
    format!(
        r#"{{"time":"{}","trade_id":{},"price":{},"size":{},"side":"{}","type":"fill","uid":"{}"}}"#,
        rfc3339(trade.time, 3),
        trade.number % 100,
        fixed(trade.price, 1),
        fixed(trade.quantity, 3),
        side(trade),
        KrakenFutures::trade_id(trade.number)
    )
}

fn change_of_futures(change: &Change) -> String {
    let (side, level) = match (&change.bids[..], &change.asks[..]) {
        ([level], []) => ("buy", level),
        ([], [level]) => ("sell", level),
        _ => unreachable!("a change is of one level"),
    };
    format!(
        r#"{{"feed":"book","product_id":"{PRODUCT}","side":"{side}","seq":{},"price":{},"qty":{},"timestamp":{}}}"#,
        change.number,
        fixed(level.0, 1),
        fixed(level.1, 3),
        change.time
    )
}

fn snapshot_of_futures(book: &Book) -> String {
    let levels = |levels: Vec<(u64, u64)>| {
        let levels: Vec<String> =
            levels.iter().map(|(price, size)| format!(r#"{{"price":{},"qty":{}}}"#, fixed(*price, 1), fixed(*size, 3))).collect();
        levels.join(",")
    };
    format!(
        r#"{{"feed":"book_snapshot","product_id":"{PRODUCT}","timestamp":{},"seq":{},"tickSize":null,"bids":[{}],"asks":[{}]}}"#,
        book.time,
        book.number,
        levels(book.bids()),
        levels(book.asks())
    )
}

impl Speaks for KrakenFutures {
    fn events(&self) -> Vec<Event> {
        let event = |happening: &Happening| {
            let (feed, frame) = match happening {
                Happening::Trade(happened) => ("trade", trade_of_futures(happened)),
                Happening::Change(happened) => ("book", change_of_futures(happened)),
            };
            Event { channel: format!("{feed} {PRODUCT}"), frame }
        };
        self.market.happenings.iter().map(event).collect()
    }

    fn played(&mut self, _event: &Event) {
        self.known.happens();
    }

    fn said(&self, text: &str) -> Reply {
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        let (event, feed) = (message["event"].as_str().unwrap_or_default(), message["feed"].as_str().unwrap_or_default());
        let known = matches!(event, "subscribe" | "unsubscribe") && matches!(feed, "trade" | "book" | "ticker");
        if !known || message["product_ids"] != json!([PRODUCT]) {
            let refusal = json!({ "event": "error", "message": format!("Invalid request: {text}") });
            return Reply { acknowledgements: vec![refusal.to_string()], ..Reply::default() };
        }
        let acknowledgement = json!({ "event": format!("{event}d"), "feed": feed, "product_ids": [PRODUCT] });
        let mut reply = Reply { acknowledgements: vec![acknowledgement.to_string()], ..Reply::default() };
        let name = format!("{feed} {PRODUCT}");
        if event == "unsubscribe" {
            reply.ends.push(name);
            return reply;
        }
        let frames = match feed {
            "book" => vec![snapshot_of_futures(&self.known.book)],
            "trade" => {
                let last: Vec<String> = self.known.trades.iter().rev().take(MOST_FUTURES).map(trade_of_futures).collect();
                vec![format!(r#"{{"feed":"trade_snapshot","product_id":"{PRODUCT}","trades":[{}]}}"#, last.join(","))]
            }
            _ => Vec::new(),
        };
        reply.begins.push((name, frames));
        reply
    }

    fn answer(&self, path: &str, query: &BTreeMap<String, String>) -> Option<String> {
        let now = rfc3339(self.known.book.time + 100, 3);
        match path {
            "/derivatives/api/v3/instruments" => Some(
                json!({ "result": "success", "serverTime": now, "instruments": [{
                    "symbol": PRODUCT, "type": "flexible_futures", "tickSize": 0.1, "contractSize": 1, "tradeable": true,
                    "impactMidSize": 1.0, "maxPositionSize": 1000.0, "openingDate": "2022-03-22T13:18:45Z",
                    "marginLevels": [{ "numNonContractUnits": 0.0, "initialMargin": 0.02, "maintenanceMargin": 0.01 }],
                    "fundingRateCoefficient": 24, "maxRelativeFundingRate": 0.0025, "isin": "GB00BQ84K502",
                    "contractValueTradePrecision": 4, "postOnly": false, "feeScheduleUid": "723888f7-0a8e-4183-8648-f920a22339e3",
                    "mtf": true, "base": "BTC", "quote": "USD", "pair": "BTC:USD",
                }] })
                .to_string(),
            ),
            "/derivatives/api/v3/history" if query.get("symbol").map(String::as_str) == Some(PRODUCT) => {
                let before = millis(query.get("lastTime")?)?;
                let past = self.known.trades.iter().rev().filter(|trade| trade.time < before).take(MOST_FUTURES).map(past_of_futures);
                let history: Vec<String> = past.collect();
                Some(format!(r#"{{"result":"success","history":[{}],"serverTime":"{now}"}}"#, history.join(",")))
            }
            _ => Some(json!({ "result": "error", "error": "contractNotFound", "serverTime": now }).to_string()),
        }
    }

    fn stale(&self, path: &str, _query: &BTreeMap<String, String>) -> Option<String> {
        (path == "/derivatives/api/v3/history").then(|| r#"{"result":"success","history":[]}"#.to_owned())
    }
}
