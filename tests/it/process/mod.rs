//! The life of the process on the real binary: where it listens (61, 69), how it
//! ends (65), its log (71, 72) and its clocks (73).

mod clocks;
mod draining;
mod listening;
mod log;
mod signals;
mod unix;
