//! What a venue is to whoever listens to it: facts and rules, and no I/O.
//!
//! A [`Venue`] says which channels tell of an instrument what is wanted, how they are subscribed to, and what has to be asked
//! for because no channel tells it. A [`Protocol`], one for each connection and those that take its place, hears every frame before
//! it is stored and orders what has to be done about it: a snapshot for a book that begins or has a hole. Of what is missing it
//! says from where to where, and how it is asked for. It decodes nothing: that is the dialect's work, later and from the same
//! bytes.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use hashbrown::HashMap;
use model::instrument::Listing;
use model::time::Micros;
use reqwest::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// What the venue allows.
    pub(super) limits: Limits,
}

/// What a venue allows, and what it expects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Channels of a connection.
    pub(super) channels: usize,
    /// Channels that are subscribed to at once.
    pub(super) at_once: usize,
    /// Between two messages that we send over a connection.
    pub(super) message_pause: Duration,
    /// Between two connections that are opened.
    pub(super) connect_pause: Duration,
    /// How long a connection is used before another takes its place, shortly before the venue would cut it.
    pub(super) lifetime: Duration,
    /// The longest that a connection says nothing at all, not even a ping.
    pub(super) silence: Duration,
    /// What a connection is told again and again so that the venue keeps it, and how often. An empty text is a ping of WebSocket's own.
    pub(super) ping: Option<(Duration, &'static str)>,
    /// What all requests of a window may weigh.
    pub(super) weight: u32,
    /// How long a window is; windows begin at multiples of it since 1970.
    pub(super) window: Duration,
}

/// What a user can want of a venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
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
    /// `volatility_index`.
    VolatilityIndex,
    /// `venue_status`.
    VenueStatus,
}

impl Wanted {
    /// All of them.
    pub(super) const ALL: [Wanted; 11] = [
        Wanted::Trade,
        Wanted::Book,
        Wanted::Quote,
        Wanted::FundingRate,
        Wanted::MarkPrice,
        Wanted::IndexPrice,
        Wanted::OpenInterest,
        Wanted::Liquidation,
        Wanted::LongShortRatio,
        Wanted::VolatilityIndex,
        Wanted::VenueStatus,
    ];
}

/// As pipeline files name it.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
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
    /// Trades.
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
    /// The instrument; none where it tells of all, or of the venue.
    pub(super) instrument: Option<Instrument>,
    /// What it tells.
    pub(super) tells: Tells,
}

impl Channel {
    /// The venue's symbol of its instrument; empty where it has none.
    pub(super) fn symbol(&self) -> &str {
        self.instrument.as_ref().map_or("", |instrument| &instrument.symbol)
    }
}

/// Channels that are named `KIND:SYMBOL` by their kind, in the order in which the kinds come: the kind, and the symbols that it is
/// wanted of.
pub(super) fn by_kind(channels: &[Channel]) -> Vec<(&str, Vec<&str>)> {
    let mut kinds: Vec<(&str, Vec<&str>)> = Vec::new();
    for channel in channels {
        let (kind, symbol) = channel.name.split_once(':').unwrap_or((&channel.name, ""));
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, symbols)) => symbols.push(symbol),
            None => kinds.push((kind, vec![symbol])),
        }
    }
    kinds
}

/// The channels of each symbol, by kind, where they are named `KIND:SYMBOL`: their numbers, in the order of `kinds`.
pub(super) type BySymbol<const KINDS: usize> = HashMap<Box<str>, [Option<usize>; KINDS], ahash::RandomState>;

/// Finds channels by their kind and symbol.
pub(super) fn by_symbol<const KINDS: usize>(channels: &[Channel], kinds: [&str; KINDS]) -> BySymbol<KINDS> {
    let mut found = BySymbol::default();
    for (number, channel) in channels.iter().enumerate() {
        let Some((kind, symbol)) = channel.name.split_once(':') else { continue };
        if let Some(at) = kinds.iter().position(|known| *known == kind) {
            found.entry(symbol.into()).or_insert([None; KINDS])[at] = Some(number);
        }
    }
    found
}

/// Something that is asked for over REST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// The path with its query.
    pub(super) path: String,
    /// What it was asked for, where the answer does not say.
    pub(super) topic: String,
    /// What it weighs against the venue's limit.
    pub(super) weight: u32,
}

/// How often what only requests tell is asked for.
pub(super) const POLL: Duration = Duration::from_secs(60);

/// Something that is asked for again and again.
#[derive(Clone, Debug)]
pub(super) struct Poll {
    /// What.
    pub(super) ask: Ask,
    /// How often: at multiples of this since 1970, and a little later, each poll at a moment of its own.
    pub(super) every: Duration,
}

/// What a venue means by an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is one.
    Answer,
    /// We have asked too much: nobody is to ask anything for so long, or for as long as the answer's `Retry-After` says.
    TooMuch(Duration),
    /// It cannot be answered now.
    Later,
    /// It cannot be answered.
    Never,
}

/// How long nobody asks a venue that refuses without saying how long.
pub(super) const REFUSED: Duration = Duration::from_secs(60);

impl Verdict {
    /// What the status of an answer says, where a venue uses them as others do.
    pub(super) fn by_status(status: StatusCode) -> Verdict {
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::IM_A_TEAPOT => Verdict::TooMuch(REFUSED),
            status if status.is_success() => Verdict::Answer,
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => Verdict::Later,
            _ => Verdict::Never,
        }
    }
}

/// A venue's facts and rules.
pub(super) trait Venue: fmt::Debug + Send + Sync {
    /// Its name, as records have it.
    fn name(&self) -> &'static str;

    /// Its markets.
    fn markets(&self) -> &'static [Market];

    /// What is asked for the listing of a market's instruments.
    fn listing(&self, market: &Market) -> Vec<Ask>;

    /// What else is asked for, now that this was answered: the page behind it, or what it names.
    fn listing_goes_on(&self, _market: &Market, _ask: &Ask, _answer: &[u8]) -> Vec<Ask> {
        Vec::new()
    }

    /// Whether the answer lists instruments, and does not only name what else is to be asked.
    fn lists(&self, _ask: &Ask) -> bool {
        true
    }

    /// Whether a market tells of any instrument what is wanted.
    fn tells(&self, market: &Market, wanted: Wanted) -> bool;

    /// The channels that tell of an instrument what is wanted.
    fn channels(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Channel>;

    /// The channels that tell of a whole market what is wanted.
    fn market_channels(&self, _market: &Market, _wanted: Wanted) -> Vec<Channel> {
        Vec::new()
    }

    /// What no channel tells of an instrument.
    fn polls(&self, market: &Market, instrument: &Instrument, wanted: Wanted) -> Vec<Poll>;

    /// What no channel tells of a whole market.
    fn market_polls(&self, _market: &Market, _wanted: Wanted) -> Vec<Poll> {
        Vec::new()
    }

    /// What a channel's frames were asked for, as far as their bytes do not say and the dialect needs it: see
    /// [`FrameRef::topic`](model::dialect::FrameRef::topic).
    fn topic(&self, _market: &Market, _channel: &Channel) -> String {
        String::new()
    }

    /// The messages that a connection begins with, before anything is subscribed to.
    fn greeting(&self, _market: &Market) -> Vec<String> {
        Vec::new()
    }

    /// The messages that subscribe to channels, with the number that their acknowledgement carries, where it carries one. The first
    /// subscription of a connection has the number 1.
    fn subscribe(&self, market: &Market, channels: &[Channel], number: u64) -> Vec<String>;

    /// The message that ends the subscription to a channel. Books of venues that give a snapshot over REST need none.
    fn unsubscribe(&self, market: &Market, channel: &Channel, number: u64) -> String;

    /// What listens to a connection with these channels.
    fn protocol(&self, market: &Market, channels: &[Channel]) -> Box<dyn Protocol>;

    /// What an answer to a request is.
    fn verdict(&self, status: StatusCode, _answer: &[u8]) -> Verdict {
        Verdict::by_status(status)
    }
}

/// A connection, by its number: 0 for those of an earlier run, then ascending.
pub(super) type Line = u32;

/// What a frame came over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Over {
    /// The connection.
    pub(super) line: Line,
    /// Whether the one whose place it takes is still there, too, and says the same: what seems to be missing here may come over that.
    pub(super) beside: bool,
}

/// What a frame is to the connection that it came over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Of a channel, by its number.
    Data(usize),
    /// Of a channel; only this part was not there before, and is kept.
    Part(usize, Vec<u8>),
    /// Of no channel that we asked for, or of nobody knows which: the decoder will tell.
    Other,
    /// The subscription of this number is there.
    Subscribed(u64),
    /// The subscription of this number is there, for these of its channels: the others are refused.
    Partly(u64, Vec<usize>),
    /// The subscriptions to these channels are there.
    Listening(Vec<usize>),
    /// The venue refuses, for a reason.
    Refused,
    /// Nothing of the market that was not there before: an answer to a ping, or what came already over this connection or the
    /// one it takes the place of. It is not kept.
    Nothing,
}

/// Records that are missing in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    /// The numbers of the first and the last one missing, where the venue numbers them.
    pub(super) numbers: Option<(u64, u64)>,
    /// The event time of the record before it.
    pub(super) since: Micros,
    /// The event time of the record behind it.
    pub(super) until: Micros,
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Ask for what a channel cannot tell any more.
    Ask {
        /// By its number.
        channel: usize,
        /// What.
        ask: Ask,
        /// How often it was asked for without success.
        failed: u32,
    },
    /// Subscribe to a channel anew, over the connection that was heard: it begins again with a snapshot.
    Resubscribe {
        /// By its number.
        channel: usize,
    },
    /// Say something over the connection that was heard, before anything else that is still to be said.
    Say(String),
    /// Records are missing. It is told, and what [`Protocol::fill`] says is asked for.
    Gap {
        /// By its number.
        channel: usize,
        /// From where to where.
        hole: Hole,
    },
}

/// What became of a hole that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filled<'a> {
    /// What of the answer is kept: what was missing and nothing else. Empty where it has nothing of it.
    pub(super) kept: Cow<'a, [u8]>,
    /// The part of the hole that is to be asked for next; none where nothing is missing any more, or the venue has no more of it.
    pub(super) rest: Option<Hole>,
    /// Whether everything that the hole had was there, apart from the rest.
    pub(super) whole: bool,
}

/// What hears the frames of a connection and of the one that takes its place.
pub(super) trait Protocol: Send {
    /// Hears a frame.
    fn hear(&mut self, over: Over, frame: &[u8], orders: &mut Vec<Order>) -> Said;

    /// A connection is over: nothing comes over it any more.
    fn ended(&mut self, _line: Line, _orders: &mut Vec<Order>) {}

    /// What was heard so far was heard by an earlier run, whose orders nobody carries out any more. Books begin anew with the
    /// snapshots of a new connection, and trades go on where they were.
    fn taken_over(&mut self) {}

    /// Hears the answer to what it ordered to ask.
    fn answer(&mut self, _channel: usize, _ask: &Ask, _failed: u32, _answer: &[u8], _orders: &mut Vec<Order>) {}

    /// What is asked for the first part of a hole; none where the venue does not tell of what is past.
    fn fill(&self, _channel: usize, _hole: &Hole) -> Option<Ask> {
        None
    }

    /// Hears the answer to it.
    fn filled<'a>(&mut self, _channel: usize, _hole: &Hole, answer: &'a [u8]) -> Filled<'a> {
        Filled { kept: Cow::Borrowed(answer), rest: None, whole: true }
    }
}
