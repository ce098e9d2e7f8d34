//! Another process in the place of one at work, on the real binary: behaviours 123 to 138.

mod datagrams;
mod failing;
mod fake;
pub(crate) mod kit;
mod listeners;
mod paths;
mod recorded;
mod service;
mod sessions;
mod soak;
mod tables;
mod trial;
mod versions;
