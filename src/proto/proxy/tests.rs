use core::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::proto::prelude::{Facts, Prelude, Read};
use crate::proto::steps::HeaderReader;
use crate::relay::ending::Cause;

const BOTH: Settings = Settings { v1: true, v2: true };

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn announced(source: &str, destination: &str) -> Announced {
    Announced::Inet {
        source: socket(source),
        destination: socket(destination),
    }
}

/// The header that a text is; the text's length.
fn line(text: &str) -> Result<Announced, Fault> {
    let payload = format!("{text}payload");
    let (header, len) = parse(payload.as_bytes())?.expect("whole");
    assert_eq!(len, text.len());
    assert_eq!(header.version, Version::V1);
    Ok(header.announced)
}

/// A header of version 2: command, family and transport, what follows.
fn binary(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [&SIGNATURE[..], &[command, kind], &length, rest].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
}

fn is_malformed(bytes: &[u8]) -> bool {
    matches!(parse(bytes), Err(Fault::Malformed(_)))
}

#[test]
fn b48_lines_that_are_headers() {
    let four = announced("192.0.2.1:40000", "198.51.100.1:443");
    let text = "PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n";
    assert_eq!(line(text), Ok(four));
    let six = announced("[2001:db8::1]:65535", "[2001:DB8::2]:0");
    let text = "PROXY TCP6 2001:db8::1 2001:DB8::2 65535 0\r\n";
    assert_eq!(line(text), Ok(six));
    // The longest of the specification: 104 characters, and with UNKNOWN 107.
    let long = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let text = format!("PROXY TCP6 {long} {long} 65535 65535\r\n");
    assert_eq!(text.len(), 104);
    assert!(line(&text).is_ok());
    for junk in [
        "",
        " ",
        " whatever 1 2",
        " TCP4 1.2.3.4",
        &format!(" {}", "x".repeat(91)),
    ] {
        assert_eq!(
            line(&format!("PROXY UNKNOWN{junk}\r\n")),
            Ok(Announced::Unknown)
        );
    }
}

#[test]
fn b48_lines_that_are_none_are_refused() {
    let rest = "192.0.2.1 198.51.100.1 40000 443";
    for text in [
        // Line ends.
        format!("PROXY TCP4 {rest}\n"),
        format!("PROXY TCP4 {rest}\r"),
        format!("PROXY TCP4 {rest}\rx"),
        "PROXY UNKNOWN a\nb\r\n".to_owned(),
        "PROXY UNKNOWN a\rb\r\n".to_owned(),
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)),
        "PROXY \r\n".to_owned(),
        // Case, blanks.
        format!("PROXY tcp4 {rest}\r\n"),
        "PROXY unknown\r\n".to_owned(),
        "PROXY UNKNOWNS\r\n".to_owned(),
        format!("PROXY  TCP4 {rest}\r\n"),
        format!("PROXY TCP4  {rest}\r\n"),
        format!("PROXY TCP4 {rest} \r\n"),
        format!("PROXY TCP4\t{rest}\r\n"),
        "PROXY TCP4 192.0.2.1 198.51.100.1 40000\r\n".to_owned(),
        // Addresses.
        "PROXY TCP4 ::1 ::1 1 2\r\n".to_owned(),
        "PROXY TCP6 192.0.2.1 192.0.2.1 1 2\r\n".to_owned(),
        "PROXY TCP4 192.0.2.01 192.0.2.1 1 2\r\n".to_owned(),
        "PROXY TCP4 192.0.2 192.0.2.1 1 2\r\n".to_owned(),
        "PROXY TCP4 192.0.2.256 192.0.2.1 1 2\r\n".to_owned(),
        "PROXY TCP6 fe80::1%1 ::1 1 2\r\n".to_owned(),
        "PROXY TCP5 192.0.2.1 192.0.2.1 1 2\r\n".to_owned(),
        // Ports.
        "PROXY TCP4 192.0.2.1 192.0.2.1 65536 2\r\n".to_owned(),
        "PROXY TCP4 192.0.2.1 192.0.2.1 01 2\r\n".to_owned(),
        "PROXY TCP4 192.0.2.1 192.0.2.1 +1 2\r\n".to_owned(),
        "PROXY TCP4 192.0.2.1 192.0.2.1 -1 2\r\n".to_owned(),
        "PROXY TCP4 192.0.2.1 192.0.2.1 1 \r\n".to_owned(),
    ] {
        let padded = format!("{text}{}", "y".repeat(120));
        assert!(is_malformed(padded.as_bytes()), "{text:?}");
    }
    for text in [
        "proxy TCP4 ",
        " PROXY TCP4 ",
        "GET / HTTP/1.1",
        "\r\n\r\nGET",
    ] {
        assert_eq!(parse(text.as_bytes()), Err(Fault::Missing), "{text:?}");
    }
    // Without a line end it is malformed at the 107th byte, not at the end of patience.
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(93));
    assert_eq!(parse(&endless.as_bytes()[..106]), Ok(None));
    assert!(is_malformed(endless.as_bytes()));
}

#[test]
fn b49_binary_headers() {
    let four = [192, 0, 2, 1, 198, 51, 100, 1, 0x9c, 0x40, 1, 0xbb];
    let header = |bytes: &[u8]| parse(bytes).expect("well-formed").expect("whole");
    let (found, len) = header(&binary(0x21, 0x11, &four));
    assert_eq!(len, 28);
    let expected = announced("192.0.2.1:40000", "198.51.100.1:443");
    assert_eq!(found.announced, expected);

    let six = [&[0; 15][..], &[1], &[0; 15], &[2], &[0, 1, 0, 2]].concat();
    let (found, _) = header(&binary(0x21, 0x21, &six));
    assert_eq!(found.announced, announced("[::1]:1", "[::2]:2"));

    let mut unix = vec![0; 216];
    unix[..4].copy_from_slice(b"/a/b");
    unix[108..112].copy_from_slice(b"\0abs");
    let (found, _) = header(&binary(0x21, 0x31, &unix));
    let expected = Announced::Unix {
        source: b"/a/b".to_vec(),
        destination: b"\0abs".to_vec(),
    };
    assert_eq!(found.announced, expected);

    // LOCAL with and without a block, of any family; UNSPEC; datagrams.
    for (command, kind, block, expected) in [
        (0x20, 0x00, &[][..], Announced::Local),
        (0x20, 0x11, &four, Announced::Local),
        (0x20, 0xff, &[1, 2, 3], Announced::Local),
        (0x21, 0x00, &[], Announced::Unknown),
        (0x21, 0x00, &[9, 9, 9], Announced::Unknown),
        (0x21, 0x12, &four, Announced::Unknown),
    ] {
        let (found, len) = header(&binary(command, kind, block));
        assert_eq!((found.announced, len), (expected, 16 + block.len()));
    }
}

#[test]
fn b49_binary_headers_that_are_none_are_refused() {
    let four = [192, 0, 2, 1, 198, 51, 100, 1, 0x9c, 0x40, 1, 0xbb];
    for (command, kind, block) in [
        (0x11, 0x11, &four[..]),
        (0x01, 0x11, &four),
        (0x31, 0x11, &four),
        (0x22, 0x11, &four),
        (0x2f, 0x11, &four),
        (0x21, 0x41, &four),
        (0x21, 0xf1, &four),
        (0x21, 0x13, &four),
        (0x21, 0x11, &[]),
        (0x21, 0x11, &four[..11]),
        (0x21, 0x21, &four),
        (0x21, 0x31, &four),
    ] {
        let bytes = binary(command, kind, block);
        assert!(
            is_malformed(&bytes),
            "{command:#x} {kind:#x} {}",
            block.len()
        );
    }
    // Too long a length is known before anything of it has come.
    let long = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
    assert!(is_malformed(&long));
    assert_eq!(parse(&long[..15]), Ok(None));
    let whole = binary(0x20, 0, &vec![0; V2_MAX - 16]);
    assert!(matches!(parse(&whole), Ok(Some((_, V2_MAX)))));
}

#[test]
fn b50_tlvs_are_checked() {
    let four = [192, 0, 2, 1, 198, 51, 100, 1, 0x9c, 0x40, 1, 0xbb];
    let with = |tlvs: &[u8]| binary(0x21, 0x11, &[&four[..], tlvs].concat());
    let good = with(
        &[
            tlv(ALPN, b"h2"),
            tlv(AUTHORITY, b"a.example"),
            tlv(0xe0, b""),
        ]
        .concat(),
    );
    let (header, _) = parse(&good).expect("well-formed").expect("whole");
    assert_eq!(header.tlv(AUTHORITY), Some(&b"a.example"[..]));
    assert_eq!(header.tlv(0xe0), Some(&b""[..]));
    assert_eq!(header.tlv(UNIQUE_ID), None);
    for bad in [
        &[1][..],
        &[1, 0],
        &[1, 0, 3, b'h', b'2'],
        &tlv(CRC32C, b"abc"),
        &tlv(UNIQUE_ID, &[0; 129]),
        &tlv(0x20, &[1, 0, 0, 0]),
        &tlv(0x20, &[1, 0, 0, 0, 0, 0x21, 0, 9, b'x']),
    ] {
        assert!(is_malformed(&with(bad)), "{bad:?}");
    }
    let inner = [&[1, 0, 0, 0, 0][..], &tlv(0x21, b"TLSv1.3")].concat();
    assert!(parse(&with(&tlv(0x20, &inner))).is_ok());
}

#[test]
fn b50_a_checksum_is_verified() {
    let outgoing = Outgoing {
        version: Version::V2,
        announced: &announced("192.0.2.1:40000", "198.51.100.1:443"),
        tlvs: &[(AUTHORITY, b"a.example"), (UNIQUE_ID, b"1-2-3")],
        checksum: true,
    };
    let mut bytes = Vec::new();
    write(&outgoing, &mut bytes);
    assert!(matches!(parse(&bytes), Ok(Some(_))));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1 << bit;
            let taken =
                matches!(&parse(&wrong), Ok(Some((header, _))) if header.tlv(CRC32C).is_some());
            assert!(!taken, "byte {at}, bit {bit}");
        }
    }
    let twice = binary(
        0x21,
        0x11,
        &[&[0; 12][..], &tlv(CRC32C, &[0; 4]), &tlv(CRC32C, &[0; 4])].concat(),
    );
    assert!(is_malformed(&twice));
}

/// From the text of RFC 3720, appendix B.4: 32 bytes of zeros.
#[test]
fn a_datagram_has_a_header_of_its_own_kind() {
    for (source, destination, kind) in [
        ("192.0.2.1:53", "198.51.100.1:5353", 0x12),
        ("[2001:db8::1]:53", "[2001:db8::2]:443", 0x22),
    ] {
        let announced = announced(source, destination);
        let outgoing = Outgoing {
            version: Version::V2,
            announced: &announced,
            tlvs: &[(AUTHORITY, b"x")],
            checksum: true,
        };
        let mut bytes = Vec::new();
        write_for_datagram(&outgoing, &mut bytes);
        assert_eq!(bytes[13], kind);
        let len = bytes.len();
        bytes.extend_from_slice(b"payload");
        let (header, taken) = parse_datagram(&bytes).unwrap();
        assert_eq!((header.announced, taken), (announced.clone(), len));
        // A stream brings nobody by a header of datagrams, and the other way round.
        let (header, _) = parse(&bytes).unwrap().unwrap();
        assert_eq!(header.announced, Announced::Unknown);
        let mut stream = Vec::new();
        write(&outgoing, &mut stream);
        let (header, _) = parse_datagram(&stream).unwrap();
        assert_eq!(header.announced, Announced::Unknown);
        for cut in 0..len {
            assert!(parse_datagram(&bytes[..cut]).is_err(), "{cut}");
        }
    }
    let line = b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n";
    assert_eq!(parse_datagram(line), Err(Fault::Missing));
}

#[test]
fn the_checksum_is_that_of_castagnoli() {
    let mut zeros = vec![0; 32];
    assert_eq!(super::tlv::checksum_of(&zeros, 0), 0x8a91_36aa);
    zeros[0] = 1;
    assert_eq!(super::tlv::checksum_of(&zeros, 0), 0x8a91_36aa);
}

#[test]
fn what_version_1_cannot_say_is_unknown() {
    let mut out = Vec::new();
    local(Version::V1, &mut out);
    assert_eq!(out, b"PROXY UNKNOWN\r\n");
    out.clear();
    local(Version::V2, &mut out);
    assert_eq!(out, binary(0x20, 0, &[]));
    out.clear();
    // A client of IPv4 at an address of IPv6: one family has both.
    let mixed = announced("192.0.2.1:1", "[2001:db8::1]:2");
    let outgoing = |version, announced| Outgoing {
        version,
        announced,
        tlvs: &[],
        checksum: false,
    };
    write(&outgoing(Version::V1, &mixed), &mut out);
    assert_eq!(out, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n");
    assert!(line(&String::from_utf8_lossy(&out)).is_ok());
    out.clear();
    let mapped = announced("[::ffff:192.0.2.1]:1", "192.0.2.2:2");
    write(&outgoing(Version::V1, &mapped), &mut out);
    assert_eq!(out, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
}

#[test]
fn a_version_that_is_not_accepted_is_refused_in_any_pieces() {
    let settings = Settings {
        v1: false,
        v2: true,
    };
    for text in ["PROXY UNKNOWN\r\n", "PROXY nonsense"] {
        for cut in 1..text.len() {
            assert_eq!(
                fed(settings, text.as_bytes(), &[cut]).0,
                Cause::BadProxyHeader
            );
        }
    }
    let (cause, _, _) = fed(settings, b"PRO GET", &[2]);
    assert_eq!(cause, Cause::NoProxyHeader);
}

/// What comes of a stream in pieces, cut at these places: a cause (`Finished` for a
/// header, `NoRequest` for an unfinished one), bytes taken, what was announced.
fn fed(settings: Settings, stream: &[u8], cuts: &[usize]) -> (Cause, usize, Option<Header>) {
    let mut reader = HeaderReader::new(settings);
    let mut facts = Facts::default();
    let mut ends: Vec<usize> = cuts.iter().copied().chain([stream.len()]).collect();
    ends.sort_unstable();
    let mut at = 0;
    for end in ends {
        while at < end {
            let piece = &stream[at..end.min(at + reader.room())];
            match reader.feed(piece, &mut facts) {
                Read::More => at += piece.len(),
                Read::Taken(len) => {
                    return (Cause::Finished, at + len, facts.announced.map(|it| *it));
                }
                Read::Invalid(cause) => return (cause, 0, None),
                Read::Wait | Read::Seen => panic!("a header is taken"),
            }
        }
    }
    (Cause::NoRequest, 0, None)
}

fn any_announced() -> impl Strategy<Value = Announced> {
    let four = any::<([u8; 4], u16, [u8; 4], u16)>().prop_map(|(a, b, c, d)| Announced::Inet {
        source: (Ipv4Addr::from(a), b).into(),
        destination: (Ipv4Addr::from(c), d).into(),
    });
    let six = any::<([u8; 16], u16, [u8; 16], u16)>().prop_map(|(a, b, c, d)| Announced::Inet {
        source: (Ipv6Addr::from(a), b).into(),
        destination: (Ipv6Addr::from(c), d).into(),
    });
    let name = || prop::collection::vec(1..=255_u8, 0..108);
    let unix = (name(), name()).prop_map(|(source, destination)| Announced::Unix {
        source,
        destination,
    });
    prop_oneof![
        Just(Announced::Local),
        Just(Announced::Unknown),
        four,
        six,
        unix
    ]
}

fn any_header() -> impl Strategy<Value = Vec<u8>> {
    let tlvs = prop::collection::vec(
        (
            prop_oneof![Just(ALPN), Just(AUTHORITY), Just(0xe1_u8)],
            prop::collection::vec(any::<u8>(), 0..40),
        ),
        0..3,
    );
    (any_announced(), any::<(bool, bool)>(), tlvs).prop_map(|(announced, (v1, checksum), tlvs)| {
        let tlvs: Vec<(u8, &[u8])> = tlvs
            .iter()
            .map(|(kind, value)| (*kind, &value[..]))
            .collect();
        let mut out = Vec::new();
        let outgoing = Outgoing {
            version: if v1 { Version::V1 } else { Version::V2 },
            announced: &announced,
            tlvs: &tlvs,
            checksum,
        };
        write(&outgoing, &mut out);
        out
    })
}

proptest! {
    /// What is written is read: the addresses, the TLVs, and not a byte of what follows.
    #[test]
    fn what_is_written_is_read(announced in any_announced(), v1 in any::<bool>(), payload in any::<[u8; 9]>()) {
        let version = if v1 { Version::V1 } else { Version::V2 };
        let outgoing = Outgoing { version, announced: &announced, tlvs: &[(AUTHORITY, b"x")], checksum: true };
        let mut bytes = Vec::new();
        write(&outgoing, &mut bytes);
        let len = bytes.len();
        bytes.extend(payload);
        let (header, taken) = parse(&bytes).expect("well-formed").expect("whole");
        prop_assert_eq!(taken, len);
        let canonical = |it: &SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
        match (&announced, &header.announced) {
            (Announced::Inet { source, destination }, Announced::Inet { source: a, destination: b }) => {
                prop_assert_eq!((canonical(source), canonical(destination)), (canonical(a), canonical(b)));
            }
            (Announced::Unix { .. } | Announced::Local, found) if v1 => {
                prop_assert_eq!(found, &Announced::Unknown);
            }
            (announced, found) => prop_assert_eq!(announced, found),
        }
    }

    /// Behaviour 47: cut anywhere, glued to payload or not, a header is the same, and so
    /// is what is wrong with one that is none.
    #[test]
    fn b47_pieces_change_nothing(
        mut stream in any_header(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
        payload in prop::collection::vec(any::<u8>(), 0..40),
        cuts in prop::collection::vec(0..400_usize, 0..8),
    ) {
        for (at, byte) in edits {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream.extend(payload);
        let whole = fed(BOTH, &stream, &[]);
        let cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        prop_assert_eq!(&fed(BOTH, &stream, &cuts), &whole);
        let each: Vec<usize> = (1..stream.len()).collect();
        prop_assert_eq!(&fed(BOTH, &stream, &each), &whole);
    }
}
