//! `price_spike`: a trade far from the prices of the last minutes.
//!
//! A trade at price x is suspect when |x − m| > k · 1.4826 · MAD + γ, with the median m and the median absolute
//! deviation MAD of the window before it (the Hampel identifier: F. R. Hampel, "The influence curve and its role in
//! robust estimation", 1974; 1.4826 makes MAD the standard deviation of normal noise). γ keeps a quiet market, where
//! MAD is zero, from alarming at each tick (C. T. Brownlees and G. M. Gallo, "Financial econometric analysis at
//! ultra-high frequency: data handling concerns", 2006): it is the tick or a share of the price, whichever is more.
//!
//! A suspect price does not enter the window. (Pulled in to the bound instead, a run of bad prices would still widen
//! it, and hide the next one.) But prices do jump, so suspects are counted: as many in a row as the option `confirm`
//! says, each near the one before, are the new level. The window then moves there with its spread as it was, a `closed`
//! record says that those trades were real, and for the length of a window γ is at least the size of that move: a
//! market that has just moved so far in earnest may do so again, and back. (Without this, a window that began in a
//! calm moment took 733 turns on the real moves of eleven recorded minutes, and reported a quarter of all trades;
//! with it, 4 turns and 40 trades, at `min_bps = 0`.) Waiting for what follows before a price is believed is the
//! one-pass test of the Olsen filter (M. M. Dacorogna et al., "An Introduction to High-Frequency Finance", 2001,
//! chapter 4), reduced to a count.

use std::collections::VecDeque;

use config::Check;
use config::values;
use model::columns::integer;
use model::kinds::TradeRows;
use model::time::Micros;
use model::{Decimal, time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::findings::{Finding, Findings, State};
use super::window::{Window, median};
use super::{Detector, Options, Place, Rows, Saved};
use crate::cause::Cause;
use crate::instruments::read_state;
use crate::pages::{LARGE, Pages};
use crate::reorder::{Reorder, Timed, TradeId};

/// The detector's name.
pub const NAME: &str = "price_spike";

/// What makes MAD an estimate of the standard deviation.
const NORMAL: f64 = 1.4826;

/// Prices beyond are judged as if they were this: differences must fit.
const MOST: i128 = model::book::levels::MAX_UNITS;

/// Options of `price_spike`: trades far from the median price of a rolling window.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PriceSpike {
    /// Length of the window, in event time.
    window: values::Duration,
    /// How many robust standard deviations (1.4826 MAD) from the median a price may lie.
    threshold: f64,
    /// The smallest price increment of the instruments. Default: the smallest difference of neighbouring prices seen.
    tick: Option<values::Decimal>,
    /// A price within so many basis points of the median is never a spike, however quiet the market.
    min_bps: values::Decimal,
    /// No trade is judged before the window has so many points.
    min_trades: u32,
    /// So many suspect trades in a row, each near the one before, are a new price level and no longer reported.
    confirm: u32,
    /// How many points the window holds: it is divided into so many slots, and a slot keeps its first price.
    max_points: u32,
}

impl Default for PriceSpike {
    fn default() -> Self {
        PriceSpike {
            window: values::Duration::seconds(300),
            threshold: 6.0,
            tick: None,
            min_bps: values::Decimal(Decimal::from_integer(50)),
            min_trades: 20,
            confirm: 10,
            max_points: 2_000,
        }
    }
}

impl Options for PriceSpike {
    fn check(&self, at: &Place, cx: &mut Check<'_>) {
        if self.window.micros() < time::SECOND {
            at.error(cx, "window", format!("the window is {}", self.window), "name a duration of at least 1s, such as `5m`");
        }
        if !(self.threshold > 0.0 && self.threshold.is_finite()) {
            at.error(
                cx,
                "threshold",
                format!("the threshold is {}", self.threshold),
                "name a number of standard deviations above 0, such as 6.0",
            );
        }
        if self.tick.is_some_and(|tick| tick.0 <= Decimal::ZERO || tick.0.units() > MOST) {
            at.error(cx, "tick", "the tick is not a price increment", "name a number above 0, or leave `tick` out to have it learned");
        }
        if !(0..=10_000).contains(&(self.min_bps.0.units() / Decimal::ONE.units())) || self.min_bps.0 < Decimal::ZERO {
            at.error(cx, "min_bps", format!("`min_bps` is {}", self.min_bps), "name a number of basis points from 0 to 10000");
        }
        for (option, value) in [("min_trades", self.min_trades), ("confirm", self.confirm)] {
            if value < 2 {
                at.error(cx, option, format!("`{option}` is {value}"), "name at least 2");
            }
        }
        if self.max_points < self.min_trades {
            at.error(
                cx,
                "max_points",
                format!("`max_points` is {} and less than `min_trades`, {}", self.max_points, self.min_trades),
                "let the window hold at least `min_trades` points",
            );
        }
    }

    fn detector(&self, _: &[&'static str]) -> Box<dyn Detector> {
        Box::new(Spikes { options: self.clone(), reorder: Reorder::default(), tracks: Pages::default() })
    }
}

/// A trade that waits to be judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Trade {
    time: Micros,
    number: u32,
    id: TradeId,
    price: i128,
    cause: Cause,
}

impl Timed for Trade {
    fn time(&self) -> Micros {
        self.time
    }

    fn number(&self) -> u32 {
        self.number
    }
}

/// What is kept of an instrument.
#[derive(Clone, Debug)]
struct Track {
    window: Window,
    /// The price before.
    last: Option<i128>,
    /// The smallest difference of neighbouring prices seen.
    tick: Option<i128>,
    /// The last confirmed move: when, and how far.
    moved: Option<(Micros, i128)>,
    /// Suspects in a row, each near the one before.
    run: VecDeque<Suspect>,
}

/// A trade that was reported.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Suspect {
    id: Option<i64>,
    price: i128,
}

/// What is stored of an instrument.
#[derive(Serialize, Deserialize)]
struct Stored {
    points: Vec<(Micros, i128)>,
    last: Option<i128>,
    tick: Option<i128>,
    moved: Option<(Micros, i128)>,
    run: VecDeque<Suspect>,
    waiting: Vec<Trade>,
}

/// The detector.
#[derive(Debug)]
struct Spikes {
    options: PriceSpike,
    reorder: Reorder<Trade>,
    tracks: Pages<Option<Track>, LARGE>,
}

impl Detector for Spikes {
    fn observe(&mut self, rows: &Rows<'_>, _: &mut Findings<'_>) {
        let trades = TradeRows::of(&rows.batch.rows).expect("only trades are shown");
        for row in rows.usable.iter().map(|row| *row as usize) {
            let cause = Cause {
                event_time: Some(trades.event_time.value(row)),
                receive_time: integer(trades.receive_time, row),
                frame: integer(trades.frame, row),
            };
            let (time, id) = (trades.event_time.value(row), TradeId::of(trades.trade_id.value(row)));
            self.reorder.push(Trade { time, number: rows.numbers[row], id, price: trades.price.value(row), cause });
        }
    }

    fn settle(&mut self, watermark: Micros, findings: &mut Findings<'_>) {
        let mut due = self.reorder.release(watermark);
        due.dedup_by(|a, b| (a.time, a.number, &a.id) == (b.time, b.number, &b.id));
        for trade in due {
            let track = track(&mut self.tracks, &self.options, trade.number);
            track.judge(&self.options, &trade, findings);
        }
    }

    fn snapshot(&mut self) -> Saved {
        let (mut tracks, held) = (self.tracks.snapshot().into_groups(), self.reorder.held());
        Box::new(move |group, states| {
            let tracks = tracks.next().unwrap_or_default();
            for (at, (number, instrument)) in group.iter().enumerate() {
                let track = tracks.get(at).and_then(Option::as_ref);
                let waiting = held.get(&number).cloned().unwrap_or_default();
                if track.is_none() && waiting.is_empty() {
                    continue;
                }
                let stored = Stored {
                    points: track.map(|t| t.window.points().collect()).unwrap_or_default(),
                    last: track.and_then(|t| t.last),
                    tick: track.and_then(|t| t.tick),
                    moved: track.and_then(|t| t.moved),
                    run: track.map(|t| t.run.clone()).unwrap_or_default(),
                    waiting,
                };
                states.push(instrument, NAME, &stored);
            }
        })
    }

    fn load(&mut self, number: u32, state: &[u8]) {
        let stored: Stored = read_state(state);
        let track = track(&mut self.tracks, &self.options, number);
        (track.last, track.tick, track.moved, track.run) = (stored.last, stored.tick, stored.moved, stored.run);
        for (time, price) in stored.points {
            track.window.add(time, price);
        }
        for trade in stored.waiting {
            self.reorder.push(Trade { number, ..trade });
        }
    }
}

/// The state of an instrument, made when it is first asked for.
fn track<'t>(tracks: &'t mut Pages<Option<Track>, LARGE>, options: &PriceSpike, number: u32) -> &'t mut Track {
    let window = || Window::new(options.window.micros(), options.max_points as usize);
    let track = || Track { window: window(), last: None, tick: None, moved: None, run: VecDeque::new() };
    tracks.entry(number as usize).get_or_insert_with(track)
}

impl Track {
    fn judge(&mut self, options: &PriceSpike, trade: &Trade, findings: &mut Findings<'_>) {
        let price = trade.price.clamp(-MOST, MOST);
        self.window.expire(trade.time);
        self.moved = self.moved.filter(|(time, _)| trade.time.saturating_sub(*time) < options.window.micros());
        let suspect = match self.window.median() {
            Some(center) if self.window.len() >= options.min_trades as usize => self.measure(options, price, center),
            _ => None,
        };
        match suspect {
            None => self.accept(trade.time, price),
            Some(suspect) => {
                self.report(options, trade, &suspect, findings);
                self.confirm(options, trade, price, &suspect, findings);
            }
        }
    }

    /// How far a price is from the window's median, if that is too far.
    fn measure(&self, options: &PriceSpike, price: i128, center: i128) -> Option<Measured> {
        let distance = (price - center).abs();
        let tick = options.tick.map(|t| t.0.units()).or(self.tick).unwrap_or(0);
        let share = Decimal::from_units(center.abs()).mul_rounded(options.min_bps.0).map_or(0, |d| d.units() / 10_000);
        let floor = tick.max(share).max(self.moved.map_or(0, |(_, far)| far));
        if distance <= floor {
            return None;
        }
        let deviation = self.window.deviation(center);
        let bound = options.threshold * NORMAL * deviation as f64 + floor as f64;
        (distance as f64 > bound).then_some(Measured { center, distance, deviation, floor, bound })
    }

    /// A price that belongs to the market.
    fn accept(&mut self, time: Micros, price: i128) {
        let step = self.last.map(|last| (price - last).abs()).filter(|step| *step > 0);
        self.tick = [self.tick, step].into_iter().flatten().min();
        self.last = Some(price);
        self.run.clear();
        self.window.add(time, price);
    }

    fn report(&self, options: &PriceSpike, trade: &Trade, suspect: &Measured, findings: &mut Findings<'_>) {
        let unit = NORMAL * suspect.deviation as f64 + suspect.floor as f64 / options.threshold;
        let d = Decimal::from_units;
        findings.push(
            trade.number,
            Finding {
                anomaly: NAME,
                channel: "trade",
                cause: trade.cause,
                observed: Some(d(trade.price)),
                expected: Some(d(suspect.center)),
                score: Some(suspect.distance as f64 / unit),
                threshold: Some(options.threshold),
                window: Some(options.window.micros()),
                first: trade.id.number(),
                last: trade.id.number(),
                state: State::Open,
                detail: format_args!(
                    "the trade at {} is {} away from {}, the median of {} prices: more than {} x {NORMAL} x {} (MAD) + {}",
                    d(trade.price),
                    d(suspect.distance),
                    d(suspect.center),
                    self.window.len(),
                    options.threshold,
                    d(suspect.deviation),
                    d(suspect.floor),
                ),
            },
        );
    }

    /// Counts a suspect that is near the one before, and moves the window when they are enough.
    fn confirm(&mut self, options: &PriceSpike, trade: &Trade, price: i128, suspect: &Measured, findings: &mut Findings<'_>) {
        if self.run.back().is_some_and(|last| (price - last.price).abs() as f64 > suspect.bound) {
            self.run.clear();
        }
        self.run.push_back(Suspect { id: trade.id.number(), price });
        if self.run.len() < options.confirm as usize {
            return;
        }
        let mut prices: Vec<i128> = self.run.iter().map(|s| s.price).collect();
        prices.sort_unstable();
        let level = median(&prices).expect("the run is not empty");
        self.window.shift(level - suspect.center);
        // Farther than the one before, or it had not been suspect.
        self.moved = Some((trade.time, (level - suspect.center).abs()));
        let d = Decimal::from_units;
        findings.push(
            trade.number,
            Finding {
                anomaly: NAME,
                channel: "trade",
                cause: trade.cause,
                observed: Some(d(level)),
                expected: Some(d(suspect.center)),
                score: None,
                threshold: Some(options.threshold),
                window: Some(options.window.micros()),
                first: self.run.front().and_then(|s| s.id),
                last: trade.id.number(),
                state: State::Closed,
                detail: format_args!(
                    "{} trades in a row confirm {} as the new price level, after {}",
                    self.run.len(),
                    d(level),
                    d(suspect.center)
                ),
            },
        );
        self.accept(trade.time, price);
    }
}

/// A price too far from the median.
struct Measured {
    center: i128,
    distance: i128,
    deviation: i128,
    floor: i128,
    bound: f64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{Found, Rig, trade};
    use super::*;

    const OPTIONS: &str = "price_spike = { window = \"60s\", threshold = 5.0, min_trades = 10, confirm = 4, min_bps = 0 }";

    /// Trades a second apart.
    fn run(options: &str, prices: &[&str]) -> Vec<Found> {
        let mut rig = Rig::new(options);
        for (i, price) in (1_i64..).zip(prices) {
            rig.trades.push(trade("A", i * time::SECOND, i, price));
        }
        rig.finish();
        rig.found()
    }

    /// Twenty prices of median 100 and MAD 0.1, a tick of 0.1 apart.
    fn calm() -> Vec<&'static str> {
        ["100", "100.1", "99.9", "100", "99.9", "100.1", "100.2", "99.8", "100", "100.1"].repeat(2)
    }

    #[test]
    fn a_known_spike_is_found_with_its_numbers() {
        let mut prices = calm();
        prices.extend(["100.8", "100.9", "100"]);
        let found = run(OPTIONS, &prices);
        // 5 x 1.4826 x 0.1 + 0.1 = 0.8413: 100.8 passes, 100.9 does not.
        assert_eq!(found.len(), 1, "{found:?}");
        let spike = &found[0];
        assert_eq!(
            (spike.anomaly.as_str(), spike.channel.as_str(), spike.state.as_str(), spike.event_time),
            ("price_spike", "trade", "open", Some(22 * time::SECOND))
        );
        assert_eq!((spike.observed.as_deref(), spike.expected.as_deref()), (Some("100.9"), Some("100")));
        assert_eq!((spike.first, spike.last, spike.window, spike.frame), (Some(22), Some(22), Some(60), Some(22)));
        let score = 0.9 / (1.4826 * 0.1 + 0.1 / 5.0);
        assert!((spike.score.unwrap() - score).abs() < 1e-9 && spike.threshold == Some(5.0), "{spike:?}");
        assert_eq!(
            spike.detail,
            "the trade at 100.9 is 0.9 away from 100, the median of 21 prices: more than 5 x 1.4826 x 0.1 (MAD) + 0.1"
        );
    }

    #[test]
    fn a_run_of_bad_prices_does_not_poison_the_window() {
        let mut prices = calm();
        prices.extend(["150", "20", "150", "100", "150", "150.1", "150", "100.1", "150"]);
        let found = run(OPTIONS, &prices);
        assert_eq!(found.len(), 7);
        assert!(found.iter().all(|f| f.state == "open" && f.expected.as_deref() == Some("100")), "{found:?}");
    }

    #[test]
    fn a_level_shift_is_reported_and_then_accepted() {
        let mut prices = calm();
        prices.extend(["110", "110.1", "109.9", "110", "110.2", "110", "109.8", "110.1", "99.9", "121", "110"]);
        let found = run(OPTIONS, &prices);
        let states: Vec<_> = found.iter().map(|f| (f.state.as_str(), f.event_time.unwrap() / time::SECOND)).collect();
        assert_eq!(states, [("open", 21), ("open", 22), ("open", 23), ("open", 24), ("closed", 24), ("open", 30)]);
        assert_eq!(
            (found[4].observed.as_deref(), found[4].expected.as_deref(), found[4].first, found[4].last),
            (Some("110"), Some("100"), Some(21), Some(24))
        );
        // Back at the old level is no farther than the market has just moved; beyond that is.
        assert_eq!((found[5].observed.as_deref(), found[5].expected.as_deref()), (Some("121"), Some("110")));
    }

    #[test]
    fn a_confirmed_move_is_forgotten_with_the_window() {
        let mut prices = calm();
        prices.extend(["110"; 4]);
        prices.extend(["110", "110.1", "109.9"].repeat(25));
        prices.push("100");
        let found = run(OPTIONS, &prices);
        assert_eq!(
            found.last().map(|f| (f.observed.as_deref(), f.state.as_str(), f.event_time)),
            Some((Some("100"), "open", Some(100 * time::SECOND)))
        );
    }

    #[test]
    fn a_quiet_market_does_not_alarm_at_a_tick() {
        let mut prices = vec!["100"; 30];
        prices.extend(["100.1", "100", "100.2", "100"]);
        // All prices are equal: MAD is 0, and no tick is known before the first change.
        assert_eq!(run(OPTIONS, &prices).len(), 2);
        let ticked = OPTIONS.replace("min_bps = 0", "min_bps = 0, tick = 0.1");
        assert_eq!(run(&ticked, &prices).iter().map(|f| f.observed.clone().unwrap()).collect::<Vec<_>>(), ["100.2"]);
        assert_eq!(run(&OPTIONS.replace("min_bps = 0", "min_bps = 20"), &prices), []);
    }

    #[test]
    fn nothing_is_judged_before_the_window_is_warm_or_after_it_has_emptied() {
        let mut prices = calm()[..9].to_vec();
        prices.push("500");
        assert_eq!(run(OPTIONS, &prices), []);
        let mut rig = Rig::new(OPTIONS);
        for (i, price) in (1_i64..).zip(calm()) {
            rig.trades.push(trade("A", i * time::SECOND, i, price));
        }
        rig.trades.push(trade("A", 500 * time::SECOND, 500, "300"));
        rig.finish();
        assert_eq!(rig.found(), []);
    }

    #[test]
    fn instruments_are_judged_apart() {
        let mut rig = Rig::new(OPTIONS);
        for (i, price) in (1_i64..).zip(calm()) {
            rig.trades.push(trade("A", i * time::SECOND, i, price));
            rig.trades.push(trade("B", i * time::SECOND, i, "7"));
        }
        rig.trades.push(trade("A", 30 * time::SECOND, 30, "7"));
        rig.finish();
        assert_eq!(rig.found().iter().map(|f| f.symbol.as_str()).collect::<Vec<_>>(), ["A"]);
    }

    #[test]
    fn absurd_prices_are_spikes_and_no_overflow() {
        let mut prices = calm();
        prices.extend(["99999999999999999999999999", "-99999999999999999999999999", "100"]);
        assert_eq!(run(OPTIONS, &prices).len(), 2);
        assert_eq!(run(OPTIONS, &["99999999999999999999999999", "-99999999999999999999999999"].repeat(20)), []);
    }

    #[test]
    fn repeated_trades_count_once() {
        let mut rig = Rig::new(OPTIONS);
        for (i, price) in (1_i64..).zip(calm()) {
            rig.trades.push(trade("A", i * time::SECOND, i, price));
        }
        for _ in 0..6 {
            rig.trades.push(trade("A", 30 * time::SECOND, 30, "150"));
        }
        rig.finish();
        assert_eq!(rig.found().len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Trades that arrive in any order within the watermark, in any batches, give the same.
        #[test]
        fn arrival_does_not_matter(
            prices in proptest::collection::vec((95_i64..105, 0_i64..40, 0_i64..3), 40..160),
            jitter in proptest::collection::vec(0_i64..5, 160),
            chunk in 1_usize..30,
        ) {
            let mut clock = 0;
            let trades: Vec<_> = (1_i64..).zip(prices).map(|(id, (price, odd, step))| {
                clock += step * time::SECOND / 2;
                let price = if odd == 0 { price * 2 } else { price };
                trade("A", clock, id, &price.to_string())
            }).collect();
            let mut whole = Rig::new(OPTIONS);
            whole.trades.clone_from(&trades);
            whole.finish();
            // A trade may come up to five places late.
            let mut shuffled: Vec<_> = trades.into_iter().zip(jitter).enumerate().map(|(i, (t, j))| (i as i64 + j, t)).collect();
            shuffled.sort_by_key(|(place, _)| *place);
            let mut parts = Rig::new(OPTIONS);
            let shuffled: Vec<_> = shuffled.into_iter().map(|(_, t)| t).collect();
            parts.feed_within_watermark(&shuffled, chunk);
            prop_assert_eq!(parts.late(), 0);
            prop_assert_eq!(whole.found(), parts.found());
        }
    }
}
