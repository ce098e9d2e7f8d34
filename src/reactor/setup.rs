//! What a reactor is made with: plain data, prepared by `control` (or a test).

use std::sync::Arc;

use super::accept::Gate;
use super::proxying::{Concierge, ProxySetup};
use super::upstream::UpstreamSetup;
use crate::config::SessionLog;
use crate::net::address::Endpoint;
use crate::observe::counters::Counters;
use crate::observe::log::Log;
use crate::observe::tap::Source;
use crate::relay::session::Rules;

/// Everything a reactor needs besides its engine.
#[derive(Debug)]
pub struct Setup {
    /// Which reactor this is, from 0.
    pub reactor: u16,
    /// The forwards, shared or not, in the same order for every reactor.
    pub forwards: Vec<ForwardSetup>,
    /// Where the forwards go, in the same order for every reactor.
    pub upstreams: Vec<UpstreamSetup>,
    /// The listeners, in the order of the engine's.
    pub listeners: Vec<ListenerSetup>,
    /// Admission over all forwards and reactors.
    pub gate: Arc<Gate>,
    /// Where it counts.
    pub counters: Arc<Counters>,
    /// Where it logs.
    pub log: Log,
    /// Which records it logs.
    pub session_log: SessionLog,
    /// What it shows of its traffic, by forward; may be empty.
    pub taps: Vec<Option<Source>>,
    /// Who judges requests; only needed by forwards with a [`ForwardSetup::proxy`].
    pub concierge: Option<Box<dyn Concierge>>,
}

/// A forward.
#[derive(Debug, Clone)]
pub struct ForwardSetup {
    /// Its name.
    pub name: Arc<str>,
    /// What its sessions go by.
    pub rules: Rules,
    /// Index of where it goes.
    pub upstream: u16,
    /// Its clients say by an HTTP CONNECT request where to go. Goes with
    /// [`Rules::request`].
    pub proxy: Option<ProxySetup>,
    /// Admission to this forward, over all reactors, if it has a limit.
    pub gate: Option<Arc<Gate>>,
}

/// A listener.
#[derive(Debug, Clone)]
pub struct ListenerSetup {
    /// Index of its forward.
    pub forward: u16,
    /// Its address.
    pub address: Endpoint,
}
