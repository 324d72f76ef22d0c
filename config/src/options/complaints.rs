//! What a reader of options says of a value of the wrong type, an unknown key, a missing key.

use super::{Reader, Step};
use crate::diagnostic::{Place, looks_secret};
use crate::document::{Data, ENVIRONMENT, Entry, Value, reading};
use crate::schema::{Property, Schema};
use crate::words;

impl Reader<'_> {
    pub(super) fn wrong_type(&mut self, value: &Value, data: &Data, schema: Schema<'_>) {
        let wants = schema.describe();
        let is = match data {
            Data::Text(_) if value.hidden => REFERENCE.to_owned(),
            Data::Text(text) if self.is_expanded(value) => format!("`{text}`"),
            data => type_of(data).to_owned(),
        };
        let format = schema.format().or_else(|| schema.alternatives().into_iter().find_map(Schema::format));
        let example = match (data, format) {
            (Data::Integer(n), Some("duration")) => Some(format!("\"{n}s\"")),
            (Data::Integer(n), Some("size")) => Some(format!("\"{n}MB\"")),
            (Data::Integer(_) | Data::Float(..) | Data::Boolean(_), None) if schema.allows("string") => {
                shown(data).map(|s| format!("\"{s}\""))
            }
            (Data::Text(text), _) if !value.hidden && schema.accepts_text_unquoted(text) => Some(text.trim().to_owned()),
            (_, Some("secret")) => None,
            (Data::Text(text), _) if !value.hidden && schema.items().is_some_and(|i| i.accepts(data)) => Some(format!("[\"{text}\"]")),
            _ => schema.example(),
        };
        let key = self.keys().last().copied().unwrap_or_default();
        let is_item = matches!(self.path.last(), Some(Step::Item(_)));
        let help = match example {
            _ if self.is_expanded(value) => format!("make the reference stand for {wants}"),
            Some(example) if is_item => format!("write e.g. `{example}`"),
            Some(example) => format!("write e.g. `{key} = {example}`"),
            None if schema.properties().is_empty() && schema.other_keys().is_some() => {
                let example = schema.other_keys().and_then(Schema::example).unwrap_or_else(|| "...".into());
                format!("write e.g. `{key} = {{ NAME = {example} }}`")
            }
            None if schema.is_table() => {
                format!("write e.g. `{key} = {{ ... }}` with the keys {}", words::list(schema.properties().iter().map(|p| p.name)))
            }
            None => format!("it is {wants}"),
        };
        self.error("wrong_type", value.place, format!("{} must be {wants}, not {is}", self.this()), help);
    }

    pub(super) fn unknown_key(&mut self, entry: &Entry, properties: &[Property<'_>], but: &[&str]) {
        let top = self.path.is_empty();
        let names: Vec<&str> = but.iter().copied().filter(|_| top).chain(properties.iter().map(|p| p.name)).collect();
        let suggestion = words::closest(&entry.key, names.iter().copied());
        let meant = properties.iter().find(|p| Some(p.name) == suggestion);
        if self.document.sources[entry.place.source].name == ENVIRONMENT
            || looks_secret(&entry.key)
            || meant.is_some_and(|p| p.schema.is_secret())
        {
            // What was meant for a secret is one.
            self.hide(&entry.value);
        }
        let known = words::there_are(if top { self.noun } else { "key" }, &names);
        let place = if top { self.owner.clone() } else { format!(" in `{}`{}", self.keys().join("."), self.owner) };
        let help = words::remedy(suggestion, &known);
        self.error("unknown_key", entry.place, format!("unknown {} `{}`{place}", self.noun, entry.key), help);
    }

    pub(super) fn missing_key(&mut self, property: &Property<'_>, place: Place) {
        let mut path = self.keys();
        path.push(property.name);
        let path = path.join(".");
        let example = property.schema.example().map_or_else(|| property.name.to_owned(), |e| format!("{} = {e}", property.name));
        let doc = first_sentence(property.doc);
        let help = if doc.is_empty() { format!("add `{example}`") } else { format!("add `{example}`: {doc}") };
        self.error("missing_key", place, format!("{} `{path}`{} is missing", self.noun, self.owner), help);
    }
}

impl Schema<'_> {
    /// Whether a text is this without its quotes.
    fn accepts_text_unquoted(self, text: &str) -> bool {
        let place = Place::top(0);
        reading(text, place).is_some_and(|data| self.accepts(&data))
    }
}

/// What a message says in the place of a text that it must not repeat.
const REFERENCE: &str = "what the reference stands for";

pub(super) fn quoted(value: &Value, text: &str) -> String {
    if value.hidden { REFERENCE.to_owned() } else { format!("`{text}`") }
}

fn type_of(data: &Data) -> &'static str {
    match data {
        Data::Text(_) => "text",
        Data::Integer(_) => "a whole number",
        Data::Float(..) => "a number with a fraction",
        Data::Boolean(_) => "true or false",
        Data::Datetime(_) => "a date or time",
        Data::List(_) => "a list",
        Data::Table(_) => "a table",
        Data::Unknown => "unknown",
    }
}

fn shown(data: &Data) -> Option<String> {
    match data {
        Data::Integer(integer) => Some(integer.to_string()),
        Data::Float(_, text) => Some(text.clone()),
        Data::Boolean(boolean) => Some(boolean.to_string()),
        _ => None,
    }
}

/// The first sentence of a doc comment, as part of another: in one line, without its full stop.
fn first_sentence(doc: &str) -> String {
    let text = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut ends = text.match_indices(". ").map(|(at, _)| at);
    let end = ends.find(|at| !text[..*at].ends_with("e.g")).unwrap_or(text.len());
    let sentence = text[..end].trim_end_matches('.');
    let mut chars = sentence.chars();
    match (chars.next(), chars.next()) {
        // An acronym keeps its capitals.
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(sentence.chars().skip(1)).collect(),
        _ => sentence.to_owned(),
    }
}
