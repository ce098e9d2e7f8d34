//! The same tables on every node (161), and what clients notice when their router takes one away (162).

use std::net::SocketAddr;

use super::*;
use crate::kit::namespace::sysctl;

const SITE: &str = "198.51.100.1";
const CLIENTS: u8 = 40;

#[test]
fn b161_the_same_servers_are_the_same_table_on_every_node() {
    const ALL: u8 = 120;
    let Some(namespace) = Namespace::new() else {
        return;
    };
    namespace.run(|| {
        populate(6);
        let hashed = |setup: Setup| setup.set("defaults.upstream.balance", "hash_address");
        let listed_so = |numbers: &[u8]| {
            hashed(Setup::new(listed(numbers, "", 443)))
                .reactors(2)
                .start()
        };
        let (one, two) = (listed_so(&[1, 2, 3, 4, 5]), listed_so(&[4, 2, 5, 1, 3]));
        // By a name, in whatever order that is answered.
        let dns = Dns::start();
        let answer = |numbers: &[u8]| {
            let addresses = numbers.iter().map(|it| server(*it).into());
            Says::all(1, addresses)
        };
        dns.set("web.test", answer(&[5, 3, 1, 2, 4]));
        let three = hashed(Setup::new("web.test:443"))
            .set("global.dns_servers", format!("\"{}\"", dns.address()))
            .set("global.hosts", "/dev/null")
            .set("defaults.upstream.resolve_ttl_min", "100ms")
            .set("defaults.upstream.resolve_ttl_max", "300ms")
            .start();
        let tables = [&one, &two, &three].map(|it| servers_of(ALL, it.address()));
        assert_eq!(tables[0], tables[1]);
        assert_eq!(tables[0], tables[2]);
        for server in 1..=5 {
            assert!(tables[0].contains(&server), "{tables:?}");
        }

        // Discovery is ahead at one of them: a server has another's place.
        dns.set("web.test", answer(&[1, 2, 3, 4, 6]));
        wait_until("the answer is used", PATIENCE, || {
            servers_of(ALL, three.address()).contains(&6)
        });
        let ahead = servers_of(ALL, three.address());
        let pairs = tables[0].iter().zip(&ahead);
        let others =
            pairs.filter(|(before, after)| before != after && **before != 5 && **after != 6);
        // One of a hundred is what Maglev moves beside it. The hash is the same everywhere: a number, and no chance.
        assert!(others.count() <= 1, "{tables:?}\n{ahead:?}");
        assert!(!ahead.contains(&5));
    });
}

/// A node in a namespace, wired to the one where the router is.
fn node(router: &Namespace, number: u8) -> Option<Namespace> {
    let node = Namespace::new()?;
    router.run(|| {
        ip(&format!(
            "link add to{number} type veth peer name wire netns {}",
            node.path()
        ));
        ip(&format!("addr add 10.9.{number}.1/24 dev to{number}"));
        ip(&format!("link set to{number} up"));
    });
    node.run(|| {
        ip(&format!("addr add 10.9.{number}.2/24 dev wire"));
        ip("link set wire up");
        ip(&format!("addr add {SITE}/32 dev lo"));
        ip(&format!("route add default via 10.9.{number}.1"));
    });
    Some(node)
}

#[test]
fn b162_of_a_node_that_is_taken_away_clients_hear_at_once_and_keep_their_server() {
    on_every_engine(|case| {
        let Some(router) = Namespace::new() else {
            return;
        };
        let (Some(one), Some(two)) = (node(&router, 1), node(&router, 2)) else {
            return;
        };
        router.run(|| {
            // By addresses and ports, so that both nodes have clients of each address.
            sysctl("net.ipv4.fib_multipath_hash_policy", "1");
            ip(&format!(
                "route add {SITE} nexthop via 10.9.1.2 nexthop via 10.9.2.2"
            ));
            populate(5);
        });
        let all = [1, 2, 3, 4, 5];
        let start = || {
            Setup::between(format!("{SITE}:443"), listed(&all, "", 443))
                .and(format!("udp:{SITE}:53"), listed(&all, "udp:", 53))
                .set("defaults.upstream.balance", "hash_address")
                .engine(case.engine)
                .start()
        };
        let nodes = (one.run(start), two.run(start));
        router.run(|| {
            let (tcp, udp): (SocketAddr, SocketAddr) = (
                format!("{SITE}:443").parse().unwrap(),
                format!("{SITE}:53").parse().unwrap(),
            );
            let each = 1..=CLIENTS;
            let held: Vec<_> = each.clone().map(|it| client(it, tcp).unwrap()).collect();
            let before: Vec<u8> = held.iter().map(|it| ask(it).unwrap()).collect();
            let askers: Vec<_> = each.map(|it| asker(it, udp)).collect();
            let asked: Vec<u8> = askers
                .iter()
                .map(|it| ask_by_datagram(it).unwrap())
                .collect();
            assert!(nodes.0.counters().of("accepted") > 0);
            assert!(nodes.1.counters().of("accepted") > 0);

            // The node itself goes on, but nothing comes to it any more.
            ip(&format!("route replace {SITE} via 10.9.1.2"));
            let (mut kept, mut reset) = (0, 0);
            for (stream, before) in held.iter().zip(&before) {
                match ask(stream) {
                    Ok(server) => {
                        assert_eq!(server, *before);
                        kept += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
                        reset += 1;
                    }
                }
            }
            assert!(kept > 0 && reset > 0, "{kept} kept, {reset} reset");
            // New connects and flows come to the server that they had.
            assert_eq!(servers_of(CLIENTS, tcp), before);
            let now: Vec<u8> = askers
                .iter()
                .map(|it| ask_by_datagram(it).unwrap())
                .collect();
            assert_eq!(now, asked);
        });
    });
}
