//! A session without the relay, and the world that it lives in.

use thalweg::engine::{Engine, Event, ListenerKey, SessionKey, Start, Target};
use thalweg::net::address::Endpoint;
use thalweg::relay::ending::Cause;
use thalweg::relay::lane::{Lane, Next, PathPolicy};
use thalweg::relay::session::{Close, Pumped};
use thalweg::relay::{Direction, Side};

/// An engine and the peers behind its sockets.
pub(crate) trait World {
    type Engine: Engine;

    fn engine(&mut self) -> &mut Self::Engine;
    /// A client connects to the address at which the engine listens from the start.
    fn client_connects(&mut self);
    /// A listener at another address, to which nobody connects.
    fn other_listener(&mut self) -> <Self::Engine as Engine>::Listener;
    /// A server that accepts.
    fn server(&mut self) -> Endpoint;
    /// An address where nobody listens.
    fn nobody(&mut self) -> Endpoint;
    /// The peer of a side sends bytes of its pattern.
    fn sends(&mut self, key: SessionKey, side: Side, n: u64);
    /// The peer of a side ends.
    fn ends(&mut self, key: SessionKey, side: Side);
    /// The peer of a side resets.
    fn resets(&mut self, key: SessionKey, side: Side);
    /// The peer of a side reads what is there (checking the pattern): bytes, or
    /// `None` at the end.
    fn takes(&mut self, key: SessionKey, side: Side) -> Option<u64>;
    /// The server closes the connection it has; the next one is another.
    fn server_parts(&mut self);
    /// Waits for one turn.
    fn turn(&mut self, events: &mut Vec<Event>);
}

pub(crate) const KEY: SessionKey = SessionKey {
    slot: 3,
    generation: 7,
};
/// Bytes that one pump may read.
const BUDGET: u32 = 1 << 20;

pub(crate) const TURNS: usize = 4000;

/// Turns until somebody waits at a listener.
pub(crate) fn acceptable<W: World>(world: &mut W) -> ListenerKey {
    for _ in 0..TURNS {
        let mut events = Vec::new();
        world.turn(&mut events);
        let waits = events.iter().find_map(|event| match event {
            Event::Acceptable(key) => Some(*key),
            _ => None,
        });
        if let Some(key) = waits {
            return key;
        }
    }
    panic!("nobody came");
}

/// A session without the relay: both lanes, pumped on every event.
pub(crate) struct Rig<'w, W: World> {
    pub(crate) world: &'w mut W,
    pub(crate) lanes: [Lane; 2],
    pub(crate) events: Vec<Event>,
    pub(crate) failures: Vec<Side>,
}

impl<'w, W: World> Rig<'w, W> {
    pub(crate) fn accepted(world: &'w mut W, policy: PathPolicy) -> Self {
        world.client_connects();
        let listener = acceptable(world);
        let (incoming, _) = world.engine().accept(listener).expect("a client waits");
        world
            .engine()
            .adopt(KEY, incoming)
            .expect("it can be adopted");
        let lanes = [Lane::new(policy, 256 * 1024), Lane::new(policy, 256 * 1024)];
        Self {
            world,
            lanes,
            events: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn relaying(world: &'w mut W, policy: PathPolicy) -> Self {
        let mut rig = Self::accepted(world, policy);
        let server = rig.world.server();
        assert_eq!(rig.connect(&server), Ok(()));
        rig
    }

    /// A session that has come from another world.
    pub(crate) fn resumed(world: &'w mut W, lanes: [Lane; 2]) -> Self {
        Self {
            world,
            lanes,
            events: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Connects and counts the outcomes: one, at once or by an event.
    pub(crate) fn connect(&mut self, endpoint: &Endpoint) -> Result<(), ()> {
        self.outcome(KEY, endpoint, |engine, target| engine.connect(KEY, target))
    }

    /// The one outcome of a connect under `key`.
    pub(crate) fn outcome(
        &mut self,
        key: SessionKey,
        endpoint: &Endpoint,
        start: impl FnOnce(&mut W::Engine, Target<'_>) -> Start<Result<(), Cause>>,
    ) -> Result<(), ()> {
        let options = thalweg::net::options::SocketOptions::default()
            .plan(thalweg::net::options::Leg::Upstream);
        let target = Target {
            endpoint,
            options: &options,
            local: thalweg::net::dial::Local::Plan,
        };
        if let Start::Done(outcome) = start(self.world.engine(), target) {
            return outcome.map_err(drop);
        }
        for _ in 0..TURNS {
            self.collect();
            let outcome = self.events.iter().find_map(|event| match event {
                Event::Connected(it) if *it == key => Some(Ok(())),
                Event::ConnectFailed(it, _) if *it == key => Some(Err(())),
                _ => None,
            });
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
        panic!("a connect without an outcome");
    }

    pub(crate) fn collect(&mut self) {
        self.events.clear();
        self.world.turn(&mut self.events);
        for event in &self.events {
            if let Event::Ready(KEY, side, readiness) = *event {
                if readiness.readable || readiness.failed {
                    self.lanes[side.outgoing().index()].source_ready();
                }
                if readiness.writable || readiness.failed {
                    self.lanes[side.incoming().index()].sink_ready();
                }
            }
        }
    }

    pub(crate) fn pump(&mut self, direction: Direction) -> Pumped {
        let lane = &mut self.lanes[direction.index()];
        let pumped = self.world.engine().pump(KEY, direction, lane, BUDGET);
        if let Some(failure) = pumped.failure {
            self.failures.push(failure.side);
        }
        assert!(
            lane.bytes_in() >= lane.bytes_out(),
            "more came out than went in"
        );
        pumped
    }

    /// Turns until `done`, pumping whatever can be pumped.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..TURNS {
            for direction in Direction::BOTH {
                while !matches!(
                    self.lanes[direction.index()].next(),
                    Next::Park | Next::Done
                ) {
                    if !self.pump(direction).more {
                        break;
                    }
                }
            }
            if done(self) {
                return;
            }
            self.collect();
        }
        panic!("never: {what}; lanes {:?}", self.lanes);
    }

    /// The peer of `side` sends, the other receives, all of it.
    pub(crate) fn crosses(&mut self, side: Side, n: u64) {
        self.world.sends(KEY, side, n);
        let mut taken = 0;
        self.until("a message crosses", |rig| {
            taken += rig.world.takes(KEY, side.other()).unwrap_or(0);
            taken == n
        });
    }

    /// Whether the end was told by an event.
    pub(crate) fn close(&mut self, side: Side, how: Close) -> bool {
        if self.world.engine().close(KEY, side, how) == Start::Done(()) {
            return false;
        }
        for _ in 0..TURNS {
            self.collect();
            let at = |wanted| self.events.iter().position(|event| *event == wanted);
            if let Some(at) = at(Event::Closed(KEY, side)) {
                self.events.drain(..=at);
                return true;
            }
        }
        panic!("a close without an end");
    }

    pub(crate) fn close_both(&mut self) {
        for side in Side::BOTH {
            self.close(side, Close::Orderly);
        }
    }
}
