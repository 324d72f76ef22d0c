//! Running the marketprism program, as its users do.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

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
/// It cannot be started.
pub fn finish(command: &mut Command) -> Output {
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
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
