//! Who decides about requests, and what.

use std::fmt::Debug;
use std::net::SocketAddr;

use super::destination::{Destination, Destinations};
use crate::engine::SessionKey;
use crate::proto::prelude::Facts;
use crate::relay::ending::Cause;
use crate::relay::id::ForwardId;

/// Decides what becomes of a session by what its opening found out; asked once a
/// session, by the reactor's thread.
pub trait Decider: Debug + Send {
    /// Decides without blocking. What it decides is handed to
    /// [`Reactor::decided`](super::Reactor::decided) with this key, later. `route`: that
    /// of the forward by which the client came there, if by any.
    fn decide(&self, key: SessionKey, forward: ForwardId, route: Option<u16>, facts: Facts);

    /// The session is gone, and its question with it: what is not begun need not be.
    fn gone(&self, _: SessionKey) {}
}

/// What becomes of a session.
#[derive(Debug, Clone)]
pub enum Decision {
    /// It goes to the first of these that answers.
    Direct(Destinations),
    /// It goes nowhere, by this cause.
    Refuse(Cause),
}

/// What a decider found.
#[derive(Debug, Clone)]
pub struct Ruling {
    /// Who asks, if that was looked at; shown in records.
    pub user: Option<String>,
    /// What becomes of the session.
    pub decision: Decision,
}

impl From<Vec<SocketAddr>> for Decision {
    /// The addresses of one target, in order; with none, there is no server.
    fn from(addresses: Vec<SocketAddr>) -> Self {
        Self::Direct(addresses.into_iter().map(Destination::from).collect())
    }
}
