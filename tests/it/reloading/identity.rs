//! What stays stays what it is: behaviours 111, 112, 114 and 115.

use std::fmt::Write as _;
use std::io::Read;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::kit::*;
use crate::kit::admin::Admin;
use crate::kit::directory::Directory;
use crate::kit::process::Process;
use crate::kit::*;

fn two(a: u16, b: u16, server: std::net::SocketAddr, more: &str) -> String {
    format!(
        "[[forward]]\nname = \"a\"\nlisten = \"127.0.0.1:{a}\"\nupstream = \"{server}\"\n{more}\
         [[forward]]\nname = \"b\"\nlisten = \"127.0.0.1:{b}\"\nupstream = \"{server}\"\n"
    )
}

fn letter(client: &Peer) -> u8 {
    let mut letter = [0];
    (&mut client.stream()).read_exact(&mut letter).unwrap();
    letter[0]
}

/// Behaviour 111.
#[test]
fn b111_nothing_changed_and_one_timeout_changed() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let (a, b) = (free_port(), free_port());
        let it = Reloadable::start(case, &two(a, b, server.address, ""), 2, Some(2));
        let sockets = it.listening();
        let mut clients: Vec<Peer> = [a, b]
            .map(|port| Peer::connect(([127, 0, 0, 1], port).into()))
            .into();
        for client in &clients {
            letter(client);
        }
        let said = it.reloads(&two(a, b, server.address, ""));
        assert!(
            said.message().contains("nothing differs, 0 sessions cut"),
            "{said:?}"
        );
        assert_eq!(said.number("generation"), Some(1));
        assert_eq!(it.listening(), sockets);
        let said = it.reloads(&two(a, b, server.address, "idle_timeout = \"7s\"\n"));
        assert!(
            said.message().contains("1 forward changed, 0 sessions cut"),
            "{said:?}"
        );
        assert_eq!(it.listening(), sockets);
        for client in &mut clients {
            client.send(100);
        }
        assert_eq!(it.forwarder.counters().of("accepted"), 2);
        assert_eq!(it.forwarder.counters().of("ended"), 0);
    });
}

/// Behaviour 111: a session keeps the timeout that it began with, the next one has the new.
#[test]
fn b111_a_changed_timeout_is_for_new_sessions() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let (a, b) = (free_port(), free_port());
        let it = Reloadable::start(
            case,
            &two(a, b, server.address, "idle_timeout = \"1h\"\n"),
            2,
            Some(1),
        );
        let mut old = Peer::connect(([127, 0, 0, 1], a).into());
        letter(&old);
        it.reloads(&two(a, b, server.address, "idle_timeout = \"300ms\"\n"));
        let mut new = Peer::connect(([127, 0, 0, 1], a).into());
        letter(&new);
        new.receive_until_end();
        old.send(100);
        assert_eq!(it.forwarder.wait_for_session().cause(), "idle_timeout");
    });
}

/// Behaviour 112: whoever waits at a forward that is removed is served, then the port
/// refuses; sessions go on.
#[test]
fn b112_a_removed_forward_serves_its_queue_and_its_sessions() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let (a, b) = (free_port(), free_port());
        let both = two(a, b, server.address, "drain_timeout = \"1h\"\n");
        let only_b = both[both.rfind("[[forward]]").unwrap()..].to_owned();
        let admin = Directory::new();
        let it = Reloadable::with(case, &both, 2, Some(2), |setup| setup.admin(&admin));
        let address = ([127, 0, 0, 1], a).into();
        let mut lasting = Peer::connect(address);
        letter(&lasting);
        // By which configuration a session of this client goes.
        let generation = |client: &Peer| {
            let sessions = Admin::at(&admin.join("admin.sock"))
                .get("/v1/sessions")
                .json();
            let own = client.stream().local_addr().unwrap().to_string();
            let list = sessions["sessions"].as_array().unwrap().clone();
            let its = list.into_iter().find(|it| it["client"] == own.as_str());
            its.unwrap()["generation"].as_u64().unwrap()
        };
        let current =
            || Admin::at(&admin.join("admin.sock")).get("/v1").json()["generation"].clone();
        let first = generation(&lasting);
        assert_eq!(current(), first);
        it.forwarder.process().stop();
        let clients: Vec<Peer> = (0..50).map(|_| Peer::connect(address)).collect();
        it.write(&only_b);
        it.forwarder.process().signal(Signal::SIGHUP);
        it.forwarder.process().signal(Signal::SIGCONT);
        for client in &clients {
            assert_eq!(letter(client), b'a');
        }
        until("the port refuses", || Peer::try_connect(address).is_err());
        lasting.send(100);
        let said = it.forwarder.wait_for_line("reloaded: ");
        assert!(
            said.message().contains("1 forward removed, 0 sessions cut"),
            "{said:?}"
        );
        // It comes back at the same address.
        it.reloads(&both);
        let later = Peer::connect(address);
        assert_eq!(letter(&later), b'a');
        lasting.send(100);
        assert_eq!(generation(&lasting), first);
        assert!(generation(&later) > first);
        assert_eq!(current(), generation(&later));
    });
}

/// Behaviour 112: at its limit the queue waits for room, and is served.
#[test]
fn b112_a_removed_forward_at_its_limit_serves_its_queue() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let (a, b) = (free_port(), free_port());
        let both = two(a, b, server.address, "max_connections = 1\n");
        let only_b = both[both.rfind("[[forward]]").unwrap()..].to_owned();
        let it = Reloadable::start(case, &both, 2, Some(1));
        let address = ([127, 0, 0, 1], a).into();
        let first = Peer::connect(address);
        letter(&first);
        let second = Peer::connect(address);
        it.reloads(&only_b);
        drop(first);
        assert_eq!(letter(&second), b'a');
        until("the port refuses", || Peer::try_connect(address).is_err());
    });
}

/// Behaviour 112: its sessions are cut after its own `drain_timeout`.
#[test]
fn b112_sessions_of_a_removed_forward_have_its_drain_timeout() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let (a, b) = (free_port(), free_port());
        let both = two(a, b, server.address, "drain_timeout = \"500ms\"\n");
        let only_b = both[both.rfind("[[forward]]").unwrap()..].to_owned();
        let it = Reloadable::start(case, &both, 2, Some(1));
        let mut removed = Peer::connect(([127, 0, 0, 1], a).into());
        let mut stays = Peer::connect(([127, 0, 0, 1], b).into());
        letter(&removed);
        letter(&stays);
        it.reloads(&only_b);
        removed.receive_until_end();
        assert_eq!(it.forwarder.wait_for_session().cause(), "drain_timeout");
        stays.send(100);
    });
}

/// Behaviour 114: a server that is down stays down and gets no connect, one that is marked
/// stays marked, and the counters of servers go on.
#[test]
fn b114_what_is_known_of_servers_survives() {
    on_every_engine(|case| {
        let (good, bad) = (Echo::new(b'a'), Echo::new(b'b'));
        let port = free_port();
        let down = free_port();
        let text = |more: &str, extra: &str| {
            format!(
                "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"pool\"\n{more}\
                 [upstream.pool]\nservers = [\"{}\", \"{}\"{extra}]\n\
                 check = {{ type = \"tcp\", port = {down}, interval = \"1h\", fast_interval = \"1h\" }}\n",
                good.address, bad.address
            )
        };
        // Nobody answers at the port of the checks: all are down at once.
        let it = Reloadable::start(case, &text("", ""), 1, Some(2));
        until("both are down", || {
            it.forwarder.lines_with(" is down: ").len() == 2
        });
        let third = Echo::new(b'c');
        for turn in 0..10 {
            let extra = if turn % 2 == 0 {
                format!(", {{ address = \"{}\", weight = 2 }}", third.address)
            } else {
                String::new()
            };
            it.reloads(&text(
                &format!("idle_timeout = \"{}s\"\n", 10 + turn),
                &extra,
            ));
            // With no server it is ended, maybe before its connect has returned.
            if let Ok(mut client) = Peer::try_connect(([127, 0, 0, 1], port).into())
                && turn % 2 == 1
            {
                client.receive_until_end();
            }
        }
        let served = |it: &Echo| it.served.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!((served(&good), served(&bad)), (0, 0));
        let again = it.forwarder.lines_with(" is down: ");
        let old = [good.address, bad.address].map(|it| it.to_string());
        for server in old {
            let lines = again.iter().filter(|line| line.message().contains(&server));
            assert_eq!(lines.count(), 1, "found down once: {server}");
        }
    });
}

/// Behaviour 114: connections that stand ready are still there.
#[test]
fn b114_spares_survive() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let port = free_port();
        let text = |timeout: u32| {
            format!(
                "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nidle_timeout = \"{timeout}s\"\n\
                 [forward.upstream]\nservers = [\"{}\"]\nwarm = 4\n",
                server.address
            )
        };
        let it = Reloadable::start(case, &text(1_000), 1, Some(1));
        let made = || server.served.load(std::sync::atomic::Ordering::Relaxed);
        until("the spares stand", || made() == 4);
        for turn in 1..=10 {
            it.reloads(&text(1_000 + turn));
        }
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(made(), 4, "none was made again");
    });
}

/// Rounds of a thousand reloads, of which one at least leaves nothing behind.
const ROUNDS: usize = 3;

/// What a process holds.
#[derive(Debug)]
struct Held {
    memory: u64,
    /// Sockets, ends of pipes, eventfds, others; threads.
    counts: [usize; 5],
}

impl Held {
    fn now(process: Process) -> Self {
        let descriptors = process.descriptors();
        Self {
            memory: process.memory().anonymous,
            counts: [
                descriptors.sockets,
                descriptors.pipe_ends,
                descriptors.eventfds,
                descriptors.others,
                process.threads().len(),
            ],
        }
    }

    /// The most of each, over some moments around something that is done.
    fn most(process: Process, done: impl FnOnce()) -> Self {
        let mut most = Self::now(process);
        done();
        for _ in 0..5 {
            let now = Self::now(process);
            most.memory = most.memory.max(now.memory);
            for (most, now) in most.counts.iter_mut().zip(now.counts) {
                *most = (*most).max(now);
            }
            std::thread::sleep(PAUSE);
        }
        most
    }

    /// Whether it is no more than before: of memory five in a hundred and 1 MiB.
    fn within(&self, before: &Self) -> bool {
        let counts = self.counts.iter().zip(&before.counts);
        self.memory <= before.memory + before.memory / 20 + MIB
            && counts.into_iter().all(|(now, before)| now <= before)
    }
}

/// Behaviour 115: nothing is left of a reload but what it changed.
#[test]
fn b115_many_reloads_leave_nothing_behind() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let (a, b, c) = (free_port(), free_port(), free_port());
        let text = |turn: usize| {
            let mut text = two(
                a,
                b,
                server.address,
                // Longer than all of this can take: nobody ends of it.
                &format!("idle_timeout = \"{}h\"\n", 24 + turn % 2),
            );
            if turn % 2 == 1 {
                let _ = writeln!(
                    text,
                    "[[forward]]\nname = \"c\"\nlisten = \"127.0.0.1:{c}\"\nupstream = \"{}\"",
                    server.address
                );
            }
            text
        };
        let admin = Directory::new();
        let it = Reloadable::with(case, &text(0), 2, Some(2), |setup| setup.admin(&admin));
        let at = Admin::at(&admin.join("admin.sock"));
        let reload = |turn: usize| {
            it.write(&text(turn));
            let head = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n\
                        Content-Type: application/json\r\nContent-Length: 2\r\n";
            let answer = at.send(head, "{}");
            assert_eq!(answer.status, 200, "{turn}: {}", answer.body);
        };
        let mut clients: Vec<Peer> = (0..100)
            .map(|_| Peer::connect(([127, 0, 0, 1], a).into()))
            .collect();
        for client in &clients {
            letter(client);
        }
        let process = it.forwarder.process();
        // A pool that meets its peak does not grow after that.
        for turn in 1..=100 {
            reload(turn);
        }
        // What leaks grows in every round. What was counted at a bad moment, such as the one
        // before an allocator or a pool of threads took what it keeps, does not.
        let grown = (0..ROUNDS).find_map(|round| {
            let first = 101 + round * 1_000;
            let before = Held::most(process, || reload(first));
            for turn in first + 1..first + 1_000 {
                reload(turn);
            }
            let grown = poll(PATIENCE, || {
                Held::now(process).within(&before).then_some(())
            });
            let now = Held::now(process);
            println!("{} round {round}: {before:?} became {now:?}", case.engine);
            grown
        });
        assert!(grown.is_some(), "it grew in {ROUNDS} rounds");
        for client in &mut clients {
            client.send(10);
        }
        assert_eq!(it.forwarder.counters().of("ended"), 0);
    });
}
