//! Flows of datagrams on their way from one process to the next: batches of manifests, each
//! with its socket.
//!
//! Invariant: whoever sends has every flow until the other side has named all of a batch;
//! what that refuses stays here.

use std::os::fd::AsFd;

use super::channel::DESCRIPTORS_MAX;
use super::message::Saying;
use super::talk::{Heard, PROMPT, Talk, TalkError, cookies, out_of_turn};
use crate::reactor::{Berths, FlowArrival, MovedFlow};

/// Flows that the other side has named, and those that it cannot have.
#[derive(Debug, Default)]
pub(in crate::control) struct FlowsSent {
    pub(in crate::control) gone: Vec<MovedFlow>,
    pub(in crate::control) refused: Vec<MovedFlow>,
}

/// Sends all of these; with an error all come back.
pub(in crate::control) fn send(
    talk: &Talk,
    flows: Vec<MovedFlow>,
) -> Result<FlowsSent, (TalkError, Vec<MovedFlow>)> {
    let mut sent = FlowsSent::default();
    let mut left = flows.into_iter().peekable();
    while left.peek().is_some() {
        let batch: Vec<MovedFlow> = left.by_ref().take(DESCRIPTORS_MAX).collect();
        match send_batch(talk, &batch) {
            Ok(refused) => {
                for (at, flow) in batch.into_iter().enumerate() {
                    if refused.contains(&at) {
                        sent.refused.push(flow);
                    } else {
                        sent.gone.push(flow);
                    }
                }
            }
            Err(error) => {
                let all = sent.gone.into_iter().chain(sent.refused);
                return Err((error, all.chain(batch).chain(left).collect()));
            }
        }
    }
    Ok(sent)
}

fn send_batch(talk: &Talk, batch: &[MovedFlow]) -> Result<Vec<usize>, TalkError> {
    let sockets: Vec<_> = batch.iter().map(|it| it.call.as_fd()).collect();
    let expected = cookies(&sockets)?;
    let mut manifests: Vec<_> = batch.iter().map(|it| it.manifest.clone()).collect();
    for (manifest, cookie) in manifests.iter_mut().zip(&expected) {
        manifest.cookie = *cookie;
    }
    let message = Saying::Flows { manifests };
    talk.say_and_await(&message, (&[], &sockets), &expected, PROMPT)
}

/// Looks at flows that have come, names them, and says which of them have no place here.
pub(in crate::control) fn receive(
    talk: &Talk,
    heard: Heard,
    berths: &Berths,
) -> Result<Vec<FlowArrival>, TalkError> {
    let Saying::Flows { manifests } = heard.message else {
        return Err(out_of_turn(&heard.message, "flows"));
    };
    if manifests.len() != heard.descriptors.len() {
        return Err(TalkError::Lost("sockets of flows".to_owned()));
    }
    let sockets: Vec<_> = heard.descriptors.iter().map(AsFd::as_fd).collect();
    let cookies = cookies(&sockets)?;
    if manifests
        .iter()
        .map(|it| it.cookie)
        .ne(cookies.iter().copied())
    {
        return Err(TalkError::Lost("they are other sockets".to_owned()));
    }
    let (mut arrivals, mut refused) = (Vec::new(), Vec::new());
    let each = manifests.into_iter().zip(heard.descriptors);
    for (at, (manifest, call)) in each.enumerate() {
        match berths.find_flow(manifest, call) {
            Ok(arrival) => arrivals.push(arrival),
            Err(why) => refused.push((at, why.to_string())),
        }
    }
    talk.say(&Saying::Have { cookies, refused }, PROMPT)?;
    Ok(arrivals)
}
