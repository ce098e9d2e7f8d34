//! Where the body of an HTTP/1 message ends: RFC 9112, sections 6 and 7.

use super::Parse;
use super::http1::{self, Follows, HEAD_MAX};
use super::notes::{Field, Framing, Note};

/// The longest line with a chunk's size, its extensions included.
const SIZE_LINE_MAX: usize = 4 * 1024;

/// A body under way.
#[derive(Debug)]
pub struct Body {
    framing: Framing,
    state: State,
    bytes: u64,
    chunks: u64,
}

#[derive(Debug)]
enum State {
    /// So many bytes of content, then it is over.
    Plain(u64),
    /// The line with the size of a chunk, so far.
    Size(Vec<u8>),
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The end of the line behind a chunk; so many bytes of it were there.
    Gap(u8),
    /// Fields behind the last chunk, so far.
    Trailers(Vec<u8>),
    Open,
}

/// What came of feeding a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Fed {
    /// All of it was taken, and it goes on.
    More,
    /// It is over, behind so many bytes; with these trailers.
    Over(usize, Vec<Field>),
    /// It breaks the rules, or is too large.
    Broken,
}

impl Body {
    /// What follows a head; `None` when nothing does, or nothing that is clear.
    pub fn new(follows: Follows) -> Option<Self> {
        let state = match follows {
            Follows::Length(length) => State::Plain(length),
            Follows::Chunks => State::Size(Vec::new()),
            Follows::UntilClose => State::Open,
            Follows::Nothing | Follows::Unclear => return None,
        };
        Some(Self {
            framing: follows.framing()?,
            state,
            bytes: 0,
            chunks: 0,
        })
    }

    /// What it came to.
    pub const fn note(&self, complete: bool) -> Note {
        Note::Body {
            framing: self.framing,
            bytes: self.bytes,
            chunks: self.chunks,
            complete,
        }
    }

    /// Bytes that are kept of it.
    pub const fn kept(&self) -> usize {
        match &self.state {
            State::Size(bytes) | State::Trailers(bytes) => bytes.capacity(),
            _ => 0,
        }
    }

    /// Whether the end of the stream is its proper end.
    pub const fn ends_with_the_stream(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Takes bytes as long as they are its own.
    pub fn feed(&mut self, bytes: &[u8]) -> Fed {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            match self.step(rest) {
                Step::Took(n) => used += n,
                Step::Over(n, trailers) => return Fed::Over(used + n, trailers),
                Step::Broken => return Fed::Broken,
            }
        }
        Fed::More
    }

    /// So many bytes are missing; `false`: what follows is not known any more.
    pub fn skip(&mut self, n: u64) -> bool {
        match &mut self.state {
            State::Open => {}
            State::Plain(left) | State::Chunk(left) if n < *left => *left -= n,
            _ => return false,
        }
        self.bytes += n;
        true
    }

    fn step(&mut self, rest: &[u8]) -> Step {
        match &mut self.state {
            State::Open => {
                self.bytes += rest.len() as u64;
                Step::Took(rest.len())
            }
            State::Plain(left) => {
                let n = (rest.len() as u64).min(*left);
                *left -= n;
                self.bytes += n;
                if *left == 0 {
                    Step::Over(n as usize, Vec::new())
                } else {
                    Step::Took(n as usize)
                }
            }
            State::Chunk(left) => {
                let n = (rest.len() as u64).min(*left);
                *left -= n;
                self.bytes += n;
                if *left == 0 {
                    self.state = State::Gap(0);
                }
                Step::Took(n as usize)
            }
            State::Gap(seen) => match (*seen, rest[0]) {
                (0, b'\r') => {
                    *seen = 1;
                    Step::Took(1)
                }
                (_, b'\n') => {
                    self.state = State::Size(Vec::new());
                    Step::Took(1)
                }
                _ => Step::Broken,
            },
            State::Size(_) => self.size(rest),
            State::Trailers(_) => self.trailers(rest),
        }
    }

    fn size(&mut self, rest: &[u8]) -> Step {
        let State::Size(line) = &mut self.state else {
            return Step::Broken;
        };
        let end = rest.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(rest.len(), |end| end + 1);
        line.extend_from_slice(&rest[..taken]);
        if line.len() > SIZE_LINE_MAX {
            return Step::Broken;
        }
        if end.is_none() {
            return Step::Took(taken);
        }
        // httparse takes no digit at all for a zero.
        if !line[0].is_ascii_hexdigit() {
            return Step::Broken;
        }
        match httparse::parse_chunk_size(line) {
            Ok(httparse::Status::Complete((length, 0))) if length == line.len() => {
                self.state = State::Trailers(Vec::new());
                Step::Took(taken)
            }
            Ok(httparse::Status::Complete((length, size))) if length == line.len() => {
                self.chunks += 1;
                self.state = State::Chunk(size);
                Step::Took(taken)
            }
            _ => Step::Broken,
        }
    }

    /// A line at a time, so that what follows the last one is left alone.
    fn trailers(&mut self, rest: &[u8]) -> Step {
        let State::Trailers(lines) = &mut self.state else {
            return Step::Broken;
        };
        let end = rest.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(rest.len(), |end| end + 1);
        lines.extend_from_slice(&rest[..taken]);
        if lines.len() > HEAD_MAX {
            return Step::Broken;
        }
        let empty = matches!(lines.as_slice(), b"\n" | b"\r\n");
        if end.is_none() || !(empty || lines.ends_with(b"\n\r\n") || lines.ends_with(b"\n\n")) {
            return Step::Took(taken);
        }
        match http1::trailers(lines) {
            Parse::Found(fields, _) => Step::Over(taken, fields),
            Parse::More | Parse::Invalid => Step::Broken,
        }
    }
}

enum Step {
    Took(usize),
    Over(usize, Vec<Field>),
    Broken,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &[u8] = b"5;x=\"y\"\r\nhello\r\n1\r\n!\r\n0\r\nSum: 6\r\n\r\nNEXT";

    #[test]
    fn chunks_end_where_they_end_however_they_are_cut() {
        for cut in 1..CHUNKED.len() {
            let mut body = Body::new(Follows::Chunks).unwrap();
            let mut used = 0;
            let mut over = None;
            for piece in CHUNKED.chunks(cut) {
                match body.feed(piece) {
                    Fed::More => used += piece.len(),
                    Fed::Over(n, trailers) => {
                        over = Some((used + n, trailers));
                        break;
                    }
                    Fed::Broken => panic!("cut at {cut}"),
                }
            }
            let (used, trailers) = over.unwrap();
            assert_eq!(&CHUNKED[used..], b"NEXT");
            assert_eq!(trailers[0].value, b"6");
            assert!(matches!(
                body.note(true),
                Note::Body {
                    bytes: 6,
                    chunks: 2,
                    ..
                }
            ));
        }
    }

    #[test]
    fn nonsense_between_chunks_is_found() {
        for text in [
            "x\r\n",
            "5\r\nhelloX",
            "-1\r\n",
            "\r\n",
            "fffffffffffffffff\r\n",
        ] {
            let mut body = Body::new(Follows::Chunks).unwrap();
            assert_eq!(body.feed(text.as_bytes()), Fed::Broken, "{text}");
        }
    }

    #[test]
    fn missing_bytes_within_a_body_are_counted_and_no_others() {
        let mut body = Body::new(Follows::Length(10)).unwrap();
        assert!(body.skip(9));
        assert_eq!(body.feed(b"x"), Fed::Over(1, Vec::new()));
        let mut body = Body::new(Follows::Length(10)).unwrap();
        assert!(!body.skip(10));
    }
}
