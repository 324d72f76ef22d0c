//! Frames that list instruments: what those behind them are decoded with.
//!
//! A live source keeps every page of a venue's listing among the frames of the market, under a topic of its own. Whoever hands
//! frames over, live or from a capture, ends a chunk with such a frame and says what it teaches, so that live and captured frames are
//! decoded with the same listings.

use arrow::array::{AsArray, RecordBatch};
use model::Lesson;
use model::columns::label;
use model::kinds::FrameRows;

/// What the pages of a listing were asked for, behind the market's name and an `@`.
const LISTING: &str = "listing";

/// The topic of the pages of a market's listing.
pub(crate) fn topic(market: &str) -> String {
    format!("{market}@{LISTING}")
}

/// The market of whose listing a frame is a page, by its topic.
pub(crate) fn market(topic: &str) -> Option<&str> {
    topic.split_once('@').filter(|(_, asked)| *asked == LISTING).map(|(market, _)| market)
}

/// The first of some frames that teaches anything, by its place, and what.
pub(crate) fn first(frames: &RecordBatch) -> Option<(usize, Lesson)> {
    let rows = FrameRows::of(frames).expect("they are frames");
    // There are few topics, and mostly none of a listing.
    if !rows.topic.values().as_string::<i32>().iter().flatten().any(|topic| market(topic).is_some()) {
        return None;
    }
    let row = (0..frames.num_rows()).find(|row| label(rows.topic, *row).is_some_and(|topic| market(topic).is_some()))?;
    let dialect = label(rows.dialect, row).unwrap_or_default().to_owned();
    Some((row, Lesson { dialect, listing: rows.payload.value(row).to_vec() }))
}

#[cfg(test)]
mod tests {
    use model::kinds::{Frame, FrameBuilder};

    use super::*;

    #[test]
    fn a_frame_teaches_by_its_topic() {
        let mut builder = FrameBuilder::default();
        for (frame, topic) in [(1, None), (2, Some("BTC/USD@book-100")), (3, Some(&*topic("spot"))), (4, Some("swap@listing"))] {
            let payload = format!("{{\"frame\":{frame}}}");
            builder.push(Frame {
                source: "in",
                dialect: "okx",
                receive_time: None,
                frame,
                connection: None,
                topic,
                payload: payload.as_bytes(),
            });
        }
        let frames = builder.finish();
        assert_eq!(first(&frames), Some((2, Lesson { dialect: "okx".into(), listing: br#"{"frame":3}"#.to_vec() })));
        assert_eq!(first(&frames.slice(0, 2)), None, "the topic is one of others");
        assert_eq!(market("spot@listing"), Some("spot"));
        assert_eq!(market("BTCUSDT@listing@5min"), None);
    }
}
