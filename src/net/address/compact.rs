//! An endpoint in little room, for what is kept of each session.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::Endpoint;

/// An [`Endpoint`] in 24 bytes instead of 40. What most are, an address of the internet, it
/// holds itself; a name of a unix socket is allocated.
#[derive(Debug, Clone)]
pub struct CompactEndpoint(Form);

#[derive(Debug, Clone)]
enum Form {
    V4(SocketAddrV4),
    /// Without the flow label, which the kernel says of no peer.
    V6 {
        ip: Ipv6Addr,
        port: u16,
        scope: u32,
    },
    Unnamed,
    Other(Box<Endpoint>),
}

impl CompactEndpoint {
    /// The address of this endpoint, if it is one of the internet.
    pub const fn ip(&self) -> Option<IpAddr> {
        match &self.0 {
            Form::V4(address) => Some(IpAddr::V4(*address.ip())),
            Form::V6 { ip, .. } => Some(IpAddr::V6(*ip)),
            Form::Unnamed => None,
            Form::Other(endpoint) => endpoint.ip(),
        }
    }

    /// As others take it. Allocates only for the name of a unix socket.
    pub fn get(&self) -> Endpoint {
        match &self.0 {
            Form::V4(address) => Endpoint::Inet(SocketAddr::V4(*address)),
            Form::V6 { ip, port, scope } => {
                Endpoint::Inet(SocketAddrV6::new(*ip, *port, 0, *scope).into())
            }
            Form::Unnamed => Endpoint::Unnamed,
            Form::Other(endpoint) => Endpoint::clone(endpoint),
        }
    }
}

impl From<Endpoint> for CompactEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self(match endpoint {
            Endpoint::Inet(SocketAddr::V4(address)) => Form::V4(address),
            Endpoint::Inet(SocketAddr::V6(address)) if address.flowinfo() == 0 => Form::V6 {
                ip: *address.ip(),
                port: address.port(),
                scope: address.scope_id(),
            },
            Endpoint::Unnamed => Form::Unnamed,
            other @ (Endpoint::Inet(_) | Endpoint::Unix(_)) => Form::Other(Box::new(other)),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::net::address::UnixName;

    #[test]
    fn an_endpoint_comes_back_as_it_was() {
        let inet = |text: &str| Endpoint::Inet(text.parse().unwrap());
        let labelled = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 443, 7, 0);
        for endpoint in [
            inet("192.0.2.1:443"),
            inet("[2001:db8::1]:443"),
            inet("[fe80::1%3]:443"),
            Endpoint::Inet(labelled.into()),
            Endpoint::Unix(UnixName::Abstract(b"name".to_vec())),
            Endpoint::Unnamed,
        ] {
            let compact = CompactEndpoint::from(endpoint.clone());
            let ip = endpoint.ip();
            assert_eq!((compact.get(), compact.ip()), (endpoint, ip));
        }
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<CompactEndpoint>(), 24);
    }
}
