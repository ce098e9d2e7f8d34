//! The old process: offers what it has, and lets go of it once the new one has all of it.
//!
//! Invariant: whatever the new process does or does not do, and when, control either gets
//! `Leave` or `Resume` for each `Freeze`; both processes come to the same end, because
//! what the new one says last has either arrived or fails over there.

use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, channel};

use super::message::{Hello, Saying};
use super::order::{Frozen, HandOver, Later, Leave, Luggage, Offer, Takes, UpgradeError, Upgraded};
use super::tables::Counted;
use super::talk::{PREPARING, PROMPT, Talk, TalkError, out_of_turn};
use super::{ahead, flows, moving};
use crate::net::handed::HandedLabel;

/// Control's thread, as far as a hand-over needs it.
pub(in crate::control) trait ControlThread {
    /// Asks it.
    fn order(&self, order: HandOver);
}

/// A hand-over that control knows of. Dropped, it is undone.
struct Lease<'a> {
    control: &'a dyn ControlThread,
    over: bool,
    /// What belongs to this process as long as it is not.
    moved: Luggage,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if !self.over {
            let moved = std::mem::take(&mut self.moved);
            self.control.order(HandOver::Resume(moved));
        }
    }
}

/// Hands over to whoever is at the other end. On an error everything is as before.
/// What is left to do once it has happened: `HandOver::Leave`, now or after a trial.
pub(in crate::control) fn give(
    talk: &Talk,
    control: &dyn ControlThread,
    trial: bool,
) -> Result<(Upgraded, (Leave, Receiver<Later>)), UpgradeError> {
    let outcome = offer(talk, control, trial);
    if let Err(error) = &outcome {
        // Whoever is not there any more is not told.
        let reason = error.to_string();
        let _ = talk.say(&Saying::Refused { reason }, PROMPT);
    }
    outcome
}

fn offer(
    talk: &Talk,
    control: &dyn ControlThread,
    trial: bool,
) -> Result<(Upgraded, (Leave, Receiver<Later>)), UpgradeError> {
    // Before anything else: a stranger who says nothing keeps nobody from upgrading.
    let theirs = match talk.hear(PREPARING).map_err(failed)?.message {
        Saying::Hello(hello) => hello,
        other => return Err(failed(out_of_turn(&other, "hello"))),
    };
    theirs.common().map_err(UpgradeError::Failed)?;
    if trial && !theirs.has("trial") {
        let unknown = format!("thalweg {} knows no trials", theirs.build);
        return Err(UpgradeError::Failed(unknown));
    }
    let who = format!("process {}", theirs.process);
    let (reply, answer) = channel();
    control.order(HandOver::Begin(who, reply));
    let gone = || UpgradeError::Impossible("this process is ending".to_owned());
    let offer = answer.recv().map_err(|_| gone())??;
    let mut lease = Lease {
        control,
        over: false,
        moved: Luggage::default(),
    };
    let taken = prepare(talk, &theirs, &offer)?;

    let able = Takes {
        sessions: theirs.has("sessions"),
        flows: theirs.has("flows"),
        spares: theirs.has("spares"),
    };
    let left = hand_all(talk, &mut lease, able, (theirs.process, trial))?;
    let (tell, later) = channel();
    let upgraded = Upgraded {
        process: theirs.process,
        build: theirs.build.clone(),
        listeners: taken.len(),
        sessions_moved: left.sessions_moved,
        flows_moved: left.flows_moved,
        sessions_left: left.sessions_left,
    };
    let order = Leave {
        taken,
        counted: left.counted,
        // Where some cannot be had over there all that are left end here: one that is on its
        // way when its reactor drains would find it gone.
        sessions: able.sessions && !left.some_refused,
        process: theirs.process,
        awaits_service: theirs.has("service"),
        build: theirs.build,
        later: tell,
    };
    Ok((upgraded, (order, later)))
}

/// In a process that was on trial: everything goes back to the one before.
pub(super) fn give_back(
    talk: &Talk,
    control: &dyn ControlThread,
    reason: String,
) -> Result<(Leave, Receiver<Later>), UpgradeError> {
    let (reply, answer) = channel();
    control.order(HandOver::Undo(reason, reply));
    let gone = || UpgradeError::Impossible("this process is ending".to_owned());
    let before = answer.recv().map_err(|_| gone())?;
    let mut lease = Lease {
        control,
        over: false,
        moved: Luggage::default(),
    };
    let able = Takes {
        sessions: true,
        flows: true,
        spares: true,
    };
    let left = hand_all(talk, &mut lease, able, (before.process, false))?;
    let (tell, later) = channel();
    let order = Leave {
        taken: before.taken,
        counted: left.counted,
        sessions: true,
        process: before.process,
        // It was the service all the time.
        awaits_service: false,
        build: before.build,
        later: tell,
    };
    Ok((order, later))
}

/// What a process that lets go has told.
struct LetGo {
    counted: Counted,
    sessions_moved: usize,
    flows_moved: usize,
    sessions_left: u64,
    some_refused: bool,
}

/// From where sessions wait up to where they are the other process's.
fn hand_all(
    talk: &Talk,
    lease: &mut Lease<'_>,
    takes: Takes,
    (process, trial): (u32, bool),
) -> Result<LetGo, UpgradeError> {
    let gone = || UpgradeError::Impossible("this process is ending".to_owned());
    let (reply, answer) = channel();
    lease.control.order(HandOver::Freeze(takes, reply));
    let mut frozen = answer.recv().map_err(|_| gone())?;
    let refused = hand(talk, &mut frozen, lease)?;
    let (sessions_moved, flows_moved) = (lease.moved.sessions.len(), lease.moved.flows.len());
    if let Err(error) = commit(talk, &frozen, trial) {
        lease.moved.sessions.extend(refused.sessions);
        lease.moved.flows.extend(refused.flows);
        return Err(failed(error));
    }
    lease.over = true;
    let some_refused = !refused.sessions.is_empty();
    lease.control.order(HandOver::Stay(refused));
    let gone = std::mem::take(&mut lease.moved);
    drop((gone.flows, gone.spares));
    let gone = gone.sessions.into_iter();
    gone.for_each(|session| session.leave_for(process));
    Ok(LetGo {
        counted: frozen.counted,
        sessions_moved,
        flows_moved,
        sessions_left: frozen.sessions_left.saturating_sub(sessions_moved as u64),
        some_refused,
    })
}

/// Sends all of it; what the other process has is the lease's, what it cannot have comes back.
fn hand(talk: &Talk, frozen: &mut Frozen, lease: &mut Lease<'_>) -> Result<Luggage, UpgradeError> {
    let all = std::mem::take(&mut frozen.moved);
    lease.moved.flows = all.flows;
    let sent = moving::send(talk, all.sessions).map_err(|(error, sessions)| {
        lease.moved.sessions = sessions;
        failed(error)
    })?;
    lease.moved.sessions = sent.gone;
    let (flows, sessions) = (std::mem::take(&mut lease.moved.flows), sent.refused);
    lease.moved.spares = all.spares;
    match flows::send(talk, flows) {
        Ok(sent) => {
            lease.moved.flows = sent.gone;
            let refused = Luggage {
                sessions,
                flows: sent.refused,
                ..Luggage::default()
            };
            if let Err(error) = ahead::send(talk, &mut lease.moved.spares) {
                lease.moved.sessions.extend(refused.sessions);
                lease.moved.flows.extend(refused.flows);
                return Err(failed(error));
            }
            Ok(refused)
        }
        Err((error, flows)) => {
            lease.moved.flows = flows;
            lease.moved.sessions.extend(sessions);
            Err(failed(error))
        }
    }
}

/// Up to where the new process stands; nothing has changed here so far.
fn prepare(talk: &Talk, theirs: &Hello, offer: &Offer) -> Result<Vec<HandedLabel>, UpgradeError> {
    if theirs.room < offer.descriptors {
        return Err(UpgradeError::Failed(format!(
            "it has room for {} descriptors and needs {}: raise its limit (LimitNOFILE=, `ulimit \
             -n`)",
            theirs.room, offer.descriptors
        )));
    }
    talk.say(&Saying::Hello(Hello::own(0)), PROMPT)
        .map_err(failed)?;
    let announce = |some: &[(HandedLabel, _)], cookies, last| {
        let labels = some.iter().map(|(label, _)| label.clone()).collect();
        Saying::Listeners {
            labels,
            cookies,
            last,
        }
    };
    talk.hand_over(
        &offer.listeners,
        |(_, socket)| socket.as_fd(),
        announce,
        PREPARING,
    )
    .map_err(failed)?;
    let tables = offer.tables.clone();
    talk.say(&Saying::Tables { tables }, PROMPT)
        .map_err(failed)?;
    match talk.hear(PREPARING).map_err(failed)?.message {
        Saying::Ready { taken } => Ok(taken),
        other => Err(failed(out_of_turn(&other, "ready"))),
    }
}

/// From where sessions wait up to where both know what is whose.
fn commit(talk: &Talk, frozen: &Frozen, trial: bool) -> Result<(), TalkError> {
    let tables = frozen.tables.clone();
    talk.say(&Saying::Tables { tables }, PROMPT)?;
    let answered = talk
        .say(&Saying::Commit { trial }, PROMPT)
        .and_then(|()| talk.hear(PROMPT));
    let answered = match answered {
        Err(error) => {
            // What it says from now on fails over there; what it has said is heard.
            talk.0.refuse_more();
            match talk.hear(PROMPT) {
                Ok(heard) => Ok(heard),
                Err(_) => Err(error),
            }
        }
        answered => answered,
    };
    match answered.map(|heard| heard.message) {
        Ok(Saying::Committed {}) => Ok(()),
        Ok(other) => Err(give_up(talk, out_of_turn(&other, "committed"))),
        Err(error) => Err(give_up(talk, error)),
    }
}

fn give_up(talk: &Talk, error: TalkError) -> TalkError {
    talk.0.refuse_more();
    let reason = error.to_string();
    let _ = talk.say(&Saying::GivenUp { reason }, PROMPT);
    error
}

#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: TalkError) -> UpgradeError {
    UpgradeError::Failed(error.to_string())
}
