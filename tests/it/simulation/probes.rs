//! The simulator, tested: every transition is reached, and classic bugs are
//! caught. Needs the feature `probes`.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Arc, Once};
use std::time::Duration;

use thalweg::engine::Engine;
use thalweg::engine::sim::peer::{Finale, Script};
use thalweg::engine::sim::{Nastiness, SERVERS, Sim};
use thalweg::observe::counters::Counters;
use thalweg::relay::ending::Cause;
use thalweg::relay::lane::PathPolicy;
use thalweg::relay::probe::{self, Mutation};
use thalweg::relay::time::Time;

use super::plan::{Plan, PoolPlan};
use super::pools::Pools;
use super::requests::Requests;
use super::run::{outcome, reactor};

/// Seeds within which each bug must show. Most show within ten.
const SEEDS: u64 = 400;

/// The rarest transition takes about a hundred.
const COVERAGE_SEEDS: u64 = 400;

/// While it lives, a panic of this thread says nothing. The hook is everybody's, so it is
/// set once and asks which thread it runs on.
struct Silence;

impl Silence {
    fn new() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if !SILENT.get() {
                    usual(info);
                }
            }));
        });
        SILENT.set(true);
        Self
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        SILENT.set(false);
    }
}

thread_local! {
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

#[test]
fn ten_classic_bugs_are_caught() {
    // Each failure is expected: nobody needs to read of it.
    let silence = Silence::new();
    let mut escaped = Vec::new();
    for mutation in Mutation::ALL {
        probe::switch(Some(mutation));
        let caught =
            (0..SEEDS).find_map(|seed| outcome(&Plan::drawn(seed)).err().map(|why| (seed, why)));
        match caught {
            Some((seed, why)) => println!(
                "{mutation:?}: caught by seed {seed}: {}",
                why.lines().next().unwrap_or("")
            ),
            None => escaped.push(mutation),
        }
    }
    probe::switch(None);
    drop(silence);
    assert_eq!(escaped, [], "bugs that no seed shows");
}

/// Transitions of a session's phase that there are, no more and no fewer.
const TRANSITIONS: [(&str, &str); 36] = [
    ("Reading", "Deciding"),
    ("Reading", "Refusing"),
    ("Reading", "Closing"),
    ("Deciding", "Dialing"),
    ("Deciding", "Refusing"),
    ("Deciding", "Closing"),
    ("Dialing", "Greeting"),
    ("Dialing", "Refusing"),
    ("Greeting", "Relaying"),
    ("Greeting", "Closing"),
    ("Dialing", "Prefixing"),
    ("Prefixing", "Greeting"),
    ("Prefixing", "Relaying"),
    ("Prefixing", "Refusing"),
    ("Prefixing", "Closing"),
    ("Refusing", "Parting"),
    ("Refusing", "Closing"),
    ("Parting", "Closing"),
    ("Dialing", "Parting"),
    ("Prefixing", "Parting"),
    ("Queued", "Parting"),
    ("Dialing", "Queued"),
    ("Queued", "Dialing"),
    ("Queued", "Closing"),
    ("Redialing", "Dialing"),
    ("Redialing", "Closing"),
    ("Dialing", "Dialing"),
    ("Dialing", "Redialing"),
    ("Dialing", "Relaying"),
    ("Dialing", "Closing"),
    ("Relaying", "Flushing"),
    ("Relaying", "Lingering"),
    ("Relaying", "Closing"),
    ("Flushing", "Lingering"),
    ("Flushing", "Closing"),
    ("Lingering", "Closing"),
];

/// States of a lane (source, sink) in which it was asked what is next. An end is
/// found only by a fill, so with nothing held: it never meets a full sink.
const LANE_STATES: [(&str, &str); 13] = [
    ("source Ready", "sink Ready"),
    ("source Ready", "sink Full"),
    ("source Ready", "sink Failed"),
    ("source Empty", "sink Ready"),
    ("source Empty", "sink Full"),
    ("source Empty", "sink Failed"),
    ("source Held", "sink Ready"),
    ("source Held", "sink Full"),
    ("source Eof", "sink Ready"),
    ("source Eof", "sink Shut"),
    ("source Eof", "sink Failed"),
    ("source Failed", "sink Ready"),
    ("source Failed", "sink Failed"),
];

/// Too rare for random runs: the cut comes between the end of one connect and
/// the start of the next.
fn cut_while_the_next_server_waits_for_a_close() {
    let nastiness = Nastiness {
        deferred_close: 100,
        ..Nastiness::default()
    };
    let script = Script {
        finale: Finale::Silence,
        ..Script::default()
    };
    for cut_after in 1..10 {
        let mut sim = Sim::with(1, nastiness);
        (0..SERVERS).for_each(|server| sim.mute_server(server));
        sim.client_connects(0, script, script);
        let pools = Pools::new(&PoolPlan::PLAIN);
        let counters = Arc::new(Counters::default());
        let requests = Requests::default();
        let mut reactor = reactor(sim, PathPolicy::Auto, 10, &pools, &requests, &counters);
        while reactor.engine().now() < Time::ZERO + Duration::from_secs(2) {
            reactor.turn().expect("a simulated wait");
        }
        for _ in 0..cut_after {
            reactor.turn().expect("a simulated wait");
        }
        reactor.cut_all(Cause::Stopped);
        while !reactor.engine().is_quiet() {
            reactor.turn().expect("a simulated wait");
            reactor.check_invariants();
        }
    }
}

#[test]
fn every_transition_and_every_lane_state_is_reached() {
    probe::take_visited();
    for seed in 0..COVERAGE_SEEDS {
        outcome(&Plan::drawn(seed)).expect("a run that passes");
    }
    cut_while_the_next_server_waits_for_a_close();
    let visited = probe::take_visited();
    let known: BTreeSet<_> = TRANSITIONS.into_iter().chain(LANE_STATES).collect();
    let missed: Vec<_> = known.difference(&visited).collect();
    let unknown: Vec<_> = visited.difference(&known).collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
    assert!(
        unknown.is_empty(),
        "reached, but not known to be possible: {unknown:?}"
    );
}
