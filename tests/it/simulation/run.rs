//! Carries a plan out: the real reactor on the simulated engine, invariants after
//! every turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use thalweg::config::{
    LogFormat, LogLevel, LogTarget, Sample, SessionLog, Tap, TapFilter, TapFormat, TapTarget,
};
use thalweg::engine::Engine;
use thalweg::engine::sim::{LISTENERS, Sim, Tally};
use thalweg::net::address::Endpoint;
use thalweg::net::turn_away::TurnAway;
use thalweg::observe::books::ForwardBooks;
use thalweg::observe::counters::Counters;
use thalweg::observe::log::Log;
use thalweg::observe::tap::Source;
use thalweg::policy::clients::ClientRules;
use thalweg::policy::meter::{Buckets, Rate};
use thalweg::proto::opening::Step;
use thalweg::reactor::{
    ByteRates, ClientPolicy, Forward, ForwardRate, Gate, Listener, Reactor, Setup,
};
use thalweg::relay::ending::Cause;
use thalweg::relay::id::{ForwardId, ListenerId, PoolId};
use thalweg::relay::lane::PathPolicy;
use thalweg::relay::session::{Close, Deadlines, Rules};

use super::moves::Moves;
use super::plan::Plan;
use super::pools::Pools;
use super::requests::Requests;

/// Turns after which a run counts as stuck.
pub(crate) const TURNS_MAX: u64 = 1_000_000;

/// What a run came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) turns: u64,
    /// Sessions that were moved.
    pub(crate) moved: u64,
}

pub(crate) fn reactor(
    sim: Sim,
    path: PathPolicy,
    sessions_max: u32,
    pools: &Pools,
    requests: &Requests,
    counters: &Arc<Counters>,
) -> Reactor<Sim> {
    reactor_with_rate(sim, path, sessions_max, pools, requests, counters, None)
}

fn reactor_with_rate(
    sim: Sim,
    path: PathPolicy,
    sessions_max: u32,
    pools: &Pools,
    requests: &Requests,
    counters: &Arc<Counters>,
    rate: Option<u64>,
) -> Reactor<Sim> {
    let (log, _) =
        Log::start(LogLevel::Error, LogFormat::Text, &LogTarget::Stderr).expect("a thread");
    let rules = Rules {
        deadlines: Deadlines {
            connect: Duration::from_secs(2),
            idle: Duration::from_secs(8),
            half_close: Duration::from_secs(6),
            write_stall: Duration::from_secs(5),
        },
        attempts_max: 3,
        retry: Duration::from_secs(30),
        queue: Duration::from_secs(3),
        opening: None,
        path,
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
            gate: (id == 1).then(|| Arc::new(Gate::new(sessions_max.div_ceil(3)))),
            clients: rate.map(|rate| held_back(ForwardId::new(id), rate)),
            steps: request.iter().map(|_| Requests::look()).collect(),
            announced: false,
            request: request.into(),
            datagrams: None,
            routing: None,
            route: None,
            books: Arc::new(ForwardBooks::new(1)),
            generation: 0,
        })
    };
    let forwards = [
        forward(0, 0, &[]),
        forward(1, 1, &[]),
        forward(2, 0, &[Requests::step()]),
    ];
    let listener = |index: usize| {
        let forward = forwards[[0, 1, 1, 2][index]].clone();
        Listener::new(ListenerId::new(index as u32), Endpoint::Unnamed, forward)
    };
    let setup = Setup {
        reactor: 0,
        pools: pools.setups(),
        gate: Arc::new(Gate::new(sessions_max)),
        flows: Arc::new(Gate::new(u32::MAX)),
        own: Arc::default(),
        counters: counters.clone(),
        log,
        session_log: SessionLog::Off,
        taps: [(ForwardId::new(0), Source::to_nobody(tap()))].into(),
        decider: Some(Box::new(requests.clone())),
    };
    let sockets: Vec<_> = (0..LISTENERS).map(|at| sim.listener(at)).collect();
    let mut reactor = Reactor::new(sim, setup);
    for (index, socket) in sockets.into_iter().enumerate() {
        let listening = reactor.add_listener(socket, listener(index));
        listening.expect("simulated sockets listen");
    }
    reactor
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

/// Half of the sessions of the first forward are looked at, for their first bytes:
/// they copy meanwhile, whatever the policy, and are like any other afterwards.
fn tap() -> Tap {
    Tap {
        format: TapFormat::Hex,
        to: TapTarget::Stderr,
        max_bytes_per_session: 2048,
        filter: TapFilter {
            sample: Sample { part: 1, of: 2 },
            ..TapFilter::default()
        },
        rotate: None,
        mode: 0o600,
        mask: Vec::new(),
        unmask: false,
    }
}

/// Runs a plan; panics where something is wrong.
pub(crate) fn run(plan: &Plan) -> Outcome {
    let mut moves = if plan.moves {
        Moves::drawn(plan.seed)
    } else {
        Moves::never()
    };
    let counters = Arc::new(Counters::default());
    let pools = Pools::new(&plan.pools);
    let sim = Sim::new(plan.seed);
    let requests = Requests::drawn(plan.seed);
    let mut reactor = reactor_with_rate(
        sim,
        plan.path,
        plan.sessions_max,
        &pools,
        &requests,
        &counters,
        plan.rate,
    );
    let mut changes = plan.changes.iter().peekable();
    let mut clients = plan.clients.iter().peekable();
    let mut turns = 0;
    while clients.peek().is_some() || !reactor.engine().is_quiet() {
        while let Some(client) = clients.next_if(|client| client.turn <= turns) {
            let draining = plan.drain_at.is_some_and(|turn| turns >= turn);
            if !draining {
                let listener = client.listener as usize;
                reactor
                    .engine_mut()
                    .client_connects(listener, client.script, client.upstream);
            }
        }
        while let Some(change) = changes.next_if(|change| change.turn <= turns) {
            pools.apply(change, &mut reactor);
        }
        reactor.turn().expect("simulated waits succeed");
        requests.decide_some(&mut reactor);
        moves.some(&mut reactor);
        reactor.check_invariants();
        reactor.engine().check_invariants();
        pools.check(reactor.live());
        turns += 1;
        if plan.drain_at == Some(turns) {
            reactor.stop_accepting();
        }
        if plan.cut_at == Some(turns) {
            reactor.engine_mut().lenient = true;
            reactor.cut_all(Cause::Stopped);
        }
        assert!(turns < TURNS_MAX, "the run does not end");
    }
    // Spares go with the listeners; closes may take a few turns yet.
    reactor.stop_accepting();
    while reactor.engine().open_sockets() > 0 {
        reactor.turn().expect("simulated waits succeed");
        turns += 1;
        assert!(turns < TURNS_MAX, "spares are not closed");
    }
    pools.check_empty();
    reactor.publish();
    let end = counters.snapshot();
    assert_eq!(reactor.live(), 0, "a session outlived its sockets");
    assert_eq!(reactor.engine().open_sockets(), 0, "a socket was left open");
    assert_eq!(
        reactor.engine().holdings().held_bytes,
        0,
        "held bytes leaked"
    );
    assert_eq!(end.accepted, end.ended, "accepted and ended do not match");
    Outcome {
        tally: reactor.engine().tally,
        turns,
        moved: moves.moved,
    }
}

/// Runs a plan; the text of the panic where something is wrong.
pub(crate) fn outcome(plan: &Plan) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| run(plan))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default()
    })
}

/// Runs a seed. When it fails: prints the smallest plan that fails the same way
/// and how to replay it, and panics.
pub(crate) fn check(seed: u64) -> Outcome {
    check_plan(seed, &Plan::drawn(seed))
}

/// As [`check`], and sessions are moved meanwhile.
pub(crate) fn check_moving(seed: u64) -> Outcome {
    check_plan(seed, &Plan::moving(seed))
}

fn check_plan(seed: u64, plan: &Plan) -> Outcome {
    match outcome(plan) {
        Ok(outcome) => outcome,
        Err(why) => {
            let smallest = plan.minimised(|plan| outcome(plan).is_err());
            let still = outcome(&smallest).err().unwrap_or_default();
            panic!(
                "seed {seed} failed: {why}\nsmallest plan that fails ({still}):\n{smallest:#?}\n\
                 replay: scripts/simulate --seed {seed}"
            );
        }
    }
}
