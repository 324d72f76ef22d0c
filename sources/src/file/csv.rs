//! Records as comma-separated values with a header line.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use csv::{ByteRecord, ReaderBuilder, WriterBuilder};
use model::Kind;
use model::dialect::Reject;

use super::columns::{Cell, Columns};
use super::gather::{Gather, Part};
use crate::SourceError;

/// Rows taken at once.
const ROWS: usize = 8_192;

/// A file of comma-separated values.
pub(super) struct CsvRows {
    reader: csv::Reader<Box<dyn Read + Send>>,
    columns: Columns,
    /// The column of the kind, and whether it may be null, for each field of a line.
    fields: Vec<(usize, bool)>,
    record: ByteRecord,
    ended: bool,
}

impl CsvRows {
    /// Reads the header and passes the records before an offset.
    ///
    /// # Errors
    /// Names the columns that the kind does not have, or those that are missing.
    pub(super) fn open(path: &Path, input: Box<dyn Read + Send>, kind: &Arc<Kind>, from: u64) -> Result<Self, SourceError> {
        // Lines of another length than the header are told from the others here, not by the reader.
        let mut reader = ReaderBuilder::new().flexible(true).buffer_capacity(1 << 20).from_reader(input);
        let header = reader.byte_headers().map_err(|error| SourceError {
            transient: false,
            place: path.display().to_string(),
            what: format!("its header cannot be read: {error}"),
            remedy: "get a whole copy of the file".into(),
        })?;
        let names: Vec<String> = header.iter().map(|name| String::from_utf8_lossy(name.trim_ascii()).into_owned()).collect();
        check_names(path, kind, names.iter().map(String::as_str))?;
        let columns = Columns::new(kind);
        let field = |name: &String| {
            let column = columns.position(name.as_bytes()).expect("the names were checked");
            (column, kind.columns[column].nullable)
        };
        let fields = names.iter().map(field).collect();
        let mut record = ByteRecord::new();
        let mut ended = false;
        while !ended && reader.position().byte() < from {
            // Damage on the way ends the file before the offset, as a shorter file does.
            ended = !reader.read_byte_record(&mut record).unwrap_or(false);
        }
        Ok(CsvRows { reader, columns, fields, record, ended })
    }

    /// Puts in the record that was read.
    fn put(&mut self) -> Result<(), Reject> {
        if self.record.len() != self.fields.len() {
            return Err(Reject::new(
                "malformed",
                format!("the line has {} fields and the header {}", self.record.len(), self.fields.len()),
            ));
        }
        for (field, (column, nullable)) in self.record.iter().zip(&self.fields) {
            let text = std::str::from_utf8(field).map_err(|_| Reject::new("malformed", "a field is not UTF-8"))?;
            let cell = if text.is_empty() && *nullable { Cell::Null } else { Cell::Text(Cow::Borrowed(text)) };
            self.columns.put(*column, cell)?;
        }
        self.columns.commit()
    }
}

impl Part for CsvRows {
    fn next(&mut self, until: u64, gather: &mut Gather) -> Option<RecordBatch> {
        if self.ended {
            return None;
        }
        while self.columns.rows() < ROWS && self.offset() < until {
            match self.reader.read_byte_record(&mut self.record) {
                Ok(true) => {
                    gather.number();
                    match self.put() {
                        Ok(()) => gather.mark(self.reader.position().byte()),
                        Err(why) => {
                            self.columns.undo();
                            gather.refuse(&why, &line(&self.record));
                        }
                    }
                }
                Ok(false) => {
                    self.ended = true;
                    break;
                }
                Err(error) => {
                    gather.damage(self.offset(), error);
                    self.ended = true;
                    break;
                }
            }
        }
        Some(self.columns.finish())
    }

    fn offset(&self) -> u64 {
        self.reader.position().byte()
    }
}

/// The record as a line, quoted anew.
fn line(record: &ByteRecord) -> Vec<u8> {
    let mut writer = WriterBuilder::new().flexible(true).from_writer(Vec::new());
    // Writing to memory does not fail.
    let written = writer.write_byte_record(record).ok().and_then(|()| writer.into_inner().ok());
    written.unwrap_or_default().trim_ascii_end().to_vec()
}

/// Checks the names of a file's columns against those of its kind.
///
/// # Errors
/// Names the columns that the kind does not have, those that stand twice and those that are missing.
pub(super) fn check_names<'n>(path: &Path, kind: &Kind, names: impl Iterator<Item = &'n str> + Clone) -> Result<(), SourceError> {
    let failed = |what: String, remedy: String| Err(SourceError { transient: false, place: path.display().to_string(), what, remedy });
    let quoted = |names: Vec<&str>| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    let known = || quoted(kind.columns.iter().map(|c| c.name.as_ref()).collect());
    let unknown: Vec<&str> = names.clone().filter(|n| kind.column(n).is_none()).collect();
    if !unknown.is_empty() {
        return failed(
            format!("`{}` records have no column {}", kind.name, quoted(unknown)),
            format!("drop or rename it; there are {}", known()),
        );
    }
    let twice: Vec<&str> =
        names.clone().enumerate().filter(|(i, name)| names.clone().take(*i).any(|n| n == *name)).map(|(_, n)| n).collect();
    if !twice.is_empty() {
        return failed(format!("the column {} stands twice", quoted(twice)), "drop one of them".into());
    }
    let missing: Vec<&str> =
        kind.columns.iter().filter(|c| !c.nullable && !names.clone().any(|n| n == c.name)).map(|c| c.name.as_ref()).collect();
    if !missing.is_empty() {
        return failed(
            format!("`{}` records need the column {}", kind.name, quoted(missing)),
            "add it: only nullable columns may be missing".into(),
        );
    }
    Ok(())
}
