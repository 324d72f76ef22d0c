//! One table of the sink: its commits and its boundary.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaResult, DeltaTable, DeltaTableError};
use model::time::{Micros, Time};
use model::{Account, Batch, Kind, Progress, crash, tables};
use serde_json::{Value, json};
use storage::attempts::Attempts;
use storage::{ColdStore, say};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::compaction::{self, Effort};
use super::{Options, files};
use crate::canonical::Canonical;
use crate::{Epoch, OpenSink, SinkError};

/// How often a commit is tried while others commit to the table.
const ATTEMPTS: u32 = 36;
/// The longest pause between two of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After how many commits expired log entries are looked for. Finding them lists the whole log.
const CLEANUP_EVERY: u64 = 200;

/// A table and what its commits and its maintenance share.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) store: ColdStore,
    pub(super) kind: Arc<Kind>,
    pub(super) options: Options,
    pub(super) account: Arc<Account>,
    /// The table at the newest version known. Held while its log is written, so that commits of this process
    /// come one after the other and never conflict.
    pub(super) delta: Mutex<DeltaTable>,
    /// When unreferenced files were last looked for.
    pub(super) vacuumed: Mutex<Instant>,
}

impl Table {
    /// Opens or makes the table of a kind.
    pub(super) async fn open(store: ColdStore, kind: Arc<Kind>, options: Options, account: Arc<Account>) -> Result<Arc<Self>, SinkError> {
        let delta = Mutex::new(store.open_or_create(&kind).await?);
        Ok(Arc::new(Table { store, kind, options, account, delta, vacuumed: Mutex::new(Instant::now()) }))
    }

    /// The table's name.
    pub(super) fn name(&self) -> &str {
        self.kind.table.as_deref().unwrap_or(&self.kind.name)
    }

    /// An error of the store, told to the user.
    pub(super) fn error(&self, error: &DeltaTableError) -> SinkError {
        self.store.error(self.name(), error).into()
    }

    /// An error that only a bug causes.
    fn bug(&self, what: impl ToString) -> SinkError {
        SinkError {
            transient: false,
            place: self.store.address(self.name()),
            what: what.to_string(),
            remedy: "this is a bug of the pipeline: please report it".into(),
        }
    }
}

/// The one that commits epochs to a table.
pub(super) struct TableWriter {
    table: Arc<Table>,
    /// Under which name the log remembers what was committed.
    application: String,
    /// The end of the last epoch that was committed.
    committed: Option<Time>,
    /// The greatest event time among the rows that this writer committed.
    latest: Option<Micros>,
    boundary: Option<Micros>,
    commits: u64,
    maintenance: Option<JoinHandle<()>>,
}

/// Attempts at a step of a commit.
struct Trying {
    attempts: Attempts,
    /// How often somebody else was faster.
    conflicts: u32,
    /// One has failed.
    again: bool,
}

/// What a commit adds.
struct Addition {
    files: Vec<Add>,
    metadata: Value,
}

impl TableWriter {
    /// Reads what was committed before.
    pub(super) async fn open(table: Arc<Table>, application: String) -> Result<Self, SinkError> {
        let (committed, boundary) = {
            let delta = table.delta.lock().await;
            let read = async { Ok((storage::table::transaction(&delta, &application).await?, storage::table::boundary(&delta).await?)) };
            read.await.map_err(|e: DeltaTableError| table.error(&e))?
        };
        Ok(TableWriter { table, application, committed: committed.map(time), latest: None, boundary, commits: 0, maintenance: None })
    }

    /// The kind of the table.
    pub(super) fn kind(&self) -> &Kind {
        &self.table.kind
    }

    /// Commits what came for this table in an epoch, once.
    pub(super) async fn commit(&mut self, cx: &OpenSink, epoch: Epoch, batches: Vec<(Time, Batch)>) -> Result<(), SinkError> {
        let received: usize = batches.iter().map(|(_, batch)| batch.len()).sum();
        if received == 0 {
            return if epoch.watermark == Progress::END { self.advance(cx, epoch).await } else { Ok(()) };
        }
        let (rows, content) = self.prepare(batches).await?;
        let deleted = deleted(&rows);
        if self.committed.is_none_or(|upper| upper < epoch.upper) {
            self.latest = self.latest.max(arrow::compute::max(&self.table.kind.times(&rows)));
            let files = self.write(rows.clone()).await?;
            crash::point("files written");
            let metadata = provenance(cx, epoch, json!({ "rows": rows.num_rows(), "content": format!("{content:016x}") }));
            self.record(epoch, Addition { files, metadata }).await?;
            crash::point("boundary moved");
            self.maintain().await;
        } else {
            // Right in a replay. Otherwise the clock was set back, and these rows are not stored: somebody must know.
            warn!(table = self.table.name(), lower = epoch.lower, upper = epoch.upper, "the epoch is in the table already and is skipped");
        }
        self.table.account.accept(received);
        self.table.account.send(&self.table.kind.name, rows.num_rows(), deleted, rows.get_array_memory_size());
        Ok(())
    }

    /// Rows in the order of the table, each record of a revisable kind once; and the hash of what they say.
    async fn prepare(&self, batches: Vec<(Time, Batch)>) -> Result<(RecordBatch, u64), SinkError> {
        let kind = self.table.kind.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let canonical = Canonical::of(&kind, &batches)?;
            let order = canonical.order();
            Ok::<_, arrow::error::ArrowError>((files::with_date(&kind, &canonical.take(order)?)?, canonical.content(order)))
        });
        prepared.await.map_err(|e| self.table.bug(e))?.map_err(|e| self.table.bug(e))
    }

    /// Writes files that no reader sees yet. Tried again while the store fails.
    async fn write(&self, rows: RecordBatch) -> Result<Vec<Add>, SinkError> {
        if rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let mut trying = self.trying();
        loop {
            let writer =
                files::writer(&*self.table.delta.lock().await, &self.table.kind, self.table.options).map_err(|e| self.table.error(&e))?;
            match files::blocking(files::write(writer, rows.clone())).await {
                Ok(files) => {
                    trying.attempts.succeeded();
                    return Ok(files);
                }
                Err(error) => self.pause(&mut trying, error).await?,
            }
        }
    }

    /// Moves the boundary behind the last row when no more can come.
    async fn advance(&mut self, cx: &OpenSink, epoch: Epoch) -> Result<(), SinkError> {
        if self.next_boundary(epoch.watermark).is_none() || self.committed.is_some_and(|upper| upper >= epoch.upper) {
            return Ok(());
        }
        let metadata = provenance(cx, epoch, json!({ "rows": 0 }));
        self.record(epoch, Addition { files: Vec::new(), metadata }).await
    }

    /// Where the boundary goes at a watermark, if it moves.
    fn next_boundary(&self, watermark: Micros) -> Option<Micros> {
        let next = watermark.min(self.latest?.saturating_add(1));
        (watermark != Micros::MIN && self.boundary.is_none_or(|now| now < next)).then_some(next)
    }

    /// Writes the log entry that makes files part of the table, unless the log says that it was written.
    async fn record(&mut self, epoch: Epoch, addition: Addition) -> Result<(), SinkError> {
        let table = self.table.clone();
        let mut trying = self.trying();
        loop {
            let mut delta = table.delta.lock().await;
            if trying.again {
                // Whatever failed: the log knows what is committed, and where the boundary is.
                match self.reread(&mut delta).await {
                    Err(error) => {
                        drop(delta);
                        self.pause(&mut trying, error).await?;
                        continue;
                    }
                    Ok(()) if self.committed.is_some_and(|upper| upper >= epoch.upper) => {
                        trying.attempts.succeeded();
                        return Ok(());
                    }
                    Ok(()) => {}
                }
            }
            let boundary = self.next_boundary(epoch.watermark);
            match self.log(&mut delta, epoch, boundary, &addition).await {
                Ok(()) => {
                    self.committed = Some(epoch.upper);
                    self.boundary = boundary.or(self.boundary);
                    self.commits += 1;
                    trying.attempts.succeeded();
                    return Ok(());
                }
                Err(error) => {
                    drop(delta);
                    self.pause(&mut trying, error).await?;
                }
            }
        }
    }

    async fn reread(&mut self, delta: &mut DeltaTable) -> DeltaResult<()> {
        delta.update_state().await?;
        self.committed = storage::table::transaction(delta, &self.application).await?.map(time);
        self.boundary = storage::table::boundary(delta).await?;
        Ok(())
    }

    async fn log(&self, delta: &mut DeltaTable, epoch: Epoch, boundary: Option<Micros>, addition: &Addition) -> DeltaResult<()> {
        let upper = i64::try_from(epoch.upper).map_err(|e| DeltaTableError::generic(e.to_string()))?;
        let transactions =
            [Transaction::new(&self.application, upper)].into_iter().chain(boundary.map(storage::table::move_boundary)).collect();
        let properties = CommitProperties::default()
            .with_metadata(HashMap::from([("marketprism".to_owned(), addition.metadata.clone())]))
            .with_application_transactions(transactions)
            .with_cleanup_expired_logs(Some(self.commits % CLEANUP_EVERY == CLEANUP_EVERY - 1));
        let partition_by = tables::partition_columns(&self.table.kind).into_iter().map(str::to_owned).collect();
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: Some(partition_by), predicate: None };
        let commit = CommitBuilder::from(properties)
            .with_actions(addition.files.iter().cloned().map(Action::Add).collect())
            .build(Some(delta.snapshot()?), delta.log_store(), operation)
            .await?;
        delta.state = Some(commit.snapshot());
        Ok(())
    }

    fn trying(&self) -> Trying {
        let place = self.table.store.address(self.table.name());
        Trying { attempts: Attempts::new(&self.table.account, place, &self.application), conflicts: 0, again: false }
    }

    /// Waits before the next attempt: as long as it takes while the store fails, and not for ever while others commit.
    ///
    /// # Errors
    /// The error itself, if another attempt is of no use.
    async fn pause(&self, trying: &mut Trying, error: DeltaTableError) -> Result<(), SinkError> {
        trying.again = true;
        let pause = if is_conflict(&error) && trying.conflicts < ATTEMPTS {
            trying.conflicts += 1;
            debug!(table = self.table.name(), error = say(&error), "somebody else committed meanwhile; looking again");
            LONGEST_PAUSE.min(Duration::from_millis(20 << trying.conflicts.min(9)))
        } else {
            // A store that took rows until now and refuses them has forgotten who may write, and will be told.
            let told = self.table.error(&error);
            if !told.transient && !storage::place::is_refusal(&error) {
                return Err(told);
            }
            trying.attempts.failed(&told.what, &told.remedy)
        };
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Merges small files in the background when there are many.
    async fn maintain(&mut self) {
        if self.maintenance.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        if compaction::is_due(&*self.table.delta.lock().await, &self.table.options) {
            let table = self.table.clone();
            self.maintenance = Some(tokio::spawn(async move { compaction::run(&table, Effort::Often).await }));
        }
    }

    /// Waits for the background and merges what is still small.
    pub(super) async fn close(self) -> Result<(), SinkError> {
        if let Some(task) = self.maintenance {
            task.await.map_err(|e| self.table.bug(e))?;
        }
        compaction::run(&self.table, Effort::Last).await;
        Ok(())
    }
}

/// What a log entry says of where its rows came from.
fn provenance(cx: &OpenSink, epoch: Epoch, what: Value) -> Value {
    let mut says =
        json!({ "pipeline": cx.pipeline, "plan": cx.plan, "node": cx.node, "shard": cx.shard, "lower": epoch.lower, "upper": epoch.upper });
    if let (Some(says), Value::Object(what)) = (says.as_object_mut(), what) {
        says.extend(what);
    }
    says
}

/// A logical time as the log keeps it.
fn time(version: i64) -> Time {
    Time::try_from(version).unwrap_or(0)
}

/// Rows that say that a record is gone.
fn deleted(rows: &RecordBatch) -> usize {
    use arrow::array::AsArray;
    rows.column_by_name(tables::IS_DELETED).map_or(0, |column| column.as_boolean().true_count())
}

/// Whether somebody else committed meanwhile.
pub(super) fn is_conflict(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction {
                source: TransactionError::CommitConflict(_)
                    | TransactionError::MaxCommitAttempts(_)
                    | TransactionError::VersionAlreadyExists(_)
            }
    )
}
