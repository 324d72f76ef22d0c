//! How long a frame takes from the socket to a decoded batch, with many connections.
//!
//! A venue made up, in a process of its own on one core, sends trades of a thousand instruments over five hundred connections,
//! each at its moment. The source `binance` listens on the other core: sockets, the spool, the waits for the disk beside
//! it, and the dialect. A trade's price is the time at which it was sent, so that a decoded row tells how long it took.
//!
//!     cargo bench -p benches --bench live -- [FRAMES_A_SECOND] [SECONDS] [FOLDER_OF_THE_SPOOL]

#![expect(clippy::print_stdout, reason = "a benchmark tells what it measured")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::routing::get;
use config::settings::Settings;
use futures::{SinkExt, StreamExt};
use model::columns::integer;
use model::dialect::{FrameRef, Records};
use model::kinds::{FrameRows, TradeRows};
use model::{Account, time};
use sources::dialect::Dialects;
use sources::{OpenSource, Source};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const INSTRUMENTS: usize = 1_000;
const CONNECTIONS: usize = 500;
/// How often a connection looks whether frames are due.
const TICK: Duration = Duration::from_millis(1);

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("there are threads");
    match arguments.first().map(String::as_str) {
        Some("venue") => runtime.block_on(venue(arguments[1].parse().expect("a rate"))),
        Some("listen") => runtime.block_on(listen(&arguments[1..])),
        _ => both(&arguments),
    }
}

/// Starts the venue on one core and what listens on the other.
fn both(arguments: &[String]) {
    let argument = |i: usize, default: &str| arguments.get(i).cloned().unwrap_or_else(|| default.to_owned());
    let (rate, seconds) = (argument(0, "100000"), argument(1, "30"));
    let scratch = std::env::temp_dir().join(format!("marketprism-live-{}", std::process::id()));
    let folder = argument(2, &scratch.display().to_string());
    let program = std::env::current_exe().expect("it runs");
    let on = |core: &str| {
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(&program);
        command
    };
    let mut venue = on("1").args(["venue", &rate]).stdout(Stdio::piped()).spawn().expect("`taskset` is there");
    let mut addresses = String::new();
    let told = BufReader::new(venue.stdout.as_mut().expect("it is piped")).read_line(&mut addresses);
    told.expect("the venue tells its addresses");
    let addresses: Vec<&str> = addresses.split_whitespace().collect();
    let listened = on("0").args(["listen", addresses[0], addresses[1], &seconds, &folder]).status();
    venue.kill().expect("it ran");
    venue.wait().expect("it ends");
    assert!(listened.expect("`taskset` is there").success());
    // Only what it made itself.
    drop(std::fs::remove_dir_all(scratch));
}

fn symbol(i: usize) -> String {
    format!("C{i:03}USDT")
}

/// Sends trades, so many a second over all connections.
async fn venue(rate: usize) {
    let bind = || TcpListener::bind(("127.0.0.1", 0));
    let (sockets, requests) = (bind().await.expect("a port"), bind().await.expect("a port"));
    println!("ws://{} http://{}", sockets.local_addr().expect("bound"), requests.local_addr().expect("bound"));
    let symbols: Vec<String> = (0..INSTRUMENTS)
        .map(|i| format!(r#"{{"symbol":"{}","baseAsset":"C{i:03}","quoteAsset":"USDT","status":"TRADING","filters":[]}}"#, symbol(i)))
        .collect();
    let listing = format!(r#"{{"serverTime":1723161000000,"symbols":[{}]}}"#, symbols.join(","));
    let service = axum::Router::new().fallback(get(|| async move { listing }));
    tokio::spawn(async move { axum::serve(requests, service).await });
    let each = rate as f64 / CONNECTIONS as f64;
    let mut number = 0;
    while let Ok((stream, _)) = sockets.accept().await {
        stream.set_nodelay(true).expect("it is TCP");
        number += 1;
        let phase = Duration::from_micros(number % 1_000);
        tokio::spawn(async move {
            let mut socket = tokio_tungstenite::accept_async(stream).await?;
            let Some(Ok(Message::Text(asked))) = socket.next().await else { return Ok(()) };
            let id = asked.rsplit("\"id\":").next().and_then(|id| id.trim_end_matches('}').parse::<u64>().ok()).unwrap_or_default();
            socket.send(Message::text(format!(r#"{{"result":null,"id":{id}}}"#))).await?;
            let streams: Vec<String> = asked.split('"').filter(|part| part.ends_with("@trade")).map(str::to_owned).collect();
            let (begun, mut sent) = (tokio::time::Instant::now() + phase, 0_u64);
            let mut tick = tokio::time::interval_at(begun, TICK);
            loop {
                tick.tick().await;
                let due = (begun.elapsed().as_secs_f64() * each) as u64;
                while sent < due {
                    sent += 1;
                    let stream = &streams[sent as usize % streams.len()];
                    let (symbol, now) = (stream.trim_end_matches("@trade").to_uppercase(), time::now());
                    let (id, millis) = (sent / streams.len() as u64 + 1, now / 1_000);
                    let (seconds, micros) = (now / 1_000_000, now % 1_000_000);
                    let frame = format!(
                        r#"{{"stream":"{stream}","data":{{"e":"trade","E":{millis},"s":"{symbol}","t":{id},"p":"{seconds}.{micros:06}","q":"0.01000000","T":{millis},"m":true,"M":true}}}}"#
                    );
                    socket.feed(Message::text(frame)).await?;
                }
                socket.flush().await?;
            }
            #[expect(unreachable_code, reason = "it says what the errors above are")]
            Ok::<(), tokio_tungstenite::tungstenite::Error>(())
        });
    }
}

/// Listens for so long, and says how long frames took.
async fn listen(arguments: &[String]) {
    let [url, rest_url, seconds, folder] = arguments else { panic!("{arguments:?}") };
    let options = format!(
        "markets = [\"spot\"]\nsymbols = [\"*\"]\nkinds = [\"trade\"]\nurl = \"{url}\"\nrest_url = \"{rest_url}\"\n\
         channels_per_connection = {}\nconnect_pause = \"1ms\"",
        INSTRUMENTS / CONNECTIONS
    );
    let source = config::component::<dyn Source, sources::live::Binance>(&options, &[]).expect("the options are right").component;
    let mut dialects = Dialects::default();
    source.teach(&mut dialects).await.expect("the venue answers");
    let mut dialect = dialects.make("binance_spot").expect("it is there");
    let settings = Settings { data: Some(folder.clone()), ..Settings::default() };
    let cx = OpenSource {
        pipeline: "bench".into(),
        node: "venue".into(),
        from: None,
        settings: Arc::new(settings),
        account: Arc::new(Account::default()),
    };
    let mut reader = source.open(cx).await.expect("it opens");
    let mut records = Records::wanting(["trade"]);
    let (warm, long) = (Duration::from_secs(5), Duration::from_secs(seconds.parse().expect("a number")));
    let (mut begun, mut settled) = (None, Instant::now());
    let (mut latencies, mut rows, mut chunks): (Vec<u32>, u64, u64) = (Vec::new(), 0, 0);
    println!(
        "{:>8} {:>12} {:>10} {:>10} {:>10} {:>10} {:>8} {:>6}",
        "seconds", "frames/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "RSS MB", "fds"
    );
    let mut told = Instant::now();
    loop {
        let chunk = reader.next(None).await.expect("the spool can be read").expect("a venue does not end");
        for (_, batch) in &chunk.batches {
            let frames = FrameRows::of(batch).expect("frames");
            for row in 0..batch.num_rows() {
                let frame = FrameRef {
                    receive_time: integer(frames.receive_time, row),
                    frame: frames.frame.value(row),
                    topic: None,
                    payload: frames.payload.value(row),
                };
                // The listing, and acknowledgements, are no trades.
                drop(dialect.decode(frame, &mut records));
            }
        }
        let decoded = records.finish();
        let now = time::now();
        let measures = begun.is_some_and(|begun: Instant| begun.elapsed() > warm);
        for (_, batch) in decoded {
            let trades = TradeRows::of(&batch).expect("trades");
            begun.get_or_insert_with(Instant::now);
            if measures {
                rows += batch.num_rows() as u64;
                // The price is the time in seconds, in units of 10⁻¹².
                latencies
                    .extend(trades.price.values().iter().map(|price| u32::try_from(now - (price / 1_000_000) as i64).unwrap_or_default()));
            }
        }
        chunks += 1;
        if settled.elapsed() > Duration::from_secs(1) {
            settled = Instant::now();
            reader.settle(&chunk.position).await.expect("the spool can be cut");
        }
        if !measures {
            told = Instant::now();
        } else if told.elapsed() > Duration::from_secs(10) {
            let begun = begun.expect("it measures");
            tell(&mut latencies, told.elapsed(), begun.elapsed());
            told = Instant::now();
            latencies.clear();
            if begun.elapsed() > warm + long {
                println!("{rows} rows in {chunks} chunks");
                return;
            }
        }
    }
}

fn tell(latencies: &mut [u32], during: Duration, since: Duration) {
    latencies.sort_unstable();
    let at = |share: f64| f64::from(latencies[((latencies.len() - 1) as f64 * share) as usize]) / 1e3;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    println!(
        "{:>8.0} {:>12.0} {:>10.2} {:>10.2} {:>10.2} {:>10.2} {:>8} {:>6}",
        since.as_secs_f64(),
        latencies.len() as f64 / during.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        resident.unwrap_or_default() / 1024,
        files
    );
}
