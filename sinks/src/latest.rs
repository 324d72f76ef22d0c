//! The newest version of each record of a revisable kind, in memory.
//!
//! Rows stay in the Arrow batches they came in; a map from a key's bytes says where the newest version lies. When
//! more than half of the rows held are superseded, or the batches have become many, the living rows are copied
//! together, so memory stays within about twice what the records themselves need.

use ahash::AHashMap;
use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use model::Kind;
use model::tables::{IS_DELETED, stored_schema};

use crate::canonical::Canonical;

/// Superseded rows that are not worth a copying.
const SLACK: usize = 8_192;
/// Batches that are not worth a copying.
const BATCHES: usize = 1_024;

/// The records of one revisable kind.
pub(crate) struct Latest {
    /// Of the key columns, and their indices.
    keys: RowConverter,
    key_columns: Vec<usize>,
    batches: Vec<RecordBatch>,
    /// Rows in all batches.
    held: usize,
    /// Batch and row of the newest version of each record.
    places: AHashMap<Box<[u8]>, (usize, usize)>,
    /// Without rows; what the batches look like.
    empty: RecordBatch,
}

impl Latest {
    /// No record yet.
    ///
    /// # Errors
    /// Never for a kind whose key is made of columns.
    pub(crate) fn new(kind: &Kind) -> Result<Self, ArrowError> {
        let empty = RecordBatch::new_empty(stored_schema(kind));
        let key_columns = kind.key.iter().map(|k| empty.schema_ref().index_of(k)).collect::<Result<Vec<_>, _>>()?;
        let keys = RowConverter::new(key_columns.iter().map(|i| SortField::new(empty.column(*i).data_type().clone())).collect())?;
        Ok(Latest { keys, key_columns, batches: Vec::new(), held: 0, places: AHashMap::new(), empty })
    }

    /// Takes in the rows of an epoch later than all before it.
    ///
    /// # Errors
    /// Only those of Arrow itself, for more rows than it can count.
    pub(crate) fn apply(&mut self, epoch: &Canonical) -> Result<(), ArrowError> {
        let rows = epoch.take(epoch.order())?;
        let deleted = rows.column_by_name(IS_DELETED).expect("stored rows of a revisable kind say whether they are deleted").as_boolean();
        let columns: Vec<ArrayRef> = self.key_columns.iter().map(|i| rows.column(*i).clone()).collect();
        let keys = self.keys.convert_columns(&columns)?;
        let batch = self.batches.len();
        for row in 0..rows.num_rows() {
            let key = keys.row(row);
            if deleted.value(row) {
                self.places.remove(key.data());
            } else if let Some(place) = self.places.get_mut(key.data()) {
                *place = (batch, row);
            } else {
                self.places.insert(key.data().into(), (batch, row));
            }
        }
        self.held += rows.num_rows();
        self.batches.push(rows);
        if self.held > 2 * self.places.len() + SLACK || self.batches.len() > BATCHES {
            self.compact()?;
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<(), ArrowError> {
        let mut places: Vec<&mut (usize, usize)> = self.places.values_mut().collect();
        places.sort_unstable();
        let living: Vec<(usize, usize)> = places.iter().map(|place| **place).collect();
        let rows = match living.as_slice() {
            [] => self.empty.clone(),
            _ => interleave_record_batch(&self.batches.iter().collect::<Vec<_>>(), &living)?,
        };
        for (row, place) in places.into_iter().enumerate() {
            *place = (0, row);
        }
        self.held = rows.num_rows();
        self.batches = vec![rows];
        Ok(())
    }

    /// The records in the order of their keys, in pieces of at most `most` rows.
    ///
    /// # Errors
    /// As [`Latest::apply`].
    pub(crate) fn finish(self, most: usize) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut records: Vec<(Box<[u8]>, (usize, usize))> = self.places.into_iter().collect();
        records.sort_unstable();
        let places: Vec<(usize, usize)> = records.into_iter().map(|(_, place)| place).collect();
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        places.chunks(most).map(|piece| interleave_record_batch(&batches, piece)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use model::kinds::BAR;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{bar, bars};

    /// What is done to a key at one time: asserted with a number of trades, or taken back.
    fn changes() -> impl Strategy<Value = Vec<Vec<(u8, Option<i64>)>>> {
        prop::collection::vec(prop::collection::vec((0..6u8, prop::option::of(0..1_000i64)), 0..12), 1..40)
    }

    proptest! {
        /// Against a map that is written key by key; every epoch is one logical time, given in any order.
        #[test]
        fn holds_what_a_map_would(epochs in changes(), reversed: bool) {
            let mut latest = Latest::new(&BAR).unwrap();
            let mut model: BTreeMap<u8, i64> = BTreeMap::new();
            for (time, changes) in epochs.iter().enumerate() {
                let mut rows = Vec::new();
                for (key, trades) in changes {
                    let old = model.remove(key);
                    rows.extend(old.map(|old| (bar(*key, old), -1)));
                    rows.extend(trades.map(|new| (bar(*key, new), 1)));
                    model.extend(trades.map(|new| (*key, new)));
                }
                if reversed {
                    rows.reverse();
                }
                latest.apply(&Canonical::of(&BAR, &[(time as u64, bars(&rows))]).unwrap()).unwrap();
                if time % 3 == 0 {
                    latest.compact().unwrap();
                }
            }
            let mut found = Vec::new();
            for rows in latest.finish(2).unwrap() {
                prop_assert!(rows.num_rows() <= 2);
                let symbols = rows.column_by_name("symbol").unwrap().as_string::<i32>();
                let trades = rows.column_by_name("trades").unwrap().as_primitive::<Int64Type>();
                found.extend((0..rows.num_rows()).map(|row| (symbols.value(row).to_owned(), trades.value(row))));
            }
            let expected: Vec<(String, i64)> = model.into_iter().map(|(key, trades)| (format!("S{key}"), trades)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn forgets_superseded_rows() {
        let mut latest = Latest::new(&BAR).unwrap();
        for time in 0..40_000_u64 {
            let rows = [(bar(1, time as i64), 1)];
            latest.apply(&Canonical::of(&BAR, &[(time, bars(&rows))]).unwrap()).unwrap();
            assert!(latest.held <= SLACK + 3 && latest.batches.len() <= BATCHES + 1, "{} rows are held for one record", latest.held);
        }
        assert_eq!(latest.finish(10).unwrap()[0].num_rows(), 1);
    }
}
