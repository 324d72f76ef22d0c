//! Binance's options: a market made up, as the option `BTC-261225-60000-C`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::market::{Book, Change, Happening, Known, Market, Trade, fixed, price_text, size_text};
use super::{Event, Reply, Speaks};

const SYMBOL: &str = "BTC-261225-60000-C";
/// The streams, as far as something is sent.
const TRADES: &str = "btc-261225-60000-c@optionTrade";
const BOOK: &str = "btc-261225-60000-c@depth@100ms";
/// The most trades that an answer has.
const MOST: usize = 500;

/// Binance with one option.
pub struct BinanceOptions {
    known: Known,
}

impl BinanceOptions {
    /// A venue at which this market happens.
    pub fn new(market: Market) -> BinanceOptions {
        BinanceOptions { known: Known::new(market) }
    }
}

/// Numbers of a book ascend and have holes: they count the changes of all books.
fn update(number: u64) -> u64 {
    42_788_000_000 + number * 7
}

fn levels(levels: &[(u64, u64)]) -> Vec<Value> {
    levels.iter().map(|(price, size)| json!([fixed(*price, 1), if *size == 0 { "0".to_owned() } else { fixed(*size, 3) }])).collect()
}

fn trade(trade: &Trade) -> Value {
    json!({
        "e": "trade", "E": trade.time + 1, "T": trade.time, "s": SYMBOL, "t": trade.number, "p": fixed(trade.price, 1),
        "q": fixed(trade.quantity, 3), "X": "MARKET", "S": if trade.bought { "BUY" } else { "SELL" }, "m": !trade.bought,
    })
}

fn past(trade: &Trade) -> Value {
    json!({
        "id": 2_323_857_420_768_529_130_u64 + trade.number, "tradeId": trade.number, "symbol": SYMBOL, "price": price_text(trade.price),
        "qty": size_text(trade.quantity), "quoteQty": fixed(trade.price * trade.quantity, 4), "side": if trade.bought { 1 } else { -1 },
        "time": trade.time,
    })
}

fn change(change: &Change) -> Value {
    json!({
        "e": "depthUpdate", "E": change.time + 2, "T": change.time, "s": SYMBOL, "U": update(change.number) - 3,
        "u": update(change.number), "pu": update(change.number - 1), "b": levels(&change.bids), "a": levels(&change.asks),
    })
}

fn depth(book: &Book) -> String {
    json!({
        "bids": levels(&book.bids()), "asks": levels(&book.asks()), "T": book.time, "lastUpdateId": update(book.number),
    })
    .to_string()
}

impl Speaks for BinanceOptions {
    fn events(&self) -> Vec<Event> {
        let event = |happening: &Happening| {
            let (stream, data) = match happening {
                Happening::Trade(happened) => (TRADES, trade(happened)),
                Happening::Change(happened) => (BOOK, change(happened)),
            };
            Event { channel: stream.to_owned(), frame: json!({ "stream": stream, "data": data }).to_string() }
        };
        self.known.market.happenings.iter().map(event).collect()
    }

    fn one_in(&self) -> u64 {
        12
    }

    fn played(&mut self, _event: &Event) {
        self.known.happens();
    }

    fn said(&self, text: &str) -> Reply {
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        let names = || message["params"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        let acknowledgement = json!({ "result": null, "id": message["id"] }).to_string();
        let mut reply = Reply { acknowledgements: vec![acknowledgement], ..Reply::default() };
        match message["method"].as_str() {
            Some("SUBSCRIBE") => reply.begins = names().map(|name| (name, Vec::new())).collect(),
            Some("UNSUBSCRIBE") => reply.ends = names().collect(),
            _ => {
                let error = json!({ "error": { "code": 2, "msg": "Invalid request: unknown variant" }, "id": message["id"] });
                reply.acknowledgements = vec![error.to_string()];
            }
        }
        reply
    }

    fn answer(&self, path: &str, query: &BTreeMap<String, String>) -> Option<String> {
        if path == "/eapi/v1/exchangeInfo" {
            let filters = [
                json!({ "filterType": "PRICE_FILTER", "minPrice": "0.1", "maxPrice": "80000.1", "tickSize": "0.1" }),
                json!({ "filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "100", "stepSize": "0.001" }),
            ];
            let answer = json!({
                "timezone": "UTC", "serverTime": self.known.book.time,
                "optionContracts": [{ "baseAsset": "BTC", "quoteAsset": "USDT", "underlying": "BTCUSDT", "settleAsset": "USDT" }],
                "optionAssets": [{ "name": "USDT" }],
                "optionSymbols": [{
                    "expiryDate": 1_798_185_600_000_u64, "filters": filters, "symbol": SYMBOL, "side": "CALL",
                    "strikePrice": "60000.00000000", "underlying": "BTCUSDT", "unit": 1, "liquidationFeeRate": "0.0019000",
                    "minQty": "0.001", "maxQty": "100", "initialMargin": "0.15", "maintenanceMargin": "0.075", "minInitialMargin": "0.1",
                    "minMaintenanceMargin": "0.05", "priceScale": 1, "quantityScale": 3, "quoteAsset": "USDT",
                    "contractType": "CRYPTO_OPTIONS", "underlyingType": "CRYPTO", "nakedSell": false, "status": "TRADING",
                }],
                "rateLimits": [{ "rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2_400 }],
            });
            return Some(answer.to_string());
        }
        if query.get("symbol").map(String::as_str) != Some(SYMBOL) {
            return None;
        }
        match path {
            "/eapi/v1/depth" => Some(depth(&self.known.book)),
            "/eapi/v1/trades" => {
                let limit: usize = query.get("limit")?.parse().ok().filter(|limit| *limit <= MOST)?;
                let trades = &self.known.trades;
                Some(json!(trades[trades.len().saturating_sub(limit)..].iter().map(past).collect::<Vec<_>>()).to_string())
            }
            _ => None,
        }
    }

    fn stale(&self, path: &str, _query: &BTreeMap<String, String>) -> Option<String> {
        let begins = &self.known.market.begins;
        (path == "/eapi/v1/depth").then(|| depth(&Book { number: begins.number - 1_000, ..begins.clone() }))
    }
}
