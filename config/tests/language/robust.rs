//! Whatever is in a file, the answer is a graph or diagnostics whose places exist; never a panic.

use std::path::Path;

use config::{Document, Environment};
use proptest::prelude::*;

use crate::checked::QUICKSTART;
use crate::registry::registry;

fn answer(text: &str, flags: &[String]) {
    let environment: Environment = [("A", "1"), ("PASSWORD", "hunter2")].into_iter().collect();
    let document = Document::parse("p.toml", text, Path::new("/nonexistent"), flags, &environment);
    let diagnostics = match config::check(document, &registry()) {
        Ok((graph, warnings)) => {
            assert!(!graph.to_text().is_empty() && !graph.to_mermaid().is_empty() && !graph.plan_hash().is_empty());
            warnings
        }
        Err(diagnostics) => {
            assert!(diagnostics.has_errors());
            diagnostics
        }
    };
    let rendered = diagnostics.to_string();
    assert!(!rendered.contains("hunter2"), "{rendered}");
    for diagnostic in diagnostics.iter() {
        assert!(!diagnostic.message.is_empty());
        assert!(
            diagnostic.line >= 1
                && diagnostic.column >= 1
                && (diagnostic.end_line, diagnostic.end_column) >= (diagnostic.line, diagnostic.column)
        );
        if diagnostic.file == "p.toml" {
            assert!(text.get(diagnostic.span.clone()).is_some(), "{diagnostic:?}");
        }
    }
    assert_eq!(diagnostics.to_json().as_array().unwrap().len(), diagnostics.iter().count());
}

/// Pieces that TOML and the language are made of, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "\n",
        "\n\n",
        " ",
        "=",
        " = ",
        ".",
        ",",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "\"",
        "'",
        "\"\"\"",
        "'''",
        "#",
        "\\",
        "\r",
        "\r\n",
        "\t",
        "\u{feff}",
        "\u{0}",
        "ü",
        "日本",
        "name",
        "type",
        "inputs",
        "sources",
        "operators",
        "sinks",
        "[sources.a]",
        "[operators.b]",
        "[sinks.c]",
        "[operators.\"\"]",
        "a",
        "b",
        "c",
        "every",
        "password",
        "kinds",
        "detect",
        "price_spike",
        "window",
        "ticks",
        "\"a\"",
        "\"b\"",
        "\"c\"",
        "\"file\"",
        "\"bars\"",
        "\"normalise\"",
        "\"store\"",
        "\"print\"",
        "\"anomaly\"",
        "\"1m\"",
        "\"trade\"",
        "1",
        "-1",
        "1.5",
        "nan",
        "inf",
        "1e999",
        "99999999999999999999",
        "0x",
        "true",
        "1979-05-27",
        "\"${A}\"",
        "\"${B}\"",
        "\"${B:-x}\"",
        "\"${file:x}\"",
        "\"${\"",
        "\"$$\"",
        "\"\\u0041\"",
        "password = \"x\"",
        "path = \"x\"\n",
        "url = \"x\"\n",
        "type = \"file\"\n",
        "type = \"bars\"\n",
        "inputs = [\"b\"]\n",
        "inputs = \"a\"\n",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in "(?s).{0,200}") {
        answer(&text, &[]);
    }

    #[test]
    fn anything_like_a_pipeline_is_answered(text in pieces()) {
        answer(&text, &[]);
    }

    #[test]
    fn a_pipeline_with_a_part_replaced_is_answered(from in 0..700_usize, length in 0..40_usize, by in pieces()) {
        let floor = |at: usize| (0..=at.min(QUICKSTART.len())).rev().find(|&i| QUICKSTART.is_char_boundary(i)).unwrap_or(0);
        let (start, end) = (floor(from), floor(from + length));
        answer(&format!("{}{by}{}", &QUICKSTART[..start], &QUICKSTART[end..]), &[]);
    }

    #[test]
    fn any_flag_is_answered(flag in prop_oneof!["[ -~]{0,30}", "(name|sources|operators|sinks)(\\.(market|trades|x|\"y z\")){0,2}(\\.(type|inputs|every|password)){0,1}=[ -~]{0,12}"]) {
        answer(QUICKSTART, &[flag]);
    }
}

/// Long chains and rings of nodes do not exhaust the stack.
#[test]
fn many_nodes_are_answered() {
    let mut text = String::from("name = \"chain\"\n[sources.n0]\ntype = \"file\"\npath = \"x\"\n");
    for i in 1..3000 {
        text.push_str(&format!("[operators.n{i}]\ntype = \"normalise\"\nkinds = [\"trade\"]\ninputs = \"n{}\"\n", i - 1));
    }
    answer(&text, &[]);
    answer(&text.replace("inputs = \"n0\"", "inputs = \"n2999\""), &[]);
}
