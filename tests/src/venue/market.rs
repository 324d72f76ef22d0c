//! A market made up: trades and changes of one book, the same for a seed, for venues of which there is no long recording.
//!
//! It knows what it did, so what a pipeline should have stored of it is told without any venue's protocol: [`Market::trades`] and
//! [`Market::books`].

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// When it begins, in milliseconds since 1970.
pub const BEGIN: u64 = 1_723_161_253_000;
/// Levels of a side, about.
const LEVELS: usize = 20;
/// The number of the first trade, less one.
const TRADES: u64 = 1_000;
/// The number of the book before its first change.
const CHANGES: u64 = 50_000;

/// Something that happens, at a millisecond of its own.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A trade.
    Trade(Trade),
    /// The book changes.
    Change(Change),
}

/// A trade.
#[derive(Clone, Copy, Debug)]
pub struct Trade {
    /// Its number; they have no holes.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub time: u64,
    /// In tenths of the quote asset.
    pub price: u64,
    /// In thousandths of the base asset.
    pub quantity: u64,
    /// Whether the taker bought.
    pub bought: bool,
}

/// A change of the book: new sizes at prices; 0 removes one.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its number; they have no holes.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub time: u64,
    /// Prices and sizes of bids, in tenths and thousandths.
    pub bids: Vec<(u64, u64)>,
    /// Of asks.
    pub asks: Vec<(u64, u64)>,
}

/// The book at a moment.
#[derive(Clone, Debug)]
pub struct Book {
    /// The number of its last change.
    pub number: u64,
    /// When that was.
    pub time: u64,
    /// Sizes by price.
    pub bids: BTreeMap<u64, u64>,
    /// Sizes by price.
    pub asks: BTreeMap<u64, u64>,
}

impl Book {
    /// Applies a change.
    pub fn change(&mut self, change: &Change) {
        (self.number, self.time) = (change.number, change.time);
        for (side, levels) in [(&mut self.bids, &change.bids), (&mut self.asks, &change.asks)] {
            for (price, size) in levels {
                if *size == 0 {
                    side.remove(price);
                } else {
                    side.insert(*price, *size);
                }
            }
        }
    }

    /// Bids, highest first.
    pub fn bids(&self) -> Vec<(u64, u64)> {
        self.bids.iter().rev().map(|(price, size)| (*price, *size)).collect()
    }

    /// Asks, lowest first.
    pub fn asks(&self) -> Vec<(u64, u64)> {
        self.asks.iter().map(|(price, size)| (*price, *size)).collect()
    }

    /// What a row of `book_metrics` says of it, in the columns of [`BOOK`].
    fn row(&self) -> String {
        let best = |level: Option<(&u64, &u64)>| {
            let (price, size) = level.expect("a side is never empty");
            format!("{} {}", price_text(*price), size_text(*size))
        };
        let total = |side: &BTreeMap<u64, u64>| format!("{} {}", side.len(), size_text(side.values().sum()));
        let (bid, ask) = (best(self.bids.last_key_value()), best(self.asks.first_key_value()));
        format!("{bid} {ask} {} {}", total(&self.bids), total(&self.asks))
    }
}

/// The columns of `book_metrics` that [`Market::books`] tells, in its order.
pub const BOOK: &str = "bid_price, bid_quantity, ask_price, ask_quantity, bid_levels, bid_total, ask_levels, ask_total";
/// The columns of `trades` that [`Market::trades`] tells, in its order.
pub const TRADE: &str = "price, quantity, side";

/// A price as text, without trailing zeros.
pub fn price_text(tenths: u64) -> String {
    decimal(tenths, 1)
}

/// A size as text, without trailing zeros.
pub fn size_text(thousandths: u64) -> String {
    decimal(thousandths, 3)
}

/// A number of so many fraction digits as text, without trailing zeros.
fn decimal(units: u64, digits: u32) -> String {
    let fixed = fixed(units, digits);
    if fixed.contains('.') { fixed.trim_end_matches('0').trim_end_matches('.').to_owned() } else { fixed }
}

/// A number of so many fraction digits as text, with all of them.
pub fn fixed(units: u64, digits: u32) -> String {
    let one = 10_u64.pow(digits);
    format!("{}.{:0width$}", units / one, units % one, width = digits as usize)
}

/// The CRC-32 of a text, which venues use for checksums of books.
pub fn crc32(text: &str) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
    !text.bytes().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(byte), step))
}

/// A market from its beginning to its end.
#[derive(Clone, Debug)]
pub struct Market {
    /// The book before anything happens.
    pub begins: Book,
    /// What happens.
    pub happenings: Vec<Happening>,
}

impl Market {
    /// Makes up a market in which so many things happen.
    pub fn new(seed: u64, count: usize) -> Market {
        Market::made_of(usize::MAX, 3, seed, count)
    }

    /// Makes up a market in which so many things happen: a change is of so many levels at most, and one of so many things is a trade.
    pub fn made_of(most: usize, one_in: u64, seed: u64, count: usize) -> Market {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut below = |n: u64| u64::from(random.next_u32()) % n;
        let mut book = Book { number: CHANGES, time: BEGIN, bids: BTreeMap::new(), asks: BTreeMap::new() };
        for level in 0..LEVELS as u64 {
            book.bids.insert(600_000 - 1 - level, 1 + below(5_000));
            book.asks.insert(600_000 + 1 + level, 1 + below(5_000));
        }
        let begins = book.clone();
        let mut trades = TRADES;
        let happenings = (1..=count as u64).map(|at| {
            let time = BEGIN + at;
            let (bid, ask) = (*book.bids.last_key_value().expect("never empty").0, *book.asks.first_key_value().expect("never empty").0);
            if below(one_in) == 0 {
                trades += 1;
                let bought = below(2) == 0;
                let price = if bought { ask } else { bid };
                return Happening::Trade(Trade { number: trades, time, price, quantity: 1 + below(3_000), bought });
            }
            let mut change = Change { number: book.number + 1, time, bids: Vec::new(), asks: Vec::new() };
            let is_bid = below(2) == 0;
            let (side, levels, best) = if is_bid { (&book.bids, &mut change.bids, bid) } else { (&book.asks, &mut change.asks, ask) };
            // A side that is short gets a level, one that is long loses one; else a size changes.
            let place = |distance: u64| if is_bid { best - distance } else { best + distance };
            if side.len() < LEVELS {
                // Nearer to the other side than the best one, where there is room.
                let inside = if ask - bid > 2 && below(4) == 0 { Some(if is_bid { bid + 1 } else { ask - 1 }) } else { None };
                levels.push((inside.unwrap_or_else(|| place(below(40))), 1 + below(5_000)));
            } else {
                let prices: Vec<u64> = side.keys().copied().collect();
                let price = prices[below(prices.len() as u64) as usize];
                let size = if below(3) == 0 { 0 } else { 1 + below(5_000) };
                levels.push((price, size));
                let farthest = place(60 + below(3));
                if below(5) == 0 && farthest != price {
                    levels.push((farthest, 1 + below(5_000)));
                }
                let stale: Vec<u64> = prices.into_iter().filter(|price| price.abs_diff(best) > 80).collect();
                levels.extend(stale.into_iter().filter(|stale| *stale != price).map(|price| (price, 0)));
            }
            levels.truncate(most);
            book.change(&change);
            Happening::Change(change)
        });
        let happenings = happenings.collect();
        Market { begins, happenings }
    }

    /// The rows of its trades by their numbers: price, quantity, side.
    pub fn trades(&self) -> BTreeMap<u64, String> {
        let trade = |happening: &Happening| match happening {
            Happening::Trade(trade) => {
                let side = if trade.bought { "buy" } else { "sell" };
                Some((trade.number, format!("{} {} {side}", price_text(trade.price), size_text(trade.quantity))))
            }
            Happening::Change(_) => None,
        };
        self.happenings.iter().filter_map(trade).collect()
    }

    /// The rows of its book by the milliseconds of its changes.
    pub fn books(&self) -> BTreeMap<u64, String> {
        let mut book = self.begins.clone();
        let mut rows = BTreeMap::from([(book.time, book.row())]);
        for happening in &self.happenings {
            if let Happening::Change(change) = happening {
                book.change(change);
                rows.insert(book.time, book.row());
            }
        }
        rows
    }
}

/// What a venue knows of its market so far.
#[derive(Clone, Debug)]
pub struct Known {
    /// The book.
    pub book: Book,
    /// The trades, oldest first.
    pub trades: Vec<Trade>,
    /// All that happens, also what has not yet.
    pub market: Market,
    next: usize,
}

impl Known {
    /// Nothing has happened yet.
    pub fn new(market: Market) -> Known {
        Known { book: market.begins.clone(), trades: Vec::new(), next: 0, market }
    }

    /// The next thing happens.
    pub fn happens(&mut self) {
        match &self.market.happenings[self.next] {
            Happening::Trade(trade) => self.trades.push(*trade),
            Happening::Change(change) => self.book.change(change),
        }
        self.next += 1;
    }
}
