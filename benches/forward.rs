//! Loopback forwarding in one process: a client, a reactor on the epoll engine,
//! a server, each a thread of its own, every leg on cubic. By data path, and
//! without a forwarder for comparison. All threads share one core, so that work
//! is compared and not where the scheduler happened to place it.
//!
//! | group | what one iteration is |
//! | --- | --- |
//! | `bulk` | 16 MiB from client to server, acknowledged by a byte |
//! | `request_response` | 64 bytes there and back on an open connection |
//! | `connection` | connect, 64 bytes there and back, close |
//!
//! These compare data paths with each other, on a machine that does nothing
//! else. How the forwarder compares with others is what `thalweg bench` tells.
//!
//! `cargo bench --bench forward` measures, with `-- --quick` in less time;
//! `cargo test --benches` runs each once.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use socket2::{Domain, SockRef, Socket, Type};

use thalweg::config::{LogFormat, LogLevel, LogTarget, SessionLog};
use thalweg::engine;
use thalweg::engine::epoll::Epoll;
use thalweg::net::address::{Address, Endpoint};
use thalweg::net::limits;
use thalweg::net::listener;
use thalweg::net::options::{Family, Leg, SocketOptions};
use thalweg::observe::books::ForwardBooks;
use thalweg::observe::counters::Counters;
use thalweg::observe::log::{Log, LogWriter};
use thalweg::reactor::{Forward, Gate, Listener, Reactor, Setup, UpstreamSetup};
use thalweg::relay::ending::Cause;
use thalweg::relay::id::{ForwardId, ListenerId, PoolId};
use thalweg::relay::lane::PathPolicy;
use thalweg::relay::session::{Close, Deadlines, Rules};

const SCRATCH: u32 = 256 * 1024;
const BULK: usize = 16 * 1024 * 1024;
const MESSAGE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);

/// The routes a connection can take to the server.
const ROUTES: [(&str, Option<PathPolicy>); 4] = [
    ("direct", None),
    ("copy", Some(PathPolicy::Copy)),
    ("splice", Some(PathPolicy::Splice)),
    ("auto", Some(PathPolicy::Auto)),
];

fn bulk(criterion: &mut Criterion) {
    on_one_core();
    let mut group = criterion.benchmark_group("bulk");
    group.throughput(Throughput::Bytes(BULK as u64));
    for (name, path) in ROUTES {
        let server = Server::start(sink);
        let route = Route::new(server.address, path);
        let mut client = connect(route.address);
        let bytes = vec![7; 256 * 1024];
        let mut answer = [0];
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..BULK / bytes.len() {
                    client.write_all(&bytes).expect("the server takes it");
                }
                client.read_exact(&mut answer).expect("the server answers");
            });
        });
    }
    group.finish();
}

fn request_response(criterion: &mut Criterion) {
    on_one_core();
    let mut group = criterion.benchmark_group("request_response");
    group.throughput(Throughput::Elements(1));
    for (name, path) in ROUTES {
        let server = Server::start(echo);
        let route = Route::new(server.address, path);
        let mut client = connect(route.address);
        group.bench_function(name, |bencher| bencher.iter(|| exchange(&mut client)));
    }
    group.finish();
}

fn connection(criterion: &mut Criterion) {
    on_one_core();
    let mut group = criterion.benchmark_group("connection");
    group.throughput(Throughput::Elements(1));
    for (name, path) in ROUTES {
        let server = Server::start(answer_once);
        let route = Route::new(server.address, path);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut client = connect(route.address);
                exchange(&mut client);
                // The server ends first: what stays in TIME-WAIT is its port, not
                // one of those that connects take.
                assert_eq!(client.read(&mut [0]).expect("an orderly end"), 0);
            });
        });
    }
    group.finish();
}

/// Pins this thread, and so every thread it starts from now on.
fn on_one_core() {
    let pinned = limits::allowed_cpus().pop().map(limits::pin_to_cpu);
    assert!(matches!(pinned, Some(Ok(()))), "{pinned:?}");
}

fn exchange(client: &mut TcpStream) {
    let mut message = [7; MESSAGE];
    client.write_all(&message).expect("the server takes it");
    client.read_exact(&mut message).expect("the server answers");
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // Where cubic is not to be had, every leg has the same other one.
    let _ = socket.set_tcp_congestion(b"cubic");
    socket
        .connect_timeout(&address.into(), PATIENCE)
        .expect("somebody listens");
    let client = TcpStream::from(socket);
    client.set_nodelay(true).expect("TCP_NODELAY");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client
}

/// A server that serves each connection by `serve`, on a thread of its own.
struct Server {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(serve: fn(TcpStream)) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let _ = SockRef::from(&listener).set_tcp_congestion(b"cubic");
        let address = listener.local_addr().expect("its address");
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        let thread = std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let _ = client.set_nodelay(true);
                serve(client);
            }
        });
        Self {
            address,
            stopping,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers every [`BULK`] bytes with one.
fn sink(mut client: TcpStream) {
    let mut buffer = vec![0; 256 * 1024];
    let mut taken = 0;
    while let Ok(n @ 1..) = client.read(&mut buffer) {
        taken += n;
        if taken >= BULK {
            taken -= BULK;
            if client.write_all(&[1]).is_err() {
                return;
            }
        }
    }
}

fn echo(mut client: TcpStream) {
    let mut buffer = [0; MESSAGE];
    while let Ok(n @ 1..) = client.read(&mut buffer) {
        if client.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

fn answer_once(mut client: TcpStream) {
    let mut message = [0; MESSAGE];
    if client.read_exact(&mut message).is_ok() {
        let _ = client.write_all(&message);
    }
}

/// The way to a server: straight, or through a reactor.
struct Route {
    address: SocketAddr,
    reactor: Option<Forwarder>,
}

impl Route {
    fn new(server: SocketAddr, path: Option<PathPolicy>) -> Self {
        match path {
            None => Self {
                address: server,
                reactor: None,
            },
            Some(path) => {
                let (address, reactor) = Forwarder::start(server, path);
                Self {
                    address,
                    reactor: Some(reactor),
                }
            }
        }
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        if let Some(reactor) = self.reactor.take() {
            reactor.stop();
        }
    }
}

/// A reactor on its own thread, put together as `control` does.
struct Forwarder {
    stopping: Arc<AtomicBool>,
    waker: mio::Waker,
    thread: JoinHandle<()>,
    log: LogWriter,
}

impl Forwarder {
    fn start(server: SocketAddr, path: PathPolicy) -> (SocketAddr, Self) {
        let options = SocketOptions {
            congestion: Some("cubic".into()),
            ..SocketOptions::default()
        };
        let any_port = Address::Inet((Ipv4Addr::LOCALHOST, 0).into());
        let mut bound = listener::bind(&any_port, &options, 1).expect("a port");
        let socket = bound.take_share(0).pop().expect("one listener");
        let Endpoint::Inet(address) = socket.local else {
            unreachable!("an inet listener has an inet address")
        };
        let listener = engine::Listener {
            fd: Arc::new(socket.fd),
            options: Arc::new(options.plan(Leg::Client)),
            family: Family::V4,
        };
        let (log, log_writer) = Log::start(LogLevel::Error, LogFormat::Text, &LogTarget::Stderr)
            .expect("a thread for the log");
        let (setup, at) = setup(server, address, path, &options, log);
        let stopping = Arc::new(AtomicBool::new(false));
        let (stop, (ready, started)) = (stopping.clone(), channel());
        let thread = std::thread::spawn(move || {
            let engine = Epoll::new(&engine_setup(), Instant::now());
            let engine = engine.expect("an engine");
            let waker = engine.waker().expect("a waker");
            let mut reactor = Reactor::new(engine, setup);
            reactor.add_listener(listener, at).expect("a listener");
            ready.send(waker).expect("somebody waits for it");
            while !stop.load(Ordering::Relaxed) {
                reactor.turn().expect("epoll_wait works");
            }
            reactor.cut_all(Cause::Stopped);
        });
        let waker = started.recv().expect("the reactor starts");
        let reactor = Self {
            stopping,
            waker,
            thread,
            log: log_writer,
        };
        (address, reactor)
    }

    fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.waker.wake();
        let _ = self.thread.join();
        self.log.finish(PATIENCE);
    }
}

fn engine_setup() -> engine::Setup {
    engine::Setup {
        scratch_buffer: SCRATCH,
        pipe_size: 1 << 20,
        buffer_limit: 256 << 20,
        busy_poll: engine::BusyPoll::NEVER,
        ephemeral_ports: limits::ephemeral_ports(),
    }
}

fn setup(
    server: SocketAddr,
    address: SocketAddr,
    path: PathPolicy,
    options: &SocketOptions,
    log: Log,
) -> (Setup, Arc<Listener>) {
    let rules = Rules {
        deadlines: Deadlines {
            connect: PATIENCE,
            idle: Duration::MAX,
            half_close: PATIENCE,
            write_stall: Duration::MAX,
        },
        attempts_max: 1,
        retry: Duration::MAX,
        queue: PATIENCE,
        opening: None,
        path,
        turn_away: Close::Reset,
        fill_limits: [SCRATCH; 2],
    };
    let pool = PoolId::new(0);
    let forward = Forward {
        id: ForwardId::new(0),
        name: "bench".into(),
        rules,
        pool,
        gate: None,
        clients: None,
        books: Arc::new(ForwardBooks::new(1)),
        steps: [].into(),
        request: [].into(),
        datagrams: None,
        announced: false,
        routing: None,
        pilot: None,
        route: None,
        generation: 0,
    };
    let plan = options.plan(Leg::Upstream);
    let address = Endpoint::Inet(address);
    let listener = Listener::new(ListenerId::new(0), address, Arc::new(forward));
    let setup = Setup {
        reactor: 0,
        pools: [(pool, UpstreamSetup::single(Endpoint::Inet(server), plan))].into(),
        gate: Arc::new(Gate::new(1000)),
        flows: Arc::new(Gate::new(1000)),
        homes: Arc::default(),
        own: Arc::default(),
        counters: Arc::new(Counters::default()),
        log,
        session_log: SessionLog::Off.into(),
        taps: BTreeMap::new(),
        decider: None,
    };
    (setup, listener)
}

criterion_group!(forward, bulk, request_response, connection);
criterion_main!(forward);
