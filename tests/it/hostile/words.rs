//! What peers say that ends in a log, in a tap or on a terminal.

use std::fmt::Write as _;
use std::fs::File;
use std::net::TcpListener;
use std::process::Command;

use super::*;
use crate::kit::peer::Refusing;

/// What must not be seen anywhere.
const SECRET: &str = "S3CRETofAnn";

/// What steers terminals: of ASCII, of the controls behind it, and an order of letters.
const STEERS: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\r\u{9b}1m\u{202e}\u{8}\u{7f}";

/// Only ends of lines and what can be seen.
#[track_caller]
fn is_printable(what: &str, text: &str) {
    let steers = text
        .chars()
        .find(|c| *c != '\n' && !(' '..='~').contains(c));
    assert_eq!(steers, None, "{what}: {text:?}");
}

/// What a client says to a proxy and to a server behind a tap, a connection each.
fn sayings() -> Vec<Vec<u8>> {
    let all = [
        format!("CONNECT ann:{SECRET}?@a.test:443 HTTP/1.1\r\n\r\n"),
        format!("CONNECT a.test{STEERS}:443 HTTP/1.1\r\nHost: {STEERS}\r\n\r\n"),
        format!("GET http://ann:{SECRET}?x@a.test/?token={SECRET} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET /?api_key={SECRET}&a={STEERS} HTTP/1.1\r\nCookie2: a={SECRET}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nAuthorization: Bearer\r\n  {SECRET}\r\n\r\n"),
        format!("GET / HTTP/1.1\rX-Api-Key: {SECRET}\rX-Auth-Token: {SECRET}\r\r"),
        format!(
            "GET / HTTP/1.1\nX-Amz-Security-Token:{}{SECRET}\n\n",
            " ".repeat(900)
        ),
        format!("GET / HTTP/1.1\r\nProxy-Authorization: Basic {SECRET}\r\n\r\n"),
        format!("{STEERS}\n2030-01-01T00:00:00.000Z INFO forged code=-- {STEERS}\n"),
    ];
    all.map(String::into_bytes).into()
}

/// A client says what would forge lines, steer terminals and give secrets away: neither the
/// log nor a tap has anything of it, and others are served beside it.
#[test]
fn what_a_client_says_steers_nothing_and_gives_no_secret_away() {
    on_every_engine(|case| {
        for format in ["text", "json"] {
            what_is_said_in(case, format);
        }
    });
}

fn what_is_said_in(case: Case, format: &str) {
    let (echo, directory) = (Echo::start(), Directory::new());
    let held = [Refusing::new(), Refusing::new(), Refusing::new()];
    let listens = held.each_ref().map(Refusing::address);
    let upstream = format!("upstream = \"{}\"", echo.address);
    let proxy = "mode = \"http-connect\"\nconnect = { allow = [\"127.0.0.0/8:*\"] }";
    let forwards = [("text", &*upstream), ("http", &*upstream), ("text", proxy)];
    let mut text = String::new();
    for (n, ((tap, rest), listen)) in forwards.iter().zip(listens).enumerate() {
        let to = directory.join(&format!("tap{n}"));
        let _ = writeln!(
            text,
            "[[forward]]\nname = \"f{n}\"\nlisten = \"{listen}\"\n{rest}\n\
             tap = {{ format = \"{tap}\", to = \"{}\" }}",
            to.display()
        );
    }
    let [file, log] = ["thalweg.toml", "log"].map(|name| directory.join(name));
    std::fs::write(&file, text).unwrap();
    let forwarder = Setup::between(listens[0], "")
        .only_file(&file)
        .case(case)
        .stdout(File::create(&log).unwrap())
        .set("log.format", format)
        .set("log.sessions", "all")
        .start();
    let bystander = Bystander::of(listens[0]);
    for _ in 0..2 {
        for (to, said) in listens
            .iter()
            .flat_map(|to| sayings().into_iter().map(move |it| (*to, it)))
        {
            let mut stream = connect_from([0, 66], to).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let _ = stream.write_all(&said);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        bystander.goes_on();
        bystander.comes_in();
    }
    drop(bystander);
    assert!(forwarder.terminate().success());
    for name in ["log", "tap0", "tap1", "tap2"] {
        let text = std::fs::read(directory.join(name)).unwrap();
        let text = String::from_utf8(text).expect("text is UTF-8");
        assert!(text.lines().count() > 2 * sayings().len(), "{name}: {text}");
        is_printable(name, &text);
        assert!(!text.contains(SECRET), "{name}: {text}");
        let forged = text.lines().find(|line| line.starts_with("2030"));
        assert_eq!(forged, None, "{name}");
    }
}

/// A server that answers `probe` with what steers a terminal, or without an end, through a
/// forwarder that serves others meanwhile: what is printed can be read, and it ends.
#[test]
fn a_probe_of_a_hostile_server_prints_what_can_be_read_and_ends() {
    on_every_engine(|case| {
        let (echo, hostile) = (Echo::start(), TcpListener::bind("127.0.0.1:0").unwrap());
        let forwarder = Setup::new(hostile.local_addr().unwrap())
            .and("127.0.0.1:0", echo.address)
            .case(case)
            .start();
        let innocent: SocketAddr = forwarder.addresses()[1].parse().unwrap();
        let bystander = Bystander::of(innocent);
        let server = std::thread::spawn(move || {
            for drips in [false, true] {
                let (stream, _) = hostile.accept().unwrap();
                answers_a_probe(&stream, drips);
            }
        });
        for _ in 0..2 {
            let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
                .args(["probe", &forwarder.address().to_string()])
                .args(["--strings", "1", "--records", "0", "--timeout", "2s"])
                .output()
                .unwrap();
            bystander.goes_on();
            bystander.comes_in();
            for text in [output.stdout, output.stderr] {
                // Microseconds are its own.
                let text = String::from_utf8(text).unwrap().replace('µ', "u");
                is_printable("a probe", &text);
            }
        }
        server.join().unwrap();
        drop(bystander);
        forwarder.check_idle();
    });
}

/// Gives the string back, and of itself what steers a terminal; or never ends an answer.
fn answers_a_probe(mut stream: &TcpStream, drips: bool) {
    use std::io::{BufRead, BufReader};
    let (mut reader, mut line, mut text) = (BufReader::new(stream), String::new(), String::new());
    reader.read_line(&mut line).unwrap();
    reader.read_line(&mut text).unwrap();
    if drips {
        while stream.write_all(STEERS.as_bytes()).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        return;
    }
    stream.write_all(text.as_bytes()).unwrap();
    reader.read_line(&mut line).unwrap();
    let info = format!("INFO rtt=1us {STEERS}\n");
    let _ = stream.write_all(info.as_bytes());
    let _ = io::copy(&mut reader, &mut io::sink());
}
