//! Columns under construction and columns to read, by the types that kinds are declared with.
//!
//! Each type below stands for one [`Type`] in the declarations of [`crate::kinds`]: it says how a value
//! is pushed, which Arrow array results and which typed array a view hands out. `Option<T>` is the same
//! column, nullable.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, Decimal128Array, DictionaryArray, Float64Array,
    Int64Array, ListArray, PrimitiveArray, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, Decimal128Type, Field, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};

use hashbrown::HashMap;

use crate::decimal;
use crate::kind::Type;
use crate::packed::{Packed, Recent};
use crate::time::Micros;

/// A record batch does not have a column that a kind declares.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a batch of `{kind}` records has no column `{column}` of the declared type")]
pub struct SchemaMismatch {
    kind: &'static str,
    column: &'static str,
}

/// How a declared column type is built and read.
pub trait ColumnType {
    /// The type in the declaration.
    const TYPE: Type;
    /// Whether values may be absent.
    const NULLABLE: bool = false;
    /// What is pushed.
    type Value<'a>: Copy + std::fmt::Debug;
    /// What it is pushed into.
    type Builder: Default + std::fmt::Debug;
    /// What a view reads.
    type Array: 'static;

    /// Appends a value.
    fn push(builder: &mut Self::Builder, value: Self::Value<'_>);
    /// Appends a null.
    fn push_null(builder: &mut Self::Builder);
    /// The column, and an empty builder.
    fn finish(builder: &mut Self::Builder) -> ArrayRef;
}

impl<T: ColumnType> ColumnType for Option<T> {
    const TYPE: Type = T::TYPE;
    const NULLABLE: bool = true;
    type Value<'a> = Option<T::Value<'a>>;
    type Builder = T::Builder;
    type Array = T::Array;

    #[inline]
    fn push(builder: &mut T::Builder, value: Option<T::Value<'_>>) {
        match value {
            Some(value) => T::push(builder, value),
            None => T::push_null(builder),
        }
    }
    fn push_null(builder: &mut T::Builder) {
        T::push_null(builder);
    }
    fn finish(builder: &mut T::Builder) -> ArrayRef {
        T::finish(builder)
    }
}

/// The column of a view, by name and declared type.
///
/// # Errors
/// It is missing or of another type.
pub fn downcast<'a, A: 'static>(rows: &'a RecordBatch, kind: &'static str, column: &'static str) -> Result<&'a A, SchemaMismatch> {
    rows.column_by_name(column).and_then(|array| array.as_any().downcast_ref()).ok_or(SchemaMismatch { kind, column })
}

/// Which rows of a column have a value. A column in which all rows have one, or none has, is only counted.
#[derive(Debug, Default)]
struct Validity {
    rows: usize,
    nulls: usize,
    /// Empty until there are both.
    mixed: Vec<bool>,
}

impl Validity {
    #[inline(always)]
    fn push(&mut self, valid: bool) {
        let alike = if valid { self.nulls == 0 } else { self.nulls == self.rows };
        if !alike {
            self.push_mixed(valid);
        }
        self.rows += 1;
        self.nulls += usize::from(!valid);
    }

    #[inline(never)]
    fn push_mixed(&mut self, valid: bool) {
        if self.mixed.is_empty() {
            self.mixed.resize(self.rows, self.nulls == 0);
        }
        self.mixed.push(valid);
    }

    fn finish(&mut self) -> Option<NullBuffer> {
        let Validity { rows, nulls, mixed } = std::mem::take(self);
        match nulls {
            0 => None,
            _ if nulls == rows => Some(NullBuffer::new_null(rows)),
            _ => Some(NullBuffer::from(mixed)),
        }
    }
}

/// A column of fixed-width values under construction.
#[derive(Debug, Default)]
pub struct Values<T> {
    values: Vec<T>,
    validity: Validity,
}

impl<T: ArrowNativeType> Values<T> {
    #[inline(always)]
    fn append_value(&mut self, value: T) {
        self.values.push(value);
        self.validity.push(true);
    }

    #[inline(always)]
    fn append_null(&mut self) {
        self.values.push(T::default());
        self.validity.push(false);
    }

    fn finish<A: ArrowPrimitiveType<Native = T>>(&mut self) -> PrimitiveArray<A> {
        // The next batch is mostly as long as this one.
        let next = Vec::with_capacity(self.values.len());
        PrimitiveArray::new(std::mem::replace(&mut self.values, next).into(), self.validity.finish())
    }
}

macro_rules! primitive {
    ($(#[doc = $doc:literal])+ $name:ident, $value:ty, $builder:ty, $array:ty, |$b:ident, $v:ident| $push:expr, |$f:ident| $finish:expr) => {
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub enum $name {}

        impl ColumnType for $name {
            const TYPE: Type = Type::$name;
            type Value<'a> = $value;
            type Builder = $builder;
            type Array = $array;

            #[inline]
            fn push<'a>($b: &mut $builder, $v: $value) { $push }
            #[inline]
            fn push_null(builder: &mut $builder) { builder.append_null(); }
            fn finish($f: &mut $builder) -> ArrayRef { $finish }
        }
    };
}

primitive!(
    /// Any text.
    Text, &'a str, StringBuilder, StringArray, |b, v| b.append_value(v), |b| Arc::new(b.finish()));
primitive!(
/// An exact number.
Decimal, decimal::Decimal, Values<i128>, Decimal128Array, |b, v| b.append_value(v.units()), |b| {
    Arc::new(b.finish::<Decimal128Type>().with_data_type(decimal::DATA_TYPE))
});
primitive!(
    /// A whole number.
    Integer, i64, Values<i64>, Int64Array, |b, v| b.append_value(v), |b| Arc::new(b.finish::<Int64Type>()));
primitive!(
    /// A statistic.
    Float, f64, Values<f64>, Float64Array, |b, v| b.append_value(v), |b| Arc::new(b.finish::<Float64Type>()));
primitive!(
/// Microseconds since 1970.
Time, Micros, Values<i64>, TimestampMicrosecondArray, |b, v| b.append_value(v), |b| {
    Arc::new(b.finish::<TimestampMicrosecondType>().with_timezone("UTC"))
});
primitive!(
    /// True or false.
    Boolean, bool, BooleanBuilder, BooleanArray, |b, v| b.append_value(v), |b| Arc::new(b.finish()));
primitive!(
    /// Bytes as they came.
    Bytes, &'a [u8], BinaryBuilder, BinaryArray, |b, v| b.append_value(v), |b| Arc::new(b.finish()));

/// Text with few distinct values, kept as numbers into a dictionary.
#[derive(Debug)]
pub enum Label {}

impl ColumnType for Label {
    const TYPE: Type = Type::Label;
    type Value<'a> = &'a str;
    type Builder = LabelBuilder;
    type Array = DictionaryArray<Int32Type>;

    #[inline]
    fn push(builder: &mut LabelBuilder, value: &str) {
        let key = builder.key(value);
        builder.push_key(Some(key));
    }
    fn push_null(builder: &mut LabelBuilder) {
        builder.push_key(None);
    }
    fn finish(builder: &mut LabelBuilder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

/// A dictionary column under construction. The dictionary lives as long as the builder, so the batches of
/// one decoder share it and a reader may keep what it worked out per label.
#[derive(Debug, Default)]
pub struct LabelBuilder {
    numbers: HashMap<Arc<str>, u32, ahash::RandomState>,
    labels: Vec<Arc<str>>,
    /// The labels as Arrow shares them; made anew when one was added.
    values: Option<Arc<StringArray>>,
    /// The label asked for last: neighbouring rows often agree.
    last: (Option<Packed>, u32),
    recent: Recent<8>,
    keys: Vec<i32>,
    validity: Validity,
}

impl LabelBuilder {
    /// The number of a label, entered into the dictionary if it is new.
    #[inline]
    pub fn key(&mut self, label: &str) -> i32 {
        let packed = Packed::of(label.as_bytes());
        if packed.is_none() || packed != self.last.0 {
            let recent = packed.and_then(|packed| self.recent.get(packed));
            self.last = (packed, recent.unwrap_or_else(|| self.look_up(label, packed)));
        }
        self.last.1 as i32
    }

    #[inline(never)]
    fn look_up(&mut self, label: &str, packed: Option<Packed>) -> u32 {
        let key = match self.numbers.get(label) {
            Some(key) => *key,
            None => {
                let (word, key): (Arc<str>, u32) = (label.into(), self.labels.len() as u32);
                assert!(i32::try_from(key).is_ok(), "a dictionary holds few labels");
                self.numbers.insert(word.clone(), key);
                self.labels.push(word);
                self.values = None;
                key
            }
        };
        packed.into_iter().for_each(|packed| self.recent.put(packed, key));
        key
    }

    /// Appends a label by its number, or a null.
    #[inline]
    pub fn push_key(&mut self, key: Option<i32>) {
        self.validity.push(key.is_some());
        self.keys.push(key.unwrap_or(0));
    }

    fn finish(&mut self) -> DictionaryArray<Int32Type> {
        if self.labels.is_empty() {
            // An Arrow key must point somewhere, even under a null.
            self.look_up("", None);
        }
        let labels = &self.labels;
        let values = self.values.get_or_insert_with(|| Arc::new(StringArray::from_iter_values(labels)));
        let next = Vec::with_capacity(self.keys.len());
        let keys = ScalarBuffer::from(std::mem::replace(&mut self.keys, next));
        DictionaryArray::new(PrimitiveArray::new(keys, self.validity.finish()), values.clone())
    }
}

/// A list of exact numbers.
#[derive(Debug)]
pub enum Decimals {}

/// A column of lists of exact numbers under construction.
#[derive(Debug, Default)]
pub struct DecimalsBuilder {
    values: Vec<i128>,
    lengths: Vec<usize>,
}

impl ColumnType for Decimals {
    const TYPE: Type = Type::Decimals;
    type Value<'a> = &'a [decimal::Decimal];
    type Builder = DecimalsBuilder;
    type Array = ListArray;

    fn push(builder: &mut DecimalsBuilder, value: &[decimal::Decimal]) {
        builder.values.extend(value.iter().map(|d| d.units()));
        builder.lengths.push(value.len());
    }
    fn push_null(builder: &mut DecimalsBuilder) {
        builder.lengths.push(0);
    }
    fn finish(builder: &mut DecimalsBuilder) -> ArrayRef {
        let values = Decimal128Array::from(std::mem::take(&mut builder.values)).with_data_type(decimal::DATA_TYPE);
        let offsets = OffsetBuffer::from_lengths(std::mem::take(&mut builder.lengths));
        Arc::new(ListArray::new(Arc::new(Field::new_list_field(decimal::DATA_TYPE, false)), offsets, Arc::new(values), None))
    }
}

/// The label of a row, or `None` for null.
pub fn label(column: &DictionaryArray<Int32Type>, row: usize) -> Option<&str> {
    column.key(row).map(|key| column.values().as_string::<i32>().value(key))
}

/// The number of a row, or `None` for null.
pub fn number(column: &Decimal128Array, row: usize) -> Option<decimal::Decimal> {
    column.is_valid(row).then(|| decimal::Decimal::from_units(column.value(row)))
}

/// The whole number or time of a row, or `None` for null.
pub fn integer<T: arrow::datatypes::ArrowPrimitiveType<Native = i64>>(column: &PrimitiveArray<T>, row: usize) -> Option<i64> {
    column.is_valid(row).then(|| column.value(row))
}

/// The numbers in the list of a row, in units of 10⁻¹².
pub fn numbers(column: &ListArray, row: usize) -> &[i128] {
    let (start, end) = (column.value_offsets()[row] as usize, column.value_offsets()[row + 1] as usize);
    &column.values().as_primitive::<Decimal128Type>().values()[start..end]
}
