//! Signals that are no end (61, 65), and what must not keep one from being heeded.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use thalweg::config::Config;

use crate::kit::directory::Directory;
use crate::kit::process::Process;
use crate::kit::*;

/// Behaviour 72: a log that was renamed is begun anew, and nothing is lost between.
#[test]
fn b72_sighup_opens_the_log_anew() {
    on_every_engine(|case| {
        let directory = Directory::new();
        let (log, old) = (directory.join("log"), directory.join("log.1"));
        let server = Listener::new();
        let port = peer::Refusing::new();
        let setup = Setup::between(port.address(), server.address()).case(case);
        let setup = setup.set("log.to", format!("\"{}\"", log.display()));
        let nowhere = OpenOptions::new().write(true).open("/dev/null").unwrap();
        let forwarder = setup.stdout(nowhere).start();
        let sessions = |path: &Path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.matches("\"session_end\"").count()
        };
        let lasting = Crowd::through(&forwarder, &server, 1);
        Crowd::through(&forwarder, &server, 1).finish();
        wait_until("the record is written", PATIENCE, || sessions(&log) == 1);
        fs::rename(&log, &old).unwrap();
        forwarder.process().signal(Signal::SIGHUP);
        wait_until("the log is there again", PATIENCE, || log.exists());
        lasting.ping();
        Crowd::through(&forwarder, &server, 1).finish();
        wait_until("the record is written", PATIENCE, || sessions(&log) == 1);
        assert_eq!(sessions(&old), 1);
        lasting.finish();
        assert!(forwarder.terminate().success());
    });
}

/// Behaviour 65: SIGQUIT lets everybody finish, however often it comes.
#[test]
fn b65_sigquit_drains() {
    on_every_engine(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).case(case);
        let mut forwarder = setup.set("defaults.drain_timeout", "\"off\"").start();
        let crowd = Crowd::through(&forwarder, &server, 3);
        forwarder.process().signal(Signal::SIGQUIT);
        let line = forwarder.wait_for_line("draining: 3 sessions");
        assert!(
            line.message().ends_with("for as long as they take"),
            "{line:?}"
        );
        forwarder.process().signal(Signal::SIGQUIT);
        crowd.ping();
        crowd.finish();
        let status = forwarder.wait_for_exit(PATIENCE);
        assert_eq!(status.and_then(|status| status.code()), Some(0));
        let sessions = forwarder.sessions();
        assert!(sessions.iter().all(|it| !it.code().starts_with('K')));
    });
}

/// What has no meaning has no effect but a line; a session goes on.
#[test]
fn b65_a_signal_without_a_meaning_is_ignored_with_a_line() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        let crowd = Crowd::through(&forwarder, &server, 1);
        for signal in [
            Signal::SIGALRM,
            Signal::SIGVTALRM,
            Signal::SIGPWR,
            Signal::SIGIO,
        ] {
            forwarder.process().signal(signal);
            forwarder.wait_for_line(&format!("{} means nothing here", signal.as_str()));
            crowd.ping();
        }
        crowd.finish();
        forwarder.check_idle();
    });
}

/// Behaviour 65: each forward's own patience counts.
#[test]
fn b65_each_forward_has_a_drain_timeout_of_its_own() {
    on_every_engine(|case| {
        let server = Listener::new();
        let directory = Directory::new();
        let file = directory.join("thalweg.toml");
        let text = format!(
            "[[forward]]\nname = \"hasty\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{0}\"\n\
             drain_timeout = \"100ms\"\n\
             [[forward]]\nname = \"patient\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{0}\"\n\
             drain_timeout = \"1h\"\n",
            server.address()
        );
        fs::write(&file, text).unwrap();
        let mut forwarder = Setup::configured(&file, 2).engine(case.engine).start();
        let mut hasty = Peer::connect(forwarder.addresses()[0].parse().unwrap());
        let mut hasty_server = server.accept();
        let mut patient = Peer::connect(forwarder.addresses()[1].parse().unwrap());
        let mut patient_server = server.accept();
        forwarder.process().signal(Signal::SIGTERM);
        hasty.receive_until_end();
        hasty_server.receive_until_end();
        // Long after: the other one is what it was.
        std::thread::sleep(Duration::from_millis(300));
        patient.send(100);
        patient_server.expect(100);
        patient.close();
        patient_server.receive_until_end();
        patient_server.close();
        let status = forwarder.wait_for_exit(PATIENCE);
        assert_eq!(status.and_then(|status| status.code()), Some(0));
        let records = forwarder.wait_for_sessions(2);
        let causes: Vec<_> = records.iter().map(Record::cause).collect();
        assert!(causes.contains(&"drain_timeout"), "{causes:?}");
        assert!(!causes[1].contains("drain"), "{causes:?}");
    });
}

/// A name server that says nothing: a start waits for it, and a signal ends that.
#[test]
fn b61_a_start_that_waits_is_ended_by_a_signal() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = format!("\"{}\"", silent.local_addr().unwrap());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let setup = Setup::new("silent.test:1").set("global.dns_servers", &silent);
        let mut child = setup
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process(child.id());
        wait_until("it waits for an answer", PATIENCE, || {
            process.threads().iter().any(|name| name == "start")
        });
        process.signal(Signal::SIGUSR2);
        process.signal(signal);
        let status = poll(PATIENCE, || child.try_wait().unwrap());
        let _ = child.kill();
        assert_eq!(status.and_then(|it| it.code()), Some(0), "{signal}");
    }
}

/// A pipe without a reader as the log does not hold the start up: what is said waits in it.
#[test]
fn b61_a_pipe_as_the_log_does_not_hold_the_start_up() {
    let directory = Directory::new();
    let log = directory.join("log");
    mkfifo(&log, Mode::S_IRWXU).unwrap();
    let setup = Setup::new("127.0.0.1:1").set("log.to", format!("\"{}\"", log.display()));
    let mut child = setup.command().stdout(Stdio::null()).spawn().unwrap();
    wait_until("its reactor runs", PATIENCE, || {
        let threads = Process(child.id()).threads();
        threads.iter().any(|name| name.starts_with("reactor"))
    });
    let mut reader = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&log)
        .unwrap();
    let mut said = String::new();
    wait_until("it listens", PATIENCE, || {
        let mut some = [0; 4096];
        if let Ok(len) = reader.read(&mut some) {
            said.push_str(&String::from_utf8_lossy(&some[..len]));
        }
        said.contains("listening on")
    });
    Process(child.id()).signal(Signal::SIGTERM);
    let status = poll(PATIENCE, || child.try_wait().unwrap());
    let _ = child.kill();
    assert_eq!(status.and_then(|it| it.code()), Some(0));
}

/// Not a test: a program that embeds a forwarder on a thread of its own; see below.
#[test]
#[ignore = "acts as a program that embeds a forwarder, for another test"]
fn acts_as_a_program_that_embeds_a_forwarder() {
    let Ok(server) = std::env::var("THALWEG_TEST_EMBEDDED") else {
        return;
    };
    let text = format!(
        "[[forward]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{server}\"\n\
         [log]\nformat = \"json\"\nto = \"stderr\"\n"
    );
    let config = Config::parse(&text).unwrap();
    let forwards = std::thread::spawn(move || thalweg::control::run(&config));
    let outcome = forwards.join().unwrap();
    eprintln!("outcome {outcome:?}");
}

/// A forwarder that is embedded on another thread than the first drains as well.
#[test]
fn b65_an_embedded_forwarder_drains() {
    let server = Listener::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("process::signals::acts_as_a_program_that_embeds_a_forwarder")
        .env("THALWEG_TEST_EMBEDDED", server.address().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::sync::Arc::<log::Lines>::default();
    let reader = lines.clone().collect(child.stderr.take().unwrap());
    let address = poll(PATIENCE, || {
        lines.all().iter().find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            rest.split(' ').next()?.parse().ok()
        })
    });
    let mut client = Peer::connect(address.expect("it listens"));
    let mut upstream = server.accept();
    Process(child.id()).signal(Signal::SIGTERM);
    wait_until("it drains", PATIENCE, || {
        lines.all().iter().any(|line| line.contains("draining: 1"))
    });
    client.send(100_000);
    client.half_close();
    upstream.expect_then_eof(100_000);
    upstream.close();
    client.receive_until_end();
    let status = poll(PATIENCE, || child.try_wait().unwrap());
    let _ = child.kill();
    assert_eq!(status.and_then(|it| it.code()), Some(0));
    let _ = reader.join();
    assert!(lines.all().iter().any(|line| line.contains("outcome Ok")));
}

/// The handle of an embedded forwarder: ports, counters, and an end that is waited for.
#[test]
fn b65_a_handle_tells_ports_and_counters_and_stops() {
    let server = Listener::new();
    let text = format!(
        "[[forward]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\n\
         [log]\nlevel = \"error\"\nsessions = \"off\"\n",
        server.address()
    );
    let config = Config::parse(&text).unwrap();
    let handle = thalweg::control::start(&config).unwrap();
    let listeners = handle.listeners();
    let [(forward, address)] = listeners.as_slice() else {
        panic!("{listeners:?}")
    };
    assert_eq!(&**forward, "a");
    let mut client = Peer::connect(address.to_string().parse().unwrap());
    let mut upstream = server.accept();
    client.send(1_000);
    upstream.expect(1_000);
    assert_eq!(handle.counters().accepted, 1);
    handle.drain();
    client.half_close();
    upstream.receive_until_end();
    upstream.close();
    client.receive_until_end();
    assert!(handle.join().is_ok());
    // What cannot start says why.
    let error = thalweg::control::start(
        &Config::parse(&text.replace("127.0.0.1:0", "192.0.2.1:1")).unwrap(),
    );
    assert!(error.unwrap_err().to_string().contains("192.0.2.1"));
}

/// As the first process of a container it reaps what check commands leave behind.
#[test]
fn b31_the_first_process_reaps_what_it_inherits() {
    if !nix::unistd::geteuid().is_root() {
        return skip(&test_name(), "a namespace of processes needs root");
    }
    on_every_engine(|case| {
        let server = Listener::new();
        let directory = Directory::new();
        let file = directory.join("thalweg.toml");
        // The subshell outlives its parent, in a session of its own.
        let text = format!(
            "[[forward]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\n\
             [forward.upstream]\nservers = [\"{}\"]\n\
             check = {{ type = \"command\", command = [\"/bin/sh\", \"-c\", \"setsid sleep 0.05 & exit 0\"], \
             interval = \"100ms\" }}\n",
            server.address()
        );
        fs::write(&file, text).unwrap();
        let setup = Setup::configured(&file, 1).engine(case.engine);
        let setup = setup.wrapped(&["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        let mut child = setup
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let children = |of: u32| -> Vec<u32> {
            let path = format!("/proc/{of}/task/{of}/children");
            let text = fs::read_to_string(path).unwrap_or_default();
            text.split_whitespace()
                .filter_map(|it| it.parse().ok())
                .collect()
        };
        let first = poll(PATIENCE, || children(child.id()).first().copied());
        let first = first.expect("the forwarder");
        let stat = |of: u32| fs::read_to_string(format!("/proc/{of}/stat")).unwrap_or_default();
        let children_of_all_threads = || -> Vec<u32> {
            let tasks = fs::read_dir(format!("/proc/{first}/task"))
                .into_iter()
                .flatten();
            let each = tasks.flatten().map(|task| {
                let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                text.split_whitespace()
                    .filter_map(|it| it.parse().ok())
                    .collect::<Vec<u32>>()
            });
            each.flatten().collect()
        };
        // Orphans come by and by: their numbers go up, and none stays.
        let mut seen = std::collections::BTreeSet::new();
        wait_until("twenty children have come and gone", PATIENCE, || {
            seen.extend(children_of_all_threads());
            seen.iter().filter(|it| stat(**it).is_empty()).count() >= 20
        });
        let zombies = || {
            let all = children_of_all_threads().into_iter();
            all.filter(|it| stat(*it).contains(") Z ")).count()
        };
        wait_until("no more than those of the moment", PATIENCE, || {
            zombies() <= 3
        });
        let _ = child.kill();
        let _ = child.wait();
    });
}
