//! How long a frame takes from the socket to a decoded batch, with many connections.
//!
//! A venue made up, in a process of its own on one core, sends trades of a thousand instruments over five hundred connections.
//! Each connection speaks when a recorded one did, each from another moment of the recording on, all of them so much faster or slower that
//! they have the rate that is asked for. The source `binance` listens on the other core: sockets, the spool, the waits for the disk beside
//! it, and the dialect. A trade's price is the time at which it was sent, so that a decoded row tells how long it took.
//!
//!     cargo bench -p benches --bench live -- [FRAMES_A_SECOND] [SECONDS] [FOLDER_OF_THE_SPOOL]

#![expect(clippy::print_stdout, reason = "a benchmark tells what it measured")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::routing::get;
use config::settings::Settings;
use flate2::read::MultiGzDecoder;
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
/// How often it is looked whether frames are due.
const TICK: Duration = Duration::from_micros(50);
/// Frames of a connection between two pings.
const PING: usize = 4_000;
/// Five minutes of all frames of one instrument, 192 a second.
const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/recordings/binance/spot/btcusdt_20240809.gz");

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

/// Lets connections subscribe, and hands them to [`send`] when all are there.
async fn venue(rate: usize) {
    let bind = || TcpListener::bind(("127.0.0.1", 0));
    let (sockets, requests) = (bind().await.expect("a port"), bind().await.expect("a port"));
    println!("ws://{} http://{}", sockets.local_addr().expect("it is bound"), requests.local_addr().expect("it is bound"));
    let symbols: Vec<String> = (0..INSTRUMENTS)
        .map(|i| format!(r#"{{"symbol":"{}","baseAsset":"C{i:03}","quoteAsset":"USDT","status":"TRADING","filters":[]}}"#, symbol(i)))
        .collect();
    let listing = format!(r#"{{"serverTime":1723161000000,"symbols":[{}]}}"#, symbols.join(","));
    let service = axum::Router::new().fallback(get(|| async move { listing }));
    tokio::spawn(async move { axum::serve(requests, service).await });
    let mut subscribed = Vec::new();
    while subscribed.len() < CONNECTIONS {
        let (stream, _) = sockets.accept().await.expect("the port is open");
        stream.set_nodelay(true).expect("it is TCP");
        let mut socket = tokio_tungstenite::accept_async(stream).await.expect("it speaks the protocol");
        let Some(Ok(Message::Text(asked))) = socket.next().await else { panic!("a connection begins with a subscription") };
        let id = asked.rsplit("\"id\":").next().and_then(|id| id.trim_end_matches('}').parse::<u64>().ok()).unwrap_or_default();
        socket.send(Message::text(format!(r#"{{"result":null,"id":{id}}}"#))).await.expect("it listens");
        let streams: Vec<String> = asked.split('"').filter(|part| part.ends_with("@trade")).map(str::to_owned).collect();
        let stream = socket.into_inner().into_std().expect("it is open");
        stream.set_nonblocking(false).expect("it is a socket");
        subscribed.push((stream, streams));
    }
    send(rate, subscribed);
}

/// When frames came, in nanoseconds since the first.
fn recorded() -> Vec<u64> {
    let mut text = String::new();
    let read = std::fs::File::open(RECORDING).and_then(|file| MultiGzDecoder::new(file).read_to_string(&mut text));
    read.expect("the recording is there");
    let times: Vec<u64> = text.lines().filter_map(|line| line.split_once(' ')?.0.parse().ok()).collect();
    times.iter().map(|time| time - times[0]).collect()
}

/// Sends trades, so many a second over all connections, each at its moment: with as little work as can be, so that what sends is not
/// what is measured.
fn send(rate: usize, mut connections: Vec<(TcpStream, Vec<String>)>) {
    let moments = recorded();
    let length = moments[moments.len() - 1];
    let speed = rate as f64 * length as f64 / 1e9 / (CONNECTIONS * moments.len()) as f64;
    // When the next frame of each connection is due, and which one it is of those recorded.
    let mut next: BinaryHeap<(Reverse<u64>, usize, usize)> = (0..CONNECTIONS)
        .map(|connection| {
            let first = connection * moments.len() / CONNECTIONS;
            (Reverse(0), connection, first)
        })
        .collect();
    let (begun, mut sent, mut frame) = (Instant::now(), [0; CONNECTIONS], Vec::new());
    loop {
        let now = (begun.elapsed().as_nanos() as f64 * speed) as u64;
        while let Some(mut due) = next.peek_mut() {
            let (Reverse(at), connection, moment) = *due;
            if at > now {
                break;
            }
            let following = (moment + 1) % moments.len();
            let pause = if following == 0 { 0 } else { moments[following] - moments[moment] };
            *due = (Reverse(at + pause), connection, following);
            drop(due);
            let (socket, streams) = &mut connections[connection];
            let number = &mut sent[connection];
            let (stream, id) = (&streams[*number % streams.len()], *number / streams.len() + 1);
            // A venue asks now and then whether one is still there, Binance every 20 s.
            if *number % PING == 0 && socket.write_all(&[0x89, 0]).is_err() {
                return;
            }
            *number += 1;
            let (symbol, now) = (stream.trim_end_matches("@trade").to_uppercase(), time::now());
            let (millis, seconds, micros) = (now / 1_000, now / 1_000_000, now % 1_000_000);
            frame.clear();
            // A text of 126 to 65,535 bytes, unmasked (RFC 6455, section 5.2).
            frame.extend_from_slice(&[0x81, 126, 0, 0]);
            write!(
                frame,
                r#"{{"stream":"{stream}","data":{{"e":"trade","E":{millis},"s":"{symbol}","t":{id},"p":"{seconds}.{micros:06}","q":"0.01000000","T":{millis},"m":true,"M":true}}}}"#
            )
            .expect("memory takes it");
            let bytes = u16::try_from(frame.len() - 4).expect("a trade is short");
            frame[2..4].copy_from_slice(&bytes.to_be_bytes());
            if socket.write_all(&frame).is_err() {
                // Nobody listens any more.
                return;
            }
        }
        std::thread::sleep(TICK);
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
    let (mut latencies, mut rows, mut chunks) = (Latencies::default(), 0, 0_u64);
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
                rows += batch.num_rows();
                // The price is the time in seconds, in units of 10⁻¹².
                trades.price.values().iter().for_each(|price| latencies.add(now - (price / 1_000_000) as i64));
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
            tell(&std::mem::take(&mut latencies), told.elapsed(), begun.elapsed());
            told = Instant::now();
            if begun.elapsed() > warm + long {
                println!("{rows} rows in {chunks} chunks");
                return;
            }
        }
    }
}

/// How many frames took how long, in units of [`Latencies::UNIT`]: to sort a second's frames would hold up those of the next.
struct Latencies(Vec<u32>);

impl Default for Latencies {
    fn default() -> Self {
        Latencies(vec![0; 100_000])
    }
}

impl Latencies {
    /// Microseconds.
    const UNIT: i64 = 10;

    fn add(&mut self, micros: i64) {
        let at = usize::try_from(micros / Self::UNIT).unwrap_or_default().min(self.0.len() - 1);
        self.0[at] += 1;
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|count| u64::from(*count)).sum()
    }

    /// Within how many milliseconds this share of frames came.
    fn within(&self, share: f64) -> f64 {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut found = 0;
        let at = self.0.iter().position(|count| {
            found += u64::from(*count);
            found >= wanted
        });
        (at.expect("no share is above one") as i64 + 1) as f64 * Self::UNIT as f64 / 1e3
    }
}

fn tell(latencies: &Latencies, during: Duration, since: Duration) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    println!(
        "{:>8.0} {:>12.0} {:>10.2} {:>10.2} {:>10.2} {:>10.2} {:>8} {:>6}",
        since.as_secs_f64(),
        latencies.count() as f64 / during.as_secs_f64(),
        latencies.within(0.5),
        latencies.within(0.99),
        latencies.within(0.999),
        latencies.within(1.0),
        resident.unwrap_or_default() / 1024,
        files
    );
}
