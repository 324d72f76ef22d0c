//! `${VAR}`, `${VAR:-default}` and `${file:PATH}` in values.
//!
//! What they stand for is not expanded again, so no value can smuggle in another. `$$` is a dollar sign, and so is
//! a `$` before anything else. A value that is one reference and nothing else may stand for a number or a list as
//! well as for text; the option decides.

use std::io::Read;
use std::path::Path;

use crate::diagnostic::{Finding, Place, Source, looks_secret};
use crate::document::{Data, Environment, Table, Value, reading, reason};

/// Expands every text in the table. Values from the environment are left as they are.
pub(crate) fn expand(table: &mut Table, sources: &[Source], environment: &Environment, findings: &mut Vec<Finding>) {
    for entry in &mut table.0 {
        value(&mut entry.value, &mut Expander { sources, environment, findings });
    }
}

struct Expander<'a> {
    sources: &'a [Source],
    environment: &'a Environment,
    findings: &'a mut Vec<Finding>,
}

fn value(value: &mut Value, cx: &mut Expander<'_>) {
    match &mut value.data {
        Data::Table(table) => table.0.iter_mut().for_each(|e| self::value(&mut e.value, cx)),
        Data::List(items) => items.iter_mut().for_each(|v| self::value(v, cx)),
        Data::Text(text) if text.contains('$') => {
            let Some(folder) = &cx.sources[value.place.source].folder else { return };
            match expanded(text, folder, cx.environment) {
                Ok(Expanded { text: new, whole, hidden }) => {
                    value.alternative = whole.then(|| reading(&new, value.place).map(Box::new)).flatten();
                    value.data = Data::Text(new);
                    value.hidden = hidden;
                }
                Err(problem) => {
                    let place = problem.place(cx.sources, value.place);
                    cx.findings.push(Finding::error(problem.code, place, problem.message, problem.help));
                    value.data = Data::Unknown;
                    value.alternative = None;
                }
            }
        }
        _ => {}
    }
}

#[derive(Debug, PartialEq)]
struct Expanded {
    text: String,
    /// Whether the text was one reference and nothing else.
    whole: bool,
    /// Whether it comes from a file or from a variable that is named like a secret.
    hidden: bool,
}

/// A reference that stands for nothing.
#[derive(Debug, PartialEq)]
struct Problem {
    code: &'static str,
    reference: String,
    message: String,
    help: String,
}

impl Problem {
    fn new(code: &'static str, reference: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Problem { code, reference: reference.to_owned(), message: message.into(), help: help.into() }
    }

    /// The reference within the value, if it is written there as it is.
    fn place(&self, sources: &[Source], value: Place) -> Place {
        match sources[value.source].text[value.start..value.end].find(&self.reference) {
            Some(at) => Place { start: value.start + at, end: value.start + at + self.reference.len(), ..value },
            None => value,
        }
    }
}

fn expanded(text: &str, folder: &Path, environment: &Environment) -> Result<Expanded, Problem> {
    let mut out = Expanded { text: String::with_capacity(text.len()), whole: false, hidden: false };
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.text.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.text.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let Some(length) = after.find('}') else {
                return Err(Problem::new("bad_reference", rest, "`${` has no closing `}`", "close it, or write `$$` for a dollar sign"));
            };
            let reference = &rest[..length + 3];
            out.whole = reference.len() == text.len();
            match after[..length].strip_prefix("file:") {
                Some(path) => {
                    out.hidden = true;
                    out.text.push_str(&file(reference, path, folder)?);
                }
                None => {
                    out.hidden |= looks_secret(&after[..length]);
                    out.text.push_str(variable(reference, &after[..length], environment)?);
                }
            }
            rest = &rest[reference.len()..];
        } else {
            out.text.push('$');
            rest = &rest[1..];
        }
    }
    out.text.push_str(rest);
    Ok(out)
}

fn variable<'a>(reference: &str, inner: &'a str, environment: &'a Environment) -> Result<&'a str, Problem> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let is_name =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if !is_name || default.is_some_and(|d| d.contains("${")) {
        return Err(Problem::new(
            "bad_reference",
            reference,
            "this is no reference to a variable or a file",
            "write `${VAR}`, `${VAR:-default}` or `${file:PATH}`, or `$$` for a dollar sign",
        ));
    }
    match (environment.get(name), default) {
        // As in a shell, a default stands in for an empty variable, too.
        (None | Some(""), Some(default)) => Ok(default),
        (Some(value), _) => Ok(value),
        (None, None) => Err(Problem::new(
            "unset_variable",
            reference,
            format!("the environment variable `{name}` is not set"),
            format!("set it, or give a default: `${{{name}:-default}}`"),
        )),
    }
}

fn file(reference: &str, path: &str, folder: &Path) -> Result<String, Problem> {
    /// More than any secret needs, and less than a wrong path can hurt.
    const LIMIT: u64 = 1 << 20;
    let path = folder.join(path);
    let mut text = String::new();
    let read = std::fs::File::open(&path).and_then(|f| f.take(LIMIT + 1).read_to_string(&mut text));
    let problem = match read {
        Ok(length) if length as u64 <= LIMIT => return Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Ok(_) => "it is larger than 1 MB".into(),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => "it is not UTF-8 text".into(),
        Err(error) => reason(&error),
    };
    Err(Problem::new(
        "unreadable_file",
        reference,
        format!("the file `{}` cannot be read: {problem}", path.display()),
        "check the path (a relative one starts at the folder of this file) and that you may read it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        [("A", "1"), ("EMPTY", ""), ("TRICK", "${A}")].into_iter().collect()
    }

    fn text(text: &str) -> String {
        expanded(text, Path::new("."), &environment()).unwrap().text
    }

    #[test]
    fn references_stand_for_what_they_name() {
        assert_eq!(text("x${A}y${A}"), "x1y1");
        assert_eq!(text("${B:-two}"), "two");
        assert_eq!(text("${EMPTY:-two}"), "two");
        assert_eq!(text("${EMPTY}"), "");
        assert_eq!(text("${B:-}"), "");
        assert_eq!(text("$${A} costs $5 or $"), "${A} costs $5 or $");
        assert_eq!(text("${TRICK}"), "${A}");
    }

    #[test]
    fn a_file_gives_its_text_without_the_last_newline() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "s3cret\n").unwrap();
        let got = expanded("${file:key}", folder.path(), &environment()).unwrap();
        assert_eq!(got, Expanded { text: "s3cret".into(), whole: true, hidden: true });
        let problem = expanded("${file:none}", folder.path(), &environment()).unwrap_err();
        assert!(problem.message.contains("there is no such file"), "{}", problem.message);
    }

    #[test]
    fn what_stands_for_nothing_is_an_error() {
        for (bad, message) in [
            ("${NONE}", "the environment variable `NONE` is not set"),
            ("a ${A", "`${` has no closing `}`"),
            ("${}", "this is no reference to a variable or a file"),
            ("${9}", "this is no reference to a variable or a file"),
            ("${A:-${B}}", "this is no reference to a variable or a file"),
        ] {
            assert_eq!(expanded(bad, Path::new("."), &environment()).unwrap_err().message, message, "{bad}");
        }
    }
}
