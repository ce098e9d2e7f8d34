//! Each kind of check over a connection, with servers that are well and ill.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use thalweg::config::CheckKind;
use thalweg::net::address::{Endpoint, UnixName};

use super::origin::{Closed, Deaf, Manner, Origin};
use super::watch::{SHORT, Watch, is_ill, is_well, plan, with};
use crate::kit::PATIENCE;

fn ping() -> CheckKind {
    CheckKind::Exchange {
        send: b"PING\r\n".to_vec(),
        expect: b"+PONG".to_vec(),
    }
}

fn greeting() -> CheckKind {
    CheckKind::Exchange {
        send: Vec::new(),
        expect: b"220 ".to_vec(),
    }
}

fn http() -> CheckKind {
    CheckKind::Http {
        path: "/health".into(),
        host: None,
        statuses: vec![200..=399],
    }
}

fn tls() -> CheckKind {
    CheckKind::Tls { server_name: None }
}

#[track_caller]
fn well(kind: CheckKind, manner: Manner) {
    let origin = Origin::new(manner);
    is_well(plan(origin.address, kind));
}

/// Why a server of this manner is down, without the time limit.
fn ill(kind: CheckKind, manner: Manner) -> String {
    let origin = Origin::new(manner);
    is_ill(plan(origin.address, kind))
}

/// The same where the time limit is what ends the check.
fn late(kind: CheckKind, manner: Manner) -> String {
    let origin = Origin::new(manner);
    is_ill(with(plan(origin.address, kind), |it| it.timeout = SHORT))
}

#[test]
fn a_server_that_accepts_is_well_for_tcp() {
    well(CheckKind::Tcp, Manner::Silent);
    well(CheckKind::Tcp, Manner::Ends);
}

#[test]
fn nobody_there_is_refused() {
    let closed = Closed::new();
    for kind in [CheckKind::Tcp, ping(), http(), tls()] {
        assert_eq!(is_ill(plan(closed.address, kind)), "connect refused");
    }
}

#[test]
fn b31_a_connect_without_an_answer_ends_with_the_checks_own_timeout() {
    let deaf = Deaf::new();
    let began = Instant::now();
    let plan = with(plan(deaf.address, CheckKind::Tcp), |it| it.timeout = SHORT);
    assert_eq!(is_ill(plan), "connect timed out");
    // Generously below what the kernel takes, two minutes, and any connect_timeout.
    let took = began.elapsed();
    assert!(took >= SHORT && took.as_secs() < 20, "{took:?}");
}

#[test]
fn b31_answered_and_then_reset_is_up() {
    well(CheckKind::Tcp, Manner::Resets);
    well(greeting(), Manner::SpeaksAndResets(b"220 hello\r\n"));
    // Even if it resets while the question is on its way.
    well(ping(), Manner::SpeaksAndResets(b"+PONG\r\n"));
    well(http(), Manner::SpeaksAndResets(b"HTTP/1.1 200 OK\r\n\r\n"));
    well(tls(), Manner::SpeaksAndResets(&[22, 3, 3, 0, 90, 2]));
}

#[test]
fn an_exchange_is_judged_by_how_the_answer_starts() {
    well(ping(), Manner::Answers(b"+PONG\r\n"));
    well(greeting(), Manner::Speaks(b"220 ready\r\n"));
    well(ping(), Manner::Drips(b"+PONG"));
    assert_eq!(
        ill(ping(), Manner::Answers(b"-LOADING\r\n")),
        "answer does not start as expected (\"-LOADING\\r\\n\")"
    );
    assert_eq!(
        ill(greeting(), Manner::Ends),
        "connection ended before an answer"
    );
    // Which of the two errors the kernel reports is up to the moment.
    let reset = ill(ping(), Manner::Resets);
    assert!(
        reset.starts_with("connection ") && reset.ends_with(" before an answer"),
        "{reset}"
    );
}

#[test]
fn an_http_server_is_judged_by_its_status() {
    well(http(), Manner::Answers(b"HTTP/1.1 200 OK\r\n\r\nhello"));
    well(
        http(),
        Manner::Answers(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204\r\n\r\n"),
    );
    assert_eq!(
        ill(http(), Manner::Answers(b"HTTP/1.0 503 Unavailable\r\n\r\n")),
        "status 503"
    );
    assert_eq!(
        ill(http(), Manner::Speaks(b"SSH-2.0-x\r\n")),
        "no HTTP response (\"SSH-2.0-x\\r\\n\")"
    );
}

#[test]
fn a_tls_server_is_judged_by_its_first_record() {
    well(tls(), Manner::Answers(&[22, 3, 3, 0, 90, 2, 0, 0, 86]));
    assert_eq!(
        ill(tls(), Manner::Answers(&[21, 3, 3, 0, 2, 2, 40])),
        "TLS alert 40"
    );
    let plain = ill(tls(), Manner::Answers(b"HTTP/1.1 400 Bad Request\r\n"));
    assert!(plain.starts_with("no TLS (\"HTTP/1.1 400"), "{plain}");
}

#[test]
fn b31_silence_and_dripping_end_with_the_timeout() {
    for kind in [ping(), http(), tls()] {
        assert_eq!(late(kind, Manner::Silent), "no answer in time");
    }
    // Bytes that come in time do not prolong it.
    let endless = CheckKind::Exchange {
        send: Vec::new(),
        expect: vec![b'x'; 1024],
    };
    assert_eq!(
        late(endless, Manner::Drips(b"x")),
        "answer incomplete in time"
    );
    assert_eq!(
        late(http(), Manner::Drips(b"HTTP/1.1 200 OK and so on and on")),
        "answer incomplete in time"
    );
}

#[test]
fn an_answer_without_end_is_bounded() {
    static ENDLESS: [u8; 70_000] = [b'a'; 70_000];
    let mut line = b"HTTP/1.1 200 ".to_vec();
    line.extend(ENDLESS);
    let reason = ill(http(), Manner::Answers(line.leak()));
    assert_eq!(reason, "no good answer in 16384 bytes");
}

#[test]
fn the_port_of_the_check_goes_before_the_servers() {
    let (closed, origin) = (Closed::new(), Origin::new(Manner::Silent));
    let plan = plan(closed.address, CheckKind::Tcp);
    is_well(with(plan, |it| it.port = Some(origin.address.port())));
}

#[test]
fn a_unix_socket_is_checked_likewise() {
    let name = format!("thalweg-checks-{}", std::process::id()).into_bytes();
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let mut plan = plan(Closed::new().address, CheckKind::Tcp);
    plan.endpoint = Endpoint::Unix(UnixName::Abstract(name));
    is_well(plan.clone());
    drop(listener);
    assert_eq!(is_ill(plan), "connect refused");
}

/// What a server is asked.
fn question(kind: CheckKind, host: Option<&str>) -> (Vec<u8>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut plan = plan(address, kind);
    plan.host = host.map(str::to_owned);
    let _watch = Watch::new(vec![plan]);
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut question = vec![0; 4096];
    let len = stream.read(&mut question).unwrap();
    question.truncate(len);
    (question, address)
}

#[test]
fn the_request_names_the_host_it_was_told_or_the_server() {
    let request = |host: &str| {
        format!(
            "GET /health HTTP/1.1\r\nHost: {host}\r\nUser-Agent: thalweg-check\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n"
        )
    };
    let (asked, address) = question(http(), None);
    assert_eq!(
        String::from_utf8(asked).unwrap(),
        request(&address.to_string())
    );
    let (asked, address) = question(http(), Some("a.example"));
    let host = format!("a.example:{}", address.port());
    assert_eq!(String::from_utf8(asked).unwrap(), request(&host));
    let told = CheckKind::Http {
        path: "/health".into(),
        host: Some("b.example".into()),
        statuses: vec![200..=399],
    };
    let (asked, _) = question(told, Some("a.example"));
    assert_eq!(String::from_utf8(asked).unwrap(), request("b.example"));
}

#[test]
fn the_hello_names_the_server_it_was_told_or_the_one_configured() {
    let told = || CheckKind::Tls {
        server_name: Some("b.example".into()),
    };
    for (kind, host, expected) in [
        (tls(), None, ""),
        (tls(), Some("a.example"), "a.example"),
        (told(), Some("a.example"), "b.example"),
    ] {
        let (hello, _) = question(kind, host);
        let hello = hello.escape_ascii().to_string();
        assert!(hello.contains(expected), "{expected}: {hello}");
        assert_eq!(
            hello.matches(".example").count(),
            usize::from(host.is_some())
        );
    }
}
