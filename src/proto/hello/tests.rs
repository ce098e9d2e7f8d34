use super::*;

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8], bytes].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// An extension.
fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &long(content)].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    extension(0, &long(&[&[0][..], &long(name)].concat()))
}

fn alpn(names: &[&str]) -> Vec<u8> {
    let names: Vec<u8> = names.iter().flat_map(|it| short(it.as_bytes())).collect();
    extension(16, &long(&names))
}

/// The message with these extensions.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &short(&[1; 32]),
        &long(&[0x1a, 0x1a, 0x13, 1]),
        &short(&[0]),
        &long(&extensions.concat()),
    ]
    .concat();
    framed(&body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[1][..], &length[1..], body].concat()
}

/// In records of so many bytes.
pub(in crate::proto) fn records(message: &[u8], size: usize) -> Vec<u8> {
    let pieces = message.chunks(size);
    pieces
        .flat_map(|piece| [&[22, 3, 1][..], &long(piece)].concat())
        .collect()
}

/// The same without records, with an extension of so many bytes, such as a key of post-quantum size.
pub(in crate::proto) fn handshake(name: &str, protocols: &[&str], more: usize) -> Vec<u8> {
    let mut extensions = vec![extension(51, &vec![0x51; more]), sni(name.as_bytes())];
    if !protocols.is_empty() {
        extensions.push(alpn(protocols));
    }
    message(&extensions)
}

/// A hello that asks for this name and offers these protocols.
pub(in crate::proto) fn hello(name: &str, protocols: &[&str]) -> Vec<u8> {
    records(&message(&[sni(name.as_bytes()), alpn(protocols)]), 1 << 14)
}

fn name(stream: &[u8]) -> Option<String> {
    let hello = read(stream).expect("well-formed").expect("whole");
    hello.server_name
}

#[test]
fn b53_names_are_normalised() {
    for (written, read) in [
        ("a.example", "a.example"),
        ("A.ExAmPlE", "a.example"),
        ("a.example.", "a.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a_b.example", "a_b.example"),
        ("192.0.2.1", "192.0.2.1"),
    ] {
        assert_eq!(name(&hello(written, &["h2"])).as_deref(), Some(read));
    }
}

#[test]
fn b53_a_hello_in_any_records_and_any_pieces_is_the_same() {
    let grease = extension(0x0a0a, &[]);
    let keys = extension(51, &[9; 1216]);
    let message = message(&[
        grease.clone(),
        keys,
        alpn(&["h2", "http/1.1"]),
        sni(b"host.example"),
        extension(0xfafa, &[0]),
    ]);
    assert!(message.len() > 1300, "as large as with post-quantum keys");
    for size in [1, 2, 3, 7, 100, message.len() - 1, message.len()] {
        let stream = records(&message, size);
        let whole = read(&stream);
        let found = whole.clone().expect("well-formed").expect("whole");
        assert_eq!(found.server_name.as_deref(), Some("host.example"));
        assert_eq!(found.protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        for end in (0..stream.len()).step_by(if size < 100 { 61 } else { 1 }) {
            let so_far = read(&stream[..end]);
            assert!(so_far == Ok(None) || so_far == whole, "{size} {end}");
        }
    }
}

#[test]
fn b53_large_hellos_up_to_their_bounds() {
    let of = |len: usize| {
        let fixed = message(&[sni(b"a"), extension(21, &[])]).len() - 4;
        message(&[sni(b"a"), extension(21, &vec![0; len - fixed])])
    };
    let largest = of(HELLO_MAX);
    assert_eq!(largest.len(), HELLO_MAX + 4);
    assert_eq!(name(&records(&largest, 1 << 14)).as_deref(), Some("a"));
    let larger = records(&of(HELLO_MAX + 1), 1 << 14);
    // Known by its first bytes.
    assert!(read(&larger[..9]).is_err());
    let claims = [22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    assert!(read(&claims).is_err());
    // Records of one byte: as far as 32 KiB go.
    let dripped = records(&of(8000), 1);
    assert!(read(&dripped).is_err() && read(&dripped[..STREAM_MAX - 1]) == Ok(None));
    assert!(
        read(&[22, 3, 1, 0x40, 1]).is_err(),
        "a record beyond 16 KiB"
    );
}

#[test]
fn b53_what_is_malformed_is_refused() {
    let twice = [sni(b"a.example"), sni(b"b.example")];
    let entry = |name: &[u8]| [&[0][..], &long(name)].concat();
    let several = extension(0, &long(&[entry(b"a"), entry(b"b")].concat()));
    let kind = extension(0, &long(&[&[1][..], &long(b"a")].concat()));
    for bad in [
        message(&twice),
        message(&[several]),
        message(&[kind]),
        message(&[sni(b"a\0b.example")]),
        message(&[sni(b"")]),
        message(&[sni(b"a..b")]),
        message(&[sni(&[0xff, 0xfe])]),
        message(&[sni(b"a b")]),
        message(&[sni("x".repeat(300).as_bytes())]),
        message(&[extension(0, &[])]),
        message(&[extension(0, &[0, 9, 0, 0, 1, b'a'])]),
        message(&[extension(0, &[0, 4, 0, 0, 9, b'a'])]),
        message(&[extension(0, &[0, 4, 0, 0, 1, b'a', 0])]),
        message(&[extension(16, &[])]),
        message(&[extension(16, &[0, 0])]),
        message(&[extension(16, &[0, 1, 0])]),
        message(&[extension(16, &[0, 2, 5, b'h'])]),
        message(&[extension(51, b"x"), extension(51, b"y")]),
        message(&[vec![0, 51, 0, 9, 1]]),
        framed(&[3, 3]),
        framed(&[&[2, 3][..], &[7; 32], &[0, 0, 2, 19, 1, 1, 0]].concat()),
        framed(&[&[3, 3][..], &[7; 32], &[33], &[1; 33], &[0, 2, 19, 1, 1, 0]].concat()),
        framed(&[&[3, 3][..], &[7; 32], &[0, 0, 1, 19, 1, 0]].concat()),
        framed(&[&[3, 3][..], &[7; 32], &[0, 0, 2, 19, 1, 0]].concat()),
        framed(&[&[3, 3][..], &[7; 32], &[0, 0, 2, 19, 1, 1, 0, 0, 9]].concat()),
        framed(&[&[3, 3][..], &[7; 32], &[0, 0, 2, 19, 1, 1, 0, 0, 0, 9]].concat()),
    ] {
        let stream = records(&bad, 1 << 14);
        assert!(read(&stream).is_err(), "{}", bad.escape_ascii());
    }
    // Records that are none of a hello.
    for bad in [
        &[22, 3, 1, 0, 0][..],
        &[22, 4],
        &[22, 3, 1, 0, 1, 2],
        &[22, 3, 1, 0, 1, 1, 23],
    ] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn b54_old_hellos_have_no_name() {
    // SSL 3.0: no extensions; its record has version 0x0300.
    let body = [&[3, 0][..], &[7; 32], &[0, 0, 2, 0, 5, 1, 0]].concat();
    let message = framed(&body);
    let stream = [&[22, 3, 0][..], &long(&message)].concat();
    assert_eq!(read(&stream), Ok(Some(Hello::default())));
    assert_eq!(begins(&[0x80, 0x2e, 1]), Some(false), "SSL 2.0");
    assert_eq!(begins(&[22, 3]), Some(true));
    assert_eq!(begins(&[22]), None);
}
