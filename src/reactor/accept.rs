//! Clients that are let in become sessions; and what follows on the connect of each.

use super::aside::Aside;
use super::let_in::let_in;
use super::listen_queue::Admitted;
use super::opened::Opened;
use super::packed::{Booked, PackedId};
use super::{Entry, Forward, Listener, Reactor};
use crate::balance::health::Admission;
use crate::engine::{Datagrams, SessionKey};
use crate::net::turn_away::TurnAway;
use crate::relay::session::Session;
use crate::relay::time::Time;

impl<E: Datagrams> Reactor<E> {
    /// Lets a bounded number of clients in, in turn over the listeners.
    pub(super) fn accept(&mut self) {
        if self.draining {
            return;
        }
        self.listen_queue.start_turn(self.ctx.now());
        while let Some(admitted) = self.listen_queue.next(&mut self.ctx) {
            if let Some(admitted) = self.keep_or_pass(admitted) {
                self.start(admitted);
            }
            // Who is turned away for want of descriptors is the last of this turn.
            self.settle();
        }
    }

    /// Out of descriptors or memory: give up what can be spared, pause.
    pub(super) fn starve(&mut self, now: Time) {
        self.ctx.counters.accept_pauses.add(1);
        self.ctx.engine.release_spares();
        self.dialler.drop_spares(&mut self.ctx);
        self.flows.starve(&mut self.ctx);
        self.listen_queue.starve(now);
    }

    pub(super) fn start(&mut self, admitted: Admitted<E::Incoming>) {
        let Admitted {
            incoming,
            client,
            at,
        } = admitted;
        let now = self.ctx.engine.now();
        self.ctx.review_places(&at.forward);
        self.ctx.counters.accepted.add(1);
        // Who stands behind another is known once that one has said so.
        let asked = if at.forward.announced {
            Ok(None)
        } else {
            let_in(&mut self.ctx, &at.forward, &client)
        };
        let Ok(grant) = asked else {
            return self.turn_away(incoming, &at);
        };
        let key = self.ctx.sessions.reserve();
        let adopted = key.map(|key| self.ctx.engine.adopt(key, incoming));
        if !matches!(adopted, Some(Ok(()))) {
            self.ctx.counters.refused.add(1);
            self.ctx.counters.ended.add(1);
            self.make_room(&at.forward, false);
            self.starve(now);
            return;
        }
        let mut actions = std::mem::take(&mut self.actions);
        actions.clear();
        let rules = at.forward.rules;
        let session = Session::new(&rules, now, &mut actions);
        self.sessions_started += 1;
        let announced = at.forward.announced;
        let entry = Entry {
            session,
            client: client.into(),
            id: PackedId::new(self.ctx.reactor, self.sessions_started),
            queued: 0,
            in_line: false,
            unproven: true,
            warm: false,
            admission: Admission::Free,
            destination: None,
            aside: Aside::new(Opened::begin(&at.forward), None),
            listener: at,
            grant,
            settled: [Booked::default(); 2],
        };
        let books = &entry.listener.forward.books;
        books.of(self.ctx.reactor).cells.started.add(1);
        if let Some(key) = self.ctx.sessions.insert(entry) {
            self.ctx.shortage.entered(key, &self.ctx.sessions);
            self.old.entered(key, self.ctx.now());
            if !announced {
                self.outlets.begin(key, &mut self.ctx);
            }
            self.carry_out(key, &mut actions);
        }
        self.actions = actions;
    }

    /// Is rid of a client without making a session of it.
    fn turn_away(&mut self, incoming: E::Incoming, at: &Listener) {
        let how = at
            .forward
            .clients
            .as_ref()
            .map_or(TurnAway::Reset, |it| it.turns_away);
        self.ctx.engine.turn_away(incoming, how);
        self.ctx.counters.ended.add(1);
        self.make_room(&at.forward, true);
    }

    /// A session of this forward has ended; whether it ever had both its sides.
    pub(super) fn make_room(&mut self, forward: &Forward, had_both: bool) {
        self.listen_queue.make_room(forward, had_both);
    }

    /// The outcome of a connect, told to its session; the handshake's last ACK
    /// is remembered if no data went along with it.
    pub(super) fn connected(&mut self, key: SessionKey) {
        self.dialler.apply_connected(&mut self.ctx, key);
        let event = self.dialler.connected(&mut self.ctx, key);
        self.deliver(key, event);
        self.owe_ack(key);
    }
}
