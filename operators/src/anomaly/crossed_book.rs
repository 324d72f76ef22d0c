//! `crossed_book`: a best bid that is not below the best ask.
//!
//! On one venue nobody can buy for less than somebody sells, so a crossed book is wrong data: a lost update, two
//! feeds mixed, a fault of the venue. A locked one (bid equal to ask) can be legal and counts only if asked for. An
//! episode has an `open` record when it begins and a `closed` one, with its duration, when it ends.
//!
//! Quotes are looked at in the order of (time, update number). Those that only we have timed (Binance spot sends no
//! time) have no order but that of their arrival; one that is older than the one before is outdated, and skipped.
//! Rebuilt books tell themselves when they are crossed, in their events; what a book calls crossed includes a lock,
//! which no venue's matching leaves standing. Their metrics are looked at where the events are not among the inputs.

use config::Check;
use model::Decimal;
use model::columns::{integer, label, number as decimal};
use model::kinds::{BOOK_EVENT, BookEventRows, BookMetricsRows, QUOTE, QuoteRows};
use model::time::Micros;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::findings::{Finding, Findings, State, seconds};
use super::{Detector, Options, Place, Rows, Saved};
use crate::cause::Cause;
use crate::instruments::read_state;
use crate::pages::Pages;
use crate::reorder::{Reorder, Timed};

/// The detector's name.
pub const NAME: &str = "crossed_book";

/// Options of `crossed_book`: best bids not below the best ask.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CrossedBook {
    /// Report locked quotes, too: a best bid equal to the best ask.
    locked: bool,
}

impl Options for CrossedBook {
    fn check(&self, _: &Place, _: &mut Check<'_>) {}

    fn select(&self, kinds: &mut Vec<&'static str>) {
        if kinds.contains(&BOOK_EVENT.name.as_ref()) {
            kinds.retain(|kind| *kind != "book_metrics");
        }
    }

    fn detector(&self, _: &[&'static str]) -> Box<dyn Detector> {
        Box::new(Crossings { locked: self.locked, reorder: Reorder::default(), tracks: Pages::default() })
    }
}

/// Where a best bid and ask were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Channel {
    /// The venue's own.
    Quote,
    /// A book rebuilt from deltas.
    Book,
}

impl Channel {
    const fn as_str(self) -> &'static str {
        match self {
            Channel::Quote => "quote",
            Channel::Book => "book_delta",
        }
    }
}

/// A best bid and ask that waits for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Touch {
    time: Micros,
    number: u32,
    channel: Channel,
    sequence: Option<i64>,
    /// In units of 10⁻¹².
    prices: Option<(i128, i128)>,
    cause: Cause,
}

impl Touch {
    fn new(number: u32, channel: Channel, sequence: Option<i64>, prices: Option<(Decimal, Decimal)>, cause: Cause, now: Micros) -> Self {
        let prices = prices.map(|(bid, ask)| (bid.units(), ask.units()));
        Touch { time: cause.time().unwrap_or(now), number, channel, sequence, prices, cause }
    }
}

impl Timed for Touch {
    fn time(&self) -> Micros {
        self.time
    }

    fn number(&self) -> u32 {
        self.number
    }
}

/// An episode that goes on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Episode {
    since: Micros,
    sequence: Option<i64>,
}

/// What is kept of an instrument.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Track {
    /// The episode of each channel.
    episodes: [Option<Episode>; 2],
    /// The greatest update number of the quotes that only we have timed.
    latest: Option<i64>,
}

/// What is stored of an instrument.
#[derive(Serialize, Deserialize)]
struct Stored {
    track: Track,
    waiting: Vec<Touch>,
}

/// The detector.
#[derive(Debug)]
struct Crossings {
    locked: bool,
    reorder: Reorder<Touch>,
    tracks: Pages<Track>,
}

impl Detector for Crossings {
    fn observe(&mut self, rows: &Rows<'_>, findings: &mut Findings<'_>) {
        if rows.batch.kind.name == QUOTE.name {
            let quotes = QuoteRows::of(&rows.batch.rows).expect("these are quotes");
            for (row, number, cause) in rows.iter() {
                let prices = decimal(quotes.bid_price, row).zip(decimal(quotes.ask_price, row));
                let touch = Touch::new(number, Channel::Quote, integer(quotes.sequence, row), prices, cause, findings.now);
                if cause.event_time.is_some() {
                    self.reorder.push(touch);
                } else if self.is_news(&touch) {
                    self.judge(&touch, findings);
                }
            }
        } else if rows.batch.kind.name == BOOK_EVENT.name {
            let events = BookEventRows::of(&rows.batch.rows).expect("these are book events");
            for (row, number, cause) in rows.iter() {
                let crossed = match label(events.event, row) {
                    Some("crossed") => true,
                    Some("uncrossed") => false,
                    _ => continue,
                };
                let touch = Touch::new(number, Channel::Book, integer(events.sequence, row), None, cause, findings.now);
                self.sight(&touch, crossed, Some(events.detail.value(row)), findings);
            }
        } else {
            let metrics = BookMetricsRows::of(&rows.batch.rows).expect("these are metrics of books");
            for (row, number, cause) in rows.iter() {
                let prices = decimal(metrics.bid_price, row).zip(decimal(metrics.ask_price, row));
                self.reorder.push(Touch::new(number, Channel::Book, integer(metrics.sequence, row), prices, cause, findings.now));
            }
        }
    }

    fn settle(&mut self, watermark: Micros, findings: &mut Findings<'_>) {
        for touch in self.reorder.release(watermark) {
            self.judge(&touch, findings);
        }
    }

    fn snapshot(&mut self) -> Saved {
        let (mut tracks, held) = (self.tracks.snapshot().into_groups(), self.reorder.held());
        Box::new(move |group, states| {
            let tracks = tracks.next().unwrap_or_default();
            for (at, (number, instrument)) in group.iter().enumerate() {
                let track = tracks.get(at).cloned().unwrap_or_default();
                let waiting = held.get(&number).cloned().unwrap_or_default();
                if track.latest.is_some() || track.episodes.iter().any(Option::is_some) || !waiting.is_empty() {
                    states.push(instrument, NAME, &Stored { track, waiting });
                }
            }
        })
    }

    fn load(&mut self, number: u32, state: &[u8]) {
        let stored: Stored = read_state(state);
        *self.tracks.entry(number as usize) = stored.track;
        for touch in stored.waiting {
            self.reorder.push(Touch { number, ..touch });
        }
    }
}

impl Crossings {
    /// Whether a quote is not older than those before.
    fn is_news(&mut self, touch: &Touch) -> bool {
        let latest = &mut self.tracks.entry(touch.number as usize).latest;
        let news = touch.sequence.is_none() || touch.sequence >= *latest;
        *latest = touch.sequence.max(*latest);
        news
    }

    fn judge(&mut self, touch: &Touch, findings: &mut Findings<'_>) {
        let crossed = touch.prices.is_some_and(|(bid, ask)| bid > ask || (self.locked && bid == ask));
        self.sight(touch, crossed, None, findings);
    }

    fn sight(&mut self, touch: &Touch, crossed: bool, detail: Option<&str>, findings: &mut Findings<'_>) {
        // Mostly there is nothing to write.
        let before = self.tracks.get(touch.number as usize).and_then(|track| track.episodes[touch.channel as usize]);
        if before.is_some() == crossed {
            return;
        }
        let episode = crossed.then_some(Episode { since: touch.time, sequence: touch.sequence });
        self.tracks.entry(touch.number as usize).episodes[touch.channel as usize] = episode;
        match before {
            None => open(touch, detail.unwrap_or_default(), findings),
            Some(since) => close(touch, since, findings),
        }
    }
}

fn open(touch: &Touch, detail: &str, findings: &mut Findings<'_>) {
    let finding = Finding {
        anomaly: NAME,
        channel: touch.channel.as_str(),
        cause: touch.cause,
        observed: None,
        expected: None,
        score: None,
        threshold: Some(0.0),
        window: None,
        first: touch.sequence,
        last: touch.sequence,
        state: State::Open,
        detail: format_args!("{detail}"),
    };
    let Some((bid, ask)) = touch.prices else { return findings.push(touch.number, finding) };
    let (bid, ask) = (Decimal::from_units(bid), Decimal::from_units(ask));
    let basis_points = 20_000.0 * (bid.to_f64() - ask.to_f64()) / (bid.to_f64() + ask.to_f64());
    let relation = if bid == ask { "equal to" } else { "above" };
    let finding = Finding { observed: Some(bid), expected: Some(ask), score: Some(basis_points).filter(|s| s.is_finite()), ..finding };
    findings.push(touch.number, Finding { detail: format_args!("best bid {bid} is {relation} best ask {ask}"), ..finding });
}

fn close(touch: &Touch, episode: Episode, findings: &mut Findings<'_>) {
    let lasted = seconds(touch.time.saturating_sub(episode.since));
    findings.push(
        touch.number,
        Finding {
            anomaly: NAME,
            channel: touch.channel.as_str(),
            cause: touch.cause,
            observed: Some(lasted),
            expected: None,
            score: None,
            threshold: Some(0.0),
            window: None,
            first: episode.sequence,
            last: touch.sequence,
            state: State::Closed,
            detail: format_args!("the book was crossed for {lasted} s"),
        },
    );
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Found, Rig, Touch, event, metrics, quote};

    fn told(found: &[Found]) -> Vec<(&str, &str, i64, Option<&str>, Option<&str>)> {
        found
            .iter()
            .map(|f| {
                (
                    f.channel.as_str(),
                    f.state.as_str(),
                    f.event_time.or(f.receive_time).unwrap(),
                    f.observed.as_deref(),
                    f.expected.as_deref(),
                )
            })
            .collect()
    }

    #[test]
    fn an_episode_has_a_beginning_and_an_end() {
        let mut rig = Rig::new("crossed_book = {}");
        rig.quotes = vec![
            quote("A", 1_000_000, 1, Some(("100", "101"))),
            quote("A", 2_000_000, 2, Some(("102", "101"))),
            quote("A", 3_000_000, 3, Some(("103", "101"))),
            quote("A", 4_500_000, 4, Some(("101", "101"))),
            quote("A", 5_000_000, 5, None),
        ];
        rig.finish();
        let found = rig.found();
        assert_eq!(
            told(&found),
            [("quote", "open", 2_000_000, Some("102"), Some("101")), ("quote", "closed", 4_500_000, Some("2.5"), None)]
        );
        assert_eq!((found[0].first, found[0].last, found[1].first, found[1].last), (Some(2), Some(2), Some(2), Some(4)));
        assert!((found[0].score.unwrap() - 98.522).abs() < 0.001);
        assert_eq!(
            (found[0].detail.as_str(), found[1].detail.as_str()),
            ("best bid 102 is above best ask 101", "the book was crossed for 2.5 s")
        );
    }

    #[test]
    fn locked_books_count_if_asked_for() {
        let mut rig = Rig::new("crossed_book = { locked = true }");
        rig.quotes = vec![quote("A", 1, 1, Some(("5", "5"))), quote("A", 2, 2, Some(("6", "5"))), quote("A", 3, 3, Some(("4", "5")))];
        rig.finish();
        assert_eq!(told(&rig.found()), [("quote", "open", 1, Some("5"), Some("5")), ("quote", "closed", 3, Some("0.000002"), None)]);
        assert_eq!(rig.found()[0].detail, "best bid 5 is equal to best ask 5");
    }

    #[test]
    fn quotes_are_taken_in_the_order_of_their_numbers() {
        let mut rig = Rig::new("crossed_book = {}");
        rig.quotes = vec![quote("A", 7, 3, Some(("4", "5"))), quote("A", 7, 1, Some(("4", "5"))), quote("A", 7, 2, Some(("6", "5")))];
        rig.finish();
        assert_eq!(told(&rig.found()), [("quote", "open", 7, Some("6"), Some("5")), ("quote", "closed", 7, Some("0"), None)]);
    }

    #[test]
    fn quotes_without_a_time_of_the_venue_are_taken_as_they_come() {
        let mut rig = Rig::new("crossed_book = {}");
        let ours = |time, sequence, bid| Touch { event_time: None, receive_time: Some(time), ..quote("A", 0, sequence, Some((bid, "5"))) };
        rig.quotes = vec![ours(10, 1, "4"), ours(900, 3, "6"), ours(20, 2, "4"), ours(30, 4, "6"), ours(40, 5, "4")];
        rig.finish();
        assert_eq!(told(&rig.found()), [("quote", "open", 900, Some("6"), Some("5")), ("quote", "closed", 40, Some("-0.00086"), None)]);
        assert_eq!((rig.found()[1].first, rig.found()[1].last), (Some(3), Some(5)), "the outdated quote between them ends nothing");
    }

    #[test]
    fn events_of_books_are_looked_at_and_their_metrics_only_without_them() {
        let mut rig = Rig::new("crossed_book = {}");
        rig.metrics = vec![metrics("A", 1, 1, Some(("6", "5"))), metrics("A", 3, 2, None)];
        rig.events = vec![
            event("A", 2, "crossed", None, Some(1)),
            event("A", 4, "uncrossed", None, Some(2)),
            event("A", 5, "uncrossed", None, Some(3)),
        ];
        rig.finish();
        assert_eq!(told(&rig.found()), [("book_delta", "open", 2, None, None), ("book_delta", "closed", 4, Some("0.000002"), None)]);
        assert_eq!((rig.found()[0].first, rig.found()[0].detail.as_str()), (Some(1), "told by the book"));

        let mut rig = Rig::without("crossed_book = {}", "book_event");
        rig.metrics = vec![metrics("A", 1, 1, Some(("6", "5"))), metrics("A", 3, 2, None)];
        rig.finish();
        assert_eq!(
            told(&rig.found()),
            [("book_delta", "open", 1, Some("6"), Some("5")), ("book_delta", "closed", 3, Some("0.000002"), None)]
        );
    }

    #[test]
    fn an_episode_without_an_end_stays_open() {
        let mut rig = Rig::new("crossed_book = {}");
        rig.quotes = vec![quote("A", 1, 1, Some(("6", "5")))];
        rig.finish();
        assert_eq!(rig.found().len(), 1);
    }
}
