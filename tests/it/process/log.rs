//! The log where it cannot be written, and what it must not let through: behaviours
//! 71 and 72.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::kit::directory::Directory;
use crate::kit::namespace::run;
use crate::kit::peer::Refusing;
use crate::kit::*;

/// A forwarder whose log goes elsewhere, on a port that was reserved for it.
fn start(server: &Listener, stdout: File, arguments: &[&str]) -> Forwarder {
    let port = Refusing::new();
    let setup = Setup::between(port.address(), server.address()).stdout(stdout);
    let add = |setup: Setup, argument: &&str| setup.argument(argument);
    arguments.iter().fold(setup, add).start()
}

/// Sessions that come and go, and one that lives all the while.
fn check_forwarding(forwarder: &Forwarder, server: &Listener, sessions: usize) {
    let lasting = Crowd::through(forwarder, server, 1);
    for n in 0..sessions {
        Crowd::through(forwarder, server, 1).finish();
        if n % 100 == 0 {
            lasting.ping();
        }
    }
    lasting.finish();
    wait_until("all sockets are closed", PATIENCE, || {
        forwarder.process().descriptors().sockets <= 1
    });
    forwarder.check_quiet();
}

/// How many entries the log says it lost.
fn lost(text: &str) -> usize {
    let losses = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once("the log lost ")?;
        rest.split_whitespace().next()?.parse::<usize>().ok()
    });
    losses.sum()
}

/// Every whole line is an entry of its own, whatever was lost around it.
#[track_caller]
fn check_lines(text: &str) {
    for line in text.lines() {
        let parsed = serde_json::from_str::<serde_json::Value>(line);
        assert!(parsed.is_ok(), "not an entry: {line}");
    }
}

/// How many entries it says it lost, so far.
fn told_lost(forwarder: &Forwarder) -> usize {
    let lines = forwarder.lines_with("the log lost").into_iter();
    lines.map(|line| lost(line.message())).sum()
}

/// Behaviour 71: nobody reads from the pipe; the reader is stopped, not gone.
#[test]
fn b71_the_reader_of_stdout_is_stopped() {
    let (reader, writer) = std::io::pipe().unwrap();
    let server = Listener::new();
    let mut forwarder = start(&server, OwnedFd::from(writer).into(), &[]);
    // The pipe takes about a hundred records, the queue 2048.
    let sessions = 3_000;
    check_forwarding(&forwarder, &server, sessions - 1);
    forwarder.read_log(reader);
    forwarder.wait_for_line("the log lost");
    // Every line is an entry, or this panics.
    let (kept, lost) = (forwarder.sessions().len(), told_lost(&forwarder));
    assert!(lost > 0, "nothing was lost");
    assert_eq!(kept + lost, sessions, "{kept} kept, {lost} lost");
    let told = forwarder.counters().of("log_dropped");
    assert_eq!(told, lost as u64);
    assert!(forwarder.terminate().success());
}

/// Behaviour 71: the reader is gone, and another one comes.
#[test]
fn b71_the_reader_of_stdout_is_gone() {
    let directory = Directory::new();
    let path = directory.join("log");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        options.open(&path).unwrap()
    };
    let reader = open();
    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    let server = Listener::new();
    let mut forwarder = start(&server, writer, &[]);
    drop(reader);
    check_forwarding(&forwarder, &server, 9);
    // Whatever was due has failed by now: the writer is never more than a few
    // milliseconds behind.
    thread::sleep(Duration::from_millis(200));
    let reader = open();
    make_blocking(&reader);
    forwarder.read_log(reader);
    assert_eq!(forwarder.counters().of("log_dropped"), 10);
    forwarder.wait_for_line("the log lost");
    assert_eq!(told_lost(&forwarder), 10);
    assert!(forwarder.terminate().success());
}

/// From now on reads wait.
fn make_blocking(file: &File) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(file, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
}

/// Behaviour 71: descriptor 1 is closed from the beginning.
#[test]
fn b71_stdout_is_closed() {
    let server = Listener::new();
    let port = Refusing::new();
    let closing = ["sh", "-c", "exec \"$0\" \"$@\" >&-"];
    let forwarder = Setup::between(port.address(), server.address())
        .stdout(null())
        .wrapped(&closing)
        .start();
    check_forwarding(&forwarder, &server, 10);
    assert!(forwarder.terminate().success());
}

fn null() -> File {
    OpenOptions::new().write(true).open("/dev/null").unwrap()
}

/// Behaviour 71: a device that is always full, as standard output and as a file.
#[test]
fn b71_dev_full() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let server = Listener::new();
    let forwarder = start(&server, full(), &[]);
    check_forwarding(&forwarder, &server, 10);
    assert!(forwarder.terminate().success());
    let forwarder = start(&server, null(), &["--log-to", "/dev/full"]);
    check_forwarding(&forwarder, &server, 10);
    assert!(forwarder.terminate().success());
}

/// Behaviour 71: the file system is full, and later it is not.
#[test]
fn b71_the_file_system_is_full() {
    let name = test_name();
    // Mounts of this thread, and of what it starts, alone.
    let test = thread::Builder::new().name(name.clone());
    let inside = move || {
        let directory = Directory::new();
        let at = directory.path().to_str().unwrap();
        let private = unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|errno| errno.to_string())
            .and_then(|()| run("mount", &["--make-rprivate", "/"]))
            .and_then(|_| run("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs", at]));
        match private {
            Ok(_) => full_file_system(directory.path()),
            Err(why) => skip(&name, &format!("no mount of its own: {why} (needs root)")),
        }
        // The mount goes with the namespace, and that with this thread and the
        // forwarder.
        let _ = run("umount", &[at]);
    };
    if let Err(panic) = test.spawn(inside).unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

fn full_file_system(directory: &Path) {
    let (log, ballast) = (directory.join("log"), directory.join("ballast"));
    // Room for a few records.
    std::fs::write(&ballast, vec![0; 56 * 1024]).unwrap();
    let server = Listener::new();
    let log_to = log.to_str().unwrap();
    let forwarder = start(&server, null(), &["--log-to", log_to]);
    check_forwarding(&forwarder, &server, 99);
    let text = || std::fs::read_to_string(&log).unwrap();
    wait_until("there is no room left", PATIENCE, || {
        text().len() >= 4096 && text().len() % 4096 == 0
    });
    std::fs::remove_file(ballast).unwrap();
    check_forwarding(&forwarder, &server, 9);
    assert!(forwarder.terminate().success());
    let text = text();
    // One entry was cut where the room ended, and is lost; it spoils no other.
    let whole = |line: &&str| serde_json::from_str::<serde_json::Value>(line).is_ok();
    let (entries, cut): (Vec<&str>, Vec<&str>) = text.lines().partition(whole);
    assert!(cut.len() <= 1, "{cut:?}");
    let record = |line: &&&str| line.contains("\"kind\":\"session_end\"");
    let (kept, lost) = (entries.iter().filter(record).count(), lost(&text));
    assert!(lost > 0, "nothing was lost");
    assert_eq!(kept + lost, 110, "{kept} kept, {lost} lost");
}

/// Behaviour 72: a name that steers a terminal and forges a line.
#[test]
fn b72_control_bytes_are_escaped() {
    let directory = Directory::new();
    let evil = "a\r\n2030-01-01T00:00:00.000Z INFO forged\u{1b}[2J\u{7f}\u{9b}b";
    let path = directory.join(evil);
    let listen = format!("unix:{}", path.display());
    for format in ["text", "json"] {
        let log = directory.join(format);
        let missing = format!("unix:{}", directory.join("x\u{8}\ty").display());
        let forwarder = Setup::between(&listen, missing)
            .stdout(File::create(&log).unwrap())
            .set("log.format", format)
            .set("log.sessions", "all")
            .start();
        for _ in 0..3 {
            drop(std::os::unix::net::UnixStream::connect(&path).unwrap());
        }
        wait_until("three sessions have ended", PATIENCE, || {
            std::fs::read_to_string(&log)
                .unwrap()
                .matches("attempts")
                .count()
                >= 3
        });
        assert!(forwarder.terminate().success());
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.contains("forged"), "the name is not there: {text}");
        let steers = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(steers), "{text:?}");
        let forged = |line: &&str| line.starts_with("2030");
        assert_eq!(text.lines().filter(forged).count(), 0, "{text}");
        if format == "json" {
            check_lines(&text);
        }
    }
}
