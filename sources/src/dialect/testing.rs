//! What the tests of all dialects do: decode recordings, compare with other projects, and damage frames.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use flate2::read::MultiGzDecoder;
use model::dialect::{FrameRef, Outcome, Records, Reject};
use model::{Decimal, Kind, kinds};
use proptest::prelude::*;
use serde_json::Value;

use super::make;

/// Real frames of all dialects, of every kind that each decodes.
pub(super) const FRAMES: [&[(&str, &str)]; 7] = [
    &super::binance::tests::FRAMES,
    &super::coinbase::tests::FRAMES,
    &super::bybit::tests::FRAMES,
    &super::kraken::tests::FRAMES,
    &super::deribit::tests::FRAMES,
    &super::okx::tests::FRAMES,
    &super::marketprism::tests::FRAMES,
];

/// A file of the recordings, unpacked; `None`, said on standard error, where the recordings are missing.
pub(super) fn recording(name: &str) -> Option<String> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/recordings")).join(name);
    let Ok(bytes) = std::fs::read(&path) else {
        skip(name);
        return None;
    };
    let mut text = String::new();
    match name.ends_with(".gz") {
        true => MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).map(drop),
        false => String::from_utf8(bytes).map(|t| text = t).map_err(std::io::Error::other),
    }
    .expect("a recording is whole");
    Some(text)
}

/// Says that a test is skipped.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so where tests speak")]
pub(crate) fn skip(name: &str) {
    eprintln!("skipped: the recording {name} is missing");
}

pub(super) fn every_kind() -> Records {
    Records::wanting(kinds::market_data().map(|k| k.name.as_ref()))
}

/// Decodes one frame with a fresh dialect.
pub(super) fn decode(dialect: &str, frame: &str) -> Result<(Outcome, BTreeMap<String, RecordBatch>), Reject> {
    decode_as(dialect, frame, Some(7_000_000), None)
}

pub(super) fn decode_as(
    dialect: &str,
    frame: &str,
    receive_time: Option<i64>,
    topic: Option<&str>,
) -> Result<(Outcome, BTreeMap<String, RecordBatch>), Reject> {
    let mut records = every_kind();
    let frame = FrameRef { receive_time, frame: 3, topic, payload: frame.as_bytes() };
    let outcome = make(dialect).unwrap().decode(frame, &mut records);
    if outcome.is_err() {
        assert!(records.is_empty(), "a refused frame has left rows behind");
    }
    Ok((outcome?, batches(&mut records)))
}

pub(super) fn batches(records: &mut Records) -> BTreeMap<String, RecordBatch> {
    records.finish().into_iter().map(|(kind, rows): (&std::sync::Arc<Kind>, _)| (kind.name.to_string(), rows)).collect()
}

pub(super) fn reason(dialect: &str, frame: &str) -> &'static str {
    decode(dialect, frame).map(|(outcome, _)| outcome).expect_err(frame).reason
}

pub(super) fn d(text: &str) -> Decimal {
    text.parse().unwrap()
}

/// Everything that the frames of a recording give, and what was refused.
pub(super) fn decode_all<'f>(
    dialect: &str,
    frames: impl Iterator<Item = (Option<i64>, Option<&'f str>, &'f str)>,
) -> (BTreeMap<String, RecordBatch>, Vec<Reject>) {
    let (mut dialect, mut records, mut refused) = (make(dialect).unwrap(), every_kind(), Vec::new());
    for (number, (receive_time, topic, payload)) in (1..).zip(frames) {
        let frame = FrameRef { receive_time, frame: number, topic, payload: payload.as_bytes() };
        refused.extend(dialect.decode(frame, &mut records).err());
    }
    (batches(&mut records), refused)
}

pub(super) fn rows(found: &BTreeMap<String, RecordBatch>, kind: &str) -> usize {
    found.get(kind).map_or(0, RecordBatch::num_rows)
}

/// Whether a number of ours is another project's, which is a double; absent is null.
pub(super) fn near(ours: Option<Decimal>, theirs: &Value) -> bool {
    match (ours, theirs.as_f64()) {
        (Some(ours), Some(theirs)) => (ours.to_string().parse::<f64>().unwrap() - theirs).abs() <= 1e-12 * theirs.abs(),
        (ours, theirs) => ours.is_none() && theirs.is_none(),
    }
}

/// What the sockets of a recording of thirty seconds received: when, and the frame.
pub(super) fn received(text: &str) -> impl Iterator<Item = (Option<i64>, &str)> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with("wss:")).map(|line| {
        let (time, frame) = line.split_once(": ").unwrap();
        (Some((time.parse::<f64>().unwrap() * 1e6) as i64), frame)
    })
}

/// The pairs of another project's test: the frames that go in, and the records that it expects.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (Vec<Value>, Vec<Value>)> {
    text.lines().map(|line| {
        let pair: Value = serde_json::from_str(line).unwrap();
        let list = |name: &str| pair[name].as_array().unwrap().clone();
        (list("input"), list("expected"))
    })
}

#[derive(Clone, Debug)]
pub(super) enum Damage {
    Cut(prop::sample::Index),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

pub(super) fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    let byte = || prop_oneof![prop::sample::select(b"{}[]\",:\\0123456789.-eEtsTpqXmubaBA ".to_vec()), any::<u8>()];
    prop_oneof![
        at().prop_map(Damage::Cut),
        (at(), byte()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        (at(), byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        at().prop_map(Damage::Remove),
        (at(), at(), 0_usize..40).prop_map(|(from, to, length)| Damage::Copy(from, to, length)),
    ]
}

pub(super) fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        match damage {
            Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Flip(at, byte) => *at.get_mut(&mut bytes) = *byte,
            Damage::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Damage::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
            Damage::Copy(from, to, length) => {
                let from = from.index(bytes.len());
                let piece = bytes[from..bytes.len().min(from + length)].to_vec();
                let to = to.index(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}
