//! A header and an answer, simulated: see `engine/parley.rs`. The one place where a
//! simulated byte has content.

use super::Sim;
use crate::engine::{Peeked, SessionKey};
use crate::relay::Side;
use crate::relay::ending::Cause;

impl Sim {
    pub(super) fn peek_at(&mut self, key: SessionKey, side: Side, buffer: &mut [u8]) -> Peeked {
        let short = self.dice.percent(self.nastiness.short);
        let part = self.dice.between(1, 64) as usize;
        let Some(conn) = self.conn_mut(key) else {
            panic!("a peek for a stale key")
        };
        let Some(socket) = conn.sockets[side.index()].as_mut() else {
            panic!("a peek at a closed socket")
        };
        let peer = &mut conn.peers[side.index()];
        if peer.inbox > 0 {
            let max = if short { part } else { buffer.len() };
            let max = max.min(buffer.len());
            let seen = peer.peeked(&mut buffer[..max]);
            peer.looked = seen as u64;
            Peeked::Bytes(seen)
        } else if peer.fin_sent {
            Peeked::Ended
        } else if !peer.has_reset {
            Peeked::Empty
        } else if std::mem::replace(&mut socket.error_taken, true) {
            Peeked::Ended
        } else {
            Peeked::Failed(Cause::Reset)
        }
    }

    /// Whether the last look was a short one: what it left out is news.
    pub(super) fn has_more(&self, key: SessionKey, side: Side) -> bool {
        let conn = self.conns.get(key.slot);
        conn.is_some_and(|conn| {
            let peer = &conn.peers[side.index()];
            peer.looked < peer.inbox
        })
    }

    /// Whether the peer has ended or reset its side.
    pub(super) fn ended(&self, key: SessionKey, side: Side) -> bool {
        let conn = self.conns.get(key.slot);
        conn.is_none_or(|conn| {
            let peer = &conn.peers[side.index()];
            peer.fin_sent || peer.has_reset
        })
    }

    pub(super) fn take_from(&mut self, key: SessionKey, side: Side, len: usize) {
        let len = len as u64;
        let Some(conn) = self.conn_mut(key) else {
            panic!("a take for a stale key")
        };
        assert!(!conn.relayed, "taken from under a lane");
        let peer = &mut conn.peers[side.index()];
        assert!(len <= peer.inbox, "more is taken than was seen");
        peer.inbox -= len;
        // Read by the forwarder, and nobody's payload.
        conn.read[side.outgoing().index()] += len;
        conn.dropped[side.outgoing().index()] += len;
    }

    pub(super) fn say_to(
        &mut self,
        key: SessionKey,
        side: Side,
        bytes: &[u8],
    ) -> Result<usize, Cause> {
        let short = self.dice.percent(self.nastiness.short);
        let part = self.dice.between(1, 20) as usize;
        let max = if short { part } else { bytes.len() };
        let Some(conn) = self.conn_mut(key) else {
            panic!("a say for a stale key")
        };
        assert!(!conn.relayed, "said into a lane");
        match conn.write(side, max.min(bytes.len()) as u32) {
            Ok(taken) => {
                conn.peers[side.index()].said += u64::from(taken);
                if (taken as usize) < bytes.len()
                    && let Some(socket) = &mut conn.sockets[side.index()]
                {
                    // The next room is an event.
                    socket.no_space = true;
                }
                Ok(taken as usize)
            }
            Err(None) => Ok(0),
            Err(Some(cause)) => Err(cause),
        }
    }

    pub(super) fn conclude_side(&mut self, key: SessionKey, side: Side) {
        let Some(conn) = self.conn_mut(key) else {
            panic!("a conclusion for a stale key")
        };
        let other = side.other().index();
        assert!(
            conn.sockets[other].is_none() || conn.closing[other].is_some(),
            "concluded beside another side"
        );
        if let Some(socket) = &mut conn.sockets[side.index()] {
            assert!(!socket.shut, "shut twice");
            socket.shut = true;
        }
        conn.peers[side.index()].fin_queued = true;
    }
}
