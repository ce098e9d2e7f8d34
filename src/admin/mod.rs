//! The admin endpoint: see what the process does, and steer it, over HTTP.
//!
//! ```text
//!  ctl, top, curl, a browser ──HTTP/1.1──► thread "admin": guard ─► routes ─► Subject
//!  Prometheus ──────────────────────────►     │                                 │ visits
//!                                             └── bounded: connections, time     ▼
//!                                                                            reactors
//! ```
//! Purpose: answer, whatever else is the matter. Owns its thread with a runtime of its
//! own, its sockets, and descriptors set aside for the time when all others are used up
//! (`reserve`). What it shows and changes is somebody else's: a [`Subject`].
//!
//! Invariants: nothing here runs on a reactor, but for visits, which are short
//! (`reactor::inspect`); a request is bounded in size, an answer in time
//! (`patience`), connections in number; a GET changes nothing.

mod api;
mod bind;
pub mod client;
mod dashboard;
mod gather;
mod guard;
mod health;
mod metrics;
mod owed;
mod patience;
mod pictures;
mod problem;
mod process;
mod reserve;
mod serve;
mod shared;
mod stream;
mod subject;
mod unwinding;
pub mod view;

pub use bind::{
    BindProblem, Bound, DESCRIPTORS, in_runtime_directory, prepare_directory, runtime_directories,
};
pub(crate) use health::unserved;
pub use serve::Server;
pub use subject::{
    Configured, ForwardSeen, Looker, NameSeen, Phase, PoolSeen, ReactorSeen, Refused, ReloadAsked,
    ReloadRefused, ReloadTrouble, ServerChange, ServerSeen, Subject, UpgradeAsked, UpgradeRefused,
    Visit,
};
