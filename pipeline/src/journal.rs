//! What a pipeline has read and committed, on disk: what exactly-once rests on.
//!
//! A journal is a file of lines. Every row of a source up to a position has a logical time; a line `bind` says which,
//! before any sink commits it. A sink says which interval of times it is about to commit (`intend`) and that it
//! has (`commit`). After a crash the same rows therefore get the same times again, and an interval that was
//! broken off is committed again with the same bounds and rows, so the store recognises what it has of it.
//!
//! The last line may be torn by a crash: nothing depends on it, because whoever wrote it was not told that it is on disk.
//! A journal is rewritten as a whole when a run begins and when a checkpoint makes its beginning superfluous: to a file
//! beside it that then takes its name.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use model::crash;
use model::time::Time;
use serde::{Deserialize, Serialize};
use sources::Position;

/// The name of a journal in its pipeline's folder.
const FILE: &str = "journal.ndjson";

/// What a pipeline computes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// A hash of the whole.
    pub plan: String,
    /// Each node's name with its type and a hash of its options, as `type:hash`.
    pub nodes: BTreeMap<String, String>,
}

/// A line of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
enum Line {
    /// The first line: what the pipeline computes. Binds below `floor` are forgotten, but for the last of each source.
    Begin { identity: Identity, floor: Time },
    /// Every row of a source up to a position that was not bound earlier has this logical time. `None` is its end.
    Bind { source: String, time: Time, position: Option<Position> },
    /// A sink is about to commit the rows of the times from `lower` to before `upper`.
    Intend { sink: String, lower: Time, upper: Time },
    /// A sink has committed everything before `upper`.
    Commit { sink: String, upper: Time },
    /// All sources have ended and all sinks have committed everything.
    End,
}

/// A logical time, and where a source was when it was over; `None` is the source's end.
pub type Bound = (Time, Option<Position>);

/// How far a sink has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Everything before this is committed.
    pub upper: Time,
    /// An interval of which it is not known whether it was.
    pub open: Option<(Time, Time)>,
}

/// What a journal says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What the pipeline computed.
    pub identity: Identity,
    /// Binds below this are forgotten, but for the last of each source.
    pub floor: Time,
    /// By source, in the order of times.
    pub bounds: BTreeMap<String, VecDeque<Bound>>,
    /// By sink.
    pub sinks: BTreeMap<String, Committed>,
    /// Whether nothing can come any more.
    pub ended: bool,
}

/// A journal that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {what}; {remedy}")]
pub struct JournalError {
    /// The file, with the line.
    pub place: String,
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl JournalError {
    fn io(path: &Path, error: &io::Error) -> Self {
        JournalError {
            place: path.display().to_string(),
            what: format!("the journal cannot be written or read: {error}"),
            remedy: "free the disk or make the data folder writable; nothing is committed that it does not tell".into(),
        }
    }
}

impl History {
    /// Reads the journal in a pipeline's folder, if there is one.
    ///
    /// # Errors
    /// The file cannot be read, or a line before the last is none.
    pub fn read(folder: &Path) -> Result<Option<History>, JournalError> {
        let path = folder.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(JournalError::io(&path, &error)),
        };
        let mut history = History::default();
        for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            match serde_json::from_slice::<Line>(line) {
                Ok(line) => history.apply(line),
                // Torn by a crash.
                Err(_) if line.last() != Some(&b'\n') => {}
                Err(error) => {
                    return Err(JournalError {
                        place: format!("{}, line {}", path.display(), number + 1),
                        what: format!("the line is damaged: {error}"),
                        remedy: "restore the file from a copy, or begin anew with `--fresh`: rows that are stored stay, and everything is read again".into(),
                    });
                }
            }
        }
        Ok(Some(history))
    }

    fn apply(&mut self, line: Line) {
        match line {
            Line::Begin { identity, floor } => {
                self.identity = identity;
                self.floor = floor;
            }
            Line::Bind { source, time, position } => self.bounds.entry(source).or_default().push_back((time, position)),
            Line::Intend { sink, lower, upper } => self.sinks.entry(sink).or_default().open = Some((lower, upper)),
            Line::Commit { sink, upper } => {
                let sink = self.sinks.entry(sink).or_default();
                sink.upper = sink.upper.max(upper);
                sink.open = sink.open.filter(|(_, open)| *open > upper);
            }
            Line::End => self.ended = true,
        }
    }

    /// The first logical time that no row has.
    pub fn next(&self) -> Time {
        let bound = self.bounds.values().filter_map(|bounds| bounds.back()).map(|(time, _)| time + 1).max();
        let named = self.sinks.values().map(|sink| sink.open.map_or(sink.upper, |(_, upper)| upper)).max();
        bound.max(named).unwrap_or(0)
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = vec![Line::Begin { identity: self.identity.clone(), floor: self.floor }];
        for (source, bounds) in &self.bounds {
            let bind = |(time, position): &Bound| Line::Bind { source: source.clone(), time: *time, position: position.clone() };
            lines.extend(bounds.iter().map(bind));
        }
        for (sink, committed) in &self.sinks {
            lines.push(Line::Commit { sink: sink.clone(), upper: committed.upper });
            lines.extend(committed.open.map(|(lower, upper)| Line::Intend { sink: sink.clone(), lower, upper }));
        }
        lines.extend(self.ended.then_some(Line::End));
        lines
    }
}

/// The journal of a pipeline that runs.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: File,
    /// What the lines on disk say.
    history: History,
    /// By source: what is not on disk, in the order of times.
    pending: BTreeMap<String, VecDeque<Bound>>,
}

impl Journal {
    /// Begins, in a pipeline's folder, a journal that goes on from a history.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(folder: &Path, history: History) -> Result<Journal, JournalError> {
        let path = folder.join(FILE);
        let begun = fs::create_dir_all(folder).and_then(|()| rewrite(&path, &history.lines()));
        let log = begun.map_err(|error| JournalError::io(&path, &error))?;
        Ok(Journal { path, state: Mutex::new(State { log, history, pending: BTreeMap::new() }) })
    }

    /// Notes that a chunk of a source at a logical time ends at a position, or that the source ends. Times of a source
    /// never fall.
    pub fn bind(&self, source: &str, time: Time, position: Option<Position>) {
        let mut state = self.state.lock().expect("no holder panics");
        if !state.pending.contains_key(source) {
            state.pending.insert(source.to_owned(), VecDeque::new());
        }
        let pending = state.pending.get_mut(source).expect("it was put there");
        match pending.back_mut() {
            Some((last, end)) if *last == time => *end = position,
            _ => pending.push_back((time, position)),
        }
    }

    /// Records durably that a sink is about to commit the times from `lower` to before `upper`, and where the sources were
    /// at each of them.
    ///
    /// # Errors
    /// The file cannot be written: the sink must not commit.
    pub fn intend(&self, sink: &str, lower: Time, upper: Time) -> Result<(), JournalError> {
        self.record(upper, [Line::Intend { sink: sink.to_owned(), lower, upper }]).map_err(|error| JournalError::io(&self.path, &error))
    }

    /// Notes that a sink has committed everything before `upper`. Should a crash lose the note, the sink is asked again
    /// and recognises what it has.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn committed(&self, sink: &str, upper: Time) -> Result<(), JournalError> {
        let mut state = self.state.lock().expect("no holder panics");
        state.write(vec![Line::Commit { sink: sink.to_owned(), upper }]).map_err(|error| JournalError::io(&self.path, &error))
    }

    /// Records that nothing can come any more.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn end(&self) -> Result<(), JournalError> {
        self.record(Time::MAX, [Line::End]).map_err(|error| JournalError::io(&self.path, &error))
    }

    /// The last bound of each source below a time. What is not on disk yet is recorded on the way.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn bounds_below(&self, time: Time) -> Result<BTreeMap<String, Bound>, JournalError> {
        self.record(time, []).map_err(|error| JournalError::io(&self.path, &error))?;
        let state = self.state.lock().expect("no holder panics");
        let last = |(source, bounds): (&String, &VecDeque<Bound>)| {
            let below = bounds.partition_point(|(bound, _)| *bound < time);
            (below > 0).then(|| (source.clone(), bounds[below - 1].clone()))
        };
        Ok(state.history.bounds.iter().filter_map(last).collect())
    }

    /// Forgets what is needed only to go on from before a time.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forget_below(&self, time: Time) -> Result<(), JournalError> {
        let mut state = self.state.lock().expect("no holder panics");
        for bounds in state.history.bounds.values_mut() {
            let below = bounds.partition_point(|(bound, _)| *bound < time);
            bounds.drain(..below.saturating_sub(1));
        }
        state.history.floor = time;
        state.log = rewrite(&self.path, &state.history.lines()).map_err(|error| JournalError::io(&self.path, &error))?;
        Ok(())
    }

    /// Writes the bounds below a time and further lines, and waits until they are on disk.
    fn record(&self, upper: Time, lines: impl IntoIterator<Item = Line>) -> io::Result<()> {
        let mut state = self.state.lock().expect("no holder panics");
        let mut all = Vec::new();
        for (source, pending) in &state.pending {
            let below = pending.iter().take_while(|(time, _)| *time < upper);
            all.extend(below.map(|(time, position)| Line::Bind { source: source.clone(), time: *time, position: position.clone() }));
        }
        all.extend(lines);
        if all.is_empty() {
            return Ok(());
        }
        state.write(all)?;
        state.log.sync_data()?;
        // Only now: another sink must not commit without them because this one could not write them.
        for pending in state.pending.values_mut() {
            pending.drain(..pending.partition_point(|(time, _)| *time < upper));
        }
        Ok(())
    }
}

impl State {
    fn write(&mut self, lines: Vec<Line>) -> io::Result<()> {
        let before = self.log.metadata()?.len();
        if let Err(error) = self.log.write_all(&encode(&lines)?) {
            // A torn line may only be the last. What is left of it can still be cut off when the disk is full.
            self.log.set_len(before)?;
            return Err(error);
        }
        lines.into_iter().for_each(|line| self.history.apply(line));
        Ok(())
    }
}

fn encode(lines: &[Line]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    Ok(text)
}

/// Replaces a journal by these lines, or leaves it as it was, and opens it to append to it.
fn rewrite(path: &Path, lines: &[Line]) -> io::Result<File> {
    let beside = path.with_extension("ndjson.partial");
    let mut file = File::create(&beside)?;
    file.write_all(&encode(lines)?)?;
    file.sync_all()?;
    crash::point("journal rewritten");
    fs::rename(&beside, path)?;
    // The name is in the folder.
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Option<Position> {
        Some(Position { part: "f".into(), offset, frame: offset, identity: 7 })
    }

    fn bounds(list: &[(Time, Option<Position>)]) -> VecDeque<Bound> {
        list.iter().cloned().collect()
    }

    #[test]
    fn only_what_lies_below_an_intended_interval_is_recorded_and_everything_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::begin(folder.path(), History::default()).unwrap();
        for (time, offset) in [(10, 1), (10, 2), (11, 3), (12, 4)] {
            journal.bind("a", time, at(offset));
        }
        journal.bind("b", 12, None);
        journal.intend("s", 0, 12).unwrap();
        let read = || History::read(folder.path()).unwrap().unwrap();
        assert_eq!(read().bounds, BTreeMap::from([("a".into(), bounds(&[(10, at(2)), (11, at(3))]))]));
        assert_eq!((read().sinks["s"], read().next()), (Committed { upper: 0, open: Some((0, 12)) }, 12));
        journal.committed("s", 12).unwrap();
        journal.intend("s", 12, 13).unwrap();
        assert_eq!(read().bounds["b"], bounds(&[(12, None)]));
        assert_eq!((read().sinks["s"], read().next()), (Committed { upper: 12, open: Some((12, 13)) }, 13));

        assert_eq!(journal.bounds_below(12).unwrap(), BTreeMap::from([("a".into(), (11, at(3)))]));
        journal.forget_below(12).unwrap();
        assert_eq!((read().floor, read().bounds["a"].clone()), (12, bounds(&[(11, at(3)), (12, at(4))])));
        journal.bind("a", 20, at(9));
        journal.end().unwrap();
        assert!(read().ended && read().bounds["a"].back() == Some(&(20, at(9))));
    }

    #[test]
    fn a_torn_last_line_is_none_and_a_damaged_one_before_it_is_a_named_error() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity { plan: "p".into(), nodes: BTreeMap::from([("a".into(), "file:1".into())]) };
        let journal = Journal::begin(folder.path(), History { identity, ..History::default() }).unwrap();
        journal.bind("a", 10, at(1));
        journal.intend("s", 0, 11).unwrap();
        let before = History::read(folder.path()).unwrap().unwrap();
        let path = folder.path().join(FILE);
        let text = fs::read(&path).unwrap();
        for end in 0..40 {
            fs::write(&path, [&text, &text[..end]].concat()).unwrap();
            assert_eq!(History::read(folder.path()).unwrap().unwrap(), before);
        }
        // What goes on from it is whole again.
        drop(Journal::begin(folder.path(), before.clone()).unwrap());
        assert_eq!(History::read(folder.path()).unwrap().unwrap(), before);
        fs::write(&path, [b"{\"line\":\n", text.as_slice()].concat()).unwrap();
        let error = History::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("journal.ndjson, line 1: the line is damaged") && error.contains("--fresh"), "{error}");
        assert_eq!(History::read(&folder.path().join("nowhere")).unwrap(), None);
    }
}
