//! Kraken: spot, and futures (futures.kraken.com).
//!
//! Spot speaks two protocols of WebSocket: objects that name their channel (v2), and arrays whose last two elements are the
//! channel and the pair (v1). Both are told apart by their first byte, so recordings of either are decoded by the same
//! dialect, and REST answers beside them. Futures speak a third one, flat objects that name their feed.
//!
//! A frame is walked once by a scanner that checks its syntax and notes where its members stand; only what a wanted kind
//! needs is then read. Nothing is allocated for a row of a book, a trade or a quote, the order of members does not matter,
//! and unknown ones are passed over.
//!
//! What is promised: a frame gives all of its records or, with a refusal, none; no bytes make it panic; and the reasons for
//! refusing are those of [`super::REASONS`]. What each message becomes is told in the manual's page on Kraken.

mod answers;
mod arrays;
mod book;
mod channels;
mod futures;
mod listing;
mod prints;
mod spot;
mod symbols;
#[cfg(test)]
pub(super) mod tests;

pub(crate) use channels::Members as SpotMembers;
pub use futures::KrakenFutures;
pub(crate) use futures::Members as FuturesMembers;
pub use listing::{pairs, products};
pub use spot::Kraken;

use super::fields::{Refusal, excerpt, refuse};
use super::json::{self, Token, Value};

/// The venue in every record.
const VENUE: &str = "kraken";

#[cold]
fn unknown(what: impl std::fmt::Display) -> Refusal {
    refuse("unknown_event", format!("{what} is no message of Kraken's that we know"))
}

/// The refusal of a frame that is the venue's own complaint.
#[cold]
fn venue_error(text: &[u8]) -> Refusal {
    let whole = Value { token: Token::Object, start: 0, end: text.len() as u32 };
    refuse("venue_error", format!("the venue answered with an error: {}", excerpt(text, whole)))
}

/// The characters of a text value.
fn characters<'a>(text: &'a [u8], name: &'static str, value: Value) -> Result<std::borrow::Cow<'a, str>, Refusal> {
    match value.token {
        Token::Text => Ok(String::from_utf8_lossy(value.of(text))),
        Token::Escaped => {
            let resolved = json::unescaped(text, value);
            resolved.map(Into::into).ok_or_else(|| refuse("malformed", format!("`{name}` is {}, half a character", excerpt(text, value))))
        }
        _ => Err(refuse("wrong_type", format!("`{name}` is {}, where a text should be", excerpt(text, value)))),
    }
}
