//! Names to addresses, off the reactors: one thread asks, and tells what changed.
//!
//! ```text
//! kept names ─► keep: one task for each host ─► query ─► hosts file, DNS servers
//!                │ TTL, retries, the last good set
//!                └─► on_change(names, their addresses)    only if they differ
//! lookup(host) ─► remembered, or its turn ─► query ─► done(addresses)   for a client's own name
//! ```
//! A kept library reads and writes messages of DNS (hickory-proto); here is who is asked
//! and how, when to ask again, that a failure keeps what is known, and in which order
//! addresses are dialled.
//!
//! Invariants: nobody who asks ever waits for DNS, except [`Resolver::first`], which
//! has a deadline; a literal address never leaves the process; what is told is never
//! empty but to who wants to know.

mod error;
mod exchange;
mod files;
mod host_name;
mod hosts;
mod keep;
mod known;
mod lookups;
mod order;
mod query;
pub mod read;
mod system;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, JoinSet};

use crate::config::NameSources;
use crate::observe::log::Log;
use crate::observe::panics;
use crate::proto::host;
use crate::relay::id::NameId;

pub use error::LookupError;
pub use host_name::check_host;
use host_name::literal;
use keep::{Keeper, Lifetimes, NameSubject};
use known::Ledger;
pub use known::{KnownHost, KnownName, KnownNames, KnownTarget};
pub use lookups::LookupId;
use lookups::{Lookups, Reply};
pub use order::interleave;
use query::{Families, Questions};
use system::System;

/// Addresses of one name at the most. Further ones are left out, the same ones each
/// time, and the log says so: more than these are no servers but an attack or an
/// accident, and each costs a check and a counter.
pub const ADDRESSES_MAX: usize = 256;

/// Questions of kept names that are under way at once, beside those of lookups: a
/// start with a thousand names must not look like a flood to the name server, and
/// clients who ask for silent names must not keep the servers' names waiting.
const QUESTIONS_MAX: usize = 32;

/// One for each name server that is waited for.
const SOCKETS_PER_QUESTION: u32 = query::WAITING_MAX as u32;

/// Of the runtime and the hosts file, and of answers that come too late.
const DESCRIPTORS_OF_ITS_OWN: u32 = 6 + SOCKETS_PER_QUESTION * system::LATE_MAX as u32;

/// Descriptors that keeping these names takes at the most, for a start to set aside.
pub fn descriptors(names: &[NameRequest]) -> u32 {
    let services = names.iter().any(|it| matches!(it.name, Name::Srv(_)));
    let subjects: HashSet<NameSubject> = names.iter().map(|it| NameSubject::of(&it.name)).collect();
    let questions = match subjects.len() {
        0 => return 0,
        // A service has any number of targets.
        _ if services => QUESTIONS_MAX,
        count => QUESTIONS_MAX.min(2 * count),
    };
    SOCKETS_PER_QUESTION * questions as u32 + DESCRIPTORS_OF_ITS_OWN
}

/// Descriptors that lookups take beside those.
pub const LOOKUP_DESCRIPTORS: u32 = SOCKETS_PER_QUESTION * lookups::QUESTIONS_MAX as u32;

/// What is looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    /// The A and AAAA records of a host, with this port. A literal address is its
    /// own answer.
    Host(String, u16),
    /// An SRV record such as `_http._tcp.example.com`: hosts with ports, priorities
    /// and weights (RFC 2782).
    Srv(String),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Srv(service) => write!(f, "srv:{service}"),
        }
    }
}

/// A name to keep resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRequest {
    /// Given back with every answer.
    pub id: NameId,
    /// What is looked up.
    pub name: Name,
    /// A shorter time to live counts as this one.
    pub ttl_min: Duration,
    /// A longer time to live counts as this one; also the longest wait between two
    /// tries of a name that fails.
    pub ttl_max: Duration,
    /// Wants to be told as well that there is no address any more.
    pub obeys: bool,
}

/// The addresses of a name: none only for who [obeys](NameRequest::obeys), never one twice, at most [`ADDRESSES_MAX`].
/// In the order of dialling: by priority, then as RFC 6724 and RFC 8305 say, which
/// does not turn with the order of an answer's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The addresses.
    pub addresses: Vec<Resolved>,
}

/// One address of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resolved {
    /// Of an SRV record: servers of the lowest number go first, others are for when
    /// those are down. 0 for the addresses of a host.
    pub priority: u16,
    /// Of an SRV record: the share of its target among those of its priority; 0 is
    /// a very small one. Every address of a target has the target's weight. 1 for
    /// the addresses of a host.
    pub weight: u16,
    /// Address and port.
    pub endpoint: SocketAddr,
}

/// Looks a host up now, as the names of servers are, for who can wait up to `patience`.
/// Never without an address.
pub fn look_up_now(
    sources: &NameSources,
    log: &Log,
    host: &str,
    patience: Duration,
) -> Result<Vec<IpAddr>, LookupError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| LookupError::Unreachable(error.to_string()))?;
    let system = Arc::new(System::new(sources.clone(), log.clone()));
    let questions = Questions::new(&system, &Arc::new(Semaphore::new(2)));
    let families = runtime.block_on(async {
        let asked = questions.host(host, false);
        tokio::time::timeout(patience, asked).await
    });
    runtime.shutdown_background();
    let families = families.unwrap_or_else(|_| Families::silent(patience));
    let error = families.error();
    let found: Vec<IpAddr> = [families.v6, families.v4]
        .into_iter()
        .flatten()
        .flat_map(|it| it.addresses)
        .collect();
    match error {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// The thread that resolves names. Ends when it is dropped.
#[derive(Debug)]
pub struct Resolver {
    events: UnboundedSender<Event>,
    lookups: Arc<Lookups>,
    first: Arc<First>,
    sources: NameSources,
    ledger: Arc<Ledger>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    /// Starts to keep names resolved, as the system resolves them. Of names that differ in
    /// their port one is asked for; of different bounds on times to live the shortest
    /// count. `on_change` is called on the resolver's thread, with the first answer of each
    /// name and with each that differs from the one before, with all names whose answer
    /// it is together; it must not block. What fails is logged once, and once when it works
    /// again.
    ///
    /// Fails only if there can be no thread: a name that cannot be resolved, or a
    /// file of `sources` that cannot be read, is logged and tried again.
    pub fn start(
        sources: &NameSources,
        requests: Vec<NameRequest>,
        log: Log,
        on_change: impl Fn(Vec<(NameId, Answer)>) + Send + 'static,
    ) -> io::Result<Self> {
        Self::go_on(sources, requests, KnownNames::default(), log, on_change)
    }

    /// Likewise, with what the resolver of another process has [known](Self::known).
    pub fn go_on(
        sources: &NameSources,
        requests: Vec<NameRequest>,
        known: KnownNames,
        log: Log,
        on_change: impl Fn(Vec<(NameId, Answer)>) + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (events, received) = unbounded_channel();
        let system = Arc::new(System::new(sources.clone(), log.clone()));
        let lookups = Arc::new(Lookups::new(system.clone(), runtime.handle().clone()));
        let subjects: HashSet<NameSubject> = requests
            .iter()
            .map(|it| NameSubject::of(&it.name))
            .collect();
        let first = Arc::new(First::new(subjects.len()));
        let known = known.for_sources(sources);
        lookups.take_up(known.looked_up);
        let kept = known.kept.into_iter();
        let ledger = Arc::new(Ledger::default());
        let start = Start {
            requests,
            known: kept.map(|it| (it.name.clone(), it)).collect(),
            ledger: ledger.clone(),
            system,
            log,
            first: first.clone(),
            events: events.clone(),
        };
        let told = lookups.clone();
        let thread = std::thread::Builder::new()
            .name("resolver".into())
            .spawn(move || {
                runtime.block_on(run(start, received, on_change));
                told.end();
                // Tasks that wait for DNS end here and now.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            events,
            lookups,
            first,
            sources: sources.clone(),
            ledger,
            thread: Some(thread),
        })
    }

    /// All that it knows, for the next process.
    pub fn known(&self) -> KnownNames {
        KnownNames {
            kept: self.ledger.all(),
            looked_up: self.lookups.known(),
            ..KnownNames::by(&self.sources)
        }
    }

    /// Waits until each name has its first answer or its first failure, but no
    /// longer than `patience`; whether it has. By then `on_change` was called for
    /// each first answer: so a normal start has its servers at once.
    pub fn first(&self, patience: Duration) -> bool {
        self.first.wait(patience)
    }

    /// Keeps these names from now on and no others. One that was kept goes on with what is
    /// known of it, whatever its place in the list.
    pub fn set_names(&self, names: Vec<NameRequest>) {
        // One that has ended keeps none.
        let _ = self.events.send(Event::Names(names));
    }

    /// Looks a host up once, for a name that a client gave; `client` is that client's
    /// address, by which shares are. `done` is called exactly once, unless the lookup is
    /// [cancelled](Self::cancel) by its `id` before: on this thread for a literal address, a
    /// name that cannot be one, one whose outcome is remembered, and when too many are under
    /// way; on the resolver's thread otherwise. It must not block. Addresses come in the order
    /// of dialling.
    ///
    /// Answers are remembered by their time to live, up to five minutes; that there is no such
    /// name, or that nobody answered, for five seconds. A lookup ends ten seconds after
    /// it was begun at the latest.
    pub fn lookup(
        &self,
        (id, client): (LookupId, Option<IpAddr>),
        (host, port): (&str, u16),
        done: impl FnOnce(Result<Vec<SocketAddr>, LookupError>) + Send + 'static,
    ) {
        let reply = Reply::new(done);
        if let Some(address) = literal(host) {
            return reply.send(Ok(vec![SocketAddr::new(address, port)]));
        }
        if let Err(error) = check_host(host) {
            return reply.send(Err(error));
        }
        let host = host::without_dot(host).to_ascii_lowercase();
        self.lookups.ask((id, client), (&host, port), reply);
    }

    /// Nobody waits for this lookup any more, if it is under way: what is asked for it alone
    /// is asked no longer.
    pub fn cancel(&self, id: LookupId) {
        self.lookups.cancel(id);
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic was reported by its own thread.
            let _ = thread.join();
        }
    }
}

/// What reaches the resolver's thread. The queue needs no bound of its own: a kept
/// name adds at most one entry in [`keep::REFRESH_FLOOR`].
enum Event {
    /// What is kept has other addresses than before.
    Changed(NameSubject, Answer),
    /// It has had its first answer, which was told before, or failure.
    Tried,
    /// These are kept from now on.
    Names(Vec<NameRequest>),
    Stop,
}

/// What the thread starts with.
struct Start {
    requests: Vec<NameRequest>,
    /// By name, what the process before knew.
    known: HashMap<String, KnownName>,
    ledger: Arc<Ledger>,
    system: Arc<System>,
    log: Log,
    first: Arc<First>,
    events: UnboundedSender<Event>,
}

async fn run(
    start: Start,
    mut events: UnboundedReceiver<Event>,
    on_change: impl Fn(Vec<(NameId, Answer)>),
) {
    let mut watches = Watches {
        kept: HashMap::new(),
        known: start.known,
        ledger: start.ledger,
        places: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        system: start.system,
        log: start.log,
        events: start.events,
    };
    watches.set_names(start.requests);
    // Of other names it is old by the time that somebody wants them.
    watches.known.clear();
    while let Some(event) = events.recv().await {
        let answers = match event {
            Event::Changed(subject, answer) => watches.changed(&subject, answer),
            Event::Names(names) => watches.set_names(names),
            Event::Tried => {
                start.first.tried();
                continue;
            }
            Event::Stop => return,
        };
        if !answers.is_empty() {
            watches.log.guard("resolver", || on_change(answers));
        }
    }
}

/// How long after a panic a name is asked for again.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// What is kept, and for whom.
struct Watches {
    kept: HashMap<NameSubject, Watch>,
    /// What the process before knew, until it is taken up.
    known: HashMap<String, KnownName>,
    ledger: Arc<Ledger>,
    places: Arc<Semaphore>,
    system: Arc<System>,
    log: Log,
    events: UnboundedSender<Event>,
}

struct Watch {
    task: AbortHandle,
    terms: Arc<Mutex<Lifetimes>>,
    /// Whoever wants it.
    names: Vec<NameRequest>,
    /// What they were told.
    told: Option<Answer>,
}

impl Watches {
    /// Those who are to be told, and what.
    fn changed(&mut self, subject: &NameSubject, answer: Answer) -> Vec<(NameId, Answer)> {
        let Some(watch) = self.kept.get_mut(subject) else {
            return Vec::new();
        };
        let tell = |it: &NameRequest| (it.id, answer.at_port_of(&it.name));
        let heeds = |it: &&NameRequest| it.obeys || !answer.addresses.is_empty();
        let told = watch.names.iter().filter(heeds).map(tell).collect();
        watch.told = Some(answer);
        told
    }

    /// Who is to be told at once: names that are new, of something that is known.
    fn set_names(&mut self, names: Vec<NameRequest>) -> Vec<(NameId, Answer)> {
        let mut wanted: HashMap<NameSubject, Vec<NameRequest>> = HashMap::new();
        for name in names {
            wanted
                .entry(NameSubject::of(&name.name))
                .or_default()
                .push(name);
        }
        self.kept.retain(|subject, watch| {
            let stays = wanted.contains_key(subject);
            if !stays {
                watch.task.abort();
                self.ledger.forget(&subject.to_string());
            }
            stays
        });
        let mut told = Vec::new();
        for (subject, names) in wanted {
            let terms = Lifetimes::of(&names);
            let Some(watch) = self.kept.get_mut(&subject) else {
                let watch = self.watch(subject.clone(), terms, names);
                self.kept.insert(subject, watch);
                continue;
            };
            *watch.terms.lock().unwrap_or_else(PoisonError::into_inner) = terms;
            let before = std::mem::replace(&mut watch.names, names);
            let before: HashSet<NameId> = before.iter().map(|it| it.id).collect();
            let new = watch.names.iter().filter(|it| !before.contains(&it.id));
            if let Some(answer) = &watch.told {
                told.extend(new.map(|it| (it.id, answer.at_port_of(&it.name))));
            }
        }
        told
    }

    fn watch(&mut self, subject: NameSubject, terms: Lifetimes, names: Vec<NameRequest>) -> Watch {
        let mut known = self.known.remove(&subject.to_string());
        let ledger = self.ledger.clone();
        let terms = Arc::new(Mutex::new(terms));
        let (system, places, log) = (self.system.clone(), self.places.clone(), self.log.clone());
        let (events, kept_by) = (self.events.clone(), terms.clone());
        let task = tokio::spawn(async move {
            loop {
                let keeper = Keeper::new(
                    subject.clone(),
                    kept_by.clone(),
                    system.clone(),
                    places.clone(),
                    log.clone(),
                )
                .noted_in(ledger.clone());
                // Its own task, so that a panic is caught; it ends with this one.
                let mut task = JoinSet::new();
                let kept = keeper.run(known.take(), events.clone());
                task.spawn(async move {
                    panics::provoked("resolver");
                    kept.await;
                });
                match task.join_next().await {
                    Some(Err(error)) if error.is_panic() => {}
                    _ => return,
                }
                // It begins anew: the name is asked for again.
                log.panicked("resolver", panics::add());
                tokio::time::sleep(AFTER_PANIC).await;
            }
        });
        Watch {
            task: task.abort_handle(),
            terms,
            names,
            told: None,
        }
    }
}

impl Answer {
    /// What is known of a host, for who wants it on a port; a service has its own.
    fn at_port_of(&self, name: &Name) -> Self {
        let mut answer = self.clone();
        if let Name::Host(_, port) = name {
            for resolved in &mut answer.addresses {
                resolved.endpoint.set_port(*port);
            }
        }
        answer
    }
}

/// How much of what is kept has not had its first outcome yet.
#[derive(Debug)]
struct First {
    missing: Mutex<usize>,
    changed: Condvar,
}

impl First {
    fn new(names: usize) -> Self {
        Self {
            missing: Mutex::new(names),
            changed: Condvar::new(),
        }
    }

    fn tried(&self) {
        let mut missing = self.missing();
        *missing = missing.saturating_sub(1);
        self.changed.notify_all();
    }

    fn wait(&self, patience: Duration) -> bool {
        let missing = self.missing();
        let waited = self
            .changed
            .wait_timeout_while(missing, patience, |missing| *missing > 0);
        let (missing, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *missing == 0
    }

    /// A count is right whoever panicked beside it.
    fn missing(&self) -> MutexGuard<'_, usize> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
