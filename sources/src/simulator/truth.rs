//! The truth file: one line of JSON for every fault that was injected and can be seen in the frames.
//!
//! The file grows under its name with `.partial` added, is flushed after every chunk of frames, and takes its
//! name when the simulation ends or is dropped: a file of that name is complete, and a killed process leaves
//! the partial one.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use model::Decimal;
use model::time::{self, Micros};
use serde::Serialize;

use super::faults::Fault;
use super::listing::Listing;
use crate::SourceError;

/// A fault, and where it can be seen.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    pub(super) fault: &'static str,
    /// The anomaly by which a detector should find it, if by any.
    pub(super) anomaly: Option<&'static str>,
    pub(super) venue: &'static str,
    pub(super) market: &'static str,
    pub(super) symbol: &'a str,
    /// The kind of the records that it befell.
    pub(super) channel: &'static str,
    /// The frame that shows it first; null while none was sent.
    pub(super) frame: Option<u64>,
    pub(super) event_time: String,
    #[serde(flatten)]
    pub(super) detail: Detail,
}

/// What else there is to know of a fault.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Detail {
    /// Trade ids or update numbers that never came, first and last included.
    Gap { first_sequence: i64, last_sequence: i64, cause: &'static str },
    /// The frame that the second one repeats.
    Duplicate { repeats: u64 },
    /// How many frames overtook it, and how long it was held.
    Disorder { overtaken_by: u64, delay_micros: i64 },
    /// The price sent and the true one.
    Spike { price: String, true_price: String, factor: String },
    /// The crossing, until the book was repaired.
    Crossed { until: Option<String>, bid: String, ask: String, first_sequence: i64, quote_frame: Option<u64> },
    /// The silence: `event_time` is that of the last frame before it.
    Stale { until: Option<String>, seconds: f64 },
    /// What was added to the receive time.
    Skew { shift_micros: i64 },
    /// `cut` or `garbled`, from which byte on.
    Malformed { form: &'static str, from_byte: usize },
}

impl<'a> Line<'a> {
    pub(super) fn new(
        fault: Fault,
        of: &'a Listing,
        channel: &'static str,
        frame: Option<u64>,
        event_time: Micros,
        detail: Detail,
    ) -> Self {
        Line {
            fault: fault.name(),
            anomaly: fault.anomaly(),
            venue: of.dialect.venue,
            market: of.dialect.market.as_str(),
            symbol: &of.symbol,
            channel,
            frame,
            event_time: time::display(event_time),
            detail,
        }
    }
}

/// A price of an instrument as text.
pub(super) fn price(of: &Listing, ticks: i64) -> String {
    of.price.decimal(ticks).to_string()
}

/// A number of thousandths as text.
pub(super) fn permille(value: i64) -> String {
    Decimal::from_units(i128::from(value) * 1_000_000_000).to_string()
}

/// The truth file; without a path, nothing.
#[derive(Debug)]
pub(super) struct Truth(Option<Writer>);

#[derive(Debug)]
struct Writer {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    /// The first failure; nothing is written after it.
    failed: Option<io::Error>,
}

impl Truth {
    /// Opens the file, with the folders above it.
    ///
    /// # Errors
    /// The file cannot be created.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, SourceError> {
        let Some(path) = path else { return Ok(Truth(None)) };
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let create = || {
            if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
                fs::create_dir_all(folder)?;
            }
            File::create(&partial)
        };
        match create() {
            Ok(file) => Ok(Truth(Some(Writer { path: path.to_owned(), partial, file: BufWriter::new(file), failed: None }))),
            Err(error) => Err(SourceError {
                transient: false,
                place: partial.display().to_string(),
                what: format!("the truth file cannot be created: {error}"),
                remedy: "let `truth` name a file in a folder that can be written".into(),
            }),
        }
    }

    /// Adds a line; an error waits for [`Self::flush`].
    pub(super) fn tell(&mut self, line: &Line<'_>) {
        let Some(writer) = self.0.as_mut().filter(|w| w.failed.is_none()) else { return };
        let written = serde_json::to_writer(&mut writer.file, line).map_err(io::Error::from).and_then(|()| writer.file.write_all(b"\n"));
        writer.failed = written.err();
    }

    /// Brings what was told so far to the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn flush(&mut self) -> Result<(), SourceError> {
        let Some(writer) = self.0.as_mut() else { return Ok(()) };
        let flushed = match writer.failed.take() {
            Some(error) => Err(error),
            None => writer.file.flush(),
        };
        flushed.map_err(|error| failure(&writer.partial, &error))
    }

    /// Gives the file its name; there is nothing to tell after that.
    ///
    /// # Errors
    /// It cannot be written or renamed.
    pub(super) fn finish(&mut self) -> Result<(), SourceError> {
        self.flush()?;
        let Some(writer) = self.0.take() else { return Ok(()) };
        writer
            .file
            .get_ref()
            .sync_all()
            .and_then(|()| fs::rename(&writer.partial, &writer.path))
            .map_err(|error| failure(&writer.path, &error))
    }
}

fn failure(path: &Path, error: &io::Error) -> SourceError {
    SourceError {
        transient: false,
        place: path.display().to_string(),
        what: format!("the truth file cannot be written: {error}"),
        remedy: "make room or let `truth` name another place, and run again: the same seed gives the same frames".into(),
    }
}
