//! What the tests of operators on records of instruments share: trades, come in some order, in batches, through a checkpoint.

use std::sync::Arc;

use model::columns::label;
use model::kinds::{self, DEAD_LETTER, TRADE, TradeBuilder, TradeRows};
use model::time::Micros;
use model::{Account, Batch, Decimal, Message, Origin, Progress};

use crate::{Advance, Keyed, Output};

/// How far the watermark of [`play`] is behind, in milliseconds.
const DISORDER: i64 = 20;

const SYMBOLS: [&str; 2] = ["BTC-USDT", "ETH-USDT"];

/// What trades of the tests differ in. The frame is their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trade {
    pub(crate) symbol: u8,
    pub(crate) millis: i64,
    pub(crate) id: i64,
    pub(crate) frame: i64,
}

/// Trades as a batch.
pub(crate) fn batch(trades: &[Trade], chunk: u64) -> Batch {
    let mut rows = TradeBuilder::default();
    for trade in trades {
        rows.push(kinds::Trade {
            venue: "binance",
            market: "spot",
            symbol: SYMBOLS[usize::from(trade.symbol)],
            event_time: trade.millis * 1_000,
            receive_time: None,
            frame: Some(trade.frame),
            trade_id: &trade.id.to_string(),
            price: Decimal::ONE,
            quantity: Decimal::ONE,
            contracts: None,
            side: "buy",
            fills: 1,
            backfilled: None,
        });
    }
    Batch::new(&TRADE, rows.finish(), Origin { source: 0, chunk })
}

/// The trades as they may come: none so late that the watermark of [`play`] has passed it.
pub(crate) fn comes(trades: &[Trade], shuffle: &[u32]) -> Vec<Trade> {
    let mut come = trades.to_vec();
    come.sort_by_key(|trade| trade.millis + i64::from(shuffle[trade.frame as usize]) % DISORDER);
    come
}

/// The trades that pass when these come, in batches of so many, and how many are late. Before the batch `cut`, all state goes through a
/// checkpoint.
pub(crate) fn play<K: Keyed>(make: impl Fn() -> K, come: &[Trade], chunk: usize, cut: usize) -> (Vec<Trade>, usize) {
    let account = Arc::new(Account::default());
    let (mut logic, mut out) = (make(), Output::new("node", account.clone()));
    let (mut before, mut greatest) = (Micros::MIN, 0);
    let (mut passed, mut letters) = (Vec::new(), 0);
    let mut take = |out: &mut Output| {
        for message in out.take() {
            let Message::Batch(batch) = message else { continue };
            if batch.kind.name == DEAD_LETTER.name {
                letters += batch.len();
                continue;
            }
            let rows = TradeRows::of(&batch.rows).unwrap();
            passed.extend((0..batch.len()).map(|row| Trade {
                symbol: SYMBOLS.iter().position(|symbol| label(rows.symbol, row) == Some(symbol)).unwrap() as u8,
                millis: rows.event_time.value(row) / 1_000,
                id: rows.trade_id.value(row).parse().unwrap(),
                frame: rows.frame.value(row),
            }));
        }
    };
    for (at, rows) in come.chunks(chunk).enumerate() {
        if at == cut {
            let state = logic.snapshot()();
            logic = make();
            logic.restore(&state);
        }
        greatest = greatest.max(rows.iter().map(|trade| trade.millis).max().unwrap());
        let watermark = (greatest - DISORDER) * 1_000;
        let advance = Advance { time: at as u64, before, watermark, reached: greatest * 1_000 };
        account.receive(rows.len());
        logic.advance(&advance, vec![batch(rows, at as u64)], &mut out);
        take(&mut out);
        before = watermark;
    }
    logic.advance(&Advance { time: 1_000_000, before, watermark: Progress::END, reached: greatest * 1_000 }, vec![], &mut out);
    take(&mut out);
    assert!(account.totals().balances(), "{:?}", account.totals());
    (passed, letters)
}
