//! The capture of a source in a table: which files hold its frames, and which numbers are in each.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use model::kinds::FRAME;
use model::tables::DATE;
use model::time::{self, Micros};
use serde_json::Value;
use storage::{ColdStore, File};
use twox_hash::XxHash64;

use crate::{Position, SourceError};

/// The column of the source that gave a frame: a file holds the frames of one.
const SOURCE: &str = "source";

/// The receive times of the frames that are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    /// The first of them.
    pub(super) from: Option<Micros>,
    /// The first after them.
    pub(super) to: Option<Micros>,
}

impl Range {
    /// Whether every frame is wanted, whatever its receive time.
    pub(super) fn is_all(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    /// Whether a frame that was received at this time is wanted.
    pub(super) fn holds(&self, received: Micros) -> bool {
        self.from.is_none_or(|from| from <= received) && self.to.is_none_or(|to| received < to)
    }

    /// Whether one of a day may be wanted.
    fn meets(&self, day: Option<&str>) -> bool {
        let Some(day) = day.and_then(|day| day.parse::<NaiveDate>().ok()) else { return self.is_all() };
        self.from.and_then(time::date).is_none_or(|from| from <= day) && self.to.and_then(time::date).is_none_or(|to| day <= to)
    }
}

/// A file, and between which numbers those of its frames lie.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub(super) file: File,
    pub(super) first: i64,
    pub(super) last: i64,
}

/// The frames of one source, as a table has them at one version.
#[derive(Debug)]
pub(super) struct Capture {
    /// The source and the table: what positions and errors name it by.
    pub(super) part: String,
    /// Tells the table from another one in its place.
    identity: u64,
    pub(super) range: Range,
    /// The files that are to be read, by their first frames.
    pub(super) stretches: Vec<Stretch>,
    /// The last frame that is there, wanted or not.
    end: i64,
}

impl Capture {
    /// Looks what a store has of a source.
    ///
    /// # Errors
    /// There is no table, or nothing of the source in it; it cannot be reached, or read without mistaking it.
    pub(super) async fn find(store: &ColdStore, source: &str, range: Range) -> Result<Self, SourceError> {
        let name = FRAME.table.as_deref().expect("frames have a table");
        let error = |what: String, remedy: String| SourceError { transient: false, place: store.address(name), what, remedy };
        let Some(table) = store.open_table(&FRAME, name).await? else {
            let remedy = "capture some with the sink `parquet`, or correct `url`";
            return Err(error("there is no table of frames".into(), remedy.into()));
        };
        let snapshot = table.snapshot().map_err(|e| SourceError::from(store.error(name, &e)))?;
        let identity = XxHash64::oneshot(0, snapshot.metadata().id().as_bytes());
        let objects = table.object_store();
        let (mut stretches, mut end, mut others) = (Vec::new(), None, BTreeSet::new());
        for file in snapshot.log_data().iter() {
            let values = file.partition_values_map();
            let value = |column: &str| values.get(column).and_then(|value| value.as_deref());
            if value(SOURCE) != Some(source) {
                others.extend(value(SOURCE).map(|other| format!("`{other}`")));
                continue;
            }
            if file.deletion_vector_descriptor().is_some() {
                let what = format!("another program has deleted frames of {} without rewriting it", file.path());
                return Err(error(what, "let that program rewrite its files (Delta calls it `REORG TABLE ... APPLY (PURGE)`)".into()));
            }
            // Who wrote no statistics may have put any frames there.
            let (first, last) = numbers(file.stats().as_deref()).unwrap_or((i64::MIN, i64::MAX));
            end = end.max(Some(last));
            if range.meets(value(DATE)) {
                let size = u64::try_from(file.size()).unwrap_or(0);
                let file = File { store: objects.clone(), path: file.object_store_path(), size };
                stretches.push(Stretch { file, first, last });
            }
        }
        let Some(end) = end else {
            let others: Vec<String> = others.into_iter().collect();
            let has = if others.is_empty() { "it is empty".into() } else { format!("it has those of {}", others.join(", ")) };
            let what = format!("there are no frames of a source `{source}` in the table; {has}");
            return Err(error(what, "set `source` to the name of the source that was captured".into()));
        };
        stretches.sort_by_key(|stretch| stretch.first);
        Ok(Capture { part: format!("{source} in {}", store.address(name)), identity, range, stretches, end })
    }

    /// The numbers of the first and the last frame that are to be read, where that is known.
    pub(super) fn bounds(&self) -> Option<(i64, i64)> {
        let first = self.stretches.first()?.first;
        let last = self.stretches.iter().map(|stretch| stretch.last).max()?;
        (first > i64::MIN && last < i64::MAX).then_some((first, last))
    }

    /// Where reading begins.
    pub(super) fn position(&self, from: Option<Position>) -> Position {
        from.unwrap_or_else(|| Position { part: self.part.clone(), offset: 0, frame: 0, identity: self.identity })
    }

    /// Whether a position that was given earlier can be gone on from.
    ///
    /// # Errors
    /// It is one of another capture, or of more than there is.
    pub(super) fn check(&self, from: &Position) -> Result<(), SourceError> {
        let error = |what: String| SourceError {
            transient: false,
            place: self.part.clone(),
            what,
            remedy: "bring back the table that was read before, or begin anew with `--fresh`".into(),
        };
        if from.part != self.part {
            return Err(error(format!("{} was read before", from.part)));
        }
        if from.identity != self.identity {
            return Err(error("the table was made anew since it was read".into()));
        }
        if from.frame as i64 > self.end {
            return Err(error(format!("the capture ends with frame {}, and was read to frame {}", self.end, from.frame)));
        }
        Ok(())
    }
}

/// The least and the greatest number in a file, from its statistics in the log.
fn numbers(statistics: Option<&str>) -> Option<(i64, i64)> {
    let statistics: Value = serde_json::from_str(statistics?).ok()?;
    let number = |bound: &str| statistics.get(bound)?.get("frame")?.as_i64();
    Some((number("minValues")?, number("maxValues")?))
}
