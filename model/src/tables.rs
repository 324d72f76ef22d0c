//! The tables of a kind: what is stored, and how ClickHouse and Delta are told about it.
//!
//! A stored row has the kind's columns; a revisable kind has two more, [`VERSION`] and [`IS_DELETED`], by
//! which the newest version of a key is found. [`stored`] is the one way from a batch to stored rows, so
//! no sink can leave a column out.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::batch::Batch;
use crate::kind::{Column, Kind, Type};
use crate::kinds::FRAME;
use crate::time::Time;

/// Column of revisable kinds: the logical time that made this version.
pub const VERSION: &str = "version";
/// Column of revisable kinds: this version takes the record back.
pub const IS_DELETED: &str = "is_deleted";
/// Partition column of cold tables: the day (UTC) of the row's time.
pub const DATE: &str = "date";

/// The Arrow schema of stored rows.
pub fn stored_schema(kind: &Kind) -> SchemaRef {
    let mut fields: Vec<Field> = kind.columns.iter().map(Column::stored_field).collect();
    if kind.revisable {
        fields.push(Field::new(VERSION, DataType::Int64, false));
        fields.push(Field::new(IS_DELETED, DataType::Boolean, false));
    }
    Arc::new(Schema::new(fields))
}

/// A batch as stored rows, at the logical time that made it. Rows of a kind that is not revisable must all be asserted.
///
/// # Errors
/// A row is taken back though its kind cannot be revised, or a column is not of the declared type: both are bugs of an operator.
pub fn stored(batch: &Batch, time: Time) -> Result<RecordBatch, ArrowError> {
    let schema = stored_schema(&batch.kind);
    let mut columns: Vec<ArrayRef> = batch
        .rows
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| cast(column, field.data_type()))
        .collect::<Result<_, _>>()?;
    if batch.kind.revisable {
        let version = i64::try_from(time).map_err(|e| ArrowError::ComputeError(e.to_string()))?;
        columns.push(Arc::new(Int64Array::from(vec![version; batch.len()])));
        columns.push(Arc::new((0..batch.len()).map(|row| Some(batch.diff(row) < 0)).collect::<BooleanArray>()));
    } else if batch.retractions() > 0 {
        return Err(ArrowError::InvalidArgumentError(format!(
            "a `{}` record was taken back, but the kind is not revisable",
            batch.kind.name
        )));
    }
    RecordBatch::try_new(schema, columns)
}

/// The columns that a cold table is partitioned by: the day, and the venue, or the source of frames, where the kind is
/// keyed by one.
pub fn partition_columns(kind: &Kind) -> Vec<&'static str> {
    let origin = ["venue", "source"].into_iter().find(|name| kind.key.iter().any(|k| k == name));
    [DATE].into_iter().chain(origin).collect()
}

/// Whether ClickHouse can keep a kind: it has a table, and every row has a time, which is part of each sort and partition
/// key there. That of a frame may be unknown, and raw bytes are not what the hot store is for.
pub fn in_clickhouse(kind: &Kind) -> bool {
    kind.table.is_some() && kind.name != FRAME.name
}

/// The type of a column in ClickHouse.
pub fn clickhouse_type(column: &Column) -> String {
    let (plain, wrap_null): (&str, fn(&str) -> String) = match column.ty {
        Type::Label => return if column.nullable { "LowCardinality(Nullable(String))".into() } else { "LowCardinality(String)".into() },
        Type::Decimals => return "Array(Decimal(38, 12))".into(),
        Type::Text | Type::Bytes => ("String", |t| format!("Nullable({t})")),
        Type::Decimal => ("Decimal(38, 12)", |t| format!("Nullable({t})")),
        Type::Integer => ("Int64", |t| format!("Nullable({t})")),
        Type::Float => ("Float64", |t| format!("Nullable({t})")),
        Type::Time => ("DateTime64(6, 'UTC')", |t| format!("Nullable({t})")),
        Type::Boolean => ("Bool", |t| format!("Nullable({t})")),
    };
    if column.nullable { wrap_null(plain) } else { plain.into() }
}

/// How ClickHouse keeps a table: the days after which rows move to the `warm` volume or are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Rows older than this many days move to the volume `warm` of the storage policy.
    pub warm_after_days: Option<u32>,
    /// Rows older than this many days are dropped.
    pub drop_after_days: Option<u32>,
    /// The storage policy that has the volume `warm`.
    pub storage_policy: Option<String>,
}

/// The `CREATE TABLE` statement of a kind for ClickHouse; `None` for a kind that has no table there.
///
/// Append-only kinds are `MergeTree` with a window of remembered insert tokens, because the default
/// remembers none; revisable kinds are `ReplacingMergeTree(version, is_deleted)` keyed by identity.
/// Sort keys begin with the instrument, then time.
pub fn clickhouse_ddl(kind: &Kind, database: &str, retention: &Retention) -> Option<String> {
    let table = kind.table.as_ref().filter(|_| in_clickhouse(kind))?;
    let mut columns: Vec<String> = kind
        .columns
        .iter()
        .map(|c| format!("    `{}` {} COMMENT '{}'", c.name, clickhouse_type(c), c.doc.replace('\\', "\\\\").replace('\'', "\\'")))
        .collect();
    let time = kind.clickhouse_time();
    let mut order: Vec<String> = kind
        .key
        .iter()
        .filter(|k| kind.revisable || ["venue", "market", "symbol"].contains(&k.as_ref()))
        .map(|k| sort_expression(kind, k))
        .collect();
    let engine = if kind.revisable {
        columns.push(format!("    `{VERSION}` Int64 COMMENT 'Logical time that made this version'"));
        columns.push(format!("    `{IS_DELETED}` Bool COMMENT 'This version takes the record back'"));
        format!("ReplacingMergeTree(`{VERSION}`, `{IS_DELETED}`)")
    } else {
        order.push(time.clone());
        for name in kind.key.iter().filter(|k| !["venue", "market", "symbol"].contains(&k.as_ref()) && !kind.time.contains(k)) {
            order.push(sort_expression(kind, name));
        }
        "MergeTree".into()
    };
    let mut ttl = Vec::new();
    if let Some(days) = retention.warm_after_days {
        ttl.push(format!("toDateTime({time}) + INTERVAL {days} DAY TO VOLUME 'warm'"));
    }
    if let Some(days) = retention.drop_after_days {
        ttl.push(format!("toDateTime({time}) + INTERVAL {days} DAY DELETE"));
    }
    let ttl = if ttl.is_empty() { String::new() } else { format!("\nTTL {}", ttl.join(", ")) };
    let mut settings = vec!["non_replicated_deduplication_window = 10000".to_owned()];
    settings.extend(retention.storage_policy.iter().map(|p| format!("storage_policy = '{p}'")));
    Some(format!(
        "CREATE TABLE IF NOT EXISTS `{database}`.`{table}` (\n{}\n)\nENGINE = {engine}\nPARTITION BY toDate({time})\nORDER BY ({}){ttl}\nSETTINGS {}\nCOMMENT '{}'",
        columns.join(",\n"),
        order.join(", "),
        settings.join(", "),
        kind.doc.replace('\\', "\\\\").replace('\'', "\\'")
    ))
}

fn sort_expression(kind: &Kind, name: &str) -> String {
    match kind.column(name) {
        Some(column) if column.nullable && matches!(column.ty, Type::Integer) => format!("ifNull(`{name}`, 0)"),
        Some(column) if column.nullable => format!("ifNull(`{name}`, '')"),
        _ => format!("`{name}`"),
    }
}

impl Kind {
    /// The ClickHouse expression for when a row happened, never null: sort and partition keys must not be.
    pub fn clickhouse_time(&self) -> String {
        match self.time.as_slice() {
            [only] if self.column(only).is_some_and(|c| !c.nullable) => format!("`{only}`"),
            several => format!("assumeNotNull(coalesce({}))", several.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Origin;
    use crate::kinds::{self, ANOMALY, BAR, DEAD_LETTER, Trade, TradeBuilder, VENUE_STATUS};

    fn ddl(kind: &Kind) -> String {
        clickhouse_ddl(kind, "db", &Retention::default()).unwrap()
    }

    /// What stands in the statement behind a word, up to the end of its line.
    fn clause<'d>(ddl: &'d str, word: &str) -> &'d str {
        ddl.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("no {word} in {ddl}")).trim()
    }

    #[test]
    fn the_statements_of_an_append_only_and_a_revisable_kind() {
        let book_event = ddl(&kinds::BOOK_EVENT);
        assert!(book_event.starts_with(
            "CREATE TABLE IF NOT EXISTS `db`.`book_events` (\n    `venue` LowCardinality(String) COMMENT 'The venue, e.g. `binance`.',\n"
        ));
        assert!(
            book_event.contains("    `event_time` Nullable(DateTime64(6, 'UTC')) COMMENT 'When it happened, by the venue\\'s clock.',\n")
        );
        assert_eq!(clause(&book_event, "ENGINE = "), "MergeTree");
        assert_eq!(clause(&book_event, "PARTITION BY "), "toDate(assumeNotNull(coalesce(`event_time`, `receive_time`)))");
        assert_eq!(
            clause(&book_event, "ORDER BY "),
            "(`venue`, `market`, `symbol`, assumeNotNull(coalesce(`event_time`, `receive_time`)), ifNull(`frame`, 0))"
        );
        assert_eq!(clause(&book_event, "SETTINGS "), "non_replicated_deduplication_window = 10000");

        let bar = ddl(&BAR);
        assert!(bar.contains(
            "    `gap` Nullable(Bool) COMMENT 'Trade ids inside the window are not consecutive: trades are missing. Null where ids are not numbers.',\n    \
             `version` Int64 COMMENT 'Logical time that made this version',\n    `is_deleted` Bool COMMENT 'This version takes the record back'\n)\n"
        ));
        assert_eq!(clause(&bar, "ENGINE = "), "ReplacingMergeTree(`version`, `is_deleted`)");
        assert_eq!(clause(&bar, "PARTITION BY "), "toDate(`start`)");
        assert_eq!(clause(&bar, "ORDER BY "), "(`venue`, `market`, `symbol`, `interval_seconds`, `start`)");
        assert_eq!(
            clause(&ddl(&VENUE_STATUS), "ORDER BY "),
            "(`venue`, ifNull(`market`, ''), ifNull(`symbol`, ''), assumeNotNull(coalesce(`event_time`, `receive_time`)))"
        );
        assert_eq!(
            clause(&ddl(&DEAD_LETTER), "ORDER BY "),
            "(assumeNotNull(coalesce(`event_time`, `receive_time`, `rejected_time`)), `node`, `reason`, ifNull(`frame`, 0))"
        );
        assert_eq!(clickhouse_ddl(&FRAME, "db", &Retention::default()), None, "a frame may have no time");
    }

    #[test]
    fn retention_moves_and_drops_by_the_time_of_the_row() {
        let retention = Retention { warm_after_days: Some(7), drop_after_days: Some(37), storage_policy: Some("tiered".into()) };
        let ddl = clickhouse_ddl(&ANOMALY, "db", &retention).unwrap();
        let time = "toDateTime(assumeNotNull(coalesce(`event_time`, `receive_time`)))";
        assert_eq!(clause(&ddl, "TTL "), format!("{time} + INTERVAL 7 DAY TO VOLUME 'warm', {time} + INTERVAL 37 DAY DELETE"));
        assert_eq!(clause(&ddl, "SETTINGS "), "non_replicated_deduplication_window = 10000, storage_policy = 'tiered'");
    }

    #[test]
    fn every_table_has_every_column_and_a_key_that_is_never_null() {
        for kind in kinds::all().into_iter().filter(|k| in_clickhouse(k)) {
            let ddl = ddl(kind);
            let declared: Vec<&str> =
                ddl.lines().filter_map(|line| line.strip_prefix("    `")?.split_once('`').map(|(name, _)| name)).collect();
            let stored = stored_schema(kind);
            assert_eq!(declared, stored.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), "{}", kind.name);
            for key in ["ORDER BY ", "PARTITION BY "].map(|word| clause(&ddl, word)) {
                for column in kind.columns.iter().filter(|c| c.nullable && key.contains(&format!("`{}`", c.name))) {
                    let guarded = ["ifNull(", "coalesce("].iter().any(|guard| {
                        key.split(guard)
                            .skip(1)
                            .any(|rest| rest.split(')').next().is_some_and(|inside| inside.contains(column.name.as_ref())))
                    });
                    assert!(guarded, "`{}` of `{}` may be null in {key}", column.name, kind.name);
                }
            }
        }
    }

    #[test]
    fn stored_rows_are_labels_spelt_out_and_versions() {
        let mut trades = TradeBuilder::default();
        trades.push(Trade {
            venue: "binance",
            market: "spot",
            symbol: "BTC-USDT",
            event_time: 1,
            receive_time: None,
            frame: None,
            trade_id: "1",
            price: crate::Decimal::ONE,
            quantity: crate::Decimal::ONE,
            contracts: None,
            side: "buy",
            fills: 1,
            backfilled: Some(false),
        });
        let batch = Batch::new(&kinds::TRADE, trades.finish(), Origin::default());
        let rows = stored(&batch, 7).unwrap();
        assert_eq!((rows.schema(), rows.num_rows()), (stored_schema(&kinds::TRADE), 1));
        assert_eq!(rows.column(0).data_type(), &DataType::Utf8);
        let refused = stored(&batch.with_diffs(vec![-1]), 7).unwrap_err().to_string();
        assert!(refused.ends_with("a `trade` record was taken back, but the kind is not revisable"), "{refused}");

        let bars = Batch::new(&BAR, RecordBatch::new_empty(BAR.schema().clone()), Origin::default());
        assert_eq!(stored(&bars, 7).unwrap().schema(), stored_schema(&BAR));
        assert!(stored(&bars, u64::MAX).is_err(), "a version is a signed number");
    }

    #[test]
    fn cold_tables_are_partitioned_by_venue_where_there_is_one() {
        assert_eq!(partition_columns(&BAR), [DATE, "venue"]);
        assert_eq!(partition_columns(&FRAME), [DATE, "source"]);
        assert_eq!(partition_columns(&DEAD_LETTER), [DATE]);
    }
}
