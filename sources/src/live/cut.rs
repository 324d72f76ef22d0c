//! Of an answer, what was missing and nothing else.
//!
//! A venue that is asked for its last trades tells also of those that came over a channel. What is kept of the answer is cut to
//! the ones that did not; every element stays as the venue wrote it, so it decodes to what the stream would have told. So is a frame
//! of which two connections tell different parts.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::venue::{Filled, Hole, Said};

/// The answer with those elements of a list, in the order sent, that `keep` says; and whether there is any. `path` leads to the list
/// by the names of members; `*` is the first member that is a list.
pub(super) fn retain<'a>(answer: &'a [u8], path: &[&str], mut keep: impl FnMut(&'a RawValue) -> bool) -> (Cow<'a, [u8]>, bool) {
    let Some((list, elements)) = list(answer, path) else { return (Cow::Borrowed(&[]), false) };
    let all = elements.len();
    let kept: Vec<&str> = elements.into_iter().filter(|element| keep(element)).map(RawValue::get).collect();
    if kept.is_empty() {
        return (Cow::Borrowed(&[]), false);
    }
    if kept.len() == all {
        return (Cow::Borrowed(answer), true);
    }
    let start = list.get().as_ptr() as usize - answer.as_ptr() as usize;
    let end = start + list.get().len();
    let parts = [&answer[..start], b"[", kept.join(",").as_bytes(), b"]", &answer[end..]].concat();
    (Cow::Owned(parts), true)
}

/// The elements of a list of an answer, by the same path.
pub(super) fn elements<'a>(answer: &'a [u8], path: &[&str]) -> Vec<&'a RawValue> {
    list(answer, path).map(|(_, elements)| elements).unwrap_or_default()
}

/// What a frame is of whose list some elements were there before: `new` says of each, in the order sent, whether it was not.
pub(super) fn said(channel: usize, frame: &[u8], path: &[&str], new: impl Iterator<Item = bool> + Clone) -> Said {
    if new.clone().all(|new| new) {
        return Said::Data(channel);
    }
    let mut new = new;
    match retain(frame, path, |_| new.next().unwrap_or_default()) {
        (part, true) => Said::Part(channel, part.into_owned()),
        (_, false) => Said::Nothing,
    }
}

/// Cuts an answer to the numbers of a hole, of which this answer should have those from `asked.0` to `asked.1`.
pub(super) fn numbered<'a>(
    answer: &'a [u8],
    path: &[&str],
    hole: &Hole,
    asked: (u64, u64),
    mut number: impl FnMut(&RawValue) -> Option<u64>,
) -> Filled<'a> {
    let Some((first, last)) = hole.numbers else { return Filled { kept: Cow::Borrowed(&[]), rest: None, whole: false } };
    let mut count = 0;
    let (kept, _) = retain(answer, path, |element| {
        let wanted = number(element).is_some_and(|number| (asked.0..=asked.1).contains(&number));
        count += u64::from(wanted);
        wanted
    });
    let rest = match asked {
        (from, to) if from == first && to < last => Some((to + 1, last)),
        (from, _) if from > first => Some((first, from - 1)),
        _ => None,
    };
    // Where the answer has nothing of it, the venue has nothing beyond it either.
    let rest = rest.filter(|_| count > 0).map(|numbers| Hole { numbers: Some(numbers), ..*hole });
    Filled { kept, rest, whole: count == asked.1 - asked.0 + 1 }
}

/// A whole number that is a member of an element, written with or without quotes.
pub(super) fn member(element: &RawValue, name: &str) -> Option<u64> {
    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(element.get()).ok()?;
    let member = members.get(name)?;
    member.as_u64().or_else(|| member.as_str()?.parse().ok())
}

/// A list, and its elements.
fn list<'a>(answer: &'a [u8], path: &[&str]) -> Option<(&'a RawValue, Vec<&'a RawValue>)> {
    let mut at: &RawValue = serde_json::from_slice(answer).ok()?;
    for name in path {
        let members: std::collections::BTreeMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(at.get()).ok()?;
        at = match *name {
            "*" => members.into_values().find(|member| member.get().starts_with('['))?,
            name => members.get(name)?,
        };
    }
    Some((at, serde_json::from_str(at.get()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_cut_and_stays_as_it_was_written() {
        let answer = br#"{"error":[],"result":{"last":"7","XBT":[ [1, "0.10"], [2,"0.20"] ,[3,"0.30"]]},"n":1.0}"#;
        let not_two = |element: &RawValue| !element.get().contains("0.20");
        let (kept, any) = retain(answer, &["result", "*"], not_two);
        assert!(any);
        assert_eq!(std::str::from_utf8(&kept).unwrap(), r#"{"error":[],"result":{"last":"7","XBT":[[1, "0.10"],[3,"0.30"]]},"n":1.0}"#);
        assert_eq!(retain(answer, &["result", "XBT"], |_| true), (Cow::Borrowed(&answer[..]), true));
        for nothing in [retain(answer, &["result", "XBT"], |_| false), retain(answer, &["data"], |_| true), retain(b"[", &[], |_| true)] {
            assert_eq!(nothing, (Cow::Borrowed(&b""[..]), false));
        }
        assert_eq!(retain(b"[1,2]", &[], |element| element.get() == "2"), (Cow::Owned(b"[2]".to_vec()), true));
    }
}
