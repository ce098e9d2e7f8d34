//! Servers that go and come: all at once (164), by what their discovery says or does not say (165), and for a
//! moment (166).

use std::time::{Duration, Instant};

use super::*;

#[test]
fn b164_without_a_server_a_node_says_so_once_and_takes_it_back_once() {
    let server = Listener::new();
    let address = server.address();
    let directory = Directory::new();
    let _forwarder = Setup::new(address)
        .set("defaults.upstream.check.type", "tcp")
        .set("defaults.upstream.check.interval", "500ms")
        .set("defaults.upstream.check.timeout", "490ms")
        .set("defaults.upstream.check.fall", "3")
        .set("defaults.upstream.check.rise", "2")
        .admin(&directory)
        .start();
    let admin = Admin::at(&directory.join("admin.sock"));
    let mut seen = vec![200];
    let mut server = Some(server);
    let begun = Instant::now();
    // Whatever is seen on the way is part of it; it goes on for a while after the last change.
    let mut settled = None;
    while settled.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(500)) {
        assert!(begun.elapsed() < 2 * PATIENCE, "{seen:?}");
        let status = admin.get("/readyz").status;
        if seen.last() != Some(&status) {
            seen.push(status);
        }
        match seen.len() {
            1 => drop(server.take()),
            2 if server.is_none() => server = Some(Listener::with(address, 64, None)),
            2 => {}
            _ => _ = settled.get_or_insert_with(Instant::now),
        }
    }
    assert_eq!(seen, [200, 503, 200]);
}

/// A forwarder of what `db.test` means, which is asked for often.
fn named(dns: &Dns, directory: &Directory) -> Forwarder {
    Setup::new("db.test:443")
        .set("global.dns_servers", format!("\"{}\"", dns.address()))
        .set("global.hosts", "/dev/null")
        .set("defaults.upstream.resolve_ttl_min", "100ms")
        .set("defaults.upstream.resolve_ttl_max", "200ms")
        .set("defaults.upstream.balance", "hash_address")
        .admin(directory)
        .start()
}

fn says(numbers: &[u8]) -> Says {
    Says::all(0, numbers.iter().map(|it| server(*it).into()))
}

#[test]
fn b165_what_discovery_fails_to_say_changes_nothing_and_a_flood_of_changes_little() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    namespace.run(|| {
        populate(3);
        let (dns, directory) = (Dns::start(), Directory::new());
        dns.set("db.test", says(&[1]));
        let forwarder = named(&dns, &directory);
        let to = forwarder.address();
        assert_eq!(servers_of(5, to), [1; 5]);
        for failure in [
            Says::NX_DOMAIN,
            Says::SERV_FAIL,
            Says::Nothing,
            Says::alias(1, "db.test"),
        ] {
            let asked = dns.asked_for("db.test");
            let what = format!("{failure:?}");
            dns.set("db.test", failure);
            wait_until(&what, PATIENCE, || dns.asked_for("db.test") > asked + 1);
            assert_eq!(servers_of(5, to), [1; 5], "{what}");
            dns.set("db.test", says(&[1]));
            wait_until("it recovers by itself", PATIENCE, || {
                servers_of(5, to) == [1; 5]
            });
        }

        // A hundred changes a second, and one that is the last.
        let (asked, begun) = (dns.asked_for("db.test"), Instant::now());
        for change in 0..60 {
            dns.set("db.test", says(&[1 + change % 2]));
            std::thread::sleep(Duration::from_millis(10));
        }
        dns.set("db.test", says(&[3]));
        wait_until("the last one is used", PATIENCE, || {
            servers_of(5, to) == [3; 5]
        });
        // Each is an answer to a question of A and one of AAAA, ten a second at the most.
        let (asked, took) = (dns.asked_for("db.test") - asked, begun.elapsed());
        let most = 2 * (took.as_millis() as usize / 100 + 2);
        assert!(asked <= most, "{asked} questions in {took:?}");
    });
}

/// `resolve_empty = "obey"`: what is said to have no address has none; a failure says nothing.
#[test]
fn b165_an_empty_name_is_obeyed_by_who_wants_that() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    namespace.run(|| {
        populate(2);
        let (dns, directory) = (Dns::start(), Directory::new());
        dns.set("db.test", says(&[1, 2]));
        let forwarder = Setup::new("db.test:443")
            .set("global.dns_servers", format!("\"{}\"", dns.address()))
            .set("global.hosts", "/dev/null")
            .set("defaults.upstream.resolve_ttl_min", "100ms")
            .set("defaults.upstream.resolve_ttl_max", "200ms")
            .set("defaults.upstream.resolve_empty", "obey")
            .admin(&directory)
            .start();
        let admin = Admin::at(&directory.join("admin.sock"));
        let ready = || admin.get("/readyz").status == 200;
        wait_until("it has servers", PATIENCE, ready);
        for empty in [Says::NX_DOMAIN, Says::Nothing] {
            let what = format!("{empty:?}");
            // Who does not answer has not said that there is none.
            dns.set("db.test", Says::SERV_FAIL);
            let asked = dns.asked_for("db.test");
            wait_until(&what, PATIENCE, || dns.asked_for("db.test") > asked + 2);
            assert!(ready(), "{what}");
            dns.set("db.test", empty);
            wait_until(&what, PATIENCE, || !ready());
            let nobody = client(1, forwarder.address()).and_then(ask);
            assert!(nobody.is_err(), "{what}: {nobody:?}");
            dns.set("db.test", says(&[1, 2]));
            wait_until("it has servers again", PATIENCE, ready);
            let held = client(1, forwarder.address()).unwrap();
            assert!(ask(&held).is_ok());
        }
    });
}

#[test]
fn b166_a_server_that_is_away_for_a_moment_comes_back_as_what_it_was() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    namespace.run(|| {
        populate(3);
        let (dns, directory) = (Dns::start(), Directory::new());
        dns.set("db.test", says(&[1, 2, 3]));
        let forwarder = named(&dns, &directory);
        let (to, admin) = (
            forwarder.address(),
            Admin::at(&directory.join("admin.sock")),
        );
        let started = || admin.get("/metrics").sum("thalweg_server_connects_total");
        let before = servers_of(30, to);
        let of_two = before.iter().position(|it| *it == 2).unwrap() as u8 + 1;
        let held = client(of_two, to).unwrap();
        assert_eq!(ask(&held).unwrap(), 2);
        let counted = started();

        dns.set("db.test", says(&[1, 3]));
        wait_until("it is away", PATIENCE, || !servers_of(30, to).contains(&2));
        assert_eq!(ask(&held).unwrap(), 2, "its sessions live");
        dns.set("db.test", says(&[1, 2, 3]));
        wait_until("it is back", PATIENCE, || servers_of(30, to).contains(&2));
        assert_eq!(servers_of(30, to), before, "its share is what it was");
        assert_eq!(ask(&held).unwrap(), 2);
        assert!(started() >= counted + 60.0, "{} after {counted}", started());
    });
}
