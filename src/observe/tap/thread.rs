//! What one target makes of what reactors feed; runs on its outlet's thread.
//!
//! Owns what is known of each session it was told of, from its opening to its close.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::feed::{Chunk, Close, End, Item, OPENING_COST, Opening, Progress, SessionNumber};
use super::http::{Decoded, Words};
use super::pcapng::{self, Stream};
use super::text::Lines;
use super::{hex, render};
use crate::config::{Tap, TapFormat, TapTarget};
use crate::observe::log::Log;
use crate::observe::notice::{Kind, Notice};
use crate::observe::outlet::{Format, Lost, Sink};
use crate::observe::panics;
use crate::observe::throttle::{self, Throttle};
use crate::proto::secrets::Secrets;
use crate::relay::Direction;
use crate::relay::time::Time;

/// Bytes of memory that decoding may take for all sessions of a target together. One takes
/// up to [`KEPT_MAX`](crate::proto::conversation::KEPT_MAX), most a hundredth of that.
const DECODING_MAX: usize = 64 << 20;

/// Bytes that are kept to write the next unit into.
const UNIT_KEPT: usize = 256 << 10;

/// See the module's documentation.
pub(super) struct Target {
    /// `None`: whoever asked for it, who knows best when it is gone.
    to: Option<TapTarget>,
    /// It is written in packets and not in lines.
    packets: bool,
    /// For whoever counts, or waits for it.
    progress: Arc<Progress>,
    log: Log,
    sessions: BTreeMap<SessionNumber, Session>,
    unit: Vec<u8>,
    /// What the tap that a session came from last masks: few have another than the next.
    secrets: Option<(Arc<Tap>, Arc<Secrets>)>,
    /// Bytes of memory that decoding takes, all sessions together.
    kept: usize,
    /// Whose entry was taken last.
    current: Option<SessionNumber>,
    /// Bytes that the target did not take, as told to the log.
    lost: u64,
    /// Of these, how many no mark in the output tells of yet.
    unmarked: u64,
    throttle: Throttle<Kind, ()>,
    /// The zero of the throttle's clock.
    started: Instant,
}

/// A session that was opened and is not closed yet.
pub(super) struct Session {
    opening: Arc<Opening>,
    /// Bytes of each direction so far, shown or missing.
    offsets: [u64; 2],
    show: Show,
    /// What is masked; `None`: nothing.
    secrets: Option<Arc<Secrets>>,
}

/// What each format keeps of a session.
enum Show {
    Hex,
    Text([Lines; 2]),
    Http(Box<Decoded>),
    Pcapng(Box<Stream>),
}

/// What an output begins with.
pub(super) fn prologue(format: TapFormat) -> Vec<u8> {
    match format {
        TapFormat::Pcapng => pcapng::prologue(),
        TapFormat::Hex | TapFormat::Text | TapFormat::Http => Vec::new(),
    }
}

impl Target {
    pub(super) fn new(tap: &Tap, to: Option<TapTarget>, progress: Arc<Progress>, log: Log) -> Self {
        Self {
            to,
            packets: tap.format == TapFormat::Pcapng,
            progress,
            log,
            sessions: BTreeMap::new(),
            unit: Vec::new(),
            secrets: None,
            kept: 0,
            current: None,
            lost: 0,
            unmarked: 0,
            throttle: Throttle::new(throttle::INTERVAL),
            started: Instant::now(),
        }
    }

    fn open(&mut self, number: SessionNumber, opening: Opening, sink: &mut Sink) {
        opening.budget.give_back(OPENING_COST);
        let unseen = opening.sessions_missing;
        let secrets = (!opening.tap.unmask).then(|| self.secrets_of(&opening.tap));
        let mut session = Session::new(number, opening, secrets);
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
        sink.put(unit, 0);
        self.kept += session.kept();
        self.sessions.insert(number, session);
    }

    fn secrets_of(&mut self, tap: &Arc<Tap>) -> Arc<Secrets> {
        if let Some((known, secrets)) = &self.secrets
            && Arc::ptr_eq(known, tap)
        {
            return secrets.clone();
        }
        let secrets = Arc::new(Secrets::new(&tap.mask));
        self.secrets = Some((tap.clone(), secrets.clone()));
        secrets
    }

    fn chunk(&mut self, number: SessionNumber, chunk: &Chunk, sink: &mut Sink) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        session.opening.budget.give_back(chunk.cost());
        self.unit.clear();
        let before = session.kept();
        session.chunk(number, chunk, &mut self.unit);
        let after = session.kept();
        self.kept = self.kept + after - before;
        // Whoever asks for more when there is no more pays for it.
        if self.kept > DECODING_MAX && after > before {
            session.give_up(&mut self.unit);
            self.kept = self.kept + session.kept() - after;
        }
        sink.put(&self.unit, chunk.bytes.len() as u64);
        // What one large chunk took is given back.
        self.unit.shrink_to(UNIT_KEPT);
    }

    fn end(&mut self, number: SessionNumber, end: &End, sink: &mut Sink) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        self.unit.clear();
        let before = session.kept();
        session.end(number, end, &mut self.unit);
        self.kept = self.kept + session.kept() - before;
        sink.put(&self.unit, 0);
    }

    fn close(&mut self, number: SessionNumber, close: &Close, sink: &mut Sink) {
        let Some(mut session) = self.sessions.remove(&number) else {
            return;
        };
        self.kept -= session.kept();
        self.unit.clear();
        session.close(number, close, &mut self.unit);
        sink.put(&self.unit, 0);
    }

    fn mark(&mut self, sink: &mut Sink) {
        if self.packets {
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
        sink.put(&self.unit, 0);
    }
}

impl Format for Target {
    type Item = Item;

    fn item(&mut self, item: Item, sink: &mut Sink) {
        self.progress.advance();
        self.current = item.session();
        match item {
            Item::Open(number, opening) => self.open(number, *opening, sink),
            Item::Chunk(number, chunk) => self.chunk(number, &chunk, sink),
            Item::End(number, end) => self.end(number, &end, sink),
            Item::Close(number, close) => self.close(number, &close, sink),
            Item::Nothing => {}
        }
    }

    /// The session whose entry it was is shown no more: what is known of it may be half of
    /// something.
    fn panicked(&mut self) {
        if let Some(session) = self.current {
            self.sessions.remove(&session);
        }
        self.kept = self.sessions.values().map(Session::kept).sum();
        self.log.panicked("tap", panics::count());
    }

    fn before_write(&mut self, _: &mut Sink) {}

    /// Marks in the output what the target did not take, where it takes something
    /// again; the log has it too, at a bounded rate.
    fn after_write(&mut self, _: bool, lost: Lost, sink: &mut Sink) {
        if lost.units == 0 {
            // The mark of an earlier loss, if there was one, is written.
            self.unmarked = 0;
        } else {
            self.lost += lost.weight;
            self.unmarked += lost.weight;
            self.progress.fail(lost.weight);
            self.mark(sink);
        }
        let (Some(error), Some(to)) = (lost.error, &self.to) else {
            return;
        };
        let now = Time::ZERO + self.started.elapsed();
        if let Some(suppressed) = self.throttle.pass(Kind::TapLost, (), now) {
            let notice = Notice::TapLost {
                tap: to.to_string(),
                error,
                bytes: self.lost,
            };
            self.log.notice_after(suppressed, notice);
        }
    }
}

impl Session {
    pub(super) fn new(
        number: SessionNumber,
        opening: Opening,
        secrets: Option<Arc<Secrets>>,
    ) -> Self {
        let show = match opening.tap.format {
            TapFormat::Hex => Show::Hex,
            TapFormat::Text => Show::Text(Default::default()),
            TapFormat::Http => Show::Http(Box::default()),
            TapFormat::Pcapng => Show::Pcapng(Box::new(Stream::new(number, &opening))),
        };
        Self {
            offsets: opening.before,
            opening: Arc::new(opening),
            show,
            secrets,
        }
    }

    /// Bytes of memory that decoding it takes.
    fn kept(&self) -> usize {
        match &self.show {
            Show::Http(decoded) => decoded.kept(),
            Show::Hex | Show::Text(_) | Show::Pcapng(_) => 0,
        }
    }

    /// Decodes it no further.
    fn give_up(&mut self, unit: &mut Vec<u8>) {
        let secrets = self.secrets.as_deref();
        if let Show::Http(decoded) = &mut self.show {
            decoded.give_up(&mut Words { out: unit, secrets });
        }
    }

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
        let secrets = self.secrets.as_deref();
        if let Show::Http(decoded) = &mut self.show {
            decoded.missing(&mut Words { out: unit, secrets }, direction, n);
        }
    }

    pub(super) fn chunk(&mut self, number: SessionNumber, chunk: &Chunk, unit: &mut Vec<u8>) {
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
        let secrets = self.secrets.as_deref();
        if !matches!(self.show, Show::Pcapng(_)) {
            self.begin(unit, at, number);
            let (way, length) = (render::way(direction), bytes.len());
            let _ = writeln!(unit, "{way} length={length} offset={offset}");
        }
        match &mut self.show {
            Show::Hex => hex::dump(unit, offset, bytes),
            Show::Text(lines) => lines[direction.index()].show(unit, bytes, secrets),
            Show::Http(decoded) => {
                decoded.chunk(&mut Words { out: unit, secrets }, direction, bytes);
            }
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

    pub(super) fn end(&mut self, number: SessionNumber, end: &End, unit: &mut Vec<u8>) {
        self.missing(unit, number, (end.at, end.direction, end.missing));
        match &mut self.show {
            Show::Pcapng(stream) => return stream.end(unit, end),
            Show::Http(_) | Show::Hex | Show::Text(_) => {}
        }
        self.begin(unit, end.at, number);
        let (way, how) = (render::way(end.direction), render::end_word(end.how));
        let _ = writeln!(unit, "{way} end={how} total={}", end.total);
        let secrets = self.secrets.as_deref();
        if let Show::Http(decoded) = &mut self.show {
            let shown = self.offsets[end.direction.index()] == end.total;
            decoded.end(&mut Words { out: unit, secrets }, end.direction, shown);
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
