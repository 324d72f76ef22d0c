//! NATS JetStream: frames as a venue sent them, or records that are normalised already, from a stream. Frames that the
//! sink `nats` captured come as they were captured: with the dialect, the receive time, the topic and the number that they
//! had.
//!
//! Messages are consumed in the order of their stream sequences, each once. What makes that hold:
//!
//! - A position is a stream sequence together with the time that the stream was made. It can be opened anew wherever
//!   retention has kept what follows, and only there: a stream that is gone, was made anew, is shorter than the
//!   position or was purged beyond it is an error with the way to go on.
//! - Reading never depends on what the broker remembers of us. A consumer is made for the occasion that begins where
//!   we want to go on, and after whatever goes wrong (a lost connection, a restarted server, a message that the
//!   client dropped) it is given up and another one is made behind the last message taken in. See `session`.
//! - Every message is checked to come from that consumer, to be the next that it delivers and to lie behind the one
//!   before in the stream. A consumer belongs to one stream and dies with it, so nothing of another stream of the same
//!   name passes.
//! - The broker is told what may go only when the runtime settles it. See `session` for what that means for each
//!   retention.
//!
//! The network is read by a task of its own, a bounded number of messages ahead, so that what waits for the next chunk
//! may be dropped at any moment and nothing is lost with it.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use config::{Check, Checked, Component};
use model::kinds::{self, DEAD_LETTER, FRAME};
use model::{Kind, time::Micros};
use nats::{Connection, subjects};
use schemars::JsonSchema;
use serde::Deserialize;

mod reader;
mod rows;
mod session;

use reader::StreamReader;
use rows::Payload;
use session::{Plan, Session};

use crate::dialect::{self, Dialects};
use crate::{Clock, OpenSource, Reader, Source, SourceError};

/// Messages of a NATS JetStream stream: frames as a venue sent them, one a message, to be decoded by the venue `dialect`
/// that is given here or that the sink `nats` noted; or normalised records of one `kind`, as JSON objects in lines. Each
/// is consumed once, in the order of the stream.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Nats {
    /// The stream.
    pub stream: String,
    /// Only messages of this subject, or of these; `*` stands for a token, `>` at the end for all that follow. Default:
    /// all of the stream.
    #[serde(default)]
    pub subjects: Subjects,
    /// The venue dialect of frames, where the messages do not say it: those that the sink `nats` captured do. Either this
    /// or `format`.
    #[serde(default)]
    #[schemars(extend("enum" = dialect::NAMES))]
    pub dialect: Option<String>,
    /// The format of normalised records. Needs `kind`.
    #[serde(default)]
    pub format: Option<Format>,
    /// The kind of normalised records, e.g. `trade`. Columns are matched by name; nullable ones may be missing.
    #[serde(default)]
    pub kind: Option<String>,
    /// The venue's symbol for frames that name none (REST depth snapshots), where the message does not say it.
    #[serde(default)]
    pub symbol: Option<String>,
    /// A file with the venue's own listing of its instruments, where the stream has none of its own.
    #[serde(default)]
    pub instruments: Option<PathBuf>,
    /// Where a pipeline begins that runs for the first time: `"first"` message of the stream, `"new"` ones only, a
    /// stream sequence, or a time in RFC 3339.
    #[serde(default)]
    pub start: Start,
    /// Where the source ends: `"never"`, or at the `"last"` message that the stream has when the source is opened.
    #[serde(default)]
    pub end: End,
    /// What our consumers are called at the broker. Default: `marketprism-PIPELINE-NODE`.
    #[serde(default)]
    pub consumer: Option<String>,
    /// Where the servers are, and who we are.
    #[serde(flatten)]
    pub connection: Connection,
    /// How event time advances.
    #[serde(flatten)]
    pub clock: Clock,
}

/// One subject or several; none for all.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Subjects {
    /// One.
    One(String),
    /// Several, none of which covers what another does.
    Several(Vec<String>),
}

impl Default for Subjects {
    fn default() -> Self {
        Subjects::Several(Vec::new())
    }
}

impl Subjects {
    fn list(&self) -> &[String] {
        match self {
            Subjects::One(subject) => std::slice::from_ref(subject),
            Subjects::Several(subjects) => subjects,
        }
    }
}

/// The format of normalised records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A JSON object a line; a message holds one or several.
    Ndjson,
}

/// Where a pipeline begins that runs for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`start` is \"first\", \"new\", a stream sequence or a time in RFC 3339")]
pub enum Start {
    /// At a stream sequence.
    Sequence(u64),
    /// `first`, `new`, or a time.
    Word(String),
}

impl Default for Start {
    fn default() -> Self {
        Start::Word("first".into())
    }
}

/// Where a pipeline begins, read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Begin {
    First,
    New,
    Sequence(u64),
    Time(String),
}

impl Start {
    fn read(&self) -> Result<Begin, String> {
        Ok(match self {
            Start::Sequence(0) => return Err("is 0, and stream sequences begin with 1".into()),
            Start::Sequence(sequence) => Begin::Sequence(*sequence),
            Start::Word(word) => match word.as_str() {
                "first" => Begin::First,
                "new" => Begin::New,
                time => match DateTime::parse_from_rfc3339(time) {
                    Ok(_) => Begin::Time(time.to_owned()),
                    Err(error) => return Err(format!("is `{time}`, which is no time: {error}")),
                },
            },
        })
    }
}

/// Where a source ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It waits for more.
    #[default]
    Never,
    /// With the last message that the stream has when the source is opened.
    Last,
}

impl Component<dyn Source> for Nats {
    const TYPE: &'static str = "nats";
    const EXAMPLE: &'static str = r#"[sources.captured]
type = "nats"
servers = "nats://127.0.0.1:4222"
stream = "FRAMES"
subjects = "frames.frame.binance_spot"
"#;

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Source>> {
        self.connection.check(cx);
        if !is_name(&self.stream) {
            cx.error(&["stream"], format!("`{}` is no name of a stream", self.stream), NAME_HELP);
        }
        if let Some(name) = self.consumer.as_ref().filter(|name| !is_name(name)) {
            cx.error(&["consumer"], format!("`{name}` is no name of a consumer"), NAME_HELP);
        }
        for subject in self.subjects.list() {
            if !subjects::is_filter(subject) {
                cx.error(
                    &["subjects"],
                    format!("`{subject}` is no subject"),
                    "write tokens with dots between them; `*` stands for one token, `>` at the end for all that follow",
                );
            }
        }
        for (i, one) in self.subjects.list().iter().enumerate() {
            if let Some(other) = self.subjects.list().iter().enumerate().find(|(k, other)| *k != i && subjects::covers(other, one)) {
                cx.error(&["subjects"], format!("`{}` covers `{one}`", other.1), format!("drop `{one}`"));
                break;
            }
        }
        let begin = self.start.read().inspect_err(|problem| {
            cx.error(
                &["start"],
                format!("`start` {problem}"),
                "give \"first\", \"new\", a sequence, or a time like \"2026-01-01T00:00:00Z\"",
            );
        });
        let payload = self.payload(cx);
        let (payload, begin) = (payload.filter(|_| !cx.failed())?, begin.ok()?);
        let outputs = vec![payload.kind().clone(), DEAD_LETTER.clone()];
        let component = CheckedNats {
            instruments: self.instruments.zip(self.dialect),
            stream: self.stream,
            subjects: self.subjects.list().to_vec(),
            consumer: self.consumer,
            begin,
            end: self.end,
            payload,
            connection: self.connection,
            clock: self.clock,
        };
        Some(Checked { outputs, component: Arc::new(component) })
    }
}

const NAME_HELP: &str = "use letters, digits, `-` and `_`";

/// What a name of a stream or consumer may be so that it is one token of a subject and of a path.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\'))
}

impl Nats {
    /// What messages hold, from the options that say it.
    fn payload(&self, cx: &mut Check<'_>) -> Option<Payload> {
        match (&self.dialect, self.format) {
            (Some(_), Some(_)) => {
                let help = "give `dialect` for a venue's own frames, or `format` and `kind` for normalised records";
                cx.error(&["format"], "both `dialect` and `format`", help);
                None
            }
            (dialect, None) => {
                if self.kind.is_some() {
                    cx.error(
                        &["kind"],
                        "`kind` is for normalised records",
                        "add `format`, or drop it: `normalise` chooses the kinds that frames become",
                    );
                }
                if dialect.is_none() && self.instruments.is_some() {
                    let help = "give the `dialect` that the listing is for; frames of others are then dead letters";
                    cx.error(&["instruments"], "`instruments` without `dialect`", help);
                }
                let known = |given: &String| dialect::NAMES.into_iter().find(|name| name == given);
                if let Some(unknown) = dialect.as_ref().filter(|given| known(given).is_none()) {
                    cx.error(
                        &["dialect"],
                        format!("there is no dialect `{unknown}`"),
                        format!("use one of: {}", dialect::NAMES.join(", ")),
                    );
                    return None;
                }
                Some(Payload::Frames { dialect: dialect.as_ref().and_then(known), symbol: self.symbol.clone() })
            }
            (None, Some(Format::Ndjson)) => {
                for (key, given) in [("symbol", self.symbol.is_some()), ("instruments", self.instruments.is_some())] {
                    if given {
                        let message = format!("`{key}` is for frames, and `format` says that the messages hold records");
                        cx.error(&[key], message, format!("drop `{key}`"));
                    }
                }
                let Some(name) = &self.kind else {
                    cx.error(&[], "`format` is given without `kind`", "name the kind of the records, e.g. kind = \"trade\"");
                    return None;
                };
                let Some(kind) = kinds::records().find(|k| k.name == name.as_str()) else {
                    let names: Vec<_> = kinds::records().map(|k| k.name.as_ref()).collect();
                    cx.error(&["kind"], format!("there is no kind `{name}` of records"), format!("use one of: {}", names.join(", ")));
                    return None;
                };
                Some(Payload::Records { kind: kind.clone() })
            }
        }
    }
}

impl Payload {
    fn kind(&self) -> &Arc<Kind> {
        match self {
            Payload::Frames { .. } => &FRAME,
            Payload::Records { kind } => kind,
        }
    }
}

/// A source whose options passed their check.
#[derive(Debug)]
struct CheckedNats {
    stream: String,
    subjects: Vec<String>,
    consumer: Option<String>,
    begin: Begin,
    end: End,
    payload: Payload,
    /// The file with the venue's listing, and the dialect that it is for.
    instruments: Option<(PathBuf, String)>,
    connection: Connection,
    clock: Clock,
}

#[async_trait]
impl Source for CheckedNats {
    fn clock(&self) -> Clock {
        self.clock
    }

    async fn teach(&self, dialects: &mut Dialects) -> Result<(), SourceError> {
        match &self.instruments {
            Some((path, dialect)) => crate::file::learn(dialects, path, dialect),
            None => Ok(()),
        }
    }

    async fn open(&self, cx: OpenSource) -> Result<Box<dyn Reader>, SourceError> {
        let consumer = self.consumer.clone().unwrap_or_else(|| {
            let name = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-', "_");
            format!("marketprism-{}-{}", name(&cx.pipeline), name(&cx.node))
        });
        let plan = Plan {
            connection: self.connection.clone(),
            stream: self.stream.clone(),
            subjects: self.subjects.clone(),
            consumer,
            begin: self.begin.clone(),
            end: self.end,
        };
        let session = Session::open(plan, cx.from.as_ref()).await?;
        Ok(Box::new(StreamReader::new(cx, session, self.payload.clone())))
    }
}

/// When a dead letter was refused. The runtime knows the logical time that the row gets; this is as near as a source
/// can come.
fn now() -> Micros {
    model::time::now()
}

#[cfg(test)]
mod tests {
    use config::component::component;

    use super::*;

    fn check(options: &str) -> Result<Vec<String>, String> {
        component::<dyn Source, Nats>(options, &[]).map(|checked| checked.outputs.iter().map(|k| k.name.to_string()).collect())
    }

    #[test]
    fn options_are_checked() {
        assert_eq!(check("stream = 'S'\ndialect = 'binance_spot'").unwrap(), ["frame", "dead_letter"]);
        assert_eq!(check("stream = 'S'").unwrap(), ["frame", "dead_letter"]);
        assert_eq!(check("stream = 'S'\nformat = 'ndjson'\nkind = 'trade'\nstart = 7\nend = 'last'").unwrap(), ["trade", "dead_letter"]);
        for (options, problem) in [
            ("stream = 'S'\nkind = 'trade'", "kind: `kind` is for normalised records"),
            ("stream = 'S'\ninstruments = 'i.json'", "instruments: `instruments` without `dialect`"),
            ("stream = 'a.b'\ndialect = 'binance_spot'", "stream: `a.b` is no name of a stream"),
            ("stream = 'S'\ndialect = 'binance_spot'\nsubjects = 'a..b'", "subjects: `a..b` is no subject"),
            ("stream = 'S'\ndialect = 'binance_spot'\nsubjects = ['a.>', 'a.b']", "subjects: `a.>` covers `a.b`"),
            ("stream = 'S'\ndialect = 'binance_spot'\nstart = 0", "start: `start` is 0, and stream sequences begin with 1"),
            ("stream = 'S'\nformat = 'ndjson'", "`format` is given without `kind`"),
            ("stream = 'S'\nformat = 'ndjson'\nkind = 'frame'", "kind: there is no kind `frame` of records"),
            ("stream = 'S'\ndialect = 'binance_spot'\nuser = 'u'", "user: `user` without `password`"),
        ] {
            let error = check(options).unwrap_err();
            assert!(error.ends_with(problem), "{options}: {error}");
        }
        let error = check("stream = 'S'\ndialect = 'binance_spot'\nstart = 'yesterday'").unwrap_err();
        assert!(error.starts_with("start: `start` is `yesterday`, which is no time"), "{error}");
    }
}
