//! The network interface that traffic leaves by, and what its card or driver does in
//! the kernel's place.

use std::fs;

use super::sys;

/// `ETHTOOL_G…` of linux/ethtool.h, and what each is called by ethtool(8).
const OFFLOADS: [(&str, u32); 4] = [
    ("tso", 0x1e),
    ("gso", 0x23),
    ("gro", 0x2b),
    ("tx-csum", 0x16),
];

/// What an interface offloads: name, and whether it is on; `None` where the driver
/// does not say.
pub fn offloads(interface: &str) -> Vec<(&'static str, Option<bool>)> {
    OFFLOADS
        .into_iter()
        .map(|(name, command)| (name, sys::offload(interface, command).ok()))
        .collect()
}

/// The interface of the IPv4 default route with the least metric, or else of the
/// IPv6 one; `None` without any.
pub fn default_route() -> Option<String> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    default_route_of(&read("/proc/net/route"), &read("/proc/net/ipv6_route"))
}

fn default_route_of(v4: &str, v6: &str) -> Option<String> {
    // Interface, destination, gateway, flags, references, use, metric, mask.
    let v4 = v4.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_default = *fields.get(1)? == "00000000" && *fields.get(7)? == "00000000";
        let metric: u32 = fields.get(6)?.parse().ok()?;
        is_default.then(|| (metric, fields[0].to_owned()))
    });
    // Destination, its length, source, its length, next hop, metric, two counts, flags,
    // interface. The kernel's own reject route has the interface `lo`.
    let v6 = v6.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = *fields.get(9)?;
        let is_default = fields[1] == "00" && name != "lo";
        let metric = u32::from_str_radix(fields[5], 16).ok()?;
        is_default.then(|| (metric, name.to_owned()))
    });
    let least = v4.min().or_else(|| v6.min());
    least.map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
wlan0 00000000 0101A8C0 0003 0 0 600 00000000 0 0 0
eth0 00000000 010200C0 0003 0 0 100 00000000 0 0 0
eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0
";

    #[test]
    fn the_default_route_with_the_least_metric_counts() {
        assert_eq!(default_route_of(V4, ""), Some("eth0".to_owned()));
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo
{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 1 0 3 eth1
"
        );
        assert_eq!(default_route_of("", &v6), Some("eth1".to_owned()));
        assert_eq!(default_route_of("", ""), None);
        assert_eq!(default_route_of("x\ny 00000000", "a b"), None);
    }

    #[test]
    fn loopback_says_what_it_offloads() {
        let offloads = offloads("lo");
        assert!(
            offloads
                .iter()
                .any(|(name, on)| *name == "tso" && on.is_some())
        );
        assert!(
            super::offloads("no-such-one")
                .iter()
                .all(|(_, on)| on.is_none())
        );
    }
}
