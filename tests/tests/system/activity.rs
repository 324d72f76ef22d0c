//! Bars that end when enough has happened, of real trades, equal to what an independent script makes of the same recording.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use model::Decimal;
use serde_json::{Value, json};
use tests::program::{marketprism, recordings, root, rows};

const RECORDING: &str = "binance/spot/btcusdt_20240809.gz";

const PIPELINE: &str = r#"
name = "activity"

[sources.spot]
type = "file"
path = "${RECORDING}"
dialect = "binance_spot"
symbol = "BTCUSDT"
disorder = "5s"

[operators.trades]
type = "normalise"
inputs = ["spot"]
kinds = ["trade"]

[operators.bars]
type = "bars"
inputs = ["trades"]
ticks = [100, 7]
volume = ["0.75"]
value = ["100000"]
imbalance = [
    { of = "ticks", threshold = "20" },
    { of = "volume", threshold = "0.5" },
    { of = "value", threshold = "30000.5" },
    { of = "ticks", expect = { first = 50, bars = 10, trades = 200, min_trades = 5, max_trades = 400 } },
    { of = "volume", expect = { first = 50, bars = 10, trades = 200, min_trades = 5, max_trades = 400 } },
]
runs = [
    { of = "ticks", threshold = "40" },
    { of = "volume", threshold = "1" },
    { of = "ticks", expect = { first = 50, bars = 10, trades = 200, min_trades = 5, max_trades = 400 } },
    { of = "value", expect = { first = 50, bars = 10, trades = 200, min_trades = 5, max_trades = 400 } },
]
range = ["5.5"]
renko = ["3", "0.25"]

[sinks.cold]
type = "parquet"
inputs = ["bars"]
"#;

/// The same rules for the script.
fn rules() -> Value {
    let expect = json!({ "first": 50, "bars": 10, "trades": 200, "min_trades": 5, "max_trades": 400 });
    json!([
        { "rule": "ticks 100", "ends": "sum", "of": "ticks", "threshold": "100" },
        { "rule": "ticks 7", "ends": "sum", "of": "ticks", "threshold": "7" },
        { "rule": "volume 0.75", "ends": "sum", "of": "volume", "threshold": "0.75" },
        { "rule": "value 100000", "ends": "sum", "of": "value", "threshold": "100000" },
        { "rule": "imbalance of ticks 20", "ends": "imbalance", "of": "ticks", "threshold": "20" },
        { "rule": "imbalance of volume 0.5", "ends": "imbalance", "of": "volume", "threshold": "0.5" },
        { "rule": "imbalance of value 30000.5", "ends": "imbalance", "of": "value", "threshold": "30000.5" },
        { "rule": "imbalance of ticks expected", "ends": "imbalance", "of": "ticks", "expect": expect },
        { "rule": "imbalance of volume expected", "ends": "imbalance", "of": "volume", "expect": expect },
        { "rule": "runs of ticks 40", "ends": "runs", "of": "ticks", "threshold": "40" },
        { "rule": "runs of volume 1", "ends": "runs", "of": "volume", "threshold": "1" },
        { "rule": "runs of ticks expected", "ends": "runs", "of": "ticks", "expect": expect },
        { "rule": "runs of value expected", "ends": "runs", "of": "value", "expect": expect },
        { "rule": "range 5.5", "ends": "range", "threshold": "5.5" },
        { "rule": "renko 3", "ends": "renko", "threshold": "3" },
        { "rule": "renko 0.25", "ends": "renko", "threshold": "0.25" },
    ])
}

type Bars = BTreeMap<String, Vec<Value>>;

fn by_rule(bars: impl IntoIterator<Item = Value>) -> Bars {
    let mut all = Bars::new();
    for bar in bars {
        all.entry(bar["rule"].as_str().unwrap().to_owned()).or_default().push(bar);
    }
    all
}

/// What the script makes of a recording.
fn expected(recording: &Path) -> Bars {
    let mut script = Command::new("python3");
    script.arg(root().join("tests/oracle/activity_bars.py")).arg(recording).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut script = script.spawn().expect("Python 3 is there");
    script.stdin.take().unwrap().write_all(rules().to_string().as_bytes()).unwrap();
    let output = script.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    by_rule(String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()))
}

fn number(value: &Value) -> Option<Decimal> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    (!value.is_null()).then(|| text.parse().unwrap_or_else(|error| panic!("{text} {error}")))
}

fn compare(bar: &Value, wanted: &Value) {
    for column in ["number", "open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "sell_volume", "trades", "vwap"] {
        assert_eq!(number(&bar[column]), number(&wanted[column]), "{column} of\n{bar}, expected\n{wanted}");
    }
    for column in ["first_trade_id", "last_trade_id"] {
        assert_eq!(bar[column].as_str().unwrap(), wanted[column].to_string(), "{column} of\n{bar}, expected\n{wanted}");
    }
    for column in ["start", "end"] {
        assert_eq!(bar[column].as_i64().unwrap(), wanted[column].as_i64().unwrap() * 1_000, "{column} of\n{bar}, expected\n{wanted}");
    }
    match (number(&bar["threshold"]), number(&wanted["threshold"])) {
        // What is expected is a mean of doubles.
        (Some(threshold), Some(expected)) if bar["rule"].as_str().unwrap().ends_with("expected") => {
            let (threshold, expected) = (threshold.units() as f64, expected.units() as f64);
            assert!((threshold - expected).abs() <= expected * 1e-12, "threshold of\n{bar}, expected\n{wanted}");
        }
        (threshold, expected) => assert_eq!(threshold, expected, "threshold of\n{bar}, expected\n{wanted}"),
    }
}

#[test]
fn bars_by_activity_equal_the_independent_ones_for_any_number_of_workers() {
    let Some(recordings) = recordings("bars_by_activity_equal_the_independent_ones") else { return };
    let recording = recordings.join(RECORDING);
    let expected = expected(&recording);
    for workers in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let file = data.join("pipeline.toml");
        std::fs::write(&file, PIPELINE.replace("${RECORDING}", recording.to_str().unwrap())).unwrap();
        let summary = marketprism(["run", file.to_str().unwrap(), "--workers", workers, "--data", data.to_str().unwrap()]).expect_success();
        assert!(summary.contains("the books balance"), "{summary}");
        let query = r#"SELECT * EXCLUDE (start, "end"), arrow_cast(start, 'Int64') AS start, arrow_cast("end", 'Int64') AS "end"
                       FROM activity_bars ORDER BY rule, number"#;
        let found = by_rule(rows(data, query));
        assert!(found.keys().eq(expected.keys()), "{:?}", found.keys());
        for (rule, wanted) in &expected {
            let found = &found[rule];
            found.iter().zip(wanted).for_each(|(bar, wanted)| compare(bar, wanted));
            assert_eq!(found.len(), wanted.len(), "{rule}: bars");
            assert!(found.len() > 3, "{rule} ends too few bars to say anything");
        }
    }
}
