//! Messages as rows.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use async_nats::HeaderMap;
use async_nats::header::HeaderName;
use model::columns::{ColumnType, Label, LabelBuilder};
use model::dialect::Reject;
use model::kinds::{DeadLetter, DeadLetterBuilder};
use model::time::{Micros, from_nanos};
use model::{Account, Kind, Lesson};
use nats::headers;

use super::now;
use super::session::Delivered;
use crate::file::columns::Columns;
use crate::file::frames::{Frames, each};
use crate::file::ndjson;
use crate::listing;

/// What messages hold.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// A frame of a venue each, of this dialect or of the one that the message names.
    Frames { dialect: Option<&'static str>, symbol: Option<String> },
    /// Normalised records, in lines.
    Records { kind: Arc<Kind> },
}

const RECEIVE_TIME: HeaderName = HeaderName::from_static(headers::RECEIVE_TIME);
const NUMBER: HeaderName = HeaderName::from_static(headers::FRAME);
const DIALECT: HeaderName = HeaderName::from_static(headers::DIALECT);
const CONNECTION: HeaderName = HeaderName::from_static(headers::CONNECTION);
const TOPIC: HeaderName = HeaderName::from_static(headers::TOPIC);
const DIFF: HeaderName = HeaderName::from_static(headers::DIFF);

/// Rows under construction.
pub(super) struct Rows {
    node: String,
    account: Arc<Account>,
    stream: String,
    kind: String,
    /// How many rows or frames there were.
    pub(super) frame: u64,
    letters: DeadLetterBuilder,
    /// What the frames teach.
    pub(super) lessons: Vec<Lesson>,
    columns: Building,
}

enum Building {
    Frames {
        frames: Option<Frames>,
        room: usize,
        bytes: usize,
        source: Arc<StringArray>,
        dialect: Option<&'static str>,
        symbol: Option<String>,
        dialects: LabelBuilder,
        topics: LabelBuilder,
    },
    Records(Columns, usize),
}

impl Rows {
    /// Rows for chunks of so many bytes of payload.
    pub(super) fn new(node: String, account: Arc<Account>, stream: String, payload: Payload, frame: u64, room: usize) -> Self {
        let kind = payload.kind().name.to_string();
        let columns = match payload {
            Payload::Frames { dialect, symbol } => Building::Frames {
                frames: None,
                room,
                bytes: 0,
                source: Arc::new(StringArray::from(vec![node.as_str()])),
                dialect,
                symbol,
                dialects: LabelBuilder::default(),
                topics: LabelBuilder::default(),
            },
            Payload::Records { kind } => Building::Records(Columns::new(&kind), 0),
        };
        Rows { node, account, stream, kind, frame, letters: DeadLetterBuilder::default(), lessons: Vec::new(), columns }
    }

    /// Bytes of payload taken in since the last [`Rows::finish`].
    pub(super) fn bytes(&self) -> usize {
        match &self.columns {
            Building::Frames { bytes, .. } | Building::Records(_, bytes) => *bytes,
        }
    }

    /// Takes in a message: its rows, or a dead letter for what cannot be used of it.
    pub(super) fn take(&mut self, delivered: &Delivered) {
        let message = &delivered.message;
        let payload = &message.payload[..];
        let headers = message.headers.as_ref();
        match &mut self.columns {
            Building::Frames { frames, room, bytes, dialect, symbol, dialects, topics, .. } => {
                self.frame += 1;
                *bytes += payload.len();
                let said = Said::of(headers, *dialect, self.frame);
                let Said { dialect, received, number, connection } = match said {
                    Ok(said) => said,
                    Err(why) => return self.refuse(&why, payload, delivered.sequence),
                };
                // Where it was not captured by the sink, the broker knows when it came.
                let time = received.unwrap_or(Some(from_nanos(delivered.published)));
                let frames = frames.get_or_insert_with(|| Frames::with_room_for(*room));
                frames.push(payload, time, number);
                if let Some(connection) = connection {
                    frames.came_over(connection);
                }
                <Label as ColumnType>::push(dialects, dialect);
                let topic = headers.and_then(|h| h.get(TOPIC)).map(|topic| topic.as_str());
                <Option<Label> as ColumnType>::push(topics, topic.or(symbol.as_deref()));
                if topic.is_some_and(|topic| listing::market(topic).is_some()) {
                    self.lessons.push(Lesson { dialect: dialect.to_owned(), listing: payload.to_vec() });
                }
            }
            Building::Records(columns, bytes) => {
                *bytes += payload.len();
                let retracted = headers.and_then(|h| h.get(DIFF)).is_some_and(|diff| diff.as_str() == "-1");
                let mut refused = Vec::new();
                for (line, _) in each(payload) {
                    self.frame += 1;
                    let result = if retracted {
                        Err(Reject::new("retraction", "the record is taken back, and a source can only assert"))
                    } else {
                        ndjson::put(columns, line)
                    };
                    if let Err(why) = result {
                        columns.undo();
                        refused.push((self.frame, why, line));
                    }
                }
                let last = self.frame;
                for (frame, why, line) in refused {
                    self.frame = frame;
                    self.refuse(&why, line, delivered.sequence);
                }
                self.frame = last;
            }
        }
    }

    /// The row or frame numbered last cannot be used.
    fn refuse(&mut self, why: &Reject, payload: &[u8], sequence: u64) {
        self.account.reject(why.reason, 1);
        self.letters.push(DeadLetter {
            node: &self.node,
            reason: why.reason,
            detail: &format!("{}, in message {sequence} of stream {}", why.detail, self.stream),
            event_time: None,
            receive_time: None,
            rejected_time: now(),
            frame: Some(self.frame as i64),
            kind: &self.kind,
            venue: None,
            market: None,
            symbol: None,
            payload,
        });
    }

    /// The rows and the dead letters taken in; there is nothing left.
    pub(super) fn finish(&mut self) -> (Option<RecordBatch>, Option<RecordBatch>) {
        let rows = match &mut self.columns {
            Building::Frames { frames, source, dialects, topics, bytes, .. } => {
                *bytes = 0;
                frames.take().map(|frames| frames.finish_with(source, Label::finish(dialects), Label::finish(topics)))
            }
            Building::Records(columns, bytes) => {
                *bytes = 0;
                (columns.rows() > 0).then(|| columns.finish())
            }
        };
        (rows, (!self.letters.is_empty()).then(|| self.letters.finish()))
    }
}

/// What a message says of its frame.
struct Said<'m> {
    dialect: &'m str,
    received: Option<Option<Micros>>,
    /// In the source that was captured; where it was none, in the stream.
    number: i64,
    /// The connection that it came over.
    connection: Option<i64>,
}

impl<'m> Said<'m> {
    /// What the headers of the message of this number say, for a source of this dialect.
    fn of(headers: Option<&'m HeaderMap>, dialect: Option<&'static str>, number: u64) -> Result<Self, Reject> {
        let header = |name: HeaderName| headers.and_then(|h| h.get(name)).map(|value| value.as_str());
        let dialect = match (header(DIALECT), dialect) {
            // Another venue's frame may decode, but not to what it says.
            (Some(said), Some(ours)) if said != ours => {
                return Err(Reject::new("wrong_dialect", format!("the frame is of dialect {said}, and the source is of {ours}")));
            }
            (said, ours) => said.or(ours).ok_or_else(|| {
                let what = format!("the message has no header {}, and the source no `dialect`", headers::DIALECT);
                Reject::new("unknown_dialect", what)
            })?,
        };
        let number = match header(NUMBER) {
            None => number as i64,
            Some(text) => text
                .parse()
                .map_err(|_| Reject::new("bad_number", format!("the header {} is {text:?} and no number of a frame", headers::FRAME)))?,
        };
        let connection = header(CONNECTION).map(|text| {
            let what = || format!("the header {} is {text:?} and no number of a connection", headers::CONNECTION);
            text.parse().map_err(|_| Reject::new("bad_number", what()))
        });
        Ok(Said { dialect, received: received(headers)?, number, connection: connection.transpose()? })
    }
}

/// When a frame was received: what the sink that captured it says, perhaps that nobody knows. `None` if it says nothing.
fn received(headers: Option<&HeaderMap>) -> Result<Option<Option<Micros>>, Reject> {
    let Some(text) = headers.and_then(|h| h.get(RECEIVE_TIME)).map(|value| value.as_str()) else { return Ok(None) };
    if text == headers::UNKNOWN {
        return Ok(Some(None));
    }
    match text.parse() {
        Ok(nanos) => Ok(Some(Some(from_nanos(nanos)))),
        Err(_) => Err(Reject::new("bad_time", format!("the header {} is {text:?} and no number of nanoseconds", headers::RECEIVE_TIME))),
    }
}
