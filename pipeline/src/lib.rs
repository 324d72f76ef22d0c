//! Runs a checked graph on workers.
//!
//! [`plan`] turns a checked graph into what every worker builds. [`run`] opens sources and sinks, starts the
//! workers and ends with a [`summary`] that balances or is an error. [`feed`] drives a source into the dataflow
//! at logical times, [`drain`] drives rows out of it into a sink, epoch by epoch, and [`binding`] records which
//! source positions belong to which logical times before a sink commits them. [`cli`] is the command line.

pub mod binding;
pub mod budget;
pub mod cli;
pub mod drain;
pub mod feed;
pub mod monitor;
pub mod plan;
pub mod reference;
pub mod run;
pub mod summary;
