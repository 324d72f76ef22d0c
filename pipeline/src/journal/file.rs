//! A journal in a file of the data folder.
//!
//! Whoever runs the pipeline holds a lock beside it, so that one process writes. Lines are appended; a whole new journal
//! is written to a file beside it, which then takes its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use model::crash;
use storage::place::is_full;

use super::{JournalError, Log};

/// The name of the journal in its pipeline's folder.
pub const FILE: &str = "journal.ndjson";

/// See the [module](self).
#[derive(Debug)]
pub struct FileLog {
    path: PathBuf,
    /// Open to append to, once it was written as a whole.
    file: Option<File>,
    /// How long the whole lines are. What lies behind them is left of an attempt that failed.
    length: u64,
}

impl FileLog {
    /// The journal in a pipeline's folder with its text, if it has one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(folder: &Path) -> Result<(FileLog, Option<Vec<u8>>), JournalError> {
        let log = FileLog { path: folder.join(FILE), file: None, length: 0 };
        match fs::read(&log.path) {
            Ok(text) => Ok((log, Some(text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((log, None)),
            Err(error) => Err(log.error(&error)),
        }
    }

    /// Where it lies.
    pub fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn error(&self, error: &io::Error) -> JournalError {
        JournalError {
            transient: is_full(error),
            place: self.place(),
            what: format!("the journal cannot be written or read: {error}"),
            remedy: "free the disk or make the data folder writable; nothing is committed that it does not tell".into(),
        }
    }
}

#[async_trait]
impl Log for FileLog {
    async fn append(&mut self, lines: &[u8], durable: bool) -> Result<(), JournalError> {
        let file = self.file.as_ref().expect("a journal is written as a whole before lines are added");
        let added = append(file, self.length, lines);
        self.length = added.map_err(|error| self.error(&error))?;
        if durable {
            // What was not written to the disk then never is.
            file.sync_data().map_err(|error| JournalError { transient: false, ..self.error(&error) })?;
        }
        Ok(())
    }

    async fn replace(&mut self, lines: &[u8]) -> Result<(), JournalError> {
        self.file = Some(replace(&self.path, lines).map_err(|error| self.error(&error))?);
        self.length = lines.len() as u64;
        Ok(())
    }
}

/// Appends lines behind the whole ones, and returns how long those are now.
fn append(mut file: &File, length: u64, lines: &[u8]) -> io::Result<u64> {
    // A torn line may only be the last.
    if file.metadata()?.len() > length {
        file.set_len(length)?;
    }
    file.write_all(lines)?;
    Ok(length + lines.len() as u64)
}

/// Replaces a file by these lines, or leaves it as it was, and opens it to append to it.
fn replace(path: &Path, lines: &[u8]) -> io::Result<File> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let beside = path.with_extension("ndjson.partial");
    let mut file = File::create(&beside)?;
    file.write_all(lines)?;
    file.sync_all()?;
    crash::point("journal rewritten");
    fs::rename(&beside, path)?;
    // The name is in the folder.
    File::open(folder)?.sync_all()?;
    OpenOptions::new().append(true).open(path)
}
