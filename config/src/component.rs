//! How a component declares itself: its options, and what it makes of its inputs.
//!
//! A source, an operator or a sink is one struct: its fields are its options (serde reads them, schemars
//! and their doc comments describe them) and [`Component::check`] turns them into the thing that runs,
//! given the kinds that its inputs carry. Everything the language offers (checking, `explain`, the JSON
//! Schema, the manual's option tables) follows from that one struct. This crate knows no component by
//! name; the registries are handed to it.

use std::fmt;
use std::sync::Arc;

use model::Kind;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::words::{alternatives, list};

/// The three places a component can stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Brings data in: `[sources.NAME]`.
    Source,
    /// Turns streams into a stream: `[operators.NAME]`.
    Operator,
    /// Brings data out: `[sinks.NAME]`.
    Sink,
}

impl Role {
    /// The table of the pipeline file that holds components of this role.
    pub const fn table(self) -> &'static str {
        match self {
            Role::Source => "sources",
            Role::Operator => "operators",
            Role::Sink => "sinks",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Source => "source",
            Role::Operator => "operator",
            Role::Sink => "sink",
        })
    }
}

/// A component that can stand in a pipeline as a `T` (`dyn Source`, `dyn Operator`, `dyn Sink`).
pub trait Component<T: ?Sized>: DeserializeOwned + JsonSchema + 'static {
    /// Its `type` in pipeline files.
    const TYPE: &'static str;
    /// A table of a pipeline file that uses it, ready to copy.
    const EXAMPLE: &'static str;
    /// The source file whose head (`//!`) says what it promises: its page in the manual. Without one it has no page.
    const MODULE: &'static str = "";

    /// Checks the options against each other and against what the inputs carry, and says what comes out.
    /// Touches nothing outside. Every problem goes to `cx`; `None` only if one of them was an error.
    fn check(self, cx: &mut Check<'_>) -> Option<Checked<T>>;
}

/// A component that passed its check.
#[derive(Debug)]
pub struct Checked<T: ?Sized> {
    /// What it sends on: empty for sinks.
    pub outputs: Vec<Arc<Kind>>,
    /// What the runtime starts.
    pub component: Arc<T>,
}

/// One input of a node: the upstream node and what it carries.
#[derive(Clone, Debug)]
pub struct Input {
    /// The upstream node's name.
    pub node: String,
    /// The kinds it sends.
    pub kinds: Vec<Arc<Kind>>,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The pipeline runs, but probably not as meant.
    Warning,
    /// The pipeline cannot run.
    Error,
}

/// What a check found wrong, at a key of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The key below the node, e.g. `["detect", "price_spike", "window"]`, or `["inputs", "0"]` for an item of a list;
    /// empty for the node as a whole.
    pub path: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// What a component sees while it is checked.
#[derive(Debug)]
pub struct Check<'a> {
    node: &'a str,
    inputs: &'a [Input],
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    /// A check of the node of this name with these inputs.
    pub fn new(node: &'a str, inputs: &'a [Input]) -> Self {
        Check { node, inputs, problems: Vec::new() }
    }

    /// The name of the node being checked.
    pub fn node(&self) -> &str {
        self.node
    }

    /// What each input carries.
    pub fn inputs(&self) -> &[Input] {
        self.inputs
    }

    /// Every kind that any input carries, once.
    pub fn carried(&self) -> Vec<Arc<Kind>> {
        let mut kinds: Vec<Arc<Kind>> = Vec::new();
        for kind in self.inputs.iter().flat_map(|i| &i.kinds) {
            if !kinds.iter().any(|k| k.name == kind.name) {
                kinds.push(kind.clone());
            }
        }
        kinds
    }

    /// Demands that every input carries at least one of `kinds` (by name); an input that does not is an error
    /// at its name in `inputs`. Returns whether all do.
    pub fn require(&mut self, kinds: &[&str]) -> bool {
        let mut all = true;
        for input in self.inputs {
            if !input.kinds.iter().any(|k| kinds.contains(&k.name.as_ref())) {
                let carries = if input.kinds.is_empty() { "nothing".to_owned() } else { list(input.kinds.iter().map(|k| k.name.as_ref())) };
                self.error_at_input(
                    &input.node,
                    format!("input `{}` carries {carries}, but `{}` needs {}", input.node, self.node, alternatives(kinds)),
                    format!("name an input that carries {}", alternatives(kinds)),
                );
                all = false;
            }
        }
        all
    }

    /// Reports an error at a key below the node.
    pub fn error(&mut self, path: &[&str], message: impl Into<String>, help: impl Into<String>) {
        self.report(Severity::Error, path, message.into(), help.into());
    }

    /// Reports an error at the name of this upstream node in `inputs`.
    pub fn error_at_input(&mut self, node: &str, message: impl Into<String>, help: impl Into<String>) {
        match self.inputs.iter().position(|i| i.node == node) {
            Some(index) => self.error(&["inputs", &index.to_string()], message, help),
            None => self.error(&["inputs"], message, help),
        }
    }

    /// Reports a warning at a key below the node.
    pub fn warn(&mut self, path: &[&str], message: impl Into<String>, help: impl Into<String>) {
        self.report(Severity::Warning, path, message.into(), help.into());
    }

    fn report(&mut self, severity: Severity, path: &[&str], message: String, help: String) {
        self.problems.push(Problem { severity, path: path.iter().map(|p| (*p).to_owned()).collect(), message, help });
    }

    /// Whether an error was reported.
    pub fn failed(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    /// What was reported.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

/// A component type as the language sees it: an entry of a registry.
pub struct Declaration<T: ?Sized> {
    /// Its `type` in pipeline files.
    pub name: &'static str,
    /// A table of a pipeline file that uses it.
    pub example: &'static str,
    /// The source file whose head says what it promises; empty where it has no page.
    pub module: &'static str,
    /// The JSON Schema of its options; descriptions are the manual's texts.
    pub schema: fn() -> schemars::Schema,
    /// Reads options that fit the schema and checks them.
    pub check: fn(Value, &mut Check<'_>) -> Option<Checked<T>>,
}

impl<T: ?Sized> fmt::Debug for Declaration<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Declaration").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The registry entry of a component type.
pub fn declare<T: ?Sized, C: Component<T>>() -> Declaration<T> {
    Declaration {
        name: C::TYPE,
        example: C::EXAMPLE,
        module: C::MODULE,
        schema: || schemars::schema_for!(C),
        check: |options, cx| match serde_json::from_value::<C>(options) {
            Ok(component) => component.check(cx).filter(|_| !cx.failed()),
            Err(error) => {
                // The options were checked against the schema before, so this is a rule that serde alone knows.
                cx.error(&[], error.to_string(), format!("see `marketprism explain {}`", C::TYPE));
                None
            }
        },
    }
}

/// Everything that a pipeline file can name.
#[derive(Debug)]
pub struct Registry<S: ?Sized, O: ?Sized, K: ?Sized> {
    /// The sources.
    pub sources: Vec<Declaration<S>>,
    /// The operators.
    pub operators: Vec<Declaration<O>>,
    /// The sinks.
    pub sinks: Vec<Declaration<K>>,
}

/// A component from the text of its options alone (TOML, without `type` and `inputs`): how components are
/// made in unit tests and benchmarks, through the same reading and checking as in a pipeline.
///
/// # Errors
/// The problems found, one a line.
pub fn component<T: ?Sized, C: Component<T>>(options: &str, inputs: &[Arc<Kind>]) -> Result<Checked<T>, String> {
    let options: Value = toml::from_str(options).map_err(|e| e.to_string())?;
    let inputs = [Input { node: "input".into(), kinds: inputs.to_vec() }];
    let mut cx = Check::new("node", &inputs);
    let checked = (declare::<T, C>().check)(options, &mut cx);
    checked.ok_or_else(|| cx.into_problems().iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect::<Vec<_>>().join("\n"))
}
