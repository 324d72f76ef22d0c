//! A store in memory, for tests: it can be told to fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::store::{Entry, Revision, Store, StoreError, check_key};

/// What a call of the store does instead of succeeding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing, and says so.
    Refuse,
    /// What it was asked, and does not say so.
    LoseAnswer,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    last: Revision,
    /// And after how many calls that succeed.
    fault: Option<(u32, Fault)>,
}

impl Memory {
    /// The next call fails so.
    pub(crate) fn fail(&self, fault: Fault) {
        self.fail_after(0, fault);
    }

    /// A later call fails so.
    pub(crate) fn fail_after(&self, calls: u32, fault: Fault) {
        self.0.lock().unwrap().fault = Some((calls, fault));
    }

    /// Does something, and fails as it was told.
    fn call<T>(&self, act: impl FnOnce(&mut State) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = self.0.lock().unwrap();
        let lost = || StoreError::Unavailable { place: "memory".into(), reason: "a test says so".into(), remedy: "none".into() };
        match state.fault.take() {
            None => act(&mut state),
            Some((0, Fault::Refuse)) => Err(lost()),
            Some((0, Fault::LoseAnswer)) => act(&mut state).and_then(|_| Err(lost())),
            Some((calls, fault)) => {
                state.fault = Some((calls - 1, fault));
                act(&mut state)
            }
        }
    }

    fn write(&self, key: &str, value: Option<&[u8]>, expected: Option<Revision>) -> Result<Revision, StoreError> {
        check_key(key)?;
        self.call(|state| {
            if state.entries.get(key).map(|e| e.revision) != expected {
                return Err(StoreError::Conflict { key: key.to_owned() });
            }
            state.last += 1;
            let revision = state.last;
            match value {
                Some(value) => drop(state.entries.insert(key.to_owned(), Entry { value: value.to_owned(), revision })),
                None => drop(state.entries.remove(key)),
            }
            Ok(revision)
        })
    }
}

#[async_trait]
impl Store for Memory {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        self.call(|state| Ok(state.entries.get(key).cloned()))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Entry)>, StoreError> {
        self.call(|state| Ok(state.entries.iter().filter(|(k, _)| k.starts_with(prefix)).map(|(k, e)| (k.clone(), e.clone())).collect()))
    }

    async fn create(&self, key: &str, value: &[u8]) -> Result<Revision, StoreError> {
        self.write(key, Some(value), None)
    }

    async fn update(&self, key: &str, value: &[u8], expected: Revision) -> Result<Revision, StoreError> {
        self.write(key, Some(value), Some(expected))
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<(), StoreError> {
        self.write(key, None, Some(expected)).map(drop)
    }
}
