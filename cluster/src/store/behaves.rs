//! What every store is held to: a map that does what its promises say, driven by the same random operations.
//!
//! The tests of the system include this file, too, to hold a store on a real server to it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Entry, Revision, Store, StoreError};

/// An operation.
#[derive(Clone, Debug)]
pub enum Op {
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
pub async fn behaves(open: impl Fn() -> Box<dyn Store>, ops: Vec<Op>) {
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
pub fn operations(most: usize) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 0..most)
}
