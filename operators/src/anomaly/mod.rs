//! `anomaly`: what in the data should not be trusted, as records.
//!
//! Each detector is one file with its options, its state and its tests, and one line in `DETECTORS`. A detector
//! takes rows as they come and tells what it finds once the watermark has passed them, in the order of event
//! time; so what is found depends neither on the order of arrival within the watermark nor on batches or workers.
//! Rows that come behind the watermark are counted as late and kept as dead letters: judging them would make an
//! answer that was given already depend on when they came.
//!
//! # Time
//!
//! - **Late rows** are dead letters: their time has been judged.
//! - **Corrections**: an anomaly closes with a second record and is not taken back.
//! - **Gaps** are findings (`sequence_gap`), and no detector takes one for calm.
//! - **Idle sources** do not hold the watermark up (`idle` of the source); `stale_feed` tells of instruments that fall silent.
//! - **State**: for each instrument and detector, rows that the watermark has not passed and the window that the detector looks back on.

use std::fmt;
use std::sync::Arc;

use config::{Check, Checked, Component};
use model::kinds::{self, ANOMALY, DEAD_LETTER};
use model::time::Micros;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::dataflow::{Route, Stage, keyed};
use crate::instruments::{Group, StateBuilder};
use crate::{Context, Operator, Stream};

pub mod book_mismatch;
pub mod crossed_book;
mod findings;
mod operator;
pub mod price_spike;
pub mod sequence_gap;
pub mod stale_feed;
mod window;

pub use findings::{Finding, Findings, State};
pub use operator::{Detectors, Rows};

/// Looks for anomalies in what its inputs carry.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Anomaly {
    /// Which detectors look, each with its options: at least one.
    detect: Detect,
}

/// The detectors to run.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Detect {
    /// Trades far from the price of the last minutes.
    price_spike: Option<price_spike::PriceSpike>,
    /// Numbers that are missing in a sequence.
    sequence_gap: Option<sequence_gap::SequenceGap>,
    /// A best bid not below the best ask.
    crossed_book: Option<crossed_book::CrossedBook>,
    /// A rebuilt book that differs from the venue's own best bid and ask.
    book_mismatch: Option<book_mismatch::BookMismatch>,
    /// An instrument's feed that has fallen silent while others go on.
    stale_feed: Option<stale_feed::StaleFeed>,
}

/// The options of a detector.
pub trait Options: fmt::Debug + Send + Sync {
    /// Reports options that cannot be followed, at `detect` and the detector's name.
    fn check(&self, at: &Place, cx: &mut Check<'_>);
    /// Leaves out what the detector does not need beside the other kinds that are carried.
    fn select(&self, _kinds: &mut Vec<&'static str>) {}
    /// A detector with these options that is shown these kinds.
    fn detector(&self, kinds: &[&'static str]) -> Box<dyn Detector>;
}

/// Something that looks at rows.
pub trait Detector: fmt::Debug {
    /// Takes rows of a kind that it reads; none of them is late.
    fn observe(&mut self, rows: &Rows<'_>, findings: &mut Findings<'_>);
    /// No row before the watermark will come any more. Called once for each logical time.
    fn settle(&mut self, watermark: Micros, findings: &mut Findings<'_>);
    /// What is kept, as of now. Taking it must not take long.
    fn snapshot(&mut self) -> Saved;
    /// Takes over what [`Detector::snapshot`] stored of an instrument.
    fn load(&mut self, number: u32, state: &[u8]);
}

/// A detector's state as of one moment. It is called with each group of instruments, in order, and stores what was kept of
/// them, under the detector's name.
pub type Saved = Box<dyn FnMut(&Group, &mut StateBuilder) + Send>;

/// A detector of the table.
struct Entry {
    name: &'static str,
    /// The kinds that it can read.
    reads: fn() -> Vec<&'static str>,
    options: fn(&Detect) -> Option<&dyn Options>,
}

/// Every detector, in the order of the manual.
const DETECTORS: [Entry; 5] = [
    Entry { name: price_spike::NAME, reads: || vec!["trade"], options: |d| d.price_spike.as_ref().map(|o| o as _) },
    Entry { name: sequence_gap::NAME, reads: || vec!["trade", "book_event"], options: |d| d.sequence_gap.as_ref().map(|o| o as _) },
    Entry {
        name: crossed_book::NAME,
        reads: || vec!["quote", "book_metrics", "book_event"],
        options: |d| d.crossed_book.as_ref().map(|o| o as _),
    },
    Entry { name: book_mismatch::NAME, reads: || vec!["book_event"], options: |d| d.book_mismatch.as_ref().map(|o| o as _) },
    Entry {
        name: stale_feed::NAME,
        reads: || kinds::market_data().map(|k| k.name.as_ref()).filter(|kind| !stale_feed::OCCASIONAL.contains(kind)).collect(),
        options: |d| d.stale_feed.as_ref().map(|o| o as _),
    },
];

/// Where the options of a detector stand: says so in problems.
#[derive(Clone, Copy, Debug)]
pub struct Place(&'static str);

impl Place {
    /// Reports an error at one of the detector's options.
    pub fn error(&self, cx: &mut Check<'_>, option: &str, message: impl Into<String>, help: impl Into<String>) {
        cx.error(&["detect", self.0, option], message, help);
    }
}

impl Component<dyn Operator> for Anomaly {
    const TYPE: &'static str = "anomaly";
    const EXAMPLE: &'static str = r#"[operators.anomalies]
type = "anomaly"
inputs = ["market_data", "books"]     # what the detectors read: trade, quote, book_event, ...

[operators.anomalies.detect]
price_spike = { window = "5m", threshold = 6.0 }
sequence_gap = {}
crossed_book = {}
book_mismatch = {}
stale_feed = { after = "30s" }
"#;
    const MODULE: &'static str = include_str!("mod.rs");

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        let plan = self.plan(cx)?;
        Some(Checked { outputs: vec![ANOMALY.clone(), DEAD_LETTER.clone()], component: Arc::new(plan) })
    }
}

impl Anomaly {
    /// What the options say, if it can be followed.
    fn plan(self, cx: &mut Check<'_>) -> Option<Plan> {
        let chosen = DETECTORS.iter().filter_map(|entry| (entry.options)(&self.detect).map(|options| (entry, options)));
        let chosen: Vec<(&Entry, &dyn Options)> = chosen.collect();
        if chosen.is_empty() {
            let names: Vec<String> = DETECTORS.iter().map(|e| format!("`{}`", e.name)).collect();
            cx.error(&["detect"], "no detector is named", format!("name at least one of {}", names.join(", ")));
            return None;
        }
        let carried = cx.carried();
        let carries = |name: &str| carried.iter().any(|k| k.name == name);
        let mut reads: Vec<&'static str> = Vec::new();
        for (entry, options) in chosen {
            let wanted = (entry.reads)();
            options.check(&Place(entry.name), cx);
            if !wanted.iter().any(|kind| carries(kind)) {
                let wanted: Vec<String> = wanted.iter().map(|kind| format!("`{kind}`")).collect();
                let wanted = wanted.join(" or ");
                cx.error(
                    &["detect", entry.name],
                    format!("`{}` reads {wanted}, but no input of `{}` carries it", entry.name, cx.node()),
                    format!("name an input that carries {wanted}, or leave `{}` out", entry.name),
                );
            }
            for kind in wanted {
                if !reads.contains(&kind) {
                    reads.push(kind);
                }
            }
        }
        if !cx.failed() {
            cx.require(&reads);
        }
        reads.retain(|kind| carries(kind));
        (!cx.failed()).then_some(Plan { detect: self.detect, carried: reads })
    }
}

/// The checked operator.
#[derive(Debug)]
struct Plan {
    detect: Detect,
    /// The kinds that some detector can read and some input carries.
    carried: Vec<&'static str>,
}

impl Plan {
    /// The detectors, each with the kinds it is shown.
    fn detectors(&self) -> Detectors {
        let chosen = DETECTORS.iter().filter_map(|entry| (entry.options)(&self.detect).map(|options| (entry, options)));
        Detectors::new(chosen.map(|(entry, options)| {
            let mut kinds = (entry.reads)();
            kinds.retain(|kind| self.carried.contains(kind));
            options.select(&mut kinds);
            (entry.name, options.detector(&kinds), kinds)
        }))
    }
}

impl Operator for Plan {
    fn build<'scope>(&self, input: Stream<'scope>, cx: &Context) -> Stream<'scope> {
        let detectors = self.detectors();
        let reads = detectors.reads();
        keyed(input, cx, &reads, Route::Instrument, Stage::ONLY, detectors)
    }
}

#[cfg(test)]
pub(crate) mod tests;
