//! Out of the dataflow: rows to a sink, epoch by epoch.
//!
//! On every worker an operator hands rows and the progress of logical time to the sink's thread. The thread
//! gathers, and when all workers have completed a time and the sink's pace says so, it records the source
//! positions behind that time and lets the writer commit the epoch. The operator holds its capability back
//! while the thread has too much in hand, so that a slow sink slows its own pipeline and nothing is dropped.
//!
//! Rows of a replay that were committed are left out. An epoch of which it is not known whether it was is committed first,
//! with the bounds that it had: its rows are the same again, so the writer recognises them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use model::time::Time;
use model::{Account, Batch, Message, Progress, crash};
use operators::dataflow::Watermark;
use operators::{Keeper, SourceClock, Stream};
use sinks::{Epoch, Keeps, Pace, SinkError, Writer};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Exchange as _;
use timely::dataflow::operators::generic::Operator as _;

use crate::checkpoint::Checkpoints;
use crate::journal::{Journal, JournalError};
use crate::resume::SinkResume;
use crate::run::Handle;

/// What a worker tells a sink's thread.
#[derive(Debug)]
pub enum Event {
    /// Rows and progress at a logical time.
    Messages(Time, Vec<Message>),
    /// The worker sends nothing below this time any more; `None`: nothing at all.
    Frontier(usize, Option<Time>),
}

/// A worker's end of a sink's channel.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// The channel.
    pub sender: Sender<Event>,
    /// Bytes that the sink's thread has in hand.
    pub waiting: Arc<AtomicUsize>,
    /// As many as it takes before the dataflow waits.
    pub limit: usize,
    /// The node's books.
    pub account: Arc<Account>,
    /// Names of the kinds that flow into the sink.
    pub kinds: Arc<[String]>,
}

/// Brings the rows of all processes to the workers of the first; `index` is that of the worker in its process.
pub fn collect(rows: Stream<'_>, index: usize) -> Stream<'_> {
    rows.exchange(move |_: &Message| index as u64)
}

/// Adds a sink to the dataflow of a worker; `None` in a process that it is not in. The stream that comes back carries
/// nothing; its frontier tells what the sink has room for.
pub fn outlet<'scope>(input: Stream<'scope>, name: &str, outlet: Option<Outlet>) -> Stream<'scope> {
    let scope = input.scope();
    let worker = scope.index();
    input.unary_frontier(Pipeline, name, |capability, info| {
        let activator = scope.activator_for(info.address);
        let mut capability = Some(capability);
        let mut told = Some(0);
        move |(input, frontier),
              _: &mut timely::dataflow::operators::generic::OutputBuilderSession<
            '_,
            Time,
            timely::container::CapacityContainerBuilder<Vec<Message>>,
        >| {
            let Some(outlet) = &outlet else {
                capability = None;
                return;
            };
            input.for_each(|stamp, container| {
                let time = *stamp.least().expect("every message has a time");
                container.retain(|message| match message {
                    // One without rows only teaches.
                    Message::Batch(batch) => !batch.is_empty() && outlet.kinds.iter().any(|k| *k == batch.kind.name),
                    Message::Progress(_) => true,
                });
                for message in container.iter() {
                    if let Message::Batch(batch) = message {
                        outlet.account.receive_kind(&batch.kind.name, batch.len());
                        outlet.waiting.fetch_add(batch.bytes(), Ordering::Relaxed);
                    }
                }
                if !container.is_empty() {
                    // The thread lives as long as any worker does.
                    outlet.sender.send(Event::Messages(time, std::mem::take(container))).expect("the sink's thread outlives the workers");
                }
            });
            let now = frontier.frontier().first().copied();
            if now != told {
                told = now;
                outlet.sender.send(Event::Frontier(worker, now)).expect("the sink's thread outlives the workers");
            }
            match (now, capability.as_mut()) {
                (None, _) => capability = None,
                (Some(now), Some(held)) if now > *held.time() => {
                    if outlet.waiting.load(Ordering::Relaxed) < outlet.limit {
                        held.downgrade(&now);
                    } else {
                        activator.activate_after(Duration::from_millis(1));
                    }
                }
                _ => {}
            }
        }
    })
}

/// What a sink's thread works with.
pub struct Drain {
    /// The node's name, for logs.
    pub name: String,
    /// The open sink.
    pub writer: Box<dyn Writer>,
    /// How much to gather.
    pub pace: Pace,
    /// What the workers tell.
    pub events: Receiver<Event>,
    /// Bytes in hand.
    pub waiting: Arc<AtomicUsize>,
    /// Number of workers.
    pub workers: usize,
    /// The clocks of the sources whose rows can reach the sink.
    pub clocks: Arc<[SourceClock]>,
    /// What becomes of what it writes.
    pub keeps: Keeps,
    /// Where it goes on.
    pub resume: SinkResume,
    /// Positions on disk, where they are kept.
    pub journal: Option<Arc<Journal>>,
    /// Checkpoints, where there are any.
    pub checkpoints: Option<Arc<Checkpoints>>,
    /// Set when a replay failed: nothing may be committed any more.
    pub abandoned: Arc<AtomicBool>,
    /// The run, which is to end when the sink fails: nothing that the sources still read could be stored.
    pub run: Handle,
    /// The node's books.
    pub account: Arc<Account>,
}

/// Rows in hand that were not committed yet.
struct Gathered {
    rows: BTreeMap<Time, Vec<Batch>>,
    progress: BTreeMap<Time, Vec<Progress>>,
    frontiers: Vec<Option<Time>>,
    watermark: Watermark,
    lower: Time,
    /// The end of an epoch that was broken off and has to be committed as it was.
    open: Option<Time>,
    /// The last barrier that the sink has told that it has come to.
    kept: Time,
}

impl Drain {
    /// Commits everything that comes until all workers are done, then closes the writer. After an error the rest
    /// is taken in and discarded, so that the workers can end, and the run is asked to end.
    ///
    /// # Errors
    /// The first error of the writer, or of the log of positions.
    pub fn run(mut self, on: &tokio::runtime::Handle) -> Result<(), SinkError> {
        let mut watermark = Watermark::new(&self.clocks);
        watermark.restore(&self.resume.watermark);
        let mut gathered = Gathered {
            rows: BTreeMap::new(),
            progress: BTreeMap::new(),
            frontiers: vec![Some(0); self.workers],
            watermark,
            lower: self.resume.committed.open.map_or(self.resume.committed.upper, |(lower, _)| lower),
            open: self.resume.committed.open.map(|(_, upper)| upper),
            // Not the latest: one may have been set before this thread began.
            kept: self.checkpoints.as_ref().map_or(0, |checkpoints| checkpoints.from()),
        };
        let mut failure = None;
        let mut last = Instant::now();
        while gathered.upper().is_some() {
            let wait = (last + self.pace.interval).saturating_duration_since(Instant::now());
            match self.events.recv_timeout(wait) {
                Ok(event) => {
                    gathered.take(event);
                    for event in self.events.try_iter() {
                        gathered.take(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(failure.unwrap_or_else(|| SinkError {
                        transient: false,
                        place: self.name.clone(),
                        what: "the workers ended before the sink had everything".into(),
                        remedy: "see the errors before this one".into(),
                    }));
                }
            }
            let due = last.elapsed() >= self.pace.interval || self.waiting.load(Ordering::Relaxed) >= self.pace.bytes;
            if due || gathered.upper().is_none() {
                last = Instant::now();
                while let Some((epoch, rows)) = gathered.complete(self.barrier()) {
                    let discard = failure.is_some() || self.abandoned.load(Ordering::SeqCst);
                    if let Err(error) = self.commit(epoch, rows, on, discard) {
                        tracing::error!(sink = self.name, "{error}");
                        self.account.error(error.to_string());
                        // At once: this thread ends only when the sources have.
                        self.run.drain();
                        failure = Some(error);
                    }
                    if failure.is_none() && !discard {
                        self.tell_barrier(&mut gathered);
                    }
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => on.block_on(self.writer.close()),
        }
    }

    /// The barrier of the checkpoint under way, or of the last.
    fn barrier(&self) -> Time {
        self.checkpoints.as_ref().map_or(0, |checkpoints| checkpoints.barrier())
    }

    /// Tells where the sink's watermark was at a barrier, once everything below is committed.
    fn tell_barrier(&self, gathered: &mut Gathered) {
        let Some(checkpoints) = &self.checkpoints else { return };
        let barrier = checkpoints.barrier();
        if gathered.kept < barrier && gathered.lower == barrier {
            gathered.kept = barrier;
            checkpoints.keep_sink(&self.name, barrier, gathered.watermark.state());
        }
    }

    /// Commits an epoch, unless it is to be discarded.
    fn commit(&mut self, epoch: Epoch, rows: Vec<(Time, Batch)>, on: &tokio::runtime::Handle, discard: bool) -> Result<(), SinkError> {
        let bytes: usize = rows.iter().map(|(_, batch)| batch.bytes()).sum();
        self.account.watermark(epoch.watermark);
        let result = if discard { Ok(()) } else { self.write(epoch, rows, on) };
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        result
    }

    fn write(&mut self, epoch: Epoch, mut rows: Vec<(Time, Batch)>, on: &tokio::runtime::Handle) -> Result<(), SinkError> {
        // What an earlier run committed comes again only to bring the stages before to where they were.
        let (known, new): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(time, _)| *time < epoch.lower);
        known.iter().for_each(|(_, batch)| self.account.ignore(batch.len()));
        rows = new;
        // The end moves the boundary of tables even where no row comes with it.
        if rows.is_empty() && epoch.watermark != Progress::END {
            return Ok(());
        }
        let journal = self.journal.as_ref().filter(|_| self.keeps == Keeps::Commits);
        let unrecorded = |error: JournalError| SinkError { transient: false, place: error.place, what: error.what, remedy: error.remedy };
        if let Some(journal) = journal {
            on.block_on(journal.intend(&self.name, epoch.lower, epoch.upper)).map_err(unrecorded)?;
        }
        crash::point("intended");
        on.block_on(self.writer.commit(epoch, rows))?;
        crash::point("committed");
        journal.map_or(Ok(()), |journal| on.block_on(journal.committed(&self.name, epoch.upper))).map_err(unrecorded)
    }
}

impl Gathered {
    fn take(&mut self, event: Event) {
        match event {
            Event::Frontier(worker, frontier) => self.frontiers[worker] = frontier,
            Event::Messages(time, messages) => {
                for message in messages {
                    match message {
                        Message::Batch(batch) => self.rows.entry(time).or_default().push(batch),
                        Message::Progress(progress) => self.progress.entry(time).or_default().push(progress),
                    }
                }
            }
        }
    }

    /// The first time that is not complete, or `None` when all are.
    fn upper(&self) -> Option<Time> {
        self.frontiers.iter().flatten().min().copied()
    }

    /// The next epoch of complete times with its rows, in the order of times and sources. It ends where one ended that was
    /// broken off, and at a barrier, so that the watermark there is known.
    fn complete(&mut self, barrier: Time) -> Option<(Epoch, Vec<(Time, Batch)>)> {
        let barrier = (barrier > self.kept).then_some(barrier);
        let last = self.rows.keys().chain(self.progress.keys()).max().map_or(self.lower, |t| t + 1);
        // When nothing comes any more, a barrier is as good as passed.
        let upper = self.upper().unwrap_or(last.max(barrier.unwrap_or(0)).max(self.open.unwrap_or(0)));
        let end = [self.open, barrier].into_iter().flatten().min().unwrap_or(Time::MAX);
        let upper = upper.min(end);
        if upper <= self.lower || self.open.is_some_and(|open| upper < open) {
            return None;
        }
        let again = self.open.take().is_some();
        let later = self.rows.split_off(&upper);
        let mut rows = Vec::new();
        for (time, mut batches) in std::mem::replace(&mut self.rows, later) {
            batches.sort_by(|a, b| a.origin.cmp(&b.origin).then_with(|| a.kind.name.cmp(&b.kind.name)));
            rows.extend(batches.into_iter().map(|batch| (time, batch)));
        }
        let later = self.progress.split_off(&upper);
        for (time, progress) in std::mem::replace(&mut self.progress, later) {
            for progress in progress {
                self.watermark.observe(time, progress);
            }
        }
        let epoch = Epoch { lower: self.lower, upper, watermark: self.watermark.at(upper), again };
        self.lower = upper;
        Some((epoch, rows))
    }
}
