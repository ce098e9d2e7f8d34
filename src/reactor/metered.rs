//! What byte rates mean to who has nothing to wait with, and which there are: datagrams, and whoever
//! looks. Lanes are held back by [`super::rates`].

use super::clients::ClientGrant;
use crate::observe::counters::Counters;
use crate::policy::meter::Level;
use crate::relay::Direction;
use crate::relay::time::Time;

/// How many of these datagrams a flow may pass on at once, from the first on: none behind one that
/// is too much for a rate. They have nothing to wait with.
pub(super) fn datagrams(
    grant: Option<&ClientGrant>,
    direction: Direction,
    sizes: impl Iterator<Item = u32>,
    now: Time,
    counters: &Counters,
) -> u32 {
    let Some(meters) = grant.and_then(|it| it.meters.as_ref()) else {
        return u32::MAX;
    };
    let mut passed = 0;
    for size in sizes {
        match meters.pass(direction, u64::from(size), now) {
            Ok(()) => {}
            Err(level) if meters.is_dry_run() => count(counters, level),
            Err(_) => break,
        }
        passed += 1;
    }
    passed
}

/// Which levels have a rate: bytes a second, up and down.
pub(super) fn listed(grant: Option<&ClientGrant>) -> Vec<(Level, [u64; 2])> {
    let meters = grant.and_then(|it| it.meters.as_ref());
    let levels = meters.into_iter().flat_map(|meters| {
        let of = |level| Some((level, meters.rates(level)?));
        Level::ALL.into_iter().filter_map(of)
    });
    levels.collect()
}

/// A rate has held something back.
pub(super) fn count(counters: &Counters, level: Level) {
    match level {
        Level::Session => counters.held_back_session.add(1),
        Level::Client => counters.held_back_client.add(1),
        Level::Server => counters.held_back_server.add(1),
        Level::Forward => counters.held_back_forward.add(1),
    }
}
