//! What the endpoint shows and steers; `control` has one.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::view::{ReloadView, UpgradeView};
use crate::config::{self, AdminState, Config};
use crate::observe::counters::Counters;
use crate::observe::log::Log;
use crate::observe::tap::Onlooking;
use crate::reactor::Forward;
use crate::reactor::inspect::{Inspect, Onlooker};
use crate::reactor::upstream::server::Server;
use crate::relay::id::{ForwardId, ServerId};

/// What is done on visits to a reactor, one in each of its turns until it breaks off. A visit is
/// short, for sessions wait meanwhile.
pub type Visit = Box<dyn FnMut(&mut dyn Inspect) -> ControlFlow<()> + Send>;

/// A single visit.
pub fn once(visit: impl FnOnce(&mut dyn Inspect) + Send + 'static) -> Visit {
    let mut visit = Some(visit);
    Box::new(move |reactor| {
        if let Some(visit) = visit.take() {
            visit(reactor);
        }
        ControlFlow::Break(())
    })
}

/// A running forwarder, for whoever looks at it and steers it.
pub trait Subject: Send + Sync + 'static {
    /// When it was started.
    fn started(&self) -> SystemTime;

    /// Which engine its reactors have.
    fn engine(&self) -> &'static str;

    /// Whose it is, and what the kernel denies it.
    fn confinement(&self) -> &str;

    /// What it is about.
    fn phase(&self) -> Phase;

    /// The configuration in force.
    fn configured(&self) -> Configured;

    /// Every forward in force, and those that drain.
    fn forwards(&self) -> Vec<ForwardSeen>;

    /// Every pool with its servers.
    fn pools(&self) -> Vec<PoolSeen>;

    /// Every reactor, those that have ended included.
    fn reactors(&self) -> Vec<ReactorSeen>;

    /// Sessions at the most over all forwards, and those that are there now.
    fn sessions_limit(&self) -> (u32, u32);

    /// Has a reactor visited from one of its next turns on; `false` if it has ended.
    fn visit(&self, reactor: u16, visit: Visit) -> bool;

    /// Somebody looks at sessions until this is dropped, those of reactors to come included.
    fn look(&self, looker: &Arc<Looker>);

    /// Changes a server, from the next pick of every reactor on.
    fn change_server(&self, server: ServerId, change: &ServerChange) -> Result<(), Refused>;

    /// Forgives servers their failures: one, or all.
    fn clear_marks(&self, server: Option<ServerId>) -> Result<(), Refused>;

    /// Lets nobody in at a forward any more; its sessions go on.
    fn drain_forward(&self, forward: ForwardId) -> Result<(), Refused>;

    /// Lets clients in again at a forward that was drained; blocks until that is done.
    fn resume_forward(&self, forward: ForwardId) -> Result<(), ReloadRefused>;

    /// Has the configuration read again and what differs applied; blocks until that is done.
    fn reload(&self, asked: ReloadAsked) -> Result<ReloadView, ReloadRefused>;

    /// Keeps what a reload with a time to confirm has put in force, or goes back to what was
    /// before; `false` if none waits for that. Blocks.
    fn settle(&self, keep: bool) -> bool;

    /// Hands over to a new process; blocks until that serves, or will not.
    fn upgrade(&self, asked: UpgradeAsked) -> Result<UpgradeView, UpgradeRefused>;

    /// Its log.
    fn log(&self) -> &Log;
}

/// What a forwarder is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It lets clients in.
    Serving,
    /// It was told to end.
    Draining,
}

/// The configuration in force.
#[derive(Debug, Clone)]
pub struct Configured {
    /// Itself.
    pub config: Arc<Config>,
    /// Counted from 1, the one of the start.
    pub generation: u64,
    /// Made when it is asked for first: see [`Self::hash`].
    pub hash: Arc<OnceLock<String>>,
    /// Since when.
    pub applied: SystemTime,
}

impl Configured {
    /// The same for equal configurations, however they are written. A reload of many forwards
    /// does not wait for it.
    pub fn hash(&self) -> &str {
        self.hash.get_or_init(|| {
            let digest = Sha256::digest(self.config.to_toml().as_bytes());
            let mut text = String::new();
            for byte in digest.iter().take(8) {
                let _ = write!(text, "{byte:02x}");
            }
            text
        })
    }
}

/// A forward.
#[derive(Debug, Clone)]
pub struct ForwardSeen {
    /// As reactors have it.
    pub forward: Arc<Forward>,
    /// As it is configured.
    pub config: Arc<config::Forward>,
    /// What its pool is called.
    pub pool: Arc<str>,
    /// Nobody is let in any more since then.
    pub draining: Option<Instant>,
}

/// A pool.
#[derive(Debug, Clone)]
pub struct PoolSeen {
    /// What it is called.
    pub label: Arc<str>,
    /// As it is configured.
    pub config: Arc<config::Pool>,
    /// Those it lists, and those that have sessions yet.
    pub servers: Vec<ServerSeen>,
    /// The names by which it finds servers.
    pub names: Vec<NameSeen>,
}

/// A server.
#[derive(Debug, Clone)]
pub struct ServerSeen {
    /// Itself.
    pub server: Arc<Server>,
    /// Its share beside the others' weights.
    pub weight: u32,
    /// Used only while no other can be.
    pub backup: bool,
    /// Its pool has it still.
    pub listed: bool,
    /// What checks or an operator said last.
    pub why: Option<Arc<str>>,
}

/// A name, and what it stands for.
#[derive(Debug, Clone)]
pub struct NameSeen {
    /// As it is written.
    pub name: String,
    /// Empty before the first answer.
    pub addresses: Vec<SocketAddr>,
    /// When these came.
    pub answered: Option<Instant>,
}

/// A reactor.
#[derive(Debug, Clone)]
pub struct ReactorSeen {
    /// From 0.
    pub number: u16,
    /// What it has counted.
    pub counters: Arc<Counters>,
}

/// Somebody who looks at sessions for a time.
#[derive(Debug)]
pub struct Looker {
    /// At those of these forwards; `None`: of all.
    pub forwards: Option<Vec<ForwardId>>,
    /// What it is shown by.
    pub onlooking: Onlooking,
}

impl Looker {
    /// As one reactor knows it.
    pub fn of(&self, reactor: u16) -> Onlooker {
        Onlooker {
            forwards: self.forwards.clone(),
            source: self.onlooking.source(reactor),
        }
    }
}

/// What an operator wants of a server.
#[derive(Debug, Clone, Default)]
pub struct ServerChange {
    /// Whether it takes sessions.
    pub state: Option<AdminState>,
    /// Its share.
    pub weight: Option<u32>,
    /// Sessions at the most; `Some(None)` is without a bound.
    pub max_connections: Option<Option<u32>>,
    /// Also where no other server of the pool would be left.
    pub force: bool,
    /// Only if it is still this version of it.
    pub version: Option<u64>,
}

/// What a reload is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReloadAsked {
    /// Only say what would happen.
    pub dry_run: bool,
    /// Go back by itself, unless it is confirmed within this time.
    pub confirm: Option<Duration>,
}

/// Why a reload changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadRefused {
    /// In words, with places.
    pub why: String,
    /// What kind of trouble it is.
    pub trouble: ReloadTrouble,
}

/// Why a reload changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadTrouble {
    /// The configuration has mistakes, or asks for what a running process cannot change.
    Configuration,
    /// Another one has not come to an end.
    Busy,
    /// Something cannot be had, or the process is ending.
    Unavailable,
}

/// What an upgrade is to be.
#[derive(Debug, Clone, Default)]
pub struct UpgradeAsked {
    /// Another binary than the one that this process was started from.
    pub binary: Option<PathBuf>,
    /// Everything comes back by itself, unless it is confirmed within this time.
    pub trial: Option<Duration>,
}

/// Why no other process has taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeRefused {
    /// In words.
    pub why: String,
    /// Another upgrade, or a reload, has not come to an end.
    pub busy: bool,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// There is none.
    #[error("there is no such {0}")]
    Unknown(&'static str),
    /// Somebody else has changed it.
    #[error("it was changed meanwhile: this is version {now}, not {expected}")]
    Changed {
        /// Which version was meant.
        expected: u64,
        /// Which there is.
        now: u64,
    },
    /// It is the last one.
    #[error(
        "it is the last server of pool {pool} that takes sessions; force it if that is what you want"
    )]
    LastServer {
        /// Its pool.
        pool: String,
    },
}

impl ServerSeen {
    /// How long ago its state changed, `elapsed` after the start.
    pub fn in_state_for(&self, elapsed: Duration) -> Duration {
        let now = crate::relay::time::Time::ZERO + elapsed;
        self.server.note_state(now);
        now.since(self.server.state_since())
    }
}
