//! Start-up, signals, drain: what is not on the hot path.
//!
//! ```text
//! run ─► Plan: what the configuration asks for, by identity
//!     ─► Acquired: limits, names, sockets, what the kernel granted
//!     ─► one thread a reactor
//!     ─► wait for signals and for what threads tell ─► drain ─► cut what is left ─► summary
//! ```
//! Talks to reactors by messages (`wire::Order`) only.

mod acquire;
mod clients;
pub mod doctor;
mod error;
pub mod health;
mod inbox;
mod plan;
mod proxy;
mod registry;
mod report;
pub mod resolve;
mod signals;
mod thread;
mod upstreams;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::observe::counters::Snapshot;
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::observe::tap::Taps;
use crate::reactor::ClientPolicy;
use crate::relay::ending::Cause;
use crate::relay::id::ForwardId;

use acquire::{Acquired, Held};
pub use clients::AccessFileError;
pub use error::StartError;
use inbox::{Inbox, Told};
use plan::{Identities, Plan};
pub use proxy::UsersError;
use resolve::Resolver;
use signals::{Signal, Signals};
use thread::ReactorThread;
use upstreams::Upstreams;
use wire::{Order, Pending};

/// How long the log's last lines may take to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// How long what taps still have to show may take to be written.
const TAP_PATIENCE: Duration = Duration::from_secs(1);

/// How long a reactor may take to carry out an order that needs nobody's consent: a
/// matter of a turn or two, but for a machine that is busy with other things.
const ORDER_PATIENCE: Duration = Duration::from_secs(2);

/// Forwards as configured until a signal ends it.
///
/// SIGTERM and SIGINT drain: no new connections, running ones go on until they
/// end or `drain_timeout` has passed; a second one ends them at once. SIGUSR1
/// logs the counters.
pub fn run(config: &Config) -> Result<(), StartError> {
    // Before any thread starts: they inherit the mask.
    let signals = Signals::block().map_err(StartError::Signals)?;
    let (log, writer) =
        Log::start(config.log.level, config.log.format, &config.log.to).map_err(|error| {
            StartError::Log {
                target: config.log.to.clone(),
                error,
            }
        })?;
    let outcome = Inbox::new(signals)
        .map_err(StartError::Signals)
        .and_then(|inbox| forward(config, &log, &inbox));
    drop(log);
    writer.finish(LOG_PATIENCE);
    outcome
}

fn forward(config: &Config, log: &Log, inbox: &Inbox) -> Result<(), StartError> {
    let plan = Plan::of(config, &mut Identities::default());
    let mut held = Held::default();
    let taps = Taps::start(config, log)?;
    let acquired = Acquired::take(&plan, &mut held, log, &taps)?;
    let running = Running::start(acquired, plan.drain_timeout(), log.clone(), inbox);
    let outcome = running.and_then(|running| running.serve(inbox));
    taps.finish(TAP_PATIENCE);
    outcome
}

/// A forwarder at work.
struct Running {
    /// By number; `None` once it has ended.
    reactors: Vec<Option<ReactorThread>>,
    upstreams: Arc<Upstreams>,
    /// Keeps names resolved for as long as it is there.
    _resolver: Option<Arc<Resolver>>,
    /// Who may come in, by forward.
    clients: BTreeMap<ForwardId, Arc<ClientPolicy>>,
    drain_timeout: Duration,
    log: Log,
    /// What reactors that have ended had counted.
    ended: Vec<Snapshot>,
}

impl Running {
    fn start(
        acquired: Acquired,
        drain_timeout: Duration,
        log: Log,
        inbox: &Inbox,
    ) -> Result<Self, StartError> {
        let Acquired {
            reactors,
            upstreams,
            resolver,
            clients,
            origin,
        } = acquired;
        let reactors = reactors
            .into_iter()
            .map(|plan| ReactorThread::spawn(plan, inbox.teller()).map(Some))
            .collect::<Result<Vec<_>, _>>()?;
        let wires = reactors.iter().flatten().map(ReactorThread::wire).collect();
        upstreams.connect(wires);
        upstreams
            .start_checks(origin, &log)
            .map_err(StartError::Checker)?;
        Ok(Self {
            ended: vec![Snapshot::default(); reactors.len()],
            reactors,
            upstreams,
            _resolver: resolver,
            clients,
            drain_timeout,
            log,
        })
    }

    /// Until a signal ends it, or a reactor fails: then the others drain, and the
    /// service manager learns of it by the exit code.
    fn serve(mut self, inbox: &Inbox) -> Result<(), StartError> {
        let mut lost = false;
        loop {
            match inbox.wait(None) {
                Some(Told::Signal(Signal::Report)) => self.report(),
                Some(Told::Signal(Signal::Stop)) | None => break,
                Some(Told::Ended(reactor)) => {
                    self.note_the_end(reactor);
                    lost = true;
                    break;
                }
            }
        }
        self.upstreams.stop_checks();
        self.drain(inbox);
        self.report();
        if lost {
            Err(StartError::ReactorLost)
        } else {
            Ok(())
        }
    }

    /// Ends when every reactor has, which is when its last session has ended; those that
    /// are left when time has run out, or at a second signal, are cut.
    fn drain(&mut self, inbox: &Inbox) {
        let live: u64 = self
            .snapshots()
            .iter()
            // Two loads beside a running reactor: an end may be seen before its start.
            .map(|counters| counters.accepted.saturating_sub(counters.ended))
            .sum();
        self.log.notice(Notice::Draining {
            sessions: live,
            timeout: self.drain_timeout,
        });
        self.order(&Order::Drain);
        let deadline = Instant::now().checked_add(self.drain_timeout);
        let cause = loop {
            if self.has_ended() {
                return;
            }
            match inbox.wait(deadline) {
                Some(Told::Ended(reactor)) => self.note_the_end(reactor),
                Some(Told::Signal(Signal::Report)) => self.report(),
                Some(Told::Signal(Signal::Stop)) => break Cause::Stopped,
                None => break Cause::DrainTimeout,
            }
        };
        self.order(&Order::Cut(cause));
        // A reactor that does not answer must not keep the process alive.
        let deadline = Instant::now() + ORDER_PATIENCE;
        while !self.has_ended() {
            match inbox.wait(Some(deadline)) {
                Some(Told::Ended(reactor)) => self.note_the_end(reactor),
                Some(Told::Signal(_)) => {}
                None => return,
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.reactors.iter().all(Option::is_none)
    }

    /// The thread of a reactor is over.
    fn note_the_end(&mut self, reactor: u16) {
        let index = usize::from(reactor);
        if let Some(thread) = self.reactors.get_mut(index).and_then(Option::take) {
            self.ended[index] = thread.counters().snapshot();
            thread.join();
        }
    }

    /// Tells every reactor; nobody waits.
    fn order(&self, order: &Order) {
        for reactor in self.reactors.iter().flatten() {
            reactor.send(order.clone()).forget();
        }
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        let each = self.reactors.iter().zip(&self.ended);
        each.map(|(reactor, ended)| {
            let running = reactor.as_ref();
            running.map_or(*ended, |reactor| reactor.counters().snapshot())
        })
        .collect()
    }

    /// Logs the counters: in all, and how evenly the reactors share the load.
    fn report(&self) {
        let running = self.reactors.iter().flatten();
        let published: Vec<Pending> = running.map(|it| it.send(Order::Publish)).collect();
        let deadline = Instant::now() + ORDER_PATIENCE;
        for pending in published {
            // One that is stuck is reported as it was.
            pending.is_done_by(deadline);
        }
        let clients = self.clients.values().map(AsRef::as_ref);
        report::tell(
            &self.log,
            &self.snapshots(),
            &self.upstreams.servers(),
            clients,
        );
    }
}
