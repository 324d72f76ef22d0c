//! One run of a pipeline: find where it goes on, open, build, drive, end with books that balance.
//!
//! A pipeline has one process, or several that are one cluster of workers. The first of them [`run`]s it; the others
//! [`assist`]: they have neither sources nor sinks, but build the same dataflow, and rows go round.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use config::settings::Settings;
use crossbeam_channel::unbounded;
use model::dialect::MakeDialect;
use model::time::{Micros, Time};
use model::{Account, Message};
use operators::{Context, Keeper, Stream, dataflow};
use sinks::{OpenSink, SinkError, Writer};
use sources::dialect::Dialects;
use sources::{OpenSource, Reader, SourceError};
use storage::attempts::{Attempts, retry};
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::{AllocatorBuilder, Hooks, WorkerGuards};
use timely::dataflow::Scope;
use timely::dataflow::operators::probe::{Handle as Probe, Probe as _};
use timely::dataflow::operators::vec::Filter as _;
use timely::scheduling::SyncActivator;
use timely::worker::Worker;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::budget::Budget;
use crate::checkpoint::{Assisting, Checkpoints, Clock, Run, Store, Storing};
use crate::drain::{self, Drain};
use crate::feed::{self, Feed, Outlets};
use crate::journal::{Bound, JournalError};
use crate::mesh::{First, Mesh, Peers};
use crate::plan::Plan;
use crate::resume::{self, Choice, Resume, ResumeError, SourceResume};
use crate::summary::{self, Summary};

/// Bytes of source rows that may be between the sources and the sinks, per source.
const IN_FLIGHT: usize = 32 << 20;

/// Why a run did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A source could not be opened.
    #[error("source `{node}`: {error}")]
    Source {
        /// The node.
        node: String,
        /// Why.
        error: SourceError,
    },
    /// A sink could not be opened or written.
    #[error("sink `{node}`: {error}")]
    Sink {
        /// The node.
        node: String,
        /// Why.
        error: SinkError,
    },
    /// It cannot go on where it was.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A worker could not be started, or panicked.
    #[error("the workers failed: {0}; this is a bug, please report it")]
    Workers(String),
}

impl RunError {
    /// Whether the next run would end likewise unless somebody decides something.
    pub fn needs_a_decision(&self) -> bool {
        matches!(self, RunError::Resume(ResumeError::Changed { .. } | ResumeError::Stuck { .. })) || self.is_unfinished()
    }

    /// Whether only the pipeline as it was can finish what it had begun to commit.
    pub fn is_unfinished(&self) -> bool {
        matches!(self, RunError::Resume(ResumeError::Unfinished { .. }))
    }
}

/// How a run is stopped, and how far it has come.
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<Shown>);

#[derive(Debug, Default)]
struct Shown {
    drain: watch::Sender<bool>,
    open: AtomicBool,
    /// 0 before the first.
    checkpoint: AtomicI64,
}

impl Handle {
    /// Asks the run to drain: sources stop, everything in flight is committed.
    pub fn drain(&self) {
        self.0.drain.send_replace(true);
    }

    /// Whether it was asked to drain.
    pub fn is_draining(&self) -> bool {
        *self.0.drain.borrow()
    }

    /// Whether sources and sinks are open.
    pub fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Relaxed)
    }

    /// When the last checkpoint of the run became durable.
    pub fn checkpoint(&self) -> Option<Micros> {
        Some(self.0.checkpoint.load(Ordering::Relaxed)).filter(|taken| *taken != 0)
    }

    /// Tells of a checkpoint.
    pub(crate) fn checkpointed(&self, taken: Micros) {
        self.0.checkpoint.store(taken, Ordering::Relaxed);
    }
}

/// Runs a plan, from where it was, until its sources end or it is asked to stop, and returns its books. With a `mesh`,
/// this is the first of several processes.
///
/// # Errors
/// See [`RunError`]. Where rows were already flowing, the sinks have committed what was complete.
pub fn run(
    plan: Arc<Plan>,
    settings: &Arc<Settings>,
    handle: &Handle,
    choice: Choice,
    mut mesh: Option<Mesh>,
) -> Result<Summary, RunError> {
    let started = Instant::now();
    let runtime = runtime()?;
    let workers = settings.workers().max(1);
    let peers = mesh.as_mut().map(Peers::of).transpose().map_err(workers_failed)?.map(Arc::new);
    let finding = retry(waiting(&plan.account), choice.patience, || Resume::find(&plan, settings, choice));
    let mut resume = runtime.block_on(finding)?;
    if resume.ended {
        tracing::info!("pipeline `{}` has ended, and everything is stored; `--fresh` begins anew", plan.name);
        if let Some(peers) = &peers {
            peers.dismiss().map_err(workers_failed)?;
        }
        return Ok(Summary::of(&plan, started.elapsed(), false, &[]));
    }
    let clock = Arc::new(Clock::new(resume.next));
    let (settle, settled) = watch::channel(BTreeMap::new());
    let start = resume.start();
    let storing = keep_checkpoints(&plan, &mut resume, settings, &clock, peers.clone(), (settle, handle));
    let checkpoints = storing.as_ref().map(|storing| storing.checkpoints().clone());
    let barriers = storing.as_ref().map(|storing| storing.barriers().clone());
    let journal = resume.journal;
    let dialects = teach(&plan, choice.patience, &runtime)?;
    let writers = open_sinks(&plan, settings, choice.patience, &runtime)?;
    let readers = open_sources(&plan, &resume.sources, settings, choice.patience, &runtime)?;
    if let Some(peers) = &peers {
        peers.start(&start, checkpoints.as_ref()).map_err(workers_failed)?;
    }

    let failed = Arc::new(AtomicBool::new(false));
    let abandoned = Arc::new(AtomicBool::new(false));
    let budgets: Vec<Arc<Budget>> = plan.sources.iter().map(|_| Arc::new(Budget::new(IN_FLIGHT))).collect();

    // Sinks: a thread each.
    let mut outlets = Vec::new();
    let mut drains = Vec::new();
    for ((node, writer), resume) in plan.sinks.iter().zip(writers).zip(resume.sinks) {
        let (sender, events) = unbounded();
        let waiting = Arc::new(AtomicUsize::new(0));
        let pace = node.component.pace();
        outlets.push(Some(drain::Outlet {
            sender,
            waiting: waiting.clone(),
            limit: pace.bytes.saturating_mul(2),
            account: node.account.clone(),
            kinds: node.kinds.iter().map(|k| k.name.to_string()).collect(),
        }));
        let name = node.name.clone();
        let drain = Drain {
            name: name.clone(),
            writer,
            pace,
            events,
            waiting,
            workers,
            clocks: node.clocks.clone(),
            keeps: node.component.keeps(),
            resume,
            journal: journal.clone(),
            checkpoints: checkpoints.clone(),
            abandoned: abandoned.clone(),
            run: handle.clone(),
            account: node.account.clone(),
        };
        let on = runtime.handle().clone();
        let thread = std::thread::Builder::new().name(format!("sink {name}")).spawn(move || drain.run(&on));
        drains.push((name, thread.map_err(workers_failed)?));
    }

    // Workers: each builds the same dataflow and registers its activators.
    let mut inlets: Vec<Vec<feed::Inlet>> = (0..workers).map(|_| Vec::new()).collect();
    let mut senders = Vec::new();
    for _ in &plan.sources {
        let mut ends = Vec::new();
        for worker in &mut inlets {
            let (sender, receiver) = unbounded();
            ends.push(sender);
            worker.push(receiver);
        }
        senders.push(ends);
    }
    let activators = Arc::new(Activators::new(plan.sources.len(), workers));
    let shared = Shared {
        plan: plan.clone(),
        workers,
        process: 0,
        dialects,
        inlets,
        outlets,
        activators: activators.clone(),
        budgets: budgets.clone(),
        checkpoints: checkpoints.clone(),
    };
    let guards = execute(shared, mesh)?;

    // Sources: a thread each, once every worker can be woken and those of other processes have built the dataflow, too.
    if let Some(peers) = &peers {
        peers.wait_built();
    }
    handle.0.open.store(true, Ordering::Relaxed);
    let mut feeds = Vec::new();
    let opened = readers.into_iter().zip(resume.sources);
    for (((number, node), (reader, resume)), (senders, budget)) in
        (0_u32..).zip(&plan.sources).zip(opened).zip(senders.into_iter().zip(&budgets))
    {
        let spreads = peers.is_some().then_some(number as usize % senders.len());
        let outlets = Outlets::new(senders, activators.of(number as usize));
        let feed = Feed {
            source: number,
            name: node.name.clone(),
            account: node.account.clone(),
            reader,
            outlets,
            spreads,
            budget: budget.clone(),
            resume,
            clock: clock.clone(),
            journal: journal.clone(),
            barriers: barriers.clone(),
            settled: settled.clone(),
            stop: handle.0.drain.subscribe(),
            failed: failed.clone(),
            abandoned: abandoned.clone(),
        };
        let on = runtime.handle().clone();
        let thread = std::thread::Builder::new().name(format!("source {}", node.name)).spawn(move || on.block_on(feed.run()));
        feeds.push(thread.map_err(workers_failed)?);
    }

    // Checkpoints: a thread, once every stage has said that it has a state.
    let storing = storing.map(|storing: Storing| {
        let on = runtime.handle().clone();
        std::thread::Builder::new().name("checkpoints".into()).spawn(move || storing.run(&on))
    });
    let storing = storing.transpose().map_err(workers_failed)?;

    for feed in feeds {
        feed.join().map_err(|_| RunError::Workers("the thread of a source panicked".into()))?;
    }
    for result in guards.join() {
        result.map_err(RunError::Workers)?;
    }
    for (node, thread) in drains {
        let result = thread.join().map_err(|_| RunError::Workers(format!("the thread of sink `{node}` panicked")))?;
        result.map_err(|error| RunError::Sink { node, error })?;
    }
    let others = peers.as_ref().map(|peers| peers.wait_ended()).unwrap_or_default();
    checkpoints.iter().for_each(|checkpoints| checkpoints.done());
    if let Some(storing) = storing {
        storing.join().map_err(|_| RunError::Workers("the thread that stores checkpoints panicked".into()))?;
    }
    let stopped = handle.is_draining() || failed.load(Ordering::Relaxed);
    if let Some(journal) = journal {
        runtime.block_on(journal.close(!stopped))?;
    }
    if let Some(peers) = &peers {
        peers.done();
    }
    Ok(Summary::of(&plan, started.elapsed(), failed.load(Ordering::Relaxed), &others))
}

/// Computes for a plan that another process runs, until that one has committed everything.
///
/// # Errors
/// The checkpoint cannot be read, or the workers failed.
pub fn assist(plan: &Arc<Plan>, settings: &Arc<Settings>, handle: &Handle, mut mesh: Mesh) -> Result<(), RunError> {
    let runtime = runtime()?;
    let workers = settings.workers().max(1);
    let (mut first, start) = First::of(&mut mesh).map_err(workers_failed)?;
    let Some(start) = start else { return Ok(()) };
    let storing = if start.checkpoints {
        let store = Store::open(settings, &plan.name).map_err(ResumeError::from)?;
        let reading = || async { resume::states(&store, plan, &start).await.map_err(ResumeError::from) };
        let states = runtime.block_on(retry(waiting(&plan.account), None, reading))?;
        Some((store, states))
    } else {
        None
    };
    let assisting = storing.map(|(store, states)| Assisting::new((start.from, states), store));
    let checkpoints = assisting.as_ref().map(|assisting| assisting.checkpoints().clone());
    first.listen(checkpoints.clone()).map_err(workers_failed)?;
    let shared = Shared {
        plan: plan.clone(),
        workers,
        process: mesh.process,
        dialects: teach(plan, None, &runtime)?,
        inlets: (0..workers).map(|_| plan.sources.iter().map(|_| unbounded().1).collect()).collect(),
        outlets: plan.sinks.iter().map(|_| None).collect(),
        activators: Arc::new(Activators::new(plan.sources.len(), workers)),
        budgets: Vec::new(),
        checkpoints: checkpoints.clone(),
    };
    let activators = shared.activators.clone();
    let guards = execute(shared, Some(mesh))?;
    (0..plan.sources.len()).for_each(|source| drop(activators.of(source)));
    first.built();
    handle.0.open.store(true, Ordering::Relaxed);
    let first = Arc::new(first);
    let assisting = assisting.map(|assisting: Assisting| {
        let (on, first) = (runtime.handle().clone(), first.clone());
        std::thread::Builder::new().name("checkpoints".into()).spawn(move || assisting.run(&first, &on))
    });
    let assisting = assisting.transpose().map_err(workers_failed)?;
    for result in guards.join() {
        result.map_err(RunError::Workers)?;
    }
    checkpoints.iter().for_each(|checkpoints| checkpoints.done());
    if let Some(assisting) = assisting {
        assisting.join().map_err(|_| RunError::Workers("the thread that stores checkpoints panicked".into()))?;
    }
    first.end(summary::nodes(plan).into_iter().map(|node| node.totals).collect());
    Ok(())
}

fn runtime() -> Result<Runtime, RunError> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(workers_failed)
}

fn workers_failed(error: std::io::Error) -> RunError {
    RunError::Workers(error.to_string())
}

/// Starts the workers of this process, and connects them with those of the others.
fn execute(shared: Shared, mesh: Option<Mesh>) -> Result<WorkerGuards<()>, RunError> {
    let workers = shared.workers;
    let work = move |worker: &mut Worker| shared.work(worker);
    let Some(mesh) = mesh else {
        return timely::execute(timely::Config::process(workers), work).map_err(RunError::Workers);
    };
    let hooks = Hooks::default();
    let local = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), None);
    let connected = initialize_networking_from_sockets(local, mesh.dataflow, mesh.process, workers, hooks);
    let (builders, guard) = connected.map_err(workers_failed)?;
    let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
    timely::execute::execute_from(builders, Box::new(guard), timely::WorkerConfig::default(), work).map_err(RunError::Workers)
}

/// The dialects, knowing what the sources know of instruments.
fn teach(plan: &Plan, patience: Option<Duration>, runtime: &Runtime) -> Result<Arc<MakeDialect>, RunError> {
    let mut dialects = Dialects::default();
    for node in &plan.sources {
        let teaching = || async {
            let mut taught = dialects.clone();
            node.component.teach(&mut taught).await.map(|()| taught)
        };
        let taught = runtime.block_on(retry(waiting(&node.account), patience, teaching));
        dialects = taught.map_err(|error| RunError::Source { node: node.name.clone(), error })?;
    }
    Ok(Arc::new(move |name: &str| dialects.make(name)))
}

/// Attempts to open what a node or the pipeline needs.
fn waiting(account: &Arc<Account>) -> Attempts {
    Attempts::new(account, "what it opens", "opening")
}

fn open_sinks(
    plan: &Plan,
    settings: &Arc<Settings>,
    patience: Option<Duration>,
    runtime: &Runtime,
) -> Result<Vec<Box<dyn Writer>>, RunError> {
    let open = |node: &crate::plan::Node<dyn sinks::Sink>| {
        let cx = OpenSink {
            pipeline: plan.name.clone(),
            plan: plan.hash.clone(),
            node: node.name.clone(),
            shard: 0,
            kinds: node.kinds.clone(),
            settings: settings.clone(),
            account: node.account.clone(),
        };
        let opening = retry(waiting(&node.account), patience, || node.component.open(cx.clone()));
        runtime.block_on(opening).map_err(|error| RunError::Sink { node: node.name.clone(), error })
    };
    plan.sinks.iter().map(open).collect()
}

/// The thread that stores the checkpoints of a run, where there are to be any.
fn keep_checkpoints(
    plan: &Plan,
    resume: &mut Resume,
    settings: &Settings,
    clock: &Arc<Clock>,
    peers: Option<Arc<Peers>>,
    (settle, handle): (watch::Sender<BTreeMap<String, Bound>>, &Handle),
) -> Option<Storing> {
    let stores = resume.store.take().zip(resume.journal.clone())?;
    let run = Run {
        pipeline: plan.name.clone(),
        identity: resume.identity.clone(),
        workers: (settings.workers().max(1) * (1 + peers.as_ref().map_or(0, |peers| peers.count()))) as u32,
        sources: plan.sources.iter().map(|source| source.name.clone()).collect(),
        sinks: plan.sinks.len(),
        peers,
    };
    let restored = (resume.from, std::mem::take(&mut resume.states));
    Some(Storing::new(run, restored, clock.clone(), stores, settings.checkpoints.interval.0, (settle, handle.clone())))
}

fn open_sources(
    plan: &Plan,
    resumes: &[SourceResume],
    settings: &Arc<Settings>,
    patience: Option<Duration>,
    runtime: &Runtime,
) -> Result<Vec<Option<Box<dyn Reader>>>, RunError> {
    let open = |(node, resume): (&crate::plan::Node<dyn sources::Source>, &SourceResume)| {
        if resume.ended {
            return Ok(None);
        }
        let cx = OpenSource {
            pipeline: plan.name.clone(),
            node: node.name.clone(),
            from: resume.from.clone(),
            settings: settings.clone(),
            account: node.account.clone(),
        };
        let opening = retry(waiting(&node.account), patience, || node.component.open(cx.clone()));
        runtime.block_on(opening).map(Some).map_err(|error| RunError::Source { node: node.name.clone(), error })
    };
    plan.sources.iter().zip(resumes).map(open).collect()
}

/// What the workers share.
struct Shared {
    plan: Arc<Plan>,
    /// Number of workers in each process.
    workers: usize,
    process: usize,
    dialects: Arc<MakeDialect>,
    /// By worker, then source.
    inlets: Vec<Vec<feed::Inlet>>,
    /// By sink; `None` in a process that has none.
    outlets: Vec<Option<drain::Outlet>>,
    activators: Arc<Activators>,
    budgets: Vec<Arc<Budget>>,
    checkpoints: Option<Arc<Checkpoints>>,
}

impl Shared {
    /// Builds the dataflow and steps until nothing can come any more.
    fn work(&self, worker: &mut Worker) {
        let _lift = LiftOnPanic(&self.budgets);
        let probe = Probe::new();
        let index = worker.index() - self.process * self.workers;
        // All sources and sinks are in the first process.
        let is_alone = worker.peers() == self.workers;
        worker.dataflow::<Time, _, _>(|scope| {
            let plan = &self.plan;
            let mut streams: HashMap<&str, Stream<'_>> = HashMap::new();
            for (number, (node, inlet)) in plan.sources.iter().zip(&self.inlets[index]).enumerate() {
                let activators = self.activators.clone();
                let register = move |activator| activators.register(number, index, activator);
                let rows = feed::inlet(scope, &node.name, number as u32, inlet.clone(), register);
                streams.insert(&node.name, if is_alone { rows } else { feed::spread(rows) });
            }
            for node in &plan.operators {
                let cx = Context {
                    node: node.name.clone(),
                    account: node.account.clone(),
                    sources: node.clocks.clone(),
                    dialects: self.dialects.clone(),
                    keeper: self.checkpoints.clone().map(|checkpoints| checkpoints as Arc<dyn Keeper>),
                };
                let stream = node.component.build(gather(scope, &streams, &node.inputs), &cx);
                streams.insert(&node.name, stream);
            }
            for (node, outlet) in plan.sinks.iter().zip(&self.outlets) {
                let rows = gather(scope, &streams, &node.inputs);
                let rows = if is_alone { rows } else { drain::collect(rows, index) };
                drain::outlet(rows, &node.name, outlet.clone()).probe_with(&probe);
            }
            // A node that nothing reads still has to be waited for.
            for stream in streams.into_values() {
                stream.filter(|_: &Message| false).probe_with(&probe);
            }
        });
        while !probe.done() {
            worker.step_or_park(Some(Duration::from_millis(100)));
            let frontier = probe.with_frontier(|f| f.first().copied());
            for budget in &self.budgets {
                budget.release(frontier);
            }
        }
    }
}

/// A worker that panics takes no rows any more: sources must not wait for it.
struct LiftOnPanic<'a>(&'a [Arc<Budget>]);

impl Drop for LiftOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.iter().for_each(|budget| budget.lift());
        }
    }
}

/// The messages of all inputs of a node.
fn gather<'scope>(scope: Scope<'scope, Time>, streams: &HashMap<&str, Stream<'scope>>, inputs: &[String]) -> Stream<'scope> {
    dataflow::merge(scope, inputs.iter().map(|input| streams[input.as_str()].clone()).collect())
}

/// How the threads of sources wake the workers: known when every worker has built its dataflow.
struct Activators {
    slots: Mutex<Vec<Vec<Option<SyncActivator>>>>,
    complete: Condvar,
}

impl Activators {
    fn new(sources: usize, workers: usize) -> Self {
        Activators { slots: Mutex::new((0..sources).map(|_| (0..workers).map(|_| None).collect()).collect()), complete: Condvar::new() }
    }

    fn register(&self, source: usize, worker: usize, activator: SyncActivator) {
        self.slots.lock().expect("no holder panics")[source][worker] = Some(activator);
        self.complete.notify_all();
    }

    /// Waits until every worker can be woken for a source.
    fn of(&self, source: usize) -> Vec<SyncActivator> {
        let mut slots = self.slots.lock().expect("no holder panics");
        while slots[source].iter().any(Option::is_none) {
            slots = self.complete.wait(slots).expect("no holder panics");
        }
        slots[source].iter().flatten().cloned().collect()
    }
}
