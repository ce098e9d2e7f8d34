//! One-off lookups, for names that a client gave: cached, bounded, with a deadline.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::LookupError;
use super::query::{Questions, silence};
use super::system::System;
use super::{ADDRESSES_MAX, QUESTIONS_MAX, order};

/// Lookups under way at the most; a further one is refused.
const UNDER_WAY_MAX: usize = 256;

/// Hosts whose answer is remembered.
const CACHED_MAX: usize = 4096;

/// The longest that one lookup takes.
const DEADLINE: Duration = Duration::from_secs(10);

/// The longest that an answer is remembered.
const TTL_MAX: Duration = Duration::from_secs(300);

/// The shortest: a client that connects again at once does not cost a question.
const TTL_MIN: Duration = Duration::from_secs(1);

/// How long "there is no such name" is remembered. What failed otherwise is not.
const NEGATIVE_TTL: Duration = Duration::from_secs(5);

type LookupResult = Result<Vec<IpAddr>, LookupError>;

/// One of the lookups that may be under way.
pub(super) type Permit = OwnedSemaphorePermit;

/// Lookups and what they found.
#[derive(Debug)]
pub(super) struct Lookups {
    system: Arc<System>,
    places: Arc<Semaphore>,
    /// For the questions of all of them.
    questions: Arc<Semaphore>,
    cache: Mutex<HashMap<String, (Instant, LookupResult)>>,
}

impl Lookups {
    pub(super) fn new(system: Arc<System>) -> Self {
        Self {
            system,
            places: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            cache: Mutex::new(HashMap::new()),
        }
    }

    /// A place for one more; `None` if there are enough under way.
    pub(super) fn place(&self) -> Option<Permit> {
        self.places.clone().try_acquire_owned().ok()
    }

    pub(super) async fn run(self: Arc<Self>, host: String, port: u16, reply: Reply, place: Permit) {
        let host = host.to_ascii_lowercase();
        let outcome = match self.cached(&host) {
            Some(outcome) => outcome,
            None => self.ask(host).await,
        };
        let endpoints = outcome.map(|addresses| {
            let addresses = addresses.into_iter().map(|ip| (ip, port).into());
            order::for_dialling(addresses.collect(), order::source_address)
        });
        drop(place);
        reply.send(endpoints);
    }

    async fn ask(&self, host: String) -> LookupResult {
        let questions = Questions::new(&self.system, &self.questions);
        // Absolute: a list of domains to search would turn the name that was judged into
        // another one.
        let asked = questions.host(&host, true);
        let Ok(families) = tokio::time::timeout(DEADLINE, asked).await else {
            return Err(silence(DEADLINE));
        };
        let error = families.error();
        let found: Vec<_> = [families.v6, families.v4].into_iter().flatten().collect();
        let ttl = found.iter().map(|it| it.ttl).min();
        let ttl = ttl.map_or(NEGATIVE_TTL, |ttl| ttl.clamp(TTL_MIN, TTL_MAX));
        let addresses = found.into_iter().flat_map(|it| it.addresses);
        let addresses: Vec<IpAddr> = addresses.take(ADDRESSES_MAX).collect();
        let outcome = match error {
            Some(error) if addresses.is_empty() => Err(error),
            _ => Ok(addresses),
        };
        if outcome.as_ref().err().is_none_or(LookupError::is_negative) {
            self.remember(host, ttl, outcome.clone());
        }
        outcome
    }

    fn cached(&self, host: &str) -> Option<LookupResult> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, outcome) = cache.get(host)?;
        (Instant::now() < *until).then(|| outcome.clone())
    }

    fn remember(&self, host: String, ttl: Duration, outcome: LookupResult) {
        let now = Instant::now();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED_MAX {
            cache.retain(|_, (until, _)| now < *until);
        }
        // A flood of names that are all good: to begin again costs a question each,
        // and no more memory.
        if cache.len() >= CACHED_MAX {
            cache.clear();
        }
        cache.insert(host, (now + ttl, outcome));
    }
}

/// Tells the outcome exactly once; if it is dropped, that the resolver has stopped.
pub(super) struct Reply(Option<Done>);

type Done = Box<dyn FnOnce(Result<Vec<SocketAddr>, LookupError>) + Send>;

impl Reply {
    pub(super) fn new(
        done: impl FnOnce(Result<Vec<SocketAddr>, LookupError>) + Send + 'static,
    ) -> Self {
        Self(Some(Box::new(done)))
    }

    pub(super) fn send(mut self, outcome: Result<Vec<SocketAddr>, LookupError>) {
        if let Some(done) = self.0.take() {
            done(outcome);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(LookupError::Stopped));
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}
