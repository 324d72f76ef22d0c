//! Holes: told when they are found, asked for until they are filled, told again then.
//!
//! What is told goes to the spool among the frames ([`Gap`]), so the reader can hold event time back while a hole is asked
//! for, a capture has it, and a run that begins after a crash asks for what the one before it had not got.

use std::time::Duration;

use model::time::{self, Micros};
use tokio::time::Instant;

use super::spool::{Batch, Heard};
use super::venue::{Channel, Hole, Market, Tells};
use crate::dialect::marketprism::{Gap, NAME, Note, What};

/// A hole that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Open {
    /// The channel, by its number.
    pub(super) channel: usize,
    /// All of it.
    pub(super) hole: Hole,
    /// What is not filled yet.
    pub(super) rest: Hole,
    /// Whether all of what was asked for so far was there.
    pub(super) whole: bool,
    /// When event time does not wait any longer; none where it does not.
    overdue: Option<Instant>,
}

/// The holes at a place in a spool: those that were told before it, and neither filled nor lost.
#[derive(Debug, Default)]
pub(super) struct Holds {
    open: Vec<Hold>,
}

#[derive(Debug)]
struct Hold {
    stream: (Box<str>, Box<str>),
    hole: Hole,
    /// What of it is not filled yet.
    rest: Hole,
    /// Whether event time waits for it.
    waits: bool,
    /// The frame that told it.
    frame: u64,
}

impl Holds {
    /// Hears a frame.
    pub(super) fn hear(&mut self, frame: u64, heard: &Heard<'_>) {
        if heard.dialect != NAME {
            return;
        }
        let Ok(Note::Gap(gap)) = serde_json::from_slice(heard.payload) else { return };
        if gap.channel != "trade" {
            return;
        }
        let hole = Hole { numbers: gap.numbers, since: gap.since, until: gap.until };
        let is_there = |hold: &Hold| *hold.stream.0 == *gap.stream.0 && *hold.stream.1 == *gap.stream.1;
        let is_it = |hold: &Hold| hold.hole == hole && is_there(hold);
        let holds_it = |hold: &&mut Hold| hold.hole.until == hole.until && is_there(hold);
        match gap.what {
            What::Found => {
                let stream = ((*gap.stream.0).into(), (*gap.stream.1).into());
                self.open.push(Hold { stream, hole, rest: hole, waits: true, frame });
            }
            What::Filling => self.open.iter_mut().filter(holds_it).for_each(|hold| hold.rest = hole),
            What::Overdue => self.open.iter_mut().filter(|hold| is_it(hold)).for_each(|hold| hold.waits = false),
            What::Filled | What::Lost => self.open.retain(|hold| !is_it(hold)),
        }
    }

    /// Where event time waits; none where it does not.
    pub(super) fn event_time(&self) -> Option<Micros> {
        self.open.iter().filter(|hold| hold.waits).map(|hold| hold.hole.since).min()
    }

    /// The first frame that whoever begins again has to know.
    pub(super) fn first_frame(&self) -> Option<u64> {
        self.open.iter().map(|hold| hold.frame).min()
    }
}

/// The holes of a shard.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    open: Vec<Open>,
}

/// Who tells of a hole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Teller<'a> {
    pub(super) venue: &'a str,
    pub(super) market: &'a Market,
    pub(super) channels: &'a [Channel],
}

impl Teller<'_> {
    /// Tells something of a hole.
    pub(super) fn tell(self, what: What, channel: usize, hole: &Hole, detail: Option<&str>, batch: &mut Batch) {
        let channel = &self.channels[channel];
        let Some(instrument) = &channel.instrument else { return };
        let gap = Gap {
            what,
            venue: self.venue.into(),
            market: instrument.listing.market.as_str().into(),
            symbol: (&*instrument.listing.symbol).into(),
            channel: if channel.tells == Tells::Trades { "trade" } else { "book" }.into(),
            stream: (self.market.name.into(), (&*channel.name).into()),
            numbers: hole.numbers,
            since: hole.since,
            until: hole.until,
            detail: detail.map(Into::into),
        };
        let payload = serde_json::to_vec(&Note::Gap(gap)).expect("it is made of texts and numbers");
        batch.push(Heard { receive_time: time::now(), dialect: NAME, topic: "", payload: &payload });
    }
}

impl Gaps {
    /// Takes up those of its channels that an earlier run found and did not fill.
    pub(super) fn recall(&mut self, holds: &Holds, market: &Market, channels: &[Channel]) {
        for Hold { stream, hole, rest, .. } in holds.open.iter().filter(|hold| *hold.stream.0 == *market.name) {
            if let Some(channel) = channels.iter().position(|channel| *channel.name == *stream.1) {
                self.open.push(Open { channel, hole: *hole, rest: *rest, whole: true, overdue: None });
            }
        }
    }

    /// Takes a hole up; event time waits for it for so long.
    pub(super) fn open(&mut self, channel: usize, hole: Hole, patience: Duration) -> Open {
        let open = Open { channel, hole, rest: hole, whole: true, overdue: Some(Instant::now() + patience) };
        self.open.push(open.clone());
        open
    }

    /// Those that are asked for. Of an earlier run's, event time waits anew.
    pub(super) fn resume(&mut self, patience: Duration) -> Vec<Open> {
        self.open.iter_mut().for_each(|open| open.overdue = Some(Instant::now() + patience));
        self.open.clone()
    }

    /// Nothing of it is asked for any more.
    pub(super) fn close(&mut self, hole: &Open) {
        self.open.retain(|open| (open.channel, open.hole) != (hole.channel, hole.hole));
    }

    /// Those that event time does not wait for any longer, each told once.
    pub(super) fn overdue(&mut self) -> impl Iterator<Item = &Open> {
        let now = Instant::now();
        self.open.iter_mut().filter_map(move |open| {
            open.overdue.take_if(|at| *at <= now)?;
            Some(&*open)
        })
    }
}
