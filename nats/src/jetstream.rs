//! The requests that MarketPrism makes of JetStream, in the words of its own protocol: a request on a subject, JSON
//! both ways.

use std::time::Duration;

use async_nats::{Client, RequestErrorKind};
use chrono::DateTime;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::watch;

use crate::{Failure, State, chain};

/// The longest that JetStream may take to answer. A cluster without a leader does not answer at all.
const ANSWER: Duration = Duration::from_secs(10);

/// A connection to JetStream.
#[derive(Clone, Debug)]
pub struct JetStream {
    /// The connection.
    pub client: Client,
    /// How often it was made and broke.
    pub state: watch::Receiver<State>,
    prefix: String,
}

/// How a stream decides what to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// Until a limit of age, number or size is reached.
    Limits,
    /// Until every consumer has acknowledged it.
    Interest,
    /// Until its one consumer has acknowledged it.
    WorkQueue,
}

/// What is known of a stream.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamInfo {
    /// How it is set up.
    pub config: StreamConfig,
    /// When it was made, in nanoseconds since 1970: no other stream of its name was made then.
    #[serde(deserialize_with = "nanos")]
    pub created: u64,
    /// What it holds.
    pub state: StreamState,
}

/// How a stream is set up.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamConfig {
    /// Subjects, perhaps with wildcards, whose messages it takes in. None for a mirror.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// How it decides what to keep.
    pub retention: Retention,
    /// For how long it recognises a repeated message, in nanoseconds.
    #[serde(default)]
    pub duplicate_window: u64,
    /// The most messages of a subject that it keeps; -1 or 0: all.
    #[serde(default)]
    pub max_msgs_per_subject: i64,
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct StreamState {
    /// The sequence of the first message that is there; one more than the last where none is.
    #[serde(rename = "first_seq")]
    pub first: u64,
    /// The sequence of the last message that was ever there; 0 before the first.
    #[serde(rename = "last_seq")]
    pub last: u64,
    /// Number of messages that are there.
    pub messages: u64,
}

/// What JetStream answers: what was asked for, or an error.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Error { error: ApiError },
    Good(T),
}

/// An error of JetStream.
#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// JetStream's numbers of errors.
mod codes {
    pub(super) const STREAM_NOT_FOUND: u64 = 10_059;
    pub(super) const CONSUMER_NOT_FOUND: u64 = 10_014;
    pub(super) const NOT_ENABLED: [u64; 2] = [10_039, 10_076];
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let what = format!("JetStream refused: {} (error {})", error.description, error.err_code);
        let failure = match error.err_code {
            codes::STREAM_NOT_FOUND => Failure::fatal("the stream does not exist", "make it, or correct `stream`"),
            code if codes::NOT_ENABLED.contains(&code) => Failure::fatal(what, "enable JetStream in the server and for the account"),
            // 5xx is the server's own trouble, as in HTTP: no leader, no resources.
            _ if error.code >= 500 => Failure::transient(what, "see the log of the NATS servers"),
            _ => Failure::fatal(what, "see docs/nats.md for what the source and the sink need of a stream"),
        };
        Failure { code: Some(error.err_code), ..failure }
    }
}

impl Failure {
    /// Whether there is no such stream.
    pub fn is_no_stream(&self) -> bool {
        self.code == Some(codes::STREAM_NOT_FOUND)
    }
}

impl JetStream {
    pub(crate) fn new(client: Client, domain: Option<&str>, state: watch::Receiver<State>) -> Self {
        let prefix = domain.map_or_else(|| "$JS.API".to_owned(), |domain| format!("$JS.{domain}.API"));
        JetStream { client, state, prefix }
    }

    /// The subject of a request, e.g. `STREAM.INFO.trades`.
    pub fn subject(&self, request: &str) -> String {
        format!("{}.{request}", self.prefix)
    }

    /// Makes a request and reads the answer.
    ///
    /// # Errors
    /// No answer, an answer that cannot be read, an error that JetStream answers with.
    pub async fn request<T: DeserializeOwned>(&self, request: &str, body: &Value) -> Result<T, Failure> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let message = async_nats::Request::new().payload(body.into()).timeout(Some(ANSWER));
        let mut state = self.state.clone();
        let broken = state.borrow().disconnected;
        let answer = tokio::select! {
            biased;
            answer = self.client.send_request(self.subject(request), message) => answer,
            // What was asked over a connection that broke is not answered over the next one.
            _ = state.wait_for(|state| state.disconnected != broken) => {
                return Err(Failure::transient("the connection broke", "see whether the NATS server runs"));
            }
        };
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Failure::transient(
                "no server answers for JetStream",
                "enable JetStream in the server and for the account; in a cluster, see whether it has a leader",
            ),
            RequestErrorKind::TimedOut => {
                Failure::transient("JetStream does not answer", "see the log of the NATS servers, and in a cluster whether it has a leader")
            }
            _ => Failure::transient(chain(&error), "see the log of the NATS servers"),
        })?;
        match serde_json::from_slice(&answer.payload) {
            Ok(Answer::Good(answer)) => Ok(answer),
            Ok(Answer::Error { error }) => Err(error.into()),
            Err(error) => Err(Failure::fatal(
                format_args!("JetStream answers what nobody understands: {error}"),
                "MarketPrism needs NATS 2.10 or newer",
            )),
        }
    }

    /// What is known of a stream.
    ///
    /// # Errors
    /// As [`JetStream::request`]; see [`Failure::is_no_stream`].
    pub async fn stream(&self, name: &str) -> Result<StreamInfo, Failure> {
        self.request(&format!("STREAM.INFO.{name}"), &Value::Null).await
    }

    /// Makes a consumer of a stream; returns how many messages wait for it. `config` is JetStream's own configuration
    /// with `name`, and `durable_name` where it is to outlive us.
    ///
    /// # Errors
    /// As [`JetStream::request`].
    pub async fn create_consumer(&self, stream: &str, name: &str, config: &Value) -> Result<u64, Failure> {
        #[derive(Deserialize)]
        struct Made {
            #[serde(default)]
            num_pending: u64,
        }
        let body = serde_json::json!({ "stream_name": stream, "config": config, "action": "create" });
        let made: Made = self.request(&format!("CONSUMER.CREATE.{stream}.{name}"), &body).await?;
        Ok(made.num_pending)
    }

    /// Deletes a consumer; returns whether there was one.
    ///
    /// # Errors
    /// As [`JetStream::request`].
    pub async fn delete_consumer(&self, stream: &str, name: &str) -> Result<bool, Failure> {
        match self.request::<Value>(&format!("CONSUMER.DELETE.{stream}.{name}"), &Value::Null).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.code == Some(codes::CONSUMER_NOT_FOUND) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Whether there is a consumer of this name.
    ///
    /// # Errors
    /// As [`JetStream::request`].
    pub async fn has_consumer(&self, stream: &str, name: &str) -> Result<bool, Failure> {
        match self.request::<Value>(&format!("CONSUMER.INFO.{stream}.{name}"), &Value::Null).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.code == Some(codes::CONSUMER_NOT_FOUND) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

/// Reads a time of RFC 3339 with all its digits.
fn nanos<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time = DateTime::parse_from_rfc3339(&text).map_err(serde::de::Error::custom)?;
    let nanos = time.timestamp_nanos_opt().and_then(|nanos| u64::try_from(nanos).ok());
    nanos.ok_or_else(|| serde::de::Error::custom(format_args!("{text} does not fit 64 bits of nanoseconds")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let text = r#"{"type":"io.nats.jetstream.api.v1.stream_info_response","config":{"name":"S","subjects":["a.>"],"retention":"workqueue",
            "duplicate_window":120000000000},"created":"2026-11-26T08:00:00.123456789Z","state":{"messages":2,"bytes":9,"first_seq":3,
            "first_ts":"0001-01-01T00:00:00Z","last_seq":4,"last_ts":"0001-01-01T00:00:00Z","consumer_count":0}}"#;
        let Answer::<StreamInfo>::Good(info) = serde_json::from_str(text).unwrap() else { panic!("an error") };
        assert_eq!((info.created % 1_000_000_000, info.config.retention, info.state.first), (123_456_789, Retention::WorkQueue, 3));
        let text = r#"{"type":"x","error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
        let Answer::<StreamInfo>::Error { error } = serde_json::from_str(text).unwrap() else { panic!("no error") };
        assert!(Failure::from(error).is_no_stream());
    }
}
