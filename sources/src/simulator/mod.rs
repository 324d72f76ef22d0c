//! A market that is made up, in the venues' own frames: for trying pipelines out, for tests and for benchmarks.
//!
//! Promises, and why they hold: a seed and the options but `rate` give the same bytes on every machine, because
//! all chance comes from one seeded generator, time from the simulation and every operation from IEEE 754.
//! Without faults the frames are what the venues promise: trade ids are dense, depth updates chain, the book
//! rebuilt from them equals every bookTicker of the same update number. With faults, the truth file says where
//! each one is, told from what was sent.
//!
//! `market` decides what happens, `frames` how the venue writes it, `simulation` what reaches the client.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use config::{Check, Checked, Component};
use model::kinds;
use model::time::{self, Micros};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Chunk, Clock, OpenSource, Position, Reader, Source, SourceError};

mod book;
mod client;
mod dice;
mod faults;
mod frames;
mod listing;
mod market;
mod path;
mod simulation;
#[cfg(test)]
mod tests;
mod truth;

pub use faults::Faults;
use simulation::{Plan, Simulation};
use truth::Truth;

/// Makes up a market and sends what its venues would: trades, depth updates with REST snapshots, best bids and
/// asks, mark prices with funding rates, in the venues' own frames. The same seed gives the same frames, byte
/// for byte. Faults can be injected at given rates, and a truth file tells where they are.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Simulator {
    /// What the frames follow from: another seed is another market.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Number of instruments, 1 to 1000, dealt out over Binance spot, USD-M and COIN-M: BTC on all three, then ETH, ...
    #[serde(default = "default_instruments")]
    #[schemars(range(min = 1, max = 1000))]
    pub instruments: u32,
    /// How fast the frames come: `"max"`, or a number of frames a second by the wall clock. Does not change the frames.
    #[serde(default)]
    pub rate: Rate,
    /// Number of frames in all. Without it the simulation never ends.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub frames: Option<u64>,
    /// Event time of the beginning, in RFC 3339, or `"now"`.
    #[serde(default = "default_start")]
    pub start: String,
    /// Mean number of frames in a second of event time; 50 per instrument without it. With `start = "now"`, give
    /// `rate` the same number, and event time keeps up with the clock.
    #[serde(default)]
    pub tempo: Option<f64>,
    /// Rates of injected faults: each is the chance, from 0 to 1, that a frame which the fault can befall is hit.
    #[serde(default)]
    pub faults: Faults,
    /// File to write the truth to: a line of JSON for every injected fault.
    #[serde(default)]
    pub truth: Option<PathBuf>,
    /// How event time advances.
    #[serde(flatten)]
    pub clock: Clock,
}

/// How fast frames come.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`rate` is \"max\" or a number of frames a second")]
pub enum Rate {
    /// As fast as they are taken.
    Unlimited(Max),
    /// So many a second.
    PerSecond(f64),
}

/// The word `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Max {
    /// No limit.
    Max,
}

impl Default for Rate {
    fn default() -> Self {
        Rate::Unlimited(Max::Max)
    }
}

fn default_seed() -> u64 {
    1
}

fn default_instruments() -> u32 {
    20
}

fn default_start() -> String {
    "2026-01-01T00:00:00Z".into()
}

/// Frames in a second of event time, per instrument, where `tempo` is not given.
const TEMPO: f64 = 50.0;
/// Frames of a chunk at full speed.
const CHUNK: usize = 4_096;
/// Chunks in a second where the rate is limited.
const CHUNKS_A_SECOND: f64 = 20.0;

impl Component<dyn Source> for Simulator {
    const TYPE: &'static str = "simulator";
    const EXAMPLE: &'static str = r#"[sources.market]
type = "simulator"
instruments = 20
rate = "max"            # or a number of frames a second
frames = 1_000_000
faults = { sequence_gap = 0.0001, price_spike = 0.0001, malformed = 0.0001 }
truth = "data/truth.ndjson"
"#;

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Source>> {
        if !(1..=listing::MOST).contains(&self.instruments) {
            cx.error(&["instruments"], format!("{} instruments", self.instruments), format!("give a number from 1 to {}", listing::MOST));
        }
        if self.frames == Some(0) {
            cx.error(&["frames"], "a simulation of no frames", "give at least 1, or leave `frames` out for one that never ends");
        }
        let positive = |number: f64| number.is_finite() && number > 0.0;
        let rate = match self.rate {
            Rate::Unlimited(_) => None,
            Rate::PerSecond(rate) => Some(rate),
        };
        if let Some(rate) = rate.filter(|rate| !positive(*rate)) {
            cx.error(&["rate"], format!("a rate of {rate} frames a second"), "give a number above 0, or \"max\"");
        }
        let tempo = self.tempo.unwrap_or(TEMPO * f64::from(self.instruments));
        if !positive(tempo) {
            cx.error(&["tempo"], format!("a tempo of {tempo} frames a second"), "give a number above 0");
        }
        let start = match self.start.as_str() {
            "now" => {
                if rate != Some(tempo) {
                    cx.warn(
                        &["start"],
                        format!("event time starts now, but {tempo} frames make a second of it whatever the clock says"),
                        format!("set `rate = {tempo}` so that it keeps up with the clock"),
                    );
                }
                None
            }
            text => match DateTime::parse_from_rfc3339(text) {
                Ok(start) => Some(start.timestamp_micros()),
                Err(error) => {
                    cx.error(&["start"], format!("`{text}` is no time: {error}"), "write it like 2026-01-01T00:00:00Z, or \"now\"");
                    None
                }
            },
        };
        let mut sum = 0.0;
        for (fault, rate) in self.faults.rates() {
            if !(0.0..=1.0).contains(&rate) {
                cx.error(&["faults", fault.name()], format!("a rate of {rate}"), "give the chance that a frame is hit, from 0 to 1");
            }
            sum += rate;
        }
        if sum > 1.0 {
            cx.error(
                &["faults"],
                format!("the rates add up to {sum}, and a frame is hit by at most one fault"),
                "let them add up to at most 1",
            );
        }
        let plan = Plan {
            source: cx.node().to_owned(),
            seed: self.seed,
            instruments: self.instruments,
            frames: self.frames,
            start: start.unwrap_or_default(),
            tempo,
            faults: self.faults,
        };
        let component = Arc::new(CheckedSimulator { plan, now: start.is_none(), rate, truth: self.truth, clock: self.clock });
        (!cx.failed()).then_some(Checked { outputs: vec![kinds::FRAME.clone()], component })
    }
}

/// A simulator whose options are good.
#[derive(Debug)]
struct CheckedSimulator {
    plan: Plan,
    /// Starts at the time of opening instead of the plan's.
    now: bool,
    rate: Option<f64>,
    truth: Option<PathBuf>,
    clock: Clock,
}

#[async_trait]
impl Source for CheckedSimulator {
    fn clock(&self) -> Clock {
        self.clock
    }

    async fn open(&self, cx: OpenSource) -> Result<Box<dyn Reader>, SourceError> {
        let start: Micros = match &cx.from {
            Some(from) => from.identity.cast_signed(),
            None if self.now => time::now(),
            None => self.plan.start,
        };
        let truth = Truth::open(self.truth.as_deref())?;
        let simulation = Simulation::new(&Plan { start, ..self.plan.clone() }, truth);
        let mut frames = Frames { simulation, frames: self.plan.frames, start, rate: self.rate, paced: None };
        if let Some(from) = &cx.from {
            frames.pass(from)?;
        }
        Ok(Box::new(frames))
    }
}

/// The frames of an open simulation.
struct Frames {
    simulation: Simulation,
    /// How many frames it makes in all, if not for ever.
    frames: Option<u64>,
    /// Event time of the beginning: what tells a simulation from another of the same options.
    start: Micros,
    rate: Option<f64>,
    /// Since when frames come at the rate, and how many there were then.
    paced: Option<(tokio::time::Instant, u64)>,
}

impl Frames {
    /// Makes the frames up to a position anew, for nobody: what follows depends on them.
    fn pass(&mut self, from: &Position) -> Result<(), SourceError> {
        while self.simulation.frame() < from.frame {
            if self.simulation.next(self.room(from))?.num_rows() == 0 {
                break;
            }
        }
        if self.simulation.frame() == from.frame {
            return Ok(());
        }
        Err(SourceError {
            transient: false,
            place: format!("frame {}", from.frame),
            what: "the simulation does not come by it again".into(),
            remedy: "give the simulator the options it had before, or begin anew with `--fresh`".into(),
        })
    }

    /// The most frames of a chunk that ends at a position at the latest. Positions lie between two turns of the
    /// simulation, as ends of chunks do.
    fn room(&self, until: &Position) -> usize {
        usize::try_from(until.frame - self.simulation.frame()).unwrap_or(CHUNK).min(CHUNK)
    }
}

#[async_trait]
impl Reader for Frames {
    async fn next(&mut self, until: Option<&Position>) -> Result<Option<Chunk>, SourceError> {
        let mut chunk = CHUNK;
        if let Some(until) = until {
            chunk = self.room(until);
        } else if let Some(rate) = self.rate {
            // Nothing is made before the wait, so a drain that drops it loses nothing.
            let frame = self.simulation.frame();
            let (since, first) = *self.paced.get_or_insert_with(|| (tokio::time::Instant::now(), frame));
            let due = (frame - first) as f64 / rate;
            if let Some(due) = std::time::Duration::try_from_secs_f64(due).ok().and_then(|due| since.checked_add(due)) {
                tokio::time::sleep_until(due).await;
            }
            chunk = ((rate / CHUNKS_A_SECOND) as usize).clamp(1, CHUNK);
        }
        let rows = self.simulation.next(chunk)?;
        if rows.num_rows() == 0 {
            self.simulation.finish()?;
            return Ok(None);
        }
        let frame = self.simulation.frame();
        let position = Position { part: String::new(), offset: frame, frame, identity: self.start.cast_unsigned() };
        Ok(Some(Chunk { batches: vec![(kinds::FRAME.clone(), rows)], position, ..Chunk::default() }))
    }

    fn share(&self) -> Option<f64> {
        self.frames.map(|frames| self.simulation.frame() as f64 / frames.max(1) as f64)
    }
}

impl Drop for Frames {
    /// A drain ends a simulation early: what was told of it until then is the truth.
    fn drop(&mut self) {
        if let Err(error) = self.simulation.finish() {
            tracing::error!(%error, "the truth of the simulation is not complete");
        }
    }
}
