//! Every command of the program, as its users type them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tempfile::TempDir;
use tests::program::{Output, finish, marketprism, program, root, rows};
use tests::venue::market::Market;
use tests::venue::okx::Okx;
use tests::venue::{Script, Venue};

/// The example pipelines, as paths from the root of the repository.
fn examples() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("examples")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = names.filter(|name| name.ends_with(".toml")).map(|name| format!("examples/{name}")).collect();
    files.push("examples/tiers/pipeline.toml".to_owned());
    files
}

/// The example `quickstart` with fewer frames, run into a folder.
fn quickstart() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let set = ["--set", "sources.market.frames=20_000", "--data", data.to_str().unwrap()];
    marketprism(["run", "examples/quickstart.toml"].into_iter().chain(set)).expect_success();
    (folder, data)
}

fn sql(data: &Path, query: &str, more: &[&str]) -> Output {
    marketprism(["sql", query, "--data", data.to_str().unwrap()].into_iter().chain(more.iter().copied()))
}

#[test]
fn every_example_is_valid() {
    let examples = examples();
    assert!(examples.len() >= 4, "{examples:?}");
    for file in &examples {
        let output = marketprism(["validate", file]);
        assert_eq!((output.status, output.stderr.as_str()), (Some(0), "the file is valid\n"), "{file}: {}", output.stdout);
    }
}

#[test]
fn a_graph_names_every_node_kind_and_column() {
    let text = marketprism(["graph", "examples/quickstart.toml"]).expect_success();
    for node in [
        "source market (simulator)",
        "operator trades (normalise) ← market",
        "operator bars_1m (bars) ← trades",
        "sink cold (parquet) ← trades, bars_1m, spikes",
    ] {
        assert!(text.lines().any(|line| line == node), "{node} is missing in\n{text}");
    }
    // Wrapped lines continue the list of columns.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for edge in [
        "→ bars_1m, spikes, cold trade: venue label, market label, symbol label, event_time time, receive_time time?, frame integer?, trade_id text, price decimal, quantity decimal,",
        "bar: venue label, market label, symbol label, interval_seconds integer, start time, end time, open decimal,",
        "dead_letter: node label, reason label, detail text,",
    ] {
        assert!(text.contains(edge), "{edge} is missing in\n{text}");
    }

    let mermaid = marketprism(["graph", "examples/quickstart.toml", "--format", "mermaid"]).expect_success();
    assert!(mermaid.starts_with("flowchart "), "{mermaid}");
    let edges = mermaid.lines().filter(|line| line.contains("-->")).count();
    assert_eq!(edges, 6, "market to trades, trades to three, two to the sink:\n{mermaid}");
    for name in [
        "market",
        "trades",
        "bars_1m",
        "spikes",
        "cold",
        "<b>trade</b>",
        "<b>bar</b>",
        "<b>anomaly</b>",
        "<b>dead_letter</b>",
        "quote_volume",
    ] {
        assert!(mermaid.contains(name), "{name} is missing in\n{mermaid}");
    }
}

/// The part of JSON Schema that ours is written in. A keyword that it does not know is an error, so that nothing passes
/// unchecked.
struct Schema<'s>(&'s Value);

impl Schema<'_> {
    /// Why a value does not fit a schema, if it does not.
    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = schema.as_object().ok_or_else(|| format!("{schema} is no schema"))?;
        let wrong = |what: &str| Err(format!("{value}: {what}"));
        for (keyword, wanted) in schema {
            match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "default" | "examples" | "format" | "writeOnly" => {}
                // With `properties`.
                "additionalProperties" => {}
                "$ref" => {
                    let target = wanted
                        .as_str()
                        .and_then(|at| self.0.pointer(at.strip_prefix('#')?))
                        .ok_or_else(|| format!("{wanted} leads nowhere"))?;
                    self.fits(target, value)?;
                }
                "type" => {
                    let types: Vec<&str> = wanted
                        .as_array()
                        .map_or_else(|| wanted.as_str().into_iter().collect(), |l| l.iter().filter_map(Value::as_str).collect());
                    if !types.iter().any(|ty| is_of(value, ty)) {
                        return wrong(&format!("not of type {types:?}"));
                    }
                }
                "const" if value != wanted => return wrong(&format!("not {wanted}")),
                "enum" if !wanted.as_array().is_some_and(|l| l.contains(value)) => return wrong(&format!("not in {wanted}")),
                "minimum" if value.as_f64() < wanted.as_f64() && value.is_number() => return wrong("too small"),
                "maximum" if value.as_f64() > wanted.as_f64() && value.is_number() => return wrong("too large"),
                "minItems" if value.as_array().is_some_and(|l| (l.len() as u64) < wanted.as_u64().unwrap_or(0)) => {
                    return wrong("too short");
                }
                "const" | "enum" | "minimum" | "maximum" | "minItems" | "uniqueItems" => {}
                "pattern" => {
                    // A reference to a variable, where another type would stand.
                    assert_eq!(wanted, r"^\$\{.*\}$", "the one pattern there is");
                    if value.as_str().is_some_and(|text| !(text.starts_with("${") && text.ends_with('}'))) {
                        return wrong("no ${...}");
                    }
                }
                "required" => {
                    for key in wanted.as_array().into_iter().flatten().filter_map(Value::as_str) {
                        if value.as_object().is_some_and(|o| !o.contains_key(key)) {
                            return wrong(&format!("{key} is missing"));
                        }
                    }
                }
                "items" => value.as_array().into_iter().flatten().try_for_each(|item| self.fits(wanted, item))?,
                "properties" => {}
                "anyOf" | "oneOf" => {
                    let reasons: Vec<String> =
                        wanted.as_array().into_iter().flatten().filter_map(|branch| self.fits(branch, value).err()).collect();
                    let fitting = wanted.as_array().map_or(0, Vec::len) - reasons.len();
                    if fitting == 0 || (keyword == "oneOf" && fitting > 1) {
                        return wrong(&format!("fits {fitting} of the branches: {}", reasons.join("; ")));
                    }
                }
                other => panic!("this test does not know the keyword {other}"),
            }
        }
        value.as_object().map_or(Ok(()), |members| self.members(schema, members))
    }

    fn members(&self, schema: &Map<String, Value>, members: &Map<String, Value>) -> Result<(), String> {
        for (key, member) in members {
            match (schema.get("properties").and_then(|p| p.get(key)), schema.get("additionalProperties")) {
                (Some(property), _) => self.fits(property, member).map_err(|e| format!("{key}: {e}"))?,
                (None, Some(Value::Bool(false))) => return Err(format!("{key} is not known")),
                (None, Some(rest @ Value::Object(_))) => self.fits(rest, member).map_err(|e| format!("{key}: {e}"))?,
                (None, _) => {}
            }
        }
        Ok(())
    }
}

fn is_of(value: &Value, ty: &str) -> bool {
    match ty {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is no type of JSON"),
    }
}

#[test]
fn the_schema_accepts_what_is_valid_and_nothing_else() {
    let schema: Value = serde_json::from_str(&marketprism(["schema"]).expect_success()).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let checked = Schema(&schema);
    let read = |file: &str| -> Value {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let table: toml::Table = toml::from_str(&text).unwrap();
        serde_json::to_value(table).unwrap()
    };
    for file in examples() {
        assert_eq!(checked.fits(&schema, &read(&file)), Ok(()), "{file}");
    }
    for file in [
        "01-unknown-key",
        "02-unknown-key-in-table",
        "03-missing-key",
        "04-missing-type",
        "06-wrong-type",
        "23-unknown-type",
        "31-unknown-dialect",
        "34-out-of-range",
        "39-unknown-choice",
    ] {
        let reason = checked.fits(&schema, &read(&format!("tests/broken/{file}.toml")));
        assert!(reason.is_err(), "{file} fits the schema");
    }
}

#[test]
fn each_type_is_explained() {
    let list = marketprism(["explain"]).expect_success();
    let bars = marketprism(["explain", "bars"]).expect_success();
    for part in [
        "operator `bars`",
        "\n  every (a duration or a list of durations; default `[]`)\n",
        "(a duration; default `\"0s\"`)",
        "dead_letter",
        "[operators.bars_1m]",
    ] {
        assert!(bars.contains(part), "{part} is missing in\n{bars}");
    }
    let types: Vec<&str> = list.lines().flat_map(|line| line.split_once(": ").unwrap().1.split(", ")).collect();
    assert!(["file", "simulator", "normalise", "anomaly", "clickhouse", "parquet"].iter().all(|ty| types.contains(ty)), "{list}");
    for ty in types {
        let text = marketprism(["explain", ty]).expect_success();
        assert!(text.contains(&format!("`{ty}`")) && text.contains("\nOptions\n") && text.contains("\nExample\n"), "{text}");
    }
    let unknown = marketprism(["explain", "barz"]);
    assert_eq!((unknown.status, unknown.stdout.as_str()), (Some(1), ""));
    assert!(unknown.stderr.starts_with("error: there is no component of type `barz`; did you mean `bars`?"), "{}", unknown.stderr);
}

#[test]
fn sql_answers_in_every_format() {
    let (folder, data) = quickstart();
    let tables = marketprism(["tables", "--data", data.to_str().unwrap()]).expect_success();
    let total = rows(&data, "SELECT count(*) AS n FROM trades")[0]["n"].as_u64().unwrap();
    assert!(total > 1_000, "{total} trades");
    assert!(
        tables.contains("trades: One execution on a venue.\n") && tables.contains(&format!("\n    {total} rows in cold\n")),
        "{tables}"
    );
    assert!(["anomalies: ", "bars: ", "dead_letters: ", "price decimal"].iter().all(|part| tables.contains(part)), "{tables}");

    // Decimals keep their digits, in JSON as text.
    let query =
        "SELECT symbol, count(*) AS n, sum(quantity) AS volume, max(event_time) AS last FROM trades GROUP BY symbol ORDER BY symbol";
    let answers = rows(&data, query);
    assert_eq!(answers.len(), 20);
    let json: Vec<Value> = serde_json::from_str(&sql(&data, query, &["--format", "json"]).expect_success()).unwrap();
    assert_eq!(json, answers);
    let csv = sql(&data, query, &["--format", "csv"]).expect_success();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("symbol,n,volume,last"));
    for (line, answer) in lines.by_ref().zip(&answers) {
        let text = |key: &str| answer[key].as_str().unwrap();
        assert_eq!(line, format!("{},{},{},{}", text("symbol"), answer["n"], text("volume"), text("last")));
    }
    assert_eq!(lines.next(), None);
    let table = sql(&data, query, &[]).expect_success();
    assert!(
        answers.iter().all(|a| table.contains(a["symbol"].as_str().unwrap()) && table.contains(a["volume"].as_str().unwrap())),
        "{table}"
    );

    // A file is written, and nothing else; a Parquet file is read back by a pipeline to the same trades.
    let file = folder.path().join("trades.parquet");
    let output = sql(&data, "SELECT * FROM trades", &["--format", "parquet", "--output", file.to_str().unwrap()]);
    assert_eq!(output.expect_success(), "");
    let pipeline = folder.path().join("again.toml");
    let text = format!(
        "name = \"again\"\n[sources.trades]\ntype = \"file\"\npath = \"{}\"\nformat = \"parquet\"\nkind = \"trade\"\n[sinks.cold]\ntype = \"parquet\"\ninputs = [\"trades\"]\n",
        file.display()
    );
    std::fs::write(&pipeline, text).unwrap();
    let again = folder.path().join("again");
    marketprism(["run", pipeline.to_str().unwrap(), "--data", again.to_str().unwrap()]).expect_success();
    assert_eq!(rows(&again, query), answers);
    let csv_file = folder.path().join("answers.csv");
    sql(&data, query, &["--format", "csv", "--output", csv_file.to_str().unwrap()]).expect_success();
    assert_eq!(std::fs::read_to_string(csv_file).unwrap(), csv);
}

#[test]
fn venues_and_their_instruments_are_listed() {
    let listed = |more: &[&str]| -> Vec<Value> {
        let output = marketprism(more.iter().copied().chain(["--format", "json"])).expect_success();
        serde_json::from_str(&output).unwrap()
    };
    let venues = listed(&["venues"]);
    let spot = venues.iter().find(|row| row["venue"] == "okx" && row["market"] == "spot").expect("OKX has spot");
    assert_eq!((&spot["kinds"], &spot["dialect"]), (&"trade book quote venue_status".into(), &"okx".into()));
    let venue = Venue::open(Box::new(Okx::new(Market::new(1, 1))), Script::default());
    let url = venue.rest_url();
    let instruments = ["instruments", "--venue", "okx", "--market", "spot", "--rest-url", &url];
    for symbols in [&[][..], &["BTC-*"], &["BTC-USDT"]] {
        let found = listed(&[&instruments, symbols].concat());
        let [row] = &found[..] else { panic!("{found:?}") };
        assert_eq!((&row["symbol"], &row["venue_symbol"], &row["tick_size"]), (&"BTC-USDT".into(), &"BTC-USDT".into(), &"0.1".into()));
    }
    let cases: [(&[&str], &str); 6] = [
        (&["--venue", "nowhere"], "error: nowhere: there is no venue `nowhere`; the venues are `binance`, `okx`, `bybit`"),
        (
            &["--venue", "okx", "--market", "moon"],
            "error: okx: there is no market `moon`; the markets are `spot`, `swap`, `futures`, `option`",
        ),
        (&["--venue", "okx", "--market", "spot", "--rest-url", &url, "ETH-*"], "`ETH-*` matches no instrument that `spot` list"),
        (&["--venue", "okx", "--market", "spot", "["], "write it like `BTC-USDT`, `BTC-*` or `*`"),
        (&["--venue", "okx", "--rest-url", "nowhere"], "`nowhere` is no address"),
        (&["--venue", "okx", "--proxy", "nowhere"], "`nowhere` is no HTTP proxy"),
    ];
    for (more, expected) in cases {
        let output = marketprism(["instruments"].into_iter().chain(more.iter().copied()));
        assert_eq!((output.status, output.stdout.as_str()), (Some(1), ""), "{more:?}");
        assert!(output.stderr.contains(expected), "{more:?}: {}", output.stderr);
    }
}

#[test]
fn a_query_that_cannot_be_answered_is_explained() {
    let (_folder, data) = quickstart();
    let cases = [
        ("SELECT * FROM tradess", "error: there is no table `tradess`, did you mean `trades`?"),
        ("SELECT symbool FROM trades", "Did you mean 'trades.symbol'?"),
        ("SELECT FROM", "error: SQL error"),
        ("DROP TABLE trades", "not supported"),
    ];
    for (query, expected) in cases {
        let output = sql(&data, query, &[]);
        assert_eq!((output.status, output.stdout.as_str()), (Some(1), ""), "{query}");
        assert!(output.stderr.contains(expected), "{query}: {}", output.stderr);
    }
    let nothing = data.join("nothing");
    let output = sql(&nothing, "SELECT * FROM trades", &[]);
    assert!(output.status == Some(1) && output.stderr.contains("run a pipeline"), "{}", output.stderr);
    assert!(!nothing.exists(), "a query makes no folder");
    let wrong = marketprism(["sql"]);
    assert_eq!(wrong.status, Some(2), "a command that is itself wrong: {}", wrong.stderr);
}

#[test]
fn any_key_can_be_overridden_and_variables_are_expanded() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = folder.path().join("pipeline.toml");
    let text = r#"
name = "variables"

[sources.market]
type = "simulator"
instruments = 2
frames = "${TEST_FRAMES:-1000}"

[operators.trades]
type = "normalise"
inputs = ["market"]
kinds = ["trade"]

[sinks.files]
type = "file"
inputs = ["trades"]
path = "${TEST_OUT}/{kind}.ndjson"
"#;
    std::fs::write(&pipeline, text).unwrap();
    let run = |more: &[&str], variables: &[(&str, &str)]| {
        let mut run = program();
        run.args(["run", pipeline.to_str().unwrap(), "--format", "json", "--data"]).arg(folder.path().join("data")).args(more);
        finish(run.current_dir(folder.path()).env_remove("TEST_OUT").env_remove("TEST_FRAMES").envs(variables.iter().copied()))
    };
    let frames = |output: Output| -> u64 {
        let summary: Value = serde_json::from_str(&output.expect_success()).unwrap();
        summary["nodes"][0]["sent"].as_u64().unwrap()
    };
    let out = ("TEST_OUT", "out");
    let unset = run(&[], &[]);
    assert_eq!(unset.status, Some(1));
    assert!(unset.stderr.contains("the environment variable `TEST_OUT` is not set"), "{}", unset.stderr);
    assert_eq!(frames(run(&[], &[out])), 1_000, "the default");
    assert_eq!(frames(run(&[], &[out, ("TEST_FRAMES", "500")])), 500, "the variable");
    assert_eq!(frames(run(&["--set", "sources.market.frames=250"], &[out, ("TEST_FRAMES", "500")])), 250, "the flag");
    assert!(folder.path().join("out/trade.ndjson").is_file());
    frames(run(&["--set", "sinks.files.path=elsewhere/{kind}.csv"], &[out]));
    assert!(folder.path().join("elsewhere/trade.csv").is_file());

    let misspelt = run(&["--set", "sources.market.framez=250"], &[out]);
    assert_eq!(misspelt.status, Some(1));
    assert!(misspelt.stderr.contains("unknown option `framez`") && misspelt.stderr.contains("command line"), "{}", misspelt.stderr);
    let without_value = run(&["--set", "sources.market.frames"], &[out]);
    assert_eq!(without_value.status, Some(2));
    assert!(without_value.stderr.contains("write KEY=VALUE"), "{}", without_value.stderr);
}

#[test]
fn validate_finds_the_settings_that_a_run_would_refuse() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(root().join("examples/quickstart.toml"), folder.path().join("pipeline.toml")).unwrap();
    std::fs::write(folder.path().join("marketprism.toml"), "worker = 2\n").unwrap();
    let pipeline = folder.path().join("pipeline.toml");
    let file = marketprism(["validate", pipeline.to_str().unwrap()]);
    assert!(file.status == Some(1) && file.stderr.contains("unknown setting `worker`"), "{}", file.stderr);
    let flag = marketprism(["validate", "examples/quickstart.toml", "--set", "hot.ulr=http://h"]);
    assert!(flag.status == Some(1) && flag.stderr.contains("unknown setting `ulr` in `hot`"), "{}", flag.stderr);
}

#[test]
fn a_reader_that_goes_away_ends_a_query_well() {
    let (_folder, data) = quickstart();
    // More than a pipe holds, so that the program is still writing when nobody reads any more.
    let query = "SELECT * FROM trades t CROSS JOIN (SELECT 1 FROM trades LIMIT 100)";
    for format in ["csv", "json", "ndjson", "parquet"] {
        let mut run = program();
        run.args(["sql", query, "--format", format, "--data"]).arg(&data).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = run.spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        std::io::Read::read_exact(&mut out, &mut [0; 4]).unwrap();
        drop(out);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{format}");
    }
}

/// Signals an endless run once it has committed rows; it drains, and every row that it counted is in the tables.
fn drain(signal: &str) {
    /// A run commits within seconds; this is for a machine that stands still.
    const DEADLINE: Duration = Duration::from_secs(120);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut run = program();
    run.args([
        "run",
        "examples/quickstart.toml",
        "--format",
        "json",
        "--set",
        "sources.market.frames=1_000_000_000",
        "--set",
        "sources.market.rate=20_000",
        "--data",
    ]);
    let child = run.arg(&data).current_dir(root()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let committed = data.join("cold/trades/_delta_log/00000000000000000001.json");
    let started = Instant::now();
    while !committed.exists() && started.elapsed() < DEADLINE {
        thread::sleep(Duration::from_millis(20));
    }
    let is_committed = committed.exists();
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(is_committed, "nothing was committed in {} s\n{stderr}", DEADLINE.as_secs());
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    assert!(stderr.contains("draining"), "{stderr}");

    let summary: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&summary["imbalances"], &summary["errors"]), (&serde_json::json!([]), &serde_json::json!([])));
    let sink = summary["nodes"].as_array().unwrap().iter().find(|n| n["name"] == "cold").unwrap();
    let stored = rows(&data, "SELECT count(*) AS n, count(DISTINCT (market, symbol, trade_id)) AS ids FROM trades");
    assert_eq!((&stored[0]["n"], &stored[0]["ids"]), (&sink["arrived"]["trade"], &sink["arrived"]["trade"]));
    assert!(sink["arrived"]["trade"].as_u64() > Some(0));
}

#[test]
fn ctrl_c_drains_and_balances() {
    drain("-INT");
}

#[test]
fn termination_drains_and_balances() {
    drain("-TERM");
}
