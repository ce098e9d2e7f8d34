//! PROXY headers in datagrams, out and in.

use std::sync::{Arc, Mutex};

use thalweg::proto::proxy::{self, Announced, Outgoing, Version};

use super::quic::configured;
use super::*;

/// A server that keeps what it gets and says nothing but `ok`.
fn keeper() -> (Server, Arc<Mutex<Vec<Vec<u8>>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let its = kept.clone();
    let server = Server::new(move |datagram| {
        its.lock().unwrap().push(datagram.to_vec());
        vec![b"ok".to_vec()]
    });
    (server, kept)
}

fn header(source: &str, destination: &str) -> Vec<u8> {
    let announced = Announced::Inet {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    };
    let mut header = Vec::new();
    let outgoing = Outgoing {
        version: Version::V2,
        announced: &announced,
        tlvs: &[],
        checksum: true,
    };
    proxy::write_for_datagram(&outgoing, &mut header);
    header
}

#[test]
fn b107_servers_are_told_in_each_datagram_or_in_the_first() {
    on_every_engine(|case| {
        for (send, each) in [
            ("\"v2\"", true),
            (
                "{ version = \"v2\", tlvs = [\"crc32c\", \"unique_id\"], datagrams = \"first\" }",
                false,
            ),
        ] {
            let (server, kept) = keeper();
            let forwarder = configured(
                case,
                &format!(
                    "[[forward]]\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
                     upstream = {{ servers = [\"{}\"], send_proxy = {send} }}\n",
                    server.address()
                ),
            );
            let client = client(forwarder.address());
            let payloads: Vec<Vec<u8>> = (0..6).map(|n| vec![n; 100 * usize::from(n)]).collect();
            for payload in &payloads {
                assert_eq!(ask(&client, payload), b"ok");
            }
            let got = kept.lock().unwrap().clone();
            assert_eq!(got.len(), payloads.len());
            for (number, (datagram, payload)) in got.iter().zip(&payloads).enumerate() {
                if !each && number > 0 {
                    assert_eq!(datagram, payload);
                    continue;
                }
                let (header, len) = proxy::parse_datagram(datagram).expect("a header");
                assert_eq!(&datagram[len..], payload);
                let told = Announced::Inet {
                    source: client.local_addr().unwrap(),
                    destination: forwarder.address(),
                };
                assert_eq!(header.announced, told);
                assert_eq!(header.tlv(proxy::UNIQUE_ID).is_some(), !each);
            }
            // As long as a datagram can be, and a header before it: too long by that.
            client.send(&vec![1; 65_507]).unwrap();
            if each {
                assert_eq!(wait_for_counter(&forwarder, "udp_dropped_too_big", 1), 1);
            } else {
                assert_eq!(answer(&client).as_deref(), Some(&b"ok"[..]));
            }
            assert_eq!(ask(&client, b"after"), b"ok");
        }
    });
}

#[test]
fn b107_a_datagram_without_a_good_header_is_dropped_alone() {
    on_every_engine(|case| {
        let (server, kept) = keeper();
        let forwarder = configured(
            case,
            &format!(
                "[[forward]]\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
                 accept_proxy = \"127.0.0.1\"\nupstream = \"{}\"\nudp_idle_timeout = \"500ms\"\n",
                server.address()
            ),
        );
        let proxy = client(forwarder.address());
        let good = |source: &str, payload: &[u8]| {
            [&header(source, "198.51.100.1:53")[..], payload].concat()
        };
        assert_eq!(ask(&proxy, &good("192.0.2.7:1000", b"one")), b"ok");
        let mut changed = good("192.0.2.7:1000", b"bad");
        changed[20] ^= 1;
        for bad in [
            &b"none"[..],
            b"",
            &changed,
            &good("192.0.2.7:1000", b"")[..20],
        ] {
            proxy.send(bad).unwrap();
        }
        assert_eq!(ask(&proxy, &good("192.0.2.7:1000", b"two")), b"ok");
        // Another client of the same proxy is another flow; an empty payload is one, too.
        assert_eq!(ask(&proxy, &good("[2001:db8::7]:1000", b"")), b"ok");
        assert_eq!(
            wait_for_counter(&forwarder, "udp_dropped_proxy_header", 4),
            4
        );
        let got = kept.lock().unwrap().clone();
        assert_eq!(got, [&b"one"[..], b"two", b""]);
        let records = forwarder.wait_for_sessions(2);
        let clients: Vec<_> = records
            .iter()
            .map(|it| it.text("client").to_owned())
            .collect();
        assert!(
            clients.contains(&"192.0.2.7:1000".to_owned()),
            "{clients:?}"
        );
        let peer = proxy.local_addr().unwrap().to_string();
        assert_eq!(records[0].text("peer"), peer);
    });
}

#[test]
fn b107_a_sender_who_is_not_trusted_is_dropped() {
    on_every_engine(|case| {
        let (server, kept) = keeper();
        let forwarder = configured(
            case,
            &format!(
                "[[forward]]\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
                 accept_proxy = \"10.0.0.0/8\"\nupstream = \"{}\"\n",
                server.address()
            ),
        );
        let proxy = client(forwarder.address());
        let datagram = [&header("192.0.2.7:1", "198.51.100.1:53")[..], b"x"].concat();
        proxy.send(&datagram).unwrap();
        wait_for_counter(&forwarder, "udp_dropped_proxy_header", 1);
        assert!(kept.lock().unwrap().is_empty());
        assert_eq!(forwarder.counters().of("udp_flows"), 0);
    });
}
