//! A cluster to which anything happens: whatever is killed, stopped or cut off, nothing is lost and nothing is doubled.
//!
//! Three nodes, three NATS servers, a ClickHouse endpoint and SeaweedFS run one pipeline of several processes, with every
//! operator that has a state. What happens to them is a plan, made from a seed before the run and printed; each step begins
//! when rows flow again after the one before, and a moment. Then the feed comes to its end, and every table in both stores must
//! be that of one process to which nothing happened.
//!
//! An upgrade turns a filter round, which lets the trades of even frames pass, or of odd ones: whether a trade is in the table
//! behind it tells which of the two it has met. So each upgrade must have taken effect between two frames, once, for all rows.
//!
//! - `MARKETPRISM_SEED` chooses the plan, `MARKETPRISM_KILLS` how many kills it has; `./soak` sets both. Many kills are dealt
//!   over rounds of [`ROUND`], each with the next seed, a cluster of its own and a comparison.
//! - `MARKETPRISM_PLAN=FILE` replays a plan, as it was printed or as somebody wrote it.
//!
//! A plan says what happens in which order, not what the cluster is doing at that moment: a replay is as near as that.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use config::Environment;
use config::settings;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use serde_json::{Value, json};
use tests::node::{Node, is_alive, start_cluster, start_member, start_of};
use tests::program::{Output, finish, program, root, until};
use tests::proxy::Proxy;
use tests::servers::{ClickHouse, NatsCluster, SeaweedFs, http};

use crate::recovery::{PIPELINE, Place, Tables, compare, hot};

use plan::{Action, Agent, Step, Store, plan};

mod plan;

/// The nodes.
const NAMES: [&str; 3] = ["a", "b", "c"];
/// The pipeline of [`PIPELINE`].
const NAME: &str = "victim";
/// The database and the bucket.
const DATABASE: &str = "chaos";
/// Sinks whose commits are waited for.
const SINKS: usize = 3;
/// Kills in CI.
const KILLS: usize = 25;
/// The most kills that a cluster gets.
const ROUND: usize = 50;
/// Frames a second: few enough that a run is compared in seconds, whatever it went through.
const RATES: [u64; 2] = [1_000, 1_200];
/// How long rows may take to flow again.
const DEADLINE: Duration = Duration::from_secs(120);

/// The cluster, and all that it needs.
struct Chaos {
    /// The pipeline's file, and the settings by which its tables are read: past the proxies.
    place: Place,
    /// The settings of nodes.
    settings: Vec<String>,
    agents: Vec<Option<Node>>,
    /// Agents that are being started again.
    returning: Vec<(usize, JoinHandle<Node>)>,
    nats: NatsCluster,
    clickhouse: ClickHouse,
    s3: SeaweedFs,
    before_clickhouse: Proxy,
    before_s3: Proxy,
    runtime: tokio::runtime::Runtime,
    journal: storage::Place,
    /// The processes of workers, whenever they were looked at, and when each was started.
    workers: BTreeSet<(u64, u64)>,
    /// How often it was upgraded.
    upgrades: usize,
    begun: Instant,
    /// What was done of the plan.
    done: Vec<Step>,
}

/// How long things took, by what they are.
type Times = BTreeMap<&'static str, Vec<Duration>>;

impl Chaos {
    fn start() -> Chaos {
        let (nats, clickhouse, s3) = thread::scope(|scope| {
            let nats = scope.spawn(|| NatsCluster::start().unwrap());
            let clickhouse = scope.spawn(|| ClickHouse::start().unwrap());
            let s3 = SeaweedFs::start().unwrap();
            s3.create_bucket(DATABASE).unwrap();
            (nats.join().unwrap(), clickhouse.join().unwrap(), s3)
        });
        let (before_clickhouse, before_s3) = (Proxy::before(&clickhouse.url()).unwrap(), Proxy::before(&s3.s3_url()).unwrap());
        let stores = |clickhouse: &str, s3: &str| {
            let mut settings = vec![
                format!("cold.url=\"s3://{DATABASE}/cold\""),
                format!("checkpoints.url=\"s3://{DATABASE}/state\""),
                "checkpoints.interval=\"1s\"".to_owned(),
                format!("hot.url=\"{clickhouse}\""),
                format!("hot.database=\"{DATABASE}\""),
                "hot.keep_days=0".to_owned(),
            ];
            settings.extend(SeaweedFs::settings(s3));
            settings
        };
        let mut place = Place::new(&pipeline());
        place.settings = stores(&clickhouse.url(), &s3.s3_url());
        let mut settings = stores(&before_clickhouse.url(), &before_s3.url());
        // More kills follow each other than a pipeline survives whose owner is not a test.
        let patience = ["node.restarts=1_000_000".to_owned(), "node.healthy=\"1s\"".to_owned()];
        settings.extend(patience.into_iter().chain([format!("cluster.nats={}", json!(nats.urls()))]));
        let agents = start_cluster(place.folder.path(), &NAMES, &settings).into_iter().map(Some).collect();

        let seen = settings::load(place.folder.path(), &Environment::of_process(), &place.settings);
        let seen = seen.unwrap_or_else(|errors| panic!("{}", errors.to_text(false)));
        let journal = storage::Place::open(seen.shared_checkpoints().unwrap(), &seen.cold).unwrap();
        let chaos = Chaos {
            place,
            settings,
            agents,
            returning: Vec::new(),
            nats,
            clickhouse,
            s3,
            before_clickhouse,
            before_s3,
            runtime: tokio::runtime::Runtime::new().unwrap(),
            journal,
            workers: BTreeSet::new(),
            upgrades: 0,
            begun: Instant::now(),
            done: Vec::new(),
        };
        chaos.command("submit", &["--processes", "3", "--workers", "1"], &chaos.sets("1_000_000_000", None));
        chaos
    }

    /// What a pipeline is submitted with: the options that change, and a check needs to know that there are stores.
    fn sets(&self, frames: &str, rate: Option<&str>) -> Vec<String> {
        let of_version = RATES[self.upgrades % RATES.len()].to_string();
        let source = [
            format!("sources.market.frames={frames}"),
            format!("sources.market.rate={}", rate.unwrap_or(&of_version)),
            format!("operators.half.where=\"frame % 2 = {}\"", self.upgrades % 2),
        ];
        let stores = self.settings.iter().filter(|s| !s.starts_with("cluster.") && !s.starts_with("node."));
        source.iter().chain(stores).flat_map(|s| ["--set".to_owned(), s.clone()]).collect()
    }

    /// Runs a command on the pipeline's file; any agent that answers will do.
    #[track_caller]
    fn command(&self, command: &str, flags: &[&str], sets: &[String]) {
        let file = self.place.file().display().to_string();
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).chain(sets.iter().cloned()).collect();
        self.ask_command(command, &[vec![file], flags].concat());
    }

    #[track_caller]
    fn ask_command(&self, name: &str, arguments: &[String]) {
        let started = Instant::now();
        loop {
            let mut last: Option<Output> = None;
            for agent in self.agents.iter().flatten() {
                let output = finish(program().arg(name).args(arguments).env("MARKETPRISM_API", &agent.url).current_dir(root()));
                if output.status == Some(0) {
                    return;
                }
                last = Some(output);
            }
            if started.elapsed() > DEADLINE {
                self.fail(&format!("no agent does `{name}`: {last:#?}"));
            }
        }
    }

    /// What one of the agents answers.
    fn ask(&self, path: &str) -> Option<Value> {
        self.agents.iter().flatten().find_map(|agent| {
            let port = agent.url.rsplit_once(':')?.1.parse().ok()?;
            let (status, text) = http(port, "GET", path, &[], b"").ok()?;
            (status == 200).then(|| serde_json::from_str(&text).ok()).flatten()
        })
    }

    fn status(&mut self) -> Option<Value> {
        let status = self.ask(&format!("/api/v1/pipelines/{NAME}/status"))?;
        let processes = status["processes"].as_array().into_iter().flatten().filter_map(|p| p["process"].as_u64());
        self.workers.extend(processes.filter_map(|process| Some((process, start_of(process)?))));
        Some(status)
    }

    /// The number of the agent that leads, as one tells.
    fn leader(&self) -> Option<usize> {
        let nodes = self.ask("/api/v1/nodes")?;
        let leader = nodes.as_array()?.iter().find(|n| n["leader"] == true)?["name"].as_str()?.to_owned();
        NAMES.iter().position(|name| *name == leader)
    }

    /// How far each sink has come, if the bucket can be read.
    fn look_at_journal(&self) -> Option<BTreeMap<String, u64>> {
        const PATIENCE: Duration = Duration::from_secs(3);
        let folder = self.journal.path(&format!("pipelines/{NAME}/journal"));
        let store = self.journal.store().clone();
        let reading = async {
            let segments: Vec<_> = store.list(Some(&folder)).try_collect().await.ok()?;
            let mut committed = BTreeMap::new();
            for segment in segments {
                // One that is gone was replaced by a later one.
                let Ok(found) = store.get(&segment.location).await else { continue };
                let text = found.bytes().await.ok()?;
                for line in text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok()) {
                    if let ("commit", Some(sink), Some(upper)) =
                        (line["line"].as_str().unwrap_or_default(), line["sink"].as_str(), line["upper"].as_u64())
                    {
                        let last = committed.entry(sink.to_owned()).or_insert(0);
                        *last = upper.max(*last);
                    }
                }
            }
            Some(committed)
        };
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, reading).await.ok().flatten() })
    }

    /// Waits until rows reach all sinks in a generation later than `than`, of the pipeline as it is.
    fn wait_until_rows_flow(&mut self, than: u64) {
        let started = Instant::now();
        // The generation, and how far each sink had come when it was first seen.
        let mut begun: Option<(u64, BTreeMap<String, u64>)> = None;
        loop {
            let status = self.status().unwrap_or_default();
            let state = status["state"].as_str().unwrap_or("unknown");
            if state == "failed" || state == "finished" || state == "stopped" {
                self.fail(&format!("the pipeline has {state}"));
            }
            let finishes = status["why"].as_str().is_some_and(|why| why.contains("it finishes what it had begun"));
            let generation = generation(&status);
            if state == "running" && generation > than && !finishes {
                match (self.look_at_journal(), &begun) {
                    (Some(now), Some((of, before))) if *of == generation => {
                        if now.len() == SINKS && now.iter().all(|(sink, upper)| Some(upper) > before.get(sink)) {
                            return;
                        }
                    }
                    (now, _) => begun = now.map(|now| (generation, now)),
                }
            }
            if started.elapsed() > DEADLINE {
                let now = self.look_at_journal();
                self.fail(&format!("no rows flow after {} s; committed before {begun:?}, now {now:?}", DEADLINE.as_secs()));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the test, with everything that may tell why.
    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        println!("\n--- the plan so far, of which the last step is the one at hand");
        self.done.iter().for_each(|step| println!("{step}"));
        for name in NAMES {
            let node = self.place.folder.path().join(name);
            for log in [node.with_extension("log"), node.join("cluster/logs").join(format!("{NAME}.log"))] {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                println!("--- the end of {}\n{}", log.display(), lines[lines.len().saturating_sub(60)..].join("\n"));
            }
        }
        let status = self.ask(&format!("/api/v1/pipelines/{NAME}/status")).unwrap_or_default();
        panic!("{what}\nstatus: {status:#}\nnodes: {:#}", self.ask("/api/v1/nodes").unwrap_or_default());
    }

    /// Waits until all agents run.
    fn all_return(&mut self) {
        for (number, starting) in std::mem::take(&mut self.returning) {
            self.agents[number] = Some(starting.join().unwrap_or_else(|_| self.fail(&format!("agent {number} does not come back"))));
        }
    }

    /// Which agent is meant. All run then.
    fn which(&mut self, agent: Agent) -> usize {
        self.all_return();
        match agent {
            Agent::Number(number) => number % NAMES.len(),
            Agent::Leader => {
                let started = Instant::now();
                loop {
                    match self.leader() {
                        Some(leader) => return leader,
                        None if started.elapsed() > DEADLINE => self.fail("no agent leads"),
                        None => thread::sleep(Duration::from_millis(20)),
                    }
                }
            }
        }
    }

    /// The process of a worker, if there is one.
    fn worker(&mut self, number: usize) -> Option<u64> {
        let status = self.status()?;
        let processes = status["processes"].as_array().filter(|all| !all.is_empty())?;
        processes[number % processes.len()]["process"].as_u64()
    }

    /// Lets a step happen. Returns the generation that must have been replaced when rows flow, and since when that was to
    /// be waited for, as what.
    fn act(&mut self, action: Action, times: &mut Times) -> (u64, Instant, Option<&'static str>) {
        let status = self.status().unwrap_or_default();
        let now = generation(&status);
        match action {
            Action::KillWorker(number) => {
                let began = Instant::now();
                return match self.worker(number) {
                    Some(process) if send(process, "-KILL") => (now, began, Some("a worker")),
                    _ => (0, began, None),
                };
            }
            Action::KillAgent(agent, away) => {
                let number = self.which(agent);
                let leads = self.leader() == Some(number);
                let runs = |p: &Value| p["node"] == NAMES[number];
                let concerned = leads || status["processes"].as_array().is_some_and(|all| all.iter().any(runs));
                let began = Instant::now();
                self.agents[number].take().expect("all run").kill();
                let (folder, settings) = (self.place.folder.path().to_owned(), self.settings.clone());
                let starting = thread::spawn(move || {
                    thread::sleep(away);
                    start_member(&folder, NAMES[number], &settings)
                });
                self.returning.push((number, starting));
                if leads {
                    while self.leader().is_none_or(|leader| leader == number) {
                        if began.elapsed() > DEADLINE {
                            self.fail("no other agent leads");
                        }
                        thread::sleep(Duration::from_millis(20));
                    }
                    times.entry("another agent leads").or_default().push(began.elapsed());
                }
                let what = if leads { "the leader's agent" } else { "another agent with a worker" };
                return if concerned { (now, began, Some(what)) } else { (0, began, None) };
            }
            Action::KillNats(number, away) => {
                let number = number % NAMES.len();
                let began = Instant::now();
                self.nats.kill(number);
                thread::sleep(away);
                self.nats.restart(number).unwrap();
                return (0, began, Some("a NATS server"));
            }
            Action::KillStore(Store::ClickHouse, away) => {
                self.clickhouse.kill();
                thread::sleep(away);
                self.clickhouse.restart().unwrap();
                return (0, Instant::now(), Some("ClickHouse, since it is back"));
            }
            Action::KillStore(Store::S3, away) => {
                self.s3.kill();
                thread::sleep(away);
                self.s3.restart().unwrap();
                return (0, Instant::now(), Some("SeaweedFS, since it is back"));
            }
            Action::StopWorker(number, time) => {
                if let Some(process) = self.worker(number) {
                    send(process, "-STOP");
                    thread::sleep(time);
                    send(process, "-CONT");
                }
            }
            Action::StopAgent(agent, time) => {
                let number = self.which(agent);
                let process = self.agents[number].as_ref().expect("all run").process();
                send(process, "-STOP");
                thread::sleep(time);
                send(process, "-CONT");
            }
            Action::Cut(store, time) => {
                let proxy = self.proxy(store);
                proxy.cut();
                thread::sleep(time);
                proxy.heal();
            }
            Action::Still(store, time) => {
                let proxy = self.proxy(store);
                proxy.stand_still();
                thread::sleep(time);
                proxy.heal();
            }
            Action::Rescale(processes) => {
                let began = Instant::now();
                self.ask_command("rescale", &[NAME.to_owned(), "--processes".into(), processes.to_string()]);
                return (now, began, Some("a rescale"));
            }
            Action::Upgrade => {
                self.upgrades += 1;
                let began = Instant::now();
                self.command("upgrade", &["--accept"], &self.sets("1_000_000_000", None));
                return (now, began, Some("an upgrade"));
            }
        }
        (0, Instant::now(), None)
    }

    fn proxy(&self, store: Store) -> &Proxy {
        match store {
            Store::ClickHouse => &self.before_clickhouse,
            Store::S3 => &self.before_s3,
        }
    }

    /// Does what the plan says. How long things took is added to `times`.
    fn carry_out(&mut self, plan: &[Step], times: &mut Times) {
        self.wait_until_rows_flow(0);
        for (number, step) in plan.iter().enumerate() {
            thread::sleep(step.pause);
            self.done.push(*step);
            let (than, since, what) = self.act(step.action, times);
            let mut how = String::new();
            // What the next step befalls at once is not waited for.
            if plan.get(number + 1).is_none_or(|next| !next.at_once) {
                self.wait_until_rows_flow(than);
                how = format!(": rows flow after {:.1} s", since.elapsed().as_secs_f64());
                if let Some(what) = what {
                    times.entry(what).or_default().push(since.elapsed());
                }
            }
            let generation = generation(&self.status().unwrap_or_default());
            println!("{:5.1} s  {step}{how}, generation {generation}", self.begun.elapsed().as_secs_f64());
            for (number, agent) in self.agents.iter().enumerate() {
                if agent.as_ref().is_some_and(|agent| !is_alive(agent.process())) {
                    self.fail(&format!("agent {number} has ended by itself"));
                }
            }
        }
    }

    /// Lets the feed come to its end; returns how many frames it had.
    fn come_to_the_end(&mut self) -> String {
        self.all_return();
        // The clock says how many have come at most: what is read again was made before.
        let most = (self.begun.elapsed().as_secs() + 5) * RATES.iter().max().expect("there are some");
        self.command("upgrade", &["--accept"], &self.sets(&most.to_string(), Some("max")));
        let started = Instant::now();
        while self.status().is_none_or(|s| s["state"] != "finished") {
            if started.elapsed() > DEADLINE {
                self.fail("the pipeline does not come to its end");
            }
            thread::sleep(Duration::from_millis(50));
        }
        let workers = std::mem::take(&mut self.workers);
        until("the end of all workers", || (!workers.iter().any(|(worker, start)| start_of(*worker) == Some(*start))).then_some(()));
        most.to_string()
    }

    /// Runs the same in one process to which nothing happens; its cold tables are in the place, and here are the hot ones.
    fn uninterrupted(&self, frames: &str) -> (Place, Tables) {
        const STRAIGHT: &str = "straight";
        let mut place = Place::new(&both());
        place.settings = vec![
            format!("hot.url=\"{}\"", self.clickhouse.url()),
            format!("hot.database=\"{STRAIGHT}\""),
            "hot.keep_days=0".to_owned(),
            "checkpoints.interval=\"1h\"".to_owned(),
        ];
        let frames = format!("sources.market.frames={frames}");
        place.run(&["--workers", "2", "--set", &frames, "--set", "sinks.cold.interval=2s"]).expect_success();
        (place, hot(&self.clickhouse, STRAIGHT))
    }

    /// Holds the trades behind the filter to be the half of all that each version of it lets pass.
    fn compare_halves(&self, straight: &Place) {
        const TRADES: &str = "SELECT frame AS met, * FROM trades";
        let mut halves = Place::new("");
        halves.settings.clone_from(&self.place.settings);
        halves.settings.push(format!("cold.url=\"s3://{DATABASE}/half\""));
        let (all, passed) = (straight.ask(TRADES), halves.ask(TRADES));
        let doubled = passed.windows(2).find(|pair| pair[0] == pair[1]);
        assert_eq!(doubled, None, "a row twice behind the filter");
        let unknown = passed.iter().find(|trade| all.binary_search(trade).is_err());
        assert_eq!(unknown, None, "a row behind the filter that was not before it");
        let mut frames: BTreeMap<u64, BTreeSet<bool>> = BTreeMap::new();
        for trade in &all {
            let frame = trade.split(' ').next().and_then(|frame| frame.parse().ok()).expect("a frame is a number");
            frames.entry(frame).or_default().insert(passed.binary_search(trade).is_ok());
        }
        // Which half a frame has met.
        let mut halves: Vec<(u64, u64)> = Vec::new();
        for (frame, fates) in &frames {
            assert_eq!(fates.len(), 1, "rows of frame {frame} met different filters");
            let half = (frame + u64::from(!fates.contains(&true))) % 2;
            if halves.last().is_none_or(|(_, last)| *last != half) {
                halves.push((*frame, half));
            }
        }
        // Of two upgrades in a row the first may have met no frame: then neither shows.
        let unseen = (self.upgrades + 1).checked_sub(halves.len());
        assert!(
            unseen.is_some_and(|unseen| unseen.is_multiple_of(2)),
            "{} upgrades, and the half changed at these frames: {halves:?}",
            self.upgrades
        );
    }
}

/// The pipeline with a sink into each store.
fn both() -> String {
    format!("{PIPELINE}\n[sinks.hot]\ntype = \"clickhouse\"\ninputs = [\"records\", \"bars\", \"watch\"]\n")
}

/// The same with an operator that changes.
fn pipeline() -> String {
    format!(
        "{}\n[operators.half]\ntype = \"filter\"\ninputs = [\"records\"]\nkinds = [\"trade\"]\nwhere = \"frame % 2 = 0\"\n\n[sinks.halves]\ntype = \"parquet\"\ninputs = [\"half\"]\nurl = \"s3://{DATABASE}/half\"\ninterval = \"100ms\"\n",
        both()
    )
}

fn generation(status: &Value) -> u64 {
    status["generation"]["number"].as_u64().unwrap_or(0)
}

/// Sends a signal to a process that may have ended; whether it had not.
fn send(process: u64, signal: &str) -> bool {
    let kill = Command::new("kill").args([signal, &process.to_string()]).stderr(std::process::Stdio::null()).status();
    kill.expect("kill starts").success()
}

/// Lets a plan happen to a cluster, and compares what is left.
fn survive(plan: &[Step], times: &mut Times) {
    println!("{}", plan.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    let mut chaos = Chaos::start();
    chaos.carry_out(plan, times);
    let frames = chaos.come_to_the_end();
    println!("{:5.1} s  the feed has ended after {frames} frames", chaos.begun.elapsed().as_secs_f64());
    let (straight, hot_) = chaos.uninterrupted(&frames);
    let cold = straight.cold();
    let (found_cold, found_hot) = (chaos.place.cold(), hot(&chaos.clickhouse, DATABASE));
    compare("cold", &cold, &found_cold);
    compare("hot", &hot_, &found_hot);
    chaos.compare_halves(&straight);
    let rows = |tables: &Tables| tables.values().map(Vec::len).sum::<usize>();
    println!("{:5.1} s  {} rows cold and {} hot are the same", chaos.begun.elapsed().as_secs_f64(), rows(&cold), rows(&hot_));
}

/// Another agent leads while the processes of a pipeline, or what they compute, become others.
#[test]
fn a_leader_that_is_lost_while_a_pipeline_changes_loses_and_doubles_nothing() {
    let changes = [Action::Rescale(1), Action::Rescale(2), Action::Rescale(3), Action::Rescale(1), Action::Upgrade, Action::Upgrade];
    let plan: Vec<Step> = changes
        .into_iter()
        .zip([0, 700, 300, 100, 0, 400])
        .flat_map(|(change, pause)| {
            let lost = Action::KillAgent(Agent::Leader, Duration::from_secs(1));
            [
                Step { at_once: false, pause: Duration::ZERO, action: change },
                Step { at_once: true, pause: Duration::from_millis(pause), action: lost },
            ]
        })
        .collect();
    survive(&plan, &mut Times::new());
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn whatever_happens_nothing_is_lost_and_nothing_doubled() {
    let seed = number("MARKETPRISM_SEED").unwrap_or(20_261_126);
    let kills = number("MARKETPRISM_KILLS").map_or(KILLS, |kills| usize::try_from(kills).expect("not so many"));
    let mut times = Times::new();
    if let Ok(file) = std::env::var("MARKETPRISM_PLAN") {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let plan: Result<Vec<Step>, String> = lines.map(str::parse).collect();
        survive(&plan.unwrap(), &mut times);
    } else {
        for (round, begin) in (0..).zip((0..kills).step_by(ROUND)) {
            let (seed, kills) = (seed + round, ROUND.min(kills - begin));
            println!("MARKETPRISM_SEED={seed} MARKETPRISM_KILLS={kills}");
            survive(&plan(seed, kills), &mut times);
        }
    }
    for (what, times) in &mut times {
        times.sort();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{what}: {} times, median {:.1} s, worst {:.1} s", times.len(), median.as_secs_f64(), worst.as_secs_f64());
    }
}
