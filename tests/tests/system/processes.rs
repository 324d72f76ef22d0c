//! A pipeline of several processes computes what one process does, whatever becomes of them.

use cluster::definition::Spec;
use cluster::protocol::PEER_GONE;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tests::group::Group;
use tests::program::until;

use crate::recovery::{Place, RATE, in_buckets, victim};

/// A pipeline as it is submitted.
fn spec(place: &Place, workers: usize, more: &[&str]) -> Spec {
    Spec {
        text: std::fs::read_to_string(place.file()).unwrap(),
        file: place.file().display().to_string(),
        folder: place.folder.path().display().to_string(),
        settings: None,
        overrides: place.settings.iter().cloned().chain(more.iter().map(|s| (*s).to_owned())).collect(),
        workers: Some(workers),
        processes: None,
    }
}

/// Starts it in so many processes.
pub fn start(place: &Place, processes: usize, workers: usize, more: &[&str]) -> Group {
    Group::start(&spec(place, workers, more), &place.data(), processes, &place.folder.path().join("log"))
}

#[test]
fn three_processes_compute_what_one_does() {
    let place = victim("processes_straight");
    let ended = start(&place, 3, 2, &[]).wait();
    assert_eq!(ended, [Some(0); 3], "{}", place.log());
    assert!(place.log().contains("the books balance"), "{}", place.log());
    place.compare("processes_straight");
}

#[test]
fn processes_that_are_killed_end_together_and_come_back_in_any_number() {
    const KILLS: usize = 8;
    let seed: u64 = std::env::var("MARKETPRISM_SEED").map_or(20_261_126, |seed| seed.parse().expect("a seed is a number"));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    println!("MARKETPRISM_SEED={seed}");
    let place = in_buckets("processes_killed");
    let mut kills = 0;
    while kills < KILLS {
        let before = place.journal();
        let (processes, workers) = (1 + (random.next_u64() % 3) as usize, 1 + (random.next_u64() % 2) as usize);
        let mut group = start(&place, processes, workers, &[RATE]);
        until("progress after a kill", || (group.has_ended(0) || place.journal() != before).then_some(()));
        let moment = std::time::Duration::from_micros(random.next_u64() % 400_000);
        std::thread::sleep(moment);
        let (victim, stop) = ((random.next_u64() % processes as u64) as usize, random.next_u64().is_multiple_of(4));
        if group.has_ended(0) {
            assert_eq!(group.wait(), vec![Some(0); processes], "{}", place.log());
            break;
        }
        println!("kill {kills}: process {victim} of {processes} with {workers} workers each, {moment:?} after the first progress");
        if stop {
            // The others must notice one that only stands still.
            group.signal(victim, "-STOP");
        } else {
            group.signal(victim, "-KILL");
        }
        for other in (0..processes).filter(|other| *other != victim) {
            until("the end of the others", || group.has_ended(other).then_some(()));
        }
        group.signal(victim, "-KILL");
        let ended = group.wait();
        assert!(ended.iter().all(|status| status.is_none() || *status == Some(i32::from(PEER_GONE))), "{ended:?}\n{}", place.log());
        kills += 1;
    }
    assert!(kills >= 4, "the pipeline ended after {kills} kills: too fast to be a test");
    assert_eq!(start(&place, 2, 1, &[RATE]).wait(), [Some(0); 2], "{}", place.log());
    place.compare("processes_killed");
}

#[test]
fn a_pipeline_that_is_drained_goes_on_with_more_processes_and_with_fewer() {
    let place = in_buckets("processes_rescaled");
    for processes in [1, 2, 3, 1] {
        let before = place.committed();
        let mut group = start(&place, processes, 2, &[RATE]);
        until("a commit", || (place.committed() > before).then_some(()));
        group.drain();
        assert_eq!(group.wait(), vec![Some(0); processes], "{}", place.log());
        assert_eq!(place.manifests()[0]["workers"], 2 * processes);
    }
    assert_eq!(start(&place, 3, 1, &[RATE]).wait(), [Some(0); 3], "{}", place.log());
    place.compare("processes_rescaled");
}

/// A process that was stopped for long must not disturb those that have taken its place when it goes on.
#[test]
fn a_generation_that_was_replaced_commits_nothing_when_it_goes_on() {
    let place = in_buckets("processes_stale");
    let mut stale = start(&place, 1, 2, &[RATE]);
    until("a commit", || place.committed());
    stale.signal(0, "-STOP");
    let elsewhere = tempfile::tempdir().unwrap();
    let log = elsewhere.path().join("log");
    let mut group = Group::start(&spec(&place, 1, &[RATE]), &elsewhere.path().join("data"), 2, &log);
    let before = place.committed();
    until("a commit of those that took over", || (place.committed() > before).then_some(()));
    stale.signal(0, "-CONT");
    assert_eq!(stale.wait(), [Some(1)], "{}", place.log());
    assert!(place.log().contains("another process has taken the pipeline over"), "{}", place.log());
    assert_eq!(group.wait(), [Some(0); 2], "{}", std::fs::read_to_string(log).unwrap());
    place.compare("processes_stale");
}
