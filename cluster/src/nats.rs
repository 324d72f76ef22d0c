//! The cluster store of several nodes: a key-value bucket of NATS JetStream.
//!
//! A key is the last message of a subject in a stream that keeps one of each, and its revision is that message's sequence:
//! it grows with every write of the whole stream. A write names the sequence that it expects the subject to be at, and the
//! stream's leader compares and appends in one step. A deleted key is a message that says so; its sequence is nobody's
//! expectation, so a write first looks whether what it expects is a value.
//!
//! Reads ask the stream's leader, never one that follows it. A leader that was cut off from the others may still answer
//! with what was true a moment ago: whoever decides something by it writes by compare-and-set, which such a leader cannot
//! carry out.
//!
//! A request is repeated while no answer comes, until its [`DEADLINE`]: the servers may be choosing another leader. A write
//! is repeated under one message id, by which the stream knows it; where it stays unknown whether it happened, the answer is
//! [`StoreError::Unavailable`], never a conflict.

use std::time::Duration;

use async_nats::{HeaderMap, Request, RequestErrorKind};
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nats::{Broken, Connection, Failure, JetStream, headers};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::store::{Entry, Revision, Store, StoreError, check_key};

/// The longest that a read or a write takes. Less than a leader's lease: one that cannot renew it notices in time.
pub const DEADLINE: Duration = Duration::from_secs(3);
/// The longest that one attempt waits for its answer.
const ATTEMPT: Duration = Duration::from_secs(1);
/// The pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the servers may take to make the bucket; a cluster that was started a moment ago has no leader yet.
const OPENING: Duration = Duration::from_secs(20);

/// JetStream's numbers of errors.
mod codes {
    pub(super) const NO_MESSAGE: u64 = 10_037;
    pub(super) const STREAM_EXISTS: u64 = 10_058;
    pub(super) const WRONG_SEQUENCE: [u64; 2] = [10_071, 10_164];
}

const OPERATION: &str = "KV-Operation";
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// A store in a bucket. Several may be open on one.
#[derive(Clone, Debug)]
pub struct Nats {
    jetstream: JetStream,
    place: String,
    stream: String,
    /// What the subjects of keys begin with.
    prefix: String,
}

/// What a key's subject holds last.
enum Last {
    Nothing,
    Value(Entry),
    /// The message at this sequence says that the key was deleted.
    Deleted(Revision),
}

/// Why a write did not succeed.
enum Unwritten {
    /// The subject is not at the sequence that was expected.
    Conflict,
    Failed(Failure),
}

#[derive(Deserialize)]
struct Found {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    seq: Revision,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

/// What a stream answers to a message.
#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: Revision,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Nats {
    /// Opens the bucket of a name, which is made on so many servers if it does not exist. `node` is what the servers' own
    /// reports call the connection.
    ///
    /// # Errors
    /// The servers cannot be reached or refuse us, or cannot make the bucket.
    pub async fn open(connection: &Connection, name: &str, replicas: u32, node: &str) -> Result<Nats, StoreError> {
        let place = connection.place();
        if name.contains('.') || check_key(name).is_err() {
            let reason = format!("`{name}` is no name of a cluster");
            return Err(StoreError::Unavailable { place, reason, remedy: "give `cluster.name` letters, digits, `_` and `-`".into() });
        }
        let unavailable = |failure: Failure| unavailable(&place, failure);
        let jetstream = connection.connect(&format!("marketprism node {node}"), Broken::Mended).await.map_err(unavailable)?;
        let stream = format!("KV_{name}");
        let config = json!({
            "name": stream, "subjects": [format!("$KV.{name}.>")], "retention": "limits", "storage": "file", "discard": "new",
            "max_msgs_per_subject": 1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_consumers": -1, "max_msg_size": -1,
            "num_replicas": replicas, "duplicate_window": 120_000_000_000_u64,
            "allow_rollup_hdrs": true, "deny_delete": true, "allow_direct": true,
        });
        let end = Instant::now() + OPENING;
        loop {
            match jetstream.request::<Value>(&format!("STREAM.CREATE.{stream}"), &config).await {
                Ok(_) => break,
                // Made with other settings, by an operator: it is theirs.
                Err(failure) if failure.code == Some(codes::STREAM_EXISTS) => break,
                Err(failure) if failure.transient && Instant::now() < end => sleep(PAUSE).await,
                Err(failure) => return Err(unavailable(failure)),
            }
        }
        Ok(Nats { jetstream, place, stream, prefix: format!("$KV.{name}.") })
    }

    fn unavailable(&self, failure: Failure) -> StoreError {
        unavailable(&self.place, failure)
    }

    /// Asks until an answer comes, which may be that the request cannot be answered ever.
    async fn ask<T: serde::de::DeserializeOwned>(&self, request: &str, body: &Value, end: Instant) -> Result<T, Failure> {
        loop {
            let answer = timeout(ATTEMPT, timeout_at(end, self.jetstream.request(request, body))).await;
            let failure = match answer {
                Ok(Ok(Ok(answer))) => return Ok(answer),
                Ok(Ok(Err(failure))) if !failure.transient => return Err(failure),
                Ok(Ok(Err(failure))) => failure,
                Ok(Err(_)) | Err(_) => silent(),
            };
            if Instant::now() + PAUSE >= end {
                return Err(failure);
            }
            sleep(PAUSE).await;
        }
    }

    async fn last(&self, key: &str, end: Instant) -> Result<Last, Failure> {
        let request = json!({ "last_by_subj": format!("{}{key}", self.prefix) });
        let message = match self.ask::<Found>(&format!("STREAM.MSG.GET.{}", self.stream), &request, end).await {
            Ok(found) => found.message,
            Err(failure) if failure.code == Some(codes::NO_MESSAGE) => return Ok(Last::Nothing),
            Err(failure) => return Err(failure),
        };
        let damaged = |_| Failure::fatal(format_args!("the message of key `{key}` cannot be read"), "MarketPrism needs NATS 2.10 or newer");
        let headers = BASE64_STANDARD.decode(&message.hdrs).map_err(damaged)?;
        let deletes =
            |line: &str| line.split_once(':').is_some_and(|(name, value)| name == OPERATION && ["DEL", "PURGE"].contains(&value.trim()));
        if String::from_utf8_lossy(&headers).lines().any(deletes) {
            return Ok(Last::Deleted(message.seq));
        }
        let value = BASE64_STANDARD.decode(&message.data).map_err(damaged)?;
        Ok(Last::Value(Entry { value, revision: message.seq }))
    }

    /// Appends a message to a key's subject if that is at `expected`; `None` deletes the key.
    async fn append(&self, key: &str, value: Option<&[u8]>, expected: Revision, end: Instant) -> Result<Revision, Unwritten> {
        let mut carried = HeaderMap::new();
        carried.insert(EXPECTED, expected.to_string());
        carried.insert(headers::MESSAGE_ID, uuid::Uuid::new_v4().to_string());
        carried.insert(headers::EXPECTED_STREAM, self.stream.as_str());
        if value.is_none() {
            carried.insert(OPERATION, "DEL");
        }
        let subject = format!("{}{key}", self.prefix);
        let payload = value.unwrap_or_default().to_vec();
        // Whether an attempt may have been carried out.
        let mut ambiguous = false;
        loop {
            let wait = ATTEMPT.min(end.saturating_duration_since(Instant::now()));
            let request = Request::new().headers(carried.clone()).payload(payload.clone().into()).timeout(Some(wait));
            let failure = match self.jetstream.client.send_request(subject.clone(), request).await {
                Ok(message) => match serde_json::from_slice::<Ack>(&message.payload) {
                    Ok(Ack { error: None, seq }) => return Ok(seq),
                    Ok(Ack { error: Some(error), .. }) if codes::WRONG_SEQUENCE.contains(&error.err_code) => {
                        if !ambiguous {
                            return Err(Unwritten::Conflict);
                        }
                        Failure::fatal("whether it was written is not known", "repeat the command")
                    }
                    Ok(Ack { error: Some(error), .. }) => {
                        let what = format!("JetStream refused: {} (error {})", error.description, error.err_code);
                        let remedy = "see the log of the NATS servers, and whether the account may use the bucket";
                        if error.code >= 500 { Failure::transient(what, remedy) } else { Failure::fatal(what, remedy) }
                    }
                    Err(error) => Failure::fatal(
                        format_args!("JetStream answers what nobody understands: {error}"),
                        "MarketPrism needs NATS 2.10 or newer",
                    ),
                },
                Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                    Failure::transient("no server takes messages for the bucket", "in a cluster, see whether it has a leader")
                }
                Err(_) => {
                    ambiguous = true;
                    silent()
                }
            };
            if !failure.transient || Instant::now() + PAUSE >= end {
                return Err(Unwritten::Failed(failure));
            }
            sleep(PAUSE).await;
        }
    }

    /// Writes a key of which the last message is at `expected`; 0 where there is none.
    async fn write(&self, key: &str, value: Option<&[u8]>, expected: Option<Revision>) -> Result<Revision, StoreError> {
        check_key(key)?;
        let end = Instant::now() + DEADLINE;
        let conflict = || StoreError::Conflict { key: key.to_owned() };
        let last = self.last(key, end).await.map_err(|failure| self.unavailable(failure))?;
        let at = match (last, expected) {
            (Last::Nothing, None) => 0,
            (Last::Deleted(revision), None) => revision,
            (Last::Value(entry), Some(expected)) if entry.revision == expected => expected,
            _ => return Err(conflict()),
        };
        self.append(key, value, at, end).await.map_err(|error| match error {
            Unwritten::Conflict => conflict(),
            Unwritten::Failed(failure) => self.unavailable(failure),
        })
    }
}

fn silent() -> Failure {
    Failure::transient("JetStream does not answer", "see that the NATS servers run, and in a cluster that most of them do")
}

fn unavailable(place: &str, failure: Failure) -> StoreError {
    StoreError::Unavailable { place: place.to_owned(), reason: failure.what, remedy: failure.remedy.into() }
}

#[async_trait]
impl Store for Nats {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        match self.last(key, Instant::now() + DEADLINE).await {
            Ok(Last::Value(entry)) => Ok(Some(entry)),
            Ok(Last::Nothing | Last::Deleted(_)) => Ok(None),
            Err(failure) => Err(self.unavailable(failure)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Entry)>, StoreError> {
        #[derive(Deserialize)]
        struct Info {
            state: State,
        }
        #[derive(Deserialize)]
        struct State {
            /// Missing, or null, where there are none.
            subjects: Option<std::collections::BTreeMap<String, u64>>,
        }
        let end = Instant::now() + DEADLINE;
        // Subjects are filtered by their whole parts.
        let parts = prefix.rfind('.').map_or("", |at| &prefix[..=at]);
        let filter = json!({ "subjects_filter": format!("{}{parts}>", self.prefix) });
        let info = self.ask::<Info>(&format!("STREAM.INFO.{}", self.stream), &filter, end).await;
        let subjects = info.map_err(|failure| self.unavailable(failure))?.state.subjects.unwrap_or_default();
        let mut entries = Vec::new();
        for subject in subjects.keys() {
            let Some(key) = subject.strip_prefix(&self.prefix).filter(|key| key.starts_with(prefix)) else { continue };
            if let Last::Value(entry) = self.last(key, end).await.map_err(|failure| self.unavailable(failure))? {
                entries.push((key.to_owned(), entry));
            }
        }
        Ok(entries)
    }

    async fn create(&self, key: &str, value: &[u8]) -> Result<Revision, StoreError> {
        self.write(key, Some(value), None).await
    }

    async fn update(&self, key: &str, value: &[u8], expected: Revision) -> Result<Revision, StoreError> {
        self.write(key, Some(value), Some(expected)).await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<(), StoreError> {
        self.write(key, None, Some(expected)).await.map(drop)
    }
}
