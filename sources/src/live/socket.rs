//! Listening to some channels of a venue, for ever.
//!
//! A [`Shard`] holds one connection, and for a moment two: before the venue cuts an old one, another is opened, and until it has
//! taken over what comes twice is dropped, so nothing is lost or doubled at the seam: by its number or name where the
//! [`Protocol`] follows a channel, by its bytes elsewhere. Whatever else ends a
//! connection (it breaks, the venue closes it, it says nothing, a channel that used to speak is silent, a subscription is not
//! acknowledged), another one is opened, after longer and longer pauses, and the old one is closed before that.
//!
//! Every frame goes to the spool in the order in which it came, with the answers of what the [`Protocol`] orders to ask, and with
//! what is missing ([`gaps`](super::gaps)).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use ahash::{HashSet, RandomState};
use bytes::Bytes;
use config::values;
use futures::stream::FuturesUnordered;
use futures::{SinkExt, StreamExt};
use model::{Account, time};
use storage::attempts::Attempts;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::tungstenite::{self, Message};

use super::connect::{Dialer, Socket};
use super::gaps::{Gaps, Open, Teller};
use super::inbox::Sender;
use super::rest::{Rest, Unanswered};
use super::spool::{Batch, Heard};
use super::venue::{self, Ask, Channel, Filled, Market, Order, Over, Protocol, Said, Tells, Venue};
use crate::dialect::marketprism::What;

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
/// How often it is asked for what a hole lacks, which takes an hour where nobody answers.
const PERSISTENT: u32 = 64;
/// How long it takes until requests tell what a channel has told: before that, what is missing would be taken for lost.
const LAG: Duration = Duration::from_millis(500);
/// The longest pause before something is asked for again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Some channels of a venue that share a connection.
pub(super) struct Shard {
    pub(super) name: String,
    pub(super) market: Market,
    pub(super) address: String,
    pub(super) venue: Arc<dyn Venue>,
    pub(super) channels: Vec<Channel>,
    /// What the frames of each channel were asked for.
    pub(super) topics: Vec<String>,
    pub(super) dialer: Arc<Dialer>,
    pub(super) rest: Rest,
    pub(super) out: Sender,
    /// How many connections the source has opened.
    pub(super) connections: Arc<AtomicU32>,
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
    /// For a hole to be filled, before event time goes on.
    pub(super) fill: Duration,
}

/// An open connection.
struct Line {
    number: venue::Line,
    socket: Socket,
    opened: Instant,
    /// When it last said anything.
    heard: Instant,
    /// Messages that are still to be sent.
    unsent: VecDeque<Unsent>,
    /// When the next one may be.
    next_message: Instant,
    /// When it is told again that we are there.
    next_ping: Option<Instant>,
    /// The number of the next thing that is asked over it.
    next_request: u64,
    /// Subscriptions that are not acknowledged.
    unanswered: Vec<Subscription>,
    /// Whether the venue has refused anything.
    refused: bool,
}

/// A message that is to be sent.
struct Unsent {
    text: String,
    /// The subscription that it begins.
    subscribes: Option<Subscription>,
}

/// Channels that were subscribed to, and when that must be acknowledged.
struct Subscription {
    number: u64,
    channels: Vec<usize>,
    by: Instant,
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

/// Something that is asked for.
struct Asking {
    ask: Ask,
    /// How often it was asked for without success.
    failed: u32,
    purpose: Purpose,
}

/// Why it is asked for.
enum Purpose {
    /// The protocol ordered it, for a channel.
    Channel(usize),
    /// A hole is to be filled.
    Fill(Open),
}

/// An answer on its way.
type Answering = Pin<Box<dyn Future<Output = (Asking, Result<Bytes, Unanswered>)> + Send>>;

/// What a shard knows while it listens.
struct Listening {
    protocol: Box<dyn Protocol>,
    habits: Vec<Habit>,
    /// What is to be asked for.
    to_ask: Vec<Asking>,
    gaps: Gaps,
    orders: Vec<Order>,
    batch: Batch,
    /// While two connections may say the same: what was said, by its hash, and until when.
    twice: Option<(Instant, HashSet<u64>)>,
    hasher: RandomState,
}

impl Shard {
    /// Listens until nobody wants to know any more. The protocol knows what an earlier run heard, and `gaps` what it missed.
    pub(super) async fn run(self, protocol: Box<dyn Protocol>, gaps: Gaps) {
        let mut attempts = Attempts::new(&self.account, self.address.clone(), self.name.as_str());
        let mut state = Listening {
            protocol,
            habits: vec![Habit { last: Instant::now(), pause: 0.0, frames: 0, buried: 0 }; self.channels.len()],
            to_ask: Vec::new(),
            gaps,
            orders: Vec::new(),
            batch: Batch::default(),
            twice: None,
            hasher: RandomState::new(),
        };
        for open in state.gaps.resume(self.patience.fill) {
            self.fill(open, &mut state);
        }
        let mut answers = FuturesUnordered::new();
        loop {
            let why = match self.open().await {
                Ok(line) => {
                    let mut lines = vec![line];
                    match self.listen(&mut lines, &mut state, &mut answers, &mut attempts).await {
                        Ok(()) => return,
                        Err(why) => {
                            lines.iter().for_each(|line| self.ended(line, &mut state));
                            if !self.hand_over(&mut state).await {
                                return;
                            }
                            why
                        }
                    }
                }
                Err(why) => why,
            };
            sleep(attempts.failed(&why, "")).await;
        }
    }

    async fn open(&self) -> Result<Line, String> {
        let socket = self.dialer.open(&self.address).await?;
        let number = self.connections.fetch_add(1, Relaxed) + 1;
        let now = Instant::now();
        let mut line = Line {
            number,
            socket,
            opened: now,
            heard: now,
            unsent: self.venue.greeting(&self.market).into_iter().map(Unsent::plain).collect(),
            next_message: now,
            next_ping: self.market.limits.ping.map(|(every, _)| now + every),
            next_request: 1,
            unanswered: Vec::new(),
            refused: false,
        };
        let all: Vec<usize> = (0..self.channels.len()).collect();
        for channels in all.chunks(self.market.limits.at_once) {
            self.subscribe(channels.to_vec(), &mut line);
        }
        Ok(line)
    }

    /// Subscribes to channels.
    fn subscribe(&self, channels: Vec<usize>, line: &mut Line) {
        let number = line.number_request();
        let asked: Vec<Channel> = channels.iter().map(|channel| self.channels[*channel].clone()).collect();
        let before = line.unsent.len();
        line.unsent.extend(self.venue.subscribe(&self.market, &asked, number).into_iter().map(Unsent::plain));
        // Where it takes several messages, the first may be acknowledged before the last is sent.
        if let Some(first) = line.unsent.get_mut(before) {
            first.subscribes = Some(Subscription { number, channels, by: line.opened });
        }
    }

    /// Lets the protocol know that a connection is over.
    fn ended(&self, line: &Line, state: &mut Listening) {
        state.protocol.ended(line.number, &mut state.orders);
        self.obey(None, state);
    }

    /// Listens to a connection and those that take its place, until one breaks. `Ok` where nobody wants to know any more.
    async fn listen(
        &self,
        lines: &mut Vec<Line>,
        state: &mut Listening,
        answers: &mut FuturesUnordered<Answering>,
        attempts: &mut Attempts,
    ) -> Result<(), String> {
        let begun = Instant::now();
        for habit in &mut state.habits {
            habit.last = begun;
        }
        let mut look = tokio::time::interval(LOOK);
        let mut opening: Option<Pin<Box<dyn Future<Output = Result<Line, String>> + Send + '_>>> = None;
        loop {
            answers.extend(state.to_ask.drain(..).map(|asking| self.ask(asking)));
            if lines.iter().any(Line::is_up) {
                attempts.succeeded();
            }
            let next_message = lines.iter().filter(|line| !line.unsent.is_empty()).map(|line| line.next_message).min();
            tokio::select! {
                heard = poll_fn(|cx| self.hear(lines, state, cx)) => {
                    if !self.hand_over(state).await { return Ok(()) }
                    if let Err((number, why)) = heard {
                        // What an old one told of may be followed on the new one by now: if that breaks, all begins anew.
                        if number + 1 == lines.len() { return Err(why) }
                        self.ended(&lines.remove(number), state);
                    }
                }
                Some((asking, answer)) = answers.next() => {
                    self.answered(asking, answer, state);
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
                    for line in &mut *lines {
                        self.say(line).await?;
                    }
                }
                _ = look.tick() => {
                    self.look(lines, state)?;
                    if !self.hand_over(state).await { return Ok(()) }
                    let old = lines.len() == 1 && lines[0].opened.elapsed() > self.patience.lifetime;
                    if old && opening.is_none() {
                        opening = Some(Box::pin(self.open()));
                    }
                    if let [_, new] = &lines[..] && new.is_up() && new.opened.elapsed() > OVERLAP {
                        let mut old = lines.remove(0);
                        // It is closed either way; the venue is told where it still listens.
                        let _ = old.socket.close(None).await;
                        self.ended(&old, state);
                        state.twice.iter_mut().for_each(|(until, _)| *until = Instant::now() + OVERLAP);
                        tracing::info!(shard = self.name, "a new connection has taken the place of the old one");
                    }
                }
            }
        }
    }

    /// Takes in what has come over all connections and hands it over. Ready where that leaves something to do: there is no room for it,
    /// something is to be said or asked, or a connection is up or over; an error says which one, and why.
    fn hear(&self, lines: &mut [Line], state: &mut Listening, cx: &mut Context<'_>) -> Poll<Result<(), (usize, String)>> {
        let was_up = lines.iter().all(Line::is_up);
        for taken in 0..AT_ONCE {
            let next = lines.iter_mut().enumerate().find_map(|(number, line)| match line.socket.poll_next_unpin(cx) {
                Poll::Ready(message) => Some((number, message)),
                Poll::Pending => None,
            });
            let Some((number, message)) = next else {
                let as_usual = was_up && lines.iter().all(Line::is_up) && state.to_ask.is_empty();
                let waits = taken == 0 || (as_usual && (state.batch.frames == 0 || self.out.offer(&mut state.batch) == Some(true)));
                return if waits { Poll::Pending } else { Poll::Ready(Ok(())) };
            };
            if let Err(over) = self.take(number, lines, message, state) {
                return Poll::Ready(Err(over));
            }
        }
        Poll::Ready(Ok(()))
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
        let said = state.protocol.hear(Over { line: line.number, beside: number > 0 }, payload, &mut state.orders);
        // What nobody follows is known by its bytes.
        let by_bytes = match &said {
            Said::Data(channel) => !matches!(self.channels[*channel].tells, Tells::Trades | Tells::Book),
            Said::Other | Said::Refused => true,
            Said::Part(..) | Said::Nothing | Said::Subscribed(_) | Said::Partly(..) | Said::Listening(_) => false,
        };
        if let Some((until, seen)) = &mut state.twice
            && by_bytes
        {
            if *until < line.heard {
                state.twice = None;
            } else if !seen.insert(state.hasher.hash_one(payload)) {
                return Ok(());
            }
        }
        let (mut kept, mut topic) = (Some(Cow::Borrowed(payload)), "");
        match said {
            Said::Data(channel) => {
                state.habits[channel].note(line.heard);
                topic = &self.topics[channel];
            }
            Said::Part(channel, part) => {
                state.habits[channel].note(line.heard);
                topic = &self.topics[channel];
                kept = Some(Cow::Owned(part));
            }
            Said::Nothing => kept = None,
            Said::Subscribed(number) => {
                line.unanswered.retain(|subscription| subscription.number != number);
                kept = None;
            }
            Said::Partly(number, there) => {
                let answered = line.unanswered.extract_if(.., |subscription| subscription.number == number);
                let asked = answered.flat_map(|subscription| subscription.channels);
                asked.filter(|channel| !there.contains(channel)).for_each(|channel| self.refused(channel));
                kept = None;
            }
            Said::Listening(channels) => {
                line.unanswered.iter_mut().for_each(|subscription| subscription.channels.retain(|channel| !channels.contains(channel)));
                line.unanswered.retain(|subscription| !subscription.channels.is_empty());
                kept = None;
            }
            Said::Refused => {
                line.refused = true;
                let words = String::from_utf8_lossy(payload);
                self.account.error(format!("{}: the venue refuses: {words}", self.name));
                tracing::error!(shard = self.name, "the venue refuses: {words}");
            }
            Said::Other => {}
        }
        // A hole is told before what lies behind it.
        self.obey(Some(line), state);
        if let Some(payload) = kept {
            self.keep(line.number, topic, &payload, state);
        }
        Ok(())
    }

    /// Keeps a frame that came over a connection, 0 for none.
    fn keep(&self, connection: venue::Line, topic: &str, payload: &[u8], state: &mut Listening) {
        state.batch.push(Heard { receive_time: time::now(), connection, dialect: self.market.dialect, topic, payload });
    }

    /// Gives what came to the spool; `false` where there is none any more.
    async fn hand_over(&self, state: &mut Listening) -> bool {
        state.batch.frames == 0 || self.out.send(&mut state.batch).await
    }

    /// Does what the protocol ordered about what was heard over a connection, or about an answer.
    fn obey(&self, mut line: Option<&mut Line>, state: &mut Listening) {
        for order in std::mem::take(&mut state.orders) {
            match order {
                Order::Ask { channel, ask, failed } => state.to_ask.push(Asking { ask, failed, purpose: Purpose::Channel(channel) }),
                Order::Resubscribe { channel } => {
                    // A subscription that is still to be sent will do.
                    if let Some(line) = &mut line
                        && !line.is_to_subscribe(channel)
                    {
                        let number = line.number_request();
                        line.unsent.push_back(Unsent::plain(self.venue.unsubscribe(&self.market, &self.channels[channel], number)));
                        self.subscribe(vec![channel], line);
                    }
                }
                Order::Say(text) => {
                    if let Some(line) = &mut line {
                        line.unsent.push_front(Unsent::plain(text));
                    }
                }
                Order::Gap { channel, hole } => {
                    let name = &self.channels[channel].name;
                    match hole.numbers {
                        Some((first, last)) => tracing::warn!(channel = name, "{first} to {last} are missing"),
                        None => tracing::warn!(channel = name, "some may be missing"),
                    }
                    self.teller().tell(What::Found, channel, &hole, None, &mut state.batch);
                    if self.channels[channel].tells == Tells::Trades {
                        let open = state.gaps.open(channel, hole, self.patience.fill);
                        self.fill(open, state);
                    }
                }
            }
        }
    }

    fn teller(&self) -> Teller<'_> {
        Teller { venue: self.venue.name(), market: &self.market, channels: &self.channels }
    }

    /// Asks for what a hole still lacks.
    fn fill(&self, open: Open, state: &mut Listening) {
        match state.protocol.fill(open.channel, &open.rest) {
            Some(ask) => state.to_ask.push(Asking { ask, failed: 0, purpose: Purpose::Fill(open) }),
            None => self.close(&open, Some("the venue does not tell it again"), state),
        }
    }

    /// A hole is filled, or `why` it cannot be.
    fn close(&self, open: &Open, why: Option<&str>, state: &mut Listening) {
        let what = if why.is_none() { What::Filled } else { What::Lost };
        self.teller().tell(what, open.channel, &open.hole, why, &mut state.batch);
        state.gaps.close(open);
    }

    fn ask(&self, asking: Asking) -> Answering {
        let rest = self.rest.clone();
        Box::pin(async move {
            match &asking.purpose {
                Purpose::Fill(open) if asking.failed == 0 && open.rest == open.hole => sleep(LAG).await,
                _ if asking.failed > 0 => sleep(pause(asking.failed)).await,
                _ => {}
            }
            let answer = rest.ask(&asking.ask).await;
            (asking, answer)
        })
    }

    fn answered(&self, mut asking: Asking, answer: Result<Bytes, Unanswered>, state: &mut Listening) {
        match (answer, &mut asking.purpose) {
            (Ok(payload), Purpose::Channel(channel)) => {
                state.protocol.answer(*channel, &asking.ask, asking.failed, &payload, &mut state.orders);
                self.keep(0, &asking.ask.topic, &payload, state);
                self.obey(None, state);
            }
            (Ok(payload), Purpose::Fill(open)) => {
                let Filled { kept, rest, whole } = state.protocol.filled(open.channel, &open.rest, &payload);
                if !kept.is_empty() {
                    self.keep(0, &asking.ask.topic, &kept, state);
                }
                open.whole &= whole;
                match rest {
                    Some(rest) => {
                        open.rest = rest;
                        self.teller().tell(What::Filling, open.channel, &rest, None, &mut state.batch);
                        self.fill(open.clone(), state);
                    }
                    None => self.close(open, (!open.whole).then_some("the venue does not have all of it"), state),
                }
            }
            (Err(Unanswered { what, transient }), Purpose::Fill(open)) if !transient || asking.failed == PERSISTENT => {
                self.account.error(what.clone());
                tracing::error!(channel = self.channels[open.channel].name, "{what}; what is missing is lost");
                self.close(open, Some(&what), state);
            }
            (Err(Unanswered { what, transient }), Purpose::Channel(channel) | Purpose::Fill(Open { channel, .. })) => {
                if !transient && asking.failed == 0 {
                    self.account.error(what.clone());
                }
                tracing::warn!(channel = self.channels[*channel].name, failed = asking.failed, "{what}; asking again");
                asking.failed = if transient { asking.failed.saturating_add(1) } else { u32::MAX };
                state.to_ask.push(asking);
            }
        }
    }

    /// Sends the next message that is due.
    async fn say(&self, line: &mut Line) -> Result<(), String> {
        if line.next_message > Instant::now() {
            return Ok(());
        }
        let Some(Unsent { text, subscribes }) = line.unsent.pop_front() else { return Ok(()) };
        let message = if text.is_empty() { Message::Ping(Bytes::new()) } else { Message::text(text) };
        line.socket.send(message).await.map_err(|error| error.to_string())?;
        let now = Instant::now();
        line.next_message = now + self.market.limits.message_pause;
        line.unanswered.extend(subscribes.map(|subscription| Subscription { by: now + self.patience.acknowledgement, ..subscription }));
        Ok(())
    }

    /// Finds out what a venue has refused over a connection, and does without it until the next one: what is not there any more is not
    /// to take with it what is. Who was refused several channels at once asks for each.
    fn do_without(&self, line: &mut Line, now: Instant) {
        for Subscription { channels, .. } in line.unanswered.extract_if(.., |subscription| subscription.by < now).collect::<Vec<_>>() {
            match channels[..] {
                [channel] => self.refused(channel),
                _ => channels.into_iter().for_each(|channel| self.subscribe(vec![channel], line)),
            }
        }
    }

    /// Says that a channel is done without.
    fn refused(&self, channel: usize) {
        let name = &self.channels[channel].name;
        self.account.error(format!("{}: the venue refuses {name}", self.name));
        tracing::error!(shard = self.name, "the venue refuses {name}: it is not listened to over this connection");
    }

    /// Looks whether anything has been silent for too long.
    fn look(&self, lines: &mut Vec<Line>, state: &mut Listening) -> Result<(), String> {
        let now = Instant::now();
        for line in lines.iter_mut() {
            if let (Some(next), Some((every, text))) = (&mut line.next_ping, self.market.limits.ping)
                && *next <= now
            {
                *next = now + every;
                line.unsent.push_back(Unsent::plain(text.into()));
            }
        }
        for open in state.gaps.overdue() {
            self.teller().tell(What::Overdue, open.channel, &open.hole, None, &mut state.batch);
        }
        for line in lines.iter_mut().filter(|line| line.refused) {
            self.do_without(line, now);
        }
        let mut why = None;
        let over = lines.extract_if(.., |line| {
            if let Some(late) = line.unanswered.iter().find(|subscription| subscription.by < now) {
                why = Some(format!("subscription {} was not acknowledged", late.number));
            } else if now - line.heard > self.patience.silence {
                why = Some(format!("nothing was heard for {}", values::Duration(self.patience.silence)));
            } else {
                return false;
            }
            true
        });
        over.for_each(|line| self.ended(&line, state));
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

impl Unsent {
    fn plain(text: String) -> Unsent {
        Unsent { text, subscribes: None }
    }
}

impl Line {
    fn number_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request - 1
    }

    /// Whether a subscription to a channel is still to be sent.
    fn is_to_subscribe(&self, channel: usize) -> bool {
        self.unsent.iter().filter_map(|unsent| unsent.subscribes.as_ref()).any(|subscription| subscription.channels.contains(&channel))
    }

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
