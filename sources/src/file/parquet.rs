//! Records in Parquet files.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, PrimitiveArray, RecordBatch,
    StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use model::dialect::Reject;
use model::{Kind, Type};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::columns::{Cell, Columns};
use super::csv::check_names;
use super::gather::{Gather, Part};
use crate::SourceError;

/// Rows taken at once.
const ROWS: usize = 8_192;

/// A Parquet file.
pub(super) struct ParquetRows {
    reader: ParquetRecordBatchReader,
    columns: Columns,
    /// The column of the kind, and its type, for each column of the file.
    fields: Vec<(usize, Type)>,
    /// What was read and not handed over: only where reading stopped in the middle.
    left: Option<RecordBatch>,
    rows: u64,
    ended: bool,
}

impl ParquetRows {
    /// Reads the schema and passes so many rows.
    ///
    /// # Errors
    /// Names the columns that the kind does not have, that are missing, or that cannot be read without loss.
    pub(super) fn open(path: &Path, kind: &Arc<Kind>, from: u64) -> Result<Self, SourceError> {
        let failed =
            |what: String, remedy: &str| SourceError { transient: false, place: path.display().to_string(), what, remedy: remedy.into() };
        let broken = |what: String| failed(what, "get a whole copy of the file: the schema of a Parquet file stands at its end");
        let file = std::fs::File::open(path).map_err(|e| failed(e.to_string(), "check that the file exists and can be read"))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| broken(e.to_string()))?;
        let schema = builder.schema().clone();
        check_names(path, kind, schema.fields().iter().map(|f| f.name().as_str()))?;
        let columns = Columns::new(kind);
        let mut fields = Vec::new();
        for field in schema.fields() {
            let column = columns.position(field.name().as_bytes()).expect("the names were checked");
            let ty = kind.columns[column].ty;
            if !holds(ty, field.data_type()) {
                let what = format!("`{}` is a column of {}, which cannot be read as {ty} without loss", field.name(), field.data_type());
                return Err(failed(what, "write the file with a type that holds the values exactly"));
            }
            fields.push((column, ty));
        }
        let rows = from.min(u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0));
        let builder = builder.with_batch_size(ROWS).with_offset(usize::try_from(rows).unwrap_or(usize::MAX));
        let reader = builder.build().map_err(|e| broken(e.to_string()))?;
        Ok(ParquetRows { reader, columns, fields, left: None, rows, ended: false })
    }

    fn take(&mut self, batch: &RecordBatch, gather: &mut Gather) -> Result<(), ArrowError> {
        let sources =
            self.fields.iter().zip(batch.columns()).map(|((_, ty), column)| Cells::of(*ty, column)).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            gather.number();
            self.rows += 1;
            let mut list = Vec::new();
            let put = sources
                .iter()
                .zip(&self.fields)
                .try_for_each(|(cells, (column, _))| self.columns.put(*column, cells.cell(row, &mut list)?));
            match put.and_then(|()| self.columns.commit()) {
                Ok(()) => gather.mark(self.rows),
                Err(why) => {
                    self.columns.undo();
                    gather.refuse(&why, &json(&batch.slice(row, 1)));
                }
            }
        }
        Ok(())
    }
}

impl Part for ParquetRows {
    fn next(&mut self, until: u64, gather: &mut Gather) -> Option<RecordBatch> {
        if self.ended {
            return None;
        }
        let room = usize::try_from(until - self.rows).unwrap_or(usize::MAX);
        let result = self.left.take().map_or_else(|| self.reader.next(), |batch| Some(Ok(batch)))?.and_then(|batch| {
            let rows = batch.num_rows().min(room);
            self.left = (rows < batch.num_rows()).then(|| batch.slice(rows, batch.num_rows() - rows));
            self.take(&batch.slice(0, rows), gather)
        });
        if let Err(error) = result {
            gather.damage(self.rows, format!("no row beyond this one can be read: {error}"));
            self.ended = true;
        }
        Some(self.columns.finish())
    }

    fn offset(&self) -> u64 {
        self.rows
    }
}

/// The row as a JSON object.
fn json(row: &RecordBatch) -> Vec<u8> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    match writer.write(row).and_then(|()| writer.finish()) {
        Ok(()) => writer.into_inner().trim_ascii_end().to_vec(),
        // A type that JSON cannot show.
        Err(_) => format!("{row:?}").into_bytes(),
    }
}

/// Whether a column of this Arrow type can be read as a column of a kind without loss.
fn holds(ty: Type, data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, Boolean, Dictionary, LargeBinary, LargeUtf8, List, Null, Timestamp, Utf8, Utf8View};
    let text = |t: &DataType| matches!(t, Utf8 | LargeUtf8 | Utf8View);
    match (ty, data_type) {
        (_, Null) => true,
        (_, Dictionary(_, value)) => holds(ty, value),
        (Type::Label | Type::Text, t) => text(t) || (ty == Type::Text && t.is_integer()),
        (Type::Decimal, t) => text(t) || t.is_decimal() || t.is_integer(),
        (Type::Decimals, List(item)) => text(item.data_type()) || item.data_type().is_decimal() || item.data_type().is_integer(),
        (Type::Integer, t) => text(t) || t.is_integer(),
        (Type::Float, t) => text(t) || t.is_numeric(),
        (Type::Time, t) => text(t) || t.is_integer() || matches!(t, Timestamp(..)),
        (Type::Boolean, t) => matches!(t, Boolean) || text(t),
        (Type::Bytes, t) => matches!(t, Binary | LargeBinary | BinaryView),
        _ => false,
    }
}

/// The cells of a column: exact values where Arrow has them, text for what needs a closer look.
enum Cells {
    Nulls,
    Text(StringArray),
    Integers(Int64Array),
    /// Units, and by how much to multiply them.
    Units(Decimal128Array, i128),
    Times(Int64Array, TimeUnit),
    Floats(Float64Array),
    Booleans(BooleanArray),
    Bytes(BinaryArray),
    Lists(ListArray, Box<Cells>),
}

impl Cells {
    fn of(ty: Type, column: &ArrayRef) -> Result<Self, ArrowError> {
        Ok(match column.data_type() {
            DataType::Null => Cells::Nulls,
            DataType::Dictionary(_, value) => return Cells::of(ty, &cast(column, value)?),
            DataType::List(_) => {
                let list = column.as_list::<i32>().clone();
                let items = Cells::of(Type::Decimal, list.values())?;
                Cells::Lists(list, Box::new(items))
            }
            DataType::Boolean => Cells::Booleans(column.as_boolean().clone()),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                Cells::Bytes(cast(column, &DataType::Binary)?.as_binary().clone())
            }
            DataType::Timestamp(unit, _) => Cells::Times(cast(column, &DataType::Int64)?.as_primitive().clone(), *unit),
            DataType::Decimal128(_, scale @ 0..=12) if ty == Type::Decimal => {
                Cells::Units(column.as_primitive::<Decimal128Type>().clone(), 10_i128.pow(12 - *scale as u32))
            }
            t if ty == Type::Float && t.is_numeric() => {
                Cells::Floats(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
            }
            // Beyond 64 bits with sign a cast would make nulls.
            t if t.is_integer() && *t != DataType::UInt64 => {
                Cells::Integers(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            _ => Cells::Text(cast(column, &DataType::Utf8)?.as_string::<i32>().clone()),
        })
    }

    fn cell<'a>(&'a self, row: usize, list: &'a mut Vec<i128>) -> Result<Cell<'a>, Reject> {
        fn present<T>(array: &impl Array, row: usize, value: impl FnOnce() -> T) -> Option<T> {
            array.is_valid(row).then(value)
        }
        let cell = match self {
            Cells::Nulls => None,
            Cells::Text(array) => present(array, row, || Cell::Text(Cow::Borrowed(array.value(row)))),
            Cells::Integers(array) => present(array, row, || Cell::Integer(array.value(row))),
            Cells::Units(array, factor) => {
                present(array, row, || match array.value(row).checked_mul(*factor).filter(|u| u.unsigned_abs() < 10_u128.pow(38)) {
                    Some(units) => Cell::Units(units),
                    None => Cell::Text(Cow::Owned(array.value_as_string(row))),
                })
            }
            Cells::Times(array, unit) => return times(array, *unit, row),
            Cells::Floats(array) => present(array, row, || Cell::Float(array.value(row))),
            Cells::Booleans(array) => present(array, row, || Cell::Boolean(array.value(row))),
            Cells::Bytes(array) => present(array, row, || Cell::Bytes(array.value(row))),
            Cells::Lists(array, items) if array.is_valid(row) => {
                list.clear();
                let (start, end) = (array.value_offsets()[row] as usize, array.value_offsets()[row + 1] as usize);
                for item in start..end {
                    list.push(items.units(item)?);
                }
                Some(Cell::UnitsList(list))
            }
            Cells::Lists(..) => None,
        };
        Ok(cell.unwrap_or(Cell::Null))
    }

    /// A number in a list.
    fn units(&self, item: usize) -> Result<i128, Reject> {
        let mut none = Vec::new();
        let cell = self.cell(item, &mut none)?;
        let number = match &cell {
            Cell::Units(units) => return Ok(*units),
            Cell::Integer(value) => return Ok(model::Decimal::from_integer(*value).units()),
            Cell::Text(text) => text.parse::<model::Decimal>(),
            other => return Err(Reject::new("wrong_type", format!("a list holds {other}"))),
        };
        number.map(|n| n.units()).map_err(|e| Reject::new("bad_number", format!("a list holds {cell}, which {e}")))
    }
}

fn times<'a>(array: &PrimitiveArray<Int64Type>, unit: TimeUnit, row: usize) -> Result<Cell<'a>, Reject> {
    if array.is_null(row) {
        return Ok(Cell::Null);
    }
    let value = array.value(row);
    let micros = match unit {
        TimeUnit::Second => value.checked_mul(1_000_000),
        TimeUnit::Millisecond => value.checked_mul(1_000),
        TimeUnit::Microsecond => Some(value),
        TimeUnit::Nanosecond => Some(value.div_euclid(1_000)),
    };
    micros.map(Cell::Micros).ok_or_else(|| Reject::new("bad_time", format!("a time of {value} {unit:?}s is beyond the calendar")))
}
