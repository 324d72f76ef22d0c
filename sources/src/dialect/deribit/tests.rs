//! The dialect against real frames: recordings with counts worked out by others, other projects' expectations, frames
//! as the venue's documentation has them, and frames damaged in every way.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, TimestampMicrosecondType};
use model::Decimal;
use model::columns::{integer, label, number, numbers};
use model::dialect::{FrameRef, Learn, Outcome, Records};
use model::kinds::{BookDeltaRows, BookSnapshotRows, InstrumentRows, MarkPriceRows, OpenInterestRows, QuoteRows, TradeRows};
use model::time::display;
use proptest::prelude::*;
use serde_json::Value;

use super::symbols::InstrumentName;
use crate::dialect::symbols::Spelling;
use crate::dialect::testing::{
    batches, d, damage, damaged, decode, decode_all, decode_as, every_kind, near, pairs, reason, received, recording, rows,
};
use crate::dialect::{Dialects, REASONS, make};

const TRADES: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.BTC-PERPETUAL.100ms","data":[{"timestamp":1765531356452,"price":92294.5,"amount":10.0,"direction":"sell","index_price":92276.75,"instrument_name":"BTC-PERPETUAL","trade_seq":271252854,"mark_price":92287.11,"tick_direction":2,"contracts":1.0,"trade_id":"403691824"},{"timestamp":1765531356452,"price":92288.5,"amount":750.0,"direction":"buy","index_price":92276.75,"instrument_name":"BTC-PERPETUAL","trade_seq":271252855,"mark_price":92287.11,"tick_direction":2,"contracts":75.0,"trade_id":"403691825"}]}}"#;
const LIQUIDATION: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.ETH-PERPETUAL.raw","data":[{"trade_seq":12,"trade_id":"ETH-284830839","timestamp":1620000000123,"tick_direction":0,"price":2500.0,"mark_price":2501.5,"liquidation":"T","instrument_name":"ETH-PERPETUAL","index_price":2502.0,"direction":"sell","amount":5000.0}]}}"#;
const OPTION: &str = r#"{"jsonrpc":"2.0","id":1469,"result":{"trades":[{"trade_seq":467,"trade_id":"415305279","timestamp":1770984454552,"tick_direction":2,"price":0.0525,"mark_price":0.05253883,"iv":45.91,"instrument_name":"BTC-24APR26-72000-C","index_price":66930.31,"direction":"buy","amount":3,"contracts":3,"block_trade_id":"154"}],"has_more":true}}"#;
const SNAPSHOT: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.100ms","data":{"type":"snapshot","timestamp":1699999999000,"instrument_name":"BTC-PERPETUAL","change_id":123456789,"bids":[["new",42500.0,1000.0],["new",42499.5,25.0],["new",42499.0,0.0]],"asks":[["new",42501.0,800.0]]}}}"#;
const CHANGE: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.100ms","data":{"type":"change","timestamp":1699999999500,"instrument_name":"BTC-PERPETUAL","prev_change_id":123456789,"change_id":123456798,"bids":[["change",42500.0,950.0],["new",42498.5,300.0]],"asks":[["delete",42501.0,5.0],["change",42501.5,700.0]]}}}"#;
const GROUPED: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC_USDC-PERPETUAL.none.10.100ms","data":{"timestamp":1769246173071,"instrument_name":"BTC_USDC-PERPETUAL","change_id":136725664747,"bids":[[89532.5,0.254],[89532.0,1.0e-3]],"asks":[[89533.0,9.157]]}}}"#;
const TICKER: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"ticker.BTC-PERPETUAL.100ms","data":{"timestamp":1786563120494,"state":"open","stats":{"high":64422,"low":63261,"price_change":-0.0095,"volume":2778.68467406,"volume_usd":177187410,"volume_notional":177187410},"index_price":63329.18,"instrument_name":"BTC-PERPETUAL","last_price":63344,"settlement_price":63799.96,"min_price":62396,"max_price":64297,"open_interest":716004750,"mark_price":63346.33,"interest_value":0.05636261630352104,"current_funding":2.081e-05,"estimated_delivery_price":63329.18,"funding_8h":0.00010036,"best_ask_price":63344.5,"best_bid_price":64000,"best_ask_amount":9980,"best_bid_amount":58060}}}"#;
const OPTION_TICKER: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"ticker.BTC-8JUN20-8750-P.raw","data":{"underlying_price":9724.48,"underlying_index":"SYN.BTC-8JUN20","timestamp":1591603200048,"stats":{"volume":2.5,"price_change":0,"low":0.0005,"high":0.0005},"state":"closed","open_interest":0,"min_price":0.0001,"max_price":0.015,"mark_price":0,"mark_iv":70,"last_price":0.0005,"interest_rate":0,"instrument_name":"BTC-8JUN20-8750-P","index_price":9729.25,"greeks":{"vega":0,"theta":0,"rho":0,"gamma":0,"delta":0},"estimated_delivery_price":"expired","delivery_price":9728.65,"bid_iv":0,"best_bid_price":0,"best_bid_amount":0,"best_ask_price":null,"best_ask_amount":0,"ask_iv":500}}}"#;
const QUOTE: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"quote.XRP_USDC-30AUG24-0d5-C","data":{"timestamp":1550658624149,"instrument_name":"XRP_USDC-30AUG24-0d5-C","best_bid_price":0.0365,"best_bid_amount":1000,"best_ask_price":0.041,"best_ask_amount":25000}}}"#;
const PERPETUAL: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"perpetual.BTC-PERPETUAL.100ms","data":{"timestamp":1571386349530,"interest":0.004999511380756577,"index_price":7872.88}}}"#;
const PRICE_INDEX: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"deribit_price_index.btc_usd","data":{"timestamp":1550588002899,"price":3937.89,"index_name":"btc_usd"}}}"#;
const VOLATILITY: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"deribit_volatility_index.btc_usd","data":{"timestamp":1619777946007,"volatility":129.36,"index_name":"btc_usd"}}}"#;
const MARK_PRICES: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"markprice.options.btc_usd","data":[{"timestamp":1622470378005,"mark_price":0.0333,"iv":0.9,"instrument_name":"BTC-2JUN21-37000-P"},{"timestamp":1622470378005,"mark_price":0.0,"iv":0.9,"instrument_name":"BTC-4JUN21-40500-P"}]}}"#;
const STATE: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"instrument.state.any.any","data":{"timestamp":1553080940000,"state":"Created","instrument_name":"BTC-22MAR19"}}}"#;
const CREATION: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"instrument.creation.option.USDC","data":{"tick_size":0.0001,"strike":0.5,"settlement_period":"week","settlement_currency":"USDC","quote_currency":"USDC","price_index":"xrp_usdc","option_type":"call","min_trade_amount":1000,"kind":"option","instrument_type":"linear","is_active":true,"instrument_name":"XRP_USDC-30AUG24-0d5-C","expiration_timestamp":1725004800000,"creation_timestamp":1723795260000,"counter_currency":"USDC","contract_size":1000,"base_currency":"XRP","state":"open"}}}"#;
const PLATFORM: &str =
    r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"platform_state","data":{"price_index":"sol_usdc","locked":true}}}"#;
const ORDER_BOOK: &str = r#"{"id":3,"jsonrpc":"2.0","result":{"asks":[[87003.0,125090.0],[87003.5,10000.0]],"best_ask_amount":125090.0,"best_ask_price":87003.0,"best_bid_amount":199190.0,"best_bid_price":87002.5,"bids":[[87002.5,199190.0],[87002.0,10000.0]],"change_id":133112427566,"current_funding":0.0,"estimated_delivery_price":86992.82,"funding_8h":6.55e-6,"index_price":86992.82,"instrument_name":"BTC-PERPETUAL","interest_value":0.008832736292871022,"last_price":87002.5,"mark_price":87006.21,"open_interest":1139551440,"state":"open","stats":{"high":88392.5,"low":86600.0},"timestamp":1766554855140},"testnet":false,"usDiff":405,"usIn":1766554855145869,"usOut":1766554855146274}"#;
const INSTRUMENTS: &str = r#"{"jsonrpc":"2.0","id":1,"result":[
    {"price_index":"btc_usd","kind":"future","instrument_name":"BTC-PERPETUAL","instrument_type":"reversed","expiration_timestamp":32503708800000,"creation_timestamp":1534167754000,"is_active":true,"tick_size":0.5,"contract_size":10.0,"min_trade_amount":10.0,"future_type":"reversed","settlement_currency":"BTC","settlement_period":"perpetual","base_currency":"BTC","counter_currency":"USD","quote_currency":"USD"},
    {"kind":"future","instrument_name":"XRP-27DEC24","instrument_type":"reversed","expiration_timestamp":1735286400000,"is_active":false,"tick_size":0.0001,"contract_size":5,"min_trade_amount":5,"settlement_currency":"XRP","settlement_period":"month","base_currency":"XRP","counter_currency":"USD","quote_currency":"USD","state":"Locked"},
    {"kind":"option","instrument_name":"BTC-27DEC24-100000-C","option_type":"call","strike":100000.0,"instrument_type":"reversed","expiration_timestamp":1735286400000,"is_active":true,"tick_size":5.0e-4,"contract_size":1.0,"min_trade_amount":0.1,"settlement_currency":"BTC","base_currency":"BTC","counter_currency":"USD","quote_currency":"BTC"},
    {"kind":"spot","instrument_name":"BTC_USDC","is_active":true,"tick_size":1.0,"contract_size":0.0001,"min_trade_amount":0.0001,"base_currency":"BTC","counter_currency":"USDC","quote_currency":"USDC"},
    {"kind":"future","instrument_name":"SOL_USDC-PERPETUAL","instrument_type":"linear","expiration_timestamp":32503708800000,"is_active":true,"tick_size":0.0001,"contract_size":0.1,"min_trade_amount":0.1,"settlement_currency":"USDC","settlement_period":"perpetual","base_currency":"SOL","counter_currency":"USDC","quote_currency":"USDC"},
    {"kind":"future_combo","instrument_name":"BTC-FS-27DEC24_PERP","is_active":true,"tick_size":0.01,"contract_size":10.0,"min_trade_amount":10.0,"base_currency":"BTC","counter_currency":"USD","quote_currency":"USD"}
],"usIn":1735000000000000,"usOut":1735000000000500,"usDiff":500,"testnet":false}"#;
const FUNDING: &str = r#"{"jsonrpc":"2.0","id":7617,"result":[{"timestamp":1569891600000,"index_price":8222.87,"prev_index_price":8305.72,"interest_8h":-9.234260068476106e-05,"interest_1h":-4.739622041017375e-07},{"timestamp":1569895200000,"index_price":8286.49,"prev_index_price":8222.87,"interest_8h":-6.720918180255509e-05,"interest_1h":0.000040037341082362756}]}"#;
const CANDLES: &str = r#"{"jsonrpc":"2.0","id":5,"result":{"data":[[1598019300000,0.210084879,0.212860821,0.210084879,0.212860821],[1598019360000,0.212869011,0.212987527,0.212869011,0.212987527],[1598019420000,0.212987723,0.212992597,0.212987723,0.212992597]],"continuation":null},"usIn":1598019430000000,"usOut":1598019430000100}"#;
const SUMMARY: &str = r#"{"jsonrpc":"2.0","id":1,"result":[{"instrument_name":"BTC-28MAR25-90000-C","underlying_price":95000.5,"underlying_index":"SYN.BTC-28MAR25","mark_price":0.042,"mid_price":0.041,"bid_price":0.040,"ask_price":0.042,"last":0.0415,"open_interest":123.5,"volume":10.0,"estimated_delivery_price":94900.0,"base_currency":"BTC","quote_currency":"BTC","creation_timestamp":1710000000000},{"instrument_name":"BTC-PERPETUAL","mark_price":95010.25,"mid_price":null,"bid_price":null,"ask_price":null,"last":null,"open_interest":1000,"current_funding":-1.5e-5,"funding_8h":0.0001,"base_currency":"BTC","quote_currency":"USD","creation_timestamp":1710000000001},{"instrument_name":"BTC-FS-28MAR25_PERP","mark_price":-12.5,"creation_timestamp":1710000000001}]}"#;
const ACKNOWLEDGEMENT: &str = r#"{"jsonrpc":"2.0","id":0,"result":["trades.BTC-PERPETUAL.raw"],"usIn":1626993723801012,"usOut":1626993723801345,"usDiff":333,"testnet":false}"#;

/// Frames of every kind, as the venue sends them.
pub(in crate::dialect) const FRAMES: [(&str, &str); 20] = [
    ("deribit", TRADES),
    ("deribit", LIQUIDATION),
    ("deribit", OPTION),
    ("deribit", SNAPSHOT),
    ("deribit", CHANGE),
    ("deribit", GROUPED),
    ("deribit", TICKER),
    ("deribit", OPTION_TICKER),
    ("deribit", QUOTE),
    ("deribit", PERPETUAL),
    ("deribit", PRICE_INDEX),
    ("deribit", VOLATILITY),
    ("deribit", MARK_PRICES),
    ("deribit", STATE),
    ("deribit", CREATION),
    ("deribit", PLATFORM),
    ("deribit", ORDER_BOOK),
    ("deribit", INSTRUMENTS),
    ("deribit", CANDLES),
    ("deribit", SUMMARY),
];

/// All that is not null in a row: names and values of its columns.
fn line(batch: &RecordBatch, row: usize) -> String {
    let mut line = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if column.is_null(row) {
            continue;
        }
        let value = match field.data_type() {
            DataType::Dictionary(..) => label(column.as_dictionary(), row).unwrap().to_string(),
            DataType::Utf8 => column.as_string::<i32>().value(row).to_string(),
            DataType::Boolean => column.as_boolean().value(row).to_string(),
            DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
            DataType::Decimal128(..) => Decimal::from_units(column.as_primitive::<Decimal128Type>().value(row)).to_string(),
            DataType::Timestamp(..) => display(column.as_primitive::<TimestampMicrosecondType>().value(row)),
            DataType::List(_) => {
                format!("{:?}", numbers(column.as_list(), row).iter().map(|n| Decimal::from_units(*n)).collect::<Vec<_>>())
            }
            other => panic!("{other}"),
        };
        line.push(format!("{}={value}", field.name()));
    }
    line.join(" ")
}

/// The rows of a frame: `kind: columns`, in the order of the kinds.
fn lines(found: &BTreeMap<String, RecordBatch>) -> Vec<String> {
    found.iter().flat_map(|(kind, batch)| (0..batch.num_rows()).map(move |row| format!("{kind}: {}", line(batch, row)))).collect()
}

/// What the rows of a frame are, but for the columns that are the same in all.
fn told(frame: &str) -> Vec<String> {
    told_of(frame, None)
}

fn told_of(frame: &str, topic: Option<&str>) -> Vec<String> {
    let (outcome, found) = decode_as("deribit", frame, Some(7_000_000), topic).unwrap_or_else(|reject| panic!("{reject:?}: {frame}"));
    assert_eq!(outcome == Outcome::Decoded, !found.is_empty());
    let common = " receive_time=1970-01-01T00:00:07.000000Z frame=3";
    lines(&found)
        .into_iter()
        .map(|line| {
            assert!(line.contains(": venue=deribit ") && line.contains(common), "{line}");
            line.replace(": venue=deribit ", ": ").replace(common, "")
        })
        .collect()
}

#[test]
fn amounts_of_inverse_trades_are_dollars() {
    assert_eq!(
        told(TRADES),
        [
            "trade: market=perpetual symbol=BTC-USD-PERP event_time=2025-12-12T09:22:36.452000Z trade_id=403691824 price=92294.5 quantity=0.000108348818 contracts=1 side=sell fills=1 backfilled=false",
            "trade: market=perpetual symbol=BTC-USD-PERP event_time=2025-12-12T09:22:36.452000Z trade_id=403691825 price=92288.5 quantity=0.008126689674 contracts=75 side=buy fills=1 backfilled=false",
        ]
    );
    // Trades of the past do not say how many contracts they were of.
    let past = TRADES.replace(",\"contracts\":1.0", "").replace(",\"contracts\":75.0", ",\"contracts\":null");
    assert_eq!(told(&past), told(TRADES));
    // Half a contract of ten dollars is five.
    let five = TRADES.replace("\"amount\":10.0", "\"amount\":5").replace(",\"contracts\":1.0", "");
    assert!(told(&five)[0].contains(" quantity=0.000054174409 contracts=0.5 "), "{}", told(&five)[0]);
}

#[test]
fn amounts_of_all_others_are_in_the_base_asset() {
    assert_eq!(
        told(OPTION),
        [
            "trade: market=option symbol=BTC-USD-260424-72000-C event_time=2026-02-13T12:07:34.552000Z trade_id=415305279 price=0.0525 quantity=3 contracts=3 side=buy fills=1 backfilled=true"
        ]
    );
    let trade = |name: &str, rest: &str| {
        told(&format!(
            r#"{{"method":"subscription","params":{{"channel":"trades.any.any.raw","data":[{{"instrument_name":"{name}","timestamp":1655397355998,"trade_id":"USDC-2436803","price":21026,"amount":0.049,"direction":"buy"{rest}}}]}}}}"#
        ))
        .remove(0)
    };
    let perpetual = "trade: market=perpetual symbol=BTC-USDC-PERP event_time=2022-06-16T16:35:55.998000Z trade_id=USDC-2436803 price=21026 quantity=0.049 side=buy fills=1 backfilled=false";
    assert_eq!(trade("BTC_USDC-PERPETUAL", ""), perpetual);
    assert_eq!(trade("BTC_USDC-PERPETUAL", ",\"contracts\":49.0"), perpetual.replace(" side", " contracts=49 side"));
    // A pair of assets has no contracts, whatever is sent.
    let spot = perpetual.replace("perpetual", "spot").replace("-PERP", "");
    assert_eq!(trade("BTC_USDC", ",\"contracts\":490.0"), spot);
}

#[test]
fn a_liquidation_has_the_side_of_the_order_that_closes() {
    let row = |kind: &str, side: &str| {
        let rest = match kind {
            "trade" => format!("trade_id=ETH-284830839 price=2500 quantity=2 contracts=5000 side={side} fills=1 backfilled=false"),
            _ => format!("side={side} price=2500 average_price=2500 quantity=2 filled_quantity=2 contracts=5000"),
        };
        format!("{kind}: market=perpetual symbol=ETH-USD-PERP event_time=2021-05-03T00:00:00.123000Z {rest}")
    };
    // The taker sold, because a long was liquidated.
    assert_eq!(told(LIQUIDATION), [row("liquidation", "sell"), row("trade", "sell")]);
    // The maker bought, because a short was.
    assert_eq!(told(&LIQUIDATION.replace("\"T\"", "\"M\"")), [row("liquidation", "buy"), row("trade", "sell")]);
    assert_eq!(
        told(&LIQUIDATION.replace("\"T\"", "\"MT\"")),
        [row("liquidation", "sell"), row("liquidation", "buy"), row("trade", "sell")]
    );
    assert_eq!(told(&LIQUIDATION.replace("\"T\"", "null")), [row("trade", "sell")]);
    let bought = LIQUIDATION.replace("\"sell\"", "\"buy\"");
    assert_eq!(told(&bought.replace("\"T\"", "\"M\"")), [row("liquidation", "sell"), row("trade", "buy")]);
    // Whoever wants only one of the kinds gets that.
    for (kind, frame, wanted) in
        [("liquidation", LIQUIDATION, 1), ("liquidation", TRADES, 0), ("trade", LIQUIDATION, 1), ("quote", TRADES, 0)]
    {
        let mut records = Records::wanting([kind]);
        let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: frame.as_bytes() };
        let outcome = make("deribit").unwrap().decode(frame, &mut records).unwrap();
        assert_eq!((records.len(), outcome == Outcome::Decoded), (wanted, wanted > 0), "{kind}");
    }
}

#[test]
fn trades_are_put_in_order_of_time() {
    let ids = |frame: &str| {
        let (_, found) = decode("deribit", frame).unwrap();
        let rows = TradeRows::of(&found["trade"]).unwrap();
        (0..rows.trade_id.len()).map(|row| rows.trade_id.value(row).to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(TRADES), ["403691824", "403691825"]);
    // Of one time the numbers tell the order, of two times the times do.
    let turned = TRADES.replace("403691824", "403691826");
    assert_eq!(ids(&turned), ["403691825", "403691826"]);
    let older = TRADES.replacen("1765531356452", "1765531356453", 1);
    assert_eq!(ids(&older), ["403691825", "403691824"]);
    let currency = TRADES.replace("403691824", "ETH-403691826").replace("\"403691825", "\"ETH-403691825");
    assert_eq!(ids(&currency), ["ETH-403691825", "ETH-403691826"]);
}

#[test]
fn books_of_inverse_instruments_are_in_contracts() {
    assert_eq!(
        told(SNAPSHOT),
        [
            "book_snapshot: market=perpetual symbol=BTC-USD-PERP event_time=2023-11-14T22:13:19.000000Z sequence=123456789 origin=venue bid_prices=[42500, 42499.5] bid_quantities=[100, 2.5] ask_prices=[42501] ask_quantities=[80] contracts=true"
        ]
    );
    assert_eq!(
        told(CHANGE),
        [
            "book_delta: market=perpetual symbol=BTC-USD-PERP event_time=2023-11-14T22:13:19.500000Z first_sequence=123456790 last_sequence=123456798 previous_sequence=123456789 bid_prices=[42500, 42498.5] bid_quantities=[95, 30] ask_prices=[42501, 42501.5] ask_quantities=[0, 70] contracts=true"
        ]
    );
    // Contracts of one dollar are as many as dollars.
    assert!(
        told(&CHANGE.replace("BTC-PERP", "ETH-PERP"))[0]
            .ends_with("bid_quantities=[950, 300] ask_prices=[42501, 42501.5] ask_quantities=[0, 700] contracts=true")
    );
    // In 2019 no book said whether it was whole.
    for (frame, kind) in [(SNAPSHOT, "\"type\":\"snapshot\","), (CHANGE, "\"type\":\"change\",")] {
        assert_eq!(told(&frame.replace(kind, "")), told(frame));
    }
}

#[test]
fn books_of_all_others_are_in_the_base_asset() {
    let whole = "book_snapshot: market=perpetual symbol=BTC-USDC-PERP event_time=2026-01-24T09:16:13.071000Z sequence=136725664747 origin=venue bid_prices=[89532.5, 89532] bid_quantities=[0.254, 0.001] ask_prices=[89533] ask_quantities=[9.157] contracts=false";
    assert_eq!(told(GROUPED), [whole]);
    let option =
        CHANGE.replace("BTC-PERPETUAL", "BTC-27DEC24-60000-C").replace("42500.0,950.0", "0.0525,15.4").replace("42498.5", "5.0e-4");
    assert!(
        told(&option)[0].contains("symbol=BTC-USD-241227-60000-C ")
            && told(&option)[0].contains(
                "bid_prices=[0.0525, 0.0005] bid_quantities=[15.4, 300] ask_prices=[42501, 42501.5] ask_quantities=[0, 700] contracts=false"
            )
    );
    let empty = r#"{"method":"subscription","params":{"channel":"book.BTC_USDC.raw","data":{"type":"snapshot","timestamp":1626993723632,"instrument_name":"BTC_USDC","change_id":13167318455,"bids":[],"asks":[]}}}"#;
    assert!(told(empty)[0].ends_with("bid_prices=[] bid_quantities=[] ask_prices=[] ask_quantities=[] contracts=false"));
}

#[test]
fn numbers_of_a_change_are_a_span_behind_the_one_before() {
    let numbers = |previous: &str, last: &str| {
        let frame = CHANGE.replace("\"prev_change_id\":123456789", &format!("\"prev_change_id\":{previous}")).replace("123456798", last);
        let (_, found) = decode("deribit", &frame).unwrap();
        let rows = BookDeltaRows::of(&found["book_delta"]).unwrap();
        [rows.previous_sequence.value(0), rows.first_sequence.value(0), rows.last_sequence.value(0)]
    };
    assert_eq!(numbers("5", "9"), [5, 6, 9]);
    assert_eq!(numbers("8", "9"), [8, 9, 9]);
    // Numbers that go nowhere or back are as they were sent, and are no change whose first is behind its last.
    assert_eq!(numbers("9", "9"), [9, 9, 9]);
    assert_eq!(numbers("20", "9"), [20, 9, 9]);
    assert_eq!(numbers("9223372036854775807", "9223372036854775807"), [i64::MAX; 3]);
}

#[test]
fn a_ticker_tells_five_kinds() {
    let time = "symbol=BTC-USD-PERP event_time=2026-08-12T19:32:00.494000Z";
    assert_eq!(
        told(TICKER),
        [
            format!("funding_rate: market=perpetual {time} rate=0.00002081 interval_seconds=28800"),
            format!("index_price: market=perpetual {time} price=63329.18"),
            format!("mark_price: market=perpetual {time} price=63346.33 settlement_price=63329.18"),
            format!("open_interest: market=perpetual {time} contracts=71600475 quote=716004750"),
            format!("quote: market=perpetual {time} bid_price=64000 bid_quantity=0.9071875 ask_price=63344.5 ask_quantity=0.15755116861"),
        ]
    );
    // Asked for the figures alone, as where `quote` tells the best bid and ask.
    assert_eq!(told_of(TICKER, Some("BTC-PERPETUAL@figures")), told(TICKER)[..4]);
    // A rate of zero is a rate: the premium is small.
    assert!(told(&TICKER.replace("2.081e-05", "0"))[0].contains(" rate=0 "));
    assert!(told(&TICKER.replace("2.081e-05", "-0.0000123456789125"))[0].contains(" rate=-0.000012345679 "));
    // Futures have none.
    let future = TICKER.replace("BTC-PERPETUAL", "ETH-27DEC24");
    assert_eq!(told(&future).len(), 4);
    assert!(told(&future)[2].ends_with("contracts=716004750 quote=716004750"));
    // Linear ones count open interest in the base asset, and assets themselves have none.
    let linear = TICKER.replace("BTC-PERPETUAL", "BTC_USDC-PERPETUAL").replace("716004750", "164.501");
    assert!(told(&linear)[3].ends_with(" base=164.501"), "{}", told(&linear)[3]);
    assert!(told(&linear)[4].ends_with(" bid_price=64000 bid_quantity=58060 ask_price=63344.5 ask_quantity=9980"));
    let kinds = |frame: &str| told(frame).iter().map(|line| line.split(':').next().unwrap().to_string()).collect::<Vec<_>>();
    assert_eq!(kinds(&TICKER.replace("BTC-PERPETUAL", "BTC_USDC")), ["index_price", "mark_price", "quote"]);
    // A combination has a price that may be negative, and is no instrument of its own.
    let combination = TICKER.replace("BTC-PERPETUAL", "BTC-FS-27DEC24_PERP").replace("63346.33", "-12.5");
    assert_eq!(kinds(&combination), [""; 0]);
    // Prices of zero are none, but for options.
    assert_eq!(kinds(&TICKER.replace("63346.33", "0").replace("63329.18", "0.0")), ["funding_rate", "open_interest", "quote"]);
}

#[test]
fn an_expired_option_is_worth_what_it_is() {
    let time = "symbol=BTC-USD-200608-8750-P event_time=2020-06-08T08:00:00.048000Z";
    assert_eq!(
        told(OPTION_TICKER),
        [
            format!("index_price: market=option {time} price=9729.25"),
            format!("mark_price: market=option {time} price=0"),
            format!("open_interest: market=option {time} base=0"),
            // Neither bid nor ask.
            format!("quote: market=option {time}"),
        ]
    );
    let open = OPTION_TICKER.replace("\"expired\"", "9434.36");
    assert!(told(&open)[1].ends_with(" price=0 settlement_price=9434.36"));
}

#[test]
fn quotes_have_both_sides_or_one() {
    assert_eq!(
        told(QUOTE),
        [
            "quote: market=option symbol=XRP-USDC-240830-0.5-C event_time=2019-02-20T10:30:24.149000Z bid_price=0.0365 bid_quantity=1000 ask_price=0.041 ask_quantity=25000"
        ]
    );
    for (from, to) in [("0.0365", "0.0"), ("0.0365", "null"), (":1000,", ":0,"), (":1000,", ":null,")] {
        let row = told(&QUOTE.replace(from, to)).remove(0);
        assert!(row.ends_with("149000Z ask_price=0.041 ask_quantity=25000"), "{row}");
    }
}

#[test]
fn figures_of_other_channels() {
    let time = "symbol=BTC-USD-PERP event_time=2019-10-18T08:12:29.530000Z";
    assert_eq!(
        told(PERPETUAL),
        [
            format!("funding_rate: market=perpetual {time} rate=0.004999511381 interval_seconds=28800"),
            format!("index_price: market=perpetual {time} price=7872.88"),
        ]
    );
    assert_eq!(told(PRICE_INDEX), ["index_price: market=index symbol=BTC-USD event_time=2019-02-19T14:53:22.899000Z price=3937.89"]);
    // What was a moment is no interval, so it has only its value.
    assert_eq!(told(VOLATILITY), ["volatility_index: market=index symbol=BTC-DVOL event_time=2021-04-30T10:19:06.007000Z close=129.36"]);
    let time = "event_time=2021-05-31T14:12:58.005000Z";
    assert_eq!(
        told(MARK_PRICES),
        [
            format!("mark_price: market=option symbol=BTC-USD-210602-37000-P {time} price=0.0333"),
            format!("mark_price: market=option symbol=BTC-USD-210604-40500-P {time} price=0"),
        ]
    );
}

#[test]
fn states_of_instruments_and_of_the_platform() {
    assert_eq!(told(STATE), ["venue_status: market=future symbol=BTC-USD-190322 event_time=2019-03-20T11:22:20.000000Z status=created"]);
    // These have no time of the venue's.
    assert_eq!(told(PLATFORM), ["venue_status: market=index symbol=SOL-USDC status=locked"]);
    assert_eq!(told(&PLATFORM.replace("true", "false")), ["venue_status: market=index symbol=SOL-USDC status=open"]);
    for (data, status) in [("\"maintenance\":true", "maintenance"), ("\"maintenance\":false", "open"), ("\"locked\":true", "locked")] {
        let frame = PLATFORM.replace("\"price_index\":\"sol_usdc\",\"locked\":true", data);
        assert_eq!(told(&frame), [format!("venue_status: status={status}")]);
    }
    assert_eq!(decode_as("deribit", PLATFORM, None, None).unwrap_err().reason, "no_time");
    let answer = |result: &str| told(&format!(r#"{{"jsonrpc":"2.0","id":55,"result":{{{result}}},"usOut":1735000000000500}}"#)).remove(0);
    let time = "venue_status: event_time=2024-12-24T00:26:40.000500Z";
    assert_eq!(answer(r#""locked":"false","locked_indices":[]"#), format!("{time} status=open"));
    assert_eq!(answer(r#""locked":true,"locked_currencies":["BTC"]"#), format!("{time} status=locked"));
    assert_eq!(
        answer(r#""locked_indices":["sol_usdc","xrp_usdc"],"locked":"partial""#),
        format!("{time} status=partially locked message=sol_usdc, xrp_usdc")
    );
}

#[test]
fn an_order_book_of_an_answer_tells_the_ticker_too() {
    let time = "symbol=BTC-USD-PERP event_time=2025-12-24T05:40:55.140000Z";
    assert_eq!(
        told(ORDER_BOOK),
        [
            format!(
                "book_snapshot: market=perpetual {time} sequence=133112427566 origin=venue bid_prices=[87002.5, 87002] bid_quantities=[19919, 1000] ask_prices=[87003, 87003.5] ask_quantities=[12509, 1000] contracts=true"
            ),
            format!("funding_rate: market=perpetual {time} rate=0 interval_seconds=28800"),
            format!("index_price: market=perpetual {time} price=86992.82"),
            format!("mark_price: market=perpetual {time} price=87006.21 settlement_price=86992.82"),
            format!("open_interest: market=perpetual {time} contracts=113955144 quote=1139551440"),
            format!(
                "quote: market=perpetual {time} bid_price=87002.5 bid_quantity=2.28947444039 ask_price=87003 ask_quantity=1.437766513798"
            ),
        ]
    );
    // A ticker alone looks the same, without the levels.
    let ticker = ORDER_BOOK
        .replace("\"asks\":[[87003.0,125090.0],[87003.5,10000.0]],", "")
        .replace("\"bids\":[[87002.5,199190.0],[87002.0,10000.0]],", "");
    assert_eq!(told(&ticker), told(ORDER_BOOK)[1..]);
}

#[test]
fn summaries_have_no_sizes_and_so_no_quotes() {
    let (option, perpetual) = (
        "symbol=BTC-USD-250328-90000-C event_time=2024-03-09T16:00:00.000000Z",
        "symbol=BTC-USD-PERP event_time=2024-03-09T16:00:00.001000Z",
    );
    assert_eq!(
        told(SUMMARY),
        [
            format!("funding_rate: market=perpetual {perpetual} rate=-0.000015 interval_seconds=28800"),
            format!("mark_price: market=option {option} price=0.042 settlement_price=94900"),
            format!("mark_price: market=perpetual {perpetual} price=95010.25"),
            format!("open_interest: market=option {option} base=123.5"),
            format!("open_interest: market=perpetual {perpetual} contracts=100 quote=1000"),
        ]
    );
}

#[test]
fn rates_of_the_past_are_those_of_an_hour() {
    let time = "symbol=BTC-USD-PERP event_time=2019-10-01T0";
    assert_eq!(
        told_of(FUNDING, Some("btc-perpetual@get_funding_rate_history")),
        [
            format!("funding_rate: market=perpetual {time}1:00:00.000000Z rate=-0.000000473962 interval_seconds=3600"),
            format!("funding_rate: market=perpetual {time}2:00:00.000000Z rate=0.000040037341 interval_seconds=3600"),
        ]
    );
    assert_eq!(reason("deribit", FUNDING), "missing_field");
    assert_eq!(decode_as("deribit", FUNDING, None, Some("")).unwrap_err().reason, "missing_field");
    assert_eq!(decode_as("deribit", FUNDING, None, Some("BTCUSDT")).unwrap_err().reason, "unknown_instrument");
}

#[test]
fn values_of_a_volatility_index_stand_at_the_end_of_their_interval() {
    let row =
        |time: &str, values: &str| format!("volatility_index: market=index symbol=BTC-DVOL event_time=2020-08-21T{time}.000000Z {values}");
    let (first, second) = (
        row("14:16:00", "open=0.210084879 high=0.212860821 low=0.210084879 close=0.212860821"),
        row("14:17:00", "open=0.212869011 high=0.212987527 low=0.212869011 close=0.212987527"),
    );
    // The third is not over, ten seconds after it began.
    assert_eq!(told_of(CANDLES, Some("BTC@get_volatility_index_data@60")), [first.clone(), second.clone()]);
    let later = CANDLES.replace("1598019430000100", "1598019480000000");
    let third = row("14:18:00", "open=0.212987723 high=0.212992597 low=0.212987723 close=0.212992597");
    assert_eq!(told_of(&later, Some("btc_usd@get_volatility_index_data@60")), [first, second, third]);
    // Without the venue's time ours tells.
    let untimed = CANDLES.replace("usOut", "usO");
    let decoded = |receive_time| decode_as("deribit", &untimed, receive_time, Some("BTC@get_volatility_index_data@1D")).unwrap();
    assert_eq!(decoded(Some(1_598_019_480_000_000)).0, Outcome::Ignored);
    assert_eq!(rows(&decoded(None).1, "volatility_index"), 3);
    let daily = &decoded(None).1["volatility_index"];
    assert!(line(daily, 0).contains("event_time=2020-08-22T14:15:00.000000Z"));
    for topic in
        [None, Some("BTC"), Some("BTC@get_volatility_index_data"), Some("BTC@get_volatility_index_data@0"), Some("@x@60"), Some("BTC@x@1m")]
    {
        assert_eq!(decode_as("deribit", CANDLES, None, topic).unwrap_err().reason, "missing_field", "{topic:?}");
    }
    assert_eq!(decode_as("deribit", CANDLES, None, Some("B-C@x@60")).unwrap_err().reason, "unknown_instrument");
}

#[test]
fn the_price_of_an_index_in_an_answer() {
    let answer = r#"{"jsonrpc":"2.0","result":{"index_price":11628.81,"estimated_delivery_price":11628.81},"usOut":1598019430000100}"#;
    let row = "index_price: market=index symbol=ETH-USDC event_time=2020-08-21T14:17:10.000100Z price=11628.81";
    assert_eq!(told_of(answer, Some("ETH_USDC@get_index_price")), [row]);
    assert_eq!(reason("deribit", answer), "missing_field");
    assert_eq!(decode_as("deribit", answer, None, Some("ETH")).unwrap_err().reason, "unknown_instrument");
}

#[test]
fn a_listing_makes_instruments() {
    let time = "event_time=2024-12-24T00:26:40.000500Z";
    assert_eq!(
        told(INSTRUMENTS),
        [
            format!(
                "instrument: market=perpetual symbol=BTC-USD-PERP {time} venue_symbol=BTC-PERPETUAL base=BTC quote=USD settlement=BTC status=active tick_size=0.5 lot_size=10 contract_size=10 inverse=true"
            ),
            format!(
                "instrument: market=future symbol=XRP-USD-241227 {time} venue_symbol=XRP-27DEC24 base=XRP quote=USD settlement=XRP status=locked tick_size=0.0001 lot_size=5 contract_size=5 inverse=true expiry=2024-12-27T08:00:00.000000Z"
            ),
            format!(
                "instrument: market=option symbol=BTC-USD-241227-100000-C {time} venue_symbol=BTC-27DEC24-100000-C base=BTC quote=BTC settlement=BTC status=active tick_size=0.0005 lot_size=0.1 contract_size=1 inverse=false expiry=2024-12-27T08:00:00.000000Z strike=100000 option_type=call"
            ),
            format!(
                "instrument: market=spot symbol=BTC-USDC {time} venue_symbol=BTC_USDC base=BTC quote=USDC status=active tick_size=1 lot_size=0.0001 inverse=false"
            ),
            format!(
                "instrument: market=perpetual symbol=SOL-USDC-PERP {time} venue_symbol=SOL_USDC-PERPETUAL base=SOL quote=USDC settlement=USDC status=active tick_size=0.0001 lot_size=0.1 contract_size=0.1 inverse=false"
            ),
        ]
    );
    assert_eq!(
        told(CREATION),
        [
            "instrument: market=option symbol=XRP-USDC-240830-0.5-C event_time=2024-08-16T08:01:00.000000Z venue_symbol=XRP_USDC-30AUG24-0d5-C base=XRP quote=USDC settlement=USDC status=open tick_size=0.0001 lot_size=1000 contract_size=1000 inverse=false expiry=2024-08-30T08:00:00.000000Z strike=0.5 option_type=call"
        ]
    );
    let one = r#"{"jsonrpc":"2.0","id":2,"result":{"kind":"future","instrument_name":"ETH-PERPETUAL","contract_size":1}}"#;
    assert_eq!(
        told(one),
        [
            "instrument: market=perpetual symbol=ETH-USD-PERP event_time=1970-01-01T00:00:07.000000Z venue_symbol=ETH-PERPETUAL base=ETH quote=USD contract_size=1 inverse=true"
        ]
    );
    assert_eq!(decode_as("deribit", one, None, None).unwrap_err().reason, "no_time");
}

#[test]
fn a_listing_tells_what_contracts_are_worth() {
    let mut dialects = Dialects::default();
    dialects.learn("deribit", INSTRUMENTS.as_bytes()).unwrap();
    let mut dialect = dialects.make("deribit").unwrap();
    let decode_with = |dialect: &mut Box<dyn Learn>, frame: &str| {
        let mut records = every_kind();
        let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: frame.as_bytes() };
        dialect.decode(frame, &mut records).map(|_| batches(&mut records))
    };
    let change = CHANGE.replace("BTC-PERPETUAL", "XRP-27DEC24");
    // Letters do not tell, and nobody guesses.
    assert_eq!(reason("deribit", &change), "unknown_instrument");
    let found = decode_with(&mut dialect, &change).unwrap();
    let rows = BookDeltaRows::of(&found["book_delta"]).unwrap();
    assert_eq!((label(rows.symbol, 0), rows.contracts.value(0)), (Some("XRP-USD-241227"), true));
    assert_eq!(numbers(rows.bid_quantities, 0), [190_000_000_000_000, 60_000_000_000_000]);
    let trades = TRADES.replace("BTC-PERPETUAL", "XRP-27DEC24").replace(",\"contracts\":75.0", "");
    let found = decode_with(&mut dialect, &trades).unwrap();
    let rows = TradeRows::of(&found["trade"]).unwrap();
    // An amount is in dollars, whatever a contract is worth.
    assert_eq!([number(rows.contracts, 0), number(rows.contracts, 1)], [Some(d("1")), Some(d("150"))]);
    assert_eq!(number(rows.quantity, 1), Some(d("0.008126689674")));
    // A listing wins over the letters.
    dialects.learn("deribit", INSTRUMENTS.replace("\"contract_size\":10.0", "\"contract_size\":25").as_bytes()).unwrap();
    let found = decode_with(&mut dialects.make("deribit").unwrap(), SNAPSHOT).unwrap();
    assert_eq!(numbers(BookSnapshotRows::of(&found["book_snapshot"]).unwrap().bid_quantities, 0), [40_000_000_000_000, 1_000_000_000_000]);
    // What cannot be a listing.
    for (listing, reason) in [
        ("[]", "is no answer"),
        ("{}", "`result` is missing"),
        (r#"{"result":[{"kind":"future"}]}"#, "instrument_name"),
        (r#"{"result":[{"kind":"future","instrument_name":"XRP-PERPETUAL"}]}"#, "`XRP-PERPETUAL` has no contract size"),
        (r#"{"result":[{"kind":"future","instrument_name":"BTC-PERPETUAL","contract_size":0}]}"#, "`BTC-PERPETUAL` has no contract size"),
        (r#"{"result":[{"kind":"future","instrument_name":"BTC-PERPETUAL","contract_size":1e-13}]}"#, "has more than 12 fraction digits"),
    ] {
        let error = dialects.learn("deribit", listing.as_bytes()).unwrap_err();
        assert!(error.contains(reason), "{listing}: {error}");
    }
}

#[test]
fn what_carries_no_record_is_ignored() {
    for frame in [
        ACKNOWLEDGEMENT,
        r#"{"jsonrpc":"2.0","id":1,"result":[]}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":"ok"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":null}"#,
        r#"{"jsonrpc":"2.0","id":7365,"result":1550147385946}"#,
        r#"{"jsonrpc":"2.0","id":7617,"result":-0.00025056853702101664}"#,
        r#"{"jsonrpc":"2.0","id":8212,"result":{"version":"1.2.26"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":[[1573228800000,8751.7138636],[1573232400000,8751.7138636]]}"#,
        r#"{"jsonrpc":"2.0","id":833,"result":{"volume":[19.007942601],"cost":[19000],"ticks":[1554373800000],"status":"ok","open":[4963.42],"low":[4728.94],"high":[5185.45],"close":[5052.95]}}"#,
        r#"{"jsonrpc":"2.0","id":3601,"result":{"data":[{"date":"2020-01-02","delivery_price":7131.214606410254}],"records_total":58}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"data":[{"timestamp":1550588002899,"index_price":7131.2,"interest_8h":0.1}],"current_interest":0.005,"interest_8h":0.004}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"data":[{"day":20200,"apr":2.814}],"continuation":20196}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"data":[],"continuation":null}}"#,
        r#"{"jsonrpc":"2.0","id":2,"result":[{"state_timestamp":1650636265101,"state":"active","legs":[],"id":"BTC-CS-29APR22-39300_39600"}]}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"trades":[{"trade_id":"1","order_id":"7"}],"order":{"order_id":"7"}}}"#,
        r#"{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}"#,
        r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"incremental_ticker.BTC-PERPETUAL","data":{"type":"change","timestamp":1623060194301,"best_bid_price":1}}}"#,
        r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"chart.trades.BTC-PERPETUAL.1","data":{"tick":1573645080000,"open":8869.79}}}"#,
        r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"estimated_expiration_price.btc_usd","data":{"seconds":180929,"price":3939.73,"is_estimated":false}}}"#,
        r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"block_rfq.trades.BTC","data":{"id":939}}}"#,
        r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"user.trades.BTC-PERPETUAL.raw","data":[{"trade_id":"1"}]}}"#,
        r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"platform_state.public_methods_state","data":{"allow_unauthenticated_public_requests":true}}}"#,
        r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.future.any.100ms","data":[]}}"#,
    ] {
        let (outcome, found) = decode("deribit", frame).unwrap_or_else(|reject| panic!("{reject:?}: {frame}"));
        assert_eq!((outcome, found.len()), (Outcome::Ignored, 0), "{frame}");
    }
    // Of a combination there is nothing, but what stands beside it in a list there is.
    for name in ["BTC-FS-25DEC26_PERP", "BTC-CS-19MAY26-70000_75000"] {
        for frame in [TRADES, SNAPSHOT, CHANGE, TICKER, &QUOTE.replace("XRP_USDC-30AUG24-0d5-C", "BTC-PERPETUAL"), ORDER_BOOK] {
            let combination = frame.replace("\"instrument_name\":\"BTC-PERPETUAL\"", &format!("\"instrument_name\":\"{name}\""));
            assert_ne!(combination, frame);
            assert_eq!(decode("deribit", &combination).unwrap().0, Outcome::Ignored, "{combination}");
        }
        let beside = TRADES.replacen("\"instrument_name\":\"BTC-PERPETUAL\"", &format!("\"instrument_name\":\"{name}\",\"x\":-1"), 1);
        assert_eq!(told(&beside), told(TRADES)[1..]);
    }
}

#[test]
fn every_refusal_has_its_reason() {
    let (trade, book, quote) = (TRADES, CHANGE, QUOTE);
    for (frame, from, to, expected) in [
        (trade, "\"method\":\"subscription\",", "", "unknown_event"),
        (trade, "\"subscription\"", "\"public/subscribe\"", "unknown_event"),
        (trade, "\"subscription\"", "7", "wrong_type"),
        (trade, "trades.BTC", "trade.BTC", "unknown_event"),
        (trade, "trades.BTC-PERPETUAL.100ms", "platform_state.x", "unknown_event"),
        (trade, "trades.BTC-PERPETUAL.100ms", "instrument.x", "unknown_event"),
        (trade, "\"channel\":\"trades.BTC-PERPETUAL.100ms\",", "", "missing_field"),
        (trade, "\"channel\":\"trades.BTC-PERPETUAL.100ms\"", "\"channel\":[]", "wrong_type"),
        (trade, "\"data\"", "\"date\"", "missing_field"),
        (trade, "\"data\":[{", "\"data\":[7,{", "wrong_type"),
        (trade, "\"trade_id\":\"403691825\"", "\"trade_id\":403691825", "wrong_type"),
        (trade, "\"403691825\"", "\"\"", "missing_field"),
        (trade, ",\"trade_id\":\"403691825\"", "", "missing_field"),
        (trade, "\"buy\"", "\"BUY\"", "wrong_type"),
        (trade, "\"direction\":\"buy\",", "", "missing_field"),
        (trade, "92288.5", "\"92288.5\"", "wrong_type"),
        (trade, "92288.5", "-92288.5", "bad_number"),
        (trade, "92288.5", "0.0", "not_a_trade"),
        (trade, "750.0", "0", "not_a_trade"),
        (trade, "750.0", "1e-13", "overflow"),
        (trade, "750.0", "1e27", "overflow"),
        (trade, "\"price\":92288.5,", "", "missing_field"),
        (trade, "\"contracts\":75.0", "\"contracts\":-1", "bad_number"),
        (trade, "\"contracts\":75.0", "\"contracts\":\"75\"", "wrong_type"),
        (trade, "\"contracts\":75.0", "\"liquidation\":\"none\"", "wrong_type"),
        (trade, "\"contracts\":75.0", "\"liquidation\":true", "wrong_type"),
        (trade, "\"timestamp\":1765531356452,\"price\":92288.5", "\"timestamp\":0,\"price\":92288.5", "bad_time"),
        (trade, "\"timestamp\":1765531356452,\"price\":92288.5", "\"timestamp\":1.5,\"price\":92288.5", "bad_number"),
        (trade, "\"timestamp\":1765531356452,\"price\":92288.5", "\"price\":92288.5", "missing_field"),
        (trade, "\"instrument_name\":\"BTC-PERPETUAL\"", "\"instrument_name\":\"BTC-PERP\"", "unknown_instrument"),
        (trade, "\"instrument_name\":\"BTC-PERPETUAL\"", "\"instrument_name\":\"XRP-PERPETUAL\"", "unknown_instrument"),
        (trade, "\"instrument_name\":\"BTC-PERPETUAL\"", "\"instrument_name\":7", "wrong_type"),
        (trade, "\"instrument_name\":\"BTC-PERPETUAL\",", "", "missing_field"),
        (book, "\"change\",\"timestamp\"", "\"update\",\"timestamp\"", "wrong_type"),
        (book, "\"change\",\"timestamp\"", "1,\"timestamp\"", "wrong_type"),
        (book, "\"prev_change_id\":123456789,", "", "missing_field"),
        (book, "\"prev_change_id\":123456789", "\"prev_change_id\":1.5", "bad_number"),
        (book, "\"change_id\":123456798,", "", "missing_field"),
        (book, "\"change_id\":123456798", "\"change_id\":\"123456798\"", "wrong_type"),
        (book, "\"change_id\":123456798", "\"change_id\":9223372036854775808", "bad_number"),
        (book, "\"bids\":[", "\"bid\":[", "missing_field"),
        (book, "\"asks\":[[\"delete\",42501.0,5.0],[\"change\",42501.5,700.0]]", "\"asks\":{}", "wrong_type"),
        (book, "[\"new\",42498.5,300.0]", "[42498.5,300.0]", "wrong_type"),
        (book, "[\"new\",42498.5,300.0]", "[\"new\",42498.5]", "wrong_type"),
        (book, "[\"new\",42498.5,300.0]", "[\"add\",42498.5,300.0]", "wrong_type"),
        (book, "[\"new\",42498.5,300.0]", "[\"new\",\"42498.5\",300.0]", "wrong_type"),
        (book, "[\"new\",42498.5,300.0]", "[\"new\",42498.5,null]", "wrong_type"),
        (book, "[\"new\",42498.5,300.0]", "\"new\"", "wrong_type"),
        (book, "[\"new\",42498.5,300.0]", "[]", "wrong_type"),
        (book, "[\"new\",42498.5,300.0]", "[\"new\",-42498.5,300.0]", "bad_number"),
        (book, "[\"new\",42498.5,300.0]", "[\"new\",42498.5,-300.0]", "bad_number"),
        (book, "42498.5", "42498.0000000000005", "overflow"),
        (book, "\"data\":{", "\"data\":{},\"x\":{", "missing_field"),
        (book, "\"data\":{", "\"data\":null,\"x\":{", "missing_field"),
        (book, "\"data\":{", "\"data\":7,\"x\":{", "wrong_type"),
        (book, "\"data\":{", "\"data\":7,\"data\":{", "malformed"),
        (book, "\"data\":{", "\"data\":{},\"data\":{", "malformed"),
        (book, "\"params\":{", "\"params\":1,\"params\":{", "malformed"),
        (book, "\"params\":{", "\"params\":{},\"params\":{", "malformed"),
        (book, "\"change_id\":123456798", "\"change_id\":1,\"change_id\":123456798", "malformed"),
        (quote, "\"best_bid_price\":0.0365,", "", "missing_field"),
        (quote, "\"best_ask_amount\"", "\"best_ask\"", "missing_field"),
        (quote, "0.0365", "-0.0365", "bad_number"),
        (quote, "0.0365", "\"0.0365\"", "wrong_type"),
        (quote, "25000", "[]", "wrong_type"),
        (TICKER, "63346.33", "-63346.33", "bad_number"),
        (TICKER, "63346.33", "\"63346.33\"", "wrong_type"),
        (TICKER, "\"estimated_delivery_price\":63329.18", "\"estimated_delivery_price\":\"later\"", "wrong_type"),
        (TICKER, "716004750", "-1", "bad_number"),
        (TICKER, "2.081e-05", "\"0\"", "wrong_type"),
        (TICKER, "2.081e-05", "1e99", "overflow"),
        (TICKER, "1786563120494", "\"1786563120494\"", "wrong_type"),
        (PERPETUAL, "\"interest\"", "\"interests\"", "missing_field"),
        (PERPETUAL, "perpetual.BTC-PERPETUAL.100ms", "perpetual", "unknown_instrument"),
        (PERPETUAL, "perpetual.BTC-PERPETUAL.100ms", "perpetual.BTC-FS-25DEC26_PERP.raw", "unknown_instrument"),
        (PRICE_INDEX, "3937.89", "0", "missing_field"),
        (PRICE_INDEX, "\"index_name\":\"btc_usd\"", "\"index_name\":\"BTC\"", "unknown_instrument"),
        (VOLATILITY, "129.36", "-1", "bad_number"),
        (VOLATILITY, "129.36", "null", "missing_field"),
        (VOLATILITY, "\"index_name\"", "\"name\"", "missing_field"),
        (MARK_PRICES, "0.0333", "null", "missing_field"),
        (MARK_PRICES, "BTC-2JUN21-37000-P", "BTC-2JUN21-37000-Q", "unknown_instrument"),
        (STATE, "\"Created\"", "1", "wrong_type"),
        (PLATFORM, "true", "\"true\"", "wrong_type"),
        (PLATFORM, "\"sol_usdc\"", "\"SOL\"", "unknown_instrument"),
        (PLATFORM, "\"locked\"", "\"lock\"", "missing_field"),
        (CREATION, "\"creation_timestamp\":1723795260000,", "", "missing_field"),
        (CREATION, "\"tick_size\":0.0001", "\"tick_size\":1e-13", "bad_number"),
        (CREATION, "\"strike\":0.5", "\"strike\":\"0.5\"", "wrong_type"),
        (INSTRUMENTS, "\"contract_size\":5,", "", "bad_number"),
        (INSTRUMENTS, "1735000000000500", "0", "bad_time"),
        (ORDER_BOOK, "\"change_id\":133112427566,", "", "missing_field"),
        (ORDER_BOOK, "\"best_ask_amount\":125090.0,", "", "missing_field"),
        (ORDER_BOOK, "\"id\":3", "\"error\":{\"code\":-32602}", "venue_error"),
        (OPTION, "\"trades\":[", "\"trades\":7,\"x\":[", "wrong_type"),
        (SUMMARY, "\"USD\",\"creation_timestamp\":1710000000001}", "\"USD\",\"creation_timestamp\":\"\"}", "wrong_type"),
        (FUNDING, "0.000040037341082362756", "null", "missing_field"),
    ] {
        assert!(frame.contains(from), "{from} is not in {frame}");
        // Of a list the second is damaged, so that the first must not be left behind.
        let at = frame.rfind(from).unwrap();
        let damaged = format!("{}{to}{}", &frame[..at], &frame[at + from.len()..]);
        let result = decode_as("deribit", &damaged, Some(1), Some("BTC-PERPETUAL"));
        assert_eq!(result.map(|(outcome, _)| outcome).expect_err(&damaged).reason, expected, "{damaged}");
    }
    for (frame, expected) in [
        ("", "malformed"),
        ("7", "malformed"),
        ("{", "malformed"),
        ("[]", "unknown_event"),
        ("{}", "unknown_event"),
        (r#"{"jsonrpc":"2.0","id":8163,"error":{"code":11050,"message":"bad_request"},"testnet":false}"#, "venue_error"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"new_thing":1}}"#, "unknown_event"),
        (r#"{"jsonrpc":"2.0","id":1,"result":[{"new_thing":1}]}"#, "unknown_event"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"locked":"perhaps"},"usOut":1735000000000500}"#, "wrong_type"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"data":[[1598019300000,1,2,3,4],[1598019300000,1,2,3]]}}"#, "wrong_type"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"data":[[1598019300000,1,2,3,4],{}]}}"#, "wrong_type"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"data":[[1598019300000,1,2,3,"4"]]}}"#, "wrong_type"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"data":[[0,1,2,3,4]]}}"#, "bad_time"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"data":[[1598019300000,1,2,3,-4]]}}"#, "bad_number"),
    ] {
        let result = decode_as("deribit", frame, Some(1), Some("BTC@get_volatility_index_data@60"));
        assert_eq!(result.map(|(outcome, _)| outcome).expect_err(frame).reason, expected, "{frame}");
    }
    let error = decode("deribit", r#"{"jsonrpc":"2.0","id":8163,"error":{"message":"bad_request","code":11050}}"#).unwrap_err();
    assert!(error.detail.contains("bad_request"), "{error:?}");
}

#[test]
fn thirty_seconds_give_the_records_of_another_reader() {
    let Some(text) = recording("thirty_seconds/DERIBIT.ws.1.0.gz") else { return };
    let (found, refused) = decode_all("deribit", received(&text).map(|(time, frame)| (time, None, frame)));
    assert_eq!(refused, []);
    assert_eq!(["book_snapshot", "book_delta", "quote", "trade"].map(|kind| rows(&found, kind)), [10, 36, 89, 0]);
    assert_eq!(["mark_price", "index_price", "open_interest", "funding_rate"].map(|kind| rows(&found, kind)), [89, 89, 89, 0]);

    let (books, deltas) = (BookSnapshotRows::of(&found["book_snapshot"]).unwrap(), BookDeltaRows::of(&found["book_delta"]).unwrap());
    let quotes = QuoteRows::of(&found["quote"]).unwrap();
    // Each change names the one before it, from the snapshot on, and the book comes to have the best bid and ask of every
    // ticker that follows the snapshot.
    let mut agreed = 0;
    for book in 0..10 {
        let symbol = label(books.symbol, book).unwrap();
        assert!(symbol.starts_with("BTC-USD-2") || symbol.starts_with("ETH-USD-2"), "{symbol}");
        assert!(!books.contracts.value(book) && label(books.market, book) == Some("option"));
        let level = |prices: &[i128], sizes: &[i128]| prices.iter().copied().zip(sizes.iter().copied()).collect::<Vec<_>>();
        // Best first, as the column says.
        assert!(numbers(books.bid_prices, book).is_sorted_by(|a, b| a > b) && numbers(books.ask_prices, book).is_sorted());
        let mut bids: BTreeMap<i128, i128> =
            level(numbers(books.bid_prices, book), numbers(books.bid_quantities, book)).into_iter().collect();
        let mut asks: BTreeMap<i128, i128> =
            level(numbers(books.ask_prices, book), numbers(books.ask_quantities, book)).into_iter().collect();
        let best = |bids: &BTreeMap<i128, i128>, asks: &BTreeMap<i128, i128>| {
            (bids.last_key_value().map(|(p, s)| (*p, *s)), asks.first_key_value().map(|(p, s)| (*p, *s)))
        };
        let mut seen = vec![best(&bids, &asks)];
        let mut sequence = books.sequence.value(book);
        for row in (0..36).filter(|row| label(deltas.symbol, *row) == Some(symbol)) {
            assert_eq!(deltas.previous_sequence.value(row), sequence, "{symbol}");
            assert_eq!(deltas.first_sequence.value(row), sequence + 1);
            sequence = deltas.last_sequence.value(row);
            for (side, prices, sizes) in [
                (&mut bids, numbers(deltas.bid_prices, row), numbers(deltas.bid_quantities, row)),
                (&mut asks, numbers(deltas.ask_prices, row), numbers(deltas.ask_quantities, row)),
            ] {
                for (price, size) in level(prices, sizes) {
                    if size == 0 {
                        side.remove(&price)
                    } else {
                        side.insert(price, size)
                    };
                }
            }
            seen.push(best(&bids, &asks));
        }
        let side = |price: &arrow::array::Decimal128Array, size: &arrow::array::Decimal128Array, row: usize| {
            price.is_valid(row).then(|| (price.value(row), size.value(row)))
        };
        let quoted = |row: usize| (side(quotes.bid_price, quotes.bid_quantity, row), side(quotes.ask_price, quotes.ask_quantity, row));
        agreed += (0..89).filter(|row| label(quotes.symbol, *row) == Some(symbol) && seen.contains(&quoted(*row))).count();
    }
    assert_eq!(agreed, 89);
}

#[test]
fn listed_instruments_are_those_that_the_letters_tell() {
    let Some(text) = recording("thirty_seconds/DERIBIT.0.gz") else { return };
    let mut seen = BTreeMap::new();
    for answer in text.lines().filter_map(|line| Some(line.split_once(" -> ")?.1.split_once(": ")?.1)) {
        let (_, found) = decode("deribit", answer).unwrap();
        let rows = InstrumentRows::of(&found["instrument"]).unwrap();
        let sent: Value = serde_json::from_str(answer).unwrap();
        for (row, item) in sent["result"].as_array().unwrap().iter().enumerate() {
            *seen.entry(label(rows.market, row).unwrap().to_string()).or_insert(0) += 1;
            let name = rows.venue_symbol.value(row);
            assert_eq!(name, item["instrument_name"].as_str().unwrap());
            assert_eq!(
                (label(rows.base, row), label(rows.quote, row)),
                (item["base_currency"].as_str(), item["quote_currency"].as_str()),
                "{name}"
            );
            for (ours, theirs) in [
                (rows.tick_size, "tick_size"),
                (rows.lot_size, "min_trade_amount"),
                (rows.contract_size, "contract_size"),
                (rows.strike, "strike"),
            ] {
                assert!(near(number(ours, row), &item[theirs]), "{theirs} of {name}");
            }
            let expires = item["settlement_period"] != "perpetual";
            let expiry = integer(rows.expiry, row);
            assert_eq!(expiry, item["expiration_timestamp"].as_i64().filter(|_| expires).map(|ms| ms * 1_000));
            // The name tells the day of the expiry, and the strike price.
            if let Some(expiry) = expiry {
                let day = display(expiry);
                let part = label(rows.symbol, row).unwrap().split('-').nth(2).unwrap();
                assert_eq!(part, format!("{}{}{}", &day[2..4], &day[5..7], &day[8..10]), "{name}");
            }
            if let Some(strike) = number(rows.strike, row) {
                assert_eq!(label(rows.symbol, row).unwrap().split('-').nth(3).unwrap(), strike.to_string());
            }
            assert_eq!(rows.inverse.value(row), item["kind"] == "future" && item["quote_currency"] == "USD", "{name}");
        }
        for (name, listing) in super::instruments(answer.as_bytes()).unwrap() {
            assert_eq!(InstrumentName.read(&name), Some(listing), "{name}");
        }
    }
    let count = |market: &str| seen.get(market).copied().unwrap_or_default();
    assert_eq!([count("option"), count("future"), count("perpetual")], [390 + 418 + 172, 7 + 7 + 4, 1 + 1 + 1 + 16]);
}

#[test]
fn another_projects_pairs_agree() {
    let Some(text) = recording("normalised_pairs/deribit.jsonl") else { return };
    let mut compared = BTreeMap::new();
    for (frames, expected) in pairs(&text) {
        let [frame] = frames.as_slice() else { panic!("{frames:?}") };
        let (_, found) = decode("deribit", &frame.to_string()).unwrap();
        let mut trades = 0;
        for record in &expected {
            let (kind, name) = (record["type"].as_str().unwrap(), record["symbol"].as_str().unwrap());
            *compared.entry(kind.to_string()).or_insert(0) += 1;
            let listing = InstrumentName.read(name).unwrap();
            let dollars = listing.contract.map(|contract| contract.size);
            let ours = match kind {
                "book_change" if record["isSnapshot"] == true => "book_snapshot",
                "book_change" => "book_delta",
                "book_ticker" => "quote",
                "trade" => "trade",
                _ => "mark_price",
            };
            let batch = &found[ours];
            let row = if kind == "trade" { trades } else { 0 };
            let time = integer(batch.column_by_name("event_time").unwrap().as_primitive::<TimestampMicrosecondType>(), row).unwrap();
            assert_eq!(display(time).replace("000Z", "Z"), record["timestamp"].as_str().unwrap());
            assert_eq!(label(batch.column_by_name("symbol").unwrap().as_dictionary(), row), Some(listing.symbol.as_str()));
            match kind {
                "trade" => {
                    let rows = TradeRows::of(batch).unwrap();
                    let (price, contracts) = (number(rows.price, row).unwrap(), number(rows.contracts, row).unwrap());
                    // Theirs is the amount in dollars.
                    assert!(
                        near(Some(price), &record["price"]) && near(contracts.mul_rounded(dollars.unwrap()), &record["amount"]),
                        "{record}"
                    );
                    let amount = number(rows.quantity, row).unwrap().mul_rounded(price).unwrap().to_f64();
                    assert!((amount - record["amount"].as_f64().unwrap()).abs() < 1e-6, "{record}");
                    assert_eq!(
                        (rows.trade_id.value(row), label(rows.side, row)),
                        (record["id"].as_str().unwrap(), record["side"].as_str())
                    );
                    trades += 1;
                }
                "book_change" => {
                    for (side, theirs) in [("bid", "bids"), ("ask", "asks")] {
                        let list = |what: &str| numbers(batch.column_by_name(&format!("{side}_{what}")).unwrap().as_list(), 0).to_vec();
                        let ours: Vec<_> = list("prices").into_iter().zip(list("quantities")).collect();
                        let theirs = record[theirs].as_array().unwrap();
                        assert_eq!(ours.len(), theirs.len());
                        for ((price, quantity), level) in ours.into_iter().zip(theirs) {
                            let amount = Decimal::from_units(quantity).mul_rounded(dollars.unwrap_or(Decimal::ONE));
                            assert!(near(Some(Decimal::from_units(price)), &level["price"]) && near(amount, &level["amount"]), "{record}");
                        }
                    }
                }
                "book_ticker" => {
                    let rows = QuoteRows::of(batch).unwrap();
                    for (price, size, their_price, their_size) in [
                        (rows.bid_price, rows.bid_quantity, "bidPrice", "bidAmount"),
                        (rows.ask_price, rows.ask_quantity, "askPrice", "askAmount"),
                    ] {
                        let (price, size) = (number(price, 0), number(size, 0));
                        assert!(near(price, &record[their_price]), "{record}");
                        // Theirs is the amount in dollars of inverse instruments.
                        match (dollars, price, size) {
                            (Some(_), Some(price), Some(size)) => {
                                let amount = size.mul_rounded(price).unwrap().to_f64();
                                assert!((amount - record[their_size].as_f64().unwrap()).abs() < 1e-6, "{record}");
                            }
                            _ => assert!(near(size, &record[their_size]), "{record}"),
                        }
                    }
                }
                _ => {
                    assert!(near(number(MarkPriceRows::of(batch).unwrap().price, 0), &record["markPrice"]), "{record}");
                    let rate = found.get("funding_rate").and_then(|rows| number(rows.column_by_name("rate").unwrap().as_primitive(), 0));
                    assert!(near(rate, &record["fundingRate"]), "{record}");
                    if !record["indexPrice"].is_null() {
                        let index = number(found["index_price"].column_by_name("price").unwrap().as_primitive(), 0);
                        assert!(near(index, &record["indexPrice"]), "{record}");
                    }
                    let open = OpenInterestRows::of(&found["open_interest"]).unwrap();
                    assert!(near(number(open.quote, 0).or(number(open.base, 0)), &record["openInterest"]), "{record}");
                }
            }
        }
    }
    // The second frame is a quote, of which the other project makes nothing.
    let kinds = ["trade", "book_change", "book_ticker", "derivative_ticker", "option_summary"];
    assert_eq!(kinds.map(|kind| compared.get(kind).copied().unwrap_or_default()), [2, 2, 5, 2, 3]);
}

#[test]
fn the_newest_messages_are_decoded() {
    let Some(text) = recording("recent_samples/ws_2026_samples.jsonl") else { return };
    let mut seen = Vec::new();
    for line in text.lines() {
        let sample: Value = serde_json::from_str(line).unwrap();
        if sample["venue"] != "deribit" {
            continue;
        }
        let (_, found) = decode("deribit", &sample["message"].to_string()).unwrap();
        let expected = |name: &str| sample["expected"][name].as_str().map(d);
        let cell = |kind: &str, column: &str| number(found[kind].column_by_name(column).unwrap().as_primitive(), 0);
        if found.contains_key("trade") {
            let rows = TradeRows::of(&found["trade"]).unwrap();
            assert_eq!(
                (rows.trade_id.value(0), label(rows.side, 0)),
                (sample["expected"]["id"].as_str().unwrap(), sample["expected"]["side"].as_str())
            );
            assert_eq!(Some(rows.event_time.value(0)), sample["expected"]["timestamp_ms"].as_i64().map(|ms| ms * 1_000));
            assert_eq!(number(rows.price, 0), expected("price"));
            assert_eq!(number(rows.contracts, 0).unwrap().mul_rounded(d("10")), expected("amount_usd"));
            let base = Decimal::parse_rounded(sample["expected"]["cost_base"].as_str().unwrap().as_bytes()).unwrap();
            assert_eq!(number(rows.quantity, 0), Some(base));
            seen.push("trade");
        } else {
            for (kind, column, name) in [
                ("quote", "bid_price", "bid"),
                ("quote", "ask_price", "ask"),
                ("mark_price", "price", "mark_price"),
                ("index_price", "price", "index_price"),
                ("open_interest", "quote", "open_interest"),
                ("funding_rate", "rate", "current_funding"),
            ] {
                assert_eq!(cell(kind, column), expected(name), "{name}");
            }
            for (size, price, name) in [("bid_quantity", "bid_price", "bid_size"), ("ask_quantity", "ask_price", "ask_size")] {
                assert_eq!(cell("quote", size), expected(name).unwrap().div_rounded(cell("quote", price).unwrap()));
            }
            seen.push("ticker");
        }
    }
    assert_eq!(seen, ["trade", "ticker"]);
}

/// Frames that no decoder may accept, made from the real ones.
fn malformed_frames() -> Vec<Vec<u8>> {
    let mut bad = Vec::new();
    for (_, frame) in FRAMES {
        let bytes = frame.as_bytes();
        for cut in [0, 1, bytes.len() / 4, bytes.len() / 2, bytes.len() - 2, bytes.len() - 1] {
            bad.push(bytes[..cut].to_vec());
        }
        for (from, to) in [("\":", "\" "), (",\"", "\""), ("\"r", "r"), ("{", "[")] {
            if frame.contains(from) {
                bad.push(frame.replacen(from, to, 1).into_bytes());
            }
        }
        let mut flipped = bytes.to_vec();
        flipped[bytes.len() / 2] = 0xff;
        bad.push(flipped);
        bad.push([bytes, b"{}"].concat());
        bad.push(frame.replacen('"', "\"\u{1}", 1).into_bytes());
    }
    bad
}

#[test]
fn malformed_frames_are_refused_and_leave_nothing() {
    let bad = malformed_frames();
    assert!(bad.len() >= 200, "{}", bad.len());
    for payload in bad {
        let mut records = every_kind();
        let frame = FrameRef { receive_time: Some(1), frame: 1, topic: Some("BTC@get_volatility_index_data@60"), payload: &payload };
        let result = make("deribit").unwrap().decode(frame, &mut records);
        let text = String::from_utf8_lossy(&payload);
        let reject = result.expect_err(&text);
        assert!(REASONS.contains(&reject.reason) && !reject.detail.is_empty(), "{reject:?}");
        assert!(records.is_empty(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_bytes_make_it_panic(which in 0..FRAMES.len(), damages in prop::collection::vec(damage(), 1..6), asked: bool) {
        let payload = damaged(FRAMES[which].1.as_bytes().to_vec(), &damages);
        let mut records = every_kind();
        let topic = asked.then_some("BTC@get_volatility_index_data@60");
        let frame = FrameRef { receive_time: None, frame: 1, topic, payload: &payload };
        match make("deribit").unwrap().decode(frame, &mut records) {
            // What is accepted is JSON for others as well.
            Ok(_) => prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&payload).is_ok()),
            Err(reject) => {
                prop_assert!(REASONS.contains(&reject.reason));
                prop_assert!(records.is_empty());
            }
        }
        // Whatever was pushed makes valid batches.
        records.finish();
    }

    #[test]
    fn numbers_survive_exactly(price in 1..10_i64.pow(15), amount in 1..10_i64.pow(15), id in 0..i64::MAX, millis in 1..10_i64.pow(14) - 1, sold: bool) {
        let (price, amount) = (Decimal::from_units(i128::from(price) * 10_000), Decimal::from_units(i128::from(amount)));
        let side = if sold { "sell" } else { "buy" };
        let frame = |name: &str| format!(r#"{{"method":"subscription","params":{{"channel":"trades.{name}.raw","data":[{{"instrument_name":"{name}","trade_id":"{id}","price":{price},"amount":{amount},"timestamp":{millis},"direction":"{side}"}}]}}}}"#);
        let (_, found) = decode("deribit", &frame("BTC_USDC-PERPETUAL")).unwrap();
        let rows = TradeRows::of(&found["trade"]).unwrap();
        prop_assert_eq!((number(rows.price, 0), number(rows.quantity, 0), number(rows.contracts, 0)), (Some(price), Some(amount), None));
        prop_assert_eq!((rows.trade_id.value(0).parse(), rows.event_time.value(0)), (Ok(id), millis * 1_000));
        prop_assert_eq!(label(rows.side, 0), Some(side));
        let (_, found) = decode("deribit", &frame("ETH-PERPETUAL")).unwrap();
        let rows = TradeRows::of(&found["trade"]).unwrap();
        prop_assert_eq!((number(rows.contracts, 0), number(rows.quantity, 0)), (Some(amount), amount.div_rounded(price)));
    }
}
