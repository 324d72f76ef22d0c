//! The system from outside, in one binary: each module tests one side of it against real servers.

#![allow(clippy::print_stdout, reason = "what a test measured belongs into its output")]

mod activity;
mod awkward;
mod broken;
mod capture;
mod chaos;
mod clickhouse;
mod cluster;
mod commands;
mod detection;
mod faults;
mod kinds;
mod live;
mod malformed;
mod misbehaviour;
mod nats;
mod nats_speed;
mod nodes;
mod operators;
mod processes;
mod recordings;
mod recovery;
mod recovery_speed;
mod servers;
mod stores;
mod tiers;
mod venues;
mod waiting;
