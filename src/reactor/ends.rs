//! The end of a session: what it adds to the counters, and what it says of its server.

use std::time::Duration;

use super::context::Ctx;
use super::destination::Destination;
use super::packed::Booked;
use super::upstream::server::{Server, add};
use super::verdict;
use super::{Entry, Reactor};
use crate::engine::{Datagrams, Engine, SessionKey};
use crate::observe::books::Ended;
use crate::relay::ending::{Cause, Who};
use crate::relay::session::Session;
use crate::relay::time::Time;
use crate::relay::{Direction, Side};

/// A server that resets a connection sooner, without having said anything, has failed
/// it (behaviour 24).
pub(super) const RESET_SOON: Duration = Duration::from_secs(1);

/// What a session says of a server that never sent it a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed(Cause),
    /// Nothing: it may have been anybody's doing.
    None,
}

fn verdict(session: &Session, now: Time) -> Verdict {
    let (Some(ending), Some(connect)) = (session.ending(), session.connect_time()) else {
        // The client was faster than the answer.
        return Verdict::None;
    };
    let lasted = session.total_time(now).unwrap_or_default();
    match (ending.who, ending.cause) {
        // With TCP Fast Open the answer to the SYN comes to the first write.
        (Who::Peer(Side::Upstream), cause @ (Cause::Refused | Cause::Unreachable)) => {
            Verdict::Failed(cause)
        }
        (Who::Peer(Side::Upstream), Cause::Reset)
            if lasted.saturating_sub(connect) < RESET_SOON =>
        {
            Verdict::Failed(Cause::Reset)
        }
        (Who::Peer(Side::Upstream) | Who::Forwarder, _) => Verdict::None,
        (Who::Both | Who::Peer(Side::Client), _) => Verdict::Passed,
    }
}

/// Enters what a session has moved since it was done last in the books of its forward
/// and its server. What was entered is never taken back: an engine that takes back what it
/// reported as written (see `Lane::undrained`) makes up for it with the next bytes.
pub(super) fn settle(entry: &mut Entry, reactor: u16) {
    let now = booked(&entry.session);
    let bytes = now.map(Booked::bytes);
    let before = entry.settled.map(Booked::bytes);
    for direction in Direction::BOTH.map(Direction::index) {
        if bytes[direction] > before[direction] {
            entry.settled[direction] = now[direction];
        }
    }
    enter(entry, before, bytes, reactor);
}

/// Likewise once a session is over: to the last byte.
fn settle_all(entry: &Entry, reactor: u16) {
    let before = entry.settled.map(Booked::bytes);
    let bytes = Direction::BOTH.map(|it| entry.session.lane(it).bytes_out());
    enter(entry, before, bytes, reactor);
}

/// What is in the books of a session once it is settled. One that moves to another reactor
/// has the same there, so what is missing of it is entered at its end, once.
pub(super) fn booked(session: &Session) -> [Booked; 2] {
    Direction::BOTH.map(|it| Booked::at_most(session.lane(it).bytes_out()))
}

fn enter(entry: &Entry, before: [u64; 2], bytes: [u64; 2], reactor: u16) {
    let moved = [0, 1].map(|direction| bytes[direction].saturating_sub(before[direction]));
    if moved == [0; 2] {
        return;
    }
    let [up, down] = moved;
    let cells = &entry.listener.forward.books.of(reactor).cells;
    cells.bytes_up.add(up);
    cells.bytes_down.add(down);
    if let Some(server) = entry.destination.as_ref().and_then(Destination::account) {
        add(&server.tally.bytes_up, up);
        add(&server.tally.bytes_down, down);
    }
}

/// The session has ended: so it stands in the books of its forward.
fn close_books<E: Engine>(entry: &Entry, ctx: &Ctx<E>) {
    let session = &entry.session;
    let page = entry.listener.forward.books.of(ctx.reactor);
    page.end(&Ended {
        ending: session.ending(),
        connect: session.connect_time(),
        first_byte: session.first_byte_time(),
        length: ctx.now().since(session.started()),
        bytes: Direction::BOTH.map(|it| session.lane(it).bytes_out()),
    });
}

impl<E: Datagrams> Reactor<E> {
    /// The one place where a key is freed.
    pub(super) fn finish(&mut self, key: SessionKey) {
        self.wheel.disarm(key.slot);
        self.leaving.ended(key);
        let Some(entry) = self.ctx.sessions.remove(key) else {
            return;
        };
        self.ctx.left(key);
        self.old.left(key);
        self.outlets.untap(key, &entry, &mut self.ctx);
        if let Some(opened) = entry.aside.opened() {
            self.openings.gone(key, opened);
        }
        if entry.in_line {
            self.dialler.pools[entry.listener.forward.pool].line.left();
        }
        let session = &entry.session;
        let (up, down) = (session.lane(Direction::Up), session.lane(Direction::Down));
        let counters = &self.ctx.counters;
        counters.ended.add(1);
        counters.bytes_lost.add(up.bytes_lost() + down.bytes_lost());
        counters
            .sessions_spliced
            .add(u64::from(up.has_spliced() || down.has_spliced()));
        counters.splice_fallbacks.add(
            [up, down]
                .iter()
                .filter(|lane| lane.fallback().is_some())
                .count() as u64,
        );
        if session
            .ending()
            .is_some_and(|ending| ending.who == Who::Both)
        {
            counters.ended_well.add(1);
        }
        let had_both = session.connect_time().is_some();
        settle_all(&entry, self.ctx.reactor);
        close_books(&entry, &self.ctx);
        self.make_room(&entry.listener.forward, had_both);
        if let Some(destination) = &entry.destination {
            self.dialler.release(&mut self.ctx, destination);
        }
        if let Some(server) = entry.destination.as_ref().and_then(Destination::account) {
            self.part_from(server, &entry);
        }
        self.outlets.end(&entry, &self.ctx);
    }

    /// A session leaves its server: what it moved, and what it says of the server.
    fn part_from(&mut self, server: &Server, entry: &Entry) {
        let session = &entry.session;
        let tally = &server.tally;
        if !entry.unproven {
            return;
        }
        match verdict(session, self.ctx.engine.now()) {
            Verdict::Failed(cause) => {
                tally.failed(cause);
                verdict::blame(&mut self.ctx, server, entry.admission, cause);
            }
            Verdict::Passed => verdict::praise(&mut self.ctx, server, entry.admission),
            Verdict::None => server
                .standing
                .abandoned(entry.admission, self.ctx.engine.now()),
        }
    }
}
