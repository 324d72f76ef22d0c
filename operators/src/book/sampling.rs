//! The last state in each span of event time.

use model::time::Micros;
use serde::{Deserialize, Serialize};

/// Which span of event time awaits its sample: one that the book changed in and that is not over yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampling {
    span: Option<i64>,
}

impl Sampling {
    /// The book changed at this time. Times of one book do not fall; one that does belongs to the latest span.
    pub fn changed(&mut self, every: Micros, time: Micros) {
        self.span = self.span.max(Some(time.div_euclid(every)));
    }

    /// Whether a sample is due before the book changes at this time; `None` for when it is replaced.
    pub fn leaving(&mut self, every: Micros, until: Option<Micros>) -> bool {
        self.due(|span| until.is_none_or(|until| until.div_euclid(every) > span))
    }

    /// Whether a sample is due now that event time has come to the watermark.
    pub fn passed(&mut self, every: Micros, watermark: Micros) -> bool {
        self.due(|span| end(span, every) <= watermark)
    }

    /// The watermark at which a sample is due; `None` while none is awaited.
    pub fn end(&self, every: Micros) -> Option<Micros> {
        self.span.map(|span| end(span, every))
    }

    fn due(&mut self, over: impl Fn(i64) -> bool) -> bool {
        let due = self.span.is_some_and(over);
        if due {
            self.span = None;
        }
        due
    }
}

/// Where a span of event time ends.
fn end(span: i64, every: Micros) -> Micros {
    span.saturating_add(1).saturating_mul(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sample_for_each_span_with_a_change() {
        let mut sampling = Sampling::default();
        assert!(!sampling.leaving(10, Some(3)) && !sampling.passed(10, i64::MAX));
        sampling.changed(10, 3);
        assert!(!sampling.leaving(10, Some(9)) && !sampling.passed(10, 9));
        assert!(sampling.leaving(10, Some(10)));
        assert!(!sampling.passed(10, 100), "given once");
        sampling.changed(10, 12);
        sampling.changed(10, 8);
        assert!(!sampling.passed(10, 19) && sampling.passed(10, 20));
        sampling.changed(10, 25);
        assert!(sampling.leaving(10, None));
        sampling.changed(10, -5);
        assert!(sampling.passed(10, 0));
    }
}
