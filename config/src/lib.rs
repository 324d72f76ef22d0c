//! The language of pipeline files: read, check, explain.
//!
//! A pipeline file names components, their options and how they are joined. This crate turns its text into
//! a checked [`graph::Graph`] or into every error there is, each with its place and remedy, and touches
//! nothing outside while it does so. It knows no component by name: registries of [`component::Declaration`]s
//! are handed to it.

pub mod check;
pub mod component;
pub mod diagnostic;
pub mod document;
pub mod graph;
pub mod manual;
pub mod settings;
pub mod values;

mod expand;
mod options;
mod schema;
mod syntax;
mod words;

pub use check::check;
pub use component::{Check, Checked, Component, Declaration, Input, Registry, Role, component, declare};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use document::{Document, Environment};
pub use graph::Graph;
