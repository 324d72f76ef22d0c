//! Heard frames as chunks.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, DictionaryArray, Int32Array, StringArray};
use arrow::datatypes::Int32Type;
use async_trait::async_trait;
use bytes::Bytes;
use hashbrown::HashMap;
use model::Lesson;
use model::kinds::FRAME;
use model::time;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::coverage::Listed;
use super::gaps::Holds;
use super::spool::{self, Cursor, Tail, position};
use crate::file::frames::Frames;
use crate::{Chunk, Position, Reader, SourceError, listing};

/// Bytes of frames handed over at once.
const CHUNK: usize = 1 << 20;

/// The reading end of a live source. What listens to the venue ends with it.
pub(super) struct LiveReader {
    cursor: Cursor,
    tail: watch::Receiver<Tail>,
    /// The last frame that is on disk.
    kept: watch::Receiver<u64>,
    position: Position,
    /// The holes before the position.
    holds: Holds,
    source: Arc<StringArray>,
    dialects: Labels,
    topics: Labels,
    /// Pages of listings that were heard in this run and are not settled, by the numbers of their frames.
    unsettled: VecDeque<(u64, Listed)>,
    /// The first frame of this run.
    first: u64,
    /// Who is told what is listed, once everybody has learned it. What listens ends when this is dropped.
    listed: UnboundedSender<Listed>,
}

impl LiveReader {
    /// Reads a spool behind a position, or from its beginning; `holds` are the holes there.
    pub(super) fn open(
        folder: &Path,
        identity: u64,
        from: Option<Position>,
        holds: Holds,
        source: &str,
        (tail, kept): (watch::Receiver<Tail>, watch::Receiver<u64>),
        listed: UnboundedSender<Listed>,
    ) -> Result<Self, SourceError> {
        if let Some(from) = from.as_ref().filter(|from| from.identity != identity) {
            return Err(SourceError {
                transient: false,
                place: folder.display().to_string(),
                what: format!(
                    "the spool was made anew: it was made at {}, and the one that was read at {}",
                    made(identity),
                    made(from.identity)
                ),
                remedy: "bring it back, or begin anew with `--fresh`: frames that were heard and not stored are lost".into(),
            });
        }
        let seen = *tail.borrow();
        let cursor = Cursor::open(folder, from.map(|from| from.offset + 1), seen)?;
        let position = position(identity, cursor.next() - 1);
        Ok(LiveReader {
            cursor,
            tail,
            kept,
            position,
            holds,
            source: Arc::new(StringArray::from(vec![source])),
            dialects: Labels::default(),
            topics: Labels::default(),
            unsettled: VecDeque::new(),
            first: seen.next,
            listed,
        })
    }
}

#[async_trait]
impl Reader for LiveReader {
    async fn next(&mut self, until: Option<&Position>) -> Result<Option<Chunk>, SourceError> {
        let last = until.map_or(u64::MAX, |until| until.offset);
        if last <= self.position.offset {
            // Everything up to there was handed over.
            return Ok(Some(Chunk { position: self.position.clone(), ..Chunk::default() }));
        }
        let next = self.position.offset + 1;
        let seen = match self.tail.wait_for(|tail| tail.next > next).await {
            Ok(tail) => *tail,
            Err(_) => {
                return Err(SourceError {
                    transient: false,
                    place: self.position.part.clone(),
                    what: "what writes the spool has ended".into(),
                    remedy: "this is a bug: please report it with the log".into(),
                });
            }
        };
        let mut frames = Frames::with_room_for(CHUNK / 4);
        let LiveReader { dialects, topics, holds, unsettled, first, .. } = self;
        let first = *first;
        let (mut bytes, mut reached, mut lessons) = (0, self.position.offset, Vec::new());
        while bytes < CHUNK && reached < last && lessons.is_empty() {
            let more = self.cursor.take(seen, |number, heard| {
                frames.push(heard.payload, Some(heard.receive_time), number as i64);
                if heard.connection > 0 {
                    frames.came_over(heard.connection.into());
                }
                dialects.push(Some(heard.dialect));
                topics.push(Some(heard.topic).filter(|topic| !topic.is_empty()));
                bytes += heard.payload.len();
                if let Some(market) = listing::market(heard.topic) {
                    lessons.push(Lesson { dialect: heard.dialect.to_owned(), listing: heard.payload.to_vec() });
                    if number >= first {
                        unsettled.push_back((number, Listed { market: market.to_owned(), page: Bytes::copy_from_slice(heard.payload) }));
                    }
                }
                holds.hear(number, &heard);
                reached = number;
            })?;
            if !more {
                break;
            }
        }
        let rows = frames.finish_with(&self.source, Arc::new(dialects.finish()), Arc::new(topics.finish()));
        self.position = position(self.position.identity, reached);
        let batches = vec![(FRAME.clone(), rows)];
        Ok(Some(Chunk { batches, position: self.position.clone(), hold: self.holds.event_time(), lessons, errors: Vec::new() }))
    }

    fn kept(&self) -> Option<watch::Receiver<u64>> {
        Some(self.kept.clone())
    }

    async fn settle(&mut self, position: &Position) -> Result<(), SourceError> {
        while let Some((_, listed)) = self.unsettled.pop_front_if(|(number, _)| *number <= position.offset) {
            // Where nobody listens any more, the run is over.
            let _ = self.listed.send(listed);
        }
        let settled = self.holds.first_frame().map_or(position.offset, |first| position.offset.min(first));
        // They only take room, and those that stay are removed by the next run.
        let unable = |error| tracing::warn!("settled frames are not removed: {error}");
        match self.cursor.forget_before(settled) {
            Ok(settled) if settled.is_empty() => {}
            Ok(settled) => drop(spawn_blocking(move || spool::remove(&settled).unwrap_or_else(unable))),
            Err(error) => unable(error),
        }
        Ok(())
    }
}

fn made(identity: u64) -> String {
    time::display(i64::try_from(identity).unwrap_or(i64::MAX))
}

/// A column of labels of which there are few. Its dictionary is kept from chunk to chunk while no new label comes.
#[derive(Debug)]
struct Labels {
    values: Arc<StringArray>,
    known: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, i32, ahash::RandomState>,
    keys: Vec<Option<i32>>,
}

impl Default for Labels {
    fn default() -> Self {
        Labels {
            values: Arc::new(StringArray::from_iter_values([""; 0])),
            known: Vec::new(),
            numbers: HashMap::default(),
            keys: Vec::new(),
        }
    }
}

impl Labels {
    /// Beyond this many, all are forgotten.
    const MOST: usize = 4_096;

    fn push(&mut self, label: Option<&str>) {
        let key = label.map(|label| {
            self.numbers.get(label).copied().unwrap_or_else(|| {
                let (label, number) = (Arc::<str>::from(label), self.known.len() as i32);
                self.known.push(label.clone());
                self.numbers.insert(label, number);
                number
            })
        });
        self.keys.push(key);
    }

    fn finish(&mut self) -> DictionaryArray<Int32Type> {
        if self.values.len() != self.known.len() {
            self.values = Arc::new(StringArray::from_iter_values(&self.known));
        }
        let keys = Int32Array::from(std::mem::take(&mut self.keys));
        let column = DictionaryArray::new(keys, self.values.clone());
        if self.known.len() > Self::MOST {
            *self = Labels::default();
        }
        column
    }
}
