//! Another process in the place of this one, with the same listening sockets.
//!
//! ```text
//!  ctl upgrade, SIGUSR2 ─► spawn ──┐                      ┌── begin: `--take-over`, or as a child
//!                                  ▼                      ▼
//!  control ◄─ order ─ give ══ talk over a channel ══ take ─► Acquired ─► Running, nobody let in
//!     ▲                     (old process)  (new process)         Commit ─► lets clients in
//!  entrance: run --take-over ──┘
//! ```
//! Purpose: whoever is connected or connects notices nothing. Owns the connection between
//! the two processes, what they say (`message`), and both sides of it. What is handed over
//! belongs to control's thread, which is asked by [`order::HandOver`]s.
//!
//! Invariants: up to the new one's `Committed` the old one has everything and goes on with
//! everything, whatever happens over there; from then on the new one has it, whatever
//! happens here. Only one at a time, and only between processes of one user. Whatever the
//! other end says, there is an answer within a time.

pub(super) mod ahead;
pub(super) mod channel;
pub(super) mod entrance;
pub(super) mod flows;
pub(super) mod following;
pub(super) mod give;
pub(super) mod message;
pub(super) mod moves;
pub(super) mod moving;
pub(super) mod order;
pub(super) mod spawn;
pub(super) mod tables;
pub(super) mod take;
pub(super) mod talk;
pub(super) mod trial;

pub use order::{UpgradeError, UpgradeRequest, Upgraded};
pub use take::TakeOver;
