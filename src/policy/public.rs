//! Which addresses are of the public internet.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

/// IPv4 networks that are not the public internet: the special-purpose registry of
/// RFC 6890 as of 2024, and multicast.
const SPECIAL_V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),       // this network
    v4([10, 0, 0, 0], 8),      // private (RFC 1918)
    v4([100, 64, 0, 0], 10),   // shared by carriers (RFC 6598)
    v4([127, 0, 0, 0], 8),     // loopback
    v4([169, 254, 0, 0], 16),  // link-local, and the metadata services of clouds
    v4([172, 16, 0, 0], 12),   // private
    v4([192, 0, 0, 0], 24),    // protocol assignments
    v4([192, 0, 2, 0], 24),    // documentation
    v4([192, 88, 99, 0], 24),  // 6to4 relays, given up
    v4([192, 168, 0, 0], 16),  // private
    v4([198, 18, 0, 0], 15),   // benchmarks
    v4([198, 51, 100, 0], 24), // documentation
    v4([203, 0, 113, 0], 24),  // documentation
    v4([224, 0, 0, 0], 4),     // multicast
    v4([240, 0, 0, 0], 4),     // reserved, and broadcast
];

/// Outside of it no IPv6 address is public.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 3);

/// Networks within [`GLOBAL_V6`] that are not public either.
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 23),     // protocol assignments; Teredo, which wraps IPv4
    v6(0x2001, 0xdb8, 32), // documentation
    v6(0x2002, 0, 16),     // 6to4, which wraps IPv4
    v6(0x3fff, 0, 20),     // documentation
];

/// NAT64's well-known prefix (RFC 6052).
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 96);

/// Whether an address is one of the public internet: neither of this host nor of a
/// private or link-local network, nor of any other special purpose. An address of NAT64
/// (64:ff9b::/96) is what the IPv4 address within it is.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !SPECIAL_V4.iter().any(|special| special.contains(&ip)),
        IpAddr::V6(ip) => {
            if let Some(within) = behind_nat64(ip.into()) {
                return is_public(within.into());
            }
            let special = SPECIAL_V6.iter().any(|special| special.contains(&ip));
            GLOBAL_V6.contains(&ip) && !special
        }
    }
}

/// The IPv4 address that an address of NAT64 leads to.
pub fn behind_nat64(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V6(ip) if NAT64.contains(&ip) => Some(Ipv4Addr::from_bits(ip.to_bits() as u32)),
        _ => None,
    }
}
