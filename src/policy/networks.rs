//! Rules about networks, over one prefix trie of both families: which of them is the
//! first for an address costs the length of its prefix, however many there are.

use core::net::IpAddr;
use core::ops::RangeInclusive;
use std::collections::BTreeMap;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::ports::{Place, PortTable};

/// A rule about the addresses of a network, at some ports.
pub type NetworkRule = (IpNet, RangeInclusive<u16>, Place);

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Networks {
    tables: JointPrefixMap<IpNet, PortTable>,
}

impl Networks {
    /// Of rules in any order. An IPv4-mapped address is looked up as IPv4, so that a
    /// network of such addresses is never found: write it as IPv4.
    pub fn new(rules: impl IntoIterator<Item = NetworkRule>) -> Self {
        let mut gathered: BTreeMap<IpNet, Vec<(RangeInclusive<u16>, Place)>> = BTreeMap::new();
        for (network, ports, place) in rules {
            let same = gathered.entry(network.trunc()).or_default();
            same.push((ports, place));
        }
        let tables = gathered
            .into_iter()
            .map(|(network, rules)| (network, PortTable::new(&rules)));
        Self {
            tables: tables.collect(),
        }
    }

    /// The first rule for this address at this port.
    pub fn first(&self, ip: IpAddr, port: u16) -> Option<Place> {
        let host = IpNet::from(ip.to_canonical());
        let tables = self.tables.cover_values(&host);
        tables.filter_map(|table| table.first(port)).min()
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Networks that overlap: few addresses, all lengths.
    fn network() -> impl Strategy<Value = IpNet> {
        let four = (0_u32..16, 0_u8..=32).prop_map(|(bits, prefix)| {
            let ip = Ipv4Addr::from_bits(bits << 28 | bits);
            IpNet::new(ip.into(), prefix).expect("a length of IPv4")
        });
        let six = (0_u128..16, 0_u8..=128).prop_map(|(bits, prefix)| {
            let ip = Ipv6Addr::from_bits(1 << 127 | bits << 60 | bits);
            IpNet::new(ip.into(), prefix).expect("a length of IPv6")
        });
        prop_oneof![four, six].prop_map(|network| network.trunc())
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        let four =
            (0_u32..16, 0_u32..16).prop_map(|(a, b)| Ipv4Addr::from_bits(a << 28 | b).into());
        let six = (0_u128..16, 0_u128..16)
            .prop_map(|(a, b)| Ipv6Addr::from_bits(1 << 127 | a << 60 | b).into());
        prop_oneof![four, six]
    }

    proptest! {
        #[test]
        fn the_first_is_that_of_a_scan(
            rules in prop::collection::vec((network(), 0_u16..6, 0_u16..6), 0..40),
            asked in prop::collection::vec((address(), 0_u16..7), 1..40),
        ) {
            let rules: Vec<NetworkRule> = (0..)
                .zip(rules)
                .map(|(place, (network, a, b))| (network, a..=b, place))
                .collect();
            let networks = Networks::new(rules.iter().rev().cloned());
            for (ip, port) in asked {
                let found = rules
                    .iter()
                    .find(|(network, ports, _)| network.contains(&ip) && ports.contains(&port));
                let found = found.map(|(_, _, place)| *place);
                prop_assert_eq!(networks.first(ip, port), found, "{} {}", ip, port);
            }
        }
    }

    #[test]
    fn the_address_within_a_mapped_one_counts() {
        let network = "10.0.0.0/8".parse().expect("a network");
        let networks = Networks::new([(network, 1..=9, 3)]);
        let mapped: IpAddr = "::ffff:10.1.2.3".parse().expect("an address");
        assert_eq!(networks.first(mapped, 9), Some(3));
        assert_eq!(networks.first(mapped, 10), None);
    }

    /// As many as a list of a country's networks has. How long it takes is what the
    /// group `access` of `benches/core.rs` tells.
    #[test]
    fn a_hundred_thousand_networks_are_told_apart() {
        const COUNT: u32 = 100_000;
        let network = |at: u32| {
            let ip = Ipv4Addr::from_bits(at << 8);
            IpNet::new(ip.into(), 24).expect("a length of IPv4")
        };
        let networks = Networks::new((0..COUNT).map(|at| (network(at), 443..=443, at)));
        for at in (0..COUNT).step_by(997) {
            let ip = Ipv4Addr::from_bits((at << 8) + 77).into();
            assert_eq!(networks.first(ip, 443), Some(at));
            assert_eq!(networks.first(ip, 80), None);
        }
        let beyond = Ipv4Addr::from_bits(COUNT << 8).into();
        assert_eq!(networks.first(beyond, 443), None);
    }
}
