//! Where a client may go: ordered rules about names, networks and ports, held against
//! the name that was asked for and the address that is really dialled.
//!
//! The rules are compiled into tables: what a question costs depends on the parts of a
//! name and on the length of a prefix, not on how many rules there are. A rule's place
//! in the list decides: the first that is about a question. Two lists, of what is denied and
//! of what is allowed, are one in which all that denies stands before all that allows.
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

use super::networks::{NetworkRule, Networks};
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

/// A rule and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Denies, or allows.
    pub denies: bool,
    /// About what.
    pub rule: Rule,
}

/// The rules, compiled. See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Access {
    denying: Tables,
    allowing: Tables,
    /// Ports at which some network is allowed.
    networks_allowed: PortTable,
    /// Single addresses that are allowed at ports that are written.
    listed: BTreeMap<IpAddr, PortTable>,
}

/// The rules that do one of the two, by what they are about.
#[derive(Debug, Clone, Default, PartialEq)]
struct Tables {
    anywhere: PortTable,
    names: BTreeMap<String, PortTable>,
    /// By the name that others are below.
    parents: BTreeMap<String, PortTable>,
    networks: Networks,
}

/// Rules that differ in their ports alone, to be made a table of.
type Ports = Vec<(RangeInclusive<u16>, Place)>;

impl Access {
    /// Of what is denied, whatever is allowed, and what is allowed; the rest is denied.
    pub fn new(deny: &[Rule], allow: &[Rule]) -> Self {
        let verdict = |denies: bool| {
            move |rule: &Rule| Verdict {
                denies,
                rule: rule.clone(),
            }
        };
        let denied = deny.iter().map(verdict(true));
        Self::ordered(denied.chain(allow.iter().map(verdict(false))))
    }

    /// Of rules of which the first that is about a question decides; without one it is denied.
    pub fn ordered(rules: impl IntoIterator<Item = Verdict>) -> Self {
        let (mut denying, mut allowing) = (Gathered::default(), Gathered::default());
        let mut networks_allowed = Ports::new();
        let mut listed: BTreeMap<IpAddr, Ports> = BTreeMap::new();
        for (place, Verdict { denies, rule }) in (0..).zip(rules) {
            let unwritten = if denies {
                1..=u16::MAX
            } else {
                DEFAULT_PORT..=DEFAULT_PORT
            };
            let written = rule.ports.is_some();
            let ports = rule.ports.unwrap_or(unwritten);
            if let Scope::Network(network) = &rule.scope
                && !denies
            {
                networks_allowed.push((ports.clone(), place));
                if written && network.prefix_len() == network.max_prefix_len() {
                    let at = listed.entry(network.addr()).or_default();
                    at.push((ports.clone(), place));
                }
            }
            let of_its_kind = if denies { &mut denying } else { &mut allowing };
            of_its_kind.add(rule.scope, ports, place);
        }
        Self {
            denying: denying.compile(),
            allowing: allowing.compile(),
            listed: compiled(listed),
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
        // By either of its forms: NAT64 leads to the address within.
        let within = behind_nat64(ip).and_then(|it| self.denying.networks.first(it.into(), port));
        let denied = earliest([
            self.denying.first_of_name(name, port),
            self.denying.networks.first(ip, port),
            within,
        ]);
        let public = is_public(ip);
        let named = self.allowing.first_of_name(name, port).filter(|_| public);
        let allowed = earliest([named, self.allowing.networks.first(ip, port)]);
        comes_first(allowed, denied)
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
        let denied = self.denying.first_of_name(Some(name), port);
        let might = earliest([
            self.allowing.first_of_name(Some(name), port),
            self.networks_allowed.first(port),
        ]);
        !comes_first(might, denied)
    }
}

/// Whether there is one that allows, and none before it that denies.
fn comes_first(allowed: Option<Place>, denied: Option<Place>) -> bool {
    allowed.is_some_and(|allowed| denied.is_none_or(|denied| allowed < denied))
}

fn earliest<const N: usize>(places: [Option<Place>; N]) -> Option<Place> {
    places.into_iter().flatten().min()
}

impl Tables {
    /// The first rule that asks for no address: about everything, this name, or one that it is below.
    fn first_of_name(&self, name: Option<&str>, port: u16) -> Option<Place> {
        let named = name.and_then(|name| self.first_named(name, port));
        earliest([self.anywhere.first(port), named])
    }

    fn first_named(&self, name: &str, port: u16) -> Option<Place> {
        let itself = self.names.get(name);
        let dots = name.match_indices('.').filter(|(at, _)| *at > 0);
        let above = dots.filter_map(|(at, _)| self.parents.get(&name[at + 1..]));
        let tables = itself.into_iter().chain(above);
        tables.filter_map(|table| table.first(port)).min()
    }
}

/// Rules by what they are about, before they are compiled.
#[derive(Default)]
struct Gathered {
    anywhere: Ports,
    names: BTreeMap<String, Ports>,
    parents: BTreeMap<String, Ports>,
    networks: Vec<NetworkRule>,
}

impl Gathered {
    fn add(&mut self, scope: Scope, ports: RangeInclusive<u16>, place: Place) {
        match scope {
            Scope::Anywhere => self.anywhere.push((ports, place)),
            Scope::Name(name) => self.names.entry(name).or_default().push((ports, place)),
            Scope::Below(parent) => {
                let below = self.parents.entry(parent).or_default();
                below.push((ports, place));
            }
            Scope::Network(network) => self.networks.push((network, ports, place)),
        }
    }

    fn compile(self) -> Tables {
        Tables {
            anywhere: PortTable::new(&self.anywhere),
            names: compiled(self.names),
            parents: compiled(self.parents),
            networks: Networks::new(self.networks),
        }
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
