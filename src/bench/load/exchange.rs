//! A flow that asks and is answered, on one connection or on a fresh one each time.
//!
//! ```text
//! Idle ─begin─► Asking (writes the request, reads the response) ─whole─► Idle
//! ```
//! Every response is compared with its request.

use std::io::{self, Read, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use mio::net::TcpStream;

use super::flow::{FlowContext, Progress, Step, attempt};
use super::shape::{Answer, Exchange};

use crate::bench::pattern;

const COMMAND: &[u8] = b"ECHO\n";

/// Where bulk passes beside it.
const COMMAND_APART: &[u8] = b"ECHO prompt\n";

/// Where the response is written in two pieces.
const COMMAND_HALVES: &[u8] = b"ECHO halves\n";

/// One flow of exchanges.
pub(super) struct ExchangeFlow {
    pub(super) stream: TcpStream,
    size: usize,
    /// Where in the pattern the next request begins.
    position: u64,
    preface_left: &'static [u8],
    command_left: &'static [u8],
    asking: Option<Asking>,
}

struct Asking {
    due: Instant,
    sent: usize,
    received: usize,
}

impl ExchangeFlow {
    /// `apart`: the origin answers on a thread that has no bulk.
    pub(super) fn new(
        stream: TcpStream,
        exchange: Exchange,
        seed: u64,
        apart: bool,
        preface: &'static [u8],
    ) -> Self {
        Self {
            stream,
            size: exchange.size,
            position: seed,
            preface_left: preface,
            command_left: match exchange.answer {
                Answer::Halves => COMMAND_HALVES,
                Answer::Whole if apart => COMMAND_APART,
                Answer::Whole => COMMAND,
            },
            asking: None,
        }
    }

    /// When the request that is under way was due.
    pub(super) fn outstanding(&self) -> Option<Instant> {
        self.asking.as_ref().map(|asking| asking.due)
    }

    /// Starts a request that is, or was, due at `due`.
    pub(super) fn begin(&mut self, due: Instant) {
        self.asking = Some(Asking {
            due,
            sent: 0,
            received: 0,
        });
    }

    /// Moves bytes; [`Progress::Answered`] when the response is whole.
    pub(super) fn pump(&mut self, context: &mut FlowContext<'_>) -> io::Result<Progress> {
        let size = self.size;
        let Some(asking) = &mut self.asking else {
            // An event without a question: the other end has gone.
            return match attempt(|| self.stream.read(context.scratch))? {
                Step::Blocked => Ok(Progress::Wait),
                Step::Moved(0) | Step::Ended => Err(ended()),
                Step::Moved(len) => Err(io::Error::other(format!(
                    "{len} bytes came that nobody asked for"
                ))),
            };
        };
        loop {
            let mut blocked = true;
            if asking.sent < size || !self.command_left.is_empty() {
                let step = write(
                    &mut self.stream,
                    [&mut self.preface_left, &mut self.command_left],
                    asking,
                    self.position,
                    size,
                )?;
                blocked &= step == Step::Blocked;
                if asking.sent == size {
                    // The answer cannot be here yet: a read now would only fail.
                    return Ok(Progress::Wait);
                }
            }
            let room = context.scratch.len();
            match attempt(|| self.stream.read(context.scratch))? {
                Step::Moved(0) | Step::Ended => return Err(ended()),
                Step::Blocked if blocked => return Ok(Progress::Wait),
                Step::Blocked => {}
                Step::Moved(len) => {
                    let at = self.position + asking.received as u64;
                    let overrun = asking.received + len > asking.sent;
                    if overrun || pattern::check(at, &context.scratch[..len]).is_err() {
                        return Err(io::Error::other("a response differs from its request"));
                    }
                    asking.received += len;
                    context.counters.received.fetch_add(len as u64, Relaxed);
                    if asking.received == size {
                        break;
                    }
                    if len < room && asking.sent == size {
                        return Ok(Progress::Wait);
                    }
                }
            }
        }
        let due = asking.due;
        self.asking = None;
        self.position += size as u64;
        context.counters.sent.fetch_add(size as u64, Relaxed);
        context.counters.checked.fetch_add(size as u64, Relaxed);
        context.counters.exchanges.fetch_add(1, Relaxed);
        context.answered(due);
        Ok(Progress::Answered)
    }
}

/// What comes first, the command and the first piece of the first request go out in one write,
/// as a client that speaks first does it.
fn write(
    stream: &mut TcpStream,
    first: [&mut &'static [u8]; 2],
    asking: &mut Asking,
    position: u64,
    size: usize,
) -> io::Result<Step> {
    let request = pattern::slice(position + asking.sent as u64, size - asking.sent);
    if first.iter().all(|it| it.is_empty()) {
        let step = attempt(|| stream.write(request))?;
        asking.sent += step.len();
        return Ok(step);
    }
    let parts = [*first[0], *first[1], request].map(io::IoSlice::new);
    let step = match attempt(|| stream.write_vectored(&parts)) {
        // Still connecting.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Step::Blocked,
        other => other?,
    };
    let mut written = step.len();
    for left in first {
        let of_it = written.min(left.len());
        *left = &left[of_it..];
        written -= of_it;
    }
    asking.sent += written;
    Ok(step)
}

fn ended() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the connection ended before the response was whole",
    )
}
