//! `normalise`: frames in, records out.
//!
//! Each frame is decoded by the dialect it names. Every frame is accounted for: it gives records, or it
//! carries nothing that was asked for, or it is refused and becomes a dead letter with the reason and its
//! bytes. Decoding needs nothing but the frame and the venue's listings, which every worker learns, so it runs
//! wherever the frame is. What was learned of frames is kept by checkpoints: what is decoded after a crash, by however many
//! workers, is decoded with the listings that had come before it.
//!
//! # Time
//!
//! - **Late rows**: there are none here. A frame is decoded whenever it comes, and its records carry the venue's time.
//! - **Corrections**: a record is not taken back.
//! - **Gaps**: what a live source tells of them becomes `gap` records; what it asked for afterwards is marked (`backfilled`).
//! - **Idle sources** hold nothing up.
//! - **State**: what was learned of the venues' listings, one entry for each instrument.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use config::{Check, Checked, Component};
use hashbrown::HashMap;
use model::columns::{integer, label};
use model::dialect::{FrameRef, Learn, Listed, MakeDialect, Outcome, Records, Reject};
use model::instrument::{Contract, Listing, Market};
use model::kinds::{self, DeadLetter, FRAME, FrameRows};
use model::time::Time;
use model::{Batch, Decimal, Kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataflow::Memory;
use crate::instruments::{Instrument, Instruments, StateBuilder, read_state, states};
use crate::{Context, Operator, Output, Snapshot, Stream, Transform, dataflow};

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
    const MODULE: &'static str = include_str!("normalise.rs");

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
            // One worker keeps what all of them learn.
            learned: (cx.keeper.is_some() && input.scope().index() == 0).then(Learned::default),
        };
        dataflow::remembering(input, cx, &[&FRAME.name], decoder)
    }
}

/// One worker's dialects and the records they have decoded.
struct Decoder {
    records: Records,
    make: Arc<MakeDialect>,
    dialects: HashMap<String, Option<Box<dyn Learn>>>,
    /// What was learned of frames, where this worker keeps it.
    learned: Option<Learned>,
}

/// What was learned of frames.
#[derive(Debug, Default)]
struct Learned {
    /// Below the last barrier: instruments by dialect and the venue's symbol.
    settled: BTreeMap<(String, Box<str>), Listing>,
    /// Behind it, or so it was when it was learned: what each dialect was told, and when.
    recent: Vec<(Time, String, Vec<Listed>)>,
    /// What was settled, as a checkpoint stores it.
    rows: Option<RecordBatch>,
}

/// An instrument as checkpoints store it.
#[derive(Serialize, Deserialize)]
struct Stored {
    market: Market,
    symbol: String,
    base: String,
    quote: String,
    /// The size of a contract in units of the twelfth digit, and whether it is inverse.
    contract: Option<(i128, bool)>,
}

impl Stored {
    fn of(Listing { market, symbol, base, quote, contract }: &Listing) -> Stored {
        let contract = contract.map(|contract| (contract.size.units(), contract.inverse));
        Stored { market: *market, symbol: symbol.clone(), base: base.clone(), quote: quote.clone(), contract }
    }

    fn listing(self) -> Listing {
        let contract = self.contract.map(|(size, inverse)| Contract { size: Decimal::from_units(size), inverse });
        Listing { market: self.market, symbol: self.symbol, base: self.base, quote: self.quote, contract }
    }
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
            match (dialect.as_mut().map(|dialect| dialect.learn(&lesson.listing)), &mut self.learned) {
                (Some(Ok(listed)), Some(learned)) => learned.recent.push((time, lesson.dialect.clone(), listed)),
                (Some(Err(what)), _) => out.account().error(format!("a listing of `{}` cannot be learned: it {what}", lesson.dialect)),
                (Some(Ok(_)) | None, _) => {}
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

impl Memory for Decoder {
    fn snapshot(&mut self, barrier: Time) -> Snapshot {
        let rows = self.learned.as_mut().and_then(|learned| learned.below(barrier));
        Box::new(move || rows.into_iter().collect())
    }

    fn restore(&mut self, state: &[RecordBatch]) {
        let (mut learned, mut names, mut stored) = (Learned::default(), Instruments::default(), Vec::new());
        states(state, &mut names, |number, _, bytes| stored.push((number, read_state::<Stored>(bytes).listing())));
        for (number, listing) in stored {
            let Instrument { venue: dialect, symbol, .. } = names.get(number);
            learned.settled.insert((dialect.to_string(), symbol.clone()), listing);
        }
        for of_one in learned.settled.iter().collect::<Vec<_>>().chunk_by(|((one, _), _), ((other, _), _)| one == other) {
            let name = &of_one[0].0.0;
            let listed = of_one.iter().map(|((_, symbol), listing)| (symbol.clone(), (*listing).clone())).collect();
            if let Some(dialect) = self.dialects.entry_ref(&**name).or_insert_with(|| (self.make)(name)) {
                dialect.recall(listed);
            }
        }
        if self.learned.is_some() {
            learned.rows = Some(learned.store());
            self.learned = Some(learned);
        }
    }
}

impl Learned {
    /// What was learned below a barrier.
    fn below(&mut self, barrier: Time) -> Option<RecordBatch> {
        let mut changed = false;
        for (_, dialect, listed) in self.recent.extract_if(.., |(time, ..)| *time < barrier) {
            changed = true;
            self.settled.extend(listed.into_iter().map(|(symbol, listing)| ((dialect.clone(), symbol), listing)));
        }
        if changed {
            self.rows = Some(self.store());
        }
        self.rows.clone()
    }

    fn store(&self) -> RecordBatch {
        let mut rows = StateBuilder::default();
        for ((dialect, symbol), listing) in &self.settled {
            let at = Instrument { venue: dialect.as_str().into(), market: "".into(), symbol: symbol.clone() };
            rows.push(&at, "", &Stored::of(listing));
        }
        rows.finish()
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

#[cfg(test)]
mod tests {
    use model::kinds::{Frame, FrameBuilder, TRADE, Trade, TradeRows};
    use model::{Account, Lesson, Message, Origin};

    use super::*;

    /// A venue whose frames are symbols that were traded, and whose listings are lines of a symbol and what it is.
    #[derive(Default)]
    struct Venue(BTreeMap<Box<str>, Listing>);

    impl model::dialect::Dialect for Venue {
        fn decode(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Reject> {
            let symbol = std::str::from_utf8(frame.payload).unwrap();
            let listed = self.0.get(symbol).ok_or_else(|| Reject::new("unknown_instrument", symbol))?;
            let trade = Trade {
                venue: "venue",
                market: listed.market.as_str(),
                symbol: &listed.symbol,
                event_time: 0,
                receive_time: None,
                frame: Some(frame.frame),
                trade_id: "1",
                price: Decimal::ONE,
                quantity: listed.contract.map_or(Decimal::ONE, |contract| contract.size),
                contracts: None,
                side: "buy",
                fills: 1,
                backfilled: None,
            };
            records.trade.as_mut().unwrap().push(trade);
            Ok(Outcome::Decoded)
        }
    }

    impl Learn for Venue {
        fn learn(&mut self, listing: &[u8]) -> Result<Vec<Listed>, String> {
            let listed = std::str::from_utf8(listing).unwrap().lines().map(|line| {
                let (symbol, base) = line.split_once(' ').ok_or("is no listing")?;
                let contract = symbol.strip_prefix("perp").map(|size| Contract { size: size.parse().unwrap(), inverse: true });
                Ok((symbol.into(), Listing::perpetual(base, "USD", contract)))
            });
            let listed = listed.collect::<Result<Vec<Listed>, String>>()?;
            self.recall(listed.clone());
            Ok(listed)
        }

        fn recall(&mut self, listed: Vec<Listed>) {
            self.0.extend(listed);
        }
    }

    fn decoder(keeps: bool) -> Decoder {
        let make = |name: &str| (name != "none").then(|| Box::<Venue>::default() as Box<dyn Learn>);
        Decoder {
            records: Records::wanting(["trade"]),
            make: Arc::new(make),
            dialects: HashMap::new(),
            learned: keeps.then(Learned::default),
        }
    }

    /// What becomes of these frames of a dialect, and what is learned with them: the symbols of trades, or the reason of a refusal.
    fn decode(decoder: &mut Decoder, time: Time, dialect: &str, frames: &[&str], listing: Option<&str>) -> Vec<String> {
        let mut builder = FrameBuilder::default();
        for (frame, payload) in (1..).zip(frames) {
            let payload = payload.as_bytes();
            builder.push(Frame { source: "in", dialect, receive_time: None, frame, connection: None, topic: None, payload });
        }
        let lessons = listing.map(|listing| [Lesson { dialect: dialect.to_owned(), listing: listing.into() }].into());
        let mut out = Output::new("records", Arc::new(Account::default()));
        decoder.apply(time, Batch { lessons, ..Batch::new(&FRAME, builder.finish(), Origin::default()) }, &mut out);
        let texts = |message| match message {
            Message::Batch(batch) if batch.kind.name == TRADE.name => {
                let trades = TradeRows::of(&batch.rows).unwrap();
                (0..batch.len())
                    .map(|row| format!("{} {}", label(trades.symbol, row).unwrap(), trades.quantity.value_as_string(row)))
                    .collect()
            }
            Message::Batch(batch) => vec![format!("{} refused", batch.len())],
            Message::Progress(_) => Vec::new(),
        };
        out.take().into_iter().flat_map(texts).collect::<Vec<String>>()
    }

    #[test]
    fn what_was_learned_below_a_barrier_is_known_after_it() {
        let mut first = decoder(true);
        assert_eq!(decode(&mut first, 1, "one", &["a"], Some("a A\nperp25 B")), ["1 refused"], "it is learned behind the frames");
        decode(&mut first, 2, "two", &[], Some("a X"));
        decode(&mut first, 5, "one", &[], Some("a NEW"));
        assert_eq!(decode(&mut first, 5, "one", &["a"], None), ["NEW-USD-PERP 1.000000000000"]);
        assert_eq!(decode(&mut first, 5, "none", &["a"], Some("a A")), ["1 refused"]);
        let before = first.snapshot(5)();
        let again = first.snapshot(5)();
        assert_eq!((before.len(), &before), (1, &again), "what has not changed is equal");
        let after = first.snapshot(6)();
        for (state, expected) in [(&before, "A-USD-PERP 1.000000000000"), (&after, "NEW-USD-PERP 1.000000000000")] {
            for keeps in [true, false] {
                let mut next = decoder(keeps);
                next.restore(state);
                let decoded = decode(&mut next, 6, "one", &["a", "perp25"], None);
                assert_eq!(decoded, [expected, "B-USD-PERP 25.000000000000"]);
                assert_eq!(decode(&mut next, 6, "two", &["a"], None), ["X-USD-PERP 1.000000000000"]);
                let kept = next.snapshot(7)();
                assert_eq!(kept, if keeps { state.clone() } else { vec![] }, "one worker keeps it");
            }
        }
    }

    #[test]
    fn a_listing_that_cannot_be_read_is_an_error_and_teaches_nothing() {
        let mut one = decoder(true);
        decode(&mut one, 1, "one", &[], Some("a A"));
        let mut out = Output::new("records", Arc::new(Account::default()));
        let lessons = Some([Lesson { dialect: "one".into(), listing: b"a B\nnonsense".to_vec() }].into());
        one.apply(2, Batch { lessons, ..Batch::new(&FRAME, FrameBuilder::default().finish(), Origin::default()) }, &mut out);
        assert_eq!(out.account().totals().errors, ["a listing of `one` cannot be learned: it is no listing"]);
        assert_eq!(decode(&mut one, 3, "one", &["a"], None), ["A-USD-PERP 1.000000000000"]);
    }
}
