//! Where a session is connected to: a server of a pool, or an address of none.

use std::net::SocketAddr;
use std::sync::Arc;

use super::upstream::server::Server;
use crate::balance::health::Admission;
use crate::net::address::Endpoint;
use crate::relay::time::Time;

/// Addresses of one target that are dialled. A race opens four of them at a time, and
/// a client must not make the forwarder work through hundreds.
pub const ADDRESSES_MAX: usize = 16;

/// Where a session may be connected to; two words, cheap to hand on. It has no options of
/// its own: those of a connect belong to the pool that dials (`UpstreamSetup::options`), for
/// either kind, and are the same for all that one dials. A word more here would be one in each
/// idle session.
#[derive(Debug, Clone)]
pub enum Destination {
    /// A server of a pool: what comes of dialling it is counted there, and it is praised
    /// or blamed for it.
    Server(Arc<Server>),
    /// An address that a client asked for. Nobody keeps an account of it.
    Address(Arc<Endpoint>),
}

impl Destination {
    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Server(server) => server.endpoint(),
            Self::Address(endpoint) => endpoint,
        }
    }

    /// Who is counted with, praised and blamed; `None`: nobody.
    pub const fn account(&self) -> Option<&Arc<Server>> {
        match self {
            Self::Server(server) => Some(server),
            Self::Address(_) => None,
        }
    }

    /// Whether a session may try it now, and how; counted there as active if it may.
    pub(super) fn admit(&self, now: Time) -> Option<Admission> {
        let Some(server) = self.account() else {
            return Some(Admission::Free);
        };
        let admission = server.standing.admit(now);
        if admission == Admission::Marked {
            return None;
        }
        let entered = server.standing.enter(now);
        if !entered {
            self.abandoned(admission, now);
        }
        entered.then_some(admission)
    }

    /// Nothing came of an admission, for no fault of its own.
    pub(super) fn abandoned(&self, admission: Admission, now: Time) {
        if let Some(server) = self.account() {
            server.standing.abandoned(admission, now);
        }
    }
}

impl From<SocketAddr> for Destination {
    fn from(address: SocketAddr) -> Self {
        Self::Address(Arc::new(Endpoint::Inet(address)))
    }
}

/// Those of one target, in the order in which they are dialled; at most
/// [`ADDRESSES_MAX`].
#[derive(Debug, Clone, Default)]
pub struct Destinations(Vec<Destination>);

impl Destinations {
    pub(super) fn into_vec(self) -> Vec<Destination> {
        self.0
    }
}

impl FromIterator<Destination> for Destinations {
    fn from_iter<I: IntoIterator<Item = Destination>>(destinations: I) -> Self {
        Self(destinations.into_iter().take(ADDRESSES_MAX).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_make_the_forwarder_work_through_hundreds() {
        let address = |port| Destination::from(SocketAddr::from(([192, 0, 2, 1], port)));
        let destinations: Destinations = (1..=100).map(address).collect();
        let dialled = destinations.into_vec();
        let ports = dialled.iter().map(|it| it.endpoint().to_string());
        let first: Vec<String> = (1..=16).map(|port| format!("192.0.2.1:{port}")).collect();
        assert_eq!(ports.collect::<Vec<_>>(), first);
    }

    #[test]
    fn an_address_without_an_account_is_always_admitted() {
        let address = Destination::from(SocketAddr::from(([192, 0, 2, 1], 1)));
        assert!(address.account().is_none());
        for _ in 0..3 {
            assert_eq!(address.admit(Time::ZERO), Some(Admission::Free));
            address.abandoned(Admission::Free, Time::ZERO);
        }
    }
}
