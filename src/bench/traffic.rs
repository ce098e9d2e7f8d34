//! Datagrams of streams, counted at both ends, and how many more may be sent.
//!
//! Both ends of a measurement are in one process, so a sender sees what has arrived without being told by
//! a datagram: with a window it sends as fast as things arrive, and nothing but the stream crosses the
//! subject. Counts only grow; whoever measures takes differences.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, PoisonError};

/// Both ways.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Client to origin.
    pub up: Way,
    /// Origin to client.
    pub down: Way,
}

/// One way.
#[derive(Debug, Default)]
pub struct Way {
    sent: AtomicU64,
    arrived: AtomicU64,
    /// Given up as lost, so that others may be sent.
    written_off: AtomicU64,
    /// Cut, changed, or somebody else's.
    wrong: AtomicU64,
    /// Datagrams under way at which a sender that waits is woken.
    low: AtomicU64,
    waiting: AtomicBool,
    senders: Mutex<Vec<Arc<mio::Waker>>>,
}

impl Way {
    /// Handed to the kernel.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Came to the other end, whole.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Relaxed)
    }

    /// Came to the other end as something else than was sent.
    pub fn wrong(&self) -> u64 {
        self.wrong.load(Relaxed)
    }

    pub(super) fn count_sent(&self, datagrams: u64) {
        self.sent.fetch_add(datagrams, SeqCst);
    }

    /// Takes back what the kernel did not take.
    pub(super) fn count_unsent(&self, datagrams: u64) {
        self.sent.fetch_sub(datagrams, SeqCst);
    }

    /// Counts what has come, and wakes a sender that waits for it.
    pub(super) fn count_arrived(&self, datagrams: u64, wrong: u64) {
        self.wrong.fetch_add(wrong, Relaxed);
        self.arrived.fetch_add(datagrams, SeqCst);
        if self.waiting.load(SeqCst)
            && self.under_way() <= self.low.load(Relaxed)
            && self.waiting.swap(false, SeqCst)
        {
            let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
            for sender in senders.iter() {
                // It fails only when its poll is gone, and then so is the sender.
                let _ = sender.wake();
            }
        }
    }

    /// Neither arrived nor given up.
    fn under_way(&self) -> u64 {
        let gone = self.arrived.load(SeqCst) + self.written_off.load(SeqCst);
        self.sent.load(SeqCst).saturating_sub(gone)
    }

    /// Whom to wake from now on. What is still under way is somebody else's and is given up.
    pub(super) fn set_senders(&self, senders: Vec<Arc<mio::Waker>>) {
        *self.senders.lock().unwrap_or_else(PoisonError::into_inner) = senders;
        self.write_off();
    }

    /// How many may be sent with so large a window; 0: the caller will be woken when there is room again.
    pub(super) fn room(&self, window: u64) -> u64 {
        let room = window.saturating_sub(self.under_way());
        if room > 0 {
            return room;
        }
        self.low.store(window / 2, Relaxed);
        self.waiting.store(true, SeqCst);
        // It may have become free before that was seen.
        let room = window.saturating_sub(self.under_way());
        if room > 0 {
            self.waiting.store(false, SeqCst);
        }
        room
    }

    /// Gives up what is under way: it has not arrived for too long.
    pub(super) fn write_off(&self) {
        // From the counts: what arrives late is not given up twice.
        let missing = self
            .sent
            .load(SeqCst)
            .saturating_sub(self.arrived.load(SeqCst));
        self.written_off.store(missing, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_opens_by_what_arrives_and_by_what_is_given_up() {
        let way = Way::default();
        assert_eq!(way.room(10), 10);
        way.count_sent(10);
        assert_eq!(way.room(10), 0);
        way.count_arrived(4, 0);
        assert_eq!(way.room(10), 4);
        way.write_off();
        assert_eq!(way.room(10), 10);
        // Late ones are no more than were sent.
        way.count_arrived(6, 1);
        assert_eq!(
            (way.room(10), way.sent(), way.arrived(), way.wrong()),
            (10, 10, 10, 1)
        );
        way.count_sent(3);
        way.write_off();
        way.count_sent(3);
        assert_eq!(way.room(10), 7);
    }
}
