//! Connections to NATS JetStream: what the source and the sink of that name share.
//!
//! [`Connection`] is the options that say where the servers are and who we are, [`JetStream`] the few requests that
//! MarketPrism makes of them, [`Failure`] why one did not succeed, whether it may later, and what to do about it.
//! [`headers`] names what a message carries beside its payload, and [`subjects`] writes and compares subjects.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use async_nats::{ConnectErrorKind, ConnectOptions, ServerAddr};
use config::Check;
use config::values::Secret;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;

mod jetstream;
pub mod subjects;

pub use jetstream::{JetStream, Retention, StreamInfo, StreamState};

/// Headers of messages.
pub mod headers {
    /// When a frame was received, in nanoseconds since 1970; [`UNKNOWN`] where its recording does not tell.
    pub const RECEIVE_TIME: &str = "Marketprism-Receive-Time";
    /// The value of [`RECEIVE_TIME`] of a frame of which nobody knows when it was received.
    pub const UNKNOWN: &str = "unknown";
    /// The number of a frame in the source that gave it.
    pub const FRAME: &str = "Marketprism-Frame";
    /// The connection that a frame came over, where it came over one.
    pub const CONNECTION: &str = "Marketprism-Connection";
    /// The venue dialect of a frame.
    pub const DIALECT: &str = "Marketprism-Dialect";
    /// The venue's symbol that a frame was asked for, where the frame itself names none.
    pub const TOPIC: &str = "Marketprism-Topic";
    /// The kind of a record.
    pub const KIND: &str = "Marketprism-Kind";
    /// Of a kind that can be revised: 1 where the record is asserted, -1 where it is taken back.
    pub const DIFF: &str = "Marketprism-Diff";
    /// What JetStream recognises a repeated message by.
    pub const MESSAGE_ID: &str = "Nats-Msg-Id";
    /// The stream that a message is meant for: another one refuses it.
    pub const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
}

/// Where NATS is, and who we are there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct Connection {
    /// Addresses of the servers, one or several of a cluster: `nats://127.0.0.1:4222`, or `tls://` for TLS.
    #[serde(default = "default_servers")]
    pub servers: Servers,
    /// The user. Needs `password`.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A token instead of a user.
    #[serde(default)]
    pub token: Option<Secret>,
    /// A file with an nkey seed (`SU...`), instead of a user.
    #[serde(default)]
    pub nkey: Option<PathBuf>,
    /// A credentials file (`.creds`: a JWT with its seed), instead of a user.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// A file with the certificates (PEM) that the servers' certificates are signed with. Default: the system's.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// A file with our own certificate (PEM), where the servers ask for one. Needs `tls_key`.
    #[serde(default)]
    pub tls_certificate: Option<PathBuf>,
    /// A file with the key (PEM) of `tls_certificate`.
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// The JetStream domain, where it is not the account's own.
    #[serde(default)]
    pub domain: Option<String>,
}

/// One address or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Servers {
    /// One.
    One(String),
    /// Several, of one cluster.
    Several(Vec<String>),
}

impl Default for Servers {
    fn default() -> Self {
        default_servers()
    }
}

fn default_servers() -> Servers {
    Servers::One("nats://127.0.0.1:4222".into())
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.list().join(", "))
    }
}

impl Servers {
    fn list(&self) -> &[String] {
        match self {
            Servers::One(server) => std::slice::from_ref(server),
            Servers::Several(servers) => servers,
        }
    }
}

/// What becomes of a connection that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It is made again, and what waits to be sent is sent then.
    Mended,
    /// It stays broken, and what waits to be sent never is: who published in order begins anew with another one.
    Abandoned,
}

/// How often servers are asked for a sign of life.
const PING: Duration = Duration::from_secs(10);
/// The longest that a server may take to greet us.
const GREETING: Duration = Duration::from_secs(5);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The pause after so many failed attempts: 0.1 s, doubling up to 10 s.
pub fn pause(attempts: u32) -> Duration {
    Duration::from_millis(100).saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

impl Connection {
    /// Checks the options against each other. Reads no file.
    pub fn check(&self, cx: &mut Check<'_>) {
        let servers = self.servers.list();
        if servers.is_empty() {
            cx.error(&["servers"], "no server", "name one, e.g. `nats://127.0.0.1:4222`");
        }
        for server in servers {
            let problem = match server.parse::<ServerAddr>() {
                Err(error) => error.to_string(),
                Ok(_) if server.contains(',') => "is several addresses in one text".into(),
                Ok(address) if address.has_user_pass() => "holds a user or password: they have keys of their own".into(),
                Ok(address) if !["nats", "tls"].contains(&address.scheme()) => "is neither nats:// nor tls://".into(),
                Ok(_) => continue,
            };
            cx.error(
                &["servers"],
                format!("`{server}` is no address of a server: {problem}"),
                "write `nats://HOST:4222`, or a list: servers = [\"nats://a:4222\", \"nats://b:4222\"]",
            );
        }
        let ways = [
            ("user", self.user.is_some()),
            ("token", self.token.is_some()),
            ("nkey", self.nkey.is_some()),
            ("credentials", self.credentials.is_some()),
        ];
        let given: Vec<&str> = ways.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
        if let [first, second, ..] = given[..] {
            cx.error(&[second], format!("`{first}` and `{second}` both say who we are"), "keep one of them");
        }
        if self.user.is_some() != self.password.is_some() {
            let (there, missing) = if self.user.is_some() { ("user", "password") } else { ("password", "user") };
            cx.error(&[there], format!("`{there}` without `{missing}`"), format!("set `{missing}` too"));
        }
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            let (there, missing) =
                if self.tls_certificate.is_some() { ("tls_certificate", "tls_key") } else { ("tls_key", "tls_certificate") };
            cx.error(&[there], format!("`{there}` without `{missing}`"), format!("set `{missing}` too"));
        }
    }

    /// The servers, for errors and logs.
    pub fn place(&self) -> String {
        self.servers.to_string()
    }

    /// Connects. `name` is what the server's own reports call the connection.
    ///
    /// # Errors
    /// A server that is not there or refuses us, a file that cannot be read. See [`Failure::transient`].
    pub async fn connect(&self, name: &str, broken: Broken) -> Result<JetStream, Failure> {
        // Other crates bring a second implementation of TLS's ciphers, and rustls wants to be told which to take.
        // Where one was chosen before, it is kept: either is right.
        static CIPHERS: Once = Once::new();
        CIPHERS.call_once(|| {
            let _chosen_before = async_nats::rustls::crypto::ring::default_provider().install_default();
        });
        let (times, state) = watch::channel(State::default());
        let made = Arc::new(AtomicBool::new(false));
        let mut options = ConnectOptions::new().name(name).ping_interval(PING).connection_timeout(GREETING).event_callback(move |event| {
            match event {
                async_nats::Event::Connected => times.send_modify(|state| state.connected += 1),
                async_nats::Event::Disconnected => times.send_modify(|state| state.disconnected += 1),
                // A connection that nobody uses any more.
                async_nats::Event::Closed => {}
                other => tracing::warn!("NATS: {other}"),
            }
            std::future::ready(())
        });
        if broken == Broken::Abandoned {
            // The client has no way to be told not to connect again. It is dropped, with the runtime that it runs on,
            // long before this is over.
            const NEVER: Duration = Duration::from_secs(365 * 86_400);
            let made = made.clone();
            options = options.reconnect_delay_callback(move |_| if made.load(Ordering::Relaxed) { NEVER } else { Duration::ZERO });
        } else {
            options = options.reconnect_delay_callback(|attempts| match attempts {
                0 | 1 => Duration::ZERO,
                more => pause(u32::try_from(more - 1).unwrap_or(u32::MAX)),
            });
        }
        if let (Some(user), Some(password)) = (&self.user, &self.password) {
            options = options.user_and_password(user.clone(), password.expose().to_owned());
        }
        if let Some(token) = &self.token {
            options = options.token(token.expose().to_owned());
        }
        if let Some(path) = &self.nkey {
            let seed = tokio::fs::read_to_string(path).await.map_err(|e| unreadable("nkey", path, &e))?;
            // Comments and blank lines may stand around the seed.
            let seed = seed.lines().map(str::trim).find(|line| line.starts_with('S'));
            let seed = seed.ok_or_else(|| unreadable("nkey", path, "holds no seed, which begins with `SU`"))?;
            options = options.nkey(seed.to_owned());
        }
        if let Some(path) = &self.credentials {
            options = options.credentials_file(path).await.map_err(|e| unreadable("credentials", path, &e))?;
        }
        for (key, path) in [("tls_ca", &self.tls_ca), ("tls_certificate", &self.tls_certificate), ("tls_key", &self.tls_key)] {
            if let Some(path) = path {
                tokio::fs::metadata(path).await.map_err(|e| unreadable(key, path, &e))?;
            }
        }
        if let Some(path) = &self.tls_ca {
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        if let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) {
            options = options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
        }
        let servers: Result<Vec<ServerAddr>, _> = self.servers.list().iter().map(|server| server.parse()).collect();
        let servers = servers.map_err(|error| Failure::fatal(error, "correct `servers`"))?;
        let client = options.connect(servers).await.map_err(|error| refused(&error))?;
        made.store(true, Ordering::Relaxed);
        Ok(JetStream::new(client, self.domain.as_deref(), state))
    }
}

/// How often a connection was made and broke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Times that it was made.
    pub connected: u64,
    /// Times that it broke.
    pub disconnected: u64,
}

fn unreadable(key: &str, path: &std::path::Path, why: impl fmt::Display) -> Failure {
    Failure::fatal(format_args!("{}: {why}", path.display()), format!("give `{key}` a file that is there and can be read"))
}

/// Why a server could not be connected to.
fn refused(error: &async_nats::ConnectError) -> Failure {
    let words = chain(error);
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            Failure::fatal(words, "check `user` and `password`, `token`, `nkey` or `credentials`, and what the server knows of them")
        }
        ConnectErrorKind::ServerParse => Failure::fatal(words, "correct `servers`"),
        ConnectErrorKind::Tls => Failure::fatal(words, TLS),
        _ if words.to_lowercase().contains("certificate") => Failure::fatal(words, TLS),
        ConnectErrorKind::Dns => Failure::transient(words, "check the host names in `servers`"),
        ConnectErrorKind::TimedOut | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
            Failure::transient(words, "start the NATS server, or correct `servers`; where it demands TLS, write tls:// and set `tls_ca`")
        }
    }
}

const TLS: &str = "check `tls_ca`, `tls_certificate` and `tls_key`, and that the certificate is made out to the host in `servers`";

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors say what their cause says.
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}

/// Why something did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct Failure {
    /// Whether the same may succeed later.
    pub transient: bool,
    /// JetStream's number of the error, where it has one.
    pub code: Option<u64>,
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Failure {
    /// One that stays.
    pub fn fatal(what: impl fmt::Display, remedy: impl Into<String>) -> Self {
        Failure { transient: false, code: None, what: what.to_string(), remedy: remedy.into() }
    }

    /// One that may pass.
    pub fn transient(what: impl fmt::Display, remedy: impl Into<String>) -> Self {
        Failure { transient: true, code: None, what: what.to_string(), remedy: remedy.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(options: &str) -> Vec<String> {
        let connection: Connection = serde_json::from_str(options).unwrap();
        let mut cx = Check::new("n", &[]);
        connection.check(&mut cx);
        cx.into_problems().into_iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect()
    }

    #[test]
    fn options_are_checked() {
        assert!(problems("{}").is_empty());
        assert!(problems(r#"{"servers": ["nats://a:4222", "tls://b"], "credentials": "x.creds", "tls_ca": "ca.pem"}"#).is_empty());
        assert_eq!(problems(r#"{"user": "u"}"#), ["user: `user` without `password`"]);
        assert_eq!(problems(r#"{"user": "u", "password": "p", "token": "t"}"#), ["token: `user` and `token` both say who we are"]);
        assert_eq!(problems(r#"{"tls_key": "k"}"#), ["tls_key: `tls_key` without `tls_certificate`"]);
        assert_eq!(problems(r#"{"servers": []}"#), ["servers: no server"]);
        for (server, problem) in [("nats://u:p@a", "holds a user or password"), ("nats://a:4222,nats://b:4222", ""), ("http://a", "")] {
            let found = problems(&format!(r#"{{"servers": "{server}"}}"#));
            assert!(found.len() == 1 && found[0].contains(problem), "{server}: {found:?}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let connection: Connection = serde_json::from_str(r#"{"user": "u", "password": "hunter2", "token": "hunter3"}"#).unwrap();
        assert!(!format!("{connection:?}").contains("hunter"));
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!([0, 1, 2, 3, 100].map(|n| pause(n).as_millis()), [100, 100, 200, 400, 10_000]);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_may_come() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let connection = Connection { servers: Servers::One(format!("nats://127.0.0.1:{port}")), ..Connection::default() };
        let failure = connection.connect("test", Broken::Mended).await.err().unwrap();
        assert!(failure.transient && failure.what.contains("refused") && failure.remedy.contains("start the NATS server"), "{failure}");
        let failure = Connection { nkey: Some("/no/such/file".into()), ..connection }.connect("test", Broken::Mended).await.err().unwrap();
        assert!(!failure.transient && failure.to_string().contains("/no/such/file: No such file"), "{failure}");
    }
}
