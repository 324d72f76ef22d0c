//! An independent reader of the frames: JSON by serde_json, books in trees of exact decimals, Binance's rules as its
//! manual states them. Nothing is shared with the code that wrote the frames.

use std::collections::BTreeMap;

use model::Decimal;
use model::time::Micros;
use serde_json::Value;

/// A frame as received.
pub(super) struct Received {
    pub(super) dialect: String,
    pub(super) receive_time: Micros,
    pub(super) frame: u64,
    pub(super) topic: Option<String>,
    pub(super) payload: Vec<u8>,
}

impl Received {
    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.payload).ok()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    Trade,
    Quote,
    Delta,
    Mark,
    Snapshot,
}

/// What an independent reader makes of a frame: the instrument, as `market symbol` in canonical names, and the message.
pub(super) fn read(frame: &Received) -> Option<(String, Shape, Value)> {
    let value = frame.json()?;
    let data = value.get("data").unwrap_or(&value).clone();
    let shape = match data.get("e").and_then(Value::as_str) {
        Some("trade") => Shape::Trade,
        Some("depthUpdate") => Shape::Delta,
        Some("markPriceUpdate") => Shape::Mark,
        Some("bookTicker") => Shape::Quote,
        None if data.get("lastUpdateId").is_some() => Shape::Snapshot,
        None if data.get("B").is_some() => Shape::Quote,
        other => panic!("an unknown event {other:?}"),
    };
    let code = data.get("s").or(data.get("symbol")).and_then(Value::as_str).or(frame.topic.as_deref()).unwrap();
    if let Some(stream) = value.get("stream").and_then(Value::as_str) {
        assert_eq!(stream.split('@').next().unwrap(), code.to_lowercase());
    }
    let instrument = match frame.dialect.as_str() {
        "binance_spot" => format!("spot {}-USDT", code.strip_suffix("USDT").unwrap()),
        "binance_usdm" => format!("perpetual {}-USDT-PERP", code.strip_suffix("USDT").unwrap()),
        "binance_coinm" => format!("perpetual {}-USD-PERP", code.strip_suffix("USD_PERP").unwrap()),
        other => panic!("an unknown dialect {other}"),
    };
    Some((instrument, shape, data))
}

pub(super) fn kind(shape: Shape) -> &'static str {
    match shape {
        Shape::Trade => "trade",
        Shape::Quote => "quote",
        Shape::Delta => "book_delta",
        Shape::Mark => "mark_price",
        Shape::Snapshot => "book_snapshot",
    }
}

pub(super) fn number(data: &Value, key: &str) -> i64 {
    data[key].as_i64().unwrap_or_else(|| panic!("{key} of {data}"))
}

/// A book rebuilt as Binance's manual says: buffer, splice, then follow the chain.
#[derive(Default)]
pub(super) struct Rebuilt {
    pub(super) bids: BTreeMap<Decimal, Decimal>,
    pub(super) asks: BTreeMap<Decimal, Decimal>,
    pub(super) buffer: Vec<Value>,
    /// The number of the snapshot, then of the last update.
    pub(super) last: Option<i64>,
    pub(super) bridged: bool,
    pub(super) stale: usize,
    pub(super) snapshots: usize,
    pub(super) gaps: Vec<(i64, i64)>,
    pub(super) quote: Option<Value>,
    pub(super) compared: usize,
}

impl Rebuilt {
    pub(super) fn take(&mut self, spot: bool, shape: Shape, data: &Value) {
        match shape {
            Shape::Snapshot => {
                self.snapshots += 1;
                (self.bids, self.asks) = (side(&data["bids"]), side(&data["asks"]));
                assert!(self.bids.len() >= 9 && self.bids.len() <= 50 && self.asks.len() >= 9 && self.asks.len() <= 50);
                (self.last, self.bridged) = (Some(number(data, "lastUpdateId")), false);
                for data in std::mem::take(&mut self.buffer) {
                    self.delta(spot, &data);
                }
            }
            Shape::Delta if self.last.is_none() => self.buffer.push(data.clone()),
            Shape::Delta => self.delta(spot, data),
            Shape::Quote => {
                self.quote = Some(data.clone());
                self.compare();
            }
            Shape::Trade | Shape::Mark => {}
        }
    }

    pub(super) fn delta(&mut self, spot: bool, data: &Value) {
        let (first, last) = (number(data, "U"), number(data, "u"));
        let known = self.last.unwrap();
        if last < known || last == known && (spot || self.bridged) {
            self.stale += 1;
            return;
        }
        if self.bridged {
            let holds = if spot { first == known + 1 } else { number(data, "pu") == known };
            if !holds {
                self.gaps.push((known + 1, if spot { first - 1 } else { number(data, "pu") }));
                self.last = None;
                self.buffer = vec![data.clone()];
                return;
            }
        } else {
            let next = if spot { known + 1 } else { known };
            assert!(first <= next && next <= last, "{first}..{last} does not bridge the snapshot at {known}");
            self.bridged = true;
        }
        for (levels, changes) in [(&mut self.bids, &data["b"]), (&mut self.asks, &data["a"])] {
            for (price, quantity) in side(changes) {
                if quantity == Decimal::ZERO {
                    levels.remove(&price)
                } else {
                    levels.insert(price, quantity)
                };
            }
        }
        self.last = Some(last);
        self.compare();
    }

    /// Where the last quote and the book stand at the same number, they are equal.
    pub(super) fn compare(&mut self) {
        let Some(quote) = self.quote.as_ref().filter(|q| self.bridged && self.last == q["u"].as_i64()) else { return };
        let (bid, ask) = (self.bids.last_key_value().unwrap(), self.asks.first_key_value().unwrap());
        assert_eq!(
            (*bid.0, *bid.1, *ask.0, *ask.1),
            (decimal(&quote["b"]), decimal(&quote["B"]), decimal(&quote["a"]), decimal(&quote["A"])),
            "{quote}"
        );
        self.compared += 1;
    }
}

pub(super) fn side(levels: &Value) -> BTreeMap<Decimal, Decimal> {
    let levels = levels.as_array().unwrap();
    let side: BTreeMap<_, _> = levels.iter().map(|level| (decimal(&level[0]), decimal(&level[1]))).collect();
    assert_eq!(side.len(), levels.len(), "a price stands twice");
    assert!(side.keys().all(|price| *price > Decimal::ZERO) && side.values().all(|quantity| *quantity >= Decimal::ZERO));
    side
}

pub(super) fn decimal(value: &Value) -> Decimal {
    value.as_str().unwrap().parse().unwrap()
}
