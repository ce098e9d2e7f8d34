//! Targets that are full, stopped, or too large: traffic does not notice, and what
//! is missing is counted and marked (as behaviour 71 has it for the log).

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{dump, read, tapped, wait_for_closes};
use crate::kit::directory::Directory;
use crate::kit::namespace::run;
use crate::kit::peer::transfer;
use crate::kit::*;

/// Sessions of so many bytes each way, checked byte by byte.
fn sessions(forwarder: &Forwarder, listener: &Listener, count: usize, len: u64) {
    for _ in 0..count {
        let mut client = forwarder.connect();
        client.send(1);
        let mut server = listener.accept();
        server.expect(1);
        transfer(&mut client, &mut server, len - 1);
        transfer(&mut server, &mut client, len);
        client.half_close();
        server.expect_then_eof(0);
        server.half_close();
        client.expect_then_eof(0);
    }
}

#[test]
fn a_device_that_is_full_costs_only_what_is_shown() {
    on_every_engine(|case| {
        let listener = Listener::new();
        for format in ["hex", "text", "http", "pcapng"] {
            let file = Path::new("/dev/full");
            let keys = "max_bytes_per_session = \"1MiB\"";
            let forwarder = tapped(case, listener.address(), format, file, keys).start();
            sessions(&forwarder, &listener, 3, 100 * KIB);
            forwarder.wait_for_sessions(3);
            wait_until("all of it is counted", PATIENCE, || {
                forwarder.counters().of("tap_dropped_bytes") == 6 * 100 * KIB
            });
            forwarder.wait_for_line("tap /dev/full: No space left");
            forwarder.check_quiet();
            assert!(forwarder.terminate().success());
        }
    });
}

/// A pipe whose reader opens it and reads only later, or never.
fn pipe(directory: &Directory) -> (std::path::PathBuf, File) {
    let path = directory.join("pipe");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let mut options = OpenOptions::new();
    let reader = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .unwrap();
    (path, reader)
}

#[test]
fn a_reader_that_stopped_slows_nothing_and_is_told_what_it_missed() {
    on_every_engine(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let (path, reader) = pipe(&directory);
        let keys = "max_bytes_per_session = \"64MiB\"";
        let forwarder = tapped(case, listener.address(), "hex", &path, keys).start();
        // More than the pipe, the queue and the batch of the target take together.
        let len = 12 * MIB;
        sessions(&forwarder, &listener, 1, len);
        forwarder.wait_for_session();
        // A gauge: the reactor tells it when it is asked, a moment after the answer
        // at the worst. The session is over, so what it tells is all of it.
        let told = || Some(forwarder.counters().of("tap_dropped_bytes")).filter(|n| *n > 0);
        let dropped = poll(PATIENCE, told).expect("nothing was dropped");
        // From now on it reads, in a thread of its own and to the end.
        let from = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty());
        nix::fcntl::fcntl(&reader, from).unwrap();
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let reading = thread::spawn({
            let (text, mut reader) = (text.clone(), reader);
            move || {
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(n @ 1..) = reader.read(&mut bytes) {
                    text.lock().unwrap().extend_from_slice(&bytes[..n]);
                }
            }
        });
        // Far into the text, which is long: only its end is looked at.
        let ends_with = |mark: &str| {
            let text = text.lock().unwrap();
            let end = &text[text.len().saturating_sub(4096)..];
            String::from_utf8_lossy(end).contains(mark)
        };
        wait_until("it catches up", PATIENCE, || ends_with(" id=0.1 close "));
        // From here on nothing is missing.
        sessions(&forwarder, &listener, 1, 10);
        wait_until("the next one is shown", PATIENCE, || {
            ends_with(" id=0.2 close ")
        });
        assert_eq!(forwarder.counters().of("tap_dropped_bytes"), dropped);
        assert!(forwarder.terminate().success());
        reading.join().unwrap();
        let text = String::from_utf8_lossy(&text.lock().unwrap()).into_owned();
        check_marks(&text, dropped);
    });
}

/// What is shown of the first session and what is marked as missing add up.
fn check_marks(text: &str, dropped: u64) {
    let ours = |line: &&str| line.contains(" id=0.1 ");
    let number = |line: &str, key: &str| -> u64 {
        let (_, rest) = line.split_once(key).unwrap_or(("", "0"));
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
        digits.unwrap().parse().unwrap()
    };
    let mut missing = 0;
    let mut offsets = [0, 0];
    for line in text.lines().filter(ours) {
        let way = usize::from(line.contains(" down "));
        if line.contains(" missing=") || line.contains(" length=") {
            assert_eq!(number(line, "offset="), offsets[way], "{line}");
            offsets[way] += number(line, " missing=") + number(line, " length=");
            missing += number(line, " missing=");
        } else if line.contains(" close ") {
            missing += number(line, "missing_up=") + number(line, "missing_down=");
        }
    }
    assert_eq!(missing, dropped, "what is missing is not all marked");
}

#[test]
fn a_reader_that_never_reads_does_not_keep_the_process() {
    on_every_engine(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let (path, _reader) = pipe(&directory);
        let keys = "max_bytes_per_session = \"64MiB\"";
        let forwarder = tapped(case, listener.address(), "http", &path, keys).start();
        sessions(&forwarder, &listener, 20, MIB);
        forwarder.check_quiet();
        assert!(forwarder.terminate().success());
    });
}

#[test]
fn a_pipe_without_a_reader_is_an_error_with_a_remedy() {
    let (directory, listener) = (Directory::new(), Listener::new());
    let (path, reader) = pipe(&directory);
    drop(reader);
    let case = Case {
        engine: "epoll",
        path: "auto",
    };
    let refused = tapped(case, listener.address(), "hex", &path, "").try_start();
    let why = refused.unwrap_err();
    assert!(why.contains("start its reader first"), "{why}");
}

#[test]
fn the_file_system_is_full_and_later_it_is_not() {
    let name = test_name();
    // Mounts of this thread, and of what it starts, alone.
    let test = thread::Builder::new().name(name.clone());
    let inside = move || {
        let directory = Directory::new();
        let at = directory.path().to_str().unwrap();
        let private = unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|errno| errno.to_string())
            .and_then(|()| run("mount", &["--make-rprivate", "/"]))
            .and_then(|_| run("mount", &["-t", "tmpfs", "-o", "size=256k", "tmpfs", at]));
        match private {
            Ok(_) => full_file_system(&directory),
            Err(why) => skip(&name, &format!("no mount of its own: {why} (needs root)")),
        }
        let _ = run("umount", &[at]);
    };
    if let Err(panic) = test.spawn(inside).unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

fn full_file_system(directory: &Directory) {
    let (file, ballast) = (directory.join("tap"), directory.join("ballast"));
    std::fs::write(&ballast, vec![0; 240 * 1024]).unwrap();
    let listener = Listener::new();
    let case = Case {
        engine: "epoll",
        path: "auto",
    };
    let forwarder = tapped(case, listener.address(), "hex", &file, "").start();
    for _ in 0..20 {
        sessions(&forwarder, &listener, 1, 1000);
    }
    wait_until("there is no room left", PATIENCE, || {
        forwarder.counters().of("tap_dropped_bytes") > 0
    });
    std::fs::remove_file(ballast).unwrap();
    // The writer tries again in a while, and what comes until then is lost too.
    let mut last = 20;
    wait_until("it is shown again", PATIENCE, || {
        sessions(&forwarder, &listener, 1, 1000);
        last += 1;
        let id = format!("0.{last} ");
        let closes = |line: &str| line.contains(&id) && line.contains(" close code=");
        let shown = || read(&file).lines().any(closes).then_some(());
        poll(Duration::from_millis(200), shown).is_some()
    });
    assert_eq!(forwarder.wait_for_sessions(last).len(), last);
    assert!(forwarder.terminate().success());
    let text = read(&file);
    // Every line is whole: what was cut where the room ended was completed.
    for line in text.lines() {
        let whole = line.starts_with("  ") && line.ends_with('|') || line.contains(" tap ");
        assert!(whole, "{line:?}");
    }
    assert!(text.contains("lost="), "{text}");
    assert_eq!(dump::hex(&text, &format!("0.{last}"), "up").len(), 1000);
}

#[test]
fn files_are_rotated_and_so_many_are_kept() {
    on_every_engine(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        for format in ["hex", "pcapng"] {
            let file = directory.join(format);
            let keys = "rotate = { size = \"16KiB\", keep = 2 }";
            let forwarder = tapped(case, listener.address(), format, &file, keys).start();
            sessions(&forwarder, &listener, 20, 2000);
            assert!(forwarder.terminate().success());
            let names = ["", ".1", ".2"].map(|end| format!("{}{end}", file.display()));
            for name in &names {
                let bytes = std::fs::read(name).unwrap();
                // A unit is never cut: one that is larger than the rest has room in
                // the next file.
                assert!(bytes.len() <= 16 * 1024, "{name}: {}", bytes.len());
                if format == "pcapng" {
                    assert_eq!(bytes[..4], [0x0a, 0x0d, 0x0d, 0x0a], "{name}");
                } else {
                    assert!(bytes.starts_with(b"20") && bytes.ends_with(b"\n"), "{name}");
                }
            }
            assert!(!Path::new(&format!("{}.3", file.display())).exists());
        }
    });
}

/// Text goes behind what is there; packets begin anew, for a section that was cut by
/// a crash would make all that follows unreadable.
#[test]
fn a_file_is_continued_and_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, listener) = (Directory::new(), Listener::new());
    let case = Case {
        engine: "epoll",
        path: "auto",
    };
    let file = directory.join("tap");
    for _ in 0..2 {
        let forwarder = tapped(case, listener.address(), "hex", &file, "").start();
        sessions(&forwarder, &listener, 1, 10);
        assert!(forwarder.terminate().success());
    }
    wait_for_closes(&file, 2);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
