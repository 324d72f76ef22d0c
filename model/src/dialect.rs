//! Venue dialects: bytes in, columns out.
//!
//! A [`Dialect`] decodes the frames of one venue's protocol into [`Records`]. It does no I/O and knows no
//! clock but the frame's own times, so the same frames give the same records wherever they are decoded.
//! The trait lives here because sources implement it and operators call it; neither knows the other.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::instrument::Listing;
use crate::kind::Kind;
use crate::kinds::{self, *};
use crate::time::Micros;

/// A frame to decode: its bytes and what is known about it from outside.
#[derive(Clone, Copy, Debug)]
pub struct FrameRef<'a> {
    /// When we received it.
    pub receive_time: Option<Micros>,
    /// Its number in its source.
    pub frame: i64,
    /// What it was asked for, where the bytes do not say: the venue's symbol, and behind an `@` what was asked of it.
    pub topic: Option<&'a str>,
    /// The bytes.
    pub payload: &'a [u8],
}

/// What became of a frame that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It gave records.
    Decoded,
    /// It carries nothing that was asked for: an acknowledgement, a heartbeat, a kind not wanted.
    Ignored,
}

/// Why a frame, or one record in it, was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The reason, from a short list: it labels counters.
    pub reason: &'static str,
    /// The reason in words, with the offending value.
    pub detail: String,
}

/// The most that is kept of the detail of a refusal, in bytes.
const LONGEST: usize = 2_048;

impl Reject {
    /// A refusal. Of a detail that is too long to read, because the offending value is, its begin and its end are kept.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > LONGEST {
            let begin = detail.floor_char_boundary(LONGEST / 2);
            let end = detail.ceil_char_boundary(detail.len() - LONGEST / 2);
            detail.replace_range(begin..end, " […] ");
        }
        Reject { reason, detail }
    }
}

/// The decoder of one venue's protocol.
pub trait Dialect: Send {
    /// Decodes one frame, pushing what it holds into `records`. After an error nothing of the frame has been pushed.
    ///
    /// # Errors
    /// Names why the frame cannot be used; the caller keeps its bytes.
    fn decode(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Reject>;
}

/// A dialect that can be told of instruments while it decodes.
pub trait Learn: Dialect {
    /// Takes in a venue's listing, and gives what it lists: the frames that follow are decoded with it.
    ///
    /// # Errors
    /// Says what about the listing cannot be read; nothing of it was taken in.
    fn learn(&mut self, listing: &[u8]) -> Result<Vec<Listed>, String>;

    /// Takes in what an earlier one has learned.
    fn recall(&mut self, listed: Vec<Listed>);
}

/// An instrument, by the venue's symbol.
pub type Listed = (Box<str>, Listing);

/// Makes the dialect of a name; every worker has its own.
pub type MakeDialect = dyn Fn(&str) -> Option<Box<dyn Learn>> + Send + Sync;

macro_rules! records {
    ($($(#[doc = $doc:literal])* $field:ident: $builder:ident = $kind:ident,)*) => {
        /// Builders for every kind that a venue sends; `None` where the kind is not wanted.
        #[derive(Debug, Default)]
        pub struct Records { $( $(#[doc = $doc])* pub $field: Option<$builder>, )* }

        impl Records {
            /// Builders for the kinds of these names.
            pub fn wanting<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
                let mut records = Records::default();
                for name in names {
                    $( if name == kinds::$kind.name { records.$field = Some(Default::default()); } )*
                }
                records
            }

            /// Rows pushed since the last [`Self::finish`].
            pub fn len(&self) -> usize {
                0 $( + self.$field.as_ref().map_or(0, |b| b.len()) )*
            }

            /// Whether there is none.
            pub fn is_empty(&self) -> bool { self.len() == 0 }

            /// The rows pushed so far, by kind; the builders are empty again.
            pub fn finish(&mut self) -> Vec<(&'static Arc<Kind>, RecordBatch)> {
                let mut batches = Vec::new();
                $( if let Some(builder) = self.$field.as_mut().filter(|b| !b.is_empty()) {
                    batches.push((&*kinds::$kind, builder.finish()));
                } )*
                batches
            }
        }
    };
}

records! {
    /// Trades.
    trade: TradeBuilder = TRADE,
    /// Best bids and asks.
    quote: QuoteBuilder = QUOTE,
    /// Changes of books.
    book_delta: BookDeltaBuilder = BOOK_DELTA,
    /// Whole books.
    book_snapshot: BookSnapshotBuilder = BOOK_SNAPSHOT,
    /// Funding rates.
    funding_rate: FundingRateBuilder = FUNDING_RATE,
    /// Open interest.
    open_interest: OpenInterestBuilder = OPEN_INTEREST,
    /// Liquidations.
    liquidation: LiquidationBuilder = LIQUIDATION,
    /// Long/short ratios.
    long_short_ratio: LongShortRatioBuilder = LONG_SHORT_RATIO,
    /// Mark prices.
    mark_price: MarkPriceBuilder = MARK_PRICE,
    /// Index prices.
    index_price: IndexPriceBuilder = INDEX_PRICE,
    /// Volatility indices.
    volatility_index: VolatilityIndexBuilder = VOLATILITY_INDEX,
    /// Listings.
    instrument: InstrumentBuilder = INSTRUMENT,
    /// States of venues.
    venue_status: VenueStatusBuilder = VENUE_STATUS,
    /// Gaps of live sources.
    gap: GapBuilder = GAP,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_detail_without_end_the_begin_and_the_end_are_kept() {
        let short = "unknown variant `x` at line 1 column 4";
        assert_eq!(Reject::new("malformed", short).detail, short);
        let long = Reject::new("malformed", format!("unknown variant `{}` at line 1 column 4", "é".repeat(10_000))).detail;
        assert!(long.len() < LONGEST + 10, "{} bytes", long.len());
        assert!(long.starts_with("unknown variant `é") && long.contains("é […] é") && long.ends_with("é` at line 1 column 4"), "{long}");
    }
}
