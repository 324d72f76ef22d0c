//! A journal in a bucket: numbered segments, each of them created only if there is none of its number.
//!
//! A process that opens the journal reads it and then creates a *claim*, a segment that says nothing. The process before it
//! would give its next segment the same number, finds it taken, and has lost the journal for good: whoever wrote the
//! claim has read everything that it wrote. Claims stay when other segments go, since that process may have been stopped for
//! hours; the last [`CLAIMS`] are kept.
//!
//! The request that creates a segment may be answered after it was repeated, and then with the news that there is one
//! already. So every segment names its writer, and one that holds what this process wanted to write is its own. A request of
//! which nobody knows what has become is repeated by the journal: whatever this process wrote under its number next would find
//! it taken, by itself.

use async_trait::async_trait;
use config::settings::Settings;
use futures::TryStreamExt;
use model::crash;
use object_store::path::Path;
use object_store::{Error as ObjectError, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};
use storage::place::is_refusal;
use storage::{Place, StorageError};

use super::{JournalError, Log};

/// Claims that are kept: as many processes can have come and gone while one was stopped that still believes that the
/// journal is its own.
const CLAIMS: usize = 1_000;
/// What the names of segments end with, behind the number.
const SEGMENT: &str = ".ndjson";

/// The first line of a segment.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    segment: Role,
    /// No other process has the same.
    writer: String,
    /// The numbers of the claims that are kept, in a segment that replaces all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    claims: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    /// It takes the journal over, and says nothing.
    Claim,
    /// Its lines replace those of all segments before it.
    Whole,
    /// Its lines go on from those of the segments before it.
    More,
}

/// See the [module](self).
#[derive(Debug)]
pub struct ObjectLog {
    place: Place,
    folder: String,
    writer: String,
    /// The number of the last segment, or 0.
    last: u64,
    claims: Vec<u64>,
    /// Lines that go with the next segment.
    noted: Vec<u8>,
}

impl ObjectLog {
    fn of(address: &str, settings: &Settings, pipeline: &str) -> Result<ObjectLog, JournalError> {
        let place = Place::open(address, &settings.cold).map_err(JournalError::from)?;
        let writer = uuid::Uuid::new_v4().to_string();
        Ok(ObjectLog { place, folder: format!("pipelines/{pipeline}/journal"), writer, last: 0, claims: Vec::new(), noted: Vec::new() })
    }

    /// Takes over the journal of a pipeline in a bucket, and returns it with its text, if it has one.
    ///
    /// # Errors
    /// The bucket cannot be reached or refuses us, or a segment is none.
    pub async fn open(address: &str, settings: &Settings, pipeline: &str) -> Result<(ObjectLog, Option<Vec<u8>>), JournalError> {
        let mut log = ObjectLog::of(address, settings, pipeline)?;
        loop {
            // Where the process before this one still writes, what was read may not be all, or may be gone.
            let Some(text) = log.read().await? else { continue };
            if log.create(Role::Claim, &[]).await? {
                log.claims.push(log.last);
                return Ok((log, text));
            }
        }
    }

    /// Removes the journal of a pipeline.
    ///
    /// # Errors
    /// The bucket cannot be reached or refuses us.
    pub async fn clear(address: &str, settings: &Settings, pipeline: &str) -> Result<(), JournalError> {
        let log = ObjectLog::of(address, settings, pipeline)?;
        for number in log.numbers().await? {
            log.remove(number).await?;
        }
        Ok(())
    }

    /// Where it lies.
    pub fn place(&self) -> String {
        self.place.url(&self.folder).to_string()
    }

    fn path(&self, number: u64) -> Path {
        self.place.path(&format!("{}/{number:020}{SEGMENT}", self.folder))
    }

    fn error(&self, error: &ObjectError) -> JournalError {
        self.place.error(&self.folder, error).into()
    }

    /// The numbers of all segments, ascending.
    async fn numbers(&self) -> Result<Vec<u64>, JournalError> {
        let listing = self.place.store().list(Some(&self.place.path(&self.folder))).try_collect::<Vec<_>>().await;
        let objects = listing.map_err(|error| self.error(&error))?;
        let number = |path: &Path| path.filename()?.strip_suffix(SEGMENT)?.parse().ok();
        let mut numbers: Vec<u64> = objects.iter().filter_map(|object| number(&object.location)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Reads the newest whole segment and all behind it. `None`: a segment went meanwhile. `Some(None)`: there is no journal.
    async fn read(&mut self) -> Result<Option<Option<Vec<u8>>>, JournalError> {
        let numbers = self.numbers().await?;
        self.last = numbers.last().copied().unwrap_or(0);
        self.claims.clear();
        let mut texts: Vec<Vec<u8>> = Vec::new();
        for number in numbers.into_iter().rev() {
            let Some(bytes) = self.get(number).await? else { return Ok(None) };
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            let head: Head = serde_json::from_slice(&bytes[..end]).map_err(|error| JournalError {
                transient: false,
                place: format!("{}{number:020}{SEGMENT}, line 1", self.place()),
                what: format!("the line is damaged: {error}"),
                remedy: "restore the object from a copy; or remove the folder of the journal and begin anew with `--fresh`".into(),
            })?;
            match head.segment {
                Role::Claim => self.claims.push(number),
                Role::More => texts.push(bytes[end..].to_vec()),
                Role::Whole => {
                    texts.push(bytes[end..].to_vec());
                    self.claims.extend(head.claims.into_iter().rev());
                    break;
                }
            }
        }
        self.claims.reverse();
        texts.reverse();
        Ok(Some((!texts.is_empty()).then(|| texts.concat())))
    }

    async fn get(&self, number: u64) -> Result<Option<Vec<u8>>, JournalError> {
        let read = async { self.place.store().get(&self.path(number)).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(ObjectError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error(&error)),
        }
    }

    async fn remove(&self, number: u64) -> Result<(), JournalError> {
        match self.place.store().delete(&self.path(number)).await {
            Ok(()) | Err(ObjectError::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(&error)),
        }
    }

    /// Creates the next segment. Returns false if another process has.
    async fn create(&mut self, segment: Role, lines: &[u8]) -> Result<bool, JournalError> {
        let claims = if segment == Role::Whole { self.claims.clone() } else { Vec::new() };
        let mut bytes = serde_json::to_vec(&Head { segment, writer: self.writer.clone(), claims }).expect("a head is JSON");
        bytes.push(b'\n');
        bytes.extend_from_slice(lines);
        let number = self.last + 1;
        match self.place.store().put_opts(&self.path(number), PutPayload::from(bytes.clone()), PutMode::Create.into()).await {
            Ok(_) => {}
            Err(ObjectError::AlreadyExists { .. } | ObjectError::Precondition { .. }) => {
                if self.get(number).await? != Some(bytes) {
                    return Ok(false);
                }
            }
            // A bucket that let us in until now and refuses us has forgotten who may write, and will be told.
            Err(error) => {
                let told = self.error(&error);
                return Err(JournalError { transient: told.transient || is_refusal(&error), ..told });
            }
        }
        self.last = number;
        Ok(true)
    }

    async fn write(&mut self, segment: Role, lines: &[u8]) -> Result<(), JournalError> {
        if self.create(segment, lines).await? {
            return Ok(());
        }
        Err(JournalError {
            transient: false,
            place: self.place(),
            what: "another process has taken the pipeline over, and this one commits nothing any more".into(),
            remedy: "nothing is lost: the other one goes on from the last commit".into(),
        })
    }
}

#[async_trait]
impl Log for ObjectLog {
    async fn append(&mut self, lines: &[u8], durable: bool) -> Result<(), JournalError> {
        if !durable {
            self.noted.extend_from_slice(lines);
            return Ok(());
        }
        let all = [self.noted.as_slice(), lines].concat();
        if !all.is_empty() {
            self.write(Role::More, &all).await?;
            self.noted.clear();
        }
        Ok(())
    }

    async fn replace(&mut self, lines: &[u8]) -> Result<(), JournalError> {
        self.claims.drain(..self.claims.len().saturating_sub(CLAIMS));
        self.write(Role::Whole, lines).await?;
        // They are among the lines of the whole.
        self.noted.clear();
        crash::point("journal rewritten");
        for number in self.numbers().await?.into_iter().filter(|number| *number < self.last && !self.claims.contains(number)) {
            self.remove(number).await?;
        }
        Ok(())
    }
}

impl From<StorageError> for JournalError {
    fn from(error: StorageError) -> Self {
        JournalError { transient: error.transient, place: error.place, what: error.what, remedy: error.remedy }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Processes that believe that the journal is theirs.
    const PROCESSES: usize = 3;

    #[derive(Clone, Debug)]
    enum Op {
        /// A process opens the journal, perhaps again.
        Open(usize),
        /// It adds a line.
        Append(usize, bool),
        /// It writes it anew.
        Replace(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            2 => (0..PROCESSES).prop_map(Op::Open),
            6 => (0..PROCESSES, any::<bool>()).prop_map(|(process, durable)| Op::Append(process, durable)),
            1 => (0..PROCESSES).prop_map(Op::Replace),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A folder does what a bucket does: it creates what is not there.
        #[test]
        fn the_last_process_to_open_it_writes_and_no_other_one(ops in prop::collection::vec(op(), 0..40)) {
            let folder = tempfile::tempdir().unwrap();
            let (address, settings) = (folder.path().display().to_string(), Settings::default());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut logs: Vec<Option<ObjectLog>> = (0..PROCESSES).map(|_| None).collect();
                let mut owner = None;
                // What is durable, and what its owner has noted.
                let (mut text, mut noted) = (None::<String>, String::new());
                for (number, op) in ops.into_iter().enumerate() {
                    let line = format!("{number}\n");
                    match op {
                        Op::Open(process) => {
                            let (log, read) = ObjectLog::open(&address, &settings, "p").await.unwrap();
                            prop_assert_eq!(read.map(|read| String::from_utf8(read).unwrap()), text.clone());
                            (logs[process], owner) = (Some(log), Some(process));
                            noted.clear();
                        }
                        Op::Append(process, durable) => {
                            let Some(log) = &mut logs[process] else { continue };
                            let result = log.append(line.as_bytes(), durable).await;
                            prop_assert!(result.is_ok() == (owner == Some(process) || !durable), "{:?}", result);
                            if owner == Some(process) {
                                noted.push_str(&line);
                            }
                            if durable && owner == Some(process) {
                                text.get_or_insert_default().push_str(&std::mem::take(&mut noted));
                            }
                        }
                        Op::Replace(process) => {
                            let Some(log) = &mut logs[process] else { continue };
                            let result = log.replace(line.as_bytes()).await;
                            prop_assert!(result.is_ok() == (owner == Some(process)), "{:?}", result);
                            if owner == Some(process) {
                                noted.clear();
                                text = Some(line);
                            }
                        }
                    }
                }
                let mut log = ObjectLog::of(&address, &settings, "p").unwrap();
                let read = log.read().await.unwrap().unwrap();
                prop_assert_eq!(read.map(|read| String::from_utf8(read).unwrap()), text);
                ObjectLog::clear(&address, &settings, "p").await.unwrap();
                prop_assert_eq!(log.read().await.unwrap(), Some(None));
                Ok(())
            })?;
        }
    }
}
