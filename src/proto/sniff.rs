//! What a stream is, by its first bytes, which are looked at and left where they are: TLS
//! with its hello, HTTP/1 with its Host, SSH, a PROXY header, or something else.
//!
//! ```text
//!   all bytes so far ──► look ─► More        none of it is certain yet, or something is missing
//!                             ─► Found       what it is
//!                             ─► Invalid     it begins like one of these, and is malformed
//! ```
//! A look costs little however often it is made: how many bytes are needed before
//! anything can change is remembered. Pieces change nothing: what is found in a stream,
//! or wrong with it, is the same however it was cut (a property, tested).
//!
//! Something else than TLS or HTTP is told by the first byte that fits none, so a
//! protocol in which the client speaks first is hardly ever waited for. One in which the
//! server does is: nobody can tell a silent client from a slow one.

use super::{hello, proxy};
use crate::policy::route::Protocol;

/// Bytes of a stream that are looked at.
pub const LOOK_MAX: usize = hello::STREAM_MAX;

/// Bytes of the head of a request of HTTP/1.
pub const HEAD_MAX: usize = 16 * 1024;

/// Lines of such a head.
const LINES_MAX: usize = 128;

/// Methods of HTTP that are in use, WebDAV's among them, and `PRI`, which begins the
/// preface of HTTP/2.
const METHODS: [&[u8]; 19] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"PRI",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"REPORT",
    b"SEARCH",
];

/// What HTTP/2 begins with, without TLS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const SSH: &[u8] = b"SSH-";

/// What is wanted besides the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// What is in the hello.
    pub hello: bool,
    /// What is in the head of a request.
    pub host: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sniffed {
    /// What the stream is.
    pub protocol: Protocol,
    /// Of TLS: the server that is asked for (SNI), normalised.
    pub server_name: Option<String>,
    /// Of TLS: what is offered (ALPN).
    pub protocols: Vec<Vec<u8>>,
    /// Of HTTP/1: the host that is asked for, normalised, without its port.
    pub host: Option<String>,
}

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// More are needed.
    More,
    /// This.
    Found(Sniffed),
    /// It is malformed, whatever follows.
    Invalid(&'static str),
}

/// Looks at the front of one stream, again and again.
#[derive(Debug, Clone)]
pub struct Sniffer {
    wanted: Wanted,
    /// Bytes before which nothing changes.
    needed: usize,
    /// Bytes of a request's head that were looked at: it is parsed again once a line more has
    /// come, so that a head that drips costs no more for each byte than it may have lines.
    heard: usize,
    #[cfg(test)]
    judged: usize,
}

impl Sniffer {
    /// Of a stream of which nothing was seen.
    pub const fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            needed: 1,
            heard: 0,
            #[cfg(test)]
            judged: 0,
        }
    }

    /// Looks at all bytes so far; `ended`: no more will come.
    pub fn look(&mut self, stream: &[u8], ended: bool) -> Seen {
        if !ended && (stream.len() < self.needed || self.is_within_a_line(stream)) {
            return Seen::More;
        }
        #[cfg(test)]
        {
            self.judged += 1;
        }
        match self.judge(stream) {
            Seen::More if ended => Self::at_the_end(stream),
            Seen::More => {
                self.needed = stream.len() + 1;
                if hello::begins(stream) == Some(true) {
                    self.needed = next_change(stream);
                } else if protocol(stream) == Some(Protocol::Http) {
                    self.heard = stream.len();
                }
                Seen::More
            }
            seen => seen,
        }
    }

    /// Whether all that has come since the last look belongs to a line of a head that goes on.
    /// What may be the preface of HTTP/2 is told by any byte.
    fn is_within_a_line(&mut self, stream: &[u8]) -> bool {
        let Some(new) = stream.get(self.heard..) else {
            return false;
        };
        let goes_on =
            self.heard > PREFACE.len() && stream.len() < HEAD_MAX && !new.contains(&b'\n');
        if goes_on {
            self.heard = stream.len();
        }
        goes_on
    }

    fn judge(&self, stream: &[u8]) -> Seen {
        match protocol(stream) {
            None => Seen::More,
            Some(Protocol::Tls) if self.wanted.hello => match hello::read(stream) {
                Ok(None) => Seen::More,
                Ok(Some(hello)) => Seen::Found(Sniffed {
                    server_name: hello.server_name,
                    protocols: hello.protocols,
                    ..Sniffed::from(Protocol::Tls)
                }),
                Err(why) => Seen::Invalid(why),
            },
            Some(Protocol::Http) if self.wanted.host => host(stream),
            Some(protocol) => Seen::Found(protocol.into()),
        }
    }

    /// What ended before it was certain is nothing that is known, unless it had begun to
    /// be.
    fn at_the_end(stream: &[u8]) -> Seen {
        match protocol(stream) {
            Some(Protocol::Tls) => Seen::Invalid("the client ended within its hello"),
            Some(Protocol::Http) => Seen::Invalid("the client ended within its request's head"),
            _ => Seen::Found(Protocol::Other.into()),
        }
    }
}

/// What a stream is; `None`: more is needed.
fn protocol(stream: &[u8]) -> Option<Protocol> {
    match hello::begins(stream) {
        Some(true) => return Some(Protocol::Tls),
        None => return None,
        Some(false) => {}
    }
    // Whether it begins with these: yes, or it may yet.
    let begins = |with: &[u8]| proxy::starts(stream, with).then_some(stream.len() >= with.len());
    let methods = METHODS.iter().filter_map(|method| {
        let (word, rest) = stream.split_at(stream.len().min(method.len()));
        proxy::starts(word, method).then(|| rest.first().map(|byte| *byte == b' '))
    });
    let mut open = false;
    for found in methods {
        match found {
            Some(true) => return Some(Protocol::Http),
            Some(false) => {}
            None => open = true,
        }
    }
    let words = [
        (SSH, Protocol::Ssh),
        (&proxy::WORD[..], Protocol::Proxy),
        (&proxy::SIGNATURE[..], Protocol::Proxy),
    ];
    for (word, protocol) in words {
        match begins(word) {
            Some(true) => return Some(protocol),
            Some(false) => open = true,
            None => {}
        }
    }
    if open { None } else { Some(Protocol::Other) }
}

/// How long a stream is before anything about its hello can change: until the record or
/// the message ends that its last byte lies in. Wrong lengths are for whoever reads it.
fn next_change(stream: &[u8]) -> usize {
    let mut at = 0;
    let mut message = Vec::new();
    while let Some([_, _, _, high, low]) = stream.get(at..at + 5) {
        let (from, length) = (at + 5, usize::from(u16::from_be_bytes([*high, *low])));
        let end = from + length;
        let before = message.len();
        // Its header is all that is of interest.
        message.extend_from_slice(&stream[from..end.min(stream.len()).min(from + 4)]);
        if end > stream.len() {
            let whole = match message[..] {
                [_, a, b, c, ..] => 4 + u32::from_be_bytes([0, a, b, c]) as usize,
                // Each byte of its header may be wrong.
                _ => return stream.len() + 1,
            };
            let whole = from + whole.saturating_sub(before);
            return whole.min(end).max(stream.len() + 1);
        }
        message.resize(before + length, 0);
        at = end;
    }
    stream.len() + 1
}

/// The host that a request asks for: one opinion, or none.
fn host(stream: &[u8]) -> Seen {
    let mut found = Sniffed::from(Protocol::Http);
    if proxy::starts(stream, PREFACE) {
        // HTTP/2 says the host in a frame, compressed: it goes without.
        return if stream.len() < PREFACE.len() {
            Seen::More
        } else {
            Seen::Found(found)
        };
    }
    let head = &stream[..stream.len().min(HEAD_MAX)];
    // Line by line, so that it does not matter in which pieces it came.
    let whole_lines = head
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let mut lines = [httparse::EMPTY_HEADER; LINES_MAX];
    let mut request = httparse::Request::new(&mut lines);
    match request.parse(&head[..whole_lines]) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if stream.len() >= HEAD_MAX => {
            return Seen::Invalid("the request's head is longer than 16 KiB");
        }
        Ok(httparse::Status::Partial) => return Seen::More,
        Err(_) => return Seen::Invalid("the request's head is malformed"),
    }
    let mut hosts = request
        .headers
        .iter()
        .filter(|line| line.name.eq_ignore_ascii_case("host"));
    let said = hosts.next().map(|line| line.value);
    if hosts.next().is_some() {
        return Seen::Invalid("the request has two Host headers");
    }
    let target = request.path.unwrap_or_default();
    let authority = match (request.method, target.split_once("://")) {
        (Some("CONNECT"), _) => Some(target),
        (_, Some((_, rest))) if !target.starts_with('/') => rest.split(['/', '?', '#']).next(),
        _ => None,
    };
    let of_header = said.map(host_without_port);
    let of_target = authority.map(|it| host_without_port(it.as_bytes()));
    found.host = match (of_target, of_header) {
        (Some(None), _) | (_, Some(None)) => {
            return Seen::Invalid("the host that the request asks for is none");
        }
        (Some(target), Some(header)) if target != header => {
            return Seen::Invalid("the request's target and its Host disagree");
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => None,
    };
    Seen::Found(found)
}

/// `name`, `name:80`, `[::1]:80`.
fn host_without_port(text: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            let port = match rest {
                "" => "",
                rest => rest.strip_prefix(':')?,
            };
            (host, port)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let port_is_one = port.is_empty() || port.parse::<u16>().is_ok();
    port_is_one.then(|| hello::host_of(host.as_bytes()))?
}

impl From<Protocol> for Sniffed {
    fn from(protocol: Protocol) -> Self {
        Self {
            protocol,
            server_name: None,
            protocols: Vec::new(),
            host: None,
        }
    }
}

#[cfg(test)]
mod tests;
