//! What lookups have found, for as long as it is good: addresses, that there is no such
//! name, and that nobody answered. Pure: the time is given.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::queue::zone;
use crate::control::resolve::error::LookupError;
use crate::control::resolve::known::KnownHost;
use crate::policy::client::Client;

/// Hosts whose answer is remembered, and zones of a client whose silence is.
const ENTRIES_MAX: usize = 4096;

/// The longest that an answer is remembered.
const TTL_MAX: Duration = Duration::from_secs(300);

/// The shortest: a client that connects again at once does not cost a question.
const TTL_MIN: Duration = Duration::from_secs(1);

/// How long "there is no such name" is remembered, and that nobody answered. What failed
/// otherwise is not.
const NO_ANSWER_TTL: Duration = Duration::from_secs(5);

/// Names of a zone that met with silence, for one client, before the others of it are
/// taken for silent too.
const SILENT_NAMES: u32 = 3;

pub(super) type LookupResult = Result<Vec<IpAddr>, LookupError>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    hosts: Bounded<String, LookupResult>,
    /// How many names of a zone met with silence, for each client by itself: a client that
    /// makes a zone seem silent is the only one for whom it is.
    silences: Bounded<(Client, String), u32>,
    /// Zones that met with silence, whoever asked.
    zones: Bounded<String, ()>,
}

impl Remembered {
    /// What is known of a host, for this client.
    pub(super) fn outcome(&self, client: Client, host: &str, now: Instant) -> Option<LookupResult> {
        if let Some(outcome) = self.hosts.get(host, now) {
            return Some(outcome.clone());
        }
        let zone = zone(host)?;
        let key = (client, zone.to_owned());
        let silent = self
            .silences
            .get(&key, now)
            .is_some_and(|it| *it >= SILENT_NAMES);
        silent.then(|| {
            let why = format!("other names in {zone} were not answered a moment ago");
            Err(LookupError::TimedOut(why))
        })
    }

    /// Whether names of this host's zone were not answered lately.
    pub(super) fn is_silent(&self, host: &str, now: Instant) -> bool {
        zone(host).is_some_and(|zone| self.zones.get(zone, now).is_some())
    }

    /// Hosts that have addresses, and for how long.
    pub(super) fn found(&self, now: Instant) -> Vec<KnownHost> {
        let entries = self.hosts.entries.iter();
        let found = entries.filter_map(|(host, (until, outcome))| {
            let left = until.checked_duration_since(now)?;
            Some(KnownHost {
                host: host.clone(),
                addresses: outcome.as_ref().ok()?.clone(),
                left: left.as_micros() as u64,
            })
        });
        let mut found: Vec<_> = found.collect();
        found.sort_unstable_by(|a, b| a.host.cmp(&b.host));
        found
    }

    /// What another process has found.
    pub(super) fn take_up(&mut self, host: String, found: Vec<IpAddr>, left: u64, now: Instant) {
        let left = Duration::from_micros(left).min(TTL_MAX);
        self.hosts.put(host, Ok(found), now + left, now);
    }

    /// What came of asking for a host, and how long it is good; who wanted it.
    pub(super) fn learn(
        &mut self,
        host: &str,
        outcome: &LookupResult,
        ttl: Option<Duration>,
        clients: impl Iterator<Item = Client>,
        now: Instant,
    ) {
        let silent = matches!(outcome, Err(LookupError::TimedOut(_)));
        let ttl = match outcome {
            Ok(_) => ttl.unwrap_or(TTL_MIN).clamp(TTL_MIN, TTL_MAX),
            Err(error) if silent || error.is_negative() => NO_ANSWER_TTL,
            Err(_) => return,
        };
        self.hosts
            .put(host.to_owned(), outcome.clone(), now + ttl, now);
        let Some(zone) = zone(host) else {
            return;
        };
        if silent {
            self.zones.put(zone.to_owned(), (), now + ttl, now);
        } else {
            self.zones.entries.remove(zone);
        }
        for client in clients {
            let key = (client, zone.to_owned());
            if silent {
                let before = self.silences.get(&key, now).copied().unwrap_or(0);
                self.silences.put(key, before + 1, now + ttl, now);
            } else {
                self.silences.entries.remove(&key);
            }
        }
    }
}

/// Entries that end, not too many.
#[derive(Debug)]
struct Bounded<K, V> {
    entries: HashMap<K, (Instant, V)>,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash, V> Bounded<K, V> {
    fn get<Q>(&self, key: &Q, now: Instant) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let (until, value) = self.entries.get(key)?;
        (now < *until).then_some(value)
    }

    fn put(&mut self, key: K, value: V, until: Instant, now: Instant) {
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.retain(|_, (until, _)| now < *until);
        }
        // A flood of keys that are all good: to begin again costs a question each, and
        // no more memory.
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.clear();
        }
        self.entries.insert(key, (until, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> Client {
        Client::from(Some(IpAddr::from([192, 0, 2, last])))
    }

    const SILENCE: LookupResult = Err(LookupError::TimedOut(String::new()));

    #[allow(clippy::unnecessary_wraps, reason = "it is one of the outcomes")]
    fn good() -> LookupResult {
        Ok(vec![IpAddr::from([192, 0, 2, 1])])
    }

    #[test]
    fn an_answer_lives_as_long_as_it_says_within_bounds() {
        let (mut known, start) = (Remembered::default(), Instant::now());
        let minute = Duration::from_secs(60);
        for (ttl, lives) in [
            (Some(minute), minute),
            (Some(Duration::ZERO), TTL_MIN),
            (Some(Duration::MAX), TTL_MAX),
            (None, TTL_MIN),
        ] {
            known.learn("a.test", &good(), ttl, std::iter::empty(), start);
            let at = |after| known.outcome(client(1), "a.test", start + after);
            assert_eq!(at(lives * 9 / 10), Some(good()));
            assert_eq!(at(lives), None);
        }
        let failure = Err(LookupError::ServerFailure("SERVFAIL".into(), String::new()));
        known.learn("b.test", &failure, None, std::iter::empty(), start);
        assert_eq!(known.outcome(client(1), "b.test", start), None);
    }

    #[test]
    fn silence_is_remembered_by_name_for_all_and_by_zone_for_who_met_it() {
        let (mut known, start) = (Remembered::default(), Instant::now());
        for n in 0..SILENT_NAMES {
            let next = format!("next{n}.silent.test");
            assert_eq!(known.outcome(client(1), &next, start), None);
            known.learn(
                &format!("n{n}.silent.test"),
                &SILENCE,
                None,
                [client(1)].into_iter(),
                start,
            );
        }
        let outcome = |known: &Remembered, of, host: &str, after| {
            known.outcome(client(of), host, start + after)
        };
        let soon = Duration::from_secs(4);
        assert!(matches!(
            outcome(&known, 1, "other.silent.test", soon),
            Some(Err(LookupError::TimedOut(_)))
        ));
        assert!(matches!(
            outcome(&known, 2, "n0.silent.test", soon),
            Some(Err(LookupError::TimedOut(_)))
        ));
        assert_eq!(outcome(&known, 2, "other.silent.test", soon), None);
        assert_eq!(outcome(&known, 1, "other.test", soon), None);
        assert!(known.is_silent("other.silent.test", start + soon));
        assert!(!known.is_silent("other.silent.test", start + NO_ANSWER_TTL));
        assert_eq!(outcome(&known, 1, "other.silent.test", NO_ANSWER_TTL), None);
        // One answer, and it is forgotten.
        known.learn(
            "www.silent.test",
            &good(),
            None,
            [client(1)].into_iter(),
            start,
        );
        assert_eq!(outcome(&known, 1, "other.silent.test", soon), None);
        assert!(!known.is_silent("other.silent.test", start));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut known, now) = (Remembered::default(), Instant::now());
        for n in 0..3 * ENTRIES_MAX {
            known.learn(
                &format!("n.z{n}.test"),
                &SILENCE,
                None,
                [client(1)].into_iter(),
                now,
            );
        }
        assert!(known.hosts.entries.len() <= ENTRIES_MAX);
        assert!(known.silences.entries.len() <= ENTRIES_MAX);
        assert!(known.zones.entries.len() <= ENTRIES_MAX);
    }
}
