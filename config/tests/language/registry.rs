//! A handful of components that stand for the real ones, with options of every sort.

#![allow(dead_code, reason = "options are read to be checked; nothing runs here")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use config::values::{Decimal, Duration, Expression, Secret, Size};
use config::{Check, Checked, Component, Registry, declare};
use model::Kind;
use model::kinds::{ANOMALY, BAR, DEAD_LETTER, FRAME, QUOTE, TRADE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub trait Source: Debug {}
pub trait Operator: Debug {}
pub trait Sink: Debug {
    /// The password it would connect with.
    fn password(&self) -> &str;
}

pub type Pipelines = Registry<dyn Source, dyn Operator, dyn Sink>;

pub fn registry() -> Pipelines {
    Registry {
        sources: vec![declare::<dyn Source, File>(), declare::<dyn Source, Simulator>()],
        operators: vec![declare::<dyn Operator, Normalise>(), declare::<dyn Operator, Bars>(), declare::<dyn Operator, Detect>()],
        sinks: vec![declare::<dyn Sink, Store>(), declare::<dyn Sink, Print>()],
    }
}

/// Recorded frames.
///
/// Files are read in the order of their names.
#[derive(Debug, Deserialize, JsonSchema)]
struct File {
    /// The file, or a pattern like `data/*.gz`.
    path: String,
    /// How fast: `max`, or a factor of real time.
    #[serde(default)]
    pace: Pace,
    #[serde(flatten)]
    clock: Clock,
}

/// How event time advances.
#[derive(Debug, Deserialize, JsonSchema)]
struct Clock {
    /// How far event times may lie behind.
    #[serde(default)]
    disorder: Duration,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum Pace {
    #[default]
    #[serde(skip)]
    Default,
    Max(Max),
    Factor(f64),
}

#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Max {
    Max,
}

impl Source for File {}

impl Component<dyn Source> for File {
    const TYPE: &'static str = "file";
    const EXAMPLE: &'static str = "[sources.trades]\ntype = \"file\"\npath = \"data/*.gz\"\n";
    fn check(self, _: &mut Check<'_>) -> Option<Checked<dyn Source>> {
        Some(Checked { outputs: vec![FRAME.clone()], component: Arc::new(self) })
    }
}

/// Made-up frames, the same for the same seed.
#[derive(Debug, Deserialize, JsonSchema)]
struct Simulator {
    /// How many instruments.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    instruments: u32,
    /// How many frames.
    frames: Option<u64>,
    /// Size of a tick by symbol.
    #[serde(default)]
    ticks: BTreeMap<String, Decimal>,
    /// Memory for frames.
    #[serde(default)]
    buffer: Size,
    /// Whether to repeat.
    #[serde(default)]
    repeat: bool,
}

fn one() -> u32 {
    1
}

impl Source for Simulator {}

impl Component<dyn Source> for Simulator {
    const TYPE: &'static str = "simulator";
    const EXAMPLE: &'static str = "[sources.market]\ntype = \"simulator\"\ninstruments = 20\n";
    fn check(self, _: &mut Check<'_>) -> Option<Checked<dyn Source>> {
        Some(Checked { outputs: vec![FRAME.clone()], component: Arc::new(self) })
    }
}

/// Turns frames into records.
#[derive(Debug, Deserialize, JsonSchema)]
struct Normalise {
    /// The kinds to keep.
    #[schemars(length(min = 1))]
    kinds: Vec<Wanted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Trade,
    Quote,
}

impl Operator for Normalise {}

impl Component<dyn Operator> for Normalise {
    const TYPE: &'static str = "normalise";
    const EXAMPLE: &'static str = "[operators.trades]\ntype = \"normalise\"\ninputs = [\"market\"]\nkinds = [\"trade\"]\n";
    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        cx.require(&["frame"]).then(|| {
            let kind = |wanted: &Wanted| -> Arc<Kind> { if *wanted == Wanted::Trade { TRADE.clone() } else { QUOTE.clone() } };
            let outputs = self.kinds.iter().map(kind).chain([DEAD_LETTER.clone()]).collect();
            Checked { outputs, component: Arc::new(self) as Arc<dyn Operator> }
        })
    }
}

/// Time bars of trades.
#[derive(Debug, Deserialize, JsonSchema)]
struct Bars {
    /// The length of a bar. Bars begin at multiples of it.
    every: Duration,
    /// Late rows revise a bar until then.
    #[serde(default)]
    lateness: Duration,
    /// What becomes of later rows.
    #[serde(default)]
    late: Late,
    /// Trades that count.
    #[serde(rename = "where")]
    condition: Option<Expression>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Late {
    /// They become dead letters.
    #[default]
    DeadLetter,
    /// They are only counted.
    Count,
}

impl Operator for Bars {}

impl Component<dyn Operator> for Bars {
    const TYPE: &'static str = "bars";
    const EXAMPLE: &'static str = "[operators.bars_1m]\ntype = \"bars\"\ninputs = [\"trades\"]\nevery = \"1m\"\nlateness = \"5s\"\n";
    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        if self.every.micros() == 0 {
            cx.error(&["every"], "a bar cannot have no length", "write e.g. `every = \"1m\"`");
        }
        if self.lateness > self.every {
            cx.warn(&["lateness"], "late rows are awaited for longer than a bar", "shorten it");
        }
        if let Some(Expression(sql)) = &self.condition
            && !TRADE.columns.iter().any(|c| sql.contains(c.name.as_ref()))
        {
            cx.error(&["where"], format!("`{sql}` names no column of `trade`"), "name one of its columns");
        }
        if !cx.require(&["trade"]) || cx.failed() {
            return None;
        }
        Some(Checked { outputs: vec![BAR.clone(), DEAD_LETTER.clone()], component: Arc::new(self) })
    }
}

/// Finds what should not be trusted.
#[derive(Debug, Deserialize, JsonSchema)]
struct Detect {
    /// What to look for.
    detect: Detectors,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Detectors {
    /// Prices far from the median.
    price_spike: Option<PriceSpike>,
    /// Feeds that fell silent.
    stale_feed: Option<StaleFeed>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct PriceSpike {
    /// How far back to look.
    window: Duration,
    /// How many deviations are too many.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    threshold: f64,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct StaleFeed {
    /// The longest silence.
    after: Duration,
}

impl Operator for Detect {}

impl Component<dyn Operator> for Detect {
    const TYPE: &'static str = "anomaly";
    const EXAMPLE: &'static str =
        "[operators.spikes]\ntype = \"anomaly\"\ninputs = [\"trades\"]\ndetect = { price_spike = { window = \"5m\", threshold = 6.0 } }\n";
    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        cx.require(&["trade", "quote"]).then(|| Checked { outputs: vec![ANOMALY.clone()], component: Arc::new(self) as Arc<dyn Operator> })
    }
}

/// Writes tables.
#[derive(Debug, Deserialize, JsonSchema)]
struct Store {
    /// Where the store is.
    url: String,
    /// The password.
    password: Option<Secret>,
    /// Rows are written when there are so many bytes of them.
    #[serde(default)]
    batch: Size,
}

impl Sink for Store {
    fn password(&self) -> &str {
        self.password.as_ref().map_or("", Secret::expose)
    }
}

impl Component<dyn Sink> for Store {
    const TYPE: &'static str = "store";
    const EXAMPLE: &'static str =
        "[sinks.hot]\ntype = \"store\"\ninputs = [\"bars_1m\"]\nurl = \"http://127.0.0.1:8123\"\npassword = \"${PASSWORD}\"\n";
    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Sink>> {
        let raw: Vec<String> =
            cx.inputs().iter().filter(|i| i.kinds.iter().any(|k| k.name == FRAME.name)).map(|i| i.node.clone()).collect();
        for node in raw {
            cx.error_at_input(&node, format!("`{node}` sends `frame`, which has no table"), "put `normalise` between them");
        }
        Some(Checked { outputs: vec![], component: Arc::new(self) })
    }
}

/// Prints rows.
#[derive(Debug, Deserialize, JsonSchema)]
struct Print {}

impl Sink for Print {
    fn password(&self) -> &str {
        ""
    }
}

impl Component<dyn Sink> for Print {
    const TYPE: &'static str = "print";
    const EXAMPLE: &'static str = "[sinks.out]\ntype = \"print\"\ninputs = [\"trades\"]\n";
    fn check(self, _: &mut Check<'_>) -> Option<Checked<dyn Sink>> {
        Some(Checked { outputs: vec![], component: Arc::new(self) })
    }
}
