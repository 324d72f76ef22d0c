//! What the source and the sink `nats` do in a second, and how long a frame is under way. Measurements, not run
//! unless asked for: `./test -p tests --test system -- --ignored --nocapture nats_speed`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::dialect::{FrameRef, Records};
use model::kinds::FRAME;
use model::time;
use serde_json::json;
use tests::servers::{Nats, NatsCluster};

use super::nats::{TestResult, bounded, frame_batch, frames, frames_from, in_time, open, sink, to};
use crate::clickhouse::epoch;
use model::columns;
use model::kinds::FrameRows;

/// A trade of some 200 bytes.
fn trade(i: u64) -> String {
    format!(
        r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{},"s":"BTCUSDT","t":{i},"p":"61837.{:08}","q":"0.{:08}","T":{},"m":{},"M":true}}}}"#,
        1_723_118_400_000 + i,
        i % 100_000_000,
        i % 99_999_989 + 1,
        1_723_118_399_990 + i,
        i.is_multiple_of(2)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn messages_a_second() -> TestResult {
    const FRAMES: u64 = 600_000;
    const EPOCH: u64 = 50_000;
    in_time(async {
        let server = Nats::start_fast()?;
        let url = server.url();
        let mut writer = sink(to(&url, "SPEED"), [&*FRAME]).await?;
        let batches: Vec<_> = (0..FRAMES / EPOCH).map(|e| frame_batch((e * EPOCH..(e + 1) * EPOCH).map(trade))).collect();
        let started = Instant::now();
        for (e, batch) in (1..).zip(batches) {
            writer.commit(epoch(e, e + 1), vec![(e, batch)]).await?;
        }
        println!("publish: {:.0} messages/s", FRAMES as f64 / started.elapsed().as_secs_f64());

        for round in 0..3 {
            let mut reader = open(bounded(&url, "SPEED"), None).await?;
            let mut dialect = sources::dialect::make("binance_spot").ok_or("a dialect")?;
            let mut records = Records::wanting(["trade"]);
            let (started, mut trades) = (Instant::now(), 0);
            while let Some(chunk) = reader.next(None).await? {
                for (_, rows) in &chunk.batches {
                    let view = FrameRows::of(rows)?;
                    for row in 0..rows.num_rows() {
                        let frame = FrameRef {
                            receive_time: Some(view.receive_time.value(row)),
                            frame: view.frame.value(row),
                            topic: columns::label(view.topic, row),
                            payload: view.payload.value(row),
                        };
                        dialect.decode(frame, &mut records).map_err(|why| why.detail)?;
                    }
                    trades += records.finish().iter().map(|(_, rows)| rows.num_rows()).sum::<usize>();
                }
            }
            assert_eq!(trades as u64, FRAMES);
            println!("consume and decode, round {round}: {:.0} messages/s", FRAMES as f64 / started.elapsed().as_secs_f64());
        }
        Ok(())
    })
    .await
}

/// Publishes 10,000 frames a second for some seconds and tells how old each is when it is handed over.
async fn latency(what: &str, options: serde_json::Value, source: serde_json::Value) -> TestResult {
    const FRAMES: u64 = 60_000;
    const A_TURN: u64 = 50;
    const TURN: Duration = Duration::from_millis(5);
    let mut writer = loop {
        match sink(options.clone(), [&*FRAME]).await {
            Ok(writer) => break writer,
            // A cluster that has just begun.
            Err(error) => println!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let mut reader = open(source, None).await?;
    static DONE: AtomicU64 = AtomicU64::new(0);
    DONE.store(0, Ordering::Relaxed);
    let publishing = tokio::spawn(async move {
        let begin = tokio::time::Instant::now();
        let mut slowest = Duration::ZERO;
        for turn in 0..FRAMES / A_TURN {
            tokio::time::sleep_until(begin + TURN * turn as u32).await;
            let now = time::now();
            let batch = frame_batch((0..A_TURN).map(|i| format!("{now} {i} {}", trade(i))));
            let started = Instant::now();
            writer.commit(epoch(turn + 1, turn + 2), vec![(turn + 1, batch)]).await.map_err(|e| e.to_string())?;
            slowest = slowest.max(started.elapsed());
        }
        Ok::<_, String>((begin.elapsed(), slowest))
    });
    let mut ages = Vec::new();
    while (ages.len() as u64) < FRAMES {
        let chunk = reader.next(None).await?.ok_or("the source does not end")?;
        let now = time::now();
        ages.extend(frames(&chunk).iter().map(|(_, text)| now - text.split(' ').next().and_then(|t| t.parse().ok()).unwrap_or(0)));
    }
    let (took, slowest) = publishing.await??;
    ages.sort_unstable();
    let at = |share: f64| ages[((ages.len() - 1) as f64 * share) as usize] as f64 / 1_000.0;
    println!(
        "{what}: {FRAMES} frames in {:.1} s; from commit to handed over p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; slowest commit {slowest:?}",
        took.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn age_of_frames() -> TestResult {
    in_time(async {
        let server = Nats::start_fast()?;
        latency("1 replica", to(&server.url(), "AGE"), frames_from(&server.url(), "AGE")).await?;
        drop(server);
        let cluster = tokio::task::spawn_blocking(NatsCluster::start).await??;
        let (mut options, mut source) = (to("", "AGE"), frames_from("", "AGE"));
        (options["servers"], source["servers"]) = (json!(cluster.urls()), json!(cluster.urls()));
        options["replicas"] = 3.into();
        latency("3 replicas", options, source).await
    })
    .await
}
