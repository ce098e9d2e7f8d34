//! Which route a session takes, once all that it is decided by is known.
//!
//! A route is a forward in the place of the one that the client came to: its pool and its
//! rules, under the same identity, name and limits. So a session that was routed is like
//! any other from then on. Invariant: a session is routed once. A program that this runs in may decide before the
//! table does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::course::{Caller, Course, Pilot};
use super::destination::{Destination, Destinations};
use super::setup::{Listener, Routing};
use crate::net::address::Endpoint;
use crate::policy::route::Known;
use crate::proto::sniff::Sniffed;

/// What becomes of a session.
#[derive(Debug)]
pub(super) enum Routed {
    /// It stays with the forward that it came to.
    Stays,
    /// It goes by this one.
    Goes(Arc<Listener>),
    /// It is turned away, by this one.
    Rejected(u16),
}

impl Routing {
    /// Decides; counted at the route. `local`: the address that the client is connected to.
    pub(super) fn route(
        &self,
        at: &Listener,
        client: &Endpoint,
        local: Option<&Endpoint>,
        sniffed: Option<&Sniffed>,
    ) -> Routed {
        let unix = match &at.address {
            name @ Endpoint::Unix(_) => Some(name.to_string()),
            Endpoint::Inet(_) | Endpoint::Unnamed => None,
        };
        let known = Known {
            protocol: sniffed.map(|it| it.protocol),
            sni: sniffed.and_then(|it| it.server_name.as_deref()),
            host: sniffed.and_then(|it| it.host.as_deref()),
            alpn: sniffed.map_or(&[], |it| &it.protocols),
            client: inet(client).map(|it| it.ip()),
            listener: inet(local.unwrap_or(&at.address)),
            unix: unix.as_deref(),
        };
        let Some(number) = self.table.decide(&known).route() else {
            return Routed::Stays;
        };
        self.ways[number].taken.fetch_add(1, Ordering::Relaxed);
        match at.ways.get(number) {
            Some(Some(way)) => Routed::Goes(way.clone()),
            _ => Routed::Rejected(number as u16),
        }
    }
}

/// What becomes of a session by a program's own decision.
#[derive(Debug)]
pub(super) enum Piloted {
    /// What routes say.
    AsConfigured,
    /// It goes by this one, of a pool.
    Goes(Arc<Listener>),
    /// It goes to these addresses.
    To(Destinations),
    /// It is turned away, for this reason.
    Refused(&'static str),
}

/// Asks the program that this runs in, which has a way to each pool that it may name.
pub(super) fn steer(
    pilot: &Pilot,
    at: &Arc<Listener>,
    client: &Endpoint,
    sniffed: Option<&Sniffed>,
) -> Piloted {
    let caller = Caller {
        forward: &at.forward.name,
        client,
        listener: &at.address,
        server_name: sniffed.and_then(|it| it.server_name.as_deref()),
        host: sniffed.and_then(|it| it.host.as_deref()),
        protocols: sniffed.map_or(&[], |it| &it.protocols),
    };
    match pilot.decide(&caller) {
        Course::AsConfigured => Piloted::AsConfigured,
        Course::Refuse => Piloted::Refused("the program that it runs in turns it away"),
        Course::Addresses(addresses) => {
            let each = addresses.into_iter().map(Destination::from);
            Piloted::To(each.collect())
        }
        Course::Pool(name) => match by_pool(at, &name) {
            Some(way) => Piloted::Goes(way),
            None => Piloted::Refused("the program that it runs in names a pool that is not there"),
        },
    }
}

/// The way to a pool: those stand behind the ways of routes, which the table does not know of.
fn by_pool(at: &Listener, name: &str) -> Option<Arc<Listener>> {
    let routing = at.forward.routing.as_ref()?;
    let number = *routing.by_pool.get(name)?;
    let way = routing.ways.get(number)?;
    way.taken.fetch_add(1, Ordering::Relaxed);
    at.ways.get(number)?.clone()
}

fn inet(endpoint: &Endpoint) -> Option<SocketAddr> {
    match endpoint {
        Endpoint::Inet(address) => Some(*address),
        Endpoint::Unix(_) | Endpoint::Unnamed => None,
    }
}
