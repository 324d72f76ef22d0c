//! `book_mismatch`: a rebuilt book that differs from the venue's own best bid and ask at the same update.
//!
//! The comparison is the book's (see the operator `book`); each of its `mismatch` events is an anomaly. Either an
//! update was lost without a gap in its numbers, or one of the two feeds is wrong.

use config::Check;
use model::columns::{integer, label};
use model::kinds::BookEventRows;
use model::time::Micros;
use schemars::JsonSchema;
use serde::Deserialize;

use super::findings::{Finding, Findings, State};
use super::{Detector, Options, Place, Rows, Saved};

/// The detector's name.
pub const NAME: &str = "book_mismatch";

/// Options of `book_mismatch`: books that differ from the venue's quotes. There are none.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BookMismatch {}

impl Options for BookMismatch {
    fn check(&self, _: &Place, _: &mut Check<'_>) {}

    fn detector(&self, _: &[&'static str]) -> Box<dyn Detector> {
        Box::new(Mismatches)
    }
}

/// The detector. The book remembers, so it need not.
#[derive(Debug)]
struct Mismatches;

impl Detector for Mismatches {
    fn observe(&mut self, rows: &Rows<'_>, findings: &mut Findings<'_>) {
        let events = BookEventRows::of(&rows.batch.rows).expect("these are book events");
        for (row, number, cause) in rows.iter().filter(|(row, ..)| label(events.event, *row) == Some("mismatch")) {
            let sequence = integer(events.sequence, row);
            findings.push(
                number,
                Finding {
                    anomaly: NAME,
                    channel: "book_delta",
                    cause,
                    observed: None,
                    expected: None,
                    score: None,
                    threshold: None,
                    window: None,
                    first: sequence,
                    last: sequence,
                    state: State::Open,
                    detail: format_args!("{}", events.detail.value(row)),
                },
            );
        }
    }

    fn settle(&mut self, _: Micros, _: &mut Findings<'_>) {}

    fn snapshot(&mut self) -> Saved {
        Box::new(|_, _| {})
    }

    fn load(&mut self, _: u32, _: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Rig, event};

    #[test]
    fn each_mismatch_is_an_anomaly() {
        let mut rig = Rig::new("book_mismatch = {}");
        rig.events = vec![
            event("A", 1, "live", None, None),
            event("A", 2, "mismatch", Some(7), Some(7)),
            event("B", 3, "mismatch", Some(8), Some(8)),
        ];
        rig.finish();
        let found = rig.found();
        assert_eq!(
            found.iter().map(|f| (f.symbol.as_str(), f.first, f.event_time)).collect::<Vec<_>>(),
            [("A", Some(7), Some(2)), ("B", Some(8), Some(3))]
        );
        assert_eq!(
            (found[0].anomaly.as_str(), found[0].channel.as_str(), found[0].detail.as_str()),
            ("book_mismatch", "book_delta", "told by the book")
        );
    }
}
