//! Broken pipeline files and exactly what their users read. `UPDATE_GOLDEN=1` writes the texts anew: read them then.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use config::{Document, Environment};

use crate::registry::registry;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER)
}

/// Relative, as a user's would be; tests run in the folder of the crate.
const FOLDER: &str = "testdata/broken";

/// The text for a file. Lines `#! KEY=VALUE` at its head are flags, `#! $NAME=VALUE` environment variables.
fn told(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let directives: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("#! ")).collect();
    let flags: Vec<String> = directives.iter().filter(|d| !d.starts_with('$')).map(|d| (*d).to_owned()).collect();
    let environment: Environment = directives.iter().filter_map(|d| d.strip_prefix('$')?.split_once('=')).collect();
    let document = Document::parse(name, &text, Path::new(FOLDER), &flags, &environment);
    match config::check(document, &registry()) {
        Ok((_, warnings)) => format!("{warnings}{}\n", warnings.summary()),
        Err(diagnostics) => {
            let json = diagnostics.to_json();
            assert_eq!(json.as_array().unwrap().len(), diagnostics.iter().count());
            format!("{diagnostics}{}\n", diagnostics.summary())
        }
    }
}

#[test]
fn broken_files_are_explained() {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    assert!(files.len() >= 20, "only {} files", files.len());
    let mut wrong = Vec::new();
    for path in &files {
        let got = told(path);
        assert!(!got.contains("hunter2"), "{} shows a secret:\n{got}", path.display());
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &got).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != got {
            wrong.push(format!("{}:\n{got}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "the texts differ from the golden ones:\n{}", wrong.join("\n"));
}

/// Every sort of error there is has a file, so that each text was read by someone.
#[test]
fn every_code_has_a_file() {
    let mut codes = BTreeSet::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let flags: Vec<String> =
                text.lines().map_while(|l| l.strip_prefix("#! ")).filter(|d| !d.starts_with('$')).map(str::to_owned).collect();
            let document = Document::parse("x", &text, Path::new(FOLDER), &flags, &Environment::default());
            let diagnostics = match config::check(document, &registry()) {
                Ok((_, warnings)) => warnings,
                Err(diagnostics) => diagnostics,
            };
            codes.extend(diagnostics.iter().map(|d| d.code));
        }
    }
    let all = [
        "bad_decimal",
        "bad_duration",
        "bad_expression",
        "bad_name",
        "bad_option",
        "bad_override",
        "bad_reference",
        "bad_size",
        "bad_value",
        "cycle",
        "duplicate_input",
        "duplicate_key",
        "duplicate_name",
        "empty_pipeline",
        "missing_input",
        "missing_key",
        "out_of_range",
        "syntax",
        "unknown_input",
        "unknown_key",
        "unknown_type",
        "unreadable_file",
        "unset_variable",
        "unused",
        "wrong_input",
        "wrong_type",
    ];
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), all);
}
