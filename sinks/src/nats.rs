//! `nats`: records into a NATS JetStream stream, one message each, exactly once.
//!
//! - Frames are published as the venue sent them, with what we know of them in headers: a pipeline `venue → nats`
//!   captures, and the source `nats` reads what it captured as if it had been there. Every other record is a JSON
//!   object, the line that the sink `file` writes.
//! - A message's id follows from the pipeline, the node, the logical time and what the message says (see `messages`),
//!   so JetStream drops what it has already, however often and in whatever order an epoch is handed over, for as long
//!   as its duplicate window remembers.
//! - An epoch is committed when JetStream has acknowledged every message of it. What may pass is retried for ever,
//!   each attempt logged with its reason; the messages of a subject keep their order (see `publish`).
//! - Each revision of a revisable record is a message; the header `Marketprism-Diff` says whether it asserts (1) or takes
//!   back (-1).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use config::values;
use config::{Check, Checked, Component};
use model::kinds::DEAD_LETTER;
use model::time::Time;
use model::{Account, Batch};
use nats::{Broken, Connection, Failure, StreamInfo, subjects};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::inputs::written;
use crate::{Epoch, OpenSink, Sink, SinkError, Writer};

mod messages;
mod publish;

use messages::{Messages, Template};
use publish::Publisher;

/// Publishes records to a NATS JetStream stream, one message each, exactly once within the stream's duplicate window.
/// Frames are published as they were received, other records as JSON.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Nats {
    /// The stream. It has to take in the subjects that are published to.
    stream: String,
    /// The subject of a record: tokens with dots between them. `{kind}` stands for the kind's name, `{venue}`,
    /// `{symbol}` and so on for what the record has in that column, as one token. Default: `{kind}.{venue}.{market}.{symbol}`,
    /// and for what has no such columns `{kind}`, of frames `{kind}.{dialect}`.
    #[serde(default)]
    subject: Option<String>,
    /// What every subject begins with, e.g. `marketprism.live`.
    #[serde(default = "default_prefix")]
    prefix: String,
    /// Make the stream if it does not exist: for all subjects that begin with `prefix`, in files.
    #[serde(default)]
    create: bool,
    /// Replicas of a stream that is made.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 5))]
    replicas: u8,
    /// For how long the stream must recognise a repeated message: longer than the longest outage of this pipeline or of
    /// NATS that must double nothing. A stream that is made remembers so long; one that is there and forgets sooner is an
    /// error.
    #[serde(default = "default_window")]
    duplicate_window: values::Duration,
    /// Where the servers are, and who we are.
    #[serde(flatten)]
    connection: Connection,
}

fn default_prefix() -> String {
    "marketprism".into()
}

fn default_replicas() -> u8 {
    1
}

/// The server's own default.
fn default_window() -> values::Duration {
    values::Duration::seconds(120)
}

impl Component<dyn Sink> for Nats {
    const TYPE: &'static str = "nats";
    const EXAMPLE: &'static str = r#"[sinks.capture]
type = "nats"
inputs = ["market"]
servers = "nats://127.0.0.1:4222"
stream = "FRAMES"
prefix = "frames"
create = true
"#;

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Sink>> {
        self.connection.check(cx);
        let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\');
        if self.stream.is_empty() || self.stream.contains(bad) {
            cx.error(&["stream"], format!("`{}` is no name of a stream", self.stream), "use letters, digits, `-` and `_`");
        }
        if !subjects::is_filter(&self.prefix) || self.prefix.contains(['*', '>']) {
            cx.error(&["prefix"], format!("`{}` is no beginning of a subject", self.prefix), "write tokens with dots between them");
        }
        if !(1..=5).contains(&self.replicas) {
            cx.error(&["replicas"], format!("{} replicas", self.replicas), "give a number from 1 to 5");
        }
        if self.duplicate_window.0 < Duration::from_millis(100) {
            cx.error(
                &["duplicate_window"],
                "a window that recognises nothing",
                "give the longest outage that must double nothing, e.g. \"2m\"",
            );
        }
        if let (Some(kinds), Some(subject)) = (written(cx), &self.subject) {
            for kind in &kinds {
                if let Err(problem) = Template::new(&self.prefix, Some(subject), kind) {
                    cx.error(&["subject"], problem, "name columns that every kind has which flows in, or give each kind a sink of its own");
                    break;
                }
            }
        }
        if cx.failed() {
            return None;
        }
        Some(Checked { outputs: vec![], component: Arc::new(self) })
    }
}

#[async_trait]
impl Sink for Nats {
    fn keeps_dead_letters(&self) -> bool {
        false
    }

    async fn open(&self, cx: OpenSink) -> Result<Box<dyn Writer>, SinkError> {
        self.prepare(&cx).await.map_err(|failure| self.error(failure))?;
        let target = publish::Target {
            connection: self.connection.clone(),
            name: format!("marketprism {}/{}", cx.pipeline, cx.node),
            stream: self.stream.clone(),
            window: self.duplicate_window.0,
        };
        tracing::info!(servers = self.connection.place(), stream = self.stream, "publishing to NATS");
        Ok(Box::new(Open {
            messages: Messages::new(&cx.pipeline, &cx.node, &self.prefix, self.subject.as_deref()),
            letters: cx.kinds.iter().any(|k| k.name == DEAD_LETTER.name),
            publisher: Publisher::new(target, &cx.account),
            account: cx.account,
        }))
    }
}

impl Nats {
    /// Makes or checks the stream.
    async fn prepare(&self, cx: &OpenSink) -> Result<(), Failure> {
        let jetstream = self.connection.connect(&format!("marketprism {}/{}", cx.pipeline, cx.node), Broken::Mended).await?;
        let window = u64::try_from(self.duplicate_window.0.as_nanos()).unwrap_or(u64::MAX);
        let info = match jetstream.stream(&self.stream).await {
            Err(failure) if failure.is_no_stream() && self.create => {
                let config = json!({
                    "name": self.stream,
                    "subjects": [format!("{}.>", self.prefix)],
                    "retention": "limits",
                    "storage": "file",
                    "discard": "old",
                    "max_age": 0,
                    "num_replicas": self.replicas,
                    "duplicate_window": window,
                });
                let made = jetstream.request::<Value>(&format!("STREAM.CREATE.{}", self.stream), &config).await;
                made.map_err(|failure| Failure {
                    remedy: "make the stream yourself, or correct `stream`, `prefix` and `replicas`".into(),
                    ..failure
                })?;
                tracing::info!(stream = self.stream, "the stream was made");
                jetstream.stream(&self.stream).await?
            }
            Err(failure) if failure.is_no_stream() => {
                return Err(Failure { remedy: "make it, set `create = true`, or correct `stream`".into(), ..failure });
            }
            other => other?,
        };
        self.check_stream(&info, window)?;
        for kind in &cx.kinds {
            let template = Template::new(&self.prefix, self.subject.as_deref(), kind)
                .map_err(|problem| Failure::fatal(problem, "correct `subject`"))?;
            let wanted = template.filter();
            // A template may be wider than what ever comes: only what no subject of the stream can take is wrong.
            if !info.config.subjects.iter().any(|taken| meet(taken, &wanted)) {
                return Err(Failure::fatal(
                    format_args!("the stream takes {} and not {wanted}", info.config.subjects.join(", ")),
                    format!(
                        "set `prefix` or `subject` to what it takes, or let it take more: nats stream edit {} --subjects '{}.>'",
                        self.stream, self.prefix
                    ),
                ));
            }
        }
        Ok(())
    }

    fn check_stream(&self, info: &StreamInfo, window: u64) -> Result<(), Failure> {
        if info.config.duplicate_window < window {
            let has = values::Duration(Duration::from_nanos(info.config.duplicate_window));
            return Err(Failure::fatal(
                format_args!("the stream recognises repeated messages for {has}, and `duplicate_window` is {}", self.duplicate_window),
                format!(
                    "let it remember longer: nats stream edit {} --dupe-window {}s; or set `duplicate_window` to what you can do with",
                    self.stream,
                    self.duplicate_window.0.as_secs().max(1)
                ),
            ));
        }
        Ok(())
    }

    fn error(&self, failure: Failure) -> SinkError {
        SinkError {
            transient: failure.transient,
            place: format!("{}, stream {}", self.connection.place(), self.stream),
            what: failure.what,
            remedy: failure.remedy,
        }
    }
}

/// Whether some subject is one that both stand for.
fn meet(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

/// The open sink.
struct Open {
    messages: Messages,
    /// Whether dead letters are for us.
    letters: bool,
    publisher: Publisher,
    account: Arc<Account>,
}

#[async_trait]
impl Writer for Open {
    async fn commit(&mut self, _epoch: Epoch, rows: Vec<(Time, Batch)>) -> Result<(), SinkError> {
        self.messages.begin();
        let mut counts = Vec::with_capacity(rows.len());
        for (time, batch) in rows {
            if !self.letters && batch.kind.name == DEAD_LETTER.name {
                self.account.ignore(batch.len());
                continue;
            }
            for message in self.messages.of(time, &batch)? {
                self.publisher.publish(message).await?;
            }
            counts.push((batch.kind.name.clone(), batch.len(), batch.retractions(), batch.bytes()));
        }
        self.publisher.flush().await?;
        for (kind, rows, retracted, bytes) in counts {
            self.account.accept(rows);
            self.account.send(&kind, rows, retracted, bytes);
        }
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use config::component;
    use model::Kind;
    use model::kinds::{BAR, FRAME, TRADE};

    use super::*;
    use crate::testing::{opening, words};

    fn sink(options: &str, kinds: &[&Arc<Kind>]) -> Result<Arc<dyn Sink>, String> {
        let kinds: Vec<Arc<Kind>> = kinds.iter().map(|k| (*k).clone()).collect();
        component::<dyn Sink, Nats>(options, &kinds).map(|checked| checked.component)
    }

    #[test]
    fn options_are_checked() {
        assert!(sink("stream = 'S'", &[&TRADE, &BAR, &DEAD_LETTER]).is_ok());
        assert!(sink("stream = 'S'\nsubject = '{dialect}'\nprefix = 'a.b'\ncreate = true", &[&FRAME, &DEAD_LETTER]).is_ok());
        for (options, problem) in [
            ("stream = 'a.b'", "stream: `a.b` is no name of a stream"),
            ("stream = 'S'\nprefix = 'a.>'", "prefix: `a.>` is no beginning of a subject"),
            ("stream = 'S'\nsubject = '{kind}.{colour}'", "subject: `trade` records have no column `colour`"),
            ("stream = 'S'\nsubject = '{price}'", "subject: `price` is a decimal, and a subject is made of labels and texts"),
            ("stream = 'S'\nsubject = 'a..b'", "subject: `a..b` is no subject"),
            ("stream = 'S'\nsubject = 'a.{venue'", "subject: `a.{venue` opens a bracket and does not close it"),
            ("stream = 'S'\nreplicas = 0", "replicas: 0 replicas"),
            ("stream = 'S'\nduplicate_window = '0s'", "duplicate_window: a window that recognises nothing"),
            ("stream = 'S'\nservers = 'x y'", "servers: `x y` is no address of a server"),
        ] {
            let error = sink(options, &[&TRADE]).unwrap_err();
            assert!(error.starts_with(problem), "{options}: {error}");
        }
    }

    #[test]
    fn subjects_meet_where_one_is_both() {
        for (one, other, expected) in [
            ("a.>", "a.*.b", true),
            ("a.*", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*.c", "a.b.*", true),
            ("a.>", "b.c", false),
            ("a", "a.b", false),
        ] {
            assert_eq!((meet(one, other), meet(other, one)), (expected, expected), "{one} {other}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error =
            words(sink(&format!("stream = 'S'\nservers = 'nats://127.0.0.1:{port}'"), &[&TRADE]).unwrap().open(opening(&[&TRADE])).await);
        assert!(error.starts_with(&format!("nats://127.0.0.1:{port}, stream S: ")) && error.contains("start the NATS server"), "{error}");
    }
}
