//! What the TOML parser found wrong, in the words of this language.
//!
//! The parser recovers at the next line and goes on, which is how all errors are found. A list or table that is never
//! closed it cannot recover from, because everything below would be part of it; those are found here first, by their
//! looks, and taken out. What is only the echo of an earlier error is left out.

use std::borrow::Cow;

use toml::de::{DeTable, Error};

use crate::diagnostic::{Finding, Place};

/// The errors of a text.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    pub findings: Vec<Finding>,
    /// Where the text is no TOML, so that what was read around it cannot be trusted. A name that is defined twice
    /// is wrong but well understood.
    pub broken: Vec<usize>,
}

const DUPLICATE: &str = "duplicate key";

/// The text with every value blanked out that is never closed, and the errors about them. All places stay as they are.
pub(crate) fn close(text: &str) -> (Cow<'_, str>, Errors) {
    /// Each round parses everything anew; nobody forgets more brackets before checking again.
    const MOST: usize = 10;
    let mut text = Cow::Borrowed(text);
    let mut errors = Errors::default();
    for _ in 0..MOST {
        let (_, found) = DeTable::parse_recoverable(&text);
        let mut starts: Vec<usize> =
            found.iter().filter(|e| e.message() != DUPLICATE).map(|e| floor(&text, e.span().map_or(0, |s| s.start))).collect();
        starts.sort_unstable();
        let Some((from, bracket, to)) = starts.into_iter().find_map(|at| unclosed(&text, at)) else { break };
        let (open, shut) = if text[bracket..].starts_with('[') { ('[', ']') } else { ('{', '}') };
        let place = Place { source: 0, start: bracket, end: bracket + 1 };
        errors.findings.push(Finding::error("syntax", place, format!("this `{open}` is never closed"), format!("close it with `{shut}`")));
        errors.broken.push(bracket);
        let blank: String = text[from..to].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect();
        text.to_mut().replace_range(from..to, &blank);
    }
    (text, errors)
}

/// If the line of an error begins something new, although a value above is still open: the start of that value's line, the
/// bracket, and the start of the error's line.
fn unclosed(text: &str, at: usize) -> Option<(usize, usize, usize)> {
    let line = text[..at].rfind('\n').map_or(0, |n| n + 1);
    let is_end = text[at..].trim().is_empty();
    let to = if is_end { text.len() } else { line };
    if !is_end && !begins_key(&text[line..]) && !begins_header(&text[line..]) {
        return None;
    }
    // From the lines above down to the one that begins the value.
    let mut from = to;
    while from > 0 {
        let end = from;
        let above = &text[..end];
        from = above.strip_suffix('\n').unwrap_or(above).rfind('\n').map_or(0, |n| n + 1);
        if begins_header(&text[from..end]) {
            return None;
        }
        if begins_key(&text[from..end]) {
            let start = from + text[from..].find('=')?;
            return open_bracket(&text[start..to]).map(|bracket| (from, start + bracket, to));
        }
    }
    None
}

/// The first bracket that is open at the end of a text, if any is.
fn open_bracket(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    let mut quote = None;
    let mut comment = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            // A text ends with its line at the latest, as far as one can tell.
            (_, '\n') => (quote, comment, escaped) = (None, false, false),
            _ if comment => {}
            (Some('"'), _) if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') => comment = true,
            (None, '[' | '{') => open.push(at),
            (None, ']' | '}') => {
                open.pop();
            }
            _ => {}
        }
    }
    open.first().copied()
}

/// Whether a text begins with `key =`.
fn begins_key(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default().trim_start();
    let key = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    line.starts_with(|c: char| c.is_alphanumeric() || c == '_') && line.split_once('=').is_some_and(|(k, _)| k.chars().all(key))
}

/// Whether a text begins with `[name` and not with a list.
fn begins_header(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default().trim();
    line.trim_start_matches('[').starts_with(|c: char| c.is_alphabetic()) && line.starts_with('[') && !line.ends_with(',')
}

impl Errors {
    /// Adds the errors of the parser: the first of each line, and a table that is defined twice once.
    pub fn add(&mut self, text: &str, mut errors: Vec<Error>) {
        errors.sort_by_key(|e| e.span().map_or(0, |s| s.start));
        let mut last_line = None;
        let mut twice_until = 0;
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let (start, end) = (floor(text, span.start), floor(text, span.end.max(span.start)));
            let line = text[..start].rfind('\n').map_or(0, |n| n + 1);
            if error.message() == DUPLICATE {
                if start >= twice_until {
                    self.findings.push(duplicate(text, start, end, line));
                    if begins_header(&text[line..]) {
                        twice_until = text[end..].find("\n[").map_or(text.len(), |n| end + n);
                    }
                }
                continue;
            }
            self.broken.push(start);
            if last_line.replace(line) != Some(line) {
                self.findings.push(syntax(text, start, end, error.message()));
            }
        }
    }
}

fn syntax(text: &str, start: usize, end: usize, message: &str) -> Finding {
    // Where there is nothing to underline, the next character is, or the last of a line.
    let length = |c: Option<char>| c.filter(|&c| start == end && c != '\n' && c != '\r').map_or(0, char::len_utf8);
    let after = length(text[start..].chars().next());
    let before = if after == 0 { length(text[..start].chars().next_back()) } else { 0 };
    let place = Place { source: 0, start: start - before, end: end + after };
    let is_valueless = start == end && text[..start].trim_end_matches([' ', '\t']).ends_with('=');
    // `normalise` begins like `nan` and `fast` like `false`.
    let is_word = message.starts_with("invalid") && text[start..end].starts_with(char::is_alphabetic);
    let (message, help) = match message {
        _ if is_valueless => ("the value is missing", "write `key = value`"),
        m if m.contains("must be quoted") || is_word => ("text must be in quotes", "write `key = \"text\"`"),
        m if m.contains("key with no value") || m.contains("missing value") || m.contains("missing assignment") => {
            ("this key has no value", "write `key = value`")
        }
        m if m.contains("invalid basic string") || m.contains("invalid literal string") => {
            ("this text is not closed", "close it with the quote it begins with")
        }
        m if m.contains("unclosed table") || m.contains("unclosed array table") => ("this header is not closed", "close it with `]`"),
        m if m.contains("missing comma") => ("a comma is missing here", "separate values with commas"),
        m if m.contains("leading zero") => ("a number cannot begin with 0", "leave the zeros out, or put text in quotes"),
        m => (m.split(", expected").next().unwrap_or_default(), "how TOML is written is explained on https://toml.io"),
    };
    Finding::error("syntax", place, format!("this is not TOML: {message}"), help)
}

fn duplicate(text: &str, start: usize, end: usize, line: usize) -> Finding {
    let name = &text[start..end];
    let first = first_definition(text, start, line).map_or_else(String::new, |n| format!(", first in line {n}"));
    let (what, remedy) = match begins_header(&text[line..]) {
        true => (format!("the table `{name}`"), "give one of them another name"),
        false => (format!("`{name}`"), "remove one of them"),
    };
    Finding::error("duplicate_key", Place { source: 0, start, end }, format!("{what} is defined twice{first}"), remedy)
}

/// The line, counted from 1, in which the header or the key of this line was written before.
fn first_definition(text: &str, start: usize, line: usize) -> Option<usize> {
    let rest = &text[line..];
    let is_header = begins_header(rest);
    let wanted = if is_header { header(rest.lines().next()?) } else { rest[..rest.find('=')?].trim() };
    if !is_header && line + wanted.len() < start {
        // A key of an inline table: the line begins with another.
        return None;
    }
    let earlier: Vec<&str> = text[..line].lines().collect();
    for (index, candidate) in earlier.iter().enumerate().rev() {
        match (is_header, begins_header(candidate)) {
            (true, true) if header(candidate) == wanted => return Some(index + 1),
            (false, true) => return None,
            (false, false) if candidate.split_once('=').is_some_and(|(key, _)| key.trim() == wanted) => return Some(index + 1),
            _ => {}
        }
    }
    None
}

/// A header without what follows it.
fn header(line: &str) -> &str {
    line.trim().split('#').next().unwrap_or_default().trim_end()
}

/// The start of the character at a byte.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(String, String)> {
        let (closed, mut errors) = close(text);
        assert_eq!(closed.len(), text.len());
        let (_, found) = DeTable::parse_recoverable(&closed);
        errors.add(&closed, found);
        errors.findings.sort();
        errors.findings.iter().map(|f| (text[f.place.start..f.place.end].to_owned(), f.message.clone())).collect()
    }

    fn pair(place: &str, message: &str) -> (String, String) {
        (place.into(), message.into())
    }

    #[test]
    fn what_is_never_closed_is_told_once_where_it_opens() {
        assert_eq!(told("a = [1,\n 2\nb = 1\n[c]\nd = 2\n"), [pair("[", "this `[` is never closed")]);
        assert_eq!(told("[x]\na = { b = [1]\n\n[c]\nd = 2\n"), [pair("{", "this `{` is never closed")]);
        assert_eq!(told("a = [\n  \"x\",\n"), [pair("[", "this `[` is never closed")]);
        assert_eq!(told("a = [\"]\", # ]\n\nb = 1\n"), [pair("[", "this `[` is never closed")]);
        assert_eq!(told("a = [\nb = [\n[c]\n"), [pair("[", "this `[` is never closed"), pair("[", "this `[` is never closed")]);
    }

    #[test]
    fn what_is_closed_is_left_alone() {
        for good in ["a = [\n  1,\n  2\n]\nb = 1\n", "a = { b = 1,\n c = 2 }\n", "a = [[1], [2]]\n[b]\n", "a = \"[\"\n"] {
            assert_eq!(told(good), [], "{good}");
        }
        assert_eq!(told("a = [\n 1\n 2\n]\nb = 1\n"), [pair("2", "this is not TOML: a comma is missing here")]);
    }

    #[test]
    fn words_without_quotes_are_called_so() {
        for word in ["normalise", "fast", "1m", "bars"] {
            assert_eq!(told(&format!("type = {word}\n")), [pair(word, "this is not TOML: text must be in quotes")]);
        }
    }

    #[test]
    fn twice_defined_names_say_where_first() {
        assert_eq!(told("a = 1\na = 2\n"), [pair("a", "`a` is defined twice, first in line 1")]);
        assert_eq!(told("[t]\na = 1\n[u]\n[t] # again\na = 1\n"), [pair("t", "the table `t` is defined twice, first in line 1")]);
        assert_eq!(told("t = { a = 1, a = 2 }\n"), [pair("a", "`a` is defined twice")]);
    }
}
