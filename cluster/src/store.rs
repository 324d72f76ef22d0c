//! What the nodes of a cluster agree on: small values under keys, changed by compare-and-set.
//!
//! Every store promises the same, and one test holds all of them to it:
//!
//! - A write that was answered with success is durable and seen by every later read.
//! - Each write of the whole store has a [`Revision`] greater than any before it, deletions included: a key that was
//!   deleted and created again is never mistaken for what it was.
//! - `create`, `update` and `delete` happen only if the key is as expected; two that expect the same do not both succeed.
//!
//! A write that ended in [`StoreError::Unavailable`] may or may not have happened: read again before going on.

use std::fmt::Debug;

use async_trait::async_trait;

pub use crate::local::Local;

/// When a value was written: greater than that of every earlier write of the store.
pub type Revision = u64;

/// A value and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Vec<u8>,
    /// When it was written.
    pub revision: Revision,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The key is not as the caller expected; nothing was changed.
    #[error("`{key}` was changed by someone else meanwhile; repeat the command")]
    Conflict {
        /// The key.
        key: String,
    },
    /// The store cannot be used, or what it holds cannot be understood.
    #[error("the cluster store at {place} cannot be used: {reason}; {remedy}")]
    Unavailable {
        /// The folder or the server.
        place: String,
        /// What went wrong.
        reason: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The key has characters that not every store has room for.
    #[error("`{0}` is no key of the cluster store; keys have letters, digits, `_`, `-`, and `.` between their parts")]
    Key(String),
}

/// Values under keys, changed by compare-and-set. See the [module](self) for what every implementation promises.
#[async_trait]
pub trait Store: Debug + Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// The store cannot be used.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// All keys that begin with `prefix`, in order, with their values. Each value is one that the key had during the call.
    ///
    /// # Errors
    /// The store cannot be used.
    async fn list(&self, prefix: &str) -> Result<Vec<(String, Entry)>, StoreError>;

    /// Writes a key that does not exist.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it exists.
    async fn create(&self, key: &str, value: &[u8]) -> Result<Revision, StoreError>;

    /// Replaces a value that was written at `expected`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the key was written since, or does not exist.
    async fn update(&self, key: &str, value: &[u8], expected: Revision) -> Result<Revision, StoreError>;

    /// Removes a value that was written at `expected`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the key was written since, or does not exist.
    async fn delete(&self, key: &str, expected: Revision) -> Result<(), StoreError>;
}

/// Whether every store has room for a key: parts of letters, digits, `_` and `-`, with `.` between them.
///
/// # Errors
/// It has not.
pub fn check_key(key: &str) -> Result<(), StoreError> {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if key.len() <= 200 && key.split('.').all(plain) { Ok(()) } else { Err(StoreError::Key(key.to_owned())) }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::memory::Memory;

    /// An operation.
    #[derive(Clone, Debug)]
    pub(crate) enum Op {
        Get(usize),
        List(usize),
        /// The key, and whether the expectation is right.
        Create(usize, u8),
        Update(usize, u8, bool),
        Delete(usize, bool),
        /// The store is opened anew.
        Reopen,
    }

    const KEYS: [&str; 5] = ["leader", "pipelines.a", "pipelines.ab", "pipelines.b", "nodes.a-1"];
    const PREFIXES: [&str; 4] = ["", "pipelines.", "pipelines.a", "none"];

    fn op() -> impl Strategy<Value = Op> {
        let key = 0..KEYS.len();
        prop_oneof![
            key.clone().prop_map(Op::Get),
            (0..PREFIXES.len()).prop_map(Op::List),
            (key.clone(), any::<u8>()).prop_map(|(k, v)| Op::Create(k, v)),
            (key.clone(), any::<u8>(), any::<bool>()).prop_map(|(k, v, right)| Op::Update(k, v, right)),
            (key, any::<bool>()).prop_map(|(k, right)| Op::Delete(k, right)),
            Just(Op::Reopen),
        ]
    }

    /// Drives a store and a map with the same operations; they must agree. `open` opens the same store again.
    pub(crate) async fn behaves(open: impl Fn() -> Box<dyn Store>, ops: Vec<Op>) {
        let mut store = open();
        let mut model: BTreeMap<String, Entry> = BTreeMap::new();
        let mut last = 0;
        for op in ops {
            match op {
                Op::Get(k) => assert_eq!(store.get(KEYS[k]).await.unwrap().as_ref(), model.get(KEYS[k])),
                Op::List(p) => {
                    let expected: Vec<_> = model.clone().into_iter().filter(|(k, _)| k.starts_with(PREFIXES[p])).collect();
                    assert_eq!(store.list(PREFIXES[p]).await.unwrap(), expected);
                }
                Op::Create(k, v) => {
                    let result = store.create(KEYS[k], &[v]).await;
                    if model.contains_key(KEYS[k]) {
                        assert!(matches!(&result, Err(StoreError::Conflict { key }) if key == KEYS[k]), "{result:?}");
                    } else {
                        let revision = result.unwrap();
                        assert!(revision > last);
                        last = revision;
                        model.insert(KEYS[k].into(), Entry { value: vec![v], revision });
                    }
                }
                Op::Update(k, v, right) => {
                    let now = model.get(KEYS[k]).map(|e| e.revision);
                    let result = store.update(KEYS[k], &[v, v], expectation(now, last, right)).await;
                    if now.is_some() && right {
                        let revision = result.unwrap();
                        assert!(revision > last);
                        last = revision;
                        model.insert(KEYS[k].into(), Entry { value: vec![v, v], revision });
                    } else {
                        assert!(matches!(&result, Err(StoreError::Conflict { .. })), "{result:?}");
                    }
                }
                Op::Delete(k, right) => {
                    let now = model.get(KEYS[k]).map(|e| e.revision);
                    let result = store.delete(KEYS[k], expectation(now, last, right)).await;
                    if now.is_some() && right {
                        result.unwrap();
                        model.remove(KEYS[k]);
                    } else {
                        assert!(matches!(&result, Err(StoreError::Conflict { .. })), "{result:?}");
                    }
                }
                Op::Reopen => store = open(),
            }
        }
        let all: Vec<_> = model.into_iter().collect();
        assert_eq!(open().list("").await.unwrap(), all);
    }

    fn expectation(now: Option<Revision>, last: Revision, right: bool) -> Revision {
        match now {
            Some(revision) if right => revision,
            Some(revision) if revision > 1 => revision - 1,
            _ => last + 1,
        }
    }

    /// Random operations.
    pub(crate) fn operations(most: usize) -> impl Strategy<Value = Vec<Op>> {
        prop::collection::vec(op(), 0..most)
    }

    fn block_on(future: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_local_store_behaves(ops in operations(40)) {
            let folder = tempfile::tempdir().unwrap();
            block_on(behaves(|| Box::new(Local::open(folder.path()).unwrap()), ops));
        }

        #[test]
        fn the_store_of_other_tests_behaves(ops in operations(60)) {
            let store = Memory::default();
            block_on(behaves(|| Box::new(store.clone()), ops));
        }
    }

    #[test]
    fn keys_have_room_everywhere() {
        for key in ["leader", "pipelines.a_b-c", "a.b.c"] {
            check_key(key).unwrap();
        }
        for key in ["", ".", "a.", ".a", "a..b", "a/b", "ä", "a b", "*", ">", "a.>"] {
            assert!(check_key(key).is_err(), "{key}");
        }
    }
}
