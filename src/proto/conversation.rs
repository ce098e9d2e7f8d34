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
use super::tell::{Budget, Tell, Teller};
use super::tls::{self, Records};
use crate::relay::Direction;

/// Requests that may wait for their responses; more are forgotten.
const PIPELINE_MAX: usize = 1024;

/// Bytes of a request's first line that a response repeats.
pub const LINE_SHOWN: usize = 120;

/// Bytes of memory that a session takes at the most: of each direction a head of HTTP/1 and
/// the hello of TLS, or of HTTP/2 a block, a frame and a table, each with the room that a
/// vector has to grow; the requests that wait; and the streams.
pub const KEPT_MAX: usize = 2 * (2 * HEAD_MAX + 2 * http2::BLOCK_MAX)
    + 2 * 3 * http2::TABLE_MAX
    + PIPELINE_MAX * 256
    + http2::STREAMS_MAX * 256;

/// What a response of HTTP/1 begins with.
const RESPONSE: &[u8] = b"HTTP/";

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Conversation {
    halves: [Mode; 2],
    asked: VecDeque<Asked>,
    /// Requests were missed: which one a response answers that comes behind those to the
    /// known ones is not known.
    unpaired: bool,
    http2: Option<Box<Http2>>,
    budget: Budget,
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

    /// Takes bytes of one direction and tells what they are, as soon as that is known.
    pub fn feed(&mut self, direction: Direction, bytes: &[u8], notes: &mut dyn Tell) {
        let mut budget = self.budget;
        budget.feed(bytes.len());
        self.steps(direction, bytes, &mut Teller::new(&mut budget, notes));
        self.budget = budget;
    }

    fn steps(&mut self, direction: Direction, bytes: &[u8], notes: &mut Teller<'_>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = self.step(direction, rest, notes);
            rest = &rest[used..];
        }
    }

    /// Follows neither direction any further, and keeps nothing of them.
    pub fn give_up(&mut self, stop: Stop, notes: &mut dyn Tell) {
        let mut budget = self.budget;
        let mut teller = Teller::new(&mut budget, notes);
        for direction in Direction::BOTH {
            if !matches!(self.halves[direction.index()], Mode::Stopped) {
                self.stop(direction, stop, &mut teller);
            }
        }
        self.budget = budget;
        self.asked = VecDeque::new();
        self.http2 = None;
    }

    /// So many bytes are missing before what comes next.
    pub fn skip(&mut self, direction: Direction, n: u64, notes: &mut dyn Tell) {
        let index = direction.index();
        let follows = match &mut self.halves[index] {
            Mode::Body(body) => body.skip(n),
            Mode::Tls(records) => records.skip(n),
            Mode::Http2 => self.http2.as_mut().is_some_and(|it| it.skip(direction, n)),
            Mode::Raw | Mode::Stopped => true,
            Mode::Sniff(_) | Mode::Resniff(_) | Mode::Head(..) | Mode::Pending => false,
        };
        if !follows {
            let mut budget = self.budget;
            self.stop(direction, Stop::Gap, &mut Teller::new(&mut budget, notes));
            self.budget = budget;
        }
    }

    /// The direction has ended.
    pub fn end(&mut self, direction: Direction, notes: &mut dyn Tell) {
        let index = direction.index();
        match std::mem::replace(&mut self.halves[index], Mode::Stopped) {
            Mode::Body(body) => notes.tell(body.note(body.ends_with_the_stream())),
            Mode::Sniff(bytes) | Mode::Resniff(bytes) | Mode::Head(bytes, _)
                if !bytes.is_empty() =>
            {
                notes.tell(Note::Raw {
                    bytes: bytes.len() as u64,
                });
            }
            _ => {}
        }
    }

    /// Bytes of memory that this session takes at the most.
    pub fn kept(&self) -> usize {
        let kept = |mode: &Mode| match mode {
            Mode::Sniff(bytes) | Mode::Resniff(bytes) | Mode::Head(bytes, _) => bytes.capacity(),
            Mode::Body(body) => body.kept(),
            Mode::Tls(records) => records.kept(),
            _ => 0,
        };
        let asked = self.asked.iter();
        let asked = asked.map(|it| size_of::<Asked>() + it.line.len() + it.method.len());
        let http2 = self.http2.as_ref().map_or(0, |http2| http2.kept());
        size_of::<Self>()
            + self.halves.iter().map(kept).sum::<usize>()
            + asked.sum::<usize>()
            + http2
    }

    /// Takes some bytes, at least one.
    fn step(&mut self, direction: Direction, bytes: &[u8], notes: &mut Teller<'_>) -> usize {
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
                notes.tell(body.note(over.is_some()));
                match over {
                    Some(trailers) => {
                        if !trailers.is_empty() {
                            notes.tell(Note::Trailers(trailers));
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
            Mode::Raw | Mode::Pending => notes.tell(Note::Raw {
                bytes: bytes.len() as u64,
            }),
            Mode::Stopped => notes.tell(Note::Unfollowed {
                bytes: bytes.len() as u64,
            }),
        }
        bytes.len()
    }

    /// Tells by its first bytes what a direction speaks, and takes them again as that.
    fn sniff(&mut self, direction: Direction, notes: &mut Teller<'_>) {
        let index = direction.index();
        let (first, again) = match &self.halves[index] {
            Mode::Sniff(first) => (first, false),
            Mode::Resniff(first) => (first, true),
            _ => return,
        };
        let Some(mode) = Self::recognise(direction, first, again) else {
            return;
        };
        let first = first.clone();
        if matches!(mode, Mode::Http2) {
            self.http2.get_or_insert_default();
        }
        self.halves[index] = mode;
        self.steps(direction, &first, notes);
    }

    /// `None`: more bytes are needed.
    fn recognise(direction: Direction, first: &[u8], again: bool) -> Option<Mode> {
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
        // A server of HTTP/2 begins with SETTINGS, whatever its client has begun with: one
        // that speaks HTTP/1 answers in that.
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

    fn head(&mut self, direction: Direction, bytes: &[u8], notes: &mut Teller<'_>) -> usize {
        let index = direction.index();
        let Mode::Head(head, worth) = &mut self.halves[index] else {
            return bytes.len();
        };
        // Lines before a head that say nothing are not kept, nor looked at again.
        let blank = bytes.iter().take_while(|byte| b"\r\n".contains(byte));
        match blank.count() {
            blank if blank > 0 && head.is_empty() => return blank,
            _ => {}
        }
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
    fn no_head(&mut self, direction: Direction, bytes: &[u8], notes: &mut Teller<'_>) {
        if let Some(fault) = http1::fault(bytes, direction == Direction::Up) {
            notes.tell(Note::BadHead {
                line: fault.line,
                fields: fault.fields,
                bad: fault.bad,
                number: fault.number,
                rule: fault.rule,
            });
            return self.stop(direction, Stop::Malformed, notes);
        }
        notes.tell(Note::Raw {
            bytes: bytes.len() as u64,
        });
        self.halves[direction.index()] = Mode::Raw;
        if direction == Direction::Up {
            self.miss_requests();
        }
    }

    fn request(&mut self, request: Request, notes: &mut Teller<'_>) {
        let follows = http1::after_request(&request);
        self.halves[0] = match Body::new(follows) {
            _ if request.method == "CONNECT" => Mode::Pending,
            Some(body) => Mode::Body(body),
            None => Mode::head(),
        };
        if self.asked.len() == PIPELINE_MAX {
            self.miss_requests();
        }
        if !self.unpaired {
            let line = request.line.iter().copied().take(LINE_SHOWN).collect();
            self.asked.push_back(Asked {
                // Long enough for those that matter; the others may be of any length.
                method: request.method.chars().take(16).collect(),
                line,
            });
        }
        notes.tell(Note::Request {
            line: request.line,
            fields: request.fields,
        });
        if follows == Follows::Unclear {
            self.stop(Direction::Up, Stop::Malformed, notes);
        }
    }

    /// From here on requests are missed. Those before them are answered first: what is
    /// known of them still tells which answer has a body.
    const fn miss_requests(&mut self) {
        self.unpaired = true;
    }

    fn response(&mut self, response: Response, notes: &mut Teller<'_>) {
        let interim = matches!(response.status, 100 | 102..=199);
        let asked = if interim {
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
        notes.tell(Note::Response {
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
    fn switch(&mut self, h2c: bool, notes: &mut Teller<'_>) {
        notes.tell(Note::Switched);
        self.halves = [Mode::Resniff(Vec::new()), Mode::Resniff(Vec::new())];
        if h2c {
            self.http2.get_or_insert_default();
        }
    }

    fn stop(&mut self, direction: Direction, stop: Stop, notes: &mut Teller<'_>) {
        let index = direction.index();
        if let Mode::Body(body) = &self.halves[index] {
            notes.tell(body.note(false));
        }
        self.halves[index] = Mode::Stopped;
        notes.tell(Note::Stopped(stop));
        if direction == Direction::Up {
            self.miss_requests();
        }
    }
}

#[cfg(test)]
mod tests;
