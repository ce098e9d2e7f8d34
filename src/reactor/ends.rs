//! The end of a session: what it adds to the counters, and what it says of its server.

use std::time::Duration;

use super::destination::Destination;
use super::dialling::Dialler;
use super::upstream::server::{Server, add};
use super::{Entry, Reactor};
use crate::engine::{Engine, SessionKey};
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

impl<E: Engine> Reactor<E> {
    /// The one place where a key is freed.
    pub(super) fn finish(&mut self, key: SessionKey) {
        self.wheel.disarm(key.slot);
        let Some(entry) = self.ctx.sessions.remove(key) else {
            return;
        };
        self.outlets.untap(key, &entry, &mut self.ctx);
        if let Some(opened) = &entry.opening {
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
        add(&tally.bytes_up, session.lane(Direction::Up).bytes_out());
        add(&tally.bytes_down, session.lane(Direction::Down).bytes_out());
        if !entry.unproven {
            return;
        }
        match verdict(session, self.ctx.engine.now()) {
            Verdict::Failed(cause) => {
                tally.failed(cause);
                Dialler::blame(&mut self.ctx, server, entry.admission, cause);
            }
            Verdict::Passed => Dialler::praise(&mut self.ctx, server, entry.admission),
            Verdict::None => server
                .standing
                .abandoned(entry.admission, self.ctx.engine.now()),
        }
    }
}
