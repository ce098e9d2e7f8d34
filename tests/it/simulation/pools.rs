//! The pools of a simulated run: servers that checks find down or up, and that names
//! list or do not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thalweg::balance::health;
use thalweg::config::{AdminState, HashKey, Resolve, SendProxy};
use thalweg::engine::Engine;
use thalweg::engine::sim::{SERVERS, Sim};
use thalweg::net::options::{Leg, SocketOptions};
use thalweg::proto::proxy::Version;
use thalweg::reactor::upstream::server::{
    Member, Server, ServerSet, ServerSettings, ServerTerms, SetRules,
};
use thalweg::reactor::{Reactor, UpstreamSetup};
use thalweg::relay::id::{PoolId, ServerId};
use thalweg::relay::time::Time;

use super::plan::{Change, Fate, PoolPlan};

/// Which servers each pool has: they share some.
const POOLS: [std::ops::Range<usize>; 2] = [0..3, 1..SERVERS];

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Pools {
    plan: PoolPlan,
    servers: Vec<Arc<Server>>,
    listed: RefCell<[bool; SERVERS]>,
    sets: RefCell<[Option<Arc<ServerSet>>; POOLS.len()]>,
    max_connections: Option<u32>,
}

impl Pools {
    pub(crate) fn new(plan: &PoolPlan) -> Self {
        let server = |index| {
            Arc::new(Server::new(ServerSettings {
                id: ServerId::new(index as u32),
                endpoint: Sim::server(index),
                host: None,
                pool: "sim".into(),
                terms: ServerTerms {
                    max_connections: plan.max_connections,
                    connect_rate: None,
                    max_per_client: None,
                    send_proxy: told(plan),
                    bytes: None,
                    admin: AdminState::Active,
                    max_fails: plan.max_fails,
                    fail_timeout: Duration::from_millis(500),
                },
            }))
        };
        Self {
            plan: *plan,
            servers: (0..SERVERS).map(server).collect(),
            listed: RefCell::new([true; SERVERS]),
            sets: RefCell::default(),
            max_connections: plan.max_connections,
        }
    }

    /// The servers of a pool as they are listed now, instead of those before.
    fn set(&self, pool: usize, now: Time) -> Arc<ServerSet> {
        let last = POOLS[pool].end - 1;
        let listed = self.listed.borrow();
        let members = POOLS[pool].clone().filter(|index| listed[*index]);
        let members = members.map(|index| Member {
            server: self.servers[index].clone(),
            weight: index as u32 + 1,
            backup: self.plan.backup && index == last,
            family: self.plan.raced.then_some(0),
        });
        let rules = SetRules {
            policy: self.plan.policy,
            resolve: Resolve::First,
            slow_start: Duration::from_millis(200),
        };
        let earlier = &mut self.sets.borrow_mut()[pool];
        let set = Arc::new(ServerSet::new(
            members.collect(),
            &rules,
            earlier.as_deref(),
            now,
        ));
        *earlier = Some(set.clone());
        set
    }

    pub(crate) fn setups(&self) -> BTreeMap<PoolId, UpstreamSetup> {
        self.setups_at(Time::ZERO).collect()
    }

    /// The pools of another configuration: longer or shorter waiting lines, more spares or
    /// none.
    pub(crate) fn reloaded(
        &self,
        generation: u64,
        reactor: &Reactor<Sim>,
    ) -> Vec<(PoolId, UpstreamSetup)> {
        let now = reactor.engine().now();
        let setups = self.setups_at(now).map(|(id, mut setup)| {
            setup.queue = (setup.queue + generation as u32) % 9;
            setup.warm *= ((generation + 1) % 2) as u32;
            (id, setup)
        });
        setups.collect()
    }

    fn setups_at(&self, now: Time) -> impl Iterator<Item = (PoolId, UpstreamSetup)> {
        let setup = move |pool| UpstreamSetup {
            set: self.set(pool, now),
            options: Arc::new(SocketOptions::default().plan(Leg::Upstream)),
            hash: HashKey::Address,
            queue: self.plan.queue,
            attempt_delay: Duration::from_millis(250),
            sources: [].into(),
            transparent: false,
            send_proxy: told(&self.plan),
            warm: self.plan.warm,
            warm_max_age: Duration::from_secs(2),
            clients: None,
        };
        (0..POOLS.len()).map(move |at| (PoolId::new(at as u32), setup(at)))
    }

    pub(crate) fn apply(&self, change: &Change, reactor: &mut Reactor<Sim>) {
        let server = &self.servers[change.server];
        let now = reactor.engine().now();
        match change.what {
            Fate::Down => server.standing.checked(health::Change::Down, now),
            Fate::Up => server.standing.checked(health::Change::Up, now),
            Fate::DownAndOut => {
                server.standing.checked(health::Change::Down, now);
                // Cut sessions owe their peers nothing.
                reactor.engine_mut().lenient = true;
                reactor.cut_server(server);
            }
            // It is no matter of one server.
            Fate::Reload => {}
            Fate::Gone | Fate::Back => {
                self.listed.borrow_mut()[change.server] = change.what == Fate::Back;
                for pool in 0..POOLS.len() {
                    reactor.replace_servers(PoolId::new(pool as u32), self.set(pool, now));
                }
            }
        }
    }

    /// No server has more sessions than it may, nor all of them more than there are
    /// sessions and rivals of races.
    pub(crate) fn check(&self, live: usize) {
        let mut total = 0;
        for server in &self.servers {
            let active = server.active();
            let max = self.max_connections.unwrap_or(u32::MAX);
            assert!(active <= max, "{active} sessions on a server for {max}");
            total += active as usize;
        }
        let rivals = if self.plan.raced { 4 } else { 1 };
        assert!(total <= live * rivals, "{total} active, {live} live");
    }

    /// Every session has left its server.
    pub(crate) fn check_empty(&self) {
        for server in &self.servers {
            assert_eq!(server.active(), 0, "a session never left its server");
        }
    }
}

/// What servers are told first, by the plan.
fn told(plan: &PoolPlan) -> Option<SendProxy> {
    plan.told.then_some(SendProxy {
        version: Version::V1,
        authority: false,
        alpn: false,
        unique_id: false,
        crc32c: false,
        datagrams: thalweg::config::ProxyDatagrams::Each,
    })
}
