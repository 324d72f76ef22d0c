//! Operators on timely: the shapes that an operator can have.
//!
//! A [`Transform`] sees each batch where and when it comes; one that has a [`Memory`] also knows something of the batches before it,
//! the same on every worker. A [`Keyed`] state machine sees, at each logical
//! time that is complete, all rows of that time that are its own, in the order of their sources, together
//! with the watermark. Since a logical time always holds the same rows, what a `Keyed` computes depends on
//! neither arrival, nor batch size, nor the number of workers: that is what exactly-once output rests on.
//!
//! Progress of event time travels beside the rows. Before a `Keyed` it is broadcast, so that every worker
//! knows the watermark as of each complete time; behind it one worker passes it on.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, DictionaryArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int32Type;
use model::kinds::{DEAD_LETTER, DeadLetter, DeadLetterBuilder};
use model::time::{Micros, Time};
use model::{Account, Batch, Message, Origin, Progress};
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator as _;
use twox_hash::XxHash64;

use crate::state::{Part, Snapshot, SourceProgress, StageState, WatermarkState};
use crate::{Context, Keeper, SourceClock};

/// What flows on an edge.
pub type Stream<'scope> = timely::dataflow::Stream<'scope, Time, Vec<Message>>;

/// An operator that needs nothing but the batch at hand.
pub trait Transform: 'static {
    /// Turns a batch into what it gives.
    fn apply(&mut self, time: Time, batch: Batch, out: &mut Output);
}

/// A [`Transform`] that remembers something of what it has seen, which every worker has seen.
pub trait Memory: Transform {
    /// What was seen below a barrier: what a checkpoint stores. One worker is asked; something of later may have been seen as well.
    fn snapshot(&mut self, barrier: Time) -> Snapshot;

    /// Takes over all rows that [`Memory::snapshot`] gave, before the first batch.
    fn restore(&mut self, state: &[RecordBatch]);
}

/// An operator that keeps state by instrument.
pub trait Keyed: 'static {
    /// Takes in all rows of a complete logical time, in the order of their sources, and emits what follows.
    /// Also called, without rows, when event time has advanced.
    fn advance(&mut self, advance: &Advance, batches: Vec<Batch>, out: &mut Output);

    /// How far, in microseconds, the times of what it may yet emit lie behind its watermark.
    fn delay(&self) -> Micros {
        0
    }

    /// The state as of now: what a checkpoint stores. Taking it must not take long; [`crate::pages`] are for that.
    fn snapshot(&mut self) -> Snapshot;

    /// Takes over rows that [`Keyed::snapshot`] gave, those of the instruments that are this worker's, before the first
    /// `advance`.
    fn restore(&mut self, state: &[RecordBatch]);
}

/// A logical time that is complete, and how far event time has come with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The logical time.
    pub time: Time,
    /// The watermark before the rows of this time: what decides whether a row of it is late.
    pub before: Micros,
    /// The watermark with the rows of this time: what decides which windows close.
    pub watermark: Micros,
    /// The greatest event time that any source has come to, whatever the kind of its record. The end of a source, where
    /// the watermark jumps to the end of time, does not count.
    pub reached: Micros,
}

/// Where an operator puts what it emits and counts what it refuses.
#[derive(Debug)]
pub struct Output {
    node: String,
    account: Arc<Account>,
    messages: Vec<Message>,
    letters: DeadLetterBuilder,
    origin: Origin,
}

impl Output {
    /// An output of the node of this name; operators get theirs from the runtime, tests make one.
    pub fn new(node: impl Into<String>, account: Arc<Account>) -> Self {
        Output { node: node.into(), account, messages: Vec::new(), letters: DeadLetterBuilder::default(), origin: Origin::default() }
    }

    /// Emits rows; an empty batch that teaches nothing is dropped.
    pub fn emit(&mut self, batch: Batch) {
        if !batch.is_empty() || batch.lessons.is_some() {
            self.messages.push(Message::Batch(batch));
        }
    }

    /// The node's books.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Refuses a frame or record: counts it under its reason and emits it as a dead letter. The columns that
    /// name the node and the time are filled in.
    pub fn reject(&mut self, reason: &'static str, time: Time, letter: DeadLetter<'_>) {
        self.account.reject(reason, 1);
        self.bury(reason, time, letter);
    }

    /// Refuses a record that came after its window had closed, and emits it as a dead letter.
    pub fn late(&mut self, time: Time, letter: DeadLetter<'_>) {
        self.account.late(1);
        self.bury("late", time, letter);
    }

    fn bury(&mut self, reason: &'static str, time: Time, letter: DeadLetter<'_>) {
        let rejected_time = i64::try_from(time).unwrap_or(i64::MAX).saturating_mul(1_000);
        self.letters.push(DeadLetter { node: &self.node, reason, rejected_time, ..letter });
    }

    /// Everything emitted since the last call, dead letters last.
    pub fn take(&mut self) -> Vec<Message> {
        if !self.letters.is_empty() {
            let letters = Batch::new(&DEAD_LETTER, self.letters.finish(), self.origin);
            self.messages.push(Message::Batch(letters));
        }
        std::mem::take(&mut self.messages)
    }

    /// Tells how far event time has come in the source of the rows at hand: for what turns frames into records.
    pub fn progress(&mut self, event_time: Micros) {
        self.messages.push(Message::Progress(Progress::of(self.origin.source, event_time)));
    }
}

/// Counts what leaves a node.
fn count_sent(account: &Account, messages: &[Message]) {
    for message in messages {
        if let Message::Batch(batch) = message {
            account.send(&batch.kind.name, batch.len(), batch.retractions(), batch.bytes());
        }
    }
}

/// The watermark of an operator: the least event time that its live sources have come to.
#[derive(Debug)]
pub struct Watermark {
    sources: Vec<SourceState>,
    current: Micros,
    reached: Micros,
}

#[derive(Debug)]
struct SourceState {
    clock: SourceClock,
    /// The greatest event time by each path on which the source reaches the operator: the slowest counts.
    paths: BTreeMap<u64, Micros>,
    heard: Option<Time>,
}

impl SourceState {
    fn event_time(&self) -> Option<Micros> {
        self.paths.values().min().copied()
    }
}

impl Watermark {
    /// The watermark over these sources, before any progress.
    pub fn new(sources: &[SourceClock]) -> Self {
        let sources = sources.iter().map(|clock| SourceState { clock: *clock, paths: BTreeMap::new(), heard: None }).collect();
        Watermark { sources, current: Micros::MIN, reached: Micros::MIN }
    }

    /// Takes progress in. It shows at the next [`Watermark::at`].
    pub fn observe(&mut self, time: Time, progress: Progress) {
        if let Some(source) = self.sources.iter_mut().find(|s| s.clock.source == progress.source) {
            let reached = source.paths.entry(progress.path).or_insert(progress.event_time);
            *reached = (*reached).max(progress.event_time);
            if progress.event_time != Progress::END {
                self.reached = self.reached.max(progress.event_time);
            }
            source.heard = source.heard.max(Some(time));
        }
    }

    /// The greatest event time that was told, other than the end.
    pub fn reached(&self) -> Micros {
        self.reached
    }

    /// What a checkpoint keeps of it.
    pub fn state(&self) -> WatermarkState {
        let known = |time: Micros| (time != Micros::MIN).then_some(time);
        let heard = |s: &SourceState| SourceProgress {
            source: s.clock.source,
            paths: s.paths.iter().map(|(path, event_time)| (*path, *event_time)).collect(),
            heard: s.heard,
        };
        WatermarkState {
            sources: self.sources.iter().filter(|s| s.heard.is_some()).map(heard).collect(),
            current: known(self.current),
            reached: known(self.reached),
        }
    }

    /// Goes on from what a checkpoint kept. Sources that are not this watermark's any more do not count.
    pub fn restore(&mut self, state: &WatermarkState) {
        for progress in &state.sources {
            if let Some(source) = self.sources.iter_mut().find(|s| s.clock.source == progress.source) {
                source.paths = progress.paths.iter().copied().collect();
                source.heard = progress.heard;
            }
        }
        self.current = state.current.unwrap_or(Micros::MIN);
        self.reached = state.reached.unwrap_or(Micros::MIN);
    }

    /// The watermark as of a logical time. It never falls. A source that was silent for longer than its idle
    /// time does not hold it back; one that was never heard does, until the first was heard that long ago.
    pub fn at(&mut self, time: Time) -> Micros {
        let first = self.sources.iter().filter_map(|s| s.heard).min();
        let live = self.sources.iter().filter(|s| {
            let heard = s.heard.or(first).unwrap_or(time);
            s.event_time() == Some(Progress::END) || time.saturating_sub(heard) <= s.clock.idle
        });
        let least = live.map(|s| match s.event_time() {
            None => Micros::MIN,
            Some(Progress::END) => Progress::END,
            Some(event_time) => event_time.saturating_sub(s.clock.disorder),
        });
        self.current = self.current.max(least.min().unwrap_or(Micros::MIN));
        self.current
    }
}

/// A [`Transform`] at work.
struct Transforming<T> {
    logic: T,
    consumes: Vec<String>,
    out: Output,
}

impl<T: Transform> Transforming<T> {
    fn new(cx: &Context, consumes: &[&str], logic: T) -> Self {
        let consumes = consumes.iter().map(|k| (*k).to_owned()).collect();
        Transforming { logic, consumes, out: Output::new(cx.node.clone(), cx.account.clone()) }
    }

    /// What comes of the messages of a time.
    fn apply(&mut self, time: Time, messages: impl Iterator<Item = Message>) -> Vec<Message> {
        let Transforming { logic, consumes, out } = self;
        let mut passed = Vec::new();
        for message in messages {
            match message {
                Message::Batch(batch) if consumes.iter().any(|k| *k == batch.kind.name) => {
                    out.account.receive_kind(&batch.kind.name, batch.len());
                    out.origin = batch.origin;
                    logic.apply(time, batch, out);
                    let mut emitted = out.take();
                    count_sent(&out.account, &emitted);
                    passed.append(&mut emitted);
                }
                Message::Batch(_) => {}
                progress @ Message::Progress(_) => passed.push(progress),
            }
        }
        passed
    }
}

/// Puts a [`Transform`] on the dataflow: rows of the kinds in `consumes` are its input, others are not for it.
pub fn transform<'scope, T: Transform>(input: Stream<'scope>, cx: &Context, consumes: &[&str], logic: T) -> Stream<'scope> {
    let mut work = Transforming::new(cx, consumes, logic);
    input.unary(Pipeline, &cx.node, |_, _| {
        move |input, output| {
            input.for_each_stamp(|stamp, containers| {
                let time = *stamp.least().expect("every message has a time");
                let mut passed = work.apply(time, containers.flat_map(|c| c.drain(..)));
                if !passed.is_empty() {
                    output.session(&stamp).give_container(&mut passed);
                }
            });
        }
    })
}

/// Puts a [`Transform`] with a [`Memory`] on the dataflow.
pub fn remembering<'scope, T: Memory>(input: Stream<'scope>, cx: &Context, consumes: &[&str], mut logic: T) -> Stream<'scope> {
    let index = input.scope().index() as u32;
    let mut saving = Saving::begin(cx, Stage::ONLY, index, |state| logic.restore(&state.rows));
    // It has none of its own.
    let watermark = Watermark::new(&[]);
    let mut work = Transforming::new(cx, consumes, logic);
    input.unary_frontier(Pipeline, &cx.node, |_, _| {
        move |(input, frontier), output| {
            input.for_each_stamp(|stamp, containers| {
                let time = *stamp.least().expect("every message has a time");
                let mut passed = work.apply(time, containers.flat_map(|c| c.drain(..)));
                if !passed.is_empty() {
                    output.session(&stamp).give_container(&mut passed);
                }
            });
            if let Some(saving) = &mut saving {
                let snapshot = |barrier| if index == 0 { work.logic.snapshot(barrier) } else { Box::new(Vec::new) };
                saving.save(frontier.frontier().first().copied(), &watermark, snapshot);
            }
        }
    })
}

/// Where the rows of a [`Keyed`] stage are worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// On the worker where they are: for a stage that combines rows before they are exchanged.
    Stay,
    /// On the worker that owns their instrument.
    Instrument,
}

/// Whether a stage opens the books of its node or carries on with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Rows that arrive are counted as received: the node's first stage.
    pub first: bool,
    /// Rows that leave are counted as sent: the node's last stage.
    pub last: bool,
}

impl Stage {
    /// The only stage of a node.
    pub const ONLY: Stage = Stage { first: true, last: true };

    /// Counted from 0. A node has two at most.
    fn number(self) -> u32 {
        u32::from(!self.first)
    }
}

/// Hands the state of a stage over at each barrier.
struct Saving {
    keeper: Arc<dyn Keeper>,
    part: Part,
    /// The barrier of the last state that was handed over.
    saved: Time,
}

impl Saving {
    /// Begins with what was stored of a stage, where states are kept at all.
    fn begin(cx: &Context, stage: Stage, worker: u32, restore: impl FnOnce(StageState)) -> Option<Self> {
        let keeper = cx.keeper.clone()?;
        let part = Part { node: cx.node.clone(), stage: stage.number(), worker };
        keeper.expect(&part);
        if let Some(state) = keeper.restore(&part.node, part.stage) {
            restore(state);
        }
        Some(Saving { saved: keeper.from(), keeper, part })
    }

    /// Hands the state over if there is a barrier at or below `next`, the least time that may still be worked on.
    fn save(&mut self, next: Option<Time>, watermark: &Watermark, snapshot: impl FnOnce(Time) -> Snapshot) {
        let barrier = self.keeper.barrier();
        if barrier > self.saved && next.is_none_or(|next| barrier <= next) {
            self.saved = barrier;
            self.keeper.keep(&self.part, barrier, watermark.state(), snapshot(barrier));
        }
    }
}

/// Puts a [`Keyed`] on the dataflow: rows of the kinds in `consumes` are its input. Dead letters of an earlier
/// stage of the same node pass through.
pub fn keyed<'scope, K: Keyed>(
    input: Stream<'scope>,
    cx: &Context,
    consumes: &[&str],
    route: Route,
    stage: Stage,
    mut logic: K,
) -> Stream<'scope> {
    let worker = input.scope();
    let (index, peers) = (worker.index() as u32, worker.peers() as u32);
    let routed = distribute(input, cx, consumes, route, stage, index, peers);
    let exchange = Exchange::new(|message: &Message| u64::from(message.target()));
    let mut watermark = Watermark::new(&cx.sources);
    let mut saving = Saving::begin(cx, stage, index, |state| {
        watermark.restore(&state.watermark);
        let router = Router::new(peers);
        logic.restore(&state.rows.iter().map(|rows| router.own(rows, index)).collect::<Vec<_>>());
    });
    let mut out = Output::new(cx.node.clone(), cx.account.clone());
    let name = cx.node.clone();
    let path = XxHash64::oneshot(0, name.as_bytes());
    routed.unary_frontier(exchange, &name, |capability, _| {
        let mut capability = Some(capability);
        let mut waiting: BTreeMap<Time, Vec<Message>> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|stamp, container| {
                let time = *stamp.least().expect("every message has a time");
                waiting.entry(time).or_default().append(container);
            });
            let Some(held) = &mut capability else { return };
            let frontier = frontier.frontier().first().copied();
            while let Some(entry) = waiting.first_entry().filter(|e| frontier.is_none_or(|f| *e.key() < f)) {
                if let Some(saving) = &mut saving {
                    saving.save(Some(*entry.key()), &watermark, |_| logic.snapshot());
                }
                let (time, messages) = entry.remove_entry();
                let before = watermark.at(time);
                let mut batches = Vec::new();
                let mut passed = Vec::new();
                for message in messages {
                    match message {
                        Message::Batch(batch) if !stage.first && batch.kind.name == DEAD_LETTER.name => passed.push(Message::Batch(batch)),
                        Message::Batch(batch) => batches.push(batch),
                        Message::Progress(progress) => {
                            watermark.observe(time, progress);
                            if progress.source % peers == index {
                                passed.push(Message::Progress(progress.delayed(logic.delay(), path)));
                            }
                        }
                    }
                }
                batches.sort_by_key(|b| b.origin);
                let advance = Advance { time, before, watermark: watermark.at(time), reached: watermark.reached() };
                out.origin = batches.last().map_or(Origin::default(), |b| b.origin);
                logic.advance(&advance, batches, &mut out);
                out.account.watermark(advance.watermark);
                passed.append(&mut out.take());
                if stage.last {
                    count_sent(&out.account, &passed);
                }
                if !passed.is_empty() {
                    held.downgrade(&time);
                    output.session(&*held).give_container(&mut passed);
                }
            }
            if let Some(saving) = &mut saving {
                saving.save(frontier, &watermark, |_| logic.snapshot());
            }
            release(&mut capability, frontier);
        }
    })
}

/// Lets the frontier behind an operator follow the frontier before it.
fn release(capability: &mut Option<Capability<Time>>, frontier: Option<Time>) {
    match (frontier, capability.as_mut()) {
        (Some(frontier), Some(held)) if frontier > *held.time() => held.downgrade(&frontier),
        (None, _) => *capability = None,
        _ => {}
    }
}

/// Tags rows with the worker they belong to and copies progress for every worker.
fn distribute<'scope>(
    input: Stream<'scope>,
    cx: &Context,
    consumes: &[&str],
    route: Route,
    stage: Stage,
    index: u32,
    peers: u32,
) -> Stream<'scope> {
    let consumes: Vec<String> = consumes.iter().map(|k| (*k).to_owned()).collect();
    let account = cx.account.clone();
    let mut router = Router::new(peers);
    input.unary(Pipeline, &format!("{}: distribute", cx.node), |_, _| {
        move |input, output| {
            input.for_each_stamp(|stamp, containers| {
                let mut routed = Vec::new();
                for message in containers.flat_map(|c| c.drain(..)) {
                    match message {
                        Message::Batch(mut batch) if consumes.iter().any(|k| *k == batch.kind.name) => {
                            if stage.first {
                                account.receive_kind(&batch.kind.name, batch.len());
                            }
                            match route {
                                Route::Instrument => router.split(batch, |part| routed.push(Message::Batch(part))),
                                Route::Stay => {
                                    batch.target = index;
                                    routed.push(Message::Batch(batch));
                                }
                            }
                        }
                        Message::Batch(mut letters) if !stage.first && letters.kind.name == DEAD_LETTER.name => {
                            letters.target = index;
                            routed.push(Message::Batch(letters));
                        }
                        Message::Batch(_) => {}
                        Message::Progress(progress) => {
                            routed.extend((0..peers).map(|target| Message::Progress(Progress { target, ..progress })))
                        }
                    }
                }
                if !routed.is_empty() {
                    output.session(&stamp).give_container(&mut routed);
                }
            });
        }
    })
}

/// Splits batches by the worker that owns each row's instrument.
#[derive(Debug)]
struct Router {
    peers: u32,
}

impl Router {
    fn new(peers: u32) -> Self {
        Router { peers }
    }

    fn split(&mut self, mut batch: Batch, mut send: impl FnMut(Batch)) {
        if self.peers == 1 {
            return send(batch);
        }
        let owners = self.owners(&batch.rows);
        let Some(first) = owners.first() else { return };
        if owners.iter().all(|owner| owner == first) {
            batch.target = *first;
            return send(batch);
        }
        for target in 0..self.peers {
            let rows: UInt32Array = (0_u32..).zip(&owners).filter(|(_, owner)| **owner == target).map(|(row, _)| row).collect();
            if rows.is_empty() {
                continue;
            }
            let diffs = batch.diffs.as_ref().map(|d| rows.values().iter().map(|r| d[*r as usize]).collect());
            let part = take_record_batch(&batch.rows, &rows).expect("the rows were counted");
            send(Batch { diffs, hold: batch.hold, target, ..Batch::new(&batch.kind, part, batch.origin) });
        }
    }

    /// The rows that a worker owns.
    fn own(&self, rows: &RecordBatch, worker: u32) -> RecordBatch {
        let owned: UInt32Array = (0_u32..).zip(self.owners(rows)).filter(|(_, owner)| *owner == worker).map(|(row, _)| row).collect();
        take_record_batch(rows, &owned).expect("the rows were counted")
    }

    /// The owner of each row: a hash of venue, market and symbol, the same in every process and version.
    fn owners(&self, rows: &RecordBatch) -> Vec<u32> {
        let mut hashes = vec![0_u64; rows.num_rows()];
        for column in ["venue", "market", "symbol"] {
            let Some(column) = rows.column_by_name(column).and_then(|c| c.as_any().downcast_ref::<DictionaryArray<Int32Type>>()) else {
                debug_assert!(false, "the rows have no instrument: {:?}", rows.schema());
                continue;
            };
            let labels: Vec<u64> =
                column.values().as_string::<i32>().iter().map(|l| XxHash64::oneshot(0, l.unwrap_or_default().as_bytes())).collect();
            for (row, hash) in hashes.iter_mut().enumerate() {
                let label = if column.is_valid(row) { labels[column.keys().value(row) as usize] } else { 0 };
                *hash = hash.rotate_left(23).wrapping_add(label).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            }
        }
        // The high bits are the well mixed ones.
        hashes.into_iter().map(|h| ((u128::from(h) * u128::from(self.peers)) >> 64) as u32).collect()
    }
}

/// Hands the messages of several inputs to one operator.
pub fn merge<'scope>(scope: timely::dataflow::Scope<'scope, Time>, inputs: Vec<Stream<'scope>>) -> Stream<'scope> {
    use timely::dataflow::operators::Concatenate;
    scope.concatenate(inputs)
}
