//! Options against their schema: every error in them at once, or the JSON that serde reads them from.
//!
//! What passes here, serde accepts (but for rules that it alone knows), so a message of serde's, which knows no places,
//! is the exception.

use serde_json::{Map, Number, Value as Json};

use crate::diagnostic::{Finding, Place, is_reference};
use crate::document::{Data, Document, Table, Value};
use crate::schema::{Schema, Tag, bare, is_constant};
use crate::values::FORMATS;
use crate::words;

mod complaints;

use complaints::quoted;

/// One step on the way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Item(usize),
}

/// Reads the options of one component, or the settings.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    document: &'a Document,
    /// What a key is called: `option` or `setting`.
    noun: &'static str,
    /// Whose options they are, as it ends a sentence: `` of operator `bars` ``; empty for settings.
    owner: String,
    /// The way to the value that is being read.
    path: Vec<Step>,
    pub findings: Vec<Finding>,
    /// Where secrets are written literally.
    pub masks: Vec<Place>,
    /// The ways to secrets.
    pub secrets: Vec<Vec<Step>>,
}

impl<'a> Reader<'a> {
    pub fn new(document: &'a Document, noun: &'static str, owner: String) -> Self {
        Reader { document, noun, owner, path: Vec::new(), findings: Vec::new(), masks: Vec::new(), secrets: Vec::new() }
    }

    /// Reads a table; `place` is where its name stands, and keys in `but` are left to the caller.
    pub fn table(&mut self, table: &Table, place: Place, schema: Schema<'_>, but: &[&str]) -> Option<Json> {
        let mut properties = schema.properties();
        let branches: Vec<_> = schema.alternatives().into_iter().filter(|a| a.is_table()).collect();
        if !branches.is_empty() {
            // A choice of tables beside keys of its own: a flattened enum.
            properties.extend(self.choose(table, place, &branches)?.properties());
        }
        let mut read = Some(Map::new());
        for entry in table.0.iter().filter(|e| !but.contains(&e.key.as_str())) {
            let property = properties.iter().find(|p| p.name == entry.key).map(|p| p.schema).or(schema.other_keys());
            let Some(property) = property else {
                self.unknown_key(entry, &properties, but);
                continue;
            };
            self.path.push(Step::Key(entry.key.clone()));
            let value = self.value(&entry.value, entry.place, property);
            self.path.pop();
            match (value, &mut read) {
                (Some(value), Some(map)) => drop(map.insert(entry.key.clone(), value)),
                // What is unknown or wrong and can be left out is, so that the rest is checked, too.
                (None, read) if properties.iter().any(|p| p.name == entry.key && p.required) => *read = None,
                _ => {}
            }
        }
        for property in properties.iter().filter(|p| p.required && table.get(p.name).is_none()) {
            self.missing_key(property, place);
            read = None;
        }
        read.map(Json::Object)
    }

    /// Reads a value; `key` is where its key stands.
    pub fn value(&mut self, value: &Value, key: Place, schema: Schema<'_>) -> Option<Json> {
        if schema.is_secret() {
            self.hide(value);
            self.secrets.push(self.path.clone());
        }
        let data = match value.alternative.as_deref() {
            Some(alternative) if !schema.accepts(&value.data) && schema.accepts(alternative) => alternative,
            _ => &value.data,
        };
        if matches!(data, Data::Unknown) {
            return None;
        }
        if schema.is_anything() {
            return self.anything(value, data);
        }
        let constants = schema.constants();
        if !constants.is_empty() {
            return self.constant(value, data, schema, &constants.iter().map(|(c, _)| *c).collect::<Vec<_>>());
        }
        let branches = schema.alternatives();
        if !branches.is_empty() && !schema.is_table() {
            return self.branch(value, data, key, schema, &branches);
        }
        if !schema.accepts(data) {
            self.wrong_type(value, data, schema);
            return None;
        }
        match data {
            Data::Text(text) | Data::Datetime(text) => self.formatted(value, text, schema).then(|| Json::from(text.as_str())),
            Data::Integer(integer) if schema.format() == Some("decimal") => self.decimal(value, &integer.to_string(), schema),
            Data::Float(_, text) if schema.format() == Some("decimal") => self.decimal(value, text, schema),
            Data::Integer(integer) => self.integer(value, *integer, schema),
            Data::Float(float, _) => self.float(value, *float, schema),
            Data::Boolean(boolean) => Some(Json::from(*boolean)),
            Data::List(items) => self.list(value, items, schema),
            Data::Table(table) => self.table(table, key, schema, &[]),
            Data::Unknown => None,
        }
    }

    fn list(&mut self, value: &Value, items: &[Value], schema: Schema<'_>) -> Option<Json> {
        let limit = |keyword: &str| schema.get(keyword).and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok());
        let count = |n: usize| words::count(n, "value");
        let wrong = match (limit("minItems"), limit("maxItems")) {
            (Some(least), _) if items.is_empty() && least > 0 => Some("is empty".to_owned()),
            (Some(least), _) if items.len() < least => Some(format!("needs at least {}", count(least))),
            (_, Some(most)) if items.len() > most => Some(format!("takes at most {}", count(most))),
            _ => None,
        };
        if let Some(wrong) = wrong {
            self.error("bad_value", value.place, format!("{} {wrong}", self.this()), format!("it is {}", schema.describe()));
            return None;
        }
        let mut read = Some(Vec::with_capacity(items.len()));
        for (index, item) in items.iter().enumerate() {
            let item = match schema.item(index) {
                Some(schema) => {
                    self.path.push(Step::Item(index));
                    let read = self.value(item, item.place, schema);
                    self.path.pop();
                    read
                }
                None => self.anything(item, &item.data),
            };
            read = read.zip(item).map(|(mut list, item)| {
                list.push(item);
                list
            });
        }
        let read = read?;
        if schema.get("uniqueItems").and_then(Json::as_bool) == Some(true)
            && let Some(again) = (1..read.len()).find(|&i| read[..i].contains(&read[i]))
        {
            self.error("bad_value", items[again].place, format!("{} has this value twice", self.this()), "remove one of them");
            return None;
        }
        Some(Json::Array(read))
    }

    /// A value for which there is no schema.
    fn anything(&mut self, value: &Value, data: &Data) -> Option<Json> {
        match data {
            Data::Text(text) | Data::Datetime(text) => Some(Json::from(text.as_str())),
            Data::Integer(integer) => self.integer(value, *integer, Schema::new(&Json::Null)),
            Data::Float(float, _) => self.float(value, *float, Schema::new(&Json::Null)),
            Data::Boolean(boolean) => Some(Json::from(*boolean)),
            Data::List(items) => items.iter().map(|item| self.anything(item, &item.data)).collect(),
            Data::Table(table) => table.0.iter().map(|e| Some((e.key.clone(), self.anything(&e.value, &e.value.data)?))).collect(),
            Data::Unknown => None,
        }
    }

    fn constant(&mut self, value: &Value, data: &Data, schema: Schema<'_>, constants: &[&Json]) -> Option<Json> {
        if let Some(constant) = constants.iter().find(|c| is_constant(data, c)) {
            return Some((*constant).clone());
        }
        match data {
            Data::Text(text) => {
                let suggestion = words::closest(text, constants.iter().filter_map(|c| c.as_str()));
                let help = words::remedy(suggestion, &format!("it can be {}", schema.describe()));
                self.error("bad_value", value.place, format!("{} cannot be {}", self.this(), quoted(value, text)), help);
            }
            _ => self.wrong_type(value, data, schema),
        }
        None
    }

    /// One of several schemas: the one that fits the type, or the one with the fewest errors.
    fn branch(&mut self, value: &Value, data: &Data, key: Place, schema: Schema<'_>, branches: &[Schema<'_>]) -> Option<Json> {
        let fitting: Vec<Schema<'_>> =
            if branches.len() == 1 { branches.to_vec() } else { branches.iter().copied().filter(|b| b.accepts(data)).collect() };
        match (fitting.as_slice(), data) {
            ([], Data::Text(text)) => {
                let constants: Vec<String> = branches.iter().flat_map(|b| b.constants()).map(|(c, _)| bare(c)).collect();
                let suggestion = words::closest(text, constants.iter().map(String::as_str));
                let help = words::remedy(suggestion, &format!("it can be {}", schema.describe()));
                self.error("bad_value", value.place, format!("{} cannot be {}", self.this(), quoted(value, text)), help);
                None
            }
            ([], _) => {
                self.wrong_type(value, data, schema);
                None
            }
            ([only], _) => self.value(value, key, *only),
            (several, Data::Table(table)) if Schema::tag(several).is_some() => {
                let chosen = self.choose(table, key, several)?;
                self.table(table, key, chosen, &[])
            }
            (several, _) => {
                let mut best: Option<Reader<'a>> = None;
                for branch in several {
                    let mut attempt = Reader { path: self.path.clone(), ..Reader::new(self.document, self.noun, self.owner.clone()) };
                    let read = attempt.value(value, key, *branch);
                    self.masks.append(&mut attempt.masks);
                    self.secrets.append(&mut attempt.secrets);
                    if attempt.findings.is_empty() {
                        return read;
                    }
                    if best.as_ref().is_none_or(|b| attempt.findings.len() < b.findings.len()) {
                        best = Some(attempt);
                    }
                }
                self.findings.extend(best.into_iter().flat_map(|b| b.findings));
                None
            }
        }
    }

    /// The table that the keys choose of several.
    fn choose<'s>(&mut self, table: &Table, place: Place, branches: &[Schema<'s>]) -> Option<Schema<'s>> {
        match Schema::tag(branches) {
            _ if branches.len() == 1 => Some(branches[0]),
            None => branches
                .iter()
                .copied()
                .find(|b| b.properties().iter().all(|p| !p.required || table.get(p.name).is_some()))
                .or(branches.first().copied()),
            Some(Tag::Value(tag)) => {
                let constant = |b: &Schema<'s>| b.properties().iter().find(|p| p.name == tag).and_then(|p| p.schema.get("const"));
                let names: Vec<String> = branches.iter().filter_map(constant).map(bare).collect();
                let Some(entry) = table.get(tag) else {
                    let message = format!("{} lacks `{tag}`", self.this());
                    self.error("missing_key", place, message, format!("add `{tag}`: {}", words::alternatives(&names)));
                    return None;
                };
                let chosen = branches.iter().copied().find(|b| constant(b).is_some_and(|c| is_constant(&entry.value.data, c)));
                if chosen.is_none() && !matches!(entry.value.data, Data::Unknown) {
                    let suggestion = entry.value.text().and_then(|t| words::closest(t, names.iter().map(String::as_str)));
                    self.path.push(Step::Key(tag.to_owned()));
                    let message = format!("{} has an unknown value", self.this());
                    self.path.pop();
                    let help = words::remedy(suggestion, &format!("it can be {}", words::alternatives(&names)));
                    self.error("bad_value", entry.value.place, message, help);
                }
                chosen
            }
            Some(Tag::Key) => {
                let name = |b: &Schema<'s>| b.properties().first().map_or("", |p| p.name);
                let chosen = branches.iter().copied().find(|b| table.get(name(b)).is_some());
                if chosen.is_none() {
                    let names: Vec<&str> = branches.iter().map(name).collect();
                    let suggestion = table.0.iter().find_map(|e| words::closest(&e.key, names.iter().copied()));
                    let help = words::remedy(suggestion, &format!("it has one of the keys {}", words::list(names)));
                    let at = table.0.first().map_or(place, |e| e.place);
                    self.error("unknown_key", at, format!("{} has none of the keys that it needs", self.this()), help);
                }
                chosen
            }
        }
    }

    fn formatted(&mut self, value: &Value, text: &str, schema: Schema<'_>) -> bool {
        let length = text.chars().count() as u64;
        let limit = |keyword: &str| schema.get(keyword).and_then(Json::as_u64);
        if limit("minLength").is_some_and(|least| length < least) {
            let wrong = if text.is_empty() { "is empty" } else { "is too short" };
            self.error("bad_value", value.place, format!("{} {wrong}", self.this()), format!("it is {}", schema.describe()));
            return false;
        }
        if limit("maxLength").is_some_and(|most| length > most) {
            self.error("bad_value", value.place, format!("{} is too long", self.this()), format!("it is {}", schema.describe()));
            return false;
        }
        let Some((format, read)) = FORMATS.iter().find(|(name, _)| Some(*name) == schema.format()) else { return true };
        let Err(reason) = read(text) else { return true };
        let (what, help) = match *format {
            "duration" => ("is no duration", "write a number and a unit, e.g. `250ms`, `5s`, `1m`, `2h 30m`, `1d`"),
            "size" => ("is no size", "write a number and a unit, e.g. `512kB`, `64MB`, `1GiB`"),
            "decimal" => ("is no exact number", "write digits with at most 12 after the point, e.g. `0.01`"),
            _ => ("is no SQL expression", "write an expression over the columns of the input, e.g. `price > 100`"),
        };
        let message = if value.hidden { format!("{} {what}", self.this()) } else { format!("{} {what}: `{text}` {reason}", self.this()) };
        self.error(code(format), value.place, message, help);
        false
    }

    /// A decimal that is written as a TOML number keeps its digits.
    fn decimal(&mut self, value: &Value, text: &str, schema: Schema<'_>) -> Option<Json> {
        self.formatted(value, text, schema).then(|| Json::from(text))
    }

    fn integer(&mut self, value: &Value, integer: i128, schema: Schema<'_>) -> Option<Json> {
        if schema.allows("number") && !schema.allows("integer") {
            let float = self.float(value, integer as f64, schema)?;
            return Some(i64::try_from(integer).map_or(float, Json::from));
        }
        let (low, high) = integer_range(schema);
        if integer < low || integer > high {
            // Nobody thinks of 2⁶³ as a limit, unless they exceed it.
            let unlimited = high >= i128::from(i64::MAX) && integer < low;
            let help = if unlimited {
                format!("write a whole number, {low} or more")
            } else {
                format!("write a whole number from {low} to {high}")
            };
            self.error("out_of_range", value.place, format!("{} is out of range", self.this()), help);
            return None;
        }
        i64::try_from(integer).map(Json::from).or_else(|_| u64::try_from(integer).map(Json::from)).ok()
    }

    fn float(&mut self, value: &Value, float: f64, schema: Schema<'_>) -> Option<Json> {
        let bound = |keyword: &str| schema.get(keyword).and_then(Json::as_f64);
        let limits: [(&str, &str, fn(&f64, &f64) -> bool); 4] = [
            ("minimum", "at least", f64::ge),
            ("exclusiveMinimum", "greater than", f64::gt),
            ("maximum", "at most", f64::le),
            ("exclusiveMaximum", "less than", f64::lt),
        ];
        let limits: Vec<_> = limits.into_iter().filter_map(|(keyword, words, within)| Some((bound(keyword)?, words, within))).collect();
        if !float.is_finite() || limits.iter().any(|(limit, _, within)| !within(&float, limit)) {
            let phrases: Vec<String> = limits.iter().map(|(limit, words, _)| format!("{words} {limit}")).collect();
            let help = match (bound("minimum"), bound("maximum")) {
                _ if phrases.is_empty() => "write a finite number".to_owned(),
                (Some(low), Some(high)) => format!("write a number from {low} to {high}"),
                _ => format!("write a number that is {}", words::join(phrases, "and")),
            };
            self.error("out_of_range", value.place, format!("{} is out of range", self.this()), help);
            return None;
        }
        Number::from_f64(float).map(Json::Number)
    }

    /// The value that is being read, as it begins a sentence.
    fn this(&self) -> String {
        let keys = self.keys();
        if keys.is_empty() {
            format!("the {}s{}", self.noun, self.owner)
        } else {
            format!("{} `{}`{}", self.noun, keys.join("."), self.owner)
        }
    }

    /// The keys on the way to the value. Which item of a list it is, the excerpt shows.
    fn keys(&self) -> Vec<&str> {
        self.path.iter().filter_map(|step| if let Step::Key(key) = step { Some(key.as_str()) } else { None }).collect()
    }

    fn written(&self, value: &Value) -> &'a str {
        &self.document.sources[value.place.source].text[value.place.start..value.place.end]
    }

    /// Whether the value stands in the place of a reference.
    fn is_expanded(&self, value: &Value) -> bool {
        matches!(value.data, Data::Text(_)) && self.written(value).contains("${")
    }

    fn error(&mut self, code: &'static str, place: Place, message: String, help: impl Into<String>) {
        self.findings.push(Finding::error(code, place, message, help));
    }

    /// Keeps a value out of every excerpt, unless it is a reference, which tells nothing.
    fn hide(&mut self, value: &Value) {
        if !is_reference(self.written(value).trim_matches(['"', '\''])) {
            self.masks.push(value.place);
        }
    }
}

fn code(format: &str) -> &'static str {
    match format {
        "duration" => "bad_duration",
        "size" => "bad_size",
        "decimal" => "bad_decimal",
        _ => "bad_expression",
    }
}

/// The least and the greatest whole number that a schema allows.
fn integer_range(schema: Schema<'_>) -> (i128, i128) {
    let (low, high) = match schema.format() {
        Some("int8") => (i8::MIN.into(), i8::MAX.into()),
        Some("int16") => (i16::MIN.into(), i16::MAX.into()),
        Some("int32") => (i32::MIN.into(), i32::MAX.into()),
        Some("uint8") => (0, u8::MAX.into()),
        Some("uint16") => (0, u16::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        Some("uint" | "uint64") => (0, u64::MAX.into()),
        _ => (i64::MIN.into(), i128::from(i64::MAX)),
    };
    let bound = |keyword: &str| {
        let json = schema.get(keyword)?;
        json.as_i64().map(i128::from).or_else(|| json.as_u64().map(i128::from)).or_else(|| json.as_f64().map(|f| f as i128))
    };
    let low = [bound("minimum"), bound("exclusiveMinimum").map(|n| n + 1)].into_iter().flatten().fold(low, i128::max);
    let high = [bound("maximum"), bound("exclusiveMaximum").map(|n| n - 1)].into_iter().flatten().fold(high, i128::min);
    (low, high)
}
