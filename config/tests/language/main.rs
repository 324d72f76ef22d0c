//! The language from outside: pipeline files in, graphs or error texts out.

#![allow(missing_docs)]

mod broken;
mod checked;
mod manual;
mod registry;
mod robust;
