//! The beginning, on a thread of its own: opening a log or a file of users may wait for
//! whoever is at the other end of a pipe, and a listener's name for a name server.
//! Whoever started it is told, and can end the process meanwhile.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::net::handed::{Handed, Role};
use crate::net::inherited::{Inherited, Label, Origin};
use crate::observe::log::{Log, LogWriter};
use crate::observe::tap::Taps;
use crate::reactor::Pilot;

use super::acquire::Acquired;
use super::awaited::Awaited;
use super::confine::Confinement;
use super::error::StartError;
use super::inbox::{Inbox, Teller, Told};
use super::manager::Manager;
use super::plan::{Identities, Plan};
use super::resolve::KnownNames;
use super::running::{Begun, Running};
use super::signals::{self, Signal};
use super::source::ConfigSource;
use super::survival::found::Survivors;
use super::upgrade::TakeOver;
use super::upgrade::following;
use super::upgrade::take::Taking;
use super::upgrades::Control;

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
    /// The process that this one takes the place of.
    pub take_over: Option<TakeOver>,
    /// Who wants to be told how things are.
    pub manager: Manager,
    /// A program's own decision about sessions.
    pub pilot: Option<Pilot>,
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
    let mut reload = false;
    loop {
        match inbox.wait(Some(beginning.deadline())) {
            Some(Told::Signal(Signal::Stop | Signal::Drain)) => return Ok(None),
            // The file may be another one since it was read.
            Some(Told::Signal(Signal::Reload)) => reload = true,
            Some(
                Told::Signal(_)
                | Told::Asked(_)
                | Told::Changed
                | Told::Old(..)
                | Told::Has(..)
                | Told::Gone(_),
            ) => {}
            Some(Told::Ready | Told::Ended(_)) => {
                let Some(begun) = beginning.outcome() else {
                    continue;
                };
                let begun = begun?;
                if reload {
                    inbox.teller().tell(Told::Changed);
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
        mut inherited,
        take_over,
        mut manager,
        pilot,
    } = given;
    let survivors = Survivors::of(std::mem::take(&mut inherited.survivors), teller);
    inherited.origin = survivors.origin();
    // The process that has everything speaks until it has let go.
    let is_first = take_over.is_none();
    if is_first {
        manager.starting(&log);
    }
    // Those that nobody listens on any more are forgotten there as soon as this one stands.
    manager.had_kept(inherited.kept_as());
    let begun = Begun {
        config,
        source,
        beside: Arc::default(),
        log: log.clone(),
        teller: teller.clone(),
        pilot,
    };
    match forward(begun, inherited, take_over.as_ref(), step) {
        Ok((mut running, is_service)) => {
            running.confine(confinement);
            running.serve_under(manager, is_service);
            running.survive(survivors);
            Ok(AtWork {
                running,
                log,
                writer,
            })
        }
        Err(error) => {
            if is_first {
                manager.failed(&error);
            }
            drop(log);
            writer.finish(LOG_PATIENCE);
            Err(error)
        }
    }
}

/// Whatever there is to be begun; and whether a service manager heeds this process already.
fn forward(
    begun: Begun,
    mut inherited: Inherited,
    take_over: Option<&TakeOver>,
    step: &Awaited,
) -> Result<(Running, bool), StartError> {
    let Some(from) = take_over else {
        let mut running = stand(begun, (&mut inherited, None, KnownNames::default()), step)?;
        running.open(&[])?;
        return Ok((running, true));
    };
    step.is("taking over");
    let mut taking =
        Taking::begin(from).map_err(|error| StartError::TakeOver(error.to_string()))?;
    let teller = begun.teller.clone();
    match stand_in(begun, &mut taking, inherited, step) {
        Ok(running) => {
            let is_service = !taking.tells_service && running.probation.is_none();
            follow(taking, teller)?;
            Ok((running, is_service))
        }
        Err(error) => {
            taking.refuse(error.to_string());
            Err(error)
        }
    }
}

/// Hears what else the process before has to say.
fn follow(taking: Taking, teller: Teller) -> Result<(), StartError> {
    let thread = std::thread::Builder::new().name("upgrade".into());
    let spawned = thread.spawn(move || {
        signals::block_here();
        following::follow(&taking.talk, &Control(teller));
    });
    spawned.map(drop).map_err(StartError::Reactor)
}

/// Everything that there is to be begun, but that clients are not let in so far if some
/// of it was handed over.
fn stand(
    begun: Begun,
    inherited: (&mut Inherited, Option<&mut Handed>, KnownNames),
    step: &Awaited,
) -> Result<Running, StartError> {
    let (config, log) = (begun.config.clone(), begun.log.clone());
    let mut ids = Identities::steered_by(begun.pilot.clone());
    let plan = Plan::of(&config, &mut ids);
    begun.beside.are_read(&config);
    step.is("opening the targets of taps");
    let taps = Taps::start(&config, &log)?;
    let acquired = Acquired::take(&plan, inherited, (&log, &taps), step)?;
    step.is("starting the reactors");
    Running::start(acquired, &plan, ids, taps, begun)
}

/// Stands in the place of another process once that has let go.
fn stand_in(
    begun: Begun,
    taking: &mut Taking,
    mut inherited: Inherited,
    step: &Awaited,
) -> Result<Running, StartError> {
    let failed = |problem: String| StartError::TakeOver(problem);
    let mut handed = std::mem::take(&mut taking.handed);
    let mut forwards = Vec::new();
    for (label, socket) in handed.take_role(Role::Forward) {
        let its = Label {
            address: label.address.clone(),
            forward: label.forward.clone(),
        };
        let which = label.address.clone();
        let origin = Origin::HandedOver(its);
        inherited
            .add(socket, origin, which)
            .map_err(|error| failed(error.to_string()))?;
        forwards.push(label);
    }
    let names = std::mem::take(&mut taking.names);
    let mut running = stand(begun, (&mut inherited, Some(&mut handed), names), step)?;
    // What is left of them nobody listens on any more.
    forwards.retain(|label| {
        let mut left = inherited.sockets().iter();
        !left.any(|it| match &it.origin {
            Origin::HandedOver(its) => its.address == label.address && its.forward == label.forward,
            Origin::Passed { .. } | Origin::Kept(_) => false,
        })
    });
    drop(inherited);
    forwards.extend(handed.taken().iter().cloned());
    drop(handed);
    step.is("waiting for the other process to let go");
    let taken = forwards;
    let settled = taking
        .settle(taken.clone(), &running.berths())
        .map_err(|error| failed(error.to_string()))?;
    running.stand_in(taking, &taken, settled)?;
    Ok(running)
}
