//! Exact decimals in the SQL of pipelines and of queries: the operands of `*` and `/` are widened before they are
//! multiplied or divided.
//!
//! A column is `Decimal128(38, 12)`. A product of two has 24 fraction digits and DataFusion would leave 14
//! digits for the rest; a quotient multiplies its numerator by 10¹⁶ first. Both overflow on ordinary prices.
//! As `Decimal256` of the same precision and scale they have room: a product is exact up to 76 digits, and
//! a quotient has four fraction digits more than its numerator, which is given at least twelve; digits
//! beyond are cut. What does not even fit then is an error, never a wrong number.
//!
//! The rule needs the true types of operands, so it runs together with DataFusion's type coercion, from the
//! leaves to the root; expressions that were coerced already pass through it unchanged.

use arrow::datatypes::{DataType, Decimal256Type, DecimalType};
use datafusion::common::tree_node::{Transformed, TreeNodeRewriter};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, cast};
use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use model::decimal;

/// Coerces an expression and widens its decimals. Used as `expr.rewrite(&mut Widen::new(schema))`.
pub struct Widen<'a> {
    schema: &'a DFSchema,
    coerce: TypeCoercionRewriter<'a>,
}

impl<'a> Widen<'a> {
    /// A rewriter of expressions over the columns of `schema`.
    pub fn new(schema: &'a DFSchema) -> Self {
        Widen { schema, coerce: TypeCoercionRewriter::new(schema) }
    }

    fn operands(&self, left: Expr, op: Operator, right: Expr) -> Result<(Expr, Expr)> {
        let (left_type, right_type) = (left.get_type(self.schema)?, right.get_type(self.schema)?);
        if !(is_exact(&left_type) && is_exact(&right_type) && (left_type.is_decimal() || right_type.is_decimal())) {
            return Ok((left, right));
        }
        let least = if op == Operator::Divide { decimal::SCALE } else { 0 };
        Ok((widened(left, &left_type, least), widened(right, &right_type, 0)))
    }
}

impl TreeNodeRewriter for Widen<'_> {
    type Node = Expr;

    fn f_up(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Multiply | Operator::Divide), right }) => {
                let (left, right) = self.operands(*left, op, *right)?;
                self.coerce.f_up(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
            }
            other => self.coerce.f_up(other),
        }
    }
}

/// Whether arithmetic with decimals stays among decimals.
fn is_exact(data_type: &DataType) -> bool {
    data_type.is_decimal() || data_type.is_integer()
}

/// `operand` as `Decimal256` with at least `least` fraction digits.
fn widened(operand: Expr, data_type: &DataType, least: i8) -> Expr {
    let (precision, scale) = match data_type {
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => (*p, *s),
        // Every 64-bit integer has at most 20 digits.
        _ => (20, 0),
    };
    let more = (least - scale).max(0);
    let wide = DataType::Decimal256((precision + more.unsigned_abs()).min(Decimal256Type::MAX_PRECISION), scale + more);
    if *data_type == wide { operand } else { cast(operand, wide) }
}
