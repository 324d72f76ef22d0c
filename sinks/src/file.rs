//! `file`: records into one file per kind, as NDJSON, CSV, Arrow IPC or Parquet.
//!
//! - A file is written under its name with `.partial` appended and renamed when the pipeline ends, so a file that is
//!   there is complete. The next run replaces both.
//! - Records of an append-only kind are written as they come, in the order of their logical times.
//! - A record of a revisable kind is written once, in its latest version, when the pipeline ends: until then the
//!   latest version of each stays in memory. The file is in the order of their keys.
//! - The columns are the kind's, in their order.
//! - A disk that is full is waited for.

use std::fs::{self, File as Handle};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use config::{Check, Checked, Component};
use model::kinds::DEAD_LETTER;
use model::tables::{stored, stored_schema};
use model::time::Time;
use model::{Account, Batch, Kind};
use schemars::JsonSchema;
use serde::Deserialize;
use storage::attempts::Attempts;

use crate::canonical::Canonical;
use crate::inputs::{by_kind, written};
use crate::latest::Latest;
use crate::{Epoch, Keeps, OpenSink, Sink, SinkError, Writer};

mod format;

pub use format::Format;
use format::{EncodeError, Encoder, Patient};

/// Writes records into files, one per kind. A file appears under its name when the pipeline has ended.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where to write, e.g. `out/trades.ndjson`; folders are made. `{kind}` stands for the kind's name and is needed
    /// where the inputs carry several kinds: `out/{kind}.parquet`. A file that is there is replaced.
    path: String,
    /// How to write it. Default: what the extension says (`.ndjson`, `.jsonl`, `.json`, `.csv`, `.arrow`, `.feather`,
    /// `.parquet`).
    #[serde(default)]
    format: Option<Format>,
}

impl Component<dyn Sink> for File {
    const TYPE: &'static str = "file";
    const EXAMPLE: &'static str = r#"[sinks.files]
type = "file"
inputs = ["trades", "bars_1m"]
path = "out/{kind}.ndjson"
"#;

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Sink>> {
        let kinds = written(cx);
        if let Some(kinds) = kinds.filter(|kinds| kinds.len() > 1 && !self.path.contains(KIND)) {
            let names: Vec<String> = kinds.iter().map(|k| format!("`{}`", k.name)).collect();
            let message = format!("`path` names one file, but the inputs carry {}", names.join(", "));
            cx.error(
                &["path"],
                message,
                format!("put {KIND} into the path, e.g. `{}`, or name inputs of one kind", with_placeholder(&self.path)),
            );
        }
        if Path::new(&self.path).file_name().is_none() || self.path.ends_with('/') {
            cx.error(&["path"], "`path` names no file", "name a file, e.g. `out/trades.ndjson`");
        }
        let format = self.format.or_else(|| Format::of_path(&self.path));
        if format.is_none() {
            cx.error(
                &["path"],
                "the extension of `path` names no format",
                "end it with .ndjson, .csv, .arrow or .parquet, or set `format`",
            );
        }
        let component = Arc::new(Files { path: self.path, format: format.filter(|_| !cx.failed())? });
        Some(Checked { outputs: vec![], component })
    }
}

/// What stands for the kind in a path.
const KIND: &str = "{kind}";

/// The path with the kind in its file name.
fn with_placeholder(path: &str) -> String {
    let path = Path::new(path);
    let extension = path.extension().and_then(|e| e.to_str()).map(|e| format!(".{e}")).unwrap_or_default();
    path.with_file_name(format!("{KIND}{extension}")).display().to_string()
}

/// The checked sink.
#[derive(Debug)]
struct Files {
    path: String,
    format: Format,
}

#[async_trait]
impl Sink for Files {
    async fn open(&self, cx: OpenSink) -> Result<Box<dyn Writer>, SinkError> {
        let mut files = Open { path: self.path.clone(), format: self.format, files: Vec::new(), account: cx.account };
        // A kind without rows still has its file; dead letters have one where there is nothing else, or on their own.
        let letters_only = cx.kinds.iter().all(|k| k.name == DEAD_LETTER.name);
        for kind in cx.kinds.iter().filter(|k| letters_only || k.name != DEAD_LETTER.name) {
            files.begin(kind)?;
        }
        Ok(Box::new(FileWriter { files: Some(files), upper: None }))
    }

    fn keeps(&self) -> Keeps {
        Keeps::Whole
    }
}

/// Hands the work, which blocks on the disk, to a thread that may.
struct FileWriter {
    /// `None` only while an epoch is written, and for good if that was broken off.
    files: Option<Open>,
    upper: Option<Time>,
}

#[async_trait]
impl Writer for FileWriter {
    async fn commit(&mut self, epoch: Epoch, rows: Vec<(Time, Batch)>) -> Result<(), SinkError> {
        // An epoch that is handed over again is in the file already.
        if rows.is_empty() || self.upper.is_some_and(|upper| epoch.upper <= upper) {
            return Ok(());
        }
        let mut files = self.files.take().ok_or_else(interrupted)?;
        let (files, result) = tokio::task::spawn_blocking(move || {
            let result = files.commit(rows);
            (files, result)
        })
        .await
        .map_err(|_| interrupted())?;
        self.files = Some(files);
        self.upper = Some(epoch.upper);
        result
    }

    async fn close(mut self: Box<Self>) -> Result<(), SinkError> {
        let files = self.files.take().ok_or_else(interrupted)?;
        tokio::task::spawn_blocking(move || files.close()).await.map_err(|_| interrupted())?
    }
}

fn interrupted() -> SinkError {
    SinkError {
        transient: false,
        place: "file".into(),
        what: "writing was broken off".into(),
        remedy: "run the pipeline again; it writes the file anew".into(),
    }
}

/// The open files.
struct Open {
    path: String,
    format: Format,
    files: Vec<OpenFile>,
    account: Arc<Account>,
}

struct OpenFile {
    kind: Arc<Kind>,
    path: PathBuf,
    partial: PathBuf,
    /// The kind's columns as they are stored, without what a table needs to tell versions apart.
    schema: SchemaRef,
    encoder: Encoder,
    /// The records of a revisable kind, which are written at the end.
    latest: Option<Latest>,
}

/// Rows that are encoded at once at the end of a revisable kind.
const PIECE: usize = 8_192;

impl Open {
    fn begin(&mut self, kind: &Arc<Kind>) -> Result<usize, SinkError> {
        let path = PathBuf::from(self.path.replace(KIND, &kind.name));
        if path.is_dir() {
            return Err(SinkError {
                transient: false,
                place: path.display().to_string(),
                what: "is a folder".into(),
                remedy: "name a file in `path`".into(),
            });
        }
        let mut partial = path.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let failed = |error: EncodeError| refused(&partial, &error);
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|e| refused(folder, &e.into()))?;
        }
        let handle = Handle::create(&partial).map_err(|e| failed(e.into()))?;
        let columns = stored_schema(kind).fields().iter().take(kind.columns.len()).cloned().collect::<Vec<_>>();
        let schema: SchemaRef = Arc::new(Schema::new(columns));
        let attempts = Attempts::new(&self.account, partial.display().to_string(), partial.display().to_string());
        let encoder = Encoder::new(self.format, Patient { file: handle, attempts }, &schema).map_err(failed)?;
        let latest = kind.revisable.then(|| Latest::new(kind)).transpose().map_err(|e| failed(e.into()))?;
        self.files.push(OpenFile { kind: kind.clone(), path, partial, schema, encoder, latest });
        Ok(self.files.len() - 1)
    }

    fn commit(&mut self, rows: Vec<(Time, Batch)>) -> Result<(), SinkError> {
        for (kind, batches) in by_kind(rows) {
            let known = self.files.iter().position(|f| f.kind.name == kind.name);
            let received = batches.iter().map(|(_, batch)| batch.len()).sum();
            let file = match known {
                Some(file) => file,
                None if self.path.contains(KIND) => self.begin(&kind)?,
                // One path, one kind: dead letters of the nodes before are for another sink.
                None => {
                    self.account.ignore(received);
                    continue;
                }
            };
            let file = &mut self.files[file];
            let retracted = batches.iter().map(|(_, batch)| batch.retractions()).sum();
            let bytes = batches.iter().map(|(_, batch)| batch.bytes()).sum();
            file.commit(&batches).map_err(|e| refused(&file.partial, &e))?;
            self.account.accept(received);
            self.account.send(&kind.name, received, retracted, bytes);
        }
        Ok(())
    }

    fn close(self) -> Result<(), SinkError> {
        for file in self.files {
            let (path, partial) = (file.path.clone(), file.partial.clone());
            file.close().map_err(|e| refused(&partial, &e))?;
            fs::rename(&partial, &path).map_err(|e| refused(&path, &e.into()))?;
        }
        Ok(())
    }
}

impl OpenFile {
    fn commit(&mut self, batches: &[(Time, Batch)]) -> Result<(), EncodeError> {
        match &mut self.latest {
            Some(latest) => latest.apply(&Canonical::of(&self.kind, batches)?)?,
            None => {
                for (time, batch) in batches {
                    self.encoder.write(&stored(batch, *time)?)?;
                }
            }
        }
        Ok(())
    }

    fn close(mut self) -> Result<(), EncodeError> {
        if let Some(latest) = self.latest {
            for rows in latest.finish(PIECE)? {
                let columns = rows.columns()[..self.kind.columns.len()].to_vec();
                self.encoder.write(&RecordBatch::try_new(self.schema.clone(), columns)?)?;
            }
        }
        self.encoder.finish()
    }
}

fn refused(path: &Path, error: &EncodeError) -> SinkError {
    let remedy = match error {
        EncodeError::Io(_) | EncodeError::Parquet(_) => "set `path` to a place that can be written",
        EncodeError::Arrow(_) => "this is a bug: please report it with the pipeline file",
    };
    SinkError { transient: false, place: path.display().to_string(), what: error.to_string(), remedy: remedy.into() }
}

#[cfg(test)]
mod tests {
    use arrow::ipc::reader::FileReader;
    use config::component;
    use model::kinds::{BAR, TRADE};
    use model::time::Micros;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;
    use crate::testing::{NOON, bar, bars, opening, trades, words};

    fn sink(options: &str, kinds: &[&Arc<Kind>]) -> Result<Arc<dyn Sink>, String> {
        let kinds: Vec<Arc<Kind>> = kinds.iter().map(|k| (*k).clone()).collect();
        component::<dyn Sink, File>(options, &kinds).map(|checked| checked.component)
    }

    fn epoch(lower: Time, upper: Time) -> Epoch {
        Epoch { lower, upper, watermark: Micros::MIN, again: false }
    }

    async fn opened(path: &Path, kinds: &[&Arc<Kind>]) -> (Box<dyn Writer>, Arc<Account>) {
        let cx = opening(kinds);
        let account = cx.account.clone();
        (sink(&format!("path = {path:?}"), kinds).unwrap().open(cx).await.unwrap(), account)
    }

    #[tokio::test]
    async fn append_only_records_are_written_as_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/trades.ndjson");
        let (mut writer, account) = opened(&path, &[&TRADE]).await;
        writer.commit(epoch(0, 5), vec![(1, trades(&[(1, NOON)])), (4, trades(&[(3, NOON + 2), (2, NOON - 1)]))]).await.unwrap();
        writer.commit(epoch(5, 6), vec![(5, trades(&[(4, NOON)]))]).await.unwrap();
        writer.commit(epoch(5, 6), vec![(5, trades(&[(4, NOON)]))]).await.unwrap();
        assert!(!path.exists(), "a file that is there is complete");
        writer.close().await.unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let ids: Vec<serde_json::Value> =
            text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["trade_id"].clone()).collect();
        assert_eq!(ids, ["1", "3", "2", "4"], "and a repeated epoch is written once");
        assert_eq!(
            text.lines().next().unwrap(),
            concat!(
                r#"{"venue":"binance","market":"spot","symbol":"BTC-USDT","event_time":"2024-08-08T12:00:00.000000Z","receive_time":null,"#,
                r#""frame":1,"trade_id":"1","price":61837.630000000001,"quantity":1,"contracts":null,"side":"sell","fills":1,"backfilled":false}"#
            )
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no partial file is left");
        assert_eq!((account.totals().accepted, account.totals().sent), (4, 4));
    }

    #[tokio::test]
    async fn a_revisable_record_is_written_once_in_its_latest_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bars.csv");
        let (mut writer, account) = opened(&path, &[&BAR]).await;
        writer.commit(epoch(0, 2), vec![(1, bars(&[(bar(2, 1), 1), (bar(1, 1), 1)]))]).await.unwrap();
        // Revised within an epoch, over epochs, and taken back for good.
        let revisions = vec![(2, bars(&[(bar(2, 1), -1), (bar(2, 5), 1)])), (3, bars(&[(bar(2, 6), 1), (bar(2, 5), -1), (bar(3, 9), 1)]))];
        writer.commit(epoch(2, 4), revisions).await.unwrap();
        writer.commit(epoch(4, 9), vec![(5, bars(&[(bar(3, 9), -1)]))]).await.unwrap();
        writer.close().await.unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("venue,market,symbol,interval_seconds,start,") && !text.contains("version"));
        let rows: Vec<Vec<&str>> = lines.map(|l| l.split(',').collect()).collect();
        assert_eq!(rows.iter().map(|r| (r[2], r[14])).collect::<Vec<_>>(), [("S1", "1"), ("S2", "6")]);
        assert_eq!((account.totals().accepted, account.totals().retracted), (8, 3));
    }

    #[tokio::test]
    async fn arrow_and_parquet_are_read_back_by_their_readers() {
        let folder = tempfile::tempdir().unwrap();
        let rows = vec![(1, trades(&[(1, NOON), (2, NOON + 1)])), (2, trades(&[(3, NOON)]))];
        let expected: Vec<RecordBatch> = rows.iter().map(|(time, batch)| stored(batch, *time).unwrap()).collect();
        let expected = arrow::compute::concat_batches(&stored_schema(&TRADE), &expected).unwrap();
        for extension in ["arrow", "parquet"] {
            let path = folder.path().join(format!("trades.{extension}"));
            let (mut writer, _) = opened(&path, &[&TRADE]).await;
            writer.commit(epoch(0, 3), rows.clone()).await.unwrap();
            writer.close().await.unwrap();
            let file = Handle::open(&path).unwrap();
            let batches: Vec<RecordBatch> = match extension {
                "arrow" => FileReader::try_new(file, None).unwrap().collect::<Result<_, _>>().unwrap(),
                _ => ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().collect::<Result<_, _>>().unwrap(),
            };
            assert_eq!(arrow::compute::concat_batches(&expected.schema(), &batches).unwrap(), expected, "{extension}");
        }
    }

    #[tokio::test]
    async fn every_kind_has_its_file_and_dead_letters_only_where_they_fit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("{kind}.csv");
        let (mut writer, account) = opened(&path, &[&TRADE, &BAR, &DEAD_LETTER]).await;
        writer.commit(epoch(0, 2), vec![(1, bars(&[(bar(2, 1), 1)]))]).await.unwrap();
        writer.close().await.unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["bar.csv", "trade.csv"]);
        assert_eq!(fs::read_to_string(folder.path().join("trade.csv")).unwrap().lines().count(), 1, "a header and no rows");
        assert_eq!(account.totals().accepted, 1);

        let path = folder.path().join("one.csv");
        let (mut writer, account) = opened(&path, &[&TRADE, &DEAD_LETTER]).await;
        let mut letters = model::kinds::DeadLetterBuilder::default();
        letters.push(model::kinds::DeadLetter {
            node: "n",
            reason: "late",
            detail: "",
            event_time: None,
            receive_time: None,
            rejected_time: NOON,
            frame: None,
            kind: "trade",
            venue: None,
            market: None,
            symbol: None,
            payload: b"",
        });
        let letters = Batch::new(&DEAD_LETTER, letters.finish(), model::Origin::default());
        writer.commit(epoch(0, 2), vec![(1, letters), (1, trades(&[(1, NOON)]))]).await.unwrap();
        writer.close().await.unwrap();
        assert_eq!((account.totals().accepted, account.totals().ignored), (1, 1));
    }

    #[test]
    fn options_are_checked() {
        assert!(sink("path = 'x.csv'", &[&TRADE, &DEAD_LETTER]).is_ok());
        assert!(sink("path = 'x'\nformat = 'arrow'", &[&DEAD_LETTER]).is_ok());
        assert!(sink("path = '{kind}.parquet'", &[&TRADE, &BAR]).is_ok());
        let several = sink("path = 'out/x.csv'", &[&TRADE, &BAR]).unwrap_err();
        assert_eq!(several, "path: `path` names one file, but the inputs carry `trade`, `bar`");
        assert_eq!(with_placeholder("out/x.csv"), "out/{kind}.csv");
        assert_eq!(sink("path = 'out/x.txt'", &[&TRADE]).unwrap_err(), "path: the extension of `path` names no format");
        assert_eq!(sink("path = 'out/'\nformat = 'csv'", &[&TRADE]).unwrap_err(), "path: `path` names no file");
        assert_eq!(sink("path = 'x.csv'", &[]).unwrap_err(), "inputs: the inputs carry nothing");
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let blocker = folder.path().join("file");
        fs::write(&blocker, "").unwrap();
        let open =
            |path: PathBuf| async move { words(sink(&format!("path = {path:?}"), &[&TRADE]).unwrap().open(opening(&[&TRADE])).await) };
        let below_a_file = open(blocker.join("x.csv")).await;
        assert!(
            below_a_file.starts_with(&blocker.display().to_string()) && below_a_file.ends_with("set `path` to a place that can be written"),
            "{below_a_file}"
        );
        let folder_itself = folder.path().join("x.csv");
        fs::create_dir(&folder_itself).unwrap();
        assert!(open(folder_itself).await.contains("is a folder; name a file"));
    }
}
