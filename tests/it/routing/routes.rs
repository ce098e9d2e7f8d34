//! Routes: 53 and 54, and everything else that they go by.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use super::*;
use crate::kit::peer::transfer;

/// A forward with a server of its own and one for routes.
struct Two {
    routed: Routed,
    own: Listener,
    other: Listener,
}

impl Two {
    /// `{other}` in `lines` is the other server.
    #[track_caller]
    fn start(case: Case, lines: &str) -> Self {
        let (own, other) = (Listener::new(), Listener::new());
        let lines = lines.replace("{other}", &to(&other));
        let routed = Routed::start(case, &to(&own), &lines);
        Self { routed, own, other }
    }

    /// A client that sends this; whether it came to the other server, unchanged.
    #[track_caller]
    fn goes(&self, bytes: &[u8]) -> bool {
        self.goes_in(&[bytes])
    }

    /// As these pieces, one after the other.
    #[track_caller]
    fn goes_in(&self, pieces: &[&[u8]]) -> bool {
        let client = self.routed.connect();
        client.stream().set_nodelay(true).unwrap();
        for piece in pieces {
            write(&client, piece);
            if pieces.len() > 1 {
                std::thread::sleep(Duration::from_micros(300));
            }
        }
        let (upstream, is_other) = poll(PATIENCE, || {
            let soon = Duration::from_millis(1);
            let other = self.other.accept_within(soon).map(|it| (it, true));
            other.or_else(|| self.own.accept_within(soon).map(|it| (it, false)))
        })
        .expect("it goes somewhere");
        expect_bytes(&upstream, pieces.concat());
        write(&upstream, b"answer");
        expect_bytes(&client, b"answer");
        client.half_close();
        let mut rest = Vec::new();
        upstream.stream().read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "more than was sent");
        drop((client, upstream));
        let record = self.routed.record();
        assert_eq!(record.bytes().0, pieces.concat().len() as u64);
        is_other
    }

    /// A client that is turned away: the cause.
    #[track_caller]
    fn refuses(&self, bytes: &[u8]) -> String {
        let client = self.routed.connect();
        // It may be turned away before it has said all.
        let _ = client.stream().write_all(bytes);
        assert!(is_turned_away(&client), "{}", bytes.escape_ascii());
        let record = self.routed.record();
        assert_eq!(record.code(), "PR");
        record.cause().to_owned()
    }
}

const BY_NAME: &str =
    "[[forward.route]]\nsni = [\"a.example\", \"*.b.example\"]\nupstream = {other}\n";

#[test]
fn b53_a_hello_is_routed_in_any_pieces_and_records() {
    on_every_path(|case| {
        let two = Two::start(case, BY_NAME);
        let grease = || extension(0x0a0a, &[]);
        let quantum = || extension(51, &[9; 1216]);
        let to_other = [
            grease(),
            quantum(),
            alpn(&["h2"]),
            sni(b"A.Example."),
            extension(0xfafa, &[0]),
        ];
        for record in [3, 100, 16_384] {
            let bytes = hello(&to_other, record);
            assert!(two.goes(&bytes), "in records of {record}");
        }
        let bytes = hello(&to_other[2..4], 40);
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        assert!(two.goes_in(&each), "a byte at a time");
        let elsewhere = hello(&[sni(b"c.example")], 16_384);
        assert!(!two.goes(&elsewhere));
        assert!(two.goes(&hello(&[sni(b"x.y.b.example")], 16_384)));
        assert!(
            !two.goes(&hello(&[sni(b"b.example")], 16_384)),
            "not below itself"
        );
        two.routed.check_idle();
    });
}

#[test]
fn b53_large_hellos_are_routed_and_larger_ones_refused() {
    on_every_engine(|case| {
        let two = Two::start(case, BY_NAME);
        let of = |padding: usize| {
            hello(
                &[sni(b"a.example"), extension(21, &vec![0; padding])],
                16_384,
            )
        };
        assert!(two.goes(&of(16_000)));
        let large = of(16_000);
        let each: Vec<&[u8]> = large.chunks(500).collect();
        assert!(two.goes_in(&each));
        assert_eq!(two.refuses(&of(17_000)), "bad_hello");
        assert_eq!(
            two.refuses(&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]),
            "bad_hello"
        );
        two.routed.check_idle();
    });
}

#[test]
fn b53_malformed_hellos_are_refused() {
    on_every_engine(|case| {
        let two = Two::start(case, BY_NAME);
        for bad in [
            hello(&[sni(b"a.example"), sni(b"c.example")], 16_384),
            hello(&[sni(b"a.example\0")], 16_384),
            hello(&[extension(0, &[0, 9, 0, 0, 1, b'a'])], 16_384),
            hello(&[vec![0, 0, 0, 99, 1]], 16_384),
        ] {
            assert_eq!(two.refuses(&bad), "bad_hello");
        }
        two.routed.check_idle();
    });
}

#[test]
fn b54_what_has_no_name_takes_the_documented_route() {
    on_every_engine(|case| {
        let two = Two::start(case, BY_NAME);
        let ssl3 = {
            let mut bytes = hello(&[], 16_384);
            bytes[2] = 0;
            bytes
        };
        for bytes in [
            &hello(&[alpn(&["h2"])], 16_384)[..],
            &ssl3,
            b"\x80\x2e\x01\x03\x01 an SSLv2 hello",
            b"GET / HTTP/1.1\r\n\r\n",
            b"SSH-2.0-client\r\n",
            b"\0\x01\x02 anything",
        ] {
            assert!(!two.goes(bytes), "{}", bytes.escape_ascii());
        }
        drop(two);
        // And by routes of their own.
        let two = Two::start(
            case,
            "[[forward.route]]\nno_sni = true\nupstream = {other}\n",
        );
        assert!(two.goes(&hello(&[], 16_384)));
        assert!(!two.goes(&hello(&[sni(b"a.example")], 16_384)));
        assert!(!two.goes(b"GET / HTTP/1.1\r\n\r\n"));
        drop(two);
        let two = Two::start(
            case,
            "[[forward.route]]\nprotocol = [\"ssh\", \"http\", \"proxy\", \"other\"]\nupstream = {other}\n",
        );
        for bytes in [
            &b"SSH-2.0-x\r\n"[..],
            b"PATCH / HTTP/1.1\r\n\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            b"EHLO a\r\n",
        ] {
            assert!(two.goes(bytes), "{}", bytes.escape_ascii());
        }
        assert!(!two.goes(&hello(&[sni(b"a.example")], 16_384)));
    });
}

#[test]
fn b54_a_silent_client_meets_one_deadline_in_all() {
    on_every_engine(|case| {
        let lines = format!("sniff_timeout = \"400ms\"\n{BY_NAME}");
        let two = Two::start(case, &lines);
        let bytes = hello(&[sni(b"a.example")], 16_384);
        for drips in [false, true] {
            let began = Instant::now();
            let client = two.routed.connect();
            if drips {
                let stream = client.stream().try_clone().unwrap();
                let bytes = bytes.clone();
                std::thread::spawn(move || drip_slowly(&stream, &bytes));
            }
            assert!(is_turned_away(&client));
            assert!(began.elapsed() >= Duration::from_millis(390));
            let record = two.routed.record();
            assert_eq!((record.code(), record.cause()), ("cR", "request_timeout"));
        }
        two.routed.check_idle();
    });
}

fn drip_slowly(mut stream: &TcpStream, bytes: &[u8]) {
    for byte in &bytes[..bytes.len() - 1] {
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// What is seen and not complete wakes nobody again and again; an end of it decides.
#[test]
fn b54_what_is_looked_at_and_left_costs_nothing_while_nothing_comes() {
    on_every_engine(|case| {
        let two = Two::start(case, BY_NAME);
        let bytes = hello(&[sni(b"a.example")], 16_384);
        let client = two.routed.connect();
        write(&client, &bytes[..30]);
        two.routed.check_quiet();
        // A half hello and an end: not waited for.
        client.half_close();
        assert!(is_turned_away(&client));
        assert_eq!(two.routed.record().cause(), "bad_hello");
        // Of something that might have become a method, the documented route.
        let client = two.routed.connect();
        write(&client, b"GE");
        client.half_close();
        let upstream = two.own.accept();
        expect_bytes(&upstream, b"GE");
        drop((client, upstream));
        two.routed.record();
        two.routed.check_idle();
    });
}

#[test]
fn a_unix_client_that_drips_its_hello_is_routed_and_costs_nothing() {
    on_every_engine(|case| {
        let (own, other) = (Listener::new(), Listener::new());
        let directory = Directory::new();
        let (path, file) = (directory.join("front.sock"), directory.join("unix.toml"));
        let text = format!(
            "[[forward]]\nname = \"u\"\nlisten = \"unix:{}\"\nupstream = {}\n{}",
            path.display(),
            to(&own),
            BY_NAME.replace("{other}", &to(&other)),
        );
        std::fs::write(&file, text).unwrap();
        let forwarder = Setup::configured(&file, 1).case(case).start();
        let mut client = UnixStream::connect(&path).unwrap();
        let bytes = hello(&[sni(b"a.example")], 16_384);
        client.write_all(&bytes[..30]).unwrap();
        forwarder.check_quiet();
        client.write_all(&bytes[30..]).unwrap();
        let upstream = other.accept();
        expect_bytes(&upstream, &bytes);
        let _ = UnixListener::bind(directory.join("unused.sock"));
    });
}

/// What follows the first bytes goes as ever, spliced where it is bulk.
#[test]
fn bulk_behind_a_hello_takes_the_ordinary_path() {
    on_every_path(|case| {
        let two = Two::start(case, BY_NAME);
        let bytes = hello(&[sni(b"a.example")], 16_384);
        let mut client = two.routed.connect();
        write(&client, &bytes);
        let mut upstream = two.other.accept();
        expect_bytes(&upstream, &bytes);
        transfer(&mut client, &mut upstream, 20 * MIB);
        transfer(&mut upstream, &mut client, 20 * MIB);
        client.half_close();
        upstream.expect_then_eof(0);
        upstream.half_close();
        client.expect_then_eof(0);
        let record = two.routed.record();
        assert_eq!(record.bytes(), (20 * MIB + bytes.len() as u64, 20 * MIB));
        if case.path != "copy" {
            assert_eq!(record.text("path_up"), "splice");
        }
        assert_eq!(
            (record.text("sni"), record.text("route")),
            ("a.example", "1")
        );
        two.routed.check_idle();
    });
}

#[test]
fn routes_go_by_alpn_host_client_listener_and_share() {
    on_every_engine(|case| {
        let two = Two::start(
            case,
            "[[forward.route]]\nalpn = [\"h2\", \"acme-tls/1\"]\nupstream = {other}\n",
        );
        assert!(two.goes(&hello(&[alpn(&["http/1.1", "h2"])], 16_384)));
        assert!(!two.goes(&hello(&[alpn(&["http/1.1"])], 16_384)));
        drop(two);
        let two = Two::start(
            case,
            "[[forward.route]]\nhost = \"*.a.example\"\nupstream = {other}\n",
        );
        assert!(two.goes(b"GET / HTTP/1.1\r\nHost: X.a.example:80\r\n\r\nbody"));
        assert!(!two.goes(b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n"));
        assert_eq!(
            two.refuses(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            "bad_hello"
        );
        drop(two);
        // Known before the first byte: a client that waits for the server is no matter.
        for (condition, is_other) in [
            ("client = \"127.0.0.0/8\"", true),
            ("client = \"192.0.2.0/24\"", false),
            ("share = \"100%\"", true),
        ] {
            let two = Two::start(
                case,
                &format!("[[forward.route]]\n{condition}\nupstream = {{other}}\n"),
            );
            let client = two.routed.connect();
            let server = if is_other { &two.other } else { &two.own };
            write(&server.accept(), b"220 hello");
            expect_bytes(&client, b"220 hello");
        }
        let two = Two::start(
            case,
            "accept_proxy = \"127.0.0.1\"\n[[forward.route]]\nclient = \"192.0.2.7\"\nlistener = 443\nupstream = {other}\n",
        );
        for (header, is_other) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 1 443\r\n", true),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 1 80\r\n", false),
            ("PROXY TCP4 192.0.2.8 198.51.100.1 1 443\r\n", false),
        ] {
            let client = two.routed.connect();
            write(&client, header);
            write(&client, b"x");
            let server = if is_other { &two.other } else { &two.own };
            expect_bytes(&server.accept(), b"x");
        }
    });
}

#[test]
fn a_route_that_turns_away_and_one_that_asks() {
    on_every_engine(|case| {
        let two = Two::start(
            case,
            "[[forward.route]]\nname = \"no\"\nsni = \"no.example\"\nreject = true\n\
             [[forward.route]]\nprotocol = \"http\"\nmode = \"http-connect\"\n\
             connect = { allow = [\"127.0.0.0/8:*\"] }\n",
        );
        assert_eq!(
            two.refuses(&hello(&[sni(b"no.example")], 16_384)),
            "rejected"
        );
        assert!(!two.goes(&hello(&[sni(b"yes.example")], 16_384)));
        let client = two.routed.connect();
        let target = two.other.address();
        write(
            &client,
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\npayload"),
        );
        let upstream = two.other.accept();
        expect_bytes(&client, b"HTTP/1.1 200 Connection Established\r\n\r\n");
        expect_bytes(&upstream, b"payload");
        write(&upstream, b"answer");
        expect_bytes(&client, b"answer");
        drop((client, upstream));
        let record = two.routed.record();
        assert_eq!(
            (record.text("route"), record.number("status")),
            ("2", Some(200))
        );
        let denied = two.routed.connect();
        write(&denied, "CONNECT 192.0.2.1:1 HTTP/1.1\r\n\r\n");
        expect_bytes(&denied, b"HTTP/1.1 403");
    });
}

#[test]
fn check_says_where_a_client_goes_and_why() {
    let directory = Directory::new();
    let file = directory.join("check.toml");
    std::fs::write(
        &file,
        "[upstream.web]\nservers = \"10.0.0.1:443\"\n[[forward]]\nname = \"edge\"\nlisten = \":443\"\n\
         upstream = \"10.0.0.9:443\"\naccess = [\"deny 192.0.2.128/25\"]\n\
         [[forward.route]]\nname = \"api\"\nsni = \"a.example\"\n\
         alpn = \"h2\"\nclient = \"192.0.2.0/24\"\nupstream = \"web\"\n\
         [[forward.route]]\nsni = \"*.example\"\nreject = true\n",
    )
    .unwrap();
    let check = |asked: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(["check", "-c", &file.display().to_string(), "--route", asked])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    let (code, text) = check("sni=a.example,alpn=h2,client=192.0.2.1");
    assert_eq!(code, Some(0));
    assert!(
        text.contains("route api (1 of 2) -> pool web (10.0.0.1:443); it has the very name"),
        "{text}"
    );
    let (_, text) = check("sni=a.example,alpn=http/1.1,client=192.0.2.1");
    assert!(text.contains("turned away; it has a suffix"), "{text}");
    // The list comes before any route.
    let (_, text) = check("sni=a.example,alpn=h2,client=192.0.2.129");
    assert!(
        text.contains("access -> turned away; by `deny 192.0.2.128/25`"),
        "{text}"
    );
    let (_, text) = check("protocol=ssh");
    assert!(
        text.contains("pool edge (10.0.0.9:443); no route fits"),
        "{text}"
    );
    for wrong in ["sni", "pizza=1", "client=x", "sni=a,host=b", "forward=none"] {
        assert_eq!(check(wrong).0, Some(2), "{wrong}");
    }
}
