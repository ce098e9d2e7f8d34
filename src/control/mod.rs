//! Start-up, signals, reload, drain: what is not on the hot path.
//!
//! ```text
//! run ─► signals are taken first
//!     ─► begin, on a thread of its own, for it may block
//!          Plan: what the configuration asks for, by identity
//!          Acquired: limits, names, sockets, what the kernel granted
//!          one thread a reactor
//!     ─► wait for signals and for what threads tell ─► drain ─► cut what is left ─► summary
//! ```
//! Talks to reactors by messages (`wire::Order`) only.

mod acquire;
mod awaited;
mod begin;
mod beside;
mod clients;
mod confine;
mod counted;
pub mod doctor;
mod drain;
mod error;
mod forwards;
mod handle;
pub mod health;
mod held;
mod inbox;
mod listener_names;
mod manager;
mod moved;
mod neighbourhood;
mod plan;
mod probation;
mod proxy;
mod reap;
mod rebalance;
mod registry;
mod reload;
mod reloading;
mod reloads;
mod report;
mod request;
pub mod resolve;
mod running;
mod service;
mod signals;
mod source;
mod steering;
mod survival;
mod thread;
mod upgrade;
mod upgrades;
mod upstreams;
mod watch;
mod wire;

use crate::config::Config;

pub use begin::Given;
pub use clients::{
    AccessFileError, WrongLine, denied_client, errors_of_files, errors_of_lists, networks_of_text,
};
pub use confine::Confinement;
pub use error::StartError;
pub use handle::{Handle, start, start_with};
use inbox::Inbox;
pub use manager::Manager;
pub use proxy::users::UsersError;
pub use proxy::users::check as users_in;
pub use reload::{ReloadError, Reloaded};
pub use request::{ReloadRequest, Request};
pub use source::{ConfigFiles, ConfigSource, FileStamp};
pub use upgrade::{TakeOver, UpgradeError, UpgradeRequest, Upgraded};

/// Forwards as configured until a signal ends it, on whichever thread this is called.
///
/// SIGTERM and SIGINT drain: no new connections, running ones go on until they
/// end or `drain_timeout` has passed; a second one ends them at once. SIGQUIT drains, and
/// a second one changes nothing. SIGHUP opens the log anew, SIGUSR1 logs the counters, SIGUSR2
/// hands over to a new process.
/// Other signals whose default would kill the process are ignored with a line.
///
/// The signals are those of the whole process. A program that has others in mind for
/// them embeds a forwarder by [`start`].
pub fn run(config: &Config) -> Result<(), StartError> {
    run_with(config, Given::default())
}

/// As [`run`], with what it is given: with a way to read the configuration again, at SIGHUP
/// it is, and what differs is changed.
pub fn run_with(config: &Config, given: Given) -> Result<(), StartError> {
    upgrade::spawn::remember();
    // Before any thread, and before anything is opened.
    let confinement = Confinement::enter(config, given.source.as_deref())?;
    let inbox = Inbox::with_signals().map_err(StartError::Signals)?;
    begin::supervise(config, (given, confinement), &inbox, || ())
}
