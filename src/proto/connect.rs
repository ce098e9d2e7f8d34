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
//!   bytes so far ──► parse ─► More      the caller reads on, up to its bounds
//!                           ─► Found     so many bytes are the header; the rest is payload
//!                           ─► Invalid   a status, and why; nothing more is parsed
//! ```
//! `Host` is not looked at: the target alone says where to go, and there is no second
//! opinion to disagree with.

mod answer;
mod target;

use std::fmt;

use httparse::{EMPTY_HEADER, Error, Header};

pub use answer::{Status, answer};
pub use target::{Host, Target};

/// Header lines at the most; with more the answer is 431.
pub const HEADERS_MAX: usize = 64;

/// Bytes of a target that [`target_of`] shows: the longest that can be valid is a
/// host of 254 bytes with its port.
const TARGET_SHOWN_MAX: usize = 280;

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parse {
    /// They may become a request: more are needed.
    More,
    /// A request, in the first `len` bytes.
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

/// The value of `Proxy-Authorization`, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorization(Vec<u8>);

impl Authorization {
    /// What follows the scheme `Basic`, in base64; `None` for any other scheme.
    pub fn basic(&self) -> Option<&[u8]> {
        let space = self.0.iter().position(|byte| *byte == b' ')?;
        let (scheme, rest) = self.0.split_at(space);
        scheme
            .eq_ignore_ascii_case(b"basic")
            .then(|| rest.trim_ascii())
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(…)")
    }
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

/// Reads a request off the front of `bytes`; its header may have `max` bytes.
pub fn parse(bytes: &[u8], max: usize) -> Parse {
    let within = &bytes[..bytes.len().min(max)];
    match header_len(within) {
        Err(refusal) => Parse::Invalid(refusal),
        Ok(None) if within.len() == max => Parse::Invalid(TOO_LARGE),
        Ok(None) => Parse::More,
        Ok(Some(len)) => match request(&bytes[..len]) {
            Ok(request) => Parse::Found { len, request },
            Err(refusal) => Parse::Invalid(refusal),
        },
    }
}

/// The target as the client wrote it, for a log to escape: whatever stands behind the
/// first blank, valid or not, without what may be a secret (credentials before `@`, a
/// query behind `?`) and cut at a length that no valid one has.
pub fn target_of(bytes: &[u8]) -> &[u8] {
    let line = bytes
        .split(|byte| b"\r\n".contains(byte))
        .next()
        .unwrap_or_default();
    let target = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let target = target
        .split(|byte| *byte == b'?')
        .next()
        .unwrap_or_default();
    let target = target
        .rsplit(|byte| *byte == b'@')
        .next()
        .unwrap_or_default();
    &target[..target.len().min(TARGET_SHOWN_MAX)]
}

/// Where the header ends, if it does. Refuses what httparse would forgive: bare LF,
/// control bytes, lines before the request, and folded ones.
fn header_len(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut line = 0;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' if at == 0 || bytes[at - 1] != b'\r' => {
                return Err(bad("a line ends with LF alone"));
            }
            b'\n' if at - line == 1 && line == 0 => {
                return Err(bad("an empty line comes before the request"));
            }
            b'\n' if at - line == 1 => return Ok(Some(at + 1)),
            b'\n' => line = at + 1,
            b'\r' if bytes.get(at + 1).is_some_and(|next| *next != b'\n') => {
                return Err(bad("a CR stands without its LF"));
            }
            b' ' | b'\t' if at == line => {
                return Err(bad("a line begins with a blank"));
            }
            b'\t' if line == 0 => return Err(bad("a tab stands in the request line")),
            b'\t' | b'\r' => {}
            0..=0x1f | 0x7f => return Err(bad("a control byte stands in the header")),
            _ => {}
        }
    }
    Ok(None)
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
            let value = Authorization(header.value.to_vec());
            if authorization.replace(value).is_some() {
                return Err(bad("there are two Proxy-Authorization headers"));
            }
        }
    }
    Ok(authorization)
}

#[cfg(test)]
mod tests;
