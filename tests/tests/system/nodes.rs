//! Several nodes over NATS: real agents, killed and stopped as machines are.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cluster::host::place;
use cluster::store::{Entry, Nats as NatsStore, Revision, Store, StoreError};
use nats::{Connection, Servers};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::node::{Node, command, is_alive, start_cluster, start_member};
use tests::program::{finish, signal, until};
use tests::servers::{Nats, NatsCluster, SeaweedFs};

#[path = "../../../cluster/src/store/behaves.rs"]
mod behaves;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// How long a cluster may take to choose another leader.
const FAILOVER: Duration = Duration::from_secs(10);

/// Where the tables and checkpoints of all these tests lie.
fn s3() -> &'static SeaweedFs {
    static S3: OnceLock<SeaweedFs> = OnceLock::new();
    S3.get_or_init(|| {
        let s3 = SeaweedFs::start().unwrap();
        s3.create_bucket("nodes").unwrap();
        s3
    })
}

/// The settings of the nodes of a cluster.
fn settings(test: &str, servers: &[String]) -> Vec<String> {
    let mut settings = vec![
        format!("cluster.nats={}", json!(servers)),
        format!("cold.url=\"s3://nodes/{test}/cold\""),
        format!("checkpoints.url=\"s3://nodes/{test}/state\""),
        "checkpoints.interval=\"1s\"".to_owned(),
    ];
    settings.extend(SeaweedFs::settings(&s3().s3_url()));
    settings
}

/// An endless pipeline whose first process is on the node of this index among three.
fn pipeline(folder: &Path, index: usize) -> (String, PathBuf) {
    let name = (0..).map(|n| format!("prices_{n}")).find(|name| place(name, 0, NAMES.len()) == index).unwrap();
    let source = "[sources.market]\ntype = \"simulator\"\ninstruments = 2\nrate = 2_000\nframes = 1_000_000_000\n";
    let trades = "[operators.trades]\ntype = \"normalise\"\ninputs = [\"market\"]\nkinds = [\"trade\"]\n";
    let sink = "[sinks.cold]\ntype = \"parquet\"\ninputs = [\"trades\"]\n";
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, format!("name = \"{name}\"\n{source}{trades}{sink}")).unwrap();
    (name, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn generation(status: &Value) -> u64 {
    status["generation"]["number"].as_u64().unwrap()
}

fn epoch(status: &Value) -> u64 {
    status["generation"]["epoch"].as_u64().unwrap()
}

/// The node that the first process of a pipeline is on, and that process.
fn place_of(status: &Value) -> (&str, u64) {
    let process = &status["processes"][0];
    (process["node"].as_str().unwrap(), process["process"].as_u64().unwrap())
}

/// The nodes, as one of them tells.
fn nodes(node: &Node) -> Vec<Value> {
    serde_json::from_str(&node.run(&["nodes", "--format", "json"]).expect_success()).unwrap()
}

/// The name of the node that leads, as one tells.
fn leader(node: &Node) -> Option<String> {
    nodes(node).iter().find(|n| n["leader"] == true).map(|n| n["name"].as_str().unwrap().to_owned())
}

/// Takes the leader out of the nodes.
fn take_leader(nodes: &mut Vec<Node>) -> (String, Node) {
    let name = until("a leader", || leader(&nodes[0]));
    let at = nodes.iter().position(|n| n.data.ends_with(&name)).unwrap();
    (name, nodes.remove(at))
}

fn take(nodes: &mut Vec<Node>, name: &str) -> Node {
    nodes.remove(nodes.iter().position(|n| n.data.ends_with(name)).unwrap())
}

/// Three nodes over a server, and a folder for all of it.
fn three(test: &str) -> (TempDir, Nats, Vec<String>, Vec<Node>) {
    let folder = tempfile::tempdir().unwrap();
    let server = Nats::start().unwrap();
    let settings = settings(test, &[server.url()]);
    let nodes = start_cluster(folder.path(), &NAMES, &settings);
    until("all are known", || (self::nodes(&nodes[0]).len() == 3).then_some(()));
    (folder, server, settings, nodes)
}

#[test]
fn a_store_in_nats_behaves() {
    let server = Nats::start().unwrap();
    let connection = Connection { servers: Servers::One(server.url()), ..Connection::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::deterministic();
    let strategy = behaves::operations(40);
    for case in 0..64 {
        let ops = strategy.new_tree(&mut runner).unwrap().current();
        runtime.block_on(async {
            let open = || NatsStore::open(&connection, "behaves", 1, "test");
            let bucket = format!("behaves_{case}");
            let (one, other) = (NatsStore::open(&connection, &bucket, 1, "test").await.unwrap(), open().await.unwrap());
            drop(other);
            behaves::behaves(|| Box::new(one.clone()), ops).await;
        });
    }
}

#[test]
fn a_store_goes_on_when_a_server_of_three_is_killed() {
    let mut servers = NatsCluster::start().unwrap();
    let connection = Connection { servers: Servers::Several(servers.urls()), ..Connection::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = NatsStore::open(&connection, "killed", 3, "test").await.unwrap();
        let mut revision = store.create("leader", b"0").await.unwrap();
        for server in 0..3 {
            servers.kill(server);
            // What is not known to be written is looked at, as whoever uses a store does.
            let begun = Instant::now();
            let value = format!("{server}").into_bytes();
            loop {
                assert!(begun.elapsed() < Duration::from_secs(60), "no answer without server {server}");
                match store.update("leader", &value, revision).await {
                    Ok(written) => {
                        assert!(written > revision);
                        revision = written;
                        break;
                    }
                    // The servers may carry out a write long after nobody waits for its answer: the same one conflicts then.
                    Err(StoreError::Unavailable { .. } | StoreError::Conflict { .. }) => {
                        if let Ok(Some(entry)) = store.get("leader").await {
                            assert!(entry.revision >= revision);
                            if entry.revision > revision {
                                assert_eq!(entry.value, value, "nobody else writes");
                                revision = entry.revision;
                                break;
                            }
                        }
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(store.get("leader").await.unwrap(), Some(Entry { value, revision }));
            servers.restart(server).unwrap();
        }
    });
}

#[test]
fn any_node_does_what_it_is_asked() {
    let (folder, _server, settings, mut nodes) = three("any");
    let (led_by, leader) = take_leader(&mut nodes);
    let [one, other] = &nodes[..] else { panic!("two are left") };
    let at = NAMES.iter().position(|n| one.data.ends_with(n)).unwrap();
    let (name, file) = pipeline(folder.path(), at);

    one.run(&["submit", text(&file)]).expect_success();
    let first = other.wait_for_rows(&name);
    assert_eq!((place_of(&first).0, generation(&first)), (NAMES[at], 1), "it runs where it is placed, and not where it is led");
    assert!(is_alive(place_of(&first).1));
    for node in [one, other, &leader] {
        let all = node.run(&["nodes"]).expect_success();
        assert!(all.lines().count() == 4 && all.contains("leads, epoch ") && all.contains(&name), "{all}");
        assert!(node.run(&["list"]).expect_success().contains(&name));
    }
    let listed = self::nodes(other);
    assert_eq!(listed.iter().filter(|n| n["leader"] == true).map(|n| n["name"].as_str().unwrap()).collect::<Vec<_>>(), [led_by.as_str()]);
    assert_eq!(listed.iter().find(|n| n["name"] == NAMES[at]).unwrap()["pipelines"], json!([name]));
    // A problem comes back as the leader told it.
    let (status, problem) = one.request("POST", "/api/v1/pipelines/nobody/start", None, "");
    assert_eq!((status, &problem["error"]), (404, &json!("there is no pipeline `nobody`")));

    assert_eq!(other.run(&["stop", &name]).expect_success(), format!("{name}: stopped\n"));
    assert!(one.run(&["logs", &name]).expect_success().contains("the books balance"));
    one.run(&["start", &name]).expect_success();
    assert_eq!(generation(&other.wait_for_rows(&name)), 2);
    one.run(&["rescale", &name, "--workers", "2"]).expect_success();
    let rescaled = other.wait(&name, "rescaled", |s| s["state"] == "running" && generation(s) == 3);
    assert_eq!((&rescaled["workers"], &rescaled["crashes"]), (&json!(2), &json!(0)));
    let slower = std::fs::read_to_string(&file).unwrap().replace("rate = 2_000", "rate = 1_000");
    std::fs::write(&file, slower).unwrap();
    other.run(&["upgrade", text(&file), "--accept"]).expect_success();
    one.wait(&name, "upgraded", |s| s["state"] == "running" && generation(s) == 4);
    let second = one.status(&name);
    other.run(&["stop", &name, "--now"]).expect_success();
    until("its process ends", || (!is_alive(place_of(&second).1)).then_some(()));
    other.run(&["delete", &name]).expect_success();
    assert!(leader.run(&["list"]).expect_success().is_empty());

    // What only one node reaches cannot go on elsewhere.
    let refused = one.run(&["submit", text(&file), "--set", "checkpoints.url=state"]);
    assert!(refused.status == Some(1) && refused.stderr.contains("[checkpoints] url"), "{}", refused.stderr);
    // Nor can two nodes have one name.
    let named = [&settings[..], &["node.name=a".to_owned()]].concat();
    let second = finish(&mut command(&folder.path().join("second"), &named));
    assert!(second.status == Some(1) && second.stderr.contains("another node of the cluster is called `a`"), "{}", second.stderr);
}

#[test]
fn another_node_leads_when_the_leader_is_killed() {
    let (folder, _server, settings, mut nodes) = three("killed");
    let (led_by, mut leader) = take_leader(&mut nodes);
    let at = |name: &str| NAMES.iter().position(|n| *n == name).unwrap();
    // One runs with the leader, one on another node.
    let (with, with_file) = pipeline(folder.path(), at(&led_by));
    let elsewhere = NAMES.iter().find(|n| **n != led_by).unwrap();
    let (other, other_file) = pipeline(folder.path(), at(elsewhere));
    for file in [&with_file, &other_file] {
        nodes[0].run(&["submit", text(file)]).expect_success();
    }
    let before: Vec<Value> = [&with, &other].iter().map(|name| nodes[0].wait_for_rows(name)).collect();
    assert_eq!((place_of(&before[0]).0, place_of(&before[1]).0), (led_by.as_str(), *elsewhere));

    let killed = Instant::now();
    leader.kill();
    let next = until("another leader", || self::leader(&nodes[1]).filter(|name| *name != led_by));
    assert!(killed.elapsed() < FAILOVER, "{next} leads after {:?}", killed.elapsed());
    for before in &before {
        let name = before["name"].as_str().unwrap();
        let after = nodes[0].wait(name, "with the next leader", |s| s["state"] == "running" && epoch(s) > epoch(before));
        assert!(generation(&after) > generation(before));
        until("the process of the old leader is gone", || (!is_alive(place_of(before).1)).then_some(()));
        let after = nodes[1].wait_for_rows(name);
        assert_ne!(place_of(&after).0, led_by);
    }
    println!("both pipelines went on {:.1} s after the leader was killed", killed.elapsed().as_secs_f64());
    until("it is silent", || nodes[0].run(&["nodes"]).expect_success().contains("silent").then_some(()));

    // It comes back under its name, and follows.
    let back = start_member(folder.path(), &led_by, &settings);
    assert_eq!(self::leader(&back), Some(next));
}

#[test]
fn a_node_that_stands_still_is_replaced_and_does_nothing_when_it_goes_on() {
    let (folder, _server, _settings, mut nodes) = three("stopped");
    let (led_by, leader) = take_leader(&mut nodes);
    let (name, file) = pipeline(folder.path(), NAMES.iter().position(|n| *n == led_by).unwrap());
    nodes[0].run(&["submit", text(&file)]).expect_success();
    let before = nodes[1].wait_for_rows(&name);
    assert_eq!(place_of(&before).0, led_by);

    let stopped = Instant::now();
    signal(leader.process(), "-STOP");
    // Its agent closes nothing: the worker ends because it hears nothing.
    until("the worker ends without its agent", || (!is_alive(place_of(&before).1)).then_some(()));
    let next = until("another leader", || self::leader(&nodes[0]).filter(|name| *name != led_by));
    assert!(stopped.elapsed() < FAILOVER, "{next} leads after {:?}", stopped.elapsed());
    let after = nodes[0].wait(&name, "elsewhere", |s| s["state"] == "running" && place_of(s).0 != led_by && epoch(s) > epoch(&before));
    let moved = nodes[1].wait_for_rows(&name);
    assert_eq!(generation(&moved), generation(&after));

    signal(leader.process(), "-CONT");
    until("it knows who leads", || (self::leader(&leader).as_ref() == Some(&next)).then_some(()));
    until("it is heard again", || nodes_all_live(&nodes[0]).then_some(()));
    let still = leader.status(&name);
    assert_eq!((generation(&still), place_of(&still)), (generation(&moved), place_of(&moved)), "nothing moves back");

    // One that follows, and runs it, stands still: the leader stays, and has it run elsewhere.
    let host = take_host(&mut nodes, leader, place_of(&moved).0);
    let (host, nodes) = host;
    if place_of(&moved).0 == next {
        return;
    }
    signal(host.process(), "-STOP");
    let again = nodes[0].wait(&name, "elsewhere again", |s| s["state"] == "running" && generation(s) > generation(&moved));
    until("its process is gone", || (!is_alive(place_of(&moved).1)).then_some(()));
    assert_eq!(epoch(&again), epoch(&moved));
    assert_ne!(place_of(&again).0, place_of(&moved).0);
}

fn nodes_all_live(node: &Node) -> bool {
    nodes(node).iter().all(|n| n["silent"] == false)
}

/// Takes a node out of all of them.
fn take_host(nodes: &mut Vec<Node>, one: Node, name: &str) -> (Node, Vec<Node>) {
    let mut all = std::mem::take(nodes);
    all.push(one);
    let host = take(&mut all, name);
    (host, all)
}

#[test]
fn a_follower_that_is_killed_takes_nothing_with_it() {
    let (folder, _server, _settings, mut nodes) = three("follower");
    let (led_by, leader) = take_leader(&mut nodes);
    let victim = NAMES.iter().find(|n| **n != led_by).unwrap();
    let (name, file) = pipeline(folder.path(), NAMES.iter().position(|n| n == victim).unwrap());
    leader.run(&["submit", text(&file)]).expect_success();
    let before = leader.wait_for_rows(&name);
    assert_eq!(place_of(&before).0, *victim);
    take(&mut nodes, victim).kill();
    until("its process ends with it", || (!is_alive(place_of(&before).1)).then_some(()));
    let after = leader.wait(&name, "elsewhere", |s| s["state"] == "running" && generation(s) > generation(&before));
    // It was found gone by its connection, long before its record is old.
    assert_eq!((epoch(&after), generation(&after)), (epoch(&before), generation(&before) + 1), "{after:#}");
    assert_ne!(place_of(&after).0, *victim);
    nodes[0].wait_for_rows(&name);
}

#[test]
fn everything_goes_on_when_a_nats_server_of_three_is_killed_and_when_all_nodes_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut servers = NatsCluster::start().unwrap();
    let settings = settings("servers", &servers.urls());
    let nodes = start_cluster(folder.path(), &NAMES, &settings);
    let (name, file) = pipeline(folder.path(), 1);
    nodes[0].run(&["submit", text(&file)]).expect_success();
    let mut before = nodes[2].wait_for_rows(&name);
    for server in 0..3 {
        servers.kill(server);
        // Where it led the bucket, nobody can renew a lease until another does, and the pipeline may start anew.
        let killed = Instant::now();
        let received = |s: &Value| s["nodes"].as_array().and_then(|n| n.last()).and_then(|n| n["received"].as_u64()).unwrap_or(0);
        let after = until("it goes on", || {
            let answer = nodes[0].run(&["status", &name, "--format", "json"]);
            let status: Value = serde_json::from_str(&answer.stdout).ok()?;
            let goes_on = generation(&status) > generation(&before) || received(&status) > received(&before) + 5_000;
            (status["state"] == "running" && received(&status) > 0 && goes_on).then_some(status)
        });
        println!("without server {server}: generation {} after {:.1} s", generation(&after), killed.elapsed().as_secs_f64());
        servers.restart(server).unwrap();
        before = after;
    }
    nodes[1].wait_for_rows(&name);
    let last = nodes[1].status(&name);

    drop(nodes);
    let nodes = start_cluster(folder.path(), &NAMES, &settings);
    let after = nodes[0].wait_for_rows(&name);
    assert!(generation(&after) > generation(&last) && epoch(&after) > epoch(&last));
}
