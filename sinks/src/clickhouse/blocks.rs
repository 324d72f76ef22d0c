//! How the rows of an epoch are cut into inserts, and how each insert is named.
//!
//! ClickHouse takes an insert whole or not at all only if it is one block of one partition, and recognises a repeated
//! one by its token. So the rows of a table, in canonical order, are cut by partition (the day of their time) and
//! into chunks; a pure function of the epoch's rows. A token names the pipeline, what it computes, the interval, the
//! place of the block in it and the content, since ClickHouse would drop other rows under a token it knows without
//! a word.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use model::time::{self, Micros, Time};
use model::{Batch, Kind};

use crate::canonical::Canonical;
use crate::{Epoch, OpenSink};

/// The most rows of a block.
pub(super) const CHUNK: usize = 500_000;

const DAY: Micros = 86_400 * time::SECOND;

/// Rows that are inserted together.
pub(super) struct Block {
    /// The table.
    pub(super) table: String,
    /// The kind of the rows.
    pub(super) kind: Arc<Kind>,
    /// Days since 1970 of their time: their partition.
    pub(super) day: i64,
    /// What the server remembers of the insert.
    pub(super) token: String,
    /// The rows as they are stored.
    pub(super) rows: RecordBatch,
}

impl Block {
    /// The rows as an Arrow stream of one batch.
    pub(super) fn body(&self) -> Result<Bytes, ArrowError> {
        let mut writer = StreamWriter::try_new(Vec::with_capacity(self.rows.get_array_memory_size()), self.rows.schema_ref())?;
        writer.write(&self.rows)?;
        Ok(writer.into_inner()?.into())
    }
}

/// What tokens begin with: everything that tells one pipeline's interval from another's.
pub(super) fn token_prefix(cx: &OpenSink) -> String {
    format!("{}/{}/{}/{}", cx.pipeline, cx.node, cx.plan, cx.shard)
}

/// The blocks of one kind's rows in an epoch.
///
/// # Errors
/// A row that cannot be stored: a bug of an operator.
pub(super) fn blocks(
    prefix: &str,
    epoch: Epoch,
    kind: &Arc<Kind>,
    batches: &[(Time, Batch)],
    chunk: usize,
) -> Result<Vec<Block>, ArrowError> {
    let Some(table) = kind.table.as_deref() else { return Ok(vec![]) };
    let rows = Canonical::of(kind, batches)?;
    let times = kind.times(rows.unordered());
    let mut days: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for row in rows.order() {
        // Without a time ClickHouse takes the beginning of 1970, see `Kind::clickhouse_time`.
        let time = if times.is_valid(*row as usize) { times.value(*row as usize) } else { 0 };
        days.entry(time.div_euclid(DAY)).or_default().push(*row);
    }
    let mut blocks = Vec::new();
    for (day, order) in days {
        for (number, piece) in order.chunks(chunk).enumerate() {
            let partition = time::date(day.saturating_mul(DAY)).map_or_else(|| day.to_string(), |date| date.to_string());
            let token = format!("{prefix}/[{},{})/{table}/{partition}/{number}/{:016x}", epoch.lower, epoch.upper, rows.content(piece));
            blocks.push(Block { table: table.to_owned(), kind: kind.clone(), day, token, rows: rows.take(piece)? });
        }
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::compute::concat_batches;
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    use arrow::ipc::reader::StreamReader;
    use model::kinds::{BAR, TRADE};
    use model::tables::{IS_DELETED, VERSION};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{NOON, bar, bars, trades};

    const EPOCH: Epoch = Epoch { lower: 10, upper: 20, watermark: Micros::MIN, again: false };

    fn tokens(blocks: &[Block]) -> Vec<&str> {
        blocks.iter().map(|b| b.token.as_str()).collect()
    }

    /// Trades of some days, cut into batches at some places, in some order.
    fn arrivals() -> impl Strategy<Value = (Vec<(i64, Micros)>, Vec<(i64, Micros)>, usize)> {
        let rows =
            prop::collection::vec((0..40i64, (0..3i64, 0..5i64).prop_map(|(day, second)| NOON + day * DAY + second * time::SECOND)), 1..60);
        rows.prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle(), 1..7usize))
    }

    fn cut(rows: &[(i64, Micros)], size: usize) -> Vec<(Time, Batch)> {
        rows.chunks(size).enumerate().map(|(i, rows)| (10 + i as u64 % 10, trades(rows))).collect()
    }

    proptest! {
        #[test]
        fn blocks_do_not_depend_on_arrival((rows, shuffled, size) in arrivals()) {
            let one = blocks("p", EPOCH, &TRADE, &cut(&rows, 1_000), 8).unwrap();
            let other = blocks("p", EPOCH, &TRADE, &cut(&shuffled, size), 8).unwrap();
            prop_assert_eq!(tokens(&one), tokens(&other));
            for (one, other) in one.iter().zip(&other) {
                prop_assert_eq!(&one.rows, &other.rows);
            }
        }

        #[test]
        fn blocks_hold_every_row_once_in_its_partition((rows, _, size) in arrivals()) {
            let blocks = blocks("p", EPOCH, &TRADE, &cut(&rows, size), 8).unwrap();
            let mut found = Vec::new();
            for block in &blocks {
                prop_assert!(block.rows.num_rows() <= 8);
                let ids = block.rows.column_by_name("trade_id").unwrap().as_string::<i32>();
                let times = block.rows.column_by_name("event_time").unwrap().as_primitive::<TimestampMicrosecondType>();
                for row in 0..block.rows.num_rows() {
                    prop_assert_eq!(times.value(row).div_euclid(DAY), block.day);
                    found.push((ids.value(row).parse::<i64>().unwrap(), times.value(row)));
                }
            }
            found.sort();
            let mut rows = rows;
            rows.sort();
            prop_assert_eq!(found, rows);
            let distinct: std::collections::BTreeSet<&str> = tokens(&blocks).into_iter().collect();
            prop_assert_eq!(distinct.len(), blocks.len());
        }
    }

    #[test]
    fn a_token_tells_everything_apart() {
        let rows = |id| vec![(11, trades(&[(id, NOON)]))];
        let token = |prefix: &str, epoch, rows: Vec<(Time, Batch)>| blocks(prefix, epoch, &TRADE, &rows, CHUNK).unwrap()[0].token.clone();
        let one = token("pipeline/out/plan/0", EPOCH, rows(1));
        assert!(one.starts_with("pipeline/out/plan/0/[10,20)/trades/2024-08-08/0/"), "{one}");
        assert_eq!(one, token("pipeline/out/plan/0", EPOCH, rows(1)));
        assert_ne!(one, token("pipeline/out/plan/1", EPOCH, rows(1)));
        assert_ne!(one, token("pipeline/out/plan/0", Epoch { upper: 21, ..EPOCH }, rows(1)));
        assert_ne!(one, token("pipeline/out/plan/0", EPOCH, rows(2)), "other rows under a known token would be dropped silently");
    }

    #[test]
    fn the_content_hash_is_the_same_for_ever() {
        // A build that hashes otherwise would write a repeated epoch twice after an upgrade: mention it in the changelog.
        let block = &blocks("p", EPOCH, &TRADE, &[(11, trades(&[(1, NOON), (2, NOON)]))], CHUNK).unwrap()[0];
        assert_eq!(block.token, "p/[10,20)/trades/2024-08-08/0/9155360c52daa2f4");
    }

    #[test]
    fn revisions_within_an_epoch_come_to_the_newest() {
        let rows = vec![
            (10, bars(&[(bar(1, 1), 1), (bar(2, 1), 1), (bar(3, 7), -1), (bar(4, 1), 1), (bar(5, 2), -1), (bar(5, 3), 1)])),
            (12, bars(&[(bar(1, 2), 1), (bar(1, 1), -1), (bar(2, 1), -1)])),
            // Asserted and taken back at one time: as if it had not been.
            (14, bars(&[(bar(1, 9), 1), (bar(1, 9), -1)])),
        ];
        let blocks = blocks("p", EPOCH, &BAR, &rows, CHUNK).unwrap();
        let rows = concat_batches(blocks[0].rows.schema_ref(), blocks.iter().map(|b| &b.rows)).unwrap();
        let symbols = rows.column_by_name("symbol").unwrap().as_string::<i32>();
        let integer = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
        let (trades, versions, deleted) = (integer("trades"), integer(VERSION), rows.column_by_name(IS_DELETED).unwrap().as_boolean());
        let found: Vec<_> = (0..rows.num_rows()).map(|i| (symbols.value(i), trades[i], versions[i], deleted.value(i))).collect();
        assert_eq!(found, [("S1", 2, 12, false), ("S2", 1, 12, true), ("S3", 7, 10, true), ("S4", 1, 10, false), ("S5", 3, 10, false)]);
    }

    #[test]
    fn a_body_is_one_batch_of_the_stored_columns() {
        let block = &blocks("p", EPOCH, &TRADE, &[(11, trades(&[(1, NOON), (2, NOON)]))], CHUNK).unwrap()[0];
        let read: Vec<RecordBatch> =
            StreamReader::try_new(std::io::Cursor::new(block.body().unwrap()), None).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(read, std::slice::from_ref(&block.rows));
    }
}
