//! The system from outside: what its tests share.

pub mod group;
pub mod listener;
pub mod node;
pub mod program;
pub mod proxy;
pub mod servers;
pub mod venue;
