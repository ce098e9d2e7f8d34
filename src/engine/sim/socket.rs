//! The kernel's side of a simulated connection.

use super::Conn;
use crate::relay::ending::Cause;
use crate::relay::session::Readiness;
use crate::relay::time::Time;
use crate::relay::{Direction, Side};

/// A socket of the forwarder.
#[derive(Debug, Default)]
pub(super) struct Socket {
    pub(super) connecting: bool,
    /// Which server it goes to.
    pub(super) server: usize,
    /// A write found no room: the next room is an event.
    pub(super) no_space: bool,
    /// Its write side was shut.
    pub(super) shut: bool,
    /// The pending error was handed out: later reads see an end.
    pub(super) error_taken: bool,
}

type Io = Result<u32, Option<Cause>>;

impl Conn {
    /// recv(2): bytes, 0 at an end, `Err(None)` for EAGAIN.
    pub(super) fn read(&mut self, side: Side, max: u32) -> Io {
        let Some(socket) = self.sockets[side.index()].as_mut() else {
            panic!("a read of a closed socket");
        };
        let peer = &mut self.peers[side.index()];
        assert!(!socket.connecting, "a read before the connect is complete");
        if peer.inbox > 0 {
            let n = peer.inbox.min(u64::from(max)) as u32;
            peer.inbox -= u64::from(n);
            self.read[side.outgoing().index()] += u64::from(n);
            return Ok(n);
        }
        // As in tcp_recvmsg: an end that came before a reset is still an end.
        if peer.fin_sent {
            return Ok(0);
        }
        if peer.has_reset {
            let taken = std::mem::replace(&mut socket.error_taken, true);
            return if taken {
                Ok(0)
            } else {
                Err(Some(Cause::Reset))
            };
        }
        Err(None)
    }

    /// send(2).
    pub(super) fn write(&mut self, side: Side, len: u32) -> Io {
        let Some(socket) = self.sockets[side.index()].as_mut() else {
            panic!("a write to a closed socket");
        };
        let peer = &mut self.peers[side.index()];
        assert!(!socket.connecting, "a write before the connect is complete");
        assert!(!socket.shut, "a write after the write side was shut");
        if peer.has_reset {
            let taken = std::mem::replace(&mut socket.error_taken, true);
            // As in tcp_reset: EPIPE if the peer's end had come before.
            let cause = if taken || peer.fin_sent {
                Cause::BrokenPipe
            } else {
                Cause::Reset
            };
            return Err(Some(cause));
        }
        let room = peer.window.saturating_sub(peer.queued);
        if room == 0 {
            socket.no_space = true;
            return Err(None);
        }
        let n = u64::from(len).min(room);
        if n < u64::from(len) {
            socket.no_space = true;
        }
        peer.queued += n;
        Ok(n as u32)
    }

    /// Whatever can be read next comes with an event of its own.
    pub(super) fn is_drained(&self, side: Side) -> bool {
        let peer = &self.peers[side.index()];
        peer.inbox == 0 && !peer.fin_sent && !peer.has_reset
    }

    /// shutdown(SHUT_WR).
    pub(super) fn shut(&mut self, side: Side) {
        let direction = side.incoming();
        assert_eq!(
            self.held[direction.index()],
            0,
            "an end overtook held bytes"
        );
        let source = &self.peers[direction.source().index()];
        assert!(source.fin_sent && source.inbox == 0, "an end was made up");
        if let Some(socket) = self.sockets[side.index()].as_mut() {
            assert!(!socket.shut, "shut twice");
            socket.shut = true;
        }
        self.peers[side.index()].fin_queued = true;
    }

    /// The peer behind a socket does something; an edge may come of it.
    pub(super) fn act(
        &mut self,
        side: Side,
        now: Time,
        dice: &mut super::Dice,
    ) -> (Option<Readiness>, bool) {
        let peer = &mut self.peers[side.index()];
        let Some(socket) = self.sockets[side.index()]
            .as_mut()
            .filter(|socket| !socket.connecting)
        else {
            return (None, false);
        };
        let act = peer.act(now, dice);
        let writable = act.took && socket.no_space;
        if writable {
            socket.no_space = false;
        }
        let edge = act.sent || writable || act.failed;
        let readiness = Readiness {
            readable: act.sent || act.failed,
            writable,
            failed: act.failed,
        };
        (
            edge.then_some(readiness),
            act.sent || act.took || act.failed || act.waits,
        )
    }

    /// Bytes add up in both directions.
    pub(super) fn check(&self) {
        for direction in Direction::BOTH {
            let (source, sink) = (direction.source().index(), direction.sink().index());
            let (lane, source, sink) = (direction.index(), &self.peers[source], &self.peers[sink]);
            assert!(self.read[lane] <= source.sent, "read more than was sent");
            assert_eq!(
                self.read[lane] + sink.said,
                sink.received
                    + sink.queued
                    + sink.lost
                    + u64::from(self.held[lane])
                    + self.dropped[lane],
                "{direction:?}: bytes do not add up"
            );
        }
    }

    /// What a well-behaved peer is owed, at the end of a connection.
    pub(super) fn check_delivery(&self) {
        let [client, upstream] = &self.peers;
        if client.behaves() && client.is_swift() && client.said > 0 && !self.relayed {
            assert_eq!(
                client.received, client.said,
                "an answer was destroyed on its way: {self:#?}"
            );
        }
        if client.behaves() && upstream.behaves() && self.relayed {
            assert!(
                client.is_satisfied_by(upstream),
                "the client was short-changed: {self:#?}"
            );
            assert!(
                upstream.is_satisfied_by(client),
                "the upstream was short-changed: {self:#?}"
            );
        }
        for (one, other) in [(client, upstream), (upstream, client)] {
            // A reset throws nothing away that had arrived before it, and is
            // never dressed up as an orderly end.
            if one.behaves() && other.resets() && other.has_reset && self.relayed {
                assert_eq!(
                    one.received,
                    other.payload_sent() + one.said,
                    "bytes from before a reset were lost: {self:#?}"
                );
                assert!(
                    one.saw_reset || one.saw_fin && other.fin_sent,
                    "a reset became an end: {self:#?}"
                );
            }
        }
    }
}
