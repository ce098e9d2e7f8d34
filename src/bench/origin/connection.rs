//! One connection of the origin: what it does with readiness.
//!
//! ```text
//! Preface ─any other byte─► Command
//! Command ─ECHO──► Echo ───────────► end of input ─┐
//!    ▲   ─SINK──► Sink ───────────► end of input ─┤
//!    │   ─SOURCE► Source ─all sent─► Command        ├─► flushed ─► closed
//!    └── turn ── Conversing ◄─STRING, RECORD, own   │
//!   ERR, or an end from this side ─► Lingering ─────┘ (shut down, read to the end)
//! ```
//!
//! Invariants: nothing is read, and no command carried out, while [`PENDING_MAX`] bytes
//! wait to be sent; a spurious event is harmless; one call moves at most `BUDGET` bytes.
//! What a connection holds is counted with all others ([`Holding`]).

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::conversation::{Conversation, Next};
use super::handlers::{Action, Handlers, Manner};
use super::options::{Counters, LINE_MAX, PENDING_MAX, Role};
use crate::bench::preface::Skip;
use crate::bench::sampling::{Care, Sampling};
use crate::bench::{pattern, socket};

/// Bytes one connection may move before others get their turn.
const BUDGET: usize = 1024 * 1024;

/// How long a connection that this side ended is read for the client's end.
const LINGER: Duration = Duration::from_secs(2);

/// What the thread should do with the connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pumped {
    /// Wait for an event.
    Wait,
    /// The budget ended: there is more to do.
    Again,
    /// It is to be served on the prompt thread.
    HandOver,
    /// Finished or broken: drop it.
    Close,
}

enum Mode {
    /// Nothing of the first command has come.
    Preface(Skip),
    Command,
    Echo,
    Sink {
        received: u64,
        check: Check,
    },
    Source {
        left: Option<u64>,
        position: u64,
    },
    Mark,
    Conversing(Box<dyn Conversation>),
    Lingering {
        until: Instant,
    },
}

/// Whether a sink compares, and what came of it.
enum Check {
    No,
    /// Not even copied from the kernel.
    Unread,
    From(u64, Sampling),
    Differed(u64),
}

impl Check {
    /// How many bytes from `received` on need not be copied from the kernel.
    fn unread(&self, received: u64) -> u64 {
        match self {
            Self::Unread | Self::Differed(_) => u64::MAX,
            Self::From(_, sampling) => match sampling.care(received) {
                Care::Compare => 0,
                Care::Discard(most) => most,
            },
            Self::No => 0,
        }
    }
}

/// Marks answered in one go.
const MARKS_MAX: usize = 4096;

/// What all connections of an origin together may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// Bytes.
    pub(super) most: u64,
    /// What each may hold whatever the others do.
    pub(super) share: u64,
}

/// What one connection holds, counted with the others as long as it is there.
struct Holding {
    bytes: u64,
    counters: Arc<Counters>,
}

impl Holding {
    /// Says how many bytes all connections hold.
    fn is_now(&mut self, bytes: u64) -> u64 {
        // Wrapping: a difference that is added and taken away again.
        let change = bytes.wrapping_sub(self.bytes);
        self.bytes = bytes;
        let before = self.counters.held.fetch_add(change, Relaxed);
        before.wrapping_add(change)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.is_now(0);
    }
}

/// What the pump borrows from its thread.
pub(super) struct Context<'a> {
    pub(super) scratch: &'a mut [u8],
    pub(super) handlers: &'a Handlers,
    pub(super) counters: &'a Counters,
    pub(super) now: Instant,
    pub(super) memory: Memory,
    /// Whether there is a prompt thread, and this is not it.
    pub(super) hands_over: bool,
}

pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) last_active: Instant,
    mode: Mode,
    /// The command line so far.
    line: Vec<u8>,
    /// Input that arrived behind a command which is still busy, from `held_at` on: at
    /// most one read's.
    held: Vec<u8>,
    held_at: usize,
    holding: Holding,
    /// Output that the socket did not take yet, from `pending_at` on.
    pending: Vec<u8>,
    pending_at: usize,
    input_ended: bool,
    output_ended: bool,
    /// The client's end was announced, though perhaps not yet read.
    peer_ended: bool,
    manner: Manner,
    from_file: bool,
    /// An echo is written in two pieces.
    halves: bool,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        role: Role,
        now: Instant,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            stream,
            last_active: now,
            mode: match role {
                Role::Command => Mode::Preface(Skip::default()),
                // Nobody accepts connections where datagrams are served.
                Role::Echo | Role::Datagrams => Mode::Echo,
                Role::Discard => Mode::Sink {
                    received: 0,
                    check: Check::No,
                },
                Role::Source => Mode::Source {
                    left: None,
                    position: 0,
                },
            },
            line: Vec::new(),
            held: Vec::new(),
            held_at: 0,
            holding: Holding { bytes: 0, counters },
            pending: Vec::new(),
            pending_at: 0,
            input_ended: false,
            output_ended: false,
            peer_ended: false,
            manner: Manner::Ordinary,
            from_file: false,
            halves: false,
        }
    }

    /// Past its time: lingering too long, or silent for `idle_timeout`.
    pub(super) fn is_overdue(&self, now: Instant, idle_timeout: Duration) -> bool {
        match self.mode {
            Mode::Lingering { until } => now >= until,
            _ => now.duration_since(self.last_active) >= idle_timeout,
        }
    }

    /// The client said that it will send no more (`EPOLLRDHUP`): the only way a
    /// source, which does not read, hears of it.
    pub(super) fn peer_ended(&mut self) {
        self.peer_ended = true;
        if let Mode::Source { left: None, .. } = self.mode {
            self.mode = Mode::Source {
                left: Some(0),
                position: 0,
            };
        }
    }

    /// Moves bytes until the socket or the budget ends it.
    pub(super) fn pump(&mut self, context: &mut Context<'_>) -> Pumped {
        self.last_active = context.now;
        let pumped = self.steps(context).unwrap_or_else(|_| {
            context.counters.aborted.fetch_add(1, Relaxed);
            Pumped::Close
        });
        if self.takes_too_much(context) {
            return Pumped::Again;
        }
        pumped
    }

    /// Counts what it holds now. Above the bound for all of them together, whoever holds
    /// more than an equal share of it lets everything go, and is told why.
    fn takes_too_much(&mut self, context: &Context<'_>) -> bool {
        let conversation = match &self.mode {
            Mode::Conversing(conversation) => conversation.held(),
            _ => 0,
        };
        let buffers = [&self.line, &self.held, &self.pending];
        let own: usize = buffers.iter().map(|it| it.capacity()).sum();
        let bytes = (own + conversation) as u64;
        let all = self.holding.is_now(bytes);
        if all <= context.memory.most || bytes <= context.memory.share {
            return false;
        }
        for buffer in [&mut self.line, &mut self.held, &mut self.pending] {
            *buffer = Vec::new();
        }
        (self.held_at, self.pending_at) = (0, 0);
        context.counters.cut.fetch_add(1, Relaxed);
        self.answer("ERR too many bytes are held here; try again later");
        self.linger(context.now);
        self.holding.is_now(self.pending.capacity() as u64);
        true
    }

    fn steps(&mut self, context: &mut Context<'_>) -> io::Result<Pumped> {
        let mut moved = 0;
        while moved < BUDGET {
            if !self.flush(context.counters)? && self.must_flush_first() {
                return Ok(Pumped::Wait);
            }
            if let Mode::Source { .. } = self.mode {
                match self.produce(context.counters)? {
                    Some(sent) => moved += sent,
                    None => return Ok(Pumped::Wait),
                }
                continue;
            }
            if self.held_at < self.held.len() {
                // By place and not by moving what is left: a read may hold thousands of
                // commands.
                let held = std::mem::take(&mut self.held);
                let used = self.take(&held[self.held_at..], context);
                self.held = held;
                let used = used?;
                self.held_at += used;
                moved += used;
                if self.held_at == self.held.len() {
                    (self.held, self.held_at) = (Vec::new(), 0);
                }
                continue;
            }
            if self.input_ended {
                return self.finish();
            }
            let unread = match &self.mode {
                Mode::Sink { received, check } => check.unread(*received),
                _ => 0,
            };
            let wanted = match unread {
                0 => context.scratch.len(),
                most => most.min(context.scratch.len() as u64) as usize,
            };
            let read = if unread > 0 {
                socket::discard(&self.stream, &mut context.scratch[..wanted])
            } else {
                self.stream.read(context.scratch)
            };
            let read = match read {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Pumped::Wait),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if read == 0 {
                self.input_ended = true;
                self.end_of_input();
                continue;
            }
            moved += read;
            let scratch = std::mem::take(&mut context.scratch);
            let taken = self.take(&scratch[..read], context);
            let short = read < wanted;
            if let Ok(used) = taken
                && used < read
            {
                (self.held, self.held_at) = (scratch[used..read].to_vec(), 0);
            }
            context.scratch = scratch;
            taken?;
            if self.manner == Manner::Prompt && context.hands_over {
                return Ok(Pumped::HandOver);
            }
            if short && self.awaits_input() {
                return Ok(Pumped::Wait);
            }
        }
        Ok(Pumped::Again)
    }

    /// Nothing is left to do but to read. After a short read the socket is empty,
    /// and what comes later raises an event: one system call saved an exchange. Not
    /// so when the client's end was already announced: that event is used up.
    fn awaits_input(&self) -> bool {
        self.unsent() == 0
            && self.held_at == self.held.len()
            && !self.peer_ended
            && !matches!(self.mode, Mode::Source { .. } | Mode::Lingering { .. })
    }

    /// Everything is read; close once everything is sent.
    fn finish(&mut self) -> io::Result<Pumped> {
        if self.unsent() > 0 {
            return Ok(Pumped::Wait);
        }
        if !self.output_ended {
            self.output_ended = true;
            self.stream.shutdown(Shutdown::Write)?;
        }
        Ok(Pumped::Close)
    }

    fn unsent(&self) -> usize {
        self.pending.len() - self.pending_at
    }

    /// An echo keeps no more than one read's residue; the rest may pile up a little.
    fn must_flush_first(&self) -> bool {
        match self.mode {
            Mode::Echo | Mode::Source { .. } => true,
            _ => self.unsent() >= PENDING_MAX || self.input_ended,
        }
    }

    /// Sends what is pending; true when nothing is left.
    fn flush(&mut self, counters: &Counters) -> io::Result<bool> {
        while self.unsent() > 0 {
            match self.stream.write(&self.pending[self.pending_at..]) {
                Ok(sent) => {
                    self.pending_at += sent;
                    counters.sent.fetch_add(sent as u64, Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // An idle connection keeps no buffer.
        if self.pending.capacity() > 0 {
            self.pending = Vec::new();
            self.pending_at = 0;
        }
        Ok(true)
    }

    /// Sends one chunk of the pattern; `None` when the socket is full.
    fn produce(&mut self, counters: &Counters) -> io::Result<Option<usize>> {
        let Mode::Source { left, position } = &mut self.mode else {
            return Ok(Some(0));
        };
        let wanted = left.map_or(pattern::CHUNK_MAX, |left| {
            left.min(pattern::CHUNK_MAX as u64) as usize
        });
        if wanted == 0 {
            self.mode = Mode::Command;
            return Ok(Some(0));
        }
        let sent = if self.from_file {
            pattern::send(&self.stream, *position, wanted)
        } else {
            self.stream.write(pattern::slice(*position, wanted))
        };
        match sent {
            Ok(sent) => {
                *position += sent as u64;
                if let Some(left) = left {
                    *left -= sent as u64;
                }
                counters.sent.fetch_add(sent as u64, Relaxed);
                Ok(Some(sent))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// Uses `input` until a command is busy or enough waits to be sent; says how much.
    fn take(&mut self, whole: &[u8], context: &Context<'_>) -> io::Result<usize> {
        let mut input = whole;
        while !input.is_empty() {
            if self.unsent() >= PENDING_MAX {
                break;
            }
            let used = match &mut self.mode {
                Mode::Preface(skip) => {
                    let used = skip.take(input);
                    if used < input.len() {
                        self.mode = Mode::Command;
                    }
                    used
                }
                Mode::Command => self.command(input, context),
                Mode::Echo => {
                    context
                        .counters
                        .received
                        .fetch_add(input.len() as u64, Relaxed);
                    let half = if self.halves { input.len() / 2 } else { 0 };
                    let (first, second) = input.split_at(half);
                    if !first.is_empty() {
                        self.echo(first, context.counters)?;
                    }
                    self.echo(second, context.counters)?;
                    input.len()
                }
                Mode::Sink { received, check } => {
                    if let Check::From(seed, sampling) = check
                        && sampling.care(*received) == Care::Compare
                        && let Err(at) = pattern::check(*seed + *received, input)
                    {
                        *check = Check::Differed(*received + at as u64);
                        context.counters.differed.fetch_add(1, Relaxed);
                    }
                    *received += input.len() as u64;
                    context
                        .counters
                        .received
                        .fetch_add(input.len() as u64, Relaxed);
                    input.len()
                }
                Mode::Mark => {
                    let counters = context.counters;
                    // An answer is longer than what it answers.
                    let some = &input[..input.len().min(MARKS_MAX)];
                    for _ in some {
                        let before = counters.received.fetch_add(1, Relaxed);
                        self.answer(&before.to_string());
                    }
                    some.len()
                }
                Mode::Source { .. } => break,
                Mode::Conversing(conversation) => {
                    let turn = conversation.input(input, &mut self.pending);
                    context
                        .counters
                        .received
                        .fetch_add(turn.used as u64, Relaxed);
                    match turn.next {
                        Next::More => {}
                        Next::Command => self.mode = Mode::Command,
                        Next::Close => self.linger(context.now),
                    }
                    turn.used
                }
                Mode::Lingering { .. } => input.len(),
            };
            input = &input[used.min(input.len())..];
        }
        Ok(whole.len() - input.len())
    }

    /// Straight from the scratch buffer to the socket; only a residue is copied.
    fn echo(&mut self, input: &[u8], counters: &Counters) -> io::Result<()> {
        let mut sent = 0;
        if self.unsent() == 0 {
            match self.stream.write(input) {
                Ok(written) => sent = written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            counters.sent.fetch_add(sent as u64, Relaxed);
        }
        self.pending.extend_from_slice(&input[sent..]);
        Ok(())
    }

    /// Collects the line, and acts on it when it is whole.
    fn command(&mut self, input: &[u8], context: &Context<'_>) -> usize {
        let end = input.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(input.len(), |at| at + 1);
        if self.line.len() + used > LINE_MAX {
            self.answer(&format!("ERR the line is longer than {LINE_MAX} bytes"));
            self.linger(context.now);
            return used;
        }
        self.line.extend_from_slice(&input[..used]);
        if end.is_none() {
            return used;
        }
        let line = std::mem::take(&mut self.line);
        match context.handlers.action(&String::from_utf8_lossy(&line)) {
            Ok(action) => self.begin(action),
            Err(refusal) => {
                self.answer(&format!("ERR {}", refusal.text));
                if refusal.closes {
                    self.linger(context.now);
                }
            }
        }
        used
    }

    fn begin(&mut self, action: Action) {
        self.mode = match action {
            Action::Echo(manner) => {
                self.manner = manner;
                Mode::Echo
            }
            Action::EchoHalves => {
                // Best effort: without Nagle there are two writes still.
                let _ = self.stream.set_nodelay(false);
                self.halves = true;
                Mode::Echo
            }
            Action::Mark => {
                self.manner = Manner::Prompt;
                Mode::Mark
            }
            Action::Discard(manner) => {
                self.manner = manner;
                Mode::Sink {
                    received: 0,
                    check: Check::Unread,
                }
            }
            Action::Sink { seed, one_in } => Mode::Sink {
                received: 0,
                check: seed.map_or(Check::No, |seed| Check::From(seed, Sampling::new(one_in))),
            },
            Action::Source {
                bytes,
                seed,
                from_file,
            } => {
                self.from_file = from_file;
                Mode::Source {
                    left: bytes.or(self.peer_ended.then_some(0)),
                    position: seed,
                }
            }
            Action::Info => {
                let line = socket::path_info(&self.stream).map_or_else(
                    |error| format!("ERR no TCP_INFO: {error}"),
                    |info| format!("INFO {info}"),
                );
                self.answer(&line);
                Mode::Command
            }
            Action::Converse(conversation) => Mode::Conversing(conversation),
        };
    }

    fn answer(&mut self, line: &str) {
        self.pending.extend_from_slice(line.as_bytes());
        self.pending.push(b'\n');
    }

    fn end_of_input(&mut self) {
        match &mut self.mode {
            Mode::Sink { received, check } => {
                let line = match check {
                    Check::Differed(at) => format!("ERR differs at {at}"),
                    Check::No | Check::Unread | Check::From(..) => format!("OK {received}"),
                };
                // RFC 863: a discard port never answers, but a client that has
                // ended its side may well want to know; it may also be gone.
                self.answer(&line);
            }
            Mode::Conversing(conversation) => conversation.end(&mut self.pending),
            Mode::Preface(_)
            | Mode::Command
            | Mode::Echo
            | Mode::Mark
            | Mode::Source { .. }
            | Mode::Lingering { .. } => {}
        }
    }

    /// This side ends: what is pending is sent, then the client's end is awaited.
    fn linger(&mut self, now: Instant) {
        self.mode = Mode::Lingering {
            until: now + LINGER,
        };
    }

    /// While lingering and everything is sent: say so to the client.
    pub(super) fn shut_if_lingering(&mut self) {
        if matches!(self.mode, Mode::Lingering { .. }) && self.unsent() == 0 && !self.output_ended {
            self.output_ended = true;
            // It may have gone meanwhile; the next read tells.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }
}
