//! What is wrong with a file, and where: for people as text with the place underlined, for tools as JSON.
//!
//! Everything is found before anything is shown, and shown in the order of its places. The excerpt of a
//! diagnostic never shows a secret, whatever the diagnostic is about: not one that the options' schemas
//! declare, and not one that merely looks like it by its name (a schema is not known for a misspelt `type`).

use std::fmt::{self, Write};
use std::ops::Range;
use std::path::PathBuf;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents, ThemeStyles,
};
use serde_json::{Value, json};

pub use crate::component::Severity;
use crate::words;

/// A text that is read: a file, a flag, an environment variable.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The path of the file, or what it is.
    pub name: String,
    /// The text as it was read.
    pub text: String,
    /// Bytes that are never shown.
    pub masks: Vec<Range<usize>>,
    /// Where relative `${file:PATH}`s start; without it, `${...}` means itself.
    pub folder: Option<PathBuf>,
}

impl Source {
    /// A source in whose excerpts everything is hidden that looks like a secret by its name.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        Source { name: name.into(), masks: likely_secrets(&text), folder: None, text }
    }
}

/// Bytes of a source, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub source: usize,
    pub start: usize,
    pub end: usize,
}

impl Place {
    /// The first byte of a source.
    pub fn top(source: usize) -> Self {
        Place { source, start: 0, end: 0 }
    }
}

/// A diagnostic before its place is looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub place: Place,
    pub severity: Severity,
    pub code: &'static str,
    pub message: String,
    pub help: String,
}

impl Finding {
    /// An error at a place.
    pub fn error(code: &'static str, place: Place, message: impl Into<String>, help: impl Into<String>) -> Self {
        Finding { place, severity: Severity::Error, code, message: message.into(), help: help.into() }
    }

    /// A warning at a place.
    pub fn warning(code: &'static str, place: Place, message: impl Into<String>, help: impl Into<String>) -> Self {
        Finding { severity: Severity::Warning, ..Finding::error(code, place, message, help) }
    }
}

/// One problem of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What sort of problem it is, from a short list, e.g. `unknown_key`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it; may be empty.
    pub help: String,
    /// The file, or `command line` or `environment` for what comes from there.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// The line in which it ends.
    pub end_line: usize,
    /// The first column after it.
    pub end_column: usize,
    /// Its bytes in the file.
    pub span: Range<usize>,
    excerpt: Excerpt,
}

impl Diagnostic {
    fn new(sources: &[Source], finding: Finding) -> Self {
        let source = &sources[finding.place.source];
        let span = finding.place.start..finding.place.end;
        let (line, column) = position(&source.text, span.start);
        let (end_line, end_column) = position(&source.text, span.end);
        Diagnostic {
            severity: finding.severity,
            code: finding.code,
            message: printable(&finding.message),
            help: printable(&finding.help),
            file: source.name.clone(),
            line,
            column,
            end_line,
            end_column,
            excerpt: Excerpt::new(source, &span),
            span,
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "endLine": self.end_line,
            "endColumn": self.end_column,
            "severity": match self.severity { Severity::Error => "error", Severity::Warning => "warning" },
            "code": self.code,
            "message": self.message,
            "help": self.help,
        })
    }
}

/// Line and column of a byte, both counted from 1.
pub(crate) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Text without what could steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// The line of a diagnostic as it may be shown, and the bytes of it to underline.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    line: String,
    underline: Range<usize>,
}

impl Excerpt {
    /// Characters shown of a long line before the place, and from it on.
    const BEFORE: usize = 60;
    const AFTER: usize = 120;

    fn new(source: &Source, span: &Range<usize>) -> Self {
        let text = &source.text;
        let line_start = text[..span.start].rfind('\n').map_or(0, |n| n + 1);
        let line_end = text[span.start..].find('\n').map_or(text.len(), |n| span.start + n);
        let line = text[line_start..line_end].trim_end_matches('\r');

        let before = line.char_indices().take_while(|(i, _)| line_start + i < span.start).count();
        let skip = if line.chars().count() > Self::BEFORE + Self::AFTER { before.saturating_sub(Self::BEFORE) } else { 0 };
        let mut shown = String::new();
        let (mut start, mut end, mut hidden) = (None, None, false);
        for (i, c) in line.char_indices().skip(skip).take(Self::BEFORE + Self::AFTER) {
            let at = line_start + i;
            let length = shown.len();
            if at >= span.start {
                start.get_or_insert(length);
            }
            if at >= span.end {
                end.get_or_insert(length);
            }
            let hide = source.masks.iter().any(|m| m.contains(&at));
            match (hide, hidden) {
                (true, false) => shown.push_str("***"),
                (true, true) => {}
                (false, _) if c.is_control() && c != '\t' => shown.push('\u{fffd}'),
                (false, _) => shown.push(c),
            }
            hidden = hide;
        }
        let start = start.unwrap_or(shown.len());
        Excerpt { underline: start..end.unwrap_or(shown.len()).max(start), line: shown }
    }
}

/// All problems of one or several files, in the order of their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    pub(crate) fn new(sources: &[Source], mut findings: Vec<Finding>) -> Self {
        findings.sort();
        findings.dedup();
        Diagnostics(findings.into_iter().map(|f| Diagnostic::new(sources, f)).collect())
    }

    /// The problems one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }

    /// Adds the problems of another file.
    pub fn append(&mut self, mut other: Diagnostics) {
        self.0.append(&mut other.0);
    }

    /// For tools: an array of objects with `file`, `line`, `column`, `endLine`, `endColumn`, `severity`, `code`,
    /// `message` and `help`.
    pub fn to_json(&self) -> Value {
        self.0.iter().map(Diagnostic::to_json).collect()
    }

    /// For people: each problem with the excerpt underlined and the remedy; colours are for terminals.
    pub fn to_text(&self, colours: bool) -> String {
        let mut theme = if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        theme.characters.error = "error:".into();
        theme.characters.warning = "warning:".into();
        theme.styles = if colours { ThemeStyles::ansi() } else { ThemeStyles::none() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(120).with_context_lines(0).without_syntax_highlighting();
        let mut text = String::new();
        for diagnostic in &self.0 {
            if handler.render_report(&mut text, &Shown(diagnostic)).is_err() {
                // Writing into a string cannot fail, and the excerpt always contains its underline.
                let _ = writeln!(text, "{diagnostic}");
            }
            text.push('\n');
        }
        text
    }

    /// How many there are, e.g. `2 errors and 1 warning`.
    pub fn summary(&self) -> String {
        let errors = self.0.iter().filter(|d| d.severity == Severity::Error).count();
        let phrases = [(errors, "error"), (self.0.len() - errors, "warning")];
        let phrases: Vec<String> = phrases.into_iter().filter(|(n, _)| *n > 0).map(|(n, noun)| words::count(n, noun)).collect();
        if phrases.is_empty() { "no problems".into() } else { words::join(phrases, "and") }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(false))
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostic {
    /// One line for logs, e.g. `pipeline.toml:3:1: error: ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:{}:{}: {severity}: {}", self.file, self.line, self.column, self.message)
    }
}

/// A diagnostic as miette sees it.
#[derive(Debug)]
struct Shown<'a>(&'a Diagnostic);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.0.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.0.help.is_empty()).then(|| Box::new(&self.0.help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let Range { start, end } = self.0.excerpt.underline;
        Some(Box::new(std::iter::once(LabeledSpan::new(None, start, end - start))))
    }
}

/// Always the one line of the excerpt, with the place that the diagnostic has in the file.
impl SourceCode for Shown<'_> {
    fn read_span<'a>(&'a self, _: &SourceSpan, _: usize, _: usize) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let Diagnostic { file, line, column, excerpt, .. } = self.0;
        let span = SourceSpan::from(0..excerpt.line.len());
        Ok(Box::new(MietteSpanContents::new_named(printable(file), excerpt.line.as_bytes(), span, line - 1, column - 1, 1)))
    }
}

/// Words that, as part of a key, announce a secret.
const SECRETIVE: [&str; 9] = ["password", "passwd", "passphrase", "secret", "token", "credential", "api_key", "access_key", "private_key"];

/// Whether a key of this name probably holds a secret.
pub(crate) fn looks_secret(key: &str) -> bool {
    let key = key.to_lowercase().replace('-', "_");
    SECRETIVE.iter().any(|word| key.contains(word))
}

/// The values in a TOML text, well-formed or not, whose keys announce a secret. References like `${VAR}` tell nothing
/// and stay visible.
fn likely_secrets(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (equals, _) in text.match_indices('=') {
        if found.last().is_some_and(|last| last.contains(&equals)) {
            continue;
        }
        let line = text[..equals].rfind('\n').map_or(0, |n| n + 1);
        let key = text[line..equals].rsplit(['{', ',', '[']).next().unwrap_or_default();
        if looks_secret(key) {
            let value = literal(text, equals + 1);
            if !is_reference(&text[value.clone()]) {
                found.push(value);
            }
        }
    }
    found
}

/// The bytes of the literal that begins at or after `from`: to its closing quote, or to the end of the line.
fn literal(text: &str, from: usize) -> Range<usize> {
    let start = from + text[from..].find(|c| c != ' ' && c != '\t').unwrap_or(0);
    let rest = &text[start..];
    for quote in ["\"\"\"", "'''", "\"", "'"] {
        if let Some(inner) = rest.strip_prefix(quote) {
            let mut escaped = false;
            let end = inner.char_indices().find(|&(i, c)| {
                let closes = !escaped && inner[i..].starts_with(quote) || quote.len() == 1 && c == '\n';
                escaped = !escaped && c == '\\' && quote.starts_with('"');
                closes
            });
            let inner_start = start + quote.len();
            return inner_start..end.map_or(text.len(), |(i, _)| inner_start + i);
        }
    }
    start..rest.find('\n').map_or(text.len(), |n| start + n)
}

/// Whether a text is one `${...}` and nothing else.
pub(crate) fn is_reference(text: &str) -> bool {
    text.strip_prefix("${").and_then(|t| t.strip_suffix('}')).is_some_and(|inner| !inner.contains('}') && !inner.contains(":-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>) -> Diagnostic {
        let place = Place { source: 0, start: span.start, end: span.end };
        let diagnostics = Diagnostics::new(&[Source::new("p.toml", text)], vec![Finding::error("test", place, "wrong", "mend it")]);
        diagnostics.0[0].clone()
    }

    #[test]
    fn a_place_is_told_in_characters_and_underlined() {
        let text = "a = 1\nname = \"ü\" # x\n";
        let at = text.find("# x").unwrap();
        let diagnostic = shown(text, at..at + 3);
        assert_eq!((diagnostic.line, diagnostic.column, diagnostic.end_column), (2, 12, 15));
        let rendered = Diagnostics(vec![diagnostic]).to_text(false);
        assert_eq!(
            rendered,
            "  error: wrong\n   ╭─[p.toml:2:12]\n 2 │ name = \"ü\" # x\n   ·            ───\n   ╰────\n  help: mend it\n\n"
        );
    }

    #[test]
    fn the_end_of_the_file_and_an_empty_file_are_places() {
        for text in ["", "\n", "a", "a\n", "a\r\n"] {
            let rendered = Diagnostics(vec![shown(text, text.len()..text.len())]).to_text(false);
            assert!(rendered.contains("error: wrong") && rendered.contains("help: mend it"), "{text:?}: {rendered}");
        }
    }

    #[test]
    fn several_lines_are_underlined_in_the_first_and_told_whole() {
        let text = "x = [\n 1,\n]\n";
        let diagnostic = shown(text, 4..11);
        assert_eq!((diagnostic.line, diagnostic.end_line, diagnostic.end_column), (1, 3, 2));
        assert_eq!(diagnostic.excerpt, Excerpt { line: "x = [".into(), underline: 4..5 });
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = format!("{}HERE{}", "x".repeat(5000), "y".repeat(5000));
        let excerpt = shown(&text, 5000..5004).excerpt;
        assert_eq!(&excerpt.line[excerpt.underline.clone()], "HERE");
        assert!(excerpt.line.chars().count() <= 180);
    }

    #[test]
    fn what_looks_like_a_secret_is_never_shown() {
        for text in [
            "password = \"hunter2\"",
            "password=\"hunter2",
            "api-key = 'hunter2' # note",
            "hot = { user = \"u\", password = \"hunter2\" }",
            "my.secret_key = hunter2",
            "token = \"\"\"hunter2\"\"\"",
            "password = \"a\\\"hunter2\"",
            "password = \"${X:-hunter2}\"",
            "passwords = [\"hunter2\"]",
        ] {
            let excerpt = shown(text, 0..1).excerpt;
            assert!(!excerpt.line.contains("hunter2"), "{text}: {}", excerpt.line);
            assert!(excerpt.line.contains("***"), "{text}: {}", excerpt.line);
        }
        let reference = "password = \"${CLICKHOUSE_PASSWORD}\"";
        assert_eq!(shown(reference, 0..1).excerpt.line, reference);
    }

    #[test]
    fn nothing_steers_the_terminal() {
        let text = "a = \"\u{1b}[31m\"";
        assert!(!Diagnostics(vec![shown(text, 0..1)]).to_text(false).contains('\u{1b}'));
    }

    #[test]
    fn json_has_every_field() {
        let json = Diagnostics(vec![shown("a = 1", 4..5)]).to_json();
        assert_eq!(
            json,
            json!([{ "file": "p.toml", "line": 1, "column": 5, "endLine": 1, "endColumn": 6, "severity": "error", "code": "test",
                "message": "wrong", "help": "mend it" }])
        );
    }
}
