//! What does not go through: 55 and 56, the total deadline, and hostile bytes in the
//! record (72).

use std::time::Duration;

use super::{Answer, LOOPBACK, Proxy, nobody_came, port_of, request, write};
use crate::kit::peer::Refusing;
use crate::kit::shortage::{leave_descriptors, limit_descriptors};
use crate::kit::*;

#[test]
fn b56_what_is_no_request_is_refused_and_closed() {
    on_every_engine(|case| {
        let (proxy, server) = (Proxy::start(case, LOOPBACK), Listener::new());
        let port = port_of(&server);
        let targets = [
            format!("127.0.0.1:{port}/"),
            format!("127.0.0.1:{port}?q"),
            format!("user@127.0.0.1:{port}"),
            format!("http://127.0.0.1:{port}"),
            "127.0.0.1".to_owned(),
            "127.0.0.1:".to_owned(),
            "127.0.0.1:65536".to_owned(),
            format!(":{port}"),
            format!("::1:{port}"),
        ];
        let mut count = 0;
        for target in targets {
            assert_eq!(proxy.answer_to(request(&target)).status, 400, "{target}");
            count += 1;
        }
        let line = format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n");
        for rest in [
            "Host: a\n\r\n",
            "\n",
            "A: b\r\n c\r\n\r\n",
            "A: b\0\r\n\r\n",
            "A : b\r\n\r\n",
            "Content-Length: 0\r\n\r\n",
            "Content-Length: 5\r\n\r\nhello",
            "Transfer-Encoding: chunked\r\n\r\n",
        ] {
            let answer = proxy.answer_to(format!("{line}{rest}"));
            assert_eq!(answer.status, 400, "{rest:?}");
            count += 1;
        }
        let other = proxy.answer_to("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert_eq!(other.status, 405);
        assert!(other.head.contains("\r\nAllow: CONNECT\r\n"), "{other:?}");
        assert!(other.body.contains("--proxytunnel"), "{other:?}");
        for record in proxy.wait_for_sessions(count + 1) {
            assert_eq!((record.code(), record.cause()), ("PR", "bad_request"));
        }
        let counters = proxy.counters();
        assert_eq!(counters.of("http_connect_400"), count as u64);
        assert_eq!(counters.of("http_connect_405"), 1);
        assert_eq!(counters.of("connects"), 0);
        nobody_came(&server);
        proxy.check_idle();
    });
}

#[test]
fn b56_a_header_that_is_too_large_is_431() {
    on_every_engine(|case| {
        let limit = format!("{LOOPBACK}header_max = \"1KiB\"\n");
        let proxy = Proxy::start(case, &limit);
        let padding = "x".repeat(1024);
        let long = format!("CONNECT a:1 HTTP/1.1\r\nA: {padding}\r\n\r\n");
        assert_eq!(proxy.answer_to(&long).status, 431);
        // Without an end it is refused as soon as it is too long.
        let client = proxy.connect();
        write(&client, &long[..1024]);
        let answer = Answer::read(client.stream());
        assert_eq!(answer.status, 431);
        drop(client);
        proxy.wait_for_sessions(2);
        proxy.check_idle();
    });
}

#[test]
fn b56_a_dripped_header_meets_a_total_deadline() {
    on_every_engine(|case| {
        let limit = format!("{LOOPBACK}header_timeout = \"700ms\"\n");
        let proxy = Proxy::start(case, &limit);
        let watch = Stopwatch::start();
        let silent = proxy.connect();
        let client = proxy.connect();
        for byte in request("127.0.0.1:1").bytes().cycle().take(10_000) {
            if std::io::Write::write_all(&mut client.stream(), &[byte]).is_err()
                || client.is_readable_within(Duration::from_millis(100))
            {
                break;
            }
        }
        assert_eq!(Answer::read(client.stream()).status, 408);
        assert_eq!(Answer::read(silent.stream()).status, 408);
        let (took, allowing) = (watch.elapsed(), watch.allowing());
        assert!(took >= Duration::from_millis(690), "{took:?}");
        assert!(allowing < Duration::from_secs(8), "{took:?}");
        drop((client, silent));
        for record in proxy.wait_for_sessions(2) {
            assert_eq!((record.code(), record.cause()), ("cR", "request_timeout"));
        }
        proxy.check_idle();
    });
}

#[test]
fn b55_after_a_refusal_nothing_is_parsed_as_a_second_request() {
    on_every_engine(|case| {
        let (proxy, server) = (Proxy::start(case, LOOPBACK), Listener::new());
        let second = request(server.address());
        for first in [
            "CONNECT 127.0.0.1:0 HTTP/1.1\r\n\r\n".to_owned(),
            request("10.0.0.1:443"),
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
        ] {
            let answer = proxy.answer_to(format!("{first}{second}{second}"));
            assert!([400, 403, 405].contains(&answer.status), "{answer:?}");
            assert!(!answer.body.contains("HTTP/1.1"), "{answer:?}");
        }
        // Whatever comes after the answer is not looked at either.
        let client = proxy.connect();
        write(&client, request("10.0.0.1:443"));
        assert!(client.is_readable_within(PATIENCE));
        write(&client, &second);
        client.half_close();
        assert_eq!(Answer::read(client.stream()).status, 403);
        drop(client);
        proxy.wait_for_sessions(4);
        nobody_came(&server);
        proxy.check_idle();
    });
}

#[test]
fn b08_an_answer_survives_what_the_client_sends_meanwhile() {
    on_every_engine(|case| {
        let proxy = Proxy::start(case, LOOPBACK);
        let mut client = proxy.connect();
        write(&client, request("10.0.0.1:443"));
        client.send(4 * MIB);
        client.half_close();
        // To the end, which is no reset.
        assert_eq!(Answer::read(client.stream()).status, 403);
        drop(client);
        let record = proxy.wait_for_session();
        assert_eq!(record.number("status"), Some(403));
        proxy.check_idle();
    });
}

#[test]
fn a_client_that_was_refused_and_stays_is_cut_off() {
    on_every_engine(|case| {
        let proxy = Proxy::start(case, LOOPBACK);
        let client = proxy.connect();
        write(&client, request("10.0.0.1:443"));
        assert_eq!(Answer::read(client.stream()).status, 403);
        // It never ends its side.
        let record = proxy.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("PR", "denied"));
        proxy.check_idle();
        drop(client);
    });
}

#[test]
fn targets_that_cannot_be_reached_are_502_or_504() {
    on_every_engine(|case| {
        let nobody = Refusing::new();
        let deaf = Listener::without_backlog();
        let fillers = deaf.fill_accept_queue();
        let proxy = Proxy::start_with(case, LOOPBACK, |setup, _| {
            setup.set("defaults.connect_timeout", "\"500ms\"")
        });
        let refused = proxy.answer_to(request(nobody.address()));
        assert_eq!(refused.status, 502);
        assert!(refused.body.contains("refused"), "{refused:?}");
        assert_eq!(proxy.answer_to(request(deaf.address())).status, 504);
        let records = proxy.wait_for_sessions(2);
        assert_eq!((records[0].code(), records[0].cause()), ("SC", "refused"));
        assert_eq!(
            (records[1].code(), records[1].cause()),
            ("sC", "connect_timeout")
        );
        let counters = proxy.counters();
        assert_eq!(counters.of("http_connect_502"), 1);
        assert_eq!(counters.of("http_connect_504"), 1);
        drop(fillers);
        proxy.check_idle();
    });
}

#[test]
fn b36_without_a_descriptor_for_the_target_the_answer_is_503() {
    on_every_engine(|case| {
        let (proxy, server) = (Proxy::start(case, LOOPBACK), Listener::new());
        // The client's, and no other.
        leave_descriptors(proxy.process(), 1);
        let answer = proxy.answer_to(request(server.address()));
        assert_eq!(answer.status, 503, "{answer:?}");
        let record = proxy.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("RC", "no_descriptors"));
        nobody_came(&server);
        limit_descriptors(proxy.process(), 1024);
        let client = proxy.tunnel(server.address());
        drop((client, server.accept()));
        proxy.wait_for_sessions(2);
        proxy.check_idle();
    });
}

#[test]
fn b72_hostile_bytes_of_a_target_and_a_user_are_escaped_in_the_record() {
    on_every_engine(|case| {
        let proxy = super::access::with_users(case);
        let answer = proxy.answer_to(b"CONNECT a\x1b[2J\x07\xffb=c:1 HTTP/1.1\r\n\r\n");
        assert_eq!(answer.status, 400);
        // "evil\r\ncode=-- x" and a password.
        let user = "ZXZpbA0KY29kZT0tLSB4OnB3";
        let header =
            format!("CONNECT 127.0.0.1:1 HTTP/1.1\r\nProxy-Authorization: Basic {user}\r\n\r\n");
        assert_eq!(proxy.answer_to(header).status, 407);
        let records = proxy.wait_for_sessions(2);
        assert_eq!(records[0].text("target"), r"a\x1b[2J\x07\xffb\x3dc:1");
        assert_eq!(records[1].text("user"), r"evil\r\ncode\x3d--\x20x");
        assert_eq!(records[1].cause(), "unauthorised");
        assert!(!records[1].json().to_string().contains("pw"));
        proxy.check_idle();
    });
}
