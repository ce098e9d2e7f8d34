//! The ACKs of the leg to a server. Quick ACKs are off while it is connected, so that the
//! handshake's last ACK rides on the client's first bytes: a packet less for each short
//! connection. What that would cost is taken back here:
//!
//! | cost | remedy |
//! | --- | --- |
//! | a server that speaks first learns of the connection late | the ACK is sent after [`ACK_PATIENCE`], and at once to a pool whose last session had its first bytes from the server |
//! | the first write ends the kernel's initial phase of quick ACKs, so that a server which answers in two writes with Nagle on waits 40 ms for the ACK of the first | quick ACKs are on again right behind that write |
//!
//! Setting them on again before the write does not help: the write itself makes the
//! kernel delay ACKs, because in its eyes an answer follows what was received (the
//! SYN-ACK) within the delayed-ACK time.

use std::time::Duration;

use super::destination::Destination;
use super::{Entry, Reactor};
use crate::engine::{Datagrams, SessionKey};
use crate::net::address::Endpoint;
use crate::relay::{Direction, Side};

/// How long the last ACK of an upstream handshake may wait for the client's
/// first bytes to ride on. Longer than a client on the same host takes to send
/// them, far shorter than the 200 ms after which the kernel sends it (measured).
const ACK_PATIENCE: Duration = Duration::from_millis(2);

impl<E: Datagrams> Reactor<E> {
    /// A server is connected: whose handshake's last ACK no bytes carried. What it is told
    /// first, a PROXY header, waits with the ACK.
    pub(super) fn owe_ack(&mut self, key: SessionKey) {
        let Some(entry) = self.ctx.sessions.get(key) else {
            return;
        };
        if entry.session.lane(Direction::Up).bytes_out() > 0 {
            return;
        }
        if self.dialler.pools[entry.listener.forward.pool].speaks_first {
            self.dialler.flush(&mut self.ctx, key);
            self.ctx.engine.acknowledge(key, Side::Upstream);
        } else {
            let due = self.ctx.engine.now() + ACK_PATIENCE;
            self.acks_owed.push_back((key, due));
        }
    }

    /// An upstream that speaks first must not wait for the delayed ACK of a
    /// handshake on which no client data came to ride.
    pub(super) fn send_owed_acks(&mut self) {
        let now = self.ctx.engine.now();
        while let Some((key, _)) = self
            .acks_owed
            .front()
            .copied()
            .filter(|(_, due)| *due <= now)
        {
            self.acks_owed.pop_front();
            if self
                .ctx
                .sessions
                .get(key)
                .is_some_and(|entry| entry.session.lane(Direction::Up).bytes_out() == 0)
            {
                self.dialler.flush(&mut self.ctx, key);
                self.ctx.engine.acknowledge(key, Side::Upstream);
            }
        }
    }

    /// The first bytes of a direction have passed: those of the client are written, those
    /// of the server read.
    pub(super) fn has_begun(&mut self, key: SessionKey, direction: Direction) {
        let Some(entry) = self.ctx.sessions.get(key) else {
            return;
        };
        let upstream = &mut self.dialler.pools[entry.listener.forward.pool];
        if !upstream.setup.options.holds_acks || !is_inet(entry) {
            return;
        }
        let other = entry.session.lane(match direction {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        });
        match direction {
            Direction::Up => {
                if other.bytes_in() == 0 {
                    upstream.speaks_first = false;
                }
                self.ctx.engine.acknowledge(key, Side::Upstream);
            }
            Direction::Down if other.bytes_out() == 0 => upstream.speaks_first = true,
            Direction::Down => {}
        }
    }
}

/// Whether it is TCP to its server: a unix socket has no ACKs.
fn is_inet(entry: &Entry) -> bool {
    let to = entry.destination.as_ref().map(Destination::endpoint);
    matches!(to, Some(Endpoint::Inet(_)))
}
