//! The dialect against real frames: recordings with counts worked out by others, another project's
//! expectations, and real frames damaged in every way.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use model::Decimal;
use model::columns::{integer, label, number, numbers};
use model::dialect::{Dialect, FrameRef, Outcome, Records, Reject};
use model::instrument::Contract;
use model::kinds::{
    BookDeltaRows, BookSnapshotRows, FundingRateRows, IndexPriceRows, InstrumentRows, LiquidationRows, LongShortRatioRows, MarkPriceRows,
    OpenInterestRows, QuoteRows, TradeRows, VenueStatusRows,
};
use model::time::{display, from_nanos};
use proptest::prelude::*;
use serde_json::Value;

use super::Exchange;
use crate::dialect::symbols::Spelling;
use crate::dialect::testing::{
    batches, d, damage, damaged, decode, decode_all, decode_as, every_kind, near, pairs, reason, received, recording, rows,
};
use crate::dialect::{Dialects, REASONS, make};

#[test]
fn a_trade_keeps_every_digit() {
    let frame = r#"{"e":"trade","E":1554076800945,"s":"BNBBTC","t":40756030,"p":"0.00426990","q":"33.82000000","b":133829535,"a":133829504,"T":1554076800940,"m":false,"M":true}"#;
    // The order of members, white space and an envelope make no difference.
    let shuffled = r#" {"data" : {"M":true, "m":false,"T":1554076800940,"x":{"e":"}\"{"},"q":"33.82000000","p":"0.00426990","t":40756030,"s":"BNBBTC","E":1554076800945,"e":"trade"},
        "stream":"bnbbtc@trade"}"#;
    for frame in [frame, shuffled] {
        let (outcome, found) = decode("binance_spot", frame).unwrap();
        assert_eq!((outcome, found.len()), (Outcome::Decoded, 1));
        let rows = TradeRows::of(&found["trade"]).unwrap();
        assert_eq!((label(rows.venue, 0), label(rows.market, 0), label(rows.symbol, 0)), (Some("binance"), Some("spot"), Some("BNB-BTC")));
        assert_eq!((rows.trade_id.value(0), label(rows.side, 0), rows.fills.value(0)), ("40756030", Some("buy"), 1));
        assert_eq!(
            (number(rows.price, 0), number(rows.quantity, 0), number(rows.contracts, 0)),
            (Some(d("0.0042699")), Some(d("33.82")), None)
        );
        assert_eq!(display(rows.event_time.value(0)), "2019-04-01T00:00:00.940000Z");
        assert_eq!((integer(rows.receive_time, 0), integer(rows.frame, 0)), (Some(7_000_000), Some(3)));
    }
}

#[test]
fn times_may_be_microseconds() {
    let frame = r#"{"e":"trade","s":"BTCUSDT","t":1,"p":"1","q":"1","T":1735689600123456,"m":true}"#;
    let (_, found) = decode("binance_spot", frame).unwrap();
    assert_eq!(display(TradeRows::of(&found["trade"]).unwrap().event_time.value(0)), "2025-01-01T00:00:00.123456Z");
}

#[test]
fn an_aggregate_trade_counts_its_fills() {
    let frame = r#"{"e":"aggTrade","E":1626916405246,"a":7297364,"s":"ETHUSD_210924","p":"1991.89","q":"160","f":11380903,"l":11380915,"T":1626916405206,"m":true}"#;
    let (_, found) = decode("binance_coinm", frame).unwrap();
    let rows = TradeRows::of(&found["trade"]).unwrap();
    assert_eq!((label(rows.market, 0), label(rows.symbol, 0)), (Some("future"), Some("ETH-USD-210924")));
    assert_eq!((rows.trade_id.value(0), rows.fills.value(0), label(rows.side, 0)), ("7297364", 13, Some("sell")));
    // 160 contracts of 10 USD.
    assert_eq!((number(rows.contracts, 0), number(rows.quantity, 0)), (Some(d("160")), Some(d("0.803257207978"))));
}

#[test]
fn transfers_are_no_trades() {
    let frame = |x, q| format!(r#"{{"e":"trade","E":1,"T":1723161256322,"s":"BTCUSDT","t":1,"p":"0","q":"{q}","X":"{x}","m":false}}"#);
    for x in ["NA", "INSURANCE_FUND", "ADL"] {
        assert_eq!(decode("binance_usdm", &frame(x, "0")).unwrap().0, Outcome::Ignored);
    }
    assert_eq!(reason("binance_usdm", &frame("MARKET", "1")), "not_a_trade");
}

#[test]
fn mark_price_index_and_funding_come_from_one_event() {
    let full = r#"{"e":"markPriceUpdate","E":1562305380000,"s":"BTCUSDT","p":"11794.15000000","i":"11784.62659091","P":"0.00000000","r":"-0.00038167","T":1562306400000}"#;
    let (_, found) = decode("binance_usdm", full).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["funding_rate", "index_price", "mark_price"]);
    let mark = MarkPriceRows::of(&found["mark_price"]).unwrap();
    assert_eq!((number(mark.price, 0), number(mark.settlement_price, 0)), (Some(d("11794.15")), None));
    let funding = FundingRateRows::of(&found["funding_rate"]).unwrap();
    assert_eq!((number(funding.rate, 0), integer(funding.next_funding_time, 0)), (Some(d("-0.00038167")), Some(1_562_306_400_000_000)));
    // A COIN-M future has no funding: empty text and zero.
    let future =
        r#"[{"e":"markPriceUpdate","E":1596095725000,"s":"BTCUSD_201225","p":"10934.62615417","P":"10962.17178236","r":"","T":0}]"#;
    let (_, found) = decode("binance_coinm", future).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["mark_price"]);
}

#[test]
fn lists_are_decoded_whole_or_not_at_all() {
    let one = |symbol| {
        format!(r#"{{"e":"markPriceUpdate","E":1562305380000,"s":"{symbol}","p":"1.5","i":"","P":"","r":"0.0001","T":1562306400000}}"#)
    };
    let list = format!(r#"{{"stream":"!markPrice@arr","data":[{},{}]}}"#, one("BTCUSDT"), one("ETHUSDT"));
    let (_, found) = decode("binance_usdm", &list).unwrap();
    assert_eq!((found["mark_price"].num_rows(), found["funding_rate"].num_rows()), (2, 2));
    assert_eq!(reason("binance_usdm", &format!("[{},{}]", one("BTCUSDT"), one("???"))), "unknown_instrument");
    assert_eq!(decode("binance_usdm", "[]").unwrap().0, Outcome::Ignored);
    assert_eq!(reason("binance_usdm", "[1]"), "unknown_event");
}

#[test]
fn a_liquidation_is_the_order_inside() {
    let usdm = r#"{"e":"forceOrder","E":1568014460893,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"9910","ap":"9910","X":"FILLED","l":"0.014","z":"0.014","T":1568014460893}}"#;
    let (_, found) = decode("binance_usdm", usdm).unwrap();
    let rows = LiquidationRows::of(&found["liquidation"]).unwrap();
    assert_eq!((label(rows.side, 0), label(rows.status, 0)), (Some("sell"), Some("filled")));
    assert_eq!((number(rows.quantity, 0), number(rows.contracts, 0)), (Some(d("0.014")), None));
    let coinm = r#"{"e":"forceOrder","E":1591154240950,"o":{"s":"BTCUSD_200925","ps":"BTCUSD","S":"BUY","o":"LIMIT","f":"IOC","q":"2","p":"9425.5","ap":"8000","X":"PARTIALLY_FILLED","l":"1","z":"1","T":1591154240949}}"#;
    let (_, found) = decode("binance_coinm", coinm).unwrap();
    let rows = LiquidationRows::of(&found["liquidation"]).unwrap();
    assert_eq!(
        (number(rows.quantity, 0), number(rows.filled_quantity, 0), number(rows.contracts, 0)),
        (Some(d("0.025")), Some(d("0.0125")), Some(d("2")))
    );
}

#[test]
fn a_snapshot_is_told_its_symbol() {
    let bare = r#"{"lastUpdateId":16084251,"bids":[["4091.92000000","0.00976500"],["4089.09000000","0.76393100",[]]],"asks":[ [ "4095.99000000" , "2.31652000" ] ]}"#;
    let (_, found) = decode_as("binance_spot", bare, Some(1), Some("btcusdc")).unwrap();
    let rows = BookSnapshotRows::of(&found["book_snapshot"]).unwrap();
    assert_eq!((label(rows.symbol, 0), label(rows.origin, 0), rows.sequence.value(0)), (Some("BTC-USDC"), Some("venue"), 16_084_251));
    assert_eq!(
        (numbers(rows.bid_prices, 0), numbers(rows.ask_quantities, 0)),
        (&[4_091_920_000_000_000, 4_089_090_000_000_000][..], &[2_316_520_000_000][..])
    );
    assert!(rows.event_time.is_null(0));
    assert_eq!(decode("binance_spot", bare).unwrap_err().reason, "missing_field");
    assert_eq!(decode_as("binance_spot", bare, None, Some("BTCUSDC")).unwrap_err().reason, "no_time");
    // The stream names the symbol of an enveloped one.
    let enveloped = format!(r#"{{"stream":"btcusdc@depthSnapshot","generated":true,"data":{bare}}}"#);
    assert_eq!(decode("binance_spot", &enveloped).unwrap().1["book_snapshot"].num_rows(), 1);
}

#[test]
fn streams_of_the_best_levels_are_snapshots() {
    let data = r#"{"e":"depthUpdate","E":1571889248277,"T":1571889248276,"s":"BTCUSDT","U":390497796,"u":390497878,"pu":390497794,"b":[["7403.89","0.002"]],"a":[]}"#;
    let found = |stream: &str| decode("binance_usdm", &format!(r#"{{"stream":"{stream}","data":{data}}}"#)).unwrap();
    assert_eq!(found("btcusdt@depth20@100ms").1.keys().collect::<Vec<_>>(), ["book_snapshot"]);
    for whole in ["btcusdt@depth", "btcusdt@depth@100ms", "btcusdt@depth@0ms"] {
        assert_eq!(found(whole).1.keys().collect::<Vec<_>>(), ["book_delta"]);
    }
    assert_eq!(found("btcusdt@rpiDepth@500ms").0, Outcome::Ignored);
}

#[test]
fn quotes_without_a_side_and_in_contracts() {
    let (_, found) =
        decode("binance_spot", r#"{"u":1,"s":"BTCUSDT","b":"0.00000000","B":"0.00000000","a":"8012.15000000","A":"0.03120100"}"#).unwrap();
    let rows = QuoteRows::of(&found["quote"]).unwrap();
    assert_eq!((number(rows.bid_price, 0), number(rows.bid_quantity, 0), number(rows.ask_price, 0)), (None, None, Some(d("8012.15"))));
    assert!(rows.event_time.is_null(0));
    let coinm = r#"{"u":1,"e":"bookTicker","s":"BTCUSD_PERP","ps":"BTCUSD","b":"50000","B":"10","a":"50001","A":"0","T":1626916403864,"E":1626916403871}"#;
    let (_, found) = decode("binance_coinm", coinm).unwrap();
    let rows = QuoteRows::of(&found["quote"]).unwrap();
    assert_eq!((number(rows.bid_quantity, 0), number(rows.ask_price, 0)), (Some(d("0.02")), None));
    assert_eq!(integer(rows.event_time, 0), Some(1_626_916_403_864_000));
}

#[test]
fn open_interest_keeps_its_units() {
    let amounts = |found: &BTreeMap<String, RecordBatch>| {
        let rows = OpenInterestRows::of(&found["open_interest"]).unwrap();
        [rows.contracts, rows.base, rows.quote].map(|column| number(column, 0))
    };
    let usdm = r#"{"openInterest":"10659.509","symbol":"BTCUSDT","time":1589437530011}"#;
    let (_, found) = decode("binance_usdm", usdm).unwrap();
    assert_eq!(amounts(&found), [None, Some(d("10659.509")), None]);
    let rows = OpenInterestRows::of(&found["open_interest"]).unwrap();
    assert_eq!((label(rows.symbol, 0), rows.event_time.value(0)), (Some("BTC-USDT-PERP"), 1_589_437_530_011_000));
    let history = r#"[{"symbol":"BTCUSDT","sumOpenInterest":"20403.63700000","sumOpenInterestValue":"150570784.07809979","CMCCirculatingSupply":"165900","timestamp":"1583127900000"},{"symbol":"BTCUSDT","sumOpenInterest":"20401.36700000","sumOpenInterestValue":"149940752.14464448","timestamp":1583128200000}]"#;
    let (_, found) = decode("binance_usdm", history).unwrap();
    assert_eq!((amounts(&found), found["open_interest"].num_rows()), ([None, Some(d("20403.637")), Some(d("150570784.07809979"))], 2));
    // 15,004 contracts of 100 USD.
    let coinm =
        r#"{"symbol":"BTCUSD_200626","openInterest":"15004","pair":"BTCUSD","time":1591261042378,"contractType":"CURRENT_QUARTER"}"#;
    assert_eq!(amounts(&decode("binance_coinm", coinm).unwrap().1), [Some(d("15004")), None, Some(d("1500400"))]);
    let coinm = r#"[{"pair":"BTCUSD","contractType":"PERPETUAL","sumOpenInterest":"20403","sumOpenInterestValue":"176.512","timestamp":1591261042378}]"#;
    let (_, found) = decode("binance_coinm", coinm).unwrap();
    assert_eq!(amounts(&found), [Some(d("20403")), Some(d("176.512")), Some(d("2040300"))]);
    assert_eq!(label(OpenInterestRows::of(&found["open_interest"]).unwrap().symbol, 0), Some("BTC-USD-PERP"));
    // Which quarter it is, is not said.
    let quarter = coinm.replace("PERPETUAL", "CURRENT_QUARTER");
    assert_eq!(decode("binance_coinm", &quarter).unwrap_err().reason, "missing_field");
    let (_, found) = decode_as("binance_coinm", &quarter, None, Some("BTCUSD_260327")).unwrap();
    assert_eq!(label(OpenInterestRows::of(&found["open_interest"]).unwrap().symbol, 0), Some("BTC-USD-260327"));
}

#[test]
fn ratios_are_told_apart_by_what_was_asked() {
    let answer =
        r#"[{"symbol":"BTCUSDT","longShortRatio":"1.4342","longAccount":"0.5891","shortAccount":"0.4108","timestamp":1583139600000}]"#;
    for (topic, basis, population, period) in [
        ("BTCUSDT@globalLongShortAccountRatio@5m", "account", "all", 300),
        ("BTCUSDT@topLongShortAccountRatio@2h", "account", "top", 7_200),
        ("BTCUSDT@topLongShortPositionRatio@1d", "position", "top", 86_400),
    ] {
        let (_, found) = decode_as("binance_usdm", answer, None, Some(topic)).unwrap();
        let rows = LongShortRatioRows::of(&found["long_short_ratio"]).unwrap();
        assert_eq!(
            (label(rows.basis, 0), label(rows.population, 0), rows.period_seconds.value(0)),
            (Some(basis), Some(population), period)
        );
        assert_eq!(
            [rows.ratio, rows.long_share, rows.short_share].map(|column| number(column, 0)),
            [Some(d("1.4342")), Some(d("0.5891")), Some(d("0.4108"))]
        );
        assert_eq!((label(rows.symbol, 0), rows.event_time.value(0)), (Some("BTC-USDT-PERP"), 1_583_139_600_000_000));
    }
    let coinm =
        r#"[{"pair":"BTCUSD","longShortRatio":"0.7869","longPosition":"0.6442","shortPosition":"0.4404","timestamp":1592870400000}]"#;
    let (_, found) = decode_as("binance_coinm", coinm, None, Some("BTCUSD@topLongShortPositionRatio@5m")).unwrap();
    let rows = LongShortRatioRows::of(&found["long_short_ratio"]).unwrap();
    assert_eq!((label(rows.symbol, 0), number(rows.long_share, 0)), (Some("BTC-USD-PERP"), Some(d("0.6442"))));
    for topic in [
        None,
        Some("BTCUSDT"),
        Some("BTCUSDT@takerlongshortRatio@5m"),
        Some("BTCUSDT@topLongShortPositionRatio"),
        Some("BTCUSDT@topLongShortPositionRatio@0m"),
    ] {
        assert_eq!(decode_as("binance_usdm", answer, None, topic).unwrap_err().reason, "missing_field", "{topic:?}");
    }
}

#[test]
fn funding_and_prices_of_answers() {
    let history = r#"[{"symbol":"BTCUSDT","fundingRate":"-0.03750000","fundingTime":1570608000000,"markPrice":"34287.54619963"},{"symbol":"BTCUSDT","fundingRate":"0.00010000","fundingTime":1570636800000,"markPrice":""}]"#;
    let (_, found) = decode("binance_usdm", history).unwrap();
    let funding = FundingRateRows::of(&found["funding_rate"]).unwrap();
    assert_eq!((funding.rate.len(), number(funding.rate, 0), found.len()), (2, Some(d("-0.0375")), 1));
    assert_eq!((funding.event_time.value(1), integer(funding.next_funding_time, 1)), (1_570_636_800_000_000, Some(1_570_636_800_000_000)));
    let premium = r#"[{"symbol":"BTCUSD_PERP","pair":"BTCUSD","markPrice":"11029.69574559","indexPrice":"10979.14437500","estimatedSettlePrice":"10981.74168236","lastFundingRate":"0.00071003","interestRate":"0.00010000","nextFundingTime":1596096000000,"time":1596094042000},{"symbol":"BTCUSD_200925","pair":"BTCUSD","markPrice":"12077.01343750","indexPrice":"10979.10312500","estimatedSettlePrice":"10981.74168236","lastFundingRate":"","interestRate":"","nextFundingTime":0,"time":1596094042000}]"#;
    let (_, found) = decode("binance_coinm", premium).unwrap();
    assert_eq!(["mark_price", "index_price", "funding_rate"].map(|kind| rows(&found, kind)), [2, 2, 1]);
    let funding = FundingRateRows::of(&found["funding_rate"]).unwrap();
    assert_eq!((label(funding.symbol, 0), number(funding.rate, 0)), (Some("BTC-USD-PERP"), Some(d("0.00071003"))));
    assert_eq!(integer(funding.next_funding_time, 0), Some(1_596_096_000_000_000));
    let mark = MarkPriceRows::of(&found["mark_price"]).unwrap();
    assert_eq!((label(mark.symbol, 1), number(mark.settlement_price, 1)), (Some("BTC-USD-200925"), Some(d("10981.74168236"))));
}

#[test]
fn trades_of_the_past_are_those_of_the_stream() {
    let trades = r#"[{"id":28457,"price":"4.00000100","qty":"12.00000000","quoteQty":"48.000012","time":1499865549590,"isBuyerMaker":true,"isBestMatch":true}]"#;
    let aggregates = r#"[{"a":26129,"p":"0.01633102","q":"4.70443515","f":27781,"l":27783,"T":1498793709153,"m":false,"M":true}]"#;
    let (_, found) = decode_as("binance_spot", trades, None, Some("btcusdt@historicalTrades")).unwrap();
    let rows = TradeRows::of(&found["trade"]).unwrap();
    assert_eq!((rows.trade_id.value(0), label(rows.side, 0), label(rows.symbol, 0)), ("28457", Some("sell"), Some("BTC-USDT")));
    assert_eq!((number(rows.price, 0), number(rows.quantity, 0), rows.fills.value(0)), (Some(d("4.000001")), Some(d("12")), 1));
    let (_, found) = decode_as("binance_spot", aggregates, None, Some("BTCUSDT")).unwrap();
    let rows = TradeRows::of(&found["trade"]).unwrap();
    assert_eq!((rows.trade_id.value(0), label(rows.side, 0), rows.fills.value(0)), ("26129", Some("buy"), 3));
    assert_eq!(rows.event_time.value(0), 1_498_793_709_153_000);
    assert_eq!(decode("binance_spot", trades).unwrap_err().reason, "missing_field");
    let none = trades.replace("\"12.00000000\"", "\"0\"");
    assert_eq!(decode_as("binance_spot", &none, None, Some("BTCUSDT")).unwrap_err().reason, "not_a_trade");
    // 10 contracts of 100 USD.
    let coinm = r#"[{"id":595103,"price":"9642.2","qty":"10","baseQty":"0.1","time":1499865549590,"isBuyerMaker":true}]"#;
    let (_, found) = decode_as("binance_coinm", coinm, None, Some("BTCUSD_PERP")).unwrap();
    let rows = TradeRows::of(&found["trade"]).unwrap();
    assert_eq!((number(rows.contracts, 0), number(rows.quantity, 0)), (Some(d("10")), Some(d("0.103710771401"))));
}

#[test]
fn quotes_and_states_of_answers() {
    let futures = r#"[{"lastUpdateId":1027024,"symbol":"BTCUSDT","bidPrice":"4.00000000","bidQty":"431.00000000","askPrice":"4.00000200","askQty":"0","time":1589437530011}]"#;
    let (_, found) = decode("binance_usdm", futures).unwrap();
    let rows = QuoteRows::of(&found["quote"]).unwrap();
    assert_eq!((integer(rows.sequence, 0), integer(rows.event_time, 0)), (Some(1_027_024), Some(1_589_437_530_011_000)));
    assert_eq!((number(rows.bid_quantity, 0), number(rows.ask_price, 0)), (Some(d("431")), None));
    let spot = r#"{"symbol":"LTCBTC","bidPrice":"4.00000000","bidQty":"431.00000000","askPrice":"4.00000200","askQty":"9.00000000"}"#;
    let (_, found) = decode("binance_spot", spot).unwrap();
    assert!(QuoteRows::of(&found["quote"]).unwrap().sequence.is_null(0));
    assert_eq!(decode_as("binance_spot", spot, None, None).unwrap_err().reason, "no_time");

    let (_, found) = decode("binance_spot", r#"{"status":1,"msg":"system_maintenance"}"#).unwrap();
    let rows = VenueStatusRows::of(&found["venue_status"]).unwrap();
    assert_eq!((label(rows.status, 0), rows.message.value(0), label(rows.market, 0)), (Some("maintenance"), "system_maintenance", None));
    assert_eq!(reason("binance_spot", r#"{"status":2,"msg":"x"}"#), "wrong_type");
    let contract = r#"{"e":"contractInfo","E":1669356423908,"s":"IOTAUSDT","ps":"IOTAUSDT","ct":"PERPETUAL","dt":4133404800000,"ot":1569398400000,"cs":"PRE_DELIVERING","bks":[{"bs":1,"bnf":0,"bnc":5000,"mmr":0.01,"cf":0,"mi":21,"ma":50}]}"#;
    let (_, found) = decode("binance_usdm", contract).unwrap();
    let rows = VenueStatusRows::of(&found["venue_status"]).unwrap();
    assert_eq!((label(rows.status, 0), label(rows.symbol, 0)), (Some("pre_delivering"), Some("IOTA-USDT-PERP")));
    assert_eq!(integer(rows.event_time, 0), Some(1_669_356_423_908_000));
}

#[test]
fn what_carries_no_record_is_ignored() {
    for frame in [
        r#"{"result":null,"id":1}"#,
        r#"[{"symbol":"BLZUSDT","adjustedFundingRateCap":"0.02500000","fundingIntervalHours":8}]"#,
        r#"{"serverTime":1499827319559}"#,
        r#"{"id":1000,"result":["btcusdt@trade"]}"#,
        r#"{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":1,"o":"1"}}"#,
        r#"[{"e":"24hrMiniTicker","E":1,"s":"BTCUSDT","c":"1"}]"#,
        r#"{"stream":"btcusd@indexPrice@1s","data":{"e":"indexPriceUpdate","E":1592265601001,"i":"BTCUSD","p":"9429.39675000"}}"#,
    ] {
        assert_eq!(decode("binance_spot", frame).unwrap().0, Outcome::Ignored, "{frame}");
    }
    // Nothing of an unwanted kind is read.
    let mut none = Records::default();
    let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: br#"{"e":"trade","s":5}"# };
    assert_eq!(make("binance_spot").unwrap().decode(frame, &mut none), Ok(Outcome::Ignored));
}

#[test]
fn every_refusal_has_its_reason_and_names_the_place() {
    let trade = |from: &str, to: &str| {
        let frame = r#"{"e":"trade","E":1,"s":"BTCUSDT","t":40756030,"p":"0.5","q":"33.8","T":1554076800940,"m":false}"#;
        assert!(frame.contains(from), "{from}");
        decode("binance_spot", &frame.replace(from, to)).unwrap_err()
    };
    for (from, to, reason, detail) in [
        ("}", "", "malformed", "the text ends before the value does at byte 94"),
        ("}", "}]", "malformed", "bytes after the value at byte 95"),
        ("\"E\":1,", "\"p\":\"2\",", "malformed", "member named twice at byte 53"),
        ("trade", "tirade", "unknown_event", "\"tirade\" is no event of Binance's that we know"),
        ("\"e\"", "\"x\"", "unknown_event", "an object without the event type `e` is no event of Binance's that we know"),
        ("\"s\":\"BTCUSDT\",", "", "missing_field", "`s` is missing"),
        ("\"0.5\"", "null", "missing_field", "`p` is missing"),
        ("\"0.5\"", "0.5", "wrong_type", "`p` is 0.5, where a quoted number should be"),
        ("false", "\"false\"", "wrong_type", "`m` is \"false\", where true or false should be"),
        ("40756030", "\"40756030\"", "wrong_type", "`t` is \"40756030\", where a whole number should be"),
        ("40756030", "4.5", "bad_number", "`t` is 4.5, which is no whole number of 64 bits"),
        ("\"0.5\"", "\"0,5\"", "bad_number", "`p` is \"0,5\", which is not a decimal number"),
        ("\"0.5\"", "\"-0.5\"", "bad_number", "`p` is \"-0.5\", which is negative"),
        ("\"0.5\"", "\"0.1234567890123\"", "overflow", "`p` is \"0.1234567890123\", which has more than 12 fraction digits"),
        ("1554076800940", "-4", "bad_time", "`T` is -4, which is no time in milliseconds or microseconds since 1970"),
        ("\"33.8\"", "\"0.000\"", "not_a_trade", "price `p` is 0.5 and size `q` is 0; neither may be zero"),
        (
            "BTCUSDT",
            "BTCXYZ",
            "unknown_instrument",
            "`BTCXYZ` is not in the listing and its letters do not tell base from quote; give the source the venue's `exchangeInfo` as `instruments`",
        ),
    ] {
        assert_eq!(trade(from, to), Reject::new(reason, detail));
        assert!(REASONS.contains(&reason));
    }
    let answer = r#"{"code":-1121,"msg":"Invalid symbol."}"#;
    assert_eq!(
        decode("binance_spot", answer).unwrap_err(),
        Reject::new("venue_error", format!("the venue answered with an error: {answer}"))
    );
    assert_eq!(reason("binance_spot", r#"{"u":1,"s":"A","b":["1"],"B":"1","a":"1","A":"1"}"#), "wrong_type");
    let depth = r#"{"e":"depthUpdate","E":1571889248277,"s":"BTCUSDT","U":1,"u":2,"b":[["1","1"],LEVEL],"a":[]}"#;
    for (level, expected) in [
        ("[\"1\"]", "wrong_type"),
        ("7", "wrong_type"),
        ("[1,2]", "wrong_type"),
        ("[\"x\",\"1\"]", "bad_number"),
        ("[\"1\",\"-1\"]", "bad_number"),
    ] {
        assert_eq!(reason("binance_spot", &depth.replace("LEVEL", level)), expected, "{level}");
    }
}

#[test]
fn a_listing_is_learnt_and_becomes_records() {
    for (file, dialect, exchange, count, first) in [
        ("thirty_seconds/BINANCE.0.gz", "binance_spot", Exchange::Spot, 1695, "ETH-BTC"),
        ("thirty_seconds/BINANCE_FUTURES.0.gz", "binance_usdm", Exchange::UsdM, 121, "BTC-USDT-PERP"),
        ("thirty_seconds/BINANCE_DELIVERY.0.gz", "binance_coinm", Exchange::CoinM, 36, "BTC-USD-PERP"),
    ] {
        let Some(text) = recording(file) else { return };
        let listing = text.lines().next().unwrap().split_once(": ").unwrap().1;
        let (_, found) = decode(dialect, listing).unwrap();
        let rows = InstrumentRows::of(&found["instrument"]).unwrap();
        assert_eq!((found["instrument"].num_rows(), label(rows.symbol, 0)), (count, Some(first)));
        assert!(number(rows.tick_size, 0).is_some() && number(rows.lot_size, 0).is_some());
        let mut dialects = Dialects::default();
        dialects.learn(dialect, listing.as_bytes()).unwrap();
        assert!(dialects.make(dialect).is_some());
        // The letters alone say the same as the listing.
        for (symbol, listed) in super::instruments(exchange, listing.as_bytes()).unwrap() {
            assert_eq!(exchange.read(&symbol).as_ref(), Some(&listed), "{symbol}");
        }
    }
    let mut dialects = Dialects::default();
    assert!(dialects.learn("binance_spot", b"[]").unwrap_err().contains("exchangeInfo"));
    assert!(dialects.learn("bitmex", b"{}").is_err());
}

#[test]
fn a_learnt_listing_reaches_every_dialect_made() {
    let mut dialects = Dialects::default();
    let listing =
        br#"{"symbols":[{"symbol":"FOOUSD_PERP","baseAsset":"FOO","quoteAsset":"USD","contractType":"PERPETUAL","contractSize":5}]}"#;
    dialects.learn("binance_coinm", listing).unwrap();
    for _ in 0..2 {
        let mut records = every_kind();
        let payload = br#"{"e":"trade","T":1562306400000,"s":"FOOUSD_PERP","t":1,"p":"2","q":"4","m":true}"#;
        dialects
            .make("binance_coinm")
            .unwrap()
            .decode(FrameRef { receive_time: None, frame: 1, topic: None, payload }, &mut records)
            .unwrap();
        let found = batches(&mut records);
        assert_eq!(number(TradeRows::of(&found["trade"]).unwrap().quantity, 0), Some(d("10")));
    }
}

#[test]
fn what_is_listed_later_is_learned_by_a_dialect_that_decodes_already() {
    let (mut dialect, mut records) = (Dialects::default().make("binance_coinm").unwrap(), every_kind());
    let frame = FrameRef {
        receive_time: None,
        frame: 1,
        topic: None,
        payload: br#"{"e":"trade","T":1562306400000,"s":"FOOUSD_PERP","t":1,"p":"2","q":"4","m":true}"#,
    };
    let mut quantity = |dialect: &mut dyn Dialect| {
        dialect.decode(frame, &mut records).unwrap();
        number(TradeRows::of(&batches(&mut records)["trade"]).unwrap().quantity, 0)
    };
    assert_eq!(quantity(&mut *dialect), Some(d("20")), "contracts are worth 10, mostly");
    assert!(dialect.learn(b"[]").unwrap_err().contains("exchangeInfo"));
    let listing =
        br#"{"symbols":[{"symbol":"FOOUSD_PERP","baseAsset":"FOO","quoteAsset":"USD","contractType":"PERPETUAL","contractSize":5}]}"#;
    dialect.learn(listing).unwrap();
    assert_eq!(quantity(&mut *dialect), Some(d("10")));
}

/// The listing of options as Binance's documentation of `GET /eapi/v1/exchangeInfo` has it, with a put beside the call.
const OPTION_LISTING: &str = r#"{"timezone":"UTC","serverTime":1592387337630,"optionContracts":[{"baseAsset":"BTC","quoteAsset":"USDT","underlying":"BTCUSDT","settleAsset":"USDT"}],"optionAssets":[{"name":"USDT"}],"optionSymbols":[{"expiryDate":1660521600000,"filters":[{"filterType":"PRICE_FILTER","minPrice":"0.02","maxPrice":"80000.01","tickSize":"0.01"},{"filterType":"LOT_SIZE","minQty":"0.01","maxQty":"100","stepSize":"0.01"}],"symbol":"BTC-220815-50000-C","side":"CALL","strikePrice":"50000","underlying":"BTCUSDT","unit":1,"liquidationFeeRate":"0.0019000","minQty":"0.01","maxQty":"100","initialMargin":"0.15","maintenanceMargin":"0.075","minInitialMargin":"0.1","minMaintenanceMargin":"0.05","priceScale":2,"quantityScale":2,"quoteAsset":"USDT","contractType":"CRYPTO_OPTIONS","underlyingType":"CRYPTO","nakedSell":false,"status":"TRADING"},{"expiryDate":1660521600000,"filters":[],"symbol":"BTC-220815-50000-P","side":"PUT","strikePrice":"50000.00000000","underlying":"BTCUSDT","unit":1,"quoteAsset":"USDT"}],"rateLimits":[{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","intervalNum":1,"limit":2400}]}"#;

#[test]
fn trades_of_options_have_the_side_of_the_taker() {
    // Documentation, "Trade Streams".
    let frame = r#"{"e":"trade","E":1762856064204,"T":1762856064203,"s":"BTC-251123-126000-C","t":4,"p":"1300.000","q":"0.1000","X":"MARKET","S":"BUY","m":false}"#;
    let negotiated = frame.replace("MARKET", "BLOCK").replace("false", "true");
    for (frame, side) in [(frame, "buy"), (negotiated.as_str(), "sell")] {
        let (_, found) = decode("binance_options", frame).unwrap();
        let rows = TradeRows::of(&found["trade"]).unwrap();
        assert_eq!((label(rows.market, 0), label(rows.symbol, 0)), (Some("option"), Some("BTC-USDT-251123-126000-C")));
        assert_eq!((rows.trade_id.value(0), label(rows.side, 0), rows.fills.value(0)), ("4", Some(side), 1));
        assert_eq!((number(rows.price, 0), number(rows.quantity, 0), number(rows.contracts, 0)), (Some(d("1300")), Some(d("0.1")), None));
        assert_eq!(rows.event_time.value(0), 1_762_856_064_203_000);
    }
    assert_eq!(decode("binance_options", &frame.replace("MARKET", "NA")).unwrap().0, Outcome::Ignored);
    // Documentation, "Recent Trades List".
    let past = r#"[{"id":2323857420768529130,"tradeId":1,"symbol":"BTC-251123-126000-C","price":"1300","qty":"0.1","quoteQty":"130","side":-1,"time":1762780453623}]"#;
    for past in [past.to_owned(), past.replace("\"0.1\"", "\"-0.1\"")] {
        let (_, found) = decode("binance_options", &past).unwrap();
        let rows = TradeRows::of(&found["trade"]).unwrap();
        assert_eq!((rows.trade_id.value(0), label(rows.side, 0), number(rows.quantity, 0)), ("1", Some("sell"), Some(d("0.1"))));
        assert_eq!((rows.event_time.value(0), rows.backfilled.value(0)), (1_762_780_453_623_000, true));
    }
    assert_eq!(reason("binance_options", &past.replace("-1", "0")), "wrong_type");
    assert_eq!(reason("binance_options", &past.replace("\"0.1\"", "\"0\"")), "not_a_trade");
}

#[test]
fn books_and_quotes_of_options_are_those_of_futures() {
    // Documentation, "Diff Book Depth Streams".
    let data = r#"{"e":"depthUpdate","E":1762866729459,"T":1762866729358,"s":"BTC-251123-126000-C","U":465,"u":465,"pu":464,"b":[["1100.000","0.6000"]],"a":[["1300.000","0.6000"]]}"#;
    let found = |stream: &str| decode("binance_options", &format!(r#"{{"stream":"{stream}","data":{data}}}"#)).unwrap().1;
    let changes = found("btc-251123-126000-c@depth@100ms");
    let rows = BookDeltaRows::of(&changes["book_delta"]).unwrap();
    assert_eq!((label(rows.symbol, 0), rows.contracts.value(0)), (Some("BTC-USDT-251123-126000-C"), false));
    assert_eq!((integer(rows.last_sequence, 0), integer(rows.previous_sequence, 0)), (Some(465), Some(464)));
    assert_eq!(rows.event_time.value(0), 1_762_866_729_358_000);
    assert_eq!(found("btc-251123-126000-c@depth20@100ms").keys().collect::<Vec<_>>(), ["book_snapshot"]);
    // Documentation, "Order Book".
    let answer = r#"{"bids":[["1000.000","0.1000"]],"asks":[["1900.000","0.1000"]],"T":1762780909676,"lastUpdateId":361}"#;
    let (_, found) = decode_as("binance_options", answer, None, Some("BTC-251123-126000-C")).unwrap();
    let rows = BookSnapshotRows::of(&found["book_snapshot"]).unwrap();
    assert_eq!((label(rows.symbol, 0), integer(rows.sequence, 0)), (Some("BTC-USDT-251123-126000-C"), Some(361)));
    assert_eq!(integer(rows.event_time, 0), Some(1_762_780_909_676_000));
    // Documentation, "Individual Symbol Book Ticker Streams".
    let quote = r#"{"e":"bookTicker","u":2472,"s":"BTC-251226-110000-C","b":"5000.000","B":"0.2000","a":"5100.000","A":"0.1000","T":1763041762942,"E":1763041762942}"#;
    let (_, found) = decode("binance_options", quote).unwrap();
    let rows = QuoteRows::of(&found["quote"]).unwrap();
    assert_eq!((number(rows.bid_price, 0), number(rows.ask_quantity, 0)), (Some(d("5000")), Some(d("0.1"))));
    assert_eq!((integer(rows.sequence, 0), integer(rows.event_time, 0)), (Some(2_472), Some(1_763_041_762_942_000)));
}

#[test]
fn a_chain_tells_what_its_options_are_worth() {
    // Documentation, "Mark Price"; the second is worth nothing.
    let chain = r#"{"stream":"btcusdt@optionMarkPrice","data":[{"s":"BTC-251120-126000-C","mp":"770.543","E":1762867543321,"e":"markPrice","i":"104334.60217391","P":"0.000","bo":"0.000","ao":"900.000","bq":"0.0000","aq":"0.2000","b":"-1.0","a":"0.98161161","hl":"924.652","ll":"616.435","vo":"0.9408058","rf":"0.0","d":"0.11111964","t":"-164.26702615","g":"0.00001245","v":"30.63855919"},{"s":"BTC-251123-126000-P","mp":"0.000","E":1762867543321,"e":"markPrice","i":"104334.60217391","P":"104300.5"}]}"#;
    let (_, found) = decode("binance_options", chain).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["index_price", "mark_price"]);
    let mark = MarkPriceRows::of(&found["mark_price"]).unwrap();
    assert_eq!((label(mark.market, 0), label(mark.symbol, 0)), (Some("option"), Some("BTC-USDT-251120-126000-C")));
    assert_eq!((number(mark.price, 0), number(mark.settlement_price, 0)), (Some(d("770.543")), None));
    assert_eq!((label(mark.symbol, 1), number(mark.price, 1)), (Some("BTC-USDT-251123-126000-P"), Some(d("0"))));
    assert_eq!((number(mark.settlement_price, 1), mark.event_time.value(1)), (Some(d("104300.5")), 1_762_867_543_321_000));
    let index = IndexPriceRows::of(&found["index_price"]).unwrap();
    assert_eq!((label(index.symbol, 1), number(index.price, 1)), (Some("BTC-USDT-251123-126000-P"), Some(d("104334.60217391"))));
    // One that is bad refuses all, and other markets have no such event.
    for (from, to, expected) in [
        ("\"0.000\",\"E\"", "\"-1\",\"E\"", "bad_number"),
        ("\"mp\":\"0.000\",", "", "missing_field"),
        ("\"mp\":\"0.000\"", "\"mp\":0", "wrong_type"),
        ("BTC-251123-126000-P", "BTC-251123", "unknown_instrument"),
    ] {
        assert!(chain.contains(from), "{from}");
        assert_eq!(reason("binance_options", &chain.replace(from, to)), expected, "{to}");
    }
    assert_eq!(reason("binance_usdm", chain), "unknown_event");
    // Nothing of it is read where nobody wants it.
    let mut none = Records::default();
    let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: br#"[{"e":"markPrice","s":5}]"# };
    assert_eq!(make("binance_options").unwrap().decode(frame, &mut none), Ok(Outcome::Ignored));
}

#[test]
fn open_interest_and_indices_of_options() {
    // Documentation, "Open Interest" of streams and of requests.
    let stream = r#"[{"e":"openInterest","E":1668759300045,"s":"ETH-221125-2700-C","o":"1580.87","h":"1912992.178168204"}]"#;
    let answer =
        r#"[{"symbol":"ETH-221119-1175-P","sumOpenInterest":"4.01","sumOpenInterestUsd":"4880.2985615624","timestamp":"1668754020000"}]"#;
    for (frame, symbol, base, quote, time) in [
        (stream, "ETH-USDT-221125-2700-C", "1580.87", "1912992.178168204", 1_668_759_300_045_000),
        (answer, "ETH-USDT-221119-1175-P", "4.01", "4880.2985615624", 1_668_754_020_000_000),
    ] {
        let (_, found) = decode("binance_options", frame).unwrap();
        let rows = OpenInterestRows::of(&found["open_interest"]).unwrap();
        assert_eq!((label(rows.symbol, 0), rows.event_time.value(0)), (Some(symbol), time));
        assert_eq!([rows.contracts, rows.base, rows.quote].map(|column| number(column, 0)), [None, Some(d(base)), Some(d(quote))]);
    }
    // Documentation, "Index Price Streams" and "Index Price".
    let stream = r#"{"stream":"!index@arr","data":[{"e":"indexPrice","E":1763092572229,"s":"ETHUSDT","p":"3224.51976744"}]}"#;
    let answer = r#"{"time":1656647305000,"indexPrice":"105917.75"}"#;
    for (frame, symbol, price) in [(stream, "ETH-USDT", "3224.51976744"), (answer, "BTC-USDT", "105917.75")] {
        let (_, found) = decode_as("binance_options", frame, None, Some("BTCUSDT@index")).unwrap();
        let rows = IndexPriceRows::of(&found["index_price"]).unwrap();
        assert_eq!((label(rows.market, 0), label(rows.symbol, 0)), (Some("index"), Some(symbol)));
        assert_eq!(number(rows.price, 0), Some(d(price)));
    }
    assert_eq!(reason("binance_options", answer), "missing_field");
    assert_eq!(reason("binance_usdm", answer), "unknown_event");
    // Documentation, "New Symbol Info".
    let listed = r#"{"e":"optionSymbol","E":1669356423908,"s":"BTC-250926-140000-C","ps":"BTCUSDT","qa":"USDT","d":"CALL","sp":"21000","dt":4133404800000,"u":1,"ot":1569398400000,"cs":"TRADING"}"#;
    let (_, found) = decode("binance_options", listed).unwrap();
    let rows = VenueStatusRows::of(&found["venue_status"]).unwrap();
    assert_eq!((label(rows.status, 0), label(rows.symbol, 0)), (Some("trading"), Some("BTC-USDT-250926-140000-C")));
    // Documentation, "24-hour TICKER", "Option Mark Price", "Historical Exercise Records".
    for frame in [
        r#"{"e":"24hrTicker","E":1764080707933,"s":"ETH-251226-3000-C","p":"0.0000","P":"0.00","w":"200.0000","c":"200.0000","Q":"1.0000","o":"200.0000","h":"200.0000","l":"200.0000","v":"9.0000","q":"1800.0000","O":1764051060000,"C":1764080707933,"F":1,"L":22,"n":9}"#,
        r#"[{"symbol":"BTC-200730-9000-C","markPrice":"1343.2883","bidIV":"1.40000077","askIV":"1.50000153","markIV":"1.45000000","delta":"0.55937056","theta":"3739.82509871","gamma":"0.00010969","vega":"978.58874732","highPriceLimit":"1618.241","lowPriceLimit":"1068.3356","riskFreeInterest":"0.1"}]"#,
        r#"[{"symbol":"BTC-220121-60000-P","strikePrice":"60000","realStrikePrice":"38844.69652571","expiryDate":1642752000000,"strikeResult":"REALISTIC_VALUE_STRICKEN"}]"#,
    ] {
        assert_eq!(decode("binance_options", frame).unwrap().0, Outcome::Ignored, "{frame}");
    }
}

#[test]
fn a_listing_of_options_is_learnt_and_becomes_records() {
    let (_, found) = decode("binance_options", OPTION_LISTING).unwrap();
    let rows = InstrumentRows::of(&found["instrument"]).unwrap();
    assert_eq!(rows.symbol.len(), 2);
    assert_eq!((label(rows.market, 0), label(rows.symbol, 0)), (Some("option"), Some("BTC-USDT-220815-50000-C")));
    assert_eq!((rows.venue_symbol.value(1), label(rows.base, 0), label(rows.quote, 0)), ("BTC-220815-50000-P", Some("BTC"), Some("USDT")));
    assert_eq!((label(rows.settlement, 0), label(rows.status, 0), label(rows.status, 1)), (Some("USDT"), Some("trading"), None));
    assert_eq!((number(rows.tick_size, 0), number(rows.lot_size, 0)), (Some(d("0.01")), Some(d("0.01"))));
    assert_eq!((number(rows.contract_size, 0), rows.inverse.value(0)), (Some(d("1")), false));
    assert_eq!((number(rows.strike, 1), integer(rows.expiry, 1)), (Some(d("50000")), Some(1_660_521_600_000_000)));
    assert_eq!((label(rows.option_type, 0), label(rows.option_type, 1)), (Some("call"), Some("put")));
    // The letters alone say the same as the listing.
    for (symbol, listed) in super::instruments(Exchange::Options, OPTION_LISTING.as_bytes()).unwrap() {
        assert_eq!(Exchange::Options.read(&symbol).as_ref(), Some(&listed), "{symbol}");
    }
    // Where a contract is not one of the base asset, sizes are contracts.
    let tenth = OPTION_LISTING.replace("\"unit\":1", "\"unit\":0.1").replace("\"quoteAsset\":\"USDT\"", "\"quoteAsset\":\"USDC\"");
    let mut dialects = Dialects::default();
    dialects.learn("binance_options", tenth.as_bytes()).unwrap();
    let mut dialect = dialects.make("binance_options").unwrap();
    let mut found = |payload: &str| {
        let mut records = every_kind();
        dialect.decode(FrameRef { receive_time: None, frame: 1, topic: None, payload: payload.as_bytes() }, &mut records).unwrap();
        batches(&mut records)
    };
    let trade = found(r#"{"e":"trade","T":1562306400000,"s":"BTC-220815-50000-C","t":1,"p":"2","q":"4","X":"MARKET","m":true}"#);
    let rows = TradeRows::of(&trade["trade"]).unwrap();
    assert_eq!(label(rows.symbol, 0), Some("BTC-USDC-220815-50000-C"));
    assert_eq!((number(rows.quantity, 0), number(rows.contracts, 0)), (Some(d("0.4")), Some(d("4"))));
    let interest = found(r#"[{"e":"openInterest","E":1668759300045,"s":"BTC-220815-50000-C","o":"20","h":"100.5"}]"#);
    let rows = OpenInterestRows::of(&interest["open_interest"]).unwrap();
    assert_eq!([rows.contracts, rows.base, rows.quote].map(|column| number(column, 0)), [Some(d("20")), Some(d("2")), Some(d("100.5"))]);
    // What is no option is left out; what cannot be read is said.
    let others = OPTION_LISTING.replace("BTC-220815-50000-P", "BTCUSDT");
    assert_eq!(super::instruments(Exchange::Options, others.as_bytes()).unwrap().len(), 1);
    for (from, to, words) in [
        ("\"unit\":1", "\"unit\":0", "the unit of `BTC-220815-50000-C` is 0"),
        ("\"unit\":1", "\"unit\":1e-20", "the unit of `BTC-220815-50000-C`"),
        ("\"strikePrice\":\"50000\"", "\"strikePrice\":\"x\"", "the strike price of `BTC-220815-50000-C` is x"),
        ("\"optionSymbols\"", "\"symbols\"", "exchangeInfo"),
    ] {
        let error = Dialects::default().learn("binance_options", OPTION_LISTING.replace(from, to).as_bytes()).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(reason("binance_options", &OPTION_LISTING.replace("\"unit\":1", "\"unit\":0")), "bad_number");
    assert_eq!(reason("binance_options", &OPTION_LISTING.replace("\"serverTime\":1592387337630,", "")), "missing_field");
    assert_eq!(reason("binance_options", &OPTION_LISTING.replace("\"optionSymbols\":[", "\"optionSymbols\":[1,")), "wrong_type");
}

fn sum(column: &arrow::array::Decimal128Array) -> Decimal {
    Decimal::from_units(column.values().iter().sum())
}

#[test]
fn recordings_give_the_counts_and_volumes_of_an_independent_script() {
    let Some(expected) = recording("binance/expected.json") else { return };
    let expected: Value = serde_json::from_str(&expected).unwrap();
    for (market, dialect) in [("spot_btcusdt", "binance_spot"), ("usdm_btcusdt", "binance_usdm")] {
        let expected = &expected[market];
        let text: String =
            expected["files"].as_array().unwrap().iter().map(|f| recording(&format!("binance/{}", f.as_str().unwrap())).unwrap()).collect();
        let (found, refused) = decode_all(dialect, text.lines().map(stamped));
        assert_eq!(refused, []);
        let counts = &expected["counts"];
        for (kind, name) in [("trade", "trade"), ("quote", "bookTicker"), ("book_delta", "depthUpdate"), ("book_snapshot", "rest_snapshot")]
        {
            assert_eq!(rows(&found, kind) as u64, counts[name].as_u64().unwrap(), "{market} {kind}");
        }
        assert_eq!(found.values().map(|b| b.num_rows() as u64).sum::<u64>(), counts["lines"].as_u64().unwrap());
        let trades = TradeRows::of(&found["trade"]).unwrap();
        assert_eq!(trades.trade_id.value(0), expected["trade_id_first"].to_string());
        assert_eq!(trades.trade_id.value(trades.trade_id.len() - 1), expected["trade_id_last"].to_string());
        assert_eq!(sum(trades.quantity), d(expected["trades"]["volume"].as_str().unwrap()));
        let cvd =
            (0..trades.side.len()).map(|i| trades.quantity.value(i) * if label(trades.side, i) == Some("buy") { 1 } else { -1 }).sum();
        assert_eq!(Decimal::from_units(cvd), d(expected["trades"]["cvd_taker_buy_minus_sell"].as_str().unwrap()));
        let deltas = BookDeltaRows::of(&found["book_delta"]).unwrap();
        let last = deltas.last_sequence.len() - 1;
        assert_eq!(deltas.last_sequence.value(last), expected["last_u"].as_i64().unwrap());
        assert_eq!(deltas.previous_sequence.is_null(last), market.starts_with("spot"));
        // The recorder's clock runs behind the venue's.
        assert!(trades.receive_time.value(0) < trades.event_time.value(0));
        let first = from_nanos(expected["local_ts_first_ns"].as_i64().unwrap());
        assert_eq!(deltas.receive_time.value(0), first);
    }
}

/// A line `<nanoseconds> <frame>` of the BTC recordings.
fn stamped(line: &str) -> (Option<i64>, Option<&str>, &str) {
    let (time, frame) = line.split_once(' ').unwrap();
    (Some(from_nanos(time.parse().unwrap())), Some("BTCUSDT"), frame)
}

#[test]
fn coin_margined_sizes_are_contracts() {
    let Some(text) = recording("binance/coinm/btcusd_perp_20240808.gz") else { return };
    let (found, refused) = decode_all("binance_coinm", text.lines().map(stamped));
    assert_eq!(refused, []);
    assert_eq!(["book_delta", "quote", "trade", "book_snapshot"].map(|k| rows(&found, k)), [26_847, 19_136, 2_286, 1]);
    let trades = TradeRows::of(&found["trade"]).unwrap();
    let hundred = Contract { size: Decimal::from_integer(100), inverse: true };
    for row in 0..trades.price.len() {
        let (contracts, price) = (number(trades.contracts, row).unwrap(), number(trades.price, row).unwrap());
        assert_eq!(number(trades.quantity, row), hundred.base_quantity(contracts, price));
    }
    assert_eq!(label(trades.symbol, 0), Some("BTC-USD-PERP"));
    let deltas = BookDeltaRows::of(&found["book_delta"]).unwrap();
    assert!((0..deltas.contracts.len()).all(|row| deltas.contracts.value(row)));
    let snapshot = BookSnapshotRows::of(&found["book_snapshot"]).unwrap();
    assert!(snapshot.contracts.value(0) && snapshot.event_time.is_valid(0));
}

#[test]
fn thirty_seconds_give_the_records_of_another_reader() {
    // Of the deltas the other reader drops those before the snapshot, of the tickers none. Two spot trades,
    // and kline events beside them.
    for (name, dialect, deltas, snapshots, quotes, trades) in [
        ("BINANCE", "binance_spot", 177, 4, 84, 2),
        ("BINANCE_FUTURES", "binance_usdm", 764, 4, 613, 91),
        ("BINANCE_DELIVERY", "binance_coinm", 2_047, 10, 2_240, 51),
    ] {
        let Some(sockets) = recording(&format!("thirty_seconds/{name}.ws.1.0.gz")) else { return };
        let Some(answers) = recording(&format!("thirty_seconds/{name}.http.0.0.gz")) else { return };
        let sockets = received(&sockets).map(|(time, frame)| (time, None, frame));
        let answers = answers.lines().filter_map(|line| {
            let (url, answer) = line.split_once(" -> ")?;
            let symbol = url.split_once("symbol=")?.1.split('&').next()?;
            Some((Some(1), Some(symbol), answer.split_once(": ")?.1))
        });
        let (found, refused) = decode_all(dialect, sockets.chain(answers));
        assert_eq!(refused, [], "{name}");
        assert_eq!(
            ["book_delta", "book_snapshot", "quote", "trade"].map(|k| rows(&found, k)),
            [deltas, snapshots, quotes, trades],
            "{name}"
        );
    }
}

#[test]
fn another_projects_pairs_agree() {
    for (file, dialect) in [("binance", "binance_spot"), ("binance_futures", "binance_usdm"), ("binance_delivery", "binance_coinm")] {
        let Some(text) = recording(&format!("normalised_pairs/{file}.jsonl")) else { return };
        for (frames, expected) in pairs(&text) {
            for frame in frames {
                check_pair(dialect, &frame, &expected);
            }
        }
    }
}

/// One frame against the records that another project's stateful mapper gives. It drops depth events until a
/// snapshot has come and repeats tickers, so what it leaves out is not compared.
fn check_pair(dialect: &str, frame: &Value, expected: &[Value]) {
    let result = decode(dialect, &frame.to_string());
    if frame["data"]["e"] == "aggTrade" && frame["data"].get("a").is_none() {
        // A frame without the trade's identifier, which Binance does send: the other project ignores the event.
        assert_eq!(result.unwrap_err().reason, "missing_field");
        return;
    }
    let (_, found) = result.unwrap();
    for record in expected {
        match record["type"].as_str().unwrap() {
            "trade" => {
                let rows = TradeRows::of(&found["trade"]).unwrap();
                assert!(near(number(rows.price, 0), &record["price"]) && near(number(rows.quantity, 0), &record["amount"]), "{record}");
                assert_eq!(rows.trade_id.value(0), record["id"].as_str().unwrap());
                assert_eq!(label(rows.side, 0), record["side"].as_str());
                assert_eq!(display(rows.event_time.value(0)).replace("000Z", "Z"), record["timestamp"].as_str().unwrap());
            }
            "book_ticker" => {
                let rows = QuoteRows::of(&found["quote"]).unwrap();
                for (ours, theirs) in [
                    (rows.bid_price, "bidPrice"),
                    (rows.bid_quantity, "bidAmount"),
                    (rows.ask_price, "askPrice"),
                    (rows.ask_quantity, "askAmount"),
                ] {
                    assert!(near(number(ours, 0), &record[theirs]), "{theirs} in {record}");
                }
            }
            "book_change" => {
                let snapshot = record["isSnapshot"] == true;
                let rows = &found[if snapshot { "book_snapshot" } else { "book_delta" }];
                for (side, theirs) in [("bid", "bids"), ("ask", "asks")] {
                    let ours = |what: &str| {
                        rows.column_by_name(&format!("{side}_{what}"))
                            .unwrap()
                            .as_list::<i32>()
                            .value(0)
                            .as_primitive::<Decimal128Type>()
                            .values()
                            .to_vec()
                    };
                    let theirs = record[theirs].as_array().unwrap();
                    // Theirs may also hold depth events that came before the snapshot.
                    for (i, price) in ours("prices").into_iter().enumerate() {
                        let level = theirs.iter().find(|l| near(Some(Decimal::from_units(price)), &l["price"]));
                        let amount = &level.unwrap_or_else(|| panic!("{price} is not in {record}"))["amount"];
                        let merged = dialect == "binance_usdm" && snapshot && side == "ask";
                        assert!(merged || near(Some(Decimal::from_units(ours("quantities")[i])), amount), "{record}");
                    }
                }
                let time = rows.column_by_name("event_time").unwrap().as_primitive::<TimestampMicrosecondType>();
                let sent = frame["data"]["T"].as_i64().or(frame["data"]["E"].as_i64());
                assert_eq!(integer(time, 0), sent.map(|ms| ms * 1_000));
                let _: &arrow::array::Int64Array = rows.column_by_name("frame").unwrap().as_primitive::<Int64Type>();
            }
            "derivative_ticker" if found.contains_key("mark_price") => {
                assert!(near(number(MarkPriceRows::of(&found["mark_price"]).unwrap().price, 0), &record["markPrice"]));
                let rate = found.get("funding_rate").and_then(|rows| number(FundingRateRows::of(rows).unwrap().rate, 0));
                assert!(near(rate, &record["fundingRate"]));
            }
            // Of a 24-hour ticker.
            "derivative_ticker" => assert_eq!(frame["data"]["e"], "24hrTicker"),
            other => panic!("unexpected {other}"),
        }
    }
}

/// Real frames of every kind.
pub(in crate::dialect) const FRAMES: [(&str, &str); 18] = [
    (
        "binance_spot",
        r#"{"e":"trade","E":1760000000003,"s":"C000USDT","t":575990,"p":"61837.63000000","q":"0.00426990","T":1760000000000,"m":true,"M":true}"#,
    ),
    (
        "binance_usdm",
        r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256322,"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":false}}"#,
    ),
    (
        "binance_coinm",
        r#"{"e":"aggTrade","E":1626916405246,"a":7297364,"s":"ETHUSD_210924","p":"1991.89","q":"160","f":11380903,"l":11380915,"T":1626916405206,"m":true}"#,
    ),
    (
        "binance_spot",
        r#"{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT","U":50093239189,"u":50093239202,"b":[["61737.63000000","0.00000000"],["61730.17000000","0.10000000"]],"a":[["61837.64000000","1.54698000"]]}}"#,
    ),
    (
        "binance_spot",
        r#"{"stream":"btcusdt@bookTicker","data":{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000","a":"61837.64000000","A":"1.54698000"}}"#,
    ),
    (
        "binance_coinm",
        r#"{"lastUpdateId":37471290,"E":1592265600231,"T":1592265600229,"symbol":"BTCUSD_200925","pair":"BTCUSD","bids":[["9504.8","181"]],"asks":[["99999.0","4090"]]}"#,
    ),
    (
        "binance_usdm",
        r#"[{"e":"markPriceUpdate","E":1562305380000,"s":"BTCUSDT","p":"11794.15000000","i":"11784.62659091","P":"11784.25641265","r":"0.00038167","T":1562306400000}]"#,
    ),
    (
        "binance_usdm",
        r#"[{"symbol":"BTCUSDT","sumOpenInterest":"20403.63700000","sumOpenInterestValue":"150570784.07809979","timestamp":1583127900000}]"#,
    ),
    ("binance_spot", r#"[{"a":26129,"p":"0.01633102","q":"4.70443515","f":27781,"l":27783,"T":1498793709153,"m":false,"M":true}]"#),
    (
        "binance_usdm",
        r#"{"e":"forceOrder","E":1568014460893,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"9910","ap":"9910","X":"FILLED","l":"0.014","z":"0.014","T":1568014460893}}"#,
    ),
    // Those of options are of Binance's documentation, in the envelopes of their streams.
    (
        "binance_options",
        r#"{"stream":"btc-251123-126000-c@optionTrade","data":{"e":"trade","E":1762856064204,"T":1762856064203,"s":"BTC-251123-126000-C","t":4,"p":"1300.000","q":"0.1000","X":"MARKET","S":"BUY","m":false}}"#,
    ),
    (
        "binance_options",
        r#"{"stream":"btc-251123-126000-c@depth@100ms","data":{"e":"depthUpdate","E":1762866729459,"T":1762866729358,"s":"BTC-251123-126000-C","U":465,"u":465,"pu":464,"b":[["1100.000","0.6000"]],"a":[["1300.000","0.6000"]]}}"#,
    ),
    (
        "binance_options",
        r#"{"stream":"btcusdt@optionMarkPrice","data":[{"s":"BTC-251120-126000-C","mp":"770.543","E":1762867543321,"e":"markPrice","i":"104334.60217391","P":"0.000","bo":"0.000","ao":"900.000","bq":"0.0000","aq":"0.2000","b":"-1.0","a":"0.98161161","hl":"924.652","ll":"616.435","vo":"0.9408058","rf":"0.0","d":"0.11111964","t":"-164.26702615","g":"0.00001245","v":"30.63855919"}]}"#,
    ),
    (
        "binance_options",
        r#"{"stream":"ethusdt@openInterest@221125","data":[{"e":"openInterest","E":1668759300045,"s":"ETH-221125-2700-C","o":"1580.87","h":"1912992.178168204"}]}"#,
    ),
    ("binance_options", r#"{"stream":"!index@arr","data":[{"e":"indexPrice","E":1763092572229,"s":"ETHUSDT","p":"3224.51976744"}]}"#),
    (
        "binance_options",
        r#"{"e":"optionSymbol","E":1669356423908,"s":"BTC-250926-140000-C","ps":"BTCUSDT","qa":"USDT","d":"CALL","sp":"21000","dt":4133404800000,"u":1,"ot":1569398400000,"cs":"TRADING"}"#,
    ),
    (
        "binance_options",
        r#"[{"id":2323857420768529130,"tradeId":1,"symbol":"BTC-251123-126000-C","price":"1300","qty":"0.1","quoteQty":"130","side":-1,"time":1762780453623}]"#,
    ),
    ("binance_options", OPTION_LISTING),
];

/// A hundred frames that no decoder may accept, made from the real ones.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let mut bad = Vec::new();
    for (dialect, frame) in FRAMES {
        let bytes = frame.as_bytes();
        for cut in [0, 1, bytes.len() / 4, bytes.len() / 2, bytes.len() - 2, bytes.len() - 1] {
            bad.push((dialect, bytes[..cut].to_vec()));
        }
        for (from, to) in [("\":", "\" "), (",\"", "\""), ("\"s", "s"), ("T\":1", "T\":x"), ("{", "[")] {
            if frame.contains(from) {
                bad.push((dialect, frame.replacen(from, to, 1).into_bytes()));
            }
        }
        let mut flipped = bytes.to_vec();
        flipped[bytes.len() / 2] = 0xff;
        bad.push((dialect, flipped));
        bad.push((dialect, [bytes, b"{}"].concat()));
        bad.push((dialect, frame.replacen('"', "\"\u{1}", 1).into_bytes()));
        bad.push((
            dialect,
            frame
                .replacen("\"u\":", "\"u\":[", 1)
                .replacen("\"p\":\"", "\"p\":{\"", 1)
                .replacen("\"bids\":", "\"bids\":7,\"x\":", 1)
                .replacen("\"symbol\":\"", "\"symbol\":{\"", 1)
                .replacen("\"mp\":\"", "\"mp\":{\"", 1)
                .replacen("\"o\":\"", "\"o\":{\"", 1)
                .into_bytes(),
        ));
    }
    bad
}

#[test]
fn malformed_frames_are_refused_and_leave_nothing() {
    let bad = malformed();
    assert!(bad.len() >= 100, "{}", bad.len());
    for (dialect, payload) in bad {
        let mut records = every_kind();
        let frame = FrameRef { receive_time: Some(1), frame: 1, topic: Some("BTCUSDT"), payload: &payload };
        let result = make(dialect).unwrap().decode(frame, &mut records);
        let text = String::from_utf8_lossy(&payload);
        let reject = result.expect_err(&text);
        assert!(REASONS.contains(&reject.reason) && !reject.detail.is_empty(), "{reject:?}");
        assert!(records.is_empty(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_bytes_make_it_panic(which in 0..FRAMES.len(), damages in prop::collection::vec(damage(), 1..6), dialect in 0..4_usize) {
        let payload = damaged(FRAMES[which].1.as_bytes().to_vec(), &damages);
        let mut records = every_kind();
        let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: &payload };
        match make(["binance_spot", "binance_usdm", "binance_coinm", "binance_options"][dialect]).unwrap().decode(frame, &mut records) {
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
    fn numbers_survive_exactly(price in 1..10_i64.pow(15), quantity in 1..10_i64.pow(15), id in 0..i64::MAX, millis in 1..10_i64.pow(14) - 1, maker: bool) {
        let (price, quantity) = (Decimal::from_units(i128::from(price) * 10_000), Decimal::from_units(i128::from(quantity)));
        let frame = format!(r#"{{"e":"trade","s":"BTCUSDT","t":{id},"p":"{price}","q":"{quantity}","T":{millis},"m":{maker}}}"#);
        let (_, found) = decode("binance_spot", &frame).unwrap();
        let rows = TradeRows::of(&found["trade"]).unwrap();
        prop_assert_eq!((number(rows.price, 0), number(rows.quantity, 0)), (Some(price), Some(quantity)));
        prop_assert_eq!((rows.trade_id.value(0).parse(), rows.event_time.value(0)), (Ok(id), millis * 1_000));
        prop_assert_eq!(label(rows.side, 0), Some(if maker { "sell" } else { "buy" }));
    }
}
