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

/// The kind of what is asked for; a book heals by itself.
const TRADE: &str = "trade";

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
    /// The market and the channel.
    stream: (Box<str>, Box<str>),
    hole: Hole,
    /// What of it is not filled yet.
    rest: Hole,
    /// Whether event time waits for it.
    waits: bool,
    /// The frame that told it, and its bytes.
    frame: u64,
    told: Box<[u8]>,
}

impl Holds {
    /// Hears a frame.
    pub(super) fn hear(&mut self, frame: u64, heard: &Heard<'_>) {
        if heard.dialect != NAME {
            return;
        }
        let Ok(Note::Gap(gap)) = serde_json::from_slice(heard.payload) else { return };
        if gap.channel != TRADE {
            return;
        }
        let hole = Hole { numbers: gap.numbers, since: gap.since, until: gap.until };
        let is_beside = |hold: &Hold| *hold.stream.0 == *gap.stream.0 && *hold.stream.1 == *gap.stream.1;
        let is_it = |hold: &Hold| hold.hole == hole && is_beside(hold);
        match gap.what {
            What::Found => {
                let stream = ((*gap.stream.0).into(), (*gap.stream.1).into());
                self.open.push(Hold { stream, hole, rest: hole, waits: true, frame, told: heard.payload.into() });
            }
            What::Filling => {
                let part_of = |hold: &&mut Hold| hold.hole.until == hole.until && is_beside(hold);
                self.open.iter_mut().filter(part_of).for_each(|hold| hold.rest = hole);
            }
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

    /// Gives those up of which nobody asks for what they lack: nothing waits for them any longer.
    pub(super) fn give_up(&self, is_asked_for: impl Fn(&str, &str) -> bool, batch: &mut Batch) {
        for hold in self.open.iter().filter(|hold| !is_asked_for(&hold.stream.0, &hold.stream.1)) {
            if let Ok(Note::Gap(gap)) = serde_json::from_slice(&hold.told) {
                push(Gap { what: What::Lost, detail: Some("the channel is not listened to any more".into()), ..gap }, batch);
            }
        }
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
        let kind = if channel.tells == Tells::Trades { TRADE } else { "book" };
        let gap = Gap {
            what,
            venue: self.venue.into(),
            market: instrument.listing.market.as_str().into(),
            symbol: (&*instrument.listing.symbol).into(),
            channel: kind.into(),
            stream: (self.market.name.into(), (&*channel.name).into()),
            numbers: hole.numbers,
            since: hole.since,
            until: hole.until,
            detail: detail.map(Into::into),
        };
        push(gap, batch);
    }
}

fn push(gap: Gap<'_>, batch: &mut Batch) {
    let payload = serde_json::to_vec(&Note::Gap(gap)).expect("it is made of texts and numbers");
    batch.push(Heard { receive_time: time::now(), connection: 0, dialect: NAME, topic: "", payload: &payload });
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

#[cfg(test)]
mod tests {
    use model::instrument::Listing;

    use super::super::okx::Okx;
    use super::super::venue::{Instrument, Venue, Wanted};
    use super::*;

    const HOLE: Hole = Hole { numbers: Some((5, 300)), since: 1_000, until: 9_000 };

    fn channels() -> (Market, Vec<Channel>) {
        let spot = Okx.markets()[0];
        let instrument = Instrument { symbol: "BTC-USDT".into(), listing: Listing::spot("BTC", "USDT") };
        (spot, [Wanted::Book, Wanted::Trade].map(|wanted| Okx.channels(&spot, &instrument, wanted)).concat())
    }

    /// What is told of a hole in a channel, as a spool gives it.
    fn told(what: What, channel: usize, hole: &Hole) -> Vec<u8> {
        let (market, channels) = channels();
        let mut batch = Batch::default();
        Teller { venue: "okx", market: &market, channels: &channels }.tell(what, channel, hole, None, &mut batch);
        payloads(&batch).remove(0)
    }

    fn payloads(batch: &Batch) -> Vec<Vec<u8>> {
        batch.heard().map(|heard| heard.payload.to_vec()).collect()
    }

    fn hear(holds: &mut Holds, frame: u64, payload: &[u8]) {
        holds.hear(frame, &Heard { receive_time: 0, connection: 0, dialect: NAME, topic: "", payload });
    }

    #[test]
    fn event_time_waits_for_trades_until_they_came_or_it_takes_too_long() {
        let mut holds = Holds::default();
        hear(&mut holds, 6, &told(What::Found, 0, &HOLE));
        assert_eq!((holds.event_time(), holds.first_frame()), (None, None), "a book heals with a snapshot");
        let later = Hole { numbers: Some((310, 320)), since: 10_000, until: 11_000 };
        hear(&mut holds, 7, &told(What::Found, 1, &HOLE));
        hear(&mut holds, 8, &told(What::Found, 1, &later));
        hear(&mut holds, 9, b"no JSON");
        assert_eq!((holds.event_time(), holds.first_frame()), (Some(1_000), Some(7)));
        hear(&mut holds, 10, &told(What::Overdue, 1, &HOLE));
        assert_eq!((holds.event_time(), holds.first_frame()), (Some(10_000), Some(7)), "it is asked for still");
        hear(&mut holds, 11, &told(What::Filled, 1, &later));
        assert_eq!((holds.event_time(), holds.first_frame()), (None, Some(7)));
        hear(&mut holds, 12, &told(What::Lost, 1, &HOLE));
        assert_eq!((holds.event_time(), holds.first_frame()), (None, None));
    }

    #[test]
    fn what_an_earlier_run_had_not_got_is_asked_for_and_nothing_else() {
        let (market, channels) = channels();
        let mut holds = Holds::default();
        let rest = Hole { numbers: Some((5, 200)), ..HOLE };
        hear(&mut holds, 7, &told(What::Found, 1, &HOLE));
        hear(&mut holds, 8, &told(What::Filling, 1, &rest));
        let mut gaps = Gaps::default();
        gaps.recall(&holds, &Okx.markets()[1], &channels);
        assert!(gaps.resume(Duration::ZERO).is_empty(), "it is another market's");
        gaps.recall(&holds, &market, &channels);
        let resumed = gaps.resume(Duration::ZERO);
        assert_eq!(resumed.iter().map(|open| (open.channel, open.hole, open.rest)).collect::<Vec<_>>(), [(1, HOLE, rest)]);
        assert_eq!(gaps.overdue().count(), 1);
        assert_eq!(gaps.overdue().count(), 0, "it is told once");
        gaps.close(&resumed[0]);
        assert!(gaps.resume(Duration::ZERO).is_empty());
    }

    #[test]
    fn what_nobody_listens_to_any_more_is_not_waited_for() {
        let mut holds = Holds::default();
        hear(&mut holds, 7, &told(What::Found, 1, &HOLE));
        let mut batch = Batch::default();
        holds.give_up(|market, channel| (market, channel) == ("spot", "trades-all:BTC-USDT"), &mut batch);
        assert_eq!(payloads(&batch), Vec::<Vec<u8>>::new());
        holds.give_up(|_, _| false, &mut batch);
        hear(&mut holds, 8, &payloads(&batch)[0]);
        assert_eq!((holds.event_time(), holds.first_frame()), (None, None));
    }
}
