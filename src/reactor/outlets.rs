//! What a reactor tells of its sessions: their records, and those that are shown to a
//! tap from their first byte to their end.
//!
//! A session that is not tapped costs one comparison at its beginning, and one at
//! its end, where its engine has nothing to give back.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Entry;
use super::context::Ctx;
use super::rates::meters;
use crate::engine::{Engine, SessionKey};
use crate::net::word::Word;
use crate::observe::record::{Records, SessionRecord};
use crate::observe::tap::{Closing, Sight, Source};
use crate::relay::id::ForwardId;
use crate::relay::{Direction, Side};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Outlets {
    records: Records,
    taps: BTreeMap<ForwardId, Source>,
    /// Who looks beside those, for as long as they like.
    onlookers: Vec<Onlooker>,
    /// Sessions may be tapped, now or from an earlier configuration.
    has_tapped: bool,
    /// Bytes that taps lost which are gone.
    lost_before: u64,
}

/// Somebody who looks at sessions, of his own accord and for a time.
#[derive(Debug, Clone)]
pub struct Onlooker {
    /// At those of these forwards; `None`: of all.
    pub forwards: Option<Vec<ForwardId>>,
    /// Where they are shown, and of which clients.
    pub source: Source,
}

impl Outlets {
    pub(super) fn new(records: Records, taps: BTreeMap<ForwardId, Source>) -> Self {
        Self {
            records,
            has_tapped: !taps.is_empty(),
            taps,
            onlookers: Vec::new(),
            lost_before: 0,
        }
    }

    /// Other records from now on.
    pub(super) const fn set_records(&mut self, records: Records) {
        self.records = records;
    }

    /// Other taps for the sessions to come.
    pub(super) fn set_taps(&mut self, taps: BTreeMap<ForwardId, Source>) {
        self.has_tapped |= !taps.is_empty();
        self.taps = taps;
    }

    /// Somebody looks at sessions to come; `false`: he does already.
    pub(super) fn look_on(&mut self, onlooker: Onlooker) -> bool {
        let is_known = |it: &Onlooker| it.source.is_of(&onlooker.source);
        if self.onlookers.iter().any(is_known) {
            return false;
        }
        self.has_tapped = true;
        self.onlookers.push(onlooker);
        true
    }

    /// Forgets those who look no more.
    pub(super) fn look_away(&mut self) {
        let gone = self.onlookers.extract_if(.., |it| it.source.is_over());
        self.lost_before += gone.map(|it| it.source.dropped_bytes()).sum::<u64>();
    }

    /// A session has begun and not yet dialled.
    pub(super) fn begin<E: Engine>(&self, key: SessionKey, ctx: &mut Ctx<E>) {
        let entry = ctx.sessions.get(key);
        if entry.is_some_and(|it| self.records.begin(it.id.id())) {
            note_reached(key, ctx);
            if let Some(entry) = ctx.sessions.get(key) {
                ctx.log.session(record(entry, ctx));
            }
        }
        self.tap(key, ctx);
    }

    /// A leg of a session is about to be closed. The kernel's view of it goes with the
    /// descriptor: what the record wants of it is read now.
    pub(super) fn leg_closes<E: Engine>(&self, key: SessionKey, side: Side, ctx: &mut Ctx<E>) {
        if !self.records.any() {
            return;
        }
        if side == Side::Client {
            note_reached(key, ctx);
        }
        if let Some(info) = ctx.engine.tcp_info(key, side)
            && let Some(entry) = ctx.sessions.get_mut(key)
        {
            entry.aside.last_words_or_new().tcp[side.index()] = Some(info);
        }
    }

    /// A session has ended.
    pub(super) fn end<E: Engine>(&self, entry: &Entry, ctx: &Ctx<E>) {
        if self
            .records
            .end(entry.id.id(), entry.session.ending(), false)
        {
            ctx.log.session(record(entry, ctx));
        }
    }

    fn tap<E: Engine>(&self, key: SessionKey, ctx: &mut Ctx<E>) {
        if self.taps.is_empty() && self.onlookers.is_empty() {
            return;
        }
        let Some(entry) = ctx.sessions.get(key) else {
            return;
        };
        let id = entry.listener.forward.id;
        let looks = |it: &&Onlooker| it.forwards.as_ref().is_none_or(|ids| ids.contains(&id));
        let onlookers = self.onlookers.iter().filter(looks);
        let sources = self.taps.get(&id).into_iter();
        for source in sources.chain(onlookers.map(|it| &it.source)) {
            show(key, source, ctx);
        }
    }

    /// A session that runs is shown to somebody from now on.
    pub(super) fn look_at<E: Engine>(
        &mut self,
        key: SessionKey,
        source: &Source,
        ctx: &mut Ctx<E>,
    ) {
        self.has_tapped = true;
        show(key, source, ctx);
    }

    /// A session has ended: its tap learns how.
    pub(super) fn untap<E: Engine>(&self, key: SessionKey, entry: &Entry, ctx: &mut Ctx<E>) {
        if !self.has_tapped {
            return;
        }
        if let Some(feed) = ctx.engine.untap(key) {
            let session = &entry.session;
            feed.close(Closing {
                moved_to: None,
                ending: session.ending(),
                totals: Direction::BOTH.map(|direction| session.lane(direction).bytes_in()),
            });
        }
    }

    /// Brings the gauge of what taps lost up to date.
    pub(super) fn publish<E: Engine>(&self, ctx: &Ctx<E>) {
        let sources = self.taps.values();
        let mut lost = self.lost_before;
        let onlookers = self.onlookers.iter();
        lost += onlookers.map(|it| it.source.dropped_bytes()).sum::<u64>();
        for (index, source) in sources.clone().enumerate() {
            let counted = sources.clone().take(index);
            if !counted.into_iter().any(|other| other.shares_target(source)) {
                lost += source.dropped_bytes();
            }
        }
        ctx.counters.tap_dropped_bytes.follow(lost);
    }
}

/// Shows a session to whoever this is, beside others who look at it.
fn show<E: Engine>(key: SessionKey, source: &Source, ctx: &mut Ctx<E>) {
    let Some(entry) = ctx.sessions.get_mut(key) else {
        return;
    };
    let beside = ctx.engine.untap(key);
    let is_new = beside.is_none();
    let session = &entry.session;
    let sight = Sight {
        id: entry.id.id(),
        forward: &entry.listener.forward.name,
        client: &entry.client.get(),
        listener: &entry.listener.address,
        before: Direction::BOTH.map(|direction| session.lane(direction).bytes_in()),
    };
    let Some(feed) = source.open(&sight, beside) else {
        return;
    };
    for direction in Direction::BOTH {
        if feed.takes(direction) {
            entry.session.lane_mut(direction).tap();
        }
    }
    if is_new {
        ctx.counters.tap_sessions.add(1);
    }
    ctx.engine.tap(key, feed);
}

/// Which address the client has reached at a listener that is on all of them.
fn note_reached<E: Engine>(key: SessionKey, ctx: &mut Ctx<E>) {
    let entry = ctx.sessions.get(key);
    let on_all = entry.is_some_and(|it| it.listener.address.is_unspecified());
    if on_all
        && let Some(reached) = ctx.engine.local_address(key, Side::Client)
        && let Some(entry) = ctx.sessions.get_mut(key)
    {
        entry.aside.last_words_or_new().reached = Some(reached);
    }
}

fn record<E: Engine>(entry: &Entry, ctx: &Ctx<E>) -> SessionRecord {
    let forward = &entry.listener.forward;
    let session = &entry.session;
    let failures = entry.aside.dialling().map(|it| it.failures.as_slice());
    let failures = failures.unwrap_or_default();
    let last = failures.last().map(|(destination, _)| destination);
    let destination = entry.destination.as_ref().or(last);
    let opened = entry.aside.opened();
    let words = entry.aside.last_words();
    SessionRecord {
        at: SystemTime::now(),
        forward: forward.name.clone(),
        reactor: entry.id.reactor(),
        id: entry.id.id(),
        client: entry.client.get(),
        peer: opened.and_then(|it| it.peer().cloned()),
        listener: entry.listener.address.clone(),
        reached: words.and_then(|it| it.reached.clone()),
        route: opened.and_then(|it| it.route(entry)),
        sni: opened
            .and_then(|it| it.sniffed()?.server_name.as_deref())
            .map(|name| Word(name.as_bytes()).to_string()),
        target: opened.and_then(|it| it.target.as_deref().map(str::to_owned)),
        user: opened.and_then(|it| it.user.as_deref().map(str::to_owned)),
        status: opened.and_then(|it| it.status),
        server: destination.map(|it| it.endpoint().clone()),
        tried: failures
            .iter()
            .map(|(tried, cause)| (tried.endpoint().clone(), *cause))
            .collect(),
        warm: entry.warm,
        attempts: session.attempts(),
        ending: session.ending(),
        connect: session.connect_time(),
        first_byte: session.first_byte_time(),
        total: session.total_time(ctx.engine.now()),
        held_back: meters(entry).map(|it| it.held(ctx.engine.now())),
        up: session.lane(Direction::Up).into(),
        down: session.lane(Direction::Down).into(),
        client_tcp: words.and_then(|it| it.tcp[0]),
        upstream_tcp: words.and_then(|it| it.tcp[1]),
        flow: None,
    }
}
