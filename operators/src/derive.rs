//! `derive`: records with further columns, computed from the others.
//!
//! Each record of the input gives one record with the columns it had, less those in `drop`, plus those in
//! `columns`; a computed column that has the name of an existing one takes its place. Decimals are exact until
//! they go into their column, where they are rounded half to even at the twelfth fraction digit. A record for
//! which an expression fails becomes a dead letter with the reason `expression`, and the others pass.
//!
//! Time, key and whether records are revised stay as they were, so a derived kind can go wherever its
//! original can: to a table of its own (`table`), to windows, to anomaly detection.
//!
//! # Time
//!
//! - **Late rows** are given their columns like others, and so are all that a **gap** or an **idle source** leaves.
//! - **Corrections**: what takes a record back gets the same columns as the record, and takes back what was derived of it.
//! - **State**: none.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use config::values;
use config::{Check, Checked, Component};
use model::kinds::{self, DEAD_LETTER};
use model::time::Time;
use model::{Batch, Column, Kind, Type};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::expression::{Computed, Expression, evaluate};
use crate::fault::{self, Fault};
use crate::inputs::{carried, not_carried};
use crate::{Context, Operator, Output, Stream, Transform, dataflow, rows};

/// Adds columns that are computed from the others.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Derive {
    /// The columns to compute: for each name a SQL expression over the columns of the input. They are appended
    /// in the order of their names; one that has the name of an existing column takes its place. They do not
    /// see each other.
    #[serde(default)]
    columns: BTreeMap<String, values::Expression>,
    /// Columns of the input to leave out. Expressions still see them.
    #[serde(default)]
    drop: Vec<String>,
    /// The kind of record to work on, where the inputs carry several; others do not pass.
    #[serde(default)]
    of: Option<String>,
    /// The name of the kind of record that comes out; by default the node's name. Where every computed column
    /// takes the place of an existing one of the same type, it is the kind that came in.
    #[serde(default)]
    kind: Option<String>,
    /// The table that sinks write the new kind to. Without one it cannot go to a table.
    #[serde(default)]
    table: Option<String>,
}

impl Component<dyn Operator> for Derive {
    const TYPE: &'static str = "derive";
    const EXAMPLE: &'static str = r#"
[operators.sized]
type = "derive"
inputs = ["trades"]
columns = { notional = "price * quantity", large = "price * quantity > 100000" }
table = "sized_trades"
"#;
    const MODULE: &'static str = include_str!("derive.rs");

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Operator>> {
        let deriving = self.plan(cx)?;
        let mut outputs = vec![deriving.output.clone()];
        if deriving.output.name != DEAD_LETTER.name {
            outputs.push(DEAD_LETTER.clone());
        }
        Some(Checked { outputs, component: Arc::new(deriving) })
    }
}

impl Derive {
    /// Plans the whole node.
    fn plan(&self, cx: &mut Check<'_>) -> Option<Deriving> {
        let input = self.input(cx)?;
        if self.columns.is_empty() && self.drop.is_empty() {
            cx.error(
                &["columns"],
                "there is nothing to compute and nothing to drop",
                "name a column: `columns = { notional = \"price * quantity\" }`",
            );
        }
        self.check_drop(cx, &input);
        self.check_names(cx);
        let mut computed = Vec::new();
        for (name, text) in &self.columns {
            match self.column(name, &text.0, &input) {
                Ok(column) => computed.push(column),
                Err(fault) => cx.error(&["columns", name], fault.message, fault.help),
            }
        }
        if cx.failed() {
            return None;
        }
        let output = self.output(cx.node(), &input, &computed);
        if !Arc::ptr_eq(&output, &input) && self.kind.is_none() && (kinds::named(&output.name).is_some() || !is_name(&output.name)) {
            let message = format!("the derived kind would have the node's name, but `{}` cannot name a new kind", output.name);
            cx.error(&[], message, "name it: `kind = ...`, in small letters, digits and `_`, other than a built-in kind");
            return None;
        }
        Some(Deriving::new(input, output, computed))
    }

    /// The kind to work on.
    fn input(&self, cx: &mut Check<'_>) -> Option<Arc<Kind>> {
        let carried = carried(cx)?;
        if let Some(of) = &self.of {
            let kind = carried.iter().find(|k| k.name == *of).cloned();
            if kind.is_none() {
                not_carried(cx, &["of"], of, &carried);
            }
            return kind;
        }
        let records: Vec<_> = carried.iter().filter(|k| k.name != DEAD_LETTER.name).collect();
        match records.as_slice() {
            [] => cx.error(&["inputs"], "the inputs carry no records to derive from", "name an input that carries records"),
            [kind] => return Some((*kind).clone()),
            [first, ..] => {
                let names: Vec<_> = records.iter().map(|k| format!("`{}`", k.name)).collect();
                let message = format!("the inputs carry {}, but columns are derived from one kind", names.join(", "));
                cx.error(&["inputs"], message, format!("say which: `of = \"{}\"`", first.name));
            }
        }
        None
    }

    fn check_drop(&self, cx: &mut Check<'_>, input: &Kind) {
        for name in &self.drop {
            let structural = input.time.iter().chain(&input.key).any(|c| c == name);
            if input.column(name).is_none() {
                let fault = fault::unknown_column(name, input);
                cx.error(&["drop"], fault.message, fault.help);
            } else if structural {
                let message = format!("`{name}` cannot be dropped: it tells when a `{}` record happened or which one it is", input.name);
                cx.error(&["drop"], message, "leave it out of `drop`");
            } else if self.columns.contains_key(name) {
                let message = format!("`{name}` is dropped and computed");
                cx.error(&["drop"], message, "leave it out of `drop`: a computed column takes the place of an existing one");
            }
        }
    }

    /// The names that the node gives: of columns, of the kind and of its table.
    fn check_names(&self, cx: &mut Check<'_>) {
        const HELP: &str = "use small letters, digits and `_`, beginning with a letter";
        for name in self.columns.keys().filter(|n| !is_name(n)) {
            cx.error(&["columns", name], format!("`{name}` cannot name a column"), HELP);
        }
        if let Some(name) = &self.kind {
            if kinds::named(name).is_some() {
                cx.error(&["kind"], format!("`{name}` is a built-in kind, with columns of its own"), "give the derived kind another name");
            } else if !is_name(name) {
                cx.error(&["kind"], format!("`{name}` cannot name a kind"), HELP);
            }
        }
        if let Some(table) = &self.table {
            if let Some(kind) = kinds::all().into_iter().find(|k| k.table.as_deref() == Some(table)) {
                cx.error(
                    &["table"],
                    format!("`{table}` is the table of `{}` records, which have other columns", kind.name),
                    "give the derived kind a table of its own",
                );
            } else if !is_name(table) {
                cx.error(&["table"], format!("`{table}` cannot name a table"), HELP);
            }
        }
    }

    /// Plans a computed column: its expression, and what it is in the output.
    fn column(&self, name: &str, text: &str, input: &Kind) -> Result<Computed, Fault> {
        let expression = Expression::plan(text, input).map_err(|fault| self.explain_sibling(fault, text, input))?;
        let gives = Type::holding(&expression.data_type).ok_or_else(|| fault::unholdable(&expression.data_type))?;
        let (ty, nullable) = match input.column(name) {
            Some(old) if takes(old.ty, gives) => (old.ty, old.nullable),
            Some(old) if input.time.iter().chain(&input.key).any(|c| c == name) => {
                return Err(Fault {
                    message: format!(
                        "`{name}` tells when a `{}` record happened or which one it is, as {}, but this gives {gives}",
                        input.name, old.ty
                    ),
                    help: format!("make it {}, or give the computed column another name", old.ty),
                });
            }
            _ => (gives, expression.nullable),
        };
        Ok(Computed { name: name.into(), expression, ty, nullable })
    }

    /// A column that is not in the input but beside this one is a special misunderstanding.
    fn explain_sibling(&self, fault: Fault, text: &str, input: &Kind) -> Fault {
        let sibling = self.columns.keys().find(|c| input.column(c).is_none() && fault == fault::unknown_column(c, input));
        match sibling {
            Some(sibling) => Fault {
                help: format!(
                    "computed columns do not see each other: write `({})` for `{sibling}` in `{text}`, or compute it in a `derive` before this one",
                    self.columns[sibling]
                ),
                ..fault
            },
            None => fault,
        }
    }

    /// The kind that comes out: the one that came in, if it fits.
    fn output(&self, node: &str, input: &Arc<Kind>, computed: &[Computed]) -> Arc<Kind> {
        let fits = |c: &Computed| input.column(&c.name).is_some_and(|old| old.ty == c.ty);
        if self.kind.is_none() && self.table.is_none() && self.drop.is_empty() && computed.iter().all(fits) {
            return input.clone();
        }
        let column = |c: &Computed| Column {
            name: c.name.clone().into(),
            ty: c.ty,
            nullable: c.nullable,
            doc: format!("Computed: `{}`.", self.columns[&c.name]).into(),
        };
        let kept = input.columns.iter().filter(|c| !self.drop.iter().any(|d| *d == c.name));
        let replaced = kept.map(|old| computed.iter().find(|c| c.name == old.name).map_or_else(|| old.clone(), column));
        let appended = computed.iter().filter(|c| input.column(&c.name).is_none()).map(column);
        Arc::new(Kind::new(
            self.kind.clone().unwrap_or_else(|| node.to_owned()),
            self.table.clone().map(Into::into),
            format!("`{}` records with columns computed by `{node}`.", input.name),
            replaced.chain(appended).collect(),
            input.time.clone(),
            input.key.clone(),
            input.revisable,
        ))
    }
}

/// Whether a column holds values of another type as they are.
fn takes(column: Type, values: Type) -> bool {
    column == values || matches!((column, values), (Type::Label, Type::Text) | (Type::Text, Type::Label) | (Type::Decimal, Type::Integer))
}

/// Whether a name can stand in SQL without quotes.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Where a column of the output comes from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// The column of this number in the input.
    Input(usize),
    /// The computed column of this number.
    Computed(usize),
}

/// `derive` at work.
#[derive(Clone, Debug)]
struct Deriving {
    input: Arc<Kind>,
    output: Arc<Kind>,
    computed: Vec<Computed>,
    origins: Vec<Origin>,
}

impl Deriving {
    fn new(input: Arc<Kind>, output: Arc<Kind>, computed: Vec<Computed>) -> Self {
        let origin = |column: &Column| match computed.iter().position(|c| c.name == column.name) {
            Some(i) => Origin::Computed(i),
            None => Origin::Input(input.schema().index_of(&column.name).expect("a column is computed or was in the input")),
        };
        let origins = output.columns.iter().map(origin).collect();
        Deriving { input, output, computed, origins }
    }
}

impl Operator for Deriving {
    fn build<'scope>(&self, input: Stream<'scope>, cx: &Context) -> Stream<'scope> {
        dataflow::transform(input, cx, &[&self.input.name], self.clone())
    }
}

impl Transform for Deriving {
    fn apply(&mut self, time: Time, batch: Batch, out: &mut Output) {
        let evaluated = evaluate(&self.computed, &batch.rows);
        let batch = rows::refuse(batch, &evaluated.refused, "expression", time, out);
        let column = |origin: &Origin| match origin {
            Origin::Input(i) => batch.rows.column(*i).clone(),
            Origin::Computed(i) => evaluated.columns[*i].clone(),
        };
        let columns = self.origins.iter().map(column).collect();
        let rows = RecordBatch::try_new(self.output.schema().clone(), columns).expect("each column has the type that its kind declares");
        out.account().accept(rows.num_rows());
        out.emit(Batch { kind: self.output.clone(), rows, ..batch });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Decimal128Type, Int32Type};
    use config::{Input, component};
    use model::account::Totals;
    use model::columns::label;
    use model::kinds::{DeadLetterRows, QUOTE, TRADE, Trade, TradeBuilder, TradeRows};
    use model::{Account, Decimal, Message};

    fn trades(rows: &[(&str, &str)]) -> Batch {
        let mut trades = TradeBuilder::default();
        for (price, quantity) in rows {
            trades.push(Trade {
                venue: "binance",
                market: "spot",
                symbol: "BTC-USDT",
                event_time: 1_000_000,
                receive_time: None,
                frame: Some(4),
                trade_id: "1",
                price: price.parse().unwrap(),
                quantity: quantity.parse().unwrap(),
                contracts: None,
                side: "buy",
                fills: 1,
                backfilled: Some(false),
            });
        }
        Batch::new(&TRADE, trades.finish(), model::Origin { source: 3, chunk: 9 })
    }

    fn plan(node: &str, options: &str, kinds: &[Arc<Kind>]) -> Result<Deriving, String> {
        let inputs = [Input { node: "market".into(), kinds: kinds.to_vec() }];
        let mut cx = Check::new(node, &inputs);
        let derive: Derive = serde_json::from_str(options).unwrap();
        let problem = |p: config::component::Problem| format!("{}: {}\n  {}", p.path.join("."), p.message, p.help);
        derive.plan(&mut cx).ok_or_else(|| cx.into_problems().into_iter().map(problem).collect::<Vec<_>>().join("\n"))
    }

    fn run(options: &str, batch: Batch) -> (Vec<Batch>, Totals) {
        let mut deriving = plan("sized", options, std::slice::from_ref(&batch.kind)).unwrap();
        let account = Arc::new(Account::default());
        let mut out = Output::new("sized", account.clone());
        account.receive(batch.len());
        deriving.apply(7, batch, &mut out);
        let batches = out.take().into_iter().map(|m| match m {
            Message::Batch(batch) => batch,
            Message::Progress(_) => panic!("`derive` makes no progress of its own"),
        });
        (batches.collect(), account.totals())
    }

    fn decimals(batch: &Batch, column: &str) -> Vec<String> {
        let values = batch.rows.column_by_name(column).unwrap().as_primitive::<Decimal128Type>();
        values.values().iter().map(|units| Decimal::from_units(*units).to_string()).collect()
    }

    #[test]
    fn computed_columns_stand_behind_the_others() {
        let options = r#"{"columns": {"notional": "price * quantity", "big": "quantity > 1", "base": "split_part(symbol, '-', 1)"}, "drop": ["contracts", "frame"], "table": "sized_trades"}"#;
        let (batches, totals) = run(options, trades(&[("61837.63", "0.02"), ("2", "1.5")]));
        let [batch] = &batches[..] else { panic!("one batch") };
        assert_eq!(batch.kind.name, "sized");
        assert_eq!(batch.kind.table.as_deref(), Some("sized_trades"));
        let columns: Vec<_> = batch.kind.columns.iter().map(|c| (c.name.as_ref(), c.ty, c.nullable)).collect();
        let (kept, added) = columns.split_at(columns.len() - 3);
        assert_eq!(
            kept.iter().map(|c| c.0).collect::<Vec<_>>(),
            ["venue", "market", "symbol", "event_time", "receive_time", "trade_id", "price", "quantity", "side", "fills", "backfilled"]
        );
        assert_eq!(added[0].0, "base");
        assert_eq!(added[1..], [("big", Type::Boolean, false), ("notional", Type::Decimal, false)]);
        assert_eq!((&batch.kind.time, &batch.kind.key, batch.kind.revisable), (&TRADE.time, &TRADE.key, TRADE.revisable));
        assert_eq!(decimals(batch, "notional"), ["1236.7526", "3"]);
        assert_eq!(batch.rows.column_by_name("big").unwrap().as_boolean().values().iter().collect::<Vec<_>>(), [false, true]);
        assert_eq!(batch.rows.schema(), *batch.kind.schema());
        assert_eq!((batch.origin.source, batch.origin.chunk), (3, 9));
        assert!(totals.balances() && totals.accepted == 2);
    }

    #[test]
    fn a_replaced_column_of_the_same_type_keeps_the_kind() {
        let (batches, _) = run(
            r#"{"columns": {"price": "round(price, 0)", "quantity": "7", "symbol": "lower(symbol)"}}"#,
            trades(&[("61837.63", "0.02")]),
        );
        assert_eq!(batches[0].kind.name, "trade");
        let rows = TradeRows::of(&batches[0].rows).unwrap();
        assert_eq!(label(rows.symbol, 0), Some("btc-usdt"));
        assert_eq!((decimals(&batches[0], "price"), decimals(&batches[0], "quantity")), (vec!["61838".to_owned()], vec!["7".to_owned()]));

        let output = plan("sized", r#"{"columns": {"fills": "price > 1"}}"#, std::slice::from_ref(&TRADE)).unwrap().output;
        assert_eq!((output.name.as_ref(), output.table.as_deref()), ("sized", None));
        assert_eq!(
            output.columns.iter().map(|c| c.name.as_ref()).collect::<Vec<_>>(),
            TRADE.columns.iter().map(|c| c.name.as_ref()).collect::<Vec<_>>()
        );
        assert_eq!(output.column("fills").unwrap().ty, Type::Boolean);
    }

    #[test]
    fn retractions_stay_beside_their_rows() {
        let batch = trades(&[("1", "2"), ("1", "0"), ("1", "4")]).with_diffs(vec![1, 1, -1]);
        let (batches, totals) = run(r#"{"columns": {"ratio": "price / quantity"}}"#, batch);
        assert_eq!(decimals(&batches[0], "ratio"), ["0.5", "0.25"]);
        assert_eq!((batches[0].diff(0), batches[0].diff(1)), (1, -1));
        let letters = DeadLetterRows::of(&batches[1].rows).unwrap();
        assert_eq!(letters.detail.value(0), "`ratio`: division by zero");
        assert_eq!((letters.event_time.value(0), letters.rejected_time.value(0), letters.frame.value(0)), (1_000_000, 7_000, 4));
        assert_eq!(
            ["node", "reason", "kind", "venue"]
                .map(|c| label(batches[1].rows.column_by_name(c).unwrap().as_dictionary::<Int32Type>(), 0).unwrap()),
            ["sized", "expression", "trade", "binance"]
        );
        let json: serde_json::Value = serde_json::from_slice(letters.payload.value(0)).unwrap();
        assert_eq!(json["trade_id"], "1");
        assert!(letters.receive_time.is_null(0));
        assert!(totals.balances() && totals.accepted == 2 && totals.rejected() == 1);
    }

    #[test]
    fn a_column_without_nulls_stays_so() {
        let (batches, totals) = run(r#"{"columns": {"price": "nullif(price, 1)"}}"#, trades(&[("1", "2"), ("3", "2")]));
        assert_eq!(decimals(&batches[0], "price"), ["3"]);
        let letters = DeadLetterRows::of(&batches[1].rows).unwrap();
        assert_eq!(letters.detail.value(0), "`price`: is null, but the column holds a value in every row");
        assert!(totals.balances());
    }

    #[test]
    fn a_batch_without_a_usable_row_gives_letters_alone() {
        let (batches, totals) =
            run(r#"{"columns": {"ratio": "price / quantity", "name": "upper(side)"}}"#, trades(&[("1", "0"), ("3", "0")]));
        assert_eq!(batches.len(), 1);
        assert_eq!((batches[0].kind.name.as_ref(), batches[0].len()), ("dead_letter", 2));
        assert!(totals.balances());
    }

    #[test]
    fn a_derived_kind_can_be_derived_from() {
        let first =
            plan("sized", r#"{"columns": {"notional": "price * quantity"}, "kind": "sized_trade"}"#, &[TRADE.clone(), DEAD_LETTER.clone()])
                .unwrap()
                .output;
        assert_eq!(first.name, "sized_trade");
        let second = plan("sized", r#"{"columns": {"large": "notional > 100"}}"#, &[first]).unwrap().output;
        assert_eq!(second.columns.last().unwrap().name, "large");
        let checked = component::<dyn Operator, Derive>(
            "of = 'quote'\ncolumns = { mid = '(bid_price + ask_price) / 2' }",
            &[TRADE.clone(), QUOTE.clone()],
        )
        .unwrap();
        assert_eq!(checked.outputs.iter().map(|k| k.name.as_ref()).collect::<Vec<_>>(), ["node", "dead_letter"]);
        assert!(checked.outputs[0].column("mid").unwrap().nullable);
    }

    #[test]
    fn a_derivation_that_cannot_work_is_refused_with_a_remedy() {
        const NAME: &str = "use small letters, digits and `_`, beginning with a letter";
        const COLUMNS: &str = "`trade` records have `venue`, `market`, `symbol`, `event_time`, `receive_time`, `frame`, `trade_id`, \
            `price`, `quantity`, `contracts`, `side`, `fills`, `backfilled`";
        for (options, kinds, expected) in [
            (
                r#"{}"#,
                vec![&TRADE],
                "columns: there is nothing to compute and nothing to drop\n  name a column: `columns = { notional = \"price * quantity\" }`".to_owned(),
            ),
            (
                r#"{"columns": {"x": "price"}}"#,
                vec![&TRADE, &QUOTE],
                "inputs: the inputs carry `trade`, `quote`, but columns are derived from one kind\n  say which: `of = \"trade\"`".into(),
            ),
            (
                r#"{"columns": {"x": "price"}}"#,
                vec![&DEAD_LETTER],
                "inputs: the inputs carry no records to derive from\n  name an input that carries records".into(),
            ),
            (r#"{"columns": {"x": "price"}, "of": "bar"}"#, vec![&TRADE], "of: no input carries `bar`\n  the inputs carry `trade`".into()),
            (
                r#"{"columns": {"x": "prise", "y": "sum(price)"}}"#,
                vec![&TRADE],
                format!(
                    "columns.x: there is no column `prise`\n  did you mean `price`? {COLUMNS}\n\
                     columns.y: `sum` looks at many records, but an expression sees one\n  \
                     aggregate with an operator such as `bars`, or over the table with `marketprism sql`"
                ),
            ),
            (
                r#"{"columns": {"x": "price * 2", "y": "x + 1"}}"#,
                vec![&TRADE],
                "columns.y: there is no column `x`\n  computed columns do not see each other: write `(price * 2)` for `x` in `x + 1`, \
                 or compute it in a `derive` before this one"
                    .into(),
            ),
            (r#"{"columns": {"X y": "price"}}"#, vec![&TRADE], format!("columns.X y: `X y` cannot name a column\n  {NAME}")),
            (
                r#"{"columns": {"event_time": "price"}}"#,
                vec![&TRADE],
                "columns.event_time: `event_time` tells when a `trade` record happened or which one it is, as time, but this gives decimal\n  \
                 make it time, or give the computed column another name"
                    .into(),
            ),
            (
                r#"{"columns": {"lag": "receive_time - event_time"}}"#,
                vec![&TRADE],
                "columns.lag: this gives a length of time, which no column can hold\n  \
                 cast it to a whole number, which counts microseconds: `CAST(receive_time - event_time AS BIGINT)`"
                    .into(),
            ),
            (
                r#"{"drop": ["venue", "frome"], "columns": {"price": "1"}}"#,
                vec![&TRADE],
                format!(
                    "drop: `venue` cannot be dropped: it tells when a `trade` record happened or which one it is\n  leave it out of `drop`\n\
                     drop: there is no column `frome`\n  did you mean `frame`? {COLUMNS}"
                ),
            ),
            (
                r#"{"drop": ["price"], "columns": {"price": "1"}}"#,
                vec![&TRADE],
                "drop: `price` is dropped and computed\n  leave it out of `drop`: a computed column takes the place of an existing one".into(),
            ),
            (
                r#"{"columns": {"x": "price"}, "kind": "bar"}"#,
                vec![&TRADE],
                "kind: `bar` is a built-in kind, with columns of its own\n  give the derived kind another name".into(),
            ),
            (
                r#"{"columns": {"x": "price"}, "table": "bars"}"#,
                vec![&TRADE],
                "table: `bars` is the table of `bar` records, which have other columns\n  give the derived kind a table of its own".into(),
            ),
            (
                r#"{"columns": {"x": "price"}, "table": "a b", "kind": "1"}"#,
                vec![&TRADE],
                format!("kind: `1` cannot name a kind\n  {NAME}\ntable: `a b` cannot name a table\n  {NAME}"),
            ),
        ] {
            let kinds: Vec<Arc<Kind>> = kinds.into_iter().map(|k| (**k).clone()).collect();
            assert_eq!(plan("sized", options, &kinds).unwrap_err(), expected, "{options}");
        }
        let node = plan("bar", r#"{"columns": {"x": "price"}}"#, std::slice::from_ref(&TRADE)).unwrap_err();
        assert_eq!(
            node,
            ": the derived kind would have the node's name, but `bar` cannot name a new kind\n  \
             name it: `kind = ...`, in small letters, digits and `_`, other than a built-in kind"
        );
    }
}
