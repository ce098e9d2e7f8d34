//! How a session is let to a server: whether failures have marked it, and the place of its
//! client among the client's other sessions there.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::server::Server;
use crate::balance::health::Admission;
use crate::net::address::Endpoint;
use crate::reactor::clients::{At, ClientPermit, ClientTable, Limits};

/// What a session was given with its server.
#[derive(Debug)]
pub(in crate::reactor) struct Pass {
    /// How it was admitted.
    pub(in crate::reactor) admission: Admission,
    /// Its place among its client's sessions there, where these are limited. Dropped, it is
    /// free again.
    pub(in crate::reactor) place: Option<ClientPermit>,
}

impl Pass {
    /// To where nobody keeps an account.
    pub(in crate::reactor) const FREE: Self = Self {
        admission: Admission::Free,
        place: None,
    };
}

/// A client on its way to a server, where it may be given a place.
#[derive(Debug, Clone, Copy)]
pub(in crate::reactor) struct Comer<'a> {
    /// The client.
    pub(in crate::reactor) client: &'a Endpoint,
    /// Whether it is asked how many sessions it has.
    pub(in crate::reactor) limited: bool,
}

impl<'a> Comer<'a> {
    /// A client that limits are for.
    pub(in crate::reactor) const fn new(client: &'a Endpoint) -> Self {
        Self {
            client,
            limited: true,
        }
    }

    /// The same one, whom no limit keeps out.
    pub(in crate::reactor) const fn unlimited(client: &'a Endpoint) -> Self {
        Self {
            client,
            limited: false,
        }
    }

    fn ip(&self) -> Option<IpAddr> {
        self.client.ip()
    }

    /// A place at a server for its client, `None` where there is no limit for it; or it has
    /// as many as it may, or nothing can be remembered of it and such are turned away.
    pub(in crate::reactor) fn place(
        &self,
        server: &Server,
        table: Option<&Arc<ClientTable>>,
    ) -> Result<Option<ClientPermit>, ClientHasEnough> {
        // The table first: without it nobody counts clients, and what the server's settings
        // say need not be looked up for each session.
        let Some(table) = table.filter(|_| self.limited) else {
            return Ok(None);
        };
        let (Some(limits), Some(ip)) = (limits(server), self.ip()) else {
            return Ok(None);
        };
        let at = At::Server(server.settings().id);
        let place = ClientTable::admit(table, at, ip, &limits, Instant::now());
        place.map_err(|_| ClientHasEnough)
    }

    /// Likewise of a session that was let to the server elsewhere: no limit keeps it out.
    pub(in crate::reactor) fn place_again(
        &self,
        server: &Server,
        table: Option<&Arc<ClientTable>>,
    ) -> Option<ClientPermit> {
        let (table, limits, ip) = (table?, limits(server)?, self.ip()?);
        let at = At::Server(server.settings().id);
        ClientTable::readmit(table, at, ip, &limits)
    }
}

fn limits(server: &Server) -> Option<Limits> {
    server.max_per_client().map(|most| Limits {
        connections: Some(most),
        rate: None,
        bytes: None,
    })
}

/// A client has as many sessions on a server as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reactor) struct ClientHasEnough;
