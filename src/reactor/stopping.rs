//! How a reactor comes to its end, and how what it has is cut: by order, never by itself.

use super::Reactor;
use crate::engine::{Datagrams, SessionKey};
use crate::relay::ending::Cause;
use crate::relay::id::ForwardId;
use crate::relay::session::Event as SessionEvent;

/// Turns of accepting before the listeners close, besides one for each listener: more
/// than any backlog that somaxconn's default allows.
const DRAIN_ACCEPT_TURNS: usize = 256;

impl<E: Datagrams> Reactor<E> {
    /// Accepts nothing more from now on.
    pub fn stop_accepting(&mut self) {
        // What waits in the accept queues got a handshake: it is served, not
        // reset. Bounded, for in a storm the queues never run empty.
        // Bounded by the limits too: who waits for room when the listeners close
        // is reset by the kernel.
        self.listen_queue.look_everywhere();
        for _ in 0..DRAIN_ACCEPT_TURNS + self.listen_queue.ids().len() {
            if self.listen_queue.next_try() > self.ctx.now() {
                break;
            }
            self.accept();
            self.settle();
        }
        self.publish();
        self.draining = true;
        self.dialler.drop_spares(&mut self.ctx);
        for id in self.listen_queue.ids() {
            drop(self.listen_queue.unlisten(id, &mut self.ctx));
        }
        self.flows.drain(&mut self.ctx);
    }

    /// Ends the sessions of these forwards for this reason.
    pub fn cut_forwards(&mut self, forwards: &[ForwardId], cause: Cause) {
        let of_them = |key: &SessionKey| {
            let entry = self.ctx.sessions.get(*key);
            entry.is_some_and(|entry| forwards.contains(&entry.listener.forward.id))
        };
        let keys: Vec<SessionKey> = self.ctx.sessions.keys().filter(of_them).collect();
        for key in keys {
            self.cut(key, cause);
        }
        self.listen_queue.close_leaving(forwards, &mut self.ctx);
        self.flows.cut_forwards(forwards, cause, &mut self.ctx);
        self.settle();
    }

    /// Ends every session for this reason.
    pub fn cut_all(&mut self, cause: Cause) {
        let keys: Vec<SessionKey> = self.ctx.sessions.keys().collect();
        for key in keys {
            self.cut(key, cause);
        }
        self.flows.cut_all(cause, &mut self.ctx);
        self.settle();
    }

    pub(super) fn cut(&mut self, key: SessionKey, cause: Cause) {
        let unsent = self.ctx.engine.unsent(key);
        self.deliver(key, SessionEvent::Cut { cause, unsent });
    }
}
