//! The processes of one generation, which start and end together: a pure function of what they say and when.
//!
//! What a supervisor is told of them, it is told as if they were one process:
//!
//! - They have ended well when each has. Only the first tells whether they drained.
//! - When one ends badly, the others find their peer gone and end, too, each at a moment of its own. The cause is the first
//!   that ended for a reason of its own within [`GRACE`] of the first end; whoever is there after that is to be killed.
//! - One that cannot go on before somebody decides something speaks for all.
//! - They have reported when each has that still runs: one that is silent makes them all silent.

use std::collections::VecDeque;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::End;
use crate::protocol::{Line, PEER_GONE, REFUSED, Report, UNFINISHED};
use crate::supervisor::Exit;

/// How long processes may take to find that a peer is gone, once the first has.
pub(crate) const GRACE: Duration = Duration::from_secs(2);
/// Last lines of a process's standard error that are searched for the cause of its end.
const TAIL: usize = 12;

/// A process of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessView {
    /// Its number, from 0.
    pub number: usize,
    /// The node that it runs on.
    pub node: String,
    /// The system's number of it there, while it runs.
    pub process: Option<u32>,
    /// Rows that sources handed over in it in the last second.
    pub rows_per_second: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Group {
    members: Vec<Member>,
    /// When the first ended badly.
    broken: Option<Duration>,
    killed: bool,
    introduced: bool,
}

#[derive(Debug, Default)]
struct Member {
    node: String,
    id: Option<u32>,
    address: Option<String>,
    report: Option<Report>,
    /// Whether it has reported since all had last.
    fresh: bool,
    /// Its last line: whether it drained, and the errors of its books.
    last: Option<(bool, Vec<String>)>,
    tail: VecDeque<String>,
    end: Option<Ended>,
}

/// How a member ended.
#[derive(Debug)]
struct Ended {
    how: How,
    cause: String,
    /// The how manieth it was.
    order: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Well,
    PeerGone,
    Refused,
    Unfinished,
    Badly,
    /// After the others were to be killed: it tells nothing.
    Killed,
}

impl Group {
    /// Processes that are being started on these nodes.
    pub(crate) fn new(nodes: impl IntoIterator<Item = String>) -> Group {
        let members = nodes.into_iter().map(|node| Member { node, ..Member::default() }).collect();
        Group { members, broken: None, killed: false, introduced: false }
    }

    /// One was started.
    pub(crate) fn started(&mut self, process: usize, id: u32) {
        self.members[process].id = Some(id);
    }

    /// What a line of one's standard error is in the log.
    pub(crate) fn logged(&mut self, process: usize, line: &str) -> String {
        let several = self.members.len() > 1;
        let member = &mut self.members[process];
        if member.tail.len() == TAIL {
            member.tail.pop_front();
        }
        member.tail.push_back(line.to_owned());
        if several { format!("{}/{process} {line}", member.node) } else { line.to_owned() }
    }

    /// One says something. Returns the addresses of all, in their order, when that was the last of them that was missing.
    pub(crate) fn said(&mut self, process: usize, line: Line) -> Option<Vec<String>> {
        let member = &mut self.members[process];
        match line {
            Line::Listening { address } => member.address = Some(address),
            Line::Report(report) => {
                member.report = Some(report);
                member.fresh = true;
            }
            Line::End { drained, report } => {
                member.last = Some((drained, report.errors.clone()));
                member.report = Some(report);
                member.fresh = true;
            }
        }
        let addresses: Option<Vec<String>> = self.members.iter().map(|m| m.address.clone()).collect();
        let news = !self.introduced && addresses.is_some();
        self.introduced |= news;
        addresses.filter(|_| news)
    }

    /// Whether each that runs has reported since this was last so.
    pub(crate) fn all_reported(&mut self) -> bool {
        let all = self.members.iter().all(|m| m.fresh || m.end.is_some());
        if all {
            self.members.iter_mut().for_each(|m| m.fresh = false);
        }
        all
    }

    /// One is gone.
    pub(crate) fn gone(&mut self, now: Duration, process: usize, end: End) {
        let order = self.members.iter().filter(|m| m.end.is_some()).count();
        let several = self.members.len() > 1;
        let killed = self.killed && self.broken.is_some();
        let member = &mut self.members[process];
        let how = match &end {
            End::Exited(0) if member.last.is_some() => How::Well,
            _ if killed => How::Killed,
            End::Exited(code) if *code == i32::from(PEER_GONE) => How::PeerGone,
            End::Exited(code) if *code == i32::from(REFUSED) => How::Refused,
            End::Exited(code) if *code == i32::from(UNFINISHED) => How::Unfinished,
            _ => How::Badly,
        };
        let errors = member.last.as_ref().map(|(_, errors)| errors.as_slice()).unwrap_or_default();
        let cause = cause(&end, errors, &member.tail);
        let cause = if several { format!("process {process} on node `{}`: {cause}", member.node) } else { cause };
        member.id = None;
        member.end = Some(Ended { how, cause, order });
        if how != How::Well && self.broken.is_none() {
            self.broken = Some(now);
        }
    }

    /// When those that are left are to be killed.
    pub(crate) fn wake(&self) -> Option<Duration> {
        self.broken.filter(|_| !self.killed && self.members.iter().any(|m| m.end.is_none())).map(|broken| broken + GRACE)
    }

    /// All are being killed.
    pub(crate) fn killed(&mut self) {
        self.killed = true;
    }

    /// How they ended, once all are gone.
    pub(crate) fn over(&self) -> Option<Exit> {
        let ends: Option<Vec<&Ended>> = self.members.iter().map(|m| m.end.as_ref()).collect();
        let mut ends = ends?;
        if ends.iter().all(|end| end.how == How::Well) {
            let drained = self.members.first().and_then(|m| m.last.as_ref()).is_some_and(|(drained, _)| *drained);
            return Some(if drained { Exit::Drained } else { Exit::Finished });
        }
        ends.sort_by_key(|end| end.order);
        if let Some(refused) = ends.iter().find(|end| end.how == How::Refused) {
            return Some(Exit::Refused(refused.cause.clone()));
        }
        if let Some(unfinished) = ends.iter().find(|end| end.how == How::Unfinished) {
            return Some(Exit::Unfinished(unfinished.cause.clone()));
        }
        let own = ends.iter().find(|end| end.how == How::Badly);
        let first = ends.iter().find(|end| end.how != How::Well);
        Some(Exit::Crashed(own.or(first).map(|end| end.cause.clone()).unwrap_or_default()))
    }

    /// How they are, as one.
    pub(crate) fn report(&self) -> Report {
        let mut reports = self.members.iter().filter_map(|m| m.report.as_ref());
        // What only one can know is the first's.
        let mut merged = self.members.first().and_then(|m| m.report.clone()).unwrap_or_default();
        merged.nodes.clear();
        merged.errors.clear();
        for report in &mut reports {
            for node in &report.nodes {
                let Some(sum) = merged.nodes.iter_mut().find(|n| n.name == node.name && n.role == node.role) else {
                    merged.nodes.push(node.clone());
                    continue;
                };
                sum.received += node.received;
                sum.sent += node.sent;
                sum.rows_per_second += node.rows_per_second;
                sum.ignored += node.ignored;
                sum.rejected += node.rejected;
                sum.late += node.late;
                sum.bytes += node.bytes;
                if sum.watermark.is_none() {
                    sum.watermark.clone_from(&node.watermark);
                    sum.lag_seconds = node.lag_seconds;
                }
            }
            // Each opens what it needs; once rows flow, what holds them up is known to the first.
            if merged.waiting.is_none() && !report.running {
                merged.waiting.clone_from(&report.waiting);
            }
            for error in &report.errors {
                if !merged.errors.contains(error) {
                    merged.errors.push(error.clone());
                }
            }
        }
        merged
    }

    /// Each by itself.
    pub(crate) fn processes(&self) -> Vec<ProcessView> {
        let rate = |m: &Member| {
            let nodes = m.report.iter().flat_map(|r| &r.nodes);
            nodes.filter(|n| n.role == "source" && m.end.is_none()).map(|n| n.rows_per_second).sum()
        };
        let view = |(number, m): (usize, &Member)| ProcessView { number, node: m.node.clone(), process: m.id, rows_per_second: rate(m) };
        self.members.iter().enumerate().map(view).collect()
    }
}

/// Why a process ended, as far as it said: the errors of its books, else its last error message, else its last lines.
fn cause(end: &End, errors: &[String], tail: &VecDeque<String>) -> String {
    let how = match end {
        End::Exited(code) => format!("exit status {code}"),
        End::Killed(signal) => format!("killed by signal {signal}"),
        End::Lost(why) => return why.clone(),
    };
    let said = if errors.is_empty() {
        let lines: Vec<&String> = tail.iter().filter(|line| !line.trim().is_empty()).collect();
        let from = lines.iter().rposition(|line| line.trim_start().starts_with("error")).unwrap_or(lines.len().saturating_sub(3));
        lines[from..].iter().map(|line| line.trim_start().trim_start_matches("error: ")).collect::<Vec<_>>().join("\n")
    } else {
        errors.join("\n")
    };
    if said.is_empty() { how } else { format!("{said} ({how})") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::NodeReport;

    fn group(processes: usize) -> Group {
        Group::new((0..processes).map(|n| format!("n{n}")))
    }

    fn end(drained: bool) -> Line {
        Line::End { drained, report: Report::default() }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_cause_is_the_last_error() {
        let tail = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<VecDeque<_>>();
        let said = ["INFO progress", "error: earlier", "error: source `a`: x.gz: there is no such file", "check the path"];
        let one = End::Exited(1);
        assert_eq!(cause(&one, &[], &tail(&said)), "source `a`: x.gz: there is no such file\ncheck the path (exit status 1)");
        assert_eq!(cause(&End::Killed(9), &[], &tail(&[])), "killed by signal 9");
        assert_eq!(cause(&one, &["sink `b`: full".into()], &tail(&said)), "sink `b`: full (exit status 1)");
    }

    #[test]
    fn the_cause_is_who_did_not_die_of_another() {
        let mut g = group(3);
        g.gone(at(0), 2, End::Exited(5));
        assert_eq!(g.wake(), Some(GRACE));
        g.logged(0, "error: the disk is full");
        g.gone(at(1_500), 0, End::Exited(1));
        g.gone(at(1_600), 1, End::Killed(9));
        assert_eq!(g.over(), Some(Exit::Crashed("process 0 on node `n0`: the disk is full (exit status 1)".into())));

        // Nobody had a reason of its own in time: the first, whatever those that were killed say.
        let mut g = group(2);
        g.gone(at(0), 1, End::Exited(5));
        g.killed();
        g.gone(at(2_100), 0, End::Killed(9));
        assert_eq!(g.over(), Some(Exit::Crashed("process 1 on node `n1`: exit status 5".into())));

        // One that needs a decision speaks for all.
        let mut g = group(2);
        g.gone(at(0), 0, End::Exited(1));
        g.gone(at(10), 1, End::Exited(4));
        assert_eq!(g.over(), Some(Exit::Refused("process 1 on node `n1`: exit status 4".into())));
    }

    #[test]
    fn they_end_well_together_and_the_first_tells_how() {
        let mut g = group(2);
        g.said(0, end(true));
        g.gone(at(0), 0, End::Exited(0));
        assert_eq!((g.over(), g.wake()), (None, None));
        g.said(1, end(false));
        g.gone(at(9_000), 1, End::Exited(0));
        assert_eq!(g.over(), Some(Exit::Drained));

        let mut g = group(1);
        g.gone(at(0), 0, End::Exited(0));
        assert_eq!(g.over(), Some(Exit::Crashed("exit status 0".into())), "its books were not told");
    }

    #[test]
    fn peers_are_told_once_when_all_listen() {
        let mut g = group(2);
        let listening = |address: &str| Line::Listening { address: address.into() };
        assert_eq!(g.said(1, listening("b:2")), None);
        assert_eq!(g.said(0, listening("a:1")), Some(vec!["a:1".into(), "b:2".into()]));
        assert_eq!(g.said(0, Line::Report(Report::default())), None);
    }

    #[test]
    fn reports_add_up_and_wait_for_each() {
        let node = |name: &str, received, watermark: Option<&str>| NodeReport {
            name: name.into(),
            role: "source".into(),
            received,
            rows_per_second: received,
            watermark: watermark.map(str::to_owned),
            lag_seconds: watermark.map(|_| 1.5),
            ..NodeReport::default()
        };
        let mut g = group(2);
        let first = Report {
            running: true,
            nodes: vec![node("a", 1, None)],
            checkpoint: Some("t".into()),
            errors: vec!["x".into()],
            ..Report::default()
        };
        let second =
            Report { nodes: vec![node("a", 2, Some("w")), node("b", 4, None)], errors: vec!["x".into(), "y".into()], ..Report::default() };
        g.said(0, Line::Report(first.clone()));
        assert!(!g.all_reported());
        g.said(0, Line::Report(first));
        g.said(1, Line::Report(second));
        assert!(g.all_reported() && !g.all_reported());
        let merged = g.report();
        let names: Vec<(&str, u64)> = merged.nodes.iter().map(|n| (n.name.as_str(), n.received)).collect();
        assert_eq!(names, [("a", 3), ("b", 4)]);
        assert_eq!((merged.nodes[0].watermark.as_deref(), merged.nodes[0].lag_seconds), (Some("w"), Some(1.5)));
        assert!(merged.running && merged.checkpoint.is_some());
        assert_eq!(merged.errors, ["x", "y"]);
        assert_eq!(g.processes().iter().map(|p| p.rows_per_second).collect::<Vec<_>>(), [1, 6]);
        // One that is gone owes no report.
        g.gone(at(0), 1, End::Exited(5));
        g.said(0, Line::Report(Report::default()));
        assert!(g.all_reported());
    }

    #[derive(Clone, Debug)]
    enum Op {
        Pass(u64),
        Ends(usize),
        /// A process, and how it ends: well, for want of a peer, refused, badly, lost.
        Gone(usize, u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0..1_500_u64).prop_map(Op::Pass),
            2 => (0..4_usize).prop_map(Op::Ends),
            3 => (0..4_usize, 0..5_u8).prop_map(|(n, how)| Op::Gone(n, how)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// Whatever happens in whatever order: once one has ended badly the others are killed in time; they are over exactly
        /// when all are gone; well only if each was; and a crash is never told of one that only lost its peer or was killed
        /// where another had a reason of its own in time.
        #[test]
        fn a_group_ends_as_one(size in 1..4_usize, ops in prop::collection::vec(op(), 0..40)) {
            let mut g = group(size);
            let mut now = Duration::ZERO;
            let mut ended: Vec<Option<(bool, Duration)>> = vec![None; size];
            let (mut told, mut killed) = (vec![false; size], false);
            let mut own: Vec<usize> = Vec::new();
            let mut refused = false;
            for op in ops.into_iter().chain((0..size).map(|n| Op::Gone(n, 3))) {
                match op {
                    Op::Pass(millis) => {
                        now += at(millis);
                        if g.wake().is_some_and(|wake| now >= wake) {
                            g.killed();
                            killed = true;
                            prop_assert!(g.wake().is_none());
                        }
                    }
                    Op::Ends(n) if n < size && ended[n].is_none() => {
                        g.said(n, end(n == 0));
                        told[n] = true;
                    }
                    Op::Gone(n, how) if n < size && ended[n].is_none() => {
                        let how = if killed { 3 } else { how };
                        let end = [End::Exited(0), End::Exited(5), End::Exited(4), End::Killed(9), End::Lost("lost".into())][usize::from(how)].clone();
                        let well = how == 0 && told[n];
                        if !well && !killed {
                            match how {
                                2 => refused = true,
                                1 => {}
                                _ => own.push(n),
                            }
                        }
                        g.gone(now, n, end);
                        ended[n] = Some((well, now));
                    }
                    Op::Ends(_) | Op::Gone(..) => {}
                }
                let all = ended.iter().all(Option::is_some);
                prop_assert_eq!(g.over().is_some(), all);
                let broken = ended.iter().flatten().filter(|(well, _)| !well).map(|(_, when)| *when).min();
                prop_assert_eq!(g.wake(), broken.filter(|_| !all && !killed).map(|when| when + GRACE));
            }
            match g.over() {
                Some(Exit::Drained) => prop_assert!(ended.iter().flatten().all(|(well, _)| *well)),
                Some(Exit::Refused(_)) => prop_assert!(refused),
                Some(Exit::Crashed(cause)) => {
                    prop_assert!(!refused);
                    if let (Some(first), true) = (own.first(), size > 1) {
                        prop_assert!(cause.starts_with(&format!("process {first} ")), "{} {:?}", cause, own);
                    }
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
