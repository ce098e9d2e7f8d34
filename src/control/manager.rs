//! What a service manager is told, and when: sd_notify(3).
//!
//! ```text
//! start ─► READY=1 ─► RELOADING=1 ─► READY=1 … ─► STOPPING=1, EXTEND_TIMEOUT_USEC …
//!                  └► WATCHDOG=1 while every reactor turns
//!                  └► MAINPID=N, BARRIER=1: another process is this service from now on
//! ```
//! Only control's thread speaks to it. Nothing of this exists where no manager is.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::net::notify::{Notify, ServiceEnvironment, monotonic_micros};
use crate::observe::log::Log;
use crate::observe::notice::Notice;

use super::held::Held;
use super::wire::{Order, Pending, Wire};

/// How long the first answers of names and checks are waited for before it is ready.
const READY_PATIENCE: Duration = Duration::from_secs(5);

/// Between looks at whether it is ready.
const READY_LOOK: Duration = Duration::from_millis(20);

/// How much longer a drain is said to take, and how often.
const EXTENSION: Duration = Duration::from_secs(30);
const EXTEND_EVERY: Duration = Duration::from_secs(10);

/// How long the end of what is kept may take to be heeded.
const FORGET_PATIENCE: Duration = Duration::from_millis(100);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Manager {
    notify: Option<Notify>,
    watchdog: Option<Watchdog>,
    /// Descriptors that it keeps at the most.
    keeps: usize,
    /// Those that it keeps, by name.
    kept: BTreeMap<String, usize>,
    /// Until it is ready: by when it is at the latest.
    ready_by: Option<Instant>,
    is_reloading: bool,
    /// While it drains.
    extend_at: Option<Instant>,
    complaint: Option<String>,
}

/// Signs of life, as long as every reactor gives one.
#[derive(Debug)]
struct Watchdog {
    every: Duration,
    next: Instant,
    /// What each reactor was asked to do, and has not done so far.
    asked: Vec<Pending>,
}

impl Manager {
    /// The one that the environment of this process names, if any.
    pub fn from_environment() -> Self {
        let found = ServiceEnvironment::read();
        let watchdog = found.watchdog.map(|every| Watchdog {
            // It wants one in `every`; of two that are lost or late the next still counts.
            every: every / 4,
            next: Instant::now(),
            asked: Vec::new(),
        });
        Self {
            notify: found.notify,
            watchdog,
            keeps: found.keeps,
            complaint: found.complaint,
            ..Self::default()
        }
    }

    fn tell(&self, message: &str) {
        if let Some(notify) = &self.notify {
            notify.tell(message);
        }
    }

    /// These it had kept while no process had them, one name for each socket.
    pub(super) fn had_kept(&mut self, names: impl Iterator<Item = String>) {
        for name in names {
            *self.kept.entry(name).or_default() += 1;
        }
    }

    /// The start has begun, or has not come to anything.
    pub(super) fn starting(&mut self, log: &Log) {
        if let Some(complaint) = self.complaint.take() {
            log.notice(Notice::ServiceManager { complaint });
        }
    }

    /// It has failed.
    pub(super) fn failed(&self, error: &impl std::fmt::Display) {
        self.tell(&format!("STATUS={}", one_line(&error.to_string())));
    }

    /// Every listener accepts; what is not known so far is waited for.
    pub(super) fn begun(&mut self) {
        self.ready_by = Some(Instant::now() + READY_PATIENCE);
    }

    /// When it wants to be looked after next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.notify.as_ref()?;
        let ready = self.ready_by.map(|_| Instant::now() + READY_LOOK);
        let watchdog = self.watchdog.as_ref().map(|it| it.next);
        [ready, watchdog, self.extend_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Says that it is ready once it is; `known`: names and checks have had their first
    /// answers.
    pub(super) fn ready_if(
        &mut self,
        known: impl FnOnce() -> bool,
        status: impl FnOnce() -> String,
    ) {
        let Some(by) = self.ready_by else { return };
        if self.notify.is_none() {
            self.ready_by = None;
        } else if known() || by <= Instant::now() {
            self.ready_by = None;
            self.ready(&status());
        }
    }

    fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// A reload has begun; [`Self::reloaded`] follows whatever comes of it.
    pub(super) fn reloading(&mut self) {
        self.is_reloading = true;
        let now = monotonic_micros();
        self.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reading the configuration again"
        ));
    }

    /// The last one that was asked for is over.
    pub(super) fn reloaded(&mut self, status: impl FnOnce() -> String) {
        if std::mem::take(&mut self.is_reloading) && self.notify.is_some() {
            // It was ready before, or is now.
            self.ready_by = None;
            self.ready(&status());
        }
    }

    /// It ends, and takes its time.
    pub(super) fn stopping(&mut self, sessions: u64) {
        self.say_stopping(&format!("draining, {sessions} sessions"));
        self.forget_all();
    }

    /// It will end, and lets clients in for a while yet.
    pub(super) fn lingering(&mut self) {
        self.say_stopping("lets clients in for a while yet, and will end");
    }

    fn say_stopping(&mut self, status: &str) {
        self.ready_by = None;
        self.extend_at = Some(Instant::now() + EXTEND_EVERY);
        self.tell(&format!("STOPPING=1\n{}\nSTATUS={status}", extension()));
    }

    /// Nobody serves what is kept any more: who connects is to be refused, not to wait.
    fn forget_all(&mut self) {
        let names = std::mem::take(&mut self.kept);
        if let Some(notify) = self.notify.as_ref().filter(|_| !names.is_empty()) {
            for name in names.keys() {
                notify.forget(name);
            }
            notify.barrier(FORGET_PATIENCE);
        }
    }

    /// Gives the signs of life that are due, and takes more time if it drains.
    pub(super) fn look_after(&mut self, reactors: impl Iterator<Item = Wire>) {
        let now = Instant::now();
        if self.extend_at.is_some_and(|at| at <= now) {
            self.extend_at = Some(now + EXTEND_EVERY);
            self.tell(&extension());
        }
        let (Some(notify), Some(watchdog)) = (&self.notify, &mut self.watchdog) else {
            return;
        };
        if watchdog.next > now {
            return;
        }
        watchdog.next = now + watchdog.every;
        // What was carried out, or has nobody left to do so.
        watchdog.asked.retain(|asked| !asked.is_done_by(now));
        if watchdog.asked.is_empty() {
            notify.tell("WATCHDOG=1");
            let ask = |wire: Wire| wire.send(Order::Publish);
            watchdog.asked = reactors.map(ask).collect();
        }
    }

    /// Has listeners kept that would be lost with this process, and those forgotten that
    /// are there no more.
    pub(super) fn keep(&mut self, held: &Held, log: &Log) {
        let Some(notify) = &self.notify else {
            return;
        };
        if self.keeps == 0 && self.kept.is_empty() {
            return;
        }
        let mut wanted: HashMap<String, Vec<BorrowedFd<'_>>> = HashMap::new();
        for listener in held.listeners.values() {
            let sockets: Vec<_> = listener.own_sockets().map(AsFd::as_fd).collect();
            if let Some(name) = listener.label().kept_as().filter(|_| !sockets.is_empty()) {
                wanted.insert(name, sockets);
            }
        }
        self.kept.retain(|name, _| {
            let stays = wanted.contains_key(name);
            if !stays {
                notify.forget(name);
            }
            stays
        });
        if self.keeps == 0 {
            return;
        }
        let mut room = self.keeps.saturating_sub(self.kept.values().sum());
        let mut left = 0;
        for (name, sockets) in wanted {
            let known = self.kept.get(&name).copied().unwrap_or(0);
            let more = sockets.len().saturating_sub(known);
            if more == 0 {
                continue;
            }
            // What it has already it recognises.
            if more <= room && notify.keep(&name, &sockets) {
                room -= more;
                self.kept.insert(name, sockets.len());
            } else {
                left += more;
            }
        }
        if left > 0 {
            log.notice(Notice::ListenersNotKept {
                sockets: left,
                room: self.keeps,
            });
        }
    }

    /// What another process has no use for is kept no more.
    pub(super) fn keep_no_more(&mut self, names: impl Iterator<Item = String>) {
        for name in names {
            let was_kept = self.kept.remove(&name).is_some();
            if let Some(notify) = self.notify.as_ref().filter(|_| was_kept) {
                notify.forget(&name);
            }
        }
    }

    /// Another process is this service from now on: it is told so, and has heeded it when
    /// this returns. Nothing is told after that but by that one.
    pub fn hand_over_to(&mut self, process: u32, patience: Duration) -> bool {
        let Some(notify) = self.notify.take() else {
            return true;
        };
        self.watchdog = None;
        notify.tell(&format!("MAINPID={process}")) && notify.barrier(patience)
    }
}

fn extension() -> String {
    format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros())
}

/// A message is of lines.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
