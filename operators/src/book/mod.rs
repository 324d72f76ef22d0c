//! `book`: order books rebuilt from the venues' deltas and snapshots, and what can be said of them.
//!
//! Each instrument has a state machine ([`state`]) that waits for a snapshot, puts the deltas on it by the
//! venue's rules ([`rules`]) and gives the book up when the chain of update numbers breaks. Rows are taken in
//! the order of their source (by frame, across kinds), so what comes out depends only on what came in.
//!
//! It promises: a metrics row stands only for a book that is a venue's snapshot and every change since; every
//! time a book begins or ceases to be that, and every time it contradicts itself (crossed) or the venue's own
//! best bid and ask (mismatch), is an event with the numbers.
//!
//! # Time
//!
//! - **Late rows**: there are none. Rows are taken in the order of their source, and samples by event time leave when the watermark has
//!   passed their span.
//! - **Corrections**: a venue corrects a book with a snapshot; nothing that was given is taken back.
//! - **Gaps**: the book is invalid from a gap to the next snapshot, and no metrics are given in between.
//! - **Idle sources** do not hold samples up (`idle` of the source). A span in which nothing changed has no row.
//! - **State**: the levels of each book, 100,000 a side at most, what waits for a snapshot (`buffer_deltas`, `buffer_size`), and up to 1,024 quotes
//!   that wait to be compared.

use std::sync::Arc;

use config::values::{Decimal, Duration, Size};
use config::{Check, Checked, Component};
use model::kinds::{BOOK_DELTA, BOOK_EVENT, BOOK_METRICS, BOOK_SNAPSHOT, DEAD_LETTER};
use model::time::Micros;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::dataflow::{Route, Stage, keyed};
use crate::{Context, Operator, Stream};

pub mod metrics;
pub mod operator;
pub mod oracle;
mod rows;
pub mod rules;
mod sampling;
pub mod state;

use metrics::Measure;
pub use operator::Books;
use state::Limits;

/// The kinds that the operator reads.
const READS: [&str; 4] = ["book_delta", "book_snapshot", "quote", "gap"];

/// Rebuilds each instrument's order book from deltas and snapshots, and gives its metrics, the events of its
/// life (gaps and resyncs included) and, if asked, snapshots of it. Quotes of the venue among the inputs are
/// compared with the book at the same update number. Where a venue's changes have neither numbers nor checksums, `gap`s among the
/// inputs say when some are missing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Book {
    /// When to give metrics: `update` for a row after each delta, or a duration, such as `1s`, for the last state
    /// of the book in each such span of event time in which it changed.
    every: String,
    /// Over how many of the best levels of each side the imbalance is taken.
    levels: u32,
    /// How far from the mid, in basis points, the depth reaches.
    depth_bps: Decimal,
    /// Give snapshots of the book, too, as `book_snapshot` records of origin `book`. Default: none.
    snapshots: Option<Snapshots>,
    /// How many deltas of an instrument may wait for a snapshot; beyond it the oldest are dropped, with an event.
    buffer_deltas: u32,
    /// How much memory the waiting deltas of an instrument may take.
    buffer_size: Size,
}

/// Which snapshots of the book to give.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshots {
    /// Give the last state of the book in each such span of event time in which it changed, and its state at the
    /// end of the source.
    every: Duration,
    /// How many of the best levels of each side to give. Default: all.
    levels: Option<u32>,
}

impl Default for Book {
    fn default() -> Self {
        Book {
            every: "update".into(),
            levels: 5,
            depth_bps: Decimal(model::Decimal::from_integer(10)),
            snapshots: None,
            buffer_deltas: 10_000,
            buffer_size: Size(16 << 20),
        }
    }
}

impl Component<dyn Operator> for Book {
    const TYPE: &'static str = "book";
    const EXAMPLE: &'static str = r#"[operators.books]
type = "book"
inputs = ["market_data"]              # carries book_delta, book_snapshot and, to be compared, quote
every = "1s"
snapshots = { every = "1m", levels = 1000 }
"#;
    const MODULE: &'static str = include_str!("mod.rs");

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        let plan = self.plan(cx)?;
        let mut outputs = vec![BOOK_METRICS.clone(), BOOK_EVENT.clone()];
        outputs.extend(plan.snapshots.map(|_| BOOK_SNAPSHOT.clone()));
        outputs.push(DEAD_LETTER.clone());
        Some(Checked { outputs, component: Arc::new(plan) })
    }
}

impl Book {
    /// What the options say, if they can be followed.
    fn plan(&self, cx: &mut Check<'_>) -> Option<Plan> {
        cx.require(&READS);
        let carried = cx.carried();
        for kind in [&BOOK_DELTA, &BOOK_SNAPSHOT] {
            if !carried.iter().any(|k| k.name == kind.name) {
                let name = &kind.name;
                cx.error(
                    &["inputs"],
                    format!("no input of `{}` carries `{name}`", cx.node()),
                    format!("name an input that carries `{name}`: a book is a snapshot and the deltas since"),
                );
            }
        }
        let every = self.every(cx);
        if self.levels == 0 {
            cx.error(&["levels"], "`levels` is 0", "name at least 1 level");
        }
        let depth = self
            .depth_bps
            .0
            .div_rounded(model::Decimal::from_integer(10_000))
            .filter(|d| (0..=model::Decimal::ONE.units()).contains(&d.units()));
        if depth.is_none() {
            cx.error(
                &["depth_bps"],
                format!("`depth_bps` is {}", self.depth_bps),
                "name a number from 0 to 10000: basis points of the mid",
            );
        }
        if self.buffer_deltas == 0 {
            cx.error(&["buffer_deltas"], "`buffer_deltas` is 0", "let at least 1 delta wait: the first one after a snapshot was asked for");
        }
        let snapshots =
            self.snapshots.as_ref().map(|s| SnapshotPlan { every: s.every.micros(), levels: s.levels.map_or(usize::MAX, |l| l as usize) });
        if snapshots.is_some_and(|s| s.every == 0) {
            cx.error(&["snapshots", "every"], "snapshots cannot be given every 0s", "name a duration such as `1m`");
        }
        if snapshots.is_some_and(|s| s.levels == 0) {
            cx.error(&["snapshots", "levels"], "snapshots of 0 levels are empty", "name at least 1 level, or leave `levels` out for all");
        }
        if cx.failed() {
            return None;
        }
        Some(Plan {
            every,
            measure: Measure { levels: self.levels as usize, depth: depth? },
            snapshots,
            limits: Limits { deltas: self.buffer_deltas as usize, bytes: usize::try_from(self.buffer_size.0).unwrap_or(usize::MAX) },
        })
    }

    /// The span of the option `every`; `None` for each update.
    fn every(&self, cx: &mut Check<'_>) -> Option<Micros> {
        if self.every == "update" {
            return None;
        }
        match self.every.parse::<Duration>().map(Duration::micros) {
            Ok(0) => cx.error(&["every"], "metrics cannot be given every 0s", "write `update` for a row after each delta"),
            Ok(every) => return Some(every),
            Err(error) => cx.error(
                &["every"],
                format!("`{}` is neither `update` nor a duration: {error}", self.every),
                "write `update`, or a duration such as `1s`",
            ),
        }
        None
    }
}

/// What the operator does, checked.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The span of event time that a metrics row stands for; `None` for one after each delta.
    pub every: Option<Micros>,
    /// How a book is measured.
    pub measure: Measure,
    /// Which snapshots are given.
    pub snapshots: Option<SnapshotPlan>,
    /// How much may wait for a snapshot.
    pub limits: Limits,
}

/// Which snapshots are given.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotPlan {
    /// The span of event time that a snapshot stands for.
    pub every: Micros,
    /// How many levels of each side.
    pub levels: usize,
}

impl Operator for Plan {
    fn build<'scope>(&self, input: Stream<'scope>, cx: &Context) -> Stream<'scope> {
        keyed(input, cx, &READS, Route::Instrument, Stage::ONLY, Books::new(*self))
    }
}

#[cfg(test)]
mod tests;
