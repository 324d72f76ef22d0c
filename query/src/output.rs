//! Answers written out: for people, for spreadsheets, for programs.
//!
//! Decimals are written as text with all their digits and no trailing zeros, in JSON in quotes, because most readers of
//! JSON would make floats of them. Times are RFC 3339 in UTC. Bytes are written as the text they are, or as `0x` and hex digits.
//! Parquet has the answer's own types.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericListArray, RecordBatch, StringArray};
use arrow::csv::WriterBuilder as CsvWriter;
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::WriterBuilder as JsonWriter;
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::util::pretty::pretty_format_batches;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::{Answer, QueryError};

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// All of them, by the names they go by.
    pub const ALL: [(&'static str, Format); 5] =
        [("table", Format::Table), ("csv", Format::Csv), ("json", Format::Json), ("ndjson", Format::Ndjson), ("parquet", Format::Parquet)];
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Format::ALL.map(|(name, _)| name).join(", ");
        Format::ALL
            .into_iter()
            .find(|(name, _)| *name == text)
            .map(|(_, format)| format)
            .ok_or_else(|| format!("`{text}` is no format; write one of {names}"))
    }
}

/// Writes an answer; returns its number of rows.
///
/// # Errors
/// The query fails while it runs, or what is written to refuses.
pub async fn write(answer: Answer, format: Format, out: impl Write + Send) -> Result<u64, QueryError> {
    let mut out = Counting { out, rows: 0 };
    run(answer, format, &mut out).await?;
    out.flush().map_err(refused)?;
    Ok(out.rows)
}

/// Writes an answer into a file, which appears under its name when it is complete; returns its number of rows.
///
/// # Errors
/// As [`write()`]. The file that was there before is then untouched.
pub async fn write_file(answer: Answer, format: Format, path: &Path) -> Result<u64, QueryError> {
    let at = |error: io::Error| QueryError::Output { place: path.display().to_string(), what: error.to_string() };
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let file = fs::File::create(&partial).map_err(at)?;
    let written = match write(answer, format, io::BufWriter::new(&file)).await {
        Ok(rows) => file.sync_all().and_then(|()| fs::rename(&partial, path)).map(|()| rows).map_err(at),
        Err(QueryError::Output { what, .. }) => Err(QueryError::Output { place: path.display().to_string(), what }),
        Err(error) => Err(error),
    };
    if written.is_err() {
        // The error is what counts; that the remains stay is told by their name.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Where rows go, and how many went.
struct Counting<W> {
    out: W,
    rows: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

async fn run<W: Write + Send>(mut answer: Answer, format: Format, out: &mut Counting<W>) -> Result<(), QueryError> {
    let own = answer.schema();
    if format == Format::Parquet {
        let level = ZstdLevel::try_new(3).map_err(|e| refused(io::Error::other(e)))?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
        let failed = |e: parquet::errors::ParquetError| refused(io::Error::other(e));
        let mut rows = 0;
        let mut writer = ArrowWriter::try_new(&mut *out, own, Some(properties)).map_err(failed)?;
        while let Some(batch) = answer.next().await? {
            rows += batch.num_rows() as u64;
            writer.write(&batch).map_err(failed)?;
        }
        writer.close().map_err(failed)?;
        out.rows = rows;
        return Ok(());
    }
    let schema = readable_schema(&own);
    let failed = |e: ArrowError| refused(io::Error::other(e));
    match format {
        Format::Table => {
            let mut batches = Vec::new();
            while let Some(batch) = answer.next().await? {
                out.rows += batch.num_rows() as u64;
                batches.push(readable(&batch, &schema).map_err(failed)?);
            }
            if batches.is_empty() {
                batches.push(RecordBatch::new_empty(schema));
            }
            writeln!(out, "{}", pretty_format_batches(&batches).map_err(failed)?).map_err(refused)
        }
        Format::Csv => {
            let mut rows = 0;
            let mut writer = CsvWriter::new().with_header(true).build(&mut *out);
            // The header is written with the first batch, and an empty answer has one too.
            writer.write(&RecordBatch::new_empty(schema.clone())).map_err(failed)?;
            while let Some(batch) = answer.next().await? {
                rows += batch.num_rows() as u64;
                writer.write(&readable(&batch, &schema).map_err(failed)?).map_err(failed)?;
            }
            drop(writer);
            out.rows = rows;
            Ok(())
        }
        Format::Json | Format::Ndjson => {
            let mut rows = 0;
            let builder = JsonWriter::new().with_explicit_nulls(true);
            let mut array = None;
            let mut lines = None;
            match format {
                Format::Json => array = Some(builder.build::<_, JsonArray>(&mut *out)),
                _ => lines = Some(builder.build::<_, LineDelimited>(&mut *out)),
            }
            while let Some(batch) = answer.next().await? {
                rows += batch.num_rows() as u64;
                let batch = readable(&batch, &schema).map_err(failed)?;
                if let Some(writer) = &mut array {
                    writer.write(&batch).map_err(failed)?;
                }
                if let Some(writer) = &mut lines {
                    writer.write(&batch).map_err(failed)?;
                }
            }
            if let Some(mut writer) = array {
                writer.finish().map_err(failed)?;
                writeln!(writer.into_inner()).map_err(refused)?;
            }
            drop(lines);
            out.rows = rows;
            Ok(())
        }
        Format::Parquet => unreachable!("written above"),
    }
}

fn refused(error: io::Error) -> QueryError {
    QueryError::Output { place: "output".into(), what: error.to_string() }
}

/// The columns with text in place of what most readers would misread.
fn readable_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| Field::new(field.name(), readable_type(field.data_type()), field.is_nullable()));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn readable_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Binary => DataType::Utf8,
        DataType::List(item) => DataType::List(Arc::new(Field::new(item.name(), readable_type(item.data_type()), item.is_nullable()))),
        other => other.clone(),
    }
}

fn readable(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = rows.columns().iter().map(readable_column).collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

fn readable_column(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match column.data_type() {
        DataType::Decimal128(..) => texts(column, |i| Ok(trimmed(column.as_primitive::<Decimal128Type>().value_as_string(i))))?,
        DataType::Decimal256(..) => texts(column, |i| Ok(trimmed(column.as_primitive::<Decimal256Type>().value_as_string(i))))?,
        DataType::Binary => texts(column, |i| Ok(bytes_as_text(column.as_binary::<i32>().value(i))))?,
        DataType::List(item) => {
            let list = column.as_list::<i32>();
            let field = Arc::new(Field::new(item.name(), readable_type(item.data_type()), item.is_nullable()));
            let values = readable_column(list.values())?;
            Arc::new(GenericListArray::<i32>::try_new(field, list.offsets().clone(), values, list.nulls().cloned())?)
        }
        _ => column.clone(),
    })
}

fn texts(column: &ArrayRef, text: impl Fn(usize) -> Result<String, ArrowError>) -> Result<ArrayRef, ArrowError> {
    let texts: StringArray = (0..column.len()).map(|i| column.is_valid(i).then(|| text(i)).transpose()).collect::<Result<_, _>>()?;
    Ok(Arc::new(texts))
}

/// A number without the zeros that only its type puts behind it.
fn trimmed(mut number: String) -> String {
    if number.contains('.') {
        number.truncate(number.trim_end_matches('0').trim_end_matches('.').len());
    }
    number
}

fn bytes_as_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("0x".to_owned(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a text takes everything");
            hex
        }),
    }
}

#[cfg(test)]
mod tests {
    use config::settings::Settings;

    use super::*;
    use crate::Engine;

    async fn written(sql: &str, format: Format) -> String {
        let engine = Engine::open(&Settings { data: Some("/nowhere/at/all".into()), ..Settings::default() }).expect("opens");
        let mut out = Vec::new();
        write(engine.sql(sql).await.expect(sql), format, &mut out).await.expect("writes");
        String::from_utf8(out).expect("text")
    }

    const SQL: &str = "SELECT 1.50 AS price, 'a\"b' AS name, to_timestamp_micros(1723161255342000) AS at, \
        arrow_cast('x', 'Binary') AS raw, [CAST(2.500 AS DECIMAL(38, 12))] AS list, NULL::BIGINT AS missing";

    #[tokio::test]
    async fn every_text_format_says_the_same() {
        assert_eq!(
            written(SQL, Format::Ndjson).await,
            "{\"price\":\"1.5\",\"name\":\"a\\\"b\",\"at\":\"2024-08-08T23:54:15.342\",\"raw\":\"x\",\"list\":[\"2.5\"],\"missing\":null}\n"
        );
        assert_eq!(
            written("SELECT 1.50 AS price UNION ALL SELECT 2.25 ORDER BY price", Format::Json).await,
            "[{\"price\":\"1.5\"},{\"price\":\"2.25\"}]\n"
        );
        assert_eq!(
            written("SELECT 1.50 AS price, 'a,b' AS name, NULL::BIGINT AS missing", Format::Csv).await,
            "price,name,missing\n1.5,\"a,b\",\n"
        );
        assert_eq!(
            written("SELECT 1.50 AS price, 'x' AS name", Format::Table).await,
            "+-------+------+\n| price | name |\n+-------+------+\n| 1.5   | x    |\n+-------+------+\n"
        );
    }

    #[tokio::test]
    async fn an_empty_answer_has_its_header() {
        assert_eq!(written("SELECT 1 AS one WHERE false", Format::Csv).await, "one\n");
        assert_eq!(written("SELECT 1 AS one WHERE false", Format::Json).await, "[]\n");
        assert_eq!(written("SELECT 1 AS one WHERE false", Format::Ndjson).await, "");
        assert!(written("SELECT 1 AS one WHERE false", Format::Table).await.contains("| one |"));
    }

    #[tokio::test]
    async fn a_file_appears_when_it_is_complete() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let engine = Engine::open(&Settings { data: Some("/nowhere/at/all".into()), ..Settings::default() }).expect("opens");
        let path = folder.path().join("out.parquet");
        let rows = write_file(engine.sql("SELECT * FROM generate_series(1, 20000)").await.expect("plans"), Format::Parquet, &path).await;
        assert_eq!(rows.expect("writes"), 20_000);
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(fs::File::open(&path).expect("a file"), 50_000)
            .expect("Parquet");
        assert_eq!(reader.map(|rows| rows.expect("rows").num_rows()).sum::<usize>(), 20_000);

        let failing = engine.sql("SELECT 1 / (value - 15000) FROM generate_series(1, 20000)").await.expect("plans");
        let before = fs::metadata(&path).expect("a file").len();
        write_file(failing, Format::Csv, &path).await.expect_err("divides by zero");
        assert_eq!(fs::metadata(&path).expect("still there").len(), before);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left behind");

        let nowhere = write_file(engine.sql("SELECT 1").await.expect("plans"), Format::Csv, Path::new("/nowhere/out.csv")).await;
        assert!(nowhere.expect_err("no folder").to_string().contains("/nowhere/out.csv"));
    }

    #[test]
    fn numbers_keep_their_digits() {
        for (number, text) in [("1.500", "1.5"), ("100", "100"), ("100.000", "100"), ("-0.010", "-0.01"), ("0.000", "0")] {
            assert_eq!(trimmed(number.into()), text);
        }
        assert_eq!(bytes_as_text(b"\xff\x00"), "0xff00");
    }
}
