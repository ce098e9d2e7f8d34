//! A new process on trial: behaviour 138.

use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::kit::*;
use super::sessions::Pair;
use crate::kit::process::Process;
use crate::kit::*;

/// Has a new process serve on trial, and says which.
#[track_caller]
fn try_out(it: &Upgradable, seconds: f64) -> Process {
    let before = it.serving();
    let answer = it.ask(&format!(r#"{{"trial_seconds": {seconds}}}"#));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let process = Process(answer.json()["process"].as_u64().unwrap() as u32);
    assert!(before.is_alive(), "b138: it waits");
    process
}

#[track_caller]
fn is_back(it: &Upgradable, old: Process, tried: Process) {
    is_gone(tried);
    wait_until("the former one serves again", PATIENCE, || {
        it.serving() == old
    });
    wait_until("nobody else runs", PATIENCE, || it.processes() == [old]);
}

/// Behaviour 138: nobody confirms it, so everything goes back, as it is by then.
#[test]
fn b138_what_nobody_confirms_goes_back_with_its_sessions() {
    on_every_path(|case| {
        let server = Listener::new();
        let it = Upgradable::start(Setup::new(server.address()).case(case).reactors(2));
        let old = it.serving();
        let mut pair = Pair::open(&it, &server, 1);
        let mut ends = Pair::open(&it, &server, 2);
        let mut stuck = Pair::open(&it, &server, 3);
        pair.exchange(1000);
        ends.exchange(10);
        let up = stuck.client.send_until_stuck(Duration::from_millis(100));
        let tried = try_out(&it, 1.0);
        pair.exchange(500);
        // Nobody but the new process has it: its end is told at once.
        ends.end();
        let mut new = Pair::open(&it, &server, 4);
        new.exchange(10);
        is_back(&it, old, tried);
        pair.exchange(1000);
        stuck.server.expect(up);
        for pair in [pair, stuck, new] {
            pair.end();
        }
        let records = it.forwarder.wait_for_sessions(4);
        for record in &records {
            assert_eq!(record.code(), "--", "{record:?}");
        }
        let first = records.iter().find(|it| it.bytes() == (2510, 2510));
        assert!(first.is_some(), "b131: {records:?}");
        let accepted = it.admin().get("/metrics").sum("thalweg_accepted_total");
        assert!((accepted - 4.0).abs() < 0.5, "b132: {accepted}");
        // And it can be followed still.
        let next = it.upgrade();
        is_gone(old);
        assert_eq!(it.processes(), [next]);
    });
}

/// Behaviour 138: confirmed, it stays, and the former one is gone at once. Meanwhile there is
/// no other upgrade.
#[test]
fn b138_what_is_confirmed_stays() {
    on_every_engine(|case| {
        let server = Listener::new();
        let it = Upgradable::start(Setup::new(server.address()).case(case));
        let old = it.serving();
        let mut pair = Pair::open(&it, &server, 1);
        pair.exchange(10);
        let tried = try_out(&it, 600.0);
        assert_eq!(it.serving(), tried);
        let second = it.ask("{}");
        assert_eq!(second.status, 409, "{}", second.body);
        assert!(second.body.contains("trial"), "{}", second.body);
        let confirmed = it.ctl(&["confirm"]);
        assert!(confirmed.status.success(), "{confirmed:?}");
        is_gone(old);
        assert!(!it.ctl(&["confirm"]).status.success(), "nothing waits");
        pair.exchange(10);
        it.upgrade();
        is_gone(tried);
        pair.end();
    });
}

/// Behaviour 138: an operator sends it back, flows of datagrams with it.
#[test]
fn b138_an_operator_sends_it_back() {
    on_every_engine(|case| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let to = server.local_addr().unwrap();
        let setup = Setup::between("udp:127.0.0.1:0", format!("udp:{to}"));
        let it = Upgradable::start(setup.engine(case.engine));
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(it.forwarder.address()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let exchange = || {
            let mut buffer = [0; 16];
            client.send(b"question").unwrap();
            let (len, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..len], from).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), 8);
            from
        };
        let port = exchange();
        let old = it.serving();
        let tried = try_out(&it, 600.0);
        assert_eq!(exchange(), port);
        let back = it.ctl(&["go-back"]);
        assert!(back.status.success(), "{back:?}");
        is_back(&it, old, tried);
        assert_eq!(exchange(), port, "b133");
    });
}

/// Behaviour 138: it is not ready for five seconds.
#[test]
fn b138_what_is_not_ready_goes_back() {
    let server = Listener::new();
    let it = Upgradable::start(Setup::new(server.address()));
    let old = it.serving();
    let mut pair = Pair::open(&it, &server, 1);
    let tried = try_out(&it, 600.0);
    let forwards = it.admin().get("/v1/forwards").json();
    let name = forwards[0]["name"].as_str().unwrap().to_owned();
    let drained = it.ctl(&["forward", &name, "drain"]);
    assert!(drained.status.success(), "{drained:?}");
    pair.exchange(10);
    is_back(&it, old, tried);
    pair.end();
    Pair::open(&it, &server, 2).end();
}

/// Behaviour 138: it is killed, or hangs. Its sessions end with it, and nobody who comes is
/// kept out.
#[test]
fn b138_whoever_dies_or_hangs_on_trial_is_replaced() {
    on_every_engine(|case| {
        for dies in [true, false] {
            let server = Listener::new();
            let it = Upgradable::start(Setup::new(server.address()).case(case));
            let old = it.serving();
            let tried = try_out(&it, 600.0);
            // Nobody is let in by it any more from here on.
            if dies {
                tried.signal(Signal::SIGKILL);
                is_gone(tried);
            } else {
                tried.stop();
            }
            let mut waits = Pair::open(&it, &server, 1);
            waits.exchange(10);
            is_back(&it, old, tried);
            waits.end();
        }
    });
}
