//! A simulated peer: a client or a server that follows a script.

use std::time::Duration;

use super::Dice;
use super::socket::Socket;
use crate::relay::session::Close;
use crate::relay::time::Time;

/// How a peer ends its side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Finale {
    /// Ends after its last byte, reads until the other's end.
    #[default]
    Orderly,
    /// Ends only once the other has ended.
    AfterTheOther,
    /// Resets after its last byte.
    Reset,
    /// Ends, then resets.
    EndThenReset,
    /// Never ends: silence.
    Silence,
}

/// What a peer does when told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Sends so many bytes.
    Send(u64),
    /// Ends its side.
    End,
    /// Resets the connection.
    Reset,
}

/// What a peer will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Script {
    /// Bytes it sends.
    pub sends: u64,
    /// The most it sends at once.
    pub burst: u64,
    /// The most it reads at once; 0 never reads.
    pub reads: u64,
    /// Bytes that fit between the forwarder and its reading.
    pub window: u64,
    /// Milliseconds between one burst and the next.
    pub pause_ms: u64,
    /// How it ends.
    pub finale: Finale,
}

impl Script {
    /// A random script.
    pub const fn drawn(dice: &mut Dice) -> Self {
        let sends = match dice.between(0, 4) {
            0 => 0,
            1 => dice.between(1, 200),
            2 | 3 => dice.between(1, 200_000),
            _ => dice.between(1, 8_000_000),
        };
        let finale = match dice.between(0, 19) {
            0..=9 => Finale::Orderly,
            10..=13 => Finale::AfterTheOther,
            14..=15 => Finale::Reset,
            16..=17 => Finale::EndThenReset,
            _ => Finale::Silence,
        };
        let reads = match dice.between(0, 11) {
            0 => 0,
            1..=4 => dice.between(20_000, 100_000),
            _ => 1 << 20,
        };
        // One in ten drips: less than a second between bursts, for longer than
        // any silence is borne.
        if dice.percent(10) {
            let sends = dice.between(10, 30);
            return Self {
                sends,
                burst: 1,
                reads,
                window: 1 << 16,
                pause_ms: dice.between(300, 900),
                finale,
            };
        }
        Self {
            sends,
            burst: dice.between(sends / 200 + 1, sends / 2 + 2),
            reads,
            window: dice.between(1_000, 1 << 20),
            pause_ms: 0,
            finale,
        }
    }
}

/// A peer and the queues between it and the forwarder.
#[derive(Debug, Default)]
pub struct Peer {
    script: Script,
    /// Bytes sent so far.
    pub(super) sent: u64,
    /// Of these, not yet read by the forwarder.
    pub(super) inbox: u64,
    pub(super) fin_sent: bool,
    pub(super) has_reset: bool,
    /// Room for bytes that it has not read yet.
    pub(super) window: u64,
    /// Bytes written by the forwarder that it has not read yet.
    pub(super) queued: u64,
    pub(super) fin_queued: bool,
    pub(super) reset_queued: bool,
    pub(super) received: u64,
    /// Thrown away by a reset before it read them.
    pub(super) lost: u64,
    pub(super) saw_fin: bool,
    pub(super) saw_reset: bool,
    /// The forwarder has begun to close the session.
    pub(super) over: bool,
    resets_at: Option<Time>,
    /// Sends nothing before.
    sends_at: Time,
}

/// What a peer did in a step.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Act {
    /// It sent bytes or an end.
    pub(super) sent: bool,
    /// It read bytes.
    pub(super) took: bool,
    /// It reset the connection.
    pub(super) failed: bool,
    /// It will do something later.
    pub(super) waits: bool,
}

impl Peer {
    pub(super) fn new(script: Script) -> Self {
        Self {
            script,
            window: script.window,
            ..Self::default()
        }
    }

    /// Reads all, sends all, ends in good order.
    pub(super) const fn behaves(&self) -> bool {
        self.script.reads > 0
            && matches!(self.script.finale, Finale::Orderly | Finale::AfterTheOther)
    }

    pub(super) const fn resets(&self) -> bool {
        matches!(self.script.finale, Finale::Reset | Finale::EndThenReset)
    }

    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// It got every byte and the end of `other`.
    pub(super) const fn is_satisfied_by(&self, other: &Self) -> bool {
        self.received + self.queued == other.script.sends
            && (self.saw_fin || self.fin_queued)
            && !self.saw_reset
    }

    /// When it will do something by itself, if it waits for a time.
    pub(super) fn wakes_at(&self) -> Option<Time> {
        (self.sent < self.script.sends && !self.saw_reset && !self.has_reset)
            .then_some(self.sends_at)
    }

    pub(super) fn does(&mut self, deed: Deed) {
        match deed {
            Deed::Send(n) => {
                self.sent += n;
                self.inbox += n;
            }
            Deed::End => self.fin_sent = true,
            Deed::Reset => {
                self.has_reset = true;
                self.lost += std::mem::take(&mut self.queued);
            }
        }
    }

    pub(super) fn act(&mut self, now: Time, dice: &mut Dice) -> Act {
        let mut act = Act::default();
        if self.has_reset || self.saw_reset {
            return act;
        }
        if dice.percent(50) {
            self.receive(&mut act);
        } else {
            self.send(now, dice, &mut act);
        }
        act
    }

    fn receive(&mut self, act: &mut Act) {
        let n = self.queued.min(self.script.reads);
        if n > 0 {
            self.queued -= n;
            self.received += n;
            act.took = true;
        } else if self.queued == 0 && self.reset_queued {
            self.saw_reset = true;
        } else if self.queued == 0 && self.fin_queued && !self.saw_fin {
            self.saw_fin = true;
            act.waits = true;
        }
    }

    fn send(&mut self, now: Time, dice: &mut Dice, act: &mut Act) {
        if self.sent < self.script.sends {
            // A receive window on the forwarder's side: 4 MiB.
            if self.inbox < 4 << 20 && now >= self.sends_at {
                self.sends_at = now + Duration::from_millis(self.script.pause_ms);
                let n = dice
                    .between(1, self.script.burst.max(1))
                    .min(self.script.sends - self.sent);
                self.sent += n;
                self.inbox += n;
                act.sent = true;
            }
            return;
        }
        let ends = match self.script.finale {
            Finale::Orderly | Finale::EndThenReset => true,
            Finale::AfterTheOther => self.saw_fin,
            Finale::Reset | Finale::Silence => false,
        };
        if ends && !self.fin_sent {
            self.fin_sent = true;
            act.sent = true;
        } else if self.resets() {
            // Some time after the last byte, so that both the quick and the
            // late reset happen.
            let at = *self
                .resets_at
                .get_or_insert_with(|| now + Duration::from_micros(dice.between(0, 20_000)));
            act.waits = true;
            if now >= at {
                self.has_reset = true;
                act.failed = true;
                // Its own queue goes with it.
                self.lost += std::mem::take(&mut self.queued);
            }
        }
    }

    /// The forwarder closed its socket towards this peer.
    pub(super) fn socket_closed(&mut self, _socket: &Socket, how: Close) {
        // As the kernel does: unread bytes turn a close into a reset.
        let reset = how == Close::Reset || self.inbox > 0;
        if self.has_reset {
            return;
        }
        if reset {
            self.lost += std::mem::take(&mut self.queued);
            self.saw_reset = true;
        } else {
            // What is queued is still delivered, then the end.
            self.received += std::mem::take(&mut self.queued);
            self.saw_fin = true;
        }
    }
}
