//! The dialects against real frames: recordings with counts worked out by others, another project's expectations, messages
//! as the venue's documentation has them, and frames damaged in every way.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, TimestampMicrosecondType};
use hashbrown::HashMap;
use model::Decimal;
use model::columns::{integer, label, number, numbers};
use model::dialect::{Dialect, FrameRef, Outcome, Records};
use model::kinds::{
    BookDeltaRows, BookSnapshotRows, FundingRateRows, IndexPriceRows, InstrumentRows, OpenInterestRows, QuoteRows, TradeRows,
    VenueStatusRows,
};
use model::time::display;
use proptest::prelude::*;
use serde_json::Value;

use crate::dialect::testing::{
    batches, d, damage, damaged, decode, decode_all, decode_as, every_kind, near, pairs, reason, received, recording, rows,
};
use crate::dialect::{Dialects, REASONS, make};

const MATCH: &str = r#"{"type":"match","trade_id":280232,"maker_order_id":"2a0da34e-61f7-4c36-88e5-c9dd15927b16","taker_order_id":"3c82abaa-c01e-4608-be59-6a1e69742891","side":"sell","size":"985","price":"0.00001305","product_id":"SKL-BTC","sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}"#;
const TICKER: &str = r#"{"type":"ticker","sequence":37475248783,"product_id":"ETH-USD","price":"1285.22","open_24h":"1310.79","volume_24h":"245532.79269678","low_24h":"1280.52","high_24h":"1313.8","volume_30d":"9788783.60117027","best_bid":"1285.04","best_bid_size":"0.46688654","best_ask":"1285.27","best_ask_size":"1.56637040","side":"buy","time":"2022-10-19T23:28:22.061769Z","trade_id":370843401,"last_size":"11.4396987"}"#;
const SNAPSHOT: &str = r#"{"type":"snapshot","product_id":"BTC-USD","bids":[["10101.10","0.45054140"],["10101","2"]],"asks":[["10102.55","0.57753524"]],"time":"2023-03-01T12:00:00.5Z"}"#;
const UPDATE: &str = r#"{"type":"l2update","product_id":"BTC-USD","changes":[["buy","22356.270000","0.00000000"],["sell","22356.300000","1.00000000"],["buy","22356.1","0.5"]],"time":"2022-08-04T15:25:05.010758Z"}"#;
const BOOK: &str = r#"{"bids":[["19010.8","0.61",3],["19010.7","1",1]],"asks":[["19012.95","0.00010000",1]],"sequence":13051505638,"auction_mode":false,"auction":null,"time":"2022-07-04T10:00:00Z"}"#;
const TRADES: &str = r#"[{"trade_id":74,"side":"sell","size":"0.01000000","price":"10.00000000","time":"2014-11-07T22:19:28.578544Z"},{"trade_id":73,"side":"buy","size":"0.25","price":"9.99","time":"2014-11-07T22:19:27Z"}]"#;
const MARKET_TRADES: &str = r#"{"channel":"market_trades","client_id":"","timestamp":"2026-08-12T19:27:48.364886251Z","sequence_num":2,"events":[{"type":"update","trades":[{"product_id":"BTC-USD","trade_id":"1069726293","price":"63310.25","size":"0.00000012","time":"2026-08-12T19:27:48.298771Z","side":"BUY"},{"product_id":"ETH-USD","trade_id":"88","price":"4000.5","size":"2","time":"2026-08-12T19:27:48.266642Z","side":"SELL"}]}]}"#;
const LEVEL2: &str = r#"{"channel":"l2_data","client_id":"","timestamp":"2023-02-09T20:32:50.714964855Z","sequence_num":0,"events":[{"type":"snapshot","product_id":"BTC-USD","updates":[{"side":"bid","event_time":"1970-01-01T00:00:00Z","price_level":"21921.73","new_quantity":"0.06317902"},{"side":"bid","event_time":"1970-01-01T00:00:00Z","price_level":"21921.3","new_quantity":"0.02"},{"side":"offer","event_time":"1970-01-01T00:00:00Z","price_level":"21924","new_quantity":"1.5"}]}]}"#;
const LEVEL2_UPDATE: &str = r#"{"channel":"l2_data","client_id":"","timestamp":"2026-04-07T14:30:01.556789Z","sequence_num":1,"events":[{"type":"update","product_id":"BTC-USD","updates":[{"side":"bid","event_time":"2026-04-07T14:30:01.456789Z","price_level":"68900.00","new_quantity":"2.00000000"},{"side":"offer","event_time":"2026-04-07T14:30:01.4Z","price_level":"68901.00","new_quantity":"0.00000000"}]}]}"#;
const TICKERS: &str = r#"{"channel":"ticker","client_id":"","timestamp":"2023-02-09T20:30:37.167359596Z","sequence_num":0,"events":[{"type":"snapshot","tickers":[{"type":"ticker","product_id":"BTC-USD","price":"21932.98","volume_24_h":"16038.28770938","low_24_h":"21835.29","high_24_h":"23011.18","low_52_w":"15460","high_52_w":"48240","price_percent_chg_24_h":"-4.15775596190603","best_bid":"21931.98","best_bid_quantity":"8000.21","best_ask":"21933.98","best_ask_quantity":"8038.07770938"}]}]}"#;
const STATUS: &str = r#"{"channel":"status","client_id":"","timestamp":"2023-02-09T20:29:49.753424311Z","sequence_num":0,"events":[{"type":"snapshot","products":[{"product_type":"SPOT","id":"BTC-USD","base_currency":"BTC","quote_currency":"USD","base_increment":"0.00000001","quote_increment":"0.01","display_name":"BTC/USD","status":"online","status_message":"","min_market_funds":"1"},{"product_type":"SPOT","id":"XRP-USD","base_currency":"XRP","quote_currency":"USD","status":"delisted","status_message":"gone"},{"product_type":"FUTURE","id":"BIT-24APR26-CDE","base_currency":"","quote_currency":"USD","status":"online"}]}]}"#;
const PRODUCT_BOOK: &str = r#"{"pricebook":{"product_id":"BTC-USD","bids":[{"price":"68923.66","size":"0.17189468"},{"price":"68923","size":"0.05795895"}],"asks":[{"price":"68923.67","size":"0.16987193"}],"time":"2026-04-07T00:28:59.662782Z"},"last":"68923.665","mid_market":"68923.665","spread_bps":"0.00145","spread_absolute":"0.01"}"#;
const PRODUCTS: &str = r#"{"products":[
    {"product_id":"BTC-USD","price":"68930","base_increment":"0.00000001","quote_increment":"0.01","price_increment":"0.01","status":"online","trading_disabled":false,"cancel_only":true,"product_type":"SPOT","quote_currency_id":"USD","base_currency_id":"BTC","product_venue":"CBE","future_product_details":null},
    {"product_id":"BIP-20DEC30-CDE","base_increment":"1","quote_increment":"0.01","price_increment":"5","status":"","is_disabled":false,"product_type":"FUTURE","quote_currency_id":"USD","base_currency_id":"","product_venue":"FCM","future_product_details":{"venue":"cde","contract_code":"BIP","contract_expiry":"2030-12-20T16:00:00Z","contract_size":"0.01","contract_root_unit":"BTC","contract_expiry_type":"EXPIRING","perpetual_details":{"open_interest":"183283","funding_rate":"","funding_time":null},"funding_interval":"3600s","open_interest":"183283","funding_rate":"0.000013","funding_time":"2026-04-07T00:00:00Z","index_price":"68899.882564"}},
    {"product_id":"BIT-24APR26-CDE","base_increment":"1","price_increment":"5","status":"","product_type":"FUTURE","quote_currency_id":"USD","base_currency_id":"","future_product_details":{"contract_code":"BIT","contract_expiry":"2026-04-24T15:00:00Z","contract_size":"0.01","contract_root_unit":"BTC","contract_expiry_type":"EXPIRING","perpetual_details":{"open_interest":"35445","funding_rate":"","funding_time":null},"funding_interval":null,"open_interest":"35445","funding_rate":"","funding_time":null,"index_price":""}},
    {"product_id":"BTI-24APR26-CDE","base_increment":"1","price_increment":"5","status":"","product_type":"FUTURE","quote_currency_id":"USD","base_currency_id":"","future_product_details":{"contract_code":"BTI","contract_expiry":"2026-04-24T15:00:00Z","contract_size":"1","contract_root_unit":"BTC","contract_expiry_type":"EXPIRING"}},
    {"product_id":"ETH-PERP-INTX","base_increment":"0.0001","quote_increment":"0.01","price_increment":"0.01","status":"","product_type":"FUTURE","quote_currency_id":"USDC","base_currency_id":"","product_venue":"INTX","future_product_details":{"venue":"","contract_code":"ETH","contract_expiry":null,"contract_size":"1","contract_root_unit":"ETH","contract_expiry_type":"PERPETUAL","perpetual_details":{"open_interest":"1234.5","funding_rate":"0.000016","funding_time":"2024-04-09T09:00:00.000008Z","max_leverage":"10"}}},
    {"product_id":"WHO-KNOWS-1","status":"online","product_type":"PREDICTION","quote_currency_id":"USD"}
],"num_products":6}"#;

/// Frames of every kind, as the venue sends them.
pub(in crate::dialect) const FRAMES: [(&str, &str); 14] = [
    ("coinbase_exchange", MATCH),
    ("coinbase_exchange", TICKER),
    ("coinbase_exchange", SNAPSHOT),
    ("coinbase_exchange", UPDATE),
    ("coinbase_exchange", BOOK),
    ("coinbase_exchange", TRADES),
    (
        "coinbase_exchange",
        r#"{"type":"status","products":[{"id":"BTC-USD","base_currency":"BTC","quote_currency":"USD","base_increment":"0.00000001","quote_increment":"0.01","display_name":"BTC-USD","status":"online","status_message":null,"min_market_funds":"10","post_only":false,"limit_only":false,"cancel_only":false,"fx_stablecoin":false}],"currencies":[{"id":"USD","name":"United States Dollar","status":"online"}]}"#,
    ),
    ("coinbase_advanced", MARKET_TRADES),
    ("coinbase_advanced", LEVEL2),
    ("coinbase_advanced", LEVEL2_UPDATE),
    ("coinbase_advanced", TICKERS),
    ("coinbase_advanced", STATUS),
    ("coinbase_advanced", PRODUCT_BOOK),
    ("coinbase_advanced", PRODUCTS),
];

#[test]
fn a_match_is_a_trade_of_the_other_side() {
    let (outcome, found) = decode("coinbase_exchange", MATCH).unwrap();
    assert_eq!((outcome, found.len()), (Outcome::Decoded, 1));
    let rows = TradeRows::of(&found["trade"]).unwrap();
    assert_eq!((label(rows.venue, 0), label(rows.market, 0), label(rows.symbol, 0)), (Some("coinbase"), Some("spot"), Some("SKL-BTC")));
    assert_eq!((rows.trade_id.value(0), rows.fills.value(0)), ("280232", 1));
    // The maker sold, so the taker bought.
    assert_eq!(label(rows.side, 0), Some("buy"));
    assert_eq!((number(rows.price, 0), number(rows.quantity, 0), number(rows.contracts, 0)), (Some(d("0.00001305")), Some(d("985")), None));
    assert_eq!(display(rows.event_time.value(0)), "2021-04-17T16:43:37.089723Z");
    assert_eq!((integer(rows.receive_time, 0), integer(rows.frame, 0)), (Some(7_000_000), Some(3)));
    let last = MATCH.replace("\"match\"", "\"last_match\"").replace("\"sell\"", "\"buy\"");
    let (_, found) = decode("coinbase_exchange", &last).unwrap();
    assert_eq!(label(TradeRows::of(&found["trade"]).unwrap().side, 0), Some("sell"));
}

#[test]
fn trades_of_advanced_trade_are_put_in_order_of_time() {
    let (_, found) = decode("coinbase_advanced", MARKET_TRADES).unwrap();
    let rows = TradeRows::of(&found["trade"]).unwrap();
    assert_eq!([rows.trade_id.value(0), rows.trade_id.value(1)], ["88", "1069726293"]);
    assert_eq!([label(rows.side, 0), label(rows.side, 1)], [Some("buy"), Some("sell")]);
    assert_eq!([label(rows.symbol, 0), label(rows.symbol, 1)], [Some("ETH-USD"), Some("BTC-USD")]);
    assert_eq!([number(rows.price, 0), number(rows.quantity, 0)], [Some(d("4000.5")), Some(d("2"))]);
    assert_eq!([number(rows.price, 1), number(rows.quantity, 1)], [Some(d("63310.25")), Some(d("0.00000012"))]);
    // The time of the trade, not that of the message.
    assert_eq!(display(rows.event_time.value(1)), "2026-08-12T19:27:48.298771Z");
    // Of one time the identifiers tell the order.
    let same = MARKET_TRADES.replace("48.266642", "48.298771");
    let (_, found) = decode("coinbase_advanced", &same).unwrap();
    assert_eq!(TradeRows::of(&found["trade"]).unwrap().trade_id.value(0), "88");
    // What comes oldest first stays so.
    let turned = MARKET_TRADES.replace("48.266642", "48.4");
    let (_, found) = decode("coinbase_advanced", &turned).unwrap();
    assert_eq!(TradeRows::of(&found["trade"]).unwrap().trade_id.value(0), "1069726293");
}

#[test]
fn trades_of_answers() {
    let (_, found) = decode_as("coinbase_exchange", TRADES, None, Some("btc-usd@trades")).unwrap();
    let rows = TradeRows::of(&found["trade"]).unwrap();
    assert_eq!([rows.trade_id.value(0), rows.trade_id.value(1)], ["73", "74"]);
    assert_eq!([label(rows.side, 0), label(rows.side, 1)], [Some("sell"), Some("buy")]);
    assert_eq!((label(rows.symbol, 1), number(rows.price, 1), number(rows.quantity, 1)), (Some("BTC-USD"), Some(d("10")), Some(d("0.01"))));
    assert_eq!(display(rows.event_time.value(1)), "2014-11-07T22:19:28.578544Z");
    assert_eq!(reason("coinbase_exchange", TRADES), "missing_field");
    // Trades at the price of the best ask, said to be of the side SELL: it is the maker's here, too.
    let answer = r#"{"trades":[{"trade_id":"995098663","product_id":"BTC-USD","price":"68923.67","size":"0.00064","time":"2026-04-07T00:28:58.544778Z","side":"SELL","bid":"","ask":"","exchange":"coinbase"},{"trade_id":"995098661","product_id":"BTC-USD","price":"68924.94","size":"0.01450854","time":"2026-04-07T00:28:57.296283Z","side":"BUY","bid":"","ask":"","exchange":"coinbase"}],"best_bid":"68923.66","best_ask":"68923.67"}"#;
    let (_, found) = decode("coinbase_advanced", answer).unwrap();
    let rows = TradeRows::of(&found["trade"]).unwrap();
    assert_eq!([rows.trade_id.value(0), rows.trade_id.value(1)], ["995098661", "995098663"]);
    assert_eq!((label(rows.side, 1), number(rows.price, 1)), (Some("buy"), Some(d("68923.67"))));
    assert_eq!(found.len(), 1);
}

#[test]
fn quotes_have_no_number_and_sizes_where_they_are_sent() {
    let (_, found) = decode("coinbase_exchange", TICKER).unwrap();
    let rows = QuoteRows::of(&found["quote"]).unwrap();
    assert_eq!((label(rows.venue, 0), label(rows.market, 0), label(rows.symbol, 0)), (Some("coinbase"), Some("spot"), Some("ETH-USD")));
    let sides =
        |rows: &QuoteRows<'_>| [rows.bid_price, rows.bid_quantity, rows.ask_price, rows.ask_quantity].map(|column| number(column, 0));
    assert_eq!(sides(&rows), ["1285.04", "0.46688654", "1285.27", "1.5663704"].map(|text| Some(d(text))));
    // The ticker's number is that of all messages of the product.
    assert_eq!((integer(rows.sequence, 0), integer(rows.frame, 0), integer(rows.receive_time, 0)), (None, Some(3), Some(7_000_000)));
    assert_eq!(integer(rows.event_time, 0).map(display).as_deref(), Some("2022-10-19T23:28:22.061769Z"));

    let old = TICKER.replace(r#""best_bid_size":"0.46688654","#, "").replace(r#","best_ask_size":"1.56637040""#, "");
    let (_, found) = decode("coinbase_exchange", &old).unwrap();
    assert_eq!(sides(&QuoteRows::of(&found["quote"]).unwrap()), [Some(d("1285.04")), None, Some(d("1285.27")), None]);
    let one_sided = TICKER.replace("\"0.46688654\"", "\"0.00000000\"").replace("\"1285.27\"", "\"0\"");
    let (_, found) = decode("coinbase_exchange", &one_sided).unwrap();
    assert_eq!(sides(&QuoteRows::of(&found["quote"]).unwrap()), [None; 4]);
    let untimed = TICKER.replace(r#""time":"2022-10-19T23:28:22.061769Z","#, "");
    let (_, found) = decode("coinbase_exchange", &untimed).unwrap();
    assert!(QuoteRows::of(&found["quote"]).unwrap().event_time.is_null(0));
    assert_eq!(decode_as("coinbase_exchange", &untimed, None, None).unwrap_err().reason, "no_time");

    let (_, found) = decode("coinbase_advanced", TICKERS).unwrap();
    let rows = QuoteRows::of(&found["quote"]).unwrap();
    assert_eq!(sides(&rows), ["21931.98", "8000.21", "21933.98", "8038.07770938"].map(|text| Some(d(text))));
    assert_eq!((label(rows.symbol, 0), integer(rows.sequence, 0)), (Some("BTC-USD"), None));
    assert_eq!(integer(rows.event_time, 0).map(display).as_deref(), Some("2023-02-09T20:30:37.167359Z"));

    // Batches tell no bid and ask any more.
    let bare = TICKERS.replace("best_", "worst_");
    assert_eq!(reason("coinbase_advanced", &bare), "missing_field");
    assert_eq!(
        decode("coinbase_advanced", &bare.replace("\"channel\":\"ticker\"", "\"channel\":\"ticker_batch\"")).unwrap().0,
        Outcome::Ignored
    );
    let batch = TICKERS.replace("\"channel\":\"ticker\"", "\"channel\":\"ticker_batch\"");
    assert_eq!(rows_of(&batch, "coinbase_advanced"), [("quote".into(), 1)]);
}

fn rows_of(frame: &str, dialect: &str) -> Vec<(String, usize)> {
    decode(dialect, frame).unwrap().1.into_iter().map(|(kind, rows)| (kind, rows.num_rows())).collect()
}

#[test]
fn quotes_of_answers() {
    let ticker = r#"{"ask":"333.99","bid":"333.98","volume":"5957.11914015","trade_id":4729088,"price":"333.99","size":"0.193","time":"2015-11-14T20:46:03.511254Z"}"#;
    let (_, found) = decode_as("coinbase_exchange", ticker, None, Some("BTC-EUR")).unwrap();
    let rows = QuoteRows::of(&found["quote"]).unwrap();
    assert_eq!((number(rows.bid_price, 0), number(rows.ask_price, 0)), (Some(d("333.98")), Some(d("333.99"))));
    assert_eq!((number(rows.bid_quantity, 0), number(rows.ask_quantity, 0), label(rows.symbol, 0)), (None, None, Some("BTC-EUR")));
    let best = r#"{"pricebooks":[{"product_id":"BTC-USD","bids":[{"price":"68923.66","size":"0.17"}],"asks":[{"price":"68923.67","size":"0.16"}],"time":"2026-04-07T00:28:59.662782Z"},{"product_id":"ETH-USD","bids":[],"asks":[{"price":"2000","size":"3"}],"time":"2026-04-07T00:28:59Z"}]}"#;
    let (_, found) = decode("coinbase_advanced", best).unwrap();
    let rows = QuoteRows::of(&found["quote"]).unwrap();
    assert_eq!((number(rows.bid_price, 0), number(rows.ask_quantity, 0)), (Some(d("68923.66")), Some(d("0.16"))));
    assert_eq!((number(rows.bid_price, 1), number(rows.bid_quantity, 1), number(rows.ask_price, 1)), (None, None, Some(d("2000"))));
    assert_eq!(found.len(), 1);
}

fn units(texts: &[&str]) -> Vec<i128> {
    texts.iter().map(|text| d(text).units()).collect()
}

#[test]
fn books_of_exchange() {
    let (_, found) = decode("coinbase_exchange", SNAPSHOT).unwrap();
    let rows = BookSnapshotRows::of(&found["book_snapshot"]).unwrap();
    assert_eq!((label(rows.venue, 0), label(rows.market, 0), label(rows.symbol, 0)), (Some("coinbase"), Some("spot"), Some("BTC-USD")));
    assert_eq!((integer(rows.sequence, 0), label(rows.origin, 0), rows.contracts.value(0)), (None, Some("venue"), false));
    assert_eq!((integer(rows.depth, 0), integer(rows.checksum, 0), integer(rows.price_digits, 0)), (None, None, None));
    assert_eq!(
        (numbers(rows.bid_prices, 0), numbers(rows.bid_quantities, 0)),
        (&units(&["10101.1", "10101"])[..], &units(&["0.4505414", "2"])[..])
    );
    assert_eq!((numbers(rows.ask_prices, 0), numbers(rows.ask_quantities, 0)), (&units(&["10102.55"])[..], &units(&["0.57753524"])[..]));
    assert_eq!(integer(rows.event_time, 0).map(display).as_deref(), Some("2023-03-01T12:00:00.500000Z"));
    let untimed = SNAPSHOT.replace(r#","time":"2023-03-01T12:00:00.5Z""#, "");
    let (_, found) = decode("coinbase_exchange", &untimed).unwrap();
    assert!(BookSnapshotRows::of(&found["book_snapshot"]).unwrap().event_time.is_null(0));
    assert_eq!(decode_as("coinbase_exchange", &untimed, None, None).unwrap_err().reason, "no_time");
    // Out of order, the best come first all the same.
    let turned = SNAPSHOT.replace("\"10101\",\"2\"", "\"10101.5\",\"2\"");
    let (_, found) = decode("coinbase_exchange", &turned).unwrap();
    let rows = BookSnapshotRows::of(&found["book_snapshot"]).unwrap();
    assert_eq!(
        (numbers(rows.bid_prices, 0), numbers(rows.bid_quantities, 0)),
        (&units(&["10101.5", "10101.1"])[..], &units(&["2", "0.4505414"])[..])
    );

    let (_, found) = decode("coinbase_exchange", UPDATE).unwrap();
    let rows = BookDeltaRows::of(&found["book_delta"]).unwrap();
    assert_eq!((label(rows.venue, 0), label(rows.market, 0), label(rows.symbol, 0)), (Some("coinbase"), Some("spot"), Some("BTC-USD")));
    assert_eq!([rows.first_sequence, rows.last_sequence, rows.previous_sequence].map(|column| integer(column, 0)), [None; 3]);
    assert_eq!(
        (numbers(rows.bid_prices, 0), numbers(rows.bid_quantities, 0)),
        (&units(&["22356.27", "22356.1"])[..], &units(&["0", "0.5"])[..])
    );
    assert_eq!((numbers(rows.ask_prices, 0), numbers(rows.ask_quantities, 0)), (&units(&["22356.3"])[..], &units(&["1"])[..]));
    assert_eq!((rows.contracts.value(0), integer(rows.checksum, 0), integer(rows.quantity_digits, 0)), (false, None, None));
    assert_eq!(display(rows.event_time.value(0)), "2022-08-04T15:25:05.010758Z");
    assert_eq!((integer(rows.receive_time, 0), integer(rows.frame, 0)), (Some(7_000_000), Some(3)));
    // A change whose time the venue does not know is a change.
    let untimed = UPDATE.replace("2022-08-04T15:25:05.010758Z", "0001-01-01T00:00:00.000000Z");
    let (_, found) = decode("coinbase_exchange", &untimed).unwrap();
    assert_eq!(BookDeltaRows::of(&found["book_delta"]).unwrap().event_time.value(0), 7_000_000);
    assert_eq!(decode_as("coinbase_exchange", &untimed, None, None).unwrap_err().reason, "no_time");
}

#[test]
fn books_of_answers() {
    let (_, found) = decode_as("coinbase_exchange", BOOK, None, Some("BTC-USD")).unwrap();
    let rows = BookSnapshotRows::of(&found["book_snapshot"]).unwrap();
    assert_eq!((integer(rows.sequence, 0), label(rows.symbol, 0)), (Some(13_051_505_638), Some("BTC-USD")));
    assert_eq!(
        (numbers(rows.bid_prices, 0), numbers(rows.ask_quantities, 0)),
        (&units(&["19010.8", "19010.7"])[..], &units(&["0.0001"])[..])
    );
    assert_eq!(integer(rows.event_time, 0).map(display).as_deref(), Some("2022-07-04T10:00:00.000000Z"));
    assert_eq!(reason("coinbase_exchange", BOOK), "missing_field");
    // A book of single orders has prices more than once.
    let orders = BOOK.replace("\"0.00010000\",1", "\"0.00010000\",\"3b0f1225-7f84-490b-a29f-0faef9de823a\"");
    let refused = decode_as("coinbase_exchange", &orders, None, Some("BTC-USD")).unwrap_err();
    assert_eq!(refused.reason, "wrong_type");
    assert!(refused.detail.contains("an order"), "{refused:?}");

    let (_, found) = decode("coinbase_advanced", PRODUCT_BOOK).unwrap();
    let rows = BookSnapshotRows::of(&found["book_snapshot"]).unwrap();
    assert_eq!((integer(rows.sequence, 0), label(rows.symbol, 0), label(rows.origin, 0)), (None, Some("BTC-USD"), Some("venue")));
    assert_eq!(
        (numbers(rows.bid_prices, 0), numbers(rows.bid_quantities, 0)),
        (&units(&["68923.66", "68923"])[..], &units(&["0.17189468", "0.05795895"])[..])
    );
    assert_eq!((numbers(rows.ask_prices, 0), numbers(rows.ask_quantities, 0)), (&units(&["68923.67"])[..], &units(&["0.16987193"])[..]));
    assert_eq!(integer(rows.event_time, 0).map(display).as_deref(), Some("2026-04-07T00:28:59.662782Z"));
}

#[test]
fn books_of_advanced_trade() {
    let (_, found) = decode("coinbase_advanced", LEVEL2).unwrap();
    assert_eq!(found.len(), 1);
    let rows = BookSnapshotRows::of(&found["book_snapshot"]).unwrap();
    assert_eq!((label(rows.market, 0), label(rows.symbol, 0), integer(rows.sequence, 0)), (Some("spot"), Some("BTC-USD"), None));
    assert_eq!(
        (numbers(rows.bid_prices, 0), numbers(rows.bid_quantities, 0)),
        (&units(&["21921.73", "21921.3"])[..], &units(&["0.06317902", "0.02"])[..])
    );
    assert_eq!((numbers(rows.ask_prices, 0), numbers(rows.ask_quantities, 0)), (&units(&["21924"])[..], &units(&["1.5"])[..]));
    assert_eq!(integer(rows.event_time, 0).map(display).as_deref(), Some("2023-02-09T20:32:50.714964Z"));

    let (_, found) = decode("coinbase_advanced", LEVEL2_UPDATE).unwrap();
    assert_eq!(found.len(), 1);
    let rows = BookDeltaRows::of(&found["book_delta"]).unwrap();
    assert_eq!([rows.first_sequence, rows.last_sequence, rows.previous_sequence].map(|column| integer(column, 0)), [None; 3]);
    assert_eq!((numbers(rows.bid_prices, 0), numbers(rows.bid_quantities, 0)), (&units(&["68900"])[..], &units(&["2"])[..]));
    assert_eq!((numbers(rows.ask_prices, 0), numbers(rows.ask_quantities, 0)), (&units(&["68901"])[..], &units(&["0"])[..]));
    // The latest of the levels, not the message.
    assert_eq!(display(rows.event_time.value(0)), "2026-04-07T14:30:01.456789Z");
    let untimed = LEVEL2_UPDATE.replace("2026-04-07T14:30:01.456789Z", "0001-01-01T00:00:00Z").replace("2026-04-07T14:30:01.4Z", "");
    let (_, found) = decode("coinbase_advanced", &untimed).unwrap();
    assert_eq!(display(BookDeltaRows::of(&found["book_delta"]).unwrap().event_time.value(0)), "2026-04-07T14:30:01.556789Z");
    // Two events in one message: both or none.
    let event = LEVEL2_UPDATE.split_once("\"events\":[").unwrap().1.strip_suffix("]}").unwrap();
    let two = LEVEL2_UPDATE.replace(event, &format!("{event},{}", event.replace("BTC-USD", "ETH-USD")));
    assert_eq!(rows_of(&two, "coinbase_advanced"), [("book_delta".into(), 2)]);
    assert_eq!(reason("coinbase_advanced", &two.replace("ETH-USD", "ETHUSD")), "unknown_instrument");
    // A level of a snapshot without size is none.
    let empty = LEVEL2.replace("\"0.02\"", "\"0\"");
    let (_, found) = decode("coinbase_advanced", &empty).unwrap();
    assert_eq!(numbers(BookSnapshotRows::of(&found["book_snapshot"]).unwrap().bid_prices, 0).len(), 1);
}

/// A decoder that has learned the products.
fn learned() -> Box<dyn Dialect> {
    let mut dialects = Dialects::default();
    dialects.learn("coinbase_advanced", PRODUCTS.as_bytes()).unwrap();
    dialects.make("coinbase_advanced").unwrap()
}

fn decode_with(dialect: &mut dyn Dialect, payload: &str) -> BTreeMap<String, RecordBatch> {
    let mut records = every_kind();
    let frame = FrameRef { receive_time: Some(7_000_000), frame: 3, topic: None, payload: payload.as_bytes() };
    dialect.decode(frame, &mut records).unwrap();
    batches(&mut records)
}

#[test]
fn a_listing_makes_instruments_of_futures() {
    let (_, found) = decode("coinbase_advanced", PRODUCTS).unwrap();
    assert_eq!(["instrument", "open_interest", "funding_rate", "index_price"].map(|kind| rows(&found, kind)), [5, 3, 2, 1]);
    let rows = InstrumentRows::of(&found["instrument"]).unwrap();
    let symbols: Vec<_> = (0..5).map(|row| (label(rows.market, row).unwrap(), label(rows.symbol, row).unwrap())).collect();
    // Two futures of bitcoin expire on one day; the code of the contract tells them apart.
    assert_eq!(
        symbols,
        [
            ("spot", "BTC-USD"),
            ("future", "BIP-USD-301220"),
            ("future", "BIT-USD-260424"),
            ("future", "BTI-USD-260424"),
            ("perpetual", "ETH-USDC-PERP")
        ]
    );
    assert_eq!([0, 1, 4].map(|row| rows.venue_symbol.value(row)), ["BTC-USD", "BIP-20DEC30-CDE", "ETH-PERP-INTX"]);
    assert_eq!([0, 1, 4].map(|row| label(rows.base, row).unwrap()), ["BTC", "BTC", "ETH"]);
    assert_eq!([0, 1, 4].map(|row| label(rows.settlement, row)), [None, Some("USD"), Some("USDC")]);
    assert_eq!([0, 1, 4].map(|row| label(rows.status, row)), [Some("cancel_only"), None, None]);
    assert_eq!([0, 1, 4].map(|row| number(rows.tick_size, row)), [Some(d("0.01")), Some(d("5")), Some(d("0.01"))]);
    assert_eq!([0, 1, 4].map(|row| number(rows.lot_size, row)), [Some(d("0.00000001")), Some(d("1")), Some(d("0.0001"))]);
    assert_eq!([0, 1, 3, 4].map(|row| number(rows.contract_size, row)), [None, Some(d("0.01")), Some(d("1")), Some(d("1"))]);
    assert_eq!([0, 2, 4].map(|row| integer(rows.expiry, row).map(display)), [None, Some("2026-04-24T15:00:00.000000Z".into()), None]);
    assert!((0..5).all(|row| !rows.inverse.value(row) && rows.strike.is_null(row) && rows.option_type.is_null(row)));
    // The answer has no time: what it says is true when it comes.
    assert_eq!((rows.event_time.value(0), integer(rows.receive_time, 0)), (7_000_000, Some(7_000_000)));
    assert_eq!(decode_as("coinbase_advanced", PRODUCTS, None, None).unwrap_err().reason, "no_time");

    let interest = OpenInterestRows::of(&found["open_interest"]).unwrap();
    let amounts = |row| [interest.contracts, interest.base, interest.quote].map(|column| number(column, row));
    assert_eq!(amounts(0), [Some(d("183283")), Some(d("1832.83")), None]);
    assert_eq!(amounts(2), [None, Some(d("1234.5")), None]);
    assert_eq!(label(interest.symbol, 2), Some("ETH-USDC-PERP"));
    let funding = FundingRateRows::of(&found["funding_rate"]).unwrap();
    assert_eq!((label(funding.symbol, 0), number(funding.rate, 0)), (Some("BIP-USD-301220"), Some(d("0.000013"))));
    assert_eq!((integer(funding.interval_seconds, 0), integer(funding.next_funding_time, 0)), (Some(3_600), None));
    assert_eq!(display(funding.event_time.value(0)), "2026-04-07T00:00:00.000000Z");
    assert_eq!((number(funding.rate, 1), integer(funding.interval_seconds, 1)), (Some(d("0.000016")), None));
    assert_eq!(display(funding.event_time.value(1)), "2024-04-09T09:00:00.000008Z");
    assert!(funding.predicted_rate.is_null(0));
    let index = IndexPriceRows::of(&found["index_price"]).unwrap();
    assert_eq!((label(index.symbol, 0), number(index.price, 0)), (Some("BIP-USD-301220"), Some(d("68899.882564"))));

    // One product alone, and the list of Exchange.
    let one = PRODUCTS.lines().nth(1).unwrap().trim().trim_end_matches(',');
    assert_eq!(rows_of(one, "coinbase_advanced"), [("instrument".into(), 1)]);
    let exchange = r#"{"id":"BTC-GBP","base_currency":"BTC","quote_currency":"GBP","base_min_size":"0.0001","quote_increment":"0.01","base_increment":"0.00000001","display_name":"BTC/GBP","status":"online","status_message":"","trading_disabled":false}"#;
    for answer in [exchange.into(), format!("[{exchange}]")] {
        let (_, found) = decode("coinbase_exchange", &answer).unwrap();
        let rows = InstrumentRows::of(&found["instrument"]).unwrap();
        assert_eq!(
            (label(rows.symbol, 0), label(rows.status, 0), number(rows.tick_size, 0)),
            (Some("BTC-GBP"), Some("online"), Some(d("0.01")))
        );
    }
}

#[test]
fn contracts_are_counted_in_the_base_asset() {
    let mut dialect = learned();
    let trades = MARKET_TRADES.replace("BTC-USD", "BIT-24APR26-CDE").replace("0.00000012", "7").replace("ETH-USD", "ETH-PERP-INTX");
    let found = decode_with(&mut *dialect, &trades);
    let rows = TradeRows::of(&found["trade"]).unwrap();
    assert_eq!((label(rows.market, 1), label(rows.symbol, 1)), (Some("future"), Some("BIT-USD-260424")));
    assert_eq!((number(rows.contracts, 1), number(rows.quantity, 1)), (Some(d("7")), Some(d("0.07"))));
    assert_eq!((label(rows.symbol, 0), number(rows.contracts, 0), number(rows.quantity, 0)), (Some("ETH-USDC-PERP"), None, Some(d("2"))));
    let found = decode_with(&mut *dialect, &TICKERS.replace("BTC-USD", "BIP-20DEC30-CDE"));
    let rows = QuoteRows::of(&found["quote"]).unwrap();
    assert_eq!((number(rows.bid_price, 0), number(rows.bid_quantity, 0)), (Some(d("21931.98")), Some(d("80.0021"))));
    for (frame, kind) in [(LEVEL2, "book_snapshot"), (LEVEL2_UPDATE, "book_delta"), (PRODUCT_BOOK, "book_snapshot")] {
        let base = decode_with(&mut *dialect, frame);
        let contracts = decode_with(&mut *dialect, &frame.replace("BTC-USD", "BIT-24APR26-CDE"));
        let sizes = |found: &BTreeMap<String, RecordBatch>, column: &str| {
            let list = found[kind].column_by_name(column).unwrap().as_list::<i32>().value(0);
            list.as_primitive::<Decimal128Type>().values().to_vec()
        };
        for column in ["bid_quantities", "ask_quantities"] {
            let hundredth: Vec<i128> = sizes(&base, column).into_iter().map(|size| size / 100).collect();
            assert_eq!(sizes(&contracts, column), hundredth, "{frame}");
        }
        assert_eq!(sizes(&contracts, "bid_prices"), sizes(&base, "bid_prices"));
        let flag = contracts[kind].column_by_name("contracts").unwrap();
        assert!(!flag.as_boolean().value(0));
    }
    // Without the listing nobody knows what a contract is.
    assert_eq!(reason("coinbase_advanced", &trades), "unknown_instrument");
    assert_eq!(reason("coinbase_exchange", &MATCH.replace("SKL-BTC", "BIT-24APR26-CDE")), "unknown_instrument");
    let perpetual = MARKET_TRADES.replace("BTC-USD", "BTC-PERP-INTX");
    assert_eq!(rows_of(&perpetual, "coinbase_advanced"), [("trade".into(), 2)]);
    assert!(Dialects::default().learn("coinbase_advanced", b"{}").unwrap_err().contains("no listing"));
    let bad = PRODUCTS.replace("\"contract_size\":\"0.01\"", "\"contract_size\":\"much\"");
    assert!(Dialects::default().learn("coinbase_advanced", bad.as_bytes()).unwrap_err().contains("contract size"));
    assert_eq!(reason("coinbase_advanced", &bad), "bad_number");
}

#[test]
fn states_of_products() {
    let (_, found) = decode("coinbase_advanced", STATUS).unwrap();
    let rows = VenueStatusRows::of(&found["venue_status"]).unwrap();
    assert_eq!(found.len(), 1);
    // The future is in no listing here.
    assert_eq!((0..rows.status.len()).map(|row| label(rows.status, row)).collect::<Vec<_>>(), [Some("online"), Some("delisted")]);
    assert_eq!((label(rows.symbol, 1), label(rows.market, 1), rows.message.value(1)), (Some("XRP-USD"), Some("spot"), "gone"));
    assert!(rows.message.is_null(0));
    assert_eq!(integer(rows.event_time, 0).map(display).as_deref(), Some("2023-02-09T20:29:49.753424Z"));
    assert_eq!(decode_with(&mut *learned(), STATUS)["venue_status"].num_rows(), 3);
    let exchange = FRAMES[6].1;
    let (_, found) = decode("coinbase_exchange", exchange).unwrap();
    let rows = VenueStatusRows::of(&found["venue_status"]).unwrap();
    assert_eq!((label(rows.status, 0), label(rows.symbol, 0), integer(rows.event_time, 0)), (Some("online"), Some("BTC-USD"), None));
    assert_eq!((integer(rows.receive_time, 0), label(rows.venue, 0)), (Some(7_000_000), Some("coinbase")));
    assert_eq!(decode_as("coinbase_exchange", exchange, None, None).unwrap_err().reason, "no_time");
    for restriction in ["post_only", "limit_only", "cancel_only"] {
        let restricted = exchange.replace(&format!("\"{restriction}\":false"), &format!("\"{restriction}\":true"));
        let (_, found) = decode("coinbase_exchange", &restricted).unwrap();
        assert_eq!(label(VenueStatusRows::of(&found["venue_status"]).unwrap().status, 0), Some(restriction));
    }
}

#[test]
fn what_carries_no_record_is_ignored() {
    for (dialect, frame) in [
        ("coinbase_exchange", r#"{"type":"subscriptions","channels":[{"name":"level2","product_ids":["BAND-GBP"]}]}"#),
        (
            "coinbase_exchange",
            r#"{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD","time":"2014-11-07T08:19:28.464459Z"}"#,
        ),
        (
            "coinbase_exchange",
            r#"{"type":"received","time":"2014-11-07T08:19:27.028459Z","product_id":"BTC-USD","sequence":10,"order_id":"d50ec984","size":"1.34","price":"502.1","side":"buy","order_type":"limit"}"#,
        ),
        (
            "coinbase_exchange",
            r#"{"type":"rfq_match","maker_order_id":"ac9","taker_order_id":"132","time":"2014-11-07T08:19:27.028459Z","trade_id":30,"product_id":"BTC-USD","size":"5.23512","price":"400.23","side":"sell"}"#,
        ),
        ("coinbase_exchange", r#"["match","BTC-USD","10","ac928c66","132fb6ae","400.23","5.23512","2014-11-07T08:19:27.028459Z"]"#),
        ("coinbase_exchange", r#"["open","BTC-USD","10","ac928c66","sell","400.23","5.23512","2014-11-07T08:19:27.028459Z"]"#),
        ("coinbase_exchange", "[]"),
        (
            "coinbase_advanced",
            r#"{"channel":"subscriptions","timestamp":"2026-08-12T19:27:48.098899106Z","sequence_num":1,"events":[{"subscriptions":{"market_trades":["BTC-USD"]}}]}"#,
        ),
        (
            "coinbase_advanced",
            r#"{"channel":"heartbeats","client_id":"","timestamp":"2023-06-23T20:31:26.122969572Z","sequence_num":0,"events":[{"current_time":"2023-06-23 20:31:56.121961769 +0000 UTC m=+91717.525857105","heartbeat_counter":3049}]}"#,
        ),
        (
            "coinbase_advanced",
            r#"{"channel":"candles","client_id":"","timestamp":"2023-06-09T20:19:35.39625135Z","sequence_num":0,"events":[{"type":"snapshot","candles":[]}]}"#,
        ),
        (
            "coinbase_advanced",
            r#"{"channel":"market_trades","client_id":"","timestamp":"2023-06-09T20:19:35.39625135Z","sequence_num":0,"events":[]}"#,
        ),
    ] {
        let (outcome, found) = decode(dialect, frame).unwrap();
        assert_eq!((outcome, found.len()), (Outcome::Ignored, 0), "{frame}");
    }
    // Nothing of an unwanted kind is read.
    for (dialect, frame) in [
        ("coinbase_exchange", r#"{"type":"match","time":5}"#),
        ("coinbase_exchange", r#"{"type":"ticker","time":5}"#),
        ("coinbase_exchange", r#"{"type":"l2update","time":5}"#),
        ("coinbase_exchange", r#"{"type":"snapshot","time":5}"#),
        ("coinbase_exchange", r#"{"type":"status","products":5}"#),
        ("coinbase_exchange", r#"[{"trade_id":{}}]"#),
        ("coinbase_advanced", r#"{"channel":"market_trades","events":5}"#),
        ("coinbase_advanced", r#"{"channel":"ticker","events":5}"#),
        ("coinbase_advanced", r#"{"channel":"status","events":5}"#),
        ("coinbase_advanced", r#"{"channel":"l2_data","events":[{"type":"update"}]}"#),
        ("coinbase_advanced", r#"{"products":5}"#),
    ] {
        let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: frame.as_bytes() };
        assert_eq!(make(dialect).unwrap().decode(frame, &mut Records::default()), Ok(Outcome::Ignored));
    }
}

#[test]
fn every_refusal_has_its_reason() {
    let refused = |(dialect, frame): (&str, &str), from: &str, to: &str| {
        assert!(frame.contains(from), "{from} is not in {frame}");
        decode(dialect, &frame.replacen(from, to, 1)).expect_err(to)
    };
    let (trade, ticker, snapshot, update) = (FRAMES[0], FRAMES[1], FRAMES[2], FRAMES[3]);
    let (trades, level2, changes, tickers, book) = (FRAMES[7], FRAMES[8], FRAMES[9], FRAMES[10], FRAMES[12]);
    for (frame, from, to, reason) in [
        (trade, "\"match\"", "\"mismatch\"", "unknown_event"),
        (trade, "\"type\"", "\"sort\"", "unknown_event"),
        (trade, "\"match\"", "5", "wrong_type"),
        (trade, "\"match\"", "null", "missing_field"),
        (trade, "\"match\"", "\"error\"", "venue_error"),
        (trade, "\"trade_id\":280232,", "", "missing_field"),
        (trade, "280232", "\"\"", "missing_field"),
        (trade, "280232", "2.5", "bad_number"),
        (trade, "280232", "-1", "bad_number"),
        (trade, "280232", "[]", "wrong_type"),
        (trade, "\"trade_id\":280232", "\"trade_id\":280232,\"trade_id\":280232", "malformed"),
        (trade, "\"sell\"", "\"both\"", "wrong_type"),
        (trade, "\"sell\"", "1", "wrong_type"),
        (trade, "\"side\":\"sell\",", "", "missing_field"),
        (trade, "\"985\"", "985", "wrong_type"),
        (trade, "\"985\"", "\"\"", "bad_number"),
        (trade, "\"985\"", "\"-985\"", "bad_number"),
        (trade, "\"985\"", "\"0\"", "not_a_trade"),
        (trade, "\"0.00001305\"", "\"0.00000000\"", "not_a_trade"),
        (trade, "0.00001305", "0.0000130500001", "overflow"),
        (trade, "\"985\"", "\"985000000000000000000000000\"", "overflow"),
        (trade, "\"SKL-BTC\"", "\"SKLBTC\"", "unknown_instrument"),
        (trade, "\"SKL-BTC\"", "7", "wrong_type"),
        (trade, "\"product_id\":\"SKL-BTC\",", "", "missing_field"),
        (trade, "2021-04-17T", "2021-04-31T", "bad_time"),
        (trade, "2021-04-17T", "0001-01-01T", "bad_time"),
        (trade, "\"2021-04-17T16:43:37.089723Z\"", "1618677817", "wrong_type"),
        (trade, ",\"time\":\"2021-04-17T16:43:37.089723Z\"", "", "missing_field"),
        (ticker, "\"1285.04\"", "\"-1285.04\"", "bad_number"),
        (ticker, "\"0.46688654\"", "\"-0.4\"", "bad_number"),
        (ticker, "\"0.46688654\"", "0.4", "wrong_type"),
        (ticker, "\"1285.27\"", "\"dear\"", "bad_number"),
        (ticker, "2022-10-19T", "2022-10-19 ", "bad_time"),
        (ticker, "\"ETH-USD\"", "null", "missing_field"),
        (snapshot, "\"bids\":", "\"bods\":", "missing_field"),
        (snapshot, "[[\"10102.55\",\"0.57753524\"]]", "{}", "wrong_type"),
        (snapshot, "[\"10102.55\",\"0.57753524\"]", "5", "wrong_type"),
        (snapshot, "[\"10102.55\",\"0.57753524\"]", "[\"10102.55\"]", "wrong_type"),
        (snapshot, "\"10102.55\"", "10102.55", "wrong_type"),
        (snapshot, "\"10102.55\"", "\"-1\"", "bad_number"),
        (update, "\"buy\"", "\"bid\"", "wrong_type"),
        (update, "[\"sell\",\"22356.300000\",\"1.00000000\"]", "[\"sell\",\"22356.300000\"]", "wrong_type"),
        (update, "[\"sell\",\"22356.300000\",\"1.00000000\"]", "\"sell\"", "wrong_type"),
        (update, "\"1.00000000\"", "1", "wrong_type"),
        (update, "\"1.00000000\"", "\"1,0\"", "bad_number"),
        (update, "\"1.00000000\"", "\"-1\"", "bad_number"),
        (update, "\"changes\":[[", "\"changes\":7,\"x\":[[", "wrong_type"),
        (update, "\"changes\"", "\"chances\"", "missing_field"),
        (update, "2022-08-04T15:25:05.010758Z", "soon", "bad_time"),
        (trades, "market_trades", "market_tirades", "unknown_event"),
        (trades, "\"channel\"", "\"canal\"", "unknown_event"),
        (trades, "\"trades\"", "\"tirades\"", "missing_field"),
        (trades, "\"events\":[{", "\"events\":[[],{", "wrong_type"),
        (trades, "\"events\":[", "\"events\":{},\"x\":[", "wrong_type"),
        (trades, "\"trades\":[", "\"trades\":[5,", "wrong_type"),
        (trades, "\"SELL\"", "\"UNKNOWN_ORDER_SIDE\"", "wrong_type"),
        (trades, "\"4000.5\"", "\"0\"", "not_a_trade"),
        (trades, "48.266642Z", "68.266642Z", "bad_time"),
        (trades, "ETH-USD", "BIT-24APR26-CDE", "unknown_instrument"),
        (level2, "\"snapshot\"", "\"snapped\"", "wrong_type"),
        (level2, "\"type\":\"snapshot\",", "", "missing_field"),
        (level2, "\"updates\"", "\"downdates\"", "missing_field"),
        (level2, "\"bid\"", "\"bud\"", "wrong_type"),
        (level2, "\"price_level\":\"21921.73\",", "", "missing_field"),
        (level2, "\"21921.73\"", "21921.73", "wrong_type"),
        (level2, "\"side\":\"bid\"", "\"side\":\"bid\",\"side\":\"bid\"", "malformed"),
        (level2, "\"0.06317902\"", "\"-0.1\"", "bad_number"),
        (level2, "\"updates\":[", "\"updates\":[1,", "wrong_type"),
        (level2, "2023-02-09T20:32:50.714964855Z", "now", "bad_time"),
        (changes, "2026-04-07T14:30:01.456789Z", "now", "bad_time"),
        (changes, "\"2.00000000\"", "\"two\"", "bad_number"),
        (changes, "BTC-USD", "BTC_USD", "unknown_instrument"),
        (tickers, "\"21931.98\"", "21931.98", "wrong_type"),
        (tickers, "\"BTC-USD\"", "\"?\"", "unknown_instrument"),
        (tickers, "\"timestamp\":\"", "\"timestamp\":\"x", "bad_time"),
        (book, "\"pricebook\":{", "\"pricebook\":5,\"x\":{", "wrong_type"),
        (book, "\"bids\"", "\"bods\"", "missing_field"),
        (book, "\"size\":\"0.17189468\"", "\"sice\":\"0.17189468\"", "missing_field"),
    ] {
        let reject = refused(frame, from, to);
        assert_eq!(reject.reason, reason, "{from} -> {to}: {reject:?}");
        assert!(!reject.detail.is_empty());
    }
    for (dialect, frame, expected) in [
        (
            "coinbase_exchange",
            r#"{"type":"error","message":"Failed to subscribe","reason":"level2 channel requires authentication"}"#,
            "venue_error",
        ),
        ("coinbase_exchange", r#"{"message":"NotFound"}"#, "venue_error"),
        ("coinbase_advanced", r#"{"type":"error","message":"authentication failure"}"#, "venue_error"),
        ("coinbase_advanced", r#"{"error":"NOT_FOUND","error_details":"","message":"valid product_id is required"}"#, "venue_error"),
        ("coinbase_exchange", "{}", "unknown_event"),
        ("coinbase_advanced", "{}", "unknown_event"),
        ("coinbase_exchange", "[[1,2,3,4,5,6]]", "unknown_event"),
        ("coinbase_exchange", r#"[{"id":"BTC","name":"Bitcoin"}]"#, "unknown_event"),
        ("coinbase_advanced", TRADES, "unknown_event"),
        ("coinbase_exchange", MARKET_TRADES, "unknown_event"),
        ("coinbase_exchange", "5", "malformed"),
        ("coinbase_exchange", "", "malformed"),
        ("coinbase_exchange", "[] []", "malformed"),
        ("coinbase_exchange", r#"{"type":"status","products":[{"name":"x"}]}"#, "wrong_type"),
        ("coinbase_advanced", r#"{"channel":"status","events":[{"products":[5]}]}"#, "wrong_type"),
    ] {
        assert_eq!(reason(dialect, frame), expected, "{frame}");
    }
    let short = refused(update, "\"1.00000000\"", "\"1,0\"");
    assert_eq!(short.detail, "`changes` is \"1,0\", which is not a decimal number");
}

#[test]
fn thirty_seconds_give_the_records_of_another_reader() {
    // Its 9,729 books are 10 snapshots and 9,719 changes, its 107 trades 97 of `match` and 10 of `last_match`, with which each
    // product's feed begins.
    let Some(text) = recording("thirty_seconds/COINBASE.ws.28.0.gz") else { return };
    let (found, refused) = decode_all("coinbase_exchange", received(&text).map(|(time, frame)| (time, None, frame)));
    assert_eq!(refused, []);
    assert_eq!(["book_delta", "book_snapshot", "quote", "trade"].map(|kind| rows(&found, kind)), [9_719, 10, 107, 107]);
    assert_eq!(found.len(), 4);

    // The venue tells the side of the taker in its tickers.
    let trades = TradeRows::of(&found["trade"]).unwrap();
    let sides: HashMap<(&str, &str), &str> = (0..trades.price.len())
        .map(|row| ((label(trades.symbol, row).unwrap(), trades.trade_id.value(row)), label(trades.side, row).unwrap()))
        .collect();
    let mut compared = 0;
    for (_, frame) in received(&text).filter(|(_, frame)| frame.starts_with(r#"{"type":"ticker""#)) {
        let ticker: Value = serde_json::from_str(frame).unwrap();
        let id = ticker["trade_id"].to_string();
        if let Some(side) = sides.get(&(ticker["product_id"].as_str().unwrap(), id.as_str())) {
            assert_eq!(*side, ticker["side"].as_str().unwrap(), "{ticker}");
            compared += 1;
        }
    }
    assert_eq!(compared, 107);

    // Sizes were not told in 2021, and every book is in order.
    let quotes = QuoteRows::of(&found["quote"]).unwrap();
    assert!((0..quotes.bid_price.len()).all(|row| quotes.bid_price.is_valid(row) && quotes.bid_quantity.is_null(row)));
    let books = BookSnapshotRows::of(&found["book_snapshot"]).unwrap();
    for row in 0..10 {
        assert!(numbers(books.bid_prices, row).is_sorted_by(|one, other| one > other) && numbers(books.ask_prices, row).is_sorted());
        assert!(numbers(books.bid_prices, row).len() > 100 && numbers(books.bid_prices, row)[0] < numbers(books.ask_prices, row)[0]);
    }
    let deltas = BookDeltaRows::of(&found["book_delta"]).unwrap();
    assert_eq!(deltas.last_sequence.null_count(), 9_719);

    // The changes keep each book in order, and it comes to have the best bid and ask of every ticker but five: the first of
    // their products, which tell of a trade before the snapshot.
    let mut agreed = 0;
    for product in 0..10 {
        let symbol = label(books.symbol, product).unwrap();
        let level = |prices: &[i128], sizes: &[i128]| prices.iter().copied().zip(sizes.iter().copied()).collect::<Vec<_>>();
        let mut bids: BTreeMap<i128, i128> =
            level(numbers(books.bid_prices, product), numbers(books.bid_quantities, product)).into_iter().collect();
        let mut asks: BTreeMap<i128, i128> =
            level(numbers(books.ask_prices, product), numbers(books.ask_quantities, product)).into_iter().collect();
        let mut seen = vec![(bids.last_key_value().map(|l| *l.0), asks.first_key_value().map(|l| *l.0))];
        for row in (0..9_719).filter(|row| label(deltas.symbol, *row) == Some(symbol)) {
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
            let best = (bids.last_key_value().map(|l| *l.0), asks.first_key_value().map(|l| *l.0));
            assert!(best.0 < best.1, "{symbol} is crossed");
            seen.push(best);
        }
        let quoted = |row: usize| (Some(quotes.bid_price.value(row)), Some(quotes.ask_price.value(row)));
        agreed += (0..107).filter(|row| label(quotes.symbol, *row) == Some(symbol) && seen.contains(&quoted(*row))).count();
    }
    assert_eq!(agreed, 102);
}

#[test]
fn listed_products_are_those_that_the_letters_tell() {
    let Some(text) = recording("thirty_seconds/COINBASE.0.gz") else { return };
    let products = text.lines().next().unwrap().split_once(": ").unwrap().1;
    let (_, found) = decode("coinbase_exchange", products).unwrap();
    let rows = InstrumentRows::of(&found["instrument"]).unwrap();
    assert_eq!(rows.venue_symbol.len(), 162);
    let mut limited = 0;
    for row in 0..162 {
        assert_eq!(label(rows.symbol, row), Some(rows.venue_symbol.value(row)));
        limited += usize::from(label(rows.status, row) == Some("limit_only"));
    }
    // All were online, and eight of them took limit orders only.
    assert_eq!((limited, (0..162).filter(|row| label(rows.status, *row) == Some("online")).count()), (8, 154));
    for (id, listing) in super::instruments(products.as_bytes()).unwrap() {
        use crate::dialect::symbols::Spelling;
        assert_eq!(super::Api::Exchange.read(&id), Some(listing));
    }
}

#[test]
fn another_projects_pairs_agree() {
    // The pairs of the international exchange, `coinbase_international.jsonl`, are of another interface.
    let Some(text) = recording("normalised_pairs/coinbase.jsonl") else { return };
    let mut compared = 0;
    for (line, (frames, expected)) in (1..).zip(pairs(&text)) {
        for record in &expected {
            let (_, found) = decode_as("coinbase_exchange", &frames[0].to_string(), Some(1_567_296_001_275_000), None).unwrap();
            compared += 1;
            if record["type"] == "trade" {
                let rows = TradeRows::of(&found["trade"]).unwrap();
                assert!(near(number(rows.price, 0), &record["price"]) && near(number(rows.quantity, 0), &record["amount"]), "{record}");
                assert_eq!((rows.trade_id.value(0), label(rows.side, 0)), (record["id"].as_str().unwrap(), record["side"].as_str()));
                assert_eq!(label(rows.symbol, 0), record["symbol"].as_str());
                assert_eq!(display(rows.event_time.value(0)), record["timestamp"].as_str().unwrap());
                continue;
            }
            let snapshot = record["isSnapshot"] == true;
            let rows = &found[if snapshot { "book_snapshot" } else { "book_delta" }];
            assert_eq!(label(rows.column_by_name("symbol").unwrap().as_dictionary(), 0), record["symbol"].as_str());
            for (side, theirs) in [("bid", "bids"), ("ask", "asks")] {
                let ours = |what: &str| {
                    let list = rows.column_by_name(&format!("{side}_{what}")).unwrap().as_list::<i32>().value(0);
                    list.as_primitive::<Decimal128Type>().values().iter().map(|units| Decimal::from_units(*units)).collect::<Vec<_>>()
                };
                let theirs = record[theirs].as_array().unwrap();
                let ours: Vec<_> = ours("prices").into_iter().zip(ours("quantities")).collect();
                assert_eq!(ours.len(), theirs.len());
                for ((price, quantity), level) in ours.into_iter().zip(theirs) {
                    assert!(near(Some(price), &level["price"]) && near(Some(quantity), &level["amount"]), "{record}");
                }
            }
            let time = integer(rows.column_by_name("event_time").unwrap().as_primitive::<TimestampMicrosecondType>(), 0).map(display);
            match line {
                // A snapshot without a time, for which the other takes its own.
                4 => assert_eq!(time, None),
                // A change without a time, for which the other takes that of the change before; frames may be decoded on
                // different workers, so we take ours.
                5 => assert_eq!(time.as_deref(), Some("2019-09-01T00:00:01.275000Z")),
                _ => assert_eq!(time.as_deref(), record["timestamp"].as_str()),
            }
        }
    }
    assert_eq!(compared, 5);
}

#[test]
fn the_newest_messages_are_decoded() {
    let Some(text) = recording("recent_samples/ws_2026_samples.jsonl") else { return };
    let mut seen = 0;
    for line in text.lines() {
        let sample: Value = serde_json::from_str(line).unwrap();
        if sample["venue"] != "coinbase" {
            continue;
        }
        seen += 1;
        let (outcome, found) = decode("coinbase_advanced", &sample["message"].to_string()).unwrap();
        let Some(ids) = sample["expected"]["ids_sorted"].as_array() else {
            assert_eq!((outcome, found.len()), (Outcome::Ignored, 0));
            continue;
        };
        let rows = TradeRows::of(&found["trade"]).unwrap();
        let ours: Vec<&str> = (0..rows.trade_id.len()).map(|row| rows.trade_id.value(row)).collect();
        assert_eq!(ours, ids.iter().map(|id| id.as_str().unwrap()).collect::<Vec<_>>());
        assert!((0..ours.len()).all(|row| label(rows.side, row) == Some("sell") && number(rows.price, row) == Some(d("63310.25"))));
    }
    assert_eq!(seen, 3);
}

/// Frames that no decoder may accept, made from the real ones.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let mut bad = Vec::new();
    for (dialect, frame) in FRAMES {
        let bytes = frame.as_bytes();
        for cut in [0, 1, bytes.len() / 4, bytes.len() / 2, bytes.len() - 2, bytes.len() - 1] {
            bad.push((dialect, bytes[..cut].to_vec()));
        }
        for (from, to) in [("\":", "\" "), (",\"", "\""), ("\"p", "p"), ("{", "[")] {
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
    assert!(bad.len() >= 150, "{}", bad.len());
    for (dialect, payload) in bad {
        let mut records = every_kind();
        let frame = FrameRef { receive_time: Some(1), frame: 1, topic: Some("BTC-USD"), payload: &payload };
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
    fn no_bytes_make_it_panic(which in 0..FRAMES.len(), damages in prop::collection::vec(damage(), 1..6), advanced: bool) {
        let payload = damaged(FRAMES[which].1.as_bytes().to_vec(), &damages);
        let mut records = every_kind();
        let frame = FrameRef { receive_time: None, frame: 1, topic: None, payload: &payload };
        match make(if advanced { "coinbase_advanced" } else { "coinbase_exchange" }).unwrap().decode(frame, &mut records) {
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
    fn numbers_survive_exactly(price in 1..10_i64.pow(15), quantity in 1..10_i64.pow(15), id in 0..i64::MAX, time in 1..4_000_000_000_000_000_i64, sold: bool) {
        let (price, quantity) = (Decimal::from_units(i128::from(price) * 10_000), Decimal::from_units(i128::from(quantity)));
        let (side, taker, time) = if sold { ("sell", "buy", display(time)) } else { ("buy", "sell", display(time)) };
        let exchange = format!(r#"{{"type":"match","product_id":"BTC-USD","trade_id":{id},"price":"{price}","size":"{quantity}","time":"{time}","side":"{side}"}}"#);
        let advanced = format!(r#"{{"channel":"market_trades","events":[{{"trades":[{{"product_id":"BTC-USD","trade_id":"{id}","price":"{price}","size":"{quantity}","time":"{time}","side":"{}"}}]}}]}}"#, side.to_uppercase());
        for (dialect, frame) in [("coinbase_exchange", exchange), ("coinbase_advanced", advanced)] {
            let (_, found) = decode(dialect, &frame).unwrap();
            let rows = TradeRows::of(&found["trade"]).unwrap();
            prop_assert_eq!((number(rows.price, 0), number(rows.quantity, 0)), (Some(price), Some(quantity)));
            prop_assert_eq!((rows.trade_id.value(0).parse(), display(rows.event_time.value(0))), (Ok(id), time.clone()));
            prop_assert_eq!(label(rows.side, 0), Some(taker));
        }
    }
}
