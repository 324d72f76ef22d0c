//! `parquet`: a Delta Lake table per kind, in a folder or on S3.
//!
//! - **Exactly once.** An epoch becomes one commit per table, with the rows as Parquet files and, in the same log
//!   entry, the application transaction `pipeline/sink/shard` at the epoch's end. A repeated epoch finds it there and
//!   changes nothing; a second writer of the same name is refused by the log.
//! - **The tier boundary moves with the rows.** The same commit says up to which event time the table is complete: the
//!   watermark, but not beyond the last row. It never moves back. Queries read what is before it here, the rest from
//!   the hot store.
//! - **Revisions are versions.** Of a revisable kind, the newest version of each record in an epoch is added; readers
//!   take the newest of all. What was taken back is a version that says so.
//! - **Few, sorted files.** Each file holds one day and venue, sorted by instrument and time, with statistics. Small
//!   files are merged in the background, old logs and unreferenced files are removed after a day. None of it holds up
//!   a commit.
//! - **Frames are a capture.** They are kept as they were received, each file those of one source in their order: what
//!   the source `frames` gives again.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use config::values::{self, Size};
use config::{Check, Checked, Component};
use futures::future::try_join_all;
use model::time::Time;
use model::{Batch, Kind};
use schemars::JsonSchema;
use serde::Deserialize;
use storage::ColdStore;

use crate::inputs::by_kind;
use crate::{Epoch, OpenSink, Pace, Sink, SinkError, Writer};

mod compaction;
mod files;
mod table;
#[cfg(test)]
mod tests;

use table::{Table, TableWriter};

/// Writes records into Delta Lake tables of Parquet files, one table per kind, that DuckDB, Polars, Spark, Trino and
/// ClickHouse read as they are. Frames are kept as they were received, for the source `frames`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parquet {
    /// Where the tables lie: a folder or `s3://bucket/prefix`. Default: the cold store of the system settings, which is
    /// what SQL reads.
    #[serde(default)]
    url: Option<String>,
    /// The longest that rows wait for a commit. More often means fresher queries and more small files to merge.
    #[serde(default = "two_seconds")]
    interval: values::Duration,
    /// Memory that waiting rows may take before they are committed earlier.
    #[serde(default = "sixty_four_megabytes")]
    bytes: Size,
    /// How hard to compress, 1 (fast) to 22 (small).
    #[serde(default = "level_three")]
    #[schemars(range(min = 1, max = 22))]
    zstd_level: i32,
    /// The size of merged files. Larger files make long scans faster and merging dearer.
    #[serde(default = "quarter_gigabyte")]
    file_size: Size,
}

fn two_seconds() -> values::Duration {
    values::Duration::seconds(2)
}

fn sixty_four_megabytes() -> Size {
    Size(64_000_000)
}

fn level_three() -> i32 {
    3
}

fn quarter_gigabyte() -> Size {
    Size(256_000_000)
}

impl Component<dyn Sink> for Parquet {
    const TYPE: &'static str = "parquet";
    const EXAMPLE: &'static str = r#"[sinks.cold]
type = "parquet"
inputs = ["trades", "bars_1m"]
"#;

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Sink>> {
        check_tables(cx);
        if self.bytes.0 == 0 {
            cx.error(&["bytes"], "`bytes` is zero", "give the rows that wait some memory, e.g. `64MB`");
        }
        if self.interval.0 < Duration::from_millis(50) {
            cx.error(&["interval"], format!("`interval` is {}", self.interval), "commit at most 20 times a second, e.g. every `1s`");
        }
        if !(1..=22).contains(&self.zstd_level) {
            cx.error(&["zstd_level"], format!("`zstd_level` is {}", self.zstd_level), "write a level from 1 to 22");
        }
        let file_size = NonZeroU64::new(self.file_size.0);
        if file_size.is_none() {
            cx.error(&["file_size"], "`file_size` is zero", "write the size that merged files should have, e.g. `256MB`");
        }
        if cx.failed() {
            return None;
        }
        let options = Options { zstd_level: self.zstd_level, file_size: file_size? };
        let pace = Pace { interval: self.interval.0, bytes: usize::try_from(self.bytes.0).unwrap_or(usize::MAX) };
        Some(Checked { outputs: vec![], component: Arc::new(Tables { url: self.url, options, pace }) })
    }
}

/// Every kind that flows in needs a table, and one of its own.
fn check_tables(cx: &mut Check<'_>) {
    let mut problems: Vec<(String, String)> = Vec::new();
    let mut tables: Vec<(&str, &Kind)> = Vec::new();
    for input in cx.inputs() {
        for kind in &input.kinds {
            let Some(name) = &kind.table else {
                let remedy = format!("name an operator that turns `{}` records into a kind with a table", kind.name);
                problems.push((format!("input `{}` carries `{}` records, which have no table", input.node, kind.name), remedy));
                continue;
            };
            if kind.time.is_empty() {
                let what = format!("`{}` records from `{}` have no time, by which tables are partitioned", kind.name, input.node);
                problems.push((what, "keep the column that tells when a record happened".to_owned()));
            }
            match tables.iter().find(|(_, other)| other.table.as_deref() == Some(name)) {
                None => tables.push((&input.node, kind)),
                Some((_, other)) if *other == kind.as_ref() => {}
                Some((node, other)) => problems.push((
                    format!(
                        "`{}` from `{node}` and `{}` from `{}` go to the same table `{name}`, but have different columns",
                        other.name, kind.name, input.node
                    ),
                    "give one of the kinds another name, or write it to another `url`".to_owned(),
                )),
            }
        }
    }
    if tables.is_empty() && problems.is_empty() {
        problems.push(("the inputs carry nothing".into(), "name an input that carries records".into()));
    }
    for (what, remedy) in problems {
        cx.error(&["inputs"], what, remedy);
    }
}

/// How files are written.
#[derive(Clone, Copy, Debug)]
struct Options {
    zstd_level: i32,
    file_size: NonZeroU64,
}

/// A checked `parquet` sink.
#[derive(Debug)]
struct Tables {
    url: Option<String>,
    options: Options,
    pace: Pace,
}

#[async_trait]
impl Sink for Tables {
    fn keeps_dead_letters(&self) -> bool {
        true
    }

    async fn open(&self, cx: OpenSink) -> Result<Box<dyn Writer>, SinkError> {
        let store = match &self.url {
            Some(url) => ColdStore::open(url, &cx.settings.cold),
            None => ColdStore::from_settings(&cx.settings),
        }?;
        let application = format!("{}/{}/{}", cx.pipeline, cx.node, cx.shard);
        let mut tables: Vec<Arc<Kind>> = Vec::new();
        for kind in &cx.kinds {
            if !tables.iter().any(|k| k.table == kind.table) {
                tables.push(kind.clone());
            }
        }
        let tables = try_join_all(tables.into_iter().map(|kind| {
            let (store, application, options, account) = (store.clone(), application.clone(), self.options, cx.account.clone());
            async move { TableWriter::open(Table::open(store, kind, options, account).await?, application).await }
        }))
        .await?;
        Ok(Box::new(Commits { tables, cx }))
    }

    fn pace(&self) -> Pace {
        self.pace
    }
}

impl From<storage::StorageError> for SinkError {
    fn from(e: storage::StorageError) -> Self {
        SinkError { transient: e.transient, place: e.place, what: e.what, remedy: e.remedy }
    }
}

/// An open `parquet` sink.
struct Commits {
    tables: Vec<TableWriter>,
    cx: OpenSink,
}

#[async_trait]
impl Writer for Commits {
    async fn commit(&mut self, epoch: Epoch, rows: Vec<(Time, Batch)>) -> Result<(), SinkError> {
        let mut rows = by_kind(rows);
        let commits = self.tables.iter_mut().map(|table| {
            let mut batches = Vec::new();
            rows.retain_mut(|(kind, arrived)| {
                let ours = kind.table == table.kind().table;
                if ours {
                    batches.append(arrived);
                }
                !ours
            });
            table.commit(&self.cx, epoch, batches)
        });
        // Tables are committed side by side; an error waits for the others, so that none is left half-way.
        for result in futures::future::join_all(commits).await {
            result?;
        }
        match rows.first() {
            None => Ok(()),
            Some((kind, _)) => Err(SinkError {
                transient: false,
                place: self.cx.node.clone(),
                what: format!("`{}` records came, for which no table was opened", kind.name),
                remedy: "this is a bug of the pipeline: please report it".into(),
            }),
        }
    }

    async fn close(self: Box<Self>) -> Result<(), SinkError> {
        try_join_all(self.tables.into_iter().map(TableWriter::close)).await.map(drop)
    }
}
