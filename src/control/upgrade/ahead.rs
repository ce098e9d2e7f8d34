//! Connections that stand ready for the next client, on their way from one process to the
//! next: batches of manifests, each with its socket.
//!
//! Invariant: whoever sends has all of them until the other side has named them; what that
//! has no use for is closed by both.

use std::os::fd::BorrowedFd;

use super::channel::DESCRIPTORS_MAX;
use super::message::Saying;
use super::talk::{Heard, PROMPT, Talk, TalkError, cookies, out_of_turn};
use crate::engine::Detached;
use crate::engine::detached::LooseSide;
use crate::net::address::Endpoint;
use crate::reactor::{Berths, MovedSpare};
use crate::relay::Side;

/// Sends all of these.
pub(in crate::control) fn send(talk: &Talk, spares: &mut [MovedSpare]) -> Result<(), TalkError> {
    for batch in spares.chunks_mut(DESCRIPTORS_MAX) {
        for spare in &mut *batch {
            spare.detached.share();
        }
        let sockets: Vec<BorrowedFd<'_>> = batch
            .iter()
            .filter_map(|it| it.detached.fd(Side::Upstream))
            .collect();
        let expected = cookies(&sockets)?;
        let mut manifests: Vec<_> = batch.iter().map(|it| it.manifest.clone()).collect();
        for (manifest, cookie) in manifests.iter_mut().zip(&expected) {
            manifest.cookie = *cookie;
        }
        // What the other side has no use for it has closed.
        let message = Saying::Spares { manifests };
        talk.say_and_await(&message, (&[], &sockets), &expected, PROMPT)?;
    }
    Ok(())
}

/// Looks at those that have come, names them, and keeps those whose server is known here.
pub(in crate::control) fn receive(
    talk: &Talk,
    heard: Heard,
    berths: &Berths,
) -> Result<Vec<MovedSpare>, TalkError> {
    let Saying::Spares { manifests } = heard.message else {
        return Err(out_of_turn(&heard.message, "spares"));
    };
    let announced: Vec<u64> = manifests.iter().map(|it| it.cookie).collect();
    talk.have(&heard.descriptors, &announced, PROMPT)?;
    let each = manifests.into_iter().zip(heard.descriptors);
    let arrived = each.filter_map(|(manifest, fd)| {
        let upstream = LooseSide {
            exhaustive: !matches!(manifest.server, Endpoint::Inet(_)),
            fd,
            shut: false,
            shared: true,
        };
        let detached = Detached::new([None, Some(upstream)], Default::default());
        berths.find_spare(manifest, detached)
    });
    Ok(arrived.collect())
}
