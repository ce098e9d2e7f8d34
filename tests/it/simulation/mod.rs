//! The reactor and its sessions on the simulated engine: random peers, servers
//! that come and go, a random kernel, each run from one 64-bit seed.
//!
//! A failing run prints its seed, the smallest plan that still fails, and the
//! command that replays it. `scripts/simulate SECONDS` runs fresh seeds.

mod fair;
mod flows;
mod generations;
mod moves;
mod plan;
mod pools;
#[cfg(feature = "probes")]
mod probes;
mod requests;
mod run;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use thalweg::engine::Engine;
use thalweg::engine::sim::peer::{Finale, Script};
use thalweg::engine::sim::{Sim, Tally};
use thalweg::observe::counters::Counters;
use thalweg::reactor::Reactor;
use thalweg::relay::lane::PathPolicy;
use thalweg::relay::time::Time;

use plan::PoolPlan;
use pools::Pools;
use requests::Requests;
use run::{Outcome, TURNS_MAX, check, check_moving, reactor};

const SEEDS: u64 = 400;

fn add(total: &mut Outcome, one: Outcome) {
    let Tally {
        connections,
        closed,
        complete,
        resets_told,
        bytes,
    } = one.tally;
    total.turns += one.turns;
    total.moved += one.moved;
    total.tally.connections += connections;
    total.tally.closed += closed;
    total.tally.complete += complete;
    total.tally.resets_told += resets_told;
    total.tally.bytes += bytes;
}

#[test]
fn random_peers_on_a_random_kernel() {
    let mut total = Outcome::default();
    (0..SEEDS).for_each(|seed| add(&mut total, check(seed)));
    println!("{total:?}");
    // The runs are worth something only if all of it happened.
    let Tally {
        complete,
        resets_told,
        bytes,
        ..
    } = total.tally;
    assert!(complete > 0 && resets_told > 0 && bytes > 0);
}

/// Behaviours 123 and 131 in the small: at any moment a session can be frozen, written,
/// read and thawed, and nobody can tell.
#[test]
fn sessions_that_are_moved_at_any_moment_are_the_same_afterwards() {
    let mut total = Outcome::default();
    (0..SEEDS / 2).for_each(|seed| add(&mut total, check_moving(seed)));
    println!("{total:?}");
    assert!(total.moved > SEEDS, "{} sessions were moved", total.moved);
    assert!(total.tally.complete > 0 && total.tally.resets_told > 0);
}

/// For `scripts/simulate`: one seed, or fresh ones for some time.
#[test]
#[ignore = "run by scripts/simulate, for as long as that is asked to"]
fn fresh_seeds() {
    if let Ok(seed) = std::env::var("THALWEG_SEED") {
        let seed = seed.parse().expect("THALWEG_SEED is a number");
        println!("seed {seed}: {:?}", check(seed));
        println!("seed {seed}, moving: {:?}", check_moving(seed));
        return;
    }
    let seconds = std::env::var("THALWEG_SIMULATE_SECONDS")
        .ok()
        .and_then(|n| n.parse().ok());
    let seconds: u64 = seconds.unwrap_or(10);
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    let first = clock.as_nanos() as u64;
    let start = Instant::now();
    let (mut total, mut seeds) = (Outcome::default(), 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        add(&mut total, check(first.wrapping_add(seeds)));
        add(&mut total, check_moving(first.wrapping_add(seeds)));
        seeds += 1;
    }
    let elapsed = start.elapsed().as_secs_f64();
    println!(
        "seeds {first} to {}: all passed",
        first.wrapping_add(seeds - 1)
    );
    println!(
        "{:.0} seeds/s, {:.0} steps/s, {:?}",
        seeds as f64 / elapsed,
        total.turns as f64 / elapsed,
        total.tally
    );
}

/// One client and one server that behave, on whatever kernel the seed draws.
fn one(seed: u64, client: Script, upstream: Script) -> Reactor<Sim> {
    let counters = Arc::new(Counters::default());
    let mut sim = Sim::new(seed);
    sim.client_connects(0, client, upstream);
    let pools = Pools::new(&PoolPlan::PLAIN);
    let requests = Requests::default();
    let mut reactor = reactor(sim, PathPolicy::Auto, 10, &pools, &requests, &counters);
    for _ in 0..TURNS_MAX {
        reactor.turn().expect("simulated waits succeed");
        reactor.check_invariants();
        reactor.engine().check_invariants();
        if reactor.engine().is_quiet() {
            return reactor;
        }
    }
    panic!("the run does not end");
}

const EAGER: Script = Script {
    sends: 100_000,
    burst: 9_000,
    reads: 1 << 20,
    window: 65_536,
    pause_ms: 0,
    finale: Finale::Orderly,
    request: 0,
    malformed: false,
};

#[test]
fn b05_both_sides_end_at_the_same_moment() {
    let quiet = Script { sends: 0, ..EAGER };
    for seed in 0..50 {
        assert!(one(seed, quiet, quiet).engine().tally.closed <= 1);
    }
}

#[test]
fn b42_a_peer_that_never_reads_is_given_up() {
    let deaf = Script {
        sends: 0,
        reads: 0,
        finale: Finale::Silence,
        ..EAGER
    };
    let eager = Script {
        sends: 8_000_000,
        finale: Finale::AfterTheOther,
        ..EAGER
    };
    for seed in 0..20 {
        let reactor = one(seed, deaf, eager);
        let end = reactor.engine().now();
        assert!(end < Time::ZERO + Duration::from_secs(40), "{end:?}");
    }
}

#[test]
fn b41_silence_is_ended_at_its_time() {
    let silent = Script {
        sends: 0,
        finale: Finale::Silence,
        ..EAGER
    };
    for seed in 0..20 {
        let end = one(seed, silent, silent).engine().now().since(Time::ZERO);
        // Up to three connects of 2 s that are never answered come before.
        let after_connects = end.as_secs_f64() % 2.0;
        assert!(
            after_connects < 0.2 || end < Duration::from_secs(7),
            "{end:?}"
        );
        assert!(end < Duration::from_secs(15), "{end:?}");
    }
}
