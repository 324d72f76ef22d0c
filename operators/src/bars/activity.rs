//! Bars that end when enough has happened, whatever the clock says: information arrives with trades, not with seconds.
//!
//! The rules are those of [`super`]. No trade is divided: a bar holds the trade that ended it whole. What is expected of a bar is fixed when
//! it begins.
//!
//! Which trades a bar has depends on their order, so trades wait until the watermark has passed them and are taken by (event
//! time, trade id): bars then depend on neither arrival nor batches nor workers, and are never revised. State: one bar under
//! construction for each instrument and rule, and the trades that wait.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::i256;
use model::kinds::{ACTIVITY_BAR, ActivityBar, ActivityBarBuilder, TradeRows};
use model::time::Micros;
use model::{Batch, Decimal, Origin};
use serde::{Deserialize, Serialize};

use super::Late;
use super::combine::notional;
use crate::instruments::{Instrument, Instruments, NONE, StateBuilder, read_state, states};
use crate::pages::{LARGE, Pages};
use crate::reorder::{Reorder, Timed, TradeId};
use crate::rows::bury;
use crate::{Advance, Keyed, Output, Snapshot};

/// What is counted of trades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Their number.
    Ticks,
    /// Their size in the base asset.
    Volume,
    /// Their size in the quote asset.
    Value,
}

/// When a bar ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    /// So much has changed hands.
    Sum(Measure, Decimal),
    /// One side exceeds the other.
    Imbalance(Measure, Until),
    /// One side reaches so much.
    Run(Measure, Until),
    /// Prices are so far apart.
    Range(Decimal),
    /// The price has left the last brick.
    Renko(Decimal),
}

/// How much of an imbalance or a run it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Until {
    /// So much.
    Fixed(Decimal),
    /// More than expected.
    Expected(Expectation),
}

/// How what is expected follows from what was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expectation {
    /// Trades of the first bar, before anything is known.
    pub first: u64,
    /// The weight of the last bar in the expected number of trades, 2 / (span + 1).
    pub bar_weight: f64,
    /// The weight of the last trade in what is expected of one.
    pub trade_weight: f64,
    /// The least and the most trades of a bar.
    pub bounds: (u64, u64),
}

/// A rule with the name that its bars have.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What stands in the column `rule`.
    pub name: String,
    /// When a bar ends.
    pub ending: Ending,
}

/// A trade that waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Print {
    time: Micros,
    number: u32,
    id: TradeId,
    price: i128,
    quantity: i128,
    fills: i64,
    bought: bool,
}

impl Timed for Print {
    fn time(&self) -> Micros {
        self.time
    }

    fn number(&self) -> u32 {
        self.number
    }
}

/// What has changed hands: trades, units of the base asset (10⁻¹²) and of the quote asset (10⁻²⁴).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sums {
    trades: i64,
    volume: i128,
    #[serde(with = "wide")]
    value: i256,
}

/// 256 bits in a checkpoint.
mod wide {
    use arrow::datatypes::i256;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &i256, serializer: S) -> Result<S::Ok, S::Error> {
        number.to_parts().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i256, D::Error> {
        <(u128, i128)>::deserialize(deserializer).map(|(low, high)| i256::from_parts(low, high))
    }
}

impl Sums {
    fn of(print: &Print, value: i256) -> Sums {
        Sums { trades: print.fills, volume: print.quantity, value }
    }

    fn add(&mut self, other: Sums) {
        self.trades += other.trades;
        self.volume += other.volume;
        self.value = self.value.wrapping_add(other.value);
    }

    fn minus(self, other: Sums) -> Sums {
        Sums { trades: self.trades - other.trades, volume: self.volume - other.volume, value: self.value.wrapping_sub(other.value) }
    }

    /// One measure of it, in units of 10⁻²⁴ whatever the measure.
    fn get(&self, measure: Measure) -> i256 {
        match measure {
            Measure::Ticks => Decimal::from_integer(self.trades).mul_exact(Decimal::ONE),
            Measure::Volume => i256::from_i128(self.volume).wrapping_mul(i256::from_i128(Decimal::ONE.units())),
            Measure::Value => self.value,
        }
    }
}

/// What is expected of bars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Expected {
    /// Trades of a bar; none before the first has ended.
    trades: Option<f64>,
    /// What is expected of a trade of the bar at hand: as it was when it began.
    means: Means,
    /// The same with the trades of the bar at hand.
    running: Means,
}

/// Means of trades, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Means {
    /// What a trade moves, with the taker's sign.
    imbalance: Option<f64>,
    /// The share of trades whose taker bought.
    bought: Option<f64>,
    /// What a trade moves whose taker bought.
    buy: Option<f64>,
    /// What a trade moves whose taker sold.
    sell: Option<f64>,
}

/// A bar under construction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Building {
    start: Micros,
    end: Micros,
    first: TradeId,
    last: TradeId,
    open: i128,
    high: i128,
    low: i128,
    close: i128,
    /// Number of records.
    records: u64,
    all: Sums,
    bought: Sums,
}

/// How far a rule is with an instrument.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Progress {
    /// The number of the bar at hand.
    number: i64,
    building: Option<Building>,
    expected: Expected,
    /// Where the last brick begins and ends; both are the first price before there is one.
    brick: Option<(i128, i128)>,
}

/// What is kept of an instrument.
#[derive(Clone, Debug, Default)]
struct Track {
    rules: Vec<Progress>,
}

/// What a checkpoint stores of an instrument.
#[derive(Serialize, Deserialize)]
struct Stored {
    rules: Vec<Progress>,
    waiting: Vec<Print>,
}

/// Bars by activity, of the instruments of a worker.
#[derive(Debug)]
pub struct Activity {
    rules: Vec<Rule>,
    late: Late,
    instruments: Instruments,
    reorder: Reorder<Print>,
    tracks: Pages<Track, LARGE>,
    made: ActivityBarBuilder,
}

impl Activity {
    /// Bars by these rules.
    pub fn new(rules: Vec<Rule>, late: Late) -> Self {
        Activity {
            rules,
            late,
            instruments: Instruments::default(),
            reorder: Reorder::default(),
            tracks: Pages::default(),
            made: ActivityBarBuilder::default(),
        }
    }

    /// Takes the trades of a batch in.
    fn take(&mut self, advance: &Advance, batch: &Batch, out: &mut Output) {
        let trades = TradeRows::of(&batch.rows).expect("only trades are consumed");
        let buys: Vec<bool> = trades.side.values().as_string::<i32>().iter().map(|side| side == Some("buy")).collect();
        let sides = trades.side.keys().values();
        let mut accepted = 0;
        for (row, number) in self.instruments.resolve(&batch.rows).into_iter().enumerate() {
            let (time, price, quantity) = (trades.event_time.value(row), trades.price.value(row), trades.quantity.value(row));
            if number == NONE || batch.diff(row) < 0 {
                bury(batch, row, "malformed", "it names no instrument, or takes a record back", advance.time, out);
            } else if time < advance.before {
                self.late.handle(advance, batch, &trades, row, out);
            } else if notional(price, quantity).is_none() {
                bury(batch, row, "overflow", "price times quantity is beyond what a bar can hold", advance.time, out);
            } else {
                accepted += 1;
                let id = TradeId::of(trades.trade_id.value(row));
                let (fills, bought) = (trades.fills.value(row), buys[sides[row] as usize]);
                self.reorder.push(Print { time, number, id, price, quantity, fills, bought });
            }
        }
        out.account().accept(accepted);
    }

    /// Takes a trade whose time has come into the bars of every rule.
    fn step(&mut self, print: &Print) {
        let Activity { rules, instruments, tracks, made, .. } = self;
        let track = tracks.entry(print.number as usize);
        track.rules.resize_with(rules.len(), Progress::default);
        let value = notional(print.price, print.quantity).expect("it was checked when the trade came");
        for (rule, progress) in rules.iter().zip(&mut track.rules) {
            let mut bars = Emit { rule: &rule.name, instrument: instruments.get(print.number), made };
            progress.take(rule.ending, print, Sums::of(print, value), &mut bars);
        }
    }
}

/// Where finished bars go.
struct Emit<'a> {
    rule: &'a str,
    instrument: &'a Instrument,
    made: &'a mut ActivityBarBuilder,
}

impl Emit<'_> {
    /// A bar of this number that ended at this threshold.
    fn bar(&mut self, number: i64, bar: &Building, threshold: Option<Decimal>) {
        let Building { all, bought, .. } = bar;
        let (volume, buy_volume) = (Decimal::from_units(all.volume), Decimal::from_units(bought.volume));
        let units = i256::from_i128(Decimal::ONE.units());
        let quote_volume = Decimal::from_quotient_rounded(all.value, units).expect("the sum of a bar fits");
        let vwap = (all.volume > 0).then(|| Decimal::from_quotient_rounded(all.value, i256::from_i128(all.volume))).flatten();
        let (first, last) = (bar.first.to_string(), bar.last.to_string());
        self.made.push(ActivityBar {
            venue: &self.instrument.venue,
            market: &self.instrument.market,
            symbol: &self.instrument.symbol,
            rule: self.rule,
            number,
            start: bar.start,
            end: bar.end,
            open: Decimal::from_units(bar.open),
            high: Decimal::from_units(bar.high),
            low: Decimal::from_units(bar.low),
            close: Decimal::from_units(bar.close),
            volume,
            quote_volume,
            buy_volume,
            sell_volume: Decimal::from_units(all.volume - bought.volume),
            trades: all.trades,
            vwap,
            threshold,
            first_trade_id: &first,
            last_trade_id: &last,
        });
    }
}

impl Building {
    fn at(print: &Print) -> Building {
        Building {
            start: print.time,
            end: print.time,
            first: print.id.clone(),
            last: print.id.clone(),
            open: print.price,
            high: print.price,
            low: print.price,
            close: print.price,
            records: 0,
            all: Sums::default(),
            bought: Sums::default(),
        }
    }

    fn add(&mut self, print: &Print, sums: Sums) {
        (self.end, self.close) = (print.time, print.price);
        self.last.clone_from(&print.id);
        self.high = self.high.max(print.price);
        self.low = self.low.min(print.price);
        self.records += 1;
        self.all.add(sums);
        if print.bought {
            self.bought.add(sums);
        }
    }

    /// What takers bought less what they sold.
    fn imbalance(&self, measure: Measure) -> i256 {
        self.bought.get(measure).wrapping_sub(self.all.minus(self.bought).get(measure))
    }

    /// The greater of what takers bought and sold.
    fn run(&self, measure: Measure) -> i256 {
        self.bought.get(measure).max(self.all.minus(self.bought).get(measure))
    }
}

impl Progress {
    fn take(&mut self, ending: Ending, print: &Print, sums: Sums, bars: &mut Emit<'_>) {
        let bar = self.building.get_or_insert_with(|| Building::at(print));
        bar.add(print, sums);
        let ended = match ending {
            Ending::Renko(size) => return self.lay(size.units(), print, bars),
            Ending::Sum(measure, threshold) => (bar.all.get(measure) >= exact(threshold)).then_some(Some(threshold)),
            Ending::Range(threshold) => (bar.high - bar.low >= threshold.units()).then_some(Some(threshold)),
            Ending::Imbalance(measure, until) => self.expected.ended(until, bar, bar.imbalance(measure).wrapping_abs(), Means::imbalance),
            Ending::Run(measure, until) => self.expected.ended(until, bar, bar.run(measure), Means::run),
        };
        if let Ending::Imbalance(measure, Until::Expected(expectation)) | Ending::Run(measure, Until::Expected(expectation)) = ending {
            self.expected.running.learn(expectation.trade_weight, print.bought, float(sums.get(measure)));
        }
        if let Some(threshold) = ended
            && let Some(bar) = self.building.take()
        {
            bars.bar(self.number, &bar, threshold);
            self.number += 1;
            if let Ending::Imbalance(_, Until::Expected(expectation)) | Ending::Run(_, Until::Expected(expectation)) = ending {
                mean(&mut self.expected.trades, expectation.bar_weight, bar.records as f64);
                self.expected.means = self.expected.running;
            }
        }
    }

    /// Lays the bricks that a price has come past. The first has the trades since the last brick; those of the same trade have none.
    fn lay(&mut self, size: i128, print: &Print, bars: &mut Emit<'_>) {
        let (mut open, mut close) = self.brick.unwrap_or((print.price, print.price));
        loop {
            // On from its end, or back from its beginning.
            let from = match print.price {
                price if price >= close.max(open) + size => close.max(open),
                price if price <= close.min(open) - size => close.min(open),
                _ => break,
            };
            let to = if print.price > from { from + size } else { from - size };
            let bar = self.building.take().unwrap_or_else(|| Building::at(print));
            let brick = Building { open: from, close: to, high: from.max(to), low: from.min(to), ..bar };
            bars.bar(self.number, &brick, Some(Decimal::from_units(size)));
            self.number += 1;
            (open, close) = (from, to);
        }
        self.brick = Some((open, close));
    }
}

/// A threshold in units of 10⁻²⁴.
fn exact(threshold: Decimal) -> i256 {
    threshold.mul_exact(Decimal::ONE)
}

/// Units of 10⁻²⁴ as a statistic.
fn float(units: i256) -> f64 {
    let coarse = units.wrapping_div(i256::from_i128(Decimal::ONE.units()));
    coarse.to_i128().map_or(f64::MAX, |coarse| coarse as f64 / Decimal::ONE.units() as f64)
}

/// An exponentially weighted mean, with one more value.
fn mean(mean: &mut Option<f64>, weight: f64, value: f64) {
    *mean = Some(mean.map_or(value, |mean| mean + weight * (value - mean)));
}

impl Means {
    /// Hears of a trade.
    fn learn(&mut self, weight: f64, bought: bool, moved: f64) {
        mean(&mut self.imbalance, weight, if bought { moved } else { -moved });
        mean(&mut self.bought, weight, f64::from(u8::from(bought)));
        mean(if bought { &mut self.buy } else { &mut self.sell }, weight, moved);
    }

    /// The imbalance that a trade is expected to add.
    fn imbalance(&self) -> f64 {
        self.imbalance.unwrap_or_default().abs()
    }

    /// What a trade is expected to add to the greater run.
    fn run(&self) -> f64 {
        let bought = self.bought.unwrap_or_default();
        (bought * self.buy.unwrap_or_default()).max((1.0 - bought) * self.sell.unwrap_or_default())
    }
}

impl Expected {
    /// Whether a bar ends, and at which threshold; none where it is the number of its trades that ends it.
    fn ended(&self, until: Until, bar: &Building, moved: i256, of_a_trade: impl Fn(&Means) -> f64) -> Option<Option<Decimal>> {
        let expectation = match until {
            Until::Fixed(threshold) => return (moved >= exact(threshold)).then_some(Some(threshold)),
            Until::Expected(expectation) => expectation,
        };
        let Some(trades) = self.trades else { return (bar.records >= expectation.first).then_some(None) };
        let threshold = trades * of_a_trade(&self.means);
        let (least, most) = expectation.bounds;
        if bar.records >= least && float(moved) >= threshold {
            return Some(Decimal::parse_rounded(format!("{threshold:.12}").as_bytes()).ok());
        }
        (bar.records >= most).then_some(None)
    }
}

impl Keyed for Activity {
    fn advance(&mut self, advance: &Advance, batches: Vec<Batch>, out: &mut Output) {
        for batch in &batches {
            self.take(advance, batch, out);
        }
        for print in self.reorder.release(advance.watermark) {
            self.step(&print);
        }
        if !self.made.is_empty() {
            let origin = batches.last().map_or(Origin::default(), |batch| batch.origin);
            out.emit(Batch::new(&ACTIVITY_BAR, self.made.finish(), origin));
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        self.tracks.grow(self.instruments.len());
        let (instruments, tracks, held) = (self.instruments.groups(), self.tracks.snapshot(), self.reorder.held());
        Box::new(move || {
            let groups = instruments.zip(tracks.into_groups()).map(|(group, tracks)| {
                let mut rows = StateBuilder::default();
                for ((number, instrument), track) in group.iter().zip(tracks.iter()) {
                    let waiting = held.get(&number).cloned().unwrap_or_default();
                    rows.push(instrument, "", &Stored { rules: track.rules.clone(), waiting });
                }
                rows.finish()
            });
            groups.collect()
        })
    }

    fn restore(&mut self, state: &[RecordBatch]) {
        let Activity { instruments, tracks, reorder, .. } = self;
        states(state, instruments, |number, _, bytes| {
            let Stored { rules, waiting } = read_state(bytes);
            tracks.entry(number as usize).rules = rules;
            waiting.into_iter().for_each(|print: Print| reorder.push(Print { number, ..print }));
        });
    }
}
