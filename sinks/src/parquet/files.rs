//! Rows as Parquet files, written sorted and with statistics.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use deltalake_core::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake_core::kernel::Add;
use deltalake_core::operations::get_num_idx_cols_and_stats_columns;
use deltalake_core::{DeltaResult, DeltaTable, DeltaTableError};
use model::{Kind, tables};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;

use super::Options;

/// Rows of a row group: the unit that a reader skips by statistics, and what it holds in memory.
const ROW_GROUP: usize = 262_144;
/// The most bytes of one, however long its rows are.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// Stored rows with the day they are partitioned by, in the types of the table.
///
/// # Errors
/// Only those of Arrow itself.
pub(super) fn with_date(kind: &Kind, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = storage::table::schema(kind);
    let days: Date32Array = kind.times(rows).iter().map(|time| time.and_then(|t| i32::try_from(t.div_euclid(DAY)).ok())).collect();
    let mut columns: Vec<ArrayRef> =
        rows.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
    columns.push(Arc::new(days));
    RecordBatch::try_new(schema, columns)
}

/// The columns that stand in the files themselves, which is all but those of the partition.
pub(super) fn file_schema(kind: &Kind) -> SchemaRef {
    let partitions = tables::partition_columns(kind);
    let schema = storage::table::schema(kind);
    let fields: Vec<_> = schema.fields().iter().filter(|f| !partitions.contains(&f.name().as_str())).cloned().collect();
    Arc::new(Schema::new(fields))
}

/// The order that a file declares to be in.
pub(super) fn sorting(kind: &Kind) -> Vec<SortingColumn> {
    let schema = file_schema(kind);
    let position = |name: &str| schema.index_of(name).ok().and_then(|i| i32::try_from(i).ok());
    let columns = storage::table::sort_columns(kind).into_iter().filter_map(position);
    columns.map(|column_idx| SortingColumn { column_idx, descending: false, nulls_first: true }).collect()
}

/// Something that writes a table's files.
pub(super) fn writer(table: &DeltaTable, kind: &Kind, options: Options) -> DeltaResult<DeltaWriter> {
    let level = ZstdLevel::try_new(options.zstd_level)?;
    let properties = WriterProperties::builder()
        .set_created_by(concat!("marketprism ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_sorting_columns(Some(sorting(kind)))
        .build();
    let (indexed, statistics) = get_num_idx_cols_and_stats_columns(Some(table.snapshot()?.table_config()), Default::default());
    let partitions = tables::partition_columns(kind).into_iter().map(str::to_owned).collect();
    let config = WriterConfig::new(
        storage::table::schema(kind),
        partitions,
        Some(properties),
        Some(options.file_size),
        Some(ROW_GROUP / 4),
        indexed,
        statistics,
    );
    Ok(DeltaWriter::new(table.object_store(), config))
}

/// Runs what computes more than it waits, where it does not hold up others.
pub(super) async fn blocking<T: Send + 'static>(work: impl Future<Output = DeltaResult<T>> + Send + 'static) -> DeltaResult<T> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(work)).await.unwrap_or_else(|e| Err(DeltaTableError::generic(e.to_string())))
}

/// Writes rows, split by partition, into new files that nobody knows of yet.
pub(super) async fn write(mut writer: DeltaWriter, rows: RecordBatch) -> DeltaResult<Vec<Add>> {
    if let Err(error) = writer.write(&rows).await {
        // What was begun is taken back; whether that works changes nothing about the error.
        let _ = writer.abort().await;
        return Err(error);
    }
    writer.close().await
}
