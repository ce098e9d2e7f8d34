//! Whose word about others is taken: the senders of PROXY headers.

use core::net::IpAddr;

use ipnet::IpNet;

use super::networks::Networks;

/// Who is trusted, compiled: asking costs the length of a prefix.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    networks: Networks,
    unix: bool,
}

impl Trust {
    /// Of networks, and of clients of unix sockets if `unix`.
    pub fn new(networks: &[IpNet], unix: bool) -> Self {
        let rules = networks.iter().map(|network| (*network, 0..=u16::MAX, 0));
        Self {
            networks: Networks::new(rules),
            unix,
        }
    }

    /// Whether it is taken from this address; `None`: from a client of a unix socket.
    pub fn takes(&self, sender: Option<IpAddr>) -> bool {
        sender.map_or(self.unix, |ip| self.networks.first(ip, 0).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_trusted_who_is_not_named() {
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|it| it.parse().expect("a network"));
        let trust = Trust::new(&networks, false);
        let takes = |ip: &str| trust.takes(Some(ip.parse().expect("an address")));
        assert!(takes("10.1.2.3") && takes("::ffff:10.1.2.3") && takes("2001:db8::1"));
        assert!(!takes("11.0.0.1") && !takes("::1") && !trust.takes(None));
        assert!(Trust::new(&[], true).takes(None));
    }
}
