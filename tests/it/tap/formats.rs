//! What each format shows, and of whom.

use std::io::{Read, Write};

use super::{check_printable, dump, read, tapped, wait_for_closes};
use crate::kit::directory::Directory;
use crate::kit::pattern::Pattern;
use crate::kit::peer::{Peer, transfer};
use crate::kit::*;

/// The first bytes of what a kit's client or server sends.
fn sent(seed: u64, len: u64) -> Vec<u8> {
    Pattern::new(seed).upcoming(len).to_vec()
}

const CLIENT_SEED: u64 = 1;
const SERVER_SEED: u64 = 2;

/// Bytes both ways in several pieces, then an end from each.
fn exchange(client: &mut Peer, server: &mut Peer) -> (u64, u64) {
    for len in [1, 700, 20_000] {
        transfer(client, server, len);
        transfer(server, client, 2 * len);
    }
    client.half_close();
    server.expect_then_eof(0);
    server.half_close();
    client.expect_then_eof(0);
    (client.sent(), server.sent())
}

#[test]
fn hex_shows_every_byte_both_ways() {
    every_byte_is_shown("hex", dump::hex);
}

#[test]
fn b72_text_shows_every_byte_and_none_that_steers() {
    every_byte_is_shown("text", dump::text);
}

fn every_byte_is_shown(format: &str, read_back: fn(&str, &str, &str) -> Vec<u8>) {
    on_every_path(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let file = directory.join("tap");
        let keys = "max_bytes_per_session = \"1MiB\", unmask = true";
        let forwarder = tapped(case, listener.address(), format, &file, keys).start();
        let mut client = forwarder.connect();
        client.send(1);
        let mut server = listener.accept();
        server.expect(1);
        let (up, down) = exchange(&mut client, &mut server);
        let text = wait_for_closes(&file, 1);
        check_printable(&text);
        assert_eq!(read_back(&text, "0.1", "up"), sent(CLIENT_SEED, up));
        assert_eq!(read_back(&text, "0.1", "down"), sent(SERVER_SEED, down));
        let ends = [
            format!("up end=fin total={up}"),
            format!("down end=fin total={down}"),
        ];
        for expected in ends.iter().map(String::as_str).chain([
            &*format!(
                "open client={} listener={}",
                client.local(),
                forwarder.address()
            ),
            "close code=-- cause=finished",
            "missing_up=0 missing_down=0",
        ]) {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        drop((client, server));
        assert_eq!(forwarder.counters().of("tap_sessions"), 1);
        assert_eq!(forwarder.counters().of("tap_dropped_bytes"), 0);
        forwarder.check_idle();
    });
}

/// What is behind `max_bytes_per_session` is not shown, arrives all the same, and is
/// spliced where the data path says so.
#[test]
fn behind_its_limit_a_tapped_session_is_like_any_other() {
    on_every_path(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let file = directory.join("tap");
        let keys = "max_bytes_per_session = \"64KiB\"";
        let forwarder = tapped(case, listener.address(), "hex", &file, keys).start();
        let mut client = forwarder.connect();
        client.send(1);
        let mut server = listener.accept();
        server.expect(1);
        transfer(&mut client, &mut server, 16 * MIB);
        transfer(&mut server, &mut client, 32 * MIB);
        client.half_close();
        server.expect_then_eof(0);
        server.half_close();
        client.expect_then_eof(0);
        let session = forwarder.wait_for_session();
        let text = wait_for_closes(&file, 1);
        assert_eq!(dump::hex(&text, "0.1", "up"), sent(CLIENT_SEED, 64 * KIB));
        assert_eq!(dump::hex(&text, "0.1", "down"), [0; 0]);
        assert!(text.contains("limit max_bytes_per_session=65536"), "{text}");
        assert!(
            text.contains(&format!("down end=fin total={}", 32 * MIB)),
            "{text}"
        );
        let path = if case.path == "copy" {
            "copy"
        } else {
            "splice"
        };
        for way in ["path_up", "path_down"] {
            assert_eq!(session.text(way), path, "{way}");
        }
        assert_eq!(forwarder.counters().of("tap_dropped_bytes"), 0);
        drop((client, server));
        forwarder.check_idle();
    });
}

#[test]
fn a_reset_is_shown_as_a_failure() {
    on_every_engine(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let file = directory.join("tap");
        let forwarder = tapped(case, listener.address(), "hex", &file, "").start();
        let mut client = forwarder.connect();
        client.send(3);
        let mut server = listener.accept();
        server.expect(3);
        client.reset();
        assert_eq!(server.receive_until_end(), End::Reset);
        let text = wait_for_closes(&file, 1);
        assert!(text.contains(" up end=failed total=3"), "{text}");
        assert!(
            text.contains(" close code=CD cause=reset up=3 down=0"),
            "{text}"
        );
    });
}

#[test]
fn http_names_requests_and_responses_and_masks_secrets() {
    on_every_path(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let (masked, open) = (directory.join("masked"), directory.join("open"));
        let tap = |file: &std::path::Path, unmask| {
            let keys = format!("unmask = {unmask}");
            tapped(case, listener.address(), "http", file, &keys).start()
        };
        for (file, unmask) in [(&masked, false), (&open, true)] {
            let forwarder = tap(file, unmask);
            let client = forwarder.connect();
            let request = "POST /a HTTP/1.1\r\nHost: x\r\nAuthorization: Basic c2VjcmV0\r\nCookie: k=c2VjcmV0\r\nContent-Length: 2\r\n\r\nhiHEAD /b HTTP/1.1\r\nHost: x\r\n\r\n";
            client.stream().write_all(request.as_bytes()).unwrap();
            let server = listener.accept();
            let mut bytes = vec![0; request.len()];
            server.stream().read_exact(&mut bytes).unwrap();
            assert_eq!(bytes, request.as_bytes());
            let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: c2VjcmV0\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
            server.stream().write_all(answer.as_bytes()).unwrap();
            let mut bytes = vec![0; answer.len()];
            client.stream().read_exact(&mut bytes).unwrap();
            assert_eq!(bytes, answer.as_bytes());
            drop(client);
            drop(server);
            let text = wait_for_closes(file, 1);
            check_printable(&text);
            for expected in [
                "  POST /a HTTP/1.1\n    Host: x\n",
                "  body of 2 bytes\n",
                "  HTTP/1.1 200 OK (answers POST /a HTTP/1.1)\n",
                "  body of 5 bytes in 1 chunks\n",
                "  HTTP/1.1 200 OK (answers HEAD /b HTTP/1.1)\n    Content-Length: 9\n",
            ] {
                assert!(text.contains(expected), "{expected}: {text}");
            }
            assert_eq!(text.contains("c2VjcmV0"), unmask, "{text}");
            assert_eq!(
                text.matches("bytes masked]").count(),
                if unmask { 0 } else { 3 }
            );
        }
    });
}

#[test]
fn text_masks_secrets_too() {
    on_every_engine(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let file = directory.join("tap");
        let forwarder = tapped(case, listener.address(), "text", &file, "").start();
        let client = forwarder.connect();
        // Cut in the middle of the name and of the value.
        for piece in [
            "GET / HTTP/1.1\r\nAuthor",
            "ization: Basic c2Vj",
            "cmV0\r\nHost: x\r\n\r\n",
        ] {
            client.stream().write_all(piece.as_bytes()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        client.half_close();
        let server = listener.accept();
        let mut bytes = Vec::new();
        server.stream().read_to_end(&mut bytes).unwrap();
        assert!(bytes.ends_with(b"Basic c2VjcmV0\r\nHost: x\r\n\r\n"));
        drop(server);
        let text = wait_for_closes(&file, 1);
        assert!(!text.contains("c2Vj") && !text.contains("cmV0"), "{text}");
        assert!(
            text.contains("bytes masked]") && text.contains("Host: x"),
            "{text}"
        );
    });
}

/// Garbage where HTTP was expected is counted, and forwarded as it is.
#[test]
fn http_of_what_is_no_http_says_so() {
    on_every_engine(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let file = directory.join("tap");
        let forwarder = tapped(case, listener.address(), "http", &file, "").start();
        let mut client = forwarder.connect();
        client.send(1000);
        let mut server = listener.accept();
        server.expect(1000);
        transfer(&mut server, &mut client, 1000);
        drop(client);
        drop(server);
        let text = wait_for_closes(&file, 1);
        assert!(text.contains("  not HTTP, "), "{text}");
        check_printable(&text);
    });
}

#[test]
fn a_filter_chooses_clients_directions_and_a_part() {
    on_every_engine(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let run = |name: &str, filter: &str, sessions: usize| {
            let file = directory.join(name);
            let keys = format!("filter = {{ {filter} }}");
            let forwarder = tapped(case, listener.address(), "hex", &file, &keys).start();
            for _ in 0..sessions {
                Crowd::through(&forwarder, &listener, 1).finish();
            }
            forwarder.wait_for_sessions(sessions);
            let tapped = forwarder.counters().of("tap_sessions");
            assert!(forwarder.terminate().success());
            (read(&file), tapped)
        };
        let (text, tapped) = run("no", "client = [\"10.0.0.0/8\", \"::/0\"]", 3);
        assert_eq!((text.as_str(), tapped), ("", 0));
        let (text, tapped) = run("yes", "client = [\"10.0.0.0/8\", \"127.0.0.0/8\"]", 3);
        assert_eq!((text.matches(" open ").count(), tapped), (3, 3));
        let (text, tapped) = run("part", "sample = \"1/4\"", 9);
        assert_eq!((text.matches(" open ").count(), tapped), (3, 3));
        for id in ["id=0.1 ", "id=0.5 ", "id=0.9 "] {
            assert!(text.contains(id), "{id}: {text}");
        }
        let (text, _) = run("up", "direction = \"up\"", 1);
        assert!(
            text.contains(" up length=1 ") && !text.contains(" down "),
            "{text}"
        );
    });
}

/// `--tap hex` on the one-liner, which shows it on standard error; another forward
/// switches it off for itself.
#[test]
fn the_one_liner_shows_it_on_standard_error() {
    on_every_engine(|case| {
        let listener = Listener::new();
        let forwarder = Setup::new(listener.address()).case(case);
        let forwarder = forwarder.argument("--tap").argument("hex").start();
        Crowd::through(&forwarder, &listener, 1).finish();
        wait_until("it is shown", PATIENCE, || {
            forwarder.standard_error().contains(" close code=--")
        });
        let text = forwarder.standard_error();
        assert_eq!(dump::hex(&text, "0.1", "up").len(), 1, "{text}");
        let directory = Directory::new();
        let file = directory.join("tap");
        let forwarder = Setup::new(listener.address()).case(case);
        let to = ["--tap", "text", "--tap-to", file.to_str().unwrap()];
        let forwarder = to.iter().fold(forwarder, Setup::argument).start();
        Crowd::through(&forwarder, &listener, 1).finish();
        let text = wait_for_closes(&file, 1);
        assert_eq!(dump::text(&text, "0.1", "up").len(), 1, "{text}");
    });
}

/// What one forward shows costs another one nothing: it splices from the first byte.
#[test]
fn an_untapped_forward_beside_a_tapped_one_is_untouched() {
    on_every_engine(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let file = directory.join("tap");
        let configuration = directory.join("thalweg.toml");
        let text = format!(
            "[[forward]]\nname = \"seen\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{server}\"\n\
             tap = {{ format = \"hex\", to = \"{file}\" }}\n\
             [defaults]\ndata_path = \"splice\"\n",
            server = listener.address(),
            file = file.display()
        );
        std::fs::write(&configuration, text).unwrap();
        let forwarder = Setup::new(listener.address()).engine(case.engine);
        let forwarder = forwarder
            .argument("-c")
            .argument(configuration.display())
            .start();
        // The pair of the command line comes behind the file's forward.
        let unseen: std::net::SocketAddr = forwarder.addresses()[1].parse().unwrap();
        let mut client = Peer::connect(unseen);
        client.send(1);
        let mut server = listener.accept();
        server.expect(1);
        transfer(&mut client, &mut server, MIB);
        drop((client, server));
        let session = forwarder.wait_for_session();
        assert_eq!(session.text("path_up"), "splice");
        assert_eq!(forwarder.counters().of("tap_sessions"), 0);
        assert_eq!(read(&file), "");
    });
}
