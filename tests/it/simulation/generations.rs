//! The configurations of a run, one after the other: what a reload changes in the middle of
//! it. Sessions keep what they began with, so the invariants stay what they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thalweg::config::SessionLog;
use thalweg::engine::sim::{LISTENERS, Sim};
use thalweg::net::address::Endpoint;
use thalweg::net::turn_away::TurnAway;
use thalweg::observe::books::ForwardBooks;
use thalweg::observe::tap::Source;
use thalweg::policy::clients::ClientRules;
use thalweg::policy::meter::{Buckets, Rate};
use thalweg::proto::opening::Step;
use thalweg::reactor::{
    ByteRates, Change, ChangedListener, ClientPolicy, Forward, ForwardRate, Gate, Listener, Reactor,
};
use thalweg::relay::id::{ForwardId, ListenerId, PoolId};
use thalweg::relay::lane::PathPolicy;
use thalweg::relay::session::{Close, Deadlines, Rules};

use super::pools::Pools;
use super::requests::Requests;
use super::run::tap;

/// What is there in every configuration.
pub(crate) struct Generations {
    path: PathPolicy,
    sessions_max: u32,
    /// By forward: what its sessions have moved stays moved.
    clients: [Option<Arc<ClientPolicy>>; 3],
    /// Of the forward that has a limit of its own: who is in stays counted.
    gate: Arc<Gate>,
}

impl Generations {
    pub(crate) fn new(path: PathPolicy, sessions_max: u32, rate: Option<u64>) -> Self {
        let clients = [0, 1, 2].map(|id| Some(held_back(ForwardId::new(id), rate?)));
        Self {
            path,
            sessions_max,
            clients,
            gate: Arc::new(Gate::new(sessions_max.div_ceil(3))),
        }
    }

    /// What each socket is for. The first configuration is number 0.
    pub(crate) fn listeners(&self, generation: u64) -> Vec<Arc<Listener>> {
        let forwards = self.forwards(generation);
        // Which of the plain ones a socket is for changes; the last one is of those who ask.
        let which = [[0, 1, 1, 2], [1, 0, 1, 2], [0, 0, 0, 2]][(generation % 3) as usize];
        let listener = |index: usize| {
            let forward = forwards[which[index]].clone();
            Listener::new(ListenerId::new(index as u32), Endpoint::Unnamed, forward)
        };
        (0..LISTENERS).map(listener).collect()
    }

    /// Goes by another configuration in the middle of whatever is going on.
    pub(crate) fn reload(&self, generation: u64, pools: &Pools, reactor: &mut Reactor<Sim>) {
        self.gate.set_max(limit(self.sessions_max, generation));
        let listeners = self.listeners(generation).into_iter();
        let listeners = listeners.map(|at| ChangedListener { at, options: None });
        let shown = generation.is_multiple_of(2);
        let taps: BTreeMap<_, _> = [(ForwardId::new(0), Source::to_nobody(tap()))].into();
        reactor.change(Change {
            pools: pools.reloaded(generation, reactor),
            listeners: listeners.collect(),
            records: Some(SessionLog::Off.into()),
            taps: Some(if shown { taps } else { BTreeMap::new() }),
            ..Change::default()
        });
    }

    fn forwards(&self, generation: u64) -> [Arc<Forward>; 3] {
        // Timeouts of a later configuration are no longer, so that runs end when they would.
        let shorter = |millis: u64| Duration::from_millis(millis - 200 * (generation % 3));
        let rules = Rules {
            deadlines: Deadlines {
                connect: shorter(2_000),
                idle: shorter(8_000),
                half_close: shorter(6_000),
                write_stall: shorter(5_000),
            },
            attempts_max: 3,
            retry: Duration::from_secs(30),
            queue: Duration::from_secs(3),
            opening: None,
            path: self.path,
            turn_away: Close::Reset,
            fill_limits: [256 * 1024; 2],
        };
        // Two forwards that share servers, and one whose clients say where to go; two
        // listeners are of the second.
        let asking = Rules {
            opening: Some(Duration::from_secs(3)),
            attempts_max: 1,
            ..rules
        };
        let forward = |id, pool, request: &[Step]| {
            Arc::new(Forward {
                id: ForwardId::new(id),
                name: "sim".into(),
                rules: match (id, request.is_empty()) {
                    (1, _) => Rules {
                        turn_away: Close::Orderly,
                        ..rules
                    },
                    (_, true) => rules,
                    _ => asking,
                },
                pool: PoolId::new(pool),
                // One forward has a limit of its own.
                gate: (id == 1).then(|| self.gate.clone()),
                clients: self.clients[id as usize].clone(),
                steps: request.iter().map(|_| Requests::look()).collect(),
                announced: false,
                request: request.into(),
                datagrams: None,
                routing: None,
                pilot: None,
                route: None,
                books: Arc::new(ForwardBooks::new(1)),
                generation,
            })
        };
        [
            forward(0, 0, &[]),
            forward(1, 1, &[]),
            forward(2, 0, &[Requests::step()]),
        ]
    }
}

/// The limit of the forward that has one.
fn limit(sessions_max: u32, generation: u64) -> u32 {
    sessions_max.div_ceil(3) + (generation % 2) as u32
}

/// Each session goes by a rate, and those of the second forward by twice that together.
fn held_back(forward: ForwardId, per_second: u64) -> Arc<ClientPolicy> {
    let rates = |per_second| {
        let burst = Duration::from_millis(100);
        [Rate { per_second, burst }; 2]
    };
    let together = rates(2 * per_second);
    Arc::new(ClientPolicy {
        forward,
        name: "sim".into(),
        rules: ClientRules::default(),
        written: Box::default(),
        limits: None,
        rates: ByteRates {
            session: Some(rates(per_second)),
            forward: (forward == ForwardId::new(1)).then(|| ForwardRate {
                rates: together,
                buckets: Arc::new(Buckets::new(together)),
            }),
        },
        turns_away: TurnAway::Reset,
        dry_run: false,
    })
}
