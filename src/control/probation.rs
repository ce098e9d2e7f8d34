//! Trials of new processes, for control's thread: in the one that waits beside it, and in the
//! one that is on trial. See `upgrade::trial`.

use std::time::{Duration, Instant};

use crate::admin;
use crate::net::handed::HandedLabel;
use crate::observe::notice::Notice;

use super::running::Running;
use super::upgrade::order::{Before, HandOver, Luggage, Probation, Returned, Settled, Upgrading};
use super::upgrade::take::Taking;
use super::wire::Order;

/// How long a reactor may take for a turn before it is one that does not turn.
const TURN_PATIENCE: Duration = Duration::from_secs(1);

impl Running {
    /// What a trial asks for; whether that is the end of this process.
    pub(super) fn try_out(&mut self, order: HandOver) -> bool {
        match order {
            HandOver::Try(leave) => {
                self.log.notice(Notice::OnTrial {
                    process: leave.process,
                    build: leave.build.clone(),
                });
                self.upgrading = Upgrading::Tried(leave);
            }
            HandOver::Confirmed => {
                if let Upgrading::Tried(leave) = std::mem::take(&mut self.upgrading) {
                    self.upgrading = Upgrading::Left(leave);
                    return true;
                }
            }
            HandOver::Returned(returned) => self.returned(returned),
            HandOver::HowIsIt(reply) => {
                let verdict = self.probation.as_ref().and_then(|it| it.verdict);
                if verdict == Some(true) {
                    self.probation = None;
                }
                let _ = reply.send((self.is_ready(), verdict));
            }
            HandOver::Undo(reason, reply) => {
                if let Some(it) = &self.probation {
                    self.log.notice(Notice::GoesBack {
                        process: it.process,
                        reason,
                    });
                    let _ = reply.send(Before {
                        process: it.process,
                        build: it.build.clone(),
                        taken: it.taken.clone(),
                    });
                }
            }
            HandOver::Alone => self.probation = None,
            _ => {}
        }
        false
    }

    /// This process is on trial from now on, if it is.
    pub(super) fn begin_probation(
        &mut self,
        taking: &Taking,
        taken: &[HandedLabel],
        settled: &Settled,
    ) {
        self.probation = settled.trial.then(|| Probation {
            told: settled.tables.counted.clone(),
            process: taking.process,
            build: taking.build.clone(),
            taken: taken.to_vec(),
            verdict: None,
        });
    }

    /// An operator says whether this process, which is on trial, is to stay; `false`: it is
    /// not on trial, or that was said already.
    pub(super) fn judge(&mut self, stays: bool) -> bool {
        let Some(probation) = &mut self.probation else {
            return false;
        };
        probation.verdict.replace(stays).is_none()
    }

    /// Another process waits beside this one, or this one beside another: who.
    pub(super) fn on_trial(&self) -> Option<String> {
        let other = match (&self.upgrading, &self.probation) {
            (Upgrading::Tried(leave), _) => leave.process,
            (_, Some(probation)) => probation.process,
            _ => return None,
        };
        Some(format!("a trial beside process {other}"))
    }

    /// The paths of listeners that another process has as well stay when this one ends.
    pub(super) fn leave_shared_paths(&mut self) {
        let taken = match (&self.upgrading, &self.probation) {
            (Upgrading::Tried(leave), _) => leave.taken.clone(),
            (_, Some(probation)) => probation.taken.clone(),
            _ => return,
        };
        self.leave_paths(&taken);
    }

    pub(super) fn leave_paths(&mut self, taken: &[HandedLabel]) {
        for listener in self.held.listeners.values_mut() {
            if taken.contains(&listener.handed_label()) {
                listener.leave_path();
            }
        }
        if let Some(mut admin) = self.admin.take() {
            admin::Server::leave_paths(&mut admin, taken);
        }
        if let Some(mut entrance) = self.entrance.take()
            && taken.contains(entrance.label())
        {
            entrance.disown();
        }
    }

    /// Whether clients are served as they should be.
    fn is_ready(&self) -> bool {
        let turns = self.reactors.values().map(|it| it.send(Order::Publish));
        let turns: Vec<_> = turns.collect();
        let deadline = Instant::now() + TURN_PATIENCE;
        let turn = turns.into_iter().all(|it| it.is_done_by(deadline));
        turn && admin::unserved(&*self.steering).is_empty()
    }

    /// The process that was on trial is none any more, and this one serves again.
    fn returned(&mut self, returned: Returned) {
        if !matches!(self.upgrading, Upgrading::Tried(_)) {
            return;
        }
        let sessions = returned.settled.map_or(0, |it| self.take_in(it));
        self.upgrading = Upgrading::Frozen(String::new());
        self.resume(Luggage::default());
        self.log.notice(Notice::UpgradeUndone {
            process: returned.process,
            reason: returned.reason,
            sessions,
        });
    }
}
