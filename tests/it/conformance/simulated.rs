//! The simulator as a world: peers played by hand.

use std::net::SocketAddr;
use std::time::Duration;

use thalweg::engine::sim::peer::{Deed, Finale, Script};
use thalweg::engine::sim::{Listener, Nastiness, Sim};
use thalweg::engine::{Engine, Event, SessionKey};
use thalweg::net::address::Endpoint;
use thalweg::relay::Side;

use super::rig::World;

/// Does nothing by itself.
const PUPPET: Script = Script {
    sends: 0,
    burst: 1,
    reads: 0,
    window: 200_000,
    pause_ms: 0,
    finale: Finale::Silence,
    request: 0,
    malformed: false,
};

pub(crate) struct Simulated {
    sim: Sim,
}

pub(crate) fn world() -> Simulated {
    let mut sim = Sim::with(1, Nastiness::default());
    let entrance = sim.listener(0);
    sim.listen(entrance).expect("simulated sockets listen");
    Simulated { sim }
}

impl World for Simulated {
    type Engine = Sim;

    fn engine(&mut self) -> &mut Sim {
        &mut self.sim
    }

    fn client_connects(&mut self) {
        self.sim.client_connects(0, PUPPET, PUPPET);
    }

    fn other_listener(&mut self) -> Listener {
        self.sim.listener(1)
    }

    fn server(&mut self) -> Endpoint {
        Endpoint::Inet(SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    fn nobody(&mut self) -> Endpoint {
        Endpoint::Inet(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn sends(&mut self, key: SessionKey, side: Side, n: u64) {
        self.sim.peer_does(key, side, Deed::Send(n));
    }

    fn ends(&mut self, key: SessionKey, side: Side) {
        self.sim.peer_does(key, side, Deed::End);
    }

    fn resets(&mut self, key: SessionKey, side: Side) {
        self.sim.peer_does(key, side, Deed::Reset);
    }

    fn takes(&mut self, key: SessionKey, side: Side) -> Option<u64> {
        self.sim.peer_takes(key, side)
    }

    fn server_parts(&mut self) {
        // Every connection has a peer of its own.
    }

    fn turn(&mut self, events: &mut Vec<Event>) {
        let until = self.sim.now() + Duration::from_millis(1);
        self.sim.wait(until, events).expect("a simulated wait");
        self.sim.check_invariants();
    }
}
