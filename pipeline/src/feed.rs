//! Into the dataflow: a source's chunks, at logical times.
//!
//! A thread pulls chunks from the source's reader. Each gets the logical time at which it came, is bound to it,
//! waits for the byte budget and goes to one worker; every worker is told how time goes on. Logical time
//! is the clock in milliseconds. While the dataflow is busy, time stands still for up to [`LOADED_TICK`], so that
//! operators see thousands of rows at once; when it is idle, each chunk has a time of its own.
//!
//! Workers of one process take turns. Where there are several processes ([`spread`]), one worker passes the chunks on, in turn to
//! all workers. What a chunk teaches goes to every worker, on the way that rows take to it: it comes behind the rows of
//! the chunks before and ahead of those of the chunks after. So a frame is decoded with the listings that came before it in its
//! source, and with no others.
//!
//! What an earlier run handed over and bound is handed over first, at the same times. A replay is not broken off: a
//! logical time of which a part was handed over would look complete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::FieldRef;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use model::kinds::{DEAD_LETTER, FRAME};
use model::time::Time;
use model::{Account, Batch, Kind, Lesson, Message, Origin, Progress, crash};
use operators::Stream;
use sources::{Chunk, Position, Reader, SourceError};
use timely::dataflow::Scope;
use timely::dataflow::operators::Exchange as _;
use timely::dataflow::operators::generic::source;
use timely::dataflow::operators::vec::Map as _;
use timely::scheduling::SyncActivator;
use tokio::sync::watch;

use crate::budget::Budget;
use crate::checkpoint::{Barriers, Clock, now};
use crate::journal::{Bound, Journal};
use crate::resume::SourceResume;

/// How long logical time may stand still while the dataflow has enough to do, in milliseconds.
pub const LOADED_TICK: Time = 20;
/// How long an idle source lets the frontier wait.
const IDLE_TICK: Duration = Duration::from_millis(50);
/// Chunks that an operator takes in before it lets others run.
const CHUNKS_A_TURN: usize = 1;

/// What a worker is told about a source.
#[derive(Debug)]
pub enum Event {
    /// Rows at a logical time.
    Rows(Time, Vec<Batch>),
    /// Nothing below this time comes any more.
    Advance(Time),
    /// The source has ended at this time: its event time has reached the end. Where it was only stopped, it has not.
    End(Time, bool),
}

/// A worker's end of a source's channel.
pub type Inlet = Receiver<Event>;

/// The source's ends of its channels to the workers.
#[derive(Debug)]
pub struct Outlets {
    senders: Vec<Sender<Event>>,
    activators: Vec<SyncActivator>,
}

impl Outlets {
    /// The ends for workers which have all built their dataflow.
    pub fn new(senders: Vec<Sender<Event>>, activators: Vec<SyncActivator>) -> Self {
        Outlets { senders, activators }
    }

    fn send(&self, worker: usize, event: Event) {
        // A worker that is gone has failed, and its failure ends the run.
        if self.senders[worker].send(event).is_ok() {
            let _gone_with_its_worker = self.activators[worker].activate();
        }
    }

    fn tell_all(&self, event: impl Fn(usize) -> Event) {
        for worker in 0..self.senders.len() {
            self.send(worker, event(worker));
        }
    }
}

/// What a source's thread works with.
pub struct Feed {
    /// The source's number.
    pub source: u32,
    /// The node's name, for logs.
    pub name: String,
    /// The node's books.
    pub account: Arc<Account>,
    /// The open source; `None` where it ended before.
    pub reader: Option<Box<dyn Reader>>,
    /// The workers.
    pub outlets: Outlets,
    /// The worker that passes everything on, where there are other processes.
    pub spreads: Option<usize>,
    /// Bytes in flight of this source.
    pub budget: Arc<Budget>,
    /// Where it goes on.
    pub resume: SourceResume,
    /// Logical time.
    pub clock: Arc<Clock>,
    /// Positions on disk, where they are kept.
    pub journal: Option<Arc<Journal>>,
    /// What sets barriers, where there are checkpoints.
    pub barriers: Option<Arc<Barriers>>,
    /// What no run will ask for again, by source.
    pub settled: watch::Receiver<BTreeMap<String, Bound>>,
    /// Turns true when the pipeline is to drain.
    pub stop: watch::Receiver<bool>,
    /// Set when the source failed: the run then ends with an error.
    pub failed: Arc<AtomicBool>,
    /// Set when a replay failed: the time at hand is not complete, and no sink may commit it.
    pub abandoned: Arc<AtomicBool>,
}

/// Where a source stands.
struct Cursor {
    time: Time,
    chunks: u64,
    worker: usize,
}

impl Feed {
    /// Feeds the source into the dataflow until it ends, fails or is stopped.
    pub async fn run(mut self) {
        let mut cursor = Cursor { time: 0, chunks: 0, worker: 0 };
        let Some(mut reader) = self.reader.take() else { return self.close(0, false) };
        if let Some((journal, kept)) = self.journal.as_ref().zip(reader.kept()) {
            journal.follow(&self.name, kept);
        }
        let ended = match self.replay(reader.as_mut(), &mut cursor).await {
            Ok(true) => return,
            Ok(false) => self.read(reader.as_mut(), &mut cursor).await,
            Err(error) => {
                // Before any worker can take the time at hand for complete.
                self.abandoned.store(true, Ordering::SeqCst);
                Err(error)
            }
        };
        if let Err(error) = &ended {
            tracing::error!(source = self.name, "{error}");
            self.account.error(error.to_string());
            self.failed.store(true, Ordering::Relaxed);
        }
        let time = self.advance(cursor.time);
        let finished = ended.is_ok_and(|ended| ended);
        if finished {
            self.bind(time, None);
        }
        self.close(time, finished);
    }

    /// Hands over again what an earlier run did, at the same times. Returns whether the source ended then.
    async fn replay(&mut self, reader: &mut dyn Reader, cursor: &mut Cursor) -> Result<bool, SourceError> {
        while let Some((time, position)) = self.resume.replay.pop_front() {
            cursor.time = time;
            self.outlets.tell_all(|_| Event::Advance(time));
            let Some(position) = position else {
                self.close(time, true);
                return Ok(true);
            };
            loop {
                let chunk = reader.next(Some(&position)).await?.ok_or_else(|| SourceError {
                    transient: false,
                    place: position.part.clone(),
                    what: format!("the source ends before {}, to where it was read", position.offset),
                    remedy: "bring back what the source had, or begin anew with `--fresh`".into(),
                })?;
                let end = chunk.position.clone();
                reader.share().into_iter().for_each(|share| self.account.share(share));
                self.hand_over(chunk, cursor);
                if end.is_at(&position) {
                    break;
                }
            }
        }
        Ok(false)
    }

    /// Hands over what is new. Returns whether the source has ended.
    async fn read(&mut self, reader: &mut dyn Reader, cursor: &mut Cursor) -> Result<bool, SourceError> {
        cursor.time = self.advance(cursor.time);
        loop {
            // An idle source must not hold the frontier back.
            let next = tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => {
                    // What is read so far is stored with a state behind it.
                    self.barriers.iter().for_each(|barriers| barriers.begin());
                    return Ok(false);
                }
                next = reader.next(None) => Some(next?),
                () = tokio::time::sleep(IDLE_TICK) => None,
            };
            if self.settled.has_changed().unwrap_or(false) {
                let bound = self.settled.borrow_and_update().get(&self.name).cloned();
                if let Some((_, Some(position))) = bound {
                    reader.settle(&position).await?;
                }
            }
            match next {
                None => cursor.time = self.advance(cursor.time),
                Some(None) => return Ok(true),
                Some(Some(chunk)) => {
                    let busy = self.budget.is_loaded() && now() < cursor.time + LOADED_TICK;
                    if !(busy && self.budget.may_join(cursor.time, chunk.bytes())) {
                        cursor.time = self.advance(cursor.time);
                    }
                    reader.share().into_iter().for_each(|share| self.account.share(share));
                    self.bind(cursor.time, Some(chunk.position.clone()));
                    crash::point("bound");
                    self.hand_over(chunk, cursor);
                }
            }
        }
    }

    /// The next logical time: the clock's, but never one twice.
    fn advance(&self, time: Time) -> Time {
        let next = self.clock.advance(time);
        self.outlets.tell_all(|_| Event::Advance(next));
        next
    }

    fn bind(&self, time: Time, position: Option<Position>) {
        self.journal.iter().for_each(|journal| journal.bind(&self.name, time, position.clone()));
    }

    /// Tells every worker that nothing comes any more, and one that the source has ended.
    fn close(&self, time: Time, finished: bool) {
        self.outlets.tell_all(|worker| Event::End(time, finished && worker == 0));
    }

    /// Hands a chunk to the workers, at the time of the cursor.
    fn hand_over(&self, chunk: Chunk, cursor: &mut Cursor) {
        let time = cursor.time;
        cursor.chunks += 1;
        let origin = Origin { source: self.source, chunk: cursor.chunks };
        for error in chunk.errors {
            tracing::error!(source = self.name, "{error}");
            self.account.error(error.to_string());
        }
        let lessons: Option<Arc<[Lesson]>> = (!chunk.lessons.is_empty()).then(|| chunk.lessons.into());
        let batch = |(kind, rows): (Arc<Kind>, RecordBatch)| {
            let lessons = lessons.clone().filter(|_| kind.name == FRAME.name);
            Batch { hold: chunk.hold, lessons, ..Batch::new(&kind, refused_at(time, &kind, rows), origin) }
        };
        let batches: Vec<Batch> = chunk.batches.into_iter().map(batch).collect();
        let mut bytes = 0;
        for batch in &batches {
            self.account.receive(batch.len());
            if batch.kind.name != DEAD_LETTER.name {
                // The reader counted what it refused.
                self.account.accept(batch.len());
            }
            self.account.send(&batch.kind.name, batch.len(), 0, batch.bytes());
            bytes += batch.bytes();
        }
        if batches.is_empty() {
            return;
        }
        self.budget.take(time, bytes);
        if let Some(spreads) = self.spreads {
            return self.outlets.send(spreads, Event::Rows(time, batches));
        }
        for other in (0..self.outlets.senders.len()).filter(|other| *other != cursor.worker) {
            let lessons: Vec<Batch> = batches.iter().filter_map(only_lessons).collect();
            if !lessons.is_empty() {
                self.outlets.send(other, Event::Rows(time, lessons));
            }
        }
        self.outlets.send(cursor.worker, Event::Rows(time, batches));
        cursor.worker = (cursor.worker + 1) % self.outlets.senders.len();
    }
}

/// A reader does not know the logical time at which it refuses a row; a replay must give the row the same again.
fn refused_at(time: Time, kind: &Kind, rows: RecordBatch) -> RecordBatch {
    if kind.name != DEAD_LETTER.name {
        return rows;
    }
    let micros = i64::try_from(time).unwrap_or(i64::MAX).saturating_mul(1_000);
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![micros; rows.num_rows()]).with_timezone("UTC"));
    let replaced = |(column, field): (&ArrayRef, &FieldRef)| if field.name() == "rejected_time" { times.clone() } else { column.clone() };
    let columns = rows.columns().iter().zip(rows.schema_ref().fields()).map(replaced).collect();
    RecordBatch::try_new(rows.schema(), columns).expect("one column of the same type was replaced")
}

/// What a batch teaches, without its rows: for the workers that do not get these.
fn only_lessons(batch: &Batch) -> Option<Batch> {
    let lessons = Some(batch.lessons.clone()?);
    Some(Batch { lessons, ..Batch::new(&batch.kind, batch.rows.slice(0, 0), batch.origin) })
}

/// Spreads the chunks of a source, which come from one worker, over the workers of all processes. What they teach goes to every one.
pub fn spread(rows: Stream<'_>) -> Stream<'_> {
    let (worker, workers) = (rows.scope().index(), rows.scope().peers() as u32);
    let copies = move |message: Message| {
        let Message::Batch(batch) = message else { return vec![message] };
        let home = (batch.origin.chunk % u64::from(workers)) as u32;
        let mut copies = Vec::new();
        if let Some(lessons) = only_lessons(&batch) {
            let others = (0..workers).filter(|target| *target != home);
            copies.extend(others.map(|target| Message::Batch(Batch { target, ..lessons.clone() })));
        }
        copies.push(Message::Batch(Batch { target: home, ..batch }));
        copies
    };
    rows.flat_map(copies).exchange(move |message: &Message| match message {
        Message::Batch(batch) => u64::from(batch.target),
        Message::Progress(_) => worker as u64,
    })
}

/// Adds a source to the dataflow of a worker. The activator goes to the source's thread.
pub fn inlet<'scope>(
    scope: Scope<'scope, Time>,
    name: &str,
    number: u32,
    inlet: Inlet,
    register: impl FnOnce(SyncActivator) + 'static,
) -> Stream<'scope> {
    source(scope, name, |capability, info| {
        let address = info.address;
        register(scope.worker().sync_activator_for(address.to_vec()));
        let activator = scope.activator_for(address);
        let mut capability = Some(capability);
        move |output| {
            for _ in 0..CHUNKS_A_TURN {
                let Some(held) = &mut capability else { return };
                match inlet.try_recv() {
                    Ok(Event::Rows(time, batches)) => {
                        held.downgrade(&time);
                        let mut messages = Vec::with_capacity(batches.len() + 1);
                        // Frames tell no event time before they are decoded.
                        let records = batches.iter().filter(|b| b.kind.name != FRAME.name && b.kind.name != DEAD_LETTER.name);
                        let latest = records.filter_map(|b| b.kind.latest(&b.rows)).max();
                        messages.extend(batches.into_iter().map(Message::Batch));
                        messages.extend(latest.map(|event_time| Message::Progress(Progress::of(number, event_time))));
                        output.session(&*held).give_container(&mut messages);
                    }
                    Ok(Event::Advance(time)) => held.downgrade(&time),
                    Ok(Event::End(time, finished)) => {
                        held.downgrade(&time);
                        if finished {
                            output.session(&*held).give(Message::Progress(Progress::of(number, Progress::END)));
                        }
                        capability = None;
                    }
                    Err(TryRecvError::Empty) => return,
                    // The source's thread panicked: nothing more can come, and the run reports it.
                    Err(TryRecvError::Disconnected) => capability = None,
                }
            }
            activator.activate();
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use model::kinds::{Frame, FrameBuilder};
    use timely::dataflow::InputHandle;
    use timely::dataflow::operators::vec::Input as _;
    use timely::dataflow::operators::{Inspect as _, Probe as _};

    use super::*;

    #[test]
    fn rows_go_to_one_worker_and_what_they_teach_to_all() {
        const WORKERS: usize = 3;
        let mut builder = FrameBuilder::default();
        builder.push(Frame {
            source: "in",
            dialect: "okx",
            receive_time: None,
            frame: 1,
            connection: None,
            topic: Some("spot@listing"),
            payload: b"{}",
        });
        let frames = builder.finish();
        let lesson = Lesson { dialect: "okx".into(), listing: b"{}".to_vec() };
        let batch =
            |chunk| Batch { lessons: Some([lesson.clone()].into()), ..Batch::new(&FRAME, frames.clone(), Origin { source: 0, chunk }) };
        let batches: Vec<Batch> = (1..=4).map(batch).collect();
        // Rows and lessons that came, by worker.
        let came = Arc::new(Mutex::new([(0, 0); WORKERS]));
        let told = came.clone();
        let work = move |worker: &mut timely::worker::Worker| {
            let (index, told) = (worker.index(), told.clone());
            let mut input = InputHandle::new();
            let probe = worker.dataflow(|scope| {
                let note = move |message: &Message| {
                    let Message::Batch(batch) = message else { return };
                    let (rows, lessons) = &mut told.lock().unwrap()[index];
                    *rows += batch.len();
                    *lessons += batch.lessons.iter().map(|lessons| lessons.len()).sum::<usize>();
                };
                spread(scope.input_from(&mut input)).inspect(note).probe().0
            });
            if index == 0 {
                for batch in &batches {
                    input.send(Message::Batch(batch.clone()));
                }
            }
            input.close();
            while !probe.done() {
                worker.step();
            }
        };
        timely::execute(timely::Config::process(WORKERS), work).unwrap();
        let came = *came.lock().unwrap();
        assert_eq!(came.map(|(rows, _)| rows).iter().sum::<usize>(), 4, "each row once: {came:?}");
        assert!(came.iter().all(|(rows, _)| *rows > 0), "workers take turns: {came:?}");
        assert_eq!(came.map(|(_, lessons)| lessons), [4; WORKERS]);
    }
}
