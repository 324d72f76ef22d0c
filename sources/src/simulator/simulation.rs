//! The frames of a market, in the order in which a client receives them, with faults and what is true of them.
//!
//! What the market publishes passes through here once, in order. A frame is sent as it is, or the fate of the
//! seed hits it. The truth is told from what was in fact sent: a gap when the frame that shows it went out, a
//! silence when it was broken, and nothing that the end of the simulation cut away. So a fault in the truth is
//! one that a detector could have seen, and a gap that it could have seen is in the truth whatever caused it (a
//! malformed trade is one that never came).

use arrow::array::RecordBatch;
use model::kinds::{Frame, FrameBuilder};
use model::time::{Micros, SECOND};

use super::book::Side;
use super::client::{Channel, Client, Crossing, Silence, Sync};
use super::faults::{Fate, Fault, Faults};
use super::listing::Listing;
use super::market::{Allow, Event, Market};
use super::truth::{self, Detail, Line, Truth};
use crate::SourceError;

/// What a simulation is made from.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The node's name, which frames carry.
    pub(super) source: String,
    pub(super) seed: u64,
    pub(super) instruments: u32,
    /// Number of frames, or endless.
    pub(super) frames: Option<u64>,
    /// Event time of the beginning.
    pub(super) start: Micros,
    /// Mean number of frames in a second of event time.
    pub(super) tempo: f64,
    pub(super) faults: Faults,
}

/// A frame on its way later than others.
#[derive(Debug)]
struct Held {
    due: Micros,
    instrument: usize,
    channel: Channel,
    event_time: Micros,
    /// The number of the last frame before it was held.
    after: u64,
    payload: Vec<u8>,
}

/// The time from the venue to the client: two milliseconds and up to half of one more.
const LATENCY: Micros = 2_000;

/// A running simulation.
#[derive(Debug)]
pub(super) struct Simulation {
    source: String,
    market: Market,
    fate: Fate,
    clients: Vec<Client>,
    /// Latest due first.
    held: Vec<Held>,
    truth: Truth,
    events: Vec<Event>,
    payload: Vec<u8>,
    rows: FrameBuilder,
    /// The number of the last frame sent, and of the last to be sent.
    frame: u64,
    limit: u64,
    /// When the client received its last frame.
    received: Micros,
}

impl Simulation {
    /// A simulation before its first frame.
    pub(super) fn new(plan: &Plan, truth: Truth) -> Self {
        Simulation {
            source: plan.source.clone(),
            market: Market::new(plan.seed, plan.instruments, plan.start, plan.tempo),
            fate: Fate::new(plan.seed, &plan.faults),
            clients: std::iter::repeat_with(Client::default).take(plan.instruments as usize).collect(),
            held: Vec::new(),
            truth,
            events: Vec::new(),
            payload: Vec::new(),
            rows: FrameBuilder::default(),
            frame: 0,
            limit: plan.frames.unwrap_or(u64::MAX),
            received: Micros::MIN,
        }
    }

    /// Number of the last frame sent.
    pub(super) fn frame(&self) -> u64 {
        self.frame
    }

    /// About `frames` frames more; none at the end.
    ///
    /// # Errors
    /// The truth file cannot be written.
    pub(super) fn next(&mut self, frames: usize) -> Result<RecordBatch, SourceError> {
        while self.rows.len() < frames && self.room() {
            self.turn();
        }
        if !self.room() {
            self.release(Micros::MAX);
        }
        self.truth.flush()?;
        Ok(self.rows.finish())
    }

    /// Tells what is still open, and completes the truth file.
    ///
    /// # Errors
    /// The truth file cannot be written.
    pub(super) fn finish(&mut self) -> Result<(), SourceError> {
        let now = self.market.now();
        for number in 0..self.clients.len() {
            if let Some(crossing) = self.clients[number].crossing.take() {
                self.tell_crossing(number, crossing, None);
            }
            for channel in Channel::ALL {
                if let Some(silence) = self.clients[number].channels[channel as usize].silence.take() {
                    let detail = Detail::Stale { until: None, seconds: seconds(now - silence.since) };
                    self.tell(Fault::StaleFeed, number, channel, None, silence.since, detail);
                }
            }
        }
        while let Some(held) = self.held.pop() {
            let detail = Detail::Disorder { overtaken_by: self.frame - held.after, delay_micros: now - held.event_time };
            self.tell(Fault::Disorder, held.instrument, held.channel, None, held.event_time, detail);
        }
        self.truth.finish()
    }

    /// Whether another frame may be sent or held.
    fn room(&self) -> bool {
        self.frame + (self.held.len() as u64) < self.limit
    }

    /// Somebody's turn: what arrives late, what the market does, and what clients ask for.
    fn turn(&mut self) {
        let number = self.market.next_turn();
        let now = self.market.now();
        self.release(now);
        if let Some(crossing) = self.clients[number].crossing {
            return self.turn_crossed(number, crossing);
        }
        self.answer(number);
        let silent = |channel: Channel| self.clients[number].channels[channel as usize].silence.is_some_and(|s| now < s.until);
        let allow = Allow {
            trade: !silent(Channel::Trade),
            quote: !silent(Channel::Quote),
            delta: !silent(Channel::Delta),
            mark: !silent(Channel::Mark),
        };
        let mut events = std::mem::take(&mut self.events);
        self.market.act(number, allow, &mut events);
        for event in events.drain(..) {
            self.deliver(number, event);
        }
        self.events = events;
        if std::mem::take(&mut self.clients[number].cross) && self.clients[number].can_cross() {
            self.cross(number);
        }
        self.ask(number);
    }

    /// Sends what the market published, unless fate hits it.
    fn deliver(&mut self, number: usize, mut event: Event) {
        let channel = Channel::of(&event);
        let reception = &mut self.clients[number].channels[channel as usize];
        if reception.losing > 0 {
            reception.losing -= 1;
            return;
        }
        match self.fate.draw().filter(|fault| self.clients[number].can_befall(*fault, channel, self.holds(number, channel))) {
            None => {
                self.pass(number, &event);
            }
            Some(Fault::SequenceGap) => {
                let most = if channel == Channel::Trade { 5 } else { 3 };
                let others = self.fate.dice().below(most) as u32;
                let reception = &mut self.clients[number].channels[channel as usize];
                reception.losing = others;
                reception.lost = Some("not_sent");
            }
            Some(Fault::Duplicate) => {
                if let Some(repeats) = self.pass(number, &event)
                    && self.room()
                {
                    let frame = self.send(number, false, 0);
                    self.tell(Fault::Duplicate, number, channel, Some(frame), self.market.now(), Detail::Duplicate { repeats });
                }
            }
            Some(Fault::Disorder) => self.hold(number, &event),
            Some(Fault::PriceSpike) => self.spike(number, &mut event),
            Some(Fault::CrossedBook) => {
                self.pass(number, &event);
                self.clients[number].cross = true;
            }
            Some(Fault::StaleFeed) => {
                if self.pass(number, &event).is_some() {
                    let since = self.market.now();
                    let until = since + self.fate.dice().between(60, 120) * SECOND;
                    self.clients[number].channels[channel as usize].silence = Some(Silence { since, until });
                }
            }
            Some(Fault::ClockSkew) => self.skew(number, &event),
            Some(Fault::Malformed) => self.damage(number, &event),
        }
    }

    /// Whether a frame of a channel is held back.
    fn holds(&self, number: usize, channel: Channel) -> bool {
        self.held.iter().any(|held| held.instrument == number && held.channel == channel)
    }

    /// Sends an event as it is.
    fn pass(&mut self, number: usize, event: &Event) -> Option<u64> {
        self.write(number, event)?;
        let frame = self.send(number, false, 0);
        self.arrived(number, event, frame);
        Some(frame)
    }

    /// Writes the frame of an event into `payload`, if one more may be sent.
    fn write(&mut self, number: usize, event: &Event) -> Option<()> {
        if matches!(event, Event::Delta(_)) {
            self.release_delta(number);
        }
        if !self.room() {
            return None;
        }
        let (instrument, time, out) = (self.market.instrument(number), self.market.now() / 1_000, &mut self.payload);
        let (listing, wire) = (&instrument.listing, instrument.listing.dialect.wire);
        out.clear();
        match event {
            Event::Trade(trade) => wire.trade(out, listing, time, trade),
            Event::Quote(quote) => wire.quote(out, listing, time, quote),
            Event::Delta(delta) => wire.delta(out, listing, time, delta, &instrument.book),
            Event::Mark(mark) => wire.mark(out, listing, time, mark),
        }
        Some(())
    }

    /// Sends `payload`, which was asked for or came by itself, received with this shift of the clock.
    fn send(&mut self, number: usize, asked: bool, shift: Micros) -> u64 {
        let listing = &self.market.instrument(number).listing;
        self.frame += 1;
        // Fibonacci hashing of the frame's number gives the latency its jitter.
        let jitter = (self.frame.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55) as Micros;
        self.received = self.received.max(self.market.now() + LATENCY + jitter);
        self.rows.push(Frame {
            source: &self.source,
            dialect: listing.dialect.name,
            receive_time: Some(self.received + shift),
            frame: self.frame as i64,
            connection: None,
            topic: asked.then_some(listing.code.as_str()),
            payload: &self.payload,
        });
        self.frame
    }

    /// What the client makes of an event that reached it whole, in a frame of this number.
    fn arrived(&mut self, number: usize, event: &Event, frame: u64) {
        let (channel, now) = (Channel::of(event), self.market.now());
        let reception = &mut self.clients[number].channels[channel as usize];
        if let Some(silence) = &mut reception.silence {
            if now < silence.until {
                // Published in the same turn as the last one: the silence begins after it.
                silence.since = now;
            } else {
                let detail = Detail::Stale { until: Some(model::time::display(now)), seconds: seconds(now - silence.since) };
                let since = silence.since;
                reception.silence = None;
                self.tell(Fault::StaleFeed, number, channel, Some(frame), since, detail);
            }
        }
        // The last number that should have come before it, and its own last one.
        let (previous, last) = match event {
            Event::Trade(trade) => (trade.id - 1, trade.id),
            Event::Delta(delta) => (delta.previous, delta.last),
            Event::Quote(_) | Event::Mark(_) => return,
        };
        let reception = &mut self.clients[number].channels[channel as usize];
        let first = reception.last + 1;
        reception.last = last;
        if let Some(cause) = reception.lost.take() {
            let detail = Detail::Gap { first_sequence: first, last_sequence: previous, cause };
            self.tell(Fault::SequenceGap, number, channel, Some(frame), now, detail);
            if channel == Channel::Delta {
                self.clients[number].sync = Sync::Gathering(1);
            }
        }
        if channel == Channel::Delta {
            let client = &mut self.clients[number];
            client.sync = match client.sync {
                Sync::Gathering(left) => Sync::Gathering(left.saturating_sub(1)),
                Sync::Spliced { number } if last > number => Sync::Live,
                other => other,
            };
        }
    }

    /// Asks for a snapshot when the client needs one. There are changes that no depth update holds yet, so one of
    /// the next updates bridges it.
    fn ask(&mut self, number: usize) {
        let instrument = self.market.instrument(number);
        let client = &mut self.clients[number];
        if client.sync == Sync::Gathering(0) && instrument.book.pending() {
            client.answer.clear();
            instrument.listing.dialect.wire.snapshot(&mut client.answer, &instrument.listing, self.market.now() / 1_000, &instrument.book);
            client.sync = Sync::Asked { number: instrument.book.number(), turns: self.frame as u8 % 8 };
        }
    }

    /// Brings the snapshot that was asked for, after its turns.
    fn answer(&mut self, number: usize) {
        match self.clients[number].sync {
            Sync::Asked { number: last, turns: 0 } if self.room() => {
                std::mem::swap(&mut self.payload, &mut self.clients[number].answer);
                self.send(number, true, 0);
                let bridged = self.clients[number].channels[Channel::Delta as usize].last > last;
                self.clients[number].sync = if bridged { Sync::Live } else { Sync::Spliced { number: last } };
            }
            Sync::Asked { number: last, turns } => self.clients[number].sync = Sync::Asked { number: last, turns: turns.saturating_sub(1) },
            _ => {}
        }
    }

    /// Keeps the frame of an event back for a while.
    fn hold(&mut self, number: usize, event: &Event) {
        if self.write(number, event).is_none() {
            return;
        }
        let (channel, now) = (Channel::of(event), self.market.now());
        let due = now + self.fate.dice().between(5, 500) * 1_000;
        let held = Held { due, instrument: number, channel, event_time: now, after: self.frame, payload: self.payload.clone() };
        let at = self.held.partition_point(|other| other.due >= due);
        self.held.insert(at, held);
        // It will reach the client, so nothing is missing without it.
        if let Event::Trade(trade) = event {
            self.clients[number].channels[channel as usize].last = trade.id;
        }
        if let Event::Delta(delta) = event {
            self.clients[number].channels[channel as usize].last = delta.last;
        }
    }

    /// Sends the held frames that are due.
    fn release(&mut self, now: Micros) {
        while self.held.last().is_some_and(|held| held.due <= now) {
            let held = self.held.pop().expect("there is a last one");
            self.send_held(held);
        }
    }

    /// Sends the held depth update of an instrument, before the next one.
    fn release_delta(&mut self, number: usize) {
        if let Some(at) = self.held.iter().position(|held| held.instrument == number && held.channel == Channel::Delta) {
            let held = self.held.remove(at);
            self.send_held(held);
        }
    }

    fn send_held(&mut self, held: Held) {
        self.payload.clear();
        self.payload.extend_from_slice(&held.payload);
        let overtaken_by = self.frame - held.after;
        let frame = self.send(held.instrument, false, 0);
        if overtaken_by > 0 {
            let detail = Detail::Disorder { overtaken_by, delay_micros: self.market.now() - held.event_time };
            self.tell(Fault::Disorder, held.instrument, held.channel, Some(frame), held.event_time, detail);
        }
    }

    /// Sends a trade with a price that is wrong.
    fn spike(&mut self, number: usize, event: &mut Event) {
        let Event::Trade(trade) = event else { unreachable!("only trades spike") };
        let true_price = trade.price;
        let dice = self.fate.dice();
        let away = dice.between(50, 200);
        let factor = if dice.one_in(2) { 1_000 + away } else { 1_000 - away };
        trade.price = (true_price * factor / 1_000).max(1);
        let price = trade.price;
        if let Some(frame) = self.pass(number, event) {
            let of = &self.market.instrument(number).listing;
            let detail =
                Detail::Spike { price: truth::price(of, price), true_price: truth::price(of, true_price), factor: truth::permille(factor) };
            self.tell(Fault::PriceSpike, number, Channel::Trade, Some(frame), self.market.now(), detail);
        }
    }

    /// Sends a frame with a wrong receive time.
    fn skew(&mut self, number: usize, event: &Event) {
        if self.write(number, event).is_none() {
            return;
        }
        let dice = self.fate.dice();
        let shift_micros = dice.between(100, 5_000) * if dice.one_in(2) { 1_000 } else { -1_000 };
        let frame = self.send(number, false, shift_micros);
        self.arrived(number, event, frame);
        self.tell(Fault::ClockSkew, number, Channel::of(event), Some(frame), self.market.now(), Detail::Skew { shift_micros });
    }

    /// Sends a frame of which the end cannot be read; something that every decoder needs is in it.
    fn damage(&mut self, number: usize, event: &Event) {
        if self.write(number, event).is_none() {
            return;
        }
        let dice = self.fate.dice();
        let from_byte = 1 + dice.below(self.payload.len() * 3 / 5);
        let form = if dice.one_in(2) {
            self.payload.truncate(from_byte);
            "cut"
        } else {
            self.payload[from_byte..].iter_mut().for_each(|byte| *byte |= 0x80);
            "garbled"
        };
        let frame = self.send(number, false, 0);
        let channel = Channel::of(event);
        if matches!(channel, Channel::Trade | Channel::Delta) {
            self.clients[number].channels[channel as usize].lost.get_or_insert("malformed");
        }
        self.tell(Fault::Malformed, number, channel, Some(frame), self.market.now(), Detail::Malformed { form, from_byte });
    }

    /// Crosses a book: a depth update and a quote say so.
    fn cross(&mut self, number: usize) {
        let mut events = std::mem::take(&mut self.events);
        self.market.cross(number, &mut events);
        let mut frames = [None; 2];
        for (frame, event) in frames.iter_mut().zip(events.drain(..)) {
            *frame = self.pass(number, &event);
        }
        self.events = events;
        let Some(frame) = frames[0] else { return };
        let (since, book) = (self.market.now(), &self.market.instrument(number).book);
        let until = since + self.fate.dice().between(50, 500) * 1_000;
        let (bid, ask) = (book.best(Side::Bid).price, book.best(Side::Ask).price);
        self.clients[number].crossing = Some(Crossing { since, until, frame, quote_frame: frames[1], number: book.number(), bid, ask });
    }

    /// The turn of an instrument whose book is crossed: it stays so, or is repaired.
    fn turn_crossed(&mut self, number: usize, crossing: Crossing) {
        let now = self.market.now();
        let mut events = std::mem::take(&mut self.events);
        if now < crossing.until {
            self.market.fidget(number, &mut events);
        } else {
            self.market.uncross(number, &mut events);
        }
        let mut repaired = None;
        for event in events.drain(..) {
            let frame = self.pass(number, &event);
            if matches!(event, Event::Delta(_)) {
                repaired = frame;
            }
        }
        self.events = events;
        if repaired.is_some() {
            self.clients[number].crossing = None;
            self.tell_crossing(number, crossing, Some(now));
        }
    }

    fn tell_crossing(&mut self, number: usize, crossing: Crossing, until: Option<Micros>) {
        let of = &self.market.instrument(number).listing;
        let detail = Detail::Crossed {
            until: until.map(model::time::display),
            bid: truth::price(of, crossing.bid),
            ask: truth::price(of, crossing.ask),
            first_sequence: crossing.number,
            quote_frame: crossing.quote_frame,
        };
        self.tell(Fault::CrossedBook, number, Channel::Delta, Some(crossing.frame), crossing.since, detail);
    }

    fn tell(&mut self, fault: Fault, number: usize, channel: Channel, frame: Option<u64>, event_time: Micros, detail: Detail) {
        let of: &Listing = &self.market.instrument(number).listing;
        self.truth.tell(&Line::new(fault, of, channel.kind(), frame, event_time, detail));
    }
}

fn seconds(micros: Micros) -> f64 {
    micros as f64 / SECOND as f64
}
