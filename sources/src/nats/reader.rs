//! Delivered messages as chunks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::{Client, Subject};
use async_trait::async_trait;
use model::Kind;
use model::kinds::DEAD_LETTER;
use nats::Retention;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::rows::{Payload, Rows};
use super::session::{AHEAD, Delivered, Session};
use crate::{Chunk, OpenSource, Position, Reader, SourceError};

/// Bytes of payload handed over at once.
const CHUNK: usize = 1 << 20;
/// Messages handed over at once.
const MESSAGES: usize = 8_192;

/// An open stream.
pub(super) struct StreamReader {
    incoming: mpsc::Receiver<Result<Vec<Delivered>, SourceError>>,
    /// Messages that came and were not handed over.
    waiting: VecDeque<Delivered>,
    rows: Rows,
    kind: Arc<Kind>,
    position: Position,
    /// The first and last sequence of a bounded source.
    bounds: Option<(u64, u64)>,
    acknowledgements: Acknowledgements,
    task: JoinHandle<()>,
}

impl StreamReader {
    pub(super) fn new(cx: OpenSource, session: Session, payload: Payload) -> Self {
        let stream = session.stream().to_owned();
        let position =
            cx.from.unwrap_or_else(|| Position { part: stream.clone(), offset: session.last(), frame: 0, identity: session.identity() });
        let kind = payload.kind().clone();
        let rows = Rows::new(cx.node, cx.account.clone(), stream, payload, position.frame, CHUNK);
        let bounds = session.end().map(|end| (position.offset, end));
        let acknowledgements = Acknowledgements {
            retention: session.retention(),
            client: session.client(),
            settled: session.settled(),
            pending: VecDeque::new(),
            last: None,
        };
        let (sender, incoming) = mpsc::channel(AHEAD);
        let task = tokio::spawn(session.run(sender, cx.account));
        StreamReader { incoming, waiting: VecDeque::new(), rows, kind, position, bounds, acknowledgements, task }
    }

    /// Waits until something is there; `false` at the end. Cancel-safe: what came is in `waiting` before this returns.
    async fn wait(&mut self) -> Result<bool, SourceError> {
        while self.waiting.is_empty() {
            let Some(block) = self.incoming.recv().await else { return Ok(false) };
            for delivered in block? {
                if delivered.again {
                    self.acknowledgements.replace(&delivered);
                } else {
                    self.waiting.push_back(delivered);
                }
            }
        }
        Ok(true)
    }

    /// Takes what waits, up to `until`, into a chunk.
    fn chunk(&mut self, until: Option<&Position>) -> Result<Chunk, SourceError> {
        let bound = until.map_or(u64::MAX, |until| until.offset);
        let mut messages = 0;
        while messages < MESSAGES && self.rows.bytes() < CHUNK && self.rows.lessons.is_empty() {
            let Some(delivered) = self.waiting.pop_front_if(|delivered| delivered.sequence <= bound) else { break };
            messages += 1;
            self.rows.take(&delivered);
            self.position.offset = delivered.sequence;
            self.acknowledgements.note(&delivered);
        }
        self.position.frame = self.rows.frame;
        if let Some(until) = until {
            let reached = self.position.offset == until.offset;
            if (messages == 0 && !reached) || (reached && self.position.frame != until.frame) {
                return Err(self.unlike(until));
            }
        }
        self.acknowledgements.end_of_chunk();
        let (rows, letters) = self.rows.finish();
        let mut batches = Vec::with_capacity(2);
        batches.extend(rows.map(|rows| (self.kind.clone(), rows)));
        batches.extend(letters.map(|letters| (DEAD_LETTER.clone(), letters)));
        let lessons = std::mem::take(&mut self.rows.lessons);
        Ok(Chunk { batches, position: self.position.clone(), lessons, ..Chunk::default() })
    }

    fn unlike(&self, until: &Position) -> SourceError {
        SourceError {
            transient: false,
            place: format!("stream {}", self.position.part),
            what: format!(
                "message {} was handed over as the end of frame {}, and now the stream does not give that again: messages were deleted, or \
                 `subjects` changed",
                until.offset, until.frame
            ),
            remedy: "begin anew with `--fresh`".into(),
        }
    }
}

#[async_trait]
impl Reader for StreamReader {
    async fn next(&mut self, until: Option<&Position>) -> Result<Option<Chunk>, SourceError> {
        if until.is_some_and(|until| until.offset <= self.position.offset) {
            // Everything up to there was handed over.
            return self.chunk(until).map(Some);
        }
        if !self.wait().await? {
            return match until {
                Some(until) => Err(self.unlike(until)),
                None => Ok(None),
            };
        }
        self.chunk(until).map(Some)
    }

    fn share(&self) -> Option<f64> {
        let (first, last) = self.bounds?;
        let (done, all) = (self.position.offset.saturating_sub(first), last.saturating_sub(first));
        Some(if all == 0 { 1.0 } else { (done as f64 / all as f64).min(1.0) })
    }

    async fn settle(&mut self, position: &Position) -> Result<(), SourceError> {
        self.acknowledgements.settle(position.offset).await;
        Ok(())
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the broker is to be told when positions are settled. Under the retention `limits` it is told nothing.
struct Acknowledgements {
    retention: Retention,
    client: Client,
    /// The sequence up to which everything is settled: what the session begins with when it begins anew.
    settled: Arc<AtomicU64>,
    /// Sequences with the subject on which each is acknowledged.
    pending: VecDeque<(u64, Subject)>,
    /// Of the chunk under construction, the last one.
    last: Option<(u64, Subject)>,
}

impl Acknowledgements {
    /// A message is handed over.
    fn note(&mut self, delivered: &Delivered) {
        let Some(reply) = &delivered.message.reply else { return };
        match self.retention {
            Retention::Limits => {}
            // An acknowledgement stands for all before it, so one a chunk is enough.
            Retention::Interest => self.last = Some((delivered.sequence, reply.clone())),
            Retention::WorkQueue => self.pending.push_back((delivered.sequence, reply.clone())),
        }
    }

    /// A message handed over came again from another consumer: that one has to be told.
    fn replace(&mut self, delivered: &Delivered) {
        if let (Ok(at), Some(reply)) =
            (self.pending.binary_search_by_key(&delivered.sequence, |(sequence, _)| *sequence), &delivered.message.reply)
        {
            self.pending[at].1 = reply.clone();
        }
    }

    /// A chunk is complete: a position that can be settled.
    fn end_of_chunk(&mut self) {
        self.pending.extend(self.last.take());
    }

    /// Tells the broker. An answer is not waited for: what it does not hear of it keeps, and hears of later.
    async fn settle(&mut self, sequence: u64) {
        self.settled.fetch_max(sequence, Ordering::Relaxed);
        while let Some((_, reply)) = self.pending.pop_front_if(|(pending, _)| *pending <= sequence) {
            if self.client.publish(reply, "+ACK".into()).await.is_err() {
                return;
            }
        }
    }
}
