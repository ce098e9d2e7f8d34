//! The thread of all checks: who is due, what is on its way, what came of it.
//!
//! Each server has one moment at which it is looked at next: the start of its next
//! check, or the deadline of the one on its way. So there is never more than one
//! check of a server at a time, and a turn costs as much as there is to do.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::command::Command;
use super::connection::Connection;
use super::schedule;
use super::{CheckChange, CheckPlan, Outcome, Verdict};
use crate::balance::Random;
use crate::balance::health::{Change, Hysteresis};
use crate::config::LogLevel;
use crate::net::limits;
use crate::observe::log::Log;
use crate::observe::notice::{Kind, Notice};
use crate::observe::throttle::{self, Throttle};
use crate::relay::id::ServerId;
use crate::relay::time::Time;

/// The token of orders; servers have the numbers below.
const ORDERS: Token = Token(usize::MAX);

/// How soon what nothing announces is looked at: the end of a killed command, and of
/// any command where the kernel has no descriptors for processes (before Linux 5.3).
const LOOK: Duration = Duration::from_millis(10);

/// How long after a panic checks begin anew: one that panics each time costs no more than that.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// How long a stopping checker waits for the commands it killed.
const REAP_PATIENCE: Duration = Duration::from_millis(500);

/// What the owner tells the thread.
#[derive(Debug)]
pub(super) enum CheckOrder {
    /// Check otherwise than before.
    Change(CheckChange),
    /// End.
    Stop,
}

/// The thread's state.
pub(super) struct Checks<F> {
    poll: Poll,
    servers: BTreeMap<ServerId, Watched>,
    /// When each server is looked at next, the soonest first.
    due: BTreeSet<(Instant, ServerId)>,
    /// Commands that were killed and have not ended yet.
    dying: Vec<Command>,
    inbox: Receiver<CheckOrder>,
    log: Log,
    on_change: F,
    random: Random,
    ephemeral_ports: RangeInclusive<u16>,
    /// This host cannot check: in the log, but not for each check.
    throttle: Throttle<Kind, ServerId>,
    /// The zero of the throttle's clock.
    started: Instant,
    /// Servers without an answer so far, for the owner.
    unproven: Arc<AtomicUsize>,
}

struct Watched {
    plan: CheckPlan,
    health: Hysteresis,
    /// Its entry in [`Checks::due`].
    due: Instant,
    probe: Option<Probe>,
}

/// A check on its way.
struct Probe {
    began: Instant,
    means: Means,
}

enum Means {
    Connection(Connection),
    Command(Command),
}

impl Means {
    fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Connection(connection) => Some(connection.descriptor()),
            Self::Command(command) => command.descriptor(),
        }
    }

    fn advance(&mut self) -> Option<Outcome> {
        match self {
            Self::Connection(connection) => connection.advance(),
            Self::Command(command) => command.advance(),
        }
    }

    fn timed_out(&self) -> Outcome {
        match self {
            Self::Connection(connection) => connection.timed_out(),
            Self::Command(_) => Outcome::Failed("command ran too long".to_owned()),
        }
    }
}

impl<F: Fn(ServerId, Verdict)> Checks<F> {
    /// Everything that can fail is done here, on the owner's thread.
    pub(super) fn new(
        plans: Vec<CheckPlan>,
        inbox: Receiver<CheckOrder>,
        log: Log,
        on_change: F,
    ) -> io::Result<(Self, Waker)> {
        let started = Instant::now();
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), ORDERS)?;
        let mut checks = Self {
            poll,
            servers: BTreeMap::new(),
            due: BTreeSet::new(),
            dying: Vec::new(),
            inbox,
            log,
            on_change,
            random: Random::new(seed()),
            ephemeral_ports: limits::ephemeral_ports(),
            throttle: Throttle::new(throttle::INTERVAL),
            started,
            unproven: Arc::default(),
        };
        checks.adopt(plans, started);
        Ok((checks, waker))
    }

    /// How many servers have not been checked so far.
    pub(super) fn unproven(&self) -> Arc<AtomicUsize> {
        self.unproven.clone()
    }

    /// Until the owner stops it. After a panic it begins anew with what is known of each
    /// server.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        let log = self.log.clone();
        loop {
            match log.guard("checks", || self.turn(&mut events)) {
                Some(true) => {}
                Some(false) => return,
                None => self.begin_anew(Instant::now()),
            }
        }
    }

    /// `false`: it is over.
    fn turn(&mut self, events: &mut Events) -> bool {
        match self.poll.poll(events, self.patience(Instant::now())) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) => {
                // Fails only on misuse; going on would be to spin.
                self.log.notice(Notice::ChecksStop { error });
                return false;
            }
        }
        let now = Instant::now();
        for event in &*events {
            // Events of a check that is over find the next one, or none: a look
            // too many does no harm.
            if event.token() != ORDERS {
                self.advance(ServerId::new(event.token().0 as u32), now);
            }
        }
        self.look(now);
        self.keep_time(now);
        let goes_on = self.obey(now);
        if !goes_on {
            self.stop();
        }
        goes_on
    }

    /// Drops every check that is on its way, one of which panicked, and begins the next soon.
    fn begin_anew(&mut self, now: Instant) {
        self.due.clear();
        let ids: Vec<ServerId> = self.servers.keys().copied().collect();
        for id in ids {
            let Some(server) = self.servers.get_mut(&id) else {
                continue;
            };
            server.due = now + AFTER_PANIC;
            self.due.insert((server.due, id));
            if let Some(probe) = server.probe.take() {
                self.discard(probe);
            }
        }
    }

    /// Ends what is on its way. All commands are killed before the first is waited
    /// for; one in an uninterruptible call is left to this process's own end.
    fn stop(&mut self) {
        for id in self.servers.keys().copied().collect::<Vec<_>>() {
            self.forget(id);
        }
        let deadline = Instant::now() + REAP_PATIENCE;
        while !self.dying.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
            self.bury();
        }
    }

    /// How long nothing is to be done.
    fn patience(&self, now: Instant) -> Option<Duration> {
        let next = self.due.first();
        let patience = next.map(|(due, _)| due.saturating_duration_since(now));
        if self.dying.is_empty() && self.unwatched().next().is_none() {
            patience
        } else {
            Some(patience.map_or(LOOK, |patience| patience.min(LOOK)))
        }
    }

    /// Commands whose end nothing announces.
    fn unwatched(&self) -> impl Iterator<Item = ServerId> {
        let servers = self.servers.iter();
        servers.filter_map(|(id, server)| {
            let means = &server.probe.as_ref()?.means;
            means.descriptor().is_none().then_some(*id)
        })
    }

    /// Reaps what has ended of the killed commands.
    fn bury(&mut self) {
        self.dying.retain_mut(|command| {
            command.reap();
            !command.is_reaped()
        });
    }

    fn look(&mut self, now: Instant) {
        self.bury();
        let unwatched: Vec<ServerId> = self.unwatched().collect();
        for id in unwatched {
            self.advance(id, now);
        }
    }

    /// Starts the checks that are due and ends those whose time is over.
    fn keep_time(&mut self, now: Instant) {
        while let Some((due, id)) = self.due.first().copied()
            && due <= now
        {
            let Some(server) = self.servers.get_mut(&id) else {
                self.due.remove(&(due, id));
                continue;
            };
            if server.probe.is_none() {
                self.begin(id, now);
                continue;
            }
            // The answer may have come together with the deadline.
            self.advance(id, now);
            let Some(server) = self.servers.get_mut(&id) else {
                continue;
            };
            if let Some(probe) = &server.probe
                && server.due <= now
            {
                let outcome = probe.means.timed_out();
                self.conclude(id, &outcome, now);
            }
        }
    }

    fn begin(&mut self, id: ServerId, now: Instant) {
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        let plan = &server.plan;
        if plan
            .while_used
            .as_ref()
            .is_some_and(|it| it.0.active() == 0)
        {
            return self.forget(id);
        }
        let means = match plan.argv() {
            Some(argv) => Command::start(argv, &plan.endpoint).map(Means::Command),
            None => Connection::open(plan, &self.ephemeral_ports, &mut self.random)
                .map(Means::Connection),
        };
        let deadline = now + plan.check.timeout;
        let means = match means {
            Ok(means) => means,
            Err(outcome) => {
                server.probe = None;
                return self.finish(id, now, &outcome, now);
            }
        };
        let registered = means.descriptor().map_or(Ok(()), |descriptor| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            let token = Token(id.number() as usize);
            let registry = self.poll.registry();
            registry.register(&mut SourceFd(&descriptor), token, interest)
        });
        server.probe = Some(Probe { began: now, means });
        self.set_due(id, deadline);
        match registered {
            // What is done already raises no event (unix sockets).
            Ok(()) => self.advance(id, now),
            Err(error) => {
                let outcome = Outcome::Unable(format!("cannot wait for it: {error}"));
                self.conclude(id, &outcome, now);
            }
        }
    }

    fn advance(&mut self, id: ServerId, now: Instant) {
        let server = self.servers.get_mut(&id);
        let probe = server.and_then(|server| server.probe.as_mut());
        if let Some(outcome) = probe.and_then(|probe| probe.means.advance()) {
            self.conclude(id, &outcome, now);
        }
    }

    /// Ends the check on its way.
    fn conclude(&mut self, id: ServerId, outcome: &Outcome, now: Instant) {
        let server = self.servers.get_mut(&id);
        if let Some(probe) = server.and_then(|server| server.probe.take()) {
            let began = probe.began;
            self.discard(probe);
            self.finish(id, began, outcome, now);
        }
    }

    /// Closes what a check held. A command is killed, and its end not waited for.
    fn discard(&mut self, probe: Probe) {
        if let Some(descriptor) = probe.means.descriptor() {
            // Closing it would do; this leaves nothing to the order of things.
            let _ = self.poll.registry().deregister(&mut SourceFd(&descriptor));
        }
        if let Means::Command(mut command) = probe.means {
            command.kill();
            command.reap();
            if !command.is_reaped() {
                self.dying.push(command);
            }
        }
    }

    /// Counts an outcome, says so if it changes the server's side, and sets the time
    /// of the next check.
    fn finish(&mut self, id: ServerId, began: Instant, outcome: &Outcome, now: Instant) {
        let lot = self.random.draw();
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        let was_unproven = server.health.is_unproven();
        let verdict = match outcome {
            Outcome::Unable(reason) => {
                let kind = Kind::CheckImpossible;
                let at = Time::ZERO + now.duration_since(self.started);
                if let Some(suppressed) = self.throttle.pass(kind, id, at) {
                    let notice = Notice::CheckImpossible {
                        server: server.plan.name(),
                        reason: reason.clone(),
                    };
                    self.log.notice_after(suppressed, notice);
                }
                None
            }
            outcome => server.count(outcome, &self.log),
        };
        if let Some(server) = self.servers.get(&id) {
            let delay = schedule::next_delay(&server.plan.check, &server.health, lot);
            if let Some(verdict) = verdict {
                server.announce(&verdict, &self.log);
                (self.on_change)(id, verdict);
            }
            // Once the owner knows.
            if was_unproven && !server.health.is_unproven() {
                self.unproven.fetch_sub(1, Ordering::Relaxed);
            }
            self.set_due(id, (began + delay).max(now));
        }
    }

    fn set_due(&mut self, id: ServerId, due: Instant) {
        if let Some(server) = self.servers.get_mut(&id) {
            self.due.remove(&(server.due, id));
            server.due = due;
            self.due.insert((due, id));
        }
    }

    /// Follows orders; whether to go on.
    fn obey(&mut self, now: Instant) -> bool {
        let orders: Vec<CheckOrder> = self.inbox.try_iter().collect();
        if orders.iter().any(|order| matches!(order, CheckOrder::Stop)) {
            return false;
        }
        for order in orders {
            if let CheckOrder::Change(change) = order {
                for id in change.gone {
                    self.release(id);
                }
                self.adopt(change.plans, now);
            }
        }
        true
    }

    /// Checks these as well, or otherwise than before.
    fn adopt(&mut self, plans: Vec<CheckPlan>, now: Instant) {
        let new = |plan: &CheckPlan| !self.servers.contains_key(&plan.id);
        let (new, known): (Vec<_>, Vec<_>) = plans.into_iter().partition(new);
        let count = new.len();
        for (index, plan) in new.into_iter().enumerate() {
            let due = now + schedule::first_delay(&plan.check, index, count);
            let id = plan.id;
            let server = Watched {
                health: if plan.down {
                    Hysteresis::down(plan.check.rise, plan.check.fall)
                } else {
                    Hysteresis::new(plan.check.rise, plan.check.fall)
                },
                plan,
                due,
                probe: None,
            };
            // Of two plans with one number the later one counts.
            self.forget(id);
            if server.health.is_unproven() {
                self.unproven.fetch_add(1, Ordering::Relaxed);
            }
            self.servers.insert(id, server);
            self.due.insert((due, id));
        }
        for plan in known {
            self.replace(plan, now);
        }
    }

    /// A known server with another plan: what is on its way is of no use any more, and
    /// it is asked anew at once.
    fn replace(&mut self, mut plan: CheckPlan, now: Instant) {
        let id = plan.id;
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        // What checks found is known here.
        plan.down = server.plan.down;
        if server.plan == plan {
            return;
        }
        server.health.set_counts(plan.check.rise, plan.check.fall);
        server.plan = plan;
        if let Some(probe) = server.probe.take() {
            self.discard(probe);
        }
        self.set_due(id, now);
    }

    /// A server is checked no more. If it was down, its owner is told, for nobody will say
    /// otherwise any more.
    fn release(&mut self, id: ServerId) {
        let was_down = self.servers.get(&id).is_some_and(|it| !it.health.is_up());
        self.forget(id);
        if was_down {
            let verdict = Verdict {
                change: Change::Up,
                reason: "checked no more".to_owned(),
                released: true,
            };
            (self.on_change)(id, verdict);
        }
    }

    fn forget(&mut self, id: ServerId) {
        if let Some(server) = self.servers.remove(&id) {
            if server.health.is_unproven() {
                self.unproven.fetch_sub(1, Ordering::Relaxed);
            }
            self.due.remove(&(server.due, id));
            if let Some(probe) = server.probe {
                self.discard(probe);
            }
        }
    }
}

impl Watched {
    /// Counts an answer; the verdict if it changes sides.
    fn count(&mut self, outcome: &Outcome, log: &Log) -> Option<Verdict> {
        let check = &self.plan.check;
        let before = self.health;
        let change = self.health.answer(*outcome == Outcome::Passed);
        if let Outcome::Failed(reason) = outcome
            && change.is_none()
            && log.enabled(LogLevel::Debug)
        {
            log.notice(Notice::CheckFailed {
                server: self.plan.name(),
                reason: reason.clone(),
            });
        }
        // The answer that changed sides ended the row.
        let in_a_row = before.against() + 1;
        let reason = match (change?, outcome) {
            (Change::Down, Outcome::Failed(reason) | Outcome::Unable(reason)) => {
                if in_a_row < check.fall {
                    format!("{reason}, the first check failed")
                } else {
                    format!("{reason}, {in_a_row} of {} checks failed", check.fall)
                }
            }
            (_, _) => format!("{in_a_row} of {} checks passed", check.rise),
        };
        Some(Verdict {
            change: change?,
            reason,
            released: false,
        })
    }

    fn announce(&self, verdict: &Verdict, log: &Log) {
        let (server, reason) = (self.plan.name(), verdict.reason.clone());
        log.notice(match verdict.change {
            Change::Up => Notice::ServerUp { server, reason },
            Change::Down => Notice::ServerDown { server, reason },
        });
    }
}

/// Different in each process and for each checker, so that forwarders that start
/// together do not check together.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one("checks")
}
