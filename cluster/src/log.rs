//! What the processes of a pipeline log: in a file of bounded size, its last lines in memory.
//!
//! A file that has reached its size becomes `NAME.log.1`, in place of the one before; so a pipeline's log takes at most
//! twice that size. Lines in memory are numbered from 1, so that a reader can ask for those after the last it has.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of a file.
const FILE_BYTES: u64 = 8 << 20;
/// Lines in memory.
const LINES: usize = 1_000;
/// Bytes of a line that are kept; the rest is cut.
const LINE_BYTES: usize = 8 << 10;

/// The log of a pipeline.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    lines: VecDeque<String>,
    /// The number of the last line.
    last: u64,
}

/// Some lines of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lines {
    /// The lines, oldest first.
    pub lines: Vec<String>,
    /// The number of the last line that there is: what to ask for the lines after.
    pub last: u64,
}

impl Log {
    /// Opens the log of a pipeline in a folder, which is made if it does not exist, and reads its last lines.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(folder: &Path, pipeline: &str) -> io::Result<Log> {
        Log::with_limit(folder, pipeline, FILE_BYTES)
    }

    fn with_limit(folder: &Path, pipeline: &str, limit: u64) -> io::Result<Log> {
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("{pipeline}.log"));
        let mut file = appended(&path)?;
        let size = file.metadata()?.len();
        let tail = size.min((LINES * 200) as u64);
        file.seek(SeekFrom::End(-(tail as i64)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        // The first one may have lost its beginning.
        let mut lines: VecDeque<String> = text.lines().skip(usize::from(tail < size)).map(str::to_owned).collect();
        lines.drain(..lines.len().saturating_sub(LINES));
        let last = lines.len() as u64;
        Ok(Log { path, file, size, limit, lines, last })
    }

    /// Adds a line. What cannot be written is still kept in memory.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn push(&mut self, line: &str) -> io::Result<()> {
        let end = (0..=line.len().min(LINE_BYTES)).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
        let line = &line[..end];
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
        self.last += 1;
        let bytes = format!("{line}\n");
        if self.size > 0 && self.size + bytes.len() as u64 > self.limit {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = appended(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(bytes.as_bytes())?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// The last lines, at most `most` of them, and of those only the ones after number `after`.
    pub fn lines(&self, most: usize, after: u64) -> Lines {
        // A number beyond the last is of the log as it was before the node was started again.
        let fresh = if after > self.last { self.last } else { self.last - after };
        let count = self.lines.len().min(most).min(usize::try_from(fresh).unwrap_or(usize::MAX));
        Lines { lines: self.lines.iter().skip(self.lines.len() - count).cloned().collect(), last: self.last }
    }

    /// Removes the files of a pipeline's log.
    ///
    /// # Errors
    /// One is there and cannot be removed.
    pub fn remove(folder: &Path, pipeline: &str) -> io::Result<()> {
        for name in [format!("{pipeline}.log"), format!("{pipeline}.log.1")] {
            match fs::remove_file(folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn appended(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_and_lines_are_numbered() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::with_limit(folder.path(), "p", 100).unwrap();
        for n in 1..=50 {
            log.push(&format!("line number {n}")).unwrap();
        }
        let size = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
        assert!((1..=100).contains(&size("p.log")) && (1..=100).contains(&size("p.log.1")));
        assert_eq!(log.lines(2, 0), Lines { lines: vec!["line number 49".into(), "line number 50".into()], last: 50 });
        assert_eq!(log.lines(10, 49).lines, ["line number 50"]);
        assert_eq!(log.lines(10, 50).lines, [""; 0]);
        assert_eq!(log.lines(10, 70).lines.len(), 10, "it is a new log");

        let again = Log::with_limit(folder.path(), "p", 100).unwrap();
        assert_eq!(again.lines(1, 0).lines, ["line number 50"]);
        Log::remove(folder.path(), "p").unwrap();
        Log::remove(folder.path(), "p").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), "p").unwrap();
        log.push(&"€".repeat(LINE_BYTES)).unwrap();
        assert_eq!(log.lines(1, 0).lines[0].len(), LINE_BYTES / 3 * 3);
    }
}
