//! A pool as one reactor sees it: which server a session goes to, who waits for one,
//! which spares stand ready.
//!
//! What reactors share of it is in [`server`]; how a session is connected once a
//! server is chosen, in `reactor::dialling`.

pub(super) mod pass;
pub mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::Duration;

use crate::balance::health::Admission;
use crate::balance::line::WaitingLine;
use crate::balance::{self, Ask, Policy, Random, Tried, client_key};
use crate::config::{HashKey, Pool, SendProxy};
use crate::engine::{SessionKey, Target};
use crate::net::address::Endpoint;
use crate::net::dial::Local;
use crate::net::options::OptionPlan;
use crate::relay::ending::Cause;
use crate::relay::id::{PoolId, ServerId};
use crate::relay::time::Time;

use pass::{Comer, Pass};
use server::{Member, Server, ServerSet, ServerSettings, ServerTerms, SetRules, add};

use super::clients::ClientTable;
use super::destination::Destination;
use super::spares::Spares;

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
    /// What each connection begins with.
    pub send_proxy: Option<SendProxy>,
    /// Spares kept for each server.
    pub warm: u32,
    /// A spare that is older is replaced.
    pub warm_max_age: Duration,
    /// Where clients of its servers are counted, if any of these limits them.
    pub clients: Option<Arc<ClientTable>>,
}

impl UpstreamSetup {
    /// A single server, everything else by default.
    pub fn single(endpoint: Endpoint, options: OptionPlan) -> Self {
        let server = Server::new(ServerSettings {
            id: ServerId::new(0),
            pool: endpoint.to_string().into(),
            endpoint,
            host: None,
            terms: ServerTerms::UNLIMITED,
        });
        let member = Member {
            server: Arc::new(server),
            weight: 1,
            backup: false,
            family: None,
        };
        let defaults = Pool::new(Vec::new());
        let rules = SetRules {
            policy: Policy::RoundRobin,
            resolve: defaults.resolve,
            slow_start: defaults.slow_start,
        };
        let set = ServerSet::new(vec![member], &rules, None, Time::ZERO);
        Self {
            set: Arc::new(set),
            options: Arc::new(options),
            hash: HashKey::Address,
            queue: defaults.queue,
            attempt_delay: defaults.attempt_delay,
            sources: [].into(),
            transparent: false,
            send_proxy: None,
            warm: 0,
            warm_max_age: defaults.warm_max_age,
            clients: None,
        }
    }
}

/// Where a session may go.
#[derive(Debug)]
pub(super) enum Choice {
    /// To this member of the set; counted there as active.
    Member(u16, Pass),
    /// To servers that have as many sessions as they may.
    Full,
    /// To servers where its client has as many as it may.
    Enough,
    /// Nowhere: every server is down or was tried.
    Nowhere,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) setup: UpstreamSetup,
    random: Random,
    next_source: usize,
    /// Sessions that wait for a server with room.
    pub(super) line: WaitingLine<SessionKey>,
    pub(super) spares: Spares,
    /// How often its servers or its settings were replaced.
    pub(super) version: u32,
    /// The first bytes of the latest session came from its server.
    pub(super) speaks_first: bool,
}

/// The pools of a reactor.
#[derive(Debug)]
pub(super) struct Pools {
    pools: BTreeMap<PoolId, Upstream>,
    /// Those where somebody waits, and maybe some where nobody does any more.
    pub(super) with_line: BTreeSet<PoolId>,
}

impl Pools {
    pub(super) fn new(setups: BTreeMap<PoolId, UpstreamSetup>, reactor: u16) -> Self {
        let setups = setups.into_iter();
        Self {
            pools: setups
                .map(|(id, it)| (id, Upstream::new(it, reactor)))
                .collect(),
            with_line: BTreeSet::new(),
        }
    }

    pub(super) fn insert(&mut self, id: PoolId, setup: UpstreamSetup, reactor: u16) {
        self.pools.insert(id, Upstream::new(setup, reactor));
    }

    /// Nobody uses it any more. What was kept for it is given back.
    pub(super) fn remove(&mut self, id: PoolId) -> Vec<SessionKey> {
        self.with_line.remove(&id);
        let pool = self.pools.remove(&id);
        pool.map_or_else(Vec::new, |mut pool| pool.spares.take_all())
    }

    pub(super) fn get_mut(&mut self, id: PoolId) -> Option<&mut Upstream> {
        self.pools.get_mut(&id)
    }

    /// Panics if what is kept of any pool is inconsistent.
    pub(super) fn check_invariants(&self, now: Time) {
        for pool in self.pools.values() {
            let set = &pool.setup.set;
            set.balancer.check_invariants(&set.members, now);
        }
    }

    /// Their sets of servers.
    pub(super) fn sets(&self) -> Vec<Arc<ServerSet>> {
        self.pools.values().map(|it| it.setup.set.clone()).collect()
    }

    pub(super) fn ids(&self) -> Vec<PoolId> {
        self.pools.keys().copied().collect()
    }
}

impl Index<PoolId> for Pools {
    type Output = Upstream;

    fn index(&self, id: PoolId) -> &Upstream {
        self.pools
            .get(&id)
            .expect("a pool stays for as long as a forward names it")
    }
}

impl IndexMut<PoolId> for Pools {
    fn index_mut(&mut self, id: PoolId) -> &mut Upstream {
        let pool = self.pools.get_mut(&id);
        pool.expect("a pool stays for as long as a forward names it")
    }
}

impl Upstream {
    pub(super) fn new(setup: UpstreamSetup, reactor: u16) -> Self {
        let mut upstream = Self {
            random: Random::new(seed(reactor)),
            next_source: usize::from(reactor),
            line: WaitingLine::new(),
            spares: Spares::default(),
            version: 0,
            speaks_first: false,
            setup,
        };
        upstream.renew();
        upstream
    }

    /// Another set of servers from now on. The spares of those that are gone are to be
    /// closed.
    pub(super) fn replace(&mut self, set: Arc<ServerSet>) -> Vec<SessionKey> {
        self.setup.set = set;
        self.renew()
    }

    /// Goes by other settings from now on; who waits in line stays there. The spares that
    /// these have no use for are to be closed.
    pub(super) fn change(&mut self, setup: UpstreamSetup) -> Vec<SessionKey> {
        let before = &self.setup;
        let elsewhere = setup.sources != before.sources || setup.transparent != before.transparent;
        let mut gone = if elsewhere || setup.warm == 0 {
            std::mem::take(&mut self.spares).take_all()
        } else {
            Vec::new()
        };
        self.setup = setup;
        gone.extend(self.renew());
        gone
    }

    fn renew(&mut self) -> Vec<SessionKey> {
        self.version = self.version.wrapping_add(1);
        if self.setup.warm == 0 {
            return Vec::new();
        }
        self.spares.follow(&self.setup.set)
    }

    /// Chooses among the servers that were not tried.
    pub(super) fn choose(&mut self, comer: Comer<'_>, tried: &Tried, now: Time) -> Choice {
        // More surprises than there are other reactors are no surprise.
        const SURPRISES: usize = 64;
        let key = self.key(comer.client);
        let mut seen = tried.clone();
        let mut has_enough = false;
        for _ in 0..SURPRISES {
            let (set, ask) = (
                &self.setup.set,
                Ask {
                    key,
                    tried: &seen,
                    now,
                },
            );
            let (at, marked) = match set.balancer.pick(&set.members, &ask, &mut self.random) {
                balance::Choice::Server { at, marked } => (at, marked),
                balance::Choice::Full => return Choice::Full,
                balance::Choice::Nowhere if set.awaits_names() => return Choice::Full,
                balance::Choice::Nowhere if has_enough => return Choice::Enough,
                balance::Choice::Nowhere => return Choice::Nowhere,
            };
            if marked && has_enough {
                // It has servers that work, and no more of them.
                return Choice::Enough;
            }
            let server = &set.members[usize::from(at)].server;
            let Ok(place) = comer.place(server, self.setup.clients.as_ref()) else {
                add(&server.tally.over_limit, 1);
                has_enough = true;
                seen.insert(at);
                continue;
            };
            let standing = &server.standing;
            let admission = if marked {
                Admission::Free
            } else {
                standing.admit(now)
            };
            // Another reactor may have been faster.
            if admission == Admission::Marked {
                seen.insert(at);
            } else if standing.enter(now) {
                return Choice::Member(at, Pass { admission, place });
            } else {
                standing.abandoned(admission, now);
            }
        }
        if has_enough {
            Choice::Enough
        } else {
            Choice::Full
        }
    }

    /// The positions of servers that were tried.
    pub(super) fn tried(&self, failures: &[(Destination, Cause)]) -> Tried {
        let mut tried = Tried::default();
        for server in failures.iter().filter_map(|(it, _)| it.account()) {
            if let Some(at) = self.setup.set.position(server) {
                tried.insert(at);
            }
        }
        tried
    }

    /// Whether sessions that wait should ask again: a server has room, or none may be
    /// picked any more and there is nothing to wait for.
    pub(super) fn is_worth_a_try(&self, now: Time) -> bool {
        let set = &self.setup.set;
        !set.awaits_names() && set.balancer.is_worth_a_try(&set.members, now)
    }

    fn key(&self, client: &Endpoint) -> u64 {
        match client {
            Endpoint::Inet(client) if self.setup.set.balancer.policy() == Policy::Hash => {
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

    /// Whether every connect to a server is as good as another: none has an address of its own, and
    /// none an interface, which a socket that is connected again has no more.
    pub(super) fn is_plain(&self) -> bool {
        let setup = &self.setup;
        setup.sources.is_empty() && !setup.transparent && !setup.options.has_interface()
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

/// Reactors draw different numbers; a simulated run draws the same each time.
fn seed(reactor: u16) -> u64 {
    0x7468_616c_7765_6700 ^ u64::from(reactor)
}
