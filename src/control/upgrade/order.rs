//! What a hand-over asks of control's thread, and what an operator asks for.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::Duration;

use thiserror::Error;

use super::tables::{Counted, Tables};
use crate::engine::Detached;
use crate::net::handed::HandedLabel;
use crate::reactor::{Arrival, Berths, FlowArrival, MovedFlow, MovedSession, MovedSpare};

/// What an upgrade is to be.
#[derive(Debug, Clone, Default)]
pub struct UpgradeRequest {
    /// Another binary than the one that this process was started from.
    pub binary: Option<PathBuf>,
    /// Everything comes back by itself, unless it is confirmed within this time.
    pub trial: Option<Duration>,
}

/// An upgrade that came about.
#[derive(Debug, Clone)]
pub struct Upgraded {
    /// The process that serves from now on.
    pub process: u32,
    /// What it says it is.
    pub build: String,
    /// Listening sockets that it has.
    pub listeners: usize,
    /// Sessions that it has as well.
    pub sessions_moved: usize,
    /// Flows of datagrams that it has as well.
    pub flows_moved: usize,
    /// Sessions that run to their end in the old one, or are moved later.
    pub sessions_left: u64,
}

/// Why nothing has changed.
#[derive(Debug, Clone, Error)]
pub enum UpgradeError {
    /// Only one at a time.
    #[error("another upgrade is under way: {0}")]
    Busy(String),
    /// The binary cannot be started.
    #[error("cannot start {path}: {error}; nothing has changed")]
    Binary {
        /// Which.
        path: String,
        /// Why not.
        error: String,
    },
    /// The new process came to nothing.
    #[error("the new process has not taken over: {0}; this one goes on with everything")]
    Failed(String),
    /// Not in this state, or not this process.
    #[error("{0}")]
    Impossible(String),
}

/// What is handed over at first.
#[derive(Debug)]
pub(in crate::control) struct Offer {
    pub(in crate::control) listeners: Vec<(HandedLabel, OwnedFd)>,
    pub(in crate::control) tables: Box<Tables>,
    /// Descriptors that the new process needs to have it all.
    pub(in crate::control) descriptors: u64,
}

/// Sessions, flows and spare connections without a reactor.
#[derive(Debug, Default)]
pub(in crate::control) struct Luggage {
    pub(in crate::control) sessions: Vec<MovedSession>,
    pub(in crate::control) flows: Vec<MovedFlow>,
    pub(in crate::control) spares: Vec<MovedSpare>,
}

impl Luggage {
    /// Sessions alone.
    pub(in crate::control) fn of(sessions: Vec<MovedSession>) -> Self {
        Self {
            sessions,
            ..Self::default()
        }
    }
}

/// What another process can have besides listeners.
#[derive(Debug, Clone, Copy)]
pub(in crate::control) struct Takes {
    pub(in crate::control) sessions: bool,
    pub(in crate::control) flows: bool,
    pub(in crate::control) spares: bool,
}

/// What is handed over once nobody is let in any more.
#[derive(Debug)]
pub(in crate::control) struct Frozen {
    pub(in crate::control) tables: Box<Tables>,
    /// Those that can be handed over.
    pub(in crate::control) moved: Luggage,
    /// All that was counted here, of which `tables` may tell a part.
    pub(in crate::control) counted: Counted,
    /// Those that stay.
    pub(in crate::control) sessions_left: u64,
}

/// What a hand-over asks of control's thread.
#[derive(Debug)]
pub(in crate::control) enum HandOver {
    /// Nobody else may begin one from now on.
    Begin(String, Sender<Result<Offer, UpgradeError>>),
    /// Lets nobody in any more, and go what the other process can have.
    Freeze(Takes, Sender<Frozen>),
    /// Nothing came of it: all as it was, with these.
    Resume(Luggage),
    /// These stay in this process although another one serves.
    Stay(Luggage),
    /// Sessions that can be handed over by now, once another process serves; `None`: there
    /// will be no more.
    More(Sender<Option<Vec<MovedSession>>>),
    /// Where sessions of the process before belong.
    Berths(Sender<Berths>),
    /// They have come.
    Arrived(Vec<Arrival<Detached>>),
    /// What the process before counted at last.
    Rest(Box<Tables>),
    /// A service manager has heeded that this process is the service.
    Service,
    /// Another process has these. This one ends; what its listeners were named stays.
    Leave(Leave),
    /// This one was on trial and is to give everything back; to whom, by `Probation`.
    Undo(String, Sender<Before>),
    /// Likewise on trial: this one waits until it is confirmed, or has everything back.
    Try(Leave),
    /// The trial is over, and the other process stays.
    Confirmed,
    /// The trial is over, and this process serves again.
    Returned(Returned),
    /// Whether this process, which is on trial, is ready, and what an operator has said of it.
    HowIsIt(Sender<(bool, Option<bool>)>),
    /// The process that had put this one on trial is no more.
    Alone,
}

/// What it is that this process has now.
#[derive(Debug)]
pub(in crate::control) struct Settled {
    /// What was counted.
    pub(in crate::control) tables: Box<Tables>,
    /// They have no reactor so far.
    pub(in crate::control) sessions: Vec<Arrival<Detached>>,
    /// They wait for their ports.
    pub(in crate::control) flows: Vec<FlowArrival>,
    pub(in crate::control) spares: Vec<MovedSpare>,
    /// The former process waits for what comes of it.
    pub(in crate::control) trial: bool,
}

/// What has come back of a trial.
#[derive(Debug)]
pub(in crate::control) struct Returned {
    /// Who was on trial.
    pub(in crate::control) process: u32,
    pub(in crate::control) reason: String,
    /// `None`: it has kept its sessions to the end.
    pub(in crate::control) settled: Option<Settled>,
}

/// The process that has put this one on trial.
#[derive(Debug)]
pub(in crate::control) struct Before {
    pub(in crate::control) process: u32,
    pub(in crate::control) build: String,
    /// Listeners that it has as well.
    pub(in crate::control) taken: Vec<HandedLabel>,
}

/// A process on trial.
#[derive(Debug)]
pub(in crate::control) struct Probation {
    /// What it was told that was counted before.
    pub(in crate::control) told: Counted,
    /// Who waits beside it, and its build.
    pub(in crate::control) process: u32,
    pub(in crate::control) build: String,
    /// Listeners that the former process has as well.
    pub(in crate::control) taken: Vec<HandedLabel>,
    /// What an operator has said.
    pub(in crate::control) verdict: Option<bool>,
}

/// What is told behind the commit.
#[derive(Debug)]
pub(in crate::control) enum Later {
    /// A service manager heeds the other process from now on.
    Service,
    /// What was counted at last, and who waits until it is told.
    Rest(Box<Tables>, Sender<()>),
}

/// What another process has.
#[derive(Debug)]
pub(in crate::control) struct Leave {
    pub(in crate::control) taken: Vec<HandedLabel>,
    /// What it was told that was counted here.
    pub(in crate::control) counted: Counted,
    /// It can have sessions as well.
    pub(in crate::control) sessions: bool,
    pub(in crate::control) process: u32,
    pub(in crate::control) build: String,
    /// It waits to be told that a service manager heeds it.
    pub(in crate::control) awaits_service: bool,
    /// What there is to tell it goes there; the last of it is what this one has counted since.
    pub(in crate::control) later: Sender<Later>,
}

/// Who wants to take over, and waits for what is offered.
pub(in crate::control) type NextUpgrade = (String, Sender<Result<Offer, UpgradeError>>);

/// Whether another process is taking over.
#[derive(Debug, Default)]
pub(in crate::control) enum Upgrading {
    #[default]
    Not,
    /// This one has been offered everything.
    Offered(String),
    /// Nobody is let in meanwhile.
    Frozen(String),
    /// It has everything, and this one waits for what comes of it.
    Tried(Leave),
    /// It has everything.
    Left(Leave),
}
