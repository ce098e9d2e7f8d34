//! What a service manager is told, and when: sd_notify(3).
//!
//! ```text
//! start ─► READY=1 ─► RELOADING=1 ─► READY=1 … ─► STOPPING=1, EXTEND_TIMEOUT_USEC …
//!                  └► WATCHDOG=1 while every reactor turns
//!                  └► MAINPID=N, BARRIER=1: another process is this service from now on
//! ```
//! Only control's thread speaks to it. Nothing of this exists where no manager is. One that heeds
//! the main process alone (`NotifyAccess=main`) would refuse whatever an upgrade's new process
//! says before that, and close what it is to keep: so that one stands by until the former one
//! has told who is the service, and has passed a barrier behind it.

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
    /// It does not heed this process so far.
    stands_by: bool,
    watchdog: Option<Watchdog>,
    /// Descriptors that it keeps at the most.
    keeps: usize,
    /// Listeners that it keeps, by name.
    kept: BTreeMap<String, usize>,
    /// What it keeps beside them, by name.
    beside: BTreeMap<String, usize>,
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
        if let Some(notify) = self.heeds() {
            notify.tell(message);
        }
    }

    /// Who heeds what this process says.
    fn heeds(&self) -> Option<&Notify> {
        self.notify.as_ref().filter(|_| !self.stands_by)
    }

    /// Another process is the service until [`Self::begun`]: nothing is said before that.
    pub(super) const fn stand_by(&mut self) {
        self.stands_by = self.notify.is_some();
    }

    /// Whether this process is the service, as far as anybody wants to know.
    pub(super) const fn is_heeded(&self) -> bool {
        !self.stands_by
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

    /// Every listener accepts, and this process is the service; what is not known so far is
    /// waited for.
    pub(super) fn begun(&mut self) {
        self.stands_by = false;
        self.ready_by = Some(Instant::now() + READY_PATIENCE);
    }

    /// When it wants to be looked after next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.heeds()?;
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
        if self.heeds().is_none() {
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
        if std::mem::take(&mut self.is_reloading) && self.heeds().is_some() {
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
        let mut names = std::mem::take(&mut self.kept);
        names.append(&mut self.beside);
        if let Some(notify) = self.heeds().filter(|_| !names.is_empty()) {
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
        if self.stands_by {
            return;
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
        let Some(notify) = self.notify.as_ref().filter(|_| !self.stands_by) else {
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
        let mut room = self.room();
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

    /// Descriptors that it keeps at the most.
    pub(super) const fn keeps(&self) -> usize {
        match self.notify {
            Some(_) => self.keeps,
            None => 0,
        }
    }

    fn room(&self) -> usize {
        let kept: usize = self.kept.values().chain(self.beside.values()).sum();
        self.keeps().saturating_sub(kept)
    }

    /// Whether there is room for so many descriptors beside listeners; a quarter of it is left
    /// for listeners to come.
    pub(super) fn has_room_beside(&self, descriptors: usize) -> bool {
        descriptors <= self.room().saturating_sub(self.keeps / 4)
    }

    /// Has something kept beside listeners.
    pub(super) fn keep_beside(&mut self, name: String, descriptors: &[BorrowedFd<'_>]) -> bool {
        let has_room = self.has_room_beside(descriptors.len());
        let Some(notify) = self.heeds().filter(|_| has_room) else {
            return false;
        };
        let is_kept = notify.keep(&name, descriptors);
        if is_kept {
            self.beside.insert(name, descriptors.len());
        }
        is_kept
    }

    /// That was kept by the process before, so many of that name.
    pub(super) fn had_beside(&mut self, name: String, count: usize) {
        self.beside.insert(name, count);
    }

    /// It is kept no more.
    pub(super) fn forget_beside(&mut self, name: &str) {
        let was_kept = self.beside.remove(name).is_some();
        if let Some(notify) = self.heeds().filter(|_| was_kept) {
            notify.forget(name);
        }
    }

    /// Likewise all of that, but for these names.
    pub(super) fn forget_beside_but(&mut self, stays: impl Fn(&str) -> bool) {
        let notify = self.notify.as_ref().filter(|_| !self.stands_by);
        self.beside.retain(|name, _| {
            let stays = stays(name);
            if let Some(notify) = notify.filter(|_| !stays) {
                notify.forget(name);
            }
            stays
        });
    }

    /// What another process has no use for is kept no more.
    pub(super) fn keep_no_more(&mut self, names: impl Iterator<Item = String>) {
        for name in names {
            let was_kept = self.kept.remove(&name).is_some();
            if let Some(notify) = self.heeds().filter(|_| was_kept) {
                notify.forget(&name);
            }
        }
    }

    /// Another process is this service from now on: it is told so, and has heeded it when
    /// this returns. Nothing is told after that but by that one. One that was started as another
    /// service is that one's main process already, and would be of both.
    pub fn hand_over_to(&mut self, process: u32, patience: Duration) -> bool {
        let heeds = !self.stands_by;
        let Some(notify) = self.notify.take().filter(|_| heeds) else {
            return true;
        };
        self.watchdog = None;
        if !is_of_this_service(process) {
            return true;
        }
        notify.tell(&format!("MAINPID={process}")) && notify.barrier(patience)
    }
}

/// Whether a process is in the control groups of this one: a service manager has one for each
/// service. Where they cannot be read it is.
fn is_of_this_service(process: u32) -> bool {
    let groups = |process: &str| std::fs::read_to_string(format!("/proc/{process}/cgroup"));
    match (groups("self"), groups(&process.to_string())) {
        (Ok(own), Ok(others)) => own == others,
        _ => true,
    }
}

fn extension() -> String {
    format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros())
}

/// A message is of lines.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
