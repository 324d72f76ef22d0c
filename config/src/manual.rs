//! What the language has to say about itself: the JSON Schema for editors, `explain`, and the manual's option tables.
//!
//! All of it comes from the same declarations that pipelines are checked against, so it cannot be out of date.

use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

use crate::component::{Declaration, Registry, Role};
use crate::schema::{Property, Schema, bare, toml_text};
use crate::words;

/// A component type, whatever its role.
struct Type {
    role: Role,
    name: &'static str,
    example: &'static str,
    module: &'static str,
    schema: Json,
}

fn types<S: ?Sized, O: ?Sized, K: ?Sized>(registry: &Registry<S, O, K>) -> Vec<Type> {
    fn of<T: ?Sized>(role: Role, declarations: &[Declaration<T>]) -> impl Iterator<Item = Type> {
        declarations.iter().map(move |d| Type { role, name: d.name, example: d.example, module: d.module, schema: (d.schema)().to_value() })
    }
    let Registry { sources, operators, sinks } = registry;
    of(Role::Source, sources).chain(of(Role::Operator, operators)).chain(of(Role::Sink, sinks)).collect()
}

/// One component type for a terminal: what it does, its options, an example. Types of the same name in several roles
/// (a source `file` and a sink `file`) come one after the other.
///
/// # Errors
/// There is no such type; the message says which there are.
pub fn explain<S: ?Sized, O: ?Sized, K: ?Sized>(registry: &Registry<S, O, K>, name: &str) -> Result<String, String> {
    let types = types(registry);
    let texts: Vec<String> = types.iter().filter(|t| t.name == name).map(Type::explain).collect();
    if !texts.is_empty() {
        return Ok(texts.join("\n\n"));
    }
    Err(unknown(name, &types, "component", &[Role::Source, Role::Operator, Role::Sink]))
}

/// Says that there is no type of this name, and which there are of these roles.
fn unknown(name: &str, types: &[Type], what: &str, roles: &[Role]) -> String {
    let of = |role: Role| types.iter().filter(move |t| t.role == role).map(|t| t.name);
    let mut message = format!("there is no {what} of type `{name}`");
    if let Some(meant) = words::closest(name, roles.iter().flat_map(|role| of(*role))) {
        let _ = write!(message, "; did you mean `{meant}`?");
    }
    for role in roles {
        let _ = write!(message, "\n{}: {}", role.table(), words::list(of(*role)));
    }
    message
}

/// The page of an operator as Markdown: what it does, what its module promises, its options, an example.
///
/// # Errors
/// There is no such operator; the message says which there are.
pub fn page<S: ?Sized, O: ?Sized, K: ?Sized>(registry: &Registry<S, O, K>, name: &str) -> Result<String, String> {
    let types = types(registry);
    match types.iter().find(|t| t.role == Role::Operator && t.name == name) {
        Some(ty) => Ok(ty.page()),
        None => Err(unknown(name, &types, "operator", &[Role::Operator])),
    }
}

/// Every component type as Markdown: what it does, a table of its options, an example.
pub fn options_tables<S: ?Sized, O: ?Sized, K: ?Sized>(registry: &Registry<S, O, K>) -> String {
    let mut text = String::new();
    let mut last = None;
    for ty in types(registry) {
        if last.replace(ty.role) != Some(ty.role) {
            let table = ty.role.table();
            let _ = writeln!(text, "## {}{}\n", table[..1].to_uppercase(), &table[1..]);
        }
        let _ = writeln!(text, "### `{}`\n\n{}\n", ty.name, ty.doc());
        text.push_str(&ty.markdown_table());
        let _ = writeln!(text, "```toml\n{}\n```\n", ty.example.trim());
    }
    text
}

/// The settings as Markdown.
pub fn settings_table() -> String {
    let schema = crate::settings::schema();
    markdown_table(&rows(Schema::new(&schema)))
}

/// The JSON Schema of pipeline files, for editors that complete and check TOML.
pub fn schema<S: ?Sized, O: ?Sized, K: ?Sized>(registry: &Registry<S, O, K>) -> Json {
    let mut defs = Map::new();
    let mut properties = Map::new();
    properties.insert("name".into(), json!({ "type": "string", "description": "The pipeline's name: letters, digits, `_` and `-`." }));
    let types = types(registry);
    for role in [Role::Source, Role::Operator, Role::Sink] {
        let mut choices = Vec::new();
        for ty in types.iter().filter(|t| t.role == role) {
            let key = format!("{role}.{}", ty.name);
            choices.push(json!({ "$ref": format!("#/$defs/{key}") }));
            let component = ty.editor_schema(&key, &mut defs);
            defs.insert(key, component);
        }
        let description = format!("The {} by name.", role.table());
        properties.insert(
            role.table().into(),
            json!({ "type": "object", "description": description, "additionalProperties": { "oneOf": choices } }),
        );
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "MarketPrism pipeline",
        "type": "object",
        "properties": properties,
        "required": ["name", "sources", "sinks"],
        "additionalProperties": false,
        "$defs": defs,
    })
}

impl Type {
    fn doc(&self) -> &str {
        self.schema.get("description").and_then(Json::as_str).unwrap_or_default()
    }

    fn has_inputs(&self) -> bool {
        self.role != Role::Source
    }

    fn rows(&self) -> Vec<Row> {
        let mut all = Vec::new();
        if self.has_inputs() {
            let doc = "The sources and operators it reads.";
            all.push(Row {
                name: "inputs".into(),
                ty: "a list of names, or one name".into(),
                default: None,
                required: true,
                doc: doc.into(),
            });
        }
        all.extend(rows(Schema::new(&self.schema)));
        all
    }

    fn page(&self) -> String {
        let head = self.module.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.strip_prefix(' ').unwrap_or(line));
        // The first line is a title for those who read the module, and other headings are below that of the page.
        let head = head.skip(1).map(|line| if line.starts_with('#') { format!("#{line}") } else { line.to_owned() });
        // What is a link in the module's documentation is a name here.
        let head = head.collect::<Vec<_>>().join("\n").replace("[`", "`").replace("`]", "`");
        let Type { name, example, .. } = self;
        let (doc, table, example) = (self.doc(), self.markdown_table(), example.trim());
        format!("# `{name}`\n\n{doc}\n\n{}\n\n## Options\n\n{table}## Example\n\n```toml\n{example}\n```", head.trim())
    }

    fn explain(&self) -> String {
        const WIDTH: usize = 100;
        let mut text = format!("{} `{}`\n\n{}\n", self.role, self.name, fill(self.doc(), "", WIDTH));
        let rows = self.rows();
        if !rows.is_empty() {
            text.push_str("\nOptions\n");
        }
        for row in &rows {
            let presence = match &row.default {
                Some(default) => format!("default {default}"),
                None if row.required => "required".into(),
                None => "optional".into(),
            };
            let _ = writeln!(text, "  {} ({}; {presence})", row.name, row.ty);
            if !row.doc.is_empty() {
                let _ = writeln!(text, "{}", fill(&row.doc, "      ", WIDTH));
            }
        }
        let example = self.example.trim().lines().map(|line| format!("  {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n");
        let _ = write!(text, "\nExample\n{example}\n");
        text
    }

    fn markdown_table(&self) -> String {
        let rows = self.rows();
        if rows.is_empty() { "It has no options.\n\n".into() } else { markdown_table(&rows) }
    }

    /// This component's table as a self-contained definition: its own definitions move to the whole schema's under names
    /// that begin with `key`.
    fn editor_schema(&self, key: &str, defs: &mut Map<String, Json>) -> Json {
        let mut schema = self.schema.clone();
        let own = schema.as_object_mut().and_then(|o| {
            o.remove("$schema");
            o.remove("title");
            o.remove("$defs")
        });
        for (name, mut def) in own.as_ref().and_then(Json::as_object).cloned().unwrap_or_default() {
            for_editors(&mut def, key);
            defs.insert(format!("{key}.{name}"), def);
        }
        for_editors(&mut schema, key);
        let Some(object) = schema.as_object_mut() else { return schema };
        let required = object.entry("required").or_insert_with(|| json!([]));
        if let Some(required) = required.as_array_mut() {
            required.push("type".into());
            if self.has_inputs() {
                required.push("inputs".into());
            }
        }
        if let Some(properties) = object.entry("properties").or_insert_with(|| json!({})).as_object_mut() {
            properties.insert("type".into(), json!({ "const": self.name, "description": self.doc() }));
            if self.has_inputs() {
                let inputs = json!({ "description": "The sources and operators it reads.",
                    "anyOf": [{ "type": "array", "items": { "type": "string" }, "minItems": 1, "uniqueItems": true }, { "type": "string" }] });
                properties.insert("inputs".into(), inputs);
            }
        }
        // A choice of tables beside the keys has keys of its own, which this keyword sees.
        let closing = if object.contains_key("oneOf") || object.contains_key("anyOf") || object.contains_key("allOf") {
            "unevaluatedProperties"
        } else {
            "additionalProperties"
        };
        object.entry(closing).or_insert(Json::Bool(false));
        schema
    }
}

/// Rewrites references, closes tables, and lets a `${...}` stand for anything that is not text.
fn for_editors(schema: &mut Json, key: &str) {
    match schema {
        Json::Array(items) => items.iter_mut().for_each(|item| for_editors(item, key)),
        Json::Object(object) => {
            if let Some(Json::String(target)) = object.get_mut("$ref") {
                *target = target.replace("#/$defs/", &format!("#/$defs/{key}."));
            }
            let mut types: Vec<Json> = match object.get("type") {
                Some(Json::Array(several)) => several.clone(),
                Some(one) => vec![one.clone()],
                None => Vec::new(),
            };
            if types.iter().any(|t| ["integer", "number", "boolean"].iter().any(|name| t == name)) && !types.contains(&json!("string")) {
                types.push("string".into());
                object.insert("type".into(), Json::Array(types));
                object.insert("pattern".into(), json!(r"^\$\{.*\}$"));
            }
            for (keyword, value) in object.iter_mut() {
                // A default or an example is data, not a schema.
                if !["default", "examples", "const", "enum"].contains(&keyword.as_str()) {
                    for_editors(value, key);
                }
            }
        }
        _ => {}
    }
}

/// An option as the manual shows it.
struct Row {
    name: String,
    ty: String,
    default: Option<String>,
    required: bool,
    doc: String,
}

/// The options of a table, those of tables below it with dots.
fn rows(schema: Schema<'_>) -> Vec<Row> {
    let mut all = Vec::new();
    table_rows(schema, "", 0, &mut all);
    all
}

fn table_rows(schema: Schema<'_>, prefix: &str, depth: usize, all: &mut Vec<Row>) {
    /// Options are not nested deeper; a type that contains itself would go on for ever.
    const DEEPEST: usize = 4;
    if depth > DEEPEST {
        return;
    }
    for property in schema.properties() {
        row(&property, prefix, depth, all);
    }
    for branch in schema.alternatives().into_iter().filter(|b| b.is_table()) {
        table_rows(branch, prefix, depth + 1, all);
    }
    if let Some(other) = schema.other_keys().filter(|s| s.is_table()) {
        table_rows(other, &format!("{prefix}NAME."), depth + 1, all);
    }
}

fn row(property: &Property<'_>, prefix: &str, depth: usize, all: &mut Vec<Row>) {
    let name = format!("{prefix}{}", property.name);
    if all.iter().any(|r| r.name == name) {
        // The same key in several choices.
        return;
    }
    let branches = property.schema.alternatives();
    let mut tables: Vec<Schema<'_>> = branches.iter().copied().filter(|b| b.is_table()).collect();
    if property.schema.is_table() {
        tables.push(property.schema);
    }
    if let Some(items) = property.schema.items().filter(|i| i.is_table()) {
        tables.push(items);
    }
    let mut doc = property.doc.to_owned();
    let constants: Vec<_> = property.schema.constants().into_iter().filter(|(_, d)| !d.is_empty()).collect();
    if constants.len() > 1 {
        let meanings = constants.iter().map(|(c, d)| format!("`{}`: {}", bare(c), d.split_whitespace().collect::<Vec<_>>().join(" ")));
        let _ = write!(doc, "{}{}", if doc.is_empty() { "" } else { " " }, meanings.collect::<Vec<_>>().join(" "));
    }
    // The default of a table is that of its keys, which have rows of their own.
    let default = property.default.filter(|d| tables.is_empty() || !d.is_object()).map(|d| format!("`{}`", toml_text(d)));
    all.push(Row { name: name.clone(), ty: property.schema.describe(), default, required: property.required, doc });
    for table in tables {
        table_rows(table, &format!("{name}."), depth + 1, all);
    }
}

fn markdown_table(rows: &[Row]) -> String {
    let mut text = String::from("| option | type | default | meaning |\n|---|---|---|---|\n");
    // A line break or a bar would end the row or the cell.
    let cell = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    for row in rows {
        let default = match &row.default {
            Some(default) => default.clone(),
            None if row.required => "required".into(),
            None => String::new(),
        };
        let _ = writeln!(text, "| `{}` | {} | {} | {} |", row.name, cell(&row.ty), cell(&default), cell(&row.doc));
    }
    text.push('\n');
    text
}

/// Paragraphs filled to a width.
fn fill(text: &str, indent: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.split("\n\n") {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let mut line = indent.to_owned();
        for word in paragraph.split_whitespace() {
            if line.len() > indent.len() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::replace(&mut line, indent.to_owned()));
            }
            if line.len() > indent.len() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.join("\n")
}
