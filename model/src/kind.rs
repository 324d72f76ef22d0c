//! Kinds of record and their columns, as data.
//!
//! A [`Kind`] says everything that a decoder, an operator, a sink or the manual needs to know about a
//! record: its columns with types and documentation, which of them identify it, which tell its time,
//! and whether it may be revised. The built-in ones are declared in [`crate::kinds`]; `derive` makes
//! new ones while a pipeline is checked.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use serde::{Deserialize, Serialize};

use crate::{decimal, time};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Type {
    /// Text with few distinct values (a venue, a symbol, a side). A dictionary in memory, plain text in
    /// tables, `LowCardinality(String)` in ClickHouse.
    Label,
    /// Any text.
    Text,
    /// An exact number with twelve fraction digits.
    Decimal,
    /// A list of exact numbers: one side of a book.
    Decimals,
    /// A whole number, signed 64 bits.
    Integer,
    /// A statistic (a score, a ratio of volumes), 64-bit float. Never a price, a size or a rate.
    Float,
    /// Microseconds since 1970, UTC.
    Time,
    /// True or false.
    Boolean,
    /// Bytes as they came.
    Bytes,
}

impl Type {
    /// The Arrow type of a column of this type between operators.
    pub fn arrow(self) -> DataType {
        match self {
            Type::Label => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            other => other.stored(),
        }
    }

    /// The Arrow type of a column of this type in tables and files.
    pub fn stored(self) -> DataType {
        match self {
            Type::Label | Type::Text => DataType::Utf8,
            Type::Decimal => decimal::DATA_TYPE,
            Type::Decimals => DataType::List(Arc::new(Field::new_list_field(decimal::DATA_TYPE, false))),
            Type::Integer => DataType::Int64,
            Type::Float => DataType::Float64,
            Type::Time => time::data_type(),
            Type::Boolean => DataType::Boolean,
            Type::Bytes => DataType::Binary,
        }
    }

    /// The column type that holds values of an Arrow type, if one does without loss.
    pub fn holding(data_type: &DataType) -> Option<Type> {
        Some(match data_type {
            DataType::Dictionary(_, value) if matches!(**value, DataType::Utf8) => Type::Label,
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => Type::Text,
            DataType::Decimal128(..) | DataType::Decimal256(..) => Type::Decimal,
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32 => Type::Integer,
            DataType::Float32 | DataType::Float64 => Type::Float,
            DataType::Timestamp(..) => Type::Time,
            DataType::Boolean => Type::Boolean,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Type::Bytes,
            _ => return None,
        })
    }
}

impl fmt::Display for Type {
    /// The name that the manual and error messages use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Label => "label",
            Type::Text => "text",
            Type::Decimal => "decimal",
            Type::Decimals => "list of decimal",
            Type::Integer => "integer",
            Type::Float => "float",
            Type::Time => "time",
            Type::Boolean => "boolean",
            Type::Bytes => "bytes",
        })
    }
}

/// One column of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, in Arrow, in every table and in expressions.
    pub name: Cow<'static, str>,
    /// What it holds.
    pub ty: Type,
    /// Whether it may be absent. Absent is null, never zero.
    pub nullable: bool,
    /// What it means, with its unit; the manual's text.
    pub doc: Cow<'static, str>,
}

impl Column {
    /// The Arrow field of this column between operators.
    pub fn field(&self) -> Field {
        Field::new(self.name.as_ref(), self.ty.arrow(), self.nullable)
    }

    /// The Arrow field of this column in tables and files.
    pub fn stored_field(&self) -> Field {
        Field::new(self.name.as_ref(), self.ty.stored(), self.nullable)
    }
}

/// A kind of record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "KindParts")]
pub struct Kind {
    /// Its singular name in pipeline files, e.g. `trade`.
    pub name: Cow<'static, str>,
    /// The table it is stored in, e.g. `trades`; `None` for what is never stored.
    pub table: Option<Cow<'static, str>>,
    /// What it is; the manual's text.
    pub doc: Cow<'static, str>,
    /// Its columns in their order.
    pub columns: Vec<Column>,
    /// The columns that tell when it happened: the first that is not null. Tables are partitioned,
    /// sorted and tiered by it, so at least one must be present in every row. Only a frame may have none; see
    /// [`crate::tables::in_clickhouse`].
    pub time: Vec<Cow<'static, str>>,
    /// The columns that identify a record, always beginning with venue, market and symbol where the kind
    /// has them. Tables are sorted by the instrument, then time, then the rest, unless it [has an order of its
    /// own](Kind::has_own_order).
    pub key: Vec<Cow<'static, str>>,
    /// Whether a record can be revised: taken back (-1) and asserted anew (+1) under the same key.
    pub revisable: bool,
    #[serde(skip)]
    schema: SchemaRef,
}

/// What a kind is made of; the schema follows.
#[derive(Deserialize)]
struct KindParts {
    name: Cow<'static, str>,
    table: Option<Cow<'static, str>>,
    doc: Cow<'static, str>,
    columns: Vec<Column>,
    time: Vec<Cow<'static, str>>,
    key: Vec<Cow<'static, str>>,
    revisable: bool,
}

impl From<KindParts> for Kind {
    fn from(p: KindParts) -> Self {
        Kind::new(p.name, p.table, p.doc, p.columns, p.time, p.key, p.revisable)
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.table == other.table && self.columns == other.columns
    }
}

impl Kind {
    /// A kind from its parts; the schema between operators follows from the columns.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        table: Option<Cow<'static, str>>,
        doc: impl Into<Cow<'static, str>>,
        columns: Vec<Column>,
        time: Vec<Cow<'static, str>>,
        key: Vec<Cow<'static, str>>,
        revisable: bool,
    ) -> Self {
        let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
        Kind { name: name.into(), table, doc: doc.into(), columns, time, key, revisable, schema }
    }

    /// The Arrow schema of this kind between operators.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// Whether its key alone is its order: of what can be revised, whose versions belong side by side, and of frames,
    /// which their sources number. Everything else is ordered by its instrument and time.
    pub fn has_own_order(&self) -> bool {
        self.revisable || self.key.first().is_some_and(|first| first == "source")
    }

    /// When each row happened: the first of the kind's time columns that is not null.
    pub fn times(&self, rows: &RecordBatch) -> TimestampMicrosecondArray {
        let columns: Vec<&TimestampMicrosecondArray> =
            self.time.iter().filter_map(|name| rows.column_by_name(name)).map(|c| c.as_primitive::<TimestampMicrosecondType>()).collect();
        match columns.as_slice() {
            [] => TimestampMicrosecondArray::new_null(rows.num_rows()),
            [only] => (*only).clone(),
            several => (0..rows.num_rows()).map(|i| several.iter().find(|c| c.is_valid(i)).map(|c| c.value(i))).collect(),
        }
    }

    /// The greatest event time among the rows, in microseconds: the first time column alone, because another
    /// clock must not push the watermark.
    pub fn latest(&self, rows: &RecordBatch) -> Option<time::Micros> {
        let column = rows.column_by_name(self.time.first()?)?;
        arrow::compute::max(column.as_primitive::<TimestampMicrosecondType>())
    }

    /// The SQL expression (DataFusion's and ClickHouse's) for when a row happened; never null.
    pub fn time_sql(&self) -> String {
        match self.time.as_slice() {
            [only] => format!("\"{only}\""),
            several => format!("coalesce({})", several.iter().map(|c| format!("\"{c}\"")).collect::<Vec<_>>().join(", ")),
        }
    }
}
