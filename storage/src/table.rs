//! Cold tables: their columns, their making, and the tier boundary in their logs.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deltalake_core::kernel::engine::arrow_conversion::TryFromArrow;
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::kernel::{StructField, StructType, Transaction};
use deltalake_core::{DeltaResult, DeltaTable};
use model::time::Micros;
use model::{Kind, Type, tables};

use crate::{ColdStore, StorageError};

/// The application id under which a table's log carries its tier boundary.
///
/// Delta keeps the newest version of every application id through checkpoints, and refuses a commit whose
/// application id was committed meanwhile, so the boundary is atomic with the rows and never lost.
pub const BOUNDARY: &str = "marketprism/boundary";

/// The table property that carries the kind, as JSON.
const KIND: &str = "marketprism.kind";

/// The Arrow schema of a kind's cold table: the stored columns, in Delta's own types, then the day.
pub fn schema(kind: &Kind) -> SchemaRef {
    let mut fields: Vec<Field> = tables::stored_schema(kind).fields().iter().map(|field| delta_field(field)).collect();
    fields.push(Field::new(tables::DATE, DataType::Date32, true));
    Arc::new(Schema::new(fields))
}

/// Delta calls the items of a list `element`.
fn delta_field(field: &Field) -> Field {
    match field.data_type() {
        DataType::List(item) => field.clone().with_data_type(DataType::List(Arc::new(item.as_ref().clone().with_name("element")))),
        _ => field.clone(),
    }
}

/// The columns that files are sorted by within a partition: what has an order of its own by its key (what can be revised
/// then by its version), everything else by the instrument, then time, then the rest of the key.
pub fn sort_columns(kind: &Kind) -> Vec<&str> {
    const INSTRUMENT: [&str; 3] = ["venue", "market", "symbol"];
    let key = kind.key.iter().map(|k| k.as_ref());
    if kind.has_own_order() {
        return key.chain(kind.revisable.then_some(tables::VERSION)).collect();
    }
    let mut columns: Vec<&str> = key.filter(|k| INSTRUMENT.contains(k)).collect();
    for column in kind.time.iter().chain(&kind.key) {
        if !columns.contains(&column.as_ref()) {
            columns.push(column);
        }
    }
    columns
}

/// The kind of a table, as its writer described it; `None` for a table of someone else's.
pub fn kind(table: &DeltaTable) -> Option<Arc<Kind>> {
    let json = table.snapshot().ok()?.metadata().configuration().get(KIND)?;
    serde_json::from_str(json).ok().map(Arc::new)
}

/// The tier boundary: rows before it are complete in the cold table. `None` before any was committed.
///
/// # Errors
/// The table's log cannot be read.
pub async fn boundary(table: &DeltaTable) -> DeltaResult<Option<Micros>> {
    transaction(table, BOUNDARY).await
}

/// The newest version that an application has committed.
///
/// # Errors
/// The table's log cannot be read.
pub async fn transaction(table: &DeltaTable, application: &str) -> DeltaResult<Option<i64>> {
    table.snapshot()?.snapshot().transaction_version(table.log_store().as_ref(), application).await
}

/// The action that moves the tier boundary.
pub fn move_boundary(to: Micros) -> Transaction {
    Transaction::new(BOUNDARY, to)
}

impl ColdStore {
    /// The table of a kind, made if it does not exist.
    ///
    /// # Errors
    /// The store cannot be reached or refuses us; the table that exists has other columns than the kind; the kind
    /// has no table.
    pub async fn open_or_create(&self, kind: &Kind) -> Result<DeltaTable, StorageError> {
        let name = kind.table.as_deref().ok_or_else(|| {
            StorageError::new(
                kind.name.as_ref(),
                "records of this kind have no table",
                "decode them with `normalise` before they are stored",
            )
        })?;
        if let Some(table) = self.open_table(kind, name).await? {
            return Ok(table);
        }
        match self.create(kind, name).await {
            Ok(table) => Ok(table),
            // Somebody else may have made it at the same moment.
            Err(error) => self.open_table(kind, name).await?.ok_or(error),
        }
    }

    /// The table of this name, which is to hold records of a kind, at its newest version; `None` if there is none.
    ///
    /// # Errors
    /// The store cannot be reached or refuses us; the table has other columns than the kind.
    pub async fn open_table(&self, kind: &Kind, name: &str) -> Result<Option<DeltaTable>, StorageError> {
        let table = self.load(name).await?;
        table.iter().try_for_each(|table| self.check(kind, name, table))?;
        Ok(table)
    }

    async fn create(&self, kind: &Kind, name: &str) -> Result<DeltaTable, StorageError> {
        let columns = columns(kind).map_err(|e| self.error(name, &e))?;
        let described = serde_json::to_string(kind).map_err(|e| self.error(name, &e))?;
        // Statistics only of the columns that queries narrow by: a log entry is read as often as it is long.
        let partitions = tables::partition_columns(kind);
        let mut statistics = sort_columns(kind);
        for time in &kind.time {
            if !statistics.contains(&time.as_ref()) {
                statistics.push(time);
            }
        }
        statistics.retain(|c| !partitions.contains(c));
        statistics.retain(|c| kind.column(c).is_none_or(|c| !matches!(c.ty, Type::Decimals | Type::Bytes)));
        self.handle(name)?
            .create()
            .with_table_name(name)
            .with_comment(kind.doc.as_ref())
            .with_columns(columns)
            .with_partition_columns(partitions)
            .with_raise_if_key_not_exists(false)
            .with_configuration([
                (KIND, Some(described)),
                ("delta.dataSkippingStatsColumns", Some(statistics.join(","))),
                ("delta.checkpointInterval", Some("20".to_owned())),
                ("delta.logRetentionDuration", Some("interval 1 days".to_owned())),
                ("delta.deletedFileRetentionDuration", Some("interval 1 days".to_owned())),
            ])
            .with_commit_properties(CommitProperties::default().with_max_retries(0))
            .await
            .map_err(|e| self.error(name, &e))
    }

    /// Whether the columns of a table are those of the kind.
    fn check(&self, kind: &Kind, name: &str, table: &DeltaTable) -> Result<(), StorageError> {
        let snapshot = table.snapshot().map_err(|e| self.error(name, &e))?;
        let differs = |what: String| {
            StorageError::new(
                self.address(name),
                what,
                format!(
                    "move the table away (a new one is made), write to another `url`, or give the `{}` records another name",
                    kind.name
                ),
            )
        };
        let wanted: HashMap<String, StructField> =
            columns(kind).map_err(|e| self.error(name, &e))?.into_iter().map(|f| (f.name().clone(), f)).collect();
        let schema = snapshot.schema();
        for field in schema.fields() {
            match wanted.get(field.name()) {
                None => return Err(differs(format!("the table has a column `{}` that `{}` records have not", field.name(), kind.name))),
                Some(want) if want.data_type() != field.data_type() => {
                    return Err(differs(format!(
                        "column `{}` is {} in the table, but {} in `{}` records",
                        field.name(),
                        field.data_type(),
                        want.data_type(),
                        kind.name
                    )));
                }
                Some(want) if want.is_nullable() && !field.is_nullable() => {
                    return Err(differs(format!("column `{}` may be null in `{}` records, but not in the table", field.name(), kind.name)));
                }
                Some(_) => {}
            }
        }
        // In the order of the kind, so that the message is always the same.
        if let Some(missing) = self::schema(kind).fields().iter().find(|f| schema.field(f.name()).is_none()) {
            return Err(differs(format!("the table has no column `{}`, which `{}` records have", missing.name(), kind.name)));
        }
        let partitions = snapshot.metadata().partition_columns();
        if partitions != tables::partition_columns(kind) {
            return Err(differs(format!(
                "the table is partitioned by {}, not by {}",
                partitions.join(", "),
                tables::partition_columns(kind).join(", ")
            )));
        }
        Ok(())
    }
}

/// The columns of a kind's table as Delta declares them, with the kind's documentation as comments.
fn columns(kind: &Kind) -> Result<Vec<StructField>, arrow::error::ArrowError> {
    let commented: Vec<Field> = schema(kind)
        .fields()
        .iter()
        .map(|field| {
            let comment = match field.name().as_str() {
                tables::VERSION => "Logical time that made this version.",
                tables::IS_DELETED => "This version takes the record back.",
                tables::DATE => "The day (UTC) of the row's time.",
                name => kind.column(name).map_or("", |c| c.doc.as_ref()),
            };
            field.as_ref().clone().with_metadata(HashMap::from([("comment".to_owned(), comment.to_owned())]))
        })
        .collect();
    Ok(StructType::try_from_arrow(&Schema::new(commented))?.fields().cloned().collect())
}

#[cfg(test)]
mod tests {
    use config::settings;
    use model::kinds;

    use super::*;

    #[tokio::test]
    async fn every_kind_is_made_once_and_describes_itself() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = ColdStore::open(&folder.path().display().to_string(), &settings::ColdStore::default()).expect("opens");
        let mut names = Vec::new();
        for kind in kinds::all().into_iter().filter(|k| k.table.is_some()) {
            store.open_or_create(kind).await.expect("creates");
            let again = store.open_or_create(kind).await.expect("opens");
            assert_eq!(again.version(), Some(0), "opening changes nothing");
            assert_eq!(self::kind(&again).as_deref(), Some(kind.as_ref()));
            assert_eq!(boundary(&again).await.expect("reads"), None);
            let properties = again.snapshot().expect("is loaded").table_config();
            let day = std::time::Duration::from_secs(86_400);
            assert_eq!((properties.log_retention_duration, properties.deleted_file_retention_duration), (Some(day), Some(day)));
            assert_eq!(properties.checkpoint_interval.map(|n| n.get()), Some(20));
            names.extend(kind.table.clone());
        }
        names.sort_unstable();
        assert_eq!(store.tables().await.expect("lists"), names);
    }

    #[tokio::test]
    async fn a_table_with_other_columns_is_refused_by_the_column() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = ColdStore::open(&folder.path().display().to_string(), &settings::ColdStore::default()).expect("opens");
        store.open_or_create(&kinds::TRADE).await.expect("creates");

        let mut more = kinds::TRADE.columns.clone();
        more.push(model::Column { name: "notional".into(), ty: Type::Decimal, nullable: false, doc: "Price times size.".into() });
        let mut other = kinds::TRADE.columns.clone();
        other.iter_mut().find(|c| c.name == "fills").expect("a column of trades").ty = Type::Text;
        let mut fewer = kinds::TRADE.columns.clone();
        fewer.retain(|c| c.name != "side");
        for (columns, named) in [(more, "notional"), (other, "fills"), (fewer, "side")] {
            let kind = &kinds::TRADE;
            let changed = Kind::new("trade", kind.table.clone(), "", columns, kind.time.clone(), kind.key.clone(), false);
            let error = store.open_or_create(&changed).await.expect_err("differs");
            assert!(error.what.contains(&format!("`{named}`")), "{error}");
        }
    }

    #[test]
    fn files_are_sorted_by_instrument_then_time_or_in_an_order_of_their_own() {
        assert_eq!(sort_columns(&kinds::TRADE), ["venue", "market", "symbol", "event_time", "trade_id"]);
        assert_eq!(sort_columns(&kinds::BAR), ["venue", "market", "symbol", "interval_seconds", "start", "version"]);
        assert_eq!(sort_columns(&kinds::FRAME), ["source", "frame"]);
    }
}
