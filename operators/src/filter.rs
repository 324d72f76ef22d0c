//! `filter`: the records for which a condition holds.
//!
//! A record passes, unchanged, if the condition is true for it; false and null (an operand is absent) are
//! ignored and counted as such. A condition that cannot be evaluated for a record (division by zero) makes
//! that record a dead letter with the reason `expression`, and no other. A record and its retraction meet the
//! same fate, so what a filter lets through stays revisable.
//!
//! # Time
//!
//! - **Late rows** pass like others, and so do all that a **gap** or an **idle source** leaves.
//! - **Corrections**: what takes a record back passes where the record did.
//! - **State**: none.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::DataType;
use config::values;
use config::{Check, Checked, Component};
use model::kinds::DEAD_LETTER;
use model::time::Time;
use model::{Batch, Kind, Type};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::expression::{Computed, Expression, evaluate};
use crate::fault::Fault;
use crate::{Context, Operator, Output, Stream, Transform, dataflow, inputs, rows};

/// Keeps the records for which a condition holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The condition, a SQL expression over the columns that gives true or false. Text is written in single
    /// quotes. Records for which it is false or null are ignored.
    #[serde(rename = "where")]
    condition: values::Expression,
    /// The kinds of record to look at; others do not pass. By default every kind that the inputs carry, except
    /// dead letters. The condition must fit the columns of each.
    #[serde(default)]
    kinds: Option<Vec<String>>,
}

impl Component<dyn Operator> for Filter {
    const TYPE: &'static str = "filter";
    const EXAMPLE: &'static str = r#"
[operators.large_buys]
type = "filter"
inputs = ["trades"]
where = "price * quantity > 100000 AND side = 'buy'"
"#;
    const MODULE: &'static str = include_str!("filter.rs");

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        let kinds = inputs::chosen(cx, self.kinds.as_deref())?;
        let mut conditions = Vec::new();
        for kind in &kinds {
            match Condition::plan(&self.condition.0, kind) {
                Ok(condition) => conditions.push(condition),
                Err(fault) if kinds.len() == 1 => cx.error(&["where"], fault.message, fault.help),
                Err(fault) => {
                    let others: Vec<_> = kinds.iter().filter(|k| k.name != kind.name).map(|k| format!("\"{}\"", k.name)).collect();
                    let help = format!("{}; or leave `{}` out: `kinds = [{}]`", fault.help, kind.name, others.join(", "));
                    cx.error(&["where"], format!("for `{}` records: {}", kind.name, fault.message), help);
                }
            }
        }
        let mut outputs = kinds;
        if !outputs.iter().any(|k| k.name == DEAD_LETTER.name) {
            outputs.push(DEAD_LETTER.clone());
        }
        Some(Checked { outputs, component: Arc::new(Filtering { conditions }) })
    }
}

/// A condition planned for one kind.
#[derive(Clone, Debug)]
struct Condition {
    kind: Arc<Kind>,
    computed: [Computed; 1],
}

impl Condition {
    fn plan(text: &str, kind: &Arc<Kind>) -> Result<Self, Fault> {
        let expression = Expression::plan(text, kind)?;
        if expression.data_type != DataType::Boolean {
            let ty = Type::holding(&expression.data_type).map_or_else(|| expression.data_type.to_string(), |ty| ty.to_string());
            return Err(Fault {
                message: format!("a condition is true or false, but this gives {ty}"),
                help: "compare it with something, for example `price > 100`".into(),
            });
        }
        Ok(Condition { kind: kind.clone(), computed: [Computed { name: "where".into(), expression, ty: Type::Boolean, nullable: true }] })
    }
}

/// The filter at work.
#[derive(Clone, Debug)]
pub struct Filtering {
    conditions: Vec<Condition>,
}

impl Filtering {
    /// A filter of records of one kind.
    ///
    /// # Errors
    /// The condition does not fit the kind.
    pub fn new(condition: &str, kind: &Arc<Kind>) -> Result<Self, Fault> {
        Ok(Filtering { conditions: vec![Condition::plan(condition, kind)?] })
    }
}

impl Operator for Filtering {
    fn build<'scope>(&self, input: Stream<'scope>, cx: &Context) -> Stream<'scope> {
        let kinds: Vec<&str> = self.conditions.iter().map(|c| c.kind.name.as_ref()).collect();
        dataflow::transform(input, cx, &kinds, self.clone())
    }
}

impl Transform for Filtering {
    fn apply(&mut self, time: Time, batch: Batch, out: &mut Output) {
        let condition = self.conditions.iter().find(|c| c.kind.name == batch.kind.name).expect("only kinds with a condition are consumed");
        let evaluated = evaluate(&condition.computed, &batch.rows);
        let batch = rows::refuse(batch, &evaluated.refused, "expression", time, out);
        let looked_at = batch.len();
        let passed = rows::keep(batch, evaluated.columns[0].as_boolean());
        out.account().accept(passed.len());
        out.account().ignore(looked_at - passed.len());
        out.emit(passed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::{Input, component};
    use model::account::Totals;
    use model::kinds::{BAR, DEAD_LETTER, DeadLetterRows, QUOTE, TRADE, Trade, TradeBuilder, TradeRows};
    use model::{Account, Decimal, Message, Origin};
    use proptest::prelude::*;

    /// What a trade of the tests differs in.
    #[derive(Clone, Debug)]
    struct Row {
        price: Decimal,
        quantity: Decimal,
        contracts: Option<Decimal>,
        buy: bool,
        fills: i64,
        diff: i8,
    }

    fn row(price: &str, quantity: &str, buy: bool) -> Row {
        Row { price: price.parse().unwrap(), quantity: quantity.parse().unwrap(), contracts: None, buy, fills: 1, diff: 1 }
    }

    fn batch(rows: &[Row]) -> Batch {
        let mut trades = TradeBuilder::default();
        for (i, row) in rows.iter().enumerate() {
            trades.push(Trade {
                venue: "binance",
                market: "spot",
                symbol: "BTC-USDT",
                event_time: 1_000_000,
                receive_time: Some(1_000_001),
                frame: Some(i as i64),
                trade_id: &i.to_string(),
                price: row.price,
                quantity: row.quantity,
                contracts: row.contracts,
                side: if row.buy { "buy" } else { "sell" },
                fills: row.fills,
                backfilled: Some(false),
            });
        }
        Batch::new(&TRADE, trades.finish(), Origin::default()).with_diffs(rows.iter().map(|r| r.diff).collect())
    }

    /// What came of rows: the ids (and differences) of those that passed, the letters, and the books.
    struct Outcome {
        passed: Vec<(i64, i8)>,
        letters: Vec<(i64, String, String)>,
        totals: Totals,
    }

    fn run(condition: &str, batches: Vec<Batch>) -> Outcome {
        let account = Arc::new(Account::default());
        let mut out = Output::new("large", account.clone());
        let mut filter = Filtering::new(condition, &TRADE).unwrap();
        for batch in batches {
            account.receive(batch.len());
            filter.apply(7, batch, &mut out);
        }
        let (mut passed, mut letters) = (Vec::new(), Vec::new());
        for message in out.take() {
            let Message::Batch(batch) = message else { panic!("a filter makes no progress of its own") };
            if batch.kind == *DEAD_LETTER {
                let rows = DeadLetterRows::of(&batch.rows).unwrap();
                let payload = |i| String::from_utf8(rows.payload.value(i).to_vec()).unwrap();
                letters.extend((0..batch.len()).map(|i| (rows.frame.value(i), rows.detail.value(i).to_owned(), payload(i))));
            } else {
                let rows = TradeRows::of(&batch.rows).unwrap();
                passed.extend((0..batch.len()).map(|i| (rows.frame.value(i), batch.diff(i))));
            }
        }
        Outcome { passed, letters, totals: account.totals() }
    }

    #[test]
    fn true_passes_and_false_and_null_are_ignored() {
        let mut rows = vec![row("61837.63", "2", true), row("61837.63", "2", false), row("1", "2", true)];
        rows[1].contracts = Some(Decimal::ONE);
        let outcome = run("price * quantity > 100000 AND side = 'buy'", vec![batch(&rows)]);
        assert_eq!(outcome.passed, [(0, 1)]);
        assert_eq!((outcome.totals.accepted, outcome.totals.ignored), (1, 2));
        assert!(outcome.totals.balances());
        assert_eq!(run("contracts >= 1", vec![batch(&rows)]).passed, [(1, 1)]);
        assert_eq!(run("NOT contracts >= 1", vec![batch(&rows)]).passed, []);
        assert_eq!(run("true", vec![batch(&rows), batch(&rows[..0])]).passed.len(), 3);
    }

    #[test]
    fn a_row_that_cannot_be_evaluated_becomes_a_letter_and_the_others_pass() {
        let mut rows = vec![row("10", "2", true); 100];
        rows[17].quantity = Decimal::ZERO;
        rows[93].quantity = Decimal::ZERO;
        rows[93].diff = -1;
        let outcome = run("price / quantity > 1", vec![batch(&rows)]);
        assert_eq!(outcome.passed.len(), 98);
        let json = concat!(
            r#"{"venue":"binance","market":"spot","symbol":"BTC-USDT","event_time":"1970-01-01T00:00:01.000000Z","receive_time":"1970-01-01T00:00:01.000001Z","#,
            r#""frame":17,"trade_id":"17","price":10,"quantity":0,"contracts":null,"side":"buy","fills":1,"backfilled":false}"#
        );
        assert_eq!(outcome.letters[0], (17, "`where`: division by zero".to_owned(), json.to_owned()));
        assert_eq!(outcome.letters[1].1, "`where`: division by zero (in a row that takes an earlier one back)");
        assert_eq!(outcome.totals.rejected.get("expression"), Some(&2));
        assert!(outcome.totals.balances());
    }

    #[test]
    fn retractions_meet_the_fate_of_their_rows() {
        let mut rows = vec![row("10", "2", true), row("30", "2", true), row("10", "2", true), row("30", "2", true)];
        rows[2].diff = -1;
        rows[3].diff = -1;
        assert_eq!(run("price > 20", vec![batch(&rows)]).passed, [(1, 1), (3, -1)]);
    }

    fn problems(options: &str, inputs: &[&[Arc<Kind>]]) -> String {
        let filter: Filter = serde_json::from_str(options).unwrap();
        let inputs: Vec<Input> =
            inputs.iter().enumerate().map(|(i, kinds)| Input { node: format!("market{i}"), kinds: kinds.to_vec() }).collect();
        let mut cx = Check::new("large", &inputs);
        let checked = filter.check(&mut cx);
        assert!(checked.is_some() || cx.failed(), "without a component there is an error");
        cx.into_problems().iter().map(|p| format!("{}: {}\n  {}", p.path.join("."), p.message, p.help)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn it_carries_the_kinds_that_it_looks_at() {
        let names = |options: &str| -> Vec<String> {
            let checked = component::<dyn Operator, Filter>(options, &[TRADE.clone(), QUOTE.clone(), DEAD_LETTER.clone()]).unwrap();
            checked.outputs.iter().map(|k| k.name.to_string()).collect()
        };
        assert_eq!(names("where = \"venue = 'okx'\""), ["trade", "quote", "dead_letter"]);
        assert_eq!(names("where = \"price > 1\"\nkinds = ['trade']"), ["trade", "dead_letter"]);
        assert_eq!(names("where = \"reason = 'late'\"\nkinds = ['dead_letter']"), ["dead_letter"]);
    }

    #[test]
    fn a_filter_that_cannot_work_is_refused_with_a_remedy() {
        let both = [TRADE.clone(), BAR.clone(), DEAD_LETTER.clone()];
        assert_eq!(problems(r#"{"where": "price > 1", "kinds": ["trade"]}"#, &[&both]), "");
        let mut other = (**TRADE).clone();
        other.columns.pop();
        for (options, inputs, expected) in [
            (
                r#"{"where": "price > 1"}"#,
                &[&both[..]][..],
                "where: for `bar` records: there is no column `price`\n  text is written in single quotes; `bar` records have `venue`, `market`, \
                 `symbol`, `interval_seconds`, `start`, `end`, `open`, `high`, `low`, `close`, `volume`, `quote_volume`, `buy_volume`, `sell_volume`, \
                 `trades`, `vwap`, `first_trade_id`, `last_trade_id`, `first_trade_time`, `last_trade_time`, `partial`, `late`, `gap`; \
                 or leave `bar` out: `kinds = [\"trade\"]`",
            ),
            (
                r#"{"where": "price * 2"}"#,
                &[&both[..1]],
                "where: a condition is true or false, but this gives decimal\n  compare it with something, for example `price > 100`",
            ),
            (
                r#"{"where": "price > 1", "kinds": ["trades"]}"#,
                &[&both],
                "kinds: no input carries `trades`\n  did you mean `trade`? the inputs carry `trade`, `bar`, `dead_letter`",
            ),
            (
                r#"{"where": "price > 1", "kinds": []}"#,
                &[&both],
                "kinds: names no kind, so nothing would pass\n  name a kind, or leave `kinds` out for all of them",
            ),
            (r#"{"where": "price > 1", "kinds": ["trade", "trade"]}"#, &[&both], "kinds: `trade` is named twice\n  name it once"),
            (r#"{"where": "price > 1"}"#, &[&both[2..]], "inputs: the inputs carry no records\n  name an input that carries records"),
            (
                r#"{"where": "price > 1"}"#,
                &[&both[..1], &[Arc::new(other)]],
                "inputs: `trade` records of input `market1` have other columns than those of the inputs before it\n  \
                 give one of them another name where it is made: `kind = ...`",
            ),
        ] {
            assert_eq!(problems(options, inputs), expected);
        }
    }

    /// A condition in SQL and the same, written in Rust: true, false, null, or an error.
    type Naive = fn(&Row) -> Result<Option<bool>, ()>;

    const CONDITIONS: [(&str, Naive); 7] = [
        ("price * quantity > 100 AND side = 'buy'", |r| Ok(Some(r.price.mul_exact(r.quantity) > hundred() && r.buy))),
        ("contracts > 2 OR side = 'sell'", |r| {
            Ok(match r.contracts.map(|c| c > Decimal::from_integer(2)) {
                Some(true) => Some(true),
                known => {
                    if r.buy {
                        known
                    } else {
                        Some(true)
                    }
                }
            })
        }),
        ("price / quantity > 5", |r| quotient_above(r, 5).map(Some)),
        ("fills > 1 AND NOT side = 'buy'", |r| Ok(Some(r.fills > 1 && !r.buy))),
        (
            "quantity = 0 OR price / quantity > 5",
            |r| if r.quantity == Decimal::ZERO { Ok(Some(true)) } else { quotient_above(r, 5).map(Some) },
        ),
        ("fills < 5 AND price / quantity > 5", |r| if r.fills < 5 { quotient_above(r, 5).map(Some) } else { Ok(Some(false)) }),
        ("contracts IS NULL OR contracts * price < 10", |r| Ok(Some(r.contracts.is_none_or(|c| c.mul_exact(r.price) < ten())))),
    ];

    fn hundred() -> arrow::datatypes::i256 {
        Decimal::from_integer(100).mul_exact(Decimal::ONE)
    }

    fn ten() -> arrow::datatypes::i256 {
        Decimal::from_integer(10).mul_exact(Decimal::ONE)
    }

    /// Whether price / quantity, cut at the sixteenth digit, is above a whole number.
    fn quotient_above(row: &Row, bound: i128) -> Result<bool, ()> {
        let scaled = row.price.units() * 10_i128.pow(16);
        scaled.checked_div(row.quantity.units()).map(|quotient| quotient > bound * 10_i128.pow(16)).ok_or(())
    }

    prop_compose! {
        fn any_row()(
            price in 0_i64..200_000_000_000_000,
            quantity in prop_oneof![Just(0_i64), 1_i64..50_000_000_000_000],
            contracts in proptest::option::of(0_i64..5),
            buy: bool,
            fills in 0_i64..10,
            back: bool,
        ) -> Row {
            Row {
                price: Decimal::from_units(price.into()),
                quantity: Decimal::from_units(quantity.into()),
                contracts: contracts.map(Decimal::from_integer),
                buy,
                fills,
                diff: if back { -1 } else { 1 },
            }
        }
    }

    proptest! {
        #[test]
        fn a_filter_does_what_a_loop_over_the_rows_would(rows in proptest::collection::vec(any_row(), 0..200), which in 0..CONDITIONS.len()) {
            let (text, naive) = CONDITIONS[which];
            let outcome = run(text, vec![batch(&rows)]);
            let (mut passed, mut refused) = (Vec::new(), Vec::new());
            for (i, row) in (0_i64..).zip(&rows) {
                match naive(row) {
                    Ok(Some(true)) => passed.push((i, row.diff)),
                    Ok(_) => {}
                    Err(()) => refused.push(i),
                }
            }
            prop_assert_eq!(outcome.passed, passed, "{}", text);
            prop_assert_eq!(outcome.letters.iter().map(|l| l.0).collect::<Vec<_>>(), refused, "{}", text);
            prop_assert_eq!(outcome.totals.received, rows.len() as u64);
            prop_assert!(outcome.totals.balances());
        }
    }
}
