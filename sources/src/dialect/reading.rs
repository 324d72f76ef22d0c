//! What all venues' events have in common: instruments, sizes, books, and rows that are pushed or only checked.

use model::Decimal;
use model::dialect::FrameRef;
use model::instrument::{Contract, Listing};
use model::kinds::{BookDelta, BookSnapshot};
use model::time::Micros;

use super::fields::{Event, Keys, Refusal, decimal, excerpt, refuse};
use super::json::{Scanner, Token, Value};
use super::symbols::{Spelling, Symbols};

/// Whether records are pushed, or an event of a list is only checked before any is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Check,
    Push,
}

/// Both sides of a book.
#[derive(Debug, Default)]
pub(super) struct Levels {
    pub(super) bids: Side,
    pub(super) asks: Side,
}

/// One side of a book: prices and sizes, in the order sent.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) prices: Vec<Decimal>,
    pub(super) quantities: Vec<Decimal>,
}

impl Levels {
    /// The whole book that these levels are, without what only some venues say of it.
    #[inline(always)]
    pub(super) fn snapshot<'r>(
        &'r self,
        venue: &'static str,
        listing: &'r Listing,
        frame: FrameRef<'_>,
        event_time: Option<Micros>,
        sequence: Option<i64>,
    ) -> BookSnapshot<'r> {
        BookSnapshot {
            venue,
            market: listing.market.as_str(),
            symbol: &listing.symbol,
            event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            sequence,
            origin: "venue",
            bid_prices: &self.bids.prices,
            bid_quantities: &self.bids.quantities,
            ask_prices: &self.asks.prices,
            ask_quantities: &self.asks.quantities,
            contracts: listing.contract.is_some(),
            depth: None,
            checksum: None,
            price_digits: None,
            quantity_digits: None,
        }
    }

    /// The change of a book that these levels are, without numbers and what only some venues say of it.
    #[inline(always)]
    pub(super) fn delta<'r>(&'r self, venue: &'static str, listing: &'r Listing, frame: FrameRef<'_>, event_time: Micros) -> BookDelta<'r> {
        BookDelta {
            venue,
            market: listing.market.as_str(),
            symbol: &listing.symbol,
            event_time,
            receive_time: frame.receive_time,
            frame: Some(frame.frame),
            first_sequence: None,
            last_sequence: None,
            previous_sequence: None,
            bid_prices: &self.bids.prices,
            bid_quantities: &self.bids.quantities,
            ask_prices: &self.asks.prices,
            ask_quantities: &self.asks.quantities,
            contracts: listing.contract.is_some(),
            checksum: None,
            price_digits: None,
            quantity_digits: None,
        }
    }
}

impl Side {
    /// Reads the levels `[["price","size",…],…]` of a member.
    pub(super) fn read<K: Keys>(&mut self, event: Event<'_, K>, name: &'static str) -> Result<(), Refusal> {
        self.prices.clear();
        self.quantities.clear();
        let levels = event.of_type(name, Token::Array, "a list of levels")?;
        let mut refused = None;
        let walk = Scanner::at(event.text, levels).array(|s| match s.level() {
            Some((price, quantity)) => {
                self.prices.push(price);
                self.quantities.push(quantity);
                Ok(())
            }
            None => {
                let level = s.value()?;
                if refused.is_none() {
                    refused = self.push_unusual(event.text, name, level).err();
                }
                Ok(())
            }
        });
        debug_assert!(walk.is_ok(), "the levels were scanned before");
        refused.map_or(Ok(()), Err)
    }

    /// A level with white space, long numbers or further elements that are not plain; or one that is none.
    #[cold]
    fn push_unusual(&mut self, text: &[u8], name: &'static str, level: Value) -> Result<(), Refusal> {
        let none = || refuse("wrong_type", format!("`{name}` holds {}, where a level [price, size] should be", excerpt(text, level)));
        if level.token != Token::Array {
            return Err(none());
        }
        let mut parts = Vec::new();
        let walk = Scanner::at(text, level).array(|s| s.value().map(|part| parts.push(part)));
        match (walk, parts.as_slice()) {
            (Ok(()), [price @ Value { token: Token::Text, .. }, quantity @ Value { token: Token::Text, .. }, ..]) => {
                let (price, quantity) = (decimal(text, name, *price)?, decimal(text, name, *quantity)?);
                self.prices.push(price);
                self.quantities.push(quantity);
                Ok(())
            }
            _ => Err(none()),
        }
    }
}

/// The instrument that a member names.
#[inline(always)]
pub(super) fn find<'s, K: Keys, S: Spelling>(
    event: Event<'_, K>,
    name: &'static str,
    symbols: &'s mut Symbols<S>,
) -> Result<&'s Listing, Refusal> {
    match event.get(name) {
        Some(value) if value.token == Token::Escaped => named(&event.text(name)?, symbols),
        _ => {
            let symbol = event.characters(name)?;
            symbols.find(symbol).ok_or_else(|| unknown_instrument::<S>(&String::from_utf8_lossy(symbol)))
        }
    }
}

/// The instrument of a symbol.
pub(super) fn named<'s, S: Spelling>(symbol: &str, symbols: &'s mut Symbols<S>) -> Result<&'s Listing, Refusal> {
    symbols.find(symbol.as_bytes()).ok_or_else(|| unknown_instrument::<S>(symbol))
}

#[cold]
fn unknown_instrument<S: Spelling>(symbol: &str) -> Refusal {
    let detail = format!(
        "`{symbol}` is not in the listing and its letters do not tell base from quote; give the source the venue's `{}` as `instruments`",
        S::LISTING
    );
    refuse("unknown_instrument", detail)
}

/// Without the venue's time a record needs ours.
pub(super) fn some_time(event_time: Option<Micros>, frame: FrameRef<'_>) -> Result<(), Refusal> {
    if event_time.or(frame.receive_time).is_some() {
        return Ok(());
    }
    Err(refuse("no_time", "the frame carries no time of the venue's and the recording none of ours"))
}

/// A size in the base asset, and in contracts where it was sent so.
#[inline]
pub(super) fn in_base(contract: Option<Contract>, size: Decimal, price: Decimal) -> Result<(Decimal, Option<Decimal>), Refusal> {
    match contract {
        None => Ok((size, None)),
        Some(contract) => match contract.base_quantity(size, price) {
            Some(quantity) => Ok((quantity, Some(size))),
            None => Err(refuse("overflow", format!("{size} contracts at {price} are no size in the base asset"))),
        },
    }
}

/// The best level of one side; none where price or size is zero.
#[inline]
pub(super) fn best(listing: &Listing, price: Decimal, size: Decimal) -> Result<(Option<Decimal>, Option<Decimal>), Refusal> {
    if price == Decimal::ZERO || size == Decimal::ZERO {
        return Ok((None, None));
    }
    in_base(listing.contract, size, price).map(|(quantity, _)| (Some(price), Some(quantity)))
}
