//! Another configuration for a process at work.
//!
//! ```text
//!   SIGHUP, ctl, a file that changed ─► queue, one at a time
//!     ─► a thread of its own: read, check, diff, refuse │ acquire      may fail: nothing was
//!                                                        ▼              touched
//!     ─► control's thread: commit ── orders, each with a reply ──► reactors      cannot
//! ```
//! By identity: what has the same name stays what it is. Sockets of addresses that stay
//! are the same sockets; servers that stay keep their health, marks, sessions and
//! counters; sessions keep what they began with.

pub(super) mod commit;
mod prepare;
mod report;

pub(super) use commit::{AllOrders, Committed, Retired, Sockets};
pub(super) use prepare::{From, KnownListener, Preparation, Prepared, Shop};
pub use report::{ReloadError, Reloaded};
