//! Behind the commit, in the new process: what else the old one sends, and what it asks of one
//! that is on trial.

use std::sync::mpsc::channel;

use super::give::{ControlThread, give_back};
use super::message::Saying;
use super::moves::{LATER, go_on};
use super::moving;
use super::order::HandOver;
use super::talk::{PROMPT, Talk};

/// Until the old process has ended, or has everything back.
pub(in crate::control) fn follow(talk: &Talk, control: &dyn ControlThread) {
    while let Ok(heard) = talk.hear(LATER) {
        match heard.message {
            Saying::Rest { tables } => return control.order(HandOver::Rest(tables)),
            Saying::Service {} => {
                control.order(HandOver::Service);
                continue;
            }
            Saying::Ask {} if tell(talk, control) => continue,
            Saying::Ask {} => break,
            Saying::GoBack { reason } => return go_back(talk, control, reason),
            _ => {}
        }
        let (reply, answer) = channel();
        control.order(HandOver::Berths(reply));
        let Ok(berths) = answer.recv() else {
            return;
        };
        match moving::receive(talk, heard, &berths) {
            Ok(sessions) => control.order(HandOver::Arrived(sessions)),
            Err(_) => break,
        }
    }
    control.order(HandOver::Alone);
}

/// On trial: how it is.
fn tell(talk: &Talk, control: &dyn ControlThread) -> bool {
    let (reply, answer) = channel();
    control.order(HandOver::HowIsIt(reply));
    let Ok((ready, verdict)) = answer.recv() else {
        return false;
    };
    talk.say(&Saying::Well { ready, verdict }, PROMPT).is_ok()
}

/// On trial: the one before wants everything back.
fn go_back(talk: &Talk, control: &dyn ControlThread, reason: String) {
    // Whatever fails, the other one ends this one.
    if let Ok((leave, later)) = give_back(talk, control, reason) {
        let before = leave.process;
        control.order(HandOver::Leave(leave));
        go_on(talk, control, (before, &later));
    }
}
