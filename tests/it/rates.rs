//! Byte rates: behaviours 85 and 86.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::peer::transfer;
use crate::kit::*;

/// Bytes a second, in the tests that move many.
const RATE: u64 = 4_000_000;

/// How long they measure.
const MEASURED: Duration = Duration::from_secs(2);

/// What the sockets of both legs may hold of what has passed the forwarder: received by
/// it before the time, delivered within.
const IN_BUFFERS: u64 = 256 * KIB;

/// Servers that send and take as much as they can, of each connection either.
struct Greedy {
    address: SocketAddr,
}

impl Greedy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Ends with the process of the test: it waits in accept.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let other = stream.try_clone().unwrap();
                thread::spawn(move || pour(&stream));
                thread::spawn(move || drink(&other, Instant::now() + PATIENCE));
            }
        });
        Self { address }
    }
}

/// Sends until nobody takes it.
fn pour(mut stream: &TcpStream) {
    let chunk = vec![7; 64 * 1024];
    while stream.write_all(&chunk).is_ok() {}
}

/// Reads until then; how much.
fn drink(mut stream: &TcpStream, until: Instant) -> u64 {
    let mut chunk = vec![0; 64 * 1024];
    let mut bytes = 0;
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    while Instant::now() < until {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => bytes += n as u64,
            Err(_) => {}
        }
    }
    bytes
}

/// What one session downloads in a time, and for how long it truly did.
fn download(to: SocketAddr, time: Duration) -> (u64, Duration) {
    let stream = TcpStream::connect(to).unwrap();
    let began = Instant::now();
    let bytes = drink(&stream, began + time);
    (bytes, began.elapsed())
}

/// What one session uploads, by the forwarder's record: what the kernel had taken of it
/// when it ended is handed on at the rate, too.
fn upload(forwarder: &Forwarder, to: SocketAddr, time: Duration) -> (u64, Duration) {
    let stream = TcpStream::connect(to).unwrap();
    let port = stream.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(time);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        });
        // What comes down is left where it is: each way is held back by itself.
        pour(&stream);
    });
    drop(stream);
    let record = poll(PATIENCE, || {
        let all = forwarder.sessions();
        all.into_iter()
            .find(|it| it.text("client") == port.to_string())
    });
    let record = record.expect("a record");
    let took = record.number("total_us").map(Duration::from_micros);
    (record.bytes().0, took.unwrap())
}

/// Never faster than the rate and its burst; and, if the machine lets it, not slower.
fn is_kept((bytes, took): (u64, Duration), rate: u64) -> bool {
    let most = rate as f64 * (took.as_secs_f64() + 0.1) + IN_BUFFERS as f64;
    assert!((bytes as f64) < most * 1.05, "{bytes} bytes in {took:?}");
    bytes as f64 >= rate as f64 * took.as_secs_f64() * 0.9
}

fn is_kept_in_one_of_several_runs(rate: u64, run: impl Fn() -> (u64, Duration)) {
    let mut seen = Vec::new();
    for _ in 0..10 {
        let watch = Stopwatch::start();
        let (bytes, took) = run();
        if is_kept((bytes, took), rate) {
            return;
        }
        seen.push((bytes, took, watch.taken_away()));
    }
    panic!("slower than {rate} B/s in every run: {seen:?}");
}

#[test]
fn b85_a_rate_of_each_kind_is_kept_each_way() {
    on_every_path(|case| {
        let server = Greedy::start();
        for key in ["rate_per_session", "rate_per_client", "rate"] {
            let forwarder = Setup::new(server.address)
                .case(case)
                .set(
                    &format!("defaults.{key}"),
                    "{ up = \"4MB/s\", down = \"4MB/s\" }",
                )
                .start();
            let to = forwarder.address();
            is_kept_in_one_of_several_runs(RATE, || download(to, MEASURED));
            is_kept_in_one_of_several_runs(RATE, || upload(&forwarder, to, MEASURED));
            let counters = forwarder.counters();
            let of = key.rsplit('_').next().unwrap();
            let of = if of == "rate" { "forward" } else { of };
            assert!(counters.of(&format!("held_back_{of}")) > 0, "{key}");
            let records = forwarder.sessions();
            let record = records.last().unwrap();
            assert!(record.number("held_back_us") > Some(500_000), "{record:?}");
        }
    });
}

/// Behaviour 85: over two reactors, whichever a session is on.
#[test]
fn b85_sessions_of_a_client_share_its_rate_evenly() {
    on_every_engine(|case| {
        let server = Greedy::start();
        let forwarder = Setup::new(server.address)
            .case(case)
            .reactors(2)
            .set("defaults.rate_per_client", "\"8MB/s\"")
            .start();
        let to = forwarder.address();
        let mut seen = Vec::new();
        for _ in 0..5 {
            let shares: Vec<_> = thread::scope(|scope| {
                let sessions: Vec<_> = (0..8)
                    .map(|_| scope.spawn(|| download(to, 2 * MEASURED)))
                    .collect();
                sessions.into_iter().map(|it| it.join().unwrap()).collect()
            });
            let longest = shares.iter().map(|it| it.1).max().unwrap();
            let shares: Vec<f64> = shares.iter().map(|it| it.0 as f64).collect();
            let sum: f64 = shares.iter().sum();
            let squares: f64 = shares.iter().map(|it| it * it).sum();
            let most = 8e6 * (longest.as_secs_f64() + 0.1) + 8.0 * IN_BUFFERS as f64;
            assert!(sum < most * 1.05, "{sum} in {longest:?}");
            let jain = sum * sum / (8.0 * squares);
            if jain >= 0.95 && sum >= 8e6 * longest.as_secs_f64() * 0.9 {
                return;
            }
            seen.push((jain, sum, shares));
        }
        panic!("uneven or slow in every run: {seen:?}");
    });
}

/// Behaviour 86: slower than every timeout, and to its last byte.
#[test]
fn b86_a_low_rate_keeps_moving_and_is_ended_by_no_timer() {
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.rate_per_session", "\"100B/s\"")
            .set("defaults.rate_burst", "\"1s\"")
            .set("defaults.idle_timeout", "\"300ms\"")
            .set("defaults.half_close_timeout", "\"300ms\"")
            .set("defaults.write_stall_timeout", "\"300ms\"")
            .start();
        let watch = Stopwatch::start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        client.send(300);
        upstream.send(300);
        client.half_close();
        upstream.half_close();
        upstream.expect_then_eof(300);
        client.expect_then_eof(300);
        assert!(
            watch.elapsed() >= Duration::from_millis(1_900),
            "{:?}",
            watch.elapsed()
        );
        let record = forwarder.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("--", "finished"));
        assert_eq!(record.bytes(), (300, 300));
        assert!(forwarder.counters().of("held_back_session") > 0);
        forwarder.check_idle();
    });
}

/// Behaviour 86: at a rate of which a turn comes once in many seconds.
#[test]
fn b86_a_session_that_waits_for_its_rate_costs_nothing() {
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.rate_per_session", "\"1B/s\"")
            .set("defaults.idle_timeout", "\"1s\"")
            .start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        let stuck = client.send_until_stuck(Duration::from_millis(300));
        upstream.expect(1);
        forwarder.check_quiet();
        let turns = forwarder.counters().of("turns");
        thread::sleep(Duration::from_secs(2));
        let turns = forwarder.counters().of("turns") - turns;
        assert!(
            turns < 60,
            "{turns} turns for two bytes, with {stuck} waiting"
        );
        // It is told of an end meanwhile: nobody waits for the rest of an hour's bytes.
        upstream.reset();
        let record = forwarder.wait_for_session();
        assert_eq!(record.cause(), "reset", "{record:?}");
    });
}

/// Behaviour 86: who stays below the rate is never held back.
#[test]
fn b86_a_ping_below_the_rate_is_not_held_back() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.rate_per_session", "\"1000B/s\"")
            .set("defaults.rate_per_client", "\"2kB/s\"")
            .set("defaults.rate", "\"4kB/s\"")
            .start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        for _ in 0..50 {
            client.send_byte();
            upstream.expect(1);
            upstream.send_byte();
            client.expect(1);
            thread::sleep(Duration::from_millis(2));
        }
        let counters = forwarder.counters();
        for level in ["session", "client", "forward"] {
            assert_eq!(counters.of(&format!("held_back_{level}")), 0, "{level}");
        }
        client.close();
        upstream.close();
        let record = forwarder.wait_for_session();
        assert_eq!(record.number("held_back_us"), Some(0));
    });
}

/// Each way by itself; and nobody is held back in a dry run, but counted.
#[test]
fn b85_a_rate_of_one_way_leaves_the_other_alone() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.rate_per_session", "{ down = \"1kB/s\" }")
            .start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        client.send(MIB);
        upstream.expect(MIB);
        upstream.send(2_000);
        let watch = Stopwatch::start();
        client.expect(2_000);
        assert!(watch.elapsed() >= Duration::from_millis(1_500));
        forwarder.check_quiet();
    });
}

#[test]
fn a_dry_run_of_rates_holds_nobody_back_and_counts() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.rate", "\"1B/s\"")
            .set("defaults.dry_run", true)
            .start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        transfer(&mut client, &mut upstream, MIB);
        transfer(&mut upstream, &mut client, MIB);
        assert!(forwarder.counters().of("held_back_forward") > 0);
        let record = {
            client.close();
            upstream.close();
            forwarder.wait_for_session()
        };
        assert_eq!(record.number("held_back_us"), Some(0));
        forwarder.check_idle();
    });
}
