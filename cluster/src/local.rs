//! The store of a single node: a file per key in a folder.
//!
//! A write goes to a temporary file, is flushed to the disk and then renamed over the key's file, and the folder is
//! flushed: at every moment a key's file is complete, old or new. Writers take turns by a lock on the file `lock`, so
//! comparing and setting are one step between processes, too. The counter of revisions is on the disk before the
//! value that bears it, so that no revision is given twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::store::{Entry, Revision, Store, StoreError, check_key};

/// A store in a folder. Several may be open on one folder.
#[derive(Clone, Debug)]
pub struct Local(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    keys: PathBuf,
}

impl Local {
    /// Opens the store in a folder, which is made if it does not exist. Only its owner can read what is in it.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn open(path: &Path) -> Result<Local, StoreError> {
        let folder = Folder { path: path.to_owned(), keys: path.join("keys") };
        fs::create_dir_all(&folder.keys).map_err(|e| folder.unavailable(&e))?;
        Ok(Local(Arc::new(folder)))
    }

    /// Runs something that waits for the disk where that holds up nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folder = self.0.clone();
        let place = folder.path.display().to_string();
        tokio::task::spawn_blocking(move || act(&folder)).await.unwrap_or_else(|e| {
            Err(StoreError::Unavailable { place, reason: e.to_string(), remedy: "this is a bug, please report it".into() })
        })
    }

    async fn write(&self, key: &str, value: Option<&[u8]>, expected: Option<Revision>) -> Result<Revision, StoreError> {
        check_key(key)?;
        let (key, value) = (key.to_owned(), value.map(<[u8]>::to_owned));
        self.blocking(move |folder| folder.write(&key, value.as_deref(), expected)).await
    }
}

impl Folder {
    fn unavailable(&self, error: &io::Error) -> StoreError {
        let place = self.path.display().to_string();
        let remedy = "see that the disk has room and that the folder is yours, or name another one with `--data`";
        StoreError::Unavailable { place, reason: error.to_string(), remedy: remedy.into() }
    }

    fn read(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let path = self.keys.join(key);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unavailable(&error)),
        };
        let damaged = || StoreError::Unavailable {
            place: path.display().to_string(),
            reason: "the file does not begin with a revision".into(),
            remedy: "restore it from a backup, or remove it and submit the pipeline again".into(),
        };
        let line = bytes.iter().position(|&b| b == b'\n').ok_or_else(damaged)?;
        let revision = std::str::from_utf8(&bytes[..line]).ok().and_then(|text| text.parse().ok()).ok_or_else(damaged)?;
        Ok(Some(Entry { value: bytes[line + 1..].to_owned(), revision }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, Entry)>, StoreError> {
        let mut keys = Vec::new();
        for file in fs::read_dir(&self.keys).map_err(|e| self.unavailable(&e))? {
            let name = file.map_err(|e| self.unavailable(&e))?.file_name();
            keys.extend(name.into_string().ok().filter(|name| name.starts_with(prefix) && check_key(name).is_ok()));
        }
        keys.sort_unstable();
        let entries = keys.into_iter().map(|key| Ok(self.read(&key)?.map(|entry| (key, entry))));
        // One that is gone was deleted meanwhile.
        entries.filter_map(Result::transpose).collect()
    }

    fn write(&self, key: &str, value: Option<&[u8]>, expected: Option<Revision>) -> Result<Revision, StoreError> {
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(self.path.join("lock"));
        let lock = lock.and_then(|lock| lock.lock().map(|()| lock)).map_err(|e| self.unavailable(&e))?;
        if self.read(key)?.map(|entry| entry.revision) != expected {
            return Err(StoreError::Conflict { key: key.to_owned() });
        }
        let change = || {
            let revision = self.next_revision()?;
            match value {
                Some(value) => replace(&self.keys, key, &[format!("{revision}\n").as_bytes(), value].concat())?,
                None => {
                    fs::remove_file(self.keys.join(key))?;
                    flush(&self.keys)?;
                }
            }
            Ok(revision)
        };
        let result = change().map_err(|e| self.unavailable(&e));
        drop(lock);
        result
    }

    fn next_revision(&self) -> io::Result<Revision> {
        let last = match fs::read_to_string(self.path.join("revision")) {
            Ok(text) => text
                .trim()
                .parse::<Revision>()
                .map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("{} is not a number", self.path.join("revision").display())))?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        replace(&self.path, "revision", format!("{}\n", last + 1).as_bytes())?;
        Ok(last + 1)
    }
}

/// Replaces a file of a folder durably and at once. What it held before is there until all of the new content is.
///
/// # Errors
/// The system refuses.
fn replace(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    // No key begins with a dot.
    let temporary = folder.join(format!(".{name}.new"));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(name))?;
    flush(folder)
}

/// Makes durable which files a folder has.
fn flush(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[async_trait]
impl Store for Local {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking(move |folder| folder.read(&key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Entry)>, StoreError> {
        let prefix = prefix.to_owned();
        self.blocking(move |folder| folder.list(&prefix)).await
    }

    async fn create(&self, key: &str, value: &[u8]) -> Result<Revision, StoreError> {
        self.write(key, Some(value), None).await
    }

    async fn update(&self, key: &str, value: &[u8], expected: Revision) -> Result<Revision, StoreError> {
        self.write(key, Some(value), Some(expected)).await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<(), StoreError> {
        self.write(key, None, Some(expected)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_expect_the_same_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let threads: Vec<_> = (0..8)
            .map(|n: u8| {
                let path = folder.path().to_owned();
                std::thread::spawn(move || {
                    let store = Local::open(&path).unwrap();
                    store.0.write("leader", Some(&[n]), None).is_ok()
                })
            })
            .collect();
        assert_eq!(threads.into_iter().map(|t| t.join().unwrap()).filter(|won| *won).count(), 1);
    }

    #[test]
    fn a_half_written_file_is_no_key_and_a_damaged_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = Local::open(folder.path()).unwrap();
        store.0.write("a", Some(b"1"), None).unwrap();
        // What a kill between writing and renaming leaves.
        fs::write(folder.path().join("keys/.a.new"), "garb").unwrap();
        assert_eq!(store.0.list("").unwrap(), [("a".to_owned(), Entry { value: b"1".to_vec(), revision: 1 })]);
        assert_eq!(store.0.write("a", Some(b"2"), Some(1)).unwrap(), 2);

        fs::write(folder.path().join("keys/b"), "garbage").unwrap();
        let error = store.0.read("b").unwrap_err().to_string();
        assert!(error.contains("keys/b") && error.contains("restore it"), "{error}");
    }

    #[test]
    fn only_the_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let store = Local::open(folder.path()).unwrap();
        store.0.write("a", Some(b"secret"), None).unwrap();
        assert_eq!(fs::metadata(folder.path().join("keys/a")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
