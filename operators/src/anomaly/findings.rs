//! What detectors find, as rows.

use std::fmt::{self, Write as _};

use model::Decimal;
use model::kinds::{Anomaly, AnomalyBuilder};
use model::time::{Micros, SECOND};

use crate::Advance;
use crate::cause::Cause;
use crate::instruments::Instruments;

/// Whether an anomaly begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It begins, or has no duration.
    Open,
    /// It ends.
    Closed,
}

/// One finding: the columns of an `anomaly` record.
#[derive(Clone, Copy, Debug)]
pub struct Finding<'a> {
    /// The detector.
    pub anomaly: &'static str,
    /// The kind of record in which it was seen; `book_delta` for what a rebuilt book tells.
    pub channel: &'a str,
    /// The record that showed it.
    pub cause: Cause,
    /// What was observed.
    pub observed: Option<Decimal>,
    /// What was expected in its place.
    pub expected: Option<Decimal>,
    /// How far the one is from the other.
    pub score: Option<f64>,
    /// The score from which on the detector reports.
    pub threshold: Option<f64>,
    /// Length of the detector's window.
    pub window: Option<Micros>,
    /// First sequence number concerned.
    pub first: Option<i64>,
    /// Last sequence number concerned.
    pub last: Option<i64>,
    /// Whether it begins or ends.
    pub state: State,
    /// In words.
    pub detail: fmt::Arguments<'a>,
}

/// Takes findings down.
#[derive(Debug)]
pub struct Findings<'a> {
    pub(super) rows: &'a mut AnomalyBuilder,
    pub(super) text: &'a mut String,
    pub(super) instruments: &'a Instruments,
    /// Logical time, in microseconds: when a finding was made whose record tells no time.
    pub(super) now: Micros,
    /// The watermark before the rows at hand.
    pub(super) before: Micros,
    /// The greatest event time that any source has come to.
    pub(super) reached: Micros,
}

impl<'a> Findings<'a> {
    /// Findings at a logical time.
    pub(super) fn at(advance: &Advance, instruments: &'a Instruments, rows: &'a mut AnomalyBuilder, text: &'a mut String) -> Self {
        let now = i64::try_from(advance.time).unwrap_or(Micros::MAX).saturating_mul(1_000);
        Findings { rows, text, instruments, now, before: advance.before, reached: advance.reached }
    }
}

impl Findings<'_> {
    /// The watermark before the rows at hand: what came before it is settled.
    pub fn before(&self) -> Micros {
        self.before
    }

    /// The greatest event time that any source has come to.
    pub fn reached(&self) -> Micros {
        self.reached
    }

    /// Takes a finding about an instrument down.
    pub fn push(&mut self, number: u32, finding: Finding<'_>) {
        let instrument = self.instruments.get(number);
        self.text.clear();
        write!(self.text, "{}", finding.detail).expect("text grows as needed");
        self.rows.push(Anomaly {
            venue: &instrument.venue,
            market: &instrument.market,
            symbol: &instrument.symbol,
            anomaly: finding.anomaly,
            channel: finding.channel,
            event_time: finding.cause.event_time,
            receive_time: finding.cause.receive_time.or_else(|| finding.cause.event_time.is_none().then_some(self.now)),
            frame: finding.cause.frame,
            observed: finding.observed,
            expected: finding.expected,
            score: finding.score,
            threshold: finding.threshold,
            window_seconds: finding.window.map(|w| w / SECOND),
            first_sequence: finding.first,
            last_sequence: finding.last,
            state: match finding.state {
                State::Open => "open",
                State::Closed => "closed",
            },
            detail: self.text,
        });
    }
}

/// A length of time in seconds, exactly.
pub fn seconds(micros: Micros) -> Decimal {
    Decimal::from_units(i128::from(micros) * 1_000_000)
}
