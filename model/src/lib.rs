//! What a market-data record is.
//!
//! Every kind of record is declared once, in [`kinds`]. From that one declaration follow its Arrow
//! schema, its ClickHouse and Delta tables, its page in the manual, the columnar builder that decoders
//! write into and the typed view that operators read from. A column that exists therefore exists
//! everywhere, and one that does not cannot be written by accident.
//!
//! The rest of the crate is what those columns are made of: exact [`Decimal`]s, [`time`]s in
//! microseconds, [`instrument`] names, and the [`Batch`] that travels between operators.

pub mod account;
pub mod batch;
pub mod book;
pub mod columns;
pub mod crash;
pub mod decimal;
pub mod dialect;
pub mod digits;
pub mod instrument;
pub mod json;
pub mod kind;
pub mod kinds;
pub mod packed;
pub mod tables;
pub mod time;

pub use account::Account;
pub use batch::{Batch, Lesson, Message, Origin, Progress};
pub use decimal::Decimal;
pub use kind::{Column, Kind, Type};
