//! Captured frames as chunks.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use model::kinds::FRAME;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::merge::{Merge, numbers};
use crate::{Chunk, Position, Reader, SourceError, listing};

/// Batches that are read ahead.
const AHEAD: usize = 4;

/// An open capture.
pub(super) struct CaptureReader {
    incoming: mpsc::Receiver<RecordBatch>,
    /// Ends when everything was sent, or with the error.
    task: JoinHandle<Result<(), SourceError>>,
    ended: bool,
    /// What came and was not handed over.
    waiting: Option<RecordBatch>,
    position: Position,
    /// The first and the last number.
    bounds: Option<(i64, i64)>,
}

impl CaptureReader {
    /// Reads behind a position.
    pub(super) fn new(position: Position, bounds: Option<(i64, i64)>, mut merge: Merge) -> Self {
        let (sender, incoming) = mpsc::channel(AHEAD);
        let task = tokio::spawn(async move {
            while let Some(frames) = merge.next().await? {
                if sender.send(frames).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        CaptureReader { incoming, task, ended: false, waiting: None, position, bounds }
    }

    /// Waits until something is there; `false` at the end. Cancel-safe: what came is in `waiting` before this returns.
    async fn wait(&mut self) -> Result<bool, SourceError> {
        if self.waiting.is_none() && !self.ended {
            self.waiting = self.incoming.recv().await;
            if self.waiting.is_none() {
                let result = (&mut self.task).await;
                self.ended = true;
                result.map_err(|panicked| SourceError {
                    transient: false,
                    place: self.position.part.clone(),
                    what: panicked.to_string(),
                    remedy: "this is a bug: please report it with the pipeline file".into(),
                })??;
            }
        }
        Ok(self.waiting.is_some())
    }

    fn unlike(&self, until: &Position) -> SourceError {
        SourceError {
            transient: false,
            place: self.position.part.clone(),
            what: format!("frame {} was handed over and is not there any more", until.frame),
            remedy: "restore the table as it was, give `from` and `to` what they were, or begin anew with `--fresh`".into(),
        }
    }
}

#[async_trait]
impl Reader for CaptureReader {
    async fn next(&mut self, until: Option<&Position>) -> Result<Option<Chunk>, SourceError> {
        if until.is_some_and(|until| until.offset <= self.position.offset) {
            // Everything up to there was handed over.
            return Ok(Some(Chunk { position: self.position.clone(), ..Chunk::default() }));
        }
        if !self.wait().await? {
            return match until {
                Some(until) => Err(self.unlike(until)),
                None => Ok(None),
            };
        }
        let Some(rows) = self.waiting.take() else { return Ok(None) };
        let end = until.map_or(i64::MAX, |until| until.frame as i64);
        let count = numbers(&rows).partition_point(|number| *number <= end);
        if let Some(until) = until.filter(|_| count == 0) {
            return Err(self.unlike(until));
        }
        let (count, lesson) = match listing::first(&rows.slice(0, count)) {
            Some((row, lesson)) => (row + 1, Some(lesson)),
            None => (count, None),
        };
        if count < rows.num_rows() {
            self.waiting = Some(rows.slice(count, rows.num_rows() - count));
        }
        let rows = rows.slice(0, count);
        let last = numbers(&rows)[count - 1].cast_unsigned();
        (self.position.offset, self.position.frame) = (last, last);
        Ok(Some(Chunk {
            batches: vec![(FRAME.clone(), rows)],
            position: self.position.clone(),
            lessons: lesson.into_iter().collect(),
            ..Chunk::default()
        }))
    }

    fn share(&self) -> Option<f64> {
        let (first, last) = self.bounds?;
        let done = self.position.offset as f64 - first as f64 + 1.0;
        Some((done / (last as f64 - first as f64 + 1.0)).clamp(0.0, 1.0))
    }
}

impl Drop for CaptureReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}
