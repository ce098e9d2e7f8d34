//! Why a datagram is not passed on: each is counted, by one of these.

use crate::net::datagram::Lost;
use crate::observe::counters::Counters;

/// Causes of drops that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reactor) enum Why {
    /// The kernel could not send it.
    Lost(Lost),
    /// The client is not let in.
    Denied,
    /// It is more than a rate lets through.
    Rate,
    /// There are as many flows as there may be, all of them answered.
    MaxFlows,
    /// There are as many connections as the forward, or its servers, may have.
    Limit,
    /// No server is to be had.
    NoServer,
    /// No descriptor, no port or no memory is left here.
    Shortage,
    /// Nobody can be answered at the address that it came from.
    BadSource,
    /// It would come back to this process.
    Loop,
    /// It answers a flow that is over.
    Late,
    /// More answers than were asked for.
    Unexpected,
    /// The client would get more than it has earned so far.
    Unearned,
    /// It was to say whom it is for, and does not, or not rightly, or who sent it is not trusted with
    /// that.
    ProxyHeader,
    /// It begins a connection of QUIC and does not say whose, in time or at all.
    NoHello,
    /// Nobody new is taken any more.
    Draining,
}

impl Why {
    /// Counts so many datagrams.
    pub(in crate::reactor) fn count(self, counters: &Counters, datagrams: u32) {
        let counter = match self {
            Self::Lost(Lost::TooBig) => &counters.udp_dropped_too_big,
            Self::Lost(Lost::SendQueue) => &counters.udp_dropped_send_queue,
            Self::Lost(Lost::NoBuffers) => &counters.udp_dropped_no_buffers,
            Self::Lost(Lost::Unreachable) => &counters.udp_dropped_unreachable,
            Self::Lost(Lost::Refused) => &counters.udp_dropped_refused,
            Self::Lost(Lost::Failed) => &counters.udp_dropped_failed,
            Self::Denied => &counters.udp_dropped_denied,
            Self::Rate => &counters.udp_dropped_rate,
            Self::MaxFlows => &counters.udp_dropped_max_flows,
            Self::Limit => &counters.udp_dropped_limit,
            Self::NoServer => &counters.udp_dropped_no_server,
            Self::Shortage => &counters.udp_dropped_shortage,
            Self::BadSource => &counters.udp_dropped_bad_source,
            Self::Loop => &counters.udp_dropped_loop,
            Self::Late => &counters.udp_dropped_late,
            Self::Unexpected => &counters.udp_dropped_unexpected,
            Self::Unearned => &counters.udp_dropped_unearned,
            Self::ProxyHeader => &counters.udp_dropped_proxy_header,
            Self::NoHello => &counters.udp_dropped_no_hello,
            Self::Draining => &counters.udp_dropped_draining,
        };
        counter.add(u64::from(datagrams));
    }
}
