//! What a pipeline has read and committed, durably: what exactly-once rests on.
//!
//! A journal is a list of lines. Every row of a source up to a position has a logical time; a line `bind` says which,
//! before any sink commits it. A sink says which interval of times it is about to commit (`intend`) and that it
//! has (`commit`). After a crash the same rows therefore get the same times again, and an interval that was
//! broken off is committed again with the same bounds and rows, so the store recognises what it has of it.
//!
//! The lines lie in a file of the data folder or, where checkpoints go to a bucket, in objects beside them, so that the
//! pipeline can go on from another machine. Either way one process writes: a process that opens a journal of objects takes it
//! over, and the one before it can add nothing any more, however long it was stopped or cut off. As every commit is
//! intended first, that one commits nothing any more, either.
//!
//! A journal that cannot be written for a while is waited for, as sinks wait for their stores, and so do all commits.
//!
//! A journal is rewritten as a whole when a run begins and when a checkpoint makes its beginning superfluous.

mod file;
mod objects;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use config::settings::Settings;
use model::Account;
use model::time::Time;
use serde::{Deserialize, Serialize};
use sources::Position;
use storage::attempts::Attempts;
use tokio::sync::watch;

use file::FileLog;
use objects::ObjectLog;

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
    /// A checkpoint at `barrier` is about to be stored: times before it are given out no more.
    Checkpoint { barrier: Time },
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
    /// The barrier of the last checkpoint that was perhaps stored, or 0.
    pub barrier: Time,
    /// Whether nothing can come any more.
    pub ended: bool,
}

/// A journal that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{place}: {what}; {remedy}")]
pub struct JournalError {
    /// Whether the same may succeed later without anybody's doing: the store is away, busy or full.
    pub transient: bool,
    /// Where it lies, with the line.
    pub place: String,
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl History {
    /// Understands the lines of a journal that lies at `place`. The last one may be torn by a crash: nothing depends on
    /// it, because whoever wrote it was not told that it is on disk.
    fn parse(place: &str, text: &[u8]) -> Result<History, JournalError> {
        let mut history = History::default();
        for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            match serde_json::from_slice::<Line>(line) {
                Ok(line) => history.apply(line),
                Err(_) if line.last() != Some(&b'\n') => {}
                Err(error) => {
                    return Err(JournalError {
                        transient: false,
                        place: format!("{place}, line {}", number + 1),
                        what: format!("the line is damaged: {error}"),
                        remedy:
                            "restore it from a copy, or begin anew with `--fresh`: rows that are stored stay, and everything is read again"
                                .into(),
                    });
                }
            }
        }
        Ok(history)
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
            Line::Checkpoint { barrier } => self.barrier = self.barrier.max(barrier),
            Line::End => self.ended = true,
        }
    }

    /// The first logical time that no row has.
    pub fn next(&self) -> Time {
        let bound = self.bounds.values().filter_map(|bounds| bounds.back()).map(|(time, _)| time + 1).max();
        let named = self.sinks.values().map(|sink| sink.open.map_or(sink.upper, |(_, upper)| upper)).max();
        bound.max(named).unwrap_or(0).max(self.barrier)
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
        lines.extend((self.barrier > 0).then_some(Line::Checkpoint { barrier: self.barrier }));
        lines.extend(self.ended.then_some(Line::End));
        lines
    }
}

/// Where the lines of a journal lie.
#[async_trait]
trait Log: Debug + Send {
    /// Adds lines behind all others. They are durable when this returns, if they are to be; else at the latest when a
    /// later call that is to be durable returns. After an error none of them is there, or it is not known: then the error is
    /// transient, and the same call is the next.
    async fn append(&mut self, lines: &[u8], durable: bool) -> Result<(), JournalError>;

    /// Puts lines in the place of all others, durably. After an error the others are there, or it is not known, as above.
    async fn replace(&mut self, lines: &[u8]) -> Result<(), JournalError>;
}

/// A journal that this process alone may write now, with what earlier ones wrote.
#[derive(Debug)]
pub struct Opened {
    log: Box<dyn Log>,
    /// What it says. An error is a damaged journal; `None` is a new one.
    pub history: Result<Option<History>, JournalError>,
}

/// Opens the journal of a pipeline, as the settings say, and takes it over.
///
/// # Errors
/// It cannot be read or taken over.
pub async fn open(settings: &Settings, pipeline: &str) -> Result<Opened, JournalError> {
    if let Some(place) = settings.shared_checkpoints() {
        let (log, text) = ObjectLog::open(place, settings, pipeline).await?;
        let history = text.map(|text| History::parse(&log.place(), &text)).transpose();
        Ok(Opened { log: Box::new(log), history })
    } else {
        let (log, text) = FileLog::open(&Path::new(settings.data()).join("pipelines").join(pipeline))?;
        let history = text.map(|text| History::parse(&log.place(), &text)).transpose();
        Ok(Opened { log: Box::new(log), history })
    }
}

/// Removes what the journal of a pipeline has in a bucket; nothing if it is a file.
///
/// # Errors
/// The bucket cannot be reached or refuses us.
pub async fn clear(settings: &Settings, pipeline: &str) -> Result<(), JournalError> {
    match settings.shared_checkpoints() {
        Some(place) => ObjectLog::clear(place, settings, pipeline).await,
        None => Ok(()),
    }
}

impl Opened {
    /// Begins to write a journal that goes on from a history. What it waits for later is said in the books.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn begin(self, history: History, account: &Arc<Account>) -> Result<Journal, JournalError> {
        let mut log = self.log;
        log.replace(&encode(&history.lines())).await?;
        let state = tokio::sync::Mutex::new(State { log, history, account: account.clone() });
        Ok(Journal { pending: Mutex::default(), kept: Mutex::default(), state })
    }
}

/// The journal of a pipeline that runs.
#[derive(Debug)]
pub struct Journal {
    /// By source: what is not recorded, in the order of times.
    pending: Mutex<BTreeMap<String, VecDeque<Bound>>>,
    /// By source: how far it is able to hand the same over again, where it is not always.
    kept: Mutex<BTreeMap<String, watch::Receiver<u64>>>,
    state: tokio::sync::Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: Box<dyn Log>,
    /// What the lines say.
    history: History,
    /// The pipeline's books.
    account: Arc<Account>,
}

impl Journal {
    /// Notes that a chunk of a source at a logical time ends at a position, or that the source ends. Times of a source
    /// never fall.
    pub fn bind(&self, source: &str, time: Time, position: Option<Position>) {
        let mut pending = self.pending.lock().expect("no holder panics");
        if !pending.contains_key(source) {
            pending.insert(source.to_owned(), VecDeque::new());
        }
        let pending = pending.get_mut(source).expect("it was put there");
        match pending.back_mut() {
            Some((last, end)) if *last == time => *end = position,
            _ => pending.push_back((time, position)),
        }
    }

    /// Records positions of a source only as far as it keeps what is before them, as [`sources::Reader::kept`] tells.
    pub fn follow(&self, source: &str, kept: watch::Receiver<u64>) {
        self.kept.lock().expect("no holder panics").insert(source.to_owned(), kept);
    }

    /// Records durably that a sink is about to commit the times from `lower` to before `upper`, and where the sources were
    /// at each of them.
    ///
    /// # Errors
    /// It cannot be written: the sink must not commit.
    pub async fn intend(&self, sink: &str, lower: Time, upper: Time) -> Result<(), JournalError> {
        self.record(upper, Line::Intend { sink: sink.to_owned(), lower, upper }).await.map(drop)
    }

    /// Notes that a sink has committed everything before `upper`. Should a crash lose the note, the sink is asked again
    /// and recognises what it has.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn committed(&self, sink: &str, upper: Time) -> Result<(), JournalError> {
        self.state.lock().await.write(vec![Line::Commit { sink: sink.to_owned(), upper }], false).await
    }

    /// Records durably that a checkpoint is about to be stored, and returns the last bound of each source below its barrier.
    ///
    /// # Errors
    /// It cannot be written: the checkpoint must not be stored.
    pub async fn checkpoint(&self, barrier: Time) -> Result<BTreeMap<String, Bound>, JournalError> {
        let state = self.record(barrier, Line::Checkpoint { barrier }).await?;
        Ok(state.history.last_below(barrier))
    }

    /// Forgets what is needed only to go on from before the checkpoint at a barrier, and returns the last bound of each
    /// source below it.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn forget_below(&self, barrier: Time) -> Result<BTreeMap<String, Bound>, JournalError> {
        let mut state = self.state.lock().await;
        for bounds in state.history.bounds.values_mut() {
            let below = bounds.partition_point(|(bound, _)| *bound < barrier);
            bounds.drain(..below.saturating_sub(1));
        }
        state.history.floor = barrier;
        let lines = encode(&state.history.lines());
        state.change(Change::Replace(&lines)).await?;
        Ok(state.history.last_below(barrier))
    }

    /// Makes durable what was noted, at the end of a run; and where nothing can come any more, records that.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn close(&self, ended: bool) -> Result<(), JournalError> {
        if ended {
            return self.record(Time::MAX, Line::End).await.map(drop);
        }
        self.state.lock().await.write(Vec::new(), true).await
    }

    /// Waits until every source keeps what it handed over below a time.
    async fn keep_below(&self, upper: Time) -> Result<(), JournalError> {
        let mut waited = Vec::new();
        for (source, kept) in &*self.kept.lock().expect("no holder panics") {
            let pending = self.pending.lock().expect("no holder panics");
            let below = pending.get(source).into_iter().flatten().take_while(|(time, _)| *time < upper);
            let last = below.filter_map(|(_, position)| position.as_ref()).map(|position| position.offset).max();
            waited.extend(last.map(|last| (source.clone(), last, kept.clone())));
        }
        for (source, last, mut kept) in waited {
            if kept.wait_for(|kept| *kept >= last).await.is_err() {
                return Err(JournalError {
                    transient: false,
                    place: format!("source `{source}`"),
                    what: format!("it cannot keep what it has heard up to {last}, so nothing of that is stored"),
                    remedy: "see the error of the source, and run the pipeline again: it goes on with what the disk has".into(),
                });
            }
        }
        Ok(())
    }

    /// Writes the bounds below a time and a further line, and waits until they are durable, and so is what the sources read there.
    async fn record(&self, upper: Time, line: Line) -> Result<tokio::sync::MutexGuard<'_, State>, JournalError> {
        let mut state = self.state.lock().await;
        self.keep_below(upper).await?;
        let mut lines = Vec::new();
        for (source, pending) in &*self.pending.lock().expect("no holder panics") {
            let below = pending.iter().take_while(|(time, _)| *time < upper);
            lines.extend(below.map(|(time, position)| Line::Bind { source: source.clone(), time: *time, position: position.clone() }));
        }
        lines.push(line);
        state.write(lines, true).await?;
        // Only now: another sink must not commit without them because this one could not write them.
        for pending in self.pending.lock().expect("no holder panics").values_mut() {
            pending.drain(..pending.partition_point(|(time, _)| *time < upper));
        }
        Ok(state)
    }
}

/// What is done to a log.
#[derive(Clone, Copy)]
enum Change<'a> {
    Append(&'a [u8], bool),
    Replace(&'a [u8]),
}

impl State {
    /// Changes the log, however long it takes: nobody else changes it meanwhile, so what an attempt perhaps wrote is found by
    /// the next.
    async fn change(&mut self, change: Change<'_>) -> Result<(), JournalError> {
        let mut attempts: Option<Attempts> = None;
        loop {
            let result = match change {
                Change::Append(lines, durable) => self.log.append(lines, durable).await,
                Change::Replace(lines) => self.log.replace(lines).await,
            };
            match result {
                Err(error) if error.transient => {
                    let attempts = attempts.get_or_insert_with(|| Attempts::new(&self.account, &*error.place, "journal"));
                    tokio::time::sleep(attempts.failed(&error.what, &error.remedy)).await;
                }
                result => {
                    attempts.iter_mut().for_each(Attempts::succeeded);
                    return result;
                }
            }
        }
    }

    async fn write(&mut self, lines: Vec<Line>, durable: bool) -> Result<(), JournalError> {
        self.change(Change::Append(&encode(&lines), durable)).await?;
        lines.into_iter().for_each(|line| self.history.apply(line));
        Ok(())
    }
}

impl History {
    /// The last bound of each source below a time.
    fn last_below(&self, time: Time) -> BTreeMap<String, Bound> {
        let last = |(source, bounds): (&String, &VecDeque<Bound>)| {
            let below = bounds.partition_point(|(bound, _)| *bound < time);
            (below > 0).then(|| (source.clone(), bounds[below - 1].clone()))
        };
        self.bounds.iter().filter_map(last).collect()
    }
}

fn encode(lines: &[Line]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line).expect("a line is JSON");
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn at(offset: u64) -> Option<Position> {
        Some(Position { part: "f".into(), offset, frame: offset, identity: 7 })
    }

    fn bounds(list: &[(Time, Option<Position>)]) -> VecDeque<Bound> {
        list.iter().cloned().collect()
    }

    fn settings(folder: &Path) -> Settings {
        Settings { data: Some(folder.display().to_string()), ..Settings::default() }
    }

    async fn begin(settings: &Settings, history: History) -> Journal {
        open(settings, "p").await.unwrap().begin(history, &Arc::default()).await.unwrap()
    }

    async fn read(settings: &Settings) -> History {
        open(settings, "p").await.unwrap().history.unwrap().unwrap()
    }

    #[tokio::test]
    async fn only_what_lies_below_an_intended_interval_is_recorded_and_everything_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let journal = begin(&settings, History::default()).await;
        for (time, offset) in [(10, 1), (10, 2), (11, 3), (12, 4)] {
            journal.bind("a", time, at(offset));
        }
        journal.bind("b", 12, None);
        journal.intend("s", 0, 12).await.unwrap();
        let now = read(&settings).await;
        assert_eq!(now.bounds, BTreeMap::from([("a".into(), bounds(&[(10, at(2)), (11, at(3))]))]));
        assert_eq!((now.sinks["s"], now.next()), (Committed { upper: 0, open: Some((0, 12)) }, 12));
        journal.committed("s", 12).await.unwrap();
        journal.intend("s", 12, 13).await.unwrap();
        let now = read(&settings).await;
        assert_eq!(now.bounds["b"], bounds(&[(12, None)]));
        assert_eq!((now.sinks["s"], now.next()), (Committed { upper: 12, open: Some((12, 13)) }, 13));

        assert_eq!(journal.checkpoint(12).await.unwrap(), BTreeMap::from([("a".into(), (11, at(3)))]));
        assert_eq!(journal.forget_below(12).await.unwrap(), BTreeMap::from([("a".into(), (11, at(3)))]));
        let now = read(&settings).await;
        assert_eq!((now.floor, now.bounds["a"].clone()), (12, bounds(&[(11, at(3)), (12, at(4))])));
        journal.checkpoint(19).await.unwrap();
        assert_eq!(read(&settings).await.next(), 19, "times below a checkpoint that may be stored are given out no more");
        journal.bind("a", 20, at(9));
        journal.close(true).await.unwrap();
        let now = read(&settings).await;
        assert!(now.ended && now.bounds["a"].back() == Some(&(20, at(9))));
    }

    /// A source may hand over what it cannot yet be sure to keep: nothing that came of it is to be stored before.
    #[tokio::test]
    async fn nothing_is_intended_that_its_source_does_not_keep() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let journal = begin(&settings, History::default()).await;
        let (keeps, kept) = watch::channel(2);
        journal.follow("a", kept);
        for (time, offset) in [(10, 2), (11, 3), (12, 5)] {
            journal.bind("a", time, at(offset));
        }
        journal.intend("s", 0, 11).await.unwrap();
        let mut waits = Box::pin(journal.intend("s", 11, 13));
        for kept in [2, 3, 4] {
            keeps.send_replace(kept);
            assert!(futures::poll!(&mut waits).is_pending(), "frames up to {kept} are on disk, and 5 is not");
            assert_eq!(read(&settings).await.bounds["a"], bounds(&[(10, at(2))]));
        }
        keeps.send_replace(7);
        waits.await.unwrap();
        assert_eq!(read(&settings).await.bounds["a"].back(), Some(&(12, at(5))));
        journal.bind("a", 14, at(8));
        drop(keeps);
        let error = journal.checkpoint(15).await.unwrap_err();
        assert!(!error.transient && error.to_string().contains("source `a`: it cannot keep what it has heard up to 8"), "{error}");
    }

    #[tokio::test]
    async fn a_torn_last_line_is_none_and_a_damaged_one_before_it_is_a_named_error() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        assert_eq!(open(&settings, "p").await.unwrap().history.unwrap(), None);
        let identity = Identity { plan: "p".into(), nodes: BTreeMap::from([("a".into(), "file:1".into())]) };
        let journal = begin(&settings, History { identity, ..History::default() }).await;
        journal.bind("a", 10, at(1));
        journal.intend("s", 0, 11).await.unwrap();
        let before = read(&settings).await;
        let path = folder.path().join("pipelines/p").join(file::FILE);
        let text = fs::read(&path).unwrap();
        for end in 0..40 {
            fs::write(&path, [&text, &text[..end]].concat()).unwrap();
            assert_eq!(read(&settings).await, before);
        }
        // What goes on from it is whole again.
        drop(begin(&settings, before.clone()).await);
        assert_eq!(read(&settings).await, before);
        fs::write(&path, [b"{\"line\":\n", text.as_slice()].concat()).unwrap();
        let error = open(&settings, "p").await.unwrap().history.unwrap_err().to_string();
        assert!(error.contains("journal.ndjson, line 1: the line is damaged") && error.contains("--fresh"), "{error}");
    }
}
