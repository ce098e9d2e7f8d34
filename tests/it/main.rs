//! Everything that is tested from outside of the crate, in one program: the kit and the
//! library are linked once, and a suite is a module that a filter names, as in
//! `cargo test --test it endings::`.
//!
//! Tests run in threads of this process, several at the same time. So none of them
//! changes what all threads share (environment, working directory, signals, a lowered
//! limit of descriptors): whoever needs that does it to a process that it starts, or in a
//! namespace of its own. What cannot bear others beside it is in [`serial`].
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "a setup reads better without a `&` at each address"
)]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "what a test says of itself"
)]

mod duplex;
mod kit;

mod acks;
mod admin;
mod architecture;
mod bench_origin;
mod checks;
mod cli_config;
mod cli_output;
mod clients;
mod conformance;
mod connecting;
mod convert;
mod datagrams;
mod differential;
mod doctor;
mod documents;
mod endings;
mod faults;
mod fleet;
mod hostile;
mod http_connect;
mod library;
mod loops;
mod names;
mod networks;
mod options;
mod packages;
mod pools;
mod process;
mod rates;
mod reloading;
mod resets;
mod resolving;
mod routing;
mod running_out;
mod scripts;
mod serial;
mod service;
mod simulation;
mod spinning;
mod spread;
mod tap;
mod upgrading;
mod urgent;
#[cfg(feature = "uring")]
mod uring;
mod uring_stalls;
