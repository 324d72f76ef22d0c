//! What a file gives beside its rows: numbers, dead letters, damage.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use model::Account;
use model::dialect::Reject;
use model::kinds::{DeadLetter, DeadLetterBuilder};

use super::now;
use crate::SourceError;

/// A place between two rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Bytes of the file (rows, of Parquet) up to it.
    pub(super) offset: u64,
    /// The last row or frame before it, numbered over all files.
    pub(super) frame: u64,
}

/// An open file.
pub(super) trait Part: Send {
    /// Reads on, not beyond an offset at which rows of the file ended before: the next rows, perhaps none in a
    /// stretch that is unusable, or `None` at the end.
    fn next(&mut self, until: u64, gather: &mut Gather) -> Option<RecordBatch>;

    /// Bytes (rows, of Parquet) read so far.
    fn offset(&self) -> u64;
}

/// What is gathered for a chunk while a file is read.
pub(super) struct Gather {
    node: String,
    account: Arc<Account>,
    kind: String,
    file: String,
    frame: u64,
    letters: DeadLetterBuilder,
    pub(super) errors: Vec<SourceError>,
    /// The place after each row, where rows are to be handed over one by one.
    pub(super) marks: Option<Vec<Mark>>,
}

impl Gather {
    /// Rows and frames are numbered from the one after `frame`.
    pub(super) fn new(node: String, account: Arc<Account>, kind: &str, frame: u64, marked: bool) -> Self {
        let marks = marked.then(Vec::new);
        Gather {
            node,
            account,
            kind: kind.to_owned(),
            file: String::new(),
            frame,
            letters: DeadLetterBuilder::default(),
            errors: Vec::new(),
            marks,
        }
    }

    /// Another file is read from now on.
    pub(super) fn enter(&mut self, file: &Path) {
        self.file = file.display().to_string();
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// The number of the last row or frame, counted over all files.
    pub(super) fn frame(&self) -> u64 {
        self.frame
    }

    /// Numbers the next row or frame.
    #[inline]
    pub(super) fn number(&mut self) -> i64 {
        self.frame += 1;
        self.frame as i64
    }

    /// A row was taken; it ends at this offset.
    #[inline]
    pub(super) fn mark(&mut self, offset: u64) {
        if let Some(marks) = &mut self.marks {
            marks.push(Mark { offset, frame: self.frame });
        }
    }

    /// The row or frame numbered last cannot be used.
    pub(super) fn refuse(&mut self, why: &Reject, payload: &[u8]) {
        self.account.reject(why.reason, 1);
        self.letters.push(DeadLetter {
            node: &self.node,
            reason: why.reason,
            detail: &format!("{}, in {}", why.detail, self.file),
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

    /// The file cannot be read beyond an offset.
    pub(super) fn damage(&mut self, offset: u64, what: impl ToString) {
        self.errors.push(SourceError {
            transient: false,
            place: format!("{}, byte {offset} of its contents", self.file),
            what: what.to_string(),
            remedy: "what stands before was used and the rest of the file was not; get a whole copy if the rest matters".into(),
        });
    }

    /// The dead letters gathered.
    pub(super) fn letters(&mut self) -> Option<RecordBatch> {
        if self.letters.is_empty() { None } else { Some(self.letters.finish()) }
    }
}
