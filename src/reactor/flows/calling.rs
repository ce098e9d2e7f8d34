//! How a flow gets its server: whether its client is let in, which server is next, the
//! socket to it, and another one when that server is gone.

use std::sync::Arc;

use super::Flows;
use super::announced::{self, may_be_answered};
use super::heading::Heading;
use super::homes::FlowName;
use super::opening::FirstLook;
use super::table::{FlowEntry, Lead, PortState};
use super::why::Why;
use crate::balance::Tried;
use crate::balance::health::Admission;
use crate::config::AdminState;
use crate::engine::{DatagramKey, Datagrams};
use crate::net::address::Endpoint;
use crate::net::dial::Local;
use crate::observe::notice::{Kind, Notice, Subject};
use crate::reactor::clients::{ClientGrant, ClientPermit};
use crate::reactor::context::{Ctx, Effect};
use crate::reactor::let_in::{by_policy, denied_at_servers};
use crate::reactor::setup::{DatagramRules, Forward, Listener};
use crate::reactor::upstream::pass::{Comer, Pass};
use crate::reactor::upstream::server::{Server, add};
use crate::reactor::upstream::{Choice, Pools};
use crate::reactor::verdict;
use crate::relay::ending::{Cause, Ending, Stage, Who};
use crate::relay::flow::Flow;
use crate::relay::id::ServerId;

/// Servers that are tried for one datagram.
const TRIES: usize = 4;

/// A server, and the socket that is connected to it.
pub(super) struct Called {
    socket: DatagramKey,
    server: Arc<Server>,
    pass: Pass,
    version: u32,
}

impl Flows {
    /// The flow of a datagram that belongs to none so far.
    pub(super) fn begin<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
        port: DatagramKey,
        name: FlowName,
        opened: FirstLook,
    ) -> Result<u32, Why> {
        let its = self.owners.port_mut(port).ok_or(Why::Draining)?;
        let (at, had, said) = (opened.at, opened.server, opened.client);
        if self.draining || its.state != PortState::Open {
            return Err(Why::Draining);
        }
        let Some(rules) = at.forward.datagrams.clone() else {
            return Err(Why::NoServer);
        };
        if !may_be_answered(&name.client) {
            return Err(Why::BadSource);
        }
        let whom = said.unwrap_or_else(|| announced::sender(&at, &name));
        let client = Endpoint::Inet(whom.source);
        let mut permit = match opened.permit {
            Some(permit) => permit,
            None => by_policy(ctx, &at.forward, &client).map_err(|_| Why::Denied)?,
        };
        if !at.forward.gate.as_ref().is_none_or(|gate| gate.enter()) {
            return Err(Why::Limit);
        }
        let entered = self.enter(ctx, &at, &rules);
        let called = entered.and_then(|()| {
            let again = had.and_then(|had| self.call_again(ctx, pools, &at.forward, &client, had));
            let called = again.map_or_else(
                || self.call(ctx, pools, &at.forward, &client, Tried::default()),
                Ok,
            );
            called.inspect_err(|_| self.leave(&rules))
        });
        let called = match called {
            Ok(called) => called,
            Err(why) => {
                if let Some(gate) = &at.forward.gate {
                    gate.leave();
                }
                return Err(why);
            }
        };
        let now = ctx.now();
        self.started += 1;
        ctx.counters.udp_flows.add(1);
        at.forward.books.of(ctx.reactor).cells.started.add(1);
        let forward = at.forward.id.number();
        let flow = Flow::new(now);
        let deadline = flow.deadline(&rules.flow);
        let admission = called.pass.admission;
        settle(&mut permit, &called.server, called.pass.place, &at.forward);
        let heading = Heading::of(&called.server, &whom, (ctx.reactor, self.started));
        let slot = self.table.insert(FlowEntry {
            flow,
            name,
            reactor: ctx.reactor,
            id: self.started,
            at,
            port,
            socket: called.socket,
            server: called.server,
            admission,
            version: called.version,
            proven: false,
            singly: [false; 2],
            announced: said.map(Box::new),
            heading,
            permit,
        });
        let slot = slot.ok_or(Why::Shortage)?;
        self.owners.give(called.socket, slot);
        if let Some(port) = self.owners.port_mut(port) {
            port.flows += 1;
        }
        self.crowd.enter(forward, slot);
        self.arm(slot, deadline, now);
        self.send_kept(ctx, slot, &opened.kept);
        Ok(slot)
    }

    /// Another socket to a server that a connection is known to live at, unless that server may have no
    /// more of them.
    fn call_again<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
        forward: &Forward,
        client: &Endpoint,
        server: ServerId,
    ) -> Option<Called> {
        let now = ctx.now();
        let pool = pools.get_mut(forward.pool)?;
        let version = pool.version;
        let mut members = pool.setup.set.members().iter();
        let server = members
            .find(|it| it.server.settings().id == server)?
            .server
            .clone();
        if server.standing.is_checked_down() || server.is_in_maintenance() {
            return None;
        }
        let comer = Comer {
            client,
            limited: !forward.is_dry_run(),
        };
        let place = comer.place(&server, pool.setup.clients.as_ref()).ok()?;
        if !server.standing.enter(now) {
            return None;
        }
        let Ok(socket) = self.connect(ctx, pools, forward, client, &server) else {
            server.standing.leave(now);
            return None;
        };
        Some(Called {
            socket,
            server,
            pass: Pass {
                admission: Admission::Free,
                place,
            },
            version,
        })
    }

    /// Room for one more flow: there is some, or the one that was longest without an answer
    /// makes it.
    fn enter<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        at: &Listener,
        rules: &DatagramRules,
    ) -> Result<(), Why> {
        if !rules.gate.as_ref().is_none_or(|gate| gate.enter()) {
            self.make_room(ctx, Some(at.forward.id.number()))?;
            if !rules.gate.as_ref().is_none_or(|gate| gate.enter()) {
                return Err(Why::MaxFlows);
            }
        }
        if self.gate.enter() {
            self.spare_descriptors(ctx);
            return Ok(());
        }
        self.gate.review();
        let own = Some(at.forward.id.number());
        let made = self
            .make_room(ctx, own)
            .or_else(|_| self.make_room(ctx, None));
        if made.is_ok() && self.gate.enter() {
            return Ok(());
        }
        if let Some(gate) = &rules.gate {
            gate.leave();
        }
        Err(Why::MaxFlows)
    }

    fn leave(&self, rules: &DatagramRules) {
        self.gate.leave();
        if let Some(gate) = &rules.gate {
            gate.leave();
        }
    }

    /// No descriptor is left: that of a flow that is over is given back, or else that of the one that
    /// was without an answer for longest. Whether there was one.
    fn free_descriptor<E: Datagrams>(&mut self, ctx: &mut Ctx<E>) -> bool {
        if !self.has_resting() && self.make_room(ctx, None).is_err() {
            return false;
        }
        self.close_oldest_retired(ctx);
        true
    }

    /// The unanswered flow that is first ends, of one forward or of any.
    pub(super) fn make_room<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        forward: Option<u32>,
    ) -> Result<(), Why> {
        let slot = self.crowd.first(forward).ok_or(Why::MaxFlows)?;
        // What was posted for it leaves first.
        self.flush(ctx);
        let ending = Ending {
            who: Who::Forwarder,
            stage: Stage::Data,
            cause: Cause::MadeRoom,
        };
        self.end(ctx, slot, ending);
        Ok(())
    }

    /// Chooses a server that was not tried, and opens the socket to it.
    fn call<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
        forward: &Forward,
        client: &Endpoint,
        mut tried: Tried,
    ) -> Result<Called, Why> {
        let now = ctx.now();
        let mut why = Why::NoServer;
        let mut comer = Comer::new(client);
        for _ in 0..TRIES {
            let pool = pools.get_mut(forward.pool).ok_or(Why::NoServer)?;
            let (at, pass) = match pool.choose(comer, &tried, now) {
                Choice::Member(at, pass) => (at, pass),
                Choice::Full => return Err(Why::Limit),
                Choice::Nowhere => break,
                Choice::Enough => {
                    denied_at_servers(ctx, forward, client);
                    if !forward.is_dry_run() {
                        return Err(Why::Denied);
                    }
                    comer = Comer::unlimited(client);
                    continue;
                }
            };
            tried.insert(at);
            let server = pool.setup.set.members()[usize::from(at)].server.clone();
            let mut connected = self.connect(ctx, pools, forward, client, &server);
            if connected == Err(Cause::NoDescriptors) && self.free_descriptor(ctx) {
                connected = self.connect(ctx, pools, forward, client, &server);
            }
            match connected {
                Ok(socket) => {
                    let version = pools.get_mut(forward.pool).map_or(0, |it| it.version);
                    return Ok(Called {
                        socket,
                        server,
                        pass,
                        version,
                    });
                }
                Err(cause) => {
                    server.standing.leave(now);
                    ctx.counters.connect_failures.add(1);
                    let admission = pass.admission;
                    if cause.is_local_shortage() {
                        server.standing.abandoned(admission, now);
                        return Err(self.short_of(ctx, &server, cause));
                    }
                    server.tally.failed(cause);
                    verdict::blame(ctx, &server, admission, cause);
                    why = match cause {
                        Cause::SelfConnect => Why::Loop,
                        _ => Why::NoServer,
                    };
                }
            }
        }
        if why == Why::NoServer {
            let name = forward.name.clone();
            ctx.complain(Kind::NoServer, Subject::Forward(forward.id), || {
                Notice::NoServer { forward: name }
            });
        }
        Err(why)
    }

    fn connect<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
        forward: &Forward,
        client: &Endpoint,
        server: &Arc<Server>,
    ) -> Result<DatagramKey, Cause> {
        let endpoint = server.endpoint();
        ctx.counters.connects.add(1);
        add(&server.tally.connects, 1);
        if let Some(owner) = self.loops.closed_by(forward.pool, endpoint, ctx.now()) {
            let subject = Subject::Server(server.settings().id);
            ctx.complain(Kind::ForwardLoop, subject, || Notice::ForwardLoop {
                server: server.name(),
                forward: owner.forward.clone(),
            });
            return Err(Cause::SelfConnect);
        }
        let pool = pools.get_mut(forward.pool).ok_or(Cause::NoServer)?;
        let never = forward
            .datagrams
            .as_ref()
            .is_some_and(|rules| rules.never_fragment);
        let line = pool.is_plain().then_some(Lead {
            pool: forward.pool,
            version: pool.version,
            server: server.settings().id,
            never_fragment: never,
        });
        if let Some(line) = &line
            && let Some(rested) = self.take_rested(line, pool.target(endpoint, Local::Plan), ctx)
        {
            return Ok(rested);
        }
        let mut last = Cause::NoSource;
        for _ in 0..pool.sources(endpoint) {
            let Some(local) = pool.local(endpoint, client) else {
                break;
            };
            match ctx.engine.call(pool.target(endpoint, local), never) {
                Ok(socket) => {
                    self.owners.insert_connected(socket, line, ctx.now());
                    return Ok(socket);
                }
                // Another socket gets another port.
                Err(Cause::SelfConnect) => last = Cause::SelfConnect,
                Err(cause @ (Cause::PortsExhausted | Cause::NoSource)) => last = cause,
                Err(cause) => return Err(cause),
            }
        }
        Err(last)
    }

    /// This machine lacks something. Sockets that only wait for late answers go first.
    fn short_of<E: Datagrams>(&mut self, ctx: &mut Ctx<E>, server: &Server, cause: Cause) -> Why {
        ctx.counters.connect_shortages.add(1);
        if matches!(cause, Cause::NoDescriptors | Cause::NoMemory) {
            self.close_oldest_retired(ctx);
            self.gate.review();
            ctx.out.push_back(Effect::Starved);
        }
        let subject = Subject::Server(server.settings().id);
        ctx.complain(Kind::ConnectShortage, subject, || Notice::ConnectShortage {
            server: server.name(),
            cause,
        });
        Why::Shortage
    }

    /// Whether the server of a flow is still one that it may have: looked at for each
    /// batch of its client's datagrams, so it goes elsewhere with the first of them.
    pub(super) fn keeps_its_server<E: Datagrams>(
        &mut self,
        ctx: &Ctx<E>,
        pools: &mut Pools,
        slot: u32,
    ) -> bool {
        let Some(entry) = self.table.get_mut(slot) else {
            return true;
        };
        let server = &entry.server;
        if server.standing.is_checked_down() || server.is_in_maintenance() {
            return false;
        }
        let Some(pool) = pools.get_mut(entry.at.forward.pool) else {
            return true;
        };
        if pool.version == entry.version {
            return true;
        }
        let _ = ctx;
        entry.version = pool.version;
        pool.setup.set.position(server).is_some()
    }

    /// Its server is gone, or says that it does not listen: the flow goes to another one,
    /// under the same name, from another port.
    pub(super) fn relocate<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
        slot: u32,
    ) -> Result<(), Why> {
        let entry = self.table.get(slot).ok_or(Why::NoServer)?;
        let (at, client) = (entry.at.clone(), Endpoint::Inet(entry.client()));
        let mut tried = Tried::default();
        if let Some(pool) = pools.get_mut(at.forward.pool)
            && let Some(position) = pool.setup.set.position(&entry.server)
        {
            tried.insert(position);
        }
        // What was posted to the old one leaves by its socket.
        self.flush(ctx);
        let called = self.call(ctx, pools, &at.forward, &client, tried)?;
        let now = ctx.now();
        let Some(entry) = self.table.get_mut(slot) else {
            // It made room for the very socket.
            called.server.standing.leave(now);
            self.hang_up(called.socket, ctx);
            return Err(Why::Shortage);
        };
        let before = std::mem::replace(&mut entry.socket, called.socket);
        let server = std::mem::replace(&mut entry.server, called.server);
        entry.admission = called.pass.admission;
        settle(
            &mut entry.permit,
            &entry.server,
            called.pass.place,
            &at.forward,
        );
        entry.version = called.version;
        entry.proven = false;
        entry.singly[0] = false;
        // It has been told nothing, and may be told it otherwise.
        let whom = entry.announced.as_deref().copied();
        let whom = whom.unwrap_or_else(|| announced::sender(&at, &entry.name));
        entry.heading = Heading::of(&entry.server, &whom, (entry.reactor, entry.id));
        let until = now + crate::relay::flow::LATE_ANSWERS;
        self.owners.give(called.socket, slot);
        self.retire(before, until, now, ctx);
        server.standing.leave(now);
        ctx.counters.udp_moved.add(1);
        Ok(())
    }
}

/// A flow is on this server from now on, by this place of its client there.
pub(super) fn settle(
    grant: &mut Option<Box<ClientGrant>>,
    server: &Server,
    place: Option<ClientPermit>,
    forward: &Forward,
) {
    ClientGrant::settle_at(grant, place, server.buckets(), forward.is_dry_run());
}

impl Server {
    /// An operator wants nobody there.
    fn is_in_maintenance(&self) -> bool {
        self.terms().admin == AdminState::Maintenance
    }
}
