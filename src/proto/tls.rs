//! TLS as it looks from outside: records, and what the client asks for. RFC 8446,
//! 6066 (server name), 7301 (protocols).

use super::Parse;
use super::notes::{Note, Stop};
use super::tell::Teller;

/// Bytes of a ClientHello that are kept; larger ones have no business.
pub const HELLO_MAX: usize = 64 * 1024;

const HEADER: usize = 5;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// RFC 8446, 5.2: 2^14 and 256 more for a ciphertext; 2048 more in TLS 1.2.
const RECORD_MAX: u16 = (1 << 14) + 2048;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// The name of the server (SNI), as sent.
    pub server_name: Option<Vec<u8>>,
    /// The protocols it offers (ALPN), in its order.
    pub protocols: Vec<Vec<u8>>,
}

/// Whether a stream begins with a record; `None`: more bytes are needed.
pub fn begins(bytes: &[u8]) -> Option<bool> {
    match bytes {
        [] => None,
        [20..=23] => None,
        [20..=23, major, ..] => Some(*major == 3),
        _ => Some(false),
    }
}

/// The ClientHello at the beginning of a handshake's bytes.
pub fn client_hello(bytes: &[u8]) -> Parse<ClientHello> {
    let [kind, rest @ ..] = bytes else {
        return Parse::More;
    };
    if *kind != CLIENT_HELLO {
        return Parse::Invalid;
    }
    let [a, b, c, rest @ ..] = rest else {
        return Parse::More;
    };
    let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
    if length > HELLO_MAX {
        return Parse::Invalid;
    }
    match rest.get(..length) {
        None => Parse::More,
        Some(body) => match hello_body(&mut Reader(body)) {
            Some(hello) => Parse::Found(hello, 4 + length),
            None => Parse::Invalid,
        },
    }
}

fn hello_body(body: &mut Reader<'_>) -> Option<ClientHello> {
    // Version and random.
    body.take(2 + 32)?;
    body.short_list()?; // session
    body.list()?; // cipher suites
    body.short_list()?; // compression
    let mut hello = ClientHello::default();
    if body.0.is_empty() {
        // TLS 1.0 has no extensions.
        return Some(hello);
    }
    let mut extensions = body.list()?;
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let mut content = extensions.list()?;
        match kind {
            0 => server_name(&mut content, &mut hello)?,
            16 => hello.protocols = protocols(&mut content)?,
            _ => {}
        }
    }
    body.0.is_empty().then_some(hello)
}

/// Takes the first name that is a host's; `None`: the list is malformed.
fn server_name(content: &mut Reader<'_>, hello: &mut ClientHello) -> Option<()> {
    let mut names = content.list()?;
    while !names.0.is_empty() {
        let [kind] = names.take(1)? else { return None };
        let name = names.list()?;
        if *kind == 0 && hello.server_name.is_none() {
            hello.server_name = Some(name.0.to_vec());
        }
    }
    Some(())
}

fn protocols(content: &mut Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut names = content.list()?;
    let mut found = Vec::new();
    while !names.0.is_empty() {
        found.push(names.short_list()?.0.to_vec());
    }
    Some(found)
}

/// Bytes read from the front; `None` where there are too few.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }

    fn number(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// With a length of two bytes before it.
    fn list(&mut self) -> Option<Reader<'a>> {
        let length = self.number()?;
        self.take(usize::from(length)).map(Reader)
    }

    /// With a length of one byte before it.
    fn short_list(&mut self) -> Option<Reader<'a>> {
        let [length] = self.take(1)? else { return None };
        self.take(usize::from(*length)).map(Reader)
    }
}

/// The records of one direction.
#[derive(Debug)]
pub struct Records {
    header: Vec<u8>,
    /// Bytes of the record that are still to come, and whether they are a handshake.
    left: u16,
    handshake: bool,
    /// Of an alert that is not encrypted: those have two bytes.
    alert: Alert,
    /// The ClientHello so far; `None`: it is over, or there is none.
    hello: Option<Vec<u8>>,
}

/// What is known of an alert under way.
#[derive(Debug, Clone, Copy)]
enum Alert {
    /// There is none.
    No,
    /// Both bytes are still to come.
    Begins,
    /// Its level.
    Level(u8),
}

impl Records {
    /// The records of the client, or of the server.
    pub fn new(client: bool) -> Self {
        Self {
            header: Vec::new(),
            left: 0,
            handshake: false,
            alert: Alert::No,
            hello: client.then(Vec::new),
        }
    }

    /// Takes bytes; `Some`: they are no records any more.
    pub(super) fn feed(&mut self, mut bytes: &[u8], notes: &mut Teller<'_>) -> Option<Stop> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let n = bytes.len().min(usize::from(self.left));
                self.left -= n as u16;
                self.content(&bytes[..n], notes);
                bytes = &bytes[n..];
                continue;
            }
            let n = bytes.len().min(HEADER - self.header.len());
            self.header.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            let [kind, major, minor, high, low] = self.header[..] else {
                continue;
            };
            self.header.clear();
            let length = u16::from_be_bytes([high, low]);
            if !(20..=24).contains(&kind) || major != 3 || length > RECORD_MAX {
                return Some(Stop::Malformed);
            }
            let version = u16::from_be_bytes([major, minor]);
            notes.tell(Note::Record {
                kind,
                version,
                length,
            });
            self.handshake = kind == HANDSHAKE;
            self.alert = if kind == ALERT && length == 2 {
                Alert::Begins
            } else {
                Alert::No
            };
            self.left = length;
        }
        None
    }

    /// So many bytes are missing; `false`: where the next record begins is not known.
    pub fn skip(&mut self, n: u64) -> bool {
        let within = n <= u64::from(self.left);
        if within {
            self.left -= n as u16;
            self.hello = None;
            self.alert = Alert::No;
        }
        within
    }

    /// Bytes that are kept.
    pub fn kept(&self) -> usize {
        self.hello.as_ref().map_or(0, Vec::capacity)
    }

    fn content(&mut self, bytes: &[u8], notes: &mut Teller<'_>) {
        for byte in bytes {
            self.alert = match self.alert {
                Alert::No => break,
                Alert::Begins => Alert::Level(*byte),
                Alert::Level(level) => {
                    let description = *byte;
                    notes.tell(Note::Alert { level, description });
                    Alert::No
                }
            };
        }
        let Some(hello) = &mut self.hello else { return };
        if !self.handshake {
            self.hello = None;
            return;
        }
        hello.extend_from_slice(bytes);
        match client_hello(hello) {
            Parse::More if hello.len() <= HELLO_MAX + 4 => {}
            Parse::Found(found, _) => {
                notes.tell(Note::Hello {
                    server_name: found.server_name,
                    protocols: found.protocols,
                });
                self.hello = None;
            }
            Parse::More | Parse::Invalid => self.hello = None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::proto::tell::Budget;

    /// A ClientHello that asks for `name` and offers h2 and http/1.1, in a record.
    pub(in crate::proto) fn hello(name: &[u8]) -> Vec<u8> {
        let short = |bytes: &[u8]| [&[bytes.len() as u8], bytes].concat();
        let long = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
        let names = long(&[&[0][..], &long(name)].concat());
        let offers = long(&[short(b"h2"), short(b"http/1.1")].concat());
        let extensions = [&[0, 0][..], &long(&names), &[0, 16], &long(&offers)].concat();
        let body = [
            &[3, 3][..],
            &[7; 32],
            &short(&[]),
            &long(&[0x13, 1]),
            &short(&[0]),
            &long(&extensions),
        ]
        .concat();
        let length = (body.len() as u32).to_be_bytes();
        let message = [&[1][..], &length[1..], &body].concat();
        [&[22, 3, 1][..], &long(&message)].concat()
    }

    #[test]
    fn a_client_tells_its_server_and_protocols() {
        let bytes = hello(b"host.example");
        for cut in 1..bytes.len() {
            let (mut records, mut notes) = (Records::new(true), Vec::new());
            for piece in bytes.chunks(cut) {
                let mut budget = Budget::default();
                let mut teller = Teller::new(&mut budget, &mut notes);
                assert_eq!(records.feed(piece, &mut teller), None);
            }
            let hello = Note::Hello {
                server_name: Some(b"host.example".to_vec()),
                protocols: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            };
            assert_eq!(notes.len(), 2);
            assert_eq!(notes[1], hello);
        }
    }

    #[test]
    fn a_hello_that_is_cut_short_is_none() {
        let bytes = hello(b"host.example");
        for end in 5..bytes.len() {
            assert_eq!(client_hello(&bytes[5..end]), Parse::More);
            // The lengths inside no longer agree with those around them.
            let mut short = bytes[5..end].to_vec();
            if short.len() > 4 {
                let length = (short.len() as u32 - 4).to_be_bytes();
                short[1..4].copy_from_slice(&length[1..]);
                let tls_1_0 = matches!(client_hello(&short), Parse::Found(ref it, _) if *it == ClientHello::default());
                assert!(tls_1_0 || client_hello(&short) == Parse::Invalid, "{end}");
            }
        }
    }
}
