use loona_hpack::Encoder;
use proptest::prelude::*;

use super::*;

/// What is shown of these pieces.
fn shown(secrets: Option<&Secrets>, pieces: &[(Direction, &[u8])]) -> String {
    let (mut decoded, mut out) = (Decoded::default(), Vec::new());
    for (direction, bytes) in pieces {
        let mut words = Words {
            out: &mut out,
            secrets,
        };
        decoded.chunk(&mut words, *direction, bytes);
    }
    String::from_utf8(out).expect("text")
}

fn masked(pieces: &[(Direction, &[u8])]) -> String {
    shown(Some(&Secrets::default()), pieces)
}

const UP: Direction = Direction::Up;
const DOWN: Direction = Direction::Down;

#[test]
fn b72_a_hostile_head_stays_on_its_lines_and_keeps_its_secrets() {
    let request = b"GET /x?a=b&token=S3 HTTP/1.1\r\nHost: a\x80\xffb\r\nCookie: k=v\r\n\
                    Referer: http://ann:S3@h/\r\nX-Api-Key: S3\r\n\r\n";
    let text = masked(&[(UP, request)]);
    let expected = "  GET /x?a=b&token=*** HTTP/1.1\n    Host: a\\x80\\xffb\n    \
                    Cookie: [3 bytes masked]\n    Referer: http://***@h/\n    \
                    X-Api-Key: [2 bytes masked]\n";
    assert_eq!(text, expected);
}

#[test]
fn unmasked_means_shown() {
    let text = shown(
        None,
        &[(UP, b"GET /?key=a HTTP/1.1\r\nCookie: k=v\r\n\r\n")],
    );
    assert_eq!(text, "  GET /?key=a HTTP/1.1\n    Cookie: k=v\n");
}

#[test]
fn more_names_can_be_masked() {
    let secrets = Secrets::new(&["X-Mine".to_owned(), "id".to_owned()]);
    let text = shown(
        Some(&secrets),
        &[(UP, b"GET /?ID=a HTTP/1.1\r\nx-mine: k\r\n\r\n")],
    );
    assert_eq!(
        text,
        "  GET /?ID=*** HTTP/1.1\n    x-mine: [1 bytes masked]\n"
    );
}

#[test]
fn a_gap_is_said_to_be_one_and_nothing_is_made_up_behind_it() {
    let (mut decoded, mut out) = (Decoded::default(), Vec::new());
    let mut words = Words {
        out: &mut out,
        secrets: None,
    };
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    decoded.chunk(&mut words, DOWN, head);
    decoded.missing(&mut words, DOWN, 90);
    decoded.chunk(&mut words, DOWN, &[b'x'; 10]);
    decoded.missing(&mut words, DOWN, 1);
    decoded.chunk(&mut words, DOWN, head);
    decoded.end(&mut words, DOWN, false);
    let text = String::from_utf8(out).unwrap();
    let expected = "  HTTP/1.1 200 OK (its request was not seen)\n    Content-Length: 100\n  \
                    body of 100 bytes\n  bytes are missing where something begins; this \
                    direction is decoded no further\n  not decoded, 40 bytes\n";
    assert_eq!(text, expected);
}

#[test]
fn a_bad_line_is_shown_with_what_comes_before_it_and_keeps_its_secret() {
    let head = "GET /a HTTP/1.1\r\nHost: x\r\n";
    for (bad, expected) in [
        (
            "Bad Name: y",
            "line 3 breaks a rule, the name of a field has a byte that no name has: Bad Name: y",
        ),
        (
            "Cookie : S3",
            "line 3 breaks a rule, the name of a field has a byte that no name has: \
             [11 bytes masked]",
        ),
        (
            "Authorization Basic S3",
            "line 3 breaks a rule, there is no colon: [22 bytes masked]",
        ),
    ] {
        let request = format!("{head}{bad}\r\nY: z\r\n\r\n");
        let text = masked(&[(UP, request.as_bytes())]);
        let expected = format!(
            "  GET /a HTTP/1.1\n    Host: x\n    {expected}\n  this breaks the rules of its \
             protocol; this direction is decoded no further\n"
        );
        assert_eq!(text, expected);
    }
    // It goes on with a secret.
    let request = "GET /a HTTP/1.1\r\nCookie: a\r\n S3\r\n\r\n";
    let text = masked(&[(UP, request.as_bytes())]);
    assert!(
        text.contains("a line begins with a blank: [3 bytes masked]\n"),
        "{text}"
    );
    assert!(!text.contains("S3"), "{text}");
}

#[test]
fn an_alert_is_named_where_it_is_not_encrypted() {
    let text = masked(&[(DOWN, b"\x15\x03\x03\x00\x02\x02\x28")]);
    let expected =
        "  TLS record alert version=TLS1.2 length=2\n  TLS alert fatal handshake_failure\n";
    assert_eq!(text, expected);
    let text = masked(&[(DOWN, b"\x15\x03\x03\x00\x02\x07\xc8")]);
    assert!(text.ends_with("TLS alert 7 200\n"), "{text}");
    let encrypted = [&b"\x15\x03\x03\x00\x1a"[..], &[2; 26]].concat();
    assert!(!masked(&[(DOWN, &encrypted)]).contains("TLS alert "));
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn a_message_of_grpc_is_decoded_and_forges_nothing() {
    let mut encoder = Encoder::new();
    let trailers = encoder.encode([
        (&b"grpc-status"[..], &b"5 OK"[..]),
        (b"grpc-message", b"K%C3%A4se%0a%20nicht%zz \xff%E2%80%AE"),
    ]);
    let down = [frame(4, 0, 0, &[]), frame(1, 5, 1, &trailers)].concat();
    let text = masked(&[(DOWN, &down)]);
    let expected = "HEADERS stream=1 end gRPC status 5\\x20OK: K\u{e4}se\\n nicht%zz \
                    \\xff\\xe2\\x80\\xae\n";
    assert!(text.contains(expected), "{text}");
}

/// The most that a decoder says of what it is given: HTTP/2 whose every header refers to one
/// that is large, from one client.
#[test]
fn what_is_shown_is_a_small_multiple_of_what_was_fed_whatever_it_decompresses_to() {
    let (mut decoded, mut out) = (Decoded::default(), Vec::new());
    let secrets = Secrets::default();
    let mut given = 0;
    let mut longest = 0;
    let mut feed = |bytes: &[u8]| {
        out.clear();
        let mut words = Words {
            out: &mut out,
            secrets: Some(&secrets),
        };
        decoded.chunk(&mut words, UP, bytes);
        given += bytes.len();
        longest = longest.max(out.len());
        out.len()
    };
    let mut told = feed(crate::proto::http2::PREFACE);
    // One entry of 4,000 bytes in the table, which each header refers to 64 times.
    let entry = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'x'; 4000]].concat();
    told += feed(&frame(1, 4, 1, &entry));
    for stream in 0..843 {
        told += feed(&frame(1, 5, 2 * stream + 3, &[0xbe; 64]));
    }
    assert!(given > 60_000, "{given}");
    assert!(told < 24 * given, "{told} of {given}");
    assert!(longest < 256 << 10, "{longest}");
    // It took them for headers, and says that there was more.
    let last = {
        out.clear();
        let mut words = Words {
            out: &mut out,
            secrets: None,
        };
        decoded.chunk(&mut words, UP, &frame(1, 5, 4001, &[0xbe; 64]));
        String::from_utf8_lossy(&out).into_owned()
    };
    assert!(
        last.contains("some fields are left out") || last.contains("not decoded"),
        "{last}"
    );
}

#[test]
fn more_streams_than_are_remembered_are_told_of() {
    let mut encoder = Encoder::new();
    let call = encoder.encode([
        (&b":path"[..], &b"/a.B/C"[..]),
        (b"content-type", b"application/grpc"),
    ]);
    let plain = Encoder::new().encode([(&b":path"[..], &b"/"[..])]);
    let mut up = [
        crate::proto::http2::PREFACE.to_vec(),
        frame(4, 0, 0, &[]),
        frame(1, 4, 1, &call),
    ]
    .concat();
    for stream in 0..256 {
        up.extend_from_slice(&frame(1, 4, 2 * stream + 3, &plain));
    }
    let message = frame(0, 0, 1, &[0, 0, 0, 0, 2, b'h', b'i']);
    up.extend_from_slice(&message);
    let text = masked(&[(UP, &up)]);
    // One without messages made room, and says so; the call goes on.
    assert!(text.contains("  stream=3 is followed no further: too many are open\n"));
    assert!(text.contains("gRPC message stream=1 length=2"), "{text}");
    // Where all have messages, the one that said nothing for the longest time does.
    let mut encoder = Encoder::new();
    let mut up = crate::proto::http2::PREFACE.to_vec();
    for stream in 0..256 {
        let call = encoder.encode([(&b"content-type"[..], &b"application/grpc"[..])]);
        up.extend_from_slice(&frame(1, 4, 2 * stream + 1, &call));
    }
    up.extend_from_slice(&message);
    let call = encoder.encode([(&b"content-type"[..], &b"application/grpc"[..])]);
    up.extend_from_slice(&frame(1, 4, 1001, &call));
    up.extend_from_slice(&message);
    let text = masked(&[(UP, &up)]);
    assert!(text.contains("  stream=3 is followed no further"));
    assert_eq!(text.matches("gRPC message stream=1 length=2").count(), 2);
}

#[test]
fn a_server_that_answers_http_1_to_a_client_of_http_2_is_read_as_that() {
    let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let text = masked(&[(UP, crate::proto::http2::PREFACE), (DOWN, answer)]);
    assert!(
        text.contains(
            "HTTP/1.1 400 Bad Request (its request was not seen)\n    Content-Length: 0\n"
        ),
        "{text}"
    );
    let text = masked(&[(UP, crate::proto::http2::PREFACE), (DOWN, b"SSH-2.0-x\r\n")]);
    assert!(text.ends_with("not HTTP, 11 bytes\n"), "{text}");
}

#[test]
fn what_is_known_of_the_requests_before_a_bad_one_still_pairs() {
    let up = b"HEAD /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nBad Name: x\r\n\r\n";
    let down = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n\
                 HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let text = masked(&[(UP, up), (DOWN, down)]);
    assert!(
        text.contains("HTTP/1.1 200 OK (answers HEAD /a HTTP/1.1)\n"),
        "{text}"
    );
    assert!(
        text.ends_with(
            "  HTTP/1.1 400 Bad Request (its request was not seen)\n    Content-Length: 0\n"
        ),
        "{text}"
    );
}

proptest! {
    /// The bound of what is told is one of what is written: no note is longer in words than it
    /// weighs, whatever was said.
    #[test]
    fn a_note_is_no_longer_than_it_weighs(
        begin in prop::sample::select(vec![
            &b""[..],
            b"GET /?a=b HTTP/1.1\r\n",
            b"HEAD /?sig=x&key= HTTP/1.1\r\nCookie:\r\n",
            b"CONNECT a@b:1 HTTP/1.1\r\n\r\n",
            crate::proto::http2::PREFACE,
            b"\x15\x03\x03\x00\x02",
            b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c",
        ]),
        frames in prop::collection::vec((0_u8..10, any::<u8>(), 0_u32..5, 0_usize..40), 0..6),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut up = begin.to_vec();
        let mut rest = bytes.as_slice();
        for (kind, flags, stream, length) in frames {
            let (payload, others) = rest.split_at(length.min(rest.len()));
            up.extend_from_slice(&frame(kind, flags, stream, payload));
            rest = others;
        }
        up.extend_from_slice(rest);
        let (mut conversation, mut notes) = (Conversation::new(), Vec::new());
        conversation.feed(UP, &up, &mut notes);
        conversation.feed(DOWN, &bytes, &mut notes);
        for note in notes {
            let weight = crate::proto::tell::weight(&note);
            for secrets in [None, Some(&Secrets::default())] {
                let mut out = Vec::new();
                let mut words = Words { out: &mut out, secrets };
                words.tell(note.clone());
                prop_assert!(out.len() as u64 <= weight, "{weight} {note:?}");
            }
        }
    }
}
