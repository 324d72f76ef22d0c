//! A table as SQL sees it, put together from where its rows lie.
//!
//! The parts are joined as a logical plan, so that DataFusion itself carries filters, columns and limits through the
//! union, the boundary and the choice of versions down into each part:
//!
//! ```text
//! newest version per key, not taken back        of kinds that can be revised
//!   union
//!     cold, time < boundary                     no boundary where there is no hot table
//!     hot, time >= boundary
//! ```
//!
//! A filter on key columns passes below the choice of versions, any other is applied to what was chosen: a version
//! that is no longer true must not appear because the newest one was filtered out.

use std::sync::Arc;

use datafusion::catalog::{TableProvider, default_table_source::provider_as_source, view::ViewTable};
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result;
use datafusion::functions::expr_fn::coalesce;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, lit};
use deltalake_core::DeltaTable;
use model::tables::{IS_DELETED, VERSION};
use model::time::Micros;
use model::{Kind, Type};

use crate::QueryError;
use crate::cold::ColdTable;
use crate::hot::{Hot, HotTable};

/// The name of the column that numbers the versions of a record, the newest first.
const RANK: &str = "__version_rank";

/// A table and where its rows lie.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) name: String,
    /// `None` for a cold table that somebody else made.
    pub(crate) kind: Option<Arc<Kind>>,
    pub(crate) cold: Option<ColdPart>,
    pub(crate) hot: Option<Hot>,
}

/// A cold table at one version.
#[derive(Debug)]
pub(crate) struct ColdPart {
    pub(crate) delta: DeltaTable,
    pub(crate) boundary: Option<Micros>,
}

impl ColdPart {
    /// Its rows, if the log says them of each file.
    pub(crate) fn rows(&self) -> Option<u64> {
        let files = self.delta.snapshot().ok()?.log_data();
        files.iter().map(|file| file.num_records().map(|n| n as u64)).sum()
    }
}

impl Parts {
    /// The columns that SQL sees.
    pub(crate) fn columns(&self) -> Result<Vec<model::Column>, QueryError> {
        if let Some(kind) = &self.kind {
            return Ok(kind.columns.clone());
        }
        let Some(cold) = &self.cold else { return Ok(Vec::new()) };
        let schema = ColdTable::open(cold.delta.clone(), None)?.schema();
        let column = |field: &Arc<arrow::datatypes::Field>| model::Column {
            name: field.name().clone().into(),
            ty: Type::holding(field.data_type()).unwrap_or(Type::Text),
            nullable: field.is_nullable(),
            doc: "".into(),
        };
        Ok(schema.fields().iter().map(column).collect())
    }

    /// The table.
    pub(crate) fn into_table(self) -> Result<Arc<dyn TableProvider>> {
        let Some(kind) = self.kind else {
            let cold = self.cold.expect("a table without a kind was found in the cold store");
            return Ok(Arc::new(ColdTable::open(cold.delta, None)?));
        };
        let boundary = self.cold.as_ref().and_then(|cold| cold.boundary);
        let mut parts = Vec::new();
        if let Some(cold) = self.cold {
            let table = Arc::new(ColdTable::open(cold.delta, Some(kind.clone()))?);
            match (&self.hot, boundary) {
                (None, _) => parts.push(part(&self.name, &kind, table, None)?),
                (Some(_), Some(boundary)) => parts.push(part(&self.name, &kind, table, Some(before(&kind, boundary)))?),
                // Nothing in cold is known to be complete.
                (Some(_), None) => {}
            }
        }
        if let Some(hot) = self.hot {
            let table = Arc::new(HotTable::new(hot, self.name.clone(), kind.clone()));
            parts.push(part(&self.name, &kind, table, boundary.map(|boundary| time(&kind).gt_eq(micros(boundary))))?);
        }
        let mut parts = parts.into_iter();
        let first = parts.next().expect("a table lies somewhere");
        let rows = parts.try_fold(first, |all, part| LogicalPlanBuilder::from(all).union(part)?.build())?;
        let plan = if kind.revisable { newest(&kind, rows)? } else { rows };
        Ok(Arc::new(ViewTable::new(plan, None)))
    }
}

/// The rows of a kind in one tier.
fn part(name: &str, kind: &Kind, table: Arc<dyn TableProvider>, filter: Option<Expr>) -> Result<LogicalPlan> {
    let mut plan = LogicalPlanBuilder::scan(name, provider_as_source(table), None)?;
    if let Some(filter) = filter {
        plan = plan.filter(filter)?;
    }
    let versions = if kind.revisable { &[VERSION, IS_DELETED][..] } else { &[] };
    plan.project(kind.columns.iter().map(|c| c.name.as_ref()).chain(versions.iter().copied()).map(column))?.build()
}

/// Of each record the newest version, unless that takes it back.
fn newest(kind: &Kind, versions: LogicalPlan) -> Result<LogicalPlan> {
    let key = kind.key.iter().map(|name| column(name)).collect();
    // Of two versions made at once, the one that asserts.
    let order = vec![column(VERSION).sort(false, false), column(IS_DELETED).sort(true, false)];
    let rank = row_number().partition_by(key).order_by(order).build()?.alias(RANK);
    LogicalPlanBuilder::from(versions)
        .window(vec![rank])?
        .filter(column(RANK).eq(lit(1_u64)).and(Expr::Not(Box::new(column(IS_DELETED)))))?
        .project(kind.columns.iter().map(|c| column(&c.name)))?
        .build()
}

/// A column by its name as it is written, upper case included.
pub(crate) fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// When a row happened.
fn time(kind: &Kind) -> Expr {
    match kind.time.as_slice() {
        [only] => column(only),
        several => coalesce(several.iter().map(|name| column(name)).collect()),
    }
}

/// What is read from cold. A row of unknown time counts as old, so that it is in one of the parts.
fn before(kind: &Kind, boundary: Micros) -> Expr {
    let before = time(kind).lt(micros(boundary));
    let known = kind.time.iter().any(|name| kind.column(name).is_some_and(|c| !c.nullable));
    if known { before } else { before.or(time(kind).is_null()) }
}

fn micros(time: Micros) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(time), Some("UTC".into())))
}
