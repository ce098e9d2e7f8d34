//! What other threads of this process ask of control, each with a reply. Nobody has to
//! wait for one: a reply that is not wanted any more is dropped.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::config::Config;
use crate::net::address::Endpoint;
use crate::observe::counters::Snapshot;
use crate::relay::id::ForwardId;

use super::reload::{ReloadError, Reloaded};
use super::upgrade::order::HandOver;
use super::upgrade::{UpgradeError, UpgradeRequest, Upgraded};

/// What a reload is to be.
#[derive(Debug, Clone, Default)]
pub struct ReloadRequest {
    /// Another configuration than the one that is read from where it came from.
    pub config: Option<Arc<Config>>,
    /// Only say what would happen: nothing is opened, nothing changes.
    pub dry_run: bool,
    /// Go back by itself, unless it is confirmed within this time.
    pub confirm: Option<Duration>,
}

/// See the module's documentation.
#[derive(Debug)]
pub enum Request {
    /// End once the last session has, or `drain_timeout` has passed.
    Drain,
    /// End at once.
    Cut,
    /// Let nobody in at this forward any more: its sockets are closed.
    StopListening(ForwardId),
    /// Let clients in again at this forward, which was drained.
    ListenAgain(ForwardId, Sender<Result<Reloaded, ReloadError>>),
    /// Where it listens, by forward.
    Listeners(Sender<Vec<(Arc<str>, Endpoint)>>),
    /// What has been counted, over all reactors.
    Counters(Sender<Snapshot>),
    /// Go by another configuration.
    Reload(ReloadRequest, Sender<Result<Reloaded, ReloadError>>),
    /// The configuration that runs is to stay. `false`: nothing was waiting for that.
    Confirm(Sender<bool>),
    /// Go back to what ran before one that waits to be confirmed. `false`: none does.
    GoBack(Sender<bool>),
    /// Hand over to a new process.
    Upgrade(UpgradeRequest, Sender<Result<Upgraded, UpgradeError>>),
    /// What a hand-over that is under way asks for.
    HandOver(HandOverRequest),
}

/// An order of a hand-over, which is nobody else's business.
#[derive(Debug)]
pub struct HandOverRequest(pub(super) HandOver);

impl Request {
    /// A reload, and where its answer comes: nothing, once the process is ending.
    pub fn reload(request: ReloadRequest) -> (Self, Receiver<Result<Reloaded, ReloadError>>) {
        let (reply, answer) = channel();
        (Self::Reload(request, reply), answer)
    }

    /// Likewise, of a forward that is to listen again.
    pub fn listen_again(forward: ForwardId) -> (Self, Receiver<Result<Reloaded, ReloadError>>) {
        let (reply, answer) = channel();
        (Self::ListenAgain(forward, reply), answer)
    }
}
