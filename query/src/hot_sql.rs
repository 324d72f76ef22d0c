//! Filters as ClickHouse writes them.
//!
//! A filter is sent only where ClickHouse means by it exactly what DataFusion does; any other is applied here to the
//! rows that come. Left out on purpose: floats (`NaN` sorts elsewhere), casts, functions, patterns with escapes, times
//! that `DateTime64` cannot hold.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{Between, InList, Like};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use model::tables::{IS_DELETED, VERSION};
use model::{Decimal, Kind, Type, decimal};

/// The first and the last second that `DateTime64` can hold: the years 1900 to 2299.
const SECONDS: std::ops::RangeInclusive<i64> = -2_208_988_800..=10_413_791_999;

/// A filter as ClickHouse SQL; `None` if it must be applied here.
pub(crate) fn filter(kind: &Kind, expr: &Expr) -> Option<String> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            Some(format!("({} {op} {})", filter(kind, left)?, filter(kind, right)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let op = match op {
                Operator::Eq => "=",
                Operator::NotEq => "!=",
                Operator::Lt => "<",
                Operator::LtEq => "<=",
                Operator::Gt => ">",
                Operator::GtEq => ">=",
                _ => return None,
            };
            Some(format!("({} {op} {})", value(kind, left)?, value(kind, right)?))
        }
        Expr::Not(inner) => Some(format!("(NOT {})", filter(kind, inner)?)),
        Expr::IsNull(inner) => Some(format!("({} IS NULL)", value(kind, inner)?)),
        Expr::IsNotNull(inner) => Some(format!("({} IS NOT NULL)", value(kind, inner)?)),
        Expr::Between(Between { expr, negated, low, high }) => {
            let not = if *negated { "NOT " } else { "" };
            Some(format!("({} {not}BETWEEN {} AND {})", value(kind, expr)?, value(kind, low)?, value(kind, high)?))
        }
        Expr::InList(InList { expr, list, negated }) if !list.is_empty() => {
            let list: Option<Vec<String>> = list.iter().map(|item| value(kind, item)).collect();
            let not = if *negated { "NOT " } else { "" };
            Some(format!("({} {not}IN ({}))", value(kind, expr)?, list?.join(", ")))
        }
        Expr::Like(Like { negated, expr, pattern, escape_char: None, case_insensitive: false }) => {
            let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = pattern.as_ref() else { return None };
            let not = if *negated { "NOT " } else { "" };
            (!text.contains('\\')).then(|| Some(format!("({} {not}LIKE {})", value(kind, expr)?, quoted(text))))?
        }
        // A column that is true or false.
        Expr::Column(column) if column.name == IS_DELETED || kind.column(&column.name)?.ty == Type::Boolean => {
            Some(identifier(&column.name))
        }
        _ => None,
    }
}

/// A column or a constant.
fn value(kind: &Kind, expr: &Expr) -> Option<String> {
    match expr {
        Expr::Column(column) if column.name == VERSION => Some(identifier(VERSION)),
        Expr::Column(column) => match kind.column(&column.name)?.ty {
            Type::Label | Type::Text | Type::Decimal | Type::Integer | Type::Time | Type::Boolean => Some(identifier(&column.name)),
            Type::Float | Type::Decimals | Type::Bytes => None,
        },
        Expr::ScalarFunction(function) if function.name() == "coalesce" => {
            let args: Option<Vec<String>> = function.args.iter().map(|arg| value(kind, arg)).collect();
            Some(format!("coalesce({})", args?.join(", ")))
        }
        Expr::Literal(literal, _) => constant(literal),
        _ => None,
    }
}

fn constant(value: &ScalarValue) -> Option<String> {
    Some(match value {
        ScalarValue::Utf8(Some(text)) => quoted(text),
        ScalarValue::Boolean(Some(value)) => value.to_string(),
        ScalarValue::Int64(Some(value)) => format!("toInt64({value})"),
        ScalarValue::TimestampMicrosecond(Some(micros), _) if SECONDS.contains(&micros.div_euclid(1_000_000)) => {
            format!("fromUnixTimestamp64Micro(toInt64({micros}), 'UTC')")
        }
        // As long as it has a column's digits, so that ClickHouse need not widen, which can overflow.
        ScalarValue::Decimal128(Some(units), _, scale) => {
            let more = u32::try_from(i32::from(decimal::SCALE) - i32::from(*scale)).ok()?;
            let units = units.checked_mul(10_i128.checked_pow(more)?).filter(|units| units.unsigned_abs() < 10_u128.pow(38))?;
            format!("toDecimal128('{}', {})", Decimal::from_units(units), decimal::SCALE)
        }
        _ => return None,
    })
}

/// A name in backquotes.
pub(crate) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A text in quotes.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use datafusion::functions::expr_fn::coalesce;
    use datafusion::logical_expr::{cast, lit};
    use model::kinds::{ANOMALY, QUOTE, TRADE};

    use super::*;
    use crate::tiers::column;

    fn sent(kind: &Kind, expr: Expr) -> String {
        filter(kind, &expr).unwrap_or_else(|| "nothing".into())
    }

    #[test]
    fn what_both_mean_alike_is_sent() {
        let price = |units: i128, scale: i8| lit(ScalarValue::Decimal128(Some(units), 38, scale));
        let time = |micros: i64| lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())));
        assert_eq!(sent(&TRADE, column("symbol").eq(lit("it's a \\"))), r"(`symbol` = 'it\'s a \\')");
        assert_eq!(sent(&TRADE, column("price").gt(price(15, 1))), "(`price` > toDecimal128('1.5', 12))");
        assert_eq!(
            sent(&TRADE, column("event_time").gt_eq(time(-1)).and(column("fills").lt(lit(-5_i64)))),
            "((`event_time` >= fromUnixTimestamp64Micro(toInt64(-1), 'UTC')) AND (`fills` < toInt64(-5)))"
        );
        assert_eq!(sent(&TRADE, column("venue").in_list(vec![lit("a"), lit("b")], true)), "(`venue` NOT IN ('a', 'b'))");
        assert_eq!(sent(&TRADE, column("symbol").like(lit("BTC%"))), "(`symbol` LIKE 'BTC%')");
        assert_eq!(
            sent(&QUOTE, coalesce(vec![column("event_time"), column("receive_time")]).is_null()),
            "(coalesce(`event_time`, `receive_time`) IS NULL)"
        );
    }

    #[test]
    fn what_is_not_alike_is_kept() {
        assert_eq!(sent(&ANOMALY, column("score").gt(lit(1.0))), "nothing");
        assert_eq!(sent(&TRADE, cast(column("price"), arrow::datatypes::DataType::Float64).gt(lit(1.0))), "nothing");
        assert_eq!(sent(&TRADE, column("symbol").like(lit("a\\%"))), "nothing");
        assert_eq!(sent(&TRADE, column("price").gt(lit(ScalarValue::Decimal128(Some(1), 38, 13)))), "nothing");
        assert_eq!(sent(&TRADE, column("price").gt(lit(ScalarValue::Decimal128(Some(10_i128.pow(37)), 38, 0)))), "nothing");
        assert_eq!(sent(&TRADE, column("event_time").lt(lit(ScalarValue::TimestampMicrosecond(Some(i64::MAX), None)))), "nothing");
        assert_eq!(sent(&TRADE, column("nowhere").eq(lit(1_i64))), "nothing");
        assert_eq!(sent(&TRADE, column("fills").eq(lit(1_i64)).or(column("price").eq(column("nowhere")))), "nothing");
    }
}
