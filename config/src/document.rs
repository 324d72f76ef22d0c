//! The text of a pipeline or settings file as a tree of values, each of which knows where it came from.
//!
//! Layers lie over each other in rising order: the file, the environment (settings only), flags. What a
//! layer sets, it replaces, and a problem with a value is reported at the layer that set it. Errors of
//! syntax are gathered, not thrown: the parts of the file that they do not touch are checked all the same,
//! and nothing is reported that is only their consequence.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostics, Finding, Place, Source};
use crate::expand;
use crate::syntax;

/// Variables that `${VAR}` and settings are taken from.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process; those that are not Unicode are left out.
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
    }

    /// The variable of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Environment(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    pub data: Data,
    pub place: Place,
    /// What it can also mean, if the option wants that: `--set a=1` may be a number or a text, `${N}` too.
    pub alternative: Option<Box<Data>>,
    /// Whether it came from a `${file:...}` or from a variable that is named like a secret: then no message repeats it.
    pub hidden: bool,
}

impl Value {
    fn new(data: Data, place: Place) -> Self {
        Value { data, place, alternative: None, hidden: false }
    }

    /// The table that it is.
    pub fn table(&self) -> Option<&Table> {
        match &self.data {
            Data::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The text that it is or can mean.
    pub fn text(&self) -> Option<&str> {
        [Some(&self.data), self.alternative.as_deref()].into_iter().flatten().find_map(|data| match data {
            Data::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Text(String),
    /// Beyond 64 bits only so that the checker can say that it is too large.
    Integer(i128),
    /// The number, and how it was written.
    Float(f64, String),
    Boolean(bool),
    /// A date or time, as it was written.
    Datetime(String),
    List(Vec<Value>),
    Table(Table),
    /// Not known, because of an error that was reported.
    Unknown,
}

/// Keys with their values, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table(pub Vec<Entry>);

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub key: String,
    pub place: Place,
    pub value: Value,
}

impl Table {
    /// The entry of this key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|e| e.key == key)
    }

    /// Puts a value at a path of keys, making the tables on the way.
    ///
    /// # Errors
    /// How many keys lead to something that is no table.
    fn set(&mut self, path: &[(String, Place)], value: Value) -> Result<(), usize> {
        let [(key, place), rest @ ..] = path else { return Ok(()) };
        let index = self.0.iter().position(|e| e.key == *key).unwrap_or_else(|| {
            self.0.push(Entry { key: key.clone(), place: *place, value: Value::new(Data::Table(Table::default()), *place) });
            self.0.len() - 1
        });
        let entry = &mut self.0[index];
        if rest.is_empty() {
            entry.place = *place;
            entry.value = value;
            return Ok(());
        }
        match &mut entry.value.data {
            Data::Table(table) => table.set(rest, value).map_err(|depth| depth + 1),
            _ => Err(1),
        }
    }
}

/// A file that was read, with the layers over it.
#[derive(Debug)]
pub struct Document {
    pub(crate) sources: Vec<Source>,
    pub(crate) root: Table,
    pub(crate) findings: Vec<Finding>,
    /// Where the syntax is broken, in bytes of the file.
    broken: Vec<usize>,
}

impl Document {
    /// Reads a pipeline file. `overrides` are `KEY=VALUE` as in `--set`.
    ///
    /// # Errors
    /// A file that cannot be read or is no text. Errors in the text are reported by the check, with all others.
    pub fn read(path: &Path, overrides: &[String], environment: &Environment) -> Result<Document, Diagnostics> {
        let name = path.display().to_string();
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        match std::fs::read(path) {
            Ok(bytes) => Ok(Document::parse(&name, &decode(&name, bytes)?, &folder, overrides, environment)),
            Err(error) => Err(unreadable(&name, &error)),
        }
    }

    /// Like [`Document::read`], from a text. `name` stands for it in diagnostics, and relative `${file:PATH}`s start
    /// in `folder`.
    pub fn parse(name: &str, text: &str, folder: &Path, overrides: &[String], environment: &Environment) -> Document {
        let mut document = Document::of(name, text, folder);
        document.set_flags(overrides);
        document.expand(environment);
        document
    }

    /// The file alone.
    pub(crate) fn of(name: &str, text: &str, folder: &Path) -> Document {
        let mut source = Source::new(name, text);
        source.folder = Some(folder.to_owned());
        let (closed, mut errors) = syntax::close(text);
        let (root, found) = DeTable::parse_recoverable(&closed);
        errors.add(&closed, found);
        let place = |span: Range<usize>| within(text, Place { source: 0, start: span.start, end: span.end });
        // What was blanked out may have had longer characters.
        let findings = errors.findings.into_iter().map(|f| Finding { place: within(text, f.place), ..f }).collect();
        let broken = errors.broken.into_iter().map(|at| place(at..at).start).collect();
        Document { root: table(root.into_inner(), &place), sources: vec![source], findings, broken }
    }

    /// Lays flags over it: `KEY=VALUE`, the value as in TOML if it is that, else as text.
    pub(crate) fn set_flags(&mut self, flags: &[String]) {
        for flag in flags {
            let mut source = Source::new(COMMAND_LINE, flag.as_str());
            source.folder = Some(PathBuf::new());
            let number = self.add(source);
            let whole = Place { source: number, start: 0, end: flag.len() };
            match flag.split_once('=').and_then(|(key, value)| Some((key_path(key, number)?, value))) {
                Some((path, value)) => self.lay_over(&path, value, Place { start: flag.len() - value.len(), ..whole }),
                None => self.findings.push(Finding::error(
                    "bad_override",
                    whole,
                    format!("`{flag}` is not of the form KEY=VALUE"),
                    "write a key with dots and a value, e.g. `sources.trades.path=data/trades.gz`",
                )),
            }
        }
    }

    /// Lays one environment variable over it, at the keys that its name spells after `prefix`. Its value is taken as it is.
    pub(crate) fn set_variable(&mut self, prefix: &str, name: &str, value: &str) {
        let number = self.add(Source::new(ENVIRONMENT, format!("{name}={value}")));
        let mut start = prefix.len();
        let mut path = Vec::new();
        for part in name[prefix.len()..].split(NESTING) {
            path.push((part.to_lowercase(), Place { source: number, start, end: start + part.len() }));
            start += part.len() + NESTING.len();
        }
        self.lay_over(&path, value, Place { source: number, start: name.len() + 1, end: name.len() + 1 + value.len() });
    }

    fn add(&mut self, source: Source) -> usize {
        self.sources.push(source);
        self.sources.len() - 1
    }

    fn lay_over(&mut self, path: &[(String, Place)], text: &str, place: Place) {
        let value = match reading(text, place) {
            Some(data) => Value { data, place, alternative: Some(Box::new(Data::Text(text.to_owned()))), hidden: false },
            None => Value::new(Data::Text(text.to_owned()), place),
        };
        if let Err(depth) = self.root.set(path, value) {
            let parent = path[..depth].iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(".");
            self.findings.push(Finding::error(
                "bad_override",
                path[depth].1,
                format!("`{parent}` is a value, so nothing can be set below it"),
                format!("set `{parent}` itself"),
            ));
        }
    }

    /// Replaces every `${...}` in the values by what it stands for.
    pub(crate) fn expand(&mut self, environment: &Environment) {
        expand::expand(&mut self.root, &self.sources, environment, &mut self.findings);
    }

    /// Whether the syntax is broken anywhere, so that something that is missing may have been meant to be there.
    pub(crate) fn is_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    /// Whether the syntax is broken before the first table, where the file's own keys are.
    pub(crate) fn is_top_broken(&self) -> bool {
        let headers = self.headers();
        self.broken.iter().any(|&at| headers.first().is_none_or(|&first| at < first))
    }

    /// Whether the syntax is broken in or at this entry, so that its content cannot be judged.
    pub(crate) fn is_entry_broken(&self, entry: &Entry) -> bool {
        if self.broken.is_empty() {
            return false;
        }
        let headers = self.headers();
        let text = &self.sources[0].text;
        self.broken.iter().any(|&at| {
            let line_start = text[..at].rfind('\n').map_or(0, |n| n + 1);
            let line_end = text[at..].find('\n').map_or(text.len(), |n| at + n);
            let header = headers.iter().rev().find(|&&start| start <= at);
            any(entry, &mut |place| {
                place.source == 0 && (header == Some(&place.start) || (place.start <= line_end && place.end >= line_start))
            })
        })
    }

    /// Where the headers `[...]` of tables begin.
    fn headers(&self) -> Vec<usize> {
        let text = &self.sources[0].text;
        let mut headers = Vec::new();
        for entry in &self.root.0 {
            any(entry, &mut |place| {
                if place.source == 0 && text[place.start..].starts_with('[') {
                    headers.push(place.start);
                }
                false
            });
        }
        headers.sort_unstable();
        headers
    }
}

/// The names under which diagnostics speak of flags and of environment variables.
const COMMAND_LINE: &str = "command line";
pub(crate) const ENVIRONMENT: &str = "environment";

/// What separates the keys in the name of a variable.
pub(crate) const NESTING: &str = "__";

/// Whether a place in the entry, of a key or a value, satisfies `test`.
fn any(entry: &Entry, test: &mut dyn FnMut(Place) -> bool) -> bool {
    fn any_value(value: &Value, test: &mut dyn FnMut(Place) -> bool) -> bool {
        test(value.place)
            || match &value.data {
                Data::Table(table) => table.0.iter().any(|e| any(e, test)),
                Data::List(items) => items.iter().any(|v| any_value(v, test)),
                _ => false,
            }
    }
    test(entry.place) || any_value(&entry.value, test)
}

/// The text of a file, or where it stops being text.
pub(crate) fn decode(name: &str, bytes: Vec<u8>) -> Result<String, Diagnostics> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let source = Source::new(name, String::from_utf8_lossy(error.as_bytes()));
        let place = within(&source.text, Place { source: 0, start: at, end: at + 1 });
        let message = format!("the file is not UTF-8 text: it has the byte 0x{:02x} here", error.as_bytes()[at]);
        Diagnostics::new(&[source], vec![Finding::error("not_text", place, message, "save it as UTF-8")])
    })
}

/// A file that the system does not let us read.
pub(crate) fn unreadable(name: &str, error: &std::io::Error) -> Diagnostics {
    let message = format!("`{name}` cannot be read: {}", reason(error));
    let help = "check the path and that you may read the file";
    Diagnostics::new(&[Source::new(name, "")], vec![Finding::error("unreadable", Place::top(0), message, help)])
}

/// Why a file cannot be read, in words that do not differ between systems where that matters.
pub(crate) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "it is a folder".into(),
        _ => error.to_string(),
    }
}

/// What a text spells in TOML, if it spells anything.
pub(crate) fn reading(text: &str, place: Place) -> Option<Data> {
    DeValue::parse(text.trim()).ok().map(|parsed| data(parsed.into_inner(), &|_| place))
}

/// The keys that `a.b."c d"` names, with their places.
fn key_path(key: &str, source: usize) -> Option<Vec<(String, Place)>> {
    let text = format!("{key}=0");
    let mut table = DeTable::parse(&text).ok()?.into_inner();
    let mut path = Vec::new();
    loop {
        let mut entries = table.into_iter();
        let (Some((key, value)), None) = (entries.next(), entries.next()) else { return None };
        let span = key.span();
        path.push((key.into_inner().into_owned(), Place { source, start: span.start, end: span.end }));
        match value.into_inner() {
            DeValue::Table(inner) => table = inner,
            DeValue::Integer(_) => return Some(path),
            _ => return None,
        }
    }
}

/// A place whose bounds are characters of the text, whatever a parser said.
fn within(text: &str, place: Place) -> Place {
    let floor = |at: usize| (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    let start = floor(place.start);
    Place { start, end: floor(place.end).max(start), ..place }
}

type ToPlace<'a> = &'a dyn Fn(Range<usize>) -> Place;

fn table(parsed: DeTable<'_>, place: ToPlace<'_>) -> Table {
    Table(
        parsed
            .into_iter()
            .map(|(key, parsed)| Entry { place: place(key.span()), key: key.into_inner().into_owned(), value: value(parsed, place) })
            .collect(),
    )
}

fn value(parsed: Spanned<DeValue<'_>>, place: ToPlace<'_>) -> Value {
    let at = place(parsed.span());
    Value::new(data(parsed.into_inner(), place), at)
}

fn data(parsed: DeValue<'_>, place: ToPlace<'_>) -> Data {
    match parsed {
        DeValue::String(text) => Data::Text(text.into_owned()),
        // Larger ones are larger than any option allows, and so is this.
        DeValue::Integer(integer) => Data::Integer(i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX)),
        DeValue::Float(float) => Data::Float(float.as_str().parse().unwrap_or(f64::NAN), float.as_str().to_owned()),
        DeValue::Boolean(boolean) => Data::Boolean(boolean),
        DeValue::Datetime(datetime) => Data::Datetime(datetime.to_string()),
        DeValue::Array(items) => Data::List(items.into_iter().map(|item| value(item, place)).collect()),
        DeValue::Table(parsed) => Data::Table(table(parsed, place)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str, flags: &[&str]) -> Document {
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        Document::parse("p.toml", text, Path::new(""), &flags, &Environment::default())
    }

    fn messages(document: &Document) -> Vec<&str> {
        document.findings.iter().map(|f| f.message.as_str()).collect()
    }

    #[test]
    fn places_are_those_of_the_text() {
        let text = "name = \"x\"\n[sources.a]\nn = 1_000\n";
        let document = document(text, &[]);
        let a = document.root.get("sources").unwrap().value.table().unwrap().get("a").unwrap();
        assert_eq!(&text[a.place.start..a.place.end], "a");
        let n = a.value.table().unwrap().get("n").unwrap();
        assert_eq!(n.value.data, Data::Integer(1000));
        assert_eq!(&text[n.value.place.start..n.value.place.end], "1_000");
    }

    #[test]
    fn flags_replace_and_add_and_know_that_they_are_flags() {
        let document = document("[a]\nx = 1\n", &["a.x=2", "a.y=some text", "b.\"c d\"=[1]", "a.z='7'", "a.d=2024-01-01", "a.s=a=b"]);
        assert!(document.findings.is_empty(), "{:?}", document.findings);
        let a = document.root.get("a").unwrap().value.table().unwrap();
        let x = &a.get("x").unwrap().value;
        assert_eq!((&x.data, x.alternative.as_deref()), (&Data::Integer(2), Some(&Data::Text("2".into()))));
        assert_eq!((x.place.source, x.place.start, x.place.end), (1, 4, 5));
        assert_eq!(a.get("y").unwrap().value.data, Data::Text("some text".into()));
        assert_eq!(a.get("z").unwrap().value.data, Data::Text("7".into()));
        assert_eq!(a.get("d").unwrap().value.text(), Some("2024-01-01"));
        assert_eq!(a.get("s").unwrap().value.data, Data::Text("a=b".into()));
        assert!(document.root.get("b").unwrap().value.table().unwrap().get("c d").is_some());
    }

    #[test]
    fn a_flag_that_is_none_is_an_error() {
        let document = document("name = \"n\"\n", &["name", "=1", "a b=1", "name.x=1"]);
        assert_eq!(
            messages(&document),
            [
                "`name` is not of the form KEY=VALUE",
                "`=1` is not of the form KEY=VALUE",
                "`a b=1` is not of the form KEY=VALUE",
                "`name` is a value, so nothing can be set below it",
            ]
        );
    }

    #[test]
    fn broken_syntax_leaves_the_rest_to_be_checked() {
        let document = document("name = \"x\"\n[a]\nx = oops\n[b]\ny = 1\n", &[]);
        assert_eq!(document.findings.len(), 1);
        assert!(document.is_broken() && !document.is_top_broken());
        assert!(document.is_entry_broken(document.root.get("a").unwrap()));
        assert!(!document.is_entry_broken(document.root.get("b").unwrap()));
    }

    #[test]
    fn numbers_keep_their_text_and_too_large_ones_stay_too_large() {
        let document = document("a = 0.10\nb = 99999999999999999999999999999999999999999\nc = 0xff\n", &[]);
        assert_eq!(document.root.get("a").unwrap().value.data, Data::Float(0.1, "0.10".into()));
        assert_eq!(document.root.get("b").unwrap().value.data, Data::Integer(i128::MAX));
        assert_eq!(document.root.get("c").unwrap().value.data, Data::Integer(255));
    }

    #[test]
    fn bytes_that_are_no_text_have_a_place() {
        let error = decode("p.toml", b"name = \"a\xff\"\n".to_vec()).unwrap_err();
        let diagnostic = error.iter().next().unwrap();
        assert_eq!((diagnostic.line, diagnostic.column), (1, 10));
    }
}
