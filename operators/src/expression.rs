//! SQL expressions on columns: what `filter` and `derive` compute with.
//!
//! An expression is planned once, while the pipeline is checked, against the columns of one kind; DataFusion
//! then evaluates it on whole batches. Its value in a row depends on that row alone: no aggregates, no other
//! tables, no clock and no chance. So a row and its retraction give the same, and a replay gives it again.
//!
//! Numbers are exact: a literal such as `0.1` is a decimal, decimals are widened before they are multiplied or
//! divided ([`sql::Widen`]), whole numbers that overflow are an error, and a decimal is rounded, half to even,
//! only when it goes into a column. Where an expression cannot be evaluated (division by zero, a cast that
//! fails, a result that does not fit) it fails for that row and no other.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, PrimitiveArray, RecordBatch, new_empty_array};
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, DecimalType, i256};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::ExecutionProps;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::prelude::SessionConfig;
use model::{Decimal, Kind, Type, decimal};
use sql::Widen;

use crate::fault::{self, Fault};

/// Parses and knows the functions; no table is in it.
static SESSION: LazyLock<SessionState> = LazyLock::new(|| {
    let config = SessionConfig::new()
        .set("datafusion.sql_parser.parse_float_as_decimal", &ScalarValue::from(true))
        .set("datafusion.sql_parser.map_string_types_to_utf8view", &ScalarValue::from(false));
    SessionStateBuilder::new().with_config(config).with_default_features().build()
});

/// A planned expression over the columns of a kind.
#[derive(Clone, Debug)]
pub struct Expression {
    physical: Arc<dyn PhysicalExpr>,
    /// The Arrow type of its values.
    pub data_type: DataType,
    /// Whether a value may be null.
    pub nullable: bool,
}

impl Expression {
    /// Plans an expression against the columns of `kind`.
    ///
    /// # Errors
    /// What does not parse, names no column, has operands of the wrong types, looks beyond the row at hand or
    /// fails whatever the row.
    pub fn plan(text: &str, kind: &Kind) -> Result<Self, Fault> {
        let schema = Arc::new(DFSchema::try_from(kind.schema().clone()).expect("a kind has each column once"));
        let parsed = SESSION.sql_to_expr_with_alias(text, &SESSION.config_options().sql_parser.dialect).map_err(|e| fault::syntax(&e))?;
        fault::refuse_queries(&parsed)?;
        let logical = SESSION.create_logical_expr_from_sql_expr(parsed, &schema).map_err(|e| fault::planning(&e, text, kind))?;
        fault::refuse_beyond_row(&logical, text, kind)?;
        let planned = exact(logical, &schema).map_err(|e| fault::planning(&e, text, kind))?;
        refuse_constant_overflow(&planned, &schema)?;
        let context = SimplifyContext::builder().with_schema(schema.clone()).with_config_options(SESSION.config_options().clone()).build();
        let simple = ExprSimplifier::new(context).simplify(planned).map_err(|e| fault::always(&e))?;
        let (_, field) = simple.to_field(schema.as_ref()).map_err(|e| fault::planning(&e, text, kind))?;
        let physical = physical(&simple, &schema).map_err(|e| fault::planning(&e, text, kind))?;
        physical.evaluate(&RecordBatch::new_empty(kind.schema().clone())).map_err(|e| fault::always(&e))?;
        Ok(Expression { physical, data_type: field.data_type().clone(), nullable: field.is_nullable() })
    }
}

/// Computes the constant parts of an expression before they are folded: folding would wrap around on overflow.
fn refuse_constant_overflow(expr: &Expr, schema: &DFSchema) -> Result<(), Fault> {
    let nothing = RecordBatch::new_empty(schema.inner().clone());
    let checked = expr.apply(|part| {
        if !matches!(part, Expr::BinaryExpr(_)) || !part.column_refs().is_empty() {
            return Ok(TreeNodeRecursion::Continue);
        }
        match physical(part, schema).and_then(|constant| constant.evaluate(&nothing)) {
            // Some functions can be evaluated only after they were simplified.
            Ok(_) | Err(DataFusionError::Internal(_)) => Ok(TreeNodeRecursion::Jump),
            Err(error) => Err(error),
        }
    });
    checked.map(drop).map_err(|e| fault::always(&e))
}

/// The expression with coerced types and widened decimals.
fn exact(expr: Expr, schema: &DFSchema) -> Result<Expr, DataFusionError> {
    Ok(expr.rewrite(&mut Widen::new(schema))?.data)
}

/// What evaluates an expression, with overflow an error.
fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let planned = create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
    let checked = planned.transform_up(|node| match node.downcast_ref::<BinaryExpr>() {
        Some(binary) => Ok(Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>)),
        None => Ok(Transformed::no(node)),
    })?;
    Ok(checked.data)
}

/// An expression and the column that its values go into.
#[derive(Clone, Debug)]
pub struct Computed {
    /// The column's name, for messages.
    pub name: String,
    /// The expression.
    pub expression: Expression,
    /// What the column holds.
    pub ty: Type,
    /// Whether the column may hold nulls.
    pub nullable: bool,
}

/// The values of some expressions in the rows of a batch.
#[derive(Debug)]
pub struct Evaluated {
    /// A column for each expression, without the refused rows.
    pub columns: Vec<ArrayRef>,
    /// The rows in which an expression failed, and why, in the order of the rows.
    pub refused: Vec<(usize, String)>,
}

/// Evaluates expressions on a batch. If that fails, the rows that are to blame are found by halving.
pub fn evaluate(computed: &[Computed], rows: &RecordBatch) -> Evaluated {
    match columns(computed, rows) {
        Ok(columns) => Evaluated { columns, refused: Vec::new() },
        Err(_) => sift(computed, rows),
    }
}

fn columns(computed: &[Computed], rows: &RecordBatch) -> Result<Vec<ArrayRef>, String> {
    let column = |c: &Computed| {
        let values = c.expression.physical.evaluate(rows).and_then(|v| v.into_array(rows.num_rows())).map_err(|e| fault::reason(&e))?;
        fit(values, c.ty, c.nullable)
    };
    computed.iter().map(|c| column(c).map_err(|reason| format!("`{}`: {reason}", c.name))).collect()
}

fn sift(computed: &[Computed], rows: &RecordBatch) -> Evaluated {
    let mut refused = Vec::new();
    let mut pieces: Vec<Vec<ArrayRef>> = vec![computed.iter().map(|c| new_empty_array(&c.ty.arrow())).collect()];
    let mut open = vec![(0, rows.num_rows())];
    while let Some((start, len)) = open.pop() {
        match columns(computed, &rows.slice(start, len)) {
            Ok(columns) => pieces.push(columns),
            Err(reason) if len == 1 => refused.push((start, reason)),
            Err(_) => {
                let half = len / 2;
                open.extend([(start + half, len - half), (start, half)]);
            }
        }
    }
    let whole = |i: usize| {
        let parts: Vec<&dyn Array> = pieces.iter().map(|p| p[i].as_ref()).collect();
        concat(&parts).expect("the pieces of a column have its type")
    };
    Evaluated { columns: (0..computed.len()).map(whole).collect(), refused }
}

/// Values as a column of type `ty` holds them.
fn fit(values: ArrayRef, ty: Type, nullable: bool) -> Result<ArrayRef, String> {
    let fitted: ArrayRef = match (values.data_type(), ty) {
        (DataType::Decimal128(_, scale), Type::Decimal) => Arc::new(fit_decimals(values.as_primitive::<Decimal128Type>(), *scale)?),
        (DataType::Decimal256(_, scale), Type::Decimal) => Arc::new(fit_decimals(values.as_primitive::<Decimal256Type>(), *scale)?),
        (from, ty) if *from == ty.arrow() => values,
        (_, ty) => {
            cast_with_options(&values, &ty.arrow(), &CastOptions { safe: false, ..Default::default() }).map_err(|e| fault::arrow(&e))?
        }
    };
    if !nullable && fitted.null_count() > 0 {
        return Err("is null, but the column holds a value in every row".into());
    }
    Ok(fitted)
}

/// Decimals as a decimal column holds them: rounded half to even at the twelfth fraction digit.
fn fit_decimals<T: DecimalType>(values: &PrimitiveArray<T>, scale: i8) -> Result<Decimal128Array, String>
where
    T::Native: Into<i256>,
{
    let power = i256::from_i128(10).wrapping_pow(u32::from(scale.abs_diff(decimal::SCALE)));
    let fit = |units: T::Native| {
        let exact = units.into();
        let fitted = if scale < decimal::SCALE {
            exact.checked_mul(power).and_then(|exact| Decimal::from_quotient_rounded(exact, i256::ONE))
        } else {
            Decimal::from_quotient_rounded(exact, power)
        };
        fitted.map(Decimal::units).ok_or_else(|| {
            let text = T::format_decimal(units, T::MAX_PRECISION, scale);
            format!("{text} does not fit into 26 integer digits")
        })
    };
    Ok(values.try_unary::<_, Decimal128Type, _>(fit)?.with_data_type(decimal::DATA_TYPE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    use model::kinds::{BookSnapshot, BookSnapshotBuilder, TRADE, Trade, TradeBuilder};

    fn d(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    /// Three trades: an ordinary one, one with every digit, one of size zero.
    fn trades() -> RecordBatch {
        let mut trades = TradeBuilder::default();
        let first = Trade {
            venue: "binance",
            market: "spot",
            symbol: "BTC-USDT",
            event_time: 1_723_161_255_342_001,
            receive_time: Some(1_723_161_255_340_000),
            frame: Some(1),
            trade_id: "3721",
            price: d("61837.63"),
            quantity: d("0.02"),
            contracts: None,
            side: "buy",
            fills: 1,
            backfilled: Some(false),
        };
        trades.push(first);
        trades.push(Trade {
            venue: "okx",
            trade_id: "a-1",
            price: d("61837.630000000001"),
            quantity: d("0.000000000001"),
            contracts: Some(d("5")),
            side: "sell",
            fills: 3,
            backfilled: Some(false),
            ..first
        });
        trades.push(Trade { receive_time: None, trade_id: "9", price: d("100"), quantity: Decimal::ZERO, side: "sell", fills: 2, ..first });
        trades.finish()
    }

    /// The type of an expression and its value in each row, as a column of a derived kind holds it; `!` and the
    /// reason where it fails.
    fn computed(text: &str, kind: &Kind, rows: &RecordBatch) -> Result<(Type, Vec<String>), Fault> {
        let expression = Expression::plan(text, kind)?;
        let ty = Type::holding(&expression.data_type).ok_or_else(|| fault::unholdable(&expression.data_type))?;
        let nullable = expression.nullable;
        let computed = [Computed { name: "x".into(), expression, ty, nullable }];
        let Evaluated { columns, refused } = evaluate(&computed, rows);
        assert_eq!(*columns[0].data_type(), ty.arrow(), "{text}");
        let options = FormatOptions::new().with_null("null");
        let formatter = ArrayFormatter::try_new(&columns[0], &options).unwrap();
        let value = |row| match columns[0].as_primitive_opt::<Decimal128Type>() {
            Some(decimals) if decimals.is_valid(row) => Decimal::from_units(decimals.value(row)).to_string(),
            _ => formatter.value(row).to_string(),
        };
        let mut values: Vec<String> = (0..columns[0].len()).map(value).collect();
        for (row, reason) in refused {
            values.insert(row, format!("!{reason}"));
        }
        Ok((ty, values))
    }

    #[test]
    fn expressions_give_what_was_computed_by_hand() {
        use Type::*;
        let mut wrong = Vec::new();
        for (text, ty, expected) in [
            // Decimals: exact, then rounded half to even at the twelfth digit.
            ("0.1 + 0.2", Decimal, ["0.3", "0.3", "0.3"]),
            ("price * quantity", Decimal, ["1236.7526", "0.000000061838", "0"]),
            ("price * quantity * price", Decimal, ["76477849.680338", "0.003823892484", "0"]),
            ("quantity * 0.5", Decimal, ["0.01", "0", "0"]),
            ("quantity * 1.5", Decimal, ["0.03", "0.000000000002", "0"]),
            ("quantity * -2.5", Decimal, ["-0.05", "-0.000000000002", "0"]),
            ("fills * 1.5", Decimal, ["1.5", "4.5", "3"]),
            ("price + 1e-12 - price", Decimal, ["0.000000000001", "0.000000000001", "0.000000000001"]),
            ("0.1234567890125 + 0", Decimal, ["0.123456789012", "0.123456789012", "0.123456789012"]),
            ("-price", Decimal, ["-61837.63", "-61837.630000000001", "-100"]),
            ("price % 1000", Decimal, ["837.63", "837.630000000001", "100"]),
            ("contracts * 2", Decimal, ["null", "10", "null"]),
            // A quotient is cut at the sixteenth digit.
            ("price / quantity", Decimal, ["3091881.5", "61837630000000001", "!`x`: division by zero"]),
            ("price / nullif(quantity, 0)", Decimal, ["3091881.5", "61837630000000001", "null"]),
            ("1 / price", Decimal, ["0.000016171383", "0.000016171383", "0.01"]),
            ("price / 3", Decimal, ["20612.543333333333", "20612.543333333334", "33.333333333333"]),
            ("(price - quantity) / price * 10000", Decimal, ["9999.996765723395", "9999.999999999999", "10000"]),
            ("price * quantity / price", Decimal, ["0.02", "0.000000000001", "0"]),
            // Functions keep decimals decimal.
            ("round(price * quantity, 2)", Decimal, ["1236.75", "0", "0"]),
            ("abs(-price)", Decimal, ["61837.63", "61837.630000000001", "100"]),
            ("greatest(price, 200.5)", Decimal, ["61837.63", "61837.630000000001", "200.5"]),
            ("coalesce(contracts, 0)", Decimal, ["0", "5", "0"]),
            ("coalesce(price * quantity, 0)", Decimal, ["1236.7526", "0.000000061838", "0"]),
            ("CASE WHEN side = 'buy' THEN price * quantity ELSE 0 END", Decimal, ["1236.7526", "0", "0"]),
            ("CASE WHEN side = 'buy' THEN 0 ELSE quantity END * 2", Decimal, ["0", "0.000000000002", "0"]),
            ("CASE side WHEN 'buy' THEN quantity ELSE -quantity END", Decimal, ["0.02", "-0.000000000001", "0"]),
            ("CAST(price AS DECIMAL(10, 1))", Decimal, ["61837.6", "61837.6", "100"]),
            ("CAST('0.1' AS DECIMAL(38, 12))", Decimal, ["0.1", "0.1", "0.1"]),
            // Conditions, with SQL's three values.
            ("0.1 + 0.2 = 0.3", Boolean, ["true", "true", "true"]),
            ("price * quantity > 1236.7525999", Boolean, ["true", "false", "false"]),
            ("price * quantity > 100000 AND side = 'buy'", Boolean, ["false", "false", "false"]),
            ("price * quantity BETWEEN 1 AND 2000", Boolean, ["true", "false", "false"]),
            ("price * quantity IN (0, 1236.7526)", Boolean, ["true", "false", "true"]),
            ("price > 61837.630000000000999", Boolean, ["false", "true", "false"]),
            ("price > 1e3", Boolean, ["true", "true", "false"]),
            ("price / 3 > 20612.5433333333333333", Boolean, ["false", "true", "false"]),
            ("contracts > 1 OR side = 'buy'", Boolean, ["true", "true", "null"]),
            ("contracts IS NULL", Boolean, ["true", "false", "true"]),
            ("quantity = 0 OR price / quantity > 4000000", Boolean, ["false", "true", "true"]),
            // Labels are text.
            ("side = 'buy'", Boolean, ["true", "false", "false"]),
            ("'okx' <> venue", Boolean, ["true", "false", "true"]),
            ("side IN ('buy', 'none')", Boolean, ["true", "false", "false"]),
            ("symbol LIKE 'BTC-%'", Boolean, ["true", "true", "true"]),
            ("venue = side", Boolean, ["false", "false", "false"]),
            ("trade_id > '4'", Boolean, ["false", "true", "true"]),
            ("side", Label, ["buy", "sell", "sell"]),
            ("upper(venue)", Label, ["BINANCE", "OKX", "BINANCE"]),
            ("venue || ':' || symbol", Text, ["binance:BTC-USDT", "okx:BTC-USDT", "binance:BTC-USDT"]),
            ("split_part(symbol, '-', 1)", Text, ["BTC", "BTC", "BTC"]),
            ("CAST(price AS VARCHAR)", Text, ["61837.630000000000", "61837.630000000001", "100.000000000000"]),
            // Whole numbers.
            ("fills / 2", Integer, ["0", "1", "1"]),
            ("fills + 9223372036854775806", Integer, ["9223372036854775807", "!", "!"]),
            ("CAST(trade_id AS BIGINT)", Integer, ["3721", "!", "9"]),
            ("TRY_CAST(trade_id AS BIGINT)", Integer, ["3721", "null", "9"]),
            ("length(trade_id)", Integer, ["4", "3", "1"]),
            // Times.
            ("CAST(receive_time - event_time AS BIGINT)", Integer, ["-2001", "-2001", "null"]),
            ("event_time > '2024-08-08T23:54:15.342Z'", Boolean, ["true", "true", "true"]),
            ("event_time >= TIMESTAMP '2024-08-09 00:00:00'", Boolean, ["false", "false", "false"]),
            ("date_trunc('minute', event_time)", Time, ["2024-08-08T23:54:00Z"; 3]),
            ("event_time + INTERVAL '2 seconds'", Time, ["2024-08-08T23:54:17.342001Z"; 3]),
            ("to_timestamp_millis(1723161255342)", Time, ["2024-08-08T23:54:15.342Z"; 3]),
            // Statistics.
            ("CAST(quantity AS DOUBLE) * 2", Float, ["0.04", "2e-12", "0.0"]),
            ("sqrt(fills + 1)", Float, ["1.4142135623730951", "2.0", "1.7320508075688772"]),
        ] {
            let (gives, values) = computed(text, &TRADE, &trades()).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
            let same = values.len() == 3 && values.iter().zip(expected).all(|(v, e)| v == e || (e == "!" && v.starts_with('!')));
            if (gives, same) != (ty, true) {
                wrong.push(format!("{text}: {gives} {values:?}, not {ty} {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn an_element_of_a_list_is_a_decimal() {
        let mut books = BookSnapshotBuilder::default();
        let (bids, asks) = ([d("1.1"), d("1")], [d("1.3")]);
        let book = BookSnapshot {
            venue: "binance",
            market: "spot",
            symbol: "BTC-USDT",
            event_time: None,
            receive_time: None,
            frame: None,
            sequence: Some(1),
            origin: "venue",
            bid_prices: &bids,
            bid_quantities: &bids,
            ask_prices: &asks,
            ask_quantities: &asks,
            contracts: false,
            depth: None,
            checksum: None,
            price_digits: None,
            quantity_digits: None,
        };
        books.push(book);
        books.push(BookSnapshot { ask_prices: &[], ..book });
        let kind = &model::kinds::BOOK_SNAPSHOT;
        let spread = computed("ask_prices[1] - bid_prices[1]", kind, &books.finish()).unwrap();
        assert_eq!(spread, (Type::Decimal, vec!["0.2".into(), "null".into()]));
    }

    #[test]
    fn a_result_that_fits_no_column_fails_alone() {
        let mut trades = TradeBuilder::default();
        let trade = Trade {
            venue: "okx",
            market: "spot",
            symbol: "A-B",
            event_time: 0,
            receive_time: None,
            frame: None,
            trade_id: "1",
            price: d("99999999999999999999999999"),
            quantity: d("10"),
            contracts: None,
            side: "buy",
            fills: 1,
            backfilled: Some(false),
        };
        trades.push(trade);
        trades.push(Trade { price: d("1"), ..trade });
        let rows = trades.finish();
        let (_, values) = computed("price * quantity", &TRADE, &rows).unwrap();
        assert_eq!(values[0], "!`x`: 999999999999999999999999990.000000000000000000000000 does not fit into 26 integer digits");
        assert_eq!(values[1], "10");
        // In a condition the exact value is compared, whether a column could hold it or not.
        assert_eq!(computed("price * quantity > 999999999999999999999999989", &TRADE, &rows).unwrap().1, ["true", "false"]);
        // A sum of two columns has no more digits than they.
        assert_eq!(computed("price + price", &TRADE, &rows).unwrap().1[1], "2");
        assert!(computed("price + price", &TRADE, &rows).unwrap().1[0].starts_with('!'));
    }

    #[test]
    fn what_is_wrong_is_told_in_the_words_of_the_manual() {
        const SYNTAX: &str = "write an expression over the columns, such as `price * quantity > 100000 AND side = 'buy'`";
        const COLUMNS: &str = "`trade` records have `venue`, `market`, `symbol`, `event_time`, `receive_time`, `frame`, `trade_id`, \
            `price`, `quantity`, `contracts`, `side`, `fills`, `backfilled`";
        const QUOTES: &str = "text is written in single quotes; ";
        const MANY: &str = "aggregate with an operator such as `bars`, or over the table with `marketprism sql`";
        const CONSTANT: &str = "correct the constant part of the expression";
        for (text, message, help) in [
            ("price >", "this is no SQL expression: expected an expression, found the end", SYNTAX),
            ("price > 1 quantity", "this is no SQL expression: expected end of expression, found: quantity (character 11)", SYNTAX),
            ("price > 1; DROP TABLE trades", "this is no SQL expression: expected end of expression, found: ; (character 10)", SYNTAX),
            ("price > 1 AND\n*", "this is no SQL expression: expected an expression, found: * (line 2, character 1)", SYNTAX),
            ("side = 'buy", "this is no SQL expression: unterminated string literal (character 8)", SYNTAX),
            ("prise > 1", "there is no column `prise`", &format!("did you mean `price`? {COLUMNS}")),
            ("trade.price > 1", "there is no column `trade.price`", &format!("did you mean `price`? {COLUMNS}")),
            ("side = \"buy\"", "there is no column `buy`", &format!("{QUOTES}{COLUMNS}")),
            ("price + side", "cannot coerce arithmetic expression decimal + label to valid types", "`price` is decimal, `side` is label"),
            ("event_time > 5", "cannot infer common argument type for comparison operation time > integer", "`event_time` is time"),
            (
                "foo(price)",
                "there is no function `foo`",
                "see the scalar functions of DataFusion, for example `round`, `coalesce` or `date_trunc`",
            ),
            ("sum(price)", "`sum` looks at many records, but an expression sees one", MANY),
            ("row_number() OVER () > 1", "`row_number` looks at many records, but an expression sees one", MANY),
            (
                "price > (SELECT max(price) FROM trades)",
                "a subquery reads a table, but an expression sees only the record at hand",
                "use the record's columns alone, and join afterwards with `marketprism sql`",
            ),
            (
                "now() > event_time",
                "`now` gives another value each time, so a replay would not give the same records",
                "use the record's own columns; its times are `event_time`, `receive_time`",
            ),
            (
                "random() > 0.5",
                "`random` gives another value each time, so a replay would not give the same records",
                "use the record's own columns; its times are `event_time`, `receive_time`",
            ),
            ("price > $1", "`$1` is a parameter, and nothing gives it a value", "write the value itself"),
            ("price AS p", "`AS p` names nothing here", "leave `AS p` out"),
            ("1 / 0 > price", "this fails in every record: division by zero", CONSTANT),
            ("9223372036854775807 + 1 > fills", "this fails in every record: overflow happened on: 9223372036854775807 + 1", CONSTANT),
            ("CAST('x' AS INT) > fills", "this fails in every record: cannot cast string 'x' to value of Int32 type", CONSTANT),
            (
                "price * price * price * price * price * price * price > 1",
                "a product of so many decimals has more than 76 fraction digits",
                "cut a part of it first: `CAST(price * price AS DECIMAL(38, 12))`",
            ),
            (
                "receive_time - event_time",
                "this gives a length of time, which no column can hold",
                "cast it to a whole number, which counts microseconds: `CAST(receive_time - event_time AS BIGINT)`",
            ),
            ("CAST(event_time AS DATE)", "this gives a date, which no column can hold", "cast it to a time: `CAST(... AS TIMESTAMP)`"),
            ("NULL", "this gives nothing but null, which no column can hold", "say of which type it is: `CAST(NULL AS DECIMAL(38, 12))`"),
        ] {
            let fault = computed(text, &TRADE, &trades()).expect_err(text);
            assert_eq!((fault.message.as_str(), fault.help.as_str()), (message, help), "{text}");
        }
    }
}
