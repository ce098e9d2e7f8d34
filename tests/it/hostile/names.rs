//! Clients that ask for names that nobody answers for.

use super::proxies::{proxy, tunneller};
use super::*;

/// One client has silent names looked up without an end, most of which it gives up at once;
/// others get what is in the cache, and names that are not.
#[test]
fn silent_names_hold_up_nobody_who_asks_for_others() {
    on_every_engine(|case| {
        let (echo, directory, dns) = (Echo::start(), Directory::new(), Dns::start());
        let port = echo.address.port();
        let (resolv, hosts) = (directory.join("resolv.conf"), directory.join("hosts"));
        std::fs::write(&resolv, "options timeout:30 attempts:1\n").unwrap();
        std::fs::write(&hosts, "").unwrap();
        let path = |path: &std::path::Path| format!("\"{}\"", path.display());
        let forwarder = proxy(case, &directory, "header_timeout = \"60s\"")
            .set("global.dns_servers", format!("\"{}\"", dns.address()))
            .set("global.resolv_conf", path(&resolv))
            .set("global.hosts", path(&hosts))
            .start();
        let to = forwarder.address();
        dns.set("web.test", Says::addresses(300, &["127.0.0.1"]));
        let bystander = tunneller(to, format!("web.test:{port}"), "");
        let mut kept = Vec::new();
        for round in 0..5 {
            for n in 0..60 {
                let name = format!("n{n}.z{round}.silent.test");
                dns.set(&name, Says::Silence);
                let mut client = connect_from([0, 66], to).unwrap();
                // It may be told that there are too many of them.
                let asked = write!(client, "CONNECT {name}:443 HTTP/1.1\r\nHost: a\r\n\r\n");
                if asked.is_ok() && n % 4 == 0 {
                    kept.push(client);
                } else {
                    let _ = Socket::from(client).set_linger(Some(Duration::ZERO));
                }
            }
            bystander.goes_on();
            bystander.comes_in();
            let fresh = format!("web{round}.test");
            dns.set(&fresh, Says::addresses(300, &["127.0.0.1"]));
            tunneller(to, format!("{fresh}:{port}"), "").comes_in();
        }
        drop((kept, bystander));
        wait_until("all of them are gone", PATIENCE, || {
            forwarder.counters().of("live") == 0
        });
    });
}
