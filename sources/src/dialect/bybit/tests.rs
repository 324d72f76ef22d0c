//! The dialects against frames as Bybit documents and sends them: every column, every refusal, another project's
//! expectations, and frames damaged in every way. There is no recording of Bybit among the others'.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use model::Decimal;
use model::columns::{integer, label, number};
use model::dialect::{FrameRef, Outcome, Records, Reject};
use model::kinds::{BookSnapshotRows, InstrumentRows, LongShortRatioRows, OpenInterestRows, QuoteRows, TradeRows, VenueStatusRows};
use model::time::display;
use proptest::prelude::*;
use serde_json::Value;

use super::Category;
use crate::dialect::symbols::Spelling;
use crate::dialect::testing::{d, damage, damaged, decode, decode_as, every_kind, near, pairs, reason, recording};
use crate::dialect::{Dialects, REASONS, make};

const DIALECTS: [&str; 4] = ["bybit_spot", "bybit_linear", "bybit_inverse", "bybit_option"];

/// A row with all of its columns that are not null: numbers without trailing zeros, times in microseconds.
fn row(rows: &RecordBatch, row: usize) -> String {
    let mut text = String::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if column.is_null(row) {
            continue;
        }
        let mut value = array_value_to_string(column, row).unwrap();
        if matches!(field.data_type(), DataType::Timestamp(..)) {
            value.truncate(value.trim_end_matches('Z').len());
        }
        // Decimals have twelve digits behind the point, alone and in lists.
        let plain = |number: &str| {
            let shortened = number.trim_end_matches('0').trim_end_matches('.').to_owned();
            if number.len() > 13 && number.rfind('.') == Some(number.len() - 13) { shortened } else { number.to_owned() }
        };
        let value = match value.strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
            Some(list) => format!("[{}]", list.split(", ").map(plain).collect::<Vec<_>>().join(" ")),
            None => plain(&value),
        };
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&format!("{}={value}", field.name()));
    }
    text
}

/// The rows that a frame gives, by kind.
fn shown(dialect: &str, frame: &str) -> Vec<String> {
    shown_as(dialect, frame, None)
}

fn shown_as(dialect: &str, frame: &str, topic: Option<&str>) -> Vec<String> {
    let (outcome, found) = decode_as(dialect, frame, Some(7_000_000), topic).unwrap_or_else(|reject| panic!("{reject:?} in {frame}"));
    assert_eq!(outcome == Outcome::Decoded, !found.is_empty(), "{frame}");
    found.iter().flat_map(|(kind, rows)| (0..rows.num_rows()).map(move |at| format!("{kind} {}", row(rows, at)))).collect()
}

const TRADE: &str = r#"{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1672304486868,"data":[{"T":1672304486865,"s":"BTCUSDT","S":"Buy","v":"0.001","p":"16578.50","L":"PlusTick","i":"20f43950-d8dd-5b31-9112-a178eb6023af","BT":false,"RPI":false,"seq":1783284617}]}"#;
const BOOK: &str = r#"{"topic":"orderbook.50.BTCUSDT","type":"snapshot","ts":1672304484978,"data":{"s":"BTCUSDT","b":[["16493.50","0.006"],["16493.00","0.100"]],"a":[["16611.00","0.029"],["16612.00","0.213"]],"u":18521288,"seq":7961638724},"cts":1672304484976}"#;
const DELTA: &str = r#"{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1687940967466,"data":{"s":"BTCUSDT","b":[["30247.20","30.028"],["30245.40","0.000"]],"a":[["30248.70","0"]],"u":177400507,"seq":66544703342},"cts":1687940967464}"#;
const BEST: &str = r#"{"topic":"orderbook.1.BTCUSDT","ts":1786613159749,"type":"snapshot","data":{"s":"BTCUSDT","b":[["63705.3","2.045546"]],"a":[["63705.4","2.334566"]],"u":72212457,"seq":112603120278},"cts":1786613159748}"#;
const TICKER: &str = r#"{"topic":"tickers.BTCUSDT","type":"snapshot","data":{"symbol":"BTCUSDT","tickDirection":"ZeroMinusTick","price24hPcnt":"-0.00506","lastPrice":"63958.60","markPrice":"63958.60","indexPrice":"63986.67","openInterest":"57798.137","openInterestValue":"3696687925.13","turnover24h":"3947254153.7179","volume24h":"61874.6390","fundingIntervalHour":"8","fundingCap":"0.005","singleOpenInterest":"28899.069","singleOpenInterestValue":"1848343994.54","nextFundingTime":"1786550400000","fundingRate":"0.0000544","bid1Price":"63958.60","bid1Size":"6.907","ask1Price":"63958.70","ask1Size":"2.750","preOpenPrice":"","preQty":"","curPreListingPhase":""},"cs":760580211302,"ts":1786540397684}"#;
const OPTION_TICKER: &str = r#"{"id":"tickers.BTC-6JAN23-17500-C-2480334983-1672917511074","topic":"tickers.BTC-6JAN23-17500-C","ts":1672917511074,"data":{"symbol":"BTC-6JAN23-17500-C","bidPrice":"0","bidSize":"0","bidIv":"0","askPrice":"10","askSize":"5.1","askIv":"0.514","lastPrice":"10","markPrice":"7.86976724","indexPrice":"16823.73","markPriceIv":"0.4896","underlyingPrice":"16815.1","openInterest":"49.85","turnover24h":"446802.8473","delta":"0.047831","gamma":"0.00021453","predictedDeliveryPrice":"0","change24h":"-0.33333334"},"type":"snapshot"}"#;
const LIQUIDATION: &str = r#"{"topic":"allLiquidation.ROSEUSDT","type":"snapshot","ts":1739502303204,"data":[{"T":1739502302929,"s":"ROSEUSDT","S":"Sell","v":"20000","p":"0.04499"},{"T":1739502303011,"s":"ROSEUSDT","S":"Buy","v":"1.5","p":"0.04"}]}"#;
const OLD_LIQUIDATION: &str = r#"{"topic":"liquidation.BTCUSDT","type":"snapshot","ts":1703485237953,"data":{"updatedTime":1703485237953,"symbol":"BTCUSDT","side":"Sell","size":"0.003","price":"43511.70"}}"#;
const STATUS: &str = r#"{"topic":"system.status","ts":1751858399649,"data":[{"id":"4d95b2a0-587f-11f0-bcc9-56f28c94d6ea","title":"t06","state":"completed","begin":"1751596902000","end":"1751597011000","href":"","serviceTypes":[2,3,4,5],"product":[1,2],"uidSuffix":[],"maintainType":1,"env":1}]}"#;
const REST_BOOK: &str = r#"{"retCode":0,"retMsg":"OK","result":{"s":"BTCUSDT","a":[["65557.7","16.606555"]],"b":[["65485.47","47.081829"]],"ts":1716863719031,"u":230704,"seq":1432604333,"cts":1716863718905},"retExtInfo":{},"time":1716863719382}"#;
const REST_TRADES: &str = r#"{"retCode":0,"retMsg":"OK","result":{"category":"spot","list":[{"execId":"2100000000007764265","symbol":"BTCUSDT","price":"16618.5","size":"0.2","side":"Sell","time":"1672052955759","isBlockTrade":false},{"execId":"2100000000007764264","symbol":"BTCUSDT","price":"16618.49","size":"0.1","side":"Sell","time":"1672052955758","isBlockTrade":false},{"execId":"2100000000007764263","symbol":"BTCUSDT","price":"16618.49","size":"0.00012","side":"Buy","time":"1672052955758","isBlockTrade":false}]},"retExtInfo":{},"time":1672053054358}"#;
const REST_FUNDING: &str = r#"{"retCode":0,"retMsg":"OK","result":{"category":"linear","list":[{"symbol":"ETHPERP","fundingRate":"0.0001","fundingRateTimestamp":"1672041600000"},{"symbol":"ETHPERP","fundingRate":"-0.00015","fundingRateTimestamp":"1672012800000"}]},"retExtInfo":{},"time":1672051897447}"#;
const REST_INTEREST: &str = r#"{"retCode":0,"retMsg":"OK","result":{"symbol":"BTCUSD","category":"inverse","list":[{"openInterest":"63910691.00000000","singleOpenInterest":"31955346","timestamp":"1780963200000"},{"openInterest":"461134292.00000000","timestamp":"1780876800000"}],"nextPageCursor":""},"retExtInfo":{},"time":1672053548579}"#;
const REST_RATIO: &str = r#"{"retCode":0,"retMsg":"OK","result":{"list":[{"symbol":"BTCUSDT","buyRatio":"0.49","sellRatio":"0.51","timestamp":"1696262400000"},{"symbol":"BTCUSDT","buyRatio":"0.6","sellRatio":"0.4","timestamp":"1696258800000"}],"nextPageCursor":"lastid%3D0%26lasttime%3D1696258800"},"retExtInfo":{},"time":1731567491688}"#;
const REST_TICKERS: &str = r#"{"retCode":0,"retMsg":"OK","result":{"category":"inverse","list":[{"symbol":"BTCUSD","lastPrice":"16597.00","indexPrice":"16598.54","markPrice":"16596.00","openInterest":"373504107","openInterestValue":"22505.67","turnover24h":"2352.94950046","volume24h":"49337318","fundingRate":"-0.001034","nextFundingTime":"1672387200000","predictedDeliveryPrice":"","basisRate":"","deliveryFeeRate":"","deliveryTime":"0","ask1Size":"1","bid1Price":"16596.00","ask1Price":"16597.50","bid1Size":"1"},{"symbol":"BTCUSDZ26","lastPrice":"17000.00","indexPrice":"16598.54","markPrice":"17001.00","openInterest":"100","openInterestValue":"","fundingRate":"","nextFundingTime":"0","predictedDeliveryPrice":"17002.5","deliveryTime":"1798185600000","ask1Size":"1","bid1Price":"16999.00","ask1Price":"17001.50","bid1Size":"1"}]},"retExtInfo":{},"time":1672376496682}"#;
const REST_INSTRUMENTS: &str = r#"{"retCode":0,"retMsg":"OK","result":{"category":"option","nextPageCursor":"","list":[{"symbol":"BTC-27MAR26-70000-P-USDT","status":"Trading","baseCoin":"BTC","quoteCoin":"USDT","settleCoin":"USDT","optionsType":"Put","launchTime":"1743669649256","deliveryTime":"1774598400000","deliveryFeeRate":"0.00015","priceFilter":{"minPrice":"5","maxPrice":"1110000","tickSize":"5"},"lotSizeFilter":{"maxOrderQty":"500","minOrderQty":"0.01","qtyStep":"0.01"},"displayName":"BTCUSDT-27MAR26-70000-P"}]},"retExtInfo":{},"time":1672712537130}"#;

/// Frames of every kind, with the dialect that they are for.
pub(in crate::dialect) const FRAMES: [(&str, &str); 18] = [
    ("bybit_linear", TRADE),
    ("bybit_linear", BOOK),
    ("bybit_linear", DELTA),
    ("bybit_spot", BEST),
    ("bybit_linear", TICKER),
    ("bybit_option", OPTION_TICKER),
    ("bybit_linear", LIQUIDATION),
    ("bybit_linear", OLD_LIQUIDATION),
    ("bybit_spot", STATUS),
    ("bybit_spot", REST_BOOK),
    ("bybit_spot", REST_TRADES),
    ("bybit_linear", REST_FUNDING),
    ("bybit_inverse", REST_INTEREST),
    ("bybit_inverse", REST_TICKERS),
    ("bybit_option", REST_INSTRUMENTS),
    (
        "bybit_inverse",
        r#"{"topic":"publicTrade.BTCUSD","type":"snapshot","ts":1672304486868,"data":[{"T":1672304486865,"s":"BTCUSD","S":"Sell","v":"30","p":"16000","i":"1","BT":true},{"T":1672304486866,"s":"BTCUSDZ26","S":"Buy","v":"1","p":"16000","i":"2","BT":false}]}"#,
    ),
    (
        "bybit_option",
        r#"{"topic":"publicTrade.BTC","id":"publicTrade.BTC-3414637898-1680652922102","ts":1680652922102,"data":[{"p":"985","v":"0.01","i":"0404c393-8419-5bac-95c3-5fea28404754","T":1680652922081,"BT":false,"s":"BTC-28APR23-29500-C","S":"Sell","mP":"990.1","iP":"28000","mIv":"0.5","iv":"0.5"}],"type":"snapshot"}"#,
    ),
    (
        "bybit_option",
        r#"{"success":true,"conn_id":"aa01fbfffe80af37-00000001-000b37b9-7147f432704fd28c-28e1c172","data":{"failTopics":[],"successTopics":["orderbook.100.BTC-6JAN23-18000-C"]},"type":"COMMAND_RESP"}"#,
    ),
];

#[test]
fn a_trade_has_the_takers_side_and_every_digit() {
    // The order of members and white space make no difference.
    let shuffled = r#" { "data" : [ {"seq":1783284617,"x":{"S":"}\"{"},"BT":false, "i":"20f43950-d8dd-5b31-9112-a178eb6023af" , "p":"16578.50","v":"0.001","S":"Buy","s":"BTCUSDT","T":1672304486865} ],
        "ts":1672304486868,"type":"snapshot","topic":"publicTrade.BTCUSDT"}"#;
    for frame in [TRADE, shuffled] {
        assert_eq!(
            shown("bybit_linear", frame),
            [
                "trade venue=bybit market=perpetual symbol=BTC-USDT-PERP event_time=2022-12-29T09:01:26.865 receive_time=1970-01-01T00:00:07 frame=3 trade_id=20f43950-d8dd-5b31-9112-a178eb6023af price=16578.5 quantity=0.001 side=buy fills=1 backfilled=false"
            ]
        );
    }
    assert!(shown("bybit_spot", TRADE)[0].starts_with("trade venue=bybit market=spot symbol=BTC-USDT event_time"));
}

#[test]
fn inverse_sizes_are_dollars_and_a_frames_trades_keep_their_order() {
    assert_eq!(
        shown("bybit_inverse", FRAMES[15].1),
        [
            "trade venue=bybit market=perpetual symbol=BTC-USD-PERP event_time=2022-12-29T09:01:26.865 receive_time=1970-01-01T00:00:07 frame=3 trade_id=1 price=16000 quantity=0.001875 contracts=30 side=sell fills=1 backfilled=false",
            "trade venue=bybit market=future symbol=BTC-USD-261225 event_time=2022-12-29T09:01:26.866 receive_time=1970-01-01T00:00:07 frame=3 trade_id=2 price=16000 quantity=0.0000625 contracts=1 side=buy fills=1 backfilled=false",
        ]
    );
}

#[test]
fn options_are_traded_by_base_asset() {
    assert_eq!(
        shown("bybit_option", FRAMES[16].1),
        [
            "trade venue=bybit market=option symbol=BTC-USD-230428-29500-C event_time=2023-04-05T00:02:02.081 receive_time=1970-01-01T00:00:07 frame=3 trade_id=0404c393-8419-5bac-95c3-5fea28404754 price=985 quantity=0.01 side=sell fills=1 backfilled=false"
        ]
    );
}

#[test]
fn a_book_comes_whole_and_then_in_changes_numbered_one_by_one() {
    assert_eq!(
        shown("bybit_linear", BOOK),
        [
            "book_snapshot venue=bybit market=perpetual symbol=BTC-USDT-PERP event_time=2022-12-29T09:01:24.976 receive_time=1970-01-01T00:00:07 frame=3 sequence=18521288 origin=venue bid_prices=[16493.5 16493] bid_quantities=[0.006 0.1] ask_prices=[16611 16612] ask_quantities=[0.029 0.213] contracts=false"
        ]
    );
    assert_eq!(
        shown("bybit_linear", DELTA),
        [
            "book_delta venue=bybit market=perpetual symbol=BTC-USDT-PERP event_time=2023-06-28T08:29:27.464 receive_time=1970-01-01T00:00:07 frame=3 first_sequence=177400507 last_sequence=177400507 bid_prices=[30247.2 30245.4] bid_quantities=[30.028 0] ask_prices=[30248.7] ask_quantities=[0] contracts=false"
        ]
    );
    // Options and old frames have no matching engine's time: then it is that of the message.
    let old = DELTA.replace(r#","cts":1687940967464"#, "");
    assert!(shown("bybit_linear", &old)[0].contains("event_time=2023-06-28T08:29:27.466 "));
    // Books of inverse instruments keep contracts.
    let inverse = DELTA.replace("BTCUSDT", "BTCUSD");
    let row = &shown("bybit_inverse", &inverse)[0];
    assert!(row.contains("symbol=BTC-USD-PERP") && row.contains("bid_quantities=[30.028 0]") && row.ends_with("contracts=true"), "{row}");
    // After a restart of the venue's the numbers begin again, with a snapshot.
    assert!(shown("bybit_linear", &BOOK.replace("18521288", "1"))[0].contains(" sequence=1 "));
    // The book with retail price improvement is another book, and so is that of its REST answer.
    let rpi = BOOK.replace("orderbook.50", "orderbook.rpi").replace("\"0.006\"", "\"0.006\",\"0.1\"");
    assert_eq!(decode("bybit_linear", &rpi).unwrap().0, Outcome::Ignored);
    let rpi = REST_BOOK.replace("\"16.606555\"", "\"16.606555\",\"0.000\"");
    assert_eq!(decode("bybit_spot", &rpi).unwrap().0, Outcome::Ignored);
    assert_eq!(reason("bybit_linear", &DELTA.replace("\"delta\"", "\"deltas\"")), "wrong_type");
}

#[test]
fn a_snapshot_of_rest_has_the_matching_engines_time_where_it_is_sent() {
    assert_eq!(
        shown("bybit_spot", REST_BOOK),
        [
            "book_snapshot venue=bybit market=spot symbol=BTC-USDT event_time=2024-05-28T02:35:18.905 receive_time=1970-01-01T00:00:07 frame=3 sequence=230704 origin=venue bid_prices=[65485.47] bid_quantities=[47.081829] ask_prices=[65557.7] ask_quantities=[16.606555] contracts=false"
        ]
    );
    let option = REST_BOOK.replace(r#","seq":1432604333,"cts":1716863718905"#, "").replace("BTCUSDT", "BTC-6JAN23-17500-C");
    let row = &shown("bybit_option", &option)[0];
    assert!(row.contains("symbol=BTC-USD-230106-17500-C event_time=2024-05-28T02:35:19.031 "), "{row}");
}

#[test]
fn the_first_level_is_the_quote() {
    assert_eq!(
        shown("bybit_spot", BEST),
        [
            "quote venue=bybit market=spot symbol=BTC-USDT event_time=2026-08-13T09:25:59.748 receive_time=1970-01-01T00:00:07 frame=3 bid_price=63705.3 bid_quantity=2.045546 ask_price=63705.4 ask_quantity=2.334566"
        ]
    );
    // A side without orders, and sizes in dollars.
    let inverse = BEST.replace("BTCUSDT", "BTCUSD").replace(r#"[["63705.3","2.045546"]]"#, "[]").replace("63705.4", "80000");
    let (_, found) = decode("bybit_inverse", &inverse.replace("2.334566", "20000")).unwrap();
    let rows = QuoteRows::of(&found["quote"]).unwrap();
    assert_eq!((number(rows.bid_price, 0), number(rows.bid_quantity, 0)), (None, None));
    assert_eq!((number(rows.ask_price, 0), number(rows.ask_quantity, 0)), (Some(d("80000")), Some(d("0.25"))));
    // Changes of the first level are not sent any more; what they leave out would not be known.
    assert_eq!(reason("bybit_spot", &BEST.replace("\"snapshot\"", "\"delta\"")), "unknown_event");
}

#[test]
fn a_ticker_gives_what_it_says_and_remembers_nothing() {
    assert_eq!(
        shown("bybit_linear", TICKER),
        [
            "funding_rate venue=bybit market=perpetual symbol=BTC-USDT-PERP event_time=2026-08-12T13:13:17.684 receive_time=1970-01-01T00:00:07 frame=3 rate=0.0000544 interval_seconds=28800 next_funding_time=2026-08-12T16:00:00",
            "index_price venue=bybit market=perpetual symbol=BTC-USDT-PERP event_time=2026-08-12T13:13:17.684 receive_time=1970-01-01T00:00:07 frame=3 price=63986.67",
            "mark_price venue=bybit market=perpetual symbol=BTC-USDT-PERP event_time=2026-08-12T13:13:17.684 receive_time=1970-01-01T00:00:07 frame=3 price=63958.6",
            "open_interest venue=bybit market=perpetual symbol=BTC-USDT-PERP event_time=2026-08-12T13:13:17.684 receive_time=1970-01-01T00:00:07 frame=3 base=28899.069 quote=1848343994.54",
        ]
    );
    // One decoder after the other frame: a change is not filled up with what was said before.
    let change = |data: &str| {
        format!(r#"{{"topic":"tickers.BTCUSDT","type":"delta","data":{{"symbol":"BTCUSDT"{data}}},"cs":760580218857,"ts":1786540397983}}"#)
    };
    let (mut dialect, mut records) = (make("bybit_linear").unwrap(), every_kind());
    let mut kinds = |payload: &str| {
        let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: payload.as_bytes() };
        let outcome = dialect.decode(frame, &mut records).unwrap();
        let kinds: Vec<String> = records
            .finish()
            .iter()
            .map(|(kind, rows)| format!("{} {}", kind.name, row(rows, 0).split_once("frame=1 ").unwrap().1))
            .collect();
        assert_eq!(outcome == Outcome::Decoded, !kinds.is_empty());
        kinds
    };
    assert_eq!(kinds(TICKER).len(), 4);
    assert_eq!(kinds(&change(r#","indexPrice":"63986.66""#)), ["index_price price=63986.66"]);
    assert_eq!(kinds(&change(r#","lastPrice":"63986.66","bid1Price":"1""#)), [""; 0]);
    assert_eq!(kinds(&change(r#","fundingRate":"-0.0001""#)), ["funding_rate rate=-0.0001"]);
    assert_eq!(kinds(&change(r#","nextFundingTime":"1786550400000","fundingIntervalHour":"4""#)), [""; 0]);
    // The value moves with the price and is no news of the open interest.
    assert_eq!(kinds(&change(r#","openInterestValue":"1","singleOpenInterestValue":"1""#)), [""; 0]);
    // Without the figure of one side it is half of that of both.
    assert_eq!(kinds(&change(r#","openInterest":"57798.137""#)), ["open_interest base=28899.0685"]);
    assert_eq!(kinds(&change(r#","singleOpenInterest":"0""#)), ["open_interest base=0"]);
    assert_eq!(kinds(&change(r#","markPrice":"","indexPrice":"0","fundingRate":"","openInterest":null"#)), [""; 0]);
    // A delivery price alone is no mark price, but the last half hour has both.
    assert_eq!(kinds(&change(r#","predictedDeliveryPrice":"5""#)), [""; 0]);
    assert_eq!(kinds(&change(r#","predictedDeliveryPrice":"5","markPrice":"6""#)), ["mark_price price=6 settlement_price=5"]);
    // What the venue works out may have more digits than we keep.
    assert_eq!(kinds(&change(r#","markPrice":"0.00000000000149""#)), ["mark_price price=0.000000000001"]);
}

#[test]
fn an_options_ticker_has_its_quote() {
    let base = "venue=bybit market=option symbol=BTC-USD-230106-17500-C event_time=2023-01-05T11:18:31.074 receive_time=1970-01-01T00:00:07 frame=3";
    assert_eq!(
        shown("bybit_option", OPTION_TICKER),
        [
            format!("index_price {base} price=16823.73"),
            format!("mark_price {base} price=7.86976724"),
            format!("open_interest {base} base=49.85"),
            format!("quote {base} ask_price=10 ask_quantity=5.1"),
        ]
    );
    // A ticker of contracts has one too, but in changes only what changed.
    assert!(shown("bybit_linear", TICKER).iter().all(|row| !row.starts_with("quote")));
    let spot = r#"{"topic":"tickers.BTCUSDT","ts":1786538729776,"type":"snapshot","cs":112571857121,"data":{"symbol":"BTCUSDT","lastPrice":"64057.7","usdIndexPrice":"63989.741059"}}"#;
    assert_eq!(decode("bybit_spot", spot).unwrap().0, Outcome::Ignored);
}

#[test]
fn a_liquidation_has_the_side_of_its_order() {
    // `S` is the position's side: of a short for the first, which a buy closes.
    assert_eq!(
        shown("bybit_linear", LIQUIDATION),
        [
            "liquidation venue=bybit market=perpetual symbol=ROSE-USDT-PERP event_time=2025-02-14T03:05:02.929 receive_time=1970-01-01T00:00:07 frame=3 side=buy price=0.04499 quantity=20000 filled_quantity=20000",
            "liquidation venue=bybit market=perpetual symbol=ROSE-USDT-PERP event_time=2025-02-14T03:05:03.011 receive_time=1970-01-01T00:00:07 frame=3 side=sell price=0.04 quantity=1.5 filled_quantity=1.5",
        ]
    );
    assert_eq!(
        shown("bybit_linear", OLD_LIQUIDATION),
        [
            "liquidation venue=bybit market=perpetual symbol=BTC-USDT-PERP event_time=2023-12-25T06:20:37.953 receive_time=1970-01-01T00:00:07 frame=3 side=buy price=43511.7 quantity=0.003 filled_quantity=0.003"
        ]
    );
    let inverse = OLD_LIQUIDATION.replace("BTCUSDT", "BTCUSD").replace("0.003", "300").replace("43511.70", "40000").replace("Sell", "Buy");
    let row = &shown("bybit_inverse", &inverse)[0];
    assert!(row.contains("side=sell price=40000 quantity=0.0075 filled_quantity=0.0075 contracts=300"), "{row}");
}

#[test]
fn answers_are_put_into_the_order_of_time() {
    let (_, found) = decode("bybit_spot", REST_TRADES).unwrap();
    let rows = TradeRows::of(&found["trade"]).unwrap();
    let ids: Vec<&str> = (0..3).map(|row| rows.trade_id.value(row)).collect();
    assert_eq!(ids, ["2100000000007764263", "2100000000007764264", "2100000000007764265"]);
    assert_eq!(
        shown("bybit_spot", REST_TRADES)[0],
        "trade venue=bybit market=spot symbol=BTC-USDT event_time=2022-12-26T11:09:15.758 receive_time=1970-01-01T00:00:07 frame=3 trade_id=2100000000007764263 price=16618.49 quantity=0.00012 side=buy fills=1 backfilled=true"
    );
    // One that is in order already stays so.
    let ordered = REST_TRADES.replace("1672052955759", "1672052955757");
    assert!(shown("bybit_spot", &ordered)[0].contains("trade_id=2100000000007764265 "));
    assert_eq!(
        shown("bybit_linear", REST_FUNDING),
        [
            "funding_rate venue=bybit market=perpetual symbol=ETH-USDC-PERP event_time=2022-12-26T00:00:00 receive_time=1970-01-01T00:00:07 frame=3 rate=-0.00015 next_funding_time=2022-12-26T00:00:00",
            "funding_rate venue=bybit market=perpetual symbol=ETH-USDC-PERP event_time=2022-12-26T08:00:00 receive_time=1970-01-01T00:00:07 frame=3 rate=0.0001 next_funding_time=2022-12-26T08:00:00",
        ]
    );
}

#[test]
fn open_interest_is_that_of_one_side() {
    let base = "venue=bybit market=perpetual symbol=BTC-USD-PERP";
    assert_eq!(
        shown("bybit_inverse", REST_INTEREST),
        [
            format!(
                "open_interest {base} event_time=2026-06-08T00:00:00 receive_time=1970-01-01T00:00:07 frame=3 contracts=230567146 quote=230567146"
            ),
            format!(
                "open_interest {base} event_time=2026-06-09T00:00:00 receive_time=1970-01-01T00:00:07 frame=3 contracts=31955346 quote=31955346"
            ),
        ]
    );
    let linear = REST_INTEREST.replace("BTCUSD", "BTCUSDT").replace("inverse", "linear");
    let (_, found) = decode("bybit_linear", &linear).unwrap();
    let rows = OpenInterestRows::of(&found["open_interest"]).unwrap();
    assert_eq!((number(rows.contracts, 1), number(rows.base, 1), number(rows.quote, 1)), (None, Some(d("31955346")), None));
}

#[test]
fn rest_tickers_stand_for_the_time_of_the_answer() {
    let base = |market, symbol| {
        format!("venue=bybit market={market} symbol={symbol} event_time=2022-12-30T05:01:36.682 receive_time=1970-01-01T00:00:07 frame=3")
    };
    let (perpetual, future) = (base("perpetual", "BTC-USD-PERP"), base("future", "BTC-USD-261225"));
    assert_eq!(
        shown("bybit_inverse", REST_TICKERS),
        [
            format!("funding_rate {perpetual} rate=-0.001034 next_funding_time=2022-12-30T08:00:00"),
            format!("index_price {perpetual} price=16598.54"),
            format!("index_price {future} price=16598.54"),
            format!("mark_price {perpetual} price=16596"),
            format!("mark_price {future} price=17001 settlement_price=17002.5"),
            // The value is in the asset that it is settled in.
            format!("open_interest {perpetual} contracts=186752053.5 base=11252.835 quote=186752053.5"),
            format!("open_interest {future} contracts=50 quote=50"),
        ]
    );
    let spot = r#"{"retCode":0,"retMsg":"OK","result":{"category":"spot","list":[{"symbol":"BTCUSDT","bid1Price":"20517.96","lastPrice":"20533.13","usdIndexPrice":"20511.5"}]},"retExtInfo":{},"time":1673859087947}"#;
    assert_eq!(decode("bybit_spot", spot).unwrap().0, Outcome::Ignored);
    let option = r#"{"retCode":0,"retMsg":"OK","result":{"category":"option","list":[{"symbol":"BTC-30DEC22-18000-C","bid1Price":"0","bid1Size":"0","bid1Iv":"0","ask1Price":"435","ask1Size":"0.66","ask1Iv":"5","lastPrice":"435","markPrice":"0.00000000","indexPrice":"16600.55","openInterest":"6.3","predictedDeliveryPrice":"0"}]},"retExtInfo":{},"time":1672376592395}"#;
    let kinds: Vec<String> = shown("bybit_option", option)
        .iter()
        .map(|row| format!("{} {}", row.split(' ').next().unwrap(), row.split_once("frame=3 ").unwrap().1))
        .collect();
    assert_eq!(kinds, ["index_price price=16600.55", "open_interest base=6.3", "quote ask_price=435 ask_quantity=0.66"]);
}

#[test]
fn a_ratio_is_told_its_period() {
    let base = "long_short_ratio venue=bybit market=perpetual symbol=BTC-USDT-PERP";
    assert_eq!(
        shown_as("bybit_linear", REST_RATIO, Some("BTCUSDT@account-ratio@1h")),
        [
            format!(
                "{base} event_time=2023-10-02T15:00:00 receive_time=1970-01-01T00:00:07 frame=3 basis=account population=all period_seconds=3600 ratio=1.5 long_share=0.6 short_share=0.4"
            ),
            format!(
                "{base} event_time=2023-10-02T16:00:00 receive_time=1970-01-01T00:00:07 frame=3 basis=account population=all period_seconds=3600 ratio=0.960784313725 long_share=0.49 short_share=0.51"
            ),
        ]
    );
    for (asked, seconds) in [("5min", 300), ("15min", 900), ("30min", 1_800), ("4h", 14_400), ("1d", 86_400)] {
        let (_, found) = decode_as("bybit_linear", REST_RATIO, None, Some(&format!("BTCUSDT@account-ratio@{asked}"))).unwrap();
        assert_eq!(LongShortRatioRows::of(&found["long_short_ratio"]).unwrap().period_seconds.value(0), seconds);
    }
    for topic in [None, Some("BTCUSDT"), Some("BTCUSDT@account-ratio"), Some("BTCUSDT@account-ratio@5m"), Some("BTCUSDT@x@1h")] {
        assert_eq!(decode_as("bybit_linear", REST_RATIO, Some(1), topic).unwrap_err().reason, "missing_field", "{topic:?}");
    }
    let none = REST_RATIO.replace("\"0.4\"", "\"0\"");
    assert_eq!(decode_as("bybit_linear", &none, None, Some("BTCUSDT@account-ratio@1h")).unwrap_err().reason, "bad_number");
}

#[test]
fn maintenance_is_a_status_of_the_venue() {
    assert_eq!(
        shown("bybit_spot", STATUS),
        ["venue_status venue=bybit event_time=2025-07-04T02:43:31 receive_time=1970-01-01T00:00:07 frame=3 status=completed message=t06"]
    );
    let time = |state: &str| {
        let (_, found) = decode("bybit_linear", &STATUS.replace("completed", state)).unwrap();
        integer(VenueStatusRows::of(&found["venue_status"]).unwrap().event_time, 0)
    };
    assert_eq!((time("ongoing"), time("scheduled")), (Some(1_751_596_902_000_000), Some(1_751_858_399_649_000)));
    // An answer does not say when something was planned.
    let answer = r#"{"retCode":0,"retMsg":"","result":{"list":[{"id":"19bb6f82","title":"t05","state":"scheduled","begin":"1751254200000","end":"1751254500000","product":[1]}]},"retExtInfo":{},"time":1751858399700}"#;
    let (_, found) = decode("bybit_linear", answer).unwrap();
    let rows = VenueStatusRows::of(&found["venue_status"]).unwrap();
    assert_eq!((integer(rows.event_time, 0), label(rows.status, 0)), (None, Some("scheduled")));
    assert_eq!(decode_as("bybit_linear", answer, None, None).unwrap_err().reason, "no_time");
}

#[test]
fn lists_are_decoded_whole_or_not_at_all() {
    for bad in [r#","S":"Buy","v":"1.5","p":"x""#, r#","S":"Buyer","v":"1.5","p":"1""#, r#","S":"Buy","v":"1.5","p":"1","p":"1""#] {
        let frame = LIQUIDATION.replace(r#","S":"Buy","v":"1.5","p":"0.04""#, bad);
        assert_ne!(frame, LIQUIDATION);
        let reason = reason("bybit_linear", &frame);
        assert!(["bad_number", "wrong_type", "malformed"].contains(&reason), "{reason}");
    }
    assert_eq!(reason("bybit_linear", &LIQUIDATION.replace("{\"T\":1739502303011", "7,{\"T\":1739502303011")), "wrong_type");
    assert_eq!(reason("bybit_spot", &REST_TRADES.replace("\"0.00012\"", "\"0\"")), "not_a_trade");
    assert_eq!(reason("bybit_inverse", &REST_TICKERS.replace("\"17001.00\"", "\"-1\"")), "bad_number");
    assert_eq!(
        decode("bybit_linear", r#"{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1,"data":[]}"#).unwrap().0,
        Outcome::Ignored
    );
}

#[test]
fn what_carries_no_record_is_ignored() {
    for frame in [
        r#"{"success":true,"ret_msg":"subscribe","conn_id":"d9avsh3fo0jvsls9d82g-5m9jh","req_id":"1","op":"subscribe"}"#,
        r#"{"success":true,"ret_msg":"pong","conn_id":"0970e817-426e-429a-a679-ff7f55e0b16a","op":"ping"}"#,
        r#"{"args":["1672916271846"],"op":"pong"}"#,
        FRAMES[17].1,
        r#"{"topic":"kline.5.BTCUSDT","data":[{"start":1672324800000,"confirm":false}],"ts":1672324988882,"type":"snapshot"}"#,
        r#"{"topic":"tickers_lt.EOS3LUSDT","ts":1672325446847,"type":"snapshot","data":{"symbol":"EOS3LUSDT"}}"#,
        r#"{"topic":"insurance.USDT","type":"delta","ts":1747722930000,"data":[{"coin":"USDT"}]}"#,
        r#"{"topic":"adlAlert.USDT","type":"snapshot","ts":1757733960000,"data":[]}"#,
        r#"{"topic":"priceLimit.BTCUSDT","data":{"symbol":"BTCUSDT"},"ts":1750059683782}"#,
        r#"{"retCode":0,"retMsg":"OK","result":{"symbol":"BTCUSD","list":[["1670608800000","17071","17073","17027","17055.5","268611","15.7"]]},"time":1672025956592}"#,
        r#"{"retCode":0,"retMsg":"SUCCESS","category":"option","result":[{"period":30,"value":"0.45024716","time":"1672052400000"}]}"#,
        r#"{"retCode":0,"retMsg":"OK","result":{"timeSecond":"1688639403","timeNano":"1688639403423213947"},"retExtInfo":{},"time":1688639403423}"#,
        r#"{"retCode":0,"retMsg":"OK","result":{"list":[],"nextPageCursor":""},"retExtInfo":{},"time":1688639403423}"#,
    ] {
        assert_eq!(decode("bybit_spot", frame).unwrap().0, Outcome::Ignored, "{frame}");
    }
    // Nothing of an unwanted kind is read.
    let mut none = Records::default();
    for (dialect, frame) in FRAMES {
        let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: frame.as_bytes() };
        assert_eq!(make(dialect).unwrap().decode(frame, &mut none), Ok(Outcome::Ignored));
    }
    let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: br#"{"topic":"publicTrade.X","data":[{"T":"no"}]}"# };
    assert_eq!(make("bybit_spot").unwrap().decode(frame, &mut none), Ok(Outcome::Ignored));
}

#[test]
fn every_refusal_has_its_reason_and_names_the_place() {
    for (from, to, reason, detail) in [
        ("}]}", "}]", "malformed", "the text ends before the value does at byte 245"),
        ("}]}", "}]}]", "malformed", "bytes after the value at byte 246"),
        ("\"seq\":1783284617", "\"p\":\"2\"", "malformed", "member named twice at byte 232"),
        ("\"ts\"", "\"data\":1,\"ts\"", "malformed", "member named twice at byte 84"),
        ("publicTrade.", "trade.", "unknown_event", "the topic \"trade.BTCUSDT\" is nothing of Bybit's that we know"),
        ("publicTrade.", "orderbook.x.", "unknown_event", "the topic \"orderbook.x.BTCUSDT\" is nothing of Bybit's that we know"),
        ("\"topic\"", "\"x\"", "unknown_event", "an object without topic or code is nothing of Bybit's that we know"),
        ("\"data\"", "\"x\"", "missing_field", "`data` is missing"),
        ("\"s\":\"BTCUSDT\",", "", "missing_field", "`s` is missing"),
        ("\"16578.50\"", "null", "missing_field", "`p` is missing"),
        ("\"16578.50\"", "16578.50", "wrong_type", "`p` is 16578.50, where a quoted number should be"),
        ("1672304486865", "\"1672304486865\"", "wrong_type", "`T` is \"1672304486865\", where a whole number should be"),
        ("\"Buy\"", "\"buy\"", "wrong_type", "`S` is \"buy\", where Buy or Sell should be"),
        ("\"publicTrade.BTCUSDT\"", "7", "wrong_type", "`topic` is 7, where a text should be"),
        ("\"20f43950-d8dd-5b31-9112-a178eb6023af\"", "1", "wrong_type", "`i` is 1, where a text should be"),
        ("\"16578.50\"", "\"16578,50\"", "bad_number", "`p` is \"16578,50\", which is not a decimal number"),
        ("\"0.001\"", "\"-0.001\"", "bad_number", "`v` is \"-0.001\", which is negative"),
        ("\"0.001\"", "\"0.0000000000001\"", "overflow", "`v` is \"0.0000000000001\", which has more than 12 fraction digits"),
        ("1672304486865", "-4", "bad_time", "`T` is -4, which is no time in milliseconds or microseconds since 1970"),
        ("\"0.001\"", "\"0.000\"", "not_a_trade", "the price is 16578.5 and the size is 0; neither may be zero"),
        (
            "\"s\":\"BTCUSDT\"",
            "\"s\":\"BTCXYZ\"",
            "unknown_instrument",
            "`BTCXYZ` is not in the listing and its letters do not tell base from quote; give the source the venue's `instruments-info` as `instruments`",
        ),
    ] {
        assert!(TRADE.contains(from), "{from}");
        assert_eq!(decode("bybit_linear", &TRADE.replacen(from, to, 1)).unwrap_err(), Reject::new(reason, detail));
        assert!(REASONS.contains(&reason));
    }
    for answer in [
        r#"{"retCode":10001,"retMsg":"params error: symbol invalid","result":{},"retExtInfo":{},"time":1}"#,
        r#"{"success":false,"ret_msg":"Invalid topic: x","conn_id":"2xh","op":"subscribe"}"#,
        r#"{"success":true,"conn_id":"a","data":{"failTopics":["tickers.X"],"successTopics":[]},"type":"COMMAND_RESP"}"#,
    ] {
        assert_eq!(reason("bybit_option", answer), "venue_error", "{answer}");
    }
    // The same symbol is another instrument in another category.
    assert_eq!(
        decode("bybit_linear", REST_TRADES).unwrap_err(),
        Reject::new("wrong_type", "`category` is \"spot\", where linear should be")
    );
    assert_eq!(reason("bybit_linear", REST_INSTRUMENTS), "wrong_type");
    assert_eq!(reason("bybit_spot", r#"{"retCode":0,"result":{"list":[{"coin":"BTC"}]},"time":1}"#), "unknown_event");
    assert_eq!(reason("bybit_spot", r#"{"retCode":0,"result":{"uid":1},"time":1}"#), "unknown_event");
    assert_eq!(reason("bybit_spot", r#"{"retCode":0,"time":1}"#), "missing_field");
    assert_eq!(reason("bybit_spot", r#"{"retCode":0,"result":null,"time":1}"#), "wrong_type");
    assert_eq!(reason("bybit_spot", r#"{"retCode":0,"result":{"list":[{"execId":"1"},7]},"time":1}"#), "wrong_type");
    for (level, expected) in [
        ("[\"1\"]", "wrong_type"),
        ("7", "wrong_type"),
        ("[1,2]", "wrong_type"),
        ("[\"x\",\"1\"]", "bad_number"),
        ("[\"1\",\"-1\"]", "bad_number"),
    ] {
        assert_eq!(reason("bybit_linear", &DELTA.replace("[\"30248.70\",\"0\"]", level)), expected, "{level}");
        assert_eq!(reason("bybit_spot", &REST_BOOK.replace("[\"65557.7\",\"16.606555\"]", level)), expected, "{level}");
    }
}

#[test]
fn a_listing_becomes_records() {
    assert_eq!(
        shown("bybit_option", REST_INSTRUMENTS),
        [
            "instrument venue=bybit market=option symbol=BTC-USDT-260327-70000-P event_time=2023-01-03T02:22:17.130 receive_time=1970-01-01T00:00:07 frame=3 venue_symbol=BTC-27MAR26-70000-P-USDT base=BTC quote=USDT settlement=USDT status=trading tick_size=5 lot_size=0.01 inverse=false expiry=2026-03-27T08:00:00 strike=70000 option_type=put"
        ]
    );
    let listed = |category: &str, symbols: &str| {
        format!(
            r#"{{"retCode":0,"retMsg":"OK","result":{{"category":"{category}","list":[{symbols}],"nextPageCursor":""}},"retExtInfo":{{}},"time":1672712537130}}"#
        )
    };
    let inverse = listed(
        "inverse",
        r#"{"symbol":"BTCUSD","contractType":"InversePerpetual","status":"Trading","baseCoin":"BTC","quoteCoin":"USD","settleCoin":"BTC","deliveryTime":"0","priceFilter":{"tickSize":"0.10"},"lotSizeFilter":{"qtyStep":"1"}},
           {"symbol":"BTCUSDZ26","contractType":"InverseFutures","status":"PreLaunch","baseCoin":"BTC","quoteCoin":"USD","settleCoin":"BTC","deliveryTime":"1798185600000","priceFilter":{"tickSize":"0.50"},"lotSizeFilter":{"qtyStep":"1"}}"#,
    );
    let base = "event_time=2023-01-03T02:22:17.130 receive_time=1970-01-01T00:00:07 frame=3";
    assert_eq!(
        shown("bybit_inverse", &inverse),
        [
            format!(
                "instrument venue=bybit market=perpetual symbol=BTC-USD-PERP {base} venue_symbol=BTCUSD base=BTC quote=USD settlement=BTC status=trading tick_size=0.1 lot_size=1 contract_size=1 inverse=true"
            ),
            format!(
                "instrument venue=bybit market=future symbol=BTC-USD-261225 {base} venue_symbol=BTCUSDZ26 base=BTC quote=USD settlement=BTC status=prelaunch tick_size=0.5 lot_size=1 contract_size=1 inverse=true expiry=2026-12-25T08:00:00"
            ),
        ]
    );
    let spot = listed(
        "spot",
        r#"{"symbol":"BTCUSDT","baseCoin":"BTC","quoteCoin":"USDT","status":"Trading","lotSizeFilter":{"basePrecision":"0.000001","quotePrecision":"0.0000001"},"priceFilter":{"tickSize":"0.01"}}"#,
    );
    let (_, found) = decode("bybit_spot", &spot).unwrap();
    let rows = InstrumentRows::of(&found["instrument"]).unwrap();
    assert_eq!((label(rows.market, 0), number(rows.lot_size, 0), number(rows.contract_size, 0)), (Some("spot"), Some(d("0.000001")), None));
    // The letters alone say the same as the listings.
    let linear = listed(
        "linear",
        r#"{"symbol":"BTCUSDT","contractType":"LinearPerpetual","baseCoin":"BTC","quoteCoin":"USDT","deliveryTime":"0"},
           {"symbol":"1000PEPEUSDT","contractType":"LinearPerpetual","baseCoin":"1000PEPE","quoteCoin":"USDT","deliveryTime":"1700000000000"},
           {"symbol":"BTCUSDT-26SEP25","contractType":"LinearFutures","baseCoin":"BTC","quoteCoin":"USDT","deliveryTime":"1758873600000"},
           {"symbol":"X","contractType":"LinearSwap","baseCoin":"X","quoteCoin":"USDT","deliveryTime":"0"}"#,
    );
    let option = listed(
        "option",
        r#"{"symbol":"ETH-3JAN23-1250-P","baseCoin":"ETH","quoteCoin":"USD","settleCoin":"USDC","deliveryTime":"1672732800000"}"#,
    );
    let mut count = 0;
    for (category, listing) in
        [(Category::Spot, &spot), (Category::Linear, &linear), (Category::Inverse, &inverse), (Category::Option, &option)]
    {
        for (symbol, listed) in super::instruments(category, listing.as_bytes()).unwrap() {
            count += 1;
            assert_eq!(category.read(&symbol).as_ref(), Some(&listed), "{symbol}");
        }
    }
    assert_eq!(count, 7, "of a sort of contract that we do not know nothing is said");
    assert_eq!(found["instrument"].num_rows(), 1);
    // A delisting is no expiry.
    let (_, found) = decode("bybit_linear", &linear).unwrap();
    let expiry = InstrumentRows::of(&found["instrument"]).unwrap().expiry;
    assert!(expiry.is_null(1) && expiry.is_valid(2));
    for (bad, what) in [
        (linear.replace("\"1758873600000\"", "\"0\""), "`BTCUSDT-26SEP25` has no time of delivery"),
        (linear.replace("\"retCode\":0", "\"retCode\":10001"), "`retCode` is 10001"),
        (linear.replace("\"linear\"", "\"spot\""), "is of the category `spot`, where `linear` should be"),
        ("[]".into(), "instruments-info"),
        (String::new(), "it is empty"),
        (format!("{linear}{{"), "instruments-info"),
    ] {
        let error = Dialects::default().learn("bybit_linear", bad.as_bytes()).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
    let error = Dialects::default().learn("bybit_option", option.replace("3JAN23-1250-P", "3JAN23").as_bytes()).unwrap_err();
    assert!(error.contains("`ETH-3JAN23` is no option's symbol"), "{error}");
}

#[test]
fn a_learnt_listing_wins_over_the_letters() {
    let mut dialects = Dialects::default();
    // Two pages in one file.
    let page = |symbol: &str, base: &str, quote: &str| {
        format!(
            r#"{{"retCode":0,"result":{{"category":"linear","list":[{{"symbol":"{symbol}","contractType":"LinearPerpetual","baseCoin":"{base}","quoteCoin":"{quote}"}}]}}}}"#
        )
    };
    dialects.learn("bybit_linear", format!("{}\n{}", page("FOOBAR", "FOO", "BAR"), page("BTCUSDT", "XBT", "USDT")).as_bytes()).unwrap();
    for (symbol, expected) in [("FOOBAR", "FOO-BAR-PERP"), ("BTCUSDT", "XBT-USDT-PERP"), ("ETHUSDT", "ETH-USDT-PERP")] {
        let mut records = every_kind();
        let payload = TRADE.replace("\"BTCUSDT\"", &format!("\"{symbol}\""));
        let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: payload.as_bytes() };
        dialects.make("bybit_linear").unwrap().decode(frame, &mut records).unwrap();
        let batches = records.finish();
        assert_eq!(label(TradeRows::of(&batches[0].1).unwrap().symbol, 0), Some(expected));
    }
    assert_eq!(reason("bybit_linear", &TRADE.replace("\"BTCUSDT\"", "\"FOOBAR\"")), "unknown_instrument");
}

/// The other project's pairs. Those of `bybit.jsonl` are of the protocol's second version (2019 to 2021): its topics are
/// not ours, so all but the first line, an acknowledgement that looks the same, are refused. So are the first five of
/// `bybit_spot.jsonl`, of the spot protocol of 2021; the sixth and all of `bybit_options.jsonl` are of the fifth version.
#[test]
fn another_projects_pairs_agree() {
    let mut compared = 0;
    for (file, dialect, ours) in
        [("bybit", "bybit_linear", &[1][..]), ("bybit_spot", "bybit_spot", &[6]), ("bybit_options", "bybit_option", &[1, 2, 3])]
    {
        let Some(text) = recording(&format!("normalised_pairs/{file}.jsonl")) else { return };
        for (number, (frames, expected)) in (1..).zip(pairs(&text)) {
            for frame in frames {
                if ours.contains(&number) {
                    check_pair(dialect, &frame, &expected);
                    compared += expected.len();
                } else {
                    let reason = reason(dialect, &frame.to_string());
                    // The old topic `liquidation` has our name, but a list.
                    let expected = if frame["topic"] == "liquidation.BTCUSD" { "wrong_type" } else { "unknown_event" };
                    assert_eq!(reason, expected, "{file} {number}");
                }
            }
        }
    }
    assert_eq!(compared, 7);
}

fn check_pair(dialect: &str, frame: &Value, expected: &[Value]) {
    let (outcome, found) = decode(dialect, &frame.to_string()).unwrap();
    assert_eq!(outcome == Outcome::Ignored, expected.is_empty());
    assert_eq!(found.values().map(RecordBatch::num_rows).sum::<usize>(), expected.len());
    for (at, record) in expected.iter().enumerate() {
        let sent = |time: Option<i64>| assert_eq!(display(time.unwrap()).replace("000Z", "Z"), record["timestamp"].as_str().unwrap());
        match record["type"].as_str().unwrap() {
            "trade" => {
                let rows = TradeRows::of(&found["trade"]).unwrap();
                assert!(near(number(rows.price, at), &record["price"]) && near(number(rows.quantity, at), &record["amount"]), "{record}");
                assert_eq!((rows.trade_id.value(at), label(rows.side, at)), (record["id"].as_str().unwrap(), record["side"].as_str()));
                sent(integer(rows.event_time, at));
            }
            "book_change" => {
                assert_eq!(record["isSnapshot"], true);
                let rows = BookSnapshotRows::of(&found["book_snapshot"]).unwrap();
                sent(integer(rows.event_time, at));
                for (prices, sizes, theirs) in
                    [(rows.bid_prices, rows.bid_quantities, "bids"), (rows.ask_prices, rows.ask_quantities, "asks")]
                {
                    let (prices, sizes) = (model::columns::numbers(prices, at), model::columns::numbers(sizes, at));
                    let theirs = record[theirs].as_array().unwrap();
                    assert_eq!(prices.len(), theirs.len());
                    for ((price, size), level) in prices.iter().zip(sizes).zip(theirs) {
                        assert!(
                            near(Some(Decimal::from_units(*price)), &level["price"])
                                && near(Some(Decimal::from_units(*size)), &level["amount"])
                        );
                    }
                }
            }
            other => panic!("unexpected {other}"),
        }
    }
}

/// Frames that no decoder may accept, made from the real ones.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let mut bad = Vec::new();
    for (dialect, frame) in FRAMES {
        let bytes = frame.as_bytes();
        for cut in [0, 1, bytes.len() / 4, bytes.len() / 2, bytes.len() - 2, bytes.len() - 1] {
            bad.push((dialect, bytes[..cut].to_vec()));
        }
        for (from, to) in [("\":", "\" "), (",\"", "\""), ("\"s", "s"), ("{", "[")] {
            if frame.contains(from) {
                bad.push((dialect, frame.replacen(from, to, 1).into_bytes()));
            }
        }
        let mut flipped = bytes.to_vec();
        flipped[bytes.len() / 2] = 0xff;
        bad.push((dialect, flipped));
        bad.push((dialect, [bytes, b"{}"].concat()));
        bad.push((dialect, frame.replacen('"', "\"\u{1}", 1).into_bytes()));
        // Well-formed, and nothing that is sent.
        for (from, to) in [
            ("\"topic\":", "\"topic\":7,\"x\":"),
            ("\"retCode\":0", "\"retCode\":\"0\""),
            ("\"data\":", "\"data\":7,\"x\":"),
            ("\"list\":", "\"list\":7,\"x\":"),
        ] {
            if frame.contains(from) && !frame.contains("COMMAND_RESP") {
                bad.push((dialect, frame.replacen(from, to, 1).into_bytes()));
            }
        }
    }
    bad
}

#[test]
fn malformed_frames_are_refused_and_leave_nothing() {
    let bad = malformed();
    assert!(bad.len() >= 200, "{}", bad.len());
    for (dialect, payload) in bad {
        let mut records = every_kind();
        let frame = FrameRef { receive_time: Some(1), frame: 1, topic: Some("BTCUSDT"), payload: &payload };
        let text = String::from_utf8_lossy(&payload);
        let reject = make(dialect).unwrap().decode(frame, &mut records).expect_err(&text);
        assert!(REASONS.contains(&reject.reason) && !reject.detail.is_empty(), "{reject:?}");
        assert!(records.is_empty(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_bytes_make_it_panic(which in 0..FRAMES.len(), damages in prop::collection::vec(damage(), 1..6), dialect in 0..DIALECTS.len()) {
        let payload = damaged(FRAMES[which].1.as_bytes().to_vec(), &damages);
        let mut records = every_kind();
        let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: &payload };
        match make(DIALECTS[dialect]).unwrap().decode(frame, &mut records) {
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
    fn numbers_survive_exactly(price in 1..10_i64.pow(15), quantity in 1..10_i64.pow(15), id in "[0-9a-f-]{1,40}", millis in 1..10_i64.pow(14) - 1, sell: bool) {
        let (price, quantity) = (Decimal::from_units(i128::from(price) * 10_000), Decimal::from_units(i128::from(quantity)));
        let side = if sell { "Sell" } else { "Buy" };
        let frame = format!(r#"{{"topic":"publicTrade.BTCUSDT","ts":1,"data":[{{"s":"BTCUSDT","i":"{id}","p":"{price}","v":"{quantity}","T":{millis},"S":"{side}"}}]}}"#);
        let (_, found) = decode("bybit_spot", &frame).unwrap();
        let rows = TradeRows::of(&found["trade"]).unwrap();
        prop_assert_eq!((number(rows.price, 0), number(rows.quantity, 0)), (Some(price), Some(quantity)));
        prop_assert_eq!((rows.trade_id.value(0), rows.event_time.value(0)), (id.as_str(), millis * 1_000));
        prop_assert_eq!(label(rows.side, 0), Some(if sell { "sell" } else { "buy" }));
    }
}
