use proptest::prelude::*;

use super::*;

const MAX: usize = 8192;

fn reader(header_max: usize) -> Reader {
    Reader::new(Settings {
        header_max,
        realm: "x".into(),
    })
}

/// What a reader makes of bytes that come at once.
fn parse(bytes: &[u8], max: usize) -> Parse {
    reader(max).read(bytes)
}

fn refused(bytes: impl AsRef<[u8]>) -> u16 {
    match parse(bytes.as_ref(), MAX) {
        Parse::Invalid(refusal) => refusal.status.code(),
        other => panic!("{:?}: {other:?}", bytes.as_ref().escape_ascii().to_string()),
    }
}

fn target(text: &str) -> Result<String, u16> {
    let header = format!("CONNECT {text} HTTP/1.1\r\n\r\n");
    match parse(header.as_bytes(), MAX) {
        Parse::Found { len, request } => {
            assert_eq!(len, header.len());
            Ok(request.target.to_string())
        }
        Parse::Invalid(refusal) => Err(refusal.status.code()),
        Parse::More => panic!("{text}: a whole header is not enough"),
    }
}

#[test]
fn b56_targets_are_a_host_and_a_port() {
    for (text, shown) in [
        ("example.com:443", "example.com:443"),
        ("Example.COM.:1", "example.com:1"),
        ("192.0.2.1:65535", "192.0.2.1:65535"),
        ("[::1]:443", "[::1]:443"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "0.0.0.0:80"),
        ("db_1:5432", "db_1:5432"),
    ] {
        assert_eq!(target(text), Ok(shown.to_owned()), "{text}");
    }
    for text in [
        "::1:443",
        "example.com",
        "example.com:",
        "example.com:0",
        "example.com:65536",
        "example.com:0443",
        "example.com:+443",
        "example.com:443x",
        ":443",
        "example.com:443/",
        "example.com:443?q",
        "example.com:443#f",
        "user@example.com:443",
        "https://example.com:443",
        "http://example.com/",
        "/",
        "*",
        "[::1]",
        "[::1]443",
        "[::1%eth0]:443",
        "[127.0.0.1]:443",
        "[::1:443",
        "ex%61mple.com:443",
        "a,b:443",
        "-a.example:443",
        "a..b:443",
    ] {
        assert_eq!(target(text), Err(400), "{text}");
    }
}

#[test]
fn b57_numbers_are_no_addresses() {
    for text in [
        "2130706433:80",
        "0x7f.1:80",
        "0177.0.0.1:80",
        "127.1:80",
        "0x7f000001:80",
    ] {
        assert_eq!(target(text), Err(400), "{text}");
    }
}

#[test]
fn b56_what_a_forgiving_parser_lets_pass_is_refused() {
    for header in [
        "CONNECT a:1 HTTP/1.1\n\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nA: b\0c\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nA: b\rc\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nA : b\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\n: b\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        "CONNECT  a:1 HTTP/1.1\r\n\r\n",
        "CONNECT\ta:1 HTTP/1.1\r\n\r\n",
        "CONNECT a:1\r\n\r\n",
        "CONNECT a:1 HTTP/2.0\r\n\r\n",
        "CONNECT a:1 HTTP/1.1 \r\n\r\n",
        " CONNECT a:1 HTTP/1.1\r\n\r\n",
        "\r\n\r\nCONNECT a:1 HTTP/1.1\r\n\r\n",
        "\r\n CONNECT a:1 HTTP/1.1\r\n\r\n",
        "\nCONNECT a:1 HTTP/1.1\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic a\r\nProxy-Authorization: Basic b\r\n\r\n",
        "\x16\x03\x01",
    ] {
        assert_eq!(refused(header), 400, "{header:?}");
    }
    assert_eq!(refused("GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\n"), 405);
    assert_eq!(refused("connect a:1 HTTP/1.1\r\n\r\n"), 405);
}

#[test]
fn b56_a_header_is_bounded() {
    let line = "A: b\r\n".repeat(HEADERS_MAX + 1);
    assert_eq!(refused(format!("CONNECT a:1 HTTP/1.1\r\n{line}\r\n")), 431);
    let long = format!("CONNECT a:1 HTTP/1.1\r\nA: {}", "b".repeat(MAX));
    assert_eq!(refused(long), 431);
    let header = b"CONNECT a:1 HTTP/1.0\r\n\r\n";
    let found = |max| parse(header, max);
    assert!(matches!(found(header.len()), Parse::Found { .. }));
    assert!(matches!(found(header.len() - 1), Parse::Invalid(_)));
}

#[test]
fn b47_a_header_may_come_in_any_pieces_and_payload_behind_it() {
    let header =
        b"CONNECT a.example:1 HTTP/1.1\r\nHost: b\r\nProxy-Authorization: basic  eA==\r\n\r\n";
    let mut dripped = reader(MAX);
    for at in 0..header.len() - 1 {
        assert_eq!(dripped.read(&header[at..=at]), Parse::More, "{at}");
    }
    assert!(matches!(
        dripped.read(b"\n\x16"),
        Parse::Found { len: 1, .. }
    ));
    let glued = [&header[..], b"\x16\x03\x01\n\n"].concat();
    let Parse::Found { len, request } = parse(&glued, MAX) else {
        panic!("payload is none of the header's business");
    };
    assert_eq!(len, header.len());
    let authorization = request.authorization.expect("credentials");
    assert_eq!(authorization.basic(), Some(&b"eA=="[..]));
    assert!(!format!("{authorization:?}").contains("eA"));
}

#[test]
fn b57_the_200_has_neither_length_nor_encoding() {
    let text = answer(Status::Established, "e", "x", "y");
    assert_eq!(text, b"HTTP/1.1 200 Connection Established\r\n\r\n");
    for status in Status::ALL.into_iter().skip(1) {
        let text = String::from_utf8(answer(status, "e", "a \"b\"", "why")).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a header");
        assert!(head.starts_with(&format!("HTTP/1.1 {} ", status.code())));
        assert!(head.contains("\r\nConnection: close"), "{head}");
        let proxy_status = "\r\nProxy-Status: thalweg; error=e; details=\"why\"\r\n";
        assert!(head.contains(proxy_status), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert_eq!(
            head.contains("Proxy-Authenticate: Basic realm=\"a \\\"b\\\"\""),
            status.code() == 407
        );
        assert_eq!(head.contains("Allow: CONNECT"), status.code() == 405);
    }
}

proptest! {
    /// What is found does not depend on the pieces in which it came, nor on what
    /// follows.
    #[test]
    fn pieces_and_payload_change_nothing(
        mut bytes in prop::collection::vec(any::<u8>(), 0..80),
        start in prop::sample::select(vec!["", "CONNECT ", "CONNECT a:1 HTTP/1.1\r\n", "CONNECT a:1 HTTP/1.1\r\nA: b\r\n\r\n"]),
        pieces in prop::collection::vec(1_usize..9, 1..80),
    ) {
        bytes.splice(0..0, start.bytes());
        let whole = parse(&bytes, 64);
        let (mut reader, mut fed) = (reader(64), 0);
        let mut found = Parse::More;
        for piece in pieces.iter().copied().cycle() {
            let rest = &bytes[fed..];
            if rest.is_empty() {
                break;
            }
            let piece = &rest[..piece.min(rest.len())];
            found = reader.read(piece);
            if let Parse::Found { len, .. } = &mut found {
                *len += fed;
            }
            if found != Parse::More {
                break;
            }
            fed += piece.len();
        }
        prop_assert_eq!(found, whole);
    }
}

#[test]
fn a_target_for_a_log_has_no_secret_in_it() {
    for (line, shown) in [
        ("CONNECT a.example:443 HTTP/1.1\r\n", "a.example:443"),
        ("CONNECT a.example:44", "a.example:44"),
        (
            "GET http://ann:secret@a.example/x?token=1 HTTP/1.1\r\n",
            "a.example/x",
        ),
        ("GET http://a.example/x HTTP/1.1\r\n", "http://a.example/x"),
        ("CONNECT ann:S3CRET?@h:443 HTTP/1.1\r\n", "h:443"),
        ("CONNECT ann:S3 CRET@h:443 HTTP/1.1\r\n", "h:443"),
        ("CONNECT ann:S3/CR#ET@h:443 HTTP/1.1\r\n", "h:443"),
        ("CONNECT ann:S3CRET HTTP/1.1\r\n", "ann:..."),
        ("CONNECT ann:S3CRET", "ann:..."),
        ("PASS S3CRET\r\n", ""),
        ("AUTH ann S3CRET\r\n", ""),
        ("CONNECT", ""),
    ] {
        let found = target_of(line.as_bytes());
        assert_eq!(found.escape_ascii().to_string(), shown, "{line}");
    }
}

#[test]
fn what_can_never_become_a_request_is_refused_at_once() {
    for (begins, status) in [
        ("SSH-2.0-OpenSSH_9.6\r\n", 400),
        ("*1\r\n", 400),
        ("PING\r\n", 400),
        ("EHLO a.example\r\n", 400),
        ("\u{f6}", 400),
        ("\0", 400),
        ("{", 400),
        (&"A".repeat(METHOD_MAX + 1), 400),
        ("GET / HTTP/1.1\r\n", 405),
        ("PRI * HTTP/2.0\r\n", 400),
        ("CONNECT a:1 HTTP/3\r\n", 400),
    ] {
        assert_eq!(refused(begins), status, "{begins:?}");
    }
    for begins in ["", "\r", "\r\n", "CONN", "\r\nCONNECT a", "OPTIONS"] {
        assert_eq!(parse(begins.as_bytes(), MAX), Parse::More, "{begins:?}");
    }
}

#[test]
fn one_empty_line_before_the_request_is_ignored() {
    let header = b"\r\nCONNECT a:1 HTTP/1.1\r\n\r\n\r\n";
    let Parse::Found { len, request } = parse(header, MAX) else {
        panic!("refused");
    };
    assert_eq!((len, request.target.port), (header.len() - 2, 1));
}

#[test]
fn why_a_request_failed_stands_in_a_header_that_names_are_registered_for() {
    let registered = [
        "dns_timeout",
        "dns_error",
        "destination_unavailable",
        "destination_ip_unroutable",
        "connection_refused",
        "connection_terminated",
        "connection_timeout",
        "connection_limit_reached",
        "http_request_error",
        "http_request_denied",
        "proxy_internal_error",
    ];
    for (cause, error) in [
        (Cause::NameTimeout, "dns_timeout"),
        (Cause::NameFailed, "dns_error"),
        (Cause::Denied, "http_request_denied"),
        (Cause::Unauthorised, "http_request_denied"),
        (Cause::RequestTimeout, "http_request_error"),
        (Cause::Refused, "connection_refused"),
        (Cause::ConnectTimeout, "connection_timeout"),
        (Cause::Busy, "proxy_internal_error"),
        (Cause::Errno(1), "proxy_internal_error"),
    ] {
        let found = error_of(answer::status_of(cause), Some(cause));
        assert_eq!(found, error);
        assert!(registered.contains(&found));
    }
    // Nobody learns by the answer whether a name is there that leads where it may not.
    let said = |cause| reader(MAX).answer(Some(cause));
    assert_eq!(said(Cause::NameFailed), said(Cause::AddressDenied));
    let status = said(Cause::NameFailed).map(|answer| answer.status);
    assert_eq!(status, Some(502));
    let why = [
        Cause::Denied,
        Cause::AddressDenied,
        Cause::Busy,
        Cause::Stopped,
    ];
    for cause in why.map(answer::why) {
        assert!(
            cause
                .bytes()
                .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"')
        );
    }
}
