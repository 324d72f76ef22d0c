//! What checkpoints cost, and how long it takes from a kill to flowing rows. Measurements, not run unless asked for:
//! `./test -p tests --test system -- --ignored --nocapture recovery_speed`.

use std::fmt::Write as _;
use std::time::Instant;

use serde_json::Value;
use tests::node::Node;
use tests::program::{signal, until};

use crate::recovery::{PIPELINE, Place};

/// Ten times as many checkpoints as by default, against none.
#[test]
#[ignore = "a measurement"]
fn throughput_with_checkpoints() {
    const FRAMES: &str = "sources.market.frames=600_000";
    let run = |interval: &str| {
        let mut place = Place::new(PIPELINE);
        place.settings = vec![format!("checkpoints.interval=\"{interval}\""), "sinks.cold.interval=\"2s\"".into()];
        let started = Instant::now();
        place.run(&["--set", FRAMES]).expect_success();
        (600_000.0 / started.elapsed().as_secs_f64(), place)
    };
    let mut ratios = Vec::new();
    for round in 1..=5 {
        // In turn, so that a machine that becomes slower makes both slower.
        let ((without, _), (with, place)) = (run("1d"), run("1s"));
        ratios.push(with / without);
        let last = place.manifests().first().map_or(0, rows);
        println!("round {round}: {without:.0} frames/s without, {with:.0} with; {last} rows of state in the last checkpoint");
    }
    ratios.sort_by(f64::total_cmp);
    println!("with checkpoints every second: {:.3} of the throughput without (median of 5)", ratios[2]);
}

const KEYS: usize = 1_000_000;

/// A pipeline of a million instruments with an open bar each, whose rows come as they do from a venue.
fn a_million_keys() -> Place {
    let mut place = Place::new("");
    let mut text = String::from("venue,market,symbol,event_time,trade_id,price,quantity,side,fills\n");
    for key in 0..KEYS {
        writeln!(text, "v,spot,S{key}-USD,2026-01-01T00:00:00Z,{key},1.5,2,buy,1").unwrap();
    }
    // A thousand rows a second for ten minutes of event time, which pass as fast as those of the clock.
    for row in 0..600_000_usize {
        let (minute, second, milli) = (row / 60_000, row / 1_000 % 60, row % 1_000);
        writeln!(text, "v,spot,S{}-USD,2026-01-01T00:{minute:02}:{second:02}.{milli:03}Z,{row},1.5,2,sell,1", row * 7919 % KEYS).unwrap();
    }
    std::fs::write(place.folder.path().join("trades.csv"), text).unwrap();
    let pipeline = format!(
        "name = \"victim\"\n[sources.trades]\ntype = \"file\"\npath = \"{}\"\nformat = \"csv\"\nkind = \"trade\"\npace = 1.0\n[operators.bars]\ntype = \"bars\"\ninputs = [\"trades\"]\nevery = \"1h\"\n[sinks.cold]\ntype = \"parquet\"\ninputs = [\"trades\"]\ninterval = \"100ms\"\n[sinks.windows]\ntype = \"parquet\"\ninputs = [\"bars\"]\ninterval = \"100ms\"\n",
        place.folder.path().join("trades.csv").display()
    );
    std::fs::write(place.file(), pipeline).unwrap();
    place.settings = vec!["checkpoints.interval=\"5s\"".into()];
    place
}

/// Kills what runs the pipeline five times, each time when a checkpoint is new, and tells how long no row was committed.
fn measure(place: &Place, mut kill: impl FnMut()) {
    until("a checkpoint of all keys", || place.manifests().first().filter(|manifest| rows(manifest) >= KEYS).map(|_| ()));
    println!("{:.1} MB of state", place.manifests()[0]["parts"].as_array().unwrap().iter().map(bytes).sum::<f64>() / 1e6);
    for number in 1..=5 {
        let started = Instant::now();
        kill();
        let before = committed(place);
        until("rows that are committed", || (committed(place) > before).then_some(()));
        println!("kill {number}: rows flow again after {:.2} s", started.elapsed().as_secs_f64());
        let checkpoint = place.checkpoints()[0];
        until("another checkpoint", || (place.checkpoints()[0] > checkpoint).then_some(()));
    }
}

#[test]
#[ignore = "a measurement"]
fn from_a_kill_to_flowing_rows() {
    let place = a_million_keys();
    let mut run = Some(place.start(&[]));
    measure(&place, || {
        run.take().expect("it was started").kill();
        run = Some(place.start(&[]));
    });
}

/// The agent finds that a process is gone, ends the others and starts a new generation.
#[test]
#[ignore = "a measurement"]
fn from_a_kill_to_flowing_rows_of_three_processes() {
    let mut place = a_million_keys();
    // Each kill is the first.
    place.settings.push("node.healthy=\"1s\"".into());
    let node = Node::start(&place.data(), &place.settings);
    let file = place.file().display().to_string();
    node.run(&["submit", &file, "--processes", "3", "--workers", "1"]).expect_success();
    let mut victims = (0..3).cycle();
    measure(&place, || {
        let processes = node.status("victim")["processes"].clone();
        signal(processes[victims.next().unwrap()]["process"].as_u64().unwrap(), "-KILL");
    });
}

fn rows(manifest: &Value) -> usize {
    let parts = manifest["parts"].as_array().unwrap().iter().flat_map(|part| part["objects"].as_array().unwrap());
    parts.map(|object| object["rows"].as_u64().unwrap() as usize).sum()
}

fn bytes(part: &Value) -> f64 {
    part["objects"].as_array().unwrap().iter().map(|object| object["bytes"].as_f64().unwrap()).sum()
}

/// Up to which logical time the trades are stored.
fn committed(place: &Place) -> u64 {
    let lines = place.journal();
    let commits = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    commits.filter(|line| line["line"] == "commit" && line["sink"] == "cold").filter_map(|line| line["upper"].as_u64()).max().unwrap_or(0)
}
