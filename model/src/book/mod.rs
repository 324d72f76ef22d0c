//! What a book is made of, whoever keeps it: the operator `book`, and live sources of venues whose checksums alone tell that a change
//! is missing.

pub mod checksum;
pub mod levels;
