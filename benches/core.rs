//! What a reactor does without the kernel, and what it borrows from it: a lane's
//! decisions, a session's life, timers, slots, picks of servers; pipes, and turns with
//! many listeners. One thread.
//!
//! What a turn, a session's end or a pick costs must not grow with the size of a
//! configuration: `pick`, `listeners` and `start` are measured at several.
//!
//! `cargo bench --bench core` measures, with `-- --quick` in less time;
//! `cargo test --benches` runs each once.

use std::fmt::Write;
use std::hint::black_box;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use thalweg::balance::{
    Ask, Balancer, Choice, Place, Policy, Random, Rules as PoolRules, Standing, Terms, Tried,
};
use thalweg::config::Config;
use thalweg::engine::epoll::Epoll;
use thalweg::engine::slab::Slab;
use thalweg::engine::wheel::Wheel;
use thalweg::engine::{Engine, Event as EngineEvent, SessionKey};
use thalweg::engine::{Listener, Setup};
use thalweg::net::limits;
use thalweg::net::options::{Family, Leg, SocketOptions};
use thalweg::net::pipe::PipePool;
use thalweg::relay::lane::{Lane, Next, PathPolicy};
use thalweg::relay::session::{Action, Deadlines, Event, Pumped, Readiness, Rules, Session};
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
    fill_limit: FILL,
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

const POLICIES: [(&str, Policy); 6] = [
    ("round_robin", Policy::RoundRobin),
    ("least_conn", Policy::LeastConn),
    ("p2c", Policy::PowerOfTwo),
    ("random", Policy::Random),
    ("hash", Policy::Hash),
    ("first", Policy::First),
];

/// A pool whose servers have weights of 1, 2 and 3.
fn pool(policy: Policy, servers: usize, now: Time) -> (Balancer, Vec<Standing>) {
    let names: Vec<String> = (0..servers).map(|n| format!("10.0.0.1:{n}")).collect();
    let places: Vec<Place<'_>> = names
        .iter()
        .enumerate()
        .map(|(n, name)| Place {
            name,
            weight: 1 + n as u32 % 3,
            backup: false,
            family: None,
        })
        .collect();
    let rules = PoolRules {
        policy,
        name_is_one_server: false,
        slow_start: Duration::ZERO,
    };
    let terms = Terms {
        max_connections: Some(1_000),
        active: true,
        max_fails: 1,
        fail_timeout: Duration::from_secs(10),
    };
    let members: Vec<Standing> = (0..servers).map(|_| Standing::new(&terms)).collect();
    let balancer = Balancer::new(rules, &places);
    balancer.seat(&members, now);
    (balancer, members)
}

/// A pick, and the session that goes there comes and goes: what a connection costs.
fn picks(criterion: &mut Criterion) {
    let now = Time::from_micros(1);
    let mut group = criterion.benchmark_group("pick");
    group.throughput(Throughput::Elements(1));
    for (name, policy) in POLICIES {
        for servers in [10, 1_000, 5_000] {
            let (balancer, members) = pool(policy, servers, now);
            let mut random = Random::new(1);
            let tried = Tried::default();
            group.bench_function(BenchmarkId::new(name, servers), |bencher| {
                bencher.iter(|| {
                    let ask = Ask {
                        key: random.draw(),
                        tried: &tried,
                        now,
                    };
                    let choice = balancer.pick(&members, &ask, &mut random);
                    let Choice::Server { at, .. } = black_box(choice) else {
                        panic!("every server is free, and {choice:?}");
                    };
                    let server = &members[usize::from(at)];
                    assert!(server.enter(now));
                    server.leave(now);
                });
            });
        }
    }
    group.finish();
}

/// An engine, its listeners, and the last of them.
fn listening(count: usize) -> (Epoll, TcpListener) {
    let setup = Setup {
        scratch_buffer: FILL,
        pipe_size: 1 << 20,
        buffer_limit: u64::MAX,
        busy_poll: Duration::ZERO,
        ephemeral_ports: limits::ephemeral_ports(),
    };
    let mut engine = Epoll::new(&setup, Instant::now()).expect("an engine");
    let options = Arc::new(SocketOptions::default().plan(Leg::Client));
    let mut last = None;
    for _ in 0..count {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("non-blocking");
        let fd = OwnedFd::from(socket.try_clone().expect("a descriptor"));
        let listener = Listener {
            fd,
            family: Family::V4,
            options: Arc::clone(&options),
        };
        engine.listen(listener).expect("the engine listens");
        last = Some(socket);
    }
    (engine, last.expect("at least one"))
}

/// Turns with nothing to do, and with one client: both must cost the same with thousands
/// of listeners as with one.
fn listeners(criterion: &mut Criterion) {
    let allowed = limits::raise_descriptor_limit().expect("a limit of descriptors");
    let many = 8_000.min(allowed.saturating_sub(1_000) as usize);
    let mut group = criterion.benchmark_group("listeners");
    group.throughput(Throughput::Elements(1));
    for count in [1, many] {
        let (mut engine, last) = listening(count);
        let mut events: Vec<EngineEvent> = Vec::new();
        group.bench_function(BenchmarkId::new("idle_turn", count), |bencher| {
            bencher.iter(|| {
                events.clear();
                let now = engine.now();
                engine.wait(now, &mut events).expect("a turn");
                assert!(events.is_empty());
            });
        });
        let address = last.local_addr().expect("an address");
        group.bench_function(BenchmarkId::new("turn_with_a_client", count), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let client = TcpStream::connect(address).expect("a connection");
                    let begin = Instant::now();
                    events.clear();
                    let now = engine.now();
                    engine.wait(now, &mut events).expect("a turn");
                    let Some(EngineEvent::Acceptable(key)) = events.first() else {
                        panic!("a client waits, and {events:?}");
                    };
                    let accepted = engine.accept(*key).expect("a client");
                    assert!(engine.accept(*key).is_err(), "one client only");
                    spent += begin.elapsed();
                    // The client resets, so that no port stays in TIME_WAIT.
                    let gone = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
                    gone.expect("an option");
                    drop(client);
                    drop(accepted);
                }
                spent
            });
        });
    }
    group.finish();
}

/// What of a start can be had without a process: the configuration of 8,000 forwards, and
/// an engine that listens at as many sockets.
fn start(criterion: &mut Criterion) {
    const FORWARDS: usize = 8_000;
    let mut text = String::new();
    for n in 0..FORWARDS {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "[[forward]]\nlisten = \"127.0.0.1:{}\"\nupstream = \"127.0.0.1:9\"",
            10_000 + n
        );
    }
    let mut group = criterion.benchmark_group("start");
    group.sample_size(10);
    group.throughput(Throughput::Elements(FORWARDS as u64));
    group.bench_function("configuration_of_8000_forwards", |bencher| {
        bencher.iter(|| {
            let config = Config::parse(black_box(&text)).expect("it is valid");
            assert_eq!(config.forwards.len(), FORWARDS);
        });
    });
    let (few, many) = (100, 1_000);
    for count in [few, many] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(
            BenchmarkId::new("engine_with_listeners", count),
            |bencher| {
                bencher.iter(|| black_box(listening(count)));
            },
        );
    }
    group.finish();
}

criterion_group!(
    core, lanes, sessions, timers, slots, pipes, picks, listeners, start
);
criterion_main!(core);
