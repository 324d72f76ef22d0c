use proptest::prelude::*;

use super::*;
use crate::book::rules::Span;

/// Remembers what it is told.
#[derive(Debug, Default)]
struct Log {
    events: Vec<(Event, Option<i64>, Option<i64>)>,
    details: Vec<String>,
    applied: Vec<i64>,
    left: Vec<Option<Micros>>,
    voided: usize,
}

impl Watch for Log {
    fn leaving(&mut self, _: &Book, until: Option<Micros>) {
        self.left.push(until);
    }
    fn applied(&mut self, book: &Book) {
        self.applied.extend(book.sequence);
    }
    fn voided(&mut self) {
        self.voided += 1;
    }
    fn happened(&mut self, happening: Happening<'_>) {
        self.events.push((happening.event, happening.expected, happening.sequence));
        self.details.push(happening.detail.to_string());
    }
}

const LIMITS: Limits = Limits { deltas: 1_000, bytes: 1 << 20 };

fn cause(time: i64) -> Cause {
    Cause { event_time: Some(time), receive_time: Some(time + 1), frame: Some(time + 2) }
}

/// A machine with a log, fed by numbers.
#[derive(Debug, Default)]
struct Rig {
    machine: Machine,
    log: Log,
}

impl Rig {
    fn delta(&mut self, first: i64, last: i64, previous: Option<i64>, bids: &[(i128, i128)], asks: &[(i128, i128)]) -> bool {
        self.limited(LIMITS, first, last, previous, bids, asks)
    }

    fn limited(
        &mut self,
        limits: Limits,
        first: i64,
        last: i64,
        previous: Option<i64>,
        bids: &[(i128, i128)],
        asks: &[(i128, i128)],
    ) -> bool {
        let ((bp, bs), (ap, az)): ((Vec<i128>, Vec<i128>), (Vec<i128>, Vec<i128>)) =
            (bids.iter().copied().unzip(), asks.iter().copied().unzip());
        let delta = Delta {
            cause: cause(last),
            span: Some(Span { first, last, previous }),
            bids: Levels { prices: &bp, sizes: &bs },
            asks: Levels { prices: &ap, sizes: &az },
            contracts: false,
            checksum: None,
        };
        self.machine.delta(delta, limits, &mut self.log)
    }

    /// A contiguous delta that changes nothing but the number.
    fn spot(&mut self, first: i64, last: i64) -> bool {
        self.delta(first, last, None, &[], &[])
    }

    fn snapshot(&mut self, sequence: i64, bids: &[(i128, i128)], asks: &[(i128, i128)]) -> bool {
        self.snapshot_at(sequence, sequence, bids, asks)
    }

    /// A snapshot of another time than that of its number.
    fn snapshot_at(&mut self, time: i64, sequence: i64, bids: &[(i128, i128)], asks: &[(i128, i128)]) -> bool {
        let ((bp, bs), (ap, az)): ((Vec<i128>, Vec<i128>), (Vec<i128>, Vec<i128>)) =
            (bids.iter().copied().unzip(), asks.iter().copied().unzip());
        let snapshot = Snapshot {
            cause: cause(time),
            sequence: Some(sequence),
            bids: Levels { prices: &bp, sizes: &bs },
            asks: Levels { prices: &ap, sizes: &az },
            contracts: false,
            depth: None,
            checksum: None,
        };
        self.machine.snapshot(snapshot, &mut self.log)
    }

    /// A change without numbers.
    fn change(&mut self, bids: &[(i128, i128)], asks: &[(i128, i128)], checksum: impl Into<Option<Checksum>>) -> bool {
        let ((bp, bs), (ap, az)): ((Vec<i128>, Vec<i128>), (Vec<i128>, Vec<i128>)) =
            (bids.iter().copied().unzip(), asks.iter().copied().unzip());
        let (bids, asks) = (Levels { prices: &bp, sizes: &bs }, Levels { prices: &ap, sizes: &az });
        let delta = Delta { cause: cause(1), span: None, bids, asks, contracts: false, checksum: checksum.into() };
        self.machine.delta(delta, LIMITS, &mut self.log)
    }

    /// A snapshot without a number.
    fn whole(&mut self, bids: &[(i128, i128)], asks: &[(i128, i128)], depth: usize, checksum: impl Into<Option<Checksum>>) -> bool {
        let ((bp, bs), (ap, az)): ((Vec<i128>, Vec<i128>), (Vec<i128>, Vec<i128>)) =
            (bids.iter().copied().unzip(), asks.iter().copied().unzip());
        let (bids, asks) = (Levels { prices: &bp, sizes: &bs }, Levels { prices: &ap, sizes: &az });
        let (depth, checksum) = (Some(depth), checksum.into());
        let snapshot = Snapshot { cause: cause(1), sequence: None, bids, asks, contracts: false, depth, checksum };
        self.machine.snapshot(snapshot, &mut self.log)
    }

    fn missing(&mut self) -> bool {
        self.machine.missing(cause(1), &mut self.log)
    }

    fn quote(&mut self, sequence: i64, bid: (i128, i128), ask: (i128, i128)) -> bool {
        self.machine.quote(Quote { cause: cause(sequence), sequence, bid: Some(bid), ask: Some(ask) })
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.log.events).into_iter().map(|(event, ..)| event).collect()
    }
}

use Event::Snapshot as Seed;
use Event::{Buffering, Crossed, Gap, Live, Mismatch, Uncrossed};

#[test]
fn buffers_then_splices_then_follows() {
    let mut rig = Rig::default();
    assert_eq!(rig.machine.phase(), Phase::Idle);
    assert!(rig.delta(1, 5, None, &[(10, 1)], &[]));
    assert!(rig.delta(6, 9, None, &[(11, 2)], &[(20, 2)]));
    assert!(rig.delta(10, 12, None, &[], &[(20, 0), (21, 4)]));
    assert!(rig.machine.book().is_none());
    assert_eq!(rig.events(), [Buffering]);
    assert!(rig.snapshot(7, &[(9, 9)], &[(20, 1)]));
    assert_eq!(rig.machine.phase(), Phase::Live);
    assert_eq!(rig.events(), [Seed, Live]);
    assert_eq!(rig.log.applied, [9, 12]);
    let book = rig.machine.book().unwrap();
    assert_eq!(book.bids.iter().collect::<Vec<_>>(), [(11, 2), (9, 9)]);
    assert_eq!(book.asks.iter().collect::<Vec<_>>(), [(21, 4)]);
    assert!(rig.spot(13, 13));
    assert_eq!(rig.machine.book().unwrap().sequence.unwrap(), 13);
    assert_eq!(rig.machine.tally(), Tally { applied: 3, stale: 1, dropped: 0, gaps: 0 });
    assert_eq!(rig.log.left, [Some(9), Some(12), Some(13)]);
}

#[test]
fn a_snapshot_first_waits_for_the_delta_that_follows() {
    let mut rig = Rig::default();
    assert!(rig.snapshot(10, &[(1, 1)], &[(2, 1)]));
    assert_eq!(rig.machine.phase(), Phase::Seeded);
    assert!(rig.machine.book().is_some());
    assert!(!rig.spot(8, 10), "the snapshot contains it");
    assert!(rig.spot(9, 12));
    assert_eq!(rig.machine.phase(), Phase::Live);
    assert_eq!(rig.events(), [Seed, Live]);
}

#[test]
fn a_snapshot_newer_than_all_that_waits_leaves_nothing_waiting() {
    let mut rig = Rig::default();
    rig.spot(1, 5);
    assert!(rig.snapshot(8, &[], &[]));
    assert_eq!((rig.machine.phase(), rig.machine.tally().stale), (Phase::Seeded, 1));
    assert!(rig.spot(9, 9));
    assert_eq!(rig.events(), [Buffering, Seed, Live]);
}

#[test]
fn a_snapshot_older_than_all_that_waits_is_of_no_use() {
    let mut rig = Rig::default();
    rig.spot(10, 15);
    assert!(!rig.snapshot(8, &[(1, 1)], &[]));
    assert_eq!(rig.machine.phase(), Phase::Buffering);
    assert_eq!(rig.log.events.last(), Some(&(Buffering, Some(9), Some(8))));
    assert!(rig.log.details.last().unwrap().contains("a newer one is needed"), "{:?}", rig.log.details);
    assert!(rig.snapshot(9, &[(1, 1)], &[]));
    assert_eq!((rig.machine.phase(), rig.machine.book().unwrap().sequence.unwrap()), (Phase::Live, 15));
}

#[test]
fn futures_splice_on_the_snapshots_own_number() {
    let mut rig = Rig::default();
    rig.delta(10, 20, Some(9), &[], &[]);
    rig.delta(25, 30, Some(20), &[], &[]);
    rig.delta(33, 40, Some(30), &[], &[]);
    assert!(rig.snapshot(30, &[], &[]));
    assert_eq!(rig.machine.tally(), Tally { applied: 2, stale: 1, dropped: 0, gaps: 0 });
    assert!(rig.delta(77, 80, Some(40), &[], &[]));
    assert!(rig.delta(90, 95, Some(81), &[], &[]));
    assert_eq!(rig.machine.phase(), Phase::Buffering);
    assert_eq!(rig.log.events.iter().find(|e| e.0 == Gap), Some(&(Gap, Some(81), Some(82))));
    assert!(rig.log.details.iter().any(|d| d == "updates 81 to 81 are missing: a delta to update 95 came that follows update 81; the book at update 80 is invalid until the next snapshot"), "{:?}", rig.log.details);
}

#[test]
fn a_gap_makes_the_book_invalid_until_the_next_snapshot() {
    let mut rig = Rig::default();
    rig.snapshot(10, &[(1, 1)], &[(2, 1)]);
    rig.spot(11, 12);
    rig.events();
    assert!(rig.spot(15, 16));
    assert!(rig.machine.book().is_none());
    assert_eq!(rig.log.events, [(Gap, Some(13), Some(15)), (Buffering, None, Some(16))]);
    assert_eq!(rig.log.left.last(), Some(&None), "the last sample of the valid book is due");
    assert!(rig.spot(17, 18));
    assert!(rig.snapshot(16, &[(5, 5)], &[(6, 6)]));
    assert_eq!((rig.machine.phase(), rig.machine.book().unwrap().sequence.unwrap(), rig.machine.tally().gaps), (Phase::Live, 18, 1));
    assert_eq!(rig.machine.book().unwrap().bids.iter().collect::<Vec<_>>(), [(5, 5)]);
}

#[test]
fn a_gap_right_after_a_snapshot_is_a_gap() {
    let mut rig = Rig::default();
    rig.snapshot(10, &[], &[]);
    assert!(rig.spot(12, 13));
    assert_eq!(rig.events(), [Seed, Gap, Buffering]);
}

#[test]
fn a_gap_among_what_waits_throws_the_older_part_away() {
    let mut rig = Rig::default();
    rig.spot(1, 5);
    rig.spot(6, 7);
    rig.spot(10, 12);
    assert_eq!(rig.log.events.last(), Some(&(Gap, Some(8), Some(10))));
    assert_eq!(rig.machine.tally(), Tally { applied: 0, stale: 0, dropped: 2, gaps: 1 });
    assert!(!rig.snapshot(6, &[], &[]));
    assert!(rig.snapshot(9, &[], &[]));
    assert_eq!(rig.machine.book().unwrap().sequence.unwrap(), 12);
}

#[test]
fn duplicates_are_ignored_and_counted() {
    let mut rig = Rig::default();
    rig.spot(1, 5);
    assert!(!rig.spot(1, 5));
    rig.snapshot(5, &[], &[]);
    rig.spot(6, 8);
    assert!(!rig.spot(6, 8));
    assert!(!rig.spot(1, 5));
    assert_eq!(rig.machine.tally(), Tally { applied: 1, stale: 4, dropped: 0, gaps: 0 });
    assert_eq!(rig.events(), [Buffering, Seed, Live]);
}

#[test]
fn what_waits_is_bounded_in_number_and_bytes() {
    let mut rig = Rig::default();
    let limits = Limits { deltas: 3, bytes: 1 << 20 };
    for u in 1..=10 {
        rig.limited(limits, u, u, None, &[(1, 1)], &[]);
    }
    assert_eq!((rig.machine.waiting.len(), rig.machine.tally().dropped), (3, 7));
    assert_eq!(rig.log.events, [(Buffering, None, Some(1)), (Buffering, None, Some(1))], "told once");
    assert!(rig.log.details[1].starts_with("no snapshot came while 4 deltas waited"), "{:?}", rig.log.details);
    assert!(!rig.snapshot(3, &[], &[]), "what would follow it was dropped");
    assert!(rig.snapshot(7, &[], &[]));
    assert_eq!((rig.machine.book().unwrap().sequence.unwrap(), rig.machine.waiting_bytes), (10, 0));

    let mut rig = Rig::default();
    let many: Vec<(i128, i128)> = (1..=1_000).map(|p| (p, 1)).collect();
    let limits = Limits { deltas: 1_000, bytes: 100_000 };
    for u in 1..=10 {
        rig.limited(limits, u, u, None, &many, &[]);
        assert!(rig.machine.waiting_bytes <= 100_000);
    }
    assert_eq!((rig.machine.waiting.len(), rig.machine.tally().dropped), (3, 7));
    let tiny = Limits { deltas: 1_000, bytes: 10 };
    rig.limited(tiny, 11, 11, None, &many, &[]);
    assert_eq!(rig.machine.waiting.len(), 1, "the latest always stays");
}

#[test]
fn snapshots_of_a_live_book_verify_or_replace_it() {
    let mut rig = Rig::default();
    rig.snapshot(10, &[(5, 1), (4, 1)], &[(6, 1)]);
    rig.delta(11, 12, None, &[(5, 2)], &[]);
    rig.events();
    assert!(!rig.snapshot(11, &[], &[]), "older than the book");
    assert_eq!(rig.events(), []);
    assert!(rig.snapshot(12, &[(5, 2)], &[(6, 1)]));
    assert_eq!((rig.events(), rig.machine.phase()), (vec![Seed], Phase::Live));
    assert!(rig.log.details.last().unwrap().ends_with("agrees with the book in all its 2 levels"));
    assert_eq!(rig.machine.book().unwrap().bids.len(), 2, "the deeper level stays");
    assert!(rig.snapshot(12, &[(5, 3)], &[(6, 1)]));
    assert_eq!((rig.events(), rig.machine.phase()), (vec![Seed], Phase::Seeded));
    assert_eq!(rig.machine.book().unwrap().bids.iter().collect::<Vec<_>>(), [(5, 3)]);
    assert!(rig.snapshot(20, &[(7, 7)], &[]));
    assert_eq!(rig.log.left.last(), Some(&None));
    assert!(!rig.spot(13, 20));
    assert!(rig.spot(21, 22));
    assert_eq!((rig.events(), rig.machine.book().unwrap().sequence.unwrap()), (vec![Seed, Live], 22));
}

#[test]
fn a_snapshot_with_which_the_venue_begins_anew_replaces_the_book() {
    let mut rig = Rig::default();
    rig.snapshot(500, &[(5, 1)], &[(6, 1)]);
    rig.spot(501, 501);
    rig.events();
    assert!(!rig.snapshot(2, &[(7, 1)], &[(8, 1)]), "older than the book");
    assert!(rig.snapshot(1, &[(7, 1)], &[(8, 1)]));
    assert_eq!((rig.events(), rig.machine.phase()), (vec![Seed], Phase::Seeded));
    assert_eq!(rig.log.left.last(), Some(&None), "the last sample of the book before is due");
    assert!(rig.delta(2, 2, None, &[(7, 2)], &[]));
    let book = rig.machine.book().unwrap();
    assert_eq!((book.sequence, book.bids.iter().collect::<Vec<_>>()), (Some(2), vec![(7, 2)]));
    // While deltas of the numbers before wait, nothing that can follow it does.
    let mut rig = Rig::default();
    rig.snapshot(500, &[(5, 1)], &[(6, 1)]);
    rig.spot(502, 502);
    rig.spot(503, 503);
    assert!(rig.snapshot(1, &[(7, 1)], &[(8, 1)]));
    assert!(rig.spot(2, 2));
    assert_eq!(rig.machine.book().unwrap().sequence, Some(2));
    assert_eq!(rig.machine.tally(), Tally { applied: 1, stale: 0, dropped: 2, gaps: 1 });
    assert_eq!(rig.events(), [Seed, Gap, Buffering, Seed, Live]);
}

#[test]
fn numbers_that_are_reset_by_a_change_go_on_from_there() {
    let mut rig = Rig::default();
    rig.snapshot(10, &[(5, 1)], &[(6, 1)]);
    assert!(rig.delta(11, 15, Some(10), &[(5, 2)], &[]));
    assert!(!rig.delta(15, 15, Some(15), &[], &[]), "nothing has changed");
    assert!(rig.delta(3, 3, Some(15), &[(5, 3)], &[]));
    assert!(rig.delta(4, 5, Some(3), &[(5, 4)], &[]));
    let book = rig.machine.book().unwrap();
    assert_eq!((book.sequence, book.bids.iter().collect::<Vec<_>>()), (Some(5), vec![(5, 4)]));
    assert_eq!((rig.events(), rig.machine.tally()), (vec![Seed, Live], Tally { applied: 3, stale: 1, dropped: 0, gaps: 0 }));
}

#[test]
fn numbers_that_were_reset_unseen_are_told_by_the_time_of_the_snapshot() {
    let mut rig = Rig::default();
    rig.snapshot(500, &[(5, 1)], &[(6, 1)]);
    rig.delta(501, 510, Some(500), &[(5, 2)], &[]);
    assert!(!rig.snapshot_at(60_000_510, 3, &[(7, 1)], &[(8, 1)]), "it may be late");
    assert!(rig.snapshot_at(60_000_511, 3, &[(7, 1)], &[(8, 1)]));
    assert!(rig.delta(4, 9, Some(3), &[(7, 2)], &[]));
    assert_eq!(rig.machine.book().unwrap().bids.iter().collect::<Vec<_>>(), [(7, 2)]);
    // What waits was numbered before.
    let mut rig = Rig::default();
    rig.delta(501, 510, Some(500), &[(5, 2)], &[]);
    assert!(!rig.snapshot_at(60_000_510, 3, &[(7, 1)], &[(8, 1)]));
    assert!(rig.snapshot_at(60_000_511, 3, &[(7, 1)], &[(8, 1)]));
    assert!(rig.delta(4, 9, Some(3), &[(7, 2)], &[]));
    assert_eq!(rig.machine.tally(), Tally { applied: 1, stale: 0, dropped: 1, gaps: 0 });
}

#[test]
fn a_zero_size_removes_a_level_and_an_absent_one_is_no_error() {
    let mut rig = Rig::default();
    rig.snapshot(1, &[(5, 1), (4, 2)], &[(6, 1)]);
    rig.delta(2, 2, None, &[(5, 0), (3, 0)], &[(6, 0)]);
    let book = rig.machine.book().unwrap();
    assert_eq!((book.bids.iter().collect::<Vec<_>>(), book.asks.len(), book.bids.total()), (vec![(4, 2)], 0, 2));
}

#[test]
fn crossed_and_uncrossed_once_an_episode() {
    let mut rig = Rig::default();
    rig.snapshot(1, &[(5, 1)], &[(6, 1)]);
    rig.delta(2, 2, None, &[(6, 1)], &[]);
    rig.delta(3, 3, None, &[(7, 1)], &[]);
    rig.delta(4, 4, None, &[(6, 0), (7, 0)], &[]);
    rig.delta(5, 5, None, &[(9, 1)], &[]);
    rig.spot(9, 9);
    assert_eq!(rig.events(), [Seed, Live, Crossed, Uncrossed, Crossed, Uncrossed, Gap, Buffering]);
    assert_eq!(rig.log.details[2], "best bid 0.000000000006 x 0.000000000001 is not below best ask 0.000000000006 x 0.000000000001");
}

#[test]
fn the_oracle_compares_at_the_same_number() {
    let mut rig = Rig::default();
    assert!(rig.quote(3, (5, 1), (6, 1)), "kept before the book is known");
    rig.snapshot(1, &[(5, 1)], &[(6, 1)]);
    assert!(rig.quote(2, (5, 1), (6, 1)));
    rig.spot(2, 2);
    rig.spot(3, 4);
    assert!(!rig.quote(4, (5, 1), (6, 1)), "the book is already there");
    assert_eq!(rig.machine.book().unwrap().oracle_checks, 1);
    assert!(rig.quote(5, (5, 1), (6, 2)));
    rig.spot(5, 5);
    let book = rig.machine.book().unwrap();
    assert_eq!((book.oracle_checks, book.oracle_mismatches), (2, 1));
    assert_eq!(rig.log.events.last(), Some(&(Mismatch, Some(5), Some(5))));
    assert_eq!(
        rig.log.details.last().unwrap(),
        "at update 5 the venue quotes 0.000000000005 x 0.000000000001 / 0.000000000006 x 0.000000000002, but the book has 0.000000000005 x 0.000000000001 / 0.000000000006 x 0.000000000001"
    );
}

#[test]
fn a_side_that_only_one_of_them_has_is_a_mismatch() {
    let mut rig = Rig::default();
    rig.snapshot(1, &[(5, 1)], &[]);
    rig.quote(2, (5, 1), (6, 1));
    rig.spot(2, 2);
    assert_eq!(rig.machine.book().unwrap().oracle_mismatches, 1);
    rig.machine.quote(Quote { cause: cause(3), sequence: 3, bid: Some((5, 1)), ask: None });
    rig.spot(3, 3);
    assert_eq!((rig.machine.book().unwrap().oracle_checks, rig.machine.book().unwrap().oracle_mismatches), (2, 1));
}

#[test]
fn sizes_in_contracts_are_not_compared_with_sizes_in_the_base_asset() {
    let mut rig = Rig::default();
    rig.snapshot(1, &[(5, 100)], &[(6, 100)]);
    rig.quote(2, (5, 1), (6, 1));
    let none = Levels { prices: &[], sizes: &[] };
    let span = Some(Span { first: 2, last: 2, previous: Some(1) });
    let delta = Delta { cause: cause(2), span, bids: none, asks: none, contracts: true, checksum: None };
    assert!(rig.machine.delta(delta, LIMITS, &mut rig.log));
    assert_eq!((rig.machine.book().unwrap().oracle_checks, rig.machine.book().unwrap().oracle_mismatches), (1, 0));
}

#[test]
fn a_book_without_numbers_begins_with_a_snapshot_and_ends_with_a_wrong_checksum() {
    let mut rig = Rig::default();
    let mut venue = Naive::default();
    assert!(!rig.change(&[(10, 1)], &[], venue.checksum()), "nothing that it could follow");
    assert_eq!((rig.machine.phase(), rig.events(), rig.machine.tally().dropped), (Phase::Buffering, vec![Buffering], 1));
    for (bid, price) in [(true, 10), (true, 9), (false, 20)] {
        venue.apply(&Update { bid, price, size: 5 });
    }
    assert!(rig.whole(&[(10, 5), (9, 5)], &[(20, 5)], 2, venue.checksum()));
    venue.apply(&Update { bid: true, price: 11, size: 3 });
    venue.bids.remove(&9);
    assert!(rig.change(&[(11, 3)], &[], venue.checksum()), "the level at 9 is beyond the depth");
    assert_eq!((rig.machine.phase(), rig.events()), (Phase::Live, vec![Seed, Live]));
    assert_eq!(rig.log.details[2], "a change continues the snapshot");
    assert_eq!(rig.machine.book().unwrap().bids.iter().collect::<Vec<_>>(), [(11, 3), (10, 5)]);
    // One is lost, and the next tells it.
    venue.apply(&Update { bid: false, price: 20, size: 4 });
    venue.apply(&Update { bid: true, price: 11, size: 2 });
    assert!(rig.change(&[(11, 2)], &[], venue.checksum()));
    assert_eq!((rig.machine.book().is_none(), rig.events(), rig.log.voided), (true, vec![Event::Checksum], 1));
    assert!(rig.log.details[3].contains("it is invalid until the next snapshot"), "{}", rig.log.details[3]);
    assert!(!rig.change(&[(11, 2)], &[], venue.checksum()));
    assert!(rig.whole(&[(11, 2), (10, 5)], &[(20, 4)], 2, venue.checksum()));
    assert_eq!((rig.machine.phase(), rig.events()), (Phase::Seeded, vec![Seed]));
    // A snapshot without a number replaces a book that has one.
    let mut numbered = Rig::default();
    numbered.snapshot(7, &[(10, 1)], &[(20, 1)]);
    assert!(numbered.whole(&[(11, 2), (10, 5)], &[(20, 4)], 2, venue.checksum()));
    assert_eq!(numbered.machine.book().unwrap().sequence, None);
    // A snapshot is held to its checksum as well.
    venue.apply(&Update { bid: false, price: 20, size: 3 });
    assert!(rig.whole(&[(11, 2), (10, 5)], &[(20, 4)], 2, venue.checksum()));
    assert_eq!((rig.machine.book().is_none(), rig.events()), (true, vec![Seed, Event::Checksum]));
}

#[test]
fn a_book_without_numbers_and_checksums_is_given_up_where_the_source_misses_changes() {
    let mut rig = Rig::default();
    assert!(!rig.missing(), "there is no book");
    assert!(rig.whole(&[(10, 5)], &[(20, 5)], 2, None));
    assert!(rig.change(&[(11, 3)], &[], None));
    assert!(rig.missing());
    assert_eq!((rig.machine.book().is_none(), rig.events(), rig.machine.tally().gaps), (true, vec![Seed, Live, Gap], 1));
    assert!(!rig.missing(), "that is known");
    assert!(!rig.change(&[(12, 3)], &[], None), "a change is missing before it");
    assert!(rig.whole(&[(12, 3)], &[(20, 5)], 2, None));
    assert_eq!((rig.machine.phase(), rig.events()), (Phase::Seeded, vec![Seed]));
    // Those that notice by themselves are not given up before they do.
    let (mut numbered, mut summed, mut venue) = (Rig::default(), Rig::default(), Naive::default());
    numbered.snapshot(7, &[(10, 1)], &[(20, 1)]);
    venue.apply(&Update { bid: true, price: 10, size: 1 });
    summed.whole(&[(10, 1)], &[], 2, venue.checksum());
    for mut rig in [numbered, summed] {
        assert!(!rig.missing() && rig.machine.book().is_some());
    }
}

/// A book kept in the plainest way, told only what survives.
#[derive(Clone, Debug, Default, PartialEq)]
struct Naive {
    bids: std::collections::BTreeMap<i128, i128>,
    asks: std::collections::BTreeMap<i128, i128>,
}

/// One update of the venue: number n changes one level of one side.
#[derive(Clone, Debug)]
struct Update {
    bid: bool,
    price: i128,
    size: i128,
}

impl Naive {
    /// The best levels of both sides, best first.
    fn window(&self, depth: usize) -> (Vec<(i128, i128)>, Vec<(i128, i128)>) {
        let own = |(price, size): (&i128, &i128)| (*price, *size);
        (self.bids.iter().rev().take(depth).map(own).collect(), self.asks.iter().take(depth).map(own).collect())
    }

    /// Kraken's, of numbers with twelve fraction digits.
    fn checksum(&self) -> Checksum {
        let (bids, asks) = self.window(10);
        let text: String = asks.iter().chain(&bids).map(|(price, size)| format!("{price}{size}")).collect();
        Checksum::of("kraken", crc32fast::hash(text.as_bytes()).into(), Some((12, 12))).unwrap()
    }

    fn apply(&mut self, update: &Update) {
        let side = if update.bid { &mut self.bids } else { &mut self.asks };
        if update.size == 0 {
            side.remove(&update.price)
        } else {
            side.insert(update.price, update.size)
        };
    }
}

#[derive(Clone, Debug)]
enum Fault {
    None,
    Lose,
    Repeat,
    Snapshot,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![12 => Just(Fault::None), 1 => Just(Fault::Lose), 2 => Just(Fault::Repeat), 2 => Just(Fault::Snapshot)]
}

proptest! {
    /// A venue makes numbered updates and sends them in deltas of one to three, of which some are lost, some
    /// come twice, and now and then it sends a snapshot. Whenever the machine has a book, it is the venue's book
    /// at that number; it has none only after a loss or before the first snapshot; and each loss is a gap.
    #[test]
    fn a_book_is_either_right_or_absent(
        updates in proptest::collection::vec((any::<bool>(), 1_i128..30, 0_i128..4), 10..200),
        faults in proptest::collection::vec((fault(), 1_usize..4), 200),
        linked: bool,
    ) {
        let mut venue = vec![Naive::default()];
        let updates: Vec<Update> = updates.into_iter().map(|(bid, price, size)| Update { bid, price, size }).collect();
        for update in &updates {
            let mut next = venue.last().unwrap().clone();
            next.apply(update);
            venue.push(next);
        }
        let mut rig = Rig::default();
        let (mut at, mut broken, mut gaps, mut faults) = (0, true, 0, faults.into_iter());
        let mut waiting_from: Option<usize> = None;
        let mut previous = None;
        while at < updates.len() {
            let (fault, len) = faults.next().unwrap_or((Fault::None, 1));
            let end = (at + len).min(updates.len());
            let send = |rig: &mut Rig, previous: Option<i64>| {
                let pick = |bid: bool| updates[at..end].iter().filter(|u| u.bid == bid).map(|u| (u.price, u.size)).collect::<Vec<_>>();
                rig.delta(at as i64 + 1, end as i64, previous, &pick(true), &pick(false))
            };
            let link = linked.then_some(at as i64);
            match fault {
                Fault::Lose => previous = previous.or(Some(at)),
                Fault::None | Fault::Repeat => {
                    send(&mut rig, link);
                    if let Some(lost) = previous.take() && (!broken || waiting_from.is_some()) {
                        gaps += 1;
                        broken = true;
                        waiting_from = Some(at);
                        prop_assert!(lost < at);
                    }
                    if broken { waiting_from = waiting_from.or(Some(at)); }
                    if matches!(fault, Fault::Repeat) {
                        prop_assert!(!send(&mut rig, link), "a repeated delta is of no use");
                    }
                    at = end;
                    prop_assert_eq!(rig.machine.book().is_none(), broken);
                    if let Some(book) = rig.machine.book() {
                        prop_assert_eq!(book.sequence, Some(at as i64));
                    }
                }
                Fault::Snapshot => {
                    let levels = |side: &std::collections::BTreeMap<i128, i128>| side.iter().map(|(p, s)| (*p, *s)).collect::<Vec<_>>();
                    let (mut bids, asks) = (levels(&venue[at].bids), levels(&venue[at].asks));
                    bids.reverse();
                    rig.snapshot(at as i64, &bids, &asks);
                    prop_assert!(rig.machine.book().is_some());
                    broken = false;
                    waiting_from = None;
                    previous = None;
                }
            }
            if matches!(fault, Fault::Lose) { at = end; }
            if let Some(book) = rig.machine.book() {
                let truth = &venue[book.sequence.unwrap() as usize];
                let ours = Naive { bids: book.bids.iter().collect(), asks: book.asks.iter().collect() };
                prop_assert_eq!(&ours, truth);
            }
            prop_assert_eq!(rig.machine.tally().gaps, gaps);
        }
    }

    /// A venue that numbers nothing sends changes of its best levels, of which some are lost, and now and then a snapshot. A
    /// checksum of the best ten levels comes with each. What is lost farther away may stay unknown until it comes near;
    /// the best ten are the venue's, or there is no book.
    #[test]
    fn a_book_without_numbers_is_held_together_by_checksums(
        updates in proptest::collection::vec((any::<bool>(), 1_i128..60, 0_i128..4), 10..300),
        faults in proptest::collection::vec(fault(), 300),
        depth in 10_usize..20,
    ) {
        let mut venue = Naive::default();
        let mut rig = Rig::default();
        for ((bid, price, size), fault) in updates.into_iter().zip(faults) {
            let before = venue.window(depth);
            // Bids lie below asks.
            venue.apply(&Update { bid, price: if bid { price } else { price + 100 }, size });
            let after = venue.window(depth);
            let changes = |before: &[(i128, i128)], after: &[(i128, i128)], gone: &dyn Fn(i128) -> bool| {
                let set = after.iter().filter(|level| !before.contains(level)).copied();
                // A level that others push out is not told of.
                let removed = before.iter().filter(|(price, _)| gone(*price)).map(|(price, _)| (*price, 0));
                removed.chain(set).collect::<Vec<_>>()
            };
            let bids = changes(&before.0, &after.0, &|price| !venue.bids.contains_key(&price));
            let asks = changes(&before.1, &after.1, &|price| !venue.asks.contains_key(&price));
            let checksum = venue.checksum();
            match fault {
                Fault::Lose => {}
                Fault::None | Fault::Repeat => {
                    rig.change(&bids, &asks, checksum);
                }
                Fault::Snapshot => {
                    rig.whole(&after.0, &after.1, depth, checksum);
                    prop_assert!(rig.machine.book().is_some());
                }
            }
            if let (Some(book), Fault::None | Fault::Repeat | Fault::Snapshot) = (rig.machine.book(), fault) {
                let top = |side: &Side| side.iter().take(10).collect::<Vec<_>>();
                let truth = venue.window(10);
                prop_assert_eq!((top(&book.bids), top(&book.asks)), truth);
                prop_assert!(book.bids.len() <= depth && book.asks.len() <= depth);
            }
        }
    }

    /// A machine written down in the middle and read back goes on as if nothing had happened.
    #[test]
    fn a_stored_machine_goes_on(numbers in proptest::collection::vec((0_i64..4, 0_u8..8, 1_i128..20, 0_i128..3), 1..60), cut in 0_usize..60) {
        let (mut whole, mut halves) = (Rig::default(), Rig::default());
        let mut last = 10;
        for (i, (step, what, price, size)) in numbers.into_iter().enumerate() {
            for rig in [&mut whole, &mut halves] {
                match what {
                    0 => rig.snapshot(last + step - 1, &[(price, size + 1)], &[(price + 1, 1)]),
                    1 => rig.quote(last + step, (price, size), (price + 1, 1)),
                    _ => rig.delta(last + step, last + step, None, &[(price, size)], &[]),
                };
            }
            last += step.min(1);
            if i == cut {
                let bytes = serde_json::to_vec(&halves.machine).unwrap();
                halves.machine = serde_json::from_slice(&bytes).unwrap();
            }
        }
        prop_assert_eq!(whole.log.events, halves.log.events);
        prop_assert_eq!(whole.log.details, halves.log.details);
        prop_assert_eq!(serde_json::to_string(&whole.machine).unwrap(), serde_json::to_string(&halves.machine).unwrap());
    }
}
