//! One ClickHouse server over HTTP: statements, inserts, and what its errors mean.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use clickhouse::error::Error;
use clickhouse::{Client, RowOwned, RowRead};
use config::values::Secret;
use storage::attempts::MayPass;
use storage::say;

use super::tables::{is_replicated, quoted};
use crate::SinkError;

/// The longest that a statement may take that inserts nothing.
const STATEMENT: Duration = Duration::from_secs(30);
/// The longest that the server may take no bytes of an insert.
const SEND: Duration = Duration::from_secs(60);
/// The longest that the server may take to store what it was sent.
const STORE: Duration = Duration::from_secs(300);
/// Bytes that are compressed and sent at once.
const PIECE: usize = 1 << 20;

/// Where the server is and how it knows us.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Address {
    pub(super) url: String,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) password: Secret,
}

/// A server that tables are written to.
pub(super) struct Server {
    address: Address,
    client: Client,
}

impl Server {
    pub(super) fn new(address: Address) -> Self {
        let client = Client::default()
            .with_url(&address.url)
            .with_user(&address.user)
            .with_password(address.password.expose())
            .with_product_info("marketprism", env!("CARGO_PKG_VERSION"))
            // Said explicitly: newer servers would gather inserts and forget their tokens' meaning.
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "1")
            // A block that is sent stays one block.
            .with_setting("max_insert_threads", "1")
            .with_setting("max_insert_block_size", super::BLOCK_ROWS)
            .with_setting("min_insert_block_size_rows", super::BLOCK_ROWS)
            .with_setting("min_insert_block_size_bytes", "0")
            // A column or a value that is missing is an error and never a default.
            .with_setting("input_format_arrow_allow_missing_columns", "0")
            .with_setting("input_format_null_as_default", "0");
        Server { address, client }
    }

    /// Makes sure of what a profile of the server may have switched off, in the words that this version knows.
    pub(super) async fn insist(&mut self) -> Result<(), Failure> {
        // Replaced `insert_deduplicate` in 26.2.
        let known = self.rows::<String>("SELECT name FROM system.settings WHERE name = ?", &["deduplicate_insert"]).await?;
        if !known.is_empty() {
            self.client = self.client.clone().with_setting("deduplicate_insert", "enable");
        }
        Ok(())
    }

    pub(super) fn database(&self) -> &str {
        &self.address.database
    }

    /// The server, for errors and logs.
    pub(super) fn url(&self) -> &str {
        &self.address.url
    }

    /// Runs a statement that returns nothing.
    pub(super) async fn execute(&self, sql: &str) -> Result<(), Failure> {
        // A question mark would stand for an argument.
        let query = self.client.query(&sql.replace('?', "??"));
        timed(query.execute()).await
    }

    /// Runs a query with text arguments in place of its question marks.
    pub(super) async fn rows<R>(&self, sql: &str, arguments: &[&str]) -> Result<Vec<R>, Failure>
    where
        R: RowOwned + RowRead,
    {
        let query = arguments.iter().fold(self.client.query(sql), |query, argument| query.bind(*argument));
        timed(query.fetch_all::<R>()).await
    }

    /// Inserts an Arrow stream under a token.
    pub(super) async fn insert(&self, statement: &str, token: &str, body: &Bytes) -> Result<(), Failure> {
        let mut insert = self
            .client
            .insert_formatted_with(statement)
            .with_timeouts(Some(SEND), Some(STORE))
            .with_setting("insert_deduplication_token", token);
        for start in (0..body.len()).step_by(PIECE) {
            insert.send(body.slice(start..body.len().min(start + PIECE))).await?;
        }
        Ok(insert.end().await?)
    }

    /// Whether a table has a row that meets a condition, with texts in place of its question marks. Of a replicated table it
    /// is taken for granted: there a token and its part are noted at once, and the replica that answers may be behind.
    pub(super) async fn holds(&self, table: &str, condition: &str, texts: &[String]) -> Result<bool, Failure> {
        let engine = "SELECT engine FROM system.tables WHERE database = ? AND name = ?";
        let engine = self.rows::<String>(engine, &[&self.address.database, table]).await?;
        if engine.iter().any(|engine| is_replicated(engine)) {
            return Ok(true);
        }
        let [database, table] = [&self.address.database, table].map(|name| quoted(name).replace('?', "??"));
        let sql = format!("SELECT toUInt64(1) FROM {database}.{table} WHERE {condition} LIMIT 1");
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        Ok(!self.rows::<u64>(&sql, &texts).await?.is_empty())
    }

    /// An error at this server, or at one of its tables.
    pub(super) fn error(&self, table: Option<&str>, failure: Failure) -> SinkError {
        let place = match table {
            Some(table) => format!("{}, table {}.{table}", self.address.url, self.address.database),
            None => self.address.url.clone(),
        };
        SinkError { transient: failure.transient, place, what: failure.what, remedy: failure.remedy }
    }
}

async fn timed<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(STATEMENT, request).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Failure::of(&Error::TimedOut)),
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Whether the same request may succeed later.
    pub(super) transient: bool,
    /// ClickHouse's number of the error, where it has one.
    pub(super) code: Option<u32>,
    /// What happened.
    pub(super) what: String,
    /// What to do about it.
    pub(super) remedy: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::of(&error)
    }
}

/// Errors that stay, with the numbers that ClickHouse gives them: data or a statement that does not fit a table, a
/// table or a right that is not there. Whatever is not listed, such as too many parts (252), a memory limit (241), a
/// full disk (243) or a table that is read-only for now (242), may pass.
const PERMANENT: [(u32, Cause); 50] = [
    (1, Cause::Statement),
    (6, Cause::Data),
    (8, Cause::Schema),
    (10, Cause::Schema),
    (16, Cause::Schema),
    (20, Cause::Schema),
    (26, Cause::Data),
    (27, Cause::Data),
    (36, Cause::Statement),
    (38, Cause::Data),
    (41, Cause::Data),
    (42, Cause::Statement),
    (43, Cause::Schema),
    (44, Cause::Schema),
    (45, Cause::Statement),
    (46, Cause::Statement),
    (47, Cause::Schema),
    (48, Cause::Statement),
    (49, Cause::Statement),
    (50, Cause::Schema),
    (53, Cause::Schema),
    (60, Cause::Table),
    (62, Cause::Statement),
    (69, Cause::Data),
    (70, Cause::Schema),
    (72, Cause::Data),
    (73, Cause::Statement),
    (80, Cause::Statement),
    (81, Cause::Database),
    (86, Cause::Schema),
    (115, Cause::Version),
    (117, Cause::Data),
    (121, Cause::Schema),
    (131, Cause::Data),
    (164, Cause::Rights),
    (190, Cause::Data),
    (192, Cause::Login),
    (193, Cause::Login),
    (194, Cause::Login),
    (218, Cause::Table),
    (291, Cause::Rights),
    (321, Cause::Data),
    (349, Cause::Data),
    (407, Cause::Data),
    (452, Cause::Rights),
    (469, Cause::Data),
    (478, Cause::Storage),
    (497, Cause::Rights),
    (516, Cause::Login),
    (636, Cause::Data),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Statement,
    Data,
    Schema,
    Table,
    Database,
    Rights,
    Login,
    Storage,
    Version,
}

impl Cause {
    fn remedy(self) -> &'static str {
        match self {
            Cause::Statement => "this is a bug, or another program answers at this address: check `url`, then report it",
            Cause::Data => "the table takes no such values: look for a constraint or another type in it",
            Cause::Schema => {
                "the table was changed while the pipeline ran, or differs from what the kind needs: start the pipeline again to see how"
            }
            Cause::Table => "start the pipeline again: it makes tables that are missing",
            Cause::Database => "start the pipeline again: it makes a database that is missing",
            Cause::Rights => "grant the user SELECT, INSERT and CREATE on the database, or let an administrator make the tables",
            Cause::Login => "correct `user` and `password`",
            Cause::Storage => {
                "correct `storage_policy` in [hot]: the server must have it, with a volume `warm` if `warm_after_days` is set"
            }
            Cause::Version => "upgrade ClickHouse: the manual's page on it says what it has to know",
        }
    }
}

impl Failure {
    fn of(error: &Error) -> Self {
        match error {
            Error::BadResponse(text) => Self::of_answer(text),
            Error::Network(_) => Self::of_network(&say(error)),
            Error::TimedOut => Failure {
                transient: true,
                code: None,
                what: "the server did not answer in time".into(),
                remedy: "look at the server's load and log, and at what lies between".into(),
            },
            // Half an answer: the connection broke.
            Error::Decompression(_) | Error::NotEnoughData => {
                Failure { transient: true, code: None, what: say(error), remedy: "look at the connection to the server".into() }
            }
            _ => Failure {
                transient: false,
                code: None,
                what: say(error),
                remedy: "check that `url` is the HTTP address of ClickHouse (port 8123, or 8443 with https)".into(),
            },
        }
    }

    /// An answer that is not success: ClickHouse's words, or those of something between us and it.
    fn of_answer(text: &str) -> Self {
        let text = text.trim();
        let Some(code) = code_of(text) else {
            // ClickHouse answered here when the sink was opened, so something that stands before it speaks.
            return Failure {
                transient: true,
                code: None,
                what: format!("not ClickHouse answered: {}", shortened(text)),
                remedy: "check that `url` is the HTTP address of ClickHouse (port 8123, or 8443 with https), and what lies between".into(),
            };
        };
        let cause = PERMANENT.iter().find(|(known, _)| *known == code).map(|(_, cause)| *cause);
        let remedy = cause.map_or("look at the server's log", Cause::remedy);
        Failure { transient: cause.is_none(), code: Some(code), what: shortened(text), remedy: remedy.into() }
    }

    fn of_network(what: &str) -> Self {
        let remedy = if what.contains("dns error") {
            "check the host name in `url`"
        } else if what.contains("certificate") || what.contains("TLS") || what.contains("InvalidContentType") {
            "check whether `url` begins with http or https as the server wants it, and the server's certificate"
        } else {
            "start ClickHouse, or correct `url`: it is the HTTP address (port 8123, or 8443 with https)"
        };
        Failure { transient: true, code: None, what: what.to_owned(), remedy: remedy.into() }
    }
}

/// The number in `Code: 60. DB::Exception: ...`.
fn code_of(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("Code: ")?;
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

/// The beginning of a long text, on one line.
fn shortened(text: &str) -> String {
    const LENGTH: usize = 500;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

impl MayPass for Failure {
    fn may_pass(&self) -> bool {
        self.transient
    }

    fn words(&self) -> (String, String) {
        (format!("ClickHouse: {}", self.what), self.remedy.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Failure {
        Failure::of(&Error::BadResponse(text.into()))
    }

    #[test]
    fn errors_are_told_apart() {
        let full = answer("Code: 252. DB::Exception: Too many parts (300). (TOO_MANY_PARTS)");
        assert!(full.transient && full.code == Some(252));
        assert!(answer("Code: 241. DB::Exception: Memory limit exceeded").transient);
        for text in ["502 Bad Gateway", "<html>hello</html>", ""] {
            let failure = answer(text);
            assert!(failure.transient && failure.remedy.starts_with("check that `url`"), "{text}: {failure:?}");
        }
        assert!(Failure::of(&Error::TimedOut).transient);
        for (text, remedy) in [
            ("Code: 516. DB::Exception: default: Authentication failed", "correct `user` and `password`"),
            ("Code: 60. DB::Exception: Table a.b does not exist", "it makes tables that are missing"),
            ("Code: 53. DB::Exception: Type mismatch", "differs from what the kind needs"),
            ("Code: 62. DB::Exception: Syntax error", "report it"),
        ] {
            let failure = answer(text);
            assert!(!failure.transient && failure.remedy.contains(remedy), "{text}: {failure:?}");
        }
    }

    #[test]
    fn codes_are_listed_once_and_in_order() {
        assert!(PERMANENT.is_sorted_by(|a, b| a.0 < b.0));
    }
}
