//! Start-up, signals, drain: what is not on the hot path.
//!
//! ```text
//! run ─► prepare: limits, names, sockets, what the kernel granted
//!     ─► one thread a reactor
//!     ─► wait for signals ─► drain ─► cut what is left ─► summary
//! ```
//! Talks to reactors by messages (`thread::Order`) only.

pub mod doctor;
pub mod health;
mod prepare;
mod proxy;
mod registry;
mod report;
pub mod resolve;
mod signals;
mod thread;
mod upstreams;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::observe::counters::Snapshot;
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::observe::tap::Taps;
use crate::relay::ending::Cause;

use prepare::Prepared;
pub use prepare::StartError;
pub use proxy::UsersError;
use resolve::Resolver;
use signals::{Signal, Signals};
use thread::{Order, ReactorThread};
use upstreams::Upstreams;

/// How long the log's last lines may take to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// How long what taps still have to show may take to be written.
const TAP_PATIENCE: Duration = Duration::from_secs(1);

/// How often control looks whether every reactor still runs.
const REACTOR_LOOK: Duration = Duration::from_secs(5);

/// How often a drain looks whether it is complete.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

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
    let outcome = forward(config, &log, &signals);
    drop(log);
    writer.finish(LOG_PATIENCE);
    outcome
}

fn forward(config: &Config, log: &Log, signals: &Signals) -> Result<(), StartError> {
    let taps = Taps::start(config, log)?;
    let prepared = Prepared::new(config, log, &taps)?;
    let outcome = Running::start(prepared, log.clone()).and_then(|running| running.serve(signals));
    taps.finish(TAP_PATIENCE);
    outcome
}

/// A forwarder at work.
struct Running {
    reactors: Vec<ReactorThread>,
    upstreams: Arc<Upstreams>,
    /// Keeps names resolved for as long as it is there.
    _resolver: Option<Arc<Resolver>>,
    drain_timeout: Duration,
    log: Log,
    /// Unix listeners' paths go when this is dropped.
    _sockets: Vec<crate::net::listener::Bound>,
}

impl Running {
    fn start(prepared: Prepared, log: Log) -> Result<Self, StartError> {
        let Prepared {
            reactors,
            sockets,
            drain_timeout,
            upstreams,
            resolver,
            origin,
        } = prepared;
        let reactors = reactors
            .into_iter()
            .map(ReactorThread::spawn)
            .collect::<Result<Vec<_>, _>>()?;
        upstreams.connect(reactors.iter().map(ReactorThread::wire).collect());
        upstreams
            .start_checks(origin, &log)
            .map_err(StartError::Checker)?;
        Ok(Self {
            reactors,
            upstreams,
            _resolver: resolver,
            drain_timeout,
            log,
            _sockets: sockets,
        })
    }

    /// Until a signal ends it, or a reactor fails: then the others drain, and the
    /// service manager learns of it by the exit code.
    fn serve(mut self, signals: &Signals) -> Result<(), StartError> {
        let mut lost = false;
        loop {
            match signals.wait(Some(REACTOR_LOOK)) {
                Some(Signal::Report) => self.report(),
                Some(Signal::Stop) => break,
                None => {
                    lost = !self.reactors.iter().all(ReactorThread::is_running);
                    if lost {
                        break;
                    }
                }
            }
        }
        self.upstreams.stop_checks();
        self.drain(signals);
        self.report();
        // A reactor that does not answer must not keep the process alive.
        for reactor in &mut self.reactors {
            reactor.join(Duration::from_secs(1));
        }
        if lost {
            Err(StartError::ReactorLost)
        } else {
            Ok(())
        }
    }

    fn drain(&mut self, signals: &Signals) {
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
        self.order(|| Order::Drain);
        let deadline = Instant::now().checked_add(self.drain_timeout);
        while self.reactors.iter().any(ReactorThread::is_running) {
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let signal = signals.wait(Some(DRAIN_LOOK));
            if signal == Some(Signal::Report) {
                self.report();
            }
            let asked_again = signal == Some(Signal::Stop);
            if late || asked_again {
                let cause = if asked_again {
                    Cause::Stopped
                } else {
                    Cause::DrainTimeout
                };
                self.order(|| Order::Cut(cause));
                self.wait_for_the_cut();
                return;
            }
        }
    }

    /// A cut needs no peer's consent: it is a matter of a turn or two.
    fn wait_for_the_cut(&self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.reactors.iter().any(ReactorThread::is_running) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn order(&self, order: impl Fn() -> Order) {
        for reactor in &self.reactors {
            reactor.send(order());
        }
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        self.reactors
            .iter()
            .map(|reactor| reactor.counters().snapshot())
            .collect()
    }

    /// Logs the counters: in all, and how evenly the reactors share the load.
    fn report(&self) {
        self.order(|| Order::Publish);
        // Reactors publish their gauges within a turn of being woken.
        std::thread::sleep(Duration::from_millis(5));
        report::tell(&self.log, &self.snapshots(), &self.upstreams.servers());
    }
}
