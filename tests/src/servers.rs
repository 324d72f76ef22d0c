//! The real servers the system is tested against, each started by the test that needs it.
//!
//! [`ClickHouse`] is the ClickHouse engine behind its HTTP interface, [`SeaweedFs`] an S3 service, [`Nats`] a NATS server
//! with JetStream and [`NatsCluster`] three of them. Promises:
//!
//! - `start` returns once the server does what it is for, or with the reason and the end of its log.
//! - A server has a folder and ports of its own, so tests run in parallel and leave nothing behind.
//! - `kill` is SIGKILL, and `restart` brings the server back on the same folder and ports.
//! - Servers and their folders end with the test process, however that ends: they run under
//!   `servers/run_until_eof.py`, which kills and removes them when the pipe that this process holds is
//!   closed. One in a `static` is therefore fine.
//!
//! They are installed by `./test`; a missing installation is an error and never a skipped test.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to become ready; two busy cores need a few seconds.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a server may keep silent about a request.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Why a server cannot be used.
#[derive(thiserror::Error)]
pub enum ServerError {
    /// `./test` has not been run, or was interrupted and not repeated.
    #[error("{} does not exist: run ./test once, it installs the servers", .0.display())]
    NotInstalled(PathBuf),
    /// The server ended, or was not ready in time.
    #[error("{server} {reason}; the end of its log:\n{log}")]
    NotStarted {
        /// Which server.
        server: &'static str,
        /// What went wrong.
        reason: String,
        /// The last lines it wrote.
        log: String,
    },
    /// The server answered a request with an error.
    #[error("{server} answered {status}: {text}")]
    Refused {
        /// Which server.
        server: &'static str,
        /// The HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// What a failing test prints: the words, and the log with its lines.
impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Turns the system's refusal into an error that says what was being done.
fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> ServerError {
    move |source| ServerError::Io { doing, source }
}

/// Where `./test` installs the servers: `MARKETPRISM_SERVERS`, or `.servers` in the repository.
pub fn servers_dir() -> PathBuf {
    match std::env::var_os("MARKETPRISM_SERVERS") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../.servers"),
    }
}

/// A program among the installed ones.
fn installed(program: &str) -> Result<OsString, ServerError> {
    let venv = servers_dir().join("venv");
    // Written last by ./test, so that half an installation does not count.
    let complete = venv.join("installed.txt");
    if complete.exists() { Ok(venv.join("bin").join(program).into()) } else { Err(ServerError::NotInstalled(complete)) }
}

/// A script beside the requirements.
fn script(name: &str) -> OsString {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("servers").join(name).into()
}

/// A port of the loopback that nobody listens on and that no other server of this process was given.
///
/// Below the range from which systems give ports to outgoing connections: a server that is restarted
/// finds its port free.
fn free_port() -> u16 {
    const FIRST: u32 = 15_000;
    const COUNT: u32 = 15_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Test processes that run at the same time begin at different places.
    let begin = std::process::id().wrapping_mul(97);
    loop {
        let step = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + begin.wrapping_add(step) % COUNT) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Sends one HTTP request to a port of the loopback; returns the status and the body of the answer.
///
/// # Errors
/// Nobody listens, or there is no answer in time.
pub fn http(port: u16, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    // HTTP/1.0: the end of the answer is the end of the connection.
    let mut request = format!("{method} {target} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;

    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}

/// Whether a request is answered with success.
fn answers(port: u16, method: &str, target: &str, body: &[u8]) -> bool {
    http(port, method, target, &[], body).is_ok_and(|(status, _)| (200..300).contains(&status))
}

/// A server's process: what starts it, what runs of it, and the folder it lives in.
struct Process {
    name: &'static str,
    command: Vec<OsString>,
    launcher: Option<Child>,
    folder: TempDir,
    /// What it leaves outside of its folder.
    litter: Vec<PathBuf>,
}

impl Process {
    fn new(name: &'static str, command: Vec<OsString>, folder: TempDir, litter: Vec<PathBuf>) -> Self {
        Self { name, command, launcher: None, folder, litter }
    }

    fn start(&mut self, ready: impl Fn() -> bool) -> Result<(), ServerError> {
        let log = File::options().create(true).append(true).open(self.log()).map_err(io_error("open a server's log"))?;
        let launcher = Command::new(installed("python")?)
            .arg(script("run_until_eof.py"))
            .arg(self.folder.path())
            .args(&self.litter)
            .arg("--")
            .args(&self.command)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(io_error("start a server"))?;
        let launcher = self.launcher.insert(launcher);

        let deadline = Instant::now() + START_DEADLINE;
        let reason = loop {
            if let Some(status) = launcher.try_wait().map_err(io_error("look after a server"))? {
                break format!("ended while starting ({status})");
            }
            if ready() {
                return Ok(());
            }
            if Instant::now() > deadline {
                break format!("was not ready after {} s", START_DEADLINE.as_secs());
            }
            thread::sleep(Duration::from_millis(10));
        };
        self.kill();
        Err(ServerError::NotStarted { server: self.name, reason, log: self.end_of_log() })
    }

    /// SIGKILL to the server and all its children; returns when they are gone. The folder stays.
    fn kill(&mut self) {
        if let Some(mut launcher) = self.launcher.take() {
            if let Some(pipe) = &mut launcher.stdin {
                // Refused only when the launcher has ended, and the server with it.
                let _ = pipe.write_all(b"k");
            }
            let _ = launcher.wait();
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn end_of_log(&self) -> String {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut launcher) = self.launcher.take() {
            // Closes the pipe, at whose end the launcher kills.
            let _ = launcher.wait();
        }
    }
}

/// ClickHouse, with an empty database `default`.
pub struct ClickHouse {
    process: Process,
    port: u16,
    user: String,
    password: String,
}

impl ClickHouse {
    /// Starts one with the user `default` and no password.
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with("default", "")
    }

    /// Starts one that knows this user only.
    pub fn start_with(user: &str, password: &str) -> Result<Self, ServerError> {
        let folder = TempDir::with_prefix("clickhouse-").map_err(io_error("make a server's folder"))?;
        let port = free_port();
        let command = vec![
            installed("python")?,
            script("clickhouse_http.py"),
            "--port".into(),
            port.to_string().into(),
            "--data".into(),
            folder.path().join("data").into(),
            "--user".into(),
            user.into(),
            "--password".into(),
            password.into(),
        ];
        let mut server = Self {
            process: Process::new("ClickHouse", command, folder, Vec::new()),
            port,
            user: user.to_owned(),
            password: password.to_owned(),
        };
        server.restart()?;
        Ok(server)
    }

    /// Its HTTP interface, as the `clickhouse` crate and a pipeline file want it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Runs one statement and returns its result as tab-separated text, without the last line's end.
    ///
    /// # Panics
    /// With the server's words when it refuses the statement: in a test there is nothing else to do.
    pub fn query(&self, sql: &str) -> String {
        self.try_query(sql).unwrap_or_else(|error| panic!("{sql}\n{error}"))
    }

    fn try_query(&self, sql: &str) -> Result<String, ServerError> {
        let credentials = [("X-ClickHouse-User", self.user.as_str()), ("X-ClickHouse-Key", self.password.as_str())];
        let (status, mut text) = http(self.port, "POST", "/", &credentials, sql.as_bytes()).map_err(io_error("ask ClickHouse"))?;
        if status != 200 {
            return Err(ServerError::Refused { server: "ClickHouse", status, text });
        }
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(text)
    }

    /// Kills it as a power cut would its process: no warning, no flushing.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it when it runs, and starts it on the same port and data.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        let port = self.port;
        self.process.kill();
        self.process.start(|| answers(port, "GET", "/ping", b""))
    }
}

/// SeaweedFS: an S3 service with conditional writes, without buckets at first.
pub struct SeaweedFs {
    process: Process,
    s3_port: u16,
    filer_port: u16,
}

impl SeaweedFs {
    /// The key of the one identity it knows.
    pub const ACCESS_KEY: &str = "tests";
    /// That identity's secret.
    pub const SECRET_KEY: &str = "tests-secret";

    /// The settings of a cold store in the S3 service at this address: this server's, or a proxy's before it.
    pub fn settings(endpoint: &str) -> [String; 3] {
        [("endpoint", endpoint), ("access_key", Self::ACCESS_KEY), ("secret_key", Self::SECRET_KEY)]
            .map(|(key, value)| format!("cold.{key}=\"{value}\""))
    }

    /// Starts one.
    pub fn start() -> Result<Self, ServerError> {
        let folder = TempDir::with_prefix("seaweedfs-").map_err(io_error("make a server's folder"))?;
        let s3_port = free_port();
        let filer_port = free_port();

        let identities = serde_json::json!({ "identities": [{
            "name": "tests",
            "credentials": [{ "accessKey": Self::ACCESS_KEY, "secretKey": Self::SECRET_KEY }],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }] });
        let s3_config = folder.path().join("s3.json");
        std::fs::write(&s3_config, identities.to_string()).map_err(io_error("write SeaweedFS's identities"))?;

        let in_folder = |name: &str| folder.path().join(name).display().to_string();
        let mut litter = Vec::new();
        let mut grpc_port = |part: &str| {
            let port = free_port();
            litter.push(format!("/tmp/seaweedfs-{part}-grpc-{port}.sock").into());
            port.to_string()
        };
        let options = [
            ("dir", in_folder("")),
            ("ip", "127.0.0.1".to_owned()),
            ("ip.bind", "127.0.0.1".to_owned()),
            ("master.port", free_port().to_string()),
            ("master.port.grpc", grpc_port("master")),
            ("master.volumeSizeLimitMB", "128".to_owned()),
            ("master.electionTimeout", "1s".to_owned()),
            ("master.heartbeatInterval", "200ms".to_owned()),
            // On by default: it would report to its makers.
            ("master.telemetry", "false".to_owned()),
            ("volume.port", free_port().to_string()),
            ("volume.port.grpc", grpc_port("volume")),
            ("volume.max", "0".to_owned()),
            ("filer", "true".to_owned()),
            ("filer.port", filer_port.to_string()),
            ("filer.port.grpc", grpc_port("filer")),
            ("filer.localSocket", in_folder("filer.sock")),
            ("s3", "true".to_owned()),
            ("s3.port", s3_port.to_string()),
            ("s3.port.grpc", grpc_port("s3")),
            ("s3.port.iceberg", "0".to_owned()),
            ("s3.port.lance", "0".to_owned()),
            ("s3.config", in_folder("s3.json")),
            ("s3.localSocket", in_folder("s3.sock")),
            // On by default: it would hide a sink that forgets to check its bucket.
            ("s3.autoCreateBucket", "false".to_owned()),
        ];
        let mut command = vec![installed("weed")?, "-logtostderr=true".into(), "server".into()];
        command.extend(options.iter().map(|(name, value)| format!("-{name}={value}").into()));

        let mut server = Self { process: Process::new("SeaweedFS", command, folder, litter), s3_port, filer_port };
        server.restart()?;
        Ok(server)
    }

    /// The S3 endpoint; buckets are in the path, any region will do.
    pub fn s3_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.s3_port)
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, name: &str) -> Result<(), ServerError> {
        // A bucket is a folder of the filer, and the filer wants no signature.
        let (status, text) = http(self.filer_port, "POST", &format!("/buckets/{name}/"), &[], b"").map_err(io_error("make a bucket"))?;
        if status == 201 { Ok(()) } else { Err(ServerError::Refused { server: "SeaweedFS", status, text }) }
    }

    /// Kills it as a power cut would its process.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it when it runs, and starts it on the same ports and data.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        let (s3, filer) = (self.s3_port, self.filer_port);
        self.process.kill();
        // S3 is healthy before a volume can be written, so something has to have been written.
        self.process.start(|| answers(filer, "PUT", "/ready", b"ready") && answers(s3, "GET", "/healthz", b""))
    }
}

/// A NATS server with JetStream. What it acknowledges is on the disk, unless it is started to be fast.
pub struct Nats {
    process: Process,
    port: u16,
    monitor: u16,
}

impl Nats {
    /// Starts one that anybody may use.
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with("")
    }

    /// Starts one with more in its configuration: users, TLS.
    pub fn start_with(more: &str) -> Result<Self, ServerError> {
        Self::configured("always", more)
    }

    /// Starts one that leaves writing to the system, as NATS does by default: for measurements.
    pub fn start_fast() -> Result<Self, ServerError> {
        Self::configured("2m", "")
    }

    fn configured(sync: &str, more: &str) -> Result<Self, ServerError> {
        let (port, monitor) = (free_port(), free_port());
        let mut server = Self { process: nats_process("tests", port, monitor, sync, more)?, port, monitor };
        server.restart()?;
        Ok(server)
    }

    /// Its address, as a pipeline file wants it.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it as a power cut would its process.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it when it runs, and starts it on the same port and data.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        let monitor = self.monitor;
        self.process.kill();
        self.process.start(|| answers(monitor, "GET", "/healthz", b""))
    }
}

fn nats_process(name: &str, port: u16, monitor: u16, sync: &str, more: &str) -> Result<Process, ServerError> {
    let folder = TempDir::with_prefix("nats-").map_err(io_error("make a server's folder"))?;
    // An acknowledgement that is no fsync is lost with the machine, and with the process what it had in its buffers.
    let configuration = format!(
        "server_name: {name}\nlisten: 127.0.0.1:{port}\nhttp: 127.0.0.1:{monitor}\n\
         jetstream {{ store_dir: {:?}, max_mem: 256M, max_file: 8G, sync_interval: {sync} }}\n{more}\n",
        folder.path().join("data")
    );
    let file = folder.path().join("nats.conf");
    std::fs::write(&file, configuration).map_err(io_error("write a NATS server's configuration"))?;
    let command = vec![installed("nats-server")?, "--config".into(), file.into()];
    Ok(Process::new("NATS", command, folder, Vec::new()))
}

/// Three NATS servers that replicate streams.
pub struct NatsCluster {
    nodes: Vec<Nats>,
}

impl NatsCluster {
    /// Starts one; returns when it has a leader.
    pub fn start() -> Result<Self, ServerError> {
        let routes: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let urls: Vec<String> = routes.iter().map(|route| format!("nats://127.0.0.1:{route}")).collect();
        let mut nodes = Vec::new();
        for (i, route) in routes.iter().enumerate() {
            let (port, monitor) = (free_port(), free_port());
            let more = format!("cluster {{ name: tests, listen: 127.0.0.1:{route}, routes: [{}] }}", urls.join(", "));
            let process = nats_process(&format!("n{i}"), port, monitor, "2m", &more)?;
            nodes.push(Nats { process, port, monitor });
        }
        let mut cluster = Self { nodes };
        (0..3).try_for_each(|node| cluster.restart(node))?;
        let deadline = Instant::now() + START_DEADLINE;
        while !cluster.has_leader() {
            if Instant::now() > deadline {
                let log = cluster.nodes[0].process.end_of_log();
                return Err(ServerError::NotStarted { server: "NATS", reason: "has no leader".into(), log });
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(cluster)
    }

    fn has_leader(&self) -> bool {
        self.nodes.iter().any(|node| {
            let answer = http(node.monitor, "GET", "/jsz", &[], b"").ok();
            let answer = answer.and_then(|(_, text)| serde_json::from_str::<serde_json::Value>(&text).ok());
            answer.is_some_and(|a| {
                a["meta_cluster"]["leader"].as_str().is_some_and(|l| !l.is_empty()) && a["meta_cluster"]["cluster_size"] == 3
            })
        })
    }

    /// The addresses of all, as a pipeline file wants them.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Nats::url).collect()
    }

    /// Kills a server, by its number or by the name `n0` to `n2` that leaders are told by.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Kills a server when it runs, and starts it on the same ports and data.
    pub fn restart(&mut self, node: usize) -> Result<(), ServerError> {
        let node = &mut self.nodes[node];
        let monitor = node.monitor;
        node.process.kill();
        // Alone it cannot be healthy.
        node.process.start(|| answers(monitor, "GET", "/healthz?js-server-only=true", b""))
    }
}
