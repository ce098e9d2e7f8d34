//! The old process: offers what it has, and lets go of it once the new one has all of it.
//!
//! Invariant: whatever the new process does or does not do, and when, control either gets
//! `Leave` or `Resume` for each `Freeze`; both processes come to the same end, because
//! what the new one says last has either arrived or fails over there.

use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, channel};

use super::message::{Hello, Saying};
use super::moving;
use super::order::{Frozen, HandOver, Leave, Offer, Rest, UpgradeError, Upgraded};
use super::talk::{PREPARING, PROMPT, Talk, TalkError, out_of_turn};
use crate::net::handed::HandedLabel;
use crate::reactor::MovedSession;

/// Control's thread, as far as a hand-over needs it.
pub(in crate::control) trait ControlThread {
    /// Asks it.
    fn order(&self, order: HandOver);
}

/// A hand-over that control knows of. Dropped, it is undone.
struct Lease<'a> {
    control: &'a dyn ControlThread,
    over: bool,
    /// Sessions that belong to this process as long as it is not.
    sessions: Vec<MovedSession>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if !self.over {
            let sessions = std::mem::take(&mut self.sessions);
            self.control.order(HandOver::Resume(sessions));
        }
    }
}

/// Hands over to whoever is at the other end. On an error everything is as before.
pub(in crate::control) fn give(
    talk: &Talk,
    control: &dyn ControlThread,
) -> Result<(Upgraded, Receiver<Rest>), UpgradeError> {
    let outcome = offer(talk, control);
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
) -> Result<(Upgraded, Receiver<Rest>), UpgradeError> {
    // Before anything else: a stranger who says nothing keeps nobody from upgrading.
    let theirs = match talk.hear(PREPARING).map_err(failed)?.message {
        Saying::Hello(hello) => hello,
        other => return Err(failed(out_of_turn(&other, "hello"))),
    };
    theirs.common().map_err(UpgradeError::Failed)?;
    let who = format!("process {}", theirs.process);
    let (reply, answer) = channel();
    control.order(HandOver::Begin(who, reply));
    let gone = || UpgradeError::Impossible("this process is ending".to_owned());
    let offer = answer.recv().map_err(|_| gone())??;
    let mut lease = Lease {
        control,
        over: false,
        sessions: Vec::new(),
    };
    let taken = prepare(talk, &theirs, &offer)?;

    let (reply, answer) = channel();
    let takes_sessions = theirs.has("sessions");
    control.order(HandOver::Freeze(takes_sessions, reply));
    let mut frozen = answer.recv().map_err(|_| gone())?;
    let sessions = std::mem::take(&mut frozen.sessions);
    let sent = moving::send(talk, sessions).map_err(|(error, sessions)| {
        lease.sessions = sessions;
        failed(error)
    })?;
    let (moved, stay) = (sent.gone.len(), sent.refused);
    lease.sessions = sent.gone;
    if let Err(error) = commit(talk, &frozen) {
        lease.sessions.extend(stay);
        return Err(failed(error));
    }
    control.order(HandOver::Stay(stay));
    let gone = std::mem::take(&mut lease.sessions).into_iter();
    gone.for_each(|session| drop(session.into_detached()));

    lease.over = true;
    let (rest, later) = channel();
    let upgraded = Upgraded {
        process: theirs.process,
        build: theirs.build.clone(),
        listeners: taken.len(),
        sessions_moved: moved,
        sessions_left: frozen.sessions_left.saturating_sub(moved as u64),
    };
    control.order(HandOver::Leave(Leave {
        taken,
        counted: frozen.tables.counted,
        sessions: takes_sessions,
        process: theirs.process,
        build: theirs.build,
        rest,
    }));
    Ok((upgraded, later))
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
fn commit(talk: &Talk, frozen: &Frozen) -> Result<(), TalkError> {
    let tables = frozen.tables.clone();
    talk.say(&Saying::Tables { tables }, PROMPT)?;
    let answered = talk
        .say(&Saying::Commit {}, PROMPT)
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
