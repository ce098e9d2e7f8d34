//! What a reactor does without the kernel, and the pipes it borrows from it: a
//! lane's decisions, a session's life, timers, slots, pipes, access lists; and in `sizes` picks of
//! servers, accepts with shares of places, turns with many listeners, and starting; in `reading`
//! a configuration that is read again. One thread.
//!
//! `cargo bench --bench core` measures, with `-- --quick` in less time;
//! `cargo test --benches` runs each once.

#[path = "core/reading.rs"]
mod reading;
#[path = "core/sizes.rs"]
mod sizes;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;

use thalweg::engine::SessionKey;
use thalweg::engine::slab::Slab;
use thalweg::engine::wheel::Wheel;
use thalweg::net::pipe::PipePool;
use thalweg::policy::networks::{NetworkRule, Networks};
use thalweg::relay::lane::{Lane, Next, PathPolicy};
use thalweg::relay::session::{Action, Close, Deadlines, Event, Pumped, Readiness, Rules, Session};
use thalweg::relay::time::Time;
use thalweg::relay::{Direction, Side};

const FILL: u32 = 256 * 1024;

const RULES: Rules = Rules {
    deadlines: Deadlines {
        connect: Duration::from_secs(5),
        idle: Duration::from_secs(600),
        half_close: Duration::from_secs(60),
        write_stall: Duration::from_secs(600),
    },
    attempts_max: 1,
    retry: Duration::MAX,
    queue: Duration::from_secs(5),
    opening: None,
    path: PathPolicy::Auto,
    turn_away: Close::Reset,
    fill_limits: [FILL; 2],
};

/// A short message crosses: asked, filled, drained, parked.
fn message(lane: &mut Lane) {
    lane.source_ready();
    while let Next::Fill { .. } = black_box(lane.next()) {
        lane.filled(64);
        lane.fill_blocked();
        lane.drained(64);
    }
}

/// A full read crosses through a pipe: filled, then drained in two parts.
fn bulk(lane: &mut Lane) {
    lane.source_ready();
    if let Next::Fill { max, .. } = black_box(lane.next()) {
        lane.filled(max);
        lane.drained(max / 2);
    }
    if let Next::Drain { len } = black_box(lane.next()) {
        lane.drained(len);
    }
}

fn lanes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lane");
    group.throughput(Throughput::Elements(1));
    group.bench_function("message", |bencher| {
        let mut lane = Lane::new(PathPolicy::Auto, FILL);
        bencher.iter(|| message(&mut lane));
    });
    group.bench_function("bulk_fill", |bencher| {
        let mut lane = Lane::new(PathPolicy::Auto, FILL);
        bencher.iter(|| bulk(&mut lane));
    });
    group.finish();
}

const MOVED: Pumped = Pumped {
    moved: true,
    more: false,
    failure: None,
};

/// Says that a side is readable and lets its lane move what `step` moves.
fn turn(
    session: &mut Session,
    side: Side,
    now: Time,
    actions: &mut Vec<Action>,
    step: impl FnOnce(&mut Lane),
) {
    let readiness = Readiness {
        readable: true,
        ..Readiness::default()
    };
    actions.clear();
    session.on(Event::Ready { side, readiness }, now, &RULES, actions);
    let direction = side.outgoing();
    step(session.lane_mut(direction));
    let pumped = Event::Pumped {
        direction,
        pumped: MOVED,
    };
    session.on(pumped, now, &RULES, actions);
}

fn end(lane: &mut Lane) {
    lane.source_eof();
    if black_box(lane.next()) == Next::ShutSink {
        lane.sink_shut();
    }
}

fn relaying(now: Time, actions: &mut Vec<Action>) -> Session {
    let mut session = Session::new(&RULES, now, actions);
    session.on(Event::Connected, now, &RULES, actions);
    session
}

fn sessions(criterion: &mut Criterion) {
    let now = Time::from_micros(1);
    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Elements(1));
    group.bench_function("request_and_response", |bencher| {
        let mut actions = Vec::new();
        let mut session = relaying(now, &mut actions);
        bencher.iter(|| {
            turn(&mut session, Side::Client, now, &mut actions, message);
            turn(&mut session, Side::Upstream, now, &mut actions, message);
            black_box(session.deadline(&RULES))
        });
        assert!(session.lane(Direction::Down).bytes_out() > 0);
    });
    group.bench_function("whole_life", |bencher| {
        let mut actions = Vec::new();
        bencher.iter(|| {
            actions.clear();
            let mut session = relaying(now, &mut actions);
            turn(&mut session, Side::Client, now, &mut actions, message);
            turn(&mut session, Side::Upstream, now, &mut actions, message);
            turn(&mut session, Side::Client, now, &mut actions, end);
            turn(&mut session, Side::Upstream, now, &mut actions, end);
            for side in Side::BOTH {
                session.on(Event::Closed(side), now, &RULES, &mut actions);
            }
            assert_eq!(actions.last(), Some(&Action::End));
            session
        });
    });
    group.finish();
}

fn timers(criterion: &mut Criterion) {
    const TIMERS: u32 = 10_000;
    let mut group = criterion.benchmark_group("wheel");
    group.throughput(Throughput::Elements(1));
    group.bench_function("move_one_of_10000", |bencher| {
        let mut wheel = Wheel::new();
        for slot in 0..TIMERS {
            wheel.arm(slot, Time::from_micros(u64::from(slot) * 60_000));
        }
        let mut at = 0;
        bencher.iter(|| {
            at += 1;
            wheel.arm(at % TIMERS, Time::from_micros(u64::from(at % 600) << 20));
        });
        assert_eq!(wheel.len(), TIMERS as usize);
    });
    group.throughput(Throughput::Elements(TIMERS.into()));
    group.bench_function("arm_and_fire_10000", |bencher| {
        let mut fired = Vec::new();
        bencher.iter_batched_ref(
            Wheel::new,
            |wheel| {
                fired.clear();
                for slot in 0..TIMERS {
                    wheel.arm(slot, Time::from_micros(u64::from(slot) * 1009));
                }
                wheel.advance(Time::from_micros(u64::from(TIMERS) * 1009), &mut fired);
                assert_eq!(fired.len(), TIMERS as usize);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn slots(criterion: &mut Criterion) {
    const LIVE: usize = 10_000;
    let filled = || {
        let mut slab = Slab::new();
        let keys: Vec<SessionKey> = (0..LIVE)
            .filter_map(|n| slab.insert([n as u64; 32]))
            .collect();
        (slab, keys)
    };
    let mut group = criterion.benchmark_group("slab");
    group.throughput(Throughput::Elements(1));
    group.bench_function("look_up_one_of_10000", |bencher| {
        let (slab, keys) = filled();
        let mut at = 0;
        bencher.iter(|| {
            // A stride that visits every key, far from the one before.
            at = (at + 4099) % LIVE;
            black_box(slab.get(keys[at]))
        });
    });
    group.bench_function("remove_and_insert", |bencher| {
        let (mut slab, mut keys) = filled();
        let mut at = 0;
        bencher.iter(|| {
            at = (at + 4099) % LIVE;
            if let Some(value) = slab.remove(keys[at])
                && let Some(key) = slab.insert(value)
            {
                keys[at] = key;
            }
        });
        assert_eq!(slab.len(), LIVE);
    });
    group.finish();
}

fn pipes(criterion: &mut Criterion) {
    const WANTED: u32 = 1 << 20;
    let mut group = criterion.benchmark_group("pipe");
    group.throughput(Throughput::Elements(1));
    group.bench_function("from_the_pool", |bencher| {
        let mut pool = PipePool::new(WANTED);
        bencher.iter(|| {
            if let Ok(pipe) = pool.take() {
                pool.give_back(black_box(pipe));
            }
        });
        assert_eq!(pool.len(), 1);
    });
    group.bench_function("from_the_kernel", |bencher| {
        let mut pool = PipePool::new(WANTED);
        bencher.iter(|| black_box(pool.take()).is_ok());
    });
    group.finish();
}

/// Networks of both families, of lengths as a table of routes has them.
fn networks(count: u32) -> impl Iterator<Item = NetworkRule> {
    (0..count).map(|at| {
        // Spread over the space, as drawn: an odd factor visits each value once.
        let drawn = at.wrapping_mul(2_654_435_761);
        let network = if at % 2 == 0 {
            IpNet::new_assert(Ipv4Addr::from_bits(drawn).into(), 16 + (at % 9) as u8)
        } else {
            let bits = (0x2000 << 112) | (u128::from(drawn) << 80);
            IpNet::new_assert(Ipv6Addr::from_bits(bits).into(), 32 + (at % 17) as u8)
        };
        (network, 443..=443, at)
    })
}

fn access(criterion: &mut Criterion) {
    const MANY: u32 = 100_000;
    let mut group = criterion.benchmark_group("access");
    for count in [10, MANY] {
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("look_up_in_{count}"), |bencher| {
            let networks = Networks::new(networks(count));
            let mut drawn = 1_u32;
            bencher.iter(|| {
                drawn = drawn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let ip: IpAddr = Ipv4Addr::from_bits(drawn).into();
                black_box(networks.first(ip, 443))
            });
        });
    }
    group.throughput(Throughput::Elements(u64::from(MANY)));
    group.sample_size(10);
    group.bench_function(format!("load_{MANY}"), |bencher| {
        bencher.iter(|| Networks::new(black_box(networks(MANY))));
    });
    group.finish();
}

criterion_group!(
    core,
    lanes,
    sessions,
    timers,
    slots,
    pipes,
    access,
    sizes::picks,
    sizes::accepts,
    sizes::listeners,
    sizes::start,
    reading::reading
);
criterion_main!(core);
