//! Venue dialects: pure functions from a venue's bytes to records.
//!
//! A dialect is made by its name, as a frame carries it. What it may know of instruments beyond their
//! symbols comes from the venue's own listings, which sources hand to [`Dialects::learn`] before the
//! dataflow is built; every dialect made afterwards shares them, on whichever worker it decodes. What a source hears
//! of later is learned by each of them ([`Learn`]).

use std::sync::Arc;

use hashbrown::HashMap;
use model::dialect::{Dialect, FrameRef, Learn, Listed, Outcome, Records, Reject};
use model::instrument::Listing;

pub mod binance;
pub mod bybit;
pub mod coinbase;
pub mod deribit;
pub mod digits;
pub(crate) mod fields;
mod figures;
#[cfg(test)]
mod fuzz;
pub mod json;
pub mod kraken;
pub(crate) mod marketprism;
pub mod okx;
mod reading;
mod symbols;
#[cfg(test)]
pub(crate) mod testing;

use binance::{Binance, Exchange};
use bybit::{Bybit, Category};
use coinbase::{Api, Coinbase};
use deribit::Deribit;
use kraken::{Kraken, KrakenFutures};
use okx::Okx;

/// A venue's protocol, as it is found by its name.
struct Protocol {
    name: &'static str,
    make: fn(Arc<Instruments>) -> Box<dyn Dialect>,
    /// The instruments of a listing, in its order.
    instruments: fn(&[u8]) -> Result<Vec<Listed>, String>,
}

const PROTOCOLS: [Protocol; 15] = [
    Protocol {
        name: "binance_spot",
        make: |listed| Box::new(Binance::new(Exchange::Spot, listed)),
        instruments: |listing| binance::instruments(Exchange::Spot, listing),
    },
    Protocol {
        name: "binance_usdm",
        make: |listed| Box::new(Binance::new(Exchange::UsdM, listed)),
        instruments: |listing| binance::instruments(Exchange::UsdM, listing),
    },
    Protocol {
        name: "binance_coinm",
        make: |listed| Box::new(Binance::new(Exchange::CoinM, listed)),
        instruments: |listing| binance::instruments(Exchange::CoinM, listing),
    },
    Protocol {
        name: "binance_options",
        make: |listed| Box::new(Binance::new(Exchange::Options, listed)),
        instruments: |listing| binance::instruments(Exchange::Options, listing),
    },
    Protocol {
        name: "coinbase_exchange",
        make: |listed| Box::new(Coinbase::new(Api::Exchange, listed)),
        instruments: coinbase::instruments,
    },
    Protocol {
        name: "coinbase_advanced",
        make: |listed| Box::new(Coinbase::new(Api::Advanced, listed)),
        instruments: coinbase::instruments,
    },
    Protocol {
        name: "bybit_spot",
        make: |listed| Box::new(Bybit::new(Category::Spot, listed)),
        instruments: |listing| bybit::instruments(Category::Spot, listing),
    },
    Protocol {
        name: "bybit_linear",
        make: |listed| Box::new(Bybit::new(Category::Linear, listed)),
        instruments: |listing| bybit::instruments(Category::Linear, listing),
    },
    Protocol {
        name: "bybit_inverse",
        make: |listed| Box::new(Bybit::new(Category::Inverse, listed)),
        instruments: |listing| bybit::instruments(Category::Inverse, listing),
    },
    Protocol {
        name: "bybit_option",
        make: |listed| Box::new(Bybit::new(Category::Option, listed)),
        instruments: |listing| bybit::instruments(Category::Option, listing),
    },
    Protocol { name: "kraken", make: |listed| Box::new(Kraken::new(listed)), instruments: kraken::pairs },
    Protocol { name: "kraken_futures", make: |listed| Box::new(KrakenFutures::new(listed)), instruments: kraken::products },
    Protocol { name: "deribit", make: |listed| Box::new(Deribit::new(listed)), instruments: deribit::instruments },
    Protocol { name: "okx", make: |listed| Box::new(Okx::new(listed)), instruments: okx::instruments },
    Protocol { name: marketprism::NAME, make: |_| Box::new(marketprism::Own), instruments: |_| Err("names no instruments".into()) },
];

/// Names of every dialect, as `dialect = "…"` has them.
pub const NAMES: [&str; PROTOCOLS.len()] = {
    let mut names = [""; PROTOCOLS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = PROTOCOLS[i].name;
        i += 1;
    }
    names
};

/// Every reason for which a frame is refused.
pub const REASONS: [&str; 11] = [
    "malformed",
    "unknown_event",
    "missing_field",
    "wrong_type",
    "bad_number",
    "overflow",
    "bad_time",
    "no_time",
    "unknown_instrument",
    "not_a_trade",
    "venue_error",
];

/// The dialect of this name, knowing no listings.
pub fn make(name: &str) -> Option<Box<dyn Learn>> {
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
        let (name, instruments) = read(dialect, listing)?;
        Arc::make_mut(self.listings.entry(name).or_default()).extend(instruments);
        Ok(())
    }

    /// The dialect of this name.
    pub fn make(&self, name: &str) -> Option<Box<dyn Learn>> {
        let protocol = protocol(name)?;
        let listings = self.listings.get(name).cloned().unwrap_or_default();
        let dialect = (protocol.make)(listings.clone());
        Some(Box::new(Taught { protocol, listings, dialect }))
    }
}

/// A dialect that can learn: it is made anew with what it knows then. What it decodes depends on nothing but the frame and that.
struct Taught {
    protocol: Protocol,
    listings: Arc<Instruments>,
    dialect: Box<dyn Dialect>,
}

impl Dialect for Taught {
    fn decode(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Reject> {
        self.dialect.decode(frame, records)
    }
}

impl Learn for Taught {
    fn learn(&mut self, listing: &[u8]) -> Result<Vec<Listed>, String> {
        let listed = (self.protocol.instruments)(listing)?;
        self.recall(listed.clone());
        Ok(listed)
    }

    fn recall(&mut self, listed: Vec<Listed>) {
        Arc::make_mut(&mut self.listings).extend(listed);
        self.dialect = (self.protocol.make)(self.listings.clone());
    }
}

/// The instruments of a venue's listing, in its order, by the venue's symbols.
///
/// # Errors
/// As [`Dialects::learn`].
pub fn instruments(dialect: &str, listing: &[u8]) -> Result<Vec<Listed>, String> {
    read(dialect, listing).map(|(_, instruments)| instruments)
}

fn read(dialect: &str, listing: &[u8]) -> Result<(&'static str, Vec<Listed>), String> {
    let protocol = protocol(dialect).ok_or_else(|| format!("there is no dialect `{dialect}`"))?;
    Ok((protocol.name, (protocol.instruments)(listing)?))
}

fn protocol(name: &str) -> Option<Protocol> {
    PROTOCOLS.into_iter().find(|protocol| protocol.name == name)
}
