//! What a venue's symbols stand for: its listing, and where that is silent, their letters.

use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;
use model::instrument::Listing;
use model::packed::{Packed, Recent};

use super::Instruments;

/// What the letters of a venue's symbols say.
pub(super) trait Spelling: Copy + fmt::Debug + Send {
    /// The venue's own listing of its instruments, as its documentation calls it.
    const LISTING: &'static str;

    /// What a symbol says, if it says anything.
    fn read(self, symbol: &str) -> Option<Listing>;
}

/// Symbols remembered at most; a venue lists a few thousand, and no more than tens of thousands of options.
const REMEMBERED: usize = 1 << 16;

/// Whether this may be an asset: letters of any script, because some are Chinese, and digits.
pub(super) fn is_asset(text: &str) -> bool {
    !text.is_empty() && text.chars().all(char::is_alphanumeric)
}

/// Whether this is the year, month and day of an expiry, `260327`.
pub(super) fn is_date(text: &str) -> bool {
    text.len() == 6 && text.bytes().all(|b| b.is_ascii_digit())
}

/// The instruments of one market by symbol, remembered as they come.
///
/// Frames of few symbols come in any order, so a lookup counts.
#[derive(Debug)]
pub(super) struct Symbols<S> {
    spelling: S,
    listed: Arc<Instruments>,
    recent: Recent<9>,
    numbers: HashMap<Box<[u8]>, u32, ahash::RandomState>,
    known: Vec<Listing>,
}

impl<S: Spelling> Symbols<S> {
    pub(super) fn new(spelling: S, listed: Arc<Instruments>) -> Self {
        Symbols { spelling, listed, recent: Recent::default(), numbers: HashMap::default(), known: Vec::new() }
    }

    /// The instrument of a symbol in capital letters.
    #[inline(always)]
    pub(super) fn find(&mut self, symbol: &[u8]) -> Option<&Listing> {
        let packed = Packed::of(symbol);
        let number = match packed.and_then(|packed| self.recent.get(packed)) {
            Some(number) => number,
            None => self.look_up(symbol, packed)?,
        };
        self.known.get(number as usize)
    }

    #[inline(never)]
    fn look_up(&mut self, symbol: &[u8], packed: Option<Packed>) -> Option<u32> {
        let number = match self.numbers.get(symbol) {
            Some(number) => *number,
            None => self.learn(symbol)?,
        };
        if let Some(packed) = packed {
            self.recent.put(packed, number);
        }
        Some(number)
    }

    #[cold]
    fn learn(&mut self, symbol: &[u8]) -> Option<u32> {
        let name = std::str::from_utf8(symbol).ok()?;
        let listing = self.listed.get(name).cloned().or_else(|| self.spelling.read(name))?;
        if self.known.len() >= REMEMBERED {
            // More symbols than a venue has: they are being made up.
            *self = Symbols::new(self.spelling, self.listed.clone());
        }
        let number = self.known.len() as u32;
        self.numbers.insert(symbol.into(), number);
        self.known.push(listing);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::super::binance::Exchange;
    use super::*;

    #[test]
    fn a_listing_wins_over_the_letters() {
        let mut listed = Instruments::default();
        listed.insert("XTUSD".into(), Listing::spot("XT", "USD"));
        let mut symbols = Symbols::new(Exchange::Spot, Arc::new(listed));
        assert_eq!(symbols.find(b"XTUSD").unwrap().symbol, "XT-USD");
        assert_eq!(symbols.find(b"BTCTUSD").unwrap().symbol, "BTC-TUSD");
        assert_eq!(symbols.find(b"XTUSD").unwrap().symbol, "XT-USD");
        assert!(symbols.find(b"\xff").is_none());
    }

    #[test]
    fn every_symbol_finds_its_own_listing() {
        let mut symbols = Symbols::new(Exchange::Spot, Arc::default());
        for round in 0..2 {
            for n in 0..REMEMBERED + 10 {
                let base = format!("{}{n}", "ABCDEFGHIJKL".get(..n % 13).unwrap());
                assert_eq!(symbols.find(format!("{base}BTC").as_bytes()).unwrap().symbol, format!("{base}-BTC"), "in round {round}");
            }
        }
        assert!(symbols.known.len() <= REMEMBERED);
    }
}
