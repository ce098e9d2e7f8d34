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
mod packet;
mod pcapng;
mod render;
mod text;
mod thread;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::config::{Config, Forward, Tap, TapFormat, TapTarget};
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::observe::outlet::{self, Outlet, Place, Sink};

pub use feed::{Appetite, Closing, Feed, QUEUE_BYTES, Source, StreamEnd};
use feed::{Budget, Item, Progress};
use thread::Target;

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
    /// Its thread cannot be started.
    #[error("cannot start the thread of the tap {0}: {1}")]
    Thread(TapTarget, #[source] io::Error),
}

/// Every tap of a configuration, and the threads that write them.
#[derive(Debug, Default)]
pub struct Taps {
    forwards: Vec<Placed>,
    queues: Vec<Sender<Item>>,
    /// How far each target has come.
    progress: Vec<Arc<Progress>>,
    outlets: Vec<Outlet>,
}

/// A forward's tap and the place of its target among the queues.
#[derive(Debug)]
struct Placed {
    tap: Arc<Tap>,
    forward: Arc<str>,
    queue: usize,
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
        let mut all = Self::default();
        let mut targets: Vec<TapTarget> = Vec::new();
        for forward in &config.forwards {
            let Some(tap) = &forward.tap else {
                continue;
            };
            let known = targets.iter().position(|target| *target == tap.to);
            let queue = known.unwrap_or(targets.len());
            if known.is_none() {
                all.start_target(tap, log)?;
                targets.push(tap.to.clone());
            }
            tell(forward, tap, log);
            all.forwards.push(Placed {
                tap: Arc::new(tap.clone()),
                forward: forward.name.as_str().into(),
                queue,
            });
        }
        Ok(all)
    }

    fn start_target(&mut self, tap: &Tap, log: &Log) -> Result<(), TapError> {
        let sink = open(tap)?;
        let (queue, items) = channel();
        let progress = Arc::<Progress>::default();
        let target = Target::new(tap, progress.clone(), log.clone());
        let outlet = Outlet::spawn("tap", items, target, sink)
            .map_err(|error| TapError::Thread(tap.to.clone(), error))?;
        self.queues.push(queue);
        self.progress.push(progress);
        self.outlets.push(outlet);
        Ok(())
    }

    /// What a reactor feeds, with the names of the forwards that are tapped; empty where
    /// none is, so that who looks for a tap finds none at the price of a comparison.
    pub fn sources(&self, reactor: u16) -> Vec<(Arc<str>, Source)> {
        if self.queues.is_empty() {
            return Vec::new();
        }
        // One budget for each target: a stopped reader of one costs no other.
        let budget = |progress: &Arc<Progress>| {
            let told_here = (reactor == 0).then(|| progress.clone());
            Arc::new(Budget::new(told_here))
        };
        let budgets: Vec<Arc<Budget>> = self.progress.iter().map(budget).collect();
        let source = |placed: &Placed| {
            let source = Source::new(
                placed.tap.clone(),
                placed.forward.clone(),
                reactor,
                self.queues[placed.queue].clone(),
                budgets[placed.queue].clone(),
            );
            (placed.forward.clone(), source)
        };
        self.forwards.iter().map(source).collect()
    }

    /// Waits until what was fed is written, as long as it goes on: a target that has
    /// taken nothing for `patience`, or that takes ten times as long in all, must not
    /// keep the process from ending. Whatever feeds must be gone already.
    pub fn finish(self, patience: Duration) {
        let Self {
            queues,
            outlets,
            progress,
            ..
        } = self;
        // A thread ends when nobody can feed it any more.
        drop(queues);
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

/// Opens the target of a tap.
fn open(tap: &Tap) -> Result<Sink, TapError> {
    let place = match &tap.to {
        TapTarget::Stderr => Place::Stderr,
        TapTarget::File(path) => Place::File(path.clone()),
    };
    let prologue = match tap.format {
        TapFormat::Pcapng => pcapng::prologue(),
        TapFormat::Hex | TapFormat::Text | TapFormat::Http => Vec::new(),
    };
    let target = outlet::Target {
        place,
        mode: tap.mode,
        needs_reader: true,
        rotate: tap.rotate,
        prologue,
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
