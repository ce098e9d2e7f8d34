//! Every TCP and socket option that matters for a transfer, as one struct per
//! leg: read from the configuration, applied to sockets, and read back.
//!
//! | file | what it does |
//! | --- | --- |
//! | here | the struct, and the words the others share |
//! | [`plan`] | compiles it once into what each socket is given, and replays that |
//! | [`readback`] | at start: what the kernel granted, and which sysctl to change |
//! | [`advice`] | what an option costs although the kernel granted it |
//!
//! What happens to an option that is not set: thalweg turns Nagle off
//! (`TCP_NODELAY`) on both legs, because it forwards whole writes and must not
//! hold the tail of one back, and turns quick ACKs off before it connects
//! upstream (see [`plan`]). Everything else is left to the kernel. An explicit
//! value always wins.

pub mod advice;
pub mod plan;
pub mod readback;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::net::address::Endpoint;

pub use advice::Advice;
pub use plan::{OptionPlan, Refusal};
pub use readback::Shortfall;

/// The options of one leg. `None` leaves the choice to the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SocketOptions {
    /// `TCP_NODELAY`.
    pub nodelay: Option<bool>,
    /// `TCP_QUICKACK`. `false` on an upstream leg is set before the connect, so
    /// that the handshake's last ACK rides on the first data; `true` is set once
    /// connected. The kernel resets it as it sees fit (tcp(7)).
    pub quickack: Option<bool>,
    /// `SO_SNDBUF` in bytes as asked for (the kernel doubles it for its bookkeeping).
    pub send_buffer: Option<u32>,
    /// `SO_RCVBUF` in bytes as asked for; turns receive autotuning off.
    pub receive_buffer: Option<u32>,
    /// `TCP_MAXSEG` in bytes; before connect and listen.
    pub mss: Option<u16>,
    /// `TCP_WINDOW_CLAMP` in bytes.
    pub window_clamp: Option<u32>,
    /// `TCP_NOTSENT_LOWAT` in bytes.
    pub notsent_lowat: Option<u32>,
    /// `TCP_CONGESTION`, a name such as `cubic`.
    pub congestion: Option<String>,
    /// `TCP_USER_TIMEOUT`, millisecond granularity.
    pub user_timeout: Option<Duration>,
    /// `SO_KEEPALIVE` with `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`.
    pub keepalive: Option<Keepalive>,
    /// `TCP_SYNCNT`, SYN retransmissions of a connect, 1 to 127.
    pub syn_retries: Option<u8>,
    /// `TCP_FASTOPEN` on a listener: the queue of pending fast opens.
    pub fastopen_queue: Option<u32>,
    /// `TCP_FASTOPEN_CONNECT` on a connect: the SYN waits for the first data. A
    /// refusal then shows up as an error of that first write.
    pub fastopen_connect: Option<bool>,
    /// `TCP_DEFER_ACCEPT` on a listener, second granularity; the kernel rounds up
    /// to a whole number of SYN-ACK retransmissions (5 s becomes 7 s).
    pub defer_accept: Option<Duration>,
    /// `IP_TOS` / `IPV6_TCLASS`, the whole byte. Configured as `tos` or `dscp`.
    pub tos: Option<u8>,
    /// `SO_MARK` (needs `CAP_NET_ADMIN` or `CAP_NET_RAW`).
    pub mark: Option<u32>,
    /// `SO_PRIORITY`, 0 to 6 without `CAP_NET_ADMIN`.
    pub priority: Option<u32>,
    /// `SO_MAX_PACING_RATE`, bytes a second.
    pub max_pacing_rate: Option<u64>,
    /// `SO_BUSY_POLL`, microsecond granularity.
    pub busy_poll: Option<Duration>,
    /// `SO_INCOMING_CPU` on a listener: steer connections to the reactor whose
    /// CPU received them.
    pub incoming_cpu: Option<bool>,
    /// `SO_LINGER` at close; zero resets instead of closing. More than zero is not
    /// set: `close` of a lingering socket blocks even if the socket is
    /// non-blocking (measured: 2 s for `l_linger = 2`), and with it the reactor.
    pub linger: Option<Duration>,
    /// Local address of a connect (`bind` with `IP_BIND_ADDRESS_NO_PORT`).
    pub source: Option<IpAddr>,
    /// `SO_BINDTODEVICE`.
    pub interface: Option<String>,
    /// `IP_FREEBIND`: bind to an address that this host does not have (yet).
    pub free_bind: Option<bool>,
    /// `IPPROTO_MPTCP` instead of `IPPROTO_TCP` when the socket is made.
    pub mptcp: Option<bool>,
    /// `listen(2)` backlog; the kernel caps it at `net.core.somaxconn`.
    pub backlog: Option<u32>,
    /// Anything else, as numbers. On listeners and again on each socket accepted,
    /// since nobody knows which of them are inherited; before an upstream connect.
    pub raw: Vec<RawOption>,
}

/// Keepalive probes. `None` leaves that number to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keepalive {
    /// Silence before the first probe, second granularity.
    pub idle: Option<Duration>,
    /// Between probes, second granularity.
    pub interval: Option<Duration>,
    /// Unanswered probes before the connection is given up.
    pub probes: Option<u32>,
}

/// A socket option by its numbers, with an `int` value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RawOption {
    /// `level` of setsockopt(2).
    pub level: i32,
    /// `optname` of setsockopt(2).
    pub name: i32,
    /// The value, passed as a C `int`.
    pub value: i32,
}

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

/// Names one option; displayed as the key that configures it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(
    missing_docs,
    reason = "each is the field of SocketOptions of that name"
)]
pub enum OptionName {
    Nodelay,
    Quickack,
    SendBuffer,
    ReceiveBuffer,
    Mss,
    WindowClamp,
    NotsentLowat,
    Congestion,
    UserTimeout,
    Keepalive,
    KeepaliveIdle,
    KeepaliveInterval,
    KeepaliveProbes,
    SynRetries,
    FastopenQueue,
    FastopenConnect,
    DeferAccept,
    Tos,
    Mark,
    Priority,
    MaxPacingRate,
    BusyPoll,
    IncomingCpu,
    Linger,
    Source,
    Interface,
    FreeBind,
    Mptcp,
    Backlog,
    Raw(RawOption),
}

impl fmt::Display for OptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self {
            Self::Nodelay => "nodelay",
            Self::Quickack => "quickack",
            Self::SendBuffer => "send_buffer",
            Self::ReceiveBuffer => "receive_buffer",
            Self::Mss => "mss",
            Self::WindowClamp => "window_clamp",
            Self::NotsentLowat => "notsent_lowat",
            Self::Congestion => "congestion",
            Self::UserTimeout => "user_timeout",
            Self::Keepalive => "keepalive",
            Self::KeepaliveIdle => "keepalive.idle",
            Self::KeepaliveInterval => "keepalive.interval",
            Self::KeepaliveProbes => "keepalive.probes",
            Self::SynRetries => "syn_retries",
            Self::FastopenQueue => "fastopen_queue",
            Self::FastopenConnect => "fastopen_connect",
            Self::DeferAccept => "defer_accept",
            Self::Tos => "tos",
            Self::Mark => "mark",
            Self::Priority => "priority",
            Self::MaxPacingRate => "max_pacing_rate",
            Self::BusyPoll => "busy_poll",
            Self::IncomingCpu => "incoming_cpu",
            Self::Linger => "linger",
            Self::Source => "source",
            Self::Interface => "interface",
            Self::FreeBind => "free_bind",
            Self::Mptcp => "mptcp",
            Self::Backlog => "backlog",
            Self::Raw(raw) => {
                return write!(f, "raw {{ level = {}, name = {} }}", raw.level, raw.name);
            }
        };
        f.write_str(key)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
