//! Pools at work, on the real binary: retries, checks, balancing, limits and queues,
//! marks, local addresses, spares, and what of all this is told (behaviours 18 to 24
//! and 28 to 32). Names as servers are in `names.rs`.

mod balance;
mod checks;
mod counts;
mod inputs;
mod limits;
mod marks;
mod pool;
mod retries;
mod server_limits;
mod sources;
mod transparent;
mod warm;
