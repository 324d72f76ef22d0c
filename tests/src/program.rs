//! Running the marketprism program, as its users do.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output as Captured, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take; a machine that stands still needs long.
const DEADLINE: Duration = Duration::from_secs(300);

/// What a command printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a command that must end well.
    ///
    /// # Panics
    /// It did not: shows everything that it printed.
    #[track_caller]
    pub fn expect_success(self) -> String {
        assert_eq!(self.status, Some(0), "\n--- standard output\n{}\n--- standard error\n{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

/// The recordings of real venues beside the repository, or `None`, said on standard error with the test's name.
pub fn recordings(test: &str) -> Option<PathBuf> {
    let folder = root().join("../shared/recordings");
    if folder.is_dir() {
        return Some(folder);
    }
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so where tests speak")]
    {
        eprintln!("{test}: skipped, the recordings are not in {}", folder.display());
    }
    None
}

/// The program, to be given arguments. `./test` builds it beside the test's own executable.
///
/// # Panics
/// It was not built.
pub fn program() -> Command {
    let test = std::env::current_exe().expect("a test knows its executable");
    let program = test.parent().and_then(Path::parent).expect("tests lie below the target folder").join("marketprism");
    assert!(program.is_file(), "{} is missing: run the tests with ./test, which builds it", program.display());
    Command::new(program)
}

/// Runs the program in the repository's root.
///
/// # Panics
/// It cannot be started.
pub fn marketprism<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    finish(program().args(arguments).current_dir(root()))
}

/// Runs a command to its end.
///
/// # Panics
/// It cannot be started, or does not end in five minutes; shows what it printed until then.
pub fn finish(command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let process = child.id();
    let (sender, ended) = channel();
    thread::spawn(move || sender.send(child.wait_with_output().expect("it is waited for")));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let of = |output: Captured| Output { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
    match ended.recv_timeout(DEADLINE) {
        Ok(output) => of(output),
        Err(_) => {
            signal(process.into(), "-KILL");
            let output = ended.recv().map(of);
            panic!("{command:?} did not end in {} s: {output:#?}", DEADLINE.as_secs());
        }
    }
}

/// Sends a signal to a process.
///
/// # Panics
/// It cannot be sent.
pub fn signal(process: u64, signal: &str) {
    let status = Command::new("kill").args([signal, &process.to_string()]).status().expect("kill starts");
    assert!(status.success(), "kill {signal} {process}");
}

/// Waits until something is there. Looks often: what is waited for is a state, not a time.
///
/// # Panics
/// It is not there in five minutes; says what was waited for.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "{what}: not in {} s", DEADLINE.as_secs());
        thread::sleep(Duration::from_millis(5));
    }
}

/// What a process holds of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Uses {
    /// Bytes of memory.
    pub memory: usize,
    /// Threads.
    pub threads: usize,
    /// Open files and sockets.
    pub descriptors: usize,
}

/// A command that runs beside the test, which logs to a file. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts it.
    ///
    /// # Panics
    /// It cannot be started, or the file not be written.
    pub fn start(command: &mut Command, log: &Path) -> Running {
        let file = || File::options().create(true).append(true).open(log).expect("the log is made");
        let child = command.stdin(Stdio::null()).stdout(file()).stderr(file()).spawn().expect("the program starts");
        Running { child, log: log.to_owned() }
    }

    /// Whether it has ended, and how.
    ///
    /// # Panics
    /// The system does not know.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the system knows its children")
    }

    /// Asks it to end, and returns its exit status when it has.
    ///
    /// # Panics
    /// It does not end in five minutes.
    pub fn terminate(mut self) -> Option<i32> {
        signal(self.child.id().into(), "-TERM");
        until("the end of a command that was asked to end", || self.ended()).code()
    }

    /// Kills it as a power cut would: no warning, no draining.
    pub fn kill(self) {}

    /// What it holds of the machine now.
    ///
    /// # Panics
    /// It has ended, or the system is no Linux.
    pub fn uses(&self) -> Uses {
        let of = |what: &str| PathBuf::from(format!("/proc/{}/{what}", self.child.id()));
        let status = std::fs::read_to_string(of("status")).expect("it runs");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the system tells it");
            line.split_whitespace().next().and_then(|number| number.parse::<usize>().ok()).expect("a number")
        };
        let descriptors = std::fs::read_dir(of("fd")).expect("it runs").count();
        Uses { memory: number("VmRSS:") << 10, threads: number("Threads:"), descriptors }
    }

    /// What it has printed.
    ///
    /// # Panics
    /// The file cannot be read.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log is there")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rows of a query over the tables below a data folder.
///
/// # Panics
/// The query fails.
pub fn rows(data: &Path, query: &str) -> Vec<serde_json::Value> {
    let data = data.to_str().expect("temporary folders have plain names");
    let text = marketprism(["sql", query, "--format", "ndjson", "--data", data]).expect_success();
    text.lines().map(|line| serde_json::from_str(line).expect("every line is a JSON object")).collect()
}
