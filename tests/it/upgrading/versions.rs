//! Other versions, and whatever else may be at the other end: behaviours 126 and 128.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::json;

use super::fake::*;
use super::kit::*;
use crate::kit::*;
use crate::reloading::kit::Echo;

/// Behaviour 128: one that speaks no version that this one speaks is told so.
#[test]
fn b128_a_process_of_another_age_is_refused_with_the_reason() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let it = Upgradable::start(Setup::new(server.address).case(case));
        let old = it.serving();
        let fake = Fake::new_process(&it.entrance());
        let mut later = hello();
        later["protocol"] = json!(9);
        later["oldest"] = json!(8);
        fake.say(&later);
        let reason = fake.hear("refused").message["reason"].to_string();
        assert!(reason.contains("version 8 to 9"), "{reason}");
        it.goes_on(old);
    });
}

/// Behaviour 128: one that is newer by a version, with fields that nobody knows here, is
/// served by what both know.
#[test]
fn b128_a_newer_process_takes_what_both_know() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let mut it = Upgradable::start(Setup::new(server.address).case(case));
        let fake = Fake::new_process(&it.entrance());
        let mut newer = hello();
        newer["protocol"] = json!(2);
        newer["taste"] = json!("sweet");
        newer["features"] = json!(["tables", "telepathy"]);
        fake.say(&newer);
        fake.hear("hello");
        let heard = fake.hear("listeners");
        fake.have(&heard);
        assert_eq!(heard.message["last"], true);
        fake.hear("tables");
        let taken = &heard.message["labels"];
        fake.say(&json!({ "kind": "ready", "taken": taken, "mood": 1 }));
        fake.hear("tables");
        fake.hear("commit");
        fake.say(&json!({ "kind": "committed" }));
        fake.hear("rest");
        let status = it.forwarder.wait_for_exit(PATIENCE);
        assert_eq!(status.and_then(|it| it.code()), Some(0));
        // Whoever connects now waits for the process that has the socket.
        std::net::TcpStream::connect(it.forwarder.address()).unwrap();
    });
}

/// Behaviour 128: any bytes in place of the stream, at any place.
#[test]
fn b128_any_bytes_are_refused_and_have_no_effect() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let it = Upgradable::start(Setup::new(server.address).case(case));
        let old = it.serving();
        let hello = packet(hello().to_string().as_bytes(), 0);
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..60 {
            let stream = UnixStream::connect(it.entrance()).unwrap();
            let mut bytes = hello.clone();
            for _ in 0..=round % 4 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (seed >> 33) as usize % bytes.len();
                bytes[at] ^= 1 << (seed >> 20 & 7);
            }
            bytes.truncate(bytes.len() - round % 7);
            let _ = (&stream).write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            // Until it hangs up: it takes few at a time.
            let _ = std::io::copy(&mut &stream, &mut std::io::sink());
        }
        assert!(it.forwarder.process().is_alive());
        it.goes_on(old);
        it.upgrade();
    });
}

/// An old process in front of a real new one.
struct Old {
    directory: directory::Directory,
    entrance: UnixListener,
    listener: std::net::TcpListener,
    server: Echo,
}

impl Old {
    fn new() -> Self {
        let directory = directory::Directory::new();
        let entrance = UnixListener::bind(directory.join("upgrade.sock")).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self {
            directory,
            entrance,
            listener,
            server: Echo::new(b'a'),
        }
    }

    fn setup(&self, case: Case) -> Setup {
        Setup::new(self.server.address).case(case).argument(format!(
            "--take-over={}",
            self.directory.join("upgrade.sock").display()
        ))
    }

    /// Offers its listener, and what came of it.
    fn offer(&self) -> Fake {
        let fake = Fake::old_process(&self.entrance);
        fake.hear("hello");
        fake.say(&hello());
        let label = json!({ "role": "forward", "address": "127.0.0.1:0",
                            "forward": "127.0.0.1:0" });
        let cookies = [cookie(self.listener.as_fd())];
        let listeners = json!({ "kind": "listeners", "labels": [label], "cookies": cookies,
                                "last": true });
        fake.say_with(&listeners, &[self.listener.as_fd()]);
        let have = fake.hear("have");
        assert_eq!(have.message["cookies"], json!(cookies));
        fake.say(&json!({ "kind": "tables", "tables": {} }));
        fake
    }
}

/// Behaviour 126: the old process is killed right after the commit: the new one has all.
#[test]
fn b126_the_old_process_dies_right_after_the_commit() {
    on_every_engine(|case| {
        let old = Old::new();
        std::thread::scope(|scope| {
            let setup = old.setup(case);
            let new = scope.spawn(move || setup.start());
            let fake = old.offer();
            let ready = fake.hear("ready");
            assert_eq!(ready.message["taken"].as_array().unwrap().len(), 1);
            fake.say(&json!({ "kind": "tables", "tables": { "generation": 6 } }));
            fake.say(&json!({ "kind": "commit" }));
            drop(fake);
            let new = new.join().unwrap();
            assert_eq!(new.address(), old.listener.local_addr().unwrap());
            Held::open(new.address()).ping();
        });
    });
}

/// Behaviour 126: the old process gives up before the new one has answered.
#[test]
fn b126_an_old_process_that_has_given_up_is_believed() {
    on_every_engine(|case| {
        let old = Old::new();
        std::thread::scope(|scope| {
            let setup = old.setup(case);
            let new = scope.spawn(move || setup.fails());
            let fake = old.offer();
            fake.hear("ready");
            fake.0.shutdown(std::net::Shutdown::Read).unwrap();
            fake.say(&json!({ "kind": "tables", "tables": {} }));
            fake.say(&json!({ "kind": "commit" }));
            fake.say(&json!({ "kind": "given_up", "reason": "it was too late" }));
            let why = new.join().unwrap();
            assert!(why.contains("it was too late"), "{why}");
        });
    });
}

/// Behaviour 128: a stream that is none, in front of a new process.
#[test]
fn b128_a_new_process_takes_nothing_that_is_no_hand_over() {
    on_every_engine(|case| {
        let text = hello().to_string();
        for bytes in [
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            packet(b"{}", 0),
            packet(text.as_bytes(), 3),
        ] {
            let old = Old::new();
            std::thread::scope(|scope| {
                let setup = old.setup(case);
                let new = scope.spawn(move || setup.fails());
                let fake = Fake::old_process(&old.entrance);
                fake.hear("hello");
                fake.say_packet(&bytes, &[]);
                let why = new.join().unwrap();
                assert!(why.contains("cannot take over"), "{why}");
            });
        }
    });
}
