//! In which order the addresses of a name are dialled: destination address
//! selection (RFC 6724) as far as it changes anything for a forwarder, then the
//! families in turn (RFC 8305, section 4).
//!
//! Left out of RFC 6724: rules 3, 4 and 7 (deprecated, home and tunnelled
//! addresses; the kernel knows, and says so to nobody who has not dialled), and
//! rule 9 (longest matching prefix), which pins every client of a network to the
//! same one of many equal servers.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The addresses in the order in which they are dialled: best first by RFC 6724,
/// families in turn. `source` tells the address that a connection would come from;
/// `None` where there is no route.
pub(super) fn for_dialling(
    mut addresses: Vec<SocketAddr>,
    source: impl Fn(SocketAddr) -> Option<IpAddr>,
) -> Vec<SocketAddr> {
    // By address last: the order in which DNS gave them turns with every answer.
    addresses.sort_by_cached_key(|address| (rank(address.ip(), source(*address)), *address));
    interleave(addresses)
}

/// Puts the families in turn, beginning with that of the first address; within a
/// family the order stays. So a family that is broken costs one attempt's delay,
/// not one for each of its addresses.
///
/// ```
/// use thalweg::control::resolve::interleave;
///
/// let order = ["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"];
/// let order = order.map(|it| it.parse().expect("an address"));
/// let turned = interleave(order.to_vec());
/// assert_eq!(turned, [order[0], order[3], order[1], order[2]]);
/// ```
pub fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let count = addresses.len();
    let first_is_ipv4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv4() == first_is_ipv4);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turned = Vec::with_capacity(count);
    while turned.len() < count {
        turned.extend(first.next());
        turned.extend(second.next());
    }
    turned
}

/// The address that a connection to this one would come from, by the kernel's
/// routes: a UDP socket that is connected sends nothing.
pub(super) fn source_address(destination: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Port 0 is refused by some kernels; which port it is makes no difference.
    let port = destination.port().max(1);
    socket.connect((destination.ip(), port)).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// Smaller is better: the rules of RFC 6724, section 6, in their order.
type Rank = (bool, bool, bool, Reverse<u8>, u8);

fn rank(destination: IpAddr, source: Option<IpAddr>) -> Rank {
    let (label, precedence) = policy(destination);
    (
        // Rule 1: avoid unusable destinations.
        source.is_none(),
        // Rule 2: prefer matching scope.
        source.is_none_or(|source| scope(source) != scope(destination)),
        // Rule 5: prefer matching label.
        source.is_none_or(|source| policy(source).0 != label),
        // Rule 6: prefer higher precedence.
        Reverse(precedence),
        // Rule 8: prefer smaller scope.
        scope(destination),
    )
}

/// Label and precedence: the default policy table of RFC 6724, section 2.1.
fn policy(address: IpAddr) -> (u8, u8) {
    let IpAddr::V6(address) = address else {
        return (4, 35);
    };
    let segments = address.segments();
    if address.is_loopback() {
        (0, 50)
    } else if address.to_ipv4_mapped().is_some() {
        (4, 35)
    } else if segments[..6] == [0; 6] {
        (3, 1)
    } else if segments[0] == 0x2002 {
        (2, 30)
    } else if segments[..2] == [0x2001, 0] {
        (5, 5)
    } else if address.is_unique_local() {
        (13, 3)
    } else if segments[0] & 0xffc0 == 0xfec0 {
        (11, 1)
    } else if segments[0] == 0x3ffe {
        (12, 1)
    } else {
        (1, 40)
    }
}

/// The scope, as the number that multicast gives it (RFC 6724, section 3).
fn scope(address: IpAddr) -> u8 {
    const LINK_LOCAL: u8 = 2;
    const SITE_LOCAL: u8 = 5;
    const GLOBAL: u8 = 14;
    match address {
        IpAddr::V4(address) if address.is_loopback() || address.is_link_local() => LINK_LOCAL,
        IpAddr::V4(_) => GLOBAL,
        IpAddr::V6(address) if address.is_multicast() => (address.segments()[0] & 0xf) as u8,
        IpAddr::V6(address) if address.is_loopback() || address.is_unicast_link_local() => {
            LINK_LOCAL
        }
        IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfec0 => SITE_LOCAL,
        IpAddr::V6(_) => GLOBAL,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        SocketAddr::new(ip(text), 443)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Sorted for a host that has these addresses of its own.
    fn sorted(sources: &[&str], addresses: &[&str]) -> Vec<String> {
        let source = |to: SocketAddr| {
            let own = sources.iter().map(|text| ip(text));
            let mut own = own.filter(|own| own.is_ipv4() == to.is_ipv4());
            own.next()
        };
        let addresses = addresses.iter().map(|text| at(text)).collect();
        let order = for_dialling(addresses, source);
        order.iter().map(|it| it.ip().to_string()).collect()
    }

    #[test]
    fn ipv6_goes_first_where_it_is_usable() {
        let both = ["192.0.2.1", "2001:db8::1"];
        assert_eq!(
            sorted(&["198.51.100.1", "2001:db8::9"], &both),
            ["2001:db8::1", "192.0.2.1"]
        );
        assert_eq!(
            sorted(&["198.51.100.1"], &both),
            ["192.0.2.1", "2001:db8::1"]
        );
        assert_eq!(sorted(&[], &both), ["2001:db8::1", "192.0.2.1"]);
    }

    #[test]
    fn scopes_labels_and_precedence_count() {
        // RFC 6724, section 10.2, as far as a rule of ours decides it.
        for (sources, addresses, first) in [
            (
                ["2001:db8:1::2", "169.254.13.78"],
                ["2001:db8:1::1", "198.51.100.121"],
                "2001:db8:1::1",
            ),
            (
                ["fe80::1", "198.51.100.117"],
                ["2001:db8:1::1", "198.51.100.121"],
                "198.51.100.121",
            ),
            (
                ["2002:c633:6401::2", "198.51.100.117"],
                ["2001:db8:1::1", "198.51.100.121"],
                "198.51.100.121",
            ),
        ] {
            assert_eq!(sorted(&sources, &addresses)[0], first, "{sources:?}");
        }
        assert_eq!(
            sorted(&["::1", "127.0.0.1"], &["127.0.0.1", "::1"]),
            ["::1", "127.0.0.1"]
        );
    }

    #[test]
    fn the_order_does_not_turn_with_the_answers() {
        let a = sorted(&["192.0.2.9"], &["192.0.2.3", "192.0.2.1", "192.0.2.2"]);
        let b = sorted(&["192.0.2.9"], &["192.0.2.2", "192.0.2.3", "192.0.2.1"]);
        assert_eq!(a, b);
    }

    #[test]
    fn families_take_turns() {
        let list = |texts: &[&str]| texts.iter().map(|it| at(it)).collect::<Vec<_>>();
        for (given, turned) in [
            (&[][..], &[][..]),
            (&["::1"], &["::1"]),
            (&["::1", "::2", "1.1.1.1"], &["::1", "1.1.1.1", "::2"]),
            (&["1.1.1.1", "::1", "::2"], &["1.1.1.1", "::1", "::2"]),
            (
                &["1.1.1.1", "1.1.1.2", "1.1.1.3", "::1"],
                &["1.1.1.1", "::1", "1.1.1.2", "1.1.1.3"],
            ),
        ] {
            assert_eq!(interleave(list(given)), list(turned), "{given:?}");
        }
    }

    #[test]
    fn the_kernel_tells_the_source_of_loopback() {
        let source = source_address(SocketAddr::from(([127, 0, 0, 1], 0)));
        assert_eq!(source, Some(ip("127.0.0.1")));
    }

    proptest! {
        #[test]
        fn turning_keeps_every_address_and_each_familys_order(
            ips in prop::collection::vec(any::<IpAddr>(), 0..20),
        ) {
            let given: Vec<SocketAddr> = ips.iter().map(|ip| (*ip, 1).into()).collect();
            let turned = interleave(given.clone());
            for v4 in [true, false] {
                let family = |list: &[SocketAddr]| -> Vec<SocketAddr> {
                    list.iter().filter(|it| it.is_ipv4() == v4).copied().collect()
                };
                prop_assert_eq!(family(&given), family(&turned));
            }
            prop_assert_eq!(given.first(), turned.first());
            // Two of one family stand together only behind the other's last.
            let same = |pair: &[SocketAddr]| pair[0].is_ipv4() == pair[1].is_ipv4();
            if let Some(at) = turned.windows(2).position(same) {
                prop_assert!(turned[at..].windows(2).all(same));
            }
        }
    }
}
