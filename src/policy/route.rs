//! Where a session goes: routes with conditions about what it asks for, what it is, who
//! comes and where, compiled into one table.
//!
//! | which routes are asked | in which order |
//! | --- | --- |
//! | those with the very name that is asked for (`sni`, `host`) | as they stand |
//! | those with a suffix of it | as they stand |
//! | those without names | as they stand |
//!
//! All conditions of a route hold together, the values of one are alternatives. The first
//! route in this order whose conditions hold is taken; if none, the forward's own servers.
//! Names are looked up in tables: how many routes have names does not slow a session down.
//!
//! `share` is a part of the clients, the same ones always: each address has a place between 0
//! and 10,000 by a hash, and a share takes those from 0 on. So a larger share has the clients
//! of a smaller one and more, and shares of routes behind one another are bands.

mod cover;
mod table;

#[cfg(test)]
mod tests;

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

pub use cover::{Doubt, doubts};
pub use table::{Chosen, Routes};

/// The whole of the clients, in the units of [`Conditions::share`].
pub const ALL: u16 = 10_000;

/// A name as a condition: `a.example`, or `*.example`, every name below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// Exactly this one.
    Exact(String),
    /// Every name below this one, however far, and not this one itself.
    Below(String),
}

/// What a stream is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TLS: it begins with a handshake.
    Tls,
    /// HTTP/1, or HTTP/2 in plain.
    Http,
    /// SSH.
    Ssh,
    /// A header of the PROXY protocol, which nobody here took.
    Proxy,
    /// QUIC, of datagrams; it has TLS within.
    Quic,
    /// Anything else.
    Other,
}

/// A listener as a condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAt {
    /// At this address.
    Address(SocketAddr),
    /// At this port of any address.
    Port(u16),
    /// At this unix socket, as it is written.
    Unix(String),
}

/// The conditions of one route; one that is empty holds for everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// The server that TLS asks for.
    pub sni: Vec<Pattern>,
    /// The host that HTTP/1 asks for.
    pub host: Vec<Pattern>,
    /// Any of these is offered by TLS.
    pub alpn: Vec<String>,
    /// What the stream is.
    pub protocol: Vec<Protocol>,
    /// TLS that asks for no server.
    pub no_sni: bool,
    /// Who comes.
    pub client: Vec<IpNet>,
    /// Where.
    pub listener: Vec<ListenAt>,
    /// So many of [`ALL`] clients; `None` and `ALL` are everybody.
    pub share: Option<u16>,
}

/// What is known of a session.
#[derive(Debug, Clone, Default)]
pub struct Known<'a> {
    /// What the stream is; `None`: nobody looked.
    pub protocol: Option<Protocol>,
    /// The server that TLS asks for, lower case.
    pub sni: Option<&'a str>,
    /// The host that HTTP/1 asks for, lower case.
    pub host: Option<&'a str>,
    /// What TLS offers.
    pub alpn: &'a [Vec<u8>],
    /// Who comes; `None`: a client of a unix socket.
    pub client: Option<IpAddr>,
    /// The address that it came to; `None`: a unix socket's.
    pub listener: Option<SocketAddr>,
    /// That of the unix socket.
    pub unix: Option<&'a str>,
}

impl Conditions {
    /// Whether what TLS says has to be known.
    pub fn wants_hello(&self) -> bool {
        !self.sni.is_empty() || !self.alpn.is_empty() || self.no_sni
    }

    /// Whether what HTTP/1 says has to be known.
    pub fn wants_host(&self) -> bool {
        !self.host.is_empty()
    }

    /// Whether what the stream is has to be known.
    pub fn wants_protocol(&self) -> bool {
        self.wants_hello() || self.wants_host() || !self.protocol.is_empty()
    }

    /// The names, of either kind.
    fn names(&self) -> impl Iterator<Item = &Pattern> {
        self.sni.iter().chain(&self.host)
    }

    /// Whether all of them hold, names apart.
    fn hold(&self, known: &Known<'_>) -> bool {
        let any = |listed: bool, found: bool| !listed || found;
        let offered = |name: &String| known.alpn.iter().any(|it| it == name.as_bytes());
        let is_tls = known.protocol.is_some_and(Protocol::has_hello);
        any(!self.alpn.is_empty(), self.alpn.iter().any(offered))
            && any(
                !self.protocol.is_empty(),
                known.protocol.is_some_and(|it| self.protocol.contains(&it)),
            )
            && any(self.no_sni, is_tls && known.sni.is_none())
            && any(
                !self.client.is_empty(),
                known.client.is_some_and(|ip| self.client_is(ip)),
            )
            && any(
                !self.listener.is_empty(),
                self.listener.iter().any(|place| place.is(known)),
            )
            && self
                .share
                .is_none_or(|share| known.client.is_some_and(|ip| place_of(ip) < share))
    }

    fn client_is(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.client.iter().any(|network| network.contains(&ip))
    }
}

impl Pattern {
    /// Whether a name is one of these.
    pub fn is(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(suffix) => name
                .strip_suffix(suffix.as_str())
                .is_some_and(|front| front.len() > 1 && front.ends_with('.')),
        }
    }
}

impl ListenAt {
    fn is(&self, known: &Known<'_>) -> bool {
        match self {
            Self::Address(address) => known.listener == Some(*address),
            Self::Port(port) => known.listener.is_some_and(|it| it.port() == *port),
            Self::Unix(name) => known.unix == Some(name.as_str()),
        }
    }
}

/// The place of a client among [`ALL`]: by its address, of IPv6 by its /64, which is what
/// one customer has. The same in every process, reactor and version.
pub fn place_of(client: IpAddr) -> u16 {
    let bits = match client.to_canonical() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()) | 1 << 32,
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
    };
    // splitmix64 (Steele, Lea and Flood 2014): each bit of the address moves each of the
    // result.
    let mut z = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z % u64::from(ALL)) as u16
}

impl Protocol {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Tls,
        Self::Http,
        Self::Ssh,
        Self::Proxy,
        Self::Quic,
        Self::Other,
    ];

    /// Whether it begins with a hello of TLS.
    pub const fn has_hello(self) -> bool {
        matches!(self, Self::Tls | Self::Quic)
    }

    /// As a configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::Proxy => "proxy",
            Self::Quic => "quic",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Port(port) => write!(f, ":{port}"),
            Self::Unix(name) => f.write_str(name),
        }
    }
}
