//! Chance, reproducibly: every draw of a simulation comes from here.
//!
//! Only integer arithmetic and the operations that IEEE 754 fixes to the last bit (+, -, *, /, square root) are
//! used, here and in the price paths: a seed gives the same bytes on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// One stream of draws.
#[derive(Debug)]
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// The draws of a seed. Streams of one seed are independent of each other, so that what befalls the frames
    /// does not change the market behind them.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Dice(rng)
    }

    /// 32 random bits.
    #[inline]
    pub(super) fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A number from 0 to `n - 1`; `n` is at most 2³².
    #[inline]
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.bits()) * n as u64) >> 32) as usize
    }

    /// A number from `low` to `high`, both included.
    #[inline]
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as usize) as i64
    }

    /// True once in `n` draws.
    #[inline]
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A number of at least 1 with mean `mean + 1`, mostly small and sometimes four times as large: the sizes of
    /// trades and orders.
    #[inline]
    pub(super) fn size(&mut self, mean: i64) -> i64 {
        // The cube of a uniform number has mean 1/4. Nothing overflows for means below 2⁴⁵.
        let u = i64::from(self.bits() >> 16);
        let cube = (((u * u) >> 16) * u) >> 16;
        1 + ((4 * mean * cube) >> 16)
    }

    /// A waiting time with this mean, clustered like the arrivals of a market: four times the product of two
    /// uniform numbers, which has nearly the spread of an exponential.
    #[inline]
    pub(super) fn wait(&mut self, mean: f64) -> f64 {
        let bits = self.bits();
        let (u, v) = (f64::from(bits & 0xffff), f64::from(bits >> 16));
        mean * (u * v) * (4.0 / (65_535.0 * 65_535.0))
    }

    /// A draw with mean 0 and variance 1, nearly normal and never beyond 3.5: the sum of four uniform numbers.
    #[inline]
    pub(super) fn normal(&mut self) -> f64 {
        let bits = self.0.next_u64();
        let sum = (bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48);
        // The variance of one uniform number on 0..65535 is 65535² / 12 (to 10⁻⁹); √3 = 1 / √(4 / 12).
        (sum as f64 - 131_070.0) * (1.732_050_807_568_877_2 / 65_535.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_moments_they_promise() {
        let mut dice = Dice::new(7, 0);
        let n = 200_000;
        let (mut sum, mut squares, mut waits, mut sizes) = (0.0, 0.0, 0.0, 0);
        for _ in 0..n {
            let z = dice.normal();
            sum += z;
            squares += z * z;
            waits += dice.wait(3.0);
            sizes += dice.size(1_000);
        }
        let n = f64::from(n);
        assert!((sum / n).abs() < 0.01 && (squares / n - 1.0).abs() < 0.02, "mean {} variance {}", sum / n, squares / n);
        assert!((waits / n - 3.0).abs() < 0.05, "mean wait {}", waits / n);
        assert!((sizes as f64 / n - 1_000.0).abs() < 20.0, "mean size {}", sizes as f64 / n);
    }

    #[test]
    fn streams_of_a_seed_differ_and_repeat() {
        let draw = |seed, stream| {
            std::iter::repeat_with({
                let mut dice = Dice::new(seed, stream);
                move || dice.bits()
            })
            .take(8)
            .collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
    }
}
