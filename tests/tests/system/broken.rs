//! Broken pipeline files of real components, and exactly what `marketprism validate` says about each.
//!
//! `tests/broken/NN-what.toml` has its text in `NN-what.txt`. `UPDATE_GOLDEN=1` writes the texts anew: read them then.

use std::path::PathBuf;

use serde_json::Value;
use tests::program::{finish, marketprism, program, root};

const FOLDER: &str = "tests/broken";

/// The files, as a user in the root of the repository names them.
fn files() -> Vec<String> {
    let entries = std::fs::read_dir(root().join(FOLDER)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = names.filter(|name| name.ends_with(".toml")).map(|name| format!("{FOLDER}/{name}")).collect();
    files.sort();
    files
}

#[test]
fn every_broken_file_is_explained() {
    let files = files();
    assert!(files.len() >= 30, "{} files", files.len());
    let mut wrong = Vec::new();
    for file in &files {
        let output = marketprism(["validate", file]);
        let told = output.stderr;
        assert_eq!(output.stdout, "", "{file}");
        assert!(!told.contains("do-not-print-me"), "{file} shows a secret:\n{told}");
        assert!(told.contains(file.as_str()), "{file} is not named:\n{told}");
        let status = i32::from(told.contains("error:"));
        assert_eq!(output.status, Some(status), "{file}: warnings alone are no failure\n{told}");
        let golden: PathBuf = root().join(file).with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &told).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != told {
            wrong.push(format!("{file}:\n{told}"));
        }
    }
    assert!(wrong.is_empty(), "the texts differ from the golden ones:\n{}", wrong.join("\n"));
}

/// Whatever is not good enough to run is not run, and says the same.
#[test]
fn a_broken_file_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("{FOLDER}/40-several-at-once.toml");
    let told = marketprism(["validate", &file]).stderr;
    for command in ["run", "graph"] {
        let mut broken = program();
        let output = finish(broken.args([command, &file, "--data"]).arg(folder.path().join("data")).current_dir(root()));
        assert_eq!((output.status, &output.stderr, output.stdout.as_str()), (Some(1), &told, ""), "{command}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was touched");
}

#[test]
fn several_files_are_checked_at_once() {
    let files = [format!("{FOLDER}/01-unknown-key.toml"), "examples/quickstart.toml".to_owned(), format!("{FOLDER}/23-unknown-type.toml")];
    let output = marketprism([&["validate".to_owned()], &files[..]].concat());
    assert_eq!(output.status, Some(1));
    assert!(
        output.stderr.contains(&files[0]) && output.stderr.contains(&files[2]) && !output.stderr.contains(&files[1]),
        "{}",
        output.stderr
    );
    assert!(output.stderr.ends_with("2 errors\n"), "{}", output.stderr);
}

#[test]
fn errors_are_json_for_programs() {
    let file = format!("{FOLDER}/40-several-at-once.toml");
    let output = marketprism(["validate", "--format", "json", &file]);
    assert_eq!((output.status, output.stderr.as_str()), (Some(1), ""));
    let errors: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
    let text = std::fs::read_to_string(root().join(&file)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // Code, and what is underlined: taken from the file at the places that the errors name.
    let told: Vec<(&str, &str)> = errors
        .iter()
        .map(|error| {
            let number = |key: &str| error[key].as_u64().unwrap() as usize;
            assert_eq!((&error["file"], &error["severity"], number("line")), (&file.as_str().into(), &"error".into(), number("endLine")));
            assert!(["message", "help"].iter().all(|key| !error[key].as_str().unwrap().is_empty()), "{error}");
            (error["code"].as_str().unwrap(), &lines[number("line") - 1][number("column") - 1..number("endColumn") - 1])
        })
        .collect();
    let expected = [
        ("unknown_key", "rates"),
        ("wrong_type", "5"),
        ("bad_duration", "\"5 sec ago\""),
        ("unknown_type", "\"parkett\""),
        ("unknown_input", "\"bars_5m\""),
    ];
    assert_eq!(told, expected);
}
