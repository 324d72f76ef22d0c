//! Records as JSON: one object a row, its columns in the kind's order.
//!
//! Nothing is lost on the way out. A decimal is a JSON number with all its digits and no more, a time is
//! RFC 3339 text to the microsecond, an absent value is `null`. Bytes are text where they are UTF-8 and hexadecimal digits
//! behind `\x` where they are not; bytes that themselves begin with `\x` are hexadecimal too, so the two
//! cannot be confused.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, Decimal128Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Decimal128Type, FieldRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, NullableEncoder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions, Writer, WriterBuilder};

use crate::decimal::{self, Decimal};
use crate::time;

/// A writer of newline-delimited JSON, for files; [`Writer::write`] takes whole batches.
pub fn writer<W: Write>(out: W) -> Writer<W, LineDelimited> {
    WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Exact)).build(out)
}

/// One row as a JSON object: what a dead letter keeps of a record that was refused.
pub fn row_json(rows: &RecordBatch, row: usize) -> Vec<u8> {
    let mut writer = writer(Vec::new());
    writer.write(&rows.slice(row, 1)).expect("every column type of a kind has a JSON form, and memory can be written to");
    let mut json = writer.into_inner();
    json.truncate(json.trim_ascii_end().len());
    json
}

/// Encodes what Arrow would pad (decimals), cut (times), or make unreadable (bytes).
#[derive(Debug)]
struct Exact;

impl EncoderFactory for Exact {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            &decimal::DATA_TYPE => Box::new(Decimals { array: array.as_primitive::<Decimal128Type>(), text: String::new() }),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Box::new(Times(array.as_primitive::<TimestampMicrosecondType>())),
            DataType::Binary => Box::new(Bytes(array.as_binary())),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Decimals<'a> {
    array: &'a Decimal128Array,
    text: String,
}

impl Encoder for Decimals<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        self.text.clear();
        write!(self.text, "{}", Decimal::from_units(self.array.value(row))).expect("memory can be written to");
        out.extend_from_slice(self.text.as_bytes());
    }
}

struct Times<'a>(&'a TimestampMicrosecondArray);

impl Encoder for Times<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(time::display(self.0.value(row)).as_bytes());
        out.push(b'"');
    }
}

struct Bytes<'a>(&'a BinaryArray);

impl Encoder for Bytes<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        const HEX: &str = r"\x";
        let bytes = self.0.value(row);
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.starts_with(HEX) => serde_json::to_writer(out, text).expect("memory can be written to"),
            _ => {
                out.extend_from_slice(br#""\\x"#);
                for byte in bytes {
                    write!(out, "{byte:02x}").expect("memory can be written to");
                }
                out.push(b'"');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{BookSnapshot, BookSnapshotBuilder, DeadLetter, DeadLetterBuilder, Trade, TradeBuilder};

    fn d(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn a_row_keeps_every_digit_and_every_column() {
        let mut trades = TradeBuilder::default();
        let trade = Trade {
            venue: "binance",
            market: "spot",
            symbol: "BTC-USDT",
            event_time: 1_723_161_255_342_001,
            receive_time: None,
            frame: Some(7),
            trade_id: "3721\"4",
            price: d("99999999999999999999999999.000000000001"),
            quantity: d("0.3"),
            contracts: None,
            side: "buy",
            fills: 1,
            backfilled: Some(false),
        };
        trades.push(Trade { price: d("1"), ..trade });
        trades.push(trade);
        let rows = trades.finish();
        let expected = concat!(
            r#"{"venue":"binance","market":"spot","symbol":"BTC-USDT","event_time":"2024-08-08T23:54:15.342001Z","receive_time":null,"#,
            r#""frame":7,"trade_id":"3721\"4","price":99999999999999999999999999.000000000001,"quantity":0.3,"contracts":null,"#,
            r#""side":"buy","fills":1,"backfilled":false}"#
        );
        assert_eq!(String::from_utf8(row_json(&rows, 1)).unwrap(), expected);
    }

    #[test]
    fn lists_of_decimals_are_exact_too() {
        let mut books = BookSnapshotBuilder::default();
        books.push(BookSnapshot {
            venue: "binance",
            market: "spot",
            symbol: "BTC-USDT",
            event_time: None,
            receive_time: None,
            frame: None,
            sequence: Some(1),
            origin: "venue",
            bid_prices: &[d("0.1"), d("-0.000000000001")],
            bid_quantities: &[],
            ask_prices: &[],
            ask_quantities: &[],
            contracts: false,
            depth: None,
            checksum: None,
            price_digits: None,
            quantity_digits: None,
        });
        let json = String::from_utf8(row_json(&books.finish(), 0)).unwrap();
        assert!(json.contains(r#""bid_prices":[0.1,-0.000000000001],"bid_quantities":[]"#), "{json}");
    }

    #[test]
    fn bytes_are_text_where_they_can_be_and_never_ambiguous() {
        for (payload, expected) in [
            (&br#"{"e":"trade"}"#[..], r#""payload":"{\"e\":\"trade\"}""#),
            (b"\xff\x00a", r#""payload":"\\xff0061""#),
            (br"\xff", r#""payload":"\\x5c786666""#),
            (b"", r#""payload":"""#),
        ] {
            let mut letters = DeadLetterBuilder::default();
            letters.push(DeadLetter {
                node: "market",
                reason: "malformed",
                detail: "",
                event_time: None,
                receive_time: None,
                rejected_time: 0,
                frame: None,
                kind: "frame",
                venue: None,
                market: None,
                symbol: None,
                payload,
            });
            let json = String::from_utf8(row_json(&letters.finish(), 0)).unwrap();
            assert!(json.contains(expected), "{json}");
        }
    }

    #[test]
    fn a_file_holds_one_object_a_line() {
        let mut trades = TradeBuilder::default();
        let mut out = writer(Vec::new());
        out.write(&trades.finish()).unwrap();
        for id in ["1", "2"] {
            trades.push(Trade {
                venue: "okx",
                market: "spot",
                symbol: "A-B",
                event_time: 0,
                receive_time: None,
                frame: None,
                trade_id: id,
                price: d("1"),
                quantity: d("2"),
                contracts: None,
                side: "sell",
                fills: 1,
                backfilled: Some(false),
            });
        }
        out.write(&trades.finish()).unwrap();
        out.finish().unwrap();
        let text = String::from_utf8(out.into_inner()).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        assert!(text.ends_with("}\n"));
    }
}
