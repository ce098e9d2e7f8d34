//! Who judges the requests of a simulated run: sooner, later or never, and to one or
//! several of the servers of the world.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use thalweg::engine::SessionKey;
use thalweg::engine::sim::{Dice, SERVERS, Sim};
use thalweg::net::address::Endpoint;
use thalweg::proto::connect::Request;
use thalweg::reactor::{Concierge, ProxySetup, Reactor, Verdict};
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

    pub(crate) fn setup() -> ProxySetup {
        ProxySetup {
            // Some of the requests that clients make are longer.
            header_max: 550,
            realm: "sim".into(),
        }
    }

    /// Gives some of the verdicts that are due, to sessions that may be gone.
    pub(crate) fn judge_some(&self, reactor: &mut Reactor<Sim>) {
        loop {
            let mut state = self.0.lock().expect("one thread");
            if state.waiting.is_empty() || !state.dice.percent(30) {
                return;
            }
            let last = state.waiting.len() as u64 - 1;
            let pick = state.dice.between(0, last) as usize;
            let key = state.waiting.swap_remove(pick);
            let verdict = verdict(&mut state.dice);
            drop(state);
            // A few are forgotten, as by a resolver that is stuck.
            if let Some(verdict) = verdict {
                reactor.answered(key, verdict);
            }
        }
    }
}

fn verdict(dice: &mut Dice) -> Option<Verdict> {
    let servers = dice.between(1, SERVERS as u64) as usize;
    let addresses = (0..servers).filter_map(|index| match Sim::server(index) {
        Endpoint::Inet(address) => Some(address),
        _ => None,
    });
    let addresses: Vec<SocketAddr> = addresses.collect();
    let outcome = match dice.between(0, 19) {
        0 => return None,
        1 => Err(Cause::Denied),
        2 => Err(Cause::NameFailed),
        3 => Err(Cause::Unauthorised),
        _ => Ok(addresses),
    };
    Some(Verdict {
        user: None,
        outcome,
    })
}

impl Concierge for Requests {
    fn ask(&self, key: SessionKey, _forward: ForwardId, _request: Request) {
        self.0.lock().expect("one thread").waiting.push(key);
    }
}
