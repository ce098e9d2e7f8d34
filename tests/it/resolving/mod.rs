//! Names to addresses, against a name server of the test's own: what a failure
//! leaves, when a change arrives, what is asked and what is not.

mod bench;
mod files;
mod lookups;
mod services;
mod wire;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use thalweg::control::resolve::ADDRESSES_MAX;

use crate::kit::{PATIENCE, Says, wait_until};
use bench::{Bench, host};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_name_has_its_first_answer_when_first_returns() {
    let bench = Bench::new();
    let both = Says::addresses(300, &["192.0.2.1", "2001:db8::1"]);
    bench.dns.set("db.test", both);
    let names = bench.keep(&[host("db.test", 5432)]);
    assert!(names.resolver.first(PATIENCE));
    assert_eq!(names.sorted(0), ["192.0.2.1:5432", "[2001:db8::1]:5432"]);
    names.wait_for_line(&["INFO", "name db.test is", "192.0.2.1"]);
}

/// For each kind of failure, with the reason that the log gives; all at the same
/// time, as they wait more than they work.
fn for_each_failure(behaviour: impl Fn(&str, Says) + Sync) {
    let failures = [
        ("NXDOMAIN", Says::NX_DOMAIN),
        ("SERVFAIL", Says::SERV_FAIL),
        ("no name server answered in time", Says::Silence),
        ("no A or AAAA record", Says::Nothing),
        ("a loop", Says::alias(1, "other.db.test")),
        // Truncated, and then nothing over TCP.
        (
            "no name server answered in time",
            Says::Truncated(Box::new(Says::Silence)),
        ),
    ];
    std::thread::scope(|scope| {
        for (reason, failure) in failures {
            let behaviour = &behaviour;
            scope.spawn(move || behaviour(reason, failure));
        }
    });
}

#[test]
fn b58_a_failure_keeps_the_last_good_set_and_the_port() {
    for_each_failure(|reason, failure| {
        let bench = Bench::new();
        bench.dns.set("db.test", Says::addresses(1, &["192.0.2.1"]));
        bench.dns.set("other.db.test", Says::alias(1, "db.test"));
        let names = bench.keep(&[host("db.test", 5432)]);
        names.wait_for(0, &["192.0.2.1:5432"]);

        bench.dns.set("db.test", failure);
        names.wait_for_line(&[
            "WARN",
            "name db.test: ",
            reason,
            "what is known is used: 192.0.2.1;",
        ]);
        // Asked again and again, without another word.
        let asked = bench.dns.asked_for("db.test");
        wait_until("it is asked again", PATIENCE, || {
            bench.dns.asked_for("db.test") > asked + 4
        });
        assert_eq!(names.lines(&["WARN"]).len(), 1, "{:?}", names.lines(&[""]));
        assert_eq!(names.answers(0).len(), 1, "{reason}");
        assert_eq!(names.sorted(0), ["192.0.2.1:5432"]);

        bench.dns.set("db.test", Says::addresses(1, &["192.0.2.2"]));
        names.wait_for(0, &["192.0.2.2:5432"]);
        names.wait_for_line(&["INFO", "db.test resolves again: 192.0.2.2"]);
    });
}

#[test]
fn b58_a_name_that_fails_at_the_start_is_told_as_soon_as_it_resolves() {
    for_each_failure(|reason, failure| {
        let bench = Bench::new();
        bench.dns.set("db.test", failure);
        bench.dns.set("other.db.test", Says::alias(1, "db.test"));
        let names = bench.keep(&[host("db.test", 5432)]);
        assert!(names.resolver.first(PATIENCE), "a failure is an outcome");
        names.wait_for_line(&["WARN", reason, "it has no address until it can be resolved"]);
        assert!(names.answers(0).is_empty(), "{reason}");

        bench.dns.set("db.test", Says::addresses(1, &["192.0.2.1"]));
        names.wait_for(0, &["192.0.2.1:5432"]);
        names.wait_for_line(&["resolves again"]);
    });
}

#[test]
fn b58_whoever_starts_waits_no_longer_than_told() {
    let bench = Bench::new();
    bench.write_resolv_conf("options timeout:30 attempts:5\n");
    bench.dns.set("db.test", Says::Silence);
    let names = bench.keep(&[host("db.test", 5432)]);
    let begun = Instant::now();
    assert!(!names.resolver.first(Duration::from_millis(50)));
    drop(names);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn b58_what_is_truncated_comes_over_tcp() {
    let bench = Bench::new();
    let one = Says::addresses(300, &["192.0.2.1"]);
    bench.dns.set("short.test", Says::Truncated(Box::new(one)));
    let many = (0..100).map(|n| IpAddr::from([192, 0, 2, n]));
    bench.dns.set("long.test", Says::all(300, many));
    let names = bench.keep(&[host("short.test", 1), host("long.test", 1)]);
    names.wait_for(0, &["192.0.2.1:1"]);
    wait_until("100 addresses", PATIENCE, || names.now(1).len() == 100);
    let asked = bench.dns.asked();
    let over_tcp = |name| asked.iter().any(|it| it.name == name && it.over_tcp);
    assert!(over_tcp("short.test") && over_tcp("long.test"), "{asked:?}");
}

#[test]
fn b58_of_a_thousand_answers_a_bounded_number_is_used_always_the_same() {
    let bench = Bench::new();
    let thousand = |turn: u32| {
        let ips = (0..1000).map(move |n| Ipv4Addr::from(0xc612_0000 + (n + turn) % 1000));
        Says::all(1, ips.map(IpAddr::from))
    };
    bench.dns.set("many.test", thousand(0));
    let names = bench.keep(&[host("many.test", 80)]);
    wait_until("addresses", PATIENCE, || !names.now(0).is_empty());
    assert_eq!(names.now(0).len(), ADDRESSES_MAX);
    names.wait_for_line(&["WARN", "it has 1000 addresses; 256 of them are used"]);

    bench.dns.set("many.test", thousand(500));
    let asked = bench.dns.asked_for("many.test");
    wait_until("the turned answer is fetched", PATIENCE, || {
        bench.dns.asked_for("many.test") > asked + 6
    });
    assert_eq!(names.answers(0).len(), 1);
    assert_eq!(names.lines(&["WARN"]).len(), 1);
}

#[test]
fn b58_one_family_without_an_answer_does_not_freeze_the_other() {
    for failure in [Says::SERV_FAIL, Says::Silence] {
        let bench = Bench::new();
        let both = Says::addresses(1, &["192.0.2.1", "2001:db8::1"]);
        bench.dns.set("db.test", both);
        let names = bench.keep(&[host("db.test", 1)]);
        names.wait_for(0, &["192.0.2.1:1", "[2001:db8::1]:1"]);

        bench.dns.set_for("db.test", RecordType::AAAA, failure);
        let changed = Says::addresses(1, &["192.0.2.2"]);
        bench.dns.set_for("db.test", RecordType::A, changed);
        names.wait_for(0, &["192.0.2.2:1", "[2001:db8::1]:1"]);
        names.wait_for_line(&["WARN", "what is known is used"]);

        // "There is none" of a family is the truth while the other has some.
        bench
            .dns
            .set_for("db.test", RecordType::AAAA, Says::Nothing);
        names.wait_for(0, &["192.0.2.2:1"]);
        names.wait_for_line(&["resolves again"]);
    }
}

#[test]
fn b58_a_family_that_is_never_answered_holds_up_nobody() {
    for silent in [RecordType::AAAA, RecordType::A] {
        let bench = Bench::new();
        bench.write_resolv_conf("options timeout:30 attempts:5\n");
        let both = Says::addresses(1, &["192.0.2.1", "2001:db8::1"]);
        bench.dns.set("db.test", both);
        bench.dns.set_for("db.test", silent, Says::Silence);
        let names = bench.keep(&[host("db.test", 1)]);
        let begun = Instant::now();
        assert!(names.resolver.first(PATIENCE));
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
        assert_eq!(names.now(0).len(), 1);
        names.wait_for_line(&["WARN", "in time", "what is known is used"]);
    }
}

#[test]
fn b58_addresses_that_lead_back_to_this_host_are_no_servers() {
    let bench = Bench::new();
    let filtered = Says::addresses(1, &["0.0.0.0", "::"]);
    bench.dns.set("blocked.test", filtered);
    let mixed = Says::addresses(1, &["0.0.0.0", "192.0.2.1", "224.0.0.1"]);
    bench.dns.set("mixed.test", mixed);
    let names = bench.keep(&[host("blocked.test", 1), host("mixed.test", 1)]);
    names.wait_for_line(&["blocked.test: ", "no A or AAAA record"]);
    names.wait_for(1, &["192.0.2.1:1"]);
    assert!(names.answers(0).is_empty());
}

#[test]
fn b59_a_changed_record_is_told_when_its_time_to_live_has_passed() {
    let bench = Bench::new();
    bench.dns.set("db.test", Says::addresses(1, &["192.0.2.1"]));
    let names = bench.keep_for(&[host("db.test", 1)], Duration::ZERO, HOUR);
    names.wait_for(0, &["192.0.2.1:1"]);
    let turned = Says::addresses(1, &["192.0.2.3", "192.0.2.2"]);
    bench.dns.set("db.test", turned);
    names.wait_for(0, &["192.0.2.2:1", "192.0.2.3:1"]);
    bench.dns.set("db.test", Says::addresses(1, &["192.0.2.3"]));
    names.wait_for(0, &["192.0.2.3:1"]);
    assert_eq!(names.answers(0).len(), 3);
}

#[test]
fn b59_the_time_to_live_has_a_ceiling_and_a_floor() {
    let bench = Bench::new();
    let day = Says::addresses(86_400, &["192.0.2.1"]);
    bench.dns.set("long.test", day);
    let names = bench.keep(&[host("long.test", 1)]);
    names.wait_for(0, &["192.0.2.1:1"]);

    bench
        .dns
        .set("short.test", Says::addresses(0, &["192.0.2.9"]));
    let floored = bench.keep_for(&[host("short.test", 1)], HOUR, HOUR);
    floored.wait_for(0, &["192.0.2.9:1"]);

    // Meanwhile the one with a ceiling is asked again many times.
    let asked = bench.dns.asked_for("long.test");
    wait_until("the ceiling has passed often", PATIENCE, || {
        bench.dns.asked_for("long.test") > asked + 6
    });
    bench
        .dns
        .set("long.test", Says::addresses(86_400, &["192.0.2.2"]));
    names.wait_for(0, &["192.0.2.2:1"]);
    assert_eq!(bench.dns.asked_for("short.test"), 2, "A and AAAA, once");
}

#[test]
fn b59_a_time_to_live_on_the_way_counts() {
    let bench = Bench::new();
    bench.dns.set("db.test", Says::alias(1, "blue.test"));
    bench
        .dns
        .set("blue.test", Says::addresses(3600, &["192.0.2.1"]));
    bench
        .dns
        .set("green.test", Says::addresses(3600, &["192.0.2.2"]));
    let names = bench.keep_for(&[host("db.test", 1)], Duration::ZERO, HOUR);
    names.wait_for(0, &["192.0.2.1:1"]);
    bench.dns.set("db.test", Says::alias(1, "green.test"));
    names.wait_for(0, &["192.0.2.2:1"]);
}

#[test]
fn b59_the_order_of_an_answer_is_no_change() {
    let bench = Bench::new();
    let order = |texts: [&str; 3]| Says::addresses(1, &texts);
    let first = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];
    bench.dns.set("db.test", order(first));
    let names = bench.keep(&[host("db.test", 1)]);
    wait_until("addresses", PATIENCE, || !names.now(0).is_empty());
    let before = names.now(0);
    bench
        .dns
        .set("db.test", order([first[2], first[1], first[0]]));
    let asked = bench.dns.asked_for("db.test");
    wait_until("the turned answer is fetched", PATIENCE, || {
        bench.dns.asked_for("db.test") > asked + 6
    });
    assert_eq!(names.now(0), before);
    assert_eq!(names.answers(0).len(), 1);
    assert_eq!(names.lines(&["db.test"]).len(), 1);
}

/// A range of ports with one name behind it is one name to ask for, and to speak of.
#[test]
fn a_thousand_ports_of_one_name_are_asked_for_once() {
    let bench = Bench::new();
    bench.dns.set("db.test", Says::addresses(1, &["192.0.2.1"]));
    let all: Vec<_> = (1..=1000).map(|port| host("db.test", port)).collect();
    let names = bench.keep(&all);
    assert!(names.resolver.first(PATIENCE));
    let has = |id: u32, ip: &str| names.sorted(id) == [format!("{ip}:{}", id + 1)];
    assert!((0..1000).all(|id| has(id, "192.0.2.1")));
    let asked = bench.dns.asked_for("db.test");
    assert!(asked <= 4, "{asked} questions");

    bench.dns.set("db.test", Says::addresses(1, &["192.0.2.2"]));
    wait_until("all have the new address", PATIENCE, || {
        (0..1000).all(|id| has(id, "192.0.2.2"))
    });
    // Said soon, and once for each answer.
    wait_until("it is said", PATIENCE, || {
        names.lines(&["db.test"]).len() >= 2
    });
    assert_eq!(names.lines(&["db.test"]).len(), 2, "one for each answer");
}

#[test]
fn names_come_and_go_and_what_is_known_stays() {
    let bench = Bench::new();
    for name in ["db.test", "old.test", "new.test"] {
        bench.dns.set(name, Says::addresses(300, &["192.0.2.1"]));
    }
    let names = bench.keep_for(&[host("db.test", 1), host("old.test", 2)], HOUR, HOUR);
    names.wait_for(0, &["192.0.2.1:1"]);
    names.wait_for(1, &["192.0.2.1:2"]);
    // Another port of a name that is known is told without a question.
    names.set(&[
        (0, host("db.test", 1)),
        (7, host("db.test", 7)),
        (8, host("new.test", 8)),
    ]);
    names.wait_for(7, &["192.0.2.1:7"]);
    names.wait_for(8, &["192.0.2.1:8"]);
    assert_eq!(bench.dns.asked_for("db.test"), 2, "A and AAAA, once");
    assert_eq!(names.answers(0).len(), 1, "told once");
}

#[test]
fn many_names_all_have_their_answers() {
    let bench = Bench::new();
    let name = |n: u16| format!("n{n}.test");
    for n in 0..200 {
        bench
            .dns
            .set(&name(n), Says::addresses(300, &["192.0.2.1"]));
    }
    let requests: Vec<_> = (0..200).map(|n| host(&name(n), n + 1)).collect();
    let names = bench.keep_for(&requests, Duration::ZERO, HOUR);
    assert!(names.resolver.first(PATIENCE));
    for n in 0..200 {
        assert_eq!(names.now(n), [format!("192.0.2.1:{}", n + 1)]);
    }
}
