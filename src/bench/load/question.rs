//! A question in a datagram, and its answer in another: the same bytes.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;

use super::flow::{FlowContext, Progress, Step, attempt};
use crate::bench::datagram::{HEADER, Header, Kind};
use crate::bench::pattern;

/// One port that asks.
pub(super) struct QuestionFlow {
    socket: UdpSocket,
    flow: u32,
    number: u64,
    question: Vec<u8>,
    asking: Option<Asking>,
}

struct Asking {
    due: Instant,
    sent: Option<Instant>,
}

impl QuestionFlow {
    pub(super) fn new(socket: UdpSocket, size: usize, flow: u32) -> Self {
        let header = Header {
            kind: Kind::Question,
            flow,
            number: 0,
            position: u64::from(flow),
            length: size as u16,
        };
        Self {
            socket,
            flow,
            number: 0,
            question: header.datagram(),
            asking: None,
        }
    }

    /// When the question that is under way was due.
    pub(super) fn outstanding(&self) -> Option<Instant> {
        self.asking.as_ref().map(|asking| asking.due)
    }

    /// Asks what is, or was, due at `due`.
    pub(super) fn begin(&mut self, due: Instant) {
        self.number += 1;
        self.asking = Some(Asking { due, sent: None });
        let header = Header {
            kind: Kind::Question,
            flow: self.flow,
            number: self.number,
            position: u64::from(self.flow) + self.number,
            length: self.question.len() as u16,
        };
        let (front, rest) = self.question.split_at_mut(HEADER);
        if let Some(front) = front.first_chunk_mut() {
            header.write(front);
        }
        rest.copy_from_slice(pattern::slice(header.position, rest.len()));
    }

    /// Forgets a question that was asked too long ago.
    pub(super) fn give_up(&mut self, now: Instant, timeout: Duration) -> bool {
        let asked = self.asking.as_ref().and_then(|it| it.sent);
        let late = asked.is_some_and(|it| now.saturating_duration_since(it) >= timeout);
        if late {
            self.asking = None;
        }
        late
    }

    /// Sends what is to be asked, and takes what has come.
    pub(super) fn pump(&mut self, context: &mut FlowContext<'_>) -> io::Result<Progress> {
        if let Some(asking) = &mut self.asking
            && asking.sent.is_none()
        {
            match attempt(|| self.socket.send(&self.question))? {
                Step::Moved(_) => {}
                // On its way out it is lost, as it may be anywhere.
                Step::Blocked | Step::Ended => {}
            }
            asking.sent = Some(Instant::now());
            context.counters.asked.fetch_add(1, Relaxed);
            context
                .counters
                .sent
                .fetch_add(self.question.len() as u64, Relaxed);
            // The answer cannot be here yet: a read now would only fail.
            return Ok(Progress::Wait);
        }
        loop {
            let len = match attempt(|| self.socket.recv(context.scratch))? {
                Step::Moved(len) => len,
                Step::Blocked | Step::Ended => return Ok(Progress::Wait),
            };
            let answer = &context.scratch[..len];
            match Header::read(answer) {
                Some(header) if header.flow != self.flow => {
                    // Somebody else's.
                    context.strayed += 1;
                    continue;
                }
                // Of a question that was given up.
                Some(header) if header.number < self.number => continue,
                _ => {}
            }
            let Some(asking) = self.asking.as_ref().filter(|_| answer == self.question) else {
                return Err(io::Error::other("an answer differs from its question"));
            };
            let due = asking.due;
            self.asking = None;
            let bytes = len as u64;
            context.counters.received.fetch_add(bytes, Relaxed);
            context.counters.checked.fetch_add(bytes, Relaxed);
            context.counters.exchanges.fetch_add(1, Relaxed);
            context.answered(due);
            return Ok(Progress::Answered);
        }
    }
}
