//! Where connections of QUIC live, by the ids that their servers told.
//!
//! Shared by all reactors of a forward, because the kernel gives a client with another port to any of them.
//! The lock is taken for long headers of servers and for clients without a flow, never for a datagram of a flow
//! that stands.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::proto::quic::ids::Ids;
use crate::relay::id::ServerId;
use crate::relay::time::Time;

/// Ids that are kept of a forward.
const IDS_MAX: usize = 1 << 16;

/// What a forward that looks for QUIC knows, over all reactors.
#[derive(Debug)]
pub struct Quic {
    ids: Mutex<(Ids<Home>, Time)>,
    /// How long a hello may take.
    pub(super) patience: Duration,
    /// An id that nobody used for so long, or twice that, is forgotten.
    idle: Duration,
}

/// Where a connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Home {
    /// By which route; `None`: the forward's own servers.
    pub(super) route: Option<u16>,
    pub(super) server: ServerId,
}

impl Quic {
    /// A hello may take so long, and an id that is not used is kept as long as a flow.
    pub fn new(patience: Duration, idle: Duration) -> Self {
        Self {
            ids: Mutex::new((Ids::new(IDS_MAX), Time::ZERO)),
            patience,
            idle,
        }
    }

    /// Notes the id in what a server sent, if there is one in plain.
    pub(super) fn learn(&self, from_server: &[u8], home: Home, now: Time) {
        self.with(now, |ids| ids.learn(from_server, &home));
    }

    /// Whose a datagram of a client without a flow is.
    pub(super) fn find(&self, from_client: &[u8], now: Time) -> Option<Home> {
        self.with(now, |ids| ids.find(from_client))
    }

    fn with<T>(&self, now: Time, work: impl FnOnce(&mut Ids<Home>) -> T) -> T {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let (ids, aged) = &mut *ids;
        if now.since(*aged) >= self.idle {
            *aged = now;
            ids.age();
        }
        work(ids)
    }
}
