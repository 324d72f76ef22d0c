//! Real Binance frames in, tables out, equal to what an independent script worked out from the same files.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use model::Decimal;
use serde_json::Value;
use tests::program::{marketprism, recordings, rows};

/// Two sources, records, bars, books: what the results are compared on.
fn pipeline(spot: &str, usdm: &str) -> String {
    format!(
        r#"
name = "recorded"

[sources.spot]
type = "file"
path = "{spot}"
dialect = "binance_spot"
symbol = "BTCUSDT"

[sources.usdm]
type = "file"
path = "{usdm}"
dialect = "binance_usdm"
symbol = "BTCUSDT"

[operators.records]
type = "normalise"
inputs = ["spot", "usdm"]
kinds = ["trade", "quote", "book_delta", "book_snapshot"]

[operators.bars]
type = "bars"
inputs = ["records"]
every = ["1s", "1m"]
lateness = "5s"

[operators.books]
type = "book"
inputs = ["records"]
snapshots = {{ every = "1h" }}

[sinks.cold]
type = "parquet"
inputs = ["records", "bars", "books"]
"#
    )
}

fn number(value: &Value) -> Decimal {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.parse().unwrap_or_else(|error| panic!("{text} {error}"))
}

fn run(folder: &Path, pipeline: &str, workers: usize) {
    let file = folder.join("pipeline.toml");
    std::fs::write(&file, pipeline).unwrap();
    let workers = workers.to_string();
    let arguments = ["run", file.to_str().unwrap(), "--workers", &workers, "--data", folder.to_str().unwrap()];
    let summary = marketprism(arguments).expect_success();
    assert!(summary.contains("the books balance"), "{summary}");
}

const MARKETS: [(&str, &str, &str); 2] = [("spot_btcusdt", "spot", "BTC-USDT"), ("usdm_btcusdt", "perpetual", "BTC-USDT-PERP")];

fn compare_bars(folder: &Path, expected: &Value) {
    for (name, market, symbol) in MARKETS {
        let expected = &expected[name];
        let here = format!("market = '{market}' AND symbol = '{symbol}'");
        let query = format!("SELECT * FROM bars WHERE {here} AND interval_seconds = 60 ORDER BY start");
        let bars = rows(folder, &query);
        let wanted: BTreeMap<i64, &Value> =
            expected["bars_1m_by_T"].as_object().unwrap().iter().map(|(t, bar)| (t.parse().unwrap(), bar)).collect();
        assert_eq!(bars.len(), wanted.len(), "{name}: bars");
        for (bar, (start, wanted)) in bars.iter().zip(wanted) {
            let shown = model::time::display(start * 1_000);
            assert_eq!(bar["start"].as_str().map(|s| &s[..19]), Some(&shown[..19]), "{name}: {bar}");
            for (column, field) in [
                ("open", "o"),
                ("high", "h"),
                ("low", "l"),
                ("close", "c"),
                ("volume", "v"),
                ("buy_volume", "bv"),
                ("quote_volume", "qv"),
                ("vwap", "vwap_12"),
            ] {
                assert_eq!(number(&bar[column]), number(&wanted[field]), "{name}: {column} of {bar}");
            }
            assert_eq!(bar["trades"], wanted["n"], "{name}: {bar}");
            assert_eq!((&bar["partial"], &bar["gap"]), (&Value::Bool(false), &Value::Bool(false)), "{name}: {bar}");
        }
        let seconds = rows(folder, &format!("SELECT count(*) AS n FROM bars WHERE {here} AND interval_seconds = 1"));
        assert_eq!(seconds[0]["n"], expected["bars_1s_count"], "{name}: bars of a second");
        let totals = rows(
            folder,
            &format!(
                "SELECT sum(volume) AS volume, sum(buy_volume) - sum(sell_volume) AS cvd FROM bars WHERE {here} AND interval_seconds = 1"
            ),
        );
        assert_eq!(number(&totals[0]["volume"]), number(&expected["trades"]["volume"]), "{name}: volume");
        assert_eq!(number(&totals[0]["cvd"]), number(&expected["trades"]["cvd_taker_buy_minus_sell"]), "{name}: CVD");
        let trades = rows(
            folder,
            &format!(
                "SELECT count(*) AS n, min(trade_id) AS first, max(trade_id) AS last, sum(price * quantity) AS notional FROM trades WHERE {here}"
            ),
        );
        assert_eq!(trades[0]["n"], expected["counts"]["trade"], "{name}: trades");
        for (column, field) in [("first", "trade_id_first"), ("last", "trade_id_last")] {
            assert_eq!(trades[0][column].as_str().unwrap(), expected[field].to_string(), "{name}: {column} trade");
        }
        assert_eq!(number(&trades[0]["notional"]), number(&expected["trades"]["sum_price_x_qty"]), "{name}: notional by SQL");
    }
}

fn compare_books(folder: &Path, expected: &Value) {
    for (name, market, symbol) in MARKETS {
        let expected = &expected[name];
        let here = format!("market = '{market}' AND symbol = '{symbol}'");
        let counts = rows(folder, &format!("SELECT count(*) AS n FROM book_deltas WHERE {here}"));
        assert_eq!(counts[0]["n"], expected["counts"]["depthUpdate"], "{name}: deltas");
        let counts = rows(folder, &format!("SELECT count(*) AS n FROM quotes WHERE {here}"));
        assert_eq!(counts[0]["n"], expected["counts"]["bookTicker"], "{name}: quotes");
        let events = rows(folder, &format!("SELECT event, count(*) AS n FROM book_events WHERE {here} GROUP BY event"));
        let event = |wanted: &str| events.iter().find(|e| e["event"] == wanted).map_or(0, |e| e["n"].as_u64().unwrap());
        assert_eq!((event("gap"), event("mismatch")), (0, 0), "{name}: {events:?}");
        assert_eq!(event("live"), 1, "{name}: {events:?}");

        let last = rows(folder, &format!("SELECT * FROM book_metrics WHERE {here} ORDER BY sequence DESC LIMIT 1")).remove(0);
        let book = &expected["final_book"];
        assert_eq!(last["sequence"], expected["last_u"], "{name}: {last}");
        assert_eq!((&last["bid_levels"], &last["ask_levels"]), (&book["bid_levels"], &book["ask_levels"]), "{name}: {last}");
        assert_eq!(number(&last["bid_total"]), number(&book["bid_qty_total"]), "{name}: {last}");
        assert_eq!(number(&last["ask_total"]), number(&book["ask_qty_total"]), "{name}: {last}");
        assert_eq!(last["oracle_mismatches"], 0, "{name}: {last}");
        assert_eq!(last["oracle_checks"], expected["bookticker_oracle_matches"], "{name}: {last}");

        let top = rows(folder, &format!("SELECT * FROM book_snapshots WHERE {here} AND origin = 'book' ORDER BY sequence DESC LIMIT 1"))
            .remove(0);
        for (side, wanted) in [("bid", &book["bids_top5"]), ("ask", &book["asks_top5"])] {
            for (i, level) in wanted.as_array().unwrap().iter().enumerate() {
                let (price, quantity) = (&top[format!("{side}_prices")][i], &top[format!("{side}_quantities")][i]);
                assert_eq!((number(price), number(quantity)), (number(&level[0]), number(&level[1])), "{name}: {side} {i}");
            }
        }
    }
}

#[test]
fn tables_equal_the_independent_results_for_any_number_of_workers() {
    let Some(recordings) = recordings("tables_equal_the_independent_results") else { return };
    let binance = recordings.join("binance");
    let expected: Value = serde_json::from_slice(&std::fs::read(binance.join("expected.json")).unwrap()).unwrap();
    let text = pipeline(&format!("{}/spot/*.gz", binance.display()), &format!("{}/usdm/*.gz", binance.display()));
    for workers in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &text, workers);
        compare_bars(folder.path(), &expected);
        compare_books(folder.path(), &expected);
    }
}

#[test]
fn bars_do_not_depend_on_the_order_of_arrival_within_the_lateness() {
    let Some(recordings) = recordings("bars_do_not_depend_on_the_order_of_arrival") else { return };
    let binance = recordings.join("binance");
    let expected: Value = serde_json::from_slice(&std::fs::read(binance.join("expected.json")).unwrap()).unwrap();
    let seed = 20_240_808;
    println!("seed {seed}");
    for workers in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let spot = ["spot/btcusdt_20240808.gz", "spot/btcusdt_20240809.gz"].map(|f| binance.join(f));
        shuffle(&spot, &folder.path().join("spot.ndjson"), seed);
        shuffle(&[binance.join("usdm/btcusdt_20240808.gz")], &folder.path().join("usdm.ndjson"), seed);
        run(
            folder.path(),
            &pipeline(&format!("{}/spot.ndjson", folder.path().display()), &format!("{}/usdm.ndjson", folder.path().display())),
            workers,
        );
        compare_bars(folder.path(), &expected);
    }
}

/// Writes the lines of recordings in another order: each moves by up to four seconds of receive time.
fn shuffle(files: &[impl AsRef<Path>], out: &Path, seed: u64) {
    let mut random = seed;
    let mut lines = Vec::new();
    for file in files {
        let mut text = String::new();
        MultiGzDecoder::new(std::fs::File::open(file).unwrap()).read_to_string(&mut text).unwrap();
        for line in text.lines() {
            // A 64-bit linear congruential generator (Knuth's MMIX constants) is disorder enough.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let received: u64 = line.split(' ').next().unwrap().parse().unwrap();
            lines.push((received + (random >> 32) % 4_000_000_000, line.to_owned()));
        }
    }
    lines.sort_by_key(|(moment, _)| *moment);
    let mut out = std::io::BufWriter::new(std::fs::File::create(out).unwrap());
    for (_, line) in lines {
        writeln!(out, "{line}").unwrap();
    }
}
