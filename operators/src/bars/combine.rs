//! The first stage of `bars`: trades into partial bars, where the trades are.
//!
//! It runs when a logical time is complete, so that the watermark is known on every worker and a trade is
//! late, or not, whatever worker decoded it. What is exchanged afterwards is one row per instrument and
//! slot, not one per trade.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::i256;
use hashbrown::HashMap;
use model::columns::{integer, label};
use model::json::row_json;
use model::kinds::{DeadLetter, TradeRows};
use model::time::Micros;
use model::{Batch, Decimal, digits};

use super::partial::{Edge, IdRange, PARTIAL_BAR, Partial, PartialBarBuilder, Place, compare_ids};
use super::{Late, Windows};
use crate::{Advance, Keyed, Output, Snapshot};

/// A trade beyond these is refused: the sums of a window could not be held exactly.
pub(super) const LARGEST: i128 = Decimal::from_integer(1_000_000_000_000_000).units();
const LARGEST_NOTIONAL: i256 = i256::from_i128(LARGEST).wrapping_mul(i256::from_i128(LARGEST / 1_000_000_000_000));

/// Combines trades into partials of the common slot of all intervals.
#[derive(Debug)]
pub struct Combiner {
    windows: Windows,
    late: Late,
    partials: PartialBarBuilder,
    groups: Groups,
}

/// The partials of the batch at hand, by instrument (as dictionary keys) and slot.
#[derive(Debug, Default)]
struct Groups {
    index: HashMap<Key, usize, ahash::RandomState>,
    groups: Vec<Group>,
    /// The group that each symbol, by its key, was in last: mostly the right one.
    latest: Vec<usize>,
}

/// Dictionary keys of venue, market and symbol, and the slot.
type Key = (i32, i32, i32, Micros);

/// A partial that still points into its batch, so that no text is copied per trade.
#[derive(Debug)]
struct Group {
    key: Key,
    late: bool,
    first: (Micros, usize),
    last: (Micros, usize),
    high: i128,
    low: i128,
    volume: i128,
    buy_volume: i128,
    notional: i256,
    trades: i64,
    records: i64,
    ids: Option<IdRange>,
}

impl Combiner {
    /// A combiner for these windows.
    pub fn new(windows: Windows, late: Late) -> Self {
        Combiner { windows, late, partials: PartialBarBuilder::default(), groups: Groups::default() }
    }

    fn combine(&mut self, advance: &Advance, batch: &Batch, out: &mut Output) {
        let trades = TradeRows::of(&batch.rows).expect("only trades are consumed");
        let (venues, markets, symbols) = (trades.venue.keys().values(), trades.market.keys().values(), trades.symbol.keys().values());
        let (times, prices, quantities, fills) =
            (trades.event_time.values(), trades.price.values(), trades.quantity.values(), trades.fills.values());
        let buys: Vec<bool> = trades.side.values().as_string::<i32>().iter().map(|side| side == Some("buy")).collect();
        let sides = trades.side.keys().values();
        let slot_length = self.windows.slot();
        let (mut accepted, mut slot) = (0, Micros::MIN);
        self.groups.clear(trades.symbol.values().len());
        for row in 0..batch.len() {
            let (time, price, quantity) = (times[row], prices[row], quantities[row]);
            // Most trades lie in the slot of the trade before.
            if !(slot..slot.saturating_add(slot_length)).contains(&time) {
                slot = time.div_euclid(slot_length) * slot_length;
            }
            let group = self.groups.of((venues[row], markets[row], symbols[row], slot), || self.windows.is_late(slot, advance.before));
            if group.late {
                self.late.handle(advance, batch, &trades, row, out);
                continue;
            }
            let Some(notional) = notional(price, quantity) else {
                let detail = format!(
                    "price {} times quantity {} is beyond what a bar can hold",
                    Decimal::from_units(price),
                    Decimal::from_units(quantity)
                );
                out.reject("overflow", advance.time, letter(batch, &trades, row, &detail, &row_json(&batch.rows, row)));
                continue;
            };
            accepted += 1;
            let id = trades.trade_id.value(row);
            let bought = if buys[sides[row] as usize] { quantity } else { 0 };
            group.add(row, time, id, price, quantity, bought, notional, fills[row], |row| trades.trade_id.value(row));
        }
        out.account().accept(accepted);
        self.flush(batch, &trades);
    }

    fn flush(&mut self, batch: &Batch, trades: &TradeRows<'_>) {
        for group in self.groups.groups.iter().filter(|g| g.records > 0) {
            let edge = |(time, row): (Micros, usize)| Edge {
                time,
                id: trades.trade_id.value(row).into(),
                price: Decimal::from_units(trades.price.value(row)),
            };
            let row = group.first.1;
            let place = Place {
                venue: label(trades.venue, row).unwrap_or_default(),
                market: label(trades.market, row).unwrap_or_default(),
                symbol: label(trades.symbol, row).unwrap_or_default(),
                interval_seconds: self.windows.slot() / model::time::SECOND,
                slot: group.key.3,
                late: false,
                complete: false,
            };
            let partial = Partial {
                first: edge(group.first),
                last: edge(group.last),
                high: Decimal::from_units(group.high),
                low: Decimal::from_units(group.low),
                volume: group.volume,
                buy_volume: group.buy_volume,
                notional: group.notional,
                trades: group.trades,
                records: group.records,
                ids: group.ids,
            };
            self.partials.push_partial(place, &partial);
        }
        debug_assert_eq!(batch.len(), trades.price.len());
    }
}

impl Keyed for Combiner {
    fn advance(&mut self, advance: &Advance, batches: Vec<Batch>, out: &mut Output) {
        let Some(origin) = batches.last().map(|b| b.origin) else { return };
        for batch in &batches {
            self.combine(advance, batch, out);
        }
        out.emit(Batch::new(&PARTIAL_BAR, self.partials.finish(), origin));
    }

    fn snapshot(&mut self) -> Snapshot {
        // Every logical time is combined whole, so nothing is held between two.
        Box::new(Vec::new)
    }

    fn restore(&mut self, _: &[RecordBatch]) {}
}

/// Price times size in 10⁻²⁴ units; `None` beyond what a bar can hold.
#[inline]
pub(super) fn notional(price: i128, quantity: i128) -> Option<i256> {
    // Both mostly fit into 64 bits, and are then far from the limits.
    if let (Ok(price), Ok(quantity)) = (i64::try_from(price), i64::try_from(quantity)) {
        return Some(i256::from_i128(i128::from(price) * i128::from(quantity)));
    }
    let product = i256::from_i128(price).wrapping_mul(i256::from_i128(quantity));
    (price.abs() < LARGEST && quantity.abs() < LARGEST && product.wrapping_abs() < LARGEST_NOTIONAL).then_some(product)
}

impl Groups {
    /// Forgets all groups, for a batch with so many symbols in its dictionary.
    fn clear(&mut self, symbols: usize) {
        self.index.clear();
        self.groups.clear();
        self.latest.clear();
        self.latest.resize(symbols, usize::MAX);
    }

    #[inline]
    fn of(&mut self, key: Key, is_late: impl FnOnce() -> bool) -> &mut Group {
        let symbol = key.2 as usize;
        let latest = self.latest[symbol];
        let known = self.groups.get(latest).is_some_and(|group| group.key == key);
        let index = if known { latest } else { self.find(key, is_late) };
        self.latest[symbol] = index;
        &mut self.groups[index]
    }

    #[inline(never)]
    fn find(&mut self, key: Key, is_late: impl FnOnce() -> bool) -> usize {
        *self.index.entry(key).or_insert_with(|| {
            self.groups.push(Group::new(key, is_late()));
            self.groups.len() - 1
        })
    }
}

impl Group {
    fn new(key: Key, late: bool) -> Self {
        let (first, last) = ((Micros::MAX, usize::MAX), (Micros::MIN, usize::MAX));
        Group {
            key,
            late,
            first,
            last,
            high: i128::MIN,
            low: i128::MAX,
            volume: 0,
            buy_volume: 0,
            notional: i256::ZERO,
            trades: 0,
            records: 0,
            ids: None,
        }
    }

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the fields of a trade, which are in columns and not in a struct")]
    fn add<'t>(
        &mut self,
        row: usize,
        time: Micros,
        id: &'t str,
        price: i128,
        quantity: i128,
        bought: i128,
        notional: i256,
        fills: i64,
        id_of: impl Fn(usize) -> &'t str,
    ) {
        let number = digits::whole(id.as_bytes());
        if self.records == 0 {
            (self.first, self.last) = ((time, row), (time, row));
            self.ids = number.map(|n| IdRange { least: n, greatest: n });
        } else {
            if time < self.first.0 || (time == self.first.0 && compare_ids(id, id_of(self.first.1)).is_lt()) {
                self.first = (time, row);
            }
            if time > self.last.0 || (time == self.last.0 && compare_ids(id, id_of(self.last.1)).is_gt()) {
                self.last = (time, row);
            }
            self.ids = self.ids.zip(number).map(|(ids, n)| ids.join(IdRange { least: n, greatest: n }));
        }
        self.high = self.high.max(price);
        self.low = self.low.min(price);
        self.volume += quantity;
        self.buy_volume += bought;
        self.notional = self.notional.wrapping_add(notional);
        self.trades += fills;
        self.records += 1;
    }
}

impl Late {
    pub(super) fn handle(self, advance: &Advance, batch: &Batch, trades: &TradeRows<'_>, row: usize, out: &mut Output) {
        match self {
            Late::Count => out.account().late(1),
            Late::DeadLetter => {
                let detail = format!(
                    "the trade of {} came when the watermark was at {}, after its bar had closed",
                    model::time::display(trades.event_time.value(row)),
                    model::time::display(advance.before)
                );
                out.late(advance.time, letter(batch, trades, row, &detail, &row_json(&batch.rows, row)));
            }
        }
    }
}

/// The dead letter of a trade; the output fills in the node, the reason and the time.
fn letter<'a>(batch: &'a Batch, trades: &TradeRows<'a>, row: usize, detail: &'a str, payload: &'a [u8]) -> DeadLetter<'a> {
    DeadLetter {
        node: "",
        reason: "",
        detail,
        event_time: Some(trades.event_time.value(row)),
        receive_time: integer(trades.receive_time, row),
        rejected_time: 0,
        frame: integer(trades.frame, row),
        kind: &batch.kind.name,
        venue: label(trades.venue, row),
        market: label(trades.market, row),
        symbol: label(trades.symbol, row),
        payload,
    }
}
