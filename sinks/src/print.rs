//! `print`: records to standard output, for a look at what flows.
//!
//! - Rows appear in the order of their logical times. Of a revisable kind every revision appears, with `diff` 1 where
//!   a record is asserted and -1 where it is taken back.
//! - When nobody reads any more (`| head`), printing stops without a word, and the pipeline goes on.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_options;
use async_trait::async_trait;
use config::{Check, Checked, Component};
use model::kinds::DEAD_LETTER;
use model::tables::{stored, stored_schema};
use model::time::Time;
use model::{Account, Batch, Kind};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::inputs::{by_kind, written};
use crate::text::{Text, csv_header};
use crate::{Epoch, Keeps, OpenSink, Pace, Sink, SinkError, Writer};

/// Prints records to standard output.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Print {
    /// How to print them.
    #[serde(default)]
    format: PrintFormat,
    /// The most rows to print of each kind. Default: all.
    #[serde(default)]
    limit: Option<usize>,
}

/// How records are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PrintFormat {
    /// A table for people, one per kind and commit.
    #[default]
    Table,
    /// One JSON object a line; its first member, `kind`, tells the kind.
    Ndjson,
    /// Comma-separated values with a header, of one kind.
    Csv,
}

impl Component<dyn Sink> for Print {
    const TYPE: &'static str = "print";
    const EXAMPLE: &'static str = r#"[sinks.screen]
type = "print"
inputs = ["bars_1m"]
limit = 20
"#;

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Sink>> {
        let kinds = written(cx);
        if let Some(kinds) = kinds.filter(|kinds| kinds.len() > 1 && self.format == PrintFormat::Csv) {
            let names: Vec<String> = kinds.iter().map(|k| format!("`{}`", k.name)).collect();
            let message = format!("CSV has one header, but the inputs carry {}", names.join(", "));
            cx.error(&["format"], message, "print `ndjson` or `table`, or name inputs of one kind");
        }
        Some(Checked { outputs: vec![], component: Arc::new(self) })
    }
}

#[async_trait]
impl Sink for Print {
    fn keeps(&self) -> Keeps {
        Keeps::Nothing
    }

    async fn open(&self, cx: OpenSink) -> Result<Box<dyn Writer>, SinkError> {
        Ok(Box::new(Printer { page: Some(self.page(&cx, Box::new(io::stdout()))), upper: None }))
    }

    fn pace(&self) -> Pace {
        // Somebody is watching.
        Pace { interval: std::time::Duration::from_millis(200), ..Pace::default() }
    }
}

impl Print {
    fn page(&self, cx: &OpenSink, out: Box<dyn Write + Send>) -> Page {
        let letters_only = cx.kinds.iter().all(|k| k.name == DEAD_LETTER.name);
        Page { format: self.format, limit: self.limit, letters_only, printed: Vec::new(), out: Some(out), account: cx.account.clone() }
    }
}

/// Hands the printing, which blocks while nobody reads, to a thread that may.
struct Printer {
    /// `None` only while something is printed.
    page: Option<Page>,
    upper: Option<Time>,
}

#[async_trait]
impl Writer for Printer {
    async fn commit(&mut self, epoch: Epoch, rows: Vec<(Time, Batch)>) -> Result<(), SinkError> {
        if rows.is_empty() || self.upper.is_some_and(|upper| epoch.upper <= upper) {
            return Ok(());
        }
        let mut page = self.page.take().ok_or_else(interrupted)?;
        let (page, result) = tokio::task::spawn_blocking(move || {
            let result = page.commit(rows);
            (page, result)
        })
        .await
        .map_err(|_| interrupted())?;
        self.page = Some(page);
        self.upper = Some(epoch.upper);
        result
    }

    async fn close(mut self: Box<Self>) -> Result<(), SinkError> {
        let mut page = self.page.take().ok_or_else(interrupted)?;
        tokio::task::spawn_blocking(move || page.close()).await.map_err(|_| interrupted())?
    }
}

fn interrupted() -> SinkError {
    SinkError { transient: false, place: PLACE.into(), what: "printing was broken off".into(), remedy: "run the pipeline again".into() }
}

const PLACE: &str = "standard output";

/// What was printed so far, and where.
struct Page {
    format: PrintFormat,
    limit: Option<usize>,
    letters_only: bool,
    /// Rows given of each kind, printed or over the limit.
    printed: Vec<(String, usize)>,
    /// `None` once nobody reads.
    out: Option<Box<dyn Write + Send>>,
    account: Arc<Account>,
}

impl Page {
    fn commit(&mut self, rows: Vec<(Time, Batch)>) -> Result<(), SinkError> {
        let mut text = Vec::new();
        for (kind, batches) in by_kind(rows) {
            let received = batches.iter().map(|(_, batch)| batch.len()).sum();
            if self.format == PrintFormat::Csv && kind.name == DEAD_LETTER.name && !self.letters_only {
                self.account.ignore(received);
                continue;
            }
            let before = self.given(&kind, received);
            let room = self.limit.map_or(received, |limit| limit.saturating_sub(before).min(received));
            if room > 0 && self.out.is_some() {
                self.write(&kind, &batches, room, before == 0, &mut text).map_err(|e| failed(e.to_string()))?;
            }
            let retracted = batches.iter().map(|(_, batch)| batch.retractions()).sum();
            let bytes = batches.iter().map(|(_, batch)| batch.bytes()).sum();
            self.account.accept(received);
            self.account.send(&kind.name, received, retracted, bytes);
        }
        self.print(&text)
    }

    /// Counts rows of a kind; returns how many there were before.
    fn given(&mut self, kind: &Kind, rows: usize) -> usize {
        let at = self.printed.iter().position(|(name, _)| *name == kind.name).unwrap_or_else(|| {
            self.printed.push((kind.name.to_string(), 0));
            self.printed.len() - 1
        });
        let count = &mut self.printed[at].1;
        *count += rows;
        *count - rows
    }

    fn write(&self, kind: &Kind, batches: &[(Time, Batch)], rows: usize, first: bool, text: &mut Vec<u8>) -> Result<(), ArrowError> {
        let rows = shown(kind, batches)?.slice(0, rows);
        match self.format {
            PrintFormat::Ndjson => model::json::writer(text).write(&with_kind(kind, &rows)?)?,
            PrintFormat::Csv => {
                let cells = Text::of(&rows)?;
                if first {
                    csv_header(rows.schema_ref(), text);
                }
                (0..rows.num_rows()).for_each(|row| cells.csv(row, text));
            }
            PrintFormat::Table => {
                let cells = Text::of(&rows)?;
                let columns: Vec<ArrayRef> =
                    (0..rows.num_columns()).map(|i| Arc::new(cells.plain(i).collect::<StringArray>()) as ArrayRef).collect();
                let fields: Vec<Field> = rows.schema_ref().fields().iter().map(|f| Field::new(f.name(), DataType::Utf8, true)).collect();
                let table = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
                let table = pretty_format_batches_with_options(&[table], &FormatOptions::new())?;
                writeln!(text, "{}\n{table}", kind.table.as_ref().unwrap_or(&kind.name)).expect("text is written to memory");
            }
        }
        Ok(())
    }

    /// Writes text, unless nobody reads any more.
    fn print(&mut self, text: &[u8]) -> Result<(), SinkError> {
        let Some(out) = &mut self.out else { return Ok(()) };
        match out.write_all(text).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.out = None;
                Ok(())
            }
            other => other.map_err(|e| failed(e.to_string())),
        }
    }

    fn close(&mut self) -> Result<(), SinkError> {
        let (Some(limit), PrintFormat::Table) = (self.limit, self.format) else { return Ok(()) };
        let over: String = self
            .printed
            .iter()
            .filter(|(_, rows)| *rows > limit)
            .map(|(kind, rows)| format!("{} more rows of `{kind}`\n", rows - limit))
            .collect();
        self.print(over.as_bytes())
    }
}

/// The rows of a kind as they are shown: with the diff before them where they can be revised.
fn shown(kind: &Kind, batches: &[(Time, Batch)]) -> Result<RecordBatch, ArrowError> {
    let rows = batches.iter().map(|(time, batch)| stored(batch, *time)).collect::<Result<Vec<_>, _>>()?;
    let schema = stored_schema(kind);
    let rows = concat_batches(&schema, &rows)?;
    if !kind.revisable {
        return Ok(rows);
    }
    let diffs: Int64Array = batches.iter().flat_map(|(_, batch)| (0..batch.len()).map(|row| i64::from(batch.diff(row)))).collect();
    let rows = rows.project(&(0..kind.columns.len()).collect::<Vec<_>>())?;
    with_first("diff", Arc::new(diffs), &rows)
}

/// Rows with their kind before them.
fn with_kind(kind: &Kind, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    with_first("kind", Arc::new(StringArray::from(vec![kind.name.as_ref(); rows.num_rows()])), rows)
}

/// Rows with another column before theirs.
fn with_first(name: &str, column: ArrayRef, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let first = Arc::new(Field::new(name, column.data_type().clone(), false));
    let fields: Vec<_> = std::iter::once(first).chain(rows.schema_ref().fields().iter().cloned()).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), std::iter::once(column).chain(rows.columns().iter().cloned()).collect())
}

fn failed(what: String) -> SinkError {
    SinkError { transient: false, place: PLACE.into(), what, remedy: "let standard output go somewhere that takes it".into() }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use config::component;
    use model::kinds::{BAR, TRADE};
    use model::time::Micros;

    use super::*;
    use crate::testing::{NOON, bar, bars, opening, trades};

    /// A standard output that can be looked at, and that closes after some bytes.
    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>, Option<usize>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut text = self.0.lock().unwrap();
            if self.1.is_some_and(|most| text.len() >= most) {
                return Err(ErrorKind::BrokenPipe.into());
            }
            text.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Screen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// What is printed of trades and bars in two epochs, and the books afterwards.
    async fn printed(format: PrintFormat, limit: Option<usize>, kinds: &[&Arc<Kind>], screen: Screen) -> (String, model::account::Totals) {
        let cx = opening(kinds);
        let page = Print { format, limit }.page(&cx, Box::new(screen.clone()));
        let mut writer: Box<dyn Writer> = Box::new(Printer { page: Some(page), upper: None });
        for time in [1_u64, 2] {
            let mut rows = Vec::new();
            if kinds.iter().any(|k| k.name == TRADE.name) {
                rows.push((time, trades(&[(time as i64 * 10, NOON), (time as i64 * 10 + 1, NOON)])));
            }
            if kinds.iter().any(|k| k.name == BAR.name) {
                rows.push((time, bars(&[(bar(1, time as i64), 1), (bar(1, time as i64 - 1), -1)])));
            }
            let epoch = Epoch { lower: time, upper: time + 1, watermark: Micros::MIN, again: false };
            writer.commit(epoch, rows).await.unwrap();
        }
        writer.close().await.unwrap();
        (screen.text(), cx.account.totals())
    }

    #[tokio::test]
    async fn lines_of_json_tell_kind_and_diff() {
        let (text, totals) = printed(PrintFormat::Ndjson, None, &[&TRADE, &BAR], Screen::default()).await;
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let seen: Vec<_> =
            lines.iter().map(|l| (l["kind"].as_str().unwrap(), l["diff"].as_i64(), l["trade_id"].as_str(), l["trades"].as_i64())).collect();
        assert_eq!(
            seen,
            [
                ("trade", None, Some("10"), None),
                ("trade", None, Some("11"), None),
                ("bar", Some(1), None, Some(1)),
                ("bar", Some(-1), None, Some(0)),
                ("trade", None, Some("20"), None),
                ("trade", None, Some("21"), None),
                ("bar", Some(1), None, Some(2)),
                ("bar", Some(-1), None, Some(1)),
            ]
        );
        assert_eq!((totals.accepted, totals.sent, totals.retracted), (8, 8, 2));
    }

    #[tokio::test]
    async fn csv_has_one_header() {
        let (text, _) = printed(PrintFormat::Csv, Some(3), &[&BAR], Screen::default()).await;
        let firsts: Vec<&str> = text.lines().map(|l| l.split(',').next().unwrap()).collect();
        assert_eq!(firsts, ["diff", "1", "-1", "1"]);
    }

    #[tokio::test]
    async fn a_table_is_for_people() {
        let (text, _) = printed(PrintFormat::Table, Some(3), &[&TRADE], Screen::default()).await;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "trades");
        assert!(lines[2].starts_with("| venue   | market | symbol   | event_time                  | receive_time |"), "{}", lines[2]);
        assert!(lines[4].contains("| 61837.63000000001  |"), "{}", lines[4]);
        assert_eq!(lines.last(), Some(&"1 more rows of `trade`"));
        assert_eq!(text.matches("2024-08-08T12:00:00.000000Z").count(), 3);
    }

    #[tokio::test]
    async fn a_closed_pipe_ends_quietly_and_the_books_balance() {
        let screen = Screen(Arc::default(), Some(1));
        let (text, totals) = printed(PrintFormat::Ndjson, None, &[&TRADE], screen).await;
        assert_eq!(text.lines().count(), 2, "the first epoch");
        assert_eq!(totals.accepted, 4);
    }

    #[test]
    fn options_are_checked() {
        let check = |options: &str, kinds: &[Arc<Kind>]| component::<dyn Sink, Print>(options, kinds).map(drop);
        assert_eq!(check("", &[TRADE.clone(), BAR.clone()]), Ok(()));
        assert_eq!(check("format = 'csv'\nlimit = 3", &[TRADE.clone(), DEAD_LETTER.clone()]), Ok(()));
        let several = check("format = 'csv'", &[TRADE.clone(), BAR.clone()]).unwrap_err();
        assert_eq!(several, "format: CSV has one header, but the inputs carry `trade`, `bar`");
    }
}
