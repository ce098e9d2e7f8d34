//! What differs between two configurations, by identity: a forward and a pool are known
//! by their names, a server and a listener by their addresses. For each difference it is
//! said what it takes to bring it about in a process that runs ([`Applies`]).
//!
//! Pure: nothing is looked up, and nothing is changed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use super::alike::Others;
use super::forward::Forward;
use super::kind::Compared;
use super::model::Config;
use super::pool::Pool;
use super::profile;
use super::route::{Route, RouteTo};
use super::row::{Applies, KeyChange};
use super::section::Section;
use super::server::Server;
use super::tap::TapKey;
use super::text::quote;

/// What a difference is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// `[global]`.
    Global,
    /// `[log]`.
    Log,
    /// `[admin]`.
    Admin,
    /// `[metrics]`.
    Metrics,
    /// A profile, by its name.
    Profile(String),
    /// A forward, by its name.
    Forward(String),
    /// A listener of a forward.
    Listener {
        /// The forward's name.
        forward: String,
        /// The address as it is written.
        address: String,
    },
    /// A pool, by its name; one that is written in its forward by the forward's.
    Pool(String),
    /// A server of a pool.
    Server {
        /// The pool's name.
        pool: String,
        /// The address as it is written; the second of the same address in a pool has
        /// `#2` behind it.
        address: String,
    },
}

/// How it differs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum What {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// One of its keys has another value.
    Changed {
        /// The key, dotted below its section: `check.interval`.
        key: String,
        /// The value before, as TOML; `None`: it was not set.
        old: Option<String>,
        /// The value after.
        new: Option<String>,
    },
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Difference {
    /// What it is about.
    pub subject: Subject,
    /// How it differs.
    pub what: What,
    /// What it takes to bring it about.
    pub effect: Applies,
}

impl Config {
    /// What is different in `new`. Empty for equal configurations.
    ///
    /// Defaults count as values: that a key is written which had this value by default
    /// is no difference.
    pub fn diff(&self, new: &Self) -> Vec<Difference> {
        let mut found = Collected::default();
        found.section(&Subject::Global, &self.global, &new.global);
        found.section(&Subject::Log, &self.log, &new.log);
        found.section(&Subject::Admin, &self.admin, &new.admin);
        found.section(&Subject::Metrics, &self.metrics, &new.metrics);
        found.profiles(self, new);
        let others = Others::of(&self.forwards, &new.forwards);
        if !others.is_none() {
            found.forwards(
                &by_name(&self.forwards, &others.old),
                &by_name(&new.forwards, &others.new),
            );
            found.pools(self, new, &others);
        }
        found.differences
    }
}

#[derive(Default)]
struct Collected {
    differences: Vec<Difference>,
}

impl Collected {
    fn push(&mut self, subject: Subject, what: What, effect: Applies) {
        self.differences.push(Difference {
            subject,
            what,
            effect,
        });
    }

    fn changes(&mut self, subject: &Subject, changes: Vec<KeyChange>) {
        for change in changes {
            let KeyChange {
                key,
                old,
                new,
                effect,
            } = change;
            self.push(subject.clone(), What::Changed { key, old, new }, effect);
        }
    }

    fn section<S: Section + PartialEq>(&mut self, subject: &Subject, old: &S, new: &S) {
        if old == new {
            return;
        }
        let mut changes = Vec::new();
        old.diff(new, "", &mut changes);
        self.changes(subject, changes);
    }

    /// Tells what is in one of two maps only, and returns what is in both.
    fn both<'m, N: AsRef<str> + Ord, T>(
        &mut self,
        old: &'m BTreeMap<N, T>,
        new: &'m BTreeMap<N, T>,
        subject: impl Fn(&str) -> Subject,
        effect: Applies,
    ) -> Vec<(&'m str, &'m T, &'m T)> {
        let names: BTreeSet<&N> = old.keys().chain(new.keys()).collect();
        let mut both = Vec::new();
        for name in names {
            let text = name.as_ref();
            match (old.get(name), new.get(name)) {
                (Some(old), Some(new)) => both.push((text, old, new)),
                (Some(_), None) => self.push(subject(text), What::Removed, effect),
                (None, _) => self.push(subject(text), What::Added, effect),
            }
        }
        both
    }

    /// A profile by itself does nothing: legs have its options. A change takes new
    /// listeners only where some client leg has the profile.
    fn profiles(&mut self, old: &Config, new: &Config) {
        let subject = |name: &str| Subject::Profile(name.to_owned());
        let (old_ones, new_ones) = (&old.profiles, &new.profiles);
        for (name, old, options) in self.both(old_ones, new_ones, subject, Applies::Live) {
            if old == options {
                continue;
            }
            let mut forwards = new.forwards.iter();
            let of_clients = forwards.any(|forward| forward.client_profile == name);
            let mut changes = profile::diff(old, options);
            for change in &mut changes {
                if !of_clients {
                    change.effect = Applies::Live;
                }
            }
            self.changes(&subject(name), changes);
        }
    }

    /// Of those that are not in both.
    fn forwards(
        &mut self,
        old: &BTreeMap<&str, &Arc<Forward>>,
        new: &BTreeMap<&str, &Arc<Forward>>,
    ) {
        let subject = |name: &str| Subject::Forward(name.to_owned());
        for (name, old, new) in self.both(old, new, subject, Applies::Rebind) {
            self.listeners(old, new);
            let mut changes = Vec::new();
            old.diff(new, "", &mut changes);
            TapKey::diff(old.tap.as_ref(), new.tap.as_ref(), &mut changes);
            old.mode.diff(&new.mode, &mut changes);
            let route = Compared {
                key: "route".to_owned(),
                effect: Applies::Live,
            };
            route.texts(routes_of(old), routes_of(new), &mut changes);
            self.changes(&subject(name), changes);
            if pool_of(old) != pool_of(new) {
                let what = What::Changed {
                    key: "upstream".to_owned(),
                    old: pool_of(old).map(quote),
                    new: pool_of(new).map(quote),
                };
                self.push(subject(name), what, Applies::Live);
            }
        }
    }

    fn listeners(&mut self, old: &Forward, new: &Forward) {
        let addresses = |forward: &Forward| -> BTreeSet<String> {
            forward.listen.iter().map(ToString::to_string).collect()
        };
        let (old, addresses) = (addresses(old), addresses(new));
        let subject = |address: &String| Subject::Listener {
            forward: new.name.clone(),
            address: address.clone(),
        };
        for address in old.difference(&addresses) {
            self.push(subject(address), What::Removed, Applies::Rebind);
        }
        for address in addresses.difference(&old) {
            self.push(subject(address), What::Added, Applies::Rebind);
        }
    }

    /// Those of the names that `others` have: whatever else differs of a pool, its forward is
    /// another one.
    fn pools(&mut self, old: &Config, new: &Config, others: &Others) {
        let of_old = others.old.iter().map(|at| &*old.forwards[*at]);
        let of_new = others.new.iter().map(|at| &*new.forwards[*at]);
        let labels = of_old.chain(of_new).flat_map(labelled);
        let wanted: HashSet<Cow<'_, str>> = labels.map(|(label, _)| label).collect();
        let (old, new) = (pools_by_name(old, &wanted), pools_by_name(new, &wanted));
        let subject = |name: &str| Subject::Pool(name.to_owned());
        for (name, old, new) in self.both(&old, &new, subject, Applies::Live) {
            let is_same = |(old, new): (&&Pool, &&Pool)| std::ptr::eq(*old, *new);
            if old.len() == new.len() && old.iter().zip(new).all(is_same) {
                continue;
            }
            let (old, new) = (OnePool::of(old), OnePool::of(new));
            self.section(&subject(name), old.policy, new.policy);
            let server = |address: &str| Subject::Server {
                pool: name.to_owned(),
                address: address.to_owned(),
            };
            for (address, old, new) in self.both(&old.servers, &new.servers, server, Applies::Live)
            {
                self.section(&server(address), *old, *new);
            }
        }
    }
}

/// Those at these places.
fn by_name<'c>(
    forwards: &'c [Arc<Forward>],
    places: &[usize],
) -> BTreeMap<&'c str, &'c Arc<Forward>> {
    let forwards = places.iter().map(|at| &forwards[*at]);
    forwards.map(|it| (&*it.name, it)).collect()
}

/// The routes of a forward, as TOML; `None`: it has none.
fn routes_of(forward: &Forward) -> Option<String> {
    let routes = forward.routes.iter().map(Route::write);
    let routes: Vec<String> = routes.collect();
    (!routes.is_empty()).then(|| format!("[{}]", routes.join(", ")))
}

/// The name by which the pool of a forward is known; `None`: it has none.
fn pool_of(forward: &Forward) -> Option<&str> {
    if forward.pool.servers.is_empty() {
        return None;
    }
    let name = forward.pool.name.as_ref();
    Some(name.unwrap_or(&forward.name))
}

/// The pools of a forward and its routes, by the names that they are known by.
fn labelled(forward: &Forward) -> impl Iterator<Item = (Cow<'_, str>, &Arc<Pool>)> {
    let own = pool_of(forward).map(|name| (name.into(), &forward.pool));
    let routes = forward.routes.iter();
    let others = routes.filter_map(|route| match &route.to {
        RouteTo::Pool(pool) if pool.name.is_some() => Some((pool.name.as_deref()?.into(), pool)),
        _ => {
            let (name, pool) = route.pool(&forward.name)?;
            Some((name.into(), pool))
        }
    });
    own.into_iter().chain(others)
}

/// The pools of a configuration that have one of these names. Those that ranges of ports make from one have one name
/// here: they differ in the ports of their servers alone.
fn pools_by_name<'c>(
    config: &'c Config,
    names: &HashSet<Cow<'_, str>>,
) -> BTreeMap<Cow<'c, str>, Vec<&'c Pool>> {
    let mut by_name: BTreeMap<Cow<'c, str>, Vec<&'c Pool>> = BTreeMap::new();
    let mut seen: HashSet<*const Pool> = HashSet::new();
    let all = config.forwards.iter().flat_map(|it| labelled(it));
    for (name, config) in all {
        // Several forwards share one.
        if seen.insert(Arc::as_ptr(config)) && names.contains(&name) {
            by_name.entry(name).or_default().push(config);
        }
    }
    by_name
}

/// All pools of a name.
struct OnePool<'c> {
    policy: &'c Pool,
    servers: BTreeMap<String, &'c Server>,
}

impl<'c> OnePool<'c> {
    fn of(pools: &[&'c Pool]) -> Self {
        let mut servers = BTreeMap::new();
        for server in pools.iter().flat_map(|pool| &pool.servers) {
            let address = server.address.to_string();
            let mut key = address.clone();
            let mut count = 1;
            while servers.contains_key(&key) {
                count += 1;
                key = format!("{address}#{count}");
            }
            servers.insert(key, server);
        }
        Self {
            // No name is there without a pool.
            policy: pools[0],
            servers,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("[global]"),
            Self::Log => f.write_str("[log]"),
            Self::Admin => f.write_str("[admin]"),
            Self::Metrics => f.write_str("[metrics]"),
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::Forward(name) => write!(f, "forward {name}"),
            Self::Listener { forward, address } => write!(f, "listener {address} of {forward}"),
            Self::Pool(name) => write!(f, "pool {name}"),
            Self::Server { pool, address } => write!(f, "server {address} of {pool}"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unset = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        match &self.what {
            What::Added => write!(f, "{}: added", self.subject)?,
            What::Removed => write!(f, "{}: removed", self.subject)?,
            What::Changed { key, old, new } => {
                let (old, new) = (unset(old), unset(new));
                write!(f, "{}: {key}: {old} becomes {new}", self.subject)?;
            }
        }
        write!(f, " ({})", self.effect)
    }
}
