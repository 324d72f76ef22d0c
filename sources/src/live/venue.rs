//! What a venue is to whoever listens to it: facts and rules, and no I/O.
//!
//! A [`Venue`] says which channels tell of an instrument what is wanted, how they are subscribed to, and what has to be asked
//! for because no channel tells it. A [`Protocol`], one for each connection, hears every frame before it is stored and orders
//! what has to be done about it: a snapshot for a book that begins or has a hole, trades that are missing, an answer to a
//! heartbeat. It decodes nothing: that is the dialect's work, later and from the same bytes.

use std::fmt;
use std::time::Duration;

use model::instrument::Listing;

/// A market of a venue: a protocol with addresses and limits of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Market {
    /// As pipeline files name it.
    pub(super) name: &'static str,
    /// The dialect of its frames.
    pub(super) dialect: &'static str,
    /// Where sockets connect to.
    pub(super) socket: &'static str,
    /// Where requests go.
    pub(super) rest: &'static str,
    /// What is asked for the listing of its instruments.
    pub(super) listing: Ask,
    /// What the venue allows.
    pub(super) limits: Limits,
}

/// What a venue allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Channels of a connection.
    pub(super) channels: usize,
    /// Channels that one message subscribes to.
    pub(super) at_once: usize,
    /// Between two messages that we send over a connection.
    pub(super) message_pause: Duration,
    /// Between two connections that are opened.
    pub(super) connect_pause: Duration,
    /// How long a connection is used before another takes its place, shortly before the venue would cut it.
    pub(super) lifetime: Duration,
    /// The longest that a connection says nothing at all, not even a ping.
    pub(super) silence: Duration,
    /// What all requests of a minute may weigh.
    pub(super) weight: u32,
}

/// What a user can want of a venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Every trade: `trade`.
    Trade,
    /// The whole book, kept: `book_delta` and `book_snapshot`.
    Book,
    /// Best bid and ask: `quote`.
    Quote,
    /// `funding_rate`.
    FundingRate,
    /// `mark_price`.
    MarkPrice,
    /// `index_price`.
    IndexPrice,
    /// `open_interest`.
    OpenInterest,
    /// `liquidation`.
    Liquidation,
    /// `long_short_ratio`: of accounts and positions, of top traders and of all.
    LongShortRatio,
}

impl Wanted {
    /// How many there are.
    pub(super) const ALL: usize = Wanted::LongShortRatio as usize + 1;
}

/// An instrument of a market, with the venue's own symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instrument {
    /// The venue's symbol, as its listing has it.
    pub(super) symbol: Box<str>,
    /// What it stands for.
    pub(super) listing: Listing,
}

/// What a channel tells, as far as it has to be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tells {
    /// Trades with ascending numbers.
    Trades,
    /// Changes of a book.
    Book,
    /// What needs no following.
    State,
    /// What may not come for days.
    Seldom,
}

/// Something that is subscribed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Channel {
    /// What the address of a connection that may carry it ends with.
    pub(super) route: &'static str,
    /// The venue's name of it.
    pub(super) name: String,
    /// The venue's symbol of the instrument; empty for all.
    pub(super) symbol: Box<str>,
    /// What it tells.
    pub(super) tells: Tells,
}

/// Something that is asked for over REST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask<T = &'static str> {
    /// The path with its query.
    pub(super) path: T,
    /// What it was asked for, where the answer does not say.
    pub(super) topic: T,
    /// What it weighs against the venue's limit.
    pub(super) weight: u32,
}

impl Copy for Ask {}

/// Something that is asked for again and again.
#[derive(Clone, Debug)]
pub(super) struct Poll {
    /// What.
    pub(super) ask: Ask<String>,
    /// How often: at multiples of this since 1970, and a little later, each poll at a moment of its own.
    pub(super) every: Duration,
}

/// A venue's facts and rules.
pub(super) trait Venue: fmt::Debug + Send + Sync {
    /// Its name, as records have it.
    fn name(&self) -> &'static str;

    /// Its markets.
    fn markets(&self) -> &'static [Market];

    /// Whether a market tells of any instrument what is wanted.
    fn tells(&self, market: &Market, wanted: Wanted) -> bool;

    /// The channels that tell of an instrument what is wanted.
    fn channels(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Channel>;

    /// What no channel tells.
    fn polls(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Poll>;

    /// The message that subscribes to channels, and the number that its acknowledgement carries.
    fn subscribe(&self, channels: &[Channel], number: u64) -> String;

    /// What listens to a connection with these channels.
    fn protocol(&self, market: &Market, channels: &[Channel]) -> Box<dyn Protocol>;
}

/// What a frame is to the connection that it came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Of a channel, by its number.
    Data(usize),
    /// Of no channel that we asked for, or of nobody knows which: the decoder will tell.
    Other,
    /// The subscription of this number is there.
    Subscribed(u64),
    /// The venue refuses, for a reason.
    Refused,
    /// It was there before, word for word or by its number: it is not kept.
    Again,
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Ask for what a channel cannot tell any more.
    Ask {
        /// By its number.
        channel: usize,
        /// What.
        ask: Ask<String>,
        /// How often it was asked for without success.
        failed: u32,
    },
    /// Records are missing: the numbers from the first to the last.
    Gap {
        /// By its number.
        channel: usize,
        /// The first one missing.
        first: u64,
        /// The last one missing.
        last: u64,
    },
}

/// What hears the frames of a connection and of the one that takes its place.
pub(super) trait Protocol: Send {
    /// Hears a frame.
    fn hear(&mut self, frame: &[u8], orders: &mut Vec<Order>) -> Said;

    /// What was heard so far was heard by an earlier run, whose orders nobody carries out any more.
    fn taken_over(&mut self);

    /// Hears the answer to what it ordered to ask.
    fn answer(&mut self, channel: usize, ask: &Ask<String>, failed: u32, answer: &[u8], orders: &mut Vec<Order>);
}
