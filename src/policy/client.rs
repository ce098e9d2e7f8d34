//! Who is one client, for whatever is shared out among clients.

use core::net::{IpAddr, Ipv6Addr};

/// An IPv4 address, the 64 bits of an IPv6 network, or all of unix sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(Option<IpAddr>);

impl Client {
    /// Whether it comes from the network.
    pub const fn is_remote(self) -> bool {
        self.0.is_some()
    }
}

/// The 48 bits of an IPv6 network that a provider gives to one site (RFC 6177), which has
/// 65,536 clients in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site(u128);

impl Client {
    /// The site that it belongs to; addresses of IPv4 are too few to be taken together.
    pub const fn site(self) -> Option<Site> {
        match self.0 {
            Some(IpAddr::V6(network)) => Some(Site(network.to_bits() >> 80)),
            Some(IpAddr::V4(_)) | None => None,
        }
    }
}

impl From<Option<IpAddr>> for Client {
    fn from(address: Option<IpAddr>) -> Self {
        Self(address.map(|ip| match ip.to_canonical() {
            IpAddr::V6(v6) => {
                // Whoever has one address of a network has all of them.
                let network = v6.to_bits() & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
            v4 @ IpAddr::V4(_) => v4,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_client_and_a_mapped_address_is_ipv4() {
        let of = |text: &str| Client::from(Some(text.parse::<IpAddr>().expect("an address")));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("2001:db8:0:1::1").site(), of("2001:db8:0:2::1").site());
        assert_ne!(of("2001:db8:0:1::1").site(), of("2001:db8:1:1::1").site());
        assert_eq!(of("10.0.0.1").site(), None);
        assert!(of("10.0.0.1").is_remote() && !Client::from(None).is_remote());
    }
}
