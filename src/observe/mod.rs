//! What a person sees of the forwarder: metrics ([`metrics`], with the tables in
//! [`counters`]), the record of each session ([`record`]), what happens in operation
//! ([`notice`], no more often than [`throttle`] lets it) and the log that never blocks a
//! reactor ([`log`]); and, where it is asked for, of the traffic ([`tap`]).
//! What a command says beside its result goes by [`aside`].

pub mod aside;
pub mod books;
pub mod counters;
pub mod log;
pub mod metrics;
pub mod notice;
mod outlet;
pub mod panics;
pub mod record;
pub mod tap;
pub mod throttle;
pub mod timestamp;
