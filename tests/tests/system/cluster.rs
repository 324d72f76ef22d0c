//! Pipelines on a node: real processes, killed as processes are.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::node::{Node, command, is_alive};
use tests::program::{finish, program, root, rows, signal, until};

/// A pipeline that simulates frames into the cold store. `more` are options of the source.
fn pipeline(folder: &Path, name: &str, more: &str) -> PathBuf {
    let text = format!(
        "name = \"{name}\"\n\n[sources.market]\ntype = \"simulator\"\ninstruments = 2\n{more}\n\n[operators.trades]\ntype = \"normalise\"\ninputs = [\"market\"]\nkinds = [\"trade\"]\n\n[sinks.cold]\ntype = \"parquet\"\ninputs = [\"trades\"]\n"
    );
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, text).unwrap();
    path
}

/// One that never ends.
const ENDLESS: &str = "rate = 5_000\nframes = 1_000_000_000";

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    (folder, data)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn generation(status: &Value) -> u64 {
    status["generation"]["number"].as_u64().unwrap()
}

fn process(status: &Value) -> u64 {
    status["process"].as_u64().unwrap()
}

#[test]
fn a_pipeline_is_submitted_stopped_started_and_deleted() {
    let (folder, data) = place();
    let file = pipeline(folder.path(), "life", ENDLESS);
    let mut node = Node::start(&data, &[]);
    let none = node.run(&["list"]);
    assert_eq!((none.status, none.stdout.as_str()), (Some(0), ""));
    let submitted = node.run(&["submit", text(&file), "--workers", "2"]).expect_success();
    assert_eq!(submitted, "life: starting; `marketprism status life` shows how it is\n");
    let first = node.wait_for_rows("life");
    assert_eq!((generation(&first), &first["workers"], &first["desired"]), (1, &json!(2), &json!("running")));
    until("rows land", || {
        let answer = finish(program().args(["sql", "SELECT count(*) AS n FROM trades", "--format", "ndjson", "--data"]).arg(&data));
        (answer.status == Some(0) && !answer.stdout.contains("\"n\":0}")).then_some(())
    });
    let list = node.run(&["list"]).expect_success();
    assert!(list.lines().count() == 2 && list.contains("life") && list.contains("running"), "{list}");
    let status = node.run(&["status", "life"]).expect_success();
    assert!(
        ["state       running", "generation  1 (epoch 1, ", "sink cold", "rows/s"].iter().all(|part| status.contains(part)),
        "{status}"
    );

    // Two runs at once would store every row twice.
    let second = finish(program().args(["run", text(&file), "--data"]).arg(&data).current_dir(root()));
    let expected = format!("pipeline `life` is run by process {}", process(&first));
    assert!(second.status == Some(1) && second.stderr.contains(&expected), "{}", second.stderr);

    let refused = node.run(&["delete", "life"]);
    assert!(refused.status == Some(1) && refused.stderr.contains("stop it first"), "{}", refused.stderr);

    assert_eq!(node.run(&["stop", "life"]).expect_success(), "life: stopped\n");
    assert!(!is_alive(process(&first)));
    let stopped = node.status("life");
    let sink = stopped["nodes"].as_array().unwrap().iter().find(|n| n["name"] == "cold").unwrap();
    let stored = &rows(&data, "SELECT count(*) AS n FROM trades")[0]["n"];
    assert_eq!(stored, &sink["received"], "everything that was read is stored");
    let logs = node.run(&["logs", "life"]).expect_success();
    assert!(["draining", "the books balance", "stopped"].iter().all(|part| logs.contains(part)), "{logs}");

    assert_eq!(node.run(&["start", "life"]).expect_success(), "life: starting: it opens its sources and sinks\n");
    let second = node.wait_for_rows("life");
    assert_eq!(generation(&second), 2);
    assert_ne!(second["generation"]["nonce"], first["generation"]["nonce"]);
    assert_eq!(node.run(&["stop", "life", "--now"]).expect_success(), "life: stopped\n");
    assert_eq!(node.run(&["delete", "life"]).expect_success(), "life: deleted; its tables stay\n");
    let gone = node.run(&["status", "life"]);
    assert!(gone.status == Some(1) && gone.stderr.starts_with("error: there is no pipeline `life`"), "{}", gone.stderr);
    assert!(!data.join("pipelines/life").exists() && !data.join("cluster/logs/life.log").exists());
    assert_eq!(node.terminate(), Some(0));
    let unreachable = node.run(&["list"]);
    assert!(unreachable.status == Some(1) && unreachable.stderr.contains("start one with `marketprism node`"), "{}", unreachable.stderr);
}

#[test]
fn definitions_survive_and_workers_do_not_outlive_their_agent() {
    let (folder, data) = place();
    let mut node = Node::start(&data, &[]);
    for name in ["one", "two", "stopped"] {
        node.run(&["submit", text(&pipeline(folder.path(), name, ENDLESS))]).expect_success();
    }
    // One that ends by itself: a restart of the node must not read it again.
    node.run(&["submit", text(&pipeline(folder.path(), "bounded", "frames = 500"))]).expect_success();
    node.run(&["stop", "stopped"]).expect_success();
    node.wait("bounded", "finished", |s| s["state"] == "finished");
    let before: Vec<Value> = ["one", "two"].iter().map(|name| node.wait_for_rows(name)).collect();

    node.kill();
    for status in &before {
        until("the worker ends with its agent", || (!is_alive(process(status))).then_some(()));
    }
    let mut node = Node::start(&data, &[]);
    for status in &before {
        let name = status["name"].as_str().unwrap();
        let after = node.wait_for_rows(name);
        assert_eq!(generation(&after), generation(status) + 1);
        assert!(after["generation"]["epoch"].as_u64() > status["generation"]["epoch"].as_u64());
    }
    assert_eq!(node.status("stopped")["state"], "stopped");
    let bounded = node.status("bounded");
    assert_eq!((&bounded["state"], generation(&bounded)), (&json!("finished"), 1));

    // A node that is asked to end drains its pipelines, and wants them still.
    assert_eq!(node.terminate(), Some(0));
    let node = Node::start(&data, &[]);
    assert_eq!(generation(&node.wait_for_rows("one")), 3);
}

#[test]
fn a_pipeline_that_crashes_ends_in_failed_and_takes_nothing_down() {
    let (folder, data) = place();
    let node = Node::start(&data, &["node.restarts=2".to_owned()]);
    node.run(&["submit", text(&pipeline(folder.path(), "good", ENDLESS))]).expect_success();
    let good = node.wait_for_rows("good");
    let missing = folder.path().join("missing.ndjson");
    let file = folder.path().join("bad.toml");
    let source = format!("type = \"file\"\npath = \"{}\"\nformat = \"ndjson\"\nkind = \"trade\"", missing.display());
    let pipeline = format!("name = \"bad\"\n[sources.trades]\n{source}\n[sinks.out]\ntype = \"print\"\ninputs = [\"trades\"]\n");
    std::fs::write(&file, pipeline).unwrap();
    node.run(&["submit", text(&file)]).expect_success();
    let bad = node.wait("bad", "failed", |s| s["state"] == "failed");
    assert_eq!((&bad["crashes"], generation(&bad)), (&json!(3), 3));
    let why = bad["why"].as_str().unwrap();
    assert!(why.contains("source `trades`") && why.contains("missing.ndjson") && why.ends_with("(exit status 1)"), "{why}");
    let shown = node.run(&["status", "bad"]).expect_success();
    assert!(shown.contains("state       failed") && shown.contains("missing.ndjson"), "{shown}");

    let still = node.wait_for_rows("good");
    assert_eq!((process(&still), generation(&still), &still["crashes"]), (process(&good), 1, &json!(0)));

    // It stays failed when the node is started again, and gets another chance when someone says so.
    drop(node);
    let node = Node::start(&data, &["node.restarts=2".to_owned()]);
    assert_eq!(node.status("bad")["state"], "failed");
    std::fs::write(&missing, "").unwrap();
    node.run(&["start", "bad"]).expect_success();
    let finished = node.wait("bad", "finished", |s| s["state"] == "finished");
    assert_eq!((generation(&finished), &finished["why"]), (4, &Value::Null));
}

#[test]
fn a_worker_that_is_killed_is_replaced() {
    let (folder, data) = place();
    let node = Node::start(&data, &[]);
    node.run(&["submit", text(&pipeline(folder.path(), "killed", ENDLESS))]).expect_success();
    let first = node.wait_for_rows("killed");
    signal(process(&first), "-KILL");
    let second = node.wait("killed", "in its second generation", |s| s["state"] == "running" && generation(s) == 2);
    assert_eq!(second["crashes"], 1);
    node.wait_for_rows("killed");
    assert!(node.run(&["logs", "killed"]).expect_success().contains("killed by signal 9"));
}

#[test]
fn a_second_node_over_the_same_folder_is_refused() {
    let (_folder, data) = place();
    let node = Node::start(&data, &[]);
    let second = finish(&mut command(&data, &[]));
    assert_eq!((second.status, second.stdout.as_str()), (Some(1), ""));
    assert!(second.stderr.contains("another node (process ") && second.stderr.contains("`--data`"), "{}", second.stderr);
    assert_eq!(node.request("GET", "/api/v1/nodes", None, "").0, 200);
    let open = finish(program().args(["node", "--set", "node.listen=0.0.0.0:0", "--data"]).arg(data.join("other")));
    assert!(open.status == Some(1) && open.stderr.contains("serves this machine alone"), "{}", open.stderr);
}

#[test]
fn a_pipeline_is_upgraded_and_rescaled() {
    let (folder, data) = place();
    let node = Node::start(&data, &[]);
    let file = pipeline(folder.path(), "grows", ENDLESS);
    node.run(&["submit", text(&file)]).expect_success();
    node.wait_for_rows("grows");
    assert_eq!(node.run(&["upgrade", text(&file)]).expect_success().lines().next(), Some("kept     market"));
    assert_eq!(generation(&node.status("grows")), 1, "nothing has changed");

    let with_bars = format!(
        "{}\n[operators.bars]\ntype = \"bars\"\ninputs = [\"trades\"]\nevery = \"1m\"\n[sinks.more]\ntype = \"parquet\"\ninputs = [\"bars\"]\n",
        std::fs::read_to_string(&file).unwrap(),
    );
    std::fs::write(&file, &with_bars).unwrap();
    let upgraded = node.run(&["upgrade", text(&file)]).expect_success();
    assert!(upgraded.contains("added    bars\n") && upgraded.contains("kept     trades\n"), "{upgraded}");
    let second = node.wait("grows", "upgraded", |s| s["state"] == "running" && generation(s) == 2);
    assert!(second["nodes"].to_string().contains("\"bars\""));

    std::fs::write(&file, with_bars.replace("every = \"1m\"", "every = \"5m\"")).unwrap();
    let refused = node.run(&["upgrade", text(&file)]);
    assert_eq!(refused.status, Some(1));
    assert!(refused.stdout.contains("changed  bars: what it has gathered is built up again"), "{}", refused.stdout);
    assert!(refused.stderr.contains("repeat with `--accept`"), "{}", refused.stderr);
    assert_eq!(generation(&node.status("grows")), 2);
    node.run(&["upgrade", text(&file), "--accept"]).expect_success();
    node.wait("grows", "upgraded again", |s| s["state"] == "running" && generation(s) == 3);

    node.run(&["rescale", "grows", "--workers", "1"]).expect_success();
    let rescaled = node.wait("grows", "rescaled", |s| s["state"] == "running" && generation(s) == 4);
    assert_eq!((&rescaled["workers"], &rescaled["crashes"]), (&json!(1), &json!(0)));
}

#[test]
fn a_pipeline_that_cannot_go_on_has_failed_at_once_and_says_why() {
    let (folder, data) = place();
    let file = pipeline(folder.path(), "changed", "frames = 1_000");
    finish(program().args(["run", text(&file), "--data", text(&data)]).current_dir(root())).expect_success();
    let changed = std::fs::read_to_string(&file).unwrap().replace("instruments = 2", "instruments = 3");
    std::fs::write(&file, changed).unwrap();
    let node = Node::start(&data, &[]);
    node.run(&["submit", text(&file)]).expect_success();
    let status = node.wait("changed", "failed", |s| s["state"] == "failed");
    assert_eq!(status["crashes"], json!(1), "{status:#}");
    let why = status["why"].as_str().unwrap();
    assert!(why.contains("computes something else than when it ran last") && why.contains("market: changed"), "{why}");
}

#[test]
fn every_refusal_has_a_status_an_error_and_a_remedy() {
    let (folder, data) = place();
    let node = Node::start(&data, &[]);
    let file = pipeline(folder.path(), "there", ENDLESS);
    node.run(&["submit", text(&file)]).expect_success();
    let spec = |pipeline: &str| json!({ "text": pipeline, "file": file, "folder": folder.path() }).to_string();
    let there = std::fs::read_to_string(&file).unwrap();
    let changed = there.replace("instruments = 2", "instruments = 3");
    let other = there.replace("\"there\"", "\"other\"");
    let relative = json!({ "text": there, "file": "there.toml", "folder": "." }).to_string();
    let elsewhere = json!({ "text": other, "file": file, "folder": "/no/such/folder" }).to_string();
    let one = "/api/v1/pipelines/there";
    let cases: &[(&str, &str, &str, u16, &str)] = &[
        ("GET", "/api/v1/nothing", "", 404, "no such route"),
        ("GET", "/", "", 404, "no such route"),
        ("PATCH", one, "", 405, "no such method"),
        ("POST", "/api/v1/pipelines", "{", 400, "the body is not what was expected"),
        ("POST", "/api/v1/pipelines", "{}", 400, "missing field `text`"),
        ("POST", "/api/v1/pipelines", &relative, 400, "not an absolute path"),
        ("POST", "/api/v1/pipelines", &elsewhere, 400, "no folder `/no/such/folder`"),
        ("POST", "/api/v1/pipelines", &spec(&there), 409, "there is a pipeline `there` already"),
        ("POST", "/api/v1/pipelines", &spec("name = \"x\"\nsauces = 1\n"), 422, "unknown key `sauces`"),
        ("PUT", one, &spec(&changed), 409, "drops what `market` gathered"),
        ("PUT", one, &spec(&other), 400, "the pipeline's name is `other`"),
        ("PUT", one, &spec("name = 1"), 422, "must be text"),
        ("PUT", "/api/v1/pipelines/x", &spec(&there), 404, "there is no pipeline `x`"),
        ("DELETE", one, "", 409, "pipeline `there` is"),
        ("DELETE", "/api/v1/pipelines/x", "", 404, "there is no pipeline `x`"),
        ("GET", "/api/v1/pipelines/x", "", 404, "there is no pipeline `x`"),
        ("GET", "/api/v1/pipelines/a%20b%2F..", "", 404, "there is no pipeline `a b/..`"),
        ("GET", "/api/v1/pipelines/x/status", "", 404, "there is no pipeline `x`"),
        ("GET", "/api/v1/pipelines/x/logs", "", 404, "there is no pipeline `x`"),
        ("GET", "/api/v1/pipelines/there/logs?lines=many", "", 400, "`lines=many` is no query parameter"),
        ("POST", "/api/v1/pipelines/x/start", "", 404, "there is no pipeline `x`"),
        ("POST", "/api/v1/pipelines/x/stop", "", 404, "there is no pipeline `x`"),
        ("POST", "/api/v1/pipelines/there/stop?soon", "", 400, "`soon` is no query parameter"),
        ("POST", "/api/v1/pipelines/x/rescale", "{\"workers\": 2}", 404, "there is no pipeline `x`"),
        ("POST", "/api/v1/pipelines/there/rescale", "{\"workers\": 0}", 400, "out of range"),
        ("POST", "/api/v1/pipelines/there/rescale", "{\"worker\": 1}", 400, "unknown field `worker`"),
        ("POST", "/api/v1/pipelines/x/compare", &spec(&there), 404, "there is no pipeline `x`"),
    ];
    for (method, path, body, status, error) in cases {
        let (answered, problem) = node.request(method, path, None, body);
        assert_eq!(answered, *status, "{method} {path} {body}: {problem}");
        let said = problem["error"].as_str().unwrap_or_default();
        assert!(said.contains(error), "{method} {path}: {problem}");
        assert!(!problem["remedy"].as_str().unwrap_or_default().is_empty(), "{method} {path}: {problem}");
    }
    let (_, problem) = node.request("POST", "/api/v1/pipelines", None, &spec("name = \"x\"\nsauces = 1\n"));
    let unknown = problem["diagnostics"].as_array().unwrap().iter().find(|d| d["code"] == "unknown_key").unwrap();
    assert_eq!((&unknown["line"], &unknown["severity"]), (&json!(2), &json!("error")));
    let (_, problem) = node.request("PUT", one, None, &spec(&changed));
    assert_eq!(problem["difference"]["changed"], json!(["market"]));

    // A page in a browser may reach the port under a name of its own, and is not answered.
    let (status, problem) = node.request("GET", "/api/v1/pipelines", Some("evil.example:7410"), "");
    assert!(status == 403 && problem["remedy"].as_str().unwrap().contains("localhost"), "{problem}");

    // What may hold a secret is not handed out.
    let (status, view) = node.request("GET", one, None, "");
    assert!(status == 200 && view.get("text").is_none() && view["plan"]["nodes"][0][0] == "market", "{view}");
}

#[test]
fn the_openapi_document_lists_every_route() {
    let (_folder, data) = place();
    let node = Node::start(&data, &[]);
    let (status, document) = node.request("GET", "/api/v1/openapi.json", None, "");
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let mut listed: Vec<String> = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            listed.push(format!("{method} {path}"));
            // Each is served: what it answers is among what the document says, and never that there is no such route.
            let (status, answer) = node.request(&method.to_uppercase(), &path.replace("{name}", "nobody"), None, "");
            assert!(operation["responses"].get(status.to_string()).is_some(), "{method} {path}: {status} {answer}");
            assert!(!answer["error"].as_str().unwrap_or_default().contains("no such"), "{method} {path}: {answer}");
        }
    }
    let mut served: Vec<String> = cluster::api::ROUTES.iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    listed.sort_unstable();
    served.sort_unstable();
    assert_eq!(listed, served);
    let manual = std::fs::read_to_string(root().join("docs/cluster.md")).unwrap();
    for route in served {
        let (method, path) = route.split_once(' ').unwrap();
        let line = format!("| `{} {path}` |", method.to_uppercase());
        assert!(manual.contains(&line), "docs/cluster.md does not have {line}");
    }
}
