//! What a reactor is made with: plain data, prepared by `control` (or a test).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gate::Gate;
use super::openings::Decider;
use super::upstream::UpstreamSetup;
use crate::config::SessionLog;
use crate::net::address::Endpoint;
use crate::observe::counters::Counters;
use crate::observe::log::Log;
use crate::observe::tap::Source;
use crate::proto::opening::Step;
use crate::relay::id::{ForwardId, ListenerId, PoolId};
use crate::relay::session::Rules;

/// Everything a reactor needs besides its engine.
#[derive(Debug)]
pub struct Setup {
    /// Which reactor this is, from 0.
    pub reactor: u16,
    /// Where the forwards go.
    pub pools: BTreeMap<PoolId, UpstreamSetup>,
    /// Admission over all forwards and reactors.
    pub gate: Arc<Gate>,
    /// Where it counts.
    pub counters: Arc<Counters>,
    /// Where it logs.
    pub log: Log,
    /// Which records it logs.
    pub session_log: SessionLog,
    /// What it shows of its traffic; may be empty.
    pub taps: BTreeMap<ForwardId, Source>,
    /// Who decides by what openings found out; only needed by forwards with
    /// [`Forward::steps`].
    pub decider: Option<Box<dyn Decider>>,
}

/// A forward, as it is configured: immutable. When the configuration changes, another
/// takes its place for the sessions to come; those that run keep theirs.
#[derive(Debug)]
pub struct Forward {
    /// Its identity.
    pub id: ForwardId,
    /// Its name.
    pub name: Arc<str>,
    /// What its sessions go by.
    pub rules: Rules,
    /// Where it goes.
    pub pool: PoolId,
    /// What its clients say before their payload; usually nothing. Goes with
    /// [`Rules::opening`].
    pub steps: Arc<[Step]>,
    /// Admission to this forward, over all reactors, if it has a limit.
    pub gate: Option<Arc<Gate>>,
    /// Which configuration of this process it came with, from 0.
    pub generation: u64,
}

/// Where a client came in, and the forward that it came to. A session holds this one
/// reference: it costs an atomic step at its beginning and one at its end.
#[derive(Debug)]
pub struct Listener {
    /// Its identity.
    pub id: ListenerId,
    /// Which of the sockets of this address it is: a number of its own.
    pub socket: u32,
    /// Its address.
    pub address: Endpoint,
    /// Whose it is.
    pub forward: Arc<Forward>,
}
