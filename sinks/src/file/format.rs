//! The formats of files: stored rows in, bytes out.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::thread;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use arrow::json::LineDelimitedWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use schemars::JsonSchema;
use serde::Deserialize;
use storage::attempts::Attempts;
use storage::place::is_full;

use crate::text::{Text, csv_header};

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values with a header.
    Csv,
    /// An Arrow IPC file (Feather).
    Arrow,
    /// A Parquet file, compressed with zstd.
    Parquet,
}

impl Format {
    /// The format that a path's extension names.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        let extension = Path::new(path).extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "ndjson" | "jsonl" | "json" => Format::Ndjson,
            "csv" => Format::Csv,
            "arrow" | "feather" | "ipc" => Format::Arrow,
            "parquet" => Format::Parquet,
            _ => return None,
        })
    }
}

/// Bytes of text that are gathered before they are written.
const GATHERED: usize = 256 << 10;

/// A file that waits for room on a disk that is full. What was written of it stays written, so that nothing above need know.
pub(super) struct Patient {
    pub(super) file: File,
    pub(super) attempts: Attempts,
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.file.write(bytes) {
                Err(error) if is_full(&error) => {
                    thread::sleep(self.attempts.failed(&error.to_string(), "make room where it lies"));
                }
                written => {
                    if written.is_ok() {
                        self.attempts.succeeded();
                    }
                    return written;
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file being written.
pub(super) enum Encoder {
    Ndjson(LineDelimitedWriter<BufWriter<Patient>>),
    Csv { file: Patient, text: Vec<u8> },
    Arrow(Box<FileWriter<BufWriter<Patient>>>),
    Parquet(Box<ArrowWriter<Patient>>),
}

/// Why rows could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum EncodeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

impl Encoder {
    /// Begins a file for rows of this schema.
    pub(super) fn new(format: Format, file: Patient, schema: &SchemaRef) -> Result<Self, EncodeError> {
        Ok(match format {
            Format::Ndjson => Encoder::Ndjson(model::json::writer(BufWriter::with_capacity(GATHERED, file))),
            Format::Csv => {
                let mut text = Vec::new();
                csv_header(schema, &mut text);
                Encoder::Csv { file, text }
            }
            Format::Arrow => Encoder::Arrow(Box::new(FileWriter::try_new_buffered(file, schema)?)),
            Format::Parquet => {
                let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
                Encoder::Parquet(Box::new(ArrowWriter::try_new(file, schema.clone(), Some(properties))?))
            }
        })
    }

    /// Appends rows.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        match self {
            Encoder::Ndjson(writer) => writer.write(rows)?,
            Encoder::Csv { file, text } => {
                let lines = Text::of(rows)?;
                for row in 0..rows.num_rows() {
                    lines.csv(row, text);
                    flush_over(GATHERED, file, text)?;
                }
            }
            Encoder::Arrow(writer) => writer.write(rows)?,
            Encoder::Parquet(writer) => writer.write(rows)?,
        }
        Ok(())
    }

    /// Ends the file; its bytes are on the disk afterwards.
    pub(super) fn finish(self) -> Result<(), EncodeError> {
        let file = match self {
            Encoder::Ndjson(mut writer) => {
                writer.finish()?;
                writer.into_inner().into_inner().map_err(io::IntoInnerError::into_error)?
            }
            Encoder::Csv { mut file, mut text } => {
                flush_over(0, &mut file, &mut text)?;
                file
            }
            Encoder::Arrow(writer) => writer.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?,
            Encoder::Parquet(writer) => writer.into_inner()?,
        };
        Ok(file.file.sync_all()?)
    }
}

/// Writes text that has become longer than `length`.
fn flush_over(length: usize, file: &mut Patient, text: &mut Vec<u8>) -> io::Result<()> {
    if text.len() > length {
        file.write_all(text)?;
        text.clear();
    }
    Ok(())
}
