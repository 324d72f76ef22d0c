//! The median of the prices of the last minutes, and their median absolute deviation from it.
//!
//! A point enters at most once in each slot of the window (its first price), so that the window always spans its
//! whole length with a bounded number of points, and a burst of trades on one event weighs as much as a calm moment.
//! The points are kept in the order of time and, sorted, in the order of price: the median is then at hand, and the
//! median deviation is found by halving, because the k points nearest to the median are neighbours.

use std::collections::VecDeque;

use model::time::Micros;

/// A rolling window of prices, in units of 10⁻¹².
#[derive(Clone, Debug)]
pub struct Window {
    length: Micros,
    slot: Micros,
    points: VecDeque<(Micros, i128)>,
    sorted: Vec<i128>,
}

impl Window {
    /// An empty window of this length with at most so many points.
    pub fn new(length: Micros, most: usize) -> Self {
        let most = i64::try_from(most.max(1)).unwrap_or(i64::MAX);
        Window { length, slot: (length.saturating_add(most - 1) / most).max(1), points: VecDeque::new(), sorted: Vec::new() }
    }

    /// Number of points.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The points in the order of time.
    pub fn points(&self) -> impl Iterator<Item = (Micros, i128)> + '_ {
        self.points.iter().copied()
    }

    /// Takes a price at a time not before those taken earlier, unless its slot has one.
    pub fn add(&mut self, time: Micros, price: i128) {
        if self.points.back().is_some_and(|(last, _)| last.div_euclid(self.slot) == time.div_euclid(self.slot)) {
            return;
        }
        self.points.push_back((time, price));
        self.sorted.insert(self.sorted.partition_point(|p| *p < price), price);
    }

    /// Forgets what lies the window's length or more before a time.
    pub fn expire(&mut self, now: Micros) {
        while let Some((_, price)) = self.points.pop_front_if(|(time, _)| *time <= now.saturating_sub(self.length)) {
            let at = self.sorted.binary_search(&price).expect("each point is in both orders");
            self.sorted.remove(at);
        }
    }

    /// Moves all points by the same amount.
    pub fn shift(&mut self, by: i128) {
        self.points.iter_mut().for_each(|(_, price)| *price += by);
        self.sorted.iter_mut().for_each(|price| *price += by);
    }

    /// The median, cut to a whole unit; `None` without a point.
    pub fn median(&self) -> Option<i128> {
        median(&self.sorted)
    }

    /// The median of the points' distances from `center`, their median, cut to a whole unit.
    pub fn deviation(&self, center: i128) -> i128 {
        match self.len() {
            0 => 0,
            n => mean(self.nearest((n - 1) / 2, center), self.nearest(n / 2, center)),
        }
    }

    /// The distance from `center` of the point that has `k` points nearer to it.
    fn nearest(&self, k: usize, center: i128) -> i128 {
        // The k + 1 nearest are neighbours, say i..=i+k, and the farthest of them is one of the ends. The distance of
        // the lower end falls with i and that of the upper rises, so the least of their greater is where they cross.
        let spread = |i: usize| (center - self.sorted[i]).max(self.sorted[i + k] - center);
        let (mut low, mut high) = (0, self.len() - 1 - k);
        while low < high {
            let middle = (low + high) / 2;
            if self.sorted[middle + k] - center >= center - self.sorted[middle] { high = middle } else { low = middle + 1 }
        }
        if low > 0 { spread(low).min(spread(low - 1)) } else { spread(low) }
    }
}

/// The median of sorted numbers.
pub fn median(sorted: &[i128]) -> Option<i128> {
    let n = sorted.len();
    (n > 0).then(|| mean(sorted[(n - 1) / 2], sorted[n / 2]))
}

fn mean(low: i128, high: i128) -> i128 {
    low + (high - low) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The window agrees with sorting everything anew.
        #[test]
        fn agrees_with_the_definition(steps in proptest::collection::vec((0_i64..30, -50_i128..50), 1..300), shift in -100_i128..100) {
            let mut window = Window::new(100, 25);
            let mut kept: Vec<(i64, i128)> = Vec::new();
            let mut now = 0;
            for (i, (step, price)) in steps.into_iter().enumerate() {
                now += step;
                window.expire(now);
                kept.retain(|(time, _)| *time > now - 100);
                window.add(now, price);
                if kept.last().is_none_or(|(time, _)| time / 4 != now / 4) { kept.push((now, price)); }
                if i == 100 {
                    window.shift(shift);
                    kept.iter_mut().for_each(|(_, p)| *p += shift);
                }
                let mut prices: Vec<i128> = kept.iter().map(|(_, p)| *p).collect();
                prices.sort_unstable();
                prop_assert!(window.len() <= 26);
                prop_assert_eq!(window.points().collect::<Vec<_>>(), kept.clone());
                let center = median(&prices).unwrap();
                prop_assert_eq!(window.median(), Some(center));
                let mut distances: Vec<i128> = prices.iter().map(|p| (p - center).abs()).collect();
                distances.sort_unstable();
                prop_assert_eq!(window.deviation(center), median(&distances).unwrap());
            }
        }
    }

    #[test]
    fn a_window_without_points_has_no_median() {
        let window = Window::new(10, 10);
        assert_eq!((window.median(), window.deviation(0), window.len()), (None, 0, 0));
    }
}
