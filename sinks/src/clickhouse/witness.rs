//! A row that tells whether its block is in the table.
//!
//! ClickHouse writes down the token of an insert before it puts the part in its place. If it is killed in between, or cannot
//! put it there, it takes the insert that is repeated for one that it has: it acknowledges it and stores nothing. So what is
//! acknowledged after an attempt that failed is believed only when the rows are seen. A block is one part, which is there
//! whole or not at all, so one of its rows tells of all.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};

use super::tables::quoted;

/// The condition that the first row of a block meets, with the texts in place of its question marks. Numbers with fractions,
/// lists and bytes are left out: what a record says of its identity, times and frame is enough.
pub(super) fn condition(rows: &RecordBatch) -> (String, Vec<String>) {
    let (mut conditions, mut texts) = (Vec::new(), Vec::new());
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let name = quoted(field.name());
        if column.is_null(0) {
            conditions.push(format!("isNull({name})"));
            continue;
        }
        match field.data_type() {
            DataType::Utf8 => {
                conditions.push(format!("{name} = ?"));
                texts.push(column.as_string::<i32>().value(0).to_owned());
            }
            DataType::Int64 => conditions.push(format!("{name} = {}", column.as_primitive::<Int64Type>().value(0))),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let micros = column.as_primitive::<TimestampMicrosecondType>().value(0);
                conditions.push(format!("{name} = fromUnixTimestamp64Micro({micros})"));
            }
            DataType::Boolean => conditions.push(format!("{name} = {}", column.as_boolean().value(0))),
            _ => {}
        }
    }
    (conditions.join(" AND "), texts)
}

#[cfg(test)]
mod tests {
    use model::kinds::{BAR, TRADE};

    use super::super::blocks::{CHUNK, blocks};
    use super::*;
    use crate::Epoch;
    use crate::testing::{NOON, bar, bars, trades};

    #[test]
    fn a_row_is_told_by_what_identifies_it() {
        let epoch = Epoch { lower: 10, upper: 20, watermark: NOON, again: false };
        let block = &blocks("p", epoch, &TRADE, &[(11, trades(&[(1, NOON), (2, NOON)]))], CHUNK).unwrap()[0];
        let (condition_, texts) = condition(&block.rows);
        assert!(condition_.contains(&format!("`event_time` = fromUnixTimestamp64Micro({NOON})")), "{condition_}");
        assert!(condition_.contains("`trade_id` = ?") && condition_.contains("isNull(`contracts`)"), "{condition_}");
        assert!(texts.contains(&"1".to_owned()) && condition_.matches('?').count() == texts.len(), "{condition_} {texts:?}");
        let block = &blocks("p", epoch, &BAR, &[(11, bars(&[(bar(1, 1), 1)]))], CHUNK).unwrap()[0];
        let (condition_, _) = condition(&block.rows);
        assert!(condition_.contains("`version` = 11") && condition_.contains("`is_deleted` = false"), "{condition_}");
    }
}
