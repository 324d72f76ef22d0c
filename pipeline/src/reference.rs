//! The manual's reference pages, made from the declarations that the program runs on.

use std::fmt::Write as _;

use config::manual;
use model::kinds;

use crate::plan::registry;

/// `docs/reference.md`: every component's options, every setting, every kind's columns.
pub fn markdown() -> String {
    let mut page = String::from("# Reference\n\nMade by `marketprism reference` from the program's own declarations.\n\n## Components\n\n");
    page.push_str(&manual::options_tables(&registry()));
    page.push_str("\n## Settings\n\nIn `marketprism.toml` beside the pipeline, as environment variables (`MARKETPRISM_HOT__URL`), or with `--set`.\n\n");
    page.push_str(&manual::settings_table());
    page.push_str("\n## Kinds of record\n");
    for kind in kinds::all() {
        let table = kind.table.as_ref().map_or_else(|| "not stored".to_owned(), |t| format!("table `{t}`"));
        let key = if kind.key.is_empty() {
            String::new()
        } else {
            format!(", key {}", kind.key.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", "))
        };
        let revisable = if kind.revisable { ", revisable" } else { "" };
        let _ = writeln!(
            page,
            "\n### `{}`\n\n{}\n\n{table}{key}{revisable}\n\n| column | type | meaning |\n| --- | --- | --- |",
            kind.name, kind.doc
        );
        for column in &kind.columns {
            let null = if column.nullable { ", may be null" } else { "" };
            let _ = writeln!(page, "| `{}` | {}{null} | {} |", column.name, column.ty, column.doc);
        }
    }
    page
}
