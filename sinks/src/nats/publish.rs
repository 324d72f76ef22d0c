//! Publishing in order, whatever breaks.
//!
//! Messages are sent without waiting for the acknowledgement of each, up to a window. What must not happen is that a
//! message which was lost in the middle of the window is published again after later ones of its subject were stored.
//! A client that connects again by itself does exactly that: it sends what it has queued, and what was under way when
//! the connection broke comes after it. So a connection is used until anything goes wrong and never again:
//!
//! - One connection carries messages in order, so what the server stores of a window is a beginning of it.
//! - At the first failure (the connection breaks, a message is refused, no acknowledgement comes for a while) the
//!   connection is abandoned with all that it has queued. It has a runtime of its own that ends with it, and its client
//!   never connects a second time.
//! - A new connection begins with the first message that is not acknowledged and sends all from there on, with the ids
//!   that they had. JetStream drops those that it has. Should the old connection still have bytes on their way, they
//!   arrive in the same order, and the earlier of two equal messages is the one that counts, so the order stays.
//!
//! What a single server cannot do but a cluster can: refuse or lose a message while its stream changes leaders, and
//! take later ones of the same window. A window is therefore no larger than it needs to be; see docs/nats.md.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::header::HeaderName;
use async_nats::{Client, Message, StatusCode, Subscriber};
use futures::{FutureExt, StreamExt};
use model::Account;
use nats::{Broken, Connection, Failure, State, headers};
use serde::Deserialize;
use storage::attempts::Attempts;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::messages::Outgoing;
use crate::SinkError;

/// The most messages that are sent and not acknowledged.
const WINDOW: usize = 4_096;
/// The most bytes of them.
const WINDOW_BYTES: usize = 32 << 20;
/// The longest that no acknowledgement comes while some are due.
const PATIENCE: Duration = Duration::from_secs(10);

const EXPECTED_STREAM: HeaderName = HeaderName::from_static(headers::EXPECTED_STREAM);

/// Where to publish.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) connection: Connection,
    /// What the connection is called.
    pub(super) name: String,
    pub(super) stream: String,
    /// How long the stream recognises a repeated message.
    pub(super) window: Duration,
}

impl Target {
    /// Servers and stream, for errors and logs.
    fn place(&self) -> String {
        format!("{}, stream {}", self.connection.place(), self.stream)
    }
}

/// Publishes messages to a stream.
pub(super) struct Publisher {
    target: Target,
    line: Option<Line>,
    /// Messages that are not acknowledged, or lie behind one that is not.
    window: VecDeque<Sent>,
    /// Bytes of their payloads.
    bytes: usize,
    /// The number of the first of them.
    first: u64,
    /// How many of them were sent on the line at hand.
    sent: usize,
    attempts: Attempts,
    /// Since when nothing was acknowledged.
    since: Instant,
    /// That some may be there twice was said.
    warned: bool,
}

struct Sent {
    message: Outgoing,
    acknowledged: bool,
}

/// A connection that carries messages in order.
struct Line {
    client: Client,
    acknowledgements: Subscriber,
    /// What subjects of acknowledgements begin with; the message's number follows.
    inbox: String,
    state: watch::Receiver<State>,
    /// Ends with the line, and with it whatever the client still does.
    runtime: Option<Runtime>,
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Publisher {
    pub(super) fn new(target: Target, account: &Arc<Account>) -> Self {
        let attempts = Attempts::new(account, target.place(), target.name.as_str());
        Publisher {
            target,
            line: None,
            window: VecDeque::new(),
            bytes: 0,
            first: 0,
            sent: 0,
            attempts,
            since: Instant::now(),
            warned: false,
        }
    }

    /// Publishes a message, once there is room for it in the window. An acknowledgement is not waited for.
    pub(super) async fn publish(&mut self, mut message: Outgoing) -> Result<(), SinkError> {
        message.headers.insert(EXPECTED_STREAM, self.target.stream.as_str());
        self.bytes += message.payload.len();
        self.window.push_back(Sent { message, acknowledged: false });
        // Half of the window is let go at once, so that one does not wait for each message.
        let full = self.window.len() >= WINDOW || self.bytes >= WINDOW_BYTES;
        let (messages, bytes) = if full { (WINDOW / 2, WINDOW_BYTES / 2) } else { (WINDOW, WINDOW_BYTES) };
        self.drive(messages, bytes).await
    }

    /// Waits until everything is acknowledged.
    pub(super) async fn flush(&mut self) -> Result<(), SinkError> {
        self.drive(0, 0).await
    }

    /// Sends what was not sent and waits until at most so many messages, of so many bytes, are not acknowledged.
    async fn drive(&mut self, messages: usize, bytes: usize) -> Result<(), SinkError> {
        loop {
            match self.step(messages, bytes).await {
                Ok(()) => {
                    if self.window.is_empty() {
                        self.attempts.succeeded();
                    }
                    return Ok(());
                }
                Err(failure) if failure.transient => {
                    self.line = None;
                    self.sent = 0;
                    let away = self.since.elapsed();
                    // The next attempt publishes from the first message that is not acknowledged.
                    let pause = self.attempts.failed(&failure.what, &failure.remedy);
                    if away > self.target.window && !std::mem::replace(&mut self.warned, true) {
                        tracing::warn!(
                            stream = self.target.stream,
                            "nothing was acknowledged for {} s, which is longer than the stream recognises repeated messages: some may be there twice",
                            away.as_secs()
                        );
                    }
                    sleep(pause).await;
                }
                Err(failure) => {
                    self.line = None;
                    return Err(SinkError { transient: false, place: self.target.place(), what: failure.what, remedy: failure.remedy });
                }
            }
        }
    }

    async fn step(&mut self, messages: usize, bytes: usize) -> Result<(), Failure> {
        if self.line.is_none() {
            self.sent = 0;
            self.line = Some(Line::open(&self.target).await?);
        }
        self.send().await?;
        while self.window.len() > messages || self.bytes > bytes {
            let line = self.line.as_mut().expect("a line was opened above");
            let broken = async |state: &mut watch::Receiver<State>| {
                // The sender lives as long as the client.
                let _ = state.wait_for(|state| state.disconnected > 0).await;
            };
            let answer = tokio::select! {
                biased;
                answer = timeout(PATIENCE, line.acknowledgements.next()) => match answer {
                    Ok(Some(answer)) => answer,
                    Ok(None) => return Err(lost()),
                    Err(_) => {
                        let what = format!("no message was acknowledged for {} s", PATIENCE.as_secs());
                        return Err(Failure::transient(what, "see the log of the NATS servers, and in a cluster whether the stream has a leader"));
                    }
                },
                () = broken(&mut line.state) => return Err(lost()),
            };
            self.take(&answer).await?;
            while let Some(answer) = self.line.as_mut().and_then(|line| line.acknowledgements.next().now_or_never().flatten()) {
                self.take(&answer).await?;
            }
        }
        Ok(())
    }

    /// Sends what the window has and the line at hand has not.
    async fn send(&mut self) -> Result<(), Failure> {
        let line = self.line.as_mut().expect("messages are sent on an open line");
        while let Some(Sent { message, acknowledged }) = self.window.get(self.sent) {
            if !acknowledged {
                let largest = line.client.max_payload();
                if message.payload.len() + 1_024 > largest {
                    return Err(Failure::fatal(
                        format_args!(
                            "a message for {} has {} bytes, and the server takes {largest}",
                            message.subject,
                            message.payload.len()
                        ),
                        "raise `max_payload` in the server's configuration",
                    ));
                }
                if line.state.borrow().disconnected > 0 {
                    return Err(lost());
                }
                let reply = format!("{}.{}", line.inbox, self.first + self.sent as u64);
                let (subject, headers, payload) = (message.subject.clone(), message.headers.clone(), message.payload.clone());
                let sent = timeout(PATIENCE, line.client.publish_with_reply_and_headers(subject, reply, headers, payload)).await;
                match sent {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(Failure::transient(error, "see the log of the NATS servers")),
                    Err(_) => return Err(Failure::transient("the server takes no messages", "see the log of the NATS servers")),
                }
            }
            self.sent += 1;
        }
        Ok(())
    }

    /// Takes in an acknowledgement.
    async fn take(&mut self, answer: &Message) -> Result<(), Failure> {
        #[derive(Deserialize)]
        struct Answer {
            error: Option<Refusal>,
        }
        #[derive(Deserialize)]
        struct Refusal {
            #[serde(default)]
            err_code: u64,
            #[serde(default)]
            description: String,
        }
        let number = answer.subject.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
        let place = number.and_then(|number| number.checked_sub(self.first)).and_then(|place| usize::try_from(place).ok());
        let Some(sent) = place.and_then(|place| self.window.get_mut(place)) else {
            // Acknowledged already: a server answers twice for what it was sent twice.
            return Ok(());
        };
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            let subject = sent.message.subject.to_string();
            return Err(self.nobody(&subject).await);
        }
        match serde_json::from_slice::<Answer>(&answer.payload) {
            Ok(Answer { error: None }) => {}
            Ok(Answer { error: Some(refusal) }) => return Err(refused(&sent.message, refusal.err_code, &refusal.description)),
            Err(error) => {
                return Err(Failure::transient(
                    format_args!("an acknowledgement cannot be read: {error}"),
                    "see the log of the NATS servers",
                ));
            }
        }
        sent.acknowledged = true;
        while let Some(Sent { message, .. }) = self.window.pop_front_if(|sent| sent.acknowledged) {
            self.bytes -= message.payload.len();
            self.first += 1;
            self.sent = self.sent.saturating_sub(1);
            self.attempts.succeeded();
            self.warned = false;
            self.since = Instant::now();
        }
        Ok(())
    }

    /// Why nobody answers for a subject: no stream takes it in, or its stream has no leader.
    async fn nobody(&self, subject: &str) -> Failure {
        let transient = Failure::transient("no server answers for the stream", "in a cluster, see whether the stream has a leader");
        let Ok(jetstream) = self.target.connection.connect(&self.target.name, Broken::Mended).await else { return transient };
        match jetstream.stream(&self.target.stream).await {
            Ok(info) if !info.config.subjects.iter().any(|taken| nats::subjects::covers(taken, subject)) => Failure::fatal(
                format_args!("the stream takes {} and not {subject}", info.config.subjects.join(", ")),
                format!("let it take more: nats stream edit {} --subjects ...", self.target.stream),
            ),
            Err(failure) if failure.is_no_stream() => {
                Failure::fatal("the stream is gone", "restore it, or make it anew and start the pipeline again")
            }
            _ => transient,
        }
    }
}

impl Line {
    async fn open(target: &Target) -> Result<Line, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("nats").enable_all().build();
        let runtime = runtime.map_err(|error| Failure::transient(error, "let the process have one thread more"))?;
        let (connection, name) = (target.connection.clone(), target.name.clone());
        let connected = runtime.spawn(async move {
            let jetstream = connection.connect(&name, Broken::Abandoned).await?;
            let inbox = jetstream.client.new_inbox();
            let acknowledgements = jetstream.client.subscribe(format!("{inbox}.*")).await;
            let acknowledgements = acknowledgements.map_err(|error| Failure::transient(error, "see the log of the NATS servers"))?;
            Ok((jetstream, inbox, acknowledgements))
        });
        let connected = connected.await.unwrap_or_else(|error| Err(Failure::transient(error, "this is a bug: please report it")));
        match connected {
            Ok((jetstream, inbox, acknowledgements)) => {
                Ok(Line { client: jetstream.client, acknowledgements, inbox, state: jetstream.state, runtime: Some(runtime) })
            }
            Err(failure) => {
                runtime.shutdown_background();
                Err(failure)
            }
        }
    }
}

fn lost() -> Failure {
    Failure::transient("the connection broke", "see whether the NATS server runs")
}

/// Why JetStream refused a message.
fn refused(message: &Outgoing, code: u64, description: &str) -> Failure {
    const TOO_LARGE: u64 = 10_054;
    const OTHER_STREAM: u64 = 10_060;
    let what = format!("a message for {} was refused: {description} (error {code})", message.subject);
    match code {
        TOO_LARGE => Failure::fatal(what, "raise the stream's largest message size"),
        OTHER_STREAM => Failure::fatal(what, "another stream takes this subject; correct `stream`, or set another `prefix`"),
        // No room, no leader, no quorum: may pass.
        _ => Failure::transient(what, "make room in the stream, or see the log of the NATS servers"),
    }
}
