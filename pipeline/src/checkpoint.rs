//! Checkpoints: what every stage has made of everything below one logical time, so that a run goes on from there.
//!
//! A checkpoint begins when its barrier is set: a logical time ahead of everything that any source has handed over, since
//! the sources share one [`Clock`]. Each stage hands its state over when its frontier comes to the barrier, each sink when
//! it has committed everything below. Nothing waits for anything else, and the states are turned into bytes by a thread
//! of their own. The manifest is written last and only if there is none: a checkpoint without one never was.
//!
//! Where a pipeline has several processes, each of them stores the states of its own workers. The first one sets the barriers
//! and writes the manifest, once the others have told it what they have stored.
//!
//! A run never mixes checkpoints and never takes half of one: every object is named in the manifest after what it holds,
//! and one that holds anything else refuses the whole. What has not changed since the checkpoint before has the same name, and
//! is not written again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Cursor;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use config::settings::Settings;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use futures::{StreamExt, TryStreamExt, stream};
use model::crash;
use model::time::{self, Micros, Time};
use object_store::path::Path;
use object_store::{Error as ObjectError, ObjectStoreExt, PutMode, PutPayload};
use operators::Keeper;
use operators::state::{LAYOUT, Part, Snapshot, StageState, WatermarkState};
use serde::{Deserialize, Serialize};
use storage::{Place, StorageError};
use tokio::runtime::Handle as Tokio;
use tokio::sync::watch;
use twox_hash::XxHash64;

use crate::journal::{Bound, Identity, Journal};
use crate::mesh::{First, Peers};
use crate::run::Handle;
use crate::summary::{aligned, grouped};

/// Checkpoints that are kept: should the newest be damaged, there are others.
const KEPT: usize = 3;
/// What the names of manifests end with, behind the barrier.
const MANIFEST: &str = ".json";
/// What the names of objects end with.
const OBJECT: &str = ".arrow";
/// The folder of the objects, beside the manifests.
const OBJECTS: &str = "objects";
/// Objects that are read or written side by side.
const PARALLEL: usize = 8;
/// The least interval between two checkpoints.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The pipeline.
    pub pipeline: String,
    /// What it computed.
    pub identity: Identity,
    /// The barrier: everything below this logical time is in it.
    pub barrier: Time,
    /// The [`LAYOUT`] of its states.
    pub layout: u32,
    /// When it was complete, by the clock.
    pub taken: Micros,
    /// Number of workers of the run.
    pub workers: u32,
    /// The names of the sources, in the order in which the watermarks number them.
    pub sources: Vec<String>,
    /// Where each source was. One that had handed over nothing is not among them.
    pub bounds: BTreeMap<String, Bound>,
    /// The watermark of each sink.
    pub sinks: BTreeMap<String, WatermarkState>,
    /// The states of the stages.
    pub parts: Vec<StoredPart>,
}

/// The state of a stage on a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPart {
    /// The stage.
    pub part: Part,
    /// Its watermark.
    pub watermark: WatermarkState,
    /// Arrow files, in the folder `objects`.
    pub objects: Vec<StoredObject>,
}

/// An Arrow file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// Its name: who wrote it, and the hash of its bytes.
    pub name: String,
    /// Its rows.
    pub rows: usize,
    /// Its length in bytes.
    pub bytes: usize,
}

impl Manifest {
    fn objects(&self) -> impl Iterator<Item = &StoredObject> {
        self.parts.iter().flat_map(|part| &part.objects)
    }

    /// Bytes of all states.
    pub fn bytes(&self) -> usize {
        self.objects().map(|object| object.bytes).sum()
    }

    /// Rows of all states.
    pub fn rows(&self) -> usize {
        self.objects().map(|object| object.rows).sum()
    }
}

/// A line for each checkpoint, for people.
pub fn table(manifests: &[Manifest]) -> String {
    let mut lines = vec![["checkpoint", "state below", "complete at", "workers", "rows", "bytes"].map(str::to_owned)];
    lines.extend(manifests.iter().map(|m| {
        [
            m.barrier.to_string(),
            time::display(i64::try_from(m.barrier).unwrap_or(i64::MAX).saturating_mul(1_000)),
            time::display(m.taken),
            m.workers.to_string(),
            grouped(m.rows() as u64),
            bytesize::ByteSize(m.bytes() as u64).to_string(),
        ]
    }));
    aligned(&lines)
}

/// Where the checkpoints of a pipeline lie.
#[derive(Clone, Debug)]
pub struct Store {
    place: Place,
    folder: String,
    /// What the names of objects begin with that this process writes. A process that was stopped for long, and then goes on
    /// removing what nothing needed at the time, removes nothing that a later one has written.
    writer: String,
    /// Objects that are there and whole, since this process has read or written them: their names by hash.
    known: Arc<Mutex<HashMap<String, String>>>,
}

impl Store {
    /// The store of a pipeline's checkpoints, as the settings say.
    ///
    /// # Errors
    /// An address that is neither a folder nor a bucket.
    pub fn open(settings: &Settings, pipeline: &str) -> Result<Self, StorageError> {
        let place = Place::open(settings.checkpoints_url(), &settings.cold)?;
        Ok(Store {
            place,
            folder: format!("pipelines/{pipeline}/checkpoints"),
            writer: uuid::Uuid::new_v4().simple().to_string(),
            known: Arc::default(),
        })
    }

    fn manifest_path(&self, barrier: Time) -> Path {
        self.place.path(&format!("{}/{barrier}{MANIFEST}", self.folder))
    }

    fn objects_path(&self) -> Path {
        self.place.path(&format!("{}/{OBJECTS}", self.folder))
    }

    fn error(&self, error: &ObjectError) -> StorageError {
        self.place.error(&self.folder, error)
    }

    /// The barriers of all checkpoints, newest first.
    ///
    /// # Errors
    /// The store cannot be reached or refuses us.
    pub async fn list(&self) -> Result<Vec<Time>, StorageError> {
        let listing = match self.place.store().list_with_delimiter(Some(&self.place.path(&self.folder))).await {
            Ok(listing) => listing.objects,
            Err(ObjectError::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(self.error(&error)),
        };
        let barrier = |path: &Path| path.filename()?.strip_suffix(MANIFEST)?.parse().ok();
        let mut barriers: Vec<Time> = listing.iter().filter_map(|object| barrier(&object.location)).collect();
        barriers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(barriers)
    }

    /// The manifest of a checkpoint.
    ///
    /// # Errors
    /// There is none, it is damaged or foreign, or the store cannot be reached.
    pub async fn manifest(&self, pipeline: &str, barrier: Time) -> Result<Manifest, StorageError> {
        let path = self.manifest_path(barrier);
        let bytes = self.get(&path).await?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| self.damaged(&path, &format!("it is no manifest: {error}")))?;
        if manifest.pipeline != pipeline || manifest.barrier != barrier {
            let what = format!("it is of barrier {} of pipeline `{}`", manifest.barrier, manifest.pipeline);
            return Err(self.damaged(&path, &what));
        }
        Ok(manifest)
    }

    /// The states of a checkpoint, by node and stage.
    ///
    /// # Errors
    /// An object is missing or is not what the manifest says, or the store cannot be reached.
    pub async fn states(&self, manifest: &Manifest) -> Result<HashMap<(String, u32), StageState>, StorageError> {
        if manifest.layout != LAYOUT {
            let what = format!("its states have layout {}, and this version of the program reads layout {LAYOUT}", manifest.layout);
            return Err(self.damaged(&self.manifest_path(manifest.barrier), &what));
        }
        let mut states: HashMap<(String, u32), StageState> = HashMap::new();
        for stored in &manifest.parts {
            let state = states.entry((stored.part.node.clone(), stored.part.stage)).or_default();
            state.watermark = stored.watermark.clone();
            let rows = stream::iter(&stored.objects).map(|object| self.read(object)).buffered(PARALLEL);
            state.rows.append(&mut rows.try_collect().await?);
        }
        Ok(states)
    }

    async fn read(&self, object: &StoredObject) -> Result<RecordBatch, StorageError> {
        let path = self.objects_path().join(object.name.as_str());
        let bytes = self.get(&path).await?;
        let hash = hash(&bytes);
        if !object.name.ends_with(&format!("-{hash}{OBJECT}")) {
            return Err(self.damaged(&path, "its bytes are not those that were written"));
        }
        let rows = decode(&bytes).map_err(|error| self.damaged(&path, &error.to_string()))?;
        self.known().insert(hash, object.name.clone());
        Ok(rows)
    }

    async fn get(&self, path: &Path) -> Result<Vec<u8>, StorageError> {
        let read = async { self.place.store().get(path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(bytes.into()),
            Err(ObjectError::NotFound { .. }) => Err(self.damaged(path, "it is not there")),
            Err(error) => Err(self.error(&error)),
        }
    }

    fn damaged(&self, path: &Path, what: &str) -> StorageError {
        StorageError::new(path.to_string(), format!("the checkpoint cannot be used: {what}"), "go on from the one before it")
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.known.lock().expect("no holder panics")
    }

    /// Stores the states of stages. The names of their objects go into a manifest.
    async fn store_parts(&self, states: Vec<(Part, WatermarkState, Snapshot)>) -> Result<Vec<StoredPart>, StorageError> {
        let mut parts = Vec::new();
        for (part, watermark, snapshot) in states {
            let batches = snapshot();
            let objects = stream::iter(&batches).map(|rows| self.put(rows)).buffered(PARALLEL).try_collect().await?;
            parts.push(StoredPart { part, watermark, objects });
        }
        Ok(parts)
    }

    /// Makes a checkpoint of states that are stored.
    async fn complete(&self, manifest: &mut Manifest) -> Result<(), StorageError> {
        manifest.taken = time::now();
        let text = serde_json::to_vec_pretty(manifest).expect("a manifest has text keys");
        let path = self.manifest_path(manifest.barrier);
        let put = self.place.store().put_opts(&path, PutPayload::from(text), PutMode::Create.into()).await;
        put.map(drop).map_err(|error| self.error(&error))
    }

    /// Writes rows under the name of what they are, unless they are there.
    async fn put(&self, rows: &RecordBatch) -> Result<StoredObject, StorageError> {
        let bytes = encode(rows).map_err(|error| StorageError::new("a state", error.to_string(), "this is a bug, please report it"))?;
        let (hash, rows, length) = (hash(&bytes), rows.num_rows(), bytes.len());
        let there = self.known().get(&hash).cloned();
        let name = match there {
            Some(name) => name,
            None => {
                let name = format!("{}-{hash}{OBJECT}", self.writer);
                let path = self.objects_path().join(name.as_str());
                self.place.store().put(&path, PutPayload::from(bytes)).await.map_err(|error| self.error(&error))?;
                self.known().insert(hash, name.clone());
                name
            }
        };
        Ok(StoredObject { name, rows, bytes: length })
    }

    /// Removes all but the newest checkpoints, and objects that none of those names, unless they may belong to one that is
    /// still being stored: the next, by a process that has taken over. Returns the barrier of the oldest that is kept.
    async fn prune(&self, pipeline: &str) -> Result<Option<Time>, StorageError> {
        let all = self.list().await?;
        let Some(newest) = all.first() else { return Ok(None) };
        let newest = self.place.store().head(&self.manifest_path(*newest)).await.map_err(|error| self.error(&error))?.last_modified;
        let (kept, old) = all.split_at(all.len().min(KEPT));
        for barrier in old {
            self.remove(&self.manifest_path(*barrier)).await?;
        }
        let mut named = HashSet::new();
        for barrier in kept {
            named.extend(self.manifest(pipeline, *barrier).await?.objects().map(|object| object.name.clone()));
        }
        self.known().retain(|_, name| named.contains(name));
        let objects: Vec<_> =
            self.place.store().list(Some(&self.objects_path())).try_collect().await.map_err(|error| self.error(&error))?;
        for object in objects {
            if object.last_modified < newest && object.location.filename().is_some_and(|name| !named.contains(name)) {
                self.remove(&object.location).await?;
            }
        }
        Ok(kept.last().copied())
    }

    /// Removes every checkpoint, the manifests first.
    ///
    /// # Errors
    /// The store cannot be reached or refuses us.
    pub async fn clear(&self) -> Result<(), StorageError> {
        for barrier in self.list().await? {
            self.remove(&self.manifest_path(barrier)).await?;
        }
        self.known().clear();
        let objects: Vec<_> =
            self.place.store().list(Some(&self.objects_path())).try_collect().await.map_err(|error| self.error(&error))?;
        for object in objects {
            self.remove(&object.location).await?;
        }
        Ok(())
    }

    async fn remove(&self, path: &Path) -> Result<(), StorageError> {
        match self.place.store().delete(path).await {
            Ok(()) | Err(ObjectError::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(&error)),
        }
    }
}

/// Two XXH64 of the bytes of an object, so that no two objects have one name.
fn hash(bytes: &[u8]) -> String {
    format!("{:016x}{:016x}", XxHash64::oneshot(0, bytes), XxHash64::oneshot(1, bytes))
}

fn encode(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = FileWriter::try_new_with_options(Vec::new(), rows.schema_ref(), options)?;
    writer.write(rows)?;
    writer.into_inner()
}

fn decode(bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
    let reader = FileReader::try_new(Cursor::new(bytes), None)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    concat_batches(&schema, &batches)
}

/// Logical time, which the sources of a pipeline share: that of the clock in milliseconds, but never one twice and never
/// less than before.
#[derive(Debug)]
pub struct Clock {
    state: Mutex<Times>,
}

#[derive(Debug)]
struct Times {
    /// The greatest time that was given out.
    latest: Time,
    /// Every time that is given out from now on is at or behind this.
    floor: Time,
}

impl Clock {
    /// A clock whose times are at or behind `floor`.
    pub fn new(floor: Time) -> Self {
        Clock { state: Mutex::new(Times { latest: floor, floor }) }
    }

    /// A time behind `after`.
    pub fn advance(&self, after: Time) -> Time {
        let mut state = self.state.lock().expect("no holder panics");
        let next = now().max(after + 1).max(state.floor);
        state.latest = state.latest.max(next);
        next
    }

    /// Sets a barrier: a time ahead of everything that was given out and not behind anything that will be. `publish` is
    /// called with it before anything is given out again.
    fn raise(&self, publish: impl FnOnce(Time)) {
        let mut state = self.state.lock().expect("no holder panics");
        let barrier = now().max(state.latest + 1);
        publish(barrier);
        state.latest = barrier;
        state.floor = barrier;
    }
}

/// The clock in milliseconds.
pub fn now() -> Time {
    u64::try_from(time::now() / 1_000).unwrap_or(0)
}

/// What is handed over for a checkpoint.
enum Kept {
    Stage(Part, Time, WatermarkState, Snapshot),
    Sink(String, Time, WatermarkState),
    /// Another process has stored the states of its stages, or could not.
    Peer(Time, Result<Vec<StoredPart>, String>),
    /// Nothing more is handed over.
    Done,
}

/// What the workers and sinks of a process know of checkpoints.
pub struct Checkpoints {
    /// The barrier that the run goes on from.
    from: Time,
    /// The latest barrier.
    barrier: AtomicU64,
    /// The barrier of the last checkpoint that is complete.
    complete: AtomicU64,
    parts: Mutex<Vec<Part>>,
    restored: HashMap<(String, u32), StageState>,
    kept: Sender<Kept>,
}

impl Checkpoints {
    /// Those of a run that goes on at `from` with these states, and what is handed over for them.
    fn new(from: Time, restored: HashMap<(String, u32), StageState>) -> (Arc<Checkpoints>, Receiver<Kept>) {
        let (kept, received) = crossbeam_channel::unbounded();
        let (barrier, complete) = (AtomicU64::new(from), AtomicU64::new(from));
        (Arc::new(Checkpoints { from, barrier, complete, parts: Mutex::default(), restored, kept }), received)
    }

    /// Lets the workers of this process know of a barrier, and of the last checkpoint that is complete.
    pub fn set(&self, barrier: Time, complete: Time) {
        self.complete.store(complete, Ordering::Release);
        self.barrier.store(barrier, Ordering::Release);
    }

    /// A sink has committed everything below a barrier.
    pub fn keep_sink(&self, sink: &str, barrier: Time, watermark: WatermarkState) {
        self.hand_over(Kept::Sink(sink.to_owned(), barrier, watermark));
    }

    /// Another process has stored its states at a barrier, or could not.
    pub fn keep_peer(&self, barrier: Time, parts: Result<Vec<StoredPart>, String>) {
        self.hand_over(Kept::Peer(barrier, parts));
    }

    /// Nothing more is handed over: the workers have ended.
    pub fn done(&self) {
        self.hand_over(Kept::Done);
    }

    fn hand_over(&self, kept: Kept) {
        // Where nobody stores checkpoints, because storing one panicked, the run goes on without.
        drop(self.kept.send(kept));
    }

    /// Number of stages with a state, on all workers of this process.
    fn stages(&self) -> usize {
        self.parts.lock().expect("no holder panics").len()
    }
}

impl Keeper for Checkpoints {
    fn expect(&self, part: &Part) {
        self.parts.lock().expect("no holder panics").push(part.clone());
    }

    fn from(&self) -> Time {
        self.from
    }

    fn restore(&self, node: &str, stage: u32) -> Option<StageState> {
        self.restored.get(&(node.to_owned(), stage)).cloned()
    }

    fn barrier(&self) -> Time {
        self.barrier.load(Ordering::Acquire)
    }

    fn keep(&self, part: &Part, barrier: Time, watermark: WatermarkState, snapshot: Snapshot) {
        self.hand_over(Kept::Stage(part.clone(), barrier, watermark, snapshot));
    }
}

/// Sets the barriers of a run: in its first process, where the sources are.
pub struct Barriers {
    clock: Arc<Clock>,
    checkpoints: Arc<Checkpoints>,
    /// The other processes, which have to know of a barrier before a source passes it.
    peers: Option<Arc<Peers>>,
    /// Whether a checkpoint is under way.
    under_way: Mutex<bool>,
}

impl Barriers {
    /// Sets a barrier, unless a checkpoint is under way.
    pub fn begin(&self) {
        let mut under_way = self.under_way.lock().expect("no holder panics");
        if std::mem::replace(&mut under_way, true) {
            return;
        }
        let complete = self.checkpoints.complete.load(Ordering::Acquire);
        self.clock.raise(|barrier| {
            if let Some(peers) = &self.peers {
                peers.raise(barrier, complete);
            }
            self.checkpoints.set(barrier, complete);
        });
    }

    /// Lets the next checkpoint begin.
    fn end(&self) {
        *self.under_way.lock().expect("no holder panics") = false;
    }
}

/// The thread that stores the checkpoints of a run, in its first process.
pub struct Storing {
    checkpoints: Arc<Checkpoints>,
    barriers: Arc<Barriers>,
    kept: Receiver<Kept>,
    store: Store,
    journal: Arc<Journal>,
    interval: Duration,
    /// What every manifest of the run says alike.
    blank: Manifest,
    sinks: usize,
    peers: usize,
    /// Tells the sources what will not be asked for again.
    settled: watch::Sender<BTreeMap<String, Bound>>,
    handle: Handle,
}

/// What a run is, for its checkpoints.
pub struct Run {
    /// Its pipeline.
    pub pipeline: String,
    /// What that computes.
    pub identity: Identity,
    /// Number of workers in all processes.
    pub workers: u32,
    /// The sources, in the order of their numbers.
    pub sources: Vec<String>,
    /// Number of sinks.
    pub sinks: usize,
    /// The other processes.
    pub peers: Option<Arc<Peers>>,
}

impl Storing {
    /// The thread that stores the checkpoints of a run that goes on at `from` with these states. `settled` gets the
    /// bounds of the oldest checkpoint that is kept, `handle` is told of every one.
    pub fn new(
        run: Run,
        (from, restored): (Time, HashMap<(String, u32), StageState>),
        clock: Arc<Clock>,
        (store, journal): (Store, Arc<Journal>),
        interval: Duration,
        (settled, handle): (watch::Sender<BTreeMap<String, Bound>>, Handle),
    ) -> Storing {
        let (checkpoints, kept) = Checkpoints::new(from, restored);
        let peers = run.peers.as_ref().map_or(0, |peers| peers.count());
        let barriers = Barriers { clock, checkpoints: checkpoints.clone(), peers: run.peers, under_way: Mutex::new(false) };
        let interval = interval.max(LEAST_INTERVAL);
        let blank = Manifest {
            pipeline: run.pipeline,
            identity: run.identity,
            barrier: 0,
            layout: LAYOUT,
            taken: 0,
            workers: run.workers,
            sources: run.sources,
            bounds: BTreeMap::new(),
            sinks: BTreeMap::new(),
            parts: Vec::new(),
        };
        let barriers = Arc::new(barriers);
        Storing { checkpoints, barriers, kept, store, journal, interval, blank, sinks: run.sinks, peers, settled, handle }
    }

    /// What workers and sinks know of checkpoints.
    pub fn checkpoints(&self) -> &Arc<Checkpoints> {
        &self.checkpoints
    }

    /// What sets barriers.
    pub fn barriers(&self) -> &Arc<Barriers> {
        &self.barriers
    }

    /// Stores a checkpoint every interval until the run is over. One that cannot be stored is told and given up: the
    /// pipeline goes on, and the next is tried.
    pub fn run(self, on: &Tokio) {
        let mut due = Instant::now() + self.interval;
        let mut gathered = Gathered::default();
        loop {
            match self.kept.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Kept::Stage(part, barrier, watermark, snapshot)) => gathered.at(barrier).stages.push((part, watermark, snapshot)),
                Ok(Kept::Sink(sink, barrier, watermark)) => drop(gathered.at(barrier).sinks.insert(sink, watermark)),
                Ok(Kept::Peer(barrier, parts)) => gathered.at(barrier).peers.push(parts),
                Ok(Kept::Done) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    self.barriers.begin();
                    due = Instant::now() + self.interval;
                }
            }
            let stages = self.checkpoints.stages();
            // All processes have the same stages.
            let peers = if stages == 0 { 0 } else { self.peers };
            if gathered.stages.len() < stages || gathered.sinks.len() < self.sinks || gathered.peers.len() < peers {
                continue;
            }
            let complete = std::mem::take(&mut gathered);
            let barrier = complete.barrier;
            // Without sinks and stages there is nothing to go on from.
            if barrier == 0 {
                continue;
            }
            match on.block_on(self.store(complete)) {
                Ok(()) => tracing::debug!(barrier, "a checkpoint is stored"),
                Err(error) => tracing::warn!(barrier, "a checkpoint could not be stored, and the next is tried: {error}"),
            }
            self.barriers.end();
        }
    }

    async fn store(&self, gathered: Gathered) -> Result<(), String> {
        let barrier = gathered.barrier;
        let told = |error: StorageError| error.to_string();
        let mut parts = self.store.store_parts(gathered.stages).await.map_err(told)?;
        for peer in gathered.peers {
            parts.append(&mut peer?);
        }
        crash::point("states stored");
        let bounds = self.journal.checkpoint(barrier).await.map_err(|error| error.to_string())?;
        let mut manifest = Manifest { barrier, bounds, sinks: gathered.sinks, parts, ..self.blank.clone() };
        self.store.complete(&mut manifest).await.map_err(told)?;
        self.checkpoints.complete.store(barrier, Ordering::Release);
        self.handle.checkpointed(manifest.taken);
        crash::point("manifest stored");
        let Some(oldest) = self.store.prune(&manifest.pipeline).await.map_err(told)? else { return Ok(()) };
        crash::point("checkpoints pruned");
        let settled = self.journal.forget_below(oldest).await.map_err(|error| error.to_string())?;
        self.settled.send_replace(settled);
        Ok(())
    }
}

/// The thread that stores the states of a process that is not the first.
pub struct Assisting {
    checkpoints: Arc<Checkpoints>,
    kept: Receiver<Kept>,
    store: Store,
    /// The barrier of the checkpoint whose objects are known.
    last: Time,
}

impl Assisting {
    /// The thread of a process whose run goes on at `from` with these states.
    pub fn new((from, restored): (Time, HashMap<(String, u32), StageState>), store: Store) -> Assisting {
        let (checkpoints, kept) = Checkpoints::new(from, restored);
        Assisting { checkpoints, kept, store, last: from }
    }

    /// What the workers know of checkpoints.
    pub fn checkpoints(&self) -> &Arc<Checkpoints> {
        &self.checkpoints
    }

    /// Stores the states of each checkpoint and tells the first process, until the workers have ended.
    pub fn run(mut self, first: &First, on: &Tokio) {
        let mut gathered = Gathered::default();
        while let Ok(Kept::Stage(part, barrier, watermark, snapshot)) = self.kept.recv() {
            gathered.at(barrier).stages.push((part, watermark, snapshot));
            if gathered.stages.len() == self.checkpoints.stages() {
                let stages = std::mem::take(&mut gathered).stages;
                let parts = on.block_on(self.store(barrier, stages)).map_err(|error| error.to_string());
                first.stored(barrier, parts);
            }
        }
    }

    async fn store(&mut self, barrier: Time, stages: Vec<(Part, WatermarkState, Snapshot)>) -> Result<Vec<StoredPart>, StorageError> {
        // The first process removes what no complete checkpoint names, and perhaps those of the last one, which may not be.
        if self.checkpoints.complete.load(Ordering::Acquire) != self.last {
            self.store.known().clear();
        }
        let parts = self.store.store_parts(stages).await?;
        let named: HashSet<&String> = parts.iter().flat_map(|part| &part.objects).map(|object| &object.name).collect();
        self.store.known().retain(|_, name| named.contains(name));
        self.last = barrier;
        Ok(parts)
    }
}

/// What was handed over for one barrier.
#[derive(Default)]
struct Gathered {
    barrier: Time,
    stages: Vec<(Part, WatermarkState, Snapshot)>,
    sinks: BTreeMap<String, WatermarkState>,
    peers: Vec<Result<Vec<StoredPart>, String>>,
}

impl Gathered {
    fn at(&mut self, barrier: Time) -> &mut Self {
        debug_assert!(self.barrier == 0 || self.barrier == barrier, "one checkpoint at a time");
        self.barrier = barrier;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    use arrow::array::{Int64Array, StringArray};

    /// A store in a folder, and where its checkpoints lie there.
    fn store(folder: &std::path::Path) -> (Store, PathBuf) {
        let settings = Settings { data: Some(folder.display().to_string()), ..Settings::default() };
        (Store::open(&settings, "p").unwrap(), folder.join("pipelines/p/checkpoints"))
    }

    fn manifest(barrier: Time) -> Manifest {
        Manifest {
            pipeline: "p".into(),
            identity: Identity::default(),
            barrier,
            layout: LAYOUT,
            taken: 0,
            workers: 1,
            sources: vec!["a".into()],
            bounds: BTreeMap::from([("a".into(), (barrier - 1, None))]),
            sinks: BTreeMap::new(),
            parts: Vec::new(),
        }
    }

    fn rows(number: i64) -> RecordBatch {
        RecordBatch::try_from_iter([
            ("symbol", Arc::new(StringArray::from(vec!["BTC-USDT"; 3])) as arrow::array::ArrayRef),
            ("n", Arc::new(Int64Array::from(vec![number; 3]))),
        ])
        .unwrap()
    }

    /// Stores a checkpoint of one stage.
    async fn write(store: &Store, barrier: Time, rows: Vec<RecordBatch>) -> Manifest {
        let mut manifest = manifest(barrier);
        let part = Part { node: "bars".into(), stage: 1, worker: 0 };
        let watermark = WatermarkState { current: Some(7), ..WatermarkState::default() };
        manifest.parts = store.store_parts(vec![(part, watermark, Box::new(move || rows))]).await.unwrap();
        store.complete(&mut manifest).await.unwrap();
        manifest
    }

    fn names(folder: &std::path::Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_checkpoint_gives_back_what_it_took_and_shares_what_has_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (store, place) = store(folder.path());
        assert_eq!(store.list().await.unwrap(), Vec::<Time>::new());
        let first = write(&store, 10, vec![rows(1), rows(2)]).await;
        let second = write(&store, 20, vec![rows(1), rows(3)]).await;
        assert_eq!(first.parts[0].objects[0], second.parts[0].objects[0]);
        assert_eq!(names(&place.join("objects")).len(), 3);
        assert_eq!(store.list().await.unwrap(), [20, 10]);

        let (other, _) = self::store(folder.path());
        let read = other.manifest("p", 20).await.unwrap();
        assert_eq!((&read, read.rows()), (&second, 6));
        let states = other.states(&read).await.unwrap();
        let state = &states[&("bars".to_owned(), 1)];
        assert_eq!((state.watermark.current, &state.rows), (Some(7), &vec![rows(1), rows(3)]));
        assert!(other.complete(&mut manifest(20)).await.is_err(), "no manifest is written twice");
    }

    #[tokio::test]
    async fn old_checkpoints_go_with_what_only_they_have() {
        let folder = tempfile::tempdir().unwrap();
        let (store, place) = store(folder.path());
        for barrier in [10, 20, 30, 40, 50] {
            // Left by a process that was killed before it wrote its manifest.
            fs::create_dir_all(place.join("objects")).unwrap();
            fs::write(place.join("objects/00.arrow"), b"orphan").unwrap();
            write(&store, barrier, vec![rows(0), rows(barrier as i64)]).await;
        }
        assert_eq!(store.prune("p").await.unwrap(), Some(30));
        assert_eq!(store.list().await.unwrap(), [50, 40, 30]);
        assert_eq!(names(&place.join("objects")).len(), 4, "one that all share, and one of each");
        for barrier in [30, 40, 50] {
            let manifest = store.manifest("p", barrier).await.unwrap();
            assert_eq!(store.states(&manifest).await.unwrap()[&("bars".to_owned(), 1)].rows, [rows(0), rows(barrier as i64)]);
        }
        // What was removed is written again when it is needed again.
        write(&store, 60, vec![rows(10)]).await;
        let manifest = store.manifest("p", 60).await.unwrap();
        assert_eq!(store.states(&manifest).await.unwrap()[&("bars".to_owned(), 1)].rows, [rows(10)]);
        store.clear().await.unwrap();
        assert_eq!((store.list().await.unwrap(), names(&place.join("objects"))), (vec![], vec![]));
    }

    #[tokio::test]
    async fn what_is_damaged_or_foreign_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (store, place) = store(folder.path());
        let written = write(&store, 10, vec![rows(1)]).await;
        let path = place.join("objects").join(&written.parts[0].objects[0].name);
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            let error = store.states(&written).await.unwrap_err().to_string();
            assert!(
                error.contains("its bytes are not those that were written") && error.contains(&written.parts[0].objects[0].name),
                "{error}"
            );
        }
        let error = store.states(&Manifest { layout: 0, ..written.clone() }).await.unwrap_err().to_string();
        assert!(error.contains("its states have layout 0"), "{error}");
        fs::remove_file(&path).unwrap();
        let error = store.states(&written).await.unwrap_err().to_string();
        assert!(error.contains("it is not there"), "{error}");
        fs::rename(place.join("10.json"), place.join("11.json")).unwrap();
        let error = store.manifest("p", 11).await.unwrap_err().to_string();
        assert!(error.contains("11.json: the checkpoint cannot be used: it is of barrier 10 of pipeline `p`"), "{error}");
        fs::write(place.join("11.json"), b"{").unwrap();
        let error = store.manifest("p", 11).await.unwrap_err().to_string();
        assert!(error.contains("it is no manifest"), "{error}");
    }

    #[test]
    fn a_barrier_lies_behind_all_times_before_it_and_not_behind_any_after_it() {
        let clock = Clock::new(0);
        let (mut a, mut b) = (clock.advance(0), clock.advance(0));
        for _ in 0..100 {
            a = clock.advance(a);
            let mut barrier = 0;
            clock.raise(|at| barrier = at);
            assert!(barrier > a && barrier > b);
            b = clock.advance(b);
            assert!(b >= barrier);
        }
        assert!(Clock::new(Time::MAX / 2).advance(0) >= Time::MAX / 2);
    }
}
