//! A session, both directions: what it speaks, and what is said.
//!
//! Each direction is told apart by its first bytes; a response is understood by the
//! request it answers. What is neither HTTP nor TLS is counted.
//!
//! ```text
//!  Sniff ──► Http1 ──► Raw           (CONNECT, Upgrade)
//!    │         └─────► Http2         (Upgrade: h2c)
//!    ├─────► Http2, Tls
//!    └─────► Raw
//!  any ──► Stopped                    (a gap, garbage, too large)
//! ```

use std::collections::VecDeque;

use super::Parse;
use super::body::{Body, Fed};
use super::http1::{self, Follows, HEAD_MAX, Request, Response};
use super::http2::{self, Http2, PREFACE};
use super::notes::{Note, Stop};
use super::tls::{self, Records};
use crate::relay::Direction;

/// Requests that may wait for their responses; more are forgotten.
const PIPELINE_MAX: usize = 1024;

/// Bytes of a request's first line that a response repeats.
const LINE_SHOWN: usize = 200;

/// What a response of HTTP/1 begins with.
const RESPONSE: &[u8] = b"HTTP/";

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Conversation {
    halves: [Mode; 2],
    asked: VecDeque<Asked>,
    /// Requests were missed: which one a response answers is not known.
    unpaired: bool,
    http2: Option<Box<Http2>>,
}

/// A request without its response.
#[derive(Debug)]
struct Asked {
    method: String,
    line: Vec<u8>,
}

#[derive(Debug)]
enum Mode {
    /// The first bytes, too few to tell.
    Sniff(Vec<u8>),
    /// As before, behind a protocol that was switched away from: no HTTP/1.
    Resniff(Vec<u8>),
    /// A head, so far; and from which length on it is worth parsing again.
    Head(Vec<u8>, usize),
    Body(Body),
    /// Behind a CONNECT whose answer is not there yet.
    Pending,
    Http2,
    Tls(Box<Records>),
    Raw,
    Stopped,
}

impl Default for Mode {
    fn default() -> Self {
        Self::Sniff(Vec::new())
    }
}

impl Mode {
    const fn head() -> Self {
        Self::Head(Vec::new(), 0)
    }
}

impl Conversation {
    /// A session that has said nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes of one direction and appends what they are.
    pub fn feed(&mut self, direction: Direction, bytes: &[u8], notes: &mut Vec<Note>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = self.step(direction, rest, notes);
            rest = &rest[used..];
        }
    }

    /// So many bytes are missing before what comes next.
    pub fn skip(&mut self, direction: Direction, n: u64, notes: &mut Vec<Note>) {
        let index = direction.index();
        let follows = match &mut self.halves[index] {
            Mode::Body(body) => body.skip(n),
            Mode::Tls(records) => records.skip(n),
            Mode::Http2 => self.http2.as_mut().is_some_and(|it| it.skip(direction, n)),
            Mode::Raw | Mode::Stopped => true,
            Mode::Sniff(_) | Mode::Resniff(_) | Mode::Head(..) | Mode::Pending => false,
        };
        if !follows {
            self.stop(direction, Stop::Gap, notes);
        }
    }

    /// The direction has ended.
    pub fn end(&mut self, direction: Direction, notes: &mut Vec<Note>) {
        let index = direction.index();
        match std::mem::replace(&mut self.halves[index], Mode::Stopped) {
            Mode::Body(body) => notes.push(body.note(body.ends_with_the_stream())),
            Mode::Sniff(bytes) | Mode::Resniff(bytes) | Mode::Head(bytes, _)
                if !bytes.is_empty() =>
            {
                notes.push(Note::Raw {
                    bytes: bytes.len() as u64,
                });
            }
            _ => {}
        }
    }

    /// Bytes of this session that are kept.
    pub fn kept(&self) -> usize {
        let kept = |mode: &Mode| match mode {
            Mode::Sniff(bytes) | Mode::Resniff(bytes) | Mode::Head(bytes, _) => bytes.len(),
            _ => 0,
        };
        let asked = self.asked.iter().map(|it| it.line.len() + it.method.len());
        let http2 = self.http2.as_ref().map_or(0, |http2| http2.kept());
        self.halves.iter().map(kept).sum::<usize>() + asked.sum::<usize>() + http2
    }

    /// Takes some bytes, at least one.
    fn step(&mut self, direction: Direction, bytes: &[u8], notes: &mut Vec<Note>) -> usize {
        let index = direction.index();
        match &mut self.halves[index] {
            Mode::Sniff(first) | Mode::Resniff(first) => {
                // As many as the longest beginning that is looked for.
                let n = bytes.len().min(PREFACE.len() - first.len());
                first.extend_from_slice(&bytes[..n]);
                self.sniff(direction, notes);
                return n;
            }
            Mode::Head(..) => return self.head(direction, bytes, notes),
            Mode::Body(body) => {
                let (used, over) = match body.feed(bytes) {
                    Fed::More => return bytes.len(),
                    Fed::Over(used, trailers) => (used, Some(trailers)),
                    Fed::Broken => (bytes.len(), None),
                };
                notes.push(body.note(over.is_some()));
                match over {
                    Some(trailers) => {
                        if !trailers.is_empty() {
                            notes.push(Note::Trailers(trailers));
                        }
                        self.halves[index] = Mode::head();
                    }
                    None => self.stop(direction, Stop::Malformed, notes),
                }
                return used;
            }
            Mode::Http2 => {
                let stop = self
                    .http2
                    .as_mut()
                    .and_then(|http2| http2.feed(direction, bytes, notes));
                if let Some(stop) = stop {
                    self.stop(direction, stop, notes);
                }
            }
            Mode::Tls(records) => {
                if let Some(stop) = records.feed(bytes, notes) {
                    self.stop(direction, stop, notes);
                }
            }
            Mode::Raw | Mode::Pending => notes.push(Note::Raw {
                bytes: bytes.len() as u64,
            }),
            Mode::Stopped => notes.push(Note::Unfollowed {
                bytes: bytes.len() as u64,
            }),
        }
        bytes.len()
    }

    /// Tells by its first bytes what a direction speaks, and takes them again as that.
    fn sniff(&mut self, direction: Direction, notes: &mut Vec<Note>) {
        let index = direction.index();
        let (first, again) = match &self.halves[index] {
            Mode::Sniff(first) => (first, false),
            Mode::Resniff(first) => (first, true),
            _ => return,
        };
        let Some(mode) = self.recognise(direction, first, again) else {
            return;
        };
        let first = first.clone();
        if matches!(mode, Mode::Http2) {
            self.http2.get_or_insert_default();
        }
        self.halves[index] = mode;
        self.feed(direction, &first, notes);
    }

    /// `None`: more bytes are needed.
    fn recognise(&self, direction: Direction, first: &[u8], again: bool) -> Option<Mode> {
        if tls::begins(first)? {
            let client = direction == Direction::Up;
            return Some(Mode::Tls(Box::new(Records::new(client))));
        }
        let otherwise = if again { Mode::Raw } else { Mode::head() };
        if direction == Direction::Up {
            let common = first
                .iter()
                .zip(PREFACE)
                .take_while(|(a, b)| a == b)
                .count();
            return match common {
                common if common == PREFACE.len() => Some(Mode::Http2),
                common if common == first.len() => None,
                _ => Some(otherwise),
            };
        }
        if self.http2.is_some() {
            return Some(Mode::Http2);
        }
        let common = first
            .iter()
            .zip(RESPONSE)
            .take_while(|(a, b)| a == b)
            .count();
        if common == RESPONSE.len() {
            return Some(otherwise);
        }
        if common == first.len() {
            return None;
        }
        if http2::begins_with_settings(first)? {
            Some(Mode::Http2)
        } else {
            Some(Mode::Raw)
        }
    }

    fn head(&mut self, direction: Direction, bytes: &[u8], notes: &mut Vec<Note>) -> usize {
        let index = direction.index();
        let Mode::Head(head, worth) = &mut self.halves[index] else {
            return bytes.len();
        };
        let before = head.len();
        let n = bytes.len().min(HEAD_MAX + 1 - before);
        head.extend_from_slice(&bytes[..n]);
        // A head that drips in is not parsed at each byte.
        let fresh = &head[before.saturating_sub(3)..];
        let ended =
            fresh.windows(2).any(|it| it == b"\n\n") || fresh.windows(3).any(|it| it == b"\n\r\n");
        if !ended && head.len() < *worth {
            return n;
        }
        *worth = (head.len() * 2).min(HEAD_MAX + 1);
        let head = std::mem::take(head);
        let found = match direction {
            Direction::Up => match http1::request(&head) {
                Parse::Found(request, length) => {
                    self.request(request, notes);
                    Parse::Found((), length)
                }
                Parse::More => Parse::More,
                Parse::Invalid => Parse::Invalid,
            },
            Direction::Down => match http1::response(&head) {
                Parse::Found(response, length) => {
                    self.response(response, notes);
                    Parse::Found((), length)
                }
                Parse::More => Parse::More,
                Parse::Invalid => Parse::Invalid,
            },
        };
        match found {
            // What was taken too much is not taken: it follows the head.
            Parse::Found((), length) => {
                let others = head.len() - length;
                debug_assert!(others < n, "a head was there before and not seen");
                return n.saturating_sub(others).max(1);
            }
            Parse::More if head.len() > HEAD_MAX => self.stop(direction, Stop::TooLarge, notes),
            Parse::More => {
                if let Mode::Head(kept, _) = &mut self.halves[index] {
                    *kept = head;
                }
            }
            Parse::Invalid => self.no_head(direction, &head, notes),
        }
        n
    }

    /// Garbage where a head should be: not HTTP, or not any more.
    fn no_head(&mut self, direction: Direction, bytes: &[u8], notes: &mut Vec<Note>) {
        notes.push(Note::Raw {
            bytes: bytes.len() as u64,
        });
        self.halves[direction.index()] = Mode::Raw;
        if direction == Direction::Up {
            self.forget_requests();
        }
    }

    fn request(&mut self, request: Request, notes: &mut Vec<Note>) {
        let follows = http1::after_request(&request);
        self.halves[0] = match Body::new(follows) {
            _ if request.method == "CONNECT" => Mode::Pending,
            Some(body) => Mode::Body(body),
            None => Mode::head(),
        };
        if self.asked.len() == PIPELINE_MAX {
            self.forget_requests();
        }
        let line = request.line.iter().copied().take(LINE_SHOWN).collect();
        self.asked.push_back(Asked {
            // Long enough for those that matter; the others may be of any length.
            method: request.method.chars().take(16).collect(),
            line,
        });
        notes.push(Note::Request {
            line: request.line,
            fields: request.fields,
        });
        if follows == Follows::Unclear {
            self.stop(Direction::Up, Stop::Malformed, notes);
        }
    }

    fn forget_requests(&mut self) {
        self.asked.clear();
        self.unpaired = true;
    }

    fn response(&mut self, response: Response, notes: &mut Vec<Note>) {
        let interim = matches!(response.status, 100 | 102..=199);
        let asked = if self.unpaired {
            None
        } else if interim {
            self.asked
                .front()
                .map(|it| (it.method.clone(), it.line.clone()))
        } else {
            self.asked.pop_front().map(|it| (it.method, it.line))
        };
        let (method, line) = asked.unzip();
        let follows = http1::after_response(method.as_deref(), &response);
        let connect = method.as_deref() == Some("CONNECT");
        let success = (200..300).contains(&response.status);
        let h2c = http1::has_word(&response.fields, "upgrade", "h2c");
        let status = response.status;
        notes.push(Note::Response {
            line: response.line,
            fields: response.fields,
            answers: line,
        });
        self.halves[1] = match Body::new(follows) {
            Some(body) => Mode::Body(body),
            None => Mode::head(),
        };
        if status == 101 || connect && success {
            self.switch(h2c && status == 101, notes);
        } else if connect && !interim {
            self.halves[0] = Mode::head();
        } else if follows == Follows::Unclear {
            self.stop(Direction::Down, Stop::Malformed, notes);
        }
    }

    /// From here on both directions speak something else.
    fn switch(&mut self, h2c: bool, notes: &mut Vec<Note>) {
        notes.push(Note::Switched);
        self.halves = [Mode::Resniff(Vec::new()), Mode::Resniff(Vec::new())];
        if h2c {
            self.http2.get_or_insert_default();
            self.halves[1] = Mode::Http2;
        }
    }

    fn stop(&mut self, direction: Direction, stop: Stop, notes: &mut Vec<Note>) {
        let index = direction.index();
        if let Mode::Body(body) = &self.halves[index] {
            notes.push(body.note(false));
        }
        self.halves[index] = Mode::Stopped;
        notes.push(Note::Stopped(stop));
        if direction == Direction::Up {
            self.forget_requests();
        }
    }
}

#[cfg(test)]
mod tests;
