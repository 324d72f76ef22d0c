//! Rows of a batch: kept by a mask, or refused as dead letters.

use arrow::array::{Array, AsArray, BooleanArray, Int8Array, PrimitiveArray, RecordBatch};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Int8Type, Int32Type, Int64Type, TimestampMicrosecondType};
use model::columns::{integer, label};
use model::json::row_json;
use model::kinds::{DeadLetter, FRAME};
use model::time::Time;
use model::{Batch, Kind};

use crate::{Advance, Output};

/// The rows for which `mask` is true, with their differences; neither false nor null.
pub fn keep(batch: Batch, mask: &BooleanArray) -> Batch {
    if mask.true_count() == batch.len() {
        return batch;
    }
    let diffs = batch.diffs.map(|diffs| {
        let kept = filter(&Int8Array::new(diffs, None), mask).expect("a difference and a mask for each row");
        kept.as_primitive::<Int8Type>().values().clone()
    });
    let rows = filter_record_batch(&batch.rows, mask).expect("a mask for each row");
    Batch { rows, diffs, ..batch }
}

/// Refuses rows, each with its reason in words, and gives back the others.
pub fn refuse(batch: Batch, refused: &[(usize, String)], reason: &'static str, time: Time, out: &mut Output) -> Batch {
    if refused.is_empty() {
        return batch;
    }
    let mut mask = vec![true; batch.len()];
    for (row, detail) in refused {
        mask[*row] = false;
        bury(&batch, *row, reason, detail, time, out);
    }
    keep(batch, &mask.into())
}

/// Refuses one row: it becomes a dead letter that names what the row's columns tell, with the row as JSON (or the
/// bytes, of a frame).
pub fn bury(batch: &Batch, row: usize, reason: &'static str, detail: &str, time: Time, out: &mut Output) {
    describe(batch, row, detail, |letter| out.reject(reason, time, letter));
}

/// Refuses one row that came behind the watermark, as [`bury`] does.
pub fn late(batch: &Batch, row: usize, advance: &Advance, out: &mut Output) {
    let detail = format!("it came when the watermark was at {}", model::time::display(advance.before));
    describe(batch, row, &detail, |letter| out.late(advance.time, letter));
}

/// The dead letter of a row; the output fills in the node, the reason and the time.
fn describe(batch: &Batch, row: usize, detail: &str, give: impl FnOnce(DeadLetter<'_>)) {
    let Batch { kind, rows, .. } = batch;
    let taken_back;
    let detail = if batch.diff(row) > 0 {
        detail
    } else {
        taken_back = format!("{detail} (in a row that takes an earlier one back)");
        &taken_back
    };
    let json;
    let payload = match frame_payload(kind, rows, row) {
        Some(bytes) => bytes,
        None => {
            json = row_json(rows, row);
            &json
        }
    };
    let event_time = kind.time.iter().find(|c| *c != "receive_time").and_then(|c| number::<TimestampMicrosecondType>(rows, c, row));
    give(DeadLetter {
        node: "",
        reason: "",
        detail,
        event_time,
        receive_time: number::<TimestampMicrosecondType>(rows, "receive_time", row),
        rejected_time: 0,
        frame: number::<Int64Type>(rows, "frame", row),
        kind: &kind.name,
        venue: text(rows, "venue", row),
        market: text(rows, "market", row),
        symbol: text(rows, "symbol", row),
        payload,
    });
}

fn frame_payload<'r>(kind: &Kind, rows: &'r RecordBatch, row: usize) -> Option<&'r [u8]> {
    let payload = rows.column_by_name("payload").filter(|_| kind.name == FRAME.name)?;
    Some(payload.as_binary_opt::<i32>()?.value(row))
}

fn number<T: ArrowPrimitiveType<Native = i64>>(rows: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let column: &PrimitiveArray<T> = rows.column_by_name(column)?.as_primitive_opt()?;
    integer(column, row)
}

fn text<'r>(rows: &'r RecordBatch, column: &str, row: usize) -> Option<&'r str> {
    let column = rows.column_by_name(column)?;
    match column.data_type() {
        DataType::Utf8 => column.is_valid(row).then(|| column.as_string::<i32>().value(row)),
        _ => label(column.as_dictionary_opt::<Int32Type>()?, row),
    }
}
