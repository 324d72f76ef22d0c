//! The kinds of record that an operator works on, among those that its inputs carry.

use std::sync::Arc;

use config::Check;
use model::Kind;
use model::kinds::DEAD_LETTER;

use crate::fault::nearest;

/// The kinds that were asked for by name; without names all, except dead letters.
pub(crate) fn chosen(cx: &mut Check<'_>, names: Option<&[String]>) -> Option<Vec<Arc<Kind>>> {
    let carried = carried(cx)?;
    let Some(names) = names else {
        let kinds: Vec<_> = carried.into_iter().filter(|k| k.name != DEAD_LETTER.name).collect();
        if kinds.is_empty() {
            cx.error(&["inputs"], "the inputs carry no records", "name an input that carries records");
            return None;
        }
        return Some(kinds);
    };
    if names.is_empty() {
        cx.error(&["kinds"], "names no kind, so nothing would pass", "name a kind, or leave `kinds` out for all of them");
    }
    let mut kinds: Vec<Arc<Kind>> = Vec::new();
    for name in names {
        match carried.iter().find(|k| k.name == *name) {
            Some(kind) if !kinds.contains(kind) => kinds.push(kind.clone()),
            Some(_) => cx.warn(&["kinds"], format!("`{name}` is named twice"), "name it once"),
            None => not_carried(cx, &["kinds"], name, &carried),
        }
    }
    (!cx.failed()).then_some(kinds)
}

/// The kinds of [`chosen`], for an operator that works on instruments and never takes back what it gave: all have an instrument, and
/// none is revised.
pub(crate) fn of_instruments(cx: &mut Check<'_>, names: Option<&[String]>) -> Option<Vec<Arc<Kind>>> {
    let kinds = chosen(cx, names)?;
    for kind in &kinds {
        let why = if kind.key.iter().take(3).ne(["venue", "market", "symbol"].iter()) {
            "have no instrument"
        } else if kind.revisable {
            "are revised: each key has one record already, its last"
        } else {
            continue;
        };
        cx.error(&["kinds"], format!("`{}` records {why}", kind.name), "name the others in `kinds`");
    }
    (!cx.failed()).then_some(kinds)
}

/// Every kind that the inputs carry, once; kinds of one name must have the same columns.
pub(crate) fn carried(cx: &mut Check<'_>) -> Option<Vec<Arc<Kind>>> {
    let kinds = cx.carried();
    let differs =
        |input: &config::Input| input.kinds.iter().find(|k| kinds.iter().any(|first| first.name == k.name && first != *k)).cloned();
    if let Some((node, kind)) = cx.inputs().iter().find_map(|input| Some((input.node.clone(), differs(input)?))) {
        let message = format!("`{}` records of input `{node}` have other columns than those of the inputs before it", kind.name);
        cx.error(&["inputs"], message, "give one of them another name where it is made: `kind = ...`");
        return None;
    }
    Some(kinds)
}

/// Reports a kind that was asked for and that no input carries.
pub(crate) fn not_carried(cx: &mut Check<'_>, path: &[&str], name: &str, carried: &[Arc<Kind>]) {
    let hint = nearest(name, carried.iter().map(|k| k.name.as_ref())).map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    let names: Vec<_> = carried.iter().map(|k| format!("`{}`", k.name)).collect();
    cx.error(path, format!("no input carries `{name}`"), format!("{hint}the inputs carry {}", names.join(", ")));
}
