//! Where sessions of the process before belong in this one, by their names.

use std::collections::HashMap;
use std::sync::Arc;

use super::ahead::{MovedSpare, SpareManifest};
use super::manifest::{CameIn, Manifest};
use super::refusal::Refusal;
use crate::engine::Engine;
use crate::net::address::Endpoint;
use crate::reactor::destination::Destination;
use crate::reactor::setup::Listener;
use crate::reactor::upstream::server::{Server, ServerSet};
use crate::reactor::{FlowArrival, FlowManifest, Reactor};

/// The listeners and servers of a configuration, by name. Made once for many sessions: see
/// [`Reactor::berths`].
#[derive(Debug, Default)]
pub struct Berths {
    /// By forward and address.
    listeners: HashMap<(Arc<str>, Endpoint), Arc<Listener>>,
    /// Any listener of a forward: the one that a session came in at may be no more.
    forwards: HashMap<Arc<str>, Arc<Listener>>,
    /// By pool and address.
    servers: HashMap<(Arc<str>, Endpoint), Arc<Server>>,
    /// Sockets of datagrams.
    ports: HashMap<u64, Arc<Listener>>,
}

/// Where a session belongs.
#[derive(Debug, Clone)]
pub struct Berth {
    pub(super) listener: Arc<Listener>,
    pub(super) destination: Destination,
}

impl Berths {
    /// Those of these listeners and sets of servers.
    pub fn new(
        listeners: impl IntoIterator<Item = Arc<Listener>>,
        sets: impl IntoIterator<Item = Arc<ServerSet>>,
    ) -> Self {
        let mut berths = Self::default();
        for listener in listeners {
            let name = listener.forward.name.clone();
            let at = (name.clone(), listener.address.clone());
            berths.listeners.entry(at).or_insert(listener.clone());
            berths.forwards.entry(name).or_insert(listener);
        }
        for set in sets {
            for member in set.members() {
                let server = &member.server;
                let at = (server.settings().pool.clone(), server.endpoint().clone());
                berths.servers.insert(at, server.clone());
            }
        }
        berths
    }

    /// Likewise the sockets of datagrams among those listeners, by the kernel's names of them.
    #[must_use]
    pub fn with_ports(mut self, ports: impl IntoIterator<Item = (u64, Arc<Listener>)>) -> Self {
        self.ports = ports.into_iter().collect();
        self
    }

    /// Where a session belongs. A forward that is there no more has no place for it; a
    /// server that is there no more keeps it, and nobody an account of it.
    pub fn find(&self, manifest: &Manifest) -> Result<Berth, Refusal> {
        let CameIn {
            forward,
            listener,
            route,
            ..
        } = &manifest.came_in;
        let name: Arc<str> = forward.as_str().into();
        let at = (name, listener.clone());
        let listener = self.listeners.get(&at);
        let listener = listener.or_else(|| self.forwards.get(&at.0));
        let listener = listener.ok_or(Refusal::NoForward)?;
        let listener = by_route(listener, route.as_deref())?;
        let pool = manifest.pool.as_deref();
        let server = pool.and_then(|pool| self.server(pool, &manifest.server));
        Ok(Berth {
            listener: listener.clone(),
            destination: match server {
                Some(server) => Destination::Server(server),
                None => Destination::Address(Arc::new(manifest.server.clone())),
            },
        })
    }

    /// Where a session of a forward that is there no more, or of a route, can end: with its name
    /// and its record, in nobody's books. `None`: nothing is listened on at all.
    pub fn find_end(&self, manifest: &Manifest) -> Option<Berth> {
        let name: Arc<str> = manifest.came_in.forward.as_str().into();
        let listener = self.forwards.get(&name).cloned().or_else(|| {
            let any = self.forwards.values().next()?;
            let forward = any.forward.in_name_only(name);
            Some(Listener::new(
                any.id,
                manifest.came_in.listener.clone(),
                Arc::new(forward),
            ))
        })?;
        let destination = Destination::Address(Arc::new(manifest.server.clone()));
        Some(Berth {
            listener,
            destination,
        })
    }

    /// Where a flow belongs: its answers leave by the socket that it came in by. One whose
    /// server is there no more begins anew, at another one.
    pub fn find_flow<C>(&self, manifest: FlowManifest, call: C) -> Result<FlowArrival<C>, Refusal> {
        let at = self.ports.get(&manifest.port).ok_or(Refusal::NoForward)?;
        if *at.forward.name != *manifest.came_in.forward {
            return Err(Refusal::NoForward);
        }
        let by = by_route(at, manifest.came_in.route.as_deref())?;
        let server = self.server(&manifest.pool, &manifest.server);
        Ok(FlowArrival {
            at: at.clone(),
            by: by.clone(),
            server: server.ok_or(Refusal::NoServer)?,
            manifest,
            call,
        })
    }

    /// Where a connection that stands ready belongs.
    pub fn find_spare<D>(&self, manifest: SpareManifest, detached: D) -> Option<MovedSpare<D>> {
        let server = self.server(&manifest.pool, &manifest.server)?;
        Some(MovedSpare {
            manifest,
            server,
            detached,
        })
    }

    fn server(&self, pool: &str, server: &Endpoint) -> Option<Arc<Server>> {
        let at = (Arc::from(pool), server.clone());
        self.servers.get(&at).cloned()
    }
}

/// The same listener for a route.
fn by_route<'a>(
    listener: &'a Arc<Listener>,
    route: Option<&str>,
) -> Result<&'a Arc<Listener>, Refusal> {
    let Some(route) = route else {
        return Ok(listener);
    };
    let takes = |way: &&Arc<Listener>| {
        let of = way.forward.route.as_ref();
        of.is_some_and(|(_, name)| **name == *route)
    };
    let mut ways = listener.ways.iter().flatten();
    ways.find(takes).ok_or(Refusal::NoRoute)
}

impl<E: Engine> Reactor<E> {
    /// Where sessions of another process belong here. Grows with listeners and servers:
    /// asked once for an upgrade.
    pub fn berths(&self) -> Berths {
        let listeners = self.listen_queue.listeners().into_iter().map(|it| it.1);
        Berths::new(listeners, self.dialler.pools.sets())
    }
}
