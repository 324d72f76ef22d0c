//! Frames made from real ones by chance: no bytes make a dialect panic or take memory without bound, and what is refused leaves
//! nothing behind.
//!
//! Each dialect begins with the frames of its tests. They are damaged as bytes and as JSON: values are exchanged for
//! others, repeated, nested and removed. A frame whose outcome was not seen before (another reason, other words, other
//! kinds or numbers of rows) becomes one of those to begin with, so the search goes on where the decoder does something new.
//!
//! - `MARKETPRISM_FUZZ_SECONDS` says for how long each dialect is tried; a second by default, a minute in `.ci/run`.
//! - `MARKETPRISM_SEED` chooses the chance; a frame that fails is printed.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use hashbrown::HashSet;
use model::dialect::{FrameRef, Outcome};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::testing::{FRAMES, every_kind};
use super::{NAMES, REASONS, make};

/// The longest frame that is tried.
const LONGEST: usize = 16 << 10;
/// The most frames to begin with.
const CORPUS: usize = 4_000;

/// Values that decoders of numbers, texts, times and levels may stumble over.
const VALUES: [&str; 34] = [
    "",
    "0",
    "-0",
    "-1",
    "1",
    "00",
    "1e400",
    "1e-400",
    "0.0000000000001",
    "99999999999999999999999999",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "170141183460469231731687303715884105727",
    "1.7976931348623157e308",
    "253402300800000",
    "1751234567890",
    "NaN",
    "null",
    "true",
    "[]",
    "{}",
    "[[]]",
    "[{}]",
    "[null,null,null]",
    "[\"1\",\"2\",\"3\",\"4\"]",
    "[1,2,3,4]",
    "\"\"",
    "\"0\"",
    "\"-1\"",
    "\"\\ud800\"",
    "\"\\u0041\"",
    "\"2026-02-30T25:00:00Z\"",
    "\"ÄÖ€\"",
];

/// Where values stand in a text that is nearly JSON: texts with their quotes, numbers and words, arrays and objects.
fn values(text: &[u8]) -> Vec<(usize, usize)> {
    let (mut found, mut open, mut at) = (Vec::new(), Vec::new(), 0);
    while at < text.len() {
        let from = at;
        match text[at] {
            b'"' => {
                at += 1;
                while at < text.len() && text[at] != b'"' {
                    at += 1 + usize::from(text[at] == b'\\');
                }
                at = (at + 1).min(text.len());
                found.push((from, at));
            }
            b'[' | b'{' => {
                open.push(from);
                at += 1;
            }
            b']' | b'}' => {
                at += 1;
                found.extend(open.pop().map(|from| (from, at)));
            }
            b'-' | b'0'..=b'9' | b'a'..=b'z' => {
                while at < text.len() && matches!(text[at], b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E') {
                    at += 1;
                }
                found.push((from, at));
            }
            _ => at += 1,
        }
    }
    found
}

struct Chance(ChaCha8Rng);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        (self.0.next_u64() % most.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A frame made from one, with pieces of another.
    fn change(&mut self, frame: &[u8], other: &[u8]) -> Vec<u8> {
        let mut text = frame.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(text.len());
            let places = values(&text);
            match (self.below(10), places.is_empty()) {
                (0, _) => text.truncate(at),
                (1, _) if !text.is_empty() => text[at] = self.0.next_u64() as u8,
                (2, _) => text.insert(at.min(text.len()), *self.of(b"{}[]\",:\\0123456789.-eE ")),
                (3, _) if !text.is_empty() => drop(text.remove(at)),
                (4, _) => {
                    // The beginning of one and the end of the other.
                    let cut = self.below(other.len());
                    text.truncate(at);
                    text.extend(&other[cut..]);
                }
                (5, false) => {
                    // A value of the other instead of one of ours.
                    let theirs = values(other);
                    let (from, to) = *self.of(&places);
                    if !theirs.is_empty() {
                        let (begin, end) = *self.of(&theirs);
                        text.splice(from..to, other[begin..end].iter().copied());
                    }
                }
                (6, false) => {
                    // A value again and again.
                    let (from, to) = *self.of(&places);
                    let piece = [b",".as_slice(), &text[from..to]].concat();
                    let times = 1 + self.below(LONGEST / piece.len()).min(200);
                    text.splice(to..to, piece.repeat(times));
                }
                (7, false) => {
                    let (from, to) = *self.of(&places);
                    let deep = 1 + self.below(80);
                    let piece = [b"[".repeat(deep), text[from..to].to_vec(), b"]".repeat(deep)].concat();
                    text.splice(from..to, piece);
                }
                (_, false) => {
                    let (from, to) = *self.of(&places);
                    text.splice(from..to, self.of(&VALUES).bytes());
                }
                _ => {}
            }
        }
        text.truncate(LONGEST);
        text
    }
}

/// What a dialect made of a frame, without the numbers and texts in it.
fn outcome_of(outcome: &Result<Outcome, model::dialect::Reject>, batches: &[(&str, &RecordBatch)]) -> String {
    match outcome {
        Ok(_) => batches.iter().map(|(kind, rows)| format!("{kind} {} ", rows.num_rows().min(3))).collect(),
        Err(reject) => {
            let skeleton: String = reject.detail.chars().filter(|c| c.is_ascii_lowercase() || *c == '`').take(60).collect();
            format!("{} {skeleton}", reject.reason)
        }
    }
}

/// Tries a dialect until the end; how many frames, and how many outcomes.
fn try_out(dialect: &str, seed: u64, until: Instant) -> (usize, usize) {
    let mut chance = Chance(ChaCha8Rng::seed_from_u64(seed));
    let hash: BuildHasherDefault<DefaultHasher> = BuildHasherDefault::default();
    let mut corpus: Vec<Vec<u8>> = FRAMES
        .iter()
        .flat_map(|frames| frames.iter())
        .filter(|(of, _)| *of == dialect)
        .map(|(_, frame)| frame.as_bytes().to_vec())
        .collect();
    assert!(!corpus.is_empty(), "`{dialect}` has no frames to begin with");
    let others: Vec<&str> = FRAMES.iter().flat_map(|frames| frames.iter()).map(|(_, frame)| *frame).collect();
    let mut seen: HashSet<u64> = HashSet::new();
    let (mut decoder, mut records, mut tried) = (make(dialect).unwrap(), every_kind(), 0);
    while Instant::now() < until {
        for _ in 0..64 {
            tried += 1;
            let frame = chance.of(&corpus).clone();
            let other = if chance.below(8) == 0 { chance.of(&others).as_bytes().to_vec() } else { chance.of(&corpus).clone() };
            let payload = chance.change(&frame, &other);
            let topic = (chance.below(2) == 0).then_some("BTCUSDT");
            let receive_time = (chance.below(2) == 0).then_some(1_700_000_000_000_000);
            let given = FrameRef { receive_time, frame: 1, topic, payload: &payload };
            let attempt = catch_unwind(AssertUnwindSafe(|| {
                let outcome = decoder.decode(given, &mut records);
                assert!(outcome.is_ok() || records.is_empty(), "a refused frame has left rows behind");
                let batches = records.finish();
                let named: Vec<(&str, &RecordBatch)> = batches.iter().map(|(kind, rows)| (kind.name.as_ref(), rows)).collect();
                // A row takes two bytes of a frame at least, and a few hundred in memory, of which buffers of builders are most.
                let memory: usize = named.iter().map(|(_, rows)| rows.get_array_memory_size()).sum();
                assert!(memory <= (1 << 20) + 1_000 * payload.len(), "{memory} bytes of rows from {} of a frame", payload.len());
                match &outcome {
                    Ok(Outcome::Decoded) => {
                        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&payload).is_ok(), "decoded what is no JSON")
                    }
                    Ok(Outcome::Ignored) => assert!(named.is_empty(), "rows of a frame that was ignored"),
                    Err(reject) => {
                        assert!(REASONS.contains(&reject.reason) && !reject.detail.is_empty() && reject.detail.len() < 4_096, "{reject:?}")
                    }
                }
                outcome_of(&outcome, &named)
            }));
            let outcome = attempt.unwrap_or_else(|panic| {
                say(&format!("seed {seed}, `{dialect}`, topic {topic:?}, receive time {receive_time:?}: {}", payload.escape_ascii()));
                resume_unwind(panic)
            });
            if corpus.len() < CORPUS && seen.insert(hash.hash_one(outcome)) {
                corpus.push(payload);
            }
        }
    }
    (tried, seen.len())
}

#[expect(clippy::print_stdout, reason = "a frame that does harm must be seen, and how much was tried")]
fn say(what: &str) {
    println!("{what}");
}

#[test]
fn no_frame_made_by_chance_does_harm() {
    let number =
        |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is no number")));
    let (seconds, seed) = (number("MARKETPRISM_FUZZ_SECONDS").unwrap_or(1), number("MARKETPRISM_SEED").unwrap_or(1));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // Each thread tries every so many of the dialects, one after another.
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for dialect in NAMES.into_iter().skip(thread).step_by(threads) {
                    let (tried, outcomes) = try_out(dialect, seed, Instant::now() + Duration::from_secs(seconds));
                    say(&format!("{dialect}: {tried} frames, {outcomes} outcomes"));
                }
            });
        }
    });
}
