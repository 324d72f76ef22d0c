//! The tables of a sink in ClickHouse: made where they are missing, checked where they are there.
//!
//! A table that someone else made may take our inserts and still not keep the promises: without a window of
//! remembered tokens a repeated insert doubles its rows, and with another sort key a ReplacingMergeTree lets
//! different records replace each other. So everything that exactly-once rests on is compared.

use std::sync::Arc;

use model::Kind;
use model::tables::{IS_DELETED, Retention, VERSION, clickhouse_ddl, clickhouse_type};

use super::server::{Failure, Server};
use crate::SinkError;

/// ClickHouse's setting for how many tokens of a table it remembers.
const WINDOW: &str = "non_replicated_deduplication_window";
/// The same for replicated tables.
const REPLICATED_WINDOW: &str = "replicated_deduplication_window";

/// A table as the server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    engine: String,
    /// The engine with its arguments, keys and settings.
    engine_full: String,
    sorting_key: String,
    /// Name and type of each column.
    columns: Vec<(String, String)>,
}

/// Makes the tables of these kinds that are missing and checks the others.
pub(super) async fn prepare(server: &Server, kinds: &[Arc<Kind>], retention: &Retention) -> Result<(), SinkError> {
    let mut database = false;
    for kind in kinds {
        let Some(ddl) = clickhouse_ddl(kind, server.database(), retention) else { continue };
        let table = kind.table.as_deref().expect("a kind with DDL has a table");
        let failed = |failure| server.error(Some(table), failure);
        let found = match describe(server, table).await.map_err(failed)? {
            Some(found) => found,
            None => {
                if !database {
                    let sql = format!("CREATE DATABASE IF NOT EXISTS {}", quoted(server.database()));
                    server.execute(&sql).await.map_err(|failure| server.error(None, failure))?;
                    database = true;
                }
                server.execute(&ddl).await.map_err(failed)?;
                tracing::info!(table = format!("{}.{table}", server.database()), "made a table in ClickHouse");
                describe(server, table).await.map_err(failed)?.ok_or_else(|| failed(vanished()))?
            }
        };
        let defaults = server
            .rows::<(String, String)>(
                "SELECT name, value FROM system.merge_tree_settings WHERE name IN (?, ?)",
                &[WINDOW, REPLICATED_WINDOW],
            )
            .await
            .map_err(failed)?;
        let name = format!("{}.{}", quoted(server.database()), quoted(table));
        if let Some((what, remedy)) = differences(kind, &name, &found, &defaults) {
            return Err(failed(Failure { transient: false, code: None, what, remedy }));
        }
        if let Some(advice) = other_retention(&name, &found, &ddl) {
            tracing::warn!(table = format!("{}.{table}", server.database()), "{advice}");
        }
    }
    Ok(())
}

fn vanished() -> Failure {
    Failure { transient: false, code: None, what: "the table was dropped while it was made".into(), remedy: "find who drops it".into() }
}

async fn describe(server: &Server, table: &str) -> Result<Option<Found>, Failure> {
    let arguments = [server.database(), table];
    let tables: Vec<(String, String, String)> =
        server.rows("SELECT engine, engine_full, sorting_key FROM system.tables WHERE database = ? AND name = ?", &arguments).await?;
    let Some((engine, engine_full, sorting_key)) = tables.into_iter().next() else { return Ok(None) };
    let columns =
        server.rows("SELECT name, type FROM system.columns WHERE database = ? AND table = ? ORDER BY position", &arguments).await?;
    Ok(Some(Found { engine, engine_full, sorting_key, columns }))
}

/// What of a table is not as the kind needs it, and how to mend it. Further columns are no matter.
fn differences(kind: &Kind, name: &str, found: &Found, defaults: &[(String, String)]) -> Option<(String, String)> {
    let anew = format!("move the table away (RENAME TABLE {name} TO another name) and start again, or set another `database`");
    let engine = if kind.revisable { "ReplacingMergeTree" } else { "MergeTree" };
    let plain = found.engine.strip_prefix("Replicated").or_else(|| found.engine.strip_prefix("Shared")).unwrap_or(&found.engine);
    if plain != engine {
        return Some((format!("the engine is {}, but `{}` needs {engine}", found.engine, kind.name), anew));
    }
    if kind.revisable {
        let (key, arguments) = (kind.key.join(", "), arguments(&found.engine_full));
        if !arguments.ends_with(&format!("{VERSION}, {IS_DELETED}")) {
            return Some((
                format!("the engine is {plain}({arguments}), but `{}` needs {engine}({VERSION}, {IS_DELETED})", kind.name),
                anew,
            ));
        }
        if found.sorting_key != key {
            return Some((format!("the sort key is ({}), but a `{}` is identified by ({key})", found.sorting_key, kind.name), anew));
        }
    }
    let mut needed: Vec<(&str, String)> = kind.columns.iter().map(|c| (c.name.as_ref(), clickhouse_type(c))).collect();
    if kind.revisable {
        needed.extend([(VERSION, "Int64".to_owned()), (IS_DELETED, "Bool".to_owned())]);
    }
    let (mut what, mut remedy) = (Vec::new(), Vec::new());
    for (column, ty) in needed {
        match found.columns.iter().find(|(name, _)| name == column) {
            None => {
                what.push(format!("column `{column}` is missing"));
                remedy.push(format!("ADD COLUMN {} {ty}", quoted(column)));
            }
            Some((_, other)) if *other != ty => {
                what.push(format!("column `{column}` is {other}, but has to be {ty}"));
                remedy.push(format!("MODIFY COLUMN {} {ty}", quoted(column)));
            }
            Some(_) => {}
        }
    }
    if !what.is_empty() {
        return Some((what.join(", "), format!("run ALTER TABLE {name} {}; or {anew}", remedy.join(", "))));
    }
    let window = if is_replicated(&found.engine) { REPLICATED_WINDOW } else { WINDOW };
    let size =
        setting(&found.engine_full, window).or_else(|| defaults.iter().find(|(name, _)| name == window).map(|(_, value)| value.as_str()));
    if size.and_then(|size| size.parse::<u64>().ok()).is_none_or(|size| size == 0) {
        let what = "the table remembers no tokens of inserts, so a repeated insert would double its rows".to_owned();
        return Some((what, format!("run ALTER TABLE {name} MODIFY SETTING {window} = 10000")));
    }
    None
}

/// What to do where a table keeps its rows for another time than the settings say. Not done unasked: a shorter time
/// deletes rows.
fn other_retention(name: &str, found: &Found, ddl: &str) -> Option<String> {
    let wanted = ddl.split("\nTTL ").nth(1).and_then(|rest| rest.split("\nSETTINGS").next()).unwrap_or("");
    let policy = |text| setting(text, "storage_policy").map(|p| p.trim_matches('\''));
    let settings = ddl.split("\nSETTINGS ").nth(1).unwrap_or("");
    if let Some(wanted) = policy(settings).filter(|wanted| policy(&found.engine_full) != Some(wanted)) {
        return Some(format!(
            "the settings name another storage policy than the table has; to change it, run ALTER TABLE {name} MODIFY SETTING storage_policy = '{wanted}'"
        ));
    }
    let (has, wants) = (days(&found.engine_full, "toIntervalDay("), days(wanted, "INTERVAL "));
    if has == wants {
        return None;
    }
    let statement = if wanted.is_empty() { "REMOVE TTL".to_owned() } else { format!("MODIFY TTL {wanted}") };
    Some(format!(
        "the settings keep rows for another time than the table ({wants:?} days, not {has:?}); to change it, run ALTER TABLE {name} {statement}"
    ))
}

/// The numbers that follow a word.
fn days(text: &str, before: &str) -> Vec<u32> {
    text.split(before).skip(1).filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()).collect()
}

/// What stands in the first parentheses of `Engine(arguments) PARTITION BY ...`.
fn arguments(engine_full: &str) -> String {
    let inside = engine_full.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(inside, _)| inside);
    inside.replace('`', "")
}

/// The value of `name = value` among the settings of a table.
fn setting<'t>(engine_full: &'t str, name: &str) -> Option<&'t str> {
    let settings = engine_full.rsplit("SETTINGS ").next()?;
    settings.split([',', '\n']).find_map(|pair| pair.split_once('=').filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()))
}

/// Whether an engine's tokens and parts are kept by Keeper, for all replicas.
pub(super) fn is_replicated(engine: &str) -> bool {
    engine.starts_with("Replicated") || engine.starts_with("Shared")
}

/// A name as SQL writes it whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use model::kinds::{BAR, TRADE};

    use super::*;

    fn found(kind: &Kind) -> Found {
        let mut columns: Vec<(String, String)> = kind.columns.iter().map(|c| (c.name.to_string(), clickhouse_type(c))).collect();
        let (engine, full) = if kind.revisable {
            columns.extend([(VERSION.into(), "Int64".into()), (IS_DELETED.into(), "Bool".into())]);
            (
                "ReplacingMergeTree",
                "ReplacingMergeTree(version, is_deleted) PARTITION BY toDate(start) ORDER BY (venue, market) TTL toDateTime(start) + toIntervalDay(7) SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 8192",
            )
        } else {
            (
                "MergeTree",
                "MergeTree PARTITION BY toDate(event_time) ORDER BY (venue, market) SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 8192",
            )
        };
        Found { engine: engine.into(), engine_full: full.into(), sorting_key: kind.key.join(", "), columns }
    }

    fn text(kind: &Kind, found: &Found) -> String {
        differences(kind, "`db`.`t`", found, &[(WINDOW.into(), "0".into()), (REPLICATED_WINDOW.into(), "10000".into())])
            .map_or_else(String::new, |(what, remedy)| format!("{what}; {remedy}"))
    }

    #[test]
    fn tables_as_they_should_be_are_taken() {
        for kind in [&**TRADE, &**BAR] {
            let mut table = found(kind);
            assert_eq!(text(kind, &table), "");
            table.columns.push(("our_own".into(), "String".into()));
            table.engine = format!("Replicated{}", table.engine);
            assert_eq!(text(kind, &table), "", "replicated, with a column of the user's");
        }
        let mut table = found(&BAR);
        table.engine_full = table.engine_full.replace("(version", "('/path', '{replica}', version");
        assert_eq!(text(&BAR, &table), "");
    }

    #[test]
    fn differences_are_named_with_their_remedy() {
        let change = |kind: &Kind, change: &dyn Fn(&mut Found)| {
            let mut table = found(kind);
            change(&mut table);
            text(kind, &table)
        };
        let columns = change(&TRADE, &|t| {
            t.columns.remove(0);
            t.columns[6].1 = "Float64".into();
        });
        assert_eq!(
            columns,
            "column `venue` is missing, column `price` is Float64, but has to be Decimal(38, 12); run ALTER TABLE `db`.`t` ADD COLUMN `venue` LowCardinality(String), \
             MODIFY COLUMN `price` Decimal(38, 12); or move the table away (RENAME TABLE `db`.`t` TO another name) and start again, or set another `database`"
        );
        assert!(
            change(&TRADE, &|t| t.engine = "Memory".into())
                .starts_with("the engine is Memory, but `trade` needs MergeTree; move the table away")
        );
        assert!(
            change(&BAR, &|t| t.engine = "MergeTree".into()).starts_with("the engine is MergeTree, but `bar` needs ReplacingMergeTree;")
        );
        let version = change(&BAR, &|t| t.engine_full = "ReplacingMergeTree(version) ORDER BY x".into());
        assert!(
            version.starts_with("the engine is ReplacingMergeTree(version), but `bar` needs ReplacingMergeTree(version, is_deleted);"),
            "{version}"
        );
        let key = change(&BAR, &|t| t.sorting_key = "symbol".into());
        assert!(
            key.starts_with("the sort key is (symbol), but a `bar` is identified by (venue, market, symbol, interval_seconds, start);"),
            "{key}"
        );
        let window = change(&TRADE, &|t| t.engine_full = "MergeTree ORDER BY x SETTINGS index_granularity = 8192".into());
        assert!(window.ends_with("run ALTER TABLE `db`.`t` MODIFY SETTING non_replicated_deduplication_window = 10000"), "{window}");
    }

    #[test]
    fn another_retention_is_told_and_not_changed() {
        let ddl = |keep, warm, policy: Option<&str>| {
            clickhouse_ddl(&BAR, "db", &Retention { drop_after_days: keep, warm_after_days: warm, storage_policy: policy.map(Into::into) })
                .unwrap()
        };
        let advice = |ddl: &str| other_retention("`db`.`bars`", &found(&BAR), ddl).unwrap_or_default();
        assert_eq!(advice(&ddl(Some(7), None, None)), "");
        assert!(advice(&ddl(Some(30), None, None)).contains(
            "([30] days, not [7]); to change it, run ALTER TABLE `db`.`bars` MODIFY TTL toDateTime(`start`) + INTERVAL 30 DAY DELETE"
        ));
        assert!(advice(&ddl(None, None, None)).ends_with("ALTER TABLE `db`.`bars` REMOVE TTL"));
        assert!(advice(&ddl(Some(7), Some(1), None)).contains("[1, 7] days, not [7]"));
        assert!(advice(&ddl(Some(7), None, Some("tiered"))).ends_with("MODIFY SETTING storage_policy = 'tiered'"));
    }
}
