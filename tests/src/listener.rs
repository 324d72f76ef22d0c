//! A pipeline that listens to a venue, started as a user would.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::program::{Running, program, root, rows, until};
use crate::venue::Venue;

/// What the pipeline makes of what it hears.
pub const REST: &str = r#"
[operators.records]
type = "normalise"
inputs = ["venue"]

[operators.books]
type = "book"
inputs = ["records"]

[sinks.cold]
type = "parquet"
inputs = ["records", "books"]
interval = "200ms"
"#;

/// A pipeline that listens to a venue.
pub struct Listener {
    folder: TempDir,
}

impl Listener {
    /// A pipeline with a source of this type that listens to one instrument; `more` are further options of the source.
    ///
    /// # Panics
    /// There is no place for its files.
    pub fn new(source: &str, market: &str, symbol: &str, venue: &Venue, more: &str) -> Listener {
        Listener::before(REST, source, market, symbol, venue, more)
    }

    /// The same before another rest of the pipeline, in which `DATA` stands for the data folder.
    ///
    /// # Panics
    /// There is no place for its files.
    pub fn before(rest: &str, source: &str, market: &str, symbol: &str, venue: &Venue, more: &str) -> Listener {
        let folder = tempfile::tempdir().expect("there is room");
        let (url, rest_url) = (venue.url(), venue.rest_url());
        let pipeline = format!(
            r#"
name = "live"

[sources.venue]
type = "{source}"
markets = ["{market}"]
symbols = ["{symbol}"]
kinds = ["trade", "book", "quote"]
url = "{url}"
rest_url = "{rest_url}"
{more}
{rest}"#
        );
        let pipeline = pipeline.replace("DATA", &folder.path().join("data").display().to_string());
        std::fs::write(folder.path().join("pipeline.toml"), pipeline).expect("there is room");
        Listener { folder }
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it.
    pub fn start(&self) -> Running {
        let mut command = program();
        command.arg("run").arg(self.folder.path().join("pipeline.toml")).arg("--data").arg(self.data()).current_dir(root());
        Running::start(&mut command, &self.folder.path().join("log"))
    }

    /// Starts it and kills it, so many times, each time a little longer after it has connected.
    ///
    /// # Panics
    /// It ends by itself.
    pub fn kill(&self, venue: &Venue, times: u32) {
        for kill in 1..=times {
            let mut run = self.start();
            let before = venue.seen().connections;
            until("a connection", || {
                assert!(run.ended().is_none(), "{}", self.log());
                (venue.seen().connections > before).then_some(())
            });
            // Nothing is waited for: it is to be killed at any moment.
            std::thread::sleep(Duration::from_millis(211) * kill);
            run.kill();
        }
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Whether a table is there: its folder is, a moment before its first version.
    pub fn has(&self, table: &str) -> bool {
        self.data().join("cold").join(table).join("_delta_log/00000000000000000000.json").is_file()
    }

    /// Reasons of dead letters.
    pub fn refused(&self) -> BTreeSet<String> {
        self.words("dead_letters", "reason")
    }

    /// What a column of a table says.
    pub fn words(&self, table: &str, column: &str) -> BTreeSet<String> {
        if !self.has(table) {
            return BTreeSet::new();
        }
        let found = rows(&self.data(), &format!("SELECT DISTINCT {column} AS word FROM {table}"));
        found.iter().map(|row| row["word"].as_str().map_or_else(|| row["word"].to_string(), str::to_owned)).collect()
    }

    /// How often the book's changes did not continue each other.
    ///
    /// # Panics
    /// The answer is none.
    pub fn gaps(&self) -> u64 {
        let found = rows(&self.data(), "SELECT count(*) AS n FROM book_events WHERE event = 'gap'");
        found[0]["n"].as_u64().expect("a count")
    }
}
