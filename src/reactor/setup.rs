//! What a reactor is made with: plain data, prepared by `control` (or a test).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::clients::ClientPolicy;
use super::course::Pilot;
use super::decider::Decider;
use super::flows::homes::Homes;
use super::gate::Gate;
use super::quic::Quic;
use super::upstream::UpstreamSetup;
use crate::net::address::{Endpoint, Transport};
use crate::net::own::OwnListeners;
use crate::observe::books::ForwardBooks;
use crate::observe::counters::Counters;
use crate::observe::log::Log;
use crate::observe::record::Records;
use crate::observe::tap::Source;
use crate::policy::route::Routes;
use crate::proto::opening::{Step, StepKind};
use crate::relay::flow::FlowRules;
use crate::relay::id::{ForwardId, ListenerId, PoolId};
use crate::relay::session::Rules;

/// Everything a reactor needs besides its engine.
#[derive(Debug)]
pub struct Setup {
    /// Which reactor this is, from 0.
    pub reactor: u16,
    /// Where the forwards go.
    pub pools: BTreeMap<PoolId, UpstreamSetup>,
    /// Admission over all forwards and reactors.
    pub gate: Arc<Gate>,
    /// Flows of datagrams over all forwards and reactors, by descriptors.
    pub flows: Arc<Gate>,
    /// Where their flows are that get their datagrams elsewhere; of all reactors.
    pub homes: Arc<Homes>,
    /// What this process listens on, so that it does not connect to itself.
    pub own: Arc<OwnListeners>,
    /// Where it counts.
    pub counters: Arc<Counters>,
    /// Where it logs.
    pub log: Log,
    /// Which records it logs.
    pub session_log: Records,
    /// What it shows of its traffic; may be empty.
    pub taps: BTreeMap<ForwardId, Source>,
    /// Who decides about requests; only needed by forwards with [`Forward::request`].
    pub decider: Option<Box<dyn Decider>>,
}

/// A forward, as it is configured: immutable. When the configuration changes, another
/// takes its place for the sessions to come; those that run keep theirs.
#[derive(Debug)]
pub struct Forward {
    /// Its identity.
    pub id: ForwardId,
    /// Its name.
    pub name: Arc<str>,
    /// What its sessions go by.
    pub rules: Rules,
    /// Where it goes.
    pub pool: PoolId,
    /// What its clients say before their payload, up to where they are routed; usually
    /// nothing. [`Rules::opening`] is there with any of it, with `routing` and with
    /// `request`.
    pub steps: Arc<[Step]>,
    /// The client is another than who connects: a PROXY header says who.
    pub announced: bool,
    /// What they say then to ask for something; the [`Decider`] is asked about it.
    pub request: Arc<[Step]>,
    /// What its datagrams go by, if it forwards any.
    pub datagrams: Option<Arc<DatagramRules>>,
    /// Which of several ways a session goes; usually there is but one.
    pub routing: Option<Arc<Routing>>,
    /// A program's own decision about its sessions, if that is made.
    pub pilot: Option<Pilot>,
    /// The route that it stands for, by its place and its name; `None`: it is what a
    /// client comes to.
    pub route: Option<(u16, Arc<str>)>,
    /// Admission to this forward, over all reactors, if it has a limit.
    pub gate: Option<Arc<Gate>>,
    /// Who may come in, unless everybody may.
    pub clients: Option<Arc<ClientPolicy>>,
    /// Where its sessions are counted; the same from one configuration to the next.
    pub books: Arc<ForwardBooks>,
    /// Which configuration it came with, from 1 on; an upgrade counts on.
    pub generation: u64,
}

impl Forward {
    /// Whether what a client says first is acknowledged with its answer: a TLS hello is all
    /// that a client says before that, so an ACK by itself is a packet for nothing. One who
    /// says less, or something else, is acknowledged once that is seen.
    pub(super) fn holds_acks(&self) -> bool {
        let first = self.steps.first().map(|step| &step.kind);
        matches!(first, Some(StepKind::Sniff(wanted)) if wanted.hello)
    }

    /// One of this name that nobody can come to: for what is left of a forward of an earlier
    /// process.
    pub(super) fn in_name_only(&self, name: Arc<str>) -> Self {
        Self {
            id: self.id,
            name,
            rules: self.rules,
            pool: self.pool,
            steps: Arc::default(),
            announced: false,
            request: Arc::default(),
            datagrams: None,
            routing: None,
            pilot: None,
            route: None,
            gate: None,
            clients: None,
            books: Arc::new(ForwardBooks::new(1)),
            generation: self.generation,
        }
    }

    /// Whether whoever would be turned away or held back is only counted.
    pub(super) fn is_dry_run(&self) -> bool {
        self.clients.as_ref().is_some_and(|it| it.dry_run)
    }
}

/// What the datagrams of a forward go by.
#[derive(Debug)]
pub struct DatagramRules {
    /// Of each flow.
    pub flow: FlowRules,
    /// How many flows there may be over all reactors, if there is a limit.
    pub gate: Option<Arc<Gate>>,
    /// Datagrams larger than the path to a server are dropped, not cut into fragments.
    pub never_fragment: bool,
    /// Flows leave a server that is down, or not in the pool any more.
    pub moves: bool,
    /// What is known of connections of QUIC, if they are looked for.
    pub quic: Option<Arc<Quic>>,
}

/// The routes of a forward, and where each leads.
#[derive(Debug)]
pub struct Routing {
    /// Which is taken.
    pub table: Routes,
    /// Where to, in the same order.
    pub ways: Vec<Way>,
    /// The ways that a program may name, by their pools; behind those of the table.
    pub by_pool: HashMap<Arc<str>, usize>,
    /// Whether it matters where a client came in.
    pub by_listener: bool,
}

/// Where a route leads, and how many went there.
#[derive(Debug)]
pub struct Way {
    /// What it is called, in records and reports.
    pub name: Arc<str>,
    /// `None`: nowhere, the client is turned away.
    pub forward: Option<Arc<Forward>>,
    /// Sessions that took it; over all reactors.
    pub taken: Arc<AtomicU64>,
}

/// Where a client came in, and the forward that it came to. A session holds this one
/// reference: it costs an atomic step at its beginning and one at its end.
#[derive(Debug)]
pub struct Listener {
    /// Its identity.
    pub id: ListenerId,
    /// Which of the sockets of this address it is: a number of its own.
    pub socket: u32,
    /// What it takes.
    pub transport: Transport,
    /// Its address.
    pub address: Endpoint,
    /// Whose it is.
    pub forward: Arc<Forward>,
    /// The same listener for each of the forward's routes; `None`: the route turns clients
    /// away.
    pub ways: Box<[Option<Arc<Listener>>]>,
}

impl Listener {
    /// A listener of this forward, with its routes.
    pub fn new(id: ListenerId, address: Endpoint, forward: Arc<Forward>) -> Arc<Self> {
        let place = (id, id.number(), Transport::Tcp);
        Self::of_socket(place, address, forward)
    }

    /// One of several sockets of an address, each with a number of its own.
    pub fn of_socket(
        (id, socket, transport): (ListenerId, u32, Transport),
        address: Endpoint,
        forward: Arc<Forward>,
    ) -> Arc<Self> {
        let ways = forward.routing.as_ref().map_or(&[][..], |it| &it.ways);
        let by_way = |way: &Way| {
            let forward = way.forward.clone()?;
            let place = (id, socket, transport);
            Some(Self::of_socket(place, address.clone(), forward))
        };
        Arc::new(Self {
            ways: ways.iter().map(by_way).collect(),
            id,
            socket,
            transport,
            address,
            forward,
        })
    }
}
