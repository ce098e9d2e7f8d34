//! /healthz and /readyz (148), and that they answer when nothing else can (151).

use std::io::Write as _;

use super::{Steered, steered};
use crate::kit::peer::{transfer, unless_reset};
use crate::kit::{Listener, PATIENCE, Peer, Setup, on_every_engine, wait_until};

#[test]
fn b148_ready_is_who_has_servers_and_does_not_end() {
    on_every_engine(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).reactors(2).case(case);
        let steered = steered(setup);
        let answer = steered.admin.get("/healthz");
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
        let answer = steered.admin.get("/readyz");
        assert_eq!(answer.status, 200, "{answer:?}");
        let client = steered.forwarder.connect();
        let upstream = server.accept();
        steered
            .forwarder
            .process()
            .signal(nix::sys::signal::Signal::SIGTERM);
        wait_until("it says that it ends", PATIENCE, || {
            let answer = steered.admin.get("/readyz");
            answer.status == 503 && answer.body.contains("draining")
        });
        // The session lives, so the reactors do.
        assert_eq!(steered.admin.get("/healthz").status, 200);
        client.close();
        upstream.close();
    });
}

/// It has begun: a signal before that ends it at once.
fn serves(steered: &Steered, server: &Listener) {
    steered.forwarder.wait_for_line("reactors, engine");
    let (mut client, mut upstream) = (steered.forwarder.connect(), server.accept());
    transfer(&mut client, &mut upstream, 100);
    client.close();
    upstream.expect_then_eof(0);
}

/// Whoever balances before it has time to notice.
#[test]
fn b148_clients_are_let_in_for_drain_delay_while_it_is_not_ready() {
    on_every_engine(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).reactors(2).case(case);
        // Longer than any test: a second signal ends it.
        let mut steered = steered(setup.set("global.drain_delay", "1h"));
        serves(&steered, &server);
        let stop = nix::sys::signal::Signal::SIGTERM;
        steered.forwarder.process().signal(stop);
        wait_until("it says that it ends", PATIENCE, || {
            let answer = steered.admin.get("/readyz");
            answer.status == 503 && answer.body.contains("draining")
        });
        assert_eq!(steered.admin.get("/healthz").status, 200);
        for _ in 0..4 {
            serves(&steered, &server);
        }
        let (mut cut, _upstream) = (steered.forwarder.connect(), server.accept());
        steered.forwarder.process().signal(stop);
        assert!(cut.receive_until_end_within(PATIENCE).is_some());
        let ended = steered.forwarder.wait_for_exit(PATIENCE);
        assert!(ended.unwrap().success());
    });
}

#[test]
fn b148_behind_drain_delay_nobody_is_let_in_and_it_drains() {
    let server = Listener::new();
    let setup = Setup::new(server.address()).set("global.drain_delay", "100ms");
    let mut steered = steered(setup);
    serves(&steered, &server);
    let (client, upstream) = (steered.forwarder.connect(), server.accept());
    // Who comes while it is still open finds no server, and is gone at once.
    drop(server);
    let stop = nix::sys::signal::Signal::SIGTERM;
    steered.forwarder.process().signal(stop);
    steered.forwarder.wait_for_line("draining: 1 sessions");
    client.close();
    upstream.close();
    assert!(steered.forwarder.wait_for_exit(PATIENCE).unwrap().success());
}

#[test]
fn b148_a_pool_without_servers_is_not_ready() {
    let server = Listener::new();
    let steered = steered(
        Setup::new(format!("127.0.0.1:1,{}", server.address()))
            .set("defaults.upstream.check.type", "tcp")
            .set("defaults.upstream.check.interval", "100ms")
            .set("defaults.upstream.check.timeout", "50ms"),
    );
    assert_eq!(steered.admin.get("/readyz").status, 200);
    drop(server);
    wait_until("checks find it down", PATIENCE, || {
        let answer = steered.admin.get("/readyz");
        answer.status == 503 && answer.body.contains("none of 2 servers is up")
    });
    assert_eq!(steered.admin.get("/healthz").status, 200);
}

#[test]
fn b151_it_answers_when_every_descriptor_is_used_up() {
    let server = Listener::new();
    // Far more clients than fit: the accept queue stays full.
    let setup = Setup::new(server.address()).wrapped(&["prlimit", "--nofile=160:160"]);
    let steered = steered(setup);
    let fit = (0..200)
        .map_while(|_| {
            // Whoever is silent makes room where places are few; whoever comes last may be
            // turned away before he knows that he is connected.
            let client = unless_reset(Peer::try_connect(steered.forwarder.address()))?;
            let _ = client.stream().write(b"!");
            let upstream = server.accept_within(std::time::Duration::from_millis(300))?;
            Some((client, upstream))
        })
        .collect::<Vec<_>>();
    assert!((10..100).contains(&fit.len()), "{}", fit.len());
    let asked = std::time::Instant::now();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(steered.admin.get(path).status, 200, "{path}");
    }
    assert!(asked.elapsed() < PATIENCE);
    drop(fit);
}
