//! The built-in kinds, each declared once.
//!
//! The macro below turns a declaration into the [`Kind`] itself and three types named after it: a
//! borrowed row (`Trade`), a columnar builder to push rows into (`TradeBuilder`) and a typed view of a
//! record batch (`TradeRows`). Pushing a row names every column, so a decoder that forgets one does not
//! compile, and a view that expects another schema does not open.

use std::sync::Arc;

use crate::columns::{Boolean, Bytes, Decimal, Decimals, Float, Integer, Label, Text, Time};
use crate::kind::Kind;

/// Declares kinds: for each the [`Kind`](crate::Kind) itself, a borrowed row, a builder and a typed view.
#[macro_export]
macro_rules! declare_kinds {
    ($(
        $(#[doc = $doc:literal])+
        $name:literal $(in $table:literal)? as $constant:ident, $row:ident, $builder:ident, $rows:ident
        time [$($time:literal),*] key [$($key:literal),*] revisable $revisable:literal
        { $( $(#[doc = $column_doc:literal])+ $column:ident : $ty:ty , )* }
    )*) => {
        $(
            $(#[doc = $doc])+
            pub static $constant: std::sync::LazyLock<std::sync::Arc<$crate::Kind>> = std::sync::LazyLock::new(|| std::sync::Arc::new($crate::Kind::new(
                $name,
                None $(.or(Some($table.into())))?,
                concat!($($doc),+).trim(),
                vec![$( $crate::Column {
                    name: stringify!($column).into(),
                    ty: <$ty as $crate::columns::ColumnType>::TYPE,
                    nullable: <$ty as $crate::columns::ColumnType>::NULLABLE,
                    doc: concat!($($column_doc),+).trim().into(),
                } ),*],
                vec![$($time.into()),*],
                vec![$($key.into()),*],
                $revisable,
            )));

            $(#[doc = $doc])+
            ///
            /// One row, borrowed: what a decoder pushes.
            #[derive(Clone, Copy, Debug)]
            pub struct $row<'a> { $( $(#[doc = $column_doc])+ pub $column: <$ty as $crate::columns::ColumnType>::Value<'a>, )* }

            #[doc = concat!("Columns of `", $name, "` records under construction.")]
            #[derive(Debug, Default)]
            pub struct $builder { len: usize, $( $column: <$ty as $crate::columns::ColumnType>::Builder, )* }

            impl $builder {
                /// Appends a row.
                #[inline]
                pub fn push(&mut self, row: $row<'_>) {
                    self.len += 1;
                    $( <$ty as $crate::columns::ColumnType>::push(&mut self.$column, row.$column); )*
                }

                /// Rows pushed since the last [`Self::finish`].
                pub fn len(&self) -> usize { self.len }

                /// Whether there is none.
                pub fn is_empty(&self) -> bool { self.len == 0 }

                /// The rows pushed so far as a record batch of the kind's schema; the builder is empty again.
                pub fn finish(&mut self) -> arrow::array::RecordBatch {
                    self.len = 0;
                    arrow::array::RecordBatch::try_new($constant.schema().clone(), vec![$( <$ty as $crate::columns::ColumnType>::finish(&mut self.$column), )*])
                        .expect("a builder pushes every column in every row")
                }
            }

            #[doc = concat!("A typed view of a record batch of `", $name, "` records.")]
            #[derive(Clone, Copy, Debug)]
            pub struct $rows<'a> { $( $(#[doc = $column_doc])+ pub $column: &'a <$ty as $crate::columns::ColumnType>::Array, )* }

            impl<'a> $rows<'a> {
                /// Opens a record batch, which may have further columns.
                ///
                /// # Errors
                /// Names the first column that is missing or of another type.
                pub fn of(rows: &'a arrow::array::RecordBatch) -> Result<Self, $crate::columns::SchemaMismatch> {
                    Ok($rows { $( $column: $crate::columns::downcast(rows, $name, stringify!($column))?, )* })
                }
            }
        )*

    };
}

/// Every built-in kind, in the order of the manual.
pub fn all() -> [&'static Arc<Kind>; 22] {
    [
        &*FRAME,
        &*TRADE,
        &*QUOTE,
        &*BOOK_DELTA,
        &*BOOK_SNAPSHOT,
        &*FUNDING_RATE,
        &*OPEN_INTEREST,
        &*LIQUIDATION,
        &*LONG_SHORT_RATIO,
        &*MARK_PRICE,
        &*INDEX_PRICE,
        &*VOLATILITY_INDEX,
        &*INSTRUMENT,
        &*VENUE_STATUS,
        &*GAP,
        &*INSTRUMENT_TERMS,
        &*BAR,
        &*ACTIVITY_BAR,
        &*BOOK_METRICS,
        &*BOOK_EVENT,
        &*ANOMALY,
        &*DEAD_LETTER,
    ]
}

/// The built-in kind of this name.
pub fn named(name: &str) -> Option<&'static Arc<Kind>> {
    all().into_iter().find(|k| k.name == name)
}

/// The kinds of normalised record, in the order of the manual: all but frames.
pub fn records() -> impl Iterator<Item = &'static Arc<Kind>> {
    all().into_iter().filter(|k| k.name != FRAME.name)
}

/// The kinds that venues send, in the order of the manual.
pub fn market_data() -> impl Iterator<Item = &'static Arc<Kind>> {
    const DERIVED: [&str; 8] = ["frame", "instrument_terms", "bar", "activity_bar", "book_metrics", "book_event", "anomaly", "dead_letter"];
    all().into_iter().filter(|k| !DERIVED.contains(&k.name.as_ref()))
}

declare_kinds! {
    /// A message as the venue sent it, with where and when it was received. `normalise` turns it into records of the
    /// other kinds, or into a dead letter; stored as it is, it is a capture, which the source `frames` gives again.
    "frame" in "frames" as FRAME, Frame, FrameBuilder, FrameRows
    time ["receive_time"] key ["source", "frame"] revisable false
    {
        /// The source that gave it: the node's name in the pipeline.
        source: Label,
        /// The venue dialect that the payload is written in, e.g. `binance_usdm`.
        dialect: Label,
        /// When we received it; null where the recording does not tell.
        receive_time: Option<Time>,
        /// Its number in its source, counted from 1: the line of a recording, the frame of a connection. The order in
        /// which the source gave its frames; numbers may be missing, where something was refused.
        frame: Integer,
        /// The connection that it came over, counted from 1 since the source was started; null where it came over none: recordings,
        /// answers to requests.
        connection: Option<Integer>,
        /// What the message was asked for, where the message itself does not say (REST answers): the venue's symbol, and behind
        /// an `@` what was asked of it, e.g. `BTCUSDT@topLongShortPositionRatio@5m`.
        topic: Option<Label>,
        /// The bytes of the message.
        payload: Bytes,
    }

    /// One execution on a venue.
    "trade" in "trades" as TRADE, Trade, TradeBuilder, TradeRows
    time ["event_time"] key ["venue", "market", "symbol", "trade_id"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `spot`, `perpetual`, `future`, `option` or `index`.
        market: Label,
        /// The instrument's canonical symbol, e.g. `BTC-USDT` or `BTC-USDT-PERP`.
        symbol: Label,
        /// When the trade happened, by the venue's clock.
        event_time: Time,
        /// When we received it, by our clock; may lie before `event_time`.
        receive_time: Option<Time>,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// The venue's identifier of the trade, unique per instrument.
        trade_id: Text,
        /// Price in the quote asset.
        price: Decimal,
        /// Size in the base asset.
        quantity: Decimal,
        /// Size in contracts, where the instrument is traded in contracts.
        contracts: Option<Decimal>,
        /// The taker's side: `buy` or `sell`.
        side: Label,
        /// How many trades the venue merged into this one (aggregate trades); 1 otherwise.
        fills: Integer,
        /// Whether it was asked for afterwards and did not come over a channel when it happened: what fills a gap, or a history. Null
        /// where that is not known.
        backfilled: Option<Boolean>,
    }

    /// The best bid and ask of an instrument, as the venue's own feed of them says.
    "quote" in "quotes" as QUOTE, Quote, QuoteBuilder, QuoteRows
    time ["event_time", "receive_time"] key ["venue", "market", "symbol", "sequence"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `spot`, `perpetual`, `future`, `option` or `index`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// When the quote was made, by the venue's clock; null where the feed carries none (Binance spot).
        event_time: Option<Time>,
        /// When we received it, by our clock.
        receive_time: Option<Time>,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// The venue's update number, comparable with that of the book.
        sequence: Option<Integer>,
        /// Best bid in the quote asset; null when there is no bid.
        bid_price: Option<Decimal>,
        /// Size at the best bid in the base asset.
        bid_quantity: Option<Decimal>,
        /// Best ask in the quote asset; null when there is no ask.
        ask_price: Option<Decimal>,
        /// Size at the best ask in the base asset.
        ask_quantity: Option<Decimal>,
    }

    /// A change of an order book: for each price named, the new size there.
    "book_delta" in "book_deltas" as BOOK_DELTA, BookDelta, BookDeltaBuilder, BookDeltaRows
    time ["event_time"] key ["venue", "market", "symbol", "last_sequence"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `spot`, `perpetual`, `future`, `option` or `index`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// When the book changed, by the venue's clock.
        event_time: Time,
        /// When we received it, by our clock.
        receive_time: Option<Time>,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// The first update number that this change contains (Binance `U`); null where the venue numbers none (Kraken spot).
        first_sequence: Option<Integer>,
        /// The last update number that this change contains (Binance `u`); null where the venue numbers none.
        last_sequence: Option<Integer>,
        /// The last update number of the change before it, where the venue says it (Binance futures `pu`).
        previous_sequence: Option<Integer>,
        /// Prices of the changed bids, in the order sent.
        bid_prices: Decimals,
        /// New sizes in the units of the book (base asset, or contracts where `contracts` is true); 0 removes the level.
        bid_quantities: Decimals,
        /// Prices of the changed asks, in the order sent.
        ask_prices: Decimals,
        /// New sizes at the changed asks; 0 removes the level.
        ask_quantities: Decimals,
        /// Whether the sizes are contracts: of inverse instruments, whose base size depends on the price, and of OKX's derivatives,
        /// whose checksum is that of contracts.
        contracts: Boolean,
        /// The venue's checksum of the book after this change, where it sends one that means something.
        checksum: Option<Integer>,
        /// With how many fraction digits the venue writes prices, where its checksum depends on it (Kraken).
        price_digits: Option<Integer>,
        /// With how many fraction digits the venue writes sizes, where its checksum depends on it.
        quantity_digits: Option<Integer>,
    }

    /// An order book at one moment, best levels first.
    "book_snapshot" in "book_snapshots" as BOOK_SNAPSHOT, BookSnapshot, BookSnapshotBuilder, BookSnapshotRows
    time ["event_time", "receive_time"] key ["venue", "market", "symbol", "sequence"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `spot`, `perpetual`, `future`, `option` or `index`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// When the book stood so, by the venue's clock; null where the venue does not say (Binance spot REST).
        event_time: Option<Time>,
        /// When we received it, by our clock.
        receive_time: Option<Time>,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// The last update number that the snapshot contains; null where the venue numbers none.
        sequence: Option<Integer>,
        /// `venue` for a snapshot that the venue sent, `book` for one rebuilt from deltas.
        origin: Label,
        /// Prices of the bids, highest first.
        bid_prices: Decimals,
        /// Sizes of the bids in the units of the book.
        bid_quantities: Decimals,
        /// Prices of the asks, lowest first.
        ask_prices: Decimals,
        /// Sizes of the asks in the units of the book.
        ask_quantities: Decimals,
        /// Whether the sizes are contracts.
        contracts: Boolean,
        /// How many levels a side has at most, where whoever keeps the book must drop those farther away (Kraken).
        depth: Option<Integer>,
        /// The venue's checksum of the book, where it sends one that means something.
        checksum: Option<Integer>,
        /// With how many fraction digits the venue writes prices, where its checksum depends on it.
        price_digits: Option<Integer>,
        /// With how many fraction digits the venue writes sizes, where its checksum depends on it.
        quantity_digits: Option<Integer>,
    }

    /// The funding rate of a perpetual.
    "funding_rate" in "funding_rates" as FUNDING_RATE, FundingRate, FundingRateBuilder, FundingRateRows
    time ["event_time"] key ["venue", "market", "symbol", "event_time"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market, `perpetual`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// When the venue published the rate.
        event_time: Time,
        /// When we received it.
        receive_time: Option<Time>,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// The rate of the current interval, as a fraction of the notional (0.0001 = 1 basis point).
        rate: Decimal,
        /// The rate predicted for the next interval.
        predicted_rate: Option<Decimal>,
        /// Length of the funding interval in seconds.
        interval_seconds: Option<Integer>,
        /// When the current rate is paid.
        next_funding_time: Option<Time>,
    }

    /// Contracts outstanding.
    "open_interest" in "open_interests" as OPEN_INTEREST, OpenInterest, OpenInterestBuilder, OpenInterestRows
    time ["event_time"] key ["venue", "market", "symbol", "event_time"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `perpetual`, `future` or `option`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// The time the figure stands for, by the venue's clock.
        event_time: Time,
        /// When we received it.
        receive_time: Option<Time>,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// Open interest in contracts.
        contracts: Option<Decimal>,
        /// Open interest in the base asset.
        base: Option<Decimal>,
        /// Open interest in the quote asset.
        quote: Option<Decimal>,
    }

    /// A position that the venue closed by force.
    "liquidation" in "liquidations" as LIQUIDATION, Liquidation, LiquidationBuilder, LiquidationRows
    time ["event_time"] key ["venue", "market", "symbol", "event_time"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `perpetual`, `future` or `option`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// When the order was executed, by the venue's clock.
        event_time: Time,
        /// When we received it.
        receive_time: Option<Time>,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// The venue's identifier of the order, where it has one.
        liquidation_id: Option<Text>,
        /// Side of the liquidation order: `buy` closes a short, `sell` closes a long.
        side: Label,
        /// Price of the order in the quote asset.
        price: Decimal,
        /// Mean price at which it was filled.
        average_price: Option<Decimal>,
        /// Size of the order in the base asset.
        quantity: Decimal,
        /// Size filled so far in the base asset.
        filled_quantity: Option<Decimal>,
        /// Size in contracts, where the instrument is traded in contracts.
        contracts: Option<Decimal>,
        /// The venue's word for the state of the order, in lower case, e.g. `filled`.
        status: Option<Label>,
    }

    /// How positions or accounts divide into long and short.
    "long_short_ratio" in "long_short_ratios" as LONG_SHORT_RATIO, LongShortRatio, LongShortRatioBuilder, LongShortRatioRows
    time ["event_time"] key ["venue", "market", "symbol", "basis", "population", "period_seconds", "event_time"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `perpetual` or `future`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// The time the figure stands for, by the venue's clock.
        event_time: Time,
        /// When we received it.
        receive_time: Option<Time>,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// What is counted: `account` or `position`.
        basis: Label,
        /// Of whom: `all` or `top` traders.
        population: Label,
        /// Length of the period that the figure covers, in seconds.
        period_seconds: Integer,
        /// Long divided by short.
        ratio: Decimal,
        /// Share of longs, 0 to 1.
        long_share: Option<Decimal>,
        /// Share of shorts, 0 to 1.
        short_share: Option<Decimal>,
    }

    /// The price by which a venue values positions.
    "mark_price" in "mark_prices" as MARK_PRICE, MarkPrice, MarkPriceBuilder, MarkPriceRows
    time ["event_time"] key ["venue", "market", "symbol", "event_time"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `perpetual`, `future` or `option`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// When the price was set, by the venue's clock.
        event_time: Time,
        /// When we received it.
        receive_time: Option<Time>,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// Mark price in the quote asset.
        price: Decimal,
        /// Estimated settlement price, where the venue sends it.
        settlement_price: Option<Decimal>,
    }

    /// The price of an underlying index.
    "index_price" in "index_prices" as INDEX_PRICE, IndexPrice, IndexPriceBuilder, IndexPriceRows
    time ["event_time"] key ["venue", "market", "symbol", "event_time"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market of the instrument that the index underlies, or `index` for an index of its own.
        market: Label,
        /// The canonical symbol of the instrument, or of the index.
        symbol: Label,
        /// When the price was set, by the venue's clock.
        event_time: Time,
        /// When we received it.
        receive_time: Option<Time>,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// Index price in the quote asset.
        price: Decimal,
    }

    /// A volatility index (Deribit DVOL), in percent a year.
    "volatility_index" in "volatility_indices" as VOLATILITY_INDEX, VolatilityIndex, VolatilityIndexBuilder, VolatilityIndexRows
    time ["event_time"] key ["venue", "market", "symbol", "event_time"] revisable false
    {
        /// The venue, e.g. `deribit`.
        venue: Label,
        /// The market, `index`.
        market: Label,
        /// The index, e.g. `BTC-DVOL`.
        symbol: Label,
        /// The end of the interval, by the venue's clock.
        event_time: Time,
        /// When we received it.
        receive_time: Option<Time>,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// Value at the start of the interval.
        open: Option<Decimal>,
        /// Highest value.
        high: Option<Decimal>,
        /// Lowest value.
        low: Option<Decimal>,
        /// Value at the end of the interval.
        close: Decimal,
    }

    /// An instrument as its venue lists it, from one time on.
    "instrument" in "instruments" as INSTRUMENT, Instrument, InstrumentBuilder, InstrumentRows
    time ["event_time"] key ["venue", "market", "symbol", "event_time"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `spot`, `perpetual`, `future`, `option` or `index`.
        market: Label,
        /// The canonical symbol.
        symbol: Label,
        /// From when the listing is valid, by the venue's clock.
        event_time: Time,
        /// When we received it.
        receive_time: Option<Time>,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// The venue's own symbol, e.g. `BTCUSDT`.
        venue_symbol: Text,
        /// The base asset, e.g. `BTC`.
        base: Label,
        /// The quote asset, e.g. `USDT`.
        quote: Label,
        /// The asset in which profit is settled.
        settlement: Option<Label>,
        /// The venue's word for its state, in lower case, e.g. `trading`.
        status: Option<Label>,
        /// Smallest step of the price.
        tick_size: Option<Decimal>,
        /// Smallest step of the size, in the venue's units.
        lot_size: Option<Decimal>,
        /// Size of a contract: in the base asset, or in the quote asset for inverse instruments.
        contract_size: Option<Decimal>,
        /// Whether the contract is worth a fixed amount of the quote asset and settled in the base asset.
        inverse: Boolean,
        /// When it expires; null for spot and perpetuals.
        expiry: Option<Time>,
        /// Strike price of an option.
        strike: Option<Decimal>,
        /// `call` or `put`, of an option.
        option_type: Option<Label>,
    }

    /// The state of a venue or of one of its instruments.
    "venue_status" in "venue_statuses" as VENUE_STATUS, VenueStatus, VenueStatusBuilder, VenueStatusRows
    time ["event_time", "receive_time"] key ["venue", "market", "symbol", "event_time"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market that the state concerns; null for the whole venue.
        market: Option<Label>,
        /// The instrument that the state concerns; null for the whole market.
        symbol: Option<Label>,
        /// When the state began, by the venue's clock.
        event_time: Option<Time>,
        /// When we received it.
        receive_time: Option<Time>,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// The state, in lower case, e.g. `trading`, `halted`, `maintenance`.
        status: Label,
        /// The venue's explanation.
        message: Option<Text>,
    }

    /// Records that a live source did not get, and what became of them: a row when a hole is found in the numbers of a channel
    /// (or, where the venue numbers nothing, between two connections), and one when it is filled or cannot be.
    "gap" in "gaps" as GAP, Gap, GapBuilder, GapRows
    time ["event_time"] key ["venue", "market", "symbol", "channel", "event", "event_time", "first_number"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `spot`, `perpetual`, `future`, `option` or `index`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// The event time of the record behind the hole.
        event_time: Time,
        /// When we noticed.
        receive_time: Option<Time>,
        /// The frame of the source that tells it.
        frame: Option<Integer>,
        /// What is missing: `trade` or `book`. A book heals with a snapshot, and `book_events` tell when; trades are asked for.
        channel: Label,
        /// `found`; `filled` when all of it came; `lost` when the venue cannot tell it; `overdue` when event time
        /// goes on without waiting for it any longer.
        event: Label,
        /// The first number missing; null where the venue numbers none.
        first_number: Option<Integer>,
        /// The last number missing.
        last_number: Option<Integer>,
        /// The event time of the record before the hole.
        since: Time,
        /// Why, where that is known.
        detail: Option<Text>,
    }

    /// The terms of an instrument from one time until another, as its venue listed it.
    "instrument_terms" in "instrument_terms" as INSTRUMENT_TERMS, InstrumentTerms, InstrumentTermsBuilder, InstrumentTermsRows
    time ["event_time"] key ["venue", "market", "symbol", "event_time"] revisable true
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `spot`, `perpetual`, `future`, `option` or `index`.
        market: Label,
        /// The canonical symbol.
        symbol: Label,
        /// From when they are valid, by the venue's clock.
        event_time: Time,
        /// Until when, exclusive; null while they are.
        valid_until: Option<Time>,
        /// The frame of the source that first told them.
        frame: Option<Integer>,
        /// The venue's own symbol, e.g. `BTCUSDT`.
        venue_symbol: Text,
        /// The base asset, e.g. `BTC`.
        base: Label,
        /// The quote asset, e.g. `USDT`.
        quote: Label,
        /// The asset in which profit is settled.
        settlement: Option<Label>,
        /// The venue's word for its state, in lower case, e.g. `trading`.
        status: Option<Label>,
        /// Smallest step of the price.
        tick_size: Option<Decimal>,
        /// Smallest step of the size, in the venue's units.
        lot_size: Option<Decimal>,
        /// Size of a contract: in the base asset, or in the quote asset for inverse instruments.
        contract_size: Option<Decimal>,
        /// Whether the contract is worth a fixed amount of the quote asset and settled in the base asset.
        inverse: Boolean,
        /// When it expires; null for spot and perpetuals.
        expiry: Option<Time>,
        /// Strike price of an option.
        strike: Option<Decimal>,
        /// `call` or `put`, of an option.
        option_type: Option<Label>,
    }

    /// Open, high, low, close and volumes of the trades of one window.
    "bar" in "bars" as BAR, Bar, BarBuilder, BarRows
    time ["start"] key ["venue", "market", "symbol", "interval_seconds", "start"] revisable true
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `spot`, `perpetual`, `future`, `option` or `index`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// Length of the window in seconds.
        interval_seconds: Integer,
        /// Start of the window, inclusive. A trade belongs to the window that its event time lies in.
        start: Time,
        /// End of the window, exclusive.
        end: Time,
        /// Price of the first trade by (event time, trade id).
        open: Decimal,
        /// Highest price.
        high: Decimal,
        /// Lowest price.
        low: Decimal,
        /// Price of the last trade by (event time, trade id).
        close: Decimal,
        /// Sum of sizes, in the base asset.
        volume: Decimal,
        /// Sum of price times size, in the quote asset; summed exactly, rounded half to even once.
        quote_volume: Decimal,
        /// Volume of trades whose taker bought. Cumulative volume delta is the running sum of buy minus sell volume.
        buy_volume: Decimal,
        /// Volume of trades whose taker sold.
        sell_volume: Decimal,
        /// Number of trades; a venue's aggregate counts as the trades it merged.
        trades: Integer,
        /// Volume-weighted mean price, rounded half to even; null where the volume is zero.
        vwap: Option<Decimal>,
        /// Identifier of the first trade.
        first_trade_id: Text,
        /// Identifier of the last trade.
        last_trade_id: Text,
        /// Event time of the first trade.
        first_trade_time: Time,
        /// Event time of the last trade.
        last_trade_time: Time,
        /// The window was still open, by the watermark, when this version was made.
        partial: Boolean,
        /// A trade came after the watermark had passed the end of the window and revised it.
        late: Boolean,
        /// Trade ids inside the window are not consecutive: trades are missing. Null where ids are not numbers.
        gap: Option<Boolean>,
    }

    /// A bar that ended when enough had happened: open, high, low, close and volumes of trades that follow each other, by (event
    /// time, trade id).
    "activity_bar" in "activity_bars" as ACTIVITY_BAR, ActivityBar, ActivityBarBuilder, ActivityBarRows
    time ["end"] key ["venue", "market", "symbol", "rule", "number"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `spot`, `perpetual`, `future`, `option` or `index`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// The rule by which bars end, e.g. `volume 10`.
        rule: Label,
        /// The number of the bar among those of its instrument and rule, from 0.
        number: Integer,
        /// Event time of the first trade.
        start: Time,
        /// Event time of the last trade.
        end: Time,
        /// Price of the first trade; of a brick, where it begins.
        open: Decimal,
        /// Highest price; of a brick, its upper end.
        high: Decimal,
        /// Lowest price; of a brick, its lower end.
        low: Decimal,
        /// Price of the last trade; of a brick, where it ends.
        close: Decimal,
        /// Sum of sizes, in the base asset. Of several bricks that one trade lays, the first has all.
        volume: Decimal,
        /// Sum of price times size, in the quote asset; summed exactly, rounded half to even once.
        quote_volume: Decimal,
        /// Volume of trades whose taker bought.
        buy_volume: Decimal,
        /// Volume of trades whose taker sold.
        sell_volume: Decimal,
        /// Number of trades; a venue's aggregate counts as the trades it merged.
        trades: Integer,
        /// Volume-weighted mean price, rounded half to even; null where the volume is zero.
        vwap: Option<Decimal>,
        /// What had to be reached; null where the number of trades ended the bar of a rule that expects something.
        threshold: Option<Decimal>,
        /// Identifier of the first trade.
        first_trade_id: Text,
        /// Identifier of the last trade.
        last_trade_id: Text,
    }

    /// The state of a rebuilt order book after a change.
    "book_metrics" in "book_metrics" as BOOK_METRICS, BookMetrics, BookMetricsBuilder, BookMetricsRows
    time ["event_time"] key ["venue", "market", "symbol", "sequence"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `spot`, `perpetual`, `future`, `option` or `index`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// When the book changed, by the venue's clock.
        event_time: Time,
        /// When we received the change.
        receive_time: Option<Time>,
        /// The frame of the source that carried the change.
        frame: Option<Integer>,
        /// Update number of the book; null where the venue numbers none.
        sequence: Option<Integer>,
        /// Best bid in the quote asset.
        bid_price: Option<Decimal>,
        /// Size at the best bid, in the units of the book.
        bid_quantity: Option<Decimal>,
        /// Best ask in the quote asset.
        ask_price: Option<Decimal>,
        /// Size at the best ask, in the units of the book.
        ask_quantity: Option<Decimal>,
        /// Mean of best bid and best ask.
        mid: Option<Decimal>,
        /// Mean of best bid and ask weighted with the size of the other side.
        microprice: Option<Decimal>,
        /// Best ask minus best bid.
        spread: Option<Decimal>,
        /// Spread divided by mid, in basis points.
        spread_bps: Option<Decimal>,
        /// (bid size - ask size) / (bid size + ask size) over the best levels (option `levels`), -1 to 1.
        imbalance: Option<Decimal>,
        /// Size of the bids within the option `depth_bps` of the mid.
        bid_depth: Decimal,
        /// Size of the asks within the option `depth_bps` of the mid.
        ask_depth: Decimal,
        /// Number of bid levels in the book.
        bid_levels: Integer,
        /// Number of ask levels in the book.
        ask_levels: Integer,
        /// Size of all bids in the book.
        bid_total: Decimal,
        /// Size of all asks in the book.
        ask_total: Decimal,
        /// Comparisons with the venue's own best bid and ask at the same update number, so far.
        oracle_checks: Integer,
        /// How many of those comparisons differed.
        oracle_mismatches: Integer,
    }

    /// A change in the life of a rebuilt order book: where its data can be trusted and where not.
    "book_event" in "book_events" as BOOK_EVENT, BookEvent, BookEventBuilder, BookEventRows
    time ["event_time", "receive_time"] key ["venue", "market", "symbol", "frame"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `spot`, `perpetual`, `future`, `option` or `index`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// When it happened, by the venue's clock.
        event_time: Option<Time>,
        /// When we received the frame that caused it.
        receive_time: Option<Time>,
        /// The frame of the source that caused it.
        frame: Option<Integer>,
        /// `buffering` (deltas wait for a snapshot), `snapshot` (one was applied), `live` (the chain holds),
        /// `gap` (update numbers are missing: the book is invalid until the next snapshot), `checksum` (the venue's checksum is
        /// that of another book: likewise), `crossed` (best bid not below best ask), `uncrossed`, or `mismatch` (the venue's
        /// own best bid and ask differ).
        event: Label,
        /// The update number that was expected or compared.
        expected_sequence: Option<Integer>,
        /// The update number that came.
        sequence: Option<Integer>,
        /// What happened, in words, with the numbers.
        detail: Text,
    }

    /// Something in the data that should not be trusted, or traded on, before a human has looked.
    "anomaly" in "anomalies" as ANOMALY, Anomaly, AnomalyBuilder, AnomalyRows
    time ["event_time", "receive_time"] key ["venue", "market", "symbol", "anomaly", "channel", "event_time"] revisable false
    {
        /// The venue, e.g. `binance`.
        venue: Label,
        /// The market: `spot`, `perpetual`, `future`, `option` or `index`.
        market: Label,
        /// The instrument's canonical symbol.
        symbol: Label,
        /// What is wrong: `price_spike`, `sequence_gap`, `crossed_book`, `book_mismatch` or `stale_feed`.
        anomaly: Label,
        /// The kind of record in which it was seen, e.g. `trade`.
        channel: Label,
        /// When it happened, by the venue's clock.
        event_time: Option<Time>,
        /// When we received the record that showed it.
        receive_time: Option<Time>,
        /// The frame of the source that carried that record.
        frame: Option<Integer>,
        /// What was observed: a price, a sequence number, an age in seconds.
        observed: Option<Decimal>,
        /// What was expected in its place.
        expected: Option<Decimal>,
        /// How far observed is from expected, in the detector's own measure.
        score: Option<Float>,
        /// The score from which on the detector reports.
        threshold: Option<Float>,
        /// Length of the detector's window in seconds.
        window_seconds: Option<Integer>,
        /// First sequence number concerned (the first that is missing, for a gap).
        first_sequence: Option<Integer>,
        /// Last sequence number concerned (the last that is missing, for a gap).
        last_sequence: Option<Integer>,
        /// `open` when the anomaly begins or has no duration, `closed` when it ends.
        state: Label,
        /// What was seen, in words, with the numbers.
        detail: Text,
    }

    /// Input that could not be used, with the reason and the bytes: nothing vanishes.
    "dead_letter" in "dead_letters" as DEAD_LETTER, DeadLetter, DeadLetterBuilder, DeadLetterRows
    time ["event_time", "receive_time", "rejected_time"] key ["node", "reason", "frame"] revisable false
    {
        /// The source or operator of the pipeline that refused it.
        node: Label,
        /// The reason, from a short list, e.g. `malformed`, `late`, `unknown_instrument`.
        reason: Label,
        /// The reason in words, with the offending value.
        detail: Text,
        /// The event time, if it could be read.
        event_time: Option<Time>,
        /// When we received it, if known.
        receive_time: Option<Time>,
        /// When it was refused: the logical time of the dataflow.
        rejected_time: Time,
        /// The frame of the source that carried it.
        frame: Option<Integer>,
        /// The kind of the refused record, `frame` for raw input.
        kind: Label,
        /// The venue, if it could be read.
        venue: Option<Label>,
        /// The market, if it could be read.
        market: Option<Label>,
        /// The symbol, if it could be read.
        symbol: Option<Label>,
        /// The input as it came: a frame's bytes, or a record as JSON.
        payload: Bytes,
    }
}
