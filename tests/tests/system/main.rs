//! The system from outside, in one binary: each module tests one side of it against real servers.

mod awkward;
mod clickhouse;
mod faults;
mod kinds;
mod servers;
mod tiers;
