//! Version 1 of the protocol as it was spoken when it was new, kept in `version_1.jsonl`: a
//! process of today takes what one of then says, and says all that one of then needs to hear
//! (behaviour 128). The recording is never made anew; a change that it does not survive needs
//! another version.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use super::fake::{Fake, cookie};
use super::kit::*;
use crate::kit::*;

const RECORDING: &str = include_str!("version_1.jsonl");

/// What both need to have at hand: a port for TCP and UDP, and servers.
struct Places {
    listen: TcpListener,
    ports: UdpSocket,
    server: TcpListener,
    udp_server: UdpSocket,
}

impl Places {
    fn new() -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp_server = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp_server.set_read_timeout(Some(PATIENCE)).unwrap();
        let both = || {
            let listen = TcpListener::bind("127.0.0.1:0").unwrap();
            let ports = UdpSocket::bind(listen.local_addr().unwrap()).ok()?;
            listen.set_nonblocking(true).unwrap();
            ports.set_nonblocking(true).unwrap();
            Some((listen, ports))
        };
        let (listen, ports) = poll(PATIENCE, both).unwrap();
        Self {
            listen,
            ports,
            server,
            udp_server,
        }
    }

    fn setup(&self, case: Case) -> Setup {
        let listen = self.listen.local_addr().unwrap();
        let server = self.server.local_addr().unwrap();
        let udp_server = self.udp_server.local_addr().unwrap();
        let setup = Setup::between(listen, server);
        let setup = setup.and(format!("udp:{listen}"), format!("udp:{udp_server}"));
        setup.engine(case.engine)
    }

    /// What was said then, between these.
    fn recording(&self, client: SocketAddr, udp_client: SocketAddr) -> Vec<Value> {
        let text = RECORDING
            .replace("@LISTEN@", &self.listen.local_addr().unwrap().to_string())
            .replace("@SERVER@", &self.server.local_addr().unwrap().to_string())
            .replace(
                "@UDP_SERVER@",
                &self.udp_server.local_addr().unwrap().to_string(),
            )
            .replace("@CLIENT@", &client.to_string())
            .replace("@UDP_CLIENT@", &udp_client.to_string())
            .replace("@DIRECTORY@", "/run/thalweg");
        text.lines()
            .map(|it| serde_json::from_str(it).unwrap())
            .collect()
    }
}

fn of<'a>(recording: &'a [Value], kind: &str) -> &'a Value {
    let found = recording.iter().find(|it| it["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} was recorded"))
}

/// Behaviour 128: what a process of then says is understood, its session and its flow go on.
#[test]
fn b128_what_version_1_said_is_understood() {
    on_every_engine(|case| {
        let places = Places::new();
        let directory = directory::Directory::new();
        let entrance = directory.join("upgrade.sock");
        let listener = UnixListener::bind(&entrance).unwrap();
        // A session and a flow, in whose middle this is.
        let mut client = TcpStream::connect(places.listen.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let accepted = poll(PATIENCE, || places.listen.accept().ok()).unwrap().0;
        let upstream = TcpStream::connect(places.server.local_addr().unwrap()).unwrap();
        let mut served = places.server.accept().unwrap().0;
        served.set_read_timeout(Some(PATIENCE)).unwrap();
        accepted.set_nonblocking(true).unwrap();
        upstream.set_nonblocking(true).unwrap();
        let udp_client = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp_client
            .connect(places.listen.local_addr().unwrap())
            .unwrap();
        let call = UdpSocket::bind("127.0.0.1:0").unwrap();
        call.connect(places.udp_server.local_addr().unwrap())
            .unwrap();
        call.set_nonblocking(true).unwrap();
        let (local, udp_local) = (
            client.local_addr().unwrap(),
            udp_client.local_addr().unwrap(),
        );
        let mut said = places.recording(local, udp_local);
        let sockets = |all: &[BorrowedFd<'_>]| all.iter().map(|it| cookie(*it)).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            let setup = places.setup(case);
            let setup = setup.argument(format!("--take-over={}", entrance.display()));
            let new = scope.spawn(move || setup.start());
            let fake = Fake::old_process(&listener);
            for message in &mut said {
                let descriptors: Vec<BorrowedFd<'_>> = match message["kind"].as_str().unwrap() {
                    "hello" => {
                        fake.hear("hello");
                        Vec::new()
                    }
                    "listeners" => vec![places.listen.as_fd(), places.ports.as_fd()],
                    "sessions" => {
                        fake.hear("ready");
                        vec![accepted.as_fd(), upstream.as_fd()]
                    }
                    "flows" => vec![call.as_fd()],
                    _ => Vec::new(),
                };
                let cookies = sockets(&descriptors);
                match message["kind"].as_str().unwrap() {
                    "listeners" => message["cookies"] = json!(cookies),
                    "sessions" => {
                        for (side, cookie) in cookies.iter().enumerate() {
                            message["manifests"][0]["sides"][side]["cookie"] = json!(cookie);
                        }
                    }
                    "flows" => {
                        message["manifests"][0]["cookie"] = json!(cookies[0]);
                        message["manifests"][0]["port"] = json!(cookie(places.ports.as_fd()));
                    }
                    _ => {}
                }
                fake.say_with(message, &descriptors);
                if !descriptors.is_empty() {
                    let have = fake.hear("have").message;
                    assert_eq!(have["cookies"], json!(cookies));
                    assert_eq!(have["refused"], json!([]), "{have}");
                }
            }
            fake.hear("committed");
            let forwarder = new.join().unwrap();
            drop((accepted, upstream));
            let mut bytes = [0; 5];
            client.write_all(b"hello").unwrap();
            served.read_exact(&mut bytes).unwrap();
            served.write_all(b"world").unwrap();
            client.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"world");
            udp_client.send(b"again").unwrap();
            let (_, from) = places.udp_server.recv_from(&mut bytes).unwrap();
            assert_eq!(from, call.local_addr().unwrap());
            drop((client, served));
            let record = forwarder.wait_for_session();
            // Three and two of them were before.
            assert_eq!((record.number("id"), record.bytes()), (Some(1), (8, 7)));
        });
    });
}

/// Behaviour 128: whatever one of then reads is said today as well, and is of the same kind.
#[test]
fn b128_what_version_1_needs_to_hear_is_said() {
    on_every_engine(|case| {
        let places = Places::new();
        let listen = places.listen.local_addr().unwrap();
        let recording = places.recording(listen, listen);
        let (server, udp_server) = (&places.server, &places.udp_server);
        // The forwarder finds ports of its own.
        let (to, udp_to) = (
            server.local_addr().unwrap(),
            udp_server.local_addr().unwrap(),
        );
        let setup =
            Setup::between("127.0.0.1:0", to).and("udp:127.0.0.1:0", format!("udp:{udp_to}"));
        let it = Upgradable::start(setup.engine(case.engine));
        let mut client = TcpStream::connect(it.forwarder.address()).unwrap();
        let mut upstream = server.accept().unwrap().0;
        client.write_all(b"abc").unwrap();
        upstream.read_exact(&mut [0; 3]).unwrap();
        let udp_client = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp_client.connect(&it.forwarder.addresses()[1]).unwrap();
        udp_client.send(b"q").unwrap();
        udp_server.recv_from(&mut [0; 8]).unwrap();
        let fake = Fake::new_process(&it.entrance());
        let mut hello = of(&recording, "hello").clone();
        hello["room"] = json!(100_000);
        let labels = fake.prepare_as(&hello);
        fake.say(&json!({ "kind": "ready", "taken": labels }));
        for kind in ["sessions", "flows", "tables", "commit"] {
            let heard = fake.hear(kind);
            if !heard.descriptors.is_empty() {
                let cookies = heard.descriptors.iter().map(|it| cookie(it.as_fd()));
                let cookies: Vec<u64> = cookies.collect();
                fake.say(&json!({ "kind": "have", "cookies": cookies }));
            }
            has_all(of(&recording, kind), &heard.message, kind);
        }
    });
}

/// Every field of `then` is there now, with a value of the same kind.
#[track_caller]
fn has_all(then: &Value, now: &Value, at: &str) {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            for (key, value) in then {
                let at = format!("{at}.{key}");
                let found = now.get(key).unwrap_or_else(|| panic!("{at} is not said"));
                has_all(value, found, &at);
            }
        }
        (Value::Array(then), Value::Array(now)) => {
            for (then, now) in then.iter().zip(now) {
                has_all(then, now, at);
            }
        }
        // What was not known then may be now, and the other way round.
        (Value::Null, _) | (_, Value::Null) => {}
        (then, now) => {
            let kinds = [then, now].map(std::mem::discriminant);
            assert_eq!(kinds[0], kinds[1], "{at}: {then} then, {now} now");
        }
    }
}
