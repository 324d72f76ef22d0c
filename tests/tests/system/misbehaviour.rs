//! Every venue's live source against a venue on loopback that speaks its protocol, plays a market made up and misbehaves:
//! whatever it does, the tables hold the market's trades, once, and books that the market had.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;
use tests::listener::{Listener, REST};
use tests::program::{Running, finish, program, root, rows, until};
use tests::venue::binance_options::BinanceOptions;
use tests::venue::bybit::Bybit;
use tests::venue::coinbase::Coinbase;
use tests::venue::deribit::Deribit;
use tests::venue::kraken::{Kraken, KrakenFutures};
use tests::venue::market::{BOOK, Happening, Market, TRADE};
use tests::venue::okx::Okx;
use tests::venue::{Acknowledges, Fault, NoAnswer, Script, Seen, Speaks, Venue};

/// A venue's market.
struct Case {
    /// The type of the source.
    source: &'static str,
    market: &'static str,
    symbol: &'static str,
    /// The venue that plays a market.
    speaks: fn(Market) -> Box<dyn Speaks>,
    /// The venue's identifier of a trade of the market.
    trade_id: fn(u64) -> String,
    /// Whether trades are numbered, so that one that is lost is noticed while the connection holds.
    numbered: bool,
    /// Whether books are: a checksum is of the best levels, and tells only of a change of these that it was lost.
    numbered_books: bool,
    /// The most levels that a change has.
    levels: usize,
    /// Further options: pauses that a real venue asks for are not waited for here.
    more: &'static str,
}

impl Case {
    /// How many connections it takes to hear all of an instrument.
    fn connections(&self) -> usize {
        (self.speaks)(Market::new(0, 1)).connections()
    }

    /// A market for this venue.
    fn market(&self, seed: u64) -> Market {
        Market::made_of(self.levels, (self.speaks)(Market::new(0, 1)).one_in(), seed, COUNT)
    }
}

/// Things that happen.
const COUNT: usize = 12_000;

/// What is in a row, numbers without trailing zeros.
fn words(row: &Value, columns: &str) -> String {
    let word = |column: &str| match &row[column] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let trimmed = |word: String| match word.parse::<f64>() {
        Ok(_) if word.contains('.') => word.trim_end_matches('0').trim_end_matches('.').to_owned(),
        _ => word,
    };
    columns.split(", ").map(|column| trimmed(word(column))).collect::<Vec<_>>().join(" ")
}

/// What should be stored of a market.
struct Expected {
    trades: BTreeMap<String, String>,
    books: BTreeMap<u64, String>,
}

impl Expected {
    fn of(case: &Case, market: &Market) -> Expected {
        let trades = market.trades().into_iter().map(|(number, row)| ((case.trade_id)(number), row)).collect();
        Expected { trades, books: market.books() }
    }

    fn end(&self) -> u64 {
        *self.books.last_key_value().expect("there are books").0
    }

    /// Whether everything has come, and the book with it.
    fn is_there(&self, listener: &Listener) -> bool {
        if !listener.has("book_metrics") || !listener.has("trades") {
            return false;
        }
        let end = self.end() * 1_000;
        let found = rows(
            &listener.data(),
            &format!(
                "SELECT (SELECT count(DISTINCT trade_id) FROM trades) AS trades, \
                 (SELECT count(*) FROM book_metrics WHERE CAST(event_time AS BIGINT) = {end}) AS book"
            ),
        );
        found[0]["trades"].as_u64() == Some(self.trades.len() as u64) && found[0]["book"].as_u64() > Some(0)
    }

    /// Waits until everything is there, ends the run, which should say `exit`, and holds its tables against what they should be.
    fn compare(&self, listener: &Listener, mut run: Running, exit: i32) {
        until("everything that the venue said", || {
            assert!(run.ended().is_none(), "{}", listener.log());
            self.is_there(listener).then_some(())
        });
        assert_eq!(run.terminate(), Some(exit), "{}", listener.log());
        let mut trades = BTreeMap::new();
        for row in rows(&listener.data(), &format!("SELECT trade_id, {TRADE} FROM trades")) {
            let id = row["trade_id"].as_str().expect("a text").to_owned();
            assert!(trades.insert(id, words(&row, TRADE)).is_none(), "twice: {row}");
        }
        let difference = trades.iter().zip(&self.trades).find(|(found, expected)| found != expected);
        assert!(trades == self.trades, "{} trades of {}: {difference:?}", trades.len(), self.trades.len());
        let mut books = 0;
        for row in rows(&listener.data(), &format!("SELECT CAST(event_time AS BIGINT) / 1000 AS time, {BOOK} FROM book_metrics")) {
            let time = row["time"].as_u64().expect("a time");
            // A snapshot that carries no time has that of its receipt.
            if time <= self.end() {
                assert_eq!(Some(&words(&row, BOOK)), self.books.get(&time), "the book at {time}\n{}", listener.log());
                books += 1;
            }
        }
        assert!(books > 1_000, "there is something to compare");
        let odd = rows(&listener.data(), "SELECT event, detail FROM book_events WHERE event IN ('mismatch', 'crossed')");
        assert!(odd.is_empty(), "{odd:?}");
    }
}

/// Plays a market with these faults to a pipeline, and holds what it stored against the market.
fn misbehave(case: &Case, market: Market, script: Script, more: &str) -> (Listener, Seen) {
    misbehave_and_exit(case, market, script, more, 0)
}

/// The same for a run that ends with this status.
fn misbehave_and_exit(case: &Case, market: Market, script: Script, more: &str, exit: i32) -> (Listener, Seen) {
    let expected = Expected::of(case, &market);
    let faults = script.faults.len();
    let venue = Venue::open((case.speaks)(market), script);
    let listener = Listener::new(case.source, case.market, case.symbol, &venue, &format!("{}\n{more}", case.more));
    let run = listener.start();
    expected.compare(&listener, run, exit);
    let seen = venue.seen();
    assert!(seen.over && seen.faults == faults, "{faults} faults: {seen:?}\n{}", listener.log());
    (listener, seen)
}

/// Faults at every so manyth thing that happens, of those that this venue's protocol lets a client notice.
fn faults(case: &Case, market: &Market, kinds: &[Fault], step: usize) -> Script {
    let places = (step..COUNT - step).step_by(step).enumerate().map(|(i, from)| {
        // Each kind happens to trades and to changes.
        let trade = case.numbered && (!case.numbered_books || (i / kinds.len()).is_multiple_of(2));
        let is_it = |at: &usize| matches!(market.happenings[*at], Happening::Trade(_)) == trade;
        let at = (from..from + step / 2).find(is_it).expect("both happen all the time");
        (at, kinds[i % kinds.len()])
    });
    Script { faults: places.collect(), ..Script::default() }
}

/// A venue that behaves is heard whole.
fn behaves(case: &Case) {
    let (listener, seen) = misbehave(case, case.market(1), Script::default(), "");
    assert_eq!((seen.connections, listener.gaps()), (case.connections(), 0), "{seen:?}\n{}", listener.log());
    assert!(listener.refused().is_empty(), "{:?}", listener.refused());
    assert_eq!(listener.words("gaps", "event"), BTreeSet::new());
}

/// Frames that are lost, doubled, reordered or late leave no trace in the tables.
fn frames_go_astray(case: &Case) {
    let market = case.market(2);
    let kinds = [Fault::Lose, Fault::Duplicate, Fault::Reorder, Fault::Delay(Duration::from_millis(150))];
    // A book that begins anew takes its time, and others are to have changes in between.
    let script = Script { pace: 2, ..faults(case, &market, &kinds, 701) };
    let (listener, _) = misbehave(case, market, script, "");
    assert!(listener.refused().is_empty(), "{:?}", listener.refused());
    if case.numbered {
        assert_eq!(listener.words("trades", "backfilled"), ["false", "true"].map(str::to_owned).into(), "what fills a gap is marked");
    }
    let told = listener.words("gaps", "event");
    assert!(told.contains("found") && !told.contains("lost"), "{told:?}");
    if case.numbered_books {
        assert!(listener.gaps() > 0, "the book says where it lacked a change");
    }
}

/// Connections that end in any way are opened again, and what was missed meanwhile is got.
fn connections_end(case: &Case) {
    let market = case.market(3);
    let kinds = [Fault::Close, Fault::Reset, Fault::HalfClose, Fault::Mute, Fault::Noise, Fault::Oversize, Fault::Partial];
    let places = (0..kinds.len()).map(|i| 500 + i * 1_600);
    // Slowly enough for a connection to be up before the next fault, and for a venue to have what was missed.
    let script = Script { faults: places.zip(kinds).collect(), pace: 1, ..Script::default() };
    let (listener, seen) = misbehave(case, market, script, "silence = \"1s\"");
    let opened = kinds.len() + case.connections();
    assert!(
        seen.connections >= opened && seen.most == case.connections(),
        "an old one is closed before another is opened: {seen:?}\n{}",
        listener.log()
    );
    assert!(listener.refused().is_empty(), "{:?}", listener.refused());
}

/// Garbage is a dead letter and nothing else.
fn sends_garbage(case: &Case) {
    let script = Script { faults: [(3_000, Fault::Garbage), (3_001, Fault::Garbage)].into(), ..Script::default() };
    let (listener, seen) = misbehave(case, case.market(4), script, "");
    assert_eq!(seen.connections, case.connections());
    assert_eq!(listener.refused(), ["malformed".to_owned()].into());
}

/// A venue that refuses to answer is asked again, and not before it says so.
fn refuses(case: &Case) {
    let market = case.market(6);
    let answers = [
        NoAnswer::TooMany(StatusCode::TOO_MANY_REQUESTS, Duration::from_secs(1)),
        NoAnswer::Broken,
        NoAnswer::TooMany(StatusCode::IM_A_TEAPOT, Duration::from_secs(2)),
    ];
    let mut script = faults(case, &market, &[Fault::Lose], 2_003);
    // Where a book begins with an answer, it begins when there is one.
    script.pace = 2;
    script.faults.insert(9_000, Fault::Close);
    script.answers = answers.into();
    let (_, seen) = misbehave(case, market, script, "");
    assert_eq!(seen.closed.len(), 2, "{seen:?}");
    for (from, until) in &seen.closed {
        let early = seen.requests.iter().find(|(at, _)| from < at && at < until);
        assert_eq!(early, None, "it had said to wait");
    }
}

/// Acknowledgements may be late and must come.
fn acknowledges(case: &Case) {
    let acknowledges = [Acknowledges::Never, Acknowledges::Late(Duration::from_millis(700))];
    let script = Script { acknowledges: acknowledges.into(), ..Script::default() };
    let (listener, seen) = misbehave(case, case.market(7), script, "acknowledge_timeout = \"2s\"");
    assert!(seen.connections > case.connections(), "{seen:?}\n{}", listener.log());
    assert!(listener.log().contains("was not acknowledged"), "{}", listener.log());
}

/// A connection takes the place of an old one without a seam.
fn replaces_connections(case: &Case) {
    let (listener, seen) = misbehave(case, case.market(8), Script { pace: 1, ..Script::default() }, "lifetime = \"2s\"");
    let (one, two) = (case.connections(), 2 * case.connections());
    assert!(seen.connections >= two && seen.most > one && seen.most <= two, "{seen:?}\n{}", listener.log());
    assert_eq!(listener.gaps(), 0, "nothing is missed");
    assert_eq!(listener.words("gaps", "event"), BTreeSet::new());
}

/// Killed at any moment, it goes on with what it had heard.
fn is_killed(case: &Case) {
    let market = case.market(9);
    let expected = Expected::of(case, &market);
    let venue = Venue::open((case.speaks)(market), Script { pace: 1, ..Script::default() });
    let listener = Listener::new(case.source, case.market, case.symbol, &venue, case.more);
    listener.kill(&venue, 4);
    expected.compare(&listener, listener.start(), 0);
}

/// A book whose checksum is another's is begun anew, and nothing of the other is stored.
fn sends_another_checksum(case: &Case) {
    let market = case.market(10);
    let is_change = |at: &usize| matches!(market.happenings[*at], Happening::Change(_));
    let places = (1_000..COUNT - 1_000).step_by(1_500).map(|from| (from..).find(is_change).expect("it changes all the time"));
    let script = Script { faults: places.map(|at| (at, Fault::Forge)).collect(), pace: 1, ..Script::default() };
    let (faults, (listener, seen)) = (script.faults.len(), misbehave(case, market, script, ""));
    assert_eq!(seen.connections, case.connections(), "{seen:?}\n{}", listener.log());
    assert!(listener.refused().is_empty(), "{:?}", listener.refused());
    let told = |table: &str, event: &str| {
        let found = rows(&listener.data(), &format!("SELECT count(*) AS n FROM {table} WHERE event = '{event}'"));
        found[0]["n"].as_u64().expect("a count") as usize
    };
    assert_eq!((told("book_events", "checksum"), told("gaps", "found")), (faults, faults), "{}", listener.log());
}

macro_rules! venues {
    ($($name:ident $(+ $more:ident)*: $case:expr;)*) => { $(
        mod $name {
            use super::*;

            pub(super) const CASE: Case = $case;

            venues!(@ behaves frames_go_astray connections_end sends_garbage refuses acknowledges replaces_connections is_killed $($more)*);
        }
    )* };
    (@ $($test:ident)*) => { $(
        #[test]
        fn $test() {
            super::$test(&CASE);
        }
    )* };
}

venues! {
    okx: Case {
        source: "okx",
        market: "spot",
        symbol: "BTC-USDT",
        speaks: |market| Box::new(Okx::new(market)),
        trade_id: |number| number.to_string(),
        numbered: true,
        numbered_books: true,
        levels: usize::MAX,
        more: "connect_pause = \"10ms\"",
    };
    bybit: Case {
        source: "bybit",
        market: "linear",
        symbol: "BTC-USDT",
        speaks: |market| Box::new(Bybit::new(market)),
        trade_id: Bybit::trade_id,
        numbered: false,
        numbered_books: true,
        levels: usize::MAX,
        more: "connect_pause = \"10ms\"",
    };
    kraken + sends_another_checksum: Case {
        source: "kraken",
        market: "spot",
        symbol: "BTC-USD",
        speaks: |market| Box::new(Kraken::new(market)),
        trade_id: |number| number.to_string(),
        numbered: true,
        numbered_books: false,
        levels: usize::MAX,
        more: "connect_pause = \"10ms\"",
    };
    kraken_futures: Case {
        source: "kraken",
        market: "futures",
        symbol: "BTC-USD",
        speaks: |market| Box::new(KrakenFutures::new(market)),
        trade_id: KrakenFutures::trade_id,
        numbered: true,
        numbered_books: true,
        levels: 1,
        more: "connect_pause = \"10ms\"",
    };
    deribit: Case {
        source: "deribit",
        market: "future",
        symbol: "BTC-USDC",
        speaks: |market| Box::new(Deribit::new(market)),
        trade_id: Deribit::trade_id,
        numbered: true,
        numbered_books: true,
        levels: usize::MAX,
        more: "connect_pause = \"10ms\"",
    };
    coinbase: Case {
        source: "coinbase",
        market: "advanced",
        symbol: "BTC-USD",
        speaks: |market| Box::new(Coinbase::new(market)),
        trade_id: |number| number.to_string(),
        numbered: true,
        numbered_books: true,
        levels: usize::MAX,
        more: "connect_pause = \"10ms\"",
    };
    binance_options: Case {
        source: "binance",
        market: "options",
        symbol: "BTC-USDT-261225-60000-C",
        speaks: |market| Box::new(BinanceOptions::new(market)),
        trade_id: |number| number.to_string(),
        numbered: true,
        numbered_books: true,
        levels: usize::MAX,
        more: "connect_pause = \"10ms\"",
    };
}

/// OKX with the checksums that its books may carry.
mod okx_checksums {
    use super::*;

    const CASE: Case = Case { speaks: |market| Box::new(Okx::with_checksums(market)), ..okx::CASE };

    venues!(@ behaves sends_another_checksum);
}

/// Venues beside an instrument that they list and refuse.
mod dead_instruments {
    use super::*;

    const OKX: Case = Case { symbol: "*-USDT", speaks: |market| Box::new(Okx::beside_a_dead_one(market)), ..okx::CASE };
    const BYBIT: Case = Case { symbol: "*-USDT", speaks: |market| Box::new(Bybit::beside_a_dead_one(market)), ..bybit::CASE };
    const DERIBIT: Case = Case { symbol: "*-USDC", speaks: |market| Box::new(Deribit::beside_a_dead_one(market)), ..deribit::CASE };
    const LATE: Case = Case { speaks: |market| Box::new(Bybit::listed_late(market)), ..BYBIT };

    fn do_not_take_the_rest_with_them(case: &Case) {
        let script = Script { pace: 2, ..Script::default() };
        // It says at its end that not everything was heard that was wanted.
        let (listener, seen) = misbehave_and_exit(case, case.market(11), script, "acknowledge_timeout = \"1s\"", 1);
        assert_eq!(seen.connections, case.connections(), "{seen:?}\n{}", listener.log());
        assert!(listener.log().contains("it is not listened to over this connection"), "{}", listener.log());
    }

    /// OKX refuses each channel by itself.
    #[test]
    fn at_okx() {
        do_not_take_the_rest_with_them(&OKX);
    }

    /// Bybit refuses a request for what it has and what it has not as a whole.
    #[test]
    fn at_bybit() {
        do_not_take_the_rest_with_them(&BYBIT);
    }

    /// Deribit acknowledges what it has, and says nothing of the rest.
    #[test]
    fn at_deribit() {
        do_not_take_the_rest_with_them(&DERIBIT);
    }

    /// What is listed while the source runs is heard from its beginning, and every worker can decode it.
    #[test]
    fn what_is_listed_later_is_heard_whole() {
        let (listener, _) = misbehave_and_exit(&LATE, LATE.market(12), Script::default(), "listing_interval = \"500ms\"", 1);
        assert!(listener.log().contains("listens to what was not listed before"), "{}", listener.log());
        assert_eq!(listener.gaps(), 0);
        for table in ["trades", "book_deltas"] {
            assert_eq!(listener.words(table, "symbol"), ["XBT-USDT-PERP".to_owned()].into(), "the listing says what it is");
        }
    }
}

/// Trades and nothing else, into one file: a store takes memory of its own.
const TRADES: &str = r#"
[operators.records]
type = "normalise"
inputs = ["venue"]
kinds = ["trade"]

[sinks.file]
type = "file"
inputs = ["records"]
path = "DATA/{kind}.ndjson"
"#;

/// Connections that end a thousand times leave nothing behind: no socket, no task, no memory. And every trade is there, once.
#[test]
fn a_thousand_connections_leave_nothing_behind() {
    let market = Market::new(13, 100_000);
    let expected: BTreeSet<String> = market.trades().into_keys().map(|number| number.to_string()).collect();
    let ends = [Fault::Close, Fault::Reset, Fault::Noise, Fault::Partial];
    let faults: BTreeMap<usize, Fault> = (0..1_000).map(|i| (500 + i * 95, ends[i % ends.len()])).collect();
    let venue = Venue::open((okx::CASE.speaks)(market), Script { faults, pace: 1, ..Script::default() });
    let listener = Listener::before(TRADES, "okx", "spot", "BTC-USDT", &venue, okx::CASE.more);
    let mut run = listener.start();
    let mut after = |faults: usize| {
        until("connections that end", || {
            assert!(run.ended().is_none(), "{}", listener.log());
            (venue.seen().faults >= faults).then(|| run.uses())
        })
    };
    let (early, late) = (after(250), after(1_000));
    // What a file sink has not finished, it has not written whole: how much came is in the log.
    let all = format!("node=\"file\" received={}", expected.len());
    until("every trade", || listener.log().contains(&all).then_some(()));
    assert_eq!(run.terminate(), Some(0), "{}", listener.log());
    let text = std::fs::read_to_string(listener.data().join("trade.ndjson")).expect("it is finished");
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row"));
    let stored: Vec<String> = rows.map(|row| row["trade_id"].as_str().expect("a text").to_owned()).collect();
    assert!(stored.len() == expected.len() && stored.into_iter().collect::<BTreeSet<_>>() == expected, "each trade once");
    assert!(venue.seen().connections > 1_000);
    // Two connections may be on their way, and threads that wait for disks come and go.
    assert!(late.descriptors <= early.descriptors + 16 && late.threads <= early.threads + 16, "{early:?}, then {late:?}");
    assert!(late.memory < early.memory + (32 << 20), "{early:?}, then {late:?}");
}

/// What was heard live, with all that went wrong, replays to the same tables.
#[test]
fn a_capture_replays_to_what_was_decoded_live() {
    const CAPTURE: &str = "\n[sinks.capture]\ntype = \"parquet\"\ninputs = [\"venue\"]\ninterval = \"200ms\"\n";
    let case = &okx::CASE;
    let market = case.market(14);
    let mut script = faults(case, &market, &[Fault::Lose, Fault::Duplicate, Fault::Reorder, Fault::Garbage], 1_009);
    script.faults.extend([(4_100, Fault::Reset), (8_200, Fault::Close)]);
    let (live, seen) = misbehave(case, market, script, CAPTURE);

    let replay = tempfile::tempdir().expect("there is room");
    let (file, data) = (replay.path().join("replay.toml"), replay.path().join("data"));
    let table = live.data().join("cold");
    let pipeline = format!("name = \"replay\"\n[sources.venue]\ntype = \"frames\"\nurl = \"{}\"\n{REST}", table.display());
    std::fs::write(&file, pipeline).expect("there is room");
    finish(program().arg("run").arg(&file).arg("--data").arg(&data).current_dir(root())).expect_success();

    let rows_of = |data: &Path, table: &str| {
        // When a dead letter was refused is of the run and not of the market.
        let but = if table == "dead_letters" { "EXCEPT (rejected_time) " } else { "" };
        let mut rows: Vec<String> = rows(data, &format!("SELECT * {but}FROM {table}")).iter().map(Value::to_string).collect();
        rows.sort_unstable();
        rows
    };
    for table in ["trades", "book_deltas", "book_snapshots", "book_metrics", "book_events", "gaps", "instruments", "dead_letters"] {
        let (heard, replayed) = (rows_of(&live.data(), table), rows_of(&data, table));
        let difference = heard.iter().zip(&replayed).find(|(heard, replayed)| heard != replayed);
        assert!(heard == replayed && !heard.is_empty(), "{table}: {} and {} rows: {difference:?}", heard.len(), replayed.len());
    }
    let connections = rows(&live.data(), "SELECT count(DISTINCT connection) AS n FROM frames");
    assert_eq!(connections[0]["n"], seen.connections, "every frame of a channel says over which connection it came");
}
