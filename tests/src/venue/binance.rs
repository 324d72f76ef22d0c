//! Binance, as far as the recordings go.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use super::{Event, Reply, Speaks};

/// Levels of one side by price, as texts: the venue's own spelling is kept.
type Side = BTreeMap<(u64, String), String>;

/// One of Binance's markets with one instrument.
pub struct Binance {
    symbol: String,
    spot: bool,
    events: Vec<Event>,
    /// The book as the recording's snapshot has it, and as it is.
    begins: Book,
    book: Book,
    trades: Vec<Value>,
}

#[derive(Clone, Default)]
struct Book {
    last: u64,
    bids: Side,
    asks: Side,
}

impl Binance {
    /// Reads a recording: lines `NANOSECONDS FRAME` of streams of one instrument, and one snapshot of its book. Changes that the
    /// snapshot contains are left out, so that it is the book before the first.
    ///
    /// # Panics
    /// It cannot be read.
    pub fn read(recording: &Path, symbol: &str, spot: bool) -> Binance {
        let lines = BufReader::new(MultiGzDecoder::new(File::open(recording).expect("the recording is there"))).lines();
        let frames: Vec<Value> = lines
            .map(|line| {
                let line = line.expect("the recording is whole");
                let (_, frame) = line.split_once(' ').expect("a line is a time and a frame");
                serde_json::from_str(frame).expect("a frame is JSON")
            })
            .collect();
        let snapshot = frames.iter().find(|frame| frame["lastUpdateId"].is_u64()).expect("it has a snapshot");
        let begins = Book::of(snapshot);
        let channel = |name: &str| format!("{}@{name}", symbol.to_lowercase());
        let events = frames.iter().filter_map(|frame| {
            let mut data = frame["data"].clone();
            let name = frame["stream"].as_str()?.split('@').nth(1)?;
            let channel = match name {
                "depth" if number(&data["u"]) <= begins.last => return None,
                "depth" => channel("depth@100ms"),
                "trade" if spot => channel("trade"),
                "trade" => {
                    // The recording has single trades; the stream that is subscribed to tells of them under other letters.
                    let id = data["t"].clone();
                    data["e"] = "aggTrade".into();
                    (data["a"], data["f"], data["l"]) = (id.clone(), id.clone(), id);
                    if data["X"].as_str().is_some_and(|kind| kind != "MARKET") {
                        return None;
                    }
                    channel("aggTrade")
                }
                other => channel(other),
            };
            Some(Event { frame: json!({ "stream": channel, "data": data }).to_string(), channel })
        });
        let events = events.collect();
        Binance { symbol: symbol.into(), spot, events, book: begins.clone(), begins, trades: Vec::new() }
    }

    /// The frames of a channel, as they are played.
    pub fn frames(&self) -> impl Iterator<Item = &str> {
        self.events.iter().map(|event| event.frame.as_str())
    }

    /// The book that everything begins with, as the venue answers it.
    pub fn snapshot(&self) -> String {
        self.begins.answer()
    }

    fn is_book(&self, path: &str) -> bool {
        path.ends_with("/depth")
    }
}

impl Book {
    fn of(snapshot: &Value) -> Book {
        let mut book = Book { last: number(&snapshot["lastUpdateId"]), ..Book::default() };
        book.change(&snapshot["bids"], &snapshot["asks"]);
        book
    }

    fn change(&mut self, bids: &Value, asks: &Value) {
        for (levels, side) in [(bids, &mut self.bids), (asks, &mut self.asks)] {
            for level in levels.as_array().into_iter().flatten() {
                let (price, size) = (text(&level[0]), text(&level[1]));
                let key = (ticks(&price), price);
                if ticks(&size) == 0 {
                    side.remove(&key);
                } else {
                    side.insert(key, size);
                }
            }
        }
    }

    fn answer(&self) -> String {
        let level = |((_, price), size): (&(u64, String), &String)| json!([price, size]);
        let bids: Vec<Value> = self.bids.iter().rev().map(level).collect();
        let asks: Vec<Value> = self.asks.iter().map(level).collect();
        json!({ "lastUpdateId": self.last, "bids": bids, "asks": asks }).to_string()
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// A decimal in units of its eighth fraction digit.
fn ticks(text: &str) -> u64 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<8}").parse().expect("a decimal")
}

impl Speaks for Binance {
    fn events(&self) -> Vec<Event> {
        self.events.clone()
    }

    fn played(&mut self, event: &Event) {
        let frame: Value = serde_json::from_str(&event.frame).expect("it was written as JSON");
        let data = &frame["data"];
        match data["e"].as_str() {
            Some("depthUpdate") => {
                self.book.last = number(&data["u"]);
                self.book.change(&data["b"], &data["a"]);
            }
            Some("trade") => self.trades.push(json!({
                "id": data["t"], "price": data["p"], "qty": data["q"], "quoteQty": "0", "time": data["T"],
                "isBuyerMaker": data["m"], "isBestMatch": true,
            })),
            Some("aggTrade") => self.trades.push(json!({
                "a": data["a"], "p": data["p"], "q": data["q"], "f": data["f"], "l": data["l"], "T": data["T"], "m": data["m"],
            })),
            _ => {}
        }
    }

    fn said(&self, text: &str) -> Reply {
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        if message["method"] != "SUBSCRIBE" {
            return Reply::default();
        }
        let names = message["params"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Reply {
            begins: names.map(|name| (name.to_owned(), Vec::new())).collect(),
            acknowledgements: vec![json!({ "result": null, "id": message["id"] }).to_string()],
            ..Reply::default()
        }
    }

    fn answer(&self, path: &str, query: &BTreeMap<String, String>) -> Option<String> {
        if path.ends_with("/exchangeInfo") {
            let quote = if self.symbol.contains("USDT") { "USDT" } else { "USD" };
            return Some(
                json!({ "serverTime": 1_723_161_000_000_u64, "symbols": [{
                    "symbol": self.symbol, "baseAsset": "BTC", "quoteAsset": quote, "marginAsset": if quote == "USD" { "BTC" } else { quote },
                    "status": "TRADING", "contractType": "PERPETUAL", "contractSize": 100, "filters": [],
                }] })
                .to_string(),
            );
        }
        if query.get("symbol") != Some(&self.symbol) {
            return None;
        }
        if self.is_book(path) {
            return Some(self.book.answer());
        }
        let id = if self.spot { "id" } else { "a" };
        let (from, limit) = (query.get("fromId")?.parse::<u64>().ok()?, query.get("limit")?.parse().ok()?);
        let trades: Vec<&Value> = self.trades.iter().skip_while(|trade| number(&trade[id]) < from).take(limit).collect();
        Some(json!(trades).to_string())
    }

    fn stale(&self, path: &str, _query: &BTreeMap<String, String>) -> Option<String> {
        self.is_book(path).then(|| Book { last: self.begins.last - 1_000, ..self.begins.clone() }.answer())
    }
}
