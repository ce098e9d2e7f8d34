//! What a person sees of the forwarder: counters of each reactor ([`counters`]),
//! the record of each session ([`record`]), and the log that never blocks a
//! reactor ([`log`]); and, where it is asked for, of the traffic ([`tap`]).

pub mod counters;
pub mod log;
pub mod metrics;
pub mod record;
pub mod tap;
