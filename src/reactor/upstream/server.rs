//! A server as all reactors share it: how many sessions it has, whether it is up,
//! and what came of dialling it.
//!
//! Touched once a connect and once an end, never by a byte on its way. Health checks
//! and the resolving of names (`control`) change it or put others in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::balance::rivals::{self, Addresses};
use crate::balance::{self, Balancer, Place, Policy, Rules, Standing, Terms, Tried};
use crate::config::{AdminState, Resolve, SendProxy};
use crate::net::address::Endpoint;
use crate::observe::counters::ServerSnapshot;
use crate::observe::metrics::table::{self, Distribution, Totals};
use crate::observe::notice::ServerName;
use crate::policy::connect_rate::ConnectRate;
use crate::policy::meter::{Buckets, Rate};
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
    /// What it begins with; see [`Server::terms`].
    pub terms: ServerTerms,
}

/// No rate, each way.
const UNLIMITED: [Rate; 2] = [Rate {
    per_second: 0,
    burst: Duration::ZERO,
}; 2];

/// What may change in the life of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTerms {
    /// Sessions at the most.
    pub max_connections: Option<u32>,
    /// How fast it is given new ones.
    pub connect_rate: Option<ConnectRate>,
    /// Sessions of one client at the most.
    pub max_per_client: Option<u32>,
    /// What each connection to it begins with.
    pub send_proxy: Option<SendProxy>,
    /// Bytes a second of all its sessions together, up and down.
    pub bytes: Option<[Rate; 2]>,
    /// What an operator wants of it.
    pub admin: AdminState,
    /// Failures within `fail_timeout` that mark it; 0: never.
    pub max_fails: u32,
    /// See `max_fails`.
    pub fail_timeout: Duration,
}

/// Takes over what differs between two of each of these fields.
macro_rules! follow_each {
    ($terms:ident, $was:ident, $is:ident: $($field:ident)*) => {
        // A field that is missing here would be one that no reload changes: that does not compile.
        let ServerTerms { $($field: _),* } = $terms;
        $(
            if $was.$field != $is.$field {
                $terms.$field = $is.$field;
            }
        )*
    };
}

impl ServerTerms {
    /// No limit, and nothing marks it.
    pub const UNLIMITED: Self = Self {
        max_connections: None,
        connect_rate: None,
        max_per_client: None,
        send_proxy: None,
        bytes: None,
        admin: AdminState::Active,
        max_fails: 0,
        fail_timeout: Duration::ZERO,
    };

    /// Takes over what a configuration asks otherwise than the one before; the rest stays as an operator has it.
    pub fn follow(&mut self, was: &Self, is: &Self) {
        follow_each!(self, was, is:
            max_connections connect_rate max_per_client send_proxy bytes admin max_fails fail_timeout
        );
    }

    fn of_standing(&self) -> Terms {
        Terms {
            max_connections: self.max_connections,
            connect_rate: self.connect_rate,
            active: self.admin == AdminState::Active,
            max_fails: self.max_fails,
            fail_timeout: self.fail_timeout,
        }
    }
}

/// A server. See the module's documentation.
#[derive(Debug)]
pub struct Server {
    settings: ServerSettings,
    terms: ArcSwap<ServerTerms>,
    steered: Steered,
    /// What holds the bytes of its sessions back, if anything does.
    buckets: Arc<Buckets>,
    /// Whether sessions may go there, and how many are there.
    pub standing: Standing,
    /// What came of dialling it.
    pub tally: Tally,
}

impl Server {
    /// What is told of it.
    pub fn figures(&self) -> ServerSnapshot {
        let tally = &self.tally;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [refused, unreachable, timeout, reset, other] = tally.failures.each_ref().map(count);
        ServerSnapshot {
            state: self.state(),
            active: u64::from(self.active()),
            connects: count(&tally.connects),
            failures_refused: refused,
            failures_unreachable: unreachable,
            failures_timeout: timeout,
            failures_reset: reset,
            failures_other: other,
            bytes_up: count(&tally.bytes_up),
            bytes_down: count(&tally.bytes_down),
            over_limit: count(&tally.over_limit),
            connect_rate_reached: self.standing.rate_reached(),
            warm_used: count(&tally.warm_used),
            warm_stale: count(&tally.warm_stale),
            connect: tally.connect_times(),
        }
    }

    /// One that is up and has no session.
    pub fn new(settings: ServerSettings) -> Self {
        Self {
            standing: Standing::new(&settings.terms.of_standing()),
            buckets: Arc::new(Buckets::new(settings.terms.bytes.unwrap_or(UNLIMITED))),
            terms: ArcSwap::from_pointee(settings.terms),
            steered: Steered::default(),
            settings,
            tally: Tally::default(),
        }
    }

    /// What it was made from.
    pub const fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    /// What is asked of it now.
    pub fn terms(&self) -> ServerTerms {
        **self.terms.load()
    }

    /// Other terms from now on; sessions stay, and so does what is known of it.
    pub fn set_terms(&self, terms: ServerTerms, now: Time) {
        self.terms.store(Arc::new(terms));
        self.buckets.set_rates(terms.bytes.unwrap_or(UNLIMITED));
        self.standing.set_terms(&terms.of_standing(), now);
    }

    /// Sessions of one client at the most, if there is such a limit.
    pub(in crate::reactor) fn max_per_client(&self) -> Option<u32> {
        self.terms.load().max_per_client
    }

    /// What each connection to it begins with, if anything does.
    pub(in crate::reactor) fn send_proxy(&self) -> Option<SendProxy> {
        self.terms.load().send_proxy
    }

    /// What its sessions share, if their bytes are limited.
    pub fn buckets(&self) -> Option<Arc<Buckets>> {
        let limited = self.terms.load().bytes.is_some();
        limited.then(|| self.buckets.clone())
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
        self.standing.active()
    }

    /// How often an operator changed it: who changes it can say which of its states that
    /// is meant for.
    pub fn version(&self) -> u64 {
        self.steered.version.load(Ordering::Relaxed)
    }

    /// It was changed.
    pub fn renew_version(&self) {
        add(&self.steered.version, 1);
    }

    /// Since when it is in the state that it is in, as far as anybody looked; zero is
    /// since the start.
    pub fn state_since(&self) -> Time {
        Time::from_micros(self.steered.since.load(Ordering::Relaxed))
    }

    /// Notes when its state changed. Called by whoever changes it and by whoever looks.
    pub fn note_state(&self, now: Time) {
        let state = self.state();
        let number = STATES.iter().position(|it| *it == state).unwrap_or(0) as u8;
        if self.steered.seen.swap(number, Ordering::Relaxed) != number {
            self.steered.since.store(now.as_micros(), Ordering::Relaxed);
        }
    }

    /// Its state in a word, for people and metrics.
    pub fn state(&self) -> &'static str {
        match self.terms().admin {
            AdminState::Drain => "drain",
            AdminState::Maintenance => "maintenance",
            AdminState::Active if self.standing.is_checked_down() => "down",
            AdminState::Active if self.standing.is_marked() => "marked",
            AdminState::Active => "up",
        }
    }
}

/// What [`Server::state`] may say.
pub const STATES: [&str; 5] = ["up", "marked", "down", "drain", "maintenance"];

/// What an operator did to it, and since when it is as it is.
#[derive(Debug, Default)]
struct Steered {
    version: AtomicU64,
    /// Its state when it was looked at last, as a place in [`STATES`], and since when.
    seen: AtomicU8,
    since: AtomicU64,
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
    /// Connects that were started.
    pub connects: AtomicU64,
    /// Those that failed, and resets right after one, as in [`FAILURES`].
    pub failures: [AtomicU64; FAILURES.len()],
    /// Bytes written to it.
    pub bytes_up: AtomicU64,
    /// Bytes of it that were written to clients.
    pub bytes_down: AtomicU64,
    /// Sessions that it was not given, because their clients had as many there as they may.
    pub over_limit: AtomicU64,
    /// Spares that were handed to clients.
    pub warm_used: AtomicU64,
    /// Spares that were thrown away: ended by the server, or too old.
    pub warm_stale: AtomicU64,
    connect_times: [AtomicU64; BUCKETS],
    connect_micros: AtomicU64,
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
        add(&self.connect_micros, micros);
    }

    /// What another process has counted.
    pub fn absorb(&self, more: &Totals) {
        let keys = FAILURES.map(|it| format!("failures_{it}"));
        let failures = keys.iter().map(String::as_str).zip(&self.failures);
        let others = [
            ("connects", &self.connects),
            ("bytes_up", &self.bytes_up),
            ("bytes_down", &self.bytes_down),
            ("over_limit", &self.over_limit),
            ("warm_used", &self.warm_used),
            ("warm_stale", &self.warm_stale),
        ];
        for (key, counter) in failures.chain(others) {
            add(counter, table::total(more, key));
        }
        let connect = Distribution::<BUCKETS>::of_totals(more, "connect");
        for (counter, count) in self.connect_times.iter().zip(connect.counts) {
            add(counter, count);
        }
        add(&self.connect_micros, connect.sum.unwrap_or(0));
    }

    /// What connects took, in microseconds.
    pub fn connect_times(&self) -> Distribution<BUCKETS> {
        let counts = self.connect_times.each_ref();
        Distribution {
            counts: counts.map(|count| count.load(Ordering::Relaxed)),
            sum: Some(self.connect_micros.load(Ordering::Relaxed)),
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

/// What all servers of a set go by.
#[derive(Debug, Clone, Copy)]
pub struct SetRules {
    /// How they are balanced.
    pub policy: Policy,
    /// What several addresses of a name are.
    pub resolve: Resolve,
    /// How long a server that has come back takes to get its whole weight.
    pub slow_start: Duration,
}

impl balance::Member for Member {
    fn standing(&self) -> &Standing {
        &self.server.standing
    }
}

/// The servers of a pool at a time. Immutable: when a name changes, another set takes
/// its place, with the same [`Server`]s where these stay. All reactors share it, its
/// balancer included.
#[derive(Debug)]
pub struct ServerSet {
    pub(in crate::reactor) members: Box<[Member]>,
    pub(in crate::reactor) resolve: Resolve,
    pub(in crate::reactor) balancer: Balancer,
    /// Where each server stands, by its number.
    positions: Box<[(ServerId, u16)]>,
    awaits_names: bool,
}

impl ServerSet {
    /// A set; may be empty, while no name of the pool has an address. Goes on where
    /// `earlier` is now, if it takes the place of one. From `now` on its servers tell it
    /// of every change.
    pub fn new(members: Vec<Member>, rules: &SetRules, earlier: Option<&Self>, now: Time) -> Self {
        let names: Vec<String> = members
            .iter()
            .map(|member| member.server.endpoint().to_string())
            .collect();
        let places: Vec<Place<'_>> = names
            .iter()
            .zip(&members)
            .map(|(name, member)| Place {
                name,
                weight: member.weight,
                backup: member.backup,
                family: member.family,
            })
            .collect();
        let balancer = Balancer::new(
            Rules {
                policy: rules.policy,
                name_is_one_server: rules.resolve == Resolve::First,
                slow_start: rules.slow_start,
            },
            &places,
        );
        if let Some(earlier) = earlier {
            balancer.follow(&earlier.balancer, |at| {
                earlier.position(&members.get(usize::from(at))?.server)
            });
        }
        balancer.seat(&members, now);
        let mut positions: Vec<(ServerId, u16)> = members
            .iter()
            .zip(0..)
            .map(|(member, at)| (member.server.settings().id, at))
            .collect();
        positions.sort_unstable();
        Self {
            members: members.into(),
            resolve: rules.resolve,
            balancer,
            positions: positions.into(),
            awaits_names: false,
        }
    }

    /// Names of its pool may have their first addresses any moment: as long as it is empty
    /// sessions wait.
    #[must_use]
    pub fn awaiting_names(mut self, awaits: bool) -> Self {
        self.awaits_names = awaits;
        self
    }

    /// Whether sessions are to wait for its first servers, of which it has none.
    pub fn awaits_names(&self) -> bool {
        self.awaits_names && self.members.is_empty()
    }

    /// Its servers and their places.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The place of a server.
    pub(in crate::reactor) fn position(&self, server: &Server) -> Option<u16> {
        let id = server.settings().id;
        let at = self
            .positions
            .binary_search_by_key(&id, |(id, _)| *id)
            .ok()?;
        Some(self.positions[at].1)
    }

    /// The members that a connect to `picked` races, it before all, without those that
    /// were `tried`.
    pub(in crate::reactor) fn rivals(
        &self,
        picked: u16,
        tried: &Tried,
        now: Time,
    ) -> Vec<Arc<Server>> {
        let first = usize::from(picked);
        let family = self.members[first].family;
        let same = |member: &&Member| family.is_some() && member.family == family;
        let before = self.members[..first].iter().rev().take_while(same).count();
        let from = self.members[first..].iter().take_while(same).count().max(1);
        let name = (first - before) as u16..(first + from) as u16;
        let addresses = Dialled {
            set: self,
            backup: self.members[first].backup,
            tried,
            now,
        };
        let one_server = self.resolve == Resolve::First;
        let rivals = rivals::rivals(picked, name, one_server, &addresses);
        let server = |at: u16| self.members[usize::from(at)].server.clone();
        rivals.into_iter().map(server).collect()
    }

    /// Whether a connect to this member is a race at all.
    pub(in crate::reactor) fn is_raced(&self, member: u16) -> bool {
        self.members
            .get(usize::from(member))
            .is_some_and(|member| member.family.is_some())
    }
}

/// The servers of a set as a race sees them.
struct Dialled<'a> {
    set: &'a ServerSet,
    backup: bool,
    tried: &'a Tried,
    now: Time,
}

impl Dialled<'_> {
    fn member(&self, at: u16) -> &Member {
        &self.set.members[usize::from(at)]
    }
}

impl Addresses for Dialled<'_> {
    fn may(&self, at: u16) -> bool {
        let standing = &self.member(at).server.standing;
        self.member(at).backup == self.backup
            && standing.is_up()
            && standing.is_open(self.now)
            && !standing.is_full(self.now)
            && !self.tried.contains(at)
    }

    fn is_v6(&self, at: u16) -> bool {
        matches!(self.member(at).server.endpoint(), Endpoint::Inet(it) if it.is_ipv6())
    }

    fn active(&self, at: u16) -> u32 {
        self.member(at).server.active()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured() -> ServerTerms {
        ServerTerms {
            max_connections: Some(10),
            connect_rate: None,
            max_per_client: None,
            send_proxy: None,
            bytes: None,
            admin: AdminState::Active,
            max_fails: 3,
            fail_timeout: Duration::from_secs(10),
        }
    }

    #[test]
    fn what_is_asked_otherwise_is_taken_over_and_the_rest_is_as_an_operator_has_it() {
        let was = configured();
        let by_operator = ServerTerms {
            max_connections: Some(2),
            admin: AdminState::Drain,
            ..was
        };
        let mut terms = by_operator;
        terms.follow(&was, &was);
        assert_eq!(terms, by_operator);
        let rate = Rate {
            per_second: 1000,
            burst: Duration::from_secs(1),
        };
        let is = ServerTerms {
            connect_rate: Some(ConnectRate {
                interval: Duration::from_secs(1),
                burst: 1,
            }),
            max_per_client: Some(1),
            bytes: Some([rate; 2]),
            max_fails: 4,
            fail_timeout: Duration::from_secs(11),
            ..was
        };
        terms.follow(&was, &is);
        let expected = ServerTerms {
            max_connections: Some(2),
            admin: AdminState::Drain,
            ..is
        };
        assert_eq!(terms, expected);
        terms.follow(&is, &configured());
        terms.follow(
            &ServerTerms {
                max_connections: None,
                admin: AdminState::Maintenance,
                ..was
            },
            &was,
        );
        assert_eq!(terms, was);
    }
}
