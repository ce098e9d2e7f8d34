//! How a session ended: who ended it, in which phase, and why.

use serde::{Deserialize, Serialize};

use super::Side;

/// Who brought the end about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Both sides ended in good order.
    Both,
    /// One side: it reset, refused, vanished or stalled.
    Peer(Side),
    /// The forwarder: an operator's order or a lack of resources.
    Forwarder,
}

/// What the session was doing when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waiting for a server that has room.
    Queue,
    /// No upstream yet.
    Connect,
    /// Bytes could flow both ways.
    Data,
    /// One direction had ended in good order already.
    HalfClosed,
    /// Waiting for the request that says where to go, or judging it.
    Request,
}

impl Stage {
    /// That of five names which belongs to this stage, in their order.
    const fn name(self, names: [&'static str; 5]) -> &'static str {
        names[self as usize]
    }
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Every byte and both ends were passed on.
    Finished,
    /// The peer reset the connection.
    Reset,
    /// The peer takes no more bytes (EPIPE).
    BrokenPipe,
    /// The kernel gave the peer up: keepalive or `TCP_USER_TIMEOUT`.
    PeerTimeout,
    /// The connect was refused.
    Refused,
    /// No route, or the network or a firewall said no.
    Unreachable,
    /// A connect of this host to itself (the server is down and its port lies in
    /// the ephemeral range); treated as refused.
    SelfConnect,
    /// No answer within `connect_timeout`.
    ConnectTimeout,
    /// No local port is free towards this server.
    PortsExhausted,
    /// The local address or interface that a connect should come from is not there.
    NoSource,
    /// Every server is down, in maintenance, or was tried.
    NoServer,
    /// Every server has as many sessions as it may, and so many wait already.
    QueueFull,
    /// Every server had as many sessions as it may, for `queue_timeout`.
    QueueTimeout,
    /// The server was found to be down, and its sessions are to end then.
    ServerDown,
    /// Out of descriptors.
    NoDescriptors,
    /// The kernel is out of memory for sockets.
    NoMemory,
    /// Silence for `idle_timeout`.
    IdleTimeout,
    /// No server has ever answered the flow, for `udp_unanswered_timeout`.
    Unanswered,
    /// Silence for `half_close_timeout` after one side had ended.
    HalfCloseTimeout,
    /// The peer took no byte for `write_stall_timeout`.
    WriteStall,
    /// The client ended before its request was complete.
    NoRequest,
    /// The request was not complete in time.
    RequestTimeout,
    /// The request is malformed, too large, or none that is served here.
    BadRequest,
    /// Its first bytes are malformed, or too many, and a route was to be found by them.
    BadHello,
    /// A route turns it away.
    Rejected,
    /// No PROXY header came, and one is required.
    NoProxyHeader,
    /// The PROXY header is malformed, or of a version that is not taken.
    BadProxyHeader,
    /// A PROXY header is required, and its sender is not trusted with one.
    UntrustedProxy,
    /// The access list does not let it pass.
    Denied,
    /// Its client has as many connections as it may at every server that it could go to.
    ClientLimit,
    /// It lets no address pass that the requested name has. The client is answered as if there
    /// were no such name: which there are is none of its business.
    AddressDenied,
    /// Credentials are missing or wrong.
    Unauthorised,
    /// The requested name has no address, or no name server can tell.
    NameFailed,
    /// No name server answered in time.
    NameTimeout,
    /// Too many requests are being looked into.
    Busy,
    /// Still open at the end of `drain_timeout`.
    DrainTimeout,
    /// The operator asked for an end at once.
    Stopped,
    /// The operator picked this session out to be ended.
    Killed,
    /// Its process was killed while it held bytes of the session, or may have.
    Crashed,
    /// Its client had never said anything, or no server had ever answered it, and no place
    /// was left for another one.
    MadeRoom,
    /// Any other errno; the kernel's are below 4096.
    Errno(u16),
}

impl Cause {
    /// A stable name for records and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Reset => "reset",
            Self::BrokenPipe => "broken_pipe",
            Self::PeerTimeout => "peer_timeout",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::SelfConnect => "self_connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::PortsExhausted => "ports_exhausted",
            Self::NoSource => "no_source",
            Self::NoServer => "no_server",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::ServerDown => "server_down",
            Self::NoDescriptors => "no_descriptors",
            Self::NoMemory => "no_memory",
            Self::IdleTimeout => "idle_timeout",
            Self::Unanswered => "unanswered",
            Self::HalfCloseTimeout => "half_close_timeout",
            Self::WriteStall => "write_stall",
            Self::NoRequest => "no_request",
            Self::RequestTimeout => "request_timeout",
            Self::BadRequest => "bad_request",
            Self::BadHello => "bad_hello",
            Self::Rejected => "rejected",
            Self::NoProxyHeader => "no_proxy_header",
            Self::BadProxyHeader => "bad_proxy_header",
            Self::UntrustedProxy => "untrusted_proxy",
            Self::Denied => "denied",
            Self::ClientLimit => "max_per_client",
            Self::AddressDenied => "address_denied",
            Self::Unauthorised => "unauthorised",
            Self::NameFailed => "name_failed",
            Self::NameTimeout => "name_timeout",
            Self::Busy => "busy",
            Self::DrainTimeout => "drain_timeout",
            Self::Stopped => "stopped",
            Self::Killed => "killed",
            Self::Crashed => "crashed",
            Self::MadeRoom => "made_room",
            Self::Errno(_) => "errno",
        }
    }

    /// Whether a lack on this machine is to blame, never the server.
    pub const fn is_local_shortage(self) -> bool {
        matches!(
            self,
            Self::PortsExhausted
                | Self::NoSource
                | Self::NoDescriptors
                | Self::NoMemory
                | Self::Busy
                | Self::MadeRoom
        )
    }

    /// Whether a request was turned down for what it is.
    pub const fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::BadRequest
                | Self::BadHello
                | Self::Rejected
                | Self::NoProxyHeader
                | Self::BadProxyHeader
                | Self::UntrustedProxy
                | Self::Denied
                | Self::ClientLimit
                | Self::AddressDenied
                | Self::Unauthorised
        )
    }

    /// Whether a connection that failed so is over: the kernel answers every
    /// further call on it with an end or an error. After anything else, such as a
    /// lack of memory, it lives on and would say neither of its own accord.
    pub const fn is_fatal(self) -> bool {
        matches!(
            self,
            Self::Reset | Self::BrokenPipe | Self::PeerTimeout | Self::Unreachable
        )
    }

    const fn is_timeout(self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout
                | Self::QueueTimeout
                | Self::IdleTimeout
                | Self::Unanswered
                | Self::HalfCloseTimeout
                | Self::WriteStall
                | Self::PeerTimeout
                | Self::RequestTimeout
                | Self::NameTimeout
        )
    }
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Who.
    pub who: Who,
    /// When.
    pub stage: Stage,
    /// Why.
    pub cause: Cause,
}

impl Ending {
    /// The two-letter code HAProxy's users know. First who: `-` nobody, `C`/`S`
    /// client or server by an error, `c`/`s` by a timeout, `R` a lack of
    /// resources, `K` killed by the operator, `D` because the server is down, `P` a
    /// request that was turned down. Then when: `-` at the end, `Q` in the queue, `C`
    /// connecting, `D` data, `L` last data after one side had ended, `R` the request.
    pub const fn code(self) -> &'static str {
        let who = match (self.who, self.cause) {
            (Who::Both, _) => return "--",
            (Who::Forwarder, cause) if cause.is_local_shortage() => 'R',
            (Who::Forwarder, Cause::ServerDown) => 'D',
            (Who::Forwarder, cause) if cause.is_refusal() => 'P',
            (Who::Forwarder, _) => 'K',
            (Who::Peer(Side::Client), cause) if cause.is_timeout() => 'c',
            (Who::Peer(Side::Client), _) => 'C',
            (Who::Peer(Side::Upstream), cause) if cause.is_timeout() => 's',
            (Who::Peer(Side::Upstream), _) => 'S',
        };
        match (who, self.stage) {
            ('R', stage) => stage.name(["RQ", "RC", "RD", "RL", "RR"]),
            ('P', stage) => stage.name(["PQ", "PC", "PD", "PL", "PR"]),
            ('K', stage) => stage.name(["KQ", "KC", "KD", "KL", "KR"]),
            ('D', stage) => stage.name(["DQ", "DC", "DD", "DL", "DR"]),
            ('c', stage) => stage.name(["cQ", "cC", "cD", "cL", "cR"]),
            ('C', stage) => stage.name(["CQ", "CC", "CD", "CL", "CR"]),
            ('s', stage) => stage.name(["sQ", "sC", "sD", "sL", "sR"]),
            (_, stage) => stage.name(["SQ", "SC", "SD", "SL", "SR"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_haproxy() {
        let code = |who, stage, cause| Ending { who, stage, cause }.code();
        assert_eq!(code(Who::Both, Stage::HalfClosed, Cause::Finished), "--");
        assert_eq!(
            code(Who::Peer(Side::Client), Stage::Data, Cause::IdleTimeout),
            "cD"
        );
        assert_eq!(
            code(Who::Peer(Side::Upstream), Stage::Connect, Cause::Refused),
            "SC"
        );
        assert_eq!(
            code(
                Who::Peer(Side::Upstream),
                Stage::Connect,
                Cause::ConnectTimeout
            ),
            "sC"
        );
        assert_eq!(
            code(Who::Forwarder, Stage::Connect, Cause::PortsExhausted),
            "RC"
        );
        assert_eq!(code(Who::Forwarder, Stage::Request, Cause::Denied), "PR");
        let slow = Cause::RequestTimeout;
        assert_eq!(code(Who::Peer(Side::Client), Stage::Request, slow), "cR");
        assert_eq!(
            code(Who::Forwarder, Stage::HalfClosed, Cause::DrainTimeout),
            "KL"
        );
    }
}
