mod vectors;

use proptest::prelude::*;

use super::assembly::Assembly;
use super::header::{Form, Version};
use super::ids::Ids;
use super::keys::Keys;
use super::*;
use crate::proto::hello::tests::handshake;

const ID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|it| it.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|it| (it[0] << 4 | it[1]) as u8)
        .collect()
}

fn number(number: usize) -> Vec<u8> {
    (number as u32 | 0x8000_0000).to_be_bytes().to_vec()
}

fn crypto(offset: usize, piece: &[u8]) -> Vec<u8> {
    [&[6][..], &number(offset), &number(piece.len()), piece].concat()
}

/// The header of an Initial with a packet number of four bytes, as far as that.
fn header(version: u32, id: &[u8], token: &[u8], frames: usize) -> Vec<u8> {
    let first = if version == 1 { 0xc3 } else { 0xd3 };
    [
        &[first][..],
        &version.to_be_bytes(),
        &[id.len() as u8],
        id,
        &[0],
        &number(token.len()),
        token,
        &number(frames + 4 + 16),
    ]
    .concat()
}

/// A datagram with one Initial.
fn initial(id: &[u8], number: u32, frames: &[u8]) -> Vec<u8> {
    // As long as a server wants it.
    let mut frames = frames.to_vec();
    frames.resize(frames.len().max(1162), 0);
    let keys = Keys::of_client(Version::V1, id);
    keys.seal(&header(1, id, b"", frames.len()), number, &frames)
}

fn name(seen: &Seen) -> Option<&str> {
    match seen {
        Seen::Found(hello) => hello.server_name.as_deref(),
        _ => None,
    }
}

#[test]
fn the_examples_of_both_versions_open_and_seal() {
    for (text, version, first) in [
        (vectors::V1, Version::V1, "c300000001"),
        (vectors::V2, Version::V2, "d36b3343cf"),
    ] {
        let datagram = bytes(text);
        assert_eq!(datagram.len(), 1200);
        let seen = Initials::default().look(&datagram);
        assert_eq!(name(&seen), Some("example.com"), "{version:?}: {seen:?}");
        let header = bytes(&format!("{first}088394c8f03e5157080000449e"));
        let mut frames = bytes(vectors::FRAMES);
        frames.resize(1162, 0);
        let sealed = Keys::of_client(version, &ID).seal(&header, 2, &frames);
        assert_eq!(sealed, datagram, "{version:?}");
    }
}

#[test]
fn a_hello_over_two_datagrams_is_found_in_either_order() {
    let hello = handshake("post.quantum.example", &["h3"], 1700);
    let (front, back) = hello.split_at(1000);
    let first = initial(&ID, 0, &crypto(0, front));
    let second = initial(&ID, 1, &crypto(1000, back));
    for (one, other) in [(&first, &second), (&second, &first)] {
        let mut initials = Initials::default();
        assert_eq!(initials.look(one), Seen::More);
        // It comes again: sent twice, or copied on the way.
        assert_eq!(initials.look(one), Seen::More);
        let seen = initials.look(other);
        assert_eq!(name(&seen), Some("post.quantum.example"), "{seen:?}");
        let Seen::Found(hello) = seen else { return };
        assert_eq!(hello.protocols, [b"h3".to_vec()]);
    }
}

#[test]
fn pieces_come_in_any_order_between_other_frames() {
    let hello = handshake("shuffled.example", &[], 0);
    let mut pieces: Vec<Vec<u8>> = hello
        .chunks(10)
        .enumerate()
        .map(|(at, piece)| crypto(at * 10, piece))
        .collect();
    pieces.reverse();
    let ack = [&[3, 1, 0, 1, 0, 0, 0, 1, 2, 3][..], &[1, 0, 0]].concat();
    let frames = pieces.join(&ack[..]);
    let seen = Initials::default().look(&initial(&ID, 7, &frames));
    assert_eq!(name(&seen), Some("shuffled.example"), "{seen:?}");
}

#[test]
fn an_initial_is_found_behind_and_before_other_packets() {
    let hello = handshake("coalesced.example", &[], 0);
    let token = b"of a retry";
    let frames = crypto(0, &hello);
    let keys = Keys::of_client(Version::V1, &ID);
    let packet = keys.seal(&header(1, &ID, token, frames.len()), 0, &frames);
    // 0-RTT, whose length is told and whose content nobody here can read.
    let early = [&[0xd0, 0, 0, 0, 1, 8][..], &ID, &[0, 0x40, 100], &[9; 100]].concat();
    for datagram in [
        [&early[..], &packet].concat(),
        [&packet[..], &early].concat(),
        // What follows the last packet is not looked at.
        [&packet[..], &[0; 50]].concat(),
    ] {
        let seen = Initials::default().look(&datagram);
        assert_eq!(name(&seen), Some("coalesced.example"), "{seen:?}");
    }
    // It may overtake the Initial.
    let mut initials = Initials::default();
    assert_eq!(initials.look(&early), Seen::More);
    assert_eq!(name(&initials.look(&packet)), Some("coalesced.example"));
    // A connection that goes on begins nothing.
    let mut handshake = early.clone();
    handshake[0] = 0xe0;
    assert_eq!(Initials::default().look(&handshake), Seen::Other);
}

#[test]
fn an_unknown_version_is_told_and_so_is_what_is_no_quic() {
    let mut datagram = initial(&ID, 0, &crypto(0, &handshake("x.example", &[], 0)));
    datagram[1..5].copy_from_slice(&0x1a2a_3a4a_u32.to_be_bytes());
    let seen = Initials::default().look(&datagram);
    assert_eq!(seen, Seen::UnknownVersion(0x1a2a_3a4a));
    datagram[1..5].fill(0);
    for other in [
        &datagram[..],
        b"",
        b"\x00\x01 a question of DNS",
        b"\x40 a short header",
        b"\xc0\0\0\0\x01\xff",
    ] {
        assert_eq!(Initials::default().look(other), Seen::Other, "{other:?}");
    }
}

#[test]
fn what_does_not_open_is_skipped_and_the_hello_still_found() {
    let good = initial(&ID, 0, &crypto(0, &handshake("x.example", &[], 0)));
    let mut initials = Initials::default();
    for at in [25, 600, 1199] {
        let mut changed = good.clone();
        changed[at] ^= 1;
        assert_eq!(initials.look(&changed), Seen::More, "{at}");
    }
    assert_eq!(name(&initials.look(&good)), Some("x.example"));
}

#[test]
fn another_attempt_of_the_client_begins_anew() {
    let hello = handshake("x.example", &[], 1500);
    let mut initials = Initials::default();
    assert_eq!(
        initials.look(&initial(&ID, 0, &crypto(0, &hello[..700]))),
        Seen::More
    );
    // The same offset, other bytes, of another connection.
    let other = handshake("y.example", &[], 1500);
    let id = [7; 12];
    assert_eq!(
        initials.look(&initial(&id, 0, &crypto(700, &other[700..]))),
        Seen::More
    );
    let seen = initials.look(&initial(&id, 1, &crypto(0, &other[..700])));
    assert_eq!(name(&seen), Some("y.example"));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let hello = handshake("x.example", &[], 0);
    let mut changed = hello.clone();
    changed[30] ^= 1;
    for (frames, why) in [
        (
            [crypto(0, &hello[..40]), crypto(20, &changed[20..])].concat(),
            "differ",
        ),
        (crypto(16_380, &[1; 40]), "16 KiB"),
        (crypto(0, &[2, 0, 0, 0]), "no ClientHello"),
        (vec![6, 0, 60, 1], "cut"),
        (vec![2, 0, 0, 0x7f, 0xff, 0], "cut"),
        (vec![0x1c, 0, 0, 0], "closed"),
        (vec![0x08, 0], "does not belong"),
        (Vec::new(), "no frame"),
        (
            (0..100).flat_map(|at| crypto(10 + at * 2, &[0])).collect(),
            "too many pieces",
        ),
    ] {
        let told = Assembly::default().take(&frames);
        assert!(
            told.as_ref().is_err_and(|it| it.contains(why)),
            "{why}: {told:?}"
        );
    }
    let mut initials = Initials::default();
    let ping = initial(&ID, 0, &[1]);
    let looks: Vec<Seen> = (0..DATAGRAMS_MAX).map(|_| initials.look(&ping)).collect();
    let (last, others) = looks.split_last().unwrap();
    assert!(others.iter().all(|it| *it == Seen::More));
    assert!(matches!(last, Seen::Invalid(why) if why.contains("16 datagrams")));
}

/// Of a server: a long header that tells its id, as a Handshake packet does.
fn from_server(id: &[u8]) -> Vec<u8> {
    [&[0xe0, 0, 0, 0, 1, 0, id.len() as u8][..], id, &[5; 40]].concat()
}

/// Of a client that does not tell how long the id is.
fn short(id: &[u8]) -> Vec<u8> {
    [&[0x45][..], id, &[9; 30]].concat()
}

#[test]
fn a_short_header_says_whose_it_is_by_an_id_that_the_server_told() {
    let mut ids = Ids::new(100);
    ids.learn(&from_server(&[1; 8]), &"a");
    ids.learn(&from_server(&[2; 20]), &"b");
    assert_eq!(ids.find(&short(&[1; 8])), Some("a"));
    assert_eq!(ids.find(&short(&[2; 20])), Some("b"));
    assert_eq!(ids.find(&short(&[3; 8])), None);
    assert_eq!(ids.find(&short(&[2; 8])), None);
    // A long header of the client tells the whole id.
    let long = [&[0xe0, 0, 0, 0, 1, 8][..], &[1; 8], &[0], &[5; 40]].concat();
    assert_eq!(ids.find(&long), Some("a"));
    // The greased bit, and what is cut.
    let mut greased = short(&[1; 8]);
    greased[0] &= !0x40;
    assert_eq!(ids.find(&greased), Some("a"));
    assert_eq!(ids.find(&short(&[1; 8])[..6]), None);
    ids.retain(|it| *it != "a");
    assert_eq!((ids.find(&short(&[1; 8])), ids.len()), (None, 1));
}

#[test]
fn ids_that_say_nothing_are_not_learnt() {
    let mut ids = Ids::new(100);
    for id in [&[][..], &[1, 2, 3]] {
        ids.learn(&from_server(id), &1);
    }
    let mut negotiation = from_server(&[1; 8]);
    negotiation[1..5].fill(0);
    ids.learn(&negotiation, &1);
    ids.learn(&short(&[1; 8]), &1);
    ids.learn(b"", &1);
    assert!(ids.is_empty());
}

#[test]
fn what_is_used_stays_and_what_is_not_goes() {
    let mut ids = Ids::new(8);
    let id = |n: u32| n.to_be_bytes();
    ids.learn(&from_server(&id(0)), &0);
    for n in 1..1000 {
        ids.learn(&from_server(&id(n)), &n);
        assert!(ids.len() <= 8);
        assert_eq!(ids.find(&short(&id(0))), Some(0), "{n}");
    }
    assert_eq!(ids.find(&short(&id(500))), None);
    ids.age();
    assert_eq!(ids.find(&short(&id(999))), Some(999));
    ids.age();
    ids.age();
    assert!(ids.is_empty());
    assert_eq!(ids.find(&short(&id(999))), None);
}

proptest! {
    #[test]
    fn a_hello_is_found_however_it_is_cut_and_mixed(
        size in 0..3000_usize,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        order in any::<u64>(),
    ) {
        let hello = handshake("any.example", &["h3", "hq"], size);
        let mut at: Vec<usize> = cuts.iter().map(|it| it.index(hello.len())).collect();
        at.extend([0, hello.len()]);
        at.sort_unstable();
        let mut pieces: Vec<Vec<u8>> = at
            .windows(2)
            // Each has some bytes of the next one, too.
            .map(|it| crypto(it[0], &hello[it[0]..(it[1] + 5).min(hello.len())]))
            .collect();
        let mut random = order;
        for place in (1..pieces.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            pieces.swap(place, (random >> 33) as usize % (place + 1));
        }
        let mut initials = Initials::default();
        let mut found = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            match initials.look(&initial(&ID, number as u32, piece)) {
                Seen::More => {}
                Seen::Found(hello) => {
                    found.push(hello.server_name);
                    break;
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(found, [Some("any.example".to_owned())]);
    }

    #[test]
    fn ids_are_found_while_they_are_few(known in prop::collection::btree_set(
        prop::collection::vec(any::<u8>(), 4..20), 1..40,
    )) {
        let mut ids = Ids::new(100);
        for id in &known {
            ids.learn(&from_server(id), id);
        }
        prop_assert_eq!(ids.len(), known.len());
        for id in &known {
            // One that begins like it is longer, and goes first.
            let found = ids.find(&short(id));
            let longest = known.iter().filter(|it| short(id)[1..].starts_with(it));
            prop_assert_eq!(found.as_ref(), longest.max_by_key(|it| it.len()));
        }
    }
}

#[test]
fn a_header_is_read_by_what_all_versions_share() {
    let long = [&[0x80, 0xff, 0, 0, 29, 3][..], b"abc", &[2], b"de", b"rest"].concat();
    let Some(Form::Long(read)) = header::read(&long) else {
        panic!("a long header");
    };
    assert_eq!((read.destination, read.source), (&b"abc"[..], &b"de"[..]));
    assert_eq!(read.version(), None);
    for len in 0..11 {
        assert_eq!(header::read(&long[..len]), None, "{len}");
    }
}
