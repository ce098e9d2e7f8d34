//! Heads of HTTP/1 messages, and how long the bodies behind them are: RFC 9112.

use super::Parse;
use super::notes::{Field, Framing};

/// Bytes of a head that are kept; a longer one is not followed.
pub const HEAD_MAX: usize = 64 * 1024;

/// Fields of a head or of trailers.
const FIELDS_MAX: usize = 256;

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST` …
    pub method: String,
    /// The first line, without its end.
    pub line: Vec<u8>,
    /// The fields.
    pub fields: Vec<Field>,
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Three digits.
    pub status: u16,
    /// The first line, without its end.
    pub line: Vec<u8>,
    /// The fields.
    pub fields: Vec<Field>,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// The next head.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks,
    /// Everything up to the end.
    UntilClose,
    /// Contradictory or unreadable lengths.
    Unclear,
}

impl Follows {
    /// How the end of the body is found, if there is one.
    pub const fn framing(self) -> Option<Framing> {
        match self {
            Self::Length(_) => Some(Framing::Length),
            Self::Chunks => Some(Framing::Chunked),
            Self::UntilClose => Some(Framing::UntilClose),
            Self::Nothing | Self::Unclear => None,
        }
    }
}

/// The head of a request at the beginning of `bytes`.
pub fn request(bytes: &[u8]) -> Parse<Request> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => {
            let request = Request {
                method: head.method.unwrap_or_default().to_owned(),
                line: first_line(bytes),
                fields: owned(head.headers),
            };
            Parse::Found(request, length)
        }
        Ok(httparse::Status::Partial) => Parse::More,
        Err(_) => Parse::Invalid,
    }
}

/// The head of a response at the beginning of `bytes`.
pub fn response(bytes: &[u8]) -> Parse<Response> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => {
            let response = Response {
                status: head.code.unwrap_or_default(),
                line: first_line(bytes),
                fields: owned(head.headers),
            };
            Parse::Found(response, length)
        }
        Ok(httparse::Status::Partial) => Parse::More,
        Err(_) => Parse::Invalid,
    }
}

/// Fields up to an empty line: trailers.
pub fn trailers(bytes: &[u8]) -> Parse<Vec<Field>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    match httparse::parse_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) => Parse::Found(owned(fields), length),
        Ok(httparse::Status::Partial) => Parse::More,
        Err(_) => Parse::Invalid,
    }
}

/// What is wrong with a head: bytes that begin as one and are none. `None`: they do not
/// even begin as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The first line.
    pub line: Vec<u8>,
    /// The fields up to the line that breaks the rule.
    pub fields: Vec<Field>,
    /// That line, cut to a readable length.
    pub bad: Vec<u8>,
    /// Which one it is, from 1.
    pub number: usize,
    /// The rule.
    pub rule: &'static str,
}

/// Bytes of a bad line that are shown.
pub const BAD_SHOWN: usize = 200;

/// The first line of a head that breaks a rule, and which rule that is; `None` where not
/// even the first line is one of HTTP/1.
pub fn fault(bytes: &[u8], request: bool) -> Option<Fault> {
    let mut lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let blank = |line: &[u8]| matches!(line, b"" | b"\r");
    let (_, line) = lines.find(|(_, line)| !blank(line))?;
    let alone = [line.strip_suffix(b"\r").unwrap_or(line), b"\r\n\r\n"].concat();
    let whole = if request {
        matches!(self::request(&alone), Parse::Found(..))
    } else {
        matches!(response(&alone), Parse::Found(..))
    };
    if !whole {
        return None;
    }
    let mut fields = Vec::new();
    for (number, line) in lines {
        let bare = line.strip_suffix(b"\r").unwrap_or(line);
        if bare.is_empty() {
            break;
        }
        let alone = [line, b"\n\r\n"].concat();
        let mut found = [httparse::EMPTY_HEADER; 1];
        let rule = match httparse::parse_headers(&alone, &mut found) {
            Ok(httparse::Status::Complete((_, found))) if fields.len() < FIELDS_MAX => {
                fields.extend(owned(found));
                continue;
            }
            Ok(_) => "there are more than 256 fields",
            Err(_) if matches!(bare[0], b' ' | b'\t') => "a line begins with a blank",
            Err(httparse::Error::HeaderName) if !bare.contains(&b':') => "there is no colon",
            Err(httparse::Error::HeaderName) => "the name of a field has a byte that no name has",
            Err(httparse::Error::HeaderValue) => "the value has a control byte",
            Err(_) => "the line does not end as a line does",
        };
        return Some(Fault {
            line: first_line(bytes),
            fields,
            bad: bare.iter().copied().take(BAD_SHOWN).collect(),
            number: number + 1,
            rule,
        });
    }
    None
}

/// Empty lines before a head are not part of it.
fn first_line(bytes: &[u8]) -> Vec<u8> {
    let lines = bytes.split(|byte| *byte == b'\n');
    let mut lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines
        .find(|line| !line.is_empty())
        .unwrap_or_default()
        .to_vec()
}

fn owned(fields: &[httparse::Header<'_>]) -> Vec<Field> {
    let field = |field: &httparse::Header<'_>| Field {
        name: field.name.as_bytes().to_vec(),
        value: field.value.to_vec(),
    };
    fields.iter().map(field).collect()
}

/// The values of every field of this name.
pub fn values<'f>(fields: &'f [Field], name: &str) -> impl Iterator<Item = &'f [u8]> {
    let named = fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()));
    named.map(|field| field.value.as_slice())
}

/// Whether a list such as `Connection: keep-alive, Upgrade` has this word.
pub fn has_word(fields: &[Field], name: &str, word: &str) -> bool {
    values(fields, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|it| it.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

/// What follows the head of a request.
pub fn after_request(request: &Request) -> Follows {
    match (chunked(&request.fields), length(&request.fields)) {
        // A request cannot end by closing: its answer would have nowhere to go.
        (Some(false), _) | (_, Err(())) => Follows::Unclear,
        (Some(true), _) => Follows::Chunks,
        (None, Ok(Some(0) | None)) => Follows::Nothing,
        (None, Ok(Some(length))) => Follows::Length(length),
    }
}

/// What follows the head of a response to a request of this method; `None`: that
/// was not seen, and is taken to be no HEAD.
pub fn after_response(method: Option<&str>, response: &Response) -> Follows {
    let bodiless = matches!(response.status, 100..=199 | 204 | 304);
    if bodiless || method == Some("HEAD") {
        return Follows::Nothing;
    }
    match (chunked(&response.fields), length(&response.fields)) {
        (Some(true), _) => Follows::Chunks,
        (Some(false), _) => Follows::UntilClose,
        (None, Err(())) => Follows::Unclear,
        (None, Ok(Some(0))) => Follows::Nothing,
        (None, Ok(Some(length))) => Follows::Length(length),
        (None, Ok(None)) => Follows::UntilClose,
    }
}

/// Whether the last transfer coding is `chunked`; `None`: there is no coding.
fn chunked(fields: &[Field]) -> Option<bool> {
    let codings = values(fields, "transfer-encoding")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty());
    codings
        .last()
        .map(|last| last.eq_ignore_ascii_case(b"chunked"))
}

/// The length that all of `Content-Length` agree on.
fn length(fields: &[Field]) -> Result<Option<u64>, ()> {
    let mut found = None;
    let values = values(fields, "content-length").flat_map(|v| v.split(|byte| *byte == b','));
    for value in values {
        let value = value.trim_ascii();
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = digits
            .then(|| std::str::from_utf8(value).ok()?.parse::<u64>().ok())
            .flatten()
            .ok_or(())?;
        if found.is_some_and(|other| other != number) {
            return Err(());
        }
        found = Some(number);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Response {
        match response(text.as_bytes()) {
            Parse::Found(response, length) => {
                assert_eq!(length, text.len());
                response
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_head_is_found_with_its_length() {
        let text = b"\r\nPOST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        let Parse::Found(found, length) = request(text) else {
            panic!("not found");
        };
        assert_eq!((found.method.as_str(), length), ("POST", text.len() - 3));
        assert_eq!(found.line, b"POST /a?b HTTP/1.1");
        assert_eq!(after_request(&found), Follows::Length(3));
        assert_eq!(request(&text[..20]), Parse::More);
        assert_eq!(request(b"\x16\x03\x01"), Parse::Invalid);
    }

    #[test]
    fn the_line_that_breaks_a_rule_is_found_with_what_comes_before_it() {
        let head = "GET /a HTTP/1.1\r\nHost: x\r\n";
        for (bad, rule) in [
            (
                "Bad Name: y",
                "the name of a field has a byte that no name has",
            ),
            (
                "Cookie : a=b",
                "the name of a field has a byte that no name has",
            ),
            ("nonsense", "there is no colon"),
            (" folded", "a line begins with a blank"),
            ("X: a\u{1}b", "the value has a control byte"),
        ] {
            let text = format!("{head}{bad}\r\nY: z\r\n\r\n");
            assert_eq!(request(text.as_bytes()), Parse::Invalid, "{bad}");
            let fault = fault(text.as_bytes(), true).expect(bad);
            assert_eq!(fault.line, b"GET /a HTTP/1.1");
            assert_eq!(fault.fields.len(), 1);
            assert_eq!((fault.bad.as_slice(), fault.rule), (bad.as_bytes(), rule));
            assert_eq!(fault.number, 3);
        }
        assert_eq!(fault(b"\xff\xfe\r\nHost: x\r\n\r\n", true), None);
        assert_eq!(fault(b"SSH-2.0-x\r\n\r\n", true), None);
    }

    #[test]
    fn what_follows_a_response() {
        let ok = "HTTP/1.1 200 OK\r\n";
        for (method, text, follows) in [
            ("GET", "Content-Length: 5\r\n\r\n", Follows::Length(5)),
            ("HEAD", "Content-Length: 5\r\n\r\n", Follows::Nothing),
            ("GET", "\r\n", Follows::UntilClose),
            (
                "GET",
                "Transfer-Encoding: gzip, Chunked\r\nContent-Length: 5\r\n\r\n",
                Follows::Chunks,
            ),
            (
                "GET",
                "Transfer-Encoding: gzip\r\n\r\n",
                Follows::UntilClose,
            ),
            (
                "GET",
                "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
                Follows::Unclear,
            ),
            ("GET", "Content-Length: 5, 5\r\n\r\n", Follows::Length(5)),
            ("GET", "Content-Length: +5\r\n\r\n", Follows::Unclear),
        ] {
            let response = answer(&format!("{ok}{text}"));
            assert_eq!(after_response(Some(method), &response), follows, "{text}");
        }
        for status in ["100 Continue", "204 No Content", "304 Not Modified"] {
            let response = answer(&format!("HTTP/1.1 {status}\r\nContent-Length: 9\r\n\r\n"));
            assert_eq!(after_response(Some("GET"), &response), Follows::Nothing);
        }
    }
}
