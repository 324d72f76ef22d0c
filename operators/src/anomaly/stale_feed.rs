//! `stale_feed`: an instrument's feed that has fallen silent while others go on.
//!
//! A channel is one kind of record of one instrument. It is stale when event time, carried on by whatever else
//! comes, is further past its last record than a limit: the option `after`, or, with `factor`, that many times the
//! usual time between its records, where that is longer (slow instruments). It is reported once, at last record plus
//! limit, and closed when data resumes. A channel that never spoke is quiet, not stale.
//!
//! The usual time is a quantile of a histogram with four buckets to each doubling, of which older counts fade: it
//! is right to a fifth, takes a kilobyte and depends on nothing but the times. Long silences are counted in it as
//! well, so a feed that has become slower for good stops alarming.
//!
//! No limit is shorter than `after`, so a channel need not be looked at before its last record plus `after`. Each that may
//! fall silent stands in a queue by a time that is not later than that; it is put back when its time comes and it
//! has spoken since. An advance thus costs the records that came and the channels that are due, however many there are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use config::Check;
use config::values;
use model::time::{self, Micros};
use model::{Decimal, Progress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::findings::{Finding, Findings, State, seconds};
use super::{Detector, Options, Place, Rows, Saved};
use crate::cause::Cause;
use crate::instruments::read_state;
use crate::pages::Pages;
use crate::reorder::{Reorder, Timed};

/// The detector's name.
pub const NAME: &str = "stale_feed";

/// Kinds that come when they are asked for or when something happens: their silence says nothing.
pub(super) const OCCASIONAL: [&str; 4] = ["book_snapshot", "liquidation", "instrument", "venue_status"];

/// Options of `stale_feed`: channels that have fallen silent.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StaleFeed {
    /// A channel is stale after so much event time without a record.
    after: values::Duration,
    /// Let slow channels be silent for so many times their usual time between records, if that is longer than
    /// `after`. Channels whose usual time is not known yet are then not judged. Default: `after` holds for all.
    factor: Option<f64>,
    /// Which quantile of the times between records is the usual one.
    quantile: f64,
}

impl Default for StaleFeed {
    fn default() -> Self {
        StaleFeed { after: values::Duration::seconds(30), factor: None, quantile: 0.99 }
    }
}

impl Options for StaleFeed {
    fn check(&self, at: &Place, cx: &mut Check<'_>) {
        if self.after.micros() == 0 {
            at.error(cx, "after", "`after` is 0s", "name a duration such as `30s`");
        }
        if self.factor.is_some_and(|factor| !(factor >= 1.0 && factor.is_finite())) {
            at.error(cx, "factor", "`factor` is less than 1", "name how many times the usual time a silence may last, such as 10");
        }
        if !(self.quantile > 0.0 && self.quantile < 1.0) {
            at.error(cx, "quantile", format!("`quantile` is {}", self.quantile), "name a share between 0 and 1, such as 0.99");
        }
    }

    fn detector(&self, carried: &[&'static str]) -> Box<dyn Detector> {
        let channels = carried.iter().map(|_| Pages::default()).collect();
        Box::new(Feeds { options: self.clone(), kinds: carried.to_vec(), reorder: Reorder::default(), channels, queue: BinaryHeap::new() })
    }
}

/// A record that waits for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Beat {
    time: Micros,
    number: u32,
    /// Which of the kinds that the detector is shown.
    kind: usize,
    cause: Cause,
}

impl Timed for Beat {
    fn time(&self) -> Micros {
        self.time
    }

    fn number(&self) -> u32 {
        self.number
    }
}

/// What is kept of a channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Channel {
    last: Micros,
    frame: Option<i64>,
    /// It was reported, after this much silence.
    stale: Option<Micros>,
    /// Learned where a factor of it counts.
    usual: Intervals,
    /// The time by which it stands in the queue; any other entry of it there is void.
    #[serde(skip)]
    queued: Option<Micros>,
}

impl Channel {
    fn new(last: Micros, frame: Option<i64>) -> Self {
        Channel { last, frame, stale: None, usual: Intervals::default(), queued: None }
    }
}

/// What is stored of an instrument: its channels and what waits, by kind.
#[derive(Serialize, Deserialize)]
struct Stored {
    channels: Vec<(String, Channel)>,
    waiting: Vec<(String, Micros, Cause)>,
}

/// The detector.
#[derive(Debug)]
struct Feeds {
    options: StaleFeed,
    kinds: Vec<&'static str>,
    reorder: Reorder<Beat>,
    /// The channels of each kind, by instrument.
    channels: Vec<Pages<Option<Channel>>>,
    /// When to look at which channel: the time that must be passed, the kind and the instrument.
    queue: BinaryHeap<Reverse<(Micros, usize, u32)>>,
}

impl Detector for Feeds {
    fn observe(&mut self, rows: &Rows<'_>, findings: &mut Findings<'_>) {
        let Some(kind) = self.kinds.iter().position(|kind| *kind == rows.batch.kind.name) else { return };
        for (_, number, cause) in rows.iter() {
            // A record that only we have timed is as good a sign of life, though our clock may be behind the venue's.
            let time = cause.event_time.or(cause.receive_time.map(|time| time.max(findings.before())));
            let Some(time) = time else { continue };
            self.reorder.push(Beat { time, number, kind, cause });
        }
    }

    fn settle(&mut self, watermark: Micros, findings: &mut Findings<'_>) {
        for beat in self.reorder.release(watermark) {
            self.beat(&beat, findings);
        }
        // The end of the sources is not a silence: there, event time has come to their last record.
        let now = match (watermark, findings.before()) {
            (Progress::END, Progress::END) => return,
            (Progress::END, _) => findings.reached(),
            (watermark, _) => watermark,
        };
        for (kind, number) in self.due(now) {
            self.listen(number, kind, now, findings);
            self.wait(number, kind, now);
        }
    }

    fn snapshot(&mut self) -> Saved {
        let kinds = self.kinds.clone();
        let mut channels: Vec<_> = self.channels.iter_mut().map(|channels| channels.snapshot().into_groups()).collect();
        let held = self.reorder.held();
        Box::new(move |group, states| {
            let channels: Vec<_> = channels.iter_mut().map(|channels| channels.next().unwrap_or_default()).collect();
            for (at, (number, instrument)) in group.iter().enumerate() {
                let kept = kinds.iter().zip(&channels).filter_map(|(kind, channels)| Some(((*kind).into(), channels.get(at)?.clone()?)));
                let waiting = held.get(&number).into_iter().flatten().map(|beat| (kinds[beat.kind].into(), beat.time, beat.cause));
                let stored = Stored { channels: kept.collect(), waiting: waiting.collect() };
                if !stored.channels.is_empty() || !stored.waiting.is_empty() {
                    states.push(instrument, NAME, &stored);
                }
            }
        })
    }

    fn load(&mut self, number: u32, state: &[u8]) {
        let stored: Stored = read_state(state);
        let kinds = self.kinds.clone();
        let place = |kind: &str| kinds.iter().position(|k| *k == kind);
        for (kind, channel) in stored.channels {
            if let Some(kind) = place(&kind) {
                *self.channels[kind].entry(number as usize) = Some(channel);
                self.wait(number, kind, Micros::MIN);
            }
        }
        for (kind, time, cause) in stored.waiting {
            if let Some(kind) = place(&kind) {
                self.reorder.push(Beat { time, number, kind, cause });
            }
        }
    }
}

impl Feeds {
    /// A channel spoke.
    fn beat(&mut self, beat: &Beat, findings: &mut Findings<'_>) {
        self.listen(beat.number, beat.kind, beat.time, findings);
        let kind = self.kinds[beat.kind];
        let known = self.channels[beat.kind].entry(beat.number as usize);
        let Some(channel) = known else {
            *known = Some(Channel::new(beat.time, beat.cause.frame));
            return self.wait(beat.number, beat.kind, Micros::MIN);
        };
        let silence = beat.time.saturating_sub(channel.last).max(0);
        if let Some(limit) = channel.stale.take() {
            let lasted = seconds(silence);
            findings.push(
                beat.number,
                Finding {
                    detail: format_args!("{kind} records came again after {lasted} s"),
                    ..finding(kind, beat.cause, lasted, silence, limit, State::Closed)
                },
            );
        }
        if self.options.factor.is_some() {
            channel.usual.learn(silence);
        }
        (channel.last, channel.frame) = (channel.last.max(beat.time), beat.cause.frame);
        // Mostly it stands in the queue by an earlier time, and goes on standing there.
        if channel.queued.is_none_or(|queued| queued > channel.last.saturating_add(self.options.after.micros())) {
            self.wait(beat.number, beat.kind, Micros::MIN);
        }
    }

    /// The channels whose time in the queue has passed, in the order of kinds and instruments. They stand there no more.
    fn due(&mut self, now: Micros) -> Vec<(usize, u32)> {
        let mut due = Vec::new();
        while let Some(&Reverse((time, kind, number))) = self.queue.peek().filter(|next| next.0.0 < now) {
            self.queue.pop();
            if let Some(channel) = self.channels[kind].entry(number as usize)
                && channel.queued == Some(time)
            {
                channel.queued = None;
                due.push((kind, number));
            }
        }
        due.sort_unstable();
        due
    }

    /// Puts a channel into the queue that has been found to speak at `now`. One that is stale, or of which no limit is known,
    /// cannot become stale before its next record, and that puts it there.
    fn wait(&mut self, number: u32, kind: usize, now: Micros) {
        let Some(channel) = self.channels[kind].entry(number as usize) else { return };
        if channel.stale.is_some() {
            return;
        }
        // The limit is looked up only where `after` alone has passed: the next record may change it.
        let mut time = channel.last.saturating_add(self.options.after.micros());
        if time < now {
            let Some(limit) = self.options.limit(&channel.usual) else { return };
            time = channel.last.saturating_add(limit);
        }
        channel.queued = Some(time);
        self.queue.push(Reverse((time, kind, number)));
    }

    /// Event time has come to `now`: whether the channel has been silent for too long.
    fn listen(&mut self, number: u32, kind: usize, now: Micros, findings: &mut Findings<'_>) {
        let Some(channel) = self.channels[kind].get(number as usize).and_then(Option::as_ref) else { return };
        // The cheap test first.
        if !self.options.may_be_silent(channel, now) {
            return;
        }
        let Some(limit) = self.options.limit(&channel.usual).filter(|limit| now.saturating_sub(channel.last) > *limit) else { return };
        let cause = Cause { event_time: Some(channel.last.saturating_add(limit)), receive_time: None, frame: channel.frame };
        let (last, kind_name) = (time::display(channel.last), self.kinds[kind]);
        findings.push(
            number,
            Finding {
                detail: format_args!("no {kind_name} record came for {} s after {last}", seconds(limit)),
                ..finding(kind_name, cause, seconds(limit), limit, limit, State::Open)
            },
        );
        if let Some(channel) = self.channels[kind].entry(number as usize) {
            channel.stale = Some(limit);
        }
    }
}

impl StaleFeed {
    /// Whether a channel may be stale and is not known to be: no limit is shorter than `after`.
    fn may_be_silent(&self, channel: &Channel, now: Micros) -> bool {
        channel.stale.is_none() && now.saturating_sub(channel.last) > self.after.micros()
    }

    /// How long a channel may be silent; `None` while that is not known.
    fn limit(&self, usual: &Intervals) -> Option<Micros> {
        let after = self.after.micros();
        let Some(factor) = self.factor else { return Some(after) };
        Some(after.max((factor * usual.quantile(self.quantile)? as f64) as Micros))
    }
}

fn finding<'a>(kind: &'a str, cause: Cause, observed: Decimal, silence: Micros, limit: Micros, state: State) -> Finding<'a> {
    Finding {
        anomaly: NAME,
        channel: kind,
        cause,
        observed: Some(observed),
        expected: Some(seconds(limit)),
        score: Some(silence as f64 / limit as f64),
        threshold: Some(1.0),
        window: None,
        first: None,
        last: None,
        state,
        detail: format_args!(""),
    }
}

/// How long the times between records are: a histogram with four buckets to each doubling.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Intervals {
    counts: Vec<u32>,
    total: u32,
}

impl Intervals {
    /// Fewer are not enough to speak of a usual time.
    const FEWEST: u32 = 50;
    /// From so many on, all counts are halved.
    const MOST: u32 = 4_096;

    fn learn(&mut self, interval: Micros) {
        let bucket = bucket(interval);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        if self.total >= Self::MOST {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// A time that this share of intervals does not exceed; `None` while there are too few.
    fn quantile(&self, share: f64) -> Option<Micros> {
        if self.total < Self::FEWEST {
            return None;
        }
        let wanted = (share * f64::from(self.total)).ceil() as u32;
        let reached = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        reached.take_while(|sum| *sum < wanted).count().checked_add(1).map(bound)
    }
}

/// The bucket of a time: its highest bit and the two below it.
fn bucket(interval: Micros) -> usize {
    let value = interval.max(0) as u64 | 4;
    let exponent = 63 - value.leading_zeros() as usize;
    (exponent - 2) * 4 + (value >> (exponent - 2)) as usize - 4
}

/// The least time that lies in a later bucket than the one before this.
fn bound(bucket: usize) -> Micros {
    let (exponent, quarter) = (bucket / 4, bucket % 4);
    i64::try_from((4 + quarter as u128) << exponent).unwrap_or(Micros::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{Found, Rig, quote, trade};
    use super::*;

    fn told(found: &[Found]) -> Vec<(&str, &str, &str, i64, &str)> {
        found
            .iter()
            .map(|f| {
                (
                    f.symbol.as_str(),
                    f.channel.as_str(),
                    f.state.as_str(),
                    f.event_time.or(f.receive_time).unwrap() / time::SECOND,
                    f.observed.as_deref().unwrap(),
                )
            })
            .collect()
    }

    fn tick(rig: &mut Rig, symbol: &str, second: i64) {
        rig.trades.push(trade(symbol, second * time::SECOND, second, "1"));
    }

    /// A speaks each second, B falls silent from 10 to 50.
    fn silence(rig: &mut Rig, each: impl Fn(&mut Rig, i64)) {
        for second in 1..=60 {
            tick(rig, "A", second);
            if !(11..50).contains(&second) {
                tick(rig, "B", second);
            }
            each(rig, second);
        }
        rig.finish();
    }

    #[test]
    fn silence_is_opened_and_closed_in_one_advance_as_in_many() {
        let expected = [("B", "trade", "open", 40, "30"), ("B", "trade", "closed", 50, "40")];
        let mut whole = Rig::new("stale_feed = {}");
        silence(&mut whole, |_, _| {});
        assert_eq!(told(&whole.found()), expected);
        let mut parts = Rig::new("stale_feed = {}");
        silence(&mut parts, |rig, second| rig.advance(second * time::SECOND));
        assert_eq!(told(&parts.found()), expected);
        assert_eq!(whole.found(), parts.found());
        let closed = &whole.found()[1];
        assert_eq!((closed.expected.as_deref(), closed.score, closed.threshold), (Some("30"), Some(40.0 / 30.0), Some(1.0)));
        assert_eq!(whole.found()[0].detail, "no trade record came for 30 s after 1970-01-01T00:00:10.000000Z");
    }

    #[test]
    fn a_silence_that_does_not_end_is_found_and_the_end_of_the_source_is_none() {
        for advances in [false, true] {
            let mut rig = Rig::new("stale_feed = { after = \"30s\" }");
            for second in 1..=100 {
                tick(&mut rig, "A", second);
                if second < 50 {
                    tick(&mut rig, "B", second);
                }
                if second <= 80 {
                    tick(&mut rig, "C", second);
                }
                if advances {
                    rig.advance(second * time::SECOND);
                }
            }
            rig.finish();
            rig.finish();
            assert_eq!(told(&rig.found()), [("B", "trade", "open", 79, "30")]);
        }
    }

    #[test]
    fn kinds_are_channels_of_their_own_and_a_late_start_is_no_silence() {
        let mut rig = Rig::new("stale_feed = { after = \"5s\" }");
        for second in 1..=30 {
            tick(&mut rig, "A", second);
            if !(10..=20).contains(&second) {
                rig.quotes.push(quote("A", second * time::SECOND, second, None));
            }
            if second > 25 {
                tick(&mut rig, "B", second);
            }
        }
        rig.finish();
        assert_eq!(told(&rig.found()), [("A", "quote", "open", 14, "5"), ("A", "quote", "closed", 21, "12")]);
    }

    #[test]
    fn slow_channels_get_more_time_if_asked_for() {
        // B speaks each 20 s, with a hole of 300 s.
        let feed = |options: &str| {
            let mut rig = Rig::new(options);
            for second in 1..=2_000 {
                tick(&mut rig, "A", second);
                if second % 20 == 0 && !(1_500..1_800).contains(&second) {
                    tick(&mut rig, "B", second);
                }
            }
            rig.finish();
            rig.found()
        };
        assert!(feed("stale_feed = { after = \"10s\" }").len() > 100);
        let found = feed("stale_feed = { after = \"10s\", factor = 3 }");
        let told = told(&found);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!((told[0].0, told[0].2, told[1].2, told[1].3), ("B", "open", "closed", 1_800));
        assert!((1_540..=1_560).contains(&told[0].3), "3 x 20 s, to a fifth, after 1480: {told:?}");
    }

    #[test]
    fn a_clock_of_ours_behind_the_venues_is_no_silence() {
        let mut rig = Rig::new("stale_feed = { after = \"5s\" }");
        tick(&mut rig, "A", 0);
        rig.advance(0);
        for second in 1..=60 {
            tick(&mut rig, "A", second);
            let mut late = quote("A", (second - 20) * time::SECOND, second, None);
            (late.event_time, late.receive_time) = (None, late.event_time);
            rig.quotes.push(late);
            rig.advance(second * time::SECOND);
        }
        rig.finish();
        assert_eq!(told(&rig.found()), []);
    }

    proptest! {
        /// The bucket's bounds hold each value, within a quarter.
        #[test]
        fn buckets_are_a_quarter_wide(value in 4_i64..i64::MAX / 4) {
            let bucket = bucket(value);
            prop_assert!(bound(bucket) <= value && value < bound(bucket + 1));
            prop_assert!((bound(bucket + 1) - bound(bucket)) as f64 <= 0.25 * bound(bucket) as f64);
        }

        /// The quantile is the exact one, to a quarter.
        #[test]
        fn the_quantile_is_near(mut intervals in proptest::collection::vec(100_i64..1_000_000, 50..500)) {
            let mut learned = Intervals::default();
            intervals.iter().for_each(|i| learned.learn(*i));
            intervals.sort_unstable();
            let exact = intervals[((0.9 * intervals.len() as f64).ceil() as usize - 1).min(intervals.len() - 1)];
            let near = learned.quantile(0.9).unwrap();
            prop_assert!(exact <= near && near as f64 <= 1.25 * exact as f64 + 1.0, "{exact} {near}");
        }
    }

    #[test]
    fn old_intervals_fade() {
        let mut learned = Intervals::default();
        (0..5_000).for_each(|_| learned.learn(1_000));
        (0..10_000).for_each(|_| learned.learn(100_000));
        assert!(learned.total < Intervals::MOST);
        assert!(learned.quantile(0.5).unwrap() >= 100_000);
        assert_eq!(Intervals::default().quantile(0.5), None);
    }
}
