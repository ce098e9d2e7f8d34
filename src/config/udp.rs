//! What a forward does with datagrams: the keys that begin with UDP.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::kind::{Limit, Optional, Switch, Timeout, choice, int};
use super::section::section;
use super::words::words;

words! {
    /// `protocol =`.
    pub enum Protocol {
        /// Connections.
        Tcp = "tcp",
        /// Datagrams.
        Udp = "udp",
        /// Both, at the same addresses.
        Both = "tcp+udp",
    }
}

impl Protocol {
    /// Whether it forwards connections.
    pub const fn has_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Both)
    }

    /// Whether it forwards datagrams.
    pub const fn has_udp(self) -> bool {
        matches!(self, Self::Udp | Self::Both)
    }
}

const COUNTS: RangeInclusive<i64> = 1..=u32::MAX as i64;

section! {
    /// What a forward does with datagrams.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Udp, UdpKeys {
        keys {
            /// UDP: a flow (a client's address and port) ends when it was answered once and no
            /// datagram has passed either way for so long. RFC 4787 wants two minutes at least.
            idle as "udp_idle_timeout": Duration = Duration::from_secs(120), Timeout, Live;
            /// UDP: a flow that no server has ever answered ends after so long a silence.
            unanswered as "udp_unanswered_timeout": Duration = Duration::from_secs(30), Timeout, Live;
            /// UDP: after so many datagrams of a client the next one begins another flow, which may
            /// go to another server.
            requests: Option<u32> = None, Optional(int(COUNTS)), Live,
                shown "no end", example "1";
            /// UDP: answers expected to each datagram of a client; once all have come the flow ends,
            /// and one more is dropped. 1 is right for DNS.
            responses: Option<u32> = None, Optional(int(0..=i64::from(u32::MAX))), Live,
                shown "any number", example "1";
            /// UDP: flows at the most. When that is reached, the flow that was longest without any
            /// answer makes room; flows that were answered never do. Auto is what descriptors allow.
            max_flows: Option<u32> = None, Limit, Live;
            /// UDP: what happens to a datagram larger than the path to the server takes. `never` is
            /// right for QUIC, which looks for that size itself.
            fragment: Fragment = Fragment::Allow, choice(), Live;
            /// UDP: flows of a server that is down, or not in the pool any more, go to another server
            /// with their next datagram, or stay.
            on_down: OnServerDown = OnServerDown::Move, choice(), Live;
            /// UDP: until a client has sent again after an answer, it gets at most so many times the
            /// bytes that it sent: a forged sender is no gain for who forged it.
            max_reply_factor: Option<u32> = None, Optional(int(1..=1_000_000)), Live,
                shown "no bound", example "10";
            /// UDP: connections of QUIC are looked at: `[[forward.route]]` goes by the server name and
            /// the protocols that they ask for, and a client whose port changes keeps its server.
            quic: bool = false, Switch, Live;
        }
    }
}

words! {
    /// `fragment =`.
    pub enum Fragment {
        /// It goes in fragments; the default of IP.
        Allow = "allow",
        /// It is dropped, here or on the way.
        Never = "never",
    }
}

words! {
    /// `on_down =` of a forward.
    pub enum OnServerDown {
        /// They go elsewhere.
        Move = "move",
        /// They stay.
        Keep = "keep",
    }
}
