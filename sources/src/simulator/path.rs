//! The path of an asset's price: a geometric random walk whose volatility clusters.
//!
//! Returns are normal with a variance that follows GARCH(1,1) on one-second returns, so that calm and wild
//! minutes alternate as they do in real markets. A weak pull back to the first price (over about a day) keeps an
//! endless run within the range of its ticks. Paths are floats; prices are the ticks that [`super::market`]
//! makes of them.

use model::time::{Micros, SECOND};

use super::dice::Dice;

/// Standard deviation of a one-second return in ordinary times: about 50 % a year.
const VOLATILITY: f64 = 0.9e-4;
/// Weight of the last squared return, of the last variance, and of the ordinary one.
const GARCH: (f64, f64, f64) = (0.08, 0.90, 0.02);
/// Bounds of the variance, as multiples of the ordinary one.
const HEAT: (f64, f64) = (0.1, 16.0);
/// Share of the way back to the first price that is gone in a second.
const PULL: f64 = 1.0 / 86_400.0;

/// The price of one asset in its quote currency.
#[derive(Debug)]
pub(super) struct Path {
    price: f64,
    origin: f64,
    now: Micros,
    /// The variance now and its root, as multiples of the ordinary ones.
    heat: f64,
    scale: f64,
    /// The return since `second` began, in ordinary standard deviations of a second.
    drift: f64,
    second: Micros,
}

impl Path {
    /// A path that begins with this price at this time.
    pub(super) fn new(price: f64, now: Micros) -> Self {
        Path { price, origin: price, now, heat: 1.0, scale: 1.0, drift: 0.0, second: now }
    }

    /// The price at `now`, which is not before the last time asked for.
    #[inline]
    pub(super) fn advance(&mut self, now: Micros, dice: &mut Dice) -> f64 {
        // A long wait counts as ten seconds: at most ten standard deviations, which keeps the price positive.
        let seconds = ((now - self.now) as f64 / SECOND as f64).min(10.0);
        self.now = now;
        let shock = dice.normal() * seconds.sqrt() * self.scale;
        self.drift += shock;
        if now - self.second >= SECOND {
            self.reheat(now);
        }
        self.price *= 1.0 + VOLATILITY * shock + PULL * seconds * (self.origin / self.price - 1.0);
        self.price
    }

    /// Takes the return of the second that ended into the variance.
    fn reheat(&mut self, now: Micros) {
        let seconds = (now - self.second) as f64 / SECOND as f64;
        let (last, before, ordinary) = GARCH;
        self.heat = (ordinary + before * self.heat + last * self.drift * self.drift / seconds).clamp(HEAT.0, HEAT.1);
        self.scale = self.heat.sqrt();
        self.drift = 0.0;
        self.second = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_in_range_and_clusters() {
        let mut dice = Dice::new(3, 0);
        let mut path = Path::new(100.0, 0);
        let (mut prices, mut now) = (vec![100.0], 0);
        for _ in 0..200_000 {
            now += SECOND;
            prices.push(path.advance(now, &mut dice));
        }
        assert!(prices.iter().all(|p| (60.0..160.0).contains(p)), "the path left its range");
        let squares: Vec<f64> = prices.windows(2).map(|p| (p[1] / p[0] - 1.0).powi(2)).collect();
        let mean = squares.iter().sum::<f64>() / squares.len() as f64;
        assert!((0.5..2.0).contains(&(mean.sqrt() / VOLATILITY)), "volatility {}", mean.sqrt());
        // Volatility clusters: squared returns of neighbouring seconds go together.
        let (variance, covariance) = (
            squares.iter().map(|s| (s - mean).powi(2)).sum::<f64>(),
            squares.windows(2).map(|s| (s[0] - mean) * (s[1] - mean)).sum::<f64>(),
        );
        assert!(covariance / variance > 0.05, "autocorrelation {}", covariance / variance);
    }
}
