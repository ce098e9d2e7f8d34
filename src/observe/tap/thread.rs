//! The thread of one target: takes what reactors feed, formats it, writes it.
//!
//! Owns what is known of each session it was told of, from its opening to its close.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant, SystemTime};

use super::feed::{Chunk, Close, End, Item, OPENING_COST, Opening, Progress, SessionNumber};
use super::output::Output;
use super::pcapng::Stream;
use super::text::Lines;
use super::{hex, http, render};
use crate::config::TapFormat;
use crate::observe::log::Log;
use crate::observe::notice::{Kind, Notice};
use crate::observe::throttle::{self, Throttle};
use crate::relay::Direction;
use crate::relay::time::Time;

/// While entries keep coming the thread sleeps this long between batches instead of
/// being woken for each: a wake-up would cost the reactor more than the entry.
const BATCH: Duration = Duration::from_millis(10);

/// Entries of a batch at the most: losses are told between batches.
const BATCH_ITEMS: u32 = 16_384;

/// Without an entry for so many batches the thread waits to be woken again.
const BATCHES_IDLE: u32 = 50;

/// What runs on the thread.
pub(super) struct Target {
    items: Receiver<Item>,
    output: Output,
    /// For whoever counts, or waits for it.
    progress: Arc<Progress>,
    log: Log,
    sessions: BTreeMap<SessionNumber, Session>,
    unit: Vec<u8>,
    /// Bytes that the target did not take, as told to the log.
    lost: u64,
    /// Of these, how many no mark in the output tells of yet.
    unmarked: u64,
    throttle: Throttle<Kind, ()>,
    /// The zero of the throttle's clock.
    started: Instant,
}

/// A session that was opened and is not closed yet.
struct Session {
    opening: Arc<Opening>,
    /// Bytes of each direction so far, shown or missing.
    offsets: [u64; 2],
    show: Show,
}

/// What each format keeps of a session.
enum Show {
    Hex,
    Text([Lines; 2]),
    Http(Box<http::Decoded>),
    Pcapng(Box<Stream>),
}

impl Target {
    pub(super) fn new(
        items: Receiver<Item>,
        output: Output,
        progress: Arc<Progress>,
        log: Log,
    ) -> Self {
        Self {
            items,
            output,
            progress,
            log,
            sessions: BTreeMap::new(),
            unit: Vec::new(),
            lost: 0,
            unmarked: 0,
            throttle: Throttle::new(throttle::INTERVAL),
            started: Instant::now(),
        }
    }

    /// Until nobody can feed it any more.
    pub(super) fn run(mut self) {
        self.output.flush();
        let mut idle = 0;
        loop {
            let quiet = idle >= BATCHES_IDLE;
            let mut next = if quiet {
                self.items.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.items.try_recv()
            };
            let mut taken = 0;
            while let Ok(item) = next {
                self.item(item);
                taken += 1;
                if taken == BATCH_ITEMS {
                    next = Err(TryRecvError::Empty);
                    break;
                }
                next = self.items.try_recv();
            }
            self.output.flush();
            self.tell_losses();
            if matches!(next, Err(TryRecvError::Disconnected)) {
                return self.output.flush();
            }
            idle = if taken == 0 { idle + 1 } else { 0 };
            if idle < BATCHES_IDLE {
                std::thread::sleep(BATCH);
            }
        }
    }

    fn item(&mut self, item: Item) {
        self.progress.advance();
        match item {
            Item::Open(number, opening) => self.open(number, *opening),
            Item::Chunk(number, chunk) => self.chunk(number, &chunk),
            Item::End(number, end) => self.end(number, &end),
            Item::Close(number, close) => self.close(number, &close),
        }
    }

    fn open(&mut self, number: SessionNumber, opening: Opening) {
        opening.budget.give_back(OPENING_COST);
        let unseen = opening.sessions_missing;
        let opening = Arc::new(opening);
        let show = match opening.tap.format {
            TapFormat::Hex => Show::Hex,
            TapFormat::Text => Show::Text(Default::default()),
            TapFormat::Http => Show::Http(Box::new(http::Decoded::new(opening.tap.unmask))),
            TapFormat::Pcapng => Show::Pcapng(Box::new(Stream::new(number, &opening))),
        };
        let mut session = Session {
            opening,
            offsets: [0; 2],
            show,
        };
        let unit = &mut self.unit;
        unit.clear();
        if let Show::Pcapng(stream) = &mut session.show {
            stream.open(unit, unseen);
        } else {
            if unseen > 0 {
                let stamp = render::stamp(session.opening.at);
                let _ = writeln!(
                    unit,
                    "{stamp} tap sessions_missing={unseen} (the tap could not keep up)"
                );
            }
            render::open(unit, number, &session.opening);
        }
        self.output.put(unit, 0);
        self.sessions.insert(number, session);
    }

    fn chunk(&mut self, number: SessionNumber, chunk: &Chunk) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        session.opening.budget.give_back(chunk.cost());
        self.unit.clear();
        session.chunk(number, chunk, &mut self.unit);
        self.output.put(&self.unit, chunk.bytes.len() as u64);
    }

    fn end(&mut self, number: SessionNumber, end: &End) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        self.unit.clear();
        session.end(number, end, &mut self.unit);
        self.output.put(&self.unit, 0);
    }

    fn close(&mut self, number: SessionNumber, close: &Close) {
        let Some(mut session) = self.sessions.remove(&number) else {
            return;
        };
        self.unit.clear();
        session.close(number, close, &mut self.unit);
        self.output.put(&self.unit, 0);
    }

    /// Marks in the output what the target did not take, where it takes something
    /// again; the log has it too, at a bounded rate.
    fn tell_losses(&mut self) {
        let lost = self.output.take_lost();
        if lost.units == 0 {
            // The mark of an earlier loss, if there was one, is written.
            self.unmarked = 0;
        } else {
            self.lost += lost.bytes;
            self.unmarked += lost.bytes;
            self.progress.fail(lost.bytes);
            self.mark();
        }
        let Some(error) = lost.error else { return };
        let now = Time::ZERO + self.started.elapsed();
        if let Some(suppressed) = self.throttle.pass(Kind::TapLost, (), now) {
            let notice = Notice::TapLost {
                tap: self.output.target().to_string(),
                error,
                bytes: self.lost,
            };
            self.log.notice_after(suppressed, notice);
        }
    }

    fn mark(&mut self) {
        if self.output.holds_packets() {
            for session in self.sessions.values_mut() {
                if let Show::Pcapng(stream) = &mut session.show {
                    stream.lost_before();
                }
            }
            return;
        }
        self.unit.clear();
        let _ = writeln!(
            self.unit,
            "{} tap lost={} bytes and their lines here (the target failed)",
            render::stamp(SystemTime::now()),
            self.unmarked
        );
        self.output.put(&self.unit, 0);
    }
}

impl Session {
    fn begin(&self, unit: &mut Vec<u8>, at: SystemTime, number: SessionNumber) {
        render::begin(unit, at, &self.opening.forward, number);
    }

    /// What is missing before what comes next.
    fn missing(
        &mut self,
        unit: &mut Vec<u8>,
        number: SessionNumber,
        (at, direction, n): (SystemTime, Direction, u64),
    ) {
        if n == 0 {
            return;
        }
        let offset = self.offsets[direction.index()];
        self.offsets[direction.index()] += n;
        match &mut self.show {
            Show::Pcapng(stream) => stream.missing(direction, n),
            Show::Hex | Show::Text(_) | Show::Http(_) => {
                self.begin(unit, at, number);
                render::missing(unit, direction, n, offset);
            }
        }
        if let Show::Http(decoded) = &mut self.show {
            decoded.missing(unit, direction, n);
        }
    }

    fn chunk(&mut self, number: SessionNumber, chunk: &Chunk, unit: &mut Vec<u8>) {
        let Chunk {
            at,
            direction,
            missing,
            ref bytes,
            last,
        } = *chunk;
        self.missing(unit, number, (at, direction, missing));
        let offset = self.offsets[direction.index()];
        self.offsets[direction.index()] += bytes.len() as u64;
        let unmask = self.opening.tap.unmask;
        if !matches!(self.show, Show::Pcapng(_)) {
            self.begin(unit, at, number);
            let (way, length) = (render::way(direction), bytes.len());
            let _ = writeln!(unit, "{way} length={length} offset={offset}");
        }
        match &mut self.show {
            Show::Hex => hex::dump(unit, offset, bytes),
            Show::Text(lines) => lines[direction.index()].show(unit, bytes, unmask),
            Show::Http(decoded) => decoded.chunk(unit, direction, bytes),
            Show::Pcapng(stream) => stream.chunk(unit, at, direction, bytes),
        }
        if last {
            self.limit(number, at, unit);
        }
    }

    fn limit(&mut self, number: SessionNumber, at: SystemTime, unit: &mut Vec<u8>) {
        let max = self.opening.tap.max_bytes_per_session;
        match &mut self.show {
            Show::Pcapng(stream) => stream.limit(max),
            Show::Hex | Show::Text(_) | Show::Http(_) => {
                self.begin(unit, at, number);
                let _ = writeln!(unit, "limit max_bytes_per_session={max} (no more is shown)");
            }
        }
    }

    fn end(&mut self, number: SessionNumber, end: &End, unit: &mut Vec<u8>) {
        self.missing(unit, number, (end.at, end.direction, end.missing));
        match &mut self.show {
            Show::Pcapng(stream) => return stream.end(unit, end),
            Show::Http(_) | Show::Hex | Show::Text(_) => {}
        }
        self.begin(unit, end.at, number);
        let (way, how) = (render::way(end.direction), render::end_word(end.how));
        let _ = writeln!(unit, "{way} end={how} total={}", end.total);
        if let Show::Http(decoded) = &mut self.show {
            let shown = self.offsets[end.direction.index()] == end.total;
            decoded.end(unit, end.direction, shown);
        }
    }

    fn close(&mut self, number: SessionNumber, close: &Close, unit: &mut Vec<u8>) {
        if let Show::Pcapng(stream) = &mut self.show {
            return stream.close(unit, close);
        }
        self.begin(unit, close.at, number);
        render::close(unit, close);
    }
}
