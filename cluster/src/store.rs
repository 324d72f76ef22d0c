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

use std::borrow::Cow;
use std::fmt::Debug;

use async_trait::async_trait;

pub use crate::local::Local;
pub use crate::nats::Nats;

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
        remedy: Cow<'static, str>,
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
mod behaves;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::behaves::{behaves, operations};
    use super::*;
    use crate::memory::Memory;

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
