//! Descriptors: what reactors and the rest of the process need of them, and how many
//! sessions and flows those that are left allow.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::control::error::StartError;
use crate::control::plan::Plan;
use crate::net::limits;
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::reactor::{Gate, UpstreamSetup};
use crate::relay::id::PoolId;

/// Descriptors a reactor needs for itself: epoll, its waker, pooled pipes.
pub(in crate::control) const DESCRIPTORS_PER_REACTOR: u32 = 40;

/// Descriptors that a reactor cannot do without.
const DESCRIPTORS_LEAST: u64 = 4;

/// Room for fewer sessions is worth a warning, whatever is configured.
const SESSIONS_FEW: u32 = 100;

/// Descriptors for the log, signals, and what a library opens for a moment.
pub(in crate::control) const DESCRIPTORS_SPARE: u32 = 16;

/// Whether the listeners leave descriptors for sessions: better a sum now than a bare
/// EMFILE at one of ten thousand ports.
pub(super) fn check_descriptors(
    plan: &Plan,
    reactors: usize,
    limit: u64,
) -> Result<(), StartError> {
    let listeners = plan
        .forwards
        .iter()
        .map(|it| it.listeners.len())
        .sum::<usize>();
    let wanted = (listeners * reactors) as u64;
    let own = DESCRIPTORS_LEAST * reactors as u64 + u64::from(DESCRIPTORS_SPARE);
    if wanted + own <= limit {
        return Ok(());
    }
    Err(StartError::Descriptors {
        listeners,
        reactors,
        needed: wanted + own,
        limit,
    })
}

/// Flows of datagrams that descriptors allow, one each: as many as the forwards may have,
/// and at most half of what there is, so that connections have the other half.
pub(in crate::control) fn flows(plan: &Plan, descriptors: u64) -> u32 {
    let forwards = plan.forwards.iter().map(|it| &it.config);
    let wanted = forwards.filter(|it| it.protocol.has_udp()).map(|it| {
        let most = it.udp.max_flows;
        most.map_or(u64::MAX, u64::from)
    });
    let wanted = wanted.fold(0, u64::saturating_add);
    u32::try_from(wanted.min(descriptors / 2)).unwrap_or(u32::MAX)
}

/// Admission by descriptors: two for each session, of those that are left; looking up
/// names and spare connections take up to `others` of them.
pub(in crate::control) fn gate(
    config: &Config,
    descriptors: u64,
    reactors: usize,
    (others, flows): (u32, u32),
    log: &Log,
) -> Gate {
    let taken = limits::open_descriptors().unwrap_or(64) as u32;
    let taken = taken.saturating_add(flows);
    let spare = DESCRIPTORS_PER_REACTOR * reactors as u32 + DESCRIPTORS_SPARE + others;
    let most = config.global.max_connections.unwrap_or(u32::MAX);
    let gate = Gate::by_descriptors(most, taken, spare);
    gate.review();
    let wanted = config.global.max_connections.unwrap_or(SESSIONS_FEW);
    if wanted > gate.max() {
        let needed = u64::from(wanted) * 2 + u64::from(taken + spare);
        log.notice(Notice::DescriptorsShort {
            wanted,
            needed,
            limit: descriptors,
            sessions_max: gate.max(),
        });
    }
    gate
}

/// Descriptors of the connections that are kept warm.
pub(in crate::control) fn spares(
    upstreams: &BTreeMap<PoolId, UpstreamSetup>,
    reactors: usize,
) -> u32 {
    let of = |it: &UpstreamSetup| it.warm.saturating_mul(it.set.members().len() as u32);
    let each = upstreams.values().map(of).fold(0, u32::saturating_add);
    each.saturating_mul(reactors as u32)
}
