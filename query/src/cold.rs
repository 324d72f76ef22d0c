//! The cold part of a table: Delta's own provider, with the day of a row's time known to it.
//!
//! Files are partitioned by day, but a query speaks of times. From a filter on the time follows one on the day, by
//! which whole partitions are skipped before any statistics are looked at.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, Cast, TryCast};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType, lit};
use datafusion::physical_plan::ExecutionPlan;
use deltalake_core::DeltaTable;
use deltalake_core::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use model::tables::DATE;
use model::{Kind, time::Micros};

use crate::tiers::column;

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// A cold table at one version.
#[derive(Debug)]
pub(crate) struct ColdTable {
    delta: DeltaTable,
    scan: DeltaScanNext,
    kind: Option<Arc<Kind>>,
}

impl ColdTable {
    /// The table as it is loaded. Without a kind, it is read as Delta describes it.
    pub(crate) fn open(delta: DeltaTable, kind: Option<Arc<Kind>>) -> Result<Self> {
        let mut config = DeltaScanConfig::new().with_wrap_partition_values(false).with_parquet_pushdown(true);
        config.schema_force_view_types = false;
        config.schema = kind.as_ref().map(|kind| storage::table::schema(kind));
        let scan = DeltaScanNext::new(delta.snapshot()?.snapshot().clone(), config)?;
        Ok(ColdTable { delta, scan, kind })
    }

    fn day(&self, filter: &Expr) -> Option<Expr> {
        days(self.kind.as_ref()?, filter)
    }
}

#[async_trait]
impl TableProvider for ColdTable {
    fn schema(&self) -> SchemaRef {
        self.scan.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let mut supported = self.scan.supports_filters_pushdown(filters)?;
        for (support, filter) in supported.iter_mut().zip(filters) {
            if *support == TableProviderFilterPushDown::Unsupported && self.day(filter).is_some() {
                *support = TableProviderFilterPushDown::Inexact;
            }
        }
        Ok(supported)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.delta.update_datafusion_session(state)?;
        let supported = self.scan.supports_filters_pushdown(&filters.iter().collect::<Vec<_>>())?;
        let known = filters
            .iter()
            .zip(supported)
            .filter(|(_, support)| *support != TableProviderFilterPushDown::Unsupported)
            .map(|(filter, _)| filter.clone());
        let filters: Vec<Expr> = known.chain(filters.iter().filter_map(|filter| self.day(filter))).collect();
        self.scan.scan(state, projection, &filters, limit).await
    }
}

/// What a filter says about the day, if anything: it holds wherever the filter does.
fn days(kind: &Kind, filter: &Expr) -> Option<Expr> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => match (days(kind, left), days(kind, right)) {
            (Some(left), Some(right)) => Some(left.and(right)),
            (left, right) => left.or(right),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => Some(days(kind, left)?.or(days(kind, right)?)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, day) = match (is_time(kind, left), is_time(kind, right)) {
                (true, false) => (*op, day(right)?),
                (false, true) => (op.swap()?, day(left)?),
                _ => return None,
            };
            match op {
                Operator::Eq => Some(column(DATE).eq(day)),
                Operator::Lt | Operator::LtEq => Some(column(DATE).lt_eq(day)),
                Operator::Gt | Operator::GtEq => Some(column(DATE).gt_eq(day)),
                _ => None,
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) if is_time(kind, expr) => {
            Some(column(DATE).gt_eq(day(low)?).and(column(DATE).lt_eq(day(high)?)))
        }
        _ => None,
    }
}

/// Whether an expression is the time by which rows are partitioned. The first of several time columns is it
/// wherever it is not null, and where it is null a comparison with it does not hold.
fn is_time(kind: &Kind, expr: &Expr) -> bool {
    match expr {
        Expr::Column(column) => kind.time.first().is_some_and(|name| *name == column.name),
        // To another unit: coarser ones cut, which stays within the day.
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field })
            if matches!(field.data_type(), arrow::datatypes::DataType::Timestamp(..)) =>
        {
            is_time(kind, expr)
        }
        Expr::ScalarFunction(function) if function.name() == "coalesce" => {
            let names: Option<Vec<&str>> = function.args.iter().map(|arg| Some(arg.try_as_col()?.name.as_str())).collect();
            names.is_some_and(|names| names == kind.time)
        }
        _ => false,
    }
}

/// The day of a constant time.
fn day(expr: &Expr) -> Option<Expr> {
    let Expr::Literal(value, _) = expr else { return None };
    let micros: Micros = match value {
        ScalarValue::TimestampSecond(Some(t), _) => t.checked_mul(1_000_000)?,
        ScalarValue::TimestampMillisecond(Some(t), _) => t.checked_mul(1_000)?,
        ScalarValue::TimestampMicrosecond(Some(t), _) => *t,
        ScalarValue::TimestampNanosecond(Some(t), _) => t.div_euclid(1_000),
        _ => return None,
    };
    Some(lit(ScalarValue::Date32(Some(i32::try_from(micros.div_euclid(DAY)).ok()?))))
}

#[cfg(test)]
mod tests {
    use datafusion::functions::expr_fn::coalesce;
    use model::kinds::{QUOTE, TRADE};

    use super::*;

    fn at(micros: Micros) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())))
    }

    fn said(kind: &Kind, filter: Expr) -> String {
        days(kind, &filter).map_or_else(|| "nothing".into(), |days| days.to_string())
    }

    #[test]
    fn a_filter_on_the_time_says_the_day() {
        let time = || column("event_time");
        let day = DAY * 19_943;
        assert_eq!(said(&TRADE, time().gt(at(day + 5))), "date >= Date32(\"2024-08-08\")");
        assert_eq!(said(&TRADE, at(day).gt(time())), "date <= Date32(\"2024-08-08\")");
        assert_eq!(said(&TRADE, time().lt(at(day)).and(column("price").gt(lit(1)))), "date <= Date32(\"2024-08-08\")");
        assert_eq!(said(&TRADE, time().lt(at(day)).or(column("price").gt(lit(1)))), "nothing");
        assert_eq!(said(&TRADE, time().not_eq(at(day))), "nothing");
        assert_eq!(said(&TRADE, time().eq(at(-1))), "date = Date32(\"1969-12-31\")");
        assert_eq!(said(&TRADE, column("receive_time").lt(at(day))), "nothing");
        assert_eq!(
            said(&TRADE, time().between(at(day), at(day + DAY))),
            "date >= Date32(\"2024-08-08\") AND date <= Date32(\"2024-08-09\")"
        );
    }

    #[test]
    fn of_several_times_the_first_counts() {
        let day = DAY * 19_943;
        assert_eq!(said(&QUOTE, column("event_time").gt(at(day))), "date >= Date32(\"2024-08-08\")");
        assert_eq!(said(&QUOTE, column("receive_time").gt(at(day))), "nothing");
        let whole = coalesce(vec![column("event_time"), column("receive_time")]);
        assert_eq!(said(&QUOTE, whole.lt(at(day))), "date <= Date32(\"2024-08-08\")");
    }
}
