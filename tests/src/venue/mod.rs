//! A venue on loopback that plays a recording or a market made up, over real sockets, answers requests, and misbehaves on order.
//!
//! Promises, and why they hold: what was played is what a venue would have said since it began, to whoever listened at the time
//! and to nobody else: who connects late has missed it. Requests are answered, and subscriptions begun, from what has been played
//! so far, by books and lists of trades that the venue keeps itself, with nothing of the program's own code. A [`Fault`] happens
//! at an event of the recording, or at the first one behind it that somebody hears, and the recording waits for somebody to hear
//! it: so every run meets them all, however slow the machine.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

pub mod binance;
pub mod binance_options;
pub mod bybit;
pub mod coinbase;
pub mod deribit;
pub mod kraken;
pub mod market;
pub mod okx;

/// Something that a venue says over a channel.
#[derive(Clone, Debug)]
pub struct Event {
    /// The channel.
    pub channel: String,
    /// The frame.
    pub frame: String,
}

/// What a venue does when a client says something.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The channels that it is to hear from now on, each with the frames that it begins with.
    pub begins: Vec<(String, Vec<String>)>,
    /// The channels that it is not to hear any more.
    pub ends: Vec<String>,
    /// What acknowledges that.
    pub acknowledgements: Vec<String>,
    /// What it is told besides, at once.
    pub answers: Vec<String>,
}

/// How a venue speaks: what a recording is to it, and what it answers.
pub trait Speaks: Send + 'static {
    /// What it plays.
    fn events(&self) -> Vec<Event>;
    /// How many connections it takes to hear all of it.
    fn connections(&self) -> usize {
        1
    }
    /// One of so many things that happen there is a trade: fewer, where only the last trades can be asked for.
    fn one_in(&self) -> u64 {
        3
    }
    /// An event is played: the venue's books and lists are now behind it.
    fn played(&mut self, event: &Event);
    /// A client says something.
    fn said(&self, text: &str) -> Reply;
    /// The answer to a request.
    fn answer(&self, path: &str, query: &BTreeMap<String, String>) -> Option<String>;
    /// An answer for a book that is older than everything that was played.
    fn stale(&self, path: &str, query: &BTreeMap<String, String>) -> Option<String>;
    /// A frame as a connection sends it, so many behind the first one, where the venue numbers what it sends over a connection.
    fn numbered(&self, frame: &str, _number: u64) -> String {
        frame.to_owned()
    }
    /// An event with the checksum of another book, where it carries one.
    fn forged(&self, _event: &Event) -> Option<String> {
        None
    }
}

/// How a venue misbehaves towards those who listen to the channel of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The event is not sent.
    Lose,
    /// It is sent twice.
    Duplicate,
    /// It is sent behind the one after it.
    Reorder,
    /// It, and all behind it, is sent later.
    Delay(Duration),
    /// The connection is closed in good order.
    Close,
    /// It is cut.
    Reset,
    /// The venue sends nothing any more, and says so to the kernel alone.
    HalfClose,
    /// It sends nothing any more, and says nothing.
    Mute,
    /// A frame of no sense is sent before it.
    Garbage,
    /// Bytes that are no frame of a WebSocket are sent before it.
    Noise,
    /// A frame of 40 MB is sent before it.
    Oversize,
    /// Half of it is sent, and the connection is cut.
    Partial,
    /// Its checksum is that of another book, where it carries one.
    Forge,
}

/// How a venue acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledges {
    /// At once.
    Now,
    /// Later; what was subscribed to comes before.
    Late(Duration),
    /// Never.
    Never,
}

/// How a venue fails to answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Too many requests: it says when to ask again.
    TooMany(StatusCode, Duration),
    /// An error of its own.
    Broken,
    /// A book older than everything that was played.
    Stale,
}

/// What a venue is to do.
#[derive(Clone, Debug)]
pub struct Script {
    /// Events played in a millisecond.
    pub pace: u32,
    /// Faults by the number of the event that they happen at, or behind.
    pub faults: BTreeMap<usize, Fault>,
    /// How the first subscriptions are acknowledged; later ones are at once.
    pub acknowledges: VecDeque<Acknowledges>,
    /// How the first requests for a book are not answered; later ones are.
    pub answers: VecDeque<NoAnswer>,
}

impl Default for Script {
    fn default() -> Self {
        Script { pace: 4, faults: BTreeMap::new(), acknowledges: VecDeque::new(), answers: VecDeque::new() }
    }
}

/// What a venue has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Connections that were opened.
    pub connections: usize,
    /// Of those, how many are.
    pub open: usize,
    /// The most that were at once.
    pub most: usize,
    /// Faults that happened to anybody.
    pub faults: usize,
    /// Requests, with when each came.
    pub requests: Vec<(Instant, String)>,
    /// Times until which nobody was to ask.
    pub closed: Vec<(Instant, Instant)>,
    /// Whether everything is played.
    pub over: bool,
}

struct World {
    speaks: Box<dyn Speaks>,
    script: Script,
    seen: Seen,
    /// Events that were played.
    played: usize,
}

/// A venue on ports of its own. It ends when it is dropped.
pub struct Venue {
    world: Arc<Mutex<World>>,
    socket: SocketAddr,
    rest: SocketAddr,
    _runtime: Runtime,
}

/// How far a recording goes on beyond a fault that nobody has met.
const BEYOND: usize = 500;

/// The last events come slowly, so that a book that begins anew shortly before the end has changes that continue it.
const END: usize = 400;
/// One of them in so much time.
const SLOWLY: Duration = Duration::from_millis(5);

/// What connections are told: an event and its number.
type Told = (usize, Arc<Event>);

impl Venue {
    /// Opens a venue. It begins to play when something has been subscribed to over as many connections as it takes.
    ///
    /// # Panics
    /// There is no port.
    pub fn open(speaks: Box<dyn Speaks>, script: Script) -> Venue {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("there are threads");
        let world = Arc::new(Mutex::new(World { speaks, script, seen: Seen::default(), played: 0 }));
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let (sockets, requests) =
            runtime.block_on(async { (bind().await.expect("there is a port"), bind().await.expect("there is a port")) });
        let address = |listener: &TcpListener| listener.local_addr().expect("it is bound");
        let (socket, rest) = (address(&sockets), address(&requests));
        let (tell, _) = broadcast::channel(1 << 20);
        runtime.spawn(listen(sockets, world.clone(), tell.clone()));
        runtime.spawn(play(world.clone(), tell));
        let service = axum::Router::new().fallback(answer).with_state(world.clone());
        runtime.spawn(async move { axum::serve(requests, service).await });
        Venue { world, socket, rest, _runtime: runtime }
    }

    /// Where sockets connect to.
    pub fn url(&self) -> String {
        format!("ws://{}", self.socket)
    }

    /// Where requests go.
    pub fn rest_url(&self) -> String {
        format!("http://{}", self.rest)
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        lock(&self.world).seen.clone()
    }
}

impl World {
    /// What is to happen at an event. One that cannot be forged, or not yet, is passed over.
    fn next_fault(&mut self, number: usize, event: &Event, can_be_forged: bool) -> Option<Fault> {
        let first = self.script.faults.first_entry().filter(|first| *first.key() <= number)?;
        if *first.get() == Fault::Forge && !(can_be_forged && self.speaks.forged(event).is_some()) {
            return None;
        }
        self.seen.faults += 1;
        Some(first.remove())
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().expect("nobody panics with it")
}

/// Plays every event at its pace, to whoever listens.
async fn play(world: Arc<Mutex<World>>, tell: broadcast::Sender<Told>) {
    let (events, pace, connections) = {
        let world = lock(&world);
        (world.speaks.events(), world.script.pace as usize, world.speaks.connections())
    };
    while tell.receiver_count() < connections {
        sleep(Duration::from_millis(1)).await;
    }
    let begun = Instant::now();
    let end = events.len().saturating_sub(END);
    for (number, event) in events.into_iter().enumerate() {
        let due = begun + Duration::from_millis((number.min(end) / pace) as u64) + SLOWLY * number.saturating_sub(end) as u32;
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        let overdue = || lock(&world).script.faults.first_key_value().is_some_and(|(at, _)| at + BEYOND < number);
        while tell.receiver_count() == 0 && overdue() {
            sleep(Duration::from_millis(1)).await;
        }
        let mut world = lock(&world);
        world.speaks.played(&event);
        world.played = number + 1;
        // Where nobody listens nobody hears it.
        let _ = tell.send((number, Arc::new(event)));
    }
    lock(&world).seen.over = true;
}

async fn listen(listener: TcpListener, world: Arc<Mutex<World>>, tell: broadcast::Sender<Told>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (world, tell) = (world.clone(), tell.clone());
        tokio::spawn(async move {
            let Ok(socket) = accept_async(stream).await else { return };
            {
                let mut world = lock(&world);
                let seen = &mut world.seen;
                seen.connections += 1;
                seen.open += 1;
                seen.most = seen.most.max(seen.open);
            }
            // However it ends.
            let _ = talk(socket, &world, &tell).await;
            lock(&world).seen.open -= 1;
        });
    }
}

type Outcome = Result<(), tokio_tungstenite::tungstenite::Error>;

/// Serves a connection until it ends.
async fn talk(mut socket: WebSocketStream<TcpStream>, world: &Mutex<World>, tell: &broadcast::Sender<Told>) -> Outcome {
    let mut told = None::<broadcast::Receiver<Told>>;
    // The channels that are heard, each from an event on.
    let mut channels = HashMap::<String, usize>::new();
    // From which event on a channel was heard when something of it was forged last: until it is asked for anew, nobody listens.
    let mut forged = HashMap::<String, usize>::new();
    let mut late: Option<(Instant, Vec<String>)> = None;
    let mut held: Option<(String, String)> = None;
    let mut count = 0;
    let mut numbered = |frame: &str| {
        let frame = lock(world).speaks.numbered(frame, count);
        count += 1;
        frame
    };
    loop {
        tokio::select! {
            message = socket.next() => {
                let Some(message) = message else { return Ok(()) };
                let Message::Text(text) = message? else { continue };
                let (reply, how) = {
                    let mut world = lock(world);
                    let reply = world.speaks.said(&text);
                    for channel in &reply.ends {
                        channels.remove(channel);
                    }
                    for (channel, _) in &reply.begins {
                        channels.insert(channel.clone(), world.played);
                        told.get_or_insert_with(|| tell.subscribe());
                    }
                    let how = if reply.begins.is_empty() { None } else { world.script.acknowledges.pop_front() };
                    (reply, how.unwrap_or(Acknowledges::Now))
                };
                match how {
                    Acknowledges::Now => {
                        for acknowledgement in reply.acknowledgements {
                            socket.feed(Message::text(numbered(&acknowledgement))).await?;
                        }
                    }
                    Acknowledges::Late(after) => late = Some((Instant::now() + after, reply.acknowledgements)),
                    Acknowledges::Never => {}
                }
                for frame in reply.begins.iter().flat_map(|(_, frames)| frames).chain(&reply.answers) {
                    socket.feed(Message::text(numbered(frame))).await?;
                }
                socket.flush().await?;
            }
            () = tokio::time::sleep_until(late.as_ref().map_or_else(Instant::now, |(at, _)| *at)), if late.is_some() => {
                for acknowledgement in late.take().into_iter().flat_map(|(_, acknowledgements)| acknowledgements) {
                    socket.feed(Message::text(numbered(&acknowledgement))).await?;
                }
                socket.flush().await?;
            }
            event = async { told.as_mut().expect("it is asked for only when it is there").recv().await }, if told.is_some() => {
                let Ok((number, event)) = event else { return Ok(()) };
                let Some(from) = channels.get(&event.channel).filter(|from| **from <= number) else { continue };
                let fault = lock(world).next_fault(number, &event, forged.get(&event.channel) != Some(from));
                // One that is lost has a number, too.
                let frame = match fault {
                    Some(Fault::Forge) => {
                        forged.insert(event.channel.clone(), *from);
                        let frame = lock(world).speaks.forged(&event).expect("it can be forged");
                        numbered(&frame)
                    }
                    _ => numbered(&event.frame),
                };
                let text = Message::text(frame.clone());
                match fault {
                    None | Some(Fault::Forge) => socket.feed(text).await?,
                    Some(Fault::Lose) => {}
                    Some(Fault::Duplicate) => {
                        socket.feed(text.clone()).await?;
                        socket.feed(text).await?;
                    }
                    Some(Fault::Reorder) => {
                        held = Some((event.channel.clone(), frame));
                        continue;
                    }
                    Some(Fault::Delay(time)) => {
                        sleep(time).await;
                        socket.feed(text).await?;
                    }
                    Some(Fault::Close) => return socket.close(None).await,
                    Some(Fault::Reset) => return Ok(()),
                    Some(Fault::HalfClose) => {
                        socket.flush().await?;
                        socket.get_mut().shutdown().await?;
                        drop(told);
                        return mute(socket).await;
                    }
                    Some(Fault::Mute) => {
                        drop(told);
                        return mute(socket).await;
                    }
                    Some(Fault::Garbage) => {
                        socket.feed(Message::text("{\"stream\":\u{1F4A9}")).await?;
                        socket.feed(text).await?;
                    }
                    Some(Fault::Noise) => {
                        socket.flush().await?;
                        socket.get_mut().write_all(&[0xFF; 64]).await?;
                        drop(told);
                        return mute(socket).await;
                    }
                    Some(Fault::Oversize) => socket.send(Message::text("x".repeat(40 << 20))).await?,
                    Some(Fault::Partial) => {
                        socket.flush().await?;
                        let length = u16::try_from(frame.len()).unwrap_or(u16::MAX).to_be_bytes();
                        let mut bytes = vec![0x81, 126, length[0], length[1]];
                        bytes.extend_from_slice(&frame.as_bytes()[..frame.len() / 2]);
                        socket.get_mut().write_all(&bytes).await?;
                        return Ok(());
                    }
                }
                if let Some((_, held)) = held.take_if(|(channel, _)| *channel == event.channel) {
                    socket.feed(Message::text(held)).await?;
                }
                if told.as_ref().is_none_or(broadcast::Receiver::is_empty) {
                    socket.flush().await?;
                }
            }
        }
    }
}

/// Reads what a client says until it goes, and says nothing.
async fn mute(mut socket: WebSocketStream<TcpStream>) -> Outcome {
    let mut bytes = [0; 1024];
    loop {
        let read = tokio::io::AsyncReadExt::read(socket.get_mut(), &mut bytes).await;
        if !matches!(read, Ok(1..)) {
            return Ok(());
        }
    }
}

async fn answer(Shared(world): Shared<Arc<Mutex<World>>>, uri: Uri) -> Response {
    let mut world = lock(&world);
    let now = Instant::now();
    world.seen.requests.push((now, uri.to_string()));
    let query: BTreeMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let json = |body: String| ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    // What is asked once, when it is opened, is always answered.
    let fails = if world.speaks.stale(uri.path(), &query).is_some() { world.script.answers.pop_front() } else { None };
    match fails {
        Some(NoAnswer::TooMany(status, pause)) => {
            world.seen.closed.push((now, now + pause));
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(pause.as_secs()));
            (status, headers, "{\"code\":-1003,\"msg\":\"Too much request weight used\"}").into_response()
        }
        Some(NoAnswer::Broken) => (StatusCode::INTERNAL_SERVER_ERROR, "broken").into_response(),
        Some(NoAnswer::Stale) => json(world.speaks.stale(uri.path(), &query).expect("it was there a moment ago")),
        None => match world.speaks.answer(uri.path(), &query) {
            Some(body) => json(body),
            None => (StatusCode::BAD_REQUEST, "{\"code\":-1121,\"msg\":\"Invalid symbol.\"}").into_response(),
        },
    }
}
