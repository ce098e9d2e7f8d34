//! SRV records: targets, ports, priorities and weights.

use thalweg::control::resolve::Resolved;

use super::bench::{Bench, service};
use crate::kit::{Dns, PATIENCE, Says, wait_until};

const SERVICE: &str = "_db._tcp.test";

fn of(priority: u16, weight: u16, endpoint: &str) -> Resolved {
    Resolved {
        priority,
        weight,
        endpoint: endpoint.parse().unwrap(),
    }
}

fn set_hosts(dns: &Dns) {
    let two = Says::addresses(1, &["192.0.2.1", "192.0.2.2"]);
    dns.set("a.test", two);
    dns.set("b.test", Says::addresses(1, &["192.0.2.3"]));
}

#[test]
fn a_service_is_its_targets_with_ports_priorities_and_weights() {
    let bench = Bench::new();
    set_hosts(&bench.dns);
    let targets = [(10, 5, 5432, "a.test"), (5, 0, 6000, "B.test")];
    bench.dns.set(SERVICE, Says::services(1, &targets));
    let names = bench.keep(&[service(SERVICE)]);
    assert!(names.resolver.first(PATIENCE));
    assert_eq!(
        names.answers(0),
        [[
            of(5, 0, "192.0.2.3:6000"),
            of(10, 5, "192.0.2.1:5432"),
            of(10, 5, "192.0.2.2:5432"),
        ]]
    );

    // Another weight is another set; so is another target.
    let heavier = [(10, 6, 5432, "a.test"), (5, 0, 6000, "b.test")];
    bench.dns.set(SERVICE, Says::services(1, &heavier));
    wait_until("the weight", PATIENCE, || {
        names.answers(0).last().unwrap()[1].weight == 6
    });
    bench.dns.set(SERVICE, Says::services(1, &heavier[..1]));
    names.wait_for(0, &["192.0.2.1:5432", "192.0.2.2:5432"]);
    bench.dns.set("a.test", Says::addresses(1, &["192.0.2.2"]));
    names.wait_for(0, &["192.0.2.2:5432"]);
}

#[test]
fn b58_a_service_that_fails_keeps_its_targets_which_are_still_looked_up() {
    for (failure, reason) in [
        (Says::NX_DOMAIN, "NXDOMAIN"),
        (Says::Nothing, "no SRV record"),
        (Says::services(1, &[(0, 0, 1, ".")]), "not to be offered"),
    ] {
        let bench = Bench::new();
        set_hosts(&bench.dns);
        let targets = [(0, 1, 5432, "b.test")];
        bench.dns.set(SERVICE, Says::services(1, &targets));
        let names = bench.keep(&[service(SERVICE)]);
        names.wait_for(0, &["192.0.2.3:5432"]);

        bench.dns.set(SERVICE, failure);
        names.wait_for_line(&["WARN", "name srv:_db._tcp.test: ", reason]);
        assert_eq!(names.sorted(0), ["192.0.2.3:5432"]);
        bench.dns.set("b.test", Says::addresses(1, &["192.0.2.4"]));
        names.wait_for(0, &["192.0.2.4:5432"]);
    }
}

#[test]
fn b58_a_target_that_fails_keeps_its_own_addresses_only() {
    let bench = Bench::new();
    set_hosts(&bench.dns);
    let targets = [(0, 1, 1, "a.test"), (0, 1, 2, "b.test")];
    bench.dns.set(SERVICE, Says::services(1, &targets));
    let names = bench.keep(&[service(SERVICE)]);
    names.wait_for(0, &["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:2"]);
    bench.dns.set("a.test", Says::SERV_FAIL);
    bench.dns.set("b.test", Says::addresses(1, &["192.0.2.8"]));
    names.wait_for(0, &["192.0.2.1:1", "192.0.2.2:1", "192.0.2.8:2"]);
    names.wait_for_line(&["WARN", "SERVFAIL"]);
    // Once the service no longer has it, what was known of it is forgotten.
    bench.dns.set(SERVICE, Says::services(1, &targets[1..]));
    names.wait_for(0, &["192.0.2.8:2"]);
}
