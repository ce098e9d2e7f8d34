//! Where a client may go: ordered rules about names, networks and ports, held against
//! the name that was asked for and the address that is really dialled.
//!
//! The rules are compiled into tables: what a question costs depends on the parts of a
//! name and on the length of a prefix, not on how many rules there are. A rule's place
//! in the list decides, and what denies stands before all that allows.
//!
//! | rule | that allows | that denies |
//! | --- | --- | --- |
//! | about ports alone | every public address, at these ports | everything at these ports |
//! | about a name | the public addresses of such a name | such a name |
//! | about a network | its addresses, public or not | its addresses, behind NAT64 too |
//!
//! Invariant: a name never opens an address that is not public: who is master of a
//! name's records must not be master of what this host can reach. `0.0.0.0` and `::`,
//! which reach this very host, are never dialled.

use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use std::collections::BTreeMap;

use ipnet::IpNet;

use super::networks::Networks;
use super::ports::{Place, PortTable};
use super::public::{behind_nat64, is_public};

/// The port of a rule that allows and names none.
pub const DEFAULT_PORT: u16 = 443;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about.
    pub scope: Scope,
    /// Which ports; `None`: none is written. Then a rule that allows is for
    /// [`DEFAULT_PORT`], and one that denies for all of them.
    pub ports: Option<RangeInclusive<u16>>,
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Only the port counts.
    Anywhere,
    /// Exactly this name, lower case, without a trailing dot.
    Name(String),
    /// Every name below this one, and not this one itself.
    Below(String),
    /// The addresses of a network; IPv4-mapped ones count as IPv4.
    Network(IpNet),
}

/// The rules, compiled. See the module's documentation.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Rules before this place deny, the others allow.
    denying: Place,
    anywhere: PortTable,
    names: BTreeMap<String, PortTable>,
    /// By the name that others are below.
    parents: BTreeMap<String, PortTable>,
    networks: Networks,
    /// Ports at which some network is allowed.
    networks_allowed: PortTable,
    /// Single addresses that are allowed at ports that are written.
    listed: BTreeMap<IpAddr, PortTable>,
}

/// Rules that differ in their ports alone, to be made a table of.
type Ports = Vec<(RangeInclusive<u16>, Place)>;

impl Access {
    /// Of what is denied, whatever is allowed, and what is allowed; the rest is denied.
    pub fn new(deny: &[Rule], allow: &[Rule]) -> Self {
        let denying = deny.len() as Place;
        let mut anywhere = Ports::new();
        let mut names: BTreeMap<String, Ports> = BTreeMap::new();
        let mut parents: BTreeMap<String, Ports> = BTreeMap::new();
        let mut networks = Vec::new();
        let mut networks_allowed = Ports::new();
        let mut listed: BTreeMap<IpAddr, Ports> = BTreeMap::new();
        for (place, rule) in (0..).zip(deny.iter().chain(allow)) {
            let unwritten = if place < denying {
                1..=u16::MAX
            } else {
                DEFAULT_PORT..=DEFAULT_PORT
            };
            let ports = rule.ports.clone().unwrap_or(unwritten);
            match &rule.scope {
                Scope::Anywhere => anywhere.push((ports, place)),
                Scope::Name(name) => {
                    names.entry(name.clone()).or_default().push((ports, place));
                }
                Scope::Below(parent) => {
                    let below = parents.entry(parent.clone()).or_default();
                    below.push((ports, place));
                }
                Scope::Network(network) => {
                    if place >= denying {
                        networks_allowed.push((ports.clone(), place));
                        if rule.ports.is_some() && network.prefix_len() == network.max_prefix_len()
                        {
                            let at = listed.entry(network.addr()).or_default();
                            at.push((ports.clone(), place));
                        }
                    }
                    networks.push((*network, ports, place));
                }
            }
        }
        Self {
            denying,
            anywhere: PortTable::new(&anywhere),
            names: compiled(names),
            parents: compiled(parents),
            listed: compiled(listed),
            networks: Networks::new(networks),
            networks_allowed: PortTable::new(&networks_allowed),
        }
    }

    /// Whether a connection to this address may be made, for a client that asked for
    /// this name (lower case, without a trailing dot), if it was a name.
    pub fn admits(&self, name: Option<&str>, address: SocketAddr) -> bool {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        if ip.is_unspecified() {
            return false;
        }
        let anywhere = self.anywhere.first(port);
        let named = name.and_then(|name| self.first_named(name, port));
        let network = self.networks.first(ip, port);
        // By either of its forms: NAT64 leads to the address within.
        let within = behind_nat64(ip).and_then(|it| self.networks.first(it.into(), port));
        let firsts = [anywhere, named, network, within];
        if firsts.into_iter().any(|it| self.denies(it)) {
            return false;
        }
        network.is_some() || ((anywhere.is_some() || named.is_some()) && is_public(ip))
    }

    /// Whether this very address and port stand in what is allowed, by no network or range
    /// that just happens to hold it, unless of ports.
    pub fn lists(&self, address: SocketAddr) -> bool {
        let ports = self.listed.get(&address.ip().to_canonical());
        ports.is_some_and(|ports| ports.first(address.port()).is_some())
    }

    /// Whether no address of this name could be admitted at this port: then there is
    /// no need to look it up, and nobody learns by it whether it exists.
    pub fn is_hopeless(&self, name: &str, port: u16) -> bool {
        let (anywhere, named) = (self.anywhere.first(port), self.first_named(name, port));
        let might = [anywhere, named, self.networks_allowed.first(port)];
        self.denies(anywhere) || self.denies(named) || might.iter().all(Option::is_none)
    }

    fn denies(&self, first: Option<Place>) -> bool {
        first.is_some_and(|place| place < self.denying)
    }

    /// The first rule about this name, or about one that it is below.
    fn first_named(&self, name: &str, port: u16) -> Option<Place> {
        let itself = self.names.get(name);
        let dots = name.match_indices('.').filter(|(at, _)| *at > 0);
        let above = dots.filter_map(|(at, _)| self.parents.get(&name[at + 1..]));
        let tables = itself.into_iter().chain(above);
        tables.filter_map(|table| table.first(port)).min()
    }
}

/// Tables of what was collected by name or by address.
fn compiled<K: Ord>(collected: BTreeMap<K, Ports>) -> BTreeMap<K, PortTable> {
    let collected = collected.into_iter();
    collected
        .map(|(key, ports)| (key, PortTable::new(&ports)))
        .collect()
}

#[cfg(test)]
mod tests;
