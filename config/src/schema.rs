//! What a component's options may be, as its JSON Schema tells: the view that the checker and the manual share.
//!
//! Of JSON Schema this reads what schemars makes of Rust types. An object with known properties is closed, whatever the
//! schema says: an unknown key is always a mistake.

use serde_json::Value as Json;

use crate::document::Data;
use crate::words;

/// A schema, with the document that its references point into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schema<'a> {
    root: &'a Json,
    at: &'a Json,
}

/// A key of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Property<'a> {
    pub name: &'a str,
    pub schema: Schema<'a>,
    pub required: bool,
    /// What it means.
    pub doc: &'a str,
    /// What it is when it is absent.
    pub default: Option<&'a Json>,
}

/// How a choice between tables is made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tag<'a> {
    /// By the value of this key.
    Value(&'a str),
    /// By the presence of a key.
    Key,
}

impl<'a> Schema<'a> {
    /// A whole schema.
    pub fn new(root: &'a Json) -> Self {
        Schema { root, at: root }.resolved()
    }

    fn sub(self, at: &'a Json) -> Self {
        Schema { root: self.root, at }.resolved()
    }

    fn resolved(self) -> Self {
        let mut at = self.at;
        // References to references are short; a ring of them ends here.
        for _ in 0..16 {
            let target = at.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix('#')).and_then(|r| self.root.pointer(r));
            let Some(target) = target else { break };
            at = target;
        }
        Schema { at, ..self }
    }

    /// The keyword of this name.
    pub fn get(self, keyword: &str) -> Option<&'a Json> {
        self.at.get(keyword)
    }

    fn text(self, keyword: &str) -> Option<&'a str> {
        self.get(keyword).and_then(Json::as_str)
    }

    /// The `format`, if any.
    pub fn format(self) -> Option<&'a str> {
        self.text("format")
    }

    /// Whether this is a secret, or a list or choice of secrets.
    pub fn is_secret(self) -> bool {
        self.format() == Some("secret")
            || self.alternatives().iter().any(|a| a.format() == Some("secret"))
            || self.items().is_some_and(|i| i.format() == Some("secret"))
    }

    /// The doc comment.
    pub fn doc(self) -> &'a str {
        self.text("description").unwrap_or_default()
    }

    fn types(self) -> Vec<&'a str> {
        match self.get("type") {
            Some(Json::String(one)) => vec![one],
            Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a value of this JSON type may be it.
    pub fn allows(self, name: &str) -> bool {
        self.types().contains(&name)
    }

    /// Whether it says nothing about the value.
    pub fn is_anything(self) -> bool {
        match self.at {
            Json::Bool(allowed) => *allowed,
            Json::Object(keywords) => {
                !["type", "enum", "const", "oneOf", "anyOf", "allOf", "properties"].iter().any(|k| keywords.contains_key(*k))
            }
            _ => false,
        }
    }

    /// The schemas of which one applies; null, which TOML cannot write, is left out.
    pub fn alternatives(self) -> Vec<Schema<'a>> {
        let branches = self.get("oneOf").or_else(|| self.get("anyOf")).and_then(Json::as_array);
        let is_null = |s: &Schema<'_>| s.types() == ["null"] || s.get("const").is_some_and(Json::is_null);
        branches.into_iter().flatten().map(|b| self.sub(b)).filter(|s| !is_null(s)).collect()
    }

    /// The values of which it is one, with their docs; empty if it is not such a choice.
    pub fn constants(self) -> Vec<(&'a Json, &'a str)> {
        if let Some(constant) = self.get("const") {
            return vec![(constant, self.doc())];
        }
        if let Some(constants) = self.get("enum").and_then(Json::as_array) {
            return constants.iter().filter(|c| !c.is_null()).map(|c| (c, "")).collect();
        }
        let branches: Vec<_> = self.alternatives().into_iter().map(Schema::constants).collect();
        if branches.iter().any(Vec::is_empty) { Vec::new() } else { branches.concat() }
    }

    /// The schema of a list's items.
    pub fn items(self) -> Option<Schema<'a>> {
        self.get("items").map(|items| self.sub(items))
    }

    /// The schema of the item at an index of a list.
    pub fn item(self, index: usize) -> Option<Schema<'a>> {
        let prefix = self.get("prefixItems").and_then(Json::as_array).and_then(|items| items.get(index));
        prefix.map(|item| self.sub(item)).or_else(|| self.items())
    }

    /// Whether it is a table with keys of its own.
    pub fn is_table(self) -> bool {
        self.allows("object") || self.get("properties").is_some()
    }

    /// The keys of a table.
    pub fn properties(self) -> Vec<Property<'a>> {
        let required: Vec<&str> = self.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
        let mut properties: Vec<Property<'a>> = Vec::new();
        for (name, at) in self.get("properties").and_then(Json::as_object).into_iter().flatten() {
            let schema = self.sub(at);
            let doc = at.get("description").and_then(Json::as_str).unwrap_or_else(|| schema.doc());
            let default = at.get("default").filter(|d| !d.is_null());
            properties.push(Property { name, schema, required: required.contains(&name.as_str()), doc, default });
        }
        for part in self.get("allOf").and_then(Json::as_array).into_iter().flatten() {
            properties.extend(self.sub(part).properties());
        }
        properties
    }

    /// What other keys of a table may hold; none if there may be no others.
    pub fn other_keys(self) -> Option<Schema<'a>> {
        match self.get("additionalProperties") {
            None | Some(Json::Bool(false)) => None,
            Some(other) => Some(self.sub(other)),
        }
    }

    /// How one of several tables is chosen, if it can be told from their keys.
    pub fn tag(tables: &[Schema<'a>]) -> Option<Tag<'a>> {
        let first = tables.first()?;
        let constant =
            |s: &Schema<'a>, name: &str| s.properties().iter().any(|p| p.name == name && p.required && p.schema.get("const").is_some());
        let by_value = first.properties().into_iter().find(|p| tables.iter().all(|t| constant(t, p.name)));
        if let Some(property) = by_value {
            return Some(Tag::Value(property.name));
        }
        let by_key = tables.iter().all(|t| matches!(t.properties().as_slice(), [only] if only.required));
        by_key.then_some(Tag::Key)
    }

    /// Whether a value can be meant as this, as far as its type tells; of constants, only they themselves.
    pub fn accepts(self, data: &Data) -> bool {
        if self.is_anything() || matches!(data, Data::Unknown) {
            return true;
        }
        let constants = self.constants();
        if !constants.is_empty() {
            return constants.iter().any(|(constant, _)| is_constant(data, constant));
        }
        let alternatives = self.alternatives();
        if !alternatives.is_empty() && !self.is_table() {
            return alternatives.iter().any(|a| a.accepts(data));
        }
        match data {
            Data::Text(_) | Data::Datetime(_) => self.allows("string"),
            Data::Integer(_) => self.allows("integer") || self.allows("number"),
            Data::Float(..) => self.allows("number"),
            Data::Boolean(_) => self.allows("boolean"),
            Data::List(_) => self.allows("array"),
            Data::Table(_) => self.is_table(),
            Data::Unknown => true,
        }
    }

    /// What it is, in a few words: `a duration`, `` `a` or `b` ``, `a list of text`.
    pub fn describe(self) -> String {
        self.describe_to(3)
    }

    fn describe_to(self, depth: usize) -> String {
        let constants = self.constants();
        if !constants.is_empty() {
            return words::alternatives(constants.iter().map(|(c, _)| bare(c)));
        }
        let alternatives = self.alternatives();
        if depth == 0 || self.is_anything() {
            return "any value".into();
        }
        if !alternatives.is_empty() && !self.is_table() {
            let mut phrases: Vec<String> = Vec::new();
            for phrase in alternatives.into_iter().map(|a| a.describe_to(depth - 1)) {
                if !phrases.contains(&phrase) {
                    phrases.push(phrase);
                }
            }
            return words::join(phrases, "or");
        }
        match self.format() {
            Some("duration") => return "a duration".into(),
            Some("size") => return "a size".into(),
            Some("decimal") => return "an exact number".into(),
            Some("sql") => return "an SQL expression".into(),
            Some("secret") => return "a secret text".into(),
            _ => {}
        }
        let phrase = |name: &str| match name {
            "string" => "text".into(),
            "integer" => "a whole number".into(),
            "number" => "a number".into(),
            "boolean" => "`true` or `false`".into(),
            "array" => match self.items() {
                Some(items) if !items.is_anything() => format!("a list of {}", plural(&items.describe_to(depth - 1))),
                _ => "a list".into(),
            },
            _ => match self.other_keys() {
                Some(values) if self.get("properties").is_none() && !values.is_anything() => {
                    format!("a table of {} by name", plural(&values.describe_to(depth - 1)))
                }
                _ => "a table".to_owned(),
            },
        };
        let phrases: Vec<String> = self.types().into_iter().filter(|t| *t != "null").map(phrase).collect();
        if phrases.is_empty() { "a table".into() } else { words::join(phrases, "or") }
    }

    /// A value that it could have, as TOML writes it.
    pub fn example(self) -> Option<String> {
        if let Some(example) = self.get("examples").and_then(|e| e.get(0)) {
            return Some(toml_text(example));
        }
        if let Some((constant, _)) = self.constants().first() {
            return Some(toml_text(constant));
        }
        if let Some(first) = self.alternatives().first() {
            return first.example();
        }
        Some(match *self.types().first()? {
            "string" if self.format() == Some("secret") => "\"${VAR}\"".into(),
            "string" => "\"...\"".into(),
            "integer" => "1".into(),
            "number" => "1.0".into(),
            "boolean" => "true".into(),
            "array" => format!("[{}]", self.items()?.example()?),
            _ => return None,
        })
    }
}

/// `a list of durations` of `a duration`, as far as that is idiomatic.
fn plural(phrase: &str) -> String {
    match phrase {
        "a duration" => "durations".into(),
        "a size" => "sizes".into(),
        "an exact number" => "exact numbers".into(),
        "an SQL expression" => "SQL expressions".into(),
        "a whole number" => "whole numbers".into(),
        "a number" => "numbers".into(),
        "a table" => "tables".into(),
        "a secret text" => "secret texts".into(),
        other => other.into(),
    }
}

/// Whether a value is a constant of a schema.
pub(crate) fn is_constant(data: &Data, constant: &Json) -> bool {
    match (data, constant) {
        (Data::Text(text), Json::String(constant)) => text == constant,
        (Data::Integer(integer), Json::Number(number)) => number.as_i64().is_some_and(|n| i128::from(n) == *integer),
        (Data::Boolean(boolean), Json::Bool(constant)) => boolean == constant,
        _ => false,
    }
}

/// A constant without quotes, for prose.
pub(crate) fn bare(constant: &Json) -> String {
    constant.as_str().map_or_else(|| constant.to_string(), str::to_owned)
}

/// A JSON value as TOML writes it inline.
pub(crate) fn toml_text(json: &Json) -> String {
    match json {
        Json::Array(items) => format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", ")),
        Json::Object(entries) if entries.is_empty() => "{}".into(),
        Json::Object(entries) => {
            let entries = entries.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| format!("{k} = {}", toml_text(v)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        scalar => scalar.to_string(),
    }
}
