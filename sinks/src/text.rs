//! Values as text for people and spreadsheets; JSON is [`model::json`]'s, which says the same of them.
//!
//! - Numbers are exact: a decimal has all its digits and no trailing zeros.
//! - Times are RFC 3339 in UTC with six fraction digits.
//! - Bytes are text where they are UTF-8. Others are `\x` and hexadecimal digits; so is text that begins with `\x`,
//!   so that the two can be told apart.
//! - A list is a JSON array as text.
//! - Null is nothing, and in CSV an empty text is `""`.

use std::io::Write as _;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use model::{Decimal, time};

/// What stored rows say, ready to be written.
pub(crate) struct Text<'a> {
    columns: Vec<Cells<'a>>,
}

/// A column by what it holds; the types are those of stored rows.
enum Cells<'a> {
    Text(&'a StringArray),
    Decimal(&'a Decimal128Array),
    Decimals(&'a ListArray, &'a Decimal128Array),
    Integer(&'a Int64Array),
    Float(&'a Float64Array),
    Time(&'a TimestampMicrosecondArray),
    Boolean(&'a BooleanArray),
    Bytes(&'a BinaryArray),
}

impl<'a> Text<'a> {
    /// The text of rows whose columns have the types of stored rows.
    ///
    /// # Errors
    /// Names a column of another type.
    pub(crate) fn of(rows: &'a RecordBatch) -> Result<Self, ArrowError> {
        let columns = rows.schema_ref().fields().iter().zip(rows.columns()).map(|(field, array)| Cells::of(field.name(), array));
        Ok(Text { columns: columns.collect::<Result<_, ArrowError>>()? })
    }

    /// Appends a row as a line of CSV.
    pub(crate) fn csv(&self, row: usize, out: &mut Vec<u8>) {
        for (i, column) in self.columns.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            if !column.is_null(row) {
                let start = out.len();
                column.push(row, out);
                quote(out, start);
            }
        }
        out.push(b'\n');
    }

    /// A column as plain text; `None` for null.
    pub(crate) fn plain(&self, column: usize) -> impl Iterator<Item = Option<String>> {
        let cells = &self.columns[column];
        (0..cells.len()).map(move |row| {
            (!cells.is_null(row)).then(|| {
                let mut out = Vec::new();
                cells.push(row, &mut out);
                String::from_utf8(out).expect("values are written as UTF-8")
            })
        })
    }
}

/// Appends the names of columns as a line of CSV.
pub(crate) fn csv_header(schema: &Schema, out: &mut Vec<u8>) {
    for (i, field) in schema.fields().iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let start = out.len();
        out.extend_from_slice(field.name().as_bytes());
        quote(out, start);
    }
    out.push(b'\n');
}

impl<'a> Cells<'a> {
    fn of(name: &str, array: &'a ArrayRef) -> Result<Self, ArrowError> {
        Ok(match array.data_type() {
            DataType::Utf8 => Cells::Text(array.as_string()),
            DataType::Decimal128(_, model::decimal::SCALE) => Cells::Decimal(array.as_primitive()),
            DataType::List(item) if *item.data_type() == model::decimal::DATA_TYPE => {
                let list = array.as_list::<i32>();
                Cells::Decimals(list, list.values().as_primitive::<Decimal128Type>())
            }
            DataType::Int64 => Cells::Integer(array.as_primitive::<Int64Type>()),
            DataType::Float64 => Cells::Float(array.as_primitive::<Float64Type>()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Cells::Time(array.as_primitive::<TimestampMicrosecondType>()),
            DataType::Boolean => Cells::Boolean(array.as_boolean()),
            DataType::Binary => Cells::Bytes(array.as_binary()),
            other => return Err(ArrowError::NotYetImplemented(format!("column `{name}` of type {other} as text"))),
        })
    }

    fn array(&self) -> &dyn Array {
        match self {
            Cells::Text(a) => a,
            Cells::Decimal(a) => a,
            Cells::Decimals(a, _) => a,
            Cells::Integer(a) => a,
            Cells::Float(a) => a,
            Cells::Time(a) => a,
            Cells::Boolean(a) => a,
            Cells::Bytes(a) => a,
        }
    }

    fn len(&self) -> usize {
        self.array().len()
    }

    fn is_null(&self, row: usize) -> bool {
        self.array().is_null(row)
    }

    /// Appends a value that is not null.
    fn push(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Cells::Text(a) => out.extend_from_slice(a.value(row).as_bytes()),
            Cells::Decimal(a) => push_display(Decimal::from_units(a.value(row)), out),
            Cells::Decimals(list, values) => {
                let (start, end) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
                out.push(b'[');
                for (i, units) in values.values()[start..end].iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    push_display(Decimal::from_units(*units), out);
                }
                out.push(b']');
            }
            Cells::Integer(a) => push_display(a.value(row), out),
            // Debug and not Display: it writes 1e300 and not three hundred digits.
            Cells::Float(a) => push_display(format_args!("{:?}", a.value(row)), out),
            Cells::Time(a) => out.extend_from_slice(time::display(a.value(row)).as_bytes()),
            Cells::Boolean(a) => push_display(a.value(row), out),
            Cells::Bytes(a) => match std::str::from_utf8(a.value(row)) {
                Ok(text) if !text.starts_with("\\x") => out.extend_from_slice(text.as_bytes()),
                _ => {
                    out.extend_from_slice(b"\\x");
                    a.value(row).iter().for_each(|byte| push_display(format_args!("{byte:02x}"), out));
                }
            },
        }
    }
}

fn push_display(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    write!(out, "{value}").expect("a value is written to memory");
}

/// Quotes what was appended from `start` on, if CSV wants it: an empty text too, because an empty field is null.
fn quote(out: &mut Vec<u8>, start: usize) {
    let text = &out[start..];
    if !text.is_empty() && !text.iter().any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r')) {
        return;
    }
    let text = out.split_off(start);
    out.push(b'"');
    for byte in text {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;

    use super::*;

    fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect()).unwrap()
    }

    fn lines<'a>(rows: &'a RecordBatch, write: impl Fn(&Text<'a>, usize, &mut Vec<u8>)) -> Vec<String> {
        let text = Text::of(rows).unwrap();
        (0..rows.num_rows())
            .map(|row| {
                let mut out = Vec::new();
                write(&text, row, &mut out);
                String::from_utf8(out).unwrap()
            })
            .collect()
    }

    #[test]
    fn texts_and_bytes_are_quoted_where_they_must_be() {
        let awkward = ["plain", "", "a,b", "say \"hi\"", "two\nlines", "\\x00", "Zürich 🚀", "\0"];
        let text: ArrayRef = Arc::new(StringArray::from_iter(awkward.iter().map(|t| Some(*t)).chain([None])));
        let bytes: ArrayRef =
            Arc::new(BinaryArray::from_iter(awkward.iter().map(|t| Some(t.as_bytes())).take(7).chain([Some(&b"\xff\x00"[..]), None])));
        let rows = rows(vec![("text", text), ("bytes", bytes)]);
        assert_eq!(
            lines(&rows, Text::csv),
            [
                "plain,plain\n",
                "\"\",\"\"\n",
                "\"a,b\",\"a,b\"\n",
                "\"say \"\"hi\"\"\",\"say \"\"hi\"\"\"\n",
                "\"two\nlines\",\"two\nlines\"\n",
                "\\x00,\\x5c783030\n",
                "Zürich 🚀,Zürich 🚀\n",
                "\0,\\xff00\n",
                ",\n"
            ]
        );
    }

    #[test]
    fn lists_and_numbers_keep_their_digits() {
        let one = Decimal::ONE.units();
        let values = Decimal128Array::from(vec![one, one / 2, -3 * one]).with_data_type(model::decimal::DATA_TYPE);
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([2, 0, 1]);
        let list = ListArray::new(Arc::new(Field::new_list_field(model::decimal::DATA_TYPE, false)), offsets, Arc::new(values), None);
        let floats = Float64Array::from(vec![0.1, f64::NAN, -1e300]);
        let whole = Int64Array::from(vec![i64::MIN, 0, i64::MAX]);
        let rows = rows(vec![("list", Arc::new(list)), ("float", Arc::new(floats)), ("whole", Arc::new(whole))]);
        let lines = lines(&rows, Text::csv);
        assert_eq!(lines, ["\"[1,0.5]\",0.1,-9223372036854775808\n", "[],NaN,0\n", "[-3],-1e300,9223372036854775807\n"]);
    }
}
