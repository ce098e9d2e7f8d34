//! What goes through: 47 and 55, and the end of a tunnel.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::SockRef;

use super::{ESTABLISHED, LOOPBACK, Proxy, expect_text, request, write};
use crate::kit::directory::Directory;
use crate::kit::peer::transfer;
use crate::kit::*;

#[test]
fn b47_a_header_that_comes_a_byte_at_a_time_is_read_once() {
    on_every_path(|case| {
        let (proxy, server) = (Proxy::start(case, LOOPBACK), Listener::new());
        let mut client = proxy.connect();
        let header = request(server.address());
        let (most, last) = header.split_at(header.len() - 1);
        for (at, byte) in most.bytes().enumerate() {
            write(&client, [byte]);
            if at == 20 {
                // What it has seen does not wake it again and again.
                proxy.check_quiet();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // The last byte and payload in one segment.
        let more = SockRef::from(client.stream()).send_with_flags(last.as_bytes(), libc::MSG_MORE);
        assert_eq!(more.unwrap(), 1);
        client.send(100_000);
        let mut upstream = server.accept();
        upstream.expect(100_000);
        expect_text(&client, ESTABLISHED);
        transfer(&mut upstream, &mut client, MIB);
        transfer(&mut client, &mut upstream, MIB);
        client.half_close();
        upstream.expect_then_eof(0);
        upstream.half_close();
        client.expect_then_eof(0);
        let record = proxy.wait_for_session();
        assert_eq!(record.bytes(), (MIB + 100_000, MIB));
        assert_eq!((record.code(), record.lost()), ("--", 0));
        proxy.check_idle();
    });
}

#[test]
fn urgent_data_before_the_header_wakes_nobody_over_and_over() {
    on_every_engine(|case| {
        let (proxy, server) = (Proxy::start(case, LOOPBACK), Listener::new());
        let mut client = proxy.connect();
        let urgent = SockRef::from(client.stream()).send_out_of_band(b"!");
        assert_eq!(urgent.unwrap(), 1);
        proxy.check_quiet();
        write(&client, request(server.address()));
        let mut upstream = server.accept();
        expect_text(&client, ESTABLISHED);
        transfer(&mut client, &mut upstream, MIB);
        client.half_close();
        upstream.expect_then_eof(0);
        upstream.half_close();
        client.expect_then_eof(0);
        proxy.wait_for_session();
        proxy.check_idle();
    });
}

#[test]
fn b55_payload_behind_the_header_arrives_exactly_once() {
    on_every_path(|case| {
        let (proxy, server) = (Proxy::start(case, LOOPBACK), Listener::new());
        for len in [1, 1000, 200_000] {
            let mut client = proxy.connect();
            let header = request(server.address());
            SockRef::from(client.stream())
                .send_with_flags(header.as_bytes(), libc::MSG_MORE)
                .unwrap();
            client.send(len);
            client.half_close();
            let mut upstream = server.accept();
            upstream.expect_then_eof(len);
            upstream.send(5);
            upstream.half_close();
            expect_text(&client, ESTABLISHED);
            client.expect_then_eof(5);
        }
        let records = proxy.wait_for_sessions(3);
        for record in &records {
            assert_eq!(record.number("status"), Some(200));
            assert_eq!(record.text("target"), server.address().to_string());
            assert_eq!(record.lost(), 0, "{record:?}");
        }
        proxy.check_idle();
    });
}

#[test]
fn b55_bulk_is_spliced_from_its_first_byte() {
    on_every_engine(|case| {
        let case = Case {
            path: "splice",
            ..case
        };
        let (proxy, server) = (Proxy::start(case, LOOPBACK), Listener::new());
        let mut client = proxy.tunnel(server.address());
        let mut upstream = server.accept();
        transfer(&mut client, &mut upstream, 16 * MIB);
        transfer(&mut upstream, &mut client, 16 * MIB);
        client.half_close();
        upstream.expect_then_eof(0);
        upstream.close();
        client.expect_then_eof(0);
        let record = proxy.wait_for_session();
        assert_eq!(record.bytes(), (16 * MIB, 16 * MIB));
        assert_eq!(record.text("path_up"), "splice");
        assert_eq!(record.text("path_down"), "splice");
        proxy.check_idle();
    });
}

#[test]
fn b57_the_200_comes_before_the_first_byte_of_an_upstream_that_speaks_first() {
    on_every_path(|case| {
        let (proxy, server) = (Proxy::start(case, LOOPBACK), Listener::new());
        for _ in 0..20 {
            let mut client = proxy.connect();
            write(&client, request(server.address()));
            let mut upstream = server.accept();
            upstream.send(300);
            expect_text(&client, ESTABLISHED);
            client.expect(300);
            client.half_close();
            upstream.expect_then_eof(0);
        }
        proxy.wait_for_sessions(20);
        proxy.check_idle();
    });
}

#[test]
fn a_reset_crosses_a_tunnel() {
    on_every_engine(|case| {
        let (proxy, server) = (Proxy::start(case, LOOPBACK), Listener::new());
        let mut client = proxy.tunnel(server.address());
        server.accept().reset();
        assert_eq!(client.receive_until_end(), End::Reset);
        let client = proxy.tunnel(server.address());
        let mut upstream = server.accept();
        client.reset();
        assert_eq!(upstream.receive_until_end(), End::Reset);
        proxy.wait_for_sessions(2);
        proxy.check_idle();
    });
}

#[test]
fn http_1_0_and_an_ipv6_target_are_served() {
    on_every_engine(|case| {
        let proxy = Proxy::start(case, LOOPBACK);
        let server = Listener::on(std::net::Ipv6Addr::LOCALHOST.into());
        let client = proxy.connect();
        write(
            &client,
            format!("CONNECT {} HTTP/1.0\r\n\r\n", server.address()),
        );
        expect_text(&client, ESTABLISHED);
        drop((client, server.accept()));
        proxy.wait_for_session();
        proxy.check_idle();
    });
}

#[test]
fn clients_that_leave_before_they_have_asked_are_no_trouble() {
    on_every_engine(|case| {
        let (proxy, server) = (Proxy::start(case, LOOPBACK), Listener::new());
        proxy.connect().close();
        proxy.connect().reset();
        let client = proxy.connect();
        write(&client, "CONNECT 127.");
        client.close();
        let client = proxy.connect();
        write(&client, "CONNECT 127.");
        client.reset();
        let records = proxy.wait_for_sessions(4);
        for record in &records {
            assert_eq!(record.code(), "CR", "{record:?}");
        }
        super::nobody_came(&server);
        proxy.check_idle();
    });
}

/// A unix socket knows no mark of how much was seen: what dripped must not wake
/// anybody again and again there either.
#[test]
fn b47_a_header_drips_through_a_unix_socket() {
    on_every_engine(|case| {
        let directory = Directory::new();
        let (file, path) = (directory.join("proxy.toml"), directory.join("s"));
        let text = format!(
            "[[forward]]\nlisten = \"unix:{}\"\nmode = \"http-connect\"\n[forward.connect]\n{LOOPBACK}",
            path.display()
        );
        std::fs::write(&file, text).unwrap();
        let (proxy, server) = (
            Setup::configured(&file, 1).case(case).start(),
            Listener::new(),
        );
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let header = request(server.address());
        let (first, rest) = header.split_at(20);
        for byte in first.bytes() {
            client.write_all(&[byte]).unwrap();
        }
        proxy.check_quiet();
        client.write_all(rest.as_bytes()).unwrap();
        client.write_all(b"payload").unwrap();
        let upstream = server.accept();
        expect_text(&upstream, "payload");
        write(&upstream, "answer");
        let mut received = vec![0; ESTABLISHED.len() + 6];
        client.read_exact(&mut received).unwrap();
        assert_eq!(received, format!("{ESTABLISHED}answer").as_bytes());
        drop((client, upstream));
        proxy.wait_for_session();
        proxy.check_idle();
    });
}

/// What gRPC does over a tunnel, by hand: HTTP/2 with prior knowledge (RFC 9113,
/// section 3.3), its preface behind the header, frames both ways, trailers.
#[test]
fn b55_an_http_2_exchange_goes_through_with_its_preface_glued_to_the_header() {
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        let head = [&len[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        [&head, payload].concat()
    }
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // SETTINGS; HEADERS of a POST; DATA with a gRPC message of five bytes.
    let asked = [
        PREFACE,
        &frame(4, 0, 0, &[]),
        &frame(1, 4, 1, &[0x83, 0x86, 0x84, 0x41, 0x01, b'a']),
        &frame(0, 1, 1, &[0, 0, 0, 0, 5, 10, 3, b'h', b'i', b'!']),
    ]
    .concat();
    let answered = [
        frame(4, 0, 0, &[]),
        frame(4, 1, 0, &[]),
        frame(1, 4, 1, &[0x88]),
        frame(0, 0, 1, &[0, 0, 0, 0, 2, 8, 1]),
        frame(1, 5, 1, &[0x00, 0x01, b'g', 0x01, b'0']),
    ]
    .concat();
    on_every_path(|case| {
        let (proxy, server) = (Proxy::start(case, LOOPBACK), Listener::new());
        let client = proxy.connect();
        let glued = [request(server.address()).as_bytes(), &asked].concat();
        write(&client, glued);
        let upstream = server.accept();
        let mut received = vec![0; asked.len()];
        upstream.stream().read_exact(&mut received).unwrap();
        assert_eq!(received, asked);
        write(&upstream, &answered);
        expect_text(&client, ESTABLISHED);
        let mut received = vec![0; answered.len()];
        client.stream().read_exact(&mut received).unwrap();
        assert_eq!(received, answered);
        drop((client, upstream));
        proxy.wait_for_session();
        proxy.check_idle();
    });
}
