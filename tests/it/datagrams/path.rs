//! Paths with a small MTU, behind and before it.

use super::quic::Network;
use super::*;

/// A forwarder's network and a server's, and between them a router whose second line carries
/// datagrams of at most 1300 bytes.
struct Path {
    near: Namespace,
    far: Namespace,
    _router: Namespace,
}

const SERVER: &str = "10.2.0.2:4000";

impl Path {
    fn new() -> Option<Self> {
        let (near, router, far) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        let (at_router, at_far) = (router.path(), far.path());
        near.run(|| {
            namespace::ip(&format!(
                "link add n0 type veth peer name r0 netns {at_router}"
            ));
            namespace::ip("address add 10.1.0.1/24 dev n0");
            namespace::ip("link set n0 up");
            namespace::ip("route add default via 10.1.0.2");
        });
        router.run(|| {
            namespace::ip(&format!(
                "link add r1 type veth peer name f0 netns {at_far}"
            ));
            namespace::ip("address add 10.1.0.2/24 dev r0");
            namespace::ip("address add 10.2.0.1/24 dev r1");
            namespace::ip("link set r0 up");
            namespace::ip("link set r1 mtu 1300 up");
            namespace::sysctl("net.ipv4.ip_forward", "1");
        });
        far.run(|| {
            namespace::ip("address add 10.2.0.2/24 dev f0");
            namespace::ip("link set f0 mtu 1300 up");
            namespace::ip("route add default via 10.2.0.1");
        });
        Some(Self {
            near,
            far,
            _router: router,
        })
    }

    fn server(&self) -> Server {
        self.far
            .run(|| Server::at(SERVER.parse().unwrap(), |it| vec![it.to_vec()]))
    }
}

/// Waits for the answer to a question, behind others or not.
#[track_caller]
fn is_answered(client: &UdpSocket, question: &[u8]) {
    client.send(question).unwrap();
    while answer(client).expect("an answer") != question {}
}

#[test]
fn b94_a_smaller_mtu_behind_costs_one_datagram_at_the_most() {
    on_every_engine(|case| {
        let Some(path) = Path::new() else { return };
        let server = path.server();
        path.near.run(|| {
            let forwarder = forwarder(case, &[server.address()]).start();
            let client = client(forwarder.address());
            is_answered(&client, b"a first one");
            client.send(&[1; 1400]).unwrap();
            wait_for_counter(&forwarder, "udp_sent_up", 2);
            // The refusal that is pending now costs this one nothing.
            is_answered(&client, b"a small one");
            for n in 2..12 {
                is_answered(&client, &[n; 1400]);
            }
            // As several that come in one piece.
            send_joined(&client, &[33; 5 * 1400], 1400);
            for _ in 0..5 {
                assert_eq!(answer(&client).as_deref(), Some(&[33; 1400][..]));
            }
            let counters = forwarder.counters();
            assert_eq!((counters.of("udp_flows"), counters.of("udp_moved")), (1, 0));
            let sent = counters.of("udp_received_up");
            assert!(server.heard() + 1 >= sent, "{} of {sent}", server.heard());
            assert_eq!(counters.of("udp_sent_up"), sent, "lost here");
        });
    });
}

#[test]
fn b94_what_must_not_be_fragmented_vanishes_and_is_counted() {
    on_every_engine(|case| {
        let Some(path) = Path::new() else { return };
        let server = path.server();
        path.near.run(|| {
            let forwarder = forwarder(case, &[server.address()])
                .set("defaults.fragment", "never")
                .start();
            let client = client(forwarder.address());
            is_answered(&client, b"a first one");
            // The first is lost on the way, those behind it here.
            let mut counted = 0;
            wait_until("one is too large", PATIENCE, || {
                let before = forwarder.counters().of("udp_received_up");
                client.send(&[1; 1400]).unwrap();
                wait_for_counter(&forwarder, "udp_received_up", before + 1);
                is_answered(&client, b"a small one");
                counted = forwarder.counters().of("udp_dropped_too_big");
                counted > 0
            });
            // As large as the path takes: 28 bytes are headers.
            is_answered(&client, &[2; 1272]);
            client.send(&[3; 1273]).unwrap();
            wait_for_counter(&forwarder, "udp_dropped_too_big", counted + 1);
            is_answered(&client, b"again a small one");
            let counters = forwarder.counters();
            assert!(counters.of("udp_dropped_too_big") > counted);
            assert_eq!((counters.of("udp_flows"), counters.of("udp_moved")), (1, 0));
        });
    });
}

#[test]
fn b94_a_transfer_by_quic_finds_the_size_that_passes() {
    on_every_engine(|case| {
        let Some(path) = Path::new() else { return };
        let network = Network::new(&["a.example"]);
        let server = path
            .far
            .run(|| network.server_at("far", "10.2.0.2:0".parse().unwrap()));
        path.near.run(|| {
            let forwarder = forwarder(case, &[server])
                .set("defaults.fragment", "never")
                .start();
            let client = network.client(vec![b"file".to_vec()]);
            let connection = network.connect(&client, forwarder.address(), "a.example");
            let mut largest = 0;
            for _ in 0..20 {
                assert_eq!(network.file(&connection, 200_000), "far");
                largest = connection.stats().path.current_mtu;
                if largest > 1200 {
                    break;
                }
            }
            assert!((1200..=1272).contains(&largest), "{largest}");
            connection.close(0_u32.into(), b"");
            assert_eq!(forwarder.counters().of("udp_flows"), 1);
        });
    });
}
