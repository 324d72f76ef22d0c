//! Decimals that do not overflow.
//!
//! A price times a size has 24 fraction digits, and a division by a size adds 16 more: in the 38 digits of a column
//! `sum(price * quantity) / sum(quantity)` overflows at once. [`WidenDecimals`] therefore computes every product and
//! quotient of decimals in 76 digits. Columns stay as they are, and nothing is rounded on the way.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion::optimizer::AnalyzerRule;

/// Digits of the wide decimal.
const DIGITS: u8 = 76;

/// The rule: operands of `*`, `/` and `%` that are decimals are widened to 76 digits. It must come before type
/// coercion, which would settle for 38.
#[derive(Debug, Default)]
pub struct WidenDecimals;

impl AnalyzerRule for WidenDecimals {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(widen_plan)?.data)
    }

    fn name(&self) -> &str {
        "widen_decimals"
    }
}

fn widen_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(widen(expr, &schema)?.update_data(|expr| name.restore(expr)))
    })?
    // Also where no expression changed: the types of what lies below may have.
    .map_data(LogicalPlan::recompute_schema)
}

/// An expression over columns of a schema with its products and quotients widened.
///
/// # Errors
/// Only those of the walk itself.
pub fn widen(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Multiply | Operator::Divide | Operator::Modulo), right }) => {
            // A type that is not known here is settled, or refused, by the analysis that follows.
            let (Ok(l), Ok(r)) = (left.get_type(schema), right.get_type(schema)) else {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            };
            if !(is_exact(&l) && is_exact(&r) && (is_narrow(&l) || is_narrow(&r))) {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            }
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(wide(*left, &l)), op, Box::new(wide(*right, &r))))))
        }
        other => Ok(Transformed::no(other)),
    })
}

/// Whether numbers of a type are exact: with a float, the result is one anyway.
fn is_exact(data_type: &DataType) -> bool {
    data_type.is_integer() || is_narrow(data_type) || matches!(data_type, DataType::Decimal256(..))
}

fn is_narrow(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..))
}

fn wide(expr: Expr, data_type: &DataType) -> Expr {
    match data_type {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => cast(expr, DataType::Decimal256(DIGITS, *scale)),
        integer if integer.is_integer() => cast(expr, DataType::Decimal256(DIGITS, 0)),
        _ => expr,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Decimal128Array, RecordBatch};
    use arrow::datatypes::Decimal256Type;
    use arrow::util::display::array_value_to_string;
    use datafusion::prelude::SessionContext;

    use crate::engine::session;

    /// Trades of one instrument: price, size.
    async fn context(rows: &[(&str, &str)]) -> SessionContext {
        let column = |pick: fn(&(&str, &str)) -> String| -> ArrayRef {
            let values = rows.iter().map(|row| pick(row).parse::<model::Decimal>().expect("a decimal").units());
            Arc::new(Decimal128Array::from_iter_values(values).with_data_type(model::decimal::DATA_TYPE))
        };
        let batch = RecordBatch::try_from_iter([("price", column(|r| r.0.into())), ("quantity", column(|r| r.1.into()))]).expect("two columns");
        let context = SessionContext::new_with_state(session(Arc::default()).build());
        context.register_batch("trades", batch).expect("registers");
        context
    }

    async fn answer(context: &SessionContext, sql: &str) -> String {
        let batches = context.sql(sql).await.expect(sql).collect().await.expect(sql);
        let text = array_value_to_string(batches[0].column(0), 0).expect("displays");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }

    #[tokio::test]
    async fn a_volume_weighted_mean_is_exact() {
        let context = context(&[("64123.45", "1.5"), ("64125.55", "0.25"), ("99999999.999999999999", "1000000.000000000001")]).await;
        // By exact arithmetic elsewhere.
        assert_eq!(answer(&context, "SELECT sum(price * quantity) FROM trades").await, "100000000112216.562598999999999999999999");
        assert_eq!(answer(&context, "SELECT sum(price * quantity) / sum(quantity) FROM trades WHERE price < 70000").await, "64123.75");
    }

    #[tokio::test]
    async fn the_design_s_example_does_not_overflow() {
        let rows: Vec<(&str, &str)> = vec![("64123.456789012345", "123456.789012345678"); 1_000];
        let context = context(&rows).await;
        assert_eq!(answer(&context, "SELECT sum(price * quantity) / sum(quantity) FROM trades").await, "64123.456789012345");
        assert_eq!(answer(&context, "SELECT max(price * quantity * 2) FROM trades").await, "15832952151.08672428964853069878982");
    }

    #[tokio::test]
    async fn a_number_in_the_text_is_a_decimal() {
        let context = context(&[("0.1", "3"), ("0.3", "1")]).await;
        assert_eq!(answer(&context, "SELECT count(*) FROM trades WHERE price * 3 = 0.3").await, "1");
        assert_eq!(answer(&context, "SELECT sum(price + 0.2) FROM trades").await, "0.8");
        assert_eq!(answer(&context, "SELECT sum(price) / 3 FROM trades").await, "0.1333333333333333");
        assert_eq!(answer(&context, "SELECT max(price % 0.2) FROM trades").await, "0.1");
    }

    #[tokio::test]
    async fn it_reaches_every_part_of_a_query() {
        let context = context(&[("64123.456789012345", "123456.789012345678"), ("3", "2")]).await;
        for sql in [
            "SELECT a FROM (SELECT price * quantity / quantity AS a FROM trades) ORDER BY a LIMIT 1",
            "SELECT min(price * quantity) / min(quantity) FROM trades GROUP BY price * quantity / quantity HAVING min(price * quantity / quantity) < 10",
            "SELECT price FROM trades WHERE price * quantity / quantity IN (SELECT price * quantity / quantity FROM trades WHERE quantity = 2)",
            "SELECT min(price * quantity / quantity) OVER (ORDER BY price * quantity / quantity) FROM trades LIMIT 1",
            "SELECT 6 / 2.0 UNION SELECT price * quantity / quantity FROM trades WHERE quantity = 2",
            "SELECT CASE WHEN price * quantity / quantity > 0 THEN price * 2 / 2 END FROM trades WHERE quantity = 2",
        ] {
            assert_eq!(answer(&context, sql).await, "3", "{sql}");
        }
    }

    #[tokio::test]
    async fn floats_stay_floats() {
        let context = context(&[("2", "3")]).await;
        assert_eq!(answer(&context, "SELECT sqrt(price * 2) * CAST(quantity AS DOUBLE) FROM trades").await, "6");
    }

    #[tokio::test]
    async fn results_are_wide() {
        let context = context(&[("2", "3")]).await;
        let batches = context.sql("SELECT price * quantity FROM trades").await.expect("plans").collect().await.expect("runs");
        assert_eq!(batches[0].column(0).as_primitive::<Decimal256Type>().scale(), 24);
    }
}
