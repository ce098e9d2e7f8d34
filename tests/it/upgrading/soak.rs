//! Many upgrades under load, by `scripts/soak`: behaviours 123, 124 and 134 at their size.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::kit::*;
use super::sessions::Pair;
use crate::kit::*;
use crate::reloading::kit::{Echo, Load};

/// Sessions without `THALWEG_SOAK_HELD`.
const HELD: u64 = 5_000;

/// Threads that exchange over them, each over its own.
const DRIVERS: u64 = 8;

const UPGRADES: usize = 20;

/// Twenty upgrades in a row, while sessions exchange pieces of all sizes, whose every byte is
/// compared, one exchanges four bytes a thousand times a second, and others come and go.
#[test]
#[ignore = "run by scripts/soak, with as many sessions as THALWEG_SOAK_HELD says"]
fn b134_twenty_upgrades_under_load_lose_no_byte() {
    let held = std::env::var("THALWEG_SOAK_HELD").map_or(HELD, |it| it.parse().unwrap());
    for engine in engines() {
        soak_on(engine, held);
    }
}

fn soak_on(engine: &str, held: u64) {
    let (server, echo) = (Listener::new(), Echo::new(b'a'));
    let setup = Setup::new(server.address()).and("127.0.0.1:0", echo.address);
    let setup = setup.engine(engine).reactors(2).set("log.sessions", "off");
    let it = Upgradable::start(setup);
    let pairs: Vec<Pair> = (0..held).map(|n| Pair::open(&it, &server, n)).collect();
    let echoed = it.forwarder.addresses()[1].parse().unwrap();
    let (ends, moved) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = it.serving();
    let mut process = it.upgrade();
    is_gone(before);
    let (threads, memory) = (process.threads().len(), process.memory());
    std::thread::scope(|scope| {
        let mut pairs = pairs.into_iter();
        for _ in 0..DRIVERS {
            let own: Vec<Pair> = pairs
                .by_ref()
                .take(held.div_ceil(DRIVERS) as usize)
                .collect();
            scope.spawn(|| drive(own, &ends, &moved));
        }
        let gap = scope.spawn(|| {
            let mut ping = Held::open(echoed);
            let mut gap = Duration::ZERO;
            while !ends.load(Ordering::Relaxed) {
                let asked = Instant::now();
                ping.ping();
                gap = gap.max(asked.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
            gap
        });
        let load = Load::begin(&[echoed], 2);
        let mut slowest = Duration::ZERO;
        for _ in 1..UPGRADES {
            let asked = Instant::now();
            let next = it.upgrade();
            is_gone(process);
            slowest = slowest.max(asked.elapsed());
            process = next;
        }
        load.end();
        ends.store(true, Ordering::Relaxed);
        println!(
            "{engine}: {held} sessions, {UPGRADES} upgrades, the slowest {slowest:?}, longest gap {:?}",
            gap.join().unwrap()
        );
    });
    println!("{engine}: {} bytes compared", moved.load(Ordering::Relaxed));
    wait_until("one process is left", PATIENCE, || {
        it.processes() == [process]
    });
    wait_until("threads are as after the first", PATIENCE, || {
        process.threads().len() <= threads
    });
    let now = process.memory();
    println!("{engine}: {memory:?} after the first, {now:?} after the last");
    let most = memory.anonymous + memory.anonymous * 3 / 10 + (4 << 20);
    assert!(now.anonymous <= most, "b134");
}

/// Exchanges over all of these in turn, and ends each in good order.
fn drive(mut pairs: Vec<Pair>, ends: &AtomicBool, moved: &AtomicU64) {
    let mut len = 1;
    while !ends.load(Ordering::Relaxed) {
        for pair in &mut pairs {
            len = len * 7 % 65_521;
            pair.exchange(len);
            moved.fetch_add(2 * len, Ordering::Relaxed);
        }
    }
    pairs.into_iter().for_each(Pair::end);
}
