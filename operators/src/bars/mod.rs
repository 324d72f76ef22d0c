//! `bars`: open, high, low, close and volumes by time.
//!
//! A trade belongs to the window that its event time lies in; windows are aligned to 1970-01-01T00:00Z. A bar
//! is emitted as it changes and revised (taken back, asserted anew) until the watermark has passed its end
//! by `lateness`; a trade that comes later is refused, never dropped in silence. Open and close are the first
//! and last trade by (event time, trade id), so bars do not depend on the order of arrival, on batch sizes or
//! on the number of workers.
//!
//! Trades are combined where they are (`combine`) into partial bars of a slot that divides every interval,
//! and only these are exchanged and merged (`merge`) into the windows of each interval.

use std::sync::Arc;

use config::values::Duration;
use config::{Check, Checked, Component};
use model::kinds::{BAR, DEAD_LETTER, TRADE};
use model::time::{Micros, SECOND};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::dataflow::{self, Route, Stage};
use crate::{Context, Operator, Stream};

mod combine;
mod merge;
mod partial;
#[cfg(test)]
mod tests;

pub use combine::Combiner;
pub use merge::Merger;
use partial::PARTIAL_BAR;

/// Aggregates trades into bars by time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Bars {
    /// Length of the bars, or several, e.g. `"1m"` or `["1s", "1m", "1h"]`; whole seconds. Longer bars are
    /// merged from the same partial sums, not counted again.
    every: Every,
    /// How long after the watermark has passed the end of a bar a late trade still revises it.
    #[serde(default)]
    lateness: Duration,
    /// What becomes of trades that come even later.
    #[serde(default)]
    late: Late,
}

/// One interval or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Every {
    /// One.
    One(Duration),
    /// Several.
    Several(Vec<Duration>),
}

/// What becomes of trades that come after their bar has closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Late {
    /// They are counted and kept as dead letters.
    #[default]
    DeadLetter,
    /// They are counted.
    Count,
}

/// The intervals of the bars of one operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    intervals: Vec<Micros>,
    lateness: Micros,
    slot: Micros,
}

impl Windows {
    /// Windows of these lengths (microseconds, at least one, each positive).
    pub fn new(mut intervals: Vec<Micros>, lateness: Micros) -> Self {
        intervals.sort_unstable();
        intervals.dedup();
        let slot = intervals.iter().copied().reduce(greatest_common_divisor).unwrap_or(SECOND);
        Windows { intervals, lateness, slot }
    }

    /// The lengths, shortest first.
    pub fn intervals(&self) -> &[Micros] {
        &self.intervals
    }

    /// How long a window stays open after the watermark has passed its end.
    pub fn lateness(&self) -> Micros {
        self.lateness
    }

    /// The longest slot that divides every interval.
    pub fn slot(&self) -> Micros {
        self.slot
    }

    /// Whether any window that the slot lies in has closed: a trade in it then counts in no window, so that
    /// bars of several lengths always agree.
    pub fn is_late(&self, slot: Micros, watermark: Micros) -> bool {
        self.intervals
            .iter()
            .any(|length| (slot.div_euclid(*length) * length).saturating_add(*length).saturating_add(self.lateness) <= watermark)
    }
}

fn greatest_common_divisor(a: Micros, b: Micros) -> Micros {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

impl Component<dyn Operator> for Bars {
    const TYPE: &'static str = "bars";
    const EXAMPLE: &'static str = r#"[operators.bars_1m]
type = "bars"
inputs = ["trades"]
every = "1m"
lateness = "5s"
late = "dead_letter"
"#;

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        cx.require(&[&TRADE.name]);
        let intervals = match &self.every {
            Every::One(one) => std::slice::from_ref(one),
            Every::Several(several) => several,
        };
        if intervals.is_empty() {
            cx.error(&["every"], "there is no interval", "name at least one, e.g. `every = [\"1m\"]`");
        }
        for interval in intervals {
            if interval.micros() == 0 || interval.micros() % SECOND != 0 {
                cx.error(
                    &["every"],
                    format!("`{interval}` is not a whole number of seconds"),
                    "bars are at least one second long, e.g. `every = \"1s\"`",
                );
            }
        }
        if cx.failed() {
            return None;
        }
        let windows = Windows::new(intervals.iter().map(|i| i.micros()).collect(), self.lateness.micros());
        Some(Checked { outputs: vec![BAR.clone(), DEAD_LETTER.clone()], component: Arc::new(TimeBars { windows, late: self.late }) })
    }
}

/// The checked operator.
#[derive(Debug)]
struct TimeBars {
    windows: Windows,
    late: Late,
}

impl Operator for TimeBars {
    fn build<'scope>(&self, input: Stream<'scope>, cx: &Context) -> Stream<'scope> {
        let combiner = Combiner::new(self.windows.clone(), self.late);
        let partials = dataflow::keyed(input, cx, &[&TRADE.name], Route::Stay, Stage { first: true, last: false }, combiner);
        let merger = Merger::new(self.windows.clone());
        dataflow::keyed(partials, cx, &[&PARTIAL_BAR.name], Route::Instrument, Stage { first: false, last: true }, merger)
    }
}
