//! Sessions arrive: from a reactor of this process, or from the process before.

use super::berths::Berth;
use super::manifest::Manifest;
use super::refusal::Refusal;
use super::{Kept, MovedSession};
use crate::balance::health::Admission;
use crate::engine::{Datagrams, SessionKey};
use crate::reactor::aside::Aside;
use crate::reactor::attempts::Dialling;
use crate::reactor::clients::ClientGrant;
use crate::reactor::destination::Destination;
use crate::reactor::ends::booked;
use crate::reactor::flows::Expected;
use crate::reactor::opened::Opened;
use crate::reactor::packed::PackedId;
use crate::reactor::upstream::pass::Comer;
use crate::reactor::{Entry, FlowArrival, MovedFlow, Reactor, ReleasedFlows};
use crate::relay::Direction;
use crate::relay::ending::Cause;
use crate::relay::session::Session;

/// A session of another process, with the place that it has in this one.
#[derive(Debug)]
pub struct Arrival<D> {
    /// What was told of it.
    pub manifest: Manifest,
    /// Its descriptors, and what its lanes hold.
    pub detached: D,
    /// Where it belongs.
    pub place: Berth,
}

/// What came of taking sessions in, in their order: those that were refused come back
/// whole.
#[derive(Debug)]
pub struct Adopted<T> {
    /// How many were taken.
    pub taken: usize,
    /// The others, and why not.
    pub refused: Vec<(T, Refusal)>,
}

impl<E: Datagrams> Reactor<E> {
    /// Takes sessions of another process in. Called with as many as a turn may have: some
    /// 10 µs each. None is refused for a limit: they were let in.
    pub fn adopt(&mut self, arrivals: Vec<Arrival<E::Detached>>) -> Adopted<Arrival<E::Detached>> {
        let mut adopted = Adopted {
            taken: 0,
            refused: Vec::new(),
        };
        for arrival in arrivals {
            match self.adopt_one(arrival) {
                Ok(_) => adopted.taken += 1,
                Err(refused) => adopted.refused.push(*refused),
            }
        }
        adopted
    }

    /// Takes sessions in that nobody can go on with, and ends them for this reason: so each has its
    /// record, and counts where it was.
    pub fn end_arrivals(
        &mut self,
        arrivals: Vec<Arrival<E::Detached>>,
        cause: Cause,
    ) -> Adopted<Arrival<E::Detached>> {
        let mut ended = Adopted {
            taken: 0,
            refused: Vec::new(),
        };
        for arrival in arrivals {
            match self.adopt_one(arrival) {
                Ok(key) => {
                    self.cut(key, cause);
                    ended.taken += 1;
                }
                Err(refused) => ended.refused.push(*refused),
            }
        }
        ended
    }

    /// Takes sessions of this process in, as they were. Called as [`Reactor::adopt`] is.
    pub fn take_back(
        &mut self,
        moved: Vec<MovedSession<E::Detached>>,
    ) -> Adopted<MovedSession<E::Detached>> {
        let mut adopted = Adopted {
            taken: 0,
            refused: Vec::new(),
        };
        for moved in moved {
            let MovedSession {
                manifest,
                detached,
                kept,
            } = moved;
            let (gate, at) = (kept.gate.clone(), kept.at);
            let Some(entry) = kept.take() else { continue };
            match self.settle_in(entry, detached) {
                Ok(_) => {
                    self.ctx.counters.moved_in.add(1);
                    adopted.taken += 1;
                }
                Err(refused) => {
                    let (entry, detached, cause) = *refused;
                    let kept = Kept {
                        entry: Some(entry),
                        gate,
                        at,
                    };
                    let moved = MovedSession {
                        manifest,
                        detached,
                        kept,
                    };
                    adopted.refused.push((moved, Refusal::Engine(cause)));
                }
            }
        }
        adopted
    }

    /// The numbers of sessions to come are above this one: those below were given by the
    /// process before.
    pub fn number_from(&mut self, last_id: u64, last_flow: u64) {
        self.sessions_started = self.sessions_started.max(last_id);
        self.flows.number_from(last_flow);
    }

    #[allow(clippy::type_complexity, reason = "what comes back, and why")]
    fn adopt_one(
        &mut self,
        arrival: Arrival<E::Detached>,
    ) -> Result<SessionKey, Box<(Arrival<E::Detached>, Refusal)>> {
        let Arrival {
            manifest,
            detached,
            place,
        } = arrival;
        let entry = manifest
            .check(&detached)
            .and_then(|()| self.entry(&manifest, &place));
        let entry = match entry {
            Ok(entry) => entry,
            Err(refusal) => {
                let arrival = Arrival {
                    manifest,
                    detached,
                    place,
                };
                return Err(Box::new((arrival, refusal)));
            }
        };
        // From here on it counts.
        let at = self.ctx.now();
        let mut kept = Kept {
            entry: None,
            gate: self.ctx.gate.clone(),
            at,
        };
        kept.gate.take_in();
        if let Some(gate) = &place.listener.forward.gate {
            gate.take_in();
        }
        if let Some(server) = place.destination.account() {
            server.standing.take_in(at);
        }
        match self.settle_in(entry, detached) {
            Ok(key) => {
                self.ctx.counters.adopted.add(1);
                Ok(key)
            }
            Err(refused) => {
                let (entry, detached, cause) = *refused;
                kept.entry = Some(entry);
                drop(kept);
                let arrival = Arrival {
                    manifest,
                    detached,
                    place,
                };
                Err(Box::new((arrival, Refusal::Engine(cause))))
            }
        }
    }

    /// A session as it was in the other process, with what it counts by in this one.
    fn entry(&mut self, manifest: &Manifest, place: &Berth) -> Result<Entry, Refusal> {
        let now = self.ctx.now();
        let mut session = Session::thaw(&manifest.state, now).map_err(Refusal::Inconsistent)?;
        for direction in Direction::BOTH {
            // Whoever looked at its bytes has stayed behind.
            session.lane_mut(direction).untap();
        }
        let forward = &place.listener.forward;
        let client = manifest.client.ip();
        let policy = forward.clients.as_ref();
        let mut grant = policy.and_then(|it| it.readmit(client, manifest.debts, now));
        if let Some(server) = place.destination.account() {
            let pool = self.dialler.pools.get_mut(forward.pool);
            let clients = pool.and_then(|it| it.setup.clients.clone());
            let seat = Comer::new(&manifest.client).place_again(server, clients.as_ref());
            let dry_run = forward.is_dry_run();
            ClientGrant::settle_at(&mut grant, seat, server.buckets(), dry_run);
        }
        let tried = manifest
            .tried
            .iter()
            .map(|(endpoint, cause)| (Destination::Address(endpoint.clone().into()), *cause));
        let failures: Vec<_> = tried.collect();
        let dialling = (!failures.is_empty()).then(|| {
            Box::new(Dialling {
                failures,
                ..Dialling::default()
            })
        });
        let opened = manifest.opened.clone().map(Opened::noted);
        let mut aside = Aside::new(opened, dialling);
        if let Some(reached) = &manifest.reached {
            aside.last_words_or_new().reached = Some(reached.clone());
        }
        Ok(Entry {
            settled: booked(&session),
            session,
            client: manifest.client.clone().into(),
            id: PackedId::new(manifest.came_in.reactor, manifest.came_in.id),
            listener: place.listener.clone(),
            queued: 0,
            in_line: false,
            unproven: manifest.unproven,
            warm: manifest.warm,
            admission: Admission::Free,
            destination: Some(place.destination.clone()),
            aside,
            grant,
        })
    }

    /// A session has its slot, its connections and its timer here from now on.
    #[allow(clippy::type_complexity, reason = "what comes back, and why")]
    fn settle_in(
        &mut self,
        mut entry: Entry,
        detached: E::Detached,
    ) -> Result<SessionKey, Box<(Entry, E::Detached, Cause)>> {
        entry.queued = 0;
        let Some(key) = self.ctx.sessions.reserve() else {
            return Err(Box::new((entry, detached, Cause::NoMemory)));
        };
        if let Err((cause, detached)) = self.ctx.engine.attach(key, detached) {
            return Err(Box::new((entry, detached, cause)));
        }
        let inserted = self.ctx.sessions.insert(entry);
        debug_assert_eq!(inserted, Some(key), "the slot was reserved");
        self.ctx.shortage.entered(key, &self.ctx.sessions);
        self.old.entered(key, self.ctx.now());
        self.arm(key);
        Ok(key)
    }
}

impl<E: Datagrams> Reactor<E> {
    /// Lets flows of datagrams go, so many at the most. Called between turns, when the ports
    /// that they came in by take nothing any more.
    pub fn release_flows(&mut self, at_most: usize) -> ReleasedFlows<E::Call> {
        self.flows.release(at_most, &mut self.ctx)
    }

    /// Flows that go on here as soon as the ports that they came in by do.
    pub fn expect_flows(&mut self, arrivals: Vec<FlowArrival<E::Call>>) {
        let arrivals = arrivals.into_iter().map(Expected::Arrival);
        self.expected.extend(arrivals);
    }

    /// Likewise those that were let go in this process, as they were.
    pub fn expect_flows_back(&mut self, moved: Vec<MovedFlow<E::Call>>) {
        self.expected.extend(moved.into_iter().map(Expected::Back));
    }
}
