//! Bars against a recomputation from all trades, and against themselves in other orders.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::kinds::{BAR, Trade, TradeBuilder};
use model::{Account, Batch, Decimal, Message, Origin, Progress};
use proptest::prelude::*;

use super::*;
use crate::{Advance, Keyed, Output};

/// A trade as the tests write it: symbol, event time in milliseconds, id, price and size in hundredths, bought.
type Row = (u8, i64, u64, i64, i64, bool);

fn batch(rows: &[Row], chunk: u64) -> Batch {
    let mut trades = TradeBuilder::default();
    for &(symbol, millis, id, price, quantity, bought) in rows {
        let hundredths = |n: i64| Decimal::from_units(i128::from(n) * 10_000_000_000);
        trades.push(Trade {
            venue: "binance",
            market: "spot",
            symbol: ["BTC-USDT", "ETH-USDT", "SOL-USDT"][usize::from(symbol) % 3],
            event_time: millis * 1_000,
            receive_time: None,
            frame: None,
            trade_id: &id.to_string(),
            price: hundredths(price),
            quantity: hundredths(quantity),
            contracts: None,
            side: if bought { "buy" } else { "sell" },
            fills: 1,
            backfilled: Some(false),
        });
    }
    Batch::new(&TRADE, trades.finish(), Origin { source: 0, chunk })
}

/// Both stages on one worker, driven by hand.
struct Bench {
    combiner: Combiner,
    merger: Merger,
    account: Arc<Account>,
    time: u64,
    watermark: Micros,
    /// The bars that are asserted, as text by key; an assertion of what is there, or a retraction of what is not, panics.
    bars: BTreeMap<String, String>,
    letters: usize,
}

impl Bench {
    fn new(windows: Windows) -> Self {
        let (combiner, merger) = (Combiner::new(windows.clone(), Late::DeadLetter), Merger::new(windows));
        Bench { combiner, merger, account: Arc::default(), time: 0, watermark: Micros::MIN, bars: BTreeMap::new(), letters: 0 }
    }

    fn advance(&mut self, batches: Vec<Batch>, watermark: Micros) {
        self.time += 1;
        let watermark = watermark.max(self.watermark);
        let advance = Advance { time: self.time, before: self.watermark, watermark, reached: watermark };
        self.watermark = advance.watermark;
        let mut out = Output::new("bars", self.account.clone());
        self.account.receive(batches.iter().map(Batch::len).sum());
        self.combiner.advance(&advance, batches, &mut out);
        let mut partials = Vec::new();
        for message in out.take() {
            match message {
                Message::Batch(batch) if batch.kind.name == DEAD_LETTER.name => self.letters += batch.len(),
                Message::Batch(batch) => partials.push(batch),
                Message::Progress(_) => {}
            }
        }
        self.merger.advance(&advance, partials, &mut out);
        for message in out.take() {
            if let Message::Batch(batch) = message {
                assert_eq!(batch.kind, BAR.clone());
                for row in 0..batch.len() {
                    let text = String::from_utf8(model::json::row_json(&batch.rows, row)).unwrap();
                    let key = text.split("\"open\"").next().unwrap().to_owned();
                    if batch.diff(row) < 0 {
                        assert_eq!(self.bars.remove(&key).as_ref(), Some(&text), "a retraction takes back what was asserted");
                    } else {
                        assert_eq!(self.bars.insert(key, text), None, "an assertion replaces what was taken back");
                    }
                }
            }
        }
    }

    fn finish(mut self) -> BTreeMap<String, String> {
        self.advance(Vec::new(), Progress::END);
        assert!(self.account.totals().balances(), "{:?}", self.account.totals());
        assert!(self.merger.snapshot()().iter().all(|rows| rows.num_rows() == 0), "windows are freed at the end");
        self.bars
    }
}

/// Every bar of these trades, from the definition.
fn recomputed(rows: &[Row], interval: Micros) -> BTreeMap<(u8, Micros), Vec<Row>> {
    let mut windows: BTreeMap<(u8, Micros), Vec<Row>> = BTreeMap::new();
    for row in rows {
        windows.entry((row.0 % 3, (row.1 * 1_000).div_euclid(interval) * interval)).or_default().push(*row);
    }
    for rows in windows.values_mut() {
        rows.sort_by_key(|r| (r.1, r.2));
    }
    windows
}

fn trades() -> impl Strategy<Value = Vec<Row>> {
    let row = (0_u8..3, 0_i64..30_000, 1_i64..100_000, 1_i64..10_000, any::<bool>());
    prop::collection::vec(row, 1..200)
        .prop_map(|rows| rows.into_iter().zip(1_u64..).map(|((s, t, p, q, b), id)| (s, t, id, p, q, b)).collect())
}

proptest! {
    /// In any order, in batches of any size, bars of every interval are what the definition says.
    #[test]
    fn any_arrival_gives_the_bars_of_the_definition(rows in trades(), order in any::<prop::sample::Index>(), size in 1_usize..50) {
        let windows = Windows::new(vec![2 * SECOND, 5 * SECOND], 60 * SECOND);
        let mut shuffled = rows.clone();
        let middle = order.index(rows.len());
        shuffled.rotate_left(middle);
        let mut bench = Bench::new(windows.clone());
        let mut latest = Micros::MIN;
        for (chunk, part) in (0_u64..).zip(shuffled.chunks(size)) {
            latest = latest.max(part.iter().map(|r| r.1 * 1_000).max().unwrap());
            bench.advance(vec![batch(part, chunk)], latest);
        }
        let mut all_at_once = Bench::new(windows.clone());
        all_at_once.advance(vec![batch(&rows, 0)], Micros::MIN);
        // The late flag tells how a bar came about; all else tells what it is.
        let settled = |bars: BTreeMap<String, String>| bars.into_iter().map(|(k, v)| (k, v.replace("\"late\":true", "\"late\":false"))).collect::<BTreeMap<_, _>>();
        let bars = settled(bench.finish());
        prop_assert_eq!(&bars, &settled(all_at_once.finish()));

        let mut expected = 0;
        for &interval in windows.intervals() {
            for ((symbol, start), trades) in recomputed(&rows, interval) {
                expected += 1;
                let name = ["BTC-USDT", "ETH-USDT", "SOL-USDT"][usize::from(symbol)];
                let start = model::time::display(start);
                let wanted = format!("\"symbol\":\"{name}\",\"interval_seconds\":{},\"start\":\"{}", interval / SECOND, &start[..19]);
                let found: Vec<&String> = bars.values().filter(|b| b.contains(&wanted)).collect();
                prop_assert_eq!(found.len(), 1, "one bar for {}", wanted);
                let bar: serde_json::Value = serde_json::from_str(found[0]).unwrap();
                let cents = |v: &serde_json::Value| v.to_string().parse::<Decimal>().unwrap();
                let hundredths = |n: i64| Decimal::from_units(i128::from(n) * 10_000_000_000);
                prop_assert_eq!(cents(&bar["open"]), hundredths(trades[0].3));
                prop_assert_eq!(cents(&bar["close"]), hundredths(trades[trades.len() - 1].3));
                prop_assert_eq!(cents(&bar["high"]), hundredths(trades.iter().map(|t| t.3).max().unwrap()));
                prop_assert_eq!(cents(&bar["low"]), hundredths(trades.iter().map(|t| t.3).min().unwrap()));
                prop_assert_eq!(cents(&bar["volume"]), hundredths(trades.iter().map(|t| t.4).sum()));
                prop_assert_eq!(cents(&bar["buy_volume"]), hundredths(trades.iter().filter(|t| t.5).map(|t| t.4).sum()));
                let notional: i64 = trades.iter().map(|t| t.3 * t.4).sum();
                prop_assert_eq!(cents(&bar["quote_volume"]), Decimal::from_units(i128::from(notional) * 100_000_000));
                prop_assert_eq!(bar["trades"].as_u64(), Some(trades.len() as u64));
                prop_assert_eq!(&bar["partial"], &serde_json::Value::Bool(false));
            }
        }
        prop_assert_eq!(bars.len(), expected);
    }

    /// A state that was stored and restored in the middle goes on as if nothing had happened.
    #[test]
    fn a_restored_state_goes_on(rows in trades(), cut in any::<prop::sample::Index>()) {
        let windows = Windows::new(vec![SECOND, 10 * SECOND], 5 * SECOND);
        let (before, after) = rows.split_at(cut.index(rows.len()));
        let mark = |rows: &[Row]| rows.iter().map(|r| r.1 * 1_000 - 10 * SECOND).max().unwrap_or(Micros::MIN);
        let mut straight = Bench::new(windows.clone());
        straight.advance(vec![batch(before, 0)], mark(before));
        let mut restored = Bench::new(windows.clone());
        restored.advance(vec![batch(before, 0)], mark(before));
        let state = restored.merger.snapshot()();
        restored.merger = Merger::new(windows);
        restored.merger.restore(&state);
        straight.advance(vec![batch(after, 1)], mark(&rows));
        restored.advance(vec![batch(after, 1)], mark(&rows));
        prop_assert_eq!(straight.finish(), restored.finish());
    }

    /// A snapshot that becomes rows only later, when other trades were worked on, is the state of when it was taken.
    #[test]
    fn a_snapshot_keeps_its_moment(rows in trades(), cut in any::<prop::sample::Index>()) {
        let (before, after) = rows.split_at(cut.index(rows.len()));
        let mut bench = Bench::new(Windows::new(vec![SECOND, 10 * SECOND], 5 * SECOND));
        bench.advance(vec![batch(before, 0)], 0);
        let (now, later) = (bench.merger.snapshot()(), bench.merger.snapshot());
        bench.advance(vec![batch(after, 1)], 15 * SECOND);
        bench.finish();
        prop_assert_eq!(later(), now);
    }
}

#[test]
fn late_trades_revise_until_lateness_and_are_dead_letters_after() {
    let mut bench = Bench::new(Windows::new(vec![SECOND], SECOND));
    bench.advance(vec![batch(&[(0, 500, 1, 100, 100, true)], 0)], 500_000);
    let open = bench.bars.values().next().unwrap().clone();
    assert!(open.contains("\"partial\":true") && open.contains("\"late\":false"), "{open}");
    // The watermark passes the end at 1 s: complete, and still open for a second.
    bench.advance(Vec::new(), 1_500_000);
    assert!(bench.bars.values().next().unwrap().contains("\"partial\":false"));
    bench.advance(vec![batch(&[(0, 900, 2, 200, 100, true)], 1)], 1_999_999);
    let revised = bench.bars.values().next().unwrap().clone();
    assert!(revised.contains("\"late\":true") && revised.contains("\"trades\":2"), "{revised}");
    // At 2 s it closes; what comes then is refused.
    bench.advance(Vec::new(), 2_000_000);
    bench.advance(vec![batch(&[(0, 901, 3, 300, 100, true)], 2)], 2_000_000);
    assert_eq!((bench.letters, bench.account.totals().late), (1, 1));
    assert_eq!(bench.finish().into_values().collect::<Vec<_>>(), [revised]);
}

#[test]
fn missing_ids_are_a_gap_and_a_huge_trade_is_refused() {
    let mut bench = Bench::new(Windows::new(vec![SECOND], 0));
    bench.advance(vec![batch(&[(0, 1, 7, 100, 100, true), (0, 2, 9, 100, 100, false), (1, 1, 1, 100, 100, true)], 0)], 0);
    bench.advance(vec![batch(&[(2, 1, 1, i64::MAX, 100, true)], 1)], 0);
    assert_eq!(bench.account.totals().rejected.get("overflow"), Some(&1));
    let bars: Vec<String> = bench.finish().into_values().collect();
    assert!(bars[0].contains("\"gap\":true") && bars[1].contains("\"gap\":false"), "{bars:#?}");
}

#[test]
fn options_are_checked() {
    let check = |options: &str| config::component::component::<dyn Operator, Bars>(options, std::slice::from_ref(&TRADE)).map(drop);
    assert!(check("every = \"1m\"").is_ok());
    assert!(check("every = [\"1s\", \"1m\"]\nlateness = \"5s\"\nlate = \"count\"").is_ok());
    assert!(check("every = \"250ms\"").unwrap_err().contains("not a whole number of seconds"));
    assert!(check("every = []").unwrap_err().contains("no rule says"));
}
