//! What must hold for any bytes whatever, by what reads them. Each function is a
//! fuzz target, and is played on stable by `tests/fuzz_corpus.rs`.
#![allow(
    dead_code,
    unused_imports,
    reason = "each fuzz target compiles this and uses its own function"
)]

#[path = "who_and_where.rs"]
mod who_and_where;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use thalweg::bench::origin::handlers::{Action, Conversation, Handlers, Next};
use thalweg::bench::origin::record::Record;
use thalweg::bench::path::PathSpec;
use thalweg::bench::units as figures;
use thalweg::config::{
    AccessRules, Config, ConfigErrors, FileText, Inputs, Override, Pair, Tap, TapFilter, TapFormat,
    TapTarget, units,
};
use thalweg::control::health::read as answers;
use thalweg::control::resolve::read;
use thalweg::engine::SessionKey;
use thalweg::engine::key::Token;
use thalweg::net::address::{Address, AddressRange};
use thalweg::net::word::Word;
use thalweg::observe::tap::shown::Shown;
use thalweg::policy::access::{Access, Rule};
use thalweg::proto::connect::{self, Parse as Asked};
use thalweg::proto::conversation::{Conversation as Session, KEPT_MAX};
use thalweg::proto::hello::Hello;
use thalweg::proto::http1::{self as head, Follows, HEAD_MAX};
use thalweg::proto::http2::PREFACE;
use thalweg::proto::notes::Note;
use thalweg::proto::prelude::{Facts, Prelude as _, Read};
use thalweg::proto::proxy;
use thalweg::proto::quic::assembly::Assembly;
use thalweg::proto::quic::ids::Ids;
use thalweg::proto::quic::{Initials, Seen as Asks};
use thalweg::proto::sniff::{Seen, Sniffer, Wanted};
use thalweg::proto::steps::HeaderReader;
use thalweg::proto::tell::{PIECE, TOLD_FREE, TOLD_MAX, weight};
use thalweg::proto::{Parse, tls};
use thalweg::relay::Direction;

pub(crate) use who_and_where::{access_list, asked_route, client_rule};

/// What every answer may have besides, however little it answers: a sentence, a line of a log.
const SENTENCE: usize = 1_000;

/// Little never stands for much: what was made of `fed` bytes is no longer than so many times
/// that, and a sentence.
#[track_caller]
fn is_bounded(told: usize, times: usize, fed: usize) {
    assert!(told <= times * fed + SENTENCE, "{told} of {fed}");
}

/// A configuration file.
pub(crate) fn config(data: &[u8]) {
    let file = FileText {
        name: "fuzz.toml".to_owned(),
        bytes: data.to_vec(),
    };
    let inputs = Inputs {
        file: Some(file),
        ..Inputs::default()
    };
    match Config::load(&inputs) {
        Ok(config) => reads_back(&config),
        Err(errors) => are_told(&errors, data.len()),
    }
}

/// A command line: `-l`, `-r`, then `--set`, a line each, after a valid file.
pub(crate) fn set_pairs(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n').map(str::to_owned);
    let pair = Pair {
        listen: lines.next(),
        upstream: lines.next(),
    };
    let set = |text| Override {
        flag: "--set".to_owned(),
        key: None,
        text,
    };
    let inputs = Inputs {
        file: Some(FileText {
            name: "base.toml".to_owned(),
            bytes: include_bytes!("../examples/minimal.toml").to_vec(),
        }),
        pairs: vec![pair],
        overrides: lines.take(20).map(set).collect(),
    };
    match Config::load(&inputs) {
        Ok(config) => reads_back(&config),
        Err(errors) => are_told(&errors, data.len()),
    }
}

fn reads_back(config: &Config) {
    let printed = config.to_toml();
    assert_eq!(Config::parse(&printed).as_ref(), Ok(config), "{printed}");
}

fn are_told(errors: &ConfigErrors, fed: usize) {
    // A problem is a sentence or a few, and takes a byte.
    const SENTENCES: usize = 4 * SENTENCE;
    assert!(!errors.problems().is_empty());
    is_bounded(errors.to_string().len(), SENTENCES, fed.max(1));
    for problem in errors.problems() {
        assert!(!problem.message.is_empty());
        let place = problem.place.position;
        assert!(place.is_none_or(|(line, column)| line > 0 && column > 0));
    }
    let shown = errors.to_string();
    let forged = shown.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(forged, None, "{shown:?}");
}

/// An address, a range of them.
pub(crate) fn address(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(range) = text.parse::<AddressRange>() {
        read_back(&range, &range.to_string().parse());
        is_bounded(range.to_string().len(), 2, data.len());
        assert_eq!(range.expand().count(), range.len());
        assert_eq!(range.nth(0).as_ref(), Some(range.first()));
        assert_eq!(range.nth(range.len()), None);
        let last = range.nth(range.len() - 1).expect("a range is not empty");
        read_back(&last, &last.to_string().parse());
    }
    if let Ok(one) = text.parse::<Address>() {
        assert!(
            text.parse::<AddressRange>()
                .is_ok_and(|range| range.len() == 1)
        );
        // Either is fine; it must say.
        let _ = one.check_server().map_err(|error| error.to_string());
    }
}

#[track_caller]
fn read_back<T: PartialEq + Debug, E: PartialEq + Debug>(value: &T, read: &Result<T, E>) {
    assert_eq!(read.as_ref(), Ok(value));
}

/// Times, sizes and rates, as the configuration and as the benchmark write them.
pub(crate) fn units(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(time) = units::parse_duration(&text) {
        read_back(&time, &units::parse_duration(&units::format_duration(time)));
    }
    if let Ok(time) = units::parse_timeout(&text) {
        assert!(time > Duration::ZERO);
        read_back(&time, &units::parse_timeout(&units::format_timeout(time)));
    }
    if let Ok(size) = units::parse_size(&text) {
        read_back(&size, &units::parse_size(&units::format_size(size)));
    }
    if let Ok(rate) = units::parse_rate(&text) {
        read_back(&rate, &units::parse_rate(&units::format_rate(rate)));
    }
    if let Ok(percent) = units::parse_percent(&text) {
        read_back(
            &percent,
            &units::parse_percent(&units::format_percent(percent)),
        );
    }
    let count = units::parse_count(&text);
    if let Ok(n) = count {
        read_back(&n, &units::parse_count(&n.to_string()));
        for shown in [figures::size(n as f64), figures::rate(n as f64)] {
            assert!(!shown.is_empty());
        }
    }
}

/// What a client of the origin sends: a command line, then input for it, cut into
/// pieces of the length that the first byte says.
pub(crate) fn origin(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else {
        return;
    };
    let end = data.iter().position(|byte| *byte == b'\n');
    let (line, input) = data.split_at(end.unwrap_or(data.len()));
    let input = input.strip_prefix(b"\n").unwrap_or(input);
    let line = String::from_utf8_lossy(line);
    match Handlers::default().action(&line) {
        Ok(Action::Converse(conversation)) => {
            converse(conversation, input, usize::from(*piece).max(1));
        }
        Ok(_) => {}
        Err(refusal) => assert!(is_one_short_line(&refusal.text), "{:?}", refusal.text),
    }
    if let Ok(record) = Record::decode(input) {
        let encoded = record.encode();
        // A number may be written in fewer bytes than it is told in.
        is_bounded(encoded.len(), 8, input.len());
        let again = Record::decode(&encoded).expect("what was encoded decodes");
        // Compared as bytes: a float that is no number does not equal itself.
        assert_eq!(again.encode(), encoded);
    }
}

fn is_one_short_line(text: &str) -> bool {
    text.len() < 1_000 && !text.contains(['\n', '\r'])
}

fn converse(mut conversation: Box<dyn Conversation>, input: &[u8], piece: usize) {
    let mut output = Vec::new();
    'all: for mut piece in input.chunks(piece) {
        while !piece.is_empty() {
            let turn = conversation.input(piece, &mut output);
            assert!(turn.used <= piece.len());
            if turn.next != Next::More {
                break 'all;
            }
            assert_eq!(turn.used, piece.len(), "it wants more and leaves some");
            piece = &piece[turn.used..];
        }
    }
    conversation.end(&mut output);
    // An answer is never much longer than what was asked.
    is_bounded(output.len(), 2, input.len());
}

/// What a client of a proxy sends, whole and in every piece from the front.
pub(crate) fn connect(data: &[u8]) {
    const MAX: usize = 300;
    let reader = || {
        connect::Reader::new(connect::Settings {
            header_max: MAX,
            realm: "realm".into(),
        })
    };
    let whole = reader().read(data);
    match &whole {
        Asked::More => assert!(data.len() < MAX),
        Asked::Found { len, request } => {
            assert!(*len <= data.len().min(MAX) && data[..*len].ends_with(b"\r\n\r\n"));
            is_bounded(request.target.to_string().len(), 1, *len);
            // What it means can be asked for again, in so many words.
            let again = format!("CONNECT {} HTTP/1.1\r\n\r\n", request.target);
            let Asked::Found { request: same, .. } = reader().read(again.as_bytes()) else {
                panic!("{again:?} is no request");
            };
            assert_eq!(same.target, request.target);
            assert_ne!(request.target.port, 0);
        }
        Asked::Invalid(refusal) => {
            let text = connect::answer(refusal.status, "e", "realm", refusal.why);
            assert!(text.is_ascii() && text.starts_with(b"HTTP/1.1 4"));
            is_bounded(text.len(), 1, data.len());
        }
    }
    assert!(connect::target_of(data).len() < MAX);
    is_bounded(connect::target_of(data).len(), 1, data.len());
    assert!(
        Word(&connect::target_of(data))
            .to_string()
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'=')
    );
    // Pieces change nothing: first more is needed, then it is what it is.
    let mut dripped = reader();
    for (at, byte) in data.iter().enumerate() {
        match dripped.read(&[*byte]) {
            Asked::More => {}
            Asked::Found { len, request } => {
                let len = at + len;
                return assert_eq!(Asked::Found { len, request }, whole);
            }
            early @ Asked::Invalid(_) => return assert_eq!(early, whole),
        }
    }
}

/// What a proxy sends before its client's payload, whole and dripped.
pub(crate) fn proxy_header(data: &[u8]) {
    let whole = proxy::parse(data);
    if let Ok(Some((header, len))) = &whole {
        assert!(*len <= data.len() && *len <= proxy::V2_MAX);
        // What it says can be said again.
        let tlvs = header.tlvs.iter();
        let tlvs: Vec<(u8, &[u8])> = tlvs
            .filter(|tlv| tlv.kind != proxy::CRC32C)
            .map(|tlv| (tlv.kind, &*tlv.value))
            .collect();
        let outgoing = proxy::Outgoing {
            version: header.version,
            announced: &header.announced,
            tlvs: &tlvs,
            checksum: true,
        };
        let mut again = Vec::new();
        proxy::write(&outgoing, &mut again);
        is_bounded(again.len(), 1, *len);
        let read = proxy::parse(&again).expect("what was written");
        let (same, _) = read.expect("whole");
        assert_eq!(same.version, header.version);
    }
    let mut dripped = HeaderReader::new(proxy::Settings { v1: true, v2: true });
    let mut facts = Facts::default();
    for (at, byte) in data.iter().enumerate() {
        assert!(
            dripped.room() > 0,
            "nothing more fits, and nothing is decided"
        );
        match dripped.feed(&[*byte], &mut facts) {
            Read::More => {}
            Read::Taken(len) => {
                let header = facts.announced.map(|it| *it).expect("a header");
                return assert_eq!(whole, Ok(Some((header, at + len))));
            }
            Read::Invalid(_) => return assert!(whole.is_err()),
            Read::Wait | Read::Seen => panic!("a header is taken"),
        }
    }
    assert_eq!(whole, Ok(None));
}

/// What a client sends first, whole and as more and more of it is seen.
pub(crate) fn first_bytes(data: &[u8]) {
    for (hello, host) in [(true, true), (false, false)] {
        let mut sniffer = Sniffer::new(Wanted { hello, host });
        let whole = sniffer.look(data, false);
        if let Seen::Found(found) = &whole {
            let mut names = found.server_name.iter().chain(&found.host);
            let told = names.clone().map(String::len).sum();
            is_bounded(told, 1, data.len());
            assert!(names.all(|name| !name.is_empty() && name.is_ascii()));
        }
        let mut dripped = Sniffer::new(Wanted { hello, host });
        let mut last = Seen::More;
        for end in 0..=data.len() {
            last = dripped.look(&data[..end], false);
            if last != Seen::More {
                break;
            }
        }
        assert_eq!(last, whole);
        assert!(dripped.look(data, true) != Seen::More, "it has ended");
    }
}

/// A rule of an access list.
pub(crate) fn rule(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(rule) = text.parse::<Rule>() {
        read_back(&rule, &rule.to_string().parse());
        is_bounded(rule.to_string().len(), 8, data.len());
        let default = AccessRules::default();
        let AccessRules::Lists { allow, .. } = &default else {
            return;
        };
        let denied = Access::new(std::slice::from_ref(&rule), allow);
        let allowed = Access::new(&[], &[rule]);
        let default = Access::new(&[], allow);
        for address in ["1.1.1.1:443", "127.0.0.1:443", "[::]:443", "[fd00::1]:22"] {
            let address: SocketAddr = address.parse().expect("an address");
            let admitted = allowed.admits(Some("a.b"), address);
            assert!(!admitted || !address.ip().is_unspecified());
            assert!(!admitted || !allowed.is_hopeless("a.b", address.port()));
            assert!(!denied.admits(None, address) || default.admits(None, address));
        }
    }
}

/// The number that the kernel gives back with an event.
pub(crate) fn session_key(data: &[u8]) {
    let mut bits = [0; 8];
    for (bit, byte) in bits.iter_mut().zip(data) {
        *bit = *byte;
    }
    let token = Token::decode(u64::from_le_bytes(bits));
    assert_eq!(Token::decode(token.encode()), token);
    if let Token::Side(key, side) = token {
        assert!(key.slot < SessionKey::SLOTS_MAX);
        // Another generation, another number.
        let later = SessionKey {
            generation: key.generation.wrapping_add(1),
            ..key
        };
        assert_ne!(Token::Side(later, side).encode(), token.encode());
    }
}

/// Heads of HTTP/1, and a session that begins with them.
pub(crate) fn http1(data: &[u8]) {
    is_stable(data, head::request);
    is_stable(data, head::response);
    is_stable(data, head::trailers);
    if let Parse::Found(request, _) = head::request(data) {
        assert!(head::after_request(&request) != Follows::UntilClose);
    }
    talk(&[], data);
}

/// A session that speaks HTTP/2: frames, and headers compressed in them.
pub(crate) fn http2(data: &[u8]) {
    talk(PREFACE, data);
}

/// A client's datagrams of QUIC, or with a 1 before them the frames of one, which nobody can make by
/// chance sealed: what is found stays found, what was seen twice changes nothing, and ids are bounded.
pub(crate) fn quic_initial(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    if *kind == 1 {
        let mut assembly = Assembly::default();
        let told = assembly.take(data);
        if let Ok(Some(hello)) = &told {
            has_no_more_than(hello, data.len());
        }
        let before = assembly.clone();
        assert_eq!(assembly.take(data), told);
        if told.is_ok() {
            assert_eq!(assembly, before);
        }
        return;
    }
    let mut initials = Initials::default();
    let seen = initials.look(data);
    assert_eq!(Initials::default().look(data), seen);
    if let Asks::Found(hello) = &seen {
        has_no_more_than(hello, data.len());
    }
    if seen == Asks::More {
        let again = initials.look(data);
        assert_eq!(again, Asks::More);
    }
    // Both as a server's and as a client's.
    let mut ids = Ids::new(4);
    for piece in data.chunks(50) {
        ids.learn(piece, &piece.len());
        let _ = ids.find(piece);
        assert!(ids.len() <= 4);
    }
    ids.retain(|_| false);
    assert!(ids.is_empty());
}

fn has_no_more_than(hello: &Hello, fed: usize) {
    let named = hello.server_name.as_ref().map_or(0, String::len);
    let offered: usize = hello.protocols.iter().map(Vec::len).sum();
    is_bounded(named + offered, 1, fed);
}

/// A ClientHello of TLS, and a session that begins with its record.
pub(crate) fn tls_hello(data: &[u8]) {
    is_stable(data, tls::client_hello);
    if let Parse::Found(hello, length) = tls::client_hello(data) {
        let named = hello.server_name.map_or(0, |name| name.len());
        let offered: usize = hello.protocols.iter().map(Vec::len).sum();
        assert!(named + offered <= length);
    }
    let length = (data.len() as u16).to_be_bytes();
    talk(&[22, 3, 1, length[0], length[1]], data);
}

/// What is found is found in the bytes that it says, and whatever follows; what is
/// none stays none.
fn is_stable<T: PartialEq + Debug>(data: &[u8], parse: impl Fn(&[u8]) -> Parse<T>) {
    let found = parse(data);
    let longer = [data, &b"\0\r\n\r\nx"[..]].concat();
    match &found {
        Parse::Found(_, length) => {
            assert!(*length <= data.len());
            assert_eq!(parse(&data[..*length]), found);
            assert_eq!(parse(&longer), found);
        }
        Parse::Invalid => assert_eq!(parse(&longer), found),
        Parse::More => {}
    }
}

/// Both directions of a session take the bytes, cut as the first of them says, with
/// a gap where the second one says.
fn talk(beginning: &[u8], data: &[u8]) {
    let [cut, gap, data @ ..] = data else { return };
    let cut = usize::from(*cut).max(1);
    let mut conversation = Session::new();
    let mut notes = Vec::new();
    conversation.feed(Direction::Up, beginning, &mut notes);
    let mut fed = beginning.len() as u64 + PIECE;
    let mut told: u64 = notes.iter().map(weight).sum();
    for (index, piece) in data.chunks(cut).enumerate() {
        for direction in Direction::BOTH {
            notes.clear();
            conversation.feed(direction, piece, &mut notes);
            is_counted(&notes, piece.len() as u64 + HEAD_MAX as u64 + 1);
            fed += piece.len() as u64 + PIECE;
            told += notes.iter().map(weight).sum::<u64>();
            assert!(
                told <= TOLD_MAX * fed + TOLD_FREE,
                "{told} of {fed}: {notes:?}"
            );
            if index == usize::from(*gap) {
                conversation.skip(direction, u64::from(*gap), &mut notes);
            }
        }
        assert!(conversation.kept() <= KEPT_MAX);
    }
    for direction in Direction::BOTH {
        conversation.end(direction, &mut notes);
        // Nothing is followed behind an end.
        notes.clear();
        conversation.feed(direction, b"x", &mut notes);
        assert_eq!(notes, [Note::Unfollowed { bytes: 1 }]);
    }
}

/// No more bytes are told of than there were, those that were kept included.
fn is_counted(notes: &[Note], most: u64) {
    let unknown = notes.iter().map(|note| match note {
        Note::Raw { bytes } | Note::Unfollowed { bytes } => *bytes,
        _ => 0,
    });
    assert!(unknown.sum::<u64>() <= most);
}

/// A hosts file, behind a line with the name that is looked for.
pub(crate) fn hosts_file(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    let (name, text) = data.split_at(end.unwrap_or(data.len()));
    let Ok(name) = std::str::from_utf8(name) else {
        return;
    };
    let found = read::hosts(text, name);
    // `::` and a name.
    is_bounded(found.len() * size_of::<std::net::IpAddr>(), 5, text.len());
    // As one reads it line by line. Long lines are cut.
    if text.len() < 16 << 10 {
        let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let said = |line: &[u8]| {
            let line = line.split(|byte| *byte == b'#').next()?;
            let words = line.split(u8::is_ascii_whitespace);
            let mut words = words.filter(|word| !word.is_empty());
            let address = std::str::from_utf8(words.next()?).ok()?;
            let address: std::net::IpAddr = address.parse().ok()?;
            let wanted = bare(name);
            let has =
                words.any(|word| std::str::from_utf8(word).is_ok_and(|it| bare(it) == wanted));
            has.then(|| address.to_canonical())
        };
        let slowly: Vec<_> = text.split(|byte| *byte == b'\n').filter_map(said).collect();
        assert_eq!(found, slowly);
    }
}

/// A resolv.conf.
pub(crate) fn resolv_conf(data: &[u8]) {
    let conf = read::resolv_conf(data);
    assert!((1..=8).contains(&conf.servers.len()), "{conf:?}");
    assert!(
        (1..=5).contains(&conf.rounds) && conf.ndots <= 15,
        "{conf:?}"
    );
    let timeout = conf.timeout.as_secs();
    assert!((1..=30).contains(&timeout), "{conf:?}");
    assert!(conf.search.iter().all(|it| it.ends_with('.')), "{conf:?}");
    // An escape of a name is longer than what it stands for.
    is_bounded(conf.search.iter().map(String::len).sum(), 8, data.len());
}

/// An answer of a name server.
pub(crate) fn dns_answer(data: &[u8]) {
    let Some(said) = read::answer(data) else {
        return;
    };
    assert!(said.links <= 9, "{said:?}");
    // A record has eleven bytes at the least beside what it says.
    let records = said.addresses.len() + said.targets.len();
    assert!(11 * records <= data.len() && said.targets.len() <= 64);
    // A name may be said by two bytes that lead to where it was said before: 20 with all that
    // a record has, for 255.
    let names: usize = said.targets.iter().map(|(host, _)| host.len()).sum();
    let addresses = said.addresses.len() * size_of::<std::net::IpAddr>();
    is_bounded(names + addresses, 13, data.len());
    for (host, port) in &said.targets {
        assert!(*port != 0 && thalweg::control::resolve::check_host(host).is_ok());
    }
}

/// The description of a path: what is understood is printed so that it is read as the same.
pub(crate) fn path_spec(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<PathSpec>() {
        Ok(spec) => {
            is_bounded(spec.to_string().len(), 8, data.len());
            let read: Result<PathSpec, _> = spec.to_string().parse();
            read_back(&spec, &read);
        }
        Err(error) => {
            assert!(error.part.len() <= 600, "{error}");
            assert!(!error.part.contains('\n'), "{error}");
            assert!(!error.problem.is_empty() && !error.remedy.is_empty());
        }
    }
}

/// The file of a proxy's users: it has somebody, or the line that is wrong is in it.
pub(crate) fn users_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match thalweg::control::users_in(&text) {
        Ok(users) => assert!((1..=text.lines().count()).contains(&users)),
        Err(Some((line, problem))) => {
            assert!((1..=text.lines().count()).contains(&line), "line {line}");
            assert!(!problem.is_empty());
            is_bounded(problem.len(), 8, data.len());
            // What stands before that line is not wrong.
            let before: Vec<_> = text.lines().take(line - 1).collect();
            let before = thalweg::control::users_in(&before.join("\n"));
            assert!(!matches!(before, Err(Some(_))), "{before:?}");
        }
        Err(None) => assert!(text.lines().all(|line| {
            let line = line.trim_start_matches('\u{feff}').trim();
            line.is_empty() || line.starts_with('#')
        })),
    }
}

/// The answer to a check, as it comes: what was decided by a part of it is not decided
/// otherwise by more.
pub(crate) fn health_answer(data: &[u8]) {
    let wanted = [
        answers::Sought::Success,
        answers::Sought::ServerHello,
        answers::Sought::Start(b"+PONG\r\n"),
    ];
    for wanted in wanted {
        let mut decided: Option<bool> = None;
        for len in 0..=data.len() {
            let judged = answers::judge(wanted, &data[..len]);
            if let Some(Err(why)) = &judged {
                assert!(is_one_short_line(why), "{why}");
            }
            let judged = judged.map(|it| it.is_ok());
            assert!(
                decided.is_none() || decided == judged,
                "{wanted:?} at {len}"
            );
            decided = judged;
        }
    }
}

/// The widest byte of a text that is shown: `\u{NN}` or a line of its own; and a line, which
/// each piece has.
const WIDEST: usize = 8;
const LINE: usize = 512;

const SECRET: &str = "S3cr3tOfTheFuzzer";

fn tap(format: TapFormat) -> Tap {
    Tap {
        format,
        to: TapTarget::Stderr,
        max_bytes_per_session: u64::MAX,
        filter: TapFilter::default(),
        rotate: None,
        mode: 0o600,
        mask: Vec::new(),
        unmask: false,
    }
}

/// Whatever was said before, the value of a secret header is not shown in text.
pub(crate) fn tap_masks(data: &[u8]) {
    let [cut, data @ ..] = data else { return };
    if contains(data, SECRET.as_bytes()) {
        return;
    }
    let said = [
        data,
        b"\nAuthorization: Bearer ",
        SECRET.as_bytes(),
        b"\r\nHost: a\r\n\r\n",
    ];
    let said = said.concat();
    let cut = usize::from(*cut).max(1);
    let (mut alone, mut shown) = (text_of(data, cut), text_of(&said, cut));
    let before = alone.ends(Direction::Up);
    let out = shown.ends(Direction::Up);
    let pieces = said.len().div_ceil(cut) + 2;
    assert!(out.len() <= WIDEST * said.len() + LINE * pieces);
    // Each piece has a line of its own, so that no more than that of it may stand together. What
    // went before may look like a part of it: `\x03` and a word.
    for part in SECRET.as_bytes().windows(4) {
        assert!(
            contains(data, part) || contains(before, part) || !contains(out, part),
            "{}",
            String::from_utf8_lossy(out)
        );
    }
}

/// What is shown of it in text, in pieces of this length.
fn text_of(said: &[u8], cut: usize) -> Shown {
    let mut shown = Shown::new(tap(TapFormat::Text));
    for piece in said.chunks(cut) {
        shown.says(Direction::Up, piece);
    }
    shown
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|it| it == wanted)
}

/// What a target is written is a small multiple of what was said, in every format, and
/// what is written of packets can be read.
pub(crate) fn tap_output(data: &[u8]) {
    let (widest, line) = (WIDEST as u64, LINE as u64);
    let [cut, data @ ..] = data else { return };
    let cut = usize::from(*cut).max(1);
    for format in [
        TapFormat::Hex,
        TapFormat::Text,
        TapFormat::Http,
        TapFormat::Pcapng,
    ] {
        let mut shown = Shown::new(tap(format));
        let (mut fed, mut pieces) = (0, 2);
        for piece in data.chunks(cut) {
            for direction in Direction::BOTH {
                fed += piece.len() as u64;
                pieces += 1;
                let out = shown.says(direction, piece);
                let most = if format == TapFormat::Http {
                    widest * (TOLD_MAX * (fed + PIECE * pieces) + TOLD_FREE) + line * pieces
                } else {
                    widest * fed + line * pieces
                };
                assert!(
                    out.len() as u64 <= most,
                    "{format:?}: {} of {fed}",
                    out.len()
                );
            }
        }
        for direction in Direction::BOTH {
            shown.ends(direction);
        }
        if format == TapFormat::Pcapng {
            packets_hold(shown.says(Direction::Up, &[]), fed);
        }
    }
}

/// Blocks follow each other as they say (draft-ietf-opsawg-pcapng, 3.1), and the packets
/// among them hold all that was said.
fn packets_hold(mut out: &[u8], said: u64) {
    const ENHANCED_PACKET: u32 = 6;
    const HEADERS: u64 = 40;
    let mut held = 0;
    while !out.is_empty() {
        let word = |at: usize| -> u32 {
            let bytes = out.get(at..at + 4).expect("a block is cut");
            u32::from_le_bytes(bytes.try_into().expect("four bytes"))
        };
        let length = word(4) as usize;
        assert!(
            length.is_multiple_of(4) && length >= 12,
            "a block of {length}"
        );
        assert_eq!(word(length - 4) as usize, length, "it ends as it begins");
        if word(0) == ENHANCED_PACKET {
            let captured = word(20);
            assert!(captured as usize <= length - 32);
            held += u64::from(captured) - HEADERS.min(u64::from(captured));
        }
        out = &out[length..];
    }
    assert_eq!(held, said, "bytes are missing, or too many");
}
