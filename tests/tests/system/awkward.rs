//! Rows that are hard to keep: for each kind, a table of values that have broken someone's store before.
//!
//! Built from a kind's columns alone, so a new kind or column is covered the moment it is declared.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::Field;
use model::decimal::DATA_TYPE;
use model::{Batch, Column, Kind, Origin, Type};

/// Rows of each kind: enough that every value below stands in every column that can hold it.
pub const ROWS: usize = 40;

/// The longest text: longer than what stores keep of a value in their statistics.
const LONG: usize = 5_000;

/// Awkward rows of a kind. No two have the same symbol, so of a revisable kind each is a record of its own.
pub fn rows(kind: &Arc<Kind>) -> Batch {
    let columns = kind.columns.iter().enumerate().map(|(at, column)| values(kind, column, at)).collect();
    let rows = RecordBatch::try_new(kind.schema().clone(), columns).expect("values are of the declared types");
    Batch::new(kind, rows, Origin::default())
}

/// The values of a column, each column beginning at another one, so that they meet in many ways.
fn values(kind: &Kind, column: &Column, at: usize) -> ArrayRef {
    // A row has a time; where several columns can tell it, the last one always does.
    let nullable = column.nullable && kind.time.last() != Some(&column.name);
    let plain: ArrayRef = match column.ty {
        Type::Label | Type::Text => {
            let values: Vec<Option<String>> = spread(&texts(column), nullable, at);
            match column.name.as_ref() {
                "symbol" => Arc::new(values.into_iter().enumerate().map(|(i, v)| v.map(|v| format!("{v}{i}"))).collect::<StringArray>()),
                _ => Arc::new(values.into_iter().collect::<StringArray>()),
            }
        }
        Type::Bytes => Arc::new(spread(&bytes(), nullable, at).iter().map(Option::as_deref).collect::<BinaryArray>()),
        Type::Decimal => Arc::new(spread(&decimals(), nullable, at).into_iter().collect::<Decimal128Array>().with_data_type(DATA_TYPE)),
        Type::Decimals => {
            let lists = [vec![], vec![0], decimals(), vec![], (0..100).collect()];
            let lists: Vec<Vec<i128>> = spread(&lists, false, at).into_iter().flatten().collect();
            let offsets = OffsetBuffer::from_lengths(lists.iter().map(Vec::len));
            let values = Decimal128Array::from(lists.concat()).with_data_type(DATA_TYPE);
            Arc::new(ListArray::new(Arc::new(Field::new_list_field(DATA_TYPE, false)), offsets, Arc::new(values), None))
        }
        Type::Integer => Arc::new(spread(&[0, -1, 1, i64::MIN, i64::MAX, (1 << 53) + 1], nullable, at).into_iter().collect::<Int64Array>()),
        Type::Float => Arc::new(
            spread(&[0.0, -0.0, 0.1, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY, f64::NEG_INFINITY, f64::NAN], nullable, at)
                .into_iter()
                .collect::<Float64Array>(),
        ),
        Type::Time => Arc::new(spread(&times(), nullable, at).into_iter().collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Type::Boolean => Arc::new(spread(&[false, true], nullable, at).into_iter().collect::<BooleanArray>()),
    };
    cast(&plain, &column.ty.arrow()).expect("a text is made a label")
}

/// The values in turn, with a null among them where there may be one.
fn spread<T: Clone>(values: &[T], nullable: bool, from: usize) -> Vec<Option<T>> {
    let values: Vec<Option<T>> = values.iter().cloned().map(Some).chain(nullable.then_some(None)).collect();
    assert!(values.len() <= ROWS, "every value has its row");
    (0..ROWS).map(|i| values[(i + from) % values.len()].clone()).collect()
}

fn texts(column: &Column) -> Vec<String> {
    let mut texts = vec![
        "plain",
        "it's \"quoted\" `too`",
        "back\\slash \\n \\N",
        "tab\tline\nend\r",
        " spaces ",
        "NULL",
        "a/b=c%2Fd?e&f",
        "Zürich 🚀 日本",
        "{x:String}",
    ];
    // A venue or a source is part of the path of cold tables, where an empty text means null.
    let in_path = ["venue", "source"].contains(&column.name.as_ref());
    if !in_path {
        texts.extend(["", "zero\0byte"]);
    }
    let mut texts: Vec<String> = texts.into_iter().map(Into::into).collect();
    if !in_path {
        texts.push("x".repeat(LONG));
    }
    texts
}

fn bytes() -> Vec<Vec<u8>> {
    vec![vec![], vec![0], b"\n\n".to_vec(), (0..=255).collect(), b"\xff\xfe".to_vec(), "it's {\"json\": \"ü\"}".into(), vec![0; LONG]]
}

/// In units of 10⁻¹²: the ends of what fits, the smallest steps, and a price.
fn decimals() -> Vec<i128> {
    let most = 10_i128.pow(38) - 1;
    vec![0, 1, -1, most, -most, 61_837_630_000_000_000, 10_i128.pow(12)]
}

/// From the first to the last moment that ClickHouse knows, across the limits of other clocks: the beginning of 1970,
/// 32-bit seconds, and 64-bit nanoseconds.
fn times() -> Vec<i64> {
    vec![0, 1, -1, -2_208_988_800_000_000, 1_723_161_255_342_001, 2_147_483_648_000_000, 9_223_372_036_854_776, 10_413_791_999_999_999]
}
