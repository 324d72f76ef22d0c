//! A checked pipeline: what the runtime builds, and what `graph` shows.

use std::fmt::Write;
use std::hash::Hasher;
use std::sync::Arc;

use model::Kind;
use serde_json::Value as Json;
use twox_hash::XxHash64;

use crate::component::Role;

/// A pipeline that passed its check.
#[derive(Debug)]
pub struct Graph<S: ?Sized, O: ?Sized, K: ?Sized> {
    /// The pipeline's name.
    pub name: String,
    /// The sources, in the order of the file.
    pub sources: Vec<Node<S>>,
    /// The operators, each after the operators it reads.
    pub operators: Vec<Node<O>>,
    /// The sinks, in the order of the file.
    pub sinks: Vec<Node<K>>,
}

/// A node of a checked pipeline.
#[derive(Debug)]
pub struct Node<T: ?Sized> {
    /// Its name, unique in the pipeline.
    pub name: String,
    /// Its `type`.
    pub type_name: &'static str,
    /// The nodes it reads, in the order it names them.
    pub inputs: Vec<String>,
    /// The kinds it sends to all that read it; empty for sinks.
    pub outputs: Vec<Arc<Kind>>,
    /// What the runtime starts.
    pub component: Arc<T>,
    /// Its options as they were written, secrets as `***`.
    pub options: Json,
}

/// What every node has, whatever its role.
struct Any<'a> {
    role: Role,
    name: &'a str,
    type_name: &'a str,
    inputs: &'a [String],
    outputs: &'a [Arc<Kind>],
    options: &'a Json,
}

impl<T: ?Sized> Node<T> {
    fn any(&self, role: Role) -> Any<'_> {
        Any { role, name: &self.name, type_name: self.type_name, inputs: &self.inputs, outputs: &self.outputs, options: &self.options }
    }
}

impl<S: ?Sized, O: ?Sized, K: ?Sized> Graph<S, O, K> {
    fn nodes(&self) -> impl Iterator<Item = Any<'_>> {
        let sources = self.sources.iter().map(|n| n.any(Role::Source));
        let operators = self.operators.iter().map(|n| n.any(Role::Operator));
        let sinks = self.sinks.iter().map(|n| n.any(Role::Sink));
        sources.chain(operators).chain(sinks)
    }

    /// The names of the nodes that read this one, in the order of the flow.
    pub fn readers(&self, node: &str) -> Vec<&str> {
        self.nodes().filter(|n| n.inputs.iter().any(|i| i == node)).map(|n| n.name).collect()
    }

    /// A hash of what the pipeline computes: its name and, of each node, name, type, inputs and options without secrets.
    /// Neither the order of tables and keys nor comments and layout change it. 16 hexadecimal digits.
    pub fn plan_hash(&self) -> String {
        let mut nodes: Vec<String> =
            self.nodes().map(|n| format!("{} {:?} {:?} {:?} {}", n.role, n.name, n.type_name, n.inputs, canonical(n.options))).collect();
        nodes.sort_unstable();
        let mut hash = XxHash64::with_seed(0);
        hash.write(format!("{:?}\n{}", self.name, nodes.join("\n")).as_bytes());
        format!("{:016x}", hash.finish())
    }

    /// What each node computes, by its name: its type and a hash of its inputs and its options without secrets, as
    /// `type:hash`. Neither the order of tables and keys nor comments and layout change it.
    pub fn node_hashes(&self) -> Vec<(String, String)> {
        let hashed = |n: Any<'_>| {
            let hash = XxHash64::oneshot(0, format!("{} {:?} {}", n.role, n.inputs, canonical(n.options)).as_bytes());
            (n.name.to_owned(), format!("{}:{hash:016x}", n.type_name))
        };
        self.nodes().map(hashed).collect()
    }

    /// The flow in words: each node with what it reads, what reads it, and the kinds and columns that it sends them.
    pub fn to_text(&self) -> String {
        let mut text = format!("pipeline {}\n", self.name);
        for node in self.nodes() {
            let _ = write!(text, "\n{} {} ({})", node.role, node.name, node.type_name);
            if !node.inputs.is_empty() {
                let _ = write!(text, " ← {}", node.inputs.join(", "));
            }
            text.push('\n');
            let readers = self.readers(node.name);
            if node.outputs.is_empty() {
                continue;
            }
            let _ = writeln!(text, "  → {}", if readers.is_empty() { "nothing reads it".into() } else { readers.join(", ") });
            for kind in node.outputs {
                let columns = kind.columns.iter().map(|c| format!("{} {}{}", c.name, c.ty, if c.nullable { "?" } else { "" }));
                text.push_str(&wrapped(&format!("    {}: ", kind.name), columns, 110));
            }
        }
        text
    }

    /// The flow as a Mermaid flowchart, with kinds and columns on each edge.
    pub fn to_mermaid(&self) -> String {
        let nodes: Vec<Any<'_>> = self.nodes().collect();
        // Mermaid reserves words such as `end`, so nodes are numbered.
        let number = |name: &str| nodes.iter().position(|n| n.name == name).unwrap_or_default();
        let mut text = String::from("flowchart LR\n");
        for (i, node) in nodes.iter().enumerate() {
            let (open, close) = match node.role {
                Role::Source => ("([", "])"),
                Role::Operator => ("[", "]"),
                Role::Sink => ("[(", ")]"),
            };
            let _ = writeln!(text, "    n{i}{open}\"{}<br/><small>{}</small>\"{close}", node.name, node.type_name);
        }
        for (i, node) in nodes.iter().enumerate() {
            for input in node.inputs {
                let from = number(input);
                let label: Vec<String> = nodes[from].outputs.iter().map(|k| format!("<b>{}</b><br/>{}", k.name, columns(k))).collect();
                let arrow = if label.is_empty() { "-->".to_owned() } else { format!("-->|\"{}\"|", label.join("<br/>")) };
                let _ = writeln!(text, "    n{from} {arrow} n{i}");
            }
        }
        text
    }
}

/// The columns of a kind, a few to a line.
fn columns(kind: &Kind) -> String {
    let names: Vec<&str> = kind.columns.iter().map(|c| c.name.as_ref()).collect();
    names.chunks(4).map(|line| line.join(", ")).collect::<Vec<_>>().join(",<br/>")
}

/// Phrases separated by commas behind a heading, broken into lines of at most `width` characters.
fn wrapped(heading: &str, phrases: impl Iterator<Item = String>, width: usize) -> String {
    let indent = " ".repeat(heading.chars().count());
    let (mut text, mut column) = (heading.to_owned(), heading.chars().count());
    let mut phrases = phrases.peekable();
    while let Some(mut phrase) = phrases.next() {
        if phrases.peek().is_some() {
            phrase.push(',');
        }
        let length = phrase.chars().count();
        if column + 1 + length > width && column > indent.len() {
            text.push('\n');
            text.push_str(&indent);
            column = indent.len();
        } else if column > indent.len() {
            text.push(' ');
            column += 1;
        }
        text.push_str(&phrase);
        column += length;
    }
    text.push('\n');
    text
}

/// JSON with its keys in order.
fn canonical(json: &Json) -> String {
    match json {
        Json::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let entries = entries.into_iter().map(|(key, value)| format!("{}:{}", Json::from(key.as_str()), canonical(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}
