//! The tables that one query sees.
//!
//! Made anew for every query. A table is read when the query names it, once, however often it is named: so a query
//! that joins a table with itself sees one version and one boundary of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use futures::{StreamExt, TryStreamExt, stream};
use model::tables::in_clickhouse;
use model::{Kind, kinds};
use storage::{ColdStore, table};
use tokio::sync::Mutex;

use crate::QueryError;
use crate::engine::{TableInfo, Tier};
use crate::hot::Hot;
use crate::tiers::{ColdPart, Parts};

/// The one catalog.
pub(crate) const CATALOG: &str = "marketprism";
/// Its one schema, beside `information_schema`.
pub(crate) const SCHEMA: &str = "public";
/// How many tables are described at the same time.
const PARALLEL: usize = 8;

/// The tables by name and where their rows lie.
#[derive(Debug)]
pub(crate) struct Tables {
    cold: ColdStore,
    hot: Option<Hot>,
    found: BTreeMap<String, Found>,
    opened: Mutex<HashMap<String, Arc<dyn TableProvider>>>,
}

/// Where the rows of a table lie.
#[derive(Debug, Default)]
struct Found {
    cold: bool,
    /// Rows in the hot table, as far as ClickHouse knows.
    hot: Option<Option<u64>>,
}

impl Tables {
    /// Finds the tables of both tiers.
    pub(crate) async fn find(cold: &ColdStore, hot: Option<&Hot>) -> Result<Self, QueryError> {
        let hot_tables = async {
            match hot {
                Some(hot) => hot.tables().await,
                None => Ok(Vec::new()),
            }
        };
        let (cold_tables, hot_tables) = futures::join!(cold.tables(), hot_tables);
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        for name in cold_tables? {
            found.entry(name).or_default().cold = true;
        }
        for (name, rows) in hot_tables? {
            // What else is in the database is not ours, and has no columns that we know.
            if built_in(&name).map_or(found.contains_key(&name), |kind| in_clickhouse(kind)) {
                found.entry(name).or_default().hot = Some(rows);
            }
        }
        Ok(Tables { cold: cold.clone(), hot: hot.cloned(), found, opened: Mutex::default() })
    }

    /// The names of all tables.
    pub(crate) fn names(&self) -> Vec<String> {
        self.found.keys().cloned().collect()
    }

    /// The parts of a table, read once: its version, its boundary.
    async fn parts(&self, name: &str, found: &Found) -> Result<Option<Parts>, QueryError> {
        let delta = if found.cold { self.cold.load(name).await? } else { None };
        let hot = found.hot.and(self.hot.clone());
        let cold = match delta {
            Some(delta) => {
                let boundary = table::boundary(&delta).await.map_err(|e| self.cold.error(name, &e))?;
                Some(ColdPart { delta, boundary })
            }
            None => None,
        };
        let described = cold.as_ref().and_then(|part| table::kind(&part.delta));
        let kind = described.or_else(|| if cold.is_none() { built_in(name).cloned() } else { None });
        Ok((cold.is_some() || kind.is_some()).then_some(Parts { name: name.to_owned(), kind, cold, hot }))
    }

    /// What is known about each table.
    pub(crate) async fn describe(&self) -> Result<Vec<TableInfo>, QueryError> {
        stream::iter(&self.found)
            .map(|(name, found)| async move {
                let Some(parts) = self.parts(name, found).await? else { return Ok(None) };
                let mut tiers = Vec::new();
                tiers.extend(parts.cold.is_some().then_some(Tier::Cold));
                tiers.extend(parts.hot.is_some().then_some(Tier::Hot));
                Ok(Some(TableInfo {
                    name: name.clone(),
                    doc: parts.kind.as_ref().map_or_else(String::new, |kind| kind.doc.clone().into_owned()),
                    tiers,
                    cold_rows: parts.cold.as_ref().and_then(ColdPart::rows),
                    hot_rows: found.hot.flatten(),
                    columns: parts.columns()?,
                    boundary: parts.cold.as_ref().and_then(|cold| cold.boundary).filter(|_| parts.hot.is_some()),
                }))
            })
            .buffered(PARALLEL)
            .try_filter_map(|info| async move { Ok(info) })
            .try_collect()
            .await
    }
}

/// The built-in kind that is stored in a table.
fn built_in(table: &str) -> Option<&'static Arc<Kind>> {
    kinds::all().into_iter().find(|kind| kind.table.as_deref() == Some(table))
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        self.names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(found) = self.found.get(name) else { return Ok(None) };
        // Held while a table is opened, so that none is opened twice.
        let mut opened = self.opened.lock().await;
        if let Some(table) = opened.get(name) {
            return Ok(Some(table.clone()));
        }
        let parts = self.parts(name, found).await.map_err(|e| DataFusionError::External(Box::new(e)))?;
        let Some(parts) = parts else { return Ok(None) };
        let table = parts.into_table()?;
        opened.insert(name.to_owned(), table.clone());
        Ok(Some(table))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.found.contains_key(name)
    }
}

/// The catalog of one query.
#[derive(Debug)]
pub(crate) struct Catalog(pub(crate) Arc<Tables>);

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        vec![SCHEMA.into()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        (name == SCHEMA).then(|| self.0.clone() as Arc<dyn SchemaProvider>)
    }
}
