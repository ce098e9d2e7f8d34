//! Every TCP and socket option that matters for a transfer, as one struct per
//! leg: read from the configuration, applied to sockets, and read back.

use std::net::IpAddr;
use std::time::Duration;

/// The options of one leg. `None` leaves the choice to the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SocketOptions {
    /// `TCP_NODELAY`.
    pub nodelay: Option<bool>,
    /// `TCP_QUICKACK`. `false` on an upstream leg is set before the connect, so
    /// that the handshake's last ACK rides on the first data.
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
    /// `TCP_SYNCNT`, SYN retransmissions of a connect.
    pub syn_retries: Option<u8>,
    /// `TCP_FASTOPEN` on a listener: the queue of pending fast opens.
    pub fastopen_queue: Option<u32>,
    /// `TCP_FASTOPEN_CONNECT` on a connect.
    pub fastopen_connect: Option<bool>,
    /// `TCP_DEFER_ACCEPT` on a listener, second granularity.
    pub defer_accept: Option<Duration>,
    /// `IP_TOS` / `IPV6_TCLASS`, the whole byte. Configured as `tos` or `dscp`.
    pub tos: Option<u8>,
    /// `SO_MARK` (needs CAP_NET_ADMIN or CAP_NET_RAW).
    pub mark: Option<u32>,
    /// `SO_PRIORITY`, 0 to 6 without CAP_NET_ADMIN.
    pub priority: Option<u32>,
    /// `SO_MAX_PACING_RATE`, bytes a second.
    pub max_pacing_rate: Option<u64>,
    /// `SO_BUSY_POLL`, microsecond granularity.
    pub busy_poll: Option<Duration>,
    /// `SO_INCOMING_CPU` on a listener: steer connections to the reactor whose
    /// CPU received them.
    pub incoming_cpu: Option<bool>,
    /// `SO_LINGER` at close; zero resets instead of closing.
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
    /// Anything else, as numbers.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawOption {
    /// `level` of setsockopt(2).
    pub level: i32,
    /// `optname` of setsockopt(2).
    pub name: i32,
    /// The value, passed as a C `int`.
    pub value: i32,
}
