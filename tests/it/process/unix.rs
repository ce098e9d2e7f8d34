//! Unix sockets on either side: behaviour 61.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use nix::sys::signal::Signal;

use crate::kit::directory::Directory;
use crate::kit::peer::transfer;
use crate::kit::*;

fn client(stream: UnixStream) -> Peer {
    Peer::client(OwnedFd::from(stream).into())
}

fn connect(path: &Path) -> Peer {
    client(UnixStream::connect(path).unwrap())
}

fn accept(listener: &UnixListener) -> Peer {
    let (stream, _) = listener.accept().unwrap();
    Peer::server(OwnedFd::from(stream).into())
}

/// Bytes both ways, and an end that does not cut the other way.
fn exchange(mut client: Peer, mut server: Peer) {
    client.send(100_000);
    client.half_close();
    server.expect_then_eof(100_000);
    transfer(&mut server, &mut client, MIB);
    server.close();
    client.expect_then_eof(0);
}

#[test]
fn b61_paths_on_both_sides() {
    on_every_path(|case| {
        let directory = Directory::new();
        let (front, back) = (directory.join("front"), directory.join("back"));
        let server = UnixListener::bind(&back).unwrap();
        let listen = format!("unix:{}", front.display());
        let to = format!("unix:{}", back.display());
        let forwarder = Setup::between(&listen, to).case(case).reactors(2).start();
        assert_eq!(forwarder.addresses()[0], listen);
        exchange(connect(&front), accept(&server));
        let record = forwarder.wait_for_session();
        assert_eq!((record.code(), record.bytes()), ("--", (100_000, MIB)));
        assert_eq!(record.text("listener"), listen);
        forwarder.check_idle();
        assert!(forwarder.terminate().success());
        assert!(!front.exists(), "its path is left behind");
    });
}

#[test]
fn b61_abstract_names_on_both_sides() {
    on_every_engine(|case| {
        let name = |side: &str| format!("thalweg-{}-{side}-{}", std::process::id(), case.engine);
        let address = |name: &str| SocketAddr::from_abstract_name(name).unwrap();
        let server = UnixListener::bind_addr(&address(&name("back"))).unwrap();
        let listen = format!("unix:@{}", name("front"));
        let setup = Setup::between(&listen, format!("unix:@{}", name("back")));
        let forwarder = setup.case(case).start();
        let stream = UnixStream::connect_addr(&address(&name("front"))).unwrap();
        exchange(client(stream), accept(&server));
        assert_eq!(forwarder.wait_for_session().code(), "--");
        forwarder.check_idle();
        let second = Setup::between(&listen, "127.0.0.1:1").try_start();
        assert!(second.unwrap_err().contains(&listen));
    });
}

/// A killed instance leaves its path; the next one replaces it.
#[test]
fn b61_a_stale_path_is_replaced() {
    let directory = Directory::new();
    let path = directory.join("socket");
    let server = Listener::new();
    let setup = Setup::between(format!("unix:{}", path.display()), server.address());
    let mut first = setup.start();
    first.process().signal(Signal::SIGKILL);
    first.wait_for_exit(PATIENCE);
    // The kernel takes a moment to clean up after a ring.
    wait_until("nobody listens there", PATIENCE, || {
        let tried = UnixStream::connect(&path);
        tried.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    let second = setup.start();
    exchange(connect(&path), server.accept());
    assert_eq!(second.wait_for_session().code(), "--");
    second.check_idle();
}

/// A path where somebody listens, or that is something else, is left alone.
#[test]
fn b61_a_live_path_is_left_alone() {
    let directory = Directory::new();
    let path = directory.join("socket");
    let server = Listener::new();
    let listen = format!("unix:{}", path.display());
    let setup = Setup::between(&listen, server.address());
    let first = setup.start();
    let why = setup.try_start().unwrap_err();
    assert!(why.contains(&listen) && why.contains("already"), "{why}");
    // It looked whether somebody is there, and nobody who is noticed.
    exchange(connect(&path), server.accept());
    assert_eq!(first.wait_for_sessions(1)[0].code(), "--");

    let file = directory.join("file");
    std::fs::write(&file, "precious").unwrap();
    let listen = format!("unix:{}", file.display());
    let why = Setup::between(&listen, server.address()).try_start();
    let why = why.unwrap_err();
    assert!(
        why.contains(&listen) && why.contains("not a socket"),
        "{why}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

/// `sun_path` has 108 bytes, the last of them for the terminator.
#[test]
fn b61_a_path_of_108_bytes_is_a_clear_error() {
    let directory = Directory::new();
    let long = |len: usize| {
        let path = directory.join(&"x".repeat(108));
        format!("unix:{}", &path.to_str().unwrap()[..len])
    };
    let server = Listener::new();
    let why = Setup::between(long(108), server.address()).try_start();
    let why = why.unwrap_err();
    assert!(why.contains("108 bytes") && why.contains("107"), "{why}");
    let why = Setup::between("127.0.0.1:0", long(108)).try_start();
    assert!(why.unwrap_err().contains("108 bytes"));

    let forwarder = Setup::between(long(107), server.address()).start();
    let path = forwarder.addresses()[0].strip_prefix("unix:").unwrap();
    exchange(connect(Path::new(path)), server.accept());
    forwarder.wait_for_session();
}

/// A server's path that is not there, or where nobody listens: refused, and the
/// next server is tried.
#[test]
fn b61_a_server_that_is_not_there() {
    on_every_engine(|case| {
        let directory = Directory::new();
        let stale = directory.join("stale");
        drop(UnixListener::bind(&stale).unwrap());
        let missing = directory.join("missing");
        let servers = format!("unix:{},unix:{}", missing.display(), stale.display());
        let forwarder = Setup::new(&servers).case(case).start();
        crowd::is_turned_away(&forwarder);
        let record = forwarder.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("SC", "refused"));
        assert_eq!(record.attempts(), 2);

        let server = Listener::new();
        let servers = format!("unix:{},{}", missing.display(), server.address());
        let forwarder = Setup::new(&servers).case(case).start();
        exchange(forwarder.connect(), server.accept());
        assert_eq!(forwarder.wait_for_session().attempts(), 2);
        forwarder.check_idle();
    });
}

/// Whoever is not meant to connect is kept away by mode, owner and group, not by the
/// umask alone.
#[test]
fn b61_a_path_has_the_mode_owner_and_group_that_are_asked_for() {
    use std::os::unix::fs::MetadataExt;
    let directory = Directory::new();
    let (front, back) = (directory.join("front"), directory.join("back"));
    let server = UnixListener::bind(&back).unwrap();
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    // Another group only where that is permitted.
    let group = if uid.is_root() { 7 } else { gid.as_raw() };
    let listen = format!("unix:{}", front.display());
    let setup = Setup::between(&listen, format!("unix:{}", back.display()))
        .set("defaults.unix_mode", "\"0620\"")
        .set("defaults.unix_owner", uid)
        .set("defaults.unix_group", group);
    for _ in 0..2 {
        let forwarder = setup.start();
        let made = std::fs::metadata(&front).unwrap();
        assert_eq!(made.mode() & 0o7777, 0o620);
        assert_eq!((made.uid(), made.gid()), (uid.as_raw(), group));
        exchange(connect(&front), accept(&server));
        assert!(forwarder.terminate().success());
        assert!(!front.exists(), "its path is left behind");
    }
    let why = setup
        .set("defaults.unix_owner", "\"no-such-user\"")
        .try_start();
    let why = why.err().unwrap_or_default();
    assert!(why.contains("there is no user no-such-user"), "{why}");
    assert!(!front.exists(), "a path without a listener is left behind");
}
