//! What can befall a frame, and how often.

use schemars::JsonSchema;
use serde::Deserialize;

use super::dice::Dice;

/// Rates of injected faults: chances from 0 to 1 that add up to at most 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// One to five trades, or one to three depth updates, happen and are never sent. Depth updates are followed
    /// by a new REST snapshot, as a client would ask for one.
    #[schemars(range(min = 0, max = 1))]
    pub sequence_gap: f64,
    /// The frame comes twice.
    #[schemars(range(min = 0, max = 1))]
    pub duplicate: f64,
    /// The frame is overtaken by others, by up to 500 ms of event time. Depth updates of one instrument never
    /// overtake each other, because one connection carries them in order.
    #[schemars(range(min = 0, max = 1))]
    pub disorder: f64,
    /// The trade carries a price 5 to 20 % above or below the true one.
    #[schemars(range(min = 0, max = 1))]
    pub price_spike: f64,
    /// After the quote, a bid at or above the best ask enters the book and stays for 50 to 500 ms.
    #[schemars(range(min = 0, max = 1))]
    pub crossed_book: f64,
    /// After the frame, its channel of its instrument falls silent for 60 to 120 s while others go on. It costs a
    /// minute of data, so give it a small rate.
    #[schemars(range(min = 0, max = 1))]
    pub stale_feed: f64,
    /// The frame's receive time is off by 100 ms to 5 s, early or late.
    #[schemars(range(min = 0, max = 1))]
    pub clock_skew: f64,
    /// The frame is cut off, or garbled from some byte on.
    #[schemars(range(min = 0, max = 1))]
    pub malformed: f64,
}

/// One of the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    SequenceGap,
    Duplicate,
    Disorder,
    PriceSpike,
    CrossedBook,
    StaleFeed,
    ClockSkew,
    Malformed,
}

impl Fault {
    /// Its name in options and in the truth file.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Fault::SequenceGap => "sequence_gap",
            Fault::Duplicate => "duplicate",
            Fault::Disorder => "disorder",
            Fault::PriceSpike => "price_spike",
            Fault::CrossedBook => "crossed_book",
            Fault::StaleFeed => "stale_feed",
            Fault::ClockSkew => "clock_skew",
            Fault::Malformed => "malformed",
        }
    }

    /// The anomaly by which a detector should find it.
    pub(super) const fn anomaly(self) -> Option<&'static str> {
        match self {
            Fault::SequenceGap | Fault::PriceSpike | Fault::CrossedBook | Fault::StaleFeed => Some(self.name()),
            Fault::Duplicate | Fault::Disorder | Fault::ClockSkew | Fault::Malformed => None,
        }
    }
}

impl Faults {
    /// Every fault with its rate.
    pub(super) fn rates(&self) -> [(Fault, f64); 8] {
        [
            (Fault::SequenceGap, self.sequence_gap),
            (Fault::Duplicate, self.duplicate),
            (Fault::Disorder, self.disorder),
            (Fault::PriceSpike, self.price_spike),
            (Fault::CrossedBook, self.crossed_book),
            (Fault::StaleFeed, self.stale_feed),
            (Fault::ClockSkew, self.clock_skew),
            (Fault::Malformed, self.malformed),
        ]
    }
}

/// Draws faults: at most one a frame.
#[derive(Debug)]
pub(super) struct Fate {
    dice: Dice,
    /// Each fault owns the draws from the bound before it to its own, in units of 2⁻³².
    bounds: Vec<(Fault, u64)>,
}

impl Fate {
    /// The fate of a seed's frames. The rates add up to at most 1.
    pub(super) fn new(seed: u64, faults: &Faults) -> Self {
        let mut sum = 0.0;
        let mut bounds = Vec::new();
        for (fault, rate) in faults.rates() {
            sum += rate;
            if rate > 0.0 {
                bounds.push((fault, (sum * 4_294_967_296.0) as u64));
            }
        }
        Fate { dice: Dice::new(seed, 1), bounds }
    }

    /// What is to befall the next frame.
    #[inline]
    pub(super) fn draw(&mut self) -> Option<Fault> {
        let (_, most) = self.bounds.last()?;
        let draw = u64::from(self.dice.bits());
        if draw < *most { self.bounds.iter().find(|(_, bound)| draw < *bound).map(|(fault, _)| *fault) } else { None }
    }

    /// How it is to befall it.
    pub(super) fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_at_their_rates() {
        let faults = Faults { duplicate: 0.25, malformed: 0.01, price_spike: 0.5, ..Faults::default() };
        let mut fate = Fate::new(5, &faults);
        let mut counts = [0_u32; 8];
        for _ in 0..100_000 {
            if let Some(fault) = fate.draw() {
                counts[fault as usize] += 1;
            }
        }
        for (fault, rate) in faults.rates() {
            let share = f64::from(counts[fault as usize]) / 100_000.0;
            assert!((share - rate).abs() < 0.01, "{} came at {share} instead of {rate}", fault.name());
        }
        assert_eq!(Fate::new(5, &Faults::default()).draw(), None);
        assert_eq!(Fate::new(5, &Faults { duplicate: 1.0, ..Faults::default() }).draw(), Some(Fault::Duplicate));
    }
}
