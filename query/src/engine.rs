//! The engine: a statement in, rows out.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use config::settings::Settings;
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::optimizer::Analyzer;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::prelude::SessionConfig;
use futures::{StreamExt, TryStreamExt};
use model::time::Micros;
use storage::ColdStore;

use crate::QueryError;
use crate::catalog::{CATALOG, Catalog, SCHEMA, Tables};
use crate::decimals::WidenDecimals;
use crate::hot::Hot;

/// SQL over the cold store and, where there is one, the hot store.
#[derive(Debug)]
pub struct Engine {
    cold: ColdStore,
    hot: Option<Hot>,
    runtime: Arc<RuntimeEnv>,
}

/// A place where rows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Delta tables in a folder or bucket.
    Cold,
    /// ClickHouse.
    Hot,
}

/// What is known about a table without reading its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Its name in SQL.
    pub name: String,
    /// What its records are.
    pub doc: String,
    /// Where its rows lie.
    pub tiers: Vec<Tier>,
    /// Rows in the cold table, every version of a revised record counted.
    pub cold_rows: Option<u64>,
    /// Rows in the hot table, every version of a revised record counted.
    pub hot_rows: Option<u64>,
    /// The columns that SQL sees.
    pub columns: Vec<model::Column>,
    /// Rows before this event time (microseconds) are read from cold, the rest from hot.
    pub boundary: Option<Micros>,
}

/// The rows of an answer, as they come.
pub struct Answer {
    stream: SendableRecordBatchStream,
}

impl Answer {
    /// Rows that are there already, to be written as an answer is.
    ///
    /// # Panics
    /// Never: a batch has its own schema.
    pub fn of(rows: RecordBatch) -> Answer {
        let schema = rows.schema();
        Answer { stream: Box::pin(MemoryStream::try_new(vec![rows], schema, None).expect("no column is left out")) }
    }
}

impl Engine {
    /// An engine over the stores of the settings. Nothing is read yet.
    ///
    /// # Errors
    /// An address that is no store.
    pub fn open(settings: &Settings) -> Result<Self, QueryError> {
        Ok(Engine { cold: ColdStore::from_settings(settings)?, hot: settings.hot.as_ref().map(Hot::new), runtime: Arc::default() })
    }

    /// Answers a query. The tables are read as they are now, each at one version and with one boundary.
    ///
    /// # Errors
    /// A table that does not exist, a statement that is wrong or would write, a store that cannot be reached.
    pub async fn sql(&self, sql: &str) -> Result<Answer, QueryError> {
        let tables = Arc::new(Tables::find(&self.cold, self.hot.as_ref()).await?);
        let state = session(self.runtime.clone()).build();
        state.catalog_list().register_catalog(CATALOG.into(), Arc::new(Catalog(tables.clone())));
        let statement = state.sql_to_statement(sql, &state.config().options().sql_parser.dialect)?;
        for table in state.resolve_table_references(&statement)? {
            let ours = table.schema().is_none_or(|schema| schema == SCHEMA) && !state.table_functions().contains_key(table.table());
            if ours && !tables.names().iter().any(|name| name == table.table()) {
                return Err(QueryError::UnknownTable { name: table.table().to_owned(), tables: tables.names() });
            }
        }
        let plan = state.statement_to_plan(statement).await?;
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan)?;
        Ok(Answer { stream: DataFrame::new(state, plan).execute_stream().await? })
    }

    /// The tables that exist, by name.
    ///
    /// # Errors
    /// A store that cannot be reached or read.
    pub async fn tables(&self) -> Result<Vec<TableInfo>, QueryError> {
        Tables::find(&self.cold, self.hot.as_ref()).await?.describe().await
    }
}

impl Answer {
    /// The columns of the answer.
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// The next rows; `None` after the last.
    ///
    /// # Errors
    /// What goes wrong while the query runs: an overflow, a store that fails.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, QueryError> {
        Ok(self.stream.next().await.transpose()?)
    }

    /// All rows at once.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn collect(self) -> Result<Vec<RecordBatch>, QueryError> {
        Ok(self.stream.try_collect().await?)
    }
}

/// How statements are read and planned.
pub(crate) fn session(runtime: Arc<RuntimeEnv>) -> SessionStateBuilder {
    let mut config = SessionConfig::new().with_information_schema(true).with_default_catalog_and_schema(CATALOG, SCHEMA);
    let options = config.options_mut();
    // A price in the text of a query is as exact as one in a table.
    options.sql_parser.parse_float_as_decimal = true;
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    let mut rules = Analyzer::new().rules;
    rules.insert(0, Arc::new(WidenDecimals));
    SessionStateBuilder::new_with_default_features().with_config(config).with_runtime_env(runtime).with_analyzer_rules(rules)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use arrow::util::pretty::pretty_format_batches;
    use model::kinds::{ANOMALY, BAR, BOOK_DELTA, DEAD_LETTER, QUOTE, TRADE};
    use model::tables::stored_schema;

    use super::*;
    use crate::testing::{Cold, DAY, NOON, bars, trades};

    #[tokio::test]
    async fn the_quickstart_s_question_is_answered() {
        let mut cold = Cold::with(&[&TRADE]).await;
        cold.commit(
            NOON,
            vec![trades(&[("binance", "BTC-USDT", 1, NOON), ("binance", "BTC-USDT", 2, NOON + DAY), ("okx", "ETH-USDT", 3, NOON)])],
        )
        .await;
        let sql = "SELECT venue, symbol, count(*), max(event_time) FROM trades GROUP BY ALL ORDER BY 1";
        assert_eq!(cold.rows(sql).await, ["binance BTC-USDT 2 2024-08-09T12:00:00Z", "okx ETH-USDT 1 2024-08-08T12:00:00Z"]);
    }

    #[tokio::test]
    async fn columns_are_those_of_the_kind_in_their_types() {
        let kinds = [&TRADE, &QUOTE, &BOOK_DELTA, &BAR, &ANOMALY, &DEAD_LETTER];
        let cold = Cold::with(&kinds.map(|k| &**k)).await;
        let engine = cold.engine();
        for kind in kinds {
            let name = kind.table.as_deref().expect("has a table");
            let answer = engine.sql(&format!("SELECT * FROM {name}")).await.expect("plans");
            let (schema, stored) = (answer.schema(), stored_schema(kind));
            assert_eq!(schema.fields().len(), kind.columns.len(), "{name}");
            for (field, column) in schema.fields().iter().zip(stored.fields()) {
                assert_eq!((field.name(), field.is_nullable()), (column.name(), column.is_nullable()), "{name}");
                match (field.data_type(), column.data_type()) {
                    (DataType::List(got), DataType::List(wanted)) => {
                        assert_eq!(got.data_type(), wanted.data_type(), "{name}.{}", field.name())
                    }
                    (got, wanted) => assert_eq!(got, wanted, "{name}.{}", field.name()),
                }
            }
            assert!(answer.collect().await.expect("runs").iter().all(|rows| rows.num_rows() == 0));
        }
    }

    #[tokio::test]
    async fn a_revised_record_appears_once_as_it_is_now() {
        let mut cold = Cold::with(&[&BAR]).await;
        cold.commit(NOON, vec![bars(&[("A", NOON, 1, 1), ("B", NOON, 1, 1), ("C", NOON, 9, 1)])]).await;
        cold.commit(NOON, vec![bars(&[("A", NOON, 1, -1), ("A", NOON, 2, 1), ("B", NOON, 1, -1), ("A", NOON + 60_000_000, 5, 1)])]).await;
        assert_eq!(
            cold.rows("SELECT symbol, start, trades FROM bars ORDER BY 1, 2").await,
            ["A 2024-08-08T12:00:00Z 2", "A 2024-08-08T12:01:00Z 5", "C 2024-08-08T12:00:00Z 9"]
        );
        assert_eq!(cold.rows("SELECT count(*) FROM bars").await, ["3"]);
        // The version with one trade is no longer true, so it is not found.
        assert_eq!(cold.rows("SELECT symbol FROM bars WHERE trades = 1").await, Vec::<String>::new());
        assert_eq!(
            cold.rows("SELECT trades FROM bars WHERE symbol = 'A' AND start = '2024-08-08T12:00:00Z' AND interval_seconds = 60").await,
            ["2"]
        );
        let after = cold.rows("SELECT * FROM bars ORDER BY symbol, start").await;
        cold.close().await;
        assert_eq!(cold.rows("SELECT * FROM bars ORDER BY symbol, start").await, after, "merging changes no answer");
    }

    #[tokio::test]
    async fn filters_on_the_key_pass_below_the_choice_of_versions_and_others_do_not() {
        let mut cold = Cold::with(&[&BAR]).await;
        cold.commit(NOON, vec![bars(&[("A", NOON, 1, 1)])]).await;
        let plan = plan(&cold, "SELECT trades FROM bars WHERE symbol = 'A' AND trades > 1 AND start >= '2024-08-08T00:00:00Z'").await;
        let (above, below) = plan.split_once("WindowExec").or_else(|| plan.split_once("WindowAggExec")).expect("versions are chosen");
        assert!(above.contains("trades@") && !above.contains("symbol@0 = A"), "{plan}");
        let scan = &below[below.find("DataSourceExec").expect("a scan")..];
        assert!(scan.contains("symbol@") && !scan.contains("trades@7 >"), "{plan}");
    }

    async fn plan(cold: &Cold, sql: &str) -> String {
        let batches = cold.engine().sql(&format!("EXPLAIN FORMAT INDENT {sql}")).await.expect("plans").collect().await.expect("runs");
        pretty_format_batches(&batches).expect("displays").to_string()
    }

    #[tokio::test]
    async fn days_that_cannot_match_are_not_read() {
        let mut cold = Cold::with(&[&TRADE]).await;
        for day in 0..5 {
            cold.commit(NOON, vec![trades(&[("binance", "BTC-USDT", day, NOON + day * DAY), ("okx", "BTC-USDT", day, NOON + day * DAY)])])
                .await;
        }
        let sql = "SELECT count(*) FROM trades WHERE event_time >= '2024-08-10T06:00:00Z' AND event_time < '2024-08-11T06:00:00Z' AND venue = 'okx'";
        assert_eq!(cold.rows(sql).await, ["1"]);
        // One that needs a day which is not there cannot have been read.
        for entry in std::fs::read_dir(cold.path("trades")).expect("a table") {
            let path = entry.expect("an entry").path();
            if path.display().to_string().contains("date=2024-08-0") || path.display().to_string().contains("date=2024-08-12") {
                std::fs::remove_dir_all(path).expect("removes a day");
            }
        }
        assert_eq!(cold.rows(sql).await, ["1"]);
        let broken = cold.engine().sql("SELECT sum(price) FROM trades").await.expect("plans").collect().await;
        broken.expect_err("the other days are gone");
    }

    #[tokio::test]
    async fn a_table_that_does_not_exist_is_told_with_those_that_do() {
        let cold = Cold::with(&[&TRADE, &BAR]).await;
        let error = cold.engine().sql("SELECT * FROM trade").await.map(drop).expect_err("no such table").to_string();
        assert_eq!(error, "there is no table `trade`, did you mean `trades`?; these exist: `bars`, `trades`");
        let error =
            cold.engine().sql("SELECT price FROM trades JOIN orders ON true").await.map(drop).expect_err("no such table").to_string();
        assert_eq!(error, "there is no table `orders`; these exist: `bars`, `trades`");
        assert_eq!(cold.rows("WITH trade AS (SELECT 1) SELECT * FROM trade").await, ["1"]);
        let empty = Engine::open(&Settings { data: Some("/nowhere/at/all".into()), ..Settings::default() }).expect("opens");
        let error = empty.sql("SELECT * FROM trades").await.map(drop).expect_err("no table at all").to_string();
        assert!(error.contains("no table exists yet"), "{error}");
    }

    #[tokio::test]
    async fn statements_that_write_are_refused_and_wrong_ones_explained() {
        let cold = Cold::with(&[&TRADE]).await;
        let engine = cold.engine();
        for sql in [
            "INSERT INTO trades SELECT * FROM trades",
            "CREATE TABLE x (a INT)",
            "DROP TABLE trades",
            "SET datafusion.execution.batch_size = 1",
            "COPY trades TO '/tmp/x.csv'",
        ] {
            assert!(engine.sql(sql).await.is_err(), "{sql}");
        }
        for (sql, says) in [
            ("SELEC 1", "Expected"),
            ("SELECT prise FROM trades", "prise"),
            ("SELECT 1; SELECT 2", ""),
            ("", ""),
            ("SELECT nosuch(price) FROM trades", "nosuch"),
            ("SELECT price FROM trades WHERE symbol", ""),
        ] {
            let error = engine.sql(sql).await.map(drop).expect_err(sql).to_string();
            assert!(error.contains(says), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn tables_can_be_listed_and_described() {
        let mut cold = Cold::with(&[&TRADE, &BAR]).await;
        cold.commit(NOON, vec![trades(&[("binance", "BTC-USDT", 1, NOON), ("okx", "BTC-USDT", 2, NOON)])]).await;
        let tables = cold.engine().tables().await.expect("lists");
        assert_eq!(tables.iter().map(|t| (t.name.as_str(), t.cold_rows)).collect::<Vec<_>>(), [("bars", Some(0)), ("trades", Some(2))]);
        assert_eq!(tables[1].columns, TRADE.columns);
        assert_eq!(tables[1].tiers, [Tier::Cold]);
        assert_eq!(
            cold.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1").await,
            ["bars", "trades"]
        );
        assert!(cold.rows("DESCRIBE trades").await[0].starts_with("venue Utf8"));
    }

    #[tokio::test]
    async fn a_kind_that_no_program_knows_is_a_table_too() {
        let mut columns = TRADE.columns.clone();
        columns.truncate(8);
        let kind = Arc::new(model::Kind::new(
            "big_trade",
            Some("big_trades".into()),
            "Large.",
            columns,
            TRADE.time.clone(),
            TRADE.key.clone(),
            false,
        ));
        let mut cold = Cold::with(&[&kind]).await;
        let mut rows = trades(&[("binance", "BTC-USDT", 1, NOON)]).rows;
        rows = rows.project(&(0..8).collect::<Vec<_>>()).expect("projects");
        cold.commit(NOON, vec![model::Batch::new(&kind, rows, model::Origin::default())]).await;
        assert_eq!(cold.rows("SELECT price FROM big_trades").await, ["101.000000000000"]);
        assert_eq!(cold.engine().tables().await.expect("lists")[0].doc, "Large.");
    }
}
