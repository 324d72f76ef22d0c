//! Runs a checked graph on workers.
//!
//! [`plan`] turns a checked graph into what every worker builds. [`run`] finds where it goes on ([`resume`]), opens sources
//! and sinks, starts the workers and ends with a [`summary`] that balances or is an error. [`feed`] drives a source into
//! the dataflow at logical times, [`drain`] drives rows out of it into a sink, epoch by epoch. [`journal`] records which
//! source positions belong to which logical times before a sink commits them, and [`checkpoint`] stores the state behind
//! one logical time. [`mesh`] connects the processes of one pipeline. [`worker`] is a run under a node's agent. [`cli`] is the command line.

pub mod budget;
pub mod checkpoint;
pub mod cli;
pub mod drain;
pub mod feed;
pub mod journal;
pub mod mesh;
pub mod monitor;
pub mod plan;
pub mod reference;
pub mod resume;
pub mod run;
pub mod summary;
pub mod worker;
