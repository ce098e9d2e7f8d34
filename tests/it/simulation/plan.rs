//! A run as plain data, drawn from a seed: so that it can be printed, replayed,
//! and made smaller while it still fails.

use thalweg::balance::Policy;
use thalweg::engine::sim::peer::Script;
use thalweg::engine::sim::{Dice, LISTENERS, SERVERS};
use thalweg::relay::lane::PathPolicy;

/// The listener whose clients say where to go.
pub(crate) const PROXY: u32 = LISTENERS as u32 - 1;

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
    pub(crate) pools: PoolPlan,
    /// Bytes a second of each session, and twice that of all of the second forward.
    pub(crate) rate: Option<u64>,
    /// What happens to servers, in order.
    pub(crate) changes: Vec<Change>,
    /// Sessions are moved, as the seed has it.
    pub(crate) moves: bool,
}

/// How the pools of a run are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolPlan {
    pub(crate) policy: Policy,
    /// The addresses of a name are raced.
    pub(crate) raced: bool,
    /// Of each server.
    pub(crate) max_connections: Option<u32>,
    pub(crate) max_fails: u32,
    pub(crate) queue: u32,
    pub(crate) warm: u32,
    /// The last server of each pool is a backup.
    pub(crate) backup: bool,
    /// Servers are told who comes.
    pub(crate) told: bool,
}

impl PoolPlan {
    /// One without surprises: round robin, nothing else.
    pub(crate) const PLAIN: Self = Self {
        policy: Policy::RoundRobin,
        raced: false,
        max_connections: None,
        max_fails: 0,
        queue: 0,
        warm: 0,
        backup: false,
        told: false,
    };

    fn drawn(dice: &mut Dice) -> Self {
        let policies = [
            Policy::RoundRobin,
            Policy::LeastConn,
            Policy::PowerOfTwo,
            Policy::Random,
            Policy::Hash,
            Policy::First,
        ];
        Self {
            policy: policies[dice.between(0, 5) as usize],
            raced: dice.percent(30),
            max_connections: dice.percent(30).then(|| dice.between(1, 4) as u32),
            max_fails: dice.between(0, 3) as u32,
            queue: dice.between(0, 8) as u32,
            warm: if dice.percent(30) {
                dice.between(1, 3) as u32
            } else {
                0
            },
            backup: dice.percent(30),
            told: dice.percent(30),
        }
    }
}

/// Something happens to a server, by its index in the world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    /// Turn at which it does.
    pub(crate) turn: u64,
    pub(crate) server: usize,
    pub(crate) what: Fate,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A check finds it down; its sessions end.
    DownAndOut,
    /// A check finds it down.
    Down,
    /// A check finds it up.
    Up,
    /// Its name does not list it any more, or does again.
    Gone,
    Back,
    /// Another configuration, whatever the server.
    Reload,
}

fn changes(dice: &mut Dice) -> Vec<Change> {
    let mut turn = 0;
    let count = if dice.percent(50) {
        dice.between(1, 12)
    } else {
        0
    };
    let draw = |_| {
        turn += dice.between(0, 300);
        let fates = [
            Fate::DownAndOut,
            Fate::Down,
            Fate::Up,
            Fate::Up,
            Fate::Gone,
            Fate::Back,
            Fate::Reload,
            Fate::Reload,
        ];
        Change {
            turn,
            server: dice.between(0, SERVERS as u64 - 1) as usize,
            what: fates[dice.between(0, 7) as usize],
        }
    };
    (0..count).map(draw).collect()
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
            let listener = dice.between(0, LISTENERS as u64 - 1) as u32;
            Client {
                listener,
                turn,
                script: if listener == PROXY {
                    Script::asking(&mut dice)
                } else {
                    Script::drawn(&mut dice)
                },
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
            pools: PoolPlan::drawn(&mut dice),
            changes: changes(&mut dice),
            rate: dice.percent(30).then(|| 1 << dice.between(18, 24)),
            moves: false,
        }
    }

    /// As it is drawn, with moves.
    pub(crate) fn moving(seed: u64) -> Self {
        Self {
            moves: true,
            ..Self::drawn(seed)
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
            |plan| plan.changes.clear(),
            |plan| plan.rate = None,
            |plan| plan.pools.warm = 0,
            |plan| plan.pools.raced = false,
            |plan| plan.pools.max_connections = None,
            |plan| plan.pools.max_fails = 0,
            |plan| plan.pools.backup = false,
            |plan| plan.pools.policy = Policy::RoundRobin,
            |plan| plan.pools = PoolPlan::PLAIN,
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
