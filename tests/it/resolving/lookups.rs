//! One-off lookups: cached, bounded, answered exactly once.

use std::sync::mpsc::channel;

use thalweg::control::resolve::LookupError;

use super::bench::Bench;
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
    let (sender, outcomes) = channel();
    for n in 0..300 {
        let name = format!("silent{n}.test");
        bench.dns.set(&name, Says::Silence);
        let sender = sender.clone();
        names.resolver.lookup(&name, 80, move |outcome| {
            let _ = sender.send(outcome);
        });
    }
    for _ in 0..44 {
        let outcome = outcomes.recv_timeout(PATIENCE).unwrap();
        assert_eq!(outcome, Err(LookupError::Busy));
    }
    // The others are under way; they are told when the resolver ends.
    drop(names);
    drop(sender);
    let rest: Vec<_> = outcomes.iter().collect();
    assert_eq!(rest.len(), 256);
    let ended =
        |it: &Result<_, _>| matches!(it, Err(LookupError::Stopped | LookupError::TimedOut(_)));
    assert!(rest.iter().all(ended), "{rest:?}");
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
    let (sender, outcomes) = channel();
    let answers = [
        Says::addresses(60, &["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
        Says::alias(60, "other.test"),
        Says::Truncated(Box::new(Says::addresses(60, &["192.0.2.1"]))),
    ];
    for n in 0..150 {
        let name = format!("damaged{n}.test");
        let answer = answers[n % answers.len()].clone();
        bench.dns.set(&name, Says::Damaged(Box::new(answer)));
        let sender = sender.clone();
        names.resolver.lookup(&name, 80, move |outcome| {
            let _ = sender.send(outcome);
        });
    }
    drop(sender);
    for _ in 0..150 {
        let outcome = outcomes.recv_timeout(PATIENCE).unwrap();
        // A task that panicked would have dropped its reply.
        assert_ne!(outcome, Err(LookupError::Stopped));
    }
    bench
        .dns
        .set("sound.test", Says::addresses(60, &["192.0.2.1"]));
    assert_eq!(names.lookup("sound.test", 80).unwrap(), ["192.0.2.1:80"]);
}
