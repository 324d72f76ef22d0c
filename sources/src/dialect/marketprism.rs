//! What our own sources tell, beside what venues do: the dialect `marketprism`.
//!
//! A live source notes where records are missing and what became of it ([`Gap`]), among the venue's frames and at the place where
//! it was noticed, so a capture has it too.

use std::borrow::Cow;

use model::dialect::{Dialect, FrameRef, Outcome, Records, Reject};
use model::kinds;
use model::time::Micros;
use serde::{Deserialize, Serialize};

/// The dialect's name.
pub(crate) const NAME: &str = "marketprism";

/// A frame of our own.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Note<'a> {
    /// Records are missing, or were.
    #[serde(borrow)]
    Gap(Gap<'a>),
}

/// What became of a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// It is there.
    Found,
    /// So much of it is not filled yet. Gives no record.
    Filling,
    /// It is taking too long: event time does not wait for it any more.
    Overdue,
    /// All of it came.
    Filled,
    /// The venue has it no more, or none of it.
    Lost,
}

impl What {
    /// The word that records have; none where there is no record.
    fn word(self) -> Option<&'static str> {
        Some(match self {
            What::Found => "found",
            What::Filling => return None,
            What::Overdue => "overdue",
            What::Filled => "filled",
            What::Lost => "lost",
        })
    }
}

/// Records that are missing in a channel of an instrument, or were.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Gap<'a> {
    pub(crate) what: What,
    pub(crate) venue: Cow<'a, str>,
    pub(crate) market: Cow<'a, str>,
    pub(crate) symbol: Cow<'a, str>,
    /// The kind of what is missing: `trade` or `book`.
    pub(crate) channel: Cow<'a, str>,
    /// The market of the source, as its pipeline names it, and the venue's name of the channel.
    pub(crate) stream: (Cow<'a, str>, Cow<'a, str>),
    /// The first and the last number, where the venue numbers them.
    pub(crate) numbers: Option<(u64, u64)>,
    /// The event time of the record before.
    pub(crate) since: Micros,
    /// The event time of the record behind.
    pub(crate) until: Micros,
    /// Why, where that is known.
    pub(crate) detail: Option<Cow<'a, str>>,
}

/// The decoder.
#[derive(Debug)]
pub(super) struct Own;

impl Dialect for Own {
    fn decode(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Reject> {
        let Note::Gap(gap) = serde_json::from_slice(frame.payload).map_err(|error| Reject::new("malformed", error.to_string()))?;
        let Some((builder, word)) = records.gap.as_mut().zip(gap.what.word()) else { return Ok(Outcome::Ignored) };
        // No venue counts so far that it does not fit; a number that does is known, and any other is not.
        let number = |number: u64| i64::try_from(number).ok();
        builder.push(kinds::Gap {
            venue: &gap.venue,
            market: &gap.market,
            symbol: &gap.symbol,
            event_time: gap.until,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            channel: &gap.channel,
            event: word,
            first_number: gap.numbers.and_then(|(first, _)| number(first)),
            last_number: gap.numbers.and_then(|(_, last)| number(last)),
            since: gap.since,
            detail: gap.detail.as_deref(),
        });
        Ok(Outcome::Decoded)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::dialect::testing::{decode, reason};
    use model::kinds::GapRows;

    const FOUND: &str = r#"{"gap":{"what":"found","venue":"okx","market":"perpetual","symbol":"BTC-USDT-PERP","channel":"trade","stream":["swap","trades-all:BTC-USDT-SWAP"],"numbers":[5,9],"since":1000,"until":2000,"detail":null}}"#;
    const LOST: &str = r#"{"gap":{"what":"lost","venue":"bybit","market":"spot","symbol":"BTC-USDT","channel":"trade","stream":["spot","publicTrade.BTCUSDT"],"numbers":null,"since":1000,"until":2000,"detail":"the venue does not have all of it"}}"#;

    pub(in crate::dialect) const FRAMES: [(&str, &str); 2] = [(NAME, FOUND), (NAME, LOST)];

    #[test]
    fn a_gap_becomes_a_record_and_its_filling_none() {
        let (_, found) = decode(NAME, FOUND).unwrap();
        let rows = GapRows::of(&found["gap"]).unwrap();
        assert_eq!((rows.first_number.value(0), rows.last_number.value(0), rows.since.value(0)), (5, 9, 1_000));
        assert_eq!(decode(NAME, &FOUND.replace("found", "filling")).unwrap().0, Outcome::Ignored);
        let (_, lost) = decode(NAME, LOST).unwrap();
        let rows = GapRows::of(&lost["gap"]).unwrap();
        assert!(rows.first_number.iter().all(|number| number.is_none()));
        assert_eq!(rows.detail.iter().flatten().collect::<Vec<_>>(), ["the venue does not have all of it"]);
        assert_eq!(reason(NAME, "{}"), "malformed");
    }
}
