//! Sessions that leave for another engine, or come from one.
//!
//! Leaving is a join, as closing is: what is in flight is cancelled and waited for. An
//! armed receive would go on taking bytes though the descriptor was closed here (measured),
//! and what one has brought goes along. Until then the lanes are pumped as ever, but
//! nothing is started that could outlive the turn: a leg that is to be quiet is read and
//! written by direct calls.
//!
//! Invariants: a leg is detached only when it is quiet; its provided buffers go back.

use std::os::fd::AsFd;

use super::Uring;
use super::leg::Leg;
use super::op::{At, Op, SLOTS_MAX};
use super::vigil::list_vigil;
use crate::engine::common::{Cargo, Conn};
use crate::engine::detached::{Detached, Held, LooseSide};
use crate::engine::pump::Kit;
use crate::engine::uring::ring::Ring;
use crate::engine::{Event, SessionKey, Start};
use crate::observe::tap::{Appetite, StreamEnd};
use crate::relay::ending::Cause;
use crate::relay::lane::Lane;
use crate::relay::session::Readiness;
use crate::relay::{Direction, Side};

impl Uring {
    pub(super) fn begin_to_quiesce(&mut self, key: SessionKey) -> Start<()> {
        let Some(conn) = self.conns.get_mut(key) else {
            return Start::Done(());
        };
        for side in Side::BOTH {
            let at = At { key, side };
            let leg = &mut conn.legs[side.index()];
            leg.begin_to_be_quiet(at, &mut self.ring, &mut self.common.kit);
            self.hurry |= leg.flies(Op::Send);
        }
        if is_quiet(conn) {
            Start::Done(())
        } else {
            Start::Pending
        }
    }

    /// Tells of sessions that have become quiet with what has landed in this turn; behind
    /// every other event, which their lanes have to know of first.
    pub(super) fn tell_of_quiet(&mut self, events: &mut Vec<Event>) {
        self.quieting.sort_unstable();
        self.quieting.dedup();
        for key in self.quieting.drain(..) {
            if self.conns.get(key).is_some_and(is_quiet) {
                events.push(Event::Quiet(key));
            }
        }
    }

    pub(super) fn let_go(&mut self, key: SessionKey, lanes: &mut [Lane; 2]) -> Option<Detached> {
        let conn = self.conns.get_mut(key)?;
        if !is_quiet(conn) {
            return None;
        }
        let (ring, kit) = (&mut self.ring, &mut self.common.kit);
        let held = Direction::BOTH.map(|direction| {
            let lane = &mut lanes[direction.index()];
            take_stock(conn, direction, lane, ring, kit)
        });
        let sides = conn.legs.each_mut().map(|leg| {
            let side = leg.fd.take().map(|fd| LooseSide {
                fd,
                exhaustive: leg.exhaustive,
                shut: leg.shut,
                shared: leg.shared,
            });
            leg.replace(None);
            side
        });
        Some(Detached {
            sides,
            held,
            tap: conn.cargo.take_tap(),
            mark: None,
        })
    }

    pub(super) fn take_over(
        &mut self,
        key: SessionKey,
        detached: Detached,
    ) -> Result<(), (Cause, Detached)> {
        if key.slot >= SLOTS_MAX {
            return Err((Cause::NoMemory, detached));
        }
        // The kernel reads ahead of lanes: none of it can be gone on with after a kill.
        let Detached {
            sides, held, tap, ..
        } = detached;
        let kit = &mut self.common.kit;
        let stores = held.map(|held| kit.take_up(held));
        let now = self.common.clock.now();
        let conn = self.conns.open(key);
        conn.cargo = Cargo::new(stores, tap);
        for (side, loose) in Side::BOTH.into_iter().zip(sides) {
            let Some(loose) = loose else { continue };
            let leg = &mut conn.legs[side.index()];
            leg.replace(Some(loose.fd));
            leg.exhaustive = loose.exhaustive;
            leg.shut = loose.shut;
            leg.shared = loose.shared;
            list_vigil(&mut self.vigils, leg, At { key, side }, now);
            // Whether it is so, the lanes find out; what is not is waited for then.
            let readiness = Readiness {
                readable: true,
                writable: true,
                failed: false,
            };
            self.queued.push(Event::Ready(key, side, readiness));
        }
        Ok(())
    }

    /// Nothing is in flight for it until a session has it.
    pub(super) fn take_over_ahead(
        &mut self,
        key: SessionKey,
        mut detached: Detached,
    ) -> Result<(), (Cause, Detached)> {
        if key.slot >= SLOTS_MAX {
            return Err((Cause::NoMemory, detached));
        }
        if let Some(loose) = detached.sides[Side::Upstream.index()].take() {
            let leg = &mut self.conns.open(key).legs[Side::Upstream.index()];
            leg.replace(Some(loose.fd));
            leg.exhaustive = loose.exhaustive;
            leg.shared = loose.shared;
        }
        Ok(())
    }
}

/// Whether nothing is in flight for either side, of a session that is to be quiet.
fn is_quiet(conn: &Conn<Leg>) -> bool {
    let quiet = |leg: &Leg| leg.is_quiet() && !leg.closing;
    let asked = conn.legs.iter().any(|leg| leg.quiescing);
    asked && conn.legs.iter().all(quiet)
}

/// What a lane holds, with what was read ahead of it and what its sink sent back.
fn take_stock(
    conn: &mut Conn<Leg>,
    direction: Direction,
    lane: &mut Lane,
    ring: &mut Ring,
    kit: &mut Kit,
) -> Held {
    let [client, upstream] = &mut conn.legs;
    let (source, sink) = match direction {
        Direction::Up => (client, upstream),
        Direction::Down => (upstream, client),
    };
    let mut held = kit.let_go(&mut conn.cargo.take(direction));
    if let Some(tail) = sink.take_left_over(kit) {
        lane.undrained(tail.unsent().len() as u32);
        if lane.held() > 0 {
            held = Held::bytes(tail.unsent());
        }
        kit.chunks.recycle(tail);
    }
    if let Some((_, len)) = sink.take_send_failure() {
        // Its session was told by the pump that came before.
        lane.undrained(len);
        lane.sink_failed();
        held = Held::Nothing;
    }
    let ahead = source.take_received(ring, kit);
    if lane.sink_has_ended() {
        if !ahead.is_empty() {
            lane.discarded(ahead.len() as u32);
        }
    } else if !ahead.is_empty() {
        lane.filled_behind(ahead.len() as u32);
        if let Some(tap) = conn.cargo.tap()
            && tap.chunk(direction, &ahead) == Appetite::Sated
        {
            lane.untap();
        }
        held = held.followed_by(&ahead);
    }
    match source.end.take() {
        None => {}
        Some(0) => {
            lane.source_eof();
            if let Some(tap) = conn.cargo.tap() {
                tap.end(direction, StreamEnd::Orderly, lane.bytes_in());
            }
        }
        // The session knows: the failure of a side is told with the receive that met it.
        Some(_) => {
            lane.source_failed();
            if let Some(tap) = conn.cargo.tap() {
                tap.end(direction, StreamEnd::Failed, lane.bytes_in());
            }
        }
    }
    held
}

impl Leg {
    /// Cancels what is in flight, and starts nothing more. What was received is kept.
    fn begin_to_be_quiet(&mut self, at: At, ring: &mut Ring, kit: &mut Kit) {
        self.quiescing = true;
        self.leave_stream(at, ring, kit);
        for op in [Op::WatchIn, Op::WatchOut, Op::Vigil] {
            if self.flies(op) {
                ring.cancel(super::op::Tag::Side(at, op));
            }
        }
    }

    /// All that was received and not forwarded, in order.
    fn take_received(&mut self, ring: &mut Ring, kit: &mut Kit) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(tail) = self.next_spilled(kit) {
            bytes.extend_from_slice(tail.unsent());
            kit.chunks.recycle(tail);
        }
        while let Some(piece) = self.next_piece(ring) {
            bytes.extend_from_slice(ring.buffers().bytes(&piece));
            ring.buffers().recycle(piece);
        }
        bytes
    }

    /// Closes the descriptor; nothing is in flight.
    pub(super) fn drop_fd(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        if self.shared {
            if self.aborts {
                crate::net::shared::tell_reset(fd.as_fd());
            } else {
                crate::net::shared::tell_end(fd.as_fd());
            }
        }
    }
}
