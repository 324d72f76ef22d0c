//! Phrases of error texts: lists of names, and the name that was probably meant.

/// `` `a`, `b` and `c` ``
pub(crate) fn list<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    joined(names, "and")
}

/// `` `a`, `b` or `c` ``
pub(crate) fn alternatives<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    joined(names, "or")
}

fn joined<T: AsRef<str>>(names: impl IntoIterator<Item = T>, word: &str) -> String {
    join(names.into_iter().map(|n| format!("`{}`", n.as_ref())).collect(), word)
}

/// `a, b or c`, of phrases that are quoted already.
pub(crate) fn join(mut phrases: Vec<String>, word: &str) -> String {
    match phrases.pop() {
        None => String::new(),
        Some(only) if phrases.is_empty() => only,
        Some(last) => format!("{} {word} {last}", phrases.join(", ")),
    }
}

/// The candidate that `word` was probably meant to be: few letters differ, or one begins the other.
pub(crate) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Beyond this, comparing costs more than it helps: nobody mistypes names of that length.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates.into_iter().filter(|c| c.len() <= LONGEST) {
        let other = candidate.to_lowercase().replace('-', "_");
        let (short, long) = if word.len() < other.len() { (&word, &other) } else { (&other, &word) };
        let distance = strsim::damerau_levenshtein(&word, &other);
        let near = distance <= (short.len() / 3).max(1) && distance < short.len();
        let begins = short.len() >= 3 && long.starts_with(short.as_str());
        if (near || begins) && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// A remedy: what was probably meant, and what there is, as a sentence without its full stop.
pub(crate) fn remedy(suggestion: Option<&str>, choice: &str) -> String {
    let Some(suggestion) = suggestion else { return choice.to_owned() };
    let mut letters = choice.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("did you mean `{suggestion}`? {first}{}", letters.as_str()).trim_end().to_owned()
}

/// What there is of something, e.g. `` the options are `a` and `b` ``.
pub(crate) fn there_are<T: AsRef<str>>(noun: &str, names: &[T]) -> String {
    match names {
        [] => format!("there are no {noun}s"),
        [only] => format!("the only {noun} is `{}`", only.as_ref()),
        several => format!("the {noun}s are {}", list(several)),
    }
}

/// A number of things, with its noun.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_like_prose() {
        assert_eq!(list(["a"]), "`a`");
        assert_eq!(list(["a", "b"]), "`a` and `b`");
        assert_eq!(alternatives(["a", "b", "c"]), "`a`, `b` or `c`");
        assert_eq!(list::<&str>([]), "");
    }

    #[test]
    fn a_remedy_suggests_before_it_lists() {
        assert_eq!(remedy(Some("bars"), "the types are `bars` and `book`"), "did you mean `bars`? The types are `bars` and `book`");
        assert_eq!(remedy(None, "the only type is `bars`"), "the only type is `bars`");
        assert_eq!(remedy(Some("bars"), ""), "did you mean `bars`?");
    }

    #[test]
    fn the_closest_name_is_found_and_a_strange_one_is_not() {
        let names = ["every", "lateness", "late", "threshold"];
        assert_eq!(closest("evry", names), Some("every"));
        assert_eq!(closest("latness", names), Some("lateness"));
        assert_eq!(closest("LATE", names), Some("late"));
        assert_eq!(closest("thresh", names), Some("threshold"));
        assert_eq!(closest("colour", names), None);
        assert_eq!(closest("x", names), None);
        assert_eq!(closest("", names), None);
        assert_eq!(closest("a", ["b"]), None);
    }
}
