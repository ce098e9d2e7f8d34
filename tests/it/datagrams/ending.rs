//! How flows end: of silence, of having been answered, to make room, with the process.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use thalweg::bench::origin::{Handlers, Origin, OriginOptions, Role};

use nix::sys::signal::Signal;

use super::*;
use crate::kit::shortage::leave_descriptors;

#[test]
fn b98_a_flow_ends_after_its_last_datagram_and_sooner_without_an_answer() {
    on_every_engine(|case| {
        // A try is none where the machine makes the pause as long as the silence that ends a flow, or
        // the way to the server and back.
        assert!(
            (0..20).any(|_| ends_in_time(case)),
            "the machine is too busy"
        );
    });
}

/// One try; whether it was one.
fn ends_in_time(case: Case) -> bool {
    let server = Server::new(|question| match question {
        b"silence" => Vec::new(),
        other => vec![other.to_vec()],
    });
    let forwarder = forwarder(case, &[server.address()])
        .set("defaults.udp_idle_timeout", "800ms")
        .set("defaults.udp_unanswered_timeout", "300ms")
        .start();
    let (answered, unanswered) = (client(forwarder.address()), client(forwarder.address()));
    answered
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let watch = Stopwatch::start();
    for question in [&b"one"[..], b"two"] {
        answered.send(question).unwrap();
        if answer(&answered).is_none() {
            return false;
        }
        if question == b"one" {
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    if watch.elapsed() > Duration::from_millis(750) {
        return false;
    }
    unanswered.send(b"silence").unwrap();
    let ended = forwarder.wait_for_sessions(2);
    let of = |cause: &str| {
        let record = ended.iter().find(|it| it.cause() == cause);
        record.unwrap_or_else(|| panic!("none ended of {cause}: {ended:?}"))
    };
    // What was taken away may have gone to the pause, to the questions and to the timers.
    let late = watch.taken_away().as_micros() as u64;
    let is_so = |cause: &str, least: u64, most: u64| {
        let took = of(cause).number("total_us").unwrap();
        assert!(
            (least..most + late).contains(&took),
            "{cause}: {took} µs, {late} late"
        );
    };
    // 500 ms to its last datagram.
    is_so("idle_timeout", 1_300_000, 1_700_000);
    is_so("unanswered", 300_000, 500_000);
    assert_eq!(of("idle_timeout").number("datagrams_up"), Some(2));
    assert_eq!(of("idle_timeout").number("datagrams_down"), Some(2));
    forwarder.check_idle();
    true
}

#[test]
fn b98_ten_thousand_flows_leave_no_descriptor() {
    on_every_engine(|case| {
        let server = Server::echo();
        let forwarder = forwarder(case, &[server.address()])
            .set("defaults.udp_idle_timeout", "200ms")
            .set("log.sessions", "off")
            .start();
        for _ in 0..100 {
            let clients: Vec<_> = (0..100).map(|_| client(forwarder.address())).collect();
            for client in &clients {
                client.send(b"x").unwrap();
            }
            for client in &clients {
                // Who got the port of one before it has a flow that may be over on a busy machine
                // before its answer is there: then it asks again, as clients do.
                client
                    .set_read_timeout(Some(Duration::from_secs(1)))
                    .unwrap();
                let answered = poll(PATIENCE, || {
                    answer(client).or_else(|| {
                        client.send(b"x").unwrap();
                        None
                    })
                });
                answered.expect("an answer");
            }
        }
        wait_until("all flows have ended", PATIENCE, || {
            forwarder.counters().of("udp_live") == 0
        });
        // A client may get the port of one before it.
        assert!(forwarder.counters().of("udp_flows") > 5_000);
        wait_until("sockets are closed", PATIENCE, || {
            forwarder.process().descriptors().sockets < 20
        });
        forwarder.check_idle();
    });
}

#[test]
fn b99_one_answer_each_and_a_flow_is_over() {
    on_every_engine(|case| {
        // Answers everything twice.
        let server = Server::new(|question| vec![question.to_vec(), question.to_vec()]);
        let forwarder = forwarder(case, &[server.address()])
            .set("defaults.responses", 1)
            .set("defaults.max_flows", 1000)
            .set("log.sessions", "off")
            .start();
        let mut second = 0;
        for round in 0..200 {
            let clients: Vec<_> = (0..100).map(|_| client(forwarder.address())).collect();
            for client in &clients {
                client.send(format!("{round}").as_bytes()).unwrap();
            }
            for client in &clients {
                assert_eq!(answer(client).unwrap(), format!("{round}").as_bytes());
                client.set_nonblocking(true).unwrap();
                second += usize::from(answer(client).is_some());
            }
        }
        assert_eq!(second, 0, "second answers have passed");
        let counters = forwarder.counters();
        assert_eq!(counters.of("udp_flows"), 20_000);
        assert_eq!(counters.of("udp_sent_down"), 20_000);
        assert_eq!(counters.of("udp_dropped_max_flows"), 0);
        let dropped = || {
            let counters = forwarder.counters();
            counters.of("udp_dropped_unexpected") + counters.of("udp_dropped_late")
        };
        wait_until("second answers are counted", PATIENCE, || {
            dropped() > 19_000
        });
        assert!(dropped() <= 20_000);
        assert_eq!(forwarder.complaints().len(), 0);
    });
}

#[test]
fn b99_no_answer_is_no_complaint() {
    on_every_engine(|case| {
        let server = Server::silent();
        let forwarder = forwarder(case, &[server.address()])
            .set("defaults.responses", 1)
            .set("defaults.udp_unanswered_timeout", "100ms")
            .set("log.sessions", "off")
            .start();
        let clients: Vec<_> = (0..200).map(|_| client(forwarder.address())).collect();
        for client in &clients {
            client.send(b"anybody?").unwrap();
        }
        wait_for_counter(&forwarder, "udp_flows_ended", 200);
        assert_eq!(forwarder.complaints().len(), 0);
    });
}

/// A socket that has served is used for the next question to the same server, from another port.
#[test]
fn b99_sockets_that_have_rested_serve_again_and_answers_stay_apart() {
    on_every_engine(|case| {
        let server = Server::echo();
        let forwarder = forwarder(case, &[server.address()])
            .set("defaults.responses", 1)
            .set("log.sessions", "off")
            .start();
        // Of the kernel's, which has no number twice.
        let mut sockets = HashSet::new();
        for round in 0..10 {
            let clients: Vec<_> = (0..50).map(|_| client(forwarder.address())).collect();
            for client in &clients {
                let own = format!("{round} {}", client.local_addr().unwrap());
                assert_eq!(ask(client, own.as_bytes()), own.as_bytes());
            }
            let targets = forwarder.process().descriptor_targets().into_iter();
            sockets.extend(targets.filter(|it| it.1.starts_with("socket:")));
            std::thread::sleep(Duration::from_millis(150));
        }
        let senders: HashSet<_> = server.senders().into_iter().collect();
        assert!(
            sockets.len() < 300,
            "{} sockets for 500 flows",
            sockets.len()
        );
        assert!(senders.len() > 400, "{} ports for 500 flows", senders.len());
        assert_eq!(forwarder.counters().of("udp_flows"), 500);
        forwarder.check_idle();
    });
}

/// Sources that come once, and few descriptors: sessions keep theirs.
#[test]
fn b100_a_flood_of_sources_takes_nothing_from_sessions() {
    on_every_engine(|case| {
        let options = OriginOptions {
            command: None,
            echo: Some(([127, 0, 0, 1], 0).into()),
            ..OriginOptions::default()
        };
        let origin = Origin::start(&options, Handlers::default()).unwrap();
        let silent = Server::silent();
        let forwarder = Setup::new(origin.address(Role::Echo).unwrap())
            .and("udp:127.0.0.1:0", format!("udp:{}", silent.address()))
            .engine(case.engine)
            .set("log.sessions", "off")
            .wrapped(&["prlimit", "--nofile=256:256"])
            .start();
        let at: SocketAddr = forwarder.addresses()[1].parse().unwrap();
        for _ in 0..10 {
            for _ in 0..300 {
                client(at).send(b"once").unwrap();
            }
            // All at once; as many as sessions have descriptors for with room to spare.
            let session = || TcpStream::connect(forwarder.address()).unwrap();
            let sessions: Vec<_> = (0..20).map(|_| session()).collect();
            for mut session in sessions {
                session.set_read_timeout(Some(PATIENCE)).unwrap();
                session.write_all(b"still here").unwrap();
                let mut got = [0; 10];
                session.read_exact(&mut got).unwrap();
                assert_eq!(&got, b"still here");
            }
        }
        assert!(forwarder.counters().of("udp_flows") > 300);
    });
}

/// Whatever took the descriptors: who is without an answer for longest makes room, for a flow that is
/// answered as for a session.
#[test]
fn b100_without_descriptors_the_unanswered_make_room() {
    on_every_engine(|case| {
        let options = OriginOptions {
            command: None,
            echo: Some(([127, 0, 0, 1], 0).into()),
            ..OriginOptions::default()
        };
        let origin = Origin::start(&options, Handlers::default()).unwrap();
        let server = Server::new(|question| match question {
            b"silence" => Vec::new(),
            other => vec![other.to_vec()],
        });
        let forwarder = Setup::new(origin.address(Role::Echo).unwrap())
            .and("udp:127.0.0.1:0", format!("udp:{}", server.address()))
            .engine(case.engine)
            .set("log.sessions", "off")
            .start();
        let at: SocketAddr = forwarder.addresses()[1].parse().unwrap();
        leave_descriptors(forwarder.process(), 40);
        let flood = || {
            for _ in 0..200 {
                client(at).send(b"silence").unwrap();
            }
        };
        flood();
        wait_until("none is left", PATIENCE, || {
            forwarder.counters().of("udp_flows") > 30
        });
        let answered: Vec<_> = (0..10).map(|_| client(at)).collect();
        for client in &answered {
            assert_eq!(ask(client, b"a question"), b"a question");
        }
        flood();
        for _ in 0..5 {
            let mut session = TcpStream::connect(forwarder.address()).unwrap();
            session.set_read_timeout(Some(PATIENCE)).unwrap();
            session.write_all(b"let me in").unwrap();
            let mut got = [0; 9];
            session.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"let me in");
        }
        // Those that were answered are the same flows still.
        let senders = || server.senders().into_iter().collect::<HashSet<_>>();
        let before = senders();
        for client in &answered {
            assert_eq!(ask(client, b"another"), b"another");
        }
        assert_eq!(senders(), before);
    });
}

#[test]
fn b100_flows_that_were_answered_are_not_put_out_by_others() {
    on_every_engine(|case| {
        let server = Server::new(|question| match question {
            b"silence" => Vec::new(),
            other => vec![other.to_vec()],
        });
        let forwarder = forwarder(case, &[server.address()])
            .set("defaults.max_flows", 200)
            .set("log.sessions", "off")
            .start();
        let answered: Vec<_> = (0..100).map(|_| client(forwarder.address())).collect();
        for client in &answered {
            ask(client, b"mine");
        }
        // One datagram each, from many more sources than there may be flows.
        for _ in 0..5000 {
            client(forwarder.address()).send(b"silence").unwrap();
        }
        for client in &answered {
            assert_eq!(ask(client, b"still mine"), b"still mine");
        }
        let counters = forwarder.counters();
        assert!(counters.of("udp_live") <= 200);
        let moved_on = counters.of("udp_flows") - counters.of("udp_live");
        assert!(moved_on > 100, "only {moved_on} made room");
        // All of them answered: who is new is dropped, and counted.
        let more: Vec<_> = (0..100).map(|_| client(forwarder.address())).collect();
        for client in &more {
            ask(client, b"mine too");
        }
        let one_more = client(forwarder.address());
        one_more.send(b"me?").unwrap();
        wait_for_counter(&forwarder, "udp_dropped_max_flows", 1);
    });
}

#[test]
fn b101_nothing_is_sent_to_who_sent_nothing() {
    on_every_engine(|case| {
        let server = Server::silent();
        let forwarder = forwarder(case, &[server.address()]).start();
        let client = client(forwarder.address());
        for size in 0..500 {
            client.send(&vec![size as u8; size]).unwrap();
        }
        wait_until("all are heard", PATIENCE, || server.heard() == 500);
        hears_nothing(&client, Duration::from_millis(200));
        assert_eq!(forwarder.counters().of("udp_sent_down"), 0);
    });
}

#[test]
fn b101_an_unproven_source_gets_no_more_than_it_has_earned() {
    on_every_engine(|case| {
        let server = Server::new(|_| vec![vec![0; 300], vec![1; 300]]);
        let forwarder = forwarder(case, &[server.address()])
            .set("defaults.max_reply_factor", 5)
            .start();
        let client = client(forwarder.address());
        // 5 × 80 bytes are enough for one answer of two.
        client.send(&[7; 80]).unwrap();
        assert_eq!(answer(&client).unwrap().len(), 300);
        hears_nothing(&client, Duration::from_millis(200));
        assert_eq!(forwarder.counters().of("udp_dropped_unearned"), 1);
        client.send(&[7; 1]).unwrap();
        assert_eq!(answer(&client).unwrap().len(), 300);
        assert_eq!(answer(&client).unwrap().len(), 300);
    });
}

#[test]
fn b110_flows_that_are_known_are_served_to_the_end() {
    on_every_engine(|case| {
        let server = Server::echo();
        let mut forwarder = forwarder(case, &[server.address()])
            .set("defaults.udp_idle_timeout", "700ms")
            .start();
        let (known, new) = (client(forwarder.address()), client(forwarder.address()));
        ask(&known, b"before");
        forwarder.process().signal(Signal::SIGTERM);
        forwarder.wait_for_line("draining");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) {
            assert_eq!(ask(&known, b"meanwhile"), b"meanwhile");
            new.send(b"me too?").unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        hears_nothing(&new, Duration::from_millis(50));
        assert!(forwarder.wait_for_exit(PATIENCE).is_some());
        let ended = forwarder.wait_for_session();
        assert_eq!(ended.cause(), "idle_timeout");
        let counters = forwarder.lines_with("counters").pop().unwrap();
        assert!(counters.number("udp_dropped_draining").unwrap() > 5);
    });
}

#[test]
fn b110_at_the_end_of_the_time_to_drain_flows_are_cut() {
    on_every_engine(|case| {
        let server = Server::echo();
        let mut forwarder = forwarder(case, &[server.address()])
            .set("defaults.drain_timeout", "300ms")
            .start();
        ask(&client(forwarder.address()), b"before");
        forwarder.process().signal(Signal::SIGTERM);
        assert!(forwarder.wait_for_exit(PATIENCE).is_some());
        assert_eq!(forwarder.wait_for_session().cause(), "drain_timeout");
    });
}
