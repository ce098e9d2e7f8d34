//! What a configuration needs of the machine, as numbers.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::acquire::{DESCRIPTORS_PER_REACTOR, DESCRIPTORS_SPARE};
use crate::config::{Config, DataPath, EngineChoice, Forward, Reactors};
use crate::net::address::Address;
use crate::net::datagram;
use crate::net::limits;
use crate::net::options::SocketOptions;

/// Zero and `None` where a configuration is content with what there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// Sessions at a time, where they are limited by the configuration.
    pub sessions: Option<u64>,
    /// Descriptors for these and for what is below.
    pub descriptors: Option<u64>,
    /// Descriptors for all that is no session's: listeners, reactors, lookups, spares.
    pub own: Option<u64>,
    /// Listeners of each reactor.
    pub listeners: u64,
    /// Reactors that there will be.
    pub started: u64,
    /// The longest backlog asked for.
    pub backlog: Option<u64>,
    /// The largest receive buffer asked for, bytes.
    pub receive_buffer: Option<u64>,
    /// Bytes that listeners of UDP ask for by themselves, if there are any that do.
    pub datagram_buffer: Option<u64>,
    /// The largest send buffer asked for, bytes.
    pub send_buffer: Option<u64>,
    /// Local ports towards the server that is used most.
    pub ports: Option<u64>,
    /// Bytes of each pipe, where a forward always splices.
    pub pipe_size: Option<u64>,
    /// Whether the engine must be io_uring.
    pub io_uring: bool,
    /// Reactors, where their number is given.
    pub reactors: Option<usize>,
}

impl Needs {
    /// What this configuration needs.
    pub fn of(config: &Config) -> Self {
        let reactors = match config.global.reactors {
            Reactors::Auto => None,
            Reactors::Count(count) => Some(usize::from(count)),
        };
        let sessions = sessions(config);
        let started = reactors.unwrap_or_else(limits::reactor_count) as u64;
        let listeners: usize = config.forwards.iter().map(|it| it.listen.len()).sum();
        let listeners = listeners as u64;
        let own = started * (u64::from(DESCRIPTORS_PER_REACTOR) + listeners + warm(config))
            + u64::from(DESCRIPTORS_SPARE);
        let legs = || {
            let forwards = config.forwards.iter();
            forwards.flat_map(|forward| [&forward.client, &forward.upstream])
        };
        let largest = |of: fn(&SocketOptions) -> Option<u32>| legs().filter_map(of).max();
        let clients = config.forwards.iter().map(|forward| &forward.client);
        let splices = config
            .forwards
            .iter()
            .any(|it| it.data_path == DataPath::Splice);
        Self {
            sessions,
            descriptors: sessions.map(|n| n * 2 + own),
            own: Some(own),
            listeners,
            started,
            backlog: clients.filter_map(|it| it.backlog).max().map(u64::from),
            receive_buffer: largest(|it| it.receive_buffer).map(u64::from),
            datagram_buffer: config
                .forwards
                .iter()
                .any(|it| it.protocol.has_udp() && it.client.receive_buffer.is_none())
                .then_some(datagram::LISTENER_BUFFER as u64),
            send_buffer: largest(|it| it.send_buffer).map(u64::from),
            ports: config
                .forwards
                .iter()
                .filter_map(|it| ports(it, config))
                .max(),
            pipe_size: splices.then_some(u64::from(config.global.pipe_size)),
            io_uring: config.global.engine == EngineChoice::IoUring,
            reactors,
        }
    }
}

/// Connections that each reactor keeps ready.
fn warm(config: &Config) -> u64 {
    let mut seen = HashSet::new();
    let pools = config.forwards.iter().map(|it| &it.pool);
    let pools = pools.filter(|pool| seen.insert(Arc::as_ptr(pool)));
    pools
        .map(|pool| u64::from(pool.warm) * pool.servers.len() as u64)
        .sum()
}

/// The global limit, or what the forwards' own come to when each has one.
fn sessions(config: &Config) -> Option<u64> {
    let each = config.forwards.iter().map(|it| it.max_connections);
    let sum = each.map(|max| max.map(u64::from)).sum::<Option<u64>>();
    let global = config.global.max_connections.map(u64::from);
    match (global, sum) {
        (Some(global), Some(sum)) => Some(global.min(sum)),
        (global, sum) => global.or(sum),
    }
}

/// Ports that a forward's sessions take towards each of its servers; a port can be
/// used again for another server. A name may have more addresses, and then needs less.
fn ports(forward: &Forward, config: &Config) -> Option<u64> {
    let sessions = forward.max_connections.or(config.global.max_connections)?;
    let servers = forward.pool.servers.iter();
    let servers = servers.filter(|it| !matches!(it.address, Address::Unix(_)));
    match servers.count() as u64 {
        0 => None,
        count => Some(u64::from(sessions).div_ceil(count)),
    }
}
