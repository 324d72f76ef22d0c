//! Pipelines that are right, and what the check makes of them.

use std::path::Path;

use config::{Diagnostics, Document, Environment, Graph};

use crate::registry::{Operator, Sink, Source, registry};

type Checked = Graph<dyn Source, dyn Operator, dyn Sink>;

pub const QUICKSTART: &str = r#"
name = "quickstart"

[sinks.cold]
type = "store"
inputs = ["trades", "bars_1m", "spikes"]
url = "${URL:-http://localhost}"
password = "${PASSWORD}"

[operators.bars_1m]
type = "bars"
inputs = "trades"
every = "1m"
lateness = "5s"
late = "dead_letter"
where = "price > 0"

[operators.trades]
type = "normalise"
inputs = ["market"]
kinds = ["trade"]

[operators.spikes]
type = "anomaly"
inputs = ["trades"]
detect = { price_spike = { window = "5m", threshold = 6 } }

[sources.market]
type = "simulator"
instruments = 20
frames = "${FRAMES:-1000}"
ticks = { "BTC-USDT" = 0.10, "ETH-USDT" = "0.01" }
"#;

fn check_with(text: &str, flags: &[&str]) -> Result<(Checked, Diagnostics), Diagnostics> {
    let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
    let environment: Environment = [("PASSWORD", "hunter2")].into_iter().collect();
    config::check(Document::parse("p.toml", text, Path::new(""), &flags, &environment), &registry())
}

fn check(text: &str) -> Checked {
    let (graph, warnings) = check_with(text, &[]).unwrap_or_else(|e| panic!("{e}"));
    assert!(warnings.is_empty(), "{warnings}");
    graph
}

#[test]
fn nodes_come_in_the_order_of_the_flow() {
    let graph = check(QUICKSTART);
    let names: Vec<&str> = graph.operators.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["trades", "bars_1m", "spikes"]);
    assert_eq!(graph.operators[1].inputs, ["trades"]);
    assert_eq!(graph.readers("trades"), ["bars_1m", "spikes", "cold"]);
    let kinds: Vec<&str> = graph.operators[1].outputs.iter().map(|k| k.name.as_ref()).collect();
    assert_eq!(kinds, ["bar", "dead_letter"]);
}

#[test]
fn options_arrive_and_secrets_stay_hidden() {
    let graph = check(QUICKSTART);
    let sink = &graph.sinks[0];
    assert_eq!(sink.component.password(), "hunter2");
    assert_eq!(sink.options, serde_json::json!({ "url": "http://localhost", "password": "***" }));
    assert!(!format!("{graph:?}").contains("hunter2"));
    let source = &graph.sources[0].options;
    // A reference may stand for a number, and a decimal keeps the digits it was written with.
    assert_eq!(*source, serde_json::json!({ "instruments": 20, "frames": 1000, "ticks": { "BTC-USDT": "0.10", "ETH-USDT": "0.01" } }));
}

#[test]
fn flags_override_and_add() {
    let (graph, _) = check_with(
        QUICKSTART,
        &["operators.bars_1m.every=5m", "sources.market.repeat=true", "sinks.out.type=print", "sinks.out.inputs=[\"spikes\"]"],
    )
    .unwrap();
    assert_eq!(graph.operators[1].options["every"], "5m");
    assert_eq!(graph.sources[0].options["repeat"], true);
    assert_eq!(graph.sinks[1].inputs, ["spikes"]);
}

#[test]
fn a_flag_can_be_text_that_looks_like_a_number() {
    let text = "name = \"n\"\n[sources.a]\ntype = \"file\"\npath = \"x\"\n[sinks.b]\ntype = \"print\"\ninputs = \"a\"\n";
    let (graph, _) = check_with(text, &["sources.a.path=2024", "name=7", "sources.a.pace=2"]).unwrap();
    assert_eq!(
        (graph.name.as_str(), &graph.sources[0].options["path"], &graph.sources[0].options["pace"]),
        ("7", &"2024".into(), &2.into())
    );
}

#[test]
fn the_hash_tells_what_is_computed() {
    let hash = check(QUICKSTART).plan_hash();
    assert_eq!(hash.len(), 16);
    let reordered = QUICKSTART.replace("every = \"1m\"\nlateness = \"5s\"", "lateness = \"5s\" # five\nevery = \"1m\"");
    assert_ne!(reordered, QUICKSTART);
    assert_eq!(check(&reordered).plan_hash(), hash);
    let (other_secret, _) = check_with(QUICKSTART, &["sinks.cold.password=other"]).unwrap();
    assert_eq!(other_secret.plan_hash(), hash);
    for flag in
        ["operators.bars_1m.every=2m", "name=other", "sinks.cold.inputs=[\"bars_1m\", \"trades\", \"spikes\"]", "sinks.more.type=print"]
    {
        let flags: Vec<&str> = [flag].into_iter().chain((flag.starts_with("sinks.more")).then_some("sinks.more.inputs=trades")).collect();
        assert_ne!(check_with(QUICKSTART, &flags).unwrap().0.plan_hash(), hash, "{flag}");
    }
    // It stands in tokens of what was written before, so it must never change by itself.
    assert_eq!(hash, "5aaae9e6041e9e04");
}

#[test]
fn the_graph_is_drawn_in_text() {
    let text = check(QUICKSTART).to_text();
    assert!(
        text.starts_with(
            "pipeline quickstart\n\nsource market (simulator)\n  → trades\n    frame: source label, dialect label, receive_time time?, frame integer,"
        ),
        "{text}"
    );
    assert!(
        text.contains("\noperator trades (normalise) ← market\n  → bars_1m, spikes, cold\n    trade: venue label, market label,"),
        "{text}"
    );
    assert!(text.ends_with("\nsink cold (store) ← trades, bars_1m, spikes\n"), "{text}");
    for kind in [&model::kinds::TRADE, &model::kinds::BAR] {
        for column in &kind.columns {
            assert!(text.contains(column.name.as_ref()), "{}", column.name);
        }
    }
    assert!(text.lines().all(|l| l.chars().count() <= 110), "{text}");
}

#[test]
fn the_graph_is_drawn_in_mermaid() {
    let text = check(QUICKSTART).to_mermaid();
    assert!(text.starts_with("flowchart LR\n    n0([\"market<br/><small>simulator</small>\"])\n    n1[\"trades"), "{text}");
    assert!(
        text.contains("    n0 -->|\"<b>frame</b><br/>source, dialect, receive_time, frame,<br/>connection, topic, payload\"| n1\n"),
        "{text}"
    );
    assert_eq!(text.matches("-->|").count(), 6, "{text}");
}

#[test]
fn warnings_come_beside_the_graph() {
    let (_, warnings) = check_with(QUICKSTART, &["sinks.cold.inputs=[\"trades\", \"bars_1m\"]", "operators.bars_1m.lateness=2m"]).unwrap();
    let messages: Vec<&str> = warnings.iter().map(|d| d.message.as_str()).collect();
    assert_eq!(messages, ["nothing reads operator `spikes`", "late rows are awaited for longer than a bar"]);
    assert!(!warnings.has_errors());
    assert_eq!(warnings.summary(), "2 warnings");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_like_any_other() {
    let error = Document::read(Path::new("none/such.toml"), &[], &Environment::default()).unwrap_err();
    assert_eq!(
        error.iter().next().unwrap().to_string(),
        "none/such.toml:1:1: error: `none/such.toml` cannot be read: there is no such file"
    );
    let folder = tempfile::tempdir().unwrap();
    assert!(Document::read(folder.path(), &[], &Environment::default()).is_err());
}

#[test]
fn secrets_are_read_beside_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "from-file\n").unwrap();
    let path = folder.path().join("p.toml");
    std::fs::write(&path, QUICKSTART.replace("${PASSWORD}", "${file:password}")).unwrap();
    let (graph, _) = config::check(Document::read(&path, &[], &Environment::default()).unwrap(), &registry()).unwrap();
    assert_eq!(graph.sinks[0].component.password(), "from-file");
}
