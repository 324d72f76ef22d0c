//! A node of the program, and the commands that ask it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{Output, finish, program, root, signal};

/// How long anything may take; a machine that stands still needs long.
const DEADLINE: Duration = Duration::from_secs(120);

/// Whether a process runs; one that has ended and was not waited for does not.
pub fn is_alive(process: u64) -> bool {
    start_of(process).is_some()
}

/// When a process that runs was started, in the system's ticks. Its number is given to another one soon after its end.
pub fn start_of(process: u64) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which is in brackets, the state is the first word and the start the twentieth.
    let (_, rest) = status.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    words.next().filter(|state| !state.starts_with(['Z', 'X']))?;
    words.nth(18)?.parse().ok()
}

/// A node of its own data folder. It is killed when this is dropped, and its workers end with it.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// Its address.
    pub url: String,
    /// Its data folder.
    pub data: PathBuf,
}

/// The command that runs a node over a data folder, on any free port.
pub fn command(data: &Path, settings: &[String]) -> Command {
    let mut command = program();
    command.args(["node", "--set", "node.listen=127.0.0.1:0", "--data"]).arg(data).current_dir(root());
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    command
}

/// Starts the nodes of a cluster at once, each over a folder of its own; returns when all answer.
///
/// # Panics
/// One does not start.
pub fn start_cluster(folder: &Path, names: &[&str], settings: &[String]) -> Vec<Node> {
    thread::scope(|scope| {
        let starting: Vec<_> = names.iter().map(|name| scope.spawn(|| start_member(folder, name, settings))).collect();
        starting.into_iter().map(|node| node.join().expect("it starts")).collect()
    })
}

/// Starts a node of a cluster, over a folder of its own.
///
/// # Panics
/// It does not start.
pub fn start_member(folder: &Path, name: &str, settings: &[String]) -> Node {
    Node::start(&folder.join(name), &[settings, &[format!("node.name={name}")]].concat())
}

impl Node {
    /// Starts one; returns when it answers.
    ///
    /// # Panics
    /// It does not start; shows what it logged.
    pub fn start(data: &Path, settings: &[String]) -> Node {
        std::fs::create_dir_all(data).expect("the folder is made");
        let log_path = data.with_extension("log");
        let log = File::options().create(true).append(true).open(&log_path).expect("the log is made");
        let mut child =
            command(data, settings).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("the program starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it says where it is");
        let Some(url) = line.trim().split_once(": ").map(|(_, url)| url.to_owned()) else {
            let _ = child.wait();
            panic!("the node did not start: {}", std::fs::read_to_string(log_path).unwrap_or_default());
        };
        Node { child, url, data: data.to_owned() }
    }

    /// Its process.
    pub fn process(&self) -> u64 {
        self.child.id().into()
    }

    /// Kills it as a power cut would: no warning, no draining.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, and returns when it has; the exit status.
    pub fn terminate(&mut self) -> Option<i32> {
        signal(u64::from(self.child.id()), "-TERM");
        self.child.wait().expect("it is waited for").code()
    }

    /// Runs a command that asks it.
    pub fn run(&self, arguments: &[&str]) -> Output {
        finish(program().args(arguments).env("MARKETPRISM_API", &self.url).current_dir(root()))
    }

    /// How a pipeline is.
    pub fn status(&self, name: &str) -> Value {
        let text = self.run(&["status", name, "--format", "json"]).expect_success();
        serde_json::from_str(&text).expect("a status is JSON")
    }

    /// Waits until a pipeline is as it should be.
    ///
    /// # Panics
    /// It is not in two minutes; shows how it is.
    #[track_caller]
    pub fn wait(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let status = self.status(name);
            if is(&status) {
                return status;
            }
            if started.elapsed() > DEADLINE {
                let logs = self.run(&["logs", name]).stdout;
                panic!("{name} is not {what} after {} s: {status:#}\n{logs}", DEADLINE.as_secs());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a pipeline runs and rows have reached all its sinks.
    ///
    /// # Panics
    /// They do not in two minutes.
    #[track_caller]
    pub fn wait_for_rows(&self, name: &str) -> Value {
        self.wait(name, "storing rows", |s| {
            let nodes = s["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
            let mut sinks = nodes.iter().filter(|n| n["role"] == "sink").peekable();
            s["state"] == "running" && sinks.peek().is_some() && sinks.all(|n| n["received"].as_u64() > Some(0))
        })
    }

    /// Sends a request; returns the status and the body of the answer, which is JSON or empty.
    ///
    /// # Panics
    /// It cannot be sent, or the answer is none.
    pub fn request(&self, method: &str, path: &str, host: Option<&str>, body: &str) -> (u16, Value) {
        let address = self.url.strip_prefix("http://").expect("an address of HTTP");
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout is set");
        // HTTP/1.0: the end of the answer is the end of the connection.
        let host = host.unwrap_or(address);
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("an answer has a status");
        let json = if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}")) };
        (status, json)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
