//! Sessions that leave this process for the next one, and those that come from the one
//! before: what control's thread has to do with them.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use crate::engine::Detached;
use crate::observe::notice::Notice;
use crate::reactor::{
    Adopted, Arrival, Berths, FlowArrival, MovedFlow, MovedSession, MovedSpare, Release,
};
use crate::relay::ending::Cause;
use crate::relay::id::ServerId;

use super::held::HeldListener;
use super::running::Running;
use super::upgrade::order::{HandOver, Upgrading};
use super::wire::Order;

/// How long reactors may take to let sessions go: some microseconds each, unless the
/// machine is busy with other things.
const RELEASE_PATIENCE: Duration = Duration::from_secs(30);

/// Sessions that a reactor takes in at once: it does nothing else meanwhile.
const AT_ONCE: usize = 64;

/// Flows that a reactor lets go in one go: about a millisecond.
const FLOWS_AT_ONCE: usize = 256;

/// Those of each reactor; who has none is dropped.
fn by_reactor<T>(all: Vec<T>, of: impl Fn(&T) -> Option<u16>) -> BTreeMap<u16, Vec<T>> {
    let mut by: BTreeMap<u16, Vec<T>> = BTreeMap::new();
    for one in all {
        if let Some(reactor) = of(&one) {
            by.entry(reactor).or_default().push(one);
        }
    }
    by
}

impl Running {
    /// What a hand-over asks for about sessions.
    pub(super) fn move_sessions(&self, order: HandOver) {
        match order {
            HandOver::Stay(moved) => {
                self.take_back(moved.sessions);
                self.take_flows_back(moved.flows);
            }
            HandOver::More(reply) => {
                let takes = matches!(&self.upgrading, Upgrading::Left(it) | Upgrading::Tried(it) if it.sessions);
                let more = (takes && !self.reactors.is_empty()).then(|| self.release(true).0);
                if let Err(unheard) = reply.send(more) {
                    self.take_back(unheard.0.unwrap_or_default());
                }
            }
            HandOver::Berths(reply) => {
                let _ = reply.send(self.berths());
            }
            HandOver::Arrived(sessions) => {
                self.arrived(sessions);
            }
            HandOver::Rest(tables) => self.absorb(&tables.counted),
            // This process ends as well.
            HandOver::Service => {}
            // Nobody answers: not in this state.
            HandOver::Begin(..)
            | HandOver::Freeze(..)
            | HandOver::Resume(_)
            | HandOver::Leave(_)
            | HandOver::Try(_)
            | HandOver::Confirmed
            | HandOver::Returned(_)
            | HandOver::HowIsIt(_)
            | HandOver::Undo(..)
            | HandOver::Alone => {}
        }
    }

    /// Has all reactors let their sessions go, if they are to; and the highest number that a
    /// session has had.
    pub(super) fn release(&self, sessions: bool) -> (Vec<MovedSession>, u64) {
        let (told, released) = channel();
        for reactor in self.reactors.values() {
            let told = told.clone();
            let release = Release {
                at_most: if sessions { usize::MAX } else { 0 },
                reply: Box::new(move |released| {
                    let _ = told.send(released);
                }),
            };
            reactor.send(Order::Release(release)).forget();
        }
        drop(told);
        let (mut moved, mut last) = (Vec::new(), 0);
        let deadline = Instant::now() + RELEASE_PATIENCE;
        // Ends when every reactor has answered, or is no more.
        while let Ok(released) =
            released.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            moved.extend(released.moved);
            last = last.max(released.last_id);
        }
        (moved, last)
    }

    /// Has all reactors let their flows go; and the highest number that one has had.
    pub(super) fn release_flows(&self) -> (Vec<MovedFlow>, u64) {
        let ports = self.held.listeners.values().flat_map(HeldListener::ports);
        let ports: HashMap<u32, u64> = ports.map(|(cookie, at)| (at.socket, cookie)).collect();
        let (mut moved, mut last) = (Vec::new(), 0);
        for reactor in self.reactors.values() {
            loop {
                let (told, released) = channel();
                let order = Order::ReleaseFlows(FLOWS_AT_ONCE, told);
                reactor.send(order).forget();
                // Nothing comes of one that has ended.
                let Ok(released) = released.recv_timeout(RELEASE_PATIENCE) else {
                    break;
                };
                last = last.max(released.last_id);
                let none = released.moved.is_empty();
                moved.extend(released.moved);
                if none || released.left == 0 {
                    break;
                }
            }
        }
        for flow in &mut moved {
            flow.manifest.port = ports.get(&flow.at().socket).copied().unwrap_or(0);
        }
        (moved, last)
    }

    /// Flows go on here, as soon as the ports that they came in by do.
    pub(super) fn take_flows_back(&self, flows: Vec<MovedFlow>) {
        let homes = self.homes();
        let of = |flow: &MovedFlow| homes.get(&flow.at().socket).copied();
        for (reactor, flows) in by_reactor(flows, of) {
            if let Some(reactor) = self.reactors.get(&reactor) {
                reactor.send(Order::TakeFlowsBack(flows)).forget();
            }
        }
    }

    /// Likewise those of the process before.
    pub(super) fn flows_arrived(&self, flows: Vec<FlowArrival>) {
        let homes = self.homes();
        let of = |flow: &FlowArrival| homes.get(&flow.at.socket).copied();
        for (reactor, flows) in by_reactor(flows, of) {
            if let Some(reactor) = self.reactors.get(&reactor) {
                reactor.send(Order::ExpectFlows(flows)).forget();
            }
        }
    }

    /// Has all reactors let their spare connections go, and make no more.
    pub(super) fn release_spares(&self) -> Vec<MovedSpare> {
        let (told, released) = channel();
        for reactor in self.reactors.values() {
            reactor.send(Order::ReleaseSpares(told.clone())).forget();
        }
        drop(told);
        let deadline = Instant::now() + RELEASE_PATIENCE;
        let mut moved = Vec::new();
        while let Ok(some) =
            released.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            moved.extend(some);
        }
        moved
    }

    /// Reactors that clients are spread over have these, in turn, and make what is missing.
    pub(super) fn take_spares(&self, spares: Vec<MovedSpare>) {
        let active = self.active.iter().filter_map(|it| self.reactors.get(it));
        let active: Vec<_> = active.collect();
        let mut portions: Vec<Vec<_>> = active.iter().map(|_| Vec::new()).collect();
        // Each server's in turn, so that each reactor has some of each.
        let mut turns: HashMap<ServerId, usize> = HashMap::new();
        for spare in spares {
            let turn = turns.entry(spare.server.settings().id).or_default();
            if let Some(portion) = portions.get_mut(*turn % active.len().max(1)) {
                portion.push(spare);
            }
            *turn += 1;
        }
        for (reactor, portion) in active.into_iter().zip(portions) {
            reactor.send(Order::AdoptSpares(portion)).forget();
        }
    }

    /// Which reactor looks after each socket.
    fn homes(&self) -> HashMap<u32, u16> {
        let listeners = self.held.listeners.values();
        let sockets = listeners.flat_map(|it| &it.sockets);
        sockets.map(|it| (it.at.socket, it.reactor)).collect()
    }

    /// Sessions go on here.
    pub(super) fn take_back(&self, sessions: Vec<MovedSession>) {
        let mut sessions = sessions.into_iter().peekable();
        let (told, taken) = channel();
        let mut reactors = self.reactors.values().cycle();
        while sessions.peek().is_some() {
            let Some(reactor) = reactors.next() else {
                return;
            };
            let some = sessions.by_ref().take(AT_ONCE).collect();
            reactor.send(Order::TakeBack(some, told.clone())).forget();
        }
        drop(told);
        let lost: usize = taken.iter().map(|it| it.refused.len()).sum();
        self.tell_lost(lost);
    }

    /// Where sessions of the process before belong.
    pub(super) fn berths(&self) -> Berths {
        let listeners = self.held.listeners.values();
        let sockets = listeners.flat_map(|it| &it.sockets).map(|it| it.at.clone());
        let ports = self.held.listeners.values().flat_map(HeldListener::ports);
        Berths::new(sockets, self.upstreams.sets()).with_ports(ports)
    }

    /// Sessions of the process before go on here, spread over the reactors; how many.
    pub(super) fn arrived(&self, sessions: Vec<Arrival<Detached>>) -> u64 {
        self.spread(sessions, Order::AdoptSessions)
    }

    /// Likewise those that nobody can go on with: they end there for this reason.
    pub(super) fn end_arrivals(&self, sessions: Vec<Arrival<Detached>>, cause: Cause) -> u64 {
        self.spread(sessions, |some, told| Order::EndSessions(some, cause, told))
    }

    fn spread(
        &self,
        sessions: Vec<Arrival<Detached>>,
        order: impl Fn(Vec<Arrival<Detached>>, Sender<Adopted<Arrival<Detached>>>) -> Order,
    ) -> u64 {
        let (told, taken) = channel();
        let active = self.active.iter().filter_map(|it| self.reactors.get(it));
        let active: Vec<_> = active.collect();
        if active.is_empty() {
            return 0;
        }
        // One to each in turn, so that each has as many.
        let mut shares: Vec<Vec<_>> = active.iter().map(|_| Vec::new()).collect();
        for (at, session) in sessions.into_iter().enumerate() {
            shares[at % active.len()].push(session);
        }
        for (reactor, share) in active.into_iter().zip(shares) {
            let mut share = share.into_iter().peekable();
            while share.peek().is_some() {
                let some = share.by_ref().take(AT_ONCE).collect();
                reactor.send(order(some, told.clone())).forget();
            }
        }
        drop(told);
        let (mut adopted, mut lost) = (0, 0);
        for it in taken {
            adopted += it.taken as u64;
            lost += it.refused.len();
            for (arrival, _) in &it.refused {
                // An end would claim that this was all.
                arrival.detached.reset();
            }
        }
        self.tell_lost(lost);
        adopted
    }

    fn tell_lost(&self, sessions: usize) {
        if sessions > 0 {
            self.log.notice(Notice::SessionsLost { sessions });
        }
    }
}
