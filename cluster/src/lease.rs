//! Which node leads: one at a time, told by a record in the store that its holder keeps renewing.
//!
//! No clock is compared with another's. The holder counts its time from before it asked the store to renew, and leads
//! for three quarters of the term; another node counts from after it first saw the record as it is, and takes it over
//! when it has not changed for a whole term. So of two nodes at most one leads, as long as their clocks run equally fast to
//! a quarter, however far apart they stand, and however long the store or a network takes to answer.
//!
//! Each time the lease goes to someone else its *epoch* grows. What a leader writes bears the epoch, and is written by
//! compare-and-set on what the leader has read: one that was replaced and does not know it yet changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::store::{Revision, Store, StoreError};

/// The key of the record.
pub const KEY: &str = "leader";
/// How long a leader that is silent remains the leader.
pub const TERM: Duration = Duration::from_secs(6);
/// How often the lease is tended.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// What the store holds under [`KEY`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The incarnation of the node that leads: each start of an agent has its own.
    pub holder: String,
    /// The name of that node, for people.
    pub node: String,
    /// The address of its API.
    #[serde(default)]
    pub address: String,
    /// How often the lease went to another holder. It only grows.
    pub epoch: u64,
    /// Whether the holder has let it go.
    pub released: bool,
}

/// A node's part in holding the lease.
#[derive(Debug)]
pub struct Lease {
    holder: String,
    node: String,
    address: String,
    term: Duration,
    alone: bool,
    held: Option<Held>,
    seen: Option<Seen>,
}

/// The record of another holder, and since when it is as it is.
#[derive(Debug)]
struct Seen {
    revision: Revision,
    since: Duration,
    record: Record,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: u64,
    revision: Revision,
    until: Duration,
}

impl Lease {
    /// A part that has not begun. `holder` must not be used by any other incarnation of any node, ever. `address` is where
    /// other nodes find this one.
    pub fn new(holder: impl Into<String>, node: impl Into<String>, address: impl Into<String>, term: Duration) -> Lease {
        Lease { holder: holder.into(), node: node.into(), address: address.into(), term, alone: false, held: None, seen: None }
    }

    /// The part of a node that knows otherwise, by a lock, that no other uses the store while it lives: it takes the lease
    /// at once, with a new epoch, and does not need to renew it.
    pub fn alone(holder: impl Into<String>, node: impl Into<String>) -> Lease {
        Lease { alone: true, ..Lease::new(holder, node, "", TERM) }
    }

    /// The epoch, if this node leads now. Times are since any moment, but always the same one.
    pub fn leads(&self, now: Duration) -> Option<u64> {
        self.held.filter(|held| now < held.until).map(|held| held.epoch)
    }

    /// Who else leads, as far as is known: whoever has renewed the record within half a term.
    pub fn other(&self, now: Duration) -> Option<&Record> {
        let seen = self.seen.as_ref().filter(|_| self.held.is_none())?;
        let fresh = now.saturating_sub(seen.since) < self.term / 2;
        Some(&seen.record).filter(|record| fresh && !record.released && record.holder != self.holder)
    }

    /// Until when this node leads.
    pub fn until(&self) -> Option<Duration> {
        self.held.map(|held| held.until)
    }

    /// Renews the lease if this node holds it, else takes it if it is free. To be called a few times a term; `now` tells
    /// the time each time it is asked.
    ///
    /// # Errors
    /// The store cannot be used. What this node holds, it holds until its time is over.
    pub async fn tend(&mut self, store: &dyn Store, now: &(dyn Fn() -> Duration + Sync)) -> Result<(), StoreError> {
        let asked = now();
        if self.alone && self.held.is_some() {
            return Ok(());
        }
        if let Some(held) = self.held {
            return match self.write(store, Some(held.revision), held.epoch, asked).await {
                // Someone took it, or an answer of ours was lost; the next look tells.
                Err(StoreError::Conflict { .. }) => {
                    self.held = None;
                    self.seen = None;
                    Ok(())
                }
                result => result,
            };
        }
        let Some(entry) = store.get(KEY).await? else {
            return self.contend(store, None, 1, asked).await;
        };
        let record: Record = read(&entry.value)?;
        let since = match &self.seen {
            Some(seen) if seen.revision == entry.revision => seen.since,
            _ => {
                let since = now();
                self.seen = Some(Seen { revision: entry.revision, since, record: record.clone() });
                since
            }
        };
        if record.holder == self.holder && !record.released {
            self.contend(store, Some(entry.revision), record.epoch, asked).await
        } else if record.released || self.alone || asked.saturating_sub(since) >= self.term {
            self.contend(store, Some(entry.revision), record.epoch + 1, asked).await
        } else {
            Ok(())
        }
    }

    /// Lets the lease go, so that another node needs not wait for its end.
    ///
    /// # Errors
    /// The store cannot be used; the lease ends by itself.
    pub async fn release(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let record = Record { released: true, ..self.record(held.epoch) };
        match store.update(KEY, &bytes(&record), held.revision).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn record(&self, epoch: u64) -> Record {
        Record { holder: self.holder.clone(), node: self.node.clone(), address: self.address.clone(), epoch, released: false }
    }

    /// Takes it, unless another is faster.
    async fn contend(&mut self, store: &dyn Store, expected: Option<Revision>, epoch: u64, asked: Duration) -> Result<(), StoreError> {
        match self.write(store, expected, epoch, asked).await {
            Err(StoreError::Conflict { .. }) => Ok(()),
            result => result,
        }
    }

    async fn write(&mut self, store: &dyn Store, expected: Option<Revision>, epoch: u64, asked: Duration) -> Result<(), StoreError> {
        let record = bytes(&self.record(epoch));
        let revision = match expected {
            Some(expected) => store.update(KEY, &record, expected).await?,
            None => store.create(KEY, &record).await?,
        };
        let until = if self.alone { Duration::MAX } else { asked + self.term * 3 / 4 };
        self.held = Some(Held { epoch, revision, until });
        self.seen = None;
        Ok(())
    }
}

/// Who leads, as a node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leading {
    /// This node, in this epoch and until then.
    pub own: Option<(u64, Instant)>,
    /// Another.
    pub other: Option<Record>,
}

impl Leading {
    /// The epoch, if this node leads now.
    pub fn epoch(&self) -> Option<u64> {
        self.own.filter(|(_, until)| Instant::now() < *until).map(|(epoch, _)| epoch)
    }
}

/// An epoch of this node's.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// The epoch.
    pub epoch: u64,
    leading: watch::Receiver<Leading>,
}

impl Leadership {
    /// The one that a node has now, if it leads.
    pub fn now(leading: &watch::Receiver<Leading>) -> Option<Leadership> {
        let epoch = leading.borrow().epoch()?;
        Some(Leadership { epoch, leading: leading.clone() })
    }

    /// Returns when it is over: another node may lead from then on.
    pub async fn is_over(mut self) {
        loop {
            let own = self.leading.borrow_and_update().own;
            let Some((_, until)) = own.filter(|(epoch, until)| *epoch == self.epoch && Instant::now() < *until) else { return };
            tokio::select! {
                () = sleep_until(until) => {}
                // Whoever tends the lease is gone: its time passes.
                changed = self.leading.changed() => if changed.is_err() { sleep_until(until).await },
            }
        }
    }
}

fn bytes(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record is JSON")
}

/// The record as it stands in the store.
///
/// # Errors
/// It is none.
pub fn read(value: &[u8]) -> Result<Record, StoreError> {
    serde_json::from_slice(value).map_err(|error| StoreError::Unavailable {
        place: format!("key `{KEY}`"),
        reason: format!("it holds no lease: {error}"),
        remedy: "another program or another version writes it; run one version of this program on all nodes".into(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::memory::{Fault, Memory};

    const TEST_TERM: Duration = Duration::from_millis(1_000);
    const NODES: usize = 3;

    #[derive(Clone, Debug)]
    enum Op {
        /// True time goes on by so many milliseconds.
        Pass(u64),
        /// A node tends its lease; each time that it looks at its clock, so many milliseconds have passed.
        Tend(usize, u64),
        /// The same, and the store fails.
        Fail(usize, u64, bool),
        Release(usize),
        /// A node dies and starts anew.
        Restart(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let slow = prop_oneof![4 => Just(0_u64), 1 => 1..1_500_u64];
        prop_oneof![
            4 => (1..700_u64).prop_map(Op::Pass),
            8 => (0..NODES, slow.clone()).prop_map(|(n, slow)| Op::Tend(n, slow)),
            2 => (0..NODES, slow, any::<bool>()).prop_map(|(n, slow, lost)| Op::Fail(n, slow, lost)),
            1 => (0..NODES).prop_map(Op::Release),
            1 => (0..NODES).prop_map(Op::Restart),
        ]
    }

    /// A clock that stands and runs wrong.
    #[derive(Clone, Copy, Debug)]
    struct Clock {
        offset: u64,
        /// Thousandths of the true speed.
        speed: u64,
    }

    impl Clock {
        fn reading(self, truth: u64) -> Duration {
            Duration::from_millis(self.offset + truth * self.speed / 1_000)
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn at_most_one_leads_and_epochs_grow(
            ops in prop::collection::vec(op(), 0..200),
            // Fastest to slowest within a quarter.
            clocks in prop::collection::vec((0..1_000_000_u64, 900..1_100_u64), NODES),
        ) {
            let store = Memory::default();
            let clocks: Vec<Clock> = clocks.into_iter().map(|(offset, speed)| Clock { offset, speed }).collect();
            let truth = AtomicU64::new(0);
            let mut incarnations = 0;
            let mut lease = |node: usize| {
                incarnations += 1;
                Lease::new(format!("{node}-{incarnations}"), format!("{node}"), "", TEST_TERM)
            };
            let mut leases: Vec<Lease> = (0..NODES).map(&mut lease).collect();
            let mut holders: BTreeMap<u64, String> = BTreeMap::new();
            let mut greatest = 0;
            for op in ops {
                match op {
                    Op::Pass(millis) => drop(truth.fetch_add(millis, Ordering::Relaxed)),
                    Op::Tend(n, slow) | Op::Fail(n, slow, _) => {
                        if let Op::Fail(_, _, lost) = op {
                            store.fail(if lost { Fault::LoseAnswer } else { Fault::Refuse });
                        }
                        let clock = clocks[n];
                        let now = || clock.reading(truth.fetch_add(slow, Ordering::Relaxed));
                        let result = block_on(leases[n].tend(&store, &now));
                        prop_assert!(result.is_ok() || matches!(op, Op::Fail(..)), "{:?}", result);
                    }
                    Op::Release(n) => block_on(leases[n].release(&store)).unwrap(),
                    Op::Restart(n) => leases[n] = lease(n),
                }
                let truth = truth.load(Ordering::Relaxed);
                let leading: Vec<(usize, u64)> =
                    (0..NODES).filter_map(|n| Some((n, leases[n].leads(clocks[n].reading(truth))?))).collect();
                prop_assert!(leading.len() <= 1, "{leading:?} lead at once");
                for (n, epoch) in leading {
                    prop_assert!(epoch >= greatest, "epoch {epoch} after {greatest}");
                    greatest = epoch;
                    let holder = holders.entry(epoch).or_insert_with(|| leases[n].holder.clone());
                    prop_assert_eq!(&*holder, &leases[n].holder, "epoch {} had two holders", epoch);
                }
            }
        }
    }

    #[test]
    fn a_lease_is_renewed_released_and_taken_over() {
        let store = Memory::default();
        let at = |millis: u64| move || Duration::from_millis(millis);
        let now = |millis: u64| Duration::from_millis(millis);
        let mut a = Lease::new("a-1", "a", "a:1", TEST_TERM);
        let mut b = Lease::new("b-1", "b", "b:1", TEST_TERM);
        block_on(async {
            a.tend(&store, &at(0)).await.unwrap();
            b.tend(&store, &at(0)).await.unwrap();
            assert_eq!((a.leads(now(0)), b.leads(now(0))), (Some(1), None));
            a.tend(&store, &at(500)).await.unwrap();
            assert_eq!((a.leads(now(1_249)), a.leads(now(1_250))), (Some(1), None), "its own time ends before that of others begins");
            // b has not seen the renewal yet: it begins to count when it does.
            b.tend(&store, &at(1_400)).await.unwrap();
            b.tend(&store, &at(2_399)).await.unwrap();
            assert_eq!(b.leads(now(2_399)), None);
            b.tend(&store, &at(2_400)).await.unwrap();
            assert_eq!(b.leads(now(2_400)), Some(2));
            a.tend(&store, &at(2_500)).await.unwrap();
            assert_eq!(a.leads(now(2_500)), None);
            b.release(&store).await.unwrap();
            a.tend(&store, &at(2_600)).await.unwrap();
            assert_eq!((a.leads(now(2_600)), b.leads(now(2_600))), (Some(3), None));
            let mut alone = Lease::alone("a-2", "a");
            alone.tend(&store, &at(0)).await.unwrap();
            assert_eq!(alone.leads(Duration::from_secs(1_000_000)), Some(4));
        });
    }
}
