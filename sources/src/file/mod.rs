//! Recorded files: frames as a venue sent them, or records that are normalised already.
//!
//! Files are read one after another in the order of their names, each in blocks that end with a line, so a
//! file of any size takes a few megabytes of memory and where the blocks are cut makes no difference. What
//! can be used is used: damage inside a file costs the lines that it touches and is told with its place, and
//! reading goes on behind it or with the next file. What cannot be used is a dead letter with its bytes. Only
//! what would make the whole answer wrong stops the pipeline, at the start: a pattern that matches nothing, a
//! file that cannot be read, columns that the kind does not have.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use config::{Check, Checked, Component};
use model::kinds::{self, DEAD_LETTER, FRAME};
use model::{Kind, time};
use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) mod columns;
mod csv;
pub(crate) mod frames;
mod gather;
mod input;
mod lines;
pub(crate) mod ndjson;
mod pace;
mod parquet;
mod paths;
mod reader;
#[cfg(test)]
mod tests;

use frames::Labels;
use pace::Paced;
use reader::{FileReader, Layout};

use crate::dialect::{self, Dialects};
use crate::{Clock, OpenSource, Reader, Source, SourceError};

/// Recorded files: frames as a venue sent them, one a line, to be decoded by a venue `dialect`; or normalised
/// records of one `kind` in NDJSON, CSV or Parquet. Plain, gzip and zstd files are told apart by their first bytes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct File {
    /// The file, or several. `*`, `?`, `[a-z]`, `{a,b}` match within a name, `**` any folders; what a pattern
    /// matches is read in the order of the names.
    pub path: Paths,
    /// The venue dialect of recorded frames. Either this or `format`.
    #[serde(default)]
    #[schemars(extend("enum" = dialect::NAMES))]
    pub dialect: Option<String>,
    /// The format of normalised records. Needs `kind`.
    #[serde(default)]
    pub format: Option<Format>,
    /// The kind of normalised records, e.g. `trade`. Columns are matched by name; nullable ones may be missing.
    /// Decimals are exact: text, JSON numbers or decimal columns. Times are RFC 3339 or integers in microseconds.
    #[serde(default)]
    pub kind: Option<String>,
    /// The venue's symbol for frames that name none (REST depth snapshots), e.g. `BTCUSDT`.
    #[serde(default)]
    pub symbol: Option<String>,
    /// A file with the venue's own listing of its instruments (Binance: the answer of `exchangeInfo`), plain or
    /// compressed. Without it, symbols are read by their letters.
    #[serde(default)]
    pub instruments: Option<PathBuf>,
    /// Whether a line of frames begins with the time that we received it, in nanoseconds since 1970, and a space.
    #[serde(default)]
    pub receive_time: ReceiveTime,
    /// How fast to read: `"max"`, or a factor of real time, e.g. `1.0` or `10`. Rows are then handed over as far
    /// apart as their receive times are, or, where a row has none, their event times.
    #[serde(default)]
    pub pace: Pace,
    /// How event time advances.
    #[serde(flatten)]
    pub clock: Clock,
}

/// One path or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Paths {
    /// One.
    One(String),
    /// Several, read in this order.
    Several(Vec<String>),
}

impl Paths {
    fn patterns(&self) -> &[String] {
        match self {
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Several(paths) => paths,
        }
    }
}

/// The format of normalised records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A JSON object a line.
    Ndjson,
    /// Comma-separated values with a header line.
    Csv,
    /// Parquet.
    Parquet,
}

/// Whether lines begin with a receive time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReceiveTime {
    /// Those that begin with a number and a space do.
    #[default]
    Auto,
    /// All do; one that does not is a dead letter.
    NanosecondsPrefix,
    /// None does.
    None,
}

/// How fast files are read.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Pace {
    /// As fast as rows are taken.
    Unlimited(Max),
    /// So many times as fast as they were recorded.
    Factor(f64),
}

/// The word `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Max {
    /// No limit.
    Max,
}

impl Default for Pace {
    fn default() -> Self {
        Pace::Unlimited(Max::Max)
    }
}

impl Component<dyn Source> for File {
    const TYPE: &'static str = "file";
    const EXAMPLE: &'static str = r#"[sources.recorded]
type = "file"
path = "recordings/btcusdt_*.gz"
dialect = "binance_spot"
symbol = "BTCUSDT"      # of REST snapshots, which name none
disorder = "2s"         # event times may lie so far behind the greatest
"#;

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Source>> {
        self.check_paths(cx);
        let layout = self.layout(cx);
        let factor = match self.pace {
            Pace::Unlimited(_) => None,
            Pace::Factor(factor) => Some(factor),
        };
        if let Some(factor) = factor.filter(|f| !f.is_finite() || *f <= 0.0) {
            cx.error(
                &["pace"],
                format!("a pace of {factor}"),
                "give \"max\" or a factor above 0: 1.0 is real time, 10 is ten times as fast",
            );
        }
        let layout = layout.filter(|_| !cx.failed())?;
        let outputs = vec![layout.kind().clone(), DEAD_LETTER.clone()];
        let dialect = self.dialect;
        let component = CheckedFile {
            patterns: self.path.patterns().to_vec(),
            layout,
            instruments: self.instruments.zip(dialect),
            factor,
            clock: self.clock,
        };
        Some(Checked { outputs, component: Arc::new(component) })
    }
}

impl File {
    fn check_paths(&self, cx: &mut Check<'_>) {
        let patterns = self.path.patterns();
        if patterns.is_empty() {
            cx.error(&["path"], "no path", "name the file to read, or several: path = [\"a.gz\", \"b.gz\"]");
        }
        for pattern in patterns {
            if let Err(error) = paths::check(pattern) {
                cx.error(&["path"], format!("`{pattern}` is no pattern of paths: {error}"), "close every bracket; write [*] for a plain *");
            }
        }
    }

    /// What a file holds, from the options that say it.
    fn layout(&self, cx: &mut Check<'_>) -> Option<Layout> {
        match (&self.dialect, self.format) {
            (Some(_), Some(_)) => {
                cx.error(
                    &["format"],
                    "both `dialect` and `format`",
                    "give `dialect` for a venue's own frames, or `format` and `kind` for normalised records",
                );
                None
            }
            (None, None) => {
                let help = "give `dialect` for a venue's own frames, or `format` and `kind` for normalised records";
                cx.error(&[], "neither `dialect` nor `format` says what the files hold", help);
                None
            }
            (Some(dialect), None) => self.frames(dialect, cx),
            (None, Some(format)) => self.records(format, cx),
        }
    }

    fn frames(&self, dialect: &str, cx: &mut Check<'_>) -> Option<Layout> {
        if self.kind.is_some() {
            cx.error(&["kind"], "`kind` is for normalised records", "drop it: `normalise` chooses the kinds that frames become");
        }
        let Some(dialect) = dialect::NAMES.into_iter().find(|name| *name == dialect) else {
            cx.error(&["dialect"], format!("there is no dialect `{dialect}`"), format!("use one of: {}", dialect::NAMES.join(", ")));
            return None;
        };
        Some(Layout::Frames { dialect, labels: Labels::new(cx.node(), dialect, self.symbol.as_deref()), receive_time: self.receive_time })
    }

    fn records(&self, format: Format, cx: &mut Check<'_>) -> Option<Layout> {
        for (key, given) in [
            ("symbol", self.symbol.is_some()),
            ("instruments", self.instruments.is_some()),
            ("receive_time", self.receive_time != ReceiveTime::Auto),
        ] {
            if given {
                cx.error(&[key], format!("`{key}` is for frames, and `format` says that the files hold records"), format!("drop `{key}`"));
            }
        }
        let Some(name) = &self.kind else {
            cx.error(&[], "`format` is given without `kind`", "name the kind of the records, e.g. kind = \"trade\"");
            return None;
        };
        let Some(kind) = kinds::records().find(|k| k.name == name.as_str()) else {
            let names: Vec<_> = kinds::records().map(|k| k.name.as_ref()).collect();
            cx.error(&["kind"], format!("there is no kind `{name}` of records"), format!("use one of: {}", names.join(", ")));
            return None;
        };
        Some(Layout::Records { format, kind: kind.clone() })
    }
}

/// Files whose options passed their check.
#[derive(Debug)]
struct CheckedFile {
    patterns: Vec<String>,
    layout: Layout,
    /// The file with the venue's listing, and the dialect that it is for.
    instruments: Option<(PathBuf, String)>,
    factor: Option<f64>,
    clock: Clock,
}

#[async_trait]
impl Source for CheckedFile {
    fn clock(&self) -> Clock {
        self.clock
    }

    async fn teach(&self, dialects: &mut Dialects) -> Result<(), SourceError> {
        match &self.instruments {
            Some((path, dialect)) => learn(dialects, path, dialect),
            None => Ok(()),
        }
    }

    async fn open(&self, cx: OpenSource) -> Result<Box<dyn Reader>, SourceError> {
        let files = paths::expand(&self.patterns)?;
        for file in &files {
            self.layout.probe(file)?;
        }
        let reader = FileReader::open(cx, files, self.layout.clone(), self.factor.is_some())?;
        Ok(match self.factor {
            None => Box::new(reader),
            Some(factor) => Box::new(Paced::new(reader, factor)),
        })
    }
}

/// Teaches a dialect what a file with the venue's own listing says.
///
/// # Errors
/// A file that cannot be read, or is no such listing.
pub(crate) fn learn(dialects: &mut Dialects, path: &Path, dialect: &str) -> Result<(), SourceError> {
    let failed = |what: String| SourceError {
        transient: false,
        place: path.display().to_string(),
        what,
        remedy:
            "give `instruments` a file with the venue's own listing, e.g. what `curl https://api.binance.com/api/v3/exchangeInfo` answers"
                .into(),
    };
    let listing = input::read_whole(path).map_err(|e| failed(e.to_string()))?;
    dialects.learn(dialect, &listing).map_err(failed)
}

impl Layout {
    fn kind(&self) -> &Arc<Kind> {
        match self {
            Layout::Frames { .. } => &FRAME,
            Layout::Records { kind, .. } => kind,
        }
    }
}

/// When a dead letter was refused. The runtime knows the logical time that the row gets; this is as near as a
/// source can come.
fn now() -> time::Micros {
    time::now()
}
