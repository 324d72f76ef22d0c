//! Deribit: a market made up, as its linear perpetual `BTC_USDC-PERPETUAL`.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::{Number, Value, json};

use super::market::{BEGIN, Book, Change, Happening, Known, Market, Trade, fixed};
use super::{Event, Reply, Speaks};

const SYMBOL: &str = "BTC_USDC-PERPETUAL";
/// The channels, as far as something is sent.
const BOOK: &str = "book.BTC_USDC-PERPETUAL.100ms";
const TRADES: &str = "trades.BTC_USDC-PERPETUAL.100ms";
/// The most trades that an answer has.
const MOST: usize = 1_000;

/// Deribit with one instrument.
pub struct Deribit {
    known: Known,
    events: Vec<Event>,
    /// Whether the client that was asked last whether it is there has said so: as the real one, it talks to nobody else.
    is_there: Cell<bool>,
    /// What it said before.
    unheard: Cell<Option<Value>>,
    /// Whether it lists an instrument that it leaves out of acknowledgements.
    dead: bool,
}

/// That instrument.
const DEAD: &str = "ETH_USDC-PERPETUAL";

impl Deribit {
    /// A venue at which this market happens.
    pub fn new(market: Market) -> Deribit {
        let mut book = market.begins.clone();
        let event = |happening: &Happening| match happening {
            Happening::Trade(happened) => notification(TRADES, json!([trade(happened)])),
            Happening::Change(happened) => {
                let data = change(&book, happened);
                book.change(happened);
                notification(BOOK, data)
            }
        };
        let events = market.happenings.iter().map(event).collect();
        Deribit { known: Known::new(market), events, is_there: Cell::new(true), unheard: Cell::default(), dead: false }
    }

    /// The same beside an instrument that is listed and has expired.
    pub fn beside_a_dead_one(market: Market) -> Deribit {
        Deribit { dead: true, ..Deribit::new(market) }
    }

    /// What it does for a client that subscribes.
    fn subscribed(&self, message: &Value) -> Reply {
        let begins = |name: String| {
            let frames = if name == BOOK { vec![snapshot(&self.known.book)] } else { Vec::new() };
            (name, frames)
        };
        Reply {
            begins: alive(message).map(begins).collect(),
            acknowledgements: vec![acknowledges(self.known.book.time, message)],
            ..Reply::default()
        }
    }

    /// The venue's name of a trade, which counts all instruments that are settled in a currency.
    pub fn trade_id(number: u64) -> String {
        format!("USDC-{}", 2_436_000 + 3 * number)
    }
}

fn notification(channel: &str, data: Value) -> Event {
    let frame = json!({ "jsonrpc": "2.0", "method": "subscription", "params": { "channel": channel, "data": data } });
    Event { channel: channel.to_owned(), frame: frame.to_string() }
}

/// A number of JSON with so many fraction digits.
fn number(units: u64, digits: u32) -> Number {
    fixed(units, digits).parse().expect("a number")
}

/// Numbers of books are shared by all instruments, so they have holes.
fn change_id(number: u64) -> u64 {
    136_725_000_000 + number * 11
}

fn trade(trade: &Trade) -> Value {
    json!({
        "timestamp": trade.time, "price": number(trade.price, 1), "amount": number(trade.quantity, 3),
        "direction": if trade.bought { "buy" } else { "sell" }, "index_price": number(trade.price, 1), "instrument_name": SYMBOL,
        "trade_seq": trade.number, "mark_price": number(trade.price, 1), "tick_direction": 2, "contracts": number(trade.quantity * 10, 1),
        "trade_id": Deribit::trade_id(trade.number),
    })
}

/// What a change says of a level that it finds on a side, or does not.
fn level(side: &BTreeMap<u64, u64>, (price, size): (u64, u64)) -> Value {
    let action = match (size, side.contains_key(&price)) {
        (0, _) => "delete",
        (_, true) => "change",
        (_, false) => "new",
    };
    json!([action, number(price, 1), number(size, 3)])
}

/// A change of the book as it is before it.
fn change(before: &Book, change: &Change) -> Value {
    let levels = |side: &BTreeMap<u64, u64>, levels: &[(u64, u64)]| levels.iter().map(|one| level(side, *one)).collect::<Vec<_>>();
    json!({
        "type": "change", "timestamp": change.time, "prev_change_id": change_id(change.number - 1), "instrument_name": SYMBOL,
        "change_id": change_id(change.number), "bids": levels(&before.bids, &change.bids), "asks": levels(&before.asks, &change.asks),
    })
}

fn snapshot(book: &Book) -> String {
    let levels = |levels: Vec<(u64, u64)>| levels.into_iter().map(|one| level(&BTreeMap::new(), one)).collect::<Vec<_>>();
    let data = json!({
        "type": "snapshot", "timestamp": book.time, "instrument_name": SYMBOL, "change_id": change_id(book.number),
        "bids": levels(book.bids()), "asks": levels(book.asks()),
    });
    notification(BOOK, data).frame
}

/// The members of an answer beside what it says, in microseconds.
fn answer(time: u64, id: &Value, (name, says): (&str, Value)) -> String {
    let mut answer = json!({ "jsonrpc": "2.0", "usIn": time * 1_000, "usOut": time * 1_000 + 822, "usDiff": 822, "testnet": false });
    answer[name] = says;
    if !id.is_null() {
        answer["id"] = id.clone();
    }
    answer.to_string()
}

/// The channels that a message is about.
fn names(message: &Value) -> Vec<String> {
    message["params"]["channels"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Those of them that there is something of.
fn alive(message: &Value) -> impl Iterator<Item = String> {
    names(message).into_iter().filter(|name| !name.contains(DEAD))
}

/// What acknowledges it.
fn acknowledges(time: u64, message: &Value) -> String {
    answer(time, &message["id"], ("result", json!(alive(message).collect::<Vec<_>>())))
}

impl Speaks for Deribit {
    fn events(&self) -> Vec<Event> {
        self.events.clone()
    }

    fn played(&mut self, _event: &Event) {
        self.known.happens();
    }

    fn said(&self, text: &str) -> Reply {
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        let (id, time) = (&message["id"], self.known.book.time);
        match message["method"].as_str() {
            Some("public/set_heartbeat") => {
                self.is_there.set(false);
                let asks = json!({ "jsonrpc": "2.0", "method": "heartbeat", "params": { "type": "test_request" } });
                Reply { answers: vec![answer(time, id, ("result", json!("ok"))), asks.to_string()], ..Reply::default() }
            }
            Some("public/test") => {
                self.is_there.set(true);
                let reply = self.unheard.take().map(|unheard| self.subscribed(&unheard)).unwrap_or_default();
                Reply { answers: vec![answer(time, id, ("result", json!({ "version": "1.2.26" })))], ..reply }
            }
            Some("public/subscribe") if !self.is_there.get() => {
                self.unheard.set(Some(message));
                Reply::default()
            }
            Some("public/subscribe") => self.subscribed(&message),
            Some("public/unsubscribe") => {
                Reply { ends: names(&message), acknowledgements: vec![acknowledges(time, &message)], ..Reply::default() }
            }
            _ => {
                let error = json!({ "code": -32_601, "message": "Method not found" });
                Reply { answers: vec![answer(time, id, ("error", error))], ..Reply::default() }
            }
        }
    }

    fn answer(&self, path: &str, query: &BTreeMap<String, String>) -> Option<String> {
        let asked = |name: &str| query.get(name).map(String::as_str);
        let time = self.known.book.time + 100;
        match path {
            "/api/v2/public/get_instruments" if asked("kind") == Some("future") => {
                let perpetual = json!({
                    "tick_size": 0.1, "tick_size_steps": [], "taker_commission": 0.0005, "settlement_period": "perpetual",
                    "settlement_currency": "USDC", "rfq": false, "quote_currency": "USDC", "price_index": "btc_usdc",
                    "min_trade_amount": 0.001, "max_liquidation_commission": 0.0075, "max_leverage": 50, "maker_commission": 0.0,
                    "kind": "future", "is_active": true, "instrument_name": SYMBOL, "instrument_id": 211_704,
                    "instrument_type": "linear", "future_type": "linear", "expiration_timestamp": 32_503_708_800_000_u64,
                    "creation_timestamp": 1_646_824_342_000_u64, "counter_currency": "USDC", "contract_size": 0.001,
                    "block_trade_commission": 0.0001, "block_trade_min_trade_amount": 200_000, "block_trade_tick_size": 0.01,
                    "base_currency": "BTC", "state": "open",
                });
                let mut listed = vec![perpetual];
                if self.dead {
                    let mut dead = listed[0].clone();
                    (dead["instrument_name"], dead["base_currency"], dead["price_index"]) = (DEAD.into(), "ETH".into(), "eth_usdc".into());
                    listed.push(dead);
                }
                Some(answer(time, &Value::Null, ("result", json!(listed))))
            }
            "/api/v2/public/get_last_trades_by_instrument" if asked("instrument_name") == Some(SYMBOL) => {
                let first: u64 = asked("start_seq")?.parse().ok()?;
                let last: u64 = asked("end_seq")?.parse().ok()?;
                let count: usize = asked("count")?.parse().ok().filter(|count| *count <= MOST)?;
                let mut found: Vec<&Trade> = self.known.trades.iter().filter(|trade| (first..=last).contains(&trade.number)).collect();
                // The newest come first unless it is told otherwise.
                if asked("sorting") != Some("asc") {
                    found.reverse();
                }
                let trades: Vec<Value> = found.iter().take(count).map(|happened| trade(happened)).collect();
                let result = json!({ "trades": trades, "has_more": found.len() > count });
                Some(answer(time, &Value::Null, ("result", result)))
            }
            _ => None,
        }
    }

    fn stale(&self, path: &str, _query: &BTreeMap<String, String>) -> Option<String> {
        let nothing = || answer(BEGIN, &Value::Null, ("result", json!({ "trades": [], "has_more": false })));
        (path == "/api/v2/public/get_last_trades_by_instrument").then(nothing)
    }
}
