//! Frames that cannot be used, among others that can: each is one dead letter with its bytes, and the others arrive.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tests::program::{marketprism, rows};

/// Frames of a market as it sends them, by what they tell.
struct Shapes {
    dialect: &'static str,
    symbol: &'static str,
    trade: &'static str,
    quote: &'static str,
    depth: &'static str,
    snapshot: &'static str,
    /// What only futures send: a mark price and a liquidation.
    futures: Option<[&'static str; 2]>,
}

const MARKETS: [Shapes; 3] = [
    Shapes {
        dialect: "binance_spot",
        symbol: "BTCUSDT",
        trade: r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":1767225600100,"s":"BTCUSDT","t":4000001,"p":"87500.01","q":"0.02000","T":1767225600099,"m":true,"M":true}}"#,
        quote: r#"{"stream":"btcusdt@bookTicker","data":{"u":900000001,"s":"BTCUSDT","b":"87500.00","B":"0.31000","a":"87500.01","A":"1.20000"}}"#,
        depth: r#"{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1767225600200,"s":"BTCUSDT","U":900000001,"u":900000004,"b":[["87500.00","0.31000"]],"a":[["87500.01","0.00000"]]}}"#,
        snapshot: r#"{"lastUpdateId":900000002,"bids":[["87500.00","0.31000"]],"asks":[["87500.01","1.20000"]]}"#,
        futures: None,
    },
    Shapes {
        dialect: "binance_usdm",
        symbol: "BTCUSDT",
        trade: r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":1767225600100,"T":1767225600099,"s":"BTCUSDT","t":4000001,"p":"87500.1","q":"0.020","X":"MARKET","m":true}}"#,
        quote: r#"{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":900000001,"s":"BTCUSDT","b":"87500.0","B":"0.310","a":"87500.1","A":"1.200","T":1767225600100,"E":1767225600101}}"#,
        depth: r#"{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1767225600200,"T":1767225600199,"s":"BTCUSDT","U":900000001,"u":900000004,"pu":900000000,"b":[["87500.0","0.310"]],"a":[["87500.1","0.000"]]}}"#,
        snapshot: r#"{"lastUpdateId":900000002,"E":1767225600210,"T":1767225600209,"bids":[["87500.0","0.310"]],"asks":[["87500.1","1.200"]]}"#,
        futures: Some([
            r#"{"stream":"btcusdt@markPrice","data":{"e":"markPriceUpdate","E":1767225600000,"s":"BTCUSDT","p":"87500.10000000","i":"87499.20000000","P":"87499.00000000","r":"0.00010000","T":1767254400000}}"#,
            r#"{"stream":"btcusdt@forceOrder","data":{"e":"forceOrder","E":1767225600300,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"87410.0","ap":"87500.1","X":"FILLED","l":"0.014","z":"0.014","T":1767225600299}}}"#,
        ]),
    },
    Shapes {
        dialect: "binance_coinm",
        symbol: "BTCUSD_PERP",
        trade: r#"{"stream":"btcusd_perp@trade","data":{"e":"trade","E":1767225600100,"T":1767225600099,"s":"BTCUSD_PERP","ps":"BTCUSD","t":4000001,"p":"87500.1","q":"12","X":"MARKET","m":true}}"#,
        quote: r#"{"stream":"btcusd_perp@bookTicker","data":{"u":900000001,"e":"bookTicker","s":"BTCUSD_PERP","ps":"BTCUSD","b":"87500.0","B":"310","a":"87500.1","A":"1200","T":1767225600100,"E":1767225600101}}"#,
        depth: r#"{"stream":"btcusd_perp@depth@0ms","data":{"e":"depthUpdate","E":1767225600200,"T":1767225600199,"s":"BTCUSD_PERP","ps":"BTCUSD","U":900000001,"u":900000004,"pu":900000000,"b":[["87500.0","310"]],"a":[["87500.1","0"]]}}"#,
        snapshot: r#"{"lastUpdateId":900000002,"E":1767225600210,"T":1767225600209,"symbol":"BTCUSD_PERP","pair":"BTCUSD","bids":[["87500.0","310"]],"asks":[["87500.1","1200"]]}"#,
        futures: Some([
            r#"{"stream":"btcusd_perp@markPrice","data":{"e":"markPriceUpdate","E":1767225600000,"s":"BTCUSD_PERP","p":"87500.10000000","i":"87499.20000000","P":"87499.00000000","r":"0.00010000","T":1767254400000}}"#,
            r#"{"stream":"btcusd_perp@forceOrder","data":{"e":"forceOrder","E":1767225600300,"o":{"s":"BTCUSD_PERP","ps":"BTCUSD","S":"SELL","o":"LIMIT","f":"IOC","q":"14","p":"87410.0","ap":"87500.1","X":"FILLED","l":"14","z":"14","T":1767225600299}}}"#,
        ]),
    },
];

/// A frame and the reason for which it must be refused.
type Bad = (Vec<u8>, &'static str);

/// The frame with a part of it replaced.
#[track_caller]
fn with(frame: &str, part: &str, by: &str) -> Vec<u8> {
    assert!(frame.contains(part), "{frame} has no {part}");
    frame.replacen(part, by, 1).into_bytes()
}

impl Shapes {
    fn good(&self) -> Vec<&'static str> {
        let mut frames = vec![self.trade, self.quote, self.depth, self.snapshot];
        frames.extend(self.futures.into_iter().flatten());
        frames
    }

    /// A member's text with its comma: `"p":"87500.1"` of a trade at that price.
    fn member(frame: &'static str, name: &str) -> &'static str {
        let at = frame.find(&format!(r#""{name}":"#)).unwrap_or_else(|| panic!("{frame} has no {name}"));
        let value = at + name.len() + 3;
        let end = frame[value..].find([',', '}']).expect("objects end");
        &frame[at..value + end]
    }

    /// Damage that can befall every frame.
    fn damaged(&self) -> Vec<Bad> {
        let mut bad = Vec::new();
        for frame in self.good() {
            bad.push((frame.as_bytes()[..frame.len() / 2].to_vec(), "malformed"));
            bad.push((format!("{frame}}}").into_bytes(), "malformed"));
            let mut bytes = frame.as_bytes().to_vec();
            let quote = frame.rfind('"').unwrap();
            bytes[quote - 1] = 0xff;
            bad.push((bytes, "malformed"));
        }
        bad
    }

    /// What is wrong in itself.
    fn wrong(&self) -> Vec<Bad> {
        let mut bad: Vec<Bad> = Vec::new();
        let mut replace = |frame: &'static str, name: &str, by: &str, reason: &'static str| {
            bad.push((with(frame, Self::member(frame, name), &format!(r#""{name}":{by}"#)), reason));
        };
        replace(self.trade, "p", "87500.1", "wrong_type");
        replace(self.trade, "p", r#""8750x.1""#, "bad_number");
        replace(self.trade, "p", r#""-87500.1""#, "bad_number");
        replace(self.trade, "p", r#""1e400""#, "overflow");
        replace(self.trade, "p", r#""NaN""#, "bad_number");
        replace(self.trade, "p", r#""""#, "bad_number");
        replace(self.trade, "p", r#""0.0""#, "not_a_trade");
        replace(self.trade, "p", "null", "missing_field");
        replace(self.trade, "q", r#""1.0000000000001""#, "overflow");
        replace(self.trade, "q", r#""999999999999999999999999999""#, "overflow");
        replace(self.trade, "t", "[1]", "wrong_type");
        replace(self.trade, "T", "-1", "bad_time");
        replace(self.trade, "m", r#""yes""#, "wrong_type");
        replace(self.trade, "s", r#""QQQZZZ""#, "unknown_instrument");
        replace(self.trade, "e", r#""tradeX""#, "unknown_event");
        replace(self.quote, "B", r#""-1""#, "bad_number");
        replace(self.quote, "u", r#""900000001""#, "wrong_type");
        replace(self.quote, "u", "99999999999999999999", "bad_number");
        replace(self.depth, "U", "9.5", "bad_number");
        replace(self.snapshot, "lastUpdateId", "true", "wrong_type");
        let (member, depth) = (Self::member(self.trade, "q"), self.depth);
        bad.push((with(self.trade, &format!("{member},"), ""), "missing_field"));
        bad.push((with(self.trade, member, &format!("{member},{member}")), "malformed"));
        bad.push((with(depth, r#""b":[["#, r#""b":[[],["#), "wrong_type"));
        bad.push((with(depth, r#""a":[["#, r#""a":[["1",["#), "malformed"));
        bad.push((b"{}".to_vec(), "unknown_event"));
        bad.push((br#"{"code":-1121,"msg":"Invalid symbol."}"#.to_vec(), "venue_error"));
        bad.push(([vec![b'['; 50_000], vec![b']'; 50_000]].concat(), "malformed"));
        bad.push((b"null".to_vec(), "malformed"));
        if let Some([mark, liquidation]) = self.futures {
            bad.push((with(mark, Self::member(mark, "r"), r#""r":"0.0001%""#), "bad_number"));
            bad.push((with(mark, Self::member(mark, "E"), r#""E":"now""#), "wrong_type"));
            bad.push((with(liquidation, r#""SELL""#, r#""HOLD""#), "wrong_type"));
        }
        bad
    }

    fn bad(&self) -> Vec<Bad> {
        [self.damaged(), self.wrong()].concat()
    }

    fn source(&self, folder: &Path) -> String {
        let (dialect, symbol, file) = (self.dialect, self.symbol, folder.join(self.dialect));
        format!(
            "[sources.{dialect}_file]\ntype = \"file\"\npath = \"{}\"\ndialect = \"{dialect}\"\nsymbol = \"{symbol}\"\n\n\
             [operators.{dialect}]\ntype = \"normalise\"\ninputs = [\"{dialect}_file\"]\n\
             kinds = [\"trade\", \"quote\", \"book_delta\", \"book_snapshot\", \"mark_price\", \"liquidation\"]\n\n",
            file.display()
        )
    }
}

#[test]
fn a_hundred_malformed_frames_are_a_hundred_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let mut pipeline = "name = \"malformed\"\n\n".to_owned();
    // By node and frame: the bytes, and the reason.
    let mut expected: BTreeMap<(&str, u64), Bad> = BTreeMap::new();
    let mut good = 0;
    for market in &MARKETS {
        let mut file = Vec::new();
        let mut frame = 0;
        let mut line = |payload: &[u8]| {
            frame += 1;
            write!(file, "{} ", 1_767_225_601_000_000_000_u64 + frame * 1_000_000).unwrap();
            file.extend_from_slice(payload);
            file.push(b'\n');
            frame
        };
        let shapes = market.good();
        for (number, bad) in market.bad().into_iter().enumerate() {
            line(shapes[number % shapes.len()].as_bytes());
            good += 1;
            expected.insert((market.dialect, line(&bad.0)), bad);
        }
        std::fs::write(folder.path().join(market.dialect), file).unwrap();
        pipeline += &market.source(folder.path());
    }
    assert!(expected.len() >= 100, "{} malformed frames", expected.len());
    pipeline += "[sinks.cold]\ntype = \"parquet\"\ninputs = [\"binance_spot\", \"binance_usdm\", \"binance_coinm\"]\n";
    let file = folder.path().join("pipeline.toml");
    std::fs::write(&file, pipeline).unwrap();
    let data = folder.path().join("data");
    let summary = marketprism(["run", file.to_str().unwrap(), "--data", data.to_str().unwrap()]).expect_success();
    assert!(summary.contains("the books balance"), "{summary}");

    let letters =
        rows(&data, "SELECT node, reason, detail, frame, kind, encode(payload, 'hex') AS bytes FROM dead_letters ORDER BY node, frame");
    let mut wrong = Vec::new();
    for letter in &letters {
        let text = |key: &str| letter[key].as_str().unwrap_or_default();
        let Some((bytes, reason)) = expected.remove(&(text("node"), letter["frame"].as_u64().unwrap())) else {
            wrong.push(format!("not expected, or twice: {letter}"));
            continue;
        };
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        if hex != text("bytes") || reason != text("reason") || text("detail").is_empty() || text("kind") != "frame" {
            let bytes = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
            wrong.push(format!("{} ({}), expected {reason}: {bytes}", text("reason"), text("detail")));
        }
    }
    wrong.extend(
        expected
            .into_iter()
            .map(|(at, (bytes, reason))| format!("no dead letter for {at:?}, {reason}: {}", String::from_utf8_lossy(&bytes))),
    );
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));

    let count = |table: &str| rows(&data, &format!("SELECT count(*) AS n FROM {table}"))[0]["n"].as_u64().unwrap();
    let arrived: u64 = ["trades", "quotes", "book_deltas", "book_snapshots", "mark_prices", "liquidations"].into_iter().map(count).sum();
    assert_eq!(arrived, good, "a record for each good frame");
}

const TRADES: u64 = 20_000;

/// A gzip file of trades with the ids from 1 on.
fn packed() -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    for id in 1..=TRADES {
        let time = 1_767_225_600_000 + id * 7;
        let price = 87_000 + id * 7_919 % 1_000;
        writeln!(
            gzip,
            r#"{{"e":"trade","E":{time},"s":"BTCUSDT","t":{id},"p":"{price}.01","q":"0.0{}","T":{time},"m":true}}"#,
            id * 31 % 97 + 1
        )
        .unwrap();
    }
    gzip.finish().unwrap()
}

/// Runs over a damaged file beside a whole one; returns how many of the damaged file's trades arrived.
fn damaged(bytes: &[u8], name: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    std::fs::write(&file, bytes).unwrap();
    let pipeline = folder.path().join("pipeline.toml");
    let text = format!(
        r#"
name = "damaged"

[sources.recorded]
type = "file"
path = "{}"
dialect = "binance_spot"

[operators.trades]
type = "normalise"
inputs = ["recorded"]
kinds = ["trade"]

[sinks.cold]
type = "parquet"
inputs = ["trades"]
"#,
        file.display()
    );
    std::fs::write(&pipeline, text).unwrap();
    let data = folder.path().join("data");
    let [file, folder] = [&pipeline, &data].map(|p| p.to_str().unwrap());
    let output = marketprism(["run", file, "--data", folder]);
    assert_eq!(output.status, Some(1), "{output:?}");
    let error = output.stdout.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("no error in {output:?}"));
    println!("{error}");
    assert!(error.contains(name) && error.contains("`recorded`"), "{error}");
    let offset = error.split(", byte ").nth(1).and_then(|rest| rest.split(" of its contents").next()?.parse::<u64>().ok());
    assert!(offset.is_some_and(|offset| offset > 1_000_000), "{error}: the place in the unpacked file");
    assert!(output.stdout.contains("the books balance"), "{}", output.stdout);

    // What came before the damage arrived, each trade once.
    let found = &rows(&data, "SELECT count(*) AS n, count(DISTINCT trade_id) AS ids, max(CAST(trade_id AS BIGINT)) AS last FROM trades")[0];
    assert_eq!((&found["n"], &found["n"]), (&found["ids"], &found["last"]), "{found}");
    found["n"].as_u64().unwrap()
}

#[test]
fn the_good_part_of_a_truncated_file_is_used() {
    let packed = packed();
    let found = damaged(&packed[..packed.len() * 3 / 5], "truncated.gz");
    assert!((TRADES / 2..TRADES * 7 / 10).contains(&found), "{found} of {TRADES} trades, where three fifths of the file are left");
}

#[test]
fn the_good_part_of_a_corrupt_file_is_used() {
    let mut packed = packed();
    let middle = packed.len() / 2;
    packed[middle..middle + 64].fill(0xff);
    let found = damaged(&packed, "corrupt.gz");
    assert!((TRADES / 3..TRADES).contains(&found), "{found} of {TRADES} trades, where the middle of the file is damaged");
}
