//! What a turn or a pick costs must not grow with the size of a configuration: each is
//! measured at several sizes.

use std::fmt::Write;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};

use thalweg::balance::{
    Ask, Balancer, Choice, Place, Policy, Random, Rules, Standing, Terms, Tried,
};
use thalweg::config::Config;
use thalweg::engine::epoll::Epoll;
use thalweg::engine::{BusyPoll, Engine, Event, Listener, Setup};
use thalweg::net::limits;
use thalweg::net::options::{Family, Leg, SocketOptions};
use thalweg::policy::client::Client;
use thalweg::policy::shares::{Places, Shares};
use thalweg::relay::id::ForwardId;
use thalweg::relay::time::Time;

use super::FILL;

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
    let rules = Rules {
        policy,
        name_is_one_server: false,
        slow_start: Duration::ZERO,
    };
    let terms = Terms {
        max_connections: Some(1_000),
        connect_rate: None,
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
pub(super) fn picks(criterion: &mut Criterion) {
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
        busy_poll: BusyPoll::NEVER,
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
            fd: fd.into(),
            family: Family::V4,
            options: Arc::clone(&options),
        };
        engine.listen(listener).expect("the engine listens");
        last = Some(socket);
    }
    (engine, last.expect("at least one"))
}

/// What shares of places cost a client that comes and goes: nothing while there are plenty, and
/// when they are short it is looked for among those who are known and has a line in the books.
/// By itself, and together with what the kernel has to do for the accept.
pub(super) fn accepts(criterion: &mut Criterion) {
    const FORWARD: ForwardId = ForwardId::new(0);
    let now = Time::from_micros(1);
    let mut group = criterion.benchmark_group("accept");
    group.throughput(Throughput::Elements(1));
    let (mut engine, listener) = listening(1);
    let mut random = Random::new(1);
    for clients in [0, 1, 1_000, 100_000_u32] {
        // Of none that is known: nothing is short, and there are no books.
        let mut books = (clients > 0).then(|| {
            let mut books = Shares::new(1);
            (0..clients).for_each(|n| books.enter(n, FORWARD, client(n), Some(now)));
            books
        });
        let places = Places {
            max: 33 * clients,
            free: clients,
            kept: 0,
        };
        let mut next = clients;
        let mut comes_and_goes = || {
            let Some(books) = &mut books else { return };
            next += 1;
            let who = client(random.draw() as u32 % (2 * clients));
            let may = books.may_enter(who, None, places)
                && books.may_enter(who, Some(FORWARD), places)
                && books.may_grow(FORWARD, places);
            assert!(black_box(may), "there are places for all");
            books.enter(next, FORWARD, who, Some(now));
            books.leave(next);
        };
        group.bench_function(BenchmarkId::new("books", clients), |bencher| {
            bencher.iter(&mut comes_and_goes);
        });
        group.bench_function(BenchmarkId::new("with_books", clients), |bencher| {
            bencher.iter_custom(|rounds| {
                let accepts =
                    (0..rounds).map(|_| accept(&mut engine, &listener, &mut comes_and_goes));
                accepts.sum()
            });
        });
    }
    group.finish();
}

fn client(number: u32) -> Client {
    Client::from(Some(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number))))
}

/// How long a turn takes in which a client comes, and `more` is done for it.
fn accept(engine: &mut Epoll, listener: &TcpListener, mut more: impl FnMut()) -> Duration {
    let address = listener.local_addr().expect("an address");
    let client = TcpStream::connect(address).expect("a connection");
    let begin = Instant::now();
    let mut events: Vec<Event> = Vec::new();
    let now = engine.now();
    engine.wait(now, &mut events).expect("a turn");
    let Some(Event::Acceptable(key)) = events.first() else {
        panic!("a client waits, and {events:?}");
    };
    let accepted = engine.accept(*key).expect("a client");
    assert!(engine.accept(*key).is_err(), "one client only");
    more();
    let spent = begin.elapsed();
    // The client resets, so that no port stays in TIME_WAIT.
    let gone = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
    gone.expect("an option");
    drop(client);
    drop(accepted);
    spent
}

/// Turns with nothing to do, and with one client: both must cost the same with thousands
/// of listeners as with one.
pub(super) fn listeners(criterion: &mut Criterion) {
    let allowed = limits::raise_descriptor_limit().expect("a limit of descriptors");
    let many = 8_000.min(allowed.saturating_sub(1_000) as usize);
    let mut group = criterion.benchmark_group("listeners");
    group.throughput(Throughput::Elements(1));
    for count in [1, many] {
        let (mut engine, last) = listening(count);
        let mut events: Vec<Event> = Vec::new();
        group.bench_function(BenchmarkId::new("idle_turn", count), |bencher| {
            bencher.iter(|| {
                events.clear();
                let now = engine.now();
                engine.wait(now, &mut events).expect("a turn");
                assert!(events.is_empty());
            });
        });
        group.bench_function(BenchmarkId::new("turn_with_a_client", count), |bencher| {
            bencher
                .iter_custom(|rounds| (0..rounds).map(|_| accept(&mut engine, &last, || {})).sum());
        });
    }
    group.finish();
}

/// What of a start can be had without a process: the configuration of 8,000 forwards, and
/// an engine that listens at as many sockets.
pub(super) fn start(criterion: &mut Criterion) {
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
