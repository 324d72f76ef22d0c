//! Partial bars: the aggregate of some trades of one instrument in one slot, as a difference.
//!
//! A [`Partial`] is a commutative semigroup. First and last are the least and the greatest by (event time,
//! trade id), so merging in any order, in any grouping, on any worker gives the same bar; price times size
//! is summed in 10⁻²⁴ units and rounded once, when the bar is shown.

use std::cmp::Ordering;

use arrow::datatypes::i256;
use differential_dataflow::difference::{IsZero, Semigroup};
use model::Decimal;
use model::columns::{Bytes, Decimal as DecimalColumn, Integer, Label, Text, Time};
use model::time::Micros;

model::declare_kinds! {
    /// A partial bar on its way to the worker that owns its instrument, or in a checkpoint.
    "partial_bar" as PARTIAL_BAR, PartialBar, PartialBarBuilder, PartialBarRows
    time ["slot"] key ["venue", "market", "symbol", "interval_seconds", "slot"] revisable false
    {
        /// The venue.
        venue: Label,
        /// The market.
        market: Label,
        /// The instrument.
        symbol: Label,
        /// Length of the slot in seconds.
        interval_seconds: Integer,
        /// Start of the slot.
        slot: Time,
        /// Event time of the first trade.
        first_time: Time,
        /// Identifier of the first trade.
        first_id: Text,
        /// Price of the first trade.
        open: DecimalColumn,
        /// Event time of the last trade.
        last_time: Time,
        /// Identifier of the last trade.
        last_id: Text,
        /// Price of the last trade.
        close: DecimalColumn,
        /// Highest price.
        high: DecimalColumn,
        /// Lowest price.
        low: DecimalColumn,
        /// Sum of sizes.
        volume: DecimalColumn,
        /// Sum of sizes of trades whose taker bought.
        buy_volume: DecimalColumn,
        /// Sum of price times size in 10⁻²⁴ units: 32 bytes, little endian.
        notional: Bytes,
        /// Number of trades, aggregates counted as the trades they merged.
        trades: Integer,
        /// Number of records.
        records: Integer,
        /// Least trade id, if all are numbers.
        least_id: Option<Integer>,
        /// Greatest trade id, if all are numbers.
        greatest_id: Option<Integer>,
        /// 1 if the window was revised after the watermark had passed its end.
        late: Integer,
        /// 1 if the window's bar was emitted as complete.
        complete: Integer,
    }
}

/// A trade's place in its window and its price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Event time.
    pub time: Micros,
    /// Trade id.
    pub id: Box<str>,
    /// Price.
    pub price: Decimal,
}

impl Edge {
    /// By event time, then by trade id.
    pub fn place(&self, time: Micros, id: &str) -> Ordering {
        self.time.cmp(&time).then_with(|| compare_ids(&self.id, id))
    }
}

/// Orders trade ids: shorter first, then by bytes, which for numbers without leading zeros is their order.
pub fn compare_ids(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// The numbers of trade ids, while all ids are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The least.
    pub least: i64,
    /// The greatest.
    pub greatest: i64,
}

impl IdRange {
    /// The range that covers both.
    pub fn join(self, other: IdRange) -> IdRange {
        IdRange { least: self.least.min(other.least), greatest: self.greatest.max(other.greatest) }
    }
}

/// The aggregate of at least one trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The first trade.
    pub first: Edge,
    /// The last trade.
    pub last: Edge,
    /// Highest price.
    pub high: Decimal,
    /// Lowest price.
    pub low: Decimal,
    /// Sum of sizes, in units of 10⁻¹².
    pub volume: i128,
    /// Sum of sizes of trades whose taker bought, in units of 10⁻¹².
    pub buy_volume: i128,
    /// Sum of price times size, in units of 10⁻²⁴.
    pub notional: i256,
    /// Number of trades, aggregates counted as the trades they merged.
    pub trades: i64,
    /// Number of records.
    pub records: i64,
    /// The ids, if all are numbers.
    pub ids: Option<IdRange>,
}

impl Partial {
    /// Whether ids inside are missing; `None` where ids are not numbers.
    pub fn gap(&self) -> Option<bool> {
        self.ids.map(|ids| ids.greatest - ids.least >= self.records)
    }
}

impl IsZero for Partial {
    fn is_zero(&self) -> bool {
        self.records == 0
    }
}

impl Semigroup for Partial {
    fn plus_equals(&mut self, other: &Self) {
        if other.first.place(self.first.time, &self.first.id) == Ordering::Less {
            self.first = other.first.clone();
        }
        if other.last.place(self.last.time, &self.last.id) == Ordering::Greater {
            self.last = other.last.clone();
        }
        self.high = self.high.max(other.high);
        self.low = self.low.min(other.low);
        self.volume += other.volume;
        self.buy_volume += other.buy_volume;
        self.notional = self.notional.wrapping_add(other.notional);
        self.trades += other.trades;
        self.records += other.records;
        self.ids = self.ids.zip(other.ids).map(|(a, b)| a.join(b));
    }
}

/// What a partial bar is about, beside the partial itself.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The venue.
    pub venue: &'a str,
    /// The market.
    pub market: &'a str,
    /// The instrument.
    pub symbol: &'a str,
    /// Length of the slot in seconds.
    pub interval_seconds: i64,
    /// Start of the slot.
    pub slot: Micros,
    /// The window was revised late.
    pub late: bool,
    /// The window's bar was emitted as complete.
    pub complete: bool,
}

impl PartialBarBuilder {
    /// Appends a partial.
    pub fn push_partial(&mut self, place: Place<'_>, partial: &Partial) {
        self.push(PartialBar {
            venue: place.venue,
            market: place.market,
            symbol: place.symbol,
            interval_seconds: place.interval_seconds,
            slot: place.slot,
            first_time: partial.first.time,
            first_id: &partial.first.id,
            open: partial.first.price,
            last_time: partial.last.time,
            last_id: &partial.last.id,
            close: partial.last.price,
            high: partial.high,
            low: partial.low,
            volume: Decimal::from_units(partial.volume),
            buy_volume: Decimal::from_units(partial.buy_volume),
            notional: &partial.notional.to_le_bytes(),
            trades: partial.trades,
            records: partial.records,
            least_id: partial.ids.map(|i| i.least),
            greatest_id: partial.ids.map(|i| i.greatest),
            late: place.late.into(),
            complete: place.complete.into(),
        });
    }
}

impl PartialBarRows<'_> {
    /// The partial of a row.
    pub fn partial(&self, row: usize) -> Partial {
        let price = |column: &arrow::array::Decimal128Array| Decimal::from_units(column.value(row));
        let ids = model::columns::integer(self.least_id, row).zip(model::columns::integer(self.greatest_id, row));
        Partial {
            first: Edge { time: self.first_time.value(row), id: self.first_id.value(row).into(), price: price(self.open) },
            last: Edge { time: self.last_time.value(row), id: self.last_id.value(row).into(), price: price(self.close) },
            high: price(self.high),
            low: price(self.low),
            volume: self.volume.value(row),
            buy_volume: self.buy_volume.value(row),
            notional: i256::from_le_bytes(self.notional.value(row).try_into().expect("a notional has 32 bytes")),
            trades: self.trades.value(row),
            records: self.records.value(row),
            ids: ids.map(|(least, greatest)| IdRange { least, greatest }),
        }
    }
}
