//! What a completion means: which leg it belongs to, what that leg is ready for.
//!
//! Nothing here decides what happens next; it changes the leg and reports an event.

use std::os::fd::AsFd;

use super::leg::Leg;
use super::op::{At, Op, Tag};
use super::rest::list_rest;
use super::ring::Completion;
use super::vigil::list_vigil;
use super::{POLL_PAUSE, READABLE, Uring, ready};
use crate::engine::common::{self, Told};
use crate::engine::{Engine, Event};
use crate::relay::probe;
use crate::relay::session::Readiness;

impl Uring {
    pub(super) fn dispatch(&mut self, completion: Completion, events: &mut Vec<Event>) {
        match completion.tag {
            Tag::Side(at, op) => self.landed(at, op, completion, events),
            Tag::Listeners => {
                self.poll_again(completion);
                if self.has_told {
                    // Flows that were told of and not read yet would be told of again by each call:
                    // there is enough to do until the next turn asks.
                    self.unreported = true;
                } else {
                    self.report(events);
                }
            }
            Tag::Waker => {
                self.waker.rest();
                self.poll_again(completion);
                events.push(Event::Woken);
            }
            Tag::Cancel => {}
        }
    }

    /// What the epoll instance of the listeners tells. What it has not told by then it is asked for
    /// again in the next turn: the ring would be told of news only.
    pub(super) fn report(&mut self, events: &mut Vec<Event>) {
        let datagrams = &mut self.datagrams;
        let all = self.listen_poll.report(|event, failed| {
            if let Event::Datagrams(key) = event
                && !datagrams.is_ready(key, failed)
            {
                return;
            }
            events.push(event);
        });
        self.unreported |= !all;
    }

    /// The poll of the listeners or of the waker completed: if for good, it is
    /// started again. One that was refused is given time, or it would be refused
    /// over and over.
    fn poll_again(&mut self, completion: Completion) {
        if completion.more() {
            return;
        }
        if completion.result < 0 {
            self.refused_polls.push(completion.tag);
            self.polls_due = self.now() + POLL_PAUSE;
        } else {
            self.start_poll(completion.tag);
        }
    }

    pub(super) fn start_poll(&mut self, tag: Tag) {
        let fd = match tag {
            Tag::Listeners => self.listen_poll.as_fd(),
            Tag::Waker => self.waker.as_fd(),
            Tag::Side(..) | Tag::Cancel => return,
        };
        self.ring.poll_on(fd, libc::POLLIN, tag);
    }

    fn landed(&mut self, at: At, op: Op, completion: Completion, events: &mut Vec<Event>) {
        let piece = self.ring.piece(&completion);
        let Some(leg) = self.conns.leg_mut(at.key, at.side) else {
            if let Some(piece) = piece {
                self.ring.buffers().recycle(piece);
            }
            return;
        };
        if !completion.more() {
            leg.landed(op);
        }
        if leg.quiescing {
            self.quieting.push(at.key);
        }
        let result = completion.result;
        if op == Op::Send {
            leg.sent(Err(result), &mut self.ring, &mut self.common.kit);
        } else if op == Op::Recv && !leg.closing {
            if result == -libc::ENOBUFS {
                probe::visit("receive", "no buffer");
            }
            match piece {
                Some(piece) if result > 0 => {
                    leg.take_in(piece, at, &mut self.ring, &mut self.common.kit);
                }
                Some(piece) => self.ring.buffers().recycle(piece),
                None => {}
            }
            let readiness = leg.received(result, completion.more());
            events.push(ready(at.side, at.key, readiness));
        } else if let Some(piece) = piece {
            self.ring.buffers().recycle(piece);
        }
        if leg.closing {
            return leg_closed(leg, at, events);
        }
        if matches!(op, Op::Recv | Op::WatchIn) {
            // A lane that is parked starts no other: then a vigil tells.
            list_vigil(&mut self.vigils, leg, at, self.common.clock.now());
        }
        match op {
            Op::WatchIn | Op::WatchOut | Op::Vigil if is_called_off(leg, result) => {}
            Op::WatchIn | Op::Vigil => {
                let failed = result < 0 || result as i16 & libc::POLLERR != 0;
                let ended = result as i16 & (libc::POLLRDHUP | libc::POLLHUP) != 0;
                leg.exhaustive |= ended || failed || result as i16 & libc::POLLPRI != 0;
                leg.hung_up |= failed || result as i16 & libc::POLLHUP != 0;
                let readiness = Readiness { failed, ..READABLE };
                events.push(ready(at.side, at.key, readiness));
            }
            Op::WatchOut if leg.connecting => self.connect_ended(at, result, events),
            Op::WatchOut => {
                leg.is_told_writable();
                if leg.has_left_over() && !leg.flush(&mut self.common.kit) {
                    leg.watch_out(at, &mut self.ring);
                    return list_rest(&mut self.rests, leg, at, self.common.clock.now());
                }
                if leg.has_send_failed() {
                    events.push(ready(at.side.other(), at.key, READABLE));
                }
                let readiness = Readiness {
                    readable: false,
                    writable: true,
                    failed: result < 0 || result as i16 & libc::POLLERR != 0,
                };
                events.push(ready(at.side, at.key, readiness));
            }
            Op::Recv | Op::Send => {}
        }
    }

    /// The sends of this turn are over: those of which nothing was heard have
    /// succeeded.
    pub(super) fn settle_sends(&mut self, events: &mut Vec<Event>) {
        for at in self.sends.drain(..) {
            let Some(leg) = self.conns.leg_mut(at.key, at.side) else {
                continue;
            };
            if leg.quiescing {
                self.quieting.push(at.key);
            }
            if leg.flies(Op::Send) {
                leg.sent(Ok(()), &mut self.ring, &mut self.common.kit);
            }
            if leg.closing {
                leg_closed(leg, at, events);
                continue;
            }
            if leg.has_left_over() {
                leg.watch_out(at, &mut self.ring);
                list_rest(&mut self.rests, leg, at, self.common.clock.now());
            }
            let waits = std::mem::take(&mut leg.sender_waits);
            if waits || leg.has_left_over() || leg.has_send_failed() {
                // The lane towards this side is pumped when its source is ready.
                events.push(ready(at.side.other(), at.key, READABLE));
            }
        }
    }

    /// A connecting socket is writable or in error. What a completion tells was so when it
    /// came, which may be a turn ago: in doubt, always.
    fn connect_ended(&mut self, at: At, result: i32, events: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(at.key) else {
            return;
        };
        let leg = &mut conn.legs[at.side.index()];
        let Some(fd) = &leg.fd else { return };
        let told = if result >= 0 && result as i16 & libc::POLLOUT != 0 {
            Told::Doubtful
        } else {
            Told::Nothing
        };
        let Some(outcome) = common::connect_outcome(fd.as_fd(), conn.suspect, told) else {
            return leg.watch(Op::WatchOut, at, &mut self.ring);
        };
        leg.connecting = false;
        match outcome {
            Ok(()) => {
                events.push(Event::Connected(at.key));
                self.established(at.key);
            }
            Err(cause) => {
                leg.replace(None);
                events.push(Event::ConnectFailed(at.key, cause));
            }
        }
        events.append(&mut self.queued);
    }
}

/// Whether a poll came to nothing because the leg is to be quiet.
const fn is_called_off(leg: &Leg, result: i32) -> bool {
    leg.quiescing && result == -libc::ECANCELED
}

/// Closes the descriptor of a leg that waited for this, once nothing is in flight.
fn leg_closed(leg: &mut Leg, at: At, events: &mut Vec<Event>) {
    if leg.closing && leg.is_quiet() {
        leg.drop_fd();
        leg.closing = false;
        events.push(Event::Closed(at.key, at.side));
    }
}
