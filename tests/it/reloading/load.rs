//! Under load nobody is lost: behaviours 66, 67, 113 and 117.

use std::fmt::Write as _;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::kit::*;
use crate::kit::*;

/// Behaviour 66: everything changes that can, a hundred times.
#[test]
fn b66_a_hundred_reloads_lose_nobody() {
    for case in engines().iter().map(|engine| Case {
        engine,
        path: "auto",
    }) {
        let servers = [Echo::new(b'a'), Echo::new(b'b'), Echo::new(b'c')];
        let (fixed, moving) = (free_port(), free_port());
        let text = |turn: usize| {
            let mut text = format!(
                "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{fixed}\"\nupstream = \"pool\"\n\
                 idle_timeout = \"{}s\"\nmax_connections = {}\n",
                60 + turn,
                1_000 + turn
            );
            let listed: Vec<String> = servers
                .iter()
                .enumerate()
                .filter(|(index, _)| index % 3 != turn % 3)
                .map(|(_, it)| {
                    format!(
                        "{{ address = \"{}\", weight = {} }}",
                        it.address,
                        1 + turn % 2
                    )
                })
                .collect();
            let _ = writeln!(text, "[upstream.pool]\nservers = [{}]", listed.join(", "));
            let _ = writeln!(
                text,
                "balance = \"{}\"",
                ["round_robin", "least_conn"][turn % 2]
            );
            if turn % 2 == 1 {
                let _ = write!(
                    text,
                    "[[forward]]\nname = \"other\"\nlisten = \"127.0.0.1:{moving}\"\n\
                     upstream = \"{}\"\n",
                    servers[0].address
                );
            }
            text
        };
        let it = Reloadable::quiet(case, &text(0), 1, Some(2));
        let sockets = it.listening();
        let load = Load::begin(&[([127, 0, 0, 1], fixed).into()], 8);
        for turn in 1..=100 {
            it.reloads(&text(turn));
        }
        println!("{}:", case.engine);
        load.end_after(u64::from(RATE));
        assert_eq!(it.listening(), sockets, "the sockets are the same");
        assert!(
            it.forwarder.complaints().is_empty(),
            "{:?}",
            it.forwarder.complaints()
        );
    }
}

/// Behaviour 66: looking at a configuration while another one runs disturbs nothing.
#[test]
fn b66_a_test_of_a_configuration_drops_nothing() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let port = free_port();
        let text = format!(
            "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"{}\"\n",
            server.address
        );
        let it = Reloadable::quiet(case, &text, 1, Some(2));
        let load = Load::begin(&[([127, 0, 0, 1], port).into()], 4);
        for _ in 0..20 {
            let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_thalweg"));
            let output = check
                .args(["check", "-q", "-c"])
                .arg(&it.file)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        load.end();
    });
}

/// Behaviour 67: more reactors, fewer, more.
#[test]
fn b67_the_number_of_reactors_changes_under_load() {
    reactors_change_under_load(5, &[1, 2, 3, 2]);
}

/// Behaviour 113: reactors 2, 1, 2, a hundred times: no queue is lost.
#[test]
fn b113_reactors_come_and_go_a_hundred_times_under_load() {
    reactors_change_under_load(50, &[1, 2]);
}

fn reactors_change_under_load(times: usize, counts: &[usize]) {
    for case in engines().iter().map(|engine| Case {
        engine,
        path: "auto",
    }) {
        let server = Echo::new(b'a');
        let port = free_port();
        let text = |reactors: usize| {
            format!(
                "[global]\nreactors = {reactors}\n\
                 [[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"{}\"\n",
                server.address
            )
        };
        let it = Reloadable::quiet(case, &text(2), 1, None);
        let load = Load::begin(&[([127, 0, 0, 1], port).into()], 8);
        for turn in 0..times {
            for reactors in counts {
                it.reloads(&text(*reactors));
            }
            if turn % 5 == 0 {
                std::thread::sleep(PAUSE);
            }
        }
        println!("{}:", case.engine);
        load.end_after(u64::from(RATE / 2));
        until("the reactors that left have ended", || {
            let threads = it.forwarder.process().threads();
            threads
                .iter()
                .filter(|name| name.starts_with("reactor-"))
                .count()
                == 2
        });
        let complaints = it.forwarder.complaints();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

/// Behaviour 113: connections that wait in the queue of a reactor that leaves are served.
#[test]
fn b113_the_queue_of_a_reactor_that_leaves_is_served() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let port = free_port();
        let text = |reactors: usize| {
            format!(
                "[global]\nreactors = {reactors}\n\
                 [[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"{}\"\n",
                server.address
            )
        };
        let it = Reloadable::quiet(case, &text(2), 1, None);
        for reactors in [1, 2, 1] {
            it.forwarder.process().stop();
            let mut clients: Vec<Peer> = (0..50)
                .map(|_| Peer::connect(([127, 0, 0, 1], port).into()))
                .collect();
            it.write(&text(reactors));
            it.forwarder.process().signal(Signal::SIGHUP);
            it.forwarder.process().signal(Signal::SIGCONT);
            for client in &mut clients {
                let mut letter = [0];
                std::io::Read::read_exact(&mut client.stream(), &mut letter).unwrap();
                assert_eq!(letter, [b'a']);
            }
        }
    });
}

/// Behaviour 67: the engine itself changes, and nobody notices.
#[test]
fn b67_the_engine_changes_under_load() {
    if engines().len() < 2 {
        return skip(&test_name(), "one engine only");
    }
    let server = Echo::new(b'a');
    let port = free_port();
    let text = |engine: &str| {
        format!(
            "[global]\nreactors = 2\nengine = \"{engine}\"\n\
             [[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"{}\"\n",
            server.address
        )
    };
    let directory = directory::Directory::new();
    let file = directory.join("thalweg.toml");
    std::fs::write(&file, text("epoll")).unwrap();
    let setup = Setup::configured(&file, 1).reactors_by_file();
    let forwarder = setup.set("log.sessions", "off").start();
    let it = Reloadable {
        forwarder,
        file,
        directory,
    };
    let mut held = Peer::connect(([127, 0, 0, 1], port).into());
    let load = Load::begin(&[([127, 0, 0, 1], port).into()], 4);
    for turn in 0..20 {
        it.reloads(&text(["io_uring", "epoll"][turn % 2]));
        std::thread::sleep(PAUSE);
    }
    load.end();
    // A session of the first reactors goes on where it is.
    let mut letter = [0];
    std::io::Read::read_exact(&mut held.stream(), &mut letter).unwrap();
    held.send(1_000);
}

/// Behaviour 117: whoever asks at the same time as others is told of what he asked for.
#[test]
fn b117_each_request_is_answered_for_its_own_generation() {
    on_every_engine(|case| {
        let (server, admin) = (Echo::new(b'a'), directory::Directory::new());
        let port = free_port();
        let text = |seconds: usize| {
            format!(
                "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"{}\"\n\
                 idle_timeout = \"{seconds}s\"\n",
                server.address
            )
        };
        let it = Reloadable::with(case, &text(1), 1, Some(1), |setup| setup.admin(&admin));
        let ask = || {
            let head = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n\
                        Content-Type: application/json\r\nContent-Length: 2\r\n";
            let answer = admin::Admin::at(&admin.join("admin.sock")).send(head, "{}");
            assert_eq!(answer.status, 200, "{}", answer.body);
            answer.json()
        };
        for turn in 2..12 {
            it.write(&text(turn));
            let answers: Vec<serde_json::Value> = std::thread::scope(|scope| {
                let asked: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
                asked.into_iter().map(|it| it.join().unwrap()).collect()
            });
            // The content was there before they asked: it is what each of them got.
            let generation = |it: &serde_json::Value| it["generation"].as_u64().unwrap();
            for answer in &answers {
                assert_eq!(generation(answer), turn as u64, "{answer}");
            }
            let changed =
                |it: &&serde_json::Value| it["changes"].to_string().contains(&format!("{turn}s"));
            assert!(answers.iter().any(|it| changed(&it)), "{answers:?}");
        }
    });
}

/// Which of the contents that were written a reload has applied, each in turn.
fn applied(it: &Reloadable) -> Vec<usize> {
    let lines = it.forwarder.lines_with("reloaded: ");
    let of = |line: &Record| {
        let changes = line.json()["changes"].to_string();
        // `max_connections: 1006 becomes 1007 (live)`.
        let (_, text) = changes.split_once("becomes")?;
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()?.checked_sub(1_000)
    };
    lines.iter().filter_map(of).collect()
}

fn turn_text(port: u16, server: std::net::SocketAddr, turn: usize) -> String {
    format!(
        "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"{server}\"\n\
         max_connections = {}\n",
        1_000 + turn
    )
}

/// Behaviour 117: signals within a second, each for another content: a few reloads, never two of
/// them at once, none goes back behind one before it, and the last content is what runs. On a
/// machine that is late signals are rarer, and those that are come to ten reloads a second at the
/// most.
#[test]
fn b117_fifty_signals_in_a_second() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let port = free_port();
        let text = |turn| turn_text(port, server.address, turn);
        let it = Reloadable::quiet(case, &text(0), 1, Some(1));
        let process = it.forwarder.process();
        let at_work = || {
            let threads = process.threads();
            threads.iter().filter(|name| *name == "reload").count()
        };
        let mut most = 0;
        let since = std::time::Instant::now();
        for turn in 1..=50 {
            it.write(&text(turn));
            process.signal(Signal::SIGHUP);
            most = most.max(at_work());
            std::thread::sleep(Duration::from_millis(20));
        }
        until("the last content runs", || applied(&it).last() == Some(&50));
        let took = since.elapsed();
        // One that has told of its outcome may have a breath left.
        assert!(most <= 2, "{most} reloads at once");
        let turns = applied(&it);
        assert!(turns.is_sorted_by(|one, other| one < other), "{turns:?}");
        println!("{}: {} reloads in {took:?}", case.engine, turns.len());
        let few = match took.as_millis() {
            ..1_500 => 8,
            longer => longer as usize / 100 + 2,
        };
        assert!(turns.len() <= few, "{turns:?} in {took:?}");
        // What runs is what was written last: nothing differs any more.
        let said = it.reloads(&text(50));
        assert!(said.message().contains("nothing differs"), "{said:?}");
    });
}

/// Behaviour 117: signals that come while a reload is under way are one more after it, however
/// many they are. It is kept under way by a file that nobody has written to the end.
#[test]
fn b117_signals_while_a_reload_is_under_way_are_one_more() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let port = free_port();
        let text = |turn| turn_text(port, server.address, turn);
        let it = Reloadable::quiet(case, &text(0), 1, Some(1));
        let slow = it.directory.join("slow.toml");
        nix::unistd::mkfifo(&slow, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let process = it.forwarder.process();
        let at_work = || {
            let threads = process.threads();
            threads.iter().filter(|name| *name == "reload").count()
        };
        it.write(&format!("include = \"slow.toml\"\n{}", text(1)));
        process.signal(Signal::SIGHUP);
        // Opened as soon as somebody reads it, who then waits for its end.
        let writer = std::fs::OpenOptions::new().write(true).open(&slow).unwrap();
        for turn in 2..=50 {
            it.write(&text(turn));
            process.signal(Signal::SIGHUP);
            assert_eq!(at_work(), 1, "one at a time");
        }
        assert_eq!(applied(&it), [0; 0]);
        drop(writer);
        until("the last content runs", || applied(&it).last() == Some(&50));
        assert_eq!(applied(&it), [1, 50]);
        let said = it.reloads(&text(50));
        assert!(said.message().contains("nothing differs"), "{said:?}");
    });
}

/// Behaviour 117: who asks by `ctl` while signals gather is answered at once, for what he asked
/// for, and the signals are heard with him.
#[test]
fn b117_who_asks_does_not_wait_for_signals_to_gather() {
    on_every_engine(|case| {
        let (server, admin) = (Echo::new(b'a'), directory::Directory::new());
        let port = free_port();
        let text = |turn| turn_text(port, server.address, turn);
        let it = Reloadable::with(case, &text(0), 1, Some(1), |setup| setup.admin(&admin));
        let process = it.forwarder.process();
        for turn in 1..=10 {
            it.write(&text(turn));
            // Several of them, so that the last ones wait for more.
            for _ in 0..3 {
                process.signal(Signal::SIGHUP);
                std::thread::sleep(Duration::from_millis(2));
            }
            it.write(&text(turn + 100));
            let head = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n\
                        Content-Type: application/json\r\nContent-Length: 2\r\n";
            let answer = admin::Admin::at(&admin.join("admin.sock")).send(head, "{}");
            assert_eq!(answer.status, 200, "{}", answer.body);
            // A signal that came before may have been for the same; none comes after.
            let generation = answer.json()["generation"].clone();
            until("it is in force", || {
                applied(&it).last() == Some(&(turn + 100))
            });
            let said = it.forwarder.lines_with("reloaded: ");
            let last = said.iter().filter(|it| it.json()["changes"].is_array());
            let last = last
                .map(|it| it.json()["generation"].clone())
                .max_by_key(serde_json::Value::as_u64);
            assert_eq!(last, Some(generation));
        }
    });
}
