//! The reactor's side of a tap: a [`Feed`] for each tapped session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::SystemTime;

use crate::config::Tap;
use crate::net::address::Endpoint;
use crate::observe::outlet::Order;
use crate::relay::Direction;
use crate::relay::ending::Ending;

/// Bytes that a reactor may have on their way to one target: 64 sessions that each
/// show 64 KiB at the same moment.
pub const QUEUE_BYTES: u64 = 4 << 20;

/// What an entry of the queue counts besides its bytes, so that a flood of tiny
/// chunks is bounded too.
const ITEM_COST: u64 = 256;

/// How far a target's thread has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    items: AtomicU64,
    failed_bytes: AtomicU64,
}

impl Progress {
    /// Entries of the queue that it has taken.
    pub(super) fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }

    /// It has taken one more.
    pub(super) fn advance(&self) {
        self.items.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes its target did not take.
    pub(super) fn fail(&self, bytes: u64) {
        self.failed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a reactor may still feed to one target. The reactor takes, the target's
/// thread gives back.
#[derive(Debug, Default)]
pub(super) struct Budget {
    queued: AtomicU64,
    dropped_bytes: AtomicU64,
    dropped_sessions: AtomicU64,
    /// What the target itself did not take; told by one reactor for all of them.
    target: Option<Arc<Progress>>,
}

impl Budget {
    /// `target`: what that counts, for the reactor that tells of it.
    pub(super) fn new(target: Option<Arc<Progress>>) -> Self {
        Self {
            target,
            ..Self::default()
        }
    }

    fn take(&self, cost: u64) -> bool {
        // The only one who adds is this reactor: between the two the sum can only
        // shrink.
        let fits = self.queued.load(Ordering::Relaxed) + cost <= QUEUE_BYTES;
        if fits {
            self.queued.fetch_add(cost, Ordering::Relaxed);
        }
        fits
    }

    /// An item was taken off the queue.
    pub(super) fn give_back(&self, cost: u64) {
        self.queued.fetch_sub(cost, Ordering::Relaxed);
    }

    /// Bytes were not shown.
    fn drop_bytes(&self, n: u64) {
        self.dropped_bytes.fetch_add(n, Ordering::Relaxed);
    }

    /// Sessions of which nothing was shown at all, since this was asked last.
    fn take_dropped_sessions(&self) -> u64 {
        self.dropped_sessions.swap(0, Ordering::Relaxed)
    }
}

/// One tap, as one reactor has it.
#[derive(Debug, Clone)]
pub struct Source {
    tap: Arc<Tap>,
    reactor: u16,
    queue: Sender<Item>,
    budget: Arc<Budget>,
    /// Nobody looks any more; `None`: somebody always does.
    over: Option<Arc<AtomicBool>>,
    /// Who is told to end with the first session that does.
    only: Option<Sender<Order>>,
}

/// A session that is to be shown.
#[derive(Debug, Clone)]
pub struct Sight<'a> {
    /// Its number on its reactor, from 1.
    pub id: u64,
    /// The name of its forward.
    pub forward: &'a Arc<str>,
    /// Who came.
    pub client: &'a Endpoint,
    /// Where.
    pub listener: &'a Endpoint,
    /// Bytes of each direction that were read before anybody looked.
    pub before: [u64; 2],
}

impl Source {
    pub(super) const fn new(
        tap: Arc<Tap>,
        reactor: u16,
        queue: Sender<Item>,
        budget: Arc<Budget>,
    ) -> Self {
        Self {
            tap,
            reactor,
            queue,
            budget,
            over: None,
            only: None,
        }
    }

    /// Likewise, until somebody says that it is over.
    pub(super) fn until(self, over: Arc<AtomicBool>) -> Self {
        let over = Some(over);
        Self { over, ..self }
    }

    /// Likewise, of one session: with it all of it ends.
    pub(super) fn only(self, outlet: Sender<Order>) -> Self {
        let only = Some(outlet);
        Self { only, ..self }
    }

    /// Whether nobody looks any more.
    pub fn is_over(&self) -> bool {
        is_over(self.over.as_ref())
    }

    /// Whether both show to the same somebody, who looks for a time.
    pub fn is_of(&self, other: &Self) -> bool {
        match (&self.over, &other.over) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// One that shows to nobody, and counts as any other: for the simulator and tests.
    pub fn to_nobody(tap: Tap) -> Self {
        let (queue, _) = std::sync::mpsc::channel();
        Self::new(Arc::new(tap), 0, queue, Arc::default())
    }

    /// The feed of a session, beside the one that it has; the one that it has alone if the
    /// filter leaves it out, or it is shown there already.
    pub fn open(&self, session: &Sight<'_>, beside: Option<Box<Feed>>) -> Option<Box<Feed>> {
        let filter = &self.tap.filter;
        let has = beside.as_ref().is_some_and(|it| it.shows_to(self));
        if has || self.is_over() || !filter.sample.takes(session.id) || !self.wants(session.client)
        {
            return beside;
        }
        let opening = Opening {
            at: SystemTime::now(),
            tap: self.tap.clone(),
            forward: session.forward.clone(),
            client: session.client.clone(),
            listener: session.listener.clone(),
            budget: self.budget.clone(),
            sessions_missing: 0,
            before: session.before,
        };
        Some(Box::new(Feed {
            queue: self.queue.clone(),
            budget: self.budget.clone(),
            session: SessionNumber {
                reactor: self.reactor,
                id: session.id,
            },
            left: self.tap.max_bytes_per_session,
            tap: self.tap.clone(),
            opening: Some(Box::new(opening)),
            missing: [0; 2],
            ended: [false; 2],
            over: self.over.clone(),
            only: self.only.clone(),
            // Those whom nobody looks at any more are forgotten: however often somebody comes
            // and goes, a session has as many as look at it.
            beside: beside.and_then(Feed::living),
        }))
    }

    fn wants(&self, client: &Endpoint) -> bool {
        let networks = &self.tap.filter.client;
        let address = client.ip().map(|it| it.to_canonical());
        networks.is_empty()
            || address.is_some_and(|ip| networks.iter().any(|network| network.contains(&ip)))
    }

    /// Bytes that its target did not get so far, for want of room in the queue or
    /// because it failed; forwards of a reactor that share a target share the figure.
    pub fn dropped_bytes(&self) -> u64 {
        let failed = self.budget.target.as_ref();
        self.budget.dropped_bytes.load(Ordering::Relaxed)
            + failed.map_or(0, |target| target.failed_bytes.load(Ordering::Relaxed))
    }

    /// Whether both feed the same target.
    pub fn shares_target(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.budget, &other.budget)
    }
}

/// Which session: as `id=REACTOR.NUMBER` in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionNumber {
    pub(super) reactor: u16,
    pub(super) id: u64,
}

/// What a target's thread is told of a session before anything else.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) at: SystemTime,
    pub(super) tap: Arc<Tap>,
    pub(super) forward: Arc<str>,
    pub(super) client: Endpoint,
    pub(super) listener: Endpoint,
    pub(super) budget: Arc<Budget>,
    /// Sessions before this one of which nothing was shown, since this was told last.
    pub(super) sessions_missing: u64,
    /// Bytes of each direction that were read before anybody looked.
    pub(super) before: [u64; 2],
}

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// The sender has said all (FIN).
    Orderly,
    /// The connection failed (RST, or a timeout of the kernel).
    Failed,
}

/// How a session ended.
#[derive(Debug, Clone, Copy)]
pub struct Closing {
    /// Who ended it, when and why; `None` if it never got so far.
    pub ending: Option<Ending>,
    /// Bytes read, up and down.
    pub totals: [u64; 2],
    /// It is not over, but goes on in this process, unseen.
    pub moved_to: Option<u32>,
}

/// What goes through the queue.
#[derive(Debug)]
pub(super) enum Item {
    /// The first of a session.
    Open(SessionNumber, Box<Opening>),
    /// Bytes of one direction.
    Chunk(SessionNumber, Chunk),
    /// The end of one direction.
    End(SessionNumber, End),
    /// The last of a session.
    Close(SessionNumber, Box<Close>),
    /// Wakes the thread up.
    Nothing,
}

impl Item {
    /// Whose it is.
    pub(super) const fn session(&self) -> Option<SessionNumber> {
        match self {
            Self::Open(number, _)
            | Self::Chunk(number, _)
            | Self::End(number, _)
            | Self::Close(number, _) => Some(*number),
            Self::Nothing => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) at: SystemTime,
    pub(super) direction: Direction,
    /// Bytes of this direction that are missing before these.
    pub(super) missing: u64,
    pub(super) bytes: Box<[u8]>,
    /// Nothing more of this session is shown.
    pub(super) last: bool,
}

impl Chunk {
    /// What it takes of its reactor's budget.
    pub(super) const fn cost(&self) -> u64 {
        self.bytes.len() as u64 + ITEM_COST
    }
}

/// What an opening takes of its reactor's budget.
pub(super) const OPENING_COST: u64 = ITEM_COST;

#[derive(Debug)]
pub(super) struct End {
    pub(super) at: SystemTime,
    pub(super) direction: Direction,
    pub(super) how: StreamEnd,
    pub(super) missing: u64,
    /// Bytes of the direction, all in all.
    pub(super) total: u64,
}

#[derive(Debug)]
pub(super) struct Close {
    pub(super) at: SystemTime,
    pub(super) closing: Closing,
    pub(super) missing: [u64; 2],
}

/// Whether a lane has still to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appetite {
    /// What it reads next is wanted.
    Hungry,
    /// Nothing more of it is.
    Sated,
}

/// What shows one session. Never waits, never fails: what does not fit into the
/// queue is missing in the output, where that is said.
///
/// Bounds: bytes and openings are paid for from the reactor's budget. An end and a
/// close are not, so that a target forgets every session it was told of; there are
/// at most three of them for each opening that was paid for.
#[derive(Debug)]
pub struct Feed {
    queue: Sender<Item>,
    budget: Arc<Budget>,
    session: SessionNumber,
    tap: Arc<Tap>,
    /// Bytes still to be shown.
    left: u64,
    /// What the target has not been told yet.
    opening: Option<Box<Opening>>,
    missing: [u64; 2],
    ended: [bool; 2],
    /// See [`Source`].
    over: Option<Arc<AtomicBool>>,
    only: Option<Sender<Order>>,
    /// Whoever else looks at the session.
    beside: Option<Box<Feed>>,
}

impl Feed {
    /// Whether it shows this direction, or would, to anybody.
    pub fn takes(&self, direction: Direction) -> bool {
        let wanted = self.left > 0 && !is_over(self.over.as_ref());
        wanted && self.tap.filter.direction.takes(direction)
            || self.beside.as_ref().is_some_and(|it| it.takes(direction))
    }

    /// Whether it, or one beside it, is this source's.
    fn shows_to(&self, source: &Source) -> bool {
        Arc::ptr_eq(&self.budget, &source.budget)
            || self.beside.as_ref().is_some_and(|it| it.shows_to(source))
    }

    /// Those of it that somebody looks at.
    fn living(mut self: Box<Self>) -> Option<Box<Self>> {
        let beside = self.beside.take().and_then(Self::living);
        if is_over(self.over.as_ref()) {
            return beside;
        }
        self.beside = beside;
        Some(self)
    }

    /// Where the client is really connected to, for a listener on every address.
    pub fn set_local(&mut self, local: &Endpoint) {
        if let Some(opening) = &mut self.opening {
            opening.listener = local.clone();
        }
        if let Some(beside) = &mut self.beside {
            beside.set_local(local);
        }
    }

    /// Shows bytes that were read, copied; answers whether what follows is wanted.
    pub fn chunk(&mut self, direction: Direction, bytes: &[u8]) -> Appetite {
        let appetite = self.own_chunk(direction, bytes);
        match &mut self.beside {
            None => appetite,
            Some(beside) => match (beside.chunk(direction, bytes), appetite) {
                (Appetite::Sated, Appetite::Sated) => Appetite::Sated,
                _ => Appetite::Hungry,
            },
        }
    }

    fn own_chunk(&mut self, direction: Direction, bytes: &[u8]) -> Appetite {
        let taken = self.tap.filter.direction.takes(direction);
        if self.left == 0 || !taken || is_over(self.over.as_ref()) {
            return Appetite::Sated;
        }
        let shown = (bytes.len() as u64).min(self.left);
        self.left -= shown;
        let missing = &mut self.missing[direction.index()];
        let chunk_cost = shown + ITEM_COST;
        let cost = chunk_cost + self.opening.as_ref().map_or(0, |_| OPENING_COST);
        if self.budget.take(cost) {
            let chunk = Chunk {
                at: SystemTime::now(),
                direction,
                missing: std::mem::take(missing),
                bytes: bytes[..shown as usize].into(),
                last: self.left == 0,
            };
            self.send_opening();
            self.send(Item::Chunk(self.session, chunk));
        } else {
            *missing += shown;
            self.budget.drop_bytes(shown);
        }
        if self.left == 0 {
            Appetite::Sated
        } else {
            Appetite::Hungry
        }
    }

    /// A direction has ended, after so many bytes in all. Only the first time counts.
    pub fn end(&mut self, direction: Direction, how: StreamEnd, total: u64) {
        if let Some(beside) = &mut self.beside {
            beside.end(direction, how, total);
        }
        let index = direction.index();
        let taken = self.tap.filter.direction.takes(direction);
        if self.ended[index] || !taken || is_over(self.over.as_ref()) || !self.is_open() {
            return;
        }
        self.ended[index] = true;
        let end = End {
            at: SystemTime::now(),
            direction,
            how,
            missing: std::mem::take(&mut self.missing[index]),
            total,
        };
        self.send(Item::End(self.session, end));
    }

    /// The session is over.
    pub fn close(mut self, closing: Closing) {
        if let Some(beside) = self.beside.take() {
            beside.close(closing);
        }
        if is_over(self.over.as_ref()) {
            return;
        }
        if self.is_open() {
            self.send(Item::Close(
                self.session,
                Box::new(Close {
                    at: SystemTime::now(),
                    closing,
                    missing: self.missing,
                }),
            ));
        } else {
            self.budget.dropped_sessions.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(outlet) = self.only.take() {
            // Behind what was sent, which wakes it up; whoever waited for it may have gone.
            let _ = outlet.send(Order::Close);
            self.send(Item::Nothing);
        }
    }

    /// Whether the target knows of this session; tells it, if that can be paid for.
    fn is_open(&mut self) -> bool {
        if self.opening.is_some() && self.budget.take(OPENING_COST) {
            self.send_opening();
        }
        self.opening.is_none()
    }

    fn send_opening(&mut self) {
        if let Some(mut opening) = self.opening.take() {
            opening.sessions_missing = self.budget.take_dropped_sessions();
            self.send(Item::Open(self.session, opening));
        }
    }

    fn send(&self, item: Item) {
        // The thread ends after everybody who feeds it, or by a panic of its own,
        // which it has printed.
        let _ = self.queue.send(item);
    }
}

fn is_over(over: Option<&Arc<AtomicBool>>) -> bool {
    over.is_some_and(|it| it.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests;
