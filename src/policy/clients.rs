//! Who may come in: ordered rules about the networks of clients, of which the first that
//! is about an address decides.
//!
//! The rules are compiled into one prefix trie: what a question costs depends on the
//! length of a prefix, not on how many rules or networks there are. A client that no rule
//! is about may come in: a list that ends in `deny all` says otherwise.
//!
//! A client without an address, of a unix socket, is in no network; only a rule about
//! all is about it. `0.0.0.0/0` is about no IPv6 client and `::/0` about no IPv4 client;
//! an IPv4-mapped address is an IPv4 address.

use core::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

/// A rule's place in its list, from 0.
pub type Place = u32;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRule {
    /// Turned away, or let in.
    pub denies: bool,
    /// Whom it is about.
    pub whom: Whom,
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Everybody.
    All,
    /// The addresses of any of these networks.
    Networks(Vec<IpNet>),
}

/// The rules, compiled. See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClientRules {
    /// The first rule about each network, written for that network or one around it.
    first: JointPrefixMap<IpNet, Place>,
    all: Option<Place>,
    denies: Vec<bool>,
}

impl ClientRules {
    /// Of rules in the order in which they are asked.
    pub fn new(rules: &[ClientRule]) -> Self {
        let mut it = Self::default();
        for (place, rule) in (0..).zip(rules) {
            it.denies.push(rule.denies);
            match &rule.whom {
                Whom::All => it.all = it.all.or(Some(place)),
                Whom::Networks(networks) => {
                    for network in networks {
                        let network = network.trunc();
                        if it.first.get(&network).is_none() {
                            it.first.insert(network, place);
                        }
                    }
                }
            }
        }
        it
    }

    /// The first rule about this client; `None`: there is none.
    pub fn first(&self, client: Option<IpAddr>) -> Option<Place> {
        let in_networks = client.and_then(|ip| {
            let host = IpNet::from(ip.to_canonical());
            self.first.cover_values(&host).min().copied()
        });
        in_networks.into_iter().chain(self.all).min()
    }

    /// The rule that turns this client away, if it is not let in.
    pub fn denied_by(&self, client: Option<IpAddr>) -> Option<Place> {
        let first = self.first(client)?;
        self.denies[first as usize].then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn networks(texts: &[&str]) -> Whom {
        let networks = texts.iter().map(|text| text.parse().expect("a network"));
        Whom::Networks(networks.collect())
    }

    fn rules(rules: &[(bool, Whom)]) -> ClientRules {
        let rules: Vec<_> = rules
            .iter()
            .cloned()
            .map(|(denies, whom)| ClientRule { denies, whom })
            .collect();
        ClientRules::new(&rules)
    }

    #[test]
    fn b75_families_do_not_meet_and_a_mapped_address_is_ipv4() {
        let four = rules(&[(true, networks(&["0.0.0.0/0"]))]);
        assert_eq!(four.denied_by(Some(ip("192.0.2.1"))), Some(0));
        assert_eq!(four.denied_by(Some(ip("::ffff:192.0.2.1"))), Some(0));
        assert_eq!(four.denied_by(Some(ip("2001:db8::1"))), None);
        let six = rules(&[(true, networks(&["::/0"]))]);
        assert_eq!(six.denied_by(Some(ip("2001:db8::1"))), Some(0));
        assert_eq!(six.denied_by(Some(ip("192.0.2.1"))), None);
        assert_eq!(six.denied_by(Some(ip("::ffff:192.0.2.1"))), None);
        for only_networks in [&four, &six] {
            assert_eq!(only_networks.denied_by(None), None);
        }
        assert_eq!(rules(&[(true, Whom::All)]).denied_by(None), Some(0));
    }

    #[test]
    fn the_first_rule_decides_and_not_the_most_specific() {
        let list = rules(&[
            (false, networks(&["10.0.0.0/8"])),
            (true, networks(&["10.1.0.0/16"])),
            (true, Whom::All),
            (false, networks(&["192.0.2.0/24"])),
        ]);
        assert_eq!(list.denied_by(Some(ip("10.1.2.3"))), None);
        assert_eq!(list.denied_by(Some(ip("192.0.2.1"))), Some(2));
        assert_eq!(
            ClientRules::default().denied_by(Some(ip("192.0.2.1"))),
            None
        );
    }

    fn network() -> impl Strategy<Value = IpNet> {
        let four = (0_u32..16, 0_u8..=32).prop_map(|(bits, prefix)| {
            IpNet::new(Ipv4Addr::from_bits(bits << 28 | bits).into(), prefix).expect("IPv4")
        });
        let six = (0_u128..16, 0_u8..=128).prop_map(|(bits, prefix)| {
            IpNet::new(Ipv6Addr::from_bits(1 << 127 | bits << 60).into(), prefix).expect("IPv6")
        });
        prop_oneof![four, six].prop_map(|network| network.trunc())
    }

    fn client() -> impl Strategy<Value = Option<IpAddr>> {
        let four =
            (0_u32..16, 0_u32..16).prop_map(|(a, b)| Some(Ipv4Addr::from_bits(a << 28 | b).into()));
        let six = (0_u128..16, 0_u128..16)
            .prop_map(|(a, b)| Some(Ipv6Addr::from_bits(1 << 127 | a << 60 | b).into()));
        prop_oneof![four, six, Just(None)]
    }

    fn whom() -> impl Strategy<Value = Whom> {
        let some = prop::collection::vec(network(), 0..6).prop_map(Whom::Networks);
        prop_oneof![8 => some, 1 => Just(Whom::All)]
    }

    proptest! {
        #[test]
        fn b74_the_first_is_that_of_a_scan(
            list in prop::collection::vec((any::<bool>(), whom()), 0..20),
            clients in prop::collection::vec(client(), 1..40),
        ) {
            let list: Vec<_> = list
                .into_iter()
                .map(|(denies, whom)| ClientRule { denies, whom })
                .collect();
            let compiled = ClientRules::new(&list);
            for client in clients {
                let is_about = |rule: &&ClientRule| match &rule.whom {
                    Whom::All => true,
                    Whom::Networks(networks) => {
                        client.is_some_and(|ip| networks.iter().any(|it| it.contains(&ip)))
                    }
                };
                let found = list.iter().find(is_about);
                prop_assert_eq!(
                    compiled.denied_by(client).is_some(),
                    found.is_some_and(|rule| rule.denies)
                );
            }
        }
    }

    /// Of both families and overlapping. How long it takes is what the group `access` of
    /// `benches/core.rs` tells.
    #[test]
    fn b74_a_hundred_thousand_networks_decide_as_a_scan_does() {
        const COUNT: u32 = 50_000;
        let mut drawn = 74_u32;
        let mut draw = move || {
            drawn = drawn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            drawn
        };
        let mut list = Vec::new();
        for half in 0..2 {
            let networks = (0..COUNT).map(|_| {
                let (bits, wide) = (draw(), draw() < u32::MAX / 2);
                if half == 0 {
                    let prefix = if wide { 12 } else { 24 };
                    IpNet::new(Ipv4Addr::from_bits(bits).into(), prefix)
                } else {
                    let bits = u128::from(bits) << 80 | 0x2001 << 112;
                    IpNet::new(Ipv6Addr::from_bits(bits).into(), if wide { 28 } else { 48 })
                }
            });
            let networks = networks.map(|it| it.expect("a length that fits").trunc());
            list.push(ClientRule {
                denies: half == 0,
                whom: Whom::Networks(networks.collect()),
            });
            list.push(ClientRule {
                denies: half == 1,
                whom: networks_within(half),
            });
        }
        let compiled = ClientRules::new(&list);
        let (mut denied, mut let_in) = (0, 0);
        for _ in 0..5_000 {
            let bits = draw();
            for client in [
                IpAddr::from(Ipv4Addr::from_bits(bits)),
                Ipv6Addr::from_bits(u128::from(bits) << 80 | 0x2001 << 112).into(),
            ] {
                let is_about = |rule: &&ClientRule| match &rule.whom {
                    Whom::All => true,
                    Whom::Networks(networks) => networks.iter().any(|it| it.contains(&client)),
                };
                let scanned = list.iter().find(is_about).is_some_and(|rule| rule.denies);
                assert_eq!(
                    compiled.denied_by(Some(client)).is_some(),
                    scanned,
                    "{client}"
                );
                if scanned { denied += 1 } else { let_in += 1 }
            }
        }
        assert!(
            denied > 20 && let_in > 20,
            "{denied} and {let_in}: one-sided"
        );
    }

    fn networks_within(half: u32) -> Whom {
        networks(if half == 0 {
            &["128.0.0.0/2"]
        } else {
            &["2001:8000::/18"]
        })
    }
}
