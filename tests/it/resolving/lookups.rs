//! One-off lookups: cached, bounded, answered exactly once.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use thalweg::control::resolve::LookupError;

use super::bench::{Bench, Outcome, lookup_id};
use crate::kit::{PATIENCE, Says, wait_until};

#[test]
fn a_lookup_is_answered_in_the_order_of_dialling_and_cached() {
    let bench = Bench::new();
    let two = Says::addresses(300, &["192.0.2.2", "192.0.2.1"]);
    bench.dns.set("web.test", two);
    let names = bench.keep(&[]);
    for _ in 0..3 {
        let found = names.lookup("Web.test", 80).unwrap();
        assert_eq!(found, ["192.0.2.1:80", "192.0.2.2:80"]);
    }
    assert_eq!(bench.dns.asked_for("web.test"), 2, "A and AAAA, once");

    assert_eq!(names.lookup("gone.test", 80), Err(LookupError::NoSuchName));
    assert_eq!(names.lookup("gone.test", 80), Err(LookupError::NoSuchName));
    assert_eq!(bench.dns.asked_for("gone.test"), 2, "a \"no\" is cached");

    bench.dns.set("ill.test", Says::SERV_FAIL);
    let by = bench.dns.address().to_string();
    let failure = Err(LookupError::ServerFailure("SERVFAIL".to_owned(), by));
    assert_eq!(names.lookup("ill.test", 80), failure);
    bench
        .dns
        .set("ill.test", Says::addresses(1, &["192.0.2.3"]));
    assert_eq!(names.lookup("ill.test", 80).unwrap(), ["192.0.2.3:80"]);
}

#[test]
fn b59_a_cached_answer_lives_as_long_as_it_says() {
    let bench = Bench::new();
    bench
        .dns
        .set("web.test", Says::addresses(1, &["192.0.2.1"]));
    let names = bench.keep(&[]);
    assert_eq!(names.lookup("web.test", 80).unwrap(), ["192.0.2.1:80"]);
    bench
        .dns
        .set("web.test", Says::addresses(1, &["192.0.2.2"]));
    wait_until("the new address", PATIENCE, || {
        names.lookup("web.test", 80).unwrap() == ["192.0.2.2:80"]
    });
}

#[test]
fn what_is_no_name_is_refused_without_asking() {
    let bench = Bench::new();
    let names = bench.keep(&[]);
    assert_eq!(names.lookup("192.0.2.1", 80).unwrap(), ["192.0.2.1:80"]);
    assert_eq!(names.lookup("[::1]", 80).unwrap(), ["[::1]:80"]);
    for text in ["", ".", "127.1", "0x7f.1", "a..b", "a b", "1.2.3.4.5"] {
        let outcome = names.lookup(text, 80);
        assert!(matches!(outcome, Err(LookupError::NotAName(_))), "{text}");
    }
    assert_eq!(bench.dns.asked(), []);
}

#[test]
fn b58_lookups_under_way_are_bounded_and_every_one_is_answered() {
    let bench = Bench::new();
    let names = bench.keep(&[]);
    let mut outcomes = Vec::new();
    for n in 0..300 {
        let name = format!("silent{n}.test");
        bench.dns.set(&name, Says::Silence);
        outcomes.push(names.begin("192.0.2.1", &name, 80));
    }
    // Half of the places, and half of the room to wait: the rest is for others.
    let refused = |it: &Receiver<Outcome>| it.try_recv() == Ok(Err(LookupError::Busy));
    assert_eq!(
        outcomes.iter().filter(|it| refused(it)).count(),
        300 - 16 - 128
    );
    // The others are under way; they are told when the resolver ends.
    drop(names);
    let rest: Vec<_> = outcomes.iter().filter_map(|it| it.recv().ok()).collect();
    assert_eq!(rest.len(), 16 + 128);
    let ended =
        |it: &Result<_, _>| matches!(it, Err(LookupError::Stopped | LookupError::TimedOut(_)));
    assert!(rest.iter().all(ended), "{rest:?}");
}

#[test]
fn what_is_remembered_takes_no_place() {
    let bench = Bench::new();
    bench
        .dns
        .set("web.test", Says::addresses(300, &["192.0.2.1"]));
    let names = bench.keep(&[]);
    names.lookup_for("192.0.2.1", "web.test", 80).unwrap();
    let mut under_way = Vec::new();
    for n in 0..1000 {
        let name = format!("silent{n}.test");
        bench.dns.set(&name, Says::Silence);
        under_way.push(names.begin("192.0.2.1", &name, 80));
    }
    for port in 1..1000 {
        let outcome = names.begin("192.0.2.1", "Web.test.", port).try_recv();
        assert_eq!(outcome, Ok(Ok(vec![([192, 0, 2, 1], port).into()])));
    }
    assert_eq!(bench.dns.asked_for("web.test"), 2, "A and AAAA, once");
}

#[test]
fn equal_names_that_are_wanted_together_are_asked_for_once() {
    let bench = Bench::new();
    let late = Says::addresses(300, &["192.0.2.1"]);
    let late = Says::Late(Duration::from_millis(300), Box::new(late));
    bench.dns.set("web.test", late);
    let names = bench.keep(&[]);
    let outcomes: Vec<_> = (0..1000)
        .map(|n| names.begin(&format!("192.0.2.{}", n % 250), "web.test", 80))
        .collect();
    for outcome in outcomes {
        assert!(outcome.recv_timeout(PATIENCE).unwrap().is_ok());
    }
    assert_eq!(bench.dns.asked_for("web.test"), 2, "A and AAAA, once");
}

/// One client has as many silent names as it likes under way; others do not notice.
#[test]
fn a_client_with_silent_names_harms_no_other() {
    let bench = Bench::new();
    let names = bench.keep(&[]);
    let mut under_way = Vec::new();
    for n in 0..500 {
        let name = format!("n{n}.z{n}.silent.test");
        bench.dns.set(&name, Says::Silence);
        under_way.push(names.begin("192.0.2.1", &name, 80));
    }
    for n in 0..50 {
        let name = format!("web{n}.test");
        bench.dns.set(&name, Says::addresses(300, &["192.0.2.9"]));
        let found = names.lookup_for("192.0.2.2", &name, 80);
        assert_eq!(
            found.as_deref(),
            Ok(&["192.0.2.9:80".to_owned()][..]),
            "{n}"
        );
    }
}

#[test]
fn what_nobody_waits_for_is_asked_for_no_more() {
    let bench = Bench::new();
    let names = bench.keep(&[]);
    let mut ids = Vec::new();
    // Each is given up at once, as by a client that resets its connection.
    for n in 0..500 {
        let name = format!("n{n}.z{n}.silent.test");
        bench.dns.set(&name, Says::Silence);
        let id = lookup_id();
        let outcome = names.begin_as(id, "192.0.2.1", &name, 80);
        assert!(outcome.try_recv().is_err(), "{n}: under way");
        names.resolver.cancel(id);
        ids.push(outcome);
    }
    // So the next of the same client is no worse off.
    bench
        .dns
        .set("web.test", Says::addresses(300, &["192.0.2.9"]));
    assert!(names.lookup_for("192.0.2.1", "web.test", 80).is_ok());
    assert!(ids.iter().all(|it| it.recv().is_err()), "nobody is told");
}

#[test]
fn silence_is_remembered_by_name_and_for_a_client_by_zone() {
    let bench = Bench::new();
    let names = bench.keep(&[]);
    let name = |n: usize| format!("n{n}.silent.test");
    for n in 0..6 {
        bench.dns.set(&name(n), Says::Silence);
    }
    let first: Vec<_> = (0..3)
        .map(|n| names.begin("192.0.2.1", &name(n), 80))
        .collect();
    for outcome in first {
        let outcome = outcome.recv_timeout(PATIENCE).unwrap();
        assert!(
            matches!(outcome, Err(LookupError::TimedOut(_))),
            "{outcome:?}"
        );
    }
    // Told at once: nobody was asked for it.
    let timed_out = |client: &str, n: usize| {
        let outcome = names.begin(client, &name(n), 80).try_recv();
        matches!(outcome, Ok(Err(LookupError::TimedOut(_))))
    };
    assert!(timed_out("192.0.2.2", 0), "by name, for everybody");
    assert!(timed_out("192.0.2.1", 4), "by zone, for who met it");
    assert_eq!(bench.dns.asked_for(&name(4)), 0);
    assert!(!timed_out("192.0.2.2", 5), "others may find it answering");
}

#[test]
fn b58_silence_ends_in_time() {
    let bench = Bench::new();
    bench.dns.set("silent.test", Says::Silence);
    let names = bench.keep(&[]);
    let outcome = names.lookup("silent.test", 80);
    let Err(LookupError::TimedOut(why)) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(why.contains(&bench.dns.address().to_string()), "{why}");
}

#[test]
fn b58_damaged_answers_harm_nobody() {
    let bench = Bench::new();
    let names = bench.keep(&[]);
    let mut outcomes = Vec::new();
    let answers = [
        Says::addresses(60, &["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
        Says::alias(60, "other.test"),
        Says::Truncated(Box::new(Says::addresses(60, &["192.0.2.1"]))),
    ];
    for n in 0..150 {
        let name = format!("damaged{n}.test");
        let answer = answers[n % answers.len()].clone();
        bench.dns.set(&name, Says::Damaged(Box::new(answer)));
        // Within the share of each.
        let client = format!("192.0.2.{}", n % 15);
        outcomes.push(names.begin(&client, &name, 80));
    }
    for outcome in outcomes {
        let outcome = outcome.recv_timeout(PATIENCE).unwrap();
        // A task that panicked would have dropped its reply.
        assert_ne!(outcome, Err(LookupError::Stopped));
    }
    bench
        .dns
        .set("sound.test", Says::addresses(60, &["192.0.2.1"]));
    assert_eq!(names.lookup("sound.test", 80).unwrap(), ["192.0.2.1:80"]);
}
