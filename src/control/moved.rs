//! Sessions that leave this process for the next one, and those that come from the one
//! before: what control's thread has to do with them.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::engine::Detached;
use crate::observe::notice::Notice;
use crate::reactor::{Arrival, Berths, MovedSession, Release};

use super::running::Running;
use super::upgrade::order::{HandOver, Upgrading};
use super::wire::Order;

/// How long reactors may take to let sessions go: some microseconds each, unless the
/// machine is busy with other things.
const RELEASE_PATIENCE: Duration = Duration::from_secs(30);

/// Sessions that a reactor takes in at once: it does nothing else meanwhile.
const AT_ONCE: usize = 64;

impl Running {
    /// What a hand-over asks for about sessions.
    pub(super) fn move_sessions(&self, order: HandOver) {
        match order {
            HandOver::Stay(sessions) => self.take_back(sessions),
            HandOver::More(reply) => {
                let takes = matches!(&self.upgrading, Upgrading::Left(it) if it.sessions);
                let more = (takes && !self.reactors.is_empty()).then(|| self.release(true).0);
                if let Err(unheard) = reply.send(more) {
                    self.take_back(unheard.0.unwrap_or_default());
                }
            }
            HandOver::Berths(reply) => {
                let _ = reply.send(self.berths());
            }
            HandOver::Arrived(sessions) => {
                self.arrived(sessions);
            }
            HandOver::Begin(..)
            | HandOver::Freeze(..)
            | HandOver::Resume(_)
            | HandOver::Leave(_) => {}
        }
    }

    /// Has all reactors let their sessions go, if they are to; and the highest number that a
    /// session has had.
    pub(super) fn release(&self, sessions: bool) -> (Vec<MovedSession>, u64) {
        let (told, released) = channel();
        for reactor in self.reactors.values() {
            let told = told.clone();
            let release = Release {
                at_most: if sessions { usize::MAX } else { 0 },
                reply: Box::new(move |released| {
                    let _ = told.send(released);
                }),
            };
            reactor.send(Order::Release(release)).forget();
        }
        drop(told);
        let (mut moved, mut last) = (Vec::new(), 0);
        let deadline = Instant::now() + RELEASE_PATIENCE;
        // Ends when every reactor has answered, or is no more.
        while let Ok(released) =
            released.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            moved.extend(released.moved);
            last = last.max(released.last_id);
        }
        (moved, last)
    }

    /// Sessions go on here.
    pub(super) fn take_back(&self, sessions: Vec<MovedSession>) {
        let mut sessions = sessions.into_iter().peekable();
        let (told, taken) = channel();
        let mut reactors = self.reactors.values().cycle();
        while sessions.peek().is_some() {
            let Some(reactor) = reactors.next() else {
                return;
            };
            let some = sessions.by_ref().take(AT_ONCE).collect();
            reactor.send(Order::TakeBack(some, told.clone())).forget();
        }
        drop(told);
        let lost: usize = taken.iter().map(|it| it.refused.len()).sum();
        self.tell_lost(lost);
    }

    /// Where sessions of the process before belong.
    pub(super) fn berths(&self) -> Berths {
        let listeners = self.held.listeners.values();
        let sockets = listeners.flat_map(|it| &it.sockets).map(|it| it.at.clone());
        Berths::new(sockets, self.upstreams.sets())
    }

    /// Sessions of the process before go on here, spread over the reactors; how many.
    pub(super) fn arrived(&self, sessions: Vec<Arrival<Detached>>) -> u64 {
        let mut sessions = sessions.into_iter().peekable();
        let (told, taken) = channel();
        let active = self.active.iter().filter_map(|it| self.reactors.get(it));
        let mut reactors = active.cycle();
        while sessions.peek().is_some() {
            let Some(reactor) = reactors.next() else {
                return 0;
            };
            let some = sessions.by_ref().take(AT_ONCE).collect();
            reactor
                .send(Order::AdoptSessions(some, told.clone()))
                .forget();
        }
        drop(told);
        let (mut adopted, mut lost) = (0, 0);
        for it in taken {
            adopted += it.taken as u64;
            lost += it.refused.len();
        }
        self.tell_lost(lost);
        adopted
    }

    fn tell_lost(&self, sessions: usize) {
        if sessions > 0 {
            self.log.notice(Notice::SessionsLost { sessions });
        }
    }
}
