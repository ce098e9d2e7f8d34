//! Sockets that were passed (152): found by name and by address, in any order, and errors
//! that name what does not fit.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use crate::kit::directory::Directory;
use crate::kit::*;

/// A listening socket and where it is.
fn tcp() -> (Arc<OwnedFd>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = listener.local_addr().unwrap().to_string();
    (Arc::new(listener.into()), local)
}

/// What a connect there is answered with: the byte of its server.
fn answer_at(address: &str) -> u8 {
    let mut byte = [0];
    match address.strip_prefix("unix:") {
        Some(path) => UnixStream::connect(path).unwrap().read_exact(&mut byte),
        None => TcpStream::connect(address).unwrap().read_exact(&mut byte),
    }
    .unwrap();
    byte[0]
}

/// A server that says one byte to whoever comes.
pub(super) fn server(says: u8) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.write_all(&[says]);
        }
    });
    address
}

#[test]
fn b152_sockets_are_found_by_name_and_by_address_in_any_order() {
    on_every_engine(|case| {
        let directory = Directory::new();
        let path = directory.join("passed.sock");
        let unix: Arc<OwnedFd> = Arc::new(UnixListener::bind(&path).unwrap().into());
        let (first, at_first) = tcp();
        let (second, at_second) = tcp();
        let (third, at_third) = tcp();
        for turned in [false, true] {
            let mut setup = Setup::between("systemd:web", server(1))
                .and(&at_third, server(2))
                .and(format!("unix:{}", path.display()), server(3))
                .reactors(2)
                .case(case);
            let mut passed = vec![
                ("web", &first),
                ("web", &second),
                ("by-address", &third),
                ("thalweg.socket", &unix),
            ];
            if turned {
                passed.reverse();
            }
            for (name, socket) in passed {
                setup = setup.passing(name, socket);
            }
            let forwarder = setup.start();
            for (address, says) in [(&at_first, 1), (&at_second, 1), (&at_third, 2)] {
                assert_eq!(answer_at(address), says, "{address}");
            }
            let at_unix = format!("unix:{}", path.display());
            assert_eq!(answer_at(&at_unix), 3);
            forwarder.wait_for_sessions(4);
            drop(forwarder);
            // The path is the manager's, and so are the sockets.
            assert!(path.exists());
        }
    });
}

#[test]
fn b152_one_shared_socket_feeds_both_reactors() {
    on_every_engine(|case| {
        // Whoever is woken first has it: no hash. On a machine that is busy with other
        // things one run may say nothing, three do.
        let fair = (0..3).any(|_| {
            let shares = shares_of_two(case);
            eprintln!("{}: {shares:?}", case.engine);
            shares.iter().all(|its| *its >= SESSIONS * 2 / 5)
        });
        assert!(fair, "{}", case.engine);
    });
}

const SESSIONS: usize = 400;

/// How many sessions each of two reactors had that share a socket.
fn shares_of_two(case: Case) -> [usize; 2] {
    let (socket, address) = tcp();
    let setup = Setup::between("systemd:web", server(7));
    let setup = setup.passing("web", &socket).reactors(2).case(case);
    let forwarder = setup.start();
    for _ in 0..SESSIONS {
        assert_eq!(answer_at(&address), 7);
    }
    let sessions = forwarder.wait_for_sessions(SESSIONS);
    [0, 1].map(|reactor| {
        let its = sessions
            .iter()
            .filter(|it| it.number("reactor") == Some(reactor));
        its.count()
    })
}

/// It does not start, and says why.
#[track_caller]
fn refused(setup: &Setup, words: &[&str]) {
    let said = setup.try_start().expect_err("it starts");
    for word in words {
        assert!(said.contains(word), "no {word:?}: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn b152_what_does_not_fit_is_named() {
    let (socket, address) = tcp();
    let one = || Setup::between("systemd:web", "127.0.0.1:9").passing("web", &socket);
    // Nobody asks for it.
    let (other, at_other) = tcp();
    let setup = one().passing("other", &other);
    refused(&setup, &["other", &at_other, "systemd:other"]);
    // Nobody passes it.
    let setup = Setup::between("systemd:nobody", "127.0.0.1:9");
    refused(&setup, &["systemd:nobody", "FileDescriptorName="]);
    // Datagrams, for whom streams are forwarded.
    let udp: Arc<OwnedFd> = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap().into());
    let setup = Setup::between("systemd:dns", "127.0.0.1:9").passing("dns", &udp);
    refused(&setup, &["datagram socket dns", "forwards streams"]);
    // Bound, and nobody listens.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    bound.bind(&any.into()).unwrap();
    let bound: Arc<OwnedFd> = Arc::new(bound.into());
    refused(
        &one().passing("bound", &bound),
        &["bound", "does not listen"],
    );
    // No socket at all.
    let file: Arc<OwnedFd> = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
    refused(&one().passing("file", &file), &["(file)", "not a socket"]);
    // More names than sockets.
    let setup = one().env("LISTEN_FDNAMES", "web:more");
    refused(&setup, &["LISTEN_FDNAMES=web:more"]);
    drop(TcpStream::connect(address).unwrap());
}

#[test]
fn b152_what_is_passed_to_another_process_is_ignored() {
    let server = Listener::new();
    let setup = Setup::new(server.address());
    let setup = setup.env("LISTEN_PID", 1).env("LISTEN_FDS", 7);
    let forwarder = setup.start();
    Crowd::through(&forwarder, &server, 1).finish();
    forwarder.wait_for_sessions(1);
}
