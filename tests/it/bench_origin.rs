//! The origin and its probe: the protocol of the command port, its bounds, and that
//! a probe notices what a path does to its bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use thalweg::bench::origin::handlers::{Action, Conversation, Next, Turn};
use thalweg::bench::origin::record::Record;
use thalweg::bench::origin::{Handlers, LINE_MAX, Origin, OriginOptions, PENDING_MAX, Role};
use thalweg::bench::pattern;
use thalweg::bench::probe::{ProbeError, ProbeOptions, probe};

use crate::kit::poll;

const PATIENCE: Duration = Duration::from_secs(10);

fn origin() -> Origin {
    Origin::start(&OriginOptions::default(), Handlers::default()).expect("an origin on loopback")
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).expect("the origin listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

fn command(origin: &Origin) -> BufReader<TcpStream> {
    connect(origin.address(Role::Command).unwrap())
}

fn say(client: &mut BufReader<TcpStream>, bytes: impl AsRef<[u8]>) {
    client.get_mut().write_all(bytes.as_ref()).unwrap();
}

fn line(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).expect("a line in time");
    line
}

fn rest(mut client: BufReader<TcpStream>) -> Vec<u8> {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("a clean end in time");
    rest
}

#[test]
fn an_echo_in_halves_brings_the_same_bytes() {
    let origin = origin();
    let mut client = command(&origin);
    say(&mut client, "ECHO halves\nabcde");
    let mut echoed = [0; 5];
    client.read_exact(&mut echoed).unwrap();
    say(&mut client, "f");
    let end = client.get_mut().shutdown(Shutdown::Write);
    end.expect("the connection stands");
    assert_eq!([&echoed[..], &rest(client)].concat(), b"abcdef");
}

#[test]
fn commands_follow_each_other_on_one_connection() {
    let origin = origin();
    let mut client = command(&origin);
    say(
        &mut client,
        "FROB 1\nSTRING\r\nhällo\nSOURCE 1000 5\nINFO\n",
    );
    let error = line(&mut client);
    assert!(
        error.starts_with("ERR unknown command \"FROB\"; known: "),
        "{error}"
    );
    assert_eq!(line(&mut client), "hällo\n");
    let mut bytes = vec![0; 1000];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(pattern::check(5, &bytes), Ok(()));
    let info = line(&mut client);
    assert!(
        info.starts_with("INFO ") && info.contains(" rtt="),
        "{info}"
    );

    let record = Record::sample(3, 4, 5000);
    let encoded = record.encode();
    // Glued together and cut in odd places.
    let message = [format!("RECORD {}\n", encoded.len()).as_bytes(), &encoded].concat();
    for piece in message.chunks(333) {
        say(&mut client, piece);
    }
    assert_eq!(line(&mut client), format!("RECORD {}\n", encoded.len()));
    let mut answer = vec![0; encoded.len()];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(Record::decode(&answer), Ok(record));
}

#[test]
fn an_echo_sends_back_every_byte_and_then_ends() {
    let origin = origin();
    let mut client = command(&origin);
    let mut sender = client.get_ref().try_clone().unwrap();
    let feeder = std::thread::spawn(move || {
        sender.write_all(b"ECHO\n").unwrap();
        for position in (0..8_000_000_u64).step_by(100_000) {
            sender.write_all(pattern::slice(position, 100_000)).unwrap();
        }
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut position = 0;
    let mut buffer = vec![0; 65_536];
    loop {
        let read = client.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        assert_eq!(pattern::check(position, &buffer[..read]), Ok(()));
        position += read as u64;
    }
    feeder.join().unwrap();
    assert_eq!(position, 8_000_000);
}

#[test]
fn a_sink_says_at_the_end_what_came() {
    let origin = origin();
    let mut client = command(&origin);
    say(
        &mut client,
        [b"SINK 7\n", pattern::slice(7, 100_000)].concat(),
    );
    client.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(client), b"OK 100000\n");

    let mut client = command(&origin);
    let mut bytes = pattern::slice(7, 1000).to_vec();
    bytes[600] ^= 1;
    say(&mut client, [b"SINK 7\n".as_slice(), &bytes].concat());
    client.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(client), b"ERR differs at 600\n");
}

#[test]
fn what_cannot_be_understood_is_answered_and_closed_without_a_reset() {
    let origin = origin();
    let too_long = [vec![b'x'; LINE_MAX + 1], vec![b'\n']].concat();
    let junk = [b"RECORD 200000\n".as_slice(), &vec![0xff; 200_000]].concat();
    for message in [
        too_long.as_slice(),
        b"SOURCE many\n",
        &junk,
        b"RECORD 99999999999\n",
    ] {
        let mut client = command(&origin);
        say(&mut client, message);
        // Bytes that nobody reads: closing over them would be a reset, which throws
        // the answer away.
        let _ = client.get_mut().write_all(&[b'y'; 5000]);
        let answer = rest(client);
        assert!(
            answer.starts_with(b"ERR "),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
}

#[test]
fn the_classic_ports_echo_swallow_and_produce() {
    let free = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let origin = Origin::start(
        &OriginOptions {
            command: None,
            echo: free,
            discard: free,
            source: free,
            threads: 2,
            ..OriginOptions::default()
        },
        Handlers::default(),
    )
    .unwrap();
    assert_eq!(origin.address(Role::Command), None);

    let mut echo = connect(origin.address(Role::Echo).unwrap());
    say(&mut echo, "ECHO is no command here\n");
    assert_eq!(line(&mut echo), "ECHO is no command here\n");

    let mut discard = connect(origin.address(Role::Discard).unwrap());
    say(&mut discard, [b'z'; 5000]);
    discard.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(discard), b"OK 5000\n");

    let mut source = connect(origin.address(Role::Source).unwrap());
    let mut bytes = vec![0; 300_000];
    source.read_exact(&mut bytes).unwrap();
    assert_eq!(pattern::check(0, &bytes), Ok(()));
}

#[test]
fn an_endless_source_ends_when_its_client_does() {
    let origin = origin();
    let mut client = command(&origin);
    say(&mut client, "SOURCE\n");
    let mut some = vec![0; 1_000_000];
    client.read_exact(&mut some).unwrap();
    client.get_ref().shutdown(Shutdown::Write).unwrap();
    let more = rest(client);
    assert_eq!(pattern::check(1_000_000, &more), Ok(()));
    assert_eq!(origin.wait_until_open(0, Instant::now() + PATIENCE), Ok(()));
}

#[test]
fn a_library_user_adds_a_command_of_his_own() {
    struct Upper;
    impl Conversation for Upper {
        fn input(&mut self, input: &[u8], output: &mut Vec<u8>) -> Turn {
            output.extend(input.iter().map(u8::to_ascii_uppercase));
            Turn {
                used: input.len(),
                next: if input.contains(&b'.') {
                    Next::Close
                } else {
                    Next::More
                },
            }
        }
    }
    let mut handlers = Handlers::default();
    handlers.register("UPPER", |rest| match rest {
        "please" => Ok(Action::Converse(Box::new(Upper))),
        _ => Err("say please".to_owned()),
    });
    let origin = Origin::start(&OriginOptions::default(), handlers).unwrap();
    let mut client = command(&origin);
    say(&mut client, "UPPER please\nstream");
    say(&mut client, " and river.");
    assert_eq!(rest(client), b"STREAM AND RIVER.");
    let mut client = command(&origin);
    say(&mut client, "UPPER\n");
    assert_eq!(line(&mut client), "ERR say please\n");
}

#[test]
fn beyond_the_limit_connections_are_closed_and_counted() {
    let origin = Origin::start(
        &OriginOptions {
            connections_max: 2,
            ..OriginOptions::default()
        },
        Handlers::default(),
    )
    .unwrap();
    let mut kept: Vec<_> = (0..2).map(|_| command(&origin)).collect();
    for client in &mut kept {
        say(client, "STRING\nstays\n");
        assert_eq!(line(client), "stays\n");
    }
    assert_eq!(rest(command(&origin)), b"");
    drop(kept);
    assert_eq!(origin.wait_until_open(0, Instant::now() + PATIENCE), Ok(()));
    let mut client = command(&origin);
    say(&mut client, "STRING\nroom again\n");
    assert_eq!(line(&mut client), "room again\n");
}

fn held(origin: &Origin) -> u64 {
    origin.counters().held.load(Relaxed)
}

/// Records that never become whole took 16 MiB each.
#[test]
fn what_all_connections_hold_together_is_bounded_and_given_back() {
    const MOST: u64 = 4 << 20;
    let origin = Origin::start(
        &OriginOptions {
            memory_max: MOST,
            connections_max: 1000,
            threads: 2,
            ..OriginOptions::default()
        },
        Handlers::default(),
    )
    .unwrap();
    let mut bystander = command(&origin);
    let mut greedy = Vec::new();
    for _ in 0..40 {
        let mut client = command(&origin);
        say(&mut client, "RECORD 1000000\n");
        // It is cut off perhaps before it has sent all of this.
        let _ = client.get_mut().write_all(&vec![b'r'; 900_000]);
        greedy.push(client);
    }
    let counters = origin.counters();
    let cut = || counters.cut.load(Relaxed);
    assert!(poll(PATIENCE, || (cut() > 0).then_some(())).is_some());
    // Two reads that are on their way, and an equal share for each.
    let bound = 2 * MOST + 2 * (1 << 20);
    assert!(held(&origin) <= bound, "{}", held(&origin));
    say(&mut bystander, "STRING\nI hold little\n");
    assert_eq!(line(&mut bystander), "I hold little\n");
    let last = greedy.pop().unwrap();
    last.get_ref().shutdown(Shutdown::Write).unwrap();
    let answer = String::from_utf8_lossy(&rest(last)).into_owned();
    assert!(
        answer.contains("ERR too many bytes are held here"),
        "{answer}"
    );
    drop(greedy);
    drop(bystander);
    assert_eq!(origin.wait_until_open(0, Instant::now() + PATIENCE), Ok(()));
    assert_eq!(held(&origin), 0);
}

/// Short questions have long answers, and who asks need not read them.
#[test]
fn answers_that_nobody_reads_are_bounded() {
    let origin = origin();
    for question in ["INFO\n", "x\n", "SOURCE 0\n"] {
        let mut client = command(&origin);
        let flood = question.repeat(2_000_000 / question.len());
        let timeout = Some(Duration::from_millis(300));
        client.get_mut().set_write_timeout(timeout).unwrap();
        let _ = client.get_mut().write_all(flood.as_bytes());
        // One read more than is held back, twice for growth of the buffer.
        let bound = 2 * (PENDING_MAX as u64 + (1 << 20));
        assert!(held(&origin) <= bound, "{question:?}: {}", held(&origin));
    }
    assert_eq!(origin.wait_until_open(0, Instant::now() + PATIENCE), Ok(()));
}

/// What is held back is carried out in its order, however much of it came at once.
#[test]
fn thousands_of_commands_in_one_piece_are_all_answered() {
    const COUNT: usize = 20_000;
    let origin = origin();
    let mut client = command(&origin);
    let mut text = "SOURCE 3\nSTRING\nabc\n".repeat(COUNT);
    text.push_str("STRING\nlast\n");
    let mut writer = client.get_ref().try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(text.as_bytes()));
    let mut bytes = vec![0; COUNT * 7];
    client.read_exact(&mut bytes).unwrap();
    for answer in bytes.chunks(7) {
        assert_eq!(pattern::check(0, &answer[..3]), Ok(()));
        assert_eq!(&answer[3..], b"abc\n");
    }
    assert_eq!(line(&mut client), "last\n");
    writing.join().unwrap().unwrap();
}

/// A position near 2^64 overflowed: a panic in one build, the wrong bytes in another.
#[test]
fn positions_beyond_all_streams_are_refused() {
    let origin = origin();
    let most = u64::MAX;
    for text in [
        format!("SOURCE 10 {most}\n"),
        format!("SOURCE {most} 1\n"),
        format!("SOURCE - {}\n", most - 5),
        format!("SINK {most}\n"),
        format!("SOURCE 10 {}\n", (1_u64 << 62) + 1),
    ] {
        let mut client = command(&origin);
        say(&mut client, &text);
        let answer = line(&mut client);
        assert!(
            answer.starts_with("ERR ") && answer.contains("at most"),
            "{text}{answer}"
        );
    }
    let far = 1_u64 << 62;
    let mut client = command(&origin);
    say(&mut client, format!("SOURCE 1000 {far}\n"));
    let mut bytes = vec![0; 1000];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(pattern::check(far, &bytes), Ok(()));
}

#[test]
fn a_silent_connection_is_closed_after_its_time() {
    let origin = Origin::start(
        &OriginOptions {
            idle_timeout: Duration::from_millis(100),
            ..OriginOptions::default()
        },
        Handlers::default(),
    )
    .unwrap();
    let silent = command(&origin);
    assert_eq!(rest(silent), b"");
}

#[test]
fn a_probe_reports_times_and_both_ends_of_the_path() {
    let origin = origin();
    let report = probe(&ProbeOptions {
        address: origin.address(Role::Command).unwrap(),
        strings: 5,
        records: 9,
        timeout: PATIENCE,
        total: PATIENCE,
    })
    .expect("everything comes back");
    assert_eq!((report.string_ns.len(), report.record_ns.len()), (4, 9));
    assert!(report.connect_ns > 0 && report.record_bytes > 10_000);
    assert!(report.info_here.contains("mss=") && report.info_origin.contains("rtt="));
}

/// Forwards one connection and changes one byte of what comes back.
fn corrupting_path(origin: SocketAddr, at: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let upstream = TcpStream::connect(origin).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let (mut from, mut to) = (upstream, client);
        let mut seen = 0;
        let mut buffer = vec![0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if (seen..seen + read).contains(&at) {
                buffer[at - seen] ^= 0x20;
            }
            seen += read;
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
    });
    address
}

#[test]
fn a_probe_notices_one_changed_byte() {
    let origin = origin();
    let address = corrupting_path(origin.address(Role::Command).unwrap(), 3000);
    let error = probe(&ProbeOptions {
        address,
        strings: 100,
        records: 0,
        timeout: PATIENCE,
        total: PATIENCE,
    })
    .expect_err("a byte was changed");
    assert!(
        matches!(
            error,
            ProbeError::Differs {
                during: "STRING",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn the_probe_command_fails_plainly_when_nobody_is_there() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["probe", &unused.to_string(), "--timeout", "2s"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains(&format!("cannot connect to {unused}")),
        "{text}"
    );
}

#[test]
fn what_cannot_be_meant_ends_with_the_exit_code_of_wrong_usage() {
    for (line, word) in [
        ("probe 127.0.0.1:port", "port"),
        ("probe unix:/tmp/x", "is not HOST:PORT"),
        ("origin -l 127.0.0.1:port", "port"),
        ("origin --echo unix:/tmp/x", "is not HOST:PORT"),
        ("origin -l 127.0.0.1:0 --congestion nosuch", "`nosuch`"),
        ("tune --to 127.0.0.1:port", "port"),
        ("tune --to unix:/tmp/x", "is not HOST:PORT"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(line.split(' '))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {text}");
        assert!(text.contains(word), "{line}: {text}");
    }
}

#[test]
fn an_origin_whose_port_is_taken_says_which() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["origin", "--listen", &address])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains(&format!("cannot listen on {address}")),
        "{text}"
    );
}
