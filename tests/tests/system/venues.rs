//! What venues sent in thirty seconds, through the whole program: the counts of another reader, and books that are never lost.

use std::io::{Read, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use tests::program::{marketprism, recordings, rows};

/// A venue's recording, and what another reader made of it.
struct Recorded {
    dialect: &'static str,
    files: &'static [&'static str],
    /// Changes and snapshots of books, best bids and asks, trades.
    counts: [u64; 3],
    /// Books, each of which goes from a snapshot into its changes.
    books: u64,
}

const COINBASE: Recorded = Recorded { dialect: "coinbase_exchange", files: &["COINBASE.ws.28.0.gz"], counts: [9_729, 107, 107], books: 10 };
const KRAKEN: Recorded = Recorded {
    dialect: "kraken",
    files: &["KRAKEN.ws.48.0.gz", "KRAKEN.ws.49.0.gz", "KRAKEN.ws.50.0.gz"],
    counts: [4_279, 18, 10],
    books: 10,
};

const OKX: Recorded = Recorded { dialect: "okx", files: &["OKX.ws.1.0.gz"], counts: [290, 28, 74], books: 3 };

/// Writes what the sockets of recordings received as lines `NANOSECONDS FRAME`, but for the frame of this number among those that
/// hold a text.
fn write_frames(folder: &Path, files: &[&str], lost: Option<(&str, usize)>, out: &Path) {
    let mut held = 0;
    let mut out = std::io::BufWriter::new(std::fs::File::create(out).unwrap());
    for file in files {
        let mut text = String::new();
        MultiGzDecoder::new(std::fs::File::open(folder.join(file)).unwrap()).read_to_string(&mut text).unwrap();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("wss:")) {
            let (seconds, frame) = line.split_once(": ").unwrap();
            if lost.is_some_and(|(text, _)| frame.contains(text)) {
                held += 1;
            }
            if lost.is_some_and(|(text, number)| frame.contains(text) && held == number) {
                continue;
            }
            let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
            writeln!(out, "{whole}{fraction:0<9} {frame}").unwrap();
        }
    }
}

fn pipeline(dialect: &str, frames: &Path) -> String {
    format!(
        r#"
name = "recorded"

[sources.venue]
type = "file"
path = "{}"
dialect = "{dialect}"

[operators.records]
type = "normalise"
inputs = ["venue"]
kinds = ["trade", "quote", "book_delta", "book_snapshot"]

[operators.books]
type = "book"
inputs = ["records"]

[sinks.cold]
type = "parquet"
inputs = ["records", "books"]
"#,
        frames.display()
    )
}

/// Runs a recording; the folder whose folder `data` has the tables.
fn run(recorded: &Recorded, recordings: &Path, lost: Option<(&str, usize)>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let [frames, file, data] = ["frames.ndjson", "pipeline.toml", "data"].map(|name| folder.path().join(name));
    write_frames(&recordings.join("thirty_seconds"), recorded.files, lost, &frames);
    std::fs::write(&file, pipeline(recorded.dialect, &frames)).unwrap();
    let summary = marketprism(["run", file.to_str().unwrap(), "--workers", "2", "--data", data.to_str().unwrap()]).expect_success();
    assert!(summary.contains("the books balance"), "{summary}");
    folder
}

#[test]
fn recordings_give_what_another_reader_counts_and_books_that_are_never_lost() {
    let Some(recordings) = recordings("recordings_give_what_another_reader_counts") else { return };
    for recorded in [COINBASE, KRAKEN, OKX] {
        let folder = run(&recorded, &recordings, None);
        let (data, Recorded { dialect, counts, books, .. }) = (folder.path().join("data"), recorded);
        let one = |query: &str| rows(&data, query)[0]["n"].as_u64().unwrap();
        let refused = rows(&data, "SELECT reason, detail FROM dead_letters LIMIT 3");
        assert!(refused.is_empty(), "{dialect}: {refused:?}");
        let of_books = "SELECT (SELECT count(*) FROM book_deltas) + (SELECT count(*) FROM book_snapshots) AS n";
        let found = [of_books, "SELECT count(*) AS n FROM quotes", "SELECT count(*) AS n FROM trades"].map(one);
        assert_eq!(found, counts, "{dialect}: books, quotes, trades");
        let events = rows(&data, "SELECT event, count(*) AS n FROM book_events GROUP BY event");
        let event = |wanted: &str| events.iter().find(|e| e["event"] == wanted).map_or(0, |e| e["n"].as_u64().unwrap());
        assert_eq!((event("snapshot"), event("live")), (books, books), "{dialect}: {events:?}");
        assert_eq!(["gap", "checksum", "mismatch"].map(event), [0; 3], "{dialect}: {events:?}");
    }
}

#[test]
fn a_change_that_is_lost_is_told_by_the_next_checksum() {
    let Some(recordings) = recordings("a_change_that_is_lost") else { return };
    for (recorded, change) in [(KRAKEN, "\"c\":\""), (OKX, "\"action\":\"update\"")] {
        let folder = run(&recorded, &recordings, Some((change, 4)));
        let data = folder.path().join("data");
        let told = rows(&data, "SELECT symbol, frame FROM book_events WHERE event = 'checksum'");
        assert_eq!(told.len(), 1, "{}: {told:?}", recorded.dialect);
        let after = format!(
            "SELECT * FROM book_metrics WHERE symbol = {} AND frame >= {}",
            told[0]["symbol"].to_string().replace('"', "'"),
            told[0]["frame"]
        );
        let metrics = rows(&data, &after);
        assert!(metrics.is_empty(), "metrics of a book that is not the venue's: {:?}", metrics.first());
    }
}
