//! Behind the commit, in the old process: sessions that were being opened then follow, as they
//! come to stand between their two sides, and at the end what was counted last.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::give::ControlThread;
use super::message::Saying;
use super::moving;
use super::order::{HandOver, Later, Luggage};
use super::talk::{PROMPT, Talk};

/// Between looks for sessions that can be moved by now.
const LOOK: Duration = Duration::from_millis(100);

/// How long the new process waits for what may come: there is no hurry.
pub(super) const LATER: Duration = Duration::from_secs(3600);

/// The old process, until it ends.
pub(in crate::control) fn go_on(
    talk: &Talk,
    control: &dyn ControlThread,
    (process, later): (u32, &Receiver<Later>),
) {
    let mut more = true;
    loop {
        let patience = if more { LOOK } else { LATER };
        match later.recv_timeout(patience) {
            Ok(Later::Service) => {
                let _ = talk.say(&Saying::Service {}, PROMPT);
            }
            Ok(Later::Rest(tables, told)) => {
                let _ = talk.say(&Saying::Rest { tables }, PROMPT);
                let _ = told.send(());
                return;
            }
            Err(RecvTimeoutError::Timeout) => more = more && some_more(talk, control, process),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Sends those that can be moved by now; whether there may be more. Where some cannot be had
/// over there, all that are left end here: nobody is stopped again and again for nothing.
pub(super) fn some_more(talk: &Talk, control: &dyn ControlThread, process: u32) -> bool {
    let (reply, answer) = channel();
    control.order(HandOver::More(reply));
    let Ok(Some(sessions)) = answer.recv() else {
        return false;
    };
    match moving::send(talk, sessions) {
        Ok(sent) => {
            let all = sent.refused.is_empty();
            for session in sent.gone {
                session.leave_for(process);
            }
            control.order(HandOver::Stay(Luggage::of(sent.refused)));
            all
        }
        Err((_, sessions)) => {
            control.order(HandOver::Stay(Luggage::of(sessions)));
            false
        }
    }
}
