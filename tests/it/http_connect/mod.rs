//! HTTP CONNECT on the real binary: headers in any pieces (47), what may follow them
//! (55), what is no request (56), credentials and the access list (57), hostile bytes
//! in records (72), and the programs that people use it with.

mod access;
mod names;
mod programs;
mod refusals;
mod tunnels;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::kit::directory::Directory;
use crate::kit::*;

pub(crate) use access::users;

const ESTABLISHED: &str = "HTTP/1.1 200 Connection Established\r\n\r\n";

/// Every loopback address, which is denied otherwise.
const LOOPBACK: &str = "allow = [\"127.0.0.0/8:*\", \"[::1]:*\"]\n";

/// A proxy and the directory of its files.
struct Proxy {
    forwarder: Forwarder,
    _directory: Directory,
}

impl std::ops::Deref for Proxy {
    type Target = Forwarder;

    fn deref(&self) -> &Forwarder {
        &self.forwarder
    }
}

impl Proxy {
    /// With these lines in its `[forward.connect]`.
    #[track_caller]
    fn start(case: Case, connect: &str) -> Self {
        Self::start_with(case, connect, |setup, _| setup)
    }

    /// And set up further; `{dir}` in `connect` is the directory.
    #[track_caller]
    fn start_with(case: Case, connect: &str, further: impl Fn(Setup, &Directory) -> Setup) -> Self {
        let directory = Directory::new();
        let connect = connect.replace("{dir}", &directory.path().display().to_string());
        let file = directory.join("proxy.toml");
        let text = format!(
            "[[forward]]\nname = \"proxy\"\nlisten = \"127.0.0.1:0\"\nmode = \"http-connect\"\n\
             [forward.connect]\n{connect}"
        );
        std::fs::write(&file, text).unwrap();
        let setup = Setup::configured(&file, 1).case(case);
        Self {
            forwarder: further(setup, &directory).start(),
            _directory: directory,
        }
    }

    /// A client that has asked for a tunnel to `target`, and has it.
    #[track_caller]
    fn tunnel(&self, target: impl ToString) -> Peer {
        let client = self.connect();
        write(&client, request(target));
        expect_text(&client, ESTABLISHED);
        client
    }

    /// What a client is answered that sends this and then ends.
    #[track_caller]
    fn answer_to(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let client = self.connect();
        write(&client, bytes.as_ref());
        // It may have been answered and closed already.
        let _ = client.stream().shutdown(Shutdown::Write);
        Answer::read(client.stream())
    }
}

/// A request as curl makes it.
fn request(target: impl ToString) -> String {
    let target = target.to_string();
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: test\r\n\r\n")
}

#[track_caller]
fn write(client: &Peer, bytes: impl AsRef<[u8]>) {
    client.stream().write_all(bytes.as_ref()).unwrap();
}

/// Receives exactly this.
#[track_caller]
fn expect_text(peer: &Peer, text: &str) {
    let mut received = vec![0; text.len()];
    peer.stream().read_exact(&mut received).unwrap();
    assert_eq!(String::from_utf8_lossy(&received), text);
}

/// A whole answer, to the end of the connection, which was no reset.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn read(mut stream: &TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            panic!("no answer: {text:?}");
        };
        let length = format!("Content-Length: {}", body.len());
        assert!(head.lines().any(|line| line == length), "{text}");
        assert!(head.contains("\r\nConnection: close"), "{text}");
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }
}

/// Nobody has connected to it.
#[track_caller]
fn nobody_came(listener: &Listener) {
    let came = listener.accept_within(std::time::Duration::from_millis(50));
    assert!(came.is_none(), "somebody was connected");
}

fn port_of(listener: &Listener) -> u16 {
    SocketAddr::port(&listener.address())
}
