//! The beginning, on a thread of its own: opening a log or a file of users may wait for
//! whoever is at the other end of a pipe, and a listener's name for a name server.
//! Whoever started it is told, and can end the process meanwhile.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::net::inherited::Inherited;
use crate::observe::log::{Log, LogWriter};
use crate::observe::tap::Taps;

use super::acquire::Acquired;
use super::awaited::Awaited;
use super::confine::Confinement;
use super::error::StartError;
use super::inbox::{Inbox, Teller, Told};
use super::manager::Manager;
use super::plan::{Identities, Plan};
use super::running::{Begun, Running};
use super::signals::{self, Signal};
use super::source::ConfigSource;

/// How long the log's last lines may take to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// How long all of it may take. A service manager's own patience is longer, and a slow
/// name server's answer comes within it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a forwarder begins with beside its configuration.
#[derive(Debug, Default)]
pub struct Given {
    /// Where the configuration can be read again.
    pub source: Option<Arc<dyn ConfigSource>>,
    /// Sockets to listen on that somebody else made.
    pub inherited: Inherited,
    /// Who wants to be told how things are.
    pub manager: Manager,
}

/// Begins, runs, and ends; `begun` is called once all listeners are served.
pub(super) fn supervise(
    config: &Config,
    given: (Given, Confinement),
    inbox: &Inbox,
    begun: impl FnOnce(),
) -> Result<(), StartError> {
    signals::ignore_broken_pipes().map_err(StartError::Signals)?;
    let Some(at_work) = begin(config, given, inbox)? else {
        return Ok(());
    };
    let AtWork {
        running,
        log,
        writer,
    } = at_work;
    begun();
    let outcome = running.serve(inbox);
    drop(log);
    writer.finish(LOG_PATIENCE);
    outcome
}

/// What has begun, and what is to be ended behind it.
struct AtWork {
    running: Running,
    log: Log,
    writer: LogWriter,
}

/// Waits for the beginning, or for a signal that makes it pointless: `None`.
fn begin(
    config: &Config,
    given: (Given, Confinement),
    inbox: &Inbox,
) -> Result<Option<AtWork>, StartError> {
    let beginning = Beginning::start(config, given, inbox.teller())?;
    let mut reopen = false;
    loop {
        match inbox.wait(Some(beginning.deadline())) {
            Some(Told::Signal(Signal::Stop | Signal::Drain)) => return Ok(None),
            // Everything is as new.
            Some(Told::Signal(Signal::Reload)) => reopen = true,
            Some(Told::Signal(_) | Told::Asked(_) | Told::Changed) => {}
            Some(Told::Ready | Told::Ended(_)) => {
                let Some(begun) = beginning.outcome() else {
                    continue;
                };
                let begun = begun?;
                if reopen {
                    begun.running.reopen_log();
                }
                return Ok(Some(begun));
            }
            None => return Err(beginning.blocked()),
        }
    }
}

/// A beginning that is under way.
struct Beginning {
    step: Awaited,
    deadline: Instant,
    outcome: Receiver<Result<AtWork, StartError>>,
}

impl Beginning {
    fn start(
        config: &Config,
        given: (Given, Confinement),
        teller: Teller,
    ) -> Result<Self, StartError> {
        let (done, outcome) = channel();
        let step = Awaited::default();
        let (config, told) = (Arc::new(config.clone()), step.clone());
        std::thread::Builder::new()
            .name("start".into())
            .spawn(move || {
                signals::block_here();
                // Nobody waits for it any more when the process is ending.
                let _ = done.send(open(config, given, &told, &teller));
                teller.tell(Told::Ready);
            })
            .map_err(StartError::Reactor)?;
        Ok(Self {
            step,
            deadline: Instant::now() + PATIENCE,
            outcome,
        })
    }

    const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What came of it, once something has.
    fn outcome(&self) -> Option<Result<AtWork, StartError>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(StartError::Blocked {
                step: self.step.now(),
                patience: Duration::ZERO,
            })),
        }
    }

    /// That it has taken too long.
    fn blocked(&self) -> StartError {
        StartError::Blocked {
            step: self.step.now(),
            patience: PATIENCE,
        }
    }
}

fn open(
    config: Arc<Config>,
    (given, confinement): (Given, Confinement),
    step: &Awaited,
    teller: &Teller,
) -> Result<AtWork, StartError> {
    step.is(format_args!("opening the log {}", config.log.to));
    let (log, writer) = Log::start_with_mode(
        config.log.level,
        config.log.format,
        &config.log.to,
        config.log.mode,
    )
    .map_err(|error| StartError::Log {
        target: config.log.to.clone(),
        error,
    })?;
    let Given {
        source,
        inherited,
        mut manager,
    } = given;
    manager.starting(&log);
    let begun = Begun {
        config,
        source,
        log: log.clone(),
        teller: teller.clone(),
    };
    match forward(begun, inherited, step) {
        Ok(mut running) => {
            running.confine(confinement);
            running.serve_under(manager);
            Ok(AtWork {
                running,
                log,
                writer,
            })
        }
        Err(error) => {
            manager.failed(&error);
            drop(log);
            writer.finish(LOG_PATIENCE);
            Err(error)
        }
    }
}

fn forward(begun: Begun, mut inherited: Inherited, step: &Awaited) -> Result<Running, StartError> {
    let (config, log) = (begun.config.clone(), begun.log.clone());
    let mut ids = Identities::default();
    let plan = Plan::of(&config, &mut ids);
    step.is("opening the targets of taps");
    let taps = Taps::start(&config, &log)?;
    let acquired = Acquired::take(&plan, &mut inherited, (&log, &taps), step)?;
    step.is("starting the reactors");
    Running::start(acquired, &plan, ids, taps, begun)
}
