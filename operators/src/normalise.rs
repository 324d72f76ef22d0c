//! `normalise`: frames in, records out.
//!
//! Each frame is decoded by the dialect it names. Every frame is accounted for: it gives records, or it
//! carries nothing that was asked for, or it is refused and becomes a dead letter with the reason and its
//! bytes. Decoding needs nothing but the frame and the venue's listings, which every worker learns, so it runs
//! wherever the frame is.

use std::sync::Arc;

use config::{Check, Checked, Component};
use hashbrown::HashMap;
use model::columns::{integer, label};
use model::dialect::{FrameRef, Learn, MakeDialect, Outcome, Records, Reject};
use model::kinds::{self, DeadLetter, FRAME, FrameRows};
use model::time::Time;
use model::{Batch, Kind};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Context, Operator, Output, Stream, Transform, dataflow};

/// Decodes venue frames into records.
///
/// Frames that cannot be decoded become `dead_letter` rows with the reason and the bytes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Normalise {
    /// The kinds of record wanted, e.g. `["trade", "quote"]`. Default: every kind that the frames carry.
    #[serde(default)]
    kinds: Vec<String>,
}

impl Component<dyn Operator> for Normalise {
    const TYPE: &'static str = "normalise";
    const EXAMPLE: &'static str = r#"[operators.trades]
type = "normalise"
inputs = ["market"]
kinds = ["trade"]
"#;

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        cx.require(&[&FRAME.name]);
        let known: Vec<&Arc<Kind>> = kinds::market_data().collect();
        for (i, name) in self.kinds.iter().enumerate() {
            if !known.iter().any(|k| k.name == *name) {
                let names: Vec<String> = known.iter().map(|k| format!("`{}`", k.name)).collect();
                cx.error(
                    &["kinds", &i.to_string()],
                    format!("there is no kind `{name}` to decode"),
                    format!("the kinds are {}", names.join(", ")),
                );
            }
        }
        let wanted = known.into_iter().filter(|k| self.kinds.is_empty() || self.kinds.iter().any(|n| *n == k.name));
        let outputs: Vec<Arc<Kind>> = wanted.chain([&*kinds::DEAD_LETTER]).cloned().collect();
        Some(Checked { component: Arc::new(Normaliser { kinds: outputs.clone() }), outputs })
    }
}

/// The checked operator.
#[derive(Debug)]
struct Normaliser {
    kinds: Vec<Arc<Kind>>,
}

impl Operator for Normaliser {
    fn build<'scope>(&self, input: Stream<'scope>, cx: &Context) -> Stream<'scope> {
        let decoder = Decoder {
            records: Records::wanting(self.kinds.iter().map(|k| k.name.as_ref())),
            make: cx.dialects.clone(),
            dialects: HashMap::new(),
        };
        dataflow::transform(input, cx, &[&FRAME.name], decoder)
    }
}

/// One worker's dialects and the records they have decoded.
struct Decoder {
    records: Records,
    make: Arc<MakeDialect>,
    dialects: HashMap<String, Option<Box<dyn Learn>>>,
}

impl Transform for Decoder {
    fn apply(&mut self, time: Time, batch: Batch, out: &mut Output) {
        let frames = FrameRows::of(&batch.rows).expect("only frames are consumed");
        let (mut accepted, mut ignored) = (0, 0);
        let mut row = 0;
        while row < batch.len() {
            // Neighbouring frames are of one dialect, mostly all of a batch.
            let key = frames.dialect.key(row);
            let name = label(frames.dialect, row).unwrap_or_default();
            let dialect = self.dialects.entry_ref(name).or_insert_with(|| (self.make)(name));
            while row < batch.len() && frames.dialect.key(row) == key {
                let frame = FrameRef {
                    receive_time: integer(frames.receive_time, row),
                    frame: frames.frame.value(row),
                    topic: label(frames.topic, row),
                    payload: frames.payload.value(row),
                };
                let outcome = match dialect {
                    Some(dialect) => dialect.decode(frame, &mut self.records),
                    None => Err(Reject::new("unknown_dialect", format!("there is no dialect `{name}`"))),
                };
                match outcome {
                    Ok(Outcome::Decoded) => accepted += 1,
                    Ok(Outcome::Ignored) => ignored += 1,
                    Err(reject) => out.reject(reject.reason, time, letter(&frame, &reject)),
                }
                row += 1;
            }
        }
        for lesson in batch.lessons.iter().flat_map(|lessons| lessons.iter()) {
            let dialect = self.dialects.entry_ref(&*lesson.dialect).or_insert_with(|| (self.make)(&lesson.dialect));
            if let Some(Err(what)) = dialect.as_mut().map(|dialect| dialect.learn(&lesson.listing)) {
                out.account().error(format!("a listing of `{}` cannot be learned: it {what}", lesson.dialect));
            }
        }
        out.account().accept(accepted);
        out.account().ignore(ignored);
        let mut latest = None;
        for (kind, rows) in self.records.finish() {
            latest = latest.max(kind.latest(&rows));
            out.emit(Batch::new(kind, rows, batch.origin));
        }
        if let Some(event_time) = latest {
            out.progress(batch.hold.map_or(event_time, |hold| event_time.min(hold)));
        }
    }
}

/// The dead letter of a frame; the output fills in the node, the reason and the time.
fn letter<'a>(frame: &FrameRef<'a>, reject: &'a Reject) -> DeadLetter<'a> {
    DeadLetter {
        node: "",
        reason: reject.reason,
        detail: &reject.detail,
        event_time: None,
        receive_time: frame.receive_time,
        rejected_time: 0,
        frame: Some(frame.frame),
        kind: "frame",
        venue: None,
        market: None,
        symbol: None,
        payload: frame.payload,
    }
}
