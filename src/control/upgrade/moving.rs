//! Sessions on their way from one process to the next: batches of manifests, descriptors
//! and tails.
//!
//! Invariant: whoever sends has every session until the other side has named all of a
//! batch; what that refuses stays here.

use std::os::fd::BorrowedFd;

use super::channel::DESCRIPTORS_MAX;
use super::message::Saying;
use super::talk::{Heard, PROMPT, Talk, TalkError, out_of_turn};
use crate::engine::Detached;
use crate::engine::detached::Baggage as _;
use crate::reactor::{Arrival, Berths, MovedSession, Parcel};
use crate::relay::Direction;

/// Tails of one batch; a single one may be larger.
const BYTES_MAX: usize = 4 << 20;

/// Sends sessions. Those that the other side has named, and those that it cannot have.
#[derive(Debug, Default)]
pub(in crate::control) struct Sent {
    pub(in crate::control) gone: Vec<MovedSession>,
    pub(in crate::control) refused: Vec<MovedSession>,
}

/// Sends all of these; with an error come those back that were not named.
pub(in crate::control) fn send(
    talk: &Talk,
    sessions: Vec<MovedSession>,
) -> Result<Sent, (TalkError, Vec<MovedSession>)> {
    let mut sent = Sent::default();
    let mut left = sessions.into_iter().peekable();
    while left.peek().is_some() {
        let (mut batch, mut descriptors, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = left.peek() {
            descriptors += next.manifest.descriptors();
            bytes += next.manifest.tail_bytes();
            if !batch.is_empty() && (descriptors > DESCRIPTORS_MAX || bytes > BYTES_MAX) {
                break;
            }
            batch.extend(left.next());
        }
        match send_batch(talk, &mut batch) {
            Ok(refused) => {
                for (at, session) in batch.into_iter().enumerate() {
                    if refused.contains(&at) {
                        sent.refused.push(session);
                    } else {
                        sent.gone.push(session);
                    }
                }
            }
            Err(error) => {
                // Nothing is the other side's before it says that all of it is.
                let all = sent.gone.into_iter().chain(sent.refused);
                return Err((error, all.chain(batch).chain(left).collect()));
            }
        }
    }
    Ok(sent)
}

fn send_batch(talk: &Talk, batch: &mut [MovedSession]) -> Result<Vec<usize>, TalkError> {
    for session in &mut *batch {
        session.detached.share();
    }
    let descriptors: Vec<BorrowedFd<'_>> = batch
        .iter()
        .flat_map(|it| it.detached.descriptors())
        .collect();
    let mut bytes = Vec::new();
    for session in &*batch {
        for direction in Direction::BOTH {
            bytes.extend_from_slice(session.detached.tail(direction));
        }
    }
    let manifests = batch.iter().map(|it| it.manifest.clone()).collect();
    let message = Saying::Sessions { manifests };
    let sides = batch.iter().flat_map(|it| it.detached.sides());
    let expected: Vec<u64> = sides.flatten().map(|side| side.cookie).collect();
    talk.say_and_await(&message, (&bytes, &descriptors), &expected, PROMPT)
}

/// Looks at sessions that have come, names them, and says which of them have no place here.
pub(in crate::control) fn receive(
    talk: &Talk,
    heard: Heard,
    berths: &Berths,
) -> Result<Vec<Arrival<Detached>>, TalkError> {
    let Saying::Sessions { manifests } = heard.message else {
        return Err(out_of_turn(&heard.message, "sessions"));
    };
    let mut descriptors = heard.descriptors.into_iter();
    let mut bytes = &heard.bytes[..];
    let (mut arrivals, mut cookies, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for (at, manifest) in manifests.into_iter().enumerate() {
        let sides = manifest.sides.iter().flatten();
        cookies.extend(sides.map(|side| side.cookie));
        let its: Vec<_> = descriptors.by_ref().take(manifest.descriptors()).collect();
        let (tail, rest) = bytes
            .split_at_checked(manifest.tail_bytes())
            .ok_or_else(|| TalkError::Lost("bytes of a session".to_owned()))?;
        bytes = rest;
        let parcel = Parcel {
            manifest,
            descriptors: its,
            bytes: tail.to_vec(),
        };
        let (manifest, detached) = parcel
            .open()
            .map_err(|refusal| TalkError::Lost(refusal.to_string()))?;
        match berths.find(&manifest) {
            Ok(place) => arrivals.push(Arrival {
                manifest,
                detached,
                place,
            }),
            Err(why) => refused.push((at, why.to_string())),
        }
    }
    talk.say(&Saying::Have { cookies, refused }, PROMPT)?;
    Ok(arrivals)
}
