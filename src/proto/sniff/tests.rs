use proptest::prelude::*;

use super::*;
use crate::proto::hello::tests::{hello, records};

const ALL: Wanted = Wanted {
    hello: true,
    host: true,
};

/// What comes of a stream that is seen up to these places, one after the other.
fn seen(wanted: Wanted, stream: &[u8], looks: &[usize], ended: bool) -> Seen {
    let mut sniffer = Sniffer::new(wanted);
    for end in looks {
        match sniffer.look(&stream[..*end.min(&stream.len())], false) {
            Seen::More => {}
            seen => return seen,
        }
    }
    sniffer.look(stream, ended)
}

fn protocol_of(stream: &[u8]) -> Option<Protocol> {
    match seen(Wanted::default(), stream, &[], false) {
        Seen::Found(found) => Some(found.protocol),
        Seen::More | Seen::Invalid(_) => None,
    }
}

fn host_of(request: &str) -> Result<Option<String>, &'static str> {
    match seen(ALL, request.as_bytes(), &[], false) {
        Seen::Found(found) => Ok(found.host),
        Seen::Invalid(why) => Err(why),
        Seen::More => panic!("{request:?} is not whole"),
    }
}

#[test]
fn streams_are_told_by_their_first_bytes() {
    for (stream, protocol) in [
        (&b"\x16\x03"[..], Protocol::Tls),
        (b"GET ", Protocol::Http),
        (b"PRI * HTTP/2.0", Protocol::Http),
        (b"PROPFIND /", Protocol::Http),
        (b"SSH-", Protocol::Ssh),
        (b"PROXY ", Protocol::Proxy),
        (proxy::SIGNATURE, Protocol::Proxy),
        (b"\x80\x2e\x01", Protocol::Other),
        (b"\x16\x04", Protocol::Other),
        (b"GETX", Protocol::Other),
        (b"get ", Protocol::Other),
        (b"EHLO", Protocol::Other),
        (b"\r\n\r\nx", Protocol::Other),
        (b"\0", Protocol::Other),
    ] {
        assert_eq!(
            protocol_of(stream),
            Some(protocol),
            "{}",
            stream.escape_ascii()
        );
    }
    for open in [
        &b""[..],
        b"\x16",
        b"G",
        b"GET",
        b"P",
        b"PR",
        b"PROP",
        b"SSH",
        b"PROXY",
        b"\r\n",
    ] {
        assert_eq!(protocol_of(open), None, "{}", open.escape_ascii());
    }
}

#[test]
fn what_ended_before_it_was_certain_is_something_else() {
    for (stream, expected) in [
        (&b""[..], Some(Protocol::Other)),
        (b"G", Some(Protocol::Other)),
        (b"SSH", Some(Protocol::Other)),
        (b"\x16", Some(Protocol::Other)),
        (b"\x16\x03\x01", None),
        (b"GET / HT", None),
    ] {
        let found = match seen(ALL, stream, &[], true) {
            Seen::Found(found) => Some(found.protocol),
            Seen::More => panic!("it has ended"),
            Seen::Invalid(_) => None,
        };
        assert_eq!(found, expected, "{}", stream.escape_ascii());
    }
}

#[test]
fn hosts_are_found_and_normalised() {
    for (request, host) in [
        (
            "GET / HTTP/1.1\r\nHost: A.Example.:8080\r\n\r\n",
            Some("a.example"),
        ),
        (
            "GET / HTTP/1.1\r\nX: y\r\nhost:a.example\r\n\r\nbody",
            Some("a.example"),
        ),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Some("::1")),
        ("GET / HTTP/1.0\r\n\r\n", None),
        (
            "GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n",
            Some("a.example"),
        ),
        ("GET http://a.example HTTP/1.0\r\n\r\n", Some("a.example")),
        (
            "GET /?u=http://b.example HTTP/1.1\r\nHost: a.example\r\n\r\n",
            Some("a.example"),
        ),
        (
            "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
            Some("a.example"),
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
    ] {
        assert_eq!(host_of(request), Ok(host.map(str::to_owned)), "{request:?}");
    }
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/3.0\r\n\r\n",
    ] {
        assert!(host_of(request).is_err(), "{request:?}");
    }
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(HEAD_MAX));
    assert!(host_of(&endless).is_err());
}

#[test]
fn what_is_not_wanted_is_not_waited_for() {
    let wanted = Wanted {
        hello: true,
        host: false,
    };
    let found = Seen::Found(Protocol::Http.into());
    assert_eq!(seen(wanted, b"GET ", &[], false), found);
    let found = Seen::Found(Protocol::Tls.into());
    assert_eq!(seen(Wanted::default(), b"\x16\x03", &[], false), found);
}

/// A head that drips is parsed once for each line that is complete, a hello seven times for each of
/// its records: what each byte costs does not grow with those before it.
#[test]
fn what_drips_is_not_read_anew_for_each_byte() {
    let line = |n| format!("X-{n}: {}\r\n", "a".repeat(100));
    let lines = (0..100).map(line).collect::<Vec<_>>().concat();
    let head = format!(
        "GET /{} HTTP/1.1\r\n{lines}Host: a\r\n\r\n",
        "b".repeat(4000)
    );
    let whole = hello("a.test", &["h2"]);
    let dripped = records(&whole[5..], 20);
    for (stream, most) in [
        (head.as_bytes(), 102 + 2 * PREFACE.len()),
        (&dripped, dripped.len() / 25 * 7 + 10),
    ] {
        let mut sniffer = Sniffer::new(ALL);
        for end in 0..stream.len() {
            assert_eq!(sniffer.look(&stream[..end], false), Seen::More);
        }
        assert!(matches!(sniffer.look(stream, false), Seen::Found(_)));
        assert!(
            sniffer.judged <= most,
            "{} of {} bytes",
            sniffer.judged,
            stream.len()
        );
    }
}

/// Streams that are looked at closely, and others.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let tls = ("[a-zA-Z.]{1,20}", 1..300_usize).prop_map(|(name, size)| {
        let whole = hello(&name, &["h2"]);
        records(&whole[5..], size)
    });
    let http = "[A-Z]{3,8} /[a-z]{0,9} HTTP/1\\.[01]\r\n(Host: [a-zA-Z.:0-9]{0,12}\r\n){0,2}\r\n";
    let word = prop::sample::select(vec![
        "SSH-2.0-x",
        "PROXY TCP4",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]);
    let any_bytes = prop::collection::vec(any::<u8>(), 0..60);
    prop_oneof![
        tls,
        http.prop_map(String::into_bytes),
        word.prop_map(|it| it.as_bytes().to_vec()),
        any_bytes,
    ]
}

proptest! {
    /// Behaviour 53: however a stream comes in pieces, the same is found in it.
    #[test]
    fn b53_pieces_change_nothing(
        mut stream in stream(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
        cuts in prop::collection::vec(0..400_usize, 0..8),
        hello in any::<bool>(),
        host in any::<bool>(),
    ) {
        for (at, byte) in edits {
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
        }
        let wanted = Wanted { hello, host };
        let whole = seen(wanted, &stream, &[], false);
        let mut cuts = cuts;
        cuts.sort_unstable();
        prop_assert_eq!(&seen(wanted, &stream, &cuts, false), &whole);
        let each: Vec<usize> = (0..stream.len()).collect();
        prop_assert_eq!(&seen(wanted, &stream, &each, false), &whole);
    }
}
