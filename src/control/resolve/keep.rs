//! One name that is kept resolved: when it is asked for again, what a failure
//! leaves, and what is told and logged.
//!
//! ```text
//!            answer: told if it differs, again after its time to live
//!   working ◄──────────────────────────────────────────────► failing
//!            failure: what is known stays, again after 1 s, 2 s, 4 s … ttl_max;
//!            while nothing is known, every 2 s: somebody waits for it
//! ```
//! Each family of each host is kept by itself: that AAAA gets no answer is no reason
//! to forget or to freeze the A records.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::LookupError;
use super::known::{KnownName, KnownTarget, Ledger};
use super::query::{Families, Questions, Target, silence};
use super::system::System;
use super::{ADDRESSES_MAX, Answer, Event, Name, NameRequest, Resolved, literal, order};
use crate::observe::log::Log;
use crate::observe::notice::{List, Notice};

/// The shortest time between two questions for one name, whatever its time to live.
pub(super) const REFRESH_FLOOR: Duration = Duration::from_millis(100);

/// The longest that one question takes: three silent name servers, five seconds
/// each, asked twice.
const QUESTION_DEADLINE: Duration = Duration::from_secs(30);

/// The wait after a first failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest wait between two tries of a name that has no address at all: nothing that
/// needs it works, and it must not stay so for longer than the fault does.
const RETRY_WITHOUT_ADDRESS: Duration = Duration::from_secs(2);

/// What is watched: whoever wants a host wants the same, whatever the port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum NameSubject {
    Host(String),
    Service(String),
}

impl NameSubject {
    pub(super) fn of(name: &Name) -> Self {
        match name {
            Name::Host(host, _) => Self::Host(host.clone()),
            Name::Srv(service) => Self::Service(service.clone()),
        }
    }
}

impl fmt::Display for NameSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Service(service) => write!(f, "srv:{service}"),
        }
    }
}

/// How long what is known of a subject is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetimes {
    /// A shorter time to live counts as this one.
    pub(super) ttl_min: Duration,
    /// A longer one counts as this one.
    pub(super) ttl_max: Duration,
    /// Somebody wants to be told that there is no address.
    pub(super) obeys: bool,
}

impl Lifetimes {
    /// Those of who is the least patient of all that want it.
    pub(super) fn of<'a>(requests: impl IntoIterator<Item = &'a NameRequest>) -> Self {
        let longest = Self {
            ttl_min: Duration::MAX,
            ttl_max: Duration::MAX,
            obeys: false,
        };
        requests.into_iter().fold(longest, |terms, it| Self {
            ttl_min: terms.ttl_min.min(it.ttl_min),
            ttl_max: terms.ttl_max.min(it.ttl_max),
            obeys: terms.obeys || it.obeys,
        })
    }
}

/// A subject and what is known of it.
pub(super) struct Keeper {
    subject: NameSubject,
    /// May change at any time.
    terms: Arc<Mutex<Lifetimes>>,
    system: Arc<System>,
    places: Arc<Semaphore>,
    log: Log,
    /// What a service consisted of when it last answered; a host is its own target, on port
    /// 0.
    targets: Vec<Target>,
    /// The last good addresses of each host, IPv4 and IPv6 apart.
    known: BTreeMap<(String, Family), Vec<IpAddr>>,
    /// What was told last, sorted; empty before the first answer, and behind one that has none.
    told: Vec<Resolved>,
    /// Rounds that failed since the last that did not.
    failures: u32,
    /// There are more addresses than are used.
    crowded: bool,
    /// Where what is known is kept for the next process.
    ledger: Arc<Ledger>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V6,
    V4,
}

/// What came of asking once for all that the name stands for.
#[derive(Debug)]
struct Round {
    /// The shortest time to live of what was answered; `None` if nothing was.
    ttl: Option<Duration>,
    failure: Option<LookupError>,
    /// It was said of each part that there is none, and nothing failed.
    empty: bool,
}

impl Keeper {
    pub(super) fn new(
        subject: NameSubject,
        terms: Arc<Mutex<Lifetimes>>,
        system: Arc<System>,
        places: Arc<Semaphore>,
        log: Log,
    ) -> Self {
        let targets = match &subject {
            NameSubject::Host(host) => vec![Target {
                host: host.clone(),
                port: 0,
                priority: 0,
                weight: 1,
            }],
            NameSubject::Service(_) => Vec::new(),
        };
        Self {
            subject,
            terms,
            system,
            places,
            log,
            targets,
            known: BTreeMap::new(),
            told: Vec::new(),
            failures: 0,
            crowded: false,
            ledger: Arc::default(),
        }
    }

    /// What is known is noted there.
    pub(super) fn noted_in(mut self, ledger: Arc<Ledger>) -> Self {
        self.ledger = ledger;
        self
    }

    /// Knows what the process before did; how long that is good.
    fn take_up(&mut self, known: KnownName) -> Duration {
        if matches!(self.subject, NameSubject::Service(_)) {
            let targets = known.targets.into_iter().map(|it| Target {
                host: it.host,
                port: it.port,
                priority: it.priority,
                weight: it.weight,
            });
            self.targets = targets.collect();
        }
        for (host, addresses) in known.addresses {
            for ip in addresses {
                let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
                self.known
                    .entry((host.clone(), family))
                    .or_default()
                    .push(ip);
            }
        }
        self.failures = known.failures;
        let terms = *self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_micros(known.due).min(terms.ttl_max)
    }

    /// What is known, for the next process.
    fn note(&self, due: Duration) {
        let of_service = matches!(self.subject, NameSubject::Service(_));
        let targets = self.targets.iter().filter(|_| of_service);
        let known = self.known.iter();
        self.ledger.note(
            KnownName {
                name: self.subject.to_string(),
                targets: targets
                    .map(|it| KnownTarget {
                        host: it.host.clone(),
                        port: it.port,
                        priority: it.priority,
                        weight: it.weight,
                    })
                    .collect(),
                addresses: known
                    .map(|((host, _), addresses)| (host.clone(), addresses.clone()))
                    .collect(),
                due: 0,
                failures: self.failures,
            },
            due,
        );
    }

    /// Until nobody listens any more; for a literal address, once.
    pub(super) async fn run(mut self, known: Option<KnownName>, events: UnboundedSender<Event>) {
        let mut tried = false;
        if let Some(known) = known {
            let due = self.take_up(known);
            if let Some(answer) = self.changed(false) {
                self.log.notice(Notice::NameResolved {
                    name: self.subject.to_string(),
                    addresses: list(&answer.addresses),
                });
                self.note(due);
                tried = true;
                let changed = Event::Changed(self.subject.clone(), answer);
                for event in [changed, Event::Tried] {
                    if events.send(event).is_err() {
                        return;
                    }
                }
                tokio::time::sleep(due).await;
            }
        }
        loop {
            let round = self.ask().await;
            let answer = self.changed(round.empty);
            let delay = self.delay(&round);
            self.report(round.failure.as_ref(), answer.as_ref(), delay);
            self.note(delay);
            let answer = answer.map(|answer| Event::Changed(self.subject.clone(), answer));
            let first = (!std::mem::replace(&mut tried, true)).then_some(Event::Tried);
            for event in answer.into_iter().chain(first) {
                if events.send(event).is_err() {
                    return;
                }
            }
            if matches!(&self.subject, NameSubject::Host(host) if literal(host).is_some()) {
                return;
            }
            tokio::time::sleep(delay).await;
        }
    }

    async fn ask(&mut self) -> Round {
        let questions = Questions::new(&self.system, &self.places);
        let mut round = Round {
            ttl: None,
            failure: None,
            empty: true,
        };
        if let NameSubject::Service(service) = &self.subject {
            let asked = timeout(QUESTION_DEADLINE, questions.service(service)).await;
            match asked.unwrap_or_else(|_| Err(silence(QUESTION_DEADLINE))) {
                Ok((targets, ttl)) => {
                    round.ttl = Some(ttl);
                    self.targets = targets;
                }
                Err(error) => {
                    // Its last targets stay, unless there are none by what is said.
                    round.empty = error.says_nothing_is_there();
                    if round.empty && self.obeys() {
                        self.targets.clear();
                    }
                    round.failure = Some(error);
                }
            }
        }
        self.ask_targets(questions, &mut round).await;
        round
    }

    /// Every host of the targets, all at the same time.
    async fn ask_targets(&mut self, questions: Questions, round: &mut Round) {
        let absolute = matches!(self.subject, NameSubject::Service(_));
        let hosts: BTreeSet<String> = self.targets.iter().map(|it| it.host.clone()).collect();
        self.known.retain(|(host, _), _| hosts.contains(host));
        let mut asked = JoinSet::new();
        for host in hosts {
            let questions = questions.clone();
            asked.spawn(async move {
                let families = questions.host(&host, absolute);
                let families = timeout(QUESTION_DEADLINE, families).await;
                (
                    host,
                    families.unwrap_or_else(|_| Families::silent(QUESTION_DEADLINE)),
                )
            });
        }
        while let Some(joined) = asked.join_next().await {
            // A task that panicked has answered nothing: what is known stays.
            if let Ok((host, families)) = joined {
                self.merge(&host, families, round);
            }
        }
    }

    /// Keeps what was answered, and of what was not, what is known.
    fn merge(&mut self, host: &str, families: Families, round: &mut Round) {
        let error = families.error();
        let says_so = |it: &Result<_, LookupError>| {
            let nothing = |error: &LookupError| error.says_nothing_is_there();
            it.as_ref().is_err_and(nothing)
        };
        let empty = says_so(&families.v6) && says_so(&families.v4);
        round.empty &= empty;
        if empty && self.obeys() {
            self.known.retain(|(known, _), _| known != host);
        }
        let alone = families.v6.is_ok() != families.v4.is_ok();
        for (family, outcome) in [(Family::V6, families.v6), (Family::V4, families.v4)] {
            let key = (host.to_owned(), family);
            match outcome {
                Ok(found) => {
                    let ttl = round.ttl.unwrap_or(Duration::MAX);
                    round.ttl = Some(ttl.min(found.ttl));
                    self.known.insert(key, found.addresses);
                }
                // The other family has addresses, so this "no" is the truth and not
                // an accident that would leave the name without any.
                Err(error) if alone && error.is_negative() => {
                    self.known.remove(&key);
                }
                Err(_) => {}
            }
        }
        if error.is_some() {
            round.failure = error;
        }
    }

    fn obeys(&self) -> bool {
        let terms = self.terms.lock();
        terms.unwrap_or_else(PoisonError::into_inner).obeys
    }

    /// The addresses, if they differ from those told last; none of them only if nobody failed
    /// to say so, and somebody wants to know.
    fn changed(&mut self, empty: bool) -> Option<Answer> {
        let now = self.addresses();
        if now == self.told || now.is_empty() && !(empty && self.obeys()) {
            return None;
        }
        self.told = now;
        Some(Answer {
            addresses: in_order(&self.told),
        })
    }

    /// Everything known, sorted, each endpoint once, not too many.
    fn addresses(&mut self) -> Vec<Resolved> {
        let mut all = Vec::new();
        for target in &self.targets {
            for family in [Family::V6, Family::V4] {
                let known = self.known.get(&(target.host.clone(), family));
                all.extend(known.into_iter().flatten().map(|ip| Resolved {
                    priority: target.priority,
                    weight: target.weight,
                    endpoint: (*ip, target.port).into(),
                }));
            }
        }
        all.sort_unstable_by_key(|it| (it.endpoint, it.priority, it.weight));
        all.dedup_by_key(|it| it.endpoint);
        all.sort_unstable();
        let crowded = all.len() > ADDRESSES_MAX;
        if crowded && !self.crowded {
            self.log.notice(Notice::NameCrowded {
                name: self.subject.to_string(),
                addresses: all.len(),
                used: ADDRESSES_MAX,
            });
        }
        self.crowded = crowded;
        all.truncate(ADDRESSES_MAX);
        all
    }

    /// Until the next round.
    fn delay(&self, round: &Round) -> Duration {
        let terms = *self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        let lives = round.ttl.map(|ttl| ttl.max(terms.ttl_min));
        let retry = round.failure.is_some().then(|| {
            let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
            let longest = if self.told.is_empty() {
                RETRY_WITHOUT_ADDRESS
            } else {
                Duration::MAX
            };
            RETRY_FIRST.saturating_mul(doubled).min(longest)
        });
        let delay = [lives, retry, Some(terms.ttl_max)];
        let delay = delay.into_iter().flatten().min().unwrap_or(RETRY_FIRST);
        // A little early, so that the next answer is there when this one ends, and
        // names that were asked for together do not stay together.
        let early = delay / 10 * random_percent() / 100;
        let shortest = terms.ttl_min.min(delay).max(REFRESH_FLOOR);
        delay.saturating_sub(early).max(shortest)
    }

    /// One line when it begins to fail, one when it works again, one for each
    /// change of the addresses.
    fn report(&mut self, failure: Option<&LookupError>, answer: Option<&Answer>, delay: Duration) {
        let name = self.subject.to_string();
        let failed_before = self.failures > 0;
        let addresses = answer.map(|answer| list(&answer.addresses));
        self.log.notice(match (failure, failed_before, addresses) {
            (Some(error), false, _) => Notice::NameFailed {
                name,
                error: error.to_string(),
                addresses: list(&self.told),
                retry: delay,
            },
            (None, true, addresses) => Notice::NameRecovered { name, addresses },
            (_, _, Some(addresses)) => Notice::NameResolved { name, addresses },
            (Some(error), true, None) => Notice::NameStillFails {
                name,
                error: error.to_string(),
            },
            (None, false, None) => Notice::NameUnchanged { name },
        });
        self.failures = match failure {
            Some(_) => self.failures.saturating_add(1),
            None => 0,
        };
    }
}

/// By priority, and within one in the order of dialling.
fn in_order(sorted: &[Resolved]) -> Vec<Resolved> {
    let mut ordered = Vec::with_capacity(sorted.len());
    for group in sorted.chunk_by(|a, b| a.priority == b.priority) {
        let endpoints = group.iter().map(|it| it.endpoint).collect();
        for endpoint in order::for_dialling(endpoints, order::source_address) {
            ordered.extend(group.iter().filter(|it| it.endpoint == endpoint));
        }
    }
    ordered
}

fn list(addresses: &[Resolved]) -> List {
    // A host has no port, but those who want it have.
    let shown = addresses.iter().map(|it| match it.endpoint.port() {
        0 => it.endpoint.ip().to_string(),
        _ => it.endpoint.to_string(),
    });
    List(shown.collect())
}

/// 0 to 99. The standard library's hash keys are random for each instance.
fn random_percent() -> u32 {
    (RandomState::new().hash_one(0) % 100) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogFormat, LogLevel, LogTarget, NameSources};

    fn keeper(ttl_min: u64, ttl_max: u64) -> Keeper {
        let target = LogTarget::File("/dev/null".into());
        let log = Log::start(LogLevel::Error, LogFormat::Text, &target);
        let (log, _writer) = log.expect("a log that nobody reads");
        let terms = Lifetimes {
            ttl_min: Duration::from_secs(ttl_min),
            ttl_max: Duration::from_secs(ttl_max),
            obeys: false,
        };
        let system = Arc::new(System::new(NameSources::default(), log.clone()));
        let subject = NameSubject::Host("db.test".to_owned());
        let terms = Arc::new(Mutex::new(terms));
        Keeper::new(subject, terms, system, Arc::new(Semaphore::new(1)), log)
    }

    fn set_ttl_min(keeper: &Keeper, ttl_min: Duration) {
        keeper.terms.lock().expect("nobody panics").ttl_min = ttl_min;
    }

    fn answered(ttl: u64) -> Round {
        Round {
            ttl: Some(Duration::from_secs(ttl)),
            failure: None,
            empty: false,
        }
    }

    /// Whether the wait is this long or up to a tenth shorter.
    #[track_caller]
    fn assert_about(delay: Duration, seconds: u64) {
        let whole = Duration::from_secs(seconds);
        assert!(delay <= whole && delay >= whole * 9 / 10, "{delay:?}");
    }

    #[test]
    fn an_answer_is_asked_for_again_a_little_before_it_ends() {
        let keeper = keeper(10, 100);
        for _ in 0..100 {
            assert_about(keeper.delay(&answered(50)), 50);
            assert_about(keeper.delay(&answered(86_400)), 100);
            // Never sooner than the floor.
            assert_eq!(keeper.delay(&answered(0)), Duration::from_secs(10));
            assert!(keeper.delay(&answered(10)) >= Duration::from_secs(10));
        }
        set_ttl_min(&keeper, Duration::ZERO);
        assert_eq!(keeper.delay(&answered(0)), REFRESH_FLOOR);
        // A floor above the ceiling is the configuration's fault, not a panic.
        set_ttl_min(&keeper, HOUR);
        assert_about(keeper.delay(&answered(50)), 100);
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_name_without_an_address_is_tried_every_two_seconds() {
        let mut keeper = keeper(0, 600);
        let failed = Round {
            ttl: None,
            failure: Some(LookupError::NoSuchName),
            empty: true,
        };
        for seconds in [1, 2, 2, 2] {
            let delay = keeper.delay(&failed);
            assert_about(delay, seconds);
            keeper.report(failed.failure.as_ref(), None, delay);
        }
        keeper.failures = u32::MAX;
        assert_about(keeper.delay(&failed), 2);
    }

    #[test]
    fn a_failure_is_tried_again_less_and_less_often_while_addresses_are_known() {
        let mut keeper = keeper(0, 20);
        keeper.told.push(Resolved {
            priority: 0,
            weight: 1,
            endpoint: ([192, 0, 2, 1], 1).into(),
        });
        let failed = Round {
            ttl: None,
            failure: Some(silence(QUESTION_DEADLINE)),
            empty: false,
        };
        for seconds in [1, 2, 4, 8, 16, 20, 20] {
            let delay = keeper.delay(&failed);
            assert_about(delay, seconds);
            keeper.report(failed.failure.as_ref(), None, delay);
        }
        keeper.failures = u32::MAX;
        assert_about(keeper.delay(&failed), 20);
        // What was answered is not forgotten over what was not.
        let half = Round {
            ttl: Some(Duration::from_secs(5)),
            failure: Some(silence(QUESTION_DEADLINE)),
            empty: false,
        };
        assert_about(keeper.delay(&half), 5);
    }
}
