//! Where a client wants to go: a host and a port, and nothing else.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;

use crate::proto::host;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name, lower case, without a trailing dot.
    Name(String),
    /// An address; IPv4-mapped IPv6 addresses are IPv4.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Target {
    /// Reads authority-form: `host:port`, `192.0.2.1:443`, `[2001:db8::1]:443`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains("://") {
            return Err("the target has a scheme; it is just HOST:PORT");
        }
        if text.contains(['/', '?', '#']) {
            return Err("the target has a path or a query; it is just HOST:PORT");
        }
        if text.contains('@') {
            return Err("the target has user information; it is just HOST:PORT");
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (inner, rest) = rest
                .split_once(']')
                .ok_or("the bracket of the IPv6 address is not closed")?;
            let address: Ipv6Addr = inner
                .parse()
                .map_err(|_| "there is no IPv6 address in the brackets")?;
            let port = rest.strip_prefix(':').ok_or("the port is missing")?;
            return Ok(Self {
                host: Host::Address(IpAddr::V6(address).to_canonical()),
                port: port_of(port)?,
            });
        }
        let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
        if host.contains(':') {
            return Err("an IPv6 address belongs in brackets");
        }
        Ok(Self {
            host: host_of(host)?,
            port: port_of(port)?,
        })
    }
}

/// A dotted quad of decimal numbers is an address. Any other number is none: what
/// inet_aton would make of `2130706433` or `0177.0.0.1` is refused with the names
/// that cannot be.
fn host_of(text: &str) -> Result<Host, &'static str> {
    if text.is_empty() {
        return Err("the host is missing");
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Address(address.into()));
    }
    host::parse(text)
        .map(Host::Name)
        .map_err(|_| "the host is neither a name nor an address")
}

/// 1 to 65535, in decimal digits without a zero in front.
fn port_of(text: &str) -> Result<u16, &'static str> {
    if text.is_empty() {
        return Err("the port is missing");
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.starts_with('0') {
        return Err("the port is not a number from 1 to 65535");
    }
    text.parse()
        .map_err(|_| "the port is not a number from 1 to 65535")
}
