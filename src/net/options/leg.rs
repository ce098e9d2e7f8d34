//! Which sockets an option is for: those of a leg, and of a family.

use std::fmt;

use crate::net::address::Endpoint;

/// One side of a session. Options that mean nothing on a leg are skipped there,
/// so that one profile can serve both: `defer_accept`, `fastopen_queue`,
/// `incoming_cpu` and `backlog` concern listeners, `syn_retries`,
/// `fastopen_connect` and `source` concern connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Leg {
    /// Listeners and the sockets they accept.
    Client,
    /// Sockets that connect to servers.
    Upstream,
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
        })
    }
}

/// What kind of socket an option is applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`, and with it dual-stack listeners: then it is the family of the
    /// socket that counts, not that of the peer's address.
    V6,
    /// `AF_UNIX`: TCP and IP options are skipped.
    Unix,
}

impl Family {
    /// The family of the socket that connects to `endpoint`.
    pub fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Inet(address) if address.is_ipv4() => Self::V4,
            Endpoint::Inet(_) => Self::V6,
            Endpoint::Unix(_) | Endpoint::Unnamed => Self::Unix,
        }
    }
}
