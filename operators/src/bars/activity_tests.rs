//! Bars by activity against the definitions, recomputed from all trades.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::columns::label;
use model::kinds::{ACTIVITY_BAR, ActivityBarRows, TRADE, Trade, TradeBuilder};
use model::time::Micros;
use model::{Account, Batch, Decimal, Message, Origin, Progress};
use proptest::prelude::*;

use super::{Activity, Ending, Expectation, Late, Measure, Rule, Until};
use crate::{Advance, Keyed, Output};

/// A trade as the tests write it: symbol, event time in milliseconds, price and size in hundredths, bought. Its id is its place.
type Row = (u8, i64, i64, i64, bool);

const SYMBOLS: [&str; 2] = ["BTC-USDT", "ETH-USDT"];

fn hundredths(number: i64) -> Decimal {
    Decimal::from_units(i128::from(number) * 10_000_000_000)
}

fn batch(rows: &[(usize, Row)], chunk: u64) -> Batch {
    let mut trades = TradeBuilder::default();
    for &(id, (symbol, millis, price, quantity, bought)) in rows {
        trades.push(Trade {
            venue: "binance",
            market: "spot",
            symbol: SYMBOLS[usize::from(symbol) % 2],
            event_time: millis * 1_000,
            receive_time: None,
            frame: None,
            trade_id: &id.to_string(),
            price: hundredths(price),
            quantity: hundredths(quantity),
            contracts: None,
            side: if bought { "buy" } else { "sell" },
            fills: 1,
            backfilled: None,
        });
    }
    Batch::new(&TRADE, trades.finish(), Origin { source: 0, chunk })
}

fn rules() -> Vec<Rule> {
    let expectation = Expectation { first: 3, bar_weight: 0.5, trade_weight: 0.25, bounds: (2, 9) };
    let rule = |name: &str, ending| Rule { name: name.into(), ending };
    vec![
        rule("ticks 3", Ending::Sum(Measure::Ticks, Decimal::from_integer(3))),
        rule("volume 0.5", Ending::Sum(Measure::Volume, hundredths(50))),
        rule("value 0.4", Ending::Sum(Measure::Value, hundredths(40))),
        rule("imbalance of ticks 2", Ending::Imbalance(Measure::Ticks, Until::Fixed(Decimal::from_integer(2)))),
        rule("imbalance of volume expected", Ending::Imbalance(Measure::Volume, Until::Expected(expectation))),
        rule("runs of value 0.3", Ending::Run(Measure::Value, Until::Fixed(hundredths(30)))),
        rule("runs of ticks expected", Ending::Run(Measure::Ticks, Until::Expected(expectation))),
        rule("range 0.1", Ending::Range(hundredths(10))),
        rule("renko 0.05", Ending::Renko(hundredths(5))),
    ]
}

/// A bar: start and end in milliseconds, prices and sizes in hundredths (value in ten thousandths), ids.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    times: (i64, i64),
    prices: [i64; 4],
    volume: i64,
    bought: i64,
    value: i64,
    trades: i64,
    threshold: Option<Decimal>,
    ids: (usize, usize),
}

type Bars = BTreeMap<(String, String), Vec<Bar>>;

/// The bars of the rows that were emitted.
fn collect(out: &mut Output, bars: &mut Bars) -> usize {
    let mut letters = 0;
    for message in out.take() {
        let Message::Batch(batch) = message else { continue };
        if batch.kind.name != ACTIVITY_BAR.name {
            letters += batch.len();
            continue;
        }
        let rows = ActivityBarRows::of(&batch.rows).unwrap();
        let units = |decimals: &arrow::array::Decimal128Array, row: usize, unit: i128| (decimals.value(row) / unit) as i64;
        for row in 0..batch.len() {
            let prices = [rows.open, rows.high, rows.low, rows.close].map(|column| units(column, row, 10_000_000_000));
            let of = (label(rows.symbol, row).unwrap().to_owned(), label(rows.rule, row).unwrap().to_owned());
            let bars = bars.entry(of).or_default();
            assert_eq!(rows.number.value(row), bars.len() as i64);
            bars.push(Bar {
                times: (rows.start.value(row) / 1_000, rows.end.value(row) / 1_000),
                prices,
                volume: units(rows.volume, row, 10_000_000_000),
                bought: units(rows.buy_volume, row, 10_000_000_000),
                value: units(rows.quote_volume, row, 100_000_000),
                trades: rows.trades.value(row),
                threshold: model::columns::number(rows.threshold, row),
                ids: (rows.first_trade_id.value(row).parse().unwrap(), rows.last_trade_id.value(row).parse().unwrap()),
            });
        }
    }
    letters
}

/// What a trade moves, in the unit of the measure: trades, hundredths, ten thousandths.
fn moves(measure: Measure, row: &Row) -> i64 {
    match measure {
        Measure::Ticks => 1,
        Measure::Volume => row.3,
        Measure::Value => row.2 * row.3,
    }
}

/// One of a measure in its unit.
fn one(measure: Measure) -> i64 {
    match measure {
        Measure::Ticks => 1,
        Measure::Volume => 100,
        Measure::Value => 10_000,
    }
}

fn mean(values: impl Iterator<Item = f64>, weight: f64) -> f64 {
    values.reduce(|mean, value| mean + weight * (value - mean)).unwrap_or_default()
}

/// The bars of an instrument by a rule, from the definition: `all` are its trades in order.
fn recompute(ending: Ending, all: &[(usize, Row)]) -> Vec<Bar> {
    let (mut bars, mut begin, mut lengths, mut brick) = (Vec::new(), 0, Vec::<usize>::new(), None::<(i64, i64)>);
    for end in 0..all.len() {
        let trades = &all[begin..=end];
        let sum = |measure, side: Option<bool>| -> i64 {
            trades.iter().filter(|(_, row)| side.is_none_or(|side| row.4 == side)).map(|(_, row)| moves(measure, row)).sum()
        };
        let prices = trades.iter().map(|(_, row)| row.2);
        let (high, low) = (prices.clone().max().unwrap(), prices.min().unwrap());
        let bar = |prices, threshold| Bar {
            times: (trades[0].1.1, all[end].1.1),
            prices,
            volume: sum(Measure::Volume, None),
            bought: sum(Measure::Volume, Some(true)),
            value: sum(Measure::Value, None),
            trades: trades.len() as i64,
            threshold,
            ids: (trades[0].0, all[end].0),
        };
        let price = all[end].1.2;
        if let Ending::Renko(size) = ending {
            let size = (size.units() / 10_000_000_000) as i64;
            let (mut open, mut close) = brick.unwrap_or((price, price));
            let mut laid = 0;
            loop {
                let (upper, lower) = (open.max(close), open.min(close));
                (open, close) = if price >= upper + size {
                    (upper, upper + size)
                } else if price <= lower - size {
                    (lower, lower - size)
                } else {
                    break;
                };
                let whole = bar([open, open.max(close), open.min(close), close], Some(hundredths(size)));
                let empty = Bar {
                    times: (whole.times.1, whole.times.1),
                    volume: 0,
                    bought: 0,
                    value: 0,
                    trades: 0,
                    ids: (whole.ids.1, whole.ids.1),
                    ..whole.clone()
                };
                bars.push(if laid == 0 { whole } else { empty });
                laid += 1;
            }
            brick = Some((open, close));
            if laid > 0 {
                begin = end + 1;
            }
            continue;
        }
        // What has moved, in thousandths of nothing: exact, since sums are whole.
        let reached = |measure: Measure, moved: i64, threshold: Decimal| {
            i128::from(moved) * Decimal::ONE.units() >= threshold.units() * i128::from(one(measure))
        };
        let until = |measure: Measure, moved: i64, until: Until, of_a_trade: &dyn Fn(Measure, f64) -> f64| match until {
            Until::Fixed(threshold) => reached(measure, moved, threshold).then_some(Some(threshold)),
            Until::Expected(expectation) if lengths.is_empty() => (trades.len() as u64 >= expectation.first).then_some(None),
            Until::Expected(expectation) => {
                let expected = mean(lengths.iter().map(|length| *length as f64), expectation.bar_weight)
                    * of_a_trade(measure, expectation.trade_weight);
                let (least, most) = expectation.bounds;
                if trades.len() as u64 >= least && moved as f64 / one(measure) as f64 >= expected {
                    Some(Decimal::parse_rounded(format!("{expected:.12}").as_bytes()).ok())
                } else {
                    (trades.len() as u64 >= most).then_some(None)
                }
            }
        };
        let before = |measure: Measure| all[..begin].iter().map(move |(_, row)| (row.4, moves(measure, row) as f64 / one(measure) as f64));
        let imbalance =
            |measure: Measure, weight: f64| mean(before(measure).map(|(bought, moved)| if bought { moved } else { -moved }), weight).abs();
        let run = |measure: Measure, weight: f64| {
            let bought = mean(before(measure).map(|(bought, _)| f64::from(u8::from(bought))), weight);
            let of = |side: bool| mean(before(measure).filter(|(bought, _)| *bought == side).map(|(_, moved)| moved), weight);
            (bought * of(true)).max((1.0 - bought) * of(false))
        };
        let ended = match ending {
            Ending::Sum(measure, threshold) => reached(measure, sum(measure, None), threshold).then_some(Some(threshold)),
            Ending::Range(threshold) => (i128::from(high - low) * 10_000_000_000 >= threshold.units()).then_some(Some(threshold)),
            Ending::Imbalance(measure, limit) => {
                until(measure, (sum(measure, Some(true)) - sum(measure, Some(false))).abs(), limit, &imbalance)
            }
            Ending::Run(measure, limit) => until(measure, sum(measure, Some(true)).max(sum(measure, Some(false))), limit, &run),
            Ending::Renko(_) => unreachable!("they are laid above"),
        };
        if let Some(threshold) = ended {
            bars.push(bar([trades[0].1.2, high, low, price], threshold));
            lengths.push(trades.len());
            begin = end + 1;
        }
    }
    bars
}

fn advance(time: u64, before: Micros, watermark: Micros) -> Advance {
    Advance { time, before, watermark, reached: watermark }
}

#[test]
fn a_brick_takes_two_to_turn_round() {
    let rule = Rule { name: "renko 0.05".into(), ending: Ending::Renko(hundredths(5)) };
    let mut activity = Activity::new(vec![rule], Late::DeadLetter);
    let mut out = Output::new("bars", Arc::new(Account::default()));
    let prices = [100, 104, 105, 117, 111, 106, 105, 104, 99];
    let rows: Vec<(usize, Row)> = prices.into_iter().enumerate().map(|(id, price)| (id, (0, id as i64, price, 10, true))).collect();
    activity.advance(&advance(1, Micros::MIN, Progress::END), vec![batch(&rows, 0)], &mut out);
    let mut bars = Bars::new();
    assert_eq!(collect(&mut out, &mut bars), 0);
    let bars = bars.into_values().next().unwrap();
    let bricks: Vec<_> = bars.iter().map(|bar| (bar.prices[0], bar.prices[3], bar.trades, bar.ids)).collect();
    // From 100 up to 105, then 110 and 115 with one trade; 111 and 106 are within 110 and 115, 105 is one below it, 99 goes on.
    assert_eq!(bricks, [(100, 105, 3, (0, 2)), (105, 110, 1, (3, 3)), (110, 115, 0, (3, 3)), (110, 105, 3, (4, 6)), (105, 100, 2, (7, 8))]);
}

#[test]
fn a_trade_behind_the_watermark_is_late() {
    let rule = Rule { name: "ticks 2".into(), ending: Ending::Sum(Measure::Ticks, Decimal::from_integer(2)) };
    let mut activity = Activity::new(vec![rule], Late::DeadLetter);
    let account = Arc::new(Account::default());
    let mut out = Output::new("bars", account.clone());
    activity.advance(&advance(1, Micros::MIN, 10_000), vec![batch(&[(1, (0, 9, 100, 1, true))], 0)], &mut out);
    activity.advance(
        &advance(2, 10_000, Progress::END),
        vec![batch(&[(0, (0, 8, 100, 1, true)), (2, (0, 11, 100, 1, true))], 1)],
        &mut out,
    );
    let mut bars = Bars::new();
    assert_eq!(collect(&mut out, &mut bars), 1);
    assert_eq!(bars.into_values().next().unwrap()[0].ids, (1, 2));
    assert_eq!((account.totals().accepted, account.totals().late), (2, 1));
}

proptest! {
    /// However trades come within the disorder, in whatever batches, and whenever the state goes through a checkpoint: the bars are
    /// those of the definition.
    #[test]
    fn bars_are_those_of_the_definition(
        trades in proptest::collection::vec((0_u8..2, 0_i64..200, 80_i64..120, 1_i64..30, any::<bool>()), 0..120),
        shuffle in proptest::collection::vec(any::<u32>(), 120),
        chunk in 1_usize..30,
        cut in 0_usize..20,
    ) {
        const DISORDER: i64 = 20;
        let mut sorted: Vec<(usize, Row)> = trades.into_iter().enumerate().collect();
        sorted.sort_by_key(|(id, row)| (row.1, *id));
        // As it may come: no later than so much behind what is ahead of it.
        let mut come: Vec<(usize, Row)> = sorted.clone();
        come.sort_by_key(|(id, row)| row.1 + i64::from(shuffle[*id]) % DISORDER);
        let mut activity = Activity::new(rules(), Late::DeadLetter);
        let mut out = Output::new("bars", Arc::new(Account::default()));
        let (mut bars, mut watermark, mut greatest) = (Bars::new(), Micros::MIN, i64::MIN);
        let chunks: Vec<&[(usize, Row)]> = come.chunks(chunk).collect();
        for (at, rows) in chunks.iter().enumerate() {
            if at == cut {
                let state = activity.snapshot()();
                activity = Activity::new(rules(), Late::DeadLetter);
                activity.restore(&state);
            }
            greatest = greatest.max(rows.iter().map(|(_, row)| row.1).max().unwrap());
            let (before, next) = (watermark, (greatest - DISORDER) * 1_000);
            watermark = next;
            activity.advance(&advance(at as u64, before, next), vec![batch(rows, at as u64)], &mut out);
            prop_assert_eq!(collect(&mut out, &mut bars), 0, "nothing is late");
        }
        activity.advance(&advance(1_000, watermark, Progress::END), vec![], &mut out);
        collect(&mut out, &mut bars);
        for (number, symbol) in SYMBOLS.into_iter().enumerate() {
            let of: Vec<(usize, Row)> = sorted.iter().copied().filter(|(_, row)| usize::from(row.0) == number).collect();
            for rule in rules() {
                let expected = recompute(rule.ending, &of);
                let found = bars.remove(&(symbol.to_owned(), rule.name.clone())).unwrap_or_default();
                prop_assert_eq!(found, expected, "{} {}", symbol, rule.name);
            }
        }
    }
}
