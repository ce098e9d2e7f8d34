//! What is looked at before a client without a flow gets one: which route it takes, and whose connection
//! of QUIC it goes on with.
//!
//! ```text
//!  a datagram ─► an id that a server told ───────────────► that route, that server
//!  of nobody  ─► a hello ─ not whole ─► kept, and looked at with the next ones
//!                        └ whole, or none ─► a route, by what is known ─► a server of its pool
//! ```
//! Owns the datagrams of clients whose hello is not whole. Bounded: so many clients, datagrams and bytes of
//! each, and the time that a hello may take; who is not let in is not looked at. What is kept leaves first,
//! in its order, once there is a flow.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::Flows;
use super::announced::may_be_answered;
use super::heading::Client;
use super::homes::FlowName;

use super::why::Why;
use crate::engine::{DatagramKey, Datagrams};
use crate::net::address::Endpoint;
use crate::net::datagram::batch::Train;
use crate::policy::route::Protocol;
use crate::proto::quic::{Initials, Seen};
use crate::proto::sniff::Sniffed;
use crate::reactor::clients::ClientGrant;
use crate::reactor::context::Ctx;
use crate::reactor::let_in::by_policy;
use crate::reactor::quic::Home;
use crate::reactor::routing::{Piloted, Routed, steer};
use crate::reactor::setup::Listener;
use crate::relay::id::ServerId;
use crate::relay::time::Time;

/// Clients of a reactor whose hello is not whole.
const OPENINGS_MAX: usize = 512;

/// Bytes that are kept of one: sixteen datagrams of the usual size, and more than a hello has.
const KEPT_MAX: usize = 24 * 1024;

/// What of a train is looked at and passed on.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) index: usize,
    /// Bytes of it: all, or one datagram behind its header.
    pub(super) range: Range<usize>,
    /// Whom that header is for.
    pub(super) client: Option<Client>,
}

impl Part {
    pub(super) const fn whole(index: usize, train: &Train) -> Self {
        Self {
            index,
            range: 0..train.len as usize,
            client: None,
        }
    }
}

/// What a client without a flow is owed.
#[derive(Debug)]
pub(super) struct FirstLook {
    /// Where it came in, and the forward that it goes by.
    pub(super) at: Arc<Listener>,
    /// Whom a PROXY header said it is, if one did.
    pub(super) client: Option<Client>,
    /// The server that it had, if it goes on with a connection.
    pub(super) server: Option<ServerId>,
    /// Datagrams that came before.
    pub(super) kept: Vec<Vec<u8>>,
    /// Its place among its client's connections, if that was asked for already.
    pub(super) permit: Option<Permit>,
}

/// What [`by_policy`] has let in.
pub(super) type Permit = Option<Box<ClientGrant>>;

#[derive(Debug)]
struct Opening {
    /// Taken with the first datagram, as a connection's is at the accept: a hello that never comes
    /// to its end is one of its client's connections, and counts against the rate of them.
    permit: Permit,
    initials: Initials,
    kept: Vec<Vec<u8>>,
    bytes: usize,
    begun: Time,
}

/// Clients that have begun to say what they ask for.
#[derive(Debug, Default)]
pub(super) struct Looks {
    of: HashMap<FlowName, Opening>,
    /// In the order of their beginning, with when they are given up; some are gone.
    order: VecDeque<(Time, Time, FlowName)>,
}

impl Looks {
    /// When the first of them is given up.
    pub(super) fn due(&self) -> Time {
        self.order.front().map_or(Time::NEVER, |first| first.0)
    }

    /// Begins to look at what a client says, since then and until then at the latest.
    fn begin(&mut self, name: FlowName, (begun, until): (Time, Time), permit: Permit) {
        self.order.push_back((until, begun, name));
        let opening = Opening {
            permit,
            initials: Initials::default(),
            kept: Vec::new(),
            bytes: 0,
            begun,
        };
        self.of.insert(name, opening);
    }

    /// It is known what this one asks for. Most say so at once: without the clearing a flood of them
    /// would stand in the order until the time is over that none of them takes.
    fn finish(&mut self, name: &FlowName) -> Option<Opening> {
        let opening = self.of.remove(name)?;
        if self.order.len() > 2 * OPENINGS_MAX {
            let of = &self.of;
            let order = &mut self.order;
            order.retain(|(_, begun, name)| of.get(name).is_some_and(|it| it.begun == *begun));
        }
        Some(opening)
    }

    /// Gives the first up, and says how many datagrams of it were kept.
    fn give_up_first(&mut self) -> u32 {
        let Some((_, begun, name)) = self.order.pop_front() else {
            return 0;
        };
        let is_it = self.of.get(&name).is_some_and(|it| it.begun == begun);
        let gone = is_it.then(|| self.of.remove(&name)).flatten();
        gone.map_or(0, |it| it.kept.len() as u32)
    }
}

impl Flows {
    /// Looks at a train of a client that has no flow. `Ok(None)`: it is kept.
    pub(super) fn look<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        port: DatagramKey,
        name: &FlowName,
        said: &Part,
    ) -> Result<Option<FirstLook>, Why> {
        let at = self.owners.port_mut(port).ok_or(Why::Draining)?.at.clone();
        let quic = at
            .forward
            .datagrams
            .as_ref()
            .and_then(|it| it.quic.as_ref());
        let Some(quic) = quic else {
            return route(&at, name, said, None).map(|at| Some(opened(at, said)));
        };
        if !may_be_answered(&name.client) {
            return Err(Why::BadSource);
        }
        let now = ctx.now();
        let train = *ctx.engine.train(said.index);
        let payload = &ctx.engine.payload(said.index)[said.range.clone()];
        if !self.openings.of.contains_key(name)
            && let Some(home) = datagrams(&train, payload)
                .next()
                .and_then(|it| quic.find(it, now))
            && let Some(its) = by_route(&at, home.route)
        {
            let server = Some(home.server);
            return Ok(Some(FirstLook {
                server,
                ..opened(its, said)
            }));
        }
        if !self.openings.of.contains_key(name) {
            self.begin_to_look(ctx, &at, name, said.client, now + quic.patience)?;
        }
        let train = *ctx.engine.train(said.index);
        let payload = &ctx.engine.payload(said.index)[said.range.clone()];
        let opening = self.openings.of.get_mut(name).ok_or(Why::NoHello)?;
        let mut seen = Seen::More;
        for datagram in datagrams(&train, payload) {
            seen = opening.initials.look(datagram);
            if seen != Seen::More {
                break;
            }
        }
        let sniffed = match seen {
            Seen::More if opening.bytes + payload.len() <= KEPT_MAX => {
                opening.bytes += payload.len();
                let pieces = datagrams(&train, payload);
                opening.kept.extend(pieces.map(<[u8]>::to_vec));
                return Ok(None);
            }
            Seen::Found(hello) => Sniffed {
                server_name: hello.server_name,
                protocols: hello.protocols,
                ..Sniffed::from(Protocol::Quic)
            },
            Seen::UnknownVersion(_) => Sniffed::from(Protocol::Quic),
            Seen::Other => Sniffed::from(Protocol::Other),
            Seen::More | Seen::Invalid(_) => {
                let gone = self.openings.finish(name).map_or(0, |it| it.kept.len());
                Why::NoHello.count(&ctx.counters, gone as u32);
                return Err(Why::NoHello);
            }
        };
        let opening = self.openings.finish(name).ok_or(Why::NoHello)?;
        let (kept, permit) = (opening.kept, Some(opening.permit));
        match route(&at, name, said, Some(&sniffed)) {
            Ok(at) => Ok(Some(FirstLook {
                kept,
                permit,
                ..opened(at, said)
            })),
            Err(why) => {
                why.count(&ctx.counters, kept.len() as u32);
                Err(why)
            }
        }
    }

    /// The first datagram of a client whose hello may take several, if it is let in.
    fn begin_to_look<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        at: &Listener,
        name: &FlowName,
        said: Option<Client>,
        until: Time,
    ) -> Result<(), Why> {
        let client = said.map_or(name.client, |it| it.source);
        let client = Endpoint::Inet(client);
        let permit = by_policy(ctx, &at.forward, &client).map_err(|_| Why::Denied)?;
        self.make_room_to_look(ctx, name);
        self.openings.begin(*name, (ctx.now(), until), permit);
        Ok(())
    }

    /// Who began first makes room for one more.
    fn make_room_to_look<E: Datagrams>(&mut self, ctx: &Ctx<E>, name: &FlowName) {
        while self.openings.of.len() >= OPENINGS_MAX && !self.openings.of.contains_key(name) {
            Why::NoHello.count(&ctx.counters, self.openings.give_up_first());
        }
    }

    /// Gives up whose hello has taken too long.
    pub(super) fn give_up_openings<E: Datagrams>(&mut self, ctx: &Ctx<E>) {
        while self.openings.due() <= ctx.now() {
            Why::NoHello.count(&ctx.counters, self.openings.give_up_first());
        }
    }

    /// What a server sent may tell the id of a connection.
    pub(super) fn learn<E: Datagrams>(&self, ctx: &Ctx<E>, slot: u32, index: usize) {
        const LONG: u8 = 0x80;
        let Some(entry) = self.table.get(slot) else {
            return;
        };
        let forward = &entry.at.forward;
        let Some(quic) = forward.datagrams.as_ref().and_then(|it| it.quic.as_ref()) else {
            return;
        };
        let (train, payload) = (ctx.engine.train(index), ctx.engine.payload(index));
        // All that come in one piece are of one connection.
        if let Some(datagram) = datagrams(train, payload).next()
            && datagram.first().is_some_and(|first| first & LONG != 0)
        {
            let home = Home {
                route: forward.route.as_ref().map(|it| it.0),
                server: entry.server.settings().id,
            };
            quic.learn(datagram, home, ctx.now());
        }
    }
}

fn opened(at: Arc<Listener>, part: &Part) -> FirstLook {
    FirstLook {
        client: part.client,
        at,
        server: None,
        kept: Vec::new(),
        permit: None,
    }
}

/// The forward of a route, under the same name.
fn by_route(at: &Arc<Listener>, route: Option<u16>) -> Option<Arc<Listener>> {
    match route {
        None => Some(at.clone()),
        Some(number) => at.ways.get(usize::from(number))?.clone(),
    }
}

/// Which way it goes.
fn route(
    at: &Arc<Listener>,
    name: &FlowName,
    part: &Part,
    sniffed: Option<&Sniffed>,
) -> Result<Arc<Listener>, Why> {
    let client = part.client.map_or(name.client, |it| it.source);
    let client = Endpoint::Inet(client);
    if let Some(pilot) = &at.forward.pilot {
        match steer(pilot, at, &client, sniffed) {
            Piloted::AsConfigured => {}
            Piloted::Goes(way) => return Ok(way),
            // A flow has a server, by which it is kept, checked and counted.
            Piloted::To(_) | Piloted::Refused(_) => return Err(Why::Denied),
        }
    }
    let Some(routing) = &at.forward.routing else {
        return Ok(at.clone());
    };
    let local = name.local.and_then(|local| match &at.address {
        Endpoint::Inet(address) => Some(Endpoint::Inet((local.ip, address.port()).into())),
        Endpoint::Unix(_) | Endpoint::Unnamed => None,
    });
    match routing.route(at, &client, local.as_ref(), sniffed) {
        Routed::Stays => Ok(at.clone()),
        Routed::Goes(way) => Ok(way),
        Routed::Rejected(_) => Err(Why::Denied),
    }
}

/// Each datagram of a train.
fn datagrams<'a>(train: &Train, payload: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let size = match usize::from(train.segment) {
        0 => payload.len(),
        segment => segment,
    };
    // An empty one is a datagram, too.
    let empty = payload.is_empty().then_some(payload);
    empty.into_iter().chain(payload.chunks(size.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::id::ListenerId;

    #[test]
    fn b108_those_that_were_looked_at_leave_nothing_behind() {
        let mut looks = Looks::default();
        for n in 0..100_000_u32 {
            let name = FlowName {
                listener: ListenerId::new(1),
                client: ([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 443).into(),
                local: None,
            };
            let begun = Time::from_micros(u64::from(n));
            looks.begin(name, (begun, Time::from_micros(5_000_000)), None);
            if n % 1000 != 0 {
                assert!(looks.finish(&name).is_some());
            }
            assert!(looks.order.len() <= 2 * OPENINGS_MAX + 1, "after {n}");
        }
        assert_eq!(looks.of.len(), 100);
        let mut given_up = 0;
        while looks.due() != Time::NEVER {
            let before = looks.of.len();
            looks.give_up_first();
            given_up += before - looks.of.len();
        }
        assert_eq!(given_up, 100, "each that is not whole has its time");
    }
}
