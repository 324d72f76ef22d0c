//! What a sink is given to write.

use std::sync::Arc;

use config::Check;
use model::kinds::DEAD_LETTER;
use model::time::Time;
use model::{Batch, Kind};

/// The kinds that a sink is for: all that its inputs carry, without the dead letters of the nodes before it unless
/// there is nothing else. Two different kinds of one name are an error at `inputs`, as is no kind at all.
pub(crate) fn written(cx: &mut Check<'_>) -> Option<Vec<Arc<Kind>>> {
    let mut kinds: Vec<(&str, Arc<Kind>)> = Vec::new();
    let mut clash = None;
    for input in cx.inputs() {
        for kind in &input.kinds {
            match kinds.iter().find(|(_, k)| k.name == kind.name) {
                None => kinds.push((&input.node, kind.clone())),
                Some((_, first)) if first == kind => {}
                Some((node, _)) => clash = Some((kind.name.clone(), (*node).to_owned(), input.node.clone())),
            }
        }
    }
    if let Some((kind, first, second)) = clash {
        let message = format!("inputs `{first}` and `{second}` both carry `{kind}`, but with different columns");
        cx.error(&["inputs"], message, "give each a sink of its own");
        return None;
    }
    if kinds.is_empty() {
        cx.error(&["inputs"], "the inputs carry nothing", "name an input that carries records");
        return None;
    }
    let mut kinds: Vec<Arc<Kind>> = kinds.into_iter().map(|(_, kind)| kind).collect();
    if kinds.iter().any(|k| k.name != DEAD_LETTER.name) {
        kinds.retain(|k| k.name != DEAD_LETTER.name);
    }
    Some(kinds)
}

/// Rows by kind, each in the order they came in.
pub(crate) fn by_kind(rows: Vec<(Time, Batch)>) -> Vec<(Arc<Kind>, Vec<(Time, Batch)>)> {
    let mut kinds: Vec<(Arc<Kind>, Vec<(Time, Batch)>)> = Vec::new();
    for (time, batch) in rows {
        match kinds.iter_mut().find(|(kind, _)| kind.name == batch.kind.name) {
            Some((_, batches)) => batches.push((time, batch)),
            None => kinds.push((batch.kind.clone(), vec![(time, batch)])),
        }
    }
    kinds
}
