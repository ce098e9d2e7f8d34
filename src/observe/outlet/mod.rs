//! What the log and the taps write through: a queue, a thread that takes batches off it,
//! and a target that may fail.
//!
//! ```text
//! whoever says ─► queue ─► Outlet's thread: Format::item ─► Sink ─► file, pipe, stdout
//!                 never waited for             │ units      batches, repair, losses,
//!                                              ▼            rotation, reopening
//!                                     what was lost is told
//! ```
//! Invariants: nobody who feeds waits. What is written is made of units (a line, a
//! packet); a target that fails costs whole units, which are counted, and one that was
//! cut is completed before anything else. Orders are carried out behind what was queued
//! before them.

mod file;
mod sink;
mod thread;

pub(super) use file::{Place, Target};
pub(super) use sink::{Lost, Sink};
pub(super) use thread::{Format, Order, Outlet};
