//! Venue dialects: pure functions from a venue's bytes to records.
//!
//! A dialect is made by its name, as a frame carries it. What it may know of instruments beyond their
//! symbols comes from the venue's own listings, which sources hand to [`Dialects::learn`] before the
//! dataflow is built; every dialect made afterwards shares them, on whichever worker it decodes.

use std::sync::Arc;

use hashbrown::HashMap;
use model::dialect::Dialect;
use model::instrument::Listing;

pub mod binance;
pub mod digits;
pub mod json;

use binance::{Binance, Exchange};

/// Names of every dialect, as `dialect = "…"` has them.
pub const NAMES: [&str; 3] = ["binance_spot", "binance_usdm", "binance_coinm"];

/// The dialect of this name, knowing no listings.
pub fn make(name: &str) -> Option<Box<dyn Dialect>> {
    Dialects::default().make(name)
}

/// Instruments by the venue's own symbols.
pub type Instruments = HashMap<Box<str>, Listing, ahash::RandomState>;

/// The dialects of a pipeline, with the listings that its sources know.
#[derive(Clone, Debug, Default)]
pub struct Dialects {
    listings: HashMap<&'static str, Arc<Instruments>>,
}

impl Dialects {
    /// Takes in a venue's listing (Binance: the answer of `exchangeInfo`) for a dialect. Later listings add to
    /// earlier ones and win over them.
    ///
    /// # Errors
    /// Says what about the listing cannot be read, or that there is no such dialect.
    pub fn learn(&mut self, dialect: &str, listing: &[u8]) -> Result<(), String> {
        let name = NAMES.into_iter().find(|n| *n == dialect).ok_or_else(|| format!("there is no dialect `{dialect}`"))?;
        let exchange = Exchange::of(name).expect("every dialect is one of Binance's");
        let instruments = binance::instruments(exchange, listing)?;
        Arc::make_mut(self.listings.entry(name).or_default()).extend(instruments);
        Ok(())
    }

    /// The dialect of this name.
    pub fn make(&self, name: &str) -> Option<Box<dyn Dialect>> {
        let exchange = Exchange::of(name)?;
        Some(Box::new(Binance::new(exchange, self.listings.get(name).cloned().unwrap_or_default())))
    }
}
