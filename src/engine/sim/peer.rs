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
    /// How many of the bytes it sends are a request that says where to go; 0: none.
    pub request: u64,
    /// That request is malformed.
    pub malformed: bool,
}

/// Bytes of the shortest request that [`Script::text`] can write, and of the shortest
/// with a header.
const REQUEST_MIN: u64 = 26;
const REQUEST_PADDED_MIN: u64 = REQUEST_MIN + 5;

impl Script {
    /// A random script of a client that asks where to go, or does not get to the end
    /// of asking.
    pub const fn asking(dice: &mut Dice) -> Self {
        let mut script = Self::drawn(dice);
        script.request = if dice.percent(40) {
            REQUEST_MIN
        } else {
            dice.between(REQUEST_PADDED_MIN, 600)
        };
        script.malformed = dice.percent(10);
        if !dice.percent(10) {
            script.sends += script.request;
        }
        script
    }

    /// The request, as a client would send it.
    pub(super) fn text(&self) -> Vec<u8> {
        let method = if self.malformed { "CONN@CT" } else { "CONNECT" };
        let padding = match self.request.checked_sub(REQUEST_PADDED_MIN) {
            Some(more) => format!("A: {}\r\n", "b".repeat(more as usize)),
            None => String::new(),
        };
        format!("{method} sim:1 HTTP/1.1\r\n{padding}\r\n").into_bytes()
    }

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
                request: 0,
                malformed: false,
            };
        }
        Self {
            sends,
            burst: dice.between(sends / 200 + 1, sends / 2 + 2),
            reads,
            window: dice.between(1_000, 1 << 20),
            pause_ms: 0,
            finale,
            request: 0,
            malformed: false,
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
    /// Of these, seen by the last look.
    pub(super) looked: u64,
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
    /// Of what was written to it, the forwarder's own words.
    pub(super) said: u64,
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

    /// Bytes of its payload that it has sent.
    pub(super) const fn payload_sent(&self) -> u64 {
        self.sent.saturating_sub(self.script.request)
    }

    /// It sends all it has without a rest.
    pub(super) const fn is_swift(&self) -> bool {
        self.script.pause_ms == 0
    }

    /// What it has sent and nobody has taken, copied as far as there is room; what is
    /// no request is zeroes.
    pub(super) fn peeked(&self, buffer: &mut [u8]) -> usize {
        let text = self.script.text();
        let text = if self.script.request == 0 {
            &[][..]
        } else {
            &text
        };
        let read = (self.sent - self.inbox) as usize;
        let len = buffer.len().min(self.inbox as usize);
        for (at, byte) in buffer[..len].iter_mut().enumerate() {
            *byte = text.get(read + at).copied().unwrap_or(0);
        }
        len
    }

    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// It got every byte and the end of `other`.
    pub(super) const fn is_satisfied_by(&self, other: &Self) -> bool {
        self.received + self.queued
            == other.script.sends.saturating_sub(other.script.request) + self.said
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
