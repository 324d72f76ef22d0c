//! Trying until it succeeds: what is done about a store that fails for a while, by whoever uses one.
//!
//! A store that is away, busy or full is waited for, with longer and longer pauses, for as long as the pipeline runs:
//! nothing is lost and the way in comes to a halt by itself. Who looks is told: the node's books say what is waited for and
//! since when, and the log has one line when the waiting begins, one when the reason changes and one when it is over.

use std::sync::Arc;
use std::time::Duration;

use model::Account;
use model::time::{self, Micros};
use tokio::time::Instant;
use twox_hash::XxHash64;

/// The first pause.
const FIRST: u64 = 100;
/// The longest: so late does a sink go on when its store is back.
const LONGEST: u64 = 10_000;

/// Attempts at one thing.
#[derive(Debug)]
pub struct Attempts {
    account: Arc<Account>,
    /// The table, file or address.
    place: String,
    /// What is tried.
    name: String,
    failed: u32,
    since: Instant,
}

impl Attempts {
    /// None yet. Pauses follow from the name of what is tried, so that many writers do not come back together.
    pub fn new(account: &Arc<Account>, place: impl Into<String>, name: impl Into<String>) -> Self {
        Attempts { account: account.clone(), place: place.into(), name: name.into(), failed: 0, since: Instant::now() }
    }

    /// One failed for a reason that may pass: says so. Returns how long to wait before the next.
    #[must_use]
    pub fn failed(&mut self, what: &str, remedy: &str) -> Duration {
        if self.failed == 0 {
            self.since = Instant::now();
        }
        let pause = backoff(&self.name, self.failed);
        let why = if remedy.is_empty() { what.to_owned() } else { format!("{what}; {remedy}") };
        let before = self.account.wait(&self.place, &why, self.failed == 0);
        self.failed += 1;
        if before.is_none_or(|before| !alike(&before, &why)) {
            tracing::warn!(place = self.place, "waiting, and trying again: {why}");
        }
        pause
    }

    /// How long it has been failing.
    pub fn waited(&self) -> Duration {
        if self.failed == 0 { Duration::ZERO } else { self.since.elapsed() }
    }

    /// One succeeded.
    pub fn succeeded(&mut self) {
        if let Some(since) = self.end() {
            let seconds = time::now().saturating_sub(since) as f64 / time::SECOND as f64;
            tracing::info!(place = self.place, "going on after {seconds:.1} s");
        }
    }

    fn end(&mut self) -> Option<Micros> {
        (std::mem::take(&mut self.failed) > 0).then(|| self.account.go_on(&self.place))?
    }
}

impl Drop for Attempts {
    /// What is given up is not waited for.
    fn drop(&mut self) {
        self.end();
    }
}

/// How long to wait before the next attempt: doubling up to the longest, less up to half of it.
fn backoff(name: &str, failed: u32) -> Duration {
    let full = FIRST.saturating_mul(1 << failed.min(20)).min(LONGEST);
    let share = XxHash64::oneshot(u64::from(failed), name.as_bytes()) % 512;
    Duration::from_millis(full - full * share / 1024)
}

/// Whether two reasons differ in nothing but numbers: counts, ports, request ids.
fn alike(a: &str, b: &str) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_hexdigit()).collect::<String>();
    words(a) == words(b)
}

/// The nature of an error that stays or may pass.
pub trait MayPass {
    /// Whether the same may succeed later.
    fn may_pass(&self) -> bool;
    /// What happened, and what to do about it.
    fn words(&self) -> (String, String);
}

/// Tries until it succeeds, fails for good, or has failed for longer than `patience`.
///
/// # Errors
/// That of the last attempt.
pub async fn retry<T, E: MayPass, F: Future<Output = Result<T, E>>>(
    mut attempts: Attempts,
    patience: Option<Duration>,
    attempt: impl Fn() -> F,
) -> Result<T, E> {
    loop {
        let error = match attempt().await {
            Ok(done) => {
                attempts.succeeded();
                return Ok(done);
            }
            Err(error) => error,
        };
        if !error.may_pass() {
            return Err(error);
        }
        let (what, remedy) = error.words();
        let pause = attempts.failed(&what, &remedy);
        if patience.is_some_and(|patience| attempts.waited() + pause > patience) {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Debug, PartialEq)]
    struct Refused(bool);

    impl MayPass for Refused {
        fn may_pass(&self) -> bool {
            self.0
        }
        fn words(&self) -> (String, String) {
            ("refused".into(), "start it".into())
        }
    }

    #[test]
    fn pauses_grow_to_ten_seconds() {
        for failed in 0..60 {
            let full = (100_u64 << failed.min(20)).min(10_000);
            let wait = backoff("token", failed).as_millis() as u64;
            assert!((full / 2..=full).contains(&wait), "{failed}: {wait}");
        }
        assert_ne!(backoff("token", 8), backoff("other", 8));
    }

    #[test]
    fn the_books_say_what_is_waited_for_while_it_is() {
        let account = Arc::new(Account::default());
        let mut attempts = Attempts::new(&account, "http://h:1", "t");
        attempts.succeeded();
        assert!(account.totals().waits.is_empty());
        let short = Duration::from_millis(FIRST / 2)..=Duration::from_millis(FIRST);
        assert!(short.contains(&attempts.failed("too many parts (300)", "see its log")));
        let first = account.totals().waits;
        assert!(attempts.failed("too many parts (301)", "see its log") >= Duration::from_millis(FIRST));
        let waits = account.totals().waits;
        assert_eq!((waits.len(), waits[0].place.as_str(), waits[0].since), (1, "http://h:1", first[0].since));
        assert_eq!(waits[0].why, "too many parts (301); see its log");
        assert_eq!(waits[0].to_string(), "waiting for 0 s for http://h:1: too many parts (301); see its log");
        attempts.succeeded();
        assert!(account.totals().waits.is_empty());
        assert!(short.contains(&attempts.failed("gone", "")));
        let mut other = Attempts::new(&account, "http://h:1", "u");
        assert!(short.contains(&other.failed("gone", "")));
        other.succeeded();
        assert_eq!(account.totals().waits.len(), 1, "the first waits on");
        drop(attempts);
        assert!(account.totals().waits.is_empty(), "what is given up is not waited for");
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_and_nothing_else() {
        let account = Arc::new(Account::default());
        let attempts = || Attempts::new(&account, "p", "t");
        let tried = AtomicU32::new(0);
        let fails = |times: u32, error: Refused| {
            let number = tried.fetch_add(1, Ordering::Relaxed) + 1;
            async move { if number <= times { Err(error) } else { Ok(number) } }
        };
        assert_eq!(retry(attempts(), None, || fails(2, Refused(true))).await, Ok(3));
        tried.store(0, Ordering::Relaxed);
        assert_eq!(retry(attempts(), None, || fails(9, Refused(false))).await, Err(Refused(false)));
        assert_eq!(tried.load(Ordering::Relaxed), 1);
        tried.store(0, Ordering::Relaxed);
        let patience = Some(Duration::from_millis(250));
        assert_eq!(retry(attempts(), patience, || fails(1_000, Refused(true))).await, Err(Refused(true)));
        assert!((2..=4).contains(&tried.load(Ordering::Relaxed)), "as often as a quarter of a second allows");
        assert!(account.totals().waits.is_empty());
    }
}
