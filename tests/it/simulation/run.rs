//! Carries a plan out: the real reactor on the simulated engine, invariants after
//! every turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use thalweg::config::{
    LogFormat, LogLevel, LogTarget, Sample, SessionLog, Tap, TapFilter, TapFormat, TapTarget,
};
use thalweg::engine::Engine;
use thalweg::engine::sim::{LISTENERS, Sim, Tally};
use thalweg::observe::counters::Counters;
use thalweg::observe::log::Log;
use thalweg::observe::tap::Source;
use thalweg::reactor::{Gate, Reactor, Setup};
use thalweg::relay::ending::Cause;
use thalweg::relay::id::ForwardId;
use thalweg::relay::lane::PathPolicy;

use super::generations::Generations;
use super::moves::Moves;
use super::plan::{Fate, Plan};
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
    let generations = Generations::new(path, sessions_max, None);
    reactor_of(sim, &generations, sessions_max, pools, requests, counters)
}

/// One that begins with the first of these configurations.
fn reactor_of(
    sim: Sim,
    generations: &Generations,
    sessions_max: u32,
    pools: &Pools,
    requests: &Requests,
    counters: &Arc<Counters>,
) -> Reactor<Sim> {
    let (log, _) =
        Log::start(LogLevel::Error, LogFormat::Text, &LogTarget::Stderr).expect("a thread");
    let setup = Setup {
        reactor: 0,
        pools: pools.setups(),
        gate: Arc::new(Gate::new(sessions_max)),
        flows: Arc::new(Gate::new(u32::MAX)),
        homes: Arc::default(),
        own: Arc::default(),
        counters: counters.clone(),
        log,
        session_log: SessionLog::Off.into(),
        taps: [(ForwardId::new(0), Source::to_nobody(tap()))].into(),
        decider: Some(Box::new(requests.clone())),
    };
    let sockets: Vec<_> = (0..LISTENERS).map(|at| sim.listener(at)).collect();
    let mut reactor = Reactor::new(sim, setup);
    for (socket, at) in sockets.into_iter().zip(generations.listeners(0)) {
        let listening = reactor.add_listener(socket, at);
        listening.expect("simulated sockets listen");
    }
    reactor
}

/// Half of the sessions of the first forward are looked at, for their first bytes:
/// they copy meanwhile, whatever the policy, and are like any other afterwards.
pub(crate) fn tap() -> Tap {
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
    let generations = Generations::new(plan.path, plan.sessions_max, plan.rate);
    let mut generation = 0;
    let mut reactor = reactor_of(
        sim,
        &generations,
        plan.sessions_max,
        &pools,
        &requests,
        &counters,
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
            if change.what == Fate::Reload {
                generation += 1;
                generations.reload(generation, &pools, &mut reactor);
            } else {
                pools.apply(change, &mut reactor);
            }
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
