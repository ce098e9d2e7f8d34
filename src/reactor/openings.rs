//! Sessions whose client says something before its payload: it is read, somebody
//! decides, and the client is told.
//!
//! ```text
//! Action::Read   ─► peek, feed, take ─► the route ─► … ─► Read
//! Action::Decide ─► the decider, elsewhere … `decided` ─► Decided
//! Action::Say    ─► what the opening owes ──────────────► Said
//! ```
//! Invariants: exactly the bytes of the steps are taken off the client's socket, and none of
//! what is only looked at; a session is routed once, and decided about once; an answer is
//! begun once and counted once.

use super::context::Ctx;
use super::decider::{Decider, Decision, Ruling};
use super::let_in::let_in;
use super::opened::{Opened, UnderWay};
use super::routing::{Piloted, Routed, steer};
use crate::engine::{Engine, Peeked, SessionKey};
use crate::net::turn_away::{self, TurnAway};
use crate::net::word::Word;
use crate::observe::counters::Counters;
use crate::observe::metrics::cell::Counter;
use crate::observe::notice::{Kind, Notice, Subject};
use crate::policy::route::Protocol;
use crate::proto::opening::StepKind;
use crate::proto::prelude;
use crate::relay::Side;
use crate::relay::ending::Cause;
use crate::relay::session::{Close, Decided, Event as SessionEvent, Read, Said};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Openings {
    decider: Option<Box<dyn Decider>>,
    /// What was peeked at last; reused, so that a read allocates nothing.
    seen: Vec<u8>,
}

/// What a look at the socket brought.
enum Looked {
    /// This much of the opening.
    Read(prelude::Read, usize),
    /// Nothing that is new.
    Nothing,
    /// The client is gone.
    Gone(Cause),
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
        let mut steps = 0;
        // Each round takes something or ends a step, so there are no more rounds than
        // bytes and steps.
        let read = loop {
            let entry = ctx.sessions.get_mut(key)?;
            let under_way = entry.aside.opened_mut()?.under_way.as_mut()?;
            if under_way.opening.is_complete() {
                match Self::route(ctx, key)? {
                    Some(read) => break read,
                    None => continue,
                }
            }
            if let Some(StepKind::ProxyHeader { trust, .. }) =
                under_way.opening.step().map(|it| &it.kind)
                && !trust.takes(entry.client.ip())
            {
                break Read::Refused(Cause::UntrustedProxy);
            }
            let announces = matches!(
                under_way.opening.step().map(|it| &it.kind),
                Some(StepKind::ProxyHeader { .. })
            );
            let (read, len) = match self.look(ctx, key)? {
                Looked::Read(read, len) => {
                    let opened = ctx.sessions.get_mut(key)?.aside.opened_mut()?;
                    opened.heard |= !announces && len > 0;
                    (read, len)
                }
                Looked::Nothing => {
                    let step = Self::under_way(ctx, key)?.opening.step();
                    let next = step.filter(|_| steps > 0)?;
                    return Some(SessionEvent::Read(Read::Step(next.patience)));
                }
                Looked::Gone(cause) => break Read::Ended(cause),
            };
            let taken = match read {
                prelude::Read::More => len,
                prelude::Read::Taken(taken) => taken,
                prelude::Read::Seen | prelude::Read::Wait => 0,
                // What is left in the socket is never read: it is discarded.
                prelude::Read::Invalid(cause) => break Read::Refused(cause),
            };
            if taken > 0
                && let Err(cause) = ctx.engine.take(key, Side::Client, taken)
            {
                break Read::Ended(cause);
            }
            if read != prelude::Read::More {
                steps += 1;
                let entry = ctx.sessions.get_mut(key)?;
                let opened = entry.aside.opened_mut()?;
                let known = opened.header().is_some();
                if let Some(client) = opened.keep(&entry.client.get()) {
                    entry.client = client.into();
                }
                if !known && opened.header().is_some() && !Self::let_in(ctx, key)? {
                    break Self::denied(ctx, key)?;
                }
            }
        };
        Self::close(ctx, key, read);
        Some(SessionEvent::Read(read))
    }

    /// It is known now who the client is: whether it may come in.
    fn let_in<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey) -> Option<bool> {
        let entry = ctx.sessions.get(key)?;
        let (at, client) = (entry.listener.clone(), entry.client.get());
        let Ok(grant) = let_in(ctx, &at.forward, &client) else {
            return Some(false);
        };
        ctx.sessions.get_mut(key)?.grant = grant;
        // It was counted for who sent the header.
        ctx.shortage.left(key);
        ctx.shortage.entered(key, &ctx.sessions);
        Some(true)
    }

    /// Who was announced may not come in: its connection ends as `on_deny` says.
    fn denied<E: Engine>(ctx: &Ctx<E>, key: SessionKey) -> Option<Read> {
        let entry = ctx.sessions.get(key)?;
        let policy = entry.listener.forward.clients.as_ref();
        Some(Read::Denied(
            match policy.map_or(TurnAway::Reset, |it| it.turns_away) {
                TurnAway::Close => Close::Orderly,
                TurnAway::Reset => Close::Reset,
                TurnAway::Drop => {
                    if let Some(fd) = ctx.engine.fd(key, Side::Client) {
                        turn_away::silence(fd);
                    }
                    Close::Reset
                }
            },
        ))
    }

    fn under_way<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey) -> Option<&mut UnderWay> {
        let opened = ctx.sessions.get_mut(key)?.aside.opened_mut()?;
        opened.under_way.as_deref_mut()
    }

    /// Looks what is there, and feeds it to the step that is on.
    fn look<E: Engine>(&mut self, ctx: &mut Ctx<E>, key: SessionKey) -> Option<Looked> {
        let room = Self::under_way(ctx, key)?.opening.room();
        if self.seen.len() < room {
            self.seen.resize(room, 0);
        }
        let seen = &mut self.seen[..room];
        let len = match ctx.engine.peek(key, Side::Client, seen) {
            Peeked::Bytes(len) => len,
            Peeked::Empty => return Some(Looked::Nothing),
            Peeked::Failed(cause) => return Some(Looked::Gone(cause)),
            Peeked::Ended => {
                return Some(match Self::under_way(ctx, key)?.opening.end(&[]) {
                    // Who said nothing wrong, and not all.
                    prelude::Read::Invalid(_) | prelude::Read::Wait => {
                        Looked::Gone(Cause::NoRequest)
                    }
                    read => Looked::Read(read, 0),
                });
            }
        };
        let opening = &mut Self::under_way(ctx, key)?.opening;
        let read = opening.feed(&seen[..len]);
        if read != prelude::Read::Wait {
            return Some(Looked::Read(read, len));
        }
        if !ctx.engine.has_ended(key, Side::Client) {
            ctx.engine.await_more(key, Side::Client);
            Self::under_way(ctx, key)?.awaits = true;
            // What is missing may wait for it (Nagle's algorithm).
            Self::release_acks(ctx, key);
            return Some(Looked::Nothing);
        }
        // What came between the two is the last.
        let seen = &mut self.seen[..room];
        Some(match ctx.engine.peek(key, Side::Client, seen) {
            Peeked::Bytes(len) => {
                let opening = &mut Self::under_way(ctx, key)?.opening;
                Looked::Read(opening.end(&seen[..len]), len)
            }
            Peeked::Failed(cause) => Looked::Gone(cause),
            Peeked::Empty | Peeked::Ended => Looked::Gone(Cause::NoRequest),
        })
    }

    /// All is known by which a session is routed, or all of its request is read. `None`:
    /// more is to be read.
    #[allow(clippy::option_option, reason = "gone, or to be read on, or an event")]
    fn route<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey) -> Option<Option<Read>> {
        let under_way = Self::under_way(ctx, key)?;
        if std::mem::replace(&mut under_way.routed, true) {
            return Some(Some(Read::Whole));
        }
        let piloted = Self::steer(ctx, key)?;
        let entry = ctx.sessions.get_mut(key)?;
        if let Piloted::Refused(why) = piloted {
            let under_way = Self::under_way(ctx, key)?;
            under_way.opening.facts.wrong = Some(why);
            return Some(Some(Read::Refused(Cause::Rejected)));
        }
        if let Piloted::To(destinations) = piloted {
            let opened = entry.aside.opened_mut()?;
            opened.aimed = true;
            opened.under_way.as_mut()?.destinations = destinations;
            return Some(Some(Read::Whole));
        }
        if let Piloted::Goes(way) = piloted {
            entry.listener = way;
        } else if let Some(routing) = &entry.listener.forward.routing {
            let opened = entry.aside.opened_mut()?;
            let local = opened.destination().or_else(|| {
                let asked = routing.by_listener;
                asked.then(|| ctx.engine.local_address(key, Side::Client))?
            });
            let sniffed = opened.sniffed();
            match routing.route(
                &entry.listener,
                &entry.client.get(),
                local.as_ref(),
                sniffed,
            ) {
                Routed::Stays => {}
                Routed::Goes(way) => entry.listener = way,
                Routed::Rejected(route) => {
                    opened.rejected_by = Some(route);
                    return Some(Some(Read::Refused(Cause::Rejected)));
                }
            }
        }
        let request = entry.listener.forward.request.clone();
        if request.is_empty() {
            return Some(Some(Read::Whole));
        }
        Self::under_way(ctx, key)?.opening.go_on(&request);
        Some(None)
    }

    /// What the client has said is acknowledged without its answer; once.
    fn release_acks<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey) {
        let held = Self::under_way(ctx, key).map(|it| std::mem::take(&mut it.holds_acks));
        if held == Some(true) {
            ctx.engine.acknowledge(key, Side::Client);
        }
    }

    /// What the program that this runs in decides, if it does.
    fn steer<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey) -> Option<Piloted> {
        let entry = ctx.sessions.get(key)?;
        let Some(pilot) = &entry.listener.forward.pilot else {
            return Some(Piloted::AsConfigured);
        };
        let sniffed = entry.aside.opened()?.sniffed();
        Some(steer(pilot, &entry.listener, &entry.client.get(), sniffed))
    }

    /// The opening is read, or nothing more of it is.
    fn close<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey, read: Read) {
        let Some(entry) = ctx.sessions.get_mut(key) else {
            return;
        };
        let Some(opened) = entry.aside.opened_mut() else {
            return;
        };
        let Some(under_way) = &mut opened.under_way else {
            return;
        };
        let facts = &mut under_way.opening.facts;
        let (asked, wrong) = (facts.asked.take(), facts.wrong.take());
        if std::mem::take(&mut under_way.awaits) {
            ctx.engine.await_no_more(key, Side::Client);
        }
        let holds_acks = std::mem::take(&mut under_way.holds_acks);
        let protocol = opened.sniffed().map(|it| it.protocol);
        if holds_acks && protocol != Some(Protocol::Tls) {
            ctx.engine.acknowledge(key, Side::Client);
        }
        let host = opened.sniffed().and_then(|it| it.host.as_deref());
        let asked = asked.as_deref().or(host.map(str::as_bytes));
        opened.target = asked.map(|asked| Word(asked).to_string().into());
        if let Read::Refused(cause) = read {
            let (forward, client) = (entry.listener.forward.clone(), entry.client.get());
            if let Some(counter) = refused(&ctx.counters, cause) {
                counter.add(1);
            }
            if forward.request.is_empty() {
                let subject = Subject::Forward(forward.id);
                ctx.complain(Kind::OpeningRefused, subject, || Notice::OpeningRefused {
                    forward: forward.name.clone(),
                    client,
                    cause,
                    why: wrong.unwrap_or(why(cause)),
                });
            }
        }
    }

    /// Carries out `Action::Decide`.
    pub(super) fn decide<E: Engine>(
        &self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
    ) -> Option<SessionEvent> {
        let entry = ctx.sessions.get_mut(key)?;
        let forward = &entry.listener.forward;
        let opened = entry.aside.opened_mut()?;
        if opened.aimed || forward.request.is_empty() {
            return Some(SessionEvent::Decided(Decided::Dial));
        }
        let under_way = opened.under_way.as_mut()?;
        let mut facts = std::mem::take(&mut under_way.opening.facts);
        facts.client = entry.client.ip();
        match &self.decider {
            Some(decider) => {
                under_way.asked = true;
                let route = forward.route.as_ref().map(|(at, _)| *at);
                decider.decide(key, forward.id, route, facts);
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
        let opened = entry.aside.opened_mut()?;
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
        let opened = entry.aside.opened_mut()?;
        let under_way = opened.under_way.as_mut()?;
        if opened.status.is_none() {
            let refused = entry.session.ending().map(|ending| ending.cause);
            let Some(answer) = under_way.opening.answer(refused) else {
                opened.under_way = None;
                return Some(SessionEvent::Said(Said::Nothing));
            };
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

/// What is to be said of a client that is turned away, where nobody has said more.
const fn why(cause: Cause) -> &'static str {
    match cause {
        Cause::UntrustedProxy => "`accept_proxy` does not name this sender",
        Cause::Rejected => "a route turns it away",
        _ => "what it said first is not served",
    }
}

const fn refused(counters: &Counters, cause: Cause) -> Option<&Counter> {
    Some(match cause {
        Cause::NoProxyHeader => &counters.opening_no_proxy_header,
        Cause::BadProxyHeader => &counters.opening_bad_proxy_header,
        Cause::UntrustedProxy => &counters.opening_untrusted_proxy,
        Cause::BadHello => &counters.opening_bad_hello,
        Cause::Rejected => &counters.opening_rejected,
        _ => return None,
    })
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
