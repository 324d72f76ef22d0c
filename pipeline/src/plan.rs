//! What every worker builds: the graph with everything decided that does not depend on the worker.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use config::Role;
use config::{Declaration, Graph, Registry, graph};
use model::kinds::DEAD_LETTER;
use model::{Account, Kind};
use operators::{Operator, SourceClock};
use sinks::{Keeps, Sink};
use sources::Source;

/// Everything that a pipeline file can name.
pub fn registry() -> Registry<dyn Source, dyn Operator, dyn Sink> {
    Registry { sources: sources::registry(), operators: operators::registry(), sinks: sinks::registry() }
}

/// A graph of this project's components.
pub type Pipeline = Graph<dyn Source, dyn Operator, dyn Sink>;

/// A graph, ready to be built.
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// A hash of what it computes.
    pub hash: String,
    /// What each node of the file computes, as `type:hash`.
    pub node_hashes: BTreeMap<String, String>,
    /// The sources; their index is their number.
    pub sources: Vec<Node<dyn Source>>,
    /// The operators, each after the operators it reads.
    pub operators: Vec<Node<dyn Operator>>,
    /// The sinks.
    pub sinks: Vec<Node<dyn Sink>>,
    /// The pipeline's own books: what its journal and its checkpoints wait for.
    pub account: Arc<Account>,
}

/// A node of a plan.
pub struct Node<T: ?Sized> {
    /// Its name.
    pub name: String,
    /// The nodes it reads.
    pub inputs: Vec<String>,
    /// The kinds it sends; of a sink, the kinds that flow into it.
    pub kinds: Vec<Arc<Kind>>,
    /// The clocks of the sources whose rows can reach it; of a source, its own.
    pub clocks: Arc<[SourceClock]>,
    /// What the runtime starts.
    pub component: Arc<T>,
    /// Its books.
    pub account: Arc<Account>,
}

/// Name of the sink that stores the dead letters which no sink of the pipeline stores.
pub const DEAD_LETTERS: &str = "dead_letters";

impl Plan {
    /// The plan of a checked pipeline. Dead letters of nodes of which no sink stores them get a sink of their
    /// own into the cold store, so that none is lost.
    pub fn new(pipeline: Pipeline) -> Plan {
        let hash = pipeline.plan_hash();
        let node_hashes: BTreeMap<String, String> = pipeline.node_hashes().into_iter().collect();
        let mut clocks: HashMap<String, Vec<SourceClock>> = HashMap::new();
        let mut kinds: HashMap<String, Vec<Arc<Kind>>> = HashMap::new();
        let mut sources = Vec::new();
        for (number, node) in (0..).zip(pipeline.sources) {
            let clock = node.component.clock();
            let clock = SourceClock { source: number, disorder: clock.disorder.micros(), idle: clock.idle.millis() };
            clocks.insert(node.name.clone(), vec![clock]);
            kinds.insert(node.name.clone(), node.outputs.clone());
            sources.push(planned(node, vec![clock]));
        }
        let mut operators = Vec::new();
        for node in pipeline.operators {
            let reaching = upstream(&node.inputs, &clocks);
            clocks.insert(node.name.clone(), reaching.clone());
            kinds.insert(node.name.clone(), node.outputs.clone());
            operators.push(planned(node, reaching));
        }
        let mut sinks: Vec<Node<dyn Sink>> = Vec::new();
        for node in pipeline.sinks {
            let reaching = upstream(&node.inputs, &clocks);
            let flowing = flowing(&node.inputs, &kinds);
            let letters = node.component.keeps_dead_letters() || flowing.iter().all(|k| k.name == DEAD_LETTER.name);
            let mut sink = planned(node, reaching);
            sink.kinds = flowing.into_iter().filter(|k| letters || k.name != DEAD_LETTER.name).collect();
            sinks.push(sink);
        }
        let mut plan = Plan { name: pipeline.name, hash, node_hashes, sources, operators, sinks, account: Arc::default() };
        plan.store_dead_letters(&clocks);
        plan
    }

    fn store_dead_letters(&mut self, clocks: &HashMap<String, Vec<SourceClock>>) {
        let writes_letters = |kinds: &[Arc<Kind>]| kinds.iter().any(|k| k.name == DEAD_LETTER.name);
        let nodes = self.sources.iter().map(|n| (&n.name, &n.kinds)).chain(self.operators.iter().map(|n| (&n.name, &n.kinds)));
        let stored = |name: &String| self.sinks.iter().any(|s| writes_letters(&s.kinds) && s.inputs.contains(name));
        let inputs: Vec<String> =
            nodes.filter(|(name, kinds)| writes_letters(kinds) && !stored(name)).map(|(name, _)| name.clone()).collect();
        if inputs.is_empty() {
            return;
        }
        let mut name = DEAD_LETTERS.to_owned();
        while clocks.contains_key(&name) || self.sinks.iter().any(|s| s.name == name) {
            name.insert(0, '_');
        }
        let kinds = vec![DEAD_LETTER.clone()];
        let parquet: Declaration<dyn Sink> = config::declare::<dyn Sink, sinks::parquet::Parquet>();
        let reads = [config::Input { node: name.clone(), kinds: kinds.clone() }];
        let mut check = config::Check::new(&name, &reads);
        let checked = (parquet.check)(serde_json::json!({}), &mut check).expect("a table of dead letters needs no options");
        let clocks = upstream(&inputs, clocks).into();
        self.sinks.push(Node { name, inputs, kinds, clocks, component: checked.component, account: Arc::default() });
    }

    /// Whether a sink of the file keeps what it commits: then the pipeline goes on where it was, and begins anew otherwise.
    pub fn keeps_commits(&self) -> bool {
        let of_file = |sink: &&Node<dyn Sink>| self.node_hashes.contains_key(&sink.name);
        self.sinks.iter().filter(of_file).any(|sink| sink.component.keeps() == Keeps::Commits)
    }

    /// The books of every node, in the order of the flow.
    pub fn accounts(&self) -> impl Iterator<Item = (Role, &str, &[String], &Arc<Account>)> {
        let sources = self.sources.iter().map(|n| (Role::Source, n.name.as_str(), n.inputs.as_slice(), &n.account));
        let operators = self.operators.iter().map(|n| (Role::Operator, n.name.as_str(), n.inputs.as_slice(), &n.account));
        let sinks = self.sinks.iter().map(|n| (Role::Sink, n.name.as_str(), n.inputs.as_slice(), &n.account));
        sources.chain(operators).chain(sinks)
    }
}

fn planned<T: ?Sized>(node: graph::Node<T>, clocks: Vec<SourceClock>) -> Node<T> {
    Node {
        name: node.name,
        inputs: node.inputs,
        kinds: node.outputs,
        clocks: clocks.into(),
        component: node.component,
        account: Arc::default(),
    }
}

/// The clocks of every source above, once.
fn upstream(inputs: &[String], clocks: &HashMap<String, Vec<SourceClock>>) -> Vec<SourceClock> {
    let mut all: Vec<SourceClock> = inputs.iter().filter_map(|i| clocks.get(i)).flatten().copied().collect();
    all.sort_by_key(|c| c.source);
    all.dedup_by_key(|c| c.source);
    all
}

/// Every kind that the inputs carry, once.
fn flowing(inputs: &[String], kinds: &HashMap<String, Vec<Arc<Kind>>>) -> Vec<Arc<Kind>> {
    let mut all: Vec<Arc<Kind>> = Vec::new();
    for kind in inputs.iter().filter_map(|i| kinds.get(i)).flatten() {
        if !all.iter().any(|k| k.name == kind.name) {
            all.push(kind.clone());
        }
    }
    all
}
