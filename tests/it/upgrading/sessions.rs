//! Live sessions in the next process: behaviours 123, 124, 127, 129, 130, 131 and 134.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use super::kit::*;
use crate::kit::peer::transfer;
use crate::kit::*;
use crate::reloading::kit::{Echo, Load};

/// Both ends of a session.
pub(super) struct Pair {
    pub(super) client: Peer,
    pub(super) server: Peer,
}

impl Pair {
    pub(super) fn open(it: &Upgradable, server: &Listener, number: u64) -> Self {
        let client = it.forwarder.connect().numbered_client(number);
        let server = server.accept().numbered_server(number);
        Self { client, server }
    }

    /// A message each way.
    #[track_caller]
    pub(super) fn exchange(&mut self, len: u64) {
        self.client.send(len);
        self.server.expect(len);
        self.server.send(len);
        self.client.expect(len);
    }

    /// A good end.
    #[track_caller]
    pub(super) fn end(mut self) {
        self.exchange(10);
        self.client.half_close();
        self.server.expect_then_eof(0);
        self.server.half_close();
        self.client.expect_then_eof(0);
    }
}

/// Behaviour 123: idle, half-closed either way, and with bytes that the sink does not take:
/// in a tail or in a pipe, as the data path has it.
#[test]
fn b123_sessions_go_on_in_the_next_process_whatever_they_were_at() {
    on_every_path(|case| {
        let server = Listener::new();
        let it = Upgradable::start(Setup::new(server.address()).case(case).reactors(2));
        let mut idle = Pair::open(&it, &server, 1);
        idle.exchange(1000);
        let mut fresh = Pair::open(&it, &server, 2);
        let mut upload = Pair::open(&it, &server, 3);
        upload.exchange(100);
        upload.server.half_close();
        upload.client.expect_then_eof(0);
        let mut download = Pair::open(&it, &server, 4);
        download.client.send(100);
        download.client.half_close();
        download.server.expect_then_eof(100);
        let mut stuck = Pair::open(&it, &server, 5);
        let up = stuck.client.send_until_stuck(Duration::from_millis(100));
        let down = stuck.server.send_until_stuck(Duration::from_millis(100));
        let mut process = it.serving();
        for round in 1..=3 {
            let next = it.upgrade();
            let asked = Instant::now();
            is_gone(process);
            assert!(asked.elapsed() < PATIENCE, "b123: it is gone at once");
            process = next;
            idle.exchange(100 * round);
            upload.client.send(1000);
            upload.server.expect(1000);
            download.server.send(1000);
            download.client.expect(1000);
        }
        fresh.exchange(5);
        stuck.server.expect(up);
        stuck.client.expect(down);
        for pair in [idle, fresh, stuck] {
            pair.end();
        }
        upload.client.half_close();
        upload.server.expect_then_eof(0);
        download.server.half_close();
        download.client.expect_then_eof(0);
        // One record a session, from whoever had it last.
        let records = it.forwarder.wait_for_sessions(5);
        let mut ids: Vec<_> = records.iter().map(|it| it.number("id")).collect();
        ids.sort_unstable();
        assert_eq!(records.len(), 5);
        for record in &records {
            assert_eq!(record.code(), "--", "{record:?}");
        }
    });
}

/// Behaviour 123: in full transfer both ways, over several upgrades.
#[test]
fn b123_full_transfers_lose_no_byte() {
    on_every_path(|case| {
        let server = Listener::new();
        let it = Upgradable::start(Setup::new(server.address()).case(case).reactors(2));
        let pairs: Vec<Pair> = (0..4).map(|n| Pair::open(&it, &server, n)).collect();
        std::thread::scope(|scope| {
            let transfers: Vec<_> = pairs
                .into_iter()
                .map(|mut pair| {
                    scope.spawn(move || {
                        for _ in 0..8 {
                            transfer(&mut pair.client, &mut pair.server, 4 * MIB);
                            transfer(&mut pair.server, &mut pair.client, 4 * MIB);
                        }
                        pair.end();
                    })
                })
                .collect();
            let mut process = it.serving();
            for _ in 0..4 {
                std::thread::sleep(Duration::from_millis(60));
                let next = it.upgrade();
                is_gone(process);
                process = next;
            }
            for transfer in transfers {
                transfer.join().unwrap();
            }
        });
        let records = it.forwarder.wait_for_sessions(4);
        for record in records {
            assert_eq!(record.code(), "--", "{record:?}");
            assert_eq!(record.number("bytes_up"), Some(32 * MIB + 10), "b131");
            assert_eq!(record.number("bytes_down"), Some(32 * MIB + 10), "b131");
        }
    });
}

/// Behaviour 124: a ping-pong at 1 kHz beside a hundred sessions goes on over five upgrades,
/// each answer in its turn. How long the longest gap was is told; `scripts/compare-upgrade`
/// measures it.
#[test]
fn b124_a_ping_pong_beside_a_hundred_sessions_goes_on() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let it = Upgradable::start(Setup::new(server.address).case(case).reactors(2));
        let address = it.forwarder.address();
        let mut held: Vec<Held> = (0..100).map(|_| Held::open(address)).collect();
        let done = std::sync::atomic::AtomicBool::new(false);
        let gap = std::thread::scope(|scope| {
            let ping = scope.spawn(|| {
                let mut ping = Held::open(address);
                let (mut last, mut gap) = (Instant::now(), Duration::ZERO);
                let mut number = 0_u32;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    ping.says(number.to_le_bytes());
                    number += 1;
                    gap = gap.max(last.elapsed());
                    last = Instant::now();
                    std::thread::sleep(Duration::from_millis(1));
                }
                assert!(number > 0);
                gap
            });
            let mut process = it.serving();
            for _ in 0..5 {
                let next = it.upgrade();
                is_gone(process);
                process = next;
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            ping.join().unwrap()
        });
        held.iter_mut().for_each(Held::ping);
        eprintln!("{}: longest gap {gap:?}", case.engine);
    });
}

/// Behaviour 126: whatever becomes of the new process, its sessions go on here.
#[test]
fn b126_sessions_go_on_when_the_new_process_has_them_already_and_dies() {
    on_every_path(|case| {
        let server = Listener::new();
        let it = Upgradable::start(Setup::new(server.address()).case(case));
        let mut pair = Pair::open(&it, &server, 1);
        let mut stuck = Pair::open(&it, &server, 2);
        let up = stuck.client.send_until_stuck(Duration::from_millis(100));
        let old = it.serving();
        let mut hello = super::fake::hello();
        hello["features"] = serde_json::json!(["tables", "sessions"]);
        for named in [false, true] {
            let fake = super::fake::Fake::new_process(&it.entrance());
            let labels = fake.prepare_as(&hello);
            fake.say(&serde_json::json!({ "kind": "ready", "taken": labels }));
            let heard = fake.hear("sessions");
            assert_eq!(heard.message["manifests"].as_array().unwrap().len(), 2);
            if named {
                let cookies = heard.descriptors[..].chunks(1).map(|it| {
                    let socket = std::os::fd::AsFd::as_fd(&it[0]);
                    rustix::net::sockopt::socket_cookie(socket)
                });
                let cookies: Vec<u64> = cookies.filter_map(Result::ok).collect();
                fake.say(&serde_json::json!({ "kind": "have", "cookies": cookies }));
            }
            drop(heard);
            drop(fake);
            pair.exchange(100);
            assert_eq!(it.serving(), old);
        }
        stuck.server.expect(up);
        it.upgrade();
        pair.end();
        stuck.end();
    });
}

/// Behaviour 129: from one engine to the other and back.
#[test]
fn b129_sessions_move_from_engine_to_engine() {
    if engines().len() < 2 {
        return skip(&test_name(), "there is but one engine here");
    }
    let server = Listener::new();
    let directory = directory::Directory::new();
    let file = directory.join("thalweg.toml");
    let text = |engine: &str| {
        format!(
            "[global]\nengine = \"{engine}\"\n[[forward]]\nname = \"a\"\n\
             listen = \"127.0.0.1:0\"\nupstream = \"{}\"\n",
            server.address()
        )
    };
    std::fs::write(&file, text("io_uring")).unwrap();
    let it = Upgradable::start_in(Setup::configured(&file, 1), directory);
    let mut pair = Pair::open(&it, &server, 1);
    let mut stuck = Pair::open(&it, &server, 2);
    let up = stuck.client.send_until_stuck(Duration::from_millis(100));
    for engine in ["epoll", "io_uring", "epoll", "io_uring"] {
        std::fs::write(&file, text(engine)).unwrap();
        let before = it.serving();
        let process = it.upgrade();
        is_gone(before);
        let rings = process.descriptors().rings;
        assert_eq!(rings > 0, engine == "io_uring", "{engine}: {rings} rings");
        pair.exchange(1000);
    }
    stuck.server.expect(up);
    pair.end();
    stuck.end();
}

/// Behaviour 130: who is still dialled when the other process takes over is finished by the
/// former one and follows; its first bytes arrive once.
#[test]
fn b130_a_session_that_is_being_opened_follows_when_it_is_open() {
    on_every_engine(|case| {
        let full = Listener::without_backlog();
        let filling = full.fill_accept_queue();
        let setup = Setup::new(full.address()).case(case);
        let it = Upgradable::start(setup.set("defaults.connect_timeout", "20s"));
        let mut client = it.forwarder.connect();
        client.send(1000);
        wait_until("it is being dialled", PATIENCE, || {
            it.admin().get("/metrics").sum("thalweg_connects_total") > 0.0
        });
        let old = it.serving();
        it.upgrade();
        assert!(old.is_alive(), "it has a session to finish");
        drop(filling);
        // Those that filled the queue, and then the one.
        let mut served = loop {
            let mut peer = full.accept();
            if let Ok(some @ 1..) = peer.receive_some(1) {
                peer.expect(1000 - some as u64);
                break peer;
            }
        };
        is_gone(old);
        served.send(10);
        client.expect(10);
    });
}

/// Behaviour 130: half of what its client has to say first was read; it is finished by the
/// former process and follows, and its server gets the first bytes once.
#[test]
fn b130_a_session_with_half_a_header_is_finished_and_follows() {
    on_every_engine(|case| {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let directory = directory::Directory::new();
        let file = directory.join("thalweg.toml");
        let text = format!(
            "[[forward]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\n\
             accept_proxy = {{ from = [\"127.0.0.0/8\"], timeout = \"30s\" }}\n",
            server.local_addr().unwrap()
        );
        std::fs::write(&file, text).unwrap();
        let setup = Setup::configured(&file, 1).engine(case.engine);
        let it = Upgradable::start_in(setup, directory);
        let mut client = std::net::TcpStream::connect(it.forwarder.address()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"PROXY TCP4 192.0.2.1 ").unwrap();
        wait_until("it is let in", PATIENCE, || {
            it.admin().get("/metrics").sum("thalweg_accepted_total") > 0.0
        });
        let old = it.serving();
        it.upgrade();
        assert!(old.is_alive(), "it has a session to finish");
        client.write_all(b"192.0.2.2 1234 80\r\nfirst").unwrap();
        let (mut upstream, _) = server.accept().unwrap();
        upstream.write_all(b"answer").unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap();
        is_gone(old);
        client.write_all(b" bytes").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        upstream.read_to_end(&mut all).unwrap();
        assert_eq!(String::from_utf8_lossy(&all), "first bytes");
        drop(upstream);
        let record = it.forwarder.wait_for_session();
        assert_eq!(record.text("client"), "192.0.2.1:1234", "{record:?}");
    });
}

/// Behaviour 131: the time that a session was idle counts, and its record has the sums.
#[test]
fn b131_time_and_the_record_go_on() {
    on_every_engine(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).case(case);
        let it = Upgradable::start(setup.set("defaults.idle_timeout", "4s"));
        let mut pair = Pair::open(&it, &server, 1);
        pair.exchange(100);
        let watch = Stopwatch::start();
        let idle_since = Instant::now();
        std::thread::sleep(Duration::from_secs(2));
        it.upgrade();
        pair.client.receive_until_end();
        let idle = idle_since.elapsed();
        assert!(idle >= Duration::from_millis(3900), "{idle:?}");
        let late = Duration::from_millis(900);
        assert!(
            idle.saturating_sub(watch.taken_away()) < Duration::from_secs(4) + late,
            "{idle:?}"
        );
        let record = it.forwarder.wait_for_session();
        assert_eq!(record.cause(), "idle_timeout");
        assert_eq!(record.number("id"), Some(1));
        assert_eq!(record.number("bytes_up"), Some(100));
        assert_eq!(record.number("bytes_down"), Some(100));
        assert!(record.number("total_us") >= Some(3_900_000), "{record:?}");
    });
}

/// Behaviour 134: twenty in a row, with sessions that stay and others that come and go.
#[test]
fn b134_twenty_upgrades_in_a_row_leave_nothing_behind() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let setup = Setup::new(server.address).case(case).reactors(2);
        let it = Upgradable::start(setup.set("log.sessions", "off"));
        let address = it.forwarder.address();
        let mut held: Vec<Held> = (0..100).map(|_| Held::open(address)).collect();
        let before = it.serving();
        let mut process = it.upgrade();
        is_gone(before);
        held.iter_mut().for_each(Held::ping);
        let threads = process.threads().len();
        let sockets = process.descriptors().sockets;
        let memory = process.memory().anonymous;
        let load = Load::begin(&[address], 2);
        for _ in 1..20 {
            let next = it.upgrade();
            is_gone(process);
            process = next;
            held.iter_mut().for_each(Held::ping);
        }
        load.end();
        wait_until("one process is left", PATIENCE, || {
            it.processes() == [process]
        });
        wait_until("threads are as after the first", PATIENCE, || {
            process.threads().len() <= threads
        });
        wait_until("sockets are as after the first", PATIENCE, || {
            process.descriptors().sockets <= sockets
        });
        let now = process.memory().anonymous;
        // Three tenths, and what an allocator keeps for sessions that came and went.
        let most = memory + memory * 3 / 10 + (4 << 20);
        assert!(now <= most, "{memory} bytes after the first, {now} now");
        held.iter_mut().for_each(Held::ping);
        drop(held);
    });
}
