//! Where requests may go: the lists `allow` and `deny`, held against the name that was
//! asked for and the address that is really dialled.
//!
//! | rule | in `allow` | in `deny` |
//! | --- | --- | --- |
//! | `:443`, `:8000-8099`, `:*` | every public address, at these ports | everything at these ports |
//! | `host.example`, `*.example.com` | the public addresses of such a name | such a name |
//! | `10.0.0.0/8`, `192.0.2.1`, `2001:db8::/32` | these addresses, public or not | these addresses |
//!
//! A port follows a colon (`10.0.0.0/8:22`, `[2001:db8::/32]:443`); without one a rule
//! of `allow` is for port 443 and a rule of `deny` for every port. Deny wins. What no
//! rule allows is denied.
//!
//! Invariant: a name never opens an address that is not public: who is master of a
//! name's records must not be master of what this host can reach. `0.0.0.0` and `::`,
//! which reach this very host, are never dialled.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::super::report::Fault;
use crate::proto::host;

/// The port of a rule of `allow` that names none.
const DEFAULT_PORT: u16 = 443;

/// The two lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// What is allowed; by default `:443`, every public address at that port.
    pub allow: Vec<Rule>,
    /// What is not, whatever `allow` says; nothing by default.
    pub deny: Vec<Rule>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            allow: vec![Rule {
                destination: Destination::Anywhere,
                ports: Some(DEFAULT_PORT..=DEFAULT_PORT),
            }],
            deny: Vec::new(),
        }
    }
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about.
    pub destination: Destination,
    /// Which ports; `None`: none is written.
    pub ports: Option<RangeInclusive<u16>>,
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Only the port counts.
    Anywhere,
    /// Exactly this name, lower case, without a trailing dot.
    Name(String),
    /// Every name below this one, and not this one itself.
    Below(String),
    /// The addresses of a network; IPv4-mapped ones count as IPv4.
    Network {
        /// Its first address.
        base: IpAddr,
        /// Bits that are the same in all of them.
        prefix: u8,
    },
}

impl Access {
    /// Whether a connection to this address may be made, for a client that asked for
    /// this name, if it was a name.
    pub fn admits(&self, name: Option<&str>, address: SocketAddr) -> bool {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        if ip.is_unspecified() || self.denies(name, Some(ip), port) {
            return false;
        }
        self.allow.iter().any(|rule| {
            rule.is_for(port, DEFAULT_PORT..=DEFAULT_PORT)
                && match &rule.destination {
                    Destination::Anywhere => is_public(ip),
                    Destination::Network { .. } => rule.destination.has_address(ip),
                    Destination::Name(_) | Destination::Below(_) => {
                        rule.destination.has_name(name) && is_public(ip)
                    }
                }
        })
    }

    /// Whether no address of this name could be admitted at this port: then there is
    /// no need to look it up, and nobody learns by it whether it exists.
    pub fn is_hopeless(&self, name: &str, port: u16) -> bool {
        let might = |rule: &Rule| {
            let named = match &rule.destination {
                Destination::Anywhere | Destination::Network { .. } => true,
                named => named.has_name(Some(name)),
            };
            named && rule.is_for(port, DEFAULT_PORT..=DEFAULT_PORT)
        };
        self.denies(Some(name), None, port) || !self.allow.iter().any(might)
    }

    fn denies(&self, name: Option<&str>, ip: Option<IpAddr>, port: u16) -> bool {
        self.deny.iter().any(|rule| {
            rule.is_for(port, 1..=u16::MAX)
                && match &rule.destination {
                    Destination::Anywhere => true,
                    named @ (Destination::Name(_) | Destination::Below(_)) => named.has_name(name),
                    // By either of its forms: NAT64 leads to the address within.
                    network @ Destination::Network { .. } => ip.is_some_and(|ip| {
                        let within = behind_nat64(ip).map(IpAddr::V4);
                        network.has_address(ip)
                            || within.is_some_and(|within| network.has_address(within))
                    }),
                }
        })
    }
}

impl Rule {
    fn is_for(&self, port: u16, unwritten: RangeInclusive<u16>) -> bool {
        self.ports.as_ref().unwrap_or(&unwritten).contains(&port)
    }
}

impl Destination {
    fn has_name(&self, asked: Option<&str>) -> bool {
        match (self, asked) {
            (Self::Name(name), Some(asked)) => name == asked,
            (Self::Below(parent), Some(asked)) => asked
                .strip_suffix(parent.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            _ => false,
        }
    }

    fn has_address(&self, ip: IpAddr) -> bool {
        match (self, ip) {
            (
                Self::Network {
                    base: IpAddr::V4(base),
                    prefix,
                },
                IpAddr::V4(ip),
            ) => mask4(*base, *prefix) == mask4(ip, *prefix),
            (
                Self::Network {
                    base: IpAddr::V6(base),
                    prefix,
                },
                IpAddr::V6(ip),
            ) => mask6(*base, *prefix) == mask6(ip, *prefix),
            _ => false,
        }
    }
}

fn mask4(ip: Ipv4Addr, prefix: u8) -> u32 {
    let shift = 32 - u32::from(prefix);
    ip.to_bits().checked_shr(shift).unwrap_or(0)
}

fn mask6(ip: Ipv6Addr, prefix: u8) -> u128 {
    let shift = 128 - u32::from(prefix);
    ip.to_bits().checked_shr(shift).unwrap_or(0)
}

/// IPv4 networks that are not the public internet: the special-purpose registry of
/// RFC 6890 as of 2024, and multicast.
const SPECIAL_V4: [([u8; 4], u8); 15] = [
    ([0, 0, 0, 0], 8),       // this network
    ([10, 0, 0, 0], 8),      // private (RFC 1918)
    ([100, 64, 0, 0], 10),   // shared by carriers (RFC 6598)
    ([127, 0, 0, 0], 8),     // loopback
    ([169, 254, 0, 0], 16),  // link-local, and the metadata services of clouds
    ([172, 16, 0, 0], 12),   // private
    ([192, 0, 0, 0], 24),    // protocol assignments
    ([192, 0, 2, 0], 24),    // documentation
    ([192, 88, 99, 0], 24),  // 6to4 relays, given up
    ([192, 168, 0, 0], 16),  // private
    ([198, 18, 0, 0], 15),   // benchmarks
    ([198, 51, 100, 0], 24), // documentation
    ([203, 0, 113, 0], 24),  // documentation
    ([224, 0, 0, 0], 4),     // multicast
    ([240, 0, 0, 0], 4),     // reserved, and broadcast
];

/// Networks within 2000::/3, outside of which nothing is public, that are not either.
const SPECIAL_V6: [([u16; 2], u8); 4] = [
    ([0x2001, 0], 23),     // protocol assignments; Teredo, which wraps IPv4
    ([0x2001, 0xdb8], 32), // documentation
    ([0x2002, 0], 16),     // 6to4, which wraps IPv4
    ([0x3fff, 0], 20),     // documentation
];

/// Whether an address is one of the public internet: neither of this host nor of a
/// private or link-local network, nor of any other special purpose. An address of NAT64
/// (64:ff9b::/96) is what the IPv4 address within it is.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !SPECIAL_V4
            .iter()
            .any(|(base, prefix)| mask4((*base).into(), *prefix) == mask4(ip, *prefix)),
        IpAddr::V6(ip) => {
            if let Some(within) = behind_nat64(ip.into()) {
                return is_public(within.into());
            }
            let base = |[a, b]: [u16; 2]| Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0);
            mask6(ip, 3) == mask6(base([0x2000, 0]), 3)
                && !SPECIAL_V6
                    .iter()
                    .any(|(it, prefix)| mask6(base(*it), *prefix) == mask6(ip, *prefix))
        }
    }
}

/// The IPv4 address that an address of NAT64 (64:ff9b::/96, RFC 6052) leads to.
fn behind_nat64(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V6(ip) if ip.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            Some(Ipv4Addr::from_bits(ip.to_bits() as u32))
        }
        _ => None,
    }
}

// Text.

const FORMS: &str = "such as \"*.example.com:443\", \"10.0.0.0/8:22\", \"[2001:db8::/32]:443\", \
                     \":8000-8099\"";

/// What is wrong with the text of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    problem: String,
    remedy: String,
}

impl From<RuleError> for Fault {
    fn from(error: RuleError) -> Self {
        Self::new(error.problem).remedy(error.remedy)
    }
}

fn wrong<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Result<T, RuleError> {
    Err(RuleError {
        problem: problem.into(),
        remedy: remedy.into(),
    })
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (destination, ports) = match text.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((inner, "")) => (inner, None),
                Some((inner, rest)) if rest.starts_with(':') => (inner, Some(&rest[1..])),
                _ => return wrong("the bracket is not closed, or no port follows it", FORMS),
            },
            None if text.matches(':').count() > 1 => (text, None),
            None => match text.rsplit_once(':') {
                Some((destination, ports)) => (destination, Some(ports)),
                None => (text, None),
            },
        };
        if destination.is_empty() && ports.is_none() {
            return wrong("an entry cannot be empty", FORMS);
        }
        Ok(Self {
            destination: destination_of(destination)?,
            ports: ports.map(ports_of).transpose()?,
        })
    }
}

fn destination_of(text: &str) -> Result<Destination, RuleError> {
    if text.is_empty() {
        return Ok(Destination::Anywhere);
    }
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    if let Ok(ip) = address.parse::<IpAddr>() {
        return network(ip, prefix);
    }
    if prefix.is_some() {
        return wrong("there is no address before the slash", FORMS);
    }
    let (name, below) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    if name.contains('*') {
        let remedy = "a star stands only in front (\"*.example.com\"); for any host, write the \
                      port alone (\":443\")";
        return wrong("a star stands where it cannot", remedy);
    }
    let name = host::parse(name).or_else(|error| wrong(error.to_string(), error.remedy()))?;
    Ok(if below {
        Destination::Below(name)
    } else {
        Destination::Name(name)
    })
}

fn network(ip: IpAddr, prefix: Option<&str>) -> Result<Destination, RuleError> {
    if ip.to_canonical() != ip {
        let remedy = format!("write it as IPv4: {}", ip.to_canonical());
        return wrong("an IPv4-mapped address counts as IPv4", remedy);
    }
    let max = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix.map(str::parse::<u8>) {
        None => max,
        Some(Ok(prefix)) if prefix <= max => prefix,
        Some(_) => {
            return wrong(
                "the length of the prefix is out of range",
                format!("write a number from 0 to {max} behind the slash"),
            );
        }
    };
    let base = match ip {
        IpAddr::V4(ip) => {
            let bits = mask4(ip, prefix).checked_shl(32 - u32::from(prefix));
            IpAddr::from(Ipv4Addr::from_bits(bits.unwrap_or(0)))
        }
        IpAddr::V6(ip) => {
            let bits = mask6(ip, prefix).checked_shl(128 - u32::from(prefix));
            IpAddr::from(Ipv6Addr::from_bits(bits.unwrap_or(0)))
        }
    };
    if base != ip {
        return wrong(
            "the address has bits behind its prefix",
            format!("write {base}/{prefix}, or the address alone"),
        );
    }
    Ok(Destination::Network { base, prefix })
}

fn ports_of(text: &str) -> Result<RangeInclusive<u16>, RuleError> {
    const REMEDY: &str = "such as \":443\", \":8000-8099\" or \":*\"";
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => wrong("a port is a number from 1 to 65535", REMEDY),
    };
    if text == "*" {
        return Ok(1..=u16::MAX);
    }
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (port(low)?, port(high)?);
    if low > high {
        return wrong(
            "the range of ports runs backwards",
            format!("write {high}-{low}"),
        );
    }
    Ok(low..=high)
}

impl fmt::Display for Rule {
    /// As it can be read again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.destination {
            Destination::Anywhere => {}
            Destination::Name(name) => f.write_str(name)?,
            Destination::Below(name) => write!(f, "*.{name}")?,
            Destination::Network { base, prefix } if base.is_ipv4() => {
                write!(f, "{base}/{prefix}")?;
            }
            Destination::Network { base, prefix } => write!(f, "[{base}/{prefix}]")?,
        }
        match &self.ports {
            None => Ok(()),
            Some(ports) if *ports == (1..=u16::MAX) => f.write_str(":*"),
            Some(ports) if ports.start() == ports.end() => write!(f, ":{}", ports.start()),
            Some(ports) => write!(f, ":{}-{}", ports.start(), ports.end()),
        }
    }
}

#[cfg(test)]
mod tests;
