//! Live sources against a venue on loopback that plays a recording and misbehaves: whatever it does, the tables hold what it
//! said, once, books are those that the recording gives, and what was missed is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;
use tests::listener::{Listener, REST};
use tests::program::{Running, marketprism, recordings, rows, until};
use tests::venue::binance::Binance;
use tests::venue::{Acknowledges, Fault, NoAnswer, Script, Seen, Venue};

/// One of Binance's markets, as it was recorded.
struct Recorded {
    market: &'static str,
    dialect: &'static str,
    file: &'static str,
    symbol: &'static str,
    canonical: &'static str,
}

const SPOT: Recorded = Recorded {
    market: "spot",
    dialect: "binance_spot",
    file: "binance/spot/btcusdt_20240808.gz",
    symbol: "BTCUSDT",
    canonical: "BTC-USDT",
};
const COINM: Recorded = Recorded {
    market: "coinm",
    dialect: "binance_coinm",
    file: "binance/coinm/btcusd_perp_20240808.gz",
    symbol: "BTCUSD_PERP",
    canonical: "BTC-USD",
};

impl Recorded {
    fn read(&self, recordings: &Path) -> Binance {
        Binance::read(&recordings.join(self.file), self.symbol, self.market == "spot")
    }

    fn listener(&self, venue: &Venue, more: &str) -> Listener {
        Listener::new("binance", self.market, self.canonical, venue, more)
    }
}

/// What a run left, as rows by what identifies them. Times of receipt and numbers of frames are our own.
#[derive(Debug, Default, PartialEq)]
struct Tables {
    trades: Vec<String>,
    /// The state of the book by its update.
    books: BTreeMap<u64, String>,
    last_update: u64,
}

const TRADES: &str = "SELECT trade_id, event_time, price, quantity, contracts, side, fills FROM trades ORDER BY CAST(trade_id AS BIGINT)";
const BOOKS: &str = "SELECT sequence, event_time, bid_price, bid_quantity, ask_price, ask_quantity, bid_depth, ask_depth, bid_levels, \
                     ask_levels, bid_total, ask_total FROM book_metrics";

fn tables(data: &Path) -> Tables {
    let updates = rows(data, "SELECT max(last_sequence) AS n FROM book_deltas");
    let books = rows(data, BOOKS).into_iter().map(|row| (row["sequence"].as_u64().unwrap(), row.to_string()));
    Tables {
        trades: rows(data, TRADES).iter().map(Value::to_string).collect(),
        books: books.collect(),
        last_update: updates[0]["n"].as_u64().unwrap_or_default(),
    }
}

/// What the recording gives where nothing goes wrong: read as a file.
fn straight(recorded: &Recorded, venue: &Binance) -> Tables {
    let folder = tempfile::tempdir().unwrap();
    let [frames, file, data] = ["frames", "pipeline.toml", "data"].map(|name| folder.path().join(name));
    let mut text = String::new();
    let snapshot = venue.snapshot();
    for (number, frame) in std::iter::once(snapshot.as_str()).chain(venue.frames()).enumerate() {
        writeln!(text, "{} {frame}", 1_723_161_253_000_000_000 + number as u64 * 1_000_000).unwrap();
    }
    std::fs::write(&frames, text).unwrap();
    let pipeline = format!(
        "name = \"straight\"\n[sources.venue]\ntype = \"file\"\npath = \"{}\"\ndialect = \"{}\"\nsymbol = \"{}\"\n{REST}",
        frames.display(),
        recorded.dialect,
        recorded.symbol
    );
    std::fs::write(&file, pipeline).unwrap();
    marketprism(["run", file.to_str().unwrap(), "--data", data.to_str().unwrap()]).expect_success();
    tables(&data)
}

/// Whether everything that the venue said has come, and the book with it.
fn is_complete(listener: &Listener, expected: &Tables) -> bool {
    if !listener.has("book_metrics") || !listener.has("trades") {
        return false;
    }
    let found = rows(
        &listener.data(),
        "SELECT (SELECT count(DISTINCT trade_id) FROM trades) AS trades, (SELECT max(sequence) FROM book_metrics) AS book",
    );
    found[0]["trades"].as_u64() == Some(expected.trades.len() as u64) && found[0]["book"].as_u64() == Some(expected.last_update)
}

/// Waits until it has everything, ends it and holds its tables against what they should be.
fn compare(listener: &Listener, mut run: Running, expected: &Tables) {
    until("everything that the venue said", || {
        assert!(run.ended().is_none(), "{}", listener.log());
        is_complete(listener, expected).then_some(())
    });
    assert_eq!(run.terminate(), Some(0), "{}", listener.log());
    let found = tables(&listener.data());
    let difference = found.trades.iter().zip(&expected.trades).find(|(found, expected)| found != expected);
    assert!(found.trades == expected.trades, "{} trades of {}: {difference:?}", found.trades.len(), expected.trades.len());
    for (sequence, book) in &found.books {
        assert_eq!(Some(book), expected.books.get(sequence), "the book at update {sequence}");
    }
    let odd = rows(&listener.data(), "SELECT event, detail FROM book_events WHERE event IN ('mismatch', 'crossed')");
    assert!(odd.is_empty(), "{odd:?}");
}

/// Plays a recording with these faults to a pipeline, and holds what it stored against the recording.
fn misbehave(test: &str, recorded: &Recorded, script: Script, more: &str) -> Option<(Listener, Seen)> {
    let recordings = recordings(test)?;
    let speaks = recorded.read(&recordings);
    let expected = straight(recorded, &speaks);
    assert!(expected.trades.len() > 1_000 && expected.books.len() > 1_000, "there is something to compare");
    let faults = script.faults.len();
    let venue = Venue::open(Box::new(speaks), script);
    let listener = recorded.listener(&venue, more);
    let run = listener.start();
    compare(&listener, run, &expected);
    let seen = venue.seen();
    assert!(seen.over && seen.faults == faults, "{faults} faults: {seen:?}\n{}", listener.log());
    Some((listener, seen))
}

fn at(faults: impl IntoIterator<Item = (usize, Fault)>) -> Script {
    Script { faults: faults.into_iter().collect(), ..Script::default() }
}

#[test]
fn a_venue_that_behaves_is_heard_whole() {
    let test = "a_venue_that_behaves_is_heard_whole";
    for recorded in [&SPOT, &COINM] {
        let Some((listener, seen)) = misbehave(test, recorded, Script::default(), "") else { return };
        assert_eq!((seen.connections, listener.gaps()), (1, 0), "{seen:?}");
        assert!(listener.refused().is_empty(), "{:?}", listener.refused());
    }
}

#[test]
fn frames_that_are_lost_doubled_reordered_or_late_leave_no_trace_in_the_tables() {
    let test = "frames_that_are_lost_doubled_reordered_or_late_leave_no_trace_in_the_tables";
    let faults = (2_000..38_000).step_by(1_501).enumerate().map(|(i, at)| {
        let fault = [Fault::Lose, Fault::Duplicate, Fault::Reorder, Fault::Delay(Duration::from_millis(150))][i % 4];
        (at, fault)
    });
    for recorded in [&SPOT, &COINM] {
        let Some((listener, seen)) = misbehave(test, recorded, at(faults.clone()), "") else { return };
        assert_eq!(seen.connections, 1, "no connection had to end for that");
        let told = listener.words("gaps", "event");
        assert!(told.contains("found") && !told.contains("lost"), "{told:?}");
        assert!(listener.refused().is_empty(), "{:?}", listener.refused());
    }
}

#[test]
fn connections_that_end_in_any_way_are_opened_again() {
    let test = "connections_that_end_in_any_way_are_opened_again";
    let faults = [Fault::Close, Fault::Reset, Fault::HalfClose, Fault::Mute, Fault::Noise, Fault::Oversize, Fault::Partial];
    let script = at(faults.into_iter().enumerate().map(|(i, fault)| (1_000 + i * 5_600, fault)));
    let Some((listener, seen)) = misbehave(test, &SPOT, script, "silence = \"1s\"") else { return };
    assert!(seen.connections >= 8 && seen.most == 1, "an old one is closed before another is opened: {seen:?}\n{}", listener.log());
    assert!(listener.refused().is_empty(), "{:?}", listener.refused());
}

#[test]
fn garbage_is_a_dead_letter_and_nothing_else() {
    let script = at([(5_000, Fault::Garbage), (5_001, Fault::Garbage)]);
    let Some((listener, seen)) = misbehave("garbage_is_a_dead_letter_and_nothing_else", &SPOT, script, "") else { return };
    assert_eq!(seen.connections, 1);
    assert_eq!(listener.refused(), BTreeSet::from(["malformed".to_owned()]));
}

#[test]
fn a_venue_that_refuses_is_not_asked_before_it_says_so() {
    let answers = [
        NoAnswer::TooMany(StatusCode::TOO_MANY_REQUESTS, Duration::from_secs(1)),
        NoAnswer::Broken,
        NoAnswer::Stale,
        NoAnswer::TooMany(StatusCode::IM_A_TEAPOT, Duration::from_secs(2)),
        NoAnswer::Stale,
    ];
    let script = Script { answers: answers.into(), ..Script::default() };
    let Some((_, seen)) = misbehave("a_venue_that_refuses_is_not_asked_before_it_says_so", &SPOT, script, "") else { return };
    assert_eq!(seen.closed.len(), 2, "{seen:?}");
    for (from, until) in &seen.closed {
        let early = seen.requests.iter().find(|(at, _)| from < at && at < until);
        assert_eq!(early, None, "it had said to wait");
    }
}

#[test]
fn acknowledgements_may_be_late_and_must_come() {
    let acknowledges = [Acknowledges::Never, Acknowledges::Late(Duration::from_millis(700))];
    let script = Script { acknowledges: acknowledges.into(), ..Script::default() };
    let Some((listener, seen)) = misbehave("acknowledgements_may_be_late_and_must_come", &SPOT, script, "acknowledge_timeout = \"2s\"")
    else {
        return;
    };
    assert!(seen.connections >= 2, "{seen:?}\n{}", listener.log());
    assert!(listener.log().contains("was not acknowledged"), "{}", listener.log());
}

#[test]
fn a_connection_takes_the_place_of_an_old_one_without_a_seam() {
    let test = "a_connection_takes_the_place_of_an_old_one_without_a_seam";
    let script = Script { pace: 2, ..Script::default() };
    let Some((listener, seen)) = misbehave(test, &SPOT, script, "lifetime = \"2s\"") else { return };
    assert!(seen.connections >= 3 && seen.most == 2, "{seen:?}\n{}", listener.log());
    assert_eq!(listener.gaps(), 0, "nothing is missed, and nothing asked for again");
    let asked = seen.requests.iter().filter(|(_, request)| request.contains("/depth")).count();
    assert_eq!(asked, 1, "{seen:?}");
}

/// Killed at any moment, it goes on with what it had heard.
#[test]
fn what_was_heard_survives_a_kill() {
    let Some(recordings) = recordings("what_was_heard_survives_a_kill") else { return };
    let speaks = SPOT.read(&recordings);
    let expected = straight(&SPOT, &speaks);
    let venue = Venue::open(Box::new(speaks), Script { pace: 2, ..Script::default() });
    let listener = SPOT.listener(&venue, "");
    listener.kill(&venue, 5);
    compare(&listener, listener.start(), &expected);
    let doubled = rows(&listener.data(), "SELECT trade_id FROM trades GROUP BY trade_id HAVING count(*) > 1 LIMIT 3");
    assert!(doubled.is_empty(), "{doubled:?}");
}
