//! What the cluster knows of a pipeline for good: one value in the store, which outlives every process.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store::{Entry, Revision, Store, StoreError};
use crate::supervisor::{Desired, Ended, Want};

/// What the keys of definitions begin with.
pub const PREFIX: &str = "pipelines.";

/// A pipeline as its author wrote it, with all that its meaning depends on except the environment of the node.
///
/// It means what `marketprism run FILE` in `folder` would: relative paths in the pipeline start in `folder`, those of
/// `${file:...}` beside `file`, and `marketprism.toml` beside the file holds its settings. Two things are the node's: where
/// the data folder is, and the settings of pipelines that bring none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Spec {
    /// The pipeline file's text.
    pub text: String,
    /// The pipeline file's absolute path: its name in messages.
    pub file: String,
    /// The absolute path of the folder that relative paths in the pipeline start in.
    pub folder: String,
    /// The text of the `marketprism.toml` beside the pipeline file, if there is one. Without it, the node's settings hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<String>,
    /// `KEY=VALUE` over keys of the pipeline or the settings, as in `--set`.
    #[serde(default)]
    pub overrides: Vec<String>,
    /// Number of worker threads of each process. Without it, the settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Number of processes, which are spread over the nodes. Without it, one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<usize>,
}

/// What a checked pipeline computes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// A hash of what it computes.
    pub hash: String,
    /// Each node with a hash of what it computes by itself: its name, and `type:hash`.
    pub nodes: Vec<(String, String)>,
}

/// One attempt at running a pipeline: its process, from start to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Generation {
    /// Grows by one with each process of the pipeline.
    pub number: u64,
    /// The epoch of the leader that started it; see [`crate::lease`].
    pub epoch: u64,
    /// No other generation of any pipeline has the same.
    pub nonce: String,
}

/// What the store holds about a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Its name, which is also in its text.
    pub name: String,
    /// What it is.
    pub spec: Spec,
    /// What it computes.
    pub plan: Plan,
    /// Whether it is to run.
    pub desired: Desired,
    /// Grows each time that it is to be started anew: by `start`, `upgrade` and `rescale`.
    pub version: u64,
    /// The last process that was started.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// Whether it has taken the place of one that computed something else: what that gathered was agreed to be lost.
    #[serde(default)]
    pub upgraded: bool,
    /// What it was when it last ran, until it has run as it is. Only that can finish a commit that was broken off.
    #[serde(default)]
    pub before: Option<Spec>,
    /// How it came to its end, if it has.
    #[serde(default)]
    pub ended: Option<Ended>,
}

impl Definition {
    /// What its supervisor is to pursue.
    pub fn want(&self) -> Want {
        Want { desired: self.desired, version: self.version }
    }

    /// Wants it started anew.
    pub fn renew(&mut self) {
        self.version += 1;
        self.ended = None;
    }
}

/// The definition under a name, with its revision.
///
/// # Errors
/// The store cannot be used, or holds something else there.
pub async fn find(store: &dyn Store, name: &str) -> Result<Option<(Definition, Revision)>, StoreError> {
    let key = key(name);
    store.get(&key).await?.map(|entry| read(&key, &entry)).transpose()
}

/// All definitions, by name. One that cannot be understood hides no other.
///
/// # Errors
/// The store cannot be used.
pub async fn all(store: &dyn Store) -> Result<Vec<(String, Result<Definition, StoreError>)>, StoreError> {
    let entries = store.list(PREFIX).await?;
    Ok(entries.iter().map(|(key, entry)| (key[PREFIX.len()..].to_owned(), read(key, entry).map(|(definition, _)| definition))).collect())
}

/// Stores a pipeline of a new name.
///
/// # Errors
/// [`StoreError::Conflict`] if the name is taken.
pub async fn create(store: &dyn Store, definition: &Definition) -> Result<Revision, StoreError> {
    store.create(&key(&definition.name), &bytes(definition)).await
}

/// Stores what became of a definition that was read at `expected`.
///
/// # Errors
/// [`StoreError::Conflict`] if it was changed since.
pub async fn update(store: &dyn Store, definition: &Definition, expected: Revision) -> Result<Revision, StoreError> {
    store.update(&key(&definition.name), &bytes(definition), expected).await
}

/// Forgets a definition that was read at `expected`.
///
/// # Errors
/// [`StoreError::Conflict`] if it was changed since.
pub async fn delete(store: &dyn Store, name: &str, expected: Revision) -> Result<(), StoreError> {
    store.delete(&key(name), expected).await
}

/// Changes a definition, whatever others do to it meanwhile: `change` is repeated on what it has become. Returns what
/// was stored, or `None` if there is no such pipeline. Where `change` returns false, nothing is stored.
///
/// # Errors
/// The store cannot be used.
pub async fn change(
    store: &dyn Store,
    name: &str,
    mut change: impl FnMut(&mut Definition) -> bool + Send,
) -> Result<Option<(Definition, Revision)>, StoreError> {
    loop {
        let Some((mut definition, revision)) = find(store, name).await? else { return Ok(None) };
        if !change(&mut definition) {
            return Ok(Some((definition, revision)));
        }
        match update(store, &definition, revision).await {
            Ok(revision) => return Ok(Some((definition, revision))),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn bytes(definition: &Definition) -> Vec<u8> {
    serde_json::to_vec_pretty(definition).expect("a definition is JSON")
}

fn read(key: &str, entry: &Entry) -> Result<(Definition, Revision), StoreError> {
    let definition = serde_json::from_slice(&entry.value).map_err(|error| StoreError::Unavailable {
        place: format!("key `{key}`"),
        reason: format!("it holds no definition: {error}"),
        remedy: "an older or newer program wrote it; use that one, or remove the key and submit the pipeline again".into(),
    })?;
    Ok((definition, entry.revision))
}

/// What an upgrade does to the nodes of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Nodes that are new.
    pub added: Vec<String>,
    /// Nodes that are gone: what they had gathered is dropped.
    pub removed: Vec<String>,
    /// Nodes that compute something else: what they had gathered is dropped and built up again.
    pub changed: Vec<String>,
    /// Nodes that compute the same.
    pub kept: Vec<String>,
}

impl Difference {
    /// Between two plans.
    pub fn between(old: &Plan, new: &Plan) -> Difference {
        let mut difference = Difference::default();
        for (name, hash) in &new.nodes {
            let list = match old.nodes.iter().find(|(n, _)| n == name) {
                None => &mut difference.added,
                Some((_, before)) if before == hash => &mut difference.kept,
                Some(_) => &mut difference.changed,
            };
            list.push(name.clone());
        }
        let gone = old.nodes.iter().filter(|(name, _)| !new.nodes.iter().any(|(n, _)| n == name));
        difference.removed = gone.map(|(name, _)| name.clone()).collect();
        difference
    }

    /// Whether something that a node has gathered would be lost.
    pub fn loses(&self) -> bool {
        !self.removed.is_empty() || !self.changed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_every_node_once() {
        let plan = |nodes: &[(&str, &str)]| Plan {
            hash: String::new(),
            nodes: nodes.iter().map(|(n, h)| ((*n).to_owned(), (*h).to_owned())).collect(),
        };
        let old = plan(&[("a", "file:1"), ("b", "bars:2"), ("c", "bars:3")]);
        let new = plan(&[("d", "print:4"), ("c", "bars:5"), ("a", "file:1")]);
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let difference = Difference::between(&old, &new);
        let expected = Difference { added: names(&["d"]), removed: names(&["b"]), changed: names(&["c"]), kept: names(&["a"]) };
        assert_eq!(difference, expected);
        assert!(difference.loses() && !Difference::between(&old, &old).loses());
    }
}
