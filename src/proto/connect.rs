//! HTTP CONNECT: the request of a client that wants a tunnel (RFC 9110, section
//! 9.3.6), and the answers to it.
//!
//! Strict, because what one parser lets pass and the next reads otherwise is how
//! requests are smuggled: the target has authority-form and nothing else (RFC 9112,
//! section 3.2.3), lines end with CRLF, and a request that announces a body is
//! refused. httparse splits the header into tokens; what it forgives is refused
//! before it is asked.
//!
//! ```text
//!   new bytes ──► Reader::read ─► More      the caller reads on, up to its bounds
//!                              ─► Found     so many of them end the header; the rest is payload
//!                              ─► Invalid   a status, and why; nothing more is parsed
//! ```
//! Each byte is looked at once, however small the pieces are in which a header drips;
//! httparse is asked when the first line is complete and when all of it is. What can never
//! become a request is refused as soon as that is known: at a byte that stands in none, at the
//! end of a first line that is none or has another method. An empty line before the request
//! is ignored, once (RFC 9112, section 2.2).
//!
//! `Host` is not looked at: the target alone says where to go, and there is no second
//! opinion to disagree with.

mod answer;

use std::sync::Arc;

use httparse::{EMPTY_HEADER, Error, Header};

pub use answer::{Status, answer, error_of};

use super::prelude::{Answer, Authorization, Facts, Prelude, Read};
use super::target::Target;
use crate::relay::ending::Cause;

/// Header lines at the most; with more the answer is 431.
pub const HEADERS_MAX: usize = 64;

/// Bytes of a target that [`target_of`] shows: the longest that can be valid is a
/// host of 254 bytes with its port.
const TARGET_SHOWN_MAX: usize = 280;

/// Bytes of a method at the most; the longest that is registered has 17.
const METHOD_MAX: usize = 32;

/// What a forward goes by whose clients make requests.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of a request's header at the most.
    pub header_max: usize,
    /// What a 407 says the credentials are for.
    pub realm: Arc<str>,
}

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parse {
    /// They may become a request: more are needed.
    More,
    /// A request, whose header ends with the first `len` of the bytes that were read last.
    Found {
        /// Bytes of the header; what follows is payload.
        len: usize,
        /// What it asks for.
        request: Request,
    },
    /// No request to be served, whatever follows.
    Invalid(Refusal),
}

/// A CONNECT request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where to.
    pub target: Target,
    /// The value of `Proxy-Authorization`, if there is one.
    pub authorization: Option<Authorization>,
}

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// 400, 405 or 431.
    pub status: Status,
    /// For the client, in a sentence without an end.
    pub why: &'static str,
}

const fn bad(why: &'static str) -> Refusal {
    Refusal {
        status: Status::BadRequest,
        why,
    }
}

const TOO_LARGE: Refusal = Refusal {
    status: Status::HeaderTooLarge,
    why: "the request header is too large",
};

const OTHER_METHOD: Refusal = Refusal {
    status: Status::MethodNotAllowed,
    why: "this proxy makes tunnels: use CONNECT (https URLs do; curl needs \
          --proxytunnel for http URLs)",
};

/// Reads one request, in whatever pieces it comes.
#[derive(Debug)]
pub struct Reader {
    settings: Settings,
    /// What belongs to the header so far; nothing once that is known.
    header: Vec<u8>,
    /// Where the request begins: behind an empty line, if one came first.
    start: usize,
    /// How much of it was looked at, and where its last line begins.
    scanned: usize,
    line: usize,
    /// The method is over: what follows on the first line is a target and a version.
    method: bool,
    refusal: Option<Refusal>,
}

impl Reader {
    /// One that has read nothing.
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            header: Vec::new(),
            start: 0,
            scanned: 0,
            line: 0,
            method: false,
            refusal: None,
        }
    }

    /// Reads on. Not to be asked again once it has answered otherwise than by
    /// [`Parse::More`].
    pub fn read(&mut self, bytes: &[u8]) -> Parse {
        let (before, max) = (self.header.len(), self.settings.header_max);
        let within = bytes.len().min(max - before);
        self.header.extend_from_slice(&bytes[..within]);
        match self.scan() {
            Err(refusal) => Parse::Invalid(refusal),
            Ok(None) if self.header.len() == max => Parse::Invalid(TOO_LARGE),
            Ok(None) => Parse::More,
            Ok(Some(len)) => match request(&self.header[self.start..len]) {
                Ok(request) => Parse::Found {
                    len: len - before,
                    request,
                },
                Err(refusal) => Parse::Invalid(refusal),
            },
        }
    }

    /// Where the header ends, if it does. Refuses what httparse would forgive: bare LF,
    /// control bytes, lines before the request but for an empty one, and folded ones.
    fn scan(&mut self) -> Result<Option<usize>, Refusal> {
        for at in self.scanned..self.header.len() {
            let bytes = &self.header;
            let first = self.line == self.start;
            match bytes[at] {
                b'\n' if at == 0 || bytes[at - 1] != b'\r' => {
                    return Err(bad("a line ends with LF alone"));
                }
                b'\n' if at == 1 => {
                    self.start = 2;
                    self.line = 2;
                }
                b'\n' if at - self.line == 1 && first => {
                    return Err(bad("empty lines come before the request"));
                }
                b'\n' if at - self.line == 1 => return Ok(Some(at + 1)),
                b'\n' => {
                    if first {
                        first_line(&bytes[self.start..=at])?;
                    }
                    self.line = at + 1;
                }
                b'\r' if bytes.get(at + 1).is_some_and(|next| *next != b'\n') => {
                    return Err(bad("a CR stands without its LF"));
                }
                b' ' | b'\t' if at == self.line => {
                    return Err(bad("a line begins with a blank"));
                }
                b'\t' if first => {
                    return Err(bad("a tab stands in the request line"));
                }
                b'\t' | b'\r' => {}
                0..=0x1f | 0x7f => return Err(bad("a control byte stands in the header")),
                b' ' if first => self.method = true,
                byte if first
                    && !self.method
                    && (!is_token(byte) || at - self.start == METHOD_MAX) =>
                {
                    return Err(bad("this does not begin as a request of HTTP does"));
                }
                _ => {}
            }
        }
        // A CR at the end is judged with what follows it.
        let open = usize::from(self.header.last() == Some(&b'\r'));
        self.scanned = self.header.len() - open;
        Ok(None)
    }
}

impl Prelude for Reader {
    fn feed(&mut self, seen: &[u8], facts: &mut Facts) -> Read {
        let read = match self.read(seen) {
            Parse::More => return Read::More,
            Parse::Found { len, request } => {
                facts.asked = Some(request.target.to_string().into_bytes());
                facts.target = Some(request.target);
                facts.authorization = request.authorization;
                Read::Taken(len)
            }
            Parse::Invalid(refusal) => {
                let target = target_of(&self.header[self.start..]);
                facts.asked = (!target.is_empty()).then_some(target);
                self.refusal = Some(refusal);
                facts.wrong = Some(refusal.why);
                Read::Invalid(Cause::BadRequest)
            }
        };
        self.header = Vec::new();
        read
    }

    fn room(&self) -> usize {
        self.settings.header_max - self.header.len()
    }

    fn answer(&self, refused: Option<Cause>) -> Option<Answer> {
        let (status, why) = match (self.refusal, refused) {
            (Some(refusal), _) => (refusal.status, refusal.why),
            (None, Some(cause)) => (answer::status_of(cause), answer::why(cause)),
            (None, None) => (Status::Established, ""),
        };
        let error = refused.filter(|_| self.refusal.is_none());
        let error = answer::error_of(status, error);
        Some(Answer {
            status: status.code(),
            bytes: answer(status, error, &self.settings.realm, why),
        })
    }
}

/// The target as the client wrote it, for a log to escape: whatever stands between the
/// method and the version, valid or not, cut at a length that no valid one has. Without what
/// may be a secret: all before an `@`, wherever that stands, a query, a port that is no
/// number. Nothing at all of a first line that is none of HTTP: `PASS secret` is no target.
pub fn target_of(bytes: &[u8]) -> Vec<u8> {
    let line = bytes
        .split(|byte| b"\r\n".contains(byte))
        .next()
        .unwrap_or_default();
    let Some(blank) = line.iter().position(|byte| *byte == b' ') else {
        return Vec::new();
    };
    let (method, rest) = (&line[..blank], &line[blank + 1..]);
    let version = b" HTTP/";
    let end = rest
        .windows(version.len())
        .rposition(|window| window == version);
    let target = match end {
        Some(end) => &rest[..end],
        None if method.eq_ignore_ascii_case(b"CONNECT") => rest,
        None => return Vec::new(),
    };
    let behind = target.rsplit(|byte| *byte == b'@').next();
    let target = behind.unwrap_or_default();
    let open = target.iter().position(|byte| b" ?#".contains(byte));
    let target = &target[..open.unwrap_or(target.len())];
    let shown = &target[..target.len().min(TARGET_SHOWN_MAX)];
    // `ann:secret`, whose `@host` is missing.
    let mut parts = shown.split(|byte| *byte == b':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(host), Some(port), None)
            if !port.starts_with(b"//") && !port.iter().all(u8::is_ascii_digit) =>
        {
            [host, b":..."].concat()
        }
        _ => shown.to_vec(),
    }
}

/// Bytes that a token may have (RFC 9110, section 5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Judges a first line, with its end, before what follows it is there.
fn first_line(line: &[u8]) -> Result<(), Refusal> {
    let alone = [line, b"\r\n"].concat();
    let mut headers = [EMPTY_HEADER; 0];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(&alone) {
        Ok(_) if parsed.method == Some("CONNECT") => Ok(()),
        Ok(_) => Err(OTHER_METHOD),
        Err(error) => Err(refusal_of(error)),
    }
}

fn request(header: &[u8]) -> Result<Request, Refusal> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(header) {
        Ok(httparse::Status::Complete(len)) if len == header.len() => {}
        Ok(_) => return Err(bad("the header does not end where it should")),
        Err(error) => return Err(refusal_of(error)),
    }
    if parsed.method != Some("CONNECT") {
        return Err(OTHER_METHOD);
    }
    let authorization = judge(parsed.headers)?;
    let target = Target::parse(parsed.path.unwrap_or_default()).map_err(bad)?;
    Ok(Request {
        target,
        authorization,
    })
}

const fn refusal_of(error: Error) -> Refusal {
    match error {
        Error::TooManyHeaders => TOO_LARGE,
        Error::Version => bad("the version is neither HTTP/1.0 nor HTTP/1.1"),
        Error::HeaderName => bad("the name of a header is malformed"),
        Error::HeaderValue => bad("the value of a header is malformed"),
        Error::NewLine | Error::Status | Error::Token => bad("the request line is malformed"),
    }
}

/// A tunnel has no body: a request that announces one is refused, for the next parser
/// might take what follows for it.
fn judge(headers: &[Header<'_>]) -> Result<Option<Authorization>, Refusal> {
    let mut authorization = None;
    for header in headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") || is("transfer-encoding") {
            return Err(bad("a CONNECT request has no body"));
        }
        if is("proxy-authorization") {
            let value = Authorization::new(header.value);
            if authorization.replace(value).is_some() {
                return Err(bad("there are two Proxy-Authorization headers"));
            }
        }
    }
    Ok(authorization)
}

#[cfg(test)]
mod tests;
