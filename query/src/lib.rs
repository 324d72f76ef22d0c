//! SQL over the tiers.
//!
//! Every kind of record is one table under its plural name, wherever its rows lie: the cold store alone, or the hot
//! and the cold one. What an [`Engine`] promises:
//!
//! - **Each row once.** A table in both tiers has one boundary, which the cold table's log carries. It is read once
//!   per query, together with the version of the table: rows before it come from cold, the rest from hot.
//! - **The latest version.** A record that was revised appears as it is now; one that was taken back does not appear.
//! - **Exact.** Decimals stay decimals through `*` and `/`; a number in the query's text is a decimal too.
//! - **Little is read.** Filters, columns and limits reach both tiers: files are skipped by day, venue and statistics,
//!   and ClickHouse is asked only for what the query needs.
//! - **Nothing is changed.** Statements that write are refused.

mod catalog;
mod cold;
pub mod decimals;
mod engine;
mod hot;
mod hot_sql;
pub mod output;
#[cfg(test)]
mod testing;
mod tiers;

pub use engine::{Answer, Engine, TableInfo, Tier};

/// A query that cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The cold store.
    #[error(transparent)]
    Cold(#[from] storage::StorageError),
    /// The hot store.
    #[error("{address}: {what}; {remedy}")]
    Hot {
        /// Its address.
        address: String,
        /// What happened.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// There is no such table.
    #[error("there is no table `{name}`{}; {}", near(name, tables), existing(tables))]
    UnknownTable {
        /// As the query names it.
        name: String,
        /// Those that exist.
        tables: Vec<String>,
    },
    /// The statement is wrong, or failed while it ran.
    #[error("{0}")]
    Sql(String),
    /// The answer cannot be written.
    #[error("{place}: {what}; check the path and the space on the disk")]
    Output {
        /// Where to.
        place: String,
        /// What happened.
        what: String,
    },
}

impl From<datafusion::error::DataFusionError> for QueryError {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        QueryError::Sql(error.strip_backtrace())
    }
}

/// `, did you mean ...?`, if a table is named almost so.
fn near(name: &str, tables: &[String]) -> String {
    let best = tables.iter().map(|table| (strsim::damerau_levenshtein(name, table), table)).min();
    match best {
        Some((distance, table)) if distance <= 2.max(name.len() / 4) => format!(", did you mean `{table}`?"),
        _ => String::new(),
    }
}

fn existing(tables: &[String]) -> String {
    if tables.is_empty() {
        return "no table exists yet: run a pipeline with a `parquet` or `clickhouse` sink first, and ask where its data folder is".into();
    }
    format!("these exist: {}", tables.iter().map(|t| format!("`{t}`")).collect::<Vec<_>>().join(", "))
}
