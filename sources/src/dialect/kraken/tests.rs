//! The dialects against frames as Kraken documents and sends them: every column, every refusal, recordings whose books must
//! agree with every checksum of the venue, another project's expectations, and frames damaged in every way.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use flate2::Crc;
use model::Decimal;
use model::columns::{integer, label, number, numbers};
use model::decimal::SCALE;
use model::dialect::{FrameRef, Outcome, Records, Reject};
use model::kinds::{
    BookDeltaRows, BookSnapshotRows, FundingRateRows, InstrumentRows, MarkPriceRows, OpenInterestRows, QuoteRows, TradeRows,
};
use model::time::display;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::symbols::{Pairs, Products};
use crate::dialect::symbols::Spelling;
use crate::dialect::testing::{
    batches, d, damage, damaged, decode, decode_all, decode_as, every_kind, near, pairs, reason, received, recording, rows,
};
use crate::dialect::{Dialects, REASONS, make};

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
fn shown(dialect: &str, frame: &str) -> Vec<String> {
    shown_as(dialect, frame, None)
}

fn shown_as(dialect: &str, frame: &str, topic: Option<&str>) -> Vec<String> {
    let (outcome, found) = decode_as(dialect, frame, Some(7_000_000), topic).unwrap_or_else(|reject| panic!("{reject:?} in {frame}"));
    assert_eq!(outcome == Outcome::Decoded, !found.is_empty(), "{frame}");
    let whole = found.iter().flat_map(|(kind, rows)| (0..rows.num_rows()).map(move |at| format!("{kind} {}", row(rows, at))));
    whole
        .map(|row| {
            assert!(row.contains(" venue=kraken ") && row.contains(" receive_time=1970-01-01T00:00:07 frame=3"), "{row}");
            row.replace(" venue=kraken", "").replace(" receive_time=1970-01-01T00:00:07 frame=3", "")
        })
        .collect()
}

const SNAPSHOT_1: &str = r#"[992,{"as":[["354.80000000","1.40000000","1618678133.020508"],["354.84000000","6.88212752","1618678132.981007"]],"bs":[["354.12000000","0.50000000","1618678133.100000"]]},"book-1000","XMR/USD"]"#;
const DELTA_1: &str = r#"[992,{"b":[["354.15000000","5.00000000","1618678133.365913"]],"c":"2583817756"},"book-1000","XMR/USD"]"#;
/// Both sides, and a level that comes into sight again.
const BOTH_1: &str = r#"[1234,{"a":[["5541.30000","2.50700000","1534614248.456738"],["5542.50000","0.40100000","1534614248.456738","r"]]},{"b":[["5541.30000","0.00000000","1534614335.345903"]],"c":"974942666"},"book-10","XBT/USD"]"#;
const TRADES_1: &str = r#"[993,[["354.04000000","0.28245396","1618678150.826417","s","m",""],["353.81000000","1.71754604","1618678150.827816","b","l",""]],"trade","XMR/USD"]"#;
const SPREAD_1: &str = r#"[325,["43770.20000","43770.30000","1633053779.916349","0.00917717","0.31670440"],"spread","XBT/USD"]"#;
const TICKER_1: &str = r#"[996,{"a":["355.24000000",27,"27.19106411"],"b":["354.32000000",6,"6.87748868"],"c":["355.23000000","1.20454360"],"v":["17858.85261084","33470.74135600"],"p":["355.33503706","349.16721624"],"t":[6481,10283],"l":["340.88000000","333.87000000"],"h":["368.00000000","368.00000000"],"o":["340.88000000","335.21000000"]},"ticker","XMR/USD"]"#;
const SYSTEM_1: &str = r#"{"connectionID":18239578009413566319,"event":"systemStatus","status":"online","version":"1.8.3"}"#;
/// The example of Kraken's guide to its checksum.
const SNAPSHOT_2: &str = r#"{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[{"price":45283.5,"qty":0.10000000},{"price":45283.4,"qty":1.54582015},{"price":45282.1,"qty":0.10000000},{"price":45281.0,"qty":0.10000000},{"price":45280.3,"qty":1.54592586},{"price":45279.0,"qty":0.07990000},{"price":45277.6,"qty":0.03310103},{"price":45277.5,"qty":0.30000000},{"price":45277.3,"qty":1.54602737},{"price":45276.6,"qty":0.15445238}],"asks":[{"price":45285.2,"qty":0.00100000},{"price":45286.4,"qty":1.54571953},{"price":45286.6,"qty":1.54571109},{"price":45289.6,"qty":1.54560911},{"price":45290.2,"qty":0.15890660},{"price":45291.8,"qty":1.54553491},{"price":45294.7,"qty":0.04454749},{"price":45296.1,"qty":0.35380000},{"price":45297.5,"qty":0.09945542},{"price":45299.5,"qty":0.18772827}],"checksum":3310070434}]}"#;
const UPDATE_2: &str = r#"{"channel":"book","type":"update","data":[{"symbol":"MATIC/USD","bids":[{"price":0.5657,"qty":1098.39475580},{"price":0.5656,"qty":0.00000000}],"asks":[],"checksum":2114181697,"timestamp":"2023-10-06T17:35:55.440295Z"}]}"#;
const TRADES_2: &str = r#"{"channel":"trade","type":"update","data":[{"symbol":"MATIC/USD","side":"buy","price":0.5147,"qty":6423.46326,"ord_type":"limit","trade_id":4665846,"timestamp":"2023-09-25T07:48:36.925533Z"},{"symbol":"XBT/USD","side":"sell","price":26000.1,"qty":1136.19677815,"ord_type":"market","trade_id":4665847,"timestamp":"2023-09-25T07:49:36.925603123Z"}]}"#;
const TICKER_2: &str = r#"{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":63297.7,"bid_qty":5.45673101,"ask":63297.8,"ask_qty":0.36974422,"last":63297.8,"volume":1020.88391276,"vwap":63685.7,"low":63250,"high":64409.2,"change":0.7,"change_pct":0,"trades":47536,"timestamp":"2026-08-12T19:29:02.066592Z"}]}"#;
const STATUS_2: &str = r#"{"channel":"status","type":"update","data":[{"api_version":"v2","connection_id":13834774380200032777,"system":"cancel_only","version":"2.0.0"}]}"#;
const INSTRUMENT_2: &str = r#"{"channel":"instrument","type":"snapshot","data":{"assets":[{"id":"USD","status":"enabled","precision":4,"precision_display":2,"borrowable":true,"collateral_value":1.00,"margin_rate":0.025000}],"pairs":[{"symbol":"EUR/USD","base":"EUR","quote":"USD","status":"online","qty_precision":8,"qty_increment":0.00000001,"price_precision":5,"cost_precision":5,"marginable":true,"has_index":true,"cost_min":0.50,"margin_initial":0.20,"position_limit_long":1000000,"position_limit_short":1000000,"tick_size":0.00001,"price_increment":0.00001,"qty_min":0.50000000},{"symbol":"BTC/USD","base":"BTC","quote":"USD","status":"post_only","qty_precision":8,"price_precision":1}]}}"#;
const DEPTH: &str = r#"{"error":[],"result":{"XXBTZUSD":{"asks":[["52523.00000","1.199",1616663113],["52536.00000","0.300",1616663112]],"bids":[["52522.90000","0.753",1616663114]]}}}"#;
const TRADES: &str = r#"{"error":[],"result":{"XBTUSDT":[["105433.60000","0.00027625",1762795433.9717445,"b","l","",10218208],["105383.70000","0.00007235",1762795483.306824,"s","l","",10218212]],"last":"1762795483306824000"}}"#;
const TICKERS: &str = r#"{"error":[],"result":{"XXBTZUSD":{"a":["30300.10000","1","1.000"],"b":["30300.00000","1","0.500"],"c":["30303.20000","0.00067643"],"v":["4083.67001100","4412.73601799"]},"SOLUSD":{"a":["0.00000","0","0.000"],"b":["20.10000","3","3.000"],"c":["20.2","1"]}}}"#;
const PAIRS: &str = r#"{"error":[],"result":{"XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT\/USD","aclass_base":"currency","base":"XXBT","aclass_quote":"currency","quote":"ZUSD","lot":"unit","pair_decimals":1,"lot_decimals":8,"tick_size":"0.5","status":"online"},"XXBTZUSD.d":{"altname":"XBTUSD.d","aclass_base":"currency","base":"XXBT","quote":"ZUSD","pair_decimals":1,"lot_decimals":8},"FOOXDG":{"altname":"FOOXDG","wsname":"FOO/XDG","aclass_base":"currency","base":"FOO","quote":"XXDG","pair_decimals":2,"lot_decimals":5}}}"#;
const SYSTEM: &str = r#"{"error":[],"result":{"status":"maintenance","timestamp":"2025-11-11T00:17:10Z"}}"#;

const TRADE_F: &str = r#"{"feed":"trade","product_id":"PI_XBTUSD","uid":"05af78ac-a774-478c-a50c-8b9c234e071e","side":"sell","type":"fill","seq":653355,"time":1612266317519,"qty":15000,"price":30000.0}"#;
const LIQUIDATION_F: &str = r#"{"feed":"trade","product_id":"PF_XBTUSD","uid":"b5a1c239-7987-4207-96bf-02355a3263cf","side":"buy","type":"liquidation","seq":85423,"time":1565342712903,"qty":0.0125,"price":11735.5}"#;
const SNAPSHOT_TRADES_F: &str = r#"{"feed":"trade_snapshot","product_id":"PI_XBTUSD","trades":[{"feed":"trade","product_id":"PI_XBTUSD","uid":"caa9c653-420b-4c24-a9f1-462a054d86f1","side":"sell","type":"fill","seq":655508,"time":1612269657781,"qty":440,"price":35200},{"feed":"trade","product_id":"PI_XBTUSD","uid":"45ee9737-1877-4682-bc68-e4ef818ef88a","side":"buy","type":"fill","seq":655507,"time":1612269656839,"qty":9643,"price":38572}]}"#;
const BOOK_F: &str =
    r#"{"feed":"book","product_id":"PI_XBTUSD","side":"sell","seq":326094645,"price":34981.0,"qty":0.0,"timestamp":1612269953629}"#;
const SNAPSHOT_F: &str = r#"{"feed":"book_snapshot","product_id":"PF_XBTUSD","timestamp":1612269825817,"seq":326072249,"tickSize":null,"bids":[{"price":34892.5,"qty":0.6385},{"price":34892.0,"qty":0.0}],"asks":[{"price":34911.5,"qty":0.20598},{"price":34912.0,"qty":2.53E-4}]}"#;
const TICKER_F: &str = r#"{"time":1676393235406,"product_id":"PI_XBTUSD","funding_rate":-6.2604214e-11,"funding_rate_prediction":-3.65989977e-10,"relative_funding_rate":-1.380384722222e-6,"relative_funding_rate_prediction":-8.047629166667e-6,"next_funding_rate_time":1676394000000,"feed":"ticker","bid":20000.0,"ask":25000.0,"bid_size":2536.0,"ask_size":13948.0,"volume":31403908.0,"dtm":0,"leverage":"50x","index":21984.54,"premium":-0.0,"last":21983.5,"change":1.9974017538161748,"suspended":false,"tag":"perpetual","pair":"XBT:USD","openInterest":30072580.0,"markPrice":21979.68641534714,"maturityTime":0,"post_only":false,"volumeQuote":31403908.0}"#;
const LITE_F: &str = r#"{"feed":"ticker_lite","product_id":"FF_XBTUSD_251128","bid":34932.0,"ask":34949.5,"change":3.3705205220015966,"premium":0.1,"volume":264126741.0,"tag":"month","pair":"XBT:USD","dtm":0,"maturityTime":0,"volumeQuote":264126741.0}"#;
const INSTRUMENTS_F: &str = r#"{"result":"success","serverTime":"2025-11-17T00:34:37.524Z","instruments":[{"symbol":"PI_XBTUSD","type":"futures_inverse","underlying":"rr_xbtusd","tickSize":0.5,"contractSize":1,"tradeable":true,"contractValueTradePrecision":0,"postOnly":false,"base":"BTC","quote":"USD","pair":"BTC:USD"},{"symbol":"PF_PEPEUSD","type":"flexible_futures","tickSize":1e-10,"contractSize":1,"tradeable":true,"contractValueTradePrecision":-3,"postOnly":true,"base":"PEPE","quote":"USD"},{"symbol":"fi_ethusd_180928","type":"futures_inverse","underlying":"rr_ethusd","lastTradingTime":"2018-09-28T15:00:00.000Z","tickSize":0.05,"contractSize":1,"tradeable":false},{"symbol":"FF_FOOEUR_260327","type":"flexible_futures","lastTradingTime":"2026-03-27T08:00:00.000Z","tickSize":1,"contractSize":10,"contractValueTradePrecision":4,"tradeable":true},{"symbol":"in_xbtusd","type":"spot index","tradeable":false}]}"#;
const TICKERS_F: &str = r#"{"result":"success","serverTime":"2025-11-17T00:34:37.524Z","tickers":[{"symbol":"PI_XBTUSD","last":91415.0,"lastTime":"2025-11-17T00:31:01.835715Z","tag":"perpetual","pair":"BTC:USD","markPrice":91506.6009839176,"bid":80000.0,"bidSize":4960.0,"ask":91490.5,"askSize":0,"vol24h":21118140.0,"openInterest":21279580.0,"fundingRate":-3.995839963e-09,"fundingRatePrediction":6.272058425e-08,"suspended":false,"indexPrice":91468.38,"postOnly":false},{"symbol":"PF_ETHUSD","tag":"perpetual","markPrice":3205.25,"bid":3200.0,"bidSize":100.5,"openInterest":1000000.25},{"symbol":"in_xbtusd","last":91468,"lastTime":"2025-11-17T00:34:37.000Z"}]}"#;
const RATES_F: &str = r#"{"rates":[{"timestamp":"2025-07-11T09:00:00Z","fundingRate":0.858943191939791995,"relativeFundingRate":0.000020164637711864},{"timestamp":"2025-07-11T08:00:00.000Z","fundingRate":-0.084584032794196903,"relativeFundingRate":-0.000001999193855932}],"result":"success","serverTime":"2025-07-11T09:30:00.000Z"}"#;
const BOOK_ANSWER_F: &str = r#"{"result":"success","orderBook":{"bids":[[105900.0,0.5],[105850,1.2]],"asks":[[105950.0,0.3]]},"serverTime":"2025-07-11T12:00:00.000Z"}"#;
const HISTORY_F: &str = r#"{"result":"success","history":[{"time":"2022-03-16T12:32:31.069Z","trade_id":2,"price":40000,"size":500,"side":"sell","type":"fill","uid":"b"},{"time":"2022-03-16T12:32:31.069Z","trade_id":1,"price":40000,"size":1000,"side":"buy","type":"block","uid":"a"},{"time":"2022-03-16T12:32:30.000Z","trade_id":0,"price":40000,"size":5,"side":"buy","type":"termination","uid":"z"}],"serverTime":"2022-03-16T12:33:00.000Z"}"#;

/// Frames of every kind, with the dialect that they are for.
pub(in crate::dialect) const FRAMES: [(&str, &str); 29] = [
    ("kraken", SNAPSHOT_1),
    ("kraken", DELTA_1),
    ("kraken", BOTH_1),
    ("kraken", TRADES_1),
    ("kraken", SPREAD_1),
    ("kraken", TICKER_1),
    ("kraken", SYSTEM_1),
    ("kraken", SNAPSHOT_2),
    ("kraken", UPDATE_2),
    ("kraken", TRADES_2),
    ("kraken", TICKER_2),
    ("kraken", STATUS_2),
    ("kraken", INSTRUMENT_2),
    ("kraken", DEPTH),
    ("kraken", TRADES),
    ("kraken", TICKERS),
    ("kraken", PAIRS),
    ("kraken", SYSTEM),
    ("kraken_futures", TRADE_F),
    ("kraken_futures", LIQUIDATION_F),
    ("kraken_futures", SNAPSHOT_TRADES_F),
    ("kraken_futures", BOOK_F),
    ("kraken_futures", SNAPSHOT_F),
    ("kraken_futures", TICKER_F),
    ("kraken_futures", LITE_F),
    ("kraken_futures", INSTRUMENTS_F),
    ("kraken_futures", TICKERS_F),
    ("kraken_futures", RATES_F),
    ("kraken_futures", HISTORY_F),
];

#[test]
fn books_of_arrays_have_the_venues_digits_and_checksum() {
    assert_eq!(
        shown("kraken", SNAPSHOT_1),
        [
            "book_snapshot market=spot symbol=XMR-USD event_time=2021-04-17T16:48:53.100 origin=venue bid_prices=[354.12] bid_quantities=[0.5] ask_prices=[354.8 354.84] ask_quantities=[1.4 6.88212752] contracts=false depth=1000 price_digits=8 quantity_digits=8"
        ]
    );
    assert_eq!(
        shown("kraken", DELTA_1),
        [
            "book_delta market=spot symbol=XMR-USD event_time=2021-04-17T16:48:53.365913 bid_prices=[354.15] bid_quantities=[5] ask_prices=[] ask_quantities=[] contracts=false checksum=2583817756 price_digits=8 quantity_digits=8"
        ]
    );
    // The time is the latest of a level.
    assert_eq!(
        shown("kraken", BOTH_1),
        [
            "book_delta market=spot symbol=BTC-USD event_time=2018-08-18T17:45:35.345903 bid_prices=[5541.3] bid_quantities=[0] ask_prices=[5541.3 5542.5] ask_quantities=[2.507 0.401] contracts=false checksum=974942666 price_digits=5 quantity_digits=8"
        ]
    );
    // Early recordings have no checksums.
    assert!(!shown("kraken", &DELTA_1.replace(",\"c\":\"2583817756\"", ""))[0].contains("checksum"));
}

#[test]
fn books_without_levels_do_no_harm() {
    let empty = SNAPSHOT_1.replace(&SNAPSHOT_1[6..SNAPSHOT_1.find('}').unwrap()], "\"as\":[],\"bs\":[]");
    assert_eq!(
        shown("kraken", &empty),
        [
            "book_snapshot market=spot symbol=XMR-USD origin=venue bid_prices=[] bid_quantities=[] ask_prices=[] ask_quantities=[] contracts=false depth=1000"
        ]
    );
    assert_eq!(decode_as("kraken", &empty, None, None).unwrap_err().reason, "no_time");
    for (frame, expected) in [
        (r#"[1,{"a":[],"b":[],"c":"1"},"book-10","XBT/USD"]"#, "no_time"),
        (r#"[1,{"a":[],"c":"1"},{"b":[]},"book-10","XBT/USD"]"#, "no_time"),
        (r#"[1,{"c":"1"},"book-10","XBT/USD"]"#, "missing_field"),
        (r#"[1,{},"book-10","XBT/USD"]"#, "missing_field"),
        (r#"[1,{"as":[]},"book-10","XBT/USD"]"#, "missing_field"),
        (r#"[1,{"a":[["1","1","0"]]},"book-10","XBT/USD"]"#, "no_time"),
        (r#"[1,{"a":[]},{"a":[]},"book-10","XBT/USD"]"#, "malformed"),
    ] {
        assert_eq!(reason("kraken", frame), expected, "{frame}");
    }
    let (_, found) = decode(
        "kraken",
        r#"{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","checksum":7,"timestamp":"2023-10-06T17:35:55Z"}]}"#,
    )
    .unwrap();
    assert_eq!(numbers(BookDeltaRows::of(&found["book_delta"]).unwrap().bid_prices, 0), &[] as &[i128]);
}

#[test]
fn books_of_objects_keep_the_digits_of_their_numbers() {
    let shown_snapshot = &shown("kraken", SNAPSHOT_2)[0];
    assert!(
        shown_snapshot.starts_with("book_snapshot market=spot symbol=BTC-USD origin=venue bid_prices=[45283.5 45283.4"),
        "{shown_snapshot}"
    );
    assert!(shown_snapshot.ends_with("contracts=false depth=10 checksum=3310070434 price_digits=1 quantity_digits=8"), "{shown_snapshot}");
    assert_eq!(
        shown("kraken", UPDATE_2),
        [
            "book_delta market=spot symbol=MATIC-USD event_time=2023-10-06T17:35:55.440295 bid_prices=[0.5657 0.5656] bid_quantities=[1098.3947558 0] ask_prices=[] ask_quantities=[] contracts=false checksum=2114181697 price_digits=4 quantity_digits=8"
        ]
    );
    // The checksum of Kraken's guide, out of the records.
    let (_, found) = decode("kraken", SNAPSHOT_2).unwrap();
    let mut books = Books::default();
    assert_eq!(books.take(&found), [Some(true)]);
    // A size of zero without a fraction does not say how sizes are written; then the checksum cannot be checked.
    let gone = |qty: &str| {
        shown("kraken", &UPDATE_2.replace("{\"price\":0.5657,\"qty\":1098.39475580},", "").replace("0.00000000", qty)).remove(0)
    };
    assert!(gone("0.00000000").ends_with("checksum=2114181697 price_digits=4 quantity_digits=8"));
    assert!(gone("0").ends_with("contracts=false price_digits=4"), "{}", gone("0"));
    // Beside another size it does no harm.
    assert!(shown("kraken", &UPDATE_2.replace("0.00000000", "0"))[0].ends_with("price_digits=4 quantity_digits=8"));
    // Newer messages have a time; the depth is the smallest that holds the levels.
    let timed = SNAPSHOT_2.replace("\"checksum\"", "\"timestamp\":\"2025-10-06T17:35:55.5Z\",\"checksum\"").replacen(
        "\"bids\":[",
        "\"bids\":[{\"price\":45283.9,\"qty\":1.00000000},",
        1,
    );
    assert!(
        shown("kraken", &timed)[0].contains("event_time=2025-10-06T17:35:55.500 ") && shown("kraken", &timed)[0].contains(" depth=25 ")
    );
}

#[test]
fn trades_have_the_takers_side_and_a_number() {
    // The first protocol does not number trades.
    let first = [
        "trade market=spot symbol=XMR-USD event_time=2021-04-17T16:49:10.826417 trade_id=1618678150826417-0 price=354.04 quantity=0.28245396 side=sell fills=1 backfilled=false",
        "trade market=spot symbol=XMR-USD event_time=2021-04-17T16:49:10.827816 trade_id=1618678150827816-1 price=353.81 quantity=1.71754604 side=buy fills=1 backfilled=false",
    ];
    assert_eq!(shown("kraken", TRADES_1), first);
    // Newest first they are turned around, and keep their numbers.
    let backwards = TRADES_1.replace("150.826417", "150.927816");
    assert!(shown("kraken", &backwards)[0].contains("trade_id=1618678150827816-1"));
    let second = [
        "trade market=spot symbol=MATIC-USD event_time=2023-09-25T07:48:36.925533 trade_id=4665846 price=0.5147 quantity=6423.46326 side=buy fills=1 backfilled=false",
        "trade market=spot symbol=BTC-USD event_time=2023-09-25T07:49:36.925603 trade_id=4665847 price=26000.1 quantity=1136.19677815 side=sell fills=1 backfilled=false",
    ];
    assert_eq!(shown("kraken", TRADES_2), second);
    assert_eq!(shown("kraken", &TRADES_2.replace("07:48:36", "07:58:36"))[1], second[0].replace("07:48:36", "07:58:36"));
    // The order of members and white space make no difference.
    let shuffled = r#" { "data" : [ { "timestamp":"2023-09-25T07:48:36.925533Z", "trade_id":4665846,"x":{"side":"}\"{"}, "qty" : 6423.46326,"price":0.5147,"side":"buy" , "symbol":"MATIC\/USD"} ] ,
        "type":"snapshot","channel":"trade"}"#;
    assert_eq!(shown("kraken", shuffled), second[..1]);
    assert_eq!(
        shown("kraken", TRADES),
        [
            "trade market=spot symbol=BTC-USDT event_time=2025-11-10T17:23:53.971744 trade_id=10218208 price=105433.6 quantity=0.00027625 side=buy fills=1 backfilled=true",
            "trade market=spot symbol=BTC-USDT event_time=2025-11-10T17:24:43.306824 trade_id=10218212 price=105383.7 quantity=0.00007235 side=sell fills=1 backfilled=true",
        ]
    );
}

#[test]
fn quotes_come_from_four_messages() {
    assert_eq!(
        shown("kraken", SPREAD_1),
        [
            "quote market=spot symbol=BTC-USD event_time=2021-10-01T02:02:59.916349 bid_price=43770.2 bid_quantity=0.00917717 ask_price=43770.3 ask_quantity=0.3167044"
        ]
    );
    assert_eq!(
        shown("kraken", TICKER_1),
        ["quote market=spot symbol=XMR-USD bid_price=354.32 bid_quantity=6.87748868 ask_price=355.24 ask_quantity=27.19106411"]
    );
    assert_eq!(
        shown("kraken", TICKER_2),
        [
            "quote market=spot symbol=BTC-USD event_time=2026-08-12T19:29:02.066592 bid_price=63297.7 bid_quantity=5.45673101 ask_price=63297.8 ask_quantity=0.36974422"
        ]
    );
    assert_eq!(
        shown("kraken", TICKERS),
        [
            "quote market=spot symbol=BTC-USD bid_price=30300 bid_quantity=0.5 ask_price=30300.1 ask_quantity=1",
            "quote market=spot symbol=SOL-USD bid_price=20.1 bid_quantity=3",
        ]
    );
    // Without the venue's time ours is needed.
    for frame in [TICKER_1, TICKERS, &TICKER_2.replace(",\"timestamp\":\"2026-08-12T19:29:02.066592Z\"", "")] {
        assert_eq!(decode_as("kraken", frame, None, None).unwrap_err().reason, "no_time", "{frame}");
    }
    assert_eq!(decode_as("kraken", TICKER_2, None, None).unwrap().1["quote"].num_rows(), 1);
    assert_eq!(decode_as("kraken", &SPREAD_1.replace("1633053779.916349", "0.000000"), None, None).unwrap_err().reason, "no_time");
}

#[test]
fn answers_of_spot() {
    assert_eq!(
        shown("kraken", DEPTH),
        [
            "book_snapshot market=spot symbol=BTC-USD event_time=2021-03-25T09:05:14 origin=venue bid_prices=[52522.9] bid_quantities=[0.753] ask_prices=[52523 52536] ask_quantities=[1.199 0.3] contracts=false"
        ]
    );
    assert_eq!(
        shown("kraken", PAIRS),
        [
            "instrument market=spot symbol=BTC-USD event_time=1970-01-01T00:00:07 venue_symbol=XXBTZUSD base=BTC quote=USD status=online tick_size=0.5 lot_size=0.00000001 inverse=false",
            "instrument market=spot symbol=FOO-DOGE event_time=1970-01-01T00:00:07 venue_symbol=FOOXDG base=FOO quote=DOGE tick_size=0.01 lot_size=0.00001 inverse=false",
        ]
    );
    assert_eq!(
        shown("kraken", INSTRUMENT_2),
        [
            "instrument market=spot symbol=EUR-USD event_time=1970-01-01T00:00:07 venue_symbol=EUR/USD base=EUR quote=USD status=online tick_size=0.00001 lot_size=0.00000001 inverse=false",
            "instrument market=spot symbol=BTC-USD event_time=1970-01-01T00:00:07 venue_symbol=BTC/USD base=BTC quote=USD status=post_only tick_size=0.1 lot_size=0.00000001 inverse=false",
        ]
    );
    for listing in [PAIRS, INSTRUMENT_2] {
        assert_eq!(decode_as("kraken", listing, None, None).unwrap_err().reason, "no_time");
    }
    // One entry that is none spoils all.
    assert_eq!(reason("kraken", &TICKERS.replace("20.10000", "x")), "bad_number");
    assert_eq!(reason("kraken", &TICKERS.replace("SOLUSD", "SOLXYZ")), "unknown_instrument");
}

#[test]
fn states_of_the_venue() {
    assert_eq!(shown("kraken", SYSTEM_1), ["venue_status market=spot status=online"]);
    assert_eq!(shown("kraken", STATUS_2), ["venue_status market=spot status=cancel_only"]);
    assert_eq!(shown("kraken", SYSTEM), ["venue_status market=spot event_time=2025-11-11T00:17:10 status=maintenance"]);
    assert_eq!(decode_as("kraken", SYSTEM_1, None, None).unwrap_err().reason, "no_time");
}

#[test]
fn trades_of_futures() {
    // 15,000 contracts of 1 USD.
    assert_eq!(
        shown("kraken_futures", TRADE_F),
        [
            "trade market=perpetual symbol=BTC-USD-PERP-INVERSE event_time=2021-02-02T11:45:17.519 trade_id=05af78ac-a774-478c-a50c-8b9c234e071e price=30000 quantity=0.5 contracts=15000 side=sell fills=1 backfilled=false"
        ]
    );
    // A liquidation is a trade as well; the order that closes a short buys.
    assert_eq!(
        shown("kraken_futures", LIQUIDATION_F),
        [
            "liquidation market=perpetual symbol=BTC-USD-PERP event_time=2019-08-09T09:25:12.903 liquidation_id=b5a1c239-7987-4207-96bf-02355a3263cf side=buy price=11735.5 quantity=0.0125 filled_quantity=0.0125",
            "trade market=perpetual symbol=BTC-USD-PERP event_time=2019-08-09T09:25:12.903 trade_id=b5a1c239-7987-4207-96bf-02355a3263cf price=11735.5 quantity=0.0125 side=buy fills=1 backfilled=false",
        ]
    );
    for kind in ["termination", "assignment"] {
        assert_eq!(decode("kraken_futures", &TRADE_F.replace("fill", kind)).unwrap().0, Outcome::Ignored);
    }
    assert_eq!(shown("kraken_futures", &TRADE_F.replace("fill", "block")), shown("kraken_futures", TRADE_F));
    assert_eq!(reason("kraken_futures", &TRADE_F.replace("fill", "gift")), "unknown_event");
    // Trades of 2019 had no other identifier than their number.
    let old = TRADE_F.replace("\"uid\":\"05af78ac-a774-478c-a50c-8b9c234e071e\",", "");
    assert!(shown("kraken_futures", &old)[0].contains(" trade_id=653355 "));
    assert_eq!(reason("kraken_futures", &old.replace("\"seq\":653355,", "")), "missing_field");
    // The last hundred come newest first.
    assert_eq!(
        shown("kraken_futures", SNAPSHOT_TRADES_F),
        [
            "trade market=perpetual symbol=BTC-USD-PERP-INVERSE event_time=2021-02-02T12:40:56.839 trade_id=45ee9737-1877-4682-bc68-e4ef818ef88a price=38572 quantity=0.25 contracts=9643 side=buy fills=1 backfilled=false",
            "trade market=perpetual symbol=BTC-USD-PERP-INVERSE event_time=2021-02-02T12:40:57.781 trade_id=caa9c653-420b-4c24-a9f1-462a054d86f1 price=35200 quantity=0.0125 contracts=440 side=sell fills=1 backfilled=false",
        ]
    );
    assert_eq!(
        shown_as("kraken_futures", HISTORY_F, Some("PI_XBTUSD")),
        [
            "trade market=perpetual symbol=BTC-USD-PERP-INVERSE event_time=2022-03-16T12:32:31.069 trade_id=a price=40000 quantity=0.025 contracts=1000 side=buy fills=1 backfilled=true",
            "trade market=perpetual symbol=BTC-USD-PERP-INVERSE event_time=2022-03-16T12:32:31.069 trade_id=b price=40000 quantity=0.0125 contracts=500 side=sell fills=1 backfilled=true",
        ]
    );
    assert_eq!(reason("kraken_futures", HISTORY_F), "missing_field");
}

#[test]
fn books_of_futures_are_numbered_one_by_one() {
    assert_eq!(
        shown("kraken_futures", BOOK_F),
        [
            "book_delta market=perpetual symbol=BTC-USD-PERP-INVERSE event_time=2021-02-02T12:45:53.629 first_sequence=326094645 last_sequence=326094645 bid_prices=[] bid_quantities=[] ask_prices=[34981] ask_quantities=[0] contracts=true"
        ]
    );
    assert!(shown("kraken_futures", &BOOK_F.replace("sell", "buy"))[0].contains("bid_prices=[34981] bid_quantities=[0] ask_prices=[] "));
    // Sizes below zero were seen, and are none.
    assert!(shown("kraken_futures", &BOOK_F.replace("0.0,\"t", "-5.0,\"t"))[0].contains("ask_quantities=[0]"));
    assert_eq!(
        shown("kraken_futures", SNAPSHOT_F),
        [
            "book_snapshot market=perpetual symbol=BTC-USD-PERP event_time=2021-02-02T12:43:45.817 sequence=326072249 origin=venue bid_prices=[34892.5] bid_quantities=[0.6385] ask_prices=[34911.5 34912] ask_quantities=[0.20598 0.000253] contracts=false"
        ]
    );
    assert_eq!(
        shown_as("kraken_futures", BOOK_ANSWER_F, Some("PF_XBTUSD@orderbook")),
        [
            "book_snapshot market=perpetual symbol=BTC-USD-PERP event_time=2025-07-11T12:00:00 origin=venue bid_prices=[105900 105850] bid_quantities=[0.5 1.2] ask_prices=[105950] ask_quantities=[0.3] contracts=false"
        ]
    );
    for (from, to) in [("[105850,1.2]", "[105850]"), ("[105850,1.2]", "7"), ("[105850,1.2]", "[\"105850\",1.2]"), ("105850,", "-105850,")] {
        let result = decode_as("kraken_futures", &BOOK_ANSWER_F.replace(from, to), Some(1), Some("PF_XBTUSD"));
        assert!(matches!(result.unwrap_err().reason, "wrong_type" | "bad_number"), "{to}");
    }
}

#[test]
fn a_ticker_of_futures_gives_five_records() {
    // The rate is the one relative to the price; the other is money for a contract.
    let found = [
        "funding_rate market=perpetual symbol=BTC-USD-PERP-INVERSE event_time=2023-02-14T16:47:15.406 rate=-0.000001380385 predicted_rate=-0.000008047629 next_funding_time=2023-02-14T17:00:00",
        "index_price market=perpetual symbol=BTC-USD-PERP-INVERSE event_time=2023-02-14T16:47:15.406 price=21984.54",
        "mark_price market=perpetual symbol=BTC-USD-PERP-INVERSE event_time=2023-02-14T16:47:15.406 price=21979.68641534714",
        "open_interest market=perpetual symbol=BTC-USD-PERP-INVERSE event_time=2023-02-14T16:47:15.406 contracts=30072580 quote=30072580",
        "quote market=perpetual symbol=BTC-USD-PERP-INVERSE event_time=2023-02-14T16:47:15.406 bid_price=20000 bid_quantity=0.1268 ask_price=25000 ask_quantity=0.55792",
    ];
    assert_eq!(shown("kraken_futures", TICKER_F), found);
    assert_eq!(shown("kraken_futures", &TICKER_F.replace("1676394000000", "1676394000000.0")), found);
    assert_eq!(reason("kraken_futures", &TICKER_F.replace("1676394000000", "1676394000000.5")), "bad_time");
    // Figures that the venue works out are rounded, and one below zero is none of its.
    let rounded = shown("kraken_futures", &TICKER_F.replace("21979.68641534714", "0.0000123456789012"));
    assert!(rounded[2].ends_with(" price=0.000012345679"), "{rounded:?}");
    assert_eq!(reason("kraken_futures", &TICKER_F.replace("21984.54", "-21984.54")), "bad_number");
    // Linear: open interest and sizes are in the base asset.
    let linear = shown("kraken_futures", &TICKER_F.replace("PI_", "PF_"));
    assert!(linear[3].ends_with("base=30072580") && linear[4].contains("bid_quantity=2536 "), "{linear:?}");
    // A rate of zero is left out by the venue: no record rather than a guess. A future has none.
    let without = TICKER_F.replace("\"relative_funding_rate\":-1.380384722222e-6,", "");
    assert!(!shown("kraken_futures", &without).iter().any(|row| row.starts_with("funding_rate")));
    let future = shown("kraken_futures", &TICKER_F.replace("PI_XBTUSD", "FI_XBTUSD_230331"));
    assert_eq!(future.len(), 4);
    assert!(future[0].starts_with("index_price market=future symbol=BTC-USD-230331-INVERSE "), "{future:?}");
    assert_eq!(shown("kraken_futures", LITE_F), ["quote market=future symbol=BTC-USD-251128 bid_price=34932 ask_price=34949.5"]);
    assert_eq!(decode_as("kraken_futures", LITE_F, None, None).unwrap_err().reason, "no_time");
    assert_eq!(reason("kraken_futures", &TICKER_F.replace("\"time\":1676393235406,", "")), "missing_field");
    // Nothing in it.
    assert_eq!(decode("kraken_futures", r#"{"feed":"ticker","product_id":"PF_XBTUSD","time":1}"#).unwrap().0, Outcome::Ignored);
}

#[test]
fn answers_of_futures() {
    let time = "event_time=2025-11-17T00:34:37.524";
    assert_eq!(
        shown("kraken_futures", TICKERS_F),
        [
            format!("index_price market=perpetual symbol=BTC-USD-PERP-INVERSE {time} price=91468.38"),
            format!("mark_price market=perpetual symbol=BTC-USD-PERP-INVERSE {time} price=91506.6009839176"),
            format!("mark_price market=perpetual symbol=ETH-USD-PERP {time} price=3205.25"),
            format!("open_interest market=perpetual symbol=BTC-USD-PERP-INVERSE {time} contracts=21279580 quote=21279580"),
            format!("open_interest market=perpetual symbol=ETH-USD-PERP {time} base=1000000.25"),
            format!("quote market=perpetual symbol=BTC-USD-PERP-INVERSE {time} bid_price=80000 bid_quantity=0.062"),
            format!("quote market=perpetual symbol=ETH-USD-PERP {time} bid_price=3200 bid_quantity=100.5"),
        ]
    );
    assert_eq!(
        shown_as("kraken_futures", RATES_F, Some("PF_XBTUSD")),
        [
            "funding_rate market=perpetual symbol=BTC-USD-PERP event_time=2025-07-11T08:00:00 rate=-0.000001999194",
            "funding_rate market=perpetual symbol=BTC-USD-PERP event_time=2025-07-11T09:00:00 rate=0.000020164638",
        ]
    );
    assert_eq!(
        shown("kraken_futures", INSTRUMENTS_F),
        [
            format!(
                "instrument market=perpetual symbol=BTC-USD-PERP-INVERSE {time} venue_symbol=PI_XBTUSD base=BTC quote=USD settlement=BTC status=tradeable tick_size=0.5 lot_size=1 contract_size=1 inverse=true"
            ),
            format!(
                "instrument market=perpetual symbol=PEPE-USD-PERP {time} venue_symbol=PF_PEPEUSD base=PEPE quote=USD settlement=USD status=post_only tick_size=0.0000000001 lot_size=1000 contract_size=1 inverse=false"
            ),
            format!(
                "instrument market=future symbol=ETH-USD-180928-INVERSE {time} venue_symbol=fi_ethusd_180928 base=ETH quote=USD settlement=ETH status=not_tradeable tick_size=0.05 contract_size=1 inverse=true expiry=2018-09-28T15:00:00"
            ),
            format!(
                "instrument market=future symbol=FOO-EUR-260327 {time} venue_symbol=FF_FOOEUR_260327 base=FOO quote=EUR settlement=EUR status=tradeable tick_size=1 lot_size=0.0001 contract_size=10 inverse=false expiry=2026-03-27T08:00:00"
            ),
        ]
    );
    assert_eq!(reason("kraken_futures", &INSTRUMENTS_F.replace("\"serverTime\":\"2025-11-17T00:34:37.524Z\",", "")), "missing_field");
    assert_eq!(reason("kraken_futures", &INSTRUMENTS_F.replacen("\"contractSize\":1,", "\"contractSize\":0,", 1)), "bad_number");
}

#[test]
fn what_carries_no_record_is_ignored() {
    for (dialect, frame) in [
        ("kraken", r#"{"event":"heartbeat"}"#),
        ("kraken", r#"{"event":"pong","reqid":42}"#),
        (
            "kraken",
            r#"{"channelID":1665,"channelName":"trade","event":"subscriptionStatus","pair":"WAVES/EUR","status":"subscribed","subscription":{"name":"trade"}}"#,
        ),
        (
            "kraken",
            r#"[42,["1542057314.748456","1542057360.435743","3586.70000","3586.70000","3586.60000","3586.60000","3586.68894","0.03373000",2],"ohlc-5","XBT/USD"]"#,
        ),
        ("kraken", r#"{"channel":"heartbeat"}"#),
        ("kraken", r#"{"channel":"level3","type":"snapshot","data":[{}]}"#),
        (
            "kraken",
            r#"{"method":"subscribe","result":{"channel":"book","depth":10,"snapshot":true,"symbol":"ALGO/USD"},"success":true,"time_in":"2023-10-06T17:35:55.219022Z"}"#,
        ),
        ("kraken", r#"{"method":"pong","req_id":101}"#),
        ("kraken", r#"{"error":[],"result":{"unixtime":1616336594,"rfc1123":"Sun, 21 Mar 21 14:23:14 +0000"}}"#),
        ("kraken", r#"{"error":[],"result":{}}"#),
        ("kraken", r#"{"error":[],"result":{"XXBT":{"aclass":"currency","altname":"XBT","decimals":10,"display_decimals":5}}}"#),
        (
            "kraken",
            r#"{"error":[],"result":{"XXBTZUSD":[[1688671200,"30306.1","30306.2","30305.7","30305.7","30306.1","3.39243896",23]],"last":1688672160}}"#,
        ),
        ("kraken", r#"{"error":[],"result":{"XXBTZUSD":[[1688671834,"30292.10000","30297.50000"]],"last":1688672106}}"#),
        ("kraken", r#"{"channel":"trade","type":"update","data":[]}"#),
        ("kraken_futures", r#"{"event":"info","version":1}"#),
        ("kraken_futures", r#"{"event":"subscribed","feed":"ticker","product_ids":["PI_XBTUSD"]}"#),
        ("kraken_futures", r#"{"feed":"heartbeat","time":1534262350627}"#),
        ("kraken_futures", r#"{"feed":"fills_snapshot","account":"x","fills":[]}"#),
        ("kraken_futures", r#"{"feed":"trade_snapshot","product_id":"PI_XBTUSD","trades":[]}"#),
    ] {
        assert_eq!(decode(dialect, frame).unwrap().0, Outcome::Ignored, "{frame}");
    }
    // Nothing of an unwanted kind is read.
    for (dialect, frame) in [
        ("kraken", r#"[1,{"a":5},"book-10","???"]"#),
        ("kraken", r#"{"channel":"trade","type":"update","data":[{"price":"x"}]}"#),
        ("kraken_futures", r#"{"feed":"book","seq":"x"}"#),
    ] {
        let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: frame.as_bytes() };
        assert_eq!(make(dialect).unwrap().decode(frame, &mut Records::default()), Ok(Outcome::Ignored));
    }
}

#[test]
fn every_refusal_has_its_reason_and_names_the_place() {
    let mut wrong = Vec::new();
    let listing = "is not in the listing and its letters do not tell base from quote; give the source the venue's";
    for (dialect, frame, from, to, reason, detail) in [
        ("kraken", DELTA_1, "]]", "]", "malformed", "unexpected byte at byte 64"),
        ("kraken", DELTA_1, "\"XMR/USD\"]", "\"XMR/USD\"]]", "malformed", "bytes after the value at byte 102"),
        (
            "kraken",
            DELTA_1,
            "\"5.00000000\"",
            "5.00000000",
            "wrong_type",
            "`b` holds [\"354.15000000\",5.00000000,\"1618678133.365913\"], where a level [price, size, time] should be",
        ),
        (
            "kraken",
            DELTA_1,
            ",\"1618678133.365913\"",
            "",
            "wrong_type",
            "`b` holds [\"354.15000000\",\"5.00000000\"], where a level [price, size, time] should be",
        ),
        ("kraken", DELTA_1, "[[\"354", "[7,[\"354", "wrong_type", "`b` holds 7, where a level [price, size, time] should be"),
        ("kraken", DELTA_1, "354.15000000", "-354.15", "bad_number", "`b` is \"-354.15\", which is negative"),
        ("kraken", DELTA_1, "5.00000000", "five", "bad_number", "`b` is \"five\", which is not a decimal number"),
        ("kraken", DELTA_1, "1618678133.365913", "16.18.5", "bad_time", "`b` holds \"16.18.5\", which is no time in seconds since 1970"),
        ("kraken", DELTA_1, "\"2583817756\"", "2583817756", "wrong_type", "`c` is 2583817756, where a quoted whole number should be"),
        ("kraken", DELTA_1, "2583817756", "4294967296", "bad_number", "`c` is \"4294967296\", which is no checksum of 32 bits"),
        ("kraken", DELTA_1, "book-1000", "book-x", "unknown_event", "\"book-x\" is no message of Kraken's that we know"),
        ("kraken", DELTA_1, "book-1000", "hook", "unknown_event", "\"hook\" is no message of Kraken's that we know"),
        ("kraken", DELTA_1, "[992,", "[", "unknown_event", "an array that names no channel is no message of Kraken's that we know"),
        ("kraken", DELTA_1, "XMR/USD", "XMR", "unknown_instrument", &format!("`XMR` {listing} `AssetPairs` as `instruments`")),
        ("kraken", DELTA_1, "\"XMR/USD\"", "5", "wrong_type", "`pair` is 5, where a text should be"),
        ("kraken", TRADES_1, "\"s\"", "\"sell\"", "wrong_type", "the side of a trade is \"sell\", where \"b\" or \"s\" should be"),
        ("kraken", TRADES_1, "0.28245396", "0.00000000", "not_a_trade", "the price is 354.04 and the size 0; neither may be zero"),
        ("kraken", TRADES_1, "1618678150.826417", "0", "bad_time", "the `time` of a trade is 0, which is none"),
        (
            "kraken",
            SPREAD_1,
            "\"43770.30000\",",
            "",
            "wrong_type",
            "[\"43770.20000\",\"1633053779.916349\",\"0.00917717\",\"0.31670440\"… stands where 5 texts should be",
        ),
        (
            "kraken",
            TICKER_1,
            "27,\"27",
            "27,27,\"27",
            "wrong_type",
            "`a` is [\"355.24000000\",27,27,\"27.19106411\"], where price, whole lots and size should be",
        ),
        (
            "kraken",
            UPDATE_2,
            "\"channel\"",
            "\"tunnel\"",
            "unknown_event",
            "an object that names neither channel nor event is no message of Kraken's that we know",
        ),
        ("kraken", UPDATE_2, "\"book\"", "\"look\"", "unknown_event", "\"look\" is no message of Kraken's that we know"),
        ("kraken", UPDATE_2, "\"update\"", "\"change\"", "unknown_event", "\"change\" is no message of Kraken's that we know"),
        (
            "kraken",
            UPDATE_2,
            "\"price\":0.5656",
            "\"price\":\"0.5656\"",
            "wrong_type",
            "`price` of a level is \"0.5656\", where a number should be",
        ),
        ("kraken", UPDATE_2, "\"price\":0.5656,", "", "missing_field", "a level of `bids` lacks `price` or `qty`"),
        ("kraken", UPDATE_2, "\"price\":0.5656,", "\"price\":1,\"price\":2,", "malformed", "member named twice at byte 128"),
        ("kraken", UPDATE_2, "2114181697", "-1", "bad_number", "`checksum` is -1, which is no checksum of 32 bits"),
        ("kraken", UPDATE_2, ",\"timestamp\":\"2023-10-06T17:35:55.440295Z\"", "", "missing_field", "`timestamp` is missing"),
        (
            "kraken",
            UPDATE_2,
            "2023-10-06T",
            "2023-10-06 ",
            "bad_time",
            "`timestamp` is \"2023-10-06 17:35:55.440295Z\", which is no time as RFC 3339 writes it",
        ),
        ("kraken", TRADES_2, "\"sell\"", "\"s\"", "wrong_type", "`side` is \"s\", where \"buy\" or \"sell\" should be"),
        (
            "kraken",
            TRADES_2,
            "26000.1",
            "0.1234567890123",
            "overflow",
            "`price` is 0.1234567890123, which has more than 12 fraction digits",
        ),
        ("kraken", TRADES_2, "6423.46326", "0", "not_a_trade", "the price is 0.5147 and the size 0; neither may be zero"),
        ("kraken", TRADES_2, "4665847", "\"4665847\"", "wrong_type", "`trade_id` is \"4665847\", where a whole number should be"),
        ("kraken", STATUS_2, "\"system\"", "\"sistem\"", "missing_field", "`system` is missing"),
        ("kraken", DEPTH, "XXBTZUSD", "XXBTZXYZ", "unknown_instrument", &format!("`XXBTZXYZ` {listing} `AssetPairs` as `instruments`")),
        (
            "kraken_futures",
            TRADE_F,
            "PI_XBTUSD",
            "PX_XBTUSD",
            "unknown_instrument",
            &format!("`PX_XBTUSD` {listing} `instruments` as `instruments`"),
        ),
        ("kraken_futures", TRADE_F, "\"trade\"", "\"trades\"", "unknown_event", "\"trades\" is no message of Kraken's that we know"),
        (
            "kraken_futures",
            TRADE_F,
            "\"feed\"",
            "\"food\"",
            "unknown_event",
            "an object that names no feed is no message of Kraken's that we know",
        ),
        (
            "kraken_futures",
            TRADE_F,
            "1612266317519",
            "-1",
            "bad_time",
            "`time` is -1, which is no time in milliseconds or microseconds since 1970",
        ),
        ("kraken_futures", TRADE_F, "15000", "0", "not_a_trade", "the price is 30000 and the size 0; neither may be zero"),
        ("kraken_futures", BOOK_F, "326094645", "1.5", "bad_number", "`seq` is 1.5, which is no whole number of 64 bits"),
        ("kraken_futures", BOOK_F, "\"timestamp\":1612269953629", "\"x\":1", "missing_field", "`timestamp` is missing"),
        ("kraken_futures", BOOK_F, ",\"qty\":0.0", "", "missing_field", "`qty` is missing"),
    ] {
        assert!(frame.contains(from), "{from} in {frame}");
        let frame = frame.replacen(from, to, 1);
        let reject = decode(dialect, &frame).map(|(outcome, _)| outcome).expect_err(&frame);
        if reject != Reject::new(reason, detail) {
            wrong.push(format!("{reason}: {detail}\n{}: {}", reject.reason, reject.detail));
        }
        assert!(REASONS.contains(&reason));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    for (dialect, frame) in [
        (
            "kraken",
            r#"{"errorMessage":"Currency pair not supported XBT/XYZ","event":"subscriptionStatus","pair":"XBT/XYZ","status":"error","subscription":{"name":"trade"}}"#,
        ),
        ("kraken", r#"{"errorMessage":"Malformed request","event":"error"}"#),
        ("kraken", r#"{"Error":"Exceeded msg rate"}"#),
        ("kraken", r#"{"error":"Currency pair not supported XBT/XYZ","method":"subscribe","success":false,"symbol":"XBT/XYZ"}"#),
        ("kraken", r#"{"error":["EQuery:Unknown asset pair"]}"#),
        ("kraken", r#"{"error":["EGeneral:Too many requests"],"result":{}}"#),
        ("kraken_futures", r#"{"event":"error","message":"Invalid product id"}"#),
        ("kraken_futures", r#"{"event":"alert","message":"Bad request"}"#),
        ("kraken_futures", r#"{"result":"error","error":"apiLimitExceeded","serverTime":"2016-02-25T09:45:53.818Z"}"#),
        ("kraken_futures", r#"{"status":"BAD_REQUEST","result":"error","errors":[{"code":11,"message":"Argument invalid: symbol"}]}"#),
    ] {
        let reject = decode(dialect, frame).unwrap_err();
        assert_eq!(reject.reason, "venue_error", "{frame}");
        assert!(reject.detail.starts_with("the venue answered with an error: {"), "{reject:?}");
    }
}

#[test]
fn a_listing_is_learnt_and_agrees_with_the_letters() {
    let Some(text) = recording("thirty_seconds/KRAKEN.0.gz") else { return };
    let listing = text.lines().next().unwrap().split_once(": ").unwrap().1;
    let (_, found) = decode("kraken", listing).unwrap();
    let rows = InstrumentRows::of(&found["instrument"]).unwrap();
    // 304 pairs, of which eleven were dark pools.
    assert_eq!((found["instrument"].num_rows(), label(rows.symbol, 0), rows.venue_symbol.value(0)), (293, Some("AAVE-AUD"), "AAVEAUD"));
    for at in 0..293 {
        assert!(number(rows.tick_size, at).is_some() && number(rows.lot_size, at) == Some(d("0.00000001")));
    }
    let mut symbols: Vec<_> = (0..293).map(|at| label(rows.symbol, at).unwrap()).collect();
    symbols.sort_unstable();
    symbols.dedup();
    assert_eq!(symbols.len(), 293);
    let learnt = super::pairs(listing.as_bytes()).unwrap();
    assert!(learnt.len() > 600, "{}", learnt.len());
    for (symbol, listed) in &learnt {
        assert_eq!(Pairs.read(symbol).as_ref(), Some(listed), "{symbol}");
    }
}

#[test]
fn a_learnt_listing_wins_over_the_letters() {
    let mut dialects = Dialects::default();
    dialects.learn("kraken", PAIRS.replace("FOOXDG\":", "ODDNAME\":").as_bytes()).unwrap();
    dialects.learn("kraken_futures", INSTRUMENTS_F.as_bytes()).unwrap();
    let mut records = every_kind();
    for (dialect, payload) in [
        ("kraken", TRADES.replace("XBTUSDT", "ODDNAME")),
        // A linear contract of ten.
        ("kraken_futures", TRADE_F.replace("PI_XBTUSD", "FF_FOOEUR_260327")),
        ("kraken_futures", TRADE_F.replace("PI_XBTUSD", "FI_ETHUSD_180928")),
        ("kraken_futures", BOOK_F.replace("PI_XBTUSD", "FF_FOOEUR_260327")),
        ("kraken_futures", TICKER_F.replace("PI_XBTUSD", "FF_FOOEUR_260327")),
    ] {
        let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: payload.as_bytes() };
        dialects.make(dialect).unwrap().decode(frame, &mut records).unwrap();
    }
    let found = batches(&mut records);
    let trades = TradeRows::of(&found["trade"]).unwrap();
    let trade = |row| (label(trades.symbol, row).unwrap().to_owned(), number(trades.quantity, row), number(trades.contracts, row));
    assert_eq!(trade(0), ("FOO-DOGE".into(), Some(d("0.00027625")), None));
    assert_eq!(trade(2), ("FOO-EUR-260327".into(), Some(d("150000")), Some(d("15000"))));
    assert_eq!(trade(3), ("ETH-USD-180928-INVERSE".into(), Some(d("0.5")), Some(d("15000"))));
    assert!(BookDeltaRows::of(&found["book_delta"]).unwrap().contracts.value(0));
    let interest = OpenInterestRows::of(&found["open_interest"]).unwrap();
    assert_eq!((number(interest.contracts, 0), number(interest.base, 0)), (Some(d("30072580")), Some(d("300725800"))));
    for (dialect, listing, complaint) in [
        ("kraken", "[]", "AssetPairs"),
        ("kraken", "{}", "AssetPairs"),
        ("kraken", r#"{"result":{"A":{"altname":5}}}"#, "AssetPairs"),
        ("kraken_futures", "{}", "instruments"),
        ("kraken_futures", r#"{"instruments":[{"symbol":"PI_XBTUSD","type":"futures_inverse"}]}"#, "contract size"),
        ("kraken_futures", r#"{"instruments":[{"symbol":"PI_XBTUSD_26","type":"futures_inverse","contractSize":1}]}"#, "base and quote"),
    ] {
        let error = Dialects::default().learn(dialect, listing.as_bytes()).unwrap_err();
        assert!(error.contains(complaint), "{error}");
    }
    assert_eq!(Products.read("PI_XBTUSD").unwrap().symbol, "BTC-USD-PERP-INVERSE");
}

/// Books that are built from records alone, by the rules of Kraken's guide.
#[derive(Default)]
struct Books(BTreeMap<String, Sides>);

#[derive(Default)]
struct Sides {
    /// Sizes by price, of bids and asks, in units of 10⁻¹².
    sides: [BTreeMap<i128, i128>; 2],
    depth: usize,
}

impl Books {
    /// Takes in records, snapshots before changes; whether the checksum of each that has one is that of the book.
    fn take(&mut self, found: &BTreeMap<String, RecordBatch>) -> Vec<Option<bool>> {
        let mut checks = Vec::new();
        if let Some(rows) = found.get("book_snapshot") {
            let rows = BookSnapshotRows::of(rows).unwrap();
            for at in 0..rows.symbol.len() {
                let book = self.0.entry(label(rows.symbol, at).unwrap().into()).or_default();
                *book = Sides { depth: integer(rows.depth, at).unwrap() as usize, ..Sides::default() };
                book.set(0, numbers(rows.bid_prices, at), numbers(rows.bid_quantities, at));
                book.set(1, numbers(rows.ask_prices, at), numbers(rows.ask_quantities, at));
                checks.push(book.check([rows.checksum, rows.price_digits, rows.quantity_digits].map(|column| integer(column, at))));
            }
        }
        if let Some(rows) = found.get("book_delta") {
            let rows = BookDeltaRows::of(rows).unwrap();
            for at in 0..rows.symbol.len() {
                let book = self.0.get_mut(label(rows.symbol, at).unwrap()).expect("a snapshot comes first");
                book.set(0, numbers(rows.bid_prices, at), numbers(rows.bid_quantities, at));
                book.set(1, numbers(rows.ask_prices, at), numbers(rows.ask_quantities, at));
                checks.push(book.check([rows.checksum, rows.price_digits, rows.quantity_digits].map(|column| integer(column, at))));
            }
        }
        checks
    }
}

impl Sides {
    fn set(&mut self, side: usize, prices: &[i128], quantities: &[i128]) {
        let levels = &mut self.sides[side];
        for (price, quantity) in prices.iter().zip(quantities) {
            if *quantity == 0 {
                levels.remove(price);
            } else {
                levels.insert(*price, *quantity);
            }
        }
        while levels.len() > self.depth {
            if side == 0 {
                levels.pop_first()
            } else {
                levels.pop_last()
            };
        }
    }

    fn check(&self, [sum, price, quantity]: [Option<i64>; 3]) -> Option<bool> {
        let sum = sum?;
        let mut crc = Crc::new();
        let mut put = |number: i128, digits: Option<i64>| {
            let text = format!("{}", number / 10_i128.pow(u32::try_from(i64::from(SCALE) - digits.unwrap()).unwrap()));
            crc.update(text.as_bytes());
        };
        let [bids, asks] = &self.sides;
        for (level, size) in asks.iter().take(10).chain(bids.iter().rev().take(10)) {
            put(*level, price);
            put(*size, quantity);
        }
        Some(i64::from(crc.sum()) == sum)
    }
}

/// The frames that one of the recorded sockets received.
fn socket(text: &str) -> impl Iterator<Item = (Option<i64>, Option<&str>, &str)> {
    received(text).map(|(time, frame)| (time, None, frame))
}

#[test]
fn thirty_seconds_give_the_records_of_another_reader() {
    let names = ["thirty_seconds/KRAKEN.ws.48.0.gz", "thirty_seconds/KRAKEN.ws.49.0.gz", "thirty_seconds/KRAKEN.ws.50.0.gz"];
    let Some(sockets) = names.into_iter().map(recording).collect::<Option<Vec<_>>>() else { return };
    let (found, refused) = decode_all("kraken", sockets.iter().flat_map(|text| socket(text)));
    assert_eq!(refused, []);
    // The other reader counts snapshots and changes together: 4,279. It counts one ticker for each message, and one trade for
    // each execution. The three states are those of the three connections.
    assert_eq!(["book_snapshot", "book_delta", "quote", "trade", "venue_status"].map(|kind| rows(&found, kind)), [10, 4_269, 18, 10, 3]);
    assert_eq!(found.len(), 5);
    let trades = TradeRows::of(&found["trade"]).unwrap();
    let mut ids: Vec<String> = (0..10).map(|at| format!("{} {}", label(trades.symbol, at).unwrap(), trades.trade_id.value(at))).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 10);
    let snapshots = BookSnapshotRows::of(&found["book_snapshot"]).unwrap();
    assert!((0..10).all(|at| integer(snapshots.depth, at) == Some(1_000) && snapshots.checksum.is_null(at)));
    assert!((0..10).all(|at| snapshots.price_digits.is_valid(at) && integer(snapshots.quantity_digits, at) == Some(8)));
    // A level is changed before it is received.
    let deltas = BookDeltaRows::of(&found["book_delta"]).unwrap();
    assert!((0..4_269).all(|at| deltas.event_time.value(at) < deltas.receive_time.value(at)));
}

#[test]
fn every_checksum_of_the_recording_is_that_of_the_book() {
    let Some(text) = recording("thirty_seconds/KRAKEN.ws.50.0.gz") else { return };
    let (mut dialect, mut books, mut checks) = (make("kraken").unwrap(), Books::default(), Vec::new());
    let mut records = Records::wanting(["book_delta", "book_snapshot"]);
    for (time, frame) in received(&text) {
        dialect.decode(FrameRef { receive_time: time, frame: 1, topic: None, payload: frame.as_bytes() }, &mut records).unwrap();
        checks.extend(books.take(&batches(&mut records)));
    }
    assert_eq!(checks.iter().filter(|check| **check == Some(true)).count(), 4_269);
    assert_eq!(checks.iter().filter(|check| check.is_none()).count(), 10);
    assert_eq!(checks.len(), 4_279);
    // Without one of the changes the checksums of its book tell.
    let (mut books, mut wrong, mut skipped) = (Books::default(), 0, false);
    for (time, frame) in received(&text) {
        if !skipped && frame.contains("[[\"354.15000000\",\"5.00000000\"") {
            skipped = true;
            continue;
        }
        dialect.decode(FrameRef { receive_time: time, frame: 1, topic: None, payload: frame.as_bytes() }, &mut records).unwrap();
        wrong += books.take(&batches(&mut records)).iter().filter(|check| **check == Some(false)).count();
    }
    assert!(skipped && wrong > 0);
}

#[test]
fn another_projects_pairs_agree() {
    for (file, dialect) in [("kraken", "kraken"), ("kraken_v2", "kraken"), ("cryptofacilities", "kraken_futures")] {
        let Some(text) = recording(&format!("normalised_pairs/{file}.jsonl")) else { return };
        let mut compared = 0;
        for (frames, expected) in pairs(&text) {
            for frame in frames {
                compared += check_pair(dialect, &frame, &expected);
            }
        }
        assert_eq!(
            compared,
            match file {
                "kraken" => 5,
                "kraken_v2" => 2,
                _ => 10,
            }
        );
    }
}

/// One frame against the records that another project's mapper gives; how many were compared.
fn check_pair(dialect: &str, frame: &Value, expected: &[Value]) -> usize {
    let result = decode(dialect, &frame.to_string());
    if frame["feed"] == "book" && frame.get("timestamp").is_none() {
        // A change of the book of early 2019 carries no time; the other project takes the one of its own clock.
        assert_eq!(result.unwrap_err().reason, "missing_field");
        return 0;
    }
    let (_, found) = result.unwrap();
    if expected.is_empty() {
        // The trades before the subscription, which have numbers of their own: the other project leaves them out.
        assert_eq!((frame["channel"].as_str(), frame["type"].as_str()), (Some("trade"), Some("snapshot")));
        assert_eq!(rows(&found, "trade"), 1);
    }
    let mut trades = 0;
    for record in expected {
        let time = |micros: Option<i64>| {
            let theirs = record["timestamp"].as_str().unwrap();
            assert_eq!(
                micros.map(display).map(|time| time.replace("000Z", "Z")).as_deref(),
                Some(theirs).map(|t| t.replace("000Z", "Z")).as_deref()
            );
        };
        match record["type"].as_str().unwrap() {
            "trade" => {
                let rows = TradeRows::of(&found["trade"]).unwrap();
                // Their amounts of inverse products are contracts.
                let amount = if rows.contracts.is_valid(trades) { rows.contracts } else { rows.quantity };
                assert!(near(number(rows.price, trades), &record["price"]) && near(number(amount, trades), &record["amount"]), "{record}");
                assert_eq!(label(rows.side, trades), record["side"].as_str());
                match record["id"].as_str() {
                    Some(id) => assert_eq!(rows.trade_id.value(trades), id),
                    // Where the venue has no identifier they have none, and we one of the time or the number in the feed.
                    None if dialect == "kraken" => {
                        assert_eq!(rows.trade_id.value(trades), format!("{}-{trades}", rows.event_time.value(trades)));
                    }
                    None => assert_eq!(rows.trade_id.value(trades), frame["seq"].to_string()),
                }
                time(integer(rows.event_time, trades));
                trades += 1;
            }
            "book_ticker" => {
                let rows = QuoteRows::of(&found["quote"]).unwrap();
                for (price, quantity, side) in [(rows.bid_price, rows.bid_quantity, "bid"), (rows.ask_price, rows.ask_quantity, "ask")] {
                    assert!(near(number(price, 0), &record[format!("{side}Price")]), "{record}");
                    // Their amounts are contracts of 1 USD.
                    let contracts = number(quantity, 0).unwrap().mul_rounded(number(price, 0).unwrap()).unwrap();
                    let theirs = record[format!("{side}Amount")].as_f64().unwrap();
                    assert!((contracts.to_string().parse::<f64>().unwrap() - theirs).abs() < 1e-6, "{record}");
                }
                time(integer(rows.event_time, 0));
            }
            "book_change" => {
                let (prices, times) = if record["isSnapshot"] == true {
                    let rows = BookSnapshotRows::of(&found["book_snapshot"]).unwrap();
                    ([rows.bid_prices, rows.bid_quantities, rows.ask_prices, rows.ask_quantities], rows.event_time)
                } else {
                    let rows = BookDeltaRows::of(&found["book_delta"]).unwrap();
                    ([rows.bid_prices, rows.bid_quantities, rows.ask_prices, rows.ask_quantities], rows.event_time)
                };
                for (columns, theirs) in prices.chunks(2).zip([&record["bids"], &record["asks"]]) {
                    let theirs = theirs.as_array().unwrap();
                    assert_eq!(numbers(columns[0], 0).len(), theirs.len());
                    for (at, level) in theirs.iter().enumerate() {
                        let ours = |column| Some(Decimal::from_units(numbers(column, 0)[at]));
                        assert!(near(ours(columns[0]), &level["price"]) && near(ours(columns[1]), &level["amount"]), "{record}");
                    }
                }
                time(integer(times, 0));
            }
            "derivative_ticker" => {
                let mark = MarkPriceRows::of(&found["mark_price"]).unwrap();
                assert!(near(number(mark.price, 0), &record["markPrice"]));
                time(integer(mark.event_time, 0));
                let interest = OpenInterestRows::of(&found["open_interest"]).unwrap();
                assert!(near(number(interest.contracts, 0), &record["openInterest"]));
                let funding = found.get("funding_rate").map(|rows| FundingRateRows::of(rows).unwrap());
                assert_eq!(funding.is_some(), record["fundingRate"].is_number());
                if let Some(rows) = funding {
                    // Until September 2022 they took the rate in money; ours is always the one relative to the price, rounded to
                    // twelve digits.
                    for (ours, theirs) in [
                        (number(rows.rate, 0), "relative_funding_rate"),
                        (number(rows.predicted_rate, 0), "relative_funding_rate_prediction"),
                    ] {
                        let ours: f64 = ours.unwrap().to_string().parse().unwrap();
                        assert!((ours - frame[theirs].as_f64().unwrap()).abs() <= 5e-13, "{frame}");
                    }
                    let next = display(integer(rows.next_funding_time, 0).unwrap());
                    assert_eq!(next.replace("000Z", "Z"), record["fundingTimestamp"].as_str().unwrap());
                }
            }
            other => panic!("unexpected {other}"),
        }
    }
    expected.len()
}

#[test]
fn the_newest_samples_are_decoded() {
    let Some(text) = recording("recent_samples/ws_2026_samples.jsonl") else { return };
    let samples = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|sample| sample["venue"] == "kraken");
    let mut kinds = Vec::new();
    for sample in samples {
        let (outcome, found) = decode("kraken", &sample["message"].to_string()).unwrap();
        let expected = &sample["expected"];
        match expected["kind"].as_str().unwrap() {
            "quote" => {
                let rows = QuoteRows::of(&found["quote"]).unwrap();
                for (ours, theirs) in
                    [(rows.bid_price, "bid"), (rows.bid_quantity, "bid_size"), (rows.ask_price, "ask"), (rows.ask_quantity, "ask_size")]
                {
                    assert_eq!(number(ours, 0), Some(d(expected[theirs].as_str().unwrap())));
                }
                assert_eq!(display(rows.event_time.value(0)), expected["timestamp"].as_str().unwrap());
            }
            // Bars are worked out here from trades.
            other => assert_eq!((other, outcome), ("bar", Outcome::Ignored)),
        }
        kinds.push(expected["kind"].clone());
    }
    assert_eq!(kinds, [json!("quote"), json!("bar")]);
}

/// Frames that no decoder may accept, made from the real ones.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let mut bad = Vec::new();
    for (dialect, frame) in FRAMES {
        let bytes = frame.as_bytes();
        for cut in [0, 1, bytes.len() / 4, bytes.len() / 2, bytes.len() - 2, bytes.len() - 1] {
            bad.push((dialect, bytes[..cut].to_vec()));
        }
        for (from, to) in [("\":", "\" "), (",\"", "\""), ("\"", ""), ("{", "["), ("]", "}")] {
            if frame.contains(from) {
                bad.push((dialect, frame.replacen(from, to, 1).into_bytes()));
            }
        }
        let mut flipped = bytes.to_vec();
        flipped[bytes.len() / 2] = 0xff;
        bad.push((dialect, flipped));
        bad.push((dialect, [bytes, b"{}"].concat()));
        bad.push((dialect, frame.replacen('"', "\"\u{1}", 1).into_bytes()));
    }
    bad
}

#[test]
fn malformed_frames_are_refused_and_leave_nothing() {
    let bad = malformed();
    assert!(bad.len() >= 300, "{}", bad.len());
    for (dialect, payload) in bad {
        let mut records = every_kind();
        let topic = Some(if dialect == "kraken" { "XBT/USD" } else { "PI_XBTUSD" });
        let frame = FrameRef { receive_time: Some(1), frame: 1, topic, payload: &payload };
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
    fn no_bytes_make_it_panic(which in 0..FRAMES.len(), damages in prop::collection::vec(damage(), 1..6), other: bool, topic: bool) {
        let (dialect, frame) = FRAMES[which];
        let dialect = if other { if dialect == "kraken" { "kraken_futures" } else { "kraken" } } else { dialect };
        let payload = damaged(frame.as_bytes().to_vec(), &damages);
        let mut records = every_kind();
        let frame = FrameRef { receive_time: None, frame: 1, topic: topic.then_some("PF_XBTUSD"), payload: &payload };
        match make(dialect).unwrap().decode(frame, &mut records) {
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
    fn numbers_survive_exactly(price in 1..10_i64.pow(15), quantity in 1..10_i64.pow(15), id in 0..i64::MAX, micros in 1..10_i64.pow(16), seller: bool) {
        let (price, quantity) = (Decimal::from_units(i128::from(price) * 10_000), Decimal::from_units(i128::from(quantity)));
        let (time, side) = (display(micros), if seller { "sell" } else { "buy" });
        let second = format!(
            r#"{{"channel":"trade","type":"update","data":[{{"symbol":"BTC/USD","side":"{side}","price":{price},"qty":{quantity},"trade_id":{id},"timestamp":"{time}"}}]}}"#
        );
        let first = format!(
            r#"[1,[["{price}","{quantity}","{}.{:06}","{}","l",""]],"trade","XBT/USD"]"#,
            micros / 1_000_000, micros % 1_000_000, &side[..1]
        );
        for (frame, expected) in [(second, id.to_string()), (first, format!("{micros}-0"))] {
            let (_, found) = decode("kraken", &frame).unwrap();
            let rows = TradeRows::of(&found["trade"]).unwrap();
            prop_assert_eq!((number(rows.price, 0), number(rows.quantity, 0)), (Some(price), Some(quantity)));
            prop_assert_eq!((rows.trade_id.value(0), rows.event_time.value(0)), (expected.as_str(), micros));
            prop_assert_eq!(label(rows.side, 0), Some(side));
        }
    }
}
