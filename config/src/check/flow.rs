//! How nodes are joined: what each reads, in which order they flow, and what nothing reads.

use std::collections::{HashMap, HashSet};

use super::{Checker, Written};
use crate::component::Role;
use crate::diagnostic::{Finding, Place};
use crate::document::{Data, Table, Value};
use crate::words;

impl<'d> Checker<'d> {
    /// Looks up the inputs of every node.
    pub(super) fn inputs(&mut self, nodes: &mut [Written<'d>]) {
        let mut known: HashMap<&str, usize> = HashMap::new();
        for (index, node) in nodes.iter().enumerate() {
            known.entry(&node.entry.key).or_insert(index);
        }
        for index in 0..nodes.len() {
            let node = &nodes[index];
            let Some(table) = node.table else { continue };
            if node.role == Role::Source {
                // Inputs of a source are an unknown option.
                continue;
            }
            let (mut found, mut misread) = (Vec::new(), false);
            for name in self.input_names(node, table, nodes) {
                match name.and_then(|name| self.input(node, name, nodes, &known)) {
                    Some((i, place)) if found.iter().any(|(other, _)| *other == i) => {
                        self.error(
                            "duplicate_input",
                            place,
                            format!("{} reads `{}` twice", node.title(), nodes[i].entry.key),
                            "remove one of them",
                        );
                        misread = true;
                    }
                    Some(input) => found.push(input),
                    None => misread = true,
                }
            }
            nodes[index].inputs = found;
            nodes[index].misread = misread;
            nodes[index].failed |= misread;
        }
    }

    /// The values that name inputs; `None` stands for what was wrong.
    fn input_names(&mut self, node: &Written<'_>, table: &'d Table, nodes: &[Written<'_>]) -> Vec<Option<&'d Value>> {
        let readable = readable(node, nodes);
        let example = format!("inputs = [\"{}\"]", readable.first().copied().unwrap_or("..."));
        let choice = if readable.is_empty() { String::new() } else { format!("; it can read {}", words::alternatives(&readable)) };
        let Some(entry) = table.get("inputs") else {
            let suggestion = table.0.iter().find(|e| words::closest(&e.key, ["inputs"]).is_some());
            if suggestion.is_none() {
                let message = format!("{} has no `inputs`", node.title());
                self.error("missing_key", node.entry.place, message, format!("add `{example}`{choice}"));
            }
            return vec![None];
        };
        let list = [Some(&entry.value.data), entry.value.alternative.as_deref()].into_iter().flatten().find_map(|data| match data {
            Data::List(items) => Some(items),
            _ => None,
        });
        match (list, &entry.value.data) {
            (Some(items), _) if items.is_empty() => {
                self.error(
                    "missing_input",
                    entry.value.place,
                    format!("{} reads nothing", node.title()),
                    format!("write e.g. `{example}`{choice}"),
                );
                vec![None]
            }
            (Some(items), _) => items.iter().map(Some).collect(),
            (None, Data::Unknown) => vec![None],
            (None, _) => vec![Some(&entry.value)],
        }
    }

    fn input(&mut self, node: &Written<'_>, value: &Value, nodes: &[Written<'_>], known: &HashMap<&str, usize>) -> Option<(usize, Place)> {
        let Some(name) = value.text() else {
            if !matches!(value.data, Data::Unknown) {
                self.error(
                    "wrong_type",
                    value.place,
                    format!("an input of {} must be a name", node.title()),
                    "write names in quotes: `inputs = [\"trades\"]`",
                );
            }
            return None;
        };
        let found = known.get(name).copied();
        let readable = readable(node, nodes);
        let choice =
            if readable.is_empty() { "there is nothing to read".into() } else { format!("it can read {}", words::alternatives(&readable)) };
        match found.map(|i| &nodes[i]) {
            Some(other) if std::ptr::eq(other.entry, node.entry) => {
                self.error("cycle", value.place, format!("{} reads itself", node.title()), choice);
                None
            }
            Some(other) if other.role == Role::Sink => {
                let message = format!("input `{name}` of {} is a sink: nothing comes out of it", node.title());
                self.error("unknown_input", value.place, message, choice);
                None
            }
            Some(_) => found.map(|i| (i, value.place)),
            // In a broken file, the node may have been meant to be there.
            None if self.document.is_broken() => None,
            None => {
                let suggestion = words::closest(name, readable.iter().copied());
                let help = words::remedy(suggestion, if suggestion.is_some() && readable.len() == 1 { "" } else { &choice });
                let name = if value.hidden { "***" } else { name };
                self.error("unknown_input", value.place, format!("{} reads `{name}`, which does not exist", node.title()), help);
                None
            }
        }
    }

    /// The nodes in the order of the flow: each after its inputs. Reports cycles, and fails the nodes on them.
    pub(super) fn order(&mut self, nodes: &mut [Written<'d>]) -> Vec<usize> {
        let mut order = Vec::with_capacity(nodes.len());
        let mut done: HashSet<usize> = HashSet::new();
        for start in 0..nodes.len() {
            // The nodes from `start` to the one at hand, each an input of the one before, and the next input to follow.
            let mut path: Vec<(usize, usize)> = if done.contains(&start) { Vec::new() } else { vec![(start, 0)] };
            while let Some((index, next)) = path.last_mut() {
                let index = *index;
                let Some(&(input, place)) = nodes[index].inputs.get(*next) else {
                    path.pop();
                    done.insert(index);
                    order.push(index);
                    continue;
                };
                *next += 1;
                if let Some(from) = path.iter().position(|(on, _)| *on == input) {
                    let ring: Vec<usize> = path[from..].iter().map(|(on, _)| *on).collect();
                    self.cycle(nodes, &ring, place);
                } else if !done.contains(&input) {
                    path.push((input, 0));
                }
            }
        }
        order
    }

    /// Reports a ring of nodes, each of which reads the next, and the last the first.
    fn cycle(&mut self, nodes: &mut [Written<'d>], ring: &[usize], place: Place) {
        let flow =
            std::iter::once(ring[0]).chain(ring.iter().rev().copied()).map(|i| format!("`{}`", nodes[i].entry.key)).collect::<Vec<_>>();
        let message = format!("the inputs run in a circle: {}", flow.join(" → "));
        self.error("cycle", place, message, "remove one of these inputs: a stream cannot flow back into itself");
        for &index in ring {
            nodes[index].failed = true;
        }
    }

    /// Warns of what nothing reads.
    pub(super) fn unused(&mut self, nodes: &[Written<'_>]) {
        // A name that was misspelt may have been meant for any of them.
        let whole = nodes.iter().all(|n| n.table.is_some() && !n.misread) && !self.document.is_broken();
        if !whole || !nodes.iter().any(|n| n.role == Role::Sink) {
            return;
        }
        let read: HashSet<&str> = nodes.iter().filter(|n| n.role != Role::Source).flat_map(|n| read_names(n.table)).collect();
        for node in nodes.iter().filter(|n| n.role != Role::Sink && !read.contains(n.entry.key.as_str())) {
            let help = "name it in the `inputs` of an operator or a sink, or remove it";
            self.findings.push(Finding::warning("unused", node.entry.place, format!("nothing reads {}", node.title()), help));
        }
    }
}

/// The names that a node can have as inputs.
fn readable<'n>(node: &Written<'_>, nodes: &'n [Written<'_>]) -> Vec<&'n str> {
    nodes.iter().filter(|n| n.role != Role::Sink && !std::ptr::eq(n.entry, node.entry)).map(|n| n.entry.key.as_str()).collect()
}

/// Every name in the `inputs` of a node, wrong or not.
fn read_names(table: Option<&Table>) -> Vec<&str> {
    let Some(inputs) = table.and_then(|t| t.get("inputs")) else { return Vec::new() };
    let mut names: Vec<&str> = inputs.value.text().into_iter().collect();
    for data in [Some(&inputs.value.data), inputs.value.alternative.as_deref()].into_iter().flatten() {
        if let Data::List(items) = data {
            names.extend(items.iter().filter_map(Value::text));
        }
    }
    names
}
