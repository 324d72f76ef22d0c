//! `clickhouse`: records into ClickHouse, one table per kind, each row exactly once.
//!
//! - Tables are made from the kinds' declarations, or checked: columns, types, engine, and what exactly-once needs.
//! - An epoch becomes inserts of one block of one partition each, which ClickHouse stores whole or not at all, under a
//!   token that it recognises when the insert is repeated (see `blocks`). What it acknowledges of an insert that may have been
//!   tried before is believed when a row of it is seen (see `witness`). So rows are neither lost nor doubled when the server,
//!   the network or this process fails in between.
//! - A revisable record is written with its logical time as version into a `ReplacingMergeTree`, which is idempotent by
//!   itself; a record that was taken back is written as deleted. `SELECT ... FINAL` sees the newest version of each.
//! - What may pass (a server that restarts, too many parts, a memory limit) is retried with the same tokens, each
//!   attempt logged with its reason. What stays is an error at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use config::settings::HotStore;
use config::values::{self, Secret};
use config::{Check, Checked, Component};
use futures::{StreamExt, TryStreamExt};
use model::tables::{Retention, in_clickhouse};
use model::time::{self, Time};
use model::{Account, Batch, crash};
use schemars::JsonSchema;
use serde::Deserialize;
use storage::attempts::{Attempts, retry};

use crate::inputs::{by_kind, written};
use crate::{Epoch, OpenSink, Sink, SinkError, Writer};

mod blocks;
mod server;
mod tables;
mod witness;

use blocks::{Block, CHUNK};
use server::{Address, Server};
use tables::quoted;

/// More rows than a block has, as a setting.
const BLOCK_ROWS: &str = "1000000000";
/// Inserts that are under way at once.
const PARALLEL: usize = 4;
/// Under how many tokens rows are inserted that are acknowledged and not there. A server would have to be killed at the wrong
/// moment under each of them, so it is the table that does not keep the rows.
const REPEATED: u32 = 4;

/// Writes records into ClickHouse, one table per kind, each row exactly once. Where the server is comes from `[hot]`
/// in the settings, which SQL reads too.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClickHouse {
    /// Another server than the settings' `[hot]`: its HTTP address, e.g. `http://127.0.0.1:8123`. SQL does not read it.
    #[serde(default)]
    url: Option<String>,
    /// The database; made if it does not exist. Default: that of `[hot]`, or `marketprism` beside `url`.
    #[serde(default)]
    database: Option<String>,
    /// The user at `url`. Default `default`.
    #[serde(default)]
    user: Option<String>,
    /// The user's password at `url`.
    #[serde(default)]
    password: Option<Secret>,
    /// Days after which new tables drop rows; 0 keeps them. Default: `keep_days` of `[hot]`; beside `url` rows are kept.
    #[serde(default)]
    keep_days: Option<u32>,
    /// Give up when a server has refused a row for so long. Default: never; the log tells of every attempt.
    #[serde(default)]
    give_up_after: Option<values::Duration>,
}

impl Component<dyn Sink> for ClickHouse {
    const TYPE: &'static str = "clickhouse";
    const EXAMPLE: &'static str = r#"[sinks.hot]
type = "clickhouse"
inputs = ["trades", "bars_1m"]
"#;

    fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Sink>> {
        if let Some(kinds) = written(cx)
            && let Some(kind) = kinds.iter().find(|k| !in_clickhouse(k))
        {
            let help = match kind.name.as_ref() {
                "frame" => "put `normalise` between the source and this sink; the sinks `parquet` and `nats` keep frames as they are",
                _ => "name an operator that turns them into a kind with a table",
            };
            cx.error(&["inputs"], format!("`{}` records have no table in ClickHouse", kind.name), help);
        }
        match &self.url {
            Some(url) => {
                if let Err(problem) = checked_url(url) {
                    cx.error(&["url"], format!("`url` {problem}"), URL_HELP);
                }
            }
            None => {
                for (key, given) in [("user", self.user.is_some()), ("password", self.password.is_some())] {
                    if given {
                        cx.error(
                            &[key],
                            format!("`{key}` says who we are at `url`, which is not set"),
                            format!("set `url`, or `{key}` in [hot] of the settings"),
                        );
                    }
                }
            }
        }
        if self.database.as_deref() == Some("") {
            cx.error(&["database"], "`database` is empty", "name a database");
        }
        Some(Checked { outputs: vec![], component: Arc::new(self) })
    }
}

const URL_HELP: &str = "write the HTTP address, e.g. `http://127.0.0.1:8123`";

/// What is wrong with an address, if anything.
fn checked_url(url: &str) -> Result<(), String> {
    let parsed = url::Url::parse(url).map_err(|e| format!("is no address: {e}"))?;
    if !["http", "https"].contains(&parsed.scheme()) || parsed.host_str().is_none() {
        return Err("is not an HTTP address".into());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("holds a user or password: they have keys of their own".into());
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err("has something behind the address".into());
    }
    Ok(())
}

impl ClickHouse {
    /// Where to write, and for how long rows are kept.
    fn target(&self, hot: Option<&HotStore>) -> Result<(Address, Retention), SinkError> {
        let days = |days: u32| Some(days).filter(|days| *days > 0);
        if let Some(url) = &self.url {
            let address = Address {
                url: url.clone(),
                database: self.database.clone().unwrap_or_else(|| "marketprism".into()),
                user: self.user.clone().unwrap_or_else(|| "default".into()),
                password: self.password.clone().unwrap_or_default(),
            };
            return Ok((address, Retention { drop_after_days: self.keep_days.and_then(days), ..Retention::default() }));
        }
        let Some(hot) = hot else {
            return Err(SinkError {
                transient: false,
                place: "clickhouse".into(),
                what: "the settings name no ClickHouse".into(),
                remedy: "add two lines to marketprism.toml:\n    [hot]\n    url = \"http://127.0.0.1:8123\"\nor set `url` in the sink"
                    .into(),
            });
        };
        checked_url(&hot.url).map_err(|problem| SinkError {
            transient: false,
            place: "[hot] in the settings".into(),
            what: format!("`url` {problem}"),
            remedy: URL_HELP.into(),
        })?;
        let address = Address {
            url: hot.url.clone(),
            database: self.database.clone().unwrap_or_else(|| hot.database.clone()),
            user: hot.user.clone(),
            password: hot.password.clone(),
        };
        let retention = Retention {
            warm_after_days: hot.warm_after_days,
            drop_after_days: days(self.keep_days.unwrap_or(hot.keep_days)),
            storage_policy: hot.storage_policy.clone(),
        };
        Ok((address, retention))
    }
}

#[async_trait]
impl Sink for ClickHouse {
    fn keeps_dead_letters(&self) -> bool {
        true
    }

    async fn open(&self, cx: OpenSink) -> Result<Box<dyn Writer>, SinkError> {
        let (address, retention) = self.target(cx.settings.hot.as_ref())?;
        let mut server = Server::new(address);
        let version = server.rows::<String>("SELECT version()", &[]).await.map_err(|failure| server.error(None, failure))?;
        server.insist().await.map_err(|failure| server.error(None, failure))?;
        tables::prepare(&server, &cx.kinds, &retention).await?;
        tracing::info!(url = server.url(), database = server.database(), version = version.first(), "writing to ClickHouse");
        Ok(Box::new(Tables {
            prefix: blocks::token_prefix(&cx),
            server,
            keep_days: retention.drop_after_days,
            expired: BTreeSet::new(),
            patience: self.give_up_after.map(|d| d.0),
            account: cx.account,
        }))
    }
}

/// The open sink.
struct Tables {
    /// What tokens begin with.
    prefix: String,
    server: Server,
    keep_days: Option<u32>,
    /// Tables that were given rows which the server will drop at once: told once.
    expired: BTreeSet<String>,
    patience: Option<Duration>,
    account: Arc<Account>,
}

#[async_trait]
impl Writer for Tables {
    async fn commit(&mut self, epoch: Epoch, rows: Vec<(Time, Batch)>) -> Result<(), SinkError> {
        if rows.is_empty() {
            return Ok(());
        }
        let prefix = self.prefix.clone();
        let planned = tokio::task::spawn_blocking(move || plan(&prefix, epoch, rows)).await;
        let plan = planned.map_err(|e| bug(e.to_string()))?.map_err(|e| bug(e.to_string()))?;
        for block in &plan.blocks {
            self.warn_of_expiry(block);
        }
        let inserts: Vec<_> = plan.blocks.iter().map(|block| self.insert(block, epoch.again)).collect();
        futures::stream::iter(inserts).buffer_unordered(PARALLEL).try_collect::<()>().await?;
        for Counts { kind, rows, retracted, bytes } in plan.counts {
            self.account.accept(rows);
            self.account.send(&kind, rows, retracted, bytes);
        }
        self.account.ignore(plan.ignored);
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

/// What an epoch comes to.
struct Plan {
    blocks: Vec<Block>,
    counts: Vec<Counts>,
    /// Rows of kinds that have no table.
    ignored: usize,
}

struct Counts {
    kind: String,
    rows: usize,
    retracted: usize,
    bytes: usize,
}

fn plan(prefix: &str, epoch: Epoch, rows: Vec<(Time, Batch)>) -> Result<Plan, arrow::error::ArrowError> {
    let mut plan = Plan { blocks: Vec::new(), counts: Vec::new(), ignored: 0 };
    for (kind, batches) in by_kind(rows) {
        let count = |of: fn(&Batch) -> usize| batches.iter().map(|(_, batch)| of(batch)).sum();
        if !in_clickhouse(&kind) {
            plan.ignored += count(Batch::len);
            continue;
        }
        plan.counts.push(Counts {
            kind: kind.name.to_string(),
            rows: count(Batch::len),
            retracted: count(Batch::retractions),
            bytes: count(Batch::bytes),
        });
        plan.blocks.extend(blocks::blocks(prefix, epoch, &kind, &batches, CHUNK)?);
    }
    Ok(plan)
}

impl Tables {
    /// Inserts a block, however often it takes. `again`: somebody may have tried before.
    async fn insert(&self, block: &Block, again: bool) -> Result<(), SinkError> {
        let columns: Vec<String> = block.rows.schema_ref().fields().iter().map(|f| quoted(f.name())).collect();
        let statement =
            format!("INSERT INTO {}.{} ({}) FORMAT ArrowStream", quoted(self.server.database()), quoted(&block.table), columns.join(", "));
        let body = block.body().map_err(|e| bug(e.to_string()))?;
        let mut token = block.token.clone();
        for repeated in 1..=REPEATED {
            let tried = AtomicU32::new(0);
            let insert = || {
                tried.fetch_add(1, Ordering::Relaxed);
                self.server.insert(&statement, &token, &body)
            };
            let inserted = retry(self.attempts(block, &token), self.patience, insert).await;
            inserted.map_err(|failure| self.server.error(Some(&block.table), failure))?;
            // Under a later token somebody may have tried before as well.
            let doubtful = again || tried.into_inner() > 1;
            if !doubtful || self.holds(block).await? {
                break;
            }
            let (table, rows) = (format!("{}.{}", self.server.database(), block.table), block.rows.num_rows());
            if repeated == REPEATED {
                tracing::warn!(
                    table,
                    token,
                    rows,
                    "ClickHouse acknowledged rows {REPEATED} times that are not there: something deletes them"
                );
                break;
            }
            tracing::warn!(
                table,
                token,
                rows,
                "ClickHouse took a repeated insert for one that it has, but has not its rows: inserting them under another token"
            );
            token = format!("{}/{repeated}", block.token);
        }
        crash::point("inserted");
        tracing::debug!(token, rows = block.rows.num_rows(), "inserted");
        Ok(())
    }

    /// Attempts at something with a block.
    fn attempts(&self, block: &Block, name: &str) -> Attempts {
        Attempts::new(&self.account, format!("{} table {}.{}", self.server.url(), self.server.database(), block.table), name)
    }

    /// Whether an acknowledged block is in its table.
    async fn holds(&self, block: &Block) -> Result<bool, SinkError> {
        let (condition, texts) = witness::condition(&block.rows);
        let found = || self.server.holds(&block.table, &condition, &texts);
        let found = retry(self.attempts(block, &block.token), self.patience, found).await;
        let found = found.map_err(|failure| self.server.error(Some(&block.table), failure))?;
        // What is too old was dropped when it came.
        Ok(found || self.is_expired(block))
    }

    fn is_expired(&self, block: &Block) -> bool {
        let today = time::now().div_euclid(86_400 * time::SECOND);
        self.keep_days.is_some_and(|days| block.day + i64::from(days) < today)
    }

    fn warn_of_expiry(&mut self, block: &Block) {
        let Some(days) = self.keep_days else { return };
        if self.is_expired(block) && self.expired.insert(block.table.clone()) {
            tracing::warn!(
                table = format!("{}.{}", self.server.database(), block.table),
                kind = %block.kind.name,
                "rows are older than the {days} days that ClickHouse keeps them, so it drops them soon; set `keep_days = 0` before the table is made to keep history"
            );
        }
    }
}

fn bug(what: String) -> SinkError {
    SinkError {
        transient: false,
        place: "clickhouse".into(),
        what,
        remedy: "this is a bug: please report it with the pipeline file".into(),
    }
}

#[cfg(test)]
mod tests {
    use config::component;
    use config::settings::Settings;
    use model::Kind;
    use model::kinds::{FRAME, TRADE};

    use super::*;
    use crate::testing::{opening, words};

    fn checked(options: &str, kind: &Arc<Kind>) -> Result<Arc<dyn Sink>, String> {
        component::<dyn Sink, ClickHouse>(options, std::slice::from_ref(kind)).map(|checked| checked.component)
    }

    fn sink(options: &str) -> ClickHouse {
        serde_json::from_value(toml_value(options)).unwrap()
    }

    fn toml_value(options: &str) -> serde_json::Value {
        // One line of JSON is easier to read in a test than a parser more among the dependencies.
        serde_json::from_str(options).unwrap()
    }

    fn hot() -> HotStore {
        HotStore {
            url: "http://h:8123".into(),
            database: "market".into(),
            user: "writer".into(),
            password: Secret::new("pw"),
            keep_days: 7,
            warm_after_days: Some(2),
            storage_policy: Some("tiered".into()),
        }
    }

    #[test]
    fn the_server_comes_from_the_settings_or_from_the_options() {
        let (address, retention) = sink("{}").target(Some(&hot())).unwrap();
        assert_eq!(
            (address.url.as_str(), address.database.as_str(), address.user.as_str(), address.password.expose()),
            ("http://h:8123", "market", "writer", "pw")
        );
        assert_eq!(retention, Retention { warm_after_days: Some(2), drop_after_days: Some(7), storage_policy: Some("tiered".into()) });
        let (address, retention) = sink(r#"{"database": "other", "keep_days": 0}"#).target(Some(&hot())).unwrap();
        assert_eq!((address.database.as_str(), retention.drop_after_days), ("other", None));
        // Never the settings' password at another server.
        let (address, retention) = sink(r#"{"url": "http://x:1"}"#).target(Some(&hot())).unwrap();
        assert_eq!(
            (address.url.as_str(), address.database.as_str(), address.user.as_str(), address.password.expose()),
            ("http://x:1", "marketprism", "default", "")
        );
        assert_eq!(retention, Retention::default());
    }

    #[tokio::test]
    async fn without_a_server_the_two_lines_are_named() {
        let error = words(sink("{}").open(opening(&[&TRADE])).await);
        assert!(error.contains("[hot]\n    url = \"http://127.0.0.1:8123\""), "{error}");
        let mut cx = opening(&[&TRADE]);
        cx.settings = Arc::new(Settings { hot: Some(HotStore { url: "h:8123/x".into(), ..hot() }), ..Settings::default() });
        let error = words(sink("{}").open(cx).await);
        assert_eq!(error, "[hot] in the settings: `url` is not an HTTP address; write the HTTP address, e.g. `http://127.0.0.1:8123`");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let error = words(sink(&format!(r#"{{"url": "{url}"}}"#)).open(opening(&[&TRADE])).await);
        assert!(error.starts_with(&url) && error.contains("refused") && error.contains("start ClickHouse, or correct `url`"), "{error}");
        let error = words(sink(r#"{"url": "http://no-such-host.invalid:8123"}"#).open(opening(&[&TRADE])).await);
        assert!(error.contains("dns error") && error.ends_with("check the host name in `url`"), "{error}");
    }

    #[test]
    fn options_are_checked() {
        assert!(checked("", &TRADE).is_ok());
        assert!(checked("url = 'https://ch.example:8443'\nuser = 'u'\npassword = 'p'", &TRADE).is_ok());
        assert_eq!(checked("", &FRAME).unwrap_err(), "inputs: `frame` records have no table in ClickHouse");
        assert_eq!(checked("user = 'u'", &TRADE).unwrap_err(), "user: `user` says who we are at `url`, which is not set");
        assert_eq!(checked("url = 'localhost:8123'", &TRADE).unwrap_err(), "url: `url` is not an HTTP address");
        assert_eq!(
            checked("url = 'http://u:p@h:8123'", &TRADE).unwrap_err(),
            "url: `url` holds a user or password: they have keys of their own"
        );
        assert_eq!(checked("url = 'http://h:8123?database=x'", &TRADE).unwrap_err(), "url: `url` has something behind the address");
    }
}
