//! Turns are fair: bulk that is ready keeps nobody waiting, and no flow of it another.

use std::sync::Arc;

use thalweg::engine::sim::peer::{Deed, Finale, Script};
use thalweg::engine::sim::{Nastiness, Sim};
use thalweg::engine::{Engine, SessionKey};
use thalweg::observe::counters::Counters;
use thalweg::reactor::Reactor;
use thalweg::reactor::run_queue::{LANE_BYTES, TURN_BYTES};
use thalweg::relay::Side;
use thalweg::relay::lane::PathPolicy;

use super::plan::PoolPlan;
use super::pools::Pools;
use super::requests::Requests;
use super::run::reactor;

const BULK_FLOWS: u32 = 16;
const BULK_BYTES: u64 = 6_000_000;
const TALKERS: u32 = 8;
const TURNS_MAX: u32 = 10_000;

/// Does nothing by itself, and takes whatever comes.
const PUPPET: Script = Script {
    sends: 0,
    burst: 1,
    reads: 0,
    window: 1 << 30,
    pause_ms: 0,
    finale: Finale::Silence,
    request: 0,
    malformed: false,
};

const fn key(slot: u32) -> SessionKey {
    SessionKey {
        slot,
        generation: 0,
    }
}

/// Sessions that relay, and nothing to be relayed.
fn connected(path: PathPolicy, sessions: u32) -> Reactor<Sim> {
    let counters = Arc::new(Counters::default());
    let pools = Pools::new(&PoolPlan::PLAIN);
    let sim = Sim::with(1, Nastiness::default());
    let mut reactor = reactor(sim, path, 1000, &pools, &Requests::default(), &counters);
    for _ in 0..sessions {
        reactor.engine_mut().client_connects(1, PUPPET, PUPPET);
    }
    for _ in 0..TURNS_MAX {
        let stands = |slot| reactor.engine().is_fresh(key(slot));
        if (0..sessions).all(stands) {
            return reactor;
        }
        reactor.turn().expect("simulated waits succeed");
    }
    panic!("they never connect");
}

fn sends(reactor: &mut Reactor<Sim>, slot: u32, bytes: u64) {
    let engine = reactor.engine_mut();
    engine.peer_does(key(slot), Side::Client, Deed::Send(bytes));
}

fn arrived(reactor: &mut Reactor<Sim>, slot: u32) -> u64 {
    let engine = reactor.engine_mut();
    engine.peer_takes(key(slot), Side::Upstream).unwrap_or(0)
}

#[test]
fn who_says_little_waits_for_one_share_of_all_bulk() {
    for path in [PathPolicy::Auto, PathPolicy::Copy, PathPolicy::Splice] {
        let mut reactor = connected(path, BULK_FLOWS + TALKERS);
        for slot in 0..BULK_FLOWS {
            sends(&mut reactor, slot, BULK_BYTES);
        }
        for slot in BULK_FLOWS..BULK_FLOWS + TALKERS {
            sends(&mut reactor, slot, 1);
        }
        let mut moved = [0; BULK_FLOWS as usize];
        let mut turns = 0;
        while moved.iter().sum::<u64>() < u64::from(BULK_FLOWS) * BULK_BYTES {
            reactor.turn().expect("simulated waits succeed");
            reactor.check_invariants();
            let before: u64 = moved.iter().sum();
            for slot in 0..BULK_FLOWS {
                moved[slot as usize] += arrived(&mut reactor, slot);
            }
            let total: u64 = moved.iter().sum();
            // Every turn, and so the first: with everything ready at once.
            for slot in BULK_FLOWS..BULK_FLOWS + TALKERS {
                assert_eq!(
                    arrived(&mut reactor, slot),
                    1,
                    "{path:?} turn {turns}, {slot}: {moved:?}"
                );
                sends(&mut reactor, slot, 1);
            }
            if turns > 0 {
                let most = u64::from(TURN_BYTES + 2 * LANE_BYTES);
                assert!(total - before <= most, "{} bytes in a turn", total - before);
            }
            let (least, most) = (moved.iter().min(), moved.iter().max());
            let ahead = most.zip(least).map_or(0, |(most, least)| most - least);
            assert!(ahead <= 2 * u64::from(LANE_BYTES), "{ahead} bytes ahead");
            turns += 1;
            assert!(turns < TURNS_MAX, "bulk does not get on: {moved:?}");
        }
        reactor.engine_mut().lenient = true;
    }
}
