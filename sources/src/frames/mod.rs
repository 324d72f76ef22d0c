//! Captured frames: what the sink `parquet` kept of a source, given again as that source gave it.
//!
//! Frames come in the order of their numbers, each once, with the dialects, topics, receive times and numbers that they
//! had. What makes that hold:
//!
//! - The order is in the rows, not in the files. A frame's number in its source is its place; a file holds frames in
//!   this order, and where the numbers of files overlap they are merged (see `merge`). How often small files were merged
//!   into larger ones makes no difference.
//! - A number that is there twice is an error: two captures of one source lie in the table, and nobody can tell which is
//!   meant.
//! - A position is the number of the last frame handed over together with the identity of the table. A table that is
//!   gone, was made anew or ends before the position is an error with the way to go on.
//! - A frame of a venue's listing teaches those behind it (see `listing`), as it did when it was heard.
//! - The table is read at the version that it has when the source is opened, and the source ends with it.
//!
//! Files are read by a task of its own, a bounded number of batches ahead, so that what waits for the next chunk may be
//! dropped at any moment and nothing is lost with it. Memory holds a group of rows (32 MB) of each file that is merged at
//! the time, mostly one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use config::{Check, Checked, Component};
use model::kinds::FRAME;
use model::time::Micros;
use schemars::JsonSchema;
use serde::Deserialize;
use storage::{ColdStore, StorageError};

mod merge;
mod reader;
mod table;

use merge::Merge;
use reader::CaptureReader;
use table::{Capture, Range};

use crate::dialect::{self, Dialects};
use crate::{Clock, OpenSource, Reader, Source, SourceError};

/// Frames that the sink `parquet` captured, given again in the order in which they came, with the receive times, topics
/// and dialects that they had. Ends with the last frame that is in the table when the source is opened.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Frames {
    /// The source that was captured, by its name in the pipeline that captured it. Default: the name of this one.
    #[serde(default)]
    pub source: Option<String>,
    /// Where the table `frames` lies: the folder or `s3://bucket/prefix` that the sink was given. Default: the cold store
    /// of the system settings.
    #[serde(default)]
    pub url: Option<String>,
    /// Only frames that were received at this time or later, in RFC 3339. With `from` or `to`, frames of which nobody
    /// knows when they were received are left out.
    #[serde(default)]
    pub from: Option<String>,
    /// Only frames that were received before this time, in RFC 3339.
    #[serde(default)]
    pub to: Option<String>,
    /// Files with the venues' own listings of their instruments, by dialect, where the capture has none of its own: e.g.
    /// `{ binance_spot = "exchangeInfo.json" }`.
    #[serde(default)]
    pub instruments: BTreeMap<String, PathBuf>,
    /// How event time advances.
    #[serde(flatten)]
    pub clock: Clock,
}

impl Component<dyn Source> for Frames {
    const TYPE: &'static str = "frames";
    const EXAMPLE: &'static str = r#"[sources.market]
type = "frames"
source = "market"       # the source that was captured
from = "2026-01-01T00:00:00Z"
"#;

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Source>> {
        let from = time(cx, "from", self.from.as_deref());
        let to = time(cx, "to", self.to.as_deref());
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            cx.error(&["to"], "`to` is not later than `from`", "name a later time: frames before it are read");
        }
        for name in self.instruments.keys().filter(|name| !dialect::NAMES.contains(&name.as_str())) {
            cx.error(&["instruments", name], format!("there is no dialect `{name}`"), format!("use one of: {}", dialect::NAMES.join(", ")));
        }
        let component = Arc::new(CheckedFrames {
            source: self.source.unwrap_or_else(|| cx.node().to_owned()),
            url: self.url,
            range: Range { from, to },
            instruments: self.instruments,
            clock: self.clock,
        });
        (!cx.failed()).then_some(Checked { outputs: vec![FRAME.clone()], component })
    }
}

/// The time that an option names.
fn time(cx: &mut Check<'_>, key: &str, text: Option<&str>) -> Option<Micros> {
    let text = text?;
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => Some(time.timestamp_micros()),
        Err(error) => {
            cx.error(&[key], format!("`{text}` is no time: {error}"), "write it like 2026-01-01T00:00:00Z");
            None
        }
    }
}

/// A source whose options passed their check.
#[derive(Debug)]
struct CheckedFrames {
    source: String,
    url: Option<String>,
    range: Range,
    instruments: BTreeMap<String, PathBuf>,
    clock: Clock,
}

#[async_trait]
impl Source for CheckedFrames {
    fn clock(&self) -> Clock {
        self.clock
    }

    async fn teach(&self, dialects: &mut Dialects) -> Result<(), SourceError> {
        self.instruments.iter().try_for_each(|(dialect, path)| crate::file::learn(dialects, path, dialect))
    }

    async fn open(&self, cx: OpenSource) -> Result<Box<dyn Reader>, SourceError> {
        let store = match &self.url {
            Some(url) => ColdStore::open(url, &cx.settings.cold),
            None => ColdStore::from_settings(&cx.settings),
        }?;
        let capture = Capture::find(&store, &self.source, self.range).await?;
        if let Some(from) = &cx.from {
            capture.check(from)?;
        }
        let behind = cx.from.as_ref().map_or(0, |from| from.frame as i64);
        let (start, bounds) = (capture.position(cx.from), capture.bounds());
        Ok(Box::new(CaptureReader::new(start, bounds, Merge::new(cx.node, capture, behind))))
    }
}

impl From<StorageError> for SourceError {
    fn from(e: StorageError) -> Self {
        SourceError { transient: e.transient, place: e.place, what: e.what, remedy: e.remedy }
    }
}

#[cfg(test)]
mod tests {
    use config::component::component;

    use super::*;

    #[test]
    fn options_are_checked() {
        let check = |options: &str| component::<dyn Source, Frames>(options, &[]).map(|checked| checked.outputs[0].name.to_string());
        assert_eq!(check("").unwrap(), "frame");
        assert_eq!(
            check("source = 's'\nurl = 's3://b/p'\nfrom = '2026-01-01T00:00:00Z'\nto = '2026-01-01T00:00:01Z'\nidle = '1s'").unwrap(),
            "frame"
        );
        assert_eq!(check("instruments = { binance_spot = 'i.json' }").unwrap(), "frame");
        for (options, problem) in [
            ("from = 'yesterday'", "from: `yesterday` is no time"),
            ("to = 'tomorrow'", "to: `tomorrow` is no time"),
            ("from = '2026-01-01T00:00:00Z'\nto = '2026-01-01T00:00:00Z'", "to: `to` is not later than `from`"),
            ("instruments = { binance = 'i.json' }", "instruments.binance: there is no dialect `binance`"),
        ] {
            let error = check(options).unwrap_err();
            assert!(error.starts_with(problem), "{options}: {error}");
        }
    }
}
