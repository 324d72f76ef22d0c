//! `bars`: open, high, low, close and volumes, by time or by what happens.
//!
//! By time, a trade belongs to the window that its event time lies in; windows are aligned to 1970-01-01T00:00Z. A bar
//! is emitted as it changes and revised (taken back, asserted anew) until the watermark has passed its end
//! by `lateness`; a trade that comes later is refused, never dropped in silence. Open and close are the first
//! and last trade by (event time, trade id), so bars do not depend on the order of arrival, on batch sizes or
//! on the number of workers.
//!
//! Trades are combined where they are (`combine`) into partial bars of a slot that divides every interval,
//! and only these are exchanged and merged (`merge`) into the windows of each interval.
//!
//! Bars by what happens (`activity`) end with a trade: so many trades, so much volume, an imbalance, a range. They have a table of
//! their own, `activity_bars`, with the rule they follow and a number.
//!
//! | option | `rule` | a bar ends with the trade at which |
//! |---|---|---|
//! | `ticks` | `ticks 1000` | so many trades have come; a venue's aggregate counts as the trades it merged |
//! | `volume` | `volume 10` | so much of the base asset has changed hands |
//! | `value` | `value 1000000` | so much of the quote asset has changed hands |
//! | `imbalance` | `imbalance of volume 5` | takers have bought so much more than they sold, or sold so much more than they bought |
//! | `runs` | `runs of ticks 100` | takers have bought, or sold, so much |
//! | `range` | `range 50` | the highest and the lowest price are so far apart |
//! | `renko` | `renko 25` | the price is so far beyond the last brick; two bricks away to turn round |
//!
//! ```text
//!  renko 5       price 100 104 105 117 111 106 105 99
//!
//!     115          ┌─┐              one trade at 117 lays two bricks, 105 to 110 and 110 to 115:
//!                  │▲│              the second has no trades of its own
//!     110        ┌─┼─┼─┐
//!                │▲│ │▼│            111 and 106 are between the last brick and two below it: nothing
//!     105      ┌─┼─┘ └─┼─┐          at 105, two bricks below 115, it turns round
//!              │▲│     │▼│          at 99 it goes on
//!     100      └─┘     └─┘
//! ```
//!
//! A threshold that is expected (`expect`) is the expected number of trades of a bar times the expected imbalance, or the greater run, of a
//! trade, both exponentially weighted means of what was before the bar (M. López de Prado, "Advances in Financial Machine Learning", 2018,
//! sections 2.3.1 and 2.3.2). Such bars are known to run away, since a longer bar expects a longer one: `min_trades` and `max_trades` bound
//! them.
//!
//! # Time
//!
//! - **Late rows**: of a bar by time, a trade revises it until the watermark has passed its end by `lateness`. Bars by what happens wait
//!   until the watermark has passed their trades, and are never revised. What comes later still is a dead letter, or counted (`late`).
//! - **Corrections**: a bar is taken back and asserted anew as its trades come; trades themselves are not taken back.
//! - **Gaps**: event time waits for trades that a live source asks for. A bar by time whose trade ids are not consecutive says so (`gap`).
//! - **Idle sources** do not hold bars up (`idle` of the source). A window without trades has no bar.
//! - **State**: of each instrument the open windows, and for each rule the bar at hand; and the trades that wait for the watermark.

use std::sync::Arc;

use config::values::{self, Duration};
use config::{Check, Checked, Component};
use model::Decimal;
use model::kinds::{ACTIVITY_BAR, BAR, DEAD_LETTER, TRADE};
use model::time::{Micros, SECOND};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataflow::{self, Route, Stage};
use crate::{Context, Operator, Stream};

mod activity;
#[cfg(test)]
mod activity_tests;
mod combine;
mod merge;
mod partial;
#[cfg(test)]
mod tests;

pub use activity::{Activity, Ending, Expectation, Measure, Rule, Until};
pub use combine::Combiner;
pub use merge::Merger;
use partial::PARTIAL_BAR;

/// Aggregates trades into bars by time (`every`), or into bars that end when enough has happened (all other rules): one or the
/// other in a node, several at once.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Bars {
    /// Length of the bars, or several, e.g. `"1m"` or `["1s", "1m", "1h"]`; whole seconds. Longer bars are
    /// merged from the same partial sums, not counted again.
    #[serde(default)]
    every: Every,
    /// Bars of so many trades.
    #[serde(default)]
    ticks: Vec<u32>,
    /// Bars in which so much of the base asset changes hands.
    #[serde(default)]
    volume: Vec<values::Decimal>,
    /// Bars in which so much of the quote asset changes hands.
    #[serde(default)]
    value: Vec<values::Decimal>,
    /// Bars that end when takers have bought so much more than they sold, or sold so much more than they bought.
    #[serde(default)]
    imbalance: Vec<Flow>,
    /// Bars that end when takers have bought, or sold, so much.
    #[serde(default)]
    runs: Vec<Flow>,
    /// Bars whose highest and lowest price are so far apart.
    #[serde(default)]
    range: Vec<values::Decimal>,
    /// Bricks of so much: one when the price has moved so far beyond the last brick, two to turn round.
    #[serde(default)]
    renko: Vec<values::Decimal>,
    /// How long after the watermark has passed the end of a bar by time a late trade still revises it.
    #[serde(default)]
    lateness: Duration,
    /// What becomes of trades that come even later.
    #[serde(default)]
    late: Late,
}

/// How much flow ends a bar.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Flow {
    /// What is counted of trades.
    of: Of,
    /// How much of it ends a bar. Either this or `expect`.
    #[serde(default)]
    threshold: Option<values::Decimal>,
    /// More than was to be expected of a bar ends it.
    #[serde(default)]
    expect: Option<Expect>,
}

/// What is counted of trades.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Of {
    /// Their number.
    Ticks,
    /// Their size in the base asset.
    Volume,
    /// Their size in the quote asset.
    Value,
}

/// What is expected of a bar: exponentially weighted means of the bars and trades before it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Expect {
    /// Trades of the first bar, when nothing is known yet.
    first: u32,
    /// Over how many bars the number of trades of a bar is averaged.
    #[serde(default = "Expect::bars")]
    bars: u32,
    /// Over how many trades the imbalance, or the run, of a trade is averaged.
    #[serde(default = "Expect::trades")]
    trades: u32,
    /// The least trades of a bar.
    #[serde(default = "Expect::min_trades")]
    min_trades: u32,
    /// The most trades of a bar.
    max_trades: u32,
}

impl Expect {
    fn bars() -> u32 {
        20
    }

    fn trades() -> u32 {
        1_000
    }

    fn min_trades() -> u32 {
        1
    }
}

/// One interval or several.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum Every {
    /// One.
    One(Duration),
    /// Several.
    Several(Vec<Duration>),
}

impl Default for Every {
    fn default() -> Self {
        Every::Several(Vec::new())
    }
}

/// What becomes of trades that come after their bar has closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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
    const MODULE: &'static str = include_str!("mod.rs");

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        cx.require(&[&TRADE.name]);
        let rules = self.rules(cx);
        let intervals = match &self.every {
            Every::One(one) => std::slice::from_ref(one),
            Every::Several(several) => several,
        };
        if intervals.is_empty() {
            if rules.is_empty() && !cx.failed() {
                let help = "name a length, `every = \"1m\"`, or what has to happen, `volume = [\"10\"]`";
                cx.error(&[], "no rule says when a bar ends", help);
            }
            if !rules.is_empty() && self.lateness.micros() > 0 {
                let help = "leave it out: these bars wait for the source's `disorder` and are never revised";
                cx.error(&["lateness"], "`lateness` is for bars by time", help);
            }
            let component = Arc::new(ActivityBars { rules, late: self.late });
            return (!cx.failed()).then_some(Checked { outputs: vec![ACTIVITY_BAR.clone(), DEAD_LETTER.clone()], component });
        }
        if !rules.is_empty() {
            let help = "make a node for bars by time and another for those that end when enough has happened";
            cx.error(&["every"], "bars by time beside others", help);
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

impl Bars {
    /// The rules of bars that end when enough has happened, each once.
    fn rules(&self, cx: &mut Check<'_>) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        let mut add = |cx: &mut Check<'_>, path: &[&str], name: String, ending: Ending| {
            if rules.iter().any(|rule| rule.name == name) {
                cx.error(path, format!("there are two rules `{name}`"), "name each once");
            } else {
                rules.push(Rule { name, ending });
            }
        };
        for (at, ticks) in self.ticks.iter().enumerate() {
            let path = ["ticks", &at.to_string()];
            if positive(cx, &path, Decimal::from_integer((*ticks).into())) {
                add(cx, &path, format!("ticks {ticks}"), Ending::Sum(Measure::Ticks, Decimal::from_integer((*ticks).into())));
            }
        }
        let sizes: [(&str, &[values::Decimal], fn(Decimal) -> Ending); 4] = [
            ("volume", &self.volume, |size| Ending::Sum(Measure::Volume, size)),
            ("value", &self.value, |size| Ending::Sum(Measure::Value, size)),
            ("range", &self.range, Ending::Range),
            ("renko", &self.renko, Ending::Renko),
        ];
        for (name, sizes, ending) in sizes {
            for (at, size) in sizes.iter().enumerate() {
                let path = [name, &at.to_string()];
                if positive(cx, &path, size.0) {
                    add(cx, &path, format!("{name} {size}"), ending(size.0));
                }
            }
        }
        let flows: [(&str, &[Flow], fn(Measure, Until) -> Ending); 2] =
            [("imbalance", &self.imbalance, Ending::Imbalance), ("runs", &self.runs, Ending::Run)];
        for (name, flows, ending) in flows {
            for (at, flow) in flows.iter().enumerate() {
                let at = at.to_string();
                if let Some((of, measure, until, text)) = flow.rule(cx, &[name, &at]) {
                    add(cx, &[name, &at], format!("{name} of {of} {text}"), ending(measure, until));
                }
            }
        }
        rules
    }
}

/// Whether a size is one that something can reach.
fn positive(cx: &mut Check<'_>, path: &[&str], size: Decimal) -> bool {
    if size <= Decimal::ZERO || size.units() > combine::LARGEST {
        cx.error(path, format!("`{size}` ends no bar"), "name a number above 0 and up to 10^15");
    }
    size > Decimal::ZERO && size.units() <= combine::LARGEST
}

impl Flow {
    /// What is counted, how much of it ends a bar, and both in words.
    fn rule(&self, cx: &mut Check<'_>, path: &[&str]) -> Option<(&'static str, Measure, Until, String)> {
        let (of, measure) = match self.of {
            Of::Ticks => ("ticks", Measure::Ticks),
            Of::Volume => ("volume", Measure::Volume),
            Of::Value => ("value", Measure::Value),
        };
        match (&self.threshold, &self.expect) {
            (Some(threshold), None) => positive(cx, &[path, &["threshold"]].concat(), threshold.0)
                .then(|| (of, measure, Until::Fixed(threshold.0), threshold.to_string())),
            (None, Some(expect)) => Some((of, measure, Until::Expected(expect.expectation(cx, path)?), "expected".into())),
            _ => {
                cx.error(
                    path,
                    "neither or both of `threshold` and `expect`",
                    "name how much ends a bar: `threshold = \"10\"`, or `expect = { ... }`",
                );
                None
            }
        }
    }
}

impl Expect {
    fn expectation(&self, cx: &mut Check<'_>, path: &[&str]) -> Option<Expectation> {
        for (name, number) in [
            ("first", self.first),
            ("bars", self.bars),
            ("trades", self.trades),
            ("min_trades", self.min_trades),
            ("max_trades", self.max_trades),
        ] {
            if number == 0 {
                cx.error(&[path, &["expect", name]].concat(), format!("`{name}` is 0"), "name at least 1");
            }
        }
        if self.min_trades > self.max_trades {
            let message = format!("`min_trades` is {} and more than `max_trades`, {}", self.min_trades, self.max_trades);
            cx.error(&[path, &["expect", "min_trades"]].concat(), message, "let a bar have at least `min_trades` and at most `max_trades`");
        }
        let weight = |span: u32| 2.0 / (f64::from(span) + 1.0);
        (!cx.failed()).then(|| Expectation {
            first: self.first.into(),
            bar_weight: weight(self.bars),
            trade_weight: weight(self.trades),
            bounds: (self.min_trades.into(), self.max_trades.into()),
        })
    }
}

/// The checked operator for bars by time.
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

/// The checked operator for bars that end when enough has happened.
#[derive(Debug)]
struct ActivityBars {
    rules: Vec<Rule>,
    late: Late,
}

impl Operator for ActivityBars {
    fn build<'scope>(&self, input: Stream<'scope>, cx: &Context) -> Stream<'scope> {
        dataflow::keyed(input, cx, &[&TRADE.name], Route::Instrument, Stage::ONLY, Activity::new(self.rules.clone(), self.late))
    }
}
