//! How questions are put, and what becomes of answers that do not fit, come late or not
//! at all.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hickory_proto::rr::RecordType;

use super::HOUR;
use super::bench::{Bench, host, service};
use crate::kit::{Extensions, PATIENCE, Says, wait_until};

/// So many addresses of one family: 16 bytes each in an answer.
fn many(count: u32) -> Says {
    let address = |n| IpAddr::from(Ipv4Addr::from(0x7f3a_0100 + n));
    Says::all(300, (0..count).map(address))
}

#[test]
fn b58_an_answer_above_512_bytes_fits_into_a_datagram() {
    let bench = Bench::new();
    bench.dns.set("db.test", many(50));
    let names = bench.keep(&[host("db.test", 1)]);
    assert!(names.resolver.first(PATIENCE));
    assert_eq!(names.now(0).len(), 50);
    let asked = bench.dns.asked();
    assert!(
        asked
            .iter()
            .all(|it| it.payload == Some(1232) && !it.over_tcp),
        "{asked:?}"
    );
}

#[test]
fn b58_a_datagram_larger_than_allowed_is_read() {
    let bench = Bench::new();
    bench
        .dns
        .set("db.test", Says::Oversized(Box::new(many(250))));
    let names = bench.keep(&[host("db.test", 1)]);
    assert!(names.resolver.first(PATIENCE));
    assert_eq!(names.now(0).len(), 250);
    assert!(bench.dns.asked().iter().all(|it| !it.over_tcp));
}

#[test]
fn b58_what_a_datagram_cannot_hold_is_asked_for_over_tcp() {
    // Whether the server says that it is cut, or cuts it without a word.
    for says in [many(250), Says::Cut(Box::new(many(250)))] {
        let bench = Bench::new();
        bench.dns.set("db.test", says);
        let names = bench.keep(&[host("db.test", 1)]);
        assert!(names.resolver.first(PATIENCE));
        assert_eq!(names.now(0).len(), 250);
        assert!(bench.dns.asked().iter().any(|it| it.over_tcp));
    }
}

#[test]
fn a_name_server_that_does_not_know_edns_is_asked_without() {
    for extensions in [Extensions::Refused, Extensions::Lost] {
        let bench = Bench::new();
        // Long enough for the third question, which is the first without.
        bench.write_resolv_conf("options timeout:10 attempts:1\n");
        bench.dns.set_extensions(extensions);
        bench.dns.set("db.test", many(50));
        let names = bench.keep(&[host("db.test", 1)]);
        assert!(names.resolver.first(PATIENCE), "{extensions:?}");
        assert_eq!(names.now(0).len(), 50);
        assert!(bench.dns.asked().iter().any(|it| it.over_tcp));
        // It is remembered.
        let before = bench.dns.asked().len();
        names.lookup("other.test", 1).unwrap_err();
        let asked = bench.dns.asked().split_off(before);
        let with = asked
            .iter()
            .filter(|it| it.name == "other.test" && it.payload.is_some());
        assert_eq!(with.count(), 0, "{asked:?}");
    }
}

#[test]
fn use_vc_and_no_aaaa_are_honoured() {
    let bench = Bench::new();
    bench.write_resolv_conf("options timeout:1 attempts:1 use-vc no-aaaa\n");
    let both = Says::addresses(300, &["192.0.2.1", "2001:db8::1"]);
    bench.dns.set("db.test", both);
    bench.write_hosts("2001:db8::7 box.test\n");
    let names = bench.keep(&[host("db.test", 1), host("box.test", 1)]);
    names.wait_for(0, &["192.0.2.1:1"]);
    // As resolv.conf(5) says, that is about DNS alone.
    names.wait_for(1, &["[2001:db8::7]:1"]);
    let asked = bench.dns.asked();
    assert!(!asked.is_empty());
    assert!(
        asked
            .iter()
            .all(|it| it.over_tcp && it.kind == RecordType::A),
        "{asked:?}"
    );
}

#[test]
fn b58_a_service_may_be_an_alias() {
    let services = Says::services(300, &[(0, 1, 5432, "a.test")]);
    let in_one = Says::alias_of(300, "_db._tcp.other.test", services.clone());
    for alias in [in_one, Says::alias(300, "_db._tcp.other.test")] {
        let bench = Bench::new();
        bench
            .dns
            .set("a.test", Says::addresses(300, &["192.0.2.1"]));
        bench.dns.set("_db._tcp.other.test", services.clone());
        bench.dns.set("_db._tcp.test", alias);
        let names = bench.keep(&[service("_db._tcp.test")]);
        names.wait_for(0, &["192.0.2.1:5432"]);
        let kinds: Vec<_> = bench
            .dns
            .asked()
            .into_iter()
            .filter(|it| it.name == "a.test" && it.kind == RecordType::SRV)
            .collect();
        assert_eq!(kinds, [], "a host has no SRV records");
    }
}

#[test]
fn an_address_twice_in_an_answer_is_one_server() {
    let bench = Bench::new();
    let twice = Says::addresses(300, &["192.0.2.1", "192.0.2.1", "192.0.2.2"]);
    bench.dns.set("db.test", twice);
    let names = bench.keep(&[host("db.test", 1)]);
    names.wait_for(0, &["192.0.2.1:1", "192.0.2.2:1"]);
}

#[test]
fn an_answer_that_comes_while_the_next_turn_waits_counts() {
    let bench = Bench::new();
    bench.write_resolv_conf("options timeout:1 attempts:4\n");
    let late = Says::Late(
        Duration::from_millis(1800),
        Box::new(Says::addresses(300, &["192.0.2.1"])),
    );
    bench.dns.set("db.test", late);
    let names = bench.keep_for(&[host("db.test", 1)], Duration::ZERO, HOUR);
    names.wait_for(0, &["192.0.2.1:1"]);
    names.wait_for_line(&[
        "WARN",
        "the name server 127.0.0.1:",
        "is slow",
        "gives it 1.0s",
    ]);
    assert!(names.lines(&["no name server answered"]).is_empty());
}

#[test]
fn a_name_server_that_is_too_slow_is_not_called_silent_for_good() {
    let bench = Bench::new();
    let late = Says::Late(
        Duration::from_millis(2500),
        Box::new(Says::addresses(300, &["192.0.2.1"])),
    );
    bench.dns.set("db.test", late);
    let names = bench.keep(&[host("db.test", 1)]);
    let address = bench.dns.address().to_string();
    names.wait_for_line(&["WARN", "no name server answered in time", &address]);
    names.wait_for_line(&["WARN", &address, "is slow", "gives it 1.0s"]);
}

#[test]
fn b58_a_name_without_an_address_is_asked_for_again_soon() {
    let bench = Bench::new();
    bench.dns.set("db.test", Says::NX_DOMAIN);
    let names = bench.keep_for(&[host("db.test", 1)], Duration::ZERO, HOUR);
    // By doubling the fifteenth would come after hours.
    wait_until("it is asked for again and again", PATIENCE, || {
        bench.dns.asked_for("db.test") >= 2 * 15
    });
    bench
        .dns
        .set("db.test", Says::addresses(300, &["192.0.2.1"]));
    names.wait_for(0, &["192.0.2.1:1"]);
}
