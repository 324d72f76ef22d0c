//! Where tables and checkpoints live and how they are opened, for those who write and those who read them.
//!
//! A cold table is a Delta Lake table of its own, below one folder or one prefix of a bucket, named after its
//! kind. It describes itself: its metadata carries the [`model::Kind`], so that a reader knows its key, its
//! time and whether it can be revised without knowing the pipeline that made it. The tier boundary lives in
//! the table's own log ([`table::boundary`]) and so moves together with the rows, or not at all.

pub mod attempts;
pub mod file;
pub mod place;
pub mod store;
pub mod table;

pub use file::File;
pub use place::Place;
pub use store::ColdStore;

/// A store that cannot be opened, or a table in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}; {remedy}")]
pub struct StorageError {
    /// Whether the same may succeed later without anybody's doing: the store is away, busy or full.
    pub transient: bool,
    /// The store or table.
    pub place: String,
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl StorageError {
    /// An error at a place, which stays.
    pub fn new(place: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        StorageError { transient: false, place: place.into(), what: what.into(), remedy: remedy.into() }
    }
}

/// What an error and its causes say, in one line without repetition.
pub fn say(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
