//! The books of a pipeline: every record accounted for.
//!
//! Each node has one [`Account`], shared by its workers and updated once a batch. The balance is
//! `received = accepted + ignored + rejected + late` at every node, and what a node sent must be what the
//! nodes after it received. `received` is counted by the runtime where rows arrive and the other four by
//! the node where it decides, so the equation can fail, and a failure means that rows were lost or doubled.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::time::{self, Micros};

/// The counters of one node. All are totals since the pipeline started.
#[derive(Debug, Default)]
pub struct Account {
    received: AtomicU64,
    accepted: AtomicU64,
    ignored: AtomicU64,
    late: AtomicU64,
    sent: AtomicU64,
    retracted: AtomicU64,
    bytes: AtomicU64,
    rejected: Mutex<BTreeMap<&'static str, u64>>,
    by_kind: Mutex<BTreeMap<String, u64>>,
    arrived: Mutex<BTreeMap<String, u64>>,
    watermark: AtomicI64,
    share: AtomicU64,
    errors: Mutex<Vec<String>>,
    /// By place, with how many wait there.
    waits: Mutex<BTreeMap<String, (Wait, usize)>>,
}

impl Account {
    /// Rows arrived.
    pub fn receive(&self, rows: usize) {
        self.received.fetch_add(rows as u64, Relaxed);
    }

    /// Rows of a kind arrived from the nodes before.
    pub fn receive_kind(&self, kind: &str, rows: usize) {
        self.receive(rows);
        add(&self.arrived, kind, rows);
    }

    /// Rows were used.
    pub fn accept(&self, rows: usize) {
        self.accepted.fetch_add(rows as u64, Relaxed);
    }

    /// Rows were understood and not wanted.
    pub fn ignore(&self, rows: usize) {
        self.ignored.fetch_add(rows as u64, Relaxed);
    }

    /// Rows came after their window had closed.
    pub fn late(&self, rows: usize) {
        self.late.fetch_add(rows as u64, Relaxed);
    }

    /// Rows were refused for a reason.
    pub fn reject(&self, reason: &'static str, rows: usize) {
        if rows > 0 {
            *self.rejected.lock().expect("no counter panics").entry(reason).or_default() += rows as u64;
        }
    }

    /// Rows of a kind were sent on, some of them retractions.
    pub fn send(&self, kind: &str, rows: usize, retracted: usize, bytes: usize) {
        self.sent.fetch_add(rows as u64, Relaxed);
        self.retracted.fetch_add(retracted as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        add(&self.by_kind, kind, rows);
    }

    /// The event time that the node has come to.
    pub fn watermark(&self, watermark: Micros) {
        self.watermark.fetch_max(watermark, Relaxed);
    }

    /// So much of a source was handed over, from 0 to 1.
    pub fn share(&self, share: f64) {
        self.share.store(share.to_bits(), Relaxed);
    }

    /// Something went wrong that did not stop the node: it is told in the summary.
    pub fn error(&self, error: impl Into<String>) {
        self.errors.lock().expect("no counter panics").push(error.into());
    }

    /// Something of the node can do nothing at a place, for a reason that may pass, and tries again; `joins` if it did not wait
    /// there before. Returns what was said of the place until now.
    pub fn wait(&self, place: &str, why: &str, joins: bool) -> Option<String> {
        let mut waits = self.waits.lock().expect("no counter panics");
        match waits.get_mut(place) {
            Some((wait, waiting)) => {
                *waiting += usize::from(joins);
                Some(std::mem::replace(&mut wait.why, why.to_owned()))
            }
            None => {
                let wait = Wait { since: time::now(), place: place.to_owned(), why: why.to_owned() };
                waits.insert(place.to_owned(), (wait, 1));
                None
            }
        }
    }

    /// What waited at a place does so no more. Returns since when the place was waited for, if nothing is left that does.
    pub fn go_on(&self, place: &str) -> Option<Micros> {
        let mut waits = self.waits.lock().expect("no counter panics");
        let (wait, waiting) = waits.get_mut(place)?;
        *waiting -= 1;
        let since = (*waiting == 0).then_some(wait.since)?;
        waits.remove(place);
        Some(since)
    }

    /// The counters now.
    pub fn totals(&self) -> Totals {
        Totals {
            received: self.received.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            ignored: self.ignored.load(Relaxed),
            late: self.late.load(Relaxed),
            sent: self.sent.load(Relaxed),
            retracted: self.retracted.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            rejected: self.rejected.lock().expect("no counter panics").iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
            arrived: self.arrived.lock().expect("no counter panics").clone(),
            by_kind: self.by_kind.lock().expect("no counter panics").clone(),
            share: Some(f64::from_bits(self.share.load(Relaxed))).filter(|s| *s > 0.0),
            watermark: Some(self.watermark.load(Relaxed)).filter(|w| *w != 0),
            errors: self.errors.lock().expect("no counter panics").clone(),
            waits: self.waits.lock().expect("no counter panics").values().map(|(wait, _)| wait.clone()).collect(),
        }
    }
}

/// Adds to the count of a kind; allocates only when the kind is new.
fn add(counts: &Mutex<BTreeMap<String, u64>>, kind: &str, rows: usize) {
    if rows == 0 {
        return;
    }
    let mut counts = counts.lock().expect("no counter panics");
    match counts.get_mut(kind) {
        Some(count) => *count += rows as u64,
        None => drop(counts.insert(kind.to_owned(), rows as u64)),
    }
}

/// The counters of a node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Rows that arrived.
    pub received: u64,
    /// Rows that were used.
    pub accepted: u64,
    /// Rows that were understood and not wanted.
    pub ignored: u64,
    /// Rows that came after their window had closed.
    pub late: u64,
    /// Rows sent on (written, for a sink), retractions included.
    pub sent: u64,
    /// Retractions among the rows sent on.
    pub retracted: u64,
    /// Bytes of memory of the rows sent on.
    pub bytes: u64,
    /// Rows that were refused, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Rows that arrived from the nodes before, by kind.
    pub arrived: BTreeMap<String, u64>,
    /// Rows sent on, by kind.
    pub by_kind: BTreeMap<String, u64>,
    /// How much of a source was handed over, from 0 to 1, where its end is known.
    pub share: Option<f64>,
    /// The event time that the node has come to.
    pub watermark: Option<Micros>,
    /// What went wrong without stopping the node.
    pub errors: Vec<String>,
    /// What the node waits for, by place.
    pub waits: Vec<Wait>,
}

/// What a node waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Since when.
    pub since: Micros,
    /// The table, file or address.
    pub place: String,
    /// Why nothing can be done there now, and what would help.
    pub why: String,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = time::now().saturating_sub(self.since).max(0) / time::SECOND;
        write!(f, "waiting for {seconds} s for {}: {}", self.place, self.why)
    }
}

impl Totals {
    /// Adds the counters of the same node in another process.
    pub fn add(&mut self, other: &Totals) {
        self.received += other.received;
        self.accepted += other.accepted;
        self.ignored += other.ignored;
        self.late += other.late;
        self.sent += other.sent;
        self.retracted += other.retracted;
        self.bytes += other.bytes;
        let counts = [(&mut self.rejected, &other.rejected), (&mut self.arrived, &other.arrived), (&mut self.by_kind, &other.by_kind)];
        for (ours, theirs) in counts {
            for (name, count) in theirs {
                *ours.entry(name.clone()).or_default() += count;
            }
        }
        self.share = self.share.or(other.share);
        self.watermark = self.watermark.max(other.watermark);
        self.errors.extend(other.errors.iter().cloned());
        self.waits.extend(other.waits.iter().cloned());
    }

    /// Rows that were refused for any reason.
    pub fn rejected(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// Whether every row that arrived is accounted for.
    pub fn balances(&self) -> bool {
        self.received == self.accepted + self.ignored + self.late + self.rejected()
    }
}
