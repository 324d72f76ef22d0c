//! What no channel tells, asked for again and again.
//!
//! At multiples of its period since 1970 and a little later, each poll at a moment of its own, so that a thousand of them do not
//! come together. An answer that says, word for word, what the one before it said is not kept: a figure that the venue works
//! out every five minutes is one record and not five.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::time;
use tokio::time::sleep;
use twox_hash::XxHash64;

use super::Wants;
use super::inbox::Sender;
use super::rest::{Rest, Unanswered};
use super::spool::{Batch, Heard};
use super::venue::{Market, Poll, Venue};
use crate::listing;

/// The part of its period by which a poll is late.
const LATE: f64 = 0.25;

/// Asks until nobody wants to know any more.
pub(super) async fn run(poll: Poll, dialect: &'static str, rest: Rest, out: Sender) {
    let mut before = Bytes::new();
    loop {
        sleep(until_next(&poll)).await;
        match rest.ask(&poll.ask).await {
            Ok(answer) if answer == before => {}
            Ok(answer) => {
                if !keep(&out, dialect, &poll.ask.topic, &answer).await {
                    return;
                }
                before = answer;
            }
            Err(error) => tracing::warn!("{error}; it is asked again in {} s", poll.every.as_secs()),
        }
    }
}

/// Asks for a market's whole listing: every page of it.
///
/// # Errors
/// A page is not answered.
pub(super) async fn pages(venue: &dyn Venue, market: &Market, rest: &Rest) -> Result<Vec<Bytes>, Unanswered> {
    let (mut asks, mut pages) = (VecDeque::from(venue.listing(market)), Vec::new());
    while let Some(ask) = asks.pop_front() {
        let page = rest.ask(&ask).await?;
        asks.extend(venue.listing_goes_on(market, &ask, &page));
        if venue.lists(&ask) {
            pages.push(page);
        }
    }
    Ok(pages)
}

/// Keeps a market's listing, and each that differs from the one before it.
pub(super) async fn listing(wants: Arc<Wants>, market: Market, rest: Rest, mut listing: Vec<Bytes>, out: Sender) {
    let (every, topic) = (wants.options.listing_interval, listing::topic(market.name));
    loop {
        for page in &listing {
            if !keep(&out, market.dialect, &topic, page).await {
                return;
            }
        }
        let known: Vec<_> = listing.iter().map(|page| essence(page)).collect();
        listing = loop {
            sleep(every.0).await;
            match pages(&*wants.venue, &market, &rest).await {
                Ok(pages) if !pages.iter().map(|page| essence(page)).eq(known.iter().copied()) => break pages,
                Ok(_) => {}
                Err(error) => tracing::warn!("{error}; it is asked again in {every}"),
            }
        };
    }
}

/// What of a listing says something of instruments: not when it was made, or how long that took. One that is no object says
/// something with every byte.
fn essence(listing: &[u8]) -> u64 {
    let members = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(listing).ok();
    let lasting = members.and_then(|mut members| {
        members.retain(|_, member| member.is_array() || member.is_object());
        serde_json::to_vec(&members).ok()
    });
    XxHash64::oneshot(0, lasting.as_deref().unwrap_or(listing))
}

/// Gives an answer to the spool; `false` where there is none any more.
async fn keep(out: &Sender, dialect: &str, topic: &str, payload: &[u8]) -> bool {
    let mut batch = Batch::default();
    batch.push(Heard { receive_time: time::now(), connection: 0, dialect, topic, payload });
    out.send(&mut batch).await
}

/// How long until a poll's next moment.
fn until_next(poll: &Poll) -> Duration {
    let every = poll.every.as_micros() as i64;
    let late = (every as f64 * LATE) as u64;
    let own = (XxHash64::oneshot(0, poll.ask.topic.as_bytes()) % late.max(1)) as i64;
    let now = time::now();
    let next = ((now - own).div_euclid(every) + 1) * every + own;
    Duration::from_micros((next - now).unsigned_abs())
}
