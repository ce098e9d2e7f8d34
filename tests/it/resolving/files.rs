//! The hosts file, resolv.conf, and what DNS is never asked.

use std::net::SocketAddr;
use std::time::Duration;

use super::bench::{Bench, host};
use crate::kit::{Dns, Namespace, PATIENCE, Says, wait_until};

#[test]
fn addresses_localhost_and_the_hosts_file_never_reach_dns() {
    let bench = Bench::new();
    bench.write_hosts(
        "192.0.2.7 Box.Test xn--bcher-kva.test # a comment\n2001:db8::7 box.test\nnonsense\n",
    );
    bench
        .dns
        .set("box.test", Says::addresses(1, &["192.0.2.99"]));
    let names = bench.keep(&[
        host("192.0.2.1", 1),
        host("[2001:db8::1]", 1),
        host("::ffff:192.0.2.1", 1),
        host("localhost", 1),
        host("some.localhost", 1),
        host("box.test", 1),
        host("xn--bcher-kva.test", 1),
    ]);
    assert!(names.resolver.first(PATIENCE));
    for (id, addresses) in [
        &["192.0.2.1:1"][..],
        &["[2001:db8::1]:1"],
        &["192.0.2.1:1"],
        &["127.0.0.1:1", "[::1]:1"],
        &["127.0.0.1:1", "[::1]:1"],
        &["192.0.2.7:1", "[2001:db8::7]:1"],
        &["192.0.2.7:1"],
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(names.sorted(id as u32), *addresses);
    }
    assert_eq!(bench.dns.asked(), []);
}

#[test]
fn the_hosts_file_is_read_again_when_it_has_changed() {
    let bench = Bench::new();
    bench.write_hosts("192.0.2.1 box.test\n");
    bench
        .dns
        .set("box.test", Says::addresses(1, &["192.0.2.9"]));
    let names = bench.keep(&[host("box.test", 1)]);
    names.wait_for(0, &["192.0.2.1:1"]);
    bench.write_hosts("192.0.2.2 box.test\n192.0.2.3 box.test\n");
    names.wait_for(0, &["192.0.2.2:1", "192.0.2.3:1"]);
    std::fs::remove_file(&bench.sources.hosts).unwrap();
    names.wait_for(0, &["192.0.2.9:1"]);
    assert!(
        names.lines(&["WARN"]).is_empty(),
        "{:?}",
        names.lines(&[""])
    );
}

#[test]
fn b59_resolv_conf_is_read_again_when_it_has_changed() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    namespace.run(|| {
        let mut bench = Bench::new();
        let server = |n: u8| Dns::start_at(SocketAddr::from(([127, 0, 53, n], 53)));
        let (one, two) = (server(1), server(2));
        one.set("db.test", Says::addresses(1, &["192.0.2.1"]));
        two.set("db.test", Says::addresses(1, &["192.0.2.2"]));
        bench.sources.dns_servers.clear();
        bench.write_resolv_conf("nameserver 127.0.53.1\n");
        let names = bench.keep(&[host("db.test", 1)]);
        names.wait_for(0, &["192.0.2.1:1"]);
        bench.write_resolv_conf("nameserver 127.0.53.2\n");
        names.wait_for(0, &["192.0.2.2:1"]);
        names.wait_for_line(&["has changed; name servers: 127.0.53.2"]);
        assert_eq!(bench.dns.asked(), []);
    });
}

#[test]
fn without_a_resolv_conf_the_name_server_of_this_host_is_asked() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    namespace.run(|| {
        let mut bench = Bench::new();
        let local = Dns::start_at(SocketAddr::from(([127, 0, 0, 1], 53)));
        local.set("db.test", Says::addresses(1, &["192.0.2.1"]));
        bench.sources.dns_servers.clear();
        std::fs::remove_file(&bench.sources.resolv_conf).unwrap();
        let names = bench.keep(&[host("db.test", 1)]);
        names.wait_for(0, &["192.0.2.1:1"]);
        names.wait_for_line(&["WARN", "cannot read", "127.0.0.1 is asked"]);
        // Not one word more each time that a name is asked for.
        let asked = local.asked_for("db.test");
        wait_until("it is asked again", PATIENCE, || {
            local.asked_for("db.test") > asked + 6
        });
        assert_eq!(names.lines(&["WARN"]).len(), 1);

        bench.write_resolv_conf("domain test\n");
        names.wait_for_line(&["has changed; name servers: 127.0.0.1"]);
    });
}

#[test]
fn the_search_list_counts_for_names_with_few_dots() {
    let bench = Bench::new();
    bench.write_resolv_conf("search first.test second.test\noptions ndots:1 timeout:1\n");
    let address = |text| Says::addresses(300, &[text]);
    bench.dns.set("db.second.test", address("192.0.2.1"));
    bench.dns.set("db", address("192.0.2.9"));
    bench.dns.set("a.db", address("192.0.2.2"));
    bench.dns.set("a.db.first.test", address("192.0.2.9"));
    bench.dns.set("b.db.second.test", address("192.0.2.3"));
    let names = bench.keep(&[
        host("db", 1),
        host("a.db", 1),
        host("b.db", 1),
        host("db.", 1),
    ]);
    names.wait_for(0, &["192.0.2.1:1"]);
    names.wait_for(1, &["192.0.2.2:1"]);
    names.wait_for(2, &["192.0.2.3:1"]);
    names.wait_for(3, &["192.0.2.9:1"]);
}

#[test]
fn name_servers_are_asked_in_order_and_the_next_when_one_cannot_tell() {
    for failure in [Says::Silence, Says::SERV_FAIL] {
        let mut bench = Bench::new();
        let second = Dns::start();
        bench.sources.dns_servers.push(second.address());
        bench.dns.set("db.test", failure);
        second.set("db.test", Says::addresses(1, &["192.0.2.1"]));
        bench.dns.set("gone.test", Says::NX_DOMAIN);
        second.set("gone.test", Says::addresses(1, &["192.0.2.2"]));
        let names = bench.keep(&[host("db.test", 1), host("gone.test", 1)]);
        names.wait_for(0, &["192.0.2.1:1"]);
        names.wait_for_line(&["gone.test: ", "NXDOMAIN"]);
        assert_eq!(second.asked_for("gone.test"), 0, "NXDOMAIN is believed");
    }
}

#[test]
fn a_name_server_that_is_not_there_is_passed_over() {
    let mut bench = Bench::new();
    let gone = Dns::start().address();
    bench.sources.dns_servers.insert(0, gone);
    bench.dns.set("db.test", Says::addresses(1, &["192.0.2.1"]));
    let names = bench.keep(&[host("db.test", 1)]);
    names.wait_for(0, &["192.0.2.1:1"]);

    bench.sources.dns_servers.truncate(1);
    let alone = bench.keep_for(&[host("db.test", 1)], Duration::ZERO, PATIENCE);
    let refused = format!("{gone}: Connection refused");
    alone.wait_for_line(&["no name server could be asked: ", &refused]);
}

#[test]
fn what_is_no_file_is_said_and_never_waited_for() {
    let mut bench = Bench::new();
    bench.dns.set("db.test", Says::addresses(1, &["192.0.2.1"]));
    let pipe = bench.directory.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    bench.sources.hosts.clone_from(&pipe);
    let names = bench.keep(&[host("db.test", 1)]);
    names.wait_for(0, &["192.0.2.1:1"]);
    names.wait_for_line(&["WARN", "cannot read", "it is not a file"]);

    let mut bench = Bench::new();
    bench.dns.set("db.test", Says::addresses(1, &["192.0.2.1"]));
    bench.sources.hosts = "/dev/null".into();
    let names = bench.keep(&[host("db.test", 1)]);
    names.wait_for(0, &["192.0.2.1:1"]);
    assert!(names.lines(&["WARN"]).is_empty());
}
