//! A run as plain data, drawn from a seed: so that it can be printed, replayed,
//! and made smaller while it still fails.

use thalweg::engine::sim::peer::Script;
use thalweg::engine::sim::{Dice, LISTENERS};
use thalweg::relay::lane::PathPolicy;

/// Everything that happens in a run but for what the kernel and the peers roll
/// for themselves (from the same seed).
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) path: PathPolicy,
    pub(crate) clients: Vec<Client>,
    /// Turn at which listeners close and running sessions go on.
    pub(crate) drain_at: Option<u64>,
    /// Turn at which every session is cut.
    pub(crate) cut_at: Option<u64>,
    /// Sessions that may live at a time.
    pub(crate) sessions_max: u32,
}

/// A client and the server it will be connected to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) listener: u32,
    /// Turn at which it connects.
    pub(crate) turn: u64,
    pub(crate) script: Script,
    pub(crate) upstream: Script,
}

impl Plan {
    pub(crate) fn drawn(seed: u64) -> Self {
        // Not the dice of the simulated world: a plan that shrinks must not
        // change what these roll.
        let mut dice = Dice::new(seed ^ 0x5EED_0000_0000_0000);
        let path =
            [PathPolicy::Auto, PathPolicy::Copy, PathPolicy::Splice][dice.between(0, 2) as usize];
        let mut turn = 0;
        let clients = (0..dice.between(1, 40)).map(|_| {
            turn += dice.between(0, 20);
            Client {
                listener: dice.between(0, LISTENERS as u64 - 1) as u32,
                turn,
                script: Script::drawn(&mut dice),
                upstream: Script::drawn(&mut dice),
            }
        });
        let clients = clients.collect();
        Self {
            seed,
            path,
            clients,
            drain_at: dice.percent(15).then(|| dice.between(1, 2_000)),
            cut_at: dice.percent(10).then(|| dice.between(1, 5_000)),
            sessions_max: dice.between(2, 40) as u32,
        }
    }

    /// The smallest plan found that still fails: greedily without each client,
    /// then without each of the other ingredients.
    pub(crate) fn minimised(&self, fails: impl Fn(&Self) -> bool) -> Self {
        let mut smallest = self.clone();
        let mut chunk = smallest.clients.len().div_ceil(2);
        while chunk > 0 {
            let mut at = 0;
            while at < smallest.clients.len() {
                let mut candidate = smallest.clone();
                let end = (at + chunk).min(candidate.clients.len());
                candidate.clients.drain(at..end);
                if !candidate.clients.is_empty() && fails(&candidate) {
                    smallest = candidate;
                } else {
                    at += chunk;
                }
            }
            chunk /= 2;
        }
        for simplify in [
            (|plan: &mut Self| plan.drain_at = None) as fn(&mut Self),
            |plan| plan.cut_at = None,
            |plan| plan.sessions_max = 1_000,
        ] {
            let mut candidate = smallest.clone();
            simplify(&mut candidate);
            if fails(&candidate) {
                smallest = candidate;
            }
        }
        smallest
    }
}
