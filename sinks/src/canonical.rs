//! The rows of an epoch in an order of their own, whatever way they came.
//!
//! An epoch always holds the same rows, but workers and batches bring them in another order each time. What is
//! cut into pieces and named by its content must not depend on that: [`Canonical`] sorts rows as their table does,
//! with every other column as the tie-breaker, and hashes each.
//!
//! For a revisable kind it also consolidates: what was asserted and taken back within the epoch cancels, and of each
//! key the newest version is left, or the news that the record is gone. A consumer that keeps the newest version per
//! key therefore ends with the same table as one that saw every revision.

use std::hash::Hasher;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use model::tables::{IS_DELETED, VERSION, stored, stored_schema};
use model::time::Time;
use model::{Batch, Kind};
use twox_hash::XxHash64;

/// Stored rows of one kind in canonical order.
pub(crate) struct Canonical {
    rows: RecordBatch,
    /// Indices into `rows`, in order.
    order: Vec<u32>,
    /// The content of each row of `rows`.
    hashes: Vec<u64>,
}

impl Canonical {
    /// Orders and, for a revisable kind, consolidates batches of one kind.
    ///
    /// # Errors
    /// As [`stored`].
    pub(crate) fn of(kind: &Kind, batches: &[(Time, Batch)]) -> Result<Self, ArrowError> {
        let rows = batches.iter().map(|(time, batch)| stored(batch, *time)).collect::<Result<Vec<_>, _>>()?;
        let rows = concat_batches(&stored_schema(kind), &rows)?;
        let first = order_columns(kind);
        let mut rest: Vec<usize> = (0..kind.columns.len()).filter(|i| !first.contains(i)).collect();
        if rest.is_empty() {
            rest.clone_from(&first);
        }
        let keys = encoded(&rows, &first)?;
        let values = encoded(&rows, &rest)?;
        let mut hashes: Vec<u64> = (0..rows.num_rows()).map(|row| hash_of([keys.row(row).data(), values.row(row).data()])).collect();
        let mut order: Vec<u32> = (0..u32::try_from(rows.num_rows()).map_err(|e| ArrowError::ComputeError(e.to_string()))?).collect();
        if kind.revisable {
            let versions = versions(&rows);
            order.sort_unstable_by(|a, b| {
                let (a, b) = (*a as usize, *b as usize);
                keys.row(a)
                    .cmp(&keys.row(b))
                    .then_with(|| versions.version[a].cmp(&versions.version[b]))
                    .then_with(|| values.row(a).cmp(&values.row(b)))
            });
            order = consolidated(&order, &keys, &values, &versions);
            for row in &order {
                let row = *row as usize;
                let stamp = [versions.version[row].to_le_bytes().as_slice(), &[u8::from(versions.deleted(row))]].concat();
                hashes[row] = hash_of([&hashes[row].to_le_bytes(), &stamp]);
            }
        } else {
            order.sort_unstable_by(|a, b| {
                let (a, b) = (*a as usize, *b as usize);
                keys.row(a).cmp(&keys.row(b)).then_with(|| values.row(a).cmp(&values.row(b)))
            });
        }
        Ok(Canonical { rows, order, hashes })
    }

    /// The rows before they are ordered; [`Canonical::order`] points into them.
    pub(crate) fn unordered(&self) -> &RecordBatch {
        &self.rows
    }

    /// The order, as indices into [`Canonical::unordered`].
    pub(crate) fn order(&self) -> &[u32] {
        &self.order
    }

    /// Some of the rows, by index into [`Canonical::unordered`].
    ///
    /// # Errors
    /// As Arrow's `take`.
    pub(crate) fn take(&self, rows: &[u32]) -> Result<RecordBatch, ArrowError> {
        take_record_batch(&self.rows, &UInt32Array::from(rows.to_vec()))
    }

    /// What some of the rows say, in this order: equal for equal rows.
    pub(crate) fn content(&self, rows: &[u32]) -> u64 {
        let mut hasher = XxHash64::with_seed(0);
        for row in rows {
            hasher.write(&self.hashes[*row as usize].to_le_bytes());
        }
        hasher.finish()
    }
}

/// The columns that rows are sorted by first: the identity of what has an order of its own; otherwise the instrument,
/// the time and the rest of the key, as in the tables.
fn order_columns(kind: &Kind) -> Vec<usize> {
    let instrument = |name: &str| ["venue", "market", "symbol"].contains(&name);
    let (first, last): (Vec<&str>, Vec<&str>) =
        kind.key.iter().map(|k| k.as_ref()).partition(|name| kind.has_own_order() || instrument(name));
    let time = kind.time.iter().map(|t| t.as_ref()).filter(|_| !kind.has_own_order());
    let mut columns = Vec::new();
    for name in first.into_iter().chain(time).chain(last) {
        let index = kind.columns.iter().position(|c| c.name == name).expect("a kind's key and time are columns of it");
        if !columns.contains(&index) {
            columns.push(index);
        }
    }
    columns
}

fn encoded(rows: &RecordBatch, columns: &[usize]) -> Result<Rows, ArrowError> {
    let columns: Vec<ArrayRef> = columns.iter().map(|i| rows.column(*i).clone()).collect();
    RowConverter::new(columns.iter().map(|c| SortField::new(c.data_type().clone())).collect())?.convert_columns(&columns)
}

/// The bytes of sorted rows are free of what does not matter, such as the values under a null.
fn hash_of<const N: usize>(parts: [&[u8]; N]) -> u64 {
    let mut hasher = XxHash64::with_seed(0);
    for part in parts {
        hasher.write(&part.len().to_le_bytes());
        hasher.write(part);
    }
    hasher.finish()
}

struct Versions<'a> {
    version: &'a [i64],
    is_deleted: &'a arrow::array::BooleanArray,
}

impl Versions<'_> {
    fn deleted(&self, row: usize) -> bool {
        self.is_deleted.value(row)
    }
}

fn versions(rows: &RecordBatch) -> Versions<'_> {
    let column = |name| rows.column_by_name(name).expect("stored rows of a revisable kind have a version");
    Versions { version: column(VERSION).as_primitive::<Int64Type>().values(), is_deleted: column(IS_DELETED).as_boolean() }
}

/// Of sorted rows, the one that each key comes to; none for a key whose rows cancel.
fn consolidated(order: &[u32], keys: &Rows, values: &Rows, versions: &Versions<'_>) -> Vec<u32> {
    let same = |of: &Rows, a: u32, b: u32| of.row(a as usize) == of.row(b as usize);
    let mut newest = Vec::new();
    for group in groups(order, |a, b| same(keys, a, b)) {
        let by_version: Vec<&[u32]> = groups(group, |a, b| versions.version[a as usize] == versions.version[b as usize]).collect();
        let left = by_version.iter().rev().find_map(|version| {
            // At one time an assertion outweighs a retraction: the one revises the other.
            let (mut asserted, mut retracted) = (None, None);
            for equal in groups(version, |a, b| same(values, a, b)) {
                let taken_back = equal.iter().filter(|row| versions.deleted(**row as usize)).count();
                match (equal.len() - taken_back).cmp(&taken_back) {
                    std::cmp::Ordering::Greater => asserted = equal.iter().find(|row| !versions.deleted(**row as usize)),
                    std::cmp::Ordering::Less => retracted = equal.iter().find(|row| versions.deleted(**row as usize)),
                    std::cmp::Ordering::Equal => {}
                }
            }
            asserted.or(retracted).copied()
        });
        newest.extend(left);
    }
    newest
}

/// Runs of neighbours that are the same.
fn groups(rows: &[u32], same: impl Fn(u32, u32) -> bool) -> impl Iterator<Item = &[u32]> {
    rows.chunk_by(move |a, b| same(*a, *b))
}
