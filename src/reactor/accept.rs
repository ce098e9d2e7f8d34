//! Clients that are let in become sessions; and what follows on the connect of each.

use super::destination::Destination;
use super::listen_queue::Admitted;
use super::openings::Opened;
use super::{Entry, Forward, Reactor};
use crate::balance::health::Admission;
use crate::engine::{Engine, SessionKey};
use crate::net::dial::Local;
use crate::net::options::Family;
use crate::net::options::plan::Stage;
use crate::relay::session::{Event as SessionEvent, Session};
use crate::relay::time::Time;

impl<E: Engine> Reactor<E> {
    /// Lets a bounded number of clients in, in turn over the listeners.
    pub(super) fn accept(&mut self) {
        if self.draining {
            return;
        }
        self.listen_queue.start_turn(self.ctx.now());
        while let Some(admitted) = self.listen_queue.next(&mut self.ctx) {
            self.start(admitted);
        }
    }

    /// Out of descriptors or memory: give up what can be spared, pause.
    pub(super) fn starve(&mut self, now: Time) {
        self.ctx.counters.accept_pauses.add(1);
        self.ctx.engine.release_spares();
        self.drop_spares();
        self.listen_queue.starve(now);
    }

    fn start(&mut self, admitted: Admitted<E::Incoming>) {
        let Admitted {
            incoming,
            client,
            at,
        } = admitted;
        let now = self.ctx.engine.now();
        self.ctx.counters.accepted.add(1);
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
        let entry = Entry {
            session,
            client,
            id: self.sessions_started,
            queued: 0,
            in_line: false,
            unproven: true,
            warm: false,
            admission: Admission::Free,
            destination: None,
            dialling: None,
            opening: Opened::begin(&at.forward.steps),
            listener: at,
            legs: None,
        };
        if let Some(key) = self.ctx.sessions.insert(entry) {
            self.outlets.begin(key, &mut self.ctx);
            self.carry_out(key, &mut actions);
        }
        self.actions = actions;
    }

    /// A session of this forward has ended; whether it ever had both its sides.
    pub(super) fn make_room(&mut self, forward: &Forward, had_both: bool) {
        self.listen_queue.make_room(forward, had_both);
    }

    pub(super) fn apply_connected(&mut self, key: SessionKey) {
        let Some(entry) = self.ctx.sessions.get(key) else {
            return;
        };
        let forward = &entry.listener.forward;
        let upstream = &self.pools[forward.pool];
        let Some(destination) = &entry.destination else {
            return;
        };
        let options = &upstream.setup.options;
        if !options.is_empty(Stage::AfterConnect, Family::of(destination.endpoint())) {
            let target = upstream.target(destination.endpoint(), Local::Plan);
            self.ctx.engine.apply_connected(key, target);
        }
    }

    /// How long the connect took, of a session whose first server answered and that
    /// did not wait for it: nothing else is in the time since its accept.
    pub(super) fn time_connect(&self, key: SessionKey) {
        if let Some(entry) = self.ctx.sessions.get(key)
            && entry.dialling.is_none()
            && !entry.session.has_waited()
            && entry.opening.is_none()
            && let Some(server) = entry.destination.as_ref().and_then(Destination::account)
            && let Some(took) = entry.session.connect_time()
        {
            server.tally.connected(took);
        }
    }

    /// The outcome of a connect, told to its session; the handshake's last ACK
    /// is remembered if no data went along with it.
    pub(super) fn connected(&mut self, key: SessionKey) {
        self.apply_connected(key);
        self.deliver(key, SessionEvent::Connected);
        self.owe_ack(key);
    }
}
