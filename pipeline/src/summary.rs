//! The end of a run: the books of every node, and whether they balance.
//!
//! Three things must hold. At each node, rows received are accepted, ignored, late or rejected. Between nodes,
//! rows received of a kind are the rows that the nodes before sent of it. And every row that was rejected, or
//! late where late rows are kept, is a dead letter. What does not hold is an error: rows were lost or doubled.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use model::account::Totals;
use model::time;
use serde::Serialize;

use crate::plan::{Plan, Role};

/// The books of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The pipeline.
    pub pipeline: String,
    /// Seconds from start to end.
    pub seconds: f64,
    /// The nodes, in the order of the flow.
    pub nodes: Vec<NodeSummary>,
    /// What does not balance; empty if all is well.
    pub imbalances: Vec<String>,
    /// What was lost or failed, by node.
    pub errors: Vec<String>,
}

/// The books of a node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeSummary {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: &'static str,
    /// Its counters.
    #[serde(flatten)]
    pub totals: Totals,
}

impl Summary {
    /// The books of a plan now, at the end of a run that took so long, with those of `others`: its other processes, each
    /// in the order of the nodes.
    pub fn of(plan: &Plan, elapsed: Duration, failed: bool, others: &[Vec<Totals>]) -> Summary {
        let nodes: Vec<(Role, &[String], NodeSummary)> = plan
            .accounts()
            .enumerate()
            .map(|(number, (role, name, inputs, account))| {
                let mut totals = account.totals();
                others.iter().filter_map(|other| other.get(number)).for_each(|other| totals.add(other));
                (role, inputs, NodeSummary { name: name.to_owned(), role: role_name(role), totals })
            })
            .collect();
        let mut imbalances = Vec::new();
        let sent: BTreeMap<&str, &Totals> = nodes.iter().map(|(_, _, n)| (n.name.as_str(), &n.totals)).collect();
        for (role, inputs, node) in &nodes {
            let t = &node.totals;
            if !t.balances() {
                imbalances.push(format!(
                    "{} `{}` received {} rows, but accepted {}, ignored {}, came late {}, rejected {}",
                    node.role,
                    node.name,
                    t.received,
                    t.accepted,
                    t.ignored,
                    t.late,
                    t.rejected()
                ));
            }
            for (kind, received) in &t.arrived {
                let expected: u64 = inputs.iter().filter_map(|i| sent[i.as_str()].by_kind.get(kind)).sum();
                if *received != expected {
                    imbalances.push(format!(
                        "{} `{}` received {received} `{kind}` rows, but the nodes before it sent {expected}",
                        node.role, node.name
                    ));
                }
            }
            let letters = t.by_kind.get("dead_letter").copied().unwrap_or(0);
            if *role != Role::Sink && (letters < t.rejected() || letters > t.rejected() + t.late) {
                imbalances.push(format!(
                    "{} `{}` rejected {} rows and {} were late, but it sent {letters} dead letters",
                    node.role,
                    node.name,
                    t.rejected(),
                    t.late
                ));
            }
        }
        let errors: Vec<String> =
            nodes.iter().flat_map(|(_, _, n)| n.totals.errors.iter().map(|e| format!("{} `{}`: {e}", n.role, n.name))).collect();
        debug_assert!(!failed || !errors.is_empty(), "a source that failed says why");
        Summary {
            pipeline: plan.name.clone(),
            seconds: elapsed.as_secs_f64(),
            nodes: nodes.into_iter().map(|(_, _, n)| n).collect(),
            imbalances,
            errors,
        }
    }

    /// Whether the run came to a good end: everything balances and nothing was lost.
    pub fn is_good(&self) -> bool {
        self.imbalances.is_empty() && self.errors.is_empty()
    }

    /// The books as a table for people.
    pub fn to_text(&self) -> String {
        let mut text = table(&self.nodes, self.seconds);
        for node in &self.nodes {
            if !node.totals.rejected.is_empty() {
                let reasons: Vec<String> = node.totals.rejected.iter().map(|(reason, n)| format!("{reason} {}", grouped(*n))).collect();
                let _ = writeln!(text, "rejected by {}: {}", node.name, reasons.join(", "));
            }
        }
        for error in &self.errors {
            let _ = writeln!(text, "error: {error}");
        }
        for imbalance in &self.imbalances {
            let _ = writeln!(text, "does not balance: {imbalance}");
        }
        let verdict = if self.imbalances.is_empty() { "the books balance" } else { "THE BOOKS DO NOT BALANCE: rows were lost or doubled" };
        let _ = writeln!(text, "{}: {verdict}; {:.2} s", self.pipeline, self.seconds);
        text
    }
}

/// One line a node.
pub fn table(nodes: &[NodeSummary], seconds: f64) -> String {
    let head = ["node", "in", "out", "ignored", "rejected", "late", "retracted", "bytes", "rows/s", "watermark", "lag"].map(str::to_owned);
    let mut lines = vec![head];
    for NodeSummary { name, role, totals: t } in nodes {
        let rate = if seconds > 0.0 { (t.received as f64 / seconds) as u64 } else { 0 };
        let (watermark, lag) = match t.watermark {
            None => ("-".to_owned(), "-".to_owned()),
            Some(model::Progress::END) => ("end".to_owned(), "-".to_owned()),
            Some(w) => (time::display(w), lag(time::now().saturating_sub(w))),
        };
        let counts = [t.received, t.sent, t.ignored, t.rejected(), t.late, t.retracted].map(grouped);
        let [received, sent, ignored, rejected, late, retracted] = counts;
        lines.push([
            format!("{role} {name}"),
            received,
            sent,
            ignored,
            rejected,
            late,
            retracted,
            bytesize::ByteSize(t.bytes).to_string(),
            grouped(rate),
            watermark,
            lag,
        ]);
    }
    aligned(&lines)
}

/// What a pipeline and its nodes wait for, a line each.
pub fn waits(plan: &Plan, nodes: &[NodeSummary]) -> Vec<String> {
    let own = plan.account.totals().waits.into_iter().map(|wait| format!("the pipeline is {wait}"));
    own.chain(nodes.iter().flat_map(|n| n.totals.waits.iter().map(|wait| format!("{} `{}` is {wait}", n.role, n.name)))).collect()
}

/// Lines of cells as text: the first column to the left, the others to the right.
pub fn aligned<const N: usize>(lines: &[[String; N]]) -> String {
    let widths: Vec<usize> = (0..N).map(|c| lines.iter().map(|l| l[c].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(c, (cell, &w))| if c == 0 { format!("{cell:<w$}") } else { format!("{cell:>w$}") })
            .collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

/// How far event time is behind the clock, to the millisecond and in two units at most.
fn lag(micros: time::Micros) -> String {
    let Ok(millis) = u64::try_from(micros / 1_000) else { return "0s".into() };
    let text = humantime::format_duration(Duration::from_millis(millis)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// The nodes of a plan and their counters now.
pub fn nodes(plan: &Plan) -> Vec<NodeSummary> {
    plan.accounts()
        .map(|(role, name, _, account)| NodeSummary { name: name.to_owned(), role: role_name(role), totals: account.totals() })
        .collect()
}

/// The word for a role.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Source => "source",
        Role::Operator => "operator",
        Role::Sink => "sink",
    }
}

/// Digits in groups of three.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
