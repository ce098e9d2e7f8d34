//! A flow that moves as many bytes as it can.
//!
//! | direction | on the command port | at the end |
//! | --- | --- | --- |
//! | up | `SINK seed one-in`, `SINK` | shut down, read `OK bytes` |
//! | down | `SOURCE - seed file`, `SOURCE - seed` | shut down, read what is under way to the end |
//! | both | `ECHO` | shut down, read the rest of the echo |
//!
//! A flow costs the harness as little as it can: it is sent from memory that the kernel
//! refers to, a sample is compared with the pattern (going up by the origin, coming down
//! here), and the rest is discarded in the kernel. An echo is copied at the origin.
//! A flow that is only read behaves as an application does.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::Ordering::Relaxed;

use mio::net::TcpStream;

use super::flow::{FlowContext, Progress, Step, attempt};
use super::shape::Direction;
use crate::bench::sampling::{Care, Sampling};
use crate::bench::{pattern, socket};

/// Bytes one flow may move before others get their turn.
const BUDGET: usize = 1024 * 1024;

/// What is done with the bytes of a flow where they arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// Written and read, and not compared.
    Plain,
    /// As cheap as they can be, but for the sample that is compared.
    Cheap(Sampling),
}

/// One bulk flow.
pub(super) struct BulkFlow {
    pub(super) stream: TcpStream,
    direction: Direction,
    seed: u64,
    ends: Ends,
    /// What of the command line is not yet sent.
    command: Vec<u8>,
    sent: u64,
    received: u64,
    /// What the origin says at the end of an upload.
    verdict: Vec<u8>,
    shut: bool,
}

impl BulkFlow {
    pub(super) fn new(
        stream: TcpStream,
        direction: Direction,
        seed: u64,
        ends: Ends,
        preface: &[u8],
    ) -> Self {
        let command = match (direction, ends) {
            (Direction::Up, Ends::Plain) => "SINK\n".to_owned(),
            (Direction::Up, Ends::Cheap(sampling)) => format!("SINK {seed} {sampling}\n"),
            (Direction::Down, Ends::Plain) => format!("SOURCE - {seed}\n"),
            (Direction::Down, Ends::Cheap(_)) => format!("SOURCE - {seed} file\n"),
            (Direction::Both, _) => "ECHO\n".to_owned(),
        };
        Self {
            stream,
            direction,
            seed,
            ends,
            command: [preface, command.as_bytes()].concat(),
            sent: 0,
            received: 0,
            verdict: Vec::new(),
            shut: false,
        }
    }

    /// Moves bytes until the socket or the budget ends it.
    pub(super) fn pump(&mut self, context: &mut FlowContext<'_>) -> io::Result<Progress> {
        let mut moved = 0;
        while moved < BUDGET {
            let wrote = self.write(context)?;
            let read = self.read(context)?;
            match (wrote, read) {
                (_, Step::Ended) => return Ok(Progress::Finished),
                (Step::Blocked | Step::Ended, Step::Blocked) => return Ok(Progress::Wait),
                _ => moved += wrote.len() + read.len(),
            }
        }
        Ok(Progress::Again)
    }

    fn write(&mut self, context: &FlowContext<'_>) -> io::Result<Step> {
        if !self.command.is_empty() {
            return match attempt(|| self.stream.write(&self.command))? {
                Step::Moved(len) => {
                    self.command.drain(..len);
                    Ok(Step::Moved(len))
                }
                other => Ok(other),
            };
        }
        if context.stopping {
            if !self.shut {
                self.shut = true;
                self.stream.shutdown(Shutdown::Write)?;
            }
            return Ok(Step::Ended);
        }
        if self.direction == Direction::Down {
            return Ok(Step::Blocked);
        }
        let at = self.seed + self.sent;
        let step = match self.ends {
            Ends::Cheap(_) => attempt(|| pattern::send(&self.stream, at, BUDGET))?,
            Ends::Plain => {
                let bytes = pattern::slice(at, pattern::CHUNK_MAX);
                attempt(|| self.stream.write(bytes))?
            }
        };
        self.sent += step.len() as u64;
        context.counters.sent.fetch_add(step.len() as u64, Relaxed);
        Ok(step)
    }

    fn read(&mut self, context: &mut FlowContext<'_>) -> io::Result<Step> {
        if self.direction == Direction::Up && !self.shut {
            // A sink says nothing before the end, and an early end shows in the write.
            return Ok(Step::Blocked);
        }
        let care = match self.ends {
            // What the origin says at the end of an upload is read.
            _ if self.direction == Direction::Up => None,
            Ends::Plain => None,
            Ends::Cheap(sampling) => Some(sampling.care(self.received)),
        };
        let step = match care {
            Some(Care::Discard(most)) => {
                let most = most.min(context.scratch.len() as u64) as usize;
                attempt(|| socket::discard(&self.stream, &mut context.scratch[..most]))?
            }
            Some(Care::Compare) | None => attempt(|| self.stream.read(context.scratch))?,
        };
        match step {
            Step::Moved(0) => {
                self.end_of_input(context)?;
                return Ok(Step::Ended);
            }
            Step::Moved(len) if self.direction == Direction::Up => {
                let room = 100_usize.saturating_sub(self.verdict.len());
                self.verdict
                    .extend_from_slice(&context.scratch[..len.min(room)]);
            }
            Step::Moved(len) => {
                let compared = care == Some(Care::Compare);
                if compared
                    && let Err(at) =
                        pattern::check(self.seed + self.received, &context.scratch[..len])
                {
                    return Err(io::Error::other(format!(
                        "bytes differ from what was sent, {} bytes into the stream",
                        self.received + at as u64
                    )));
                }
                self.received += len as u64;
                context.counters.received.fetch_add(len as u64, Relaxed);
                if compared {
                    context.counters.checked.fetch_add(len as u64, Relaxed);
                }
            }
            Step::Blocked | Step::Ended => {}
        }
        Ok(step)
    }

    /// An end before this side asked for one is an error; after it, what came is
    /// compared with what went. A subject may end both directions when one ends
    /// (nginx stream does by default): that is counted, not an error.
    fn end_of_input(&mut self, context: &mut FlowContext<'_>) -> io::Result<()> {
        if !context.stopping {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended in the middle of a transfer",
            ));
        }
        let whole = match self.direction {
            Direction::Up => {
                let verdict = String::from_utf8_lossy(&self.verdict);
                let verdict = verdict.trim_end();
                if verdict.starts_with("ERR") {
                    return Err(io::Error::other(format!("the origin says: {verdict}")));
                }
                if verdict == format!("OK {}", self.sent) {
                    true
                } else if verdict.is_empty() {
                    false
                } else {
                    return Err(io::Error::other(format!(
                        "{} bytes sent, the origin says `{verdict}`",
                        self.sent
                    )));
                }
            }
            Direction::Down => true,
            Direction::Both => self.sent == self.received,
        };
        if !whole {
            context.cut_short += 1;
        }
        if let Ends::Cheap(sampling) = self.ends
            && self.direction == Direction::Up
        {
            let compared = sampling.compared(self.sent);
            context.counters.checked.fetch_add(compared, Relaxed);
        }
        Ok(())
    }
}
