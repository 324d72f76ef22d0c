//! The source from outside: files in, chunks out.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use config::component::component;
use flate2::Compression;
use flate2::write::GzEncoder;
use model::account::Totals;
use model::columns::{integer, label, number, numbers};
use model::kinds::{self, DeadLetterRows, FrameRows, TradeRows};
use model::{Account, Decimal};
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use tempfile::TempDir;

use super::File;
use crate::dialect::Dialects;
use crate::{Chunk, OpenSource, Position, Source, SourceError};

/// A folder with files to read.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(name), bytes).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Reads what matches a pattern, with further options.
    fn read(&self, pattern: &str, options: &str) -> Result<Found, SourceError> {
        let path = self.path(pattern).display().to_string();
        let source = source(&format!("path = {path:?}\n{options}")).unwrap();
        Found::of(source.as_ref())
    }
}

fn source(options: &str) -> Result<Arc<dyn Source>, String> {
    component::<dyn Source, File>(options, &[]).map(|checked| checked.component)
}

/// Everything that a source gave.
#[derive(Debug)]
struct Found {
    chunks: Vec<Chunk>,
    totals: Totals,
}

impl Found {
    fn of(source: &dyn Source) -> Result<Self, SourceError> {
        Self::from(source, None, &[])
    }

    /// What a source gives from a position on, read up to some positions in turn and then to its end.
    fn from(source: &dyn Source, from: Option<&Position>, stops: &[Position]) -> Result<Self, SourceError> {
        let account = Arc::new(Account::default());
        let cx = OpenSource {
            pipeline: "p".into(),
            node: "recorded".into(),
            from: from.cloned(),
            settings: Arc::default(),
            account: account.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let chunks = runtime.block_on(async {
            let mut reader = source.open(cx).await?;
            let mut chunks: Vec<Chunk> = Vec::new();
            for stop in stops {
                while chunks.last().is_none_or(|chunk| !chunk.position.is_at(stop)) {
                    chunks.push(reader.next(Some(stop)).await?.expect("the source does not end before a position that it gave"));
                }
                assert_eq!(chunks.last().unwrap().position.frame, stop.frame);
            }
            while let Some(chunk) = reader.next(None).await? {
                chunks.push(chunk);
            }
            Ok::<_, SourceError>(chunks)
        })?;
        Ok(Found { chunks, totals: account.totals() })
    }

    fn positions(&self) -> Vec<Position> {
        self.chunks.iter().map(|chunk| chunk.position.clone()).collect()
    }

    fn rows(&self, kind: &str) -> RecordBatch {
        let kind = kinds::named(kind).unwrap();
        let batches: Vec<_> =
            self.chunks.iter().flat_map(|c| &c.batches).filter(|(k, _)| k.name == kind.name).map(|(_, rows)| rows).collect();
        concat_batches(kind.schema(), batches).unwrap()
    }

    /// Receive time, number and payload of every frame.
    fn frames(&self) -> Vec<(Option<i64>, i64, String)> {
        let rows = self.rows("frame");
        let frames = FrameRows::of(&rows).unwrap();
        (0..rows.num_rows())
            .map(|i| {
                (integer(frames.receive_time, i), frames.frame.value(i), String::from_utf8_lossy(frames.payload.value(i)).into_owned())
            })
            .collect()
    }

    fn payloads(&self) -> Vec<String> {
        self.frames().into_iter().map(|f| f.2).collect()
    }

    /// Reason, number, detail without the file's name, and payload of every dead letter.
    fn letters(&self) -> Vec<(String, i64, String, String)> {
        let rows = self.rows("dead_letter");
        let letters = DeadLetterRows::of(&rows).unwrap();
        (0..rows.num_rows())
            .map(|i| {
                assert_eq!(label(letters.node, i), Some("recorded"));
                let detail = letters.detail.value(i).rsplit_once(", in ").unwrap().0.to_owned();
                (
                    label(letters.reason, i).unwrap().to_owned(),
                    letters.frame.value(i),
                    detail,
                    String::from_utf8_lossy(letters.payload.value(i)).into_owned(),
                )
            })
            .collect()
    }

    fn errors(&self) -> Vec<&SourceError> {
        self.chunks.iter().flat_map(|c| &c.errors).collect()
    }

    fn last(&self) -> Position {
        self.chunks.last().unwrap().position.clone()
    }
}

const FRAMES: &str = "dialect = \"binance_spot\"";
const TRADES: &str = "kind = \"trade\"\nformat = ";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn files_are_read_in_the_order_of_their_names_and_numbered_through() {
    let folder = Folder::new();
    folder.put("b.txt", "{3}\n\n  \r\n{4}\r\n{5}").put("a.txt", "{1}\n{2}\n").put("c.txt", "").put("d.other", "x");
    let found = folder.read("*.txt", FRAMES).unwrap();
    assert_eq!(found.frames(), [1, 2, 3, 4, 5].map(|n| (None, n, format!("{{{n}}}"))));
    let last = found.last();
    assert_eq!((last.part, last.offset, last.frame), (folder.path("b.txt").display().to_string(), 17, 5));
    assert!(found.errors().is_empty() && found.letters().is_empty());
    let rows = found.rows("frame");
    let frames = FrameRows::of(&rows).unwrap();
    assert_eq!((label(frames.dialect, 4), label(frames.topic, 4)), (Some("binance_spot"), None));
}

#[test]
fn a_list_of_paths_keeps_its_order() {
    let folder = Folder::new();
    folder.put("b", "{1}").put("a", "{2}");
    let paths = ["b", "a", "b"].map(|n| folder.path(n).display().to_string());
    let found = Found::of(source(&format!("path = {paths:?}\n{FRAMES}\nsymbol = \"BTCUSDT\"")).unwrap().as_ref()).unwrap();
    assert_eq!(found.payloads(), ["{1}", "{2}"]);
    assert_eq!(label(FrameRows::of(&found.rows("frame")).unwrap().topic, 1), Some("BTCUSDT"));
}

#[test]
fn receive_times_are_found_line_by_line() {
    let folder = Folder::new();
    folder.put("f", "1723161253937085768 {\"a\":1}\n{\"b\": 2}\n17231 [3]\n99999999999999999999 {4}\n12 \n[ 5 ]\n");
    let auto = folder.read("f", FRAMES).unwrap();
    let expected: [(Option<i64>, i64, &str); 6] = [
        (Some(1_723_161_253_937_085), 1, "{\"a\":1}"),
        (None, 2, "{\"b\": 2}"),
        (Some(17), 3, "[3]"),
        // No time of 64 bits: the dialect will refuse the line.
        (None, 4, "99999999999999999999 {4}"),
        (None, 5, "12"),
        (None, 6, "[ 5 ]"),
    ];
    assert_eq!(auto.frames(), expected.map(|(time, number, frame)| (time, number, frame.to_owned())));
    let none = folder.read("f", &format!("{FRAMES}\nreceive_time = \"none\"")).unwrap();
    assert_eq!((none.frames()[0].clone(), none.frames().len()), ((None, 1, "1723161253937085768 {\"a\":1}".to_owned()), 6));
    let all = folder.read("f", &format!("{FRAMES}\nreceive_time = \"nanoseconds_prefix\"")).unwrap();
    assert_eq!(all.frames().iter().map(|f| f.1).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(
        all.letters()[0],
        ("no_receive_time".into(), 2, "the line does not begin with nanoseconds and a space".into(), "{\"b\": 2}".into())
    );
    assert_eq!((all.letters().len(), all.totals.rejected["no_receive_time"]), (4, 4));
}

#[test]
fn compression_is_told_by_the_first_bytes() {
    let folder = Folder::new();
    let (one, two) = (b"{1}\n".repeat(50_000), b"{2}\n{3}");
    folder.put("a.gz", [gzip(&one), gzip(two), vec![0; 700]].concat());
    folder.put("b", zstd::encode_all(&one[..], 3).unwrap());
    folder.put("c.zst", [zstd::encode_all(&b"{4}\n"[..], 3).unwrap(), zstd::encode_all(&b"{5}\n"[..], 3).unwrap()].concat());
    folder.put("d.gz", "").put("e.gz", "{6}\n").put("f.txt", "{7}\n");
    let found = folder.read("*", FRAMES).unwrap();
    let payloads = found.payloads();
    assert_eq!(payloads.len(), 100_000 + 5);
    assert_eq!(payloads[49_999..50_003], ["{1}", "{2}", "{3}", "{1}"]);
    assert_eq!(payloads[100_002..], ["{4}", "{5}", "{7}"]);
    let [error] = found.errors()[..] else { panic!("{:?}", found.errors()) };
    assert_eq!((error.place.as_str(), error.what.contains("ends with .gz")), (folder.path("e.gz").to_str().unwrap(), true));
}

/// Lines that do not compress well, so that damage hits somewhere in the middle.
fn noise(lines: u64) -> Vec<u8> {
    let mut seed = 7_u64;
    let mut text = Vec::new();
    for n in 0..lines {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        writeln!(text, "{{\"n\":{n},\"x\":{seed}}}").unwrap();
    }
    text
}

#[test]
fn of_a_damaged_file_the_good_part_is_used_and_the_next_file_is_read() {
    let text = noise(20_000);
    let lines: Vec<String> = String::from_utf8(text.clone()).unwrap().lines().map(str::to_owned).collect();
    let packed = [("gz", gzip(&text)), ("zst", zstd::encode_all(&text[..], 3).unwrap())];
    for (extension, whole) in packed {
        for (how, what) in [("cut", ["cut off", "incomplete"]), ("flipped", ["corrupt", "Corrupt"])] {
            let folder = Folder::new();
            let mut damaged = whole.clone();
            let middle = whole.len() / 2;
            match how {
                "cut" => damaged.truncate(middle),
                _ => damaged[middle..middle + 64].iter_mut().for_each(|b| *b ^= 0x55),
            }
            folder.put(&format!("a.{extension}"), &damaged).put("b", "{\"last\":true}");
            let found = folder.read("*", FRAMES).unwrap();
            let payloads = found.payloads();
            let good = payloads.len() - 1;
            assert_eq!(payloads[good], "{\"last\":true}");
            // Damage that still unpacks may spoil some lines before it shows.
            let same = payloads.iter().zip(&lines).take_while(|(ours, theirs)| ours == theirs).count();
            assert!(same > lines.len() / 4 && same < lines.len(), "{extension} {how}: {same} lines");
            assert!(how == "flipped" || same == good);
            let [error] = found.errors()[..] else { panic!("{extension} {how}: {:?}", found.errors()) };
            assert!(error.place.contains(&format!("a.{extension}, byte ")), "{error}");
            assert!(what.iter().any(|w| error.what.contains(w)), "{extension} {how}: {error}");
            // The line in which the damage lies is told, too.
            let letters = found.letters();
            assert!(
                letters.len() <= 1 && letters.iter().all(|l| l.0 == "truncated" && lines[good].starts_with(&l.3) || how == "flipped"),
                "{letters:?}"
            );
        }
    }
}

#[test]
fn every_byte_before_the_damage_of_a_gzip_stream_is_used() {
    // Stored blocks unpack to what they are, so it is known what stands before the damage.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    let text = noise(10_000);
    encoder.write_all(&text).unwrap();
    let mut packed = encoder.finish().unwrap();
    let kept = packed.len() - 200;
    packed.truncate(kept);
    let folder = Folder::new();
    folder.put("a.gz", &packed);
    let found = folder.read("a.gz", FRAMES).unwrap();
    let read: usize =
        found.payloads().iter().map(|p| p.len() + 1).sum::<usize>() + found.letters().iter().map(|l| l.3.len()).sum::<usize>();
    assert!(read > text.len() - 200 && read < text.len(), "{read} of {}", text.len());
}

#[test]
fn a_line_that_is_too_long_is_a_dead_letter() {
    let folder = Folder::new();
    folder.put("f", ["{1}\n".as_bytes(), &vec![b'x'; 17 << 20], b"\n{3}\n"].concat());
    let found = folder.read("f", FRAMES).unwrap();
    assert_eq!(found.frames().iter().map(|f| f.1).collect::<Vec<_>>(), [1, 3]);
    let letters = found.letters();
    assert_eq!((letters[0].0.as_str(), letters[0].1), ("oversize", 2));
    assert_eq!(letters[0].2, format!("a line of {} bytes, of which the first 65536 are kept", (17 << 20) + 1));
    assert_eq!(found.last().offset, fs::metadata(folder.path("f")).unwrap().len());
}

#[test]
fn what_cannot_be_opened_is_told_with_a_remedy() {
    let folder = Folder::new();
    folder.put("a.csv", "price\n1\n");
    for (pattern, options, what) in [
        ("*.gz", FRAMES, "matches no file"),
        ("missing.gz", FRAMES, "there is no such file"),
        ("", FRAMES, "is a folder"),
        ("a.csv", &format!("{TRADES}\"parquet\""), "Parquet"),
    ] {
        let error = folder.read(pattern, options).map(drop).unwrap_err();
        assert!(error.what.contains(what) && !error.remedy.is_empty(), "{error}");
    }
}

#[test]
fn bad_options_are_told() {
    for (options, expected) in [
        ("path = \"a\"", ": neither `dialect` nor `format` says what the files hold"),
        ("path = \"a\"\ndialect = \"binance_spot\"\nformat = \"csv\"", "format: both `dialect` and `format`"),
        ("path = []\ndialect = \"binance_spot\"", "path: no path"),
        ("path = \"[a\"\ndialect = \"binance_spot\"", "path: `[a` is no pattern of paths: unclosed character class; missing ']'"),
        ("path = \"a\"\ndialect = \"bitmex\"", "dialect: there is no dialect `bitmex`"),
        ("path = \"a\"\nformat = \"csv\"", ": `format` is given without `kind`"),
        ("path = \"a\"\nformat = \"csv\"\nkind = \"trades\"", "kind: there is no kind `trades` of records"),
        ("path = \"a\"\nformat = \"csv\"\nkind = \"frame\"", "kind: there is no kind `frame` of records"),
        (
            "path = \"a\"\nformat = \"csv\"\nkind = \"trade\"\nsymbol = \"X\"",
            "symbol: `symbol` is for frames, and `format` says that the files hold records",
        ),
        ("path = \"a\"\ndialect = \"binance_spot\"\nkind = \"trade\"", "kind: `kind` is for normalised records"),
        ("path = \"a\"\ndialect = \"binance_spot\"\npace = 0.0", "pace: a pace of 0"),
    ] {
        assert_eq!(source(options).map(drop).unwrap_err(), expected);
    }
    let example = <File as config::Component<dyn Source>>::EXAMPLE;
    let options: String = example.lines().skip(2).map(|l| format!("{l}\n")).collect();
    assert_eq!(source(&options).unwrap().clock().disorder.to_string(), "2s");
}

#[test]
fn a_listing_reaches_the_dialects() {
    let folder = Folder::new();
    let listing = br#"{"symbols":[{"symbol":"XYZABC","baseAsset":"XYZ","quoteAsset":"ABC","status":"TRADING"}]}"#;
    folder.put("info.json.gz", gzip(listing)).put("bad.json", "[]");
    let with = |name: &str| {
        let mut dialects = Dialects::default();
        let path = folder.path(name).display().to_string();
        let source = source(&format!("path = \"a\"\n{FRAMES}\ninstruments = {path:?}")).unwrap();
        futures::executor::block_on(source.teach(&mut dialects)).map(|()| dialects)
    };
    let mut records = model::dialect::Records::wanting(["trade"]);
    let payload = br#"{"e":"trade","T":1562306400000,"s":"XYZABC","t":1,"p":"2","q":"4","m":true}"#;
    let frame = model::dialect::FrameRef { receive_time: None, frame: 1, topic: None, payload };
    with("info.json.gz").unwrap().make("binance_spot").unwrap().decode(frame, &mut records).unwrap();
    assert_eq!(label(TradeRows::of(&records.finish()[0].1).unwrap().symbol, 0), Some("XYZ-ABC"));
    for (name, what) in [("bad.json", "exchangeInfo"), ("missing.json", "No such file")] {
        let error = with(name).map(drop).unwrap_err();
        assert!(error.what.contains(what), "{error}");
    }
}

const ROW: &str = r#"{"venue":"binance","market":"spot","symbol":"BTC-USDT","event_time":"2024-08-08T23:54:15.342Z","trade_id":"7","price":"61837.63","quantity":0.5,"side":"buy","fills":1}"#;

#[test]
fn json_lines_are_exact() {
    let folder = Folder::new();
    let second =
        ROW.replace("\"61837.63\"", "61837.630000000001").replace("\"2024-08-08T23:54:15.342Z\"", "1723161255342001").replace("\"7\"", "8");
    folder.put(
        "t.ndjson",
        format!("{ROW}\n\n{second}\n{}", ROW.replace("\"fills\":1", "\"fills\":1,\"receive_time\":null,\"contracts\":\"\\u0032\"")),
    );
    let found = folder.read("t.ndjson", &format!("{TRADES}\"ndjson\"")).unwrap();
    assert_eq!(found.letters(), []);
    let rows = found.rows("trade");
    let trades = TradeRows::of(&rows).unwrap();
    let d = |t: &str| Some(t.parse::<Decimal>().unwrap());
    assert_eq!([0, 1].map(|i| number(trades.price, i)), [d("61837.63"), d("61837.630000000001")]);
    assert_eq!(trades.event_time.values().to_vec(), [1_723_161_255_342_000, 1_723_161_255_342_001, 1_723_161_255_342_000]);
    assert_eq!((trades.trade_id.value(1), label(trades.symbol, 2), integer(trades.receive_time, 0)), ("8", Some("BTC-USDT"), None));
    assert_eq!(number(trades.contracts, 2), d("2"));
    assert_eq!(found.last().frame, 3);
}

#[test]
fn bad_json_lines_are_dead_letters_and_the_others_are_used() {
    let folder = Folder::new();
    let bad = [
        (ROW.replace("\"61837.63\"", "\"61,837\""), "bad_number", "`price` is \"61,837\", which is not a decimal number"),
        (ROW.replace("\"61837.63\"", "0.0000000000001"), "overflow", "`price` is 0.0000000000001, which has more than 12 fraction digits"),
        (ROW.replace("\"61837.63\"", "true"), "wrong_type", "`price` is true, which is no decimal"),
        (ROW.replace("\"price\":\"61837.63\",", ""), "missing_field", "`price` is missing"),
        (ROW.replace("\"61837.63\"", "null"), "missing_field", "`price` is missing"),
        (
            ROW.replace("2024-08-08T", "2024-08-08 T"),
            "bad_time",
            "`event_time` is \"2024-08-08 T23:54:15.342Z\", which is no time: neither RFC 3339 nor microseconds since 1970",
        ),
        (ROW.replace("\"fills\":1", "\"fills\":1.5"), "bad_number", "`fills` is 1.5, which is no whole number of 64 bits"),
        (ROW.replace("\"fills\"", "\"size\""), "unknown_column", "the kind has no column `size`"),
        (ROW.replace("\"fills\":1", "\"fills\":1,\"side\":\"sell\""), "malformed", "`side` stands twice in the row"),
        (ROW.replace("\"buy\"", "\"buy"), "malformed", "unexpected byte at byte 157"),
        (ROW.replace("\"buy\"", "{}"), "wrong_type", "`side` is an object"),
    ];
    let text: String = bad.iter().map(|(line, ..)| format!("{line}\n{ROW}\n")).collect();
    folder.put("t.ndjson", text);
    let found = folder.read("t.ndjson", &format!("{TRADES}\"ndjson\"")).unwrap();
    let expected: Vec<_> =
        (0..).zip(&bad).map(|(i, (line, reason, detail))| ((*reason).to_owned(), 2 * i + 1, (*detail).to_owned(), line.clone())).collect();
    assert_eq!(found.letters(), expected);
    assert_eq!((found.rows("trade").num_rows(), found.totals.rejected()), (bad.len(), bad.len() as u64));
}

#[test]
fn lists_and_bytes_are_read_from_text() {
    let folder = Folder::new();
    let snapshot = r#"{"venue":"v","market":"spot","symbol":"S","sequence":1,"origin":"venue","bid_prices":[1.5,"2"],"bid_quantities":[],"ask_prices":[],"ask_quantities":[3],"contracts":false}"#;
    folder.put("s.ndjson", format!("{snapshot}\n{}\n{}", snapshot.replace("1.5", "true"), snapshot.replace("[3]", "3")));
    let found = folder.read("s.ndjson", "kind = \"book_snapshot\"\nformat = \"ndjson\"").unwrap();
    let rows = found.rows("book_snapshot");
    let snapshots = kinds::BookSnapshotRows::of(&rows).unwrap();
    assert_eq!((numbers(snapshots.bid_prices, 0), snapshots.contracts.value(0)), (&[1_500_000_000_000, 2_000_000_000_000][..], false));
    assert_eq!(
        found.letters().iter().map(|l| l.2.as_str()).collect::<Vec<_>>(),
        ["`bid_prices` is a list, which is no list of numbers", "`ask_quantities` is 3, which is no list of decimal",]
    );
    let letter = r#"{"node":"n","reason":"r","detail":"d","rejected_time":0,"kind":"frame","payload":"7b7d"}"#;
    folder.put("d.ndjson", format!("{letter}\n{}", letter.replace("7b7d", "7b7")));
    let found = folder.read("d.ndjson", "kind = \"dead_letter\"\nformat = \"ndjson\"").unwrap();
    let rows = found.rows("dead_letter");
    // The record itself and the refused row are both dead letters.
    assert_eq!(DeadLetterRows::of(&rows).unwrap().payload.value(0), b"{}");
    assert_eq!(label(DeadLetterRows::of(&rows).unwrap().reason, 1), Some("wrong_type"));
}

#[test]
fn csv_is_matched_by_its_header() {
    let folder = Folder::new();
    let text = "symbol,venue,market,event_time,trade_id,price,quantity,side,fills,contracts\n\
        BTC-USDT,binance,spot,2024-08-08T23:54:15.342Z,7,61837.63,0.5,buy,1,\n\
        \"BTC-USDT\",binance,spot,1723161255342001,\"7,\"\"8\"\"\n9\",1,2,sell,1,3\n\
        BTC-USDT,binance,spot,0,9,x,1,buy,1,\n\
        BTC-USDT,binance,spot\n\
        BTC-USDT,binance,spot,0,10,1,1,buy,1,\n";
    folder.put("t.csv.gz", gzip(text.as_bytes()));
    let found = folder.read("t.csv.gz", &format!("{TRADES}\"csv\"")).unwrap();
    let rows = found.rows("trade");
    let trades = TradeRows::of(&rows).unwrap();
    assert_eq!([0, 1, 2].map(|i| trades.trade_id.value(i)), ["7", "7,\"8\"\n9", "10"]);
    assert_eq!([0, 1].map(|i| number(trades.contracts, i).map(|d| d.to_string())), [None, Some("3".into())]);
    assert_eq!(trades.event_time.value(1), 1_723_161_255_342_001);
    assert_eq!(
        found.letters(),
        [
            (
                "bad_number".into(),
                3,
                "`price` is \"x\", which is not a decimal number".into(),
                "BTC-USDT,binance,spot,0,9,x,1,buy,1,".into()
            ),
            ("malformed".into(), 4, "the line has 3 fields and the header 10".into(), "BTC-USDT,binance,spot".into()),
        ]
    );
    for (header, what) in [
        (text.replace("contracts", "size"), "`trade` records have no column `size`"),
        (text.replace("symbol,", "venue,"), "the column `venue` stands twice"),
        (text.replace("fills", "frame"), "`trade` records need the column `fills`"),
    ] {
        folder.put("t.csv.gz", gzip(header.as_bytes()));
        assert_eq!(folder.read("t.csv.gz", &format!("{TRADES}\"csv\"")).unwrap_err().what, what);
    }
}

fn parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let fields: Vec<Field> = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, c)| c).collect()).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

fn trade_columns() -> Vec<(&'static str, ArrayRef)> {
    let text = |t: &[&str]| Arc::new(StringArray::from(t.to_vec())) as ArrayRef;
    let labels = |t: &str| Arc::new(arrow::array::DictionaryArray::<Int32Type>::from_iter([t, t, t])) as ArrayRef;
    vec![
        ("venue", labels("binance")),
        ("market", labels("spot")),
        ("symbol", text(&["A-B", "A-B", "A-B"])),
        ("event_time", Arc::new(TimestampNanosecondArray::from(vec![1_999, -1, 3_000]).with_timezone("UTC"))),
        ("trade_id", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("price", Arc::new(Decimal128Array::from(vec![Some(12_345), None, Some(1)]).with_precision_and_scale(20, 2).unwrap())),
        ("quantity", text(&["0.1", "0.2", "0.3"])),
        ("side", text(&["buy", "buy", "sell"])),
        ("fills", Arc::new(Int64Array::from(vec![1, 1, 1]))),
    ]
}

#[test]
fn parquet_is_read_without_loss() {
    let folder = Folder::new();
    parquet(&folder.path("t.parquet"), trade_columns());
    let found = folder.read("t.parquet", &format!("{TRADES}\"parquet\"")).unwrap();
    let rows = found.rows("trade");
    let trades = TradeRows::of(&rows).unwrap();
    assert_eq!((rows.num_rows(), trades.trade_id.value(1), label(trades.venue, 1)), (2, "3", Some("binance")));
    assert_eq!([0, 1].map(|i| number(trades.price, i).unwrap().to_string()), ["123.45", "0.01"]);
    assert_eq!(trades.event_time.values().to_vec(), [1, 3]);
    let letters = found.letters();
    assert_eq!((letters.len(), letters[0].0.as_str(), letters[0].1, letters[0].2.as_str()), (1, "missing_field", 2, "`price` is missing"));
    assert!(letters[0].3.starts_with("{\"venue\":\"binance\"") && letters[0].3.contains("\"trade_id\":2"), "{}", letters[0].3);
    let last = found.last();
    assert_eq!((last.part, last.offset, last.frame), (folder.path("t.parquet").display().to_string(), 3, 3));

    let mut floats = trade_columns();
    floats[5].1 = Arc::new(Float64Array::from(vec![1.5, 2.5, 3.5]));
    parquet(&folder.path("t.parquet"), floats);
    let error = folder.read("t.parquet", &format!("{TRADES}\"parquet\"")).unwrap_err();
    assert_eq!(error.what, "`price` is a column of Float64, which cannot be read as decimal without loss");
    let bytes = fs::read(folder.path("t.parquet")).unwrap();
    folder.put("t.parquet", &bytes[..bytes.len() / 2]);
    assert!(folder.read("t.parquet", &format!("{TRADES}\"parquet\"")).is_err());
}

#[test]
fn records_of_every_kind_survive_parquet() {
    let folder = Folder::new();
    let mut books = kinds::BookDeltaBuilder::default();
    let price = |t: &str| t.parse::<Decimal>().unwrap();
    books.push(kinds::BookDelta {
        venue: "binance",
        market: "spot",
        symbol: "A-B",
        event_time: 5,
        receive_time: None,
        frame: Some(9),
        first_sequence: Some(1),
        last_sequence: Some(2),
        previous_sequence: None,
        bid_prices: &[price("1.5"), price("0.000000000001")],
        bid_quantities: &[price("1"), price("0")],
        ask_prices: &[],
        ask_quantities: &[],
        contracts: false,
        checksum: None,
        price_digits: None,
        quantity_digits: None,
    });
    let rows = books.finish();
    let columns = rows.schema().fields().iter().zip(rows.columns()).map(|(f, c)| (f.name().clone(), c.clone())).collect::<Vec<_>>();
    parquet(&folder.path("b.parquet"), columns.iter().map(|(n, c)| (n.as_str(), c.clone())).collect());
    let found = folder.read("b.parquet", "kind = \"book_delta\"\nformat = \"parquet\"").unwrap();
    assert_eq!(found.letters(), []);
    assert_eq!(found.rows("book_delta"), rows);
}

#[test]
fn a_factor_changes_when_rows_come_and_nothing_else() {
    let folder = Folder::new();
    // A million times as fast as recorded: hours pass in milliseconds, in as many chunks as it takes.
    let line = |second: i64, time: &str| {
        let time_of_trade = 1_700_000_000_000 + second * 1_000;
        format!("{time}{{\"e\":\"trade\",\"s\":\"BTCUSDT\",\"t\":1,\"p\":\"1\",\"q\":\"1\",\"T\":{time_of_trade},\"m\":true}}\n")
    };
    let text: String = (0..50).map(|s| line(s * 400, "")).collect::<String>() + "not a frame\n" + &line(21_000, "1700021000000000000 ");
    folder.put("f", &text);
    let paced = folder.read("f", &format!("{FRAMES}\npace = 1000000.0")).unwrap();
    let unlimited = folder.read("f", FRAMES).unwrap();
    assert_eq!(paced.frames(), unlimited.frames());
    // Every position is the place after the rows handed over.
    let mut frames = 0;
    for chunk in &paced.chunks {
        frames += chunk.batches[0].1.num_rows();
        assert_eq!(chunk.position.frame, frames as u64);
        let end: usize = text.split_inclusive('\n').take(frames).map(str::len).sum();
        assert_eq!(chunk.position.offset, end as u64);
    }
    assert_eq!(paced.last(), unlimited.last());
    folder.put("t.ndjson", format!("{ROW}\n{}\n{{}}\n", ROW.replace("15.342", "55.342")));
    let paced = folder.read("t.ndjson", &format!("{TRADES}\"ndjson\"\npace = 1e6")).unwrap();
    assert_eq!((paced.rows("trade").num_rows(), paced.letters().len(), paced.last().frame), (2, 1, 3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_compression_gives_the_same_frames(lines in prop::collection::vec("([0-9]{1,19} )?[a-z{}\\[\\]]{0,30}\r?", 0..60), cut in any::<prop::sample::Index>()) {
        let text = lines.join("\n").into_bytes();
        let (one, two) = text.split_at(cut.index(text.len() + 1));
        let folder = Folder::new();
        folder.put("plain", &text).put("members", [gzip(one), gzip(two)].concat());
        folder.put("frames", [zstd::encode_all(one, 1).unwrap(), zstd::encode_all(two, 1).unwrap()].concat());
        let [plain, members, frames] = ["plain", "members", "frames"].map(|name| folder.read(name, FRAMES).unwrap().frames());
        prop_assert_eq!(&members, &plain);
        prop_assert_eq!(&frames, &plain);
        let expected: Vec<&str> = lines.iter().map(|l| l.trim_ascii()).filter(|l| !l.is_empty()).collect();
        prop_assert_eq!(plain.len(), expected.len());
        for ((time, _, frame), line) in plain.iter().zip(expected) {
            match time {
                None => prop_assert_eq!(frame, line),
                Some(time) => {
                    let (nanos, rest) = line.split_once(' ').unwrap();
                    prop_assert_eq!((nanos.parse::<i64>().unwrap() / 1_000, rest), (*time, frame.as_str()));
                }
            }
        }
    }
}

#[test]
fn recordings_are_read_whole() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/recordings/binance/spot"));
    if !folder.exists() {
        return crate::dialect::testing::skip("binance/spot");
    }
    let options = format!("path = {:?}\n{FRAMES}\nsymbol = \"BTCUSDT\"", folder.join("*.gz").display().to_string());
    let found = Found::of(source(&options).unwrap().as_ref()).unwrap();
    let rows = found.rows("frame");
    let frames = FrameRows::of(&rows).unwrap();
    assert_eq!((rows.num_rows(), frames.receive_time.null_count()), (99_574, 0));
    assert_eq!((frames.receive_time.value(0), frames.receive_time.value(99_573)), (1_723_161_253_937_085, 1_723_161_904_535_092));
    assert_eq!(found.last().frame, 99_574);
    assert!(found.errors().is_empty() && found.letters().is_empty());
    let payloads: &BinaryArray = frames.payload;
    assert!(payloads.iter().flatten().all(|p| p.starts_with(b"{") && p.ends_with(b"}")));
    assert_eq!(payloads.data_type(), &DataType::Binary);
    assert_eq!([0, 1].map(|label| rows.column(label).as_dictionary::<Int32Type>().values().len()), [1, 1]);
}

/// Pace makes many small chunks, so positions lie nearly everywhere; without it others are cut.
#[test]
fn going_on_anywhere_gives_the_rest_once() {
    let folder = Folder::new();
    let trade = |id: u32| {
        let price = if id % 7 == 3 { "\"none\"".to_owned() } else { format!("\"{id}\"") };
        let time = 1_000 * id;
        format!(
            "{{\"venue\":\"v\",\"market\":\"spot\",\"symbol\":\"A-B\",\"event_time\":{time},\"trade_id\":\"{id}\",\"price\":{price},\"quantity\":\"1\",\"side\":\"buy\",\"fills\":1}}\n"
        )
    };
    let csv =
        |id: u32| format!("v,spot,A-B,{},{id},{},1,buy,1\n", 1_000 * id, if id % 7 == 3 { "none".to_owned() } else { id.to_string() });
    let lines = |ids: std::ops::Range<u32>| ids.map(trade).collect::<String>();
    let frames = |ids: std::ops::Range<u32>| {
        ids.map(|id| if id % 5 == 2 { "bare\n\n".into() } else { format!("{id}0000 {{}}\n") }).collect::<String>()
    };
    folder.put("a.ndjson", lines(0..40)).put("b.ndjson", gzip(lines(40..90).as_bytes()));
    folder.put(
        "a.csv",
        format!("venue,market,symbol,event_time,trade_id,price,quantity,side,fills\n{}", (0..60).map(csv).collect::<String>()),
    );
    folder.put("a.frames", frames(0..50)).put("b.frames", &gzip(frames(50..9_000).as_bytes())[..9_000]).put("c.frames", frames(0..30));
    let stored = folder.read("*.ndjson", &format!("{TRADES}\"ndjson\"")).unwrap().rows("trade");
    let prices: ArrayRef = Arc::new(StringArray::from_iter((0..stored.num_rows()).map(|row| (row % 7 != 3).then(|| row.to_string()))));
    let columns = ["venue", "market", "symbol", "event_time", "trade_id", "quantity", "side", "fills"]
        .map(|name| (name, stored.column_by_name(name).unwrap().clone()));
    parquet(&folder.path("a.parquet"), columns.into_iter().chain([("price", prices)]).collect());

    let records = |format: &str| format!("{TRADES}\"{format}\"");
    for (pattern, kind, options) in [
        ("*.ndjson", "trade", records("ndjson")),
        ("*.csv", "trade", records("csv")),
        ("*.parquet", "trade", records("parquet")),
        ("*.frames", "frame", format!("{FRAMES}\nreceive_time = \"nanoseconds_prefix\"")),
    ] {
        let path = folder.path(pattern).display().to_string();
        let fast = source(&format!("path = {path:?}\n{options}")).unwrap();
        let paced = source(&format!("path = {path:?}\n{options}\npace = 1.0")).unwrap();
        let whole = Found::of(paced.as_ref()).unwrap();
        let (rows, letters, ends) = (whole.rows(kind), whole.letters(), whole.positions());
        // How many there are depends on the clock.
        assert!(ends.len() > 1 && !letters.is_empty(), "{pattern}: {} chunks, {} dead letters", ends.len(), letters.len());
        let step = ends.len().div_ceil(40);
        for (at, from) in ends.iter().enumerate().step_by(step) {
            for (how, source) in [("fast", &fast), ("paced", &paced)] {
                let stops: Vec<Position> = ends[at + 1..].iter().step_by(step).cloned().collect();
                let rest = Found::from(source.as_ref(), Some(from), &stops).unwrap();
                let before: usize =
                    whole.chunks[..=at].iter().flat_map(|c| &c.batches).filter(|(k, _)| k.name == kind).map(|(_, r)| r.num_rows()).sum();
                assert_eq!(rest.rows(kind), rows.slice(before, rows.num_rows() - before), "{how} {pattern} from {from:?}");
                let refused = letters.partition_point(|letter| letter.1 as u64 <= from.frame);
                assert_eq!(rest.letters(), letters[refused..], "{how} {pattern} from {from:?}");
            }
        }
    }
}

#[test]
fn a_file_that_is_gone_another_one_or_shorter_is_a_named_error() {
    let folder = Folder::new();
    let long = noise(2_000);
    folder.put("a", "{1}\n").put("b", &long).put("c", "{3}\n");
    let path = folder.path("*").display().to_string();
    let source = source(&format!("path = {path:?}\n{FRAMES}")).unwrap();
    let ends = Found::of(source.as_ref()).unwrap().positions();
    let from = ends.iter().rfind(|end| end.part.ends_with('b')).unwrap();
    let what = || Found::from(source.as_ref(), Some(from), &[]).unwrap_err();
    let frames = |found: Found| found.payloads();

    assert_eq!(frames(Found::from(source.as_ref(), Some(from), &[]).unwrap()), ["{3}"]);
    folder.put("b", [&long, &b"{more}\n"[..]].concat());
    assert_eq!(frames(Found::from(source.as_ref(), Some(from), &[]).unwrap()), ["{more}", "{3}"], "a file may grow");
    folder.put("b", &long[..long.len() - 1]);
    assert!(what().what.contains("fewer than") && what().remedy.contains("--fresh"), "{}", what());
    folder.put("b", [b"{other}\n", long.as_slice()].concat());
    assert!(what().what.contains("another file than before") && what().remedy.contains("--fresh"), "{}", what());
    fs::remove_file(folder.path("b")).unwrap();
    assert!(what().what.contains("not among the files any more") && what().remedy.contains("--fresh"), "{}", what());
    assert!(what().place.ends_with('b'));
}
