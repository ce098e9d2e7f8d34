//! One-off lookups, for names that clients gave: remembered, asked for once, in fair
//! shares, with a deadline, and no longer than somebody waits.
//!
//! | file | what |
//! | --- | --- |
//! | here | the questions under way, and their answers |
//! | `queue` | whose turn it is; pure |
//! | `remembered` | what was found lately; pure |

mod queue;
mod remembered;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::error::LookupError;
use super::known::KnownHost;
use super::query::{Questions, silence};
use super::system::System;
use super::{ADDRESSES_MAX, order};
use crate::observe::panics;
use crate::policy::client::Client;

pub use queue::LookupId;
use queue::{Asker, LookupNumber, LookupQueue, LookupStart, LookupStep};
use remembered::{LookupResult, Remembered};

/// Questions of lookups at the most: for each name one of either family.
pub(super) const QUESTIONS_MAX: usize = 2 * queue::PLACES;

/// The longest that one lookup takes once it is begun.
const DEADLINE: Duration = Duration::from_secs(10);

/// Lookups and what they found.
#[derive(Debug)]
pub(super) struct Lookups {
    system: Arc<System>,
    runtime: Handle,
    /// For the questions of all of them.
    questions: Arc<Semaphore>,
    state: Mutex<LookupState>,
}

#[derive(Debug, Default)]
struct LookupState {
    known: Remembered,
    queue: LookupQueue<(u16, Reply)>,
    /// How an asking under way is ended.
    tasks: HashMap<LookupNumber, AbortHandle>,
    /// The runtime ends: nothing is begun any more.
    ended: bool,
}

impl Lookups {
    pub(super) fn new(system: Arc<System>, runtime: Handle) -> Self {
        Self {
            system,
            runtime,
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            state: Mutex::default(),
        }
    }

    /// Answers from what is remembered on this thread, and otherwise later on the
    /// resolver's. Takes a lower-case name.
    pub(super) fn ask(
        self: &Arc<Self>,
        (id, client): (LookupId, Option<IpAddr>),
        (host, port): (&str, u16),
        reply: Reply,
    ) {
        let (client, now) = (Client::from(client), Instant::now());
        let mut state = self.state();
        if state.ended {
            return;
        }
        if let Some(outcome) = state.known.outcome(client, host, now) {
            drop(state);
            return reply.send(with_port(outcome, port));
        }
        let asker = Asker {
            id,
            client,
            reply: (port, reply),
        };
        let is_silent = state.known.is_silent(host, now);
        match state.queue.ask(host, asker, is_silent) {
            LookupStep::Waits => {}
            LookupStep::Start(start) => self.start(&mut state, start),
            LookupStep::Refused((_, reply)) => {
                drop(state);
                reply.send(Err(LookupError::Busy));
            }
        }
    }

    /// What is remembered of hosts that have addresses.
    pub(super) fn known(&self) -> Vec<KnownHost> {
        self.state().known.found(Instant::now())
    }

    /// Remembers what another process did.
    pub(super) fn take_up(&self, known: Vec<KnownHost>) {
        let now = Instant::now();
        let mut state = self.state();
        for KnownHost {
            host,
            addresses,
            left,
        } in known
        {
            state.known.take_up(host, addresses, left, now);
        }
    }

    /// Nobody waits for this one any more.
    pub(super) fn cancel(self: &Arc<Self>, id: LookupId) {
        let mut state = self.state();
        let Some(((_, reply), stopped)) = state.queue.cancel(id) else {
            return;
        };
        reply.forget();
        if let Some(task) = stopped.and_then(|number| state.tasks.remove(&number)) {
            task.abort();
            self.start_more(&mut state);
        }
    }

    /// Before the runtime ends: whoever waits is told so.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        let queue = std::mem::take(&mut state.queue);
        // Replies are sent without the lock.
        drop(state);
        drop(queue);
    }

    fn start(self: &Arc<Self>, state: &mut LookupState, start: LookupStart) {
        let number = start.number;
        let mut asking = Asking {
            lookups: self.clone(),
            start: Some(start),
        };
        let task = self.runtime.spawn(async move {
            panics::provoked("resolver");
            let Some(host) = asking.start.as_ref().map(|it| it.host.clone()) else {
                return;
            };
            let (outcome, ttl) = asking.lookups.look_up(&host).await;
            asking.conclude(&outcome, ttl);
        });
        state.tasks.insert(number, task.abort_handle());
    }

    /// Begins what waits, as far as there are places.
    fn start_more(self: &Arc<Self>, state: &mut LookupState) {
        let now = Instant::now();
        let known = &state.known;
        let mut starts = Vec::new();
        while let Some(start) = state.queue.next(|host| known.is_silent(host, now)) {
            starts.push(start);
        }
        for start in starts {
            self.start(state, start);
        }
    }

    async fn look_up(&self, host: &str) -> (LookupResult, Option<Duration>) {
        let questions = Questions::new(&self.system, &self.questions);
        // Absolute: a list of domains to search would turn the name that was judged into
        // another one.
        let asked = questions.host(host, true);
        let Ok(families) = tokio::time::timeout(DEADLINE, asked).await else {
            return (Err(silence(DEADLINE)), None);
        };
        let error = families.error();
        let found: Vec<_> = [families.v6, families.v4].into_iter().flatten().collect();
        let ttl = found.iter().map(|it| it.ttl).min();
        let addresses = found.into_iter().flat_map(|it| it.addresses);
        let addresses: Vec<_> = addresses.take(ADDRESSES_MAX).collect();
        match error {
            Some(error) if addresses.is_empty() => (Err(error), ttl),
            _ => (Ok(in_order(addresses)), ttl),
        }
    }

    fn finish(
        self: &Arc<Self>,
        start: &LookupStart,
        outcome: &LookupResult,
        ttl: Option<Duration>,
    ) {
        let mut state = self.state();
        state.tasks.remove(&start.number);
        let askers = state.queue.finish(start);
        let clients = askers.iter().map(|it| it.client);
        state
            .known
            .learn(&start.host, outcome, ttl, clients, Instant::now());
        self.start_more(&mut state);
        drop(state);
        for asker in askers {
            let (port, reply) = asker.reply;
            reply.send(with_port(outcome.clone(), port));
        }
    }

    /// Whoever panicked while it held the lock left whole values behind it.
    fn state(&self) -> MutexGuard<'_, LookupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An asking under way: however its task ends, whoever waits is told.
#[derive(Debug)]
struct Asking {
    lookups: Arc<Lookups>,
    start: Option<LookupStart>,
}

impl Asking {
    fn conclude(&mut self, outcome: &LookupResult, ttl: Option<Duration>) {
        if let Some(start) = self.start.take() {
            self.lookups.finish(&start, outcome, ttl);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The runtime catches it, and says nothing.
            let log = &self.lookups.system.log;
            log.panicked("resolver", panics::add());
        }
        self.conclude(&Err(LookupError::Stopped), None);
    }
}

/// In the order of dialling, which is the same for every port. Found out once, off the
/// reactors: it takes a system call or two for each address.
fn in_order(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let endpoints = addresses.into_iter().map(|ip| (ip, 1).into()).collect();
    let ordered = order::for_dialling(endpoints, order::source_address);
    ordered.iter().map(SocketAddr::ip).collect()
}

fn with_port(outcome: LookupResult, port: u16) -> Result<Vec<SocketAddr>, LookupError> {
    outcome.map(|found| found.into_iter().map(|ip| (ip, port).into()).collect())
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

    /// Nobody is there to be told.
    fn forget(mut self) {
        self.0 = None;
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
