//! A process on another node: the pipes of a child, over a connection.
//!
//! The leader asks the other node's agent to start it, by an HTTP/1.1 request that becomes a connection of lines both ways.
//! The agent starts it when the first line comes, and says how that went: a request that was sent to a node that stood still,
//! and that nobody waits for any more when it goes on, starts nothing. From then on the leader's lines are those of the child's standard input, and [`KILL`]; the agent's are [`Said`] as JSON, and
//! [`PING`]. The end of the connection is the end of the child: the agent kills it.
//!
//! A peer that is stopped or cut off closes nothing, so both say something at least each second. The agent that hears
//! nothing for [`SILENCE`] kills the child. The leader waits for [`GONE`], which is longer by more than a second, before it
//! takes the child for gone: by then the agent, however it fares, has killed it, or the child has ended itself.
//!
//! A node that cannot be reached is [`Lost`]: no process is started there until its record has changed again, so that the next
//! generation need not wait until the node is found silent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::StatusCode;
use reqwest::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines, split};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::host::{End, Host, Order, Process, Said, Told};
use crate::protocol::PING;
use crate::store::Revision;

/// The path of the request.
pub(crate) const PATH: &str = "/api/v1/internal/process";
/// What the connection becomes.
pub(crate) const PROTOCOL: &str = "marketprism-process";
/// The line by which the leader has the process killed.
const KILL: &str = "kill";
/// How often each side says something.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
/// How long a process, and the agent that has started it, go on without a word from the leader.
pub(crate) const SILENCE: Duration = Duration::from_secs(4);
/// How long the leader waits for a word from the agent.
const GONE: Duration = Duration::from_secs(6);
/// How long an agent may take to start a process.
const START: Duration = Duration::from_secs(5);
/// Lines that a process may be ahead of the leader. Then it waits.
const AHEAD: usize = 1_024;

/// The agent's first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum First {
    /// The process was started, with this number of the system's.
    Started(u32),
    /// It was not, and why.
    Refused(String),
}

/// The nodes that could not be reached and were not heard of since, by name. The revision of the record that they had then is
/// known when somebody has looked.
pub(crate) type Lost = Arc<Mutex<BTreeMap<String, Option<Revision>>>>;

/// Another node.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// Its name.
    pub(crate) name: String,
    /// The address of its API.
    pub(crate) address: String,
    pub(crate) http: reqwest::Client,
    /// Where it is said that the node cannot be reached.
    pub(crate) lost: Lost,
}

#[async_trait]
impl Host for Remote {
    fn node(&self) -> &str {
        &self.name
    }

    fn is_lost(&self) -> bool {
        self.lost.lock().expect("no holder panics").contains_key(&self.name)
    }

    async fn start(&self, order: Order) -> Result<Process, String> {
        timeout(START, self.ask(order)).await.unwrap_or_else(|_| {
            lose(&self.lost, &self.name);
            Err(format!("{} does not answer; see that it runs and can be reached", self.place()))
        })
    }
}

/// Says that a node cannot be reached.
fn lose(lost: &Lost, name: &str) {
    lost.lock().expect("no holder panics").insert(name.to_owned(), None);
}

impl Remote {
    fn place(&self) -> String {
        format!("node `{}` at {}", self.name, self.address)
    }

    async fn ask(&self, order: Order) -> Result<Process, String> {
        let node = self.place();
        let body = serde_json::to_vec(&order).map_err(|e| e.to_string())?;
        let request = self.http.post(format!("http://{}{PATH}", self.address)).header(CONNECTION, "upgrade").header(UPGRADE, PROTOCOL);
        let response = request.header(CONTENT_TYPE, "application/json").body(body).send().await;
        let response = response.map_err(|e| {
            lose(&self.lost, &self.name);
            format!("{node} cannot be asked: {}", crate::client::reason(&e))
        })?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(format!("{node} answered {}; see that all nodes are of one version", response.status()));
        }
        let broken = |why: String| format!("{node} broke off: {why}");
        let stream = response.upgrade().await.map_err(|e| broken(crate::client::reason(&e)))?;
        let (read, mut write) = split(stream);
        write.write_all(format!("{PING}\n").as_bytes()).await.map_err(|e| broken(e.to_string()))?;
        let mut lines = BufReader::new(read).lines();
        let first = lines.next_line().await.map_err(|e| broken(e.to_string()))?;
        let id = match serde_json::from_str(&first.unwrap_or_default()).map_err(|e| broken(e.to_string()))? {
            First::Started(id) => id,
            First::Refused(why) => return Err(why),
        };
        let (tell, told) = mpsc::unbounded_channel();
        let (say, said) = mpsc::channel(AHEAD);
        let (lost, name) = (self.lost.clone(), self.name.clone());
        tokio::spawn(follow(lines, write, told, say, node, move || lose(&lost, &name)));
        Ok(Process { id, tell, said })
    }
}

/// The leader's side of a connection. `lose` is called before anybody hears that the node is gone.
async fn follow(
    mut lines: Lines<impl AsyncBufRead + Unpin>,
    mut write: impl AsyncWrite + Unpin,
    mut told: mpsc::UnboundedReceiver<Told>,
    say: mpsc::Sender<Said>,
    node: String,
    lose: impl Fn(),
) {
    let listening = async {
        loop {
            let said = match timeout(GONE, lines.next_line()).await {
                Ok(Ok(Some(line))) if line == PING => continue,
                Ok(Ok(Some(line))) => match serde_json::from_str(&line) {
                    Ok(said) => said,
                    Err(error) => Said::Gone(End::Lost(format!("{node} says what nobody understands: {error}"))),
                },
                Ok(Ok(None) | Err(_)) => {
                    lose();
                    Said::Gone(End::Lost(format!("{node} is gone")))
                }
                Err(_) => {
                    lose();
                    Said::Gone(End::Lost(format!("{node} has said nothing for {} s", GONE.as_secs())))
                }
            };
            let last = matches!(said, Said::Gone(_));
            if say.send(said).await.is_err() || last {
                return;
            }
        }
    };
    let telling = async {
        while let Some(told) = told.recv().await {
            let line = match told {
                Told::Line(line) => line,
                Told::Kill => KILL.to_owned(),
            };
            if write.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                // The other side is gone, which is heard.
                std::future::pending::<()>().await;
            }
        }
        // The keeper is gone: what ends the connection ends the process.
    };
    tokio::select! {
        () = listening => {}
        () = telling => {}
    }
}

/// The agent's side of a connection: starts the process when the leader still wants it. It is killed when this returns.
pub(crate) async fn serve(stream: impl AsyncRead + AsyncWrite, start: impl Future<Output = Result<Process, String>>) {
    let (read, mut write) = split(stream);
    let mut lines = BufReader::new(read).lines();
    if !matches!(timeout(SILENCE, lines.next_line()).await, Ok(Ok(Some(_)))) {
        return tracing::info!("a process that the leader asked for is not wanted any more");
    }
    let started = start.await;
    let first = match &started {
        Ok(process) => First::Started(process.id),
        Err(why) => First::Refused(why.clone()),
    };
    let first = serde_json::to_string(&first).unwrap_or_default();
    let written = write.write_all(format!("{first}\n").as_bytes()).await;
    let (Ok(Process { id, tell, mut said }), Ok(())) = (started, written) else {
        // The leader hears of it either way: the connection ends.
        let _ = write.shutdown().await;
        return;
    };
    let obeying = async {
        loop {
            let told = match timeout(SILENCE, lines.next_line()).await {
                Ok(Ok(Some(line))) if line == KILL => Told::Kill,
                Ok(Ok(Some(line))) => Told::Line(line),
                Ok(Ok(None) | Err(_)) => return "the leader is gone or does not want it any more",
                Err(_) => return "the leader says nothing",
            };
            // A process that is gone says so itself.
            let _ = tell.send(told);
        }
    };
    let saying = async {
        let mut pings = interval(INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (line, last) = tokio::select! {
                said = said.recv() => match said {
                    Some(said) => (serde_json::to_string(&said).unwrap_or_default(), matches!(said, Said::Gone(_))),
                    None => return "it has ended",
                },
                _ = pings.tick() => (PING.to_owned(), false),
            };
            if write.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                return "the leader does not listen any more";
            }
            if last {
                // The connection ends either way.
                let _ = write.shutdown().await;
                return "it has ended";
            }
        }
    };
    let why = tokio::select! {
        why = obeying => why,
        why = saying => why,
    };
    tracing::info!("process {id} of another node's pipeline ends: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that somebody else plays: what it is told, and where it speaks.
    fn process() -> (Process, mpsc::UnboundedReceiver<Told>, mpsc::Sender<Said>) {
        let (tell, told) = mpsc::unbounded_channel();
        let (say, said) = mpsc::channel(10);
        (Process { id: 7, tell, said }, told, say)
    }

    /// A leader's handle on it, over a connection.
    async fn connected(process: Process) -> Process {
        let (leader, agent) = tokio::io::duplex(1_024);
        tokio::spawn(serve(agent, async { Ok(process) }));
        let (read, mut write) = split(leader);
        write.write_all(b"ping\n").await.unwrap();
        let mut lines = BufReader::new(read).lines();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "{\"started\":7}");
        let (tell, told) = mpsc::unbounded_channel();
        let (say, said) = mpsc::channel(10);
        tokio::spawn(follow(lines, write, told, say, "node `b`".into(), || ()));
        Process { id: 7, tell, said }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_started() {
        let (leader, agent) = tokio::io::duplex(1_024);
        drop(leader);
        serve(agent, async { panic!("it is started") }).await;
    }

    #[tokio::test]
    async fn lines_pass_both_ways_and_the_end_is_the_last() {
        let (child, mut told, say) = process();
        let mut process = connected(child).await;
        process.tell.send(Told::Line("drain".into())).unwrap();
        assert_eq!(told.recv().await, Some(Told::Line("drain".into())));
        process.tell.send(Told::Kill).unwrap();
        assert_eq!(told.recv().await, Some(Told::Kill));
        for said in [Said::Log("ö\u{0}".into()), Said::Output("{\"a\": 1}".into()), Said::Gone(End::Killed(9))] {
            say.send(said.clone()).await.unwrap();
            assert_eq!(process.said.recv().await, Some(said));
        }
        assert_eq!(process.said.recv().await, None);
    }

    #[tokio::test]
    async fn a_process_whose_leader_is_silent_or_gone_is_killed() {
        let (child, mut told, _say) = process();
        let mut silent = connected(child).await;
        // Nobody pings.
        assert_eq!(told.recv().await, None, "its handle was dropped, which kills it");
        assert_eq!(silent.said.recv().await, Some(Said::Gone(End::Lost("node `b` is gone".into()))));

        let (child, mut told, _say) = process();
        drop(connected(child).await);
        assert_eq!(told.recv().await, None);
    }

    #[tokio::test]
    async fn an_agent_that_says_nothing_is_gone_for_the_leader() {
        let (leader, _stopped) = tokio::io::duplex(1_024);
        let (read, write) = split(leader);
        let (_tell, told) = mpsc::unbounded_channel();
        let (say, mut said) = mpsc::channel(10);
        tokio::spawn(follow(BufReader::new(read).lines(), write, told, say, "node `b`".into(), || ()));
        assert_eq!(said.recv().await, Some(Said::Gone(End::Lost("node `b` has said nothing for 6 s".into()))));
    }
}
