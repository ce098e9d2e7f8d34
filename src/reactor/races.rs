//! Races: several addresses of one name are dialled in their turn, and the first that
//! connects is the session's (Happy Eyeballs, by the schedule of `relay::race`).
//!
//! A rival is a connection made ahead of the session; the winner is handed over to it.
//! Invariants: a rival outlives neither its race nor its session; what it counts at
//! its server is given back exactly once.

use std::sync::Arc;

use super::attempts::Attempts;
use super::clients::ClientTable;
use super::context::Ctx;
use super::destination::Destination;
use super::dialling::Dialler;
use super::sessions::{Ahead, Purpose};
use super::upstream::pass::{Comer, Pass};
use crate::engine::{Engine, SessionKey, Start};
use crate::relay::Side;
use crate::relay::ending::Cause;
use crate::relay::race::{ATTEMPT_FLOOR, Race, RaceRules, Step};
use crate::relay::session::{Close, Event as SessionEvent};
use crate::relay::time::Time;

impl Dialler {
    pub(super) fn start_race<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
        destinations: Vec<Destination>,
        first: Pass,
    ) -> Option<SessionEvent> {
        let now = ctx.engine.now();
        let entry = ctx.sessions.get_mut(key)?;
        let forward = &entry.listener.forward;
        let rules = RaceRules {
            attempt_delay: self.pools[forward.pool].setup.attempt_delay,
            total: forward.rules.deadlines.connect,
            floor: ATTEMPT_FLOOR,
        };
        entry.aside.dialling_or_new().race = Some(Attempts {
            race: Race::new(destinations.len() as u16, now, &rules),
            destinations,
            first: Some(first),
            rivals: Vec::new(),
            wake: now,
            last: Cause::ConnectTimeout,
        });
        self.step_race(ctx, key)
    }

    fn attempts<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey) -> Option<&mut Attempts> {
        let entry = ctx.sessions.get_mut(key)?;
        entry.aside.dialling_mut()?.race.as_mut()
    }

    /// Does what the schedule of a race has for now. The event is for the session.
    pub(super) fn step_race<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
    ) -> Option<SessionEvent> {
        let now = ctx.engine.now();
        loop {
            let attempts = Self::attempts(ctx, key)?;
            match attempts.race.next(now) {
                Step::Start(index) => {
                    if let Some(event) = self.start_rival(ctx, key, index) {
                        return Some(event);
                    }
                }
                Step::Abandon(index) => {
                    let late = Self::rival(ctx, key, index);
                    if let Some(late) = late {
                        self.rival_failed(ctx, late, Cause::ConnectTimeout);
                        Self::close_ahead(ctx, late);
                    }
                }
                Step::Wait(until) => {
                    attempts.wake = until;
                    return None;
                }
                Step::Lost => {
                    let last = attempts.last;
                    self.end_race(ctx, key);
                    return Some(SessionEvent::ConnectFailed(last));
                }
            }
        }
    }

    fn rival<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey, place: u16) -> Option<SessionKey> {
        let rivals = Self::attempts(ctx, key)?.rivals.clone();
        rivals.into_iter().find(|rival| {
            let ahead = ctx.sessions.ahead(*rival);
            ahead.is_some_and(
                |it| matches!(it.purpose, Purpose::Rival { index, .. } if index == place),
            )
        })
    }

    fn start_rival<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
        index: u16,
    ) -> Option<SessionEvent> {
        let now = ctx.engine.now();
        let entry = ctx.sessions.get_mut(key)?;
        let upstream = entry.listener.forward.pool;
        let attempts = entry.aside.dialling_mut()?.race.as_mut()?;
        // The session's own place has a descriptor for one of them.
        let place = if attempts.rivals.is_empty() {
            None
        } else {
            let place = self.gate.add_rival();
            if place.is_none() {
                attempts.race.postpone(now);
                return None;
            }
            place
        };
        let destination = attempts.destinations[usize::from(index)].clone();
        // The first was admitted and counted when it was chosen.
        let first = if index == 0 {
            attempts.first.take()
        } else {
            None
        };
        let pass = if let Some(pass) = first {
            pass
        } else {
            let clients = self.pools[upstream].setup.clients.as_ref();
            let comer = Comer {
                client: &entry.client.get(),
                limited: !entry.listener.forward.is_dry_run(),
            };
            let Some(pass) = admit(&destination, comer, clients, now) else {
                attempts.race.failed(index);
                return None;
            };
            pass
        };
        let Pass {
            admission,
            place: seat,
        } = pass;
        let purpose = Purpose::Rival {
            of: key,
            index,
            admission,
        };
        let ahead = Ahead {
            purpose,
            destination: destination.clone(),
            since: now,
            closing: false,
            seat,
            _place: place,
        };
        let Some(rival) = ctx.sessions.insert_ahead(ahead) else {
            destination.abandoned(admission, now);
            self.release(ctx, &destination);
            Self::attempts(ctx, key)?.race.failed(index);
            return None;
        };
        Self::attempts(ctx, key)?.rivals.push(rival);
        let start = self.connect(ctx, upstream, &destination, Some(key), |engine, target| {
            engine.connect_ahead(rival, target)
        });
        match start {
            Start::Pending => None,
            Start::Done(Ok(())) => {
                let (session, event) = self.rival_won(ctx, rival)?;
                if event == SessionEvent::Connected {
                    self.apply_connected(ctx, session);
                }
                Some(event)
            }
            Start::Done(Err(cause)) => {
                self.rival_failed(ctx, rival, cause);
                ctx.sessions.remove_ahead(rival);
                None
            }
        }
    }

    /// A rival connected: its connection becomes the session's, the others are closed.
    pub(super) fn rival_won<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        rival: SessionKey,
    ) -> Option<(SessionKey, SessionEvent)> {
        let ahead = ctx.sessions.ahead(rival)?;
        let Purpose::Rival { of, admission, .. } = ahead.purpose else {
            return None;
        };
        let (destination, since) = (ahead.destination.clone(), ahead.since);
        if !ctx.engine.hand_over(rival, of) {
            self.rival_failed(ctx, rival, Cause::NoMemory);
            ctx.sessions.remove_ahead(rival);
            return self.step_race(ctx, of).map(|event| (of, event));
        }
        let seat = ctx.sessions.remove_ahead(rival).and_then(|it| it.seat);
        if let Some(attempts) = Self::attempts(ctx, of) {
            attempts.rivals.retain(|it| *it != rival);
        }
        self.end_race(ctx, of);
        if let Some(server) = destination.account() {
            server.tally.connected(ctx.engine.now().since(since));
        }
        let pass = Pass {
            admission,
            place: seat,
        };
        Self::settle_on(ctx, of, destination, pass, false);
        Some((of, SessionEvent::Connected))
    }

    /// A rival is out: counted, and the next one may start. Its slot is the caller's.
    pub(super) fn rival_failed<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        rival: SessionKey,
        cause: Cause,
    ) -> Option<SessionKey> {
        let ahead = ctx.sessions.ahead(rival)?;
        let Purpose::Rival {
            of,
            index,
            admission,
        } = ahead.purpose
        else {
            return None;
        };
        let destination = ahead.destination.clone();
        Self::count_connect_failure(ctx, of, &destination, admission, cause);
        self.release(ctx, &destination);
        let attempts = Self::attempts(ctx, of)?;
        attempts.race.failed(index);
        attempts.rivals.retain(|it| *it != rival);
        attempts.last = cause;
        Some(of)
    }

    /// The race of a session is over, one way or the other: no rival is left.
    pub(super) fn end_race<E: Engine>(&mut self, ctx: &mut Ctx<E>, key: SessionKey) {
        let now = ctx.engine.now();
        let Some(entry) = ctx.sessions.get_mut(key) else {
            return;
        };
        let Some(dialling) = entry.aside.dialling_mut() else {
            return;
        };
        let race = dialling.race.take();
        if dialling.failures.is_empty() {
            // All went well: there is nothing to remember.
            entry.aside.forget_dialling();
        }
        let Some(attempts) = race else { return };
        for rival in attempts.rivals {
            if let Some(ahead) = ctx.sessions.ahead(rival) {
                let destination = ahead.destination.clone();
                if let Purpose::Rival { admission, .. } = ahead.purpose {
                    destination.abandoned(admission, now);
                }
                self.release(ctx, &destination);
            }
            Self::close_ahead(ctx, rival);
        }
    }

    /// Rivals that have not answered by the end of the session's own patience.
    pub(super) fn race_timed_out<E: Engine>(&mut self, ctx: &mut Ctx<E>, key: SessionKey) -> bool {
        let Some(attempts) = Self::attempts(ctx, key) else {
            return false;
        };
        for rival in attempts.rivals.clone() {
            self.rival_failed(ctx, rival, Cause::ConnectTimeout);
            Self::close_ahead(ctx, rival);
        }
        self.end_race(ctx, key);
        true
    }

    /// Closes a connection made ahead; its slot is free once nothing is in flight.
    pub(super) fn close_ahead<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey) {
        let Some(ahead) = ctx.sessions.ahead_mut(key) else {
            return;
        };
        if std::mem::replace(&mut ahead.closing, true) {
            return;
        }
        // By a reset: nobody will ever read what the server may have said.
        if ctx.engine.close(key, Side::Upstream, Close::Reset) == Start::Done(()) {
            ctx.sessions.remove_ahead(key);
        }
    }
}

/// Whether a session may try an address now, and how; counted there if it may.
fn admit(
    destination: &Destination,
    comer: Comer<'_>,
    clients: Option<&Arc<ClientTable>>,
    now: Time,
) -> Option<Pass> {
    let place = match destination.account() {
        Some(server) => comer.place(server, clients).ok()?,
        None => None,
    };
    let admission = destination.admit(now)?;
    Some(Pass { admission, place })
}
