//! The ClientHello of TLS as far as a decision needs it: which server the client asks for
//! (SNI) and which protocols it offers (ALPN). RFC 8446, 6066 and 7301.
//!
//! Strict, unlike the tap's [`super::tls`], which shows whatever it can: two parsers that
//! read one hello differently are two opinions of where it goes. Refused are lengths
//! that do not add up, an extension that comes twice, a name with bytes that no name
//! has, more than one name. GREASE values, unknown extensions and any order are fine.
//! Of a hello with ECH the outer name counts, which is all that anybody without the
//! server's key can read.
//!
//! Bounded: a hello has [`HELLO_MAX`] bytes at the most, and with the headers of its
//! records [`STREAM_MAX`]. A hello of a client with post-quantum keys has 1.8 KiB.

use core::net::IpAddr;

use super::host;

/// Bytes of a hello's message without its header: what one record can hold.
pub const HELLO_MAX: usize = 16 * 1024;

/// Bytes of a stream by which its hello has to be complete, cut into however many
/// records.
pub const STREAM_MAX: usize = 32 * 1024;

/// Of a record: kind, version, length.
const RECORD: usize = 5;
/// Bytes of a record in plain (RFC 8446, section 5.1).
const FRAGMENT_MAX: usize = 1 << 14;
/// Kind and length of a handshake message.
const MESSAGE: usize = 4;

const HANDSHAKE: u8 = 22;
const MAJOR: u8 = 3;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const PROTOCOLS: u16 = 16;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// The server (SNI): lower case, without a dot at the end. An address, which does
    /// not belong there, is kept as it is.
    pub server_name: Option<String>,
    /// The protocols it offers (ALPN), in its order.
    pub protocols: Vec<Vec<u8>>,
}

/// Whether a stream begins like TLS: the kind of a record and the first half of its
/// version, 3 with every version from SSL 3.0 on; `None`: more bytes are needed.
pub fn begins(bytes: &[u8]) -> Option<bool> {
    match bytes {
        [] | [HANDSHAKE] => None,
        [HANDSHAKE, MAJOR, ..] => Some(true),
        _ => Some(false),
    }
}

/// The hello at the front of a stream, `None` while more is needed. `Err`: what is
/// wrong with it, whatever follows.
pub fn read(stream: &[u8]) -> Result<Option<Hello>, &'static str> {
    let seen = &stream[..stream.len().min(STREAM_MAX)];
    let mut message = Vec::new();
    let mut left = seen;
    loop {
        match left {
            [kind, ..] if *kind != HANDSHAKE => {
                return Err("a record that is no handshake stands within the hello");
            }
            [_, major, ..] if *major != MAJOR => {
                return Err("the version of a record is none of TLS");
            }
            _ => {}
        }
        let Some((header, rest)) = left.split_at_checked(RECORD) else {
            break;
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 {
            return Err("a record of the hello is empty");
        }
        if length > FRAGMENT_MAX {
            return Err("a record of the hello is longer than 16 KiB");
        }
        let here = length.min(rest.len());
        message.extend_from_slice(&rest[..here]);
        if let Some(len) = message_len(&message)?
            && let Some(body) = message.get(MESSAGE..MESSAGE + len)
        {
            return body_of(body).map(Some);
        }
        if here < length {
            break;
        }
        left = &rest[length..];
    }
    if stream.len() >= STREAM_MAX {
        return Err("the hello is not complete within 32 KiB");
    }
    Ok(None)
}

/// The hello that stands without records, as in the CRYPTO frames of QUIC, `None` while more is needed.
/// `Err`: what is wrong with it, whatever follows.
pub fn read_message(message: &[u8]) -> Result<Option<Hello>, &'static str> {
    match message_len(message)? {
        Some(len) => message.get(MESSAGE..MESSAGE + len).map(body_of).transpose(),
        None => Ok(None),
    }
}

/// How long the message's body says it is.
fn message_len(message: &[u8]) -> Result<Option<usize>, &'static str> {
    match message {
        [kind, ..] if *kind != CLIENT_HELLO => Err("the first message is no ClientHello"),
        [_, a, b, c, ..] => {
            let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if len > HELLO_MAX {
                return Err("the hello is longer than 16 KiB");
            }
            Ok(Some(len))
        }
        _ => Ok(None),
    }
}

fn body_of(body: &[u8]) -> Result<Hello, &'static str> {
    const SHORT: &str = "the hello's lengths do not add up";
    let mut body = Bytes(body);
    let fixed = body.take(2 + 32).ok_or(SHORT)?;
    if fixed[0] != MAJOR {
        return Err("the version of the hello is none of TLS");
    }
    if body.short_list().ok_or(SHORT)?.0.len() > 32 {
        return Err("the hello's session id has more than 32 bytes");
    }
    let suites = body.list().ok_or(SHORT)?.0.len();
    if suites == 0 || !suites.is_multiple_of(2) {
        return Err("the hello's cipher suites are not a list of them");
    }
    if body.short_list().ok_or(SHORT)?.0.is_empty() {
        return Err("the hello names no compression, not even none");
    }
    let mut hello = Hello::default();
    if body.0.is_empty() {
        // Extensions came with TLS 1.0, and may be absent.
        return Ok(hello);
    }
    let mut extensions = body.list().ok_or(SHORT)?;
    if !body.0.is_empty() {
        return Err(SHORT);
    }
    let mut kinds = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.number().ok_or(SHORT)?;
        let content = extensions.list().ok_or(SHORT)?;
        kinds.push(kind);
        match kind {
            SERVER_NAME => hello.server_name = Some(server_name(content)?),
            PROTOCOLS => hello.protocols = protocols(content)?,
            _ => {}
        }
    }
    kinds.sort_unstable();
    if kinds.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("an extension stands in the hello twice");
    }
    Ok(hello)
}

/// Exactly one name, of a host, as RFC 6066 has it.
fn server_name(mut content: Bytes<'_>) -> Result<String, &'static str> {
    const MALFORMED: &str = "the server name (SNI) is malformed";
    let mut names = content.list().ok_or(MALFORMED)?;
    let kind = names.take(1).ok_or(MALFORMED)?;
    let name = names.list().ok_or(MALFORMED)?;
    if kind != [0] {
        return Err("the server name (SNI) is of a kind that there is not");
    }
    if !names.0.is_empty() {
        return Err("there are several server names (SNI)");
    }
    if !content.0.is_empty() {
        return Err(MALFORMED);
    }
    host_of(name.0).ok_or("the server name (SNI) is not the name of a host")
}

/// A name as it is compared: lower case, without a dot at the end; or an address.
pub(super) fn host_of(name: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(name).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical().to_string());
    }
    host::parse(text).ok()
}

fn protocols(mut content: Bytes<'_>) -> Result<Vec<Vec<u8>>, &'static str> {
    const MALFORMED: &str = "the list of protocols (ALPN) is malformed";
    let mut names = content.list().ok_or(MALFORMED)?;
    let mut found = Vec::new();
    while !names.0.is_empty() {
        let name = names.short_list().ok_or(MALFORMED)?;
        if name.0.is_empty() {
            return Err(MALFORMED);
        }
        found.push(name.0.to_vec());
    }
    if found.is_empty() || !content.0.is_empty() {
        return Err(MALFORMED);
    }
    Ok(found)
}

/// Bytes read from the front; `None` where there are too few.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
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
    fn list(&mut self) -> Option<Self> {
        let length = self.number()?;
        self.take(usize::from(length)).map(Self)
    }

    /// With a length of one byte before it.
    fn short_list(&mut self) -> Option<Self> {
        let [length] = self.take(1)? else { return None };
        self.take(usize::from(*length)).map(Self)
    }
}

#[cfg(test)]
pub(in crate::proto) mod tests;
