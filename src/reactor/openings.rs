//! Sessions whose client says something before its payload: it is read, somebody
//! decides, and the client is told.
//!
//! ```text
//! Action::Read   ─► peek, feed, take ───────────────────► Read
//! Action::Decide ─► the decider, elsewhere … `decided` ─► Decided
//! Action::Say    ─► what the opening owes ──────────────► Said
//! ```
//! Invariants: exactly the bytes of the steps are taken off the client's socket; it is
//! decided about a session once; an answer is begun once and counted once.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

use super::context::Ctx;
use super::destination::{Destination, Destinations};
use crate::engine::{Engine, Peeked, SessionKey};
use crate::net::address::Endpoint;
use crate::net::word::Word;
use crate::observe::counters::Counters;
use crate::observe::metrics::cell::Counter;
use crate::proto::opening::{Opening, Step};
use crate::proto::prelude::{self, Facts};
use crate::relay::Side;
use crate::relay::ending::Cause;
use crate::relay::id::ForwardId;
use crate::relay::session::{Decided, Event as SessionEvent, Read, Said};

/// Decides what becomes of a session by what its opening found out; asked once a
/// session, by the reactor's thread.
pub trait Decider: Debug + Send {
    /// Decides without blocking. What it decides is handed to
    /// [`Reactor::decided`](super::Reactor::decided) with this key, later.
    fn decide(&self, key: SessionKey, forward: ForwardId, facts: Facts);

    /// The session is gone, and its question with it: what is not begun need not be.
    fn gone(&self, _: SessionKey) {}
}

/// What becomes of a session.
#[derive(Debug, Clone)]
pub enum Decision {
    /// It goes to the first of these that answers.
    Direct(Destinations),
    /// It goes nowhere, by this cause.
    Refuse(Cause),
}

/// What a decider found.
#[derive(Debug, Clone)]
pub struct Ruling {
    /// Who asks, if that was looked at; shown in records.
    pub user: Option<String>,
    /// What becomes of the session.
    pub decision: Decision,
}

/// What a session has besides, because it had an opening: little, for it is kept as
/// long as the session.
#[derive(Debug)]
pub(super) struct Opened {
    /// Until the client is answered.
    under_way: Option<Box<UnderWay>>,
    /// For the record, escaped.
    pub(super) target: Option<Box<str>>,
    pub(super) user: Option<Box<str>>,
    /// What the client was answered.
    pub(super) status: Option<u16>,
}

/// An opening that is being read, decided upon or answered.
#[derive(Debug)]
struct UnderWay {
    opening: Opening,
    destinations: Destinations,
    /// What of the answer is still to be said.
    unsaid: Vec<u8>,
    /// The decider was asked, and has not answered.
    asked: bool,
}

impl Opened {
    /// Of a new session; `None`: nothing comes before its payload.
    pub(super) fn begin(steps: &Arc<[Step]>) -> Option<Box<Self>> {
        let under_way = UnderWay {
            opening: Opening::begin(steps)?,
            destinations: Destinations::default(),
            unsaid: Vec::new(),
            asked: false,
        };
        Some(Box::new(Self {
            under_way: Some(Box::new(under_way)),
            target: None,
            user: None,
            status: None,
        }))
    }

    /// Where the session goes; once.
    pub(super) fn take_destinations(&mut self) -> Destinations {
        let under_way = self.under_way.as_mut();
        under_way.map_or_else(Destinations::default, |it| {
            std::mem::take(&mut it.destinations)
        })
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Openings {
    decider: Option<Box<dyn Decider>>,
    /// What was peeked at last; reused, so that a read allocates nothing.
    seen: Vec<u8>,
}

impl Openings {
    pub(super) const fn new(decider: Option<Box<dyn Decider>>) -> Self {
        Self {
            decider,
            seen: Vec::new(),
        }
    }

    /// Who decides from now on; what was asked before is still answered.
    pub(super) fn set_decider(&mut self, decider: Option<Box<dyn Decider>>) {
        self.decider = decider;
    }

    /// Carries out `Action::Read`. The event is for the session.
    pub(super) fn read<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
    ) -> Option<SessionEvent> {
        let opened = ctx.sessions.get_mut(key)?.opening.as_mut()?;
        let opening = &mut opened.under_way.as_mut()?.opening;
        // Each round takes something, so there are no more rounds than bytes.
        let read = loop {
            self.seen.resize(opening.room(), 0);
            let len = match ctx.engine.peek(key, Side::Client, &mut self.seen) {
                Peeked::Bytes(len) => len,
                Peeked::Empty => return None,
                Peeked::Ended => break Read::Ended(Cause::NoRequest),
                Peeked::Failed(cause) => break Read::Ended(cause),
            };
            let taken = match opening.feed(&self.seen[..len]) {
                prelude::Read::More => len,
                prelude::Read::Taken(len) => len,
                // What is left in the socket is never read: it is discarded.
                prelude::Read::Invalid(cause) => break Read::Refused(cause),
            };
            if let Err(cause) = ctx.engine.take(key, Side::Client, taken) {
                break Read::Ended(cause);
            }
            if opening.is_complete() {
                break Read::Whole;
            }
        };
        let asked = opening.facts.asked.take();
        opened.target = asked.map(|asked| Word(&asked).to_string().into());
        Some(SessionEvent::Read(read))
    }

    /// Carries out `Action::Decide`.
    pub(super) fn decide<E: Engine>(
        &self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
    ) -> Option<SessionEvent> {
        let entry = ctx.sessions.get_mut(key)?;
        let under_way = entry.opening.as_mut()?.under_way.as_mut()?;
        let mut facts = std::mem::take(&mut under_way.opening.facts);
        facts.client = match &entry.client {
            Endpoint::Inet(address) => Some(address.ip()),
            Endpoint::Unix(_) | Endpoint::Unnamed => None,
        };
        match &self.decider {
            Some(decider) => {
                under_way.asked = true;
                decider.decide(key, entry.listener.forward.id, facts);
                None
            }
            None => Some(SessionEvent::Decided(Decided::Refused(Cause::Stopped))),
        }
    }

    /// A session is gone: nobody waits for what may still be found out for it.
    pub(super) fn gone(&self, key: SessionKey, opened: &Opened) {
        let asked = opened.under_way.as_ref().is_some_and(|it| it.asked);
        if let Some(decider) = self.decider.as_ref().filter(|_| asked) {
            decider.gone(key);
        }
    }

    /// Takes the decision about a session. One that comes too late is dropped.
    pub(super) fn decided<E: Engine>(
        ctx: &mut Ctx<E>,
        key: SessionKey,
        ruling: Ruling,
    ) -> Option<SessionEvent> {
        let Some(entry) = ctx.sessions.get_mut(key) else {
            ctx.counters.stale_events.add(1);
            return None;
        };
        if !entry.session.is_deciding() {
            return None;
        }
        let opened = entry.opening.as_mut()?;
        if let Some(under_way) = &mut opened.under_way {
            under_way.asked = false;
        }
        opened.user = ruling
            .user
            .map(|user| Word(user.as_bytes()).to_string().into());
        let decided = match ruling.decision {
            Decision::Direct(destinations) => {
                opened.under_way.as_mut()?.destinations = destinations;
                Decided::Dial
            }
            Decision::Refuse(cause) => Decided::Refused(cause),
        };
        Some(SessionEvent::Decided(decided))
    }

    /// Carries out `Action::Say`.
    pub(super) fn say<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey) -> Option<SessionEvent> {
        let entry = ctx.sessions.get_mut(key)?;
        let opened = entry.opening.as_mut()?;
        let under_way = opened.under_way.as_mut()?;
        if opened.status.is_none() {
            let refused = entry.session.ending().map(|ending| ending.cause);
            let answer = under_way.opening.answer(refused);
            opened.status = Some(answer.status);
            under_way.unsaid = answer.bytes;
            if let Some(counter) = counter_of(&ctx.counters, answer.status) {
                counter.add(1);
            }
        }
        let said = match ctx.engine.say(key, Side::Client, &under_way.unsaid) {
            Ok(said) if said == under_way.unsaid.len() => {
                // Nothing is kept of it but what the record says.
                opened.under_way = None;
                Said::Whole
            }
            Ok(said) => {
                under_way.unsaid.drain(..said);
                Said::Part
            }
            Err(cause) => Said::Failed(cause),
        };
        Some(SessionEvent::Said(said))
    }
}

impl From<Vec<SocketAddr>> for Decision {
    /// The addresses of one target, in order; with none, there is no server.
    fn from(addresses: Vec<SocketAddr>) -> Self {
        Self::Direct(addresses.into_iter().map(Destination::from).collect())
    }
}

const fn counter_of(counters: &Counters, status: u16) -> Option<&Counter> {
    Some(match status {
        200 => &counters.http_connect_200,
        400 => &counters.http_connect_400,
        403 => &counters.http_connect_403,
        405 => &counters.http_connect_405,
        407 => &counters.http_connect_407,
        408 => &counters.http_connect_408,
        431 => &counters.http_connect_431,
        502 => &counters.http_connect_502,
        503 => &counters.http_connect_503,
        504 => &counters.http_connect_504,
        _ => return None,
    })
}
