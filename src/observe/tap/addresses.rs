//! The two addresses that the packets of a session carry: those of its client leg.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::net::address::Endpoint;

/// Client and listener, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) client: SocketAddr,
    pub(super) listener: SocketAddr,
}

/// Documentation addresses (RFC 5737) stand for unix sockets, which have none.
const UNIX_CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const UNIX_LISTENER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

impl Pair {
    /// The addresses of a session with this number. A unix client's port is made of
    /// the number, so that sessions are told apart.
    pub(super) fn new(client: &Endpoint, listener: &Endpoint, number: u64) -> Self {
        let port = 1024 + (number % 64_000) as u16;
        let address = |endpoint: &Endpoint, unix| match endpoint {
            Endpoint::Inet(address) => *address,
            Endpoint::Unix(_) | Endpoint::Unnamed => unix,
        };
        let client = address(client, SocketAddr::from((UNIX_CLIENT, port)));
        let listener = address(listener, SocketAddr::from((UNIX_LISTENER, 1)));
        Self { client, listener }.of_one_family()
    }

    /// A listener that was named in another family: the other end's wins.
    fn of_one_family(mut self) -> Self {
        let ip = match (self.client.ip(), self.listener.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => return self,
            (IpAddr::V4(_), IpAddr::V6(v6)) => {
                IpAddr::V4(v6.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED))
            }
            (IpAddr::V6(_), IpAddr::V4(v4)) if v4.is_unspecified() => {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            }
            (IpAddr::V6(_), IpAddr::V4(v4)) => IpAddr::V6(v4.to_ipv6_mapped()),
        };
        self.listener.set_ip(ip);
        self
    }
}

/// Whether packets name an endpoint only in a comment.
pub(super) const fn is_unix(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Unix(_) | Endpoint::Unnamed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::address::UnixName;

    #[test]
    fn both_ends_are_of_one_family() {
        let inet = |text: &str| Endpoint::Inet(text.parse().unwrap());
        let pair = |client: &Endpoint, listener: &Endpoint| {
            let pair = Pair::new(client, listener, 5);
            (pair.client.to_string(), pair.listener.to_string())
        };
        let is = |client: &str, listener: &str| (client.to_owned(), listener.to_owned());
        assert_eq!(
            pair(&inet("10.0.0.1:7"), &inet("[::]:80")),
            is("10.0.0.1:7", "0.0.0.0:80")
        );
        assert_eq!(
            pair(&inet("[2001:db8::1]:7"), &inet("0.0.0.0:80")),
            is("[2001:db8::1]:7", "[::]:80")
        );
        let unix = Endpoint::Unix(UnixName::Abstract(b"x".to_vec()));
        assert_eq!(
            pair(&Endpoint::Unnamed, &unix),
            is("192.0.2.1:1029", "192.0.2.2:1")
        );
    }
}
