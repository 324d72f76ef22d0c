//! Pipelines on nodes.
//!
//! A node is an agent process. It keeps the definitions of pipelines in the cluster [`store`], and the node that holds
//! the leader's [`lease`] runs each of them in a worker process of its own: [`supervisor`] decides, as a pure function
//! of what happened and when, and [`keeper`] does. [`protocol`] is what an agent and its workers say to each other,
//! [`agent`] what a node can be asked for, [`api`] how it is asked over HTTP, and [`client`] asks.
//!
//! Three things hold, whatever is killed when:
//!
//! - A definition that was accepted is there after a restart: the store is durable before it answers.
//! - A pipeline has at most one process that commits: a generation is recorded before its process starts, the process
//!   ends with its agent, and it holds the pipeline's [`lock`] as long as it runs.
//! - A pipeline that fails takes nothing else down: nothing is shared between the processes of two pipelines.
//!
//! This crate knows no component and no configuration language: the program that it is part of tells it what a
//! pipeline's text means, through [`agent::Validator`].

pub mod agent;
pub mod api;
pub mod client;
pub mod definition;
pub mod host;
pub mod keeper;
pub mod lease;
pub mod lock;
pub mod log;
pub mod protocol;
pub mod store;
pub mod supervisor;

mod group;
mod local;
#[cfg(test)]
mod memory;
mod nats;
mod nodes;
mod remote;
