//! Requests, within what the venues allow.
//!
//! A venue counts the weight of our requests by the address they come from, so all sources of a process share one count for each
//! host. What the venue says of it (`X-MBX-USED-WEIGHT-1M`) is believed over our own sum, and when it refuses (429, 418, or
//! whatever the venue's [`Verdict`] is) nobody asks that host anything before the time that it names, and then one request at a time
//! until one is answered.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use model::time;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use storage::say;
use tokio::time::{Instant, sleep_until};

use super::venue::{Ask, Market, Venue, Verdict};

/// The longest that an answer may take.
const ANSWER: Duration = Duration::from_secs(20);
/// Of a window's weight, what is used: another program may ask from the same address.
const SHARE: f64 = 0.8;

/// What a host has been asked in the window at hand, and whether it may be asked at all.
#[derive(Debug)]
struct Usage {
    window: i64,
    used: u32,
    closed_until: Instant,
    /// Whether it has refused and not answered since.
    refuses: bool,
}

/// A host.
#[derive(Debug)]
struct Host {
    usage: Mutex<Usage>,
    /// Whose turn it is to ask while it refuses.
    turn: tokio::sync::Mutex<()>,
}

/// The hosts of this process.
static HOSTS: LazyLock<Mutex<HashMap<String, Arc<Host>>>> = LazyLock::new(Mutex::default);

/// Why a request did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(super) struct Unanswered {
    /// Whether the same may be answered later.
    pub(super) transient: bool,
    /// What happened.
    pub(super) what: String,
}

/// What asks one market of a venue.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    client: reqwest::Client,
    venue: Arc<dyn Venue>,
    base: String,
    weight: u32,
    window: i64,
    host: Arc<Host>,
}

impl Rest {
    /// What asks a market at an address.
    pub(super) fn new(client: reqwest::Client, venue: Arc<dyn Venue>, market: &Market, base: &str) -> Rest {
        let usage = || Usage { window: 0, used: 0, closed_until: Instant::now(), refuses: false };
        let fresh = || Arc::new(Host { usage: Mutex::new(usage()), turn: tokio::sync::Mutex::default() });
        let host = HOSTS.lock().expect("nobody panics with it").entry(base.to_owned()).or_insert_with(fresh).clone();
        let window = i64::try_from(market.limits.window.as_micros()).unwrap_or(i64::MAX).max(1);
        Rest { client, venue, base: base.to_owned(), weight: market.limits.weight, window, host }
    }

    /// Asks once, as soon as the venue allows it. Returns the answer's bytes.
    ///
    /// # Errors
    /// No answer, or one that says no.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Bytes, Unanswered> {
        let mut turn = None;
        loop {
            if turn.is_none() && self.usage().refuses {
                turn = Some(self.host.turn.lock().await);
            }
            match self.must_wait(ask.weight) {
                Some(until) => sleep_until(until).await,
                None => break,
            }
        }
        let path = &ask.path;
        let fails = |error: reqwest::Error| Unanswered { transient: true, what: format!("{}{path}: {}", self.base, say(&error)) };
        let answer = self.client.get(format!("{}{path}", self.base)).timeout(ANSWER).send().await.map_err(fails)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = answer.bytes().await.map_err(fails)?;
        let verdict = self.venue.verdict(status, &bytes);
        self.note(verdict, &headers);
        if verdict == Verdict::Answer {
            return Ok(bytes);
        }
        let words: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
        let what = format!("{}{path} is answered with {status}: {words}", self.base);
        Err(Unanswered { transient: verdict != Verdict::Never, what })
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.host.usage.lock().expect("nobody panics with it")
    }

    /// Until when a request of this weight has to wait; where it does not, its weight is counted.
    fn must_wait(&self, weight: u32) -> Option<Instant> {
        let mut usage = self.usage();
        let now = Instant::now();
        if usage.closed_until > now {
            return Some(usage.closed_until);
        }
        let clock = time::now();
        let window = clock.div_euclid(self.window);
        if usage.window != window {
            (usage.window, usage.used) = (window, 0);
        }
        if usage.used > 0 && f64::from(usage.used + weight) > f64::from(self.weight) * SHARE {
            let rest = (window + 1) * self.window - clock;
            return Some(now + Duration::from_micros(rest.unsigned_abs()));
        }
        usage.used += weight;
        None
    }

    /// Believes what the venue says of our requests.
    fn note(&self, verdict: Verdict, headers: &HeaderMap) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u32>().ok();
        let mut usage = self.usage();
        if let Some(used) = number("x-mbx-used-weight-1m") {
            usage.used = used;
        }
        usage.refuses = matches!(verdict, Verdict::TooMuch(_)) || (usage.refuses && verdict == Verdict::Later);
        if let Verdict::TooMuch(pause) = verdict {
            let pause = number(RETRY_AFTER.as_str()).map_or(pause, |seconds| Duration::from_secs(seconds.into()));
            usage.closed_until = usage.closed_until.max(Instant::now() + pause);
            tracing::warn!(host = self.base, "the venue refuses; nobody asks it for {} s", pause.as_secs());
        }
    }
}
