//! Files one after another as chunks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec::IntoIter;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use model::Kind;
use model::kinds::DEAD_LETTER;

use super::csv::CsvRows;
use super::frames::{self, FrameLines, Labels};
use super::gather::{Gather, Mark, Part};
use super::lines::Lines;
use super::ndjson::JsonLines;
use super::parquet::ParquetRows;
use super::{Format, ReceiveTime, input};
use crate::{Chunk, OpenSource, Position, Reader, SourceError};

/// What the files hold.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    /// Frames of a venue, one a line.
    Frames { dialect: &'static str, labels: Labels, receive_time: ReceiveTime },
    /// Normalised records.
    Records { format: Format, kind: Arc<Kind> },
}

impl Layout {
    /// Looks whether a file can be read and has the columns that it should have.
    pub(super) fn probe(&self, path: &Path) -> Result<(), SourceError> {
        std::fs::File::open(path).map_err(|e| unreadable(path, e))?;
        match self {
            Layout::Records { format: Format::Csv | Format::Parquet, .. } => self.open(path, 0, &Arc::default()).map(drop),
            _ => Ok(()),
        }
    }

    /// Opens a file behind an offset.
    fn open(&self, path: &Path, from: u64, read: &Arc<AtomicU64>) -> Result<Box<dyn Part>, SourceError> {
        let plain = |from| input::open(path, from, read).map_err(|e| unreadable(path, e));
        Ok(match self {
            Layout::Frames { labels, receive_time, .. } => {
                let lines = Lines::in_blocks_of(frames::BLOCK, plain(from)?).behind(from);
                Box::new(FrameLines::new(lines, labels.clone(), *receive_time))
            }
            Layout::Records { format: Format::Ndjson, kind } => Box::new(JsonLines::new(Lines::new(plain(from)?).behind(from), kind)),
            // The header stands at the beginning.
            Layout::Records { format: Format::Csv, kind } => Box::new(CsvRows::open(path, plain(0)?, kind, from)?),
            Layout::Records { format: Format::Parquet, kind } => Box::new(ParquetRows::open(path, kind, from)?),
        })
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> SourceError {
    let remedy = match error.kind() {
        std::io::ErrorKind::InvalidData => "get a whole copy of the file, or give it the name that its contents have",
        std::io::ErrorKind::UnexpectedEof => "bring the whole file back, or begin anew with `--fresh`",
        std::io::ErrorKind::PermissionDenied => "let the user that runs the pipeline read the file",
        _ => "check that the file exists and can be read",
    };
    SourceError { transient: false, place: path.display().to_string(), what: error.to_string(), remedy: remedy.into() }
}

/// The open source.
pub(super) struct FileReader {
    /// The files to come, with their sizes.
    files: IntoIter<(u64, PathBuf)>,
    layout: Layout,
    part: Option<Box<dyn Part>>,
    gather: Gather,
    /// Of the file at hand.
    identity: u64,
    /// Bytes of all files.
    total: u64,
    /// Bytes of the files before the one at hand, and of that one.
    before: u64,
    size: u64,
    /// Bytes read of the file at hand.
    read: Arc<AtomicU64>,
}

impl FileReader {
    /// Opens the files behind a position of one of them.
    ///
    /// # Errors
    /// The file of the position is gone, another one, or shorter.
    pub(super) fn open(cx: OpenSource, files: Vec<PathBuf>, layout: Layout, marked: bool) -> Result<Self, SourceError> {
        let frame = cx.from.as_ref().map_or(0, |from| from.frame);
        let gather = Gather::new(cx.node, cx.account, &layout.kind().name, frame, marked);
        // A size that is not known any more makes the share of the file nothing.
        let sized = |file: PathBuf| (file.metadata().map_or(0, |m| m.len()), file);
        let files: Vec<(u64, PathBuf)> = files.into_iter().map(sized).collect();
        let total = files.iter().map(|(size, _)| size).sum();
        let files = files.into_iter();
        let mut reader = FileReader { files, layout, part: None, gather, identity: 0, total, before: 0, size: 0, read: Arc::default() };
        if let Some(from) = cx.from {
            reader.go_on(&from)?;
        }
        Ok(reader)
    }

    /// Opens the file of a position behind it.
    fn go_on(&mut self, from: &Position) -> Result<(), SourceError> {
        let failed = |what: &str| SourceError {
            transient: false,
            place: from.part.clone(),
            what: format!("{what}, and reading is to go on at byte {} of its contents", from.offset),
            remedy: "bring back the file that was read before, or begin anew with `--fresh`".into(),
        };
        loop {
            let path = self.enter().ok_or_else(|| failed("is not among the files any more"))?;
            if self.gather.file() != from.part {
                continue;
            }
            if !input::is(&path, from.identity).map_err(|e| unreadable(&path, e))? {
                return Err(failed("is another file than before: it begins with other bytes"));
            }
            let part = self.layout.open(&path, from.offset, &self.read)?;
            if part.offset() < from.offset {
                return Err(failed("is shorter than before"));
            }
            self.identity = from.identity;
            self.part = Some(part);
            return Ok(());
        }
    }

    /// The path of the next file, which is the one at hand from now on.
    fn enter(&mut self) -> Option<PathBuf> {
        let (size, path) = self.files.next()?;
        self.before += std::mem::replace(&mut self.size, size);
        self.gather.enter(&path);
        self.read.store(0, Ordering::Relaxed);
        Some(path)
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The next chunk that has anything in it, with the places between its rows if they are wanted. Where `until` lies
    /// in the file at hand, reading ends there.
    pub(super) fn read(&mut self, until: Option<&Position>) -> Option<(Chunk, Vec<Mark>)> {
        loop {
            let Some(part) = &mut self.part else {
                let path = self.enter()?;
                let opened = input::identity(&path).map_err(|e| unreadable(&path, e)).and_then(|identity| {
                    self.identity = identity;
                    self.layout.open(&path, 0, &self.read)
                });
                match opened {
                    Ok(part) => self.part = Some(part),
                    // The file was readable when the source was opened: what is lost is this file alone.
                    Err(error) => {
                        self.gather.errors.push(error);
                        return Some(self.chunk(None, 0));
                    }
                }
                continue;
            };
            let end = until.filter(|until| until.part == self.gather.file()).map_or(u64::MAX, |until| until.offset);
            if part.offset() >= end {
                return Some(self.chunk(None, end));
            }
            let rows = part.next(end, &mut self.gather);
            let offset = part.offset();
            if rows.is_none() {
                self.part = None;
            }
            let (chunk, marks) = self.chunk(rows, offset);
            if !chunk.batches.is_empty() || !chunk.errors.is_empty() {
                return Some((chunk, marks));
            }
        }
    }

    fn chunk(&mut self, rows: Option<RecordBatch>, offset: u64) -> (Chunk, Vec<Mark>) {
        let mut batches = Vec::new();
        batches.extend(rows.filter(|r| r.num_rows() > 0).map(|rows| (self.layout.kind().clone(), rows)));
        batches.extend(self.gather.letters().map(|letters| (DEAD_LETTER.clone(), letters)));
        let position = Position { part: self.gather.file().to_owned(), offset, frame: self.gather.frame(), identity: self.identity };
        let errors = std::mem::take(&mut self.gather.errors);
        let marks = self.gather.marks.as_mut().map(std::mem::take).unwrap_or_default();
        (Chunk { batches, position, errors, ..Chunk::default() }, marks)
    }
}

#[async_trait]
impl Reader for FileReader {
    async fn next(&mut self, until: Option<&Position>) -> Result<Option<Chunk>, SourceError> {
        Ok(self.read(until).map(|(chunk, _)| chunk))
    }

    fn share(&self) -> Option<f64> {
        let read = self.before + self.read.load(Ordering::Relaxed);
        Some((read as f64 / self.total.max(1) as f64).min(1.0))
    }
}
