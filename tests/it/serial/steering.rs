//! Looking and steering at the sizes of the behaviours' texts: the books of 10,000 sessions
//! (142), 9,000 that are listed (143), and 5,000 that are killed at once (144). The same for
//! fewer is in `admin`.
//!
//! A process may have 20,000 descriptors on the machines that these run on. So the server of
//! the 9,000 is a process of its own, and the forwarder has 18,000 of them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use super::alone;
use crate::admin::api::{post, walk};
use crate::admin::metrics::{check_books, check_histograms, mixed, two_forwards};
use crate::admin::{Steered, steered};
use crate::kit::admin::Answer;
use crate::kit::crowd::connections_that_fit;
use crate::kit::peer::transfer;
use crate::kit::*;

/// What a reactor may be held, and an order may take, as the texts have it, many times over:
/// the forwarder is a debug build, and shares the machine with both ends.
const AT_ONCE: Duration = Duration::from_millis(100);

/// While sessions end, no scrape has a part that exceeds the whole.
fn check_scrape(steered: &Steered) {
    let metrics = steered.admin.get("/metrics");
    check_histograms(&metrics.body);
    let (begun, ended) = (
        metrics.sum("thalweg_forward_sessions_total"),
        metrics.sum("thalweg_forward_ended_total"),
    );
    assert!(ended <= begun, "{ended} of {begun} have ended");
    for family in ["thalweg_live_sessions", "thalweg_forward_live_sessions"] {
        let live = metrics.sum(family);
        // Less than nothing would be a very large number.
        assert!((0.0..=begun).contains(&live), "{family} {live} of {begun}");
    }
}

#[test]
fn b142_counters_are_those_of_ten_thousand_records() {
    const ROUNDS: usize = 3_334;
    let _alone = alone();
    on_every_engine(|case| {
        let server = Listener::new();
        let steered = steered(two_forwards(&server).case(case).reactors(2));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    check_scrape(&steered);
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            mixed(&steered, &server, ROUNDS);
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(steered.forwarder.sessions().len(), 3 * ROUNDS);
        check_books(&steered);
    });
}

/// An origin as a user starts one, which echoes.
struct Echo {
    child: Child,
    address: SocketAddr,
}

impl Echo {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(["origin", "-l", "127.0.0.1:0", "--echo", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("echo on ")?.parse().ok());
        let address = address.expect("it says where it echoes");
        Self { child, address }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn echoes(mut stream: &TcpStream) {
    stream.write_all(&[7]).unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [7]);
}

/// Not at the same time, as elsewhere: each takes most of the descriptors that there are.
fn one_by_one() -> impl Iterator<Item = Case> {
    let path = "auto";
    engines().iter().map(move |engine| Case { engine, path })
}

/// Has a session exchange bytes for as long as `work` takes: the longest round trip.
fn beside<R>(stream: &TcpStream, work: impl FnOnce() -> R) -> (Duration, R) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let bystander = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let watch = Stopwatch::start();
                echoes(stream);
                longest = longest.max(watch.allowing());
                std::thread::sleep(Duration::from_millis(1));
            }
            longest
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        (bystander.join().unwrap(), done)
    })
}

/// Who is to be slow reads so much a second.
const SLOWLY: usize = 1024;

/// Somebody takes his list at 1 KiB/s for five seconds, in which others go through theirs as
/// often as they can.
fn beside_a_slow_reader(steered: &Steered) -> Vec<Vec<serde_json::Value>> {
    let mut slow = steered.admin.connect();
    let asks = "GET /v1/sessions?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    slow.write_all(asks.as_bytes()).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..5 {
                slow.read_exact(&mut [0; SLOWLY]).unwrap();
                std::thread::sleep(Duration::from_secs(1));
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut walks = Vec::new();
        while !over.load(Ordering::Relaxed) {
            walks.push(walk(&steered.admin, 500, ""));
        }
        walks
    })
}

/// Visits are as short as the text has it, by the CPU time that each took of its reactor: however
/// busy the machine is, that is the reactor's own. They are many, for each looks at a few.
fn check_visits(before: &Answer, after: &Answer, listed: usize) {
    let since = |family: &str| after.sum(family) - before.sum(family);
    let visits = since("thalweg_visit_cpu_seconds_count");
    // Of a few sessions each: 8 at the most.
    assert!(visits >= (listed / 8) as f64, "{visits} for {listed}");
    let within = |answer: &Answer| {
        let lines = answer.body.lines().filter(|line| {
            line.starts_with("thalweg_visit_cpu_seconds_bucket") && line.contains("le=\"0.001024\"")
        });
        let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        counts.sum::<f64>()
    };
    let short = within(after) - within(before);
    // A host of virtual machines may take its time on ours.
    assert!(
        short >= 0.99 * visits,
        "{short} of {visits} took a millisecond"
    );
    // None without a turn for sessions before it.
    let turns = since("thalweg_turns_total");
    assert!(turns >= visits, "{turns} turns with {visits} visits");
}

/// Many who look at once hold a reactor no longer than one does: sessions have a turn between any
/// two visits.
#[test]
fn b143_who_looks_has_a_turn_of_his_own() {
    const LOOKERS: usize = 7;
    let _alone = alone();
    on_every_engine(|case| {
        let server = Listener::new();
        let steered = steered(Setup::new(server.address()).case(case).reactors(1));
        let _held: Vec<_> = (0..640)
            .map(|_| (steered.forwarder.connect(), server.accept()))
            .collect();
        let before = steered.admin.get("/metrics");
        std::thread::scope(|scope| {
            for _ in 0..LOOKERS {
                scope.spawn(|| {
                    for _ in 0..5 {
                        assert_eq!(walk(&steered.admin, 1000, "").len(), 640);
                    }
                });
            }
        });
        let after = steered.admin.get("/metrics");
        check_visits(&before, &after, LOOKERS * 5 * 640);
    });
}

/// What a second between two scrapes says of a session that moves much, beside thousands that do
/// not. Its receiver counts as well, before and behind each scrape, which takes its time on a busy
/// machine.
#[test]
fn b142_two_scrapes_tell_the_rate_of_a_bulk_session_among_thousands() {
    let _alone = alone();
    let sessions = connections_that_fit(4_000);
    for case in one_by_one() {
        let (server, echo) = (Listener::new(), Echo::start());
        let setup = Setup::new(echo.address).and("127.0.0.1:0", server.address());
        let steered = steered(setup.case(case).reactors(2));
        let at = |number: usize| -> SocketAddr {
            steered.forwarder.addresses()[number].parse().unwrap()
        };
        let idle: Vec<TcpStream> = (0..sessions / 2)
            .map(|_| TcpStream::connect(at(0)).unwrap())
            .collect();
        let (mut from, to) = (TcpStream::connect(at(1)).unwrap(), server.accept());
        let (over, received) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // 40 MB/s, or what the machine has time for.
                let piece = vec![7; 200_000];
                while !over.load(Ordering::Relaxed) && from.write_all(&piece).is_ok() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                drop(from.shutdown(std::net::Shutdown::Both));
            });
            scope.spawn(|| {
                let mut buffer = vec![0; 1 << 20];
                while let Ok(n @ 1..) = to.stream().read(&mut buffer) {
                    received.fetch_add(n as u64, Ordering::Relaxed);
                }
            });
            let scrape = || {
                let before = received.load(Ordering::Relaxed);
                let answer = steered.admin.get("/metrics");
                let written = answer.sum("thalweg_forward_written_bytes_total");
                (before, written, received.load(Ordering::Relaxed))
            };
            std::thread::sleep(Duration::from_millis(500));
            for _ in 0..3 {
                let first = scrape();
                std::thread::sleep(Duration::from_secs(1));
                let second = scrape();
                let told = second.1 - first.1;
                let least = second.0.saturating_sub(first.2) as f64 * 0.95;
                let most = (second.2 - first.0) as f64 * 1.05;
                assert!(
                    (least..=most).contains(&told),
                    "{told}: {first:?} {second:?}"
                );
            }
            over.store(true, Ordering::Relaxed);
        });
        drop((idle, to));
    }
}

#[test]
fn b143_nine_thousand_sessions_are_listed_once_each() {
    const SESSIONS: usize = 9_000;
    let _alone = alone();
    // Each has one end here; the forwarder has both of its own.
    let fits = connections_that_fit(SESSIONS + 8) == SESSIONS + 8;
    if !fits {
        return skip(&test_name(), "a process may not have 18,000 descriptors");
    }
    for case in one_by_one() {
        let (first, second) = (Echo::start(), Echo::start());
        let setup = Setup::new(first.address).and("127.0.0.1:0", second.address);
        let steered = steered(setup.case(case).reactors(2));
        let at: Vec<SocketAddr> = steered
            .forwarder
            .addresses()
            .iter()
            .map(|it| it.parse().unwrap())
            .collect();
        let bystander = TcpStream::connect(at[0]).unwrap();
        // A third of them by the second forward.
        let clients: Vec<TcpStream> = (0..SESSIONS)
            .map(|number| TcpStream::connect(at[usize::from(number % 3 == 2)]).unwrap())
            .collect();
        for client in &clients {
            echoes(client);
        }
        let before = steered.admin.get("/metrics");
        let (longest, walks) = beside(&bystander, || beside_a_slow_reader(&steered));
        assert!(
            longest < AT_ONCE,
            "a round trip took {longest:?} beside the walk"
        );
        for walk in &walks {
            assert_eq!(walk.len(), SESSIONS + 1);
        }
        check_visits(
            &before,
            &steered.admin.get("/metrics"),
            walks.len() * SESSIONS,
        );
        let found = &walks[0];
        // A port of a client may be that of two, each at another forward.
        let mut seen: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for session in found {
            let [client, listener] = ["client", "listener"].map(|it| session[it].as_str().unwrap());
            *seen.entry((client, listener)).or_default() += 1;
        }
        assert_eq!(seen.len(), SESSIONS + 1);
        for client in &clients {
            let [client, listener] =
                [client.local_addr(), client.peer_addr()].map(|it| it.unwrap().to_string());
            assert_eq!(seen.get(&(&*client, &*listener)), Some(&1), "{client}");
        }
        let of_server = |server: &Echo| {
            let filter = format!("&server={}", server.address);
            walk(&steered.admin, 1000, &filter).len()
        };
        assert_eq!(of_server(&second), SESSIONS / 3);
        assert_eq!(of_server(&first), SESSIONS - SESSIONS / 3 + 1);
        let one = format!("&client={}", clients[4_321].local_addr().unwrap());
        let one = format!("{one}&server={}", first.address);
        assert_eq!(walk(&steered.admin, 1000, &one).len(), 1);
        assert_eq!(walk(&steered.admin, 1000, "&min_age=3600").len(), 0);
        for client in &clients {
            echoes(client);
        }
    }
}

#[test]
fn b144_five_thousand_are_killed_at_once_and_nobody_waits() {
    let _alone = alone();
    let sessions = connections_that_fit(5_000);
    for case in one_by_one() {
        let (server, echo) = (Listener::new(), Echo::start());
        let doomed = server.address();
        let setup = Setup::new(doomed).and("127.0.0.1:0", echo.address);
        let steered = steered(setup.case(case).reactors(2));
        let other: SocketAddr = steered.forwarder.addresses()[1].parse().unwrap();
        let bystander = TcpStream::connect(other).unwrap();
        let mut crowd = Crowd::through(&steered.forwarder, &server, sessions);
        let kill = |order: serde_json::Value| {
            let watch = Stopwatch::start();
            let killed = post(&steered.admin, "/v1/sessions/kill", &order, "").json();
            (killed["killed"].as_u64(), watch.allowing())
        };
        // By its id, and by what it is, among as many others.
        let mut one = crowd.clients.remove(1);
        let mut its_server = crowd.servers.remove(1);
        let filter = format!("&client={}", one.local());
        let id = walk(&steered.admin, 10, &filter)[0]["id"].clone();
        let (killed, took) = kill(json!({ "ids": [id] }));
        assert_eq!(killed, Some(1));
        assert!(took < AT_ONCE, "by its id: {took:?}");
        assert_eq!(
            (one.receive_until_end(), its_server.receive_until_end()),
            (End::Reset, End::Reset)
        );
        let mut one = crowd.clients.remove(2);
        let mut its_server = crowd.servers.remove(2);
        let (killed, took) = kill(json!({ "filter": { "client": one.local().to_string() } }));
        assert_eq!(killed, Some(1));
        assert!(took < AT_ONCE, "by a filter: {took:?}");
        assert_eq!(
            (one.receive_until_end(), its_server.receive_until_end()),
            (End::Reset, End::Reset)
        );
        let (client, server) = (&mut crowd.clients[3], &mut crowd.servers[3]);
        transfer(client, server, KIB);

        let order = json!({ "filter": { "server": doomed.to_string() } });
        let (longest, (killed, _)) = beside(&bystander, || kill(order));
        assert_eq!(killed, Some(sessions as u64 - 2));
        assert!(longest < AT_ONCE, "a round trip took {longest:?} meanwhile");
        for peer in crowd.clients.iter_mut().chain(&mut crowd.servers) {
            assert_eq!(peer.receive_until_end(), End::Reset);
        }
        echoes(&bystander);
        let metrics = steered.admin.get("/metrics");
        let live = metrics.sum("thalweg_live_sessions");
        assert!((live - 1.0).abs() < f64::EPSILON, "{live} live");
    }
}
