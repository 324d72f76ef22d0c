//! The processes of one pipeline, connected with each other.
//!
//! The first process reads the sources, writes the sinks and the journal, and sets barriers; all of them compute. They
//! are one timely cluster, over a connection between any two; a further connection from each to the first carries [`Say`]s.
//!
//! Whoever connects says the nonce of its generation and gets an answer only if it is the right one, so that no process of an
//! earlier generation joins a later one. They live and die together: a process that loses another one, or has heard
//! nothing from it for 10 s, ends at once with the exit status [`PEER_GONE`], and their keeper starts all of them
//! anew.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use cluster::protocol::PEER_GONE;
use model::account::Totals;
use model::time::Time;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoints, StoredPart};

/// How long the processes may take to find each other.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a process says that it lives.
const PULSE: Duration = Duration::from_secs(1);
/// A process that has said nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);

/// What a process says when it connects to another one.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    nonce: String,
    process: usize,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Purpose {
    /// Rows and the progress of logical time.
    Dataflow,
    /// [`Say`]s.
    Control,
}

/// What the first process and the others say to each other, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Say {
    /// The first one: where the run goes on; `None` if there is nothing to do.
    Start(Option<Start>),
    /// The first one: a checkpoint begins.
    Barrier {
        /// Its barrier.
        barrier: Time,
        /// The barrier of the last checkpoint that is complete.
        complete: Time,
    },
    /// The first one: everything is committed.
    Done,
    /// Another one: its workers have built the dataflow.
    Built,
    /// Another one: its workers know of the barrier.
    Ready(Time),
    /// Another one: the states of its workers are stored.
    Stored {
        /// The barrier that they belong to.
        barrier: Time,
        /// The states, or why they are not.
        parts: Result<Vec<StoredPart>, String>,
    },
    /// Another one: its workers have ended. The books of its nodes, in the order of the plan.
    Ended(Vec<Totals>),
    /// Either: it lives.
    Pulse,
}

/// Where a run goes on, as the other processes need to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The barrier of the checkpoint that it goes on from, or 0.
    pub from: Time,
    /// The nodes whose states it takes over.
    pub nodes: Vec<String>,
    /// Whether there are to be checkpoints.
    pub checkpoints: bool,
}

/// The connections of a process.
#[derive(Debug)]
pub struct Mesh {
    /// Which process this is.
    pub process: usize,
    /// To every other process, for the dataflow; `None` at the place of this one.
    pub dataflow: Vec<Option<TcpStream>>,
    /// To every other process from the first one, to the first one from every other.
    control: Vec<TcpStream>,
}

impl Mesh {
    /// Connects this process with the others of its generation, whose addresses are given in order; `listener` listens on
    /// this one's.
    ///
    /// # Errors
    /// Not all of them could be reached in time.
    pub fn connect(listener: &TcpListener, addresses: &[String], process: usize, nonce: &str) -> io::Result<Mesh> {
        let deadline = Instant::now() + PATIENCE;
        let mut mesh = Mesh { process, dataflow: addresses.iter().map(|_| None).collect(), control: Vec::new() };
        for (other, address) in addresses.iter().enumerate().take(process) {
            let hello = |purpose| Hello { nonce: nonce.to_owned(), process, purpose };
            mesh.dataflow[other] = Some(introduce(address, &hello(Purpose::Dataflow), deadline)?);
            if other == 0 {
                mesh.control.push(introduce(address, &hello(Purpose::Control), deadline)?);
            }
        }
        let mut control: Vec<Option<TcpStream>> = addresses.iter().map(|_| None).collect();
        listener.set_nonblocking(true)?;
        let awaited = |places: &[Option<TcpStream>]| places.iter().enumerate().any(|(other, place)| other > process && place.is_none());
        while awaited(&mesh.dataflow) || process == 0 && awaited(&control) {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    left(deadline)?;
                    thread::sleep(Duration::from_millis(2));
                    continue;
                }
                Err(error) => return Err(error),
            };
            // A stranger, or a process of another generation, is not answered.
            let Ok((stream, hello)) = welcome(stream, nonce, deadline) else { continue };
            let places = if hello.purpose == Purpose::Control { &mut control } else { &mut mesh.dataflow };
            if let Some(place) = places.get_mut(hello.process).filter(|_| hello.process > process) {
                *place = Some(stream);
            }
        }
        mesh.control.extend(control.into_iter().flatten());
        end_with_peers();
        Ok(mesh)
    }

    /// The links that the first process has to the others, or another one to the first.
    fn links(&mut self) -> io::Result<Vec<(Arc<Link>, Listener)>> {
        let others = if self.process == 0 { 1.. } else { 0.. };
        self.control.drain(..).zip(others).map(|(stream, process)| Link::new(stream, process)).collect()
    }
}

/// The time that is left.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        let what = format!("the processes of the pipeline did not find each other within {} s", PATIENCE.as_secs());
        return Err(io::Error::new(ErrorKind::TimedOut, what));
    }
    Ok(left)
}

/// Connects to a process and waits for its answer.
fn introduce(address: &str, hello: &Hello, deadline: Instant) -> io::Result<TcpStream> {
    loop {
        let tried = TcpStream::connect(address).and_then(|mut stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(left(deadline)?))?;
            stream.write_all(format!("{}\n", serde_json::to_string(hello)?).as_bytes())?;
            read_line(&mut stream)?;
            stream.set_read_timeout(None)?;
            Ok(stream)
        });
        match tried {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                left(deadline).map_err(|late| io::Error::new(late.kind(), format!("{late}; {address}: {error}")))?;
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Takes in a process that has connected.
fn welcome(mut stream: TcpStream, nonce: &str, deadline: Instant) -> io::Result<(TcpStream, Hello)> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(left(deadline)?.min(Duration::from_secs(2))))?;
    let hello: Hello = serde_json::from_str(&read_line(&mut stream)?)?;
    if hello.nonce != nonce {
        return Err(io::Error::new(ErrorKind::PermissionDenied, "it is of another generation"));
    }
    stream.write_all(b"welcome\n")?;
    stream.set_read_timeout(None)?;
    Ok((stream, hello))
}

/// Reads a line and nothing behind it, which belongs to someone else.
fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 1_024 {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(String::from_utf8_lossy(&line).into_owned());
        }
        line.push(byte[0]);
    }
    Err(io::Error::new(ErrorKind::InvalidData, "the line has no end"))
}

/// Lets this process end when the dataflow loses a connection, which timely tells by a panic of one of its own threads.
fn end_with_peers() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if thread::current().name().is_some_and(|name| name.starts_with("timely:")) {
            gone("a connection of the dataflow", panic.payload_as_str().unwrap_or("it failed"));
        }
        before(panic);
    }));
}

/// Ends this process, because another one is gone.
fn gone(what: &str, why: &str) -> ! {
    drop(writeln!(io::stderr(), "error: {what} is gone: {why}; the processes of a pipeline end together"));
    std::process::exit(i32::from(PEER_GONE));
}

/// The end of a connection at which this process says something; as long as it is kept, this one says that it lives.
#[derive(Debug)]
struct Link {
    process: usize,
    writer: Mutex<TcpStream>,
}

/// The end of a connection at which this process listens.
#[derive(Debug)]
struct Listener {
    process: usize,
    reader: BufReader<TcpStream>,
}

impl Link {
    fn new(stream: TcpStream, process: usize) -> io::Result<(Arc<Link>, Listener)> {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let listener = Listener { process, reader: BufReader::new(stream.try_clone()?) };
        let link = Arc::new(Link { process, writer: Mutex::new(stream) });
        let pulse = Arc::downgrade(&link);
        thread::Builder::new().name("pulse".into()).spawn(move || {
            // Where it cannot be told, whoever listens notices; and at the end nobody needs to be told.
            while pulse.upgrade().is_some_and(|link| link.try_say(&Say::Pulse).is_ok()) {
                thread::sleep(PULSE);
            }
        })?;
        Ok((link, listener))
    }

    /// Says something. A process that cannot be told is gone.
    fn say(&self, say: &Say) {
        if let Err(error) = self.try_say(say) {
            gone(&format!("process {}", self.process), &error.to_string());
        }
    }

    fn try_say(&self, say: &Say) -> io::Result<()> {
        let mut line = serde_json::to_vec(say).expect("a say is JSON");
        line.push(b'\n');
        self.writer.lock().expect("no holder panics").write_all(&line)
    }
}

impl Listener {
    /// What the process says next.
    fn next(&mut self) -> Say {
        let mut line = String::new();
        let why = match self.reader.read_line(&mut line) {
            Ok(0) => "its connection is closed".to_owned(),
            Ok(_) => match serde_json::from_str(&line) {
                Ok(say) => return say,
                Err(error) => format!("it said something unknown: {error}"),
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                format!("it has said nothing for {} s", SILENCE.as_secs())
            }
            Err(error) => error.to_string(),
        };
        gone(&format!("process {}", self.process), &why)
    }

    /// Hands over what the process says, until `take` has heard the last of it.
    fn listen(mut self, mut take: impl FnMut(Say) -> bool + Send + 'static) -> io::Result<()> {
        let name = format!("process {}", self.process);
        thread::Builder::new().name(name).spawn(move || while take(self.next()) {}).map(drop)
    }
}

/// The other processes, as the first one sees them.
#[derive(Debug)]
pub struct Peers {
    links: Vec<Arc<Link>>,
    /// Until they are listened to.
    listeners: Mutex<Vec<Listener>>,
    heard: Arc<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    built: usize,
    /// By process: the last barrier that it knows of.
    ready: Vec<Time>,
    ended: Vec<Option<Vec<Totals>>>,
}

impl Heard {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no holder panics"));
        self.changed.notify_all();
    }

    fn wait(&self, is: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.state.lock().expect("no holder panics"), |state| !is(state)).expect("no holder panics")
    }
}

impl Peers {
    /// The other processes of a mesh.
    ///
    /// # Errors
    /// A connection cannot be used.
    pub fn of(mesh: &mut Mesh) -> io::Result<Peers> {
        let (links, listeners): (Vec<Arc<Link>>, Vec<Listener>) = mesh.links()?.into_iter().unzip();
        let heard = Heard::default();
        heard.change(|state| {
            state.ready = vec![0; links.len()];
            state.ended = vec![None; links.len()];
        });
        Ok(Peers { links, listeners: Mutex::new(listeners), heard: Arc::new(heard) })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.links.len()
    }

    /// Lets them start, and begins to listen to them. What they store goes to the checkpoints of the run.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(&self, start: &Start, checkpoints: Option<&Arc<Checkpoints>>) -> io::Result<()> {
        let listeners = std::mem::take(&mut *self.listeners.lock().expect("no holder panics"));
        for (index, (link, listener)) in self.links.iter().zip(listeners).enumerate() {
            link.say(&Say::Start(Some(start.clone())));
            let (heard, checkpoints) = (self.heard.clone(), checkpoints.cloned());
            listener.listen(move |say| {
                match say {
                    Say::Built => heard.change(|state| state.built += 1),
                    Say::Ready(barrier) => heard.change(|state| state.ready[index] = barrier),
                    Say::Stored { barrier, parts } => {
                        if let Some(checkpoints) = &checkpoints {
                            checkpoints.keep_peer(barrier, parts);
                        }
                    }
                    Say::Ended(books) => {
                        heard.change(|state| state.ended[index] = Some(books));
                        // From here on it waits for this process.
                        return false;
                    }
                    Say::Pulse | Say::Start(_) | Say::Barrier { .. } | Say::Done => {}
                }
                true
            })?;
        }
        Ok(())
    }

    /// Lets them end: there is nothing to do.
    ///
    /// # Errors
    /// One of them cannot be told.
    pub fn dismiss(&self) -> io::Result<()> {
        self.links.iter().try_for_each(|link| link.try_say(&Say::Start(None)))
    }

    /// Waits until their workers have built the dataflow.
    pub fn wait_built(&self) {
        drop(self.heard.wait(|state| state.built == self.links.len()));
    }

    /// Tells them of a barrier, and waits until all of their workers know, or have ended: then nothing can pass it.
    pub fn raise(&self, barrier: Time, complete: Time) {
        self.links.iter().for_each(|link| link.say(&Say::Barrier { barrier, complete }));
        let knows = |(ready, ended): (&Time, &Option<_>)| *ready >= barrier || ended.is_some();
        drop(self.heard.wait(|state| state.ready.iter().zip(&state.ended).all(knows)));
    }

    /// Waits until their workers have ended, and returns the books of each.
    pub fn wait_ended(&self) -> Vec<Vec<Totals>> {
        self.heard.wait(|state| state.ended.iter().all(Option::is_some)).ended.iter().flatten().cloned().collect()
    }

    /// Tells them that everything is committed. One that has not heard it ends all the same, when this process does.
    pub fn done(&self) {
        self.links.iter().for_each(|link| drop(link.try_say(&Say::Done)));
    }
}

/// The first process, as another one sees it.
#[derive(Debug)]
pub struct First {
    link: Arc<Link>,
    /// Until it is listened to.
    listener: Option<Listener>,
    heard: Arc<(Mutex<bool>, Condvar)>,
}

impl First {
    /// The first process of a mesh, and where the run goes on, once it knows; `None` if there is nothing to do.
    ///
    /// # Errors
    /// The connection cannot be used.
    pub fn of(mesh: &mut Mesh) -> io::Result<(First, Option<Start>)> {
        let (link, mut listener) = mesh.links()?.pop().expect("every process has a link to the first");
        loop {
            match listener.next() {
                Say::Start(start) => return Ok((First { link, listener: Some(listener), heard: Arc::default() }, start)),
                Say::Pulse => {}
                other => gone("process 0", &format!("it began with {other:?}")),
            }
        }
    }

    /// Begins to listen to it. Barriers go to the checkpoints of the run.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn listen(&mut self, checkpoints: Option<Arc<Checkpoints>>) -> io::Result<()> {
        let (link, heard) = (self.link.clone(), self.heard.clone());
        let Some(listener) = self.listener.take() else { return Ok(()) };
        listener.listen(move |say| {
            match say {
                Say::Barrier { barrier, complete } => {
                    if let Some(checkpoints) = &checkpoints {
                        checkpoints.set(barrier, complete);
                    }
                    link.say(&Say::Ready(barrier));
                }
                Say::Done => {
                    *heard.0.lock().expect("no holder panics") = true;
                    heard.1.notify_all();
                    return false;
                }
                _ => {}
            }
            true
        })
    }

    /// Tells that the workers of this process have built the dataflow.
    pub fn built(&self) {
        self.link.say(&Say::Built);
    }

    /// Tells that the states of this process are stored.
    pub fn stored(&self, barrier: Time, parts: Result<Vec<StoredPart>, String>) {
        self.link.say(&Say::Stored { barrier, parts });
    }

    /// Tells the books of this process, and waits until the first one has committed everything.
    pub fn end(&self, books: Vec<Totals>) {
        self.link.say(&Say::Ended(books));
        let done = self.heard.0.lock().expect("no holder panics");
        drop(self.heard.1.wait_while(done, |done| !*done).expect("no holder panics"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(count: usize) -> (Vec<TcpListener>, Vec<String>) {
        let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
        (listeners, addresses)
    }

    #[test]
    fn processes_of_one_generation_find_each_other_and_strangers_are_not_answered() {
        let (listeners, addresses) = listeners(3);
        let mut stranger = TcpStream::connect(&addresses[0]).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\n").unwrap();
        let mut earlier = TcpStream::connect(&addresses[0]).unwrap();
        let hello = Hello { nonce: "earlier".into(), process: 1, purpose: Purpose::Dataflow };
        earlier.write_all(format!("{}\n", serde_json::to_string(&hello).unwrap()).as_bytes()).unwrap();
        let meshes: Vec<Mesh> = thread::scope(|scope| {
            let threads: Vec<_> = listeners
                .iter()
                .enumerate()
                .map(|(process, listener)| {
                    scope.spawn({
                        let addresses = &addresses;
                        move || Mesh::connect(listener, addresses, process, "now").unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        for (process, mesh) in meshes.iter().enumerate() {
            let connected: Vec<bool> = mesh.dataflow.iter().map(Option::is_some).collect();
            assert_eq!(connected, (0..3).map(|other| other != process).collect::<Vec<_>>());
            assert_eq!(mesh.control.len(), if process == 0 { 2 } else { 1 });
        }
        assert_eq!(stranger.read(&mut [0; 8]).unwrap_or(0), 0, "a stranger was answered");
        assert_eq!(earlier.read(&mut [0; 8]).unwrap_or(0), 0, "a process of an earlier generation was answered");
    }
}
