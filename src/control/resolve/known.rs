//! What a resolver knows, as plain data: the one of the next process goes on with it. So a
//! name server that fails just then takes no server away, and one that works is not asked
//! before its answers have ended.
//!
//! Ages go along: an answer is good for as long as it would have been. What was found with
//! other sources (`dns_servers`, `resolv_conf`, `hosts`) is not for this one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::NameSources;

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownNames {
    /// Where it was found.
    pub(super) sources: String,
    /// Names that are kept.
    pub kept: Vec<KnownName>,
    /// What lookups for clients have found.
    pub looked_up: Vec<KnownHost>,
}

/// What is known of a name that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownName {
    /// A host, or `srv:` and a service.
    pub name: String,
    /// What a service consists of.
    pub targets: Vec<KnownTarget>,
    /// The addresses of each host.
    pub addresses: Vec<(String, Vec<IpAddr>)>,
    /// Microseconds until it is asked for again.
    pub due: u64,
    /// Rounds that have failed in a row.
    pub failures: u32,
}

/// A host of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownTarget {
    /// Its name.
    pub host: String,
    /// As its record has them.
    pub port: u16,
    /// See `port`.
    pub priority: u16,
    /// See `port`.
    pub weight: u16,
}

/// A host that was looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownHost {
    /// Its name.
    pub host: String,
    /// Its addresses, in the order of dialling.
    pub addresses: Vec<IpAddr>,
    /// Microseconds for which that is good.
    pub left: u64,
}

impl KnownNames {
    /// Known by these.
    pub(super) fn by(sources: &NameSources) -> Self {
        Self {
            sources: identity(sources),
            ..Self::default()
        }
    }

    /// This, if it was found where these would look, or nothing.
    #[must_use]
    pub(super) fn for_sources(self, sources: &NameSources) -> Self {
        if self.sources == identity(sources) {
            self
        } else {
            Self::default()
        }
    }
}

fn identity(sources: &NameSources) -> String {
    let NameSources {
        dns_servers,
        resolv_conf,
        hosts,
    } = sources;
    format!(
        "{dns_servers:?} {} {}",
        resolv_conf.display(),
        hosts.display()
    )
}

/// What is known of the names that are kept, for whoever asks from outside.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<HashMap<String, (KnownName, Instant)>>);

impl Ledger {
    /// What a name is by now, and when it is asked for again.
    pub(super) fn note(&self, known: KnownName, due: Duration) {
        let due = Instant::now() + due;
        self.entries().insert(known.name.clone(), (known, due));
    }

    /// It is kept no more.
    pub(super) fn forget(&self, name: &str) {
        self.entries().remove(name);
    }

    /// All of it.
    pub(super) fn all(&self) -> Vec<KnownName> {
        let now = Instant::now();
        let entries = self.entries();
        let all = entries.values().map(|(known, due)| KnownName {
            due: due.saturating_duration_since(now).as_micros() as u64,
            ..known.clone()
        });
        let mut all: Vec<_> = all.collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Whoever panicked while it held the lock left whole values behind it.
    fn entries(&self) -> MutexGuard<'_, HashMap<String, (KnownName, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
