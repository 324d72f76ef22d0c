//! A consumer made for the occasion, and what is read through it.
//!
//! What the stream's retention demands decides what kind of consumer that is:
//!
//! - `limits`: one without acknowledgements that begins behind the last message taken in and that the broker forgets
//!   some minutes after we are gone. What is kept does not depend on us.
//! - `interest`: messages go when every consumer has acknowledged them, and all go that no consumer is there for. So
//!   ours outlive us, acknowledge what is settled with all before it, and the next one, which begins behind what is
//!   settled, is made *before* the old one is deleted: there is always one that holds what was not settled. There are
//!   two names, and each takes the other's place.
//! - `workqueue`: there can be one consumer only, it must begin with the first message, and each message is
//!   acknowledged by itself. So it is deleted and made anew, which loses nothing, because here messages wait for a
//!   consumer. What it delivers again is passed over.
//!
//! A consumer numbers what it delivers. A number that is not the next one (the client drops messages when it is
//! flooded), one that comes from another consumer, a stream sequence that does not ascend or a silence without the
//! heartbeats that were asked for end the session, and the next one begins behind the last message that was taken in
//! whole. The order is therefore never left to the network.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use config::values;
use futures::{FutureExt, StreamExt};
use model::{Account, time};
use nats::{Broken, Connection, Failure, JetStream, Retention, StreamInfo, pause, subjects};
use serde_json::{Value, json};
use storage::attempts::Attempts;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::{Begin, End};
use crate::{Position, SourceError};

/// Messages asked for at once.
const BATCH: usize = 8_192;
/// Bytes asked for at once.
const BATCH_BYTES: usize = 16 << 20;
/// The most messages handed over to the reader at once.
const BLOCK: usize = 2_048;
/// Blocks that may wait for the reader.
pub(super) const AHEAD: usize = 4;
/// How long a request for messages stands.
const EXPIRES: Duration = Duration::from_secs(60);
/// How often the broker says that it is there while it has nothing.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The longest silence: some heartbeats.
const SILENCE: Duration = Duration::from_secs(15);
/// How often a stream must be found missing before it counts as gone: a cluster that has just lost its leader may not
/// know of it for a moment.
const MISSING: u32 = 3;
/// After how long a consumer that nobody reads is forgotten, under the retention `limits`.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// After how long an unacknowledged message is delivered again. Long, because it would be passed over: a consumer
/// that a message was lost for is replaced.
const ACK_WAIT: Duration = Duration::from_secs(7 * 86_400);

/// What is to be read.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) connection: Connection,
    pub(super) stream: String,
    pub(super) subjects: Vec<String>,
    pub(super) consumer: String,
    pub(super) begin: Begin,
    pub(super) end: End,
}

/// A message as it was delivered.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) sequence: u64,
    /// When the broker took it in, in nanoseconds since 1970.
    pub(super) published: i64,
    /// It was taken in before, from another consumer.
    pub(super) again: bool,
    pub(super) message: Message,
}

/// Why a session cannot go on.
#[derive(Debug)]
enum Trouble {
    /// Another one may.
    Passing(String),
    /// None can.
    Fatal(SourceError),
}

/// What reading came to.
enum Outcome {
    /// The source has ended, or nobody reads it any more.
    Ended,
    /// A consumer has to be made anew to see whether anything is left.
    Again,
}

/// A consumer, and how far it was read.
pub(super) struct Session {
    plan: Plan,
    jetstream: JetStream,
    retention: Retention,
    identity: u64,
    /// Whether every message of the stream is one of ours.
    whole: bool,
    /// The sequence of the last message taken in; before the first one, that of the message before it.
    last: u64,
    /// Whether `last` is known: it is not while we begin at a time.
    anchored: bool,
    /// Messages of ours that were left behind the last one taken in.
    left: u64,
    end: Option<u64>,
    settled: Arc<AtomicU64>,
    /// Times in a row that the stream was not there.
    missing: u32,
    consumer: String,
    incoming: Option<Subscriber>,
    /// What requests are answered to.
    inbox: String,
    /// Times that the connection had broken when the consumer was made.
    broken: u64,
    /// The number of the next message that the consumer delivers.
    next: u64,
    /// Messages asked for that did not come yet.
    wanted: usize,
    /// Bytes asked for at once: more than [`BATCH_BYTES`] once a message was larger.
    bytes: usize,
}

impl Session {
    /// Connects, checks that the stream goes on where `from` says, and makes a consumer.
    pub(super) async fn open(plan: Plan, from: Option<&Position>) -> Result<Session, SourceError> {
        let place = place(&plan);
        Session::begun(plan, from).await.map_err(|trouble| match trouble {
            Trouble::Fatal(error) => error,
            Trouble::Passing(why) => {
                let (what, remedy) = why.split_once("; ").unwrap_or((&why, "see the log of the NATS servers"));
                SourceError { transient: true, place, what: what.into(), remedy: remedy.into() }
            }
        })
    }

    async fn begun(plan: Plan, from: Option<&Position>) -> Result<Session, Trouble> {
        let fatal =
            |what: String, remedy: &str| Trouble::Fatal(SourceError { transient: false, place: place(&plan), what, remedy: remedy.into() });
        let jetstream = plan.connection.connect(&plan.consumer, Broken::Mended).await.map_err(|f| trouble(&plan, f))?;
        let mut missing = 0;
        let info = loop {
            match jetstream.stream(&plan.stream).await {
                Err(failure) if failure.is_no_stream() && from.is_some() => {
                    missing += 1;
                    if missing == MISSING {
                        return Err(Trouble::Fatal(gone(&plan)));
                    }
                    sleep(pause(missing)).await;
                }
                other => break other.map_err(|f| trouble(&plan, f))?,
            }
        };
        if let Some(from) = from.filter(|from| from.part != plan.stream) {
            return Err(fatal(format!("the position to go on from is one of stream {}", from.part), ANEW));
        }
        let retention = info.config.retention;
        if retention == Retention::WorkQueue && plan.begin != Begin::First {
            let remedy = "leave `start` out, or read a stream of another retention";
            return Err(fatal("a stream of the retention `workqueue` is read from its first message on".into(), remedy));
        }
        let before_first = info.state.first.max(1) - 1;
        let last = match (from, &plan.begin) {
            (Some(from), _) => from.offset,
            (None, Begin::First | Begin::Time(_)) => before_first,
            (None, Begin::New) => info.state.last,
            (None, Begin::Sequence(sequence)) => sequence - 1,
        };
        let anchored = from.is_some() || !matches!(plan.begin, Begin::Time(_));
        let whole = plan.subjects.is_empty()
            || (!info.config.subjects.is_empty()
                && info.config.subjects.iter().all(|subject| plan.subjects.iter().any(|filter| subjects::covers(filter, subject))));
        if info.config.max_msgs_per_subject > 0 {
            tracing::warn!(
                stream = plan.stream,
                "the stream keeps {} messages of each subject: what is overwritten before it is read is lost without a trace",
                info.config.max_msgs_per_subject
            );
        }
        let mut session = Session {
            end: (plan.end == End::Last).then_some(info.state.last),
            retention,
            identity: from.map_or(info.created, |from| from.identity),
            whole,
            last,
            anchored,
            left: 0,
            settled: Arc::new(AtomicU64::new(last)),
            missing: 0,
            consumer: String::new(),
            incoming: None,
            inbox: String::new(),
            broken: 0,
            next: 1,
            wanted: 0,
            bytes: BATCH_BYTES,
            jetstream,
            plan,
        };
        session.begin().await?;
        Ok(session)
    }

    pub(super) fn stream(&self) -> &str {
        &self.plan.stream
    }

    pub(super) fn identity(&self) -> u64 {
        self.identity
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The sequence that a bounded source ends with.
    pub(super) fn end(&self) -> Option<u64> {
        self.end
    }

    pub(super) fn retention(&self) -> Retention {
        self.retention
    }

    pub(super) fn client(&self) -> Client {
        self.jetstream.client.clone()
    }

    /// The sequence up to which everything is settled: the reader raises it.
    pub(super) fn settled(&self) -> Arc<AtomicU64> {
        self.settled.clone()
    }

    /// Makes a consumer that begins behind the last message taken in, if the stream still goes on there.
    async fn begin(&mut self) -> Result<(), Trouble> {
        self.incoming = None;
        self.broken = self.jetstream.state.borrow_and_update().disconnected;
        self.check(None).await?;
        let (stream, base) = (self.plan.stream.clone(), self.plan.consumer.clone());
        let settled = self.settled.load(Ordering::Relaxed);
        let mut config = json!({ "replay_policy": "instant" });
        let (name, replaces) = match self.retention {
            Retention::Limits => {
                config["ack_policy"] = json!("none");
                config["inactive_threshold"] = nanos(FORGOTTEN);
                config["mem_storage"] = json!(true);
                config["num_replicas"] = json!(1);
                self.begin_at(self.last, &mut config);
                // A name that no consumer had.
                (format!("{base}-{}", self.jetstream.client.new_inbox().rsplit('.').next().unwrap_or_default()), None)
            }
            Retention::Interest => {
                config["ack_policy"] = json!("all");
                self.begin_at(settled, &mut config);
                let names = [format!("{base}-a"), format!("{base}-b")];
                let there = [
                    self.ask(self.jetstream.has_consumer(&stream, &names[0]).await)?,
                    self.ask(self.jetstream.has_consumer(&stream, &names[1]).await)?,
                ];
                if there == [true, true] {
                    // We died between making one and deleting the other; either holds what we need.
                    self.ask(self.jetstream.delete_consumer(&stream, &names[1]).await)?;
                }
                let [a, b] = names;
                match there {
                    [true, _] => (b, Some(a)),
                    [false, true] => (a, Some(b)),
                    [false, false] => (a, None),
                }
            }
            Retention::WorkQueue => {
                config["ack_policy"] = json!("explicit");
                config["deliver_policy"] = json!("all");
                self.ask(self.jetstream.delete_consumer(&stream, &base).await)?;
                (base, None)
            }
        };
        config["name"] = json!(name);
        if self.retention != Retention::Limits {
            config["durable_name"] = json!(name);
            config["max_ack_pending"] = json!(-1);
            config["ack_wait"] = nanos(ACK_WAIT);
        }
        // JetStream wants the subject in the request too where it is one.
        let request = match &self.plan.subjects[..] {
            [] => name.clone(),
            [subject] => {
                config["filter_subject"] = json!(subject);
                format!("{name}.{subject}")
            }
            several => {
                config["filter_subjects"] = json!(several);
                name.clone()
            }
        };
        // An inbox of its own: what was meant for an earlier consumer cannot reach this one.
        self.inbox = self.jetstream.client.new_inbox();
        let incoming = self.jetstream.client.subscribe(self.inbox.clone()).await;
        let incoming = incoming.map_err(|error| Trouble::Passing(error.to_string()))?;
        self.left = self.ask(self.jetstream.create_consumer(&stream, &request, &config).await)?;
        if let Some(old) = replaces {
            self.ask(self.jetstream.delete_consumer(&stream, &old).await)?;
        }
        // The consumer belongs to the stream that was there when it was made. If that is still the one we know, so is it.
        self.check(None).await?;
        self.incoming = Some(incoming);
        (self.consumer, self.next, self.wanted) = (name, 1, 0);
        tracing::debug!(stream, consumer = self.consumer, behind = self.last, "reading");
        Ok(())
    }

    fn begin_at(&self, last: u64, config: &mut Value) {
        match &self.plan.begin {
            Begin::Time(time) if !self.anchored => {
                config["deliver_policy"] = json!("by_start_time");
                config["opt_start_time"] = json!(time);
            }
            _ => {
                config["deliver_policy"] = json!("by_start_sequence");
                config["opt_start_seq"] = json!(last + 1);
            }
        }
    }

    /// Checks that the stream is the one we know and goes on where we are; or, where messages jump, that it still has
    /// what follows the message before the jump.
    async fn check(&mut self, jump: Option<u64>) -> Result<(), Trouble> {
        let info = match self.jetstream.stream(&self.plan.stream).await {
            Err(failure) if failure.is_no_stream() => {
                self.missing += 1;
                return Err(if self.missing < MISSING {
                    Trouble::Passing("the stream does not exist".into())
                } else {
                    Trouble::Fatal(gone(&self.plan))
                });
            }
            other => other.map_err(|f| trouble(&self.plan, f))?,
        };
        self.missing = 0;
        self.judge(&info, jump.unwrap_or(self.last)).map_err(Trouble::Fatal)
    }

    fn judge(&self, info: &StreamInfo, behind: u64) -> Result<(), SourceError> {
        let error =
            |what: String, remedy: &str| Err(SourceError { transient: false, place: place(&self.plan), what, remedy: remedy.into() });
        if info.created != self.identity {
            let made = |nanos: u64| time::display(i64::try_from(nanos / 1_000).unwrap_or(i64::MAX));
            return error(
                format!(
                    "the stream was recreated: it was made at {}, and the one that was read at {}",
                    made(info.created),
                    made(self.identity)
                ),
                ANEW,
            );
        }
        if !self.anchored {
            return Ok(());
        }
        if info.state.last < behind {
            return error(
                format!("the stream is shorter than what was read: it ends with message {}, and {behind} were read", info.state.last),
                "the servers lost messages that they had confirmed (see `sync_interval` in docs/nats.md); restore the stream, or begin anew with \
                 `--fresh`",
            );
        }
        // Where others acknowledge or only some subjects are ours, what is missing need not have been ours.
        if info.state.first > behind + 1 && (self.retention == Retention::Limits || self.whole) {
            return error(
                format!(
                    "the stream was purged beyond what was read: messages {} to {} are gone and were not read",
                    behind + 1,
                    info.state.first - 1
                ),
                "raise the stream's limits (max age, messages, bytes) so that they outlast an outage; begin anew with `--fresh`",
            );
        }
        Ok(())
    }

    fn ask<T>(&self, answer: Result<T, Failure>) -> Result<T, Trouble> {
        answer.map_err(|failure| trouble(&self.plan, failure))
    }

    /// Reads until the source ends, fails for good or nobody takes the messages any more.
    pub(super) async fn run(mut self, sender: mpsc::Sender<Result<Vec<Delivered>, SourceError>>, account: Arc<Account>) {
        let mut attempts = Attempts::new(&account, place(&self.plan), self.plan.consumer.as_str());
        // How often reading broke off behind one message.
        let mut broken = 0;
        loop {
            let before = self.last;
            let reads = self.incoming.is_some();
            let result = match &self.incoming {
                Some(_) => self.read(&sender).await,
                None => self.begin().await.map(|()| Outcome::Again),
            };
            if self.last != before {
                broken = 0;
            }
            match result {
                Ok(Outcome::Ended) => return,
                Ok(Outcome::Again) => attempts.succeeded(),
                Err(Trouble::Fatal(error)) => {
                    // Nobody is left to tell where this fails.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
                Err(Trouble::Passing(why)) if reads => {
                    self.incoming = None;
                    broken += 1;
                    tracing::warn!(stream = self.plan.stream, broken, "{why}; reading on behind message {}", self.last);
                    sleep(pause(broken)).await;
                }
                Err(Trouble::Passing(why)) => sleep(attempts.failed(&why, "")).await,
            }
        }
    }

    async fn read(&mut self, sender: &mpsc::Sender<Result<Vec<Delivered>, SourceError>>) -> Result<Outcome, Trouble> {
        if self.end.is_some() && (self.left == 0 || self.end <= Some(self.last)) {
            return Ok(Outcome::Ended);
        }
        loop {
            if self.wanted <= BATCH / 2 {
                self.want().await?;
            }
            let first = self.wait().await?;
            let mut block = Block { delivered: Vec::new(), last: self.last, jump: None, left: self.left, ended: false, heartbeat: false };
            self.take(first, &mut block)?;
            let incoming = |session: &mut Session| {
                let incoming = session.incoming.as_mut()?;
                // As much as is there, whatever the scheduler thinks.
                tokio::task::unconstrained(incoming.next()).now_or_never().flatten()
            };
            while block.delivered.len() < BLOCK
                && !block.ended
                && let Some(message) = incoming(self)
            {
                self.take(message, &mut block)?;
            }
            if let Some(behind) = block.jump {
                self.check(Some(behind)).await?;
            }
            (self.last, self.left) = (block.last, block.left);
            self.anchored |= !block.delivered.is_empty();
            if !block.delivered.is_empty() && sender.send(Ok(block.delivered)).await.is_err() {
                return Ok(Outcome::Ended);
            }
            if block.ended {
                return Ok(Outcome::Ended);
            }
            if block.heartbeat && self.end.is_some() {
                // What was left was deleted, or else it would have come.
                self.incoming = None;
                return Ok(Outcome::Again);
            }
        }
    }

    /// Asks for more messages.
    async fn want(&mut self) -> Result<(), Trouble> {
        let request = json!({ "batch": BATCH, "max_bytes": self.bytes, "expires": nanos(EXPIRES), "idle_heartbeat": nanos(HEARTBEAT) });
        let subject = self.jetstream.subject(&format!("CONSUMER.MSG.NEXT.{}.{}", self.plan.stream, self.consumer));
        let sent = self.jetstream.client.publish_with_reply(subject, self.inbox.clone(), request.to_string().into()).await;
        sent.map_err(|error| Trouble::Passing(error.to_string()))?;
        self.wanted += BATCH;
        Ok(())
    }

    /// The next message, once there is one.
    async fn wait(&mut self) -> Result<Message, Trouble> {
        let (state, broken) = (&mut self.jetstream.state, self.broken);
        let incoming = self.incoming.as_mut().expect("a session that is read has a consumer");
        tokio::select! {
            biased;
            message = timeout(SILENCE, incoming.next()) => match message {
                Ok(Some(message)) => Ok(message),
                Ok(None) => Err(Trouble::Passing("the connection was closed".into())),
                Err(_) => Err(Trouble::Passing(format!("nothing was heard for {}", values::Duration(SILENCE)))),
            },
            // The client connects again by itself, but what was asked for is forgotten by then.
            _ = state.wait_for(|state| state.disconnected != broken) => Err(Trouble::Passing("the connection broke".into())),
        }
    }

    fn take(&mut self, message: Message, block: &mut Block) -> Result<(), Trouble> {
        if let Some(status) = message.status.filter(|status| *status != async_nats::StatusCode::OK) {
            return self.obey(status.as_u16(), &message, block);
        }
        let place = message.reply.as_ref().and_then(|reply| Place::parse(reply.as_str()));
        let Some(place) = place.filter(|place| place.consumer == self.consumer && place.stream == self.plan.stream) else {
            return Err(Trouble::Passing(format!("a message that is not ours came: {}", message.subject)));
        };
        if place.number != self.next {
            return Err(Trouble::Passing(format!("message {} of the consumer came instead of {}", place.number, self.next)));
        }
        self.next += 1;
        self.wanted = self.wanted.saturating_sub(1);
        let (sequence, published, pending) = (place.sequence, place.published, place.pending);
        if self.anchored || !block.delivered.is_empty() {
            if sequence <= block.last {
                return match self.retention {
                    Retention::Limits => Err(Trouble::Passing(format!("message {sequence} came after {}", block.last))),
                    Retention::Interest | Retention::WorkQueue => {
                        block.left = pending;
                        block.ended = self.end.is_some() && pending == 0;
                        self.pass_over(Delivered { sequence, published, again: true, message }, block)
                    }
                };
            }
            // A hole between messages is what deletes and other subjects leave, or what retention took before we
            // came. Where none of ours were left, it can only be the former.
            if sequence > block.last + 1 && (self.whole || (self.retention == Retention::Limits && block.left > 0)) {
                block.jump.get_or_insert(block.last);
            }
        }
        if self.end.is_some_and(|end| sequence > end) {
            block.ended = true;
            return Ok(());
        }
        (block.last, block.left) = (sequence, pending);
        block.ended = self.end.is_some_and(|end| sequence >= end || pending == 0);
        block.delivered.push(Delivered { sequence, published, again: false, message });
        Ok(())
    }

    /// A message that was taken in before. What is settled is acknowledged at once; of the rest the reader is told.
    fn pass_over(&mut self, delivered: Delivered, block: &mut Block) -> Result<(), Trouble> {
        if delivered.sequence > self.settled.load(Ordering::Relaxed) {
            block.delivered.push(delivered);
        } else if let Some(reply) = delivered.message.reply {
            let client = self.jetstream.client.clone();
            // Lost with the connection it would only come again.
            tokio::spawn(async move { client.publish(reply, "+ACK".into()).await });
        }
        Ok(())
    }

    /// What the broker says about a request.
    fn obey(&mut self, status: u16, message: &Message, block: &mut Block) -> Result<(), Trouble> {
        const HEARTBEAT: u16 = 100;
        const NO_MESSAGES: u16 = 404;
        const EXPIRED: u16 = 408;
        let words = message.description.as_deref().unwrap_or_default();
        // A message that is larger than what was asked for; the request ends when even one does not fit.
        let large = words.eq_ignore_ascii_case("message size exceeds maxbytes");
        let complete = words.eq_ignore_ascii_case("batch completed");
        match status {
            HEARTBEAT => block.heartbeat = true,
            // All that was asked for has come, and was counted.
            _ if complete => {}
            NO_MESSAGES | EXPIRED => drop(self.unwant(message)),
            _ if large => {
                let left = self.unwant(message);
                if left >= BATCH {
                    self.bytes = self.bytes.saturating_mul(2);
                }
            }
            _ => return Err(Trouble::Passing(format!("the broker says {status} {words}"))),
        }
        Ok(())
    }

    /// A request has ended; returns how many messages of it did not come.
    fn unwant(&mut self, message: &Message) -> usize {
        let left = message.headers.as_ref().and_then(|h| h.get("Nats-Pending-Messages")).and_then(|left| left.as_str().parse().ok());
        let left = left.unwrap_or(self.wanted);
        self.wanted = self.wanted.saturating_sub(left);
        left
    }
}

/// Messages that are taken in together, or not at all.
struct Block {
    delivered: Vec<Delivered>,
    /// The sequence of the last message.
    last: u64,
    /// The message before the first hole that has to be looked into.
    jump: Option<u64>,
    /// Messages of ours that were left behind the last one when it was delivered.
    left: u64,
    ended: bool,
    heartbeat: bool,
}

/// Where a message comes from, as its reply subject tells.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    stream: &'a str,
    consumer: &'a str,
    sequence: u64,
    /// Its number among what the consumer delivers, from 1.
    number: u64,
    published: i64,
    pending: u64,
}

impl<'a> Place<'a> {
    /// Reads `$JS.ACK.[DOMAIN.ACCOUNT.]STREAM.CONSUMER.DELIVERED.SEQUENCE.NUMBER.TIME.PENDING[.TOKEN]`.
    fn parse(reply: &'a str) -> Option<Self> {
        let mut tokens = reply.strip_prefix("$JS.ACK.")?.split('.');
        let mut all = [""; 10];
        let mut count = 0;
        for (place, token) in all.iter_mut().zip(&mut tokens) {
            *place = token;
            count += 1;
        }
        let [stream, consumer, _, sequence, number, published, pending] = match count {
            7 => all[..7].try_into().ok()?,
            9 | 10 => all[2..9].try_into().ok()?,
            _ => return None,
        };
        Some(Place {
            stream,
            consumer,
            sequence: sequence.parse().ok()?,
            number: number.parse().ok()?,
            published: published.parse().ok()?,
            pending: pending.parse().ok()?,
        })
    }
}

fn nanos(duration: Duration) -> Value {
    json!(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

const ANEW: &str = "begin anew with `--fresh`, which forgets what was read and computed";

fn place(plan: &Plan) -> String {
    format!("{}, stream {}", plan.connection.place(), plan.stream)
}

fn gone(plan: &Plan) -> SourceError {
    SourceError {
        transient: false,
        place: place(plan),
        what: "the stream that was read is gone".into(),
        remedy: format!("restore it; or make one, and {ANEW}"),
    }
}

fn trouble(plan: &Plan, failure: Failure) -> Trouble {
    if failure.transient {
        Trouble::Passing(failure.to_string())
    } else {
        Trouble::Fatal(SourceError { transient: false, place: place(plan), what: failure.what, remedy: failure.remedy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_in_both_forms() {
        let expected = Place { stream: "S", consumer: "c-1", sequence: 17, number: 3, published: 1_723_118_400_000_000_001, pending: 4 };
        for reply in [
            "$JS.ACK.S.c-1.1.17.3.1723118400000000001.4",
            "$JS.ACK._.abc.S.c-1.1.17.3.1723118400000000001.4",
            "$JS.ACK.hub.abc.S.c-1.1.17.3.1723118400000000001.4.xyz",
        ] {
            assert_eq!(Place::parse(reply), Some(Place { ..expected }), "{reply}");
        }
        for reply in ["", "$JS.ACK.S.c.1.2.3", "$JS.ACK.S.c.1.x.3.4.5", "_INBOX.S.c.1.2.3.4.5"] {
            assert_eq!(Place::parse(reply), None, "{reply}");
        }
    }
}
