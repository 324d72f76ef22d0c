//! What only options tell: the prices of a whole chain, open interest by expiry, and the indices that underlie them.
//!
//! Their streams have longer names for some members than those of other markets; such an event is walked a second time for them.

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::instrument::{Contract, Listing};

use super::answers::Members;
use super::events::{Reading, VENUE};
use super::symbols::Exchange;
use crate::dialect::fields::{Event, Refusal, missing, refuse};
use crate::dialect::figures::{Figures, OpenAmounts};
use crate::dialect::reading::{Pass, find};
use crate::dialect::symbols::Symbols;

impl Reading<'_> {
    /// `indexPrice`: of what underlies options.
    pub(super) fn index_price(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.index_price.is_none() {
            return Ok(Outcome::Ignored);
        }
        let event_time = self.event.time("E")?;
        let index = self.event.positive("p")?.ok_or_else(|| missing("p"))?;
        let listing = find(self.event, "s", self.symbols)?;
        let figures = Figures { index: Some(index), ..Figures::default() };
        Ok(figures.push(VENUE, listing, event_time, self.frame, self.pass, records))
    }

    /// `openInterest`: of an option, in contracts and in what they are worth.
    pub(super) fn open_interest(self, records: &mut Records) -> Result<Outcome, Refusal> {
        if records.open_interest.is_none() {
            return Ok(Outcome::Ignored);
        }
        let amount = self.event.optional_rounded("o")?.ok_or_else(|| missing("o"))?;
        let value = self.event.optional_rounded("h")?;
        let event_time = self.event.time("E")?;
        let listing = find(self.event, "s", self.symbols)?;
        let figures = Figures { open_interest: Some(outstanding(listing, amount, value)?), ..Figures::default() };
        Ok(figures.push(VENUE, listing, event_time, self.frame, self.pass, records))
    }
}

/// `markPrice`: what an option is worth, and the index below it. An option may be worth nothing.
pub(super) fn mark_price(
    event: Event<'_, Members>,
    frame: FrameRef<'_>,
    pass: Pass,
    symbols: &mut Symbols<Exchange>,
    records: &mut Records,
) -> Result<Outcome, Refusal> {
    let mark = match event.optional_rounded("mp")? {
        Some(mark) if mark < Decimal::ZERO => return Err(refuse("bad_number", format!("`mp` is {mark}, which is negative"))),
        Some(mark) => mark,
        None => return Err(missing("mp")),
    };
    let (settlement, index) = (event.positive("P")?, event.positive("i")?);
    let event_time = event.time("E")?;
    let listing = find(event, "s", symbols)?;
    let figures = Figures { mark: Some(mark), settlement, index, ..Figures::default() };
    Ok(figures.push(VENUE, listing, event_time, frame, pass, records))
}

/// Open interest from what the venue counts, and what it says that this is worth.
///
/// Of inverse contracts the value is told in the base asset, and what they are worth in the quote asset is fixed.
pub(super) fn outstanding(listing: &Listing, amount: Decimal, value: Option<Decimal>) -> Result<OpenAmounts, Refusal> {
    let Some(Contract { size, inverse }) = listing.contract else { return Ok([None, Some(amount), value]) };
    let worth = amount.mul_rounded(size).ok_or_else(|| refuse("overflow", format!("{amount} contracts of {size} are too many")))?;
    Ok(if inverse { [Some(amount), value, Some(worth)] } else { [Some(amount), Some(worth), value] })
}
