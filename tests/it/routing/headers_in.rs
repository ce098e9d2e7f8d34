//! PROXY headers in: 47 to 51.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use super::*;

const ACCEPT: &str = "accept_proxy = [\"127.0.0.0/8\"]\n";

/// A header of version 1 for a client that is another.
const LINE: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 40007 443\r\n";

fn headers() -> Vec<(Vec<u8>, &'static str)> {
    let client = "192.0.2.8:40008".parse().unwrap();
    let four = addresses(client, "198.51.100.1:443".parse().unwrap());
    vec![
        (LINE.as_bytes().to_vec(), "192.0.2.7:40007"),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 40007 443\r\n".to_vec(),
            "[2001:db8::7]:40007",
        ),
        (binary(0x21, 0x11, &four), "192.0.2.8:40008"),
    ]
}

#[test]
fn b47_a_header_dripped_or_glued_to_payload_leaves_the_payload_exact() {
    on_every_path(|case| {
        let server = Listener::new();
        let routed = Routed::start(case, &to(&server), ACCEPT);
        for (header, announced) in headers() {
            for dripped in [true, false] {
                let mut client = routed.connect();
                let peer = client.local();
                if dripped {
                    drip(&client, &header);
                } else {
                    socket2::SockRef::from(client.stream())
                        .send_with_flags(&header, libc::MSG_MORE)
                        .unwrap();
                }
                client.send(100_000);
                let mut upstream = server.accept();
                upstream.expect(100_000);
                upstream.send(1000);
                client.expect(1000);
                client.half_close();
                upstream.expect_then_eof(0);
                upstream.half_close();
                client.expect_then_eof(0);
                let record = routed.record();
                assert_eq!((record.code(), record.lost()), ("--", 0));
                assert_eq!(record.bytes(), (100_000, 1000));
                // Both addresses: of the client, and of who spoke for it.
                assert_eq!(record.text("client"), announced);
                assert_eq!(record.text("peer"), peer.to_string());
            }
        }
        routed.check_idle();
    });
}

/// Sends what is no header; the cause in the record.
#[track_caller]
fn refused(routed: &Routed, bytes: &[u8]) -> String {
    // Who is turned away by his address alone may learn of it before `connect` returns.
    match Peer::try_connect(routed.forwarder.address()) {
        Ok(client) => {
            write(&client, bytes);
            assert!(is_turned_away(&client), "{}", bytes.escape_ascii());
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    let record = routed.record();
    assert_eq!(record.code(), "PR");
    record.cause().to_owned()
}

/// What it says is accepted, for the client that is really there.
#[track_caller]
fn accepted(routed: &Routed, server: &Listener, header: &[u8]) {
    let client = routed.connect();
    write(&client, header);
    write(&client, b"payload");
    let upstream = server.accept();
    expect_bytes(&upstream, b"payload");
    let local = client.local();
    drop((client, upstream));
    let record = routed.record();
    assert_eq!(record.text("client"), local.to_string());
}

#[test]
fn b48_lines_of_version_1() {
    on_every_engine(|case| {
        let server = Listener::new();
        let routed = Routed::start(case, &to(&server), ACCEPT);
        let endless = format!("PROXY UNKNOWN {}\r\n", "x".repeat(120));
        for line in [
            endless.as_str(),
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rx",
            "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
        ] {
            assert_eq!(refused(&routed, line.as_bytes()), "bad_proxy_header");
        }
        for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ff:: any junk 1 2\r\n"] {
            accepted(&routed, &server, line.as_bytes());
        }
        routed.check_idle();
    });
}

#[test]
fn b49_headers_of_version_2() {
    on_every_engine(|case| {
        let server = Listener::new();
        let routed = Routed::start(case, &to(&server), ACCEPT);
        let four = [0; 12];
        for header in [
            binary(0x11, 0x11, &four),
            binary(0x22, 0x11, &four),
            binary(0x21, 0x41, &four),
            binary(0x21, 0x11, &[]),
            binary(0x21, 0x11, &four[..11]),
            // A length of 65535: known to be too long before any of it has come.
            [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(),
        ] {
            assert_eq!(refused(&routed, &header), "bad_proxy_header");
        }
        accepted(&routed, &server, &binary(0x20, 0, &[]));
        accepted(&routed, &server, &binary(0x20, 0x11, &four));
        routed.check_idle();
    });
}

#[test]
fn b50_tlvs_and_the_checksum() {
    on_every_engine(|case| {
        let server = Listener::new();
        let routed = Routed::start(case, &to(&server), ACCEPT);
        let four = addresses(
            "192.0.2.8:1".parse().unwrap(),
            "192.0.2.9:2".parse().unwrap(),
        );
        let overrun = [&four[..], &[1, 0, 9, b'h']].concat();
        assert_eq!(
            refused(&routed, &binary(0x21, 0x11, &overrun)),
            "bad_proxy_header"
        );
        let outgoing = thalweg::proto::proxy::Outgoing {
            version: thalweg::proto::proxy::Version::V2,
            announced: &thalweg::proto::proxy::Announced::Inet {
                source: "192.0.2.8:1".parse().unwrap(),
                destination: "192.0.2.9:2".parse().unwrap(),
            },
            tlvs: &[(2, b"a.example")],
            checksum: true,
        };
        let mut right = Vec::new();
        thalweg::proto::proxy::write(&outgoing, &mut right);
        let client = routed.connect();
        write(&client, &right);
        write(&client, b"payload");
        let upstream = server.accept();
        expect_bytes(&upstream, b"payload");
        drop((client, upstream));
        assert_eq!(routed.record().text("client"), "192.0.2.8:1");
        let last = right.len() - 1;
        right[last] ^= 1;
        assert_eq!(refused(&routed, &right), "bad_proxy_header");
        routed.check_idle();
    });
}

#[test]
fn b51_a_header_is_required_and_only_of_who_is_trusted() {
    on_every_engine(|case| {
        let server = Listener::new();
        let routed = Routed::start(case, &to(&server), ACCEPT);
        assert_eq!(
            refused(&routed, b"GET / HTTP/1.1\r\n\r\n"),
            "no_proxy_header"
        );
        drop(routed);
        // Whoever is not named is turned away, with a header or without.
        let others = "accept_proxy = [\"192.0.2.0/24\", \"unix\"]\n";
        let routed = Routed::start(case, &to(&server), others);
        assert_eq!(refused(&routed, LINE.as_bytes()), "untrusted_proxy");
        drop(routed);
        // A version that is not accepted.
        let second = "accept_proxy = { from = \"127.0.0.1\", versions = \"v2\" }\n";
        let routed = Routed::start(case, &to(&server), second);
        assert_eq!(refused(&routed, LINE.as_bytes()), "bad_proxy_header");
    });
}

#[test]
fn b51_waiting_for_a_header_has_one_deadline_in_all() {
    on_every_engine(|case| {
        let server = Listener::new();
        let accept = "accept_proxy = { from = \"127.0.0.1\", timeout = \"400ms\" }\n";
        let routed = Routed::start(case, &to(&server), accept);
        let began = Instant::now();
        let client = routed.connect();
        client
            .stream()
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        // A byte now and then does not put it off.
        for byte in LINE.bytes() {
            if std::io::Write::write(&mut client.stream(), &[byte]).is_err() {
                break;
            }
            let mut answer = [0];
            match client.stream().read(&mut answer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
        assert!(began.elapsed() >= Duration::from_millis(390));
        let record = routed.record();
        assert_eq!((record.code(), record.cause()), ("cR", "request_timeout"));
        routed.check_idle();
    });
}
