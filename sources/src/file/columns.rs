//! Columns of a kind under construction, from the cells of text formats and of Parquet.
//!
//! A row is put in cell by cell and then committed; one that has a bad cell is undone, so the columns always
//! have the same length. Values are exact or refused: nothing is rounded, no number passes through a float
//! unless its column is one.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::Field;
use chrono::DateTime;
use model::columns::{ColumnType, Label, LabelBuilder};
use model::decimal::{self, DecimalError};
use model::dialect::Reject;
use model::{Decimal, Kind, Type};

use crate::dialect::json::{Scanner, Token};

/// A value as a file has it.
#[derive(Clone, Debug)]
pub(super) enum Cell<'a> {
    Null,
    Text(Cow<'a, str>),
    /// The text of a JSON number.
    Number(&'a str),
    Boolean(bool),
    /// The text of a JSON array.
    Array(&'a [u8]),
    Integer(i64),
    Float(f64),
    /// Units of 10⁻¹².
    Units(i128),
    UnitsList(&'a [i128]),
    Micros(i64),
    Bytes(&'a [u8]),
}

impl std::fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Null => f.write_str("null"),
            Cell::Text(text) => write!(f, "{:?}", text.chars().take(80).collect::<String>()),
            Cell::Number(text) => f.write_str(text),
            Cell::Boolean(value) => value.fmt(f),
            Cell::Integer(value) | Cell::Micros(value) => value.fmt(f),
            Cell::Float(value) => value.fmt(f),
            Cell::Units(value) => Decimal::from_units(*value).fmt(f),
            Cell::Array(_) | Cell::UnitsList(_) => f.write_str("a list"),
            Cell::Bytes(_) => f.write_str("bytes"),
        }
    }
}

/// The values of a column; a list or text ends where `ends` says.
#[derive(Debug)]
enum Values {
    Bytes { bytes: Vec<u8>, ends: Vec<i32> },
    Lists { units: Vec<i128>, ends: Vec<i32> },
    Units(Vec<i128>),
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Booleans(Vec<bool>),
}

#[derive(Debug)]
struct Column {
    name: Cow<'static, str>,
    ty: Type,
    nullable: bool,
    values: Values,
    valid: Vec<bool>,
    labels: LabelBuilder,
}

/// The columns of a kind.
#[derive(Debug)]
pub(crate) struct Columns {
    kind: Arc<Kind>,
    columns: Vec<Column>,
    rows: usize,
}

impl Columns {
    pub(crate) fn new(kind: &Arc<Kind>) -> Self {
        let columns = kind.columns.iter().map(|c| Column {
            name: c.name.clone(),
            ty: c.ty,
            nullable: c.nullable,
            values: Values::of(c.ty),
            valid: Vec::new(),
            labels: LabelBuilder::default(),
        });
        Columns { columns: columns.collect(), kind: kind.clone(), rows: 0 }
    }

    /// Rows committed since the last [`Self::finish`].
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The column of this name.
    pub(super) fn position(&self, name: &[u8]) -> Option<usize> {
        self.columns.iter().position(|c| c.name.as_bytes() == name)
    }

    /// Sets a cell of the row under construction.
    pub(super) fn put(&mut self, column: usize, cell: Cell<'_>) -> Result<(), Reject> {
        let column = &mut self.columns[column];
        if column.valid.len() > self.rows {
            return Err(Reject::new("malformed", format!("`{}` stands twice in the row", column.name)));
        }
        column.put(cell)
    }

    /// Ends the row: what was not set is null.
    ///
    /// # Errors
    /// Names a column that may not be null. The row is to be undone, then.
    pub(super) fn commit(&mut self) -> Result<(), Reject> {
        for column in self.columns.iter_mut().filter(|c| c.valid.len() == self.rows) {
            column.put(Cell::Null)?;
        }
        self.rows += 1;
        Ok(())
    }

    /// Forgets the row under construction.
    pub(crate) fn undo(&mut self) {
        for column in &mut self.columns {
            column.valid.truncate(self.rows);
            column.values.truncate(self.rows);
        }
    }

    /// The rows committed; the columns are empty again.
    pub(crate) fn finish(&mut self) -> RecordBatch {
        self.rows = 0;
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        RecordBatch::try_new(self.kind.schema().clone(), columns).expect("every row has every column, and null only where it may be")
    }
}

impl Values {
    fn of(ty: Type) -> Self {
        match ty {
            Type::Label | Type::Text | Type::Bytes => Values::Bytes { bytes: Vec::new(), ends: Vec::new() },
            Type::Decimals => Values::Lists { units: Vec::new(), ends: Vec::new() },
            Type::Decimal => Values::Units(Vec::new()),
            Type::Integer | Type::Time => Values::Integers(Vec::new()),
            Type::Float => Values::Floats(Vec::new()),
            Type::Boolean => Values::Booleans(Vec::new()),
        }
    }

    fn truncate(&mut self, rows: usize) {
        let end = |ends: &[i32]| rows.checked_sub(1).map_or(0, |last| ends[last] as usize);
        match self {
            Values::Bytes { bytes, ends } => {
                ends.truncate(rows);
                bytes.truncate(end(ends));
            }
            Values::Lists { units, ends } => {
                ends.truncate(rows);
                units.truncate(end(ends));
            }
            Values::Units(values) => values.truncate(rows),
            Values::Integers(values) => values.truncate(rows),
            Values::Floats(values) => values.truncate(rows),
            Values::Booleans(values) => values.truncate(rows),
        }
    }

    /// A value under a null.
    fn push_nothing(&mut self) {
        match self {
            Values::Bytes { bytes, ends } => ends.push(bytes.len() as i32),
            Values::Lists { units, ends } => ends.push(units.len() as i32),
            Values::Units(values) => values.push(0),
            Values::Integers(values) => values.push(0),
            Values::Floats(values) => values.push(0.0),
            Values::Booleans(values) => values.push(false),
        }
    }
}

impl Column {
    fn put(&mut self, cell: Cell<'_>) -> Result<(), Reject> {
        if matches!(cell, Cell::Null) {
            if !self.nullable {
                return Err(Reject::new("missing_field", format!("`{}` is missing", self.name)));
            }
            self.values.push_nothing();
            self.valid.push(false);
            return Ok(());
        }
        self.push(&cell).map_err(|flaw| Reject::new(flaw.reason(), format!("`{}` is {cell}, which {flaw}", self.name)))?;
        self.valid.push(true);
        Ok(())
    }

    fn push(&mut self, cell: &Cell<'_>) -> Result<(), Flaw> {
        match (&mut self.values, self.ty) {
            (Values::Bytes { bytes, ends }, ty) => {
                match (cell, ty) {
                    (Cell::Text(text), Type::Bytes) => unhex(text, bytes)?,
                    (Cell::Bytes(value), Type::Bytes) => bytes.extend_from_slice(value),
                    (Cell::Text(text), _) => bytes.extend_from_slice(text.as_bytes()),
                    // An identifier may be written as a number.
                    (Cell::Number(text), Type::Text) => bytes.extend_from_slice(text.as_bytes()),
                    (Cell::Integer(value), Type::Text) => bytes.extend_from_slice(value.to_string().as_bytes()),
                    _ => return Err(Flaw::Type(ty)),
                }
                ends.push(i32::try_from(bytes.len()).map_err(|_| Flaw::Long)?);
            }
            (Values::Lists { units, ends }, _) => {
                let start = units.len();
                let read = match cell {
                    Cell::UnitsList(list) => {
                        units.extend_from_slice(list);
                        Ok(())
                    }
                    Cell::Array(json) => read_list(json, units),
                    Cell::Text(text) => read_list(text.as_bytes(), units),
                    _ => Err(Flaw::Type(self.ty)),
                };
                if let Err(flaw) = read {
                    units.truncate(start);
                    return Err(flaw);
                }
                ends.push(i32::try_from(units.len()).map_err(|_| Flaw::Long)?);
            }
            (Values::Units(values), _) => values.push(match cell {
                Cell::Text(text) => decimal(text)?,
                Cell::Number(text) => decimal(text)?,
                Cell::Integer(value) => Decimal::from_integer(*value).units(),
                Cell::Units(units) => *units,
                _ => return Err(Flaw::Type(self.ty)),
            }),
            (Values::Integers(values), Type::Time) => values.push(match cell {
                Cell::Text(text) => text.parse().or_else(|_| instant(text)).map_err(|_| Flaw::Time)?,
                Cell::Number(text) => text.parse().map_err(|_| Flaw::Time)?,
                Cell::Integer(value) | Cell::Micros(value) => *value,
                _ => return Err(Flaw::Type(self.ty)),
            }),
            (Values::Integers(values), _) => values.push(match cell {
                Cell::Text(text) => text.parse().map_err(|_| Flaw::Integer)?,
                Cell::Number(text) => text.parse().map_err(|_| Flaw::Integer)?,
                Cell::Integer(value) => *value,
                _ => return Err(Flaw::Type(self.ty)),
            }),
            (Values::Floats(values), _) => values.push(match cell {
                Cell::Text(text) => text.parse().map_err(|_| Flaw::Float)?,
                Cell::Number(text) => text.parse().map_err(|_| Flaw::Float)?,
                Cell::Float(value) => *value,
                Cell::Integer(value) => *value as f64,
                _ => return Err(Flaw::Type(self.ty)),
            }),
            (Values::Booleans(values), _) => values.push(match cell {
                Cell::Boolean(value) => *value,
                Cell::Text(text) if text.eq_ignore_ascii_case("true") => true,
                Cell::Text(text) if text.eq_ignore_ascii_case("false") => false,
                _ => return Err(Flaw::Type(self.ty)),
            }),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        let valid = std::mem::take(&mut self.valid);
        let nulls = valid.contains(&false).then(|| NullBuffer::from(valid.as_slice()));
        match std::mem::replace(&mut self.values, Values::of(self.ty)) {
            Values::Bytes { bytes, ends } => {
                let binary = BinaryArray::new(offsets(ends), bytes.into(), nulls);
                if self.ty == Type::Bytes {
                    return Arc::new(binary);
                }
                let text = StringArray::try_from_binary(binary).expect("only whole texts were put in");
                if self.ty == Type::Text {
                    return Arc::new(text);
                }
                for label in &text {
                    <Option<Label> as ColumnType>::push(&mut self.labels, label);
                }
                Label::finish(&mut self.labels)
            }
            Values::Lists { units, ends } => {
                let values = Decimal128Array::from(units).with_data_type(decimal::DATA_TYPE);
                Arc::new(ListArray::new(Arc::new(Field::new_list_field(decimal::DATA_TYPE, false)), offsets(ends), Arc::new(values), nulls))
            }
            Values::Units(values) => Arc::new(Decimal128Array::new(values.into(), nulls).with_data_type(decimal::DATA_TYPE)),
            Values::Integers(values) if self.ty == Type::Time => {
                Arc::new(TimestampMicrosecondArray::new(values.into(), nulls).with_timezone("UTC"))
            }
            Values::Integers(values) => Arc::new(Int64Array::new(values.into(), nulls)),
            Values::Floats(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            Values::Booleans(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
        }
    }
}

fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(std::iter::once(0).chain(ends).collect::<Vec<i32>>().into())
}

/// Why a cell does not fit its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Flaw {
    #[error("{0}")]
    Decimal(#[from] DecimalError),
    #[error("is no whole number of 64 bits")]
    Integer,
    #[error("is no number")]
    Float,
    #[error("is no time: neither RFC 3339 nor microseconds since 1970")]
    Time,
    #[error("is no text of hexadecimal bytes")]
    Hex,
    #[error("is no list of numbers")]
    List,
    #[error("is no {0}")]
    Type(Type),
    #[error("makes the column longer than 2 GiB")]
    Long,
}

impl Flaw {
    fn reason(self) -> &'static str {
        match self {
            Flaw::Decimal(DecimalError::Malformed) | Flaw::Integer | Flaw::Float => "bad_number",
            Flaw::Decimal(_) | Flaw::Long => "overflow",
            Flaw::Time => "bad_time",
            Flaw::Hex | Flaw::List | Flaw::Type(_) => "wrong_type",
        }
    }
}

fn decimal(text: &str) -> Result<i128, Flaw> {
    Ok(Decimal::parse(text.as_bytes())?.units())
}

fn instant(text: &str) -> Result<i64, chrono::ParseError> {
    DateTime::parse_from_rfc3339(text).map(|time| time.timestamp_micros())
}

/// Reads `[1.5,"2.25"]`.
fn read_list(json: &[u8], units: &mut Vec<i128>) -> Result<(), Flaw> {
    let mut scanner = Scanner::new(json).map_err(|_| Flaw::List)?;
    let mut flaw = None;
    let walk = scanner.array(|s| {
        let value = s.value()?;
        match (value.token, Decimal::parse(value.of(json))) {
            (Token::Integer | Token::Number | Token::Text, Ok(number)) => units.push(number.units()),
            (Token::Integer | Token::Number | Token::Text, Err(error)) => flaw = Some(Flaw::Decimal(error)),
            _ => flaw = Some(Flaw::List),
        }
        Ok(())
    });
    walk.and_then(|()| scanner.end()).map_err(|_| Flaw::List)?;
    flaw.map_or(Ok(()), Err)
}

/// Bytes are written as text in hexadecimal digits.
fn unhex(text: &str, bytes: &mut Vec<u8>) -> Result<(), Flaw> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|d| d as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let start = bytes.len();
    bytes.extend(pairs.iter().map_while(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)));
    if rest.is_empty() && bytes.len() - start == pairs.len() {
        return Ok(());
    }
    bytes.truncate(start);
    Err(Flaw::Hex)
}
