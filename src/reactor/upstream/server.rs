//! A server as all reactors share it: how many sessions it has, whether it is up,
//! and what came of dialling it.
//!
//! Touched once a connect and once an end, never by a byte on its way. Health checks
//! and the resolving of names (`control`) change it or put others in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::balance::health::{self, Admission, Change, PassiveMarks};
use crate::balance::{Balancer, Policy};
use crate::config::{AdminState, Resolve};
use crate::net::address::Endpoint;
use crate::observe::metrics::table::Distribution;
use crate::observe::notice::ServerName;
use crate::relay::ending::Cause;
use crate::relay::id::ServerId;
use crate::relay::time::Time;

/// What does not change in the life of a server.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Its identity.
    pub id: ServerId,
    /// Where it is.
    pub endpoint: Endpoint,
    /// The host by which it is configured; `None`: by its address.
    pub host: Option<String>,
    /// Of its pool, or of the forward in which it is written.
    pub pool: Arc<str>,
    /// Sessions at the most.
    pub max_connections: Option<u32>,
    /// What an operator wants of it.
    pub admin: AdminState,
    /// Failures within `fail_timeout` that mark it; 0: never.
    pub max_fails: u32,
    /// See `max_fails`.
    pub fail_timeout: Duration,
}

/// A server. See the module's documentation.
#[derive(Debug)]
pub struct Server {
    settings: ServerSettings,
    /// Marked by failures in passing.
    pub marks: PassiveMarks,
    /// Found to be down by checks.
    checked_down: AtomicBool,
    /// When it last came up, in microseconds; 0: it was never down.
    back_since: AtomicU64,
    /// The only one of its pool: never marked, for there is no other to go to.
    alone: AtomicBool,
    /// What came of dialling it.
    pub tally: Tally,
}

impl Server {
    /// One that is up and has no session.
    pub fn new(settings: ServerSettings) -> Self {
        Self {
            marks: PassiveMarks::new(settings.max_fails, settings.fail_timeout),
            settings,
            checked_down: AtomicBool::new(false),
            back_since: AtomicU64::new(0),
            alone: AtomicBool::new(false),
            tally: Tally::default(),
        }
    }

    /// What it was made from.
    pub const fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    /// Where it is.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.settings.endpoint
    }

    /// What the log calls it.
    pub fn name(&self) -> ServerName {
        ServerName {
            endpoint: self.settings.endpoint.clone(),
            pool: self.settings.pool.clone(),
        }
    }

    /// Sessions that are on it or being connected, over all reactors.
    pub fn active(&self) -> u32 {
        self.tally.active.load(Ordering::Relaxed)
    }

    /// One session more, unless it has as many as it may.
    pub fn enter(&self) -> bool {
        let max = self.settings.max_connections.unwrap_or(u32::MAX);
        let entered = self.tally.active.fetch_add(1, Ordering::Relaxed) < max;
        if !entered {
            self.leave();
        }
        entered
    }

    /// One session less.
    pub fn leave(&self) {
        self.tally.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it has as many sessions as it may.
    pub fn is_full(&self) -> bool {
        self.settings
            .max_connections
            .is_some_and(|max| self.active() >= max)
    }

    /// Whether operator and checks let sessions go there.
    pub fn is_up(&self) -> bool {
        self.settings.admin == AdminState::Active && !self.checked_down.load(Ordering::Relaxed)
    }

    /// A check found it down, or up again at `now`.
    pub fn checked(&self, change: Change, now: Time) {
        if change == Change::Up {
            self.came_back(now);
        }
        self.checked_down
            .store(change == Change::Down, Ordering::Relaxed);
    }

    /// It is checked no more: it counts as up.
    pub fn unchecked(&self) {
        self.checked_down.store(false, Ordering::Relaxed);
    }

    /// It is up again: its slow start begins.
    pub fn came_back(&self, now: Time) {
        let micros = now.as_micros().max(1);
        self.back_since.store(micros, Ordering::Relaxed);
    }

    /// Whether it is the only one of its pool.
    pub fn set_alone(&self, alone: bool) {
        self.alone.store(alone, Ordering::Relaxed);
    }

    /// A session that was admitted failed here. [`Change::Down`] if that marks it.
    pub fn failed(&self, admission: Admission, now: Time) -> Option<Change> {
        if self.alone.load(Ordering::Relaxed) {
            return None;
        }
        self.marks.failed(admission, now)
    }

    /// Its state in a word, for people and metrics.
    pub fn state(&self) -> &'static str {
        match self.settings.admin {
            AdminState::Drain => "drain",
            AdminState::Maintenance => "maintenance",
            AdminState::Active if self.checked_down.load(Ordering::Relaxed) => "down",
            AdminState::Active if self.marks.is_marked() => "marked",
            AdminState::Active => "up",
        }
    }

    /// `weight` as it counts now, in units of [`crate::balance::policy::WEIGHT_UNIT`].
    fn weight(&self, weight: u32, now: Time, slow_start: Duration) -> u32 {
        let back = self.back_since.load(Ordering::Relaxed);
        let since = if back == 0 {
            Duration::MAX
        } else {
            now.since(Time::from_micros(back))
        };
        health::slow_start(weight, since, slow_start)
    }
}

/// Kinds of failure that are told apart in a [`Tally`].
pub const FAILURES: [&str; 5] = ["refused", "unreachable", "timeout", "reset", "other"];

/// Buckets of the connect times: see [`Distribution`].
const BUCKETS: usize = 26;

/// What came of dialling a server, over all reactors. On cache lines of its own: it is
/// written by every session, while what stands before it is read by every choice.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tally {
    active: AtomicU32,
    /// Connects that were started.
    pub connects: AtomicU64,
    /// Those that failed, and resets right after one, as in [`FAILURES`].
    pub failures: [AtomicU64; FAILURES.len()],
    /// Bytes written to it.
    pub bytes_up: AtomicU64,
    /// Bytes of it that were written to clients.
    pub bytes_down: AtomicU64,
    /// Spares that were handed to clients.
    pub warm_used: AtomicU64,
    /// Spares that were thrown away: ended by the server, or too old.
    pub warm_stale: AtomicU64,
    connect_times: [AtomicU64; BUCKETS],
}

impl Tally {
    /// One more failure.
    pub fn failed(&self, cause: Cause) {
        let kind = match cause {
            Cause::Refused | Cause::SelfConnect => 0,
            Cause::Unreachable => 1,
            Cause::ConnectTimeout | Cause::PeerTimeout => 2,
            Cause::Reset | Cause::BrokenPipe => 3,
            _ => 4,
        };
        add(&self.failures[kind], 1);
    }

    /// A connect took so long.
    pub fn connected(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        add(
            &self.connect_times[Distribution::<BUCKETS>::bucket(micros)],
            1,
        );
    }

    /// What connects took, in microseconds.
    pub fn connect_times(&self) -> Distribution<BUCKETS> {
        let counts = self.connect_times.each_ref();
        Distribution {
            counts: counts.map(|count| count.load(Ordering::Relaxed)),
            sum: None,
        }
    }
}

/// To a number with several writers.
pub fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// A server's place in a set.
#[derive(Debug, Clone)]
pub struct Member {
    /// It.
    pub server: Arc<Server>,
    /// Its share beside the others' weights.
    pub weight: u32,
    /// Used only while no other server can be.
    pub backup: bool,
    /// Of several addresses of one name: which of the configured servers they belong
    /// to. Members of a name stand together.
    pub family: Option<u16>,
}

/// The servers of a pool at a time. Immutable: when a name changes, another set takes
/// its place, with the same [`Server`]s where these stay.
#[derive(Debug)]
pub struct ServerSet {
    pub(in crate::reactor) members: Box<[Member]>,
    pub(in crate::reactor) resolve: Resolve,
    slow_start: Duration,
    /// A reactor's own is made from it.
    pub(in crate::reactor) balancer: Balancer,
}

impl ServerSet {
    /// A set; may be empty, while no name of the pool has an address.
    pub fn new(
        members: Vec<Member>,
        policy: Policy,
        resolve: Resolve,
        slow_start: Duration,
    ) -> Self {
        let names: Vec<String> = members
            .iter()
            .map(|member| member.server.endpoint().to_string())
            .collect();
        let weighed: Vec<(&str, u32)> = names
            .iter()
            .zip(&members)
            .map(|(name, member)| (name.as_str(), member.weight))
            .collect();
        Self {
            balancer: Balancer::new(policy, &weighed, 0, 0),
            members: members.into(),
            resolve,
            slow_start,
        }
    }

    /// Its servers and their places.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The place of a server.
    pub(in crate::reactor) fn position(&self, server: &Arc<Server>) -> Option<u16> {
        let same = |member: &Member| Arc::ptr_eq(&member.server, server);
        self.members.iter().position(same).map(|at| at as u16)
    }

    pub(in crate::reactor) fn weight(&self, member: &Member, now: Time) -> u32 {
        member.server.weight(member.weight, now, self.slow_start)
    }

    /// The members that a connect to `first` races, `first` before all: of a name that
    /// is one server all its addresses, of one whose addresses are servers by
    /// themselves one of the other family beside it.
    pub(in crate::reactor) fn rivals(
        &self,
        first: u16,
        tried: &[Arc<Server>],
        now: Time,
    ) -> Vec<Arc<Server>> {
        let Some(member) = self.members.get(usize::from(first)) else {
            return Vec::new();
        };
        let mut rivals = vec![member.server.clone()];
        if member.family.is_none() {
            return rivals;
        }
        let v6 = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Inet(it) if it.is_ipv6());
        // From the first one on and round again, so that equals take turns.
        let (before, behind) = self.members.split_at(usize::from(first));
        let around = behind.iter().chain(before).skip(1);
        let untried = |it: &Arc<Server>| !tried.iter().any(|tried| Arc::ptr_eq(tried, it));
        let others = around
            .filter(|other| other.family == member.family && other.backup == member.backup)
            .map(|other| &other.server)
            .filter(|other| other.is_up() && other.marks.is_open(now) && !other.is_full())
            .filter(|other| untried(other));
        match self.resolve {
            // In the order in which the resolver left them: families take turns.
            Resolve::First => rivals.extend(others.cloned()),
            Resolve::All => {
                let family = v6(member.server.endpoint());
                let others = others.filter(|it| v6(it.endpoint()) != family);
                rivals.extend(others.min_by_key(|it| it.active()).cloned());
            }
        }
        rivals
    }

    /// Whether a connect to this member is a race at all.
    pub(in crate::reactor) fn is_raced(&self, member: u16) -> bool {
        self.members
            .get(usize::from(member))
            .is_some_and(|member| member.family.is_some())
    }
}
