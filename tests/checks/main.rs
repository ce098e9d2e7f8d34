//! Active checks against real servers on loopback (behaviour 31), and the marks that
//! reactors share.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

#[path = "../kit/mod.rs"]
mod kit;

mod commands;
mod connections;
mod counts;
mod marks;
mod origin;
mod plans;
mod tls;
mod watch;
