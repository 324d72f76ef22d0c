//! A file that one process holds at a time.
//!
//! The lock is the system's: it ends with the process that holds it, however that ends, and is never stale.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a lock that is held is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// A lock that this process holds until this is dropped.
#[derive(Debug)]
#[must_use = "the lock is let go when this is dropped"]
pub struct Lock(#[expect(dead_code, reason = "holds the lock")] File);

/// Why a lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("process {holder} holds {}", path.display())]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// The process that holds it, or `another one`.
        holder: String,
    },
    /// The file cannot be made or written.
    #[error("{}: {error}; make the folder writable or name another one with `--data`", path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Lock {
    /// Takes the lock in a file, which is made if it does not exist; waits at most so long for another process to let it go.
    ///
    /// # Errors
    /// It is held all that time, or the file cannot be used.
    pub fn take(path: &Path, patience: Duration) -> Result<Lock, LockError> {
        let failed = |error| LockError::Io { path: path.to_owned(), error };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(failed)?;
        let asked = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if asked.elapsed() >= patience => {
                    let mut holder = String::new();
                    // Only for the message.
                    let _ = file.read_to_string(&mut holder);
                    let holder = if holder.trim().is_empty() { "another one".to_owned() } else { holder.trim().to_owned() };
                    return Err(LockError::Held { path: path.to_owned(), holder });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(RETRY),
            }
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(failed)?;
        Ok(Lock(file))
    }

    /// The file whose lock a process holds while it runs a pipeline over a data folder. It lies beside the pipeline's
    /// folder, not in it, so that it stays one file when the folder is removed.
    pub fn of_pipeline(data: &Path, pipeline: &str) -> PathBuf {
        data.join("pipelines").join(format!("{pipeline}.lock"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_the_other_is_told_who() {
        let folder = tempfile::tempdir().unwrap();
        let path = Lock::of_pipeline(folder.path(), "p");
        let held = Lock::take(&path, Duration::ZERO).unwrap();
        let error = Lock::take(&path, Duration::ZERO).unwrap_err().to_string();
        assert_eq!(error, format!("process {} holds {}", std::process::id(), path.display()));
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || Lock::take(&path, Duration::from_secs(60)).map(drop)
        });
        drop(held);
        waiting.join().unwrap().unwrap();
    }
}
