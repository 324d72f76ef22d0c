//! Places at which a test lets the process die.
//!
//! Whoever writes something down that something else depends on names the place between the two with [`point`]. The
//! environment variable `MARKETPRISM_CRASH=PLACE:N` ends the process when it comes to that place for the Nth time, as a
//! crash would: nothing is flushed, dropped or said. Without the variable a place costs a load and a comparison, and none
//! is passed more often than once a chunk.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Set to the name of a place, a colon and a number.
pub const VARIABLE: &str = "MARKETPRISM_CRASH";

struct Armed {
    place: String,
    left: AtomicU64,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// A place, by a name of its own.
pub fn point(place: &str) {
    let armed = ARMED.get_or_init(|| {
        let value = std::env::var(VARIABLE).ok()?;
        let (place, number) = value.split_once(':')?;
        Some(Armed { place: place.to_owned(), left: AtomicU64::new(number.parse().ok()?) })
    });
    if let Some(armed) = armed.as_ref().filter(|armed| armed.place == place)
        && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        std::process::abort();
    }
}
