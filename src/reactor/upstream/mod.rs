//! A pool as one reactor sees it: which server a session goes to, who waits for one,
//! which spares stand ready.
//!
//! What reactors share of it is in [`server`]; how a session is connected once a
//! server is chosen, in `reactor::dialling`.

pub mod server;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::Duration;

use crate::balance::health::Admission;
use crate::balance::{Balancer, Policy, Tried, View, client_key};
use crate::config::{AdminState, HashKey, Pool};
use crate::engine::{SessionKey, Target};
use crate::net::address::Endpoint;
use crate::net::dial::Local;
use crate::net::options::OptionPlan;
use crate::relay::id::{PoolId, ServerId};
use crate::relay::time::Time;

use server::{Member, Server, ServerSet, ServerSettings};

use super::warm::Spares;

/// A pool, with the options of its connects; plain data, prepared by `control` (or a
/// test).
#[derive(Debug, Clone)]
pub struct UpstreamSetup {
    /// Its servers at the start.
    pub set: Arc<ServerSet>,
    /// Options of a connect.
    pub options: Arc<OptionPlan>,
    /// What of a client is hashed, for [`Policy::Hash`].
    pub hash: HashKey,
    /// Sessions of this reactor that may wait for a server with room.
    pub queue: u32,
    /// Between attempts at the addresses of one name.
    pub attempt_delay: Duration,
    /// Local addresses of connects, used in turn.
    pub sources: Arc<[IpAddr]>,
    /// Connect from the client's address.
    pub transparent: bool,
    /// Spares kept for each server.
    pub warm: u32,
    /// A spare that is older is replaced.
    pub warm_max_age: Duration,
}

impl UpstreamSetup {
    /// A single server, everything else by default.
    pub fn single(endpoint: Endpoint, options: OptionPlan) -> Self {
        let server = Server::new(ServerSettings {
            id: ServerId::new(0),
            pool: endpoint.to_string().into(),
            endpoint,
            host: None,
            max_connections: None,
            admin: AdminState::Active,
            max_fails: 0,
            fail_timeout: Duration::ZERO,
        });
        let member = Member {
            server: Arc::new(server),
            weight: 1,
            backup: false,
            family: None,
        };
        let defaults = Pool::new(Vec::new());
        let set = ServerSet::new(
            vec![member],
            Policy::RoundRobin,
            defaults.resolve,
            defaults.slow_start,
        );
        Self {
            set: Arc::new(set),
            options: Arc::new(options),
            hash: HashKey::Address,
            queue: defaults.queue,
            attempt_delay: defaults.attempt_delay,
            sources: [].into(),
            transparent: false,
            warm: 0,
            warm_max_age: defaults.warm_max_age,
        }
    }
}

/// Where a session may go.
#[derive(Debug)]
pub(super) enum Choice {
    /// To this member of the set; counted there as active.
    Member(u16, Admission),
    /// To servers that have as many sessions as they may.
    Full,
    /// Nowhere: every server is down or was tried.
    Nowhere,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) setup: UpstreamSetup,
    balancer: Balancer,
    next_source: usize,
    /// Sessions that wait for a server with room, in order; may hold some that have
    /// ended since.
    pub(super) waiting: VecDeque<SessionKey>,
    pub(super) spares: Spares,
}

/// The pools of a reactor.
#[derive(Debug)]
pub(super) struct Pools(BTreeMap<PoolId, Upstream>);

impl Pools {
    pub(super) fn new(setups: BTreeMap<PoolId, UpstreamSetup>, reactor: u16) -> Self {
        let setups = setups.into_iter();
        Self(
            setups
                .map(|(id, it)| (id, Upstream::new(it, reactor)))
                .collect(),
        )
    }

    pub(super) fn get_mut(&mut self, id: PoolId) -> Option<&mut Upstream> {
        self.0.get_mut(&id)
    }

    pub(super) fn ids(&self) -> Vec<PoolId> {
        self.0.keys().copied().collect()
    }
}

impl Index<PoolId> for Pools {
    type Output = Upstream;

    fn index(&self, id: PoolId) -> &Upstream {
        self.0
            .get(&id)
            .expect("a pool stays for as long as a forward names it")
    }
}

impl IndexMut<PoolId> for Pools {
    fn index_mut(&mut self, id: PoolId) -> &mut Upstream {
        let pool = self.0.get_mut(&id);
        pool.expect("a pool stays for as long as a forward names it")
    }
}

impl Upstream {
    pub(super) fn new(setup: UpstreamSetup, reactor: u16) -> Self {
        let mut upstream = Self {
            balancer: setup.set.balancer.for_reactor(0, 0),
            next_source: usize::from(reactor),
            waiting: VecDeque::new(),
            spares: Spares::default(),
            setup,
        };
        upstream.renew(reactor);
        upstream
    }

    /// Another set of servers from now on.
    pub(super) fn replace(&mut self, set: Arc<ServerSet>, reactor: u16) {
        self.setup.set = set;
        self.renew(reactor);
    }

    fn renew(&mut self, reactor: u16) {
        let set = &self.setup.set;
        self.balancer = set.balancer.for_reactor(reactor.into(), seed(reactor));
        if self.setup.warm > 0 {
            self.spares.follow(set);
        }
    }

    /// Chooses among the servers that were not tried. A server whose mark by failures
    /// has not run out is used only when nothing else is left: a mark is a guess from
    /// the past, and no server at all is worse.
    pub(super) fn choose(&mut self, client: &Endpoint, tried: &[Arc<Server>], now: Time) -> Choice {
        let set = &self.setup.set;
        let mut seen = Tried::default();
        for server in tried {
            if let Some(at) = set.position(server) {
                seen.insert(at);
            }
        }
        let key = self.key(client);
        // Each round tries one more server or ends; reactors that are faster, and
        // marks that run out meanwhile, cost a round each.
        for _ in 0..=set.members.len() {
            let Some((at, admitted)) = self.pick(key, &seen, now) else {
                break;
            };
            let server = &self.setup.set.members[usize::from(at)].server;
            let admission = if admitted {
                server.marks.admit(now)
            } else {
                Admission::Free
            };
            if admission == Admission::Marked {
                seen.insert(at);
            } else if server.enter() {
                return Choice::Member(at, admission);
            } else {
                server.marks.abandoned(admission, now);
            }
        }
        // Whoever is left and could not be picked is full.
        match Tier::of(&self.setup.set, &seen, now) {
            Some(_) => Choice::Full,
            None => Choice::Nowhere,
        }
    }

    /// A server by the policy, and whether its marks are to be asked.
    fn pick(&mut self, key: u64, seen: &Tried, now: Time) -> Option<(u16, bool)> {
        let set = &self.setup.set;
        if let Some(tier) = Tier::of(set, seen, now) {
            let view = tier.view(set, seen, now);
            return self.balancer.pick(&view, key, seen).map(|at| (at, true));
        }
        for backup in [false, true] {
            let view = SetView {
                set,
                seen,
                now,
                backup,
                marks: false,
            };
            if let Some(at) = self.balancer.pick(&view, key, seen) {
                return Some((at, false));
            }
        }
        None
    }

    /// Whether sessions that wait should ask again: a server has room, or none may be
    /// picked any more and there is nothing to wait for.
    pub(super) fn is_worth_a_try(&self, now: Time) -> bool {
        let (set, nobody) = (&self.setup.set, Tried::default());
        Tier::of(set, &nobody, now).is_none_or(|tier| {
            let view = tier.view(set, &nobody, now);
            let room = |member: &Member| view.is_eligible(member) && !member.server.is_full();
            set.members.iter().any(room)
        })
    }

    fn key(&self, client: &Endpoint) -> u64 {
        match client {
            Endpoint::Inet(client) if self.balancer.policy() == Policy::Hash => {
                let port = match self.setup.hash {
                    HashKey::Address => None,
                    HashKey::AddressPort => Some(client.port()),
                };
                client_key(&client.ip(), port)
            }
            _ => 0,
        }
    }

    /// A connect with the options of this pool.
    pub(super) fn target<'a>(&'a self, endpoint: &'a Endpoint, local: Local) -> Target<'a> {
        Target {
            endpoint,
            options: &self.setup.options,
            local,
        }
    }

    /// How many local addresses a connect to this server is tried from: each try looks
    /// through all ports, and other sessions wait meanwhile.
    pub(super) fn sources(&self, server: &Endpoint) -> usize {
        const SOURCES_MAX: usize = 4;
        let Endpoint::Inet(server) = server else {
            return 1;
        };
        let sources = self.setup.sources.iter();
        let fitting = sources.filter(|it| it.is_ipv4() == server.is_ipv4());
        fitting.count().clamp(1, SOURCES_MAX)
    }

    /// Where the next connect comes from. Of several addresses, the next one of the
    /// server's family; `None` if it has to be one and none is of that family.
    pub(super) fn local(&mut self, server: &Endpoint, client: &Endpoint) -> Option<Local> {
        let (Endpoint::Inet(server), sources) = (server, &self.setup.sources) else {
            return Some(Local::Plan);
        };
        if self.setup.transparent {
            return match client {
                Endpoint::Inet(client) if client.is_ipv4() == server.is_ipv4() => {
                    Some(Local::Foreign(client.ip()))
                }
                _ => None,
            };
        }
        for _ in 0..sources.len() {
            self.next_source = (self.next_source + 1) % sources.len();
            let source = sources[self.next_source];
            if source.is_ipv4() == server.is_ipv4() {
                return Some(Local::Address(source));
            }
        }
        sources.is_empty().then_some(Local::Plan)
    }
}

/// Which servers are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tier {
    backup: bool,
}

impl Tier {
    /// Backups are used only while no other server that was not tried can be, full or
    /// not; `None` when not even they can.
    fn of(set: &ServerSet, seen: &Tried, now: Time) -> Option<Self> {
        let tiers = [Self { backup: false }, Self { backup: true }];
        tiers.into_iter().find(|tier| {
            let view = tier.view(set, seen, now);
            let mut members = set.members.iter().enumerate();
            members.any(|(at, member)| view.is_eligible(member) && !seen.contains(at as u16))
        })
    }

    const fn view<'a>(self, set: &'a ServerSet, seen: &'a Tried, now: Time) -> SetView<'a> {
        SetView {
            set,
            seen,
            now,
            backup: self.backup,
            marks: true,
        }
    }
}

/// The servers of a set, as a policy sees them.
#[derive(Debug)]
struct SetView<'a> {
    set: &'a ServerSet,
    /// Those that the session has tried.
    seen: &'a Tried,
    now: Time,
    backup: bool,
    /// Whether marks by failures count.
    marks: bool,
}

impl SetView<'_> {
    /// Whether sessions may go there, if it has room.
    fn is_eligible(&self, member: &Member) -> bool {
        member.backup == self.backup
            && member.weight > 0
            && member.server.is_up()
            && (!self.marks || member.server.marks.is_open(self.now))
    }

    /// Of a name that is one server, only the first address that can be is picked; a
    /// race tries the others.
    fn is_first_of_family(&self, at: usize) -> bool {
        let members = &self.set.members;
        let family = members[at].family;
        if family.is_none() || self.set.resolve == crate::config::Resolve::All {
            return true;
        }
        let before = members[..at].iter().enumerate().rev();
        !before
            .take_while(|(_, member)| member.family == family)
            .filter(|(at, _)| !self.seen.contains(*at as u16))
            .any(|(_, member)| self.is_eligible(member) && !member.server.is_full())
    }
}

impl View for SetView<'_> {
    fn len(&self) -> usize {
        self.set.members.len()
    }

    fn weight(&self, server: u16) -> u32 {
        let at = usize::from(server);
        match self.set.members.get(at) {
            Some(member)
                if self.is_eligible(member)
                    && !member.server.is_full()
                    && self.is_first_of_family(at) =>
            {
                self.set.weight(member, self.now)
            }
            _ => 0,
        }
    }

    fn active(&self, server: u16) -> u32 {
        let member = self.set.members.get(usize::from(server));
        member.map_or(0, |member| member.server.active())
    }
}

/// Reactors draw different numbers; a simulated run draws the same each time.
fn seed(reactor: u16) -> u64 {
    0x7468_616c_7765_6700 ^ u64::from(reactor)
}
