//! Listening to some channels of a venue, for ever.
//!
//! A [`Shard`] holds one connection, and for a moment two: before the venue cuts an old one, another is opened, and until it has
//! taken over what comes twice is dropped by its bytes, so nothing is lost or doubled at the seam. Whatever else ends a
//! connection (it breaks, the venue closes it, it says nothing, a channel that used to speak is silent, a subscription is not
//! acknowledged), another one is opened, after longer and longer pauses, and the old one is closed before that.
//!
//! Every frame goes to the spool in the order in which it came, with the answers of what the [`Protocol`] orders to ask.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ahash::{HashMap, HashSet, RandomState};
use bytes::Bytes;
use config::values;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, SinkExt, StreamExt};
use model::{Account, time};
use storage::attempts::Attempts;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::tungstenite::{self, Message};

use super::connect::{Dialer, Socket};
use super::rest::{Rest, Unanswered};
use super::spool::{Batch, Heard};
use super::venue::{Ask, Channel, Market, Order, Protocol, Said, Tells, Venue};

/// Messages taken in before they go on to the spool.
const AT_ONCE: usize = 512;
/// How often it is looked whether all is well.
const LOOK: Duration = Duration::from_secs(1);
/// How long two connections hear the same.
const OVERLAP: Duration = Duration::from_secs(5);
/// How often a channel must have spoken before its silence means something.
const KNOWN: u32 = 32;
/// How many times its usual pause a channel is silent when it is taken for dead.
const UNUSUAL: f64 = 20.0;
/// The longest pause before something is asked for again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Some channels of a venue that share a connection.
pub(super) struct Shard {
    pub(super) name: String,
    pub(super) market: Market,
    pub(super) address: String,
    pub(super) venue: Arc<dyn Venue>,
    pub(super) channels: Vec<Channel>,
    pub(super) dialer: Arc<Dialer>,
    pub(super) rest: Rest,
    pub(super) out: mpsc::Sender<Batch>,
    pub(super) account: Arc<Account>,
    pub(super) patience: Patience,
}

/// How long what is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the acknowledgement of a subscription.
    pub(super) acknowledgement: Duration,
    /// For a channel that used to speak, at least.
    pub(super) channel: Duration,
    /// For a connection to end by itself.
    pub(super) lifetime: Duration,
    /// For any sign of life of a connection.
    pub(super) silence: Duration,
}

/// An open connection.
struct Line {
    socket: Socket,
    opened: Instant,
    /// When it last said anything.
    heard: Instant,
    /// Messages that are still to be sent, by their numbers.
    unsent: VecDeque<(u64, String)>,
    /// When the next one may be.
    next_message: Instant,
    /// Subscriptions that are not acknowledged, with the time by which they must be.
    unanswered: HashMap<u64, Instant>,
}

/// What has been learned of a channel.
#[derive(Clone, Copy, Debug)]
struct Habit {
    last: Instant,
    /// The mean pause between two frames, in seconds; newer ones count more.
    pause: f64,
    frames: u32,
    /// How often it was taken for dead since it last spoke.
    buried: u32,
}

/// An answer on its way.
type Asking = Pin<Box<dyn Future<Output = (usize, Ask<String>, u32, Result<Bytes, Unanswered>)> + Send>>;

/// What a shard knows while it listens.
struct Listening {
    protocol: Box<dyn Protocol>,
    habits: Vec<Habit>,
    asking: FuturesUnordered<Asking>,
    orders: Vec<Order>,
    batch: Batch,
    /// While two connections may say the same: what was said, by its hash, and until when.
    twice: Option<(Instant, HashSet<u64>)>,
    hasher: RandomState,
}

impl Shard {
    /// Listens until nobody wants to know any more. The protocol knows what an earlier run heard.
    pub(super) async fn run(self, protocol: Box<dyn Protocol>) {
        let mut attempts = Attempts::new(&self.account, self.address.clone(), self.name.as_str());
        let mut state = Listening {
            protocol,
            habits: vec![Habit { last: Instant::now(), pause: 0.0, frames: 0, buried: 0 }; self.channels.len()],
            asking: FuturesUnordered::new(),
            orders: Vec::new(),
            batch: Batch::default(),
            twice: None,
            hasher: RandomState::new(),
        };
        loop {
            let why = match self.open().await {
                Ok(line) => match self.listen(line, &mut state, &mut attempts).await {
                    Ok(()) => return,
                    Err(why) => why,
                },
                Err(why) => why,
            };
            sleep(attempts.failed(&why, "")).await;
        }
    }

    async fn open(&self) -> Result<Line, String> {
        let socket = self.dialer.open(&self.address).await?;
        let now = Instant::now();
        let messages = self.channels.chunks(self.market.limits.at_once).zip(1..);
        let unsent = messages.map(|(channels, number)| (number, self.venue.subscribe(channels, number))).collect();
        Ok(Line { socket, opened: now, heard: now, unsent, next_message: now, unanswered: HashMap::default() })
    }

    /// Listens to a connection and those that take its place, until one breaks. `Ok` where nobody wants to know any more.
    async fn listen(&self, line: Line, state: &mut Listening, attempts: &mut Attempts) -> Result<(), String> {
        let begun = Instant::now();
        for habit in &mut state.habits {
            habit.last = begun;
        }
        let mut lines = vec![line];
        let mut look = tokio::time::interval(LOOK);
        let mut opening: Option<Pin<Box<dyn Future<Output = Result<Line, String>> + Send + '_>>> = None;
        loop {
            let next_message = lines.iter().filter(|line| !line.unsent.is_empty()).map(|line| line.next_message).min();
            tokio::select! {
                (number, message) = next_of(&mut lines) => {
                    let mut broken = self.take(number, &mut lines, message, state);
                    // As much as is there, whatever the scheduler thinks.
                    for _ in 1..AT_ONCE {
                        if broken.is_err() { break }
                        let Some((number, message)) = tokio::task::unconstrained(next_of(&mut lines)).now_or_never() else { break };
                        broken = self.take(number, &mut lines, message, state);
                    }
                    if !self.hand_over(state).await { return Ok(()) }
                    if let Err((number, why)) = broken {
                        lines.remove(number);
                        if lines.is_empty() { return Err(why) }
                    }
                    if lines.iter().any(|line| line.is_up()) { attempts.succeeded() }
                }
                Some((channel, ask, failed, answer)) = state.asking.next() => {
                    self.answered(channel, ask, failed, answer, state);
                    if !self.hand_over(state).await { return Ok(()) }
                }
                opened = async { opening.as_mut().expect("it is asked for only while it is there").await }, if opening.is_some() => {
                    opening = None;
                    // Where there is none, the old one is kept, and another is opened a little later.
                    match opened {
                        Ok(line) => {
                            state.twice = Some((Instant::now() + LONGEST_PAUSE, HashSet::default()));
                            lines.push(line);
                        }
                        Err(why) => tracing::warn!(shard = self.name, "no connection to take the place of the old one: {why}"),
                    }
                }
                () = sleep_until(next_message.unwrap_or(begun)), if next_message.is_some() => {
                    for number in (0..lines.len()).rev() {
                        if let Err(why) = self.say(&mut lines[number]).await {
                            lines.remove(number);
                            if lines.is_empty() { return Err(why) }
                        }
                    }
                }
                _ = look.tick() => {
                    self.look(&mut lines, state)?;
                    let old = lines.len() == 1 && lines[0].opened.elapsed() > self.patience.lifetime;
                    if old && opening.is_none() {
                        opening = Some(Box::pin(self.open()));
                    }
                    if let [_, new] = &lines[..] && new.is_up() && new.opened.elapsed() > OVERLAP {
                        let mut old = lines.remove(0);
                        // It is closed either way; the venue is told where it still listens.
                        let _ = old.socket.close(None).await;
                        state.twice.iter_mut().for_each(|(until, _)| *until = Instant::now() + OVERLAP);
                        tracing::info!(shard = self.name, "a new connection has taken the place of the old one");
                    }
                }
            }
        }
    }

    /// Takes a message in. An error says which connection is over, and why.
    fn take(
        &self,
        number: usize,
        lines: &mut [Line],
        message: Option<Result<Message, tungstenite::Error>>,
        state: &mut Listening,
    ) -> Result<(), (usize, String)> {
        let line = &mut lines[number];
        let message = match message {
            None => return Err((number, "the connection was closed".into())),
            Some(Err(error)) => return Err((number, error.to_string())),
            Some(Ok(message)) => message,
        };
        line.heard = Instant::now();
        let payload = match &message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            Message::Close(frame) => {
                let why = frame.as_ref().map_or_else(String::new, |frame| format!(": {} {}", frame.code, frame.reason));
                return Err((number, format!("the venue closed the connection{why}")));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
        };
        if let Some((until, seen)) = &mut state.twice {
            if *until < line.heard {
                state.twice = None;
            } else if !seen.insert(state.hasher.hash_one(payload)) {
                return Ok(());
            }
        }
        match state.protocol.hear(payload, &mut state.orders) {
            Said::Data(channel) => state.habits[channel].note(line.heard),
            Said::Again => return Ok(()),
            Said::Subscribed(number) => {
                line.unanswered.remove(&number);
                return Ok(());
            }
            Said::Refused => tracing::error!(shard = self.name, "the venue refuses: {}", String::from_utf8_lossy(payload)),
            Said::Other => {}
        }
        self.keep("", payload, state);
        Ok(())
    }

    /// Keeps what was heard, and does what the protocol ordered about it.
    fn keep(&self, topic: &str, payload: &[u8], state: &mut Listening) {
        state.batch.push(Heard { receive_time: time::now(), dialect: self.market.dialect, topic, payload });
        for order in state.orders.drain(..) {
            self.obey(order, &state.asking);
        }
    }

    /// Gives what came to the spool; `false` where there is none any more.
    async fn hand_over(&self, state: &mut Listening) -> bool {
        state.batch.frames == 0 || self.out.send(std::mem::take(&mut state.batch)).await.is_ok()
    }

    fn obey(&self, order: Order, asking: &FuturesUnordered<Asking>) {
        match order {
            Order::Gap { channel, first, last } => {
                tracing::warn!(channel = self.channels[channel].name, "{first} to {last} are missing: they are asked for");
            }
            Order::Ask { channel, ask, failed } => {
                let rest = self.rest.clone();
                asking.push(Box::pin(async move {
                    if failed > 0 {
                        sleep(pause(failed)).await;
                    }
                    let answer = rest.ask(&ask).await;
                    (channel, ask, failed, answer)
                }));
            }
        }
    }

    fn answered(&self, channel: usize, ask: Ask<String>, failed: u32, answer: Result<Bytes, Unanswered>, state: &mut Listening) {
        match answer {
            Ok(payload) => {
                state.protocol.answer(channel, &ask, failed, &payload, &mut state.orders);
                self.keep(&ask.topic, &payload, state);
            }
            Err(Unanswered { what, transient }) => {
                if !transient && failed == 0 {
                    self.account.error(what.clone());
                }
                tracing::warn!(channel = self.channels[channel].name, failed, "{what}; asking again");
                let failed = if transient { failed.saturating_add(1) } else { u32::MAX };
                self.obey(Order::Ask { channel, ask, failed }, &state.asking);
            }
        }
    }

    /// Sends the next message that is due.
    async fn say(&self, line: &mut Line) -> Result<(), String> {
        if line.next_message > Instant::now() {
            return Ok(());
        }
        let Some((number, text)) = line.unsent.pop_front() else { return Ok(()) };
        line.socket.send(Message::text(text)).await.map_err(|error| error.to_string())?;
        let now = Instant::now();
        line.next_message = now + self.market.limits.message_pause;
        line.unanswered.insert(number, now + self.patience.acknowledgement);
        Ok(())
    }

    /// Looks whether anything has been silent for too long.
    fn look(&self, lines: &mut Vec<Line>, state: &mut Listening) -> Result<(), String> {
        let now = Instant::now();
        let mut why = None;
        lines.retain(|line| {
            if let Some(number) = line.unanswered.iter().find(|(_, by)| **by < now).map(|(number, _)| number) {
                why = Some(format!("subscription {number} was not acknowledged"));
            } else if now - line.heard > self.patience.silence {
                why = Some(format!("nothing was heard for {}", values::Duration(self.patience.silence)));
            } else {
                return true;
            }
            false
        });
        if lines.is_empty() {
            return Err(why.unwrap_or_default());
        }
        for (channel, habit) in self.channels.iter().zip(&mut state.habits) {
            let silence = now - habit.last;
            if channel.tells != Tells::Seldom && habit.frames >= KNOWN && silence > habit.limit(self.patience.channel) {
                habit.buried += 1;
                return Err(format!("channel {} says nothing for {:.1} s", channel.name, silence.as_secs_f64()));
            }
        }
        Ok(())
    }
}

impl Line {
    /// Whether every subscription is acknowledged.
    fn is_up(&self) -> bool {
        self.unsent.is_empty() && self.unanswered.is_empty()
    }
}

impl Habit {
    fn note(&mut self, now: Instant) {
        /// What a new pause counts.
        const NEW: f64 = 1.0 / 16.0;
        let pause = (now - self.last).as_secs_f64();
        self.pause = if self.frames < 2 { pause } else { self.pause + NEW * (pause - self.pause) };
        self.last = now;
        self.frames = self.frames.saturating_add(1);
        self.buried = 0;
    }

    /// How long it may be silent: longer each time that this was wrong.
    fn limit(&self, least: Duration) -> Duration {
        let usual = Duration::from_secs_f64((self.pause * UNUSUAL).min(86_400.0));
        usual.max(least).saturating_mul(1 << self.buried.min(10))
    }
}

/// How long to wait before something is asked for again.
fn pause(failed: u32) -> Duration {
    Duration::from_millis(250).saturating_mul(1 << failed.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

/// The next message of whichever connection has one, with the number of the connection; `None` where it has ended.
async fn next_of(lines: &mut [Line]) -> (usize, Option<Result<Message, tungstenite::Error>>) {
    std::future::poll_fn(|cx| {
        let ready = lines.iter_mut().enumerate().find_map(|(number, line)| match line.socket.poll_next_unpin(cx) {
            Poll::Ready(message) => Some((number, message)),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
