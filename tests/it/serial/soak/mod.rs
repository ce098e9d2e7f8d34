//! Very many sessions of all kinds through one forwarder, on each engine; then what
//! it has is compared with what it had, and its counters with what the peers saw.
//!
//! `scripts/soak SESSIONS` runs it on the release binary. The sessions are those of
//! a seed, which is printed; which of them meet is up to the scheduler.

mod sessions;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use super::alone;
use crate::duplex::Chance;
use crate::kit::log::Counters;
use crate::kit::process::{Descriptors, Memory};
use crate::kit::*;
use sessions::{Driver, Tally};

/// Without `THALWEG_SOAK_SESSIONS`.
const SESSIONS: u64 = 200_000;

/// Threads that make sessions, each through a forward of its own between addresses
/// of its own: ports are used again only after a minute, and no address may run out
/// of them.
const DRIVERS: u8 = 16;

/// The sessions are made in so many parts, and memory is looked at after each.
const PARTS: u64 = 4;

/// Memory that a part may leave behind and does not count as grown: the allocator
/// hands out whole pages, of which each thread has some open.
const PART_SLACK: u64 = 64 * KIB;

/// What pools may grow in addition over all parts. Their pages are touched when more
/// is under way at a time than ever before, which may be late: io_uring's buffers for
/// two reactors are most of it.
const POOLS_SLACK: u64 = 4 * MIB;

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
#[ignore = "run by scripts/soak, with as many sessions as that is asked for"]
fn b45_sessions_of_all_kinds_leave_nothing_behind() {
    let _alone = alone();
    let sessions = number_from("THALWEG_SOAK_SESSIONS").unwrap_or(SESSIONS);
    let seed = number_from("THALWEG_SEED").unwrap_or_else(|| {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
        since.map_or(1, |since| since.as_nanos() as u64)
    });
    println!("seed {seed} (THALWEG_SEED={seed} plays the same sessions)");
    for engine in engines() {
        soak_on(engine, sessions, seed);
    }
}

/// What a forwarder has while nothing happens.
#[derive(Debug, Clone, Copy)]
struct Rest {
    descriptors: Descriptors,
    threads: usize,
    memory: Memory,
}

impl Rest {
    fn of(forwarder: &Forwarder) -> Self {
        forwarder.check_idle();
        let process = forwarder.process();
        Self {
            descriptors: process.descriptors(),
            threads: process.threads().len(),
            memory: process.memory(),
        }
    }
}

fn soak_on(engine: &str, sessions: u64, seed: u64) {
    let mut chance = Chance::new(seed);
    let mut drivers: Vec<Driver> = (0..DRIVERS).map(|n| Driver::new(address(n))).collect();
    let forwarder = start(engine, &drivers);
    let listening = forwarder.addresses();
    for (driver, address) in drivers.iter_mut().zip(listening) {
        driver.forwarder = address.parse().unwrap();
    }

    // The first sessions fill pools and slabs.
    let warm_up = (sessions / 10).max(2_000);
    let warmed = drive(&mut drivers, warm_up, &mut chance);
    let before = Rest::of(&forwarder);
    let start = Instant::now();
    let (mut all, mut grown, mut after) = (warmed, Vec::new(), before);
    for _ in 0..PARTS {
        let part = drive(&mut drivers, sessions.div_ceil(PARTS), &mut chance);
        all = all.plus(&part);
        settle(&forwarder, &all);
        let rest = Rest::of(&forwarder);
        let memory = |rest: &Rest| rest.memory.anonymous;
        grown.push(memory(&rest).saturating_sub(memory(&after)));
        after = rest;
    }
    let took = start.elapsed();

    println!(
        "{engine}: {sessions} sessions in {:.1} s, {:.0} a second, {} MiB",
        took.as_secs_f64(),
        sessions as f64 / took.as_secs_f64(),
        (all.received_up + all.received_down) / MIB
    );
    println!("  before: {before:?}\n  after:  {after:?}");
    println!("  memory grew by {grown:?}\n  {all:?}");
    check_rest(&before, &after, &grown);
    check_counters(&forwarder.counters(), &all);
    assert!(forwarder.terminate().success());
}

const fn address(driver: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + driver))
}

fn start(engine: &str, drivers: &[Driver]) -> Forwarder {
    let mut pairs = drivers.iter().enumerate().map(|(n, driver)| {
        let listen = format!("{}:0", address(n as u8));
        (listen, driver.server.address())
    });
    let (listen, server) = pairs.next().unwrap();
    let setup = Setup::between(listen, server)
        .engine(engine)
        .reactors(2)
        .set("log.sessions", "off");
    let setup = pairs.fold(setup, |setup, (listen, server)| setup.and(listen, server));
    setup.start()
}

/// Shares `sessions` among the drivers.
fn drive(drivers: &mut [Driver], sessions: u64, chance: &mut Chance) -> Tally {
    let share = sessions.div_ceil(drivers.len() as u64);
    std::thread::scope(|scope| {
        let threads: Vec<_> = drivers
            .iter_mut()
            .map(|driver| {
                let chance = Chance::new(chance.next());
                scope.spawn(move || driver.drive(share, chance))
            })
            .collect();
        let tallies = threads.into_iter().map(|thread| match thread.join() {
            Ok(tally) => tally,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        tallies.fold(Tally::default(), |sum, tally| sum.plus(&tally))
    })
}

/// Waits until the last session has ended in the forwarder too.
fn settle(forwarder: &Forwarder, all: &Tally) {
    wait_until("every session has ended", PATIENCE, || {
        let counters = forwarder.counters();
        counters.of("ended") + counters.of("accept_lost") >= all.connections
            && counters.of("live") == 0
    });
}

fn check_rest(before: &Rest, after: &Rest, grown: &[u64]) {
    let without_pipes = |descriptors: Descriptors| Descriptors {
        // Pooled or not, which `check_idle` bounds.
        pipe_ends: 0,
        ..descriptors
    };
    assert_eq!(
        without_pipes(after.descriptors),
        without_pipes(before.descriptors)
    );
    assert_eq!(after.threads, before.threads);
    // What leaks, leaks in each part; a pool that grows once does not.
    let leaked = grown.iter().min().copied().unwrap_or(0);
    assert!(leaked <= PART_SLACK, "memory grows and grows: {grown:?}");
    let allowed = before.memory.anonymous / 100 + POOLS_SLACK;
    let total: u64 = grown.iter().sum();
    assert!(total <= allowed, "memory grew by {total} bytes: {grown:?}");
}

/// The forwarder's books are closed, and agree with what its peers saw.
fn check_counters(counters: &Counters, all: &Tally) {
    let of = |name| counters.of(name);
    assert_eq!(of("accepted"), of("ended") + of("live"), "{counters:?}");
    assert_eq!(of("accepted") + of("accept_lost"), all.connections);
    assert_eq!(
        of("bytes_read"),
        of("bytes_up") + of("bytes_down") + of("bytes_lost"),
        "{counters:?}"
    );
    for gauge in ["live", "held_bytes", "pipes"] {
        assert_eq!(of(gauge), 0, "{gauge}");
    }
    // Whatever arrived was delivered, and whatever was delivered had been sent. In
    // between lies what resets destroyed in the kernels' queues.
    for (name, sent, received) in [
        ("bytes_up", all.sent_up, all.received_up),
        ("bytes_down", all.sent_down, all.received_down),
    ] {
        let delivered = of(name);
        assert!(
            (received..=sent).contains(&delivered),
            "{name}={delivered}, not {received} to {sent}"
        );
    }
    assert!(of("bytes_read") <= all.sent_up + all.sent_down);
    // Sessions that ended in good order at both ends did so in the middle too, and
    // the others did not all turn into good ones.
    assert!(of("ended_well") >= all.ended_well);
    assert!(of("ended_well") <= all.connections - all.resets);
}
