//! What a running pipeline shows: a table that is redrawn on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::plan::{Plan, Role};
use crate::summary::{NodeSummary, nodes, role_name, table, waits};

/// How often the table is redrawn on a terminal.
const REDRAW: Duration = Duration::from_millis(500);
/// How often a line is logged where there is no terminal.
const LINE: Duration = Duration::from_secs(5);

/// Parts that the bar is divided into.
const PARTS: u64 = 1_000;

/// How much of the slowest source was handed over, if all have a known end.
fn share(nodes: &[NodeSummary]) -> Option<f64> {
    let sources = nodes.iter().filter(|n| n.role == role_name(Role::Source));
    sources.map(|n| n.totals.share).reduce(|a, b| a.zip(b).map(|(a, b)| a.min(b))).flatten()
}

/// Shows a plan's progress until it is dropped.
#[derive(Debug)]
pub struct Monitor {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Starts to show.
    pub fn start(plan: Arc<Plan>) -> Monitor {
        let (stop, stopped) = channel();
        let terminal = std::io::stderr().is_terminal();
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            let bar =
                ProgressBar::with_draw_target(None, if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() });
            let style = |template| ProgressStyle::with_template(template).expect("the template is right");
            bar.set_style(style("{spinner} {elapsed_precise} {msg}"));
            // The channel closes when the monitor is dropped: that wakes us at once.
            while stopped.recv_timeout(if terminal { REDRAW } else { LINE }).is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                let nodes = nodes(&plan);
                if terminal {
                    if let Some(share) = share(&nodes) {
                        if bar.length().is_none() {
                            bar.set_length(PARTS);
                            bar.set_style(style("{bar:40} {percent:>3} % {elapsed_precise}, {eta} to go: {msg}"));
                        }
                        bar.set_position((share * PARTS as f64) as u64);
                    }
                    let waits = waits(&plan, &nodes).join("\n");
                    bar.set_message(format!("{}\n{}{waits}", plan.name, table(&nodes, started.elapsed().as_secs_f64())));
                    bar.tick();
                } else {
                    for node in &nodes {
                        let t = &node.totals;
                        tracing::info!(
                            node = node.name,
                            received = t.received,
                            sent = t.sent,
                            rejected = t.rejected(),
                            late = t.late,
                            "progress"
                        );
                    }
                }
            }
            bar.finish_and_clear();
        });
        Monitor { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread only draws; what it drew is of no consequence any more.
            drop(thread.join());
        }
    }
}
