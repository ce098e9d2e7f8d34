//! PROXY headers out: 52.

use std::io::Read;
use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use thalweg::proto::proxy::{self, Announced, Header};

use super::*;
use crate::kit::peer::Refusing;

/// Reads a header to its last byte, as a server would.
#[track_caller]
fn header(stream: &mut impl Read) -> Header {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a header");
        bytes.push(byte[0]);
        if let Some((header, len)) = proxy::parse(&bytes).expect("well-formed") {
            assert_eq!(len, bytes.len());
            return header;
        }
    }
}

fn sends(server: &str, send: &str) -> String {
    format!("{{ servers = {server}, send_proxy = {send} }}")
}

#[test]
fn b52_each_session_begins_with_one_header_before_any_payload() {
    on_every_path(|case| {
        for send in [
            "\"v1\"",
            "\"v2\"",
            "{ version = \"v2\", tlvs = [\"unique_id\", \"crc32c\"] }",
        ] {
            let server = Listener::new();
            let routed = Routed::start(case, &sends(&to(&server), send), "");
            let mut client = routed.connect();
            client.send(50_000);
            let mut upstream = server.accept();
            let found = header(&mut upstream.stream());
            let expected = Announced::Inet {
                source: client.local(),
                destination: client.remote(),
            };
            assert_eq!(found.announced, expected);
            let tagged = send.contains("unique_id");
            assert_eq!(found.tlv(proxy::UNIQUE_ID).is_some(), tagged);
            assert_eq!(found.tlv(proxy::CRC32C).is_some(), tagged);
            upstream.expect(50_000);
            upstream.send(1000);
            client.expect(1000);
            client.half_close();
            upstream.expect_then_eof(0);
            upstream.half_close();
            client.expect_then_eof(0);
            let record = routed.record();
            // Not a byte of the payload is the header's.
            assert_eq!(record.bytes(), (50_000, 1000));
            routed.check_idle();
        }
    });
}

#[test]
fn b52_a_server_that_speaks_first_has_its_header_at_once() {
    on_every_engine(|case| {
        let server = Listener::new();
        let routed = Routed::start(case, &sends(&to(&server), "\"v2\""), "");
        for _ in 0..2 {
            let client = routed.connect();
            let upstream = server.accept();
            // The client says nothing at all.
            header(&mut upstream.stream());
            write(&upstream, b"220 hello");
            expect_bytes(&client, b"220 hello");
        }
    });
}

#[test]
fn b52_once_for_each_server_tried() {
    on_every_engine(|case| {
        let (refusing, server) = (Refusing::new(), Listener::new());
        let servers = format!("[\"{}\", {}]", refusing.address(), to(&server));
        let upstream = format!(
            "{{ servers = {servers}, send_proxy = \"v1\", max_fails = 0, balance = \"first\" }}"
        );
        let routed = Routed::start(case, &upstream, "");
        let client = routed.connect();
        write(&client, b"payload");
        let upstream = server.accept();
        let line = format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\npayload",
            client.local().port(),
            client.remote().port()
        );
        expect_bytes(&upstream, line);
        drop((client, upstream));
        assert_eq!(routed.record().attempts(), 2);
    });
}

/// As HAProxy has it: one server of a pool expects a header, and another takes it for payload.
#[test]
fn b52_a_server_may_have_another_header_than_its_pool() {
    on_every_engine(|case| {
        let [plain, line, own] = std::array::from_fn(|_| Listener::new());
        let (refusing, full) = (Refusing::new(), "max_fails = 0, max_connections = 1");
        let upstream = format!(
            "{{ send_proxy = \"v2\", balance = \"first\", servers = [\
             {{ address = \"{}\", send_proxy = \"v1\", max_fails = 0 }},\
             {{ address = {}, send_proxy = \"off\", {full} }},\
             {{ address = {}, send_proxy = \"v1\", {full} }},\
             {{ address = {}, {full} }}] }}",
            refusing.address(),
            to(&plain),
            to(&line),
            to(&own)
        );
        let routed = Routed::start(case, &upstream, "");
        let clients = [(); 3].map(|()| {
            let client = routed.connect();
            write(&client, b"payload");
            client
        });
        expect_bytes(&plain.accept(), b"payload");
        let announced = |upstream: &Peer| {
            let found = header(&mut upstream.stream());
            expect_bytes(upstream, b"payload");
            found.announced
        };
        // The servers take one client each, whichever comes first.
        let told = [announced(&line.accept()), announced(&own.accept())];
        let whose = |announced: &Announced| {
            let is_whose = |client: &Peer| {
                *announced
                    == Announced::Inet {
                        source: client.local(),
                        destination: client.remote(),
                    }
            };
            clients.iter().position(is_whose).unwrap()
        };
        assert_ne!(whose(&told[0]), whose(&told[1]));
    });
}

#[test]
fn b52_spares_are_told_of_the_client_that_takes_them() {
    on_every_engine(|case| {
        let server = Listener::new();
        let upstream = format!(
            "{{ servers = {}, send_proxy = \"v2\", warm = 1 }}",
            to(&server)
        );
        let routed = Routed::start(case, &upstream, "");
        let spare = server.accept();
        // Nobody's yet: nothing is said.
        assert!(!spare.is_readable_within(Duration::from_millis(100)));
        let client = routed.connect();
        write(&client, b"x");
        let found = header(&mut spare.stream());
        assert!(
            matches!(found.announced, Announced::Inet { source, .. } if source == client.local())
        );
        expect_bytes(&spare, b"x");
    });
}

#[test]
fn b52_ipv6_and_unix_sources() {
    on_every_engine(|case| {
        let server = Listener::new();
        let directory = Directory::new();
        let path = directory.join("front.sock");
        let file = directory.join("out.toml");
        let text = format!(
            "[[forward]]\nname = \"six\"\nlisten = \"[::1]:0\"\nupstream = {}\n\
             [[forward]]\nname = \"unix\"\nlisten = \"unix:{}\"\nupstream = {}\n",
            sends(&to(&server), "\"v1\""),
            path.display(),
            sends(&to(&server), "\"v2\""),
        );
        std::fs::write(&file, text).unwrap();
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            return skip("a header of IPv6", "no IPv6 here");
        }
        let forwarder = Setup::configured(&file, 2).case(case).start();
        let client = Peer::connect(forwarder.address());
        let upstream = server.accept();
        let found = header(&mut upstream.stream());
        let expected = Announced::Inet {
            source: client.local(),
            destination: client.remote(),
        };
        assert_eq!(found.announced, expected);

        let client = UnixStream::connect(&path).unwrap();
        let upstream = server.accept();
        let found = header(&mut upstream.stream());
        let Announced::Unix {
            source,
            destination,
        } = found.announced
        else {
            panic!("{found:?}");
        };
        assert_eq!(
            (source, destination),
            (Vec::new(), path.as_os_str().as_encoded_bytes().to_vec())
        );
        drop(client);
    });
}

#[test]
fn b52_health_checks_say_that_they_are_nobodys() {
    on_every_engine(|case| {
        for (send, check) in [("v2", "tcp"), ("v1", "tcp"), ("v2", "http")] {
            let server = Listener::new();
            let check = if check == "http" {
                "{ type = \"http\", interval = \"50ms\", timeout = \"50ms\" }"
            } else {
                "{ type = \"tcp\", interval = \"50ms\", timeout = \"50ms\" }"
            };
            let upstream = format!(
                "{{ servers = {}, send_proxy = \"{send}\", check = {check} }}",
                to(&server)
            );
            let _routed = Routed::start(case, &upstream, "");
            let checked = server.accept();
            let found = header(&mut checked.stream());
            let expected = if send == "v2" {
                Announced::Local
            } else {
                Announced::Unknown
            };
            assert_eq!(found.announced, expected);
            if check.contains("http") {
                expect_bytes(&checked, b"GET / HTTP/1.1\r\n");
            }
        }
    });
}

/// A chain: what came in a header goes on in the next, with what it said besides.
#[test]
fn b52_an_announced_client_goes_on_to_the_server() {
    on_every_engine(|case| {
        let server = Listener::new();
        let tlvs = "{ version = \"v2\", tlvs = [\"authority\", \"unique_id\", \"crc32c\"] }";
        let accept = "accept_proxy = \"127.0.0.1\"\n";
        let routed = Routed::start(case, &sends(&to(&server), tlvs), accept);
        let announced = Announced::Inet {
            source: "192.0.2.7:1".parse().unwrap(),
            destination: "198.51.100.1:443".parse().unwrap(),
        };
        let outgoing = proxy::Outgoing {
            version: proxy::Version::V2,
            announced: &announced,
            tlvs: &[(proxy::UNIQUE_ID, b"before")],
            checksum: false,
        };
        let mut bytes = Vec::new();
        proxy::write(&outgoing, &mut bytes);
        let client = routed.connect();
        write(&client, bytes);
        write(&client, hello(&[sni(b"a.example")], 16_384));
        let upstream = server.accept();
        let found = header(&mut upstream.stream());
        assert_eq!(found.announced, announced);
        assert_eq!(found.tlv(proxy::UNIQUE_ID), Some(&b"before"[..]));
        assert_eq!(found.tlv(proxy::AUTHORITY), Some(&b"a.example"[..]));
        expect_bytes(&upstream, hello(&[sni(b"a.example")], 16_384));
    });
}
