//! What the client of each simulated instrument has received, and what can befall it next.
//!
//! A client behaves like a real one: it asks for a snapshot after its first depth updates and after every gap in
//! them, and the answer arrives some turns later. Until the book is live again its depth updates are left
//! alone, and so is whatever ends a gap or a silence: every fault can be told from the next.

use model::time::Micros;

use super::faults::Fault;
use super::market::Event;

/// What frames are about, per instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    Trade,
    Quote,
    Delta,
    Mark,
}

impl Channel {
    /// Every channel.
    pub(super) const ALL: [Channel; 4] = [Channel::Trade, Channel::Quote, Channel::Delta, Channel::Mark];

    pub(super) fn of(event: &Event) -> Self {
        match event {
            Event::Trade(_) => Channel::Trade,
            Event::Quote(_) => Channel::Quote,
            Event::Delta(_) => Channel::Delta,
            Event::Mark(_) => Channel::Mark,
        }
    }

    /// The kind of the records in it.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Channel::Trade => "trade",
            Channel::Quote => "quote",
            Channel::Delta => "book_delta",
            Channel::Mark => "mark_price",
        }
    }
}

/// A channel as its client has received it.
#[derive(Debug, Default)]
pub(super) struct Reception {
    /// The last trade id or update number received, 0 before the first.
    pub(super) last: i64,
    /// Whether and why frames are missing after `last`.
    pub(super) lost: Option<&'static str>,
    /// Frames that are still to be lost.
    pub(super) losing: u32,
    pub(super) silence: Option<Silence>,
}

/// A channel falls silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    /// Event time of the last frame before it.
    pub(super) since: Micros,
    pub(super) until: Micros,
}

/// A book that is crossed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crossing {
    pub(super) since: Micros,
    pub(super) until: Micros,
    pub(super) frame: u64,
    pub(super) quote_frame: Option<u64>,
    pub(super) number: i64,
    pub(super) bid: i64,
    pub(super) ask: i64,
}

/// How a client's book stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// Depth updates still to come before it asks for a snapshot.
    Gathering(u8),
    /// A snapshot that ends with this number arrives after some more turns.
    Asked {
        number: i64,
        turns: u8,
    },
    /// A snapshot that ends with this number has arrived, but no update that goes on from it.
    Spliced {
        number: i64,
    },
    Live,
}

/// What the client of an instrument has.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) channels: [Reception; 4],
    pub(super) sync: Sync,
    pub(super) answer: Vec<u8>,
    pub(super) crossing: Option<Crossing>,
    /// The book is to be crossed at the end of the turn.
    pub(super) cross: bool,
}

impl Default for Client {
    fn default() -> Self {
        Client { channels: Default::default(), sync: Sync::Gathering(2), answer: Vec::new(), crossing: None, cross: false }
    }
}

impl Client {
    /// Whether a fault can befall the next frame of a channel, of which frames are held back or not.
    pub(super) fn can_befall(&self, fault: Fault, channel: Channel, holds: bool) -> bool {
        let reception = &self.channels[channel as usize];
        if reception.silence.is_some() || (channel == Channel::Delta && self.sync != Sync::Live) {
            return false;
        }
        let numbered = matches!(channel, Channel::Trade | Channel::Delta);
        match fault {
            Fault::Malformed => !numbered || reception.last > 0,
            _ if reception.lost.is_some() => false,
            Fault::SequenceGap => numbered && reception.last > 0,
            // There is a trade to compare it with.
            Fault::PriceSpike => channel == Channel::Trade && reception.last > 0,
            Fault::CrossedBook => channel == Channel::Quote && self.can_cross(),
            // A frame that is held back would break the silence.
            Fault::StaleFeed => !self.cross && !holds,
            Fault::Duplicate | Fault::Disorder | Fault::ClockSkew => true,
        }
    }

    /// Whether the client sees the book whole, so that it would see it crossed.
    pub(super) fn can_cross(&self) -> bool {
        let whole = |channel: Channel| {
            let reception = &self.channels[channel as usize];
            reception.lost.is_none() && reception.silence.is_none()
        };
        self.sync == Sync::Live && whole(Channel::Delta) && whole(Channel::Quote)
    }
}
