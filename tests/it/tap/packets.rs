//! Format `pcapng`, as Wireshark's own program reads it.

use std::path::Path;
use std::process::{Command, Stdio};

use super::tapped;
use super::tools::has;
use crate::kit::directory::Directory;
use crate::kit::pattern::Pattern;
use crate::kit::peer::{Peer, transfer};
use crate::kit::*;

/// What would be wrong with a capture of a connection that went well.
const WRONG: &str = "_ws.malformed or _ws.expert.severity >= \"Warning\" or tcp.analysis.flags \
                     or tcp.checksum.status == \"Bad\" or ip.checksum.status == \"Bad\"";

#[track_caller]
fn tshark(file: &Path, arguments: &[&str]) -> String {
    let checks = [
        "-o",
        "tcp.check_checksum:TRUE",
        "-o",
        "ip.check_checksum:TRUE",
    ];
    let output = Command::new("tshark")
        .args(["-n", "-r"])
        .arg(file)
        .args(checks)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// One field of the packets that a filter takes.
#[track_caller]
fn fields(file: &Path, filter: &str, field: &str) -> Vec<String> {
    let text = tshark(file, &["-Y", filter, "-T", "fields", "-e", field]);
    text.lines().map(str::to_owned).collect()
}

/// The bytes of each direction of a connection, as they are put together again.
fn followed(file: &Path, stream: usize) -> [Vec<u8>; 2] {
    let text = tshark(file, &["-q", "-z", &format!("follow,tcp,raw,{stream}")]);
    let mut bytes = [Vec::new(), Vec::new()];
    for line in text.lines() {
        let digits = line.trim_start();
        let hex = digits.len() % 2 == 0 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if !hex {
            continue;
        }
        // What the server sent is indented.
        let way = usize::from(line.starts_with('\t'));
        let pairs = digits.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        bytes[way].extend(pairs.map(byte));
    }
    bytes
}

fn sent(seed: u64, len: u64) -> Vec<u8> {
    Pattern::new(seed).upcoming(len).to_vec()
}

/// Up and down in turn, then an end from each.
fn exchange(mut client: Peer, listener: &Listener) -> u64 {
    client.send(1);
    let mut server = listener.accept();
    server.expect(1);
    for len in [1_439, 1_440, 1_441, 50_000] {
        transfer(&mut client, &mut server, len);
        transfer(&mut server, &mut client, len);
    }
    server.half_close();
    client.expect_then_eof(0);
    client.half_close();
    server.expect_then_eof(0);
    server.sent()
}

#[test]
fn a_session_is_a_connection_without_fault() {
    if !has("tshark") {
        return;
    }
    on_every_path(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let file = directory.join("tap.pcapng");
        let unix = directory.join("socket");
        let keys = "max_bytes_per_session = \"1MiB\"";
        let forwarder = tapped(case, listener.address(), "pcapng", &file, keys)
            .and("[::1]:0", listener.address())
            .and(format!("unix:{}", unix.display()), listener.address())
            .start();
        let mut len = 0;
        for address in &forwarder.addresses()[..2] {
            len = exchange(Peer::connect(address.parse().unwrap()), &listener);
        }
        let client = std::os::unix::net::UnixStream::connect(&unix).unwrap();
        let client = std::net::TcpStream::from(std::os::fd::OwnedFd::from(client));
        exchange(Peer::client(client), &listener);
        forwarder.wait_for_sessions(3);
        let addresses = forwarder.addresses()[..2].to_vec();
        assert!(forwarder.terminate().success());

        assert_eq!(tshark(&file, &["-Y", WRONG]), "");
        let conversations = tshark(&file, &["-q", "-z", "conv,tcp"]);
        assert_eq!(conversations.matches("<->").count(), 3, "{conversations}");
        for address in addresses {
            let address = address.replace(['[', ']'], "");
            assert!(
                conversations.contains(&address),
                "{address}: {conversations}"
            );
        }
        for stream in 0..3 {
            let [up, down] = followed(&file, stream);
            assert!(
                up == sent(1, len + 1),
                "up of {stream} is not what was sent"
            );
            assert!(
                down == sent(2, len),
                "down of {stream} is not what was sent"
            );
            let of = |what: &str| format!("tcp.stream == {stream} and {what}");
            for (what, count) in [
                ("tcp.flags.syn == 1 and tcp.flags.ack == 0", 1),
                ("tcp.flags.syn == 1 and tcp.flags.ack == 1", 1),
                ("tcp.flags.fin == 1", 2),
                ("tcp.flags.reset == 1", 0),
            ] {
                let found = fields(&file, &of(what), "frame.number").len();
                assert_eq!(found, count, "{what} in stream {stream}");
            }
        }
        let comments = fields(&file, "frame.comment", "frame.comment").join("\n");
        assert!(
            comments.contains(&format!("listener=unix:{}", unix.display())),
            "{comments}"
        );
        let documentation = fields(&file, "ip.addr == 192.0.2.1", "frame.number");
        assert!(!documentation.is_empty(), "the unix socket has no address");
    });
}

#[test]
fn a_reset_is_a_reset_of_whoever_sent_it() {
    if !has("tshark") {
        return;
    }
    on_every_engine(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        for by_client in [true, false] {
            let file = directory.join(&format!("{by_client}.pcapng"));
            let forwarder = tapped(case, listener.address(), "pcapng", &file, "").start();
            let mut client = forwarder.connect();
            client.send(5);
            let mut server = listener.accept();
            server.expect(5);
            let (from, to) = if by_client {
                (client, &mut server)
            } else {
                (server, &mut client)
            };
            let port = if by_client {
                from.local().port()
            } else {
                forwarder.address().port()
            };
            from.reset();
            assert_eq!(to.receive_until_end(), End::Reset);
            forwarder.wait_for_session();
            assert!(forwarder.terminate().success());
            let resets = fields(&file, "tcp.flags.reset == 1", "tcp.srcport");
            assert_eq!(resets, [port.to_string()], "by the client: {by_client}");
            assert_eq!(
                tshark(&file, &["-Y", "_ws.malformed or tcp.analysis.flags"]),
                ""
            );
        }
    });
}

/// What is behind the limit is a hole, not a lie: the numbers go on.
#[test]
fn what_is_not_shown_is_a_hole() {
    if !has("tshark") {
        return;
    }
    on_every_engine(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let file = directory.join("tap.pcapng");
        let keys = "max_bytes_per_session = \"4KiB\"";
        let forwarder = tapped(case, listener.address(), "pcapng", &file, keys).start();
        let len = exchange(forwarder.connect(), &listener);
        forwarder.wait_for_session();
        assert!(forwarder.terminate().success());
        let wrong =
            "_ws.malformed or tcp.analysis.retransmission or tcp.checksum.status == \"Bad\"";
        assert_eq!(tshark(&file, &["-Y", wrong]), "");
        let ends = fields(&file, "tcp.flags.fin == 1", "tcp.seq");
        let mut ends: Vec<u64> = ends.iter().map(|seq| seq.parse().unwrap()).collect();
        ends.sort_unstable();
        assert_eq!(ends, [len + 1, len + 2]);
        let comments = fields(&file, "frame.comment", "frame.comment").join("\n");
        assert!(
            comments.contains("max_bytes_per_session = 4096 is reached"),
            "{comments}"
        );
    });
}
