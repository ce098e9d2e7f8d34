//! Who judges the requests of a simulated run: sooner, later or never, and to one or
//! several of the servers of the world.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thalweg::engine::SessionKey;
use thalweg::engine::sim::{Dice, SERVERS, Sim};
use thalweg::net::address::Endpoint;
use thalweg::proto::connect;
use thalweg::proto::opening::{Step, StepKind};
use thalweg::proto::prelude::Facts;
use thalweg::proto::sniff::Wanted;
use thalweg::reactor::{Decider, Decision, Reactor, Ruling};
use thalweg::relay::ending::Cause;
use thalweg::relay::id::ForwardId;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(crate) struct Requests(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    waiting: Vec<SessionKey>,
    dice: Dice,
}

impl Default for Requests {
    fn default() -> Self {
        Self::drawn(0)
    }
}

impl Requests {
    pub(crate) fn drawn(seed: u64) -> Self {
        let state = State {
            waiting: Vec::new(),
            dice: Dice::new(seed ^ 0xA5C0_0000_0000_0000),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// A look at the first bytes, which takes none.
    pub(crate) fn look() -> Step {
        let wanted = Wanted {
            hello: true,
            host: false,
        };
        step(StepKind::Sniff(wanted))
    }

    pub(crate) fn step() -> Step {
        step(StepKind::HttpConnect(connect::Settings {
            // Some of the requests that clients make are longer.
            header_max: 550,
            realm: "sim".into(),
        }))
    }

    /// Gives some of the rulings that are due, to sessions that may be gone.
    pub(crate) fn decide_some(&self, reactor: &mut Reactor<Sim>) {
        loop {
            let mut state = self.0.lock().expect("one thread");
            if state.waiting.is_empty() || !state.dice.percent(30) {
                return;
            }
            let last = state.waiting.len() as u64 - 1;
            let pick = state.dice.between(0, last) as usize;
            let key = state.waiting.swap_remove(pick);
            let ruling = ruling(&mut state.dice);
            drop(state);
            // A few are forgotten, as by a resolver that is stuck.
            if let Some(ruling) = ruling {
                reactor.decided(key, ruling);
            }
        }
    }
}

fn step(kind: StepKind) -> Step {
    let patience = Duration::from_secs(3);
    Step { kind, patience }
}

fn ruling(dice: &mut Dice) -> Option<Ruling> {
    let servers = dice.between(1, SERVERS as u64) as usize;
    let addresses = (0..servers).filter_map(|index| match Sim::server(index) {
        Endpoint::Inet(address) => Some(address),
        _ => None,
    });
    let addresses: Vec<SocketAddr> = addresses.collect();
    let decision = match dice.between(0, 19) {
        0 => return None,
        1 => Decision::Refuse(Cause::Denied),
        2 => Decision::Refuse(Cause::NameFailed),
        3 => Decision::Refuse(Cause::Unauthorised),
        _ => Decision::from(addresses),
    };
    Some(Ruling {
        user: None,
        decision,
    })
}

impl Decider for Requests {
    fn decide(&self, key: SessionKey, _forward: ForwardId, _route: Option<u16>, _facts: Facts) {
        self.0.lock().expect("one thread").waiting.push(key);
    }
}
