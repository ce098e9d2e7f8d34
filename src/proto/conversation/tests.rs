use super::*;
use crate::proto::notes::{Frame, Framing};
use loona_hpack::Encoder;

use Direction::{Down, Up};

/// What is told of these bytes, in pieces of this length.
fn told(
    conversation: &mut Conversation,
    direction: Direction,
    bytes: &[u8],
    cut: usize,
) -> Vec<Note> {
    let mut notes = Vec::new();
    for piece in bytes.chunks(cut.max(1)) {
        conversation.feed(direction, piece, &mut notes);
    }
    notes
}

fn lines(notes: &[Note]) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let line = |note: &Note| match note {
        Note::Request { line, .. } => format!("> {}", text(line)),
        Note::Response { line, answers, .. } => {
            let answers = answers.as_deref().map_or("?".to_owned(), text);
            format!("< {} ({answers})", text(line))
        }
        Note::Body {
            framing,
            bytes,
            chunks,
            complete,
        } => {
            format!("{framing:?} {bytes} {chunks} {complete}")
        }
        other => format!("{other:?}"),
    };
    notes.iter().map(line).collect()
}

#[test]
fn pipelined_requests_are_paired_with_their_responses() {
    let up = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nHEAD /b HTTP/1.1\r\n\r\nPOST /c HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    let down = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    for cut in 1..up.len() {
        let mut conversation = Conversation::new();
        let asked = lines(&told(&mut conversation, Up, up, cut));
        assert_eq!(
            asked,
            [
                "> GET /a HTTP/1.1",
                "> HEAD /b HTTP/1.1",
                "> POST /c HTTP/1.1",
                "Length 3 0 true"
            ]
        );
        let answered = lines(&told(&mut conversation, Down, down, cut));
        assert_eq!(
            answered,
            [
                "< HTTP/1.1 100 Continue (GET /a HTTP/1.1)",
                "< HTTP/1.1 200 OK (GET /a HTTP/1.1)",
                "Length 2 0 true",
                "< HTTP/1.1 200 OK (HEAD /b HTTP/1.1)",
                "< HTTP/1.1 204 No Content (POST /c HTTP/1.1)",
            ]
        );
    }
}

#[test]
fn a_head_without_end_is_given_up_however_it_drips() {
    for piece in [1, 7, 40_000, 100_000] {
        for direction in Direction::BOTH {
            let mut conversation = Conversation::new();
            let begin: &[u8] = match direction {
                Up => b"GET / HTTP/1.1\r\nX: ",
                Down => b"HTTP/1.1 200 OK\r\nX: ",
            };
            told(&mut conversation, direction, begin, piece);
            let notes = told(
                &mut conversation,
                direction,
                &vec![b'x'; 3 * HEAD_MAX],
                piece,
            );
            assert_eq!(notes[0], Note::Stopped(Stop::TooLarge), "{piece}");
            assert_eq!(conversation.kept(), size_of::<Conversation>());
        }
    }
}

#[test]
fn a_body_that_drips_is_followed_to_its_end() {
    let line = format!("{}\r\n", "0".repeat(5000));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (text, end) in [
        (format!("{chunked}{line}"), Note::Stopped(Stop::Malformed)),
        (
            format!("{chunked}0\r\nX: {}", "x".repeat(2 * HEAD_MAX)),
            Note::Stopped(Stop::Malformed),
        ),
    ] {
        let mut conversation = Conversation::new();
        let notes = told(&mut conversation, Down, text.as_bytes(), 1);
        assert!(notes.contains(&end), "{:?}", notes.last());
    }
}

#[test]
fn a_tunnel_is_followed_into() {
    let mut conversation = Conversation::new();
    told(&mut conversation, Up, b"CONNECT a:1 HTTP/1.1\r\n\r\n", 99);
    let refused = told(
        &mut conversation,
        Down,
        b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n",
        99,
    );
    assert!(!refused.contains(&Note::Switched));
    told(&mut conversation, Up, b"CONNECT a:1 HTTP/1.1\r\n\r\n", 99);
    let answer = told(&mut conversation, Down, b"HTTP/1.1 200 OK\r\n\r\n", 99);
    assert!(answer.contains(&Note::Switched));
    let hello = tls::tests::hello(b"inside");
    let notes = told(&mut conversation, Up, &hello, 3);
    assert!(matches!(&notes[1], Note::Hello { server_name: Some(name), .. } if name == b"inside"));
    let notes = told(&mut conversation, Down, b"\x17\x03\x03\x00\x02ab", 1);
    assert_eq!(
        notes,
        [Note::Record {
            kind: 23,
            version: 0x303,
            length: 2
        }]
    );
}

#[test]
fn what_is_not_http_is_counted() {
    let mut conversation = Conversation::new();
    let notes = told(&mut conversation, Up, &[0xff; 100], 100);
    let raw: u64 = notes
        .iter()
        .map(|note| match note {
            Note::Raw { bytes } => *bytes,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(raw, 100);
    let notes = told(&mut conversation, Down, b"220 mail ready\r\n", 99);
    assert_eq!(notes, [Note::Raw { bytes: 16 }]);
}

#[test]
fn a_gap_is_followed_through_a_body_and_nowhere_else() {
    let mut conversation = Conversation::new();
    told(&mut conversation, Up, b"GET / HTTP/1.1\r\n\r\n", 99);
    told(
        &mut conversation,
        Down,
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab",
        99,
    );
    let mut notes = Vec::new();
    conversation.skip(Down, 90, &mut notes);
    assert_eq!(notes, []);
    let notes = told(
        &mut conversation,
        Down,
        b"12345678HTTP/1.1 200 OK\r\n\r\n",
        99,
    );
    let body = Note::Body {
        framing: Framing::Length,
        bytes: 100,
        chunks: 0,
        complete: true,
    };
    assert_eq!(notes[0], body);
    let mut notes = Vec::new();
    conversation.skip(Up, 1, &mut notes);
    assert_eq!(notes, [Note::Stopped(Stop::Gap)]);
    let notes = told(&mut conversation, Up, b"GET / HTTP/1.1\r\n\r\n", 99);
    assert_eq!(notes, [Note::Unfollowed { bytes: 18 }]);
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn headers(encoder: &mut Encoder<'_>, fields: &[(&str, &str)]) -> Vec<u8> {
    let fields = fields
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    encoder.encode(fields)
}

const CALL: [(&str, &str); 4] = [
    (":method", "POST"),
    (":path", "/pkg.Greeter/Hello"),
    ("content-type", "application/grpc+proto"),
    ("authorization", "Bearer x"),
];

#[test]
fn a_call_of_grpc_is_named_however_it_is_cut() {
    let (mut up_table, mut down_table) = (Encoder::new(), Encoder::new());
    let block = headers(&mut up_table, &CALL);
    // Priority and padding around the first part, the rest in a CONTINUATION.
    let (one, two) = block.split_at(3);
    let first = [&[2, 0, 0, 0, 0, 9][..], one, &[0, 0]].concat();
    let up = [
        PREFACE,
        &frame(4, 0, 0, &[0, 1, 0, 0, 0x20, 0]),
        &frame(1, 0x20 | 0x8, 1, &first),
        &frame(9, 0x4, 1, two),
        &frame(
            0,
            0x8 | 0x1,
            1,
            &[&[4][..], &[0, 0, 0, 0, 2, b'h', b'i'], &[0; 4]].concat(),
        ),
        &frame(0xfa, 0, 0, b"grease"),
    ]
    .concat();
    let reply = headers(
        &mut down_table,
        &[(":status", "200"), ("content-type", "application/grpc")],
    );
    let trailers = headers(
        &mut down_table,
        &[("grpc-status", "5"), ("grpc-message", "no such")],
    );
    let down = [
        frame(4, 0, 0, &[]),
        frame(1, 0x4, 1, &reply),
        frame(0, 0, 1, &[1, 0, 0, 0]),
        frame(0, 0, 1, &[1, b'z']),
        frame(1, 0x4 | 0x1, 1, &trailers),
    ]
    .concat();
    for cut in 1..up.len() {
        let mut conversation = Conversation::new();
        let notes = told(&mut conversation, Up, &up, cut);
        let fields = notes.iter().find_map(|note| match note {
            Note::Frame(Frame::Headers { fields, .. }) => Some(fields),
            _ => None,
        });
        assert_eq!(fields.unwrap()[1].value, b"/pkg.Greeter/Hello");
        assert!(notes.contains(&Note::Message {
            stream: 1,
            compressed: false,
            length: 2
        }));
        assert!(notes.contains(&Note::Frame(Frame::Data {
            stream: 1,
            length: 7,
            end: true
        })));
        let notes = told(&mut conversation, Down, &down, cut);
        assert!(notes.contains(&Note::Message {
            stream: 1,
            compressed: true,
            length: 1
        }));
        let Some(Note::Frame(Frame::Headers {
            fields,
            trailers: true,
            end: true,
            ..
        })) = notes.last()
        else {
            panic!("{notes:?}");
        };
        assert_eq!(fields[0].value, b"5");
    }
}

#[test]
fn broken_compression_ends_a_direction_and_not_the_other() {
    let mut conversation = Conversation::new();
    told(&mut conversation, Up, PREFACE, 99);
    let notes = told(
        &mut conversation,
        Up,
        &frame(1, 0x4, 1, &[0xff, 0xff, 0xff, 0xff]),
        99,
    );
    assert_eq!(notes.last(), Some(&Note::Stopped(Stop::Compression)));
    let down = [frame(4, 0, 0, &[]), frame(6, 1, 0, &[0; 8])].concat();
    let notes = told(&mut conversation, Down, &down, 99);
    assert_eq!(notes[1..], [Note::Frame(Frame::Ping { ack: true })]);
}

#[test]
fn a_table_larger_than_what_is_kept_is_not_followed() {
    let mut conversation = Conversation::new();
    told(&mut conversation, Up, PREFACE, 99);
    // The server allows 16 MiB; the client makes use of 1 MiB of it.
    told(
        &mut conversation,
        Down,
        &frame(4, 0, 0, &[0, 1, 1, 0, 0, 0]),
        99,
    );
    let update = [0x3f, 0xe1, 0xff, 0x3f, 0x82];
    let notes = told(&mut conversation, Up, &frame(1, 0x4, 1, &update), 99);
    assert_eq!(notes.last(), Some(&Note::Stopped(Stop::Compression)));
    // 8 KiB is fine.
    let mut conversation = Conversation::new();
    told(&mut conversation, Up, PREFACE, 99);
    told(
        &mut conversation,
        Down,
        &frame(4, 0, 0, &[0, 1, 0, 0, 0x20, 0]),
        99,
    );
    let notes = told(
        &mut conversation,
        Up,
        &frame(1, 0x4, 1, &[0x3f, 0xe1, 0x3f, 0x82]),
        99,
    );
    assert!(
        matches!(notes.last(), Some(Note::Frame(Frame::Headers { .. }))),
        "{notes:?}"
    );
}

/// Headers that decompress to kilobytes each are followed up to a bound on the work, whether
/// they are told or not.
#[test]
fn what_decompresses_without_end_is_followed_no_further() {
    let mut conversation = Conversation::new();
    told(&mut conversation, Up, PREFACE, 99);
    let entry = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'x'; 4000]].concat();
    let mut notes = told(&mut conversation, Up, &frame(1, 4, 1, &entry), 9999);
    let mut frames = 0;
    while !notes.contains(&Note::Stopped(Stop::Bomb)) {
        notes = told(&mut conversation, Up, &frame(1, 5, 3, &[0xbe; 1000]), 9999);
        frames += 1;
        assert!(frames < 10, "{:?}", notes.last());
    }
}

/// A budget is for a session: one that has said much may be told much of.
#[test]
fn an_honest_call_is_told_whole_however_well_it_is_compressed() {
    let mut conversation = Conversation::new();
    told(&mut conversation, Up, PREFACE, 99);
    let mut table = Encoder::new();
    let token = "x".repeat(500);
    let call = [
        &CALL[..],
        &[("x-token", &token), ("user-agent", "grpc-go/1.60")],
    ]
    .concat();
    for stream in 0..2000 {
        let block = headers(&mut table, &call);
        let message = [&[0, 0, 0, 0, 64][..], &[7; 64]].concat();
        let stream = 2 * stream + 1;
        let bytes = [frame(1, 4, stream, &block), frame(0, 1, stream, &message)].concat();
        let notes = told(&mut conversation, Up, &bytes, 9999);
        let Note::Frame(Frame::Headers {
            truncated, fields, ..
        }) = &notes[0]
        else {
            panic!("{notes:?}");
        };
        assert!(!truncated, "{stream}");
        assert_eq!(fields.len(), 6);
    }
}

#[test]
fn what_is_given_up_keeps_nothing_and_says_so_once() {
    let mut conversation = Conversation::new();
    told(&mut conversation, Up, b"GET /a HTTP/1.1\r\n\r\nGET /b", 99);
    told(&mut conversation, Down, b"HTTP/1.1 2", 99);
    let mut notes = Vec::new();
    conversation.give_up(Stop::Memory, &mut notes);
    conversation.give_up(Stop::Memory, &mut notes);
    assert_eq!(
        notes,
        [Note::Stopped(Stop::Memory), Note::Stopped(Stop::Memory)]
    );
    assert_eq!(conversation.kept(), size_of::<Conversation>());
    let notes = told(&mut conversation, Down, b"00 OK", 99);
    assert_eq!(notes, [Note::Unfollowed { bytes: 5 }]);
}

/// Each byte is looked at a bounded number of times, however they drip: lines that say
/// nothing are not kept to be looked at again with the next.
#[test]
fn empty_lines_before_a_head_are_not_gathered() {
    let mut conversation = Conversation::new();
    let begin = b"GET /a HTTP/1.1\r\n\r\n";
    told(&mut conversation, Up, begin, 1);
    told(&mut conversation, Up, &b"\r\n".repeat(20_000), 1);
    let known = conversation.kept();
    told(&mut conversation, Up, &b"\r\n".repeat(20_000), 1);
    assert_eq!(conversation.kept(), known);
    assert!(known < 1024, "{known}");
    let notes = told(&mut conversation, Up, begin, 1);
    assert!(matches!(&notes[..], [Note::Request { .. }]), "{notes:?}");
}
