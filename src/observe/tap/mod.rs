//! The tap: a copy of what flows, for people to look at.
//!
//! ```text
//! engine ─chunk─► Feed ──copy──► queue, bounded in bytes ─► a thread for each target
//!                 one a session                             format, write, rotate
//! ```
//! Purpose: show the first bytes of sessions without altering or delaying them.
//! Owns: the queues, what is known of sessions; threads and files are `outlet`'s.
//!
//! Invariants: nobody who feeds ever waits. A full queue, a stopped reader or a full
//! disk costs shown bytes, never forwarded ones; what is missing is counted
//! ([`Source::dropped_bytes`]) and marked in the output where it is missing.
//! Formatting and decoding happen on the target's thread, never on a reactor.
//! Memory: a reactor has at most [`QUEUE_BYTES`] on their way to each target.

mod addresses;
mod feed;
mod hex;
mod http;
mod onlooking;
mod packet;
mod pcapng;
mod render;
pub mod shown;
mod text;
mod thread;

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::config::{Config, Forward, Tap, TapFormat, TapTarget};
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::observe::outlet::{self, Outlet, Place, Sink};

pub use feed::{Appetite, Closing, Feed, QUEUE_BYTES, Sight, Source, StreamEnd};
use feed::{Budget, Item, Progress};
pub use onlooking::Onlooking;
use thread::{Target, prologue};

/// Why a tap cannot be had; nothing is started then.
#[derive(Debug, Error)]
pub enum TapError {
    /// The target cannot be opened.
    #[error("cannot open the tap {target}: {error}{remedy}")]
    Open {
        /// Where it should go.
        target: TapTarget,
        /// Why not.
        error: io::Error,
        /// What to do about it, or nothing.
        remedy: &'static str,
    },
    /// It is written in another way at the moment.
    #[error(
        "the tap {0} is open, and cannot become or cease to be pcapng or rotate otherwise \
         meanwhile; give it another file"
    )]
    Busy(TapTarget),
    /// Its thread cannot be started.
    #[error("cannot start the thread of the tap {0}: {1}")]
    Thread(TapTarget, #[source] io::Error),
}

/// Every tap of a configuration, and the threads that write them.
#[derive(Debug, Default)]
pub struct Taps {
    forwards: Vec<Placed>,
    targets: Vec<Arc<Running>>,
}

/// A target at work. Its thread ends when nobody can feed it any more.
#[derive(Debug)]
struct Running {
    /// The tap that it was opened by.
    tap: Tap,
    queue: Sender<Item>,
    /// How far it has come.
    progress: Arc<Progress>,
    /// For whoever waits for its end.
    outlet: Mutex<Outlet>,
}

/// A forward's tap and the place of its target among the queues.
#[derive(Debug)]
struct Placed {
    tap: Arc<Tap>,
    forward: Arc<str>,
    target: usize,
}

impl Placed {
    fn is_same(&self, other: &Self) -> bool {
        self.forward == other.forward && self.tap == other.tap
    }
}

/// Whoever operates it learns that somebody looks.
fn tell(forward: &Forward, tap: &Tap, log: &Log) {
    log.notice(Notice::Tapped {
        forward: forward.name.as_str().into(),
        tap: tap.to.to_string(),
        bytes: tap.max_bytes_per_session,
    });
}

impl Taps {
    /// Opens every target and starts a thread for each. Without a tap it starts
    /// nothing.
    pub fn start(config: &Config, log: &Log) -> Result<Self, TapError> {
        Self::default().follow(config, log)
    }

    /// Those of another configuration. A target that both have goes on as it is; what
    /// only these have ends once nobody feeds it any more.
    pub fn follow(&self, config: &Config, log: &Log) -> Result<Self, TapError> {
        let mut all = Self::default();
        for forward in &config.forwards {
            let Some(tap) = &forward.tap else {
                continue;
            };
            let same = |it: &&Arc<Running>| it.tap.to == tap.to;
            let known = all.targets.iter().position(|it| same(&it));
            let target = known.unwrap_or(all.targets.len());
            if known.is_none() {
                let before = self.targets.iter().find(same);
                all.targets.push(match before {
                    Some(before) if before.goes_on_as(tap) => before.clone(),
                    Some(_) => return Err(TapError::Busy(tap.to.clone())),
                    None => Arc::new(Running::start(tap, log)?),
                });
            }
            let placed = Placed {
                tap: Arc::new(tap.clone()),
                forward: forward.name.as_str().into(),
                target,
            };
            if !self.forwards.iter().any(|it| it.is_same(&placed)) {
                tell(forward, tap, log);
            }
            all.forwards.push(placed);
        }
        Ok(all)
    }

    /// Whether sessions are shown in the same way by both.
    pub fn is_same(&self, other: &Self) -> bool {
        let pairs = self.forwards.iter().zip(&other.forwards);
        self.forwards.len() == other.forwards.len() && pairs.into_iter().all(|(a, b)| a.is_same(b))
    }

    /// Goes on in the files that have the targets' names now; says which could not be
    /// opened.
    pub fn reopen(&self, patience: Duration) -> Vec<(TapTarget, io::Error)> {
        let asked: Vec<_> = self
            .targets
            .iter()
            .filter(|it| matches!(it.tap.to, TapTarget::File(_)))
            .map(|it| (it, it.reopen()))
            .collect();
        let end = Instant::now() + patience;
        let failed = asked.into_iter().filter_map(|(it, answer)| {
            let _ = it.queue.send(Item::Nothing);
            let left = end.saturating_duration_since(Instant::now());
            let late = |_| Err(io::ErrorKind::TimedOut.into());
            let error = answer.recv_timeout(left).unwrap_or_else(late).err()?;
            Some((it.tap.to.clone(), error))
        });
        failed.collect()
    }

    /// What a reactor feeds, with the names of the forwards that are tapped; empty where
    /// none is, so that who looks for a tap finds none at the price of a comparison.
    pub fn sources(&self, reactor: u16) -> Vec<(Arc<str>, Source)> {
        if self.targets.is_empty() {
            return Vec::new();
        }
        // One budget for each target: a stopped reader of one costs no other.
        let budget = |target: &Arc<Running>| {
            let told_here = (reactor == 0).then(|| target.progress.clone());
            Arc::new(Budget::new(told_here))
        };
        let budgets: Vec<Arc<Budget>> = self.targets.iter().map(budget).collect();
        let source = |placed: &Placed| {
            let source = Source::new(
                placed.tap.clone(),
                reactor,
                self.targets[placed.target].queue.clone(),
                budgets[placed.target].clone(),
            );
            (placed.forward.clone(), source)
        };
        self.forwards.iter().map(source).collect()
    }

    /// Waits until what was fed is written, as long as it goes on: a target that has
    /// taken nothing for `patience`, or that takes ten times as long in all, must not
    /// keep the process from ending. Whatever feeds must be gone already.
    pub fn finish(self, patience: Duration) {
        // A thread ends when nobody can feed it any more.
        let targets = self.targets.into_iter().filter_map(Arc::into_inner);
        let (outlets, progress): (Vec<_>, Vec<_>) =
            targets.map(|it| (lock(it.outlet), it.progress)).unzip();
        let done = || progress.iter().map(|it| it.items()).sum::<u64>();
        let end = Instant::now() + 10 * patience;
        let mut seen = done();
        for outlet in &outlets {
            while !outlet.ends_by(end.min(Instant::now() + patience)) {
                let now = done();
                if now == seen || Instant::now() >= end {
                    return;
                }
                seen = now;
            }
        }
    }
}

/// Nothing that is done with it panics.
fn lock(outlet: Mutex<Outlet>) -> Outlet {
    outlet.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    fn reopen(&self) -> Receiver<io::Result<()>> {
        let outlet = self.outlet.lock();
        outlet.unwrap_or_else(PoisonError::into_inner).reopen()
    }

    fn start(tap: &Tap, log: &Log) -> Result<Self, TapError> {
        let sink = open(tap)?;
        let (queue, items) = channel();
        let progress = Arc::<Progress>::default();
        let target = Target::new(tap, Some(tap.to.clone()), progress.clone(), log.clone());
        let outlet = Outlet::spawn("tap", items, target, sink)
            .map_err(|error| TapError::Thread(tap.to.clone(), error))?;
        Ok(Self {
            tap: tap.clone(),
            queue,
            progress,
            outlet: Mutex::new(outlet),
        })
    }

    /// Whether it can be another tap's target as well, as it is.
    fn goes_on_as(&self, tap: &Tap) -> bool {
        let packets = |tap: &Tap| tap.format == TapFormat::Pcapng;
        self.tap.to == tap.to && self.tap.rotate == tap.rotate && packets(&self.tap) == packets(tap)
    }
}

/// Opens the target of a tap.
fn open(tap: &Tap) -> Result<Sink, TapError> {
    let place = match &tap.to {
        TapTarget::Stderr => Place::Stderr,
        TapTarget::File(path) => Place::File(path.clone()),
    };
    let target = outlet::Target {
        place,
        mode: tap.mode,
        needs_reader: true,
        rotate: tap.rotate,
        prologue: prologue(tap.format),
    };
    Sink::open(target).map_err(|error| TapError::Open {
        target: tap.to.clone(),
        remedy: match error.raw_os_error() {
            Some(libc::ENXIO) => "; nobody reads from this pipe: start its reader first",
            _ => "",
        },
        error,
    })
}

#[cfg(test)]
mod tests;
