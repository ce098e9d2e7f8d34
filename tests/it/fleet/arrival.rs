//! Addresses that come and go with who has them now, and paths that take less than they say (167).

use std::net::SocketAddr;

use super::*;
use crate::kit::namespace::Firewall;
use crate::kit::peer::transfer;

#[test]
fn b167_an_address_that_is_not_there_yet_is_served_once_it_is() {
    on_every_engine(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            populate(1);
            let forwarder = Setup::between("10.5.0.1:443", "10.8.0.1:443")
                .and("udp:10.5.0.1:53", "udp:10.8.0.1:53")
                .set("profile.default.free_bind", "true")
                .set("defaults.idle_timeout", "4s")
                .set("defaults.udp_idle_timeout", "4s")
                .engine(case.engine)
                .start();
            let (tcp, udp) = ([10, 5, 0, 1], [10, 5, 0, 1]);
            let (tcp, udp) = (SocketAddr::from((tcp, 443)), SocketAddr::from((udp, 53)));
            assert!(client(1, tcp).is_err());
            ip("addr add 10.5.0.1/32 dev lo");
            let held = client(1, tcp).unwrap();
            assert_eq!(ask(&held).unwrap(), 1);
            let asker = asker(1, udp);
            // The answer comes from the address that was asked: it is connected to that.
            assert_eq!(ask_by_datagram(&asker).unwrap(), 1);

            ip("addr del 10.5.0.1/32 dev lo");
            // Sessions end by their timers, and nothing is said again and again.
            forwarder.wait_for_sessions(1);
            assert!(client(1, tcp).is_err());
            let complaints = forwarder.complaints();
            assert!(complaints.len() < 5, "{complaints:?}");
            ip("addr add 10.5.0.1/32 dev lo");
            assert_eq!(servers_of(3, tcp), [1; 3]);
        });
    });
}

/// A client behind a router whose next line takes 1,300 bytes, and that may not say so.
struct Narrow {
    near: Namespace,
    _router: Namespace,
    far: Namespace,
}

impl Narrow {
    fn new() -> Option<Self> {
        let (near, router, far) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        router.run(|| {
            for (name, at, peer) in [("near", "10.1.0.1", &near), ("far", "10.2.0.1", &far)] {
                ip(&format!(
                    "link add {name} type veth peer name wire netns {}",
                    peer.path()
                ));
                ip(&format!("addr add {at}/24 dev {name}"));
                ip(&format!("link set {name} up"));
            }
            namespace::sysctl("net.ipv4.ip_forward", "1");
            // Behind it the line is narrower than its ends know.
            ip("route replace 10.1.0.0/24 dev near mtu lock 1300");
            let firewall = Firewall::new()?;
            let _ = firewall;
            namespace::nft(
                "add chain inet thalweg_test out { type filter hook output priority 0; }",
            )
            .then_some(())?;
            namespace::nft("add rule inet thalweg_test out icmp type destination-unreachable drop")
                .then_some(())
        })?;
        for (end, own, router) in [
            (&near, "10.1.0.2", "10.1.0.1"),
            (&far, "10.2.0.2", "10.2.0.1"),
        ] {
            end.run(|| {
                ip(&format!("addr add {own}/24 dev wire"));
                ip("link set wire up");
                ip(&format!("route add default via {router}"));
            });
        }
        Some(Self {
            near,
            _router: router,
            far,
        })
    }
}

#[test]
fn b167_an_mss_gets_large_segments_through_where_nobody_may_say_too_big() {
    let Some(path) = Narrow::new() else { return };
    // The forwarder is on the far side, with its server.
    let (forwarder, server) = path.far.run(|| {
        let server = Listener::new();
        let forwarder = Setup::between("10.2.0.2:443", server.address())
            .set("profile.narrow.mss", "1200")
            .set("defaults.client_profile", "narrow")
            .start();
        (forwarder, server)
    });
    path.near.run(|| {
        let mut client = Peer::connect(forwarder.address());
        let mut upstream = server.accept();
        transfer(&mut client, &mut upstream, 1 << 20);
        // Towards the client is where large segments are lost.
        transfer(&mut upstream, &mut client, 10 << 20);
    });
}
