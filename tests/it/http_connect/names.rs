//! Names that clients give, while other clients give ones that nobody answers for.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Socket, Type};

use super::{ESTABLISHED, LOOPBACK, Proxy, expect_text, port_of, request, write};
use crate::kit::*;

/// A proxy that asks this name server alone, and waits long for it.
fn proxy(case: Case, dns: &Dns) -> Proxy {
    let table = format!("{LOOPBACK}header_timeout = \"60s\"\n");
    Proxy::start_with(case, &table, |setup, directory| {
        let options = "options timeout:30 attempts:1\n";
        std::fs::write(directory.join("resolv.conf"), options).unwrap();
        std::fs::write(directory.join("hosts"), "").unwrap();
        let path = |file| format!("\"{}\"", directory.join(file).display());
        setup
            .set("global.dns_servers", format!("\"{}\"", dns.address()))
            .set("global.resolv_conf", path("resolv.conf"))
            .set("global.hosts", path("hosts"))
    })
}

/// Somebody at another address of this host.
fn client_at(last: u8, to: SocketAddr) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::new(IpAddr::from([127, 0, 13, last]), 0);
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Peer::client(socket.into())
}

#[test]
fn a_crowd_gets_what_is_remembered() {
    on_every_engine(|case| {
        let (dns, server) = (Dns::start(), Listener::new());
        dns.set("web.test", Says::addresses(300, &["127.0.0.1"]));
        let proxy = proxy(case, &dns);
        let target = format!("web.test:{}", port_of(&server));
        drop(proxy.tunnel(&target));
        let asked = dns.asked().len();
        // Meanwhile the same client has all the silent names it may have under way.
        let silent: Vec<Peer> = (0..300)
            .map(|n| {
                dns.set(&format!("n{n}.z{n}.test"), Says::Silence);
                let client = proxy.connect();
                write(&client, request(format!("n{n}.z{n}.test:443")));
                client
            })
            .collect();
        for _ in 0..10 {
            let crowd: Vec<Peer> = (0..50)
                .map(|_| {
                    let client = proxy.connect();
                    write(&client, request(&target));
                    client
                })
                .collect();
            for client in &crowd {
                expect_text(client, ESTABLISHED);
            }
        }
        assert!(!dns.asked()[asked..].iter().any(|it| it.name == "web.test"));
        drop(silent);
    });
}

#[test]
fn silent_names_of_one_client_deny_no_other() {
    on_every_engine(|case| {
        let (dns, server) = (Dns::start(), Listener::new());
        let proxy = proxy(case, &dns);
        let sockets = || proxy.process().descriptors().sockets;
        let idle = sockets();
        let mut kept = Vec::new();
        for n in 0..400_u32 {
            // Most are given up at once; some are kept.
            let name = format!("n{n}.z{n}.silent.test");
            dns.set(&name, Says::Silence);
            let client = client_at(1, proxy.address());
            write(&client, request(format!("{name}:443")));
            match n % 4 {
                0 => kept.push(client),
                _ => client.reset(),
            }
            if n % 20 == 0 {
                let name = format!("web{n}.test");
                dns.set(&name, Says::addresses(300, &["127.0.0.1"]));
                let innocent = client_at(2, proxy.address());
                write(&innocent, request(format!("{name}:{}", port_of(&server))));
                expect_text(&innocent, ESTABLISHED);
                innocent.reset();
            }
        }
        assert_eq!(proxy.counters().of("http_connect_200"), 20);
        // Whoever goes takes his question with him.
        kept.into_iter().for_each(Peer::reset);
        wait_until("nothing is asked for any more", PATIENCE, || {
            sockets() <= idle
        });
    });
}
