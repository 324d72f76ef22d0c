//! The system from outside: what its tests share.

pub mod node;
pub mod program;
pub mod servers;
