//! The hot part of a table: ClickHouse, asked for what a query needs and no more.
//!
//! Rows come as one Arrow stream over HTTP and are decoded as the bytes arrive. A buffer from the network may end in
//! the middle of a batch or hold several; the decoder is asked until it is empty, so none is lost. An
//! answer that ends early is an error and never a short answer.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef, UInt64Type};
use arrow::ipc::reader::StreamDecoder;
use async_trait::async_trait;
use clickhouse::query::BytesCursor;
use clickhouse::{Client, error::Error as ClickHouseError};
use config::settings::HotStore;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{StreamExt, TryStreamExt, stream};
use model::tables::DATE;
use model::{Kind, Type};
use storage::say;
use tracing::debug;

use crate::QueryError;
use crate::hot_sql::{filter, identifier};

/// Rows of a batch that has no columns, when only their number is asked for.
const UNSEEN: usize = 1 << 20;

/// ClickHouse.
#[derive(Clone)]
pub(crate) struct Hot {
    client: Client,
    address: String,
    database: String,
}

impl fmt::Debug for Hot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hot").field("address", &self.address).field("database", &self.database).finish_non_exhaustive()
    }
}

impl Hot {
    /// The store of the settings. Nothing is asked yet.
    pub(crate) fn new(store: &HotStore) -> Self {
        let client = Client::default()
            .with_url(&store.url)
            .with_user(&store.user)
            .with_password(store.password.expose())
            .with_setting("output_format_arrow_compression_method", "none")
            .with_setting("output_format_arrow_low_cardinality_as_dictionary", "0");
        Hot { client, address: store.url.clone(), database: store.database.clone() }
    }

    /// The tables of the database, with their numbers of rows as far as ClickHouse knows them.
    pub(crate) async fn tables(&self) -> Result<Vec<(String, Option<u64>)>, QueryError> {
        let sql = "SELECT name, total_rows FROM system.tables WHERE database = ?";
        self.client.query(sql).bind(&self.database).fetch_all().await.map_err(|e| self.error(&e))
    }

    /// Rows by a statement.
    fn fetch(&self, sql: &str, has_bytes: bool) -> Result<BytesCursor, QueryError> {
        debug!(sql, "asking the hot store");
        let text = if has_bytes { "0" } else { "1" };
        let query = self.client.query_raw(sql).with_setting("output_format_arrow_string_as_string", text);
        query.fetch_bytes("ArrowStream").map_err(|e| self.error(&e))
    }

    fn error(&self, error: &ClickHouseError) -> QueryError {
        let what = say(error);
        let remedy = match error {
            ClickHouseError::Network(_) | ClickHouseError::TimedOut => {
                "check `hot.url` and that ClickHouse runs there, or remove `[hot]` from the settings to read the cold store alone"
            }
            _ if what.contains("AUTHENTICATION_FAILED") || what.contains("Code: 516") => "check `hot.user` and `hot.password`",
            _ if what.contains("ACCESS_DENIED") || what.contains("Code: 497") => "grant the user SELECT on the tables",
            _ if what.contains("UNKNOWN_IDENTIFIER") || what.contains("Code: 47.") => {
                "the hot table has other columns than the cold one: let the pipeline's `clickhouse` sink make it anew"
            }
            _ => "see ClickHouse's message",
        };
        QueryError::Hot { address: self.address.clone(), what, remedy: remedy.into() }
    }
}

/// The hot part of a table.
#[derive(Debug)]
pub(crate) struct HotTable {
    hot: Hot,
    name: String,
    kind: Arc<Kind>,
    schema: SchemaRef,
}

impl HotTable {
    /// The table of a kind.
    pub(crate) fn new(hot: Hot, name: String, kind: Arc<Kind>) -> Self {
        let cold = storage::table::schema(&kind);
        let fields: Vec<_> = cold.fields().iter().filter(|field| field.name() != DATE).cloned().collect();
        HotTable { hot, name, kind, schema: Arc::new(Schema::new(fields)) }
    }

    /// The statement for some of the columns and rows. Without columns, it counts.
    fn statement(&self, schema: &Schema, filters: &[Expr], limit: Option<usize>) -> String {
        let columns: Vec<String> = schema.fields().iter().map(|field| identifier(field.name())).collect();
        let from = format!("FROM {}.{}", identifier(&self.hot.database), identifier(&self.name));
        let conditions: Vec<String> = filters.iter().filter_map(|expr| filter(&self.kind, expr)).collect();
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        if columns.is_empty() {
            return format!("SELECT count() {from}{filter}");
        }
        let limit = limit.map_or_else(String::new, |n| format!(" LIMIT {n}"));
        format!("SELECT {} {from}{filter}{limit}", columns.join(", "))
    }
}

#[async_trait]
impl TableProvider for HotTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |expr: &&Expr| match filter(&self.kind, expr) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let has_bytes = schema.fields().iter().any(|f| self.kind.column(f.name()).is_some_and(|c| c.ty == Type::Bytes));
        let sql = self.statement(&schema, filters, limit);
        let rows = Arc::new(HotRows { hot: self.hot.clone(), sql, schema: schema.clone(), has_bytes });
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![rows], None, [], false, limit)?))
    }
}

/// The rows of one statement.
#[derive(Debug)]
struct HotRows {
    hot: Hot,
    sql: String,
    schema: SchemaRef,
    has_bytes: bool,
}

impl PartitionStream for HotRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, hot) = (self.schema.clone(), self.hot.clone());
        let rows = match hot.fetch(&self.sql, self.has_bytes) {
            Err(error) => stream::once(async { Err(external(error)) }).boxed(),
            Ok(cursor) => {
                let answer = Decoding { hot, cursor, decoder: StreamDecoder::new(), buffer: Buffer::default() };
                let batches = stream::try_unfold(answer, |mut answer| async move { Ok(answer.next().await?.map(|rows| (rows, answer))) });
                let to = schema.clone();
                if schema.fields().is_empty() {
                    batches.map_ok(move |counted| stream::iter(unseen(&to, &counted))).try_flatten().boxed()
                } else {
                    batches.and_then(move |rows| futures::future::ready(conform(&rows, &to))).boxed()
                }
            }
        };
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

/// An answer that is being read.
struct Decoding {
    hot: Hot,
    cursor: BytesCursor,
    decoder: StreamDecoder,
    buffer: Buffer,
}

impl Decoding {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            while !self.buffer.is_empty() {
                if let Some(rows) = self.decoder.decode(&mut self.buffer)? {
                    return Ok(Some(rows));
                }
            }
            match self.cursor.next().await.map_err(|e| external(self.hot.error(&e)))? {
                Some(bytes) => self.buffer = Buffer::from(bytes),
                None => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
            }
        }
    }
}

fn external(error: QueryError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Rows in the types of the table.
fn conform(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns: Result<Vec<ArrayRef>> =
        rows.columns().iter().zip(schema.fields()).map(|(column, field)| Ok(cast(column, field.data_type())?)).collect();
    Ok(RecordBatch::try_new(schema.clone(), columns?)?)
}

/// As many rows without columns as were counted.
fn unseen(schema: &SchemaRef, counted: &RecordBatch) -> Vec<Result<RecordBatch>> {
    let Some(counts) = counted.columns().first().and_then(|column| column.as_primitive_opt::<UInt64Type>()) else {
        return vec![Err(DataFusionError::Execution("the hot store did not answer a count with a number".into()))];
    };
    let mut left: u64 = counts.values().iter().sum();
    let mut batches = Vec::new();
    while left > 0 {
        let rows = left.min(UNSEEN as u64);
        left -= rows;
        let options = RecordBatchOptions::new().with_row_count(Some(rows as usize));
        batches.push(RecordBatch::try_new_with_options(schema.clone(), vec![], &options).map_err(Into::into));
    }
    batches
}

#[cfg(test)]
mod tests {
    use config::values::Secret;
    use datafusion::logical_expr::lit;
    use model::kinds::BAR;

    use super::*;
    use crate::tiers::column;

    fn bars() -> HotTable {
        let store = HotStore {
            url: "http://127.0.0.1:8123".into(),
            database: "it's".into(),
            user: "default".into(),
            password: Secret::new("sesame"),
            keep_days: 7,
            warm_after_days: None,
            storage_policy: None,
        };
        HotTable::new(Hot::new(&store), "bars".into(), BAR.clone())
    }

    #[test]
    fn clickhouse_is_asked_for_what_is_needed() {
        let bars = bars();
        let filters = [column("symbol").eq(lit("BTC-USDT")), column("trades").gt(lit(1.5)), column("late").or(column("is_deleted"))];
        let two = bars.schema().project(&[2, 4]).expect("two columns");
        assert_eq!(
            bars.statement(&two, &filters, Some(10)),
            "SELECT `symbol`, `start` FROM `it's`.`bars` WHERE (`symbol` = 'BTC-USDT') AND (`late` OR `is_deleted`) LIMIT 10"
        );
        assert_eq!(bars.statement(&Schema::empty(), &[], Some(10)), "SELECT count() FROM `it's`.`bars`");
        let supported = bars.supports_filters_pushdown(&filters.iter().collect::<Vec<_>>()).expect("answers");
        assert_eq!(
            supported,
            [TableProviderFilterPushDown::Exact, TableProviderFilterPushDown::Unsupported, TableProviderFilterPushDown::Exact]
        );
        assert!(!format!("{bars:?}").contains("sesame"));
    }

    #[test]
    fn a_count_is_as_many_rows_without_columns() {
        let counted = RecordBatch::try_from_iter([("count()", Arc::new(arrow::array::UInt64Array::from(vec![2_500_000])) as ArrayRef)])
            .expect("a column");
        let batches = unseen(&Arc::new(Schema::empty()), &counted);
        assert_eq!(batches.len(), 3);
        assert_eq!(batches.into_iter().map(|b| b.expect("a batch").num_rows()).sum::<usize>(), 2_500_000);
    }
}
