//! From a document to a graph, or to every error there is.
//!
//! The options of every node are checked against their schemas. Then nodes are checked in the order of the flow, so that
//! each knows what its inputs carry. A node one of whose inputs failed is not asked what it makes of them: what it would
//! say might only follow from the first error.

use std::collections::HashMap;
use std::sync::Arc;

use model::Kind;
use serde_json::Value as Json;

use crate::component::{Check, Declaration, Input, Problem, Registry, Role, Severity};
use crate::diagnostic::{Diagnostics, Finding, Place, Source, position};
use crate::document::{Data, Document, Entry, Table};
use crate::graph::{Graph, Node};
use crate::options::{Reader, Step};
use crate::schema::Schema;
use crate::settings::Settings;
use crate::words;

mod flow;

const ROLES: [Role; 3] = [Role::Source, Role::Operator, Role::Sink];

/// Checks a pipeline. The warnings come beside the graph.
///
/// # Errors
/// Every error, and the warnings, in the order of their places.
pub fn check<S: ?Sized, O: ?Sized, K: ?Sized>(
    document: Document,
    registry: &Registry<S, O, K>,
) -> Result<(Graph<S, O, K>, Diagnostics), Diagnostics> {
    let mut checker = Checker { document: &document, findings: document.findings.clone(), masks: Vec::new() };
    let name = checker.name();
    let mut nodes = checker.nodes();
    checker.names(&nodes);
    for node in &mut nodes {
        match node.role {
            Role::Source => checker.options(node, &registry.sources, registry),
            Role::Operator => checker.options(node, &registry.operators, registry),
            Role::Sink => checker.options(node, &registry.sinks, registry),
        }
    }
    checker.inputs(&mut nodes);
    let order = checker.order(&mut nodes);
    checker.unused(&nodes);

    let mut graph = Graph { name: name.unwrap_or_default(), sources: Vec::new(), operators: Vec::new(), sinks: Vec::new() };
    let mut outputs: HashMap<usize, Vec<Arc<Kind>>> = HashMap::new();
    for index in order {
        let node = &nodes[index];
        let inputs: Option<Vec<Input>> =
            node.inputs.iter().map(|&(i, _)| Some(Input { node: nodes[i].entry.key.clone(), kinds: outputs.get(&i)?.clone() })).collect();
        let Some(inputs) = inputs.filter(|_| !node.failed) else { continue };
        let made = match node.role {
            Role::Source => checker.make(node, &registry.sources, &inputs).map(|made| push(&mut graph.sources, made)),
            Role::Operator => checker.make(node, &registry.operators, &inputs).map(|made| push(&mut graph.operators, made)),
            Role::Sink => checker.make(node, &registry.sinks, &inputs).map(|made| push(&mut graph.sinks, made)),
        };
        outputs.extend(made.map(|kinds| (index, kinds)));
    }

    let Checker { findings, masks, .. } = checker;
    let mut sources: Vec<Source> = document.sources;
    for mask in masks {
        sources[mask.source].masks.push(mask.start..mask.end);
    }
    let diagnostics = Diagnostics::new(&sources, findings);
    if diagnostics.has_errors() { Err(diagnostics) } else { Ok((graph, diagnostics)) }
}

fn push<T: ?Sized>(nodes: &mut Vec<Node<T>>, node: Node<T>) -> Vec<Arc<Kind>> {
    let outputs = node.outputs.clone();
    nodes.push(node);
    outputs
}

/// A node as it is written, and what has been made of it so far.
struct Written<'d> {
    role: Role,
    entry: &'d Entry,
    /// Its keys; none if it is no table.
    table: Option<&'d Table>,
    /// Its component type, by its place in the registry.
    component: usize,
    options: Json,
    secrets: Vec<Vec<Step>>,
    /// The nodes it reads, each with the place that names it.
    inputs: Vec<(usize, Place)>,
    /// Whether one of its inputs is wrong in itself.
    misread: bool,
    /// Whether one of its options is.
    amiss: bool,
    failed: bool,
}

impl Written<'_> {
    /// What it is called in messages.
    fn title(&self) -> String {
        format!("{} `{}`", self.role, self.entry.key)
    }
}

struct Checker<'d> {
    document: &'d Document,
    findings: Vec<Finding>,
    masks: Vec<Place>,
}

impl<'d> Checker<'d> {
    fn error(&mut self, code: &'static str, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.findings.push(Finding::error(code, place, message, help));
    }

    /// The pipeline's name.
    fn name(&mut self) -> Option<String> {
        let Some(entry) = self.document.root.get("name") else {
            if !self.document.is_top_broken() {
                self.error("missing_key", Place::top(0), "the pipeline has no `name`", "add `name = \"...\"` above all tables");
            }
            return None;
        };
        match entry.value.text() {
            Some(name) => {
                self.name_is_plain(name, "pipeline", entry.value.place);
                Some(name.to_owned())
            }
            None => {
                if !matches!(entry.value.data, Data::Unknown) && !self.document.is_entry_broken(entry) {
                    self.error(
                        "wrong_type",
                        entry.value.place,
                        "the pipeline's `name` must be text",
                        "write it in quotes: `name = \"trades\"`",
                    );
                }
                None
            }
        }
    }

    /// Names become parts of paths, of tokens and of metrics.
    fn name_is_plain(&mut self, name: &str, what: &str, place: Place) {
        const LONGEST: usize = 64;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > LONGEST || !name.chars().all(plain) {
            let wrong = if name.is_empty() {
                "is empty".into()
            } else if name.len() > LONGEST {
                format!("has more than {LONGEST} letters")
            } else {
                "has other characters than a-z, A-Z, 0-9, `_` and `-`".to_owned()
            };
            self.error("bad_name", place, format!("the name of this {what} {wrong}"), "write a name like `trades` or `bars_1m`");
        }
    }

    /// Every node that is written, in the order of roles and then of the file.
    fn nodes(&mut self) -> Vec<Written<'d>> {
        let document = self.document;
        for entry in &document.root.0 {
            if entry.key != "name" && !ROLES.iter().any(|r| r.table() == entry.key) && !document.is_top_broken() {
                self.unknown_top_key(entry);
            }
        }
        let mut nodes = Vec::new();
        for role in ROLES {
            let Some(tables) = document.root.get(role.table()) else { continue };
            match &tables.value.data {
                Data::Table(table) if table.get("type").is_some_and(|t| t.value.text().is_some()) => {
                    let message = format!("this {role} has no name");
                    self.error("bad_name", tables.place, message, format!("write its name behind a dot: `[{}.NAME]`", role.table()));
                }
                Data::Table(table) => nodes.extend(table.0.iter().map(|entry| self.node(role, entry))),
                Data::Unknown => {}
                _ if document.is_entry_broken(tables) => {}
                _ => {
                    let message = format!("`{}` must hold one table for each {role}", role.table());
                    self.error("wrong_type", tables.place, message, format!("write `[{}.NAME]` with the {role}'s name", role.table()));
                }
            }
        }
        if !document.is_broken() {
            self.complete();
        }
        nodes
    }

    /// A pipeline has something to read and somewhere to write.
    fn complete(&mut self) {
        let named = |role: Role| self.document.root.get(role.table()).is_some_and(|e| e.value.table().is_none_or(|t| !t.0.is_empty()));
        let place = self.document.root.get("name").map_or(Place::top(0), |name| name.place);
        if !named(Role::Source) && !named(Role::Operator) && !named(Role::Sink) {
            self.error(
                "empty_pipeline",
                place,
                "the pipeline is empty",
                "add a source `[sources.NAME]` and a sink `[sinks.NAME]`, each with a `type`",
            );
            return;
        }
        for (role, lack) in [(Role::Source, "nothing comes in"), (Role::Sink, "nothing goes out")] {
            if !named(role) {
                self.error(
                    "empty_pipeline",
                    place,
                    format!("the pipeline has no {role}: {lack}"),
                    format!("add `[{}.NAME]` with a `type`", role.table()),
                );
            }
        }
    }

    fn unknown_top_key(&mut self, entry: &Entry) {
        let tables = ROLES.map(Role::table);
        let keys = || std::iter::once("name").chain(tables);
        let settings = schemars::schema_for!(Settings).to_value();
        let help = if Schema::new(&settings).properties().iter().any(|p| p.name == entry.key) {
            format!("`{}` is a system setting: it stands in `marketprism.toml` beside the pipeline", entry.key)
        } else {
            words::remedy(words::closest(&entry.key, keys()), &format!("a pipeline has {}", words::list(keys())))
        };
        self.error("unknown_key", entry.place, format!("unknown key `{}`", entry.key), help);
    }

    fn node(&mut self, role: Role, entry: &'d Entry) -> Written<'d> {
        let broken = self.document.is_entry_broken(entry);
        let table = entry.value.table();
        if !broken {
            self.name_is_plain(&entry.key, &role.to_string(), entry.place);
            if table.is_none() && !matches!(entry.value.data, Data::Unknown) {
                let help = format!("write `[{}.{}]` with the options below it", role.table(), entry.key);
                self.error("wrong_type", entry.place, format!("{role} `{}` must be a table", entry.key), help);
            }
        }
        let failed = broken || table.is_none();
        Written {
            role,
            entry,
            table: table.filter(|_| !broken),
            component: 0,
            options: Json::Null,
            secrets: Vec::new(),
            inputs: Vec::new(),
            misread: false,
            amiss: false,
            failed,
        }
    }

    /// No two nodes share a name, whatever their roles.
    fn names(&mut self, nodes: &[Written<'_>]) {
        for (index, node) in nodes.iter().enumerate() {
            if let Some(first) = nodes[..index].iter().find(|n| n.entry.key == node.entry.key) {
                let Place { source, start, .. } = first.entry.place;
                let line = position(&self.document.sources[source].text, start).0;
                let line = if source == 0 { format!(" (line {line})") } else { String::new() };
                let article = if first.role == Role::Operator { "an" } else { "a" };
                let message = format!("the name `{}` is taken by {article} {}{line}", node.entry.key, first.role);
                self.error(
                    "duplicate_name",
                    node.entry.place,
                    message,
                    "give one of them another name: inputs are named without their role",
                );
            }
        }
    }

    /// Checks the options of a node against the schema of its type.
    fn options<T: ?Sized, S: ?Sized, O: ?Sized, K: ?Sized>(
        &mut self,
        node: &mut Written<'d>,
        types: &[Declaration<T>],
        registry: &Registry<S, O, K>,
    ) {
        let Some(table) = node.table else { return };
        let Some(component) = self.component_type(node, table, types, registry) else {
            node.failed = true;
            return;
        };
        let schema = (types[component].schema)().to_value();
        let reserved: &[&str] = if node.role == Role::Source { &["type"] } else { &["type", "inputs"] };
        let mut reader = Reader::new(self.document, "option", format!(" of {}", node.title()));
        let options = reader.table(table, node.entry.place, Schema::new(&schema), reserved);
        if let Some(inputs) = table.get("inputs").filter(|_| node.role == Role::Source) {
            for finding in reader.findings.iter_mut().filter(|f| f.place == inputs.place) {
                finding.message = format!("{} cannot have `inputs`: it brings data in", node.title());
                finding.help = "remove them, or move this table to `[operators]`".into();
            }
        }
        node.amiss = reader.findings.iter().any(|finding| finding.severity == Severity::Error);
        self.findings.append(&mut reader.findings);
        self.masks.append(&mut reader.masks);
        node.component = component;
        node.secrets = reader.secrets;
        match options {
            Some(options) => node.options = options,
            None => node.failed = true,
        }
    }

    fn component_type<T: ?Sized, S: ?Sized, O: ?Sized, K: ?Sized>(
        &mut self,
        node: &Written<'_>,
        table: &Table,
        types: &[Declaration<T>],
        registry: &Registry<S, O, K>,
    ) -> Option<usize> {
        let known = words::there_are("type", &types.iter().map(|t| t.name).collect::<Vec<_>>());
        let Some(entry) = table.get("type") else {
            let suggestion = table.0.iter().find(|e| words::closest(&e.key, ["type"]).is_some());
            let place = suggestion.map_or(node.entry.place, |e| e.place);
            let help = words::remedy(suggestion.map(|_| "type"), &format!("add `type = \"...\"`: {known}"));
            self.error("missing_key", place, format!("{} has no `type`", node.title()), help);
            return None;
        };
        let Some(name) = entry.value.text() else {
            if !matches!(entry.value.data, Data::Unknown) {
                self.error("wrong_type", entry.value.place, format!("the `type` of {} must be text", node.title()), known);
            }
            return None;
        };
        if let Some(index) = types.iter().position(|t| t.name == name) {
            return Some(index);
        }
        let elsewhere = ROLES.into_iter().find(|&role| role != node.role && role_types(registry, role).contains(&name));
        let help = match elsewhere {
            Some(role) => format!("`{name}` is a {role}: write `[{}.{}]`", role.table(), node.entry.key),
            None => words::remedy(words::closest(name, types.iter().map(|t| t.name)), &known),
        };
        let name = if entry.value.hidden { "***" } else { name };
        self.error("unknown_type", entry.value.place, format!("there is no {} of type `{name}`", node.role), help);
        None
    }

    /// Lets the component check itself.
    fn make<T: ?Sized>(&mut self, node: &Written<'_>, types: &[Declaration<T>], inputs: &[Input]) -> Option<Node<T>> {
        let declaration = &types[node.component];
        let mut cx = Check::new(&node.entry.key, inputs);
        let checked = (declaration.check)(node.options.clone(), &mut cx);
        // What is wrong with a node as a whole may only follow from an option that cannot be read.
        for problem in cx.into_problems().into_iter().filter(|problem| !(node.amiss && problem.path.is_empty())) {
            let place = problem_place(node.entry, &problem.path);
            let Problem { severity, path, message, help } = problem;
            let code = if path.first().is_some_and(|p| p == "inputs") { "wrong_input" } else { "bad_option" };
            self.findings.push(Finding { place, severity, code, message, help });
        }
        let checked = checked?;
        let mut options = node.options.clone();
        for path in &node.secrets {
            mask(&mut options, path);
        }
        Some(Node {
            name: node.entry.key.clone(),
            type_name: declaration.name,
            inputs: inputs.iter().map(|i| i.node.clone()).collect(),
            outputs: checked.outputs,
            component: checked.component,
            options,
        })
    }
}

fn role_types<S: ?Sized, O: ?Sized, K: ?Sized>(registry: &Registry<S, O, K>, role: Role) -> Vec<&'static str> {
    match role {
        Role::Source => registry.sources.iter().map(|t| t.name).collect(),
        Role::Operator => registry.operators.iter().map(|t| t.name).collect(),
        Role::Sink => registry.sinks.iter().map(|t| t.name).collect(),
    }
}

/// Where a key below a node stands: its value, or the nearest key above that exists.
fn problem_place(node: &Entry, path: &[String]) -> Place {
    let (mut place, mut value) = (node.place, &node.value);
    for key in path {
        let below = match &value.data {
            Data::Table(table) => table.get(key).map(|e| (if e.value.table().is_some() { e.place } else { e.value.place }, &e.value)),
            Data::List(items) => key.parse::<usize>().ok().and_then(|i| items.get(i)).map(|item| (item.place, item)),
            _ => None,
        };
        let Some((below_place, below)) = below else { break };
        (place, value) = (below_place, below);
    }
    place
}

/// Replaces the value at the end of a path by `***`.
fn mask(options: &mut Json, path: &[Step]) {
    let mut at = Some(options);
    for step in path {
        at = at.and_then(|json| match step {
            Step::Key(key) => json.get_mut(key),
            Step::Item(index) => json.get_mut(index),
        });
    }
    if let Some(secret) = at {
        *secret = Json::from("***");
    }
}
