//! What venues work out for derivatives: prices by which they value positions, what funding costs, how much is open. Venues
//! tell some or all of it in one frame, and each figure is a record of its own.

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::Listing;
use model::kinds::{FundingRate, IndexPrice, MarkPrice, OpenInterest};
use model::time::Micros;

use super::reading::Pass;

/// What a frame says of an instrument, as far as it does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub(super) mark: Option<Decimal>,
    pub(super) settlement: Option<Decimal>,
    pub(super) index: Option<Decimal>,
    pub(super) funding: Option<Funding>,
    pub(super) open_interest: Option<OpenAmounts>,
}

/// A funding rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Funding {
    pub(super) rate: Decimal,
    pub(super) predicted_rate: Option<Decimal>,
    pub(super) interval_seconds: Option<i64>,
    pub(super) next_funding_time: Option<Micros>,
}

impl Funding {
    /// A rate of which only the time is said at which it is, or was, paid.
    pub(super) fn paid_at(rate: Decimal, next_funding_time: Option<Micros>) -> Self {
        Funding { rate, predicted_rate: None, interval_seconds: None, next_funding_time }
    }
}

/// Open interest in contracts, in the base asset and in the quote asset.
pub(super) type OpenAmounts = [Option<Decimal>; 3];

impl Figures {
    /// A frame that says nothing but what funding costs.
    pub(super) fn of_funding(funding: Funding) -> Self {
        Figures { funding: Some(funding), ..Figures::default() }
    }

    /// Whether any of this is wanted.
    pub(super) fn wanted(records: &Records) -> bool {
        records.mark_price.is_some() || records.index_price.is_some() || records.funding_rate.is_some() || records.open_interest.is_some()
    }

    /// Whether any of what is said is wanted.
    pub(super) fn any(&self, records: &Records) -> bool {
        (records.mark_price.is_some() && self.mark.is_some())
            || (records.index_price.is_some() && self.index.is_some())
            || (records.funding_rate.is_some() && self.funding.is_some())
            || (records.open_interest.is_some() && self.open_interest.is_some())
    }

    /// Pushes what is said and wanted.
    pub(super) fn push(
        &self,
        venue: &'static str,
        listing: &Listing,
        event_time: Micros,
        frame: FrameRef<'_>,
        pass: Pass,
        records: &mut Records,
    ) -> Outcome {
        if !self.any(records) {
            return Outcome::Ignored;
        }
        if pass == Pass::Check {
            return Outcome::Decoded;
        }
        let (market, symbol, receive_time) = (listing.market.as_str(), listing.symbol.as_str(), frame.receive_time);
        let frame = Some(frame.frame);
        if let (Some(builder), Some(price)) = (&mut records.mark_price, self.mark) {
            let settlement_price = self.settlement;
            builder.push(MarkPrice { venue, market, symbol, event_time, receive_time, frame, price, settlement_price });
        }
        if let (Some(builder), Some(price)) = (&mut records.index_price, self.index) {
            builder.push(IndexPrice { venue, market, symbol, event_time, receive_time, frame, price });
        }
        if let (Some(builder), Some(funding)) = (&mut records.funding_rate, self.funding) {
            let Funding { rate, predicted_rate, interval_seconds, next_funding_time } = funding;
            builder.push(FundingRate {
                venue,
                market,
                symbol,
                event_time,
                receive_time,
                frame,
                rate,
                predicted_rate,
                interval_seconds,
                next_funding_time,
            });
        }
        if let (Some(builder), Some([contracts, base, quote])) = (&mut records.open_interest, self.open_interest) {
            builder.push(OpenInterest { venue, market, symbol, event_time, receive_time, frame, contracts, base, quote });
        }
        Outcome::Decoded
    }
}
