//! Where a process of a pipeline is started: on this node or on another, the same to the keeper that wants it.
//!
//! A [`Process`] that was started is heard and spoken to in lines. It ends when its handle is dropped. [`Said::Gone`] is
//! its last word, and always comes.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::definition::{Generation, Spec};
use crate::protocol::Assignment;

/// Lines that a process may be ahead of who listens to it. Then it waits.
const AHEAD: usize = 1_024;

/// A process that is to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Order {
    /// The pipeline's name.
    pub pipeline: String,
    /// Which attempt it is of.
    pub generation: Generation,
    /// The pipeline.
    pub spec: Spec,
    /// Whether it may compute something else than the last generation did.
    pub accept: bool,
    /// Which of the pipeline's processes it is, from 0.
    pub process: usize,
    /// How many processes the pipeline has.
    pub processes: usize,
}

/// What a process is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A line on its standard input.
    Line(String),
    /// It is killed.
    Kill,
}

/// What comes from a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// A line of its standard output.
    Output(String),
    /// A line of its standard error.
    Log(String),
    /// It is gone.
    Gone(End),
}

/// How a process came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It exited with this status.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
    /// Nobody knows; what is known instead.
    Lost(String),
}

/// A process that was started. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    /// The system's number of it, on its node.
    pub id: u32,
    /// Where it is told something. What a process that is gone is told is lost.
    pub tell: mpsc::UnboundedSender<Told>,
    /// What it says.
    pub said: mpsc::Receiver<Said>,
}

/// A node, as a place to start processes.
#[async_trait]
pub trait Host: std::fmt::Debug + Send + Sync {
    /// The node's name.
    fn node(&self) -> &str;

    /// Whether it could not be reached when it was last tried, and was not heard of since.
    fn is_lost(&self) -> bool {
        false
    }

    /// Starts a process.
    ///
    /// # Errors
    /// Why it cannot be started, and on which node.
    async fn start(&self, order: Order) -> Result<Process, String>;
}

/// The nodes on which processes can be started now, by name.
pub type Hosts = Arc<Mutex<BTreeMap<String, Arc<dyn Host>>>>;

/// Where a process of a pipeline runs, among so many nodes: the processes of one on nodes that follow each other, those of
/// several begin at different ones. It changes only when nodes come or go.
pub fn place(pipeline: &str, process: usize, nodes: usize) -> usize {
    // FNV-1a: the same on every machine and in every version.
    let hash = pipeline.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let first = usize::try_from(hash % nodes.max(1) as u64).unwrap_or(0);
    (first + process) % nodes.max(1)
}

/// This node.
#[derive(Clone, Debug)]
pub struct Local {
    /// Its name.
    pub name: String,
    /// The program whose hidden command `worker` runs a pipeline.
    pub program: PathBuf,
    /// The data folder, absolute.
    pub data: PathBuf,
    /// The folder of the node's settings, absolute.
    pub settings_folder: PathBuf,
    /// `KEY=VALUE` over settings that the node was started with. Those of a pipeline win.
    pub overrides: Vec<String>,
    /// The address that processes are reached at by those of other nodes.
    pub host: String,
    /// How long a process goes on without a word; see [`Assignment::silence`].
    pub silence: Option<Duration>,
}

#[async_trait]
impl Host for Local {
    fn node(&self) -> &str {
        &self.name
    }

    /// The process is in a group of its own, so that Ctrl-C on a terminal reaches the agent alone.
    async fn start(&self, order: Order) -> Result<Process, String> {
        let Order { generation, mut spec, accept, process, processes, .. } = order;
        spec.overrides.splice(0..0, self.overrides.iter().cloned());
        let folder = PathBuf::from(&spec.folder);
        if !folder.is_dir() {
            return Err(format!(
                "the folder {}, in which its relative paths start, does not exist on node `{}`; make it there, too",
                folder.display(),
                self.name
            ));
        }
        let path = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| format!("{} is not Unicode", path.display()));
        let assignment = Assignment {
            generation,
            spec,
            accept,
            data: path(&self.data)?,
            settings_folder: path(&self.settings_folder)?,
            process,
            processes,
            host: self.host.clone(),
            silence: self.silence.map(|silence| silence.as_secs()),
        };
        let line = serde_json::to_string(&assignment).map_err(|e| e.to_string())?;
        let cannot = |why: String| format!("{} cannot be started on node `{}`: {why}", self.program.display(), self.name);
        let mut child = Command::new(&self.program)
            .arg("worker")
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| cannot(e.to_string()))?;
        let (Some(id), Some(stdin), Some(stdout), Some(stderr)) =
            (child.id(), child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(cannot("it has no pipes".into()));
        };
        let (tell, told) = mpsc::unbounded_channel();
        let (say, said) = mpsc::channel(AHEAD);
        // The other end is in hand.
        let _ = tell.send(Told::Line(line));
        tokio::spawn(async move {
            let (write, written) = mpsc::unbounded_channel();
            let writing = tokio::spawn(write_lines(stdin, written));
            let out = each_line(stdout, &say, Said::Output);
            let log = each_line(stderr, &say, Said::Log);
            let (end, (), ()) = tokio::join!(until_gone(&mut child, told, write), out, log);
            writing.abort();
            // Whoever listens no more does not wait for its end.
            let _ = say.send(Said::Gone(end)).await;
        });
        Ok(Process { id, tell, said })
    }
}

/// Passes on what a child is told until it is gone.
async fn until_gone(child: &mut Child, mut told: mpsc::UnboundedReceiver<Told>, write: mpsc::UnboundedSender<String>) -> End {
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            message = told.recv() => match message {
                Some(Told::Line(line)) => drop(write.send(line)),
                // Without who started it, it is killed, too.
                Some(Told::Kill) | None => break match child.kill().await {
                    Ok(()) => child.wait().await,
                    Err(error) => Err(error),
                },
            },
        }
    };
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited(code),
            (None, Some(signal)) => End::Killed(signal),
            (None, None) => End::Lost("it ended".into()),
        },
        Err(error) => End::Lost(format!("the process cannot be watched: {error}")),
    }
}

/// Writes lines to a pipe, which is closed when no more can come.
async fn write_lines(mut pipe: impl AsyncWriteExt + Unpin, mut lines: mpsc::UnboundedReceiver<String>) {
    while let Some(line) = lines.recv().await {
        if pipe.write_all(format!("{line}\n").as_bytes()).await.is_err() {
            break;
        }
    }
}

/// Hands over each line of a pipe until it is closed.
async fn each_line(pipe: impl AsyncRead + Unpin, say: &mpsc::Sender<Said>, said: fn(String) -> Said) {
    let mut pipe = BufReader::new(pipe);
    let mut bytes = Vec::new();
    while pipe.read_until(b'\n', &mut bytes).await.is_ok_and(|n| n > 0) {
        // Where nobody listens any more, the pipe is still emptied: the process is being killed.
        let _ = say.send(said(String::from_utf8_lossy(&bytes).trim_end().to_owned())).await;
        bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_follow_each_other_over_the_nodes() {
        for pipeline in ["prices", "books", "a", ""] {
            let first = place(pipeline, 0, 3);
            assert_eq!((1..7).map(|i| place(pipeline, i, 3)).collect::<Vec<_>>(), (1..7).map(|i| (first + i) % 3).collect::<Vec<_>>());
            assert_eq!(place(pipeline, 5, 1), 0);
        }
        let firsts: std::collections::BTreeSet<usize> = (0..50).map(|n| place(&format!("pipeline_{n}"), 0, 3)).collect();
        assert_eq!(firsts.len(), 3, "pipelines begin at different nodes");
    }
}
