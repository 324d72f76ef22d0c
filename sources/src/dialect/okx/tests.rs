//! The dialect against real frames: a recording with the counts of another reader and the venue's checksums, the venue's own listings,
//! another project's expectations, frames as the venue documents them, and frames damaged in every way.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use flate2::Crc;
use model::Decimal;
use model::columns::{integer, label, number, numbers};
use model::decimal::SCALE;
use model::dialect::{FrameRef, Outcome, Records, Reject};
use model::kinds::{BookDeltaRows, BookSnapshotRows, InstrumentRows, LongShortRatioRows, QuoteRows, TradeRows};
use proptest::prelude::*;
use serde_json::Value;

use super::symbols::InstId;
use crate::dialect::symbols::Spelling;
use crate::dialect::testing::{
    batches, d, damage, damaged, decode, decode_all, decode_as, every_kind, pairs, reason, received, recording, rows,
};
use crate::dialect::{Dialects, REASONS, make};

const TRADES: &str = r#"{"arg":{"channel":"trades","instId":"BTC-USDT-SWAP"},"data":[{"instId":"BTC-USDT-SWAP","tradeId":"2832749635","px":"63913.5","sz":"1","side":"buy","ts":"1786540435948","count":"1","source":"0","seqId":333793117432},{"instId":"BTC-USDT-SWAP","tradeId":"2832749645","px":"63913.4","sz":"34.95","side":"sell","ts":"1786540436090","count":"10","source":"0","seqId":333793118093}]}"#;
const ALL_TRADES: &str = r#"{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"130639474","px":"42219.9","sz":"0.12060306","side":"buy","source":"0","ts":"1630048897897"}]}"#;
const SNAPSHOT: &str = r#"{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{"asks":[["8476.98","415","0","13"],["8477","7","0","2"]],"bids":[["8476.97","256","0","12"],["8475.55","101","0","1"]],"ts":"1597026383085","checksum":-855196043,"prevSeqId":-1,"seqId":123456}]}"#;
const UPDATE: &str = r#"{"arg":{"channel":"books","instId":"BTC-USDT-SWAP"},"action":"update","data":[{"asks":[["8476.98","0","0","0"],["8477.34","85.5","0","1"]],"bids":[["8476.97","256","0","12"]],"ts":"1597026383086","checksum":0,"prevSeqId":123456,"seqId":123463}]}"#;
const OLD_UPDATE: &str = r#"{"arg":{"channel":"books","instId":"UNI-USD-SWAP"},"action":"update","data":[{"asks":[["5.158","129","0","2"],["5.233","240","0","1"]],"bids":[["5.117","0","0","0"]],"ts":"1652459225464","checksum":1361161687}]}"#;
const FIVE: &str = r#"{"arg":{"channel":"books5","instId":"BTC-USDT-SWAP"},"data":[{"asks":[["63921.5","790.41","0","42"]],"bids":[["63921.4","421.93","0","28"],["63921.3","0.25","0","1"]],"instId":"BTC-USDT-SWAP","ts":"1786541241006","seqId":333794734980}]}"#;
const BEST: &str = r#"{"arg":{"channel":"bbo-tbt","instId":"BCH-USDT-SWAP"},"data":[{"asks":[["111.06","55154","0","2"]],"bids":[["111.05","57745","0","2"]],"ts":"1670324386802","seqId":363996337}]}"#;
const TICKER: &str = r#"{"arg":{"channel":"tickers","instId":"BTC-USD-SWAP"},"data":[{"instType":"SWAP","instId":"BTC-USD-SWAP","last":"63921","lastSz":"4","askPx":"64000","askSz":"16","bidPx":"62500","bidSz":"5","open24h":"64297.6","high24h":"64466","low24h":"63162.7","sodUtc0":"63566","sodUtc8":"63584.6","volCcy24h":"73998.8786","vol24h":"7399887.86","ts":"1786540471710"}]}"#;
const MARK: &str = r#"{"arg":{"channel":"mark-price","instId":"LTC-USD-190628"},"data":[{"instType":"FUTURES","instId":"LTC-USD-190628","markPx":"0.1","ts":"1597026383085"}]}"#;
const INDEX: &str = r#"{"arg":{"channel":"index-tickers","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","idxPx":"12444.2","high24h":"12500","low24h":"12400","open24h":"12400","sodUtc0":"","sodUtc8":"","ts":"1597026383085"}]}"#;
const FUNDING: &str = r#"{"arg":{"channel":"funding-rate","instId":"BTC-USD-SWAP"},"data":[{"formulaType":"noRate","fundingRate":"0.0001875391284828","fundingTime":"1700726400000","instId":"BTC-USD-SWAP","instType":"SWAP","method":"current_period","maxFundingRate":"0.00375","minFundingRate":"-0.00375","nextFundingRate":"","nextFundingTime":"1700755200000","premium":"0.0001233824646391","settFundingRate":"0.0001699799259033","settState":"settled","ts":"1700724675402"}]}"#;
const OPEN: &str = r#"{"arg":{"channel":"open-interest","instId":"LTC-USD-SWAP"},"data":[{"instId":"LTC-USD-SWAP","instType":"SWAP","oi":"5000","oiCcy":"555.55","oiUsd":"50001","ts":"1743041250440"}]}"#;
const LIQUIDATION: &str = r#"{"arg":{"channel":"liquidation-orders","instType":"SWAP"},"data":[{"details":[{"bkLoss":"0","bkPx":"63955.7","ccy":"","posSide":"long","side":"sell","sz":"3.62","ts":"1786408771714"},{"bkLoss":"0","bkPx":"64168.9","ccy":"","posSide":"short","side":"","sz":"5.3","ts":"1786394631624"}],"instFamily":"BTC-USDT","instId":"BTC-USDT-SWAP","instType":"SWAP","uly":"BTC-USDT"}]}"#;
const STATUS: &str = r#"{"arg":{"channel":"status"},"data":[{"begin":"1672823400000","end":"1672825980000","href":"","preOpenBegin":"1672825000000","scheDesc":"","serviceType":"0","state":"completed","system":"unified","maintType":"1","env":"1","title":"Trading account WebSocket system upgrade","ts":"1672826038470"}]}"#;
const REST_TRADES: &str = r#"{"code":"0","msg":"","data":[{"instId":"BTC-USDT","side":"sell","sz":"0.00001","source":"0","px":"29963.2","tradeId":"242720721","ts":"1654161646975"},{"instId":"BTC-USDT","side":"sell","sz":"0.2","source":"0","px":"29964.1","tradeId":"242720720","ts":"1654161646974"},{"instId":"BTC-USDT","side":"buy","sz":"1","source":"0","px":"29964","tradeId":"242720719","ts":"1654161646974"}]}"#;
const REST_BOOK: &str = r#"{"code":"0","msg":"","data":[{"asks":[["41006.8","0.60038921","0","1"]],"bids":[["41006.3","0.30178218","0","2"]],"ts":"1629966436396","seqId":3235851742}]}"#;
const REST_TICKERS: &str = r#"{"code":"0","msg":"","data":[{"instType":"SPOT","instId":"LTC-USDT","last":"9999.99","lastSz":"1","askPx":"9999.99","askSz":"11","bidPx":"8888.88","bidSz":"5","ts":"1597026383085"},{"instType":"SPOT","instId":"ETH-BTC","last":"","lastSz":"","askPx":"","askSz":"","bidPx":"0.05","bidSz":"2","ts":"1597026383086"}]}"#;
const REST_HISTORY: &str = r#"{"code":"0","msg":"","data":[{"fundingRate":"0.0000746","fundingTime":"1703059200000","instId":"BTC-USDT-SWAP","instType":"SWAP","method":"next_period","formulaType":"noRate","realizedRate":"0.0000746724"},{"fundingRate":"0.0002271","fundingTime":"1703030400000","instId":"BTC-USDT-SWAP","instType":"SWAP","method":"next_period","formulaType":"noRate","realizedRate":"-0.0002270"}]}"#;
const REST_RATIO: &str = r#"{"code":"0","msg":"","data":[["1701417600000","1.1739"],["1701417300000","0.9718"]]}"#;
const REST_INTEREST: &str =
    r#"{"code":"0","msg":"","data":[["1701417600000","731377.57500501","111","8888888"],["1701417300000","731377.6","112","8888889.5"]]}"#;
const REST_INSTRUMENTS: &str = r#"{"code":"0","msg":"","data":[
    {"alias":"","baseCcy":"BTC","category":"1","ctMult":"","ctType":"","ctVal":"","ctValCcy":"","expTime":"1800000000000","instId":"BTC-USDT","instType":"SPOT","lever":"10","listTime":"1548133413000","lotSz":"0.00000001","minSz":"0.00001","optType":"","quoteCcy":"USDT","settleCcy":"","state":"live","stk":"","tickSz":"0.1","uly":"","upcChg":[{"param":"tickSz"}],"instIdCode":1000},
    {"alias":"","baseCcy":"BTC","ctMult":"","ctType":"","ctVal":"","ctValCcy":"","expTime":"","instId":"BTC-USDT","instType":"MARGIN","lotSz":"0.00000001","quoteCcy":"USDT","settleCcy":"","state":"live","stk":"","tickSz":"0.1","uly":""},
    {"alias":"","baseCcy":"","ctMult":"1","ctType":"inverse","ctVal":"100","ctValCcy":"USD","expTime":"","instId":"BTC-USD-SWAP","instType":"SWAP","lotSz":"1","optType":"","quoteCcy":"","settleCcy":"BTC","state":"live","stk":"","tickSz":"0.1","uly":"BTC-USD"},
    {"alias":"","baseCcy":"","ctMult":"1","ctType":"linear","ctVal":"1000000","ctValCcy":"SHIB","expTime":"","instId":"SHIB-USDT-SWAP","instType":"SWAP","lotSz":"1","optType":"","quoteCcy":"","settleCcy":"USDT","state":"live","stk":"","tickSz":"0.000000001","uly":"SHIB-USDT"},
    {"alias":"this_five_years","baseCcy":"","ctMult":"1","ctType":"linear","ctVal":"0.0001","ctValCcy":"BTC","expTime":"1932883200000","instId":"BTC-USD_UM_XPERP-310404","instType":"FUTURES","lotSz":"1","optType":"","quoteCcy":"","settleCcy":"USDC","state":"preopen","ruleType":"xperp","stk":"","tickSz":"0.1","uly":"BTC-USD"},
    {"alias":"","baseCcy":"","ctMult":"0.01","ctType":"","ctVal":"1","ctValCcy":"BTC","expTime":"1719561600000","instId":"BTC-USD-240628-60000-C","instType":"OPTION","lotSz":"1","optType":"C","quoteCcy":"","settleCcy":"BTC","state":"live","stk":"60000","tickSz":"0.0001","uly":"BTC-USD"},
    {"baseCcy":"","ctMult":"","ctType":"linear","ctVal":"","ctValCcy":"","expTime":"","instId":"NEW-USDT-SWAP","instType":"SWAP","lotSz":"","optType":"","settleCcy":"USDT","state":"preopen","stk":"","tickSz":"","instIdCode":null},
    {"instId":"BTC-ABOVE-DAILY-260224-1600-120000","instType":"EVENTS","state":"live","tickSz":"0.01"}
]}"#;

/// Frames of every kind, as the venue sends them.
pub(in crate::dialect) const FRAMES: [(&str, &str); 22] = [
    ("okx", TRADES),
    ("okx", ALL_TRADES),
    ("okx", SNAPSHOT),
    ("okx", UPDATE),
    ("okx", OLD_UPDATE),
    ("okx", FIVE),
    ("okx", BEST),
    ("okx", TICKER),
    ("okx", MARK),
    ("okx", INDEX),
    ("okx", FUNDING),
    ("okx", OPEN),
    ("okx", LIQUIDATION),
    ("okx", STATUS),
    ("okx", REST_TRADES),
    ("okx", REST_BOOK),
    ("okx", REST_TICKERS),
    ("okx", REST_HISTORY),
    ("okx", REST_RATIO),
    ("okx", REST_INTEREST),
    ("okx", REST_INSTRUMENTS),
    ("okx", r#"{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a4d3ae55"}"#),
];

/// A row with all of its columns that are not null: numbers without trailing zeros, times without their zone.
fn row(rows: &RecordBatch, row: usize) -> String {
    let plain = |number: &str| match number.find('.') {
        Some(at) if number.len() == at + 1 + SCALE as usize => number.trim_end_matches('0').trim_end_matches('.').to_owned(),
        _ => number.to_owned(),
    };
    let mut text = String::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()).filter(|(_, column)| column.is_valid(row)) {
        let mut value = array_value_to_string(column, row).unwrap();
        if matches!(field.data_type(), DataType::Timestamp(..)) {
            value.truncate(value.trim_end_matches('Z').len());
        }
        let value = match value.strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
            Some(list) => format!("[{}]", list.split(", ").map(plain).collect::<Vec<_>>().join(" ")),
            None => plain(&value),
        };
        text.push_str(&format!("{}{}={value}", if text.is_empty() { "" } else { " " }, field.name()));
    }
    text
}

/// The rows that a frame gives, by kind. What is the same in all of them is left out.
fn shown(frame: &str) -> Vec<String> {
    shown_as(frame, None)
}

fn shown_as(frame: &str, topic: Option<&str>) -> Vec<String> {
    shown_of(decode_as("okx", frame, Some(7_000_000), topic).unwrap_or_else(|reject| panic!("{reject:?} in {frame}")))
}

fn shown_of((outcome, found): (Outcome, BTreeMap<String, RecordBatch>)) -> Vec<String> {
    assert_eq!(outcome == Outcome::Decoded, !found.is_empty());
    let whole = found.iter().flat_map(|(kind, rows)| (0..rows.num_rows()).map(move |at| format!("{kind} {}", row(rows, at))));
    whole
        .map(|row| {
            assert!(row.contains(" venue=okx ") && row.contains(" receive_time=1970-01-01T00:00:07 frame=3"), "{row}");
            row.replace(" venue=okx", "").replace(" receive_time=1970-01-01T00:00:07 frame=3", "")
        })
        .collect()
}

/// The rows that a frame gives a dialect that knows the listing.
fn shown_listed(frame: &str) -> Vec<String> {
    let mut dialects = Dialects::default();
    dialects.learn("okx", REST_INSTRUMENTS.as_bytes()).unwrap();
    let mut records = every_kind();
    let frame = FrameRef { receive_time: Some(7_000_000), frame: 3, topic: None, payload: frame.as_bytes() };
    let outcome = dialects.make("okx").unwrap().decode(frame, &mut records).unwrap();
    shown_of((outcome, batches(&mut records)))
}

#[test]
fn trades_are_contracts_and_the_base_asset() {
    assert_eq!(
        shown(TRADES),
        [
            "trade market=perpetual symbol=BTC-USDT-PERP event_time=2026-08-12T13:13:55.948 trade_id=2832749635 price=63913.5 quantity=0.01 contracts=1 side=buy fills=1 backfilled=false",
            "trade market=perpetual symbol=BTC-USDT-PERP event_time=2026-08-12T13:13:56.090 trade_id=2832749645 price=63913.4 quantity=0.3495 contracts=34.95 side=sell fills=10 backfilled=false",
        ]
    );
    // The channel of single trades and the protocol of 2022 tell no count.
    assert_eq!(
        shown(ALL_TRADES),
        [
            "trade market=spot symbol=BTC-USDT event_time=2021-08-27T07:21:37.897 trade_id=130639474 price=42219.9 quantity=0.12060306 side=buy fills=1 backfilled=false"
        ]
    );
    // An inverse contract is 100 dollars of bitcoin, 10 of all others.
    let inverse = ALL_TRADES.replace("BTC-USDT", "BTC-USD-240628").replace("42219.9", "50000").replace("0.12060306", "30");
    assert!(shown(&inverse)[0].contains("market=future symbol=BTC-USD-240628 "), "{:?}", shown(&inverse));
    assert!(shown(&inverse)[0].contains(" price=50000 quantity=0.06 contracts=30 "), "{:?}", shown(&inverse));
    let other = inverse.replace("BTC-USD", "ETH-USD");
    assert!(shown(&other)[0].contains(" quantity=0.006 contracts=30 "), "{:?}", shown(&other));
    // A trade must have a size: nobody has told that of an option.
    let option = ALL_TRADES.replace("BTC-USDT", "BTC-USD-240628-60000-C").replace("42219.9", "0.05").replace("0.12060306", "3");
    assert_eq!(
        decode("okx", &option).unwrap_err(),
        Reject::new(
            "unknown_instrument",
            "what a contract of `BTC-USD-240628-60000-C` is worth is not known; give the source the venue's `instruments` as `instruments`"
        )
    );
    assert_eq!(
        shown_listed(&option.replace("trades-all", "option-trades")),
        [
            "trade market=option symbol=BTC-USD-240628-60000-C event_time=2021-08-27T07:21:37.897 trade_id=130639474 price=0.05 quantity=0.03 contracts=3 side=buy fills=1 backfilled=false"
        ]
    );
}

#[test]
fn books_are_linked_and_their_checksum_counts_while_it_is_none() {
    assert_eq!(
        shown(SNAPSHOT),
        [
            "book_snapshot market=spot symbol=BTC-USDT event_time=2020-08-10T02:26:23.085 sequence=123456 origin=venue bid_prices=[8476.97 8475.55] bid_quantities=[256 101] ask_prices=[8476.98 8477] ask_quantities=[415 7] contracts=false checksum=-855196043"
        ]
    );
    // The numbers of a change go from the one before to its own; zero is no checksum; contracts stay contracts.
    assert_eq!(
        shown(UPDATE),
        [
            "book_delta market=perpetual symbol=BTC-USDT-PERP event_time=2020-08-10T02:26:23.086 first_sequence=123457 last_sequence=123463 previous_sequence=123456 bid_prices=[8476.97] bid_quantities=[256] ask_prices=[8476.98 8477.34] ask_quantities=[0 85.5] contracts=true"
        ]
    );
    // Without numbers only the checksum tells.
    assert_eq!(
        shown(OLD_UPDATE),
        [
            "book_delta market=perpetual symbol=UNI-USD-PERP event_time=2022-05-13T16:27:05.464 bid_prices=[5.117] bid_quantities=[0] ask_prices=[5.158 5.233] ask_quantities=[129 240] contracts=true checksum=1361161687"
        ]
    );
    for channel in ["books-l2-tbt", "books50-l2-tbt"] {
        assert_eq!(shown(&UPDATE.replace("\"books\"", &format!("\"{channel}\""))), shown(UPDATE));
    }
    assert!(!shown(&SNAPSHOT.replace(r#""checksum":-855196043,"#, ""))[0].contains("checksum"));
    assert!(!shown(&SNAPSHOT.replace("-855196043", "null"))[0].contains("checksum"));
}

#[test]
fn a_book_that_has_not_changed_says_nothing_and_one_may_count_anew() {
    let unchanged = r#"{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":[],"bids":[],"ts":"1597026443085","checksum":0,"prevSeqId":15,"seqId":15}]}"#;
    assert_eq!(decode("okx", unchanged).unwrap().0, Outcome::Ignored);
    // The example of the venue's manual: 15 is followed by 3.
    let row = &shown(&UPDATE.replace("123456", "15").replace("123463", "3"))[0];
    assert!(row.contains(" first_sequence=3 last_sequence=3 previous_sequence=15 "), "{row}");
    assert_eq!(reason("okx", &UPDATE.replace("123456", "-1")), "bad_number");
    assert_eq!(reason("okx", &UPDATE.replace("\"prevSeqId\"", "\"x\"")), "missing_field");
    assert_eq!(reason("okx", &UPDATE.replace("\"update\"", "\"partial\"")), "wrong_type");
    assert_eq!(reason("okx", &UPDATE.replace("\"action\"", "\"x\"")), "missing_field");
}

#[test]
fn whole_books_have_the_number_of_their_last_update() {
    assert_eq!(
        shown(FIVE),
        [
            "book_snapshot market=perpetual symbol=BTC-USDT-PERP event_time=2026-08-12T13:27:21.006 sequence=333794734980 origin=venue bid_prices=[63921.4 63921.3] bid_quantities=[421.93 0.25] ask_prices=[63921.5] ask_quantities=[790.41] contracts=true"
        ]
    );
    let expected = "book_snapshot market=spot symbol=BTC-USDT event_time=2021-08-26T08:27:16.396 sequence=3235851742 origin=venue bid_prices=[41006.3] bid_quantities=[0.30178218] ask_prices=[41006.8] ask_quantities=[0.60038921] contracts=false";
    assert_eq!(shown_as(REST_BOOK, Some("btc-usdt")), [expected]);
    assert_eq!(shown_as(REST_BOOK, Some("BTC-USDT@books")), [expected]);
    assert_eq!(reason("okx", REST_BOOK), "missing_field");
    assert_eq!(decode_as("okx", REST_BOOK, None, Some("BTC")).unwrap_err().reason, "unknown_instrument");
}

#[test]
fn quotes_have_sizes_in_the_base_asset_or_none() {
    // What a contract of BCH is worth only the listing tells; the prices need none.
    assert_eq!(
        shown(BEST),
        [
            "quote market=perpetual symbol=BCH-USDT-PERP event_time=2022-12-06T10:59:46.802 sequence=363996337 bid_price=111.05 ask_price=111.06"
        ]
    );
    let row = &shown(&BEST.replace("BCH-USDT", "ETH-USDT").replace(r#"[["111.05","57745","0","2"]]"#, "[]"))[0];
    assert!(row.ends_with("sequence=363996337 ask_price=111.06 ask_quantity=5515.4"), "{row}");
    // 5 and 16 contracts of 100 dollars.
    assert_eq!(
        shown(TICKER),
        [
            "quote market=perpetual symbol=BTC-USD-PERP event_time=2026-08-12T13:14:31.710 bid_price=62500 bid_quantity=0.008 ask_price=64000 ask_quantity=0.025"
        ]
    );
    assert_eq!(
        shown(REST_TICKERS),
        [
            "quote market=spot symbol=LTC-USDT event_time=2020-08-10T02:26:23.085 bid_price=8888.88 bid_quantity=5 ask_price=9999.99 ask_quantity=11",
            "quote market=spot symbol=ETH-BTC event_time=2020-08-10T02:26:23.086 bid_price=0.05 bid_quantity=2",
        ]
    );
    assert_eq!(reason("okx", &TICKER.replace("\"askSz\"", "\"x\"")), "missing_field");
}

#[test]
fn prices_of_marks_and_indices() {
    assert_eq!(shown(MARK), ["mark_price market=future symbol=LTC-USD-190628 event_time=2020-08-10T02:26:23.085 price=0.1"]);
    assert_eq!(shown(INDEX), ["index_price market=index symbol=BTC-USDT event_time=2020-08-10T02:26:23.085 price=12444.2"]);
    // An option may be worth nothing, all else may not.
    let option = MARK.replace("LTC-USD-190628", "BTC-USD-190628-9000-P").replace("\"0.1\"", "\"0\"").replace("FUTURES", "OPTION");
    assert!(shown(&option)[0].contains("market=option symbol=BTC-USD-190628-9000-P ") && shown(&option)[0].ends_with("price=0"));
    for ignored in
        [MARK.replace("\"0.1\"", "\"0\""), MARK.replace("\"0.1\"", "\"\""), MARK.replace("FUTURES", "MARGIN"), INDEX.replace("12444.2", "")]
    {
        assert_eq!(decode("okx", &ignored).unwrap().0, Outcome::Ignored, "{ignored}");
    }
    assert_eq!(reason("okx", &MARK.replace("markPx", "x")), "missing_field");
    assert_eq!(reason("okx", &INDEX.replace("\"BTC-USDT\"", "\"BTC\"")), "unknown_instrument");
    // Answers look the same.
    let answer = |frame: &str| format!("{{\"code\":\"0\",\"msg\":\"\",{}", &frame[frame.find("\"data\"").unwrap()..]);
    for frame in [MARK, INDEX, FUNDING, OPEN, LIQUIDATION, TICKER, ALL_TRADES] {
        let asked: Vec<String> = shown(frame).iter().map(|row| row.replace("backfilled=false", "backfilled=true")).collect();
        assert_eq!(shown(&answer(frame)), asked, "{frame}");
    }
}

#[test]
fn a_rate_is_paid_at_its_time_and_over_an_interval() {
    assert_eq!(
        shown(FUNDING),
        [
            "funding_rate market=perpetual symbol=BTC-USD-PERP event_time=2023-11-23T07:31:15.402 rate=0.000187539128 interval_seconds=28800 next_funding_time=2023-11-23T08:00:00"
        ]
    );
    let row = &shown(&FUNDING.replace(r#""nextFundingRate":"""#, r#""nextFundingRate":"-0.0002""#).replace("1700755200000", ""))[0];
    assert!(row.ends_with("rate=0.000187539128 predicted_rate=-0.0002 next_funding_time=2023-11-23T08:00:00"), "{row}");
    // Of the past what was paid counts, oldest first.
    assert_eq!(
        shown(REST_HISTORY),
        [
            "funding_rate market=perpetual symbol=BTC-USDT-PERP event_time=2023-12-20T00:00:00 rate=-0.000227 next_funding_time=2023-12-20T00:00:00",
            "funding_rate market=perpetual symbol=BTC-USDT-PERP event_time=2023-12-20T08:00:00 rate=0.0000746724 next_funding_time=2023-12-20T08:00:00",
        ]
    );
    assert!(shown(&REST_HISTORY.replace("\"-0.0002270\"", "\"\""))[0].contains(" rate=0.0002271 "));
    assert_eq!(reason("okx", &FUNDING.replace("\"ts\"", "\"x\"")), "missing_field");
}

#[test]
fn open_interest_is_told_three_times() {
    // An inverse contract is worth 10 dollars: what 5,000 come to is no matter of the price.
    let base = "open_interest market=perpetual symbol=";
    let time = "event_time=2025-03-27T02:07:30.440 contracts=5000 base=555.55";
    assert_eq!(shown(OPEN), [format!("{base}LTC-USD-PERP {time} quote=50000")]);
    // Dollars are not tether.
    assert_eq!(shown(&OPEN.replace("LTC-USD", "LTC-USDT")), [format!("{base}LTC-USDT-PERP {time}")]);
    assert_eq!(shown(&OPEN.replace("LTC-USD", "LTC-USD_UM")), [format!("{base}LTC-USD-PERP-UM {time} quote=50001")]);
    assert_eq!(
        shown_as(REST_INTEREST, Some("BTC-USDT-SWAP@open-interest-history@5m")),
        [
            format!("{base}BTC-USDT-PERP event_time=2023-12-01T07:55:00 contracts=731377.6 base=112"),
            format!("{base}BTC-USDT-PERP event_time=2023-12-01T08:00:00 contracts=731377.57500501 base=111"),
        ]
    );
}

#[test]
fn a_liquidation_has_the_side_of_its_order() {
    assert_eq!(
        shown(LIQUIDATION),
        [
            "liquidation market=perpetual symbol=BTC-USDT-PERP event_time=2026-08-11T00:39:31.714 side=sell price=63955.7 quantity=0.0362 contracts=3.62",
            // Where it is left out, a short is closed by buying.
            "liquidation market=perpetual symbol=BTC-USDT-PERP event_time=2026-08-10T20:43:51.624 side=buy price=64168.9 quantity=0.053 contracts=5.3",
        ]
    );
    assert_eq!(
        decode("okx", &LIQUIDATION.replace("\"instType\":\"SWAP\",\"uly\"", "\"instType\":\"MARGIN\",\"uly\"")).unwrap().0,
        Outcome::Ignored
    );
    for (from, to, expected) in [
        ("\"5.3\"", "\"x\"", "bad_number"),
        ("\"short\"", "\"net\"", "wrong_type"),
        ("\"sell\"", "\"long\"", "wrong_type"),
        ("{\"bkLoss\":\"0\",\"bkPx\":\"64168.9\"", "7,{\"bkLoss\":\"0\",\"bkPx\":\"64168.9\"", "wrong_type"),
        ("\"details\":[", "\"details\":7,\"x\":[", "wrong_type"),
        ("BTC-USDT-SWAP", "DOGE-USDT-SWAP", "unknown_instrument"),
    ] {
        assert_eq!(reason("okx", &LIQUIDATION.replace(from, to)), expected, "{from}");
    }
    // A list of instruments is taken whole or not at all.
    let two = LIQUIDATION.replace(
        "\"data\":[",
        "\"data\":[{\"instId\":\"BTC-USDT-SWAP\",\"details\":[{\"bkPx\":\"1\",\"side\":\"buy\",\"sz\":\"1\",\"ts\":\"1786408771714\"}]},",
    );
    assert_eq!(shown(&two).len(), 3);
    assert_eq!(reason("okx", &two.replace("\"5.3\"", "\"x\"")), "bad_number");
}

#[test]
fn maintenance_is_a_status_of_the_venue() {
    assert_eq!(
        shown(STATUS),
        ["venue_status event_time=2023-01-04T09:53:00 status=completed message=Trading account WebSocket system upgrade"]
    );
    for (state, time) in [
        ("ongoing", "2023-01-04T09:10:00"),
        ("pre_open", "2023-01-04T09:36:40"),
        ("scheduled", "2023-01-04T09:53:58.470"),
        ("canceled", "2023-01-04T09:53:58.470"),
    ] {
        let row = &shown(&STATUS.replace("completed", state))[0];
        assert!(row.starts_with(&format!("venue_status event_time={time} status={state} ")), "{row}");
    }
    // An answer does not say when something was planned.
    let answer = r#"{"code":"0","msg":"","data":[{"begin":"1672823400000","end":"1672825980000","state":"scheduled","title":""}]}"#;
    assert_eq!(shown(answer), ["venue_status status=scheduled"]);
    assert_eq!(decode_as("okx", answer, None, None).unwrap_err().reason, "no_time");
}

#[test]
fn answers_are_put_into_the_order_of_time() {
    let (_, found) = decode("okx", REST_TRADES).unwrap();
    let rows = TradeRows::of(&found["trade"]).unwrap();
    let ids: Vec<&str> = (0..3).map(|row| rows.trade_id.value(row)).collect();
    assert_eq!(ids, ["242720719", "242720720", "242720721"]);
    let ordered = REST_TRADES.replace("1654161646975", "1654161646973");
    let (_, found) = decode("okx", &ordered).unwrap();
    assert_eq!(TradeRows::of(&found["trade"]).unwrap().trade_id.value(0), "242720721");
}

#[test]
fn ratios_are_three_series_that_are_told_apart_by_what_was_asked() {
    let asked = |endpoint: &str| shown_as(REST_RATIO, Some(&format!("BTC-USDT-SWAP@{endpoint}@1H")));
    for (endpoint, basis, population) in [
        ("long-short-account-ratio-contract", "account", "all"),
        ("long-short-account-ratio-contract-top-trader", "account", "top"),
        ("long-short-position-ratio-contract-top-trader", "position", "top"),
    ] {
        let base = "long_short_ratio market=perpetual symbol=BTC-USDT-PERP";
        assert_eq!(
            asked(endpoint),
            [
                format!("{base} event_time=2023-12-01T07:55:00 basis={basis} population={population} period_seconds=3600 ratio=0.9718"),
                format!("{base} event_time=2023-12-01T08:00:00 basis={basis} population={population} period_seconds=3600 ratio=1.1739"),
            ]
        );
    }
    for (period, seconds) in [("5m", 300), ("4H", 14_400), ("1D", 86_400), ("3Dutc", 259_200), ("1W", 604_800)] {
        let topic = format!("BTC-USDT-SWAP@long-short-account-ratio-contract@{period}");
        let (_, found) = decode_as("okx", REST_RATIO, None, Some(&topic)).unwrap();
        assert_eq!(LongShortRatioRows::of(&found["long_short_ratio"]).unwrap().period_seconds.value(0), seconds);
    }
    for topic in [
        None,
        Some("BTC-USDT-SWAP"),
        Some("BTC-USDT-SWAP@long-short-account-ratio-contract"),
        Some("BTC-USDT-SWAP@long-short-account-ratio-contract@1M"),
        Some("@long-short-account-ratio-contract@5m"),
    ] {
        assert_eq!(decode_as("okx", REST_RATIO, Some(1), topic).unwrap_err().reason, "missing_field", "{topic:?}");
    }
    // That of all contracts of an asset is of no instrument.
    assert_eq!(decode_as("okx", REST_RATIO, None, Some("BTC@long-short-account-ratio@5m")).unwrap().0, Outcome::Ignored);
    let topic = Some("BTC-USDT-SWAP@long-short-account-ratio-contract@5m");
    for (from, to, expected) in [
        ("\"0.9718\"", "\"-1\"", "bad_number"),
        ("\"0.9718\"", "0.9718", "wrong_type"),
        (",\"0.9718\"", "", "wrong_type"),
        ("[\"1701417300000\",\"0.9718\"]", "7", "wrong_type"),
        ("\"1701417300000\",\"0.9718\"", "", "wrong_type"),
        ("1701417300000", "x", "bad_time"),
    ] {
        assert_eq!(decode_as("okx", &REST_RATIO.replace(from, to), None, topic).unwrap_err().reason, expected, "{from}");
    }
}

#[test]
fn a_listing_becomes_records_and_tells_what_contracts_are_worth() {
    let rest = "event_time=1970-01-01T00:00:07";
    assert_eq!(
        shown(REST_INSTRUMENTS),
        [
            format!(
                "instrument market=spot symbol=BTC-USDT {rest} venue_symbol=BTC-USDT base=BTC quote=USDT status=live tick_size=0.1 lot_size=0.00000001 inverse=false"
            ),
            format!(
                "instrument market=perpetual symbol=BTC-USD-PERP {rest} venue_symbol=BTC-USD-SWAP base=BTC quote=USD settlement=BTC status=live tick_size=0.1 lot_size=1 contract_size=100 inverse=true"
            ),
            format!(
                "instrument market=perpetual symbol=SHIB-USDT-PERP {rest} venue_symbol=SHIB-USDT-SWAP base=SHIB quote=USDT settlement=USDT status=live tick_size=0.000000001 lot_size=1 contract_size=1000000 inverse=false"
            ),
            format!(
                "instrument market=future symbol=BTC-USD-310404-UM_XPERP {rest} venue_symbol=BTC-USD_UM_XPERP-310404 base=BTC quote=USD settlement=USDC status=preopen tick_size=0.1 lot_size=1 contract_size=0.0001 inverse=false expiry=2031-04-02T08:00:00"
            ),
            format!(
                "instrument market=option symbol=BTC-USD-240628-60000-C {rest} venue_symbol=BTC-USD-240628-60000-C base=BTC quote=BTC settlement=BTC status=live tick_size=0.0001 lot_size=1 contract_size=0.01 inverse=false expiry=2024-06-28T08:00:00 strike=60000 option_type=call"
            ),
            format!(
                "instrument market=perpetual symbol=NEW-USDT-PERP {rest} venue_symbol=NEW-USDT-SWAP base=NEW quote=USDT settlement=USDT status=preopen inverse=false"
            ),
        ]
    );
    // The channel sends the same objects.
    let pushed = REST_INSTRUMENTS.replace(r#""code":"0","msg":"","#, r#""arg":{"channel":"instruments","instType":"SWAP"},"#);
    assert_eq!(shown(&pushed), shown(REST_INSTRUMENTS));
    assert_eq!(decode_as("okx", REST_INSTRUMENTS, None, None).unwrap_err().reason, "no_time");
    let shib = TRADES.replace("BTC-USDT-SWAP", "SHIB-USDT-SWAP");
    assert_eq!(reason("okx", &shib), "unknown_instrument");
    assert!(shown_listed(&shib)[1].contains(" quantity=34950000 contracts=34.95 "));
    // A contract worth something that is neither asset is of unknown worth.
    let odd = REST_INSTRUMENTS.replace("\"ctValCcy\":\"SHIB\"", "\"ctValCcy\":\"USD\"");
    let (_, found) = decode("okx", &odd).unwrap();
    let rows = InstrumentRows::of(&found["instrument"]).unwrap();
    assert_eq!((label(rows.symbol, 2), number(rows.contract_size, 2)), (Some("SHIB-USDT-PERP"), None));
    for (from, to, what) in [
        ("\"ctVal\":\"1000000\"", "\"ctVal\":\"x\"", "`ctVal` of `SHIB-USDT-SWAP` is \"x\""),
        ("\"ctVal\":\"1000000\"", "\"ctVal\":\"0\"", "contracts of `SHIB-USDT-SWAP` are worth 0 times 1"),
        ("\"code\":\"0\"", "\"code\":\"51000\"", "is an error, `code` is 51000"),
        ("\"instId\":\"BTC-USDT\"", "\"x\":\"BTC-USDT\"", "is no answer of OKX's `instruments`"),
    ] {
        let error = Dialects::default().learn("okx", REST_INSTRUMENTS.replace(from, to).as_bytes()).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
    assert!(Dialects::default().learn("okx", b"").unwrap_err().ends_with("it is empty"));
    assert_eq!(reason("okx", &REST_INSTRUMENTS.replace("1719561600000", "soon")), "bad_number");
}

#[test]
fn what_carries_no_record_is_ignored() {
    for frame in [
        "pong",
        FRAMES[21].1,
        r#"{"event":"unsubscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a4d3ae55"}"#,
        r#"{"event":"login","code":"0","msg":"","connId":"a4d3ae55"}"#,
        r#"{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. Please reconnect.","connId":"a4d3ae55"}"#,
        r#"{"event":"channel-conn-count","channel":"orders","connCount":"2","connId":"abcd1234"}"#,
        r#"{"arg":{"channel":"candle1m","instId":"BTC-USDT-SWAP"},"data":[["1786540440000","63913.0","63951.8","63913.0","63951.8","1803.61","18.0361","1153203.99426000","0"]]}"#,
        r#"{"arg":{"channel":"mark-price-candle1D","instId":"BTC-USD-190628"},"data":[["1597026383085","3.721","3.743","3.677","3.708","0"]]}"#,
        r#"{"arg":{"channel":"opt-summary","instFamily":"BTC-USD"},"data":[{"instType":"OPTION","instId":"BTC-USD-241013-70000-P","markVol":"0.3675503331","fwdPx":"62604.6993093463","ts":"1728703155650"}]}"#,
        r#"{"arg":{"channel":"estimated-price","instType":"FUTURES","instFamily":"XRP-USDT"},"data":[{"instId":"XRP-USDT-250307","settlePx":"2.4230631578947368","ts":"1741244598708"}]}"#,
        r#"{"arg":{"channel":"price-limit","instId":"LTC-USD-190628"},"data":[{"instId":"LTC-USD-190628","buyLmt":"200","sellLmt":"300","ts":"1597026383085","enabled":true}]}"#,
        r#"{"arg":{"channel":"public-block-trades","instId":"BTC-USD-231020-5000-P"},"data":[{"fillVol":"5","instId":"BTC-USD-231020-5000-P","px":"0.05","side":"buy","sz":"5","tradeId":"632960608383700997","ts":"1697181568974"}]}"#,
        r#"{"arg":{"channel":"books-rpi","instId":"BTC-USDT"},"action":"snapshot","data":[]}"#,
        r#"{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[]}"#,
        r#"{"code":"0","msg":"","data":[]}"#,
        r#"{"code":"0","msg":"","data":[{"ts":"1597026383085"}]}"#,
        r#"{"code":"0","msg":"","data":[["1597026383085","3.721","3.743","3.677","3.708","8422410","22698348.04828491","12698348.04828491","0"]]}"#,
        r#"{"code":"0","msg":"","data":[{"ts":"1597026383085","details":[{"type":"delivery","insId":"ZIL-BTC","px":"0.016"}]}]}"#,
        r#"{"code":"0","msg":"","data":[{"volCny":"230900886396766","volUsd":"34462818865189","ts":"1657856040389"}]}"#,
    ] {
        assert_eq!(decode("okx", frame).unwrap().0, Outcome::Ignored, "{frame}");
    }
    // Nothing of an unwanted kind is read.
    let mut none = Records::default();
    for (_, frame) in FRAMES {
        let frame =
            FrameRef { receive_time: None, frame: 1, topic: Some("BTC-USDT-SWAP@open-interest-history"), payload: frame.as_bytes() };
        assert_eq!(make("okx").unwrap().decode(frame, &mut none), Ok(Outcome::Ignored));
    }
}

#[test]
fn every_refusal_has_its_reason_and_names_the_place() {
    for (from, to, reason, detail) in [
        ("}]}", "}]", "malformed", "the text ends before the value does at byte 184"),
        ("}]}", "}]}]", "malformed", "bytes after the value at byte 185"),
        ("\"source\":\"0\"", "\"px\":\"2\"", "malformed", "member named twice at byte 155"),
        ("\"data\"", "\"data\":[],\"data\"", "malformed", "member named twice at byte 69"),
        ("\"data\"", "\"arg\":{},\"data\"", "malformed", "member named twice at byte 58"),
        ("\"trades-all\"", "\"trades-none\"", "unknown_event", "the channel \"trades-none\" is nothing of OKX's that we know"),
        ("\"arg\"", "\"x\"", "unknown_event", "a frame without channel, event and code is nothing of OKX's that we know"),
        ("\"data\"", "\"x\"", "missing_field", "`data` is missing"),
        ("\"px\":\"42219.9\",", "", "missing_field", "`px` is missing"),
        ("\"0.12060306\"", "null", "missing_field", "`sz` is missing"),
        ("\"130639474\"", "\"\"", "missing_field", "`tradeId` is missing"),
        ("\"42219.9\"", "42219.9", "wrong_type", "`px` is 42219.9, where a quoted number should be"),
        ("\"1630048897897\"", "1630048897897", "wrong_type", "`ts` is 1630048897897, where a quoted whole number should be"),
        ("\"buy\"", "\"Buy\"", "wrong_type", "`side` is \"Buy\", where buy or sell should be"),
        ("[{", "7,\"x\":[{", "wrong_type", "`data` is 7, where a list should be"),
        ("[{", "[7,{", "wrong_type", "`data` holds 7, where an object should be"),
        ("}]}", "},7]}", "wrong_type", "`data` holds 7, where an object should be"),
        ("\"42219.9\"", "\"42219,9\"", "bad_number", "`px` is \"42219,9\", which is not a decimal number"),
        ("\"0.12060306\"", "\"-1\"", "bad_number", "`sz` is \"-1\", which is negative"),
        ("\"source\":\"0\"", "\"count\":\"0\"", "bad_number", "`count` is \"0\", which is no number of trades"),
        ("0.12060306", "0.0000000000001", "overflow", "`sz` is \"0.0000000000001\", which has more than 12 fraction digits"),
        ("\"1630048897897\"", "\"-4\"", "bad_time", "`ts` is -4, which is no time in milliseconds or microseconds since 1970"),
        ("\"0.12060306\"", "\"0.0\"", "not_a_trade", "the price is 42219.9 and the size is 0; neither may be zero"),
        (
            "\"instId\":\"BTC-USDT\",\"tradeId\"",
            "\"instId\":\"BTC\",\"tradeId\"",
            "unknown_instrument",
            "`BTC` is not in the listing and its letters do not tell base from quote; give the source the venue's `instruments` as `instruments`",
        ),
    ] {
        assert!(ALL_TRADES.contains(from), "{from}");
        assert_eq!(decode("okx", &ALL_TRADES.replacen(from, to, 1)).unwrap_err(), Reject::new(reason, detail), "{from} {to}");
        assert!(REASONS.contains(&reason));
    }
    for answer in [
        r#"{"event":"error","code":"60012","msg":"Invalid request","connId":"a4d3ae55"}"#,
        r#"{"event":"login","code":"60009","msg":"Login failed.","connId":"a4d3ae55"}"#,
        r#"{"event":"channel-conn-count-error","channel":"orders","connCount":"30","connId":"a4d3ae55"}"#,
        r#"{"code":"51001","data":[],"msg":"Instrument ID does not exist"}"#,
    ] {
        assert_eq!(reason("okx", answer), "venue_error", "{answer}");
    }
    for (frame, expected) in [
        (r#"{"event":"greeting"}"#, "unknown_event"),
        (r#"{"code":"0","data":[{"uid":"1"}]}"#, "unknown_event"),
        (r#"{"code":0,"data":[]}"#, "wrong_type"),
        (r#"{"code":"0","data":null}"#, "wrong_type"),
        (r#"{"code":"0","data":["x"]}"#, "wrong_type"),
        ("ping", "malformed"),
        ("[]", "malformed"),
    ] {
        assert_eq!(reason("okx", frame), expected, "{frame}");
    }
    for (level, expected) in [
        ("[\"8477\"]", "wrong_type"),
        ("7", "wrong_type"),
        ("[1,2]", "wrong_type"),
        ("[\"x\",\"1\"]", "bad_number"),
        ("[\"1\",\"-1\"]", "bad_number"),
    ] {
        assert_eq!(reason("okx", &SNAPSHOT.replace("[\"8477\",\"7\",\"0\",\"2\"]", level)), expected, "{level}");
        assert_eq!(reason("okx", &BEST.replace("[\"111.06\",\"55154\",\"0\",\"2\"]", level)), expected, "{level}");
    }
}

/// A book as the venue's manual has it kept: for each price the size, and the checksum of the best 25 levels.
#[derive(Default)]
struct Kept {
    bids: BTreeMap<i128, i128>,
    asks: BTreeMap<i128, i128>,
}

impl Kept {
    fn set(side: &mut BTreeMap<i128, i128>, prices: &[i128], sizes: &[i128]) {
        for (price, size) in prices.iter().zip(sizes) {
            match size {
                0 => side.remove(price),
                size => side.insert(*price, *size),
            };
        }
    }

    fn checksum(&self) -> i64 {
        let level = |(price, size): (&i128, &i128)| format!("{}:{}", Decimal::from_units(*price), Decimal::from_units(*size));
        let (bids, asks): (Vec<_>, Vec<_>) = (self.bids.iter().rev().map(level).collect(), self.asks.iter().map(level).collect());
        let alternating: Vec<&str> = (0..25).flat_map(|at| [bids.get(at), asks.get(at)]).flatten().map(String::as_str).collect();
        let mut crc = Crc::new();
        crc.update(alternating.join(":").as_bytes());
        i64::from(crc.sum().cast_signed())
    }
}

#[test]
fn thirty_seconds_give_the_counts_of_another_reader_and_all_checksums_hold() {
    let Some(text) = recording("thirty_seconds/OKX.ws.1.0.gz") else { return };
    let (found, refused) = decode_all("okx", received(&text).map(|(time, frame)| (time, None, frame)));
    assert!(refused.is_empty(), "{:?}", refused.first());
    assert_eq!((rows(&found, "book_snapshot") + rows(&found, "book_delta"), rows(&found, "quote"), rows(&found, "trade")), (290, 28, 74));
    // The books one after the other: their snapshots, and their changes.
    let (snapshots, changes) = (BookSnapshotRows::of(&found["book_snapshot"]).unwrap(), BookDeltaRows::of(&found["book_delta"]).unwrap());
    let mut checked = 0;
    for first in 0..rows(&found, "book_snapshot") {
        let mut kept = Kept::default();
        Kept::set(&mut kept.bids, numbers(snapshots.bid_prices, first), numbers(snapshots.bid_quantities, first));
        Kept::set(&mut kept.asks, numbers(snapshots.ask_prices, first), numbers(snapshots.ask_quantities, first));
        assert_eq!(integer(snapshots.checksum, first), Some(kept.checksum()));
        checked += 1;
        for row in (0..rows(&found, "book_delta")).filter(|row| label(changes.symbol, *row) == label(snapshots.symbol, first)) {
            Kept::set(&mut kept.bids, numbers(changes.bid_prices, row), numbers(changes.bid_quantities, row));
            Kept::set(&mut kept.asks, numbers(changes.ask_prices, row), numbers(changes.ask_quantities, row));
            assert_eq!(integer(changes.checksum, row), Some(kept.checksum()), "row {row}");
            assert_eq!(integer(changes.last_sequence, row), None, "of 2022");
            // The venue itself tells which levels leave its 400.
            assert!(kept.bids.len() <= 400 && kept.asks.len() <= 400);
            checked += 1;
        }
    }
    assert_eq!(checked, 290);
}

#[test]
fn what_letters_tell_of_listed_instruments_is_what_the_venue_says() {
    let Some(text) = recording("thirty_seconds/OKX.0.gz") else { return };
    let (mut count, mut told) = (0, 0);
    for line in text.lines().filter(|line| line.contains("/public/instruments")) {
        let answer = line.split_once(" -> ").unwrap().1.split_once(": ").unwrap().1;
        let listed = super::instruments(answer.as_bytes()).unwrap();
        assert_eq!(listed.len(), serde_json::from_str::<Value>(answer).unwrap()["data"].as_array().unwrap().len());
        for (id, listed) in listed {
            count += 1;
            let read = InstId.read(&id).unwrap_or_else(|| panic!("{id}"));
            assert_eq!((read.market, &read.symbol, &read.base, &read.quote), (listed.market, &listed.symbol, &listed.base, &listed.quote));
            // Where the letters tell what a contract is worth, the listing says the same.
            let known = super::symbols::told(read.contract);
            assert!(known.is_none() || known == listed.contract, "{id}: {known:?}");
            assert_eq!(listed.contract.is_some(), super::symbols::told(listed.contract).is_some(), "{id}");
            told += usize::from(known.is_some());
        }
    }
    assert!(count > 7_000 && told > 400, "{count} {told}");
}

/// All pairs of the other project are of the third version of the protocol, of 2019 to 2021, whose frames name a `table`: none is ours.
#[test]
fn another_projects_pairs_are_of_a_protocol_that_is_gone() {
    let mut refused = 0;
    for file in ["okex", "okex_swap", "okex_futures", "okex_options"] {
        let Some(text) = recording(&format!("normalised_pairs/{file}.jsonl")) else { return };
        for frame in pairs(&text).flat_map(|(frames, _)| frames) {
            assert!(frame["table"].is_string(), "{frame}");
            assert_eq!(reason("okx", &frame.to_string()), "unknown_event", "{frame}");
            refused += 1;
        }
    }
    assert_eq!(refused, 50);
}

#[test]
fn the_newest_messages_are_decoded() {
    let Some(text) = recording("recent_samples/ws_2026_samples.jsonl") else { return };
    let mut compared = 0;
    for line in text.lines() {
        let sample: Value = serde_json::from_str(line).unwrap();
        if sample["venue"] != "okx" {
            continue;
        }
        let (expected, said) = (&sample["expected"], |name: &str| sample["expected"][name].as_str().map(d));
        let (outcome, found) = decode("okx", &sample["message"].to_string()).unwrap();
        compared += 1;
        match expected["kind"].as_str().unwrap() {
            "trade" => {
                let rows = TradeRows::of(&found["trade"]).unwrap();
                assert_eq!((rows.trade_id.value(0), label(rows.side, 0)), (expected["id"].as_str().unwrap(), expected["side"].as_str()));
                assert_eq!((number(rows.price, 0), number(rows.contracts, 0)), (said("price"), said("amount_contracts")));
                // What it cost tells the size in the base asset.
                let cost = number(rows.price, 0).unwrap().mul_rounded(number(rows.quantity, 0).unwrap());
                assert_eq!(cost, said("cost_quote"));
                assert_eq!(rows.event_time.value(0), expected["timestamp_ms"].as_i64().unwrap() * 1_000);
            }
            "ticker" => {
                let rows = QuoteRows::of(&found["quote"]).unwrap();
                assert_eq!((number(rows.bid_price, 0), number(rows.ask_price, 0)), (said("bid"), said("ask")));
                // Contracts of 0.01 bitcoin.
                let in_base = |size: Option<Decimal>| size.and_then(|size| size.mul_rounded(d("0.01")));
                assert_eq!(number(rows.bid_quantity, 0), in_base(said("bid_size")));
                assert_eq!(number(rows.ask_quantity, 0), in_base(said("ask_size")));
            }
            "book_snapshot" => {
                let rows = BookSnapshotRows::of(&found["book_snapshot"]).unwrap();
                assert_eq!(integer(rows.sequence, 0), expected["seq"].as_i64());
                for (prices, sizes, theirs) in
                    [(rows.bid_prices, rows.bid_quantities, "bids"), (rows.ask_prices, rows.ask_quantities, "asks")]
                {
                    let ours: Vec<[Decimal; 2]> = numbers(prices, 0)
                        .iter()
                        .zip(numbers(sizes, 0))
                        .map(|(p, s)| [Decimal::from_units(*p), Decimal::from_units(*s)])
                        .collect();
                    let level = |level: &Value| [d(level[0].as_str().unwrap()), d(level[1].as_str().unwrap())];
                    assert_eq!(ours, expected[theirs].as_array().unwrap().iter().map(level).collect::<Vec<_>>());
                }
            }
            _ => assert_eq!(outcome, Outcome::Ignored, "{line}"),
        }
    }
    assert_eq!(compared, 6);
}

/// Frames that no decoder may accept, made from the real ones.
fn malformed() -> Vec<Vec<u8>> {
    let mut bad = Vec::new();
    for (_, frame) in FRAMES {
        let bytes = frame.as_bytes();
        for cut in [0, 1, bytes.len() / 4, bytes.len() / 2, bytes.len() - 2, bytes.len() - 1] {
            bad.push(bytes[..cut].to_vec());
        }
        for (from, to) in [("\":", "\" "), (",\"", "\""), ("\"i", "i"), ("{", "[")] {
            if frame.contains(from) {
                bad.push(frame.replacen(from, to, 1).into_bytes());
            }
        }
        let mut flipped = bytes.to_vec();
        flipped[bytes.len() / 2] = 0xff;
        bad.push(flipped);
        bad.push([bytes, b"{}"].concat());
        bad.push(frame.replacen('"', "\"\u{1}", 1).into_bytes());
        // Well-formed, and nothing that is sent.
        for (from, to) in [("\"channel\":", "\"channel\":7,\"x\":"), ("\"code\":\"0\"", "\"code\":0"), ("\"data\":", "\"data\":7,\"x\":")] {
            if frame.contains(from) && !frame.contains("event") {
                bad.push(frame.replacen(from, to, 1).into_bytes());
            }
        }
    }
    bad
}

#[test]
fn malformed_frames_are_refused_and_leave_nothing() {
    let bad = malformed();
    assert!(bad.len() >= 200, "{}", bad.len());
    for payload in bad {
        let mut records = every_kind();
        let topic = Some("BTC-USDT-SWAP@long-short-account-ratio-contract@5m");
        let frame = FrameRef { receive_time: Some(1), frame: 1, topic, payload: &payload };
        let text = String::from_utf8_lossy(&payload);
        let reject = make("okx").unwrap().decode(frame, &mut records).expect_err(&text);
        assert!(REASONS.contains(&reject.reason) && !reject.detail.is_empty(), "{reject:?}");
        assert!(records.is_empty(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_bytes_make_it_panic(which in 0..FRAMES.len(), damages in prop::collection::vec(damage(), 1..6), asked in 0..3_usize) {
        let payload = damaged(FRAMES[which].1.as_bytes().to_vec(), &damages);
        let mut records = every_kind();
        let topic = [None, Some("BTC-USDT-SWAP@long-short-account-ratio-contract@5m"), Some("BTC-USDT-SWAP@open-interest-history@5m")][asked];
        let frame = FrameRef { receive_time: Some(1), frame: 1, topic, payload: &payload };
        match make("okx").unwrap().decode(frame, &mut records) {
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
    fn numbers_survive_exactly(price in 1..10_i64.pow(15), quantity in 1..10_i64.pow(15), id in 0..i64::MAX, millis in 1..10_i64.pow(14) - 1, sold: bool) {
        let (price, quantity) = (Decimal::from_units(i128::from(price) * 10_000), Decimal::from_units(i128::from(quantity)));
        let side = if sold { "sell" } else { "buy" };
        let frame = format!(r#"{{"arg":{{"channel":"trades","instId":"BTC-USDT"}},"data":[{{"instId":"BTC-USDT","tradeId":"{id}","px":"{price}","sz":"{quantity}","side":"{side}","ts":"{millis}","count":"3"}}]}}"#);
        let (_, found) = decode("okx", &frame).unwrap();
        let rows = TradeRows::of(&found["trade"]).unwrap();
        prop_assert_eq!((number(rows.price, 0), number(rows.quantity, 0), rows.fills.value(0)), (Some(price), Some(quantity), 3));
        prop_assert_eq!((rows.trade_id.value(0).to_owned(), rows.event_time.value(0)), (id.to_string(), millis * 1_000));
        prop_assert_eq!(label(rows.side, 0), Some(side));
    }
}
