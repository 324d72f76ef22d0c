//! What the language says about itself.

use config::manual::{explain, options_tables, schema, settings_table};
use config::{Document, Environment};

use crate::registry::registry;

#[test]
fn a_type_is_explained() {
    let text = explain(&registry(), "bars").unwrap();
    assert_eq!(
        text,
        "operator `bars`

Time bars of trades.

Options
  inputs (a list of names, or one name; required)
      The sources and operators it reads.
  every (a duration; required)
      The length of a bar. Bars begin at multiples of it.
  lateness (a duration; default `\"0s\"`)
      Late rows revise a bar until then.
  late (`dead_letter` or `count`; default `\"dead_letter\"`)
      What becomes of later rows. `dead_letter`: They become dead letters. `count`: They are only
      counted.
  where (an SQL expression; optional)
      Trades that count.

Example
  [operators.bars_1m]
  type = \"bars\"
  inputs = [\"trades\"]
  every = \"1m\"
  lateness = \"5s\"
"
    );
}

#[test]
fn nested_options_have_dotted_names() {
    let text = explain(&registry(), "anomaly").unwrap();
    for line in [
        "  detect (a table; required)\n",
        "  detect.price_spike (a table; optional)\n",
        "  detect.price_spike.threshold (a number; required)\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn a_type_that_does_not_exist_is_answered_with_those_that_do() {
    let message = explain(&registry(), "barz").unwrap_err();
    assert_eq!(
        message,
        "there is no component of type `barz`; did you mean `bars`?\nsources: `file` and `simulator`\noperators: `normalise`, `bars` and `anomaly`\nsinks: `store` and `print`"
    );
}

#[test]
fn the_manual_has_a_table_for_every_type() {
    let text = options_tables(&registry());
    for heading in [
        "## Sources\n",
        "### `file`\n",
        "### `simulator`\n",
        "## Operators\n",
        "### `normalise`\n",
        "### `bars`\n",
        "### `anomaly`\n",
        "## Sinks\n",
        "### `store`\n",
        "### `print`\n",
    ] {
        assert!(text.contains(heading), "{heading}");
    }
    assert!(text.contains("| `lateness` | a duration | `\"0s\"` | Late rows revise a bar until then. |"), "{text}");
    assert!(text.contains("| `password` | a secret text |  | The password. |"), "{text}");
    assert!(text.contains("| `pace` | `max` or a number |"), "{text}");
    assert!(text.contains("| `disorder` | a duration | `\"0s\"` |"), "{text}");
    assert!(settings_table().contains("| `hot.keep_days` | a whole number | `7` |"), "{}", settings_table());
}

/// The examples of the manual are what users copy first.
#[test]
fn every_example_passes_the_check_in_a_pipeline() {
    let registry = registry();
    let examples = |roles: [&str; 3]| {
        let all = registry
            .sources
            .iter()
            .map(|d| d.example)
            .chain(registry.operators.iter().map(|d| d.example))
            .chain(registry.sinks.iter().map(|d| d.example));
        all.filter(|e| roles.iter().any(|r| e.starts_with(r))).collect::<Vec<_>>().join("\n")
    };
    let text = format!(
        "name = \"examples\"\n{}",
        examples(["[sources.", "[operators.", "[sinks."]).replacen("[sources.trades]", "[sources.recorded]", 1)
    );
    let environment: Environment = [("PASSWORD", "x")].into_iter().collect();
    let document = Document::parse("examples.toml", &text, std::path::Path::new(""), &[], &environment);
    let (graph, _) = config::check(document, &registry).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(graph.sources.len() + graph.operators.len() + graph.sinks.len(), 7);
}

#[test]
fn the_schema_for_editors_stands_by_itself() {
    let schema = schema(&registry());
    let bars = &schema["$defs"]["operator.bars"];
    assert_eq!(bars["properties"]["type"]["const"], "bars");
    assert_eq!(bars["additionalProperties"], false);
    let required: Vec<&str> = bars["required"].as_array().unwrap().iter().filter_map(|r| r.as_str()).collect();
    assert_eq!(required, ["every", "type", "inputs"]);
    assert_eq!(schema["properties"]["sinks"]["additionalProperties"]["oneOf"].as_array().unwrap().len(), 2);
    // A reference may stand where a number is wanted.
    let simulator = &schema["$defs"]["source.simulator"]["properties"];
    assert_eq!(simulator["instruments"]["type"], serde_json::json!(["integer", "string"]));
    assert_eq!(simulator["frames"]["type"], serde_json::json!(["integer", "null", "string"]));
    assert_eq!(simulator["frames"]["pattern"], r"^\$\{.*\}$");
    let mut targets = Vec::new();
    references(&schema, &mut targets);
    assert!(targets.len() > 7);
    for target in targets {
        assert!(schema.pointer(target.strip_prefix('#').unwrap()).is_some(), "{target} leads nowhere");
    }
}

fn references(json: &serde_json::Value, targets: &mut Vec<String>) {
    match json {
        serde_json::Value::Object(object) => {
            targets.extend(object.get("$ref").and_then(|r| r.as_str()).map(str::to_owned));
            object.values().for_each(|v| references(v, targets));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|v| references(v, targets)),
        _ => {}
    }
}
