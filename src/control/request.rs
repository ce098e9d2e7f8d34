//! What other threads of this process ask of control, each with a reply.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::net::address::Endpoint;
use crate::observe::counters::Snapshot;

/// See the module's documentation. Nobody has to wait for a reply: one that is not
/// wanted any more is dropped.
#[derive(Debug)]
pub(super) enum Request {
    /// End once the last session has, or `drain_timeout` has passed.
    Drain,
    /// End at once.
    Cut,
    /// Where it listens, by forward.
    Listeners(Sender<Vec<(Arc<str>, Endpoint)>>),
    /// What has been counted, over all reactors.
    Counters(Sender<Snapshot>),
}
