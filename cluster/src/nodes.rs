//! The nodes of a cluster: each writes a record under its name and keeps renewing it.
//!
//! A node whose record has not changed for [`SILENT`] is silent, counted by the clock of who looks, from when it first saw the
//! record as it is. Its name may then be taken by another incarnation; before that, a second node of the name is refused. A
//! node that finds its record taken must end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::agent::NodeError;
use crate::remote::Lost;
use crate::store::{Entry, Revision, Store, StoreError};

/// What the keys of records begin with.
const PREFIX: &str = "nodes.";
/// How often a node renews its record.
const INTERVAL: Duration = Duration::from_secs(2);
/// For how long the record of a node that lives may stay as it is.
pub(crate) const SILENT: Duration = Duration::from_secs(8);
/// How long a node that starts waits for a store that cannot be used: its servers may be choosing another leader.
const OPENING: Duration = Duration::from_secs(30);
/// How often who waits for a name looks again.
const LOOK: Duration = Duration::from_millis(500);

/// What the store holds about a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    /// Where its API is.
    pub(crate) address: String,
    pub(crate) process: u32,
    pub(crate) version: String,
    /// Each start of an agent has its own.
    incarnation: String,
}

/// The nodes, as one of them sees them.
#[derive(Debug, Default)]
pub(crate) struct Nodes(BTreeMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    record: Record,
    revision: Revision,
    since: Instant,
}

impl Nodes {
    /// Looks at all records.
    pub(crate) async fn look(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let entries = store.list(PREFIX).await?;
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.0);
        for (key, entry) in entries {
            let record = match serde_json::from_slice::<Record>(&entry.value) {
                Ok(record) => record,
                Err(error) => {
                    tracing::warn!(
                        "the record `{key}` of a node cannot be understood: {error}; run one version of this program on all nodes"
                    );
                    continue;
                }
            };
            let since = before.remove(&key).filter(|seen| seen.revision == entry.revision).map_or(now, |seen| seen.since);
            self.0.insert(key, Seen { record, revision: entry.revision, since });
        }
        Ok(())
    }

    /// All, by name, and whether each is silent.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Record, bool)> {
        self.0.values().map(|seen| (&seen.record, seen.since.elapsed() >= SILENT))
    }

    /// Those that are not silent, and not lost. One whose record is another than when it was lost is found.
    pub(crate) fn living(&self, lost: &Lost) -> Vec<&Record> {
        let mut lost = lost.lock().expect("no holder panics");
        let lives = |seen: &&Seen| {
            if let Some(then) = lost.get_mut(&seen.record.name) {
                if *then.get_or_insert(seen.revision) == seen.revision {
                    return false;
                }
                lost.remove(&seen.record.name);
            }
            seen.since.elapsed() < SILENT
        };
        self.0.values().filter(lives).map(|seen| &seen.record).collect()
    }
}

/// A node's own record.
#[derive(Debug)]
pub(crate) struct Membership {
    store: Arc<dyn Store>,
    record: Record,
    revision: Arc<Mutex<Option<Revision>>>,
    /// Who has the name instead.
    taken: watch::Receiver<Option<Record>>,
    task: JoinHandle<()>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Membership {
    /// Takes a name, once whoever had it is silent.
    ///
    /// # Errors
    /// Another node has it, or the store cannot be used for long.
    pub(crate) async fn take(store: Arc<dyn Store>, name: &str, address: &str, incarnation: &str) -> Result<Membership, NodeError> {
        let record = Record {
            name: name.to_owned(),
            address: address.to_owned(),
            process: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation: incarnation.to_owned(),
        };
        let key = format!("{PREFIX}{name}");
        let mut first: Option<(Revision, Instant)> = None;
        let end = Instant::now() + OPENING;
        let own = |entry: &Entry| serde_json::from_slice::<Record>(&entry.value).is_ok_and(|r| r.incarnation == incarnation);
        let revision = loop {
            let written = match store.get(&key).await {
                Err(error) => Err(error),
                Ok(None) => store.create(&key, &bytes(&record)).await,
                // It was written, and the answer was lost.
                Ok(Some(entry)) if own(&entry) => Ok(entry.revision),
                Ok(Some(entry)) => {
                    let (revision, since) = *first.get_or_insert_with(|| {
                        tracing::info!("a node called `{name}` was there before; waiting until it is silent for {} s", SILENT.as_secs());
                        (entry.revision, Instant::now())
                    });
                    if revision != entry.revision {
                        let other = serde_json::from_slice::<Record>(&entry.value).unwrap_or_else(|_| record.clone());
                        return Err(NodeError::Named { name: name.to_owned(), process: other.process, address: other.address });
                    }
                    if since.elapsed() < SILENT {
                        sleep(LOOK).await;
                        continue;
                    }
                    store.update(&key, &bytes(&record), revision).await
                }
            };
            match written {
                Ok(revision) => break revision,
                // Someone was faster; the next look tells who.
                Err(StoreError::Conflict { .. }) => {}
                Err(error @ StoreError::Unavailable { .. }) if Instant::now() < end => {
                    tracing::warn!("{error}");
                    sleep(LOOK).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let revision = Arc::new(Mutex::new(Some(revision)));
        let (tell, taken) = watch::channel(None);
        let task = tokio::spawn(renew(store.clone(), key, record.clone(), revision.clone(), tell));
        Ok(Membership { store, record, revision, taken, task })
    }

    /// Returns when another node has taken the name.
    pub(crate) async fn lost(&self) -> NodeError {
        let mut taken = self.taken.clone();
        let other = match taken.wait_for(Option::is_some).await {
            Ok(other) => other.clone(),
            Err(_) => std::future::pending().await,
        };
        let other = other.unwrap_or_else(|| self.record.clone());
        NodeError::Named { name: other.name, process: other.process, address: other.address }
    }

    /// Lets the name go.
    pub(crate) async fn leave(&self) {
        self.task.abort();
        let key = format!("{PREFIX}{}", self.record.name);
        let revision = self.revision.lock().await.take();
        let gone = match revision {
            Some(revision) => self.store.delete(&key, revision).await,
            None => Ok(()),
        };
        if let Err(error) = gone {
            tracing::warn!("other nodes will find this one silent: {error}");
        }
    }
}

/// Renews a record until another one is in its place.
async fn renew(
    store: Arc<dyn Store>,
    key: String,
    record: Record,
    revision: Arc<Mutex<Option<Revision>>>,
    taken: watch::Sender<Option<Record>>,
) {
    loop {
        sleep(INTERVAL).await;
        let mut last = revision.lock().await;
        let written = match *last {
            Some(revision) => store.update(&key, &bytes(&record), revision).await,
            None => store.create(&key, &bytes(&record)).await,
        };
        match written {
            Ok(revision) => *last = Some(revision),
            // It was taken, or deleted, or an answer of ours was lost.
            Err(StoreError::Conflict { .. }) => match store.get(&key).await {
                Ok(None) => *last = None,
                Ok(Some(entry)) => match serde_json::from_slice::<Record>(&entry.value) {
                    Ok(other) if other.incarnation == record.incarnation => *last = Some(entry.revision),
                    other => {
                        *last = None;
                        // Where nobody waits for it, the node is ending.
                        let _ = taken.send(Some(other.unwrap_or_else(|_| record.clone())));
                        return;
                    }
                },
                Err(error) => tracing::warn!("{error}"),
            },
            Err(error) => tracing::warn!("{error}"),
        }
    }
}

fn bytes(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Fault, Memory};

    #[tokio::test]
    async fn a_name_is_one_nodes() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let first = Membership::take(store.clone(), "a", "a:1", "one").await.unwrap();
        let second = Membership::take(store.clone(), "a", "a:2", "two").await;
        assert!(matches!(second, Err(NodeError::Named { address, .. }) if address == "a:1"));

        let mut nodes = Nodes::default();
        nodes.look(store.as_ref()).await.unwrap();
        let lost = Lost::default();
        let living = |nodes: &Nodes| nodes.living(&lost).iter().map(|r| r.address.clone()).collect::<Vec<_>>();
        assert_eq!(living(&nodes), ["a:1"]);

        // One that cannot be reached is found when its record changes.
        lost.lock().unwrap().insert("a".into(), None);
        assert!(living(&nodes).is_empty() && living(&nodes).is_empty());
        let entry = store.get("nodes.a").await.unwrap().unwrap();
        let renewed = store.update("nodes.a", &entry.value, entry.revision).await.unwrap();
        *first.revision.lock().await = Some(renewed);
        nodes.look(store.as_ref()).await.unwrap();
        assert_eq!(living(&nodes), ["a:1"]);
        assert!(lost.lock().unwrap().is_empty());

        // One that went leaves its name at once.
        first.leave().await;
        let third = Membership::take(store.clone(), "a", "a:3", "three").await.unwrap();
        // One that is taken while it sleeps finds out.
        let entry = store.get("nodes.a").await.unwrap().unwrap();
        let other = Record { incarnation: "four".into(), ..third.record.clone() };
        store.update("nodes.a", &bytes(&other), entry.revision).await.unwrap();
        assert!(matches!(third.lost().await, NodeError::Named { .. }));
    }

    /// A node that was started while NATS chose a leader ended.
    #[tokio::test]
    async fn a_name_is_taken_when_the_store_can_be_used_again() {
        for fault in [Fault::Refuse, Fault::LoseAnswer] {
            for call in 0..2 {
                let memory = Memory::default();
                memory.fail_after(call, fault);
                let taken = Membership::take(Arc::new(memory), "a", "a:1", "one").await.unwrap();
                taken.store.get("nodes.a").await.unwrap().expect("it is written");
            }
        }
    }
}
