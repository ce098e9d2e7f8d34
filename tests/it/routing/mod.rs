//! Who the client is, and where it goes, on the real binary and both engines: PROXY
//! headers in (47 to 51) and out (52), routes by the ClientHello and by what else the
//! first bytes tell (53, 54), and the programs that speak these.

mod acknowledged;
mod crowd;
mod headers_in;
mod headers_out;
mod programs;
mod routes;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::kit::directory::Directory;
use crate::kit::log::Record;
use crate::kit::*;

/// A forwarder of one forward, its directory with it.
struct Routed {
    forwarder: Forwarder,
    /// Records that were looked at.
    seen: Cell<usize>,
    _directory: Directory,
}

impl std::ops::Deref for Routed {
    type Target = Forwarder;

    fn deref(&self) -> &Forwarder {
        &self.forwarder
    }
}

impl Routed {
    /// A forward from a free port to `upstream` (a value of TOML), with more lines in its
    /// table, and routes, behind it. What is dripped to it has a minute unless the lines say otherwise: every byte
    /// may wait for a processor.
    #[track_caller]
    fn start(case: Case, upstream: &str, lines: &str) -> Self {
        let directory = Directory::new();
        let file = directory.join("routed.toml");
        let looks = lines.contains("forward.route") && !lines.contains("sniff_timeout");
        let patience = if looks {
            "sniff_timeout = \"60s\"\n"
        } else {
            ""
        };
        let text = format!(
            "[[forward]]\nname = \"routed\"\nlisten = \"127.0.0.1:0\"\nupstream = {upstream}\n{patience}{lines}"
        );
        std::fs::write(&file, text).unwrap();
        Self {
            forwarder: Setup::configured(&file, 1).case(case).start(),
            seen: Cell::new(0),
            _directory: directory,
        }
    }
}

impl Routed {
    /// The record of the next session.
    #[track_caller]
    fn record(&self) -> Record {
        self.seen.set(self.seen.get() + 1);
        let records = self.forwarder.wait_for_sessions(self.seen.get());
        records.into_iter().last().unwrap()
    }
}

/// A server as a value of TOML.
fn to(server: &Listener) -> String {
    format!("\"{}\"", server.address())
}

#[track_caller]
fn write(peer: &Peer, bytes: impl AsRef<[u8]>) {
    peer.stream().write_all(bytes.as_ref()).unwrap();
}

/// A byte a segment.
#[track_caller]
fn drip(peer: &Peer, bytes: &[u8]) {
    peer.stream().set_nodelay(true).unwrap();
    for byte in bytes {
        write(peer, [*byte]);
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Receives exactly this.
#[track_caller]
fn expect_bytes(peer: &Peer, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    let mut received = vec![0; bytes.len()];
    peer.stream().read_exact(&mut received).unwrap();
    assert_eq!(
        received.escape_ascii().to_string(),
        bytes.escape_ascii().to_string()
    );
}

/// Whether the client is turned away: an end or a reset, and no byte before.
fn is_turned_away(client: &Peer) -> bool {
    let mut byte = [0];
    match client.stream().read(&mut byte) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// The signature of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2.
fn binary(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, kind], &length, rest].concat()
}

/// Both addresses and ports, as a header of TCP over IPv4 has them.
fn addresses(client: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (client, destination) else {
        panic!("IPv4");
    };
    let mut block = Vec::new();
    block.extend(from.ip().octets());
    block.extend(to.ip().octets());
    block.extend(from.port().to_be_bytes());
    block.extend(to.port().to_be_bytes());
    block
}

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8], bytes].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

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

/// A ClientHello with these extensions, in records of so many bytes.
fn hello(extensions: &[Vec<u8>], record: usize) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &short(&[1; 32]),
        &long(&[0x1a, 0x1a, 0x13, 1]),
        &short(&[0]),
        &long(&extensions.concat()),
    ]
    .concat();
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    let pieces = message.chunks(record);
    pieces
        .flat_map(|piece| [&[22, 3, 1][..], &long(piece)].concat())
        .collect()
}
