//! `mask`: records without what not everybody may see.
//!
//! Text in the columns of `hash` is replaced by 32 hexadecimal digits, of the keyed hash function BLAKE3: the same text gives the same digits wherever
//! the same `key` is used, so records can still be joined and counted by it, and nobody without the key can find out which digits a guess would
//! have. Text in the columns of `truncate` is cut behind so many characters. What is to be gone altogether is dropped by
//! `derive` (`drop`). Everything else stays as it was, and so does which record is which: a column that identifies records may be hashed, and
//! cannot be truncated.
//!
//! # Time
//!
//! - **Late rows** are masked like others, and so are all that a **gap** or an **idle source** leaves.
//! - **Corrections**: what takes a record back is masked like the record, and takes the masked one back.
//! - **State**: none.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Int32Type};
use config::values::Secret;
use config::{Check, Checked, Component};
use model::kinds::DEAD_LETTER;
use model::time::Time;
use model::{Batch, Kind, Type};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Context, Operator, Output, Stream, Transform, dataflow, fault, inputs};

/// Replaces or shortens text that not everybody may see.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// Columns whose text is replaced by a hash of it.
    #[serde(default)]
    hash: Vec<String>,
    /// What the hash depends on beside the text; at least 16 characters that are nowhere else.
    #[serde(default)]
    key: Option<Secret>,
    /// Columns whose text is cut, and behind how many characters.
    #[serde(default)]
    truncate: BTreeMap<String, u32>,
    /// The kinds of record to look at; others do not pass. By default every kind that the inputs carry, except dead letters.
    #[serde(default)]
    kinds: Option<Vec<String>>,
}

impl Component<dyn Operator> for Mask {
    const TYPE: &'static str = "mask";
    const EXAMPLE: &'static str = r#"[operators.public]
type = "mask"
inputs = ["trades"]
hash = ["trade_id"]
key = "${MASK_KEY:-sixteen letters or more}"
"#;
    const MODULE: &'static str = include_str!("mask.rs");

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        /// A key that is shorter can be guessed.
        const SHORTEST: usize = 16;
        let kinds = inputs::chosen(cx, self.kinds.as_deref())?;
        if self.hash.is_empty() && self.truncate.is_empty() {
            cx.error(&[], "there is nothing to mask", "name columns: `hash = [\"trade_id\"]`, or `truncate = { trade_id = 4 }`");
        }
        let key = self.key.as_ref().map(Secret::expose).unwrap_or_default();
        if !self.hash.is_empty() && key.chars().count() < SHORTEST {
            let help = "name a secret of 16 characters or more: `key = \"${MASK_KEY}\"`";
            cx.error(&["key"], "without a key, or with a short one, what is hashed can be found by guessing", help);
        }
        let hidings = kinds.iter().map(|kind| self.hidings(kind, cx)).collect();
        if cx.failed() {
            return None;
        }
        let mut outputs = kinds.clone();
        if !outputs.iter().any(|kind| kind.name == DEAD_LETTER.name) {
            outputs.push(DEAD_LETTER.clone());
        }
        // Of any key, one of the length that the hash function takes.
        let key = blake3::derive_key("MarketPrism 2026-11-28 mask", key.as_bytes());
        Some(Checked { outputs, component: Arc::new(Masking { kinds, hidings, key }) })
    }
}

impl Mask {
    /// What becomes of which columns of a kind, by their places.
    fn hidings(&self, kind: &Kind, cx: &mut Check<'_>) -> Vec<(usize, Hiding)> {
        let hashed = self.hash.iter().map(|name| (["hash", name], name, Hiding::Hash));
        let cut = self.truncate.iter().map(|(name, length)| (["truncate", name], name, Hiding::Truncate(*length as usize)));
        let mut hidings: Vec<(usize, Hiding)> = Vec::new();
        for (path, name, hiding) in hashed.chain(cut) {
            let path = if hiding == Hiding::Hash { &path[..1] } else { &path[..] };
            let Some(at) = kind.columns.iter().position(|column| column.name == *name) else {
                let fault = fault::unknown_column(name, kind);
                cx.error(path, fault.message, fault.help);
                continue;
            };
            let identifies = kind.key.iter().any(|column| column == name);
            if !matches!(kind.columns[at].ty, Type::Text | Type::Label) {
                let message = format!("`{name}` of `{}` records is {}, not text", kind.name, kind.columns[at].ty);
                cx.error(path, message, "name columns of text; `derive` drops or rounds others");
            } else if identifies && hiding != Hiding::Hash {
                let message = format!("records that differ in `{name}` would be one");
                cx.error(path, message, format!("hash it: `hash = [\"{name}\"]`"));
            } else if hidings.iter().any(|(other, _)| *other == at) {
                cx.error(path, format!("`{name}` is masked twice"), "name it once");
            }
            hidings.push((at, hiding));
        }
        hidings
    }
}

/// What becomes of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hiding {
    /// Its hash takes its place.
    Hash,
    /// So many characters of it stay.
    Truncate(usize),
}

/// The checked operator, and at work.
#[derive(Clone)]
struct Masking {
    kinds: Vec<Arc<Kind>>,
    /// What becomes of the columns of each kind, by their places.
    hidings: Vec<Vec<(usize, Hiding)>>,
    key: [u8; 32],
}

impl std::fmt::Debug for Masking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Masking").field("kinds", &self.kinds).field("hidings", &self.hidings).finish_non_exhaustive()
    }
}

impl Operator for Masking {
    fn build<'scope>(&self, input: Stream<'scope>, cx: &Context) -> Stream<'scope> {
        let names: Vec<&str> = self.kinds.iter().map(|kind| kind.name.as_ref()).collect();
        dataflow::transform(input, cx, &names, self.clone())
    }
}

impl Masking {
    /// Texts without what is to be hidden. A label is hidden once for all rows that have it.
    fn hide(&self, column: &ArrayRef, hiding: Hiding) -> ArrayRef {
        if let DataType::Dictionary(..) = column.data_type() {
            let labels = column.as_dictionary::<Int32Type>();
            return Arc::new(labels.with_values(Arc::new(self.hidden(labels.values().as_string(), hiding))));
        }
        Arc::new(self.hidden(column.as_string(), hiding))
    }

    fn hidden(&self, texts: &StringArray, hiding: Hiding) -> StringArray {
        /// Half of the hash is beyond any collision.
        const DIGITS: usize = 32;
        let mut hidden = StringBuilder::with_capacity(texts.len(), texts.len() * DIGITS);
        for text in texts {
            match (text, hiding) {
                (None, _) => hidden.append_null(),
                (Some(text), Hiding::Hash) => hidden.append_value(&blake3::keyed_hash(&self.key, text.as_bytes()).to_hex()[..DIGITS]),
                (Some(text), Hiding::Truncate(length)) => {
                    let end = text.char_indices().nth(length).map_or(text.len(), |(at, _)| at);
                    hidden.append_value(&text[..end]);
                }
            }
        }
        hidden.finish()
    }
}

impl Transform for Masking {
    fn apply(&mut self, _: Time, batch: Batch, out: &mut Output) {
        let kind = self.kinds.iter().position(|kind| kind.name == batch.kind.name).expect("only these kinds are consumed");
        let mut columns = batch.rows.columns().to_vec();
        for (at, hiding) in &self.hidings[kind] {
            columns[*at] = self.hide(&columns[*at], *hiding);
        }
        let rows = RecordBatch::try_new(batch.rows.schema(), columns).expect("text stays text");
        out.account().accept(rows.num_rows());
        out.emit(Batch { rows, ..batch });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use config::component;
    use model::Account;
    use model::Message;
    use model::kinds::{BOOK_METRICS, GAP, TRADE};

    use super::*;
    use crate::testing::{Trade, batch};

    const KEY: &str = "key = 'a secret of the tests'";

    fn texts(options: &str, column: &str) -> Vec<String> {
        let mask: Mask = toml::from_str(options).unwrap();
        let mut cx = Check::new("public", &[]);
        let hidings = vec![mask.hidings(&TRADE, &mut cx)];
        let key = blake3::derive_key("tests", mask.key.as_ref().map(Secret::expose).unwrap_or_default().as_bytes());
        let mut masking = Masking { kinds: vec![TRADE.clone()], hidings, key };
        let account = Arc::new(Account::default());
        let mut out = Output::new("public", account.clone());
        let trades: Vec<Trade> = [(0, 1_234), (1, 1_235), (0, 1_234)].map(|(symbol, id)| Trade { symbol, millis: 1, id, frame: 0 }).into();
        account.receive(trades.len());
        masking.apply(1, batch(&trades, 0), &mut out);
        assert!(account.totals().balances());
        let Some(Message::Batch(batch)) = out.take().pop() else { panic!("nothing passed") };
        let column = arrow::compute::cast(batch.rows.column_by_name(column).unwrap(), &DataType::Utf8).unwrap();
        column.as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    }

    #[test]
    fn the_same_text_has_the_same_hash_under_the_same_key() {
        let ids = texts(&format!("hash = ['trade_id']\n{KEY}"), "trade_id");
        assert_eq!(ids[0], ids[2]);
        let all: HashMap<&String, usize> = ids.iter().map(|id| (id, id.len())).collect();
        assert!(all.len() == 2 && all.values().all(|length| *length == 32), "{ids:?}");
        assert_ne!(texts("hash = ['trade_id']\nkey = 'another secret of tests'", "trade_id")[0], ids[0]);
        assert_eq!(texts(&format!("hash = ['trade_id']\n{KEY}"), "symbol"), ["BTC-USDT", "ETH-USDT", "BTC-USDT"], "the others stay");
        // A label is hashed as text is.
        let symbols = texts(&format!("hash = ['symbol']\n{KEY}"), "symbol");
        assert!(symbols[0] == symbols[2] && symbols[0] != symbols[1] && symbols[0].len() == 32, "{symbols:?}");
    }

    #[test]
    fn text_is_cut_between_characters() {
        let masking = Masking { kinds: Vec::new(), hidings: Vec::new(), key: [0; 32] };
        let texts = StringArray::from(vec![Some("grüße"), Some("ab"), None, Some("")]);
        let cut = masking.hidden(&texts, Hiding::Truncate(3));
        assert_eq!(cut, StringArray::from(vec![Some("grü"), Some("ab"), None, Some("")]));
        assert_eq!(texts.len(), 4);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let check = |options: &str, kind: &Arc<Kind>| component::<dyn Operator, Mask>(options, std::slice::from_ref(kind)).map(drop);
        assert_eq!(check(&format!("hash = ['trade_id']\n{KEY}"), &TRADE), Ok(()));
        assert_eq!(check("truncate = { detail = 20 }", &GAP), Ok(()));
        let refused = |options: &str, kind: &Arc<Kind>| check(options, kind).unwrap_err();
        assert_eq!(refused("", &TRADE), ": there is nothing to mask");
        let guessed = "key: without a key, or with a short one, what is hashed can be found by guessing";
        assert_eq!(refused("hash = ['trade_id']", &TRADE), guessed);
        assert_eq!(refused("hash = ['trade_id']\nkey = 'short'", &TRADE), guessed);
        assert_eq!(refused("truncate = { price = 3 }", &TRADE), "truncate.price: `price` of `trade` records is decimal, not text");
        assert_eq!(refused("truncate = { trade_id = 3 }", &TRADE), "truncate.trade_id: records that differ in `trade_id` would be one");
        assert_eq!(refused("truncate = { trade_id = 3 }", &BOOK_METRICS), "truncate.trade_id: there is no column `trade_id`");
    }
}
