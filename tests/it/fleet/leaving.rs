//! A node that leaves (163): it says so first, and turns nobody away before its router has heard of it.
//!
//! How long that is (`drain_delay` since the last client) is shown with a clock of its own, in `control::drain`; here
//! no client has to come in time.

use nix::sys::signal::Signal;

use crate::kit::*;

fn leaving(server: &Listener, case: Case, delay: &str) -> (Forwarder, Admin, Directory) {
    let directory = Directory::new();
    let setup = Setup::new(server.address())
        .set("global.drain_delay", delay)
        .case(case)
        .admin(&directory);
    let admin = Admin::at(&directory.join("admin.sock"));
    (setup.start(), admin, directory)
}

/// One exchange through it.
fn exchange(forwarder: &Forwarder, server: &Listener) -> (Peer, Peer) {
    let mut client = forwarder.connect();
    let mut upstream = server.accept();
    client.send(100);
    upstream.expect(100);
    (client, upstream)
}

fn leave(forwarder: &Forwarder, admin: &Admin) {
    assert_eq!(admin.get("/readyz").status, 200);
    forwarder.process().signal(Signal::SIGTERM);
    wait_until("readiness is red", PATIENCE, || {
        admin.get("/readyz").status == 503
    });
}

#[test]
fn b163_who_leaves_says_so_and_serves_whoever_has_not_heard_of_it() {
    on_every_engine(|case| {
        let server = Listener::new();
        let (mut forwarder, admin, _directory) = leaving(&server, case, "1h");
        leave(&forwarder, &admin);
        for _ in 0..5 {
            drop(exchange(&forwarder, &server));
        }
        assert_eq!(admin.get("/healthz").status, 200);
        assert!(forwarder.lines_with("draining").is_empty());
        // A second signal ends it at once.
        let held = exchange(&forwarder, &server);
        forwarder.process().signal(Signal::SIGTERM);
        assert!(forwarder.wait_for_exit(PATIENCE).is_some());
        drop(held);
    });
}

#[test]
fn b163_once_it_is_quiet_it_drains() {
    on_every_engine(|case| {
        let server = Listener::new();
        let (mut forwarder, admin, _directory) = leaving(&server, case, "300ms");
        let (mut client, mut upstream) = exchange(&forwarder, &server);
        leave(&forwarder, &admin);
        forwarder.wait_for_line("draining");
        // The session that is left goes on to its own end.
        upstream.send(100);
        client.expect(100);
        drop((client, upstream));
        let ended = forwarder.wait_for_exit(PATIENCE);
        assert!(ended.is_some_and(|it| it.success()), "{ended:?}");
    });
}
