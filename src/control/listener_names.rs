//! Names to listen on, looked up where the names of servers are: `dns_servers`, `hosts` and
//! `resolv_conf` count for both.

use std::time::Duration;

use super::resolve;
use crate::config::NameSources;
use crate::net::address::{Address, Transport};
use crate::net::listener::{self, BindCause, BindError, Bound};
use crate::net::options::SocketOptions;
use crate::observe::log::Log;

/// How long a name may take: two turns of one silent name server by default, and then
/// there is an error and no listener.
const PATIENCE: Duration = Duration::from_secs(12);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct ListenerNames<'a> {
    sources: &'a NameSources,
    log: &'a Log,
}

impl<'a> ListenerNames<'a> {
    pub(super) const fn new(sources: &'a NameSources, log: &'a Log) -> Self {
        Self { sources, log }
    }

    /// As [`listener::bind`]; waits for a name as long as it must.
    pub(super) fn bind(
        &self,
        (transport, address): (Transport, &Address),
        options: &SocketOptions,
        reactors: usize,
    ) -> Result<Bound, BindError> {
        let bind = match transport {
            Transport::Tcp => listener::bind_found,
            Transport::Udp => listener::bind_datagrams,
        };
        let Address::Name { host, .. } = address else {
            return bind(address, &[], options, reactors);
        };
        let found = resolve::look_up_now(self.sources, self.log, host, PATIENCE);
        let found = found.map_err(|error| {
            let cause = BindCause::NameNotFound(error.to_string());
            BindError::new(address, cause)
        })?;
        bind(address, &found, options, reactors)
    }
}
