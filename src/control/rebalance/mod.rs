//! `rebalance = "auto"`: a reactor that is busy gives sessions that run to one that is not.
//!
//! ```text
//!  every LOOK: CPU of each reactor ─► plan ─► a walk over its sessions, and another ─► choose
//!                                                                                        │
//!   busy one: release_these ─► its own thread ─► TakeBack to the idle one ◄──────────────┘
//!                                                    │ refused, or it has ended
//!                                                    └─► back to where it came from
//! ```
//! It is done by control's thread, so never while a reload or an upgrade is carried out; they
//! wait for sessions that are on their way. Nobody waits here: what reactors have to say comes
//! by channels that the next look empties. With `busy_poll` all reactors are equally busy, and
//! nothing is moved.

mod plan;
pub(super) mod state;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::config;
use crate::engine::SessionKey;
use crate::observe::notice::Notice;
use crate::reactor::inspect::{Depth, SessionFilter};
use crate::reactor::{MovedSession, Release, Released};

use super::running::Running;
use super::wire::Order;
use plan::{LOOK, Load, Relief};
use state::{Moving, Walk, Walked};

/// A session that was moved stays where it is for so long.
const STAYS: Duration = Duration::from_secs(10);

/// How long sessions that are on their way are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

impl Running {
    fn rebalances(&self) -> bool {
        self.config.global.rebalance == config::Rebalance::Auto && self.active.len() > 1
    }

    /// When it is looked again.
    pub(super) fn rebalance_due(&self) -> Option<Instant> {
        let due = || self.rebalancing.due.unwrap_or_else(Instant::now);
        self.rebalances().then(due)
    }

    /// Looks, if it is time.
    pub(super) fn rebalance(&mut self) {
        let now = Instant::now();
        if !self.rebalances() || self.rebalancing.due.is_some_and(|due| due > now) {
            return;
        }
        self.rebalancing.due = Some(now + LOOK);
        if self.rebalancing.moving.is_some() {
            return self.hear_of_moves(Duration::ZERO);
        }
        let loads = self.loads(now);
        let Some(relief) = self.rebalancing.hysteresis.look(&loads) else {
            self.rebalancing.walk = None;
            return;
        };
        let walk = self.rebalancing.walk.take();
        let Some(mut walk) = walk.filter(|it| it.from == relief.from) else {
            self.rebalancing.walk = self.walk(relief.from, None);
            return;
        };
        let Ok(walked) = walk.answer.try_recv() else {
            // It is busy, or its sessions are many.
            self.rebalancing.walk = Some(walk);
            return;
        };
        match walk.first.take() {
            None => self.rebalancing.walk = self.walk(relief.from, Some(walked)),
            Some(first) => self.give(relief, &first, &walked),
        }
    }

    /// How busy each reactor has been since the last look.
    fn loads(&mut self, now: Instant) -> Vec<Load> {
        let active = self.active.iter();
        let used = active.filter_map(|it| Some((*it, cpu_of(self.reactors.get(it)?.thread_id())?)));
        let used: BTreeMap<u16, Duration> = used.collect();
        let before = self.rebalancing.before.replace((now, used.clone()));
        let Some((at, before)) = before else {
            return Vec::new();
        };
        let passed = now.duration_since(at).as_secs_f64().max(1e-3);
        let load = |(reactor, used): (u16, Duration)| {
            let before = before.get(&reactor)?;
            Some(Load {
                reactor,
                busy: used.saturating_sub(*before).as_secs_f64() / passed,
            })
        };
        used.into_iter().filter_map(load).collect()
    }

    /// Has the sessions of a reactor looked at, a slice in each turn.
    fn walk(&self, from: u16, first: Option<Walked>) -> Option<Walk> {
        let wire = self.reactors.get(&from)?.wire();
        let (told, answer) = channel();
        let (mut from_slot, mut walked) = (0, Walked::new());
        wire.visit(Box::new(move |reactor| {
            let slice = reactor.sessions(from_slot, &SessionFilter::default(), Depth::Known);
            walked.extend(slice.items.iter().map(|it| {
                let bytes = it.lanes.iter().map(|lane| lane.bytes).sum();
                (it.key, (it.reactor, it.id), bytes)
            }));
            if let Some(next) = slice.next {
                from_slot = next;
                return ControlFlow::Continue(());
            }
            // Nobody waits for it when it is even by now.
            let _ = told.send(std::mem::take(&mut walked));
            ControlFlow::Break(())
        }));
        Some(Walk {
            from,
            answer,
            first,
        })
    }

    /// Chooses by what sessions moved between two walks, and has them moved.
    fn give(&mut self, relief: Relief, first: &Walked, then: &Walked) {
        self.rebalancing.hysteresis.pause();
        let now = Instant::now();
        self.rebalancing
            .moved
            .retain(|_, at| now.duration_since(*at) < STAYS);
        let first: HashMap<(u16, u64), u64> = first.iter().map(|it| (it.1, it.2)).collect();
        let between = then.iter().map(|(key, id, bytes)| {
            let before = first.get(id).copied().unwrap_or(*bytes);
            ((*key, *id), bytes.saturating_sub(before))
        });
        let mut chosen = plan::choose(between.collect(), relief.share);
        chosen.retain(|(_, id)| !self.rebalancing.moved.contains_key(id));
        let reactors = (
            self.reactors.get(&relief.from),
            self.reactors.get(&relief.to),
        );
        let (Some(from), Some(to)) = reactors else {
            return;
        };
        if chosen.is_empty() {
            return;
        }
        let ids: HashSet<(u16, u64)> = chosen.iter().map(|(_, id)| *id).collect();
        let (told, answer) = channel();
        let (here, there) = (from.wire(), to.wire());
        let reply = Box::new(move |released: Released<_>| {
            let back = told.clone();
            let order = Order::TakeBack(released.moved, told);
            // One that has ended takes nobody in.
            if let Err(order) = there.try_send(order)
                && let Order::TakeBack(moved, _) = *order
            {
                here.send(Order::TakeBack(moved, back)).forget();
            }
        });
        let keys: Vec<SessionKey> = chosen.into_iter().map(|(key, _)| key).collect();
        let release = Release {
            at_most: keys.len(),
            reply,
        };
        from.send(Order::ReleaseThese(keys, release)).forget();
        self.rebalancing
            .moved
            .extend(ids.into_iter().map(|id| (id, now)));
        self.rebalancing.moving = Some(Moving { relief, answer });
    }

    /// Whether sessions have arrived; waits for so long.
    fn hear_of_moves(&mut self, patience: Duration) {
        let Some(moving) = &self.rebalancing.moving else {
            return;
        };
        let Ok(adopted) = moving.answer.recv_timeout(patience) else {
            return;
        };
        let Relief { from, to, .. } = moving.relief;
        self.rebalancing.moving = None;
        if adopted.taken > 0 {
            self.log.notice(Notice::Rebalanced {
                sessions: adopted.taken,
                from,
                to,
            });
        }
        // Whoever was not taken in is where it was, or with anybody.
        let refused: Vec<MovedSession> = adopted.refused.into_iter().map(|it| it.0).collect();
        if !refused.is_empty() {
            self.take_back(refused);
        }
    }

    /// Sessions that are on their way arrive, before reactors leave or are asked for theirs.
    pub(super) fn let_moves_arrive(&mut self) {
        self.rebalancing.walk = None;
        self.hear_of_moves(PATIENCE);
    }
}

/// What a thread of this process has used of CPUs.
fn cpu_of(thread: Pid) -> Option<Duration> {
    // As clock_getcpuclockid(3) and the kernel's posix-timers.h make them: the complement of
    // the thread's number above the bits of "one thread" (4) and "as scheduled" (2).
    let clock = ClockId::from_raw((!thread.as_raw() << 3) | 6);
    clock_gettime(clock).ok().map(Duration::from)
}
