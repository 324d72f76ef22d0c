//! Every kind comes back as it went in, whatever way it takes: between processes, through ClickHouse, through the
//! cold tables. The rows are those of [`crate::awkward`], the columns those of the kind's one declaration, so a column
//! that a store forgets or bends is found here.

use std::error::Error;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamDecoder;
use arrow::row::{OwnedRow, RowConverter, SortField};
use config::settings::{ColdStore, Settings};
use model::tables::{in_clickhouse, stored, stored_schema};
use model::{Batch, Kind, kinds};

use crate::awkward;
use crate::clickhouse::{SERVER, client, epoch, hot, open};

type TestResult = Result<(), Box<dyn Error>>;

/// The logical time of all rows here.
const TIME: u64 = 1_723_161_255_342;

/// Rows as comparable bytes, in an order of their own.
fn sorted(rows: &RecordBatch) -> Result<Vec<OwnedRow>, Box<dyn Error>> {
    let fields = rows.columns().iter().map(|c| SortField::new(c.data_type().clone())).collect();
    let mut sorted: Vec<OwnedRow> = RowConverter::new(fields)?.convert_columns(rows.columns())?.iter().map(|row| row.owned()).collect();
    sorted.sort();
    Ok(sorted)
}

/// Panics with the first column that differs.
fn assert_same(kind: &Kind, went_in: &RecordBatch, came_out: &RecordBatch) -> TestResult {
    assert_eq!(went_in.num_rows(), came_out.num_rows(), "rows of `{}`", kind.name);
    if sorted(went_in)? != sorted(came_out)? {
        for (i, field) in went_in.schema().fields().iter().enumerate() {
            let (a, b) = (sorted(&went_in.project(&[i])?)?, sorted(&came_out.project(&[i])?)?);
            assert_eq!(a, b, "column `{}` of `{}`", field.name(), kind.name);
        }
        panic!("values of `{}` stand in other rows", kind.name);
    }
    Ok(())
}

/// The columns of a schema, in whatever types a store gives them, as the schema's own.
fn as_schema(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch, Box<dyn Error>> {
    let column = |name: &str| rows.column_by_name(name).ok_or_else(|| format!("column `{name}` did not come back"));
    let columns: Result<Vec<ArrayRef>, Box<dyn Error>> =
        schema.fields().iter().map(|field| Ok(cast(column(field.name())?, field.data_type())?)).collect();
    Ok(RecordBatch::try_new(schema.clone(), columns?)?)
}

fn kept() -> impl Iterator<Item = &'static Arc<Kind>> {
    kinds::all().into_iter().filter(|k| k.table.is_some())
}

fn kept_hot() -> impl Iterator<Item = &'static Arc<Kind>> {
    kinds::all().into_iter().filter(|k| in_clickhouse(k))
}

#[test]
fn between_processes() -> TestResult {
    for kind in kinds::all() {
        let batch = awkward::rows(kind).with_diffs((0..awkward::ROWS).map(|i| if i % 3 == 0 { -1 } else { 1 }).collect());
        let back: Batch = serde_json::from_slice(&serde_json::to_vec(&batch)?)?;
        assert_eq!((&*back.kind, back.rows.schema(), &back.diffs), (&**kind, kind.schema().clone(), &batch.diffs));
        assert_same(kind, &batch.rows, &back.rows)?;
    }
    Ok(())
}

#[test]
fn to_stored_rows_and_back() -> TestResult {
    for kind in kinds::all() {
        let batch = awkward::rows(kind);
        let rows = stored(&batch, TIME)?;
        assert_eq!(rows.schema(), stored_schema(kind));
        let back: Vec<ArrayRef> =
            kind.columns.iter().zip(rows.columns()).map(|(column, array)| cast(array, &column.ty.arrow())).collect::<Result<_, _>>()?;
        assert_same(kind, &batch.rows, &RecordBatch::try_new(kind.schema().clone(), back)?)?;
    }
    Ok(())
}

#[tokio::test]
async fn through_clickhouse() -> TestResult {
    let settings = Settings { hot: Some(hot("kinds")), ..Settings::default() };
    let mut writer = open("clickhouse", "{}", settings, kept_hot()).await?;
    let rows = kept_hot().map(|kind| (TIME, awkward::rows(kind))).collect();
    writer.commit(epoch(TIME, TIME + 1), rows).await?;
    writer.close().await?;
    for kind in kept_hot() {
        let table = kind.table.as_ref().expect("a kept kind has a table");
        assert_eq!(SERVER.query(&format!("SELECT count() FROM kinds.{table}")), awkward::ROWS.to_string());
        let sql = format!("SELECT * FROM kinds.{table}{}", if kind.revisable { " FINAL" } else { "" });
        assert_same(kind, &stored(&awkward::rows(kind), TIME)?, &as_schema(&stored_schema(kind), &select(&sql).await?)?)?;
    }
    Ok(())
}

#[tokio::test]
async fn through_the_cold_tables_and_sql() -> TestResult {
    let folder = tempfile::tempdir()?;
    let settings =
        Settings { cold: ColdStore { url: Some(folder.path().display().to_string()), ..ColdStore::default() }, ..Settings::default() };
    let mut writer = open("parquet", "{}", settings.clone(), kept()).await?;
    let rows = kept().map(|kind| (TIME, awkward::rows(kind))).collect();
    writer.commit(epoch(TIME, TIME + 1), rows).await?;
    writer.close().await?;
    let engine = query::Engine::open(&settings)?;
    for kind in kept() {
        let table = kind.table.as_ref().expect("a kept kind has a table");
        let answer = engine.sql(&format!("SELECT * FROM {table}")).await?.collect().await?;
        let answer = concat_batches(&answer.first().ok_or("no rows")?.schema(), &answer)?;
        // What tells versions apart is the tables' own business and not seen in SQL.
        let expected = stored(&awkward::rows(kind), TIME)?.project(&(0..kind.columns.len()).collect::<Vec<_>>())?;
        assert_same(kind, &expected, &as_schema(&expected.schema(), &answer)?)?;
    }
    Ok(())
}

/// What ClickHouse answers, with texts as bytes: some of ours are no UTF-8.
async fn select(sql: &str) -> Result<RecordBatch, Box<dyn Error>> {
    let query = client()
        .query(&sql.replace('?', "??"))
        .with_setting("output_format_arrow_string_as_string", "0")
        .with_setting("output_format_arrow_compression_method", "none");
    let mut cursor = query.fetch_bytes("ArrowStream")?;
    let (mut decoder, mut batches) = (StreamDecoder::new(), Vec::new());
    while let Some(bytes) = cursor.next().await? {
        let mut buffer = Buffer::from(bytes);
        while !buffer.is_empty() {
            batches.extend(decoder.decode(&mut buffer)?);
        }
    }
    decoder.finish()?;
    Ok(concat_batches(&batches.first().ok_or("no rows")?.schema(), &batches)?)
}
