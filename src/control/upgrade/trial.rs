//! A new process on trial: the former one waits beside it, with its listening sockets and its
//! reactors, and has everything back by the same protocol unless the new one is confirmed.
//!
//! ```text
//!  former ── Ask ────────────────────────────────────────────► new      again and again
//!  former ◄─ Well: is it ready, was it confirmed ───────────── new
//!                                          confirmed: the former one leaves, as ever
//!  former ── GoBack ─────────────────────────────────────────► new      not ready, or nobody came
//!  former ◄─ Sessions, Flows, Tables, Commit ───────────────── new      as at a hand-over
//!  former ── Committed ──────────────────────────────────────► new, which leaves
//! ```
//! The former process keeps no copy of a session meanwhile, so every end is told at once. So a
//! new one that is killed on trial takes its sessions with it, and nothing else: the former one
//! lets clients in again, those who wait in the queues first. One that hangs is ended.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::following::follow;
use super::give::ControlThread;
use super::message::Saying;
use super::moves;
use super::order::{HandOver, Later, Leave, Returned};
use super::take::take_back;
use super::talk::{PROMPT, Talk, TalkError, out_of_turn};

/// Between questions.
const LOOK: Duration = Duration::from_millis(100);

/// How long a new process may not be ready.
const RED: Duration = Duration::from_secs(5);

/// Looks after a process on trial, and after what comes of it.
pub(in crate::control) fn look_after(
    talk: &Talk,
    control: &dyn ControlThread,
    (leave, later): (Leave, Receiver<Later>),
    trial: Duration,
) {
    let process = leave.process;
    control.order(HandOver::Try(leave));
    match until_decided(talk, control, (process, trial)) {
        Ok(()) => {
            control.order(HandOver::Confirmed);
            moves::go_on(talk, control, (process, &later));
        }
        Err(why) => undo(talk, control, process, why),
    }
}

/// Why a trial is over.
struct Undone {
    reason: String,
    /// It still answers, and can give back what it has.
    answers: bool,
}

impl Undone {
    const fn decided(reason: String) -> Self {
        Self {
            reason,
            answers: true,
        }
    }
}

/// Why it is to be undone.
fn until_decided(
    talk: &Talk,
    control: &dyn ControlThread,
    (process, trial): (u32, Duration),
) -> Result<(), Undone> {
    let deadline = Instant::now() + trial;
    let (mut red_since, mut more) = (None, true);
    loop {
        std::thread::sleep(LOOK);
        more = more && moves::some_more(talk, control, process);
        let heard = talk
            .say(&Saying::Ask {}, PROMPT)
            .and_then(|()| talk.hear(PROMPT));
        let (ready, verdict) = match heard.map(|it| it.message) {
            Ok(Saying::Well { ready, verdict }) => (ready, verdict),
            Ok(other) => return Err(out_of_turn(&other, "well").into()),
            Err(error) => return Err(error.into()),
        };
        match verdict {
            Some(true) => return Ok(()),
            Some(false) => return Err(Undone::decided("it was asked to go back".to_owned())),
            None => {}
        }
        let now = Instant::now();
        if now >= deadline {
            let reason = format!("nobody has confirmed it within {trial:?}");
            return Err(Undone::decided(reason));
        }
        if ready {
            red_since = None;
        } else if now.duration_since(*red_since.get_or_insert(now)) >= RED {
            return Err(Undone::decided(format!("it was not ready for {RED:?}")));
        }
    }
}

impl From<TalkError> for Undone {
    fn from(error: TalkError) -> Self {
        Self {
            reason: error.to_string(),
            answers: false,
        }
    }
}

/// Has everything back, or at least the listeners.
fn undo(talk: &Talk, control: &dyn ControlThread, process: u32, why: Undone) {
    let (reply, answer) = channel();
    control.order(HandOver::Berths(reply));
    let Ok(berths) = answer.recv() else {
        return;
    };
    let reason = why.reason.clone();
    let asked = why.answers.then(|| {
        talk.say(&Saying::GoBack { reason }, PROMPT)
            .and_then(|()| take_back(talk, &berths))
    });
    let settled = asked.and_then(Result::ok);
    let is_back = settled.is_some();
    if !is_back && talk.is_open() {
        end(process);
    }
    control.order(HandOver::Returned(Returned {
        process,
        reason: why.reason,
        settled,
    }));
    if is_back {
        follow(talk, control);
    }
}

/// Ends a process that neither serves nor gives back. It has the connection open still, so
/// nobody else has its number.
fn end(process: u32) {
    if let Ok(process) = i32::try_from(process) {
        let process = nix::unistd::Pid::from_raw(process);
        let _ = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL);
    }
}
