//! A running forwarder, for whoever looks at it and steers it: what `admin` shows and
//! changes.
//!
//! It is shared by control's thread, which says what is in force ([`Steering::put`]), and
//! by the endpoint's. What belongs to reactors is asked of them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;

use crate::admin::view::{ReloadView, UpgradeView};
use crate::admin::{
    Configured, ForwardSeen, Looker, Phase, PoolSeen, ReactorSeen, Refused, ReloadAsked,
    ReloadRefused, ReloadTrouble, ServerChange, Subject, UpgradeAsked, UpgradeRefused, Visit, once,
};
use crate::config::{self, Config};
use crate::observe::counters::Counters;
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::reactor::inspect::Onlooker;
use crate::reactor::{Forward, Gate};
use crate::relay::id::{ForwardId, ServerId};

use super::confine::Confinement;
use super::inbox::{Teller, Told};
use super::reload::{ReloadError, Reloaded};
use super::request::{ReloadRequest, Request};
use super::upgrade::{UpgradeError, UpgradeRequest};
use super::upstreams::Upstreams;
use super::wire::Wire;

/// See the module's documentation.
pub(super) struct Steering {
    started: SystemTime,
    engine: &'static str,
    log: Log,
    gate: Arc<Gate>,
    upstreams: Arc<Upstreams>,
    current: ArcSwap<InForce>,
    reactors: Mutex<Vec<(ReactorSeen, Wire)>>,
    /// Who looks at sessions, until they are dropped.
    lookers: Mutex<Vec<Weak<Looker>>>,
    /// Forwards that an operator drains.
    drained: Mutex<HashMap<ForwardId, Instant>>,
    draining: AtomicBool,
    /// What the kernel denies this process, in words.
    confinement: OnceLock<String>,
    /// The way to control's thread, once that listens.
    control: OnceLock<Teller>,
}

/// What is in force.
struct InForce {
    configured: Configured,
    forwards: Vec<Arc<Forward>>,
}

impl Steering {
    /// How many sessions took each route, for a report.
    pub(super) fn routes(&self) -> Vec<Notice> {
        let current = self.current.load();
        let routed = current.forwards.iter().filter_map(|forward| {
            let routing = forward.routing.as_ref()?;
            Some(routing.ways.iter().map(|way| Notice::Route {
                forward: forward.name.clone(),
                route: way.name.clone(),
                sessions: way.taken.load(Ordering::Relaxed),
            }))
        });
        routed.flatten().collect()
    }

    pub(super) fn new(
        (config, forwards): (&Arc<Config>, Vec<Arc<Forward>>),
        engine: &'static str,
        (gate, upstreams): (Arc<Gate>, Arc<Upstreams>),
        log: Log,
    ) -> Self {
        let current = InForce {
            configured: configured(config, 1),
            forwards,
        };
        Self {
            started: SystemTime::now(),
            engine,
            log,
            gate,
            upstreams,
            current: ArcSwap::from_pointee(current),
            reactors: Mutex::new(Vec::new()),
            lookers: Mutex::new(Vec::new()),
            drained: Mutex::default(),
            draining: AtomicBool::new(false),
            confinement: OnceLock::new(),
            control: OnceLock::new(),
        }
    }

    /// What it may do is settled.
    pub(super) fn confined(&self, confinement: &Confinement) {
        let _ = self.confinement.set(confinement.to_string());
    }

    /// This is the way to control's thread.
    pub(super) fn answer_to(&self, control: Teller) {
        let _ = self.control.set(control);
    }

    /// Another configuration is in force.
    pub(super) fn put(
        &self,
        config: &Arc<Config>,
        forwards: impl Iterator<Item = Arc<Forward>>,
        generation: u64,
    ) {
        if self.current.load().configured.generation == generation {
            return;
        }
        let forwards: Vec<Arc<Forward>> = forwards.collect();
        let known: HashSet<ForwardId> = forwards.iter().map(|it| it.id).collect();
        lock(&self.drained).retain(|it, _| known.contains(it));
        self.current.store(Arc::new(InForce {
            configured: configured(config, generation),
            forwards,
        }));
    }

    /// These are the reactors.
    pub(super) fn connect(&self, reactors: impl Iterator<Item = (u16, Arc<Counters>, Wire)>) {
        let seen =
            reactors.map(|(number, counters, wire)| (ReactorSeen { number, counters }, wire));
        *lock(&self.reactors) = seen.collect();
    }

    /// Asks control's thread; `None`: it does not listen any more.
    fn ask<T>(&self, request: Request, answer: &Receiver<T>) -> Option<T> {
        self.control.get()?.tell(Told::Asked(request));
        answer.recv().ok()
    }

    /// Who looks at the sessions of a reactor that is new.
    pub(super) fn onlookers(&self, reactor: u16) -> Vec<Onlooker> {
        let lookers = lock(&self.lookers);
        let alive = lookers.iter().filter_map(Weak::upgrade);
        alive.map(|it| it.of(reactor)).collect()
    }

    /// A forward that was drained lets clients in again.
    pub(super) fn serves(&self, forward: ForwardId) {
        lock(&self.drained).remove(&forward);
    }

    /// It was told to end.
    pub(super) fn drains(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

fn configured(config: &Arc<Config>, generation: u64) -> Configured {
    Configured {
        hash: Arc::default(),
        config: config.clone(),
        generation,
        applied: SystemTime::now(),
    }
}

impl Subject for Steering {
    fn started(&self) -> SystemTime {
        self.started
    }

    fn engine(&self) -> &'static str {
        self.engine
    }

    fn confinement(&self) -> &str {
        self.confinement
            .get()
            .map_or("as started; no sandbox", String::as_str)
    }

    fn phase(&self) -> Phase {
        if self.draining.load(Ordering::Relaxed) {
            Phase::Draining
        } else {
            Phase::Serving
        }
    }

    fn configured(&self) -> Configured {
        self.current.load().configured.clone()
    }

    fn forwards(&self) -> Vec<ForwardSeen> {
        let current = self.current.load();
        let config = &current.configured.config;
        let by_name: HashMap<&str, &Arc<config::Forward>> = config
            .forwards
            .iter()
            .map(|it| (it.name.as_str(), it))
            .collect();
        let drained = lock(&self.drained);
        let each = current.forwards.iter().filter_map(|forward| {
            let config = *by_name.get(&*forward.name)?;
            Some(ForwardSeen {
                forward: forward.clone(),
                config: config.clone(),
                pool: config.pool.name.as_deref().unwrap_or(&config.name).into(),
                draining: drained.get(&forward.id).copied(),
            })
        });
        each.collect()
    }

    fn pools(&self) -> Vec<PoolSeen> {
        self.upstreams.seen()
    }

    fn reactors(&self) -> Vec<ReactorSeen> {
        let reactors = lock(&self.reactors);
        reactors.iter().map(|(seen, _)| seen.clone()).collect()
    }

    fn sessions_limit(&self) -> (u32, u32) {
        (self.gate.max(), self.gate.live())
    }

    fn visit(&self, reactor: u16, visit: Visit) -> bool {
        let reactors = lock(&self.reactors);
        let found = reactors.iter().find(|(seen, _)| seen.number == reactor);
        found.is_some_and(|(_, wire)| wire.visit(visit))
    }

    fn change_server(&self, server: ServerId, change: &ServerChange) -> Result<(), Refused> {
        self.upstreams.change(server, change)
    }

    fn clear_marks(&self, server: Option<ServerId>) -> Result<(), Refused> {
        self.upstreams.clear_marks(server)
    }

    fn drain_forward(&self, forward: ForwardId) -> Result<(), Refused> {
        let current = self.current.load();
        if !current.forwards.iter().any(|it| it.id == forward) {
            return Err(Refused::Unknown("forward"));
        }
        lock(&self.drained)
            .entry(forward)
            .or_insert_with(Instant::now);
        for (_, wire) in &*lock(&self.reactors) {
            wire.visit(once(move |reactor| reactor.stop_listening(forward)));
        }
        if let Some(control) = self.control.get() {
            control.tell(Told::Asked(Request::StopListening(forward)));
        }
        Ok(())
    }

    fn resume_forward(&self, forward: ForwardId) -> Result<(), ReloadRefused> {
        let (request, answer) = Request::listen_again(forward);
        let answer = self.ask(request, &answer);
        let answer = answer.unwrap_or(Err(ReloadError::Ending));
        answer.map(|_| ()).map_err(|error| refused(&error))
    }

    fn reload(&self, asked: ReloadAsked) -> Result<ReloadView, ReloadRefused> {
        let (request, answer) = Request::reload(ReloadRequest {
            config: None,
            dry_run: asked.dry_run,
            confirm: asked.confirm,
        });
        let answer = self
            .ask(request, &answer)
            .unwrap_or(Err(ReloadError::Ending));
        answer.map(view).map_err(|error| refused(&error))
    }

    fn settle(&self, keep: bool) -> bool {
        let (reply, answer) = channel();
        let request = if keep {
            Request::Confirm(reply)
        } else {
            Request::GoBack(reply)
        };
        self.ask(request, &answer).unwrap_or(false)
    }

    fn upgrade(&self, asked: UpgradeAsked) -> Result<UpgradeView, UpgradeRefused> {
        let (reply, answer) = channel();
        let UpgradeAsked { binary, trial } = asked;
        let request = Request::Upgrade(UpgradeRequest { binary, trial }, reply);
        let ending = || UpgradeError::Impossible("this process is ending".to_owned());
        let answer = self.ask(request, &answer).unwrap_or_else(|| Err(ending()));
        let done = answer.map_err(|error| UpgradeRefused {
            busy: matches!(error, UpgradeError::Busy(_)),
            why: error.to_string(),
        })?;
        Ok(UpgradeView {
            process: done.process,
            version: done.build,
            listeners: done.listeners as u64,
            sessions_moved: done.sessions_moved as u64,
            flows_moved: done.flows_moved as u64,
            sessions_left: done.sessions_left,
        })
    }

    fn look(&self, looker: &Arc<Looker>) {
        let mut lookers = lock(&self.lookers);
        lookers.retain(|it| it.strong_count() > 0);
        lookers.push(Arc::downgrade(looker));
    }

    fn log(&self) -> &Log {
        &self.log
    }
}

/// Why there was no reload, for whoever asked for it.
fn refused(error: &ReloadError) -> ReloadRefused {
    ReloadRefused {
        trouble: match error {
            ReloadError::Configuration(_) | ReloadError::Restart(_) | ReloadError::Denied(_) => {
                ReloadTrouble::Configuration
            }
            ReloadError::Busy(_) | ReloadError::Upgrading(_) => ReloadTrouble::Busy,
            ReloadError::Unavailable(_) | ReloadError::Ending => ReloadTrouble::Unavailable,
        },
        why: error.to_string(),
    }
}

/// What came of a reload, for whoever asked for it.
fn view(done: Reloaded) -> ReloadView {
    ReloadView {
        generation: done.generation,
        dry_run: done.dry_run,
        summary: done.summary,
        changes: done.changes,
        listeners_opened: done.listeners_opened,
        listeners_kept: done.listeners_kept as u64,
        listeners_closed: done.listeners_closed,
        forwards_compared: done.forwards_compared as u64,
        orders: done.orders as u64,
        sessions_left: done.sessions_left as u64,
        confirm_seconds: done.confirm_within,
        read_seconds: done.took.read,
        compare_seconds: done.took.compare,
        apply_seconds: done.took.apply,
    }
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steering").finish_non_exhaustive()
    }
}

/// Whoever panicked while it held a lock left whole values behind it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn b168_the_hash_is_of_what_a_configuration_means() {
        let of = |text: &str| {
            configured(&Arc::new(Config::parse(text).unwrap()), 0)
                .hash()
                .to_owned()
        };
        let one = "[global]\nwatch = true\nreactors = 2\n\
                   [upstream.a]\nservers = [\"10.0.0.1:1\"]\nretries = 2\n\
                   [upstream.b]\nservers = [\"10.0.0.2:1\"]\n\
                   [[forward]]\nname = \"f\"\nlisten = \":443\"\nupstream = \"a\"\nidle_timeout = \"60s\"\n\
                   [[forward.route]]\nname = \"r\"\nsni = [\"x.example\"]\nupstream = \"b\"\n";
        let other = "[upstream.b]\nservers = [\"10.0.0.2:1\"] # the other one\n\
                     [[forward]]\nidle_timeout = \"1m\"\nupstream = \"a\"\nlisten = \":443\"\nname = \"f\"\n\
                     [[forward.route]]\nupstream = \"b\"\nsni = [\"x.example\"]\nname = \"r\"\n\
                     [upstream.a]\nretries = 2\nservers = [\"10.0.0.1:1\"]\n\
                     [global]\nreactors = 2\nwatch = true\n";
        assert_eq!(of(one), of(other));
        assert_ne!(of(one), of(&other.replace("1m", "61s")));
    }
}
