//! Which source positions belong to which logical times, on disk before any sink commits them.
//!
//! A log of lines, each saying that every row of a source up to a position has a logical time below a bound. A
//! sink commits an interval only after [`Bindings::record`] has returned for its end, so whatever was
//! committed can be told from whatever was not by position alone, and a replay from a recorded position gives
//! every row its time again.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use model::time::Time;
use serde::{Deserialize, Serialize};
use sources::Position;

/// The positions of a pipeline's sources, and the log that they are recorded in.
#[derive(Debug)]
pub struct Bindings {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: File,
    sources: Vec<Source>,
    /// Everything below this time is on disk.
    recorded: Time,
}

#[derive(Debug)]
struct Source {
    name: String,
    /// Positions not yet recorded, with the logical time of the chunk that ends there.
    pending: VecDeque<(Time, Position)>,
}

/// A line of the log.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The run of the pipeline that wrote the line.
    pub run: String,
    /// The source.
    pub source: String,
    /// Every row before `position` that was not bound earlier has a logical time below this.
    pub upper: Time,
    /// The position.
    pub position: Position,
}

impl Bindings {
    /// Opens the log of a pipeline below the data folder, to append to it.
    ///
    /// # Errors
    /// The folder or file cannot be written.
    pub fn open(data: &Path, pipeline: &str, sources: impl IntoIterator<Item = String>) -> io::Result<Bindings> {
        let folder = data.join("pipelines").join(pipeline);
        fs::create_dir_all(&folder)?;
        let path = folder.join("bindings.ndjson");
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        let sources = sources.into_iter().map(|name| Source { name, pending: VecDeque::new() }).collect();
        Ok(Bindings { path, state: Mutex::new(State { log, sources, recorded: 0 }) })
    }

    /// The log's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that a chunk of a source at a logical time ends at a position. Times of a source never fall.
    pub fn bind(&self, source: u32, time: Time, position: Position) {
        let mut state = self.state.lock().expect("no holder panics");
        let pending = &mut state.sources[source as usize].pending;
        match pending.back_mut() {
            Some((last, end)) if *last == time => *end = position,
            _ => pending.push_back((time, position)),
        }
    }

    /// Records durably the positions of all chunks below `upper`. Cheap where they are recorded already.
    ///
    /// # Errors
    /// The log cannot be written: nothing that depends on it may be committed.
    pub fn record(&self, run: &str, upper: Time) -> io::Result<()> {
        let mut guard = self.state.lock().expect("no holder panics");
        let state = &mut *guard;
        if upper <= state.recorded {
            return Ok(());
        }
        let mut lines = Vec::new();
        for source in &mut state.sources {
            let mut last = None;
            while source.pending.front().is_some_and(|(time, _)| *time < upper) {
                last = source.pending.pop_front();
            }
            if let Some((_, position)) = last {
                serde_json::to_writer(&mut lines, &Binding { run: run.to_owned(), source: source.name.clone(), upper, position })?;
                lines.push(b'\n');
            }
        }
        if !lines.is_empty() {
            state.log.write_all(&lines)?;
            state.log.sync_data()?;
        }
        state.recorded = upper;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_the_last_position_below_the_bound_once() {
        let folder = tempfile::tempdir().unwrap();
        let bindings = Bindings::open(folder.path(), "p", ["a".to_owned(), "b".to_owned()]).unwrap();
        let at = |offset| Position { part: "f".into(), offset, frame: offset };
        for (time, offset) in [(10, 1), (10, 2), (11, 3), (12, 4)] {
            bindings.bind(0, time, at(offset));
        }
        bindings.bind(1, 12, at(9));
        for upper in [12, 12, 11, 13] {
            bindings.record("r", upper).unwrap();
        }
        let text = fs::read_to_string(bindings.path()).unwrap();
        let lines: Vec<Binding> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let line = |source: &str, upper, offset| Binding { run: "r".into(), source: source.into(), upper, position: at(offset) };
        assert_eq!(lines, [line("a", 12, 3), line("a", 13, 4), line("b", 13, 9)]);
    }
}
