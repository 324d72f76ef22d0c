//! What an agent and the worker process of a pipeline say to each other.
//!
//! The agent writes lines to the worker's standard input: first its [`Assignment`], later perhaps [`DRAIN`]. It keeps the
//! pipe open as long as it lives, and the system closes it when it does not: a worker that reads the end of its input has
//! no agent any more and ends at once. So no worker outlives its agent, without signals and on every system.
//!
//! A stopped agent (SIGSTOP, a machine that hangs) closes nothing. Where another node would then start the pipeline again,
//! the agent says [`PING`] each second and the assignment has a [`Assignment::silence`]: a worker that hears nothing for so
//! long has no agent any more either.
//!
//! A pipeline may have several processes. Each binds a port and says [`Line::Listening`]; when all have, the agent tells
//! each of them all the addresses, [`PEERS`]. Only the first is told to drain, and the others end with it. One whose peer is
//! gone ends with [`PEER_GONE`], so that the cause of a crash is looked for elsewhere.
//!
//! The worker writes a [`Line`] of JSON to its standard output each second, and one when it ends. What it logs goes to its
//! standard error.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::{Generation, Spec};

/// What the agent writes to let a worker drain.
pub const DRAIN: &str = "drain";
/// What the agent writes each second where the assignment has a silence.
pub const PING: &str = "ping";
/// The first word of the line that tells a worker of several the addresses of all, in their order.
pub const PEERS: &str = "peers";
/// Exit status of a worker that cannot go on because another one of its pipeline is gone.
pub const PEER_GONE: u8 = 5;
/// Exit status of a worker that cannot go on before somebody decides something.
pub const REFUSED: u8 = 4;
/// Exit status of a worker whose pipeline was another one when it was killed while a sink committed: only that one can finish it.
pub const UNFINISHED: u8 = 6;
/// How often a worker tells how it is.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// What a worker is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Which attempt it is.
    pub generation: Generation,
    /// The pipeline.
    pub spec: Spec,
    /// Whether it may compute something else than the last generation did.
    pub accept: bool,
    /// The node's data folder.
    pub data: String,
    /// The folder of the settings that hold for a pipeline which brings none.
    pub settings_folder: String,
    /// Which of the pipeline's processes it is, from 0.
    pub process: usize,
    /// How many processes the pipeline has.
    pub processes: usize,
    /// The address that it listens on for the others, and is reached at by them.
    pub host: String,
    /// After how many seconds without a line from its agent it ends. Without it, only when the pipe does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence: Option<u64>,
}

/// A line that a worker writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Where it listens for the other processes of its pipeline. Only where there are others.
    Listening {
        /// A host and a port.
        address: String,
    },
    /// How it is.
    Report(Report),
    /// How it ended. The last line.
    End {
        /// Whether it was asked to drain.
        drained: bool,
        /// The books at the end.
        report: Report,
    },
}

/// How a worker is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Which generation it is of.
    pub generation: u64,
    /// Whether its sources and sinks are open.
    pub running: bool,
    /// Seconds since it started.
    pub seconds: f64,
    /// Its nodes, in the order of the flow.
    pub nodes: Vec<NodeReport>,
    /// When its last checkpoint became durable, in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// What it waits for, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// What was lost or failed, and what does not balance.
    #[serde(default)]
    pub errors: Vec<String>,
}

/// A node of the dataflow. Rows are counted since the process started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// `source`, `operator` or `sink`.
    pub role: String,
    /// Rows that arrived.
    pub received: u64,
    /// Rows that it sent on.
    pub sent: u64,
    /// Rows that arrived in the last second.
    pub rows_per_second: u64,
    /// Rows that it did not want.
    pub ignored: u64,
    /// Rows that it refused.
    pub rejected: u64,
    /// Rows that came too late.
    pub late: u64,
    /// Bytes that it sent on.
    pub bytes: u64,
    /// How far event time has come: a time in UTC, or `end`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// Seconds from that time to the clock's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
}
