//! What a client of a subject says before the traffic begins: a request for a tunnel, or bytes
//! that the subject looks at (a TLS ClientHello) or takes off (a PROXY header).
//!
//! A hello goes on to the origin, which skips it (`Skip`): a forwarder that routes by it must
//! pass it on as it came.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;

use super::socket;

/// The server that hellos ask for.
pub const SERVER_NAME: &str = "origin.bench.example";

/// The signature that a PROXY header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// What comes before everything else on a connection to a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preface {
    /// Nothing does.
    #[default]
    Nothing,
    /// A tunnel to this address is asked for, and waited for.
    Tunnel(SocketAddr),
    /// These bytes, in one write with what follows.
    Bytes(&'static [u8]),
}

impl Preface {
    /// A TLS ClientHello for [`SERVER_NAME`].
    pub fn hello() -> Self {
        static HELLO: LazyLock<Vec<u8>> = LazyLock::new(client_hello);
        Self::Bytes(&HELLO)
    }

    /// A PROXY header of version 2 for a client of IPv4.
    pub fn header() -> Self {
        static HEADER: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let mut header = SIGNATURE.to_vec();
            header.extend([0x21, 0x11, 0, 12]);
            header.extend([192, 0, 2, 1, 192, 0, 2, 2]);
            header.extend([40_000_u16.to_be_bytes(), 443_u16.to_be_bytes()].concat());
            header
        });
        Self::Bytes(&HEADER)
    }

    /// What is written at once.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Nothing | Self::Tunnel(_) => &[],
        }
    }

    /// Says it on a connection that waits for each of its calls.
    ///
    /// # Errors
    /// What the connection or the proxy answered.
    pub fn say(self, mut stream: &TcpStream) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Tunnel(origin) => socket::ask_for_tunnel(stream, origin),
            Self::Bytes(bytes) => stream.write_all(bytes),
        }
    }
}

/// As OpenSSL's client sends it, in the order of its extensions: TLS 1.3 and 1.2, one key share.
fn client_hello() -> Vec<u8> {
    let long = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let extension = |number: u16, body: &[u8]| [&number.to_be_bytes(), &*long(body)].concat();
    let name = long(&[&[0], &*long(SERVER_NAME.as_bytes())].concat());
    let key = [&[0x00, 0x1d], &*long(&[0x5a; 32])].concat();
    let alpn = [&[8], b"http/1.1".as_slice()].concat();
    let extensions = [
        extension(0, &name),
        extension(11, &[3, 0, 1, 2]),
        extension(10, &[0, 4, 0, 0x1d, 0, 0x17]),
        extension(35, &[]),
        extension(16, &long(&alpn)),
        extension(22, &[]),
        extension(23, &[]),
        extension(13, &[0, 8, 4, 3, 8, 4, 4, 1, 8, 7]),
        extension(43, &[4, 3, 4, 3, 3]),
        extension(45, &[1, 1]),
        extension(51, &long(&key)),
    ]
    .concat();
    let suites = [0x13, 0x01, 0x13, 0x02, 0x13, 0x03, 0xc0, 0x2b, 0xc0, 0x2f];
    let mut hello = vec![3, 3];
    hello.extend([0xa5; 32]);
    hello.push(32);
    hello.extend([0x3c; 32]);
    hello.extend(long(&suites));
    hello.extend([1, 0]);
    hello.extend(long(&extensions));
    let message = [&[1, 0], &*long(&hello)].concat();
    [&[22, 3, 1], &*long(&message)].concat()
}

/// The other end of it: skips TLS records of a handshake and PROXY headers of version 2 in front
/// of the first command.
#[derive(Debug, Default)]
pub(super) struct Skip {
    head: [u8; 16],
    have: usize,
    body: usize,
    done: bool,
}

impl Skip {
    /// How many of these bytes are none of a command. With fewer than all of them the rest is.
    pub(super) fn take(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        while !self.done && used < input.len() {
            if self.body > 0 {
                let some = self.body.min(input.len() - used);
                (self.body, used) = (self.body - some, used + some);
                continue;
            }
            let byte = input[used];
            let fits = match (self.head[0], self.have) {
                (_, 0) => byte == 22 || byte == SIGNATURE[0],
                (22, _) => true,
                (_, at) => SIGNATURE.get(at).is_none_or(|it| *it == byte),
            };
            // What of the signature was there are empty lines, which ask for nothing.
            self.done = !fits;
            if !fits {
                break;
            }
            self.head[self.have] = byte;
            (self.have, used) = (self.have + 1, used + 1);
            let length = |at: usize| u16::from_be_bytes([self.head[at], self.head[at + 1]]);
            let (whole, body) = match self.head[0] {
                22 => (self.have == 5, length(3)),
                _ => (self.have == 16, length(14)),
            };
            if whole {
                (self.have, self.body) = (0, usize::from(body));
            }
        }
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::route::Protocol;
    use crate::proto::proxy;
    use crate::proto::sniff::{Seen, Sniffer, Wanted};

    #[test]
    fn both_are_what_they_are_meant_to_be() {
        let wanted = Wanted {
            hello: true,
            host: false,
        };
        let Seen::Found(found) = Sniffer::new(wanted).look(Preface::hello().bytes(), false) else {
            panic!("no hello");
        };
        assert_eq!(found.protocol, Protocol::Tls);
        assert_eq!(found.server_name.as_deref(), Some(SERVER_NAME));
        assert_eq!(found.protocols, [b"http/1.1"]);
        let header = Preface::header().bytes();
        let (_, len) = proxy::parse(header).expect("a header").expect("all of it");
        assert_eq!(len, header.len());
    }

    #[test]
    fn skipped_in_any_pieces() {
        let payload = b"ECHO\n\x16\r\n\r\n\0";
        let both = [Preface::header().bytes(), Preface::hello().bytes()].concat();
        for preface in [
            Preface::hello().bytes(),
            Preface::header().bytes(),
            &both,
            b"",
        ] {
            let stream = [preface, payload].concat();
            for cut in 0..stream.len() {
                let mut skip = Skip::default();
                let mut rest = Vec::new();
                for piece in [&stream[..cut], &stream[cut..]] {
                    let used = skip.take(piece);
                    rest.extend_from_slice(&piece[used..]);
                }
                assert_eq!(rest, payload, "cut at {cut}");
            }
        }
    }
}
