//! Rows as messages: subject, headers, payload and the id that repeats.
//!
//! A message that is published again has to have the id that it had, and no other message may have it. An epoch always
//! holds the same rows at the same logical times, but workers bring those of one time in any order, so an id cannot
//! count rows. It is a hash of 128 bits of what identifies the sink (pipeline and node), of the logical time and of all
//! that the message says; the second, third, ... of equal messages at one time have their number behind it. Which of
//! the equal ones is the second makes no difference.

use std::collections::HashMap;
use std::hash::Hasher;

use ahash::RandomState;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::Int32Type;
use arrow::error::ArrowError;
use async_nats::header::HeaderName;
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use model::kinds::{FRAME, FrameRows};
use model::tables::stored;
use model::time::Time;
use model::{Batch, Kind, Type, columns};
use nats::{headers, subjects};
use twox_hash::XxHash64;

use crate::SinkError;

/// A message to be published.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) subject: Subject,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

const RECEIVE_TIME: HeaderName = HeaderName::from_static(headers::RECEIVE_TIME);
const NUMBER: HeaderName = HeaderName::from_static(headers::FRAME);
const DIALECT: HeaderName = HeaderName::from_static(headers::DIALECT);
const CONNECTION: HeaderName = HeaderName::from_static(headers::CONNECTION);
const TOPIC: HeaderName = HeaderName::from_static(headers::TOPIC);
const KIND: HeaderName = HeaderName::from_static(headers::KIND);
const DIFF: HeaderName = HeaderName::from_static(headers::DIFF);
const MESSAGE_ID: HeaderName = HeaderName::from_static(headers::MESSAGE_ID);

/// What the rows of a kind are published to.
#[derive(Clone, Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    /// As it stands.
    Text(String),
    /// What the row has in this column, as one token.
    Column(usize),
}

impl Template {
    /// Reads a template for a kind; without one, takes what fits the kind.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn new(prefix: &str, template: Option<&str>, kind: &Kind) -> Result<Self, String> {
        let has = |name: &str| kind.column(name).is_some();
        let template = match template {
            Some(template) => template,
            None if kind.name == FRAME.name => "{kind}.{dialect}",
            None if ["venue", "market", "symbol"].into_iter().all(has) => "{kind}.{venue}.{market}.{symbol}",
            None => "{kind}",
        };
        let mut parts = vec![Part::Text(format!("{prefix}."))];
        let (mut rest, mut sample) = (template, String::new());
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').ok_or_else(|| format!("`{template}` opens a bracket and does not close it"))? + open;
            let name = &rest[open + 1..close];
            parts.push(Part::Text(rest[..open].to_owned()));
            sample.push_str(&rest[..open]);
            if name == "kind" {
                let mut token = String::new();
                subjects::push_token(&kind.name, &mut token);
                parts.push(Part::Text(token));
            } else {
                let column = kind.columns.iter().position(|c| c.name == name);
                let column = column.ok_or_else(|| format!("`{}` records have no column `{name}`", kind.name))?;
                let ty = kind.columns[column].ty;
                if !matches!(ty, Type::Label | Type::Text) {
                    return Err(format!("`{name}` is a {ty}, and a subject is made of labels and texts"));
                }
                parts.push(Part::Column(column));
            }
            sample.push('x');
            rest = &rest[close + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        sample.push_str(rest);
        if !subjects::is_filter(&sample) || sample.contains(['*', '>']) {
            return Err(format!("`{template}` is no subject"));
        }
        Ok(Template { parts })
    }

    /// A filter for all subjects that it makes.
    pub(super) fn filter(&self) -> String {
        let text = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Column(_) => "\0",
        });
        let text: String = text.collect();
        text.split('.').map(|token| if token.contains('\0') { "*" } else { token }).collect::<Vec<_>>().join(".")
    }

    /// Writes the subject of a row. Where the row has nothing in a column, the token is `-`.
    fn write(&self, rows: &RecordBatch, row: usize, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Column(column) => {
                    let column = rows.column(*column);
                    let text = match column.as_dictionary_opt::<Int32Type>() {
                        Some(labels) => columns::label(labels, row),
                        None => column.as_string_opt::<i32>().filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row)),
                    };
                    match text {
                        // A text that is the sign for nothing is told from it.
                        Some("-") => out.push_str("%2D"),
                        Some(text) => subjects::push_token(text, out),
                        None => out.push('-'),
                    }
                }
            }
        }
    }
}

/// Makes messages of rows.
pub(super) struct Messages {
    /// What ids begin with before they are hashed.
    salt: Vec<u8>,
    prefix: String,
    subject: Option<String>,
    templates: HashMap<String, Template, RandomState>,
    /// Subjects that were written before.
    subjects: HashMap<String, Subject, RandomState>,
    /// How often each id was given in this epoch.
    given: HashMap<u128, u32, RandomState>,
}

/// Subjects that are remembered: more instruments than there are.
const REMEMBERED: usize = 1 << 20;

impl Messages {
    pub(super) fn new(pipeline: &str, node: &str, prefix: &str, subject: Option<&str>) -> Self {
        Messages {
            salt: format!("{pipeline}/{node}/").into_bytes(),
            prefix: prefix.to_owned(),
            subject: subject.map(str::to_owned),
            templates: HashMap::default(),
            subjects: HashMap::default(),
            given: HashMap::default(),
        }
    }

    /// An epoch begins.
    pub(super) fn begin(&mut self) {
        self.given.clear();
    }

    /// The messages of a batch, in the order of its rows.
    ///
    /// # Errors
    /// A row that cannot be written: a bug of an operator.
    pub(super) fn of(&mut self, time: Time, batch: &Batch) -> Result<Vec<Outgoing>, SinkError> {
        let kind = &batch.kind;
        if !self.templates.contains_key(kind.name.as_ref()) {
            let template = Template::new(&self.prefix, self.subject.as_deref(), kind).map_err(bug)?;
            self.templates.insert(kind.name.to_string(), template);
        }
        let payloads = if kind.name == FRAME.name { frames(batch) } else { records(batch, time) };
        let payloads = payloads.map_err(|e| bug(e.to_string()))?;
        let view = if kind.name == FRAME.name { Some(FrameRows::of(&batch.rows).map_err(|e| bug(e.to_string()))?) } else { None };
        let mut text = String::new();
        let mut messages = Vec::with_capacity(batch.len());
        for (row, payload) in payloads.into_iter().enumerate() {
            text.clear();
            self.templates[kind.name.as_ref()].write(&batch.rows, row, &mut text);
            let subject = match self.subjects.get(&text) {
                Some(subject) => subject.clone(),
                None => {
                    if self.subjects.len() == REMEMBERED {
                        self.subjects.clear();
                    }
                    let subject = Subject::from(text.clone());
                    self.subjects.insert(text.clone(), subject.clone());
                    subject
                }
            };
            let mut headers = HeaderMap::new();
            // What the message says beside subject and payload, for the id.
            text.push('\0');
            match &view {
                Some(frames) => {
                    let start = text.len();
                    let received = frames.receive_time.is_valid(row).then(|| frames.receive_time.value(row));
                    match received {
                        // Nanoseconds, as in recordings.
                        Some(micros) => push(&mut text, format_args!("{}", i128::from(micros) * 1_000)),
                        None => text.push_str(headers::UNKNOWN),
                    }
                    headers.insert(RECEIVE_TIME, &text[start..]);
                    text.push('\0');
                    let start = text.len();
                    push(&mut text, format_args!("{}", frames.frame.value(row)));
                    headers.insert(NUMBER, &text[start..]);
                    if let Some(connection) = columns::integer(frames.connection, row) {
                        text.push('\0');
                        let start = text.len();
                        push(&mut text, format_args!("{connection}"));
                        headers.insert(CONNECTION, &text[start..]);
                    }
                    if let Some(dialect) = columns::label(frames.dialect, row) {
                        headers.insert(DIALECT, dialect);
                        push(&mut text, format_args!("\0{dialect}"));
                    }
                    if let Some(topic) = columns::label(frames.topic, row) {
                        headers.insert(TOPIC, topic);
                        push(&mut text, format_args!("\0{topic}"));
                    }
                }
                None => {
                    headers.insert(KIND, kind.name.as_ref());
                    push(&mut text, format_args!("{}", kind.name));
                    if kind.revisable {
                        let diff = if batch.diff(row) < 0 { "-1" } else { "1" };
                        headers.insert(DIFF, diff);
                        text.push_str(diff);
                    }
                }
            }
            let hash = self.hash(time, &text, &payload);
            let given = self.given.entry(hash).or_default();
            *given += 1;
            text.clear();
            match *given {
                1 => push(&mut text, format_args!("{hash:032x}")),
                more => push(&mut text, format_args!("{hash:032x}-{more}")),
            }
            headers.insert(MESSAGE_ID, text.as_str());
            messages.push(Outgoing { subject, headers, payload });
        }
        Ok(messages)
    }

    fn hash(&self, time: Time, said: &str, payload: &[u8]) -> u128 {
        let half = |seed| {
            let mut hasher = XxHash64::with_seed(seed);
            hasher.write(&self.salt);
            hasher.write(&time.to_le_bytes());
            hasher.write(&said.len().to_le_bytes());
            hasher.write(said.as_bytes());
            hasher.write(payload);
            u128::from(hasher.finish())
        };
        // Two seeds: among the rows of one time, 64 bits would not be enough for ever.
        half(0) << 64 | half(0x9e37_79b9_7f4a_7c15)
    }
}

fn push(text: &mut String, value: std::fmt::Arguments<'_>) {
    std::fmt::Write::write_fmt(text, value).expect("text is written to memory");
}

/// Bytes of a batch that messages share.
struct Shared(Buffer);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The payloads of frames, as they were received; the bytes are shared with the batch.
fn frames(batch: &Batch) -> Result<Vec<Bytes>, ArrowError> {
    let payload = FrameRows::of(&batch.rows).map_err(|e| ArrowError::SchemaError(e.to_string()))?.payload;
    let bytes = Bytes::from_owner(Shared(payload.values().clone()));
    let offsets = payload.value_offsets();
    Ok(offsets.windows(2).map(|ends| bytes.slice(ends[0] as usize..ends[1] as usize)).collect())
}

/// Records as JSON objects; the bytes of all are one buffer.
fn records(batch: &Batch, time: Time) -> Result<Vec<Bytes>, ArrowError> {
    let rows = stored(batch, time)?;
    let rows = rows.project(&(0..batch.kind.columns.len()).collect::<Vec<_>>())?;
    let mut writer = model::json::writer(Vec::new());
    writer.write(&rows)?;
    writer.finish()?;
    let text = Bytes::from(writer.into_inner());
    let mut start = 0;
    // A line's end inside of a text is escaped.
    let lines = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(end, _)| {
        let line = text.slice(start..end);
        start = end + 1;
        line
    });
    Ok(lines.collect())
}

fn bug(what: String) -> SinkError {
    SinkError { transient: false, place: "nats".into(), what, remedy: "this is a bug: please report it with the pipeline file".into() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use model::Origin;
    use model::kinds::{Frame, FrameBuilder, TRADE};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{NOON, bar, bars, trades};

    fn messages() -> Messages {
        Messages::new("pipeline", "out", "m", None)
    }

    fn header<'a>(message: &'a Outgoing, name: &str) -> Option<&'a str> {
        message.headers.get(name).map(|value| value.as_str())
    }

    fn id(message: &Outgoing) -> String {
        header(message, headers::MESSAGE_ID).unwrap().to_owned()
    }

    fn frames_of(rows: &[(&str, Option<i64>, Option<&str>)]) -> Batch {
        let mut builder = FrameBuilder::default();
        for (i, (payload, receive_time, topic)) in rows.iter().enumerate() {
            let frame = i as i64 + 1;
            builder.push(Frame {
                source: "in",
                dialect: "binance_spot",
                receive_time: *receive_time,
                frame,
                connection: topic.is_none().then_some(7),
                topic: *topic,
                payload: payload.as_bytes(),
            });
        }
        Batch::new(&FRAME, builder.finish(), Origin::default())
    }

    #[test]
    fn records_are_lines_of_json_and_frames_are_bytes() {
        let found = messages().of(7, &trades(&[(1, NOON), (2, NOON)])).unwrap();
        assert_eq!(found[0].subject.as_str(), "m.trade.binance.spot.BTC-USDT");
        assert!(found[1].payload.starts_with(br#"{"venue":"binance","#) && found[1].payload.ends_with(b"}"));
        assert_eq!((header(&found[0], headers::KIND), header(&found[0], headers::DIFF)), (Some("trade"), None));

        let found = messages().of(7, &frames_of(&[("{}\n", Some(5), None), ("", None, Some("BTC"))])).unwrap();
        assert_eq!(
            (found[0].subject.as_str(), &found[0].payload[..], &found[1].payload[..]),
            ("m.frame.binance_spot", &b"{}\n"[..], &b""[..])
        );
        let names = [headers::RECEIVE_TIME, headers::FRAME, headers::CONNECTION, headers::DIALECT, headers::TOPIC];
        let said = |i: usize| names.map(|name| header(&found[i], name));
        assert_eq!(said(0), [Some("5000"), Some("1"), Some("7"), Some("binance_spot"), None]);
        assert_eq!(said(1), [Some("unknown"), Some("2"), None, Some("binance_spot"), Some("BTC")]);
    }

    #[test]
    fn revisions_say_what_they_do() {
        let found = messages().of(7, &bars(&[(bar(1, 2), -1), (bar(1, 3), 1)])).unwrap();
        assert_eq!(found.iter().map(|m| header(m, headers::DIFF).unwrap()).collect::<Vec<_>>(), ["-1", "1"]);
        assert!(!found[0].payload.windows(7).any(|w| w == b"version"));
    }

    #[test]
    fn an_id_is_the_same_for_ever() {
        // A build that hashes otherwise would publish a repeated epoch twice after an upgrade: mention it in the changelog.
        let found = messages().of(7, &trades(&[(1, NOON)])).unwrap();
        assert_eq!(id(&found[0]), "1907b0de9e3e5a6ab04f2b502e8ec6c6");
    }

    #[test]
    fn an_id_tells_everything_apart() {
        let one = |mut messages: Messages, time, batch: &Batch| id(&messages.of(time, batch).unwrap()[0]);
        let trade = trades(&[(1, NOON)]);
        let ids = [
            one(messages(), 7, &trade),
            one(messages(), 8, &trade),
            one(messages(), 7, &trades(&[(2, NOON)])),
            one(Messages::new("pipeline", "other", "m", None), 7, &trade),
            one(Messages::new("other", "out", "m", None), 7, &trade),
            one(messages(), 7, &bars(&[(bar(1, 1), 1)])),
            one(messages(), 7, &bars(&[(bar(1, 1), -1)])),
            one(messages(), 7, &frames_of(&[("x", Some(1), None)])),
            one(messages(), 7, &frames_of(&[("x", Some(2), None)])),
            one(messages(), 7, &frames_of(&[("x", None, None)])),
            one(messages(), 7, &frames_of(&[("x", None, Some("t"))])),
        ];
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        assert_eq!(ids[0], one(messages(), 7, &trade));
    }

    proptest! {
        #[test]
        fn ids_do_not_depend_on_the_order_within_a_time(rows in prop::collection::vec((0..6_i64, 1..3_u64), 1..40), cut in 1..9_usize, turn in 0..40_usize) {
            let mut turned = rows.clone();
            turned.rotate_left(turn % rows.len());
            let ids = |rows: &[(i64, u64)], cut: usize| {
                let mut messages = messages();
                let mut ids = Vec::new();
                for time in 1..3 {
                    let of_time: Vec<_> = rows.iter().filter(|(_, t)| *t == time).map(|(id, _)| (*id, NOON)).collect();
                    for rows in of_time.chunks(cut) {
                        ids.extend(messages.of(time, &trades(rows)).unwrap().iter().map(id));
                    }
                }
                ids.sort();
                ids
            };
            let expected = ids(&rows, 100);
            prop_assert_eq!(expected.iter().collect::<HashSet<_>>().len(), rows.len(), "equal rows have ids of their own");
            prop_assert_eq!(ids(&turned, cut), expected);
        }
    }

    #[test]
    fn templates_name_columns() {
        let subject = |template: &str, rows: &Batch| {
            let mut out = String::new();
            Template::new("p", Some(template), &rows.kind).unwrap().write(&rows.rows, 0, &mut out);
            out
        };
        assert_eq!(subject("x.{symbol}.{side}-{trade_id}", &trades(&[(1, NOON)])), "p.x.BTC-USDT.sell-1");
        assert_eq!(subject("{topic}", &frames_of(&[("", None, None)])), "p.-");
        assert_eq!(subject("{topic}", &frames_of(&[("", None, Some("-"))])), "p.%2D");
        assert_eq!(subject("{topic}", &frames_of(&[("", None, Some("a.b c"))])), "p.a%2Eb%20c");
        assert_eq!(Template::new("p", None, &TRADE).unwrap().filter(), "p.trade.*.*.*");
        assert_eq!(Template::new("p", Some("x-{venue}.{kind}"), &TRADE).unwrap().filter(), "p.*.trade");
    }
}
