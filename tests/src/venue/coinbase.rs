//! Coinbase: a market made up, as `BTC-USD` of its interface Advanced Trade.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::market::{BEGIN, Book, Change, Happening, Known, Market, Trade, fixed};
use super::{Event, Reply, Speaks};

const PRODUCT: &str = "BTC-USD";
/// The most trades that an answer has.
const MOST: usize = 1_000;
/// Trades of the past that a subscription begins with.
const PAST: usize = 5;
/// The product, as the venue lists it.
const LISTED: &str = r#"{"product_id":"BTC-USD","price":"60000.0","price_percentage_change_24h":"-0.28225832119521","volume_24h":"11005.02587005","volume_percentage_change_24h":"164.92748862719962","base_increment":"0.00000001","quote_increment":"0.01","quote_min_size":"1","quote_max_size":"150000000","base_min_size":"0.00000001","base_max_size":"3400","base_name":"Bitcoin","quote_name":"US Dollar","watched":false,"is_disabled":false,"new":false,"status":"online","cancel_only":false,"limit_only":false,"post_only":false,"trading_disabled":false,"auction_mode":false,"product_type":"SPOT","quote_currency_id":"USD","base_currency_id":"BTC","fcm_trading_session_details":null,"mid_market_price":"","alias":"","alias_to":["BTC-USDC"],"base_display_symbol":"BTC","quote_display_symbol":"USD","view_only":false,"price_increment":"0.01","display_name":"BTC-USD","product_venue":"CBE","approximate_quote_24h_volume":"758532193.02","new_at":"2023-01-01T00:00:00Z","market_cap":"","base_cbrn":"","quote_cbrn":"","product_cbrn":"","icon_color":"","icon_url":"","display_name_overwrite":"","is_alpha_testing":false,"about_description":"","best_bid_price":"","best_ask_price":""}"#;
/// What numbers a frame.
const NUMBER: &str = "\"sequence_num\":0";

/// Coinbase with one product.
pub struct Coinbase {
    known: Known,
}

impl Coinbase {
    /// A venue at which this market happens.
    pub fn new(market: Market) -> Coinbase {
        Coinbase { known: Known::new(market) }
    }

    /// The best bid and ask.
    fn ticker(&self) -> Value {
        let ((bid, bids), (ask, asks)) = (self.known.book.bids()[0], self.known.book.asks()[0]);
        json!({
            "type": "ticker", "product_id": PRODUCT, "price": fixed(bid, 1), "volume_24_h": "6629.927726", "low_24_h": "59235.88",
            "high_24_h": "64416.3", "low_52_w": "27717.55", "high_52_w": "126296", "price_percent_chg_24_h": "0.03813791548644",
            "best_bid": fixed(bid, 1), "best_bid_quantity": fixed(bids, 3), "best_ask": fixed(ask, 1),
            "best_ask_quantity": fixed(asks, 3),
        })
    }

    /// What the subscription to a channel begins with.
    fn begins(&self, channel: &str) -> Vec<String> {
        let Book { time, .. } = self.known.book;
        match channel {
            "level2" => vec![message("l2_data", time, snapshot(&self.known.book))],
            "ticker" => vec![message("ticker", time, json!({ "type": "snapshot", "tickers": [self.ticker()] }))],
            "market_trades" if !self.known.trades.is_empty() => {
                let trades: Vec<Value> = self.known.trades.iter().rev().take(PAST).map(trade).collect();
                vec![message("market_trades", time, json!({ "type": "snapshot", "trades": trades }))]
            }
            _ => Vec::new(),
        }
    }

    /// The trades of some seconds.
    fn trades(&self, since: u64, until: u64, limit: usize) -> String {
        let past = |happened: &Trade| {
            let mut past = trade(happened);
            (past["bid"], past["ask"], past["exchange"]) = ("".into(), "".into(), "coinbase".into());
            past
        };
        let seconds = since * 1_000..until * 1_000;
        let trades: Vec<Value> =
            self.known.trades.iter().rev().filter(|trade| seconds.contains(&trade.time)).take(limit).map(past).collect();
        let book = &self.known.book;
        json!({ "trades": trades, "best_bid": fixed(book.bids()[0].0, 1), "best_ask": fixed(book.asks()[0].0, 1) }).to_string()
    }
}

/// A time as the venue writes it, within the hour that the market begins in: at 13 seconds past 54 minutes.
fn written(time: u64) -> String {
    let seconds = 54 * 60 + 13 + (time - BEGIN) / 1_000;
    format!("2024-08-08T23:{:02}:{:02}.{:03}Z", seconds / 60, seconds % 60, time % 1_000)
}

fn message(channel: &str, time: u64, event: Value) -> String {
    json!({ "channel": channel, "client_id": "", "timestamp": written(time), "sequence_num": 0, "events": [event] }).to_string()
}

/// The side is the maker's.
fn trade(trade: &Trade) -> Value {
    json!({
        "product_id": PRODUCT, "trade_id": trade.number.to_string(), "price": fixed(trade.price, 1), "size": fixed(trade.quantity, 3),
        "time": written(trade.time), "side": if trade.bought { "SELL" } else { "BUY" },
    })
}

fn levels(side: &str, time: &str, levels: &[(u64, u64)]) -> Vec<Value> {
    let size = |size: u64| if size == 0 { "0".to_owned() } else { fixed(size, 3) };
    let level = |(price, quantity): &(u64, u64)| json!({ "side": side, "event_time": time, "price_level": fixed(*price, 1), "new_quantity": size(*quantity) });
    levels.iter().map(level).collect()
}

fn book(kind: &str, time: &str, bids: &[(u64, u64)], asks: &[(u64, u64)]) -> Value {
    let updates = [levels("bid", time, bids), levels("offer", time, asks)].concat();
    json!({ "type": kind, "product_id": PRODUCT, "updates": updates })
}

fn snapshot(stands: &Book) -> Value {
    book("snapshot", "1970-01-01T00:00:00Z", &stands.bids(), &stands.asks())
}

fn change(happened: &Change) -> Value {
    book("update", &written(happened.time), &happened.bids, &happened.asks)
}

fn products(products: &str, count: usize) -> String {
    format!(r#"{{"products":[{products}],"num_products":{count},"pagination":null}}"#)
}

impl Speaks for Coinbase {
    fn events(&self) -> Vec<Event> {
        let event = |happening: &Happening| {
            let (channel, frame) = match happening {
                Happening::Trade(happened) => {
                    let trades = json!({ "type": "update", "trades": [trade(happened)] });
                    ("market_trades", message("market_trades", happened.time, trades))
                }
                Happening::Change(happened) => ("level2", message("l2_data", happened.time, change(happened))),
            };
            Event { channel: format!("{channel} {PRODUCT}"), frame }
        };
        self.known.market.happenings.iter().map(event).collect()
    }

    fn played(&mut self, _event: &Event) {
        self.known.happens();
    }

    fn said(&self, text: &str) -> Reply {
        let said: Value = serde_json::from_str(text).unwrap_or_default();
        let time = self.known.book.time;
        let channel = said["channel"].as_str().unwrap_or_default();
        let known = said["product_ids"].as_array().into_iter().flatten().any(|product| product == PRODUCT);
        let subscribed = |subscriptions: Value| message("subscriptions", time, json!({ "subscriptions": subscriptions }));
        let name = format!("{channel} {PRODUCT}");
        match said["type"].as_str() {
            Some("subscribe") if channel == "heartbeats" => {
                let heartbeat = json!({ "current_time": "2024-08-08 23:54:13.000000000 +0000 UTC", "heartbeat_counter": 42 });
                Reply {
                    acknowledgements: vec![subscribed(json!({ channel: [channel] }))],
                    answers: vec![message(channel, time, heartbeat)],
                    ..Reply::default()
                }
            }
            Some("subscribe") if known => Reply {
                begins: vec![(name, self.begins(channel))],
                acknowledgements: vec![subscribed(json!({ channel: [PRODUCT] }))],
                ..Reply::default()
            },
            // One that does not exist is acknowledged by its absence.
            Some("subscribe") => Reply { acknowledgements: vec![subscribed(json!({}))], ..Reply::default() },
            Some("unsubscribe") => Reply { ends: vec![name], acknowledgements: vec![subscribed(json!({}))], ..Reply::default() },
            _ => {
                let refusal = json!({ "type": "error", "message": format!("unknown message: {text}") });
                Reply { answers: vec![refusal.to_string()], ..Reply::default() }
            }
        }
    }

    fn answer(&self, path: &str, query: &BTreeMap<String, String>) -> Option<String> {
        match path {
            "/api/v3/brokerage/market/products" => match query.get("product_type")?.as_str() {
                "SPOT" => Some(products(LISTED, 1)),
                "FUTURE" => Some(products("", 0)),
                _ => None,
            },
            "/api/v3/brokerage/market/products/BTC-USD/ticker" => {
                let number = |name: &str| query.get(name)?.parse::<u64>().ok();
                let limit = usize::try_from(number("limit")?).ok().filter(|limit| *limit <= MOST)?;
                Some(self.trades(number("start")?, number("end")?, limit))
            }
            _ => None,
        }
    }

    fn stale(&self, path: &str, _query: &BTreeMap<String, String>) -> Option<String> {
        path.ends_with("/ticker").then(|| self.trades(0, 0, 0))
    }

    fn numbered(&self, frame: &str, number: u64) -> String {
        frame.replacen(NUMBER, &format!("\"sequence_num\":{number}"), 1)
    }
}
