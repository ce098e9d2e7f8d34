//! The worker and its sessions on the simulated engine: random peers on a random
//! kernel, each run from one seed.
//!
//! A failing run prints its seed; `THALWEG_SEED=n cargo test --test simulation`
//! replays it. `THALWEG_SEEDS=n` runs that many instead of the default.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use thalweg::config::{LogFormat, LogLevel, LogTarget, SessionLog};
use thalweg::engine::Engine;
use thalweg::engine::sim::peer::{Finale, Script};
use thalweg::engine::sim::{Sim, Tally};
use thalweg::net::address::Endpoint;
use thalweg::net::options::{Leg, SocketOptions};
use thalweg::observe::counters::Counters;
use thalweg::observe::log::Log;
use thalweg::relay::ending::Cause;
use thalweg::relay::lane::PathPolicy;
use thalweg::relay::session::{Deadlines, Rules};
use thalweg::relay::time::Time;
use thalweg::worker::{ForwardSetup, Gate, ListenerSetup, ServerSetup, Setup, Worker};

const SEEDS: u64 = 300;

/// Turns after which a run counts as stuck.
const TURNS_MAX: u64 = 3_000_000;

fn worker(sim: Sim, path: PathPolicy, counters: &Arc<Counters>) -> Worker<Sim> {
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
        path,
        fill_limit: 256 * 1024,
    };
    let forward = ForwardSetup {
        name: "sim".into(),
        rules,
        servers: vec![
            ServerSetup {
                endpoint: Endpoint::Unnamed
            };
            3
        ],
        connect_options: Arc::new(SocketOptions::default().plan(Leg::Upstream)),
        gate: None,
    };
    let setup = Setup {
        reactor: 0,
        forwards: vec![forward],
        listeners: vec![ListenerSetup {
            forward: 0,
            address: Endpoint::Unnamed,
        }],
        gate: Arc::new(Gate::new(12)),
        counters: counters.clone(),
        log,
        session_log: SessionLog::Off,
    };
    Worker::new(sim, setup)
}

/// One run: clients come in waves, then everything must come to its end.
fn run(seed: u64) -> Tally {
    let mut sim = Sim::new(seed);
    let path =
        [PathPolicy::Auto, PathPolicy::Copy, PathPolicy::Splice][sim.dice().between(0, 2) as usize];
    let counters = Arc::new(Counters::default());
    let clients = sim.dice().between(1, 40);
    let cut_at = sim
        .dice()
        .percent(10)
        .then(|| sim.dice().between(1, 20_000));
    let mut worker = worker(sim, path, &counters);
    let (mut arrived, mut turns) = (0, 0);
    while arrived < clients || !worker.engine().is_quiet() {
        let sim = worker.engine_mut();
        if arrived < clients && sim.dice().percent(20) {
            let (client, upstream) = (Script::drawn(sim.dice()), Script::drawn(sim.dice()));
            sim.client_connects(client, upstream);
            arrived += 1;
        }
        worker.turn().expect("simulated waits succeed");
        worker.check_invariants();
        worker.engine().check_invariants();
        turns += 1;
        if cut_at == Some(turns) {
            worker.engine_mut().lenient = true;
            worker.cut_all(Cause::Stopped);
        }
        assert!(turns < TURNS_MAX, "the run does not end");
    }
    worker.publish();
    let end = counters.snapshot();
    assert_eq!(worker.live(), 0, "a session outlived its sockets");
    assert_eq!(worker.engine().open_sockets(), 0, "a socket was left open");
    assert_eq!(
        worker.engine().holdings().held_bytes,
        0,
        "held bytes leaked"
    );
    assert_eq!(end.accepted, end.ended, "accepted and ended do not match");
    worker.engine().tally
}

#[test]
fn random_peers_on_a_random_kernel() {
    let replay = std::env::var("THALWEG_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let count = std::env::var("THALWEG_SEEDS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(SEEDS);
    let seeds = replay.map_or(0..count, |seed: u64| seed..seed + 1);
    let mut total = Tally::default();
    for seed in seeds {
        let tally = catch_unwind(AssertUnwindSafe(|| run(seed)));
        let tally =
            tally.unwrap_or_else(|_| panic!("seed {seed} failed; replay with THALWEG_SEED={seed}"));
        total.connections += tally.connections;
        total.closed += tally.closed;
        total.complete += tally.complete;
        total.resets_told += tally.resets_told;
        total.bytes += tally.bytes;
    }
    println!("{total:?}");
    if replay.is_none() {
        // The runs are worth something only if all of it happened.
        assert!(total.complete > 0 && total.resets_told > 0 && total.bytes > 0);
    }
}

/// One client and one server that behave, on whatever kernel the seed draws.
fn one(seed: u64, client: Script, upstream: Script) -> Worker<Sim> {
    let counters = Arc::new(Counters::default());
    let mut sim = Sim::new(seed);
    sim.client_connects(client, upstream);
    let mut worker = worker(sim, PathPolicy::Auto, &counters);
    for _ in 0..TURNS_MAX {
        worker.turn().expect("simulated waits succeed");
        worker.check_invariants();
        worker.engine().check_invariants();
        if worker.engine().is_quiet() {
            return worker;
        }
    }
    panic!("the run does not end");
}

const EAGER: Script = Script {
    sends: 100_000,
    burst: 9_000,
    reads: 1 << 20,
    window: 65_536,
    finale: Finale::Orderly,
};

#[test]
fn b05_both_sides_end_at_the_same_moment() {
    for seed in 0..50 {
        let worker = one(
            seed,
            Script { sends: 0, ..EAGER },
            Script { sends: 0, ..EAGER },
        );
        assert!(worker.engine().tally.closed <= 1);
    }
}

#[test]
fn b42_a_peer_that_never_reads_is_given_up() {
    for seed in 0..20 {
        let deaf = Script {
            sends: 0,
            reads: 0,
            finale: Finale::Silence,
            ..EAGER
        };
        let worker = one(
            seed * 4,
            deaf,
            Script {
                sends: 8_000_000,
                finale: Finale::AfterTheOther,
                ..EAGER
            },
        );
        assert!(
            worker.engine().now() < Time::ZERO + Duration::from_secs(40),
            "{:?}",
            worker.engine().now()
        );
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
        let worker = one(seed * 4, silent, silent);
        let end = worker.engine().now().since(Time::ZERO);
        // Up to three connects of 2 s that are never answered come before.
        let after_connects = end.as_secs_f64() % 2.0;
        assert!(
            after_connects < 0.2 || end < Duration::from_secs(7),
            "{end:?}"
        );
        assert!(end < Duration::from_secs(15), "{end:?}");
    }
}
