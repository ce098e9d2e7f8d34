//! A call of gRPC, frame by frame, through a tapped forwarder.

use std::io::{Read, Write};

use super::{check_printable, tapped, wait_for_closes};
use crate::kit::directory::Directory;
use crate::kit::*;

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields in full, each put into the table (RFC 7541, 6.2.1).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| [vec![0x40], text(name), text(value)].concat());
    fields.collect::<Vec<_>>().concat()
}

/// The last so many fields of the table, in the order they were put there (6.1): the
/// latest has the first number behind the 61 that everybody knows.
fn from_table(fields: u8) -> Vec<u8> {
    (0..fields).rev().map(|age| 0x80 | (62 + age)).collect()
}

fn message(compressed: bool, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&[u8::from(compressed)][..], &length, content].concat()
}

/// What a client sends: two calls, the headers of the second from the table that the
/// first one filled, cut into two frames.
fn calls() -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/pkg.Greeter/Hello"),
        ("content-type", "application/grpc+proto"),
        ("authorization", "Bearer c2VjcmV0"),
    ];
    let (first, second) = (block(&fields), from_table(fields.len() as u8));
    let (one, two) = second.split_at(second.len() / 2);
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &frame(SETTINGS, 0, 0, &[])[..],
        &frame(HEADERS, END_HEADERS, 1, &first),
        &frame(
            DATA,
            END_STREAM,
            1,
            &message(false, &vec![7; 40_000])[..16_000],
        ),
        &frame(HEADERS, 0, 3, one),
        &frame(CONTINUATION, END_HEADERS, 3, two),
        &frame(DATA, END_STREAM, 3, &message(false, b"hi")),
    ]
    .concat()
}

/// What the server answers.
fn answers() -> Vec<u8> {
    let head = [(":status", "200"), ("content-type", "application/grpc")];
    let failed = [("grpc-status", "5"), ("grpc-message", "no such\u{1b}[2J")];
    [
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &block(&head)),
        frame(DATA, 0, 1, &message(true, &[9; 12])),
        frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &block(&[("grpc-status", "0")]),
        ),
        frame(HEADERS, END_HEADERS, 3, &block(&head)),
        frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&failed)),
    ]
    .concat()
}

#[test]
fn b72_calls_messages_and_statuses_are_named() {
    on_every_path(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let file = directory.join("tap");
        let forwarder = tapped(case, listener.address(), "http", &file, "").start();
        let client = forwarder.connect();
        let (calls, answers) = (calls(), answers());
        client.stream().write_all(&calls).unwrap();
        let server = listener.accept();
        let mut bytes = vec![0; calls.len()];
        server.stream().read_exact(&mut bytes).unwrap();
        assert!(bytes == calls, "the calls were altered");
        server.stream().write_all(&answers).unwrap();
        let mut bytes = vec![0; answers.len()];
        client.stream().read_exact(&mut bytes).unwrap();
        assert!(bytes == answers, "the answers were altered");
        drop(client);
        drop(server);
        let text = wait_for_closes(&file, 1);
        check_printable(&text);
        for expected in [
            "  HTTP/2 begins\n",
            "  HEADERS stream=1 gRPC call /pkg.Greeter/Hello\n",
            "  gRPC message stream=1 length=40000\n",
            "  HEADERS stream=3 gRPC call /pkg.Greeter/Hello\n",
            "    authorization: [15 bytes masked]\n",
            "  gRPC message stream=3 length=2\n",
            "  gRPC message stream=1 length=12 compressed\n",
            "  trailers stream=1 end gRPC status 0 OK\n",
            "  trailers stream=3 end gRPC status 5 NOT_FOUND: no such\\x1b[2J\n",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("c2VjcmV0"), "{text}");
    });
}
