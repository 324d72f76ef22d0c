//! The pages of the operators: each is what the program says of itself, and its example runs.
//!
//! `UPDATE_GOLDEN=1` writes the pages anew: read them then.

use std::path::Path;

use tests::program::{marketprism, root};

const FOLDER: &str = "docs/operators";

/// Nodes that examples name as their inputs.
const UPSTREAM: &str = r#"
name = "example"

[sources.market]
type = "simulator"
frames = 5_000
instruments = 2
disorder = "500ms"

[operators.records]
type = "normalise"
inputs = ["market"]
kinds = ["trade", "quote", "book_delta", "book_snapshot", "instrument"]

[operators.market_data]
type = "filter"
inputs = ["records"]
where = "true"
"#;

/// Further nodes, where the example is not of that name itself.
const NAMED: [(&str, &str); 2] =
    [("trades", "type = \"normalise\"\ninputs = [\"market\"]\nkinds = [\"trade\"]"), ("books", "type = \"book\"\ninputs = [\"records\"]")];

#[test]
fn every_operator_has_a_page_that_is_up_to_date() {
    let mut expected = Vec::new();
    let mut old = Vec::new();
    for operator in operators::registry() {
        let path = Path::new(FOLDER).join(operator.name).with_extension("md");
        let page = marketprism(["reference", operator.name]).expect_success();
        for promise in ["**late rows**", "**corrections**", "**gap", "**idle source", "**state**"] {
            assert!(page.to_lowercase().contains(promise), "{}: nothing is said of {promise}", operator.name);
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(root().join(&path), &page).unwrap();
        } else if std::fs::read_to_string(root().join(&path)).unwrap_or_default() != page {
            old.push(format!("marketprism reference {} > {}", operator.name, path.display()));
        }
        expected.push(path);
    }
    assert!(old.is_empty(), "pages are old, write them anew:\n{}", old.join("\n"));
    let entries = std::fs::read_dir(root().join(FOLDER)).unwrap();
    let mut found: Vec<_> = entries.map(|entry| Path::new(FOLDER).join(entry.unwrap().file_name())).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "a page without an operator");
}

#[test]
fn the_example_of_every_page_runs() {
    for operator in operators::registry() {
        let example = operator.example;
        let name = example.split("[operators.").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
        let upstream = NAMED.iter().filter(|(other, _)| *other != name && example.contains(&format!("\"{other}\"")));
        let upstream: String = upstream.map(|(name, options)| format!("[operators.{name}]\n{options}\n\n")).collect();
        let sink = format!("[sinks.cold]\ntype = \"parquet\"\ninputs = [\"{name}\"]\n");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipeline.toml");
        std::fs::write(&file, format!("{UPSTREAM}\n{upstream}{example}\n{sink}")).unwrap();
        let arguments = ["run", file.to_str().unwrap(), "--data", folder.path().to_str().unwrap()];
        let summary = marketprism(arguments).expect_success();
        assert!(summary.contains("the books balance"), "{name}: {summary}");
    }
}
