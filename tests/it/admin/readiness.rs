//! /healthz and /readyz (148), and that they answer when nothing else can (151).

use super::steered;
use crate::kit::{Listener, PATIENCE, Setup, on_every_engine, wait_until};

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
            let client = steered.forwarder.connect();
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
