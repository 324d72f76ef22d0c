//! Merging small files, and removing what nobody refers to any more.
//!
//! Files are sorted, so merging needs a few rows of each at a time, whatever their size. Of a revisable kind only the
//! newest version of a record among the merged files is kept: whatever the other files hold, the newest of all
//! versions stays the newest, so every query gives the same answer before and after.
//!
//! A merge is committed only while every file it replaces is still live. Delta's own conflict check does not look for
//! that (it lets two rewrites of the same file pass, and every row is there twice), so it is done here: under
//! the table's lock against this process, and against others by committing at exactly the version that was looked at.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, BooleanArray, Date32Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use deltalake_core::datafile::writer::DeltaWriter;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, Add, LogicalFileView};
use deltalake_core::operations::vacuum::VacuumMode;
use deltalake_core::protocol::DeltaOperation;
use deltalake_core::{DeltaResult, DeltaTable, DeltaTableError};
use futures::{StreamExt, TryStreamExt};
use model::{Kind, tables};
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use storage::file::rows_of;
use storage::{File, say};
use tracing::{debug, info, warn};

use super::files;
use super::table::{Table, is_conflict};
use super::{Options, files::sorting};

/// Small files that a table may have before they are merged while the pipeline runs.
const MANY: usize = 40;
/// Small files that a partition may keep when the pipeline ends.
const FEW: usize = 8;
/// The most files that are merged at once: each needs an open reader.
const AT_ONCE: usize = 128;
/// Rows that are read from each at a time, at most.
const ROWS: usize = 8_192;
/// Bytes of them: frames can be long.
const BYTES: usize = 1 << 20;
/// Files below this many bytes are merged whatever their neighbours are.
const TINY: i64 = 1 << 20;
/// How often unreferenced files are looked for.
const VACUUM_EVERY: Duration = Duration::from_secs(3_600);
/// How often a merge is committed anew because others committed meanwhile.
const ATTEMPTS: usize = 20;

/// How much to merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// Files of like size, so that each row is rewritten only a few times however long the pipeline runs.
    Often,
    /// All small files of partitions that have more than a few.
    Last,
}

/// Whether so many small files have gathered that merging them pays.
pub(super) fn is_due(delta: &DeltaTable, options: &Options) -> bool {
    small_files(delta, options).values().map(Vec::len).filter(|n| *n > 1).sum::<usize>() > MANY
}

/// Merges what is due. What fails is told and left for the next time: the table stays right without it.
pub(super) async fn run(table: &Arc<Table>, effort: Effort) {
    let mut merged = 0;
    let groups = plan(&*table.delta.lock().await, &table.options, effort);
    for files in groups {
        match merge(table, files).await {
            Ok(replaced) => merged += replaced,
            Err(error) => {
                warn!(table = table.name(), error = say(&error), "small files could not be merged");
                // A store that is away or full is waited for by commits, and this is tried again behind them.
                if !table.error(&error).transient {
                    table.account.error(format!("small files of `{}` could not be merged: {}", table.name(), say(&error)));
                }
                return;
            }
        }
    }
    if merged == 0 {
        return;
    }
    info!(table = table.name(), files = merged, "merged small files");
    if let Err(error) = vacuum(table, effort).await {
        warn!(table = table.name(), error = say(&error), "unreferenced files could not be removed");
    }
}

/// The small files of each partition, the smallest first.
fn small_files(delta: &DeltaTable, options: &Options) -> BTreeMap<String, Vec<LogicalFileView>> {
    let limit = i64::try_from(options.file_size.get() / 4).unwrap_or(i64::MAX);
    let mut partitions: BTreeMap<String, Vec<LogicalFileView>> = BTreeMap::new();
    let Ok(snapshot) = delta.snapshot() else { return partitions };
    for file in snapshot.log_data().iter().filter(|f| f.size() < limit && f.deletion_vector_descriptor().is_none()) {
        let values: BTreeMap<String, Option<String>> = file.partition_values_map().into_iter().collect();
        partitions.entry(format!("{values:?}")).or_default().push(file);
    }
    for files in partitions.values_mut() {
        files.sort_by_key(LogicalFileView::size);
    }
    partitions
}

/// The groups of files that are to become one each.
fn plan(delta: &DeltaTable, options: &Options, effort: Effort) -> Vec<Vec<LogicalFileView>> {
    let most = i64::try_from(options.file_size.get()).unwrap_or(i64::MAX);
    let mut groups = Vec::new();
    for files in small_files(delta, options).into_values() {
        if effort == Effort::Last && files.len() <= FEW {
            continue;
        }
        let (mut group, mut size) = (Vec::new(), 0);
        for file in files {
            let alike = effort == Effort::Last || file.size() <= size.max(TINY);
            if !alike || size + file.size() > most || group.len() == AT_ONCE {
                groups.push(std::mem::take(&mut group));
                size = 0;
            }
            size += file.size();
            group.push(file);
        }
        groups.push(group);
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// Replaces files by one with the same records; returns how many were replaced.
async fn merge(table: &Arc<Table>, inputs: Vec<LogicalFileView>) -> DeltaResult<usize> {
    let (writer, store) = {
        let delta = table.delta.lock().await;
        (files::writer(&delta, &table.kind, table.options)?, delta.object_store())
    };
    let readers = inputs
        .iter()
        .map(|f| File { store: store.clone(), path: f.object_store_path(), size: u64::try_from(f.size()).unwrap_or(0) })
        .collect();
    let values = Partition::of(&table.kind, &inputs);
    let kind = table.kind.clone();
    let Some(merged) = files::blocking(rewrite(kind, writer, readers, values)).await? else { return Ok(0) };
    let count = inputs.len();
    Ok(if replace(table, &inputs, merged).await? { count } else { 0 })
}

/// The columns that have one value in a whole partition, and no place in its files.
struct Partition(Vec<(usize, Option<String>)>);

impl Partition {
    fn of(kind: &Kind, files: &[LogicalFileView]) -> Self {
        let mut values = files.first().map(LogicalFileView::partition_values_map).unwrap_or_default();
        let schema = storage::table::schema(kind);
        let columns = tables::partition_columns(kind).into_iter();
        Partition(columns.filter_map(|name| Some((schema.index_of(name).ok()?, values.remove(name).flatten()))).collect())
    }

    /// Rows of a file as rows of the table.
    fn complete(&self, schema: &SchemaRef, rows: &RecordBatch) -> DeltaResult<RecordBatch> {
        let mut in_file = rows.columns().iter();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            columns.push(match self.0.iter().find(|(i, _)| *i == index) {
                None => in_file.next().ok_or_else(|| DeltaTableError::generic("a file has too few columns"))?.clone(),
                Some((_, None)) => new_null_array(field.data_type(), rows.num_rows()),
                Some((_, Some(value))) => constant(value, field.data_type(), rows.num_rows())?,
            });
        }
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }
}

fn constant(value: &str, data_type: &DataType, rows: usize) -> DeltaResult<ArrayRef> {
    let text: ArrayRef = Arc::new(StringArray::from(vec![value]));
    let one = cast(&text, data_type)?;
    Ok(match data_type {
        DataType::Date32 => {
            let day = one.as_any().downcast_ref::<Date32Array>().expect("the cast gave a date");
            Arc::new((0..rows).map(|_| day.is_valid(0).then(|| day.value(0))).collect::<Date32Array>())
        }
        _ => Arc::new(StringArray::from(vec![value; rows])),
    })
}

/// Writes the records of sorted files into one, in order; `None` if one of the files is not known to be sorted, as
/// when somebody else wrote it.
async fn rewrite(kind: Arc<Kind>, mut writer: DeltaWriter, readers: Vec<File>, values: Partition) -> DeltaResult<Option<Merged>> {
    let schema = files::file_schema(&kind);
    let mut streams: Vec<SendableRecordBatchStream> = Vec::with_capacity(readers.len());
    for reader in readers {
        let path = reader.path.clone();
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await?;
        if !builder.metadata().row_groups().iter().all(|group| group.sorting_columns() == Some(&sorting(&kind))) {
            debug!(%path, "the file does not say that it is sorted; it is left alone");
            return Ok(None);
        }
        let batch = rows_of(builder.metadata(), BYTES, ROWS);
        let (to, rows) = (schema.clone(), builder.with_batch_size(batch).build()?);
        let rows = rows.map_err(DataFusionError::from).and_then(move |rows| futures::future::ready(conform(&rows, &to)));
        streams.push(Box::pin(RecordBatchStreamAdapter::new(schema.clone(), rows)));
    }
    let Some(order) = ordering(&kind, &schema) else { return Ok(None) };
    let memory: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let mut merged = StreamingMergeBuilder::new()
        .with_streams(streams)
        .with_schema(schema.clone())
        .with_expressions(&order)
        .with_batch_size(ROWS)
        .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0))
        .with_reservation(MemoryConsumer::new("merge").register(&memory))
        .build()?;

    let full = storage::table::schema(&kind);
    let mut newest = kind.revisable.then(|| Newest::new(&kind, &schema)).transpose()?;
    let mut dropped = 0;
    let written = async {
        while let Some(rows) = merged.next().await.transpose()? {
            let rows = match &mut newest {
                None => rows,
                Some(newest) => {
                    let kept = newest.push(rows)?;
                    dropped = newest.dropped;
                    kept
                }
            };
            writer.write(&values.complete(&full, &rows)?).await?;
        }
        if let Some(last) = newest.as_mut().and_then(|n| n.carry.take()) {
            writer.write(&values.complete(&full, &last)?).await?;
        }
        Ok::<(), DeltaTableError>(())
    }
    .await;
    if let Err(error) = written {
        let _ = writer.abort().await;
        return Err(error);
    }
    Ok(Some(Merged { files: writer.close().await?, dropped }))
}

/// What a merge gave.
struct Merged {
    files: Vec<Add>,
    /// Versions that others supersede.
    dropped: usize,
}

/// The columns of a file as they are written today.
fn conform(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let columns: Result<Vec<ArrayRef>, _> = schema
        .fields()
        .iter()
        .map(|field| {
            let column = rows
                .column_by_name(field.name())
                .ok_or_else(|| DataFusionError::Execution(format!("a file has no column `{}`", field.name())))?;
            Ok::<_, DataFusionError>(cast(column, field.data_type())?)
        })
        .collect();
    Ok(RecordBatch::try_new(schema.clone(), columns?)?)
}

fn ordering(kind: &Kind, schema: &SchemaRef) -> Option<LexOrdering> {
    let options = arrow::compute::SortOptions { descending: false, nulls_first: true };
    let columns = storage::table::sort_columns(kind).into_iter().filter_map(|name| Column::new_with_schema(name, schema).ok());
    LexOrdering::new(columns.map(|column| PhysicalSortExpr::new(Arc::new(column), options)))
}

/// Of rows sorted by key and version, the last of each key.
struct Newest {
    key: Vec<usize>,
    converter: RowConverter,
    /// The last row so far: whether it is the last of its key is not known yet.
    carry: Option<RecordBatch>,
    dropped: usize,
}

impl Newest {
    fn new(kind: &Kind, schema: &SchemaRef) -> DeltaResult<Self> {
        let key: Vec<usize> = kind.key.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        let converter = RowConverter::new(key.iter().map(|i| SortField::new(schema.field(*i).data_type().clone())).collect())?;
        Ok(Newest { key, converter, carry: None, dropped: 0 })
    }

    fn push(&mut self, rows: RecordBatch) -> DeltaResult<RecordBatch> {
        if rows.num_rows() == 0 {
            return Ok(rows);
        }
        let rows = match self.carry.take() {
            None => rows,
            Some(last) => concat_batches(&rows.schema(), [&last, &rows])?,
        };
        let keys: Vec<ArrayRef> = self.key.iter().map(|i| rows.column(*i).clone()).collect();
        let keys = self.converter.convert_columns(&keys)?;
        let last = rows.num_rows() - 1;
        let keep: BooleanArray = (0..last).map(|row| Some(keys.row(row) != keys.row(row + 1))).collect();
        self.dropped += last - keep.true_count();
        self.carry = Some(rows.slice(last, 1));
        Ok(filter_record_batch(&rows.slice(0, last), &keep)?)
    }
}

/// Commits a merge; `false` if somebody else has replaced one of the files.
async fn replace(table: &Table, inputs: &[LogicalFileView], merged: Merged) -> DeltaResult<bool> {
    let replaced: HashSet<String> = inputs.iter().map(|f| f.path().into_owned()).collect();
    // Dropping superseded versions changes what someone who reads every version sees, and Delta wants to know.
    let data_change = merged.dropped > 0;
    let removes = inputs.iter().map(|file| Action::Remove(file.remove_action(data_change)));
    let adds = merged.files.into_iter().map(|file| Action::Add(Add { data_change, ..file }));
    let actions: Vec<Action> = removes.chain(adds).collect();
    let target_size = i64::try_from(table.options.file_size.get()).unwrap_or(i64::MAX);
    let mut attempt = 0;
    loop {
        let mut delta = table.delta.lock().await;
        let live = delta.snapshot()?.log_data().iter().filter(|f| replaced.contains(f.path().as_ref())).count();
        if live < replaced.len() {
            return Ok(false);
        }
        let commit = CommitBuilder::from(CommitProperties::default().with_max_retries(0).with_cleanup_expired_logs(Some(false)))
            .with_actions(actions.clone())
            .build(Some(delta.snapshot()?), delta.log_store(), DeltaOperation::Optimize { predicate: None, target_size })
            .await;
        match commit {
            Ok(commit) => {
                delta.state = Some(commit.snapshot());
                return Ok(true);
            }
            Err(error) if attempt < ATTEMPTS && is_conflict(&error) => {
                attempt += 1;
                delta.update_state().await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Removes files that no version within the table's retention refers to: now and then while the pipeline runs, and when
/// it ends. They are found by listing everything: a crash leaves files that the log never knew, and a checkpoint
/// forgets those that were removed longer ago than the retention.
async fn vacuum(table: &Table, effort: Effort) -> DeltaResult<()> {
    if effort == Effort::Often {
        let mut vacuumed = table.vacuumed.lock().await;
        if vacuumed.elapsed() < VACUUM_EVERY {
            return Ok(());
        }
        *vacuumed = Instant::now();
    }
    let delta = table.delta.lock().await.clone();
    let (_, removed) = delta.vacuum().with_mode(VacuumMode::Full).await?;
    if !removed.files_deleted.is_empty() {
        info!(table = table.name(), files = removed.files_deleted.len(), "removed files that nobody refers to");
    }
    table.delta.lock().await.update_state().await
}
